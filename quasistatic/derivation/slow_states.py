"""Rules with slow states: frozen, such a rule is a linear filter behind a diagonal preconditioner S(v) (theory, section 1).

A slow state is held fixed while the fast variables equilibrate, and then moves by its own averaged equation
dv/dk = E[v' - v], linear in the second moments of the gradient. In the fast map both v and its updated value are the
frozen symbol.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from quasistatic.algebra.field import Field, factored, normal
from quasistatic.derivation.structure import (
    LinearRule,
    _eigenvectors,
    _tidy_matrix,
    _without_forces,
    at_late_times,
    coefficients,
    require_gradient,
)
from quasistatic.errors import AlgebraError, RuleError
from quasistatic.model.rule import Rule, State, Trace
from quasistatic.symbols import BlockMean, Mean


@dataclass(frozen=True)
class Moments:
    """What the average of a source needs, as functions of the coordinate's index.

    Attributes
    ----------
    square:
        E[g_i^2].
    point:
        z_i on the manifold.
    members:
        The indices that a mean runs over at coordinate i: all, or the block of i.
    """

    square: Callable[[int], sp.Expr]
    point: Callable[[int], sp.Expr]
    members: Callable[[sp.Expr, int], Sequence[int]]


@dataclass(frozen=True)
class SlowState:
    """v' = keep * v + source(g), source a polynomial in g or in means of such.

    Attributes
    ----------
    state:
        The declared state.
    symbol:
        The frozen value, positive.
    keep:
        Factor of v in its own update; ``rate`` = 1 - keep per iteration.
    source:
        What is added, in the symbols ``gradient`` and ``parameter``.
    """

    state: State
    symbol: sp.Symbol
    keep: sp.Expr
    source: sp.Expr
    gradient: sp.Symbol
    parameter: sp.Symbol

    @property
    def rate(self) -> sp.Expr:
        """1 - keep: how much is forgotten per iteration."""
        return sp.Integer(1) - self.keep

    def mean_source(self, i: int, moments: Moments) -> sp.Expr:
        """E[source] at coordinate i."""
        return self._expected(self.source, i, moments)

    def equilibrium(self, i: int, moments: Moments) -> sp.Expr | None:
        """The v at which it rests, E[source]/rate; None where nothing is forgotten."""
        rate = normal(self.rate)
        if rate == 0:
            return None
        # the rate is cancelled before the moments go in, which may be large
        names: dict[sp.Expr, sp.Symbol] = {}

        def named(kind: str, value: Callable[[int], sp.Expr]) -> Callable[[int], sp.Expr]:
            return lambda j: names.setdefault(value(j), sp.Dummy(f"{kind}{j}", real=True)) if value(j) != 0 else sp.Integer(0)

        total = self.mean_source(i, Moments(named("moment", moments.square), named("point", moments.point), moments.members))
        back = {symbol: value for value, symbol in names.items()}
        return sp.expand(normal(total / rate)).xreplace(back)

    def _expected(self, e: sp.Expr, i: int, moments: Moments) -> sp.Expr:
        total: sp.Expr = sp.Integer(0)
        for term in sp.Add.make_args(sp.expand(e)):
            factor, varying = term.as_independent(self.gradient, self.parameter, as_Add=False)
            if isinstance(varying, (Mean, BlockMean)):
                indices = moments.members(varying, i)
                total += factor * sum(self._expected(varying.args[0], j, moments) for j in indices) / len(indices)
                continue
            powers = varying.as_powers_dict()
            p = powers[self.gradient]
            if p % 2 == 0:  # Isserlis' theorem for one Gaussian
                pairs = sp.factorial2(p - 1) * moments.square(i) ** (p / 2)
                total += factor * pairs * moments.point(i) ** powers[self.parameter]
        return total


@dataclass(frozen=True)
class Preconditioned:
    """A rule that is a linear filter behind a diagonal preconditioner once its slow states are frozen.

    Attributes
    ----------
    rule:
        The rule.
    linear:
        The filter in units of S: it moves z by S times what it would do alone. Small forces are not in it.
    scale:
        S(v) of one coordinate in the frozen symbols; may hold means of them.
    powers:
        For the parameter and every fast state: 1 where it carries the factor S, 0 where it does not.
    slow:
        The slow states.
    pull, shift:
        Small forces: what they add to one coordinate of the limit point per iteration is pull*z + shift.
    forces:
        Names of the hyperparameters whose vanishing removes the small force.
    """

    rule: Rule
    linear: LinearRule
    scale: sp.Expr
    powers: tuple[int, ...]
    slow: tuple[SlowState, ...]
    pull: sp.Expr
    shift: sp.Expr
    forces: tuple[str, ...] = ()

    @property
    def has_force(self) -> bool:
        """Whether a small force acts."""
        return bool(self.pull != 0 or self.shift != 0)

    @property
    def fast_states(self) -> tuple[State, ...]:
        """The states that equilibrate."""
        names = {s.state.name for s in self.slow}
        return tuple(s for s in self.rule.trace.states if s.name not in names)


def frozen_symbol(state: State) -> sp.Symbol:
    """The positive symbol of a slow state's frozen value (second moments are positive)."""
    return sp.Symbol(state.name, positive=True)


