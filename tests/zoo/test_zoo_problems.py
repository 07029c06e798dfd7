"""The zoo's problems are what their docstrings say."""

import math

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import minimize

import quasistatic as qs
from quasistatic.numeric.simulate import Simulator

x, y = qs.symbols("x y")


def at(matrix, **values):
    """Numbers of a symbolic matrix."""
    return np.array(matrix.subs({s: values[s.name] for s in matrix.free_symbols}), dtype=float)


def stops(potential, start):
    """Where a potential of the Hessian's diagonal, a function of an array, is least over (x, y)."""
    return minimize(potential, start, tol=1e-12, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9}).x


def diagonal_of(problem):
    return sp.lambdify((x, y), list(problem.hessian.diagonal()))


def two_channels_by_hand(theta, phi, psi):
    """The loss as its docstring prints it, in numbers."""
    a, b = math.cos(phi) * theta[0] - math.sin(phi) * theta[2], math.cos(psi) * theta[1] - math.sin(psi) * theta[3]
    p, q = math.sin(phi) * theta[0] + math.cos(phi) * theta[2], math.sin(psi) * theta[1] + math.cos(psi) * theta[3]
    A = 0.25 + 0.5 * ((a - 1) ** 2 + 2 * b**2)
    B = 1.5 + 0.5 * (2 * (a + 1) ** 2 + (b - 1) ** 2)
    return 0.5 * (A**2 * p**2 + B**2 * q**2), (a, b), (A, B)


@pytest.mark.parametrize(("phi", "psi"), [(sp.pi / 6, sp.pi / 3), (sp.Rational(1, 3), sp.pi / 4)])
def test_two_channels(phi, psi):
    problem = qs.zoo.two_channels(phi, psi)
    assert [p.name for p in problem.parameters] == ["theta1", "theta2", "theta3", "theta4"]
    assert problem.chart.coordinates == (x, y)
    rng = np.random.default_rng(0)
    for _ in range(3):
        theta = rng.normal(size=4)
        loss, coordinates, _ = two_channels_by_hand(theta, float(phi), float(psi))
        names = dict(zip(problem.parameters, theta, strict=True))
        assert math.isclose(float(problem.loss.subs(names)), loss)
        np.testing.assert_allclose([float(c.subs(names)) for c in problem.chart.coordinate_map], coordinates)
        point = [float(e.subs({x: theta[0], y: theta[1]})) for e in problem.chart.embedding]
        zero, back, (A, B) = two_channels_by_hand(point, float(phi), float(psi))
        np.testing.assert_allclose([zero, *back], [0, theta[0], theta[1]], atol=1e-15)
        (s1, c1), (s2, c2) = ((math.sin(a), math.cos(a)) for a in (phi, psi))
        shares = [A**2 * s1**2, B**2 * s2**2, A**2 * c1**2, B**2 * c2**2]
        np.testing.assert_allclose(np.diag(at(problem.hessian, x=theta[0], y=theta[1])), shares)


def test_two_channels_is_exact_and_its_regularizers_have_minima_apart():
    problem = qs.zoo.two_channels()
    A = sp.Rational(1, 4) + ((x - 1) ** 2 + 2 * y**2) / 2
    assert sp.expand(problem.hessian[0, 0] - A**2 / 4) == 0
    assert not problem.hessian.atoms(sp.Float)
    diagonal = diagonal_of(problem)
    cases = [
        (lambda u: sum(diagonal(*u)), (-0.4568, 0.4014)),
        (lambda u: np.sqrt(diagonal(*u)).sum(), (-1 / 3, 1 / 3)),
        (lambda u: math.sqrt(sum(diagonal(*u)[:2])) + math.sqrt(sum(diagonal(*u)[2:])), (-0.4393, 0.3909)),
    ]
    for potential, expected in cases:
        np.testing.assert_allclose(stops(potential, (0, 0)), expected, atol=6e-5)


def test_paraboloid():
    problem = qs.zoo.paraboloid()
    k = 1 + ((x - 2) ** 2 + (y - 1) ** 2) / 2
    for found, expected in zip(problem.hessian.diagonal(), (k**2 * x**2, k**2 * y**2, k**2), strict=True):
        assert sp.expand(found - expected) == 0
    z = problem.parameters[2]
    assert sp.expand(problem.loss - k**2 * (z - (x**2 + y**2) / 2) ** 2 / 2) == 0
    diagonal = diagonal_of(problem)
    np.testing.assert_allclose(stops(lambda u: sum(diagonal(*u)), (2.2, 1.2)), (1.5713, 0.7856), atol=6e-5)
    np.testing.assert_allclose(stops(lambda u: np.sqrt(diagonal(*u)).sum(), (2.2, 1.2)), (5 / 3, 2 / 3), atol=6e-5)


