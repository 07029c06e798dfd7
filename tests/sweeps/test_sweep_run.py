"""Rows of a sweep: the right numbers, the same on every executor, and a sweep that goes on where a point or a worker does not."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import quasistatic as qs
from quasistatic.derivation.result import SlowResult
from quasistatic.sweeps import job as jobs
from quasistatic.sweeps.job import Job, run

VALLEY = qs.zoo.valley()
GRID = {"eta": [1e-3, 1e-2], "mu": [0, 0.9]}


def small(executor: Any = None, grid: Any = GRID, **options: Any) -> qs.SweepTable:
    """A sweep of a fraction of a second."""
    given = {"seeds": 2, "trajectories": 16, "steps": "0.2*(1-mu)/eta**2", "start": {"x": 2}, "alpha": 0.5, **options}
    return qs.sweep(qs.zoo.heavy_ball, VALLEY, grid, executor=executor, **given)


class Inline(Executor):
    """Runs a job when it is sent; ``fail`` may raise instead."""

    def __init__(self, fail: Any = lambda job: None) -> None:
        self.fail = fail
        self.sent: list[Job] = []

    def submit(self, f: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.sent.append(args[0])
        try:
            self.fail(args[0])
            future.set_result(f(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def reference() -> qs.SweepTable:
    return small()


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_one_row_per_point_and_seed_in_order(reference: qs.SweepTable) -> None:
    found = [(r["eta"], r["mu"], r["alpha"], r["seed"], r["steps"]) for r in reference.rows]
    expected = [(e, m, 0.5, s, round(0.2 * (1 - m) / e**2)) for e in GRID["eta"] for m in GRID["mu"] for s in (0, 1)]
    assert found == expected
    assert reference.total == len(reference) == 8
    assert reference.complete
    assert not reference.interrupted


def test_theory_against_formulas_of_sgd() -> None:
    """SGD on h y^2 with noise alpha H: V = eta alpha/(2 - eta lambda), lambda = 2 h, and dx/dk = -eta V h'/2 ... as an ODE."""
    eta, alpha, steps = 1e-3, 1.5, 50_000
    sweep = qs.sweep(qs.zoo.sgd, VALLEY, {"eta": [eta]}, {"x": 2}, steps, trajectories=32, seeds=1, alpha=alpha)

    def V(x: Any) -> Any:
        return eta * alpha / (2 - 2 * eta * (1 + x**2))

    path = solve_ivp(lambda k, x: -eta * V(x) * 2 * x, (0, steps), [2.0], t_eval=np.linspace(0, steps, 21), rtol=1e-10, atol=1e-12)
    assert sweep["mean_x_theory"][0] == pytest.approx(path.y[0, -1], abs=4 * sweep["mean_x_error"][0])
    # the theory's fast variance is averaged over the simulated paths, which are near the mean path
    assert sweep["fast_variance_y_theory"][0] == pytest.approx(V(path.y[0, 4:]).mean(), rel=1e-4)
    for quantity in ("mean_x", "fast_variance_y"):
        assert abs(sweep[f"{quantity}_z"][0]) < 5
        assert sweep[f"{quantity}_error"][0] > 0


def test_simulation_against_simulate() -> None:
    """The mean of the ensemble, and its variance across the valley, by the simulation that everybody can run."""
    eta, alpha, N = 1e-2, 0.5, 512
    sweep = qs.sweep(qs.zoo.sgd, VALLEY, [{"eta": eta}], {"x": 2}, 2000, trajectories=N, alpha=alpha)
    runs = qs.simulate(qs.zoo.sgd, VALLEY, {"x": 2, "y": 0}, 2000, trajectories=N, seed=7, record=1, eta=eta, alpha=alpha)
    x, y = runs.final.T
    error = np.hypot(x.std() / np.sqrt(N), sweep["mean_x_error"][0])
    assert abs(sweep["mean_x_simulation"][0] - x.mean()) < 5 * error
    assert abs(sweep["fast_variance_y_simulation"][0] / (y**2).mean() - 1) < 5 * np.sqrt(2 / N) + 0.02


