"""The continuous form of rules with slow states: the papers' SDE in t = k*eta^2, with its momentum kept.

Under the scaling eta = e, 1 - beta_i = c_i e^2, eps = eps0/e, v = u/e^2 and noise Sigma = Sigma0/e^2 the memory forgets on the
slow time itself. Across the minima parameter and memory are taken to be in equilibrium;"
" along them the memory is slow:

    du/dt = -(1/eta) G^-1 m,    dm/dt = c_1 (1/2 <dH/du, V> - m),    dv/dt = c_2 (V(Sigma) - v),    G = T^T S^-1 T,

m the momentum's components T^T m (quasistatic paper, eqs 24-27 and 40-55). ``overdamped()`` eliminates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import sympy as sp

from quasistatic.algebra.equations import solve_field
from quasistatic.algebra.field import normal
from quasistatic.derivation import conditions as when
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.kernel import make_filter
from quasistatic.derivation.reduction import combine
from quasistatic.derivation.scaling import _order, continuous_rule
from quasistatic.derivation.slow_states import Preconditioned, preconditioned_rule
from quasistatic.derivation.structure import LinearRule, _tidy_matrix
from quasistatic.errors import RuleError
from quasistatic.model.rule import Scaling, Trace
from quasistatic.symbols import expression

#: The slow time.
TIME = sp.Symbol("t", positive=True)


@dataclass(frozen=True)
class Scaled:
    """The equations in the constants of the declared scaling: the papers' own form.

    Attributes
    ----------
    slow_state:
        Coordinates, momenta, then slow states in their scaled form (u = eta^2 v).
    drift, diffusion:
        Per unit of t, in the scaling's constants (c1, c2, eps0) and the scaled noise strength (sigma0 = eta*sigma,
        alpha0 = eta^2*alpha).
    variance:
        The parameters' equilibrium covariance, (d, d).
    """

    slow_state: tuple[sp.Symbol, ...]
    drift: sp.ImmutableMatrix
    diffusion: sp.ImmutableMatrix
    variance: sp.ImmutableMatrix


@dataclass(frozen=True, eq=False, repr=False)
class KineticResult(AdaptiveResult):
    """Slow dynamics in continuous time of a rule with slow states.

    ``momentum`` says whether the momentum along the manifold is kept, ``transient`` whether bias corrections keep their
    time dependence, gamma_i(t) = 1 - exp(-c_i t); the time t is then the last entry of ``slow_state``.
    """

    momentum: bool = True
    transient: bool = False

    def __reduce__(self) -> Any:
        return type(self), (
            self.rule, self.problem, self.time_kind, self.order, self.route, self.mode, self.momentum, self.transient,
        )  # fmt: skip

    @cached_property
    def _transients(self) -> dict[sp.Symbol, sp.Expr]:
        """Symbols in place of powers base**t, and what they are: exp(-(1 - base) t/dt)."""
        return {} if not self.transient else dict(self._frozen[1])

    @cached_property
    def _frozen(self) -> tuple[Preconditioned, Mapping[sp.Symbol, sp.Expr]]:
        if not self.transient:
            return preconditioned_rule(self.rule), MappingProxyType({})
        powers: dict[sp.Symbol, sp.Expr] = {}
        rule = preconditioned_rule(self.rule, powers)
        scaling = _require_scaling(self.rule)
        dt = scaling.dt.xreplace(self.rule.fixed_symbols)
        return rule, MappingProxyType({s: sp.exp(-(1 - base) * TIME / dt) for s, base in powers.items()})

    @cached_property
    def preconditioned(self) -> Preconditioned:
        return self._frozen[0]

    @cached_property
    def linear(self) -> LinearRule:
        return continuous_filter(self.preconditioned, set(self._transients))

    @property
    def _keeps_momentum(self) -> bool:
        return self.momentum and len(self.preconditioned.powers) > 1

    @cached_property
    def momenta(self) -> tuple[sp.Symbol, ...]:
        """The momentum's components along the manifold, m_u for every coordinate u; none where they are eliminated."""
        if not self._keeps_momentum:
            return ()
        (state,) = self.preconditioned.fast_states
        return tuple(sp.Symbol(f"{state.name}_{u.name}", real=True) for u in self.coordinates)

    @cached_property
    def slow_state(self) -> tuple[sp.Symbol, ...]:
        """Coordinates, momenta along the manifold, slow states per parameter, and the time t of a transient."""
        slow = () if self.mode == "adiabatic" else tuple(s for row in self._names.values() for s in row)
        return (*self.coordinates, *self.momenta, *slow, *((TIME,) if self.transient else ()))

    @property
    def _fluctuation_is_small(self) -> bool:
        return True

    def _second_moment(self, i: int, noise: sp.Expr) -> sp.Expr:
        return noise  # Sigma is of the order 1/e^2, everything else of the order 1

    @cached_property
    def equilibrium(self) -> dict[sp.Symbol, sp.Expr]:
        """v = V(Sigma); 0 where the noise does not reach a coordinate (the paper's eq. 47)."""
        return self._rest(self.noise_moments)

    @cached_property
    def _thaw(self) -> dict[sp.Symbol, sp.Expr]:
        thaw = super()._thaw
        return {k: expression(v).xreplace(self._transients) for k, v in thaw.items()}

    @cached_property
    def drift(self) -> sp.ImmutableMatrix:
        """Rates of ``slow_state`` per unit of t, (len(slow_state), 1)."""
        dt = self.linear.dt
        rows = self._kinetic() if self._keeps_momentum else list(self._total())
        if self.mode != "adiabatic":
            rows += [row / dt for s in self.preconditioned.slow for row in self._slow_drift(s)]
        return sp.ImmutableMatrix([*rows, *([1] if self.transient else [])])

    def _kinetic(self) -> list[sp.Expr]:
        A, b, dt = self.linear.A, self.linear.b, self.linear.dt
        g = self.geometry
        if g.has_cross_noise or g.has_tangent_noise:
            raise RuleError("the continuous form with momentum needs noise across the minima only; use overdamped().")
        m = sp.Matrix(self.momenta)
        engine = self._engine
        pull = sp.Matrix(engine.covector()) / 2
        inverse = self._thawed(_inverse(g))
        velocity = combine(A[0, 1] / dt) * (sp.Matrix(inverse) * m)
        force = self._thawed(engine.order.scalar(b[1] / dt) * pull)
        bend = self._bend(m, velocity)
        friction = [combine(A[1, 1] / dt) * p for p in m]
        total = [f + k + c for f, k, c in zip(force, friction, bend, strict=True)]
        forces = list(self._thawed(engine._rate(engine._force()))) if self.preconditioned.has_force else [0] * len(m)
        return [*(v + f for v, f in zip(velocity, forces, strict=True)), *total]

    def _bend(self, m: sp.Matrix, velocity: sp.Matrix) -> list[sp.Expr]:
        """On a curved manifold m = T^T (vector) changes with its basis: Gamma_{b,ac} m^b du^c/dt."""
        chart = self.problem.chart
        T, k = chart.tangent, len(self.coordinates)
        inverse = sp.Matrix(self._thawed(_inverse(self.geometry)))
        upper = inverse * m
        found = []
        for a in range(k):
            total: sp.Expr = sp.Integer(0)
            for b in range(k):
                for c in range(k):
                    second = chart.embedding.diff(self.coordinates[a], self.coordinates[c])
                    gamma = sum(second[i] * T[i, b] / s for i, s in enumerate(self.preconditioner))
                    if sp.expand(gamma) != 0:
                        total += gamma * upper[b] * velocity[c]
            found.append(total)
        return found

    @cached_property
    def diffusion(self) -> sp.ImmutableMatrix:
        """Covariance of the slow state's change per unit of t."""
        D = self._thawed(self._engine.diffusion())
        n = len(self.slow_state)
        return sp.ImmutableMatrix(sp.diag(D, sp.zeros(n - D.rows, n - D.rows)) if n > D.rows else D)

    def overdamped(self) -> Self:
        """The same with the momentum along the manifold eliminated: it follows the force at once (c_1 >> 1)."""
        return replace(self, momentum=False)

    def adiabatic(self) -> Self:
        if self.transient:
            raise RuleError("a transient keeps the slow states' own time dependence: adiabatic() has no meaning for it.")
        return super().adiabatic()

    @cached_property
    def _potential(self) -> sp.Expr:
        if self.transient:
            raise RuleError("a transient has no potential: its preconditioner depends on the time.")
        if self.momentum:
            return self.overdamped()._potential
        return super()._potential

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        found = (
            *when.stability(make_filter(self.linear)),
            *when.assumptions(self.geometry.has_tangent_noise, self.preconditioned.has_force),
        )
        if len(self.preconditioned.powers) > 1:
            found += (
                when.Condition(
                    "memory",
                    "parameter and memory across the minima are taken to be in equilibrium; their energy relaxes at the memory's own"
                    " rate c_1 of the slow time, so this needs c_1 >> 1 (1 - beta1 >> eta^2); below it the kinetic"
                    " closure of the energy is needed",
                ),
            )
        return found

    def scaled(self) -> Scaled:
        """The equations in the scaling's constants: c1, c2, eps0, u = eta^2 v, sigma0 = eta*sigma.

        Raises
        ------
        RuleError
            If the noise has no strength that can carry the scaling.
        """
        scaling = _require_scaling(self.rule)
        inward, slow = self._inward(scaling)

        def convert(matrix: sp.Matrix) -> sp.ImmutableMatrix:
            return sp.ImmutableMatrix(sp.Matrix(matrix).applyfunc(lambda x: _without(x.xreplace(inward), scaling.e)))

        drift = list(self.drift)
        offset = len(self.coordinates) + len(self.momenta)
        if self.mode != "adiabatic":  # du/dt = e^2 dv/dt
            names = [s for row in self._names.values() for s in row]
            for i, v in enumerate(names):
                drift[offset + i] = drift[offset + i] / inward[v].xreplace({slow[v]: 1})
        state = tuple(slow.get(s, s) for s in self.slow_state)
        return Scaled(state, convert(sp.Matrix(drift)), convert(sp.Matrix(self.diffusion)), convert(sp.Matrix(self.variance)))

    def _inward(self, scaling: Scaling) -> tuple[dict[sp.Symbol, sp.Expr], dict[sp.Symbol, sp.Symbol]]:
        """Own symbols to scaled ones with powers of e, and slow state to scaled slow state."""
        inward = {
            s: scaling.values[n] for n, s in self.rule.trace.hyperparameters.items() if n in scaling.values and n not in self.rule.fixed
        }
        positive = {c: sp.Symbol(c.name, positive=True) for v in inward.values() for c in v.free_symbols}
        inward = {s: v.xreplace(positive) for s, v in inward.items()}
        slow: dict[sp.Symbol, sp.Symbol] = {}
        for name, row in self._names.items():
            value = scaling.values.get(name)
            for s in row:
                if value is None:
                    slow[s] = s
                    continue
                (new,) = value.free_symbols - {scaling.e}
                slow[s] = sp.Symbol(s.name.replace(name, new.name, 1), positive=True)
                inward[s] = value.xreplace({new: slow[s], scaling.e: positive.get(scaling.e, scaling.e)})
        inward.update(self._noise_scaling(positive.get(scaling.e, scaling.e)))
        return inward, slow

    def _noise_scaling(self, e: sp.Symbol) -> dict[sp.Symbol, sp.Expr]:
        """The noise's strength is sigma0/e or alpha0/e^2: whichever makes Sigma = Sigma0/e^2."""
        sigma = sp.Matrix(self.problem.covariance)
        for s in sorted(sigma.free_symbols & set(self.problem.constants), key=str):
            for power in (1, 2):
                change = sigma.xreplace({s: s / e**power}) - sigma / e**2
                if all(normal(x) == 0 for x in change):
                    return {s: sp.Symbol(f"{s.name}0", positive=True) / e**power}
        raise RuleError(
            "scaled() needs a noise with a strength (HessianNoise(alpha), IsotropicNoise(sigma), ...)"
            " that can carry the scaling sigma = sigma0/eta."
        )


