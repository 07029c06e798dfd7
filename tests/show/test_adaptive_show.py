"""Rules with slow states: what their text and documents say, that they compile, and that the printed formulas are the compiled ones."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
from reader import Reader, rows_of
from rule_lists import PRECONDITIONED
from test_latex import compile_tex, needs_tex

import quasistatic as qs
from quasistatic.show import latex
from quasistatic.show.frozen import readable
from quasistatic.show.text import COLUMNS
from quasistatic.show.typeset import Equation, symbol_tex

sigma = qs.symbols("sigma", positive=True)
PROBLEMS = {
    "rotated": lambda: qs.zoo.rotated_valley(sp.pi / 6),
    "angle": qs.zoo.rotated_valley,
    "channels": qs.zoo.two_channels,
    "paraboloid": qs.zoo.paraboloid,
    "valley": qs.zoo.valley,
}
MODES = ("coupled", "adiabatic", "leading")
FEW = [("adam", "angle", "coupled"), ("adam", "valley", "coupled"), ("adamw", "angle", "leading"), ("adam_mini", "channels", "leading")]
ALL = [pytest.param(*c, marks=() if c in FEW else pytest.mark.slow) for c in itertools.product(PRECONDITIONED, PROBLEMS, MODES)]


def adam(problem: str = "angle", mode: str = "coupled", rule: str = "adam") -> Any:
    result: Any = qs.derive(qs.zoo.RULES[rule], PROBLEMS[problem]())
    if mode == "coupled" or rule == "adagrad":
        return result.leading("eta") if mode == "leading" else result
    return result.adiabatic() if mode == "adiabatic" else result.adiabatic().leading("eta")


# -- text --------------------------------------------------------------------------------------------------------------


def test_coupled_text() -> None:
    lines = str(adam("valley")).splitlines()
    assert lines[0] == "adam on valley: with slow states (exact, per iteration)"
    for line in (
        "S              1/(eps + sqrt(v))",
        "gain           eta, in units of S",
        "E[Delta x]     -S_x*S_y*alpha*eta**2*x*(1 + beta1)/(1 + beta1 - S_y*eta*(1 - beta1)*(1 + x**2))",
        "S_x            1/(eps + sqrt(v_x))",
        "E[Delta v_x]   (1 - beta2)*(M_x - v_x)",
    ):
        assert line in lines, line
    text = " ".join(" ".join(lines).split())
    assert "(no noise there: the third derivative's)" in text
    assert "(slow states at equilibrium, leading order in eta)" in text
    bare = " ".join(str(qs.derive(qs.zoo.adam.fix(eps=0), qs.zoo.valley())).split())
    assert "the equilibrium of v_x is implicit" in bare  # nothing bounds S where the noise does not reach
    assert text.count("beta2 < 1") == 1


def test_adiabatic_text() -> None:
    text = " ".join(str(adam(mode="leading")).split())
    assert "adam on rotated_valley: slow states at rest (leading order in eta, per iteration)" in text
    assert "E[Delta s] -S_x*S_y*alpha*eta**2*s" in text
    assert "M_x E[g_x^2] = 2*alpha*(1 + s**2)*sin(theta)**2" in text
    assert "A V + V A' = eta S Sigma S, A = S H" in text


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [
        ("adam", ("E[Delta v] (1 - beta2)*(M - v), M = E[g^2]", "sum over i of psi(H_ii)", "-alpha*eta**2/4 Pi_S S d^3L[S]")),
        ("adam_mini", ("M = E[g^2] averaged over the block", "sum over blocks B of |B| psi(tr H_BB/|B|)")),
        ("adagrad", ("E[Delta s] M, M = E[g^2]", "no formula: adagrad: s forgets nothing")),
        ("adam_power", ("psi'(h) alpha*eta**2/(4*((alpha*h)**power + eps))",)),
    ],
)
def test_law_text(rule: str, pieces: tuple[str, ...]) -> None:
    text = " ".join(str(qs.derive(qs.zoo.RULES[rule])).split())
    for piece in pieces:
        assert piece in text, piece


@pytest.mark.parametrize("problem", ["angle", "channels", "valley"])
@pytest.mark.parametrize("rule", ["adam", "adam_mini"])
def test_text_fits_the_page(rule: str, problem: str) -> None:
    shown = str(adam(problem, "leading", rule))
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= COLUMNS


def test_readable_sums_are_the_same_sums() -> None:
    a, eta, theta, s = sp.symbols("a eta theta s", real=True)
    c2 = sp.cos(theta) ** 2
    total = 1 + a - a * eta * c2 + a * eta - a * eta * s**2 * c2 + a * eta * s**2
    found = readable(1 / total, eta)
    assert found == 1 / (1 + a + a * eta * (1 + s**2) * sp.sin(theta) ** 2)
    values = {a: 0.3, eta: 0.2, theta: 0.7, s: 1.1}
    assert float(found.subs(values)) == pytest.approx(float((1 / total).subs(values)), rel=1e-12)


# -- documents ---------------------------------------------------------------------------------------------------------


def test_document_has_the_pieces() -> None:
    result = adam()
    source = latex.document(result)
    for piece in (
        r"S = \frac{1}{\varepsilon + \sqrt{v}}",
        r"$1 - \beta_{2}$ for $v$",
        r"\Pi_{S} = I - S J^{\mathsf T} (J S J^{\mathsf T})^{-1} J",
        r"[A, X] = A X - X A^{\mathsf T}",
        r"\eta\, S \Sigma S",
        r"M_i = \Sigma_{ii} + (H V H)_{ii}",
        r"\mathrm{E}[\Delta v_{x}] &= \left(1 - \beta_{2}\right) \left(M_{x} - v_{x}\right)",
        r"\hat{E}",
    ):
        assert piece in source, piece
    titles = [s.title for s in latex.steps(result)]
    assert titles.index("The slow states held fixed") < titles.index("Drift along the manifold") < titles.index("The slow states")
    assert "Dummy" not in source


def test_closure_is_said() -> None:
    source = latex.document(adam("valley"))
    assert r"2 \operatorname{tr}(T_i V T_i V)]" in source
    bare = latex.document(qs.derive(qs.zoo.adam.fix(eps=0), qs.zoo.valley()))
    assert "There is no formula for it with the slow states at their equilibrium" in bare


def test_law_document_has_the_pieces() -> None:
    source = latex.document(qs.derive(qs.zoo.adam_mini))
    assert r"\Psi = \sum_B |B|\, \psi\left(\tfrac{1}{|B|} \operatorname{tr} H_{BB}\right)" in source
    assert r"- \frac{\alpha \eta^{2}}{4}\, \Pi_{S}\, S\, \nabla^3 f[S]" in source
    assert "adagrad: s forgets nothing" in latex.document(qs.derive(qs.zoo.adagrad))


def test_decay_is_a_small_force() -> None:
    source = latex.document(adam(mode="leading", rule="adamw"))
    assert r"F_0 = - \eta\, \mathrm{weight\_decay}\, z" in source or r"F_0 = - \eta \mathrm{weight\_decay}\, z" in source
    assert r"+ \Pi_{S} F_0" in source
    assert r"_{\text{force}}" in source


def test_diffusion_of_noise_along_the_manifold() -> None:
    result = qs.derive(qs.zoo.rmsprop, qs.zoo.valley(noise=qs.IsotropicNoise(sigma))).leading("eta")
    source = latex.document(result)
    assert r"D = S_{x}^{2} \eta^{2} \sigma^{2}" in source
    assert r"\varphi''[D]" in source


def test_inline() -> None:
    for result in (adam(), adam(mode="leading"), qs.derive(qs.zoo.adam)):
        shown = latex.inline(result)
        assert shown.startswith(r"$\displaystyle ")
        assert shown.count("$") == 2


@needs_tex
@pytest.mark.parametrize(("rule", "problem", "mode"), ALL)
def test_documents_compile(tmp_path: Path, rule: str, problem: str, mode: str) -> None:
    assert max(compile_tex(latex.write(adam(problem, mode, rule), tmp_path / "out.tex")), default=0.0) < 10


@needs_tex
@pytest.mark.parametrize("rule", PRECONDITIONED)
def test_laws_compile(tmp_path: Path, rule: str) -> None:
    assert max(compile_tex(latex.write(qs.derive(qs.zoo.RULES[rule]), tmp_path / "out.tex")), default=0.0) < 10


# -- notation ----------------------------------------------------------------------------------------------------------


@needs_tex
def test_symbols_are_renamed(tmp_path: Path) -> None:
    result = adam("channels", "leading")
    renamed = {"v": r"\nu", "S": "P_0", "eps": r"\delta", "beta2": r"\rho", "theta1": "w"}
    source = latex.document(result, notation=renamed)
    body = source.partition("Provenance")[0]
    assert r"P_{0} = \frac{1}{\delta + \sqrt{\nu}}" in body
    assert r"{P_{0}}_{w} &= \frac{1}{\delta + \sqrt{\nu_{w}}}" in body
    assert r"\left(1 - \rho\right) \left(M_{w} - \nu_{w}\right)" in body
    assert not re.search(r"\\varepsilon|\\beta_\{2\}|v_\{|S_\{|\\Pi_\{S\}", body)
    assert max(compile_tex(latex.write(result, tmp_path / "out.tex", notation=renamed)), default=0.0) < 10


def test_the_preconditioner_is_in_the_table() -> None:
    table = latex.steps(adam())[0].parts[1].text  # type: ignore[union-attr]
    for row in ("slow state of the rule", "preconditioner, frozen", "eigenvalue of $S H$", "second moments of the gradient's components"):
        assert row in table


# -- round trip --------------------------------------------------------------------------------------------------------


def printed(result: Any, reader: Reader) -> dict[str, float]:
    """Values of the printed rates, after the symbols that they need: equilibria, moments, preconditioner, parts."""
    rows = [r for s in latex.steps(result) for p in s.parts if isinstance(p, Equation) for r in rows_of(p.body)]
    wanted = [(left, right) for left, right in rows if r"\nabla" not in right and r"\langle" not in right]
    pending = [(a, b) for a, b in wanted if re.match(r"\\mathcal\{P\}|[SMv]_\{[xy]\}$|\\mathrm\{E\}\[\\Delta|\\Psi\(", a)]
    found: dict[str, float] = {}
    for _ in range(6):
        for left, right in pending:
            try:
                value = reader.value(right)
            except AssertionError:
                continue
            if not left.startswith((r"\mathrm", r"\Psi")):
                reader.names[left] = value
            else:
                found[left] = value
    return found


def numbers(result: Any) -> dict[str, float]:
    known = {"eta": 0.02, "beta1": 0.8, "beta2": 0.99, "eps": 0.1, "weight_decay": 0.3, "power": 0.35, "alpha": 1.3}
    return {n: known[n] for n in (*result.rule.hyperparameters, *(c.name for c in result.problem.constants))}


@pytest.mark.parametrize("mode", ["coupled", "leading"])
@pytest.mark.parametrize("rule", PRECONDITIONED)
def test_printed_rates_are_the_compiled_ones(rule: str, mode: str) -> None:
    result = adam("rotated", mode, rule)
    values = numbers(result)
    point = dict(zip((s.name for s in result.slow_state), (0.7, 2.1, 3.4), strict=False))
    reader = Reader({symbol_tex(k): v for k, v in {**values, **point}.items()})
    # the slow states' values of the flow, not those at rest, where both are printed
    found = printed(result, reader)
    drift = result.compile(**values).drift(np.array(list(point.values())))
    for name, expected in zip(point, drift, strict=True):
        np.testing.assert_allclose(found[rf"\mathrm{{E}}[\Delta {symbol_tex(name)}]"], expected, rtol=1e-9)


def test_printed_potential_is_the_potential() -> None:
    result = adam("rotated", "leading")
    values = {**numbers(result), "s": 0.7}
    found = printed(result, Reader({symbol_tex(k): v for k, v in values.items()}))
    (psi,) = (v for k, v in found.items() if k.startswith(r"\Psi("))
    names = {s: values[s.name] for s in result.regularizer().free_symbols}
    np.testing.assert_allclose(psi, float(result.regularizer().subs(names)), rtol=1e-12)
