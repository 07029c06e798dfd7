"""The steps of a derivation: one ``singledispatch`` function lists them; here is what both kinds of result share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.conditions import Condition
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.structure import LinearRule
from quasistatic.model.rule import Rule
from quasistatic.show import notation
from quasistatic.show.notation import Word, late, operations
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
    signed_terms,
    symbol_tex,
    tex,
    width,
    wrap,
)

#: Matrices with more rows than this are printed by their entries, and those only where they are few.
LARGEST_MATRIX, MOST_ENTRIES = 6, 6

#: How the formulas inside the conditions' sentences are set.
FORMULAS = {
    "|d drift/du| << 1 - rho(J_fast)": r"$|\partial_u\,\text{drift}| \ll 1 - \rho(J_{\text{fast}})$",
    "|d^4 f| V << |d^2 f|": r"$|\partial^4 f|\,V \ll |\partial^2 f|$",
    "base**t": r"$\text{base}^{\text{t}}$",
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


def as_is(text: str) -> Equation:
    """A short equation, relation included, as it is."""
    return Equation((text,))


def one_equation(left: str, expression: sp.Expr, names: Names, where: str) -> list[Part]:
    """An equation, or where to find it if it is too long."""
    return equations([(left, expression)], names) or [pointer(left, operations(expression), where)]


def _listed(pairs: Mapping[str, sp.Expr]) -> str:
    return ", ".join(f"${symbol_tex(name)} = {tex(value)}$" for name, value in pairs.items())


def _rule_text(rule: Rule) -> str:
    free = ", ".join(f"${symbol_tex(n)}$" for n in rule.hyperparameters)
    text = rf"The rule \texttt{{{escape(rule.name)}}}"
    plural = "s" if len(rule.hyperparameters) > 1 else ""
    text += f" has the positive hyperparameter{plural} {free}" if free else " has no free hyperparameters"
    return text + (f", with {_listed(rule.fixed)} fixed." if rule.fixed else ".")


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


def update_step(rule: Rule) -> Step:
    z, g = tex(rule.trace.parameter), tex(rule.trace.gradient)
    text = (
        rf" Every iteration updates each coordinate ${z}$ of the parameters with its component ${g}$ of the stochastic gradient"
        r" $\nabla f + \xi$, where $\mathrm{E}\,\xi = 0$ and $\operatorname{Cov}\xi = \Sigma$"
    )
    text += ", from the values before it:" if len(rule.trace.variables) > 1 else ":"
    parts: list[Part] = [Sentence(_rule_text(rule) + text), _update_rows(rule)]
    if rule.trace.iteration is not None:
        parts.append(Sentence(rf"Here ${tex(rule.trace.iteration)}$ counts iterations from 1; the derivation takes it to infinity."))
    return Step("The update rule", tuple(parts))


def dt_factor(linear: LinearRule) -> str:
    """The time of one iteration as a factor."""
    return rf"\left({tex(linear.dt)}\right)" if isinstance(linear.dt, sp.Add) else tex(linear.dt)


def _time_tex(linear: LinearRule) -> str:
    return f"t = k\\,{dt_factor(linear)}"


def scaling_step(linear: LinearRule) -> Step:
    """The declared scaling and the SDE that is its leading order."""
    scaling = linear.rule.scaling
    assert scaling is not None
    declared = _listed(scaling.values)
    sentence = (
        rf"Under the declared scaling {declared}, ${symbol_tex('e')} \to 0$, and with the time ${_time_tex(linear)}$, the iteration is"
        r" to leading order the stochastic differential equation (one coordinate; $C C^{\mathsf T} = \Sigma$, $W$ a Wiener process)"
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
        noise = " " + term_tex(kick, r"(C\,\mathrm{d}W)", bool(body)) if kick != 0 else ""
        inside = rf"\left({body}\right)" if len(terms) > 1 else body
        flow = inside + r"\,\mathrm{d}t" if body else ""
        rows.append(rf"\mathrm{{d}}{tex(variable)} &= {flow}{noise}")
    return rows


def _linear_sum(terms: Sequence[tuple[sp.Expr, str]]) -> str:
    return " ".join(term_tex(c, word, k > 0) for k, (c, word) in enumerate(terms))


def term_tex(coefficient: sp.Expr, word: str, plus: bool) -> str:
    """coefficient times word, with its sign; a leading plus only on demand."""
    terms = sp.Add.make_args(coefficient)
    if not word and len(terms) > 1:
        found = signed_terms(coefficient)
        return " ".join([f"+ {found[0]}" if plus and not found[0].startswith("-") else found[0], *found[1:]])
    negative = all(t.could_extract_minus_sign() for t in terms)
    size = -coefficient if negative else coefficient
    body = tex(size)
    if isinstance(size, sp.Add):
        body = rf"\left({body}\right)"
    sign = "- " if negative else "+ " if plus else ""
    if not word:
        return sign + body
    return sign + (word if size == 1 else rf"{body}\, {word}")


def averaged_step(linear: LinearRule) -> Step:
    """The averaged map of one coordinate and the covariance of one step."""
    states = [tex(v) for v in linear.rule.trace.variables]
    force = ""
    if any(linear.force):
        force += rf" + {matrix_tex(linear.force)} {states[0]}"
    if any(linear.shift):
        force += f" + {matrix_tex(linear.shift)}"
    tuple_ = ", ".join(states)
    if linear.A.rows == 1:
        body = rf"F({states[0]}) &= {states[0]} " + term_tex(linear.b[0], r"\partial f", True)
        if any(linear.force):
            body += f" {term_tex(linear.force[0], states[0], True)}"
        if any(linear.shift):
            body += f" {term_tex(linear.shift[0], '', True)}"
        covariance = rf"Q &= {tex(linear.b[0] ** 2)}\, \Sigma"
    else:
        body = rf"F(s) &= {matrix_tex(linear.A)} s + {matrix_tex(linear.b)} \partial f{force}"
        covariance = rf"Q &= {matrix_tex(linear.b * linear.b.T)} \otimes \Sigma"
    parts: list[Part] = [
        Sentence(
            rf"Averaged over the noise, the state $s = ({tuple_})$ of one coordinate moves by the map"
            if linear.A.rows > 1
            else "Averaged over the noise, one coordinate moves by the map"
        ),
        as_is(body),
        Sentence(r"with $\partial f$ the coordinate's component of $\nabla f$, and one step has the covariance"),
        as_is(covariance),
    ]
    if linear.bases:
        vanish = ", ".join(f"${tex(b)}^t$" for b in linear.bases)
        parts.append(Sentence(f"At late times {vanish} vanish."))
    if linear.has_force:
        parts.append(
            Sentence("The last part of the map is a small force: it moves points of the manifold, and enters the drift to first order.")
        )
    return Step("The averaged map", tuple(parts))


def words_tex(found: Sequence[Word], middle: str) -> list[str]:
    return [term_tex(w.coefficient, _word_tex(w, middle), k > 0) for k, w in enumerate(found)]


def _word_tex(word: Word, middle: str) -> str:
    a, b = word.powers
    if word.kind == "commutator":
        return f"[H, [H, {middle}]]"
    product = _product(a, middle, b)
    if word.kind == "single":
        return product
    pair = f"{product} + {_product(b, middle, a)}"
    return pair if word.coefficient == 1 else rf"\left({pair}\right)"


def _product(left: int, middle: str, right: int) -> str:
    return " ".join(p for p in (power_tex("H", left).strip(), middle, power_tex("H", right).strip()) if p)


def power_tex(base: str, exponent: int) -> str:
    return "" if exponent == 0 else f"{base} " if exponent == 1 else f"{base}^{{{exponent}}} "


def basis_free(law: LawResult) -> list[Part]:
    """The matrix equation of a law, its right-hand side on a row of its own where both do not fit."""
    left, right = law.matrix_coefficients
    terms = words_tex(notation.words(left), "V")
    rest = words_tex(notation.words(right), r"\Sigma")
    line = " ".join(terms) + " = " + " ".join(rest)
    if width(line) <= LINE:
        return [as_is(line)]
    found = wrap("", terms, relation=r"\phantom{=}")
    other = wrap("", rest)
    if found is None or other is None or sum(map(len, (*found.rows, *other.rows))) > 2600:
        return [pointer(r"\sum_{a,b} d_{ab} H^a V H^b - n_{ab} H^a \Sigma H^b", operations(law.matrix_equation), "law.matrix_equation")]
    return [Equation((*found.rows, *other.rows))]


def conditions_step(conditions: Sequence[Condition], formulas: Mapping[str, str] | None = None) -> Step:
    """The conditions as a list; ``formulas`` says how further pieces of their sentences are set."""
    items = []
    for condition in conditions:
        words = _condition_text(condition.statement, {**FORMULAS, **(formulas or {})})
        relation = condition.inequality
        formula = "" if relation is None else _relation(relation)
        items.append(rf"\item {formula}{words[:1].upper() + words[1:] if not formula else words}.")
    body = "\\begin{itemize}\n" + "\n".join(items) + "\n\\end{itemize}"
    return Step("Conditions", (Sentence("The result holds under these conditions:"), Sentence(body)))


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


def _condition_text(statement: str, formulas: Mapping[str, str]) -> str:
    held = {f"@{k}@": value for k, value in enumerate(formulas.values())}
    for key, source in zip(held, formulas, strict=True):
        statement = statement.replace(source, key)
    text = escape(statement)
    for key, value in held.items():
        text = text.replace(key, value)
    return text


def show_matrix(
    left: str, matrix: sp.MatrixBase, labels: Sequence[sp.Symbol], names: Names, where: str, symmetric: bool = True
) -> list[Part]:
    """A matrix where it fits, else its distinct nonzero entries, else where to find it."""
    if matrix.rows == matrix.cols == 1:
        return one_equation(left, matrix[0], names, where)
    if not any(x != 0 for x in matrix):
        return [as_is(f"{left} &= 0")]
    small = matrix_equation(left, matrix) if max(matrix.shape) <= LARGEST_MATRIX else None
    if small is not None:
        return small
    return (_entries(left, matrix, labels, names) if symmetric else None) or [pointer(left, operations(matrix), where)]


def _entries(left: str, matrix: sp.MatrixBase, labels: Sequence[sp.Symbol], names: Names) -> list[Part] | None:
    nonzero = notation.entries(matrix, labels)
    if len(nonzero) > MOST_ENTRIES:
        return None
    return equations([(f"{left}_{{{tex(a)}, {tex(b)}}}", value) for a, b, value in nonzero], names)


def inline_rows(part: Part) -> tuple[str, ...]:
    """Rows of a part for a notebook, whose TeX knows no line breaks inside text."""
    rows = part.rows if isinstance(part, Equation) else (rf"&\text{{{part.text}}}",)
    return tuple(row.replace(r"\allowbreak{}", "") for row in rows)


def dollars(rows: Sequence[str]) -> str:
    body = Equation(tuple(rows)).body
    return rf"$\displaystyle {body}$"
