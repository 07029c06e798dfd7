"""Ready-made problems with example values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sympy as sp

from quasistatic.errors import ProblemError
from quasistatic.model.noise import HessianNoise, Noise
from quasistatic.model.problem import Problem
from quasistatic.symbols import expression, positive, symbols

x, y, w = symbols("x y w")
#: h: an expression in x, a function of one argument, or ``qs.function("h", positive=True)``.
Profile: TypeAlias = Any


def _profile(h: Profile) -> Callable[[sp.Expr], sp.Expr]:
    """A positive function of one variable, from an expression in x, a callable or an unknown function."""
    if h is None:
        return lambda s: 1 + s**2
    if isinstance(h, sp.Expr):
        extra = [a for a in h.free_symbols if a.name == "x" and a != x]
        if extra:
            raise ProblemError("h uses a symbol x with other assumptions: make it with qs.symbols('x').")
        return lambda s: expression(h.subs(x, s))
    if callable(h):
        return lambda s: expression(h(s))
    if isinstance(h, (int, float)):
        return lambda s: expression(h)
    raise ProblemError(f"h is {h!r}; give an expression in x, a function of one argument, or qs.function('h', positive=True).")


def _noise(noise: Noise | None) -> Noise:
    return HessianNoise(positive("alpha")) if noise is None else noise


def valley(h: Profile = None, noise: Noise | None = None) -> Problem:
    """f = h(x) y^2 with minima y = 0; h is positive, 1 + x^2 by default. Noise alpha times the Hessian by default."""
    return Problem(
        expression(_profile(h)(x)) * y**2, {y: 0}, _noise(noise), parameters=(x, y), name="valley", examples={"alpha": 1.125, "x": 5.0},
    )  # fmt: skip


def rotated_valley(theta: Any = None, h: Profile = None, noise: Noise | None = None) -> Problem:
    """The valley rotated clockwise by theta (quasistatic paper, eq. 23); s is the position along it.

    f = h(s) y'^2, s = x cos(theta) - y sin(theta), y' = x sin(theta) + y cos(theta).
    """
    angle = symbols("theta") if theta is None else expression(theta)
    s = symbols("s")
    cos, sin = sp.cos(angle), sp.sin(angle)
    along, across = x * cos - y * sin, x * sin + y * cos
    return Problem(
        expression(_profile(h)(along)) * across**2, {x: s * cos, y: -s * sin}, _noise(noise), parameters=(x, y), coordinates={s: along},
        name="rotated_valley", examples={"alpha": 1.125, "s": 5.0, "theta": 0.5},
    )  # fmt: skip


def curved_valley(noise: Noise | None = None) -> Problem:
    """f = ((1+x^2)(y-x^2)^2 + (2+x)(w-xy/2)^2)/2 in R^3: minima on a space curve, two curvatures that differ; x > -2."""
    loss = ((1 + x**2) * (y - x**2) ** 2 + (2 + x) * (w - x * y / 2) ** 2) / 2
    return Problem(
        loss, {y: x**2, w: x**3 / 2}, _noise(noise), parameters=(x, y, w), name="curved_valley", examples={"alpha": 0.05, "x": 1.0},
    )  # fmt: skip
