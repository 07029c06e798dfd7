"""What LaTeX and terminal text have in common: the order of terms, names of symbols, words of a matrix equation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from quasistatic.algebra.field import normal
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.reduction import leading_term
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import AlgebraError, NoPotential, RuleError
from quasistatic.symbols import GREEK

Powers = tuple[int, int]


# -- the order of terms ------------------------------------------------------------------------------------------------


def ordered_terms(expression: sp.Expr) -> list[sp.Expr]:
    """Terms of a sum by ascending degree, as an expansion is written; a positive one first where there is one."""
    terms = sorted(sp.Add.make_args(expression), key=_term_key)
    positive = next((t for t in terms if not t.could_extract_minus_sign()), None)
    if positive is not None and terms[0] is not positive:
        terms.remove(positive)
        terms.insert(0, positive)
    return terms


def _term_key(term: sp.Expr) -> tuple[int, list[tuple[str, int]]]:
    """Total degree, then the factors by name."""
    factors = [(str(b), _whole(e)) for b, e in (f.as_base_exp() for f in sp.Mul.make_args(term)) if not b.is_Number]
    return sum(e for _, e in factors), sorted((name, -e) for name, e in factors)


def _whole(exponent: sp.Expr) -> int:
    return int(exponent) if exponent.is_Integer else 1


def operations(*expressions: Any) -> int:
    """Number of operations of expressions or matrices."""
    return int(sum(sp.count_ops(e) for e in expressions))


class Late(sp.Symbol):  # type: ignore[misc]
    """A symbol printed behind the others of a product: ``mu*b``, not ``b*mu``."""

    __slots__ = ()

    @classmethod
    def class_key(cls) -> tuple[int, int, str]:
        return 2, 1, cls.__name__


def late(expression: sp.Expr, symbols: Iterable[sp.Symbol]) -> sp.Expr:
    """The expression with some symbols printed last in products."""
    return expression.xreplace({s: Late(s.name, real=True) for s in symbols})


# -- names -------------------------------------------------------------------------------------------------------------


def name_parts(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Head and subscripts of a mathematical name (``v1_x``: v, 1 and x), or None for a word such as ``weight_decay``."""
    parts: list[str] = []
    for piece in plain(name).split("_"):
        match = re.fullmatch(r"([A-Za-z]+?)(\d*)|(\d+)", piece)
        if match is None:
            return None
        parts += [p for p in match.groups() if p]
    if not parts or not all(_short(p) for p in parts) or parts[0].isdigit():
        return None
    return parts[0], tuple(parts[1:])


def _short(part: str) -> bool:
    return part.isdigit() or len(part) == 1 or part.lower() in GREEK or part == "eps"


def plain(text: str) -> str:
    """ASCII: Greek letters by their names, accents dropped, anything else as its code point."""
    return "".join(c if c.isascii() else _ascii(c) for c in text)


def _ascii(character: str) -> str:
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and name.rsplit(" ", 1)[-1].lower() in GREEK:
        letter = name.rsplit(" ", 1)[-1].lower()
        return letter.capitalize() if "CAPITAL" in name else letter
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return base or f"U+{ord(character):04X}"


def primes(derivative: sp.Expr) -> tuple[str, int, sp.Expr] | None:
    """Name, order and argument of a derivative of an unknown function of one argument; None for anything else."""
    if isinstance(derivative, sp.Subs):
        inner = primes(derivative.expr)
        if inner is None or len(derivative.variables) != 1 or inner[2] != derivative.variables[0]:
            return None
        return inner[0], inner[1], derivative.point[0]
    function = derivative.expr
    if not isinstance(function, AppliedUndef) or len(function.args) != 1 or len(derivative.variable_count) != 1:
        return None
    symbol, order = derivative.variable_count[0]
    if symbol != function.args[0] or not order.is_Integer:
        return None
    return type(function).__name__, int(order), function.args[0]


