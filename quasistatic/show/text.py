"""Results as plain text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import sympy as sp
from sympy.printing.str import StrPrinter

from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, LAMBDA_J
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.model.rule import Rule
from quasistatic.show import notation
from quasistatic.show.notation import Powers, Word, operations, plain

#: Columns of the page, and of the labels in front of the values.
COLUMNS, LABEL = 100, 15
#: An expression with more operations, or more characters, than this is not printed.
MOST_OPERATIONS, MOST_CHARACTERS = 400, 1200


class _Printer(StrPrinter):  # type: ignore[misc]
    """SymPy's text with h'(x), and sums in ascending order."""

    def _as_ordered_terms(self, expr: sp.Expr, order: Any = None) -> list[sp.Expr]:
        return notation.ordered_terms(expr)

    def _print_Derivative(self, expr: sp.Expr) -> str:
        found = notation.primes(expr)
        if found is None:
            return str(super()._print_Derivative(expr))
        name, order, argument = found
        marks = "'" * order if order <= 3 else f"^({order})"
        return f"{name}{marks}({self._print(argument)})"

    def _print_Subs(self, expr: sp.Expr) -> str:
        return self._print_Derivative(expr) if notation.primes(expr) is not None else str(super()._print_Subs(expr))


def expression_text(expression: Any) -> str:
    """One expression in ASCII, with primes for derivatives of unknown functions."""
    return plain(_Printer().doprint(expression))


@singledispatch
def text(result: object) -> str:
    """A result as readable text, ASCII, at most 100 columns wide where lines can be broken."""
    raise TypeError(f"no text is known for {type(result).__name__}")


# -- tables and pages --------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns under a header: numbers to the right, words to the left."""
    cells = [[str(c) for c in row] for row in rows]
    ragged = next((row for row in cells if len(row) != len(header)), None)
    if ragged is not None:
        raise ValueError(f"table: a row has {len(ragged)} cells and the header {len(header)}: {ragged}")
    right = [bool(cells) and all(_is_number(row[k]) for row in cells) for k in range(len(header))]
    widths = [max(len(line[k]) for line in [list(header), *cells]) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *(line(row) for row in cells)])


def _is_number(cell: str) -> bool:
    if not cell.strip():
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def fold(source: str, columns: int, indent: str = "    ") -> list[str]:
    """Lines of at most ``columns`` characters, broken at spaces, or after * inside a long product."""
    lines: list[str] = []
    current = ""
    for piece in re.findall(r"\s*(?:[^\s*]|\*\*)+\*?|\s*\*", source):
        if current and len(current) + len(piece.rstrip()) > columns:
            lines.append(current.rstrip())
            current = indent + piece.lstrip()
        else:
            current += piece
    return [*lines, current.rstrip()]


def _entry(label: str, value: str) -> list[str]:
    """A label and its value, continued under the value; a label that is too long has its own line."""
    margin = " " * LABEL
    lines = [line for part in value.split("\n") for line in fold(part, COLUMNS - LABEL)]
    if len(label) >= LABEL:
        return [label, *(margin + line for line in lines)]
    return [label.ljust(LABEL) + lines[0], *(margin + line for line in lines[1:])]


def _capped(expression: sp.Expr, where: str, share: int = 1) -> str:
    """An expression, or where to find it if it is longer than its share of the cap."""
    count = operations(expression)
    if count * share <= MOST_OPERATIONS:
        found = expression_text(expression)
        if len(found) * share <= MOST_CHARACTERS:
            return found
    return f"({count} operations, not shown; see {where})"


def _page(title: str, entries: Sequence[tuple[str, str]]) -> str:
    lines = [title, "=" * min(len(title), COLUMNS)]
    for label, value in entries:
        lines += _entry(label, value)
    return "\n".join(lines)


# -- pieces that both kinds of result share ----------------------------------------------------------------------------


