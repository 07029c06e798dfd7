"""Diagonal linear networks: X w = y with w = u^2 - v^2 or w = u v, elementwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from quasistatic.errors import ProblemError
from quasistatic.model.machine import Machine
from quasistatic.zoo.residuals.base import Array, ResidualModel, finite_array


def squares_forward(z: Any, rows: Any, r: Any, work: Any, X: Any, y: Any) -> None:
    """sum_j x_ij (u_j^2 - v_j^2) - y_i."""
    d = X.shape[1]
    for k in range(rows.shape[0]):
        i = rows[k]
        total = -y[i]
        for j in range(d):
            total += X[i, j] * (z[j] * z[j] - z[d + j] * z[d + j])
        r[k] = total


def squares_pullback(z: Any, rows: Any, c: Any, g: Any, work: Any, X: Any, y: Any) -> None:
    """Adds c_i (2 x_ij u_j, -2 x_ij v_j)."""
    d = X.shape[1]
    for k in range(rows.shape[0]):
        i = rows[k]
        for j in range(d):
            weight = 2.0 * c[k] * X[i, j]
            g[j] += weight * z[j]
            g[d + j] -= weight * z[d + j]


def product_forward(z: Any, rows: Any, r: Any, work: Any, X: Any, y: Any) -> None:
    """sum_j x_ij u_j v_j - y_i."""
    d = X.shape[1]
    for k in range(rows.shape[0]):
        i = rows[k]
        total = -y[i]
        for j in range(d):
            total += X[i, j] * (z[j] * z[d + j])
        r[k] = total


def product_pullback(z: Any, rows: Any, c: Any, g: Any, work: Any, X: Any, y: Any) -> None:
    """Adds c_i (x_ij v_j, x_ij u_j)."""
    d = X.shape[1]
    for k in range(rows.shape[0]):
        i = rows[k]
        for j in range(d):
            weight = c[k] * X[i, j]
            g[j] += weight * z[d + j]
            g[d + j] += weight * z[j]


class Diagonal(ResidualModel):
    """r = X w - y, X (n, D), y (n,); w = u^2 - v^2 (``squares``) or u v (``product``), u and v (D,)."""

    def __init__(self, X: Any, y: Any, form: str = "squares") -> None:
        if form not in ("squares", "product"):
            raise ProblemError(f'form={form!r} is neither "squares" (w = u^2 - v^2) nor "product" (w = u v).')
        self.X, self.y = finite_array(X, "X", 2), finite_array(y, "y", 1)
        self.form = form
        n, D = self.X.shape
        if len(self.y) != n:
            raise ProblemError(f"X has {n} rows and y {len(self.y)} entries; every row needs one.")
        super().__init__({"u": (D,), "v": (D,)}, n)

    @property
    def machine(self) -> Machine:
        forward, pullback = (squares_forward, squares_pullback) if self.form == "squares" else (product_forward, product_pullback)
        return Machine(forward, pullback, (self.X, self.y))

    def initial(self, seed: int = 0, size: float = 0.4) -> Array:
        """``size`` in every coordinate (w = 0 for the squares), and for the product Gaussian numbers of that size."""
        if self.form == "squares":
            return np.full(self.size, float(size))
        return np.random.default_rng(seed).normal(0, size, self.size)

    def weights(self, z: Array) -> Array:
        """w of points z (..., 2D), shape (..., D)."""
        a = self.unpack(z)
        return np.asarray(a["u"] ** 2 - a["v"] ** 2 if self.form == "squares" else a["u"] * a["v"])

    def slopes(self, z: Array) -> tuple[Array, Array]:
        """dw/du and dw/dv, (D,) each."""
        a = self.unpack(z)
        return (2 * a["u"], -2 * a["v"]) if self.form == "squares" else (a["v"], a["u"])

    def residuals(self, z: Array) -> Array:
        """(n,)"""
        return np.asarray(self.X @ self.weights(z) - self.y)

    def jacobian(self, z: Array) -> Array:
        """(n, 2D)"""
        su, sv = self.slopes(z)
        return np.concatenate([self.X * su, self.X * sv], axis=1)

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, (n,)"""
        (su, sv), b = self.slopes(z), self.unpack(w)
        return np.asarray(self.X @ (su * b["u"] + sv * b["v"]))

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, (2D,)"""
        (su, sv), q = self.slopes(z), np.asarray(c) @ self.X
        return np.concatenate([su * q, sv * q])

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """Constant in z."""
        weights, vectors = self.pairs(c, w)
        q, b = weights @ self.X, self.unpack(vectors)
        if self.form == "squares":
            return np.concatenate([2 * (q * b["u"]).sum(axis=0), -2 * (q * b["v"]).sum(axis=0)])
        return np.concatenate([(q * b["v"]).sum(axis=0), (q * b["u"]).sum(axis=0)])
