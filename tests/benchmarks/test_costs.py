"""Sizes of expressions: a derivation that loses its structure shows here long before it becomes slow."""

from __future__ import annotations

import pytest
import sympy as sp

import quasistatic as qs

Q = sp.Rational
# operations of the kernel, and of the drift on the valley; a change for the better is welcome, update the numbers
KERNEL = {"sgd": 5, "heavy_ball": 38, "heavy_ball_velocity": 38, "ema_momentum": 28, "nesterov": 148, "qhm": 407, "aggmo": 119}
DRIFT = {"sgd": 9, "heavy_ball": 15, "heavy_ball_velocity": 15, "ema_momentum": 18, "nesterov": 50, "qhm": 103, "aggmo": 52}


@pytest.mark.parametrize("name", KERNEL)
def test_operations(name):
    rule = qs.zoo.RULES[name]
    assert qs.derive(rule).kernel.count_ops() <= KERNEL[name]
    assert qs.derive(rule, qs.zoo.valley()).drift[0].count_ops() <= DRIFT[name]


@pytest.mark.timeout(60)
def test_a_curved_manifold_stays_folded():
    """Two normal directions, eta, mu, x symbolic, full numeric noise: expanded it would be a hundred times as large."""
    noise = qs.CovarianceNoise([[3, 1, Q(1, 2)], [1, 2, Q(1, 3)], [Q(1, 2), Q(1, 3), 1]])
    slow = qs.derive(qs.zoo.heavy_ball, qs.zoo.curved_valley(noise=noise))
    assert slow.drift[0].count_ops() < 4000
