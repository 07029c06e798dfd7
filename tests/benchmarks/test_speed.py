"""Every implementation that is compared computes the same thing, ours is fast, and the pages show what was measured."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
import report
import rivals
import sizes
import speed
from workloads import ANGLE, WORKLOADS, Workload

ROOT = Path(__file__).parents[2]
STEPS, TRAJECTORIES, SEED = 400, 2048, 8
# numbers and a start off the minima at which a few hundred steps of Adam show every hyperparameter
COMPARED = WORKLOADS | {
    "W3": replace(
        WORKLOADS["W3"], numbers={"eta": 5e-3, "beta1": 0.8, "beta2": 0.95, "eps": 1.0, "alpha": 2.0},
        start=np.array([np.cos(ANGLE) + 2 * np.sin(ANGLE), 2 * np.cos(ANGLE) - np.sin(ANGLE)]),
    )
}  # fmt: skip
PAIRS = [
    pytest.param(label, w, marks=[pytest.mark.slow] if label in rivals.OPTIONAL else [])  # they compile for seconds each
    for label in rivals.RIVALS if label != "quasistatic" for w in WORKLOADS
]  # fmt: skip
needs_compiler = pytest.mark.skipif(reference.compiler() is None, reason="no C compiler")


def runner(label: str, w: Workload) -> rivals.Runner:
    try:
        return rivals.RIVALS[label][0](w)
    except ImportError as error:
        pytest.skip(str(error))
    except NotImplementedError as error:
        pytest.skip(f"{label}, {w.name}: {error}")


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Ours, with a seed of its own and eight times as many trajectories."""
    return {w.name: w.run(STEPS, 8 * TRAJECTORIES, 123) for w in COMPARED.values()}


