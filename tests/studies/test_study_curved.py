"""Label noise along curved manifolds: the derived flow in 6-D against the simulation, and the two-layer linear network."""

import numpy as np
import pytest

from quasistatic.errors import HyperparameterError
from quasistatic.studies.curved_manifold import POWERS, curved_problem, derived_end, gap, preconditioner, slow_ode
from quasistatic.studies.least_squares import project
from quasistatic.studies.linear_network import active_units, adam_growth, adam_units, derived_flow, network, rank_one, sgd_trace, trace


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
    # exact in eta, the flow leaves an error of second order
    assert coarse.exact < 0.4 * coarse.value + 3 * coarse.error


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", POWERS)
def test_the_error_of_the_slow_ode_with_small_standard_errors(optimizer):
    coarse, fine = (gap(optimizer, eta, trajectories=2000, threads=2) for eta in (0.01, 0.005))
    assert 0.45 < fine.value / coarse.value < 0.75


@pytest.mark.parametrize("optimizer", POWERS)
def test_the_derived_flow_is_the_written_out_ode(optimizer):
    """Leading order, transient v; also with the drift of alpha/2, which needs v at half its rate for twice as long."""
    power, _ = POWERS[optimizer]
    functions, start = curved_problem()
    for factor in (1, 2):
        z, v = derived_end(optimizer, 0.01, factor=factor)
        expected, slow = slow_ode(functions, start, np.full(6, 3.0), power, 0.3, factor / 4)
        np.testing.assert_allclose(z, expected, atol=3e-6)
        if power:
            np.testing.assert_allclose(v, slow, atol=3e-5)


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


@pytest.mark.parametrize("start", ["uniform", "generic"])
def test_the_derived_flow_of_sgd_ends_at_the_least_trace(start):
    """From both starts of the simulation, and the direction of the readout is free: it stays where rank one found it."""
    problem, f = network(sigma=0.3)
    z = rank_one(f, np.ones(8)) if start == "uniform" else project(f, f.initial(0), 10)
    flow = derived_flow("SGD", problem, 0.02)
    path = flow.trajectory(z, 600_000, record=3)
    found = [flow.hessian_trace(p) for p in path.z]
    assert found[0] > 25
    assert found[-1] == pytest.approx(16, rel=1e-6)
    a, b = (f.unpack(p)["W2"][0] for p in path.z[-2:])
    np.testing.assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-3)
    if start == "uniform":
        np.testing.assert_allclose(b / np.linalg.norm(b), np.full(8, 8**-0.5), atol=1e-6)


def test_adam_leaves_the_uniform_point_at_the_derived_rate():
    """At leading order sqrt(d) h/(2|A|) = 4; exact in eta the derivation has most of what the simulation lacks of it.

    Page: 3.587(22) at eta = .002, 3.796(17) at .001.
    """
    coarse, fine = adam_growth(2e-3, time=0.4), adam_growth(1e-3, time=0.4)
    assert abs(coarse.rate - 3.587) < 5 * np.hypot(coarse.error, 0.022)
    assert abs(fine.rate - 3.796) < 5 * np.hypot(fine.error, 0.017)
    assert coarse.formula == pytest.approx(4)
    assert coarse.leading == pytest.approx(4, rel=1e-3)
    assert fine.leading == pytest.approx(coarse.leading, rel=1e-6)
    for found in (coarse, fine):
        assert found.rate < found.exact < found.leading
        assert found.exact - found.rate < 0.4 * (found.leading - found.rate) + 5 * found.error
    # the extrapolation to eta = 0 is linear, the next order is of the size of (4 - 3.78)^2/4
    limit, error = 2 * fine.rate - coarse.rate, np.hypot(2 * fine.error, coarse.error)
    assert abs(limit - fine.leading) < 5 * error + 0.02
    assert abs(limit - 2 * fine.leading) > 20 * error  # with alpha/2 for alpha/4


def test_adam_goes_to_one_unit_as_the_reduction_says():
    """The flow of all 72 parameters against two numbers per unit, through the deaths of seven units."""
    found = adam_units(7, records=8)
    np.testing.assert_allclose(found.flow, found.reduced, rtol=1e-5)
    assert found.flow[0] > 7
    assert found.flow[-1] == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(found.flow) < 1e-9)


@pytest.mark.slow
def test_adam_goes_to_one_unit_at_the_derived_rate():
    """What is left between simulation and leading order is of order eta; with alpha/2 in place of alpha/4 time runs twice as fast."""
    found = adam_units(1.0, records=9, trajectories=6, threads=2)
    assert np.abs(found.simulated - found.flow).max() < 0.12
    wrong = np.interp(2 * found.time[:5], found.time, found.flow)
    assert np.abs(found.simulated[:5] - wrong).max() > 1
