"""A flow on a manifold without a chart against a simulation of its rule, judged by standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quasistatic.derivation.slow_states import late_rule
from quasistatic.errors import ProblemError, RuleError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array, Progress, seed_number, whole
from quasistatic.numeric.array_simulate import ArraySimulator
from quasistatic.numeric.ensemble import record_steps, versions
from quasistatic.numeric.manifold.flow import ManifoldFlow
from quasistatic.validate import FEWEST, WARM_UP, Report, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Records of a validation, besides the start: every trajectory is projected at each.
RECORDS = 20


@dataclass(frozen=True, eq=False)
class _Runs:
    """Projected iterates of a simulation and the traces of the Hessian there."""

    steps: NDArray[np.int64]
    points: Array  # (R, N, d)
    squares: Array  # (N,): time mean of the squared distance from the manifold
    traces: Array  # (N,): at the end


def validate_manifold(
    flow: ManifoldFlow, start: Any, steps: int, trajectories: int = 16, seed: int = 0, *, record: int = RECORDS, threads: int = 1,
    progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Simulate the rule and compare with the flow.

    The fast variables and slow states start at their equilibrium, bias corrections are over; iterates are projected by
    Gauss-Newton, and what the projection adds at the start is taken off. Judged are the mean displacement along the flow
    (the worst record and the end), the squared distance of the mean from the flow at the end, and the fast variance; the
    trace of the Hessian is shown.

    Raises
    ------
    RuleError, ProblemError
        For rules given as functions, and problems that are not array problems: these have other simulations.
    UnstableError, SimulationDiverged
        If the numbers are outside the conditions, or a trajectory stops being finite.
    """
    rule, problem = flow.rule, flow.problem
    if not isinstance(rule, Rule) or not isinstance(problem, ArrayProblem):
        raise (RuleError if not isinstance(rule, Rule) else ProblemError)(
            "validate compares an update rule on an array problem (qs.ArrayProblem) with its simulation; for a problem with a chart use"
            " qs.derive(rule, problem).validate(...)."
        )
    steps, N, seed = whole(steps, "steps"), whole(trajectories, "trajectories", FEWEST), seed_number(seed)
    z0 = flow.start(start)
    sizes = flow.sizes(z0)
    times = record_steps(steps, whole(record, "record") + 1)
    theory, slow, spread, trace = _theory(flow, z0, times, N, seed)
    runs = _simulate(flow, late_rule(rule), problem, z0, times, slow, N, seed, whole(threads, "threads"), progress)
    moved = theory - theory[0]
    length = np.linalg.norm(moved[-1])
    if length == 0:
        raise ProblemError("the flow does not move from this start: there is nothing to compare.")
    along = moved[-1] / length
    paths = runs.points - runs.points[0]
    simulated = paths @ along
    error = np.sqrt(simulated.var(axis=1, ddof=1) / N + spread**2)
    rows = [
        *_along(times, moved @ along, simulated.mean(axis=1), error),
        _distance(moved[-1], paths[-1], spread[-1]),
        Row("fast variance / theory", 1.0, float(runs.squares.mean()), float(runs.squares.std(ddof=1) / np.sqrt(N))),
    ]
    shown = Row("tr H at the end", trace, float(runs.traces.mean()), float(runs.traces.std(ddof=1) / np.sqrt(N)))
    provenance = {
        "rule": rule.text, "rule_name": rule.name, "problem": repr(problem), "problem_name": problem.name, "time": "iteration",
        "values": flow.values, "start": {"norm": float(np.linalg.norm(z0))}, "steps": steps, "trajectories": N, "seed": seed,
        "extrapolate": False, "versions": versions(),
    }  # fmt: skip
    return Report(
        tuple(rows), (shown,), ("displacement along the flow",), times, (moved @ along)[:, None], simulated.mean(axis=1)[:, None],
        error[:, None], sizes, provenance,
    )  # fmt: skip


def _theory(flow: ManifoldFlow, z0: Array, times: NDArray[np.int64], N: int, seed: int) -> tuple[Array, Array | None, Array, float]:
    """Mean points (R, d), slow states there, the standard error of the component along the displacement (R,), the final trace."""
    if flow.diffusion_factor(z0).shape[1] == 0:
        path = flow.trajectory(z0, int(times[-1]), record=len(times), adiabatic=not flow.has_slow_states)
        return path.z, path.slow, np.zeros(len(times)), flow.hessian_trace(path.z[-1])
    slow = flow.sde_trajectory(z0, int(times[-1]), trajectories=N, seed=seed, record=len(times))
    direction = slow.mean[-1] - slow.mean[0]
    weight = direction**2 / max(float(direction @ direction), 1e-300)
    return slow.mean, None, np.sqrt(slow.variance @ weight / N), float(np.mean([flow.hessian_trace(z) for z in slow.final]))


def _simulate(
    flow: ManifoldFlow, rule: Rule, problem: ArrayProblem, z0: Array, times: NDArray[np.int64], slow: Array | None, N: int, seed: int,
    threads: int, progress: Progress | None,
) -> _Runs:  # fmt: skip
    simulator = ArraySimulator(rule, problem, flow.values, seed, N, threads)
    simulator.states[:] = flow.equilibrium(z0, N, seed)
    points, squares = [], []
    now = 0
    for i, time in enumerate(times):
        v = None if slow is None else slow[i]
        if time > now:
            simulator.advance(int(time) - now)
            now = int(time)
        iterates = np.asarray(simulator.points, dtype=np.float64)
        projected = np.array([flow.project(z, slow=v) for z in iterates])
        points.append(projected)
        if time >= WARM_UP * times[-1]:
            expected = flow.covariance_factors(projected.mean(axis=0), v).diagonal().sum()
            squares.append(np.sum((iterates - projected) ** 2, axis=1) / expected)
        if progress is not None:
            progress(now, int(times[-1]))
    return _Runs(times, np.array(points), np.mean(squares, axis=0), np.array([flow.hessian_trace(z) for z in points[-1]]))


def _along(times: NDArray[np.int64], theory: Array, simulated: Array, error: Array) -> list[Row]:
    difference = np.abs(simulated - theory)[1:]
    z = np.divide(difference, error[1:], out=np.zeros_like(difference), where=error[1:] > 0)
    worst = 1 + int(np.argmax(z))
    listed = ((f"displacement along the flow, worst record (step {times[worst]})", worst), ("displacement along the flow at the end", -1))
    return [Row(label, float(theory[at]), float(simulated[at]), float(error[at])) for label, at in listed]


def _distance(theory: Array, paths: Array, spread: float) -> Row:
    """Squared distance of the mean of paths (N, d) from the theory, against what N independent paths would have by chance."""
    N = len(paths)
    rest = paths - paths.mean(axis=0)
    gram = rest @ rest.T / (N - 1)  # the nonzero eigenvalues of the covariance
    expected = float(np.trace(gram)) / N + spread**2
    found = float(np.sum((paths.mean(axis=0) - theory) ** 2))
    # the spread of the chance distance, and of its own estimate from N paths
    error = float(np.sqrt(2 * np.sum(gram**2) / N**2 * (1 + 1 / (N - 1)))) + 2 * spread**2
    return Row("squared distance of the mean from the flow at the end", expected, found, error)
