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
    dt_factor,
    inline,
    inline_rows,
    one_equation,
    scaling_step,
    show_matrix,
    steps,
    term_tex,
    update_step,
)
from quasistatic.show.table import slow_table
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
    found = [slow_table(result), _setting(result.problem), update_step(result.rule)]
    if linear is not None:
        found.append(scaling_step(linear) if linear.continuous else averaged_step(linear))
    found += [_linearisation(result, names), _equilibrium(result), _solution(result, names)]
    if linear is not None:
        found += [_average(linear), _projection(result, linear, names)]
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
    plural = "coordinates" if chart.dimension > 1 else "the coordinate"
    listed = f"$({coordinates})$" if chart.dimension > 1 else f"${coordinates}$"
    parts += [Sentence(rf"Its minima form a manifold of dimension {chart.dimension}, with {plural} {listed}:"), minima]
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
        parts.append(Sentence(r"and the one curvature across the manifold, its eigenvalue that is not zero, is"))
        parts += one_equation(r"\lambda", curvature[0], names, "slow.geometry.h")
    else:
        parts.append(Sentence(rf"In a basis $N$ of the {geometry.r} normal directions, $H N = N \Lambda$ with"))
        parts += show_matrix(r"\Lambda", curvature, (), names, "slow.geometry.h", symmetric=False)
    if result.linear is None:
        parts += [Sentence("One averaged step of the whole state has the Jacobian"), *_jacobian(result, names)]
    else:
        parts += _state_matrix(result.linear)
    return Step("Linearisation", tuple(parts))


def _jacobian(result: SlowResult, names: Names) -> list[Part]:
    state = ", ".join(map(tex, state_symbols(result.rule, result.problem)))
    shown = show_matrix("J", sp.Matrix(result.averaged_map.J), (), names, "slow.averaged_map.J", symmetric=False)
    return [*shown, Sentence(rf"in the order $({state})$.")]


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
    end = "It has the eigenvalue 1 along the manifold; where the rule is stable, all others are inside the unit circle."
    if linear.A.rows > 1:
        end = "where $e_1$ picks the parameter from the state. " + end.replace("It has", "$J$ has")
    return [step, as_is(f"J &= {body}"), Sentence(end)]


def _equilibrium(result: SlowResult) -> Step:
    continuous = result.linear is not None and result.linear.continuous
    stein = r"A V_s + V_s A^{\mathsf T} &= Q_{\mathrm{ff}}" if continuous else r"V_s &= J V_s J^{\mathsf T} + Q_{\mathrm{ff}}"
    kind = "Lyapunov" if continuous else "Stein"
    per = "unit of time" if continuous else "step"
    text = (
        rf"The manifold is slow, what is across it is fast: that part of the state settles to an equilibrium, whose covariance $V_s$"
        rf" solves the {kind} equation"
    )
    where = rf"with $Q_{{\mathrm{{ff}}}}$ the fast part of the covariance of the noise per {per}."
    parts: list[Part] = [Sentence(text), as_is(stein), Sentence(where)]
    law = notation.law_of(result)
    if law is not None:
        text = (
            r"The rule treats all coordinates alike, so that the memories can be eliminated: across the manifold the parameters' block"
            r" $V$ of $V_s$ obeys an equation in the true Hessian $H$ alone, which holds in every basis,"
        )
        parts += [Sentence(text), *basis_free(law)]
        if any(w.kind == "commutator" for w in notation.words(law.matrix_coefficients[0])):
            parts.append(Sentence("with the commutator $[H, V] = H V - V H$."))
    return Step("Equilibrium across the manifold", tuple(parts))


def _solution(result: SlowResult, names: Names) -> Step:
    shown = show_matrix("V", sp.Matrix(result.variance), result.problem.parameters, names, "slow.variance")
    return Step("Its solution", (Sentence("On this manifold the solution is"), *shown, *_memories(result, names)))


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
        return [Sentence(f"The covariance with the rule's memories has {count} operations and is {code('slow.covariance')}.")]
    return [Sentence("and, with the memories of the rule,"), *shown]


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


