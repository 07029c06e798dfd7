"""The figures' studies: within 5 combined standard errors of independent runs, scaled down, drawn, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import quasistatic as qs
from quasistatic.studies.figures import FIGURES, Study, figure_1, figure_2_left, figure_3_left

#: Simulated numbers of independent runs: quantity, value, its standard error.
PUBLISHED = {
    "fig1": [
        ("eta=.001, sigma=3: x at the end", 1.8199, 0.0043),
        ("eta=.01, sigma=1: x at the end", 0.5845, 0.0023),
        ("eta=.02, sigma=1: x at the end", 0.5061, 0.0026),
        ("across the minima, eta=.002, sigma=4: x at the end", 3.5157, 0.0028),
        ("everywhere, eta=.01, sigma=1: x at the end", 4.729, 0.031),
        ("everywhere, eta=.01, sigma=1: variance of x at the end", 1.979, 0.063),
    ],
    "fig2": [
        ("mu=0: x at the end", 3.1634, 0.0016),
        ("mu=0.5: x at the end", 0.8183, 0.0025),
        ("mu=0.8: x at the end", 0.5197, 0.0033),
        ("mu=0.9: x at the end", 0.0564, 0.0011),
    ],
    "fig3": [
        ("A: log slope / (s/2)", 1.018, 0.004),
        ("B: log slope / (s/2)", 0.999, 0.004),
        ("C: log slope / (s/2)", 1.000, 0.004),
        ("A: <y^2> / (r/4)", 1.018, 0.003),
        ("B: <y^2> / (r/4)", 0.999, 0.003),
        ("C: <y^2> / (r/4)", 1.000, 0.004),
        ("speed A/B", 1.019, 0.006),
        ("speed A/C", 2.036, 0.012),
        ("speed E/C", 4.138, 0.021),
        ("speed F/C", 4.031, 0.021),
        ("<y^2> E/C", 1.034, 0.005),
        ("<y^2> F/C", 1.008, 0.005),
        ("C: eta=0.001, mu=0, B=0.08: x at the end", 2.336, 0.002),
        ("E: eta=0.004, mu=0, B=0.32: x at the end", 2.317, 0.002),
        ("F: eta=0.001, mu=0.75, B=0.32: x at the end", 2.332, 0.002),
    ],
    "fig3-right": [
        ("pi/4: slope", 0.985, 0.005),
        ("pi/6: slope", 1.139, 0.006),
        ("pi/8: slope", 1.395, 0.009),
        ("3pi/8: slope", 1.403, 0.007),
        ("pi/16: slope", 2.571, 0.021),
        ("pi/32: slope", 5.024, 0.048),
        ("pi/64: slope", 10.03, 0.12),
        ("SGD: x after 40000 iterations", 2.7666, 0.0011),
        ("pi/4: x after 40000 iterations", 2.9519, 0.0004),
        ("pi/16: x after 40000 iterations", 2.8705, 0.0014),
        ("pi/32: x after 40000 iterations", 2.7442, 0.0024),
        ("theta=0, eps=0.1: x after 40000 iterations", 2.301, 0.006),
        ("RMSprop, theta=0, eps=0.1: x after 40000 iterations", 2.297, 0.006),
    ],
}  # fmt: skip
#: Ends of the slow ODEs there: quantity, exact, SDE.
ODES = {
    "fig1": [
        ("eta=.001, sigma=3: x at the end", 1.8179, 1.8396),
        ("eta=.01, sigma=1: x at the end", 0.5855, 0.6767),
        ("eta=.02, sigma=1: x at the end", 0.5047, 0.6767),
        ("across the minima, eta=.002, sigma=4: x at the end", 3.5184, 3.5867),
    ],
    "fig2": [
        ("mu=0: x at the end", 3.1629, 3.1881),
        ("mu=0.5: x at the end", 0.8188, 0.8265),
        ("mu=0.8: x at the end", 0.5227, 0.5270),
        ("mu=0.9: x at the end", 0.0551, 0.0555),
    ],
}


#: The paper's figures; the network has tests of its own.
PAPER = [name for name in FIGURES if name in ODES or name in PUBLISHED]


@cache
def study(name: str) -> Study:
    return FIGURES[name]()


@pytest.mark.parametrize("name", PAPER)
def test_the_simulation_agrees_with_the_exact_theory(name: str) -> None:
    assert study(name).passed, str(study(name))


@pytest.mark.parametrize(("name", "quantity", "value", "error"), [(n, *row) for n, rows in PUBLISHED.items() for row in rows])
def test_numbers_agree_with_an_independent_sample(name: str, quantity: str, value: float, error: float) -> None:
    row = study(name).row(quantity)
    assert abs(row.simulation - value) < 5 * np.hypot(row.error, error)


@pytest.mark.parametrize(("name", "quantity", "exact", "sde"), [(n, *row) for n, rows in ODES.items() for row in rows])
def test_slow_odes(name: str, quantity: str, exact: float, sde: float) -> None:
    found = study(name)
    assert found.row(quantity).theory == pytest.approx(exact, abs=1e-4)
    assert found.row(f"{quantity}, SDE").theory == pytest.approx(sde, abs=1e-4)


def test_the_sde_form_is_off_by_a_finite_learning_rate() -> None:
    """Erratum 24: from x = 5, eta h = .26 at eta = .01, and the SDE's end is dozens of standard errors away."""
    assert abs(study("fig1").row("eta=.01, sigma=1: x at the end, SDE").z) > 20
    assert abs(study("fig1").row("eta=.01, sigma=1: <y^2> / V, SDE").z) > 5