def _rule_entries(rule: Rule) -> list[tuple[str, str]]:
    variables = (*rule.trace.variables, rule.trace.gradient)
    pairs = zip(rule.trace.variables, rule.updates, strict=True)
    updates = "\n".join(f"{v} <- {expression_text(notation.late(u, variables))}" for v, u in pairs)
    fixed = ", ".join(f"{k} = {v}" for k, v in rule.fixed.items())
    return [("rule", plain(updates)), *([("fixed", plain(fixed))] if fixed else [])]


def _time_text(result: SlowResult | LawResult) -> str:
    return "per iteration" if result.time == "iteration" else f"per unit of {result.time}"


def _title(result: SlowResult | LawResult, what: str) -> str:
    return plain(f"{result.rule.name} {what} ({notation.order_text(result)}, {_time_text(result)})")


def basis_free_text(law: LawResult) -> str:
    """The matrix equation in one line: H V + V H - eta H V H = eta Sigma."""
    left, right = law.matrix_coefficients
    return f"{_words(left, 'V')} = {_words(right, 'Sigma')}"


def _words(coefficients: Mapping[Powers, sp.Expr], middle: str) -> str:
    found = ""
    for word in notation.words(coefficients):
        negative = word.coefficient.could_extract_minus_sign()
        size = -word.coefficient if negative else word.coefficient
        front = "" if size == 1 else f"({expression_text(size)}) " if size.is_Add else f"{expression_text(size)} "
        sign = (" - " if found else "-") if negative else " + " if found else ""
        found += sign + front + word_text(word, middle)
    return found


def kernel_text(law: LawResult) -> str:
    """K(lambda_i, lambda_j) by the terms of the matrix equation; the text of a SymPy expression."""
    left, right = law.matrix_coefficients
    above, below = (_sum([_curvature_term(w) for w in notation.words(c)]) for c in (right, left))
    joined = f"({above})/({below})" if re.search(r"[ /]", above) else f"{above}/({below})"
    return joined if len(joined) <= MOST_CHARACTERS else f"({operations(law.kernel)} operations, not shown; see law.kernel)"


def _sum(terms: Sequence[sp.Expr]) -> str:
    """Terms in the given order; a leading sum needs no brackets."""
    found = ""
    for term in terms:
        negative = not term.is_Add and term.could_extract_minus_sign()
        found += ((" - " if found else "-") if negative else " + " if found else "") + expression_text(-term if negative else term)
    return found


def _curvature_term(word: Word) -> sp.Expr:
    a, b = word.powers
    i, j = LAMBDA_I, LAMBDA_J
    if word.kind == "commutator":
        return word.coefficient * (i - j) ** 2
    if word.kind == "single":
        return word.coefficient * (i * j) ** a
    return word.coefficient * (i * j) ** b * (i ** (a - b) + j ** (a - b))


def word_text(word: Word, middle: str, sides: tuple[str, str] = ("H", "H")) -> str:
    """A summand of a matrix equation; ``sides`` name the matrix on the left and the one on the right."""
    a, b = word.powers
    if word.kind == "commutator":
        return f"[{sides[0]}, [{sides[0]}, {middle}]]"
    product = _product(a, middle, b, sides)
    if word.kind == "single":
        return product
    pair = f"{product} + {_product(b, middle, a, sides)}"
    return pair if word.coefficient == 1 else f"({pair})"


def _product(a: int, middle: str, b: int, sides: tuple[str, str]) -> str:
    powers = ["" if k == 0 else name if k == 1 else f"{name}^{k}" for name, k in zip(sides, (a, b), strict=True)]
    return " ".join(p for p in (powers[0], middle, powers[1]) if p)


def _condition_entries(result: SlowResult | LawResult) -> list[tuple[str, str]]:
    lines: list[str] = []
    said = ""
    for c in result.conditions:
        relation = c.inequality
        if relation is None:
            lines.append(c.statement)
            continue
        sides = [_capped(s, ".conditions") for s in (relation.lhs, relation.rhs)]
        lines.append(f"{sides[0]} {relation.rel_op} {sides[1]}" + ("" if c.statement == said else f"  ({c.statement})"))
        said = c.statement
    return [("conditions", "\n".join(lines))]


# -- slow dynamics on a problem ----------------------------------------------------------------------------------------


