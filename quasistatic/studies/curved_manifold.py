"""Ambient slow ODE on a curved manifold, four-dimensional in R^6: a diagonal network with 3 weights and 2 measurements.

The ODE of adaptive rules for label noise (covariance alpha times the Hessian), written out from the page: with the frozen
preconditioner S and P the projector on the tangent space along S times the normal space,

    dz/dt = -(alpha/4) P S grad^3 L[S],    dv/dt = c (alpha diag H - v),    t = eta^2 k, 1 - beta2 = c eta^2.

What is left between it and the simulation must shrink in proportion to eta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import HyperparameterError
from quasistatic.model.noise import LabelNoise
from quasistatic.model.rule import Rule
from quasistatic.numeric.array_simulate import simulate_array
from quasistatic.studies.least_squares import project
from quasistatic.studies.recovery import frozen_adam, frozen_adam_quarter
from quasistatic.zoo.residuals.diagonal import Diagonal

Array = npt.NDArray[np.float64]

#: Exponent of v in the preconditioner 1/(v^power + eps), and the rule.
POWERS: dict[str, tuple[float, Rule]] = {
    "SGD": (0.0, zoo.sgd),
    "Adam": (0.5, frozen_adam.free("beta2").fix(eps="3/10")),
    "AdamE-1/4": (0.25, frozen_adam_quarter.free("beta2").fix(eps="3/10")),
}
EPS, RELAXATION, ALPHA = 0.3, 4.0, 1.0
#: Steps of the ODE.
STEPS = 400


@dataclass(frozen=True)
class Gap:
    """Distance of the mean simulated end point to the ODE's, over the ODE's displacement, and the standard error of that.

    ``wrong`` is the same for the ODE with alpha/2 in place of alpha/4.
    """

    eta: float
    value: float
    error: float
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


def gap(optimizer: str, eta: float, trajectories: int = 1000, time: float = 0.3, seed: int = 0, threads: int = 1) -> Gap:
    """Simulate with full-batch label noise and compare the mean end point with the ODE; v starts far from its equilibrium."""
    if optimizer not in POWERS:
        raise HyperparameterError(f"optimizer={optimizer!r} is not one of {', '.join(POWERS)}.")
    power, rule = POWERS[optimizer]
    functions, start = curved_problem()
    v = np.full(functions.size, 3.0)
    noise = LabelNoise(repr(float(np.sqrt(functions.count * ALPHA))))
    problem = zoo.diagonal_network(functions.X, functions.y, noise=noise)
    adaptive = power > 0
    options: dict[str, Any] = {"initial_state": {"v": v}, "beta2": 1 - RELAXATION * eta**2} if adaptive else {}
    runs = simulate_array(rule, problem, start, round(time / eta**2), trajectories, seed, record=1, threads=threads, eta=eta, **options)
    ends = runs.final_states
    points = np.array([oblique(functions, s[0], preconditioner(power, s[2] if adaptive else v), 6) for s in ends])
    goal, _ = slow_ode(functions, start, v, power, time)
    doubled, _ = slow_ode(functions, start, v, power, time, 0.5)
    mean, moved = points.mean(axis=0), float(np.linalg.norm(goal - start))
    error = float(np.sqrt(points.var(axis=0, ddof=1).sum() / len(points))) / moved
    return Gap(eta, float(np.linalg.norm(mean - goal)) / moved, error, float(np.linalg.norm(mean - doubled)) / moved, moved)
