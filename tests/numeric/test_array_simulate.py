"""The simulation of large problems against a transcription in NumPy, the small-problem simulator, and bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
from lane_reference import normals, words

import quasistatic as qs
from quasistatic import zoo
from quasistatic.errors import HyperparameterError, ProblemError, QuasistaticError, SimulationDiverged, StartError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise
from quasistatic.numeric.array_noise import plan
from quasistatic.numeric.array_simulate import ArraySimulator, simulate_array

rng = np.random.default_rng(8)
X, y = rng.normal(size=(6, 3)), rng.normal(size=6)
TARGET = rng.normal(size=(3, 4))
sigma, tau = qs.symbols("sigma tau", positive=True)


@qs.optimizer(slow_states=["v"], initial_state={"v": "1/100"})
def adam(z, g, m, v, *, eta, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * m / (qs.sqrt(v) + eps), m, v


@qs.optimizer
def means(z, g, m, *, eta, rho=0.37, t):
    m = rho * m + g - qs.block_mean(g * qs.mean(z)) + (1 - rho**t) * qs.mean(qs.abs(g))
    return z - eta * m, m


def plain(problem):
    """The same problem without its compiled form: what a user brings."""
    f = problem.functions
    names = ("size", "count", "shapes", "residuals", "jacobian", "jvp", "vjp", "hvp")
    return ArrayProblem(SimpleNamespace(**{n: getattr(f, n) for n in names}), problem.noise, problem.scale, problem.blocks, "plain")


def with_noise(problem, noise, blocks=()):
    return ArrayProblem(problem.functions, noise, problem.scale, blocks, problem.name)


# -- the numbers -------------------------------------------------------------------------------------------------------


def adam_step(z, g, m, v, k):
    m = 0.9 * m + 0.1 * g
    v = 0.99 * v + 0.01 * g**2
    return z - 1e-3 * m / (np.sqrt(v) + 1e-3), m, v


def means_step(z, g, m, k):
    q, blocks = g * z.mean(), np.arange(len(z)) < 5
    averages = np.where(blocks, q[blocks].mean(), q[~blocks].mean())
    m = 0.37 * m + g - averages + (1 - 0.37**k) * np.abs(g).mean()
    return z - 1e-3 * m, m


RULES = {
    "sgd": (zoo.sgd, {"eta": 1e-3}, lambda z, g, k: (z - 1e-3 * g,), []),
    "adam": (adam, {"eta": 1e-3, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3}, adam_step, [0, 0.01]),
    "means": (means, {"eta": 1e-3}, means_step, [0]),
}
MODELS = {
    "factorization": zoo.matrix_factorization(3, 4, 3, TARGET),
    "sensing": zoo.matrix_sensing(rng.normal(size=(6, 2, 3)), y, 2),
    "squares": zoo.diagonal_network(X, y),
    "mlp": zoo.mlp(3, 4, 1, X, y),
    "deep": zoo.deep_linear((3, 4, 3, 2), X, rng.normal(size=(6, 2))),
}


PAIRS = [("sgd", "factorization"), ("sgd", "sensing"), ("adam", "squares"), ("means", "mlp"), ("sgd", "deep")]


@pytest.mark.parametrize(("rule", "model"), PAIRS)
@pytest.mark.parametrize("compiled", [True, False])
def test_step_by_step_with_full_batch_label_noise(rule, model, compiled):
    """z(t) from the residuals, their Jacobian and the reference stream of normals."""
    traced, values, update, memories = RULES[rule]
    base = MODELS[model]
    d, n, f = base.functions.size, base.functions.count, base.functions
    problem = with_noise(base, LabelNoise(sigma), (range(5), range(5, d)))
    start = np.random.default_rng(1).normal(size=d)
    runs = simulate_array(
        traced, problem if compiled else plain(problem), start, 7, trajectories=3, seed=11, record=8, keep=True, sigma=0.3, **values
    )
    for t in range(3):
        xi = normals(11, t, 7 * n).reshape(7, n)
        z, states = start, [np.full(d, float(m)) for m in memories]
        for k in range(7):
            g = 2 * base.scale * f.jacobian(z).T @ (f.residuals(z) + 0.3 * xi[k])
            z, *states = update(z, g, *states, k + 1)
            np.testing.assert_allclose(runs.records[k + 1, t], z, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(runs.final_states[t], [z, *states], rtol=1e-10, atol=1e-11)


def rows_and_normals(seed, t, steps, b, n, r):
    """Rows and normals of every step, from the generator's words: b words for rows, then pairs; a spare half is kept."""
    stream = words(seed, t, 4 * steps * (b + r + 1))
    at, spare, found = 0, None, []
    for _ in range(steps):
        rows = [((w >> 32) * n) >> 32 for w in stream[at : at + b]]
        at += b
        xi = [] if spare is None else [spare]
        spare = None
        while len(xi) < r:
            p, q = stream[at], stream[at + 1]
            at += 2
            size, angle = np.sqrt(-2 * np.log(1 - (p >> 12) / 2**52)), ((q >> 12) / 2**52 - 0.5) * np.pi / 2
            s, c = np.sin(angle), np.cos(angle) * (-1 if q & 1 else 1)
            xi += [size * s, size * c] if q & 2 else [size * c, size * s]
        if len(xi) > r:
            spare = xi.pop()
        found.append((rows, np.array(xi)))
    return found


