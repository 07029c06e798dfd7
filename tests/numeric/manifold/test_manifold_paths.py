"""Paths on manifolds without a chart: published end values, the symbolic flow, conserved quantities, and simulations."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from manifold_models import Factorization, factorization

import quasistatic as qs

FIVE = np.diag([3, 2.5, 2, 1.5, 1])


def five(noise: qs.LabelNoise) -> tuple[qs.ArrayProblem, np.ndarray]:
    """The 5x5x5 factorization of the quasistatic paper's Figure 2, in the basis in which the target is diagonal."""
    return qs.ArrayProblem(Factorization(5, 5, 5, FIVE), noise, 1.0), np.concatenate([FIVE.ravel(), np.eye(5).ravel()])


@pytest.mark.parametrize(
    ("rule", "hyper", "sigma", "steps", "end"),
    [
        ("sgd", {"eta": 1e-3}, 1, 200_000, 21.211), ("sgd", {"eta": 5e-3}, 0.5, 32_000, 21.144),
        ("sgd", {"eta": 2e-2}, 0.25, 8_000, 20.900),
        ("heavy_ball", {"eta": 1e-3, "mu": 0.9}, 0.3, 20_000, 21.476), ("heavy_ball", {"eta": 2e-3, "mu": 0.5}, 0.5, 50_000, 21.205),
    ],
)  # fmt: skip
def test_figure_2_middle_discrete_flow(rule, hyper, sigma, steps, end):
    """End values of |U|^2 + |W|^2 of the discrete flow; the paper's sigma xi is 2 (sigma/2) xi in the loss |r|^2."""
    problem, z0 = five(qs.LabelNoise(sigma / 2))
    flow = qs.manifold_flow(getattr(qs.zoo, rule), problem, **hyper)
    path = flow.trajectory(z0, steps, record=5)
    assert np.sum(path.z[-1] ** 2) == pytest.approx(end, abs=6e-4)
    assert max(np.abs(problem.functions.residuals(z)).max() for z in path.z) < 1e-12
    assert path.steps.tolist() == [0, steps / 4, steps / 2, 3 * steps / 4, steps]


def test_leading_order_is_the_papers_ode():
    problem, z0 = five(qs.LabelNoise(0.125))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, leading="eta", eta=2e-2)
    assert np.sum(flow.trajectory(z0, 8000, record=1).z[-1] ** 2) == pytest.approx(21.228, abs=6e-4)


def test_sylvester_form_of_the_manifold_ode():
    """dU = -c U a, dW = c W a^T with (U^T U) a + a (W^T W) = 2 (n U^T U - m W^T W), c = eta^2 sigma^2/4 at leading order."""
    from scipy.linalg import solve_sylvester

    problem, z0 = five(qs.LabelNoise(0.5))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, leading="eta", eta=1e-3)
    U, W = problem.functions.split(z0)
    a = solve_sylvester(U.T @ U, W.T @ W, 2 * 5 * (U.T @ U - W.T @ W))
    c = 1e-6 / 4
    assert flow.drift(z0) == pytest.approx(np.concatenate([(-c * U @ a).ravel(), (c * W @ a.T).ravel()]), rel=1e-9, abs=1e-18)
    assert flow.hessian_trace(z0) == pytest.approx(2 * 5 * np.sum(z0**2))


def test_a_path_agrees_with_the_symbolic_flow():
    problem = qs.zoo.curved_valley(noise=qs.HessianNoise("1/20"))
    hyper = {"eta": 0.05, "mu": 0.6}
    known = qs.derive(qs.zoo.heavy_ball, problem).compile(**hyper).trajectory([1.0], 2000, record=5)
    path = qs.manifold_flow(qs.zoo.heavy_ball, problem, **hyper).trajectory([1.0, 1.0, 0.5], 2000, record=5, rtol=1e-11)
    assert path.z[:, 0] == pytest.approx(known.u[:, 0], rel=1e-9)
    assert path.z[:, 1] == pytest.approx(known.u[:, 0] ** 2, rel=1e-9)
    assert abs(path.z[-1, 0] - 1) > 0.05


def test_limit_and_gauss_newton_differ_by_the_square_of_the_distance():
    problem, z0 = factorization(noise=qs.LabelNoise(0.1), scale=0.5)
    flow = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=0.05, mu=0.5)
    direction = np.random.default_rng(1).standard_normal(10)
    gaps = []
    for size in (0.02, 0.01):
        one, two = (flow.project(z0 + size * direction, method) for method in ("gauss-newton", "limit"))
        gaps.append(np.linalg.norm(one - two))
        assert np.abs(problem.functions.residuals(two)).max() < 1e-12
    assert 3 < gaps[0] / gaps[1] < 5


def test_the_limit_is_where_the_rule_ends():
    problem, z0 = factorization(noise=qs.LabelNoise(0.1), scale=0.5)
    z = z0 + 0.05 * np.random.default_rng(2).standard_normal(10)
    flow = qs.manifold_flow(qs.zoo.nesterov, problem, eta=0.05, mu=0.5)
    found, b = z.copy(), np.zeros(10)
    for _ in range(20_000):
        g = problem.functions.vjp(found, problem.functions.residuals(found))
        b = 0.5 * b + g
        found = found - 0.05 * (g + 0.5 * b)
    assert flow.project(z, "limit") == pytest.approx(found, abs=1e-9)


