"""Figures 1, 2 (left) and 3 (left, middle left) of the quasistatic paper: the rules simulated, the theory over them.

The loss is f = (1 + x^2) y^2 everywhere. The gradient noise in y has the variance sigma^2 h(x) ("Hessian noise",
alpha = sigma^2/2 for the true Hessian 2h) or sigma^2 ("isotropic"); 1/sigma^2 plays the batch size B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.dynamics import derive
from quasistatic.model.noise import IsotropicNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress
from quasistatic.numeric.ensemble import record_steps, versions
from quasistatic.numeric.simulate import Simulator
from quasistatic.studies.angles import figure_3_right
from quasistatic.studies.study import Array, Curve, Panel, Study, progress_part, require_scale
from quasistatic.symbols import symbols
from quasistatic.validate import Row

#: Records of a run, besides the start.
RECORDS = 1000
#: Part of the records, at the start, that averages of y^2 leave out: y starts at rest.
WARM_UP = 0.05
#: Fewest trajectories of a scaled-down ensemble: standard errors need some.
FEWEST = 16
#: Slow SDE paths per simulated trajectory.
OVERSAMPLING = 4
#: Points of a curve of y^2: each is a mean over this part of the records.
BINS = 25


# -- one run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """A rule on the valley from (x0, 0); ``noise`` is "hessian", "normal" (isotropic across the minima) or "isotropic"."""

    label: str
    rule: Rule
    hyper: Mapping[str, float]
    steps: int
    trajectories: int
    seed: int
    x0: float
    noise: str = "hessian"

    @property
    def problem(self) -> Problem:
        if self.noise == "hessian":
            return zoo.valley()
        return zoo.valley(noise=IsotropicNoise(symbols("sigma", positive=True), normal_only=self.noise == "normal"))


@dataclass(frozen=True, eq=False)
class _Result:
    """Simulated x and y, (R, N), and the theory: x and its standard error, y's variance; exact and SDE, (R,) each."""

    run: _Run
    steps: npt.NDArray[np.int64]
    x: Array
    y: Array
    exact: Array
    sde: Array
    slow_error: Array
    variance: Array
    sde_variance: Array
    spread: tuple[float, float] | None

    @property
    def late(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.steps >= WARM_UP * self.run.steps)

    def mean(self) -> tuple[Array, Array]:
        """Mean of x and the standard error of its difference from the theory, (R,)."""
        return self.x.mean(axis=1), np.hypot(_error(self.x), self.slow_error)

    def curve(self, clock: float = 1e-3) -> Curve:
        """x over ``clock`` times the iterations (by default thousands of them)."""
        mean, error = self.mean()
        return Curve(self.run.label, self.steps, np.float64(clock) * self.steps, mean, error, self.exact, self.sde)

    def spread_curve(self) -> Curve:
        """The mean of y^2 in bins of records."""
        groups = np.array_split(np.flatnonzero(self.late), BINS)

        def binned(values: Array) -> Array:
            return np.array([values[g].mean(axis=0) for g in groups])

        squares = binned(self.y**2)
        middle = np.rint(binned(self.steps.astype(np.float64))).astype(np.int64)
        return Curve(
            self.run.label, middle, middle / 1e3, squares.mean(axis=1), _error(squares), binned(self.variance),
            binned(self.sde_variance),
        )  # fmt: skip

    def end_rows(self) -> tuple[Row, Row]:
        """x at the end, against the exact theory and against the SDE form."""
        mean, error = self.mean()
        name = f"{self.run.label}: x at the end"
        x, dx = float(mean[-1]), float(error[-1])
        return Row(name, float(self.exact[-1]), x, dx), Row(f"{name}, SDE", float(self.sde[-1]), x, dx)

    def variance_rows(self) -> tuple[Row, Row]:
        """<y^2> over its theory, exact and SDE."""
        found = []
        for name, theory in ((": <y^2> / V", self.variance), (": <y^2> / V, SDE", self.sde_variance)):
            ratio = (self.y[self.late] ** 2).mean(axis=0) / theory[self.late].mean()
            found.append(Row(self.run.label + name, 1.0, float(ratio.mean()), float(_error(ratio))))
        return found[0], found[1]

    def slope(self) -> tuple[float, float, float]:
        """ln(x_0/x_end) per iteration: theory, simulation, standard error."""
        mean, error = self.mean()
        K = self.run.steps
        return np.log(self.run.x0 / self.exact[-1]) / K, np.log(self.run.x0 / mean[-1]) / K, error[-1] / mean[-1] / K