def _inverse(g: Any) -> sp.Matrix:
    eye = g.field.matrix(sp.eye(g.k))
    return sp.Matrix(g.express(g._reduced(solve_field(g.G, eye))))


def _without(expression: sp.Expr, e: sp.Symbol) -> sp.Expr:
    """The expression for e = its own scale: every power of e cancels, so e = 1 is the same."""
    positive = sp.Symbol(e.name, positive=True)
    return expression.xreplace({e: sp.Integer(1), positive: sp.Integer(1)})


def _require_scaling(rule: Any) -> Scaling:
    if rule.scaling is None:
        raise RuleError(
            f'{rule.name} declares no scaling, which time="continuous" needs: @qs.optimizer(scaling={{"eta": "e", "beta1": "1 - c1*e**2",'
            ' "beta2": "1 - c2*e**2", "eps": "eps0/e", "v": "u/e**2"}, dt="eta**2").'
        )
    found: Scaling = rule.scaling
    return found


def continuous_filter(rule: Preconditioned, transients: set[sp.Symbol]) -> LinearRule:
    """The SDE of the filter in units of S, under the scaling in which S is itself a power of e."""
    base, linear = rule.rule, rule.linear
    scaling = _require_scaling(base)
    S, scale = sp.Symbol("S", positive=True), sp.Symbol("S0", positive=True)
    power = _scale_order(rule, scaling)
    D = sp.diag(*(S**p for p in rule.powers))
    A, b = D * linear.A * D.inv(), D * linear.b
    g, variables = base.trace.gradient, (base.trace.parameter, *(s.symbol for s in rule.fast_states))
    updates = tuple(sum((A[i, j] * v for j, v in enumerate(variables)), start=b[i] * g) for i in range(A.rows))
    hyper = MappingProxyType({**base.trace.hyperparameters, "S": S})
    values = MappingProxyType({**scaling.values, "S": scale * scaling.e**power})
    trace = Trace(base.trace.parameter, base.trace.queries, rule.fast_states, hyper, None, updates)
    found = continuous_rule(replace(base, trace=trace, scaling=Scaling(scaling.e, values, scaling.dt)))
    units = [_tidy_matrix(m) for m in (D.inv() * found.A * D, D.inv() * found.b, D.inv() * found.fixed * S, D * found.left / S)]
    if any(S in m.free_symbols for m in units):
        raise RuleError(f"{base.name}: its continuous form is not a filter behind a preconditioner.")
    zero = sp.zeros(A.rows, 1).as_immutable()
    return LinearRule(linear.rule, units[0], units[1], zero, zero, units[2], units[3], (), linear.bases, found.time, found.dt)


def _scale_order(rule: Preconditioned, scaling: Scaling) -> int:
    """The power of e that S is proportional to."""
    e = sp.Symbol("e", positive=True)
    values: dict[sp.Symbol, sp.Expr] = {}
    for name, symbol in (*rule.rule.trace.hyperparameters.items(), *((s.state.name, s.symbol) for s in rule.slow)):
        if name in scaling.values:
            value = scaling.values[name]
            values[symbol] = value.xreplace({c: sp.Symbol(c.name, positive=True) for c in value.free_symbols})
    found = sp.powdenest(sp.expand_power_base(rule.scale.xreplace(values)), force=True)
    order, _ = _order(found, e)
    return int(order)


__all__ = ["KineticResult", "Scaled", "continuous_filter"]
