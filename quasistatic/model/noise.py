"""Models of the gradient noise: a covariance on the manifold, and a factor C with C C^T = Sigma for the simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from quasistatic.algebra.field import Field, sample
from quasistatic.errors import HyperparameterError, ProblemError
from quasistatic.symbols import exact, rationalize

if TYPE_CHECKING:
    from quasistatic.model.problem import Problem

#: Relative size below which an eigenvalue or pivot of a covariance counts as zero.
ZERO = 1e-9

#: A pivot of the noise factor below this part of its diagonal entry is rounding: the noise has lower rank there.
TINY = sp.Rational(1, 10**12)


@dataclass(frozen=True)
class Factor:
    """A noise factor as a short program: assignments in order, then C (d, r) in their symbols and the parameters."""

    assignments: tuple[tuple[sp.Symbol, sp.Expr], ...]
    matrix: sp.ImmutableMatrix

    @property
    def rank(self) -> int:
        """Number of independent normals that one gradient needs."""
        return int(self.matrix.cols)


class Noise:
    """Base class of the noise models; the covariance is that of one iteration's gradient."""

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        """Sigma on the manifold as a function of the coordinates u, shape (d, d)."""
        raise NotImplementedError

    def factor(self, problem: Problem) -> Factor:
        """C(z) with C C^T = Sigma at the manifold point that belongs to z: what the simulation draws with.

        Where the manifold has no chart, Sigma at z itself: its change across the manifold is of higher order in the noise.
        """
        if not problem.has_chart:
            return self.free_factor(problem)
        sigma = self.covariance(problem)
        back = dict(zip(problem.chart.coordinates, problem.chart.require_coordinate_map(), strict=True))
        back = {u: c for u, c in back.items() if u != c}
        # the parameters named in minima span the normal space of a graph at every point, the others may not
        named = [i for i, p in enumerate(problem.parameters) if p in problem.minima]
        columns = pivots(sigma, [*named, *(i for i in range(sigma.rows) if i not in named)])
        return cholesky(sp.Matrix(sigma.subs(back, simultaneous=True) if back else sigma), columns)

    def free_factor(self, problem: Problem) -> Factor:
        """C(z) on a problem whose manifold has no chart."""
        raise NotImplementedError

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        """Symbols of the model's expressions."""
        raise NotImplementedError

    def check(self, problem: Problem) -> None:
        """Raise ProblemError where the model does not fit the problem."""

    def require_additive(self) -> None:
        """Raise ProblemError where the noise also makes the Jacobian of a step random, which is not supported yet."""

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> Noise:
        """The same model with every expression changed (used by substitutions)."""
        raise NotImplementedError

    def scaled(self, factor: Any) -> Noise:
        """The same model with ``factor`` times the covariance."""
        raise NotImplementedError

    def __add__(self, other: Noise) -> SumNoise:
        """Both at once, independent of each other."""
        return SumNoise((self, other)) if isinstance(other, Noise) else NotImplemented


def _strength(value: Any, what: str) -> sp.Expr:
    number = exact(value, what)
    if number.is_negative or (number.is_number and not number.is_real):
        raise HyperparameterError(f"{what}: {value} is negative; a noise strength is at least 0.")
    return number


@dataclass(frozen=True)
class HessianNoise(Noise):
    """Sigma = alpha * Hessian, at the manifold point that belongs to the iterate (true Hessian)."""

    alpha: sp.Expr

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _strength(self.alpha, "HessianNoise: alpha"))

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        return sp.ImmutableMatrix(problem.chart.restrict(self.alpha) * problem.hessian)

    def free_factor(self, problem: Problem) -> Factor:
        return Factor((), sp.ImmutableMatrix(sp.sqrt(2 * problem.scale * self.alpha) * problem.residual_jacobian.T))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return set(self.alpha.free_symbols)

    def scaled(self, factor: Any) -> HessianNoise:
        return HessianNoise(factor * self.alpha)

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> HessianNoise:
        return HessianNoise(change(self.alpha))


@dataclass(frozen=True)
class IsotropicNoise(Noise):
    """Sigma = sigma^2 I, or sigma^2 times the projector on the normal space (``normal_only``) or tangent space (``tangent_only``)."""

    sigma: sp.Expr
    normal_only: bool = False
    tangent_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", _strength(self.sigma, "IsotropicNoise: sigma"))
        if self.normal_only and self.tangent_only:
            raise HyperparameterError("IsotropicNoise: normal_only and tangent_only exclude each other; leave both out for all directions.")

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        d = len(problem.parameters)
        strength = problem.chart.restrict(self.sigma) ** 2
        if not self.normal_only and not self.tangent_only:
            return sp.ImmutableMatrix(strength * sp.eye(d))
        T = problem.chart.tangent
        field = Field(list(T))
        t = field.matrix(T)
        projector = field.expressions(t * (t.transpose() * t).inv() * t.transpose())
        return sp.ImmutableMatrix(strength * (projector if self.tangent_only else sp.eye(d) - projector))

    def free_factor(self, problem: Problem) -> Factor:
        if self.normal_only or self.tangent_only:
            raise ProblemError(
                "IsotropicNoise(normal_only or tangent_only) needs the normal space at every iterate, which a problem without a chart"
                " has no formula for: give minima=..., or take qs.LabelNoise or qs.HessianNoise."
            )
        return Factor((), sp.ImmutableMatrix(self.sigma * sp.eye(len(problem.parameters))))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return set(self.sigma.free_symbols)

    def scaled(self, factor: Any) -> IsotropicNoise:
        return IsotropicNoise(sp.sqrt(factor) * self.sigma, self.normal_only, self.tangent_only)

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> IsotropicNoise:
        return IsotropicNoise(change(self.sigma), self.normal_only, self.tangent_only)


