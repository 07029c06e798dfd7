"""The limit map against conserved quantities, a direct iteration, and SciPy's solution of the gradient flow."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import quasistatic.zoo as zoo
from quasistatic.errors import HyperparameterError, ProblemError, StartError, UnstableError
from quasistatic.model.noise import HessianNoise
from quasistatic.model.problem import Problem
from quasistatic.model.trace import optimizer
from quasistatic.numeric.relax import Relaxation
from quasistatic.symbols import symbols

x, y, s, u, v = symbols("x y s u v")


def gradient(z):
    return np.array([2 * z[0] * z[1] ** 2, 2 * (1 + z[0] ** 2) * z[1]])


def test_small_steps_follow_the_gradient_flow():
    """SciPy solves dz/dt = -grad f until it ends; SGD with a small eta ends within O(eta) of it."""
    start = np.array([0.8, 0.6])
    flow = solve_ivp(lambda _, z: -gradient(z), (0, 30), start, rtol=1e-11, atol=1e-13).y[0, -1]
    errors = []
    for eta in (1e-3, 2e-3):
        limit = Relaxation(zoo.sgd, zoo.valley(), {"eta": eta, "alpha": 1})(start, tolerance=1e-9)
        assert limit.coordinates.shape == (1, 1)
        errors.append(limit.coordinates[0, 0] - flow)
    assert abs(errors[0]) < 2e-3
    assert errors[1] / errors[0] == pytest.approx(2, rel=0.02)


def test_the_limit_of_heavy_ball_iterated_in_numpy():
    states = np.random.default_rng(0).normal(size=(20, 4)) * 0.5
    limit = Relaxation(zoo.heavy_ball, zoo.valley(), {"eta": 0.02, "mu": 0.8, "alpha": 1})(states, tolerance=1e-10)
    z, b = states[:, :2].T.copy(), states[:, 2:].T.copy()
    for _ in range(3000):
        b = 0.8 * b + gradient(z)
        z = z - 0.02 * b
    np.testing.assert_allclose(limit.z, z.T, atol=1e-9)
    np.testing.assert_allclose(limit.coordinates[:, 0], z[0], atol=1e-9)
    assert np.abs(limit.states[:, 2:]).max() < 1e-8
    assert (limit.iterations > 0).all()
    assert (limit.iterations < 3000).all()


def test_default_tolerance_leaves_that_fraction():
    start = np.array([[0.8, 0.6], [0.1, -0.4]])
    relaxation = Relaxation(zoo.sgd, zoo.valley(), {"eta": 1e-3, "alpha": 1})
    rough, fine = relaxation(start), relaxation(start, tolerance=1e-10)
    assert np.abs(rough.z[:, 1]).max() < 1e-4
    np.testing.assert_allclose(rough.coordinates, fine.coordinates, atol=1e-6)


def test_scipy_root_of_a_conserved_quantity():
    """On (uv - 1)^2 gradient flow keeps u^2 - v^2; with SciPy's root of u^2 - 1/u^2 = c that is the end point."""
    from scipy.optimize import brentq

    problem = Problem((u * v - 1) ** 2, {u: s, v: 1 / s}, HessianNoise(1), coordinates={s: u})
    start = np.array([2.0, 1.0])
    expected = brentq(lambda w: w**2 - w**-2 - 3.0, 0.5, 3.0)
    (found,) = Relaxation(zoo.sgd, problem, {"eta": 1e-4})(start, tolerance=1e-8).coordinates
    assert found[0] == pytest.approx(expected, abs=1e-3)


def test_threads_and_rows_do_not_matter():
    states = np.random.default_rng(1).normal(size=(7, 2)) * 0.5
    values = {"eta": 0.02, "alpha": 1}
    one = Relaxation(zoo.sgd, zoo.valley(), values)(states)
    two = Relaxation(zoo.sgd, zoo.valley(), values, threads=3)(states)
    assert np.array_equal(one.z, two.z)
    assert np.array_equal(one.iterations, two.iterations)
    assert np.array_equal(Relaxation(zoo.sgd, zoo.valley(), values)(states[3]).z[0], one.z[3])
    assert len(Relaxation(zoo.sgd, zoo.valley(), values, threads=3)(np.empty((0, 2))).z) == 0


@optimizer
def corrected(z, g, m, *, eta, beta, t):
    m = beta * m + (1 - beta) * g
    return z - eta * m / (1 - beta**t), m


def test_late_iterations_by_default():
    late = Relaxation(corrected, zoo.valley(), {"eta": 0.02, "beta": 0.9, "alpha": 1})
    plain = Relaxation(zoo.ema_momentum, zoo.valley(), {"eta": 0.02, "mu": 0.9, "alpha": 1})
    start = [0.8, 0.6, 0.0, 0.0]
    np.testing.assert_allclose(late(start).z, plain(start).z, rtol=1e-12)
    assert not np.allclose(late(start, iteration=1).z, plain(start).z, rtol=1e-6)


def test_a_point_on_the_manifold_stays():
    limit = Relaxation(zoo.sgd, zoo.valley(), {"eta": 0.02, "alpha": 1})([[3.0, 0.0]])
    assert limit.z.tolist() == [[3.0, 0.0]]
    assert limit.iterations.tolist() == [1]


def test_errors():
    values = {"eta": 0.02, "alpha": 1}
    relaxation = Relaxation(zoo.sgd, zoo.valley(), values)
    with pytest.raises(UnstableError, match="not at rest after 3 iterations"):
        relaxation([[1.0, 0.5]], max_iterations=3)
    with pytest.raises(UnstableError, match="diverges from 1 of 2"):
        relaxation([[0.1, 0.1], [30.0, 5.0]])
    with pytest.raises(StartError, match="shape"):
        relaxation([[1.0, 2.0, 3.0]])
    with pytest.raises(StartError, match="not finite"):
        relaxation([[1.0, np.nan]])
    with pytest.raises(HyperparameterError, match="alpha"):
        Relaxation(zoo.sgd, zoo.valley(), {"eta": 1})
    with pytest.raises(ProblemError, match="coordinates="):
        Relaxation(zoo.sgd, Problem((u * v - 1) ** 2, {u: s, v: 1 / s}, HessianNoise(1)), {"eta": 1})
