"""From an iterate to its point on the manifold: Gauss-Newton, or the limit of the rule without noise."""

from __future__ import annotations

import numpy as np

from quasistatic.errors import StartError, UnstableError
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.numeric.manifold.shape import Shape

#: Gauss-Newton steps, and halvings of one of them.
NEWTON_STEPS = 60
HALVINGS = 12
#: A point is on the manifold when a step moves it by less than this part of its size.
ON_MANIFOLD = 1e-13
#: Residuals that may be left where rounding ends Gauss-Newton, relative to those of a displacement as large as the point.
LEFT = 1e-9


def newton(shape: Shape, z: Array, root: Array, rank: int | None = None) -> Array:
    """The manifold point near z, by damped Gauss-Newton in the metric S^-1.

    Raises
    ------
    StartError
        If there is no point of zero residual near z, with the residual that was reached.
    """
    step, residual = shape.descent(z, root, rank)
    first = residual
    for _ in range(NEWTON_STEPS):
        if not np.isfinite(residual) or not np.isfinite(step).all():
            raise StartError("no point of zero residual near the start: the residuals there are not finite.")
        if np.linalg.norm(step) <= ON_MANIFOLD * (1 + np.linalg.norm(z)):
            break
        moved = _shorter(shape, z, step, root, rank, residual)
        if moved is None:
            break
        z, step, residual = moved
    if np.linalg.norm(step) > LEFT * (1 + np.linalg.norm(z)) or residual > LEFT * (1 + first):
        raise StartError(
            f"no point of zero residual near the start: Gauss-Newton stops at a residual of norm {residual:.4g} (from {first:.4g})."
            " The target may not be reachable (a rank above the model's, contradictory data), or the start is too far away."
        )
    return z


def _shorter(shape: Shape, z: Array, step: Array, root: Array, rank: int | None, residual: float) -> tuple[Array, Array, float] | None:
    """The first of step, step/2, ... that lessens the residual, with the next step; None where rounding or a minimum ends the descent."""
    part = 1.0
    for _ in range(HALVINGS):
        there = z + part * step
        with np.errstate(all="ignore"):
            following, left = shape.descent(there, root, rank)
        if left < residual:
            return there, following, left
        part /= 2
    return None


def limit(
    shape: Shape, z: Array, rule: LinearFilter, root: Array, tolerance: float = 1e-7, iterations: int = 1_000_000, rank: int | None = None
) -> Array:
    """Where the rule without noise takes z with its memories at rest, by iterating it; Gauss-Newton does the last bit.

    ``tolerance`` is the part of the distance from the manifold that is left to Gauss-Newton.
    """
    A, b, fixed = rule.iteration
    S = root**2
    states = fixed[:, None] * z
    _, first = shape.descent(z, root, rank)
    memory = len(fixed) > 1
    for k in range(iterations):
        gradient = S * shape.gradient(states[0])
        change = A @ states + b[:, None] * gradient - states
        states = states + change
        if not np.isfinite(states).all():
            raise UnstableError("the noiseless rule diverges: the point is outside the basin of the minima, or eta is too large.")
        if k % 16 == 15 or not memory:
            _, left = shape.descent(states[0], root, rank)
            # the memories too must have come to rest: they may be carrying the point through the manifold
            if left <= tolerance * first and np.abs(change).max() <= tolerance * (np.abs(z - states[0]).max() + ON_MANIFOLD):
                return newton(shape, states[0], root, rank)
            if left <= ON_MANIFOLD and np.abs(change).max() <= ON_MANIFOLD:
                return newton(shape, states[0], root, rank)
    raise UnstableError(f"the noiseless rule is not at rest after {iterations} iterations.")
