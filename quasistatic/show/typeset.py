"""LaTeX of expressions: names, primes, and equations broken into rows that fit a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter

from quasistatic.show.notation import Late, common_factor, name_parts, operations, ordered_terms, plain, primes
from quasistatic.symbols import GREEK

#: Width of a displayed row in points (A4 paper with 2.5 cm margins, 11 pt, room for the equation number).
LINE = 405.0
#: Characters of LaTeX above which an equation is replaced by a pointer to the result's attribute.
CAP = 1500
#: A sum wider than this inside a product gets a name of its own when its equation does not fit a line.
NAMED = 90.0
#: Rows of one aligned display, which TeX does not break across pages.
MOST_ROWS = 16

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
}  # fmt: skip


def escape(text: str) -> str:
    """Text made safe for TeX, in ASCII."""
    return "".join(_SPECIAL.get(c, c) for c in plain(text))


def code(text: str) -> str:
    """Text in typewriter type that may break after operators."""
    return r"\texttt{" + re.sub(r"(\*|/|,|\\_|\.)", r"\1\\allowbreak{}", escape(text)) + "}"


# -- symbols and expressions -------------------------------------------------------------------------------------------


class Named(Late):
    """A name given to a part of an equation; printed as a calligraphic P with its number."""

    __slots__ = ()


#: The LaTeX of names in the document that is being made, where it is not what ``name_tex`` says.
lettered: ContextVar[Mapping[str, str]] = ContextVar("lettered", default=MappingProxyType({}))
#: Around a user's letter where the document's own letters must be told from it.
OPEN, CLOSE = "\x01", "\x02"


def symbol_tex(name: str) -> str:
    """LaTeX of a name in the document that is being made."""
    return lettered.get().get(name) or name_tex(name)


def name_tex(name: str) -> str:
    """LaTeX of a name: Greek letters, subscripts, upright words."""
    parts = name_parts(name)
    if parts is None:
        return r"\mathrm{" + escape(name) + "}"
    head, subscripts = parts
    inner = ",".join(_letter(s) for s in subscripts)
    return _letter(head) if not inner else f"{_letter(head)}_{{{inner}}}"


def _letter(part: str) -> str:
    if part == "eps":
        return r"\varepsilon"
    if part.lower() not in GREEK:
        return part
    if part in ("omicron", "Alpha", "Beta"):
        return rf"\mathrm{{{part[0].upper()}}}"
    return rf"\{part}"


class Printer(LatexPrinter):  # type: ignore[misc]
    """SymPy's LaTeX with h'(x), h(x) without stretched brackets, and sums in ascending order."""

    def _as_ordered_terms(self, expr: sp.Expr, order: Any = None) -> list[sp.Expr]:
        return ordered_terms(expr)

    def _print_Symbol(self, expr: sp.Symbol, style: str = "plain") -> str:
        return symbol_tex(expr.name)

    _print_Late = _print_Symbol

    def _print_Named(self, expr: Named) -> str:
        return rf"\mathcal{{P}}_{{{expr.name[1:]}}}"

    def _applied(self, head: str, arguments: Iterable[sp.Expr], exponent: Any = None) -> str:
        inner = ", ".join(self._print(a) for a in arguments)
        brackets = f"({inner})" if len(inner) < 12 and "frac" not in inner else rf"\left({inner}\right)"
        power = f"^{{{exponent}}}" if exponent is not None else ""
        return f"{head}{brackets}{power}"

    def _head(self, name: str) -> str:
        """A function's letter, to which primes can be added."""
        letter = symbol_tex(name)
        return f"{{{letter}}}" if "^" in letter else letter

    def _print_Function(self, expr: sp.Expr, exp: Any = None) -> str:
        if isinstance(expr, AppliedUndef):
            return self._applied(self._head(type(expr).__name__), expr.args, exp)
        if type(expr).__name__ in ("Mean", "BlockMean"):
            word = "mean" if type(expr).__name__ == "Mean" else "block mean"
            return self._applied(rf"\operatorname{{{word.replace(' ', '~')}}}", expr.args, exp)
        return str(super()._print_Function(expr, exp))

    def _print_Derivative(self, expr: sp.Expr) -> str:
        found = primes(expr)
        if found is None:
            return str(super()._print_Derivative(expr))
        name, order, argument = found
        marks = "'" * order if order <= 3 else f"^{{({order})}}"
        return self._applied(self._head(name) + marks, [argument])

    def _print_Subs(self, expr: sp.Expr) -> str:
        return self._print_Derivative(expr) if primes(expr) is not None else str(super()._print_Subs(expr))

    def _print_Pow(self, expr: sp.Expr) -> str:
        if isinstance(expr.base, (sp.Derivative, sp.Subs)) and expr.exp.is_Integer and expr.exp > 0 and primes(expr.base):
            return f"{self._print(expr.base)}^{{{expr.exp}}}"
        return str(super()._print_Pow(expr))


