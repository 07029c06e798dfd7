"""Saving and loading: the same numbers come back, and nothing in a file is executed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.storage import decode, encode

x, y, u, v, s = qs.symbols("x y u v s")
h = qs.function("h", positive=True)
sigma = qs.symbols("sigma", positive=True)


@pytest.mark.parametrize(
    "expression",
    [
        (1 + x**2) * y**2 / 3 - sp.sqrt(1 + x**2),
        sp.exp(-x) * sp.sin(x + sp.pi / 3) + sp.tanh(y) ** 2,
        h(x * sp.cos(y)) ** 2 + sigma,
        sp.Abs(x) + sp.Max(x, y, 0),
    ],
)
def test_expressions(expression):
    tree = json.loads(json.dumps(encode(expression)))
    assert decode(tree) == expression


PROBLEMS = {
    "valley": qs.zoo.valley(),
    "unknown function": qs.zoo.valley(h=h, noise=qs.IsotropicNoise(sigma, normal_only=True)),
    "chart": qs.Problem.from_residuals([u * v - 1], {u: s, v: 1 / s}, qs.LabelNoise(sigma), coordinates={s: u}),
    "curved": qs.zoo.curved_valley(noise=qs.CovarianceNoise([[1, 0, 0], [0, 2, 0.5], [0, 0.5, 1]])),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_slow_dynamics(name, tmp_path):
    slow = qs.derive(qs.zoo.heavy_ball.fix(mu="9/10"), PROBLEMS[name]).leading("eta")
    slow.save(tmp_path / "slow.json")
    again = qs.load(tmp_path / "slow.json")
    assert again.drift == slow.drift
    assert again.rule.source == slow.rule.source
    assert again.rule.fixed == slow.rule.fixed
    assert again.order == slow.order


def test_law(tmp_path):
    law = qs.derive(qs.zoo.nesterov, time="continuous")
    law.save(tmp_path / "law.json")
    assert qs.load(tmp_path / "law.json").kernel == law.kernel


@pytest.mark.parametrize("mode", ["coupled", "adiabatic"])
def test_results_with_slow_states(mode, tmp_path):
    slow = qs.derive(qs.zoo.adam_mini, qs.zoo.two_channels().with_blocks([["theta1", "theta3"], ["theta2", "theta4"]])).leading("eta")
    slow = slow.adiabatic() if mode == "adiabatic" else slow
    slow.save(tmp_path / "slow.json")
    again = qs.load(tmp_path / "slow.json")
    assert type(again) is type(slow)
    assert again.mode == mode
    assert again.drift == slow.drift
    assert again.slow_state == slow.slow_state
    data = json.loads((tmp_path / "slow.json").read_text())
    (tmp_path / "slow.json").write_text(json.dumps({**data, "mode": "frozen"}))
    with pytest.raises(qs.ParseError, match="unknown mode 'frozen'"):
        qs.load(tmp_path / "slow.json")


def test_continuous_results_with_slow_states(tmp_path):
    slow = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(), time="continuous").overdamped()
    slow.save(tmp_path / "slow.json")
    again = qs.load(tmp_path / "slow.json")
    assert type(again) is type(slow)
    assert not again.momentum
    assert again.drift == slow.drift


def test_law_with_slow_states(tmp_path):
    law = qs.derive(qs.zoo.adam)
    law.save(tmp_path / "law.json")
    again = qs.load(tmp_path / "law.json")
    assert type(again) is type(law)
    assert again.regularizer() == law.regularizer()


def test_report_and_ensemble(tmp_path):
    report = qs.derive(qs.zoo.sgd, qs.zoo.valley()).validate(start={x: 2}, steps=500, trajectories=20, eta=1e-2, alpha=0.1)
    report.save(tmp_path / "report.json")
    again = qs.load(tmp_path / "report.json")
    assert str(again) == str(report)
    np.testing.assert_array_equal(again.simulation, report.simulation)
    runs = qs.simulate(qs.zoo.sgd, qs.zoo.valley(), start={x: 2, y: 0}, steps=50, trajectories=5, eta=1e-2, alpha=0.1)
    runs.save(tmp_path / "runs.json")
    np.testing.assert_array_equal(qs.load(tmp_path / "runs.json").final, runs.final)


def test_bad_files(tmp_path):
    def wrote(text: str):
        path = tmp_path / "file.json"
        path.write_text(text)
        return path

    good = tmp_path / "law.json"
    qs.derive(qs.zoo.sgd).save(good)
    data = json.loads(good.read_text())
    for text, message in [
        ("", "damaged"),
        ("[1, 2]", "not a file that quasistatic saved"),
        ("{}", "not a file that quasistatic saved"),
        (json.dumps({**data, "quasistatic": 99}), "format 99"),
        (json.dumps({**data, "kind": "Shell"}), "unknown kind"),
        (json.dumps({**data, "rule": 3}), "damaged"),
        (good.read_text()[:100], "damaged"),
        (good.read_text().replace('"Add"', '"__import__"'), "unknown node '__import__'"),
        (good.read_text().replace('"Mul"', '"Lambda"'), "unknown node 'Lambda'"),
    ]:
        with pytest.raises(qs.ParseError, match=message):
            qs.load(wrote(text))
    with pytest.raises(qs.ParseError, match="cannot read"):
        qs.load(tmp_path / "missing.json")
    with pytest.raises(qs.OutputError, match="cannot write"):
        qs.derive(qs.zoo.sgd).save(tmp_path / "no" / "folder.json")
    assert not list(tmp_path.glob("folder*"))
    deep: list = ["Symbol", "x", {}]
    for _ in range(1000):
        deep = ["exp", deep]
    with pytest.raises(qs.ParseError):
        decode(deep)
