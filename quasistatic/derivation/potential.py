"""The potential whose gradient flow the drift is, where there is one.

Convention: the drift without its Ito part is -M(u)^-1 dPsi/du per unit of time, M the induced metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef

from quasistatic.algebra.field import Field, is_zero, normal
from quasistatic.derivation.geometry import Geometry
from quasistatic.derivation.kernel import LAMBDA, Rational2
from quasistatic.errors import NoPotential

#: Larger integrands are left to quadrature.
INTEGRAND_LIMIT = 250
#: Larger one-forms are not differentiated.
DIFFERENTIATION_LIMIT = 2_000
#: Random points at which a curl without an exact zero test is looked at.
POINTS = 4
#: Larger one-forms are not even brought over one denominator.
OMEGA_LIMIT = 1500


class NoClosedForm(NoPotential):
    """A potential that exists but has no formula here; quadrature gives its values."""


# -- traces of a function of the Hessian -------------------------------------------------------------------------------


def density(kernel: Rational2, gain: sp.Expr, strength: sp.Expr, hessian_noise: bool) -> sp.Expr:
    """rho'(lambda) = gain/2 * strength * [lambda] K(lambda, lambda): noise strength*Hessian, or strength on the normal space."""
    diagonal = kernel.on_diagonal().at(LAMBDA, LAMBDA)
    return normal(gain * strength * (LAMBDA if hessian_noise else 1) * diagonal / 2)


def logarithms(rho_prime: sp.Expr) -> tuple[sp.Expr, list[tuple[sp.Expr, sp.Expr]], sp.Expr]:
    """The integral of rho' as polynomial(lambda) + sum_k c_k log(1 + t_k lambda) + c log(lambda): (polynomial, [(c_k, t_k)], c).

    Raises
    ------
    NoClosedForm
        If the denominator does not split into distinct linear factors of lambda over the hyperparameters.
    """
    field = Field([rho_prime, LAMBDA])
    element = field(rho_prime)
    index = field.generators.index(LAMBDA)
    _, factors = element.denom.factor_list()
    linear, rest = [], field.domain.field.one
    for base, exponent in factors:
        degree = max(m[index] for m in base.monoms())
        if degree == 0:
            continue
        if degree > 1 or exponent > 1:
            raise NoClosedForm(
                f"rho'(lambda) has the denominator {element.denom.as_expr()}, which does not split into distinct linear factors of lambda:"
                " the regularizer has no closed form here; law.compile(...).regularizer(lambda) integrates it."
            )
        linear.append(base)
    K = field.domain.field
    lam = K.gens[index]
    for base in linear:
        rest *= K(base)
    numerator = element * rest  # a polynomial in lambda over the other generators
    logs: list[tuple[sp.Expr, sp.Expr]] = []
    at_zero: sp.Expr = sp.Integer(0)
    remainder = element
    for base in linear:
        slope, constant = _line(K, base, index)
        root = -constant / slope
        others = rest / K(base)
        residue = _put(K, numerator, index, root) / _put(K, others, index, root)
        remainder = remainder - residue / K(base)
        if constant:
            logs.append((field.expression(residue / slope), field.expression(slope / constant)))
        else:
            at_zero += field.expression(residue / slope)
    polynomial = _antiderivative(field, remainder, index, lam)
    return polynomial, logs, at_zero


def _line(K: Any, base: Any, index: int) -> tuple[Any, Any]:
    parts: dict[int, dict[Any, Any]] = {0: {}, 1: {}}
    for m, c in base.terms():
        parts[m[index]][(*m[:index], 0, *m[index + 1 :])] = c
    ring = base.ring
    return K(ring.from_dict(parts[1])), K(ring.from_dict(parts[0]))


def _put(K: Any, element: Any, index: int, value: Any) -> Any:
    """An element with one generator replaced by another element."""
    result = []
    for polynomial in (element.numer, element.denom):
        total = K.zero
        for m, c in polynomial.terms():
            coefficient = K(polynomial.ring.from_dict({(*m[:index], 0, *m[index + 1 :]): c}))
            total += coefficient * value ** m[index] if m[index] else coefficient
        result.append(total)
    return result[0] / result[1]