def tex(expression: Any) -> str:
    """LaTeX of an expression."""
    return str(Printer().doprint(expression))


def signed_terms(expression: sp.Expr) -> list[str]:
    """LaTeX of the terms of a sum, each with its sign but for a leading plus."""
    found: list[str] = []
    for term in ordered_terms(expression):
        negative = term.could_extract_minus_sign() and not isinstance(term, sp.Add)
        body = tex(-term if negative else term)
        found.append(f"- {body}" if negative else f"+ {body}" if found else body)
    return found


def matrix_tex(matrix: sp.MatrixBase) -> str:
    """LaTeX of a matrix, a common scalar factor in front."""
    factor, rest = common_factor(matrix)
    lines = [" & ".join(_cell(x) for x in rest.row(i)) for i in range(rest.rows)]
    tall = any(r"\frac" in line for line in lines)
    rows = (r" \\[1.2ex] " if tall else r" \\ ").join(lines)
    scalar = rf"\left({tex(factor)}\right)" if isinstance(factor, sp.Add) else tex(factor)
    front = "" if factor == 1 else scalar + " "
    return rf"{front}\begin{{pmatrix}} {rows} \end{{pmatrix}}"


def _cell(entry: sp.Expr) -> str:
    return tex(entry).replace(r"\frac", r"\tfrac") if entry.is_number else tex(entry)


# -- widths ------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\S")
_WIDE = {"\\log": 17.0, "\\exp": 17.0, "\\sin": 15.0, "\\cos": 15.0, "\\quad": 11.0, "\\mathrm": 0.0, "\\text": 0.0, "\\texttt": 0.0}
_NOTHING = {"\\left", "\\right", "\\displaystyle", "\\mathcal", "\\operatorname", "&", "{", "}", "\\!", OPEN, CLOSE}


def width(source: str) -> float:
    """Estimated width of LaTeX in points at 11 pt, on the safe side."""
    return _Ruler(_TOKEN.findall(source)).group("")


@dataclass
class _Ruler:
    """Walks over the tokens of a formula, adding up their widths."""

    tokens: list[str]
    at: int = 0

    def group(self, end: str) -> float:
        total = 0.0
        while self.at < len(self.tokens):
            if self.tokens[self.at] == end:
                self.at += 1
                return total
            total += self.item()
        return total

    def argument(self) -> float:
        if self.at < len(self.tokens) and self.tokens[self.at] == "{":
            self.at += 1
            return self.group("}")
        return self.item() if self.at < len(self.tokens) else 0.0

    def word(self) -> str:
        start = self.tokens.index("}", self.at)
        name = "".join(self.tokens[self.at + 1 : start])
        self.at = start + 1
        return name

    def item(self) -> float:
        token = self.tokens[self.at]
        self.at += 1
        if token in ("\\frac", "\\tfrac", "\\dfrac"):
            return max(self.argument(), self.argument()) + 4
        if token in ("^", "_"):
            return 0.72 * self.argument()
        if token == "\\sqrt":
            return self.argument() + 10
        if token == "\\begin":
            return self.environment(self.word())
        if token == "{":
            return self.group("}")
        return _glyph(token)

    def environment(self, name: str) -> float:
        columns: list[float] = []
        column, cell = 0, 0.0
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token in ("&", "\\\\", "\\end"):
                columns += [0.0] * (column + 1 - len(columns))
                columns[column] = max(columns[column], cell)
                column, cell = (column + 1 if token == "&" else 0), 0.0
                self.at += 1
                if token == "\\end":
                    self.word()
                    break
            else:
                cell += self.item()
        return sum(columns) + 11 * len(columns) + 8


def _glyph(token: str) -> float:
    if token in _NOTHING:
        return 0.0
    if token in _WIDE:
        return _WIDE[token]
    if token in "+-" or token in ("=", "<", ">", "\\ll", "\\quad", "\\in", "\\to", "\\otimes", "\\cdot"):
        return 13.5
    if token in "()[],.'":
        return 5.0
    return 8.0 if token.isupper() else 6.3


# -- equations that fit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sentence:
    """A paragraph of LaTeX text."""

    text: str


