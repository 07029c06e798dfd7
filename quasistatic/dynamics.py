"""derive(), and what it returns: a thin facade over derivation, numeric, show and validate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.adaptive_law import AdaptiveLawResult
from quasistatic.derivation.kinetic import KineticResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult, require_distinct
from quasistatic.derivation.statistical import StatisticalResult, has_kink
from quasistatic.errors import HyperparameterError, ProblemError, RuleError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from quasistatic.manifold import ManifoldFlow
    from quasistatic.numeric.arguments import Progress
    from quasistatic.numeric.array_ensemble import ArrayEnsemble
    from quasistatic.numeric.ensemble import Ensemble
    from quasistatic.numeric.flow import Flow
    from quasistatic.numeric.law import CompiledLaw
    from quasistatic.numeric.manifold.preconditioned import Preconditioned
    from quasistatic.sweeps.grid import Grid, Steps
    from quasistatic.sweeps.table import SweepTable
    from quasistatic.validate import Report


class _Shown:
    """What every result can do to show itself."""

    def to_latex(self: Any, path: str | Path, standalone: bool = True, notation: Mapping[Any, str] | None = None) -> None:
        """Write the whole derivation as a LaTeX document (or with ``standalone=False`` as a fragment to include).

        It needs amsmath and amssymb only. ``notation`` gives symbols other letters: names or SymPy symbols to LaTeX or
        plain names, ``{"mu": r"\\beta_1", "eta": "lr"}``. Raises OutputError where the file cannot be written, or where
        the notation names an unknown symbol, gives two symbols one name, or is not LaTeX of a name.
        """
        from quasistatic.show import latex

        latex.write(self, path, standalone, notation)

    def latex(self: Any, standalone: bool = True, notation: Mapping[Any, str] | None = None) -> str:
        """The LaTeX text that ``to_latex`` writes."""
        from quasistatic.show import latex

        return latex.document(self, standalone, notation)

    def save(self: Any, path: str | Path) -> None:
        """Keep the result in a JSON file for :func:`quasistatic.load`."""
        from quasistatic.storage import save

        save(self, path)

    def _repr_latex_(self: Any) -> str:
        from quasistatic.show import latex

        return latex.inline(self)

    def __str__(self) -> str:
        from quasistatic.show.text import text

        return text(self)


@dataclass(frozen=True, eq=False, repr=False)
class SlowDynamics(_Shown, SlowResult):
    """Slow dynamics of a rule on a problem: ``drift``, ``diffusion``, ``covariance``, ``regularizer()``, ``conditions``, ..."""

    def __repr__(self) -> str:
        return f"<slow dynamics of {self.rule!r} on {self.problem.name or self.problem!r}, per {self.time}>"

    def compile(self, **values: Any) -> Flow:
        """The slow dynamics as machine code: ``drift(u)``, ``trajectory``, ``sde_trajectory``, ``regularizer(u)``, ``source``.

        ``values`` are numbers for every free hyperparameter of the rule and every constant of the problem.
        """
        from quasistatic.numeric.arguments import resolve
        from quasistatic.numeric.flow import compile_flow

        return compile_flow(self, resolve(self.rule, self.problem, values))

    def validate(self, start: Mapping[Any, Any], steps: int, **options: Any) -> Report:
        """Simulate the rule and compare; arguments as for :func:`quasistatic.validate.validate`."""
        from quasistatic.validate import validate

        return validate(self, start, steps, **options)


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveDynamics(AdaptiveResult, SlowDynamics):
    """Slow dynamics of a rule with slow states: the coupled system on ``slow_state``, or its ``adiabatic()`` limit."""

    def __repr__(self) -> str:
        of = ", ".join(str(s) for s in self.slow_state)
        return f"<slow dynamics of {self.rule!r} on {self.problem.name or self.problem!r} in ({of}), per {self.time}>"


@dataclass(frozen=True, eq=False, repr=False)
class KineticDynamics(KineticResult, AdaptiveDynamics):
    """Slow dynamics in continuous time of a rule with slow states: ``overdamped()``, ``adiabatic()``, ``scaled()``, ..."""


@dataclass(frozen=True, eq=False, repr=False)
class StatisticalDynamics(StatisticalResult, AdaptiveDynamics):
    """Slow dynamics of a rule with a sign or a clip, averaged over the noise by Stein's identity."""


@dataclass(frozen=True, eq=False, repr=False)
class Law(_Shown, LawResult):
    """What a rule does on any loss: ``kernel``, ``matrix_equation``, ``gain``, ``regularizer()``, ..."""

    def __repr__(self) -> str:
        return f"<law of {self.rule!r} for any loss, per {self.time}>"

    def compile(self, **values: Any) -> CompiledLaw:
        """The kernel and the regularizers as functions of numbers; ``values`` are the free hyperparameters."""
        from quasistatic.numeric.law import compile_law

        return compile_law(self, values)


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveLaw(AdaptiveLawResult, Law):
    """What a rule with slow states does on any loss: ``preconditioner``, ``kernel``, ``gain``, ``regularizer()``, ..."""


