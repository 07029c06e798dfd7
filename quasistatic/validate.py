"""Theory against a simulation of the very same rule, judged by standard errors.

The fast variables are drawn from their equilibrium at the start, the rule is simulated, iterates are mapped to the
manifold by the noiseless rule's own limit, and compared with the compiled slow ODE (SDE where the diffusion is not zero).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import sympy as sp
from scipy.integrate import solve_ivp

from quasistatic.derivation import conditions as when
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.kinetic import KineticResult
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.slow_states import Preconditioned, frozen_rule, late_rule
from quasistatic.derivation.statistical import StatisticalResult, settling_rule
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import HyperparameterError, RuleError, UnstableError, ValidationFailed
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress, point, resolve, seed_number, whole
from quasistatic.numeric.flow import Flow, compile_flow
from quasistatic.numeric.relax import Limit, Relaxation
from quasistatic.numeric.simulate import Simulator
from quasistatic.numeric.sizes import measure, require_separation, time_step
from quasistatic.numeric.table import Table

if TYPE_CHECKING:
    from pathlib import Path

Array = npt.NDArray[np.float64]

#: Differences beyond this many standard errors fail.
SIGMAS = 5.0
#: Fewer trajectories give no standard error to speak of.
FEWEST = 8
#: Records of a validation, besides the start.
RECORDS = 100
#: Part of the records, at the start, that the fast variance leaves out.
WARM_UP = 0.2
#: What the integration of the slow ODE is off by at most, relative to the size of its path; part of every error.
ODE_ACCURACY = 1e-9
#: Slow SDE trajectories per simulated one: the theory's own sampling error must not dominate.
OVERSAMPLING = 4


@dataclass(frozen=True)
class Row:
    """One comparison: theory, simulation, the standard error of their difference, and how many of them apart they are.

    ``unit`` is what 1 stands for where ratios to the theory are compared: the theory itself.
    """

    quantity: str
    theory: float
    simulation: float
    error: float
    unit: float = 1.0

    @property
    def z(self) -> float:
        """Difference in standard errors (zero where both agree exactly)."""
        difference = self.simulation - self.theory
        if difference == 0:
            return 0.0
        return difference / self.error if self.error > 0 else float("inf") * np.sign(difference)

    @property
    def passed(self) -> bool:
        """Whether the difference is within 5 standard errors."""
        return bool(abs(self.z) <= SIGMAS)


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of a validation; ``str(report)`` is a table.

    Attributes
    ----------
    rows:
        What is judged.
    informative:
        Rows that are shown without a verdict (the single strengths of an extrapolation).
    steps:
        Recorded iterations, (R,).
    theory, simulation, error:
        Mean coordinates of the slow dynamics and of the mapped iterates, and the standard error of their difference, (R, k).
    sizes:
        What the theory neglects, measured at the start: each number should be small against 1.
    provenance:
        Rule, problem, numbers, seed, versions.
    """

    rows: tuple[Row, ...]
    informative: tuple[Row, ...]
    coordinates: tuple[str, ...]
    steps: npt.NDArray[np.int64]
    theory: Array
    simulation: Array
    error: Array
    sizes: Mapping[str, float]
    provenance: Mapping[str, Any]
    interrupted: bool = False

    @property
    def passed(self) -> bool:
        """Whether every comparison is within 5 standard errors (False for an interrupted run)."""
        return not self.interrupted and all(r.passed for r in self.rows)

    def __str__(self) -> str:
        from quasistatic.show.report import report_text

        return report_text(self)

    def save(self, path: str | Path) -> None:
        """Keep the report in a JSON file for :func:`quasistatic.load`."""
        from quasistatic.storage import save

        save(self, path)

    def plot(self, path: str | Path | None = None) -> Any:
        """Theory and simulation over each other; returns the matplotlib figure, and saves it where a path is given."""
        from quasistatic.show.plot import plot_report

        return plot_report(self, path)


@dataclass(frozen=True)
class _Run:
    """Mapped iterates of one simulation."""

    steps: npt.NDArray[np.int64]
    u: Array  # (R, N, k)
    squares: Array  # (N, d): time mean of squared deviations from the manifold
    variances: Array  # (N, d): time mean of their theory along the same path
    interrupted: bool


