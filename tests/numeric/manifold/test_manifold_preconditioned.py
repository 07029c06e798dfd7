"""Filters behind a slowly moving diagonal preconditioner: formulas of section 3.2, the limit map, and simulations."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from manifold_models import Diagonal, factorization, loss_third
from numba import njit
from oracle import curved_gradient, linear_step, slow_drift

import quasistatic as qs
from quasistatic.derivation.reduction import Order
from quasistatic.derivation.structure import linear_rule
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.numeric.manifold.preconditioned import Preconditioned


def ema(eta: float, mu: float, leading: bool = False) -> LinearFilter:
    rule = qs.zoo.ema_momentum
    order = Order(rule.hyperparameters["eta"]) if leading else Order()
    return LinearFilter(linear_rule(rule), {"eta": eta, "mu": mu}, order)


def adam(eta, mu=0.9, epsilon=0.3, power=0.5, rate=1e-3, leading=False, force=None):
    return Preconditioned(
        ema(eta, mu, leading), lambda v: 1 / (v**power + epsilon), lambda squares, z: rate * squares, rate, force, False, name="by hand"
    )  # fmt: skip


def test_label_noise_drift_at_leading_order():
    """-(eta^2 alpha/4) Pi_S S d3L[S], Pi_S = I - S J^T (J S J^T)^-1 J."""
    problem, z = factorization(noise=qs.HessianNoise(0.4), scale=0.5)
    flow = qs.manifold_flow(adam(0.01, leading=True), problem)
    rng = np.random.default_rng(0)
    v = rng.uniform(0.2, 3, 10)
    s = 1 / (np.sqrt(v) + 0.3)
    J = problem.functions.jacobian(z)
    Pi = np.eye(10) - (s[:, None] * J.T) @ np.linalg.solve((J * s) @ J.T, J)
    expected = -(0.01**2) * 0.4 / 4 * Pi @ (s * loss_third(problem.functions, z, np.diag(s), 0.5))
    assert flow.drift(z, v) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert J @ flow.drift(z, v) == pytest.approx(np.zeros(6), abs=1e-14)


def test_slow_states_at_their_equilibrium():
    problem, z = factorization(noise=qs.LabelNoise(0.4), scale=0.5)
    flow = qs.manifold_flow(adam(0.01), problem)
    J = problem.functions.jacobian(z)
    v = 0.4**2 * np.sum(J**2, axis=0)
    assert flow.slow_states(z) == pytest.approx(v)
    assert flow.drift(z) == pytest.approx(flow.drift(z, v))
    assert flow.slow_drift(z, v + 0.5) == pytest.approx(-1e-3 * 0.5 * np.ones(10))


@pytest.mark.parametrize("broken", [False, True])
def test_full_noise_against_the_limit_map(broken):
    """All three terms with S frozen, on the space curve, against second differences of the preconditioned rule's own limit."""
    S, sigma = np.array([0.7, 1.6, 0.9]), np.array([[3, 1, 0.5], [1, 2, 0.3], [0.5, 0.3, 1]])
    eta, mu, u = 0.04, 0.6, 0.7
    z = np.array([u, u**2, u**3 / 2])
    A, b = np.array([[1, -eta * mu], [0, mu]]), np.array([-eta * (1 - mu), 1 - mu])
    step = linear_step(A, b, lambda rows: S * curved_gradient(rows), 3)
    B = np.kron(b[:, None], np.diag(S))
    expected = slow_drift(step, np.kron([1.0, 0.0], z), B, sigma, lambda s: s[:, :3])
    rule = Preconditioned(ema(eta, mu), lambda v: v, lambda squares, z: squares, 1e-3)
    problem = qs.zoo.curved_valley(noise=qs.CovarianceNoise(sigma))
    flow = qs.manifold_flow(rule, problem)
    terms = flow.terms(z, S)
    found = terms.total - (terms.ito if broken else 0)
    agrees = np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert agrees != broken