def test_a_row_is_the_validation_of_its_point(reference: qs.SweepTable) -> None:
    slow = qs.derive(qs.zoo.heavy_ball, VALLEY)
    report = slow.validate({"x": 2}, 2000, trajectories=16, seed=1, record=20, eta=1e-2, mu=0, alpha=0.5)
    row = reference.rows[5]
    assert [row["eta"], row["mu"], row["seed"]] == [1e-2, 0.0, 1]
    assert row["mean_x_theory"] == report.theory[-1, 0]
    assert row["mean_x_simulation"] == report.simulation[-1, 0]
    ratio = report.rows[-1]
    assert row["fast_variance_y_simulation"] / row["fast_variance_y_theory"] == pytest.approx(ratio.simulation, rel=1e-12)
    assert row["fast_variance_y_z"] == pytest.approx(ratio.z)


def test_a_diffusing_valley_has_the_variance_along_it() -> None:
    problem = qs.zoo.valley(noise=qs.IsotropicNoise(qs.symbols("sigma", positive=True)))
    sweep = qs.sweep(qs.zoo.sgd, problem, {"eta": [1e-2]}, {"x": 1}, 1000, trajectories=64, sigma=0.05)
    assert sweep.quantities == ("mean_x", "variance_x", "fast_variance_y")
    # to leading order a random walk: eta^2 sigma^2 per step
    assert sweep["variance_x_theory"][0] == pytest.approx(1e-4 * 0.05**2 * 1000, rel=0.5)
    assert abs(sweep["variance_x_z"][0]) < 5


def test_options_reach_the_validation() -> None:
    plain, extrapolated = (small(grid={"eta": [1e-2], "mu": [0]}, seeds=1, options=o) for o in ({}, {"extrapolate": True, "record": 5}))
    assert extrapolated["mean_x_error"][0] > plain["mean_x_error"][0]
    assert extrapolated.provenance["options"] == {"record": 5, "extrapolate": True}


# -- executors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(reference: qs.SweepTable, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        assert small(pool).rows == reference.rows
        assert pool.submit(lambda: 1).result() == 1, "an executor that is given is left open"


def test_an_executor_in_this_thread_and_copies_of_the_jobs_change_nothing(reference: qs.SweepTable) -> None:
    inline = Inline()
    assert small(inline).rows == reference.rows
    assert [run(pickle.loads(pickle.dumps(j))) for j in sorted(inline.sent, key=lambda j: j.index)] == list(reference.rows)


def test_the_longest_points_start_first() -> None:
    inline = Inline()
    small(inline)
    steps = [j.steps for j in inline.sent]
    assert steps == sorted(steps, reverse=True)


def test_it_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    original = SlowResult.drift.func
    monkeypatch.setattr(jobs, "_DERIVED", {})
    monkeypatch.setattr(SlowResult.drift, "func", lambda self: count.append(1) or original(self))
    small(Inline(), grid={"eta": [1e-2, 2e-2], "mu": [0, 0.5]})
    assert len(count) == 1


def test_progress_counts_rows() -> None:
    seen: list[tuple[int, int]] = []
    small(Inline(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 8) for k in range(9)]


@pytest.mark.parametrize(
    ("executor", "message"),
    [(3, "is not a concurrent.futures.Executor"), (ThreadPoolExecutor, "is not a concurrent.futures.Executor")],
)
def test_what_is_no_executor(executor: Any, message: str) -> None:
    with pytest.raises(qs.SweepError, match=message):
        small(executor)


def test_an_executor_that_is_shut_down() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(qs.SweepError, match="takes no more jobs .*after shutdown.* 0 of 8 rows were done"):
        small(pool)


def test_an_executor_that_breaks_says_how_to_go_on(tmp_path: Any) -> None:
    def fail(job: Job) -> None:
        if job.index == 4:
            raise BrokenExecutor("a process died")

    path = tmp_path / "results.jsonl"
    with pytest.raises(qs.SweepError, match=r"is broken \(a process died\).* rows are kept in .*results.jsonl; run the sweep again"):
        small(Inline(fail), results=path)
    assert small(results=path).complete


