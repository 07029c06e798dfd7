"""Expressions as a compiled function on rows of numbers, emitted and compiled when first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp

from quasistatic.numeric import cache
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.emit import lift_numbers
from quasistatic.numeric.kernel import table_source


class Table:
    """``outputs`` as functions of ``inputs`` (a row) and ``arguments`` (shared numbers).

    Attributes
    ----------
    outputs, data:
        The expressions with data symbols in place of numbers that are not part of the formula, and the data.
    """

    def __init__(self, title: str, outputs: Sequence[sp.Expr], inputs: Sequence[sp.Symbol], arguments: Sequence[sp.Symbol]) -> None:
        self.title, self.inputs, self.arguments = title, tuple(inputs), tuple(arguments)
        self.outputs, self.data = lift_numbers(list(outputs))

    @cached_property
    def source(self) -> str:
        """The emitted source."""
        return table_source(self.outputs, self.inputs, (*self.arguments, *self.data), self.title)

    @cached_property
    def _fill(self) -> Any:
        return cache.load(self.source).fill

    def __call__(self, rows: Array, values: Mapping[str, float]) -> Array:
        """Values of the outputs, shape (N, outputs), at ``rows`` (N, inputs)."""
        h = np.array([*(values[a.name] for a in self.arguments), *self.data.values()], dtype=np.float64)
        out = np.empty((len(rows), len(self.outputs)))
        self._fill(np.ascontiguousarray(rows, dtype=np.float64), h, out)
        return out
