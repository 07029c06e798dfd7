"""The results file: exact, resumed, repaired, and refused where it belongs to another sweep."""

from __future__ import annotations

import json
import math
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import quasistatic as qs
from quasistatic.sweeps.job import Job

RULE, VALLEY = qs.zoo.sgd, qs.zoo.valley()


class Counting(Executor):
    """Runs jobs at once and remembers them."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def submit(self, f: Any, job: Job, /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        self.sent.append(job.index)
        future: Future[Any] = Future()
        future.set_result(f(job))
        return future


def go(
    path: Path | None, executor: Executor | None = None, rule: qs.Rule = RULE, problem: qs.Problem = VALLEY, **options: Any
) -> qs.SweepTable:
    given: dict[str, Any] = {"grid": {"eta": [1e-2, 2e-2]}, "start": {"x": 1}, "steps": 300, "trajectories": 8, "seeds": 2, "alpha": 0.1}
    given |= options
    return qs.sweep(rule, problem, given.pop("grid"), given.pop("start"), given.pop("steps"), executor=executor, results=path, **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sweep.jsonl"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished results file."""
    path = tmp_path_factory.mktemp("finished") / "sweep.jsonl"
    go(path)
    return path.read_text()


def test_the_header_has_the_provenance(text: str) -> None:
    header = json.loads(text.splitlines()[0])
    assert header["rule"] == "sgd"
    assert "def sgd" in header["source"]
    assert header["names"] == ["eta", "alpha"]
    assert header["points"] == [[0.01, 0.1], [0.02, 0.1]]
    assert header["seeds"] == [0, 1]
    assert header["steps"] == [300, 300]
    assert header["start"] == {"x": 1.0}
    assert header["versions"]["quasistatic"] == qs.__version__
    assert len(header["sha256"]) == 64


def test_numbers_come_back_to_the_last_bit(path: Path) -> None:
    sweep = go(path)
    assert qs.load(path).rows == sweep.rows
    again = Counting()
    assert go(path, again).rows == sweep.rows
    assert again.sent == []
    assert sweep.rows == go(None).rows


def test_finished_points_are_skipped(path: Path, text: str) -> None:
    lines = text.splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[3], lines[1]]))
    again = Counting()
    sweep = go(path, again)
    kept = {(r["eta"], r["seed"]) for r in map(json.loads, (lines[3], lines[1]))}
    assert len(again.sent) == 2
    assert {(sweep.rows[i]["eta"], sweep.rows[i]["seed"]) for i in again.sent}.isdisjoint(kept)
    assert sorted(path.read_text().splitlines()) == sorted(text.splitlines())


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_was_cut_off_is_run_again(path: Path, text: str, cut: int) -> None:
    path.write_text(text[:-cut])
    assert len(qs.load(path)) == 3, "a truncated file can be looked at"
    again = Counting()
    sweep = go(path, again)
    assert len(again.sent) == 1
    assert sweep.complete
    assert sorted(path.read_text().splitlines()) == sorted(text.splitlines())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: "garbage",
        lambda row: "[1, 2]",
        lambda row: json.dumps({**row, "eta": 0.5}),
        lambda row: json.dumps({**row, "seed": 7}),
        lambda row: json.dumps({**row, "steps": 301}),
        lambda row: json.dumps({**row, "status": 1}),
        lambda row: json.dumps({**row, "mean_x_theory": "1"}),
        lambda row: json.dumps({k: v for k, v in row.items() if k != "mean_x_error"}),
        lambda row: json.dumps({k: v for k, v in row.items() if k != "alpha"}),
        lambda row: json.dumps({k: v for k, v in row.items() if not k.startswith(("mean", "fast"))}),
        lambda row: "\x00" * 40,
        lambda row: "[" * 100_000,
    ],
)
def test_bad_lines_are_dropped_and_good_ones_kept(path: Path, text: str, spoil: Any) -> None:
    header, first, second, *rest = text.splitlines()
    path.write_text("\n".join([header, first, spoil(json.loads(second)), *rest, first]) + "\n")
    again = Counting()
    assert go(path, again).complete
    assert len(again.sent) == 1
    assert sorted(path.read_text().splitlines()) == sorted(text.splitlines())


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    assert go(path).complete
    assert len(path.read_text().splitlines()) == 5


