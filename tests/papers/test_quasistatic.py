"""Published results of "A quasistatic derivation of optimization algorithms' exploration on the minima manifold".

Numbers in brackets are the paper's equations; sigma^2 h is the noise covariance in y, so alpha = sigma^2/2. The paper's H
is half of the true Hessian.
"""

from __future__ import annotations

import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.algebra.field import is_zero

x, y = qs.symbols("x y")
h = qs.function("h", positive=True)
sigma = qs.symbols("sigma", positive=True)
eta, mu, beta, nu, lam = sp.symbols("eta mu beta nu lambda", positive=True)
H, dH = h(x), h(x).diff(x)


@pytest.fixture(scope="module")
def problem():
    return qs.zoo.valley(h=h, noise=qs.HessianNoise(sigma**2 / 2))


def check(slow, variance, drift):
    assert is_zero([slow.variance[1, 1] - variance, slow.drift[0] - drift])
    assert slow.diffusion == sp.zeros(1, 1)


def test_sgd(problem):
    check(qs.derive(qs.zoo.sgd, problem), eta * sigma**2 / (4 * (1 - eta * H)), -(eta**2) * sigma**2 * dH / (4 * (1 - eta * H)))


@pytest.mark.parametrize("rule", [qs.zoo.heavy_ball, qs.zoo.heavy_ball_velocity])
def test_heavy_ball(rule, problem):
    V = eta * sigma**2 * (1 + mu) / (4 * (1 - mu) * (1 + mu - eta * H))
    check(qs.derive(rule, problem), V, -eta / (1 - mu) * V * dH)


def test_ema_momentum(problem):
    V = eta * sigma**2 / 4 / (1 - (1 - mu) / (1 + mu) * eta * H)
    check(qs.derive(qs.zoo.ema_momentum, problem), V, -eta * V * dH)


def test_nesterov(problem):
    V = (
        eta * sigma**2 / 4 * (1 + mu + 2 * eta * H * mu * (1 + 2 * mu))
        / ((1 - mu + 2 * eta * H * mu) * (1 + mu - eta * H * (1 + 2 * mu)))
    )  # fmt: skip
    check(qs.derive(qs.zoo.nesterov, problem), V, -eta / (1 - mu) * V * dH)


def test_qhm(problem):
    a, q = 2 * H, sigma**2 * H  # true curvature a, noise variance q
    V = (
        eta * q * (1 - beta**2 + eta * a * beta * (1 - nu) * (1 + beta - 2 * beta * nu))
        / (a * (1 - beta + eta * a * beta * (1 - nu)) * (2 * (1 + beta) - eta * a * (1 + beta - 2 * beta * nu)))
    )  # fmt: skip
    check(qs.derive(qs.zoo.qhm, problem), V, -eta * V * dH)


def test_nesterov_is_qhm(problem):
    """QHM with nu = beta = mu and learning rate eta/(1 - mu)."""
    qhm, nesterov = (qs.derive(r, problem).drift[0] for r in (qs.zoo.qhm, qs.zoo.nesterov))
    assert is_zero(qhm.subs({beta: mu, nu: mu, eta: eta / (1 - mu)}, simultaneous=True) - nesterov)


def coefficients(rule, time):
    left, right = qs.derive(rule, time=time).matrix_coefficients
    return dict(left), dict(right)


def test_equation_39():
    """(39) with the true Hessian: HV + VH + eta/(2(1-mu)^2) [H,[H,V]] = (eta/(1-mu)) Sigma."""
    left, right = coefficients(qs.zoo.heavy_ball_velocity, "continuous")
    c = eta / (2 * (1 - mu) ** 2)
    expected = {(0, 1): 1, (1, 0): 1, (2, 0): c, (0, 2): c, (1, 1): -2 * c}
    assert left.keys() == expected.keys()
    assert is_zero([left[k] - expected[k] for k in left])
    assert right.keys() == {(0, 0)}
    assert is_zero(right[0, 0] - eta / (1 - mu))


