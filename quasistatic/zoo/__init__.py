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
from quasistatic.zoo.problems import curved_valley, paraboloid, rotated_valley, two_channels, valley
from quasistatic.zoo.rules import aggmo, ema_momentum, heavy_ball, heavy_ball_velocity, nesterov, qhm, sgd

_LINEAR = (sgd, heavy_ball, heavy_ball_velocity, ema_momentum, nesterov, qhm, aggmo)
_ADAPTIVE = (adam, adamw, rmsprop, adagrad, amsgrad, adam_mini, adalayer, adam_power)
_KINKED = (signsgd, lion, clipped_sgd, norm_clipped_sgd)
RULES = {r.name: r for r in (*_LINEAR, *_ADAPTIVE, *_KINKED)}
PROBLEMS = {f.__name__: f for f in (valley, rotated_valley, curved_valley, two_channels, paraboloid)}

__all__ = [
    "PROBLEMS", "RULES", "adagrad", "adalayer", "adam", "adam_mini", "adam_power", "adamw", "aggmo", "amsgrad", "clipped_sgd",
    "curved_valley", "ema_momentum", "heavy_ball", "heavy_ball_velocity", "lion", "nesterov", "norm_clipped_sgd", "paraboloid", "qhm",
    "rmsprop", "rotated_valley", "sgd", "signsgd", "two_channels", "valley",
]  # fmt: skip