@pytest.mark.parametrize("batch", [1, 3, 6])
@pytest.mark.parametrize("strength", [0.0, 0.3])
@pytest.mark.parametrize("compiled", [True, False])
def test_minibatches(batch, strength, compiled):
    base = MODELS["mlp"]
    f, n, d = base.functions, 6, base.functions.size
    problem = with_noise(base, LabelNoise(sigma, batch=batch))
    start = f.initial(2)
    runs = simulate_array(
        zoo.sgd, problem if compiled else plain(problem), start, 9, trajectories=2, seed=3, record=10, keep=True, eta=0.02, sigma=strength
    )
    for t in range(2):
        z = start
        for k, (rows, xi) in enumerate(rows_and_normals(3, t, 9, batch, n, batch if strength else 0)):
            pull = np.zeros(n)
            np.add.at(pull, rows, f.residuals(z)[rows] + (strength * xi if strength else 0))
            z = z - 0.02 * (2 * base.scale * n / batch) * f.jacobian(z).T @ pull
            np.testing.assert_allclose(runs.records[k + 1, t], z, rtol=1e-10, atol=1e-12)
    assert d == 20


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("which", ["hessian", "everywhere", "normal", "tangent", "label and tangent"])
def test_idealised_noise(which, compiled):
    base = MODELS["factorization"]
    f, d, n = base.functions, base.functions.size, base.functions.count
    noise = {
        "hessian": HessianNoise(sigma), "everywhere": IsotropicNoise(sigma), "normal": IsotropicNoise(sigma, normal_only=True),
        "tangent": IsotropicNoise(sigma, tangent_only=True),
        "label and tangent": LabelNoise("1/2") + IsotropicNoise(sigma, tangent_only=True),
    }[which]  # fmt: skip
    problem = with_noise(base, noise)
    start = f.initial(0) + 0.1
    runs = simulate_array(
        zoo.sgd, problem if compiled else plain(problem), start, 3, trajectories=1, seed=5, record=4, keep=True, eta=0.01, sigma=0.7
    )
    lengths = {"hessian": n, "everywhere": d, "normal": n, "tangent": d, "label and tangent": n + d}
    xi, z = normals(5, 0, 3 * lengths[which]).reshape(3, -1), start
    for k in range(3):
        J, x = f.jacobian(z), xi[k]
        P = J.T @ np.linalg.solve(J @ J.T, J)
        g = 2 * J.T @ f.residuals(z)
        if which == "hessian":
            g = g + np.sqrt(2 * 0.7) * J.T @ x
        elif which == "everywhere":
            g = g + 0.7 * x
        elif which == "normal":
            g = g + 0.7 * J.T @ np.linalg.solve(np.linalg.cholesky(J @ J.T).T, x)
        else:
            g = g + (J.T @ x[:n] if which == "label and tangent" else 0) + 0.7 * (x[-d:] - P @ x[-d:])
        z = z - 0.01 * g
        np.testing.assert_allclose(runs.records[k + 1, 0], z, rtol=1e-9, atol=1e-11)


def test_covariance_of_normal_and_tangent_noise():
    """The factor of the normal noise squares to the projector: J^T L^{-T} (its transpose) = J^T (J J^T)^{-1} J."""
    J = MODELS["factorization"].functions.jacobian(rng.normal(size=21))
    C = J.T @ np.linalg.inv(np.linalg.cholesky(J @ J.T)).T
    np.testing.assert_allclose(C @ C.T, J.T @ np.linalg.solve(J @ J.T, J), atol=1e-12)


def test_the_same_numbers_as_the_simulator_of_small_problems():
    """uv = 1 by symbols and by arrays: same stream, same iterates."""
    u, v = qs.symbols("u v")
    small = qs.Problem.from_residuals([u * v - 1], {v: 1 / u}, LabelNoise(sigma), scale=1, parameters=(u, v))
    large = zoo.matrix_factorization(1, 1, 1, [[1.0]])
    values = {"eta": 0.01, "mu": 0.9, "sigma": 0.4}
    one = qs.simulate(zoo.nesterov, small, start={u: 2, v: 0.5}, steps=500, trajectories=5, seed=9, record=6, **values)
    two = qs.simulate(
        zoo.nesterov, large, start={"U": [[2.0]], "W": [[0.5]]}, steps=500, trajectories=5, seed=9, record=6, keep=True, **values
    )
    np.testing.assert_allclose(two.final, one.final, rtol=1e-9)
    np.testing.assert_allclose(two.mean, one.mean, rtol=1e-9)
    np.testing.assert_allclose(two.covariance(3), one.covariance[3], rtol=1e-7, atol=1e-14)


