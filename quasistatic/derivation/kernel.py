"""The law for any loss: covariance kernels of a linear filter of the gradient (theory, sections 3.1 and 4).

In the Hessian's eigenbasis the equilibrium covariance is V_ij = K(lambda_i, lambda_j) Sigma_ij. With p_l(z) = (z-1) d(z)
+ l n(z) (in continuous time s d(s) + l n(s)) every state of the optimizer is the filter N_a/p_l of the gradient noise, and
all covariances follow from the Gramian of 1/p_i and 1/p_j.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.polys.domains import ZZ
from sympy.polys.matrices import DomainMatrix
from sympy.polys.orderings import lex
from sympy.polys.polyfuncs import symmetrize
from sympy.polys.rings import PolyElement, PolyRing

from quasistatic.algebra import gramian
from quasistatic.algebra.field import Field, factored
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import HyperparameterError, RuleError

LAMBDA_I, LAMBDA_J = sp.symbols("lambda_i lambda_j", positive=True)
LAMBDA = sp.Symbol("lambda", positive=True)


@dataclass(frozen=True)
class Rational2:
    """A rational function of two curvatures: numerator and denominator in a ring whose last generators are them.

    ``meaning`` says what the other generators stand for (hyperparameters, or symmetric functions of them).
    """

    numer: PolyElement
    denom: PolyElement
    meaning: Mapping[sp.Symbol, sp.Expr]

    @property
    def ring(self) -> PolyRing:
        """The ring of numerator and denominator."""
        return self.numer.ring

    @cached_property
    def reduced(self) -> Rational2:
        """Without the common factor."""
        numer, denom = self.numer.cancel(self.denom)
        return Rational2(numer, denom, self.meaning)

    def at(self, i: sp.Expr, j: sp.Expr) -> sp.Expr:
        """The expression at two curvatures, numerator and denominator factored."""
        if not self.numer:
            return sp.Integer(0)
        replace = {LAMBDA_I: i, LAMBDA_J: j, **self.meaning}
        above, top = factored(self.numer)
        below, bottom = factored(self.denom)
        return sp.Rational(above, below) * (top.xreplace(replace) / bottom.xreplace(replace))

    def on_diagonal(self) -> Rational2:
        """The function of one curvature that it is for lambda_j = lambda_i."""
        return Rational2(_equal(self.numer), _equal(self.denom), self.meaning).reduced

    def times_curvature(self) -> Rational2:
        """lambda times ``on_diagonal``: what noise like the Hessian makes of it."""
        diagonal = self.on_diagonal()
        return Rational2(diagonal.numer * diagonal.ring.gens[-2], diagonal.denom, self.meaning).reduced

    def at_zero(self) -> Rational2:
        """The function of lambda_j that it is for lambda_i = 0."""
        return Rational2(_zero_i(self.numer), _zero_i(self.denom), self.meaning).reduced

    def coefficients(self) -> tuple[dict[tuple[int, int], sp.Expr], dict[tuple[int, int], sp.Expr]]:
        """Numerator and denominator as {(a, b): coefficient of lambda_i^a lambda_j^b}."""
        return self._collect(self.numer), self._collect(self.denom)

    def _collect(self, polynomial: PolyElement) -> dict[tuple[int, int], sp.Expr]:
        parts: dict[tuple[int, int], dict[Any, Any]] = {}
        for monomial, coefficient in polynomial.terms():
            parts.setdefault((monomial[-2], monomial[-1]), {})[(*monomial[:-2], 0, 0)] = coefficient
        found = {}
        for powers, part in parts.items():
            content, product = factored(self.ring.from_dict(part))
            found[powers] = content * product.xreplace(dict(self.meaning))
        return found

    def leading(self, symbol: sp.Symbol) -> Rational2:
        """Leading order in one hyperparameter."""
        index = self._index(symbol)
        return Rational2(_lowest(self.numer, index), _lowest(self.denom, index), self.meaning).reduced

    def order(self, symbol: sp.Symbol) -> int:
        """The leading power of one hyperparameter."""
        index = self._index(symbol)
        return int(_valuation(self.numer, index) - _valuation(self.denom, index))

    def _index(self, symbol: sp.Symbol) -> int:
        for k, generator in enumerate(self.ring.symbols[:-2]):
            value = self.meaning.get(generator, generator)
            if value == symbol:
                return k
            if symbol in value.free_symbols:
                raise RuleError(f"the leading order in {symbol} needs {value} as a power series, which is not supported.")
        raise HyperparameterError(f"{symbol} does not appear in the law.")


def _valuation(polynomial: PolyElement, index: int) -> int:
    return min((m[index] for m in polynomial.monoms()), default=0)


def _lowest(polynomial: PolyElement, index: int) -> PolyElement:
    low = _valuation(polynomial, index)
    return polynomial.ring.from_dict({m: c for m, c in polynomial.terms() if m[index] == low})


def _equal(polynomial: PolyElement) -> PolyElement:
    parts: dict[Any, Any] = {}
    for m, c in polynomial.terms():
        key = (*m[:-2], m[-2] + m[-1], 0)
        parts[key] = parts.get(key, 0) + c
    return polynomial.ring.from_dict({m: c for m, c in parts.items() if c})


def _zero_i(polynomial: PolyElement) -> PolyElement:
    return polynomial.ring.from_dict({m: c for m, c in polynomial.terms() if m[-2] == 0})


@dataclass(frozen=True)
class Filter:
    """A linear rule as polynomials over a ring of its hyperparameters and two curvatures, leading coefficients first.

    Attributes
    ----------
    linear:
        The rule.
    states:
        N_a, numerators from the gradient noise to every state, each of length n.
    d:
        Characteristic polynomial of the rule without curvature, divided by its root of the manifold; length n.
    along:
        ``along_scale`` times the numerators over d of the fast part along the manifold (what remains after the lasting
        displacement), length n - 1.
    meaning:
        What the ring's generators stand for.
    """

    linear: LinearRule
    states: tuple[tuple[PolyElement, ...], ...]
    d: tuple[PolyElement, ...]
    along: tuple[tuple[PolyElement, ...], ...]
    along_scale: PolyElement
    meaning: Mapping[sp.Symbol, sp.Expr]

    @property
    def ring(self) -> PolyRing:
        """Ring of the coefficients."""
        return self.d[0].ring

    @property
    def n(self) -> int:
        """1 + number of memories."""
        return len(self.d)

    def closed(self, curvature: PolyElement) -> tuple[PolyElement, ...]:
        """p(z) = (z - 1) d + curvature * n, or s d + curvature * n."""
        zero = self.ring.zero
        root = zero if self.linear.continuous else self.ring.one
        shifted = [*self.d, zero]
        lower = [zero, *self.d]
        numerator = [zero, *(-x for x in self.states[0])]
        return tuple(a - root * b + curvature * c for a, b, c in zip(shifted, lower, numerator, strict=True))

    @property
    def _gramian(self) -> Callable[..., gramian.Gramian]:
        return gramian.continuous if self.linear.continuous else gramian.discrete

    @cached_property
    def _normal(self) -> gramian.Gramian:
        *_, i, j = self.ring.gens
        return self._gramian(self.closed(i), self.closed(j), self.ring.to_domain())

    @cached_property
    def _crossed(self) -> gramian.Gramian:
        """Fast part along the manifold against a normal direction; d is padded with a root that is harmless."""
        *_, j = self.ring.gens
        return self._gramian(self._padded_d, self.closed(j), self.ring.to_domain())

    @property
    def _padded_d(self) -> tuple[PolyElement, ...]:
        zero, one = self.ring.zero, self.ring.one
        if not self.linear.continuous:
            return (*self.d, zero)  # times z: a pole at zero
        return tuple(a + one * b for a, b in zip([*self.d, zero], [zero, *self.d], strict=True))  # times s + 1

    def _padded(self, numerator: Sequence[PolyElement]) -> tuple[PolyElement, ...]:
        zero = self.ring.zero
        if not self.linear.continuous:
            return (*numerator, zero)
        return tuple(a + b for a, b in zip([*numerator, zero], [zero, *numerator], strict=True))

    def normal(self, a: int, b: int) -> Rational2:
        """Covariance kernel of states a and b in two normal directions."""
        return self._rational(self._normal, self.states[a], self.states[b])

    def crossed(self, a: int, b: int) -> Rational2:
        """Fast part of state a along the manifold with state b in a normal direction, a function of lambda_j."""
        if self.n == 1:
            return Rational2(self.ring.zero, self.ring.one, self.meaning)
        return self._rational(self._crossed, self._padded(self.along[a]), self.states[b], self.along_scale)

    def tangent(self, a: int, b: int) -> Rational2:
        """Fast parts of states a and b along the manifold."""
        if self.n == 1:
            return Rational2(self.ring.zero, self.ring.one, self.meaning)
        table = self._gramian(self.d, self.d, self.ring.to_domain())
        return self._rational(table, self.along[a], self.along[b], self.along_scale**2)

    def _rational(self, table: gramian.Gramian, left: Sequence[PolyElement], right: Sequence[PolyElement], scale: Any = 1) -> Rational2:
        return Rational2(table.covariance(left, right), table.denominator * scale, self.meaning).reduced

    @cached_property
    def kernel(self) -> Rational2:
        """K(lambda_i, lambda_j), positive and symmetric; lambda_i = 0 is the tangent-normal block."""
        return self.normal(0, 0)


def make_filter(linear: LinearRule, memories: bool = False) -> Filter:
    """The polynomials of a linear rule; of its parameter alone, or with ``memories`` of every state.

    A rule's transfer function is often symmetric in hyperparameters in which its memories are not, and is then far
    smaller in their elementary symmetric functions: so the law does without the memories.
    """
    field = Field([*linear.A, *linear.b, *linear.fixed])
    A, b = field.matrix(linear.A), field.matrix(linear.b)
    characteristic, numerators = _resolvent(A, b, field)
    root = field(0 if linear.continuous else 1)
    d = _divide(characteristic, root, field)
    gain = field(linear.gain)
    right = [field(x) for x in linear.fixed]
    along = [
        _divide([n + r * gain * c for n, c in zip(numerator, d, strict=True)], root, field)
        for numerator, r in zip(numerators, right, strict=True)
    ]
    kept = len(numerators) if memories else 1
    return _over_ring(linear, field, numerators[:kept], d, along[:kept])


def _resolvent(A: DomainMatrix, b: DomainMatrix, field: Field) -> tuple[list[Any], list[list[Any]]]:
    """det(z - A) and adj(z - A) b by Faddeev-LeVerrier, coefficients leading first."""
    n = A.shape[0]
    eye = DomainMatrix.eye(n, A.domain)
    M, characteristic = eye, [field(1)]
    columns = [b]
    for k in range(1, n + 1):
        AM = A * M
        trace = sum((AM.to_list()[i][i] for i in range(n)), start=field(0))
        c = -trace / k
        characteristic.append(field.reduce(c))
        M = AM + eye * c
        if k < n:
            columns.append(M * b)
    return characteristic, [[field.reduce(column.to_list()[i][0]) for column in columns] for i in range(n)]


def _divide(polynomial: Sequence[Any], root: Any, field: Field) -> list[Any]:
    """Quotient by (z - root), which divides it: Horner's scheme."""
    quotient = [field.reduce(polynomial[0])]
    for coefficient in polynomial[1:-1]:
        quotient.append(field.reduce(coefficient + root * quotient[-1]))
    remainder = field.reduce(polynomial[-1] + root * quotient[-1])
    if remainder:
        raise RuleError("the rule's characteristic polynomial does not have the root of its manifold")  # pragma: no cover
    return quotient


