"""The reduction at a point: the three terms of the drift, the diffusion and the equilibrium covariance, in numbers.

For a linear filter the flatness and correlation terms are -(gain/2) P d3f[V], V_ij = K(lambda_i, lambda_j) Sigma_ij for
all pairs but tangent-tangent; P projects along S times the normal space (theory, sections 2, 3.1 and 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.numeric.manifold.noise import Blocks, NoiseModel
from quasistatic.numeric.manifold.sampling import response
from quasistatic.numeric.manifold.shape import Local

#: Second moments below this part of the largest are what rounding leaves of zero.
SILENT = 1e-24


@dataclass(frozen=True)
class ManifoldTerms:
    """The parts of the drift at a point, each (d,) per iteration; their sum is the drift.

    Attributes
    ----------
    flatness:
        The pull towards flat minima.
    correlation:
        Correlation of tangent and normal noise.
    ito:
        What keeps a diffusing point on the curved manifold; across it.
    force:
        Weight decay and other small forces.
    """

    flatness: Array
    correlation: Array
    ito: Array
    force: Array

    @property
    def total(self) -> Array:
        """The drift."""
        return self.flatness + self.correlation + self.ito + self.force


@dataclass(frozen=True, eq=False)
class LowRank:
    """A symmetric matrix left core left^T + rest rest^T: ``left`` (d, r), ``core`` (r, r), ``rest`` (d, m) or None."""

    left: Array
    core: Array
    rest: Array | None = None

    def dense(self) -> Array:
        """The matrix, (d, d)."""
        found = self.left @ self.core @ self.left.T
        return found if self.rest is None else found + self.rest @ self.rest.T

    def diagonal(self) -> Array:
        """Its diagonal, (d,)."""
        found: Array = np.sum((self.left @ self.core) * self.left, axis=1)
        return found if self.rest is None else np.asarray(found + np.sum(self.rest**2, axis=1))


@dataclass(frozen=True, eq=False)
class PointReduction:
    """A filter on a loss at one point of its manifold.

    Attributes
    ----------
    filter, local, noise, z:
        The rule, the loss there, the noise, the point (d,).
    root:
        Diagonal of S^(1/2), ones without a preconditioner.
    displacement:
        What one averaged step adds to the point on account of small forces, (d,), or None.
    scale:
        The loss's factor of the sum of squares; used by sampled minibatches.
    """

    filter: LinearFilter
    local: Local
    noise: NoiseModel
    z: Array
    root: Array
    displacement: Array | None
    scale: float

    @cached_property
    def blocks(self) -> Blocks:
        """The noise along and across the manifold."""
        return self.noise.blocks(self.local, self.z, self.root)

    @cached_property
    def core(self) -> Array:
        """A of the normal part V = W A W^T of the covariance: (rank,) where it is diagonal, else (rank, rank)."""
        c, S = self.local.curvature, self.blocks.normal
        if self.noise.batch is not None and self.filter.order.symbol is None:  # sampling enters at the next order
            rows = self.local.residual_rows
            assert rows is not None
            source = np.diag(S) if S.ndim == 1 else S
            return response(self.filter.kernel(c[:, None], c), source, rows, c / (2 * self.scale), self.scale, self.noise.batch, self.where)
        return self.filter.kernel(c, c) * S if S.ndim == 1 else self.filter.kernel(c[:, None], c) * S

    @property
    def where(self) -> str:
        """The point in a message."""
        shown = ", ".join(f"{x:.4g}" for x in self.z[:6])
        return f"z = ({shown}{', ...' if len(self.z) > 6 else ''})"

    def along(self, vector: Array) -> Array:
        """A vector of the coordinates S^(-1/2) z projected on the manifold, back in those of z."""
        W = self.local.normals
        return self.root * (vector - W @ (W.T @ vector))

    def _cross(self, which: str) -> Array | None:
        if self.blocks.cross is None:
            return None
        ratio = self.filter.kernel if which == "total" else self.filter.crossed
        return self.blocks.cross * ratio(0.0, self.local.curvature)

    def drift(self) -> Array:
        """The tangential part of the drift, (d,)."""
        half = -self.filter.gain / 2
        return self.along(half * self.local.third(self.core, self._cross("total"))) + self.force()

    def terms(self) -> ManifoldTerms:
        """The parts of the drift."""
        half, zero = -self.filter.gain / 2, np.zeros(len(self.z))
        total, fast = self._cross("total"), self._cross("fast")
        flatness = self.along(half * self.local.third(self.core, fast))
        correlation = zero
        if total is not None and fast is not None:
            correlation = self.along(half * self.local.third(np.zeros(len(self.local.curvature)), total - fast))
        return ManifoldTerms(flatness, correlation, self.ito(), self.force())

    def ito(self) -> Array:
        """The normal part of the drift, (d,): half the curvature of the manifold along the diffusion."""
        if self.blocks.tangent is None:
            return np.zeros(len(self.z))
        return self.filter.gain**2 / 2 * self.root * self.local.bend(self.blocks.tangent)

    def force(self) -> Array:
        """P (F(s) - s) on the manifold."""
        if self.displacement is not None:
            return self.along(self.displacement / self.root)
        return np.zeros(len(self.z))

    def kick(self) -> Array | None:
        """F (d, m) with F F^T the diffusion; None where nothing diffuses."""
        tangent = self.blocks.tangent
        return None if tangent is None else self.filter.gain * self.root[:, None] * tangent

    def covariance(self) -> LowRank:
        """Equilibrium covariance of the parameter's fast part."""
        W = self.root[:, None] * self.local.normals
        core = np.diag(self.core) if self.core.ndim == 1 else self.core
        fast = self._cross("fast")
        rest = None
        if self.blocks.tangent is not None and self.filter.tangent > 0:
            rest = np.sqrt(self.filter.tangent) * self.root[:, None] * self.blocks.tangent
        if fast is None or not np.any(fast):
            return LowRank(W, core, rest)
        r = len(core)
        both = np.hstack([W, self.root[:, None] * fast])
        eye, none = np.eye(r), np.zeros((r, r))
        return LowRank(both, np.block([[core, eye], [eye, none]]), rest)

    def equilibrium(self, count: int, stream: np.random.Generator, powers: Sequence[int] | None = None) -> Array:
        """States (count, 1 + q, d) at rest on the point with their part across the manifold drawn from its equilibrium.

        ``powers`` says which states carry the preconditioner, see :class:`Preconditioned`.
        """
        A, b, fixed = self.filter.iteration
        c, n = self.local.curvature, len(b)
        core = np.diag(self.core) if self.core.ndim == 1 else self.core
        source = core / self.filter.kernel(c[:, None], c)
        step = np.repeat(A[None], len(c), axis=0)
        step[:, :, 0] += c[:, None] * b
        pairs = np.einsum("iab,jcd->ijacbd", step, step).reshape(len(c), len(c), n * n, n * n)
        X = np.linalg.solve(np.eye(n * n) - pairs, np.broadcast_to(np.kron(b, b)[:, None], (len(c), len(c), n * n, 1)))
        joint = (X.reshape(len(c), len(c), n, n) * source[:, :, None, None]).transpose(2, 0, 3, 1).reshape(n * len(c), -1)
        weights, vectors = np.linalg.eigh((joint + joint.T) / 2)
        normals = stream.standard_normal((count, len(weights)))
        fast = (normals @ (vectors * np.sqrt(np.clip(weights, 0, None))).T).reshape(count, n, len(c))
        units = np.ones(n) if powers is None else 2.0 * np.asarray(powers) - 1
        return np.asarray(fixed[:, None] * self.z + (fast @ self.local.normals.T) * self.root ** units[:, None])

    def second_moments(self, diagonal: Array) -> Array:
        """E[g_i^2] = Sigma_ii + (H V H)_ii, (d,), from Sigma_ii; with minibatches also what sampling the residuals adds.

        Where neither reaches a coordinate, the fluctuation's own gradient of the next order is all there is (theory, section 1).
        """
        c = self.local.curvature
        core = np.diag(self.core) if self.core.ndim == 1 else self.core
        inside = c[:, None] * core * c
        if self.noise.batch is not None and self.filter.order.symbol is None:
            S = self.blocks.normal
            inside = inside + core / self.filter.kernel(c[:, None], c) - (np.diag(S) if S.ndim == 1 else S)
        W = self.local.normals / self.root[:, None]
        found = np.asarray(diagonal + np.sum((W @ inside) * W, axis=1))
        silent = np.flatnonzero(found <= SILENT * found.max())
        if silent.size:
            V = self.covariance()
            found[silent] = [self.local.slice_moment(int(i), V.left, V.core) for i in silent]
        return found
