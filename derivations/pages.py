"""What a page is: entries in the paper's order, each an equation with its check, and remarks about errata, each a form that fails it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sympy as sp

import quasistatic as qs
from quasistatic.algebra.field import is_zero
from quasistatic.show.typeset import escape, tex

#: What an equation states, as expressions: a tuple, a matrix or a function, whatever the entry's ``residual`` takes.
Form = Any

#: Relative difference up to which numbers agree, where an equation is checked at random points; differentiated numbers reach 1e-9.
ACCURACY = 1e-7

PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper, margin=2.5cm]{geometry}
\usepackage{amsmath, amssymb}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.6ex plus 0.4ex}
\emergencystretch=4em
\allowdisplaybreaks
\newcommand{\T}{^{\mathsf T}}
\newcommand{\dd}{\mathrm{d}}
\newcommand{\E}{\mathrm{E}}
\newcommand{\tH}{\tilde H}
\newcommand{\D}[1]{\tilde D_{#1}}
\newcommand{\cM}{\mathcal M}
\DeclareMathOperator{\tr}{Tr}
\newenvironment{erratum}[1]{\par\smallskip\begin{list}{}{\leftmargin=1.5em\rightmargin=0pt\topsep=0pt}
\item\small\textbf{#1.} }{\end{list}\smallskip}
"""


@dataclass(frozen=True)
class Erratum:
    """An equation as it was published, or another that is not right, which the check of its entry must reject.

    Attributes
    ----------
    number:
        E1, E2, ...; empty for a form that nobody published.
    sentence:
        What is wrong and what is right, LaTeX.
    published:
        The erroneous form.
    """

    number: str
    sentence: str
    published: Callable[[], Form]

    @property
    def heading(self) -> str:
        """What stands before the sentence."""
        return f"Remark {self.number}" if self.number else "Not so"


