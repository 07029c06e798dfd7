"""What a sweep runs over: points of hyperparameters, seeds and numbers of steps, complete and checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, SweepError, suggestion
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import resolve, seed_number, whole
from quasistatic.parse import parse_expression
from quasistatic.symbols import exact

#: Name to numbers (their Cartesian product), or the points themselves, each a mapping of names to numbers.
Grid: TypeAlias = Mapping[Any, Any] | Iterable[Mapping[Any, Any]]
#: A number of iterations, or how it depends on the hyperparameters: text, a SymPy expression, a function of their mapping.
Steps: TypeAlias = int | str | sp.Expr | Callable[[Mapping[str, float]], Any]

#: Points times seeds that one sweep may have.
LARGEST = 1_000_000
#: Iterations that one simulation may have; a larger number is a slip of the formula.
MOST_STEPS = 10**15


def grid_points(rule: Rule, problem: Problem, grid: Grid, given: Mapping[str, Any]) -> tuple[dict[str, float], ...]:
    """Every point as numbers for all hyperparameters and constants, in the order of the grid.

    Parameters
    ----------
    given:
        Names that have the same value everywhere.

    Raises
    ------
    HyperparameterError
        For an empty grid, points that repeat, and names or numbers that ``resolve`` refuses (unknown, missing, not finite).
    """
    listed = _product(grid) if isinstance(grid, Mapping) else _explicit(grid)
    both = [n for n in listed[0] if n in given]
    if both:
        raise HyperparameterError(f"{both[0]} is given in the grid and beside it: leave one of them out.")
    points = tuple(resolve(rule, problem, {**given, **point}) for point in listed)
    seen: dict[tuple[float, ...], int] = {}
    for i, point in enumerate(points):
        first = seen.setdefault(tuple(point.values()), i)
        if first != i:
            raise HyperparameterError(f"the grid has the point {shown(point)} twice (points {first + 1} and {i + 1}).")
    return points


def _product(grid: Mapping[Any, Any]) -> list[dict[str, Any]]:
    if not grid:
        raise HyperparameterError('the grid is empty: give names and their numbers, e.g. grid={"eta": [1e-3, 1e-2]}.')
    names = [str(name) for name in grid]
    axes = [_axis(name, values) for name, values in zip(names, grid.values(), strict=True)]
    _require_size(math.prod(map(len, axes)))
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]


def _axis(name: str, values: Any) -> list[Any]:
    """The numbers of one hyperparameter; a single number is a list of one."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    found = list(values)
    if not found:
        raise HyperparameterError(f"the grid has no numbers for {name}.")
    seen: set[sp.Expr] = set()
    for value in found:
        number = exact(value, f"grid, {name}")
        if number in seen:
            raise HyperparameterError(f"the grid has {name} = {value} twice.")
        seen.add(number)
    return found


def _explicit(grid: Any) -> list[dict[str, Any]]:
    wanted = 'a mapping of names to numbers, {"eta": [1e-3, 1e-2]}, or a sequence of points, [{"eta": 1e-3, "mu": 0.9}, ...]'
    if isinstance(grid, str) or not isinstance(grid, Iterable):
        raise HyperparameterError(f"the grid is {grid!r}; give {wanted}.")
    points = list(itertools.islice(grid, LARGEST + 1))
    if not points:
        raise HyperparameterError(f"the grid is empty: give {wanted}.")
    _require_size(len(points))
    listed = []
    for i, point in enumerate(points):
        if not isinstance(point, Mapping):
            raise HyperparameterError(f"point {i + 1} of the grid is {point!r}; give {wanted}.")
        listed.append({str(name): value for name, value in point.items()})
        different = set(listed[i]) ^ set(listed[0])
        if different:
            lacking = i + 1 if min(different) in listed[0] else 1
            raise HyperparameterError(f"point {lacking} of the grid has no {min(different)}: every point needs the same names.")
    return listed


def _require_size(count: int) -> None:
    if count > LARGEST:
        raise HyperparameterError(f"the grid has {count} points; a sweep may have {LARGEST}.")


def seed_numbers(seeds: Any, points: int) -> tuple[int, ...]:
    """The seeds: 0, ..., n - 1 for a number n, or those that are listed."""
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        count = whole(seeds, "seeds")
        _require_size(points * count)
        return tuple(range(count))
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise SweepError(f"seeds = {seeds!r}: give how many (0, 1, ...), or a sequence of them.")
    found = tuple(seed_number(s) for s in seeds)
    if not found:
        raise SweepError("seeds is empty: every point needs at least one.")
    repeated = [s for i, s in enumerate(found) if s in found[:i]]
    if repeated:
        raise SweepError(f"the seed {repeated[0]} is given twice: it would simulate the same numbers again.")
    _require_size(points * len(found))
    return found


def step_counts(steps: Steps, points: Sequence[Mapping[str, float]]) -> tuple[int, ...]:
    """Iterations at every point, rounded to whole numbers.

    ``steps`` is a number, or depends on hyperparameters and constants: text that the whitelist parser reads
    (``"4/eta**2"``), a SymPy expression, or a function that is called with the mapping of names to numbers.
    """
    at = _step_function(steps, list(points[0]))
    return tuple(_count(at(point), steps, point) for point in points)


def _step_function(steps: Any, names: list[str]) -> Callable[[Mapping[str, float]], Any]:
    if isinstance(steps, str):
        steps = parse_expression(steps, {n: sp.Symbol(n) for n in names})
    if isinstance(steps, sp.Expr):
        expression = steps
        for symbol in sorted(expression.free_symbols, key=str):
            if symbol.name not in names:
                raise HyperparameterError(
                    f"steps = {expression}: {symbol} is no hyperparameter or constant ({', '.join(names)}).{suggestion(symbol.name, names)}"
                )
        return lambda point: expression.xreplace({s: exact(point[s.name]) for s in expression.free_symbols})
    if callable(steps):
        return steps  # type: ignore[no-any-return]
    return lambda _: steps


def _count(value: Any, steps: Any, point: Mapping[str, float]) -> int:
    where = f" at {shown(point)}" if isinstance(steps, (str, sp.Expr)) or callable(steps) else ""
    if isinstance(value, bool):
        raise SweepError(f"steps = {value!r} is not a number{where}.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SweepError(f"steps = {value!r} is not a number{where}.") from None
    if not 1 <= round(number if math.isfinite(number) else 0.0) <= MOST_STEPS:
        spelt = f"steps = {steps} is {number:g}" if where and not callable(steps) else f"steps is {number:g}"
        raise SweepError(f"{spelt}{where}: it must be from 1 to {MOST_STEPS:.0e}.")
    return round(number)


def shown(point: Mapping[str, Any]) -> str:
    """A point in a message."""
    return ", ".join(f"{n}={v:.12g}" for n, v in point.items())