def test_sde_on_a_circle():
    """r = |z|^2 - 1 with isotropic noise: the angle diffuses at gain^2 sigma^2, the mean of cos decays at half of that."""
    x, y = qs.symbols("x y")
    problem = qs.Problem.from_residuals([x**2 + y**2 - 1], noise=qs.IsotropicNoise("1/2"), parameters=(x, y))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=0.04)
    rate = (0.04 * 0.5) ** 2
    z = np.array([1.0, 0.0])
    assert flow.diffusion(z) == pytest.approx(np.diag([0, rate]), abs=1e-15)
    assert flow.drift(z) == pytest.approx([-rate / 2, 0], abs=1e-15)
    paths = flow.sde_trajectory({"x": 1, "y": 0}, 2000, trajectories=100, seed=3, record=2, substeps=25)
    expected, N = np.exp(-rate * 2000 / 2), 100
    assert abs(paths.mean[-1, 0] - expected) < 5 * np.sqrt(paths.variance[-1, 0] / N)
    assert abs(paths.mean[-1, 1]) < 5 * np.sqrt(paths.variance[-1, 1] / N)
    assert np.sum(paths.final**2, axis=1) == pytest.approx(np.ones(N))
    given = flow.sde_trajectory(z, 100, trajectories=2, record=2, substeps=10, normals=lambda path, step: np.array([0.0, path]))
    assert given.final[0] == pytest.approx(z, abs=1e-12)
    assert np.arctan2(*given.final[1][::-1]) == pytest.approx(10 * np.sqrt(10 * rate), rel=0.1)


# -- simulation --------------------------------------------------------------------------------------------------------


def test_sampling_theory_against_a_simulation_in_plain_numpy():
    """Batch 1 at a large learning rate: the drift of tr H within 5 standard errors; without the sampling terms it is far off."""
    scale, sigma, steps, N = 1 / 12, 0.12, 4000, 1500
    problem, z0 = factorization(noise=qs.LabelNoise(sigma, batch=1), scale=scale, seed=3)
    z0 = z0 * np.repeat([1.5, 1 / 1.5], [4, 6])
    f = problem.functions
    eta = 0.6 / np.max(np.sum(f.jacobian(z0) ** 2, axis=1))
    rng = np.random.default_rng(0)
    z = np.repeat(z0[None], N, axis=0)
    rows = np.arange(N)
    for _ in range(steps):
        U, W = z[:, :4].reshape(N, 2, 2), z[:, 4:].reshape(N, 3, 2)
        a, b = rng.integers(0, 2, N), rng.integers(0, 3, N)
        u, w = U[rows, a].copy(), W[rows, b].copy()
        pull = eta * (np.sum(u * w, axis=1) - f.target[a, b] + sigma * rng.standard_normal(N))  # 2 scale n = 1
        U[rows, a] -= pull[:, None] * w
        W[rows, b] -= pull[:, None] * u
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=eta)
    ends = np.array([flow.hessian_trace(flow.project(x)) for x in z])
    error = ends.std(ddof=1) / np.sqrt(N)
    end = flow.hessian_trace(flow.trajectory(z0, steps, record=1).z[-1])
    additive = qs.manifold_flow(qs.zoo.sgd, problem.with_noise(qs.LabelNoise(sigma * 6**0.5)), eta=eta)
    wrong = additive.hessian_trace(additive.trajectory(z0, steps, record=1).z[-1])
    drop = flow.hessian_trace(z0) - end
    assert drop > 100 * error
    assert abs(ends.mean() - end) < 5 * error
    assert abs(ends.mean() - wrong) > 50 * error


def test_validate_agrees_with_the_simulation():
    problem, z0 = five(qs.LabelNoise(0.25))
    report = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=4e-3, mu=0.5).validate(z0, 3000, trajectories=16, seed=1, record=5)
    assert report.passed
    assert [r.quantity.split(",")[0] for r in report.rows] == [
        "displacement along the flow", "displacement along the flow at the end", "squared distance of the mean from the flow at the end",
        "fast variance / theory",
    ]  # fmt: skip
    assert report.rows[1].theory > 20 * report.rows[1].error


def test_validate_notices_a_wrong_flow():
    problem, z0 = five(qs.LabelNoise(0.25))
    flow = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=4e-3, mu=0.5)
    flow._noise.parts[0].alpha = lambda z: 1.2 * 2 * 0.25**2
    report = flow.validate(z0, 3000, trajectories=16, seed=1, record=5)
    assert not report.passed


def test_numbers_of_a_path():
    problem, z0 = five(qs.LabelNoise(sp.Symbol("sigma", positive=True)))
    flow = qs.manifold_flow(qs.zoo.sgd, problem, eta=1e-3, sigma=0.5)
    assert repr(flow) == "<manifold flow of sgd in 50 parameters; eta=0.001, sigma=0.5>"
    assert set(flow.sizes(z0)) == {"slow rate / fast rate", "fast variance / size of the point"}
    assert all(0 < v < 0.1 for v in flow.sizes(z0).values())
    assert flow.problem.unpack(flow.start({"U": FIVE, "W": np.eye(5)}))["W"] == pytest.approx(np.eye(5))
