"""Terminal text: what it says, how wide it is, and that its formulas mean the same."""

from __future__ import annotations

import itertools

import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.show.text import COLUMNS, basis_free_text, expression_text, fold, kernel_text, table, text

x, y, s = qs.symbols("x y s")
h = qs.function("h", positive=True)
sigma = qs.symbols("sigma", positive=True)
PAGES = list(itertools.product(["sgd", "heavy_ball", "qhm"], [None, qs.zoo.valley(h), qs.zoo.curved_valley()], ["iteration", "continuous"]))


def read_back(source: str, result: qs.Law | qs.SlowDynamics, *extra: sp.Symbol) -> sp.Expr:
    """The printed formula as an expression again."""
    names = {**result.symbols, **{e.name: e for e in extra}}
    return sp.sympify(source.replace("lambda", "lamda"), {n.replace("lambda", "lamda"): v for n, v in names.items()})


@pytest.mark.parametrize(("rule", "time"), list(itertools.product(["sgd", "heavy_ball", "nesterov", "qhm"], ["iteration", "continuous"])))
def test_printed_kernel_means_the_kernel(rule: str, time: str) -> None:
    law = qs.derive(qs.zoo.RULES[rule], time=time)
    i, j = sp.symbols("lambda_i lambda_j", positive=True)
    again = read_back(kernel_text(law), law, i, j)
    values = {symbol: sp.Rational(k + 2, 17) for k, symbol in enumerate(sorted(law.kernel.free_symbols, key=str))}
    assert again.subs(values) == law.kernel.subs(values)


@pytest.mark.parametrize("rule", ["sgd", "heavy_ball", "nesterov"])
def test_printed_drift_means_the_drift(rule: str) -> None:
    result = qs.derive(qs.zoo.RULES[rule], qs.zoo.rotated_valley(sp.pi / 6))
    again = read_back(expression_text(result.drift[0]), result)
    values = {symbol: sp.Rational(k + 2, 17) for k, symbol in enumerate(result.symbols.values())}
    assert again.subs(values) == result.drift[0].subs(values)


@pytest.mark.parametrize(("rule", "problem", "time"), PAGES)
def test_every_result_fits_the_page(rule: str, problem: qs.Problem | None, time: str) -> None:
    shown = text(qs.derive(qs.zoo.RULES[rule], problem, time=time))
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= COLUMNS
    assert "Derivative" not in shown


def test_matrix_equations() -> None:
    assert basis_free_text(qs.derive(qs.zoo.sgd)) == "H V + V H - eta H V H = eta Sigma"
    paper = "H V + V H + eta/(2*(1 - mu)**2) [H, [H, V]] = eta/(1 - mu) Sigma"
    assert basis_free_text(qs.derive(qs.zoo.heavy_ball, time="continuous")) == paper
    exact = "H V + V H + eta*mu/((1 - mu)**2*(1 + mu)) [H, [H, V]] - eta/(1 + mu) H V H = eta/(1 - mu) Sigma"
    assert basis_free_text(qs.derive(qs.zoo.heavy_ball)) == exact


def test_slow_dynamics() -> None:
    shown = text(qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(h)))
    lines = shown.splitlines()
    assert lines[0] == "heavy_ball on valley: slow dynamics (exact, per iteration)"
    for line in (
        "rule           z <- z - eta*(g + mu*b)",
        "gain           eta/(1 - mu)",
        "V[y,y]         alpha*eta*(1 + mu)/(2*(1 - mu)*(1 + mu - eta*h(x)))",
        "E[Delta x]     -alpha*eta**2*(1 + mu)*h'(x)/(2*(1 - mu)**2*(1 + mu - eta*h(x)))",
    ):
        assert line in lines


def test_terms_and_diffusion_are_listed() -> None:
    shown = text(qs.derive(qs.zoo.sgd.free("weight_decay"), qs.zoo.curved_valley(qs.IsotropicNoise(sigma)), time="continuous"))
    for label in ("E[dx]/dt", "  flatness", "  ito", "  force", "D[x,x]", "potential"):
        assert any(line.startswith(label) for line in shown.splitlines()), label


def test_long_expressions_are_pointed_at() -> None:
    shown = text(qs.derive(qs.zoo.qhm, qs.zoo.curved_valley()))
    assert "operations, not shown; see slow.drift)" in shown
    assert "operations, not shown; see slow.variance)" in shown


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        text(3)


def test_fold_keeps_every_character() -> None:
    source = " + ".join(f"a{k}*b**{k}" for k in range(60)) + " " + "*".join(f"c{k}" for k in range(60))
    lines = fold(source, 50)
    assert max(map(len, lines)) <= 50
    assert "".join("".join(lines).split()) == "".join(source.split())


def test_table() -> None:
    shown = table(("quantity", "z", "verdict"), [("drift of x", 1.5, "pass"), ("V", -12.25, "FAIL")])
    assert shown.splitlines() == [
        "quantity         z  verdict",
        "----------  ------  -------",
        "drift of x     1.5  pass",
        "V           -12.25  FAIL",
    ]
    assert table(("a", "b"), []).splitlines() == ["a  b", "-  -"]
    with pytest.raises(ValueError, match="2 cells"):
        table(("a",), [(1, 2)])
