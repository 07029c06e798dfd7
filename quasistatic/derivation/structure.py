"""Which kind of rule it is: a linear filter of the gradient, or something more general (theory, sections 1 and 3)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from quasistatic.algebra.equations import solve_field
from quasistatic.algebra.field import Field
from quasistatic.errors import AlgebraError, RuleError
from quasistatic.model.rule import Rule
from quasistatic.symbols import BlockMean, Mean

#: A literal force larger than this moves the manifold's points too much to be called small.
LARGEST_LITERAL_FORCE = sp.Rational(1, 10)


@dataclass(frozen=True)
class LinearRule:
    """One iteration per coordinate, s' = A s + b g + force*z + shift, s = (parameter, states...), n = 1 + q numbers.

    Attributes
    ----------
    A:
        (n, n); its fixed points are the minima: eigenvalue 1 with eigenvector ``fixed``.
    b:
        (n, 1), response to the gradient.
    force, shift:
        (n, 1), small forces: what moves a point of the manifold in one averaged step (weight decay, shifts).
    fixed:
        (n, 1), the state at the minimum z = 1: memories that hold the parameter keep its value.
    left:
        (n, 1), left eigenvector of A for eigenvalue 1 with left^T fixed = 1: where a kick to the state ends up.
    forces:
        Names of the hyperparameters whose vanishing removes the small force.
    bases:
        Bases of powers base**t that the derivation takes to zero; each must be below 1 in size.
    time:
        "iteration" for a map, else the label of the SDE's time; then A is the generator per iteration.
    dt:
        Time of one iteration (1 for a map).
    """

    rule: Rule
    A: sp.ImmutableMatrix
    b: sp.ImmutableMatrix
    force: sp.ImmutableMatrix
    shift: sp.ImmutableMatrix
    fixed: sp.ImmutableMatrix
    left: sp.ImmutableMatrix
    forces: tuple[str, ...] = ()
    bases: tuple[sp.Expr, ...] = ()
    time: str = "iteration"
    dt: sp.Expr = sp.Integer(1)

    @property
    def continuous(self) -> bool:
        """Whether this is an SDE."""
        return self.time != "iteration"

    @property
    def gain(self) -> sp.Expr:
        """Net displacement of a flat direction against a unit gradient kick (per iteration)."""
        return _tidy([-(self.left.T * self.b)[0]])[0]

    @property
    def has_force(self) -> bool:
        """Whether a small force acts."""
        return any(self.force) or any(self.shift)


def at_late_times(rule: Rule, powers: dict[sp.Symbol, sp.Expr] | None = None) -> tuple[tuple[sp.Expr, ...], tuple[sp.Expr, ...]]:
    """The free updates with every power base**t at its limit 0, and the bases.

    With ``powers`` they stay as symbols, which it receives with their bases (a transient).
    """
    t = rule.trace.iteration
    if t is None:
        return rule.trace.updates, ()
    bases: list[sp.Expr] = []

    def limit(power: sp.Pow) -> sp.Expr:
        slope = sp.expand(power.exp).coeff(t)
        if t in power.base.free_symbols or slope.free_symbols or not slope.is_positive:
            raise RuleError(f"{rule.name}: the derivation takes base**t to zero for large t; {power} is not of that form.")
        if power.base not in bases:
            bases.append(power.base)
        if powers is None or power.base.xreplace(rule.fixed_symbols) == 0:
            return sp.Integer(0)
        base = (power.base**slope).xreplace(rule.fixed_symbols)
        symbol = next((s for s, b in powers.items() if b == base), None) or sp.Dummy("power", positive=True)
        powers[symbol] = base
        return symbol

    updates = tuple(u.replace(lambda e: e.is_Pow and t in e.exp.free_symbols, limit) for u in rule.trace.updates)
    for u in updates:
        if t in u.free_symbols:
            raise RuleError(
                f"{rule.name} depends on the iteration number other than through powers base**t: {u}; such a rule has no equilibrium."
            )
    return updates, tuple(bases)


def is_affine_in_gradient(rule: Rule) -> bool:
    """Whether U is affine in g with coefficients that may depend on the state."""
    g = rule.trace.gradient
    # the degree in all coordinates' gradients is that of the rule with every mean replaced by its argument
    updates = [u.replace(Mean, lambda e: e).replace(BlockMean, lambda e: e) for u in at_late_times(rule)[0]]
    return all(sp.expand(u).diff(g, 2) == 0 and not _inside_kink(u, g) for u in updates)


def _inside_kink(expression: sp.Expr, symbol: sp.Symbol) -> bool:
    return any(symbol in node.free_symbols for node in expression.atoms(sp.Function))


def require_supported(rule: Rule) -> None:
    """Refuse, with the reason, what the engine does not derive yet."""
    slow = [s.name for s in rule.trace.states if s.slow]
    if slow:
        raise RuleError(f"{rule.name}: slow states ({', '.join(slow)}) have no place in this route; use the structured one.")
    if not is_affine_in_gradient(rule):
        raise RuleError(f"{rule.name} is not linear in the gradient: not supported yet. Its updates are:\n{rule.trace}")


def linear_rule(rule: Rule) -> LinearRule | None:
    """The rule as a linear filter with the same coefficients in every coordinate, or None where it is not one.

    Raises
    ------
    RuleError
        If a memory never forgets, the gradient does nothing, or a point of the manifold is moved by a large step.
    """
    require_supported(rule)
    found = _coefficients(rule)
    if found is None:
        return None
    A, b, shift, bases = found
    zeros = {s: v for s, v in rule.fixed_symbols.items() if v == 0}
    A, b, shift = (m.xreplace(zeros) for m in (A, b, shift))
    require_gradient(rule, b)
    bases = tuple(base.xreplace(zeros) for base in bases)
    A0, b0, forces = _without_forces(rule, A, b)
    values = rule.fixed_symbols
    fixed, left = _eigenvectors(A0)
    force = (A - A0) * fixed
    numbers = [m.xreplace(values) for m in (A0, b0, force, shift, fixed, left)]
    try:
        A0, b0, force, shift, fixed, left = (_tidy_matrix(m) for m in numbers)
    except AlgebraError as error:
        raise RuleError(
            f"{rule.name}: with {_values_text(rule)} a memory never forgets, or a coefficient divides by zero ({error})."
        ) from None
    linear = LinearRule(rule, A0, b0, force, shift, fixed, left, forces, tuple(x.xreplace(values) for x in bases))
    if linear.gain == 0:
        raise RuleError(f"{rule.name}: a gradient kick has no lasting effect (the gain is zero), so it does not descend.")
    return linear


def require_gradient(rule: Rule, b: sp.Matrix) -> None:
    """Refuse a rule that does not respond to its gradient."""
    if not any(b):
        raise RuleError(f"{rule.name} does not use its gradient {rule.trace.gradient}: nothing pulls it to the minima.")


def _values_text(rule: Rule) -> str:
    return ", ".join(f"{k}={v}" for k, v in rule.fixed.items()) or "these values"


def _coefficients(rule: Rule) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix, tuple[sp.Expr, ...]] | None:
    updates, bases = at_late_times(rule)
    found = coefficients(updates, rule.trace.variables, rule.trace.gradient)
    return None if found is None else (*found, bases)


def coefficients(updates: Sequence[sp.Expr], variables: Sequence[sp.Symbol], g: sp.Symbol) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix] | None:
    """A (n, n), b (n, 1) and the constants (n, 1) of updates that are linear in the variables and g; None where they are not."""
    n = len(variables)
    A, b, shift = sp.zeros(n, n), sp.zeros(n, 1), sp.zeros(n, 1)
    for i, update in enumerate(updates):
        if update.has(Mean, BlockMean):
            return None
        rest = sp.expand(update)
        for j, v in enumerate((*variables, g)):
            coefficient = rest.coeff(v)
            rest = sp.expand(rest - coefficient * v)
            if coefficient.free_symbols & {*variables, g}:
                return None
            if j < n:
                A[i, j] = coefficient
            else:
                b[i] = coefficient
        if rest.free_symbols & {*variables, g}:
            return None
        shift[i] = rest
    return A, b, shift


def _eigenvectors(A: sp.Matrix) -> tuple[sp.Matrix, sp.Matrix]:
    """Right and left eigenvector of eigenvalue 1, normalised to parameter component 1 and product 1."""
    n = A.rows
    if n == 1:
        return sp.Matrix([1]), sp.Matrix([1])
    field = Field(list(A))
    M = field.matrix(sp.eye(n) - A)
    memory = M.extract(list(range(1, n)), list(range(1, n)))
    into = M.extract(list(range(1, n)), [0])
    out = M.extract([0], list(range(1, n)))
    right = [field(1), *(row[0] for row in (-solve_field(memory, into)).to_list())]
    left = [field(1), *(row[0] for row in (-solve_field(memory.transpose(), out.transpose())).to_list())]
    overlap = sum((x * y for x, y in zip(left, right, strict=True)), start=field(0))
    if not overlap:
        raise AlgebraError("the eigenvalue 1 of the map is not simple")
    return sp.Matrix([field.expression(x) for x in right]), sp.Matrix([field.expression(x / overlap) for x in left])


def _defect(A: sp.Matrix) -> sp.Expr:
    """What one averaged step adds to a point of the manifold with its memories at rest, relative to the point."""
    n = A.rows
    if n == 1:
        return _tidy([A[0, 0] - 1])[0]
    field = Field(list(A))
    M = field.matrix(sp.eye(n) - A)
    rows = list(range(1, n))
    rest = solve_field(M.extract(rows, rows), M.extract(rows, [0]))
    value = M.extract([0], [0]) - M.extract([0], rows) * rest
    return -field.expression(value.to_list()[0][0])


def _without_forces(rule: Rule, A: sp.Matrix, b: sp.Matrix) -> tuple[sp.Matrix, sp.Matrix, tuple[str, ...]]:
    """The rule without its small forces: the hyperparameters whose vanishing makes every minimum a fixed point."""
    _require_forgetting(rule, A)
    if _defect(A) == 0:
        return A, b, ()
    names = [n for n, s in rule.trace.hyperparameters.items() if s in A.free_symbols]
    for size in (1, 2):
        for group in itertools.combinations(names, size):
            zero = {rule.trace.hyperparameters[n]: sp.Integer(0) for n in group}
            A0, b0 = A.xreplace(zero), b.xreplace(zero)
            if _is_candidate(A0, b0):
                return A0, b0, group
    return _literal_force(rule, A, b)


def _is_candidate(A: sp.Matrix, b: sp.Matrix) -> bool:
    """Every minimum is a fixed point, and the gradient still moves the parameter for good."""
    if A.has(sp.zoo, sp.nan) or b.has(sp.zoo, sp.nan):
        return False
    try:
        if _defect(A) != 0:
            return False
        _, left = _eigenvectors(A)
    except AlgebraError:
        return False
    return bool(_tidy([(left.T * b)[0]])[0] != 0)


def _literal_force(rule: Rule, A: sp.Matrix, b: sp.Matrix) -> tuple[sp.Matrix, sp.Matrix, tuple[str, ...]]:
    """A force written with a number (z - 1e-4*z): everything that the parameter does beyond staying where it is."""
    n = A.rows
    A0 = A.copy()
    A0[:, 0] = sp.Matrix([1, *([0] * (n - 1))])
    defect = _defect(A)
    if not defect.is_number or abs(defect) > LARGEST_LITERAL_FORCE:
        raise RuleError(
            f"{rule.name} does not stay at a minimum: with zero gradient one averaged step multiplies the parameter by 1 + ({defect})."
            " A small force (weight decay) must vanish with one hyperparameter of its own."
        )
    return A0, b, ()


def _require_forgetting(rule: Rule, A: sp.Matrix) -> None:
    n = A.rows
    if n == 1:
        return
    memory = A[1:, 1:]
    field = Field(list(memory))
    M = field.matrix(sp.eye(n - 1) - memory)
    kernel = M.nullspace()
    if kernel.shape[0] == 0:
        return
    row = kernel.to_list()[0]
    names = [s.name for s, entry in zip(rule.trace.states, row, strict=True) if entry]
    raise RuleError(
        f"{rule.name}: the memory {', '.join(names)} never forgets (its update keeps it unchanged when the gradient is zero), so it has no"
        " equilibrium. Multiply it by a factor below 1, or declare it with @qs.optimizer(slow_states=[...]) if it is meant to be slow."
    )


def _tidy(expressions: Sequence[sp.Expr]) -> list[sp.Expr]:
    field = Field(expressions)
    return [field.expression(field(e)) for e in expressions]


def _tidy_matrix(matrix: sp.Matrix) -> sp.ImmutableMatrix:
    return sp.ImmutableMatrix(matrix.rows, matrix.cols, _tidy(list(matrix)))
