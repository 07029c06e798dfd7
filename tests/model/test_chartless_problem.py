"""Problems from residuals without minima: what works without a chart, and what says that it does not."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs

x, y, w = qs.symbols("x y w")
a = qs.symbols("a", positive=True)


def saddle(noise=None, **options) -> qs.Problem:
    return qs.Problem.from_residuals([w - a * x * y], noise=noise, parameters=(x, y, w), name="saddle", **options)


def test_what_it_is():
    problem = saddle(qs.LabelNoise("1/3"))
    assert not problem.has_chart
    assert problem.coordinates == ()
    assert problem.constants == (a,)
    assert "minima residuals = 0" in repr(problem)
    again = pickle.loads(pickle.dumps(problem))
    assert again.residuals == problem.residuals
    assert not again.has_chart
    assert problem.subs({a: 2}).residuals == (w - 2 * x * y,)
    assert problem.with_noise(qs.HessianNoise(1)).noise == qs.HessianNoise(1)


@pytest.mark.parametrize("look", [lambda p: p.chart, lambda p: p.hessian, lambda p: p.covariance, lambda p: qs.derive(qs.zoo.sgd, p)])
def test_formulas_need_a_chart(look):
    with pytest.raises(qs.ProblemError, match=r"no chart.*qs\.manifold_flow"):
        look(saddle(qs.LabelNoise("1/3")))


def test_minima_are_still_needed_without_residuals():
    with pytest.raises(qs.ProblemError, match="minima is a mapping"):
        qs.Problem(x**2, None)
    with pytest.raises(qs.ProblemError, match="coordinates need minima"):
        qs.Problem.from_residuals([w - x * y], coordinates={x: x})


@pytest.mark.parametrize(
    "noise", [qs.LabelNoise(0.2), qs.HessianNoise(0.04), qs.CovarianceNoise(sp.diag(0, 0, "1/25"))], ids=lambda n: type(n).__name__
)
def test_simulation_of_the_fast_variance(noise):
    """At x = y = 0 the residual is w alone, and stays so up to its products: Var(w) = eta sigma^2/(2 - eta) with all three noises."""
    runs = qs.simulate(qs.zoo.sgd, saddle(noise), {"x": 0, "y": 0, "w": 0}, 2000, trajectories=4000, record=1, seed=1, eta=0.2, a=1)
    expected = 0.2 * 0.04 / 1.8
    assert abs(runs.final[:, 2].var() / expected - 1) < 5 * np.sqrt(2 / 4000)


def test_simulation_with_isotropic_noise():
    problem = saddle(qs.IsotropicNoise(0.2))
    runs = qs.simulate(qs.zoo.sgd, problem, {"x": 0, "y": 0, "w": 0}, 100, trajectories=4000, record=1, seed=1, eta=0.2, a=1)
    assert abs(runs.final[:, 0].var() / (100 * 0.04**2) - 1) < 0.2  # diffusion along the manifold, up to its curvature
    with pytest.raises(qs.ProblemError, match="normal space at every iterate"):
        qs.simulate(qs.zoo.sgd, saddle(qs.IsotropicNoise(1, normal_only=True)), {"x": 0, "y": 0, "w": 0}, 10, eta=0.1, a=1)


def test_noise_is_checked():
    with pytest.raises(qs.ProblemError, match="not positive semidefinite"):
        saddle(qs.CovarianceNoise([[0, 1, 0], [1, 0, 0], [0, 0, 0]]))
    with pytest.raises(qs.ProblemError, match="not supported yet"):
        qs.simulate(qs.zoo.sgd, saddle(qs.LabelNoise(1, batch=1)), {"x": 0, "y": 0, "w": 0}, 10, eta=0.1, a=1)


def test_a_constant_of_the_problem_is_asked_for():
    with pytest.raises(qs.HyperparameterError, match="no value for a"):
        qs.manifold_flow(qs.zoo.sgd, saddle(qs.LabelNoise(1)), eta=0.1)
    flow = qs.manifold_flow(qs.zoo.sgd, saddle(qs.LabelNoise("1/2")), eta=0.1, a=2)
    # V = eta alpha/2 /(1 - eta h/2) n n^T, h = 1 + 4(x^2 + y^2), and the drift descends log(1 - eta h/2) along the surface
    z = np.array([0.3, 0.0, 0.0])
    h = 1 + 4 * 0.09
    expected = -(0.1**2) * 0.25 / 4 / (1 - 0.05 * h) * 8 * 0.3
    assert flow.drift(z) == pytest.approx([expected, 0, 0], rel=1e-9)
