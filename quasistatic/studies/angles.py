"""Figure 3 (right) of the quasistatic paper: Adam in the valley turned by an angle, and SGD, which does not see the angle.

The loss is f = (1 + s^2) y'^2 along a line at the angle theta to the axes (eq. 23), the gradient noise has the variance
sigma^2 h across the line, sigma = 1. With a vanishing eps, ln s + s^2/2 falls by eta^2/|sin(2 theta)| per iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quasistatic import zoo
from quasistatic.dynamics import SlowDynamics, derive
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress
from quasistatic.numeric.ensemble import versions
from quasistatic.studies.study import Array, Curve, Panel, Study, progress_part, require_scale
from quasistatic.symbols import symbols
from quasistatic.validate import Report, Row, validate

#: Where every run starts, its learning rate and sigma^2/2; hyperparameters of Adam.
START, ETA, ALPHA = 3.0, 2e-3, 0.5
ADAM = {"beta1": 0.9, "beta2": 0.999}
#: Iterations between two records, and those after which optimizers are compared.
EVERY, COMPARED = 2000, 40_000
#: Fewest trajectories of a scaled-down ensemble.
FEWEST = 16
#: Angles (as parts of pi), iterations and trajectories for a standard error of the slope below .3 %.
ANGLES = {
    "pi/4": (1 / 4, 100_000, 256),
    "pi/6": (1 / 6, 100_000, 256),
    "pi/8": (1 / 8, 100_000, 256),
    "3pi/8": (3 / 8, 100_000, 256),
    "pi/16": (1 / 16, 60_000, 512),
    "pi/32": (1 / 32, 40_000, 768),
    "pi/64": (1 / 64, 20_000, 1024),
}
#: Runs of the first panel; SGD overtakes Adam where sigma^2 h sin(2 theta) = 2, about pi/31 at the start.
COMPARISON = ("pi/4", "pi/16", "pi/32")


@dataclass(frozen=True)
class _Run:
    label: str
    rule: Rule
    theta: float | None
    hyper: dict[str, float]
    steps: int
    trajectories: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Result:
    """A validation and the closed form's path over the same records, (R,)."""

    run: _Run
    report: Report
    closed: Array

    def x(self, step: int) -> tuple[float, float, float, float]:
        """s after some iterations: exact theory, simulation, standard error, closed form."""
        at = int(np.flatnonzero(self.report.steps == step)[0])
        r = self.report
        return float(r.theory[at, 0]), float(r.simulation[at, 0]), float(r.error[at, 0]), float(self.closed[at])

    def slope(self) -> tuple[float, float, float]:
        """Fall of ln s + s^2/2 per eta^2 and iteration: exact theory, simulation, standard error."""
        r, clock = self.report, ETA**2 * self.run.steps
        theory, found = ((_invariant(path[0, 0]) - _invariant(path[-1, 0])) / clock for path in (r.theory, r.simulation))
        end = r.simulation[-1, 0]
        return float(theory), float(found), float((1 / end + end) * r.error[-1, 0] / clock)

    def curve(self, label: str) -> Curve:
        """s over thousands of iterations, as far as optimizers are compared."""
        r = self.report
        kept = r.steps <= COMPARED
        clock = np.float64(1e-3) * r.steps[kept]
        return Curve(label, r.steps[kept], clock, r.simulation[kept, 0], r.error[kept, 0], r.theory[kept, 0], self.closed[kept])


def _invariant(x: float) -> float:
    return float(np.log(x) + x**2 / 2)


