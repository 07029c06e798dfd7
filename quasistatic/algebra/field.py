"""Fields of rational functions: fresh symbols for h(x), h'(x), roots, exponentials and trigonometric functions.

SymPy's tree simplifiers hang on the expressions of this package. Here an expression becomes a rational function in
independent symbols, with a few algebraic relations (sin^2 = 1 - cos^2, w^2 = the radicand) that a zero test reduces by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.polys.domains import ZZ
from sympy.polys.fields import FracElement, FracField
from sympy.polys.matrices import DomainMatrix
from sympy.polys.orderings import lex
from sympy.polys.polyerrors import PolynomialError

from quasistatic.errors import AlgebraError
from quasistatic.symbols import expression as as_expression

Element = FracElement

#: Polynomials with more terms than this are shown expanded: factoring them costs more than it tells.
FACTOR_LIMIT = 300


class Field:
    """The rational functions in all symbols and non-rational parts of some expressions.

    Parameters
    ----------
    expressions:
        Whatever will be computed with; other expressions can be converted as long as they need no new generator.
    """

    def __init__(self, expressions: Iterable[sp.Expr] = ()) -> None:
        self._fresh: dict[Any, sp.Symbol] = {}
        self._meaning: dict[sp.Symbol, sp.Expr] = {}
        self._relations: list[tuple[sp.Symbol, int, sp.Expr]] = []
        self._exponential_scale: dict[sp.Expr, int] = {}
        expressions = [as_expression(e) for e in expressions]
        for e in expressions:
            self._collect_exponentials(e)
        rational = [self._rational(e) for e in expressions]
        names = set().union(*(r.free_symbols for r in rational), set(self._meaning))
        for _, _, value in self._relations:
            names |= value.free_symbols
        self.generators = tuple(sorted(names, key=lambda s: (s not in self._meaning, s.name, str(s.assumptions0))))
        self.domain = FracField(self.generators, ZZ, lex).to_domain() if self.generators else sp.QQ
        self._reductions = [(self._index(w), power, self._convert(value)) for w, power, value in self._relations]

    # -- expression to element -----------------------------------------------------------------------------------------

    def __call__(self, expression: Any) -> Any:
        """The element that an expression is; raises AlgebraError where it needs a generator that the field lacks."""
        rational = self._rational(as_expression(expression))
        return self.reduce(self._convert(rational))

    def _convert(self, rational: sp.Expr) -> Any:
        if not self.generators:
            return sp.QQ.from_sympy(rational)
        missing = rational.free_symbols - set(self.generators)
        if missing:
            raise AlgebraError(f"{rational} is not in the field of {self.generators}: {missing} is unknown")
        try:
            return self.domain.field.from_expr(rational)
        except (ValueError, PolynomialError) as error:
            raise AlgebraError(f"{rational} is not a rational function of {self.generators}") from error
        except ZeroDivisionError:
            raise AlgebraError(f"{rational} divides by zero") from None

    def matrix(self, entries: sp.Matrix) -> DomainMatrix:
        """A DomainMatrix over this field."""
        rows = [[self(entries[i, j]) for j in range(entries.cols)] for i in range(entries.rows)]
        return DomainMatrix(rows, entries.shape, self.domain)

    def _index(self, symbol: sp.Symbol) -> int:
        return self.generators.index(symbol)

    def reduce(self, element: Any) -> Any:
        """The element with powers of roots and sines lowered by their relations."""
        if not self._reductions:
            return element
        for index, power, value in reversed(self._reductions):
            element = self._lower(element.numer, index, power, value) / self._lower(element.denom, index, power, value)
        return element

    def _lower(self, polynomial: Any, index: int, power: int, value: Any) -> Any:
        parts: dict[int, dict[Any, Any]] = {}
        for monomial, coefficient in polynomial.terms():
            k = monomial[index] // power
            rest = (*monomial[:index], monomial[index] - power * k, *monomial[index + 1 :])
            part = parts.setdefault(k, {})
            part[rest] = part.get(rest, 0) + coefficient
        field = self.domain.field
        total = field.zero
        for k, part in parts.items():
            total += field(field.ring.from_dict(part)) * (value**k if k else field.one)
        return total

    def is_zero(self, expression: Any) -> bool:
        """Whether an expression vanishes identically; False may also mean that the field knows too few relations."""
        return not self(expression)

    # -- element to expression -----------------------------------------------------------------------------------------

    def expression(self, element: Any, factor: bool = True) -> sp.Expr:
        """The expression of an element, factored where that is cheap, with the fresh symbols replaced back."""
        if not self.generators:
            return sp.QQ.to_sympy(element)
        numer, denom = element.numer, element.denom
        if not numer:
            return sp.Integer(0)
        above, top = self._polynomial(numer, factor)
        below, bottom = self._polynomial(denom, factor)
        # back first: the sign belongs to the whole fraction, SymPy would distribute it over the sum in a denominator
        return sp.Rational(above, below) * (self.back(top) / self.back(bottom))

    def expressions(self, matrix: DomainMatrix) -> sp.Matrix:
        """The SymPy matrix of a DomainMatrix over this field."""
        rows, cols = matrix.shape
        dense = matrix.to_dense().rep.to_ddm() if hasattr(matrix.rep, "to_ddm") else matrix.rep
        return sp.Matrix(rows, cols, lambda i, j: self.expression(dense[i][j]))

    def _polynomial(self, polynomial: Any, factor: bool) -> tuple[int, sp.Expr]:
        """An integer and a product of factors whose term of lowest degree is positive: 1 - eta*h, not eta*h - 1."""
        if not factor or len(polynomial) > FACTOR_LIMIT:
            return 1, polynomial.as_expr()
        return factored(polynomial)

    def back(self, expression: sp.Expr) -> sp.Expr:
        """Fresh symbols replaced by what they stand for."""
        return expression.xreplace(self._meaning) if self._meaning else expression

    # -- non-rational parts --------------------------------------------------------------------------------------------

    def _new(self, key: Any, meaning: sp.Expr) -> sp.Symbol:
        if key not in self._fresh:
            if getattr(self, "generators", None) is not None:
                raise AlgebraError(f"{meaning} is not in this field")
            symbol = sp.Dummy(f"_f{len(self._fresh):03d}", real=True, positive=meaning.is_positive or None)
            self._fresh[key] = symbol
            self._meaning[symbol] = meaning
        return self._fresh[key]

    def _collect_exponentials(self, expression: sp.Expr) -> None:
        for node in expression.atoms(sp.exp):
            for term in sp.Add.make_args(sp.expand(node.exp)):
                coefficient, rest = term.as_coeff_Mul(rational=True)
                self._exponential_scale[rest] = sp.ilcm(self._exponential_scale.get(rest, 1), coefficient.q)

    def _rational(self, e: sp.Expr) -> sp.Expr:
        if e.is_Symbol or e.is_Rational:
            return e
        if e.is_Add or e.is_Mul:
            return e.func(*(self._rational(a) for a in e.args))
        if isinstance(e, sp.exp):
            return self._exponential(e)
        if e.is_Pow:
            return self._power(e)
        if isinstance(e, (sp.sin, sp.cos, sp.tan, sp.cot)):
            return self._trigonometric(e)
        if isinstance(e, (sp.sinh, sp.cosh)):
            return self._hyperbolic(e)
        if isinstance(e, (AppliedUndef, sp.Derivative, sp.Subs)):
            return self._unknown(e)
        if e.is_Float:
            return sp.Rational(repr(float(e)))
        if isinstance(e, sp.Function) or e.is_NumberSymbol:
            canonical = e.func(*(self.canonical(a) for a in e.args)) if e.args else e
            if canonical != e and not isinstance(canonical, e.func):
                return self._rational(canonical)
            return self._new(canonical, canonical)
        raise AlgebraError(f"{e} ({type(e).__name__}) is not supported in a derivation")

    def canonical(self, argument: sp.Expr) -> sp.Expr:
        """A normal form of the argument of a function, so that h(s*cos^2 + s*sin^2) is recognised as h(s)."""
        if argument.is_Symbol or argument.is_Rational:
            return argument
        field = Field([argument])
        return field.expression(field(argument))

    def _exponential(self, e: sp.exp) -> sp.Expr:
        result: sp.Expr = sp.Integer(1)
        for term in sp.Add.make_args(sp.expand(e.exp)):
            coefficient, rest = term.as_coeff_Mul(rational=True)
            scale = self._exponential_scale.setdefault(rest, coefficient.q)
            meaning = sp.exp(rest / scale)
            result *= self._new(meaning, meaning) ** (coefficient * scale)
        return result

    def _power(self, e: sp.Pow) -> sp.Expr:
        base, exponent = e.args
        if exponent.is_Integer:
            return self._rational(base) ** exponent
        if exponent.is_Rational:
            simpler = self.canonical(base)
            power = simpler**exponent
            if not (power.is_Pow and power.exp == exponent):  # sqrt(sin^2 + cos^2) is 1, sqrt(8) is 2 sqrt(2)
                return self._rational(power)
            return self._root(power.base, self._rational(power.base), exponent.q) ** exponent.p
        canonical = self.canonical(base) ** self.canonical(exponent)
        return self._new(canonical, canonical)

    def _root(self, base: sp.Expr, value: sp.Expr, degree: int) -> sp.Symbol:
        key = (base, degree)
        known = key in self._fresh
        symbol = self._new(key, base ** sp.Rational(1, degree))
        if not known:
            self._relations.append((symbol, degree, value))
        return symbol

    def _trigonometric(self, e: sp.Expr) -> sp.Expr:
        argument = self.canonical(e.args[0])
        if isinstance(e, sp.tan):
            return self._trigonometric(sp.sin(argument, evaluate=False)) / self._trigonometric(sp.cos(argument, evaluate=False))
        if isinstance(e, sp.cot):
            return self._trigonometric(sp.cos(argument, evaluate=False)) / self._trigonometric(sp.sin(argument, evaluate=False))
        evaluated = e.func(argument)
        if not isinstance(evaluated, e.func) or evaluated.args[0] != argument:
            return self._rational(evaluated)
        expanded = sp.expand_trig(evaluated)
        if expanded != evaluated:
            return self._rational(expanded)
        return self._pair(argument, sp.sin, sp.cos, 1, isinstance(e, sp.sin))

    def _hyperbolic(self, e: sp.Expr) -> sp.Expr:
        argument = self.canonical(e.args[0])
        return self._pair(argument, sp.sinh, sp.cosh, -1, isinstance(e, sp.sinh))

    def _pair(self, argument: sp.Expr, sine: Any, cosine: Any, sign: int, want_sine: bool) -> sp.Expr:
        """sin^2 = 1 - cos^2, or sinh^2 = cosh^2 - 1; both are generators from the start."""
        s, c = sine(argument), cosine(argument)
        known = s in self._fresh
        cos_symbol, sin_symbol = self._new(c, c), self._new(s, s)
        if not known:
            self._relations.append((sin_symbol, 2, sign * (1 - cos_symbol**2)))
        return sin_symbol if want_sine else cos_symbol

    def _unknown(self, e: sp.Expr) -> sp.Expr:
        """h(argument) and its derivatives, keyed by the canonical argument."""
        if isinstance(e, AppliedUndef):
            arguments = tuple(self.canonical(a) for a in e.args)
            canonical = e.func(*arguments)
            return self._new(canonical, canonical)
        inner, point = (e.expr, dict(zip(e.variables, e.point, strict=True))) if isinstance(e, sp.Subs) else (e, {})
        if not isinstance(inner, sp.Derivative) or not isinstance(inner.expr, AppliedUndef) or len(inner.expr.args) != 1:
            raise AlgebraError(f"{e} is not supported: unknown functions have one argument")
        variable = inner.expr.args[0]
        order = sum(count for _, count in inner.variable_count)
        argument = self.canonical(as_expression(variable).xreplace(point))
        if isinstance(argument, sp.Symbol):
            meaning: sp.Expr = sp.Derivative(inner.expr.func(argument), (argument, order))
        else:
            xi = sp.Dummy("xi", real=True)
            meaning = sp.Subs(sp.Derivative(inner.expr.func(xi), (xi, order)), xi, argument)
        return self._new((inner.expr.func, order, argument), meaning)


def factored(polynomial: Any) -> tuple[int, sp.Expr]:
    """The content of a ring element and a product of factors whose term of lowest degree is positive: 1 - eta*h reads better."""
    content, factors = polynomial.factor_list()
    constant, product = int(content), sp.Integer(1)
    for base, exponent in factors:
        expression = base.as_expr()
        lowest = min(base.terms(), key=lambda term: (sum(term[0]), term[0]))
        if lowest[1] < 0:
            expression, constant = -expression, constant * (-1) ** exponent
        product *= expression**exponent
    return constant, product


def normal(expression: sp.Expr, factor: bool = True) -> sp.Expr:
    """An expression as one factored fraction: the named pass at the end of a derivation."""
    field = Field([expression])
    return field.expression(field(expression), factor)


def normal_matrix(matrix: sp.Matrix, factor: bool = True) -> sp.Matrix:
    """Every entry of a matrix as one factored fraction."""
    return sp.Matrix(matrix.rows, matrix.cols, lambda i, j: normal(matrix[i, j], factor))


def is_zero(expressions: sp.Expr | Sequence[sp.Expr]) -> bool:
    """Whether expressions vanish identically."""
    items = [expressions] if isinstance(expressions, sp.Expr) else list(expressions)
    field = Field(items)
    return all(field.is_zero(e) for e in items)


def sample(expressions: Sequence[sp.Expr], rng: Any, fixed: dict[sp.Symbol, float] | None = None) -> list[float]:
    """Numbers for expressions at a random point: symbols and unknown functions get random values of their sign.

    Used where a sign or a rank is asked for, which no algebra tells. ``fixed`` gives the values of some symbols.
    """
    field = Field(expressions)
    values: dict[sp.Expr, sp.Expr] = {
        s: sp.Float((fixed or {}).get(s, _random(s, rng))) for s in _ordered(set().union(*(e.free_symbols for e in expressions)))
    }
    unknown = {m: sp.Float(_random(m, rng)) for m in field._meaning.values() if isinstance(m, (AppliedUndef, sp.Derivative, sp.Subs))}
    numbers: dict[sp.Expr, sp.Expr] = dict(values)
    for symbol, meaning in field._meaning.items():
        if meaning in unknown:
            numbers[symbol] = unknown[meaning]
        else:
            numbers[symbol] = meaning.xreplace(unknown).xreplace(values).evalf()
    return [float(field._rational(as_expression(e)).xreplace(numbers).evalf()) for e in expressions]


def _ordered(found: set[sp.Symbol]) -> list[sp.Symbol]:
    return sorted(found, key=lambda s: (s.name, str(s.assumptions0)))


def _random(thing: sp.Expr, rng: Any) -> float:
    return float(rng.uniform(0.4, 1.6)) if thing.is_positive else float(rng.normal(0.3, 1.0))
