"""What the recovery studies share: their optimizers, and trials side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.rule import Rule
from quasistatic.model.trace import optimizer
from quasistatic.numeric.array_simulate import simulate_array
from quasistatic.symbols import sqrt

Array = npt.NDArray[np.float64]

#: Part of the records at the end of a run over which its result is averaged.
TAIL = 0.4
#: Records of a run.
RECORDS = 401


@optimizer(slow_states=["v"])
def frozen_adam(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any = "9/10", beta2: Any = "999/1000", eps: Any = "1/1000") -> Any:
    """Adam without bias correction, with the paper's numbers."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * m / (sqrt(v) + eps), m, v


@optimizer(slow_states=["v"])
def frozen_adam_quarter(
    z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any = "9/10", beta2: Any = "999/1000", eps: Any = "1/1000"
) -> Any:
    """AdamE with lambda = 1/4."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * m / (sqrt(sqrt(v)) + eps), m, v


@dataclass(frozen=True)
class Training:
    """An optimizer with its learning rate and slow time T = steps*eta^2."""

    rule: Rule
    eta: float
    time: float

    @property
    def steps(self) -> int:
        """Iterations."""
        return round(self.time / self.eta**2)


def trainings(sgd: tuple[float, float], adam: tuple[float, float], quarter: tuple[float, float] | None = None) -> dict[str, Training]:
    """SGD, Adam and AdamE-1/4 by name, each from (eta, T)."""
    found = {"SGD": Training(zoo.sgd, *sgd), "Adam": Training(frozen_adam, *adam)}
    return found if quarter is None else {**found, "AdamE-1/4": Training(frozen_adam_quarter, *quarter)}


def tail(training: Training, problem: ArrayProblem, start: Array, seed: int) -> Array:
    """The recorded points (records, d) of the last part of one trajectory."""
    runs = simulate_array(training.rule, problem, start, training.steps, 1, seed=seed, record=RECORDS, keep=True, eta=training.eta)
    assert runs.records is not None
    return np.asarray(runs.records[-int(TAIL * len(runs.steps)) :, 0])


def side_by_side(trial: Callable[[int], Mapping[str, float]], numbers: Sequence[int], threads: int) -> dict[str, Array]:
    """Name to (trials,) values of ``trial(number)``; compiled code is shared and runs without the interpreter's lock."""
    first = trial(numbers[0])  # compiles
    with ThreadPoolExecutor(max(1, threads)) as pool:
        rest = list(pool.map(trial, numbers[1:]))
    return {k: np.array([r[k] for r in (first, *rest)]) for k in first}


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean and standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