def slow_states(rule: Rule) -> tuple[SlowState, ...]:
    """The slow states of a rule and their linear updates.

    Raises
    ------
    RuleError
        If a slow state has no averaged equation.
    """
    updates = _late_updates(rule)[0]
    trace = rule.trace
    found = []
    for state, update in zip(trace.states, updates[1:], strict=True):
        if state.slow:
            found.append(_slow_state(rule, state, sp.expand(update)))
    return tuple(found)


def _late_updates(rule: Rule, powers: dict[sp.Symbol, sp.Expr] | None = None) -> tuple[list[sp.Expr], tuple[sp.Expr, ...]]:
    """Updates at late times without the terms that fixed zeros take away."""
    updates, bases = at_late_times(rule, powers)
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0}
    return [u.xreplace(zeros) for u in updates], tuple(b.xreplace(zeros) for b in bases)


def _slow_state(rule: Rule, state: State, update: sp.Expr) -> SlowState:
    g = rule.trace.gradient
    keep = update.coeff(state.symbol, 1)
    source = sp.expand(update - keep * state.symbol)
    z = rule.trace.parameter
    states = {s.symbol for s in rule.trace.states}
    if keep.free_symbols & (states | {g, z}) or source.free_symbols & states or not _is_polynomial(source, (g, z)):
        raise RuleError(
            f"{rule.name}: the slow state {state.name} has no averaged equation that this package can derive. It needs the form"
            f" keep*{state.name} + a polynomial in {g} (or means of such), but its update is {update}."
            " (A running maximum, a sign, or another state in it have no closed average.) Simulation works: qs.simulate."
        )
    values = rule.fixed_symbols
    return SlowState(state, frozen_symbol(state), keep.xreplace(values), source.xreplace(values), g, z)


def _is_polynomial(e: sp.Expr, of: tuple[sp.Symbol, sp.Symbol]) -> bool:
    for term in sp.Add.make_args(sp.expand(e)):
        varying = term.as_independent(*of, as_Add=False)[1]
        if isinstance(varying, (Mean, BlockMean)):
            if not _is_polynomial(varying.args[0], of):
                return False
        elif varying.is_polynomial(*of) is not True:
            return False
    return True