def test_erratum_3_half_hessian_would_not_fit():
    """Reading the paper's coefficient eta/(1-mu)^2 with the true Hessian is off by a factor of two."""
    left, _ = coefficients(qs.zoo.heavy_ball_velocity, "continuous")
    assert not is_zero(left[2, 0] - eta / (1 - mu) ** 2)


def test_exact_counterpart_of_equation_39():
    """True Hessian: HV + VH + mu*eta/((1-mu)^2 (1+mu)) [H,[H,V]] - eta/(1+mu) HVH = (eta/(1-mu)) Sigma."""
    left, right = coefficients(qs.zoo.heavy_ball_velocity, "iteration")
    c = mu * eta / ((1 - mu) ** 2 * (1 + mu))
    expected = {(0, 1): 1, (1, 0): 1, (2, 0): c, (0, 2): c, (1, 1): -2 * c - eta / (1 + mu)}
    assert left.keys() == expected.keys()
    assert is_zero([left[k] - expected[k] for k in left])
    assert is_zero(right[0, 0] - eta / (1 - mu))


def test_erratum_11_equation_39_does_not_reduce_to_8():
    """At mu = 0 the SDE keeps a spurious double commutator; the exact equation and SGD's have none."""
    sde, _ = coefficients(qs.zoo.heavy_ball_velocity, "continuous")
    exact, _ = coefficients(qs.zoo.heavy_ball_velocity, "iteration")
    assert sde[2, 0].subs(mu, 0) == eta / 2
    assert exact[2, 0].subs(mu, 0) == 0


def test_sgd_matrix_equations():
    """(8), true Hessian: HV + VH = eta Sigma; exact: HV + VH - eta HVH = eta Sigma."""
    left, right = coefficients(qs.zoo.sgd, "continuous")
    assert left == {(0, 1): 1, (1, 0): 1}
    assert right == {(0, 0): eta}
    left, right = coefficients(qs.zoo.sgd, "iteration")
    assert left == {(0, 1): 1, (1, 0): 1, (1, 1): -eta}
    assert right == {(0, 0): eta}


def test_regularizers():
    """-log det regularizers: SGD and heavy ball, Hessian noise; SGD, isotropic noise."""
    alpha = sp.Symbol("alpha", positive=True)
    # half Hessian: Psi = -(eta sigma^2/4) log det(1 - eta H/2), true Hessian, alpha = sigma^2/2
    assert qs.derive(qs.zoo.sgd).regularizer() == -alpha * eta * sp.log(1 - eta * lam / 2) / 2
    heavy = -eta * alpha * (1 + mu) / (2 * (1 - mu) ** 2) * sp.log(1 - eta * lam / (2 * (1 + mu)))
    assert sp.expand_log(qs.derive(qs.zoo.heavy_ball).regularizer() - heavy).equals(0)
    isotropic = eta**2 * sigma**2 / 4 * (sp.log(lam) - sp.log(1 - eta * lam / 2))
    assert sp.expand(qs.derive(qs.zoo.sgd).regularizer("isotropic") - isotropic) == 0


def test_regularizer_of_the_valley(problem):
    """Psi on the valley: -(eta sigma^2/4) log(1 - eta h), and its gradient is the drift."""
    slow = qs.derive(qs.zoo.sgd, problem)
    potential = slow.regularizer()
    assert potential == -eta * sigma**2 * sp.log(1 - eta * H) / 4
    assert is_zero(potential.diff(x) + slow.drift[0])


def test_equation_13(problem):
    """(13) SDE, Hessian noise: V = eta sigma^2/4, drift -(eta sigma^2/4) dTr H/dt per t = k eta."""
    slow = qs.derive(qs.zoo.sgd, problem, time="continuous")
    assert slow.time == "t = k*eta"
    assert is_zero([slow.variance[1, 1] - eta * sigma**2 / 4, slow.drift[0] + eta * sigma**2 * dH / 4])


