"""Results as plain data: texts of expressions, ready for JSON."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import sympy as sp

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.adaptive_law import AdaptiveLawResult
from quasistatic.derivation.kinetic import KineticResult
from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.errors import NoPotential
from quasistatic.show.frozen import Forms, averaged_over, density


@singledispatch
def data(result: object) -> dict[str, Any]:
    """A result as dictionaries, lists and texts; expressions are SymPy's text form."""
    raise TypeError(f"{result!r} has no plain form")


@data.register
def _(result: LawResult) -> dict[str, Any]:
    left, right = result.matrix_coefficients
    return {
        **_common(result),
        "kernel": str(result.kernel),
        "matrix_equation": {"V": _powers(left), "Sigma": _powers(right)},
        "gain": str(result.gain),
        "speed_factor": str(result.speed_factor),
        "range_factor": str(result.range_factor),
        "regularizer_density": {noise: str(result.regularizer_density(noise)) for noise in ("hessian", "isotropic")},
        "regularizer": {noise: _potential(lambda noise=noise: result.regularizer(noise)) for noise in ("hessian", "isotropic")},
    }


@data.register
def _(result: SlowResult) -> dict[str, Any]:
    terms = result.terms
    return {
        **_common(result),
        "problem": repr(result.problem),
        "coordinates": [str(c) for c in result.coordinates],
        "state": [str(s) for s in result.state],
        "drift": _entries(result.drift),
        "terms": {name: _entries(getattr(terms, name)) for name in ("flatness", "correlation", "ito", "force")},
        "diffusion": _rows(result.diffusion),
        "metric": _rows(result.metric),
        "variance": _rows(result.variance),
        "potential": _potential(result.regularizer),
    }


@data.register
def _(result: AdaptiveLawResult) -> dict[str, Any]:
    left, right = result.matrix_coefficients
    psi, slope, reason = density(result)
    return {
        **_common(result),
        "preconditioner": str(result.preconditioner),
        "kernel": str(result.kernel),
        "matrix_equation": {"V": _powers(left), "Sigma": _powers(right)},
        "gain": str(result.gain),
        "slow_drift": {str(v): str(row) for v, row in result.slow_drift.items()},
        "regularizer_density": {"hessian": {"none": reason} if slope is None else {"formula": str(slope)}},
        "regularizer": {"hessian": {"none": reason} if psi is None else {"formula": str(psi)}},
        "summed_over": {"": "coordinates", "block": "blocks", "all": "all coordinates"}[averaged_over(result.preconditioned)],
    }


@data.register
def _(result: AdaptiveResult) -> dict[str, Any]:
    """Formulas in the frozen preconditioner, which stay short, and what the frozen symbols are."""
    forms, terms = Forms(result), result.frozen_terms
    found, of = forms.potential()
    rest = forms.equilibrium
    return {
        **_common(result),
        "problem": repr(result.problem),
        "mode": result.mode,
        "coordinates": [str(c) for c in result.coordinates],
        "slow_state": [str(s) for s in result.slow_state],
        "state": [str(s) for s in result.state],
        "gain": str(result.gain),
        "drift": _entries(terms.total),
        "terms": {name: _entries(getattr(terms, name)) for name in ("flatness", "correlation", "ito", "force")},
        "diffusion": _rows(result.frozen_diffusion),
        "metric": _rows(result.frozen_metric),
        "variance": _rows(sp.Matrix(result.frozen_variance)),
        "preconditioner": _named(forms.scales),
        "slow_drift": _named(result.frozen_slow_drift),
        "second_moments": _named(dict(zip(result.moment_symbols, result.second_moments, strict=True))),
        "equilibrium": {"none": rest} if isinstance(rest, str) else _named(rest),
        "potential": {
            **({"none": found} if isinstance(found, str) else {"formula": str(found)}),
            "leading": None if of.order.symbol is None else str(of.order.symbol),
        },
    }


@data.register
def _(result: KineticResult) -> dict[str, Any]:
    return {
        **_common(result),
        "problem": repr(result.problem),
        "mode": result.mode,
        "coordinates": [str(c) for c in result.coordinates],
        "slow_state": [str(s) for s in result.slow_state],
        "drift": _entries(result.drift),
        "diffusion": _rows(result.diffusion),
        "variance": _rows(result.variance),
    }


def _named(values: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in values.items()}


def _common(result: Any) -> dict[str, Any]:
    order = result.order.symbol
    return {
        "rule": result.rule.name,
        "hyperparameters": list(result.rule.hyperparameters),
        "fixed": {n: str(v) for n, v in result.rule.fixed.items()},
        "source": result.rule.text,
        "time": result.time,
        "leading": None if order is None else str(order),
        "conditions": [
            {"kind": c.kind, "statement": c.statement, "inequality": None if c.inequality is None else str(c.inequality)}
            for c in result.conditions
        ],
        "conventions": result.conventions.splitlines(),
    }


def _powers(side: Any) -> list[dict[str, Any]]:
    return [{"left": a, "right": b, "coefficient": str(c)} for (a, b), c in side.items()]


def _entries(column: sp.Matrix) -> list[str]:
    return [str(x) for x in column]


def _rows(matrix: sp.Matrix) -> list[list[str]]:
    return [[str(x) for x in row] for row in matrix.tolist()]


def _potential(make: Any) -> dict[str, str]:
    try:
        return {"formula": str(make())}
    except NoPotential as error:
        return {"none": str(error)}


def report_data(report: Any) -> dict[str, Any]:
    """A validation report: every comparison, the curves, what is neglected, the provenance."""

    def row(r: Any) -> dict[str, Any]:
        return {
            "quantity": r.quantity, "theory": r.theory, "simulation": r.simulation, "error": r.error, "z": float(r.z), "passed": r.passed,
        }  # fmt: skip

    return {
        "passed": report.passed,
        "rows": [row(r) for r in report.rows],
        "steps": report.steps.tolist(),
        "coordinates": list(report.coordinates),
        "theory": report.theory.tolist(),
        "simulation": report.simulation.tolist(),
        "error": report.error.tolist(),
        "sizes": dict(report.sizes),
        "provenance": {k: dict(v) if hasattr(v, "items") else v for k, v in report.provenance.items()},
    }
