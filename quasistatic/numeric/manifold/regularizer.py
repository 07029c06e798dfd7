"""Trace functions of the Hessian: tr rho(H), rho' = gain * strength * lambda K(lambda, lambda) / 2 (theory, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.integrate import quad

from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter

#: Nodes of the Gauss rule that all curvatures share; where half of them disagree, near the edge of stability, quad decides.
NODES = 48
AGREE = 1e-12


def trace_function(filter_: LinearFilter, curvature: Array, strength: float, hessian: bool) -> float:
    """sum of rho over curvatures (r,): from rho(0) = 0 for Hessian noise, from rho(1) = 0 for isotropic noise."""

    def slope(x: Array) -> Array:
        """rho' for Hessian noise as a function of lambda; for isotropic noise lambda rho' as a function of log(lambda)."""
        at = x if hessian else np.exp(x)
        return np.asarray(filter_.gain * strength / 2 * at * filter_.kernel(at, at))

    ends = curvature if hessian else np.log(curvature)
    fine, coarse = (_gauss(slope, ends, n) for n in (NODES, NODES // 2))
    for i in np.flatnonzero(np.abs(fine - coarse) > AGREE * np.abs(fine).max()):
        fine[i] = quad(lambda t: float(slope(np.array(t))), 0.0, float(ends[i]), epsabs=0, epsrel=1e-12, limit=200)[0]
    return float(fine.sum())


def _gauss(slope: Callable[[Array], Array], ends: Array, nodes: int) -> Array:
    x, w = leggauss(nodes)
    points = ends[:, None] * (x + 1) / 2
    return np.asarray(ends / 2 * (slope(points) @ w))
