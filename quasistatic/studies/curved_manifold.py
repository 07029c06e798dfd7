"""Slow dynamics on a curved manifold, four-dimensional in R^6: a diagonal network with 3 weights and 2 measurements.

Full-batch label noise of covariance alpha times the Hessian, slow states that start far from their equilibrium. What is left
between the simulation and the leading order of :func:`quasistatic.manifold_flow` must shrink in proportion to eta.
``slow_ode`` is the same ODE written out from the paper: with the frozen preconditioner S and P the projector on the tangent space
along S times the normal space,

    dz/dt = -(alpha/4) P S grad^3 L[S],    dv/dt = c (alpha diag H - v),    t = eta^2 k, 1 - beta2 = c eta^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import HyperparameterError
from quasistatic.manifold import ManifoldFlow
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import LabelNoise
from quasistatic.model.rule import Rule
from quasistatic.numeric.array_simulate import simulate_array
from quasistatic.studies.least_squares import project
from quasistatic.zoo.residuals.diagonal import Diagonal

Array = npt.NDArray[np.float64]

#: Exponent of v in the preconditioner 1/(v^power + eps), and the rule; Adam is without bias correction.
POWERS: dict[str, tuple[float, Rule]] = {
    "SGD": (0.0, zoo.sgd),
    "Adam": (0.5, zoo.adam_power.fix(beta1="9/10", eps="3/10", power="1/2")),
    "AdamE-1/4": (0.25, zoo.adam_power.fix(beta1="9/10", eps="3/10", power="1/4")),
}
EPS, RELAXATION, ALPHA = 0.3, 4.0, 1.0
START_V = np.full(6, 3.0)
#: Steps of the ODE that is written out.
STEPS = 400


@dataclass(frozen=True)
class Gap:
    """Distance of the mean simulated end point to the flow's, over the flow's displacement, and the standard error of that.

    ``exact`` is the same for the flow exact in eta, ``wrong`` for the one with alpha/2 in place of alpha/4.
    """

    eta: float
    value: float
    error: float
    exact: float
    wrong: float
    displacement: float


def curved_problem(seed: int = 2) -> tuple[Diagonal, Array]:
    """The network and a point of its minima away from the kinks."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2, 3))
    problem = zoo.diagonal_network(X, X @ rng.normal(size=3))
    functions = problem.functions
    assert isinstance(functions, Diagonal)
    return functions, project(functions, 1.0 + 0.3 * rng.normal(size=6), 20)


def preconditioner(power: float, v: Array) -> Array:
    """S (d,)."""
    return np.ones_like(v) if power == 0 else 1 / (v**power + EPS)


def slow_ode(functions: Diagonal, z: Array, v: Array, power: float, time: float, prefactor: float = 0.25) -> tuple[Array, Array]:
    """z and v after slow time ``time``: Heun's method with a retraction along S times the normal space."""

    def rates(z: Array, v: Array) -> tuple[Array, Array]:
        S, J, n = preconditioner(power, v), functions.jacobian(z), functions.count
        pull = S * (2 / n) * functions.hvp(z, np.eye(n), J * S)
        tangent = pull - S * (J.T @ np.linalg.solve((J * S) @ J.T, J @ pull))
        return -prefactor * ALPHA * tangent, RELAXATION * (ALPHA * np.sum(J**2, axis=0) / n - v)

    h = time / STEPS
    for _ in range(STEPS):
        a, b = rates(z, v)
        c, e = rates(z + h * a, v + h * b)
        z, v = oblique(functions, z + h / 2 * (a + c), preconditioner(power, v), 2), v + h / 2 * (b + e)
    return z, v


def oblique(functions: Diagonal, z: Array, S: Array, steps: int) -> Array:
    """Gauss-Newton steps along S times the normal space."""
    for _ in range(steps):
        J = functions.jacobian(z)
        z = z - S * (J.T @ np.linalg.solve((J * S) @ J.T, functions.residuals(z)))
    return z


def curved_array_problem() -> tuple[ArrayProblem, Array]:
    """The network with label noise of covariance ALPHA times the Hessian, and its start."""
    functions, start = curved_problem()
    noise = LabelNoise(repr(float(np.sqrt(functions.count * ALPHA))))
    return zoo.diagonal_network(functions.X, functions.y, noise=noise), start


def derived_end(optimizer: str, eta: float, time: float = 0.3, exact: bool = False, factor: int = 1) -> tuple[Array, Array]:
    """z and v of the library's flow after slow time ``time``, from v = START_V; with a drift ``factor`` times as large."""
    problem, start = curved_array_problem()
    power, rule = POWERS[optimizer]
    steps = factor * round(time / eta**2)  # at 1/factor of the rate v takes as long to change
    order = None if exact else "eta"
    if power == 0:
        return ManifoldFlow.make(rule, problem, order, {"eta": eta}).trajectory(start, steps, record=1).z[-1], START_V
    flow = ManifoldFlow.make(rule, problem, order, {"eta": eta, "beta2": 1 - RELAXATION * eta**2 / factor})
    path = flow.trajectory(start, steps, record=1, slow=START_V, adiabatic=False)
    assert path.slow is not None
    return path.z[-1], path.slow[-1]


def gap(optimizer: str, eta: float, trajectories: int = 1000, time: float = 0.3, seed: int = 0, threads: int = 1) -> Gap:
    """Simulate with full-batch label noise and compare the mean end point with the flow; v starts far from its equilibrium."""
    if optimizer not in POWERS:
        raise HyperparameterError(f"optimizer={optimizer!r} is not one of {', '.join(POWERS)}.")
    power, rule = POWERS[optimizer]
    problem, start = curved_array_problem()
    functions = problem.functions
    assert isinstance(functions, Diagonal)
    options: dict[str, Any] = {"initial_state": {"v": START_V}, "beta2": 1 - RELAXATION * eta**2} if power else {}
    runs = simulate_array(rule, problem, start, round(time / eta**2), trajectories, seed, record=1, threads=threads, eta=eta, **options)
    points = np.array([oblique(functions, s[0], preconditioner(power, s[2] if power else START_V), 6) for s in runs.final_states])
    mean = points.mean(axis=0)
    goal = derived_end(optimizer, eta, time)[0]
    moved = float(np.linalg.norm(goal - start))

    def distance(end: Array) -> float:
        return float(np.linalg.norm(mean - end)) / moved

    error = float(np.sqrt(points.var(axis=0, ddof=1).sum() / len(points))) / moved
    exact, doubled = derived_end(optimizer, eta, time, exact=True)[0], derived_end(optimizer, eta, time, factor=2)[0]
    return Gap(eta, distance(goal), error, distance(exact), distance(doubled), moved)
