"""Running a sweep: jobs out to an executor, rows back, kept as they come."""

from __future__ import annotations

import inspect
import os
import pickle
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from quasistatic.derivation.result import SlowResult
from quasistatic.errors import HyperparameterError, SweepError, suggestion
from quasistatic.numeric.arguments import Progress, point, whole
from quasistatic.sweeps.cluster import connect, is_cut_off
from quasistatic.sweeps.grid import Grid, Steps, grid_points, seed_numbers, step_counts
from quasistatic.sweeps.job import LOST, Job, Stopped, run
from quasistatic.sweeps.results import ResultsFile, digest, key
from quasistatic.sweeps.table import RESERVED, SweepTable

#: Seconds between two looks at what cannot interrupt a wait: a scheduler that is gone, Ctrl-C on some platforms.
_PATIENCE = 1.0
#: Records of a path, besides the start: fewer than a validation has, since only its end is judged.
RECORDS = 20


def sweep(
    result: SlowResult,
    grid: Grid,
    start: Mapping[Any, Any],
    steps: Steps,
    trajectories: int = 128,
    seeds: int | Sequence[int] = 1,
    *,
    executor: Executor | str | None = None,
    results: str | Path | None = None,
    progress: Progress | None = None,
    retries: int = 2,
    options: Mapping[str, Any] | None = None,
    **hyper: Any,
) -> SweepTable:
    """Simulation and theory of a result over a grid; arguments as for :func:`quasistatic.sweep`."""
    points = grid_points(result.rule, result.problem, grid, hyper)
    _require_distinct_columns(result, points[0])
    jobs = _jobs(result, points, start, steps, whole(trajectories, "trajectories", _fewest()), seeds, _checked_options(options))
    retries = whole(retries, "retries", 0)
    names = tuple(points[0])
    identity = _identity(result, points, jobs)
    with ExitStack() as stack:
        kept = None if results is None else stack.enter_context(ResultsFile(results, identity))
        rows = {} if kept is None else kept.rows
        loop = _Loop([j for j in jobs if key(j.row, names) not in rows], len(jobs), kept, progress, retries)
        if loop.jobs:
            pool, stop = stack.enter_context(_pool(executor))
            loop.run(pool, stop)
    found = {**{key(row, names): row for row in loop.rows}, **rows}
    ordered = tuple(found[k] for k in (key(j.row, names) for j in jobs) if k in found)
    return SweepTable(ordered, names, len(jobs), identity, loop.interrupted)


# -- what runs ---------------------------------------------------------------------------------------------------------


def _fewest() -> int:
    from quasistatic.validate import FEWEST

    return FEWEST


def _require_distinct_columns(result: SlowResult, values: Mapping[str, float]) -> None:
    columns = [*RESERVED, *(f"{a}_{b}" for a in ("mean", "variance", "fast_variance") for b in map(str, result.problem.parameters))]
    for name in values:
        if name in RESERVED or any(name.startswith(f"{c}_") for c in columns[len(RESERVED) :]):
            raise HyperparameterError(f"{name} would be a hyperparameter or constant and another column of the table: rename it.")


