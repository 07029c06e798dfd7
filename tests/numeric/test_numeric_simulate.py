"""The simulation against a transcription of the rules in NumPy, and everything that must not change its numbers."""

import pickle
import signal
import threading

import numpy as np
import pytest
import sympy as sp
from lane_reference import normals

import quasistatic.zoo as zoo
from quasistatic.errors import HyperparameterError, ProblemError, QuasistaticError, RuleError, SimulationDiverged, StartError
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.trace import optimizer
from quasistatic.numeric import lanes
from quasistatic.numeric.arguments import resolve
from quasistatic.numeric.ensemble import record_steps
from quasistatic.numeric.kernel import LANES
from quasistatic.numeric.simulate import Simulator, simulate
from quasistatic.symbols import absolute, block_mean, clip, function, maximum, mean, minimum, sign, sqrt, symbols

x, y, u, v = symbols("x y u v")
ALPHA = 1.125


def valley_gradient(z, n):
    """Gradient of (1+x^2) y^2 with noise of covariance alpha times the Hessian at (x, 0); z (2, N), n (1, N)."""
    h = 1 + z[0] ** 2
    return np.array([2 * z[0] * z[1] ** 2, 2 * h * z[1] + np.sqrt(2 * ALPHA * h) * n[0]])


def heavy_ball(z, g, b, k):
    b = 0.9 * b + (1 - 0.25) * g
    return z - 1e-3 * b, b


def nesterov(z, g, b, k):
    b = 0.9 * b + g
    return z - 1e-3 * (g + 0.9 * b), b


def qhm(z, g, d, k):
    d = 0.8 * d + 0.2 * g
    return z - 1e-2 * (0.3 * g + 0.7 * d), d


def aggmo(z, g, a, b, c, k):
    a, b, c = 0 * a + g, 0.9 * b + g, 0.99 * c + g
    return z - 1e-3 * (a + b + c) / 3, a, b, c


CASES = [
    (zoo.heavy_ball.free("tau"), heavy_ball, {"eta": 1e-3, "mu": 0.9, "tau": 0.25}),
    (zoo.heavy_ball.fix(tau="1/4", mu="9/10"), heavy_ball, {"eta": 1e-3}),
    (zoo.nesterov, nesterov, {"eta": 1e-3, "mu": 0.9}),
    (zoo.qhm, qhm, {"eta": 1e-2, "beta": 0.8, "nu": 0.7}),
    (zoo.aggmo, aggmo, {"eta": 1e-3}),
]


def transcribe(update, gradient, z0, memories, steps, seed, trajectories, rank):
    """The same iterations in NumPy, with the same normals; (trajectories, n) after every step."""
    n = np.array([normals(seed, t, steps * rank) for t in range(trajectories)]).T.reshape(steps, rank, trajectories)
    z = np.repeat(np.array(z0, dtype=float)[:, None], trajectories, axis=1)
    states = [np.zeros_like(z) for _ in range(memories)]
    for k in range(steps):
        z, *states = update(z, gradient(z, n[k]), *states, k + 1)
        yield np.concatenate([z, *states]).T


@pytest.mark.parametrize(("rule", "update", "values"), CASES, ids=lambda c: getattr(c, "name", ""))
def test_step_by_step(rule, update, values):
    simulator = Simulator(rule, zoo.valley(), {**values, "alpha": ALPHA}, seed=11, trajectories=40)
    memories = len(rule.trace.states)
    simulator.set_state([1.0, 0.5] + [0.0] * (2 * memories))
    assert simulator.noise_rank == 1
    for expected in transcribe(update, valley_gradient, [1.0, 0.5], memories, 30, 11, 40, 1):
        simulator.advance(1)
        np.testing.assert_allclose(simulator.states, expected, rtol=1e-9, atol=1e-10)


def isotropic_gradient(z, n):
    return np.array([2 * z[0] * z[1] ** 2, 2 * (1 + z[0] ** 2) * z[1]]) + 0.3 * n[::-1]