def validate(
    result: SlowResult,
    start: Mapping[Any, Any],
    steps: int,
    trajectories: int = 128,
    seed: int = 0,
    *,
    record: int = RECORDS,
    threads: int = 1,
    extrapolate: bool = False,
    progress: Progress | None = None,
    **hyper: Any,
) -> Report:
    """Simulate the rule and compare with its slow dynamics.

    Parameters
    ----------
    start:
        Every coordinate of the manifold (symbol or name) to a number. Slow states (``"v_x"``) may be given too; those that
        are not start at their equilibrium. A rule with bias corrections is run without them: the theory is for late times.
    steps:
        Iterations of the rule.
    extrapolate:
        The theory is leading order in the noise strength: also simulate half the noise covariance for twice the steps,
        and judge 2X(1/2) - X(1) with its own error. The table shows both.
    progress:
        Called as ``progress(done, total)``.
    **hyper:
        Every free hyperparameter of the rule and every constant of the problem.

    Raises
    ------
    UnstableError
        If the numbers are outside the conditions of the result.
    SimulationDiverged
        If a trajectory stops being finite.
    """
    if isinstance(result, KineticResult):
        raise RuleError(
            "the continuous form of a rule with slow states is the papers' leading order; validate the map itself:"
            f" qs.derive({result.rule.name}, problem).validate(...)."
        )
    values = resolve(result.rule, result.problem, hyper)
    result.check(values, None)
    u0 = point(result.complete(values, start), result.slow_state, "coordinate")
    steps, trajectories, record = whole(steps, "steps"), whole(trajectories, "trajectories", FEWEST), whole(record, "record")
    seed = seed_number(seed)
    here = {c.name: float(v) for c, v in zip(result.slow_state, u0, strict=True)}
    result.check(values, here)
    flow = compile_flow(result, values)
    sizes = measure(result, flow, here)
    require_separation(sizes, {**values, **here})
    if extrapolate and result.linear is not None and result.linear.has_force:
        raise HyperparameterError("extrapolate=True halves the noise, but a small force (weight decay) acts beside it and does not halve.")
    if extrapolate and isinstance(result, AdaptiveResult):
        raise HyperparameterError(
            "extrapolate=True halves the noise, but a preconditioner follows the noise: compare two learning rates at equal eta^2*steps"
            " and (1 - beta2)/eta^2 instead."
        )
    total = steps * (3 if extrapolate else 1)
    if extrapolate:
        assert result.problem.noise is not None
        halved = result.problem.with_noise(result.problem.noise.scaled(sp.Rational(1, 2)))
        weak = _simulate(
            result, halved, flow, values, u0, 2 * steps, trajectories, seed + 1, record, threads, 0.5, _part(progress, 0, total)
        )
        if weak.interrupted:
            raise KeyboardInterrupt
    full = _simulate(
        result, result.problem, flow, values, u0, steps, trajectories, seed, record, threads, 1.0, _part(progress, total - steps, total)
    )
    names = tuple(c.name for c in result.slow_state)
    one = _compare(result, flow, full, seed, 1.0)
    informative: tuple[Row, ...] = ()
    if extrapolate:
        two = _compare(result, flow, weak, seed + 1, 0.5)
        for label, part in (("noise 1", one), ("noise 1/2", two)):
            listed = (*_mean_rows(names, full.steps, part), *part.variances)
            informative += tuple(replace(r, quantity=f"{r.quantity} [{label}]") for r in listed)
        one = _extrapolated(one, two)
    rows = (*_mean_rows(names, full.steps, one), *one.variances)
    return Report(
        rows, informative, names, full.steps, one.theory, one.simulation, one.error,
        sizes, _provenance(result, values, here, steps, trajectories, seed, extrapolate), full.interrupted,
    )  # fmt: skip


def assert_agrees(result: SlowResult, start: Mapping[Any, Any], steps: int, **options: Any) -> Report:
    """``validate`` for a test suite: raises ValidationFailed with the table where theory and simulation differ.

    Arguments as for :func:`validate`.
    """
    report = validate(result, start, steps, **options)
    if not report.passed:
        raise ValidationFailed(f"theory and simulation differ:\n{report}")
    return report


# -- simulation --------------------------------------------------------------------------------------------------------


