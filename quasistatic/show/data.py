"""Results as plain data: texts of expressions, ready for JSON."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import sympy as sp

from quasistatic.derivation.law import LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.errors import NoPotential


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
