"""Plain functions whose source goes into the compiled simulation of a large problem.

They are written in the part of Python that Numba compiles and use nothing but each other and ``math``.
"""

from __future__ import annotations

import math
from typing import Any


def gram_factor(J: Any, G: Any) -> None:
    """The Cholesky factor L of J J^T, J (n, d), in the lower triangle of G (n, n)."""
    n, d = J.shape
    for a in range(n):
        for b in range(a + 1):
            total = 0.0
            for i in range(d):
                total += J[a, i] * J[b, i]
            G[a, b] = total
    for a in range(n):
        for b in range(a + 1):
            total = G[a, b]
            for k in range(b):
                total -= G[a, k] * G[b, k]
            # a Jacobian that lost rank gives the root of a negative number or a division by zero: NaN, which stops the run
            G[a, b] = math.sqrt(total) if a == b else total / G[b, b]


def solve_lower(G: Any, v: Any) -> None:
    """v <- L^{-1} v for the Cholesky factor L in G."""
    for a in range(v.shape[0]):
        total = v[a]
        for k in range(a):
            total -= G[a, k] * v[k]
        v[a] = total / G[a, a]


def solve_upper(G: Any, v: Any) -> None:
    """v <- L^{-T} v."""
    n = v.shape[0]
    for step in range(n):
        a = n - 1 - step
        total = v[a] / G[a, a]
        v[a] = total
        for k in range(a):
            v[k] -= G[a, k] * total


def add_normal(J: Any, G: Any, strength: float, x: Any, g: Any) -> None:
    """g += strength * J^T L^{-T} x: noise with covariance strength^2 times the projector on the row space; x (n,) is used up."""
    solve_upper(G, x)
    n, d = J.shape
    for k in range(n):
        weight = strength * x[k]
        for i in range(d):
            g[i] += weight * J[k, i]


def add_tangent(J: Any, G: Any, strength: float, x: Any, v: Any, g: Any) -> None:
    """g += strength * (1 - J^T (J J^T)^{-1} J) x, x (d,); v (n,) is room to work in."""
    n, d = J.shape
    for k in range(n):
        total = 0.0
        for i in range(d):
            total += J[k, i] * x[i]
        v[k] = total
    solve_lower(G, v)
    solve_upper(G, v)
    for i in range(d):
        g[i] += strength * x[i]
    for k in range(n):
        weight = strength * v[k]
        for i in range(d):
            g[i] -= weight * J[k, i]
