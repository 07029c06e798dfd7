"""Rules with a kink: the sign or the clip of a linear filter of the gradient (theory, section 1, Stein's identity).

The expectation over Gaussian noise is smooth where the rule is not. With c the filtered gradient, of standard deviation
s_i at equilibrium,

    E[f(c_i)] = S_i E[c_i] + O(E[c]^3),   S_i = E[c_i f(c_i)]/s_i^2,

so the rule is a linear filter behind the preconditioner S, and what f adds to S c is more noise (Bussgang): for the sign
S_i = sqrt(2/pi)/s_i and E[f(c_i) f(c_j)] = 2/pi asin(rho_ij). A memory that is noisy itself is averaged over too, since s_i
is the deviation of all of c. S depends on the point, and its change across the minima enters the drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import sympy as sp

from quasistatic.algebra.field import is_zero
from quasistatic.derivation import conditions as when
from quasistatic.derivation.adaptive import AdaptiveResult, with_sines
from quasistatic.derivation.geometry import Geometry, geometry
from quasistatic.derivation.kernel import make_filter
from quasistatic.derivation.reduction import Terms, combine
from quasistatic.derivation.slow_states import Preconditioned, preconditioned_rule
from quasistatic.derivation.structure import at_late_times
from quasistatic.errors import ProblemError, RuleError
from quasistatic.model.noise import LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule, State, Trace
from quasistatic.symbols import expression

#: Stands for S of one coordinate in the linearised rule.
SLOPE = sp.Symbol("S", positive=True)


@dataclass(frozen=True)
class Kink:
    """The one place where a rule is not smooth.

    Attributes
    ----------
    kind:
        "sign" or "clip".
    node, argument:
        The expression, and the c inside.
    threshold:
        Where a clip ends; None for a sign.
    gain:
        Standard deviation of c in units of the gradient's.
    lag:
        Correlation of c with itself one step later.
    decay:
        Factor of that correlation per further step (0 without a memory).
    """

    kind: str
    node: sp.Expr
    argument: sp.Expr
    threshold: sp.Expr | None
    gain: sp.Expr
    lag: sp.Expr
    decay: sp.Expr


def has_kink(rule: Rule) -> bool:
    """Whether a sign or a clip acts on the gradient."""
    g = rule.trace.gradient
    return any(g in node.free_symbols for u in rule.trace.updates for node in u.atoms(sp.sign, sp.Min, sp.Max))


def find_kink(rule: Rule) -> Kink:
    """The kink of a rule and its linear argument.

    Raises
    ------
    RuleError
        If there are several, or one that is neither sign(c) nor clip(c, -T, T) of a linear filter c with one memory.
    """
    g = rule.trace.gradient
    updates, _ = at_late_times(rule)
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0}
    updates = tuple(u.xreplace(zeros) for u in updates)
    nodes = {n for u in updates for n in u.atoms(sp.sign, sp.Min, sp.Max) if g in n.free_symbols}
    outer = [n for n in nodes if not any(n != m and m.has(n) for m in nodes)]
    if len(outer) != 1:
        raise RuleError(f"{rule.name} has {len(outer)} kinks ({', '.join(map(str, outer))}); one sign or clip is supported.")
    node = outer[0]
    kind, argument, threshold = _parsed(rule, node)
    variables = rule.trace.variables
    rest = sp.expand(argument)
    weights = [rest.coeff(v) for v in (*variables, g)]
    remainder = sp.expand(rest - sum(w * v for w, v in zip(weights, (*variables, g), strict=True)))
    if remainder != 0 or any(w.free_symbols & {*variables, g} for w in weights) or weights[0] != 0:
        raise RuleError(f"{rule.name}: inside {kind}(...) stands {argument}; it must be linear in the gradient and one memory.")
    values = rule.fixed_symbols
    return Kink(kind, node, argument, threshold, *(x.xreplace(values) for x in _filter_noise(rule, updates, weights)))


def _parsed(rule: Rule, node: sp.Expr) -> tuple[str, sp.Expr, sp.Expr | None]:
    if isinstance(node, sp.sign):
        return "sign", node.args[0], None
    g = rule.trace.gradient
    if isinstance(node, (sp.Min, sp.Max)) and len(node.args) == 2:
        inner = next((a for a in node.args if g in a.free_symbols), None)
        bound = next(a for a in node.args if a is not inner)
        if inner is not None and isinstance(inner, (sp.Min, sp.Max)) and len(inner.args) == 2 and inner.func != node.func:
            c = next((a for a in inner.args if g in a.free_symbols), None)
            other = next((a for a in inner.args if a is not c), None)
            if c is not None and other is not None and sp.expand(bound + other) == 0:
                return "clip", c, bound if isinstance(node, sp.Min) else other
    raise RuleError(
        f"{rule.name}: {node} is neither the sign nor a symmetric clip, clip(c, -T, T), of the gradient or of its filter;"
        " its average over the noise is not supported. Simulation works: qs.simulate."
    )


def _filter_noise(rule: Rule, updates: Sequence[sp.Expr], weights: Sequence[sp.Expr]) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Deviation of c per deviation of g, its correlation over one step, and the decay of that per further step."""
    g = rule.trace.gradient
    used = [(s, w, u) for s, w, u in zip(rule.trace.states, weights[1:-1], updates[1:], strict=True) if w != 0]
    kappa = weights[-1]
    if not used:
        return sp.Abs(kappa), sp.Integer(0), sp.Integer(0)
    if len(used) > 1:
        raise RuleError(f"{rule.name}: the kink sees {len(used)} memories; one is supported.")
    (state, w, update), *_ = used
    a, b = sp.expand(update).coeff(state.symbol), sp.expand(update).coeff(g)
    if sp.expand(update - a * state.symbol - b * g) != 0 or (a.free_symbols | b.free_symbols) & {*rule.trace.variables, g}:
        raise RuleError(f"{rule.name}: the memory {state.name} inside the kink is not a linear filter of the gradient.")
    variance = b**2 / (1 - a**2)
    total = combine(w**2 * variance + kappa**2)
    lag = combine(w * (a * w * variance + b * kappa) / total)
    return sp.sqrt(total), lag, a