@pytest.mark.parametrize("theta", [sp.pi / 4, sp.pi / 12, sp.Integer(0)])
def test_the_rotated_valley_turns_clockwise(theta):
    """x' = x cos - y sin and y' = x sin + y cos: minima in the direction (cos, -sin), diagonal of the Hessian 2h (sin^2, cos^2)."""
    problem = qs.zoo.rotated_valley(theta)
    s = problem.chart.coordinates[0]
    np.testing.assert_allclose(at(problem.chart.embedding, s=2.0).ravel(), [2 * math.cos(theta), -2 * math.sin(theta)])
    shares = [10 * math.sin(theta) ** 2, 10 * math.cos(theta) ** 2]
    np.testing.assert_allclose(np.diag(at(problem.hessian, s=2.0)), shares, atol=1e-15)
    assert s in problem.hessian.free_symbols


@pytest.mark.parametrize("name", qs.zoo.PROBLEMS)
def test_noise_of_the_simulation_is_alpha_times_the_hessian(name):
    """One step of SGD from a point of the manifold, 20 000 times."""
    problem = qs.zoo.PROBLEMS[name]()
    u = {s.name: problem.examples[s.name] for s in problem.chart.coordinates}
    constants = {c.name: problem.examples[c.name] for c in problem.constants}
    start = at(problem.chart.embedding, **u, **constants).ravel()
    simulator = Simulator(qs.zoo.sgd, problem, {"eta": 1.0, **constants}, seed=6, trajectories=20_000)
    simulator.set_state(start)
    simulator.advance(1)
    expected = at(problem.covariance, **u, **constants)
    found = np.cov(simulator.states.T)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 20_000)
    assert (np.abs(found - expected) <= 5 * error + 1e-9).all()


def test_blocks_by_name():
    problem = qs.zoo.two_channels()
    halves = problem.with_blocks([("theta1", "theta2"), ("theta3", "theta4")])
    assert halves.blocks == (problem.parameters[:2], problem.parameters[2:])
    assert problem.blocks == (problem.parameters,)
    assert halves.subs({}).blocks == halves.with_noise(qs.LabelNoise(1)).blocks == halves.blocks
    for bad in (
        [("theta1", "theta2")],
        [("theta1", "theta2"), ("theta2", "theta3", "theta4")],
        [("theta1", "theta9"), problem.parameters[1:]],
    ):
        with pytest.raises(qs.ProblemError, match="not a partition of the parameters"):
            problem.with_blocks(bad)
    with pytest.raises(qs.ProblemError, match="not a partition"):
        problem.with_blocks([problem.parameters, ()])


def test_adam_mini_shares_v_within_the_halves():
    problem = qs.zoo.two_channels().with_blocks([("theta1", "theta2"), ("theta3", "theta4")])
    start = dict(zip(problem.parameters, at(problem.chart.embedding, x=1.5, y=-1.0).ravel(), strict=True))
    runs = qs.simulate(
        qs.zoo.adam_mini,
        problem,
        start,
        2000,
        trajectories=32,
        initial_state={"v": 20},
        eta=0.01,
        beta1=0.9,
        beta2=0.99,
        eps=1e-3,
        alpha=1.0,
    )
    v = runs.final_states[:, 8:]
    np.testing.assert_array_equal(v[:, [0, 2]], v[:, [1, 3]])
    # v is the block's mean second moment, alpha times that of the Hessian's diagonal up to an O(eta) that is below 5 % here
    t = dict(zip(problem.parameters, runs.final.T, strict=True))
    at_end = [sp.lambdify(problem.parameters, c)(*t.values()) for c in problem.chart.coordinate_map]
    diagonal = np.array(np.broadcast_arrays(*sp.lambdify((x, y), list(problem.hessian.diagonal()))(*at_end)))
    for half in (0, 2):
        ratio = v[:, half] / diagonal[half : half + 2].mean(axis=0)
        assert abs(ratio.mean() - 1) < 5 * ratio.std(ddof=1) / math.sqrt(32) + 0.05
