"""Text to SymPy through a whitelist: numbers, names, arithmetic and a few functions. Nothing is ever executed."""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp

from quasistatic.errors import ParseError, suggestion

FUNCTIONS: Mapping[str, Callable[..., sp.Expr]] = {
    "sqrt": sp.sqrt, "exp": sp.exp, "log": sp.log, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "sinh": sp.sinh,
    "cosh": sp.cosh, "tanh": sp.tanh, "atan": sp.atan, "abs": sp.Abs,
}  # fmt: skip
_OPERATORS: Mapping[type[ast.AST], Callable[..., sp.Expr]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip
_SUM, _PRODUCT = (ast.Add, ast.Sub), (ast.Mult, ast.Div)
_LONGEST = 2000
_DEEPEST = 50
_LARGEST_EXPONENT = 100
#: In bits, of a power: (9**100)**100 and so on would otherwise fill the memory with digits.
_LONGEST_NUMBER = 20_000


def parse_expression(text: str, names: Mapping[str, sp.Expr] | None = None, symbol: Callable[[str], sp.Expr] | None = None) -> sp.Expr:
    """The expression that ``text`` spells.

    Parameters
    ----------
    text:
        Arithmetic over numbers, names and the functions of ``FUNCTIONS``; ``^`` is refused, decimals become exact.
    names:
        Meaning of the names; ``pi`` is always known.
    symbol:
        Makes the symbol of a name that is not in ``names``; without it, unknown names are errors.

    Raises
    ------
    ParseError
        For anything else, echoing the text.
    """

    def fail(why: str) -> ParseError:
        return ParseError(f"cannot read the expression {text!r}: {why}.")

    if len(text) > _LONGEST:
        raise ParseError(f"an expression of {len(text)} characters is too long (the limit is {_LONGEST}).")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise fail("it is not arithmetic; write for example (1+x**2)*y**2") from None

    known = {"pi": sp.pi, **(names or {})}

    def apply(op: ast.operator, left: sp.Expr, right: sp.Expr) -> sp.Expr:
        if isinstance(op, ast.Pow) and right.is_Number:
            inner = max((abs(p.exp) for p in left.atoms(sp.Pow) if p.exp.is_Number), default=1)
            if abs(right) * max(inner, 1) > _LARGEST_EXPONENT:
                raise fail(f"the exponent {right} is too large")
            if abs(right) * max((max(n.p.bit_length(), n.q.bit_length()) for n in left.atoms(sp.Rational)), default=0) > _LONGEST_NUMBER:
                raise fail("a number in it is too large")
        if isinstance(op, ast.Div) and right.is_zero:
            raise fail("it divides by zero")
        return _OPERATORS[type(op)](left, right)

    def build(node: ast.AST, depth: int) -> sp.Expr:
        if depth > _DEEPEST:
            raise fail("it is nested too deeply")
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            if isinstance(node.value, float) and node.value in (float("inf"), float("-inf")):
                raise fail("a number is not finite")
            return sp.Integer(node.value) if isinstance(node.value, int) else sp.Rational(repr(node.value))
        if isinstance(node, ast.Name):
            if node.id in known:
                return known[node.id]
            if node.id in FUNCTIONS:
                raise fail(f"the function {node.id} has no argument")
            if symbol is None or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", node.id) or "__" in node.id:
                raise fail(f"unknown name {node.id!r}.{suggestion(node.id, known)} Known: {', '.join(sorted(known))}")
            return known.setdefault(node.id, symbol(node.id))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            first, rest = _chain(node)
            value = build(first, depth + 1)
            for op, operand in rest:
                value = apply(op, value, build(operand, depth + 1))
            return value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            raise fail("write powers as **, not ^")
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](build(node.operand, depth + 1))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and len(node.args) == 1:
            if node.func.id not in FUNCTIONS:
                raise fail(f"unknown function {node.func.id!r}.{suggestion(node.func.id, FUNCTIONS)} Known: {', '.join(FUNCTIONS)}")
            return FUNCTIONS[node.func.id](build(node.args[0], depth + 1))
        raise fail(f"{ast.unparse(node)!r} is not allowed; use numbers, names, + - * / ** and {', '.join(FUNCTIONS)}")

    result = build(tree, 0)
    if result.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
        raise fail("its value is not finite")
    return result


def _chain(node: ast.BinOp) -> tuple[ast.AST, list[tuple[ast.operator, ast.AST]]]:
    """A sum of many terms (a product of many factors) as its first and the others: a long one is not a deep one."""
    kind = next((k for k in (_SUM, _PRODUCT) if isinstance(node.op, k)), ())
    rest: list[tuple[ast.operator, ast.AST]] = [(node.op, node.right)]
    first: ast.AST = node.left
    while isinstance(first, ast.BinOp) and isinstance(first.op, kind):
        rest.append((first.op, first.right))
        first = first.left
    return first, rest[::-1]


def parse_assignments(text: str) -> list[tuple[str, str]]:
    """``"y=0, w=x*y/2"`` as pairs of texts; raises ParseError where a part is not ``name=expression``."""
    pairs: list[tuple[str, str]] = []
    for part in _split(text):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not value.strip() or not name.isidentifier() or keyword.iskeyword(name):
            raise ParseError(f"cannot read {part.strip()!r} in {text!r}: write name=expression, for example y=0.")
        pairs.append((name, value.strip()))
    return pairs


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]


def parse_number(text: str, what: str) -> Any:
    """An exact number such as ``1e-3`` or ``pi/6`` from a shell."""
    value = parse_expression(text)
    if not value.is_real:
        raise ParseError(f"{what}: {text!r} is not a real number.")
    return value
