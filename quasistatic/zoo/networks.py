"""Ready-made problems with many parameters, given by array functions: factorisation, sensing, networks on data.

All have label noise of strength ``sigma`` by default, a hyperparameter of the simulation; ``problem.functions`` has
``pack`` and ``unpack`` for named arrays and ``initial(seed)``, a point to start from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quasistatic.errors import ProblemError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import LabelNoise, Noise
from quasistatic.symbols import positive
from quasistatic.zoo.residuals.base import ResidualModel, finite_array
from quasistatic.zoo.residuals.bilinear import Factorization, Sensing
from quasistatic.zoo.residuals.diagonal import Diagonal
from quasistatic.zoo.residuals.network import Network


def _problem(functions: ResidualModel, noise: Noise | None, scale: float | None, name: str) -> ArrayProblem:
    """``scale=None``: the mean over the residuals, 1/(2n)."""
    model = LabelNoise(positive("sigma")) if noise is None else noise
    factor = 1 / (2 * functions.count) if scale is None else float(scale)
    if not factor > 0:
        raise ProblemError(f"{name}: scale = {scale} must be positive.")
    return ArrayProblem(functions, model, factor, name=name, examples={"sigma": 0.3} if noise is None else {})


def _width(value: Any, name: str, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ProblemError(f"{name}: {what} = {value!r} is not a positive whole number.")
    return int(value)


def matrix_factorization(m: int, n: int, p: int, target: Any, noise: Noise | None = None) -> ArrayProblem:
    """||U W^T - M||^2 (scale 1) with U (m, p), W (n, p): quasistatic paper, section 3. z is U then W, row-major.

    On the minima tr(Hessian) = 2 (n ||U||^2 + m ||W||^2).

    Raises
    ------
    ProblemError
        If the target M is not (m, n), or has a rank above p, so that no point fits it.
    """
    name = "matrix_factorization"
    m, n, p = (_width(v, name, k) for v, k in ((m, "m"), (n, "n"), (p, "p")))
    M = finite_array(target, f"{name}: target", 2)
    if M.shape != (m, n):
        raise ProblemError(f"{name}: the target has shape {M.shape}, but m = {m} and n = {n}.")
    rank = int(np.linalg.matrix_rank(M))
    if rank > p:
        raise ProblemError(f"{name}: the target has rank {rank}, above p = {p}: U W^T cannot reach it. Take p >= {rank}.")
    return _problem(Factorization(M, p), noise, 1.0, name)


def matrix_sensing(operators: Any, targets: Any, p: int, noise: Noise | None = None, scale: float | None = None) -> ArrayProblem:
    """scale * sum_i (<A_i, U W^T> - y_i)^2, operators A (N, m, n), targets y (N,); scale 1/(2N) by default.

    Matrix completion has operators with a single 1.
    """
    return _problem(Sensing(operators, targets, _width(p, "matrix_sensing", "p")), noise, scale, "matrix_sensing")


def diagonal_network(X: Any, y: Any, form: str = "squares", noise: Noise | None = None, scale: float | None = None) -> ArrayProblem:
    """scale * sum_i (x_i . w - y_i)^2 with w = u^2 - v^2 (form "squares") or w = u v (form "product"); scale 1/(2n).

    On the minima tr(Hessian) = 4 sum_j m_j (u_j^2 + v_j^2), m_j = sum_i x_ij^2 / n, for the squares.
    """
    return _problem(Diagonal(X, y, form), noise, scale, "diagonal_network")


def uv_model(
    width: int, X: Any, y: Any, activation: str = "linear", noise: Noise | None = None, scale: float | None = None
) -> ArrayProblem:
    """f(x) = U phi(V x)/sqrt(width), the model of "Flatter, faster"; phi "linear", "tanh" or "relu"; scale 1/(2P).

    X (P, inputs) and y (P, outputs) or (P,); with one input and one output it is the vector model u . v x. P counts
    samples: with several outputs the scale stays 1/(2P). The arrays are W1 = V (width, inputs) and W2 = U (outputs, width).
    """
    width = _width(width, "uv_model", "width")
    X = np.asarray(X, dtype=np.float64)
    X = X[:, None] if X.ndim == 1 else X
    y = np.asarray(y, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    _two_axes("uv_model", X, y)
    functions = Network((X.shape[1], width, y.shape[1]), X, y, activation, scale=1 / np.sqrt(width))
    return _problem(functions, noise, 1 / (2 * len(X)) if scale is None else scale, "uv_model")


def two_layer_linear(target: Any, hidden: int, noise: Noise | None = None) -> ArrayProblem:
    """||W2 W1 - A||^2 / 2: a two-layer linear network on whitened data (local-geometry paper, eq. 2); A (outputs, inputs).

    The arrays are W1 (hidden, inputs) and W2 (outputs, hidden); the residuals are the entries of (W2 W1 - A)^T, row-major.
    """
    A = finite_array(target, "two_layer_linear: target", 2)
    hidden = _width(hidden, "two_layer_linear", "hidden")
    rank = int(np.linalg.matrix_rank(A))
    if rank > hidden:
        raise ProblemError(f"two_layer_linear: the target has rank {rank}, above {hidden} hidden units: W2 W1 cannot reach it.")
    functions = Network((A.shape[1], hidden, A.shape[0]), np.eye(A.shape[1]), A.T)
    return _problem(functions, noise, 0.5, "two_layer_linear")


def deep_linear(widths: Any, X: Any, y: Any, noise: Noise | None = None, scale: float | None = None) -> ArrayProblem:
    """scale * sum_i |W_L ... W_1 x_i - y_i|^2, widths from inputs to outputs; scale 1/(2n), n the number of samples."""
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    _two_axes("deep_linear", X, y)
    return _problem(Network(tuple(widths), X, y), noise, 1 / (2 * len(X)) if scale is None else scale, "deep_linear")


def mlp(
    inputs: int,
    hidden: int,
    outputs: int,
    X: Any,
    y: Any,
    activation: str = "tanh",
    noise: Noise | None = None,
    scale: float | None = None,
) -> ArrayProblem:
    """One hidden layer: f(x) = W2 phi(W1 x + b1)/sqrt(hidden), loss scale * sum_i |f(x_i) - y_i|^2, scale 1/(2n), n samples.

    X (n, inputs), y (n, outputs) or (n,) for one output. The arrays are W1 (hidden, inputs), b1 (hidden,), W2 (outputs, hidden):
    hidden*(inputs + 1 + outputs) parameters.
    """
    inputs, hidden, outputs = (_width(v, "mlp", k) for v, k in ((inputs, "inputs"), (hidden, "hidden"), (outputs, "outputs")))
    functions = Network((inputs, hidden, outputs), X, y, activation, bias=True, scale=1 / np.sqrt(hidden))
    return _problem(functions, noise, 1 / (2 * len(functions.X)) if scale is None else scale, "mlp")


def _two_axes(name: str, X: Any, y: Any) -> None:
    if X.ndim != 2 or y.ndim != 2 or len(X) != len(y):
        raise ProblemError(f"{name}: X has shape {X.shape} and y {y.shape}; give (samples, inputs) and (samples, outputs).")
