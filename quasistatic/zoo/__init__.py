"""Ready-made update rules and problems, each with example values."""

from quasistatic.zoo.adaptive import (
    adagrad,
    adalayer,
    adam,
    adam_mini,
    adam_power,
    adamw,
    amsgrad,
    clipped_sgd,
    lion,
    norm_clipped_sgd,
    rmsprop,
    signsgd,
)
from quasistatic.zoo.networks import deep_linear, diagonal_network, matrix_factorization, matrix_sensing, mlp, two_layer_linear, uv_model
from quasistatic.zoo.problems import curved_valley, paraboloid, rotated_valley, two_channels, valley
from quasistatic.zoo.rules import aggmo, ema_momentum, heavy_ball, heavy_ball_velocity, nesterov, qhm, sgd

_LINEAR = (sgd, heavy_ball, heavy_ball_velocity, ema_momentum, nesterov, qhm, aggmo)
_ADAPTIVE = (adam, adamw, rmsprop, adagrad, amsgrad, adam_mini, adalayer, adam_power)
_KINKED = (signsgd, lion, clipped_sgd, norm_clipped_sgd)
RULES = {r.name: r for r in (*_LINEAR, *_ADAPTIVE, *_KINKED)}
PROBLEMS = {f.__name__: f for f in (valley, rotated_valley, curved_valley, two_channels, paraboloid)}
#: Problems given by array functions: they need data, and have no formula to derive from.
ARRAY_PROBLEMS = {
    f.__name__: f for f in (matrix_factorization, matrix_sensing, diagonal_network, uv_model, two_layer_linear, deep_linear, mlp)
}

__all__ = [
    "ARRAY_PROBLEMS",
    "PROBLEMS",
    "RULES",
    "adagrad",
    "adalayer",
    "adam",
    "adam_mini",
    "adam_power",
    "adamw",
    "aggmo",
    "amsgrad",
    "clipped_sgd",
    "curved_valley",
    "deep_linear",
    "diagonal_network",
    "ema_momentum",
    "heavy_ball",
    "heavy_ball_velocity",
    "lion",
    "matrix_factorization",
    "matrix_sensing",
    "mlp",
    "nesterov",
    "norm_clipped_sgd",
    "paraboloid",
    "qhm",
    "rmsprop",
    "rotated_valley",
    "sgd",
    "signsgd",
    "two_channels",
    "two_layer_linear",
    "uv_model",
    "valley",
]