# -- the words of a matrix equation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """``coefficient`` times H^a M H^b, both orders of it, or the double commutator [H, [H, M]].

    Attributes
    ----------
    powers:
        (a, b), a >= b.
    kind:
        "single" (a = b), "pair" (H^a M H^b + H^b M H^a) or "commutator".
    """

    coefficient: sp.Expr
    powers: Powers
    kind: str


def words(coefficients: Mapping[Powers, sp.Expr]) -> list[Word]:
    """A symmetric sum of c_ab H^a M H^b, pairs together and the double commutator recognised, by ascending degree."""
    left = dict(coefficients)
    found: list[Word] = []
    double = left.get((2, 0))
    if double is not None and left.get((0, 2)) == double and (1, 1) in left:
        del left[2, 0], left[0, 2]
        found.append(Word(double, (2, 0), "commutator"))
        rest = normal(left.pop((1, 1)) + 2 * double)
        if rest != 0:
            left[1, 1] = rest
    for (a, b), c in left.items():
        if a >= b:
            found.append(Word(c, (a, b), "single" if a == b else "pair"))
    return sorted(found, key=lambda w: (sum(w.powers), w.kind != "commutator", -w.powers[0]))


# -- results -----------------------------------------------------------------------------------------------------------


def order_text(result: SlowResult | LawResult) -> str:
    """How exact a result is: "exact", or "leading order in eta"."""
    symbol = result.order.symbol
    return "exact" if symbol is None else f"leading order in {symbol.name}"


def potential_or_reason(result: SlowResult) -> sp.Expr | str:
    """The potential, or why there is none."""
    try:
        return result.regularizer()
    except NoPotential as error:
        return str(error)


def density_or_reason(result: LawResult, noise: str) -> tuple[sp.Expr | None, sp.Expr, str]:
    """rho where it has a closed form, rho', and the reason where there is no rho."""
    slope = result.regularizer_density(noise)
    try:
        return result.regularizer(noise), slope, ""
    except NoPotential as error:
        return None, slope, str(error)


def factors(result: LawResult) -> tuple[sp.Expr, sp.Expr] | str:
    """Speed and range factor, or why there are none."""
    try:
        return result.speed_factor, result.range_factor
    except RuleError as error:
        return str(error)


def leading_gain(law: LawResult) -> sp.Expr:
    """The gain at leading order in the learning rate, or the gain itself where that is fixed."""
    try:
        return leading_term(law.linear.gain, law.learning_rate)
    except RuleError:
        return law.gain


@dataclass(frozen=True, eq=False)
class FilterLaw(LawResult):
    """The law of a filter that a result has found in its rule."""

    given: LinearRule | None = None

    @cached_property
    def linear(self) -> LinearRule:
        """The filter."""
        assert self.given is not None
        return self.given


def filter_law(result: AdaptiveResult) -> LawResult:
    """The law of the filter behind a preconditioner, at the same order."""
    return FilterLaw(result.rule, order=result.order, given=result.linear)


def law_of(result: SlowResult) -> LawResult | None:
    """The law behind a linear filter's slow dynamics, at the same order."""
    if isinstance(result, AdaptiveResult):
        return filter_law(result) if result.time_kind == "iteration" else None
    return None if result.linear is None else LawResult(result.rule, result.time_kind, result.order)


def common_factor(matrix: sp.MatrixBase) -> tuple[sp.Expr, sp.MatrixBase]:
    """A matrix as scalar times a matrix of numbers where it is one, else 1 and itself."""
    if matrix.rows == matrix.cols == 1:
        return sp.Integer(1), matrix
    pivot = next((x for x in matrix if x != 0), None)
    if pivot is None or operations(matrix) > 600:
        return sp.Integer(1), matrix
    try:
        ratio = matrix.applyfunc(lambda x: x if x == 0 else normal(x / pivot))
    except AlgebraError:
        return sp.Integer(1), matrix
    if ratio.free_symbols or len([x for x in matrix if x != 0]) == 1:
        return sp.Integer(1), matrix
    return pivot, ratio


def entries(matrix: sp.MatrixBase, names: Sequence[Any]) -> list[tuple[Any, Any, sp.Expr]]:
    """Nonzero entries of a symmetric matrix on and above its diagonal, with the names of row and column."""
    n = matrix.rows
    return [(names[i], names[j], matrix[i, j]) for i in range(n) for j in range(i, n) if matrix[i, j] != 0]