def test_equation_14():
    """(14) SDE, isotropic normal noise: V = (eta sigma^2/4)/h, drift -(eta sigma^2/4) (log h)'."""
    slow = qs.derive(qs.zoo.sgd, qs.zoo.valley(h=h, noise=qs.IsotropicNoise(sigma, normal_only=True)), time="continuous")
    assert is_zero([slow.variance[1, 1] - eta * sigma**2 / (4 * H), slow.drift[0] + eta * sigma**2 * dH / (4 * H)])


def test_equation_19(problem):
    """(19) SDE of heavy ball, Hessian noise: V = eta sigma^2/(4(1-mu)), drift -(eta sigma^2/(4(1-mu)^2)) dTr H."""
    slow = qs.derive(qs.zoo.heavy_ball_velocity, problem, time="continuous")
    assert is_zero([slow.variance[1, 1] - eta * sigma**2 / (4 * (1 - mu)), slow.drift[0] + eta * sigma**2 * dH / (4 * (1 - mu) ** 2)])


def test_erratum_2_noise_conventions():
    """Section 2.1's "sigma^2 H/2" as the noise covariance would halve V: eta sigma^2/8."""
    slow = qs.derive(qs.zoo.sgd, qs.zoo.valley(h=h, noise=qs.HessianNoise(sigma**2 / 4)), time="continuous")
    assert is_zero(slow.variance[1, 1] - eta * sigma**2 / 8)
    assert not is_zero(slow.variance[1, 1] - eta * sigma**2 / 4)


def test_equation_21_and_22():
    """(21), (22): speed factor eta^2/(B(1-mu)^2), range factor eta/(B(1-mu)), and the rule that keeps the range."""
    law = qs.derive(qs.zoo.heavy_ball)
    B, c = sp.symbols("B c", positive=True)
    assert is_zero([law.speed_factor - eta**2 / (B * (1 - mu) ** 2), law.range_factor - eta / (B * (1 - mu))])
    rule = law.scaling_rule(c)
    assert rule.batch == c * B
    assert is_zero(rule.gain - c * eta / (1 - mu))


def test_leading_order_agrees_with_the_sde_on_commuting_noise(problem):
    """Hessian noise commutes with the Hessian: the SDE and the leading order in eta are the same drift per iteration."""
    for rule in (qs.zoo.sgd, qs.zoo.heavy_ball, qs.zoo.nesterov):
        per_step = qs.derive(rule, problem).leading("eta").drift[0]
        assert is_zero(per_step - eta * qs.derive(rule, problem, time="continuous").drift[0])


def test_rotation_does_not_matter(problem):
    """A linear filter with one coefficient for all coordinates sees only the profile, at any angle."""
    theta = qs.symbols("theta")
    s = qs.symbols("s")
    turned = qs.derive(qs.zoo.heavy_ball, qs.zoo.rotated_valley(theta, h, noise=qs.HessianNoise(sigma**2 / 2)))
    assert is_zero(turned.drift[0].subs(s, x).doit() - qs.derive(qs.zoo.heavy_ball, problem).drift[0])


def test_weight_decay_is_a_small_force():
    """Coupled decay in heavy ball acts with the whole state: -eta*weight_decay*x/(1-mu); the parameter part alone is mu-free."""
    rule = qs.zoo.heavy_ball.free("weight_decay")
    slow = qs.derive(rule, qs.zoo.valley())
    decay = slow.symbols["weight_decay"]
    assert is_zero(slow.terms.force[0] + eta * decay * x / (1 - mu))
    literal = qs.derive(qs.zoo.heavy_ball.fix(weight_decay="1/10000"), qs.zoo.valley())
    assert is_zero(literal.terms.force[0] + eta * x / (10000 * (1 - mu)))
