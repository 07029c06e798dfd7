"""The slow dynamics as compiled functions: drift, diffusion, covariance, paths, and the numerical potential."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import sympy as sp
from scipy.integrate import quad, solve_ivp

from quasistatic.errors import NoPotential, QuasistaticError, SimulationDiverged, StartError, UnstableError
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric import plans
from quasistatic.numeric.arguments import Array, Progress, point, resolve, seed_number, whole
from quasistatic.numeric.emit import require_closed
from quasistatic.numeric.ensemble import moments, record_steps
from quasistatic.numeric.kernel import LaneProgram
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.random import SLOW_SALT, generator_name
from quasistatic.numeric.slow_sde import SlowEnsemble, SlowTrajectory, euler_step, uniform_times
from quasistatic.numeric.table import Table

#: Euler steps of a whole SDE run, unless ``substeps`` says otherwise.
EULER_STEPS = 20_000

#: Start points of an ensemble whose stability is checked one by one.
CHECKED = 32


class Result(Protocol):
    """What a flow is compiled from: the derivation's result has all of this."""

    @property
    def rule(self) -> Rule: ...
    @property
    def problem(self) -> Problem: ...
    @property
    def coordinates(self) -> tuple[sp.Symbol, ...]: ...
    @property
    def slow_state(self) -> tuple[sp.Symbol, ...]: ...
    @property
    def state(self) -> tuple[sp.Symbol, ...]: ...
    @property
    def drift(self) -> sp.Matrix: ...
    @property
    def diffusion(self) -> sp.Matrix: ...
    @property
    def covariance(self) -> sp.Matrix: ...
    @property
    def metric(self) -> sp.Matrix: ...
    @property
    def ito(self) -> sp.Matrix: ...
    @property
    def time(self) -> str: ...
    def check(self, values: Mapping[str, float], point: Mapping[str, float] | None) -> None: ...
    def complete(self, values: Mapping[str, float], point: Mapping[Any, Any]) -> Mapping[Any, Any]: ...
    def adiabatic(self) -> Any: ...


def compile_flow(result: Result, values: Mapping[str, Any]) -> Flow:
    """The flow of a result with numbers for every hyperparameter and constant; each function is compiled when first used.

    Raises
    ------
    HyperparameterError
        For names that are missing, unknown or fixed, and for senseless values.
    ProblemError
        If an unknown function is still open.
    UnstableError
        If the numbers are outside the result's conditions.
    """
    problem = result.problem
    require_closed([problem.loss, *problem.chart.embedding, *([] if problem.noise is None else problem.covariance)])
    numbers = resolve(result.rule, problem, values)
    result.check(numbers, None)
    return Flow(result, numbers)


