"""The steps of the derivation of slow dynamics on a problem."""

from __future__ import annotations

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.averaging import state_symbols
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.structure import LinearRule
from quasistatic.model.noise import HessianNoise
from quasistatic.model.problem import Problem
from quasistatic.show import notation
from quasistatic.show.notation import operations
from quasistatic.show.steps import (
    MOST_ENTRIES,
    Step,
    as_is,
    averaged_step,
    basis_free,
    conditions_step,
    dollars,
    inline,
    inline_rows,
    one_equation,
    scaling_step,
    show_matrix,
    steps,
    term_tex,
    update_step,
)
from quasistatic.show.typeset import (
    Equation,
    Names,
    Part,
    Sentence,
    code,
    equations,
    escape,
    matrix_tex,
    reason_tex,
    tex,
)


@steps.register
def _(result: SlowResult) -> tuple[Step, ...]:
    names = Names()
    linear = result.linear
    found = [_setting(result.problem), update_step(result.rule)]
    if linear is not None:
        found.append(scaling_step(linear) if linear.continuous else averaged_step(linear))
    found.append(_linearisation(result, names))
    found.append(_equilibrium(result, names))
    found.append(_drift(result, names))
    if any(x != 0 for x in result.diffusion):
        found.append(_diffusion(result, names))
    found += [_potential(result, names), conditions_step(result.conditions)]
    return tuple(found)


def _setting(problem: Problem) -> Step:
    chart = problem.chart
    parameters = ", ".join(map(tex, problem.parameters))
    coordinates = ", ".join(map(tex, chart.coordinates))
    name = rf" \texttt{{{escape(problem.name)}}}" if problem.name else ""
    names = Names()
    parts: list[Part] = [Sentence(rf"The loss{name} is, with parameters $({parameters})$,")]
    parts += one_equation("f", problem.loss, names, "problem.loss")
    minima = Equation(tuple(f"{tex(k)} &= {tex(v)}" for k, v in problem.minima.items()))
    parts += [Sentence(rf"Its minima form a manifold of dimension {chart.dimension}, with coordinates $({coordinates})$:"), minima]
    parts.append(Sentence("On it the gradient noise has the covariance"))
    if isinstance(problem.noise, HessianNoise):
        parts.append(as_is(rf"\Sigma &= {term_tex(problem.noise.alpha, r'H', False)}, \qquad H = \nabla^2 f"))
    else:
        parts += show_matrix(r"\Sigma", sp.Matrix(problem.covariance), problem.parameters, names, "problem.covariance")
    return Step("Setting", tuple(parts))


def _linearisation(result: SlowResult, names: Names) -> Step:
    geometry = result.geometry
    problem = result.problem
    parts: list[Part] = [Sentence("On the manifold the Hessian of the loss is")]
    parts += show_matrix("H", sp.Matrix(problem.hessian), problem.parameters, names, "problem.hessian")
    curvature = geometry.express(geometry.h)
    if geometry.r == 1:
        parts.append(Sentence(r"and the one curvature across the manifold"))
        parts += one_equation(r"\lambda", curvature[0], names, "slow.geometry.h")
    else:
        parts.append(Sentence(rf"In a basis $N$ of the {geometry.r} normal directions, $H N = N \Lambda$ with"))
        parts += show_matrix(r"\Lambda", curvature, (), names, "slow.geometry.h", symmetric=False)
    if result.linear is None:
        parts += [Sentence("One averaged step of the whole state has the Jacobian"), *_jacobian(result, names)]
    else:
        parts += _projector(result, result.linear, names)
    return Step("Linearisation", tuple(parts))


def _jacobian(result: SlowResult, names: Names) -> list[Part]:
    state = ", ".join(map(tex, state_symbols(result.rule, result.problem)))
    shown = show_matrix("J", sp.Matrix(result.averaged_map.J), (), names, "slow.averaged_map.J", symmetric=False)
    return [*shown, Sentence(rf"in the order $({state})$.")]


def _projector(result: SlowResult, linear: LinearRule, names: Names) -> list[Part]:
    """Jacobian, slow projector and gain of a linear filter."""
    parts = _state_matrix(linear)
    if linear.A.rows > 1:
        lands = rf"\ell &= {matrix_tex(sp.Matrix(linear.left.T))}^{{\mathsf T}}"
        text = (
            r"A kick $\delta s$ to one coordinate's state displaces its parameter, along the manifold and in the end, by"
            r" $\ell^{\mathsf T} \delta s$ with"
        )
        parts += [Sentence(text), as_is(lands), Sentence("so a unit gradient kick displaces it by minus the gain")]
    else:
        parts.append(Sentence("A unit gradient kick displaces a point along the manifold by minus the gain"))
    return [*parts, *one_equation(r"\gamma", result.gain, names, "slow.gain")]


