"""Writes torch_steps.json: the first 50 steps of PyTorch's optimizers on a fixed sequence of gradients, in float64.

    python tests/zoo/make_torch_fixture.py

The gradients do not depend on the parameters: one coordinate has small ones, one has zeros in between and at the start, one has
single gradients of 10 000.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("torch_steps.json")
STEPS = 50
START = [1.0, -2.0, 0.5]

#: Name to (class in torch.optim, its options, gradient clipping or None).
CASES = {
    "sgd": ("SGD", {"lr": 0.01}, None),
    "sgd, decay": ("SGD", {"lr": 0.01, "weight_decay": 0.3}, None),
    "heavy ball": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}, None),
    "heavy ball, dampening": ("SGD", {"lr": 0.01, "momentum": 0.8, "dampening": 0.25}, None),
    "nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, None),
    "adam": ("Adam", {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8}, None),
    "adam, large eps, decay": ("Adam", {"lr": 0.05, "betas": [0.5, 0.9], "eps": 0.1, "weight_decay": 0.2}, None),
    "adamw": ("AdamW", {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.3}, None),
    "amsgrad": ("Adam", {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-6, "amsgrad": True}, None),
    "rmsprop": ("RMSprop", {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.1}, None),
    "rmsprop, momentum": ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.7}, None),
    "adagrad": ("Adagrad", {"lr": 0.01, "eps": 1e-10}, None),
    "adagrad, warm": ("Adagrad", {"lr": 0.1, "eps": 0.2, "initial_accumulator_value": 0.1, "weight_decay": 0.1}, None),
    "clipped": ("SGD", {"lr": 0.01, "weight_decay": 0.3}, ("clip_grad_value_", 0.7)),
    "clipped norm": ("SGD", {"lr": 0.01}, ("clip_grad_norm_", 0.9)),
}


def gradients():
    """(steps, 3) gradients."""
    rng = np.random.default_rng(20)
    g = rng.normal(size=(STEPS, 3)) * [1e-3, 1.0, 5.0]
    g[rng.random(STEPS) < 0.3, 1] = 0.0
    g[:3, 1] = 0.0
    g[[7, 30], 2] = [1e4, -1e4]
    return g


def run(kind, options, clip):
    """Parameters after every step, (steps, 3)."""
    import torch

    z = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = getattr(torch.optim, kind)([z], **options)
    path = []
    for g in gradients():
        z.grad = torch.tensor(g)
        if clip is not None:
            getattr(torch.nn.utils, clip[0])([z], clip[1])
        optimizer.step()
        path.append(z.detach().tolist())
    return path


if __name__ == "__main__":
    import torch

    text = {"torch": torch.__version__, "gradients": gradients().tolist(), "start": START, "paths": {n: run(*c) for n, c in CASES.items()}}
    FILE.write_text(json.dumps(text) + "\n", encoding="utf-8")
    print(f"wrote {FILE}")
