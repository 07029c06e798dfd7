"""The structured routes, the dense route and the limit map agree: curved charts, several coordinates, every noise block."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from oracle import linear_step, slow_drift

import quasistatic as qs
from quasistatic.algebra.field import is_zero
from quasistatic.derivation.averaging import general_map, linear_map
from quasistatic.derivation.dense import Dense
from quasistatic.derivation.result import SlowResult

x, y, w, u, v, s, phi = qs.symbols("x y w u v s phi")
x1, x2 = qs.symbols("x1 x2")
Q = sp.Rational


def covariance(seed: int, d: int) -> sp.Matrix:
    rng = np.random.default_rng(seed)
    factor = sp.Matrix(d, d, lambda i, j: Q(int(rng.integers(-20, 21)), 10))
    return factor * factor.T


def surface(noise):
    """A curved surface in R^4 with two different curvatures."""
    loss = ((1 + x1**2 + x2**2) * (y - x1 * x2) ** 2 + (2 + x1**2) * (w - x1**2 / 2 + x2) ** 2) / 2
    return qs.Problem(loss, {y: x1 * x2, w: x1**2 / 2 - x2}, noise, parameters=(x1, x2, y, w))


def hyperbola(noise):
    """u v = 1 with a coordinate that is not a parameter."""
    return qs.Problem.from_residuals([u * v - 1], {u: s, v: 1 / s}, noise, coordinates={s: u})


def circle(noise):
    """The unit circle in its angle."""
    loss = (1 + x / 2) * (x**2 + y**2 - 1) ** 2 / 4
    return qs.Problem(loss, {x: sp.cos(phi), y: sp.sin(phi)}, noise, parameters=(x, y), coordinates={phi: sp.atan(y / x)})


CASES = {
    "curved valley": (lambda n: qs.zoo.curved_valley(noise=n), 3, {qs.zoo.curved_valley().parameters[0]: Q(2, 3)}),
    "surface": (surface, 4, {x1: Q(1, 2), x2: Q(-1, 3)}),
    "hyperbola": (hyperbola, 2, {s: Q(3, 2)}),
}
FIXED = {
    "sgd": qs.zoo.sgd.fix(eta="0.1"),
    "heavy_ball": qs.zoo.heavy_ball.fix(eta="0.05", mu="0.6", weight_decay="0.001"),
    "nesterov": qs.zoo.nesterov.fix(eta="0.05", mu="0.6"),
    "qhm": qs.zoo.qhm.fix(eta="0.1", beta="0.8", nu="0.6"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("time", ["iteration", "continuous"])
def test_dense_and_structured_agree_exactly(case, name, time):
    """All four terms, the diffusion and the covariance of the whole state, at a rational point: identical rationals."""
    make, d, at = CASES[case]
    problem = make(qs.CovarianceNoise(covariance(7, d)))
    slow = qs.derive(FIXED[name], problem, time=time)
    dense = Dense(linear_map(slow.linear, problem), problem, at)
    ours, theirs = slow.terms, dense.terms()
    for part in ("flatness", "correlation", "ito", "force"):
        assert sp.Matrix(getattr(ours, part)).subs(at) == sp.Matrix(getattr(theirs, part))
    assert sp.Matrix(slow.diffusion).subs(at) == sp.Matrix(dense.diffusion())
    assert sp.Matrix(slow.covariance).subs(at) == sp.Matrix(dense.covariance())


@pytest.mark.parametrize("case", ["surface", "hyperbola", "circle"])
@pytest.mark.parametrize("name", ["heavy_ball", "qhm"])
def test_limit_map_on_other_charts(case, name):
    """Two coordinates, a coordinate of one's own, an angle: against finite differences of the limit map."""
    make, d, at = {**CASES, "circle": (circle, 2, {phi: Q(1, 2)})}[case]
    noise = covariance(11, d)
    problem = make(qs.CovarianceNoise(noise))
    rule = FIXED[name].fix(weight_decay=0)
    slow = qs.derive(rule, problem)
    A, b = (np.array(m.tolist(), dtype=np.longdouble) for m in (slow.linear.A.evalf(30), slow.linear.b.evalf(30)))
    columns = list(problem.parameters)
    gradient = sp.lambdify(columns, list(problem.gradient), "numpy")
    charted = sp.lambdify(columns, list(problem.chart.coordinate_map), "numpy")

    def grad(z):
        return np.stack([np.broadcast_to(c, len(z)) for c in gradient(*z.T)], axis=1)

    rest = np.kron([1.0, 0.0], np.array([float(e.subs(at)) for e in problem.chart.embedding]))
    expected = slow_drift(
        linear_step(A, b[:, 0], grad, d), rest, np.kron(b, np.eye(d)), np.array(noise.tolist(), dtype=float),
        lambda states: np.stack(charted(*states[:, :d].T), axis=1),
    )  # fmt: skip
    found = np.array(slow.drift.subs(at).evalf(20).tolist(), dtype=float)[:, 0]
    parts = [slow.terms.flatness, slow.terms.correlation, slow.terms.ito]
    scale = np.linalg.norm([float(p) for t in parts for p in t.subs(at)])
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=0)