def test_even_rank():
    problem = zoo.valley(noise=IsotropicNoise(sp.Rational(3, 10)))
    simulator = Simulator(zoo.sgd, problem, {"eta": 0.01}, seed=5, trajectories=3)
    simulator.set_state([1.0, 0.5])
    assert simulator.noise_rank == 2
    # the factor takes the parameters named in minima first, so that y has the first normal
    for expected in transcribe(lambda z, g, k: (z - 0.01 * g,), isotropic_gradient, [1.0, 0.5], 0, 20, 5, 3, 2):
        simulator.advance(1)
        np.testing.assert_allclose(simulator.states, expected, rtol=1e-9, atol=1e-10)


def test_odd_rank_of_three_with_correlations():
    w, z = symbols("w z")
    S = sp.Matrix([[2, sp.Rational(1, 2), 0], [sp.Rational(1, 2), 1, sp.Rational(1, 5)], [0, sp.Rational(1, 5), 1 + w**2]])
    problem = Problem((x**2 + y**2 + z**2) / 2, {x: 0, y: 0, z: 0}, CovarianceNoise(sp.diag(S, 0)), parameters=(x, y, z, w))
    simulator = Simulator(zoo.sgd, problem, {"eta": 1.0}, seed=2, trajectories=20_000)
    assert simulator.noise_rank == 3
    simulator.set_state([0.0, 0.0, 0.0, 0.5])
    simulator.advance(2)
    found = np.cov(simulator.states.T)[:3, :3]
    expected = np.array(S.subs(w, 0.5), dtype=float)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / 20_000)
    assert (np.abs(found - expected) < 5 * error).all()


def test_label_noise_is_the_perturbed_gradient():
    s = symbols("s")
    problem = Problem.from_residuals([u * v - 1], {u: s, v: 1 / s}, LabelNoise(sp.Rational(1, 5)), scale=1, coordinates={s: u})

    def gradient(z, n):
        r = z[0] * z[1] - 1 + 0.2 * n[0]
        return np.array([2 * r * z[1], 2 * r * z[0]])

    simulator = Simulator(zoo.sgd, problem, {"eta": 0.05}, seed=1, trajectories=2)
    simulator.set_state([2.0, 0.3])
    for expected in transcribe(lambda z, g, k: (z - 0.05 * g,), gradient, [2.0, 0.3], 0, 20, 1, 2, 1):
        simulator.advance(1)
        np.testing.assert_allclose(simulator.states, expected, rtol=1e-9, atol=1e-10)


@optimizer(initial_state={"v": "1/2"})
def adam_like(z, g, m, v, *, eta, beta1, beta2, eps, t):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


