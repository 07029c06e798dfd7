"""The zoo against PyTorch: the same gradients give the same first 50 steps, apart from the differences that docstrings name."""

import json

import make_torch_fixture as torch_steps
import numpy as np
import pytest

import quasistatic as qs

STORED = json.loads(torch_steps.FILE.read_text(encoding="utf-8"))
ZOO = qs.zoo.RULES

#: Name of the case to rule, hyperparameters, and start values of memories other than 0.
SAME = {
    "sgd": ("sgd", {"eta": 0.01}, {}),
    "sgd, decay": ("sgd", {"eta": 0.01, "weight_decay": 0.3}, {}),
    "heavy ball": ("heavy_ball", {"eta": 0.01, "mu": 0.9, "weight_decay": 0.1}, {}),
    "nesterov": ("nesterov", {"eta": 0.01, "mu": 0.9, "weight_decay": 0.1}, {}),
    "adam": ("adam", {"eta": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, {}),
    "adam, large eps, decay": ("adam", {"eta": 0.05, "beta1": 0.5, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.2}, {}),
    "adamw": ("adamw", {"eta": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.3}, {}),
    "amsgrad": ("amsgrad", {"eta": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-6}, {}),
    "rmsprop": ("rmsprop", {"eta": 0.01, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}, {}),
    "adagrad": ("adagrad", {"eta": 0.01, "eps": 1e-10}, {}),
    "adagrad, warm": ("adagrad", {"eta": 0.1, "eps": 0.2, "weight_decay": 0.1}, {"s": 0.1}),
    "clipped": ("clipped_sgd", {"eta": 0.01, "threshold": 0.7, "weight_decay": 0.3}, {}),
}


def ours(name, hyper, memories=None):
    """Parameters after every step (steps, 3) of a rule of the zoo as a function of numbers, on the stored gradients."""
    rule = ZOO[name]
    z = np.array(STORED["start"])
    states = [np.zeros(3) + (memories or {}).get(s.name, 0) for s in rule.trace.states]
    path = []
    for t, g in enumerate(np.array(STORED["gradients"]), 1):
        clock = {} if rule.trace.iteration is None else {"t": t}
        output = rule(z, g, *states, **hyper, **clock)
        z, *states = output if states else [output]
        path.append(z)
    return np.array(path)


def stored(case):
    return np.array(STORED["paths"][case])


@pytest.mark.parametrize("case", SAME)
def test_same_steps(case):
    np.testing.assert_allclose(ours(*SAME[case]), stored(case), rtol=1e-11)


@pytest.mark.parametrize("case", torch_steps.CASES)
def test_the_stored_steps_are_those_of_the_installed_torch(case):
    pytest.importorskip("torch")
    np.testing.assert_allclose(torch_steps.run(*torch_steps.CASES[case]), stored(case), rtol=1e-11)
    assert torch_steps.gradients().tolist() == STORED["gradients"]


def test_first_step_with_dampening():
    """PyTorch starts the memory at the whole first gradient, the rule at (1 - tau) of it: a difference that decays like mu^t."""
    eta, mu, tau = 0.01, 0.8, 0.25
    torch, here = stored("heavy ball, dampening"), ours("heavy_ball", {"eta": eta, "mu": mu, "tau": tau})
    first = np.array(STORED["gradients"][0])
    late = np.cumsum(mu ** np.arange(len(torch)))[:, None]
    np.testing.assert_allclose(torch, here - eta * tau * first * late, rtol=1e-11)
    assert abs(torch - here).max() > 1e-4
    np.testing.assert_allclose(torch, ours("heavy_ball", {"eta": eta, "mu": mu, "tau": tau}, {"b": tau * first / mu}), rtol=1e-11)


def test_momentum_of_rmsprop_comes_after_the_preconditioning():
    """PyTorch's option is a heavy ball on the directions of the rule, which has none."""
    eta, mu = 0.01, 0.7
    here = ours("rmsprop", {"eta": eta, "beta2": 0.9, "eps": 1e-3})
    directions = -np.diff(np.vstack([STORED["start"], here]), axis=0) / eta
    memory, z, path = np.zeros(3), np.array(STORED["start"]), []
    for d in directions:
        memory = mu * memory + d
        z = z - eta * memory
        path.append(z)
    np.testing.assert_allclose(path, stored("rmsprop, momentum"), rtol=1e-10)


def test_norm_clipping_up_to_the_number_that_torch_adds():
    here = ours("norm_clipped_sgd", {"eta": 0.01, "threshold": 0.9 / np.sqrt(3)})
    norms = np.linalg.norm(STORED["gradients"], axis=1)
    assert 0 < (norms < 0.9).sum() < len(norms)
    error = 0.01 * np.cumsum(np.where(norms > 0.9, 0.9 * 1e-6 / norms, 0))
    assert (abs(here - stored("clipped norm")).max(axis=1) < 1.001 * error + 1e-14).all()
    assert abs(here - stored("clipped norm")).max() > 1e-8
