"""Onto the manifold of zero residuals by small steps: what the studies of large problems start from and measure on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import ProblemError
from quasistatic.model.array_problem import Residuals

Array = npt.NDArray[np.float64]

#: Iterations after which ``fit`` gives up.
LIMIT = 1000
#: First time step of ``descend`` in units of the fastest relaxation time, and the factor between a step and the next.
FIRST, GROWTH = 0.1, 2.0
#: Relaxation times of the slowest mode after which ``descend`` leaves the rest to Gauss-Newton.
LONG = 12.0


def fit(functions: Residuals, z: Any, tolerance: float = 1e-12) -> Array:
    """A point near z with |r_j| < tolerance: Levenberg-Marquardt, each step the smallest that fits the linearised residuals.

    Raises
    ------
    ProblemError
        Where it gets stuck, with the residual that it reached.
    """
    z = np.asarray(z, dtype=np.float64).copy()
    r, damping, identity = functions.residuals(z), 1.0, np.eye(functions.count)
    for _ in range(LIMIT):
        if np.abs(r).max() < tolerance:
            return np.asarray(z)
        J = functions.jacobian(z)
        trial = z - J.T @ np.linalg.lstsq(J @ J.T + damping * identity, r, rcond=None)[0]
        left = functions.residuals(trial)
        if left @ left < r @ r:
            z, r, damping = trial, left, max(damping / 5, 1e-15)
        else:
            damping *= 4
        if damping > 1e20:
            break
    raise ProblemError(f"no zero of the residuals near the start: the largest residual is still {np.abs(r).max():.3g}.")


def project(functions: Residuals, z: Any, steps: int = 4) -> Array:
    """``steps`` Gauss-Newton steps of smallest norm from every point of z (..., d)."""
    points = np.array(z, dtype=np.float64)
    flat = points.reshape(-1, points.shape[-1])
    for i, here in enumerate(flat):
        for _ in range(steps):
            J = functions.jacobian(here)
            here = here - J.T @ np.linalg.solve(J @ J.T, functions.residuals(here))
        flat[i] = here
    return points


def descend(functions: Residuals, z: Any) -> Array:
    """Where gradient flow takes every point of z (..., d): the limit map of small steps.

    It differs from the nearest zero of the residuals by the square of the distance, which is large along flat directions.
    Each step solves the flow exactly for a constant Jacobian, taken at its middle; the steps grow with the time that
    has passed, so that some twenty of them cover modes of any stiffness.
    """
    points = np.array(z, dtype=np.float64)
    flat = points.reshape(-1, points.shape[-1])
    for i, here in enumerate(flat):
        time, step, end = 0.0, 0.0, np.inf
        while time < end:
            if step == 0:
                rates = np.linalg.eigvalsh(_gram(functions.jacobian(here)))
                step, end = FIRST / rates[-1], LONG / rates[0]
            r = functions.residuals(here)
            middle = here - _decay(functions.jacobian(here), r, step / 2)
            here = here - _decay(functions.jacobian(middle), r, step)
            time, step = time + step, GROWTH * step
        flat[i] = here
    return project(functions, points, 2)


def _gram(J: Array) -> Array:
    return np.asarray(J @ J.T)


def _decay(J: Array, r: Array, time: float) -> Array:
    """J^T (1 - exp(-K time)) K^-1 r, the change of z while the residuals r decay with the rates K = J J^T."""
    rates, vectors = np.linalg.eigh(_gram(J))
    return np.asarray(J.T @ (vectors @ (-np.expm1(-rates * time) / rates * (vectors.T @ r))))