def test_bias_correction_counts_iterations_across_calls():
    values = {"eta": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3}
    runs = simulate(adam_like, zoo.valley(), {x: 1, y: 0.5}, 25, 4, record=26, alpha=ALPHA, **values)

    def update(z, g, m, v, k):
        m, v = 0.9 * m + 0.1 * g, (0.99 * (v + 0.5 * (k == 1))) + 0.01 * g**2
        return z - 0.01 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.99**k)) + 1e-3), m, v

    path = list(transcribe(update, valley_gradient, [1.0, 0.5], 2, 25, 0, 4, 1))
    np.testing.assert_allclose(runs.final_states, path[-1], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(runs.mean[1:], [p[:, :2].mean(axis=0) for p in path], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(runs.covariance[9], np.cov(path[8][:, :2].T), rtol=1e-7, atol=1e-14)


@optimizer
def normalised(z, g, *, eta):
    return z - eta * (g + mean(g * mean(g)) + z * block_mean(g**2))


def test_means_over_all_coordinates_and_over_blocks():
    a, b, c = symbols("a b c")
    loss = (a**2 + 2 * b**2 + 3 * c**2) / 2
    noise = IsotropicNoise(symbols("q", positive=True))
    problem = Problem(loss * (1 + u**2), {a: 0, b: 0, c: 0}, noise, parameters=(a, b, c, u), blocks=[(a, c), (b, u)])
    start = np.array([0.3, -0.2, 0.5, 0.7])
    simulator = Simulator(normalised, problem, {"eta": 0.1, "q": 0}, trajectories=1)
    assert simulator.noise_rank == 0
    simulator.set_state(start)
    simulator.advance(1)
    k = np.array([1.0, 2.0, 3.0])
    g = np.append(k * start[:3] * (1 + 0.49), 2 * 0.7 * (k * start[:3] ** 2).sum() / 2)
    blocks = np.array([g[[0, 2]] ** 2, g[[1, 3]] ** 2]).mean(axis=1)[[0, 1, 0, 1]]
    np.testing.assert_allclose(simulator.states[0], start - 0.1 * (g + g.mean() ** 2 + start * blocks), rtol=1e-13)


@optimizer
def clipped(z, g, m, *, eta, bound):
    g = clip(g, -bound, bound)
    return z - eta * sign(g) * maximum(absolute(g), minimum(z, m)), g


def test_functions_of_a_rule():
    simulator = Simulator(clipped, zoo.valley(), {"eta": 0.1, "bound": 0.25, "alpha": 0}, trajectories=4)
    z, m = np.array([[1.0, 0.0], [0.5, 0.3], [-0.2, -0.1], [3.0, 1e-3]]).T, np.array([[0.1, 0.2, 0.3, 5.0]] * 2)
    simulator.set_state(np.concatenate([z, m]).T)
    for _ in range(5):
        g = np.clip(valley_gradient(z, np.zeros((1, 4))), -0.25, 0.25)
        z, m = z - 0.1 * np.sign(g) * np.maximum(np.abs(g), np.minimum(z, m)), g
        simulator.advance(1)
        np.testing.assert_allclose(simulator.states, np.concatenate([z, m]).T, rtol=1e-12, atol=1e-15)


def test_clipping_does_not_hide_a_nan():
    """0 * inf in the gradient must be found although clip could swallow it."""
    problem = Problem(y**2 * (1 + x**2) ** 60, {y: 0}, HessianNoise(1), parameters=(x, y))
    with pytest.raises(SimulationDiverged):
        simulate(clipped, problem, {x: 1e3, y: 0}, 10, 3, eta=0.1, bound=1)


# -- what must not matter ----------------------------------------------------------------------------------------------

VALUES = {"eta": 1e-2, "mu": 0.9, "alpha": ALPHA}


def final(trajectories=100, threads=1, problem=None, chunks=(301,), seed=4):
    simulator = Simulator(zoo.heavy_ball, problem or zoo.valley(), VALUES, seed, trajectories, threads)
    simulator.set_state(np.tile([1.0, 0.0, 0.0, 0.0], (trajectories, 1)))
    for steps in chunks:
        simulator.advance(steps)
    return simulator.states


def test_threads_and_number_of_trajectories():
    one = final()
    assert np.array_equal(one, final(threads=2))
    assert np.array_equal(one, final(threads=5))
    assert np.array_equal(one[:6], final(6))
    assert np.array_equal(one[:33], final(33))
    assert len(np.unique(one, axis=0)) == 100
    assert not np.array_equal(one, final(seed=5))


@pytest.mark.parametrize("chunks", [(1, 300), (2, 299), (150, 151), (1,) * 301, (0, 7, 0, 294)])
def test_chunks(chunks):
    assert np.array_equal(final(), final(chunks=chunks))


def test_speed_of_the_clock_does_not_matter(monkeypatch):
    expected = final()
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)  # shortest chunks
    assert np.array_equal(expected, final())


def test_numbers_in_the_problem_or_as_arguments():
    literal = simulate(zoo.sgd, zoo.valley(noise=HessianNoise(ALPHA)), {x: 1, y: 0}, 50, 2, eta=0.01)
    argument = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 50, 2, eta=0.01, alpha=ALPHA)
    np.testing.assert_allclose(literal.final, argument.final, rtol=1e-12)


