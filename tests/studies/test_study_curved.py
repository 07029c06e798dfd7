"""Label noise along curved manifolds: the page's ambient ODE in 6-D, and the two-layer linear network."""

import numpy as np
import pytest

from quasistatic.errors import HyperparameterError
from quasistatic.studies.curved_manifold import POWERS, curved_problem, gap, preconditioner, slow_ode
from quasistatic.studies.least_squares import project
from quasistatic.studies.linear_network import active_units, adam_growth, network, rank_one, sgd_trace, trace


@pytest.mark.parametrize("optimizer", POWERS)
def test_the_error_of_the_slow_ode_is_of_order_eta(optimizer):
    """Page 5(c0): error at .005 over error at .01 in [.45, .75]; twice the drift is rejected."""
    coarse, fine = (gap(optimizer, eta, trajectories=300) for eta in (0.01, 0.005))
    ratio = fine.value / coarse.value
    error = ratio * np.hypot(fine.error / fine.value, coarse.error / coarse.value)
    assert 0.45 - 2 * error < ratio < 0.75 + 2 * error
    assert coarse.value < 0.06
    assert fine.wrong > 5 * coarse.value
    assert fine.wrong > 30 * fine.error


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", POWERS)
def test_the_error_of_the_slow_ode_with_small_standard_errors(optimizer):
    coarse, fine = (gap(optimizer, eta, trajectories=2000, threads=2) for eta in (0.01, 0.005))
    assert 0.45 < fine.value / coarse.value < 0.75


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_slow_ode_stays_on_the_minima_and_descends(power):
    """On the minima; with v at rest tr H (SGD) or sum sqrt(H_ii) (Adam, eps = 0) can only fall; here v moves, so SGD only."""
    functions, z = curved_problem()
    end, v = slow_ode(functions, z, np.full(6, 3.0), power, 0.1)
    assert np.abs(functions.residuals(end)).max() < 1e-10
    assert preconditioner(power, v).shape == (6,)
    if power == 0:
        assert np.sum(functions.jacobian(end) ** 2) < np.sum(functions.jacobian(z) ** 2)


def test_unknown_optimizer():
    with pytest.raises(HyperparameterError, match="not one of SGD"):
        gap("Lion", 0.01)


@pytest.mark.parametrize("start", ["uniform", "generic"])
def test_sgd_ends_at_the_least_trace(start):
    """2 sqrt(d) |A| = 16; page 15.995 to 15.997 on raw iterates. On the minima it cannot be less, fluctuation adds a little."""
    found = sgd_trace(start)
    assert 16 <= found.mean() < 16.05


def test_formulas_of_the_linear_network():
    _, f = network()
    z = project(f, f.initial(3), 10)
    a = f.unpack(z)
    np.testing.assert_allclose(a["W2"] @ a["W1"], np.ones((1, 8)), atol=1e-10)
    assert trace(f, z) == pytest.approx(8 * np.sum(a["W2"] ** 2) + np.sum(a["W1"] ** 2))
    for ratio in (np.sqrt(8), 8):
        one = rank_one(f, np.arange(1.0, 9.0), ratio)
        assert np.abs(f.residuals(one)).max() < 1e-12
        assert np.linalg.norm(f.unpack(one)["W1"][0]) == pytest.approx(ratio * f.unpack(one)["W2"][0, 0])
    assert trace(f, rank_one(f, np.arange(1.0, 9.0), np.sqrt(8))) == pytest.approx(16)
    assert active_units(f, rank_one(f, np.ones(8))) == pytest.approx(8)
    assert active_units(f, rank_one(f, np.eye(8)[2])) == pytest.approx(1)


def test_adam_leaves_the_uniform_point_at_the_predicted_rate():
    """Extrapolated to eta = 0 from two learning rates: 4; page 3.587(22) at .002, 3.796(17) at .001."""
    coarse, fine = adam_growth(2e-3, time=0.4), adam_growth(1e-3, time=0.4)
    assert abs(coarse.rate - 3.587) < 5 * np.hypot(coarse.error, 0.022)
    assert abs(fine.rate - 3.796) < 5 * np.hypot(fine.error, 0.017)
    limit = 2 * fine.rate - coarse.rate
    assert coarse.predicted == pytest.approx(4)
    # the extrapolation is linear, the next order is of the size of (4 - 3.78)^2/4
    assert abs(limit - 4) < 5 * np.hypot(2 * fine.error, coarse.error) + 0.02
