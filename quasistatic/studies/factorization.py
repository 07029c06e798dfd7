"""Matrix factorisation, figure 2 (middle and right) of the quasistatic paper: 5 x 5 x 5, singular values 3, 2.5, 2, 1.5, 1.

The paper's sigma is the standard deviation of the noise in 2(U W^T - M), twice the label noise of
:func:`quasistatic.zoo.matrix_factorization`. Iterates are compared after a projection onto the minima with the flow that
:func:`quasistatic.manifold_flow` derives; ``flow`` is the same from the paper's formula for Hessian noise, written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import HyperparameterError
from quasistatic.manifold import ManifoldFlow
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import IsotropicNoise, LabelNoise, Noise
from quasistatic.numeric.array_simulate import simulate_array, step_normals
from quasistatic.studies.least_squares import project
from quasistatic.zoo.residuals.bilinear import Factorization

Array = npt.NDArray[np.float64]

SINGULAR_VALUES = (3.0, 2.5, 2.0, 1.5, 1.0)
#: Runge-Kutta steps of a flow between two records.
SUBSTEPS = 2


@dataclass(frozen=True)
class Setting:
    """One row of the figure: hyperparameters, ensemble size and number of iterations."""

    eta: float
    mu: float
    sigma: float
    trajectories: int
    steps: int


#: The rows of figure 2, middle.
MIDDLE = (
    Setting(1e-3, 0.0, 1.0, 8, 200_000),
    Setting(5e-3, 0.0, 0.5, 16, 32_000),
    Setting(2e-2, 0.0, 0.25, 16, 8_000),
    Setting(1e-3, 0.9, 0.3, 16, 20_000),
    Setting(2e-3, 0.5, 0.5, 8, 50_000),
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Simulation and flow along the minima.

    Attributes
    ----------
    setting:
        What was run.
    steps:
        (R,)
    points:
        (R, N, d) iterates projected onto the minima.
    flow, sde_flow:
        (R, d) the flow exact in the learning rate, and that of the paper's SDE.
    """

    setting: Setting
    steps: npt.NDArray[np.int64]
    points: Array
    flow: Array
    sde_flow: Array

    @property
    def size(self) -> tuple[float, float]:
        """|U|^2 + |W|^2 at the end, mean over trajectories and standard error."""
        sizes = np.sum(self.points[-1] ** 2, axis=1)
        return float(sizes.mean()), float(sizes.std(ddof=1) / np.sqrt(len(sizes)))

    @property
    def distance(self) -> tuple[float, float]:
        """Largest distance over the records of the mean projected iterate to the flow, and its standard error (root of the trace)."""
        gaps = np.linalg.norm(self.points.mean(axis=1) - self.flow, axis=1)
        r = int(np.argmax(gaps))
        return float(gaps[r]), float(np.sqrt(self.points[r].var(axis=0, ddof=1).sum() / self.points.shape[1]))

    @property
    def displacement(self) -> float:
        """How far the flow goes."""
        return float(np.linalg.norm(self.flow[-1] - self.flow[0]))


