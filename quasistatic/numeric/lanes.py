"""Many trajectories of one stochastic map side by side: state, streams, threads, and what happens when one diverges."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import SimulationDiverged, StartError
from quasistatic.numeric import cache
from quasistatic.numeric.arguments import Array, Progress, seed_number, whole
from quasistatic.numeric.kernel import LaneProgram, StochasticMap, best_lanes, lane_program
from quasistatic.numeric.random import streams
from quasistatic.numeric.records import Records

#: Bytes.
CACHE_LINE = 64

#: Wall time in seconds between two looks at Ctrl-C, finiteness and progress.
CHUNK_SECONDS = 0.2

_Saved = tuple[Array, npt.NDArray[np.uint64], int]
_NO_STEPS = np.zeros(0, dtype=np.int64)


class Lanes:
    """N trajectories; the numbers of a trajectory depend on the map, its start, the seed and its index, on nothing else.

    Parameters
    ----------
    step:
        The map, or its kernel.
    numbers:
        Values of the map's arguments, then of its data (:func:`quasistatic.numeric.unfold.map_numbers`).
    salt:
        Changed bits of the seed.
    generator:
        Of the normals, see :mod:`quasistatic.numeric.random`; a kernel brings its own.
    bounds:
        Level and side of every watched passage, then the bound of escapes, where the kernel has them.

    Attributes
    ----------
    step:
        Iterations done.
    """

    def __init__(
        self,
        step: StochasticMap | LaneProgram,
        numbers: Array,
        seed: int,
        trajectories: int,
        threads: int = 1,
        salt: int = 0,
        *,
        generator: str = "xoshiro",
        bounds: Sequence[float] = (),
    ) -> None:
        self.trajectories = whole(trajectories, "trajectories")
        self.threads = whole(threads, "threads")
        if isinstance(step, StochasticMap):
            step = lane_program(step, generator, lanes=best_lanes(step, self.trajectories, self.threads))
        self.program = step
        self.numbers = np.array([*numbers, *bounds], dtype=np.float64)
        self.step = 0
        self.remedy = "Take a smaller step."
        self.names = tuple(f"variable {i}" for i in range(step.variables))
        self.start_remedy = "It happens in the first step: the start is the cause, where the gradient or the noise is not finite."
        self._started = 0
        self._kernel = cache.load(step.source).advance
        blocks = -(-self.trajectories // step.lanes)
        self._Z: Array = _aligned((blocks, step.rows, step.lanes), np.float64)
        self._Z[:, step.passage_row : step.state_rows] = -1.0
        words = streams(seed_number(seed) ^ salt, blocks * step.lanes, step.generator)
        self._S: npt.NDArray[np.uint64] = _aligned((blocks, len(words), step.lanes), np.uint64)
        self._S[:] = words.reshape(len(words), blocks, step.lanes).transpose(1, 0, 2)
        self._chunk = 16
        self._pool: ThreadPoolExecutor | None = None

    @property
    def noise_rank(self) -> int:
        """Normals per trajectory and iteration."""
        return self.program.normals

    @property
    def states(self) -> Array:
        """Current variables, shape (N, n)."""
        return self._rows(0, self.program.variables)

    @property
    def passages(self) -> npt.NDArray[np.int64]:
        """Iteration of the first passage, -1 where there was none yet, shape (N, watched passages)."""
        return self._rows(self.program.passage_row, self.program.escape_row).astype(np.int64)

    @property
    def escapes(self) -> npt.NDArray[np.int64]:
        """Iteration after which a trajectory was outside the bound, -1 where it never was, shape (N,)."""
        if not self.program.escape:
            return np.full(self.trajectories, -1)
        return self._rows(self.program.escape_row, self.program.state_rows)[:, 0].astype(np.int64)

    def _rows(self, first: int, last: int) -> Array:
        chosen = self._Z[:, first:last].transpose(0, 2, 1).copy(order="C")  # never a view: the state goes on
        return chosen.reshape(len(chosen) * self.program.lanes, last - first)[: self.trajectories]

    def set_state(self, states: Any) -> None:
        """Put the trajectories at ``states``, shape (N, n) or (n,); streams and the iteration number go on."""
        n, lanes = self.program.variables, self.program.lanes
        given = np.asarray(states, dtype=np.float64)
        if given.shape not in ((n,), (self.trajectories, n)):
            raise StartError(f"states have shape {given.shape}; expected ({self.trajectories}, {n}) or ({n},).")
        if not np.isfinite(given).all():
            raise StartError("states: a number is not finite.")
        padded = np.empty((self._Z.shape[0] * lanes, n))
        padded[: self.trajectories] = given
        padded[self.trajectories :] = padded[self.trajectories - 1]
        self._Z[:, :n] = padded.reshape(-1, lanes, n).transpose(0, 2, 1)
        self._started = self.step

    def advance(self, steps: int, progress: Progress | None = None, records: Records | None = None) -> None:
        """Do ``steps`` iterations, calling ``progress(done, steps)`` about five times a second, and record on the way.

        An exception, Ctrl-C too, leaves all trajectories at the last iteration that all of them have done.

        Raises
        ------
        SimulationDiverged
            If a trajectory stops being finite (and escapes are not watched); the state is left at the iteration before.
        """
        first, last = self.step, self.step + whole(steps, "steps", 0)
        while self.step < last:
            saved = self._save()
            begun, target = time.perf_counter(), min(last, self.step + self._chunk)
            due = _NO_STEPS if records is None else records.due(self.step, target)
            target = target if records is None else records.until(due, target)
            try:
                written = self._run(target, due, records)
                finite = self._finite()
            except BaseException:
                self._restore(saved)
                raise
            if not finite.all():
                self._raise_diverged(saved, records)
            self._take(records, due, written)
            self._adapt(target - saved[2], time.perf_counter() - begun)
            if progress is not None:
                progress(self.step - first, steps)

    def _take(self, records: Records | None, due: npt.NDArray[np.int64], written: Array) -> None:
        """Hand over what was recorded: (R, N, size), and behind it the row of escapes."""
        if records is not None:
            for step, values in zip(due, written, strict=True):
                alive = values[:, -1] < 0 if self.program.escape else None
                records.look(int(step), np.ascontiguousarray(values[:, : records.size]), alive)

    def look(self, records: Records) -> None:
        """Record the current iteration, once."""
        records.look(self.step, self.states[:, : records.size], self.escapes < 0)

    def _adapt(self, done: int, seconds: float) -> None:
        if done == self._chunk or seconds > CHUNK_SECONDS:
            self._chunk = max(1, min(16 * self._chunk, int(done * CHUNK_SECONDS / max(seconds, 1e-9))))

    def _run(self, target: int, due: npt.NDArray[np.int64] = _NO_STEPS, records: Records | None = None) -> Array:
        """All blocks to iteration ``target``; in an exception, no thread is left working on the state.

        Returns what was recorded at ``due``: (R, N, size), and behind it the row of escapes.
        """
        stops = due if due.size and due[-1] == target else np.append(due, target)
        size = self.program.variables if records is None else records.size
        blocks, width = len(self._Z), size + self.program.escape
        out = np.empty((blocks, len(due), width, self.program.lanes))
        self._work([
            (self._Z[b].reshape(-1), self._S[b].reshape(-1), self.numbers, self.program.table, self.step, stops, len(due), size,
             out[b].reshape(-1)) for b in range(blocks)
        ])  # fmt: skip
        self.step = target
        return out.transpose(1, 0, 3, 2).reshape(len(due), blocks * self.program.lanes, width)[:, : self.trajectories]

    def _work(self, jobs: Sequence[tuple[Any, ...]]) -> None:
        if self.threads == 1 or len(jobs) == 1:
            for job in jobs:
                self._kernel(*job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        futures = [self._pool.submit(self._kernel, *job) for job in jobs]
        try:
            for future in futures:
                future.result()
        finally:
            wait(futures)

    def _finite(self) -> npt.NDArray[np.bool_]:
        """Which trajectories are finite, or have escaped and are reported as that."""
        finite = np.isfinite(self._Z[:, : self.program.variables]).all(axis=1).ravel()[: self.trajectories]
        return np.asarray(finite | (self.escapes >= 0) if self.program.escape else finite)

    def _save(self) -> _Saved:
        return self._Z[:, : self.program.state_rows].copy(), self._S.copy(), self.step

    def _restore(self, saved: _Saved) -> None:
        self._Z[:, : self.program.state_rows], self._S[:], self.step = saved

    def _raise_diverged(self, saved: _Saved, records: Records | None) -> None:
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
        lost = [name for i, name in enumerate(self.names) if not np.isfinite(self.states[:, i]).all()]
        self._restore(here)
        listed = ", ".join(lost[:6]) + (", ..." if len(lost) > 6 else "")
        if records is not None:  # what was recorded on the way to the last good iteration
            self._restore(saved)
            while self.step < bad - 1:
                due = records.due(self.step, bad - 1)
                self._take(records, due, self._run(records.until(due, bad - 1), due, records))
        what = f"after step {bad}, {count} of {self.trajectories} trajectories are not finite ({listed})"
        remedy = self.start_remedy if bad == self._started + 1 else self.remedy
        raise SimulationDiverged(f"the simulation diverged: {what}. {remedy}", bad, None)


def _aligned(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Zeros that begin on a cache line: a SIMD load across two lines takes twice as long."""
    size = 8 * math.prod(shape)
    memory = np.zeros(size + CACHE_LINE, dtype=np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return np.asarray(memory[first : first + size].view(dtype).reshape(shape))
