"""Results of rules with slow states as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.adaptive_law import CURVATURE, AdaptiveLawResult
from quasistatic.derivation.kinetic import KineticResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.slow_states import Preconditioned
from quasistatic.derivation.statistical import StatisticalResult
from quasistatic.show import notation
from quasistatic.show.frozen import Forms, averaged_over, density, slow_rates
from quasistatic.show.notation import plain
from quasistatic.show.text import (
    _capped,
    _condition_entries,
    _matrix_entries,
    _page,
    _rule_entries,
    _shorten,
    _title,
    expression_text,
    kernel_text,
    text,
    word_text,
)

Entry = tuple[str, str]


def equilibrium_text(law: LawResult) -> str:
    """The matrix equation with A = S H: A V + V A' - eta A V A' = eta S Sigma S."""
    left, right = law.matrix_coefficients
    return f"{_words(left, 'V')} = {_words(right, 'S Sigma S')}, A = S H"


def _words(coefficients: Mapping[notation.Powers, sp.Expr], middle: str) -> str:
    found = ""
    for word in notation.words(coefficients):
        negative = word.coefficient.could_extract_minus_sign()
        size = -word.coefficient if negative else word.coefficient
        front = "" if size == 1 else f"({expression_text(size)}) " if size.is_Add else f"{expression_text(size)} "
        found += ((" - " if found else "-") if negative else " + " if found else "") + front + word_text(word, middle, ("A", "A'"))
    return found


def _frozen_entries(rule: Preconditioned) -> list[Entry]:
    names = ", ".join(s.state.name for s in rule.slow)
    return [("frozen", f"{names} while the rest equilibrates"), ("S", expression_text(rule.scale))]


# -- slow dynamics on a problem ----------------------------------------------------------------------------------------


@text.register
def _(result: AdaptiveResult) -> str:
    forms = Forms(result)
    problem = result.problem
    minima = ", ".join(f"{k} = {expression_text(v)}" for k, v in problem.minima.items())
    entries = [
        *_rule_entries(result.rule),
        ("loss", _capped(problem.loss, "problem.loss")),
        ("minima", f"{minima}; coordinates {', '.join(map(str, result.coordinates))}"),
        ("noise", plain(str(problem.noise))),
        *_frozen_entries(result.preconditioned),
        ("gain", f"{expression_text(result.gain)}, in units of S"),
        ("equilibrium", equilibrium_text(notation.filter_law(result))),
        *_matrix_entries("V", forms.variance, problem.parameters, "slow.frozen_variance"),
        *_drift(forms),
    ]
    if any(x != 0 for x in result.frozen_diffusion):
        entries += _matrix_entries("D", forms.matrix(result.frozen_diffusion), result.coordinates, "slow.frozen_diffusion")
    entries += [(str(s), expression_text(value)) for s, value in forms.scales.items()]
    entries += _slow_states(forms)
    if forms.small_drift is not None:
        entries += [(f"E[Delta {u}]", expression_text(e)) for u, e in zip(result.coordinates, forms.small_drift, strict=True)]
    entries += _potential(forms)
    entries += _condition_entries(result)
    state = "slow states at rest" if result.mode == "adiabatic" else "with slow states"
    return _page(_title(result, f"on {problem.name or 'a problem'}: {state}"), entries)


def _drift(forms: Forms) -> list[Entry]:
    found = []
    for k, u in enumerate(forms.result.coordinates):
        found.append((f"E[Delta {u}]", _capped(forms.drift[k], "slow.frozen_terms")))
        if len(forms.terms) > 1:
            found += [(f"  {n}", _capped(part[k], f"slow.frozen_terms.{n}")) for n, part in forms.terms.items() if part[k] != 0]
    return found


def _slow_states(forms: Forms) -> list[Entry]:
    """Rates of the slow states, or their equilibrium; then the second moments that they follow."""
    rows: list[Entry] = []
    if forms.result.mode == "coupled":
        rows = [(f"E[Delta {v}]", expression_text(row)) for v, row in forms.result.frozen_slow_drift.items()]
    elif isinstance(forms.equilibrium, str):
        return [("at rest", _shorten(forms.equilibrium, 400).removeprefix("no formula: "))]
    else:
        rows = [(str(v), expression_text(value)) for v, value in forms.equilibrium.items()]
    for (m, value), p in zip(forms.result_moments, forms.result.problem.parameters, strict=True):
        if m in forms.moments:
            note = "  (no noise there: the third derivative's)" if m in forms.closed else ""
            rows.append((str(m), f"E[g_{p}^2] = {_capped(value, 'slow.second_moments')}{note}"))
    return rows


def _potential(forms: Forms) -> list[Entry]:
    found, of = forms.potential()
    limits = ["slow states at equilibrium"] if forms.result.mode == "coupled" else []
    limits += [f"leading order in {of.order.symbol}"] if forms.result.order.symbol is None and of.order.symbol is not None else []
    note = f"  ({', '.join(limits)})" if limits else ""
    shown = _shorten(found) if isinstance(found, str) else _capped(found, "slow.regularizer()") + note
    joint = forms.lyapunov()
    entries = [("potential", shown)]
    return entries if joint is None else [*entries, ("joint function", _capped(joint, "slow.lyapunov()") + "  (falls, at leading order)")]


@text.register
def _(result: KineticResult) -> str:
    rates = [(f"E[d{s}]/dt", _capped(e, "slow.drift")) for s, e in zip(result.slow_state, result.drift, strict=True)]
    return _plain_page(result, [*_frozen_entries(result.preconditioned), ("V", "see slow.variance"), *rates], "with slow states")


@text.register
def _(result: StatisticalResult) -> str:
    entries = _matrix_entries("V", sp.Matrix(result.variance), result.problem.parameters, "slow.variance")
    entries += [(f"E[Delta {s}]", _capped(e, "slow.drift")) for s, e in zip(result.slow_state, result.drift, strict=True)]
    if any(x != 0 for x in result.diffusion):
        entries += _matrix_entries("D", sp.Matrix(result.diffusion), result.coordinates, "slow.diffusion")
    return _plain_page(result, entries, "averaged over its kink")


def _plain_page(result: AdaptiveResult, found: Sequence[Entry], what: str) -> str:
    problem = result.problem
    minima = ", ".join(f"{k} = {expression_text(v)}" for k, v in problem.minima.items())
    entries = [
        *_rule_entries(result.rule),
        ("loss", _capped(problem.loss, "problem.loss")),
        ("minima", f"{minima}; coordinates {', '.join(map(str, result.coordinates))}"),
        ("noise", plain(str(problem.noise))),
        *found,
        *_condition_entries(result),
    ]
    return _page(_title(result, f"on {problem.name or 'a problem'}: slow dynamics, {what}"), entries)


# -- the law for any loss ----------------------------------------------------------------------------------------------


@text.register
def _(result: AdaptiveLawResult) -> str:
    rule = result.preconditioned
    entries = [
        *_rule_entries(result.rule),
        *_frozen_entries(rule),
        ("gain", f"{expression_text(result.gain)}, in units of S"),
        ("V_ij/Sigma_ij", f"{kernel_text(result)}  (eigenbasis of S^1/2 H S^1/2, for S^-1/2 V S^-1/2 and S^1/2 Sigma S^1/2)"),
        ("equilibrium", equilibrium_text(result)),
        *((f"E[Delta {v}]", f"{expression_text(row)}, {_moment(rule)}") for v, row in slow_rates(result).items()),
        ("label noise", _label_noise(result)),
        *_regularizer(result),
        *_condition_entries(result),
    ]
    return _page(_title(result, "for any loss: law"), entries)


def _moment(rule: Preconditioned) -> str:
    where = {"": "M = E[g^2]", "block": "M = E[g^2] averaged over the block", "all": "M = E[g^2] averaged over all coordinates"}
    return where[averaged_over(rule)]


def _label_noise(result: AdaptiveLawResult) -> str:
    front = expression_text(notation.leading_gain(result) ** 2 * sp.Symbol("alpha", positive=True) / 4)
    force = ", and a small force" if result.preconditioned.has_force else ""
    return f"E[Delta zeta] = -{front} Pi_S S d^3L[S], Pi_S = 1 - S J^T (J S J^T)^-1 J, J the residuals' Jacobian{force}"


def _regularizer(result: AdaptiveLawResult) -> Sequence[Entry]:
    """psi of one curvature and what is summed, its derivative, or why there is none."""
    psi, slope, reason = density(result)
    if psi is None and slope is None:
        return [("regularizer", _shorten(reason))]
    value, label = (psi, "psi") if psi is not None else (slope, "psi'")
    assert value is not None
    what = {
        "": "sum over i of psi(H_ii)",
        "block": "sum over blocks B of |B| psi(tr H_BB/|B|)",
        "all": "d psi(tr H/d)",
    }[averaged_over(result.preconditioned)]
    return [
        (f"{label}({CURVATURE})", f"{_capped(value, 'law.regularizer_density()')}  (noise alpha*H)"),
        ("descends", what),
    ]
