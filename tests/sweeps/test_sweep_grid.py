"""Points, seeds and steps of a sweep, and what is refused before anything runs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.sweeps.grid import LARGEST, grid_points, seed_numbers, step_counts

RULE, VALLEY = qs.zoo.heavy_ball, qs.zoo.valley()


def points(grid: Any, **given: Any) -> tuple[dict[str, float], ...]:
    return grid_points(RULE, VALLEY, grid, given)


def test_a_mapping_is_the_product_of_its_axes() -> None:
    found = points({"eta": np.array([1e-3, 1e-2]), "mu": (0, "1/2", sp.Rational(9, 10))}, alpha=2)
    expected = [{"eta": e, "mu": m, "alpha": 2.0} for e, m in itertools.product((1e-3, 1e-2), (0.0, 0.5, 0.9))]
    assert list(found) == expected
    assert all(type(v) is float for p in found for v in p.values())


def test_axes_may_be_single_numbers_iterators_and_symbols() -> None:
    eta = RULE.hyperparameters["eta"]
    assert points({eta: (10.0**-k for k in (2, 3)), "mu": 0.5, "alpha": 1}) == points({"eta": [0.01, 0.001], "mu": [0.5], "alpha": [1]})


def test_points_may_be_listed() -> None:
    listed = [{"eta": 1e-3, "mu": 0.9}, {"mu": 0.5, "eta": 1e-2}]
    assert [tuple(p.values()) for p in points(listed, alpha=1)] == [(1e-3, 0.9, 1.0), (1e-2, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "the grid is empty"),
        ([], "the grid is empty"),
        ({"eta": []}, "no numbers for eta"),
        ({"eta": [1e-3, float("nan")]}, "grid, eta: nan is not finite"),
        ({"eta": [float("inf")]}, "grid, eta: inf is not finite"),
        ({"eta": ["fast"]}, "grid, eta: 'fast' is not a number"),
        ({"eta": [True]}, "grid, eta: True is not a number"),
        ({"eta": [1e-3, 1e-2, "1e-3"]}, "eta = 1e-3 twice"),
        ({"ety": [1e-3], "mu": [0]}, "ety is neither.* Did you mean 'eta'"),
        ({"tau": [0.5], "eta": [1], "mu": [0]}, "tau is fixed at 0"),
        ({"x": [5], "eta": [1], "mu": [0]}, "x is a parameter of the problem"),
        ({"eta": [1e-3]}, "no value for mu"),
        ({"eta": [1e-3], "mu": [-1]}, "mu = -1 is negative"),
        ({"eta": [1e-3], "mu": [0], "alpha": [1, 2]}, "alpha is given in the grid and beside it"),
        ([{"eta": 1, "mu": 0}, {"eta": 2}], "point 2 of the grid has no mu"),
        ([{"eta": 1}, {"eta": 2, "mu": 1}], "point 1 of the grid has no mu"),
        ([{"eta": 1, "mu": 0}, {"eta": 2, "mu": 0}, {"mu": "0", "eta": 1.0}], r"eta=1, mu=0, alpha=1 twice \(points 1 and 3\)"),
        ([1e-3, 1e-2], "point 1 of the grid is 0.001"),
        ("eta=1", "the grid is 'eta=1'"),
        (3, "the grid is 3"),
        ({"eta": range(1, 10_000), "mu": range(10_000)}, f"99990000 points; a sweep may have {LARGEST}"),
        ([{"eta": 1e-3, "mu": float("nan")}], "mu: nan is not finite"),
    ],
)
def test_grids_that_are_refused(grid: Any, message: str) -> None:
    with pytest.raises(qs.HyperparameterError, match=message):
        points(grid, alpha=1)


def test_seeds() -> None:
    assert seed_numbers(3, 1) == (0, 1, 2)
    assert seed_numbers(np.array([7, 2**40]), 1) == (7, 2**40)
    assert seed_numbers([2**64 - 1], 1) == (2**64 - 1,)


@pytest.mark.parametrize("seeds", [0, -1, [], [1, 1], "3", 2.5, True, [0.5], [-1], [2**64]])
def test_seeds_that_are_refused(seeds: Any) -> None:
    with pytest.raises(qs.QuasistaticError, match="seed"):
        seed_numbers(seeds, 1)


def test_steps_are_a_number_or_follow_the_hyperparameters() -> None:
    at = points({"eta": [0.1, 0.03], "mu": [0.5]}, alpha=2)
    eta = RULE.hyperparameters["eta"]
    expected = (400, round(4 / 0.03**2))
    for steps in ("4/eta**2", 4 / eta**2, 4 / sp.Symbol("eta") ** 2, lambda v: 4 / v["eta"] ** 2):
        assert step_counts(steps, at) == expected
    for steps in (1000, 1e3, "1000", "10**3", np.int64(1000), sp.Integer(1000)):
        assert step_counts(steps, at) == (1000, 1000)
    assert step_counts("sqrt(mu)*alpha/eta", at) == (round(math.sqrt(0.5) * 20), round(math.sqrt(0.5) * 2 / 0.03))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (0, "steps is 0: it must be from 1"),
        (0.4, "from 1"),
        (float("nan"), "steps is nan"),
        (float("inf"), "steps is inf"),
        (True, "steps = True is not a number"),
        (None, "steps = None is not a number"),
        ("4/ety**2", "unknown name 'ety'.* Did you mean 'eta'"),
        ("__import__('os')", "unknown function"),
        ("eta.real", "not allowed"),
        ("1/(eta-eta)", "divides by zero|not finite"),
        ("1/(eta-0.1)", "is not a number at eta=0.1|steps = .* at eta=0.1"),
        ("sqrt(eta-1)", "is not a number at eta=0.1"),
        ("eta", "steps = eta is 0.1 at eta=0.1"),
        (4 / sp.Symbol("nu") ** 2, "nu is no hyperparameter"),
        (lambda v: "many", "steps = 'many' is not a number at eta=0.1"),
        (lambda v: 1e30, "steps is 1e[+]30 at eta=0.1"),
    ],
)
def test_steps_that_are_refused(steps: Any, message: str) -> None:
    with pytest.raises(qs.QuasistaticError, match=message):
        step_counts(steps, points({"eta": [0.1], "mu": [0]}, alpha=1))
