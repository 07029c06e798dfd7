"""Documents say what they should, compile, and fit the page."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sympy as sp
from rule_lists import DERIVED

import quasistatic as qs
from quasistatic.show import latex
from quasistatic.show.steps import term_tex
from quasistatic.show.typeset import CAP, LINE, Equation, Names, equations, escape, matrix_tex, symbol_tex, tex, width

x = qs.symbols("x")
h = qs.function("h", positive=True)
alpha, sigma = qs.symbols("alpha sigma", positive=True)

PROBLEMS = {
    "law": lambda: None,
    "unknown": lambda: qs.zoo.valley(h),
    "valley": qs.zoo.valley,
    "rotated": lambda: qs.zoo.rotated_valley(sp.pi / 6),
    "curved": qs.zoo.curved_valley,
}
FEW = [
    ("sgd", "law", "iteration"), ("heavy_ball", "unknown", "iteration"), ("heavy_ball", "curved", "continuous"),
    ("qhm", "rotated", "iteration"), ("nesterov", "curved", "iteration"), ("aggmo", "law", "continuous"),
]  # fmt: skip
ALL = [
    pytest.param(*case, marks=() if case in FEW else pytest.mark.slow)
    for case in itertools.product(DERIVED, PROBLEMS, ("iteration", "continuous"))
]
needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compile_tex(path: Path) -> list[float]:
    """Widths of the overfull boxes of a document, in points."""
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name], cwd=path.parent, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    log = path.with_suffix(".log").read_text(errors="replace")
    return [float(w) for w in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]


def heavy_ball(problem: qs.Problem | None = None, time: str = "iteration") -> object:
    return qs.derive(qs.zoo.heavy_ball, problem, time=time)


# -- what they say -----------------------------------------------------------------------------------------------------


def test_slow_document_has_the_pieces() -> None:
    source = latex.document(heavy_ball(qs.zoo.valley(h)))
    for piece in (
        r"f = y^{2} h(x)", r"y = 0", r"z - \eta \left(g + \mu b\right)", r"\gamma = \frac{\eta}{1 - \mu}",
        r"V_s = J V_s J^{\mathsf T} + Q_{\mathrm{ff}}", r"[H, [H, V]]", "h'(x)", r"\eta \lambda < 2 + 2 \mu", "Provenance",
        "def heavy_ball",
    ):  # fmt: skip
        assert piece in source, piece
    drift = (
        r"\mathrm{E}[\Delta x] = - \frac{\alpha \eta^{2} \left(1 + \mu\right) h'(x)}"
        r"{2 \left(1 - \mu\right)^{2} \left(1 + \mu - \eta h(x)\right)}"
    )
    assert drift in source
    assert "Dummy" not in source
    assert "_e1" not in source


def test_law_document_has_the_pieces() -> None:
    source = latex.document(qs.derive(qs.zoo.sgd))
    kernel = r"K(\lambda_i, \lambda_j) = \dfrac{\eta}{\lambda_{i} + \lambda_{j} - \eta\, \lambda_{i} \lambda_{j}}"
    assert kernel in source
    assert r"H V + V H - \eta\, H V H = \eta\, \Sigma" in source
    assert r"B \to c B" in source


def test_continuous_document_shows_scaling_and_sde() -> None:
    source = latex.document(qs.derive(qs.zoo.heavy_ball_velocity, qs.zoo.valley(h), time="continuous"))
    assert r"$\eta = e^{2}$, $\mu = 1 - c e$, $m = e p$" in source
    assert r"\mathrm{d}m &= \left(- \frac{1 - \mu}{\eta}\, m - \partial f\right)\,\mathrm{d}t - \sqrt{\eta}\, (C\,\mathrm{d}W)" in source
    assert r"A V_s + V_s A^{\mathsf T} = Q_{\mathrm{ff}}" in source
    assert r"\frac{\mathrm{E}[\mathrm{d}x]}{\mathrm{d}t} = - \frac{\alpha \eta h'(x)}{2 \left(1 - \mu\right)^{2}}" in source


def test_terms_are_named_where_there_are_several() -> None:
    result = qs.derive(qs.zoo.sgd.free("weight_decay"), qs.zoo.curved_valley(qs.IsotropicNoise(sigma)))
    titles = [s.title for s in latex.steps(result)]
    assert "Diffusion along the manifold" in titles
    source = latex.document(result)
    for name in ("flatness", "ito", "force"):
        assert rf"_{{\text{{{name}}}}}" in source
    assert r"_{\text{correlation}}" not in source


def test_correlation_of_tangent_and_normal_noise() -> None:
    y = qs.symbols("y")
    problem = qs.Problem((y - x**2) ** 2 / 2, {y: x**2}, qs.CovarianceNoise(sp.diag(0, 1)), parameters=(x, y))
    source = latex.document(heavy_ball(problem).leading("eta"))
    assert r"$K(0, \lambda_j)\, \Sigma_{ij}$" in source
    assert r"_{\text{correlation}}" in source


def test_missing_potential_says_why() -> None:
    y = qs.symbols("y")
    w, u = qs.symbols("w u")
    noise = qs.CovarianceNoise(sp.Matrix([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1 + u**2, 0], [0, 0, 0, 1]]))
    problem = qs.Problem((1 + x**2 + u * x) * y**2 / 2 + (2 + u**2) * w**2 / 2, {y: 0, w: 0}, noise, parameters=(x, u, y, w))
    result = qs.derive(qs.zoo.sgd, problem)
    with pytest.raises(qs.NoPotential):
        result.regularizer()
    assert "There is no formula for it" in latex.document(result)


def test_leading_order_is_in_the_title() -> None:
    source = latex.document(heavy_ball(qs.zoo.valley(h)).leading("eta"))
    assert r"leading order in $\eta$" in source
    assert r"\frac{\alpha \eta^{2} h'(x)}{2 \left(1 - \mu\right)^{2}}" in source


@pytest.mark.parametrize("problem", ["law", "unknown", "rotated", "curved"])
def test_inline(problem: str) -> None:
    shown = latex.inline(heavy_ball(PROBLEMS[problem]()))
    assert shown.startswith(r"$\displaystyle ")
    assert shown.endswith("$")
    assert shown.count("$") == 2


def test_inline_shows_the_diffusion() -> None:
    shown = latex.inline(qs.derive(qs.zoo.sgd, qs.zoo.valley(h, qs.IsotropicNoise(sigma))))
    assert r"D &= \eta^{2} \sigma^{2}" in shown


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        latex.steps(3)
    with pytest.raises(TypeError, match="int"):
        latex.inline(3)


# -- notation ----------------------------------------------------------------------------------------------------------


def test_names() -> None:
    known = {
        "eta": r"\eta", "beta1": r"\beta_{1}", "m_x": "m_{x}", "v1_x": "v_{1,x}", "weight_decay": r"\mathrm{weight\_decay}",
        "lambda_i": r"\lambda_{i}", "x10": "x_{10}", "Sigma": r"\Sigma", "η": r"\eta", "lr": r"\mathrm{lr}",
    }  # fmt: skip
    for name, expected in known.items():
        assert symbol_tex(name) == expected


def test_primes() -> None:
    assert tex(h(x).diff(x)) == "h'(x)"
    assert tex(h(x).diff(x, 2) * 2) == "2 h''(x)"
    assert tex(h(x).diff(x, 4)) == "h^{(4)}(x)"
    assert tex(h(x).diff(x) ** 2) == "h'(x)^{2}"
    assert tex(h(x) ** 2) == "h(x)^{2}"
    assert tex(h(2 * x).diff(x)) == "2 h'(2 x)"


def test_escape_is_plain_text() -> None:
    assert escape("a_b%{}~^\\é<") == r"a\_b\%\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}e\textless{}"
    assert escape("中").isascii()


def test_signs_and_brackets_of_sums() -> None:
    mu = sp.Symbol("mu", positive=True)
    assert term_tex(1 - mu, "", True) == r"+ 1 - \mu"
    assert term_tex(mu - 1, "", True) == r"+ \mu - 1"
    assert term_tex(-1 - mu, "", True) == r"- 1 - \mu"
    assert term_tex(1 - mu, "H", False) == r"\left(1 - \mu\right)\, H"
    assert term_tex(-1 - mu, "H", True) == r"- \left(1 + \mu\right)\, H"
    assert matrix_tex((1 + x**2) * sp.Matrix([[1, 2], [2, 3]])).startswith(r"\left(1 + x^{2}\right) \begin{pmatrix} 1 & 2")
    assert Equation((r"a\&b &= c",)).body == r"a\&b = c"


# -- length ------------------------------------------------------------------------------------------------------------


def test_long_sums_are_broken_and_long_factors_named() -> None:
    long = sum(x**k * alpha for k in range(30))
    (broken,) = equations([("f", long)], Names())
    assert isinstance(broken, Equation)
    assert len(broken.rows) > 1
    names = Names()
    first, sentence, second = equations([("f", alpha * sigma / long)], names)
    assert r"\mathcal{P}_{1}" in first.body
    assert sentence.text == "with"
    assert r"\mathcal{P}_{1} &=" in second.body
    assert len(equations([("g", sigma / long)], names)) == 1  # defined once
    assert all(width(r) <= LINE + 20 for r in (*broken.rows, *second.rows))


def test_too_long_expressions_are_pointed_at() -> None:
    assert equations([("f", sp.Add(*(x**k * alpha**k for k in range(CAP))))], Names()) is None
    source = latex.document(qs.derive(qs.zoo.qhm, qs.zoo.curved_valley()))
    assert r"operations, not printed here; see \texttt{slow.\allowbreak{}drift}" in source
    assert len(source) < 30_000


# -- files -------------------------------------------------------------------------------------------------------------


def test_write(tmp_path: Path) -> None:
    target = tmp_path / "out.tex"
    target.write_text("old")
    result = heavy_ball(qs.zoo.valley())
    assert latex.write(result, target) == target
    assert target.read_text() == latex.document(result)
    latex.write(result, target, standalone=False)
    assert r"\documentclass" not in target.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out.tex"]


@pytest.mark.parametrize("name", ["missing/out.tex", "folder"])
def test_unwritable_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(qs.OutputError, match=re.escape(str(tmp_path / name))):
        latex.write(heavy_ball(), tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


# -- compiled ----------------------------------------------------------------------------------------------------------


@needs_tex
@pytest.mark.parametrize(("rule", "problem", "time"), ALL)
def test_documents_compile(tmp_path: Path, rule: str, problem: str, time: str) -> None:
    result = qs.derive(qs.zoo.RULES[rule], PROBLEMS[problem](), time=time)
    assert max(compile_tex(latex.write(result, tmp_path / "out.tex")), default=0.0) < 10


@qs.optimizer
def nasty_name__1(z, g, m_m, *, learning_rate, η, B_3):
    # "\end{verbatim} % $ # & ~ é \ a long line that must be wrapped somewhere because it is far too long for the page
    m_m = η * m_m + g
    return z - learning_rate * B_3 * m_m, m_m


@needs_tex
@pytest.mark.parametrize("problem", ["law", "valley"])
def test_special_characters_compile(tmp_path: Path, problem: str) -> None:
    result = qs.derive(nasty_name__1, PROBLEMS[problem]())
    source = latex.document(result)
    assert source.isascii()
    assert r"\texttt{nasty\_name\_\_1}" in source
    assert max(compile_tex(latex.write(result, tmp_path / "out.tex")), default=0.0) < 10


@needs_tex
def test_forces_diffusion_and_means_compile(tmp_path: Path) -> None:
    @qs.optimizer
    def with_means(z, g, m, *, eta, mu):
        m = mu * qs.mean(m) + g
        return z - eta * m, m

    noisy, quiet = qs.zoo.valley(noise=qs.IsotropicNoise(sigma)), qs.zoo.valley()
    # numbers keep the general route's potential short
    pairs = [(qs.zoo.heavy_ball.free("weight_decay", "tau"), noisy), (with_means.fix(mu="1/2", eta="1/10"), quiet)]
    for k, (rule, problem) in enumerate(pairs):
        result = qs.derive(rule, problem)
        assert max(compile_tex(latex.write(result, tmp_path / f"out{k}.tex")), default=0.0) < 10


@pytest.mark.parametrize("memory", ["exp", "sqrt"])
def test_roots_and_exponentials_of_hyperparameters(memory: str) -> None:
    """Functions that rules may use print, though they decide no units."""

    @qs.optimizer
    def exponential(z, g, m, *, eta, k):  # type: ignore[no-untyped-def]
        m = qs.exp(-k) * m + g
        return z - eta * m, m

    @qs.optimizer
    def rooted(z, g, m, *, eta, k):  # type: ignore[no-untyped-def]
        m = qs.sqrt(k) * m + g
        return z - eta * m, m

    rule = exponential if memory == "exp" else rooted
    assert "Notation" in qs.derive(rule).latex()
    assert "Notation" in qs.derive(rule, qs.zoo.valley()).latex()
