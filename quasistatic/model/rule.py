"""The record of an update rule, that everything else reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias

import sympy as sp

from quasistatic.errors import HyperparameterError, RuleError, suggestion
from quasistatic.symbols import exact

#: What a user may write for a number: 0.9, "9/10" or a SymPy number.
Numbers: TypeAlias = Any


@dataclass(frozen=True)
class State:
    """One optimizer variable per parameter (a momentum, a second moment, ...).

    ``shape`` is ``"parameter"``: one number for every coordinate. ``slow`` states move with the manifold coordinates.
    """

    name: str
    symbol: sp.Symbol
    shape: str = "parameter"
    slow: bool = False
    initial: sp.Expr = sp.Integer(0)


@dataclass(frozen=True)
class Query:
    """One use of the gradient oracle: at which point, on which sample of the noise."""

    name: str
    symbol: sp.Symbol
    point: sp.Expr
    sample: str = "this step"


@dataclass(frozen=True)
class Trace:
    """The record of a rule: derivation and simulation both read this, there is no second copy of an optimizer.

    Attributes
    ----------
    parameter:
        Symbol of the parameter.
    queries:
        The gradients that one iteration uses, in order.
    states:
        The optimizer's own variables, in the order of the arguments.
    hyperparameters:
        Name to positive symbol, in the order of the signature.
    iteration:
        Symbol of the iteration number (from 1), or None where the rule does not use it.
    updates:
        New parameter, then the new states.
    """

    parameter: sp.Symbol
    queries: tuple[Query, ...]
    states: tuple[State, ...]
    hyperparameters: Mapping[str, sp.Symbol]
    iteration: sp.Symbol | None
    updates: tuple[sp.Expr, ...]

    def __reduce__(self) -> Any:  # a mapping proxy cannot be pickled
        args = (self.parameter, self.queries, self.states, dict(self.hyperparameters), self.iteration, self.updates)
        return _restore_trace, args

    @property
    def gradient(self) -> sp.Symbol:
        """Symbol of the stochastic gradient at the current parameter."""
        return self.queries[0].symbol

    @cached_property
    def averages(self) -> dict[str, str]:
        """Hyperparameter b to state m, wherever the rule averages: b*m + (1 - b)*(something with the gradient)."""
        states, names = {s.symbol for s in self.states}, {s: n for n, s in self.hyperparameters.items()}
        found: dict[str, str] = {}
        for node in sp.preorder_traversal(sp.Tuple(*self.updates)):
            for term in node.args if isinstance(node, sp.Add) else ():
                pair = set(term.args) if isinstance(term, sp.Mul) and len(term.args) == 2 else set()
                weight, memory = pair & set(names), pair & states
                if weight and memory and self._has_rest(node - term, 1 - next(iter(weight))):
                    found.setdefault(names[weight.pop()], memory.pop().name)
        return found

    def _has_rest(self, rest: sp.Expr, weight: sp.Expr) -> bool:
        """Whether ``rest`` is ``weight`` times something with the gradient."""
        return isinstance(rest, sp.Mul) and weight in rest.args and self.gradient in rest.free_symbols

    def require_weight(self, rule: str, name: str, value: Any) -> None:
        """Raise HyperparameterError where the hyperparameter is the weight of an average and not in [0, 1)."""
        if name in self.averages and not 0 <= value < 1:
            memory = self.averages[name]
            raise HyperparameterError(
                f"{rule}: {name} = {value} must be at least 0 and below 1: it is the weight of {memory} in its average with the gradient,"
                f" {name}*{memory} + (1 - {name})*..., which forgets nothing otherwise."
            )

    @property
    def variables(self) -> tuple[sp.Symbol, ...]:
        """Parameter, then states."""
        return (self.parameter, *(s.symbol for s in self.states))

    def __str__(self) -> str:
        lines = [f"{v} <- {u}" for v, u in zip(self.variables, self.updates, strict=True)]
        return "\n".join(lines)


def _restore_trace(
    parameter: sp.Symbol, queries: tuple[Query, ...], states: tuple[State, ...], hyper: dict[str, sp.Symbol], t: Any, updates: Any
) -> Trace:
    return Trace(parameter, queries, states, MappingProxyType(hyper), t, updates)


@dataclass(frozen=True)
class Scaling:
    """The papers' scaling of hyperparameters and states in a small number e, and the time of one iteration.

    ``values`` maps names to expressions in ``e`` and new symbols; ``dt`` is the time step as an expression in the
    hyperparameters. The continuous form of a rule is its leading order in e (theory, section 2).
    """

    e: sp.Symbol
    values: Mapping[str, sp.Expr]
    dt: sp.Expr

    def __reduce__(self) -> Any:
        return _restore_scaling, (self.e, dict(self.values), self.dt)


def _restore_scaling(e: sp.Symbol, values: dict[str, sp.Expr], dt: sp.Expr) -> Scaling:
    return Scaling(e, MappingProxyType(values), dt)


@dataclass(frozen=True, eq=False)
class Rule:
    """A traced update rule; made by :func:`quasistatic.optimizer`, still callable with numbers like the function it came from."""

    name: str
    trace: Trace
    fixed: Mapping[str, sp.Expr] = field(default_factory=lambda: MappingProxyType({}))
    scaling: Scaling | None = None
    source: str = ""
    doc: str = ""
    examples: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    function: Callable[..., Any] | None = field(default=None, repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The rule as the plain function it was written as; fixed values are filled in."""
        if self.function is None:
            raise RuleError(f"{self.name}: this rule was loaded from a file and is kept as its record; it cannot be called.")
        return self.function(*args, **{**{k: float(v) for k, v in self.fixed.items()}, **kwargs})

    def __repr__(self) -> str:
        names = [f"{n}={self.fixed[n]}" if n in self.fixed else n for n in self.trace.hyperparameters]
        return f"<optimizer {self.name}({', '.join(names)})>"

    def __reduce__(self) -> Any:
        state = (self.name, self.trace, dict(self.fixed), self.scaling, self.source, self.doc, dict(self.examples))
        return _restore_rule, state

    @property
    def hyperparameters(self) -> dict[str, sp.Symbol]:
        """Name to symbol of the hyperparameters that are still free, in the order of the signature."""
        return {n: s for n, s in self.trace.hyperparameters.items() if n not in self.fixed}

    @property
    def fixed_symbols(self) -> dict[sp.Symbol, sp.Expr]:
        """Symbol to value of the fixed hyperparameters."""
        return {self.trace.hyperparameters[n]: v for n, v in self.fixed.items()}

    @property
    def updates(self) -> tuple[sp.Expr, ...]:
        """New parameter and new states, with the fixed values filled in."""
        return tuple(u.xreplace(self.fixed_symbols) for u in self.trace.updates)

    def fix(self, **values: Numbers) -> Rule:
        """The same rule with exact numbers in place of some hyperparameters: fewer symbols, faster derivations.

        ``rule.fix(mu="9/10")``; a float means its shortest decimal, 0.9 is 9/10.
        """
        new = dict(self.fixed)
        for name, value in values.items():
            self._require(name)
            number = exact(value, f"{self.name}: {name}")
            if not number.is_number or number.is_negative:
                raise HyperparameterError(f"{self.name}: {name}={value} is not a non-negative number.")
            self.trace.require_weight(self.name, name, number)
            new[name] = number
        return replace(self, fixed=MappingProxyType(new))

    def free(self, *names: str) -> Rule:
        """The same rule with fixed hyperparameters (defaults of the signature) turned back into symbols."""
        for name in names:
            self._require(name)
            if name not in self.fixed:
                fixed = ", ".join(self.fixed) or "none"
                raise HyperparameterError(f"{self.name}: {name} is free already (fixed: {fixed}).")
        return replace(self, fixed=MappingProxyType({k: v for k, v in self.fixed.items() if k not in names}))

    def _require(self, name: str) -> None:
        known = self.trace.hyperparameters
        if name not in known:
            raise HyperparameterError(
                f"{self.name} has no hyperparameter {name!r}.{suggestion(name, known)} It has: {', '.join(known) or 'none'}."
            )

    @property
    def text(self) -> str:
        """The rule's source, or the traced record where there is none: the provenance of every result."""
        return self.source or str(self.trace)


def _restore_rule(
    name: str, trace: Trace, fixed: dict[str, sp.Expr], scaling: Scaling | None, source: str, doc: str, examples: dict[str, float]
) -> Rule:
    return Rule(name, trace, MappingProxyType(fixed), scaling, source, doc, MappingProxyType(examples))
