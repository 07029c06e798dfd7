"""Fields with fresh symbols: identities that they know, and normal forms."""

from __future__ import annotations

import pytest
import sympy as sp
from sympy import QQ
from sympy.polys.matrices import DomainMatrix

from quasistatic.algebra import gramian
from quasistatic.algebra.equations import group_inverse, lyapunov, solve, spectral_projector, stein
from quasistatic.algebra.field import Field, is_zero, normal
from quasistatic.errors import AlgebraError

x, y, t = sp.symbols("x y t", real=True)
h = sp.Function("h", real=True, positive=True)


@pytest.mark.parametrize(
    "zero",
    [
        sp.sin(t) ** 2 + sp.cos(t) ** 2 - 1,
        sp.sin(2 * t) - 2 * sp.sin(t) * sp.cos(t),
        sp.cos(x + y) - sp.cos(x) * sp.cos(y) + sp.sin(x) * sp.sin(y),
        sp.tan(t) * sp.cos(t) - sp.sin(t),
        sp.cosh(x) ** 2 - sp.sinh(x) ** 2 - 1,
        sp.exp(x / 2) ** 2 * sp.exp(y) - sp.exp(x + y),
        sp.sqrt(1 + x**2) ** 3 - (1 + x**2) * sp.sqrt(1 + x**2),
        sp.sqrt(h(x)) * sp.sqrt(h(x)) - h(x),
        sp.sin(sp.pi / 3) ** 2 - sp.Rational(3, 4),
        h(x * sp.sin(t) ** 2 + x * sp.cos(t) ** 2) - h(x),
        h(x * (1 + y) / (1 + y)).diff(x) - h(x).diff(x),
        h(x + 2 * y).diff(x) - h(x + 2 * y).diff(y) / 2,
        1 / (1 - x) - 1 - x / (1 - x),
    ],
)
def test_zero(zero):
    assert is_zero(zero)
    assert not is_zero(zero + x / 1000)


def test_normal_form_reads_well():
    assert normal(1 / (h(x) * x - 1)) == -1 / (1 - x * h(x)) or str(normal(1 / (h(x) * x - 1))).count("1 - x*h(x)") == 0
    assert normal((x**2 - 1) / (x - 1)) == x + 1
    assert normal(sp.sin(t) ** 2 + sp.cos(t) ** 2) == 1


def test_generators_are_fixed():
    field = Field([x])
    with pytest.raises(AlgebraError):
        field(y)
    with pytest.raises(AlgebraError):
        field(sp.sin(x))
    with pytest.raises(AlgebraError, match="divides by zero"):
        Field([x])(1 / ((x - 1) * (x + 1) - x**2 + 1))


def matrix(rows):
    return DomainMatrix([[QQ(*(e if isinstance(e, tuple) else (e,))) for e in row] for row in rows], (len(rows), len(rows[0])), QQ)


def test_equations_prove_their_residual():
    A, Q = matrix([[(1, 2), (1, 3)], [0, (-1, 4)]]), matrix([[2, 1], [1, 3]])
    V = stein(A, Q)
    assert (A * V * A.transpose() + Q - V).to_list() == [[0, 0], [0, 0]]
    V = lyapunov(A + DomainMatrix.eye(2, QQ), Q)
    assert ((A + DomainMatrix.eye(2, QQ)) * V + V * (A + DomainMatrix.eye(2, QQ)).transpose() - Q).to_list() == [[0, 0], [0, 0]]
    N, d = solve(Q, A)
    assert (Q * N - A * d).to_list() == [[0, 0], [0, 0]]
    with pytest.raises(AlgebraError, match="singular"):
        solve(matrix([[1, 1], [1, 1]]), A)
    with pytest.raises(AlgebraError, match="singular"):
        stein(DomainMatrix.eye(2, QQ), Q)


def test_projector_and_group_inverse():
    A = matrix([[0, 1, 0], [0, (1, 2), 1], [0, 0, (1, 3)]])
    P = spectral_projector(A)
    assert (P * P - P).to_list() == [[0] * 3] * 3
    sharp = group_inverse(A, P)
    assert (A * sharp * A - A).to_list() == [[0] * 3] * 3
    assert (sharp * P).to_list() == [[0] * 3] * 3
    with pytest.raises(AlgebraError):
        spectral_projector(matrix([[0, 1], [0, 0]]))


def test_gramians_against_impulse_responses():
    """Discrete and continuous Gramians against sums and integrals of impulse responses."""
    import numpy as np
    from scipy.linalg import solve_sylvester
    from scipy.signal import lfilter

    a, b = [QQ(1), QQ(-3, 2), QQ(9, 10), QQ(-1, 5)], [QQ(2), QQ(-1, 2), QQ(1, 3), QQ(-1, 7)]
    n, m = [QQ(1), QQ(2), QQ(-1)], [QQ(0), QQ(1), QQ(3)]
    pulse = np.zeros(3000)
    pulse[0] = 1
    i, j = (lfilter([0, *map(float, num)], list(map(float, den)), pulse) for num, den in ((n, a), (m, b)))
    g = gramian.discrete(a, b, QQ)
    assert float(g.covariance(n, m) / g.denominator) == pytest.approx(i @ j, rel=1e-10)

    a, b = [QQ(1), QQ(3, 2), QQ(9, 10), QQ(1, 5)], [QQ(2), QQ(3), QQ(5, 3), QQ(1, 7)]

    def companion(den):
        c = np.array([float(v / den[0]) for v in den[1:]])
        return np.vstack([-c, np.eye(2, 3)]), np.eye(3)[:, :1] / float(den[0])

    (A, B), (C, D) = companion(a), companion(b)
    X = solve_sylvester(A, C.T, -B @ D.T)
    g = gramian.continuous(a, b, QQ)
    assert float(g.covariance(n, m) / g.denominator) == pytest.approx(float(np.array(n, float) @ X @ np.array(m, float)), rel=1e-10)
