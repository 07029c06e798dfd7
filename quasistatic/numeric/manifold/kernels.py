"""A linear filter of the gradient in numbers: its kernels, gain, small forces, and the stability of its modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp
from numpy.polynomial.polynomial import polyval2d

from quasistatic.algebra.field import normal
from quasistatic.derivation import conditions as when
from quasistatic.derivation.kernel import Filter, Rational2, make_filter
from quasistatic.derivation.reduction import Order
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import UnstableError
from quasistatic.numeric.arguments import Array


class Ratio:
    """A kernel as tables of the powers of two curvatures.

    The hyperparameters go in as exact rationals: with several memories close to 1 the expanded coefficients cancel far
    beyond float64.
    """

    def __init__(self, rational: Rational2, exact: Mapping[sp.Symbol, sp.Rational]) -> None:
        self.zero = not rational.numer
        if not self.zero:
            self._numer, self._denom = (_table(side, exact) for side in rational.coefficients())

    def __call__(self, i: Any, j: Any) -> Array:
        """The kernel at curvatures i and j, broadcasting."""
        i, j = np.broadcast_arrays(np.asarray(i, float), np.asarray(j, float))
        if self.zero:
            return np.zeros(i.shape)
        return np.asarray(polyval2d(i, j, self._numer) / polyval2d(i, j, self._denom))


def _table(side: Mapping[tuple[int, int], sp.Expr], exact: Mapping[sp.Symbol, sp.Rational]) -> Array:
    table = np.zeros((1 + max(a for a, _ in side), 1 + max(b for _, b in side)))
    for powers, value in side.items():
        table[powers] = float(value.xreplace(exact))
    return table


@dataclass(frozen=True, eq=False)
class LinearFilter:
    """A linear rule with numbers for its hyperparameters, exact or at leading order in one of them.

    Attributes
    ----------
    linear:
        The rule, one coordinate of it.
    values:
        Name to number.
    order:
        How exactly it is taken.
    """

    linear: LinearRule
    values: Mapping[str, float]
    order: Order = Order()

    @cached_property
    def _exact(self) -> dict[sp.Symbol, sp.Rational]:
        free = self.linear.rule.hyperparameters
        return {s: sp.Rational(repr(float(self.values[n]))) for n, s in free.items()}

    def _number(self, expression: sp.Expr) -> float:
        return float(expression.xreplace(self._exact))

    @cached_property
    def _filter(self) -> Filter:
        return make_filter(self.linear)

    @cached_property
    def gain(self) -> float:
        """Net displacement of a flat direction per unit gradient kick."""
        return self._number(self.order.scalar(self.linear.gain))

    def _ratio(self, rational: Rational2) -> Ratio:
        return Ratio(self.order.kernel(rational), self._exact)

    @cached_property
    def kernel(self) -> Ratio:
        """K(lambda_i, lambda_j); lambda_i = 0 is the tangent-normal block."""
        return self._ratio(self._filter.kernel)

    @cached_property
    def crossed(self) -> Ratio:
        """The fast part along the manifold against a normal direction, a function of lambda_j."""
        return self._ratio(self._filter.crossed(0, 0))

    @cached_property
    def tangent(self) -> float:
        """Covariance of the fast part along the manifold per unit of noise."""
        return float(self._ratio(self._filter.tangent(0, 0))(0.0, 0.0))

    @cached_property
    def pull(self) -> float:
        """Small force along the manifold: this times the parameter, per iteration."""
        return self._number(self.order.scalar(normal((self.linear.left.T * self.linear.force)[0])))

    @cached_property
    def shift(self) -> float:
        """Small force that is the same for every coordinate, per iteration."""
        return self._number(self.order.scalar(normal((self.linear.left.T * self.linear.shift)[0])))

    @cached_property
    def iteration(self) -> tuple[Array, Array, Array]:
        """(A, b, resting state at parameter 1) of s' = A s + b g, per coordinate."""
        n = self.linear.A.rows
        parts = (self.linear.A, self.linear.b, self.linear.fixed)
        A, b, fixed = (np.array([self._number(e) for e in part]) for part in parts)
        return A.reshape(n, n), b, fixed

    def modes(self, curvature: Array) -> npt.NDArray[np.complex128]:
        """Eigenvalues of one iteration in directions of these curvatures (m,), shape (m, n)."""
        A, b, _ = self.iteration
        stacked = np.repeat(A[None], len(curvature), axis=0)
        stacked[:, :, 0] += curvature[:, None] * b
        return np.asarray(np.linalg.eigvals(stacked), dtype=np.complex128)

    def fast_rate(self, curvature: Array) -> float:
        """1 - spectral radius of the fast subspace for these curvatures, per iteration."""
        along = self.modes(np.zeros(1))[0]
        rest = np.delete(along, int(np.argmin(np.abs(along - 1))))
        return float(1 - max(np.abs(self.modes(curvature)).max(initial=0.0), np.abs(rest).max(initial=0.0)))

    def require_stable(self, curvature: Array, where: str) -> None:
        """Raise UnstableError with the broken inequality where a direction of these curvatures does not settle."""
        if self.fast_rate(curvature) > 0:
            return
        worst = np.abs(self.modes(curvature)).max(axis=1)
        found: Sequence[float] = [float(curvature[int(np.argmax(worst))])]
        when.require_stable(self._filter, when.stability(self._filter), self.values, found, where)
        raise UnstableError(f"unstable at {where}: a fast mode does not decay.")  # pragma: no cover - the line above raises
