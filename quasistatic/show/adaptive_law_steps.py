"""The steps of the derivation for rules with slow states: the law for any loss."""

from __future__ import annotations

import sympy as sp

from quasistatic.derivation.adaptive_law import CURVATURE, AdaptiveLawResult
from quasistatic.derivation.law import ALPHA
from quasistatic.show import notation
from quasistatic.show.adaptive_steps import (
    condition_formulas,
    equilibrium_step,
    frozen_step,
    listed,
    metric_text,
    projection_tex,
    scale_letter,
)
from quasistatic.show.frozen import averaged_over, density, slow_rates
from quasistatic.show.law_steps import _kernel_parts, _transfer
from quasistatic.show.notation import late
from quasistatic.show.steps import Step, as_is, conditions_step, dollars, inline, inline_rows, one_equation, steps, term_tex, update_step
from quasistatic.show.table import adaptive_law_table
from quasistatic.show.typeset import Names, Part, Sentence, equations, reason_tex, tex

#: Where a slow state sees the gradients: what M is, and what psi is summed over.
WHERE = {
    "": ("", r"\sum_i \psi(H_{ii})"),
    "block": (", averaged over its block", r"\sum_B |B|\, \psi\left(\tfrac{1}{|B|} \operatorname{tr} H_{BB}\right)"),
    "all": (", averaged over all coordinates", r"d\, \psi\left(\tfrac1d \operatorname{tr} H\right)"),
}


@steps.register
def _(result: AdaptiveLawResult) -> tuple[Step, ...]:
    names = Names()
    return (
        adaptive_law_table(result),
        update_step(result.rule),
        frozen_step(result.preconditioned),
        _transfer(result, names),
        _metric(),
        _kernel(result, names),
        equilibrium_step(result),
        _slow_states(result, names),
        _drift(result, names),
        _regularizer(result, names),
        conditions_step(result.conditions, condition_formulas(result.preconditioned)),
    )


def _metric() -> Step:
    S = scale_letter()
    return Step("The metric of the preconditioner", (Sentence(metric_text(S)), as_is(projection_tex(S))))


def _kernel(result: AdaptiveLawResult, names: Names) -> Step:
    S = scale_letter()
    text = (
        rf"Near a minimum the gradient is linear. In the eigenbasis of ${S}^{{1/2}} H {S}^{{1/2}}$, with the eigenvalues $\lambda_i$, every"
        rf" direction moves by itself, and the equilibrium covariance of the parameters is $({S}^{{-1/2}} V {S}^{{-1/2}})_{{ij}} ="
        rf" K(\lambda_i, \lambda_j)\, ({S}^{{1/2}} \Sigma {S}^{{1/2}})_{{ij}}$ with"
    )
    return Step("The kernel", (Sentence(text), *_kernel_parts(result, names)))


def _slow_states(result: AdaptiveLawResult, names: Names) -> Step:
    where = WHERE[averaged_over(result.preconditioned)][0]
    text = (
        rf"On the slow time {listed(result.preconditioned)} follows the second moment $M = \mathrm{{E}}[g^2]$ of its coordinate's"
        rf" gradient{where}:"
    )
    moment = sp.Symbol("M", positive=True)
    pairs = [(rf"\mathrm{{E}}[\Delta {tex(v)}]", late(row, [moment])) for v, row in slow_rates(result).items()]
    after = r"On the minima $M_i = \Sigma_{ii} + (H V H)_{ii}$, the second part of higher order in the learning rate."
    return Step("The slow states", (Sentence(text), *(equations(pairs, names) or []), Sentence(after)))


def _drift(result: AdaptiveLawResult, names: Names) -> Step:
    S, z, alpha = scale_letter(), tex(result.rule.trace.parameter), tex(ALPHA)
    force = rf" + \Pi_{{{S}}} F_0" if result.preconditioned.has_force else ""
    parts: list[Part] = [
        Sentence(rf"In units of ${S}$ a unit kick of the gradient displaces a flat direction in the end by minus the gain"),
        *one_equation(r"\gamma", result.gain, names, "law.gain"),
        Sentence(
            r"and what it does in other directions relaxes. The average of the gradient over the fluctuation is $\frac12 \nabla^3 f[V]$, so"
        ),
        as_is(rf"\mathrm{{E}}[\Delta {z}] &= -\frac{{\gamma}}{{2}}\, \Pi_{{{S}}}\, {S}\, \nabla^3 f[V]{force}"),
    ]
    front = term_tex(-(notation.leading_gain(result) ** 2) * ALPHA / 4, rf"\Pi_{{{S}}}\, {S}\, \nabla^3 f[{S}]", False)
    text = (
        rf"Under label noise, $\Sigma = {alpha} H$, one has to leading order in the learning rate $V = \tfrac{{\gamma {alpha}}}{{2}}\,"
        rf" ({S} - \Pi_{{{S}}} {S})$, and the part along the manifold drops out:"
    )
    parts += [Sentence(text), as_is(rf"\mathrm{{E}}[\Delta {z}] &= {front}{force}")]
    return Step("Drift along the minima", tuple(parts))


def _regularizer(result: AdaptiveLawResult, names: Names) -> Step:
    S, alpha = scale_letter(), tex(ALPHA)
    title = "What is minimised on the way"
    psi, slope, reason = density(result)
    if slope is None:
        return Step(title, (Sentence(f"There is no formula for it: {reason_tex(reason, 500)}"),))
    curvature = tex(CURVATURE)
    total = WHERE[averaged_over(result.preconditioned)][1]
    text = (
        rf"Under label noise, $\Sigma = {alpha} H$, and with the slow states at their equilibrium, the preconditioner of a coordinate is"
        rf" a function of the curvature ${curvature}$ that its slow state follows, and the drift is minus the gradient, in the"
        rf" metric ${S}^{{-1}}$, of"
    )
    parts: list[Part] = [Sentence(text), as_is(rf"\Psi &= {total}, \qquad \psi'({curvature}) = {tex(slope)}")]
    if psi is None:
        parts.append(Sentence(rf"There is no closed form of $\psi$: {reason_tex(reason)}"))
    else:
        parts += [
            Sentence("that is, per iteration and to leading order in the learning rate,"),
            *one_equation(rf"\psi({curvature})", psi, names, "law.regularizer()"),
        ]
    return Step(title, tuple(parts))


@inline.register
def _(result: AdaptiveLawResult) -> str:
    return dollars([row for part in _kernel_parts(result, Names()) for row in inline_rows(part)])