def _antiderivative(field: Field, element: Any, index: int, lam: Any) -> sp.Expr:
    total = sp.Integer(0)
    K = field.domain.field
    for m, c in element.numer.terms():
        power = m[index]
        coefficient = K(element.numer.ring.from_dict({(*m[:index], 0, *m[index + 1 :]): c})) / K(element.denom)
        total += field.expression(coefficient) * LAMBDA ** (power + 1) / (power + 1)
    return total


def closed_form(rho_prime: sp.Expr) -> sp.Expr:
    """rho(lambda), with rho(0) = 0 (a logarithm of lambda itself has no constant)."""
    polynomial, logs, at_zero = logarithms(rho_prime)
    return polynomial + sum(c * sp.log(1 + t * LAMBDA) for c, t in logs) + at_zero * sp.log(LAMBDA)


def trace(rho_prime: sp.Expr, geometry: Geometry) -> sp.Expr:
    """tr rho(h) on the normal space: logarithms become log det, whose argument is rational in the coordinates."""
    polynomial, logs, at_zero = logarithms(rho_prime)
    characteristic = geometry.characteristic
    total = sum(c * sp.log(normal(_det(characteristic, t))) for c, t in logs)
    if at_zero != 0:
        total += at_zero * sp.log(normal((-1) ** len(characteristic) * characteristic[-1]))
    if polynomial != 0:
        for (power,), coefficient in sp.Poly(polynomial, LAMBDA).terms():
            total += normal(coefficient * _power_trace(geometry, power))
    return total


def _det(characteristic: Sequence[sp.Expr], t: sp.Expr) -> sp.Expr:
    """det(1 + t h)."""
    return 1 + sum((-1) ** (k + 1) * c * t ** (k + 1) for k, c in enumerate(characteristic))


def _power_trace(geometry: Geometry, power: int) -> sp.Expr:
    matrix = geometry.h
    result = matrix
    for _ in range(power - 1):
        result = result * matrix
    rows = result.to_dense().to_list()
    return geometry.field.expression(geometry.field.reduce(sum((rows[i][i] for i in range(geometry.r)), start=geometry.field(0))))


def proportional(geometry: Geometry) -> tuple[str, sp.Expr] | None:
    """("hessian", alpha) or ("isotropic", sigma^2) where the normal noise is a constant times the Hessian or the projector."""
    if geometry.has_cross_noise or not geometry.has_normal_noise:
        return None
    operator = geometry._reduced(geometry.Sff * (geometry.N.transpose() * geometry.N))
    rows = operator.to_list()
    coordinates = set(geometry.problem.chart.coordinates)
    for kind, model in (("hessian", geometry.h), ("isotropic", geometry.powers[0])):
        entries = model.to_dense().to_list()
        i, j = next((i, j) for i in range(geometry.r) for j in range(geometry.r) if entries[i][j])
        ratio = geometry.field.reduce(rows[i][j] / entries[i][j])
        expression = geometry.field.expression(ratio)
        if expression.free_symbols & coordinates or expression.atoms(sp.core.function.AppliedUndef):
            continue
        scaled = geometry._reduced(operator - model.to_dense() * ratio)
        if not any(x for row in scaled.to_list() for x in row):
            return kind, expression
    return None


# -- any drift ---------------------------------------------------------------------------------------------------------


def one_form(metric: sp.Matrix, drift: sp.Matrix) -> sp.Matrix:
    """omega = -M * (drift without its Ito part), (k, 1)."""
    return sp.Matrix([normal(x) if x.count_ops() < OMEGA_LIMIT else x for x in -(metric * drift)])


