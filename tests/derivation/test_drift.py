"""The drift on a curved manifold against the finite-difference limit map, which shares nothing with the library."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from oracle import curved_gradient, linear_step, slow_drift

import quasistatic as qs

X = qs.zoo.curved_valley().parameters[0]
SIGMA = [[3, 1, sp.Rational(1, 2)], [1, 2, sp.Rational(1, 3)], [sp.Rational(1, 2), sp.Rational(1, 3), 1]]

# transcriptions of the update rules: s = (z, memory), s' = A s + b g, with the resting memory at z = 1
RULES = {
    "sgd": (qs.zoo.sgd, {"eta": 0.1}, [[1.0]], [-0.1]),
    "heavy_ball": (qs.zoo.heavy_ball, {"eta": 0.05, "mu": 0.6}, [[1, -0.05 * 0.6], [0, 0.6]], [-0.05, 1.0]),
    "nesterov": (qs.zoo.nesterov, {"eta": 0.05, "mu": 0.6}, [[1, -0.05 * 0.36], [0, 0.6]], [-0.05 * 1.6, 1.0]),
    "qhm": (
        qs.zoo.qhm,
        {"eta": 0.2, "beta": 0.8, "nu": 0.7},
        [[1, -0.2 * 0.7 * 0.8], [0, 0.8]],
        [-0.2 * (0.3 + 0.7 * 0.2), 0.2],
    ),
}


def random_covariance(rng: np.random.Generator, d: int = 3) -> np.ndarray:
    factor = rng.normal(size=(d, d))
    return factor @ factor.T


def oracle_drift(A: np.ndarray, b: np.ndarray, rest: np.ndarray, x: float, sigma: np.ndarray) -> float:
    z = np.array([x, x**2, x**3 / 2])
    B = np.kron(b[:, None], np.eye(3))
    return slow_drift(linear_step(A, b, curved_gradient, 3), np.kron(rest, z), B, sigma, lambda s: s[:, :1])[0]


def size_of_terms(slow: qs.SlowDynamics, at: dict) -> float:
    terms = slow.terms
    return float(np.linalg.norm([float(t[0].subs(at)) for t in (terms.flatness, terms.correlation, terms.ito)]))


@pytest.mark.parametrize("name", RULES)
def test_zoo_rule_on_a_curved_valley_with_full_noise(name):
    rule, hyper, A, b = RULES[name]
    sigma = random_covariance(np.random.default_rng(sum(map(ord, name))))
    noise = qs.CovarianceNoise([[sp.Rational(round(1000 * (sigma[max(i, j), min(i, j)])), 1000) for j in range(3)] for i in range(3)])
    slow = qs.derive(rule, qs.zoo.curved_valley(noise=noise))
    at = {slow.symbols[k]: sp.Rational(repr(v)) for k, v in hyper.items()} | {X: sp.Rational(7, 10)}
    terms = [slow.terms.flatness, slow.terms.correlation, slow.terms.ito]
    assert all(t[0] != 0 for t in terms)
    numbers = np.array(noise.matrix.tolist(), dtype=float)
    A, b = np.array(A, dtype=float), np.array(b, dtype=float)
    expected = oracle_drift(A, b, np.array([1.0, *[0.0] * (len(b) - 1)]), 0.7, numbers)
    assert abs(float(slow.drift[0].subs(at)) - expected) < 1e-5 * size_of_terms(slow, at)


@pytest.mark.parametrize("broken", ["flatness", "correlation", "ito"])
def test_the_oracle_notices_a_missing_term(broken):
    """The comparison bites: without any one of the three terms it fails."""
    rule, hyper, A, b = RULES["heavy_ball"]
    slow = qs.derive(rule, qs.zoo.curved_valley(noise=qs.CovarianceNoise(SIGMA)))
    at = {slow.symbols[k]: sp.Rational(repr(v)) for k, v in hyper.items()} | {X: sp.Rational(7, 10)}
    expected = oracle_drift(np.array(A, dtype=float), np.array(b), np.array([1.0, 0.0]), 0.7, np.array(SIGMA, dtype=float))
    without = float((slow.drift[0] - getattr(slow.terms, broken)[0]).subs(at))
    assert abs(without - expected) > 1e-3 * size_of_terms(slow, at)


def random_rule(seed: int) -> tuple[qs.Rule, np.ndarray, np.ndarray, np.ndarray]:
    """A random linear rule with memories, a delay and direct terms, and its matrices (A, b, resting state)."""
    rng = np.random.default_rng(seed)
    while True:
        b1, b2 = rng.integers(-6, 9, 2) / np.longdouble(10)
        c = rng.integers(-3, 4, 8) / np.longdouble(10)
        eta = rng.integers(3, 10) / np.longdouble(100)
        memory = int(rng.integers(1, 4))
        delay, average = bool(rng.integers(2)), bool(rng.integers(2))
        A, b, rest = _matrices(b1, b2, c, eta, memory, delay, average)
        if _stable(A, b, rest):
            return _rule(b1, b2, c, eta, memory, delay, average), A, b, rest


def _matrices(b1, b2, c, eta, memory, delay, average):
    """s = (z, m1, m2, old gradient, old parameter) as far as they are used."""
    n = 5
    A, b = np.zeros((n, n), np.longdouble), np.zeros(n, np.longdouble)
    A[1, 1], b[1] = b1, 1 + c[0]
    if memory >= 2:
        A[2, 1], A[2, 2], b[2] = c[1], b2, c[2]
    if delay:
        b[3] = 1.0
    if average:
        A[4, 0] = 1.0
    A[0, 0] = 1.0
    b[0] = -eta * (1 + c[3])
    A[0, 1] = -eta * c[4]
    A[0, 2] = -eta * c[5] if memory >= 2 else 0
    A[0, 3] = -eta * c[6] if delay else 0
    if average:  # heavy ball written with the old parameter
        A[0, 0] += c[7]
        A[0, 4] -= c[7]
    return A, b, np.array([1.0, 0, 0, 0, 1.0 if average else 0.0])


def _rule(b1, b2, c, eta, memory, delay, average):
    q = [sp.Rational(repr(float(v))) for v in (b1, b2, *c)]
    b1, b2, c = q[0], q[1], q[2:]

    # branches are not allowed inside a rule: build the update from coefficients that may be zero
    second, late, back = int(memory >= 2), int(delay), int(average)

    @qs.optimizer
    def random_filter(z, g, m1, m2, old, last, *, eta):
        step = (1 + c[3]) * g + c[4] * m1 + second * c[5] * m2 + late * c[6] * old
        return (
            z - eta * step + back * c[7] * (z - last),
            b1 * m1 + (1 + c[0]) * g,
            second * (b2 * m2 + c[1] * m1 + c[2] * g),
            late * g,
            back * z,
        )

    return random_filter.fix(eta=repr(float(eta)))


def _stable(A, b, rest):
    """Fast spectral radius at most .98 for the curvatures met, and a gain that descends."""
    for curvature in (0.0, 0.7, 1.5, 3.0, 5.0, 8.0, 12.0, 17.0):  # the valley's, for -0.9 <= x <= 1.2
        M = A.copy()
        M[:, 0] += curvature * b
        sizes = np.sort(np.abs(np.linalg.eigvals(M.astype(float))))
        if curvature == 0:
            if abs(sizes[-1] - 1) > 1e-9:
                return False
            sizes = sizes[:-1]
        if sizes[-1] > 0.98:
            return False
    return True


@pytest.mark.parametrize("seed", range(50))
def test_random_linear_rules(seed):
    rule, A, b, rest = random_rule(seed)
    rng = np.random.default_rng(1000 + seed)
    factor = np.round(rng.normal(size=(3, 3)), 2)
    exact = sp.Matrix(3, 3, lambda i, j: sp.Rational(repr(float(factor[i, j]))))
    problem = qs.zoo.curved_valley(noise=qs.CovarianceNoise(exact * exact.T))
    x = sp.Rational(int(rng.integers(-9, 13)), 10)
    slow = qs.derive(rule, problem)
    expected = oracle_drift(A, b, rest, float(x), np.array((exact * exact.T).tolist(), dtype=float))
    assert abs(float(slow.drift[0].subs(X, x)) - expected) < 1e-5 * size_of_terms(slow, {X: x})
