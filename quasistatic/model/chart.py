"""A chart of the manifold of minima: coordinates u, points phi(u), and the coordinates that belong to an iterate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from quasistatic.errors import ProblemError, suggestion
from quasistatic.symbols import natural_sort, rationalize


@dataclass(frozen=True)
class Chart:
    """Local coordinates of the manifold.

    Attributes
    ----------
    coordinates:
        k symbols u.
    parameters:
        d symbols z.
    embedding:
        phi(u), shape (d, 1).
    coordinate_map:
        k expressions in the parameters: which u belongs to an iterate z; None where the user gave none.
    """

    coordinates: tuple[sp.Symbol, ...]
    parameters: tuple[sp.Symbol, ...]
    embedding: sp.ImmutableMatrix
    coordinate_map: tuple[sp.Expr, ...] | None

    @property
    def dimension(self) -> int:
        """k."""
        return len(self.coordinates)

    @cached_property
    def tangent(self) -> sp.ImmutableMatrix:
        """T = d phi / d u, shape (d, k)."""
        return sp.ImmutableMatrix(self.embedding.jacobian(sp.Matrix(self.coordinates)))

    @property
    def on_manifold(self) -> dict[sp.Symbol, sp.Expr]:
        """Parameter to its value on the manifold, to be substituted simultaneously."""
        return dict(zip(self.parameters, self.embedding, strict=True))

    def restrict(self, expression: Any) -> Any:
        """An expression or matrix in z at the point phi(u)."""
        moved = {z: v for z, v in self.on_manifold.items() if z != v}
        return expression.subs(moved, simultaneous=True) if moved else expression

    def require_coordinate_map(self) -> tuple[sp.Expr, ...]:
        """The coordinate map; raises ProblemError, saying what to add, where there is none."""
        if self.coordinate_map is None:
            u = self.coordinates[0]
            raise ProblemError(
                f"simulation needs to know which manifold point belongs to an iterate: give Problem(..., coordinates={{{u}: expression"
                f" in {', '.join(map(str, self.parameters))}}}) for {', '.join(map(str, self.coordinates))}."
            )
        return self.coordinate_map


def make_chart(
    parameters: tuple[sp.Symbol, ...],
    constants: frozenset[sp.Symbol],
    minima: Mapping[sp.Symbol, sp.Expr],
    coordinates: Mapping[sp.Symbol, sp.Expr] | None,
) -> Chart:
    """The chart that ``minima`` and ``coordinates`` of a Problem declare."""
    unnamed = tuple(p for p in parameters if p not in minima)
    named_symbols = set().union(*(v.free_symbols for v in minima.values())) if minima else set()
    new = named_symbols - set(parameters) - constants
    circular = named_symbols & set(minima)
    if circular:
        listed = ", ".join(sorted(map(str, circular)))
        raise ProblemError(
            f"minima: {listed} is on both sides of {{{', '.join(f'{k}: {v}' for k, v in minima.items())}}};"
            " the values may use the unnamed parameters and new symbols only."
        )
    declared = tuple(coordinates) if coordinates else ()
    order = [*unnamed, *(c for c in declared if c in new), *natural_sort(new - set(declared))]
    if not order:
        raise ProblemError("minima names every parameter with a constant: an isolated minimum, along which nothing drifts.")
    embedding = sp.ImmutableMatrix([minima.get(p, p) for p in parameters])
    if coordinates is None:
        coordinate_map = tuple(order) if not new else None
    else:
        for c, value in coordinates.items():
            if c not in order:
                raise ProblemError(
                    f"coordinates: {c} is not a coordinate of the manifold ({', '.join(map(str, order))})."
                    f"{suggestion(str(c), map(str, order))}"
                )
            stray = value.free_symbols - set(parameters) - constants
            if stray:
                raise ProblemError(
                    f"coordinates: {c} = {value} uses {', '.join(map(str, stray))}; use the parameters {', '.join(map(str, parameters))}."
                )
        missing = [c for c in order if c not in coordinates and c in new]
        if missing:
            raise ProblemError(f"coordinates: {', '.join(map(str, missing))} is missing; every new symbol of minima needs an expression.")
        coordinate_map = tuple(rationalize(coordinates.get(c, c)) for c in order)
    return Chart(tuple(order), parameters, embedding, coordinate_map)
