"""The optimizer itself on a large problem: compiled for the zoo's models, NumPy for functions that users bring."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic.errors import HyperparameterError, ProblemError, QuasistaticError, SimulationDiverged, StartError, suggestion
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.machine import Machine
from quasistatic.model.rule import Rule
from quasistatic.numeric import cache
from quasistatic.numeric.arguments import Array, Progress, resolve_names, seed_number, whole
from quasistatic.numeric.array_ensemble import ArrayEnsemble
from quasistatic.numeric.array_kernel import RuleSource, advance_source, driver_source, rule_numbers, rule_source
from quasistatic.numeric.array_noise import Draws, noise_constants, plan
from quasistatic.numeric.ensemble import record_steps
from quasistatic.numeric.lanes import CHUNK_SECONDS
from quasistatic.numeric.random import streams

Observable = Callable[[Array], float]


def resolve_array(rule: Rule, problem: ArrayProblem, given: Mapping[str, Any]) -> dict[str, float]:
    """Name to number of the rule's free hyperparameters and the noise's constants; HyperparameterError as for other problems."""
    constants = noise_constants(problem)
    for name in (*problem.functions.shapes, *(str(c.name) for c in constants)):
        if name in rule.hyperparameters:
            raise HyperparameterError(
                f"the name {name} is a hyperparameter of the rule {rule.name} and of the problem {problem.name}: rename one of them."
            )
    return resolve_names(rule, constants, problem.functions.shapes, given)


def flat_start(problem: ArrayProblem, start: Any) -> Array:
    """The point (d,) of a flat array or of a mapping of array names to arrays.

    Raises
    ------
    StartError
        For missing or unknown names, wrong shapes, and numbers that are not finite.
    """
    shapes, size = problem.functions.shapes, problem.functions.size
    if isinstance(start, Mapping):
        for name in start:
            if name not in shapes:
                raise StartError(f"start: {name} is not an array of the problem ({', '.join(shapes)}).{suggestion(str(name), shapes)}")
        missing = [n for n in shapes if n not in start]
        if missing:
            raise StartError(f"start: no array for {', '.join(missing)}; every one of {', '.join(shapes)} is needed.")
        parts = [_floats(start[n], n, tuple(shape)).reshape(-1) for n, shape in shapes.items()]
        point = np.concatenate(parts)
    else:
        point = _floats(start, "the point", (size,)).copy()
    if not np.isfinite(point).all():
        raise StartError("start: a number is not finite.")
    return point


def _floats(value: Any, what: str, shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise StartError(f"start: {what} is {value!r}, which is not an array of numbers.") from None
    if array.shape != shape:
        raise StartError(f"start: {what} has shape {array.shape}; the problem needs {shape}.")
    return array


class ArraySimulator:
    """Trajectories of a rule on a large problem, advanced as far as wanted.

    Trajectory t has the stream (seed, t), whatever the number of trajectories and threads.

    Attributes
    ----------
    states:
        (N, 1+q, d) parameters, then the optimizer's own variables.
    step:
        Iterations done.
    """

    def __init__(
        self, rule: Rule, problem: ArrayProblem, values: Mapping[str, float], seed: int = 0, trajectories: int = 64, threads: int = 1
    ) -> None:
        self.trajectories, self.threads, self.step = whole(trajectories, "trajectories"), whole(threads, "threads"), 0
        self.draws: Draws = plan(problem, values)
        source = rule_source(rule)
        self.states: Array = np.zeros((self.trajectories, len(rule.trace.variables), problem.functions.size))
        self.remedy = f"Take a smaller eta (here {values['eta']:g})." if "eta" in values else "Take a smaller learning rate."
        self._words = np.ascontiguousarray(streams(seed_number(seed), self.trajectories).T)
        self._normals: Array = np.zeros((self.trajectories, self.draws.normals + 1))
        self._advance = _kernel(problem, source, self.draws)
        self._numbers = _Numbers(rule, problem, source, self.draws, values)
        self._chunk = 4
        self._pool: ThreadPoolExecutor | None = None

    @property
    def points(self) -> Array:
        """Parameters (N, d), a view."""
        return self.states[:, 0]

    def advance(self, steps: int, progress: Progress | None = None) -> None:
        """Do ``steps`` iterations, calling ``progress(done, steps)`` about five times a second.

        An exception, Ctrl-C too, leaves all trajectories at the last iteration that all of them have done.

        Raises
        ------
        SimulationDiverged
            If a trajectory stops being finite; the state is left at the iteration before.
        """
        first, last = self.step, self.step + whole(steps, "steps", 0)
        while self.step < last:
            saved = self._save()
            begun, target = time.perf_counter(), min(last, self.step + self._chunk)
            try:
                self._run(target)
            except BaseException:
                self._restore(saved)
                raise
            if not np.isfinite(self.states).all():
                self._raise_diverged(saved)
            seconds, done = time.perf_counter() - begun, target - saved[3]
            if done == self._chunk or seconds > CHUNK_SECONDS:
                self._chunk = max(1, min(16 * self._chunk, int(done * CHUNK_SECONDS / max(seconds, 1e-9))))
            if progress is not None:
                progress(self.step - first, steps)

    def _run(self, target: int) -> None:
        """All trajectories to iteration ``target``; in an exception, no thread is left working on the state."""
        jobs = [
            (self.states[i], self._words[i], self._normals[i], *self._numbers.of_steps(self.step, target)) for i in range(self.trajectories)
        ]
        if self.threads == 1 or len(jobs) == 1:
            for job in jobs:
                self._advance(*job)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads)
            futures = [self._pool.submit(self._advance, *job) for job in jobs]
            try:
                for future in futures:
                    future.result()
            finally:
                wait(futures)
        self.step = target

    def _save(self) -> tuple[Array, npt.NDArray[np.uint64], Array, int]:
        return self.states.copy(), self._words.copy(), self._normals.copy(), self.step

    def _restore(self, saved: tuple[Array, npt.NDArray[np.uint64], Array, int]) -> None:
        self.states[:], self._words[:], self._normals[:], self.step = saved

    def _raise_diverged(self, saved: tuple[Array, npt.NDArray[np.uint64], Array, int]) -> None:
        """Bisect for the first iteration after which a trajectory is not finite, between ``saved`` and now."""
        bad = self.step
        self._restore(saved)
        while bad - self.step > 1:
            here, middle = self._save(), (self.step + bad) // 2
            self._run(middle)
            if not np.isfinite(self.states).all():
                bad = middle
                self._restore(here)
        here = self._save()
        self._run(bad)
        count = int((~np.isfinite(self.states).all(axis=(1, 2))).sum())
        self._restore(here)
        what = f"after step {bad}, {count} of {self.trajectories} trajectories are not finite"
        raise SimulationDiverged(f"the simulation diverged: {what}. {self.remedy}", bad, None)


def step_normals(seed: int, trajectory: int, steps: int, count: int) -> Array:
    """The normals of the first ``steps`` iterations of a full-batch simulation that needs ``count`` of them in each, (steps, count)."""
    draw = cache.load(driver_source(RuleSource("", 0))).normals
    words = np.ascontiguousarray(streams(seed_number(seed), trajectory + 1)[:, trajectory])
    found, buffer = np.empty((steps, count)), np.zeros(count + 1)
    for step in range(steps):
        draw(words, buffer, count, step)
        found[step] = buffer[:count]
    return found


class _Numbers:
    """The run-time arguments of a kernel, apart from the state."""

    def __init__(self, rule: Rule, problem: ArrayProblem, source: RuleSource, draws: Draws, values: Mapping[str, float]) -> None:
        blocks = problem.blocks or (range(draws.size),)
        self.block = np.full(draws.size, -1, dtype=np.int64)
        for b, members in enumerate(blocks):
            self.block[np.asarray(members, dtype=np.int64)] = b
        counts = np.bincount(self.block[self.block >= 0], minlength=len(blocks)).astype(np.float64)
        if (self.block < 0).any() or counts.sum() != sum(len(b) for b in blocks):
            raise ProblemError(f"{problem.name}: blocks are not a partition of the indices 0 to {draws.size - 1}.")
        self.counts = counts
        self.h = rule_numbers(rule, source, values)
        self.q = np.array([draws.factor, draws.label, draws.everywhere, draws.normal, draws.tangent])
        self.draws, self.means = draws, source.means
        machine = machine_of(problem)
        self.room = 0 if machine is None else machine.work
        self.data = () if machine is None else machine.data

    def of_steps(self, first: int, last: int) -> tuple[Any, ...]:
        """Arguments for the iterations first+1 ... last; the means are working memory, one for every call."""
        means = np.zeros((max(1, self.means), len(self.counts)))
        n, b = self.draws.count, self.draws.rows
        return self.h, self.q, first, last, n, b, self.room, means, self.block, self.counts, *self.data


def machine_of(problem: ArrayProblem) -> Machine | None:
    """The compiled form of a problem's residuals, if they have one."""
    found = getattr(problem.functions, "machine", None)
    return found if isinstance(found, Machine) else None


