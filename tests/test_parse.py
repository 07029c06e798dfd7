"""The whitelist parser: what it reads, and that nothing else gets through."""

from __future__ import annotations

from pathlib import Path

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import quasistatic as qs
from quasistatic.parse import parse_assignments, parse_expression, parse_number

x, y = qs.symbols("x y")


def read(text: str) -> sp.Expr:
    return parse_expression(text, symbol=qs.symbols)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("(1+x**2)*y**2", (1 + x**2) * y**2),
        ("-x/3 + +y", y - x / 3),
        (" sqrt(x**2) ", sp.Abs(x)),
        ("exp(-x)*cos(pi*y)", sp.exp(-x) * sp.cos(sp.pi * y)),
        ("x**-2", x**-2),
        ("x**(1/2)", sp.sqrt(x)),
        ("2**100", sp.Integer(2) ** 100),
    ],
)
def test_arithmetic(text: str, meaning: sp.Expr) -> None:
    assert read(text) == meaning


def test_names_that_sympy_knows_are_plain_symbols() -> None:
    """No name but pi means anything by itself: E, I, S, N and beta are the user's."""
    for name in ("E", "I", "S", "N", "beta", "Symbol", "Q"):
        assert read(name) == qs.symbols(name)


@pytest.mark.parametrize(
    ("text", "meaning"), [("0.1", sp.Rational(1, 10)), ("1e-3", sp.Rational(1, 1000)), ("9/10", sp.Rational(9, 10)), ("pi/6", sp.pi / 6)]
)
def test_numbers_are_exact(text: str, meaning: sp.Expr) -> None:
    assert parse_number(text, "eta") == meaning
    assert not parse_number(text, "eta").atoms(sp.Float)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_means_its_shortest_rational(value: float) -> None:
    exact = parse_number(repr(value), "eta")
    assert exact.is_Rational
    assert float(exact) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "().__class__.__bases__[0]", "x.__class__", "x.subs(x, 1)", "open('f')", "eval('1')",
        "exec('1')", "lambda: 0", "(lambda v: v)(1)", "[v for v in (1, 2)]", "[1, 2]", "(1, 2)", "{1: 2}", "{1}", "x[0]", "'x'",
        "b'x'", "f'{x}'", "True", "None", "...", "1j", "x if y else 1", "x < y", "x and y", "not x", "~x", "x @ y", "x % 2",
        "x // 2", "x << 2", "x | y", "x & y", "x^2", "(v := 1)", "*x", "await x", "yield x", "x; y", "x = 1", "import os", "x\ny",
        "sqrt", "sqrt()", "sqrt(x, y)", "sqrt(x=1)", "sqrt(*x)", "gamma(x)", "Symbol(x)", "sin(x)(y)", "_x", "__x__", "x__y", "λ",
        "", " ", "x +", "(x", "x\0",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(qs.ParseError) as caught:
        read(text)
    assert repr(text.strip())[1:-1] in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9", "x**101", "x**-1000", "2**1e9", "((9**100)**100)**100", "(((2**100)**100)**100)**100",
        "((((1+1/3)**99)**99)**99)**99", "(x**100)**100", "((9*x)**100)**100", "((x+y)**30)**30",
    ],
)  # fmt: skip
def test_large_powers_are_refused_before_they_are_computed(text: str) -> None:
    with pytest.raises(qs.ParseError, match="exponent|large"):
        read(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["(" * 60 + "x" + ")" * 60, "-" * 60 + "x", "sin(" * 60 + "x" + ")" * 60, "-" * 1900 + "x", "(" * 999 + "x" + ")" * 999]
)
def test_nesting_is_limited(text: str) -> None:
    if text.startswith("((((") and len(text) < 200:
        assert read(text) == x  # parentheses alone are no depth
        return
    with pytest.raises(qs.ParseError):
        read(text)


def test_long_sums_and_products_are_not_deep() -> None:
    names = [f"x{i}" for i in range(300)]
    assert read("+".join(names)) == sum(map(qs.symbols, names))
    assert read("*".join(names)) == sp.Mul(*map(qs.symbols, names))
    assert read("x-y-x/y/2-1") == x - y - x / (2 * y) - 1
    with pytest.raises(qs.ParseError, match="nested too deeply"):
        read("(" * 60 + "x" + "*x+1)" * 60)


def test_length_is_limited() -> None:
    with pytest.raises(qs.ParseError, match="3999 characters is too long"):
        read("+".join(["x"] * 2000))


@pytest.mark.parametrize("text", ["1/0", "x/0", "x/(1-1)", "x/(y-y)", "0**-1", "log(0)", "tan(pi/2)", "1e999", "-1e999"])
def test_infinite_values_are_refused(text: str) -> None:
    with pytest.raises(qs.ParseError, match="finite|divides by zero"):
        read(text)


@pytest.mark.parametrize("text", ["sqrt(-1)", "log(-2)", "(-1)**(1/2)"])
def test_complex_numbers_are_refused(text: str) -> None:
    with pytest.raises(qs.ParseError, match="not a real number"):
        parse_number(text, "eta")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(qs.ParseError, match="unknown name 'etta'. Did you mean 'eta'"):
        parse_expression("1 - etta", {"eta": x})
    with pytest.raises(qs.ParseError, match="unknown function 'sinn'. Did you mean 'sin'"):
        read("sinn(x)")
    with pytest.raises(qs.ParseError, match=r"powers as \*\*"):
        read("x^2")


def test_assignments() -> None:
    assert parse_assignments("y=0") == [("y", "0")]
    assert parse_assignments(" y = x**2 , w=x*y/2") == [("y", "x**2"), ("w", "x*y/2")]


@pytest.mark.parametrize("text", ["", "y", "y=", "=0", "y=0,", "y=0,,w=1", "1y=0", "y.z=0", "f(y)=0", "lambda=1", "y z=0", "y[0]=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(qs.ParseError, match="write name=expression"):
        parse_assignments(text)


@given(st.text(alphabet="xy019.+-*/()e ,=_'[]<&", max_size=30))
def test_any_text_is_an_expression_or_a_parse_error(text: str) -> None:
    try:
        result = read(text)
    except qs.ParseError:
        return
    assert isinstance(result, sp.Expr)
