"""A law in numbers: the kernel, the equilibrium covariance of a matrix, and regularizers by quadrature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from numpy.polynomial.polynomial import polyval, polyval2d
from scipy.integrate import quad

from quasistatic.errors import HyperparameterError, QuasistaticError, suggestion
from quasistatic.numeric.arguments import Array
from quasistatic.symbols import exact

if TYPE_CHECKING:
    from quasistatic.derivation.law import LawResult


@dataclass(frozen=True, eq=False)
class CompiledLaw:
    """A law with numbers for its hyperparameters; vectorised NumPy functions of curvatures."""

    law: LawResult
    values: Mapping[str, float]

    def _numbers(self, expression: sp.Expr) -> sp.Expr:
        return expression.xreplace({s: sp.Float(self.values[n], 17) for n, s in self.law.rule.hyperparameters.items()})

    @property
    def gain(self) -> float:
        """Net displacement of a flat direction per unit gradient kick, per iteration."""
        return float(self._numbers(self.law.gain))

    @cached_property
    def _coefficients(self) -> tuple[Array, Array]:
        """Numerator and denominator of the kernel as tables of the powers of lambda_i and lambda_j.

        The hyperparameters go in as exact rationals: with several memories close to 1 the expanded coefficients cancel
        far beyond float64.
        """
        at = {s: sp.Rational(repr(self.values[n])) for n, s in self.law.rule.hyperparameters.items()}
        tables = []
        for side in self.law.rational.coefficients():
            table = np.zeros((1 + max(a for a, _ in side), 1 + max(b for _, b in side)))
            for powers, value in side.items():
                table[powers] = float(value.xreplace(at))
            tables.append(table)
        return tables[0], tables[1]

    def kernel(self, i: Any, j: Any) -> Array:
        """K(lambda_i, lambda_j), broadcasting."""
        i, j = np.broadcast_arrays(np.asarray(i, float), np.asarray(j, float))
        numer, denom = self._coefficients
        return np.asarray(polyval2d(i, j, numer) / polyval2d(i, j, denom))

    def covariance(self, hessian: Any, noise: Any) -> Array:
        """V = W (K o W^T Sigma W) W^T for symmetric positive definite ``hessian`` and ``noise`` covariance, both (r, r)."""
        H, S = np.asarray(hessian, float), np.asarray(noise, float)
        if H.ndim != 2 or H.shape != S.shape or H.shape[0] != H.shape[1]:
            raise QuasistaticError(f"covariance: hessian {H.shape} and noise {S.shape} must be square and of one shape.")
        curvature, W = np.linalg.eigh(H)
        if curvature[0] <= 0:
            raise QuasistaticError(f"covariance: the Hessian has the eigenvalue {curvature[0]:.4g}; give its block on the normal space.")
        return np.asarray(W @ (self.kernel(curvature[:, None], curvature[None, :]) * (W.T @ S @ W)) @ W.T)

    def regularizer(self, curvature: float, noise: str = "hessian", strength: float = 1.0) -> float:
        """rho(lambda) per unit of time for alpha = strength or sigma^2 = strength, by quadrature of rho'.

        Hessian noise: from rho(0) = 0. Isotropic noise, whose rho' diverges at 0: from rho(1) = 0.
        """
        if not (np.isfinite(curvature) and curvature > 0):
            raise QuasistaticError(f"regularizer: the curvature {curvature} must be positive.")
        if noise not in ("hessian", "isotropic"):
            raise HyperparameterError(f'noise={noise!r}: the law knows "hessian" and "isotropic".')
        hessian = noise == "hessian"
        factor = self.gain * strength / (2 * float(self._numbers(self.law.linear.dt)))
        numer, denom = (diagonal(table) for table in self._coefficients)
        if hessian and denom[0] == 0:  # lambda K(lambda, lambda) is finite at 0: cancel its lambda
            denom = denom[1:]
        elif hessian:
            numer = np.concatenate([[0.0], numer])
        value = quad(
            lambda t: polyval(t, numer) / polyval(t, denom), 0.0 if hessian else 1.0, curvature, epsabs=0, epsrel=1e-12, limit=200
        )[0]
        return float(factor * value)


def diagonal(table: Array) -> Array:
    """Coefficients of the polynomial of one variable that a table is for equal arguments."""
    out = np.zeros(sum(table.shape) - 1)
    for (a, b), value in np.ndenumerate(table):
        out[a + b] += value
    return out


def compile_law(law: LawResult, values: Mapping[str, Any]) -> CompiledLaw:
    """The law with numbers; every free hyperparameter needs one."""
    free = law.rule.hyperparameters
    for name in values:
        if name not in free:
            raise HyperparameterError(f"{law.rule.name} has no free hyperparameter {name!r} ({', '.join(free)}).{suggestion(name, free)}")
    missing = [n for n in free if n not in values]
    if missing:
        raise HyperparameterError(f"{law.rule.name}: no value for {', '.join(missing)}.")
    numbers = {n: float(exact(values[n], n)) for n in free}
    for name, number in numbers.items():
        if number < 0:
            raise HyperparameterError(f"{name} = {number:g} is negative; it must be at least 0.")
    return CompiledLaw(law, numbers)
