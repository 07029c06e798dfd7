"""Momentum as slow as the second moments (1 - beta1 = c1 eta^2): the algorithm follows the kinetic closure of the derivation page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs

FOLDER = Path(__file__).parents[2] / "derivations"
if not FOLDER.is_dir():
    pytest.skip("the derivation pages are in the source tree", allow_module_level=True)

sys.path.insert(0, str(FOLDER))
import adaptive_slow_momentum as page  # noqa: E402

sys.path.remove(str(FOLDER))

ETA, TRAJECTORIES = 0.005, 1000


@pytest.mark.parametrize("c1", [1.0, 5.0])
def test_simulation_follows_the_kinetic_closure(c1: float) -> None:
    """At pi/4, alpha = 1, c = 2, from u = 2 at rest; the variance at equilibrium at every moment is far off."""
    rule = qs.zoo.adam_power.fix(power="1/2")  # Adam without the bias correction
    problem = qs.zoo.rotated_valley(sp.pi / 4, noise=qs.HessianNoise(1))
    runs = qs.simulate(
        rule, problem, start={"x": np.sqrt(2), "y": -np.sqrt(2)}, steps=round(2 / ETA**2), trajectories=TRAJECTORIES, seed=3, record=1,
        initial_state={"v": 5}, eta=ETA, beta1=1 - c1 * ETA**2, beta2=1 - 2 * ETA**2, eps=1e-3,
    )  # fmt: skip
    u = (runs.final[:, 0] - runs.final[:, 1]) / np.sqrt(2)
    error = u.std(ddof=1) / np.sqrt(TRAJECTORIES)
    assert abs(u.mean() - page.reduced_path(c1, "kinetic")) < 5 * error
    assert abs(u.mean() - page.reduced_path(c1, "instant")) > 5 * error
