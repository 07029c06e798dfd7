"""Compiled slow dynamics: functions against SymPy, paths against closed solutions, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp

import quasistatic.zoo as zoo
from quasistatic.errors import (
    HyperparameterError,
    NoPotential,
    ProblemError,
    QuasistaticError,
    SimulationDiverged,
    StartError,
    UnstableError,
)
from quasistatic.model.noise import HessianNoise
from quasistatic.model.problem import Problem
from quasistatic.numeric.flow import compile_flow
from quasistatic.symbols import function, positive, symbols

x, y, w = symbols("x y w")
eta, alpha = positive("eta"), positive("alpha")
VALUES = {"eta": 0.01, "alpha": 0.5}
LINE = Problem(y**2, {y: 0}, HessianNoise(alpha), parameters=(x, y))
PLANE = Problem(y**2, {y: 0}, HessianNoise(alpha), parameters=(x, w, y))


def make(drift, diffusion, metric=None, ito=None, problem=LINE, time="iteration", check=lambda values, point: None):
    k = len(drift)
    return SimpleNamespace(
        rule=zoo.sgd, problem=problem, coordinates=problem.chart.coordinates, slow_state=problem.chart.coordinates,
        drift=sp.Matrix(drift), diffusion=sp.Matrix(diffusion),
        state=problem.parameters, covariance=sp.diag(*[0] * k, alpha * eta), metric=sp.eye(k) if metric is None else sp.Matrix(metric),
        ito=sp.zeros(k, 1) if ito is None else sp.Matrix(ito), time=time, check=check, complete=lambda values, point: point,
    )  # fmt: skip


def line(drift, diffusion=0, **options):
    return compile_flow(make([drift], [[diffusion]], **options), VALUES)


ROUGH = [-eta * alpha * x / (1 + x**2) + sp.sin(w), sp.exp(-w) * sp.sqrt(alpha) - sp.Rational(1234, 999) * x * w**3]
CORRELATED = [[1 + x**2, x * w], [x * w, 1 + w**2]]


def test_functions_broadcast():
    flow = compile_flow(make(ROUGH, CORRELATED, metric=[[1 + x**2, x], [x, 2]], problem=PLANE), VALUES)
    points = np.random.default_rng(0).normal(size=(3, 5, 2))
    exact = {"drift": sp.Matrix(ROUGH), "diffusion": sp.Matrix(CORRELATED), "metric": sp.Matrix([[1 + x**2, x], [x, 2]])}
    for name, matrix in exact.items():
        expected = sp.lambdify([x, w, eta, alpha], matrix)
        found = getattr(flow, name)(points)
        shape = (2,) if name == "drift" else (2, 2)
        assert found.shape == (3, 5, *shape)
        for index in np.ndindex(3, 5):
            np.testing.assert_allclose(found[index], expected(*points[index], 0.01, 0.5).reshape(shape), rtol=1e-13)
            assert np.array_equal(found[index], getattr(flow, name)(points[index]))
    assert flow.covariance(points).shape == (3, 5, 3, 3)
    assert flow.drift(np.empty((0, 2))).shape == (0, 2)
    assert np.array_equal(flow.drift({x: 1, "w": 2}), flow.drift([1, 2]))


def test_one_coordinate_may_be_a_plain_number():
    flow = line(-eta * x, eta**2)
    assert flow.drift(2.0).tolist() == flow.drift([2.0]).tolist() == [-0.02]
    assert flow.diffusion(2).tolist() == [[1e-4]]
    assert flow.drift([[1.0], [2.0]]).shape == (2, 1)


def test_what_it_says_about_itself():
    flow = line(-eta * alpha * x / 7919)
    assert flow.arguments == ("eta", "alpha")
    assert flow.values == VALUES
    assert flow.coordinates == ("x",)
    assert "def fill" in flow.source
    assert "eta_ = h[0]" in flow.source
    assert "7919" not in flow.source
    assert "0.01" not in flow.source
    assert "eta=0.01" in repr(flow)


def test_functions_compile_when_first_used():
    flow = line(-eta * x, sp.zeta(x))
    flow.drift(1.0)
    with pytest.raises(ProblemError, match="zeta"):
        flow.diffusion(1.0)


def test_trajectory_is_the_exponential():
    path = line(-eta * alpha * x).trajectory({x: 3}, 1000, record=11)
    assert path.steps.tolist() == list(range(0, 1001, 100))
    np.testing.assert_allclose(path.u[:, 0], 3 * np.exp(-0.005 * path.steps), rtol=1e-9)
    assert "x=" in repr(path)
    end = line(-eta * alpha * x).trajectory(3.0, 1000, record=1)
    assert end.steps.tolist() == [1000]
    np.testing.assert_allclose(end.u, [[3 * np.exp(-5)]], rtol=1e-9)


def test_trajectory_in_the_plane():
    flow = compile_flow(make([-eta * w, eta * x], sp.zeros(2, 2), problem=PLANE), VALUES)
    path = flow.trajectory([1.0, 0.0], 600)
    np.testing.assert_allclose(path.u, np.stack([np.cos(0.01 * path.steps), np.sin(0.01 * path.steps)], axis=1), atol=1e-8)


def test_continuous_time():
    flow = line(-x, time="t = k*eta")
    np.testing.assert_allclose(flow.trajectory(2.0, 1.5, record=4).u[:, 0], 2 * np.exp([0, -0.5, -1, -1.5]), rtol=1e-9)
    assert flow.sde_trajectory(2.0, 1.5, record=4).steps.tolist() == [0, 0.5, 1, 1.5]
    for bad in (0, -1.0, float("inf"), float("nan"), "1", True):
        with pytest.raises(QuasistaticError, match="not a positive time"):
            flow.trajectory(2.0, bad)


def within(found, expected, error):
    assert (np.abs(np.asarray(found) - expected) < 5 * np.asarray(error)).all(), (found, expected, error)


def test_ornstein_uhlenbeck():
    """du = -c u dk + sqrt(D) dW: mean u0 exp(-c k), variance D (1 - exp(-2 c k)) / 2c."""
    N, c, D = 20_000, 0.01, 4e-4
    runs = line(-eta * x, 4 * eta**2).sde_trajectory(1.5, 200, N, seed=1, record=5, substeps=50)
    k = runs.steps
    variance = D * (1 - np.exp(-2 * c * k)) / (2 * c)
    within(runs.mean[1:, 0], 1.5 * np.exp(-c * k[1:]), np.sqrt(variance[1:] / N))
    within(runs.covariance[1:, 0, 0], variance[1:], variance[1:] * np.sqrt(2 / N))
    assert runs.final.shape == (N, 1)
    assert runs.covariance[0, 0, 0] == 0


@pytest.mark.parametrize("rank", [1, 2])
def test_correlated_brownian_motion(rank):
    """Constant diffusion, also of lower rank than the number of coordinates."""
    D = eta**2 * (sp.Matrix([[2, 1], [1, 3]]) if rank == 2 else sp.Matrix([[1, 2], [2, 4]]))
    N = 20_000
    runs = compile_flow(make([0, 0], D, problem=PLANE), VALUES).sde_trajectory([0.0, 1.0], 100, N, record=2, substeps=8)
    expected = 100 * np.array(D.subs(eta, 0.01), dtype=float)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / N)
    within(runs.covariance[-1], expected, error)
    if rank == 1:
        np.testing.assert_allclose(runs.final[:, 1] - 1, 2 * runs.final[:, 0], atol=1e-12)


def test_geometric_brownian_motion_is_ito():
    N = 40_000
    runs = line(0, eta * x**2).sde_trajectory(1.0, 20, N, record=2, substeps=100)
    within(runs.mean[-1, 0], 1.0, np.sqrt((np.exp(0.2) - 1) / N))
    within(np.log(runs.final).mean(), -0.1, np.sqrt(0.2 / N) + 2e-4)


def test_sde_streams():
    flow = line(-eta * x, eta**2)
    one = flow.sde_trajectory([1.0], 500, 40, seed=3)
    assert np.array_equal(one.final, flow.sde_trajectory([1.0], 500, 40, seed=3, threads=2).final)
    assert np.array_equal(one.final[:5], flow.sde_trajectory([1.0], 500, 5, seed=3).final)
    assert np.array_equal(one.final, flow.sde_trajectory(np.ones((40, 1)), 500, 40, seed=3).final)
    assert not np.array_equal(one.final, flow.sde_trajectory([1.0], 500, 40, seed=4).final)
    assert "40 slow paths of x to 500" in repr(one)


def test_sde_noise_is_not_the_simulation_s():
    from quasistatic.numeric.simulate import simulate

    N = 4000
    slow = line(0, eta**2).sde_trajectory(0.0, 1, N, seed=2, record=1, substeps=1).final[:, 0]
    fast = simulate(zoo.sgd, LINE, {x: 0, y: 0}, 1, N, seed=2, eta=0.01, alpha=0.5).final[:, 1]
    assert abs(np.corrcoef(slow, fast)[0, 1]) < 5 / np.sqrt(N)


def test_potential():
    flow = compile_flow(make([-eta * x**3 / (1 + x**2) + eta], [[0]], metric=[[1 + x**2]], ito=[eta]), VALUES)
    np.testing.assert_allclose(flow.regularizer([[1.0], [2.0]]), 0.01 * np.array([0.25, 4.0]), rtol=1e-9)
    np.testing.assert_allclose(flow.regularizer(2.0, reference=1.0), 0.01 * 3.75, rtol=1e-9)
    assert flow.regularizer(2.0).shape == ()
    assert flow.regularizer(0.0) == 0
    np.testing.assert_allclose(flow.regularizer(2.0, reference=-2.0), 0, atol=1e-12)


def test_potential_in_the_plane():
    psi = x**2 * sp.exp(w) + w**4
    closed = make([-sp.diff(psi, x), -sp.diff(psi, w)], sp.zeros(2, 2), problem=PLANE)
    flow = compile_flow(closed, VALUES)
    assert flow.regularizer([0.7, -0.4]) == pytest.approx(float(psi.subs({x: 0.7, w: -0.4})), rel=1e-9)
    rotating = compile_flow(make([-x - w, x - w], sp.zeros(2, 2), problem=PLANE), VALUES)
    with pytest.raises(NoPotential, match="not a gradient flow"):
        rotating.regularizer([0.7, -0.4])
    with pytest.raises(StartError, match="reference"):
        flow.regularizer([1, 1], reference=[[1, 1]])


def test_potential_with_a_pole_at_the_reference():
    flow = line(-1 / x)
    with pytest.raises(StartError, match="reference"):
        flow.regularizer(2.0)
    assert flow.regularizer(2.0, reference=1.0) == pytest.approx(np.log(2), rel=1e-9)


def test_conditions_are_checked():
    seen = []

    def check(values, point):
        seen.append(point)
        if point is not None and point["x"] > 2:
            raise UnstableError(f"x = {point['x']}")

    flow = line(eta * x, eta**2, check=check)
    assert seen == [None]
    flow.trajectory(1.0, 10)
    assert seen[1] == {"x": 1.0}
    with pytest.raises(UnstableError):
        flow.trajectory(3.0, 10)
    with pytest.raises(UnstableError):
        flow.trajectory(1.0, 100)  # leaves the stable region on the way
    with pytest.raises(UnstableError):
        flow.sde_trajectory([[1.0], [3.0]], 10, 2)


def test_leaving_the_domain():
    with pytest.raises(UnstableError, match="leaves the domain"):
        line(x**2 / eta).trajectory(1.0, 1000)
    with pytest.raises(SimulationDiverged, match="leave the domain") as caught:
        line(-1 / sp.sqrt(x), eta).sde_trajectory(1.0, 1000, record=11)
    assert caught.value.runs.steps.tolist() == [0]


@pytest.mark.parametrize(
    ("u", "message"),
    [
        ([1.0, 2.0], "last axis"),
        ("here", "not a point"),
        ({y: 1}, "y is not a coordinate"),
        ({}, "no value for x"),
        ([[[1.0]]], "expected"),
    ],
)
def test_points(u, message):
    with pytest.raises(StartError, match=message):
        line(-eta * x).sde_trajectory(u, 10)


def test_start_points():
    flow = line(-1 / x, eta)
    for bad in (np.nan, np.inf):
        with pytest.raises(StartError, match="not finite"):
            flow.trajectory(bad, 10)
    with pytest.raises(StartError, match="drift is not finite"):
        flow.trajectory(0.0, 10)
    with pytest.raises(StartError, match="one start point"):
        flow.trajectory([[1.0], [2.0]], 10)
    with pytest.raises(StartError, match="3 start points for 64"):
        flow.sde_trajectory(np.ones((3, 1)), 10)
    for name in ("steps", "trajectories", "record", "substeps", "threads"):
        with pytest.raises(QuasistaticError, match=name):
            flow.sde_trajectory(1.0, **{"steps": 10, name: 0})


def test_numbers_and_open_functions():
    with pytest.raises(HyperparameterError, match="no value for alpha"):
        compile_flow(make([-x], [[0]]), {"eta": 1})
    h = function("h", positive=True)
    with pytest.raises(ProblemError, match=r"h is still open: substitute it with slow\.subs\(\{h: lambda x"):
        compile_flow(make([-h(x)], [[0]], problem=zoo.valley(h)), VALUES)
