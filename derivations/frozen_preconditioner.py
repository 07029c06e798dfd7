"""The matrices of the slow SDE behind a frozen preconditioner, in NumPy and from their definitions: what the page is compared with.

Everything is at one point of the manifold: J (d, k) spans its tangent space, N (d, m) the orthogonal complement, the Hessian
is N h N^T, Sigma is the covariance of one gradient, S the preconditioner, symmetric and positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A random point: dense S and Sigma, no special position of anything."""

    S: Array
    J: Array
    N: Array
    h: Array
    Sigma: Array

    @property
    def H(self) -> Array:
        """The Hessian, (d, d)."""
        return self.N @ self.h @ self.N.T

    @property
    def G(self) -> Array:
        """Metric J^T S^-1 J."""
        return self.J.T @ np.linalg.inv(self.S) @ self.J

    @property
    def K(self) -> Array:
        """N^T S N."""
        return self.N.T @ self.S @ self.N


def random_point(seed: int, d: int = 5, k: int = 2) -> Point:
    """A point with k-dimensional tangent space in R^d."""
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(d, k))
    N = np.linalg.svd(J)[0][:, k:] @ rng.normal(size=(d - k, d - k))
    S, h, Sigma = (positive(rng, n) for n in (d, d - k, d))
    return Point(S, J, N, h, Sigma)


def positive(rng: np.random.Generator, n: int) -> Array:
    """A well-conditioned positive matrix."""
    A = rng.normal(size=(n, n))
    return A @ A.T / n + 0.5 * np.eye(n)


def power(M: Array, exponent: float) -> Array:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(M)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def relative(found: Array, stated: Array) -> float:
    """Largest difference over the largest entry."""
    return float(np.max(np.abs(found - stated)) / max(np.max(np.abs(found)), np.max(np.abs(stated))))


def projection(p: Point) -> Array:
    """The matrix with range J and kernel S N, from nothing but that."""
    basis = np.hstack([p.J, p.S @ p.N])
    keep = np.diag([1.0] * p.J.shape[1] + [0.0] * p.N.shape[1])
    return np.asarray(basis @ keep @ np.linalg.inv(basis))


def fluctuation(p: Point) -> Array:
    """Sigma_diamond from the Kronecker form of its equation and of the condition J^T S^-1 X S^-1 J = 0, by least squares."""
    d, A, inverse = len(p.S), p.S @ p.H, np.linalg.inv(p.S)
    P = projection(p)
    kick = p.S @ p.Sigma @ p.S
    left = p.J.T @ inverse
    rows = np.vstack([np.kron(A, np.eye(d)) + np.kron(np.eye(d), A), np.kron(left, left)])
    right = np.concatenate([(kick - P @ kick @ P.T).ravel(), np.zeros(len(left) ** 2)])
    return np.asarray(np.linalg.lstsq(rows, right, rcond=None)[0].reshape(d, d))


# -- the flow whose limit is the projection ----------------------------------------------------------------------------


def limit_point(gradient: Callable[[Array], Array], S: Array, start: Array, horizon: float = 60.0) -> Array:
    """Where theta' = -S grad L ends."""
    done = solve_ivp(lambda _, z: -S @ gradient(z), (0, horizon), start, rtol=1e-12, atol=1e-14, method="DOP853")
    return np.asarray(done.y[:, -1])


def limit_jacobian(gradient: Callable[[Array], Array], S: Array, point: Array, step: float = 1e-3) -> Array:
    """The derivative of the limit point with respect to the start, by central differences of fourth order, (d, d)."""
    columns = []
    for direction in np.eye(len(point)):
        near, far = ([limit_point(gradient, S, point + s * direction) for s in (size, -size)] for size in (step, 2 * step))
        columns.append((8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * step))
    return np.column_stack(columns)