@dataclass(frozen=True)
class Equation:
    """A displayed equation; every row is ``left &= right`` or a continuation ``&\\quad ...``."""

    rows: tuple[str, ...]

    @property
    def body(self) -> str:
        """LaTeX for inside an equation environment."""
        if len(self.rows) == 1:
            return re.sub(r"(?<!\\)&", "", self.rows[0], count=1)
        return "\\begin{aligned}\n  " + " \\\\\n  ".join(self.rows) + "\n\\end{aligned}"


Part = Sentence | Equation


def wrap(left: str, terms: Sequence[str], line: float = LINE, relation: str = "=") -> Equation | None:
    """Terms of a sum on as many rows as they need; None if one of them is wider than the line."""
    indent = width(left) + 14
    rows: list[str] = []
    current, used = f"{left} &{relation} ", indent
    for term in terms:
        wide = width(term)
        if indent + wide > line:
            return None
        if used + wide > line and used > indent + 12:
            rows.append(current.rstrip())
            current, used = r"&\quad {} ", indent + 12
        current += term + " "
        used += wide
    rows.append(current.rstrip())
    return Equation(tuple(rows))


@dataclass
class Names:
    """Names given to long parts, in one document: the same part has the same name everywhere."""

    known: dict[sp.Expr, Named] = field(default_factory=dict)

    def copy(self) -> Names:
        """To be tried with, and kept or thrown away."""
        return Names(dict(self.known))

    def take(self, part: sp.Expr) -> Named:
        """The name of a part."""
        if part not in self.known:
            self.known[part] = Named(f"P{len(self.known) + 1}", real=True)
        return self.known[part]

    def fold(self, expression: sp.Expr) -> sp.Expr:
        """The expression with names for the long sums inside its products, powers and functions."""
        if not expression.args or isinstance(expression, (sp.Derivative, AppliedUndef)):
            return expression
        return expression.func(*(self._inside(a) for a in expression.args))

    def _inside(self, part: sp.Expr) -> sp.Expr:
        if isinstance(part, sp.Add):
            return self.take(part) if width(tex(part)) > NAMED else part
        return self.fold(part)


def equations(pairs: Sequence[tuple[str, sp.Expr]], names: Names, line: float = LINE, cap: int = CAP) -> list[Part] | None:
    """left = expression for every pair, then the definitions of what they abbreviate; None where one is too long for print."""
    trial = names.copy()
    heads: list[Equation] = []
    for left, expression in pairs:
        if operations(expression) > cap:
            return None
        shown = _equation(left, expression, trial, line)
        if shown is None:
            return None
        heads.append(shown)
    new = [(part, name) for part, name in trial.known.items() if part not in names.known]
    definitions = [wrap(tex(name), signed_terms(part), line) for part, name in new]
    complete = [d for d in definitions if d is not None]
    if len(complete) < len(definitions) or _length(heads) + _length(complete) > cap * max(1, len(pairs)):
        return None
    names.known = trial.known
    parts: list[Part] = [*_together(heads)]
    return [*parts, Sentence("with"), *_together(complete)] if complete else parts


def _length(found: Sequence[Equation]) -> int:
    return sum(len(row) for e in found for row in e.rows)


def _together(found: Sequence[Equation]) -> list[Equation]:
    """Equations aligned with each other, in displays that still fit a page."""
    groups: list[list[str]] = []
    for e in found:
        if groups and len(groups[-1]) + len(e.rows) <= MOST_ROWS:
            groups[-1] += e.rows
        else:
            groups.append(list(e.rows))
    return [Equation(tuple(g)) for g in groups]


def _equation(left: str, expression: sp.Expr, names: Names, line: float) -> Equation | None:
    room = line - width(left) - 14
    terms = [t if width(tex(t)) <= room else names.fold(t) for t in ordered_terms(expression)]
    return wrap(left, signed_terms(sp.Add(*terms, evaluate=False) if len(terms) > 1 else terms[0]), line)


def matrix_equation(left: str, matrix: sp.MatrixBase, line: float = LINE, cap: int = CAP) -> list[Part] | None:
    """left = matrix, where that fits a line."""
    if operations(matrix) > cap:
        return None
    body = matrix_tex(matrix)
    if len(body) > cap or width(body) + width(left) + 14 > line:
        return None
    return [Equation((f"{left} &= {body}",))]


def pointer(left: str, count: int, where: str) -> Equation:
    """What stands in for an expression that is too long."""
    return Equation((rf"{left} &= \text{{({count} operations, not printed here; see {code(where)})}}",))


def reason_tex(text: str, most: int = 300) -> str:
    """An error's message as text that breaks into lines; the middle of a long one is left out."""
    text = text if len(text) <= most else text[: most // 2] + " [...] " + text[-most // 2 :]
    return re.sub(r"([*(,/])", r"\1\\allowbreak{}", escape(text.replace("**", "^")))
