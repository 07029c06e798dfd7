"""Symbols renamed by the user, and the table that says what they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import sympy as sp
from rule_lists import DERIVED
from test_latex import compile_tex

import quasistatic as qs
from quasistatic.show import latex
from quasistatic.show.lettering import LONGEST, checked
from quasistatic.show.table import powers_of_gain

x = qs.symbols("x")
h = qs.function("h", positive=True)
needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def slow() -> qs.SlowDynamics:
    return qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(h))


def test_symbols_are_renamed_everywhere() -> None:
    result = slow()
    source = result.latex(notation={"eta": "lr", result.symbols["mu"]: r"\beta_1", "b": "m", x: r"\hat x", h: "k^*", "alpha": "temp_%"})
    drift = (
        r"\mathrm{E}[\Delta \hat{x}] = - \frac{\mathrm{temp\_\%} \mathrm{lr}^{2} \left(1 + \beta_{1}\right) {k^{*}}'(\hat{x})}"
        r"{2 \left(1 - \beta_{1}\right)^{2} \left(1 + \beta_{1} - \mathrm{lr} {k^{*}}(\hat{x})\right)}"
    )
    assert drift in source
    assert "V_{y, m_{y}}" in source
    body = source.partition("Provenance")[0]
    assert not re.search(r"\\eta|\\mu|\\alpha|h\(", body)
    assert r"\texttt{eta}" in body  # the table says what was renamed


def test_swapped_names() -> None:
    source = slow().latex(notation={"eta": r"\mu", "mu": r"\eta"})
    assert r"\gamma = \frac{\mu}{1 - \eta}" in source


def test_titles_conditions_and_continuous_time() -> None:
    result = qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(), time="continuous").leading("eta")
    source = result.latex(notation={"eta": "lr", "e": r"\varepsilon", "p": "q"})
    assert r"leading order in $\mathrm{lr}$" in source
    assert r"\varepsilon \to 0" in source
    assert r"t = k\,\mathrm{lr}" in source
    assert r"\eta" not in source.partition("Provenance")[0]


def test_law() -> None:
    source = qs.derive(qs.zoo.sgd).latex(notation={"eta": r"\gamma", "alpha": r"\theta", "B": "b"})
    assert r"H V + V H - \gamma\, H V H = \gamma\, \Sigma" in source
    assert r"\hat{\gamma} = \gamma" in source
    assert r"b \to c b" in source
    assert r"$\Sigma = \theta H$" in source


def test_own_letters_step_aside_for_the_problem() -> None:
    source = latex.document(qs.derive(qs.zoo.heavy_ball, qs.zoo.rotated_valley(sp.pi / 6)))
    assert r"\mathsf{s} = (z, b)" in source
    assert r"V_\mathsf{s} = J V_\mathsf{s}" in source
    assert r"\mathrm{E}[\Delta s] = " in source
    assert "\x01" not in source


def test_own_letters_step_aside_for_the_rule() -> None:
    @qs.optimizer
    def mine(z, g, s, *, gamma, lambda_0):
        s = lambda_0 * s + g
        return z - gamma * s, s

    source = latex.document(qs.derive(mine))
    assert r"\hat{\gamma} = \frac{\gamma}{1 - \lambda_{0}}" in source
    assert r"\mathsf{s} = (z, s)" in source


def test_a_document_without_a_clash_is_untouched() -> None:
    assert r"\gamma = \frac{\eta}{1 - \mu}" in slow().latex()


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ({"eta": r"\beta_1", "mu": r"\beta_{1}"}, "'eta' and 'mu'.*different names"),
        ({"eta": "beta1", "mu": r"\beta_1"}, "'eta' and 'mu'"),
        ({"eta": r"\mu"}, r"'eta' to \\mu, which is the name of 'mu' already"),
        ({"eta": "x"}, "which is the name of 'x'"),
        ({"eta": "b_y"}, "which is the name of 'b_y'"),
        ({"eta": "H"}, "is the Hessian"),
        ({"eta": "Sigma"}, "is the noise covariance"),
        ({"etaa": "q"}, "'etaa' is not a symbol.*Did you mean 'eta'"),
        ({sp.Symbol("eta"): "q", "eta": "w"}, "names 'eta' twice"),
        ({"eta": 3}, "write LaTeX"),
        ({3: "eta"}, "neither a name nor a SymPy symbol"),
        (["eta"], "a mapping of names"),
    ],
)
def test_notation_is_refused(notation: object, message: str) -> None:
    with pytest.raises(qs.OutputError, match=message):
        slow().latex(notation=notation)


@pytest.mark.parametrize(
    "value",
    [
        r"\input{secret}", r"\write18{rm}", r"\catcode", r"\def\a{b}", r"\end{document}", r"\beta % a", r"\beta $ x", r"\beta&", r"\beta#1",
        r"\beta~a", r"\beta\\", "{a", "a}", r"\hat{a", r"\hat", r"\beta_", "a^b^c", "a_{}^{}", "{}x{}", "", " ", "7", "_", "\\", "^^41{a}",
        r"\alpha+\beta", r"\alpha = \beta", "a\nb", "a" * (LONGEST + 1), r"\text{a$b}", r"\mathrm{\input{a}}", r"x'^{a}", "{" * 60 + "a",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(value: str) -> None:
    with pytest.raises(qs.OutputError, match=r"name|letter|missing|group|brace"):
        checked(value, "notation['eta']")


def test_nothing_is_written_where_the_notation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(qs.OutputError):
        slow().to_latex(tmp_path / "out.tex", notation={"eta": r"\input{a}"})
    assert not list(tmp_path.iterdir())
    assert r"\gamma = \frac{\eta}{1 - \mu}" in slow().latex()  # and nothing is left of it


def test_names() -> None:
    known = {
        "lr": r"\mathrm{lr}", "gamma": r"\gamma", "learning rate": r"\mathrm{learning rate}", "a%b": r"\mathrm{a\%b}",
        r"\hat\beta_1^{(k)}": r"\hat{\beta}_{1}^{(k)}", r"\beta_1": r"\beta_{1}", "x^*": "x^{*}", r"\Delta t": r"\Delta t",
        r"\mathrm{l\_r}": r"\mathrm{l\_r}", "η_1": r"\eta_{1}", r"\mathcal L_0": r"\mathcal{L}_{0}",
    }  # fmt: skip
    for value, expected in known.items():
        assert checked(value, "n") == expected


# -- the table ---------------------------------------------------------------------------------------------------------


def test_table_says_what_symbols_are() -> None:
    source = slow().latex().partition("Setting")[0]
    for row in (
        r"$\eta$ & hyperparameter \texttt{eta} & $[z]^{2}/[f]$ \\", r"$\mu$ & hyperparameter \texttt{mu} & 1 \\",
        r"$\alpha$ & strength of the noise & $[f]$ \\", r"$h$ & function of the problem, left open & -- \\",
        r"$V$ & equilibrium covariance of the parameters & $[z]^{2}$ \\", r"$k$ & time: the number of iterations & iteration \\",
    ):  # fmt: skip
        assert row in source


@pytest.mark.parametrize("rule", DERIVED)
def test_units_of_hyperparameters(rule: str) -> None:
    law = qs.derive(qs.zoo.RULES[rule])
    expected = {symbol: int(name == "eta") for name, symbol in law.rule.hyperparameters.items()}
    assert powers_of_gain(law) == expected


def test_units_that_the_rule_decides() -> None:
    @qs.optimizer
    def product(z, g, *, a, b):
        return z - a * b * g

    law = qs.derive(product)
    assert powers_of_gain(law) == {}
    assert r"hyperparameter \texttt{a} & -- \\" in law.latex()


# -- compiled ----------------------------------------------------------------------------------------------------------


@needs_tex
@pytest.mark.parametrize("standalone", [True, False])
def test_renamed_documents_compile(tmp_path: Path, standalone: bool) -> None:
    notation = {"eta": r"\gamma", "mu": r"\hat{\beta}_1^{(k)}", "b": r"m^*_1", "x": "position_%&#$x", "h": r"\mathcal{L}^\star"}
    path = tmp_path / "out.tex"
    slow().to_latex(path, standalone=standalone, notation=notation)
    if not standalone:
        path.write_text(latex.PREAMBLE + "\\begin{document}\n" + path.read_text() + "\\end{document}\n")
    assert max(compile_tex(path), default=0.0) < 10
