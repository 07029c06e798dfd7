"""The reduction theorem on the whole state, without any structure: the fallback, and the oracle of the structured routes.

drift     = P (1/2 F''[V] + F''[Q_tf A#^T]) + 1/2 A# F''[Q_tt]
diffusion = Q_tt            (theory, section 2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from quasistatic.algebra.equations import group_inverse, lyapunov, solve_field, spectral_projector, stein
from quasistatic.algebra.field import Field
from quasistatic.derivation.averaging import AveragedMap
from quasistatic.derivation.reduction import Terms
from quasistatic.errors import AlgebraError, RuleError
from quasistatic.model.problem import Problem


@dataclass(frozen=True, eq=False)
class Dense:
    """The theorem for an averaged map on a problem; ``at`` puts numbers in for symbols, which keeps it small."""

    averaged: AveragedMap
    problem: Problem
    at: Mapping[sp.Symbol, sp.Expr]

    def _put(self, matrix: Any) -> sp.Matrix:
        return sp.Matrix(matrix).subs(dict(self.at)) if self.at else sp.Matrix(matrix)

    @cached_property
    def field(self) -> Field:
        """One field for everything."""
        chart = self.problem.chart
        second = self.averaged.second(sp.ones(len(self.averaged.state), len(self.averaged.state)))
        everything: list[sp.Expr] = []
        for m in (self.averaged.J, self.averaged.B, self.averaged.displacement, self.problem.covariance, second):
            everything.extend(self._put(m))
        everything.extend(self._put(chart.embedding))
        for row in self._d2phi:
            for m in row:
                everything.extend(m)
        everything.append(self.averaged.dt.subs(dict(self.at)))
        return Field(everything)

    def _matrix(self, m: Any) -> DomainMatrix:
        return self.field.matrix(self._put(m)).to_dense()

    @cached_property
    def _d2phi(self) -> list[list[sp.Matrix]]:
        chart = self.problem.chart
        return [[self._put(chart.embedding.diff(u, v)) for v in chart.coordinates] for u in chart.coordinates]

    @cached_property
    def A(self) -> DomainMatrix:
        """1 - J for a map, -J for an SDE."""
        J = self._matrix(self.averaged.J)
        return -J if self.averaged.continuous else DomainMatrix.eye(J.shape[0], J.domain).to_dense() - J

    @cached_property
    def P(self) -> DomainMatrix:
        """Spectral projector of the manifold's eigenvalue."""
        try:
            P = spectral_projector(self.A)
        except AlgebraError as error:
            raise RuleError(f"a direction never forgets: the eigenvalue of the manifold is not simple ({error}).") from None
        k = self.problem.chart.dimension
        rank = P.rank()
        if rank != k:
            raise RuleError(
                f"the averaged map is neutral in {rank} directions, but the manifold has {k}: a memory never forgets, or a small force"
                " has no hyperparameter of its own."
            )
        return P

    @cached_property
    def sharp(self) -> DomainMatrix:
        """Group inverse A#."""
        return group_inverse(self.A, self.P)

    @cached_property
    def Q(self) -> DomainMatrix:
        """Covariance of one step."""
        B = self._matrix(self.averaged.B)
        return B * self._matrix(self.problem.covariance) * B.transpose()

    @cached_property
    def V(self) -> DomainMatrix:
        """Equilibrium covariance of the fast part of the state."""
        fast = DomainMatrix.eye(self.P.shape[0], self.P.domain).to_dense() - self.P
        Q_ff = fast * self.Q * fast.transpose()
        if self.averaged.continuous:
            return lyapunov(self.A + self.P, Q_ff)
        eye = DomainMatrix.eye(self.P.shape[0], self.P.domain).to_dense()
        return stein(eye - self.A - self.P, Q_ff)

    def _second(self, M: DomainMatrix) -> DomainMatrix:
        symbols = sp.Matrix(M.shape[0], M.shape[1], lambda i, j: sp.Dummy())
        contracted = self._put(self.averaged.second(symbols))
        entries = dict(zip(symbols, (x for row in M.to_list() for x in row), strict=True))
        rows = [[self._linear(e, entries)] for e in contracted]
        return DomainMatrix(rows, (len(rows), 1), M.domain)

    def _linear(self, expression: sp.Expr, values: dict[sp.Symbol, Any]) -> Any:
        """A form that is linear in dummies, with elements of the field in their place."""
        total = self.field(0)
        for s in expression.free_symbols & set(values):
            coefficient = expression.diff(s)
            if coefficient != 0 and values[s]:
                total = total + self.field(coefficient) * values[s]
        return total

    @cached_property
    def T_left(self) -> DomainMatrix:
        """Coordinates of a tangent vector of parameter space, (k, d)."""
        T = self._matrix(self.problem.chart.tangent)
        return solve_field(T.transpose() * T, T.transpose())

    def _to_chart(self, vector: DomainMatrix) -> DomainMatrix:
        d = len(self.problem.parameters)
        return self.T_left * vector.extract(list(range(d)), [0])

    def terms(self) -> Terms:
        """The parts of the drift, per unit of time."""
        half = self.field(1) / self.field(2)
        fast = DomainMatrix.eye(self.P.shape[0], self.P.domain).to_dense() - self.P
        Q_tf = self.P * self.Q * fast.transpose()
        Q_tt = self.P * self.Q * self.P.transpose()
        flat = self._to_chart(self.P * self._second(self.V) * half)
        correlation = self._to_chart(self.P * self._second(Q_tf * self.sharp.transpose()))
        bend = self._to_chart(self.sharp * self._second(Q_tt) * half)
        D = self._diffusion(Q_tt)
        ito = bend - self._chart_ito(D)
        force = self._to_chart(self.P * self._matrix(self.averaged.displacement))
        return Terms(*(self._rate(m) for m in (flat, correlation, ito, force)))

    def _chart_ito(self, D: DomainMatrix) -> DomainMatrix:
        """1/2 T_left phi''[D]."""
        half = self.field(1) / self.field(2)
        rows = D.to_list()
        total = self._matrix(self.problem.chart.embedding) * self.field(0)
        for a, line in enumerate(self._d2phi):
            for b, m in enumerate(line):
                total = total + self.field.matrix(m).to_dense() * rows[a][b]
        return self.T_left * total * half

    def _diffusion(self, Q_tt: DomainMatrix) -> DomainMatrix:
        d = list(range(len(self.problem.parameters)))
        return self.T_left * Q_tt.extract(d, d) * self.T_left.transpose()

    def diffusion(self) -> sp.ImmutableMatrix:
        """Covariance of the coordinates' step per unit of time, (k, k)."""
        return self._rate(self._diffusion(self.P * self.Q * self.P.transpose()))

    def covariance(self) -> sp.ImmutableMatrix:
        """Equilibrium covariance of the fast part of the state, (n, n)."""
        return sp.ImmutableMatrix(self.field.expressions(self.V))

    def metric(self) -> sp.ImmutableMatrix:
        """Induced metric, (k, k)."""
        T = self._matrix(self.problem.chart.tangent)
        return sp.ImmutableMatrix(self.field.expressions(T.transpose() * T))

    def _rate(self, matrix: DomainMatrix) -> sp.ImmutableMatrix:
        dt = self.field(self.averaged.dt.subs(dict(self.at)))
        rows = [[self.field.reduce(x / dt) for x in row] for row in matrix.to_list()]
        return sp.ImmutableMatrix(self.field.expressions(DomainMatrix(rows, matrix.shape, matrix.domain)))