def linearised(rule: Rule, kink: Kink) -> Preconditioned:
    """The rule with S*c in place of its kink: a filter behind a preconditioner.

    Raises
    ------
    RuleError
        If the rule has more of the gradient in it than the kink, or mixes coordinates.
    """
    t = rule.trace
    updates, _ = at_late_times(rule)
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0}
    smooth = tuple(u.xreplace(zeros).xreplace({kink.node: SLOPE * kink.argument}) for u in updates)
    trace = Trace(t.parameter, t.queries, t.states, t.hyperparameters, None, smooth)
    return preconditioned_rule(replace(rule, trace=trace), extra=(SLOPE,))


def settling_rule(rule: Rule, kink: Kink) -> Rule:
    """The linearised rule with S as one more state that keeps its value: its noiseless iteration is the limit map."""
    t = rule.trace
    updates, _ = at_late_times(rule)
    smooth = tuple(u.xreplace({kink.node: SLOPE * kink.argument}) for u in updates)
    state = State("S", SLOPE, slow=True)
    return replace(rule, trace=Trace(t.parameter, t.queries, (*t.states, state), t.hyperparameters, None, (*smooth, SLOPE)), function=None)


def slope(kink: Kink, variance: sp.Expr) -> sp.Expr:
    """S of a coordinate whose gradient noise has this variance."""
    s = kink.gain * sp.sqrt(variance)
    if kink.kind == "sign":
        return sp.sqrt(2 / sp.pi) / s
    return sp.erf(kink.threshold / (sp.sqrt(2) * s))


