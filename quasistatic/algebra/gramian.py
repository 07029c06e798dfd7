"""Stationary covariances of linear filters from their polynomials, without a state-space equation.

Two filters n_i(z)/p_i(z) and n_j(z)/p_j(z) driven by the same white noise have a stationary covariance that is bilinear
in the numerators: sum over r, c of n_i[r] n_j[c] T[r, c], with T the Gramian of 1/p_i and 1/p_j (theory, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sympy.polys.matrices import DomainMatrix

from quasistatic.algebra.equations import solve

Polynomial = Sequence[Any]


@dataclass(frozen=True)
class Gramian:
    """T = entries / denominator for two monic-degree-m polynomials, as ring elements.

    ``entry(r, c)`` is the numerator of T[r, c], r and c counting from the highest power that a numerator may have.
    """

    table: tuple[tuple[Any, ...], ...]
    denominator: Any

    def covariance(self, ni: Polynomial, nj: Polynomial) -> Any:
        """Numerator of the covariance of the two outputs; numerators are coefficient lists, leading first, length m."""
        m = len(self.table)
        total = 0 * self.denominator
        for r in range(m):
            if not ni[r]:
                continue
            for c in range(m):
                if nj[c]:
                    total += ni[r] * nj[c] * self.table[r][c]
        return total


def discrete(a: Polynomial, b: Polynomial, domain: Any) -> Gramian:
    """Gramian of 1/a(z) and 1/b(z) in discrete time: Toeplitz, and its inverse is the Schur-Cohn matrix.

    Parameters
    ----------
    a, b:
        Coefficients, leading first, both of degree m, over the ring ``domain``.
    """
    m = len(a) - 1
    S = [[_schur_cohn(a, b, m, r, c, domain.zero) for c in range(m)] for r in range(m)]
    first = DomainMatrix([[domain.one if i == 0 else domain.zero] for i in range(m)], (m, 1), domain)
    matrix = DomainMatrix(S, (m, m), domain)
    column, determinant = solve(matrix, first)
    row, _ = solve(matrix.transpose(), first)
    down = [line[0] for line in column.to_list()]
    right = [line[0] for line in row.to_list()]
    table = tuple(tuple(down[r - c] if r >= c else right[c - r] for c in range(m)) for r in range(m))
    return Gramian(table, determinant)


def _schur_cohn(a: Polynomial, b: Polynomial, m: int, r: int, c: int, zero: Any) -> Any:
    total = zero
    for k in range(min(r, c) + 1):
        total += b[r - k] * a[c - k] - a[m - r + k] * b[m - c + k]
    return total


def schur_cohn(a: Polynomial, domain: Any) -> DomainMatrix:
    """The Schur-Cohn matrix of a polynomial: positive definite where all its roots are inside the unit circle."""
    m = len(a) - 1
    return DomainMatrix([[_schur_cohn(a, a, m, r, c, domain.zero) for c in range(m)] for r in range(m)], (m, m), domain)


def continuous(a: Polynomial, b: Polynomial, domain: Any) -> Gramian:
    """Gramian of 1/a(s) and 1/b(s) in continuous time.

    With x, y the impulse responses, T[r, c] is the integral of x^(m-1-r) y^(m-1-c). Integration by parts makes it
    (-1)^q tau[p+q] in the orders of differentiation p, q; the differential equations of x and y are 2m conditions
    on the 2m - 1 numbers tau and the one boundary integral of x^(m) y^(m-1).
    """
    m = len(a) - 1
    size = 2 * m
    lead = a[0] * b[0]
    low_a, low_b = list(reversed(a)), list(reversed(b))  # coefficient of the p-th derivative
    rows, right = [], []
    for q in range(m):  # sum_p a_p <x^(p) y^(q)> = 0
        line = [domain.zero] * size
        for p in range(m):
            line[p + q] += low_a[p] * (-1) ** q
        if q < m - 1:
            line[m + q] += low_a[m] * (-1) ** q
        else:
            line[size - 1] += low_a[m]
        rows.append(line)
        right.append([domain.zero])
    for p in range(m):  # sum_q b_q <x^(p) y^(q)> = 0
        line = [domain.zero] * size
        for q in range(m):
            line[p + q] += low_b[q] * (-1) ** q
        constant = domain.zero
        if p < m - 1:
            line[p + m] += low_b[m] * (-1) ** m
        else:  # <x^(m-1) y^(m)> = -1/lead - <x^(m) y^(m-1)>
            line[size - 1] -= low_b[m]
            constant = low_b[m]
        # equations are multiplied by lead, so that the ring needs no fractions: unknowns are lead * tau
        rows.append(line)
        right.append([constant])
    solution, determinant = solve(DomainMatrix(rows, (size, size), domain), DomainMatrix(right, (size, 1), domain))
    tau = [line[0] for line in solution.to_list()]
    table = tuple(tuple(tau[2 * m - 2 - r - c] * (-1) ** (m - 1 - c) for c in range(m)) for r in range(m))
    return Gramian(table, determinant * lead)