def _over_ring(linear: LinearRule, field: Field, states: list[list[Any]], d: list[Any], along: list[list[Any]]) -> Filter:
    """Denominators cleared, symmetric hyperparameters replaced by their symmetric functions, curvatures adjoined."""
    cleared, scale = _cleared([x for row in (*states, d) for x in row], field)
    # the lasting displacement brings denominators of its own, which would only burden the kernel
    extra, extra_scale = _cleared([x * scale for row in along for x in row], field)
    expressions, elementary = _elementary([field_expression(x) for x in (*cleared, *extra, extra_scale)])
    found = set().union(*(e.free_symbols for e in expressions))
    names = sorted(found, key=lambda s: (s.name, str(s.assumptions0)))
    ring = PolyRing((*names, LAMBDA_I, LAMBDA_J), ZZ, lex)
    elements = iter([ring.from_expr(e) for e in expressions])

    def take(rows: list[list[Any]]) -> tuple[tuple[PolyElement, ...], ...]:
        return tuple(tuple(next(elements) for _ in row) for row in rows)

    new_states, (new_d,), new_along = take(states), take([d]), take(along)
    meaning = {s: field.back(elementary.get(s, s)) for s in names}
    return Filter(linear, new_states, new_d, new_along, next(elements), meaning)


def field_expression(element: Any) -> sp.Expr:
    """A ring element or an integer as an expression."""
    return element.as_expr() if hasattr(element, "as_expr") else sp.Integer(int(element))


