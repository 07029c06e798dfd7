"""The printed formula is the compiled one: LaTeX read back to numbers, against machine code."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import sympy as sp
from reader import Reader, rows_of
from rule_lists import DERIVED

import quasistatic as qs
from quasistatic.show.latex import document, steps
from quasistatic.show.typeset import Equation, symbol_tex

PROBLEMS = {"valley": qs.zoo.valley, "rotated": lambda: qs.zoo.rotated_valley(sp.pi / 6)}
TRIALS = 3


def read_all(result: Any, reader: Reader) -> dict[str, float]:
    """Values of all left-hand sides of a derivation that can be read, definitions of parts first."""
    rows = [row for step in steps(result) for part in step.parts if isinstance(part, Equation) for row in rows_of(part.body)]
    parts = [(left, right) for left, right in rows if re.fullmatch(r"\\mathcal\{P\}_\{\d+\}|K_\{\\mathrm\{[nd]\}\}", left)]
    for left, right in parts:
        reader.names[left] = reader.value(right)
    wanted = [
        (left, right)
        for left, right in rows
        if left.startswith((r"\mathrm{E}[\Delta", r"\frac{\mathrm{E}[", r"K(\lambda_i", r"\gamma", r"\Psi"))
    ]
    return {left: reader.value(right) for left, right in wanted if r"\nabla" not in right and r"\langle" not in right}


def numbers(result: Any, rng: np.random.Generator) -> dict[str, float]:
    """Small random hyperparameters, near the examples of the rule."""
    found = {name: float(rng.uniform(0.1, 0.6)) for name in result.rule.hyperparameters}
    return {**found, **{n: float(rng.uniform(1e-3, 2e-2)) for n in found if n == "eta"}}


@pytest.mark.parametrize("time", ["iteration", "continuous"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("rule", DERIVED)
def test_drift(rule: str, problem: str, time: str) -> None:
    result = qs.derive(qs.zoo.RULES[rule], PROBLEMS[problem](), time=time)
    rng = np.random.default_rng(3)
    for _ in range(TRIALS):
        values = {**numbers(result, rng), "alpha": float(rng.uniform(0.5, 2))}
        flow = result.compile(**values)
        point = float(rng.uniform(0.5, 2))
        (u,) = result.coordinates
        found = read_all(result, Reader({symbol_tex(k): v for k, v in {**values, u.name: point}.items()}))
        (drift,) = (v for k, v in found.items() if r"\mathrm{E}[" in k)
        np.testing.assert_allclose(drift, flow.drift(np.array([point]))[0], rtol=1e-9)
        gain = float(result.gain.subs({s: values[n] for n, s in result.rule.hyperparameters.items()}))
        np.testing.assert_allclose(found[r"\gamma"], gain, rtol=1e-12)


def polynomials(law: Any, reader: Reader) -> list[float]:
    """Values of the filter's numerator and denominator."""
    rows = [row for step in steps(law) for part in step.parts if isinstance(part, Equation) for row in rows_of(part.body)]
    return [reader.value(right) for left, right in rows if re.fullmatch(r"[nd]\((s|\\zeta)\)", left)]


@pytest.mark.parametrize("rule", DERIVED)
def test_hessian(rule: str) -> None:
    """A matrix with a common factor."""
    result = qs.derive(qs.zoo.RULES[rule], PROBLEMS["rotated"]())
    (body,) = (p.body for s in steps(result) if s.title == "Linearisation" for p in s.parts if isinstance(p, Equation) and "H =" in p.body)
    factor, _, rest = body.removeprefix("H =").partition(r"\begin{pmatrix}")
    reader = Reader({"s": 0.7})
    entries = re.split(r"&|\\\\(?:\[[^]]*\])?", rest.partition(r"\end{pmatrix}")[0])
    shown = [reader.value(factor) * reader.value(e) for e in entries]
    (u,) = result.coordinates
    np.testing.assert_allclose(shown, [float(e.subs(u, 0.7)) for e in result.problem.hessian], rtol=1e-12)


@pytest.mark.parametrize("time", ["iteration", "continuous"])
@pytest.mark.parametrize("rule", DERIVED)
def test_kernel(rule: str, time: str) -> None:
    law = qs.derive(qs.zoo.RULES[rule], time=time)
    rng = np.random.default_rng(4)
    for _ in range(TRIALS):
        values = numbers(law, rng)
        a, b = (float(v) for v in rng.uniform(0.5, 3, 2))
        names = {**values, "lambda_i": a, "lambda_j": b, "lambda": a}
        found = read_all(law, Reader({symbol_tex(k): v for k, v in names.items()}))
        (kernel,) = (v for k, v in found.items() if k.startswith("K("))
        np.testing.assert_allclose(kernel, float(law.compile(**values).kernel(a, b)), rtol=1e-9)
        gain = float(law.gain.subs({s: values[n] for n, s in law.rule.hyperparameters.items()}))
        rest = {r"\zeta": 1.0} if time == "iteration" else {"s": 0.0}
        top, bottom = polynomials(law, Reader({**{symbol_tex(k): v for k, v in names.items()}, **rest}))
        np.testing.assert_allclose([found[r"\gamma"], top / bottom], gain, rtol=1e-9)


def test_unknown_functions_and_primes() -> None:
    """With h open, the printed drift is that of the problem with h put in."""
    h = qs.function("h", positive=True)
    result = qs.derive(qs.zoo.heavy_ball, qs.zoo.valley(h))
    values = {"eta": 0.01, "mu": 0.7, "alpha": 1.3}
    functions = {"h": lambda v, order: [2 + np.sin(v), np.cos(v)][order]}
    names = {symbol_tex(k): v for k, v in {**values, "x": 0.4}.items()}
    found = read_all(result, Reader(names, functions))
    flow = result.subs({h: lambda v: 2 + sp.sin(v)}).compile(**values)
    np.testing.assert_allclose(found[r"\mathrm{E}[\Delta x]"], flow.drift(np.array([0.4]))[0], rtol=1e-9)


def test_renamed_symbols_are_the_same_formula() -> None:
    result = qs.derive(qs.zoo.heavy_ball, qs.zoo.valley())
    source = document(result, notation={"eta": r"\gamma", "mu": r"\beta_1", "x": "lr"})
    (row,) = re.findall(r"^\\mathrm\{E\}\[\\Delta \\mathrm\{lr\}\] = (.*)$", source, re.M)
    values = {"eta": 0.01, "mu": 0.7, "alpha": 1.3}
    reader = Reader({r"\gamma": 0.01, r"\beta_{1}": 0.7, r"\alpha": 1.3, r"\mathrm{lr}": 0.4})
    np.testing.assert_allclose(reader.value(row), result.compile(**values).drift(np.array([0.4]))[0], rtol=1e-9)
    (gain,) = re.findall(r"^\\hat\{\\gamma\} = (.*)$", source, re.M)
    assert reader.value(gain) == pytest.approx(0.01 / 0.3)


def test_a_wrong_formula_is_noticed() -> None:
    reader = Reader({r"\eta": 0.5, "x": 2.0})
    assert reader.value(r"- \frac{\eta^{2} x}{2 \left(1 - \eta\right)} + 3 x^{2}") == pytest.approx(-0.5 + 12)
    with pytest.raises(AssertionError):
        reader.value(r"\mu x")
