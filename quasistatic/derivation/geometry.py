"""Tangent, normal, Hessian and third derivative of a problem on its manifold, exact, in the coordinates of its chart.

The parameters split orthogonally into the tangent space, basis T = d phi/du, and the normal space, basis N. On the
normal space the Hessian acts as h, H N = N h. A covariance Sigma has the blocks

    Sigma = N Sff N^T + T Stf N^T + N Stf^T T^T + T Stt T^T.

Behind a diagonal preconditioner S, frozen, the same holds in the metric S^-1: the iterate relaxes along S * normal, the
Hessian acts as S H and the noise is S Sigma S (theory, section 6; N, h and the blocks below are then those).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from quasistatic.algebra.equations import solve_field
from quasistatic.algebra.field import Field
from quasistatic.model.problem import Problem


@dataclass(frozen=True, eq=False)
class Geometry:
    """The matrices of a problem over one field (no hyperparameters in it)."""

    problem: Problem
    field: Field
    T: DomainMatrix
    H: DomainMatrix
    Sigma: DomainMatrix
    dH: tuple[DomainMatrix, ...]
    d2phi: tuple[tuple[DomainMatrix, ...], ...]
    phi: DomainMatrix
    S: DomainMatrix | None = None
    S_inverse: DomainMatrix | None = None

    @property
    def k(self) -> int:
        """Dimension of the manifold."""
        return int(self.T.shape[1])

    @property
    def r(self) -> int:
        """Number of normal directions."""
        return int(self.N.shape[1])

    @cached_property
    def G(self) -> DomainMatrix:
        """Induced metric T^T T, or T^T S^-1 T, (k, k)."""
        return self._reduced(self._T_metric * self.T)

    @cached_property
    def _T_metric(self) -> DomainMatrix:
        T = self.T.transpose()
        return T if self.S_inverse is None else self._reduced(T * self.S_inverse)

    @cached_property
    def T_left(self) -> DomainMatrix:
        """G^-1 T^T, or G^-1 T^T S^-1, (k, d): the tangent components of a vector."""
        return self._reduced(solve_field(self.G, self._T_metric))

    @cached_property
    def _normal(self) -> DomainMatrix:
        return self._reduced(self.T.transpose().nullspace(divide_last=True).transpose())

    @cached_property
    def N(self) -> DomainMatrix:
        """Basis of the fast directions, (d, r), rational in the coordinates: of the normal space, or of S times it."""
        return self._normal if self.S is None else self._reduced(self.S * self._normal)

    @cached_property
    def N_left(self) -> DomainMatrix:
        """(n^T N)^-1 n^T, (r, d), n a basis of the normal space: the fast components of a vector."""
        gram = self._normal.transpose() * self.N
        return self._reduced(solve_field(self._reduced(gram), self._normal.transpose()))

    @cached_property
    def h(self) -> DomainMatrix:
        """Hessian (or S H) on the fast directions in the basis N, (r, r); its eigenvalues are the curvatures."""
        H = self.H if self.S is None else self.S * self.H
        return self._reduced(self.N_left * H * self.N)

    @cached_property
    def kick(self) -> DomainMatrix:
        """Covariance of the step in units of the gain: Sigma, or S Sigma S, (d, d)."""
        return self.Sigma if self.S is None else self._reduced(self.S * self.Sigma * self.S)

    @cached_property
    def Sff(self) -> DomainMatrix:
        """Normal block of the covariance, (r, r)."""
        return self._reduced(self.N_left * self.kick * self.N_left.transpose())

    @cached_property
    def noise_like_hessian(self) -> bool:
        """Whether Sigma is a function of the coordinates times the Hessian (label noise): h^-1 Sff is then the shorter one."""
        entries = [(a, b) for A, B in zip(self.Sigma.to_list(), self.H.to_list(), strict=True) for a, b in zip(A, B, strict=True)]
        ratio = next((a / b for a, b in entries if b), None)
        return bool(ratio) and not any(self.field.reduce(a - ratio * b) for a, b in entries)

    @cached_property
    def Stf(self) -> DomainMatrix:
        """Tangent-normal block, (k, r)."""
        return self._reduced(self.T_left * self.kick * self.N_left.transpose())

    @cached_property
    def Stt(self) -> DomainMatrix:
        """Tangent block, (k, k): with the squared gain, the diffusion of the coordinates."""
        return self._reduced(self.T_left * self.kick * self.T_left.transpose())

    @cached_property
    def curvature_change(self) -> tuple[DomainMatrix, ...]:
        """N^T (dH/du_a) N for every coordinate, (r, r) each."""
        return tuple(self._reduced(self.N.transpose() * D * self.N) for D in self.dH)

    @cached_property
    def cross_change(self) -> tuple[DomainMatrix, ...]:
        """T^T (dH/du_a) N for every coordinate, (k, r) each."""
        return tuple(self._reduced(self.T.transpose() * D * self.N) for D in self.dH)

    @cached_property
    def bend(self) -> DomainMatrix:
        """-1/2 G^-1 T^T phi''[Stt], (k, 1): with the squared gain, the Ito term of the coordinates."""
        rows = self.Stt.to_dense().to_list()
        total = self.phi - self.phi
        for a in range(self.k):
            for b in range(self.k):
                if rows[a][b]:
                    total = total + self.d2phi[a][b] * rows[a][b]
        return self._reduced(self.T_left * total * (self.field(-1) / self.field(2)))

    @cached_property
    def commutes(self) -> bool:
        """Whether the normal noise commutes with the Hessian (Hessian noise, isotropic noise, one normal direction)."""
        return not _nonzero(self._reduced(self.h * self.Sff - self.Sff * self.h.transpose()))

    @cached_property
    def noise_over_h(self) -> DomainMatrix:
        """h^-1 Sff, (r, r)."""
        return self._reduced(solve_field(self.h, self.Sff))

    @cached_property
    def powers(self) -> tuple[DomainMatrix, ...]:
        """1, h, ..., h^(r-1)."""
        found = [DomainMatrix.eye(self.r, self.field.domain).to_dense()]
        for _ in range(self.r - 1):
            found.append(self._reduced(found[-1] * self.h))
        return tuple(found)

    @cached_property
    def characteristic(self) -> tuple[sp.Expr, ...]:
        """Coefficients c_1 ... c_r of det(x - h) = x^r + c_1 x^(r-1) + ... + c_r."""
        return tuple(self.field.expression(self.field.reduce(c)) for c in self.h.charpoly()[1:])

    @property
    def has_normal_noise(self) -> bool:
        """Whether the normal block is not zero."""
        return _nonzero(self.Sff)

    @property
    def has_cross_noise(self) -> bool:
        """Whether the tangent-normal block is not zero."""
        return _nonzero(self.Stf)

    @property
    def has_tangent_noise(self) -> bool:
        """Whether the tangent block is not zero: whether the coordinates diffuse."""
        return _nonzero(self.Stt)

    def pullback(self, covectors: list[Any]) -> DomainMatrix:
        """G^-1 applied to k components, (k, 1)."""
        column = DomainMatrix([[self.field.reduce(x)] for x in covectors], (self.k, 1), self.field.domain)
        return self._reduced(solve_field(self.G, column))

    def express(self, matrix: DomainMatrix) -> sp.Matrix:
        """A SymPy matrix, entries factored."""
        return self.field.expressions(matrix)

    def _reduced(self, matrix: DomainMatrix) -> DomainMatrix:
        dense = matrix.to_dense()
        if not self.field._reductions:
            return dense
        rows = [[self.field.reduce(x) for x in row] for row in dense.to_list()]
        return DomainMatrix(rows, matrix.shape, matrix.domain)


def _nonzero(matrix: DomainMatrix) -> bool:
    return any(x for row in matrix.to_dense().to_list() for x in row)


def inner(A: DomainMatrix, B: DomainMatrix, zero: Any) -> Any:
    """Frobenius inner product of two matrices."""
    total = zero
    for row_a, row_b in zip(A.to_dense().to_list(), B.to_dense().to_list(), strict=True):
        for a, b in zip(row_a, row_b, strict=True):
            if a and b:
                total = total + a * b
    return total


def scale_symbols(problem: Problem) -> tuple[sp.Symbol, ...]:
    """The frozen diagonal of the preconditioner, one positive symbol per parameter: S_x, S_y, ..."""
    return tuple(sp.Symbol(f"S_{p.name}", positive=True) for p in problem.parameters)


@lru_cache(maxsize=64)
def geometry(problem: Problem, scaled: bool = False, noise: sp.ImmutableMatrix | None = None) -> Geometry:
    """The geometry of a problem, ``scaled`` by the frozen preconditioner; kept, since every rule on the problem needs the same.

    ``noise`` is a covariance (d, d) instead of the problem's own.
    """
    problem.require_noise()
    chart = problem.chart
    T, H, Sigma = chart.tangent, problem.hessian, problem.covariance if noise is None else noise
    dH = [H.diff(u) for u in chart.coordinates]
    d2phi = [[chart.embedding.diff(u, v) for v in chart.coordinates] for u in chart.coordinates]
    scales = scale_symbols(problem) if scaled else ()
    everything = [*T, *H, *Sigma, *chart.embedding, *scales]
    for block in (*dH, *(m for row in d2phi for m in row)):
        everything.extend(block)
    field = Field(everything)

    def convert(m: Any) -> DomainMatrix:
        return field.matrix(sp.Matrix(m))

    S, inverse = (convert(sp.diag(*values)) if scaled else None for values in (scales, [1 / s for s in scales]))
    return Geometry(
        problem, field, convert(T), convert(H), convert(Sigma), tuple(convert(m) for m in dH),
        tuple(tuple(convert(m) for m in row) for row in d2phi), convert(chart.embedding), S, inverse,
    )  # fmt: skip
