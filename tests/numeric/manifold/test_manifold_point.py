"""The reduction at a point, in numbers: against the symbolic route, brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from manifold_models import Diagonal, Factorization, factorization, loss_third, sampled_covariance

import quasistatic as qs

x, y, w = qs.symbols("x y w")
FULL = [[2, 1, 0], [1, 3, 1], [0, 1, 1]]
HYPER = {
    "sgd": {"eta": "1/10"}, "heavy_ball": {"eta": "1/20", "mu": "3/5"}, "nesterov": {"eta": "1/20", "mu": "3/5"},
    "qhm": {"eta": "1/5", "beta": "4/5", "nu": "7/10"},
}  # fmt: skip


def surface(noise: qs.CovarianceNoise) -> qs.Problem:
    return qs.Problem((1 + x**2) * (w - x * y) ** 2, {w: x * y}, noise, parameters=(x, y, w))


def pushed_forward(problem: qs.Problem, slow: qs.SlowDynamics, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(z, E[dz], Cov[dz], V) from the symbolic drift of a chart: E[dz] = T E[du] + phi''[D]/2."""
    chart = problem.chart
    at = dict(zip(chart.coordinates, (sp.Rational(repr(float(v))) for v in u), strict=True))

    def number(m):
        return np.array(sp.Matrix(m).subs(at).evalf(20).tolist(), dtype=float)

    D, T = number(slow.diffusion), number(chart.tangent)
    drift = T @ number(slow.drift).ravel()
    for i, a in enumerate(chart.coordinates):
        for j, b in enumerate(chart.coordinates):
            drift = drift + D[i, j] / 2 * number(chart.embedding.diff(a, b)).ravel()
    return number(chart.embedding).ravel(), drift, T @ D @ T.T, number(slow.variance)


@pytest.mark.parametrize("name", HYPER)
@pytest.mark.parametrize(("make", "u"), [(qs.zoo.curved_valley, [0.7]), (surface, [0.7, -0.4])], ids=["curve", "surface"])
def test_agrees_with_the_symbolic_route(name, make, u):
    """All three terms, with noise in every direction, on a space curve and on a curved surface."""
    rule = getattr(qs.zoo, name).fix(**HYPER[name])
    problem = make(noise=qs.CovarianceNoise(FULL))
    slow = qs.derive(rule, problem)
    z, drift, diffusion, variance = pushed_forward(problem, slow, np.array(u))
    flow = qs.manifold_flow(rule, problem)
    terms = flow.terms(z)
    for part in (terms.flatness, terms.ito) if name == "sgd" else (terms.flatness, terms.correlation, terms.ito):
        assert np.abs(part).max() > 1e-3 * np.abs(drift).max()
    assert flow.drift(z) == pytest.approx(drift, rel=1e-9, abs=1e-12)
    assert terms.total == pytest.approx(drift, rel=1e-9, abs=1e-12)
    assert flow.diffusion(z) == pytest.approx(diffusion, rel=1e-9, abs=1e-12)
    assert flow.covariance(z) == pytest.approx(variance, rel=1e-9, abs=1e-12)


def test_leading_order_and_small_forces_agree_with_the_symbolic_route():
    problem = qs.zoo.curved_valley(noise=qs.HessianNoise(sp.Rational(1, 3)))
    rule = qs.zoo.heavy_ball.free("weight_decay").fix(mu="3/5")
    for leading in (None, "eta"):
        slow = qs.derive(rule, problem) if leading is None else qs.derive(rule, problem).leading(leading)
        numbers = (
            slow.subs({slow.symbols["eta"]: sp.Rational(1, 20), slow.symbols["weight_decay"]: sp.Rational(1, 1000)})
            if leading is None
            else None
        )
        at = {x: sp.Rational(7, 10), slow.symbols["eta"]: sp.Rational(1, 20), slow.symbols["weight_decay"]: sp.Rational(1, 1000)}
        drift = float((slow.drift[0] if numbers is None else numbers.drift[0]).subs(at))
        T = np.array(problem.chart.tangent.subs(at), dtype=float).ravel()
        flow = qs.manifold_flow(rule, problem, leading=leading, eta=0.05, weight_decay=1e-3)
        assert flow.drift(np.array([0.7, 0.49, 0.343 / 2])) == pytest.approx(T * drift, rel=1e-9)


# -- without a chart ---------------------------------------------------------------------------------------------------


def symbolic_factorization(noise, scale=1):
    U = sp.Matrix(2, 2, qs.symbols("u0:4"))
    W = sp.Matrix(3, 2, qs.symbols("w0:6"))
    _, z = factorization()
    M = (z[:4].reshape(2, 2) @ z[4:].reshape(3, 2).T).round(14)
    residuals = list(U * W.T - sp.Matrix(2, 3, [sp.Float(v, 17) for v in M.ravel()]))
    return qs.Problem.from_residuals(residuals, noise=noise, scale=scale, parameters=(*U, *W))