def _other_rule() -> qs.Rule:
    @qs.optimizer
    def sgd(z: Any, g: Any, *, eta: Any) -> Any:
        return z - 2 * eta * g

    return sgd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"eta": [1e-2, 3e-2]}}, "grid, eta: the file has 0.01, 0.02; this sweep 0.01, 0.03"),
        ({"grid": [{"eta": 2e-2}, {"eta": 1e-2}]}, "grid, eta: the file has 0.01, 0.02; this sweep 0.02, 0.01"),
        ({"alpha": 0.2}, "grid, alpha: the file has 0.1; this sweep 0.2"),
        ({"seeds": [0, 2]}, r"seeds: the file has \[0, 1\]; this sweep \[0, 2\]"),
        ({"steps": 301}, "steps: the file has 300; this sweep 301"),
        ({"start": {"x": 2}}, "start, x: the file has 1.0; this sweep 2.0"),
        ({"trajectories": 9}, "trajectories: the file has 8; this sweep 9"),
        ({"options": {"record": 5}}, "options, record: the file has 20; this sweep 5"),
        ({"options": {"extrapolate": True}}, "options, extrapolate: the file has nothing; this sweep True"),
        ({"time": "continuous"}, "time: the file has iteration; this sweep t = k[*]eta"),
        ({"rule": _other_rule()}, "record: the file has z <- -eta[*].*; this sweep z <- -2[*]eta[*]g"),
        ({"rule": RULE.fix(weight_decay="1/100")}, "fixed, weight_decay: the file has 0; this sweep 1/100"),
        ({"problem": qs.zoo.valley(h=lambda x: 2 + x**2)}, "problem: the file has .*1.*; this sweep .*2"),
        ({"problem": VALLEY.with_noise(qs.IsotropicNoise(qs.symbols("alpha", positive=True)))}, "problem: .*HessianNoise.*IsotropicNoise"),
        ({"rule": qs.zoo.heavy_ball, "mu": 0}, "rule: the file has sgd; this sweep heavy_ball"),
        ({"rule": qs.zoo.heavy_ball, "mu": 0}, "hyperparameters and constants: the file has eta, alpha; this sweep eta, mu, alpha"),
    ],
)
def test_the_file_of_another_sweep_is_refused(path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path.write_text(text)
    with pytest.raises(qs.SweepError, match=rf"(?s)keeps the results of another sweep; it is left as it is.*{message}"):
        go(path, Counting(), **options)
    assert path.read_text() == text


def test_other_versions_are_another_sweep(path: Path, text: str) -> None:
    header, *rows = text.splitlines()
    changed = json.loads(header)
    changed["versions"]["numba"] = "0.1"
    path.write_text("\n".join([json.dumps(changed), *rows]) + "\n")
    with pytest.raises(qs.SweepError, match="versions, numba: the file has 0.1; this sweep"):
        go(path)


def test_a_comment_in_the_rule_is_no_other_sweep(path: Path, text: str) -> None:
    header, *rows = text.splitlines()
    changed = {**json.loads(header), "source": "def sgd(...): the same with a comment"}
    path.write_text("\n".join([json.dumps(changed), *rows]) + "\n")
    again = Counting()
    assert go(path, again).complete
    assert again.sent == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,value\n1,2\n", "is not the results file of a sweep"),
        ("{}\n", "is not the results file of a sweep"),
        ('{"quasistatic_sweep": 99}\n', "has the format 99"),
        ('{"quasistatic_sweep": 1}\n', "damaged.*names"),
        ("\xff\xfe", "is not the results file of a sweep"),
    ],
)
def test_other_files_are_left_alone(path: Path, content: str, message: str) -> None:
    path.write_text(content, encoding="latin-1")
    with pytest.raises(qs.SweepError, match=f"(?s){message}"):
        go(path, Counting())
    assert path.read_text(encoding="latin-1") == content


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    for bad, message in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "file", "there is no folder"),
        (Path("/dev/null"), "it is not a regular file"),
    ):
        executor = Counting()
        with pytest.raises(qs.OutputError, match=f"cannot keep results in .*: {message}"):
            go(bad, executor)
        assert executor.sent == []


def test_nothing_is_written_before_a_point_is_finished(path: Path) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(qs.SweepError, match="takes no more jobs"):
        go(path, pool)
    assert not path.exists()


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quasistatic.sweeps import results

    original = results._line

    def line(value: Any) -> str:
        if value.get("seed") == 1:
            raise OSError(28, "No space left on device")
        return original(value)

    monkeypatch.setattr(results, "_line", line)
    with pytest.raises(qs.OutputError, match=r"sweep.jsonl: No space left on device. What it has so far is kept."):
        go(path, Counting())
    monkeypatch.undo()
    assert go(path).complete


# -- saving ------------------------------------------------------------------------------------------------------------


def test_save_and_load(path: Path) -> None:
    sweep = go(None)
    sweep.save(path)
    loaded = qs.load(path)
    assert loaded.rows == sweep.rows
    assert loaded.names == sweep.names
    assert dict(loaded.provenance) == json.loads(json.dumps(sweep.provenance))
    assert str(loaded) == str(sweep)
    again = Counting()
    assert go(path, again).rows == sweep.rows, "a saved table is a results file"
    assert again.sent == []


def test_csv(tmp_path: Path) -> None:
    import csv

    sweep = go(None, grid={"eta": [1e-2, 5]})
    sweep.save(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(sweep.columns)
    assert [float(r["mean_x_theory"]) for r in rows[:2]] == sweep["mean_x_theory"][:2].tolist()
    assert math.isnan(float(rows[2]["mean_x_theory"]))
    assert [r["message"] for r in rows] == sweep["message"].tolist()


def test_save_refuses(tmp_path: Path) -> None:
    sweep = go(None)
    for bad in (tmp_path / "table.xlsx", tmp_path / "no" / "table.csv"):
        with pytest.raises(qs.OutputError, match="cannot write"):
            sweep.save(bad)
    assert list(tmp_path.iterdir()) == []
