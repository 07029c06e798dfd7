"""The network on the digits: at zero residual before, driven along the minima after; scaled down from the figure's 80 000 steps."""

import builtins

import numpy as np
import pytest

import quasistatic as qs
from quasistatic import zoo
from quasistatic.errors import HyperparameterError, ProblemError, QuasistaticError
from quasistatic.studies import digits
from quasistatic.studies.digits_figure import experiment
from quasistatic.studies.least_squares import descend, fit, project

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def task():
    return digits.setup(0)


@pytest.fixture(scope="module")
def driven(task):
    return digits.run(task, steps=6000, trajectories=4, record=4)


@pytest.fixture(scope="module")
def small():
    """20 hidden units, 30 images, 1320 weights."""
    return digits.setup(0, samples=30, hidden=20)


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


@pytest.mark.slow
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


def test_the_limit_map_is_that_of_small_gradient_steps():
    """Against gradient descent at two small learning rates, extrapolated to zero."""
    tiny = digits.setup(0, samples=6, hidden=4)
    f = tiny.functions
    point = tiny.start + 0.03 * np.random.default_rng(0).normal(size=f.size)
    rates = np.linalg.eigvalsh(f.jacobian(tiny.start) @ f.jacobian(tiny.start).T)
    ends = []
    for step in (0.25 / rates[-1], 0.125 / rates[-1]):
        z = point.copy()
        for _ in range(round(8 / (step * rates[0]))):
            z -= step * f.vjp(z, f.residuals(z))
        ends.append(project(f, z, 2))
    limit = descend(f, point)
    assert np.abs(f.residuals(limit)).max() < 1e-10
    assert np.linalg.norm(limit - (2 * ends[1] - ends[0])) < 0.05 * np.linalg.norm(limit - project(f, point))


def test_the_start_has_its_limit_at_the_trained_point(small):
    theory = digits.flow(small)
    states = digits.equilibrium(small, theory, 3, seed=0)
    assert states.shape == (3, 1, small.functions.size)
    drawn = theory.equilibrium(small.start, 3, 0)

    def away(points):
        return np.linalg.norm(descend(small.functions, points) - small.start, axis=1)

    assert away(states[:, 0]).mean() < 0.6 * away(drawn[:, 0]).mean()
    np.testing.assert_allclose(states[:, 0], drawn[:, 0], atol=0.2 * np.abs(drawn[:, 0] - small.start).max())


def test_theory_without_a_fitted_constant(small):
    """Extrapolated to weak noise the sampling theory holds; the additive one and the leading order do not, by the same runs."""
    case = experiment(small, rate=1.0, steps=4000, trajectories=16)
    assert case.judge == "sampling"
    for row in case.rows("sampling", "extrapolated"):
        assert row.passed, row
    for theory, off in (("additive", 5), ("leading", 10)):
        drop, displacement, _ = case.rows(theory, "extrapolated")
        assert drop.z > off
        assert displacement.z > off
    # what the theory neglects is proportional to the covariance of the noise: half of it at half the noise
    full, weak = (
        abs(case.rows("sampling", w)[1].simulation / case.theories["sampling"].numbers["displacement"] - 1) for w in ("full", "weak")
    )
    assert weak < 0.75 * full < 0.05
    assert case.full.drop[0] > 0.3 * case.full.trace[0].mean()


def test_heavy_ball_with_the_full_batch_has_no_sampling_theory(small):
    case = experiment(small, 2.0, 0.3, None, 300, 4, weak=False, rule=zoo.heavy_ball, mu=0.9)
    assert list(case.theories) == ["additive", "leading"]
    with pytest.raises(HyperparameterError, match="'sampling' is not one of additive, leading"):
        digits.flow(small, batch=None)
    with pytest.raises(HyperparameterError, match="'exact' is not one of sampling, additive, leading"):
        digits.flow(small, theory="exact")