def test_numbers_depend_on_seed_and_trajectory_only():
    problem = with_noise(MODELS["mlp"], LabelNoise("1/5", batch=2))
    z = problem.functions.initial(0)
    many = simulate_array(zoo.sgd, problem, z, 301, trajectories=5, seed=2, record=7, threads=2, eta=0.1)
    few = simulate_array(zoo.sgd, problem, z, 301, trajectories=2, seed=2, record=1, eta=0.1)
    np.testing.assert_array_equal(many.final[:2], few.final)
    assert not np.allclose(many.final[0], many.final[1])
    other = simulate_array(zoo.sgd, problem, z, 301, trajectories=2, seed=3, record=1, eta=0.1)
    assert not np.allclose(few.final, other.final)
    simulator = ArraySimulator(zoo.sgd, problem, {"eta": 0.1}, seed=2, trajectories=1)
    simulator.states[:] = z
    for steps in (1, 2, 98, 200):
        simulator.advance(steps)
    np.testing.assert_array_equal(simulator.points[0], few.final[0])


def test_observables_starts_of_their_own_parts_and_files(tmp_path):
    problem = MODELS["factorization"]
    starts = np.stack([problem.functions.initial(s) for s in range(3)])
    runs = qs.simulate(
        zoo.sgd, problem, starts, 10, trajectories=3, record=3, keep=True, observe={"size": lambda z: z @ z}, eta=1e-3, sigma=0.1
    )
    np.testing.assert_allclose(runs.observed["size"], np.sum(runs.records**2, axis=2), rtol=1e-12)
    np.testing.assert_allclose(runs.records[0], starts)
    np.testing.assert_array_equal(runs.part("W"), runs.final[:, 9:].reshape(3, 4, 3))
    np.testing.assert_array_equal(runs.part("U", runs.mean), runs.mean[:, :9].reshape(3, 3, 3))
    np.testing.assert_allclose(runs.covariance(), np.cov(runs.final.T))
    runs.save(tmp_path / "runs.json")
    copy = qs.load(tmp_path / "runs.json")
    np.testing.assert_array_equal(copy.records, runs.records)
    np.testing.assert_array_equal(copy.observed["size"], runs.observed["size"])
    np.testing.assert_array_equal(copy.part("W"), runs.part("W"))
    assert "21 parameters (U, W) to step 10" in repr(runs)
    assert "size" in str(runs)
    with pytest.raises(QuasistaticError, match="V is not an array"):
        runs.part("V")
    short = qs.simulate(zoo.sgd, problem, starts[0], 10, trajectories=3, record=3, eta=1e-3, sigma=0.1)
    with pytest.raises(QuasistaticError, match="keep=True"):
        short.covariance(0)
    assert short.records is None


def test_initial_states():
    problem = MODELS["mlp"]
    values = {"eta": 0.0, "beta1": 0.9, "beta2": 1 - 1e-12, "eps": 0.1, "sigma": 0.1}
    given = np.arange(20.0)
    runs = qs.simulate(adam, problem, problem.functions.initial(), 1, trajectories=1, initial_state={"v": given, "m": 2}, **values)
    np.testing.assert_allclose(runs.final_states[0, 2], given, atol=1e-9)
    assert np.all(np.abs(runs.final_states[0, 1] - 1.8) < 0.2)
    with pytest.raises(StartError, match="no state 'w'"):
        qs.simulate(adam, problem, problem.functions.initial(), 1, initial_state={"w": 1}, **values)
    with pytest.raises(StartError, match="neither a number nor an array"):
        qs.simulate(adam, problem, problem.functions.initial(), 1, initial_state={"v": [1, 2]}, **values)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_is_found_at_its_step(compiled):
    problem = with_noise(MODELS["factorization"], LabelNoise("1/10"))
    z = problem.functions.initial(0)
    with pytest.raises(SimulationDiverged, match=r"Take a smaller eta \(here 5\)") as caught:
        simulate_array(zoo.sgd, problem if compiled else plain(problem), z, 1000, trajectories=2, record=1001, eta=5.0)
    bad = caught.value.step
    assert caught.value.runs.steps[-1] == bad - 1
    assert np.isfinite(caught.value.runs.final).all()
    simulator = ArraySimulator(zoo.sgd, problem, {"eta": 5.0}, trajectories=2)
    simulator.states[:] = z
    simulator._run(bad - 1)
    assert np.isfinite(simulator.states).all()
    simulator._run(bad)
    assert not np.isfinite(simulator.states).all()