def excess(kink: Kink, rho: sp.Expr, s_i: sp.Expr, s_j: sp.Expr, problem: Problem) -> sp.Expr:
    """Covariance that the kink adds to that of S c, summed over all lags: E[f f] - S S E[c c] (s: deviations of c)."""
    if kink.kind == "sign":
        a, r = kink.decay, rho * kink.lag
        now = sp.asin(rho) - rho
        # asin(x) - x = x^3/6 + 3 x^5/40 + ...; what is left out is below 1e-3 of this for |lag| < 0.5
        later = r**3 / 6 / (1 - a**3) + 3 * r**5 / 40 / (1 - a**5) + 15 * r**7 / 336 / (1 - a**7) if kink.lag != 0 else sp.Integer(0)
        return 2 / sp.pi * (now + 2 * later)
    if rho**2 != 1 or kink.lag != 0:
        raise ProblemError(
            f"{problem.name or 'the problem'}: the average of two clipped gradients"
            f" has a closed form only where their noises are independent"
            " or proportional, and without a memory inside the clip; use such a noise, or simulate."
        )
    low, high = (s_i + s_j - sp.Abs(s_i - s_j)) / 2, (s_i + s_j + sp.Abs(s_i - s_j)) / 2
    T = expression(kink.threshold)
    a, b = T / high, T / low
    tail = sp.sqrt(2 / sp.pi)
    inside = s_i * s_j * (sp.erf(a / sp.sqrt(2)) - a * tail * sp.exp(-(a**2) / 2))
    between = T * low * tail * (sp.exp(-(a**2) / 2) - sp.exp(-(b**2) / 2))
    outside = T**2 * sp.erfc(b / sp.sqrt(2))
    linear = s_i * s_j * sp.erf(a / sp.sqrt(2)) * sp.erf(b / sp.sqrt(2))
    return rho * (inside + between + outside - linear)


