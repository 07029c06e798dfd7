"""From the derivation of a rule with slow states to the numbers that a manifold flow needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import sympy as sp

from quasistatic.derivation.reduction import Order
from quasistatic.derivation.separable import input_factor, mean_node, own_state
from quasistatic.derivation.slow_states import preconditioned_rule
from quasistatic.errors import NoPotential, RuleError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.numeric.manifold.preconditioned import Preconditioned
from quasistatic.symbols import Mean


def preconditioned_numbers(rule: Rule, problem: Problem | ArrayProblem, values: Mapping[str, float], order: Order) -> Preconditioned:
    """A rule with one slow state per parameter as numeric functions of it.

    Raises
    ------
    RuleError
        If the slow state forgets nothing, is not an average of squared gradients, or there are several.
    """
    found = preconditioned_rule(rule)
    try:
        slow, node, factor = own_state(found), mean_node(found), input_factor(found)
    except NoPotential as error:
        raise RuleError(f"manifold_flow: {error}") from None
    if len(found.slow) != 1:
        raise RuleError(f"{rule.name}: manifold_flow supports one slow state, it has {len(found.slow)}.")
    numbers = {s: sp.Float(values[n], 17) for n, s in rule.hyperparameters.items()}
    v, z = slow.symbol, rule.trace.parameter
    scale = _function([v], found.scale.xreplace(numbers))
    strength, rate = (float(x.xreplace(numbers)) for x in (factor, slow.rate))
    average = _average(problem, isinstance(node, Mean), node is not None)
    force = None
    if found.has_force:
        move = _function([z, v], (found.pull * z + found.shift).xreplace(numbers))
        force = lambda point, state: move(point, state)  # noqa: E731
    return Preconditioned(
        LinearFilter(found.linear, values, order), scale, lambda squares: strength * average(squares), rate, force, rule.name
    )


def _function(symbols: list[sp.Symbol], expression: sp.Expr) -> Callable[..., Array]:
    compiled = sp.lambdify(symbols, expression, "numpy")

    def evaluate(*arrays: Array) -> Array:
        return np.broadcast_to(np.asarray(compiled(*arrays), dtype=np.float64), np.shape(arrays[0]))

    return evaluate


def _average(problem: Problem | ArrayProblem, everywhere: bool, averaged: bool) -> Callable[[Array], Array]:
    """Second moments (d,) to what the slow state follows: themselves, or their means over blocks."""
    if not averaged:
        return lambda squares: squares
    if everywhere:
        return lambda squares: np.full_like(squares, squares.mean())
    if isinstance(problem, Problem):
        names = list(problem.parameters)
        blocks = [np.array([names.index(p) for p in block]) for block in problem.blocks]
    else:
        blocks = [np.asarray(block) for block in problem.blocks]

    def over_blocks(squares: Array) -> Array:
        if not blocks:
            return np.full_like(squares, squares.mean())
        out = np.empty_like(squares)
        for block in blocks:
            out[block] = squares[block].mean()
        return out

    return over_blocks
