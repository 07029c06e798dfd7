"""Small forces and coefficients with roots, in the map and in the SDE."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import sympy as sp

import quasistatic as qs
from quasistatic.algebra.field import is_zero

x = qs.zoo.valley().parameters[0]


@pytest.mark.parametrize("name", ["sgd", "heavy_ball", "heavy_ball_velocity", "ema_momentum", "nesterov", "qhm"])
def test_decay_of_the_sde_is_that_of_the_map_to_leading_order(name):
    """Coupled weight decay pulls by gain * weight_decay * x per iteration, in the map exactly and in the SDE per dt."""
    rule = qs.zoo.RULES[name].free("weight_decay")
    exact, sde = (qs.derive(rule, qs.zoo.valley(), time=t) for t in ("iteration", "continuous"))
    decay = exact.symbols["weight_decay"]
    assert is_zero(exact.terms.force[0] + exact.gain * decay * x)
    assert is_zero(sde.terms.force[0] * sde.linear.dt + sde.gain * decay * x)


def test_a_root_in_the_coefficients():
    """A memory driven by sqrt(1 - mu) g: the kernel is that of heavy ball with learning rate eta sqrt(1 - mu)."""

    @qs.optimizer
    def rooted(z, g, m, *, eta, mu):
        m = mu * m + qs.sqrt(1 - mu) * g
        return z - eta * m, m

    law = qs.derive(rooted)
    A, b = np.array([[1, -0.05 * 0.6], [0, 0.6]]), np.sqrt(0.4) * np.array([-0.05, 1.0])
    curvature = 1.7
    J = A + curvature * np.outer(b, [1, 0])
    V = scipy.linalg.solve_discrete_lyapunov(J, np.outer(b, b))
    at = {law.symbols["eta"]: 0.05, law.symbols["mu"]: 0.6, "lambda_i": curvature, "lambda_j": curvature}
    named = {s: at.get(s, at.get(s.name)) for s in law.kernel.free_symbols}
    assert float(law.kernel.subs(named)) == pytest.approx(V[0, 0], rel=1e-12)
    assert qs.derive(rooted, qs.zoo.valley()).leading("eta").drift[0] != 0
    assert sp.sqrt(1 - law.symbols["mu"]) in law.gain.atoms(sp.Pow) | {1 / p for p in law.gain.atoms(sp.Pow)}
