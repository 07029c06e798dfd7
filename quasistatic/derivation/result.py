"""The slow dynamics of a rule on a problem: frozen, lazily computed, what showing, compiling and validating read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import sympy as sp
from sympy.core.function import UndefinedFunction

from quasistatic.derivation import conditions as when
from quasistatic.derivation import potential
from quasistatic.derivation.averaging import AveragedMap, general_map, linear_map, state_symbols
from quasistatic.derivation.conventions import conventions
from quasistatic.derivation.dense import Dense
from quasistatic.derivation.geometry import Geometry, geometry
from quasistatic.derivation.kernel import Filter, make_filter
from quasistatic.derivation.law import hyperparameter, make_linear
from quasistatic.derivation.reduction import Order, Reduction, Terms, combine
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import HyperparameterError, ProblemError, RuleError, UnstableError, suggestion
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule


@dataclass(frozen=True, eq=False)
class SlowResult:
    """Slow dynamics of ``rule`` on ``problem``.

    Attributes
    ----------
    time_kind:
        "iteration" (the map itself) or "continuous" (the SDE of the declared scaling).
    order:
        Exact, or leading order in one hyperparameter.
    route:
        "structured" (kernels) or "dense" (the theorem on the whole state).
    """

    rule: Rule
    problem: Problem
    time_kind: str = "iteration"
    order: Order = Order()
    route: str = "structured"

    def __reduce__(self) -> Any:
        # what was computed is not kept: it is quick to derive again, and field elements do not travel
        return type(self), (self.rule, self.problem, self.time_kind, self.order, self.route)

    # -- the rule ------------------------------------------------------------------------------------------------------

    @cached_property
    def linear(self) -> LinearRule | None:
        """The rule as a linear filter, or None where it is not one."""
        return make_linear(self.rule, self.time_kind)

    @cached_property
    def filter(self) -> Filter | None:
        """Polynomials of the filter, memories included."""
        return None if self.linear is None else make_filter(self.linear, memories=True)

    @property
    def time(self) -> str:
        """ "iteration", or the label of the SDE's time such as "t = k*eta"."""
        return "iteration" if self.linear is None else self.linear.time

    @property
    def coordinates(self) -> tuple[sp.Symbol, ...]:
        """The k coordinates of the manifold that the drift is a function of."""
        return self.problem.chart.coordinates

    @property
    def slow_state(self) -> tuple[sp.Symbol, ...]:
        """What the drift is a function of: the coordinates (and the slow states of rules that have them)."""
        return self.coordinates

    @property
    def symbols(self) -> dict[str, sp.Symbol]:
        """Name to symbol: free hyperparameters, constants of the problem, coordinates."""
        found = dict(self.rule.hyperparameters)
        found.update({s.name: s for s in (*self.problem.constants, *self.coordinates)})
        return found

    @property
    def gain(self) -> sp.Expr:
        """Net displacement of a flat direction per unit gradient kick (per iteration); linear filters only."""
        if self.linear is None:
            raise RuleError(f"{self.rule.name} is not a linear filter; it has no gain.")
        return self.order.scalar(self.linear.gain)

    # -- the theorem ---------------------------------------------------------------------------------------------------

    @cached_property
    def geometry(self) -> Geometry:
        """Tangent, normal, Hessian and noise blocks of the problem."""
        return geometry(self.problem)

    @cached_property
    def _engine(self) -> Reduction | Dense:
        if self.linear is None or self.route == "dense":
            if self.order.symbol is not None:
                raise RuleError("leading() of the dense route is not supported; use the structured route.")
            return Dense(self.averaged_map, self.problem, {})
        from_law = make_filter(self.linear)
        return Reduction(from_law, self.geometry, self.order)

    @cached_property
    def averaged_map(self) -> AveragedMap:
        """F, its Jacobian and second derivative on the whole state."""
        return general_map(self.rule, self.problem) if self.linear is None else linear_map(self.linear, self.problem)

    @cached_property
    def terms(self) -> Terms:
        """The parts of the drift: flatness, correlation, Ito, small forces; (k, 1) each, per unit of ``time``."""
        return self._engine.terms()

    @cached_property
    def drift(self) -> sp.ImmutableMatrix:
        """E[du] of the coordinates at the limit point, Ito term included, (k, 1), per unit of ``time``."""
        return self.terms.total

    @cached_property
    def diffusion(self) -> sp.ImmutableMatrix:
        """Covariance of the coordinates' step, (k, k), per unit of ``time``."""
        return self._engine.diffusion()

    @property
    def ito(self) -> sp.ImmutableMatrix:
        """The Ito part of the drift, (k, 1)."""
        return self.terms.ito

    @cached_property
    def metric(self) -> sp.ImmutableMatrix:
        """Induced metric M of the manifold in the coordinates, (k, k)."""
        return self._engine.metric()

    @cached_property
    def state(self) -> tuple[sp.Symbol, ...]:
        """The n symbols of the state: parameters, then every state for every parameter (m_x, m_y, ...)."""
        return state_symbols(self.rule, self.problem)

    @cached_property
    def covariance(self) -> sp.ImmutableMatrix:
        """Equilibrium covariance of the fast part of the state, (n, n)."""
        if isinstance(self._engine, Dense):
            return self._engine.covariance()
        assert self.filter is not None
        return Reduction(self.filter, self.geometry, self.order).covariance()

    @cached_property
    def variance(self) -> sp.ImmutableMatrix:
        """The parameters' block V of ``covariance``, (d, d).

        With noise along the manifold its tangent-normal block is that of the fast part alone; the law's K(0, lambda)
        also holds the correlation with the lasting displacement (the drift's ``correlation`` term).
        """
        if isinstance(self._engine, Reduction):
            return sp.ImmutableMatrix(self._engine.block(0, 0))
        d = len(self.problem.parameters)
        return sp.ImmutableMatrix(self.covariance[:d, :d])

    # -- what follows --------------------------------------------------------------------------------------------------

    @cached_property
    def conditions(self) -> tuple[when.Condition, ...]:
        """When the result holds."""
        noisy = any(x != 0 for x in self.diffusion)
        if self.linear is None:
            return when.assumptions(noisy, True)
        law = make_filter(self.linear)
        return (*when.stability(law), *when.assumptions(noisy, self.linear.has_force))

    @property
    def conventions(self) -> str:
        """What the symbols mean where papers differ: Hessian, noise, unit of time, potential; one a line."""
        dt = "1" if self.linear is None else str(self.linear.dt)
        order = None if self.order.symbol is None else str(self.order.symbol)
        return conventions(self.time, dt, order, slow=True)

    @cached_property
    def _potential(self) -> sp.Expr:
        drift = self.terms.flatness + self.terms.correlation
        force = self._force_potential()
        found = None if isinstance(self._engine, Dense) else potential.proportional(self.geometry)
        if found is not None and isinstance(self._engine, Reduction):
            kind, strength = found
            kernel = self.order.kernel(self._engine.filter.kernel)
            density = potential.density(kernel, self.gain, strength, kind == "hessian")
            dt = self.linear.dt if self.linear is not None else sp.Integer(1)
            try:
                return potential.trace(combine(density / dt), self.geometry) + force
            except potential.NoClosedForm:
                pass
        omega = potential.one_form(sp.Matrix(self.metric), sp.Matrix(drift))
        return potential.integrate(omega, self.coordinates) + force

    def _force_potential(self) -> sp.Expr:
        """A force f z + c is the gradient of -(f |z|^2/2 + c sum(z)) on the manifold."""
        if self.linear is None or not self.linear.has_force:
            return sp.Integer(0)
        phi = self.problem.chart.embedding
        pull = self.order.scalar(combine((self.linear.left.T * self.linear.force)[0])) / self.linear.dt
        shift = self.order.scalar(combine((self.linear.left.T * self.linear.shift)[0])) / self.linear.dt
        return combine(-pull * sum(p**2 for p in phi) / 2 - shift * sum(phi))

    def regularizer(self) -> sp.Expr:
        """The potential Psi(u): the drift without its Ito part is -M^-1 dPsi/du per unit of ``time``. No constants are dropped.

        Raises
        ------
        NoPotential
            If the drift is not a gradient flow (with the curl), or the potential has no closed form (then a compiled
            flow's ``regularizer(u)`` integrates it).
        """
        return self._potential

    def leading(self, name: str) -> Self:
        """The same at leading order in one hyperparameter; noise and other hyperparameters stay fixed.

        Small forces (weight decay) have a size of their own and keep their own leading term.
        """
        return replace(self, order=Order(hyperparameter(self.rule, name)))

    def subs(self, replacements: Mapping[Any, Any]) -> Self:
        """Unknown functions (``{h: lambda x: 1 + x**2}``), constants or hyperparameters replaced by values; derived anew."""
        if not isinstance(replacements, Mapping):
            raise ProblemError(f"subs takes a mapping of symbols or functions to values, not {replacements!r}.")
        self._require_known(replacements)
        names = {s: n for n, s in self.rule.hyperparameters.items()}
        hyper = {names[k]: v for k, v in replacements.items() if k in names}
        rest = {k: v for k, v in replacements.items() if k not in names}
        rule = self.rule.fix(**hyper) if hyper else self.rule
        problem = self.problem.subs(rest) if rest else self.problem
        return replace(self, rule=rule, problem=problem)

    def _require_known(self, replacements: Mapping[Any, Any]) -> None:
        """Refuse keys that would change nothing."""
        known = {*self.rule.hyperparameters.values(), *self.problem.constants, *self.problem.parameters, *self.coordinates}
        for key in replacements:
            if key in known or (isinstance(key, UndefinedFunction) and key.__name__ in self.problem.unknown_functions):
                continue
            names = [*(s.name for s in known), *self.problem.unknown_functions]
            raise ProblemError(
                f"subs: {key!r} is no symbol or unknown function of this result ({', '.join(sorted(names))});"
                f" keys are symbols, as in slow.symbols.{suggestion(str(key), names)}"
            )

    def complete(self, values: Mapping[str, float], point: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """A point of ``slow_state`` from one of the coordinates; nothing to add without slow states."""
        return point

    def adiabatic(self) -> Self:
        """The result with slow states at their equilibrium; a rule without slow states has none to put there."""
        raise RuleError(f"{self.rule.name} has no slow states: adiabatic() is for rules with them; the result is final as it is.")

    # -- numbers -------------------------------------------------------------------------------------------------------

    def check(self, values: Mapping[str, float], point: Mapping[str, float] | None = None) -> None:
        """Raise UnstableError where numbers are outside the conditions.

        Parameters
        ----------
        values:
            Hyperparameters and constants by name.
        point:
            Coordinates by name; without it only what holds at every point is checked.
        """
        self._require_closed_functions()
        if self.linear is None:
            if point is not None:
                self._require_settling({**values, **point})
            return
        law = make_filter(self.linear)
        found = [] if point is None else when.curvatures(self.problem, {**values, **point}).tolist()
        where = ", ".join(f"{k}={v:.6g}" for k, v in (point or {}).items())
        when.require_stable(law, self.conditions, values, found, where)

    def _require_closed_functions(self) -> None:
        for name in self.problem.unknown_functions:
            raise ProblemError(f"{name} is still open: substitute it with slow.subs({{{name}: lambda x: ...}}) before numbers go in.")

    def _fast_modes(self, here: Mapping[str, float]) -> Any:
        """Eigenvalues of the averaged map's Jacobian at a point without those of the manifold; general rules."""
        n = len(self.state)
        J = when.numbers(list(self.averaged_map.J), here).reshape(n, n)
        eigenvalues = np.linalg.eigvals(J)
        return eigenvalues[np.argsort(np.abs(eigenvalues - 1))[len(self.coordinates) :]]

    def _require_settling(self, here: Mapping[str, float]) -> None:
        worst = max(self._fast_modes(here), key=abs, default=0.0)
        if abs(worst) >= 1:
            shown = ", ".join(f"{k}={v:.6g}" for k, v in here.items())
            raise UnstableError(
                f"unstable: the fast mode with eigenvalue {worst:.4g} does not decay for {shown}; all must be below 1 in size."
            )

    def rest(self, values: Mapping[str, float], point: Mapping[str, float]) -> Any:
        """The resting state (n,) above a point of the manifold, as numbers."""
        return when.numbers(list(self.averaged_map.rest), {**values, **point})

    def fast_rate(self, values: Mapping[str, float], point: Mapping[str, float]) -> float:
        """1 - spectral radius of the fast subspace at a point, per iteration."""
        if self.linear is None:
            return float(1 - max(abs(self._fast_modes({**values, **point}))))
        found = when.curvatures(self.problem, {**values, **point}).tolist()
        return when.fast_rate(make_filter(self.linear), found, values)


def require_distinct(rule: Rule, problem: Problem) -> None:
    """A name that both the rule and the problem use would be two symbols that look alike."""
    problem_names = {s.name for s in (*problem.parameters, *problem.chart.coordinates, *problem.constants)}
    for name in rule.hyperparameters:
        if name in problem_names:
            label = problem.name or "the problem"
            raise HyperparameterError(
                f"{rule.name} has a hyperparameter {name!r} and {label} uses the symbol {name!r} too: rename one of them"
                f" (in the problem, or as the keyword argument of {rule.name})."
            )
