"""Linear equations over exact domains; every solution is put back into its equation before it is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sympy.polys.matrices import DomainMatrix
from sympy.polys.matrices.exceptions import DMNonInvertibleMatrixError

from quasistatic.errors import AlgebraError


def check_domain(matrix: DomainMatrix) -> DomainMatrix:
    """The matrix itself; raises AlgebraError where SymPy fell back to trees, whose zero test is unreliable."""
    if matrix.domain.is_EX or matrix.domain.is_EXRAW:
        raise AlgebraError("a computation left its field: the domain is EX")
    return matrix


def solve(A: DomainMatrix, B: DomainMatrix) -> tuple[DomainMatrix, Any]:
    """(N, d) with A N = d B, so that N/d solves A X = B; fraction-free, and the residual is proven zero.

    Parameters
    ----------
    A, B:
        Square (n, n) and (n, k), over the same domain; a ring of polynomials keeps the numbers small.

    Raises
    ------
    AlgebraError
        If A is singular.
    """
    check_domain(A)
    # Cayley-Hamilton: det(A) A^-1 B from the division-free characteristic polynomial, by Horner's scheme
    n = A.shape[0]
    coefficients = A.charpoly()
    sign = A.domain.one if n % 2 else -A.domain.one
    determinant = -sign * coefficients[n]
    if not determinant:
        raise AlgebraError("the equilibrium equation has no unique solution: its matrix is singular")
    numerator = B
    for c in coefficients[1:n]:
        numerator = A * numerator + B.scalarmul(c)
    numerator = numerator.scalarmul(sign)
    _require_zero(A * numerator - B * determinant)
    return numerator, determinant


def solve_field(A: DomainMatrix, B: DomainMatrix) -> DomainMatrix:
    """X with A X = B over a field; the residual is proven zero."""
    check_domain(A)
    try:
        X = A.to_dense().lu_solve(B.to_dense())
    except DMNonInvertibleMatrixError:
        raise AlgebraError("the equilibrium equation has no unique solution: its matrix is singular") from None
    _require_zero(A.to_dense() * X - B.to_dense())
    return X


def stein(J: DomainMatrix, Q: DomainMatrix) -> DomainMatrix:
    """Symmetric V with V = J V J^T + Q, on the n(n+1)/2 distinct entries."""
    return _symmetric(J, Q, _stein_row)


def lyapunov(A: DomainMatrix, Q: DomainMatrix) -> DomainMatrix:
    """Symmetric V with A V + V A^T = Q."""
    return _symmetric(A, Q, _lyapunov_row)


def _stein_row(J: Sequence[Sequence[Any]], i: int, j: int, p: int, q: int, one: Any, zero: Any) -> Any:
    identity = one if (i, j) == (p, q) else zero
    return identity - J[i][p] * J[j][q]


def _lyapunov_row(A: Sequence[Sequence[Any]], i: int, j: int, p: int, q: int, one: Any, zero: Any) -> Any:
    return (A[i][p] if j == q else zero) + (A[j][q] if i == p else zero)


def _symmetric(A: DomainMatrix, Q: DomainMatrix, entry: Any) -> DomainMatrix:
    n = A.shape[0]
    rows, right = A.to_list(), Q.to_list()
    one, zero = A.domain.one, A.domain.zero
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    matrix = []
    for i, j in pairs:
        line = []
        for p, q in pairs:
            value = entry(rows, i, j, p, q, one, zero)
            if p != q:
                value = value + entry(rows, i, j, q, p, one, zero)
            line.append(value)
        matrix.append(line)
    M = DomainMatrix(matrix, (len(pairs), len(pairs)), A.domain)
    rhs = DomainMatrix([[right[i][j]] for i, j in pairs], (len(pairs), 1), A.domain)
    flat = solve_field(M, rhs).to_list()
    value = {pair: flat[k][0] for k, pair in enumerate(pairs)}
    return DomainMatrix([[value[min(i, j), max(i, j)] for j in range(n)] for i in range(n)], (n, n), A.domain)


def group_inverse(A: DomainMatrix, P: DomainMatrix) -> DomainMatrix:
    """A# = (A + P)^-1 - P for the projector P onto the kernel of A along its range; A A# A = A is proven."""
    n = A.shape[0]
    sharp = solve_field(A + P, DomainMatrix.eye(n, A.domain)) - P
    _require_zero(A * sharp * A - A)
    return sharp


def spectral_projector(A: DomainMatrix) -> DomainMatrix:
    """Projector onto the kernel of A along its range.

    Raises
    ------
    AlgebraError
        If the eigenvalue 0 is not semisimple: some direction never forgets.
    """
    right = A.nullspace().transpose()
    left = A.transpose().nullspace()
    overlap = left * right
    if right.shape[1] == 0:
        return A - A
    P = right * solve_field(overlap, left)
    _require_zero(P * P - P)
    _require_zero(A * P)
    return P


def _require_zero(residual: DomainMatrix) -> None:
    if any(entry for row in residual.to_dense().to_list() for entry in row):
        raise AlgebraError("the residual of an equilibrium equation is not zero")
