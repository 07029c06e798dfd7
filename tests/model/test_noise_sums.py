"""Tangent noise, and noises that add up, on problems with a formula."""

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.errors import HyperparameterError, ProblemError
from quasistatic.model.noise import SumNoise

x, y = qs.symbols("x y")
alpha, sigma, tau = qs.symbols("alpha sigma tau", positive=True)
TANGENT = qs.IsotropicNoise(tau, tangent_only=True)


def parabola(noise):
    """Minima y = x^2."""
    return qs.Problem.from_residuals([y - x**2], {y: x**2}, noise, parameters=(x, y))


def numbers(matrix, **values):
    return np.array(sp.Matrix(matrix).subs({x: 0.7, **{sp.Symbol(k, positive=True): v for k, v in values.items()}}), dtype=float)


def test_tangent_and_normal_noise_make_up_isotropic_noise():
    normal = parabola(qs.IsotropicNoise(tau, normal_only=True)).covariance
    tangent = parabola(TANGENT).covariance
    assert sp.simplify(normal + tangent - tau**2 * sp.eye(2)) == sp.zeros(2)
    t = sp.Matrix([1, 2 * x])
    assert sp.simplify(tangent * t - tau**2 * t) == sp.zeros(2, 1)


@pytest.mark.parametrize("noise", [TANGENT, qs.LabelNoise(sigma) + TANGENT, qs.HessianNoise(alpha) + qs.IsotropicNoise(sigma) + TANGENT])
def test_factors_square_to_the_covariance(noise):
    problem = parabola(noise)
    values = {"alpha": 0.5, "sigma": 1.3, "tau": 0.4}
    factor = noise.factor(problem)
    C = sp.Matrix(factor.matrix)
    for symbol, e in reversed(factor.assignments):
        C = C.subs(symbol, e)
    C = numbers(C.subs(y, x**2), **values)
    np.testing.assert_allclose(C @ C.T, numbers(problem.covariance, **values), atol=1e-12)


def test_sums_are_flat_and_scale():
    three = qs.LabelNoise(sigma) + (TANGENT + qs.HessianNoise(alpha))
    assert isinstance(three, SumNoise)
    assert len(three.parts) == 3
    double = three.scaled(2)
    assert sp.simplify(parabola(double).covariance - 2 * parabola(three).covariance) == sp.zeros(2)
    with pytest.raises(TypeError):
        three + 1


def test_the_diffusion_along_the_minima_is_that_of_the_tangent_noise():
    """Theory and simulation of a sum: label noise drives the drift, tangent noise the diffusion eta^2 tau^2/(1 + 4x^2)."""
    slow = qs.derive(qs.zoo.sgd, parabola(qs.LabelNoise(sigma) + TANGENT))
    eta = slow.symbols["eta"]
    assert sp.simplify(slow.diffusion[0] - eta**2 * tau**2 / (1 + 4 * x**2)) == 0
    report = slow.validate(start={x: 0.6}, steps=2000, trajectories=128, seed=2, eta=0.02, sigma=0.3, tau=0.2)
    assert report.passed, str(report)


def test_files(tmp_path):
    slow = qs.derive(qs.zoo.sgd, parabola(qs.LabelNoise(sigma) + TANGENT))
    slow.save(tmp_path / "slow.json")
    assert qs.load(tmp_path / "slow.json").problem.noise == slow.problem.noise


def test_refusals():
    with pytest.raises(HyperparameterError, match="exclude each other"):
        qs.IsotropicNoise(1, normal_only=True, tangent_only=True)
    with pytest.raises(ProblemError, match="minibatches"):
        qs.derive(qs.zoo.sgd, parabola(qs.LabelNoise(sigma, batch=1) + TANGENT))
    with pytest.raises(ProblemError, match="perturbs residuals"):
        qs.Problem(y**2, {y: 0}, qs.LabelNoise(sigma) + TANGENT, parameters=(x, y))
