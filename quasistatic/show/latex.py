"""The derivation of a result as a LaTeX document, from its steps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sympy as sp

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.errors import OutputError
from quasistatic.show import adaptive_law_steps, adaptive_steps, law_steps, slow_steps  # noqa: F401  (they register their kinds of result)
from quasistatic.show.lettering import lettering, settle
from quasistatic.show.notation import order_text
from quasistatic.show.steps import (
    Step,
    inline,
    steps,
)
from quasistatic.show.typeset import (
    Equation,
    Sentence,
    escape,
    tex,
)

#: Columns of the printed source.
SOURCE_COLUMNS = 90

PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper, margin=2.5cm]{geometry}
\usepackage{amsmath, amssymb}
\emergencystretch=4em
\allowdisplaybreaks
"""


#: Names or SymPy symbols of a result to LaTeX (``r"\\beta_1"``) or plain names (``"lr"``).
Notation = Mapping[Any, str]


def fragment(result: SlowResult | LawResult, notation: Notation | None = None) -> str:
    """The derivation without a preamble, to be put into a paper; it needs amsmath and amssymb."""
    return _titled(result, notation)[1]


def document(result: SlowResult | LawResult, standalone: bool = True, notation: Notation | None = None) -> str:
    """The derivation as a LaTeX document that compiles, or as a fragment (``standalone=False``).

    Parameters
    ----------
    notation:
        Other letters for the user's symbols, by name or SymPy symbol: hyperparameters, states, parameters, coordinates,
        constants, unknown functions. A value is LaTeX (``r"\\beta_1"``) or a plain name, which is escaped (``"lr"`` is set
        upright). Where a letter is one that the derivation uses itself (the gain gamma), the derivation takes another.

    Raises
    ------
    OutputError
        For an unknown symbol, for LaTeX that is no name, or where two symbols would share a name.
    """
    title, body = _titled(result, notation)
    if not standalone:
        return body
    title = "\\begin{center}\n{\\LARGE " + title + "\\par}\n\\end{center}\n\n"
    return PREAMBLE + "\\begin{document}\n" + title + body + "\n\\end{document}\n"


def _titled(result: SlowResult | LawResult, notation: Notation | None) -> tuple[str, str]:
    """Title and derivation in one lettering."""
    with lettering(result, notation) as aside:
        title = settle(_title(result), aside)
        parts = [settle(_step(step), aside) for step in steps(result)]
    return title, "\n\n".join([*parts, _provenance(result)]) + "\n"


def _title(result: SlowResult | LawResult) -> str:
    rule = rf"\texttt{{{escape(result.rule.name)}}}"
    order = "" if result.order.symbol is None else rf", leading order in ${tex(result.order.symbol)}$"
    order += ", in continuous time" if result.time_kind == "continuous" else ""
    if isinstance(result, LawResult):
        return f"The law of {rule} for any loss{order}"
    name = rf" on \texttt{{{escape(result.problem.name)}}}" if result.problem.name else ""
    if isinstance(result, AdaptiveResult) and result.mode == "adiabatic":
        order = f", slow states at equilibrium{order}"
    return f"Slow dynamics of {rule}{name}{order}"


def _step(step: Step) -> str:
    lines = [rf"\subsection*{{{step.title}}}"]
    for part in step.parts:
        lines.append(part.text if isinstance(part, Sentence) else f"\\begin{{equation}}\n{part.body}\n\\end{{equation}}")
    return "\n".join(lines)


def _provenance(result: SlowResult | LawResult) -> str:
    try:
        own = version("quasistatic")
    except PackageNotFoundError:  # pragma: no cover
        own = "unknown"
    kind = "traced record" if not result.rule.source else "source"
    versions = f"quasistatic {escape(own)} with SymPy {escape(sp.__version__)}"
    intro = f"Derived by {versions}; {escape(order_text(result))}. The {kind} of the rule:"
    return f"\\subsection*{{Provenance}}\n{intro}\n{_verbatim(result.rule.text)}"


def _verbatim(source: str) -> str:
    """Source made safe for verbatim: ASCII, no tabs, no end of the environment, no line wider than the page."""
    text = source.expandtabs(4).encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(c if c == "\n" or c.isprintable() else " " for c in text).replace(r"\end{verbatim", r"\ end{verbatim")
    lines = [piece for line in text.rstrip().split("\n") for piece in _folded(line)]
    return "{\\footnotesize\n\\begin{verbatim}\n" + "\n".join(lines) + "\n\\end{verbatim}\n}"


def _folded(line: str) -> list[str]:
    pieces = []
    indent = " " * (min(len(line) - len(line.lstrip()), 40) + 8)
    while len(line) > SOURCE_COLUMNS:
        cut = line.rfind(" ", len(indent) + 10, SOURCE_COLUMNS)
        cut = SOURCE_COLUMNS if cut < 0 else cut
        pieces.append(line[:cut].rstrip())
        line = indent + line[cut:].lstrip()
    return [*pieces, line]


def write(result: SlowResult | LawResult, path: str | os.PathLike[str], standalone: bool = True, notation: Notation | None = None) -> Path:
    """Write the document; nothing is left behind where that fails.

    Raises
    ------
    OutputError
        If the path cannot be written, or for a notation that :func:`document` refuses.
    """
    target = Path(path)
    text = document(result, standalone, notation)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent, text=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}.") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OutputError(f"cannot write {target}: {error.strerror or error}.") from None
    return target


__all__ = ["Equation", "Sentence", "Step", "document", "fragment", "inline", "steps", "write"]
