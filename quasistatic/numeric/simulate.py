"""The optimizer itself: an ensemble of trajectories of the traced rule, in compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, SimulationDiverged, StartError, suggestion
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array, Progress, number, point, resolve, seed_number, whole
from quasistatic.numeric.ensemble import Ensemble, moments, record_steps
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.unfold import map_numbers, silent_names, unfold
from quasistatic.symbols import BlockMean, Mean


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
        self.remedy = _division_by_zero(rule, numbers) + self.remedy


def _division_by_zero(rule: Rule, values: Mapping[str, float]) -> str:
    """What to say of a run that stopped being finite, where the rule has no finite step at zero gradient and memories; else ''."""
    zero = [n for n, v in {**values, **rule.fixed}.items() if v == 0 and n in rule.trace.hyperparameters]
    if not _has_no_step(rule, zero):
        return ""
    guilty = [n for n in zero if not _has_no_step(rule, [other for other in zero if other != n])]
    with_them = f"With {', '.join(f'{n} = 0' for n in guilty)}, {rule.name}" if guilty else rule.name
    memories = ", ".join(s.name for s in rule.trace.states if s.slow) or "the memories"
    give = f"give {', '.join(f'{n} > 0' for n in guilty)}, or " if guilty else ""
    return (
        f"{with_them} divides by zero in a coordinate whose gradient has been 0 so far: {give}start {memories} elsewhere (initial_state)."
        " If that is not it: "
    )


def initial_states(
    rule: Rule, problem: Problem, values: Mapping[str, float], parameters: Array, given: Mapping[str, Any] | None = None
) -> Array:
    """The flat state (n,) at ``parameters`` (d,): the optimizer's own variables at ``given`` or else their initial values.

    ``given`` names a state (``v``, all parameters alike) or a state and a parameter (``v_x``, which goes before ``v``).

    Raises
    ------
    StartError
        For a name that is neither, or a value that is not a finite number.
    """
    chosen = named_states(rule, problem, given or {})
    numbers = {s: sp.Float(values[n]) for n, s in rule.hyperparameters.items()} | rule.fixed_symbols
    parts = [parameters]
    for state in rule.trace.states:
        value = state.initial.xreplace(numbers)
        if not value.is_number:
            raise HyperparameterError(f"{rule.name}: the initial value {state.initial} of {state.name} is not a number.")
        parts.append(np.array([chosen.get(f"{state.name}_{p.name}", float(value)) for p in problem.parameters]))
    return np.concatenate(parts)


def named_states(rule: Rule, problem: Problem, given: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of single optimizer variables, ``{"v_x": 20.0, "v_y": 20.0}``, from ``{"v": 20}`` or ``{"v_x": 20, "v_y": 20}``."""
    if not isinstance(given, Mapping):
        raise StartError(f'initial_state is a mapping of states to numbers, {{"v": 20}} or {{"v_x": 20}}, not {given!r}.')
    alike = {s.name: [f"{s.name}_{p.name}" for p in problem.parameters] for s in rule.trace.states}
    single = [n for names in alike.values() for n in names]
    found: dict[str, float] = {}
    for name, value in sorted(given.items(), key=lambda item: item[0] not in alike):  # a single variable goes before its state
        if name not in alike and name not in single:
            listed = ", ".join(map(repr, [*alike, *single])) or "none"
            raise StartError(
                f"initial_state: {rule.name} has no state {name!r}.{suggestion(str(name), [*alike, *single])} It has: {listed}."
            )
        found.update(dict.fromkeys(alike.get(name, [name]), number(str(name), value, "initial_state")))
    return found


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
    initial_state: Mapping[str, Any] | None = None,
    **hyper: Any,
) -> Ensemble:
    """Run an optimizer: independent trajectories from one start, with the problem's gradient noise.

    Parameters
    ----------
    start:
        Every parameter (symbol or name) to a number.
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
    initial_state:
        Where the optimizer's own variables start, if not where the rule's declaration says (0 without one): a state for all
        parameters, ``{"v": 20}``, or for one of them, ``{"v_x": 20, "v_y": 2}``. The iteration number t starts at 1 all the same:
        a bias correction treats ``v`` as if it had started at 0.
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
    simulator.set_state(initial_states(rule, problem, values, start_point, initial_state))
    warm = named_states(rule, problem, initial_state or {})
    names = tuple(p.name for p in problem.parameters)
    recorder = _Recorder(simulator, len(names))

    def result(interrupted: bool) -> Ensemble:
        states = simulator.states
        return Ensemble(
            *recorder.arrays(), states[:, : len(names)].copy(), states, names, interrupted, int(seed),
            {**dict(zip(names, map(float, start_point), strict=True)), **warm}, values, rule.text, repr(problem),
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


def _has_no_step(rule: Rule, zero: Sequence[str]) -> bool:
    """Whether the rule with these hyperparameters at 0 has no finite step where gradient, memories and parameter are 0."""
    nothing = [rule.trace.gradient, *rule.trace.variables, *(rule.trace.hyperparameters[n] for n in zero)]
    at_rest = dict.fromkeys(nothing, sp.Integer(0))
    updates = (u.replace(Mean, lambda e: e).replace(BlockMean, lambda e: e).xreplace(at_rest) for u in rule.trace.updates)
    return any(u.has(sp.nan, sp.zoo) for u in updates)


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