def test_a_force_is_projected_along_the_preconditioned_normals():
    problem, z = factorization(noise=qs.LabelNoise(0.4), scale=0.5)
    v = np.linspace(0.5, 2, 10)
    flow = qs.manifold_flow(adam(0.01, force=lambda z, v: -1e-4 * z), problem)
    s = 1 / (np.sqrt(v) + 0.3)
    J = problem.functions.jacobian(z)
    Pi = np.eye(10) - (s[:, None] * J.T) @ np.linalg.solve((J * s) @ J.T, J)
    assert flow.terms(z, v).force == pytest.approx(-1e-4 * Pi @ z)
    assert flow.drift(z, v) == pytest.approx(flow.terms(z, v).total)


def test_a_senseless_preconditioner_is_refused():
    problem, z = factorization(noise=qs.LabelNoise(0.4))
    rule = Preconditioned(ema(0.01, 0.9), lambda v: -v, lambda squares, z: squares, 1e-3)
    with pytest.raises(qs.RuleError, match="positive"):
        qs.manifold_flow(rule, problem).drift(z)


# -- simulation --------------------------------------------------------------------------------------------------------


@njit(cache=False)
def run(X, y, z0, v0, eta, beta1, beta2, epsilon, power, sigma, steps, trajectories, seed):
    """Adam-like rule with full-batch label noise on the diagonal network, scale 1/2: the end of every trajectory."""
    np.random.seed(seed)
    n, k = X.shape
    d = 2 * k
    ends = np.empty((trajectories, d))
    for t in range(trajectories):
        z, v, m = z0.copy(), v0.copy(), np.zeros(d)
        g = np.empty(d)
        for _ in range(steps):
            g[:] = 0.0
            for i in range(n):
                r = sigma * np.random.randn() - y[i]
                for j in range(k):
                    r += X[i, j] * (z[j] ** 2 - z[k + j] ** 2)
                for j in range(k):
                    g[j] += 2 * r * X[i, j] * z[j]
                    g[k + j] -= 2 * r * X[i, j] * z[k + j]
            for j in range(d):
                m[j] = beta1 * m[j] + (1 - beta1) * g[j]
                v[j] = beta2 * v[j] + (1 - beta2) * g[j] ** 2
                z[j] -= eta * m[j] / (v[j] ** power + epsilon)
        ends[t] = z
    return ends


def gap(flow, z0, v0, ends, steps):
    """Projected mean of a simulation minus the end of the flow, relative to its displacement, and the standard error."""
    path = flow.trajectory(z0, steps, record=2, slow=v0, adiabatic=False)
    points = np.array([flow.project(z, slow=path.slow[-1]) for z in ends])
    moved = np.linalg.norm(path.z[-1] - path.z[0])
    error = np.linalg.norm(points.std(axis=0, ddof=1)) / np.sqrt(len(points))
    return np.linalg.norm(points.mean(axis=0) - path.z[-1]) / moved, error / moved, path


