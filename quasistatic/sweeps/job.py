"""One point and one seed of a sweep: what travels to a worker, and what the worker does."""

from __future__ import annotations

import pickle
import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quasistatic.derivation.result import SlowResult
from quasistatic.errors import QuasistaticError, SimulationDiverged, StartError, SweepError, UnstableError

#: A comparison is judged; the numbers are outside the conditions; a trajectory stopped being finite; anything else.
OK, UNSTABLE, DIVERGED, FAILED = "ok", "unstable", "diverged", "failed"
#: The worker did not come back, more often than it was tried again.
LOST = "lost"
#: What will not become anything else when it is run again: kept in a results file.
FINAL = (OK, UNSTABLE, DIVERGED)
#: Suffixes of the columns of one compared quantity.
COMPARED = ("theory", "simulation", "error", "z")

_LOCK = threading.Lock()
_DERIVED: dict[bytes, SlowResult] = {}
#: Derivations that a worker remembers.
_REMEMBERED = 4


@dataclass(frozen=True)
class Job:
    """A point of the grid and a seed.

    Attributes
    ----------
    payload:
        The pickled rule, problem and options of the derivation: threads and remote workers all start from these bytes, so
        that they work on the same expressions.
    index:
        Position in the table.
    values, start:
        Name to number: hyperparameters and constants; coordinates.
    options:
        Further options of the validation: ``record``, ``extrapolate``, ...
    versions:
        Of the machine that collects the numbers; a worker with others refuses.
    attempt:
        How often it was sent before. It makes a job that is sent again another one for schedulers that know jobs by content.
    """

    payload: bytes
    index: int
    values: Mapping[str, float]
    seed: int
    start: Mapping[str, float]
    steps: int
    trajectories: int
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    attempt: int = 0

    @property
    def row(self) -> dict[str, Any]:
        """The part of the row that is known before it runs."""
        return {**self.values, "seed": self.seed, "steps": self.steps}


class Stopped(Exception):
    """The sweep was given up while this job ran in a thread of its process."""


def run(job: Job, stop: threading.Event | None = None) -> dict[str, Any]:
    """The row of a job: numbers of the grid, status, and theory, simulation, error and z of every compared quantity.

    What goes wrong with the point itself is part of the row. What goes wrong with the machine is raised, so that the job
    can be sent elsewhere: SweepError for a worker with other versions, OSError, MemoryError.
    """
    _require_same_versions(job)
    try:
        return {**job.row, "status": OK, "message": "", **_compared(job, stop)}
    except (UnstableError, StartError) as error:
        return {**job.row, "status": UNSTABLE, "message": str(error)}
    except SimulationDiverged as error:
        return {**job.row, "status": DIVERGED, "message": str(error)}
    except (Stopped, OSError, MemoryError):
        raise
    except QuasistaticError as error:
        return {**job.row, "status": FAILED, "message": str(error)}
    except Exception as error:  # a mistake in this package or in a user's function: one point less, not the whole sweep
        return {**job.row, "status": FAILED, "message": f"{type(error).__name__}: {error}"}


def _require_same_versions(job: Job) -> None:
    from quasistatic.numeric.ensemble import versions

    here = versions()
    different = [f"{n} {here.get(n)} instead of {v}" for n, v in job.versions.items() if here.get(n) != v]
    if different:
        raise SweepError(
            f"the worker on {platform.node()} has {', '.join(different)}: its numbers could differ. Install the same versions there."
        )


def _compared(job: Job, stop: threading.Event | None) -> dict[str, float]:
    from quasistatic.validate import Row, validate

    def watch(_done: int, _total: int) -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    result = derived(job.payload)
    options: dict[str, Any] = {**job.options, **job.values}
    report = validate(result, job.start, job.steps, job.trajectories, job.seed, progress=watch, **options)
    if report.interrupted:  # Ctrl-C where the executor runs its jobs in the main thread
        raise KeyboardInterrupt
    found: dict[str, float] = {}

    def add(label: str, row: Row) -> None:
        numbers = (row.theory * row.unit, row.simulation * row.unit, row.error * row.unit, row.z)
        found.update({f"{label}_{what}": float(number) for what, number in zip(COMPARED, numbers, strict=True)})

    for i, name in enumerate(report.coordinates):
        add(f"mean_{name}", Row(name, *(float(numbers[-1, i]) for numbers in (report.theory, report.simulation, report.error))))
    rows = {row.quantity: row for row in report.rows}
    for name in report.coordinates:
        if f"variance of {name} at the end" in rows:
            add(f"variance_{name}", rows[f"variance of {name} at the end"])
    for parameter in result.problem.parameters:
        if f"fast variance of {parameter} / theory" in rows:
            add(f"fast_variance_{parameter}", rows[f"fast variance of {parameter} / theory"])
    return found


def derived(payload: bytes) -> SlowResult:
    """The derivation that the bytes describe, once per process."""
    with _LOCK:
        if payload not in _DERIVED:
            result: SlowResult = pickle.loads(payload)
            # before threads read it: each of these is computed when first asked for
            _ = result.drift, result.diffusion, result.covariance, result.conditions, result.averaged_map.rest
            while len(_DERIVED) >= _REMEMBERED:
                del _DERIVED[next(iter(_DERIVED))]
            _DERIVED[payload] = result
        return _DERIVED[payload]