@dataclass(frozen=True, eq=False, repr=False)
class StatisticalResult(AdaptiveResult):
    """Slow dynamics of a rule with a kink, at leading order in the fluctuation against the noise."""

    mode: str = "adiabatic"

    @cached_property
    def kink(self) -> Kink:
        """The kink and the filter inside it."""
        return find_kink(self.rule)

    @cached_property
    def preconditioned(self) -> Preconditioned:
        return linearised(self.rule, self.kink)

    @cached_property
    def equilibrium(self) -> dict[sp.Symbol, sp.Expr]:
        """There are no slow states."""
        return {}

    @cached_property
    def noise_moments(self) -> tuple[sp.Expr, ...]:
        """Sigma_ii on the manifold, all positive.

        Raises
        ------
        ProblemError
            Where the noise does not reach a coordinate: there the kink is not smoothed, and no average exists.
        """
        sigma = self.problem.covariance
        found = tuple(with_sines(combine(sigma[i, i])) for i in range(sigma.rows))
        quiet = [p.name for p, m in zip(self.problem.parameters, found, strict=True) if m == 0]
        if quiet:
            raise ProblemError(
                f"{self.rule.name} has a kink in every coordinate,"
                f" but the gradient noise of {', '.join(quiet)} vanishes: nothing smooths the"
                f" {self.kink.kind} there, and the average does not exist. Take noise that reaches every coordinate (qs.IsotropicNoise,"
                " qs.CovarianceNoise, or rotate the problem)."
            )
        return found

    @cached_property
    def preconditioner(self) -> sp.ImmutableMatrix:
        """S on the manifold as a function of the coordinates, (d, 1)."""
        return sp.ImmutableMatrix([slope(self.kink, m) for m in self.noise_moments])

    @cached_property
    def _noise_parts(self) -> tuple[sp.Matrix, dict[sp.Symbol, sp.Expr]]:
        """Sigma' with symbols for what the kink adds, and their values: they would only burden the algebra."""
        sigma, m = sp.Matrix(self.problem.covariance), self.noise_moments
        S = list(self.preconditioner)
        names: dict[sp.Expr, sp.Symbol] = {}

        def named(value: sp.Expr) -> sp.Expr:
            return value if value.is_number else names.setdefault(value, sp.Dummy(f"kink{len(names)}", positive=True))

        def entry(i: int, j: int) -> sp.Expr:
            if i > j:
                i, j = j, i
            value = combine(sigma[i, j])
            if value == 0:
                return value
            s_i, s_j = (self.kink.gain * sp.sqrt(v) for v in (m[i], m[j]))
            proportional = i == j or is_zero(value**2 - m[i] * m[j])
            rho = sp.Integer(1) if proportional else value / sp.sqrt(m[i] * m[j])
            extra = excess(self.kink, rho, s_i, s_j, self.problem)
            if proportional:  # the correlation is +-1: what the kink adds is odd in it, and the entry carries the sign
                return value * named(1 + extra / (S[i] * S[j] * sp.sqrt(m[i] * m[j])))
            return named(value + extra / (S[i] * S[j]))

        matrix = sp.Matrix(sigma.rows, sigma.cols, entry)
        return matrix, {symbol: value for value, symbol in names.items()}

    @cached_property
    def effective_noise(self) -> sp.ImmutableMatrix:
        """Sigma' with S Sigma' S the covariance of the step: the noise, and what the kink adds to it, (d, d)."""
        matrix, values = self._noise_parts
        return sp.ImmutableMatrix(matrix.xreplace(values))

    @cached_property
    def _thaw(self) -> dict[sp.Symbol, sp.Expr]:
        return {**super()._thaw, **self._noise_parts[1]}

    @cached_property
    def geometry(self) -> Geometry:
        """Tangent, normal, Hessian and effective noise in the metric S^-1."""
        return geometry(self.problem, scaled=True, noise=sp.ImmutableMatrix(self._noise_parts[0]))

    @cached_property
    def frozen_terms(self) -> Terms:
        terms = self._engine.terms()
        change = self._change_of_scale()
        if not any(change):
            return terms
        return replace(terms, flatness=sp.ImmutableMatrix(sp.Matrix(terms.flatness) + change))

    def _change_of_scale(self) -> sp.Matrix:
        """-gain G^-1 T^T S^-1 w, w_i = sum_a dS_i/dz_a (V H)_ai: S and the gradient fluctuate together."""
        g = self.geometry
        slopes = self._slope_gradients
        if not any(slopes):
            return sp.zeros(g.k, 1)
        VH = self._engine.pulled_variance()
        w = sp.Matrix([sum(slopes[i, a] * VH[a, i] for a in range(VH.rows)) for i in range(VH.rows)])
        return -self._engine.gain * sp.Matrix(g.express(g.T_left)) * w

    @cached_property
    def _slope_gradients(self) -> sp.Matrix:
        """dS_i/dz_a at the manifold, (d, d): of the noise's own variance at z, or at the manifold point that belongs to z."""
        problem = self.problem
        z = problem.parameters
        noise = problem.require_noise()
        if isinstance(noise, LabelNoise):
            J = problem.residual_jacobian
            variances = [4 * problem.scale**2 * noise.sigma**2 * sum(J[r, i] ** 2 for r in range(J.rows)) for i in range(J.cols)]
            rows = [[problem.chart.restrict(v.diff(a)) for a in z] for v in variances]
        else:
            ambient = problem.chart.require_coordinate_map()
            change = [[problem.chart.restrict(c.diff(a)) for a in z] for c in ambient]
            rows = [
                [sum((m.diff(u) * change[k][a] for k, u in enumerate(self.coordinates)), start=sp.Integer(0)) for a in range(len(z))]
                for m in self.noise_moments
            ]
        variance = sp.Dummy("variance", positive=True)
        derivative = slope(self.kink, variance).diff(variance)
        found = sp.zeros(len(z), len(z))
        for i, m in enumerate(self.noise_moments):
            for a in range(len(z)):
                value = rows[i][a]
                if value != 0 and not is_zero(value):
                    found[i, a] = derivative.xreplace({variance: m}) * combine(value)
        return found

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        """Stability of the linearised rule (lambda an eigenvalue of S H), and what the linearisation neglects."""
        noisy = self.geometry.has_tangent_noise
        return (
            *when.stability(make_filter(self.linear)),
            *when.assumptions(noisy, self.preconditioned.has_force),
            when.Condition(
                "kink", f"the gradient's fluctuation H V H stays far below the noise that smooths the {self.kink.kind}, Sigma_ii"
            ),
            when.Condition("assumption", "the noise is Gaussian: the average over a kink depends on its joint law"),
        )

    def complete(self, values: Mapping[str, float], point: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return point

    def adiabatic(self) -> Any:
        raise RuleError(f"{self.rule.name} has no slow states: adiabatic() is for rules with them; the result is final as it is.")


__all__ = ["Kink", "StatisticalResult", "find_kink", "has_kink", "linearised", "settling_rule"]
