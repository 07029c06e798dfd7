"""Residuals linear in U W^T: matrix factorisation (all entries) and matrix sensing (any linear measurements)."""

from __future__ import annotations

from typing import Any

import numpy as np

from quasistatic.errors import ProblemError
from quasistatic.model.machine import Machine
from quasistatic.zoo.residuals.base import Array, ResidualModel, finite_array


def factor_forward(z: Any, rows: Any, r: Any, work: Any, target: Any, p: int) -> None:
    """Entries of U W^T - M; the residual of (a, b) has the number a*n + b."""
    m, n = target.shape
    for k in range(rows.shape[0]):
        a = rows[k] // n
        b = rows[k] - a * n
        total = -target[a, b]
        u = a * p
        w = m * p + b * p
        for c in range(p):
            total += z[u + c] * z[w + c]
        r[k] = total


def factor_pullback(z: Any, rows: Any, c: Any, g: Any, work: Any, target: Any, p: int) -> None:
    """Adds c_ab (dU_a += W_b, dW_b += U_a)."""
    m, n = target.shape
    for k in range(rows.shape[0]):
        a = rows[k] // n
        b = rows[k] - a * n
        u = a * p
        w = m * p + b * p
        for j in range(p):
            g[u + j] += c[k] * z[w + j]
            g[w + j] += c[k] * z[u + j]


class Factorization(ResidualModel):
    """r_(ab) = (U W^T - M)_ab, row-major; U (m, p), W (n, p)."""

    def __init__(self, target: Any, p: int) -> None:
        self.target = finite_array(target, "target", 2)
        m, n = self.target.shape
        self.p = p
        super().__init__({"U": (m, p), "W": (n, p)}, m * n)

    @property
    def machine(self) -> Machine:
        return Machine(factor_forward, factor_pullback, (self.target, self.p))

    def initial(self, seed: int = 0) -> Array:
        """A point on the manifold if p >= min(m, n): the balanced factors of M, turned by random noise; else Gaussian.

        U = A, W = (pseudo-inverse of A) M for a random A of full row rank where p >= m, and the other way round.
        """
        rng = np.random.default_rng(seed)
        m, n = self.target.shape
        size = np.sqrt(max(np.linalg.norm(self.target), 1.0) / np.sqrt(self.count))
        U, W = rng.normal(0, size, (m, self.p)) / np.sqrt(self.p), rng.normal(0, size, (n, self.p)) / np.sqrt(self.p)
        if self.p >= m:
            W = (np.linalg.pinv(U) @ self.target).T
        elif self.p >= n:
            U = self.target @ np.linalg.pinv(W.T)
        return self.pack(U=U, W=W)

    def residuals(self, z: Array) -> Array:
        """(m*n,)"""
        a = self.unpack(z)
        return np.asarray(a["U"] @ a["W"].T - self.target).reshape(-1)

    def jacobian(self, z: Array) -> Array:
        """(m*n, (m+n)*p)"""
        a = self.unpack(z)
        m, n = self.target.shape
        JU, JW = np.zeros((m, n, m, self.p)), np.zeros((m, n, n, self.p))
        for i in range(m):
            JU[i, :, i] = a["W"]
        for j in range(n):
            JW[:, j, j] = a["U"]
        return np.concatenate([JU.reshape(self.count, -1), JW.reshape(self.count, -1)], axis=1)

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, (m*n,)"""
        a, b = self.unpack(z), self.unpack(w)
        return np.asarray(b["U"] @ a["W"].T + a["U"] @ b["W"].T).reshape(-1)

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, (d,)"""
        a, C = self.unpack(z), np.reshape(c, self.target.shape)
        return np.concatenate([(C @ a["W"]).reshape(-1), (C.T @ a["U"]).reshape(-1)])

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """The second derivative is constant: d^2(U W^T)[X] = dU W^T + U dW^T in the other factor."""
        weights, vectors = self.pairs(c, w)
        C, b = weights.reshape(-1, *self.target.shape), self.unpack(vectors)
        left = np.tensordot(C, b["W"], axes=((0, 2), (0, 1)))
        right = np.tensordot(C, b["U"], axes=((0, 1), (0, 1)))
        return np.concatenate([left.reshape(-1), right.reshape(-1)])


