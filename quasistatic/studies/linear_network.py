"""A two-layer linear network with one output and label noise: where SGD and Adam go along the minima.

a^T W1 = A with A = (1, ..., 1) in d dimensions and h hidden units. SGD goes to tr H = 2 sqrt(d) |A| and keeps the direction of
a; for Adam the point where all units are alike is unstable, and units die until one is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import LabelNoise
from quasistatic.numeric.array_simulate import simulate_array
from quasistatic.studies.least_squares import project
from quasistatic.studies.recovery import frozen_adam
from quasistatic.zoo.residuals.network import Network

Array = npt.NDArray[np.float64]


def network(d: int = 8, sigma: float = 0.1) -> tuple[ArrayProblem, Network]:
    """The problem with d inputs and d hidden units, and its residuals."""
    problem = zoo.two_layer_linear(np.ones((1, d)), d, LabelNoise(repr(sigma)))
    functions = problem.functions
    assert isinstance(functions, Network)
    return problem, functions


def trace(functions: Network, z: Array) -> float:
    """tr H = d |a|^2 + |W1|^2 on the minima."""
    return float(np.sum(functions.jacobian(z) ** 2))


def active_units(functions: Network, z: Array) -> float:
    """Participation ratio (sum a^2)^2/sum a^4 of the readout: 1 for one active unit, h for h alike."""
    a = functions.unpack(z)["W2"].reshape(-1)
    return float(np.sum(a**2) ** 2 / np.sum(a**4))


def sgd_trace(start: str = "generic", steps: int = 330_000, eta: float = 0.02, sigma: float = 0.3, seed: int = 0, d: int = 8) -> Array:
    """tr H of label-noise SGD, projected onto the minima, at 21 records over the second half of the run, (21,).

    ``start`` is "uniform" (all units alike) or "generic" (a random point of the minima).
    """
    problem, f = network(d, sigma)
    z = rank_one(f, np.ones(d)) if start == "uniform" else project(f, f.initial(seed), 10)
    half = simulate_array(zoo.sgd, problem, z, steps // 2, trajectories=1, seed=seed, record=1, eta=eta)
    runs = simulate_array(
        zoo.sgd, problem, half.final[0], steps - steps // 2, trajectories=1, seed=seed + 1, record=21, eta=eta,
        observe={"trace": lambda z: trace(f, project(f, z))},
    )  # fmt: skip
    return runs.observed["trace"][:, 0]


def rank_one(functions: Network, a: Array, ratio: float | None = None) -> Array:
    """A point on the minima with readout proportional to a and rows of W1 along A; |w_i| = ratio |a_i|, d by default."""
    d = functions.widths[0]
    target = functions.Y.reshape(-1)
    size, scale = float(np.linalg.norm(target)), float(d if ratio is None else ratio)
    a = np.asarray(a, dtype=np.float64) * np.sqrt(size / (scale * np.sum(np.square(a))))
    return functions.pack(W1=np.outer(scale * a, target / size), W2=a[None])


@dataclass(frozen=True)
class Growth:
    """Growth rate of a departure from the point where all units are alike, per unit of slow time k*eta^2.

    Attributes
    ----------
    rate, error:
        Mean over trajectories and standard error.
    predicted:
        sqrt(d) h/(2 |A|), the leading order in eta.
    """

    rate: float
    error: float
    predicted: float


def adam_growth(
    eta: float = 1e-3, sigma: float = 0.1, departure: float = 0.02, time: float = 0.5, trajectories: int = 5, seed: int = 0, d: int = 8
) -> Growth:
    """Start Adam, its v at equilibrium, next to the uniform point, and fit the logarithm of the departure.

    The departure is that of |a_i| and |w_i| along the unstable direction, relative sizes sqrt(d) : 1, projected on the
    pattern it was started with.
    """
    problem, f = network(d, sigma)
    pattern = np.random.default_rng(seed).choice([-1.0, 1.0], d)
    pattern -= pattern.mean()
    pattern /= np.linalg.norm(pattern) / np.sqrt(d)
    uniform = f.unpack(rank_one(f, np.ones(d)))
    a = uniform["W2"].reshape(-1) * (1 + departure * pattern)
    rows = uniform["W1"] * (1 + departure / np.sqrt(d) * pattern)[:, None]
    rows *= float(np.mean(f.Y)) / np.mean(a @ rows)
    start = f.pack(W1=rows, W2=a[None])
    v = sigma**2 * np.sum(f.jacobian(start) ** 2, axis=0)

    def height(z: Array) -> float:
        sizes = np.abs(f.unpack(z)["W2"].reshape(-1))
        return float(sizes @ pattern / np.sum(sizes))

    runs = simulate_array(
        frozen_adam.fix(eps="1/1000000"), problem, start, round(time / eta**2), trajectories=trajectories, seed=seed, record=51,
        observe={"height": height}, initial_state={"v": v}, eta=eta,
    )  # fmt: skip
    clock = runs.steps * eta**2
    slopes = np.polyfit(clock[1:], np.log(np.abs(runs.observed["height"][1:])), 1)[0]
    predicted = np.sqrt(d) * d / (2 * np.linalg.norm(f.Y))
    return Growth(float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(trajectories)), float(predicted))