def _error(values: Array) -> Any:
    """Standard error of the mean over the last axis."""
    return values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def _simulate(run: _Run, progress: Progress | None) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Recorded steps (R,), x and y (R, N)."""
    simulator = Simulator(run.rule, run.problem, run.hyper, run.seed, run.trajectories)
    start = np.zeros(simulator.states.shape)
    start[:, 0] = run.x0
    simulator.set_state(start)
    steps = record_steps(run.steps, RECORDS + 1)
    found = []
    for step in steps:
        simulator.advance(int(step) - simulator.step)
        found.append(simulator.states[:, :2].copy())
        if progress is not None:
            progress(int(step), run.steps)
    states = np.array(found)
    return steps, states[:, :, 0], states[:, :, 1]


def _theory(run: _Run, time: str) -> tuple[Array, Array, Array, tuple[float, float] | None]:
    """x, its standard error, y's variance along it, and where x diffuses its variance at the end with its error."""
    flow = derive(run.rule, run.problem, time=time).compile(**run.hyper)
    end: float = run.steps if time == "iteration" else run.steps * run.hyper["eta"]
    u0 = {"x": run.x0}
    if run.noise != "isotropic":
        path = flow.trajectory(u0, end, record=RECORDS + 1)
        return path.u[:, 0], np.zeros(RECORDS + 1), flow.covariance(path.u)[:, 1, 1], None
    paths = flow.sde_trajectory(u0, end, trajectories=OVERSAMPLING * run.trajectories, seed=run.seed, record=RECORDS + 1)
    N = OVERSAMPLING * run.trajectories
    error = np.sqrt(paths.covariance[:, 0, 0] / N)
    V = np.full(RECORDS + 1, np.nan)  # the mean of V(x) is not V of the mean
    return paths.mean[:, 0], error, V, _sample_variance(paths.final[:, 0])


def _sample_variance(sample: Array) -> tuple[float, float]:
    """Variance and its standard error, from the sample's own fourth moment."""
    centred = sample - sample.mean()
    variance, fourth = float(np.mean(centred**2)), float(np.mean(centred**4))
    return variance, float(np.sqrt((fourth - variance**2) / len(sample)))


def _result(run: _Run, progress: Progress | None) -> _Result:
    steps, x, y = _simulate(run, progress)
    exact, slow_error, variance, spread = _theory(run, "iteration")
    sde, _, sde_variance, _ = _theory(run, "continuous")
    return _Result(run, steps, x, y, exact, sde, slow_error, variance, sde_variance, spread)


def _results(runs: tuple[_Run, ...], scale: float, progress: Progress | None) -> tuple[_Result, ...]:
    """All runs with ``scale`` times their trajectories."""
    require_scale(scale)
    scaled = [_Run(**{**vars(r), "trajectories": max(FEWEST, round(scale * r.trajectories))}) for r in runs]
    work = [r.steps * r.trajectories for r in scaled]
    found = []
    for i, run in enumerate(scaled):
        shown = progress_part(progress, sum(work[:i]), run.trajectories, sum(work))
        found.append(_result(run, shown))
    return tuple(found)


def _provenance(results: tuple[_Result, ...]) -> dict[str, Any]:
    runs = {
        r.run.label: {"rule": r.run.rule.name, "noise": r.run.noise, "x0": r.run.x0, "steps": r.run.steps,
                      "trajectories": r.run.trajectories, "seed": r.run.seed, **r.run.hyper}
        for r in results
    }  # fmt: skip
    return {"runs": runs, "versions": versions()}


# -- the figures -------------------------------------------------------------------------------------------------------


def _alpha(sigma: float) -> float:
    """Noise of variance sigma^2 h in y as a multiple of the true Hessian 2h."""
    return sigma**2 / 2


