"""Matrix sensing with label noise: Adam's regularizer prefers few columns, SGD's a small nuclear norm.

y_i = <A_i, U W^T>, Gaussian A_i, batch 1. On a truth of rank 1 Adam recovers more, on a flat spectrum (an orthogonal matrix)
less; each optimizer ends lower in its own regularizer, which the derivation says: tr H for SGD and tr Diag(H)^(1/2) for Adam,
up to a finite learning rate and epsilon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic import zoo
from quasistatic.dynamics import derive
from quasistatic.errors import HyperparameterError
from quasistatic.model.noise import LabelNoise
from quasistatic.studies.least_squares import project
from quasistatic.studies.recovery import mean_and_error, side_by_side, tail, trainings
from quasistatic.zoo.residuals.bilinear import Sensing

Array = npt.NDArray[np.float64]

#: (eta, T) of every optimizer.
TRAININGS = trainings((0.005, 6.0), (0.002, 1.6))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of the trials.

    Attributes
    ----------
    truth:
        "rank 1" or "flat".
    errors:
        Optimizer to (trials,) relative errors of the averaged U W^T.
    trace, root_trace:
        Optimizer to (trials,) values of SGD's and of Adam's regularizer at the end, over those of the truth's balanced factors.
    """

    truth: str
    errors: dict[str, Array]
    trace: dict[str, Array]
    root_trace: dict[str, Array]

    def mean(self, name: str) -> tuple[float, float]:
        """Mean error and its standard error."""
        return mean_and_error(self.errors[name])

    def paired(self, one: str = "Adam", other: str = "SGD") -> tuple[float, float]:
        """Mean difference of errors, one minus other, and its standard error."""
        return mean_and_error(self.errors[one] - self.errors[other])


@cache
def _density(name: str) -> Callable[..., Array]:
    """What an optimizer descends, from its law for any loss: a function of a curvature and the noise's alpha."""
    law = derive(TRAININGS[name].rule)
    density = law.regularizer(noise="hessian")
    symbols = {s.name: s for s in density.free_symbols}
    curvature = symbols["lambda"] if "lambda" in symbols else symbols["h"]
    found: Callable[..., Array] = sp.lambdify([curvature, symbols["alpha"], symbols["eta"]], density, "numpy")
    return found


def regularizers(functions: Sensing, z: Array, sigma: float) -> tuple[float, float]:
    """What SGD and Adam descend on the minima of (1/2n) sum r_i^2 with batch-1 label noise: sums over curvatures and diag(H)."""
    J, n = functions.jacobian(z), functions.count
    alpha = sigma**2  # Cov g = alpha H at batch 1
    curvatures = np.linalg.svd(J, compute_uv=False) ** 2 / n
    parts = (("SGD", curvatures), ("Adam", np.mean(J**2, axis=0)))
    found = [float(np.sum(_density(name)(values, alpha, TRAININGS[name].eta))) for name, values in parts]
    return found[0], found[1]


def instance(truth: str, samples: int, trial: int, side: int = 5) -> tuple[Array, Array, Array]:
    """Operators (n, 5, 5) and the truth's balanced factors, (5, 5) each."""
    rng = np.random.default_rng(90_000 + trial)
    operators = rng.normal(size=(samples, side, side))
    if truth == "flat":
        left = np.linalg.qr(rng.normal(size=(side, side)))[0]
        return operators, left, np.eye(side)
    if truth == "rank 1":
        a, b = (x / np.linalg.norm(x) for x in rng.normal(size=(2, side)))
        size = np.sqrt(np.sqrt(side))  # the Frobenius norm of the flat truth
        factors = np.zeros((2, side, side))
        factors[0, :, 0], factors[1, :, 0] = size * a, size * b
        return operators, factors[0], factors[1]
    raise HyperparameterError(f'truth={truth!r} is neither "rank 1" nor "flat".')


def recover(truth: str = "flat", samples: int = 15, trials: int = 24, sigma: float = 0.5, threads: int = 1) -> Comparison:
    """SGD and Adam on the same trials, from Gaussian factors of standard deviation 0.5."""

    def trial(number: int) -> dict[str, float]:
        operators, left, right = instance(truth, samples, number)
        goal = left @ right.T
        targets = np.tensordot(operators, goal, axes=2)
        problem = zoo.matrix_sensing(operators, targets, len(left), noise=LabelNoise(repr(sigma), batch=1))
        functions = problem.functions
        assert isinstance(functions, Sensing)
        reference = regularizers(functions, functions.pack(U=left, W=right), sigma)
        found = {}
        for name, training in TRAININGS.items():
            points = tail(training, problem, functions.initial(number), number)
            a = functions.unpack(points)
            product = np.mean(a["U"] @ a["W"].transpose(0, 2, 1), axis=0)
            found[f"{name} error"] = float(np.linalg.norm(product - goal) / np.linalg.norm(goal))
            ends = [regularizers(functions, z, sigma) for z in project(functions, points[:: max(1, len(points) // 10)])]
            for k, kind in enumerate(("trace", "root")):
                found[f"{name} {kind}"] = float(np.mean([e[k] for e in ends])) / reference[k]
        return found

    values = side_by_side(trial, range(trials), threads)
    names = list(TRAININGS)
    return Comparison(truth, *({n: values[f"{n} {kind}"] for n in names} for kind in ("error", "trace", "root")))
