"""Pictures of reports, with matplotlib (the ``plot`` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quasistatic.errors import OutputError, QuasistaticError

THEORY, SIMULATION = "#c0392b", "#1f4e79"


def _pyplot() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise QuasistaticError('plots need matplotlib: pip install "quasistatic[plot]".') from None
    return Figure


def plot_report(report: Any, path: str | Path | None = None) -> Any:
    """Mean coordinates against iterations above, their difference in standard errors below; one column a coordinate.

    Returns the matplotlib figure; saves it where ``path`` is given. Raises OutputError where it cannot be written.
    """
    k = len(report.coordinates)
    figure = _pyplot()(figsize=(5.2 * k, 4.6), layout="constrained")
    axes = figure.subplots(2, k, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3, 1]})
    about = report.provenance
    for i, name in enumerate(report.coordinates):
        above, below = axes[0, i], axes[1, i]
        mean, error, theory = report.simulation[:, i], report.error[:, i], report.theory[:, i]
        above.fill_between(report.steps, mean - 5 * error, mean + 5 * error, color=SIMULATION, alpha=0.2, lw=0, label="5 standard errors")
        above.plot(report.steps, mean, "o", ms=3.5, color=SIMULATION, label=f"simulation, mean of {about['trajectories']}")
        above.plot(report.steps, theory, "-", lw=1.5, color=THEORY, label="slow dynamics")
        above.set_ylabel(f"{name} (limit point of the iterate)")
        above.legend(frameon=False, fontsize=8)
        z = [(m - t) / e if e > 0 else 0.0 for m, t, e in zip(mean, theory, error, strict=True)]
        below.axhspan(-5, 5, color="0.92", lw=0)
        below.axhline(0, color=THEORY, lw=1)
        below.plot(report.steps, z, "o", ms=3, color=SIMULATION)
        below.set_ylabel("difference\n(std. errors)")
        below.set_xlabel("iterations")
        below.set_ylim(min(-6.0, *z) - 0.5, max(6.0, *z) + 0.5)
    values = ", ".join(f"{n} = {v:g}" for n, v in about["values"].items())
    figure.suptitle(f"{about['rule_name']} on {about['problem_name'] or 'a problem'}: {values}", fontsize=10)
    if path is not None:
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot write the plot to {path}: {error}.") from None
    return figure