def _state_matrix(linear: LinearRule) -> list[Part]:
    """J of the map, or A of the SDE, on the whole state."""
    sign = sp.Integer(-1) / linear.dt if linear.continuous else sp.Integer(1)
    first, kick = ((sign * m).applyfunc(normal) for m in (sp.Matrix(linear.A), sp.Matrix(linear.b)))
    if linear.A.rows == 1:
        lead = "" if linear.continuous else "I"
        body = f"{lead} {term_tex(kick[0], 'H', bool(lead))}"
    else:
        body = rf"{matrix_tex(first)} \otimes I + {matrix_tex(kick)} e_1^{{\mathsf T}} \otimes H"
    if linear.continuous:
        text = (
            r"Near the manifold the whole state obeys $\mathrm{d}s = -A s\,\mathrm{d}t + \text{noise}$, where $A$ vanishes on the slow"
            " directions:"
        )
        return [Sentence(text), as_is(f"A &= {body}")]
    step = Sentence("One averaged step of the whole state has the Jacobian")
    return [step, as_is(f"J &= {body}"), Sentence("with eigenvalue 1 along the manifold.")]


def _equilibrium(result: SlowResult, names: Names) -> Step:
    continuous = result.linear is not None and result.linear.continuous
    stein = r"A V_s + V_s A^{\mathsf T} &= Q_{\mathrm{ff}}" if continuous else r"V_s &= J V_s J^{\mathsf T} + Q_{\mathrm{ff}}"
    kind = "Lyapunov" if continuous else "Stein"
    parts: list[Part] = [
        Sentence(rf"The fast part of the state settles to an equilibrium whose covariance $V_s$ solves the {kind} equation"),
        as_is(stein),
    ]
    law = notation.law_of(result)
    if law is not None:
        parts.append(Sentence("Across the manifold, without memories and basis, the parameters' block $V$ and the true Hessian $H$ obey"))
        parts += basis_free(law)
    parts.append(Sentence("Its solution on this manifold is"))
    parts += show_matrix("V", sp.Matrix(result.variance), result.problem.parameters, names, "slow.variance")
    return Step("Equilibrium across the manifold", (*parts, *_memories(result, names)))


def _memories(result: SlowResult, names: Names) -> list[Part]:
    """The blocks of the equilibrium covariance that belong to the memories, where they are short."""
    d = len(result.problem.parameters)
    labels = result.state
    rest = [e for e in notation.entries(result.covariance, range(len(labels))) if e[1] >= d]
    if not rest:
        return []
    pairs = [(f"V_{{{tex(labels[i])}, {tex(labels[j])}}}", value) for i, j, value in rest]
    shown = equations(pairs, names) if len(rest) <= MOST_ENTRIES else None
    if shown is None:
        count = operations(result.covariance)
        return [Sentence(f"The covariance with the memories has {count} operations and is {code('slow.covariance')}.")]
    return [Sentence("and, with the memories,"), *shown]


TERMS = {
    "flatness": "The pull towards flat minima",
    "correlation": "The correlation of tangent and normal noise",
    "ito": r"The It\^o term of the coordinates",
    "force": "The small force",
}


def _rate(result: SlowResult, u: sp.Symbol) -> str:
    if result.linear is not None and result.linear.continuous:
        return rf"\frac{{\mathrm{{E}}[\mathrm{{d}}{tex(u)}]}}{{\mathrm{{d}}t}}"
    return rf"\mathrm{{E}}[\Delta {tex(u)}]"


def _unit(result: SlowResult) -> str:
    return "unit of time" if result.linear is not None and result.linear.continuous else "iteration"


