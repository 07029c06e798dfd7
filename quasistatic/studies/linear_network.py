"""A two-layer linear network with one output and label noise: where SGD and Adam go along the minima.

a^T W1 = A with A = (1, ..., 1) in d dimensions and h hidden units. SGD goes to tr H = 2 sqrt(d) |A| and keeps the direction of
a; for Adam the point where all units are alike is unstable, and units die until one is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

from quasistatic import zoo
from quasistatic.manifold import ManifoldFlow
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


def derived_flow(optimizer: str, problem: ArrayProblem, eta: float, exact: bool = False, eps: float = 1e-6) -> ManifoldFlow:
    """The library's flow of "SGD" or "Adam", at leading order in eta or exact, Adam's v at its equilibrium."""
    order = None if exact else "eta"
    if optimizer == "SGD":
        return ManifoldFlow.make(zoo.sgd, problem, order, {"eta": eta})
    return ManifoldFlow.make(zoo.adam, problem, order, {"eta": eta, "beta1": 0.9, "beta2": 0.999, "eps": eps})


def growth_rate(flow: ManifoldFlow, z: Array, direction: Array, step: float = 1e-4) -> float:
    """Rate per iteration at which the flow amplifies a small departure from z, by central differences along the manifold."""
    unit = direction / np.linalg.norm(direction)
    ahead, behind = (flow.drift(flow.project(z + s * step * unit)) for s in (1, -1))
    return float(unit @ (ahead - behind)) / (2 * step)


@dataclass(frozen=True)
class Growth:
    """Growth rate of a departure from the point where all units are alike, per unit of slow time k*eta^2.

    Attributes
    ----------
    rate, error:
        Mean over simulated trajectories and standard error.
    leading, exact:
        Of the derived flow, at leading order in eta and exact.
    formula:
        sqrt(d) h/(2 |A|).
    """

    rate: float
    error: float
    leading: float
    exact: float
    formula: float


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
    here = f.pack(**uniform)
    unstable = f.pack(W1=uniform["W1"] * pattern[:, None] / np.sqrt(d), W2=uniform["W2"] * pattern)
    leading, exact = (growth_rate(derived_flow("Adam", problem, eta, e), here, unstable) / eta**2 for e in (False, True))
    error = float(slopes.std(ddof=1) / np.sqrt(trajectories))
    return Growth(float(slopes.mean()), error, leading, exact, float(np.sqrt(d) * d / (2 * np.linalg.norm(f.Y))))


@dataclass(frozen=True, eq=False)
class Units:
    """Participation ratio of the readout under Adam's derived flow, as units die.

    Attributes
    ----------
    time:
        (R,) slow time k*eta^2.
    flow:
        (R,) of the flow of all parameters.
    reduced:
        (R,) of the equations for p_i = |a_i| and q_i = |w_i| alone.
    simulated, error:
        (R,) mean over trajectories and standard error; None without a simulation.
    """

    time: Array
    flow: Array
    reduced: Array
    simulated: Array | None = None
    error: Array | None = None


def adam_units(
    time: float = 2.0, records: int = 9, d: int = 8, sigma: float = 0.1, eps: float = 1e-2, seed: int = 0, eta: float = 5e-4,
    trajectories: int = 0, threads: int = 1,
) -> Units:  # fmt: skip
    """From a point of rank one with unequal units, until ``time``; the paper's reduction, with its eps, beside the whole flow.

    Both are of leading order in eta, which then matters for the simulation alone (``trajectories`` > 0).
    """
    problem, f = network(d, sigma)
    start = rank_one(f, np.random.default_rng(seed).uniform(0.7, 1.3, d))
    path = derived_flow("Adam", problem, eta, eps=eps).trajectory(start, round(time / eta**2), record=records, rtol=1e-5)
    a = f.unpack(start)
    sizes = np.concatenate([np.abs(a["W2"][0]), np.linalg.norm(a["W1"], axis=1)])
    clock = path.steps * eta**2
    found = solve_ivp(lambda _, y: reduced_rates(y, sigma, eps), (0, clock[-1]), sizes, "LSODA", clock, rtol=1e-8, atol=1e-10)
    p = found.y[:d]
    units = np.array([active_units(f, z) for z in path.z]), np.sum(p**2, 0) ** 2 / np.sum(p**4, 0)
    if trajectories == 0:
        return Units(clock, *units)
    runs = simulate_array(
        frozen_adam.fix(eps=repr(eps)), problem, start, round(time / eta**2), trajectories=trajectories, seed=seed, record=records,
        threads=threads, observe={"units": lambda z: active_units(f, z)},
        initial_state={"v": sigma**2 * np.sum(f.jacobian(start) ** 2, axis=0)}, eta=eta,
    )  # fmt: skip
    seen = runs.observed["units"]
    return Units(clock, *units, seen.mean(axis=1), seen.std(axis=1, ddof=1) / np.sqrt(trajectories))


def reduced_rates(sizes: Array, sigma: float, eps: float) -> Array:
    """d(p, q)/dt of points of rank one under Adam, v at its equilibrium; sum(p q) is constant.

    With s_i = 1/(sigma q_i + eps) the preconditioner of a_i and r_i = 1/(sigma p_i + eps) that of w_i,
    dp_i = (sigma^2/4) s_i (l q_i - 2 d r_i p_i) and dq_i = (sigma^2/4) r_i (l p_i - 2 s_i q_i); at eps = 0 the paper's
    dp_i = mu - d/(2 q_i), dq_i = mu - 1/(2 p_i), mu = sigma l/4.
    """
    p, q = sizes.reshape(2, -1)
    d = len(p)
    s, r = 1 / (sigma * q + eps), 1 / (sigma * p + eps)
    pull = 2 * (1 + d) * np.sum(s * r * p * q) / np.sum(s * q**2 + r * p**2)
    return np.asarray(sigma**2 / 4 * np.concatenate([s * (pull * q - 2 * d * r * p), r * (pull * p - 2 * s * q)]))
