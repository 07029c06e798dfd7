"""The network on the digits against its theory without a fitted constant: the drop of tr H, the displacement, the accuracy.

Every case runs at two strengths of the label noise, the second with half the covariance for twice the steps. The slow
dynamics predicts the same path for both; what it neglects is proportional to the covariance, and 2 X(half) - X(full) is free
of it. The sampling theory is judged by that. The additive and the leading-order theory are shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import HyperparameterError, OutputError, QuasistaticError
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress
from quasistatic.numeric.ensemble import versions
from quasistatic.studies import digits
from quasistatic.studies.digits import DigitsRun, DigitsTask, Prediction
from quasistatic.studies.study import Study
from quasistatic.validate import Row

Array = npt.NDArray[np.float64]

#: Trajectories of the full study, and the fewest of a scaled-down one.
TRAJECTORIES, FEWEST = 8, 4
#: Learning rate in units of 1/max |grad r_i|^2, label noise and iterations of the figure.
RATE, SIGMA, STEPS = 0.5, 0.3, 80_000
#: The other learning rates, each at equal eta^2 k.
OTHER_RATES = (0.25, 1.0)
#: Heavy ball with full-batch label noise: rate, momentum, sigma, iterations.
HEAVY_BALL = (2.0, 0.9, 0.35, 4000)
#: Records of the figure's run.
RECORDS = 11
#: Seed of the ensembles.
SEED = 0
#: Colors and line styles of the theories.
STYLES = {"sampling": ("#c0392b", "-"), "additive": ("#2e7d32", "--"), "leading": ("#7b3f99", ":")}
SIMULATION, WEAK = "#1f4e79", "#e08e0b"
NAMES = {"sampling": "sampling noise, exact", "additive": "additive noise", "leading": "leading order in η"}


@dataclass(frozen=True, eq=False)
class Case:
    """One setting: what the theories say, and the simulation with the full and with half the noise covariance.

    Attributes
    ----------
    rate:
        eta in units of 1/max |grad r_i|^2.
    theories:
        Name to prediction.
    full, weak:
        The runs; ``weak`` has half the covariance and twice the steps, or is None.
    """

    rate: float
    theories: dict[str, Prediction]
    full: DigitsRun
    weak: DigitsRun | None

    @property
    def judge(self) -> str:
        """The theory that is judged: with sampling noise where there is any."""
        return next(iter(self.theories))

    def rows(self, theory: str, which: str = "full") -> tuple[Row, ...]:
        """Drop, displacement along the predicted one, and accuracy: of the run "full", of "weak", or "extrapolated" from both."""
        prediction = self.theories[theory]
        if which != "extrapolated":
            run = self.full if which == "full" else self.weak
            assert run is not None
            return run.rows(prediction.numbers, prediction.displacement)
        pairs = zip(self.rows(theory, "weak"), self.rows(theory, "full"), strict=True)
        return tuple(Row(w.quantity, w.theory, 2 * w.simulation - f.simulation, float(np.hypot(2 * w.error, f.error))) for w, f in pairs)

    def extrapolated_trace(self) -> tuple[Array, Array]:
        """Mean tr H (R,), freed of what is proportional to the noise covariance, and its standard error."""
        assert self.weak is not None
        (full, a), (weak, b) = (_mean(r.trace) for r in (self.full, self.weak))
        return 2 * weak - full, np.hypot(2 * b, a)


def _mean(values: Array) -> tuple[Array, Array]:
    """Mean over trajectories, the last axis, and its standard error."""
    return values.mean(axis=-1), values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def experiment(
    task: DigitsTask,
    rate: float = RATE,
    sigma: float = SIGMA,
    batch: int | None = 1,
    steps: int = STEPS,
    trajectories: int = TRAJECTORIES,
    seed: int = SEED,
    record: int = 2,
    threads: int = 1,
    weak: bool = True,
    theories: tuple[str, ...] | None = None,
    rule: Rule | None = None,
    progress: Progress | None = None,
    **hyper: Any,
) -> Case:
    """Predict and simulate one setting, from the theory's equilibrium; arguments as for :func:`digits.run`.

    Parameters
    ----------
    weak:
        Whether to run at half the noise covariance too, with numbers of its own.
    theories:
        Names out of :data:`digits.THEORIES`; all that apply by default. The first one is judged.
    """
    if theories is None:
        theories = digits.THEORIES if batch is not None else digits.THEORIES[1:]
    make = partial(digits.flow, task, rate, batch=batch, rule=rule, **hyper)
    predicted = {t: digits.predict(task, make(sigma=sigma, theory=t), steps, record) for t in theories}
    runs: list[DigitsRun] = []
    for part in (1, 2) if weak else (1,):
        strength = sigma / np.sqrt(part)
        states = digits.equilibrium(task, make(sigma=strength, theory=theories[0]), trajectories, seed + part)
        shown = None if progress is None else partial(_report, progress, steps * (part - 1), 3 * steps if weak else steps)
        runs.append(
            digits.run(task, rate, strength, batch, steps * part, trajectories, seed + part, record, threads, rule, states, shown, **hyper)
        )
    return Case(rate, predicted, runs[0], runs[1] if weak else None)


def _report(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def null_run(task: DigitsTask, rate: float = RATE, steps: int = STEPS, trajectories: int = TRAJECTORIES, threads: int = 1) -> DigitsRun:
    """Minibatches without label noise, from the equilibrium that label noise would have: it decays, and nothing drifts."""
    states = digits.equilibrium(task, digits.flow(task, rate), trajectories, SEED)
    return digits.run(task, rate, 0.0, 1, steps, trajectories, SEED, 2, threads, states=states)


@dataclass(frozen=True, eq=False)
class DigitsStudy(Study):
    """The network's figure.

    Attributes
    ----------
    cases:
        The figure's own setting, then the other learning rates.
    heavy_ball:
        Heavy ball with full-batch label noise.
    """

    note: ClassVar[str] = (
        "tr H starts at {start:.2f}. Judged is the theory with sampling noise (for the full batch the additive one), by runs at two noise\n"
        "strengths extrapolated to weak noise; rows in brackets are other theories, single noise strengths, and the run without\n"
        "label noise. They are not judged."
    )

    cases: tuple[Case, ...] = field(default=())
    heavy_ball: Case | None = None

    def __str__(self) -> str:
        from quasistatic.studies.drawing import study_text

        return study_text(self, self.note.format(start=self.cases[0].full.trace[0].mean()))

    def plot(self, path: str | Path | None = None) -> Any:
        """tr H against steps with all theories, its drop against the learning rate, displacement and accuracy."""
        return _plot(self, path)


def figure_digits(scale: float = 1.0, progress: Progress | None = None, task: DigitsTask | None = None, steps: int = STEPS) -> DigitsStudy:
    """A small network on the digits, batch-1 label noise, three learning rates; needs scikit-learn.

    Parameters
    ----------
    scale:
        Part of the full ensemble, in (0, 1].
    progress:
        Called as ``progress(done, total)``.
    task:
        Another network; by default :func:`digits.setup`'s.
    steps:
        Iterations at the figure's learning rate.
    """
    if not 0 < scale <= 1:
        raise HyperparameterError(f"scale={scale!r} must be above 0 and at most 1: it is the part of the full ensemble.")
    N = max(FEWEST, round(scale * TRAJECTORIES))
    task = digits.setup() if task is None else task
    rates = (RATE, *OTHER_RATES)
    lengths = [round(steps * (RATE / r) ** 2) for r in rates]
    work = [3.0 * k for k in lengths]
    cases = []
    for i, (rate, length) in enumerate(zip(rates, lengths, strict=True)):
        shown = None if progress is None else partial(_whole, progress, sum(work[:i]) / sum(work), work[i] / sum(work))
        record = RECORDS if i == 0 else 2
        cases.append(experiment(task, rate, steps=length, trajectories=N, record=record, threads=2, progress=shown))
    rate, mu, sigma, length = HEAVY_BALL
    heavy = experiment(
        task, rate, sigma, None, max(1, length * steps // STEPS), N, threads=2, weak=False, rule=zoo.heavy_ball, mu=mu
    )  # fmt: skip
    null = null_run(task, steps=steps, trajectories=N, threads=2)
    if progress is not None:
        progress(1000, 1000)
    judged = [_named(f"rate {c.rate:g}", r) for c in cases for r in c.rows("sampling", "extrapolated")[: 3 if c is cases[0] else 1]]
    judged.append(_named("heavy ball, full batch", heavy.rows("additive")[0]))
    return DigitsStudy(
        "digits", "Digits, 64-60-1 tanh network: label noise drives it along its minima", (), tuple(judged),
        tuple(_others(cases, heavy, null)), _provenance(cases, heavy, N), cases=tuple(cases), heavy_ball=heavy,
    )  # fmt: skip


def _whole(progress: Progress, before: float, part: float, done: int, total: int) -> None:
    progress(round(1000 * (before + part * done / total)), 1000)


def _named(label: str, row: Row) -> Row:
    return Row(f"{label}: {row.quantity}", row.theory, row.simulation, row.error)


def _others(cases: list[Case], heavy: Case, null: DigitsRun) -> list[Row]:
    """What is shown without a verdict."""
    found = []
    for case in cases:
        label = f"rate {case.rate:g}"
        found += [_named(f"({t}) {label}", case.rows(t, "extrapolated")[0]) for t in ("additive", "leading")]
        found += [_named(f"(sampling, {w} noise) {label}", case.rows("sampling", w)[0]) for w in ("full", "weak")]
    found.append(_named("(leading) heavy ball, full batch", heavy.rows("leading")[0]))
    found.append(Row("(no label noise) drop of tr H", 0.0, *null.drop))
    return found


def _provenance(cases: list[Case], heavy: Case, N: int) -> dict[str, Any]:
    runs = {}
    for name, case in (*((f"rate {c.rate:g}", c) for c in cases), ("heavy ball", heavy)):
        for part, run in (("full", case.full), ("weak", case.weak)):
            if run is not None:
                runs[f"{name}, {part}"] = {
                    "trajectories": N, "seed": SEED, "eta": run.eta, "sigma": run.sigma, "batch": run.batch, "steps": int(run.steps[-1]),
                }  # fmt: skip
    return {"runs": runs, "versions": versions()}


# -- the picture -------------------------------------------------------------------------------------------------------


def _plot(study: DigitsStudy, path: str | Path | None) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise QuasistaticError('plots need matplotlib: pip install "quasistatic[plot]".') from None
    figure = Figure(figsize=(12.4, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1.35, 1, 1), height_ratios=(1.5, 1))
    trace = figure.add_subplot(grid[0, 0])
    rest = figure.add_subplot(grid[1, 0], sharex=trace)
    panels: list[tuple[Any, Callable[[Any, DigitsStudy], None]]] = [
        (trace, _draw_trace), (rest, _draw_rest), (figure.add_subplot(grid[:, 1]), _draw_rates),
        (figure.add_subplot(grid[0, 2]), _draw_displacement), (figure.add_subplot(grid[1, 2]), _draw_accuracy),
    ]  # fmt: skip
    for axes, draw in panels:
        draw(axes, study)
        axes.spines[["top", "right"]].set_visible(False)
    trace.tick_params(labelbottom=False)
    figure.suptitle(study.title, fontsize=11)
    if path is not None:
        try:
            figure.savefig(path, dpi=120)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the plot to {path}: {error}.") from None
    return figure


def _band(axes: Any, x: Array, mean: Array, error: Array, color: str, label: str, marker: str = "o") -> None:
    axes.fill_between(x, mean - 5 * error, mean + 5 * error, color=color, alpha=0.2, lw=0)
    axes.plot(x, mean, marker, ms=4.5, color=color, label=label)


def _draw_trace(axes: Any, study: DigitsStudy) -> None:
    case = study.cases[0]
    k = case.full.steps / 1e3
    for name, prediction in case.theories.items():
        color, style = STYLES[name]
        axes.plot(k, prediction.trace, style, color=color, lw=1.5, label=f"theory, {NAMES[name]}")
    _band(axes, k, *_mean(case.full.trace), SIMULATION, f"SGD, mean of {case.full.trace.shape[1]} seeds")
    axes.set_ylabel("tr H")
    axes.set_title("Flatness along the minima", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_rest(axes: Any, study: DigitsStudy) -> None:
    """Differences from the sampling theory, which the panel above cannot show."""
    case = study.cases[0]
    k, exact = case.full.steps / 1e3, case.theories["sampling"].trace
    for name, prediction in case.theories.items():
        color, style = STYLES[name]
        axes.plot(k, prediction.trace - exact, style, color=color, lw=1.5)
    mean, error = _mean(case.full.trace)
    _band(axes, k, mean - exact, error, SIMULATION, f"σ = {SIGMA:g}")
    mean, error = case.extrapolated_trace()
    _band(axes, k, mean - exact, error, WEAK, "extrapolated to weak noise", "s")
    axes.set_xlabel("iterations / 1000")
    axes.set_ylabel("tr H − theory\n(bands: ± 5 s. e.)")
    axes.set_ylim(top=1.45 * axes.get_ylim()[1])
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


def _draw_rates(axes: Any, study: DigitsStudy) -> None:
    cases = sorted(study.cases, key=lambda c: c.rate)
    rates = np.array([c.rate for c in cases])
    for name in digits.THEORIES:
        color, style = STYLES[name]
        axes.plot(rates, [c.theories[name].drop for c in cases], style, marker=".", color=color, lw=1.5, label=NAMES[name])
    for which, color, marker in (("full", SIMULATION, "o"), ("extrapolated", WEAK, "s")):
        rows = [c.rows("sampling", which)[0] for c in cases]
        label = f"SGD, σ = {SIGMA:g}" if which == "full" else "SGD, extrapolated to weak noise"
        axes.errorbar(
            rates, [r.simulation for r in rows], [5 * r.error for r in rows], fmt=marker, ms=4.5, capsize=3, color=color, label=label
        )
    axes.set_xlabel("η · max |∇r|²")
    axes.set_ylabel("drop of tr H (bars: ± 5 s. e.)")
    axes.set_title("Equal η² · iterations", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_displacement(axes: Any, study: DigitsStudy) -> None:
    case = study.cases[0]
    k = case.full.steps / 1e3
    along = case.theories["sampling"].displacement
    along = along / np.linalg.norm(along)
    for name, prediction in case.theories.items():
        color, style = STYLES[name]
        axes.plot(k, (prediction.points - prediction.points[0]) @ along, style, color=color, lw=1.5, label=NAMES[name])
    _band(axes, k, *_mean((case.full.points - case.full.points[:1]) @ along), SIMULATION, "SGD")
    axes.set_ylabel("displacement in weight space")
    axes.set_title("How far, and does it generalise", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _draw_accuracy(axes: Any, study: DigitsStudy) -> None:
    case = study.cases[0]
    k = case.full.steps / 1e3
    for name, prediction in case.theories.items():
        color, style = STYLES[name]
        axes.plot(k, 100 * prediction.accuracy, style, color=color, lw=1.5)
    mean, error = _mean(100 * case.full.accuracy)
    _band(axes, k, mean, error, SIMULATION, "SGD ± 5 s. e.")
    axes.set_xlabel("iterations / 1000")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(frameon=False, fontsize=8)


__all__ = ["Case", "DigitsStudy", "experiment", "figure_digits", "null_run"]
