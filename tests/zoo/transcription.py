"""The update rules as their authors and PyTorch print them, in NumPy: nothing here is derived from the package.

Every function takes the parameters z (d,), the gradient g (d,), a dictionary with the memories, the iteration number from 1, the
hyperparameters and the blocks (index lists), and returns the new z; the memories are changed in place.
"""

import numpy as np


def sgd(z, g, memory, t, h, blocks):
    return z - h["eta"] * (g + h.get("weight_decay", 0) * z)


def heavy_ball(z, g, memory, t, h, blocks):
    memory["b"] = h["mu"] * memory["b"] + (1 - h.get("tau", 0)) * (g + h.get("weight_decay", 0) * z)
    return z - h["eta"] * memory["b"]


def heavy_ball_velocity(z, g, memory, t, h, blocks):
    memory["m"] = h["mu"] * memory["m"] - h["eta"] * (g + h.get("weight_decay", 0) * z)
    return z + memory["m"]


def ema_momentum(z, g, memory, t, h, blocks):
    memory["m"] = h["mu"] * memory["m"] + (1 - h["mu"]) * (g + h.get("weight_decay", 0) * z)
    return z - h["eta"] * memory["m"]


def nesterov(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    memory["b"] = h["mu"] * memory["b"] + g
    return z - h["eta"] * (g + h["mu"] * memory["b"])


def qhm(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    memory["d"] = h["beta"] * memory["d"] + (1 - h["beta"]) * g
    return z - h["eta"] * ((1 - h["nu"]) * g + h["nu"] * memory["d"])


def aggmo(z, g, memory, t, h, blocks):
    betas = [h.get(f"beta{i}", b) for i, b in ((1, 0.0), (2, 0.9), (3, 0.99))]
    for i, beta in enumerate(betas, 1):
        memory[f"v{i}"] = beta * memory[f"v{i}"] + g
    return z - h["eta"] / 3 * sum(memory[f"v{i}"] for i in (1, 2, 3))


def _moments(g, memory, h, squared):
    memory["m"] = h["beta1"] * memory["m"] + (1 - h["beta1"]) * g
    memory["v"] = h["beta2"] * memory["v"] + (1 - h["beta2"]) * squared


def _adam_step(z, memory, t, h, second="v"):
    corrected_m = memory["m"] / (1 - h["beta1"] ** t)
    corrected_v = memory[second] / (1 - h["beta2"] ** t)
    return z - h["eta"] * corrected_m / (np.sqrt(corrected_v) + h["eps"])


def adam(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    _moments(g, memory, h, g * g)
    return _adam_step(z, memory, t, h)


def adamw(z, g, memory, t, h, blocks):
    z = z * (1 - h["eta"] * h["weight_decay"])
    _moments(g, memory, h, g * g)
    return _adam_step(z, memory, t, h)


def rmsprop(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    memory["v"] = h["beta2"] * memory["v"] + (1 - h["beta2"]) * g * g
    return z - h["eta"] * g / (np.sqrt(memory["v"]) + h["eps"])


def adagrad(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    memory["s"] = memory["s"] + g * g
    return z - h["eta"] * g / (np.sqrt(memory["s"]) + h["eps"])


def amsgrad(z, g, memory, t, h, blocks):
    g = g + h.get("weight_decay", 0) * z
    _moments(g, memory, h, g * g)
    memory["v_max"] = np.where(memory["v"] > memory["v_max"], memory["v"], memory["v_max"])
    return _adam_step(z, memory, t, h, "v_max")


def _block_means(values, blocks):
    means = np.empty_like(values)
    for block in blocks:
        means[block] = sum(values[i] for i in block) / len(block)
    return means


def adam_mini(z, g, memory, t, h, blocks):
    z = z * (1 - h["eta"] * h.get("weight_decay", 0))
    _moments(g, memory, h, _block_means(g * g, blocks))
    return _adam_step(z, memory, t, h)


def adalayer(z, g, memory, t, h, blocks):
    _moments(g, memory, h, _block_means(g * g, blocks))
    return _adam_step(z, memory, t, h)


def adam_power(z, g, memory, t, h, blocks):
    _moments(g, memory, h, g * g)
    return z - h["eta"] * memory["m"] / (memory["v"] ** h["power"] + h["eps"])


def _signs(values):
    return np.array([1.0 if v > 0 else -1.0 if v < 0 else 0.0 for v in values])


def signsgd(z, g, memory, t, h, blocks):
    return z - h["eta"] * _signs(g)


def lion(z, g, memory, t, h, blocks):
    mixed = h["beta1"] * memory["m"] + (1 - h["beta1"]) * g
    memory["m"] = h["beta2"] * memory["m"] + (1 - h["beta2"]) * g
    return z - h["eta"] * (_signs(mixed) + h.get("weight_decay", 0) * z)


def clipped_sgd(z, g, memory, t, h, blocks):
    limited = np.array([min(max(x, -h["threshold"]), h["threshold"]) for x in g])
    return z - h["eta"] * (limited + h.get("weight_decay", 0) * z)


def norm_clipped_sgd(z, g, memory, t, h, blocks):
    norm, limit = np.sqrt((g * g).sum()), np.sqrt(len(g)) * h["threshold"]
    return z - h["eta"] * (g * (limit / norm if norm > limit else 1.0) + h.get("weight_decay", 0) * z)


MEMORIES = {
    "heavy_ball": "b", "heavy_ball_velocity": "m", "ema_momentum": "m", "nesterov": "b", "qhm": "d", "aggmo": "v1 v2 v3", "adam": "m v",
    "adamw": "m v", "rmsprop": "v", "adagrad": "s", "amsgrad": "m v v_max", "adam_mini": "m v", "adalayer": "m v", "adam_power": "m v",
    "lion": "m",
}  # fmt: skip


def path(name, gradients, start, h, blocks, memories=None):
    """Parameters and memories after every step, rows (steps, d + memories*d); ``gradients(z, k)`` is the gradient of step k from 0."""
    z = np.array(start, dtype=float)
    memory = {m: np.zeros_like(z) for m in MEMORIES.get(name, "").split()} | (memories or {})
    k = 0
    while True:
        z = globals()[name](z, gradients(z, k), memory, k + 1, h, blocks)
        k += 1
        yield np.concatenate([z, *memory.values()])
