"""The steps of the derivation of a rule's law for any loss."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, LAMBDA_J, Filter, field_expression
from quasistatic.derivation.law import BATCH, LawResult
from quasistatic.show import notation
from quasistatic.show.notation import Word, late, operations
from quasistatic.show.steps import (
    Step,
    as_is,
    averaged_step,
    basis_free,
    conditions_step,
    dollars,
    inline,
    inline_rows,
    one_equation,
    power_tex,
    scaling_step,
    steps,
    term_tex,
    update_step,
)
from quasistatic.show.typeset import (
    LINE,
    Names,
    Part,
    Sentence,
    escape,
    pointer,
    reason_tex,
    tex,
    width,
    wrap,
)


@steps.register
def _(result: LawResult) -> tuple[Step, ...]:
    names = Names()
    linear = result.linear
    return (
        update_step(result.rule),
        scaling_step(linear) if linear.continuous else averaged_step(linear),
        _transfer(result, names),
        _kernel(result, names),
        Step(
            "Equilibrium without a basis",
            (Sentence(r"Clearing denominators, for the true Hessian $H$ and any noise covariance $\Sigma$,"), *basis_free(result)),
        ),
        _factors(result, names),
        _regularizers(result, names),
        conditions_step(result.conditions),
    )


def _transfer(result: LawResult, names: Names) -> Step:
    """The transfer function from minus the gradient to the parameter."""
    law = result.filter
    variable, pole = ("s", "s") if result.linear.continuous else (r"\zeta", r"(\zeta - 1)")
    numerator, denominator = _polynomials(law)
    about = "Laplace" if result.linear.continuous else "Z"
    parts: list[Part] = [
        Sentence(rf"From minus the gradient to the parameter the rule is a linear filter with the {about} transform"),
        as_is(rf"G({variable}) &= \frac{{n({variable})}}{{{pole}\, d({variable})}}"),
        Sentence("with, up to a common factor,"),
        *_polynomial(f"n({variable})", numerator, variable, names),
        *_polynomial(f"d({variable})", denominator, variable, names),
    ]
    roots = "in the left half plane" if result.linear.continuous else "inside the unit circle"
    parts.append(
        Sentence(
            rf"In a direction of curvature $\lambda$ the modes are the roots of ${pole}\, d + \lambda n$; stability means that they are"
            f" {roots}."
        )
    )
    return Step("The rule as a filter", tuple(parts))


def _polynomials(law: Filter) -> tuple[list[sp.Expr], list[sp.Expr]]:
    meaning = dict(law.meaning)
    numerator = [normal(-field_expression(x).xreplace(meaning)) for x in law.states[0]]
    return numerator, [normal(field_expression(x).xreplace(meaning)) for x in law.d]


def _polynomial(left: str, coefficients: Sequence[sp.Expr], variable: str, names: Names) -> list[Part]:
    """A polynomial from its coefficients, leading first."""
    degree = len(coefficients) - 1
    terms: list[str] = []
    for k, c in enumerate(coefficients):
        if c != 0:
            power = degree - k
            word = "" if power == 0 else variable if power == 1 else f"{variable}^{{{power}}}"
            terms.append(term_tex(c, word, bool(terms)))
    return [wrap(left, terms) or pointer(left, operations(*coefficients), "law.filter")]


def _kernel(result: LawResult, names: Names) -> Step:
    text = (
        r"In the eigenbasis of the Hessian, with curvatures $\lambda_i$, the equilibrium covariance of the parameters is"
        r" $V_{ij} = K(\lambda_i, \lambda_j)\, \Sigma_{ij}$ with"
    )
    return Step("The kernel", (Sentence(text), *_kernel_parts(result, names)))


def _kernel_parts(result: LawResult, names: Names) -> list[Part]:
    """K by the terms of the matrix equation, as one fraction or by numerator and denominator."""
    left, right = result.matrix_coefficients
    top, bottom = (_curvature_terms(notation.words(c)) for c in (right, left))
    head = r"K(\lambda_i, \lambda_j)"
    fraction = rf"\frac{{{' '.join(top)}}}{{{' '.join(bottom)}}}".replace(r"\frac", r"\dfrac")
    if width(fraction) + width(head) + 14 <= LINE:
        return [as_is(f"{head} &= {fraction}")]
    rows = [wrap(r"K_{\mathrm{n}}", top), wrap(r"K_{\mathrm{d}}", bottom)]
    if any(r is None or sum(map(len, r.rows)) > 2600 for r in rows):
        return [pointer(head, operations(result.kernel), "law.kernel")]
    return [as_is(rf"{head} &= \frac{{K_{{\mathrm{{n}}}}}}{{K_{{\mathrm{{d}}}}}}"), Sentence("with"), *(r for r in rows if r is not None)]


def _curvature_terms(found: Sequence[Word]) -> list[str]:
    return [term_tex(w.coefficient, _curvature_word(w), k > 0) for k, w in enumerate(found)]


def _curvature_word(word: Word) -> str:
    i, j = tex(LAMBDA_I), tex(LAMBDA_J)
    a, b = word.powers
    if word.kind == "commutator":
        return rf"({i} - {j})^{{2}}"
    common = f"{power_tex(i, b)}{power_tex(j, b)}"
    if word.kind == "single":
        return common.strip()
    pair = f"{power_tex(i, a - b)}+ {power_tex(j, a - b)}".strip()
    return pair if word.coefficient == 1 and not common else rf"{common}({pair})"


def _factors(result: LawResult, names: Names) -> Step:
    parts: list[Part] = [Sentence("A unit gradient kick displaces a flat direction in the end by minus the gain")]
    parts += one_equation(r"\gamma", result.gain, names, "law.gain")
    found = notation.factors(result)
    if isinstance(found, str):
        return Step("Gain, speed and range", (*parts, Sentence(escape(found))))
    speed, spread = found
    text = (
        r"With noise $\Sigma / B$, $B$ the batch size, the drift per iteration and the covariance are, to leading order in the learning"
        " rate, proportional to"
    )
    parts.append(Sentence(text))
    parts.append(as_is(rf"\text{{speed}} &= {tex(speed)}, \qquad \text{{range}} = {tex(spread)}"))
    return Step("Gain, speed and range", (*parts, *_scaling_rule(result)))


def _scaling_rule(result: LawResult) -> list[Part]:
    """What to change for c times the speed at the same range."""
    c = sp.Symbol("c", positive=True)
    if c.name in result.rule.hyperparameters:
        return []
    rule = result.scaling_rule(c)
    ways = " or ".join(", ".join(rf"${tex(k)} \to {tex(_over(v))}$" for k, v in change.items()) for change in rule.changes)
    text = rf"The same range and $c$ times the speed: $B \to {tex(late(rule.batch, [BATCH]))}$ and a gain of $c\gamma$"
    return [Sentence(text + (f", by {ways}." if ways else "."))]


def _over(value: sp.Expr) -> sp.Expr:
    """A fraction with the sign inside its numerator."""
    top, bottom = sp.fraction(value)
    return sp.expand(top) / bottom


def _regularizers(result: LawResult, names: Names) -> Step:
    per = "unit of time" if result.linear.continuous else "iteration"
    parts: list[Part] = [Sentence(rf"With these noises the rule descends $\operatorname{{tr}} \rho(H)$ along the minima, per {per}.")]
    labels = {"hessian": r"For $\Sigma = \alpha H$,", "isotropic": r"For noise of variance $\sigma^2$ in all directions across the minima,"}
    for noise, label in labels.items():
        rho, slope, reason = notation.density_or_reason(result, noise)
        parts.append(Sentence(label))
        if rho is not None:
            parts += one_equation(rf"\rho({tex(LAMBDA)})", rho, names, "law.regularizer()")
        else:
            parts += one_equation(rf"\rho'({tex(LAMBDA)})", slope, names, "law.regularizer_density()")
            parts.append(Sentence(rf"There is no closed form of $\rho$: {reason_tex(reason)}"))
    return Step("What is minimised on the way", tuple(parts))


@inline.register
def _(result: LawResult) -> str:
    return dollars([row for part in _kernel_parts(result, Names()) for row in inline_rows(part)])
