"""Sparse regression and matrix sensing, scaled down; the full ensembles are slow tests."""

import numpy as np
import pytest

import quasistatic as qs
from quasistatic.errors import HyperparameterError
from quasistatic.studies import sensing, sparse_regression
from quasistatic.studies.sparse_regression import instance, weighted_l1


def test_the_linear_programme():
    """Feasible, and optimal by duality: |X^T dual| <= m with equality where w is not zero."""
    X, truth = instance(8, 3)
    y = X @ truth
    w, m = weighted_l1(X, y), np.mean(X**2, axis=0)
    np.testing.assert_allclose(X @ w, y, atol=1e-9)
    active = np.abs(w) > 1e-9
    dual = np.linalg.lstsq(X[:, active].T, m[active] * np.sign(w[active]), rcond=None)[0]
    np.testing.assert_allclose((X.T @ dual)[active], (m * np.sign(w))[active], atol=1e-8)
    assert np.all(np.abs(X.T @ dual) <= m * (1 + 1e-8))
    assert np.sum(m * np.abs(w)) <= np.sum(m * np.abs(truth)) + 1e-9


def test_sgd_tracks_the_linear_programme():
    found = sparse_regression.recover(trials=6, optimizers=("SGD",))
    assert np.median(found.distance["SGD"]) < 0.3 * found.mean("linear programme")[0]
    # where the programme recovers the truth, so does SGD
    exact = found.errors["linear programme"] < 1e-6
    assert exact.any()
    assert found.errors["SGD"][exact].max() < 0.1


@pytest.mark.slow
def test_adam_recovers_more_than_sgd():
    """Page, 24 trials of its own: linear programme 1.180(114), SGD 1.125(99), Adam .794(79), paired difference .332(94)."""
    found = sparse_regression.recover(trials=48, threads=2)
    page = {"linear programme": (1.180, 0.114), "SGD": (1.125, 0.099), "Adam": (0.794, 0.079)}
    for name, (value, error) in page.items():
        mean, own = found.mean(name)
        assert abs(mean - value) < 5 * np.hypot(own, error)
    difference, error = found.paired("SGD", "Adam")
    assert difference > 2 * error
    assert abs(difference - 0.332) < 5 * np.hypot(error, 0.094)


def test_sensing_on_rank_one():
    found = sensing.recover("rank 1", trials=4)
    assert found.mean("Adam")[0] < 0.1
    assert found.truth == "rank 1"


def test_the_regularizers_are_the_derived_ones():
    """SGD's is -(alpha eta/2) log det(1 - eta H/2), alpha eta^2/4 tr H and more; Adam's goes with tr Diag(H)^(1/2)."""
    operators, left, right = sensing.instance("flat", 15, 0)
    functions = qs.zoo.matrix_sensing(operators, np.zeros(15), 5).functions
    points = [functions.pack(U=c * left, W=right / c) for c in (1.0, 2.0)]
    found = [sensing.regularizers(functions, z, 0.5) for z in points]
    hessians = [J.T @ J / 15 for J in (functions.jacobian(z) for z in points)]
    eta = sensing.TRAININGS["SGD"].eta
    assert found[0][0] == pytest.approx(-(0.25 * eta / 2) * np.linalg.slogdet(np.eye(50) - eta / 2 * hessians[0])[1], rel=1e-9)
    # epsilon = 1e-3 beside sqrt(v) of order 1; the constant factor depends on where the rule's constants are put in S
    roots = [np.sqrt(np.diag(H)).sum() for H in hessians]
    assert found[1][1] / found[0][1] == pytest.approx(roots[1] / roots[0], rel=0.01)


@pytest.mark.slow
def test_sensing_as_on_the_page():
    """Page: flat spectrum SGD .878(15), Adam 1.004(31), paired +.126(28); rank 1 SGD .081(15), Adam .015(1)."""
    flat = sensing.recover("flat", threads=2)
    difference, error = flat.paired()
    assert difference > 2 * error
    assert abs(difference - 0.126) < 5 * np.hypot(error, 0.028)
    assert np.mean(flat.trace["SGD"] - flat.trace["Adam"]) < 0
    assert np.mean(flat.root_trace["Adam"] - flat.root_trace["SGD"]) < 0
    low = sensing.recover("rank 1", threads=2)
    assert low.paired()[0] < -2 * low.paired()[1]


def test_unknown_truth():
    with pytest.raises(HyperparameterError, match="neither"):
        sensing.recover("rank 2", trials=1)