def test_interrupted_runs_keep_their_records():
    problem = MODELS["mlp"]
    calls = []

    def stop(done, total):
        calls.append(done)
        if done >= 30:
            raise KeyboardInterrupt

    runs = simulate_array(zoo.sgd, problem, problem.functions.initial(), 100, trajectories=2, record=11, progress=stop, eta=0.01, sigma=0.1)
    assert runs.interrupted
    assert runs.steps.tolist() == [0, 10, 20, 30]
    assert calls[-1] == 30


def broken(**changes):
    f = MODELS["mlp"].functions
    names = ("size", "count", "shapes", "residuals", "jacobian", "jvp", "vjp", "hvp")
    return ArrayProblem(SimpleNamespace(**{**{n: getattr(f, n) for n in names}, **changes}), LabelNoise(sigma), 0.1)


Z = MODELS["mlp"].functions.initial()
BAD = [
    (lambda: run(with_noise(MODELS["mlp"], LabelNoise(sigma, batch=7))), ProblemError, "the batch is larger than the data, 6 residuals"),
    (lambda: run(with_noise(MODELS["mlp"], None)), ProblemError, "no noise"),
    (lambda: run(with_noise(MODELS["mlp"], CovarianceNoise(np.eye(2)))), ProblemError, "CovarianceNoise cannot be drawn"),
    (lambda: run(with_noise(MODELS["mlp"], LabelNoise(1, batch=2) + HessianNoise(sigma))), ProblemError, "needs all residuals"),
    (lambda: run(with_noise(MODELS["mlp"], LabelNoise(1, batch=2) + LabelNoise(sigma))), ProblemError, "different batches"),
    (lambda: run(MODELS["mlp"], Z[:-1]), StartError, r"shape \(19,\); the problem needs \(20,\)"),
    (lambda: run(MODELS["mlp"], {"W1": Z[:12].reshape(4, 3), "b1": Z[12:16]}), StartError, "no array for W2"),
    (lambda: run(MODELS["mlp"], {"W1": 0, "b1": 0, "W2": 0, "W4": 0}), StartError, "W4 is not an array"),
    (lambda: run(MODELS["mlp"], {"W1": "a", "b1": 0, "W2": 0}), StartError, "not an array of numbers"),
    (lambda: run(MODELS["mlp"], Z * np.nan), StartError, "not finite"),
    (lambda: run(MODELS["mlp"], np.stack([Z, Z, Z])), StartError, "3 points for 2 trajectories"),
    (lambda: run(MODELS["mlp"], sigma=-1), HyperparameterError, "negative"),
    (lambda: simulate_array(zoo.sgd, MODELS["mlp"], Z, 5, eta=0.1), HyperparameterError, "no value for sigma"),
    (lambda: run(MODELS["mlp"], etta=1), HyperparameterError, "Did you mean 'eta'"),
    (lambda: run(MODELS["mlp"], observe=[1]), QuasistaticError, "observe is a mapping"),
    (lambda: run(with_noise(MODELS["mlp"], LabelNoise(sigma), ([0, 1], [1, 2]))), ProblemError, "not a partition"),
    (lambda: run(broken(residuals=lambda z: np.zeros(5))), ProblemError, r"residuals returned the shape \(5,\); it must be \(6,\)"),
    (lambda: run(broken(residuals=lambda z: "no")), ProblemError, "residuals returned 'no'"),
    (lambda: run(broken(vjp=lambda z, c: z * np.nan)), ProblemError, "vjp returned NaN"),
    (lambda: run(broken(vjp=lambda z, c: z[None])), ProblemError, r"vjp returned the shape \(1, 20\)"),
]


def run(problem, start=Z, **options):
    return simulate_array(zoo.sgd, problem, start, 5, trajectories=2, **{"eta": 0.1, "sigma": 0.1, **options})


@pytest.mark.parametrize(("attempt", "kind", "message"), BAD, ids=[m for *_, m in BAD])
def test_bad_input(attempt, kind, message):
    with pytest.raises(kind, match=message):
        attempt()


def test_a_name_that_the_rule_and_the_noise_share():
    problem = with_noise(MODELS["mlp"], LabelNoise(qs.symbols("eta", positive=True)))
    with pytest.raises(HyperparameterError, match="the name eta is a hyperparameter"):
        run(problem)


def test_cost_of_a_minibatch_is_its_own():
    """Rows and working memory of a step grow with the batch, not with the data."""
    for b in (1, 4):
        draws = plan(with_noise(MODELS["mlp"], LabelNoise(1, batch=b)), {})
        assert (draws.rows, draws.normals) == (b, b)
    assert plan(with_noise(MODELS["mlp"], LabelNoise(0, batch=2)), {}).normals == 0