def _kernel(problem: ArrayProblem, source: RuleSource, draws: Draws) -> Callable[..., None]:
    machine = machine_of(problem)
    if machine is not None:
        found: Callable[..., None] = cache.load(advance_source(source, machine, draws.batched, draws.kinds)).advance
        return found
    driver = cache.load(driver_source(source))
    functions, shapes = problem.functions, (problem.functions.count, problem.functions.size)

    def residuals(z: Array) -> Array:
        return _returned(functions.residuals(z), shapes[:1], "residuals")

    def pull(z: Array, c: Array) -> Array:
        return _returned(functions.vjp(z, c), shapes[1:], "vjp")

    @np.errstate(over="ignore", invalid="ignore")  # shortly before a divergence; whether it is one is checked afterwards
    def advance(X: Array, S: Any, x: Array, h: Array, q: Array, first: int, last: int, n: int, b: int, *rest: Any) -> None:
        """The compiled loop once more, around functions that only Python can call."""
        rows, label, everywhere, normal, tangent = np.arange(b), *draws.kinds
        for step in range(first, last):
            if draws.batched:
                driver.draw_rows(S, rows, n)
            if len(x) > 1:
                driver.normals(S, x, len(x) - 1, step)
            r = residuals(X[0])
            c, at = np.zeros(n), b if label else 0
            np.add.at(c, rows, q[0] * r[rows] + (q[1] * x[:b] if label else 0.0))
            g = pull(X[0], c)
            if everywhere:
                g = g + q[2] * x[at : at + draws.size]
                at += draws.size
            if normal or tangent:
                J = np.ascontiguousarray(_returned(functions.jacobian(X[0]), shapes, "jacobian"))
                L, g = np.linalg.cholesky(J @ J.T), g.copy()
                if normal:
                    g += q[3] * (J.T @ np.linalg.solve(L.T, x[at : at + n]))
                    at += n
                if tangent:
                    xi = x[at : at + draws.size]
                    g += q[4] * (xi - J.T @ np.linalg.solve(L.T, np.linalg.solve(L, J @ xi)))
            driver.update(X, g, h, step + 1.0, *rest[1:4])

    return advance


