"""The derivation of a result as LaTeX, step by step: one ``singledispatch`` function lists the steps, the rest prints them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.averaging import state_symbols
from quasistatic.derivation.conditions import Condition
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I, LAMBDA_J, Filter, field_expression
from quasistatic.derivation.law import BATCH, LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.derivation.structure import LinearRule
from quasistatic.errors import OutputError
from quasistatic.model.noise import HessianNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.show import notation
from quasistatic.show.notation import Powers, Word, late, operations
from quasistatic.show.typeset import (
    LINE,
    Equation,
    Names,
    Part,
    Sentence,
    code,
    equations,
    escape,
    matrix_equation,
    matrix_tex,
    pointer,
    reason_tex,
    signed_terms,
    symbol_tex,
    tex,
    width,
    wrap,
)

#: Matrices with more rows than this are printed by their entries, and those only where they are few.
LARGEST_MATRIX, MOST_ENTRIES = 6, 6
#: Columns of the printed source.
SOURCE_COLUMNS = 90

#: How the formulas inside the conditions' sentences are set.
FORMULAS = {
    "|d drift/du| << 1 - rho(J_fast)": r"$|\partial_u\,\text{drift}| \ll 1 - \rho(J_{\text{fast}})$",
    "|d^4 f| V << |d^2 f|": r"$|\partial^4 f|\,V \ll |\partial^2 f|$",
    "base**t": r"$\text{base}^t$",
    "curvature lambda": r"curvature $\lambda$",
}


@dataclass(frozen=True)
class Step:
    """One step of a derivation: a title, then sentences and equations in order."""

    title: str
    parts: tuple[Part, ...]


@singledispatch
def steps(result: object) -> tuple[Step, ...]:
    """The steps of the derivation of a result, in order."""
    raise TypeError(f"no LaTeX is known for {type(result).__name__}")


@singledispatch
def inline(result: object) -> str:
    """One line of LaTeX between dollars: what a notebook shows."""
    raise TypeError(f"no LaTeX is known for {type(result).__name__}")


# -- pieces that both kinds of result share ----------------------------------------------------------------------------


def _plain(text: str) -> Equation:
    """A short equation, relation included, as it is."""
    return Equation((text,))


def _shown(left: str, expression: sp.Expr, names: Names, where: str) -> list[Part]:
    """An equation, or where to find it if it is too long."""
    return equations([(left, expression)], names) or [pointer(left, operations(expression), where)]


def _math(expression: object) -> str:
    return f"${tex(expression)}$"


def _listed(pairs: Mapping[str, sp.Expr]) -> str:
    return ", ".join(f"${symbol_tex(name)} = {tex(value)}$" for name, value in pairs.items())


def _rule_text(rule: Rule) -> str:
    free = ", ".join(f"${symbol_tex(n)}$" for n in rule.hyperparameters)
    text = rf"The rule \texttt{{{escape(rule.name)}}}"
    text += f" has the hyperparameters {free} (positive)" if free else " has no free hyperparameters"
    return text + (f"; fixed are {_listed(rule.fixed)}." if rule.fixed else ".")


def _update_rows(rule: Rule) -> Equation:
    """The update as it was traced, one row for every variable; long ones broken."""
    rows: list[str] = []
    variables = (*rule.trace.variables, rule.trace.gradient)
    for variable, given in zip(rule.trace.variables, rule.updates, strict=True):
        update = late(given, variables)
        expression = update if isinstance(update, sp.Add) or width(tex(update)) < LINE else sp.expand(update)
        found = wrap(tex(variable), signed_terms(expression), relation=r"\leftarrow")
        rows += found.rows if found else [rf"{tex(variable)} &\leftarrow \text{{({operations(update)} operations, see the source below)}}"]
    return Equation(tuple(rows))


def _update(rule: Rule) -> Step:
    z, g = tex(rule.trace.parameter), tex(rule.trace.gradient)
    text = (
        rf" Every iteration updates each coordinate ${z}$ of the parameters with its component ${g}$ of the stochastic gradient"
        r" $\nabla f + \xi$, $\mathrm{E}\,\xi = 0$, $\operatorname{Cov}\xi = \Sigma$:"
    )
    parts: list[Part] = [Sentence(_rule_text(rule) + text), _update_rows(rule)]
    if rule.trace.iteration is not None:
        parts.append(Sentence(rf"Here ${tex(rule.trace.iteration)}$ counts iterations from 1; the derivation takes it to infinity."))
    return Step("The update rule", tuple(parts))


def _time_tex(linear: LinearRule) -> str:
    return f"t = k\\,{tex(linear.dt)}" if not isinstance(linear.dt, sp.Add) else rf"t = k\left({tex(linear.dt)}\right)"


def _scaling(linear: LinearRule) -> Step:
    """The declared scaling and the SDE that is its leading order."""
    scaling = linear.rule.scaling
    assert scaling is not None
    declared = _listed(scaling.values)
    sentence = (
        rf"Under the declared scaling {declared}, $e \to 0$, and with the time ${_time_tex(linear)}$, the iteration is to leading"
        r" order the stochastic differential equation (one coordinate; $C C^{\mathsf T} = \Sigma$, $W$ a Wiener process)"
    )
    return Step("Continuous time", (Sentence(sentence), Equation(tuple(_sde_rows(linear)))))


def _sde_rows(linear: LinearRule) -> list[str]:
    rows = []
    for i, variable in enumerate(linear.rule.trace.variables):
        drift = [(normal(linear.A[i, j] / linear.dt), tex(v)) for j, v in enumerate(linear.rule.trace.variables)]
        drift.append((normal(linear.b[i] / linear.dt), r"\partial f"))
        drift.append((normal(linear.force[i] / linear.dt), tex(linear.rule.trace.parameter)))
        terms = [(c, word) for c, word in drift if c != 0]
        body = _linear_sum(terms)
        kick = linear.b[i] / sp.sqrt(linear.dt)
        noise = " " + _term(kick, r"(C\,\mathrm{d}W)", bool(body)) if kick != 0 else ""
        inside = rf"\left({body}\right)" if len(terms) > 1 else body
        flow = inside + r"\,\mathrm{d}t" if body else ""
        rows.append(rf"\mathrm{{d}}{tex(variable)} &= {flow}{noise}")
    return rows


def _linear_sum(terms: Sequence[tuple[sp.Expr, str]]) -> str:
    return " ".join(_term(c, word, k > 0) for k, (c, word) in enumerate(terms))


def _term(coefficient: sp.Expr, word: str, plus: bool) -> str:
    """coefficient times word, with its sign; a leading plus only on demand."""
    negative = coefficient.could_extract_minus_sign()
    size = -coefficient if negative else coefficient
    body = tex(size)
    if isinstance(size, sp.Add):
        body = rf"\left({body}\right)"
    sign = "- " if negative else "+ " if plus else ""
    if not word:
        return sign + tex(size)
    return sign + (word if size == 1 else rf"{body}\, {word}")


def _averaged(linear: LinearRule) -> Step:
    """The averaged map of one coordinate and the covariance of one step."""
    states = [tex(v) for v in linear.rule.trace.variables]
    force = ""
    if any(linear.force):
        force += rf" + {matrix_tex(linear.force)} {states[0]}"
    if any(linear.shift):
        force += f" + {matrix_tex(linear.shift)}"
    tuple_ = ", ".join(states)
    if linear.A.rows == 1:
        body = rf"F({states[0]}) &= {states[0]} " + _term(linear.b[0], r"\partial f", True)
        if any(linear.force):
            body += f" {_term(linear.force[0], states[0], True)}"
        if any(linear.shift):
            body += f" {_term(linear.shift[0], '', True)}"
        covariance = rf"Q &= {tex(linear.b[0] ** 2)}\, \Sigma"
    else:
        body = rf"F(s) &= {matrix_tex(linear.A)} s + {matrix_tex(linear.b)} \partial f{force}"
        covariance = rf"Q &= {matrix_tex(linear.b * linear.b.T)} \otimes \Sigma"
    parts: list[Part] = [
        Sentence(rf"Averaged over the noise, the state $s = ({tuple_})$ of one coordinate moves by the map"),
        _plain(body),
        Sentence(r"with $\partial f$ the coordinate's component of $\nabla f$, and one step has the covariance"),
        _plain(covariance),
    ]
    if linear.bases:
        vanish = ", ".join(f"${tex(b)}^t$" for b in linear.bases)
        parts.append(Sentence(f"At late times {vanish} vanish."))
    if linear.has_force:
        parts.append(Sentence("The last part is a small force: it moves points of the manifold, and enters the drift to first order."))
    return Step("The averaged map", tuple(parts))


def _words_tex(found: Sequence[Word], middle: str) -> list[str]:
    return [_term(w.coefficient, _word_tex(w, middle), k > 0) for k, w in enumerate(found)]


def _word_tex(word: Word, middle: str) -> str:
    a, b = word.powers
    if word.kind == "commutator":
        return f"[H, [H, {middle}]]"
    product = f"{_power('H', a)}{middle}{_power(' H', b)}"
    if word.kind == "single":
        return product
    pair = f"{product} + {_power('H', b)}{middle}{_power(' H', a)}"
    return pair if word.coefficient == 1 else rf"\left({pair}\right)"


def _power(base: str, exponent: int) -> str:
    return "" if exponent == 0 else f"{base} " if exponent == 1 else f"{base}^{{{exponent}}} "


def _basis_free(law: LawResult) -> list[Part]:
    """The matrix equation of a law, its right-hand side on a row of its own where both do not fit."""
    left, right = law.matrix_coefficients
    terms = _words_tex(notation.words(left), "V")
    rest = _words_tex(notation.words(right), r"\Sigma")
    line = " ".join(terms) + " = " + " ".join(rest)
    if width(line) <= LINE:
        return [_plain(line)]
    found = wrap("", terms, relation=r"\phantom{=}")
    other = wrap("", rest)
    if found is None or other is None or sum(map(len, (*found.rows, *other.rows))) > 2600:
        return [pointer(r"\sum_{a,b} d_{ab} H^a V H^b - n_{ab} H^a \Sigma H^b", operations(law.matrix_equation), "law.matrix_equation")]
    return [Equation((*found.rows, *other.rows))]


def _conditions(conditions: Sequence[Condition]) -> Step:
    items = []
    for condition in conditions:
        words = _condition_text(condition.statement)
        relation = condition.inequality
        formula = "" if relation is None else _relation(relation)
        items.append(rf"\item {formula}{words[:1].upper() + words[1:] if not formula else words}.")
    body = "\\begin{itemize}\n" + "\n".join(items) + "\n\\end{itemize}"
    return Step("Conditions", (Sentence("The result holds where"), Sentence(body)))


def _relation(relation: sp.Rel) -> str:
    """An inequality in the line, or displayed inside its item where it is long."""
    left, right = signed_terms(relation.lhs), signed_terms(relation.rhs)
    line = " ".join(left) + " < " + " ".join(right)
    if width(line) < 200:
        return f"${line}$: "
    if width(line) < LINE - 30:
        return rf"\[ {line}, \] "
    found, other = wrap("", left, LINE - 40, r"\phantom{<}"), wrap("", right, LINE - 40, "<")
    if found is None or other is None or sum(map(len, (*found.rows, *other.rows))) > 1500:
        return f"a polynomial inequality of {operations(relation)} operations, see {code('.conditions')}: "
    return rf"\[ {Equation((*found.rows, *other.rows)).body} \] "


def _condition_text(statement: str) -> str:
    held = {f"@{k}@": value for k, value in enumerate(FORMULAS.values())}
    for key, source in zip(held, FORMULAS, strict=True):
        statement = statement.replace(source, key)
    text = escape(statement)
    for key, value in held.items():
        text = text.replace(key, value)
    return text


# -- slow dynamics on a problem ----------------------------------------------------------------------------------------


@steps.register
def _(result: SlowResult) -> tuple[Step, ...]:
    names = Names()
    linear = result.linear
    found = [_setting(result.problem), _update(result.rule)]
    if linear is not None:
        found.append(_scaling(linear) if linear.continuous else _averaged(linear))
    found.append(_linearisation(result, names))
    found.append(_equilibrium(result, names))
    found.append(_drift(result, names))
    if any(x != 0 for x in result.diffusion):
        found.append(_diffusion(result, names))
    found += [_potential(result, names), _conditions(result.conditions)]
    return tuple(found)


def _setting(problem: Problem) -> Step:
    chart = problem.chart
    parameters = ", ".join(map(tex, problem.parameters))
    coordinates = ", ".join(map(tex, chart.coordinates))
    name = rf" \texttt{{{escape(problem.name)}}}" if problem.name else ""
    names = Names()
    parts: list[Part] = [Sentence(rf"The loss{name} is, with parameters $({parameters})$,")]
    parts += _shown("f", problem.loss, names, "problem.loss")
    minima = Equation(tuple(f"{tex(k)} &= {tex(v)}" for k, v in problem.minima.items()))
    parts += [Sentence(rf"Its minima form a manifold of dimension {chart.dimension}, with coordinates $({coordinates})$:"), minima]
    parts.append(Sentence("On it the gradient noise has the covariance"))
    if isinstance(problem.noise, HessianNoise):
        parts.append(_plain(rf"\Sigma &= {_term(problem.noise.alpha, r'H', False)}, \qquad H = \nabla^2 f"))
    else:
        parts += _matrix(r"\Sigma", sp.Matrix(problem.covariance), problem.parameters, names, "problem.covariance")
    return Step("Setting", tuple(parts))


def _matrix(left: str, matrix: sp.MatrixBase, labels: Sequence[sp.Symbol], names: Names, where: str, symmetric: bool = True) -> list[Part]:
    """A matrix where it fits, else its distinct nonzero entries, else where to find it."""
    if matrix.rows == matrix.cols == 1:
        return _shown(left, matrix[0], names, where)
    if not any(x != 0 for x in matrix):
        return [_plain(f"{left} &= 0")]
    small = matrix_equation(left, matrix) if max(matrix.shape) <= LARGEST_MATRIX else None
    if small is not None:
        return small
    return (_entries(left, matrix, labels, names) if symmetric else None) or [pointer(left, operations(matrix), where)]


def _entries(left: str, matrix: sp.MatrixBase, labels: Sequence[sp.Symbol], names: Names) -> list[Part] | None:
    nonzero = notation.entries(matrix, labels)
    if len(nonzero) > MOST_ENTRIES:
        return None
    return equations([(f"{left}_{{{tex(a)}, {tex(b)}}}", value) for a, b, value in nonzero], names)


def _linearisation(result: SlowResult, names: Names) -> Step:
    geometry = result.geometry
    problem = result.problem
    parts: list[Part] = [Sentence("On the manifold the Hessian of the loss is")]
    parts += _matrix("H", sp.Matrix(problem.hessian), problem.parameters, names, "problem.hessian")
    curvature = geometry.express(geometry.h)
    if geometry.r == 1:
        parts.append(Sentence(r"and the one curvature across the manifold"))
        parts += _shown(r"\lambda", curvature[0], names, "slow.geometry.h")
    else:
        parts.append(Sentence(rf"In a basis $N$ of the {geometry.r} normal directions, $H N = N \Lambda$ with"))
        parts += _matrix(r"\Lambda", curvature, (), names, "slow.geometry.h", symmetric=False)
    if result.linear is None:
        parts += [Sentence("One averaged step of the whole state has the Jacobian"), *_jacobian(result, names)]
    else:
        parts += _projector(result, result.linear, names)
    return Step("Linearisation", tuple(parts))


def _jacobian(result: SlowResult, names: Names) -> list[Part]:
    state = ", ".join(map(tex, state_symbols(result.rule, result.problem)))
    shown = _matrix("J", sp.Matrix(result.averaged_map.J), (), names, "slow.averaged_map.J", symmetric=False)
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
        parts += [Sentence(text), _plain(lands), Sentence("so a unit gradient kick displaces it by minus the gain")]
    else:
        parts.append(Sentence("A unit gradient kick displaces a point along the manifold by minus the gain"))
    return [*parts, *_shown(r"\gamma", result.gain, names, "slow.gain")]


def _state_matrix(linear: LinearRule) -> list[Part]:
    """J of the map, or A of the SDE, on the whole state."""
    sign = sp.Integer(-1) / linear.dt if linear.continuous else sp.Integer(1)
    first, kick = ((sign * m).applyfunc(normal) for m in (sp.Matrix(linear.A), sp.Matrix(linear.b)))
    if linear.A.rows == 1:
        lead = "" if linear.continuous else "I"
        body = f"{lead} {_term(kick[0], 'H', bool(lead))}"
    else:
        body = rf"{matrix_tex(first)} \otimes I + {matrix_tex(kick)} e_1^{{\mathsf T}} \otimes H"
    if linear.continuous:
        text = (
            r"Near the manifold the whole state obeys $\mathrm{d}s = -A s\,\mathrm{d}t + \text{noise}$, where $A$ vanishes on the slow"
            " directions:"
        )
        return [Sentence(text), _plain(f"A &= {body}")]
    step = Sentence("One averaged step of the whole state has the Jacobian")
    return [step, _plain(f"J &= {body}"), Sentence("with eigenvalue 1 along the manifold.")]


def _equilibrium(result: SlowResult, names: Names) -> Step:
    continuous = result.linear is not None and result.linear.continuous
    stein = r"A V_s + V_s A^{\mathsf T} &= Q_{\mathrm{ff}}" if continuous else r"V_s &= J V_s J^{\mathsf T} + Q_{\mathrm{ff}}"
    kind = "Lyapunov" if continuous else "Stein"
    parts: list[Part] = [
        Sentence(rf"The fast part of the state settles to an equilibrium whose covariance $V_s$ solves the {kind} equation"),
        _plain(stein),
    ]
    law = notation.law_of(result)
    if law is not None:
        parts.append(Sentence(r"Without the memories and without a basis, this is for the parameters' block $V$ and the true Hessian $H$"))
        parts += _basis_free(law)
    parts.append(Sentence("Its solution on this manifold is"))
    parts += _matrix("V", sp.Matrix(result.variance), result.problem.parameters, names, "slow.variance")
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
            r"The drift is $P\left(\tfrac12 F''[V_s] + F''[Q_{\mathrm{tf}} A^{\# \mathsf T}]\right) + \tfrac12 A^{\#}"
            r" F''[Q_{\mathrm{tt}}]$, pulled back to the coordinates, with $P$ the projector on the manifold and $A^{\#}$ the group inverse of $A = I - J$."
        )
    linear, noisy = result.linear, result.geometry.has_tangent_noise
    gain = rf"\frac{{\gamma}}{{2\,{tex(linear.dt)}}}" if linear.continuous else r"\frac{\gamma}{2}"
    ito = r" - \tfrac12 G^{-1} T^{\mathsf T} \varphi''[D]" if noisy else ""
    force = " and the small force" if linear.has_force else ""
    diffusion = ", $D$ is the diffusion below" if noisy else ""
    return (
        rf"In coordinates $u$ of the manifold the drift is $-{gain}\, G^{{-1}} \langle \partial_u H, V \rangle{ito}${force}."
        rf" Here $\varphi(u)$ is the point with coordinates $u$, $T = \partial\varphi/\partial u$, $G = T^{{\mathsf T}} T${diffusion}, and $\langle A, B \rangle ="
        r" \operatorname{tr}(A^{\mathsf T} B)$."
    )


def _components(result: SlowResult, vector: sp.MatrixBase, mark: str, names: Names, where: str) -> list[Part]:
    pairs = [(_rate(result, u) + mark, value) for u, value in zip(result.coordinates, vector, strict=True)]
    shown = equations(pairs, names)
    return shown or [part for left, value in pairs for part in _shown(left, value, names, where)]


def _diffusion(result: SlowResult, names: Names) -> Step:
    text = f"The noise along the manifold moves the coordinates with the covariance, per {_unit(result)},"
    if result.linear is not None:
        front = rf"\frac{{\gamma^2}}{{{tex(result.linear.dt)}}}" if result.linear.continuous else r"\gamma^2"
        text += rf" $D = {front}\, G^{{-1}} T^{{\mathsf T}} \Sigma T G^{{-1}}$:"
    matrix = _matrix("D", sp.Matrix(result.diffusion), result.coordinates, names, "slow.diffusion")
    return Step("Diffusion along the manifold", (Sentence(text), *matrix))


def _potential(result: SlowResult, names: Names) -> Step:
    found = notation.potential_or_reason(result)
    if isinstance(found, str):
        return Step("Potential", (Sentence(f"There is no formula for it: {reason_tex(found)}"),))
    symbols = ", ".join(map(tex, result.coordinates))
    ito = r" without its It\^o term" if any(x != 0 for x in result.terms.ito) else ""
    text = rf"The drift{ito} is $-M^{{-1}}\, \partial \Psi / \partial u$, with the metric"
    metric = _matrix("M", sp.Matrix(result.metric), result.coordinates, names, "slow.metric")
    shown = _shown(rf"\Psi({symbols})", found, names, "slow.regularizer()")
    return Step("What is minimised on the way", (Sentence(text), *metric, Sentence("and the potential"), *shown))


@inline.register
def _(result: SlowResult) -> str:
    rows = [row for part in _components(result, result.drift, "", Names(), "slow.drift") for row in _inline_rows(part)]
    if any(x != 0 for x in result.diffusion):
        found = _matrix("D", sp.Matrix(result.diffusion), result.coordinates, Names(), "slow.diffusion")
        rows += [row for part in found for row in _inline_rows(part)]
    return _dollars(rows)


def _inline_rows(part: Part) -> tuple[str, ...]:
    if isinstance(part, Equation):
        return part.rows
    return () if part.text == "with" else (rf"&\text{{{_untext(part.text)}}}",)


def _untext(text: str) -> str:
    return text.replace(r"\allowbreak{}", "")


def _dollars(rows: Sequence[str]) -> str:
    body = Equation(tuple(rows)).body
    return rf"$\displaystyle {body}$"


# -- the law for any loss ----------------------------------------------------------------------------------------------


@steps.register
def _(result: LawResult) -> tuple[Step, ...]:
    names = Names()
    linear = result.linear
    return (
        _update(result.rule),
        _scaling(linear) if linear.continuous else _averaged(linear),
        _transfer(result, names),
        _kernel(result, names),
        Step(
            "Equilibrium without a basis",
            (Sentence(r"Clearing denominators, for the true Hessian $H$ and any noise covariance $\Sigma$,"), *_basis_free(result)),
        ),
        _factors(result, names),
        _regularizers(result, names),
        _conditions(result.conditions),
    )


def _transfer(result: LawResult, names: Names) -> Step:
    """The transfer function from minus the gradient to the parameter."""
    law = result.filter
    variable, pole = ("s", "s") if result.linear.continuous else (r"\zeta", r"(\zeta - 1)")
    numerator, denominator = _polynomials(law)
    about = "Laplace" if result.linear.continuous else "Z"
    parts: list[Part] = [
        Sentence(rf"From minus the gradient to the parameter the rule is a linear filter with the {about} transform"),
        _plain(rf"G({variable}) &= \frac{{n({variable})}}{{{pole}\, d({variable})}}"),
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
            terms.append(_term(c, word, bool(terms)))
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
        return [_plain(f"{head} &= {fraction}")]
    rows = [wrap(r"K_{\mathrm{n}}", top), wrap(r"K_{\mathrm{d}}", bottom)]
    if any(r is None or sum(map(len, r.rows)) > 2600 for r in rows):
        return [pointer(head, operations(result.kernel), "law.kernel")]
    return [_plain(rf"{head} &= \frac{{K_{{\mathrm{{n}}}}}}{{K_{{\mathrm{{d}}}}}}"), Sentence("with"), *(r for r in rows if r is not None)]


def _curvature_terms(found: Sequence[Word]) -> list[str]:
    return [_term(w.coefficient, _curvature_word(w), k > 0) for k, w in enumerate(found)]


def _curvature_word(word: Word) -> str:
    i, j = tex(LAMBDA_I), tex(LAMBDA_J)
    a, b = word.powers
    if word.kind == "commutator":
        return rf"({i} - {j})^{{2}}"
    common = f"{_power(i, b)}{_power(j, b)}"
    if word.kind == "single":
        return common
    pair = f"{_power(i, a - b)}+ {_power(j, a - b)}"
    return pair if word.coefficient == 1 and not common else rf"{common}({pair.strip()})"


def _factors(result: LawResult, names: Names) -> Step:
    parts: list[Part] = [Sentence("A unit gradient kick displaces a flat direction in the end by minus the gain")]
    parts += _shown(r"\gamma", result.gain, names, "law.gain")
    found = notation.factors(result)
    if isinstance(found, str):
        return Step("Gain, speed and range", (*parts, Sentence(escape(found))))
    speed, spread = found
    parts.append(Sentence(r"With noise $\Sigma / B$, $B$ the batch size, the drift per iteration and the covariance are in the leading order proportional to"))
    parts.append(_plain(rf"\text{{speed}} &= {tex(speed)}, \qquad \text{{range}} = {tex(spread)}"))
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
            parts += _shown(rf"\rho({tex(LAMBDA)})", rho, names, "law.regularizer()")
        else:
            parts += _shown(rf"\rho'({tex(LAMBDA)})", slope, names, "law.regularizer_density()")
            parts.append(Sentence(rf"There is no closed form of $\rho$: {reason_tex(reason)}"))
    return Step("What is minimised on the way", tuple(parts))


@inline.register
def _(result: LawResult) -> str:
    return _dollars([row for part in _kernel_parts(result, Names()) for row in _inline_rows(part)])


# -- documents ---------------------------------------------------------------------------------------------------------

PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper, margin=2.5cm]{geometry}
\usepackage{amsmath, amssymb}
\emergencystretch=4em
\allowdisplaybreaks
"""