def test_worker_processes_give_the_same_numbers(reference: qs.SweepTable) -> None:
    import multiprocessing

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert small(pool).rows == reference.rows


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_points_outside_the_conditions_are_rows(reference: qs.SweepTable) -> None:
    sweep = small(grid={"eta": [1e-2, 0.5, 5], "mu": [0, 0.9]}, steps=lambda v: 2000 * (1 - v["mu"]), seeds=1)
    assert sweep["status"].tolist() == ["ok", "ok", *["unstable"] * 4]
    assert all("eta*lambda" in m for m in sweep["message"][2:])
    assert sweep.complete
    assert not sweep.passed
    assert np.isnan(sweep["mean_x_theory"][2:]).all()
    assert sweep.rows[0] == reference.rows[4]
    assert "4 unstable" in str(sweep)


def test_a_simulation_that_diverges_is_a_row() -> None:
    """A valley between ridges: beyond |y| = 1/sqrt(2) the loss falls without end, and much noise carries trajectories there."""
    x, y = qs.symbols("x y")
    alpha = qs.symbols("alpha", positive=True)
    ridges = qs.Problem((2 + x**2) * (y**2 - y**4), {y: 0}, qs.HessianNoise(alpha))
    sweep = qs.sweep(qs.zoo.sgd, ridges, {"alpha": [1e-3, 5]}, {"x": 0.1}, 2000, trajectories=16, eta=0.02)
    assert sweep["status"].tolist() == ["ok", "diverged"]
    assert "not finite" in sweep["message"][1]
    assert sweep.complete


def test_a_mistake_inside_a_job_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    original = jobs._compared
    monkeypatch.setattr(jobs, "_compared", lambda job, stop: 1 / 0 if job.index == 3 else original(job, stop))
    sweep = small()
    assert [i for i, s in enumerate(sweep["status"]) if s != "ok"] == [3]
    assert sweep.rows[3]["message"] == "ZeroDivisionError: division by zero"
    assert not sweep.complete


def test_a_worker_that_dies_is_tried_again(reference: qs.SweepTable) -> None:
    def fail(job: Job) -> None:
        if job.index == 2 and job.attempt < 2:
            raise ConnectionError("the worker is gone")

    inline = Inline(fail)
    assert small(inline).rows == reference.rows
    assert [j.attempt for j in inline.sent if j.index == 2] == [0, 1, 2]


def test_a_worker_that_dies_too_often_is_a_row(tmp_path: Any) -> None:
    def fail(job: Job) -> None:
        if job.index == 2:
            raise ConnectionError("the worker is gone")

    path = tmp_path / "results.jsonl"
    sweep = small(Inline(fail), retries=1, results=path)
    assert sweep["status"].tolist() == ["ok", "ok", "lost", *["ok"] * 5]
    assert sweep["message"][2] == "ConnectionError: the worker is gone (sent 2 times)"
    assert not sweep.complete
    again = Inline()
    assert small(again, results=path).complete
    assert [j.index for j in again.sent] == [2]