def figure_1(scale: float = 1.0, progress: Progress | None = None) -> Study:
    """SGD in the valley from (5, 0) with Hessian noise and with isotropic noise (quasistatic paper, fig. 1, eqs. 13 and 14).

    Isotropic noise across the minima only moves x along an ODE; full isotropic noise also diffuses along the minima, so
    its mean and variance are compared with the slow SDE's.

    Parameters
    ----------
    scale:
        Part of the full ensemble, in (0, 1].
    progress:
        Called as ``progress(done, total)``.
    """
    sgd = zoo.sgd
    runs = (
        _Run("eta=.001, sigma=3", sgd, {"eta": 1e-3, "alpha": _alpha(3)}, 222_200, 64, 6, 5.0),
        _Run("eta=.01, sigma=1", sgd, {"eta": 1e-2, "alpha": _alpha(1)}, 40_000, 256, 0, 5.0),
        _Run("eta=.02, sigma=1", sgd, {"eta": 2e-2, "alpha": _alpha(1)}, 10_000, 256, 0, 5.0),
        _Run("across the minima, eta=.002, sigma=4", sgd, {"eta": 2e-3, "sigma": 4.0}, 200_000, 64, 5, 5.0, "normal"),
        _Run("everywhere, eta=.01, sigma=1", sgd, {"eta": 1e-2, "sigma": 1.0}, 20_000, 2000, 1, 5.0, "isotropic"),
    )
    results = _results(runs, scale, progress)
    hessian, normal, full = results[:3], results[3], results[4]
    path = Panel("One trajectory of SGD, Hessian noise", "x", "y", path=np.stack([hessian[1].x[:, 0], hessian[1].y[:, 0]], axis=1))
    clock = r"slow time $\eta^2\sigma^2 k$"
    mean = "mean of x"
    left = Panel("Noise like the Hessian", clock, mean, tuple(r.curve(_clock(r.run)) for r in hessian))
    isotropic = (normal.curve(_clock(normal.run)), full.curve(_clock(full.run)))
    right = Panel("Isotropic noise, across the minima or everywhere", clock, mean, isotropic)
    rows = [r.end_rows() for r in results]
    rows += [r.variance_rows() for r in (*hessian, normal)]
    judged = (*(r[0] for r in rows), _spread_row(full))
    title = r"SGD on $f = (1 + x^2)\,y^2$ from (5, 0)"
    return Study("fig1", title, (path, left, right), judged, tuple(r[1] for r in rows), _provenance(results))


def _clock(run: _Run) -> float:
    """Slow time of one iteration: eta^2 sigma^2."""
    variance = 2 * run.hyper["alpha"] if "alpha" in run.hyper else run.hyper["sigma"] ** 2
    return run.hyper["eta"] ** 2 * variance


def _spread_row(result: _Result) -> Row:
    """Variance of x at the end against the slow SDE's."""
    assert result.spread is not None
    theory, theory_error = result.spread
    found, error = _sample_variance(result.x[-1])
    return Row(f"{result.run.label}: variance of x at the end", theory, found, float(np.hypot(error, theory_error)))


def figure_2_left(scale: float = 1.0, progress: Progress | None = None) -> Study:
    """SGD with momentum in the valley from (5, 0) for four momentum factors (quasistatic paper, fig. 2 left, eq. 19).

    Parameters
    ----------
    scale:
        Part of the full ensemble, in (0, 1].
    progress:
        Called as ``progress(done, total)``.
    """
    lengths = {0.0: 400_000, 0.5: 400_000, 0.8: 80_000, 0.9: 40_000}
    runs = tuple(
        _Run(f"mu={mu:g}", zoo.heavy_ball_velocity, {"eta": 1e-3, "mu": mu, "alpha": _alpha(1.5)}, steps, 128, 1, 5.0)
        for mu, steps in lengths.items()
    )
    results = _results(runs, scale, progress)
    rows = [*(r.end_rows() for r in results), *(r.variance_rows() for r in results)]
    panel = Panel("", "iterations / 1000", "mean of x", tuple(r.curve() for r in results))
    title = r"SGD with momentum on $f = (1 + x^2)\,y^2$, Hessian noise, $\eta = .001$, $\sigma = 1.5$"
    return Study("fig2", title, (panel,), tuple(r[0] for r in rows), tuple(r[1] for r in rows), _provenance(results))


#: Runs of figure 3: learning rate, momentum, batch size B = 1/sigma^2, iterations. A and B have one speed factor, C half of
#: it; all have one range factor. E and F follow from C by the scaling rule (22) with c = 4.
FIGURE_3 = {
    "A": (2e-3, 0.0, 0.16, 40_000),
    "B": (2e-4, 0.9, 0.16, 40_000),
    "C": (1e-3, 0.0, 0.08, 40_000),
    "E": (4e-3, 0.0, 0.32, 10_000),
    "F": (1e-3, 0.75, 0.32, 10_000),
}