def limit_bend(gradient: Callable[[Array], Array], S: Array, point: Array, covariance: Array, step: float = 2e-2) -> Array:
    """Half the second derivative of the limit point, contracted with a covariance, (d,); error of fourth order in the step."""
    total = np.zeros(len(point))
    values, vectors = np.linalg.eigh(covariance)
    for value, direction in zip(values, vectors.T, strict=True):
        if value < 1e-12 * values[-1]:
            continue

        def second(size: float, along: Array = direction) -> Array:
            ends = [limit_point(gradient, S, point + s * along) for s in (size, -size)]
            return np.asarray((ends[0] + ends[1] - 2 * point) / size**2)

        total += 0.5 * value * (4 * second(step / 2) - second(step)) / 3
    return total


# -- which preconditioners have a potential ----------------------------------------------------------------------------


def asymmetry(scale: Callable[[Array], Array], M: Array, step: float = 1e-4) -> float:
    """How far the 1-form M -> S(V(M)) on symmetric matrices is from closed: |D - D^T| / |D|, D its derivative (Frobenius)."""
    basis = symmetric_basis(len(M))
    columns = [derivative(scale, M, P, step) for P in basis]
    D = np.array([[np.sum(Q * c) for c in columns] for Q in basis])
    return float(np.linalg.norm(D - D.T) / np.linalg.norm(D))


def derivative(function: Callable[[Array], Array], M: Array, along: Array, step: float = 1e-4) -> Array:
    """Derivative along a direction by central differences of fourth order."""
    near, far = (np.asarray(function(M + s * along)) - np.asarray(function(M - s * along)) for s in (step, 2 * step))
    return np.asarray((8 * near - far) / (12 * step))


def symmetric_basis(d: int) -> list[Array]:
    """An orthonormal basis of the symmetric matrices."""
    found = []
    for i in range(d):
        for j in range(i, d):
            E = np.zeros((d, d))
            E[i, j] = E[j, i] = 1.0 if i == j else np.sqrt(0.5)
            found.append(E)
    return found


def row_part(M: Array, rows: int) -> Array:
    """tr_2 M = E[G G^T] for M = E[g g^T], g the rows of a matrix G with ``rows`` rows one after the other."""
    return np.einsum("iaja->ij", M.reshape(rows, len(M) // rows, rows, len(M) // rows))


def column_part(M: Array, rows: int) -> Array:
    """tr_1 M = E[G^T G]."""
    return np.einsum("iaib->ab", M.reshape(rows, len(M) // rows, rows, len(M) // rows))


def members(rows: int, eps: float) -> dict[str, Callable[[Array], Array]]:
    """Name to M -> S(V(M)) on parameters that are a matrix with some rows."""

    def scaled(v: Array) -> Array:
        return np.diag(1 / (np.sqrt(v) + eps))

    def blocks(M: Array) -> Array:
        v = np.diag(M).reshape(rows, -1).mean(axis=1)
        return scaled(np.repeat(v, len(M) // rows))

    def shampoo(M: Array) -> Array:
        return np.kron(power(row_part(M, rows), -0.25), power(column_part(M, rows), -0.25))

    def adafactor(M: Array) -> Array:
        v = np.diag(M).reshape(rows, -1)
        outer = np.outer(v.mean(axis=1), v.mean(axis=0)) / v.mean()
        return np.diag(outer.ravel() ** -0.5)

    return {
        "Adam": lambda M: scaled(np.diag(M)),
        "AdamE": lambda M: np.diag(1 / (np.diag(M) ** 0.25 + eps)),
        "Adam-mini": blocks,
        "one block": lambda M: scaled(np.full(len(M), np.trace(M) / len(M))),
        "full matrix": lambda M: np.linalg.inv(power(M, 0.5) + eps * np.eye(len(M))),
        "one-sided Shampoo": lambda M: np.kron(power(row_part(M, rows), -0.5), np.eye(len(M) // rows)),
        "Shampoo": shampoo,
        "Adafactor": adafactor,
    }