@pytest.mark.slow
@pytest.mark.parametrize(("power", "epsilon"), [(0.5, 0.3), (0.25, 0.0)], ids=["adam", "adame"])
def test_error_is_first_order_in_the_learning_rate(power, epsilon):
    """A curved 4-D manifold in 6-D, transient v: the error halves with eta, and a drift twice as large is far off."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((2, 3))
    z0 = np.array([0.9, 0.6, 1.1, 0.7, 1.0, 0.4])
    functions = Diagonal(X, X @ (z0[:3] ** 2 - z0[3:] ** 2))
    sigma, c, T = 1.0, 4.0, 1.0
    v0 = 3 * sigma**2 * np.sum(functions.jacobian(z0) ** 2, axis=0)
    found = {}
    for eta in (0.03, 0.015):
        steps = round(T / eta**2)
        rule = adam(eta, epsilon=epsilon, power=power, rate=c * eta**2, leading=True)
        flow = qs.manifold_flow(rule, qs.ArrayProblem(functions, qs.LabelNoise(sigma), 0.5))
        ends = run(X, functions.y, z0, v0, eta, 0.9, 1 - c * eta**2, epsilon, power, sigma, steps, 3000, 3)
        found[eta], error, path = gap(flow, z0, v0, ends, steps)
        half = adam(eta, epsilon=epsilon, power=power, rate=c * eta**2 / 2, leading=True)  # twice the drift, the same v
        twice = qs.manifold_flow(half, flow.problem).trajectory(z0, 2 * steps, record=2, slow=v0, adiabatic=False).z[-1]
        wrong = np.linalg.norm(twice - path.z[-1]) / np.linalg.norm(path.z[-1] - path.z[0])
        assert error < found[eta] / 4
    assert wrong > 3 * found[0.015] + 5 * error
    assert 0.4 < found[0.015] / found[0.03] < 0.8


# -- rules of the zoo --------------------------------------------------------------------------------------------------

ADAPTIVE = {
    "adam": {"eta": "1/50", "beta1": "4/5", "beta2": "999/1000", "eps": "1/10"},
    "rmsprop": {"eta": "1/50", "beta2": "999/1000", "eps": "1/10"},
    "adamw": {"eta": "1/50", "beta1": "4/5", "beta2": "999/1000", "eps": "1/10", "weight_decay": "1/100"},
    "adam_mini": {"eta": "1/50", "beta1": "4/5", "beta2": "999/1000", "eps": "1/10"},
}


@pytest.mark.parametrize("leading", [None, "eta"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_rules_of_the_zoo_agree_with_the_symbolic_route(name, leading):
    """E[dz] and dv of the coupled system, on the rotated valley with an oblique projection and two different v."""
    rule = getattr(qs.zoo, name).fix(**{k: v for k, v in ADAPTIVE[name].items() if k != "eta"})
    problem = qs.zoo.rotated_valley(theta=sp.Rational(2, 5), noise=qs.HessianNoise("1/4"))
    slow = qs.derive(rule, problem)
    if leading is not None:
        slow = slow.leading(leading)
    v = np.array([0.8, 0.3])
    numbers = [sp.Rational(3, 5), *map(sp.Rational, ("4/5", "3/10"))]
    at = dict(zip(slow.slow_state, numbers, strict=True)) | {slow.symbols["eta"]: sp.Rational(1, 50)}
    expected = np.array([float(e.subs(at).evalf(20)) for e in slow.drift])
    tangent = np.array([float(e.subs(at).evalf(20)) for e in problem.chart.tangent])
    point = np.array([float(e.subs(at).evalf(20)) for e in problem.chart.embedding])
    flow = qs.manifold_flow(rule, problem, leading=leading, eta=0.02)
    assert flow.drift(point, v) == pytest.approx(expected[0] * tangent, rel=1e-9, abs=1e-15)
    assert flow.slow_drift(point, {"v": v}) == pytest.approx(expected[1:], rel=1e-9, abs=1e-15)
    rest = np.array([float(slow.equilibrium[s].subs(at).evalf(20)) for s in slow.slow_state[1:]])
    assert flow.slow_states(point) == pytest.approx(rest, rel=1e-9)


def test_an_accumulator_has_no_equilibrium():
    problem, z = factorization(noise=qs.LabelNoise(0.4), scale=0.5)
    flow = qs.manifold_flow(qs.zoo.adagrad, problem, eta=0.01, eps=0.1)
    with pytest.raises(qs.RuleError, match="grows for ever"):
        flow.drift(z)
    path = flow.trajectory(z, 1000, record=3, slow={"s": 1.0}, adiabatic=False)
    assert np.all(np.diff(path.slow, axis=0) > 0)
    with pytest.raises(qs.StartError, match="no value for s"):
        flow.drift(z, {})
    with pytest.raises(qs.StartError, match="w is not a slow state"):
        flow.drift(z, {"w": 1})


def test_second_moments_with_minibatches_by_enumeration():
    """E[g g^T] = Sigma + E over samples of (grad r_i grad r_i^T V grad r_i grad r_i^T), batch 1."""
    rng = np.random.default_rng(4)
    functions = Diagonal(rng.standard_normal((3, 4)), rng.standard_normal(3))
    problem = qs.ArrayProblem(functions, qs.LabelNoise("3/10", batch=1), 0.17)
    hyper = {"eta": 0.003, "beta2": 0.999, "eps": 0.1}
    flow = qs.manifold_flow(qs.zoo.rmsprop, problem, **hyper)
    z = flow.project(0.4 + 0.3 * rng.standard_normal(8), slow=np.ones(8))
    v = rng.uniform(0.5, 2, 8)
    J, V = functions.jacobian(z), flow.covariance(z, v)
    gradients = [2 * 0.17 * 3 * np.outer(row, row) for row in J]
    squares = sum(np.diag(G @ V @ G) / 3 + (2 * 0.17 * 3 * 0.3 * row) ** 2 / 3 for G, row in zip(gradients, J, strict=True))
    assert flow.slow_drift(z, v) == pytest.approx(1e-3 * (squares - v), rel=1e-9)
    # and V solves its own equation in the coordinates S^(-1/2) z, sampled Jacobians included
    S = np.diag(1 / (np.sqrt(v) + 0.1))
    normal = np.linalg.qr(S @ J.T)[0]
    steps = [np.eye(8) - 0.003 * S @ G for G in gradients]
    noise = sum((0.003 * 2 * 0.17 * 3 * 0.3) ** 2 * np.outer(S @ row, S @ row) / 3 for row in J)
    again = sum(A @ V @ A.T for A in steps) / 3 + noise
    assert again == pytest.approx(V, rel=1e-8, abs=1e-14)
    assert normal @ (normal.T @ V) == pytest.approx(V, abs=1e-14)


def test_a_coordinate_that_the_noise_does_not_reach():
    """The valley along an axis: E[g_x^2] is 3 h'^2 V^2 from the fluctuation, by residuals and by the tensor alike."""
    x, y = qs.symbols("x y")
    hyper = {"eta": 0.02, "beta1": 0.8, "beta2": 0.999, "eps": 0.1}
    tensor = qs.zoo.valley(noise=qs.HessianNoise("1/4"))
    residuals = qs.Problem.from_residuals([sp.sqrt(1 + x**2) * y], noise=qs.HessianNoise("1/4"), scale=1, parameters=(x, y))
    z, v = np.array([0.6, 0.0]), np.array([0.2, 0.9])
    for problem in (tensor, residuals):
        flow = qs.manifold_flow(qs.zoo.adam, problem, **hyper)
        V = flow.covariance(z, v)[1, 1]
        found = flow.slow_drift(z, v)[0] / 1e-3 + v[0]
        assert found == pytest.approx(3 * 1.2**2 * V**2, rel=1e-9)
        with pytest.raises(qs.RuleError, match="does not reach"):
            flow.drift(z)