def fragment(result: SlowResult | LawResult) -> str:
    """The derivation without a preamble, to be put into a paper; it needs amsmath and amssymb."""
    parts = [_step(step) for step in steps(result)]
    return "\n\n".join([*parts, _provenance(result)]) + "\n"


def document(result: SlowResult | LawResult, standalone: bool = True) -> str:
    """The derivation as a LaTeX document that compiles, or as a fragment (``standalone=False``)."""
    body = fragment(result)
    if not standalone:
        return body
    title = "\\begin{center}\n{\\LARGE " + _title(result) + "}\n\\end{center}\n\n"
    return PREAMBLE + "\\begin{document}\n" + title + body + "\n\\end{document}\n"


def _title(result: SlowResult | LawResult) -> str:
    rule = rf"\texttt{{{escape(result.rule.name)}}}"
    order = "" if result.order.symbol is None else rf", leading order in ${tex(result.order.symbol)}$"
    order += ", in continuous time" if result.time_kind == "continuous" else ""
    if isinstance(result, LawResult):
        return f"The law of {rule} for any loss{order}"
    name = rf" on \texttt{{{escape(result.problem.name)}}}" if result.problem.name else ""
    return f"Slow dynamics of {rule}{name}{order}"


def _step(step: Step) -> str:
    lines = [rf"\subsection*{{{step.title}}}"]
    for part in step.parts:
        lines.append(part.text if isinstance(part, Sentence) else f"\\begin{{equation}}\n{part.body}\n\\end{{equation}}")
    return "\n".join(lines)


