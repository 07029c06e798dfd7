"""Many trajectories of one stochastic map side by side: state, streams, threads, and what happens when one diverges."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import SimulationDiverged, StartError
from quasistatic.numeric import cache
from quasistatic.numeric.arguments import Array, Progress, seed_number, whole
from quasistatic.numeric.kernel import LANES, StochasticMap
from quasistatic.numeric.random import streams

#: Wall time in seconds between two looks at Ctrl-C, finiteness and progress.
CHUNK_SECONDS = 0.2

_Saved = tuple[Array, npt.NDArray[np.uint64], int]


class Lanes:
    """N trajectories; the numbers of a trajectory depend on the map, its start, the seed and its index, on nothing else.

    Attributes
    ----------
    step:
        Iterations done.
    """

    def __init__(self, step: StochasticMap, numbers: Array, seed: int, trajectories: int, threads: int = 1, salt: int = 0) -> None:
        self.map = step
        self.numbers = np.ascontiguousarray(numbers, dtype=np.float64)
        self.trajectories = whole(trajectories, "trajectories")
        self.threads = whole(threads, "threads")
        self.step = 0
        self.remedy = "Take a smaller step."
        self._kernel = cache.load(step.lane_source).advance
        n, r = len(step.variables), len(step.normals)
        blocks = -(-self.trajectories // LANES)
        self._Z: Array = np.zeros((blocks, n + r + r % 2, LANES))
        words = streams(seed_number(seed) ^ salt, blocks * LANES)
        self._S = np.ascontiguousarray(words.reshape(4, blocks, LANES).transpose(1, 0, 2))
        self._chunk = 16
        self._pool: ThreadPoolExecutor | None = None

    @property
    def noise_rank(self) -> int:
        """Normals per trajectory and iteration."""
        return len(self.map.normals)

    @property
    def states(self) -> Array:
        """Current variables, shape (N, n)."""
        n = len(self.map.variables)
        return np.ascontiguousarray(self._Z[:, :n].transpose(0, 2, 1)).reshape(-1, n)[: self.trajectories]

    def set_state(self, states: Any) -> None:
        """Put the trajectories at ``states``, shape (N, n) or (n,); streams and the iteration number go on."""
        n = len(self.map.variables)
        given = np.asarray(states, dtype=np.float64)
        if given.shape not in ((n,), (self.trajectories, n)):
            raise StartError(f"states have shape {given.shape}; expected ({self.trajectories}, {n}) or ({n},).")
        if not np.isfinite(given).all():
            raise StartError("states: a number is not finite.")
        padded = np.empty((self._Z.shape[0] * LANES, n))
        padded[: self.trajectories] = given
        padded[self.trajectories :] = padded[self.trajectories - 1]
        self._Z[:, :n] = padded.reshape(-1, LANES, n).transpose(0, 2, 1)

    def advance(self, steps: int, progress: Progress | None = None) -> None:
        """Do ``steps`` iterations, calling ``progress(done, steps)`` about five times a second.

        An exception, Ctrl-C too, leaves all trajectories at the last iteration that all of them have done.

        Raises
        ------
        SimulationDiverged
            If a trajectory stops being finite; the state is left at the iteration before.
        """
        first, last = self.step, self.step + whole(steps, "steps", 0)
        while self.step < last:
            saved = self._save()
            begun, target = time.perf_counter(), min(last, self.step + self._chunk)
            try:
                self._run(target)
                finite = self._finite()
            except BaseException:
                self._restore(saved)
                raise
            if not finite.all():
                self._raise_diverged(saved)
            self._adapt(target - saved[2], time.perf_counter() - begun)
            if progress is not None:
                progress(self.step - first, steps)

    def _adapt(self, done: int, seconds: float) -> None:
        if done == self._chunk or seconds > CHUNK_SECONDS:
            self._chunk = max(1, min(16 * self._chunk, int(done * CHUNK_SECONDS / max(seconds, 1e-9))))

    def _run(self, target: int) -> None:
        """All blocks to iteration ``target``; in an exception, no thread is left working on the state."""
        jobs = [(self._Z[b].reshape(-1), self._S[b].reshape(-1), self.numbers, self.step, target) for b in range(len(self._Z))]
        if self.threads == 1 or len(jobs) == 1:
            for job in jobs:
                self._kernel(*job)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads)
            futures = [self._pool.submit(self._kernel, *job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            finally:
                wait(futures)
        self.step = target

    def _finite(self) -> npt.NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.states).all(axis=1))

    def _save(self) -> _Saved:
        return self._Z.copy(), self._S.copy(), self.step

    def _restore(self, saved: _Saved) -> None:
        self._Z[:], self._S[:], self.step = saved

    def _raise_diverged(self, saved: _Saved) -> None:
        """Bisect for the first iteration after which a trajectory is not finite, between ``saved`` and now."""
        bad = self.step
        self._restore(saved)
        while bad - self.step > 1:
            here, middle = self._save(), (self.step + bad) // 2
            self._run(middle)
            if not self._finite().all():
                bad = middle
                self._restore(here)
        here = self._save()
        self._run(bad)
        count = int((~self._finite()).sum())
        lost = [v.name.replace(" ", "_") for i, v in enumerate(self.map.variables) if not np.isfinite(self.states[:, i]).all()]
        self._restore(here)
        listed = ", ".join(lost[:6]) + (", ..." if len(lost) > 6 else "")
        what = f"after step {bad}, {count} of {self.trajectories} trajectories are not finite ({listed})"
        raise SimulationDiverged(f"the simulation diverged: {what}. {self.remedy}", bad, None)
