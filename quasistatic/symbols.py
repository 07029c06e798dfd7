"""Symbols, unknown functions, exact numbers and the functions that an update rule may use."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, ProblemError

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
]


def symbols(names: str, **assumptions: Any) -> Any:
    """Real SymPy symbols: ``x, y = qs.symbols("x y")``, ``alpha = qs.symbols("alpha", positive=True)``.

    Parameters, coordinates and constants of a problem are real; further assumptions are passed on to ``sympy.symbols``.
    """
    return sp.symbols(names, **{"real": True, **assumptions})


def function(name: str, **assumptions: Any) -> Any:
    """An unknown real function, ``h = qs.function("h", positive=True)``; substitute it later with ``slow.subs({h: ...})``."""
    if not name.isidentifier():
        raise ProblemError(f"{name!r} is not a name for a function; use letters, digits and underscores.")
    return sp.Function(name, **{"real": True, **assumptions})


def positive(name: str) -> sp.Symbol:
    """The positive symbol of a hyperparameter or a noise strength."""
    return sp.Symbol(name, positive=True)


def exact(value: Any, what: str = "number") -> sp.Expr:
    """An exact SymPy number from text, an int, a float (its shortest decimal: 0.9 is 9/10) or a SymPy expression.

    Raises
    ------
    HyperparameterError
        If the value is not a finite real number.
    """
    if isinstance(value, bool):
        raise HyperparameterError(f"{what}: {value!r} is not a number.")
    if isinstance(value, sp.Expr):
        result = rationalize(value)
        if result.has(sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I):
            raise HyperparameterError(f"{what}: {value} is not a finite real number.")
        return result
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(\s*/\s*\d+)?", text):
            raise HyperparameterError(f"{what}: {value!r} is not a number; write 0.9, 9/10 or 1e-3.")
        numerator, _, denominator = text.partition("/")
        if denominator and int(denominator) == 0:
            raise HyperparameterError(f"{what}: {value!r} divides by zero.")
        return sp.Rational(numerator.strip()) / (sp.Integer(denominator.strip()) if denominator else 1)
    if isinstance(value, (int, np.integer)):
        return sp.Integer(int(value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise HyperparameterError(f"{what}: {value!r} is not a number.") from None
    if not math.isfinite(number):
        raise HyperparameterError(f"{what}: {value!r} is not finite.")
    return sp.Rational(repr(number))


def expression(value: Any) -> sp.Expr:
    """A number or SymPy expression as a SymPy expression; never text, which SymPy would execute.

    Raises
    ------
    ProblemError
        For anything else.
    """
    try:
        return sp.sympify(value, strict=True)
    except (sp.SympifyError, TypeError):
        raise ProblemError(f"{value!r} is not a SymPy expression or a number.") from None


def rationalize(expression: sp.Expr) -> sp.Expr:
    """Floats replaced by the rationals of their shortest decimals: results are exact."""
    floats = expression.atoms(sp.Float)
    return expression.xreplace({f: sp.Rational(repr(float(f))) for f in floats}) if floats else expression


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``x10`` after ``x2``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def natural_sort(found: Iterable[sp.Symbol]) -> tuple[sp.Symbol, ...]:
    """Symbols by name, numbers in natural order."""
    return tuple(sorted(found, key=lambda s: natural_key(s.name)))


# -- functions inside a rule -------------------------------------------------------------------------------------------


class Mean(sp.Function):  # type: ignore[misc]
    """Mean of a quantity over all coordinates of the problem."""

    nargs = 1
    is_real = True


class BlockMean(sp.Function):  # type: ignore[misc]
    """Mean of a quantity over the block of coordinates that this coordinate belongs to."""

    nargs = 1
    is_real = True


RULE_FUNCTIONS: tuple[type[sp.Basic], ...] = (sp.exp, sp.log, sp.sign, sp.Abs, sp.Max, sp.Min, Mean, BlockMean)
RULE_FUNCTION_NAMES = "qs.sqrt, exp, log, sign, abs, clip, maximum, minimum, mean, block_mean"


def _elementwise(symbolic: Callable[..., Any], numeric: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    def apply(*args: Any) -> Any:
        if any(isinstance(a, sp.Basic) for a in args):
            return symbolic(*args)
        return numeric(*args)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


sqrt = _elementwise(sp.sqrt, np.sqrt, "sqrt", "Square root, for use inside a rule.")
exp = _elementwise(sp.exp, np.exp, "exp", "Exponential, for use inside a rule.")
log = _elementwise(sp.log, np.log, "log", "Natural logarithm, for use inside a rule.")
sign = _elementwise(sp.sign, np.sign, "sign", "Sign, with sign(0) = 0, for use inside a rule.")
absolute = _elementwise(sp.Abs, np.abs, "abs", "Absolute value, for use inside a rule.")
maximum = _elementwise(sp.Max, np.maximum, "maximum", "The larger of two numbers, for use inside a rule.")
minimum = _elementwise(sp.Min, np.minimum, "minimum", "The smaller of two numbers, for use inside a rule.")
clip = _elementwise(lambda x, a, b: sp.Min(sp.Max(x, a), b), np.clip, "clip", "x limited to [a, b], for use inside a rule.")
mean = _elementwise(Mean, np.mean, "mean", "Mean over all coordinates, for use inside a rule.")
block_mean = _elementwise(BlockMean, np.mean, "block_mean", "Mean over the block of this coordinate, for use inside a rule.")