def test_oblique_projection_of_full_noise_agrees_with_the_symbolic_route():
    rule = qs.zoo.adam.fix(**ADAPTIVE["adam"])
    problem = qs.zoo.rotated_valley(theta=sp.Rational(2, 5), noise=qs.CovarianceNoise([[2, "1/2"], ["1/2", 1]]))
    slow = qs.derive(rule, problem)
    at = dict(zip(slow.slow_state, map(sp.Rational, ("3/5", "4/5", "3/10")), strict=True))
    T = np.array([float(e.subs(at).evalf(20)) for e in problem.chart.tangent])
    point = np.array([float(e.subs(at).evalf(20)) for e in problem.chart.embedding])
    flow = qs.manifold_flow(rule, problem)
    v = np.array([0.8, 0.3])
    assert flow.drift(point, v) == pytest.approx(float(slow.drift[0].subs(at).evalf(20)) * T, rel=1e-9)
    assert flow.diffusion(point, v) == pytest.approx(float(slow.diffusion[0, 0].subs(at).evalf(20)) * np.outer(T, T), rel=1e-9)
    variance = np.array(sp.Matrix(slow.variance).subs(at).evalf(20).tolist(), dtype=float)
    assert flow.covariance(point, v) == pytest.approx(variance, rel=1e-9)


def test_validate_adam_on_a_factorization():
    """Adam itself, its memory and slow states at their equilibrium, against the coupled flow."""
    rng = np.random.default_rng(2)
    U, W = rng.standard_normal((2, 3, 3))
    problem = qs.zoo.matrix_factorization(3, 3, 3, U @ W.T, noise=qs.LabelNoise("1/4"))
    flow = qs.manifold_flow(qs.zoo.adam, problem, eta=2e-3, beta1=0.8, beta2=0.9995, eps=0.5)
    report = flow.validate({"U": U, "W": W}, 4000, trajectories=64, seed=1, record=4)
    assert report.passed
    assert report.rows[1].theory > 20 * report.rows[1].error
