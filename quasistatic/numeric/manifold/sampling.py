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


def response(kernel: Array, rows: Array, gram: Array, scale: float, count: int, batch: int, sigma: float, where: str) -> Array:
    """The core A of V = W A W^T with sampled minibatches, shape (rank, rank).

    Parameters
    ----------
    kernel:
        K(lambda_i, lambda_j), (rank, rank).
    rows, gram:
        Eigenvectors L (n, rank) of J S J^T and its nonzero eigenvalues (rank,).
    scale, count, batch, sigma:
        s, n, B and the label noise.

    Raises
    ------
    UnstableError
        If the second moment of the sampled iteration does not settle.
    """
    mix = 4 * scale**2 / batch
    pair = gram[:, None] * gram
    damped = kernel / (1 + mix * kernel * pair)
    weighted = damped * pair

    def spread(w: Array) -> Array:
        """diag(K M K) of the answer to N = Diag(w), shape (n,)."""
        return np.asarray(np.sum((rows @ (weighted * (rows.T @ (w[:, None] * rows)))) * rows, axis=1))

    constant = mix * count * sigma**2
    known = spread(np.full(count, constant))
    found = _solve(spread, rows, weighted, mix * count, known)
    core = damped * (rows.T @ ((mix * count * found + constant)[:, None] * rows))
    _require_positive(core, found, where)
    root = np.sqrt(gram)
    return root[:, None] * core * root


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