def test_general_route_of_a_linear_filter_is_the_same():
    """The general averaged map, differentiated blindly, gives what the filter gives."""
    problem = qs.zoo.valley(noise=qs.CovarianceNoise([[2, 1], [1, 3]]))
    slow = qs.derive(qs.zoo.heavy_ball.fix(mu="1/2"), problem)
    dense = Dense(general_map(slow.rule, problem), problem, {})
    for part in ("flatness", "correlation", "ito", "force"):
        assert is_zero(list(getattr(slow.terms, part) - getattr(dense.terms(), part)))
    assert is_zero(list(slow.covariance - dense.covariance()))


def test_a_rule_that_mixes_coordinates_takes_the_general_route():
    """Gradient centralisation is linear, but not one filter for every coordinate; it has a drift and no law for any loss."""

    @qs.optimizer
    def centred(z, g, *, eta):
        return z - eta * (g - qs.mean(g) / 2)

    problem = qs.zoo.valley()
    slow = qs.derive(centred.fix(eta="1/10"), problem)
    assert slow.linear is None
    eta, h = Q(1, 10), 1 + problem.parameters[0] ** 2
    # by hand: S = 1 - 1/4 [[1,1],[1,1]] couples the directions; the fast direction is S n, n = (0, 1)
    alpha = slow.symbols["alpha"]
    S = sp.Matrix([[Q(3, 4), Q(-1, 4)], [Q(-1, 4), Q(3, 4)]])
    variance = eta * alpha * S[1, 1] / (2 - 2 * eta * h * S[1, 1])
    drift = -eta * (S[0, 0] - S[0, 1] ** 2 / S[1, 1]) * h.diff(problem.parameters[0]) * variance
    assert is_zero(slow.drift[0] - drift)
    with pytest.raises(qs.RuleError, match="mixes coordinates"):
        _ = qs.derive(centred)


def test_dense_route_by_request():
    structured = qs.derive(qs.zoo.sgd, qs.zoo.valley())
    dense = qs.derive(qs.zoo.sgd, qs.zoo.valley(), route="dense")
    assert is_zero(structured.drift[0] - dense.drift[0])
    assert isinstance(dense, SlowResult)


def test_small_forces():
    """Weight decay, a shift and a literal decay are forces of first order, acting with the whole state."""
    problem = qs.zoo.valley()
    X = problem.parameters[0]

    @qs.optimizer
    def shifted(z, g, m, *, eta, mu, drift):
        m = mu * m + g
        return z - eta * m + drift, m

    slow = qs.derive(shifted, problem)
    assert slow.terms.force[0] == slow.symbols["drift"]

    @qs.optimizer
    def literal(z, g, *, eta):
        return 0.9999 * z - eta * g

    assert qs.derive(literal, problem).terms.force[0] == -X / 10000
    assert qs.derive(literal, problem).regularizer().diff(X).subs({"eta": 0}) is not None

    @qs.optimizer
    def decoupled(z, g, m, *, eta, mu, weight_decay):
        m = mu * m + g
        return z * (1 - eta * weight_decay) - eta * m, m

    force = qs.derive(decoupled, problem).terms.force[0]
    assert is_zero(force + sp.Symbol("eta", positive=True) * sp.Symbol("weight_decay", positive=True) * X)


