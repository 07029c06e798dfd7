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
from quasistatic.numeric.plans import hash_of


class Table:
    """``outputs`` as functions of ``inputs`` (a row) and ``arguments`` (shared numbers).

    Numbers that are not part of the formula become data, so that they do not change the source.
    """

    def __init__(self, title: str, outputs: Sequence[sp.Expr], inputs: Sequence[sp.Symbol], arguments: Sequence[sp.Symbol]) -> None:
        self.title, self.inputs, self.arguments, self.outputs = title, tuple(inputs), tuple(arguments), tuple(outputs)

    @cached_property
    def _plan(self) -> tuple[str, tuple[float, ...]]:
        """Source and data."""

        def build() -> tuple[str, tuple[float, ...]]:
            outputs, data = lift_numbers(list(self.outputs))
            return table_source(outputs, self.inputs, (*self.arguments, *data), self.title), tuple(data.values())

        def unpack(plan: Any) -> tuple[str, tuple[float, ...]]:
            return str(plan[0]), tuple(map(float, plan[1]))

        key = hash_of(self.title, self.outputs, self.inputs, self.arguments)
        return cache.recall("table", key, build, list, unpack)

    @property
    def source(self) -> str:
        """The emitted source."""
        return self._plan[0]

    @cached_property
    def _fill(self) -> Any:
        return cache.load(self.source).fill

    def __call__(self, rows: Array, values: Mapping[str, float]) -> Array:
        """Values of the outputs, shape (N, outputs), at ``rows`` (N, inputs)."""
        h = np.array([*(values[a.name] for a in self.arguments), *self._plan[1]], dtype=np.float64)
        out = np.empty((len(rows), len(self.outputs)))
        self._fill(np.ascontiguousarray(rows, dtype=np.float64), h, out)
        return out
