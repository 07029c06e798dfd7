"""Array problems of the zoo: every derivative against differences of the one below it, compiled twins, SymPy, and bad input."""

import pickle

import numpy as np
import pytest
import sympy as sp

from quasistatic import zoo
from quasistatic.errors import ProblemError, StartError
from quasistatic.model.array_problem import Residuals

rng = np.random.default_rng(5)
X, y = rng.normal(size=(5, 3)), rng.normal(size=5)
Y2 = rng.normal(size=(5, 2))
LOW = rng.normal(size=(4, 2)) @ rng.normal(size=(2, 3))

PROBLEMS = {
    "factorization": zoo.matrix_factorization(4, 3, 2, LOW),
    "sensing": zoo.matrix_sensing(rng.normal(size=(6, 3, 4)), rng.normal(size=6), 2),
    "squares": zoo.diagonal_network(X, y),
    "product": zoo.diagonal_network(X, y, "product"),
    "uv vector": zoo.uv_model(4, y, 0 * y),
    "uv tanh": zoo.uv_model(4, X, Y2, "tanh"),
    "uv relu": zoo.uv_model(4, X, y, "relu"),
    "two layers": zoo.two_layer_linear(rng.normal(size=(1, 4)), 3),
    "deep": zoo.deep_linear((3, 4, 3, 2), X, Y2),
    "mlp": zoo.mlp(3, 4, 1, X, y),
    "mlp two outputs": zoo.mlp(3, 4, 2, X, Y2, "relu"),
}
#: Two hidden layers with tanh and biases are in no constructor, but the class is public.
DEEP_TANH = zoo.residuals.network.Network((3, 4, 5, 2), X, Y2, "tanh", bias=True, scale=0.7)
MODELS = {**{k: p.functions for k, p in PROBLEMS.items()}, "deep tanh": DEEP_TANH}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def point(model, seed=0):
    return np.random.default_rng(seed).normal(size=model.size)


def central(f, z, w, step=1e-5):
    """Directional derivative by Richardson's central differences, error of order step^4."""
    once = (f(z + step * w) - f(z - step * w)) / (2 * step)
    twice = (f(z + 2 * step * w) - f(z - 2 * step * w)) / (4 * step)
    return (4 * once - twice) / 3


def test_first_derivatives(model):
    assert isinstance(model, Residuals)
    z, w, c = point(model), point(model, 1), np.random.default_rng(2).normal(size=model.count)
    J = model.jacobian(z)
    assert model.residuals(z).shape == (model.count,)
    assert J.shape == (model.count, model.size)
    expected = np.array([central(model.residuals, z, e) for e in np.eye(model.size)]).T
    np.testing.assert_allclose(J, expected, atol=2e-8)
    np.testing.assert_allclose(model.jvp(z, w), J @ w, atol=1e-12)
    np.testing.assert_allclose(model.vjp(z, c), J.T @ c, atol=1e-12)


def test_second_derivatives_with_and_without_leading_axes(model):
    g = np.random.default_rng(3)
    z, c, w = point(model), g.normal(size=(3, model.count)), g.normal(size=(3, model.size))
    expected = [central(lambda q, i=i: model.vjp(q, c[i]), z, w[i]) for i in range(3)]
    for i in range(3):
        np.testing.assert_allclose(model.hvp(z, c[i], w[i]), expected[i], atol=2e-8)
    np.testing.assert_allclose(model.hvp(z, c, w), sum(expected), atol=5e-8)
    np.testing.assert_allclose(model.hvp(z, c[:2][None], w[:2][None]), sum(expected[:2]), atol=5e-8)


def test_batched_second_derivatives_in_pieces(monkeypatch):
    monkeypatch.setattr(zoo.residuals.network, "CHUNK", 60)
    g = np.random.default_rng(3)
    c, w = g.normal(size=(7, DEEP_TANH.count)), g.normal(size=(7, DEEP_TANH.size))
    z = point(DEEP_TANH)
    np.testing.assert_allclose(DEEP_TANH.hvp(z, c, w), sum(DEEP_TANH.hvp(z, a, b) for a, b in zip(c, w, strict=True)), atol=1e-12)


def test_the_machine_functions_are_the_same_residuals(model):
    """As plain Python; the compiled simulation is made of their source."""
    machine, z = model.machine, point(model)
    rows = np.array([1, 0, 1, model.count - 1])
    r, c, g, work = np.zeros(4), np.array([0.3, -1.0, 2.0, 0.7]), np.zeros(model.size), np.full(4 * machine.work, np.nan)
    machine.forward(z, rows, r, work, *machine.data)
    machine.pullback(z, rows, c, g, work, *machine.data)
    np.testing.assert_allclose(r, model.residuals(z)[rows], atol=1e-13)
    full = np.zeros(model.count)
    np.add.at(full, rows, c)
    np.testing.assert_allclose(g, model.vjp(z, full), atol=1e-13)


def test_named_arrays_and_pickles(model):
    z = point(model)
    arrays = model.unpack(z)
    assert {k: v.shape for k, v in arrays.items()} == dict(model.shapes)
    np.testing.assert_array_equal(model.pack(**arrays), z)
    many = model.unpack(np.stack([z, 2 * z]))
    np.testing.assert_array_equal(many[next(iter(arrays))][1], 2 * arrays[next(iter(arrays))])
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.residuals(z), model.residuals(z))
    assert dict(copy.shapes) == dict(model.shapes)
    first, second = model.initial(seed=4), model.initial(seed=4)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (model.size,)


def test_parameter_counts():
    assert zoo.mlp(64, 60, 1, np.zeros((2, 64)), [1, -1]).functions.size == 3960
    assert list(MODELS["mlp"].shapes) == ["W1", "b1", "W2"]
    assert [p.scale for p in PROBLEMS.values()] == [1, 1 / 12, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1]


