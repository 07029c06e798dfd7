"""What a simulation returns, and the provenance that every result carries."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from quasistatic.numeric.arguments import Array

if TYPE_CHECKING:
    from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of everything that decides about the numbers."""
    found = {n: importlib.metadata.version(n) for n in ("quasistatic", "numpy", "scipy", "sympy", "numba", "llvmlite")}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def record_steps(steps: int, record: int) -> npt.NDArray[np.int64]:
    """``record`` equally spaced iterations from 0 to ``steps``, rounded; at most one per iteration; record=1 is the last alone."""
    if record == 1:
        return np.array([steps], dtype=np.int64)
    return np.asarray(np.rint(np.linspace(0, steps, min(record, steps + 1))), dtype=np.int64)


def moments(values: Array) -> tuple[Array, Array]:
    """Mean (k,) and covariance (k, k) over trajectories, values (N, k); the covariance of one trajectory is 0."""
    with np.errstate(over="ignore", invalid="ignore"):  # shortly before a divergence the squares overflow
        mean = values.mean(axis=0)
        rest = values - mean
        return mean, rest.T @ rest / max(len(values) - 1, 1)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trajectories of an optimizer.

    Attributes
    ----------
    steps:
        (R,) recorded iterations.
    mean, covariance:
        (R, d) and (R, d, d): of the parameters, over trajectories.
    final:
        (trajectories, d) parameters after the last iteration done.
    final_states:
        (trajectories, n) all variables after it: parameters, then the first state of every parameter, then the second, ...
    parameters:
        Names, in the order of the axes above.
    interrupted:
        Whether Ctrl-C ended the run; the last record then is where it stopped.
    seed, start, hyperparameters, rule, problem, versions, generator:
        Provenance; ``rule`` is the rule's source.
    counts:
        (R,) trajectories that mean and covariance are taken over: all that have not escaped.
    kept, kept_trajectories:
        (R, K, d) parameters of the trajectories that ``keep`` asked for, and their indices; None without.
    first_passage:
        Expression, as text, to the iteration (N,) at which it first reached its level; -1 where it never did.
    escaped:
        (N,) iteration after which a trajectory was outside the bound ``escape``, -1 where it never was; None without a bound.
    """

    steps: npt.NDArray[np.int64]
    mean: Array
    covariance: Array
    final: Array
    final_states: Array
    parameters: tuple[str, ...]
    interrupted: bool
    seed: int
    start: Mapping[str, float]
    hyperparameters: Mapping[str, float]
    rule: str
    problem: str
    versions: Mapping[str, str] = field(default_factory=versions)
    counts: npt.NDArray[np.int64] | None = None
    kept: Array | None = None
    kept_trajectories: Sequence[int] = ()
    first_passage: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    escaped: npt.NDArray[np.int64] | None = None
    generator: str = "xoshiro"

    @property
    def trajectories(self) -> int:
        """N."""
        return len(self.final)

    def save(self, path: str | Path) -> None:
        """Keep the ensemble in a JSON file for :func:`quasistatic.load`."""
        from quasistatic.storage import save

        save(self, path)

    def __repr__(self) -> str:
        last = f"step {self.steps[-1]}" if len(self.steps) else "no record"
        stopped = ", interrupted" if self.interrupted else ""
        what = f"{self.trajectories} trajectories of {', '.join(self.parameters)}"
        if self.escaped is not None and (self.escaped >= 0).any():
            stopped += f", {int((self.escaped >= 0).sum())} escaped"
        return f"<{what} to {last}, {len(self.steps)} record(s), seed {self.seed}{stopped}>"

    def __str__(self) -> str:
        values = ", ".join(f"{k}={v:g}" for k, v in self.hyperparameters.items())
        lines = [repr(self), f"hyperparameters: {values}", f"{'step':>12}  " + "  ".join(f"{p:>24}" for p in self.parameters)]
        shown = range(len(self.steps)) if len(self.steps) <= 5 else np.linspace(0, len(self.steps) - 1, 5).astype(int)
        for r in shown:
            spread = np.sqrt(np.diag(self.covariance[r]))
            cells = [f"{m:.6g} +- {s:.2g}" for m, s in zip(self.mean[r], spread, strict=True)]
            lines.append(f"{self.steps[r]:>12}  " + "  ".join(f"{c:>24}" for c in cells))
        return "\n".join([*lines, "(mean +- standard deviation over trajectories)"])
