"""Adam in the valley at an angle, symbolically: eqs. 50 and 55 of the quasistatic paper, the angle in between, SGD beside it."""

from __future__ import annotations

import pytest
import sympy as sp

import quasistatic as qs

theta = qs.symbols("theta")
sigma = qs.symbols("sigma", positive=True)
NOISE = qs.HessianNoise(sigma**2 / 2)  # the paper's sigma: variance sigma^2 h across the valley
h = qs.function("h", positive=True)


def valley(angle, profile=None):
    return qs.zoo.rotated_valley(theta=angle, h=profile, noise=NOISE)


def closed_form(slow, angle, profile):
    """-(eta^2 sigma^2 h'/4) / ((sigma sqrt(h)|sin| + eps)(sigma sqrt(h)|cos| + eps))."""
    s = slow.coordinates[0]
    eta, eps = slow.symbols["eta"], slow.symbols["eps"]
    root = sigma * sp.sqrt(profile(s))
    speed = eta**2 * sigma**2 * profile(s).diff(s) / 4
    return -speed / ((root * abs(sp.sin(angle)) + eps) * (root * abs(sp.cos(angle)) + eps))


def same(a, b):
    """Equality by exact cancellation and, where roots hide it, at a random point to 25 digits."""
    difference = sp.cancel(sp.together(a - b))
    if difference == 0:
        return True
    s = next(x for x in a.free_symbols if x.name == "s")
    concrete = [e.subs(h(s), 2 + sp.sin(s)).doit() for e in (a, b)]
    symbols = sorted(set().union(*(e.free_symbols for e in concrete)), key=str)
    at = {x: sp.Rational(3 + 2 * i, 7 + i) for i, x in enumerate(symbols)}
    left, right = (e.subs(at).evalf(30) for e in concrete)
    return abs(left - right) < 1e-25 * abs(right)


@pytest.mark.parametrize("profile", [None, h], ids=["1+x^2", "any h"])
@pytest.mark.parametrize("angle", [theta, sp.Integer(0), sp.pi / 4, sp.pi / 6, 3 * sp.pi / 8, sp.pi / 64], ids=str)
def test_speed_at_any_angle(angle, profile):
    slow = qs.derive(qs.zoo.adam, valley(angle, profile)).adiabatic().leading("eta")
    assert slow.slow_state == slow.coordinates
    assert same(slow.drift[0], closed_form(slow, angle, profile or (lambda s: 1 + s**2)))


@pytest.mark.parametrize("rule", [qs.zoo.adam, qs.zoo.rmsprop, qs.zoo.adam_power.fix(power="1/2")], ids=lambda r: r.name)
def test_momentum_and_bias_corrections_do_not_matter_at_leading_order(rule):
    slow = qs.derive(rule, valley(theta, h)).adiabatic().leading("eta")
    assert same(slow.drift[0], closed_form(slow, theta, h))


def test_eq_55_at_a_quarter_turn():
    """Without eps the speed at pi/4 is -eta^2 h'/(2h), whatever the noise."""
    slow = qs.derive(qs.zoo.adam, valley(sp.pi / 4, h)).adiabatic().leading("eta")
    s, eta, eps = slow.coordinates[0], slow.symbols["eta"], slow.symbols["eps"]
    assert same(slow.drift[0].subs(eps, 0), -(eta**2) * h(s).diff(s) / (2 * h(s)))


def test_eq_50_along_an_axis():
    """At theta = 0 and eps << sigma sqrt(h) it is -eta^2 sigma h'/(4 eps sqrt(h)), minus sign included (erratum 19)."""
    slow = qs.derive(qs.zoo.adam, valley(0, h)).adiabatic().leading("eta")
    s, eta, eps = slow.coordinates[0], slow.symbols["eta"], slow.symbols["eps"]
    assert same((slow.drift[0] * eps).subs(eps, 0), -(eta**2) * sigma * h(s).diff(s) / (4 * sp.sqrt(h(s))))


def test_the_coupled_system_is_symbolic_at_any_angle():
    """u' from the product of the two preconditioners, v' towards the noise's second moments: nothing else depends on the angle."""
    slow = qs.derive(qs.zoo.adam.fix(eps=0), valley(theta, h)).leading("eta")
    s, v1, v2 = slow.slow_state
    eta, beta2 = slow.symbols["eta"], slow.symbols["beta2"]
    assert same(slow.drift[0], -(eta**2) * sigma**2 * h(s).diff(s) / (4 * sp.sqrt(v1) * sp.sqrt(v2)))
    for v, part, drift in ((v1, sp.sin(theta), slow.drift[1]), (v2, sp.cos(theta), slow.drift[2])):
        assert same(drift, (1 - beta2) * (sigma**2 * h(s) * part**2 - v))


@pytest.mark.parametrize("factor", [2, sp.Rational(1, 2), -1], ids=["alpha/2", "half", "sign"])
def test_wrong_prefactors_fail(factor):
    """The poster's alpha/2 in place of alpha/4, and eq. 50 without its minus."""
    slow = qs.derive(qs.zoo.adam, valley(theta, h)).adiabatic().leading("eta")
    assert not same(slow.drift[0], factor * closed_form(slow, theta, h))


def test_where_adam_and_sgd_are_equally_fast():
    """Without eps, Adam's speed over SGD's is 2/(sigma^2 h |sin 2 theta|)."""
    adam = qs.derive(qs.zoo.adam.fix(eps=0), valley(theta, h)).adiabatic().leading("eta")
    sgd = qs.derive(qs.zoo.sgd, valley(theta, h)).leading("eta")
    s = adam.coordinates[0]
    ratio = adam.drift[0] / sgd.drift[0].subs(sgd.symbols["eta"], adam.symbols["eta"])
    assert same(ratio, 2 / (sigma**2 * h(s) * abs(2 * sp.sin(theta) * sp.cos(theta))))


def test_without_eps_an_axis_is_refused():
    """The second moment along the valley then comes from the fluctuation alone, which follows it: no adiabatic closure."""
    slow = qs.derive(qs.zoo.adam.fix(eps=0), valley(0)).adiabatic().leading("eta")
    with pytest.raises(qs.RuleError, match="v_x is implicit"):
        _ = slow.drift
    with pytest.raises(qs.RuleError, match="v_x is implicit"):
        _ = qs.derive(qs.zoo.adam, valley(0)).adiabatic().drift


def test_along_an_axis_the_speed_saturates():
    """eps -> 0 at theta = 0: the coupled system's own second moment holds the speed at eta/sqrt(3), like a sign's."""
    flow = qs.derive(qs.zoo.adam, valley(0)).compile(eta=1e-3, beta1=0.9, beta2=0.9999, eps=1e-12, sigma=1.0)
    assert -flow.drift({"s": 3.0})[0] == pytest.approx(1e-3 / 3**0.5, rel=0.02)
    assert 3.0 / (4 * 1e-12) * 1e-6 > 1e5  # what eq. 50 would say
