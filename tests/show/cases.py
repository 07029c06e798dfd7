"""The documents that are kept as golden files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy as sp

import quasistatic as qs

h = qs.function("h", positive=True)
FULL = sp.Matrix([[2, 1, 0], [1, 3, 1], [0, 1, 2]])

CASES: dict[str, Callable[[], Any]] = {
    "law_sgd": lambda: qs.derive(qs.zoo.sgd),
    "law_heavy_ball_continuous": lambda: qs.derive(qs.zoo.heavy_ball, time="continuous"),
    "law_nesterov": lambda: qs.derive(qs.zoo.nesterov),
    "heavy_ball_valley": lambda: qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(h)),
    "heavy_ball_valley_continuous": lambda: qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(h), time="continuous"),
    "qhm_rotated_valley": lambda: qs.derive(qs.zoo.qhm, qs.zoo.rotated_valley(sp.pi / 6)),
    "heavy_ball_curved_valley_full_noise": lambda: qs.derive(qs.zoo.heavy_ball, qs.zoo.curved_valley(qs.CovarianceNoise(FULL))),
    "law_adam_mini": lambda: qs.derive(qs.zoo.adam_mini),
    "adam_rotated_valley": lambda: qs.derive(qs.zoo.adam, qs.zoo.rotated_valley()),
    "adamw_rotated_valley_at_rest": lambda: qs.derive(qs.zoo.adamw, qs.zoo.rotated_valley(sp.pi / 6)).adiabatic().leading("eta"),
    "heavy_ball_weight_decay": lambda: qs.derive(qs.zoo.heavy_ball.free("weight_decay"), qs.zoo.valley()),
}


def without_versions(source: str) -> str:
    """A document without what changes from one release or machine to the next."""
    found, count = re.subn(r"Derived by quasistatic \S+ with SymPy \S+;", "Derived by quasistatic ... with SymPy ...;", source)
    assert count == 1
    return found