def assert_agrees(slow: SlowDynamics, start: Mapping[Any, Any], steps: int, **options: Any) -> Report:
    """For a test suite: raise ValidationFailed, with the table, where theory and simulation differ by over 5 standard errors."""
    from quasistatic.validate import assert_agrees as check

    return check(slow, start, steps, **options)


def load(path: str | Path) -> Any:
    """A result, law, report, ensemble or sweep from the file that its ``save`` wrote; nothing in it is executed."""
    from quasistatic.numeric.array_ensemble import ArrayEnsemble
    from quasistatic.numeric.ensemble import Ensemble
    from quasistatic.storage import load as read
    from quasistatic.sweeps import results
    from quasistatic.validate import Report, Row

    if results.is_results(path):
        return results.read(path)
    kinds = (SlowDynamics, AdaptiveDynamics, KineticDynamics, StatisticalDynamics, Law, AdaptiveLaw, Report, Row, Ensemble, ArrayEnsemble)
    return read(path, {c.__name__: c for c in kinds})


@overload
def simulate(rule: Rule, problem: Problem, start: Mapping[Any, Any], steps: int, **options: Any) -> Ensemble: ...
@overload
def simulate(rule: Rule, problem: ArrayProblem, start: Any, steps: int, **options: Any) -> ArrayEnsemble: ...


def simulate(rule: Rule, problem: Problem | ArrayProblem, start: Any, steps: int, **options: Any) -> Ensemble | ArrayEnsemble:
    """Run the optimizer itself, an ensemble of trajectories; arguments as for :func:`quasistatic.numeric.simulate.simulate`.

    For a problem given by array functions: :func:`quasistatic.numeric.array_simulate.simulate_array`.
    """
    if isinstance(problem, ArrayProblem):
        from quasistatic.numeric.array_simulate import simulate_array

        return simulate_array(rule, problem, start, steps, **options)
    from quasistatic.numeric.simulate import simulate as run

    return run(rule, problem, start, steps, **options)


def _dynamics(rule: Rule, problem: Problem, time: str, route: str, transient: bool) -> SlowDynamics:
    adaptive = any(s.slow for s in rule.trace.states)
    if not adaptive and has_kink(rule):
        if time == "continuous":
            raise RuleError(f'{rule.name} has a kink: its continuous form is not supported; time="iteration" with leading("eta") is.')
        return StatisticalDynamics(rule, problem, time)
    if transient and not (adaptive and time == "continuous"):
        raise RuleError('transient=True belongs to time="continuous" of a rule with slow states.')
    if not adaptive:
        return SlowDynamics(rule, problem, time, route=route)
    if route == "dense":
        raise RuleError(f'{rule.name} has slow states: only route="structured" derives it.')
    if time == "continuous":
        return KineticDynamics(rule, problem, time, transient=transient)
    return AdaptiveDynamics(rule, problem, time)


def sweep(
    rule: Rule,
    problem: Problem,
    grid: Grid,
    start: Mapping[Any, Any],
    steps: Steps,
    trajectories: int = 128,
    seeds: int | Sequence[int] = 1,
    *,
    executor: Executor | str | None = None,
    results: str | Path | None = None,
    progress: Progress | None = None,
    retries: int = 2,
    options: Mapping[str, Any] | None = None,
    time: str = "iteration",
    **hyper: Any,
) -> SweepTable:
    """Simulate the rule and compare with its slow dynamics, at every point of a grid and for every seed.

    The derivation is done once, with symbols; every point puts its numbers into the same compiled functions. The numbers of a
    row depend on its point and its seed only, not on the executor: they are the same to the last bit on machines with the same
    processor and the same versions. Equal seeds draw the same noise at every point, so that differences between points are
    less noisy than each of them.

    Parameters
    ----------
    grid:
        Names of hyperparameters and constants to their numbers, of which all combinations run; or the points themselves, a
        sequence of mappings.
    start:
        Every coordinate of the manifold (symbol or name) to a number.
    steps:
        Iterations: a number, or how they depend on the hyperparameters, rounded: text (``"4/eta**2"``), a SymPy expression, or
        a function of the mapping of names to numbers.
    trajectories:
        Trajectories of every simulation, at least 8.
    seeds:
        How many (0, 1, ...), or which.
    executor:
        Any ``concurrent.futures.Executor``, for example ``dask.distributed.Client(...).get_executor()``; or the address of a
        Dask scheduler, ``"tcp://..."``; or None for a thread pool with one thread per processor here. An executor that is
        given is left open.
    results:
        A file (JSON lines) in which finished points are kept as they come. Where it exists, its points are not run again; a file
        of another sweep is refused, a line that was cut off is dropped. Rows "failed" and "lost" are not kept.
    progress:
        Called as ``progress(done, total)`` with finished rows.
    retries:
        How often a job is sent again whose worker died; after that its row is "lost".
    options:
        Further options of every validation: ``record`` (default 20), ``extrapolate``, ``threads``, ...
    time:
        That of the theory, as for :func:`derive`; ``steps`` are iterations in any case.
    **hyper:
        Hyperparameters and constants that are the same everywhere.

    Returns
    -------
    SweepTable
        After Ctrl-C what was finished until then, with ``interrupted=True``.

    Raises
    ------
    HyperparameterError, StartError
        For an empty grid, repeated points, names and numbers that are missing, unknown or senseless.
    SweepError
        If the results file belongs to another sweep (with what differs), the executor is shut down or broken, the scheduler does
        not answer, or workers have other versions.
    OutputError
        If the results file cannot be written.
    """
    from quasistatic.sweeps.run import sweep as run

    return run(
        derive(rule, problem, time=time), grid, start, steps, trajectories, seeds,
        executor=executor, results=results, progress=progress, retries=retries, options=options, **hyper,
    )  # fmt: skip


