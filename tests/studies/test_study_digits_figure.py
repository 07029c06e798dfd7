"""The README's figure: the network against its theory. The full study is a slow test; a small network is drawn by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quasistatic as qs
from quasistatic.studies import digits
from quasistatic.studies.digits_figure import DigitsStudy, figure_digits, null_run

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def small() -> digits.DigitsTask:
    return digits.setup(0, samples=30, hidden=20)


@pytest.fixture(scope="module")
def drawn(small: digits.DigitsTask) -> tuple[DigitsStudy, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    return figure_digits(0.5, lambda done, total: calls.append((done, total)), small, steps=2000), calls


def test_the_picture(drawn: tuple[DigitsStudy, list[tuple[int, int]]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = drawn[0].plot(tmp_path / "digits.png")
    assert (tmp_path / "digits.png").stat().st_size > 20_000
    assert len(figure.axes) == 5
    for axes in figure.axes:
        assert axes.get_ylabel()
        assert axes.get_legend() is not None
    labels = {t.get_text() for t in figure.axes[0].get_legend().get_texts()}
    assert len(labels) == 4
    with pytest.raises(qs.OutputError, match="cannot write the plot"):
        drawn[0].plot(tmp_path / "nowhere" / "digits.png")


def test_the_table_and_the_progress(drawn: tuple[DigitsStudy, list[tuple[int, int]]]) -> None:
    study, calls = drawn
    text = str(study)
    assert "rate 0.5: drop of tr H" in text
    assert "(additive) rate 1: drop of tr H" in text
    assert "(no label noise) drop of tr H" in text
    assert len(study.rows) == 6
    assert len({repr(r) for r in study.provenance["runs"]}) == 7
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == (1000, 1000)


def test_other_rates_have_equal_slow_time(drawn: tuple[DigitsStudy, list[tuple[int, int]]]) -> None:
    clocks = [c.full.eta**2 * c.full.steps[-1] for c in drawn[0].cases]
    assert clocks == pytest.approx(clocks[:1] * 3)
    leading = [c.theories["leading"].drop for c in drawn[0].cases]
    assert leading == pytest.approx(leading[:1] * 3, rel=1e-4)


def test_without_label_noise_nothing_drifts(small: digits.DigitsTask) -> None:
    """The spread of the start decays; after that the limit stands still."""
    run = null_run(small, steps=20_000, trajectories=4)
    driven = digits.predict(small, digits.flow(small), 20_000, 2)
    assert abs(run.drop[0]) < 0.01 * driven.drop
    assert run.distance()[0] < 0.02 * np.linalg.norm(driven.displacement)


def test_senseless_scales_are_refused() -> None:
    with pytest.raises(qs.HyperparameterError, match="scale"):
        figure_digits(scale=2)


@pytest.mark.slow
def test_the_network() -> None:
    """Drop of tr H, displacement and accuracy within errors; within 1 percent at the noise as it is; the other theories rejected."""
    study = figure_digits()
    assert study.passed, str(study)
    main = study.cases[0]
    drop, displacement, _ = main.rows("sampling", "full")
    assert drop.theory / main.full.trace[0].mean() > 0.45
    assert drop.simulation == pytest.approx(drop.theory, rel=0.01 + 2 * drop.error / drop.theory)
    assert displacement.simulation == pytest.approx(displacement.theory, rel=0.03)
    for case in study.cases:
        for which in ("full", "extrapolated"):
            assert case.rows("additive", which)[0].z > 5
            assert case.rows("leading", which)[0].z > 5
        # closer to the sampling theory than to any other, displacement too
        for i in (0, 1):
            found = {t: abs(case.rows(t)[i].simulation - case.rows(t)[i].theory) for t in digits.THEORIES}
            assert min(found, key=lambda t: found[t]) == "sampling"
    assert study.heavy_ball is not None
    assert study.heavy_ball.rows("leading")[0].z > 5
    assert abs(study.row("(no label noise) drop of tr H").simulation) < 0.005 * drop.theory
