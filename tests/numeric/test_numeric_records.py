"""What a simulation records on its way, against trajectories followed step by step."""

import subprocess
import sys

import numpy as np
import pytest

import quasistatic.zoo as zoo
from quasistatic.errors import QuasistaticError, SimulationDiverged, StartError
from quasistatic.model.noise import HessianNoise
from quasistatic.model.problem import Problem
from quasistatic.numeric import lanes, records
from quasistatic.numeric.flow import compile_flow
from quasistatic.numeric.random import normals
from quasistatic.numeric.simulate import Simulator, simulate
from quasistatic.storage import load, save
from quasistatic.symbols import symbols

x, y = symbols("x y")
START = {x: 1, y: 0.1}
VALUES = {"eta": 0.02, "mu": 0.8, "alpha": 1.0}


def paths(steps: int, trajectories: int, values=VALUES, problem=None) -> np.ndarray:
    """Parameters after every step, (steps + 1, N, d), one step at a time."""
    simulator = Simulator(zoo.heavy_ball, problem or zoo.valley(), values, 5, trajectories)
    simulator.set_state([1.0, 0.1, 0.0, 0.0])
    found = [simulator.states[:, :2]]
    for _ in range(steps):
        simulator.advance(1)
        found.append(simulator.states[:, :2])
    return np.array(found)


def run(steps=60, trajectories=40, problem=None, values=VALUES, **options):
    return simulate(zoo.heavy_ball, problem or zoo.valley(), START, steps, trajectories, seed=5, **values, **options)


