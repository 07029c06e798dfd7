"""The law of a rule for any loss: kernel, matrix equation, gain, factors, scaling rules and regularizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import sympy as sp

from quasistatic.algebra.field import Field, normal
from quasistatic.derivation import conditions as when
from quasistatic.derivation.conventions import conventions
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, LAMBDA_J, Filter, Rational2, make_filter
from quasistatic.derivation.potential import closed_form, density
from quasistatic.derivation.reduction import Order, leading_term
from quasistatic.derivation.scaling import continuous_rule
from quasistatic.derivation.structure import LinearRule, linear_rule
from quasistatic.errors import HyperparameterError, RuleError, suggestion
from quasistatic.model.rule import Rule
from quasistatic.symbols import exact, positive

DIMENSION = sp.Symbol("d", integer=True, positive=True)
H, V, SIGMA = (sp.MatrixSymbol(n, DIMENSION, DIMENSION) for n in ("H", "V", "Sigma"))
#: Batch size; a hyperparameter of the user's called B would be another symbol.
BATCH = sp.Symbol("B", positive=True)
ALPHA, SIGMA_STRENGTH = positive("alpha"), positive("sigma")


@dataclass(frozen=True)
class ScalingRule:
    """How to speed up ``factor`` times at the same range: a batch ``batch`` and a gain ``gain``.

    ``changes`` lists single hyperparameters that reach the new gain, each as {hyperparameter: new value}.
    """

    factor: sp.Expr
    batch: sp.Expr
    gain: sp.Expr
    changes: tuple[Mapping[sp.Symbol, sp.Expr], ...]

    def __str__(self) -> str:
        ways = " or ".join(", ".join(f"{k} -> {v}" for k, v in change.items()) for change in self.changes)
        return f"B -> {self.batch}, gain -> {self.gain}" + (f" ({ways})" if ways else "")


def make_linear(rule: Rule, time: str) -> LinearRule | None:
    """The linear filter of a rule as a map or as an SDE; None where it is not a linear filter."""
    if time not in ("iteration", "continuous"):
        raise RuleError(f'time={time!r} is neither "iteration" (the map itself) nor "continuous" (the SDE of the declared scaling).')
    return linear_rule(rule) if time == "iteration" else continuous_rule(rule)


@dataclass(frozen=True, eq=False)
class LawResult:
    """What a linear rule does on any loss.

    ``time_kind`` is "iteration" or "continuous"; ``order`` says whether the law is exact or leading in a hyperparameter.
    """

    rule: Rule
    time_kind: str = "iteration"
    order: Order = Order()

    def __reduce__(self) -> Any:
        return type(self), (self.rule, self.time_kind, self.order)

    @cached_property
    def linear(self) -> LinearRule:
        """The rule as a linear filter."""
        linear = make_linear(self.rule, self.time_kind)
        if linear is None:
            raise RuleError(
                f"{self.rule.name} is not one linear filter for every coordinate (it mixes coordinates or its memory is nonlinear),"
                " so it has no law for any loss; qs.derive(rule, problem) uses the general route."
            )
        return linear

    @cached_property
    def filter(self) -> Filter:
        """Its polynomials."""
        return make_filter(self.linear)

    @cached_property
    def rational(self) -> Rational2:
        """The kernel as numerator and denominator."""
        return self.order.kernel(self.filter.kernel)

    @property
    def time(self) -> str:
        """ "iteration", or the label of the SDE's time."""
        return self.linear.time

    @property
    def symbols(self) -> dict[str, sp.Symbol]:
        """Name to symbol of the free hyperparameters."""
        return self.rule.hyperparameters

    @cached_property
    def kernel(self) -> sp.Expr:
        """K(lambda_i, lambda_j): V_ij = K Sigma_ij in the eigenbasis of the true Hessian (theory, section 3.1)."""
        return self.rational.at(LAMBDA_I, LAMBDA_J)

    @cached_property
    def gain(self) -> sp.Expr:
        """Net displacement of a flat direction per unit gradient kick (per iteration)."""
        return self.order.scalar(self.linear.gain)

    @cached_property
    def matrix_coefficients(self) -> tuple[Mapping[tuple[int, int], sp.Expr], Mapping[tuple[int, int], sp.Expr]]:
        """(d_ab, n_ab) with sum d_ab H^a V H^b = sum n_ab H^a Sigma H^b, normalised to d_10 = d_01 = 1."""
        numer, denom = self.rational.coefficients()
        unit = denom.get((1, 0)) or next(iter(denom.values()))
        left = {powers: normal(c / unit) for powers, c in sorted(denom.items())}
        right = {powers: normal(c / unit) for powers, c in sorted(numer.items())}
        return MappingProxyType(left), MappingProxyType(right)

    @cached_property
    def matrix_equation(self) -> sp.Eq:
        """The equilibrium equation without a basis: sum d_ab H^a V H^b = sum n_ab H^a Sigma H^b (true Hessian H)."""
        left, right = self.matrix_coefficients
        return sp.Eq(_matrix_sum(left, V), _matrix_sum(right, SIGMA), evaluate=False)

    @cached_property
    def speed_factor(self) -> sp.Expr:
        """Leading coefficient of the drift per iteration with noise Sigma/B: gain^2/B for a linear filter."""
        gain, spread = self._leading_factors()
        return gain * spread / BATCH

    @cached_property
    def range_factor(self) -> sp.Expr:
        """Leading coefficient of the covariance with noise Sigma/B: gain/B for a linear filter."""
        return self._leading_factors()[1] / BATCH

    def _leading_factors(self) -> tuple[sp.Expr, sp.Expr]:
        """Leading gain and 2 lambda K(lambda, lambda) in the learning rate."""
        eta = self.learning_rate
        gain = leading_term(self.linear.gain, eta)
        diagonal = self.filter.kernel.on_diagonal().leading(eta)
        spread = normal(2 * LAMBDA * diagonal.at(LAMBDA, LAMBDA))
        if LAMBDA in spread.free_symbols:
            raise RuleError(
                f"{self.rule.name}: to leading order its covariance depends on the curvature ({spread}), so there is no range factor."
            )
        return gain, spread

    @property
    def learning_rate(self) -> sp.Symbol:
        """The free hyperparameter that the gain vanishes with: eta where there is one."""
        free = self.rule.hyperparameters
        if "eta" in free:
            return free["eta"]
        for symbol in free.values():
            if normal(self.linear.gain).subs(symbol, 0) == 0:
                return symbol
        raise RuleError(f"{self.rule.name} has no free learning rate to take a leading order in; free it with rule.free(...).")

    def scaling_rule(self, c: sp.Expr | float | str) -> ScalingRule:
        """The rule that keeps the range factor and multiplies the speed factor by c (quasistatic paper, eq. 22)."""
        factor = exact(c, "scaling_rule: c")
        if factor.is_number and not factor.is_positive:
            raise HyperparameterError(f"scaling_rule: c={c} must be positive.")
        gain, _ = self._leading_factors()
        changes = [
            MappingProxyType({symbol: value})
            for symbol in self.rule.hyperparameters.values()
            if (value := _rescaled(gain, symbol, factor)) is not None
        ]
        return ScalingRule(factor, factor * BATCH, normal(factor * gain), tuple(changes))

    def regularizer_density(self, noise: str = "hessian") -> sp.Expr:
        """rho'(lambda) per unit of time, for noise alpha*Hessian or sigma^2 on the normal space."""
        if noise not in ("hessian", "isotropic"):
            raise HyperparameterError(
                f'noise={noise!r}: the law knows "hessian" and "isotropic".{suggestion(noise, ("hessian", "isotropic"))}'
            )
        hessian = noise == "hessian"
        strength = ALPHA if hessian else SIGMA_STRENGTH**2
        return normal(density(self.rational, self.gain, strength, hessian) / self.linear.dt)

    def regularizer(self, noise: str = "hessian") -> sp.Expr:
        """rho(lambda): with this noise the optimizer descends tr rho(H) per unit of time.

        Raises
        ------
        NoPotential
            If it has no closed form; ``regularizer_density`` and ``compile(...).regularizer`` always work.
        """
        return closed_form(self.regularizer_density(noise))

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        """Stability in every direction of curvature lambda, and what the theory neglects."""
        return (*when.stability(self.filter), *when.assumptions(False, self.linear.has_force))

    @property
    def conventions(self) -> str:
        """What the symbols mean where papers differ: Hessian, noise, unit of time, regularizer; one a line."""
        order = None if self.order.symbol is None else str(self.order.symbol)
        return conventions(self.time, str(self.linear.dt), order, slow=False)

    def leading(self, name: str) -> Self:
        """The law at leading order in one hyperparameter, the others fixed."""
        return type(self)(self.rule, self.time_kind, Order(hyperparameter(self.rule, name)))


