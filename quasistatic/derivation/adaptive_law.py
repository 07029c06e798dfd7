"""The law of a rule with slow states for any loss: filter, preconditioner, and the regularizer under label noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation import conditions as when
from quasistatic.derivation import separable
from quasistatic.derivation.law import ALPHA, LawResult, ScalingRule
from quasistatic.derivation.reduction import leading_term
from quasistatic.derivation.slow_states import Preconditioned, preconditioned_rule
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import HyperparameterError, NoPotential, RuleError, suggestion

#: The curvature that a slow state follows: H_ii, or the mean of H_jj over its block.
CURVATURE = sp.Symbol("h", positive=True)


@dataclass(frozen=True, eq=False)
class AdaptiveLawResult(LawResult):
    """What a rule with slow states does on any loss.

    With the preconditioner S(v) frozen the law is that of its filter in the metric S^-1: V_ij = K(lambda_i, lambda_j) in the
    eigenbasis of S^1/2 H S^1/2, the step S times the filter's. Under label noise, Sigma = alpha*H, the coordinates of the
    manifold follow -(gain^2 alpha/4) Pi_S S d^3L[S] per iteration, Pi_S = 1 - S J^T (J S J^T)^-1 J (theory, section 3.2).
    """

    @cached_property
    def preconditioned(self) -> Preconditioned:
        """The frozen rule: filter, preconditioner, slow states."""
        return preconditioned_rule(self.rule)

    @cached_property
    def linear(self) -> LinearRule:
        """The filter behind the preconditioner, in units of S."""
        if self.time_kind != "iteration":
            raise RuleError(
                f'{self.rule.name}: the law of a rule with slow states is per iteration; give time="continuous" with a problem.'
            )
        return self.preconditioned.linear

    @property
    def preconditioner(self) -> sp.Expr:
        """S of one coordinate as a function of its slow states."""
        return self.preconditioned.scale

    @cached_property
    def slow_drift(self) -> dict[sp.Symbol, sp.Expr]:
        """Slow state to dv/dk as a function of v and of M = E[g^2] of the coordinate (its mean over the block)."""
        M = sp.Symbol("M", positive=True)
        found = {}
        for slow in self.preconditioned.slow:
            source = slow.source.replace(lambda e: e.is_Function and e.func.__name__ in ("Mean", "BlockMean"), lambda e: e.args[0])
            second = sp.expand(source).coeff(slow.gradient, 2)
            found[slow.symbol] = normal(-slow.rate * slow.symbol + second * M)
        return found

    def regularizer_density(self, noise: str = "hessian") -> sp.Expr:
        """d Psi/d h_i under label noise, Sigma = alpha*H, per iteration at leading order: gain^2 alpha S/4 with v at rest."""
        if noise != "hessian":
            if noise == "isotropic":
                raise NoPotential(f"{self.rule.name}: with noise other than label noise the drift is no gradient flow in general.")
            raise HyperparameterError(f'noise={noise!r}: this law knows "hessian".{suggestion(noise, ("hessian",))}')
        gain = leading_term(self.linear.gain, self.learning_rate)
        return gain**2 * ALPHA / 4 * separable.scale_at_equilibrium(self.preconditioned, ALPHA * CURVATURE)

    def regularizer(self, noise: str = "hessian") -> sp.Expr:
        """psi(h): under label noise the optimizer descends sum_i psi(h_i) per iteration at leading order.

        h_i is H_ii, or for a rule with blocks the mean of H_jj over the block of i: sum_B |B| psi(tr H_BB/|B|); psi(0) = 0.

        Raises
        ------
        NoPotential
            If it has no closed form, or S is not a function of one slow state.
        """
        gain = leading_term(self.linear.gain, self.learning_rate)
        scale = separable.scale_at_equilibrium(self.preconditioned, ALPHA * CURVATURE)
        return sp.expand(gain**2 * ALPHA / 4 * separable.primitive(scale, CURVATURE))

    def _leading_factors(self) -> tuple[sp.Expr, sp.Expr]:
        raise RuleError(
            f"{self.rule.name}: its speed and range depend on the preconditioner S = {self.preconditioner}, which follows the noise;"
            " there is no single factor."
        )

    def scaling_rule(self, c: Any) -> ScalingRule:
        """Not defined for rules with slow states; raises RuleError."""
        self._leading_factors()
        raise AssertionError  # pragma: no cover

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        """Stability for every eigenvalue lambda of S H, and what the theory neglects."""
        rule = self.preconditioned
        return (*when.stability(self.filter), *when.assumptions(False, rule.has_force), *when.frozen(rule))


__all__ = ["CURVATURE", "AdaptiveLawResult"]
