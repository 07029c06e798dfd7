"""The steps of the derivation of a rule's law for any loss."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, LAMBDA_J, Filter, field_expression
from quasistatic.derivation.law import ALPHA, BATCH, SIGMA_STRENGTH, LawResult
from quasistatic.show import notation
from quasistatic.show.notation import Word, late, operations
from quasistatic.show.steps import (
    Step,
    as_is,
    averaged_step,
    basis_free,
    conditions_step,
    dollars,
    dt_factor,
    inline,
    inline_rows,
    one_equation,
    power_tex,
    scaling_step,
    steps,
    term_tex,
    update_step,
)
from quasistatic.show.table import law_table
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
        law_table(result),
        update_step(result.rule),
        scaling_step(linear) if linear.continuous else averaged_step(linear),
        _transfer(result, names),
        _kernel(result, names),
        _without_basis(result),
        _drift(result, names),
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
        Sentence(rf"From minus the gradient to the parameter the rule is a linear filter, with the {about} transform"),
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
        r"Near a minimum the gradient is linear, and in the eigenbasis of the Hessian every direction moves by itself. With the"
        r" curvatures $\lambda_i$, the equilibrium covariance of the parameters is $V_{ij} = K(\lambda_i, \lambda_j)\, \Sigma_{ij}$ with"
    )
    return Step("The kernel", (Sentence(text), *_kernel_parts(result, names)))


def _kernel_parts(result: LawResult, names: Names) -> list[Part]:
    """K by the terms of the matrix equation, as one fraction or by numerator and denominator."""
    left, right = result.matrix_coefficients
    top, bottom = (_curvature_terms(notation.words(c)) for c in (right, left))
    head = r"K(\lambda_i, \lambda_j)"
    fraction = rf"\dfrac{{{' '.join(top)}}}{{{' '.join(bottom)}}}"
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


def _without_basis(result: LawResult) -> Step:
    text = (
        r"Multiplying by the denominator gives one matrix equation without a basis, for the true Hessian $H$, the equilibrium covariance"
        r" $V$ and any covariance $\Sigma$ of noise across the minima:"
    )
    parts: list[Part] = [Sentence(text), *basis_free(result)]
    if any(w.kind == "commutator" for w in notation.words(result.matrix_coefficients[0])):
        parts.append(Sentence("with the commutator $[H, V] = H V - V H$."))
    return Step("Equilibrium without a basis", tuple(parts))


def _drift(result: LawResult, names: Names) -> Step:
    """The average of the third derivative on V, projected, times the gain."""
    z = tex(result.rule.trace.parameter)
    text = (
        r"At a minimum the gradient vanishes on average to first order in the fluctuation. The second order is the third derivative"
        r" of the loss on $V$,"
    )
    third = (
        r"\mathrm{E}\,[\nabla f] &= \tfrac12\, \nabla^3 f[V], \qquad (\nabla^3 f[V])_i = \sum_{j,k}"
        rf" \frac{{\partial^3 f}}{{\partial {z}_i\, \partial {z}_j\, \partial {z}_k}}\, V_{{jk}}"
    )
    parts: list[Part] = [Sentence(text), as_is(third)]
    parts.append(Sentence("A unit kick of the gradient displaces a flat direction in the end by minus the gain"))
    parts += one_equation(r"\gamma", result.gain, names, "law.gain")
    rate, gain = rf"\mathrm{{E}}[\Delta {z}]", r"\frac{\gamma}{2}"
    if result.linear.continuous:
        size = dt_factor(result.linear)
        rate, gain = rf"\frac{{\mathrm{{E}}[\mathrm{{d}}{z}]}}{{\mathrm{{d}}t}}", rf"\frac{{\gamma}}{{2\,{size}}}"
    per = "unit of time" if result.linear.continuous else "iteration"
    text = rf"and what the kick does in other directions relaxes. The minima are therefore followed with the drift, per {per},"
    parts += [Sentence(text), as_is(rf"{rate} &= -{gain}\, \Pi\, \nabla^3 f[V], \qquad \Pi = I - H H^{{+}}")]
    where = (
        r"where $H^{+}$ is the pseudoinverse: $\Pi$ is the projection $\Pi_S$ on the flat directions along $S$ times the others, for a rule"
        r" without preconditioner, $S = I$. Noise that has a component along the minima adds its diffusion and the curvature of the minima."
    )
    return Step("Drift along the minima", (*parts, Sentence(where)))


def _factors(result: LawResult, names: Names) -> Step:
    parts: list[Part] = []
    found = notation.factors(result)
    if isinstance(found, str):
        return Step("Speed and range", (Sentence(escape(found)),))
    speed, spread = found
    text = (
        rf"With the noise $\Sigma / {tex(BATCH)}$ of a batch of size ${tex(BATCH)}$, the drift per iteration and the covariance of the"
        " fluctuation are, to leading order in the learning rate, proportional to"
    )
    parts.append(Sentence(text))
    parts.append(as_is(rf"\text{{speed}} &= {tex(speed)}, \qquad \text{{range}} = {tex(spread)}"))
    return Step("Speed and range", (*parts, *_scaling_rule(result)))


def _scaling_rule(result: LawResult) -> list[Part]:
    """What to change for c times the speed at the same range."""
    c = sp.Symbol("c", positive=True)
    if c.name in result.rule.hyperparameters:
        return []
    rule = result.scaling_rule(c)
    ways = " or ".join(", ".join(rf"${tex(k)} \to {tex(_over(v))}$" for k, v in change.items()) for change in rule.changes)
    batch = rf"{tex(BATCH)} \to {tex(late(rule.batch, [BATCH]))}"
    text = rf"The same range at ${tex(c)}$ times the speed needs ${batch}$ and the gain ${tex(c)}\gamma$"
    return [Sentence(text + (f", by {ways}." if ways else "."))]


def _over(value: sp.Expr) -> sp.Expr:
    """A fraction with the sign inside its numerator."""
    top, bottom = sp.fraction(value)
    return sp.expand(top) / bottom


def _regularizers(result: LawResult, names: Names) -> Step:
    per = "unit of time" if result.linear.continuous else "iteration"
    alpha, sigma = tex(ALPHA), tex(SIGMA_STRENGTH)
    dt = rf"\,{dt_factor(result.linear)}" if result.linear.continuous else ""
    text = (
        rf"Where the covariance of the noise is a function of the Hessian, $V$ is one too, and the drift per {per} is a gradient on the"
        rf" minima: with $\Sigma = {alpha} H$, for example,"
    )
    slope = rf"\rho'(\lambda) = \frac{{\gamma}}{{2{dt}}}\, {alpha} \lambda\, K(\lambda, \lambda)"
    parts: list[Part] = [
        Sentence(text),
        as_is(rf"-\Pi\, \nabla \operatorname{{tr}} \rho(H), &\qquad {slope}"),
        Sentence(r"so that $\operatorname{tr} \rho(H)$ is what the rule minimises on its way along the minima."),
    ]
    labels = {
        "hessian": rf"For $\Sigma = {alpha} H$,",
        "isotropic": rf"For noise of variance ${sigma}^2$ in all directions across the minima,",
    }
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