def _cleared(elements: list[Any], field: Field) -> tuple[list[Any], Any]:
    """Elements times their least common denominator, and that denominator, as ring elements (or integers)."""
    if not field.generators:
        scale = sp.ilcm(1, *(x.denominator for x in elements))
        return [int(x * scale) for x in elements], int(scale)
    ring = field.domain.field.ring
    common = ring.one
    for x in elements:
        common = common.lcm(x.denom)
    return [(x * common).numer if x else ring.zero for x in elements], common


def _elementary(expressions: list[sp.Expr]) -> tuple[list[sp.Expr], dict[sp.Symbol, sp.Expr]]:
    """Rewrite polynomials in the elementary symmetric functions of the symbols that all of them are symmetric in."""
    meaning: dict[sp.Symbol, sp.Expr] = {}
    for group in _symmetric_groups(expressions):
        fresh = [sp.Dummy(f"_e{k + 1}", positive=True) for k in range(len(group))]
        rewritten = []
        for e in expressions:
            form, rest, definitions = symmetrize(e, *group, formal=True)
            rename = {symbol: fresh[k] for k, (symbol, _) in enumerate(definitions)}
            rewritten.append(sp.expand(form.xreplace(rename) + rest))
        for k, symbol in enumerate(fresh):
            meaning[symbol] = sum(sp.prod(c) for c in itertools.combinations(group, k + 1))
        expressions = rewritten
    return expressions, meaning


def _symmetric_groups(expressions: list[sp.Expr]) -> list[list[sp.Symbol]]:
    names = sorted(set().union(*(e.free_symbols for e in expressions)), key=lambda s: s.name)
    groups: list[list[sp.Symbol]] = []
    for name in names:
        home = next((g for g in groups if all(_swapped_equal(e, g[0], name) for e in expressions)), None)
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    return [g for g in groups if len(g) > 1]


def _swapped_equal(e: sp.Expr, a: sp.Symbol, b: sp.Symbol) -> bool:
    return bool(sp.expand(e.xreplace({a: b, b: a}) - e) == 0)