@dataclass(frozen=True)
class CovarianceNoise(Noise):
    """Any covariance of the gradient, shape (d, d) in the order of ``problem.parameters``; entries may use them."""

    matrix: sp.ImmutableMatrix

    def __post_init__(self) -> None:
        try:
            matrix = sp.Matrix(self.matrix.tolist() if isinstance(self.matrix, np.ndarray) else self.matrix)
        except (TypeError, ValueError) as error:
            raise ProblemError(f"CovarianceNoise needs a square matrix: {error}.") from None
        if matrix.rows != matrix.cols:
            raise ProblemError(f"CovarianceNoise: a matrix of shape {matrix.shape} is not square.")
        if matrix.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
            raise ProblemError("CovarianceNoise: an entry is not finite.")
        object.__setattr__(self, "matrix", sp.ImmutableMatrix(matrix.applyfunc(rationalize)))

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        return sp.ImmutableMatrix(problem.chart.restrict(self.matrix))

    def check(self, problem: Problem) -> None:
        d = len(problem.parameters)
        if self.matrix.rows != d:
            names = ", ".join(map(str, problem.parameters))
            raise ProblemError(
                f"CovarianceNoise: the matrix is {self.matrix.rows}x{self.matrix.cols}, the problem has {d} parameters ({names})."
            )
        sigma = self.covariance(problem) if problem.has_chart else self.matrix
        field = Field(list(sigma))
        for i in range(d):
            for j in range(i):
                if not field.is_zero(sigma[i, j] - sigma[j, i]):
                    raise ProblemError(
                        f"CovarianceNoise is not symmetric: entry ({i}, {j}) is {sigma[i, j]}, entry ({j}, {i}) is {sigma[j, i]}."
                    )
        rng = np.random.default_rng(0)
        for _ in range(5):
            numbers = np.array(sample(list(sigma), rng)).reshape(d, d)
            values, vectors = np.linalg.eigh(numbers)
            if values[0] < -ZERO * max(1e-300, np.abs(values).max()):
                direction = ", ".join(f"{v:.3g}" for v in vectors[:, 0])
                raise ProblemError(
                    f"CovarianceNoise is not positive semidefinite: {sigma.tolist()} has the eigenvalue {values[0]:.3g}"
                    f" in the direction ({direction}) at a sampled point."
                )

    def free_factor(self, problem: Problem) -> Factor:
        return cholesky(sp.Matrix(self.matrix), pivots(self.matrix, list(range(self.matrix.rows))))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return set(self.matrix.free_symbols)

    def scaled(self, factor: Any) -> CovarianceNoise:
        return CovarianceNoise(factor * self.matrix)

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> CovarianceNoise:
        return CovarianceNoise(self.matrix.applyfunc(change))


@dataclass(frozen=True)
class LabelNoise(Noise):
    """Residuals r_i replaced by r_i + sigma*xi_i: the genuine perturbed gradient, also off the manifold.

    With ``scale`` s the covariance on the manifold is 4 s^2 sigma^2 J^T J = 2 s sigma^2 Hessian; ``batch=b`` draws b of
    the n residuals with replacement, each with its own xi, and multiplies by n/b.
    """

    sigma: sp.Expr
    batch: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", _strength(self.sigma, "LabelNoise: sigma"))
        if self.batch is not None and (isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1):
            raise HyperparameterError(f"LabelNoise: batch={self.batch!r} is not a positive whole number.")

    def check(self, problem: Problem) -> None:
        if problem.residuals is None:
            raise ProblemError("LabelNoise perturbs residuals: build the problem with qs.Problem.from_residuals(...).")

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        self.check(problem)
        J = problem.chart.restrict(problem.residual_jacobian)
        copies = sp.Integer(1) if self.batch is None else sp.Rational(len(problem.residuals or ()), self.batch)
        return sp.ImmutableMatrix(4 * copies * problem.scale**2 * problem.chart.restrict(self.sigma) ** 2 * J.T * J)

    def require_additive(self) -> None:
        if self.batch is not None:
            raise ProblemError(
                "LabelNoise(batch=...): drawing minibatches makes the Jacobian of a step random too, which is not supported yet;"
                " leave batch out for the full batch."
            )

    def factor(self, problem: Problem) -> Factor:
        self.check(problem)
        self.require_additive()
        return Factor((), sp.ImmutableMatrix(2 * problem.scale * self.sigma * problem.residual_jacobian.T))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return set(self.sigma.free_symbols)

    def scaled(self, factor: Any) -> LabelNoise:
        return LabelNoise(sp.sqrt(factor) * self.sigma, self.batch)

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> LabelNoise:
        return LabelNoise(change(self.sigma), self.batch)


