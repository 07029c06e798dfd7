"""What a rule on a problem becomes: kernels with the layout of their arguments, kept between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric import cache
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.fingerprint import fingerprint
from quasistatic.numeric.kernel import LANES, LaneProgram, StochasticMap, Watch, best_lanes, lane_choice, lane_program
from quasistatic.numeric.unfold import silent_names, unfold


class LimitProgram(NamedTuple):
    """Source of ``settle`` (:func:`quasistatic.numeric.kernel.limit_source`), and names and data that its numbers are."""

    source: str
    variables: int
    arguments: tuple[str, ...]
    data: tuple[float, ...]


class Use(NamedTuple):
    """What a kernel is wanted for, beside the map."""

    trajectories: int = LANES
    threads: int = 1
    generator: str = "xoshiro"
    watch: Watch = Watch()


def simulation(rule: Rule, problem: Problem, values: Mapping[str, float], use: Use) -> LaneProgram:
    """The kernel that iterates a rule on a problem."""
    silent = silent_names(values)
    made_from = (rule, problem, silent & frozenset(c.name for c in problem.constants))
    return lanes_of("simulation", lambda: unfold(rule, problem, True, silent), made_from, use)


def lanes_of(kind: str, make: Callable[[], StochasticMap], made_from: Any, use: Use) -> LaneProgram:
    """The kernel of the map that ``make`` builds from ``made_from``."""

    def build() -> LaneProgram:
        step = make()
        return lane_program(step, use.generator, use.watch, best_lanes(step, use.trajectories, use.threads))

    lanes = lane_choice(use.trajectories, use.threads)  # all that the lanes depend on, beside the map
    key = hash_of(made_from, use.generator, use.watch, lanes)
    return cache.recall(kind, key, build, LaneProgram.packed, LaneProgram.unpacked)


def relaxation(rule: Rule, problem: Problem) -> LimitProgram:
    """The kernel that iterates a rule without noise to rest."""

    def build() -> LimitProgram:
        step = unfold(rule, problem, False)
        return LimitProgram(step.limit_source, len(step.variables), tuple(s.name for s in step.arguments), step.numbers)

    def unpack(data: Any) -> LimitProgram:
        source, n, names, numbers = data
        return LimitProgram(str(source), int(n), tuple(map(str, names)), tuple(map(float, numbers)))

    return cache.recall("relaxation", hash_of(rule, problem), build, list, unpack)


def numbers(program: LaneProgram | LimitProgram, values: Mapping[str, float]) -> Array:
    """The argument vector of a kernel."""
    return np.array([*(values[n] for n in program.arguments), *program.data], dtype=np.float64)


def hash_of(*things: Any) -> str | None:
    """Fingerprint of what a plan is made from; None for what has none, so that it is not kept."""
    try:
        return fingerprint(*things)
    except TypeError:
        return None
