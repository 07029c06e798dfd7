"""A linear filter of the gradient behind a diagonal preconditioner that moves slowly (theory, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.derivation.reduction import Order
from quasistatic.derivation.slow_states import SlowState, preconditioned_rule
from quasistatic.errors import RuleError, StartError, suggestion
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.symbols import BlockMean, Mean

SQUARE = sp.Symbol("E[g^2]", nonnegative=True)


@dataclass(frozen=True, eq=False)
class Preconditioned:
    """z <- z - S(v) * (what the filter makes of g),  v <- v + source - rate v, S diagonal, source from E[g_i^2].

    Attributes
    ----------
    filter:
        The linear filter that acts where S = 1: its gain and kernel are the rule's at fixed S.
    scale:
        v (m,) to the diagonal of S, (d,), positive.
    source:
        ``source(squares, z)``, the second moments E[g_i^2] (d,) and the point to what is added to v in an iteration, (m,).
    rate:
        Part of v that is forgotten in an iteration, 1 - beta2; a number or (m,).
    force:
        z (d,) and v (m,) to the displacement (d,) that one averaged step gives a point of the manifold (weight decay);
        None where there is none.
    fluctuation:
        Whether E[g_i^2] includes the mean square (H V H)_ii of the loss's own gradient; it is of higher order in eta.
    names:
        Slow states in v, each d numbers, in order.
    powers:
        For the parameter and every fast state: 1 where it carries the factor S, 0 where it does not.
    name:
        Shown in messages.
    """

    filter: LinearFilter
    scale: Callable[[Array], Array]
    source: Callable[[Array, Array], Array]
    rate: float | Array
    force: Callable[[Array, Array], Array] | None = None
    fluctuation: bool = True
    names: tuple[str, ...] = ("v",)
    powers: tuple[int, ...] = (1, 0)
    name: str = "preconditioned rule"

    def root(self, v: Array, size: int) -> Array:
        """The diagonal of S(v)^(1/2), (d,)."""
        with np.errstate(all="ignore"):
            found = np.broadcast_to(np.asarray(self.scale(v), dtype=np.float64), (size,))
        if not np.isfinite(found).all() or found.min() <= 0:
            raise RuleError(
                f"{self.name}: the preconditioner must be {size} positive numbers; its smallest is {found.min():.3g}. (A slow state that"
                " vanishes, where the noise does not reach a coordinate, needs eps > 0.)"
            )
        return np.sqrt(found)

    def equilibrium(self, squares: Array, z: Array) -> Array:
        """The v at which it rests, (m,)."""
        rate = np.asarray(self.rate, dtype=np.float64)
        if np.any(rate <= 0):
            raise RuleError(
                f"{self.name}: a slow state forgets nothing, so it grows for ever and has no equilibrium; give it: flow.drift(z, slow=...),"
                " flow.trajectory(z, steps, slow=..., adiabatic=False)."
            )
        return np.asarray(self.source(squares, z) / rate, dtype=np.float64)

    def states(self, given: Any, size: int) -> Array:
        """Slow states (m,) from such an array, a number, or a mapping of names to numbers or arrays (d,)."""
        if not isinstance(given, Mapping):
            return np.asarray(given, dtype=np.float64)
        for name in given:
            if name not in self.names:
                raise StartError(f"slow: {name} is not a slow state ({', '.join(self.names)}).{suggestion(str(name), self.names)}")
        missing = [n for n in self.names if n not in given]
        if missing:
            raise StartError(f"slow: no value for {', '.join(missing)}.")
        return np.concatenate([np.broadcast_to(np.asarray(given[n], dtype=np.float64), (size,)) for n in self.names])


def preconditioned(rule: Rule, values: Mapping[str, float], size: int, blocks: Sequence[Sequence[int]], order: Order) -> Preconditioned:
    """A rule with slow states in numbers; ``blocks`` is a partition of the indices for ``qs.block_mean``."""
    found = preconditioned_rule(rule)
    numbers = {s: sp.Rational(repr(float(values[n]))) for n, s in rule.hyperparameters.items()}
    symbols = [s.symbol for s in found.slow]
    groups = np.empty(size, dtype=np.int64)
    for i, block in enumerate(blocks or (range(size),)):
        groups[list(block)] = i
    scale = _Coordinatewise(found.scale.xreplace(numbers), symbols, groups)
    z = rule.trace.parameter
    sources = [_Coordinatewise(_mean_source(s).xreplace(numbers), [SQUARE, z], groups) for s in found.slow]
    rates = [float(s.rate.xreplace(numbers)) for s in found.slow]
    force = None
    if found.has_force:
        move = _Coordinatewise((found.pull * z + found.shift).xreplace(numbers), [z, *symbols], groups)

        def force(point: Array, v: Array) -> Array:
            return move(point, *v.reshape(-1, size))

    return Preconditioned(
        LinearFilter(found.linear, values, order),
        lambda v: scale(*v.reshape(-1, size)),
        lambda squares, point: np.concatenate([f(squares, point) for f in sources]),
        np.repeat(rates, size),
        force,
        order.symbol is None,
        tuple(s.state.name for s in found.slow),
        found.powers,
        rule.name,
    )


def _mean_source(slow: SlowState) -> sp.Expr:
    """E[source] in SQUARE and the parameter, by Isserlis' theorem for one Gaussian; means stay means."""

    def expected(e: sp.Expr) -> sp.Expr:
        total: sp.Expr = sp.Integer(0)
        for term in sp.Add.make_args(sp.expand(e)):
            factor, varying = term.as_independent(slow.gradient, slow.parameter, as_Add=False)
            if isinstance(varying, (Mean, BlockMean)):
                total += factor * varying.func(expected(varying.args[0]))
                continue
            power = varying.as_powers_dict()[slow.gradient]
            if power % 2 == 0:
                total += factor * varying.xreplace({slow.gradient: sp.Integer(1)}) * sp.factorial2(power - 1) * SQUARE ** (power / 2)
        return total

    return expected(slow.source)


class _Coordinatewise:
    """An expression of one coordinate as a function of arrays (d,); means run over all coordinates or over blocks."""

    def __init__(self, expression: sp.Expr, symbols: Sequence[sp.Symbol], groups: Any) -> None:
        self._groups, self._sizes = groups, np.bincount(groups)
        self._means: list[tuple[_Coordinatewise, bool]] = []
        named: dict[sp.Expr, sp.Symbol] = {}
        for node in sorted(expression.atoms(Mean, BlockMean), key=str):
            if any(node in other.args[0].atoms(Mean, BlockMean) for other in expression.atoms(Mean, BlockMean)):
                continue  # inside another mean, which will find it
            named[node] = sp.Dummy("mean")
            self._means.append((_Coordinatewise(node.args[0], symbols, groups), isinstance(node, BlockMean)))
        self._call: Any = sp.lambdify([*symbols, *named.values()], expression.xreplace(named), "numpy", cse=True)

    def __call__(self, *arrays: Array) -> Array:
        means = []
        for inner, blockwise in self._means:
            row = inner(*arrays)
            if blockwise:
                means.append((np.bincount(self._groups, row) / self._sizes)[self._groups])
            else:
                means.append(np.full_like(row, row.mean()))
        with np.errstate(all="ignore"):
            found = np.asarray(self._call(*arrays, *means), dtype=np.float64)
        return np.broadcast_to(found, arrays[0].shape)