@dataclass(frozen=True)
class Entry:
    """One numbered equation.

    Attributes
    ----------
    number:
        The paper's, or where it stands ("after 2").
    sentence, latex:
        The text before it, and the equation, LaTeX; without latex there is only the text.
    printed:
        What the equation states, as expressions.
    residual:
        What must vanish for a form to agree with what the library derives: expressions, identically, and floats, which
        are relative differences of numbers, up to ``ACCURACY``.
    errata:
        Forms that must not.
    found:
        LaTeX of the library's own result, from its expressions.
    """

    number: str
    sentence: str
    latex: str
    printed: Callable[[], Form]
    residual: Callable[[Form], Sequence[sp.Expr | float]]
    errata: tuple[Erratum, ...] = ()
    found: Callable[[], str] | None = None

    def accepts(self, form: Form) -> bool:
        """Whether a form agrees with what the library derives."""
        items = list(self.residual(form))
        numbers = [x for x in items if isinstance(x, float)]
        return all(abs(x) <= ACCURACY for x in numbers) and is_zero([x for x in items if not isinstance(x, float)])

    def check(self) -> bool:
        """Whether the printed equation agrees with what the library derives."""
        return self.accepts(self.printed())

    def rejects(self, erratum: Erratum) -> bool:
        """Whether the same check fails for the published form of an erratum."""
        return not self.accepts(erratum.published())


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and functions that make its entries."""

    title: str
    text: str
    entries: tuple[Callable[[], Entry], ...]


@dataclass(frozen=True)
class Page:
    """A page: title, introduction, sections, and how its equations were checked where that is not identically in all symbols."""

    title: str
    introduction: str
    sections: tuple[Section, ...]
    method: str = "the difference is zero identically in all symbols"

    def entries(self) -> list[Entry]:
        """All entries in order."""
        return [make() for section in self.sections for make in section.entries]

    def latex(self) -> str:
        """The page as a document that needs amsmath and amssymb only."""
        parts = [PREAMBLE, r"\begin{document}", rf"\begin{{center}}{{\LARGE {self.title}}}\end{{center}}", self.introduction]
        for section in self.sections:
            parts += [rf"\section*{{{section.title}}}", section.text, ""]
            parts += [_entry(make()) for make in section.entries]
        parts += [r"\section*{Provenance}", _provenance(self.method), r"\end{document}"]
        return "\n".join(parts) + "\n"


def _entry(entry: Entry) -> str:
    lines = [entry.sentence]
    if entry.latex:
        tag = rf"\tag{{{entry.number}}}" if entry.number.isdigit() else r"\notag"
        body = rf"\begin{{aligned}} {entry.latex} \end{{aligned}}" if "&" in entry.latex else entry.latex
        lines.append(rf"\begin{{equation}} {body} {tag} \end{{equation}}")
    if entry.found is not None:
        lines.append(rf"The library finds \[ {entry.found()}. \]")
    lines += [rf"\begin{{erratum}}{{{e.heading}}}{e.sentence}\end{{erratum}}" for e in entry.errata]
    return "\n".join(lines) + "\n"


def _provenance(method: str) -> str:
    return (
        rf"Every equation was compared, in the setting that its section names, with what quasistatic {escape(qs.__version__)} derives with"
        rf" SymPy {escape(sp.__version__)}: {method}. For every remark, the form that it corrects was put into the same comparison and"
        r" failed it."
    )


# -- what residuals are made of ----------------------------------------------------------------------------------------


def differences(found: Sequence[Any], stated: Sequence[Any]) -> list[sp.Expr]:
    """Entry by entry differences of expressions and matrices."""
    result: list[sp.Expr] = []
    for a, b in zip(found, stated, strict=True):
        result += list(sp.Matrix(a) - sp.Matrix(b)) if isinstance(a, sp.MatrixBase) else [a - b]
    return result


def within(found: float, stated: float, tolerance: float) -> float:
    """0 where two numbers agree to their own accuracy, which is not that of ``ACCURACY``, else 1."""
    return 0.0 if abs(found - stated) <= tolerance else 1.0


def shown(expression: sp.Expr) -> str:
    """LaTeX of an expression; the zoo's eps is the papers' epsilon."""
    return tex(expression).replace(r"\mathrm{eps}", r"\epsilon ")


def equation(left: str, expression: sp.Expr) -> str:
    """left = expression."""
    return f"{left} = {shown(expression)}"


def sde(slow: qs.SlowDynamics) -> tuple[sp.Matrix, sp.Matrix]:
    """Drift (n, 1) and noise covariance (n, n) per unit of time of the whole state, from the rule's declared scaling."""
    linear, problem = slow.linear, slow.problem
    assert linear is not None
    d = len(problem.parameters)
    state = sp.Matrix(slow.state)
    A, b = sp.Matrix(linear.A) / linear.dt, sp.Matrix(linear.b) / linear.dt
    drift = sp.kronecker_product(A, sp.eye(d)) * state + sp.kronecker_product(b, sp.Matrix(problem.gradient))
    covariance = sp.kronecker_product(linear.dt * b * b.T, sp.Matrix(problem.covariance))
    return drift, covariance


def block(matrix: sp.MatrixBase, rows: Sequence[int], columns: Sequence[int]) -> sp.Matrix:
    """Rows and columns of a matrix."""
    return sp.Matrix(matrix).extract(list(rows), list(columns))


def force(V: sp.Matrix, H: sp.Matrix, coordinates: Sequence[sp.Symbol]) -> sp.Matrix:
    """sum_ij V_ij grad H_ij."""
    pairs = [(i, j) for i in range(H.rows) for j in range(H.cols)]
    return sp.Matrix([sum((V[i, j] * H[i, j].diff(c) for i, j in pairs), sp.Integer(0)) for c in coordinates])


# -- running a page ----------------------------------------------------------------------------------------------------


def run(page: Page, arguments: Sequence[str], default: str) -> int:
    """Check every equation and every erratum, one line each, then write the document; the exit status."""
    failed = 0
    for entry in page.entries():
        good = entry.check()
        rejected = [(e.number, entry.rejects(e)) for e in entry.errata]
        failed += (not good) + sum(not r for _, r in rejected)
        remarks = "".join(f"  {n or 'variant'} {'fails, as it should' if r else 'PASSES, BUT SHOULD FAIL'}" for n, r in rejected)
        print(f"{entry.number:>12}  {'ok' if good else 'WRONG'}{remarks}")
    path = Path(arguments[0] if arguments else default)
    path.write_text(page.latex(), encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)
    return 1 if failed else 0