@overload
def derive(rule: Rule, problem: None = None, *, time: str = ..., route: str = ...) -> Law: ...
@overload
def derive(rule: Rule, problem: Problem, *, time: str = ..., route: str = ...) -> SlowDynamics: ...


@overload
def derive(rule: Rule, problem: None = None, *, time: str = ..., route: str = ..., transient: bool = ...) -> Law: ...
@overload
def derive(rule: Rule, problem: Problem, *, time: str = ..., route: str = ..., transient: bool = ...) -> SlowDynamics: ...


def derive(
    rule: Rule, problem: Problem | None = None, *, time: str = "iteration", route: str = "structured", transient: bool = False
) -> Law | SlowDynamics:
    """The slow dynamics of a rule on a problem, or without a problem its law for any loss.

    Parameters
    ----------
    time:
        "iteration": the map itself, exact in the learning rate. "continuous": the papers' SDE under the rule's declared
        scaling; results are then per unit of its time.
    route:
        "structured": kernels and matrix equations. "dense": the theorem on the whole state, for small problems.
    transient:
        Continuous time of rules with slow states: bias corrections keep their time dependence gamma_i(t) = 1 - exp(-c_i t).

    Raises
    ------
    RuleError, ProblemError
        If the theory does not cover the rule, or the problem lacks noise.
    """
    if not isinstance(rule, Rule):
        raise RuleError(f"{rule!r} is not an update rule: decorate the function with @qs.optimizer.")
    if route not in ("structured", "dense"):
        raise RuleError(f'route={route!r} is neither "structured" nor "dense".')
    if problem is None:
        taken = [n for n in ("alpha", "sigma", "B") if n in rule.hyperparameters]
        if taken:
            raise HyperparameterError(
                f"{rule.name} has a hyperparameter {taken[0]!r}, which a law needs for the strength of the noise (alpha, sigma) or the"
                " batch size (B): give the keyword argument another name. On a problem the rule can be derived as it is."
            )
        if has_kink(rule) and not any(s.slow for s in rule.trace.states):
            raise RuleError(
                f"{rule.name} has a kink: what smooths it is the noise, so it has no law without a problem:"
                f" qs.derive({rule.name}, problem)."
            )
        law = (AdaptiveLaw if any(s.slow for s in rule.trace.states) else Law)(rule, time)
        _ = law.linear  # refuse at once, not at the first look
        return law
    if not isinstance(problem, Problem):
        raise ProblemError(f"{problem!r} is not a problem: make one with qs.Problem(loss=..., minima=..., noise=...).")
    problem.require_noise().require_additive()
    require_distinct(rule, problem)
    slow = _dynamics(rule, problem, time, route, transient)
    _ = slow.linear
    return slow


def manifold_flow(
    rule: Rule | Preconditioned, problem: Problem | ArrayProblem, *, leading: str | None = None, **hyper: Any
) -> ManifoldFlow:
    """The slow dynamics in numbers, at points of a manifold that needs no chart: for curved manifolds in many parameters.

    Parameters
    ----------
    rule:
        A rule that is a linear filter of the gradient, or one behind a slowly moving diagonal preconditioner.
    problem:
        Residuals as array functions or expressions, or a problem with a chart. Noise: any model;
        ``LabelNoise(sigma, batch=b)`` for minibatches drawn with replacement.
    leading:
        A hyperparameter in which the rule is taken to leading order; exact by default. That minibatches make the Jacobian
        of a step random enters at the next order, and is then left out.
    **hyper:
        Every free hyperparameter of the rule and every constant of the problem.

    Raises
    ------
    RuleError, ProblemError, HyperparameterError
        If the theory does not cover the rule, the problem has no noise (or nothing drifts), the batch is larger than the
        data, or a number is missing.
    """
    from quasistatic.manifold import ManifoldFlow

    return ManifoldFlow.make(rule, problem, leading, hyper)
