"""The optimizer itself: an ensemble of trajectories of the traced rule, in compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic.errors import HyperparameterError, QuasistaticError, SimulationDiverged, StartError, suggestion
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric import plans
from quasistatic.numeric.arguments import Array, Progress, finite, point, resolve, seed_number, whole
from quasistatic.numeric.ensemble import Ensemble, record_steps
from quasistatic.numeric.kernel import Watch
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.random import generator_name
from quasistatic.numeric.records import Records
from quasistatic.symbols import BlockMean, Mean, expression, rationalize

#: A watched expression, its level, and the side that it is reached from: 1 from below.
_Look: TypeAlias = tuple[sp.Expr, float, float]


class Simulator(Lanes):
    """Trajectories of a rule on a problem, advanced as far as wanted.

    Variables are all d parameters, then state 1 of every parameter, then state 2, ...: ``states`` has shape (N, n).

    Parameters
    ----------
    values:
        Name to number of all hyperparameters and constants, as :func:`resolve` returns them.
    seed, trajectories, threads:
        Trajectory t has the stream (seed, t), whatever the number of trajectories and threads.
    generator:
        Of the normals, ``"xoshiro"`` or ``"philox"``.
    watch, bounds:
        What to look for after every step, and the numbers of it, as for :class:`Lanes`.
    """

    def __init__(
        self,
        rule: Rule,
        problem: Problem,
        values: Mapping[str, float],
        seed: int = 0,
        trajectories: int = 64,
        threads: int = 1,
        generator: str = "xoshiro",
        watch: Watch | None = None,
        bounds: Sequence[float] = (),
    ) -> None:
        numbers = resolve(rule, problem, values)
        use = plans.Use(whole(trajectories, "trajectories"), whole(threads, "threads"), generator_name(generator), watch or Watch())
        program = plans.simulation(rule, problem, numbers, use)
        super().__init__(program, plans.numbers(program, numbers), seed, trajectories, threads, bounds=bounds)
        self.remedy = f"Take a smaller eta (here {numbers['eta']:g})." if "eta" in numbers else "Take a smaller learning rate."
        cause = _division_by_zero(rule, numbers)
        self.remedy, self.start_remedy = cause + self.remedy, cause + self.start_remedy
        parameters = [p.name for p in problem.parameters]
        self.names = (*parameters, *(f"{s.name}_{p}" for s in rule.trace.states for p in parameters))


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
        found.update(dict.fromkeys(alike.get(name, [name]), finite(value, f"initial_state: {name}")))
    return found


def simulate(
    rule: Rule,
    problem: Problem,
    start: Mapping[Any, Any],
    steps: int,
    trajectories: int = 64,
    seed: int = 0,
    record: int | Sequence[int] = 100,
    threads: int = 1,
    progress: Progress | None = None,
    initial_state: Mapping[str, Any] | None = None,
    keep: int | Sequence[int] = 0,
    first_passage: Mapping[Any, Any] | None = None,
    escape: float | None = None,
    generator: str = "xoshiro",
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
        Number of records, equally spaced from step 0 to the last (at most one per step); 1 is the last step alone. Or the
        recorded iterations themselves, increasing. Records hold moments over the ensemble; trajectories are not stored.
    threads:
        Blocks of trajectories are spread over this many threads.
    progress:
        Called as ``progress(done, steps)`` several times a second.
    initial_state:
        Where the optimizer's own variables start, if not where the rule's declaration says (0 without one): a state for all
        parameters, ``{"v": 20}``, or for one of them, ``{"v_x": 20, "v_y": 2}``. The iteration number t starts at 1 all the same:
        a bias correction treats ``v`` as if it had started at 0.
    keep:
        Trajectories whose parameters are kept at every record, ``runs.kept`` (R, K, d): the number K of them, the first
        ones, or their indices.
    first_passage:
        Expressions in the parameters and constants (or names of parameters) to levels, ``{x: 0, u*v: "1/2"}``:
        ``runs.first_passage[name]`` (N,) is the first iteration after which the expression has reached the level, from the
        side that it starts on; 0 where it starts there, -1 where it never did. Every iteration is looked at.
    escape:
        Bound on the size of the parameters: a trajectory with one outside, or not finite, has escaped. It does not end the
        run; ``runs.escaped`` (N,) is the iteration, -1 where it never happened. From then on it does not count in mean and
        covariance, of ``runs.counts`` (R,) trajectories, and its final state is NaN. Without a bound a trajectory that is
        not finite is an error.
    generator:
        ``"xoshiro"``, or ``"philox"``: normal j of iteration k then is a function of (seed, trajectory, k, j) alone, so that
        two optimizers, or an optimizer and a slow SDE, meet the same noise (:mod:`quasistatic.numeric.random`).
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
    steps = whole(steps, "steps")
    targets, kept = recorded(record, steps), chosen(keep, whole(trajectories, "trajectories"))
    looks = _passages(first_passage, problem, values, start_point)
    bound = None if escape is None else _bound(escape, start_point)
    simulator = Simulator(
        rule, problem, values, seed_number(seed), trajectories, threads, generator,
        Watch(tuple(e for e, *_ in looks.values()), bound is not None),
        [*(v for _, level, side in looks.values() for v in (level, side)), *([] if bound is None else [bound])],
    )  # fmt: skip
    simulator.set_state(initial_states(rule, problem, values, start_point, initial_state))
    warm = named_states(rule, problem, initial_state or {})
    names = tuple(p.name for p in problem.parameters)
    records = Records(targets, len(names), simulator.trajectories, kept)

    def result(interrupted: bool) -> Ensemble:
        states, escaped = simulator.states, simulator.escapes
        states[escaped >= 0] = np.nan
        passages = simulator.passages
        passed = {name: _passage(passages[:, i], side) for i, (name, (_, _, side)) in enumerate(looks.items())}
        return Ensemble(
            *records.arrays(), states[:, : len(names)].copy(), states, names, interrupted, int(seed),
            {**dict(zip(names, map(float, start_point), strict=True)), **warm}, values, rule.text, repr(problem),
            counts=np.array(records.counts),
            kept=records.kept_array() if len(kept) else None, kept_trajectories=tuple(map(int, kept)), first_passage=passed,
            escaped=None if bound is None else escaped, generator=simulator.program.generator,
        )  # fmt: skip

    try:
        if targets[0] == 0:
            simulator.look(records)
        simulator.advance(steps, progress, records)
    except KeyboardInterrupt:
        simulator.look(records)
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


def _passages(given: Mapping[Any, Any] | None, problem: Problem, values: Mapping[str, float], start: Array) -> dict[str, _Look]:
    """Name to expression, level and the side that it is reached from; side 0 where it is reached at the start."""
    parameters = {p.name: p for p in problem.parameters}
    known = {**parameters, **{c.name: c for c in problem.constants}}
    found: dict[str, _Look] = {}
    if given is not None and not isinstance(given, Mapping):
        raise StartError(f"first_passage is a mapping of expressions in the parameters to levels, not {given!r}.")
    for key, level in (given or {}).items():
        if isinstance(key, str) and key not in parameters:
            raise StartError(f"first_passage: {key!r} is not a parameter ({', '.join(parameters)}).{suggestion(key, parameters)}")
        e = rationalize(expression(parameters[key] if isinstance(key, str) else key))
        unknown = sorted(s.name for s in e.free_symbols - set(known.values()))
        if unknown or not e.free_symbols:
            raise StartError(
                f"first_passage: {e} is no expression in parameters and constants ({', '.join(known)})."
                + (suggestion(unknown[0], known) if unknown else "")
            )
        number = finite(level, f"first_passage: the level of {e}")
        numbers = {**values, **{p.name: v for p, v in zip(problem.parameters, start, strict=True)}}
        here = e.xreplace({s: sp.Float(numbers[s.name], 17) for s in e.free_symbols})
        if not here.is_number or not here.is_real or not here.is_finite:
            raise StartError(f"first_passage: {e} is {here} at the start, not a finite number.")
        found[str(key)] = (e, number, float(np.sign(number - float(here))))
    return found


def _passage(found: npt.NDArray[np.int64], side: float) -> npt.NDArray[np.int64]:
    return np.zeros_like(found) if side == 0 else found


def _bound(escape: Any, start: Array) -> float:
    bound = finite(escape, "escape")
    if not bound > np.abs(start).max():
        raise StartError(f"escape = {bound:g} must be positive and larger than every parameter at the start ({np.abs(start).max():g}).")
    return bound


def recorded(record: Any, steps: int) -> npt.NDArray[np.int64]:
    """The recorded iterations of ``record``: a number of equally spaced ones, or themselves.

    Raises
    ------
    QuasistaticError
        For anything else, or iterations that do not increase from at least 0 to at most ``steps``.
    """
    if isinstance(record, (str, Mapping)) or not isinstance(record, (Sequence, np.ndarray)):
        return record_steps(steps, whole(record, "record"))
    found = np.array([whole(k, "record: an iteration", 0) for k in record], dtype=np.int64)
    if not found.size or (np.diff(found) <= 0).any() or found[-1] > steps:
        raise QuasistaticError(f"record: give iterations that increase and are at most {steps} (steps), not {list(record)[:10]}.")
    return found


def chosen(keep: Any, trajectories: int) -> npt.NDArray[np.int64]:
    """Indices of the trajectories to keep: the first ones for a number.

    Raises
    ------
    QuasistaticError
        For indices that are none of a trajectory, or given twice.
    """
    if isinstance(keep, (str, Mapping)) or not isinstance(keep, (Sequence, np.ndarray)):
        number = whole(keep, "keep", 0)
        if number > trajectories:
            raise QuasistaticError(f"keep = {number}, but there are {trajectories} trajectories.")
        return np.arange(number, dtype=np.int64)
    found = np.array([whole(t, "keep: an index", 0) for t in keep], dtype=np.int64)
    if len(set(found.tolist())) != len(found) or (found >= trajectories).any():
        raise QuasistaticError(f"keep: give different trajectories from 0 to {trajectories - 1}, not {list(keep)[:10]}.")
    return found
