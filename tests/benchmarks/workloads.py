"""The four workloads that implementations are compared on, and ours of each.

W1 SGD on f = (1 + x^2) y^2 with noise proportional to the Hessian. W2 the same with heavy ball. W3 Adam on f rotated by pi/6.
W4 SGD with label noise on ||U V^T - M||^2, 5 x 5 x 5: 50 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

import quasistatic as qs
from quasistatic.model.noise import LabelNoise
from quasistatic.numeric.kernel import StochasticMap
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.unfold import map_numbers, unfold

Array = npt.NDArray[np.float64]
ANGLE = np.pi / 6
SIZE = 5


@qs.optimizer(slow_states=["v"])
def adam(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, t: Any) -> Any:
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * (m / (1 - beta1**t)) / (qs.sqrt(v / (1 - beta2**t)) + eps), m, v


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
    def problem(self) -> Any:
        if self.name == "W4":
            return factorization(SIZE)
        return qs.zoo.rotated_valley(sp.pi / 6) if self.name == "W3" else qs.zoo.valley()

    @cached_property
    def step(self) -> StochasticMap:
        """One iteration, as a kernel is emitted from."""
        return unfold(self.rule, self.problem)

    @property
    def reference_numbers(self) -> Array:
        """The numbers that ``reference.c`` takes."""
        return np.array([*self.numbers.values(), *self.extra])

    def run(self, steps: int, trajectories: int = 64, seed: int = 0, threads: int = 1) -> Array:
        """Ours: final parameters (trajectories, d)."""
        lanes = Lanes(self.step, map_numbers(self.step, self.numbers), seed, trajectories, threads)
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
def factorization(m: int) -> Any:
    """||U V^T - M||^2 with label noise, z = U then V, row-major, shapes (m, m).

    A stand-in with what a simulation asks of a problem, because a ``Problem`` needs a formula for its minima, and one in U and V
    that is worth writing does not exist.
    """
    U, V = (sp.Matrix(m, m, [sp.Symbol(f"{n}{i}_{j}", real=True) for i in range(m) for j in range(m)]) for n in "UV")
    M = target(m)
    residuals = [sum(U[i, k] * V[j, k] for k in range(m)) - sp.Float(M[i, j]) for i in range(m) for j in range(m)]
    parameters = (*U, *V)
    index = {p: i for i, p in enumerate(parameters)}
    jacobian = sp.zeros(m * m, len(parameters))
    for j, r in enumerate(residuals):
        for p in r.free_symbols:
            jacobian[j, index[p]] = r.diff(p)
    sigma = qs.symbols("sigma", positive=True)
    noise = LabelNoise(sigma)
    return _Stand(
        parameters=parameters, residuals=tuple(residuals), residual_jacobian=sp.ImmutableMatrix(jacobian), scale=sp.Integer(1),
        blocks=(parameters,), loss=sp.Integer(0), gradient=[sp.Integer(0)] * len(parameters), constants=(sigma,),
        chart=SimpleNamespace(embedding=()), require_noise=lambda: noise,
    )  # fmt: skip


class _Stand(SimpleNamespace):
    __hash__ = object.__hash__


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
            "W3", "Adam, valley at pi/6", adam, _eta(1e-3) | {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "alpha": 0.125}, _TILTED, (ANGLE,)
        ),
        Workload("W4", "SGD, 5x5x5", qs.zoo.sgd, _eta(2e-3) | {"sigma": 0.3}, factorization_start(SIZE), tuple(target(SIZE).ravel())),
    )
}