class Flow:
    """Compiled slow dynamics; made by :func:`compile_flow`.

    Points u have the coordinates on their last axis (and behind them the slow states of rules that have any), and every
    function broadcasts over the axes before it; with one
    coordinate a plain number is a point too. All rates are per ``time``: "iteration", or a continuous time such as
    "t = k*eta", which then is the unit of ``steps`` below, and need not be a whole number.

    Attributes
    ----------
    values:
        Name to number of hyperparameters and constants.
    time:
        Unit of time.
    """

    def __init__(self, result: Result, values: Mapping[str, float]) -> None:
        self._result = result
        self.values = dict(values)
        self.time = result.time
        self._tables: dict[str, Table] = {}

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v:g}" for k, v in self.values.items())
        return f"<flow of {', '.join(self.coordinates)} per {self.time}; {values}>"

    def __reduce__(self) -> Any:
        return compile_flow, (self._result, self.values)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the k entries of a point: the coordinates, then slow states."""
        return tuple(c.name for c in self._result.slow_state)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names in the order in which every kernel takes ``values``."""
        return tuple(a.name for a in self._arguments)

    @cached_property
    def _arguments(self) -> tuple[sp.Symbol, ...]:
        return (*self._result.rule.hyperparameters.values(), *self._result.problem.constants)

    @property
    def source(self) -> str:
        """Emitted source of drift, diffusion and covariance."""
        return "\n\n".join(self._table(name).source for name in ("drift", "diffusion", "covariance"))

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            expressions = self._one_form() if name == "one-form" else list(sp.Matrix(getattr(self._result, name)))
            self._tables[name] = Table(f"{name} of the slow dynamics", expressions, self._result.slow_state, self._arguments)
        return self._tables[name]

    def _one_form(self) -> list[sp.Expr]:
        slow = self._result
        return list(-sp.Matrix(slow.metric) * (sp.Matrix(slow.drift) - sp.Matrix(slow.ito)))

    # -- points --------------------------------------------------------------------------------------------------------

    def _point(self, u: Any) -> Array:
        """Points as an array (..., k) from numbers or a mapping of coordinates; slow states left out are at equilibrium."""
        if isinstance(u, Mapping):
            return point(self._result.complete(self.values, u), self._result.slow_state, "coordinate")
        k = len(self._result.slow_state)
        try:
            given = np.asarray(u, dtype=np.float64)
        except (TypeError, ValueError):
            raise StartError(f"{u!r} is not a point ({', '.join(self.coordinates)}).") from None
        if given.ndim == 0 and k == 1:
            given = given.reshape(1)
        if given.ndim == 0 or given.shape[-1] != k:
            names = ", ".join(self.coordinates)
            raise StartError(f"a point has shape {given.shape}; the last axis must be the {k} coordinate(s) ({names}).")
        return given

    def _evaluate(self, name: str, u: Any, shape: tuple[int, ...]) -> Array:
        given = self._point(u)
        rows = self._table(name)(given.reshape(-1, given.shape[-1]), self.values)
        return rows.reshape(*given.shape[:-1], *shape)

    def drift(self, u: Any) -> Array:
        """E[du] per unit of ``time``, Ito part included, shape (..., k)."""
        return self._evaluate("drift", u, (len(self.coordinates),))

    def diffusion(self, u: Any) -> Array:
        """Cov[du] per unit of ``time``, shape (..., k, k)."""
        return self._evaluate("diffusion", u, (len(self.coordinates),) * 2)

    def covariance(self, u: Any) -> Array:
        """Equilibrium covariance of the fast part of the state, shape (..., n, n)."""
        return self._evaluate("covariance", u, (len(self._result.state),) * 2)

    def metric(self, u: Any) -> Array:
        """Induced metric of the manifold in its coordinates, shape (..., k, k)."""
        return self._evaluate("metric", u, (len(self._result.coordinates),) * 2)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def _start(self, u0: Any) -> Array:
        start = self._point(u0)
        if start.ndim > 2:
            raise StartError(f"start points have shape {start.shape}; expected ({start.shape[-1]},) or (N, {start.shape[-1]}).")
        if not np.isfinite(start).all():
            raise StartError(f"the start point {u0} is not finite.")
        if not np.isfinite(self.drift(start)).all():
            for row in start.reshape(-1, start.shape[-1])[:CHECKED]:
                self._check(row)  # it may know why
            raise StartError(f"the drift is not finite at the start point {u0}: the formula does not hold there.")
        for row in np.unique(start.reshape(-1, start.shape[-1]), axis=0)[:CHECKED]:
            self._check(row)
        return start

    def _where(self, u: Array) -> str:
        return ", ".join(f"{c}={v:.6g}" for c, v in zip(self.coordinates, u, strict=True))

    def _check(self, u: Array) -> None:
        self._result.check(self.values, dict(zip(self.coordinates, map(float, u), strict=True)))

    def _times(self, steps: float, record: int) -> Array:
        record = whole(record, "record")
        if self.time == "iteration":
            return record_steps(whole(steps, "steps"), record).astype(np.float64)
        if isinstance(steps, bool) or not isinstance(steps, (int, float, np.number)) or not 0 < float(steps) < math.inf:
            raise QuasistaticError(f"steps = {steps!r} is not a positive time ({self.time}).")
        return uniform_times(float(steps), record)

    def trajectory(self, u0: Any, steps: float, record: int = 100) -> SlowTrajectory:
        """The ODE du/dk = drift(u), without noise.

        Parameters
        ----------
        u0:
            Start (k,), or a mapping of coordinates to numbers.
        steps:
            Iterations; where ``time`` is continuous, the time t to run for.
        record:
            Number of equally spaced records from 0 to ``steps``; 1 is the end alone.

        Raises
        ------
        UnstableError
            If the result's conditions fail at the start or the end, or the path leaves the domain of the drift.
        """
        times, start = self._times(steps, record), self._start(u0)
        if start.ndim != 1:
            raise StartError(f"a trajectory has one start point, not {len(start)}.")
        size = float(np.abs(start).max()) or 1.0
        with np.errstate(all="ignore"):  # trial steps may leave the domain; the solver then shortens them
            path = solve_ivp(
                lambda _, u: self.drift(u), (0.0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-10, atol=1e-13 * size
            )  # fmt: skip
        if not path.success or not np.isfinite(path.y).all():
            reached = self._where(path.y[:, -1]) if path.y.size else "the start"
            raise UnstableError(f"the slow dynamics leaves the domain of its drift before {steps}, after {reached}: {path.message}")
        self._check(path.y[:, -1])
        return SlowTrajectory(times, np.ascontiguousarray(path.y.T), self.coordinates)

    def sde_trajectory(
        self,
        u0: Any,
        steps: float,
        trajectories: int = 64,
        seed: int = 0,
        record: int = 100,
        substeps: int | None = None,
        threads: int = 1,
        progress: Progress | None = None,
        generator: str = "xoshiro",
    ) -> SlowEnsemble:
        """The Ito SDE du = drift dk + sqrt(diffusion) dW, by Euler-Maruyama.

        Parameters
        ----------
        u0:
            One start (k,) (or a mapping) for all, or one for every trajectory, (N, k).
        steps:
            Iterations; where ``time`` is continuous, the time t to run for.
        trajectories:
            Number N of paths.
        seed:
            The numbers of path i depend on (seed, i) only; they are independent of a simulation with the same seed.
        record:
            Number of equally spaced records from 0 to ``steps``; 1 is the end alone.
        substeps:
            Euler steps between two records; by default such that a run has about 20 000, but none shorter than an iteration.
        generator:
            With ``"philox"`` normal j of Euler step k is that of iteration k of a simulation with the same seed and
            ``generator="philox"``: with Euler steps of one iteration both are driven by the same noise.

        Raises
        ------
        SimulationDiverged
            If a path leaves the domain of the drift; ``step`` counts Euler steps, ``runs`` holds the records before.
        """
        times, start = self._times(steps, record), self._start(u0)
        number = whole(trajectories, "trajectories")
        if start.ndim == 2 and len(start) != number:
            raise StartError(f"{len(start)} start points for {number} trajectories: give one, or one for each.")
        program = self._euler(plans.Use(number, whole(threads, "threads"), generator_name(generator)))
        numbers = np.array([*(self.values[a.name] for a in self._arguments), 0.0, *program.data])
        lanes = Lanes(program, numbers, seed_number(seed), number, threads, SLOW_SALT if generator == "xoshiro" else 0)
        lanes.remedy = "The paths leave the domain of the drift, or substeps is too small."
        lanes.names = self.coordinates
        lanes.set_state(start)
        return self._run(lanes, times, None if substeps is None else whole(substeps, "substeps"), seed, progress)

    def _euler(self, use: plans.Use) -> LaneProgram:
        slow = self._result
        parts = (tuple(slow.slow_state), self._arguments, sp.Matrix(slow.drift), sp.Matrix(slow.diffusion))
        return plans.lanes_of("euler", lambda: euler_step(*parts), parts, use)

    def _run(self, lanes: Lanes, times: Array, substeps: int | None, seed: int, progress: Progress | None) -> SlowEnsemble:
        done: list[tuple[Array, Array]] = []
        now = 0.0

        def result() -> SlowEnsemble:
            k, R = len(self.coordinates), len(done)
            mean = np.array([m for m, _ in done]).reshape(R, k)
            covariance = np.array([c for _, c in done]).reshape(R, k, k)
            return SlowEnsemble(times[:R], mean, covariance, lanes.states, self.coordinates, int(seed))

        try:
            for i, time in enumerate(times):
                parts = substeps or self._substeps(float(time - now), float(times[-1]))
                if time > now:
                    lanes.numbers[len(self._arguments)] = (time - now) / parts
                    lanes.advance(parts)
                done.append(moments(lanes.states))
                now = float(time)
                if progress is not None:
                    progress(i + 1, len(times))
        except SimulationDiverged as error:
            raise SimulationDiverged(str(error), error.step, result()) from None
        return result()

    def _substeps(self, interval: float, end: float) -> int:
        parts = max(1, math.ceil(EULER_STEPS * interval / end))
        return min(parts, max(1, int(interval))) if self.time == "iteration" else parts

    # -- the potential -------------------------------------------------------------------------------------------------

    def regularizer(self, u: Any, reference: Any = None) -> Array:
        """The potential Psi(u) - Psi(reference), shape (...): what the drift without its Ito part descends, per ``time``.

        Slow states are at their equilibrium: u are coordinates alone. omega = -metric (drift - ito) is integrated along the
        straight line from ``reference`` (default: all coordinates 0)
        to every u, to about ten digits.

        Raises
        ------
        NoPotential
            If omega is not closed: the integral would depend on the path.
        StartError
            If omega is not finite on the way; give another ``reference``.
        """
        if len(self._result.slow_state) > len(self._result.coordinates):
            return np.asarray(Flow(self._result.adiabatic(), self.values).regularizer(u, reference))
        given = self._point(u)
        k = given.shape[-1]
        origin = np.zeros(k) if reference is None else self._point(reference)
        if origin.shape != (k,):
            raise StartError(f"reference has shape {origin.shape}; it is one point, ({k},).")
        rows = given.reshape(-1, k)
        return np.array([self._line_integral(origin, row) for row in rows]).reshape(given.shape[:-1])

    def _line_integral(self, origin: Array, end: Array) -> float:
        direction = end - origin
        if len(direction) > 1:
            self._require_closed(end, float(np.abs(direction).max()) or 1.0)

        def slope(s: float) -> float:
            return float(self._omega(origin + s * direction) @ direction)

        size = max(abs(slope(s)) for s in (0.0, 0.25, 0.5, 0.75, 1.0))
        value, error, *_ = quad(slope, 0.0, 1.0, epsabs=1e-12 * size, epsrel=1e-10, limit=200, full_output=1)
        if not error <= 1e-6 * max(abs(value), size):
            raise NoPotential(
                f"the integral of omega from {self._where(origin)} to {self._where(end)} does not converge: {value} +- {error:.2g}."
            )
        return float(value)

    def _omega(self, u: Array) -> Array:
        omega = self._evaluate("one-form", u, (len(self.coordinates),))
        if not np.isfinite(omega).all():
            raise StartError(
                f"the drift is not finite at {self._where(u)}, on the line from the reference: choose another reference point."
            )
        return omega

    def _require_closed(self, u: Array, size: float) -> None:
        """Central differences of omega at u: d_i omega_j = d_j omega_i up to the differences' own error."""
        h = 1e-5 * size
        steps = h * np.eye(len(u))
        jacobian = np.array([(self._omega(u + e) - self._omega(u - e)) / (2 * h) for e in steps])
        curl = np.abs(jacobian - jacobian.T).max()
        scale = np.abs(jacobian).max() + np.abs(self._omega(u)).max() / size
        if curl > 1e-5 * scale:
            raise NoPotential(f"the drift is not a gradient flow: d_i omega_j - d_j omega_i is {curl:.3g} at u = {u.tolist()}.")
