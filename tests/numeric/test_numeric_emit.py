"""Emitted source computes what SymPy says, whatever the names, and refuses what it cannot."""

import keyword
import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from quasistatic.errors import ProblemError
from quasistatic.numeric.emit import emit, lift_numbers, local_names
from quasistatic.numeric.table import Table

x, y, a = sp.symbols("x y a", real=True)
p = sp.Symbol("p", positive=True)


def run(outputs, values, **options):
    """Emit and execute as plain Python."""
    names = local_names(values)
    program = emit(outputs, names, **options)
    source = "\n".join([*(line for stage in program.stages for line in stage), f"result = [{', '.join(program.outputs)}]"])
    scope = {
        "math": math,
        "power": math.pow,
        "maximum": max,
        "minimum": min,
        "sign": lambda v: float(np.sign(v)),
        **{names[s]: v for s, v in values.items()},
    }
    exec(source, scope)
    return scope["result"]


EXPRESSIONS = [
    x**2, x**7, x**-3, 1 / x, -x, x - y, -(x + y) * a, 3 * x / (7 * y**2), sp.sqrt(p), p ** sp.Rational(3, 2), p ** sp.Rational(-5, 2),
    p ** sp.Rational(1, 3), p**a, sp.exp(-x**2), sp.sin(x) * sp.cos(y), sp.Abs(x), sp.sign(x - y), sp.Max(x, y, a), sp.Min(x, 1),
    sp.Piecewise((x, x > y), (y**2, True)), sp.Piecewise((x, (x > 0) & (y > 0)), (a, x <= -5), (-a, True)), sp.Rational(1, 3), sp.pi * x,
    sp.E,    sp.sqrt(2) * x, (x + y) ** 2 / (x - y) ** 4, sp.Heaviside(x), sp.atan2(y, x), sp.sec(x), sp.Rational(123, 1000) * x, -x / y,
    -1 / (x * y),    2 * (x + y) - 2 * (x - a), sp.Mul(-1, sp.Add(x, y), evaluate=False) - sp.Mul(-2, sp.Add(x, a), evaluate=False),
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_expressions(expression):
    values = {x: 0.7, y: -1.3, a: 0.4, p: 2.5}
    (found,) = run([expression], values)
    assert found == pytest.approx(float(expression.subs(values)), rel=1e-13)


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_stages_change_nothing(expression):
    values = {x: 0.7, y: -1.3, a: 0.4, p: 2.5}
    (found,) = run([expression], values, levels={x: 2, y: 1})
    assert found == pytest.approx(float(expression.subs(values)), rel=1e-13)


def test_work_is_done_as_early_as_possible():
    eta, mu = sp.symbols("eta mu", positive=True)
    values = {x: 1.0, eta: 0.1, mu: 0.9}
    program = emit([x - eta * sp.exp(mu) * x / (1 - mu)], local_names(values), levels={x: 1})
    assert any("math.exp" in line for line in program.stages[0])
    assert "/" not in " ".join((*program.stages[1], *program.outputs))


def test_powers_are_products():
    program = emit([x**8 + x**4], local_names([x]))
    text = " ".join((*program.stages[0], *program.outputs))
    assert "**" not in text
    assert text.count("*") <= 4


def test_assignments_in_order_and_only_those_needed():
    s, t, u = sp.symbols("s t u", real=True)
    program = emit([t + 1], local_names([x]), assignments=[(s, x + 1), (t, s**2), (u, sp.log(s))])
    assert "log" not in " ".join(program.stages[0])
    assert run([t + 1], {x: 2.0}, assignments=[(s, x + 1), (t, s**2)]) == [10.0]


@pytest.mark.parametrize("name", ["lambda", "in", "None", "math", "alpha", "x 1", "c0", "np", "u64", "λ", "3z", "_", "L"])
def test_any_name(name):
    symbol, other = sp.Symbol(name, real=True), sp.Symbol("c0_", real=True)
    assert not keyword.iskeyword(local_names([symbol])[symbol])
    assert run([(symbol + 1) ** 2 * sp.exp(other) + (symbol + 1)], {symbol: 2.0, other: 0.0}) == [12.0]


def test_same_name_different_assumptions():
    assert run([x - sp.Symbol("x")], {x: 3.0, sp.Symbol("x"): 1.0}) == [2.0]


def test_open_functions_say_how_to_close_them():
    h = sp.Function("h", real=True)
    for expression in (h(x) * y, sp.diff(h(x), x), sp.diff(h(x), x).subs(x, 2 * y)):
        with pytest.raises(ProblemError, match=r"h is still open: substitute it with slow\.subs\(\{h: lambda x: \.\.\.\}\)"):
            emit([expression], local_names([x, y]))


@pytest.mark.parametrize("expression", [sp.zeta(x), sp.I * x, sp.besselj(0, x)])
def test_what_cannot_be_compiled(expression):
    with pytest.raises(ProblemError):
        emit([expression], local_names([x]))


def test_unknown_symbol():
    with pytest.raises(ProblemError, match="y has no value"):
        emit([x + y], local_names([x]))


def test_lifted_numbers():
    expressions = [x**2 * sp.Rational(9, 8000) - sp.Rational(1, 3), sp.exp(-sp.Rational(9, 8000) * x) + 1000, x**100 - 1000 * y]
    changed, data = lift_numbers(expressions)
    assert sorted(data.values()) == [9 / 8000, 1000.0]
    back = {s: sp.Rational(repr(v)) for s, v in data.items()}
    assert [sp.expand(c.xreplace(back) - e) for c, e in zip(changed, expressions, strict=True)] == [0, 0, 0]
    assert changed[2].has(x**100)


def test_data_does_not_enter_the_source():
    one, two = (Table("t", [sp.Rational(n, 1000) * x + (y - sp.Rational(n + 2, 77)) ** 2], [x], [y]) for n in (123, 457))
    assert one.source == two.source


leaves = st.sampled_from([x, y, p, sp.Integer(2), sp.Rational(1, 3), sp.Integer(-1)])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda u, v: u + v, inner, inner),
        st.builds(lambda u, v: u * v, inner, inner),
        st.builds(lambda u: sp.sin(u), inner),
        st.builds(lambda u, n: (u**2 + 1) ** n, inner, st.sampled_from([-2, -1, 2, 3, sp.Rational(1, 2), sp.Rational(-3, 2)])),
        st.builds(lambda u, v: sp.Abs(u - v), inner, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(trees, trees)
def test_random_trees(u, v):
    values = {x: 0.3, y: -0.8, p: 1.7}
    found = run([u, v, u - v], values, levels={x: 1, y: 2})
    exact = [float(e.subs(values)) for e in (u, v)]
    size = 1 + abs(exact[0]) + abs(exact[1])
    assert found == pytest.approx([*exact, exact[0] - exact[1]], abs=1e-11 * size)
