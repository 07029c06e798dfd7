"""The four workloads that implementations are compared on, and ours of each.

W1 SGD on f = (1 + x^2) y^2 with noise proportional to the Hessian. W2 the same with heavy ball. W3 Adam on f rotated by pi/6.
W4 SGD with label noise on ||U V^T - M||^2, 5 x 5 x 5: 50 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import sympy as sp

import quasistatic as qs
from quasistatic.numeric.kernel import LaneProgram, StochasticMap, best_lanes, lane_program
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.unfold import map_numbers, unfold

Array = npt.NDArray[np.float64]
ANGLE = np.pi / 6
SIZE = 5


@dataclass(frozen=True)
class Workload:
    """One rule on one problem.

    Attributes
    ----------
    name, title:
        E.g. "W1", and what it is.
    rule:
        The traced rule.
    numbers:
        Hyperparameters and constants, in the order in which ``reference.c`` takes them.
    start:
        (d,) parameters.
    extra:
        What else ``reference.c`` takes.
    """

    name: str
    title: str
    rule: qs.Rule
    numbers: Mapping[str, float]
    start: Array
    extra: tuple[float, ...] = ()

    @cached_property
    def problem(self) -> qs.Problem:
        if self.name == "W4":
            return factorization(SIZE)
        return qs.zoo.rotated_valley(sp.pi / 6) if self.name == "W3" else qs.zoo.valley()

    @cached_property
    def step(self) -> StochasticMap:
        """One iteration, as a kernel is emitted from."""
        return unfold(self.rule, self.problem)

    def program(self, trajectories: int, threads: int) -> LaneProgram:
        """Its kernel."""
        lanes = best_lanes(self.step, trajectories, threads)
        if lanes not in self._programs:
            self._programs[lanes] = lane_program(self.step, lanes=lanes)
        return self._programs[lanes]

    @cached_property
    def _programs(self) -> dict[int, LaneProgram]:
        return {}

    @property
    def reference_numbers(self) -> Array:
        """The numbers that ``reference.c`` takes."""
        return np.array([*self.numbers.values(), *self.extra])

    def run(self, steps: int, trajectories: int = 64, seed: int = 0, threads: int = 1) -> Array:
        """Ours: final parameters (trajectories, d)."""
        lanes = Lanes(self.program(trajectories, threads), map_numbers(self.step, self.numbers), seed, trajectories, threads)
        state = np.zeros(len(self.step.variables))
        state[: len(self.start)] = self.start
        lanes.set_state(state)
        lanes.advance(steps)
        return lanes.states[:, : len(self.start)]


def target(m: int) -> Array:
    """M of a factorization, shape (m, m): numbers without a pattern."""
    return np.round(np.random.default_rng(m).normal(size=(m, m)), 3)


def factorization_start(m: int) -> Array:
    """U, then V, with U V^T = M and |U| about |V|; shape (2 m^2,)."""
    left, values, right = np.linalg.svd(target(m))
    return np.concatenate([(left * np.sqrt(values)).ravel(), (right.T * np.sqrt(values)).ravel()])


@cache
def factorization(m: int) -> qs.Problem:
    """||U V^T - M||^2 with label noise, z = U then V, row-major, shapes (m, m)."""
    U, V = (sp.Matrix(m, m, [sp.Symbol(f"{n}{i}_{j}", real=True) for i in range(m) for j in range(m)]) for n in "UV")
    M = target(m)
    residuals = [sp.Add(*(U[i, k] * V[j, k] for k in range(m)), -sp.Float(M[i, j])) for i in range(m) for j in range(m)]
    noise = qs.LabelNoise(qs.symbols("sigma", positive=True))
    return qs.Problem.from_residuals(residuals, noise=noise, scale=1, parameters=(*U, *V))


def _eta(value: float) -> dict[str, float]:
    return {"eta": value}


_VALLEY = np.array([2.0, 0.0])
_TILTED = np.array([2 * np.cos(ANGLE), -2 * np.sin(ANGLE)])
WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", "SGD, valley", qs.zoo.sgd, _eta(1e-2) | {"alpha": 0.125}, _VALLEY),
        Workload("W2", "heavy ball, valley", qs.zoo.heavy_ball, _eta(1e-3) | {"mu": 0.9, "alpha": 0.125}, _VALLEY),
        Workload(
            "W3",
            "Adam, valley at pi/6",
            qs.zoo.adam,
            _eta(1e-3) | {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "alpha": 0.125},
            _TILTED,
            (ANGLE,),
        ),
        Workload("W4", "SGD, 5x5x5", qs.zoo.sgd, _eta(2e-3) | {"sigma": 0.3}, factorization_start(SIZE), tuple(target(SIZE).ravel())),
    )
}
