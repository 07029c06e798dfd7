"""Preconditioners S(v_i) whose slow state follows one second moment: regularizers sum_i F(h_i) (theory, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from quasistatic.algebra.field import Field, normal
from quasistatic.derivation.potential import NoClosedForm, rational_integral
from quasistatic.derivation.slow_states import Preconditioned, SlowState
from quasistatic.errors import NoPotential
from quasistatic.symbols import BlockMean, Mean


def own_state(rule: Preconditioned) -> SlowState:
    """The one slow state that S depends on.

    Raises
    ------
    NoPotential
        If S depends on several, on means of them, or on none.
    """
    used = [s for s in rule.slow if s.symbol in rule.scale.free_symbols]
    if len(used) != 1 or rule.scale.has(Mean, BlockMean):
        raise NoPotential(f"{rule.rule.name}: its preconditioner {rule.scale} is not a function of one slow state of the coordinate.")
    return used[0]


def _source(rule: Preconditioned) -> tuple[sp.Expr, sp.Expr | None]:
    """Coefficient of the second moment in the slow state's update, and the mean node around it; small forces are left out.

    A decay added to the gradient enters a second moment by its square: an effect beyond its first order.
    """
    slow = own_state(rule)
    no_force = {rule.rule.trace.hyperparameters[name]: sp.Integer(0) for name in rule.forces}
    slow = replace(slow, source=sp.expand(slow.source.xreplace(no_force)))
    g2 = slow.gradient**2
    nodes = sorted(slow.source.atoms(Mean, BlockMean), key=str)
    node = nodes[0] if nodes else None
    inner = g2 if node is None else node
    if (node is not None and node.args[0] != g2) or len(nodes) > 1:
        raise NoPotential(f"{rule.rule.name}: {slow.state.name} follows {slow.source}, not the second moment of the gradient.")
    coefficient = sp.expand(slow.source).coeff(inner)
    if normal(slow.source - coefficient * inner) != 0:
        raise NoPotential(f"{rule.rule.name}: {slow.state.name} follows {slow.source}, not the second moment of the gradient alone.")
    return coefficient, node


def mean_node(rule: Preconditioned) -> sp.Expr | None:
    """The mean through which the slow state sees the gradients, None where it is the coordinate's own."""
    return _source(rule)[1]


def input_factor(rule: Preconditioned) -> sp.Expr:
    """The equilibrium of the slow state in units of the second moment: 1 for an average.

    Raises
    ------
    NoPotential
        If the slow state forgets nothing, and so has no equilibrium.
    """
    slow = own_state(rule)
    rate = normal(slow.rate)
    if rate == 0:
        raise NoPotential(f"{rule.rule.name}: {slow.state.name} forgets nothing, so it has no equilibrium and S no limit.")
    return normal(_source(rule)[0] / rate)


def scale_at_equilibrium(rule: Preconditioned, second_moment: sp.Expr) -> sp.Expr:
    """S with its slow state at rest, as a function of the second moment of the gradient."""
    if not rule.slow or not any(s.symbol in rule.scale.free_symbols for s in rule.slow):
        return rule.scale
    return rule.scale.xreplace({own_state(rule).symbol: input_factor(rule) * second_moment})


def primitive(expression: sp.Expr, x: sp.Symbol) -> sp.Expr:
    """The integral from 0 to x (from anywhere, where the integrand has a pole at 0) of a function of powers of x.

    Raises
    ------
    NoClosedForm
        If the powers are symbolic and not alone, or the rational integral has no formula here.
    """
    expanded = sp.expand_power_base(expression)
    powers = [p for p in expanded.atoms(sp.Pow) if p.base == x]
    coefficient, rest = expanded.as_independent(x, as_Add=False)
    base, exponent = rest.as_base_exp() if rest != 1 else (x, sp.Integer(0))
    if base == x and x not in exponent.free_symbols:
        if exponent == -1:
            return coefficient * sp.log(x)
        return coefficient * x ** (exponent + 1) / (exponent + 1)
    linear = _power_of_a_line(rest, x)
    if linear is not None:
        return coefficient * linear
    exponents = [p.exp for p in powers]
    inside = [p for p in expanded.atoms(sp.Pow) if p.base != x and x in p.base.free_symbols and not p.exp.is_Integer]
    if inside:
        raise NoClosedForm(f"the integral of {expression} over {x} has no closed form here: it holds {inside[0]}.")
    if not all(e.is_Rational for e in exponents) or any(x in p.exp.free_symbols for p in expanded.atoms(sp.Pow)):
        raise NoClosedForm(f"the integral of {expression} over {x} has no closed form here: its powers of {x} are symbolic.")
    return _by_roots(expanded, x, _common_root(exponents))


def _power_of_a_line(expression: sp.Expr, x: sp.Symbol) -> sp.Expr | None:
    """The integral of (a + b x)^p from 0, or None for anything else: eps inside the root."""
    base, exponent = expression.as_base_exp()
    slope = sp.expand(base).coeff(x, 1)
    start = sp.expand(base - slope * x)
    if slope == 0 or start == 0 or x in start.free_symbols or x in exponent.free_symbols or exponent.is_Integer:
        return None
    return (base ** (exponent + 1) - start ** (exponent + 1)) / (slope * (exponent + 1))


def _common_root(exponents: Sequence[sp.Expr]) -> int:
    return int(sp.ilcm(1, 1, *(e.q for e in exponents)))


def _by_roots(expression: sp.Expr, x: sp.Symbol, degree: int) -> sp.Expr:
    """x = w^degree makes the integrand rational in w."""
    w = sp.Dummy("w", positive=True)
    inner = expression.xreplace({x: w**degree}) * degree * w ** (degree - 1)
    field = Field([sp.powdenest(inner, force=True)])
    found = field.back(rational_integral(field._rational(sp.powdenest(inner, force=True)), w))
    start = found.xreplace({w: sp.Integer(0)})
    if start.is_finite is not False and not start.has(sp.zoo, sp.nan, sp.oo):
        found = _difference(found, w)
    return found.xreplace({w: x ** sp.Rational(1, degree)})


def _difference(found: sp.Expr, w: sp.Symbol) -> sp.Expr:
    """found(w) - found(0), logarithms paired so that they read log(1 + w/c)."""
    total: sp.Expr = sp.Integer(0)
    for term in sp.Add.make_args(found):
        logs = [f for f in sp.Mul.make_args(term) if isinstance(f, sp.log)]
        at_zero = term.xreplace({w: sp.Integer(0)})
        if len(logs) == 1:
            argument = logs[0].args[0]
            ratio = sp.expand(normal(argument / argument.xreplace({w: sp.Integer(0)})))
            total += term / logs[0] * sp.log(ratio)
        else:
            total += term - at_zero
    return total


__all__ = ["input_factor", "mean_node", "own_state", "primitive", "scale_at_equilibrium"]