def require_closed(omega: sp.Matrix, coordinates: Sequence[sp.Symbol]) -> None:
    """Raise NoPotential, with the curl, where omega is not closed.

    Exact for rational functions; where roots or logarithms are in it, numbers of 30 digits at random points decide.
    """
    for a in range(len(coordinates)):
        for b in range(a):
            curl = omega[a].diff(coordinates[b]) - omega[b].diff(coordinates[a])
            size = sp.Abs(omega[a].diff(coordinates[b])) + sp.Abs(omega[b].diff(coordinates[a]))
            name = f"d omega_{coordinates[a]}/d{coordinates[b]} - d omega_{coordinates[b]}/d{coordinates[a]}"
            if _is_rational(curl):
                if not is_zero(curl):
                    raise NoPotential(f"the drift is not a gradient flow: {name} = {normal(curl)} is not zero (omega = -M*drift).")
            elif (found := _numeric_curl(curl, size)) is not None:
                raise NoPotential(f"the drift is not a gradient flow: {name} is not zero (omega = -M*drift): {found}.")


def _larger_than(expression: sp.Expr, limit: int) -> bool:
    """Whether an expression has more distinct parts; as a tree a folded one may be too large even to count."""
    seen: set[int] = set()
    stack = [expression]
    while stack:
        e = stack.pop()
        if id(e) not in seen:
            seen.add(id(e))
            stack.extend(e.args)
            if len(seen) > limit:
                return True
    return False


def _is_rational(e: sp.Expr) -> bool:
    """Whether the exact zero test is cheap: unknown functions count as symbols."""
    return not any(p.exp.is_Integer is False for p in e.atoms(sp.Pow)) and not e.atoms(sp.log, sp.Abs, sp.erf, sp.asin)


def _numeric_curl(curl: sp.Expr, size: sp.Expr) -> str | None:
    """The first random point at which the curl is not zero to 20 digits, in words; None where there is none."""
    if curl.atoms(AppliedUndef, sp.Derivative, sp.Subs):
        return None if is_zero(curl) else str(normal(curl))
    names = sorted(curl.free_symbols | size.free_symbols, key=str)
    compiled = sp.lambdify(names, [curl, size], modules="mpmath", cse=True)
    rng = np.random.default_rng(0)
    for _ in range(POINTS):
        values = [float(rng.uniform(0.05, 0.3)) if s.is_positive else float(rng.uniform(0.2, 0.9)) for s in names]
        with mpmath.workdps(30):
            value, scale = compiled(*(mpmath.mpf(v) for v in values))
            if abs(value) > mpmath.mpf(10) ** -20 * abs(scale):
                where = ", ".join(f"{s}={v:.4g}" for s, v in zip(names, values, strict=True))
                return f"{float(value.real):.6g} at {where}"
    return None


def integrate(omega: sp.Matrix, coordinates: Sequence[sp.Symbol]) -> sp.Expr:
    """Psi with dPsi = omega, coordinate by coordinate.

    Raises
    ------
    NoPotential
        If omega is not closed.
    NoClosedForm
        If an integral has no formula here.
    """
    for component in omega:
        if _larger_than(component, DIFFERENTIATION_LIMIT):
            raise NoClosedForm(
                f"omega = -M*drift has more than {DIFFERENTIATION_LIMIT} parts, too many to integrate as formulas; flow.regularizer(u) of a"
                " compiled flow integrates it, and says whether it is closed."
            )
    require_closed(omega, coordinates)
    for u, component in zip(coordinates, omega, strict=True):
        if component.count_ops() > OMEGA_LIMIT:
            raise NoClosedForm(_no_formula(component, u))
    total: sp.Expr = sp.Integer(0)
    for u, component in zip(coordinates, omega, strict=True):
        rest = normal(component - total.diff(u))
        total += _integral(rest, u)
    for u, component in zip(coordinates, omega, strict=True):
        if not is_zero(total.diff(u) - component):
            raise NoClosedForm(_no_formula(component, u))
    return total


