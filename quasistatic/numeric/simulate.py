"""The optimizer itself: an ensemble of trajectories of the traced rule, in compiled code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, SimulationDiverged
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array, Progress, point, resolve, seed_number, whole
from quasistatic.numeric.ensemble import Ensemble, moments, record_steps
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.unfold import map_numbers, silent_names, unfold


class Simulator(Lanes):
    """Trajectories of a rule on a problem, advanced as far as wanted.

    Variables are all d parameters, then state 1 of every parameter, then state 2, ...: ``states`` has shape (N, n).

    Parameters
    ----------
    values:
        Name to number of all hyperparameters and constants, as :func:`resolve` returns them.
    seed, trajectories, threads:
        Trajectory t has the stream (seed, t), whatever the number of trajectories and threads.
    """

    def __init__(
        self, rule: Rule, problem: Problem, values: Mapping[str, float], seed: int = 0, trajectories: int = 64, threads: int = 1
    ) -> None:
        numbers = resolve(rule, problem, values)
        step = unfold(rule, problem, True, silent_names(numbers))
        super().__init__(step, map_numbers(step, numbers), seed, trajectories, threads)
        self.remedy = f"Take a smaller eta (here {numbers['eta']:g})." if "eta" in numbers else "Take a smaller learning rate."


def initial_states(rule: Rule, problem: Problem, values: Mapping[str, float], parameters: Array) -> Array:
    """The flat state (n,) at ``parameters`` (d,): the optimizer's own variables at their initial values."""
    numbers = {s: sp.Float(values[n]) for n, s in rule.hyperparameters.items()} | rule.fixed_symbols
    parts = [parameters]
    for state in rule.trace.states:
        value = state.initial.xreplace(numbers)
        if not value.is_number:
            raise HyperparameterError(f"{rule.name}: the initial value {state.initial} of {state.name} is not a number.")
        parts.append(np.full(len(problem.parameters), float(value)))
    return np.concatenate(parts)


def simulate(
    rule: Rule,
    problem: Problem,
    start: Mapping[Any, Any],
    steps: int,
    trajectories: int = 64,
    seed: int = 0,
    record: int = 100,
    threads: int = 1,
    progress: Progress | None = None,
    **hyper: Any,
) -> Ensemble:
    """Run an optimizer: independent trajectories from one start, with the problem's gradient noise.

    Parameters
    ----------
    start:
        Every parameter (symbol or name) to a number. The optimizer's own variables start at their ``initial_state``.
    steps:
        Iterations.
    trajectories:
        Number N of trajectories. The numbers of trajectory t depend on (seed, t) only.
    seed:
        Whole number from 0 to 2**64 - 1.
    record:
        Number of records, equally spaced from step 0 to the last (at most one per step); 1 is the last step alone.
    threads:
        Blocks of 32 trajectories are spread over this many threads.
    progress:
        Called as ``progress(done, steps)`` several times a second.
    **hyper:
        Every free hyperparameter of the rule and every constant of the problem, by name.

    Returns
    -------
    Ensemble
        After Ctrl-C what was computed until then, with ``interrupted=True``.

    Raises
    ------
    HyperparameterError, StartError
        For numbers that are missing, unknown or senseless.
    SimulationDiverged
        If a trajectory stops being finite: ``step`` is the first such iteration, ``runs`` the records before it.
    """
    values = resolve(rule, problem, hyper)
    start_point = point(start, problem.parameters, "parameter")
    steps, record = whole(steps, "steps"), whole(record, "record")
    simulator = Simulator(rule, problem, values, seed_number(seed), trajectories, threads)
    simulator.set_state(initial_states(rule, problem, values, start_point))
    names = tuple(p.name for p in problem.parameters)
    recorder = _Recorder(simulator, len(names))

    def result(interrupted: bool) -> Ensemble:
        states = simulator.states
        return Ensemble(
            *recorder.arrays(), states[:, : len(names)].copy(), states, names, interrupted, int(seed),
            dict(zip(names, map(float, start_point), strict=True)), values, rule.text, repr(problem),
        )  # fmt: skip

    try:
        for target in record_steps(steps, record):
            before = simulator.step
            shown = None if progress is None else lambda done, _, before=before: progress(before + done, steps)
            simulator.advance(int(target) - before, shown)
            recorder.add()
    except KeyboardInterrupt:
        recorder.add()
        return result(interrupted=True)
    except SimulationDiverged as error:
        raise SimulationDiverged(str(error), error.step, result(interrupted=False)) from None
    return result(interrupted=False)


class _Recorder:
    """Moments of the parameters at the recorded iterations."""

    def __init__(self, simulator: Lanes, dimension: int) -> None:
        self.simulator, self.dimension = simulator, dimension
        self.steps: list[int] = []
        self.moments: list[tuple[Array, Array]] = []

    def add(self) -> None:
        """Record where the simulator stands, once."""
        if self.simulator.step not in self.steps[-1:]:
            self.moments.append(moments(self.simulator.states[:, : self.dimension]))
            self.steps.append(self.simulator.step)

    def arrays(self) -> tuple[Any, Array, Array]:
        """steps (R,), mean (R, d), covariance (R, d, d)."""
        d, R = self.dimension, len(self.steps)
        done = self.moments[:R]
        mean = np.array([m for m, _ in done]).reshape(R, d)
        covariance = np.array([c for _, c in done]).reshape(R, d, d)
        return np.array(self.steps, dtype=np.int64), mean, covariance
