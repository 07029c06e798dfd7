"""derive(), and what it returns: a thin facade over derivation, numeric, show and validate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult, require_distinct
from quasistatic.errors import HyperparameterError, ProblemError, RuleError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from quasistatic.manifold import ManifoldFlow
    from quasistatic.numeric.array_ensemble import ArrayEnsemble
    from quasistatic.numeric.ensemble import Ensemble
    from quasistatic.numeric.flow import Flow
    from quasistatic.numeric.law import CompiledLaw
    from quasistatic.numeric.manifold.preconditioned import Preconditioned
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
class Law(_Shown, LawResult):
    """What a rule does on any loss: ``kernel``, ``matrix_equation``, ``gain``, ``regularizer()``, ..."""

    def __repr__(self) -> str:
        return f"<law of {self.rule!r} for any loss, per {self.time}>"

    def compile(self, **values: Any) -> CompiledLaw:
        """The kernel and the regularizers as functions of numbers; ``values`` are the free hyperparameters."""
        from quasistatic.numeric.law import compile_law

        return compile_law(self, values)


def assert_agrees(slow: SlowDynamics, start: Mapping[Any, Any], steps: int, **options: Any) -> Report:
    """For a test suite: raise ValidationFailed, with the table, where theory and simulation differ by over 5 standard errors."""
    from quasistatic.validate import assert_agrees as check

    return check(slow, start, steps, **options)


def load(path: str | Path) -> Any:
    """A result, law, report or ensemble from the file that its ``save`` wrote; nothing in it is executed."""
    from quasistatic.numeric.array_ensemble import ArrayEnsemble
    from quasistatic.numeric.ensemble import Ensemble
    from quasistatic.storage import load as read
    from quasistatic.validate import Report, Row

    return read(path, {c.__name__: c for c in (SlowDynamics, Law, Report, Row, Ensemble, ArrayEnsemble)})


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


@overload
def derive(rule: Rule, problem: None = None, *, time: str = ..., route: str = ...) -> Law: ...
@overload
def derive(rule: Rule, problem: Problem, *, time: str = ..., route: str = ...) -> SlowDynamics: ...


def derive(rule: Rule, problem: Problem | None = None, *, time: str = "iteration", route: str = "structured") -> Law | SlowDynamics:
    """The slow dynamics of a rule on a problem, or without a problem its law for any loss.

    Parameters
    ----------
    time:
        "iteration": the map itself, exact in the learning rate. "continuous": the papers' SDE under the rule's declared
        scaling; results are then per unit of its time.
    route:
        "structured": kernels and matrix equations. "dense": the theorem on the whole state, for small problems.

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
        law = Law(rule, time)
        _ = law.linear  # refuse at once, not at the first look
        return law
    if not isinstance(problem, Problem):
        raise ProblemError(f"{problem!r} is not a problem: make one with qs.Problem(loss=..., minima=..., noise=...).")
    problem.require_noise().require_additive()
    require_distinct(rule, problem)
    slow = SlowDynamics(rule, problem, time, route=route)
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
