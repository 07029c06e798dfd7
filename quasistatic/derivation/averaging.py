"""The averaged map of a rule on a problem, on the whole state: F, its Jacobian and second derivative, step covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from quasistatic.algebra.equations import solve_field
from quasistatic.algebra.field import Field
from quasistatic.derivation.structure import LinearRule, at_late_times, require_supported
from quasistatic.errors import AlgebraError, RuleError
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.symbols import BlockMean, Mean


def state_symbols(rule: Rule, problem: Problem) -> tuple[sp.Symbol, ...]:
    """Parameters, then every state for every parameter: x, y, m_x, m_y, ..."""
    names = [sp.Symbol(f"{s.name}_{p.name}", real=True) for s in rule.trace.states for p in problem.parameters]
    return (*problem.parameters, *names)


@dataclass(frozen=True)
class AveragedMap:
    """F near the manifold, as matrices in the coordinates u.

    Attributes
    ----------
    state:
        n symbols.
    J:
        Jacobian of F (of the drift b for an SDE), (n, n).
    B:
        Response of one step to the gradient, (n, d).
    second:
        F''[M] for a matrix M of expressions in u, (n, 1).
    displacement:
        F(s) - s on the manifold: the small force, (n, 1).
    rest:
        s*(u), the resting state above a point of the manifold, (n, 1).
    continuous, dt:
        Whether it is an SDE, and the time of one iteration.
    """

    state: tuple[sp.Symbol, ...]
    J: sp.Matrix
    B: sp.Matrix
    second: Callable[[sp.Matrix], sp.Matrix]
    displacement: sp.Matrix
    rest: sp.Matrix
    continuous: bool = False
    dt: sp.Expr = sp.Integer(1)


def linear_map(linear: LinearRule, problem: Problem) -> AveragedMap:
    """The averaged map of a linear filter; nothing is differentiated but the loss."""
    d = len(problem.parameters)
    chart = problem.chart
    H = sp.Matrix(problem.hessian)
    select = sp.zeros(1, linear.A.rows)
    select[0] = 1
    J = sp.kronecker_product(sp.Matrix(linear.A), sp.eye(d)) + sp.kronecker_product(sp.Matrix(linear.b) * select, H)
    B = sp.kronecker_product(sp.Matrix(linear.b), sp.eye(d))
    third = third_derivatives(problem)

    def second(M: sp.Matrix) -> sp.Matrix:
        block = M[:d, :d]
        pull = sp.Matrix([sum((t * m for t, m in zip(T, block, strict=True) if t != 0 and m != 0), start=sp.Integer(0)) for T in third])
        return sp.kronecker_product(sp.Matrix(linear.b), pull)

    z = sp.Matrix(chart.embedding)
    moved = sp.kronecker_product(sp.Matrix(linear.force), z) + sp.kronecker_product(sp.Matrix(linear.shift), sp.ones(d, 1))
    rest = sp.kronecker_product(sp.Matrix(linear.fixed), z)
    return AveragedMap(state_symbols(linear.rule, problem), J, B, second, moved, rest, linear.continuous, linear.dt)


def third_derivatives(problem: Problem) -> list[sp.Matrix]:
    """d^3 f / dz_i dz dz on the manifold, one (d, d) matrix for every i."""
    parameters = problem.parameters
    found = []
    for g in problem.gradient:
        hessian = sp.Matrix(len(parameters), len(parameters), lambda a, b, g=g: g.diff(parameters[a], parameters[b]))
        found.append(sp.Matrix(problem.chart.restrict(hessian)))
    return found


def general_map(rule: Rule, problem: Problem) -> AveragedMap:
    """The averaged map of a rule that is affine in the gradient but no linear filter (means over coordinates, nonlinear memories)."""
    require_supported(rule)
    d = len(problem.parameters)
    updates, _ = at_late_times(rule)
    values = rule.fixed_symbols
    state = state_symbols(rule, problem)
    gradients = [sp.Dummy(f"g_{p.name}", real=True) for p in problem.parameters]
    U = _expand_means(rule, problem, [u.xreplace(values) for u in updates], state, gradients)
    F = U.xreplace(dict(zip(gradients, problem.gradient, strict=True)))
    rest = _fixed_memory(rule, problem, U, state, gradients)
    on_manifold = {**problem.chart.on_manifold, **rest}

    def restrict(m: sp.Matrix) -> sp.Matrix:
        return m.subs(rest, simultaneous=True).subs(problem.chart.on_manifold, simultaneous=True)

    J = restrict(F.jacobian(sp.Matrix(state)))
    B = restrict(U.jacobian(sp.Matrix(gradients)).xreplace(dict(zip(gradients, problem.gradient, strict=True))))
    hessians = [restrict(sp.hessian(f, state)) for f in F]

    def second(M: sp.Matrix) -> sp.Matrix:
        return sp.Matrix([sum((h * m for h, m in zip(H, M, strict=True) if h != 0 and m != 0), start=sp.Integer(0)) for H in hessians])

    at_rest = sp.Matrix([on_manifold[s] for s in state])
    displacement = restrict(F) - at_rest
    if len(displacement) != d * (1 + len(rule.trace.states)):
        raise RuleError(f"{rule.name}: the averaged map has the wrong size")  # pragma: no cover
    return AveragedMap(state, J, B, second, displacement, at_rest)


def _expand_means(
    rule: Rule, problem: Problem, updates: list[sp.Expr], state: tuple[sp.Symbol, ...], gradients: list[sp.Symbol]
) -> sp.Matrix:
    d = len(problem.parameters)
    trace = rule.trace
    blocks = {p: [problem.parameters.index(q) for q in block] for block in problem.blocks for p in block}

    def at(expression: sp.Expr, i: int) -> sp.Expr:
        means = {m: _average(m.args[0], range(d)) for m in expression.atoms(Mean)}
        means.update({m: _average(m.args[0], blocks[problem.parameters[i]]) for m in expression.atoms(BlockMean)})
        local = {v: state[a * d + i] for a, v in enumerate(trace.variables)}
        return expression.xreplace(means).xreplace({**local, trace.gradient: gradients[i]})

    def _average(inner: sp.Expr, indices: range | list[int]) -> sp.Expr:
        return sum(at(inner, j) for j in indices) / len(indices)

    return sp.Matrix([at(u, i) for u in updates for i in range(d)])


def _fixed_memory(
    rule: Rule, problem: Problem, U: sp.Matrix, state: tuple[sp.Symbol, ...], gradients: list[sp.Symbol]
) -> dict[sp.Symbol, sp.Expr]:
    """The memories at rest above a point z of the manifold: a linear equation, or a refusal."""
    d = len(problem.parameters)
    memories = list(state[d:])
    if not memories:
        return {}
    quiet = U.xreplace(dict.fromkeys(gradients, sp.Integer(0)))[d:, :]
    matrix = sp.eye(len(memories)) - quiet.jacobian(sp.Matrix(memories))
    if matrix.free_symbols & set(memories):
        raise RuleError(f"{rule.name}: a memory feeds back on itself nonlinearly; its resting value is not supported yet.")
    right = quiet.xreplace(dict.fromkeys(memories, sp.Integer(0)))
    field = Field([*matrix, *right])
    try:
        solution = field.expressions(solve_field(field.matrix(matrix), field.matrix(right)))
    except AlgebraError:
        raise RuleError(f"{rule.name}: a memory never forgets, so it has no equilibrium; multiply it by a factor below 1.") from None
    return dict(zip(memories, solution, strict=True))
