"""A loss, its minima and its gradient noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction

from quasistatic.algebra.field import Field, sample
from quasistatic.errors import ProblemError, suggestion
from quasistatic.model.chart import Chart, make_chart
from quasistatic.model.noise import Noise
from quasistatic.symbols import expression as as_expression
from quasistatic.symbols import natural_sort, rationalize

#: Points at which the rank and the sign of the Hessian are looked at.
POINTS = 6


class Problem:
    """A loss with its manifold of minima and a model of the gradient noise.

    Parameters
    ----------
    loss:
        Expression in the parameters; its symbols that are not parameters are constants.
    minima:
        The manifold: parameters to expressions, e.g. ``{y: 0}`` or ``{u: s, v: 1/s}``. Parameters not named here, and
        new symbols in the values, are its coordinates. Only :meth:`from_residuals` can do without.
    noise:
        A noise model; needed by ``derive`` and ``simulate``.
    parameters:
        The parameters and their order; by default all symbols of the loss, sorted by name.
    coordinates:
        For new symbols in ``minima``: which value belongs to an iterate, e.g. ``{s: u}``. Simulation needs it.
    blocks:
        A partition of the parameters (symbols or names) for ``qs.block_mean``; one block by default.
    name:
        Shown in results.
    examples:
        Example values of the constants and coordinates (name to number), used by demonstrations only.

    Raises
    ------
    ProblemError
        If the gradient is not zero on the minima, the Hessian has the wrong rank or sign there, or the pieces do not
        fit together.
    """

    def __init__(
        self,
        loss: sp.Expr,
        minima: Mapping[sp.Symbol, Any] | None,
        noise: Noise | None = None,
        *,
        parameters: Sequence[sp.Symbol] | None = None,
        coordinates: Mapping[sp.Symbol, Any] | None = None,
        blocks: Sequence[Sequence[sp.Symbol | str]] | None = None,
        name: str = "",
        examples: Mapping[str, float] | None = None,
        _residuals: tuple[sp.Expr, ...] | None = None,
        _scale: sp.Expr = sp.Rational(1, 2),
    ) -> None:
        self.loss: sp.Expr = rationalize(_expression(loss, "loss"))
        self.residuals = _residuals
        self.scale = _scale
        self.parameters = _parameters(self.loss, parameters)
        without_chart = minima is None and _residuals is not None
        if not isinstance(minima, Mapping) and not without_chart:
            raise ProblemError(f"minima is a mapping of parameters to expressions, e.g. {{y: 0}}, not {minima!r}.")
        self.minima: Mapping[sp.Symbol, sp.Expr] = MappingProxyType(
            {k: rationalize(_expression(v, f"minima[{k}]")) for k, v in (minima or {}).items()}
        )
        names = [str(p) for p in self.parameters]
        for k in self.minima:
            if k not in self.parameters:
                raise ProblemError(
                    f"minima names {k}, which is not a parameter of the loss ({', '.join(names)})."
                    f"{suggestion(str(k), names)}{_same_name(k, self.parameters)}"
                )
        constants = frozenset(self.loss.free_symbols - set(self.parameters))
        given = None if coordinates is None else {k: _expression(v, f"coordinates[{k}]") for k, v in coordinates.items()}
        if without_chart and given:
            raise ProblemError("coordinates need minima=... too: without it the manifold has no chart.")
        self._chart: Chart | None = None if without_chart else make_chart(self.parameters, constants, self.minima, given)
        self.blocks = _blocks(blocks, self.parameters)
        self.name = name
        self.examples: Mapping[str, float] = MappingProxyType(dict(examples or {}))
        if noise is not None and not isinstance(noise, Noise):
            raise ProblemError(f"noise is {noise!r}; use qs.HessianNoise, qs.IsotropicNoise, qs.CovarianceNoise or qs.LabelNoise.")
        self.noise = noise
        self._given = given
        if self._chart is not None:
            _check_minima(self)
        if noise is not None:
            noise.check(self)

    @classmethod
    def from_residuals(
        cls,
        residuals: Sequence[sp.Expr],
        minima: Mapping[sp.Symbol, Any] | None = None,
        noise: Noise | None = None,
        *,
        scale: Any = sp.Rational(1, 2),
        **options: Any,
    ) -> Problem:
        """The problem with loss ``scale * sum(r_i**2)``; it knows its Jacobian, which label noise needs.

        Without ``minima`` the manifold is where all residuals vanish, and has no chart: ``qs.manifold_flow`` and
        ``qs.simulate`` work with it, formulas do not. Other arguments as for :class:`Problem`.
        """
        listed = tuple(rationalize(_expression(r, f"residual {i}")) for i, r in enumerate(residuals))
        if not listed:
            raise ProblemError("from_residuals needs at least one residual.")
        number = rationalize(_expression(scale, "scale"))
        if number.is_positive is False:
            raise ProblemError(f"scale = {number} must be positive.")
        return cls(number * sum(r**2 for r in listed), minima, noise, _residuals=listed, _scale=number, **options)

    def __repr__(self) -> str:
        minima = ", ".join(f"{k}={v}" for k, v in self.minima.items()) if self.has_chart else "residuals = 0"
        return f"<problem {self.name + ': ' if self.name else ''}loss {self.loss}, minima {minima}, noise {self.noise}>"

    def __reduce__(self) -> Any:
        given = {
            "parameters": self.parameters, "coordinates": self._given, "blocks": self.blocks, "name": self.name,
            "examples": dict(self.examples), "_residuals": self.residuals, "_scale": self.scale,
        }  # fmt: skip
        return _restore, (self.loss, dict(self.minima) if self.has_chart else None, self.noise, given)

    # -- the manifold --------------------------------------------------------------------------------------------------

    @property
    def has_chart(self) -> bool:
        """Whether the manifold was given by ``minima``; otherwise it is where the residuals vanish."""
        return self._chart is not None

    @property
    def chart(self) -> Chart:
        """The manifold's chart; raises ProblemError where there is none."""
        if self._chart is None:
            raise ProblemError(
                f"{self.name or 'the problem'} has no chart of its minima (it was built from residuals without minima=...), so there"
                " are no formulas on it: use qs.manifold_flow(rule, problem, ...), which needs none, or give minima=...."
            )
        return self._chart

    @property
    def coordinates(self) -> tuple[sp.Symbol, ...]:
        """The chart's coordinates; none without a chart."""
        return () if self._chart is None else self._chart.coordinates

    # -- derivatives ---------------------------------------------------------------------------------------------------

    @cached_property
    def gradient(self) -> sp.ImmutableMatrix:
        """Gradient of the loss at z, shape (d, 1)."""
        return sp.ImmutableMatrix([self.loss.diff(p) for p in self.parameters])

    @cached_property
    def residual_jacobian(self) -> sp.ImmutableMatrix:
        """d r_i / d z_j at z, shape (n, d); only for problems built from residuals."""
        if self.residuals is None:
            raise ProblemError("this problem was not built from residuals.")
        return sp.ImmutableMatrix(sp.Matrix(self.residuals).jacobian(sp.Matrix(self.parameters)))

    @cached_property
    def hessian(self) -> sp.ImmutableMatrix:
        """True Hessian of the loss on the manifold, as a function of the coordinates, shape (d, d)."""
        if self.residuals is not None and all(vanishes(r) for r in self.chart.restrict(sp.Matrix(self.residuals))):
            J = self.chart.restrict(self.residual_jacobian)
            return sp.ImmutableMatrix(2 * self.scale * J.T * J)
        return sp.ImmutableMatrix(self.chart.restrict(self.gradient.jacobian(sp.Matrix(self.parameters))))

    @cached_property
    def covariance(self) -> sp.ImmutableMatrix:
        """Covariance of the gradient noise on the manifold, as a function of the coordinates, shape (d, d)."""
        return self.require_noise().covariance(self)

    def require_noise(self) -> Noise:
        """The noise model; raises ProblemError where there is none."""
        if self.noise is None:
            raise ProblemError(
                "the problem has no noise, and without noise nothing drifts: give Problem(..., noise=qs.HessianNoise(alpha))."
            )
        return self.noise

    @cached_property
    def constants(self) -> tuple[sp.Symbol, ...]:
        """Symbols that are neither parameters nor coordinates: arguments of everything that is compiled."""
        found = set(self.loss.free_symbols)
        if self._chart is None:
            found |= set() if self.noise is None else self.noise.free_symbols
            return natural_sort(found - set(self.parameters))
        found |= self._chart.embedding.free_symbols
        for expression in self._chart.coordinate_map or ():
            found |= expression.free_symbols
        if self.noise is not None:
            found |= self.covariance.free_symbols
        return natural_sort(found - set(self.parameters) - set(self._chart.coordinates))

    def with_noise(self, noise: Noise) -> Problem:
        """The same problem with another model of the noise."""
        return self._remade(lambda e: e, noise)

    def with_blocks(self, blocks: Sequence[Sequence[sp.Symbol | str]]) -> Problem:
        """The same problem with another partition of its parameters: ``problem.with_blocks([("x", "w"), ("y",)])``."""
        return self._remade(lambda e: e, self.noise, blocks)

    @property
    def unknown_functions(self) -> tuple[str, ...]:
        """Names of functions like h(x) that are still open."""
        found = self.loss.atoms(AppliedUndef)
        if self._chart is not None:
            found |= self._chart.embedding.atoms(AppliedUndef)
        if self.noise is not None and self._chart is not None:
            found |= self.covariance.atoms(AppliedUndef)
        return tuple(sorted({type(a).__name__ for a in found}))

    def subs(self, replacements: Mapping[Any, Any]) -> Problem:
        """The problem with unknown functions (``{h: lambda x: 1 + x**2}``) or constants replaced; checked anew."""
        functions = {k: v for k, v in replacements.items() if isinstance(k, UndefinedFunction)}
        plain = {k: rationalize(_expression(v, f"replacement of {k}")) for k, v in replacements.items() if k not in functions}
        forbidden = [k for k in plain if k in self.parameters or k in self.coordinates]
        if forbidden:
            raise ProblemError(
                f"{forbidden[0]} is a parameter or coordinate; only constants and unknown functions can be substituted in a problem."
            )

        def change(expression: sp.Expr) -> sp.Expr:
            for f, value in functions.items():
                body: Callable[..., Any] = value if callable(value) and not isinstance(value, sp.Basic) else (lambda *_, v=value: v)
                try:
                    expression = as_expression(expression.replace(f, body).doit())
                except (TypeError, sp.SympifyError) as error:
                    raise ProblemError(f"{f} -> {value!r} is not a function of one argument that returns an expression: {error}.") from None
            return expression.subs(plain, simultaneous=True) if plain else expression

        return self._remade(change, None if self.noise is None else self.noise.map(change))

    def _remade(
        self, change: Callable[[sp.Expr], sp.Expr], noise: Noise | None, blocks: Sequence[Sequence[sp.Symbol | str]] | None = None
    ) -> Problem:
        given = self._given
        return Problem(
            change(self.loss),
            {k: change(v) for k, v in self.minima.items()} if self.has_chart else None,
            noise,
            parameters=self.parameters,
            coordinates=None if given is None else {k: change(v) for k, v in given.items()},
            blocks=self.blocks if blocks is None else blocks,
            name=self.name,
            examples=self.examples,
            _residuals=None if self.residuals is None else tuple(change(r) for r in self.residuals),
            _scale=change(self.scale),
        )