def figure_3_left(scale: float = 1.0, progress: Progress | None = None) -> Study:
    """Speed and range factors, and the scaling rule for c = 4 (quasistatic paper, fig. 3 left and middle left, eqs. 21 and 22).

    The speed factor is s = eta^2/(B(1-mu)^2), the range factor r = eta/(B(1-mu)), the batch size B is 1/sigma^2; x
    decays as exp(-s k/2) and y has the variance r/4, both up to a finite learning rate.

    Parameters
    ----------
    scale:
        Part of the full ensemble, in (0, 1].
    progress:
        Called as ``progress(done, total)``.
    """
    runs = tuple(
        _Run(f"{name}: eta={eta:g}, mu={mu:g}, B={B:g}", zoo.heavy_ball_velocity, {"eta": eta, "mu": mu, "alpha": 1 / (2 * B)}, K, 256,
             40 + i, 3.0)
        for i, (name, (eta, mu, B, K)) in enumerate(FIGURE_3.items())
    )  # fmt: skip
    results = _results(runs, scale, progress)
    named = dict(zip(FIGURE_3, results, strict=True))
    rows = [_factor_rows(n, r) for n, r in named.items()]
    judged = [row for pair in rows for row in pair]
    judged += [_ratio_row(f"speed {a}/{b}", _speed, named[a], named[b]) for a, b in (("A", "B"), ("A", "C"), ("E", "C"), ("F", "C"))]
    judged += [_ratio_row(f"<y^2> {a}/{b}", _spread, named[a], named[b]) for a, b in (("A", "C"), ("E", "C"), ("F", "C"))]
    ends = [r.end_rows() for r in results]
    judged += [e[0] for e in ends]
    left = Panel("Speed factor", "iterations / 1000", "mean of x", tuple(named[n].curve() for n in "ABC"))
    middle = Panel("Range factor", "iterations / 1000", r"mean of $y^2$", tuple(named[n].spread_curve() for n in "ABC"), from_zero=True)
    scaled = Panel(
        r"Scaling rule, $c = 4$", r"slow time $s k = \eta^2k\,/\,(B(1-\mu)^2)$", "mean of x",
        tuple(named[n].curve(_speed_factor(n)) for n in "CEF"),
    )  # fmt: skip
    title = r"Speed and range factors of SGD with momentum on $f = (1 + x^2)\,y^2$"
    return Study("fig3", title, (left, middle, scaled), tuple(judged), tuple(e[1] for e in ends), _provenance(results))


def _speed_factor(name: str) -> float:
    eta, mu, B, _ = FIGURE_3[name]
    return eta**2 / (B * (1 - mu) ** 2)


def _range_factor(name: str) -> float:
    eta, mu, B, _ = FIGURE_3[name]
    return eta / (B * (1 - mu))


def _speed(result: _Result) -> tuple[float, float, float]:
    return result.slope()


def _spread(result: _Result) -> tuple[float, float, float]:
    """Time mean of y^2: theory, simulation, standard error."""
    squares = (result.y[result.late] ** 2).mean(axis=0)
    return float(result.variance[result.late].mean()), float(squares.mean()), float(_error(squares))


def _factor_rows(name: str, result: _Result) -> tuple[Row, Row]:
    """ln-slope over s/2 and <y^2> over r/4: both 1 at leading order in the learning rate."""
    s, r = _speed_factor(name) / 2, _range_factor(name) / 4
    return Row(f"{name}: log slope / (s/2)", *(v / s for v in _speed(result))), Row(
        f"{name}: <y^2> / (r/4)", *(v / r for v in _spread(result))
    )


def _ratio_row(quantity: str, measure: Callable[[_Result], tuple[float, float, float]], a: _Result, b: _Result) -> Row:
    """The ratio of a quantity of two independent runs."""
    (t1, v1, e1), (t2, v2, e2) = measure(a), measure(b)
    return Row(quantity, t1 / t2, v1 / v2, v1 / v2 * float(np.hypot(e1 / v1, e2 / v2)))


def digits(scale: float = 1.0, progress: Progress | None = None) -> Study:
    """The network on the digits, see :func:`quasistatic.studies.digits_figure.figure_digits`."""
    from quasistatic.studies.digits_figure import figure_digits  # which needs Study

    return figure_digits(scale, progress)


#: Name to function of every figure.
FIGURES: dict[str, Callable[..., Study]] = {
    "fig1": figure_1, "fig2": figure_2_left, "fig3": figure_3_left, "fig3-right": figure_3_right, "digits": digits,
}  # fmt: skip

__all__ = ["FIGURES", "Curve", "Panel", "Study", "figure_1", "figure_2_left", "figure_3_left", "figure_3_right"]
