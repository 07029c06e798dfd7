"""``quasistatic sweep``: the library's numbers, formats, exit codes, Ctrl-C, and bad input as one clear line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import quasistatic as qs
from quasistatic import cli

GRID = ("--problem", "valley", "--grid", "eta=1e-2,1/50", "--grid", "mu=0,.5", "--set", "alpha=0.1", "--start", "x=1")
SMALL = ("sweep", "heavy_ball", *GRID, "--steps", "3*(1-mu)/eta", "--trajectories", "16")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.make_app(), list(arguments))


def refused(*arguments: str) -> str:
    before = sorted(Path().iterdir())
    result = run(*arguments)
    assert result.exit_code == cli.BAD_INPUT, result.output
    assert result.stdout == ""
    assert sorted(p for p in Path().iterdir() if p.name != "__pycache__") == before
    assert re.fullmatch(r"error: .*\n", result.stderr, flags=re.DOTALL)
    return result.stderr


def library(**options: Any) -> qs.SweepTable:
    grid = {"eta": [1e-2, "1/50"], "mu": [0, 0.5]}
    return qs.sweep(qs.zoo.heavy_ball, qs.zoo.valley(), grid, {"x": 1}, "3*(1-mu)/eta", trajectories=16, alpha=0.1, **options)


def test_it_is_the_sweep_of_the_library() -> None:
    result = run(*SMALL)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{library()}\n"
    assert result.stderr == ""


def test_csv_json_and_files() -> None:
    table = library(seeds=2)
    result = run(*SMALL, "--seeds", "2", "--format", "csv", "--save", "table.csv", "--jobs", "1")
    assert result.stdout == table.csv() == Path("table.csv").read_text()
    assert result.stderr == "wrote table.csv\n"
    found = json.loads(run(*SMALL, "--seeds", "2", "--format", "json", "--save", "table.jsonl").stdout)
    assert tuple(found["rows"]) == table.rows
    assert found["provenance"]["trajectories"] == 16
    assert qs.load("table.jsonl").rows == table.rows


def test_own_rules_and_problems_and_example_values() -> None:
    Path("mine.py").write_text(
        "import quasistatic as qs\n@qs.optimizer\ndef mine(z, g, *, eta, gamma):\n    return z - eta * gamma * g\n"
        "x, y = qs.symbols('x y')\nvalley = qs.Problem((1 + x**2) * y**2, {y: 0}, qs.HessianNoise(qs.symbols('alpha', positive=True)),"
        " examples={'alpha': 0.1, 'x': 1})\n"
    )
    options = ("--grid", "eta=1e-2,2e-2", "--set", "gamma=1", "--steps", "200", "--trajectories", "8")
    result = run("sweep", "mine.py:mine", "--problem", "mine.py:valley", *options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "example values, which --set and --start change: alpha=0.1, x=1\n"
    assert "mine on" in result.stdout
    text = ("--loss", "(1+x**2)*y**2", "--minima", "y=0", "--set", "alpha=.1", "--start", "x=1")
    assert run("sweep", "mine.py:mine", *text, *options).stdout == result.stdout


def test_unstable_points_are_no_failure() -> None:
    result = run("sweep", "sgd", "--problem", "valley", "--grid", "eta=1e-2,2", "--steps", "100", "--trajectories", "8")
    assert result.exit_code == 0, result.stderr
    assert "unstable" in result.stdout
    assert "1 unstable" in result.stdout


def test_results_are_kept_and_refused() -> None:
    assert run(*SMALL, "--results", "r.jsonl").exit_code == 0
    text = Path("r.jsonl").read_text()
    again = run(*SMALL, "--results", "r.jsonl")
    assert again.stdout == f"{library()}\n"
    assert Path("r.jsonl").read_text() == text
    message = refused(*SMALL, "--seeds", "3", "--results", "r.jsonl")
    assert "r.jsonl keeps the results of another sweep" in message
    assert "seeds: the file has [0]; this sweep [0, 1, 2]" in message
    assert Path("r.jsonl").read_text() == text


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_and_going_on() -> None:
    """Stopped after a few of many points; the second run does the rest, and nobody sees that there were two."""
    grid = ["--problem", "valley", "--grid", "eta=1e-2,2e-2", "--seeds", "40", "--set", "alpha=0.1", "--start", "x=1"]
    numbers = ["--steps", "40000", "--trajectories", "32", "--jobs", "1", "--results", "r.jsonl"]
    command = [sys.executable, "-m", "quasistatic", "sweep", "sgd", *grid, *numbers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and (not Path("r.jsonl").exists() or Path("r.jsonl").read_text().count("\n") < 4):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED, out + errors
    assert "Traceback" not in errors
    done = len(qs.load("r.jsonl"))
    assert 3 <= done < 80
    assert f"{done} of 80 points are in r.jsonl; the same command goes on from there." in errors
    assert f"{80 - done} of 80 not run (interrupted)." in out
    finished = run(*command[3:])
    assert finished.exit_code == 0, finished.stderr
    assert "interrupted" not in finished.stdout
    Path("r.jsonl").unlink()
    assert run(*command[3:]).stdout == finished.stdout, "as if nothing had happened"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grid", "tau=0.5"), "--grid tau: heavy_ball fixes tau; --free tau makes it a hyperparameter"),
        (("--grid", "ety=1"), "there is no ety. Did you mean 'eta'?"),
        (("--grid", "eta=1"), "--grid: eta is given twice"),
        (("--grid", "alpha"), "cannot read 'alpha': write name=number,number"),
        (("--grid", "alpha="), "cannot read 'alpha='"),
        (("--set", "mu=0"), "--set mu: --grid has it already"),
        (("--steps", "4/ety"), "unknown name 'ety'"),
        (("--steps", "0"), "steps = 0 is 0"),
        (("--steps", "__import__('os').abort()"), "cannot read the expression"),
        (("--start", "y=1"), "--start: there is no y"),
        (("--format", "xml"), "there is no format 'xml'"),
        (("--save", "table.xlsx"), "must end in .csv or .jsonl"),
        (("--results", "no/folder/r.jsonl"), "there is no folder no/folder"),
        (("--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"), "--jobs is for this machine"),
        (("--loss", "y**2"), "--problem valley is complete"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*SMALL, *arguments)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("eta=", "cannot read 'eta='"),
        ("eta=,", "cannot read 'eta=,'"),
        ("eta=1e-3,,1e-2", "cannot read the expression ''"),
        ("eta=1e-3,inf", "unknown name 'inf'"),
        ("eta=nan", "unknown name 'nan'"),
        ("eta=1e-3,1/1000", "the grid has eta = 1/1000 twice"),
        ("eta=1e999", "a number is not finite"),
    ],
)
def test_bad_grids(grid: str, message: str) -> None:
    assert message in refused("sweep", "sgd", "--problem", "valley", "--grid", grid)


def test_what_is_missing() -> None:
    assert "a sweep needs a problem" in refused("sweep", "sgd", "--grid", "eta=1e-3")
    assert "Missing option '--grid'" in run("sweep", "sgd", "--problem", "valley").stderr
    plain = ("--loss", "y**2*(1+x**2)", "--minima", "y=0")
    assert "add --set alpha=..." in refused("sweep", "sgd", *plain, "--grid", "eta=1e-3")
    assert "add --start x=..." in refused("sweep", "sgd", *plain, "--grid", "eta=1e-3", "--set", "alpha=1")


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quasistatic.sweeps.cluster.ANSWER_SECONDS", 0.5)
    assert "the scheduler tcp://127.0.0.1:1 does not answer within 0.5 s" in refused(*SMALL, "--scheduler", "tcp://127.0.0.1:1")