def _returned(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """What a user's function returned, if it is an array of the right shape."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ProblemError(f"{what} returned {value!r}, which is not an array of numbers.") from None
    if array.shape != shape:
        raise ProblemError(f"{what} returned the shape {array.shape}; it must be {shape}.")
    return array


def initial_states(rule: Rule, values: Mapping[str, float], point: Array, given: Mapping[str, Any] | None) -> Array:
    """(1+q, d) at ``point``: the optimizer's own variables at ``given`` (name to a number or (d,)), else where the rule declares."""
    chosen = dict(given or {})
    names = [s.name for s in rule.trace.states]
    for name in chosen:
        if name not in names:
            raise StartError(f"initial_state: {rule.name} has no state {name!r}.{suggestion(str(name), names)}")
    numbers = {s: sp.Float(values[n]) for n, s in rule.hyperparameters.items()} | rule.fixed_symbols
    rows = [point]
    for state in rule.trace.states:
        value: Any = chosen.get(state.name, state.initial.xreplace(numbers))
        try:
            rows.append(np.broadcast_to(np.asarray(value, dtype=np.float64), point.shape))
        except (TypeError, ValueError):
            raise StartError(f"initial_state: {state.name} = {value!r} is neither a number nor an array of shape {point.shape}.") from None
    found = np.array(rows)
    if not np.isfinite(found).all():
        raise StartError("initial_state: a number is not finite.")
    return found


def simulate_array(
    rule: Rule,
    problem: ArrayProblem,
    start: Any,
    steps: int,
    trajectories: int = 8,
    seed: int = 0,
    record: int = 100,
    threads: int = 1,
    progress: Progress | None = None,
    keep: bool = False,
    observe: Mapping[str, Observable] | None = None,
    initial_state: Mapping[str, Any] | None = None,
    **hyper: Any,
) -> ArrayEnsemble:
    """Run an optimizer on a problem given by array functions: independent trajectories, with the problem's gradient noise.

    Minibatches cost what their own residuals cost, if the model is compiled (every model of the zoo is); functions that
    users bring as NumPy run in a Python loop.

    Parameters
    ----------
    start:
        A flat point (d,), a mapping of every array's name to its values, or one point per trajectory, (trajectories, d).
    steps:
        Iterations.
    trajectories:
        Number N of trajectories. The numbers of trajectory t depend on (seed, t) only.
    seed:
        Whole number from 0 to 2**64 - 1.
    record:
        Number of records, equally spaced from step 0 to the last (at most one per step); 1 is the last step alone.
    threads:
        Trajectories are spread over this many threads.
    progress:
        Called as ``progress(done, steps)`` several times a second.
    keep:
        Whether to keep every trajectory at every record: record * trajectories * d numbers.
    observe:
        Name to a function of a point (d,) that is evaluated for every trajectory at every record.
    initial_state:
        Start of the optimizer's own variables, a number or (d,) each; where the rule declares otherwise.
    **hyper:
        Every free hyperparameter of the rule and every constant of the noise, by name.

    Returns
    -------
    ArrayEnsemble
        After Ctrl-C what was computed until then, with ``interrupted=True``.

    Raises
    ------
    HyperparameterError, StartError, ProblemError
        For numbers that are missing, unknown or senseless, and functions that return the wrong shape or NaN at the start.
    SimulationDiverged
        If a trajectory stops being finite: ``step`` is the first such iteration, ``runs`` the records before it.
    """
    values = resolve_array(rule, problem, hyper)
    steps, record = whole(steps, "steps"), whole(record, "record")
    simulator = ArraySimulator(rule, problem, values, seed, trajectories, threads)
    points = _starts(problem, start, simulator.trajectories)
    for i in range(len(points)):
        simulator.states[i] = initial_states(rule, values, points[i], initial_state)
    _check_functions(problem, points[0])
    recorder = _Recorder(simulator, keep, observe or {})

    def result(interrupted: bool) -> ArrayEnsemble:
        states = simulator.states.copy()
        return ArrayEnsemble(
            **recorder.arrays(), final=states[:, 0].copy(), final_states=states, shapes=dict(problem.functions.shapes),
            interrupted=interrupted, seed=int(seed), start=points[0] if len(np.shape(start)) < 2 else points, hyperparameters=values,
            rule=rule.text, problem=_described(problem),
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


def _starts(problem: ArrayProblem, start: Any, trajectories: int) -> Array:
    """(N, d): one point for all, or one each."""
    if not isinstance(start, Mapping) and np.ndim(start) == 2:
        if len(start) != trajectories:
            raise StartError(f"start has {len(start)} points for {trajectories} trajectories; give one each, or one for all.")
        return np.stack([flat_start(problem, z) for z in start])
    return np.broadcast_to(flat_start(problem, start), (trajectories, problem.functions.size)).copy()


def _check_functions(problem: ArrayProblem, z: Array) -> None:
    """Shapes and NaN at the start: later a NaN looks like a step that is too large."""
    r = _returned(problem.functions.residuals(z), (problem.functions.count,), "residuals")
    g = _returned(problem.functions.vjp(z, r), (problem.functions.size,), "vjp")
    for value, what in ((r, "residuals"), (g, "vjp")):
        if not np.isfinite(value).all():
            raise ProblemError(f"{what} returned NaN or infinity at the start.")


def _described(problem: ArrayProblem) -> str:
    f = problem.functions
    name = problem.name or type(f).__name__
    return f"{name}: {f.size} parameters, {f.count} residuals, scale {problem.scale:g}, noise {problem.noise}"


class _Recorder:
    """What is kept of the recorded iterations."""

    def __init__(self, simulator: ArraySimulator, keep: bool, observe: Mapping[str, Observable]) -> None:
        if not isinstance(observe, Mapping) or not all(callable(f) for f in observe.values()):
            raise QuasistaticError(f"observe is a mapping of names to functions of a point, not {observe!r}.")
        self.simulator, self.keep, self.observe = simulator, keep, dict(observe)
        self.steps: list[int] = []
        self.means: list[Array] = []
        self.records: list[Array] = []
        self.values: dict[str, list[list[float]]] = {k: [] for k in self.observe}

    def add(self) -> None:
        """Record where the simulator stands, once."""
        if self.simulator.step in self.steps[-1:]:
            return
        points = self.simulator.points
        for name, f in self.observe.items():
            self.values[name].append([float(f(z.copy())) for z in points])
        if self.keep:
            self.records.append(points.copy())
        self.means.append(points.mean(axis=0))
        self.steps.append(self.simulator.step)

    def arrays(self) -> dict[str, Any]:
        """The fields steps, mean, records and observed of the ensemble."""
        R, N, d = len(self.steps), self.simulator.trajectories, self.simulator.points.shape[1]
        return {
            "steps": np.array(self.steps, dtype=np.int64),
            "mean": np.array(self.means[:R]).reshape(R, d),
            "records": np.array(self.records[:R]).reshape(R, N, d) if self.keep else None,
            "observed": {k: np.array(v[:R], dtype=np.float64).reshape(R, N) for k, v in self.values.items()},
        }
