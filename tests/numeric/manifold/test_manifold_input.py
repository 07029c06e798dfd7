"""Bad input of manifold flows: each mistake gets an error that says what, where and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from manifold_models import Factorization, factorization

import quasistatic as qs

x, y, w = qs.symbols("x y w")


def test_no_point_of_zero_residual():
    """A target of rank 2 for factors of rank 1; the smallest residual is its second singular value."""
    problem = qs.ArrayProblem(Factorization(3, 3, 1, np.diag([2.0, 0.5, 0])), qs.LabelNoise(0.1))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01)
    with pytest.raises(qs.StartError, match=r"no point of zero residual near the start: .* residual of norm 0\.5 "):
        flow.trajectory(np.array([1.4, 0.1, 0.1, 1.4, 0.1, 0.1]), 10)


def test_residuals_that_explode_on_the_way_to_the_manifold():
    problem = qs.Problem.from_residuals([sp.log(x) - y], noise=qs.LabelNoise(1), parameters=(x, y))
    with pytest.raises(qs.StartError, match="not finite"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).project([-1.0, 0.0])


def test_a_degenerate_point_is_named():
    """u v = 0: where both branches cross the Jacobian vanishes."""
    problem = qs.Problem.from_residuals([x * y, w - 1], noise=qs.LabelNoise(1), parameters=(x, y, w))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01)
    with pytest.raises(qs.UnstableError, match=r"rank 1 at z = \(0, 0, 1\), 2 elsewhere"):
        flow.drift([0.0, 0.0, 1.0])
    assert flow.drift([0.0, 1.0, 1.0]) == pytest.approx(np.array([0, -0.5 * 0.01**2 / (1 - 0.005), 0]), rel=1e-9)


def test_a_path_into_a_degenerate_point_ends_there():
    """Isotropic noise on x y = 0, y > 0 pulls y to 0 in finite time."""
    problem = qs.Problem.from_residuals([x * y], noise=qs.IsotropicNoise(1, normal_only=True), parameters=(x, y))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.1)
    with pytest.raises(qs.UnstableError, match="rank|edge|unstable|ends"):
        flow.trajectory([0.0, 1.0], 100_000, record=50)


def test_an_isolated_zero_is_no_manifold():
    problem = qs.Problem.from_residuals([x, y - 1], noise=qs.LabelNoise(1), parameters=(x, y))
    with pytest.raises(qs.ProblemError, match="isolated"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).drift([0.0, 1.0])


def test_unstable_numbers_name_the_inequality():
    problem, z = factorization(noise=qs.LabelNoise(0.1), scale=1.0)
    with pytest.raises(qs.UnstableError, match="eta"):
        qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=1.0, mu=0.5).trajectory(z, 10)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.zeros(9), r"shape \(9,\); expected \(10,\)"), (np.full(10, np.nan), "not finite"), ({"U": np.zeros((2, 2))}, "no values for W"),
        ({"U": np.zeros((2, 2)), "V": 0, "W": 0}, "V is not an array"), ({"U": np.zeros((2, 2)), "W": np.zeros((2, 2))}, "W has shape"),
        ("here", "not an array of numbers"),
    ],
)  # fmt: skip
def test_starts(start, message):
    problem, _ = factorization(noise=qs.LabelNoise(0.1))
    with pytest.raises(qs.StartError, match=message):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).trajectory(start, 10)


def test_names_and_numbers():
    problem, z = factorization(noise=qs.LabelNoise(sp.Symbol("sigma", positive=True)))
    for hyper, message in (
        ({"eta": 0.1}, "no value for sigma"), ({"eta": 0.1, "sgma": 1}, "sgma"), ({"eta": "x", "sigma": 1}, "eta"),
        ({"eta": -1, "sigma": 1}, "negative"), ({"eta": 0.1, "sigma": 1, "leading": "eat"}, "eat"),
    ):  # fmt: skip
        with pytest.raises(qs.HyperparameterError, match=message):
            qs.manifold_flow(qs.zoo.sgd, problem, **hyper)
    with pytest.raises(qs.ProblemError, match="no noise"):
        qs.manifold_flow(qs.zoo.sgd, factorization()[0], eta=0.1)
    with pytest.raises(qs.ProblemError, match="only 6 residual"):
        qs.manifold_flow(qs.zoo.sgd, problem.with_noise(qs.LabelNoise(1, batch=7)), eta=0.1)
    with pytest.raises(qs.ProblemError, match="10 parameters"):
        qs.manifold_flow(qs.zoo.sgd, problem.with_noise(qs.CovarianceNoise(sp.eye(3))), eta=0.1)
    with pytest.raises(qs.ProblemError, match="not a problem"):
        qs.manifold_flow(qs.zoo.sgd, None, eta=0.1)
    with pytest.raises(qs.RuleError, match="not an update rule"):
        qs.manifold_flow(lambda z, g: z, problem, eta=0.1)
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.1, sigma=0.1)
    with pytest.raises(qs.RuleError, match="gauss-newton"):
        flow.project(z, "newton")
    with pytest.raises(qs.RuleError, match="no slow states"):
        flow.drift(z, np.ones(10))
    with pytest.raises(qs.QuasistaticError, match="steps"):
        flow.trajectory(z, 10.5)


def test_label_noise_needs_residuals():
    problem = qs.Problem((1 + x**2) * y**2, {y: 0}, qs.HessianNoise(1), parameters=(x, y))
    assert qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).drift([1.0, 0.0])[0] < 0
    with pytest.raises(qs.ProblemError, match="residuals"):
        problem.with_noise(qs.LabelNoise(1))
