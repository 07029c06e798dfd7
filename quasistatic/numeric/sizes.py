"""What the theory neglects at a point, as numbers: the other half of the conditions (theory, section 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import sympy as sp

from quasistatic.derivation import conditions as when
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.statistical import StatisticalResult
from quasistatic.errors import UnstableError
from quasistatic.numeric.flow import Flow


def time_step(result: SlowResult, flow: Flow) -> float:
    """Time of one iteration in the result's unit (1 for a map)."""
    if result.linear is None:
        return 1.0
    return float(when.numbers([result.linear.dt], flow.values)[0])


def measure(result: SlowResult, flow: Flow, here: Mapping[str, float]) -> dict[str, float]:
    """Sizes at the point ``here`` that should be small against 1, by name."""
    u = np.array([here[c.name] for c in result.slow_state])
    jacobian = []
    for i in range(len(u)):
        # second moments are positive, and may be small
        step = 1e-5 * (max(1.0, abs(u[i])) if i < len(result.coordinates) else abs(u[i]) or 1e-12)
        shift = np.zeros_like(u)
        shift[i] = step
        jacobian.append((flow.drift(u + shift) - flow.drift(u - shift)) * time_step(result, flow) / (2 * step))
    # coordinates and second moments have units of their own, which eigenvalues do not see
    matrix = np.array(jacobian)
    slow = float(
        np.linalg.norm(matrix, 2) if len(result.slow_state) == len(result.coordinates) else np.abs(np.linalg.eigvals(matrix)).max()
    )
    sizes = {"slow rate / fast rate": slow / result.fast_rate(flow.values, here), "|d4 f| V / |d2 f|": _oscillation(result, flow, here)}
    if isinstance(result, AdaptiveResult):
        sizes.update(_adaptive(result, flow, here, slow))
    elif result.linear is None or result.linear.has_force:
        moved = when.numbers(list(result.averaged_map.displacement), {**flow.values, **here})
        if np.any(moved):
            sizes["force per step"] = float(np.abs(moved).max())
    return sizes


def _adaptive(result: AdaptiveResult, flow: Flow, here: Mapping[str, float], slow: float) -> dict[str, float]:
    """What freezing the slow states and averaging over the memory neglects."""
    everything = {**flow.values, **here}
    found = result.curvatures(everything).tolist()
    sizes = {f"rate of {n} / fast rate": r for n, r in result.state_ratios(everything, found).items() if result.mode == "coupled"}
    gain = float(when.numbers([result.linear.gain], everything)[0])
    sizes["gain * largest eigenvalue of S H"] = gain * found[-1]
    memory = when.fast_rate(result.filter, [], everything)
    if isinstance(result, StatisticalResult):
        own = when.numbers([m.xreplace(result._thaw) for m in result._gradient_moments], everything)
        sizes["H V H / Sigma"] = float((own / when.numbers(list(result.noise_moments), everything)).max())
    if len(result.preconditioned.powers) > 1:
        sizes["slow rate / memory's rate"] = slow / memory
    return sizes


def _oscillation(result: SlowResult, flow: Flow, here: Mapping[str, float]) -> float:
    """Largest eigenvalue of d^2 <Hessian, V>/2 at frozen V, against the smallest curvature."""
    problem = result.problem
    d = len(problem.parameters)
    V = flow.covariance(np.array([here[c.name] for c in result.slow_state]))[:d, :d]
    weighted: sp.Expr = sp.Integer(0)
    for a, p in enumerate(problem.parameters):
        for b, q in enumerate(problem.parameters):
            if V[a, b] != 0:
                weighted += sp.Float(V[a, b]) * problem.loss.diff(p, q)
    values = {**flow.values, **here}
    fourth = problem.chart.restrict(sp.hessian(weighted / 2, problem.parameters)) if weighted != 0 else sp.zeros(d, d)
    size = float(np.abs(np.linalg.eigvalsh(when.numbers(list(fourth), values).reshape(d, d))).max())
    return size / float(when.curvatures(problem, values)[0])


def require_separation(sizes: Mapping[str, float], shown: Mapping[str, float]) -> None:
    """Raise UnstableError, with the numbers, where the slow dynamics is as fast as what it averages over."""
    ratio = sizes["slow rate / fast rate"]
    if ratio >= 1:
        values = ", ".join(f"{k}={v:.6g}" for k, v in shown.items())
        raise UnstableError(
            f"there is no separation of time scales: the slow rate is {ratio:.3g} times the fast rate for {values};"
            " it must be well below 1. Take less noise, or a smaller learning rate."
        )
