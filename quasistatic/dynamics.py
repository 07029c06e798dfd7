"""derive(), and what it returns: a thin facade over derivation, numeric, show and validate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult, require_distinct
from quasistatic.errors import ProblemError, RuleError
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class SlowDynamics(SlowResult):
    """Slow dynamics of a rule on a problem: ``drift``, ``diffusion``, ``covariance``, ``regularizer()``, ``conditions``, ..."""


@dataclass(frozen=True, eq=False)
class Law(LawResult):
    """What a rule does on any loss: ``kernel``, ``matrix_equation``, ``gain``, ``regularizer()``, ..."""


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
        law = Law(rule, time)
        _ = law.linear  # refuse at once, not at the first look
        return law
    if not isinstance(problem, Problem):
        raise ProblemError(f"{problem!r} is not a problem: make one with qs.Problem(loss=..., minima=..., noise=...).")
    problem.require_noise()
    require_distinct(rule, problem)
    slow = SlowDynamics(rule, problem, time, route=route)
    _ = slow.linear
    return slow