def _drift(result: SlowResult, names: Names) -> Step:
    parts: list[Part] = [Sentence(_drift_text(result))]
    present = [name for name in TERMS if any(x != 0 for x in getattr(result.terms, name))]
    if len(present) > 1:
        for name in present:
            parts.append(Sentence(f"{TERMS[name]} is"))
            parts += _components(result, getattr(result.terms, name), rf"_{{\text{{{name}}}}}", names, f"slow.terms.{name}")
        parts.append(Sentence(f"and the drift is, per {_unit(result)},"))
    else:
        only = f"is one term, {TERMS[present[0]][:1].lower()}{TERMS[present[0]][1:]}" if present else "vanishes"
        parts.append(Sentence(f"Here it {only}; per {_unit(result)},"))
    return Step("Drift along the manifold", (*parts, *_components(result, result.drift, "", names, "slow.drift")))


def _drift_text(result: SlowResult) -> str:
    if result.linear is None:
        return (
            r"The drift is $P\left(\tfrac12 F''[V_s] + F''[Q_{\mathrm{tf}} A^{\# \mathsf T}]\right)"
            r" + \tfrac12 A^{\#} F''[Q_{\mathrm{tt}}]$, pulled back to the coordinates, with $P$ the projector on the manifold and"
            r" $A^{\#}$ the group inverse of $A = I - J$."
        )
    linear, noisy = result.linear, result.geometry.has_tangent_noise
    gain = rf"\frac{{\gamma}}{{2\,{tex(linear.dt)}}}" if linear.continuous else r"\frac{\gamma}{2}"
    ito = r" - \tfrac12 G^{-1} T^{\mathsf T} \varphi''[D]" if noisy else ""
    force = " and the small force" if linear.has_force else ""
    diffusion = ", $D$ is the diffusion below" if noisy else ""
    mixed = ""
    if result.geometry.has_cross_noise:
        mixed = (
            r" Between tangent and normal directions $V$ stands here for $K(0, \lambda_j)\, \Sigma_{ij}$, the covariance of the fast"
            " part and the correlation of both noises together."
        )
    return (
        rf"In coordinates $u$ of the manifold the drift is $-{gain}\, G^{{-1}} \langle \partial_u H, V \rangle{ito}${force}."
        r" Here $\varphi(u)$ is the point with coordinates $u$, $T = \partial\varphi/\partial u$, $G = T^{\mathsf T} T$"
        rf"{diffusion}, and $\langle A, B \rangle = \operatorname{{tr}}(A^{{\mathsf T}} B)$.{mixed}"
    )


def _components(result: SlowResult, vector: sp.MatrixBase, mark: str, names: Names, where: str) -> list[Part]:
    pairs = [(_rate(result, u) + mark, value) for u, value in zip(result.coordinates, vector, strict=True)]
    shown = equations(pairs, names)
    return shown or [part for left, value in pairs for part in one_equation(left, value, names, where)]


def _diffusion(result: SlowResult, names: Names) -> Step:
    text = f"The noise along the manifold moves the coordinates with the covariance, per {_unit(result)},"
    if result.linear is not None:
        front = rf"\frac{{\gamma^2}}{{{tex(result.linear.dt)}}}" if result.linear.continuous else r"\gamma^2"
        text += rf" $D = {front}\, G^{{-1}} T^{{\mathsf T}} \Sigma T G^{{-1}}$:"
    matrix = show_matrix("D", sp.Matrix(result.diffusion), result.coordinates, names, "slow.diffusion")
    return Step("Diffusion along the manifold", (Sentence(text), *matrix))


def _potential(result: SlowResult, names: Names) -> Step:
    found = notation.potential_or_reason(result)
    if isinstance(found, str):
        return Step("Potential", (Sentence(f"There is no formula for it: {reason_tex(found)}"),))
    symbols = ", ".join(map(tex, result.coordinates))
    ito = r" without its It\^o term" if any(x != 0 for x in result.terms.ito) else ""
    text = rf"The drift{ito} is $-M^{{-1}}\, \partial \Psi / \partial u$, with the metric"
    metric = show_matrix("M", sp.Matrix(result.metric), result.coordinates, names, "slow.metric")
    shown = one_equation(rf"\Psi({symbols})", found, names, "slow.regularizer()")
    return Step("What is minimised on the way", (Sentence(text), *metric, Sentence("and the potential"), *shown))


@inline.register
def _(result: SlowResult) -> str:
    rows = [row for part in _components(result, result.drift, "", Names(), "slow.drift") for row in inline_rows(part)]
    if any(x != 0 for x in result.diffusion):
        found = show_matrix("D", sp.Matrix(result.diffusion), result.coordinates, Names(), "slow.diffusion")
        rows += [row for part in found for row in inline_rows(part)]
    return dollars(rows)
