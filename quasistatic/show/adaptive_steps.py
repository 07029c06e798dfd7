"""The steps of the derivation for rules with slow states: slow dynamics on a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.kinetic import KineticResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.slow_states import Preconditioned
from quasistatic.derivation.statistical import StatisticalResult
from quasistatic.show import notation
from quasistatic.show.frozen import Forms
from quasistatic.show.notation import Word, operations
from quasistatic.show.slow_steps import TERMS, _average, _rate, _setting, _unit
from quasistatic.show.steps import (
    Step,
    as_is,
    conditions_step,
    dollars,
    inline,
    inline_rows,
    one_equation,
    power_tex,
    show_matrix,
    steps,
    term_tex,
    update_step,
)
from quasistatic.show.table import slow_table
from quasistatic.show.typeset import (
    LINE,
    Equation,
    Names,
    Part,
    Sentence,
    equations,
    matrix_tex,
    pointer,
    reason_tex,
    symbol_tex,
    tex,
    width,
    wrap,
)


def scale_letter() -> str:
    """The letter of the preconditioner in this document."""
    letter = symbol_tex("S")
    return f"{{{letter}}}" if "^" in letter else letter


@steps.register
def _(result: AdaptiveResult) -> tuple[Step, ...]:
    forms, names = Forms(result), Names()
    found = [
        slow_table(result),
        _setting(result.problem),
        update_step(result.rule),
        frozen_step(result.preconditioned),
        _metric(forms, names),
        equilibrium_step(notation.filter_law(result)),
        _solution(forms, names),
        _average(result.linear),
        _projection(forms, names),
        _drift(forms, names),
        _slow_states(forms, names),
    ]
    if any(x != 0 for x in result.frozen_diffusion):
        found.append(_diffusion(forms, names))
    found.append(_potential(forms, names))
    joint = _joint(forms, names)
    return (*found, *joint, conditions_step(result.conditions, condition_formulas(result.preconditioned)))


# -- the frozen rule ---------------------------------------------------------------------------------------------------


def listed(rule: Preconditioned) -> str:
    """The slow states in the line."""
    return " and ".join(f"${symbol_tex(s.state.name)}$" for s in rule.slow)


def frozen_step(rule: Preconditioned) -> Step:
    """What remains of the rule while its slow states stand still: a filter behind a preconditioner."""
    S, z = scale_letter(), tex(rule.rule.trace.parameter)
    rates = [rf"${tex(s.rate)}$ for ${symbol_tex(s.state.name)}$" for s in rule.slow if s.rate != 0]
    several = len(rule.slow) > 1
    change, what = (
        ("s {} change", "their updated values are taken to be fixed positive numbers")
        if several
        else (" {} changes", "its updated value is taken to be a fixed positive number")
    )
    text = f"The slow state{change.format(listed(rule))} little while everything else settles, and {what}, written with the same letter."
    if rates:
        text += rf" This has a relative bias of the order of what is forgotten in one iteration, {' and '.join(rates)}."
    if rule.linear.bases:
        text += f" At late times {', '.join(f'${tex(b)}^{tex(rule.rule.trace.iteration)}$' for b in rule.linear.bases)} vanish."
    parts: list[Part] = [
        Sentence(text + " Then every coordinate's step has one factor, the preconditioner"),
        as_is(rf"{S} &= {tex(rule.scale)}"),
        Sentence(rf"and the rest of the rule is linear in the gradient: in units of ${S}$ it is the filter"),
        *_filter(rule, S, z),
    ]
    if rule.has_force:
        force = [term_tex(rule.pull, z, False)] if rule.pull != 0 else []
        force += [term_tex(rule.shift, "", bool(force))] if rule.shift != 0 else []
        parts += [
            Sentence(r"Besides it a small force moves a point of the manifold in the end, per iteration, by"),
            as_is(rf"F_0 &= {' '.join(force)}"),
        ]
    return Step("The slow states held fixed", tuple(parts))


def condition_formulas(rule: Preconditioned) -> dict[str, str]:
    """How the formulas in the conditions of frozen states are set."""
    found = {f"{s.rate} for {s.state.name}": rf"${tex(s.rate)}$ for ${symbol_tex(s.state.name)}$" for s in rule.slow}
    found |= {f"E[{s.source}]/{s.state.name}": rf"$\mathrm{{E}}[{tex(s.source)}]/{symbol_tex(s.state.name)}$" for s in rule.slow}
    if "eps" in rule.rule.hyperparameters:
        found["(eps)"] = f"(${symbol_tex('eps')}$)"
    return {
        **found,
        "1 - beta1 >> eta^2": rf"$1 - {symbol_tex('beta1')} \gg {symbol_tex('eta')}^2$",
        "beta1": f"${symbol_tex('beta1')}$",
        "E[v^-1/2]": r"$\mathrm{E}[v^{-1/2}]$",
        ">> sqrt(3) |d^3 f| V": r"$\gg \sqrt3\, |\partial^3 f|\, V$",
        "<< 1 - rho(J_fast)": r"$\ll 1 - \rho(J_{\text{fast}})$",
        "S is": rf"${scale_letter()}$ is",
    }


def _filter(rule: Preconditioned, S: str, z: str) -> list[Part]:
    """The averaged map in units of S, and the covariance of one step."""
    linear = rule.linear
    states = [rf"{z}/{S}", *(symbol_tex(s.name) + (rf"/{S}" if p else "") for s, p in zip(rule.fast_states, rule.powers[1:], strict=True))]
    if linear.A.rows == 1:
        body = rf"F({states[0]}) &= {states[0]} " + term_tex(linear.b[0], r"\partial f", True)
        covariance = rf"Q &= {tex(linear.b[0] ** 2)}\, \Sigma"
    else:
        body = rf"F(s) &= {matrix_tex(linear.A)} s + {matrix_tex(linear.b)} \partial f, \qquad s = ({', '.join(states)})"
        covariance = rf"Q &= {matrix_tex(linear.b * linear.b.T)} \otimes \Sigma"
    return [
        as_is(body),
        Sentence(r"with $\partial f$ the coordinate's component of $\nabla f$; one step has the covariance"),
        as_is(covariance),
    ]


# -- the metric --------------------------------------------------------------------------------------------------------


def metric_text(S: str) -> str:
    return (
        rf"In the variables ${S}^{{-1/2}} z$ this is the filter alone, with the Hessian ${S}^{{1/2}} H {S}^{{1/2}}$ and the noise"
        rf" ${S}^{{1/2}} \Sigma {S}^{{1/2}}$: distances are measured in the metric ${S}^{{-1}}$, and the state relaxes to the manifold not"
        rf" along its normals but along ${S}$ times them. With the rows of $J$ a basis of the normals, what is left of a displacement is"
        r" its oblique projection along the manifold,"
    )


def projection_tex(S: str) -> str:
    return rf"\Pi_{{{S}}} &= I - {S} J^{{\mathsf T}} (J {S} J^{{\mathsf T}})^{{-1}} J"


def _metric(forms: Forms, names: Names) -> Step:
    result, S = forms.result, scale_letter()
    parts: list[Part] = [Sentence("On the manifold the Hessian of the loss is")]
    parts += show_matrix("H", forms.matrix(result.problem.hessian), result.problem.parameters, names, "problem.hessian")
    entries = ", ".join(tex(s) for s in result.scales)
    parts.append(Sentence(rf"The preconditioner is the diagonal matrix ${S} = \operatorname{{diag}}({entries})$. {metric_text(S)}"))
    parts.append(as_is(projection_tex(S) + rf" = T G^{{-1}} T^{{\mathsf T}} {S}^{{-1}}"))
    text = (
        r"with $\varphi(u)$ the point that has the coordinates $u$, $T = \partial\varphi/\partial u$ and the metric"
        rf" $G = T^{{\mathsf T}} {S}^{{-1}} T$,"
    )
    shown = show_matrix("G", forms.matrix(result.frozen_metric), result.coordinates, names, "slow.frozen_metric")
    return Step("The metric of the preconditioner", (*parts, Sentence(text), *shown))


# -- equilibrium -------------------------------------------------------------------------------------------------------


def equilibrium_step(law: LawResult) -> Step:
    S = scale_letter()
    text = (
        r"Across the manifold the fluctuation settles to an equilibrium with the covariance $V$ of the parameters. The filter treats all"
        rf" coordinates alike, so that its memories can be eliminated: with $A = {S} H$,"
    )
    parts: list[Part] = [Sentence(text), *in_the_metric(law)]
    if any(w.kind == "commutator" for w in notation.words(law.matrix_coefficients[0])):
        parts.append(Sentence(r"where $[A, X] = A X - X A^{\mathsf T}$."))
    return Step("Equilibrium across the manifold", tuple(parts))


def in_the_metric(law: LawResult) -> list[Part]:
    """The matrix equation in A = S H, its right-hand side on a row of its own where both do not fit."""
    S = scale_letter()
    left, right = law.matrix_coefficients
    terms, rest = _words(left, "V"), _words(right, rf"{S} \Sigma {S}")
    line = " ".join(terms) + " = " + " ".join(rest)
    if width(line) <= LINE:
        return [as_is(line)]
    found, other = wrap("", terms, relation=r"\phantom{=}"), wrap("", rest)
    if found is None or other is None or sum(map(len, (*found.rows, *other.rows))) > 2600:
        return [pointer(r"\sum_{a,b} d_{ab} A^a V A^{\mathsf T b}", operations(law.matrix_equation), "law.matrix_equation")]
    return [Equation((*found.rows, *other.rows))]


def _words(coefficients: Mapping[notation.Powers, sp.Expr], middle: str) -> list[str]:
    return [term_tex(w.coefficient, _word(w, middle), k > 0) for k, w in enumerate(notation.words(coefficients))]


def _word(word: Word, middle: str) -> str:
    a, b = word.powers
    if word.kind == "commutator":
        return f"[A, [A, {middle}]]"
    product = _product(a, middle, b)
    if word.kind == "single":
        return product
    pair = f"{product} + {_product(b, middle, a)}"
    return pair if word.coefficient == 1 else rf"\left({pair}\right)"


def _product(a: int, middle: str, b: int) -> str:
    last = "" if b == 0 else r"A^{\mathsf T}" if b == 1 else rf"(A^{{\mathsf T}})^{{{b}}}"
    return " ".join(p for p in (power_tex("A", a).strip(), middle, last) if p)


def _solution(forms: Forms, names: Names) -> Step:
    shown = show_matrix("V", forms.variance, forms.result.problem.parameters, names, "slow.frozen_variance")
    return Step("Its solution", (Sentence(rf"On this manifold the solution is, as a function of the frozen ${scale_letter()}$,"), *shown))


# -- drift -------------------------------------------------------------------------------------------------------------


def _projection(forms: Forms, names: Names) -> Step:
    result, S = forms.result, scale_letter()
    linear, geometry = result.linear, result.geometry
    parts: list[Part] = [Sentence(rf"In units of ${S}$ a unit kick of the gradient displaces a point in the end by minus the gain")]
    parts += one_equation(r"\gamma", result.gain, names, "slow.gain")
    z = tex(linear.rule.trace.parameter)
    force = rf" + \Pi_{{{S}}} F_0" if result.preconditioned.has_force else ""
    along = rf"\Pi_{{{S}}}\," if geometry.has_tangent_noise else ""
    further = rf" + G^{{-1}} T^{{\mathsf T}} {S}^{{-1}} F_0" if result.preconditioned.has_force else ""
    further += rf" - \tfrac12\, G^{{-1}} T^{{\mathsf T}} {S}^{{-1}} \varphi''[D]" if geometry.has_tangent_noise else ""
    parts += [
        Sentence(r"so that the average force moves a point of the manifold, per iteration, by"),
        as_is(rf"{along}\mathrm{{E}}[\Delta {z}] &= -\frac{{\gamma}}{{2}}\, \Pi_{{{S}}}\, {S}\, \nabla^3 f[V]{force}"),
        Sentence(
            rf"and in the coordinates, because $\Pi_{{{S}}} {S} = T G^{{-1}} T^{{\mathsf T}}$ and $T^{{\mathsf T}} \nabla^3 f[V] ="
            r" \langle \partial_u H, V \rangle$ with $\langle A, B \rangle = \operatorname{tr}(A^{\mathsf T} B)$, by"
        ),
        as_is(rf"\mathrm{{E}}[\Delta u] &= -\frac{{\gamma}}{{2}}\, G^{{-1}} \langle \partial_u H, V \rangle{further}"),
    ]
    if geometry.has_tangent_noise:
        parts.append(Sentence(r"The last term is the It\^o term of the coordinates, $D$ the diffusion below."))
    if geometry.has_cross_noise:
        parts.append(
            Sentence(
                r"Between tangent and normal directions $V$ stands here for the covariance of the fast part and the"
                r" correlation of both noises together."
            )
        )
    return Step("Projection on the manifold", tuple(parts))


def _drift(forms: Forms, names: Names) -> Step:
    result, S = forms.result, scale_letter()
    parts: list[Part] = []
    if len(forms.terms) > 1:
        for name, part in forms.terms.items():
            parts.append(Sentence(f"{TERMS[name]} is"))
            parts += _rows(result, part, rf"_{{\text{{{name}}}}}", names, f"slow.frozen_terms.{name}")
        parts.append(Sentence(rf"and the drift of the coordinates at frozen ${S}$ is their sum, per {_unit(result)},"))
    else:
        what = (
            f"there is one term, {TERMS[next(iter(forms.terms))][:1].lower()}{TERMS[next(iter(forms.terms))][1:]}"
            if forms.terms
            else "nothing drifts"
        )
        parts.append(Sentence(rf"On this manifold {what}; at frozen ${S}$ and per {_unit(result)},"))
    return Step("Drift along the manifold", (*parts, *_rows(result, forms.drift, "", names, "slow.frozen_terms")))


def _rows(result: AdaptiveResult, values: Sequence[sp.Expr], mark: str, names: Names, where: str) -> list[Part]:
    pairs = [(_rate(result, u) + mark, value) for u, value in zip(result.coordinates, values, strict=True)]
    return equations(pairs, names) or [part for left, value in pairs for part in one_equation(left, value, names, where)]


# -- the slow states ---------------------------------------------------------------------------------------------------


def _slow_states(forms: Forms, names: Names) -> Step:
    result, S = forms.result, scale_letter()
    parts: list[Part] = [Sentence(r"The slow states of the single parameters give the preconditioner,")]
    parts += _pairs({tex(s): value for s, value in forms.scales.items()}, names, "slow.preconditioner")
    parts += [Sentence(_averaged_text(result.preconditioned, S))]
    rates = {_rate(result, v): row for v, row in result.frozen_slow_drift.items()}
    parts += _pairs(rates, names, "slow.drift")
    parts += _moments(forms, names)
    if result.mode != "adiabatic":
        return Step("The slow states", tuple(parts))
    return Step("The slow states at their equilibrium", (*parts, *_rest(forms, names)))


def _averaged_text(rule: Preconditioned, S: str) -> str:
    plural = "They follow" if len(rule.slow) > 1 else f"The slow state {listed(rule)} follows"
    return (
        rf"{plural} the average of the update over noise and fluctuation, which is linear in the second moments $M_i ="
        r" \mathrm{E}[g_i^2]$ of the gradient:"
    )


def _moments(forms: Forms, names: Names) -> list[Part]:
    """The second moments that the slow states follow."""
    result = forms.result
    closed, plain = forms.closed, result.order.symbol is not None
    open_ = {s: value for s, value in forms.moments.items() if s not in closed}
    parts: list[Part] = []
    if open_:
        text = r"They are those of the noise and of the gradient of the loss itself, $M_i = \Sigma_{ii} + (H V H)_{ii}$,"
        small = r"To this order they are those of the noise, $M_i = \Sigma_{ii}$,"
        alone = plain and all(value == forms.tidy(noise) for value, noise in zip(_of(forms, open_), _noise(forms, open_), strict=True))
        parts.append(Sentence(small if alone else text))
        parts += _pairs({tex(s): value for s, value in open_.items()}, names, "slow.second_moments")
    if closed:
        listed_ = ", ".join(f"${tex(s)}$" for s in closed)
        text = (
            rf"For {listed_} the noise vanishes and the gradient has no linear part. Its second moment is that of the next order, with"
            r" $T_i$ the slice $\partial_i \nabla^2 f$ of the third derivative and the fluctuation Gaussian, $\frac14 [(\operatorname{tr}"
            r" T_i V)^2 + 2 \operatorname{tr}(T_i V T_i V)]$:"
        )
        parts.append(Sentence(text))
        parts += _pairs({tex(s): forms.moments[s] for s in closed}, names, "slow.second_moments")
    return parts


def _of(forms: Forms, some: Mapping[sp.Symbol, sp.Expr]) -> list[sp.Expr]:
    return list(some.values())


def _noise(forms: Forms, some: Mapping[sp.Symbol, sp.Expr]) -> list[sp.Expr]:
    by_symbol = dict(zip(forms.result.moment_symbols, forms.result.noise_moments, strict=True))
    return [by_symbol[s] for s in some]


def _rest(forms: Forms, names: Names) -> list[Part]:
    """Slow states at rest, and the drift with them put in where it is short."""
    if isinstance(forms.equilibrium, str):
        return [Sentence(rf"There is no formula for their equilibrium: {reason_tex(forms.equilibrium, 500)}")]
    exact = forms.result.order.symbol is None and any(m not in forms.closed for m in forms.moments)
    where = rf", with ${scale_letter()}$ in the moments that of the noise alone" if exact else ""
    text = rf"Where the slow states forget fast against the drift of the coordinates, they are at their equilibrium{where}:"
    parts: list[Part] = [Sentence(text)]
    parts += _pairs({tex(v): value for v, value in forms.equilibrium.items()}, names, "slow.equilibrium")
    if forms.small_drift is not None:
        parts.append(Sentence("With these values the coordinates alone obey"))
        parts += _rows(forms.result, forms.small_drift, "", names, "slow.drift")
    return parts


def _pairs(values: Mapping[str, sp.Expr], names: Names, where: str) -> list[Part]:
    pairs = list(values.items())
    return equations(pairs, names) or [part for left, value in pairs for part in one_equation(left, value, names, where)]


# -- what follows ------------------------------------------------------------------------------------------------------


def _diffusion(forms: Forms, names: Names) -> Step:
    text = (
        r"The noise along the manifold lets the coordinates diffuse, with the covariance, per iteration, $D = \gamma^2\, G^{-1}"
        r" T^{\mathsf T} \Sigma T G^{-1}$:"
    )
    shown = show_matrix("D", forms.matrix(forms.result.frozen_diffusion), forms.result.coordinates, names, "slow.frozen_diffusion")
    return Step(r"Diffusion along the manifold", (Sentence(text), *shown))


def _potential(forms: Forms, names: Names) -> Step:
    found, of = forms.potential()
    limits = ["with the slow states at their equilibrium"] if forms.result.mode != "adiabatic" else []
    if forms.result.order.symbol is None and of.order.symbol is not None:
        limits.append(rf"to leading order in ${tex(of.order.symbol)}$")
    limit = " and ".join(limits)
    title = "What is minimised on the way"
    if isinstance(found, str):
        text = "There is no formula for it" + (f" {limit}" if limit else "")
        return Step(title, (Sentence(f"{text}: {reason_tex(found, 500)}"),))
    opening = f"{limit[:1].upper()}{limit[1:]} the drift" if limit else "The drift"
    ito = r" without its It\^o term" if any(x != 0 for x in of.frozen_terms.ito) else ""
    text = (
        rf"{opening}{ito} is a gradient flow in the metric $G$ of the preconditioner, $-G^{{-1}}\, \partial \Psi / \partial u$, with the"
        r" potential"
    )
    symbols = ", ".join(map(tex, of.coordinates))
    shown = one_equation(rf"\Psi({symbols})", _expanded(found), names, "slow.regularizer()")
    return Step(title, (Sentence(text), *shown))


def _expanded(potential: sp.Expr) -> sp.Expr:
    """A factor times a sum written out: the terms are what the sum over coordinates consists of."""
    if not potential.is_Mul:
        return potential
    sums = [f for f in potential.args if f.is_Add]
    if len(sums) != 1 or len(sums[0].args) > 12:
        return potential
    rest = potential / sums[0]
    return sp.Add(*(rest * term for term in sums[0].args))


def _joint(forms: Forms, names: Names) -> tuple[Step, ...]:
    found = forms.lyapunov()
    if found is None:
        return ()
    text = (
        r"Even before the slow states are at equilibrium the noise's drift to leading order has a function of coordinates and slow states"
        r" that falls: $\mathrm{d}u/\mathrm{d}k = -\tfrac{\gamma^2}{4}\, G^{-1}\, \partial \hat{E} / \partial u$, and each slow state"
        r" descends it too, with"
    )
    return (Step("A joint function that falls", (Sentence(text), *one_equation(r"\hat{E}", found, names, "slow.lyapunov()"))),)


@inline.register
def _(result: AdaptiveResult) -> str:
    forms, names = Forms(result), Names()
    parts = _rows(result, forms.small_drift or forms.drift, "", names, "slow.drift")
    if forms.small_drift is None:
        parts += _pairs({tex(s): value for s, value in forms.scales.items()}, names, "slow.preconditioner")
        if result.mode != "adiabatic":
            parts += _pairs({_rate(result, v): row for v, row in result.frozen_slow_drift.items()}, names, "slow.drift")
    return dollars([row for part in parts for row in inline_rows(part)])


# -- continuous time ---------------------------------------------------------------------------------------------------


@steps.register
def _(result: KineticResult) -> tuple[Step, ...]:
    names = Names()
    what = "coordinates, the momentum along the manifold and the slow states" if result.momenta else "coordinates and the slow states"
    text = rf"Under the declared scaling, with the time $t = k\,{tex(result.linear.dt)}$, the {what} obey to leading order"
    rows = _kinetic(result, names)
    return (
        slow_table(result),
        _setting(result.problem),
        update_step(result.rule),
        Step("The slow dynamics in continuous time", (Sentence(text), *rows)),
        conditions_step(result.conditions),
    )


def _kinetic(result: AdaptiveResult, names: Names) -> list[Part]:
    pairs = [(_rate(result, s), Forms(result).tidy(e)) for s, e in zip(result.slow_state, result.drift, strict=True)]
    return equations(pairs, names) or [part for left, value in pairs for part in one_equation(left, value, names, "slow.drift")]


@inline.register
def _(result: KineticResult) -> str:
    return dollars([row for part in _kinetic(result, Names()) for row in inline_rows(part)])


# -- signs and clips ---------------------------------------------------------------------------------------------------


@steps.register
def _(result: StatisticalResult) -> tuple[Step, ...]:
    names = Names()
    V = show_matrix("V", sp.Matrix(result.variance), result.problem.parameters, names, "slow.variance")
    found = [
        slow_table(result),
        _setting(result.problem),
        update_step(result.rule),
        Step("Equilibrium across the manifold", (Sentence(KINK), Sentence("On this manifold its equilibrium has the covariance"), *V)),
        Step("Drift along the manifold", (Sentence("Per iteration the coordinates drift by"), *_kinetic(result, names))),
    ]
    if any(x != 0 for x in result.diffusion):
        D = show_matrix("D", sp.Matrix(result.diffusion), result.coordinates, names, "slow.diffusion")
        found.append(Step("Diffusion along the manifold", (Sentence("and they diffuse with the covariance, per iteration,"), *D)))
    return (*found, conditions_step(result.conditions))


KINK = (
    r"Averaged over Gaussian noise, the kink is smooth: by Stein's identity it acts on a small gradient as a linear filter with a gain of"
    r" its own for each coordinate, which depends on the noise."
)


@inline.register
def _(result: StatisticalResult) -> str:
    return dollars([row for part in _kinetic(result, Names()) for row in inline_rows(part)])