def test_moments_at_requested_steps(monkeypatch):
    wanted = [0, 1, 7, 8, 40, 59]
    path = paths(60, 40)[wanted]
    runs = run(record=wanted)
    assert runs.steps.tolist() == wanted
    np.testing.assert_allclose(runs.mean, path.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(runs.covariance, [np.cov(p.T) for p in path], rtol=1e-11, atol=1e-16)
    assert runs.counts.tolist() == [40] * 6
    assert runs.kept is None
    monkeypatch.setattr(records, "GATHERED", 1)  # one record at a time
    few = run(record=wanted, threads=2)
    assert np.array_equal(few.mean, runs.mean)
    assert np.array_equal(few.covariance, runs.covariance)


@pytest.mark.parametrize("keep", [3, [39, 0, 33]])
def test_kept_trajectories(keep):
    runs = run(record=list(range(0, 61, 3)), keep=keep)
    chosen = [0, 1, 2] if keep == 3 else keep
    assert runs.kept_trajectories == tuple(chosen)
    assert np.array_equal(runs.kept, paths(60, 40)[::3, chosen])


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_first_passage(seconds, monkeypatch):
    monkeypatch.setattr(lanes, "CHUNK_SECONDS", seconds)
    path = paths(300, 40)
    runs = run(300, first_passage={x: 0.9, "y": "-3/10", x * y**2: 0.02, y: 0.1, y + 5: 100})
    values = {"x": path[:, :, 0] <= 0.9, "y": path[:, :, 1] >= 0.1, "x*y**2": path[:, :, 0] * path[:, :, 1] ** 2 >= 0.02}
    values |= {"y + 5": path[:, :, 1] > 95}
    assert list(runs.first_passage) == ["x", "y", "x*y**2", "y + 5"]  # the later level of y counts
    for name, reached in values.items():
        expected = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
        assert np.array_equal(runs.first_passage[name], expected), name
    assert (runs.first_passage["x"] > 0).any()
    assert (runs.first_passage["y"] == 0).all()
    assert (runs.first_passage["y + 5"] == -1).all()


def test_looking_changes_nothing():
    plain, watched = run(), run(first_passage={x: 0.9}, escape=10)
    assert np.array_equal(plain.final_states, watched.final_states)
    assert np.array_equal(plain.mean, watched.mean)
    assert (watched.escaped == -1).all()


def test_escapes():
    """A quarter of the trajectories leaves; what is left is counted, the rest is reported at its step."""
    values = {**VALUES, "eta": 0.2}
    path = paths(200, 40, values)
    bound = float(np.quantile(np.abs(path).max(axis=(0, 2)), 0.75))
    outside = (np.abs(path) > bound).any(axis=2)
    expected = np.where(outside.any(axis=0), outside.argmax(axis=0), -1)
    assert (expected >= 0).sum() == 10
    runs = run(200, values=values, escape=bound, record=5)
    assert np.array_equal(runs.escaped, expected)
    assert np.isnan(runs.final[expected >= 0]).all()
    assert np.isfinite(runs.final[expected < 0]).all()
    alive = [(expected < 0) | (expected > k) for k in runs.steps]
    assert runs.counts.tolist() == [int(a.sum()) for a in alive]
    np.testing.assert_allclose(runs.mean, [path[k, a].mean(axis=0) for k, a in zip(runs.steps, alive, strict=True)], rtol=1e-12)
    assert f"{(expected >= 0).sum()} escaped" in repr(runs)


def test_everything_escapes():
    runs = simulate(zoo.sgd, zoo.valley(), {x: 1, y: 0.1}, 3000, 20, eta=1.2, alpha=1, escape=5, record=3)
    assert (runs.escaped > 0).all()
    assert runs.counts.tolist()[-1] == 0
    assert np.isnan(runs.mean[-1]).all()


def test_the_start_is_to_blame():
    """The noise is not finite there: a smaller step would not help."""
    steep = Problem(y**2 * (1 + x**2) ** 60, {y: 0}, HessianNoise(1), parameters=(x, y))
    with pytest.raises(SimulationDiverged, match="after step 1, 3 of 3.*the start is the cause") as caught:
        simulate(zoo.sgd, steep, {x: 1e3, y: 0}, 10, 3, eta=0.1)
    assert "smaller" not in str(caught.value)


def test_saved(tmp_path):
    runs = run(keep=2, first_passage={x: 0.9}, escape=10)
    save(runs, tmp_path / "runs.json")
    again = load(tmp_path / "runs.json", {"Ensemble": type(runs)})
    assert np.array_equal(again.kept, runs.kept)
    assert np.array_equal(again.first_passage["x"], runs.first_passage["x"])
    assert np.array_equal(again.escaped, runs.escaped)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"record": [3, 2]}, QuasistaticError, "record: .*increase"),
        ({"record": []}, QuasistaticError, "record"),
        ({"record": [0, 61]}, QuasistaticError, "at most 60"),
        ({"record": [0.5]}, QuasistaticError, "record: an iteration = 0.5"),
        ({"keep": 41}, QuasistaticError, "keep = 41, but there are 40"),
        ({"keep": [40]}, QuasistaticError, "keep: .*from 0 to 39"),
        ({"keep": [1, 1]}, QuasistaticError, "keep: .*different"),
        ({"keep": "x"}, QuasistaticError, "keep = 'x'"),
        ({"first_passage": {"z": 1}}, StartError, "'z' is not a parameter"),
        ({"first_passage": {symbols("xx"): 1}}, StartError, "Did you mean 'x'"),
        ({"first_passage": {x: "far"}}, StartError, "the level of x = 'far' is not"),
        ({"first_passage": {x: float("nan")}}, StartError, "not a finite"),
        ({"first_passage": [x]}, StartError, "mapping"),
        ({"first_passage": {1 / (x - 1): 1}}, StartError, "at the start, not a finite"),
        ({"escape": 0.5}, StartError, "escape = 0.5 must be positive and larger"),
        ({"escape": -1}, StartError, "escape"),
        ({"escape": float("inf")}, StartError, "escape"),
        ({"generator": "philux"}, QuasistaticError, "Did you mean 'philox'"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


# -- the same noise ----------------------------------------------------------------------------------------------------


def test_sgd_against_the_recursion_of_its_normals():
    """On a quadratic loss SGD is a linear recursion: computed here from the normals alone."""
    problem = Problem(y**2, {y: 0}, HessianNoise(2), parameters=(x, y))
    runs = simulate(zoo.sgd, problem, {x: 1, y: 0.5}, 300, 40, seed=8, eta=0.01, generator="philox")
    z = np.full(40, 0.5)
    for n in normals(8, 40, 300, 1, "philox")[:, :, 0].T:
        z = z - 0.01 * (2 * z + np.sqrt(2 * 2) * n)
    np.testing.assert_allclose(runs.final[:, 1], z, rtol=0, atol=1e-12)
    assert runs.generator == "philox"


def test_two_optimizers_and_a_slow_sde_under_the_same_noise():
    """Heavy ball with mu = 0 is SGD, also when it is another kernel; and the SDE of pure noise adds up the same normals."""
    problem = Problem(y**2, {y: 0}, HessianNoise(2), parameters=(x, y))
    runs = [
        simulate(rule, problem, {x: 1, y: 0.5}, 200, 33, seed=3, eta=0.01, generator="philox", **more)
        for rule, more in ((zoo.sgd, {}), (zoo.heavy_ball, {"mu": 0}), (zoo.heavy_ball, {"mu": 0.01}))
    ]
    np.testing.assert_allclose(runs[0].final, runs[1].final, rtol=1e-12)
    apart = runs[2].final[:, 1] - runs[0].final[:, 1]
    assert 0 < apart.std() < 0.05 * runs[0].final[:, 1].std()


def make_flow():
    """A slow SDE with constant coefficients: du = 2 dk + 0.3 dW."""
    from test_numeric_flow import make

    return make([2], [[0.09]])


def test_slow_sde_with_philox():
    flow = compile_flow(make_flow(), {"eta": 0.01, "alpha": 1})
    ends = flow.sde_trajectory([1.0], 50, 20, seed=4, record=2, substeps=50, generator="philox").final[:, 0]
    kicks = normals(4, 20, 50, 1, "philox").sum(axis=(1, 2))
    np.testing.assert_allclose(ends, 1 + 2 * 50 + 0.3 * kicks, rtol=1e-12)


# -- memory ------------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, quasistatic.zoo as zoo
from quasistatic.numeric.simulate import simulate
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
problem = zoo.valley()
def run(steps, trajectories):
    return simulate(zoo.heavy_ball, problem, {"x": 1, "y": 0}, steps, trajectories, record=1000, eta=1e-4, mu=0.9, alpha=0.1, keep=4)
run(10, 64)
before = used()
run(%d, 4096)
print(used() - before)
"""


def test_memory():
    """4096 trajectories with 1000 records; memory does not depend on the steps, so that 10^6 of them would not need more."""
    more = []
    for steps in (1000, 4000):
        done = subprocess.run([sys.executable, "-c", MEMORY % steps], capture_output=True, text=True, check=True)
        more.append(float(done.stdout))
    assert max(more) < 200
    assert abs(more[1] - more[0]) < 20