def _restore(loss: sp.Expr, minima: dict[sp.Symbol, sp.Expr] | None, noise: Noise | None, given: dict[str, Any]) -> Problem:
    return Problem(loss, minima, noise, **given)


def _expression(value: Any, what: str) -> sp.Expr:
    try:
        expression = as_expression(value)
    except ProblemError:
        raise ProblemError(f"{what} is {value!r}, which is not a SymPy expression or a number.") from None
    if not isinstance(expression, sp.Expr):
        raise ProblemError(f"{what} is {value!r}, which is not a scalar expression.")
    if expression.has(sp.nan, sp.oo, -sp.oo, sp.zoo, sp.I):
        raise ProblemError(f"{what} is {expression}, which is not a finite real expression.")
    return expression


def _parameters(loss: sp.Expr, given: Sequence[sp.Symbol] | None) -> tuple[sp.Symbol, ...]:
    if given is None:
        found = natural_sort(loss.free_symbols)
        if not found:
            raise ProblemError(f"the loss {loss} has no parameters.")
    else:
        found = tuple(given)
        if len(set(found)) != len(found) or not all(isinstance(p, sp.Symbol) for p in found) or not found:
            raise ProblemError(f"parameters={given!r}: give distinct symbols.")
    for p in found:
        if p.is_real is not True:
            raise ProblemError(f"{p} is not declared real; make parameters with qs.symbols({str(p)!r}).")
        if p.is_positive and given is None:
            # a positive symbol is the usual way to write a constant; as a parameter it would hide the other side
            raise ProblemError(
                f"{p} is declared positive: parameters are real. If {p} is a constant, list the parameters with parameters=(...)."
            )
    names = [p.name for p in found]
    if len(set(names)) != len(names):
        raise ProblemError(f"two parameters have the same name: {', '.join(names)}.")
    return found