def test_the_kernel_is_vectorised():
    simulator = Simulator(zoo.heavy_ball, zoo.valley(), VALUES)
    (assembly,) = simulator._kernel.inspect_asm().values()
    assert "ymm" in assembly or "zmm" in assembly or "sqrtpd" in assembly or "fsqrt\tv" in assembly


def test_zero_noise():
    for problem in (zoo.valley(), zoo.curved_valley(), zoo.valley(noise=HessianNoise(0))):
        start = dict.fromkeys(problem.parameters, 0.5)
        hyper = {"alpha": 0} if problem.constants else {}
        runs = simulate(zoo.sgd, problem, start, 10, 3, eta=0.01, **hyper)
        assert (runs.final == runs.final[0]).all()


# -- results -----------------------------------------------------------------------------------------------------------


def test_records():
    assert record_steps(100, 5).tolist() == [0, 25, 50, 75, 100]
    assert record_steps(100, 1).tolist() == [100]
    assert record_steps(3, 100).tolist() == [0, 1, 2, 3]
    runs = simulate(zoo.sgd, zoo.valley(), {"x": 1, "y": 0}, 1000, 7, record=5, eta=1e-3, alpha=ALPHA)
    assert runs.steps.tolist() == [0, 250, 500, 750, 1000]
    assert (runs.mean.shape, runs.covariance.shape, runs.final.shape) == ((5, 2), (5, 2, 2), (7, 2))
    assert runs.mean[0].tolist() == [1, 0]
    assert not runs.covariance[0].any()
    np.testing.assert_allclose(runs.mean[-1], runs.final.mean(axis=0))
    np.testing.assert_allclose(runs.covariance[-1], np.cov(runs.final.T))
    last = simulate(zoo.sgd, zoo.valley(), {"x": 1, "y": 0}, 1000, 7, record=1, eta=1e-3, alpha=ALPHA)
    assert last.steps.tolist() == [1000]
    assert np.array_equal(last.final, runs.final)


def test_one_trajectory_has_no_covariance():
    runs = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 10, 1, eta=1e-3, alpha=ALPHA)
    assert not runs.covariance.any()


def test_provenance_and_pickling():
    runs = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 10, 2, seed=9, eta=1e-3, alpha=ALPHA)
    again = pickle.loads(pickle.dumps(runs))
    assert np.array_equal(again.mean, runs.mean)
    assert (again.seed, again.parameters, again.interrupted) == (9, ("x", "y"), False)
    assert again.hyperparameters == {"eta": 1e-3, "alpha": ALPHA}
    assert "def sgd" in again.rule
    assert {"quasistatic", "numpy", "numba", "python"} <= set(again.versions)
    assert "2 trajectories of x, y to step 10" in repr(again)
    assert "eta=0.001" in str(again)
    with pytest.raises(AttributeError):
        runs.seed = 1


def test_progress():
    seen = []
    simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 5000, 2, record=3, progress=lambda *a: seen.append(a), eta=1e-3, alpha=ALPHA)
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 5000
    assert {total for _, total in seen} == {5000}


# -- what goes wrong ---------------------------------------------------------------------------------------------------


PARABOLA = Problem(y**2, {y: 0}, HessianNoise(symbols("alpha", positive=True)), parameters=(x, y))


