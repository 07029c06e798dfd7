"""Slow dynamics of rules with slow states: the coupled system of coordinates and preconditioner, and its adiabatic limit.

With S frozen the reduction is that of a linear filter in the metric S^-1 (theory, section 6); the slow states then
follow dv/dk = E[v' - v], where E[g_i^2] = Sigma_ii + (H V H)_ii, and where that vanishes identically the next moment
[(tr T_i V)^2 + 2 tr(T_i V T_i V)]/4, T_i the i-th slice of the third derivative.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import sympy as sp

from quasistatic.algebra.field import is_zero
from quasistatic.derivation import conditions as when
from quasistatic.derivation import potential, separable
from quasistatic.derivation.averaging import third_derivatives
from quasistatic.derivation.geometry import Geometry, geometry, scale_symbols
from quasistatic.derivation.kernel import Filter, make_filter
from quasistatic.derivation.reduction import Reduction, Terms, combine
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.slow_states import Moments, Preconditioned, SlowState, preconditioned_rule
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import NoPotential, RuleError, SlowStateWarning, StartError, UnstableError
from quasistatic.symbols import BlockMean, Mean, exact

#: A slow state whose rate is more than this fraction of the fast rate is not slow.
FAST_STATE = 0.5
#: Iterations of the fixed point for slow states whose equilibrium is implicit.
EQUILIBRIUM_ITERATIONS = 500


@dataclass(frozen=True)
class PreconditionedReduction(Reduction):
    """The reduction in units of S; results are in the frozen symbols S_x, S_y, ... of the geometry."""

    rule: Preconditioned | None = None

    @property
    def has_force(self) -> bool:
        return self._rule.has_force

    @property
    def _rule(self) -> Preconditioned:
        assert self.rule is not None
        return self.rule

    def _force(self) -> sp.Matrix:
        """Pull and shift may depend on the slow states of the coordinate; at leading order they keep their own."""
        g = self.geometry
        names = slow_symbols(self._rule, g.problem)
        phi = g.problem.chart.embedding
        moved = []
        for i, z in enumerate(phi):
            at = at_coordinate(self._rule, g.problem, names, i)
            moved.append(at(self._rule.pull) * z + at(self._rule.shift))
        return sp.Matrix(g.express(g.T_left)) * sp.Matrix(moved)

    def pulled_variance(self) -> sp.Matrix:
        """V H with V_ij = K(lambda_i, lambda_j) Sigma_ij for all pairs but tangent-tangent, (d, d)."""
        g = self.geometry
        kernel = self.filter.kernel
        pull = g._reduced(g.H * g.N)
        total = sp.zeros(*g.H.shape)
        if g.has_normal_noise:
            total += self._folded(self._normal_sum(self.order.kernel(kernel)), g.N, pull)
        if g.has_cross_noise:
            total += self._folded(self._cross_sum(self.order.kernel(kernel.at_zero())), g.T, pull)
        return total

    def gradient_moments(self) -> list[sp.Expr]:
        """(H V H)_ii, the mean square of the loss's own gradient at equilibrium, as functions of the frozen S."""
        g = self.geometry
        if not g.has_normal_noise:
            return [sp.Integer(0)] * g.H.shape[0]
        pull = g._reduced(g.H * g.N)
        moved = self._folded(self._normal_sum(self.order.kernel(self.filter.kernel)), pull, pull)
        return [combine(moved[i, i]) for i in range(moved.rows)]

    def block(self, a: int, b: int) -> sp.Matrix:
        scales = scale_symbols(self.geometry.problem)
        p, q = self._rule.powers[a] - 1, self._rule.powers[b] - 1
        plain = super().block(a, b)
        if p == q == 0:
            return plain
        return sp.Matrix(plain.rows, plain.cols, lambda i, j: combine(plain[i, j] * scales[i] ** p * scales[j] ** q))


def slow_symbols(rule: Preconditioned, problem: Any) -> dict[str, tuple[sp.Symbol, ...]]:
    """Slow state to its positive symbols per parameter: v to (v_x, v_y)."""
    return {s.state.name: tuple(sp.Symbol(f"{s.state.name}_{p.name}", positive=True) for p in problem.parameters) for s in rule.slow}


