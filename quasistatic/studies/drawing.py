"""A study as a table and as a picture (with matplotlib, the ``plot`` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quasistatic.errors import OutputError, QuasistaticError
from quasistatic.show.text import table

if TYPE_CHECKING:
    from quasistatic.studies.study import Curve, Panel, Study
    from quasistatic.validate import Row

COLORS = ("#1f4e79", "#c0392b", "#2e7d32", "#7b3f99")
MARKERS = ("o", "s", "^", "D")
#: Simulated points that are drawn of a curve.
POINTS, FEWEST_POINTS = 25, 8
#: What a label says in plain text and what a picture shows for it.
SIGNS = {"eta=": r"$\eta$ = ", "sigma=": r"$\sigma$ = ", "mu=": r"$\mu$ = ", "B=": "$B$ = ", "pi/": r"$\pi$/"}

#: What a reference is, in words.
REFERENCES = {
    "SDE": "the paper's stochastic differential equation",
    "closed form": "the leading order in the learning rate, second moments at the noise's",
}


def _note(study: Study) -> str:
    """What the verdicts of a figure of the papers mean."""
    return (
        "judged by the theory that is exact in the learning rate;\n"
        f"rows that end in {study.reference} compare with {REFERENCES.get(study.reference, study.reference)} and are not judged."
    )


def study_text(study: Study, note: str | None = None) -> str:
    """Quantity, theory, simulation, standard error, z and verdict of every comparison, and a note on them."""
    rows = [_cells(r, "pass" if r.passed else "FAIL") for r in study.rows]
    rows += [_cells(r, "") for r in study.informative]
    runs = study.provenance["runs"]
    sizes = ", ".join(sorted({str(r["trajectories"]) for r in runs.values()}, key=int))
    lines = [
        f"{study.name}: {len(runs)} ensembles of {sizes} trajectories",
        table(("quantity", "theory", "simulation", "std. error", "z", "verdict"), rows),
        f"{'passed' if study.passed else 'FAILED'} at 5 standard errors; {note or _note(study)}",
    ]
    return "\n".join(lines)


def _cells(row: Row, verdict: str) -> tuple[str, ...]:
    return (row.quantity, f"{row.theory:.5g}", f"{row.simulation:.5g}", f"{row.error:.2g}", f"{row.z:+.2f}", verdict)


def plot_study(study: Study, path: str | Path | None = None) -> Any:
    """One pair of axes for every panel; OutputError where the picture cannot be written."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise QuasistaticError('plots need matplotlib: pip install "quasistatic[plot]".') from None
    n = len(study.panels)
    figure = Figure(figsize=(4.6 * n + (1.4 if n == 1 else 0), 4.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, n, squeeze=False)[0], study.panels, strict=True):
        _draw(axes, panel, study.reference)
    figure.suptitle(study.title, fontsize=11)
    if path is not None:
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the plot to {path}: {error}.") from None
    return figure


def _draw(axes: Any, panel: Panel, reference: str) -> None:
    if panel.path is not None:
        axes.plot(panel.path[:, 0], panel.path[:, 1], "-", lw=0.5, color=COLORS[0], label="SGD")
        axes.plot(*panel.path[0], "o", color="black", ms=5, label="start")
        axes.axhline(0, color="0.3", lw=1, ls="--", label="minima y = 0")
    for i, curve in enumerate(panel.curves):
        points = round(POINTS * curve.clock[-1] / max(c.clock[-1] for c in panel.curves))
        _draw_curve(axes, curve, COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], max(FEWEST_POINTS, points), panel.single)
    if panel.curves:
        axes.plot([], [], "-", color="0.3", lw=1.5, label="theory, exact in $\\eta$")
        axes.plot([], [], ":", color="0.3", lw=1.5, label=f"theory, {reference}")
        axes.fill_between([], [], [], color="0.3", alpha=0.2, lw=1.5 if panel.single else 0, label="5 standard errors")
    axes.set_xlabel(panel.xlabel)
    axes.set_ylabel(panel.ylabel)
    axes.set_title(panel.title, fontsize=10)
    for axis in panel.logarithmic:
        _logarithmic(axes, axis)
    if panel.from_zero:
        axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=7.5)


def _logarithmic(axes: Any, axis: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{axis}scale")("log")
    drawn = getattr(axes, f"{axis}axis")
    drawn.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    drawn.set_major_formatter(FormatStrFormatter("%g"))
    drawn.set_minor_formatter(NullFormatter())


def _draw_curve(axes: Any, curve: Curve, color: str, marker: str, points: int, single: bool) -> None:
    every = max(1, len(curve.steps) // points)
    low, high = curve.mean - 5 * curve.error, curve.mean + 5 * curve.error
    if single:
        axes.vlines(curve.clock, low, high, color=color, alpha=0.3, lw=3)
    else:
        axes.fill_between(curve.clock, low, high, color=color, alpha=0.2, lw=0)
    axes.plot(curve.clock[::every], curve.mean[::every], marker, ms=3.5, color=color, label=_label(curve.label))
    axes.plot(curve.clock, curve.exact, "-", lw=1.2, color=color)
    axes.plot(curve.clock, curve.sde, ":", lw=1.5, color=color)


def _label(label: str) -> str:
    for plain, sign in SIGNS.items():
        label = label.replace(plain, sign)
    return label


__all__ = ["plot_study", "study_text"]