def sensing_forward(z: Any, rows: Any, r: Any, work: Any, operators: Any, targets: Any, p: int) -> None:
    """<A_i, U W^T> - y_i; the working memory keeps A_i W (m, p) of every row."""
    m, n = operators.shape[1], operators.shape[2]
    for k in range(rows.shape[0]):
        i = rows[k]
        at = k * m * p
        total = -targets[i]
        for a in range(m):
            for c in range(p):
                work[at + a * p + c] = 0.0
            for b in range(n):
                weight = operators[i, a, b]
                for c in range(p):
                    work[at + a * p + c] += weight * z[m * p + b * p + c]
            for c in range(p):
                total += z[a * p + c] * work[at + a * p + c]
        r[k] = total


def sensing_pullback(z: Any, rows: Any, c: Any, g: Any, work: Any, operators: Any, targets: Any, p: int) -> None:
    """Adds c_i (dU += A_i W, dW += A_i^T U)."""
    m, n = operators.shape[1], operators.shape[2]
    for k in range(rows.shape[0]):
        i = rows[k]
        at = k * m * p
        for j in range(m * p):
            g[j] += c[k] * work[at + j]
        for a in range(m):
            for b in range(n):
                weight = c[k] * operators[i, a, b]
                for j in range(p):
                    g[m * p + b * p + j] += weight * z[a * p + j]


class Sensing(ResidualModel):
    """r_i = <A_i, U W^T> - y_i; operators (N, m, n), targets (N,), U (m, p), W (n, p)."""

    def __init__(self, operators: Any, targets: Any, p: int) -> None:
        self.operators = finite_array(operators, "operators", 3)
        self.targets = finite_array(targets, "targets", 1)
        N, m, n = self.operators.shape
        if len(self.targets) != N:
            raise ProblemError(f"there are {N} operators and {len(self.targets)} targets; every operator needs one.")
        self.p = p
        super().__init__({"U": (m, p), "W": (n, p)}, N)

    @property
    def machine(self) -> Machine:
        return Machine(sensing_forward, sensing_pullback, (self.operators, self.targets, self.p), work=self.operators.shape[1] * self.p)

    def initial(self, seed: int = 0, size: float = 0.5) -> Array:
        """Gaussian entries of standard deviation ``size``."""
        return np.random.default_rng(seed).normal(0, size, self.size)

    def residuals(self, z: Array) -> Array:
        """(N,)"""
        a = self.unpack(z)
        return np.asarray(np.tensordot(self.operators, a["U"] @ a["W"].T, axes=2) - self.targets)

    def jacobian(self, z: Array) -> Array:
        """(N, (m+n)*p)"""
        a = self.unpack(z)
        JU = self.operators @ a["W"]
        JW = self.operators.transpose(0, 2, 1) @ a["U"]
        return np.concatenate([JU.reshape(self.count, -1), JW.reshape(self.count, -1)], axis=1)

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, (N,)"""
        a, b = self.unpack(z), self.unpack(w)
        return np.asarray(np.tensordot(self.operators, b["U"] @ a["W"].T + a["U"] @ b["W"].T, axes=2))

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, (d,)"""
        a, C = self.unpack(z), np.tensordot(c, self.operators, axes=1)
        return np.concatenate([(C @ a["W"]).reshape(-1), (C.T @ a["U"]).reshape(-1)])

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """Constant in z, as for the factorisation."""
        weights, vectors = self.pairs(c, w)
        C, b = np.tensordot(weights, self.operators, axes=1), self.unpack(vectors)
        left = np.tensordot(C, b["W"], axes=((0, 2), (0, 1)))
        right = np.tensordot(C, b["U"], axes=((0, 1), (0, 1)))
        return np.concatenate([left.reshape(-1), right.reshape(-1)])
