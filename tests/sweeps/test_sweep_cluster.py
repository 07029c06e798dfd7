"""A real Dask scheduler and two worker processes on loopback; one of them is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import quasistatic as qs
from quasistatic.sweeps.cluster import connect

pytest.importorskip("distributed")

ROOT = Path(qs.__file__).parents[1]


class Cluster:
    """Scheduler and workers as processes of their own; no nanny brings a killed worker back."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show")
        self.workers = [
            self._start(
                "worker", self.address, "--name", f"w{i}", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
                "--local-directory", str(folder),
            )
            for i in range(workers)
        ]  # fmt: skip
        self._wait(workers)

    def _wait(self, workers: int) -> None:
        """Until scheduler and workers are up: on a busy machine that takes longer than a user would wait."""
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"}
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
                stdout=log, stderr=log, env=environment, cwd=self.folder,
            )  # fmt: skip

    def log(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"), 2)
    try:
        yield found
    finally:
        found.close()


def go(executor: Any, **options: Any) -> qs.SweepTable:
    """Eight points of some tenths of a second."""
    given: dict[str, Any] = {"seeds": 2, "trajectories": 64, "steps": "40/eta", "alpha": 0.2, **options}
    grid = {"eta": [4e-4, 1e-3], "mu": [0, "9/10"]}
    return qs.sweep(qs.zoo.heavy_ball, qs.zoo.valley(), grid, {"x": 1}, executor=executor, **given)


@pytest.fixture(scope="module")
def local() -> qs.SweepTable:
    return go(None)


def test_the_shell_takes_a_scheduler(cluster: Cluster, local: qs.SweepTable, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from quasistatic import cli

    grid = ("--problem", "valley", "--grid", "eta=4e-4,1e-3", "--grid", "mu=0,.9", "--set", "alpha=.2", "--start", "x=1")
    numbers = ("--steps", "40/eta", "--seeds", "2", "--trajectories", "64", "--results", str(tmp_path / "r.jsonl"))
    done = CliRunner().invoke(cli.make_app(), ["sweep", "heavy_ball", *grid, *numbers, "--scheduler", cluster.address, "--format", "csv"])
    assert done.exit_code == 0, done.stderr + cluster.log()
    assert done.stdout == local.csv()
    assert qs.load(tmp_path / "r.jsonl").rows == local.rows


def test_a_cluster_that_loses_a_worker_gives_the_numbers_of_one_machine(cluster: Cluster, local: qs.SweepTable, tmp_path: Path) -> None:
    from distributed import Client

    assert local.passed
    with Client(cluster.address, timeout=60, set_as_default=False) as client:
        names = {address: w["name"] for address, w in client.scheduler_info()["workers"].items()}
        killed: list[str] = []

        def kill_one(done: int, total: int) -> None:
            if done == 2 and not killed:
                busy = next(address for address, tasks in client.processing().items() if tasks)
                killed.append(names[busy])
                cluster.workers[int(names[busy].removeprefix("w"))].send_signal(signal.SIGKILL)

        path = tmp_path / "results.jsonl"
        remote = go(client.get_executor(), progress=kill_one, results=path)
        assert len(client.scheduler_info()["workers"]) == 1, "one worker is dead"
    assert killed
    assert remote.rows == local.rows, cluster.log()
    assert qs.load(path).rows == local.rows


@pytest.mark.slow
def test_a_scheduler_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished is kept, and the sweep says so instead of waiting for ever."""
    monkeypatch.setattr("quasistatic.sweeps.cluster.ANSWER_SECONDS", 6.0)
    short = Cluster(tmp_path, 1)
    path = tmp_path / "results.jsonl"

    def kill(done: int, total: int) -> None:
        if done == 2:
            short.scheduler.kill()

    try:
        with pytest.raises(qs.SweepError, match=r"the connection to the scheduler is lost. \d of 8 rows are kept in .*results.jsonl"):
            go(short.address, results=path, progress=kill)
    finally:
        short.close()
    assert len(qs.load(path)) >= 2


def test_a_scheduler_that_does_not_answer() -> None:
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(qs.SweepError, match=f"the scheduler tcp://127.0.0.1:{port} does not answer within 1 s"), ExitStack() as stack:
            stack.enter_context(connect(f"tcp://127.0.0.1:{port}", timeout=1))
        assert time.monotonic() - begun < 20
    with pytest.raises(qs.SweepError, match=f"tcp://127.0.0.1:{port} does not answer"), ExitStack() as stack:
        stack.enter_context(connect(f"tcp://127.0.0.1:{port}", timeout=1))  # nobody listens now


def test_something_else_answers() -> None:
    with socket.socket() as server, ThreadPoolExecutor(1) as pool:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        pool.submit(answer)
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(qs.SweepError, match=f"{address}.*(does not answer|is not the address)"), ExitStack() as stack:
            stack.enter_context(connect(address, timeout=2))


def test_a_scheduler_without_workers(tmp_path: Path) -> None:
    empty = Cluster(tmp_path, 0)
    try:
        with pytest.raises(qs.SweepError, match=f"{empty.address} has no workers after 1 s"), ExitStack() as stack:
            stack.enter_context(connect(empty.address, timeout=1))
    finally:
        empty.close()


@pytest.mark.parametrize("address", ["somewhere:", "foo://bar", "", "tcp://"])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quasistatic.sweeps.cluster.ANSWER_SECONDS", 1.0)
    with pytest.raises(qs.SweepError, match="address|does not answer"):
        go(address)


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(qs.SweepError, match=r'tcp://127.0.0.1:1 needs Dask: pip install "quasistatic\[distributed\]"'):
        go("tcp://127.0.0.1:1")


def test_a_dask_client_is_no_executor() -> None:
    class Client:
        def get_executor(self) -> ThreadPoolExecutor:
            raise AssertionError

    with pytest.raises(qs.SweepError, match="is not a concurrent.futures.Executor: pass its .get_executor"):
        go(Client())
