"""Ready-made update rules and problems, each with example values."""

from quasistatic.zoo.networks import deep_linear, diagonal_network, matrix_factorization, matrix_sensing, mlp, two_layer_linear, uv_model
from quasistatic.zoo.problems import curved_valley, rotated_valley, valley
from quasistatic.zoo.rules import aggmo, ema_momentum, heavy_ball, heavy_ball_velocity, nesterov, qhm, sgd

RULES = {r.name: r for r in (sgd, heavy_ball, heavy_ball_velocity, ema_momentum, nesterov, qhm, aggmo)}
PROBLEMS = {f.__name__: f for f in (valley, rotated_valley, curved_valley)}
#: Problems given by array functions: they need data, and have no formula to derive from.
ARRAY_PROBLEMS = {
    f.__name__: f for f in (matrix_factorization, matrix_sensing, diagonal_network, uv_model, two_layer_linear, deep_linear, mlp)
}

__all__ = [
    "ARRAY_PROBLEMS", "PROBLEMS", "RULES", "aggmo", "curved_valley", "deep_linear", "diagonal_network", "ema_momentum", "heavy_ball",
    "heavy_ball_velocity", "matrix_factorization", "matrix_sensing", "mlp", "nesterov", "qhm", "rotated_valley", "sgd",
    "two_layer_linear", "uv_model", "valley",
]  # fmt: skip
