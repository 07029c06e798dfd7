"""SymPy expressions to straight-line Python source in float64 arithmetic, for Numba.

Common subexpressions become local variables. Work is sorted into *stages*: what depends on hyperparameters alone is
computed once, what depends on the iteration number once per step, and only the rest in the innermost loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from quasistatic.errors import ProblemError
from quasistatic.symbols import expression as as_expression

Assignments = Sequence[tuple[sp.Symbol, sp.Expr]]

#: Numbers with numerator and denominator up to here belong to the formula; others are data and become arguments.
STRUCTURAL = 12

_CALLS: Mapping[str, str] = {
    "exp": "math.exp", "log": "math.log", "sin": "math.sin", "cos": "math.cos", "tan": "math.tan", "asin": "math.asin",
    "acos": "math.acos", "atan": "math.atan", "sinh": "math.sinh", "cosh": "math.cosh", "tanh": "math.tanh",
    "asinh": "math.asinh", "acosh": "math.acosh", "atanh": "math.atanh", "atan2": "math.atan2", "erf": "math.erf",
    "erfc": "math.erfc", "gamma": "math.gamma", "loggamma": "math.lgamma", "floor": "math.floor", "ceiling": "math.ceil",
    "Abs": "math.fabs", "sign": "sign",
}  # fmt: skip
_COMPARE: Mapping[type[sp.Basic], str] = {
    sp.StrictGreaterThan: ">", sp.GreaterThan: ">=", sp.StrictLessThan: "<", sp.LessThan: "<=", sp.Equality: "==", sp.Unequality: "!=",
}  # fmt: skip
_REWRITTEN: Mapping[type[sp.Basic], Callable[[Any], sp.Expr]] = {
    sp.sec: lambda x: 1 / sp.cos(x),
    sp.csc: lambda x: 1 / sp.sin(x),
    sp.cot: lambda x: 1 / sp.tan(x),
    sp.sech: lambda x: 1 / sp.cosh(x),
    sp.csch: lambda x: 1 / sp.sinh(x),
    sp.coth: lambda x: 1 / sp.tanh(x),
}


@dataclass(frozen=True)
class Program:
    """Straight-line source: the lines of every stage, and the expressions (names or numbers) of the outputs."""

    stages: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]


def local_names(symbols: Iterable[sp.Symbol]) -> dict[sp.Symbol, str]:
    """Local variable of every symbol: its name and an underscore, which neither a keyword nor a generated name ends in."""
    found: dict[sp.Symbol, str] = {}
    for symbol in symbols:
        stem = re.sub(r"[^0-9A-Za-z_]", "_", symbol.name)
        name = stem = f"v{stem}_" if not stem or stem[0].isdigit() or stem.startswith("_") else f"{stem}_"
        n = 2
        while name in found.values():
            name, n = f"{stem}{n}_", n + 1
        found[symbol] = name
    return found


def require_closed(expressions: Iterable[sp.Expr], whose: str = "slow") -> None:
    """Raise ProblemError where an unknown function is left, naming it and the substitution that closes it."""
    for expression in expressions:
        for node in expression.atoms(AppliedUndef):
            h, args = type(node).__name__, ", ".join(map(str, node.args)) or "x"
            args = args if re.fullmatch(r"[A-Za-z_]\w*(, [A-Za-z_]\w*)*", args) else "x"
            raise ProblemError(f"{h} is still open: substitute it with {whose}.subs({{{h}: lambda {args}: ...}}).")


def lift_numbers(expressions: Sequence[sp.Expr], prefix: str = "data") -> tuple[list[sp.Expr], dict[sp.Symbol, float]]:
    """The expressions with data in place of numbers that do not belong to the formula, and the values of that data.

    Targets, noise strengths and fixed hyperparameters are numbers in an expression; as literals they would make every
    data set a new piece of machine code. Exponents stay.
    """
    found: dict[sp.Expr, sp.Symbol] = {}
    changed = [_lift(e, found, prefix, {}) for e in expressions]
    return changed, {symbol: _number(value) for value, symbol in found.items()}


def _lift(e: sp.Expr, found: dict[sp.Expr, sp.Symbol], prefix: str, memo: dict[sp.Expr, sp.Expr]) -> sp.Expr:
    if e.is_Number:
        if isinstance(e, sp.Rational) and abs(e.p) <= STRUCTURAL and e.q <= STRUCTURAL:
            return e
        size, sign = abs(e), -1 if e.is_negative else 1
        if size not in found:
            found[size] = sp.Symbol(f"{prefix} {len(found)}", positive=True)
        return sign * found[size]
    if not e.args or not e.atoms(sp.Number):
        return e
    if e not in memo:
        keep = 1 if isinstance(e, sp.Pow) else len(e.args)
        args = [_lift(a, found, prefix, memo) if i < keep and isinstance(a, sp.Expr) else a for i, a in enumerate(e.args)]
        same = all(a is b for a, b in zip(args, e.args, strict=True))
        # SymPy would multiply a number into a sum, and make a product of every term
        apart = isinstance(e, sp.Mul) and len(args) == 2 and args[0].is_Number and args[1].is_Add
        memo[e] = e if same else sp.Mul(*args, evaluate=False) if apart else e.func(*args)
    return memo[e]


def emit(
    outputs: Sequence[sp.Expr],
    names: Mapping[sp.Symbol, str],
    assignments: Assignments = (),
    levels: Mapping[sp.Symbol, int] | None = None,
    prefix: str = "c",
) -> Program:
    """Source that computes ``outputs`` from the local variables ``names``.

    Parameters
    ----------
    outputs:
        Real expressions.
    names:
        Symbol to local variable of everything that is given.
    assignments:
        Intermediate results, in order; outputs and later ones may use their symbols.
    levels:
        Stage (0, 1, ...) in which a given symbol becomes known; 0 if not named. Everything is computed in the earliest
        stage possible.
    prefix:
        What the names of the new local variables begin with.

    Raises
    ------
    ProblemError
        For unknown functions, functions without a float64 counterpart, and symbols that are not given.
    """
    targets = [as_expression(o) for o in outputs]
    everything = [e for _, e in assignments] + targets
    require_closed(everything)
    replacements, reduced = sp.cse(everything, symbols=sp.numbered_symbols("#", real=True), order="canonical")
    definitions = dict(zip([s for s, _ in assignments], reduced, strict=False)) | dict(replacements)
    stages = 1 + max(levels.values(), default=0) if levels else 1
    writer = _Writer(names, definitions, levels or {}, stages, prefix)
    return writer.run(reduced[len(assignments) :])


class _Writer:
    """Writes definitions in topological order; moves what it can into earlier stages while it prints."""

    def __init__(
        self,
        names: Mapping[sp.Symbol, str],
        definitions: dict[sp.Symbol, sp.Expr],
        levels: Mapping[sp.Symbol, int],
        stages: int,
        prefix: str,
    ) -> None:
        self.prefix = prefix
        self.names = dict(names)
        self.definitions = definitions
        self.levels = dict(levels)
        self.lines: list[list[str]] = [[] for _ in range(stages)]
        self.level_of: dict[sp.Basic, int] = {}
        self.known: dict[Any, str] = {}
        self.count = 0

    def run(self, outputs: Sequence[sp.Expr]) -> Program:
        for symbol in self.order(outputs):
            expression = self.definitions[symbol]
            stage = self.levels[symbol] = self.level(expression)
            self.names[symbol] = self.assign(self.text(expression, stage), stage)
        last = len(self.lines) - 1
        texts = tuple(self.text(o, last) for o in outputs)
        return Program(tuple(map(tuple, self.lines)), texts)

    def order(self, outputs: Sequence[sp.Expr]) -> list[sp.Symbol]:
        """The definitions that the outputs need, each after those it uses."""
        graph: dict[sp.Symbol, list[sp.Symbol]] = {}
        todo = [s for o in outputs for s in self.used(o)]
        while todo:
            symbol = todo.pop()
            if symbol not in graph:
                graph[symbol] = self.used(self.definitions[symbol])
                todo += graph[symbol]
        return list(TopologicalSorter(graph).static_order())

    def used(self, expression: sp.Expr) -> list[sp.Symbol]:
        return sorted((s for s in expression.free_symbols if s in self.definitions), key=lambda s: (len(s.name), s.name))

    def level(self, expression: sp.Basic) -> int:
        if isinstance(expression, sp.Symbol):
            return int(self.levels.get(expression, 0))
        if expression not in self.level_of:
            self.level_of[expression] = max((self.level(a) for a in expression.args), default=0)
        return self.level_of[expression]

    def assign(self, text: str, stage: int) -> str:
        """A local variable with this value; names and numbers are their own."""
        if _is_simple(text) and "(" not in text:
            return text
        if (text, stage) not in self.known:
            name = f"{self.prefix}{self.count}"
            self.count += 1
            self.lines[stage].append(f"{name} = {text}")
            self.known[text, stage] = name
        return self.known[text, stage]

    # -- printing ------------------------------------------------------------------------------------------------------

    def text(self, e: sp.Basic, stage: int) -> str:
        """The expression as source in ``stage``; whatever is known earlier is assigned there."""
        if isinstance(e, sp.Symbol):
            if e not in self.names:
                known = ", ".join(s.name for s in self.names if not s.name.startswith("#"))
                raise ProblemError(f"the symbol {e} has no value here; known are {known}.")
            return str(self.names[e])
        if e.is_number and isinstance(e, sp.Expr):
            return repr(_number(e))
        level = self.level(e)
        if level < stage:
            return self.assign(self.text(e, level), level)
        if isinstance(e, (sp.Add, sp.Mul)):
            return self.grouped(e, stage)
        if isinstance(e, sp.Pow):
            return self.power(e, stage)
        return self.call(e, stage)

    def atom(self, e: sp.Basic, stage: int) -> str:
        text = self.text(e, stage)
        return text if _is_simple(text) and not text.startswith("-") else f"({text})"

    def grouped(self, e: sp.Expr, stage: int) -> str:
        """A sum or product whose earlier-known part is one variable."""
        join = self.sum if isinstance(e, sp.Add) else self.product
        parts: dict[int, list[sp.Expr]] = {}
        for a in e.args:
            parts.setdefault(self.level(a), []).append(a)
        carried = ""
        for level in sorted(parts):
            mine = parts[level]
            if level == stage:
                return join(mine, level, carried)
            if all(a.is_number for a in mine) and len(parts) > 1:  # numbers go with the next group
                following = min(k for k in parts if k > level)
                parts[following] = mine + parts[following]
                continue
            carried = self.assign(join(mine, level, carried), level)
        return carried

    def sum(self, terms: list[sp.Expr], stage: int, carried: str) -> str:
        texts = [carried] if carried else []
        shared: dict[sp.Expr, list[sp.Expr]] = {}
        for term in terms:
            shared.setdefault(abs(term.as_coeff_Mul()[0]) if term.is_Mul else sp.S.One, []).append(term)
        for size, group in shared.items():
            if size != 1 and len(group) > 1:  # 2*a*b - 2*c*d is 2*(a*b - c*d)
                inner = self.sum([t.as_coeff_Mul()[0] / size * t.as_coeff_Mul()[1] for t in group], stage, "")
                texts.append(f"{'+ ' if texts else ''}{_number(size)!r}*({inner})")
            else:
                self.plain_sum(group, stage, texts)
        return " ".join(texts)

    def plain_sum(self, terms: list[sp.Expr], stage: int, texts: list[str]) -> None:
        """Append the terms to a sum, positive ones first: a sum that starts with a minus sign costs a negation."""
        for term in sorted(terms, key=lambda a: a.could_extract_minus_sign()):
            negative = term.could_extract_minus_sign() and bool(texts)
            # -x*y and -2*x change their coefficient only; a product of sums would be multiplied out, so it is left alone
            negative = negative and (term.is_Mul and term.args[0].is_Number)
            text = self.text(-term if negative else term, stage)
            texts.append(f"- {self.bracket(-term, text)}" if negative else f"+ {text}" if texts else text)

    @staticmethod
    def bracket(e: sp.Expr, text: str) -> str:
        return f"({text})" if e.is_Add else text

    def product(self, factors: list[sp.Expr], stage: int, carried: str) -> str:
        above, below = [carried] if carried else [], []
        sign = ""
        for factor in factors:
            if factor is sp.S.NegativeOne:
                sign = "-"
            elif isinstance(factor, sp.Pow) and factor.exp.is_number and factor.exp.is_negative and self.level(factor) == stage:
                below.append(self.wrapped(self.power_text(factor.base, -factor.exp, stage)))
            else:
                above.append(self.atom(factor, stage))
        text = sign + ("*".join(above) or "1.0")
        if not below:
            return text
        return f"{text}/{below[0]}" if len(below) == 1 else f"{text}/({'*'.join(below)})"

    @staticmethod
    def wrapped(text: str) -> str:
        return text if _is_simple(text) else f"({text})"

    def power(self, e: sp.Pow, stage: int) -> str:
        if e.exp.is_number and e.exp.is_negative:
            return f"1.0/{self.wrapped(self.power_text(e.base, -e.exp, stage))}"
        return self.power_text(e.base, e.exp, stage)

    def power_text(self, base: sp.Expr, exponent: sp.Expr, stage: int) -> str:
        """base**exponent: whole powers as multiplications, halves through the square root."""
        if exponent.is_Integer:
            name = self.assign(self.text(base, stage), stage)
            return self.squaring(name if not name.startswith("-") else f"({name})", int(exponent), stage)
        if exponent.is_Rational and exponent.q == 2:
            name = self.assign(self.text(base, stage), stage)
            root = f"math.sqrt({name})"
            whole = int(exponent - sp.Rational(1, 2))
            return root if whole == 0 else f"{self.wrapped(self.squaring(name, whole, stage))}*{root}"
        return f"power({self.text(base, stage)}, {self.text(exponent, stage)})"

    def squaring(self, name: str, n: int, stage: int) -> str:
        if n == 1:
            return name
        half = self.assign(self.squaring(name, n // 2, stage), stage)
        return f"{half}*{half}" if n % 2 == 0 else f"{half}*{half}*{name}"

    def call(self, e: sp.Basic, stage: int) -> str:
        name = type(e).__name__
        if name in _CALLS:
            return f"{_CALLS[name]}({', '.join(self.text(a, stage) for a in e.args)})"
        if isinstance(e, (sp.Max, sp.Min)):
            helper = "maximum" if isinstance(e, sp.Max) else "minimum"
            text = self.text(e.args[0], stage)
            for a in e.args[1:]:
                text = f"{helper}({text}, {self.text(a, stage)})"
            return text
        if isinstance(e, sp.Piecewise):
            return self.piecewise(e, stage)
        if isinstance(e, sp.Heaviside):
            x = self.atom(e.args[0], stage)
            return f"(0.5*(1.0 + sign({x})))"
        if type(e) in _REWRITTEN:
            return self.text(_REWRITTEN[type(e)](*e.args), stage)
        return self.condition(e, stage)

    def piecewise(self, e: sp.Piecewise, stage: int) -> str:
        text = "math.nan"
        for value, condition in reversed(e.args):
            if condition is sp.true:
                text = self.text(value, stage)
            elif condition is not sp.false:
                text = f"({self.text(value, stage)} if {self.text(condition, stage)} else {text})"
        return text

    def condition(self, e: sp.Basic, stage: int) -> str:
        if type(e) in _COMPARE:
            left, right = (self.atom(a, stage) for a in e.args)
            return f"({left} {_COMPARE[type(e)]} {right})"
        if isinstance(e, (sp.And, sp.Or)):
            sign = " & " if isinstance(e, sp.And) else " | "
            return f"({sign.join(self.text(a, stage) for a in sorted(e.args, key=sp.default_sort_key))})"
        if isinstance(e, sp.Not):
            return f"(not {self.text(e.args[0], stage)})"
        raise ProblemError(f"{e} cannot be compiled: {type(e).__name__} has no float64 counterpart here.")


def _is_simple(text: str) -> bool:
    """A name, a number or one call, which need no brackets."""
    return re.fullmatch(r"\w+|-?\d+(\.\d*)?(e[+-]?\d+)?|[\w.]+\([^()]*\)", text) is not None


def _number(value: sp.Expr) -> float:
    """The float64 nearest to an exact number."""
    try:
        number = value.p / value.q if isinstance(value, sp.Rational) else float(value)
    except (TypeError, OverflowError, ZeroDivisionError):
        raise ProblemError(f"{value} is not a real number that float64 can hold.") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ProblemError(f"{value} is not finite.")
    return float(number)
