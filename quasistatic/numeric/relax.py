"""The limit map: where the noiseless rule takes a state, which manifold point belongs to an iterate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import StartError, UnstableError
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric import cache, plans
from quasistatic.numeric.arguments import Array, resolve, whole
from quasistatic.numeric.table import Table


@dataclass(frozen=True, eq=False)
class Limit:
    """Where states came to rest.

    Attributes
    ----------
    coordinates:
        (N, k) coordinates of the manifold.
    z:
        (N, d) parameters.
    states:
        (N, n) all variables.
    iterations:
        (N,) noiseless iterations that it took.
    """

    coordinates: Array
    z: Array
    states: Array
    iterations: npt.NDArray[np.int64]


class Relaxation:
    """The noiseless rule (g = gradient of the loss) iterated to rest, then the problem's coordinate map.

    Parameters
    ----------
    values:
        Name to number of all hyperparameters and constants.
    threads:
        States are spread over this many threads.

    Raises
    ------
    ProblemError
        If the problem has no coordinate map.
    """

    def __init__(self, rule: Rule, problem: Problem, values: Mapping[str, float], threads: int = 1) -> None:
        numbers = resolve(rule, problem, values)
        expressions = problem.chart.require_coordinate_map()
        program = plans.relaxation(rule, problem)
        self.rule, self.problem, self.values = rule, problem, numbers
        self.threads = whole(threads, "threads")
        self._n = program.variables
        self._h = plans.numbers(program, numbers)
        self._kernel = cache.load(program.source).settle
        self._chart = Table("coordinates", expressions, problem.parameters, problem.constants)

    def __call__(
        self,
        states: Any,
        tolerance: float = 1e-4,
        max_iterations: int = 200_000,
        floor: float = 1e-15,
        iteration: float = math.inf,
    ) -> Limit:
        """Iterate ``states``, shape (N, n) or (n,), until they stand still.

        Parameters
        ----------
        tolerance:
            A state is done when its largest change in one step is below this fraction of its largest change so far, so
            that about the same fraction of its distance from the manifold is left.
        floor:
            Absolute change at which it is done anyway.
        iteration:
            The iteration number of a rule that uses t; by default so late that bias corrections are over.

        Raises
        ------
        UnstableError
            If a state is not at rest after ``max_iterations``.
        StartError
            For states of a wrong shape, or not finite.
        """
        Z = np.array(states, dtype=np.float64, ndmin=2, order="C")
        if Z.ndim != 2 or Z.shape[1] != self._n:
            raise StartError(f"states have shape {np.shape(states)}; expected (N, {self._n}).")
        if not np.isfinite(Z).all():
            raise StartError("states: a number is not finite.")
        steps = np.zeros(len(Z), dtype=np.int64)
        self._settle(Z, steps, (iteration, tolerance, floor, whole(max_iterations, "max_iterations")))
        moving = np.flatnonzero(steps < 0)
        if moving.size:
            raise UnstableError(self._not_at_rest(Z, int(moving[0]), int(moving.size), max_iterations))
        z = Z[:, : len(self.problem.parameters)].copy()
        return Limit(self._chart(z, self.values), z, Z, steps)

    def _settle(self, Z: Array, steps: npt.NDArray[np.int64], how: tuple[float, float, float, int]) -> None:
        clock, tolerance, floor, limit = how
        parts = np.array_split(np.arange(len(Z)), min(self.threads, max(len(Z), 1)))
        jobs = [(Z[p[0] : p[-1] + 1], self._h, clock, tolerance, floor, limit, steps[p[0] : p[-1] + 1]) for p in parts if p.size]
        if len(jobs) <= 1:
            for job in jobs:
                self._kernel(*job)
            return
        with ThreadPoolExecutor(len(jobs)) as pool:
            list(pool.map(lambda job: self._kernel(*job), jobs))

    def _not_at_rest(self, Z: Array, row: int, count: int, limit: int) -> str:
        what = f"{count} of {len(Z)} state(s)"
        if not np.isfinite(Z[row]).all():
            return f"the noiseless rule diverges from {what}: they are outside the basin of the minima, or eta is too large."
        where = ", ".join(f"{p}={v:.6g}" for p, v in zip(self.problem.parameters, Z[row], strict=False))
        return f"the noiseless rule is not at rest after {limit} iterations from {what} (one is now at {where}): raise max_iterations."