@pytest.mark.parametrize(
    "noise",
    [
        qs.HessianNoise("1/3"),
        qs.LabelNoise("1/5"),
        qs.IsotropicNoise("1/7"),
        qs.IsotropicNoise("1/7", normal_only=True),
        qs.LabelNoise("1/5", batch=2),
    ],
    ids=["hessian", "label", "isotropic", "normal", "batch"],
)
def test_expressions_and_array_functions_agree(noise):
    arrays, z = factorization(noise=noise, scale=0.125)
    symbols = symbolic_factorization(noise, sp.Rational(1, 8))
    one, two = (qs.manifold_flow(qs.zoo.heavy_ball, p, eta=0.02, mu=0.5) for p in (arrays, symbols))
    z = one.project(z)
    assert two.drift(z) == pytest.approx(one.drift(z), rel=1e-9, abs=1e-15)
    assert two.covariance(z) == pytest.approx(one.covariance(z), rel=1e-9, abs=1e-15)
    assert two.diffusion(z) == pytest.approx(one.diffusion(z), rel=1e-9, abs=1e-15)
    assert np.linalg.norm(one.drift(z)) > 1e-8


def test_hessian_noise_in_closed_form():
    """SGD: V = eta alpha/2 (1 - eta H/2)^-1 on the normal space, and the drift descends tr rho(H) along the manifold."""
    problem, z = factorization(noise=qs.HessianNoise(0.3), scale=1.0)
    eta, alpha = 0.02, 0.3
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=eta)
    J = problem.functions.jacobian(z)
    H = 2 * J.T @ J
    P = np.eye(10) - np.linalg.pinv(J) @ J
    V = eta * alpha / 2 * np.linalg.inv(np.eye(10) - eta * H / 2) @ (np.eye(10) - P)
    assert flow.covariance(z) == pytest.approx(V, abs=1e-12)
    expected = -eta / 2 * P @ loss_third(problem.functions, z, V, 1.0)
    assert flow.drift(z) == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert flow.hessian_trace(z) == pytest.approx(np.trace(H))
    assert flow.curvatures(z) == pytest.approx(np.linalg.eigvalsh(H)[::-1][:6])


@pytest.mark.parametrize("noise", [qs.HessianNoise(0.3), qs.LabelNoise(0.2), qs.IsotropicNoise(0.2)], ids=lambda n: type(n).__name__)
def test_the_drift_is_the_gradient_of_the_regularizer(noise):
    problem, z = factorization(noise=noise, scale=1.0)
    flow = qs.manifold_flow(qs.zoo.nesterov, problem, eta=0.01, mu=0.6)
    z = flow.project(z)
    terms = flow.terms(z)
    direction = terms.flatness + terms.correlation
    h = 1e-3
    change = (flow.regularizer(flow.project(z + h * direction)) - flow.regularizer(flow.project(z - h * direction))) / (2 * h)
    assert change == pytest.approx(-float(direction @ direction), rel=1e-5)


def test_regularizer_agrees_with_the_symbolic_one():
    for noise in (qs.HessianNoise("1/3"), qs.IsotropicNoise("1/3", normal_only=True)):
        problem = qs.zoo.curved_valley(noise=noise)
        slow = qs.derive(qs.zoo.heavy_ball.fix(eta="1/20", mu="3/5"), problem)
        flow = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=0.05, mu=0.6)
        values = [float(slow.regularizer().subs({x: a})) for a in (0.7, -0.3)]
        points = [np.array([a, a**2, a**3 / 2]) for a in (0.7, -0.3)]
        assert flow.regularizer(points[0]) - flow.regularizer(points[1]) == pytest.approx(values[0] - values[1], rel=1e-9)


def test_no_potential_for_sampled_or_general_noise():
    problem, z = factorization(noise=qs.LabelNoise(0.2, batch=2))
    with pytest.raises(qs.NoPotential, match="neither"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).regularizer(z)


# -- minibatches -------------------------------------------------------------------------------------------------------

