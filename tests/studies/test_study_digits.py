"""The network on the digits: at zero residual before, driven along the minima after; scaled down from the figure's 80 000 steps."""

import builtins

import numpy as np
import pytest

import quasistatic as qs
from quasistatic import zoo
from quasistatic.errors import HyperparameterError, ProblemError, QuasistaticError
from quasistatic.studies import digits
from quasistatic.studies.least_squares import fit

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def task():
    return digits.setup(0)


@pytest.fixture(scope="module")
def driven(task):
    return digits.run(task, steps=6000, trajectories=4, record=4)


def test_setup(task):
    f = task.functions
    assert (f.size, f.count) == (3960, 100)
    assert dict(f.shapes) == {"W1": (60, 64), "b1": (60,), "W2": (1, 60)}
    assert np.abs(f.residuals(task.start)).max() < 1e-12
    assert task.problem.scale == 1 / 200
    assert len(task.test_labels) == 1697
    assert 0.85 < task.accuracy(task.start) < 1
    gradients = f.jacobian(task.start)
    assert task.unit * max(g @ g for g in gradients) == pytest.approx(1)
    assert task.trace(task.start) == pytest.approx(np.trace(gradients @ gradients.T) / 100)


def test_label_noise_lowers_the_trace(task, driven):
    drop, error = driven.drop
    assert drop / error > 20
    assert np.all(np.diff(driven.trace.mean(axis=1)) < 0)
    assert driven.eta == 0.5 * task.unit
    assert np.abs(task.functions.residuals(driven.points[-1, 0])).max() < 1e-9
    length, _ = driven.distance()
    assert 0.3 < length < np.linalg.norm(driven.points[-1] - driven.points[0], axis=1).min()


def test_no_drift_without_label_noise(task):
    found = digits.run(task, sigma=0.0, steps=6000, trajectories=2, record=2)
    assert abs(found.drop[0]) < 1e-9
    assert found.distance()[0] < 1e-9


def test_equal_slow_time_at_two_learning_rates(task, driven):
    """Half the learning rate, four times the steps: the same drop but for the finite learning rate (about 3 percent)."""
    found = digits.run(task, rate=0.25, steps=24_000, trajectories=4, record=2)
    ratio = found.drop[0] / driven.drop[0]
    error = np.hypot(found.drop[1] / found.drop[0], driven.drop[1] / driven.drop[0])
    assert abs(ratio - 0.98) < 0.06 + 5 * error


def test_rows_are_the_seam_for_theory(driven):
    direction = driven.displacement[-1]
    rows = driven.rows({"drop": driven.drop[0], "displacement": np.linalg.norm(direction), "accuracy": 0.9}, direction)
    assert [r.quantity for r in rows] == ["drop of tr H", "displacement in weight space", "test accuracy"]
    assert rows[0].z == 0
    assert rows[1].passed
    assert len(driven.rows({"displacement": 1.0})) == 1
    with pytest.raises(HyperparameterError, match="loss was not measured"):
        driven.rows({"loss": 0})


def test_other_rules_and_full_batches(task):
    found = digits.run(task, rule=zoo.heavy_ball, mu=0.9, batch=None, sigma=1.0, steps=100, trajectories=2, record=2)
    assert found.batch is None
    assert np.isfinite(found.trace).all()


def test_without_scikit_learn(monkeypatch):
    load = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(QuasistaticError, match="quasistatic\\[studies\\]"):
        digits.setup()


def test_bad_sizes():
    with pytest.raises(HyperparameterError, match="samples = 0"):
        digits.setup(samples=0)


def test_no_zero_of_the_residuals():
    """Two contradictory images."""
    problem = zoo.mlp(2, 3, 1, [[1.0, 0.0], [1.0, 0.0]], [1.0, -1.0], noise=qs.LabelNoise(0))
    with pytest.raises(ProblemError, match="no zero of the residuals near the start: the largest residual is still 1"):
        fit(problem.functions, problem.functions.initial())
