"""Loops over tables compute what straight-line code computes, for any map, and stay small."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from lane_reference import interpret

import quasistatic.zoo as zoo
from quasistatic.model.noise import LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.trace import optimizer
from quasistatic.numeric import loops
from quasistatic.numeric.kernel import StochasticMap, best_lanes, is_large, lane_choice, lane_program, operations
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.random import normals
from quasistatic.numeric.unfold import map_numbers, unfold
from quasistatic.symbols import absolute, clip, exp, maximum, mean, sign, sqrt, symbols


def factorization(m: int, n: int, p: int) -> StochasticMap:
    """Heavy ball on ||U W^T - M||^2 with label noise, as a map written by hand."""
    U, W = (
        sp.Matrix(m, p, lambda i, k: sp.Symbol(f"U {i} {k}", real=True)),
        sp.Matrix(n, p, lambda j, k: sp.Symbol(f"W {j} {k}", real=True)),
    )
    eta, mu, sigma = sp.symbols("eta mu sigma", positive=True)
    target = np.random.default_rng(0).normal(size=(m, n))
    data = {sp.Symbol(f"data {i} {j}", real=True): target[i, j] for i in range(m) for j in range(n)}
    pull = sp.Matrix(m, n, lambda i, j: sp.Symbol(f"pull {i} {j}", real=True))
    noise = sp.Matrix(m, n, lambda i, j: sp.Symbol(f"n {i} {j}", real=True))
    residual = U * W.T - sp.Matrix(m, n, list(data)) + sigma * noise
    z = [*U, *W]
    g = [sp.Symbol(f"g {s.name}", real=True) for s in z]
    b = [sp.Symbol(f"b {s.name}", real=True) for s in z]
    gradient = [*(pull * W), *(pull.T * U)]
    assignments = [*((q, sp.Mul(2, r, evaluate=False)) for q, r in zip(pull, residual, strict=True)), *zip(g, gradient, strict=True)]
    new = [mu * bi + gi for bi, gi in zip(b, g, strict=True)]
    updates = [*(zi - eta * ni for zi, ni in zip(z, new, strict=True)), *new]
    return StochasticMap((*z, *b), (eta, mu, sigma), tuple(noise), tuple(assignments), tuple(updates), None, data)


def final(step: StochasticMap, numbers, start, steps=20, trajectories=35, **options) -> np.ndarray:
    lanes = Lanes(lane_program(step, **options), numbers, 3, trajectories)
    lanes.set_state(start)
    lanes.advance(steps)
    return lanes.states


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 2, 11)])
def test_factorization(shape):
    m, n, p = shape
    step = factorization(m, n, p)
    numbers = [0.01, 0.9, 0.1, *step.numbers]
    rng = np.random.default_rng(1)
    start = np.concatenate([rng.normal(size=(35, (m + n) * p)) / 3, np.zeros((35, (m + n) * p))], axis=1)
    found = final(step, numbers, start, large=True)
    np.testing.assert_allclose(found, final(step, numbers, start, large=False), rtol=1e-10, atol=1e-12)

    # and both against NumPy
    U, W = start[:, : m * p].reshape(-1, m, p).copy(), start[:, m * p : (m + n) * p].reshape(-1, n, p).copy()
    bU, bW, M = np.zeros_like(U), np.zeros_like(W), np.array(step.numbers).reshape(m, n)
    for noise in normals(3, 35, 20, m * n).transpose(1, 0, 2):
        pull = 2 * (U @ W.transpose(0, 2, 1) - M + 0.1 * noise.reshape(-1, m, n))
        bU, bW = 0.9 * bU + pull @ W, 0.9 * bW + pull.transpose(0, 2, 1) @ U
        U, W = U - 0.01 * bU, W - 0.01 * bW
    expected = np.concatenate([a.reshape(35, -1) for a in (U, W, bU, bW)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@optimizer
def many_functions(z, g, m, v, *, eta, beta, eps, t):
    m = beta * m + (1 - beta) * clip(g, -1, 1)
    v = maximum(v, g**2) + mean(absolute(g)) * exp(-(z**2))
    return z - eta * m / (1 - beta**t) / (sqrt(v) + eps) - eta * sign(m) * z**3, m, v


@pytest.mark.parametrize(
    ("rule", "problem", "values"),
    [
        (many_functions, zoo.curved_valley(), {"eta": 0.01, "beta": 0.9, "eps": 1e-3, "alpha": 0.1}),
        (zoo.nesterov, zoo.rotated_valley(), {"eta": 0.01, "mu": 0.9, "alpha": 0.1, "theta": 0.5}),
    ],
)
def test_any_rule(rule, problem, values, monkeypatch):
    """Functions, conditions, means, the iteration number; with one operation per statement too."""
    start = np.random.default_rng(2).normal(size=(20, len(unfold(rule, problem).variables))) / 4
    step = unfold(rule, problem)
    numbers = map_numbers(step, values)
    straight, looped = (final(step, numbers, start, 30, 20, large=large) for large in (False, True))
    assert np.isfinite(straight).all()
    np.testing.assert_allclose(looped, straight, rtol=1e-9, atol=1e-12)

    silent = unfold(rule, problem, False)
    programs = [lane_program(silent, lanes=16, large=False), lane_program(silent, lanes=16, large=True)]
    monkeypatch.setattr(loops, "MOST_GROUPS", 0)
    programs.append(lane_program(silent, lanes=16, large=True))
    assert programs[2].source.count("store_row(") > programs[1].source.count("store_row(")
    expected, *found = (interpret(p, map_numbers(silent, values), start[:5], 4) for p in programs)
    for one in found:
        np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-14)


x, y, z, a = (sp.Symbol(n, real=True) for n in "xyza")
leaves = st.sampled_from([x, y, z, a, sp.Integer(2), sp.Rational(1, 3), sp.Integer(-1)])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=12).map(lambda t: sp.Add(*t)),
        st.lists(inner, min_size=2, max_size=3).map(lambda t: sp.Mul(*t)),
        inner.map(sp.sin),
        inner.map(lambda u: 1 / (2 + u**2)),
        st.tuples(inner, inner).map(lambda t: sp.Max(*t)),
    ),
    max_leaves=15,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(trees, trees, trees, st.sampled_from([1, 4, 16]))
def test_random_maps(u, v, w, grain):
    s = sp.Symbol("s 0", real=True)
    choice = sp.Piecewise((sp.cos(u - s), (x > y) & (s > a)), (s * y, True), evaluate=False)
    step = StochasticMap((x, y, z), (a,), (), ((s, u + v),), (sp.sin(s * w), choice, 1 / (1 + s**2)))
    start = np.random.default_rng(3).normal(size=(4, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "GRAIN", grain)
        one, two = (interpret(lane_program(step, lanes=16, large=large), [0.7], start, 2) for large in (False, True))
    np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(("large", "generator"), [(False, "xoshiro"), (True, "xoshiro"), (False, "philox")])
def test_the_number_of_lanes_does_not_matter(large, generator):
    step = factorization(2, 3, 2)
    start = np.linspace(-1, 1, 20)
    runs = [final(step, [0.01, 0.9, 0.1, *step.numbers], start, 25, 70, large=large, generator=generator, lanes=k) for k in (16, 32, 64)]
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("trajectories", "threads", "small", "large"),
    [(1, 1, 32, 16), (16, 1, 32, 16), (32, 1, 32, 32), (64, 1, 64, 32), (64, 2, 32, 32), (128, 2, 64, 32), (33, 2, 32, 32), (48, 3, 32, 16),
     (65, 1, 32, 32), (4096, 1, 64, 32), (4096, 2, 64, 32)],
)  # fmt: skip
def test_lanes_fit_trajectories_and_threads(trajectories, threads, small, large):
    assert lane_choice(trajectories, threads) == (small, large)
    step = factorization(2, 2, 2)
    assert best_lanes(step, trajectories, threads) == small
    assert best_lanes(factorization(4, 4, 4), 64) == 32  # 80 rows of 64 would not stay in the first-level cache


def test_size_of_the_source_does_not_grow():
    small, big = (lane_program(factorization(m, m, m), large=True) for m in (9, 16))
    assert max(p.source.count("store_row(") for p in (small, big)) <= 10
    assert len(small.source) < 20_000


def test_operations_are_counted():
    """2 m n p for the residuals, 4 m n p for the gradients, and a few for every residual and variable."""
    for m in (4, 8, 12):
        step = factorization(m, m, m)
        assert is_large(step) == (m > 4)
        assert 6 * m**3 <= operations(step) <= 6 * m**3 + 16 * m**2


def test_a_large_problem_from_its_residuals():
    """Unfolded, rolled up and run: 12 residuals in 13 parameters that share one; the slope is checked by differences."""
    s = symbols("s")
    p = symbols("p:12")
    residuals = [(1 + s**2 + i * s / 9) * q + q**3 + q * s for i, q in enumerate(p, 1)]
    problem = Problem.from_residuals(residuals, dict.fromkeys(p, 0), LabelNoise(sp.Rational(1, 10)), parameters=(*p, s))
    silent = unfold(zoo.sgd, problem, False)
    values = map_numbers(silent, {"eta": 1.0})
    start = np.random.default_rng(0).normal(size=13) / 3
    gradient = start - final(silent, values, start, 1, 1, large=True)[0]

    def loss(v):
        i = np.arange(1, 13)
        return 0.5 * np.sum(((1 + v[12] ** 2 + i * v[12] / 9) * v[:12] + v[:12] ** 3 + v[:12] * v[12]) ** 2)

    h = 1e-6
    differences = [(loss(start + h * e) - loss(start - h * e)) / (2 * h) for e in np.eye(13)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)


def test_rows_are_used_again():
    """Sums of 64 products are chains of eight partial sums; rows are needed for two of each at a time, and for what comes out."""
    program = lane_program(factorization(6, 6, 64), large=True)
    variables, chains = 2 * 2 * 6 * 64, 36
    scratch = program.rows - program.state_rows
    assert variables + 2 * chains <= scratch < variables + 4 * chains