def test_a_worker_with_other_versions_refuses() -> None:
    class Older(Inline):
        def submit(self, f: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            job = pickle.loads(pickle.dumps(args[0]))
            job.versions["numba"] = "0.1"
            return super().submit(f, job)

    with pytest.raises(qs.SweepError, match="instead of 0.1: its numbers could differ"):
        small(Older())


def test_a_worker_without_quasistatic() -> None:
    def fail(job: Job) -> None:
        raise ModuleNotFoundError("No module named 'quasistatic'")

    with pytest.raises(qs.SweepError, match="cannot import.*quasistatic.*install"):
        small(Inline(fail))


@pytest.mark.parametrize("threads", [True, False])
def test_ctrl_c_stops_running_jobs_and_keeps_rows(threads: bool, tmp_path: Any) -> None:
    """Raised where Ctrl-C would be: in the main thread, while a job of hours is running."""
    path = tmp_path / "results.jsonl"
    grid = [{"eta": 1e-2, "mu": 0}, {"eta": 2e-2, "mu": 0}, {"eta": 1.5e-2, "mu": 0}]
    steps = {1e-2: 1000, 2e-2: 1000, 1.5e-2: 10**12 if threads else 500}

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def go(executor: Any) -> qs.SweepTable:
        return small(executor, grid=grid, seeds=1, steps=lambda v: steps[v["eta"]], progress=stop, results=path)

    if threads:
        with ThreadPoolExecutor(2) as pool:  # leaves when its jobs have
            sweep = go(pool)
    else:
        sweep = go(Inline())
    assert sweep.interrupted
    assert [r["eta"] for r in sweep.rows] == [1e-2, 2e-2]
    assert "1 of 3 not run (interrupted)" in str(sweep)
    assert qs.load(path).rows == sweep.rows
    assert not [t for t in threading.enumerate() if t.name.startswith("sweep")]


def test_an_error_of_the_callback_is_not_swallowed() -> None:
    def bad(done: int, total: int) -> None:
        raise RuntimeError("no bar")

    with pytest.raises(RuntimeError, match="no bar"):
        small(progress=bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": {"y": 0}}, "y is not a coordinate"),
        ({"start": {"x": float("nan")}}, "not a finite"),
        ({"trajectories": 7}, "trajectories = 7 must be at least 8"),
        ({"retries": -1}, "retries = -1"),
        ({"options": {"recrod": 3}}, "no 'recrod'. Did you mean 'record'"),
        ({"options": {"seed": 3}}, "options: there is no 'seed'"),
        ({"beta": 1}, "beta is neither"),
        ({"time": "slow"}, "slow"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(qs.QuasistaticError, match=message):
        small(Inline(lambda job: pytest.fail("a job was sent")), **options)


def test_a_hyperparameter_that_is_called_like_a_column() -> None:
    @qs.optimizer
    def clash(z: Any, g: Any, *, eta: Any, status: Any, mean_x_z: Any) -> Any:
        return z - eta * status * mean_x_z * g

    for rule, name in ((clash.fix(mean_x_z=1), "status"), (clash.fix(status=1), "mean_x_z")):
        with pytest.raises(qs.HyperparameterError, match=f"{name} would be a hyperparameter or constant and another column"):
            qs.sweep(rule, VALLEY, {"eta": [1e-2]}, {"x": 1}, 100, alpha=1, **{name: 1})


# -- the table ---------------------------------------------------------------------------------------------------------


def test_columns(reference: qs.SweepTable) -> None:
    columns = reference.columns
    assert list(columns)[:6] == ["eta", "mu", "alpha", "seed", "steps", "status"]
    assert list(columns)[-1] == "message"
    assert {len(c) for c in columns.values()} == {8}
    assert columns["seed"].dtype == columns["steps"].dtype == np.int64
    z = (columns["mean_x_simulation"] - columns["mean_x_theory"]) / columns["mean_x_error"]
    np.testing.assert_allclose(columns["mean_x_z"], z, rtol=1e-12)
    with pytest.raises(qs.SweepError, match="no column 'mean_x_theroy'. Did you mean 'mean_x_theory'"):
        _ = reference["mean_x_theroy"]


def test_large_seeds_stay_whole() -> None:
    sweep = small(grid={"eta": [0.5], "mu": [0]}, seeds=[0, 2**64 - 1])
    assert sweep["seed"].tolist() == [0, 2**64 - 1]


def test_pandas(reference: qs.SweepTable) -> None:
    pandas = pytest.importorskip("pandas")
    frame = reference.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(reference.columns)
    assert frame.groupby("eta")["mean_x_simulation"].size().tolist() == [4, 4]
    assert frame["mean_x_theory"].tolist() == reference["mean_x_theory"].tolist()


def test_without_pandas(reference: qs.SweepTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(qs.SweepError, match="pip install pandas"):
        reference.to_pandas()


def test_the_table_as_text(reference: qs.SweepTable) -> None:
    text = str(reference)
    assert text.startswith("heavy_ball on valley: alpha=0.5; from x=2, 16 trajectories\n")
    assert len(text.splitlines()) == 1 + 2 + 8 + 1
    assert repr(reference) == "<sweep of heavy_ball on valley over eta, mu: 8 of 8>"


def test_sweeps_can_be_pickled(reference: qs.SweepTable) -> None:
    assert pickle.loads(pickle.dumps(reference)).rows == reference.rows