def _runs() -> list[_Run]:
    adam, rmsprop = zoo.adam, zoo.rmsprop
    found = [
        _Run(label, adam, np.pi * part, {**ADAM, "eps": 1e-8}, steps, N, 10 + i)
        for i, (label, (part, steps, N)) in enumerate(ANGLES.items())
    ]
    found.append(_Run("SGD", zoo.sgd, None, {}, COMPARED, 256, 5))
    found += [
        _Run(f"theta=0, eps={eps:g}", adam, 0.0, {**ADAM, "eps": eps}, steps, 256, 20 + i)
        for i, (eps, steps) in enumerate(((0.1, COMPARED), (0.03, COMPARED // 4)))
    ]
    found.append(_Run("RMSprop, theta=0, eps=0.1", rmsprop, 0.0, {"beta2": ADAM["beta2"], "eps": 0.1}, COMPARED, 256, 22))
    return found


def _problem(run: _Run) -> Any:
    """The valley turned by an angle that stays a number of the compiled code, except along an axis, where sines vanish."""
    if run.theta is None:
        return zoo.valley()
    return zoo.rotated_valley(theta=0 if run.theta == 0 else symbols("theta"))


def _result(run: _Run, progress: Progress | None) -> _Result:
    problem = _problem(run)
    slow = derive(run.rule, problem)
    values: dict[str, Any] = {"eta": ETA, "alpha": ALPHA, **run.hyper}
    if run.theta:
        values["theta"] = run.theta
    start = {problem.chart.coordinates[0]: START}
    report = validate(slow, start, run.steps, run.trajectories, run.seed, record=run.steps // EVERY, progress=progress, **values)
    return _Result(run, report, _closed(slow, values, report.steps))


def _closed(slow: SlowDynamics, values: dict[str, Any], steps: Any) -> Array:
    """The closed form of the paper: leading order, with the second moments at V(Sigma)."""
    rest = slow.adiabatic() if any(s.slow for s in slow.rule.trace.states) else slow
    path = rest.leading("eta").compile(**values).trajectory([START], int(steps[-1]), record=len(steps))
    return path.u[:, 0]


def figure_3_right(scale: float = 1.0, progress: Progress | None = None) -> Study:
    """Adam's speed against the valley's angle, and SGD's (quasistatic paper, fig. 3 right, eqs. 26, 27, 50 and 55).

    Second moments start at their equilibrium, fast variables in theirs. The theory that is judged is the coupled system of
    position and second moments, exact in the learning rate; ``closed form`` is its leading order with the second moments
    at the noise's, from which eqs. 50 and 55 follow at 0 and pi/4.

    Parameters
    ----------
    scale:
        Part of the full ensemble, in (0, 1].
    progress:
        Called as ``progress(done, total)``.
    """
    require_scale(scale)
    runs = [replace(r, trajectories=max(FEWEST, round(scale * r.trajectories))) for r in _runs()]
    work = [r.steps * r.trajectories for r in runs]
    results = {r.label: _result(r, progress_part(progress, sum(work[:i]), r.trajectories, sum(work))) for i, r in enumerate(runs)}
    judged, informative = _slope_rows(results)
    for label in ("SGD", *COMPARISON, *(r.label for r in runs if r.theta == 0)):
        steps = min(COMPARED, results[label].run.steps)
        name = f"{label}: x after {steps} iterations"
        theory, found, error, closed = results[label].x(steps)
        judged.append(Row(name, theory, found, error))
        informative.append(Row(f"{name}, closed form", closed, found, error))
    curves = (results["SGD"].curve("SGD"), *(results[a].curve(f"Adam, {a}") for a in COMPARISON))
    left = Panel("From s = 3", "iterations / 1000", "mean of the position s along the valley", curves)
    speed = r"slope of $\ln s + s^2/2$, relative to $\theta = \pi/4$"
    x = r"$1\,/\,\sin 2\theta$"
    ratios = _ratio_curve(results)
    scaled = (getattr(ratios, name) / ratios.clock for name in ("mean", "error", "exact", "sde"))
    right = Panel("Speed of Adam", x, speed, (ratios,), logarithmic="xy", single=True)
    close = Panel("The same times $\\sin 2\\theta$", x, r"relative slope $\times\ \sin 2\theta$",
                  (Curve("Adam", ratios.steps, ratios.clock, *scaled),), logarithmic="x", single=True)  # fmt: skip
    title = r"Adam in a valley at an angle $\theta$ to the axes: $\eta = .002$, $\sigma = 1$"
    return Study("fig3-right", title, (left, right, close), tuple(judged), tuple(informative), _provenance(runs), "closed form")


def _slope_rows(results: dict[str, _Result]) -> tuple[list[Row], list[Row]]:
    """Slopes against the exact theory, and relative to pi/4 against it and against 1/sin(2 theta)."""
    judged, informative = [], []
    base = results["pi/4"].slope()
    for label, (part, _, _) in ANGLES.items():
        theory, found, error = results[label].slope()
        judged.append(Row(f"{label}: slope", theory, found, error))
        informative.append(Row(f"{label}: slope, closed form", 1 / np.sin(2 * np.pi * part), found, error))
        if label != "pi/4":
            ratio, ratio_error = _ratio((found, error), base[1:])
            judged.append(Row(f"{label}: slope / slope at pi/4", theory / base[0], ratio, ratio_error))
            closed = 1 / np.sin(2 * np.pi * part)
            informative.append(Row(f"{label}: slope / slope at pi/4, closed form", closed, ratio, ratio_error))
    return judged, informative


def _ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """a/b of two independent numbers with their standard errors."""
    value = a[0] / b[0]
    return value, value * float(np.hypot(a[1] / a[0], b[1] / b[0]))


def _ratio_curve(results: dict[str, _Result]) -> Curve:
    """Relative slopes over 1/sin(2 theta), in that order."""
    base = results["pi/4"].slope()
    order = sorted(ANGLES, key=lambda a: 1 / np.sin(2 * np.pi * ANGLES[a][0]))
    clock = np.array([1 / np.sin(2 * np.pi * ANGLES[a][0]) for a in order])
    found = np.array([(1.0, base[2] / base[1]) if a == "pi/4" else _ratio(results[a].slope()[1:], base[1:]) for a in order])
    exact = np.array([results[a].slope()[0] / base[0] for a in order])
    steps = np.array([ANGLES[a][1] for a in order], dtype=np.int64)
    return Curve("Adam", steps, clock, found[:, 0], found[:, 1], exact, clock)


def _provenance(runs: Sequence[_Run]) -> dict[str, Any]:
    shown = {
        r.label: {"rule": r.rule.name, "theta": r.theta, "steps": r.steps, "trajectories": r.trajectories, "seed": r.seed, "x0": START,
                  "eta": ETA, "alpha": ALPHA, **r.hyper}
        for r in runs
    }  # fmt: skip
    return {"runs": shown, "versions": versions()}


__all__ = ["ANGLES", "figure_3_right"]