def preconditioned_rule(rule: Rule, powers: dict[sp.Symbol, sp.Expr] | None = None, extra: tuple[sp.Symbol, ...] = ()) -> Preconditioned:
    """Freeze the slow states of a rule, and split what remains into a filter and a preconditioner.

    ``powers`` keeps the rule's powers base**t as frozen symbols instead of taking them to zero, and receives {symbol: base};
    ``extra`` are further symbols that belong to the preconditioner.

    Raises
    ------
    RuleError
        If the frozen rule is not linear in the gradient, or its slow state changes more than the size of a step.
    """
    slow = slow_states(rule)
    updates, bases, variables, means = _frozen_updates(rule, powers)
    found = coefficients(updates, variables, rule.trace.gradient)
    if found is None or any(m.has(Mean, BlockMean) for m in found):
        shown = "\n".join(f"{v} <- {u}" for v, u in zip(variables, updates, strict=True))
        raise RuleError(
            f"{rule.name}: with its slow states ({', '.join(s.state.name for s in slow)}) frozen it is not linear in the gradient, or mixes"
            f" coordinates beyond its slow states: not supported yet. Frozen, its updates are:\n{shown}"
        )
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0}
    A, b, shift = (m.xreplace(zeros) for m in found)
    require_gradient(rule, b)
    A0, b0, forces = _without_forces(rule, A, b)
    values = rule.fixed_symbols
    fixed, left = _eigenvectors(A0)
    force = (A - A0) * fixed
    A0, b0, force, shift, fixed, left = (_tidy_matrix(m.xreplace(values)) for m in (A0, b0, force, shift, fixed, left))
    frozen = {s.symbol for s in slow} | set(means) | set(powers or ()) | set(extra)
    gain = normal(-(left.T * b0)[0])
    if gain == 0:
        raise RuleError(f"{rule.name}: a gradient kick has no lasting effect (the gain is zero), so it does not descend.")
    scale = _varying_factor(gain, frozen)
    carried, A0, b0, fixed, left0 = _in_units(rule, A0, b0, fixed, left, scale, frozen)
    n = A0.rows
    zero = sp.zeros(n, 1).as_immutable()
    fast = _fast_rule(rule)
    linear = LinearRule(fast, A0, b0, zero, zero, fixed, left0, (), tuple(x.xreplace(zeros).xreplace(values) for x in bases))
    pull, offset = (normal((left.T * m)[0]) for m in (force, shift))
    back = {**means}
    return Preconditioned(rule, linear, scale.xreplace(back), carried, slow, pull.xreplace(back), offset.xreplace(back), forces)


def _fast_rule(rule: Rule) -> Rule:
    """The rule's record with its fast states alone: names for what the filter's rows are."""
    t = rule.trace
    kept = [i for i, s in enumerate(t.states) if not s.slow]
    states = tuple(t.states[i] for i in kept)
    updates = (t.updates[0], *(t.updates[1 + i] for i in kept))
    return replace(rule, trace=Trace(t.parameter, t.queries, states, t.hyperparameters, t.iteration, updates))


def _frozen_updates(
    rule: Rule, powers: dict[sp.Symbol, sp.Expr] | None
) -> tuple[list[sp.Expr], tuple[sp.Expr, ...], list[sp.Symbol], dict[sp.Symbol, sp.Expr]]:
    """Updates of parameter and fast states with frozen symbols for the slow states; means of frozen symbols named."""
    updates, bases = _late_updates(rule, powers)
    trace = rule.trace
    kept = [0, *(1 + i for i, s in enumerate(trace.states) if not s.slow)]
    frozen = [frozen_update(rule, updates, updates[k]) for k in kept]
    means: dict[sp.Symbol, sp.Expr] = {}
    symbols = {frozen_symbol(s) for s in trace.states if s.slow}

    def name(node: sp.Expr) -> sp.Expr:
        inner = node.args[0].free_symbols
        if inner & symbols and not inner & {trace.gradient, *trace.variables} - symbols:
            symbol = next((s for s, m in means.items() if m == node), None) or sp.Dummy("mean", positive=True)
            means[symbol] = node
            return symbol
        return node

    frozen = [u.replace(lambda e: isinstance(e, (Mean, BlockMean)), name) for u in frozen]
    return frozen, bases, [trace.variables[k] for k in kept], means


def frozen_update(rule: Rule, updates: Sequence[sp.Expr], update: sp.Expr) -> sp.Expr:
    """An update in which every slow state, and its updated value, is the frozen symbol."""
    g = rule.trace.gradient
    for state, own in zip(rule.trace.states, updates[1:], strict=True):
        if not state.slow or state.symbol not in update.free_symbols:
            continue
        V = frozen_symbol(state)
        direct = update.xreplace({state.symbol: V})
        if not _nonlinear_in(direct, g):
            update = direct  # it uses the old value
            continue
        own = sp.expand(own)
        keep = own.coeff(state.symbol, 1)
        update = _replaced(update, state.symbol, (V - sp.expand(own - keep * state.symbol)) / keep)
    return update