def test_full_isotropic_noise_diffuses_along_the_minima() -> None:
    """Erratum 23: at this end single trajectories are spread by more than the whole displacement, which is .23."""
    row = study("fig1").row("everywhere, eta=.01, sigma=1: variance of x at the end")
    assert row.simulation**0.5 > 1 > 5 - study("fig1").row("everywhere, eta=.01, sigma=1: x at the end").simulation


def test_the_speed_factor_alone_decides_the_speed() -> None:
    """Fig. 3: A and B share s and their speeds differ by the finite learning rate only; C has half of it."""
    found = study("fig3")
    assert found.row("speed A/B").theory == pytest.approx(1, abs=0.02)
    assert found.row("speed A/C").theory == pytest.approx(2, abs=0.02)
    assert found.row("speed E/C").theory == pytest.approx(4, abs=0.11)
    assert found.row("speed F/C").theory == pytest.approx(4, abs=0.02)


@pytest.mark.parametrize("name", PAPER)
def test_plots_have_labels_legends_and_bands(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "figure.png"
    figure = study(name).plot(path)
    assert path.stat().st_size > 10_000
    for axes, panel in zip(figure.axes, study(name).panels, strict=True):
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_legend() is not None
        assert (len(axes.collections) > 0) == bool(panel.curves)


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(qs.OutputError, match="cannot write the plot"):
        study("fig2").plot(tmp_path / "nowhere" / "figure.png")


def test_the_table() -> None:
    text = str(study("fig2"))
    assert re.search(r"mu=0: x at the end +3\.16", text)
    assert "verdict" in text
    assert "passed" in text


@pytest.mark.parametrize("figure", [figure_2_left, figure_3_left])
def test_a_scaled_study_is_smaller_and_reports_progress(figure: Callable[..., Study]) -> None:
    calls: list[tuple[int, int]] = []
    small = figure(scale=0.1, progress=lambda done, total: calls.append((done, total)))
    full = study(small.name)
    assert small.provenance["runs"].keys() == full.provenance["runs"].keys()
    assert all(r["trajectories"] < 30 for r in small.provenance["runs"].values())
    assert small.rows[0].error > full.rows[0].error
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1]


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, two = (figure_2_left(scale=0.125) for _ in range(2))
    assert one.rows == two.rows


@pytest.mark.parametrize("scale", [0, -1, 1.5, float("nan")])
def test_senseless_scales_are_refused(scale: float) -> None:
    with pytest.raises(qs.HyperparameterError, match="scale"):
        figure_1(scale=scale)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_agree_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import quasistatic.studies.figures as module

    real = module._simulate
    monkeypatch.setattr(
        module, "_simulate", lambda run, progress: real(module._Run(**{**vars(run), "seed": run.seed + 1000 * seed}), progress)
    )
    for name in PAPER:
        assert FIGURES[name]().passed, name


# -- figure 3, right ---------------------------------------------------------------------------------------------------

ANGLES = {"pi/6": 6, "pi/8": 8, "3pi/8": 8 / 3, "pi/16": 16, "pi/32": 32, "pi/64": 64}


@pytest.mark.parametrize("angle", ANGLES)
def test_speed_against_the_angle_is_one_over_sin_twice_the_angle(angle: str) -> None:
    """Relative to pi/4, with a standard error of at most half a per cent; the coupled system says how far from 1/sin it is."""
    row = study("fig3-right").row(f"{angle}: slope / slope at pi/4, closed form")
    assert row.theory == pytest.approx(1 / np.sin(2 * np.pi / ANGLES[angle]), rel=1e-12)
    assert row.error <= 0.005 * row.simulation
    assert abs(row.z) < 5
    exact = study("fig3-right").row(f"{angle}: slope / slope at pi/4")
    assert exact.theory == pytest.approx(row.theory, rel=0.005)


def test_adam_is_slower_than_sgd_where_the_noise_is_large() -> None:
    """sigma^2 h sin(2 theta) = 2 at about pi/31: Adam moves less than SGD at pi/16 and more at pi/32."""
    end = {n: study("fig3-right").row(f"{n}: x after 40000 iterations") for n in ("SGD", "pi/16", "pi/32")}
    for angle, sign in (("pi/16", 1), ("pi/32", -1)):
        error = np.hypot(end[angle].error, end["SGD"].error)
        assert sign * (end[angle].simulation - end["SGD"].simulation) > 5 * error


def test_the_closed_form_diverges_along_an_axis() -> None:
    """At theta = 0 only the closure with the gradient of the fluctuation follows the simulation at eps = .03."""
    found = study("fig3-right")
    name = "theta=0, eps=0.03: x after 10000 iterations"
    assert found.row(f"{name}, closed form").z > 5
    assert abs(found.row(name).z) < 5


@pytest.mark.slow
def test_another_seed_of_figure_3_right(monkeypatch: pytest.MonkeyPatch) -> None:
    import quasistatic.studies.angles as module

    real = module._runs
    monkeypatch.setattr(module, "_runs", lambda: [module.replace(r, seed=r.seed + 1000) for r in real()])
    assert module.figure_3_right().passed
