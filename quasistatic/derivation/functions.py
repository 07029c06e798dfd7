"""Kernels as functions of a matrix: K applied to the normal Hessian without its eigenvectors.

On r normal directions K(h, h)[S] = sum_{p, q < r} c_pq h^p S (h^T)^q, with c_pq rational in the coefficients of the
characteristic polynomial of h. They are found once for every rule, in fresh symbols for those coefficients, by inverting
the kernel's denominator modulo the characteristic polynomial (theory, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix
from sympy.polys.rings import PolyElement, PolyRing

from quasistatic.algebra.equations import solve
from quasistatic.algebra.field import factored
from quasistatic.derivation.kernel import Rational2

Coefficients = dict[tuple[int, int], sp.Expr]


def two_sided(kernel: Rational2, characteristic: Sequence[sp.Expr], symmetric: bool = True) -> Coefficients:
    """c_pq with K(h, h)[S] = sum c_pq h^p S (h^T)^q."""
    r = len(characteristic)
    if r == 1:
        return {(0, 0): kernel.at(-characteristic[0], -characteristic[0])}
    quotient = _Quotient(kernel.ring, r, 2)
    pairs = [(p, q) for p in range(r) for q in range(r) if p <= q or not symmetric]
    found = quotient.divide(kernel, pairs, mirror=symmetric)
    expressions = quotient.express(found, kernel, characteristic)
    return {**expressions, **({(q, p): v for (p, q), v in expressions.items()} if symmetric else {})}


def one_sided(kernel: Rational2, characteristic: Sequence[sp.Expr]) -> list[sp.Expr]:
    """c_q with k(h) = sum c_q h^q for a function of one curvature (diagonal kernels, or lambda_i = 0)."""
    r = len(characteristic)
    variable = -1 if kernel.ring.symbols[-1] in _used(kernel) else -2
    if r == 1:
        value = -characteristic[0]
        return [kernel.at(value, value)]
    quotient = _Quotient(kernel.ring, r, 1, variable)
    found = quotient.divide(kernel, [(0, q) for q in range(r)], mirror=False)
    expressions = quotient.express(found, kernel, characteristic)
    return [expressions[0, q] for q in range(r)]


def _used(kernel: Rational2) -> set[sp.Symbol]:
    names = kernel.ring.symbols
    return {names[k] for part in (kernel.numer, kernel.denom) for m in part.monoms() for k, power in enumerate(m) if power}


class _Quotient:
    """Polynomials in one or two curvatures modulo the characteristic polynomial with fresh coefficients."""

    def __init__(self, ring: PolyRing, r: int, variables: int, variable: int = -2) -> None:
        self.r, self.variables, self.variable = r, variables, variable
        self.fresh = tuple(sp.Dummy(f"_x{k + 1}", real=True) for k in range(r))
        self.ring = PolyRing((*ring.symbols[:-2], *self.fresh), ring.domain, ring.order)
        # x^k modulo x^r + c_1 x^(r-1) + ... + c_r, as coefficient lists, lowest power first; grows on demand
        one, zero = self.ring.one, self.ring.zero
        self._powers: list[list[PolyElement]] = [[one if i == k else zero for i in range(r)] for k in range(r)]

    def power(self, k: int) -> list[PolyElement]:
        """Remainder of x^k."""
        coefficients = self.ring.gens[-self.r :]
        while len(self._powers) <= k:
            last = self._powers[-1]
            top = last[-1]
            shifted = [self.ring.zero, *last[:-1]]
            self._powers.append([s - top * coefficients[self.r - 1 - i] for i, s in enumerate(shifted)])
        return self._powers[k]

    def _split(self, polynomial: PolyElement) -> dict[tuple[int, int], PolyElement]:
        pad = (0,) * self.r
        parts: dict[tuple[int, int], dict[Any, Any]] = {}
        for m, c in polynomial.terms():
            powers = (m[-2], m[-1]) if self.variables == 2 else (0, m[self.variable])
            parts.setdefault(powers, {})[(*m[:-2], *pad)] = c
        return {powers: self.ring.from_dict(part) for powers, part in parts.items()}

    def multiply(self, polynomial: dict[tuple[int, int], PolyElement], p: int, q: int) -> dict[tuple[int, int], PolyElement]:
        """The remainder of a polynomial times x^p y^q."""
        total: dict[tuple[int, int], PolyElement] = {}
        for (a, b), c in polynomial.items():
            left = self.power(a + p) if self.variables == 2 else [self.ring.one]
            for i, x in enumerate(left):
                if not x:
                    continue
                for j, y in enumerate(self.power(b + q)):
                    if y:
                        total[i, j] = total.get((i, j), self.ring.zero) + c * x * y
        return total

    def divide(
        self, kernel: Rational2, pairs: list[tuple[int, int]], mirror: bool
    ) -> tuple[dict[tuple[int, int], PolyElement], PolyElement]:
        """Numerators and the common denominator of the coefficients of numer/denom modulo the characteristic polynomial."""
        numer, denom = self._split(kernel.numer), self._split(kernel.denom)
        columns = []
        for p, q in pairs:
            column = self.multiply(denom, p, q)
            if mirror and p != q:
                for key, value in self.multiply(denom, q, p).items():
                    column[key] = column.get(key, self.ring.zero) + value
            columns.append(column)
        right = self.multiply(numer, 0, 0)
        zero, n = self.ring.zero, len(pairs)
        domain = self.ring.to_domain()
        A = DomainMatrix([[column.get(pair, zero) for column in columns] for pair in pairs], (n, n), domain)
        b = DomainMatrix([[right.get(pair, zero)] for pair in pairs], (n, 1), domain)
        solution, determinant = solve(A, b)
        return {pair: row[0] for pair, row in zip(pairs, solution.to_list(), strict=True)}, determinant

    def express(
        self, found: tuple[dict[tuple[int, int], PolyElement], PolyElement], kernel: Rational2, characteristic: Sequence[sp.Expr]
    ) -> Coefficients:
        """Expressions of the coefficients; the characteristic coefficients stay folded in them."""
        numerators, denominator = found
        replace = {**dict(zip(self.fresh, characteristic, strict=True)), **kernel.meaning}
        return {pair: _fraction(value, denominator, replace) for pair, value in numerators.items()}


def _fraction(numer: PolyElement, denom: PolyElement, replace: dict[sp.Symbol, sp.Expr]) -> sp.Expr:
    if not numer:
        return sp.Integer(0)
    numer, denom = numer.cancel(denom)
    above, top = factored(numer)
    below, bottom = factored(denom)
    return sp.Rational(above, below) * (top.xreplace(replace) / bottom.xreplace(replace))
