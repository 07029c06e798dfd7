"""Ready-made problems with example values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sympy as sp

from quasistatic.errors import ProblemError
from quasistatic.model.noise import HessianNoise, Noise
from quasistatic.model.problem import Problem
from quasistatic.symbols import expression, positive, symbols

x, y, z, w = symbols("x y z w")
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


def two_channels(phi: Any = sp.pi / 6, psi: Any = sp.pi / 3, noise: Noise | None = None) -> Problem:
    """L = (A^2 p^2 + B^2 q^2)/2 in R^4: a plane of minima p = q = 0, on which optimizers stop at different points.

    A = 1/4 + ((x-1)^2 + 2 y^2)/2 and B = 3/2 + (2 (x+1)^2 + (y-1)^2)/2 are the square roots of the two curvatures over the
    coordinates (x, y). The pair (x, p) is turned by phi into (theta1, theta3), (y, q) by psi into (theta2, theta4):
    theta1 = x cos(phi) + p sin(phi), theta3 = -x sin(phi) + p cos(phi). Residuals are A p and B q, so that label noise fits too.
    """
    t1, t2, t3, t4 = parameters = symbols("theta1 theta2 theta3 theta4")
    turns = [(sp.cos(a), sp.sin(a)) for a in (expression(phi), expression(psi))]
    (along, p), (across, q) = ((c * a - s * b, s * a + c * b) for (c, s), a, b in zip(turns, (t1, t2), (t3, t4), strict=True))
    A = sp.Rational(1, 4) + ((along - 1) ** 2 + 2 * across**2) / 2
    B = sp.Rational(3, 2) + (2 * (along + 1) ** 2 + (across - 1) ** 2) / 2
    (c1, s1), (c2, s2) = turns
    return Problem.from_residuals(
        [A * p, B * q], {t1: c1 * x, t2: c2 * y, t3: -s1 * x, t4: -s2 * y}, _noise(noise), parameters=parameters,
        coordinates={x: along, y: across}, name="two_channels", examples={"alpha": 1.0, "x": 1.5, "y": -1.0},
    )  # fmt: skip


def paraboloid(noise: Noise | None = None) -> Problem:
    """L = k^2 (z - (x^2+y^2)/2)^2/2 in R^3 with k = 1 + ((x-2)^2 + (y-1)^2)/2: a curved surface of minima with one curvature.

    The diagonal of the Hessian over (x, y) is k^2 (x^2, y^2, 1): where it stops tells optimizers apart.
    """
    k = 1 + ((x - 2) ** 2 + (y - 1) ** 2) / 2
    height = (x**2 + y**2) / 2
    return Problem.from_residuals(
        [k * (z - height)], {z: height}, _noise(noise), parameters=(x, y, z), name="paraboloid",
        examples={"alpha": 1.0, "x": 2.2, "y": 1.2},
    )  # fmt: skip