@dataclass(frozen=True)
class SumNoise(Noise):
    """Independent noises at once, ``LabelNoise(sigma) + IsotropicNoise(tau, tangent_only=True)``: covariances add."""

    parts: tuple[Noise, ...]

    def __post_init__(self) -> None:
        flat: list[Noise] = []
        for part in self.parts:
            flat += part.parts if isinstance(part, SumNoise) else [part]
        object.__setattr__(self, "parts", tuple(flat))

    def covariance(self, problem: Problem) -> sp.ImmutableMatrix:
        total = sp.zeros(len(problem.parameters))
        for part in self.parts:
            total += part.covariance(problem)
        return sp.ImmutableMatrix(total)

    def factor(self, problem: Problem) -> Factor:
        assignments: list[tuple[sp.Symbol, sp.Expr]] = []
        columns = []
        for i, part in enumerate(self.parts):
            factor = part.factor(problem)
            names = {s: sp.Symbol(f"{s.name}_{i}", real=True) for s, _ in factor.assignments}
            assignments += [(names[s], e.xreplace(names)) for s, e in factor.assignments]
            columns.append(sp.Matrix(factor.matrix.xreplace(names)))
        return Factor(tuple(assignments), sp.ImmutableMatrix(sp.Matrix.hstack(*columns)))

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return {s for part in self.parts for s in part.free_symbols}

    def check(self, problem: Problem) -> None:
        for part in self.parts:
            part.check(problem)

    def require_additive(self) -> None:
        for part in self.parts:
            part.require_additive()

    def scaled(self, factor: Any) -> SumNoise:
        return SumNoise(tuple(p.scaled(factor) for p in self.parts))

    def map(self, change: Callable[[sp.Expr], sp.Expr]) -> SumNoise:
        return SumNoise(tuple(p.map(change) for p in self.parts))


def pivots(sigma: sp.ImmutableMatrix, order: list[int]) -> list[int]:
    """Rows of a covariance that a Cholesky factor needs, tried in order: as many as its rank at a random point."""
    d = sigma.rows
    rng = np.random.default_rng(1)
    found: list[int] = []
    rest = np.array(sample(list(sigma), rng)).reshape(d, d)
    size = np.abs(rest).max()
    for i in order:
        if rest[i, i] > ZERO * size:
            found.append(i)
            rest = rest - np.outer(rest[:, i], rest[i, :]) / rest[i, i]
    return found


def cholesky(sigma: sp.Matrix, rows: list[int]) -> Factor:
    """A factor of a positive semidefinite matrix of rank len(rows) as a program; zeros of the matrix stay zeros.

    The order of the pivots is fixed. At special points, where one vanishes, its column is zero instead of a division by zero.
    """
    d = sigma.rows
    C = sp.zeros(d, len(rows))
    assignments: list[tuple[sp.Symbol, sp.Expr]] = []

    def name(value: sp.Expr, tag: str) -> sp.Expr:
        if value.is_Number or value.is_Symbol:
            return value
        symbol = sp.Symbol(tag, real=True)
        assignments.append((symbol, value))
        return symbol

    for m, j in enumerate(rows):
        pivot = sigma[j, j] - sum(C[j, q] ** 2 for q in range(m))
        below = [i for i in range(d) if i != j and i not in rows[:m]]
        values = {i: sigma[i, j] - sum(C[i, q] * C[j, q] for q in range(m)) for i in below}
        divided = any(value != 0 for value in values.values())
        if (m or divided) and pivot.is_positive is not True:
            pivot = name(pivot, f"_p{j}")
            alive = sp.StrictGreaterThan(pivot, TINY * name(sigma[j, j], f"_s{j}"), evaluate=False)
            root = name(_where(alive, sp.sqrt(pivot)), f"_c{j}_{m}")
        else:
            alive, root = sp.true, name(sp.sqrt(pivot), f"_c{j}_{m}")
        C[j, m] = root
        for i, value in values.items():
            C[i, m] = sp.Integer(0) if value == 0 else name(_where(alive, value / root), f"_c{i}_{m}")
    return Factor(tuple(assignments), sp.ImmutableMatrix(C))


def _where(condition: sp.Basic, value: sp.Expr) -> sp.Expr:
    """The value, or 0 where the condition does not hold."""
    return value if condition is sp.true else sp.Piecewise((value, condition), (0, True), evaluate=False)
