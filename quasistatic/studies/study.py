"""What a study is made of: curves, panels, rows of a table, and how an ensemble is scaled down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import HyperparameterError
from quasistatic.numeric.arguments import Progress
from quasistatic.validate import Row

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity over iterations.

    Attributes
    ----------
    label:
        Which run it is.
    steps:
        (R,) iterations.
    clock:
        (R,) what it is drawn over: iterations, or a slow time.
    mean, error:
        (R,) of the simulation: mean over trajectories and its standard error.
    exact, sde:
        (R,) theory: exact in the learning rate, and of the paper's stochastic differential equation (the study's ``reference``).
    """

    label: str
    steps: npt.NDArray[np.int64]
    clock: Array
    mean: Array
    error: Array
    exact: Array
    sde: Array


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes: its labels and curves.

    ``path``, an (R, 2) array, is one trajectory in the plane instead of curves; ``from_zero`` starts the ordinate at 0,
    ``logarithmic`` names axes ("x", "xy") that are so, ``single`` says that the points
    are separate measurements: bars instead of a band.
    """

    title: str
    xlabel: str
    ylabel: str
    curves: tuple[Curve, ...] = ()
    path: Array | None = None
    from_zero: bool = False
    logarithmic: str = ""
    single: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """A figure and the numbers behind it; ``str(study)`` is a table.

    Attributes
    ----------
    rows:
        What is judged: the simulation against the theory that is exact in the learning rate.
    informative:
        The simulation against the study's ``reference``, without a verdict.
    provenance:
        Ensemble sizes, seeds and versions.
    reference:
        What the dotted curves and the informative rows are: the paper's "SDE", or another approximation.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    rows: tuple[Row, ...]
    informative: tuple[Row, ...]
    provenance: Mapping[str, Any]
    reference: str = "SDE"

    @property
    def passed(self) -> bool:
        """Whether every row is within 5 standard errors."""
        return all(r.passed for r in self.rows)

    def row(self, quantity: str) -> Row:
        """The row of that quantity."""
        return next(r for r in (*self.rows, *self.informative) if r.quantity == quantity)

    def __str__(self) -> str:
        from quasistatic.studies.drawing import study_text

        return study_text(self)

    def plot(self, path: str | Path | None = None) -> Any:
        """Simulation and theory over each other; returns the matplotlib figure, and saves it where a path is given."""
        from quasistatic.studies.drawing import plot_study

        return plot_study(self, path)


def require_scale(scale: float) -> None:
    """Raise HyperparameterError unless ``scale``, the part of the full ensemble, is in (0, 1]."""
    if not 0 < scale <= 1:
        raise HyperparameterError(f"scale={scale!r} must be above 0 and at most 1: it is the part of the full ensemble.")


def progress_part(progress: Progress | None, before: int, weight: int, total: int) -> Progress | None:
    """The progress of one run of a study: ``weight`` times what it has done, after ``before``, of ``total``."""
    return None if progress is None else partial(_report, progress, before, weight, total)


def _report(progress: Progress, before: int, weight: int, total: int, done: int, _: int) -> None:
    progress(before + weight * done, total)


__all__ = ["Array", "Curve", "Panel", "Study", "progress_part", "require_scale"]