def _same_name(symbol: sp.Symbol, parameters: Sequence[sp.Symbol]) -> str:
    if str(symbol) in [p.name for p in parameters]:
        return f" (There is a parameter named {symbol} with other assumptions: make both with qs.symbols.)"
    return ""


def _blocks(blocks: Sequence[Sequence[sp.Symbol | str]] | None, parameters: tuple[sp.Symbol, ...]) -> tuple[tuple[sp.Symbol, ...], ...]:
    if blocks is None:
        return (parameters,)
    named = {p.name: p for p in parameters}
    listed = tuple(tuple(named.get(p, p) if isinstance(p, str) else p for p in b) for b in blocks)
    flat = [p for b in listed for p in b]
    if len(flat) != len(parameters) or set(flat) != set(parameters) or not all(listed):
        raise ProblemError(
            f"blocks={blocks!r} is not a partition of the parameters {parameters}: every parameter belongs to exactly one block."
        )
    return listed


def vanishes(expression: sp.Expr) -> bool:
    """Zero by algebra, or else at random points to 12 digits (identities that the field does not know)."""
    if expression == 0 or Field([expression]).is_zero(expression):
        return True
    rng = np.random.default_rng(2)
    return all(abs(v) < 1e-12 for v in (sample([expression], rng)[0] for _ in range(5)))


