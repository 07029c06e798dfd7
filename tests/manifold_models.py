"""Small models for tests of flows on manifolds without a chart, in plain NumPy; nothing of the library's zoo is used."""

from __future__ import annotations

import itertools

import numpy as np

import quasistatic as qs


class Factorization:
    """r = U W^T - M as array functions; z = (U, W), row-major."""

    def __init__(self, m: int, n: int, p: int, target: np.ndarray) -> None:
        self.m, self.n, self.p, self.target = m, n, p, np.asarray(target, dtype=float)
        self.shapes = {"U": (m, p), "W": (n, p)}
        self.size, self.count = (m + n) * p, m * n

    def split(self, z):
        k = self.m * self.p
        return z[..., :k].reshape(*z.shape[:-1], self.m, self.p), z[..., k:].reshape(*z.shape[:-1], self.n, self.p)

    def residuals(self, z):
        U, W = self.split(z)
        return (U @ W.T - self.target).ravel()

    def jacobian(self, z):
        U, W = self.split(z)
        left = np.einsum("ai,bc->abic", np.eye(self.m), W).reshape(self.count, -1)
        right = np.einsum("bi,ac->abic", np.eye(self.n), U).reshape(self.count, -1)
        return np.hstack([left, right])

    def jvp(self, z, w):
        U, W = self.split(z)
        dU, dW = self.split(w)
        return (dU @ W.T + U @ dW.T).ravel()

    def vjp(self, z, c):
        U, W = self.split(z)
        C = c.reshape(self.m, self.n)
        return np.concatenate([(C @ W).ravel(), (C.T @ U).ravel()])

    def hvp(self, z, c, w):
        C = c.reshape(-1, self.m, self.n)
        dU, dW = self.split(np.atleast_2d(w))
        return np.concatenate([np.einsum("kab,kbp->ap", C, dW).ravel(), np.einsum("kab,kap->bp", C, dU).ravel()])


class Diagonal:
    """r_i = sum_j x_ij (u_j^2 - v_j^2) - y_i; z = (u, v)."""

    def __init__(self, X: np.ndarray, y: np.ndarray) -> None:
        self.X, self.y = X, y
        self.count, k = X.shape
        self.shapes = {"u": (k,), "v": (k,)}
        self.size = 2 * k
        self._sign = np.concatenate([np.ones(k), -np.ones(k)])
        self._X2 = np.hstack([X, X])

    def residuals(self, z):
        return self._X2 @ (self._sign * z**2) - self.y

    def jacobian(self, z):
        return 2 * self._X2 * (self._sign * z)

    def jvp(self, z, w):
        return self.jacobian(z) @ w

    def vjp(self, z, c):
        return c @ self.jacobian(z)

    def hvp(self, z, c, w):
        return np.sum(2 * (np.atleast_2d(c) @ self._X2) * self._sign * np.atleast_2d(w), axis=0)


def factorization(m=2, n=3, p=2, seed=0, **options) -> tuple[qs.ArrayProblem, np.ndarray]:
    """A factorization problem and a point of its manifold."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((m + n) * p)
    U, W = z[: m * p].reshape(m, p), z[m * p :].reshape(n, p)
    return qs.ArrayProblem(Factorization(m, n, p, U @ W.T), **options), z


def loss_third(functions, z, V, scale, h=1e-3):
    """grad of <Hessian, V> by central differences of the Gauss-Newton and residual parts of the Hessian, written out."""

    def inner(at):
        J, r = functions.jacobian(at), functions.residuals(at)
        second = np.stack([functions.hvp(at, r, e) for e in np.eye(len(at))])
        return 2 * scale * np.sum((J.T @ J + second) * V)

    found = np.zeros(len(z))
    for i, e in enumerate(np.eye(len(z))):
        one, two = ((inner(z + s * e) - inner(z - s * e)) / (2 * s) for s in (h, h / 2))
        found[i] = (4 * two - one) / 3
    return found


def sampled_covariance(J, A, b, scale, batch, sigma):
    """Parameter block of the stationary covariance by brute force: every minibatch enumerated, one Kronecker solve.

    s' = A s + b G_batch z per coordinate, plus the label noise of the batch; J (n, d) with full row rank.
    """
    n = len(J)
    q = len(b)
    basis = np.linalg.svd(J, full_matrices=False)[2]  # the normal directions
    rows = J @ basis.T
    average, noise = 0.0, 0.0
    for drawn in itertools.product(range(n), repeat=batch):
        weight = n**-batch
        G = 2 * scale * n / batch * sum(np.outer(rows[i], rows[i]) for i in drawn)
        step = np.kron(A, np.eye(n)) + np.kron(np.outer(b, np.eye(q)[0]), G)
        average = average + weight * np.kron(step, step)
        kick = [np.kron(b, 2 * scale * n / batch * sigma * rows[i]) for i in drawn]
        noise = noise + weight * sum(np.outer(x, x) for x in kick)
    V = np.linalg.solve(np.eye((q * n) ** 2) - average, noise.ravel()).reshape(q * n, q * n)[:n, :n]
    return basis.T @ V @ basis