def _average(linear: LinearRule) -> Step:
    """The force that is left of the gradient, averaged over the fluctuation."""
    text = (
        r"On the manifold the gradient vanishes, and the average of its linear part over the fluctuation vanishes too. What is left"
        r" is the second order, the third derivative of the loss on $V$:"
    )
    equation = as_is(
        r"\mathrm{E}\,[\nabla f] &= \tfrac12\, \nabla^3 f[V], \qquad"
        r" (\nabla^3 f[V])_i = \sum_{j,k} \frac{\partial^3 f}{\partial z_i\, \partial z_j\, \partial z_k}\, V_{jk}".replace(
            "z", tex(linear.rule.trace.parameter)
        )
    )
    return Step("Average over the fluctuation", (Sentence(text), equation))


def _projection(result: SlowResult, linear: LinearRule, names: Names) -> Step:
    """Where kicks end up: the gain, and the drift as the projected average."""
    parts: list[Part] = []
    if linear.A.rows > 1:
        lands = rf"\ell &= {matrix_tex(sp.Matrix(linear.left.T))}^{{\mathsf T}}"
        text = (
            r"A kick $\delta s$ to the state of one coordinate displaces its parameter, along the manifold and in the end, by"
            r" $\ell^{\mathsf T} \delta s$ with"
        )
        parts += [Sentence(text), as_is(lands), Sentence("so that a unit kick of the gradient displaces it by minus the gain")]
    else:
        parts.append(Sentence("A unit kick of the gradient displaces a point along the manifold by minus the gain"))
    parts += one_equation(r"\gamma", result.gain, names, "slow.gain")
    z = tex(linear.rule.trace.parameter)
    gain, rate = r"\frac{\gamma}{2}", [rf"\mathrm{{E}}[\Delta {v}]" for v in (z, "u")]
    if linear.continuous:
        gain = rf"\frac{{\gamma}}{{2\,{dt_factor(linear)}}}"
        rate = [rf"\frac{{\mathrm{{E}}[\mathrm{{d}}{v}]}}{{\mathrm{{d}}t}}" for v in (z, "u")]
    chart = (
        r"What the average force does across the manifold relaxes; what it does along the manifold stays. With $\varphi(u)$ the point"
        r" that has the coordinates $u$, $T = \partial\varphi/\partial u$ and $G = T^{\mathsf T} T$, the projection on the manifold is"
        rf" $P = T G^{{-1}} T^{{\mathsf T}}$, and the points of the manifold drift, per {_unit(result)}, by"
    )
    along = r"P\," if result.geometry.has_tangent_noise else ""
    force = r" + P F_0" if linear.has_force else ""
    parts += [Sentence(chart), as_is(rf"{along}{rate[0]} &= -{gain}\, P\, \nabla^3 f[V]{force}"), Sentence(PULLED_BACK)]
    parts.append(as_is(rf"{rate[1]} &= -{gain}\, G^{{-1}} \langle \partial_u H, V \rangle{_further(result, linear)}"))
    return Step("Projection on the manifold", (*parts, *_remarks(result, linear)))


def _further(result: SlowResult, linear: LinearRule) -> str:
    """Terms of the coordinates' drift besides the pull, as formulas."""
    found = r" + G^{-1} T^{\mathsf T} F_0" if linear.has_force else ""
    return found + (r" - \tfrac12\, G^{-1} T^{\mathsf T} \varphi''[D]" if result.geometry.has_tangent_noise else "")


#: From the space of parameters to the coordinates.
PULLED_BACK = (
    r"In the coordinates this is, because $T^{\mathsf T} \nabla^3 f[V] = \langle \partial_u H, V \rangle$ with"
    r" $\langle A, B \rangle = \operatorname{tr}(A^{\mathsf T} B)$,"
)


def _remarks(result: SlowResult, linear: LinearRule) -> list[Part]:
    """What the symbols of the further terms are."""
    found = []
    if linear.has_force:
        found.append(f"$F_0$ is the small force: by what it displaces a point of the manifold in the end, per {_unit(result)}.")
    if result.geometry.has_tangent_noise:
        found.append(r"The last term is the It\^o term of the coordinates, $D$ the diffusion below: noise along a curved manifold drifts.")
    if result.geometry.has_cross_noise:
        found.append(
            r"Between tangent and normal directions $V$ stands here for $K(0, \lambda_j)\, \Sigma_{ij}$, the covariance of the fast"
            r" part and the correlation of both noises together, with $K$ the law's kernel."
        )
    return [Sentence(" ".join(found))] if found else []