def _integral(expression: sp.Expr, u: sp.Symbol) -> sp.Expr:
    if expression == 0:
        return expression
    if u not in expression.free_symbols:
        return expression * u
    if expression.count_ops() > INTEGRAND_LIMIT:
        raise NoClosedForm(_no_formula(expression, u))
    field = Field([expression])
    varying = [s for s in field.generators if u in field._meaning.get(s, s).free_symbols]
    rational = field._rational(expression)
    if varying == [u]:
        return field.back(rational_integral(rational, u))
    inner = [s for s in varying if s != u and not isinstance(field._meaning[s], sp.Derivative)]
    if len(inner) == 1 and u not in rational.free_symbols:  # F(h) h' du = F(h) dh
        h = field._meaning[inner[0]]
        reduced = normal(rational / field._rational(h.diff(u)))
        if not (reduced.free_symbols & set(varying) - {inner[0]}):
            return field.back(rational_integral(reduced, inner[0]))
    raise NoClosedForm(_no_formula(expression, u))


def rational_integral(expression: sp.Expr, u: sp.Symbol) -> sp.Expr:
    """A polynomial and logarithms: the denominator is factored over the other symbols, and every simple factor p whose
    partial fraction is c p'/p gives c log p.

    SymPy's own integrator is not used: with symbols in the coefficients it leaves the rational functions and hangs.
    """
    field = Field([expression, u])
    element = field(expression)
    index = field.generators.index(u)
    others = [g for g in field.generators if g != u]
    K = sp.QQ.frac_field(*others) if others else sp.QQ
    numerator, denominator = (sp.Poly(part.as_expr(), u, domain=K) for part in (element.numer, element.denom))
    whole, rest = numerator.div(denominator)
    total = normal(whole.integrate().as_expr())
    _, factors = element.denom.factor_list()
    for base, exponent in factors:
        if max(m[index] for m in base.monoms()) == 0:
            continue
        p = sp.Poly(base.as_expr(), u, domain=K)
        if exponent > 1:
            if p.degree() > 1:
                raise NoClosedForm(_no_formula(expression, u))
            total += _multiple_pole(rest, denominator, p, exponent)
            continue
        cofactor = denominator.exquo(p)
        part = (rest * cofactor.rem(p).invert(p)).rem(p)
        ratio, remainder = part.div(p.diff())
        if remainder or ratio.degree() > 0:
            raise NoClosedForm(_no_formula(expression, u))
        coefficient = normal(ratio.as_expr())
        total += coefficient * sp.log(_positive_where_stable(base.as_expr()))
    return total


def _multiple_pole(numerator: sp.Poly, denominator: sp.Poly, p: sp.Poly, exponent: int) -> sp.Expr:
    """The integral of the part of a fraction that has the linear factor p to some power."""
    power = p**exponent
    part = (numerator * denominator.exquo(power).rem(power).invert(power)).rem(power)
    slope, argument = p.LC(), p.as_expr()
    total: sp.Expr = sp.Integer(0)
    for k in range(exponent):
        part, digit = part.div(p)
        n = exponent - k  # digit / p^n
        value = normal(digit.as_expr() / slope)
        total += value * sp.log(_positive_where_stable(argument)) if n == 1 else -value / ((n - 1) * argument ** (n - 1))
    return total


def _positive_where_stable(expression: sp.Expr) -> sp.Expr:
    """An argument of a logarithm with the sign that is positive at small hyperparameters: what is dropped is a constant."""
    rng = np.random.default_rng(0)
    at = {s: sp.Float(0.01 * rng.uniform(0.5, 1)) if s.is_positive else sp.Float(rng.uniform(0.2, 0.4)) for s in expression.free_symbols}
    return expression if expression.xreplace(at) > 0 else sp.expand(-expression)


def _no_formula(expression: sp.Expr, u: sp.Symbol) -> str:
    text = str(expression)
    shown = text if len(text) < 120 else f"omega ({expression.count_ops()} operations)"
    return (
        f"the potential exists, but its integral over {u} of {shown} has no closed form here;"
        " flow.regularizer(u) of a compiled flow integrates it."
    )


__all__ = [
    "NoClosedForm", "closed_form", "density", "integrate", "logarithms", "one_form", "proportional",
    "rational_integral", "require_closed", "trace",
]  # fmt: skip
