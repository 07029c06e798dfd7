"""Adaptive rules of the zoo on the zoo's surfaces of minima: numbers at a point against the symbolic derivation."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest
import sympy as sp

import quasistatic as qs

ETA = sp.Rational(1, 50)
RULES = {
    "adam": qs.zoo.adam.fix(beta1="4/5", beta2="999/1000", eps="1/10"),
    "rmsprop": qs.zoo.rmsprop.fix(beta2="999/1000", eps="1/10"),
    "adame": qs.zoo.adam_power.fix(beta1="4/5", beta2="999/1000", eps="1/10", power="1/4"),
}
PROBLEMS = {
    "two_channels": (qs.zoo.two_channels(noise=qs.LabelNoise("3/5")), ("3/2", "-1")),
    "paraboloid": (qs.zoo.paraboloid(noise=qs.LabelNoise("3/5")), ("11/5", "6/5")),
}
#: Every rule and every surface at leading order; exact in eta, which is slow with symbols, each of both at least once.
CASES = [
    *((r, p, "eta") for r in RULES for p in PROBLEMS),
    ("adam", "two_channels", None),
    ("rmsprop", "paraboloid", None),
    ("adame", "paraboloid", None),
]


@cache
def derived(name: str, where: str, leading: str | None) -> qs.SlowDynamics:
    slow = qs.derive(RULES[name], PROBLEMS[where][0])
    return slow if leading is None else slow.leading(leading)


def evaluated(expressions, at) -> np.ndarray:
    """Expressions at a point, in 40 digits: exact results are long, and substitution would walk through every copy of a part."""
    call = sp.lambdify(list(at), list(expressions), "mpmath", cse=True)
    with mpmath.workdps(40):
        return np.array([float(x) for x in call(*(mpmath.mpf(x.p) / x.q for x in map(sp.Rational, at.values())))])


@pytest.mark.parametrize(("name", "where", "leading"), CASES)
def test_adaptive_rules_agree_with_the_symbolic_route(name, where, leading):
    """E[dz], dv and the equilibrium covariance with v away from its equilibrium, then all again with v at it: to 1e-9."""
    problem, u = PROBLEMS[where]
    slow = derived(name, where, leading)
    flow = qs.manifold_flow(RULES[name], problem, leading=leading, eta=float(ETA))
    chart = problem.chart
    at = dict(zip(chart.coordinates, map(sp.Rational, u), strict=True)) | {slow.symbols["eta"]: ETA}
    z = evaluated(chart.embedding, at)
    tangent = evaluated(chart.tangent, at).reshape(chart.tangent.shape)
    k = len(u)

    v = [sp.Rational(4 + 3 * i, 5) for i in range(len(z))]
    moving = at | dict(zip(slow.slow_state[k:], v, strict=True))
    numbers = np.array(v, dtype=float)
    rates = evaluated(slow.drift, moving)
    assert flow.drift(z, numbers) == pytest.approx(tangent @ rates[:k], rel=1e-9, abs=1e-15)
    assert flow.slow_drift(z, numbers) == pytest.approx(rates[k:], rel=1e-9, abs=1e-15)
    V = evaluated(slow.variance, moving).reshape(slow.variance.shape)
    assert flow.covariance(z, numbers) == pytest.approx(V, rel=1e-9, abs=1e-15)

    rest = evaluated([slow.equilibrium[s] for s in slow.slow_state[k:]], at)
    assert flow.slow_states(z) == pytest.approx(rest, rel=1e-9)
    if leading is None:  # with v at its equilibrium, as adiabatic() has it in one expression
        resting = at | dict(zip(slow.slow_state[k:], map(sp.Rational, rest), strict=True))
        expected = tangent @ evaluated(slow.drift[:k], resting)
    else:
        expected = tangent @ evaluated(slow.adiabatic().drift, at)
    assert flow.drift(z) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    # the two orders, and v at its equilibrium or not, are told apart
    assert np.linalg.norm(tangent @ rates[:k] - expected) > 1e-3 * np.linalg.norm(expected)


def test_the_exact_target_of_v_differs_from_the_leading_one():
    """E[g_i^2] = Sigma_ii + (H V H)_ii against Sigma_ii: several percent at this learning rate."""
    problem, u = PROBLEMS["two_channels"]
    z = evaluated(problem.chart.embedding, dict(zip(problem.chart.coordinates, map(sp.Rational, u), strict=True)))
    exact, first = (qs.manifold_flow(RULES["adam"], problem, leading=order, eta=float(ETA)).slow_states(z) for order in (None, "eta"))
    assert np.all(exact > 1.01 * first)


@pytest.mark.parametrize("name", ["sgd", "heavy_ball", "nesterov", "qhm"])
@pytest.mark.parametrize("where", PROBLEMS)
def test_linear_rules_agree_with_the_symbolic_route(name, where):
    """Label noise, exact in the learning rate, two curvatures and one."""
    hyper = {"sgd": {}, "heavy_ball": {"mu": "3/5"}, "nesterov": {"mu": "3/5"}, "qhm": {"beta": "4/5", "nu": "7/10"}}[name]
    rule = getattr(qs.zoo, name).fix(eta=ETA, **hyper)
    problem, u = PROBLEMS[where]
    slow, flow, chart = qs.derive(rule, problem), qs.manifold_flow(rule, problem), problem.chart
    at = dict(zip(chart.coordinates, map(sp.Rational, u), strict=True))
    z, tangent = evaluated(chart.embedding, at), evaluated(chart.tangent, at).reshape(chart.tangent.shape)
    assert flow.drift(z) == pytest.approx(tangent @ evaluated(slow.drift, at), rel=1e-9, abs=1e-15)
    assert flow.covariance(z) == pytest.approx(evaluated(slow.variance, at).reshape(slow.variance.shape), rel=1e-9, abs=1e-15)