def hyperparameter(rule: Rule, name: str) -> sp.Symbol:
    """The symbol of a free hyperparameter; an error with a suggestion otherwise."""
    free = rule.hyperparameters
    if name not in free:
        fixed = f" {name} is fixed; free it with rule.free({name!r})." if name in rule.fixed else suggestion(name, free)
        raise HyperparameterError(f"{rule.name} has no free hyperparameter {name!r} (free: {', '.join(free) or 'none'}).{fixed}")
    return free[name]


def _matrix_sum(coefficients: Mapping[tuple[int, int], sp.Expr], middle: sp.MatrixSymbol) -> sp.MatrixExpr:
    terms = []
    for (a, b), c in coefficients.items():
        factors = [H] * a + [middle] + [H] * b
        product = factors[0] if len(factors) == 1 else sp.MatMul(*factors)
        terms.append(product if c == 1 else sp.MatMul(c, *([product] if len(factors) == 1 else product.args)))
    return terms[0] if len(terms) == 1 else sp.MatAdd(*terms)


def _rescaled(gain: sp.Expr, symbol: sp.Symbol, factor: sp.Expr) -> sp.Expr | None:
    """The value of one hyperparameter for which the gain is ``factor`` times as large, where that is one linear equation."""
    if symbol not in gain.free_symbols:
        return None
    new = sp.Dummy("new", positive=True)
    difference = gain.xreplace({symbol: new}) - factor * gain
    field = Field([difference])
    numerator = field(difference).numer
    if new not in field.generators:
        return None
    index = field.generators.index(new)
    parts: dict[int, dict[Any, Any]] = {0: {}, 1: {}}
    for m, c in numerator.terms():
        if m[index] > 1:
            return None
        parts[m[index]][(*m[:index], 0, *m[index + 1 :])] = c
    K, ring = field.domain.field, numerator.ring
    slope, rest = K(ring.from_dict(parts[1])), K(ring.from_dict(parts[0]))
    if not slope:
        return None
    return field.expression(-rest / slope)
