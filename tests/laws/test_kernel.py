"""Kernels against solvers that share nothing with them, and the laws that every kernel obeys."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import sympy as sp

import quasistatic as qs
from quasistatic.derivation.kernel import LAMBDA_I, LAMBDA_J

# transcriptions: one iteration s' = A s + b g of (parameter, memories), and its hyperparameters
NUMBERS = {
    "sgd": ({"eta": 0.05}, lambda eta: ([[1]], [-eta])),
    "heavy_ball": ({"eta": 0.05, "mu": 0.7}, lambda eta, mu: ([[1, -eta * mu], [0, mu]], [-eta, 1])),
    "heavy_ball_velocity": ({"eta": 0.05, "mu": 0.7}, lambda eta, mu: ([[1, mu], [0, mu]], [-eta, -eta])),
    "ema_momentum": ({"eta": 0.05, "mu": 0.7}, lambda eta, mu: ([[1, -eta * mu], [0, mu]], [-eta * (1 - mu), 1 - mu])),
    "nesterov": ({"eta": 0.05, "mu": 0.7}, lambda eta, mu: ([[1, -eta * mu**2], [0, mu]], [-eta * (1 + mu), 1])),
    "qhm": (
        {"eta": 0.05, "beta": 0.8, "nu": 0.6},
        lambda eta, beta, nu: ([[1, -eta * nu * beta], [0, beta]], [-eta * (1 - nu + nu * (1 - beta)), 1 - beta]),
    ),
    "aggmo": (
        {"eta": 0.01},
        lambda eta: (
            [[1, 0, -eta / 3 * 0.9, -eta / 3 * 0.99], [0, 0, 0, 0], [0, 0, 0.9, 0], [0, 0, 0, 0.99]],
            [-eta, 1, 1, 1],
        ),
    ),
}


def spd(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    W = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return W @ np.diag(rng.uniform(low, high, n)) @ W.T


@pytest.mark.parametrize("name", NUMBERS)
def test_covariance_of_a_random_hessian_and_noise(name):
    """V of the kernel solves the full Kronecker Stein equation of SciPy."""
    hyper, matrices = NUMBERS[name]
    A, b = (np.array(m, dtype=float) for m in matrices(**hyper))
    rng = np.random.default_rng(3)
    H, noise = spd(rng, 4, 0.4, 5.0), spd(rng, 4, 0.2, 2.0)
    q = len(b)
    select = np.eye(q)[0]
    J = np.kron(A, np.eye(4)) + np.kron(np.outer(b, select), H)
    B = np.kron(b[:, None], np.eye(4))
    full = scipy.linalg.solve_discrete_lyapunov(J, B @ noise @ B.T)
    V = qs.derive(qs.zoo.RULES[name]).compile(**hyper).covariance(H, noise)
    np.testing.assert_allclose(V, full[:4, :4], rtol=1e-9)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("time", ["iteration", "continuous"])
def test_matrix_equation_holds(name, time):
    """sum d_ab H^a V H^b = sum n_ab H^a Sigma H^b for non-commuting H and Sigma."""
    hyper, _ = NUMBERS[name]
    law = qs.derive(qs.zoo.RULES[name], time=time)
    rng = np.random.default_rng(4)
    H, noise = spd(rng, 4, 0.4, 5.0), spd(rng, 4, 0.2, 2.0)
    V = law.compile(**hyper).covariance(H, noise)
    at = {law.symbols[k]: v for k, v in hyper.items()}
    left, right = (
        sum(float(c.subs(at)) * np.linalg.matrix_power(H, a) @ M @ np.linalg.matrix_power(H, b) for (a, b), c in side.items())
        for side, M in zip(law.matrix_coefficients, (V, noise), strict=True)
    )
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NUMBERS)
def test_kernel_is_symmetric_and_has_two_curvatures(name):
    kernel = qs.derive(qs.zoo.RULES[name]).kernel
    assert {s.name for s in kernel.free_symbols} <= {"lambda_i", "lambda_j", *NUMBERS[name][0]}
    swapped = kernel.subs({LAMBDA_I: LAMBDA_J, LAMBDA_J: LAMBDA_I}, simultaneous=True)
    assert sp.cancel(sp.together(kernel - swapped)) == 0


SCALED = ["sgd", "heavy_ball", "heavy_ball_velocity", "ema_momentum", "nesterov", "qhm"]


@pytest.mark.parametrize("name", SCALED)
def test_lyapunov_is_the_leading_order_of_stein(name):
    """Under the declared scaling (theory, section 2) the exact kernel tends to the SDE's."""
    rule = qs.zoo.RULES[name]
    e = rule.scaling.e
    substitution = {rule.trace.hyperparameters[n]: v for n, v in rule.scaling.values.items() if n in rule.hyperparameters}
    exact, continuous = (qs.derive(rule, time=t).kernel.subs(substitution) for t in ("iteration", "continuous"))
    ratio = sp.cancel(sp.together(exact / continuous))
    assert sp.cancel(ratio.subs(e, 0)) == 1
    if name != "ema_momentum":
        assert ratio != 1  # they do differ beyond leading order


