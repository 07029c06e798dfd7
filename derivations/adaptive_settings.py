"""What the entries of the page about adaptive methods share: problems, symbols, and the matrices of the curve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import frozen_preconditioner as numbers
import sympy as sp

import quasistatic as qs

ADAM = qs.zoo.adam
eta, beta1, beta2, eps = (ADAM.hyperparameters[n] for n in ("eta", "beta1", "beta2", "eps"))
alpha = sp.Symbol("alpha", positive=True)
c, t = sp.symbols("c t", positive=True)
lam = sp.Symbol("lambda", positive=True)
hh = sp.Symbol("h", positive=True)
v = sp.Symbol("v", positive=True)
HALF, QUARTER = sp.Rational(1, 2), sp.Rational(1, 4)

# a curve y = f(x) of minima in the plane, any curvature k(x)^2 across it, any noise C C^T: everything is unknown
x, y, z = qs.symbols("x y z")
f, k = qs.function("f"), qs.function("k", positive=True)
d1, d2, d3 = qs.symbols("d1 d2 d3")
C = sp.Matrix([[d1, 0], [d2, d3]])
NOISE = C * C.T
CURVE = qs.Problem(k(x) ** 2 * (y - f(x)) ** 2 / 2, {y: f(x)}, qs.CovarianceNoise(NOISE), parameters=(x, y))
RESIDUAL = y - f(x)
J, N = sp.Matrix([1, f(x).diff(x)]), sp.Matrix([-f(x).diff(x), 1])
PLANE = (x, y)

# two numbers per seed are enough: the identities between matrices are rational
SEEDS = (0, 1)


@cache
def curve(noise: str = "general") -> qs.SlowDynamics:
    """Adam on the curve; noise "general" or "label". Behind frozen S it is every member with a diagonal preconditioner."""
    problem = CURVE if noise == "general" else CURVE.with_noise(qs.HessianNoise(alpha))
    return qs.derive(ADAM, problem).leading("eta")


@cache
def surface() -> qs.SlowDynamics:
    """Adam on a curved surface of minima in R^3, label noise."""
    return qs.derive(ADAM, qs.zoo.paraboloid(qs.HessianNoise(alpha))).leading("eta")


@cache
def valley() -> qs.SlowDynamics:
    """Adam on the rotated valley h(x') y'^2, label noise."""
    h = qs.function("h", positive=True)
    return qs.derive(ADAM, qs.zoo.rotated_valley(h=h, noise=qs.HessianNoise(alpha)))


def frozen(slow: qs.SlowDynamics) -> sp.Matrix:
    """Diagonal matrix of the frozen symbols S_x, S_y, ..."""
    return sp.diag(*slow.scales)


def per_time(matrix: sp.Matrix) -> sp.Matrix:
    """Per unit of t = k eta^2 instead of per iteration."""
    return sp.Matrix(matrix) / eta**2


def on_curve(matrix: sp.Matrix) -> sp.Matrix:
    """Restricted to y = f(x)."""
    return sp.Matrix(matrix).applyfunc(lambda e: e.subs(y, f(x)).doit())


@cache
def plane() -> dict[str, sp.Matrix]:
    """S, G, K, h, Pi, Sigma_par and Sigma_diamond on the curve, from their formulas for one normal direction."""
    S = frozen(curve())
    G, K, h = (J.T * S.inv() * J)[0], (N.T * S * N)[0], k(x) ** 2
    Pi = J * J.T * S.inv() / G
    A = (N.T * S * NOISE * S * N)[0] / K**2 / (2 * h * K)
    cross = (J.T * NOISE * S * N)[0] / (G * K * K * h)
    normal, mixed = A * S * N * N.T * S, cross * (J * N.T * S + S * N * J.T)
    names = {"S": S, "G": sp.Matrix([G]), "K": sp.Matrix([K]), "Pi": Pi, "parallel": Pi * S * NOISE * S * Pi.T}
    return {**names, "normal": normal, "mixed": mixed, "diamond": normal + mixed}


def third(loss: sp.Expr, coordinates: tuple[sp.Symbol, ...], X: sp.Matrix) -> sp.Matrix:
    """The vector d^3 L[X]."""
    n = range(len(coordinates))
    return sp.Matrix([sum(sp.diff(loss, i, coordinates[j], coordinates[m]) * X[j, m] for j in n for m in n) for i in coordinates])


@cache
def third_on_curve(which: str) -> sp.Matrix:
    """d^3 L[X] on the curve for a matrix of ``plane``."""
    X = sp.Matrix(2, 2, sp.symbols("X11 X12 X12 X22"))
    general = on_curve(third(CURVE.loss, PLANE, X))
    return general.xreplace(dict(zip(X, plane()[which], strict=True)))


def both(*pairs: tuple[numbers.Array, numbers.Array]) -> list[float]:
    """Relative differences of pairs of arrays."""
    return [numbers.relative(a, b) for a, b in pairs]


def at_points(check: Callable[[numbers.Point], list[float]]) -> list[float]:
    """A check at random points with dense S and Sigma."""
    return [r for seed in SEEDS for r in check(numbers.random_point(seed))]