@text.register
def _(result: SlowResult) -> str:
    problem = result.problem
    minima = ", ".join(f"{k} = {expression_text(v)}" for k, v in problem.minima.items())
    coordinates = ", ".join(map(str, result.coordinates))
    entries = [
        *_rule_entries(result.rule),
        ("loss", _capped(problem.loss, "problem.loss")),
        ("minima", f"{minima}; coordinates {coordinates}"),
        ("noise", plain(str(problem.noise))),
    ]
    law = notation.law_of(result)
    if law is not None:
        entries += [("gain", expression_text(result.gain)), ("equilibrium", basis_free_text(law))]
    entries += _variance(result)
    entries += _drift(result)
    entries += _matrix_entries("D", sp.Matrix(result.diffusion), result.coordinates, "slow.diffusion")
    found = notation.potential_or_reason(result)
    entries.append(("potential", _shorten(found) if isinstance(found, str) else _capped(found, "slow.regularizer()")))
    entries += _condition_entries(result)
    return _page(_title(result, f"on {problem.name or 'a problem'}: slow dynamics"), entries)


def _rate(result: SlowResult, u: sp.Symbol) -> str:
    return f"E[Delta {u}]" if result.time == "iteration" else f"E[d{u}]/dt"


def _drift(result: SlowResult) -> list[tuple[str, str]]:
    """The drift of every coordinate, and its terms where there are several."""
    found = []
    for k, u in enumerate(result.coordinates):
        found.append((_rate(result, u), _capped(result.drift[k], "slow.drift")))
        parts = {n: getattr(result.terms, n)[k] for n in ("flatness", "correlation", "ito", "force")}
        present = {n: value for n, value in parts.items() if value != 0}
        if len(present) > 1:
            found += [(f"  {n}", _capped(value, f"slow.terms.{n}")) for n, value in present.items()]
    return found


def _variance(result: SlowResult) -> list[tuple[str, str]]:
    return _matrix_entries("V", sp.Matrix(result.variance), result.problem.parameters, "slow.variance")


def _matrix_entries(name: str, matrix: sp.MatrixBase, labels: Sequence[sp.Symbol], where: str) -> list[tuple[str, str]]:
    found = notation.entries(matrix, labels)
    if len(found) > 10 or max((operations(v) for *_, v in found), default=0) * 4 > MOST_OPERATIONS:
        return [(name, f"({len(found)} distinct nonzero entries, {operations(matrix)} operations, not shown; see {where})")]
    return [(f"{name}[{a},{b}]", _capped(value, where)) for a, b, value in found]


def _shorten(message: str, most: int = 300) -> str:
    short = message if len(message) <= most else f"{message[: most // 2]} [...] {message[-most // 2 :]}"
    return plain(f"no formula: {short}")


# -- the law for any loss ----------------------------------------------------------------------------------------------


@text.register
def _(result: LawResult) -> str:
    entries = [
        *_rule_entries(result.rule),
        ("gain", expression_text(result.gain)),
        ("V_ij/Sigma_ij", kernel_text(result)),
        ("equilibrium", basis_free_text(result)),
        *_factor_entries(result),
        *_regularizer_entries(result),
        *_condition_entries(result),
    ]
    return _page(_title(result, "for any loss: law"), entries)


def _factor_entries(result: LawResult) -> list[tuple[str, str]]:
    found = notation.factors(result)
    if isinstance(found, str):
        return [("speed, range", plain(found))]
    return [("speed factor", f"{expression_text(found[0])}  (per iteration)"), ("range factor", expression_text(found[1]))]


def _regularizer_entries(result: LawResult) -> list[tuple[str, str]]:
    """rho for both noises, or its derivative."""
    found = []
    for noise, sigma in (("hessian", "alpha*H"), ("isotropic", "sigma^2 across the minima")):
        rho, slope, _ = notation.density_or_reason(result, noise)
        value = rho if rho is not None else slope
        label = f"rho({LAMBDA})" if rho is not None else f"rho'({LAMBDA})"
        found.append((label, f"{_capped(value, 'law.regularizer_density()')}  (noise {sigma})"))
    return found
