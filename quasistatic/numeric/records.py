"""What a simulation keeps on its way: moments over the ensemble at chosen iterations, and chosen trajectories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quasistatic.numeric.arguments import Array
from quasistatic.numeric.ensemble import moments

Whole = npt.NDArray[np.int64]

#: Bytes of recorded states that wait for their moments to be taken.
GATHERED = 16 * 2**20


class Records:
    """Mean and covariance of the first ``size`` variables over trajectories, at the iterations ``steps``.

    Trajectories that escaped are left out.

    Parameters
    ----------
    steps:
        Increasing iterations, (R,).
    keep:
        Indices of trajectories whose variables are kept at every record, (K,).
    """

    def __init__(self, steps: Whole, size: int, trajectories: int, keep: Whole | None = None) -> None:
        self.targets, self.size, self.trajectories = steps, size, trajectories
        self.keep: Whole = np.zeros(0, dtype=np.int64) if keep is None else keep
        self.steps: list[int] = []
        self.means: list[Array] = []
        self.covariances: list[Array] = []
        self.counts: list[int] = []
        self.kept: list[Array] = []

    def due(self, first: int, last: int) -> Whole:
        """Recorded iterations in (first, last] of one run of the kernel; fewer where they would need too much memory."""
        found = self.targets[np.searchsorted(self.targets, first, "right") : np.searchsorted(self.targets, last, "right")]
        return found[: max(1, GATHERED // (8 * (self.size + 1) * self.trajectories))]

    def until(self, due: Whole, last: int) -> int:
        """How far a run that records at ``due`` may go: not beyond the next record."""
        behind = self.targets[np.searchsorted(self.targets, due[-1], "right") :] if due.size else due
        return int(due[-1]) if behind.size and behind[0] <= last else last

    def look(self, step: int, values: Array, alive: npt.NDArray[np.bool_] | None = None) -> None:
        """Record ``values`` (N, size) of iteration ``step``, once; only trajectories that are ``alive`` count."""
        if step in self.steps[-1:]:
            return
        chosen = values if alive is None or alive.all() else values[alive]
        nothing = np.full(self.size, np.nan), np.full((self.size, self.size), np.nan)
        mean, covariance = moments(chosen) if len(chosen) else nothing
        self.steps.append(step)
        self.means.append(mean)
        self.covariances.append(covariance)
        self.counts.append(len(chosen))
        self.kept.append(values[self.keep].copy())

    def arrays(self) -> tuple[Whole, Array, Array]:
        """steps (R,), mean (R, d), covariance (R, d, d)."""
        d, R = self.size, len(self.steps)
        mean = np.array(self.means, dtype=np.float64).reshape(R, d)
        return np.array(self.steps, dtype=np.int64), mean, np.array(self.covariances, dtype=np.float64).reshape(R, d, d)

    def kept_array(self) -> Array:
        """(R, K, d)."""
        return np.array(self.kept, dtype=np.float64).reshape(len(self.steps), len(self.keep), self.size)
