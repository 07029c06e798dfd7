"""When a result holds: stability inequalities, and the sizes of what the theory neglects (theory, section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from sympy.polys.matrices import DomainMatrix
from sympy.polys.rings import PolyElement

from quasistatic.algebra import gramian
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, Filter
from quasistatic.derivation.slow_states import Preconditioned
from quasistatic.errors import ProblemError, UnstableError
from quasistatic.model.problem import Problem


@dataclass(frozen=True)
class Condition:
    """One condition of a result.

    Attributes
    ----------
    kind:
        "stability" (an inequality, enforced), "separation", "small oscillation", "force" or "assumption" (said in words).
    statement:
        What must hold, in words.
    inequality:
        The inequality as a SymPy relation in the hyperparameters and the curvature lambda, where there is one.
    """

    kind: str
    statement: str
    inequality: sp.Rel | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.inequality if self.inequality is not None else self.statement}"


def stability(filter_: Filter) -> tuple[Condition, ...]:
    """Jury's conditions (Hurwitz' for an SDE) on p_lambda for every curvature lambda, and on the memory alone."""
    continuous = filter_.linear.continuous
    found: list[Condition] = []
    curvature = filter_.ring.gens[-2]
    memory = filter_.d if filter_.n > 1 else ()
    for polynomial, statement in (
        (memory, "the memory forgets"),
        (filter_.closed(curvature), "the iteration is stable in every direction across the minima, curvature lambda"),
    ):
        if not polynomial:
            continue
        minors = _hurwitz(polynomial) if continuous else _jury(polynomial)
        for relation in (r for minor in minors for r in _positive(minor, filter_)):
            if all(relation != c.inequality for c in found):
                found.append(Condition("stability", statement, relation))
    for base in filter_.linear.bases:
        relation = sp.Lt(base, 1, evaluate=False)
        if all(relation != c.inequality for c in found):
            found.append(Condition("stability", "the power base**t vanishes at late times", relation))
    return tuple(found)


def _jury(p: Sequence[PolyElement]) -> list[PolyElement]:
    """Positive exactly when all roots are inside the unit circle (p real, leading coefficient positive)."""
    m = len(p) - 1
    at_one = sum(p[1:], start=p[0])
    at_minus_one = sum((c * (-1) ** k for k, c in enumerate(p)), start=p[0].ring.zero)  # (-1)^m p(-1)
    S = gramian.schur_cohn(p, p[0].ring.to_domain())
    return [at_one, at_minus_one, *_leading_minors(S, m - 1)]


def _hurwitz(p: Sequence[PolyElement]) -> list[PolyElement]:
    m = len(p) - 1
    zero = p[0].ring.zero
    rows = [[p[2 * j - i + 1] if 0 <= 2 * j - i + 1 <= m else zero for j in range(m)] for i in range(m)]
    H = DomainMatrix(rows, (m, m), p[0].ring.to_domain())
    return [p[-1], *_leading_minors(H, m - 1)]


def _leading_minors(matrix: DomainMatrix, count: int) -> list[PolyElement]:
    minors = []
    for size in range(1, count + 1):
        index = list(range(size))
        coefficients = matrix.extract(index, index).charpoly()
        minors.append(coefficients[-1] * (-1) ** size)
    return minors


def _positive(polynomial: PolyElement, filter_: Filter) -> list[sp.Rel]:
    """polynomial > 0, factor by factor, as (what is subtracted) < (what is added).

    A factor that is positive anyway is left out. Where several can change sign, each keeps the sign that it has where
    every rule is stable, at small hyperparameters and curvature: the first to change it ends stability.
    """
    _, factors = polynomial.factor_list()
    replace = {LAMBDA_I: LAMBDA, **filter_.meaning}
    relations = []
    for base, exponent in factors:
        expression = base.as_expr().xreplace(replace)
        if exponent % 2 == 0 or expression.is_positive or expression.is_negative:
            continue
        stable = {s: sp.Rational(1, 10**6) if s == LAMBDA else sp.Rational(1, 10) for s in expression.free_symbols}
        if expression.xreplace(stable) < 0:
            expression = sp.expand(-expression)
        terms = sp.Add.make_args(expression)
        negative = [t for t in terms if t.could_extract_minus_sign()]
        if negative:
            added = sp.Add(*(t for t in terms if t not in negative))
            relations.append(sp.Lt(sp.Add(*(-t for t in negative)), added, evaluate=False))
    return relations


def assumptions(noisy_tangent: bool, force: bool) -> tuple[Condition, ...]:
    """What the theory neglects, said in words; ``sizes`` measures it."""
    found = [
        Condition("separation", "the drift changes slowly against the relaxation onto the minima: |d drift/du| << 1 - rho(J_fast)"),
        Condition("small oscillation", "the fluctuation stays where the loss is quadratic: |d^4 f| V << |d^2 f|"),
    ]
    if force:
        found.append(Condition("force", "small forces move a point of the manifold by little in one step; they enter to first order"))
    if noisy_tangent:
        found.append(Condition("assumption", "the noise has a component along the manifold: single runs diffuse, laws are compared"))
    return tuple(found)


def frozen(rule: Preconditioned) -> tuple[Condition, ...]:
    """What holding the slow states fixed neglects."""
    rates = ", ".join(f"{s.rate} for {s.state.name}" for s in rule.slow)
    found = [
        Condition("stability", f"{s.state.name} is an average", sp.Lt(s.keep, 1, evaluate=False)) for s in rule.slow if s.keep.free_symbols
    ]
    found += [
        Condition(
            "frozen state",
            f"slow states change little while the fast variables relax: their rate ({rates}) << 1 - rho(J_fast);"
            f" freezing them has a bias of"
            " the order of that rate (E[v^-1/2] = 1 + 3/8 (1 - beta2) in units of the mean)",
        ),
        Condition("preconditioner", "S is smooth along the path: eps >> sqrt(3) |d^3 f| V, or every second moment comes from the noise"),
    ]
    if len(rule.powers) > 1:
        found.append(
            Condition(
                "memory",
                "the momentum forgets fast against the drift, 1 - beta1 >> eta^2; where it does not,"
                " its energy is slow too and relaxes at the"
                " rate 1 - beta1 (kinetic closure)",
            )
        )
    return tuple(found)


# -- numbers -----------------------------------------------------------------------------------------------------------


def numbers(expressions: Sequence[sp.Expr], values: Mapping[str, float]) -> np.ndarray:
    """Expressions as floats, symbols by name."""
    found = []
    for e in expressions:
        missing = [s.name for s in e.free_symbols if s.name not in values]
        if missing:
            raise ProblemError(f"a value for {', '.join(sorted(missing))} is missing.")
        value = e.xreplace({s: sp.Float(values[s.name], 17) for s in e.free_symbols}).evalf(17)
        found.append(float(value) if value.is_extended_real else math.nan)
    return np.array(found)


def curvatures(problem: Problem, values: Mapping[str, float], root_scale: Any = 1.0) -> np.ndarray:
    """Eigenvalues of the Hessian across the manifold at a point (coordinates among ``values``), ascending.

    ``root_scale`` (d,) is the square root of a diagonal preconditioner: eigenvalues of S^1/2 H S^1/2.

    Raises
    ------
    UnstableError
        If the Hessian is not positive definite there.
    """
    d = len(problem.parameters)
    root = np.broadcast_to(root_scale, d)
    H = numbers(list(problem.hessian), values).reshape(d, d) * np.outer(root, root)
    eigenvalues = np.linalg.eigvalsh(H)
    order = np.argsort(np.abs(eigenvalues))
    across = np.sort(eigenvalues[order[problem.chart.dimension :]])
    if across[0] <= 0 or not np.all(np.isfinite(across)):
        where = ", ".join(f"{u}={values[u.name]:.6g}" for u in problem.chart.coordinates)
        raise UnstableError(
            f"at {where} the minima are not minima: a curvature across the manifold is {across[0]:.4g}, it must be positive."
        )
    return across


def modes(filter_: Filter, curvature: float, values: Mapping[str, float]) -> np.ndarray:
    """Eigenvalues of one iteration (of the SDE's generator) in a direction of some curvature; 0 means along the manifold."""
    linear = filter_.linear
    n = linear.A.rows
    A = numbers(list(linear.A), values).reshape(n, n)
    A[:, 0] += curvature * numbers(list(linear.b), values)
    eigenvalues = np.linalg.eigvals(A)
    if curvature == 0:  # without the manifold's own eigenvalue
        root = 0.0 if linear.continuous else 1.0
        eigenvalues = np.delete(eigenvalues, int(np.argmin(np.abs(eigenvalues - root))))
    return eigenvalues


def fast_rate(filter_: Filter, found: Sequence[float], values: Mapping[str, float]) -> float:
    """1 - spectral radius of the fast subspace per iteration (the slowest decay rate of an SDE)."""
    rates = [1.0]
    for curvature in (0.0, *found):
        for mode in modes(filter_, curvature, values):
            rates.append(float(-mode.real) if filter_.linear.continuous else float(1 - abs(mode)))
    return min(rates)


def require_stable(
    filter_: Filter, conditions: Sequence[Condition], values: Mapping[str, float], found: Sequence[float], where: str
) -> None:
    """Raise UnstableError, naming the inequality, the values and the mode, where the iteration does not settle."""
    for curvature in (0.0, *found):
        here = {**values, "lambda": curvature}
        broken = [c for c in conditions if c.inequality is not None and not _holds(c.inequality, here)]
        eigenvalues = modes(filter_, curvature, values)
        growing = [m for m in eigenvalues if (m.real >= 0 if filter_.linear.continuous else abs(m) >= 1)]
        if not growing and not any(c.inequality.lhs in filter_.linear.bases for c in broken if c.inequality is not None):
            continue
        inequality = next((c.inequality for c in broken), None)
        used = sorted(s.name for s in inequality.free_symbols) if inequality is not None else sorted(values)
        shown = ", ".join(f"{n}={here[n]:.6g}" for n in used if n in here)
        mode = max(eigenvalues, key=lambda m: m.real if filter_.linear.continuous else abs(m)) if len(eigenvalues) else 0.0
        kind = f" The mode with eigenvalue {_complex(mode)} does not decay"
        edge = not filter_.linear.continuous and abs(complex(mode).imag) < 1e-9 and complex(mode).real <= -1
        kind += ": beyond the edge of stability, where this theory ends." if edge else "."
        at = f" at {where}" if where and curvature else ""
        raise UnstableError(
            f"unstable{at}: the condition {inequality if inequality is not None else 'spectral radius < 1'} fails for {shown}.{kind}"
        )


def _complex(mode: Any) -> str:
    value = complex(mode)
    return f"{value.real:.4g}" if abs(value.imag) < 1e-9 else f"{value.real:.4g}{value.imag:+.4g}i"


def _holds(relation: sp.Rel, values: Mapping[str, float]) -> bool:
    if any(s.name not in values for s in relation.free_symbols):
        return True
    left, right = numbers([relation.lhs, relation.rhs], values)
    return bool(left < right)
