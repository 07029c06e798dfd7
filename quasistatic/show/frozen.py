"""What text and LaTeX of rules with slow states have in common: formulas in the frozen preconditioner, in a readable form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.adaptive_law import AdaptiveLawResult
from quasistatic.derivation.slow_states import Preconditioned
from quasistatic.errors import NoPotential, QuasistaticError, RuleError
from quasistatic.show.notation import operations
from quasistatic.symbols import BlockMean, Mean

#: Sums with more terms than this are printed as they are.
MOST_TERMS = 40
#: Expressions with more operations than this are not made readable: they are not printed either.
LARGEST = 600
#: A formula with the preconditioner put in is printed up to this many operations.
SMALL = 120


# -- readable sums -----------------------------------------------------------------------------------------------------


def readable(expression: sp.Expr, small: sp.Symbol | None) -> sp.Expr:
    """Sums with 1 - cos^2 written as sin^2, and the terms with one power of a small symbol factored together."""
    if not expression.args or operations(expression) > LARGEST:
        return expression
    built = _products(expression.func(*(readable(a, small) for a in expression.args)))
    if not isinstance(built, sp.Add) or len(built.args) > MOST_TERMS:
        return built
    return _collected(_sines(built), small)


def _products(product: sp.Expr) -> sp.Expr:
    """(1 - cos)(1 + cos) as sin^2."""
    factors = list(sp.Mul.make_args(product))
    for c in product.atoms(sp.cos):
        while 1 - c in factors and 1 + c in factors:
            factors.remove(1 - c)
            factors.remove(1 + c)
            factors.append(sp.sin(c.args[0]) ** 2)
    return sp.Mul(*factors) if len(factors) < len(sp.Mul.make_args(product)) else product


def _sines(total: sp.Expr) -> sp.Expr:
    """a - a cos^2 as a sin^2, for every pair of such terms."""
    for c in sorted(total.atoms(sp.cos), key=str):
        found: dict[sp.Expr, sp.Expr] = {}
        in_cosines = total.xreplace({sp.sin(c.args[0]) ** 2: 1 - c**2})
        for term in sp.Add.make_args(sp.expand(in_cosines)):
            rest, own = term.as_independent(c, as_Add=False)
            number, rest = rest.as_coeff_Mul()
            found[rest, own] = found.get((rest, own), sp.Integer(0)) + number
        for (rest, own), number in list(found.items()):
            partner = (rest, own * c**2)
            if found.get(partner, 0) == -number and number != 0:
                found[rest, own * sp.sin(c.args[0]) ** 2] = found.get((rest, own * sp.sin(c.args[0]) ** 2), sp.Integer(0)) + number
                found[rest, own] = found[partner] = sp.Integer(0)
        changed = sp.Add(*(number * rest * own for (rest, own), number in found.items()))
        if len(sp.Add.make_args(changed)) < len(sp.Add.make_args(total)):
            total = changed
    return total


def _collected(total: sp.Expr, small: sp.Symbol | None) -> sp.Expr:
    """The sum by powers of the small symbol, each coefficient factored."""
    if small is None or small not in total.free_symbols or not total.is_polynomial(small):
        return total
    parts: dict[int, list[sp.Expr]] = {}
    for term in sp.Add.make_args(total):
        rest, own = term.as_independent(small, as_Add=False)
        parts.setdefault(int(own.as_base_exp()[1]) if own != 1 else 0, []).append(rest)
    if len(parts) == 1 and 0 not in parts:
        ((power, terms),) = parts.items()
        return _factored(sp.Add(*terms)) * small**power
    return sp.Add(*(sp.Add(*terms) if power == 0 else _factored(sp.Add(*terms)) * small**power for power, terms in parts.items()))


def _factored(coefficient: sp.Expr) -> sp.Expr:
    """Factors of a sum, with sines and cosines as unknowns of their own, or the sum where that is longer."""
    if not isinstance(coefficient, sp.Add):
        return coefficient
    names = {t: sp.Dummy(f"t{k}", real=True) for k, t in enumerate(sorted(coefficient.atoms(sp.sin, sp.cos), key=str))}
    back = {symbol: t for t, symbol in names.items()}
    found = normal(coefficient.xreplace(names)).xreplace(back)
    return found if operations(found) < operations(coefficient) else coefficient


# -- results -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forms:
    """A result's formulas in the frozen preconditioner, readable; each computed when it is looked at."""

    result: AdaptiveResult

    @property
    def rule(self) -> Preconditioned:
        return self.result.preconditioned

    @cached_property
    def learning_rate(self) -> sp.Symbol | None:
        """The free hyperparameter that the gain vanishes with, eta where there is one."""
        free, gain = self.result.rule.hyperparameters, self.result.linear.gain
        return free.get("eta") or next((s for s in free.values() if normal(gain).subs(s, 0) == 0), None)

    def tidy(self, expression: sp.Expr) -> sp.Expr:
        return readable(expression, self.learning_rate)

    def matrix(self, matrix: sp.MatrixBase) -> sp.ImmutableMatrix:
        return sp.ImmutableMatrix(sp.Matrix(matrix).applyfunc(self.tidy))

    @cached_property
    def variance(self) -> sp.ImmutableMatrix:
        return self.matrix(self.result.frozen_variance)

    @cached_property
    def drift(self) -> tuple[sp.Expr, ...]:
        return tuple(self.tidy(x) for x in self.result.frozen_terms.total)

    @cached_property
    def terms(self) -> dict[str, tuple[sp.Expr, ...]]:
        """The parts of the drift that are there."""
        parts = {n: getattr(self.result.frozen_terms, n) for n in ("flatness", "correlation", "ito", "force")}
        return {n: tuple(self.tidy(x) for x in part) for n, part in parts.items() if any(x != 0 for x in part)}

    @cached_property
    def moments(self) -> dict[sp.Symbol, sp.Expr]:
        """M_x to E[g_x^2], those that a slow state follows."""
        values = dict(zip(self.result.moment_symbols, self.result.second_moments, strict=True))
        used = {s for row in self.result.frozen_slow_drift.values() for s in row.free_symbols}
        return {s: self.tidy(value) for s, value in values.items() if s in used}

    @property
    def result_moments(self) -> tuple[tuple[sp.Symbol, sp.Expr], ...]:
        """Every moment's symbol and value, in the order of the parameters."""
        return tuple((s, self.moments.get(s, sp.Integer(0))) for s in self.result.moment_symbols)

    @cached_property
    def closed(self) -> tuple[sp.Symbol, ...]:
        """Moments of coordinates whose gradient has neither noise nor a first order: they close by the third derivative."""
        H, Sigma = self.result.problem.hessian, self.result.problem.covariance
        rows = enumerate(self.result.moment_symbols)
        return tuple(s for i, s in rows if s in self.moments and Sigma[i, i] == 0 and not any(x != 0 for x in H.row(i)))

    @cached_property
    def scales(self) -> dict[sp.Symbol, sp.Expr]:
        """S_x to its value in the slow states' symbols."""
        result = self.result
        coupled = result if result.mode == "coupled" else replace(result, mode="coupled")
        return dict(zip(result.scales, coupled.preconditioner, strict=True))

    @cached_property
    def equilibrium(self) -> dict[sp.Symbol, sp.Expr] | str:
        """Slow states at rest in the moments' symbols, or why there is no formula."""
        rates = self.result.frozen_slow_drift
        try:  # the exact one is long, and refused where this is
            _ = self.result.explicit_equilibrium
        except QuasistaticError as error:
            return str(error)
        return {v: sp.expand(normal(v + row / _forgetting(row, v))) for v, row in rates.items()}

    @cached_property
    def small_drift(self) -> tuple[sp.Expr, ...] | None:
        """The drift with everything put in, where it is short and nothing is left to say."""
        if self.result.mode != "adiabatic" or isinstance(self.equilibrium, str):
            return None
        size = sum(operations(x) for x in self.result.frozen_terms.total)
        if size > SMALL or sum(operations(x) for x in self.result.equilibrium.values()) > SMALL:
            return None
        total = [self.tidy(x) for x in list(self.result.drift)[: len(self.result.coordinates)]]
        return tuple(total) if sum(operations(x) for x in total) <= SMALL else None

    def potential(self) -> tuple[sp.Expr | str, AdaptiveResult]:
        """The potential or why there is none, and the result that it belongs to: at leading order, slow states at rest."""
        result = self.result if self.result.mode == "adiabatic" else replace(self.result, mode="adiabatic")
        if result.order.symbol is None and self.learning_rate is not None:
            result = result.leading(self.learning_rate.name)
        try:
            return result.regularizer(), result
        except (NoPotential, RuleError) as error:
            return str(error), result

    def lyapunov(self) -> sp.Expr | None:
        """The joint function of coordinates and slow states that falls, where there is one."""
        if self.result.mode != "coupled" or self.closed:
            return None
        try:
            return self.tidy(self.result.lyapunov())
        except NoPotential:
            return None