@pytest.mark.parametrize(("problem", "eta", "record"), [(zoo.valley(), 0.5, 1001), (PARABOLA, 1.2, 31), (PARABOLA, 1.02, 1)])
def test_divergence_is_found_exactly(problem, eta, record):
    values = {"eta": eta, "alpha": ALPHA}
    with pytest.raises(SimulationDiverged, match=rf"after step \d+, \d+ of 50 .*smaller eta \(here {eta}\)") as caught:
        simulate(zoo.sgd, problem, {x: 1, y: 0.1}, 30_000, 50, record=record, threads=2, **values)
    step, runs = caught.value.step, caught.value.runs
    simulator = Simulator(zoo.sgd, problem, values, 0, 50)
    simulator.set_state([1.0, 0.1])
    simulator._run(step - 1)
    assert np.isfinite(simulator.states).all()
    assert np.array_equal(simulator.states[:, :2], runs.final)
    simulator._run(step)
    count = (~np.isfinite(simulator.states).all(axis=1)).sum()
    assert count > 0
    assert f"step {step}, {count} of 50" in str(caught.value)
    assert runs.steps.tolist() == [k for k in record_steps(30_000, record) if k < step]
    assert "50 trajectories" in repr(runs)
    assert "standard deviation" in str(runs)


def test_a_diverged_simulator_stands_at_the_step_before():
    simulator = Simulator(zoo.sgd, zoo.valley(), {"eta": 0.5, "alpha": ALPHA}, 0, 50)
    simulator.set_state([1.0, 0.1])
    with pytest.raises(SimulationDiverged) as caught:
        simulator.advance(1000)
    assert simulator.step == caught.value.step - 1
    assert np.isfinite(simulator.states).all()


def test_ctrl_c_returns_what_is_there(monkeypatch):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", 0.0)  # progress is called after every step

    def stop(done, total):
        if done >= 300:
            raise KeyboardInterrupt

    runs = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 1000, 3, record=11, progress=stop, eta=1e-3, alpha=ALPHA)
    assert runs.interrupted
    assert runs.steps.tolist() == [0, 100, 200, 300]
    whole = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 1000, 3, record=11, eta=1e-3, alpha=ALPHA)
    assert np.array_equal(whole.mean[:4], runs.mean)
    assert "interrupted" in repr(runs)


@pytest.mark.parametrize("threads", [1, 2])
def test_real_ctrl_c(threads):
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 10, 64, eta=1e-3, alpha=ALPHA)  # compile first
    timer.start()
    runs = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0}, 10**10, 64, record=2, threads=threads, eta=1e-3, alpha=ALPHA)
    timer.join()
    assert runs.interrupted
    reached = int(runs.steps[-1])
    assert reached > 0
    simulator = Simulator(zoo.sgd, zoo.valley(), {"eta": 1e-3, "alpha": ALPHA})
    simulator.set_state([1.0, 0.0])
    simulator.advance(reached)
    assert np.array_equal(simulator.states, runs.final)


def run(rule=zoo.sgd, problem=None, start=None, steps=10, **options):
    return simulate(rule, problem or zoo.valley(), start or {x: 1, y: 0}, steps, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1e-3}, r"no value for alpha; add alpha=\.\.\."),
        ({}, "no value for eta, alpha"),
        ({"eta": 1, "alpha": 1, "etta": 1}, "etta is neither .* Did you mean 'eta'"),
        ({"eta": 1, "alpha": 1, "x": 1}, r"x is a parameter of the problem.*start"),
        ({"eta": 1, "alpha": 1, "weight_decay": 0.1}, r"weight_decay is fixed at 0; use sgd\.free\('weight_decay'\)"),
        ({"eta": float("nan"), "alpha": 1}, "eta: nan is not finite"),
        ({"eta": float("inf"), "alpha": 1}, "eta: inf is not finite"),
        ({"eta": -1, "alpha": 1}, "eta = -1 is negative"),
        ({"eta": 1, "alpha": -2}, "alpha = -2 is negative"),
        ({"eta": "fast", "alpha": 1}, "eta: 'fast' is not a number"),
        ({"eta": None, "alpha": 1}, "eta: None is not a number"),
        ({"eta": True, "alpha": 1}, "eta: True is not a number"),
        ({"eta": [1, 2], "alpha": 1}, "not a number"),
        ({"eta": sp.Symbol("s"), "alpha": 1}, "not a real number"),
    ],
)
def test_hyperparameter_errors(options, message):
    with pytest.raises(HyperparameterError, match=message):
        run(**options)