def moments(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of every parameter, and the standard errors of both; shapes (2, d)."""
    rest = samples - samples.mean(axis=0)
    variance = (rest**2).mean(axis=0)
    spread = (rest**4).mean(axis=0) - variance**2
    return np.array([samples.mean(axis=0), variance]), np.sqrt(np.array([variance, spread]) / len(samples))


@pytest.mark.filterwarnings("ignore")  # other people's packages
@pytest.mark.parametrize(("label", "name"), PAIRS)
def test_implementations_agree(label: str, name: str, expected: dict[str, np.ndarray]) -> None:
    """Mean and variance of every parameter within five standard errors of ours."""
    if "C" in label.split() and reference.compiler() is None:
        pytest.skip("no C compiler")
    exact = rivals.RIVALS[label][1]
    # an SDE is not the map: its error is of the order of a step, far below the standard errors of few trajectories
    found, error = moments(runner(label, COMPARED[name])(STEPS, TRAJECTORIES if exact else 128, SEED))
    ours, ours_error = moments(expected[name])
    z = np.abs(found - ours) / np.hypot(error, ours_error)
    assert z.max() < 5, f"largest difference: {z.max():.1f} standard errors"
    assert (error > 0).all()


@needs_compiler
@pytest.mark.parametrize("name", WORKLOADS)
def test_simd_reference_draws_the_same_numbers(name: str) -> None:
    """The same generator, streams and normals in C: trajectory by trajectory the same, up to rounding."""
    w = WORKLOADS[name]
    np.testing.assert_allclose(rivals.simd_c(w)(100, 70, 5), w.run(100, 70, 5), rtol=1e-9, atol=1e-12)


def seconds(run: rivals.Runner, steps: int, rounds: int) -> float:
    """Least CPU time of a trajectory-step."""
    best = np.inf
    for r in range(rounds):
        begin = time.process_time()
        run(steps, 64, r)
        best = min(best, time.process_time() - begin)
    return best / steps


@needs_compiler
@pytest.mark.skipif(reference.vector_bits() < 256, reason="no AVX2")
@pytest.mark.parametrize("name", WORKLOADS)
def test_faster_than_scalar_c(name: str) -> None:
    """At least, with AVX-512 or AVX2; nine and four times as fast is usual."""
    w = WORKLOADS[name]
    many, few = (20_000, 4_000) if name == "W4" else (200_000, 40_000)
    for run in (w.run, rivals.scalar_c(w)):
        run(100, 64, 0)
    ratio = seconds(w.run, many, 5) / seconds(rivals.scalar_c(w), few, 5)
    assert ratio < (0.5 if reference.vector_bits() == 512 else 0.75)


@needs_compiler
@pytest.mark.parametrize(("name", "index"), [(n, i) for n, w in WORKLOADS.items() for i in range(len(w.numbers))])
def test_the_comparison_sees_every_hyperparameter(name: str, index: int, expected: dict[str, np.ndarray]) -> None:
    """A number that is 15 % off is more than five standard errors off."""
    w = COMPARED[name]
    numbers = w.reference_numbers
    numbers[index] *= 0.85
    found, error = moments(reference.run(f"scalar_{name.lower()}", numbers, w.start, STEPS, TRAJECTORIES, SEED))
    ours, ours_error = moments(expected[name])
    assert (np.abs(found - ours) / np.hypot(error, ours_error)).max() > 5


# -- the harness -------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(w: Workload) -> rivals.Runner:
        raise ImportError("No module named 'absent'")

    def uncovered(w: Workload) -> rivals.Runner:
        raise NotImplementedError

    few = {"absent": (absent, True, 10, 10), "uncovered": (uncovered, True, 10, 10), "quasistatic": (rivals.ours, True, 100, 100)}
    monkeypatch.setattr(speed, "RIVALS", few)
    table, missing = speed.compare(WORKLOADS["W1"], 2)
    assert set(table) == {"quasistatic"}
    assert missing == {"absent": "ImportError: No module named 'absent'"}


def test_ratios_are_medians_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: 2, 3, 10 times as long in three rounds."""
    now = [0.0]
    lengths = {"scalar C": iter([9.0, 1.0, 2.0, 4.0]), "quasistatic": iter([9.0, 2.0, 6.0, 40.0])}  # the first one compiles

    def factory(label: str) -> Any:
        def run(steps: int, trajectories: int, seed: int) -> np.ndarray:
            now[0] += next(lengths[label])
            return np.zeros((trajectories, 2))

        return lambda w: run

    monkeypatch.setattr(speed, "RIVALS", {label: (factory(label), True, 10, 10) for label in lengths})
    monkeypatch.setattr(speed.time, "process_time", lambda: now[0])
    table, _ = speed.compare(WORKLOADS["W1"], 3)
    assert table["quasistatic"]["ratio"] == pytest.approx(3)
    assert table["scalar C"]["ns"] == pytest.approx(2.0 / 10 / 64 * 1e9)


def test_two_threads_by_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread needs 10 s; two need 11 s together, of which 1 s is serial: 10/(1 + 10/2)."""
    clocks = {"wall": 0.0, "process": 0.0, "thread": 0.0}

    def run(steps: int, trajectories: int, seed: int, threads: int) -> None:
        clocks["wall"] += {1: 10.0, 2: 6.5}[threads]
        clocks["process"] += {1: 10.0, 2: 11.0}[threads]
        clocks["thread"] += {1: 10.0, 2: 1.0}[threads]

    monkeypatch.setattr(speed, "WORKLOADS", {"W1": SimpleNamespace(run=run)})
    monkeypatch.setattr(speed, "_CLOCKS", tuple(lambda name=name: clocks[name] for name in clocks))
    monkeypatch.setattr(speed, "_preemptions", lambda: 0)
    found = speed.threads(3)
    assert found["gain by CPU time"] == pytest.approx(10 / 6)
    assert found["gain"] == pytest.approx(10 / 6.5)
    monkeypatch.setattr(speed, "_preemptions", iter(range(0, 10**6, 100)).__next__)  # never left alone
    assert "gain" not in speed.threads(3)


def test_a_size_is_measured_in_a_process_of_its_own() -> None:
    found = sizes.measure_apart("valley", 2, 120)
    assert found is not None
    assert found["size"] == 2
    assert 0 < found["ns"] < 1e4
    assert sizes.measure_apart("valley", 2, 0.01) is None


def test_one_part_is_measured_anew(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(report, "write", lambda data, root: written.append(data))
    monkeypatch.setitem(speed.PARTS, "warm", lambda given: {"warm start": {"CPU, s": 12.5, "wall clock, s": 13.0}})
    speed.main(["--only", "warm"])
    assert "12.50 s of CPU time" in capsys.readouterr().out
    assert written[0]["workloads"] == measured()["workloads"]
    speed.main(["--only", "warm", "--print"])
    assert len(written) == 1


# -- what the pages show -----------------------------------------------------------------------------------------------


def measured() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ROOT / "docs/speed.json").read_text(encoding="utf-8"))
    return data


def test_the_pages_show_the_measured_numbers() -> None:
    data, text = measured(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.page(data) == (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert report.readme(text, data) == text


def test_a_run_is_written(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"# x\n{report.BEGIN}\nold\n{report.END}\nrest\n", encoding="utf-8")
    data = measured()
    data["workloads"]["W1"].pop("torch.optim", None)  # a rival that is not installed leaves a gap
    report.write(data, tmp_path)
    assert (tmp_path / "docs/speed.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "old" not in text
    assert text.endswith("\nrest\n")
    assert f"| **quasistatic** | **{report.number(data['workloads']['W1']['quasistatic']['ratio'])}** |" in text
    with pytest.raises(ValueError, match="once"):
        report.readme("no table", data)


def test_what_was_not_measured_is_said() -> None:
    data = measured()
    data["sizes"]["valley"] = [{"size": 2, "ns": 1.0, "build_s": 0.1, "compile_s": 1.0, "lines": 9}, {"size": 200, "limit": 100.0}]
    data["threads"] = {"trajectories": 512, "gain by CPU time": 1.9}
    page = report.page(data)
    assert "| 200 | not within 100 s |" in page
    assert "| 2 | 1 | 0.5 | 1.0 | 0.1 |" in page
    assert "not compared" in page


def test_numbers_are_for_reading() -> None:
    assert [report.number(v) for v in (0.1234, 0.999, 4.26, 38.4, 521.3)] == ["0.12", "1.0", "4.3", "38", "521"]
