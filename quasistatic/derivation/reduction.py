"""The slow dynamics of a linear filter: the three terms of the reduction theorem, pulled back to the chart.

For linear filters the flatness and correlation terms together are -(gain/2) P d3f[V] with V_ij = K(lambda_i, lambda_j)
Sigma_ij for all pairs but tangent-tangent; in coordinates u

    E[du] = -(gain/2) G^-1 <dH/du, V> - (1/2) G^-1 T^T phi''[D],   D = gain^2 G^-1 T^T Sigma T G^-1   (theory, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from quasistatic.algebra.field import Field, normal
from quasistatic.derivation.functions import Coefficients, one_sided, two_sided
from quasistatic.derivation.geometry import Geometry, inner
from quasistatic.derivation.kernel import LAMBDA, Filter, Rational2
from quasistatic.errors import AlgebraError

#: Above this many operations a sum stays a sum: bringing it over one denominator costs more than it tells.
COMBINE_LIMIT = 400


@dataclass(frozen=True)
class Terms:
    """The parts of the drift, each a (k, 1) matrix per unit of time; their sum is the drift.

    Attributes
    ----------
    flatness:
        The pull towards flat minima: half the third derivative on the equilibrium covariance (term 1).
    correlation:
        Correlation of tangent and normal noise (term 2).
    ito:
        What keeps the point on a curved manifold, and the Ito term of the chart (term 3).
    force:
        Weight decay and other small forces.
    """

    flatness: sp.ImmutableMatrix
    correlation: sp.ImmutableMatrix
    ito: sp.ImmutableMatrix
    force: sp.ImmutableMatrix

    @property
    def total(self) -> sp.ImmutableMatrix:
        """The drift; a small force keeps its own summand."""
        noise = [combine(sum(entries, start=sp.Integer(0))) for entries in zip(self.flatness, self.correlation, self.ito, strict=True)]
        return sp.ImmutableMatrix(len(noise), 1, [n + f for n, f in zip(noise, self.force, strict=True)])


def _over_lambda(diagonal: Rational2) -> sp.Expr | None:
    """c where a function of one curvature is c/lambda, as kernels are at leading order; else None."""
    lambdas = [{m[-2] for m in part.monoms()} for part in (diagonal.numer, diagonal.denom)]
    if lambdas != [{0}, {1}]:
        return None
    return normal(diagonal.at(LAMBDA, LAMBDA) * LAMBDA)


def combine(expression: sp.Expr) -> sp.Expr:
    """One factored fraction where that is cheap, else the expression as it is."""
    if expression.count_ops() > COMBINE_LIMIT:
        return expression
    return normal(expression)


@dataclass(frozen=True)
class Order:
    """How exactly a result is wanted: exact, or at leading order in one hyperparameter."""

    symbol: sp.Symbol | None = None

    def kernel(self, kernel: Rational2) -> Rational2:
        """The kernel at this order."""
        return kernel if self.symbol is None or not kernel.numer else kernel.leading(self.symbol)

    def scalar(self, expression: sp.Expr) -> sp.Expr:
        """A coefficient of the rule at this order."""
        if self.symbol is None or expression == 0:
            return expression
        return leading_term(expression, self.symbol)

    def size(self, kernel: Rational2, gain: sp.Expr, power: int) -> int:
        """Total power of the hyperparameter in gain^power * kernel."""
        if self.symbol is None or not kernel.numer:
            return 0
        return kernel.order(self.symbol) + power * leading_power(gain, self.symbol)


def leading_term(expression: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """Coefficient and lowest power of a symbol in a rational function."""
    return _leading(expression, symbol)[1]


def leading_power(expression: sp.Expr, symbol: sp.Symbol) -> int:
    """Lowest power of a symbol in a rational function."""
    return _leading(expression, symbol)[0]


def _leading(expression: sp.Expr, symbol: sp.Symbol) -> tuple[int, sp.Expr]:
    plain = _one_power(expression, symbol)
    if plain is not None:
        return plain, expression
    field = Field([expression])
    if symbol not in field.generators:
        if symbol in expression.free_symbols:
            raise AlgebraError(f"{expression} is not a rational function of {symbol}: its leading order is not supported")
        return 0, expression
    element = field(expression)
    index = field.generators.index(symbol)
    low, parts = [], []
    for part in (element.numer, element.denom):
        valuation = min(m[index] for m in part.monoms())
        low.append(valuation)
        parts.append(field.domain.field(part.ring.from_dict({m: c for m, c in part.terms() if m[index] == valuation})))
    return int(low[0] - low[1]), field.expression(parts[0] / parts[1])


def _one_power(expression: sp.Expr, symbol: sp.Symbol) -> int | None:
    """The power of a symbol that every term of a sum has as a factor; None where the terms differ, or hold it otherwise."""
    powers = set()
    for term in sp.Add.make_args(expression):
        rest, own = term.as_independent(symbol, as_Add=False)
        base, exponent = own.as_base_exp() if own != 1 else (symbol, sp.Integer(0))
        if base != symbol or not exponent.is_Integer or rest == 0:
            return None
        powers.add(int(exponent))
    return powers.pop() if len(powers) == 1 else None


@dataclass(frozen=True)
class Reduction:
    """A filter on a geometry, at some order."""

    filter: Filter
    geometry: Geometry
    order: Order = Order()

    @property
    def gain(self) -> sp.Expr:
        """Gain at this order."""
        return self.order.scalar(self.filter.linear.gain)

    @property
    def has_force(self) -> bool:
        """Whether a small force acts."""
        return self.filter.linear.has_force

    def _rate(self, matrix: sp.Matrix) -> sp.ImmutableMatrix:
        """Per unit of time instead of per iteration, each entry combined."""
        dt = self.filter.linear.dt
        return sp.ImmutableMatrix(matrix.rows, matrix.cols, [combine(x / dt) for x in matrix])

    def terms(self) -> Terms:
        """The parts of the drift."""
        zero = sp.zeros(self.geometry.k, 1)
        g = self.geometry
        half = -self.gain / 2
        kernel = self.filter.kernel
        flat = half * self._normal_part(self.order.kernel(kernel)) if g.has_normal_noise else zero
        correlation = zero
        if g.has_cross_noise:
            total = self._cross_part(self.order.kernel(kernel.at_zero()))
            fast = self._cross_part(self.order.kernel(self.filter.crossed(0, 0)))
            flat = flat + half * fast
            correlation = half * (total - fast)
        ito = self.gain**2 * g.express(g.bend) if g.has_tangent_noise else zero
        force = self._force() if self.has_force else zero
        parts = [self._rate(sp.Matrix(p)) for p in (flat, correlation, ito, force)]
        return self._lowest(Terms(*parts))

    def _lowest(self, terms: Terms) -> Terms:
        """At leading order, only the noise terms of the lowest power survive; a small force has a size of its own."""
        symbol = self.order.symbol
        if symbol is None:
            return terms
        if not self.geometry.has_cross_noise:  # one kernel, whose size is known
            return self._lowest_of_two(terms)
        noisy = [x for part in (terms.flatness, terms.correlation, terms.ito) for x in part if x != 0]
        if not noisy:
            return terms
        low = min(leading_power(x, symbol) for x in noisy)

        def keep(matrix: sp.ImmutableMatrix) -> sp.ImmutableMatrix:
            return matrix.applyfunc(lambda x: leading_term(x, symbol) if x != 0 and leading_power(x, symbol) == low else sp.Integer(0))

        return replace(terms, flatness=keep(terms.flatness), correlation=keep(terms.correlation), ito=keep(terms.ito))

    def _lowest_of_two(self, terms: Terms) -> Terms:
        """Pull of the normal noise and bend by the tangent noise: the one of higher order is dropped."""
        g = self.geometry
        if not (g.has_normal_noise and g.has_tangent_noise):
            return terms
        linear = self.filter.linear
        pull = self.order.size(self.filter.kernel, linear.gain, 1)
        bend = self.order.size(self.filter.kernel, linear.gain, 2) - self.order.size(self.filter.kernel, linear.gain, 0)
        zero = sp.zeros(g.k, 1).as_immutable()
        return replace(terms, flatness=zero if pull > bend else terms.flatness, ito=zero if bend > pull else terms.ito)

    def _normal_part(self, kernel: Rational2) -> sp.Matrix:
        """G^-1 <dH/du, N Vff N^T> with Vff = K(h, h)[Sff]."""
        g = self.geometry
        total = sp.zeros(g.k, 1)
        for coefficient, S in self._normal_sum(kernel):
            inners = [inner(B, S, g.field(0)) for B in g.curvature_change]
            total += coefficient * g.express(g.pullback(inners))
        return total

    def covector(self) -> sp.Matrix:
        """<dH/du, V> for every coordinate, (k, 1): twice the mean gradient along the manifold."""
        g = self.geometry
        total = sp.zeros(g.k, 1)
        for coefficient, S in self._normal_sum(self.order.kernel(self.filter.kernel)):
            inners = [g.field.reduce(inner(B, S, g.field(0))) for B in g.curvature_change]
            total += coefficient * sp.Matrix([g.field.expression(x) for x in inners])
        return total.applyfunc(combine)

    def _normal_sum(self, kernel: Rational2, symmetric: bool = True) -> list[tuple[sp.Expr, DomainMatrix]]:
        """K(h, h)[Sff] as a folded sum of coefficients and matrices."""
        g = self.geometry
        if g.commutes:
            strength = _over_lambda(kernel.on_diagonal())
            if strength is not None:
                return [(strength, g.noise_over_h)]
            function, noise = (kernel.times_curvature(), g.noise_over_h) if g.noise_like_hessian else (kernel.on_diagonal(), g.Sff)
            coefficients = one_sided(function, g.characteristic)
            return [(c, g._reduced(p * noise)) for c, p in zip(coefficients, g.powers, strict=True) if c != 0]
        table: Coefficients = two_sided(kernel, g.characteristic, symmetric)
        return [(c, g._reduced(g.powers[p] * g.Sff * g.powers[q].transpose())) for (p, q), c in sorted(table.items()) if c != 0]

    def _cross_sum(self, kernel: Rational2) -> list[tuple[sp.Expr, DomainMatrix]]:
        """Stf k(h^T) as a folded sum."""
        g = self.geometry
        coefficients = one_sided(kernel, g.characteristic)
        return [(c, g._reduced(g.Stf * p.transpose())) for c, p in zip(coefficients, g.powers, strict=True) if c != 0]

    def _cross_part(self, kernel: Rational2) -> sp.Matrix:
        """2 G^-1 <T^T dH/du N, Stf k(h^T)>."""
        g = self.geometry
        total = sp.zeros(g.k, 1)
        if not kernel.numer:
            return total
        for coefficient, S in self._cross_sum(kernel):
            inners = [2 * inner(B, S, g.field(0)) for B in g.cross_change]
            total += coefficient * g.express(g.pullback(inners))
        return total

    def _force(self) -> sp.Matrix:
        """P (F(s) - s), the left eigenvector acting on the whole state."""
        g, linear = self.geometry, self.filter.linear
        pull = self.order.scalar(normal((linear.left.T * linear.force)[0]))
        shift = self.order.scalar(normal((linear.left.T * linear.shift)[0]))
        ones = DomainMatrix([[g.field(1)]] * g.T.shape[0], (g.T.shape[0], 1), g.field.domain)
        return pull * g.express(g._reduced(g.T_left * g.phi)) + shift * g.express(g._reduced(g.T_left * ones))

    def diffusion(self) -> sp.ImmutableMatrix:
        """Covariance of the coordinates' step per unit of time, (k, k)."""
        return self._rate(self.gain**2 * self.geometry.express(self.geometry.Stt))

    def metric(self) -> sp.ImmutableMatrix:
        """Induced metric, (k, k)."""
        return sp.ImmutableMatrix(self.geometry.express(self.geometry.G))

    def covariance(self) -> sp.ImmutableMatrix:
        """Equilibrium covariance of the fast part of the whole state, (n, n), n = (1 + q) d."""
        full, d = self.filter, self.geometry.T.shape[0]
        n = full.n
        blocks = [[self.block(a, b) for b in range(n)] for a in range(n)]
        return sp.ImmutableMatrix(n * d, n * d, lambda i, j: blocks[i // d][j // d][i % d, j % d])

    def block(self, a: int, b: int) -> sp.Matrix:
        """The block of ``covariance`` between states a and b (0 is the parameter), (d, d)."""
        g, f = self.geometry, self.filter
        d = g.T.shape[0]
        total = sp.zeros(d, d)
        if g.has_normal_noise:
            total += self._folded(self._normal_sum(self.order.kernel(f.normal(a, b)), symmetric=a == b), g.N, g.N)
        if g.has_cross_noise:
            for kernel, flip in ((f.crossed(a, b), False), (f.crossed(b, a), True)):
                if kernel.numer:
                    part = self._folded(self._cross_sum(self.order.kernel(kernel)), g.T, g.N)
                    total += part.T if flip else part
        if g.has_tangent_noise:
            kernel = self.order.kernel(f.tangent(a, b))
            if kernel.numer:
                total += self._folded([(kernel.at(sp.Integer(0), sp.Integer(0)), g.Stt)], g.T, g.T)
        return total.applyfunc(combine)

    def _folded(self, terms: list[tuple[sp.Expr, DomainMatrix]], left: DomainMatrix, right: DomainMatrix) -> sp.Matrix:
        g = self.geometry
        total = sp.zeros(left.shape[0], right.shape[0])
        for coefficient, S in terms:
            total += coefficient * g.express(g._reduced(left * S * right.transpose()))
        return total