def mean_members(problem: Any, node: sp.Expr, i: int) -> Sequence[int]:
    """Indices that ``qs.mean`` or ``qs.block_mean`` runs over at coordinate i."""
    parameters = list(problem.parameters)
    if isinstance(node, Mean):
        return range(len(parameters))
    block = next(b for b in problem.blocks if parameters[i] in b)
    return [parameters.index(p) for p in block]


def at_coordinate(rule: Preconditioned, problem: Any, values: Mapping[str, Sequence[sp.Expr]], i: int) -> Any:
    """A function that puts the slow states' values at coordinate i into an expression; means run over their coordinates."""

    def put(e: sp.Expr, j: int) -> sp.Expr:
        if isinstance(e, (Mean, BlockMean)):
            members = mean_members(problem, e, j)
            return sum(put(e.args[0], k) for k in members) / len(members)
        if e.has(Mean, BlockMean):
            return e.func(*(put(a, j) for a in e.args))
        return e.xreplace({s.symbol: values[s.state.name][j] for s in rule.slow})

    return lambda e: put(e, i)


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveResult(SlowResult):
    """Slow dynamics of a rule with slow states.

    ``mode`` is "coupled" (coordinates, then every slow state of every parameter) or "adiabatic" (slow states at their
    equilibrium, the coordinates alone).
    """

    mode: str = "coupled"

    def __reduce__(self) -> Any:
        return type(self), (self.rule, self.problem, self.time_kind, self.order, self.route, self.mode)

    # -- the rule ------------------------------------------------------------------------------------------------------

    @cached_property
    def preconditioned(self) -> Preconditioned:
        """The frozen rule: filter, preconditioner, slow states."""
        return preconditioned_rule(self.rule)

    @cached_property
    def linear(self) -> LinearRule:
        """The filter behind the preconditioner, in units of S."""
        return self.preconditioned.linear

    @cached_property
    def filter(self) -> Filter:
        """Polynomials of the filter, memories included."""
        return make_filter(self.linear, memories=True)

    @cached_property
    def slow_state(self) -> tuple[sp.Symbol, ...]:
        """Coordinates, then each slow state per parameter; the coordinates alone where those are at equilibrium."""
        if self.mode == "adiabatic":
            return self.coordinates
        return (*self.coordinates, *(s for row in self._names.values() for s in row))

    @cached_property
    def state(self) -> tuple[sp.Symbol, ...]:
        """The n symbols of the fast state: parameters, then every fast state for every parameter (m_x, m_y, ...)."""
        fast = self.preconditioned.fast_states
        return (*self.problem.parameters, *(sp.Symbol(f"{s.name}_{p.name}", real=True) for s in fast for p in self.problem.parameters))

    @cached_property
    def _names(self) -> dict[str, tuple[sp.Symbol, ...]]:
        return slow_symbols(self.preconditioned, self.problem)

    @cached_property
    def scales(self) -> tuple[sp.Symbol, ...]:
        """The frozen preconditioner's symbols S_x, S_y, ..., one per parameter."""
        return scale_symbols(self.problem)

    @cached_property
    def preconditioner(self) -> sp.ImmutableMatrix:
        """S, the diagonal preconditioner without the learning rate, as a function of ``slow_state``; (d, 1)."""
        values = self._slow_values
        return sp.ImmutableMatrix([self._at(i, values)(self.preconditioned.scale) for i in range(len(self.scales))])

    def _at(self, i: int, values: Mapping[str, Sequence[sp.Expr]]) -> Any:
        return at_coordinate(self.preconditioned, self.problem, values, i)

    # -- the reduction at frozen S -------------------------------------------------------------------------------------

    @cached_property
    def geometry(self) -> Geometry:
        """Tangent, normal, Hessian and noise blocks of the problem in the metric S^-1."""
        return geometry(self.problem, scaled=True)

    @cached_property
    def _engine(self) -> PreconditionedReduction:
        return PreconditionedReduction(make_filter(self.linear), self.geometry, self.order, self.preconditioned)

    @cached_property
    def frozen_terms(self) -> Terms:
        """The parts of the coordinates' drift as functions of the coordinates and the frozen S; (k, 1) each."""
        return self._engine.terms()

    @cached_property
    def terms(self) -> Terms:
        """The parts of the coordinates' drift: flatness, correlation, Ito, small forces; (k, 1) each, per iteration."""
        frozen = self.frozen_terms
        return Terms(*(self._thawed(m) for m in (frozen.flatness, frozen.correlation, frozen.ito, frozen.force)))

    def _thawed(self, matrix: sp.Matrix) -> sp.ImmutableMatrix:
        """A matrix with the preconditioner's and the slow states' values in place of frozen symbols."""
        return sp.ImmutableMatrix(sp.Matrix(matrix).xreplace(self._thaw))

    @cached_property
    def _thaw(self) -> dict[sp.Symbol, sp.Expr]:
        thaw = dict(zip(self.scales, self.preconditioner, strict=True))
        if self.mode == "adiabatic":
            for name, row in self._names.items():
                thaw.update(zip(row, self._slow_values[name], strict=True))
        return thaw

    @cached_property
    def drift(self) -> sp.ImmutableMatrix:
        """E[du] of the coordinates, Ito term included, then dv/dk of the slow states; shape (slow states, 1), per iteration."""
        coordinates = list(self._total())
        if self.mode == "adiabatic":
            return sp.ImmutableMatrix(coordinates)
        return sp.ImmutableMatrix([*coordinates, *(row for s in self.preconditioned.slow for row in self._slow_drift(s))])

    def _total(self) -> sp.ImmutableMatrix:
        return self._thawed(self.frozen_terms.total)

    @cached_property
    def frozen_diffusion(self) -> sp.ImmutableMatrix:
        """Diffusion of the coordinates as a function of the frozen S, (k, k)."""
        return self._engine.diffusion()

    @cached_property
    def diffusion(self) -> sp.ImmutableMatrix:
        """Covariance of the slow state's step per iteration; a slow state's own noise is of higher order, 0 here."""
        D = self._thawed(self.frozen_diffusion)
        n = len(self.slow_state)
        return sp.ImmutableMatrix(sp.diag(D, sp.zeros(n - D.rows, n - D.rows)) if n > D.rows else D)

    @property
    def ito(self) -> sp.ImmutableMatrix:
        """The Ito part of the drift, of the shape of ``drift``."""
        rest = len(self.slow_state) - len(self.coordinates)
        return sp.ImmutableMatrix([*self.terms.ito, *([0] * rest)])

    @cached_property
    def frozen_metric(self) -> sp.ImmutableMatrix:
        """``metric`` as a function of the frozen S, (k, k)."""
        return self._engine.metric()

    @cached_property
    def metric(self) -> sp.ImmutableMatrix:
        """Induced metric T^T S^-1 T of the manifold in the coordinates, (k, k)."""
        return self._thawed(self.frozen_metric)

    @cached_property
    def frozen_covariance(self) -> sp.ImmutableMatrix:
        """``covariance`` as a function of the frozen S."""
        full = PreconditionedReduction(self.filter, self.geometry, self.order, self.preconditioned)
        return full.covariance()

    @cached_property
    def covariance(self) -> sp.ImmutableMatrix:
        """Equilibrium covariance of the fast part of ``state``, (n, n)."""
        return self._thawed(self.frozen_covariance)

    @cached_property
    def frozen_variance(self) -> sp.Matrix:
        """The parameters' block V as a function of the frozen S, (d, d)."""
        return self._engine.block(0, 0)

    @cached_property
    def variance(self) -> sp.ImmutableMatrix:
        """The parameters' block V of ``covariance``, (d, d)."""
        return self._thawed(self.frozen_variance)

    # -- the slow states -----------------------------------------------------------------------------------------------

    @property
    def moment_symbols(self) -> tuple[sp.Symbol, ...]:
        """Symbols M_x, M_y, ... of the second moments E[g_i^2], one per parameter."""
        return tuple(sp.Symbol(f"M_{p.name}", positive=True) for p in self.problem.parameters)

    @property
    def second_moments(self) -> tuple[sp.Expr, ...]:
        """E[g_i^2] at this order, as functions of the coordinates and the frozen S, one per parameter."""
        return self._second_moments

    @cached_property
    def frozen_slow_drift(self) -> dict[sp.Symbol, sp.Expr]:
        """Slow state to dv/dk as a function of the slow states and of ``moment_symbols``."""
        moments = self._moments(self.moment_symbols)
        found: dict[sp.Symbol, sp.Expr] = {}
        for slow in self.preconditioned.slow:
            found.update(zip(self._names[slow.state.name], self._rates(slow, moments), strict=True))
        return found

    def _slow_drift(self, slow: SlowState) -> list[sp.Expr]:
        return [row.xreplace(self._thaw) for row in self._rates(slow, self._moments(self._second_moments))]

    def _rates(self, slow: SlowState, moments: Moments) -> list[sp.Expr]:
        rows = []
        for i, v in enumerate(self._names[slow.state.name]):
            equilibrium = slow.equilibrium(i, moments)
            rows.append(slow.mean_source(i, moments) if equilibrium is None else slow.rate * (equilibrium - v))
        return rows

    def _moments(self, squares: Sequence[sp.Expr]) -> Moments:
        phi = self.problem.chart.embedding
        return Moments(lambda i: squares[i], lambda i: phi[i], lambda node, i: mean_members(self.problem, node, i))

    @cached_property
    def noise_moments(self) -> tuple[sp.Expr, ...]:
        """Sigma_ii on the manifold; 0 exactly where it vanishes identically."""
        sigma = self.problem.covariance
        return tuple(with_sines(combine(sigma[i, i])) for i in range(sigma.rows))

    @cached_property
    def _second_moments(self) -> tuple[sp.Expr, ...]:
        """E[g_i^2] as functions of the coordinates and the frozen S."""
        return tuple(self._second_moment(i, noise) for i, noise in enumerate(self.noise_moments))

    @cached_property
    def _gradient_moments(self) -> list[sp.Expr]:
        return self._engine.gradient_moments()

    def _second_moment(self, i: int, noise: sp.Expr) -> sp.Expr:
        if noise != 0 and self._fluctuation_is_small:
            return noise
        moving = self._gradient_moments[i]
        if noise != 0 or moving != 0:
            return noise + moving
        TV = third_derivatives(self.problem)[i] * self.frozen_variance
        return combine((TV.trace() ** 2 + 2 * (TV * TV).trace()) / 4)

    @property
    def _fluctuation_is_small(self) -> bool:
        """Whether H V H is of higher order than Sigma in the expansion that is asked for."""
        symbol = self.order.symbol
        if symbol is None:
            return False
        kernel = self._engine.filter.kernel
        return bool(kernel.numer) and symbol in leading_symbols(kernel) and kernel.order(symbol) > 0

    @cached_property
    def equilibrium(self) -> dict[sp.Symbol, sp.Expr]:
        """Slow state to its equilibrium on the manifold, as functions of the coordinates.

        At leading order v = V(Sigma), also where that is 0 and eps bounds S. The exact result adds the fluctuation's own
        gradient, H V H, with the V that belongs to v = V(Sigma): an error of second order in the learning rate.

        Raises
        ------
        RuleError
            Where nothing is forgotten (an accumulator), or a second moment vanishes with the noise, so that the
            equilibrium is known only implicitly.
        """
        first = self.explicit_equilibrium
        if self._fluctuation_is_small:
            return first
        values = {name: [first[s] for s in row] for name, row in self._names.items()}
        scales = {s: self._at(i, values)(self.preconditioned.scale) for i, s in enumerate(self.scales)}
        return self._rest(tuple(m.xreplace(scales) for m in self._second_moments))

    @cached_property
    def explicit_equilibrium(self) -> dict[sp.Symbol, sp.Expr]:
        """v = V(Sigma), short also where the result is exact; raises like ``equilibrium``."""
        first = self._rest(self.noise_moments)
        implicit = [s.name for s, value in first.items() if value == 0]
        if implicit and not (self._fluctuation_is_small and self._bounded(first)):
            raise RuleError(
                f"the equilibrium of {', '.join(implicit)} is implicit: the noise does not reach that coordinate,"
                f" so its second moment comes"
                " from the fluctuation, which depends on it in turn. The coupled system has it: use slow.drift, slow.compile(...) without"
                " adiabatic()."
            )
        return first

    def _bounded(self, rest: Mapping[sp.Symbol, sp.Expr]) -> bool:
        """Whether S stays finite where a second moment vanishes (eps > 0): at leading order it then vanishes indeed."""
        values = {name: [rest[s] for s in row] for name, row in self._names.items()}
        scales = [self._at(i, values)(self.preconditioned.scale) for i in range(len(self.scales))]
        return not any(S.has(sp.zoo, sp.nan, sp.oo) for S in scales)

    def _rest(self, squares: Sequence[sp.Expr]) -> dict[sp.Symbol, sp.Expr]:
        moments = self._moments(squares)
        found = {}
        for slow in self.preconditioned.slow:
            for i, symbol in enumerate(self._names[slow.state.name]):
                value = slow.equilibrium(i, moments)
                if value is None:
                    raise RuleError(
                        f"{self.rule.name}: {slow.state.name} forgets nothing ({slow.state.name}' = {slow.state.name} + ...),"
                        f" so it grows for"
                        " ever and has no equilibrium: adiabatic() has no meaning. Its law is the coupled system (slow.drift)."
                    )
                found[symbol] = value
        return found

    @cached_property
    def _slow_values(self) -> dict[str, tuple[sp.Expr, ...]]:
        """Values of the slow states: their symbols, or their equilibrium."""
        if self.mode != "adiabatic":
            return dict(self._names)
        rest = self.equilibrium
        return {name: tuple(rest[s] for s in row) for name, row in self._names.items()}

    def adiabatic(self) -> Self:
        """The same with the slow states at their equilibrium: the coordinates alone. Nothing is computed yet."""
        self._require_forgetting()
        return replace(self, mode="adiabatic")

    def _require_forgetting(self) -> None:
        for slow in self.preconditioned.slow:
            if slow.equilibrium(0, self._moments([sp.Symbol("M", positive=True)] * len(self.scales))) is None:
                self._rest([sp.Symbol("M", positive=True)] * len(self.scales))

    # -- potentials ----------------------------------------------------------------------------------------------------

    @cached_property
    def _potential(self) -> sp.Expr:
        if self.mode != "adiabatic":
            return self.adiabatic()._potential
        force = self._force_potential()
        strength = self._noise_strength
        if strength is not None and self._fluctuation_is_small:
            try:
                return self._separable_potential(strength) + force
            except potential.NoClosedForm as error:
                raise potential.NoClosedForm(
                    f"the potential exists, a sum of F(h_i) over the coordinates, but {error} flow.regularizer(u) of a compiled flow"
                    " integrates it."
                ) from None
            except NoPotential:  # S is not a function of one second moment: the one-form decides
                pass
        drift = self.terms.flatness + self.terms.correlation
        omega = -(sp.Matrix(self.metric) * sp.Matrix(drift))
        return potential.integrate(omega, self.coordinates) + force

    @cached_property
    def _noise_strength(self) -> sp.Expr | None:
        """alpha where the noise is alpha * Hessian with a constant alpha (label noise), else None."""
        H, Sigma = self.problem.hessian, self.problem.covariance
        entry = next((e for e in range(len(H)) if H[e] != 0), None)
        if entry is None:
            return None
        ratio = combine(Sigma[entry] / H[entry])
        if ratio.free_symbols & set(self.coordinates) or ratio == 0:
            return None
        return ratio if is_zero(list(sp.Matrix(Sigma) - ratio * sp.Matrix(H))) else None

    def _separable_potential(self, alpha: sp.Expr) -> sp.Expr:
        """gain^2 alpha/4 * sum_i F(h_i), F' = S at the slow states' equilibrium under label noise (theory, section 6)."""
        h = sp.Symbol("h", positive=True)
        density = separable.scale_at_equilibrium(self.preconditioned, alpha * h)
        F = separable.primitive(density, h)
        curvature = self._own_curvatures()
        gain = self.order.scalar(self.linear.gain)
        return gain**2 * alpha / 4 / self.linear.dt * sp.Add(*(F.xreplace({h: c}) for c in curvature))

    def _own_curvatures(self) -> list[sp.Expr]:
        """For every coordinate the curvature that its slow state follows: H_ii, or the mean over its block."""
        H = self.problem.hessian
        node = separable.mean_node(self.preconditioned)
        found = []
        for i in range(H.rows):
            members = [i] if node is None else mean_members(self.problem, node, i)
            found.append(with_sines(combine(sum(H[j, j] for j in members) / len(members))))
        return found

    def _force_potential(self) -> sp.Expr:
        """A force -c S z (coupled decay) descends c |z|^2/2; any other must be closed by itself."""
        force = sp.Matrix(self.terms.force)
        if not any(force):
            return sp.Integer(0)
        rule = self.preconditioned
        constant = combine(rule.pull / rule.scale / self.linear.dt)
        if rule.shift == 0 and not constant.free_symbols & {s.symbol for s in rule.slow}:
            return combine(-constant * sum(p**2 for p in self.problem.chart.embedding) / 2)
        omega = -(sp.Matrix(self.metric) * force)
        try:
            return potential.integrate(sp.Matrix([combine(x) for x in omega]), self.coordinates)
        except potential.NoClosedForm:
            raise
        except NoPotential as error:
            raise NoPotential(f"the small force ({', '.join(rule.forces) or 'of the rule'}) has no potential: {error}") from None

    def lyapunov(self) -> sp.Expr:
        """A joint function E(u, v) that the coupled flow descends, for label noise at leading order (theory, section 6).

        E = sum_i [alpha h_i S(v_i) - g(v_i)], g'(v) = v S'(v), in this normalisation: the coordinates follow
        -(gain^2/4) G^-1 dE/du, G = T^T S^-1 T.

        Raises
        ------
        NoPotential
            Where the noise is not a constant times the Hessian, S is not a function of one slow state of its own
            coordinate (or block), or a small force acts.
        """
        alpha = self._noise_strength
        if alpha is None:
            raise NoPotential("lyapunov() needs label noise: a covariance that is a constant times the Hessian.")
        if self.preconditioned.has_force:
            raise NoPotential(f"lyapunov() does not know the small force ({', '.join(self.preconditioned.forces)}).")
        slow = separable.own_state(self.preconditioned)
        names = self._names[slow.state.name]
        S = self.preconditioned.scale
        g = separable.primitive(slow.symbol * S.diff(slow.symbol), slow.symbol)
        factor = separable.input_factor(self.preconditioned)
        terms = [
            factor * alpha * c * S.xreplace({slow.symbol: v}) - g.xreplace({slow.symbol: v})
            for c, v in zip(self._own_curvatures(), names, strict=True)
        ]
        return sp.Add(*terms)

    # -- when it holds -------------------------------------------------------------------------------------------------

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        """When the result holds; lambda is an eigenvalue of S H."""
        noisy = any(x != 0 for x in self._engine.diffusion())
        law = make_filter(self.linear)
        return when.together(when.stability(law), when.assumptions(noisy, self.preconditioned.has_force), when.frozen(self.preconditioned))

    def complete(self, values: Mapping[str, float], point: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """A point of ``slow_state``: slow states that are not given are at their equilibrium, found by iteration.

        Raises
        ------
        StartError
            Where there is no equilibrium to start from.
        """
        names = {str(k) for k in point}
        wanted = [s for s in self.slow_state if s.name not in names and s not in self.coordinates]
        if not wanted or not all(c.name in names for c in self.coordinates):
            return point
        here = {**values, **{str(k): float(exact(v, str(k))) for k, v in point.items()}}
        return {**point, **self._equilibrium_numbers(here, wanted)}

    def _equilibrium_numbers(self, here: dict[str, float], wanted: Sequence[sp.Symbol]) -> dict[str, float]:
        try:
            rows = dict(self._rest(self._second_moments))
        except RuleError as error:
            raise StartError(f"start: give {', '.join(s.name for s in wanted)} a value; {error}") from None
        now = {s.name: 1.0 for s in wanted}
        for s in wanted:
            first = when.numbers([self._first_guess[s]], here)[0]
            now[s.name] = float(first) if first > 0 else 1e-8
        for _ in range(EQUILIBRIUM_ITERATIONS):
            point = {**here, **now}
            scales = dict(zip((s.name for s in self.scales), self.scale_numbers(point), strict=True))
            target = when.numbers([rows[s] for s in wanted], {**point, **scales})
            new = {s.name: float(np.sqrt(max(v, 0.0) * now[s.name])) for s, v in zip(wanted, target, strict=True)}
            if all(abs(new[n] - now[n]) <= 1e-13 * now[n] for n in now):
                break
            now = new
        return new

    @cached_property
    def _first_guess(self) -> dict[sp.Symbol, sp.Expr]:
        return self._rest(self.noise_moments)

    def check(self, values: Mapping[str, float], point: Mapping[str, float] | None = None) -> None:
        """Raise UnstableError where numbers are outside the conditions; as for rules without slow states."""
        self._require_closed_functions()
        law = make_filter(self.linear)
        found: list[float] = []
        if point is not None:
            found = self.curvatures({**values, **point}).tolist()
        where = ", ".join(f"{k}={v:.6g}" for k, v in (point or {}).items())
        when.require_stable(law, self.conditions, values, found, where)
        if point is not None:
            self._warn_of_fast_states({**values, **point}, found)

    def _warn_of_fast_states(self, here: Mapping[str, float], found: Sequence[float]) -> None:
        """Freezing a state that is as fast as what it should be frozen against: warn with the ratio."""
        for name, ratio in self.state_ratios(here, found).items():
            if ratio > FAST_STATE:
                warnings.warn(
                    f"{self.rule.name}: the slow state {name} is not slow: its rate is {ratio:.3g} times the fast rate at"
                    f" {', '.join(f'{c.name}={here[c.name]:.6g}' for c in self.coordinates)}, and the theory freezes it. Bring the factor"
                    f" in its average (beta2) closer to 1, or take a larger learning rate.",
                    SlowStateWarning,
                    stacklevel=4,
                )

    def state_ratios(self, here: Mapping[str, float], found: Sequence[float]) -> dict[str, float]:
        """Slow state to its rate against the fast rate, at a point where ``found`` are the curvatures."""
        fast = when.fast_rate(make_filter(self.linear), found, here)
        rates = when.numbers([s.rate for s in self.preconditioned.slow], here)
        return {s.state.name: float(rate / fast) for s, rate in zip(self.preconditioned.slow, rates, strict=True)}

    def curvatures(self, here: Mapping[str, float]) -> np.ndarray:
        """Eigenvalues of S^1/2 H S^1/2 across the manifold at a point of ``slow_state``, ascending."""
        S = self.scale_numbers(here)
        return when.curvatures(self.problem, here, np.sqrt(S))

    def scale_numbers(self, here: Mapping[str, float]) -> np.ndarray:
        """The preconditioner (d,) at a point of ``slow_state``."""
        S = when.numbers(list(self.preconditioner), here)
        if not np.all(np.isfinite(S)) or np.any(S <= 0):
            names = ", ".join(p.name for p, s in zip(self.problem.parameters, S, strict=True) if not (np.isfinite(s) and s > 0))
            raise UnstableError(
                f"the preconditioner of {names} is not a positive number there: a second moment vanishes and nothing (eps) bounds it."
            )
        return S

    def rest(self, values: Mapping[str, float], point: Mapping[str, float]) -> Any:
        """The resting fast state (n,) above a point, as numbers."""
        here = {**values, **point}
        z = when.numbers(list(self.problem.chart.embedding), here)
        S = self.scale_numbers(here)
        fixed = when.numbers(list(self.linear.fixed), here)
        return np.concatenate([f * S ** (p - 1) * z for f, p in zip(fixed, self.preconditioned.powers, strict=True)])

    def fast_rate(self, values: Mapping[str, float], point: Mapping[str, float]) -> float:
        """1 - spectral radius of the fast subspace at a point, per iteration."""
        return when.fast_rate(make_filter(self.linear), self.curvatures({**values, **point}).tolist(), values)


def with_sines(e: sp.Expr) -> sp.Expr:
    """(1 - cos)(1 + cos) in a product written sin^2, whose root is |sin|."""
    factors = list(sp.Mul.make_args(e))
    for c in e.atoms(sp.cos):
        while 1 - c in factors and 1 + c in factors:
            factors.remove(1 - c)
            factors.remove(1 + c)
            factors.append(sp.sin(c.args[0]) ** 2)
    return sp.Mul(*factors)


def leading_symbols(kernel: Any) -> set[sp.Symbol]:
    """Hyperparameters that a kernel is a power series in."""
    return {kernel.meaning.get(s, s) for s in kernel.ring.symbols[:-2]}


__all__ = ["AdaptiveResult", "PreconditionedReduction", "slow_symbols"]