def _provenance(result: SlowResult | LawResult) -> str:
    try:
        own = version("quasistatic")
    except PackageNotFoundError:  # pragma: no cover
        own = "unknown"
    kind = "traced record" if not result.rule.source else "source"
    versions = f"quasistatic {escape(own)} with SymPy {escape(sp.__version__)}"
    intro = f"Derived by {versions}; {escape(notation.order_text(result))}. The {kind} of the rule:"
    return f"\\subsection*{{Provenance}}\n{intro}\n{_verbatim(result.rule.text)}"


def _verbatim(source: str) -> str:
    """Source made safe for verbatim: ASCII, no tabs, no end of the environment, no line wider than the page."""
    text = source.expandtabs(4).encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(c if c == "\n" or c.isprintable() else " " for c in text).replace(r"\end{verbatim", r"\ end{verbatim")
    lines = [piece for line in text.rstrip().split("\n") for piece in _folded(line)]
    return "{\\footnotesize\n\\begin{verbatim}\n" + "\n".join(lines) + "\n\\end{verbatim}\n}"


def _folded(line: str) -> list[str]:
    pieces = []
    indent = " " * (min(len(line) - len(line.lstrip()), 40) + 8)
    while len(line) > SOURCE_COLUMNS:
        cut = line.rfind(" ", len(indent) + 10, SOURCE_COLUMNS)
        cut = SOURCE_COLUMNS if cut < 0 else cut
        pieces.append(line[:cut].rstrip())
        line = indent + line[cut:].lstrip()
    return [*pieces, line]


def write(result: SlowResult | LawResult, path: str | os.PathLike[str], standalone: bool = True) -> Path:
    """Write the document; nothing is left behind where that fails.

    Raises
    ------
    OutputError
        If the path cannot be written.
    """
    target = Path(path)
    text = document(result, standalone)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent, text=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}.") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OutputError(f"cannot write {target}: {error.strerror or error}.") from None
    return target


__all__ = ["Equation", "Powers", "Sentence", "Step", "document", "fragment", "inline", "steps", "write"]
