"""An independent reference for the slow drift: finite differences of the limit map, in plain NumPy.

Nothing of the library's algebra is used. Gradient noise of covariance Sigma kicks the state by B xi; the slow variable
Phi is where the noiseless iteration ends; its mean change per iteration is 1/2 sum_ab (B Sigma B^T)_ab d2 Phi/ds_a ds_b.
The limit map is evaluated by brute force; second differences are Richardson-extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def limit(step: Callable[[np.ndarray], np.ndarray], states: np.ndarray, iterations: int = 40_000) -> np.ndarray:
    """Rows of ``states`` iterated until 64 further iterations change nothing but the last digit."""
    before = states
    for k in range(iterations):
        states = step(states)
        if k % 64 == 63:
            if np.max(np.abs(states - before)) < 1e-18:
                return states
            before = states
    return states


def slow_drift(
    step: Callable[[np.ndarray], np.ndarray],
    rest: np.ndarray,
    B: np.ndarray,
    sigma: np.ndarray,
    chart: Callable[[np.ndarray], np.ndarray],
    e: float = 1e-2,
) -> np.ndarray:
    """E[d chart(Phi)] per iteration at the resting state ``rest`` (n,); ``chart`` maps rows of states to (rows, k)."""
    weights, vectors = np.linalg.eigh(np.asarray(B @ sigma @ B.T, dtype=float))
    keep = weights > 1e-13 * weights.max()
    directions, weights = vectors[:, keep].T, weights[keep]
    sizes = (e, e / 2, e / 4)
    # 80-bit numbers: rounding along the manifold never heals, and the second difference divides it by h^2
    rest = rest.astype(np.longdouble)
    points = np.concatenate([rest + sign * h * directions for h in sizes for sign in (1, -1)])
    values = chart(limit(step, points)).reshape(len(sizes), 2, len(directions), -1)
    centre = chart(limit(step, rest[None]))[0]
    second = [(values[i, 0] - 2 * centre + values[i, 1]) / h**2 for i, h in enumerate(sizes)]
    once = [(4 * second[i + 1] - second[i]) / 3 for i in range(2)]
    best = (16 * once[1] - once[0]) / 15
    return np.asarray(0.5 * np.einsum("a,ak->k", weights, best), dtype=float)


def linear_step(A: np.ndarray, b: np.ndarray, gradient: Callable[[np.ndarray], np.ndarray], d: int) -> Callable[[np.ndarray], np.ndarray]:
    """One noiseless iteration s' = A s + b g(z) per coordinate, for rows of flat states (z, state 1, state 2, ...)."""
    q = A.shape[0]

    def step(states: np.ndarray) -> np.ndarray:
        s = states.reshape(-1, q, d)
        return (np.einsum("ab,nbi->nai", A, s) + b[None, :, None] * gradient(s[:, 0])[:, None, :]).reshape(states.shape)

    return step


def curved_gradient(z: np.ndarray) -> np.ndarray:
    """Gradient of ((1+x^2)(y-x^2)^2 + (2+x)(w-xy/2)^2)/2, written by hand; rows are (x, y, w)."""
    x, y, w = z.T
    r, s = y - x**2, w - x * y / 2
    p, q = 1 + x**2, 2 + x
    return np.stack([x * r**2 - 2 * x * p * r + s**2 / 2 - q * s * y / 2, p * r - q * s * x / 2, q * s], axis=1)
