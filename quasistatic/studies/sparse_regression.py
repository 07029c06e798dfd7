"""Sparse regression with a diagonal network: which norm an optimizer minimises along the minima decides what it recovers.

w = u^2 - v^2 in 40 dimensions, a truth with 3 entries of +-1, n Gaussian measurements, batch-1 label noise of strength 1.
SGD should find the minimum of the weighted l1 norm (a linear programme), Adam goes for l_1/2, AdamE-lambda for l_(1-lambda).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import QuasistaticError
from quasistatic.model.noise import LabelNoise
from quasistatic.studies.recovery import mean_and_error, side_by_side, tail, trainings
from quasistatic.zoo.residuals.diagonal import Diagonal

Array = npt.NDArray[np.float64]

#: (eta, T) of every optimizer.
TRAININGS = trainings((0.004, 10.0), (0.002, 2.5), (0.003, 5.0))


@dataclass(frozen=True, eq=False)
class Recovery:
    """Relative errors |w - truth|/|truth| of the averaged w.

    Attributes
    ----------
    samples:
        n.
    errors:
        Optimizer, or "linear programme", to (trials,).
    distance:
        Optimizer to (trials,) distances |w - w of the programme|/|truth|.
    """

    samples: int
    errors: dict[str, Array]
    distance: dict[str, Array]

    def mean(self, name: str) -> tuple[float, float]:
        """Mean error and its standard error."""
        return mean_and_error(self.errors[name])

    def paired(self, one: str, other: str) -> tuple[float, float]:
        """Mean difference of errors, one minus other, and its standard error."""
        return mean_and_error(self.errors[one] - self.errors[other])


def instance(samples: int, trial: int, dimension: int = 40, sparsity: int = 3) -> tuple[Array, Array]:
    """X (n, 40) and the truth (40,) of one trial."""
    rng = np.random.default_rng(900_000 + 100 * samples + trial)
    X = rng.normal(size=(samples, dimension))
    truth = np.zeros(dimension)
    truth[rng.choice(dimension, sparsity, replace=False)] = rng.choice([-1.0, 1.0], sparsity)
    return X, truth


def weighted_l1(X: Array, y: Array) -> Array:
    """The w (D,) with X w = y and least sum_j m_j |w_j|, m_j = mean of x_ij^2: the prediction for SGD.

    Raises
    ------
    QuasistaticError
        If the programme has no solution: X w = y cannot be reached.
    """
    from scipy.optimize import linprog

    weights = np.mean(X**2, axis=0)
    solution = linprog(np.concatenate([weights, weights]), A_eq=np.concatenate([X, -X], axis=1), b_eq=y, bounds=(0, None))
    if not solution.success or solution.x is None:
        raise QuasistaticError(f"the linear programme was not solved: {solution.message}")
    D = X.shape[1]
    return np.asarray(solution.x[:D] - solution.x[D:])


def recover(samples: int = 8, trials: int = 48, optimizers: Sequence[str] = ("SGD", "Adam"), threads: int = 1, first: int = 0) -> Recovery:
    """Run every optimizer on the same trials, from u = v = 0.4."""

    def trial(number: int) -> dict[str, float]:
        X, truth = instance(samples, number)
        y = X @ truth
        size = float(np.linalg.norm(truth))
        programme = weighted_l1(X, y)
        found = {"linear programme": float(np.linalg.norm(programme - truth)) / size}
        problem = zoo.diagonal_network(X, y, noise=LabelNoise(1, batch=1))
        functions = problem.functions
        assert isinstance(functions, Diagonal)
        for name in optimizers:
            w = functions.weights(tail(TRAININGS[name], problem, functions.initial(), number)).mean(axis=0)
            found[name] = float(np.linalg.norm(w - truth)) / size
            found[f"{name} to programme"] = float(np.linalg.norm(w - programme)) / size
        return found

    values = side_by_side(trial, range(first, first + trials), threads)
    errors = {k: values[k] for k in ("linear programme", *optimizers)}
    return Recovery(samples, errors, {k: values[f"{k} to programme"] for k in optimizers})