def test_conventions_of_the_models():
    """Each model once more in a line of NumPy."""
    z = point(MODELS["factorization"])
    U, W = z[:8].reshape(4, 2), z[8:].reshape(3, 2)
    np.testing.assert_allclose(MODELS["factorization"].residuals(z), (U @ W.T - LOW).reshape(-1))
    z = point(MODELS["squares"])
    np.testing.assert_allclose(MODELS["squares"].residuals(z), X @ (z[:3] ** 2 - z[3:] ** 2) - y)
    z = point(MODELS["mlp"])
    W1, b1, W2 = z[:12].reshape(4, 3), z[12:16], z[16:]
    np.testing.assert_allclose(MODELS["mlp"].residuals(z), np.tanh(X @ W1.T + b1) @ W2 / 2 - y)
    z = point(MODELS["uv vector"])
    np.testing.assert_allclose(MODELS["uv vector"].residuals(z), z[:4] @ z[4:] * y / 2)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 2, 2), (2, 3, 1)])
def test_trace_of_the_hessian_of_the_factorization(sizes):
    """tr(Hessian) = 2(n |U|^2 + m |W|^2) everywhere, by SymPy from the residuals; the half Hessian has half of it."""
    m, n, p = sizes
    U, W = sp.Matrix(m, p, sp.symbols(f"u:{m * p}", real=True)), sp.Matrix(n, p, sp.symbols(f"w:{n * p}", real=True))
    M = sp.Matrix(m, n, sp.symbols(f"t:{m * n}", real=True))
    residuals = sp.flatten(U * W.T - M)
    parameters = [*U, *W]
    loss = sum(r**2 for r in residuals)
    trace = sp.expand(sum(sp.diff(loss, q, 2) for q in parameters))
    assert sp.expand(trace - 2 * (n * sum(a**2 for a in U) + m * sum(a**2 for a in W))) == 0
    values = np.random.default_rng(1)
    target = values.normal(size=(m, p)) @ values.normal(size=(p, n))
    functions = zoo.matrix_factorization(m, n, p, target).functions
    z = values.normal(size=functions.size)
    numbers = dict(zip([*parameters, *M], [*z, *target.reshape(-1)], strict=True))
    np.testing.assert_allclose(functions.residuals(z), [float(r.subs(numbers)) for r in residuals], atol=1e-12)
    a = functions.unpack(z)
    assert np.sum(functions.jacobian(z) ** 2) == pytest.approx(n * np.sum(a["U"] ** 2) + m * np.sum(a["W"] ** 2), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 5, 5), (3, 5, 3), (5, 3, 4), (4, 4, 6)])
def test_initial_factors_are_on_the_manifold(shape):
    m, n, p = shape
    target = np.random.default_rng(0).normal(size=(m, n))
    functions = zoo.matrix_factorization(m, n, p, target).functions
    assert np.abs(functions.residuals(functions.initial(3))).max() < 1e-10


BAD = [
    (lambda: zoo.matrix_factorization(3, 3, 2, np.eye(3)), "the target has rank 3, above p = 2"),
    (lambda: zoo.matrix_factorization(3, 2, 2, np.ones((2, 3))), r"shape \(2, 3\), but m = 3 and n = 2"),
    (lambda: zoo.matrix_factorization(2, 2, 0, np.eye(2)), "p = 0 is not a positive whole number"),
    (lambda: zoo.matrix_factorization(2, 2, 2, [[1, np.nan], [0, 1]]), "target holds NaN"),
    (lambda: zoo.matrix_sensing(np.ones((3, 2, 2)), np.ones(4), 1), "3 operators and 4 targets"),
    (lambda: zoo.matrix_sensing(np.ones((3, 2)), np.ones(3), 1), "operators has shape"),
    (lambda: zoo.diagonal_network(X, y[:4]), "5 rows and y 4"),
    (lambda: zoo.diagonal_network(X, y, "cubes"), "neither"),
    (lambda: zoo.mlp(3, 4, 1, X, y, "tahn"), "Did you mean 'tanh'"),
    (lambda: zoo.mlp(2, 4, 1, X, y), r"X has shape \(5, 3\), but the network has 2 inputs"),
    (lambda: zoo.mlp(3, 4, 2, X, y), r"need \(5, 2\)"),
    (lambda: zoo.deep_linear((3, 2), X, y), "at least one hidden width"),
    (lambda: zoo.two_layer_linear(np.eye(3), 2), "rank 3, above 2 hidden units"),
    (lambda: zoo.uv_model(3, X, y[:3]), "give"),
    (lambda: zoo.diagonal_network(X, y, scale=0.0), "scale = 0.0 must be positive"),
    (lambda: zoo.diagonal_network([["a"]], [1]), "not an array of numbers"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input(make, message):
    with pytest.raises(ProblemError, match=message):
        make()


def test_bad_points():
    model = MODELS["mlp"]
    arrays = model.unpack(model.initial())
    with pytest.raises(StartError, match="no array for W2"):
        model.pack(W1=arrays["W1"], b1=arrays["b1"])
    with pytest.raises(StartError, match="W3 is not an array"):
        model.pack(**arrays, W3=1)
    with pytest.raises(StartError, match=r"b1 has shape \(2,\); this model needs \(4,\)"):
        model.pack(**{**arrays, "b1": np.zeros(2)})
    with pytest.raises(StartError, match="20 parameters"):
        model.unpack(np.zeros(7))
    with pytest.raises(ProblemError, match="same leading axes"):
        model.hvp(model.initial(), np.zeros(5), np.zeros((2, 20)))