def _check_minima(problem: Problem) -> None:
    """The gradient vanishes on the minima and the Hessian is positive definite across them."""
    for p, g in zip(problem.parameters, problem.chart.restrict(problem.gradient), strict=True):
        if not vanishes(g):
            where = ", ".join(f"{k}={v}" for k, v in problem.minima.items())
            raise ProblemError(f"the gradient is not zero on the minima ({where}): d(loss)/d{p} = {g} there.")
    d, k = len(problem.parameters), problem.chart.dimension
    rng = np.random.default_rng(3)
    good, complaint = 0, ""
    for _ in range(POINTS):
        numbers = np.array(sample([*problem.hessian, *problem.chart.tangent], rng))
        H, T = numbers[: d * d].reshape(d, d), numbers[d * d :].reshape(d, k)
        problem_here = _complain(problem, H, T)
        good += not problem_here
        complaint = problem_here or complaint
    if not good:
        raise ProblemError(complaint)


def _complain(problem: Problem, H: np.ndarray, T: np.ndarray) -> str:
    d, k = T.shape
    if np.linalg.matrix_rank(T, tol=1e-9 * max(1.0, np.abs(T).max())) < k:
        names = ", ".join(map(str, problem.chart.coordinates))
        return f"the coordinates {names} are not independent: the embedding {list(problem.chart.embedding)} has dependent tangents."
    values, vectors = np.linalg.eigh(H)
    size = max(np.abs(values).max(), 1e-300)
    null = int(np.sum(np.abs(values) < 1e-9 * size))
    if values[0] < -1e-9 * size:
        where = _direction(problem, vectors[:, 0])
        return f"the minima are not minima: the Hessian has the negative eigenvalue {values[0]:.3g} in the direction {where}."
    if null != k:
        # an extra flat direction: the part of the kernel that is not tangent to the declared manifold
        q = np.linalg.qr(T)[0]
        kernel = vectors[:, np.abs(values) < 1e-9 * size]
        extra = kernel - q @ (q.T @ kernel)
        worst = extra[:, int(np.argmax(np.linalg.norm(extra, axis=0)))] if kernel.size else np.zeros(d)
        return (
            f"the Hessian on the minima has rank {d - null}, but {d} parameters and {k} coordinate(s) need rank {d - k}:"
            f" it is flat also in the direction {_direction(problem, worst / max(float(np.linalg.norm(worst)), 1e-300))}."
            " Give that direction a coordinate, or correct the minima."
        )
    return ""


def _direction(problem: Problem, vector: np.ndarray) -> str:
    return "(" + ", ".join(f"{p}: {v:.3g}" for p, v in zip(problem.parameters, vector, strict=True)) + ")"