def paper_problem(noise: Noise | None = None) -> tuple[ArrayProblem, Array]:
    """The figure's problem and start U = M, W = 1."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(2))
    M = left @ np.diag(SINGULAR_VALUES) @ right.T
    problem = zoo.matrix_factorization(5, 5, 5, M, noise)
    functions = problem.functions
    assert isinstance(functions, Factorization)
    return problem, functions.pack(U=M, W=np.eye(5))


def drift(functions: Factorization, z: Array, setting: Setting, exact: bool = True) -> Array:
    """Drift per iteration along the minima: minus the tangent gradient of the paper's potential.

    The potential is -eta sigma^2 (1+mu)/(4 (1-mu)^2) log det(1 - eta K/(1+mu)) with K = J J^T, and at leading order in eta
    eta^2 sigma^2/(4 (1-mu)^2) tr K.
    """
    eta, mu, sigma = setting.eta, setting.mu, setting.sigma
    J = functions.jacobian(z)
    K = J @ J.T
    identity = np.eye(len(K))
    weights = np.asarray(np.linalg.inv(identity - eta * K / (1 + mu)), dtype=np.float64) if exact else identity
    # the gradient of tr(weights K) at fixed weights
    gradient = 2 * functions.hvp(z, weights, J)
    tangent = gradient - J.T @ np.linalg.solve(K, J @ gradient)
    return np.asarray(-(eta**2) * sigma**2 / (4 * (1 - mu) ** 2) * tangent)


def flow(functions: Factorization, z: Array, setting: Setting, steps: npt.NDArray[np.int64], exact: bool = True) -> Array:
    """The flow at the given iterations, (R, d); Runge-Kutta with a projection after every step."""
    found, here = [z], z
    for first, last in pairwise(steps):
        h = float(last - first) / SUBSTEPS
        for _ in range(SUBSTEPS):
            a = drift(functions, here, setting, exact)
            b = drift(functions, here + h / 2 * a, setting, exact)
            c = drift(functions, here + h / 2 * b, setting, exact)
            d = drift(functions, here + h * c, setting, exact)
            here = project(functions, here + h / 6 * (a + 2 * b + 2 * c + d), 2)
        found.append(here)
    return np.array(found)


def derived_flow(problem: ArrayProblem, setting: Setting, exact: bool = True) -> ManifoldFlow:
    """The library's flow of heavy ball; that of the paper's SDE with the scaling held fixed is its leading order in eta."""
    return ManifoldFlow.make(zoo.heavy_ball, problem, None if exact else "eta", {"eta": setting.eta, "mu": setting.mu})


def figure_2_middle(setting: Setting, seed: int = 0, record: int = 41, threads: int = 1) -> Comparison:
    """One row of figure 2, middle: heavy ball with label noise, projected by 4 Gauss-Newton steps, and the derived flows."""
    problem, start = paper_problem(LabelNoise(repr(setting.sigma / 2)))
    runs = simulate_array(
        zoo.heavy_ball, problem, start, setting.steps, trajectories=setting.trajectories, seed=seed, record=record, threads=threads,
        keep=True, eta=setting.eta, mu=setting.mu,
    )  # fmt: skip
    functions = problem.functions
    assert runs.records is not None
    assert isinstance(functions, Factorization)
    points = project(functions, runs.records, 4)
    flows = [derived_flow(problem, setting, exact).trajectory(start, setting.steps, record=record).z for exact in (True, False)]
    return Comparison(setting, runs.steps, points, *flows)


@dataclass(frozen=True, eq=False)
class TangentNoise:
    """Figure 2, right: noise in the tangent space too.

    Attributes
    ----------
    steps:
        (R,)
    points:
        (R, N, d) projected iterates.
    sde:
        (R, N, d) the manifold SDE, driven by the same Gaussians.
    flow:
        (R, d) the flow without tangent noise.
    """

    steps: npt.NDArray[np.int64]
    points: Array
    sde: Array
    flow: Array

    @property
    def displacement(self) -> float:
        """Length of the mean displacement of the simulation."""
        return float(np.linalg.norm((self.points[-1] - self.points[0]).mean(axis=0)))

    @property
    def distance(self) -> tuple[float, float]:
        """Largest distance between the two means over the records, and the standard error of the mean difference there."""
        apart = self.points - self.sde
        gaps = np.linalg.norm(apart.mean(axis=1), axis=1)
        r = int(np.argmax(gaps))
        return float(gaps[r]), float(np.sqrt(apart[r].var(axis=0, ddof=1).sum() / apart.shape[1]))

    @property
    def pathwise(self) -> float:
        """Root mean square distance between a path and its SDE, at the end."""
        return float(np.sqrt(np.mean(np.sum((self.points[-1] - self.sde[-1]) ** 2, axis=1))))

    @property
    def from_flow(self) -> float:
        """Distance of the mean to the flow without tangent noise, at the end."""
        return float(np.linalg.norm(self.points[-1].mean(axis=0) - self.flow[-1]))


def figure_2_right(
    tangent: float = 0.4, steps: int = 10_000, trajectories: int = 24, seed: int = 0, block: int = 20, record: int = 26, threads: int = 1
) -> TangentNoise:
    """SGD, eta = 2e-3, sigma = 1, with tangent noise of strength ``tangent``; the SDE in steps of ``block`` iterations.

    The SDE is the library's: a step is the drift and the diffusion's factor times the sum of the block's Gaussians, brought
    back onto the minima, which supplies the Ito term.
    """
    setting = Setting(2e-3, 0.0, 1.0, trajectories, steps)
    problem, start = paper_problem(LabelNoise("1/2") + IsotropicNoise(repr(tangent), tangent_only=True))
    functions = problem.functions
    assert isinstance(functions, Factorization)
    runs = simulate_array(
        zoo.sgd, problem, start, steps, trajectories=trajectories, seed=seed, record=record, threads=threads, keep=True, eta=setting.eta
    )
    assert runs.records is not None
    derived = derived_flow(problem, setting)
    between = (runs.steps[1:] - runs.steps[:-1]) // block
    if np.any(between * block != runs.steps[1:] - runs.steps[:-1]) or np.any(between != between[0]):
        raise HyperparameterError(f"block = {block} does not divide the {steps} iterations between {record} records evenly.")
    d, n = functions.size, functions.count
    paths = np.empty_like(runs.records)
    for t in range(trajectories):
        xi = step_normals(seed, t, steps, n + d)[:, n:].reshape(-1, block, d).sum(axis=1) / np.sqrt(block)

        def kick(_: int, step: int, xi: Array = xi) -> Array:
            return np.asarray(-xi[step])  # noise of the gradient moves the point against it

        path = derived.sde_trajectory(start, steps, trajectories=1, record=record, substeps=int(between[0]), normals=kick)
        paths[:, t] = path.mean
    quiet = derived_flow(problem.with_noise(LabelNoise("1/2")), setting).trajectory(start, steps, record=record).z
    return TangentNoise(runs.steps, project(functions, runs.records, 4), paths, quiet)