def _nonlinear_in(e: sp.Expr, g: sp.Symbol) -> bool:
    return any(g in node.free_symbols for node in e.atoms(sp.Function, sp.Pow))


def _replaced(e: sp.Expr, old: sp.Symbol, new: sp.Expr) -> sp.Expr:
    """Substitution from the leaves up with every sum expanded: SymPy distributes factors, and the updated value must cancel."""
    if e == old:
        return new
    if old not in e.free_symbols:
        return e
    built = e.func(*(_replaced(a, old, new) for a in e.args))
    return sp.expand(built) if built.is_Add else built


def _varying_factor(gain: sp.Expr, frozen: set[sp.Symbol]) -> sp.Expr:
    """The factor of the gain that depends on the frozen symbols: S(v), without the learning rate."""
    field = Field([gain])
    if not field.generators:
        return sp.Integer(1)
    element = field(gain)
    scale: sp.Expr = sp.Integer(1)
    for polynomial, sign in ((element.numer, 1), (element.denom, -1)):
        _, product = factored(polynomial)
        for factor in sp.Mul.make_args(product):
            meaning = field.back(factor)
            if meaning.free_symbols & frozen:
                scale *= meaning**sign
    return scale


def _in_units(
    rule: Rule, A: sp.Matrix, b: sp.Matrix, fixed: sp.Matrix, left: sp.Matrix, scale: sp.Expr, frozen: set[sp.Symbol]
) -> tuple[tuple[int, ...], sp.ImmutableMatrix, sp.ImmutableMatrix, sp.ImmutableMatrix, sp.ImmutableMatrix]:
    """The filter in units of S: which states carry its factor, and the matrices without it."""
    n = A.rows
    for rest in itertools.product((0, 1), repeat=n - 1):
        powers = (1, *rest)
        D = sp.diag(*(scale**p for p in powers))
        try:
            scaled = [_tidy_matrix(m) for m in (D.inv() * A * D, D.inv() * b)]
            if any(m.free_symbols & frozen for m in scaled):
                continue
            vectors = [_tidy_matrix(m) for m in (D.inv() * fixed * scale, D * left / scale)]
        except AlgebraError:
            continue
        if not any(m.free_symbols & frozen for m in vectors):
            return powers, scaled[0], scaled[1], vectors[0], vectors[1]
    names = ", ".join(s.name for s in sorted(frozen, key=str))
    raise RuleError(
        f"{rule.name}: its slow states ({names}) change more than the size of a step (a coefficient of its memory): not supported yet."
    )


def late_rule(rule: Rule) -> Rule:
    """The rule at late times, without its bias corrections: what the derivation describes from the first step."""
    if rule.trace.iteration is None:
        return rule
    t = rule.trace
    return replace(rule, trace=Trace(t.parameter, t.queries, t.states, t.hyperparameters, None, at_late_times(rule)[0]), function=None)


def frozen_rule(rule: Rule) -> Rule:
    """The rule with its slow states held fixed: its noiseless iteration is the limit map that belongs to them."""
    updates, _ = at_late_times(rule)
    t = rule.trace
    back = {frozen_symbol(s): s.symbol for s in t.states if s.slow}
    new = [t.variables[i] if v.slow else frozen_update(rule, updates, updates[i]).xreplace(back) for i, v in enumerate(t.states, start=1)]
    z = frozen_update(rule, updates, updates[0]).xreplace(back)
    return replace(rule, trace=Trace(t.parameter, t.queries, t.states, t.hyperparameters, None, (z, *new)), function=None)


__all__ = [
    "Moments",
    "Preconditioned",
    "SlowState",
    "frozen_rule",
    "frozen_symbol",
    "frozen_update",
    "late_rule",
    "preconditioned_rule",
    "slow_states",
]
