"""The numbers that a user gives: complete, known, finite and of a sign that makes sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic.errors import HyperparameterError, QuasistaticError, StartError, suggestion
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.symbols import exact

Progress = Callable[[int, int], None]
Array = npt.NDArray[np.float64]


def resolve(rule: Rule, problem: Problem, given: Mapping[str, Any]) -> dict[str, float]:
    """Name to number of every free hyperparameter of the rule and every constant of the problem, in this order.

    Raises
    ------
    HyperparameterError
        For names that are missing, unknown, fixed in the rule, or used by the rule and the problem; for values that are
        not finite numbers, negative where the symbol is not, or weights of an average outside [0, 1).
    """
    _refuse_clash(rule, problem, rule.hyperparameters)
    return resolve_names(rule, problem.constants, [p.name for p in problem.parameters], given)


def resolve_names(rule: Rule, constants: Iterable[sp.Symbol], parameters: Iterable[str], given: Mapping[str, Any]) -> dict[str, float]:
    """Name to number of the rule's free hyperparameters and of ``constants``; ``parameters`` are names that are neither."""
    symbols = {**rule.hyperparameters, **{s.name: s for s in constants}}
    for name in given:
        if name not in symbols:
            raise HyperparameterError(_unknown(rule, parameters, name, symbols))
    missing = [n for n in symbols if n not in given]
    if missing:
        example = ", ".join(f"{n}=..." for n in missing)
        raise HyperparameterError(f"{rule.name}: no value for {', '.join(missing)}; add {example}.")
    values = {n: number_of(n, s, given[n]) for n, s in symbols.items()}
    for name in rule.hyperparameters:
        rule.trace.require_weight(rule.name, name, values[name])
    return values


def _refuse_clash(rule: Rule, problem: Problem, free: Mapping[str, sp.Symbol]) -> None:
    used = [*problem.parameters, *problem.coordinates, *problem.constants]
    for symbol in used:
        if symbol.name in free:
            raise HyperparameterError(
                f"the name {symbol.name} is a hyperparameter of the rule {rule.name} and a symbol of the problem"
                f" {problem.name or problem.loss}: rename one of them."
            )


def _unknown(rule: Rule, parameters: Iterable[str], name: str, known: Mapping[str, sp.Symbol]) -> str:
    if name in rule.fixed:
        return f"{rule.name}: {name} is fixed at {rule.fixed[name]}; use {rule.name}.free({name!r}) to give it a value here."
    if name in parameters:
        return f"{name} is a parameter of the problem, not a hyperparameter: its start value goes into start={{{name}: ...}}."
    listed = ", ".join(known) or "none"
    return f"{rule.name}: {name} is neither a hyperparameter of the rule nor a constant of the problem ({listed}).{suggestion(name, known)}"


def number_of(name: str, symbol: sp.Symbol, value: Any) -> float:
    """A finite float, not negative where the symbol is not; HyperparameterError otherwise."""
    number = exact(value, name)
    if not number.is_number or not number.is_real:
        raise HyperparameterError(f"{name}: {value} is not a real number.")
    result = float(number)
    if not math.isfinite(result):
        raise HyperparameterError(f"{name}: {value} does not fit into a float64.")
    if result < 0 and symbol.is_nonnegative:
        raise HyperparameterError(f"{name} = {result:g} is negative; it must be at least 0.")
    return result


def point(given: Any, symbols: Iterable[sp.Symbol], what: str) -> Array:
    """The numbers of ``symbols`` from a mapping of symbols or names, shape (len(symbols),).

    Raises
    ------
    StartError
        Naming the ``what`` (parameter, coordinate) that is missing, unknown or not finite.
    """
    names = [s.name for s in symbols]
    if not isinstance(given, Mapping):
        raise StartError(f"start is a mapping of every {what} to a number, {{{', '.join(f'{n}: ...' for n in names)}}}, not {given!r}.")
    values: dict[str, float] = {}
    for key, value in given.items():
        name = str(key)
        if name not in names:
            raise StartError(f"start: {name} is not a {what} ({', '.join(names)}).{suggestion(name, names)}")
        if name in values:
            raise StartError(f"start: {name} is given twice.")
        values[name] = finite(value, f"start: {name}")
    missing = [n for n in names if n not in values]
    if missing:
        raise StartError(f"start: no value for {', '.join(missing)}; every {what} needs one ({', '.join(names)}).")
    return np.array([values[n] for n in names])


def finite(value: Any, what: str) -> float:
    """A finite real number; StartError otherwise."""
    try:
        found = float(exact(value, what))
    except (HyperparameterError, TypeError):
        raise StartError(f"{what} = {value!r} is not a finite real number.") from None
    if not math.isfinite(found):
        raise StartError(f"{what} = {value!r} does not fit into a float64.")
    return found


def whole(value: Any, what: str, least: int = 1) -> int:
    """A whole number of at least ``least``; QuasistaticError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise QuasistaticError(f"{what} = {value!r} is not a whole number (an int).")
    if value < least:
        raise QuasistaticError(f"{what} = {value} must be at least {least}.")
    return int(value)


def seed_number(value: Any) -> int:
    """A seed: a whole number from 0 to 2**64 - 1."""
    seed = whole(value, "seed", 0)
    if seed >= 2**64:
        raise QuasistaticError(f"seed = {seed} must be less than 2**64.")
    return seed
