"""The shape of a loss at a point: curvatures and normal directions, the third derivative, one step back to the manifold.

With a diagonal preconditioner S everything is in the coordinates S^(-1/2) z (theory, section 3.2); ``root`` is the
diagonal of S^(1/2), all ones without one. There V = W A W^T + B W^T + W B^T, W the normal directions, B tangent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quasistatic.model.array_problem import Residuals
from quasistatic.numeric.arguments import Array

#: Singular values below this part of the largest count as zero: redundant residuals, or a degenerate point.
RANK = 1e-9
#: Jacobians with more entries are factored through their Gram matrix, which is several times cheaper ...
LARGE = 20_000
#: ... where its smallest eigenvalue is above this part of the largest: it is then exact to eleven digits.
WELL_CONDITIONED = 1e-5


class Local(Protocol):
    """The loss at one point."""

    @property
    def curvature(self) -> Array:
        """Nonzero eigenvalues of the Hessian, shape (rank,)."""
        ...

    @property
    def normals(self) -> Array:
        """Their orthonormal eigenvectors W, shape (d, rank)."""
        ...

    @property
    def residual_rows(self) -> Array | None:
        """L (n, rank) with J = L diag(s) W^T; None where there are no residuals."""
        ...

    def third(self, core: Array, cross: Array | None) -> Array:
        """The third derivative on V, up to normal directions; ``core`` A is (rank,), a diagonal, or (rank, rank), B (d, rank)."""
        ...

    def bend(self, factor: Array) -> Array:
        """The normal displacement -H^+ d3f[D] of a kick of covariance D = factor factor^T along the manifold, shape (d,)."""
        ...

    def slice_moment(self, i: int, left: Array, core: Array) -> float:
        """[(tr T V)^2 + 2 tr(T V T V)]/4 with T = d_i Hessian and V = left core left^T, all in the coordinates z."""
        ...


class Shape(Protocol):
    """A loss and its manifold."""

    @property
    def size(self) -> int:
        """d."""
        ...

    def local(self, z: Array, root: Array) -> Local:
        """The loss at a point."""
        ...

    def descent(self, z: Array, root: Array, rank: int | None) -> tuple[Array, float]:
        """A step (d,) towards the manifold and the distance from it, as the norm of the residuals (or of the gradient)."""
        ...

    def gradient(self, z: Array) -> Array:
        """Gradient of the loss, shape (d,)."""
        ...

    def diagonal(self, z: Array) -> Array:
        """Diagonal of the loss's Hessian on the manifold, shape (d,)."""
        ...


def rank_of(singular: Array) -> int:
    """Number of singular values (descending) that are not zero."""
    return int(np.sum(singular > RANK * singular[0])) if singular.size and singular[0] > 0 else 0


def factored(J: Array) -> tuple[Array, Array, Array]:
    """The thin singular value decomposition of J (n, d): left vectors, singular values descending, right vectors as rows."""
    n, d = J.shape
    if n * d > LARGE and n <= d:
        values, vectors = np.linalg.eigh(J @ J.T)
        if values[0] > WELL_CONDITIONED * values[-1]:
            singular, rows = np.sqrt(values[::-1]), vectors[:, ::-1]
            return rows, singular, (rows / singular).T @ J
    rows, singular, directions = np.linalg.svd(J, full_matrices=False)
    return rows, singular, directions


@dataclass(frozen=True, eq=False)
class ResidualLocal:
    """scale * sum r_j^2 where all r_j = 0: Hessian 2 scale J^T J, third derivative from the Hessians of the residuals."""

    functions: Residuals
    scale: float
    z: Array
    root: Array
    singular: Array
    rows: Array
    normals: Array

    @property
    def curvature(self) -> Array:
        """Nonzero eigenvalues of the Hessian."""
        return 2 * self.scale * self.singular**2

    @property
    def residual_rows(self) -> Array | None:
        """L of J = L diag(s) W^T."""
        return self.rows

    def third(self, core: Array, cross: Array | None) -> Array:
        """4 scale sum_j d2r_j V grad r_j; the other part, sum_j <d2r_j, V> grad r_j, is normal."""
        moved = self.normals * core if core.ndim == 1 else self.normals @ core
        if cross is not None:
            moved = moved + cross
        found = self.functions.hvp(self.z, (self.rows * self.singular).T, (self.root[:, None] * moved).T)
        return 4 * self.scale * self.root * found

    def bend(self, factor: Array) -> Array:
        """-J^+ (<d2r_j, D>)_j."""
        bends = self.second(self.root[:, None] * factor)
        return -self.normals @ ((self.rows.T @ bends) / self.singular)

    def slice_moment(self, i: int, left: Array, core: Array) -> float:
        """From T = 2 scale (B^T J + J^T B), row j of B the i-th column of d2r_j: of use where d_i r_j = 0 for all j."""
        unit = np.eye(len(self.z))[i]
        B = np.stack([self.functions.hvp(self.z, row, unit) for row in np.eye(self.functions.count)]) @ left
        J = (self.rows * self.singular) @ (self.normals.T / self.root) @ left
        X = B @ core @ J.T
        pair = float(np.sum(X * X.T) + np.sum((B @ core @ B.T) * (J @ core @ J.T)))
        return float(4 * self.scale**2 * (np.trace(X) ** 2 + pair))

    def second(self, directions: Array) -> Array:
        """sum over columns w of w^T d2r_j w, shape (n,)."""
        own = getattr(self.functions, "second", None)
        if own is not None:
            return np.asarray(own(self.z, directions.T), dtype=np.float64)
        n = self.functions.count
        found = np.zeros(n)
        for j, row in enumerate(np.eye(n)):
            found[j] = sum(float(w @ self.functions.hvp(self.z, row, w)) for w in directions.T)
        return found