#: rule, hyperparameters, and its matrices written out: s = (z, memory), s' = A s + b g
SAMPLED = {
    "sgd": ({"eta": 0.02}, [[1.0]], [-0.02]),
    "heavy_ball": ({"eta": 0.01, "mu": 0.6}, [[1, -0.01 * 0.6], [0, 0.6]], [-0.01, 1.0]),
    "nesterov": ({"eta": 0.01, "mu": 0.6}, [[1, -0.01 * 0.36], [0, 0.6]], [-0.01 * 1.6, 1.0]),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_minibatches_against_every_minibatch_enumerated(name, batch):
    hyper, A, b = SAMPLED[name]
    rng = np.random.default_rng(4)
    scale, sigma = 0.17, 0.3
    functions = Diagonal(rng.standard_normal((3, 4)), rng.standard_normal(3))
    problem = qs.ArrayProblem(functions, qs.LabelNoise(sigma, batch=batch), scale)
    flow = qs.manifold_flow(getattr(qs.zoo, name), problem, **hyper)
    z = flow.project(0.4 + 0.3 * rng.standard_normal(8))
    J = functions.jacobian(z)
    V = sampled_covariance(J, np.array(A, dtype=float), np.array(b), scale, batch, sigma)
    assert flow.covariance(z) == pytest.approx(V, rel=1e-9, abs=1e-13)
    P = np.eye(8) - np.linalg.pinv(J) @ J
    expected = -flow.gain / 2 * P @ loss_third(functions, z, V, scale)
    assert flow.drift(z) == pytest.approx(expected, rel=1e-6, abs=1e-10)
    additive = qs.manifold_flow(getattr(qs.zoo, name), problem.with_noise(qs.LabelNoise(sigma * (3 / batch) ** 0.5)), **hyper)
    assert np.linalg.norm(additive.drift(z) - expected) > 0.02 * np.linalg.norm(expected)


def test_the_equation_of_the_plain_gradient_step():
    """KM + MK - a((1/B) Diag(KMK) + (1-1/B) KMK/n) = (a sigma^2/B) I with a = 2 s n eta and V = J^T M J."""
    problem, z = factorization(noise=qs.LabelNoise(0.3, batch=3), scale=0.25)
    eta, n, B = 0.01, 6, 3
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=eta)
    J = problem.functions.jacobian(z)
    K = J @ J.T
    back = np.linalg.pinv(J.T)
    M = back @ flow.covariance(z) @ back.T
    a = 2 * 0.25 * n * eta
    left = K @ M + M @ K - a * (np.diag(np.diag(K @ M @ K)) / B + (1 - 1 / B) * K @ M @ K / n)
    assert left == pytest.approx(a * 0.3**2 / B * np.eye(n), abs=1e-12)


def test_many_residuals_are_solved_iteratively_to_the_same_answer(monkeypatch):
    from quasistatic.numeric.manifold import sampling

    problem, z = factorization(4, 5, 3, noise=qs.LabelNoise(0.3, batch=1), scale=0.025)
    flow = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=0.03, mu=0.5)
    dense = flow.drift(z)
    monkeypatch.setattr(sampling, "DENSE", 0)
    assert flow.drift(z) == pytest.approx(dense, rel=1e-8, abs=1e-16)


def test_no_label_noise_no_flow():
    problem, _ = factorization(noise=qs.LabelNoise(0, batch=1))
    with pytest.raises(qs.ProblemError, match="nothing drifts"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01)


def test_a_learning_rate_that_single_samples_do_not_survive():
    """Stable for the average, unstable for batch 1: eta max|grad r|^2 beyond 2."""
    problem, z = factorization(noise=qs.LabelNoise(0.3, batch=1), scale=1 / 12)
    J = problem.functions.jacobian(z)
    eta = 2.5 / np.max(np.sum(J**2, axis=1))
    assert eta * np.linalg.norm(J, 2) ** 2 / 6 < 2
    qs.manifold_flow(qs.zoo.sgd, problem.with_noise(qs.LabelNoise(0.3)), eta=eta).check(z)
    with pytest.raises(qs.UnstableError, match="larger batch"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=eta).check(z)


def test_independent_noises_add_up():
    """Full-batch label noise and noise along the manifold: the drift of the one, the diffusion of the other."""
    problem, z = factorization(noise=qs.LabelNoise("1/5") + qs.IsotropicNoise("1/4", tangent_only=True), scale=0.5)
    both = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=0.02, mu=0.5)
    label = qs.manifold_flow(qs.zoo.heavy_ball, problem.with_noise(qs.LabelNoise("1/5")), eta=0.02, mu=0.5)
    assert both.terms(z).flatness == pytest.approx(label.drift(z), rel=1e-9, abs=1e-15)
    J = problem.functions.jacobian(z)
    P = np.eye(10) - np.linalg.pinv(J) @ J
    assert both.diffusion(z) == pytest.approx(0.04**2 / 16 * P, abs=1e-14)
    bend = [np.sum(P * np.stack([problem.functions.hvp(z, row, e) for e in np.eye(10)])) for row in np.eye(6)]
    assert both.terms(z).ito == pytest.approx(-(0.04**2) / 32 * np.linalg.pinv(J) @ bend, abs=1e-14)


def test_redundant_residuals():
    """A target of rank p: the Jacobian has rank p(m+n-p) everywhere, less than the number of residuals."""
    problem, z = factorization(4, 4, 2, noise=qs.LabelNoise(0.2), scale=1.0)
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.005)
    assert len(flow.curvatures(z)) == 12
    J = problem.functions.jacobian(z)
    H = 2 * J.T @ J
    P = np.eye(16) - np.linalg.pinv(J, rcond=1e-9) @ J
    V = 0.005 * 0.08 / 2 * np.linalg.inv(np.eye(16) - 0.005 * H / 2) @ (np.eye(16) - P)
    assert flow.covariance(z) == pytest.approx(V, abs=1e-12)
    assert flow.drift(z) == pytest.approx(-0.0025 * P @ loss_third(problem.functions, z, V, 1.0), rel=1e-6, abs=1e-12)


def test_factorization_class_is_what_it_says():
    problem, z = factorization(noise=qs.LabelNoise(1))
    problem.check_derivatives(z)
    assert isinstance(problem.functions, Factorization)