def _part(progress: Progress | None, offset: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(offset + done, total)


def equilibrium_states(result: SlowResult, flow: Flow, u0: Array, trajectories: int, seed: int, strength: float = 1.0) -> Array:
    """States (N, n) at the manifold point u0 with the fast part drawn from its equilibrium (normal, a stream of its own)."""
    rest = result.rest(flow.values, {c.name: float(v) for c, v in zip(result.slow_state, u0, strict=True)})
    covariance = strength * flow.covariance(u0)
    weights, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    factor = vectors * np.sqrt(np.clip(weights, 0, None))
    normals = np.random.default_rng([seed, 1]).standard_normal((trajectories, len(rest)))
    fast = np.asarray(rest + normals @ factor.T, dtype=np.float64)
    return fast if not isinstance(result, AdaptiveResult) else _with_slow_states(result, fast, u0, flow.values)


def _with_slow_states(result: AdaptiveResult, fast: Array, u0: Array, values: Mapping[str, float]) -> Array:
    """States in the rule's order: the fast ones, and the slow ones at their values in u0 (or at their equilibrium there)."""
    if isinstance(result, StatisticalResult):
        return fast
    d, N = len(result.problem.parameters), len(fast)
    if result.mode == "coupled":
        slow = u0[len(result.coordinates) :].reshape(-1, d)
    else:
        here = {**values, **{c.name: float(v) for c, v in zip(result.coordinates, u0, strict=True)}}
        slow = when.numbers(list(result.equilibrium.values()), here).reshape(-1, d)
    parts, fast_rows, slow_rows = [fast[:, :d]], 1, 0
    for state in result.rule.trace.states:
        if state.slow:
            parts.append(np.broadcast_to(slow[slow_rows], (N, d)))
            slow_rows += 1
        else:
            parts.append(fast[:, fast_rows * d : (fast_rows + 1) * d])
            fast_rows += 1
    return np.concatenate(parts, axis=1)


def _simulate(
    result: SlowResult, problem: Problem, flow: Flow, values: Mapping[str, float], u0: Array, steps: int, trajectories: int, seed: int,
    record: int, threads: int, strength: float, progress: Progress | None,
) -> _Run:  # fmt: skip
    rule = late_rule(result.rule)
    simulator = Simulator(rule, problem, values, seed, trajectories, threads)
    simulator.set_state(equilibrium_states(result, flow, u0, trajectories, seed, strength))
    relax = _relaxation(result, problem, values, threads)
    d = len(problem.parameters)
    embed = _Embedding(result, values)
    targets = np.unique(np.round(np.linspace(0, steps, record + 1)).astype(np.int64))
    us: list[Array] = []
    squares: list[Array] = []
    variances: list[Array] = []
    done: list[int] = []
    interrupted = False
    try:
        for target in targets:
            before = simulator.step
            shown = None if progress is None else lambda k, _, before=before: progress(before + k, steps)
            if target > before:
                simulator.advance(int(target) - before, shown)
            states = simulator.states
            u = _slow_point(result, relax(states).coordinates, states)
            us.append(u)
            done.append(int(target))
            if target >= WARM_UP * steps:
                variances.append(strength * np.einsum("nii->ni", flow.covariance(u))[:, :d])
                squares.append((states[:, :d] - embed(u[:, : len(result.coordinates)])) ** 2)
    except KeyboardInterrupt:
        if len(us) < 2:
            raise
        interrupted = True
    nothing = np.zeros((trajectories, d))
    mean_square, mean_variance = (np.mean(rows, axis=0) if rows else nothing for rows in (squares, variances))
    return _Run(np.array(done, dtype=np.int64), np.array(us), mean_square, mean_variance, interrupted)


def _slow_point(result: SlowResult, u: Array, states: Array) -> Array:
    """Coordinates (N, k) and behind them the slow states, from the rule's states (N, n)."""
    if not isinstance(result, AdaptiveResult) or result.mode != "coupled":
        return u
    d = len(result.problem.parameters)
    slow = [states[:, (1 + i) * d : (2 + i) * d] for i, s in enumerate(result.rule.trace.states) if s.slow]
    return np.concatenate([u, *slow], axis=1)


class _KinkRelaxation:
    """The limit map of a rule with a kink: that of its linearised form, S frozen at the manifold point of each state."""

    def __init__(self, result: StatisticalResult, relaxation: Relaxation, values: Mapping[str, float]) -> None:
        problem = result.problem
        self.relaxation, self.values, self.d = relaxation, values, len(problem.parameters)
        arguments = (*result.rule.hyperparameters.values(), *problem.constants)
        self.chart = Table("coordinates", problem.chart.require_coordinate_map(), problem.parameters, problem.constants)
        self.scale = Table("preconditioner", list(result.preconditioner), result.coordinates, arguments)

    def __call__(self, states: Array) -> Limit:
        u = self.chart(np.ascontiguousarray(states[:, : self.d]), self.values)
        return self.relaxation(np.concatenate([states, self.scale(u, self.values)], axis=1))


def _relaxation(result: SlowResult, problem: Problem, values: Mapping[str, float], threads: int) -> Callable[[Array], Limit]:
    """The limit map of the rule without its small forces, which would carry every point on along the manifold."""
    rule: Rule = result.rule
    forced: LinearRule | Preconditioned | None = result.linear
    if isinstance(result, AdaptiveResult):
        rule = settling_rule(rule, result.kink) if isinstance(result, StatisticalResult) else frozen_rule(rule)
        forced = result.preconditioned

    def limit(rule: Rule, values: Mapping[str, float]) -> Callable[[Array], Limit]:
        relaxation = Relaxation(rule, problem, values, threads)
        return _KinkRelaxation(result, relaxation, values) if isinstance(result, StatisticalResult) else relaxation

    if forced is None or not forced.has_force:
        return limit(rule, values)
    if not forced.forces:
        raise RuleError(
            f"{result.rule.name} has a small force without a hyperparameter of its own, which cannot be switched off to find the limit"
            " of an iterate: give the decay (or shift) a keyword-only hyperparameter."
        )
    still = rule.fix(**dict.fromkeys(forced.forces, 0))
    return limit(still, {n: v for n, v in values.items() if n not in forced.forces})


class _Embedding:
    """phi(u) for rows of u, with NumPy."""

    def __init__(self, result: SlowResult, values: Mapping[str, float]) -> None:
        chart = result.problem.chart
        constants = {s: sp.Float(values[s.name], 17) for e in chart.embedding for s in e.free_symbols if s.name in values}
        self.function = sp.lambdify(chart.coordinates, [e.xreplace(constants) for e in chart.embedding], "numpy")

    def __call__(self, u: Array) -> Array:
        columns = self.function(*u.T)
        return np.stack([np.broadcast_to(np.asarray(c, dtype=np.float64), u.shape[:1]) for c in columns], axis=1)


# -- comparison --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparison:
    """Mean coordinates (R, k) of theory and simulation, the error of their difference, and what is compared besides."""

    theory: Array
    simulation: Array
    error: Array
    variances: tuple[Row, ...]


def _compare(result: SlowResult, flow: Flow, run: _Run, seed: int, strength: float) -> _Comparison:
    N = run.u.shape[1]
    # half the noise for twice the steps is the same slow dynamics: the theory's clock is strength * iterations
    clock = np.asarray(strength * time_step(result, flow) * run.steps, dtype=np.float64)
    rows: list[Row] = []
    if _diffuses(result):
        theory, spread, slow_error = _sde(flow, run, clock, seed)
        error = np.sqrt(run.u.var(axis=1, ddof=1) / N + slow_error**2 + (ODE_ACCURACY * theory) ** 2)
        for i, c in enumerate(result.coordinates):  # slow states also fluctuate by themselves, which is of higher order
            variance, variance_error = _variance(run.u[-1, :, i])
            slow, slow_variance_error = spread[i]
            rows.append(Row(f"variance of {c} at the end", slow, variance, float(np.hypot(variance_error, slow_variance_error))))
    else:
        theory, error = _ode(flow, run, clock)
    for j, parameter in enumerate(result.problem.parameters):
        expected = float(run.variances[:, j].mean())
        if expected > 0:
            # a ratio of sums: where the theory passes through zero, a mean of ratios would be meaningless
            ratio = float(run.squares[:, j].mean()) / expected
            spread_of_ratio = (run.squares[:, j] - ratio * run.variances[:, j]).std(ddof=1) / (expected * np.sqrt(N))
            rows.append(Row(f"fast variance of {parameter} / theory", 1.0, ratio, float(spread_of_ratio), expected))
    return _Comparison(theory, run.u.mean(axis=1), error, tuple(rows))


def _mean_rows(names: tuple[str, ...], steps: npt.NDArray[np.int64], means: _Comparison) -> list[Row]:
    """The record that is farthest off, and the end, for every coordinate; the start agrees by construction."""
    rows = []
    for i, name in enumerate(names):
        error = means.error[1:, i]
        difference = np.abs(means.simulation - means.theory)[1:, i]
        z = np.divide(difference, error, out=np.zeros_like(error), where=error > 0)
        worst = 1 + int(np.argmax(z))
        for label, at in ((f"mean {name}, worst record (step {steps[worst]})", worst), (f"mean {name} at the end", -1)):
            rows.append(Row(label, float(means.theory[at, i]), float(means.simulation[at, i]), float(means.error[at, i])))
    return rows


def _extrapolated(full: _Comparison, half: _Comparison) -> _Comparison:
    """2X(1/2) - X(1): both runs start at means of their own, so it is differences from theory that are extrapolated."""
    difference = 2 * (half.simulation - half.theory) - (full.simulation - full.theory)
    error = np.sqrt(4 * half.error**2 + full.error**2)
    rows = []
    for one, two in zip(full.variances, half.variances, strict=True):
        shift = 2 * (two.simulation - two.theory) - (one.simulation - one.theory)
        rows.append(Row(one.quantity, one.theory, one.theory + shift, float(np.hypot(2 * two.error, one.error)), one.unit))
    return _Comparison(full.theory, full.theory + difference, error, tuple(rows))


def _diffuses(result: SlowResult) -> bool:
    return any(x != 0 for x in result.diffusion)


def _ode(flow: Flow, run: _Run, clock: Array) -> tuple[Array, Array]:
    """The flow from the mean start, and the error of the mean after what the spread of the start explains."""
    N = run.u.shape[1]
    start = run.u[0].mean(axis=0)
    theory = _flow_at(flow, start, clock)
    rest = run.u - theory[:, None, :]
    for i, scale in enumerate(run.u[0].std(axis=0)):
        if scale > 0:
            shift = np.zeros_like(start)
            shift[i] = scale
            slope = (_flow_at(flow, start + shift, clock) - _flow_at(flow, start - shift, clock)) / (2 * scale)
            rest = rest - slope[:, None, :] * (run.u[0, :, i] - start[i])[None, :, None]
    sampling = rest.std(axis=1, ddof=1) / np.sqrt(N)
    return theory, np.hypot(sampling, ODE_ACCURACY * np.abs(theory).max(axis=0))


def _flow_at(flow: Flow, start: Array, clock: Array) -> Array:
    """The slow ODE at increasing times, (R, k)."""
    path = solve_ivp(lambda _, u: flow.drift(u), (0.0, clock[-1]), start, method="DOP853", t_eval=clock, rtol=1e-10, atol=1e-13)
    if not path.success or path.y.shape[1] != len(clock):
        raise UnstableError(f"the slow dynamics leaves the domain of its drift: {path.message}")
    return np.ascontiguousarray(path.y.T)


def _sde(flow: Flow, run: _Run, clock: Array, seed: int) -> tuple[Array, list[tuple[float, float]], Array]:
    """Mean, variance at the end with its error, and standard error of the mean of the slow SDE from the simulation's own starts."""
    starts = np.tile(run.u[0], (OVERSAMPLING, 1))
    end = float(clock[-1])
    steps = round(end) if flow.time == "iteration" else end
    slow = flow.sde_trajectory(starts, steps, trajectories=len(starts), seed=seed, record=len(clock))
    error = np.sqrt(np.einsum("rii->ri", slow.covariance) / len(starts))
    return slow.mean, [_variance(slow.final[:, i]) for i in range(starts.shape[1])], error


def _variance(sample: Array) -> tuple[float, float]:
    """Variance and its standard error, from the sample's own fourth moment."""
    N = len(sample)
    centred = sample - sample.mean()
    variance = float(sample.var(ddof=1))
    fourth = float(np.mean(centred**4))
    return variance, float(np.sqrt(max(fourth - variance**2 * (N - 3) / (N - 1), 0.0) / N))


def _provenance(
    result: SlowResult, values: Mapping[str, float], here: Mapping[str, float], steps: int, trajectories: int, seed: int, extrapolate: bool
) -> dict[str, Any]:
    from quasistatic.numeric.ensemble import versions

    return {
        "rule": result.rule.text, "rule_name": result.rule.name, "problem": repr(result.problem), "problem_name": result.problem.name,
        "time": result.time, "values": dict(values), "start": dict(here), "steps": steps, "trajectories": trajectories, "seed": seed,
        "extrapolate": extrapolate, "versions": versions(),
    }  # fmt: skip


__all__ = ["Report", "Row", "assert_agrees", "equilibrium_states", "validate"]