def test_coupled_decay_against_the_map():
    """Engine, section 1: -6.252e-7 per step predicted for coupled decay in heavy ball; here the map itself, without noise."""
    rule = qs.zoo.heavy_ball.free("weight_decay")
    slow = qs.derive(rule, qs.zoo.valley())
    at = {"eta": Q(1, 1000), "mu": Q(9, 10), "weight_decay": Q(1, 10**6)}
    predicted = float(slow.terms.force[0].subs({slow.symbols[k]: n for k, n in at.items()} | {slow.coordinates[0]: 2}))
    z, b = 2.0, 0.0
    positions = []
    for k in range(2000):
        b = 0.9 * b + 1e-6 * z
        z -= 1e-3 * b
        positions.append(z) if k >= 1000 else None
    assert (positions[-1] - positions[0]) / 999 == pytest.approx(predicted, rel=1e-4)


def test_lookahead_holds_the_parameter_in_its_memory():
    """Slow weights: a memory that keeps the parameter; the gain follows from the whole state."""

    @qs.optimizer
    def lookahead(z, g, slow, *, eta, rate):
        fast = z - eta * g
        new = slow + rate * (fast - slow)
        return (fast + new) / 2, new

    law = qs.derive(lookahead)
    A, b = (
        np.array(m.subs({"eta": 0.1}).subs(dict.fromkeys(m.free_symbols, 0.1)).tolist(), dtype=float) for m in (law.linear.A, law.linear.b)
    )
    kicked = np.linalg.matrix_power(A, 4000) @ b
    assert float(law.gain.subs(dict.fromkeys(law.gain.free_symbols, 0.1))) == pytest.approx(-kicked[0, 0], rel=1e-9)


def test_no_potential_for_a_generic_constant_noise():
    """A known counterexample: omega is not closed, its curl at (.5, .3) is (eta^2/2)*0.0097403 per iteration."""
    a, b = qs.symbols("a b")
    hessian = sp.Matrix([[2 + x1, x2], [x2, 3 - x1]])
    vec = sp.Matrix([a, b])
    sigma = sp.zeros(4, 4)
    sigma[2, 2] = 1
    problem = qs.Problem((vec.T * hessian * vec)[0] / 2, {a: 0, b: 0}, qs.CovarianceNoise(sigma), parameters=(x1, x2, a, b))
    slow = qs.derive(qs.zoo.sgd, problem).leading("eta")
    with pytest.raises(qs.NoPotential, match="not a gradient flow"):
        slow.regularizer()
    omega = -sp.Matrix(slow.metric) * sp.Matrix(slow.drift)
    curl = (omega[1].diff(x1) - omega[0].diff(x2)).subs({x1: Q(1, 2), x2: Q(3, 10), slow.symbols["eta"]: 1})
    assert abs(float(curl)) == pytest.approx(0.0097403 / 2, rel=1e-4)


@pytest.mark.parametrize("make", [lambda: qs.zoo.curved_valley(), lambda: surface(qs.IsotropicNoise(qs.symbols("sigma", positive=True)))])
def test_potential_and_its_metric(make):
    """The drift without its Ito part is -M^-1 dPsi/du, on curved manifolds with a metric that is not flat."""
    problem = make()
    slow = qs.derive(qs.zoo.heavy_ball, problem)
    psi = slow.regularizer()
    at = {slow.symbols["eta"]: 0.02, slow.symbols["mu"]: 0.7} | dict.fromkeys(problem.constants, 0.3)
    at |= {c: 0.4 + 0.3 * i for i, c in enumerate(slow.coordinates)}
    drift = sp.Matrix(slow.drift - slow.terms.ito).subs(at)
    gradient = sp.Matrix([psi.diff(c) for c in slow.coordinates]).subs(at)
    residual = sp.Matrix(slow.metric).subs(at) * drift + gradient
    assert max(abs(float(r)) for r in residual) < 1e-12 * max(abs(float(g)) for g in gradient)
