"""Saving results and reports as JSON, and loading them without executing anything.

A result is kept as what it was derived from (the rule's record and source, the problem, the options) and derived again
when it is looked at; a report or an ensemble is kept with its numbers. Expressions are trees of a few known node types.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef

from quasistatic.derivation.reduction import Order
from quasistatic.errors import OutputError, ParseError
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise, Noise, SumNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Query, Rule, Scaling, State, Trace
from quasistatic.symbols import BlockMean, Mean

FORMAT = 1
_DEEPEST = 100

#: Node types that may stand in a file; nothing else is ever built from one.
_NODES: Mapping[str, Callable[..., sp.Basic]] = {
    "Add": sp.Add, "Mul": sp.Mul, "Pow": sp.Pow, "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "exp": sp.exp, "log": sp.log,
    "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh, "atan": sp.atan, "Abs": sp.Abs, "sign": sp.sign, "Max": sp.Max, "Min": sp.Min,
    "Mean": Mean, "BlockMean": BlockMean,
}  # fmt: skip
_NOISES: Mapping[str, type[Noise]] = {c.__name__: c for c in (HessianNoise, IsotropicNoise, CovarianceNoise, LabelNoise)}


# -- expressions -------------------------------------------------------------------------------------------------------


def encode(e: Any) -> Any:
    """An expression as nested lists: ["Add", ...], ["Symbol", name, assumptions], numbers as texts."""
    if isinstance(e, sp.Symbol):
        return ["Symbol", e.name, _assumptions(e)]
    if isinstance(e, sp.Rational):
        return ["Rational", str(e)]
    if isinstance(e, sp.Float):
        return ["Float", str(e)]
    if e is sp.pi:
        return ["pi"]
    if isinstance(e, AppliedUndef):
        return ["Undefined", type(e).__name__, {k: v for k, v in type(e)._kwargs.items() if isinstance(v, bool)}, *map(encode, e.args)]
    name = type(e).__name__
    if name not in _NODES:
        raise OutputError(f"{e} ({name}) cannot be saved: only arithmetic and {', '.join(n for n in _NODES if n[0].islower())} can.")
    return [name, *map(encode, e.args)]


def _assumptions(symbol: sp.Symbol) -> dict[str, bool]:
    return {k: bool(v) for k, v in symbol._assumptions_orig.items() if v is not None}


def decode(node: Any, depth: int = 0) -> sp.Expr:
    """The expression of nested lists; raises ParseError for anything but the known nodes."""
    if depth > _DEEPEST or not isinstance(node, list) or not node or not isinstance(node[0], str):
        raise ParseError("not the tree of an expression (too deep, or not a list that starts with a name)")
    kind, *args = node
    try:
        if kind == "Symbol":
            return sp.Symbol(str(args[0]), **_booleans(args[1]))
        if kind == "Rational":
            return sp.Rational(str(args[0]))
        if kind == "Float":
            return sp.Rational(str(args[0]))
        if kind == "pi":
            return sp.pi
        if kind == "Undefined":
            return sp.Function(str(args[0]), **_booleans(args[1]))(*(decode(a, depth + 1) for a in args[2:]))
        if kind in _NODES:
            return _NODES[kind](*(decode(a, depth + 1) for a in args))
    except (TypeError, ValueError, IndexError) as error:
        raise ParseError(f"not the tree of an expression: {str(node)[:80]} ({error})") from None
    raise ParseError(f"unknown node {kind!r} in a saved expression")


def _booleans(value: Any) -> dict[str, bool]:
    if not isinstance(value, dict) or not all(isinstance(v, bool) and k.isidentifier() for k, v in value.items()):
        raise ParseError(f"not the assumptions of a symbol: {str(value)[:80]}")
    return value


def _mapping(m: Mapping[Any, Any]) -> list[Any]:
    return [[encode(k), encode(v)] for k, v in m.items()]


def _unmapping(pairs: Any) -> dict[Any, Any]:
    return {decode(k): decode(v) for k, v in pairs}


# -- rules and problems ------------------------------------------------------------------------------------------------


def _rule(rule: Rule) -> dict[str, Any]:
    trace, scaling = rule.trace, rule.scaling
    return {
        "name": rule.name,
        "parameter": encode(trace.parameter),
        "queries": [[q.name, encode(q.symbol), encode(q.point), q.sample] for q in trace.queries],
        "states": [[s.name, encode(s.symbol), s.shape, s.slow, encode(s.initial)] for s in trace.states],
        "hyperparameters": [[n, encode(s)] for n, s in trace.hyperparameters.items()],
        "iteration": None if trace.iteration is None else encode(trace.iteration),
        "updates": [encode(u) for u in trace.updates],
        "fixed": {n: encode(v) for n, v in rule.fixed.items()},
        "scaling": None if scaling is None else [encode(scaling.e), {n: encode(v) for n, v in scaling.values.items()}, encode(scaling.dt)],
        "source": rule.source, "doc": rule.doc, "examples": dict(rule.examples),
    }  # fmt: skip


def _unrule(data: Mapping[str, Any]) -> Rule:
    trace = Trace(
        decode(data["parameter"]),
        tuple(Query(n, decode(s), decode(p), sample) for n, s, p, sample in data["queries"]),
        tuple(State(n, decode(s), shape, slow, decode(i)) for n, s, shape, slow, i in data["states"]),
        MappingProxyType({n: decode(s) for n, s in data["hyperparameters"]}),
        None if data["iteration"] is None else decode(data["iteration"]),
        tuple(decode(u) for u in data["updates"]),
    )
    scaling = data["scaling"]
    scaled = None
    if scaling is not None:
        scaled = Scaling(decode(scaling[0]), MappingProxyType({n: decode(v) for n, v in scaling[1].items()}), decode(scaling[2]))
    fixed = MappingProxyType({n: decode(v) for n, v in data["fixed"].items()})
    return Rule(data["name"], trace, fixed, scaled, data["source"], data["doc"], MappingProxyType(dict(data["examples"])))


def _noise(noise: Noise | None) -> Any:
    if noise is None:
        return None
    if isinstance(noise, SumNoise):
        return ["SumNoise", [_noise(p) for p in noise.parts]]
    values: dict[str, Any] = {}
    for f in fields(noise):  # type: ignore[arg-type]
        value = getattr(noise, f.name)
        if isinstance(value, sp.MatrixBase):
            values[f.name] = {"matrix": [[encode(x) for x in row] for row in value.tolist()]}
        else:
            values[f.name] = value if value is None or isinstance(value, (bool, int)) else encode(value)
    return [type(noise).__name__, values]


def _unnoise(data: Any) -> Noise | None:
    if data is None:
        return None
    name, values = data
    if name == "SumNoise":
        return SumNoise(tuple(p for p in map(_unnoise, values) if p is not None))
    if name not in _NOISES:
        raise ParseError(f"unknown noise model {name!r} in a saved problem")
    built: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            built[key] = sp.ImmutableMatrix([[decode(x) for x in row] for row in value["matrix"]])
        else:
            built[key] = decode(value) if isinstance(value, list) else value
    return _NOISES[name](**built)


def _problem(problem: Problem) -> dict[str, Any]:
    given = problem.__reduce__()[1][3]
    coordinates = given["coordinates"]
    residuals = problem.residuals
    return {
        "loss": encode(problem.loss), "minima": _mapping(problem.minima) if problem.has_chart else None, "noise": _noise(problem.noise),
        "parameters": [encode(p) for p in problem.parameters],
        "coordinates": None if coordinates is None else _mapping(coordinates),
        "blocks": [[encode(p) for p in block] for block in problem.blocks],
        "residuals": None if residuals is None else [encode(r) for r in residuals],
        "scale": encode(problem.scale), "name": problem.name, "examples": dict(problem.examples),
    }  # fmt: skip


def _unproblem(data: Mapping[str, Any]) -> Problem:
    residuals = data["residuals"]
    return Problem(
        decode(data["loss"]), None if data["minima"] is None else _unmapping(data["minima"]), _unnoise(data["noise"]),
        parameters=[decode(p) for p in data["parameters"]],
        coordinates=None if data["coordinates"] is None else _unmapping(data["coordinates"]),
        blocks=[[decode(p) for p in block] for block in data["blocks"]], name=data["name"], examples=data["examples"],
        _residuals=None if residuals is None else tuple(decode(r) for r in residuals), _scale=decode(data["scale"]),
    )  # fmt: skip


# -- files -------------------------------------------------------------------------------------------------------------


def _numbers(value: Any) -> Any:
    """Arrays, tuples and frozen mappings of numbers and texts as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, Mapping):
        return {str(k): _numbers(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_numbers(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _unnumbers(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        if value["dtype"] not in ("float64", "int64", "bool"):
            raise ParseError(f"unknown type of numbers {value['dtype']!r} in a saved file")
        return np.array(value["array"], dtype=value["dtype"])
    if isinstance(value, dict):
        return {k: _unnumbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_unnumbers(v) for v in value]
    return value


def save(thing: Any, path: str | Path) -> None:
    """Write a result, a law, a report or an ensemble to a JSON file.

    Raises
    ------
    OutputError
        If the file cannot be written (then nothing is), or the thing is of another kind.
    """
    write_text(Path(path), json.dumps({"quasistatic": FORMAT, **_packed(thing)}, indent=1))


def _packed(thing: Any) -> dict[str, Any]:
    kind = type(thing).__name__
    if kind == "SlowDynamics":
        data = {"rule": _rule(thing.rule), "problem": _problem(thing.problem), "time": thing.time_kind, "route": thing.route}
        return {"kind": kind, "leading": _name(thing.order), **data}
    if kind == "Law":
        return {"kind": kind, "rule": _rule(thing.rule), "time": thing.time_kind, "leading": _name(thing.order)}
    if kind == "Report":
        numbers = {f.name: _numbers(getattr(thing, f.name)) for f in fields(thing) if f.name not in ("rows", "informative")}
        rows = {n: [[r.quantity, r.theory, r.simulation, r.error, r.unit] for r in getattr(thing, n)] for n in ("rows", "informative")}
        return {"kind": kind, **numbers, **rows}
    if kind in ("Ensemble", "ArrayEnsemble"):
        return {"kind": kind, **{f.name: _numbers(getattr(thing, f.name)) for f in fields(thing)}}
    raise OutputError(f"{kind} cannot be saved; results, laws, reports and ensembles can.")


def _name(order: Order) -> str | None:
    return None if order.symbol is None else str(order.symbol.name)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from None


def load(path: str | Path, makers: Mapping[str, Callable[..., Any]]) -> Any:
    """What ``save`` wrote; a result is derived again when it is looked at. Nothing in the file is ever executed.

    Parameters
    ----------
    makers:
        The classes SlowDynamics, Law, Report, Row and the ensembles by name; they live in layers above this one.

    Raises
    ------
    ParseError
        If the file is not one of ours, is damaged, or was written by a newer version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ParseError(f"cannot read {path}: {error.strerror or error}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError(f"{path} is not a file that quasistatic saved, or it is damaged.") from None
    if not isinstance(data, dict) or "quasistatic" not in data:
        raise ParseError(f"{path} is not a file that quasistatic saved.")
    if data["quasistatic"] != FORMAT:
        raise ParseError(f"{path} has the format {data['quasistatic']!r}; this version reads {FORMAT}.")
    try:
        return _unpacked(data, makers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ParseError(f"{path} is damaged: {type(error).__name__}: {error}.") from None


def _unpacked(data: dict[str, Any], makers: Mapping[str, Callable[..., Any]]) -> Any:
    kind = data["kind"]
    if kind in ("SlowDynamics", "Law"):
        rule = _unrule(data["rule"])
        order = Order(None if data["leading"] is None else rule.trace.hyperparameters[data["leading"]])
        if kind == "Law":
            return makers[kind](rule, data["time"], order)
        return makers[kind](rule, _unproblem(data["problem"]), data["time"], order, data["route"])
    numbers = {k: _unnumbers(v) for k, v in data.items() if k not in ("quasistatic", "kind")}
    if kind == "Report":
        for name in ("rows", "informative"):
            numbers[name] = tuple(makers["Row"](*r) for r in numbers[name])
        return makers[kind](**{**numbers, "coordinates": tuple(numbers["coordinates"])})
    if kind == "Ensemble":
        return makers[kind](**{**numbers, "parameters": tuple(numbers["parameters"])})
    if kind == "ArrayEnsemble":
        return makers[kind](**{**numbers, "shapes": {k: tuple(v) for k, v in numbers["shapes"].items()}})
    raise ParseError(f"unknown kind {kind!r} of saved thing")
