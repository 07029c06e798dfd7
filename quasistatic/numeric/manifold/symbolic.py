"""Symbolic problems as array functions: residuals and their derivatives, or gradient, Hessian and third derivative."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.model.problem import Problem, vanishes
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.emit import require_closed
from quasistatic.numeric.manifold.shape import ResidualShape, Shape, TensorShape


def symbolic_shape(problem: Problem, values: Mapping[str, float]) -> Shape:
    """The shape of a symbolic problem: by its residuals where they vanish on the minima, else by its third derivative."""
    require_closed([problem.loss, *(problem.chart.embedding if problem.has_chart else ())], "problem")
    constants = {s: sp.Float(values[s.name], 17) for s in problem.constants}
    if problem.residuals is not None and (not problem.has_chart or _zero_on_minima(problem)):
        residuals = [r.xreplace(constants) for r in problem.residuals]
        return ResidualShape(SymbolicResiduals(residuals, problem.parameters), float(problem.scale.xreplace(constants)))
    d = len(problem.parameters)
    return TensorShape(LossDerivatives(problem.loss.xreplace(constants), problem.parameters), d - problem.chart.dimension)


def _zero_on_minima(problem: Problem) -> bool:
    return all(vanishes(r) for r in problem.chart.restrict(sp.Matrix(problem.residuals)))


def compiled(expressions: Sequence[sp.Expr], parameters: Sequence[sp.Symbol], shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Expressions as a function of one point (d,) to an array of this shape; only the entries that are not zero are computed."""
    flat = list(expressions)
    kept = [i for i, e in enumerate(flat) if e != 0]
    function: Any = sp.lambdify(parameters, [flat[i] for i in kept], "numpy", cse=True)
    template = np.zeros(len(flat))

    def evaluate(z: Array) -> Array:
        found = template.copy()
        with np.errstate(all="ignore"):
            found[kept] = function(*z)
        return found.reshape(shape)

    return evaluate


class SymbolicResiduals:
    """Residuals given by expressions; the tensors are dense, for small problems."""

    def __init__(self, residuals: Sequence[sp.Expr], parameters: Sequence[sp.Symbol]) -> None:
        n, d = len(residuals), len(parameters)
        self.size, self.count = d, n
        self.shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({p.name: () for p in parameters})
        J = [[r.diff(p) for p in parameters] for r in residuals]
        second = [e.diff(p) for row in J for e in row for p in parameters]
        self.residuals = compiled(residuals, parameters, (n,))
        self.jacobian = compiled([e for row in J for e in row], parameters, (n, d))
        self._second = compiled(second, parameters, (n, d, d))

    def jvp(self, z: Array, w: Array) -> Array:
        """J w."""
        return self.jacobian(z) @ w

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c."""
        return c @ self.jacobian(z)

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """sum_j c_j d2r_j w, summed over leading axes."""
        return np.asarray(np.einsum("kj,jab,kb->a", np.atleast_2d(c), self._second(z), np.atleast_2d(w), optimize=True))

    def second(self, z: Array, w: Array) -> Array:
        """sum over rows of w of w^T d2r_j w, shape (n,)."""
        return np.asarray(np.einsum("ka,jab,kb->j", w, self._second(z), w, optimize=True))


class LossDerivatives:
    """Gradient, Hessian and third derivative of a loss given by an expression."""

    def __init__(self, loss: sp.Expr, parameters: Sequence[sp.Symbol]) -> None:
        d = len(parameters)
        self.size = d
        first = [loss.diff(p) for p in parameters]
        second = [e.diff(p) for e in first for p in parameters]
        third = [e.diff(p) for e in second for p in parameters]
        self.gradient = compiled(first, parameters, (d,))
        self.hessian = compiled(second, parameters, (d, d))
        self.tensor = compiled(third, parameters, (d, d, d))