@dataclass(frozen=True, eq=False)
class ResidualShape:
    """A loss scale * sum r_j^2 whose manifold is where all residuals vanish."""

    functions: Residuals
    scale: float

    @property
    def size(self) -> int:
        """d."""
        return self.functions.size

    def _svd(self, z: Array, root: Array) -> tuple[Array, Array, Array]:
        return factored(self.functions.jacobian(z) * root)

    def local(self, z: Array, root: Array) -> ResidualLocal:
        """The loss at a point."""
        rows, singular, directions = self._svd(z, root)
        r = rank_of(singular)
        return ResidualLocal(self.functions, self.scale, z, root, singular[:r], rows[:, :r], directions[:r].T)

    def descent(self, z: Array, root: Array, rank: int | None) -> tuple[Array, float]:
        """Gauss-Newton, the shortest step in the metric S^-1."""
        residuals = self.functions.residuals(z)
        rows, singular, directions = self._svd(z, root)
        r = rank_of(singular) if rank is None else min(rank, len(singular))
        step = -root * (directions[:r].T @ ((rows[:, :r].T @ residuals) / np.maximum(singular[:r], 1e-300)))
        return step, float(np.linalg.norm(residuals))

    def gradient(self, z: Array) -> Array:
        """2 scale J^T r."""
        return 2 * self.scale * self.functions.vjp(z, self.functions.residuals(z))

    def diagonal(self, z: Array) -> Array:
        """2 scale sum_j (d_i r_j)^2."""
        return np.asarray(2 * self.scale * np.sum(self.functions.jacobian(z) ** 2, axis=0))


@dataclass(frozen=True, eq=False)
class TensorLocal:
    """Any loss on its minima, by its dense third derivative (d, d, d): for small problems."""

    root: Array
    values: Array
    normals: Array
    tensor: Array

    @property
    def curvature(self) -> Array:
        """Nonzero eigenvalues of the Hessian."""
        return self.values

    @property
    def residual_rows(self) -> Array | None:
        """None: there are no residuals."""
        return None

    def _apply(self, V: Array) -> Array:
        return np.asarray(self.root * np.einsum("abc,bc->a", self.tensor, self.root[:, None] * V * self.root))

    def third(self, core: Array, cross: Array | None) -> Array:
        """d3f[V]."""
        V = (self.normals * core if core.ndim == 1 else self.normals @ core) @ self.normals.T
        if cross is not None:
            half = cross @ self.normals.T
            V = V + half + half.T
        return self._apply(V)

    def bend(self, factor: Array) -> Array:
        """-H^+ d3f[D]."""
        pushed = self._apply(factor @ factor.T)
        return -self.normals @ ((self.normals.T @ pushed) / self.values)

    def slice_moment(self, i: int, left: Array, core: Array) -> float:
        """From the tensor."""
        TV = self.tensor[i] @ left @ core @ left.T
        return float((np.trace(TV) ** 2 + 2 * np.sum(TV * TV.T)) / 4)


class SymbolicFunctions(Protocol):
    """Gradient (d,), Hessian (d, d) and third derivative (d, d, d) of a loss at a point (d,)."""

    size: int

    def gradient(self, z: Array) -> Array: ...
    def hessian(self, z: Array) -> Array: ...
    def tensor(self, z: Array) -> Array: ...


@dataclass(frozen=True, eq=False)
class TensorShape:
    """A loss given by its derivatives, with a manifold of minima of known codimension."""

    functions: SymbolicFunctions
    rank: int

    @property
    def size(self) -> int:
        """d."""
        return self.functions.size

    def _eigen(self, z: Array, root: Array) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(root[:, None] * self.functions.hessian(z) * root)
        order = np.argsort(-np.abs(values))[: self.rank]
        return values[order], vectors[:, order]

    def local(self, z: Array, root: Array) -> TensorLocal:
        """The loss at a point."""
        values, vectors = self._eigen(z, root)
        good = np.abs(values) > RANK**2 * np.abs(values).max()  # a Hessian's eigenvalues are squares
        return TensorLocal(root, values[good], vectors[:, good], self.functions.tensor(z))

    def descent(self, z: Array, root: Array, rank: int | None) -> tuple[Array, float]:
        """Newton across the manifold."""
        gradient = self.functions.gradient(z)
        values, vectors = self._eigen(z, root)
        return -root * (vectors @ ((vectors.T @ (root * gradient)) / values)), float(np.linalg.norm(gradient))

    def gradient(self, z: Array) -> Array:
        """Gradient of the loss."""
        return self.functions.gradient(z)

    def diagonal(self, z: Array) -> Array:
        """Diagonal of the Hessian."""
        return np.diag(self.functions.hessian(z)).copy()
