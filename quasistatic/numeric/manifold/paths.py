"""Paths on a manifold without coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from quasistatic.numeric.arguments import Array


@dataclass(frozen=True, eq=False)
class ManifoldTrajectory:
    """A path of the deterministic slow dynamics.

    Attributes
    ----------
    steps:
        (R,) iterations.
    z:
        (R, d) points of the manifold.
    slow:
        (R, m) slow states of the rule; None where it has none, or where they follow the point.
    evaluations:
        Number of right-hand sides that were computed.
    """

    steps: Array
    z: Array
    slow: Array | None
    evaluations: int

    def __repr__(self) -> str:
        return f"<manifold trajectory of {self.z.shape[1]} parameters to {self.steps[-1]:g}, {len(self.steps)} record(s)>"


@dataclass(frozen=True, eq=False)
class ManifoldEnsemble:
    """Paths of the slow SDE on a manifold.

    Attributes
    ----------
    steps:
        (R,) iterations.
    mean:
        (R, d) of the points, over paths; off the manifold where it is curved.
    variance:
        (R, d) of every parameter, over paths.
    final:
        (N, d) end points.
    seed:
        Of the noise.
    """

    steps: Array
    mean: Array
    variance: Array
    final: Array
    seed: int

    def __repr__(self) -> str:
        return f"<{len(self.final)} paths on a manifold in {self.mean.shape[1]} parameters to {self.steps[-1]:g}, seed {self.seed}>"