def _checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of the validation by name, without those that the sweep sets itself."""
    from quasistatic.validate import validate

    own = ("result", "start", "steps", "trajectories", "seed", "progress", "hyper")
    known = [n for n in inspect.signature(validate).parameters if n not in own]
    given = dict(options or {})
    for name in given:
        if name not in known:
            raise SweepError(f"options: there is no {name!r}.{suggestion(str(name), known)} There is: {', '.join(known)}.")
    return {"record": RECORDS, **given}


def _jobs(
    result: SlowResult,
    points: tuple[dict[str, float], ...],
    start: Mapping[Any, Any],
    steps: Steps,
    trajectories: int,
    seeds: int | Sequence[int],
    options: Mapping[str, Any],
) -> list[Job]:
    """One job per point and seed, in the order of the table."""
    from quasistatic.numeric.ensemble import versions

    here = {c.name: float(v) for c, v in zip(result.coordinates, point(start, result.coordinates, "coordinate"), strict=True)}
    payload, same = pickle.dumps(result), versions()
    numbers = seed_numbers(seeds, len(points))
    listed = [(values, count, s) for values, count in zip(points, step_counts(steps, points), strict=True) for s in numbers]
    return [Job(payload, i, values, s, here, count, trajectories, options, same) for i, (values, count, s) in enumerate(listed)]


def _identity(result: SlowResult, points: Sequence[Mapping[str, float]], jobs: Sequence[Job]) -> dict[str, Any]:
    """What makes this sweep this sweep, as plain data: provenance, and the header of a results file."""
    rule, problem, first = result.rule, result.problem, jobs[0]
    per_point = len(jobs) // len(points)
    order = result.order.symbol
    identity = {
        "rule": rule.name,
        "record": str(rule.trace),
        "initial": {s.name: str(s.initial) for s in rule.trace.states},
        "fixed": {n: str(v) for n, v in rule.fixed.items()},
        "source": rule.text,
        "problem": repr(problem),
        "problem_name": problem.name,
        "parameters": [str(p) for p in problem.parameters],
        "coordinates": {str(c): str(e) for c, e in zip(problem.chart.coordinates, problem.chart.require_coordinate_map(), strict=True)},
        "time": result.time,
        "leading": None if order is None else str(order),
        "route": result.route,
        "names": list(points[0]),
        "points": [list(p.values()) for p in points],
        "seeds": [j.seed for j in jobs[:per_point]],
        "steps": [j.steps for j in jobs[::per_point]],
        "start": dict(first.start),
        "trajectories": first.trajectories,
        "options": {n: v if isinstance(v, (bool, int, float, str, type(None))) else repr(v) for n, v in first.options.items()},
        "versions": dict(first.versions),
    }
    return {**identity, "sha256": digest(identity)}


# -- where it runs -----------------------------------------------------------------------------------------------------


@contextmanager
def _pool(executor: Executor | str | None) -> Iterator[tuple[Executor, threading.Event | None]]:
    """The executor, and for threads of this process the event that tells running jobs to give up."""
    if executor is None:
        pool = ThreadPoolExecutor(_processors(), thread_name_prefix="sweep")
        try:
            yield pool, threading.Event()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    elif isinstance(executor, str):
        with connect(executor) as remote:
            yield remote, None
    elif isinstance(executor, Executor):
        yield executor, threading.Event() if isinstance(executor, ThreadPoolExecutor) else None
    else:
        remedy = "pass its .get_executor()" if hasattr(executor, "get_executor") else "pass one, the address of a Dask scheduler, or None"
        raise SweepError(f"executor = {executor!r} is not a concurrent.futures.Executor: {remedy}.")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Loop:
    """Jobs of one sweep: sent, collected, sent again where a worker died."""

    def __init__(self, jobs: list[Job], total: int, kept: ResultsFile | None, progress: Progress | None, retries: int) -> None:
        # the longest first: then none of them is left over at the end while other workers have nothing to do
        self.jobs = sorted(jobs, key=lambda j: -j.steps)
        self.total, self.kept, self.progress, self.retries = total, kept, progress, retries
        self.rows: list[dict[str, Any]] = []
        self.interrupted = False
        self._sent: dict[Future[Any], Job] = {}
        self._back: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def run(self, pool: Executor, stop: threading.Event | None) -> None:
        """Until every job has a row, or Ctrl-C; in any case no job is left running in this process's threads."""
        try:
            self._tell()
            for job in self.jobs:
                self._send(pool, job, stop)
                while not self._back.empty():
                    self._take(pool, self._back.get(), stop)
            while self._sent:
                try:
                    future = self._back.get(timeout=_PATIENCE)
                except queue.Empty:
                    if is_cut_off(pool):
                        raise SweepError(f"the connection to the scheduler is lost. {self._standing()}") from None
                    continue
                self._take(pool, future, stop)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            if stop is not None:
                stop.set()
            for future in () if is_cut_off(pool) else self._sent:
                future.cancel()

    def _send(self, pool: Executor, job: Job, stop: threading.Event | None) -> None:
        try:
            future = pool.submit(run, job) if stop is None else pool.submit(run, job, stop)
        except Exception as error:  # every kind of executor has its own
            why = f"{type(error).__name__}: {error}"
            raise SweepError(f"the executor takes no more jobs ({why}). {self._standing()}") from None
        self._sent[future] = job
        future.add_done_callback(self._back.put)

    def _take(self, pool: Executor, future: Future[Any], stop: threading.Event | None) -> None:
        job = self._sent.pop(future)
        error = CancelledError("cancelled by its executor") if future.cancelled() else future.exception()
        if error is None:
            self._keep(future.result())
        elif isinstance(error, (SweepError, Stopped, KeyboardInterrupt)):
            raise error
        elif isinstance(error, BrokenExecutor):
            raise SweepError(f"the executor is broken ({error}). {self._standing()}") from None
        elif isinstance(error, ImportError):
            raise SweepError(f"the workers cannot import what they need ({error}): install quasistatic there.") from None
        elif job.attempt < self.retries:
            self._send(pool, replace(job, attempt=job.attempt + 1), stop)
        else:
            why = f"{type(error).__name__}: {error} (sent {job.attempt + 1} times)"
            self._keep({**job.row, "status": LOST, "message": why})

    def _keep(self, row: dict[str, Any]) -> None:
        if self.kept is not None:
            self.kept.add(row)
        self.rows.append(row)
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.total - len(self.jobs) + len(self.rows), self.total)

    def _standing(self) -> str:
        done = self.total - len(self.jobs) + len(self.rows)
        if self.kept is None:
            return f"{done} of {self.total} rows were done; with results= they would be kept."
        return f"{done} of {self.total} rows are kept in {self.kept.path}; run the sweep again to go on."