def _forgetting(row: sp.Expr, v: sp.Symbol) -> sp.Expr:
    """The rate of v in its own equation, linear in v."""
    return normal(-row.diff(v))


# -- words that text and LaTeX share -----------------------------------------------------------------------------------


def averaged_over(rule: Preconditioned) -> str:
    """Where the slow state sees the gradients: "" for its own coordinate, "block" or "all"."""
    node = next((n for s in rule.slow for n in sorted(s.source.atoms(Mean, BlockMean), key=str)), None)
    return "" if node is None else "block" if isinstance(node, BlockMean) else "all"


def density(law: AdaptiveLawResult) -> tuple[sp.Expr | None, sp.Expr | None, str]:
    """psi, psi' (each None where there is none), and the reason."""
    try:
        slope = law.regularizer_density()
    except (NoPotential, RuleError) as error:
        return None, None, str(error)
    try:
        return law.regularizer(), slope, ""
    except NoPotential as error:
        return None, slope, str(error)


def slow_rates(law: AdaptiveLawResult) -> dict[sp.Symbol, sp.Expr]:
    """Slow state to dv/dk, as rate times (rest - v) where it forgets."""
    found = {}
    for slow in law.preconditioned.slow:
        row, rate = law.slow_drift[slow.symbol], normal(slow.rate)
        found[slow.symbol] = row if rate == 0 else rate * (sp.expand(normal(row / rate) + slow.symbol) - slow.symbol)
    return found
