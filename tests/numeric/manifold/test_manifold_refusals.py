"""What is wrong with a large problem is said: the zoo's arrays, users' functions, and points where the manifold is degenerate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import quasistatic as qs

LABEL, NORMAL = qs.LabelNoise("1/10"), qs.IsotropicNoise(1, normal_only=True)
x, y = qs.symbols("x y")


def flow(problem: Any, eta: float = 0.01) -> Any:
    return qs.manifold_flow(qs.zoo.sgd, problem, eta=eta)


TWICE = np.ones((2, 1))  # two equal samples with different labels


@pytest.mark.parametrize(
    ("problem", "start", "residual"),
    [
        (qs.zoo.diagonal_network(np.ones((2, 3)), [0.0, 1.0], noise=LABEL), np.ones(6), "0.7071 .from 1."),
        (qs.zoo.mlp(1, 3, 1, TWICE, [0.0, 1.0], noise=LABEL), np.linspace(0.5, 1.5, 9), "0.7071 .from"),
        # all units of a ReLU network are off, and stay off
        (qs.zoo.uv_model(2, [[1.0]], [1.0], "relu", noise=LABEL), {"W1": [[-1.0], [-1.0]], "W2": [[1.0, 1.0]]}, "1 .from 1."),
        # rank 2 is asked of factors of rank 1
        (qs.zoo.matrix_sensing(np.eye(4).reshape(4, 2, 2), [1.0, 0, 0, 0.5], 1, noise=LABEL), [1.0, 0.1, 1.0, 0.1], "0.5 .from"),
    ],
    ids=["contradiction", "network", "dead units", "rank"],
)
def test_no_zero_residual_near_the_start(problem, start, residual):
    with pytest.raises(qs.StartError, match=f"no point of zero residual near the start: .* residual of norm {residual}"):
        flow(problem).trajectory(start, 10)


@pytest.mark.parametrize(
    ("problem", "start", "where"),
    [
        (qs.Problem.from_residuals([x * y], noise=NORMAL, parameters=(x, y)), [0.0, 1.0], r"z = \(0, [\d.e-]+\)"),
        (qs.zoo.diagonal_network(np.eye(2), [0.0, 1.0], "product", NORMAL, scale=0.5), [1.0, 1, 0, 1], r"z = \([\d.e-]+, 1, 0, 1\)"),
    ],
    ids=["symbols", "arrays"],
)
def test_the_jacobian_loses_rank_on_the_way(problem, start, where):
    """The product of two numbers is 0: isotropic noise takes the one that is not 0 there too, in finite time, to where branches cross."""
    with pytest.raises(qs.UnstableError, match=rf"ends at iteration 9[78]\S* .*rank.*{where}|ends at iteration 9[78]\S* {where}.*rank"):
        flow(problem, 0.1).trajectory(start, 100_000, record=50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: qs.zoo.matrix_factorization(2, 3, 2, np.ones((3, 2))), r"target has shape \(3, 2\), but m = 2 and n = 3"),
        (lambda: qs.zoo.matrix_factorization(2, 2, 0, np.eye(2)), "p = 0 is not a positive"),
        (lambda: qs.zoo.matrix_sensing(np.ones((4, 2, 2)), np.ones(3), 1), "4 operators and 3 targets"),
        (lambda: qs.zoo.diagonal_network(np.ones((4, 2)), np.ones(3)), "X has 4 rows and y 3"),
        (lambda: qs.zoo.uv_model(2, np.ones((4, 2)), np.ones(3)), r"X has shape \(4, 2\) and y \(3, 1\)"),
        (lambda: qs.zoo.mlp(3, 2, 1, np.ones((4, 2)), np.ones(4)), r"X has shape \(4, 2\), but the network has 3 inputs"),
        (lambda: qs.zoo.mlp(2, 2, 1, np.ones((4, 2)), np.ones((4, 2))), r"y has shape \(4, 2\); .* need \(4, 1\)"),
        (lambda: qs.zoo.deep_linear((2, 2, 2), np.ones((4, 2)), np.ones(4)), r"y has shape \(4, 1\); .* need \(4, 2\)"),
        (lambda: qs.zoo.matrix_factorization(2, 2, 2, [[1.0, np.nan], [0, 1]]), "NaN|finite"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_match(make, message):
    with pytest.raises(qs.ProblemError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: qs.zoo.matrix_factorization(3, 3, 2, np.eye(3)), lambda: qs.zoo.two_layer_linear(np.eye(3), 2)], ids=["UW", "W2W1"]
)
def test_a_target_of_too_high_a_rank(make):
    with pytest.raises(qs.ProblemError, match="the target has rank 3, above .*2.* cannot reach it"):
        make()


@pytest.mark.parametrize(
    "use", [lambda p: flow(p), lambda p: qs.simulate(qs.zoo.sgd, p, np.ones(8), 10, eta=0.01)], ids=["manifold_flow", "simulate"]
)
def test_a_batch_larger_than_the_data(use):
    problem = qs.zoo.matrix_factorization(2, 2, 2, np.eye(2), qs.LabelNoise("1/10", batch=5))
    with pytest.raises(qs.ProblemError, match=r"batch=5.*larger than the data, 4 residual"):
        use(problem)


# -- users' functions --------------------------------------------------------------------------------------------------

#: x y = 1 and z = 1 in three parameters.
RIGHT: dict[str, Any] = {
    "residuals": lambda z: np.array([z[0] * z[1] - 1, z[2] - 1]),
    "jacobian": lambda z: np.array([[z[1], z[0], 0], [0, 0, 1.0]]),
    "hvp": lambda z, c, w: np.array([c[0] * w[1], c[0] * w[0], 0]),
}


def given(**functions: Any) -> Any:
    return flow(qs.ArrayProblem.from_functions(**{**RIGHT, **functions}, shapes=3, count=2, noise=LABEL))


def test_the_right_functions_are_accepted():
    drift = given().drift([2.0, 0.5, 1.0])
    assert drift[0] < 0 < drift[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"residuals": lambda z: z[:1]}, r"residuals\(z\) returned shape \(1,\); expected \(2,\)"),
        ({"residuals": lambda z: np.array([np.nan, 0])}, r"residuals\(z\) returned NaN"),
        ({"residuals": lambda z: "two"}, "residuals.*not an array of numbers"),
        ({"jacobian": lambda z: np.ones((3, 2))}, r"jacobian\(z\) returned shape \(3, 2\); expected \(2, 3\)"),
        ({"jacobian": lambda z: np.full((2, 3), np.inf)}, r"jacobian\(z\) returned NaN or infinity"),
        ({"jacobian": lambda z: np.ones((2, 3))}, "not consistent: jvp.* finite differences of the residuals"),
        ({"jacobian": None, "vjp": lambda z, c: c}, r"vjp\(z, c\) returned shape \(2,\); expected \(3,\)"),
        ({"hvp": lambda z, c, w: np.zeros(2)}, r"hvp\(z, c, w\) returned shape \(2,\); expected \(3,\)"),
        ({"hvp": lambda z, c, w: np.full(3, np.nan)}, r"hvp\(z, c, w\) returned NaN"),
        ({"hvp": lambda z, c, w: np.zeros(3)}, "not consistent: hvp.* finite differences of vjp"),
        ({"hvp": lambda z, c, w: None}, r"hvp\(z, c, w\) returned shape \(\)"),
    ],
)  # fmt: skip
def test_users_functions(wrong, message):
    with pytest.raises(qs.ProblemError, match=message):
        given(**wrong).trajectory([2.0, 0.5, 1.0], 10)


def test_functions_that_become_nan_on_the_way():
    """log is fine at the start of Gauss-Newton, which steps to where it is not."""
    logarithm = {
        "residuals": lambda z: np.array([np.log(z[0]), z[2] - 1]) if z[0] > 0 else np.array([np.nan, 0]),
        "jacobian": lambda z: np.array([[1 / z[0], 0, 0], [0, 0, 1.0]]),
        "hvp": lambda z, c, w: np.array([-c[0] * w[0] / z[0] ** 2, 0, 0]),
    }
    with pytest.raises(qs.ProblemError, match=r"residuals\(z\) returned NaN"):
        given(**logarithm).trajectory([5.0, 1.0, 1.0], 10)


def test_a_jax_function_that_is_nan():
    jnp = pytest.importorskip("jax.numpy")
    problem = qs.ArrayProblem.from_jax(lambda a: jnp.sqrt(a[:1] - a[1:2]), shapes={"a": (3,)}, noise=LABEL)
    with pytest.raises(qs.ProblemError, match="NaN"):
        flow(problem).drift([1.0, 2.0, 1.0])
    with pytest.raises(qs.ProblemError, match=r"cannot be traced for \{'a': \(3,\)\}"):
        qs.ArrayProblem.from_jax(lambda a: a @ jnp.ones(4), shapes={"a": (3,)}, noise=LABEL)