def test_numbers_may_be_exact_or_numpy():
    values = {"eta": "1/1000", "alpha": sp.Rational(9, 8)}
    assert resolve(zoo.sgd, zoo.valley(), values) == {"eta": 1e-3, "alpha": 1.125}
    assert resolve(zoo.sgd, zoo.valley(), {"eta": np.float64(1e-3), "alpha": np.int64(2)}) == {"eta": 1e-3, "alpha": 2.0}


def test_real_constants_may_be_negative():
    problem = zoo.rotated_valley()
    assert resolve(zoo.sgd, problem, {"eta": 1, "alpha": 1, "theta": -0.5})["theta"] == -0.5


def test_a_name_of_both_rule_and_problem():
    problem = zoo.valley(noise=HessianNoise(sp.Symbol("eta", positive=True)))
    with pytest.raises(HyperparameterError, match=r"eta is a hyperparameter of the rule sgd and a symbol of the problem valley"):
        run(problem=problem, eta=1)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({x: 1}, "no value for y"),
        ({x: 1, y: 0, "w": 1}, r"w is not a parameter \(x, y\)"),
        ({"xx": 1, y: 0}, "Did you mean 'x'"),
        ({x: 1, "x": 1, y: 0}, "x is given twice"),
        ({x: float("nan"), y: 0}, "x = nan is not a finite"),
        ({x: "one", y: 0}, "x = 'one' is not a finite"),
        ({x: [1, 2], y: 0}, "not a finite"),
        ({x: sp.Symbol("s"), y: 0}, "not a finite"),
        ([1, 0], "start is a mapping"),
    ],
)
def test_start_errors(start, message):
    with pytest.raises(StartError, match=message):
        run(start=start, eta=1e-3, alpha=1)


@pytest.mark.parametrize("name", ["steps", "trajectories", "record", "threads", "seed"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 10.0, "3", None, True])
def test_whole_numbers(name, value):
    if name == "seed" and value == 0 and value is not True:
        return
    with pytest.raises(QuasistaticError, match=rf"{name} = .*(whole number|at least)"):
        run(eta=1e-3, alpha=1, **{name: value})


def test_seeds():
    with pytest.raises(QuasistaticError, match="seed"):
        run(eta=1e-3, alpha=1, seed=2**64)
    assert run(eta=1e-3, alpha=1, seed=np.int64(3)).seed == 3


def test_open_function_and_missing_noise():
    with pytest.raises(ProblemError, match=r"h is still open: substitute it with problem\.subs\(\{h: lambda x"):
        run(problem=zoo.valley(function("h", positive=True)), eta=1e-3, alpha=1)
    with pytest.raises(ProblemError, match="no noise"):
        run(problem=Problem(y**2, {y: 0}, parameters=(x, y)), eta=1e-3)


def test_more_than_one_gradient_is_not_supported_yet():
    from dataclasses import replace

    query = zoo.sgd.trace.queries[0]
    two = replace(zoo.sgd, trace=replace(zoo.sgd.trace, queries=(query, replace(query, name="g2"))))
    with pytest.raises(RuleError, match="not supported yet"):
        run(rule=two, eta=1e-3, alpha=1)


def test_states_of_a_wrong_shape():
    simulator = Simulator(zoo.sgd, zoo.valley(), {"eta": 1e-3, "alpha": 1}, trajectories=LANES + 1)
    with pytest.raises(StartError, match="shape"):
        simulator.set_state(np.zeros((3, 2)))
    with pytest.raises(StartError, match="finite"):
        simulator.set_state([np.nan, 0])
