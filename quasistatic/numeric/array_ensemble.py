"""Trajectories of an optimizer on a large problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quasistatic.errors import QuasistaticError, suggestion
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.ensemble import moments, versions


@dataclass(frozen=True, eq=False)
class ArrayEnsemble:
    """Trajectories of an optimizer on a problem given by array functions.

    Attributes
    ----------
    steps:
        (R,) recorded iterations.
    mean:
        (R, d) parameters, mean over trajectories.
    final:
        (trajectories, d) parameters after the last iteration done.
    final_states:
        (trajectories, 1+q, d): parameters, then the optimizer's own variables.
    records:
        (R, trajectories, d) with ``keep=True``, else None.
    observed:
        Name to (R, trajectories) values of what ``observe`` asked for.
    shapes:
        Name to shape of the arrays that a point is the concatenation of; :meth:`part` takes one out.
    interrupted:
        Whether Ctrl-C ended the run; the last record then is where it stopped.
    seed, start, hyperparameters, rule, problem, versions:
        Provenance; ``start`` is (d,), ``rule`` the rule's source.
    """

    steps: npt.NDArray[np.int64]
    mean: Array
    final: Array
    final_states: Array
    records: Array | None
    observed: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    interrupted: bool
    seed: int
    start: Array
    hyperparameters: Mapping[str, float]
    rule: str
    problem: str
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def trajectories(self) -> int:
        """N."""
        return len(self.final)

    def part(self, name: str, points: Array | None = None) -> Array:
        """The array ``name`` of points (..., d), shape (..., *shape); of ``final`` by default."""
        if name not in self.shapes:
            raise QuasistaticError(f"{name} is not an array of the problem ({', '.join(self.shapes)}).{suggestion(name, self.shapes)}")
        given = self.final if points is None else np.asarray(points, dtype=np.float64)
        at = 0
        for key, shape in self.shapes.items():
            length = int(np.prod(shape))
            if key == name:
                return given[..., at : at + length].reshape(*given.shape[:-1], *shape)
            at += length
        raise AssertionError

    def covariance(self, record: int = -1) -> Array:
        """Covariance (d, d) over trajectories at one record; needs ``keep=True`` unless it is the last."""
        if self.records is not None:
            return moments(self.records[record])[1]
        if record in (-1, len(self.steps) - 1):
            return moments(self.final)[1]
        raise QuasistaticError("the covariance before the last record needs the trajectories: simulate with keep=True.")

    def save(self, path: str | Path) -> None:
        """Keep it in a JSON file for :func:`quasistatic.load`."""
        from quasistatic.storage import save

        save(self, path)

    def __repr__(self) -> str:
        last = f"step {self.steps[-1]}" if len(self.steps) else "no record"
        stopped = ", interrupted" if self.interrupted else ""
        what = f"{self.trajectories} trajectories of {self.final.shape[-1]} parameters ({', '.join(self.shapes)})"
        return f"<{what} to {last}, {len(self.steps)} record(s), seed {self.seed}{stopped}>"

    def __str__(self) -> str:
        values = ", ".join(f"{k}={v:g}" for k, v in self.hyperparameters.items())
        columns = ["norm of the mean", *self.observed]
        lines = [repr(self), f"hyperparameters: {values}", f"{'step':>12}  " + "  ".join(f"{c:>24}" for c in columns)]
        shown = range(len(self.steps)) if len(self.steps) <= 5 else np.linspace(0, len(self.steps) - 1, 5).astype(int)
        for r in shown:
            cells = [f"{np.linalg.norm(self.mean[r]):.6g}"]
            cells += [f"{v[r].mean():.6g} +- {v[r].std(ddof=min(1, len(v[r]) - 1)):.2g}" for v in self.observed.values()]
            lines.append(f"{self.steps[r]:>12}  " + "  ".join(f"{c:>24}" for c in cells))
        return "\n".join([*lines, "(mean +- standard deviation over trajectories)"] if self.observed else lines)
