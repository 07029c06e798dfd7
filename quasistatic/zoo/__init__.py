"""Ready-made update rules and problems, each with example values."""

from quasistatic.zoo.problems import curved_valley, rotated_valley, valley
from quasistatic.zoo.rules import aggmo, ema_momentum, heavy_ball, heavy_ball_velocity, nesterov, qhm, sgd

RULES = {r.name: r for r in (sgd, heavy_ball, heavy_ball_velocity, ema_momentum, nesterov, qhm, aggmo)}
PROBLEMS = {f.__name__: f for f in (valley, rotated_valley, curved_valley)}

__all__ = [
    "PROBLEMS", "RULES", "aggmo", "curved_valley", "ema_momentum", "heavy_ball", "heavy_ball_velocity", "nesterov", "qhm",
    "rotated_valley", "sgd", "valley",
]  # fmt: skip