def _drift(result: SlowResult, names: Names) -> Step:
    parts: list[Part] = []
    if result.linear is None:
        parts += [Sentence(THEOREM_BEFORE), as_is(THEOREM), Sentence(THEOREM_AFTER)]
    present = [name for name in TERMS if any(x != 0 for x in getattr(result.terms, name))]
    if len(present) > 1:
        for name in present:
            parts.append(Sentence(f"{TERMS[name]} is"))
            parts += _components(result, getattr(result.terms, name), rf"_{{\text{{{name}}}}}", names, f"slow.terms.{name}")
        parts.append(Sentence(f"and the drift of the coordinates is their sum, per {_unit(result)},"))
    else:
        name = f"{TERMS[present[0]][:1].lower()}{TERMS[present[0]][1:]}" if present else ""
        text = (
            f"On this manifold there is one term, {name}; per {_unit(result)},"
            if name
            else f"On this manifold nothing drifts; per {_unit(result)},"
        )
        parts.append(Sentence(text))
    return Step("Drift along the manifold", (*parts, *_components(result, result.drift, "", names, "slow.drift")))


#: The reduction theorem, for rules that are not linear filters.
THEOREM = (
    r"\mathrm{E}[\Delta s] &= P \left(\tfrac12 F''[V_s] + F''[Q_{\mathrm{tf}} A^{\# \mathsf T}]\right)"
    r" + \tfrac12 A^{\#} F''[Q_{\mathrm{tt}}] + P\, (F(s) - s)"
)


THEOREM_BEFORE = (
    r"Expanding the averaged step to second order, averaging over the fluctuation and following the state to where it ends up on the"
    r" manifold gives the drift of the points of the manifold, to leading order in the noise:"
)
THEOREM_AFTER = (
    r"Here $F$ is the averaged step, $F''[M]_i = \sum_{a,b} \partial_a \partial_b F_i\, M_{ab}$, $P$ the spectral projector of $J$ for"
    r" the eigenvalue 1, $A^{\#}$ the group inverse of $A = I - J$, and t and f are the parts of the covariance $Q$ of one step along"
    r" the manifold and across. The terms are the pull towards flat minima, the correlation of both noises, the curvature of the"
    r" manifold, and a small force where points of the manifold do not rest."
)


def _components(result: SlowResult, vector: sp.MatrixBase, mark: str, names: Names, where: str) -> list[Part]:
    pairs = [(_rate(result, u) + mark, value) for u, value in zip(result.coordinates, vector, strict=True)]
    shown = equations(pairs, names)
    return shown or [part for left, value in pairs for part in one_equation(left, value, names, where)]


def _diffusion(result: SlowResult, names: Names) -> Step:
    text = f"The noise along the manifold lets the coordinates diffuse, with the covariance, per {_unit(result)},"
    if result.linear is not None:
        front = rf"\frac{{\gamma^2}}{{{tex(result.linear.dt)}}}" if result.linear.continuous else r"\gamma^2"
        text += rf" $D = {front}\, G^{{-1}} T^{{\mathsf T}} \Sigma T G^{{-1}}$:"
    matrix = show_matrix("D", sp.Matrix(result.diffusion), result.coordinates, names, "slow.diffusion")
    return Step("Diffusion along the manifold", (Sentence(text), *matrix))


def _potential(result: SlowResult, names: Names) -> Step:
    found = notation.potential_or_reason(result)
    if isinstance(found, str):
        return Step("What is minimised on the way", (Sentence(f"There is no formula for it: {reason_tex(found)}"),))
    symbols = ", ".join(map(tex, result.coordinates))
    ito = r" without its It\^o term" if any(x != 0 for x in result.terms.ito) else ""
    text = rf"The drift{ito} is a gradient flow, $-M^{{-1}}\, \partial \Psi / \partial u$, with the metric"
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
