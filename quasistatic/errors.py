"""The exceptions of the package: one small tree, so that a user's mistake never surfaces as somebody else's KeyError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class QuasistaticError(Exception):
    """Base class of everything that this package raises on purpose."""


class RuleError(QuasistaticError):
    """An update rule that cannot be traced, or that the theory does not cover."""


class ProblemError(QuasistaticError):
    """A loss, a manifold of minima or a noise model that does not fit together."""


class HyperparameterError(QuasistaticError):
    """A hyperparameter or constant that is missing, unknown, or has no meaning (NaN, negative, ...)."""


class StartError(QuasistaticError):
    """A start point that misses a coordinate, names an unknown one or is not finite."""


class UnstableError(QuasistaticError):
    """Numbers outside the conditions of a result; the message names the inequality and the values."""


class NoPotential(QuasistaticError):
    """The drift is not a gradient flow, or its potential has no closed form; the message says which."""


class AlgebraError(QuasistaticError):
    """An exact computation whose residual is not zero, or that left the field it was set up in."""


class ParseError(QuasistaticError):
    """Text from a shell that is not an expression of the whitelist."""


class OutputError(QuasistaticError):
    """A file or folder that cannot be written, or a notation that a document cannot have."""


class SimulationDiverged(QuasistaticError):
    """A simulated trajectory stopped being finite.

    Attributes
    ----------
    step:
        The first iteration after which a trajectory was not finite.
    runs:
        What was computed until then: the records before ``step``.
    """

    def __init__(self, message: str, step: int, runs: Any) -> None:
        super().__init__(message)
        self.step = step
        self.runs = runs


class SlowStateWarning(UserWarning):
    """A state that was declared slow is about as fast as what it should be frozen against."""


class SweepError(QuasistaticError):
    """A sweep that cannot start or go on: its executor takes no jobs, or its results file belongs to another sweep."""


class ValidationFailed(QuasistaticError, AssertionError):
    """Theory and simulation differ by more than the stated number of standard errors."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'eta'?"`` for a misspelt name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