def test_lyapunov_is_the_leading_order_of_stein_for_aggmo():
    """Three memories: at numbers, the difference is of first order in e."""
    rule = qs.zoo.aggmo.free("beta1", "beta2", "beta3")
    laws = [qs.derive(rule, time=t) for t in ("iteration", "continuous")]
    differences = []
    for e in (1e-3, 5e-4):
        hyper = {"eta": e**2, "beta1": 1 - 0.7 * e, "beta2": 1 - 1.3 * e, "beta3": 1 - 2.1 * e}
        K = [float(law.compile(**hyper).kernel(1.0, 2.5)) for law in laws]
        differences.append(K[0] / K[1] - 1)
    assert abs(differences[0]) < 0.02
    assert differences[0] / differences[1] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("name", SCALED)
def test_sde_kernel_against_a_lyapunov_solver(name):
    """The SDE's kernel solves SciPy's continuous Lyapunov equation of the rule's own leading-order matrices."""
    hyper, _ = NUMBERS[name]
    law = qs.derive(qs.zoo.RULES[name], time="continuous")
    at = {law.symbols[k]: v for k, v in hyper.items()}
    A = np.array(law.linear.A.subs(at).tolist(), dtype=float)
    b = np.array(law.linear.b.subs(at).tolist(), dtype=float)[:, 0]
    rng = np.random.default_rng(5)
    H, noise = spd(rng, 3, 0.4, 5.0), spd(rng, 3, 0.2, 2.0)
    M = np.kron(A, np.eye(3)) + np.kron(np.outer(b, np.eye(len(b))[0]), H)
    B = np.kron(b[:, None], np.eye(3))
    full = scipy.linalg.solve_continuous_lyapunov(M, -B @ noise @ B.T)
    np.testing.assert_allclose(law.compile(**hyper).covariance(H, noise), full[:3, :3], rtol=1e-8)


def test_scaling_rule_keeps_range_and_multiplies_speed():
    law = qs.derive(qs.zoo.heavy_ball)
    B = sp.Symbol("B", positive=True)
    for c in (4, sp.Rational(5, 2)):
        rule = law.scaling_rule(c)
        for change in rule.changes:
            for factor, wanted in ((law.range_factor, 1), (law.speed_factor, c)):
                changed = factor.subs(dict(change), simultaneous=True).subs(B, rule.batch)
                assert sp.cancel(changed / factor) == wanted
    assert len(rule.changes) == 2


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("noise", ["hessian", "isotropic"])
def test_regularizer_by_formula_and_by_quadrature(name, noise):
    hyper, _ = NUMBERS[name]
    law = qs.derive(qs.zoo.RULES[name])
    compiled = law.compile(**hyper)
    numeric = compiled.regularizer(2.0, noise) - compiled.regularizer(1.5, noise)
    if name == "aggmo":
        with pytest.raises(qs.NoPotential, match="linear factors"):
            law.regularizer(noise)
        assert numeric > 0
        return
    rho = law.regularizer(noise)
    at = {law.symbols[k]: v for k, v in hyper.items()} | {sp.Symbol(n, positive=True): 1 for n in ("alpha", "sigma")}
    lam = sp.Symbol("lambda", positive=True)
    assert float((rho.subs(lam, 2) - rho.subs(lam, 1.5)).subs(at)) == pytest.approx(numeric, rel=1e-9)
    assert sp.cancel(sp.together(rho.diff(lam) - law.regularizer_density(noise))) == 0


def test_free_betas_of_aggmo_stay_folded_and_symmetric():
    law = qs.derive(qs.zoo.aggmo.free("beta1", "beta2", "beta3"))
    assert {s.name for s in law.kernel.free_symbols} == {"beta1", "beta2", "beta3", "eta", "lambda_i", "lambda_j"}
    numbers = {"eta": 0.01, "beta1": 0.0, "beta2": 0.9, "beta3": 0.99}
    fixed = qs.derive(qs.zoo.aggmo).compile(eta=0.01)
    assert float(law.compile(**numbers).kernel(0.4, 2.0)) == pytest.approx(float(fixed.kernel(0.4, 2.0)), rel=1e-9)
    assert law.kernel.count_ops() < 40_000  # elementary symmetric functions: in the betas themselves it is over 100 000
