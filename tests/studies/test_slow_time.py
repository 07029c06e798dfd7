"""Experiments over slow time: extrapolation in the learning rate, and runs and flows from the same start."""

from __future__ import annotations

import numpy as np
import pytest

import quasistatic as qs
from quasistatic.studies.slow_time import Experiment, Sample, extrapolate, sample

ADAM = qs.zoo.adam_power.fix(power="1/2")
EXPERIMENT = Experiment(ADAM, qs.zoo.valley(), {"x": 2.0}, {"v": 1.0, "v_y": 3.0}, {"alpha": 1.0, "beta1": 0.9, "eps": 0.1}, rate=2.0)


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_extrapolation_removes_what_is_linear(ratio: float) -> None:
    """f(eta) = a + b eta at eta and ratio*eta gives a, with the error of that combination."""
    a, b, eta = np.array([1.0, -2.0]), np.array([0.3, 5.0]), 0.01
    found = extrapolate(Sample(a + b * ratio * eta, np.full(2, 0.02)), Sample(a + b * eta, np.full(2, 0.01)), ratio)
    assert found.mean == pytest.approx(a, rel=1e-12)
    w = 1 / (ratio - 1)
    assert found.error == pytest.approx(np.hypot((1 + w) * 0.01, w * 0.02))
    assert found.z(a) == pytest.approx([0, 0], abs=1e-10)


def test_sample_is_the_mean_and_its_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, (10_000, 2))
    found = sample(values)
    assert found.error == pytest.approx([0.02, 0.02], rel=0.05)
    assert np.all(abs(found.z([3, 3])) < 5)


def test_run_and_flow_start_where_they_are_told() -> None:
    """A single parameter's second moment goes before the state's; beta2 follows the learning rate."""
    assert EXPERIMENT.values(0.1)["beta2"] == pytest.approx(1 - 2 * 0.01)
    assert EXPERIMENT.path([0.0], 0.1)[0].tolist() == [2.0, 1.0, 3.0]
    u, states = EXPERIMENT.run([0.0], 0.1, trajectories=3, seed=0)
    assert u[0].tolist() == [[2.0]] * 3
    assert states[0].tolist() == [2.0, 0.0, 0.0, 0.0, 1.0, 3.0]


def test_a_slow_state_without_a_start_is_refused() -> None:
    with pytest.raises(qs.StartError, match="v_x"):
        Experiment(ADAM, qs.zoo.valley(), {"x": 2.0}, {}, EXPERIMENT.hyper).path([1.0], 0.1)
