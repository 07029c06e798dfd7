"""Minibatches drawn with replacement: the Jacobian of one step is random too, and enters its own equilibrium (theory, section 2).

One gradient is (2 s n/B) sum over the batch of (r_i + sigma xi_i) grad r_i. On the manifold V = J^T M J, and in every
direction pair the filter's kernel K answers to the noise J^T N J with

    N = (4 s^2/B) (n Diag(KMK) - KMK + n sigma^2 I),   here K = J S J^T (n, n).

For the plain gradient step with rate eta, a = 2 s n eta, this is  KM + MK - a ((1/B) Diag(KMK) + (1-1/B) KMK/n) = (a sigma^2/B) I.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from quasistatic.errors import UnstableError
from quasistatic.numeric.arguments import Array

#: Up to this many residuals the unknown diagonal is solved for densely (n^4 operations), beyond by GMRES (n^3 each).
DENSE = 160
#: Largest relative residual of the equation that a solution may leave.
RESIDUAL = 1e-10


def response(kernel: Array, source: Array, rows: Array, gram: Array, scale: float, batch: int, where: str) -> Array:
    """The core A of V = W A W^T with sampled minibatches, shape (rank, rank).

    Parameters
    ----------
    kernel:
        K(lambda_i, lambda_j), (rank, rank).
    source:
        W^T Sigma W of the additive noise, label noise included, (rank, rank).
    rows, gram:
        Eigenvectors L (n, rank) of J S J^T and its nonzero eigenvalues (rank,).
    scale, batch:
        s, B.

    Raises
    ------
    UnstableError
        If the second moment of the sampled iteration does not settle.
    """
    count = len(rows)
    mix = 4 * scale**2 / batch
    root = np.sqrt(gram)
    pair = gram[:, None] * gram
    given = source / (root[:, None] * root)
    damped = kernel / (1 + mix * kernel * pair)
    weighted = damped * pair

    def diagonal(noise: Array) -> Array:
        """diag(K M K) of the answer to L^T N L, shape (n,)."""
        return np.asarray(np.sum((rows @ (weighted * noise)) * rows, axis=1))

    def spread(w: Array) -> Array:
        """The same for N = Diag(w)."""
        return diagonal(rows.T @ (w[:, None] * rows))

    found = _solve(spread, rows, weighted, mix * count, diagonal(given))
    core = damped * (given + mix * count * (rows.T @ (found[:, None] * rows)))
    _require_positive(core, found, where)
    return np.asarray(root[:, None] * core * root)


def _solve(spread: Callable[[Array], Array], rows: Array, weighted: Array, strength: float, known: Array) -> Array:
    """w with w = known + strength * spread(w)."""
    n = len(known)
    if n <= DENSE:
        products = (rows[:, :, None] * rows[:, None, :]).reshape(n, -1)
        matrix = np.eye(n) - strength * (products * weighted.reshape(-1)) @ products.T
        found: Array = np.linalg.solve(matrix, known).astype(np.float64)
    else:
        operator = LinearOperator((n, n), matvec=lambda w: w - strength * spread(w), dtype=np.float64)
        solution, _ = gmres(operator, known, rtol=RESIDUAL / 10, atol=0.0, restart=60, maxiter=20)
        found = np.asarray(solution, dtype=np.float64)
    left = found - known - strength * spread(found)
    if np.linalg.norm(left) > RESIDUAL * max(np.linalg.norm(found), np.linalg.norm(known)):
        raise UnstableError("the sampling equation has no solution to ten digits: the batch is at the edge of its stability.")
    return found


def _require_positive(core: Array, diagonal: Array, where: str) -> None:
    """The answer of a stable iteration is a covariance; beyond the edge the linear equation still has a solution, which is not."""
    if diagonal.min() >= 0 and np.linalg.eigvalsh(core)[0] >= -1e-9 * np.abs(np.diag(core)).max():
        return
    raise UnstableError(
        f"unstable at {where}: with minibatches of this size the variance of one step grows (sampling a residual with a large gradient"
        " overshoots): take a smaller learning rate or a larger batch."
    )
