"""The SDE of a rule under its declared scaling: the leading order in a small number e (theory, section 2)."""

from __future__ import annotations

import sympy as sp

from quasistatic.derivation.structure import LinearRule, _coefficients, _eigenvectors, _tidy_matrix, _without_forces
from quasistatic.errors import AlgebraError, RuleError
from quasistatic.model.rule import Rule, Scaling


def continuous_rule(rule: Rule) -> LinearRule:
    """The rule's SDE ds = (A s + b (grad + noise)) per iteration, with the declared scaling undone at the end.

    Raises
    ------
    RuleError
        If the rule declares no scaling, or its rows are of different orders in e (they would be different time scales).
    """
    scaling = rule.scaling
    if scaling is None:
        raise RuleError(
            f'{rule.name} declares no scaling, which time="continuous" needs:'
            ' @qs.optimizer(scaling={"eta": "e**2", "mu": "1 - c*e"}, dt="eta").'
        )
    found = _coefficients(rule)
    if found is None:
        raise RuleError(f"{rule.name} is not a linear filter of the gradient: its SDE is not supported yet.")
    A, b, shift, bases = found
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0 and s.name not in scaling.values}
    A, b, shift = (m.xreplace(zeros) for m in (A, b, shift))
    if any(shift):
        raise RuleError(f"{rule.name}: a constant shift {list(shift)} has no SDE form; use the map (time='iteration').")
    A0, b0, forces = _without_forces(rule, A, b)
    fixed, _ = _eigenvectors(A0)
    force = (A - A0) * fixed
    n = A.rows
    inward, sizes = _forward(rule, scaling)
    outward = _backward(rule, scaling)
    D = sp.diag(*sizes)
    drift, kick = _leading(rule, scaling.e, D.inv() * (A0 - sp.eye(n)) * D, D.inv() * b0, inward)
    pull = _lowest_order((D.inv() * force).xreplace(inward), scaling.e)
    undo = rule.fixed_symbols
    generator, response, force_out = (_tidy_matrix((D * m).subs(outward).subs(undo)) for m in (drift * D.inv(), kick, pull))
    right, left = _generator_vectors(generator, rule)
    dt = scaling.dt.xreplace(undo)
    return LinearRule(
        rule, generator, response, force_out, sp.zeros(n, 1).as_immutable(), right, left, forces,
        tuple(x.xreplace(undo) for x in bases), f"t = k*{scaling.dt}", dt,
    )  # fmt: skip


def _forward(rule: Rule, scaling: Scaling) -> tuple[dict[sp.Symbol, sp.Expr], list[sp.Expr]]:
    """Hyperparameters in e and the new constants, and the size of every variable (state = size * new variable)."""
    inward = {s: scaling.values[n] for n, s in rule.trace.hyperparameters.items() if n in scaling.values}
    sizes: list[sp.Expr] = [sp.Integer(1)]
    for state in rule.trace.states:
        value = scaling.values.get(state.name)
        size = sp.Integer(1) if value is None else value.subs(dict.fromkeys(value.free_symbols - {scaling.e}, 1))
        sizes.append(size)
    return inward, sizes


def _backward(rule: Rule, scaling: Scaling) -> list[tuple[sp.Symbol, sp.Expr]]:
    """The new constants, then e, in terms of the hyperparameters; each value is a power of e or linear in one constant."""
    e = scaling.e
    small: sp.Expr | None = None
    constants: list[tuple[sp.Symbol, sp.Expr]] = []
    for name, symbol in rule.trace.hyperparameters.items():
        if name not in scaling.values:
            continue
        value = scaling.values[name]
        new = value.free_symbols - {e}
        if not new:
            coefficient, power = value.as_coeff_exponent(e)
            if coefficient != 1 or not power.is_positive:
                raise RuleError(f"{rule.name}: scaling {name} = {value} must be a power of e, or linear in one new constant.")
            small = symbol ** (1 / power) if small is None else small
            continue
        if len(new) > 1:
            raise RuleError(f"{rule.name}: scaling {name} = {value} has several new constants; use one each.")
        (c,) = new
        slope = sp.expand(value).coeff(c, 1)
        rest = sp.expand(value - slope * c)
        if c in rest.free_symbols or not slope:
            raise RuleError(f"{rule.name}: scaling {name} = {value} is not linear in {c}.")
        constants.append((c, (symbol - rest) / slope))
    if small is None:
        raise RuleError(f"{rule.name}: the scaling gives no hyperparameter as a power of e.")
    return [*constants, (e, small)]


def _order(expression: sp.Expr, e: sp.Symbol) -> tuple[sp.Expr, sp.Expr]:
    """Lowest power of e of a rational function and its coefficient."""
    numerator, denominator = sp.fraction(sp.together(expression))
    top, bottom = (sp.Poly(sp.expand(part), e) for part in (numerator, denominator))
    low = [min(m[0] for m in part.monoms()) for part in (top, bottom)]
    coefficients = [part.coeff_monomial(e**k) for part, k in zip((top, bottom), low, strict=True)]
    return sp.Integer(low[0] - low[1]), coefficients[0] / coefficients[1]


def _lowest_order(column: sp.Matrix, e: sp.Symbol) -> sp.Matrix:
    """A vector to leading order in e: all rows weigh alike, so rows of a higher order drop out."""
    terms = [None if x == 0 else _order(x, e) for x in column]
    lowest = min((order for order, _ in filter(None, terms)), default=sp.Integer(0))
    return sp.Matrix([t[1] * e**lowest if t is not None and t[0] == lowest else 0 for t in terms])


def _leading(rule: Rule, e: sp.Symbol, A: sp.Matrix, b: sp.Matrix, inward: dict[sp.Symbol, sp.Expr]) -> tuple[sp.Matrix, sp.Matrix]:
    A, b = A.xreplace(inward), b.xreplace(inward)
    terms = {(i, j): _order(x, e) for i in range(A.rows) for j, x in enumerate([*A.row(i), b[i]]) if x != 0}
    lowest = [min((order for (row, _), (order, _) in terms.items() if row == i), default=None) for i in range(A.rows)]
    if len(set(lowest)) != 1:
        rows = ", ".join(f"{v}: e**{o}" for v, o in zip(rule.trace.variables, lowest, strict=True))
        raise RuleError(f"{rule.name}: the declared scaling is not one time scale, its rows are of the orders {rows}.")
    order = lowest[0]
    drift, kick = sp.zeros(*A.shape), sp.zeros(*b.shape)
    for (i, j), (found, coefficient) in terms.items():
        if found == order:
            if j < A.cols:
                drift[i, j] = coefficient * e**order
            else:
                kick[i] = coefficient * e**order
    return drift, kick


def _generator_vectors(generator: sp.ImmutableMatrix, rule: Rule) -> tuple[sp.ImmutableMatrix, sp.ImmutableMatrix]:
    try:
        right, left = _eigenvectors(sp.Matrix(generator) + sp.eye(generator.rows))
    except AlgebraError as error:
        raise RuleError(f"{rule.name}: the SDE of the declared scaling has a memory that never forgets ({error}).") from None
    return sp.ImmutableMatrix(right), sp.ImmutableMatrix(left)
