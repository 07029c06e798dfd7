"""Tracing: a plain function of one parameter block is run once with symbols, and becomes the record of a rule."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

import sympy as sp

from quasistatic.errors import HyperparameterError, ParseError, RuleError, suggestion
from quasistatic.model.rule import Numbers, Query, Rule, Scaling, State, Trace
from quasistatic.parse import parse_expression
from quasistatic.symbols import RULE_FUNCTION_NAMES, RULE_FUNCTIONS, exact, positive, rationalize

#: Options of ``simulate`` and ``validate``, where hyperparameters are keyword arguments too.
RESERVED = (
    "rule", "problem", "start", "initial_state", "steps", "trajectories", "seed", "record", "threads", "progress", "extrapolate", "time",
    "result", "keep", "observe", "first_passage",
    "escape", "generator",
)  # fmt: skip


class _Traced(sp.Symbol):  # type: ignore[misc]
    """A symbol that a rule may compute with but neither branch on nor call; replaced by a plain symbol after tracing."""

    __slots__ = ()

    def __bool__(self) -> bool:
        # SymPy itself asks whether a symbol is None or zero this way; only the user's code must not
        if sys._getframe(1).f_globals.get("__name__", "").partition(".")[0] == "sympy":
            return True
        raise _Branch(self.name)

    def __call__(self, *args: Any) -> Any:
        raise _Called(self.name)


class _Branch(Exception):
    pass


class _Called(Exception):
    pass


@overload
def optimizer(function: Callable[..., Any], /) -> Rule: ...
@overload
def optimizer(
    *,
    slow_states: Sequence[str] = ...,
    initial_state: Mapping[str, Numbers] | None = ...,
    scaling: Mapping[str, str] | None = ...,
    dt: str | None = ...,
    examples: Mapping[str, float] | None = ...,
) -> Callable[[Callable[..., Any]], Rule]: ...


def optimizer(
    function: Callable[..., Any] | None = None,
    /,
    *,
    slow_states: Sequence[str] = (),
    initial_state: Mapping[str, Numbers] | None = None,
    scaling: Mapping[str, str] | None = None,
    dt: str | None = None,
    examples: Mapping[str, float] | None = None,
) -> Any:
    """Declare an optimizer: a decorator for a function of one parameter block, elementwise.

    The arguments are the parameter, its stochastic gradient, then the states; hyperparameters are keyword-only, and a
    keyword-only ``t`` is the iteration number from 1. The function returns the new parameter and the new states in the
    same order. A default in the signature counts as fixed until ``rule.free(name)``.

    Parameters
    ----------
    slow_states:
        Names of states that move as slowly as the point on the manifold.
    initial_state:
        Starting values of states; 0 otherwise.
    scaling, dt:
        The papers' scaling, for ``derive(..., time="continuous")``: names to expressions in a small ``e``, and the time
        of one iteration, e.g. ``scaling={"eta": "e**2", "mu": "1 - c*e", "m": "e*p"}, dt="eta"``.
    examples:
        Example values of the hyperparameters, used by demonstrations only.

    Raises
    ------
    RuleError
        If the function branches on a symbol, uses an unknown function, returns the wrong number of values, names its
        arguments wrongly, or needs the gradient elsewhere than at the current parameter.
    """

    def declare(f: Callable[..., Any]) -> Rule:
        return _trace(f, tuple(slow_states), dict(initial_state or {}), scaling, dt, dict(examples or {}))

    if function is None:
        return declare
    if not callable(function):
        raise RuleError(f"qs.optimizer decorates a function, not {function!r}.")
    return declare(function)


def _trace(
    f: Callable[..., Any],
    slow: tuple[str, ...],
    initial: dict[str, Numbers],
    scaling: Mapping[str, str] | None,
    dt: str | None,
    examples: dict[str, float],
) -> Rule:
    name = getattr(f, "__name__", "rule")
    positional, keywords, defaults = _signature(f, name)
    parameter, gradient, *state_names = positional
    source = _source(f)
    if source:
        _refuse_branches(source, name)
    uses_t = "t" in keywords
    hyper_names = [k for k in keywords if k != "t"]
    for group, given in (("slow_states", slow), ("initial_state", initial)):
        for s in given:
            if s not in state_names:
                raise RuleError(f"{name}: {group} names {s!r}, which is not a state.{suggestion(s, state_names)}")

    plain: dict[str, sp.Symbol] = {n: sp.Symbol(n, real=True) for n in positional}
    plain.update({n: positive(n) for n in hyper_names})
    iteration = sp.Symbol("t", positive=True, integer=True) if uses_t else None
    if iteration is not None:
        plain["t"] = iteration
    traced = {n: _Traced(n, **s.assumptions0) for n, s in plain.items()}
    outputs = _run(f, name, [traced[n] for n in positional], {k: traced[k] for k in keywords})
    if len(outputs) != 1 + len(state_names):
        hint = _keyword_hint(state_names)
        raise RuleError(
            f"{name} returns {len(outputs)} value(s), but it has 1 parameter and {len(state_names)} state(s)"
            f" ({', '.join(state_names) or 'none'}): return the new parameter, then the new states in the same order.{hint}"
        )
    back = {traced[n]: plain[n] for n in plain}
    updates = tuple(_checked(o, name, back) for o in outputs)
    states = tuple(
        State(n, plain[n], slow=n in slow, initial=exact(initial.get(n, 0), f"{name}: initial_state[{n!r}]")) for n in state_names
    )
    query = Query(gradient, plain[gradient], plain[parameter])
    hyper = MappingProxyType({n: plain[n] for n in hyper_names})
    trace = Trace(plain[parameter], (query,), states, hyper, iteration, updates)
    fixed = {k: exact(v, f"{name}: default of {k}") for k, v in defaults.items()}
    for k, number in fixed.items():
        trace.require_weight(name, k, number)
    for k in examples:
        if k not in hyper:
            raise RuleError(f"{name}: examples name {k!r}, which is not a hyperparameter.{suggestion(k, hyper)}")
    return Rule(
        name, trace, MappingProxyType(fixed), _scaling(scaling, dt, trace, name), source, inspect.getdoc(f) or "",
        MappingProxyType(examples), f,
    )  # fmt: skip


def _signature(f: Callable[..., Any], name: str) -> tuple[list[str], list[str], dict[str, Any]]:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        raise RuleError(f"{name}: its arguments cannot be read; write the rule as a plain function.") from None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise RuleError(f"{name}: name every argument; *args and **kwargs cannot be traced.")
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    order = "write def rule(z, g, state..., *, hyperparameter...): parameter, gradient, states; hyperparameters keyword-only"
    if len(positional) < 2:
        raise RuleError(f"{name} has {len(positional)} positional argument(s): {order}.")
    if positional[0] in ("g", "grad", "gradient") or positional[1] in ("z", "x", "w", "theta", "param", "parameter"):
        raise RuleError(
            f"{name}: the first argument is the parameter and the second its gradient, got ({', '.join(positional[:2])}): {order}."
        )
    if "t" in positional:
        raise RuleError(f"{name}: t is the iteration number and keyword-only: {order}.")
    taken = [k for k in keywords if k in RESERVED]
    if taken:
        raise RuleError(
            f"{name}: the hyperparameter {taken[0]} has the name of an option of simulate and validate; call it something else."
        )
    if {"lambda_i", "lambda_j"} & set(keywords):
        raise RuleError(f"{name}: lambda_i and lambda_j are the curvatures of a law and cannot name hyperparameters.")
    if "e" in keywords:
        raise RuleError(f"{name}: e is the small number of a scaling and cannot name a hyperparameter.")
    with_default = [p.name for p in parameters if p.name in positional and p.default is not p.empty]
    if with_default:
        raise RuleError(
            f"{name}: {', '.join(with_default)} is a state and has a default; start values go into"
            f" @qs.optimizer(initial_state=...), hyperparameters behind the *: {order}."
        )
    return positional, keywords, {p.name: p.default for p in parameters if p.name in keywords and p.default is not p.empty}


def _keyword_hint(states: Sequence[str]) -> str:
    usual = {"eta", "lr", "mu", "beta", "beta1", "beta2", "tau", "nu", "eps", "weight_decay", "momentum", "gamma", "alpha"}
    wrong = [s for s in states if s in usual]
    return f" Hyperparameters are keyword-only: put a * before {wrong[0]}." if wrong else ""


def _source(f: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(f))
    except (OSError, TypeError):
        return ""


def _refuse_branches(source: str, name: str) -> None:
    """A branch on an argument would silently trace one side: sums and products of symbols are always true."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda in the middle of a line
        return
    function = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)), None)
    if function is None:
        return
    for node in ast.walk(function):
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.BoolOp)):
            text = ast.unparse(node).splitlines()[0]
            raise RuleError(_branch_message(name, text))


def _branch_message(name: str, where: str) -> str:
    return (
        f"{name} branches ({where}): a rule is traced once with symbols, which have no truth value."
        " Use qs.maximum, qs.minimum, qs.clip or qs.sign, or write one rule for each case."
    )


def _run(f: Callable[..., Any], name: str, args: list[sp.Symbol], kwargs: dict[str, sp.Symbol]) -> tuple[Any, ...]:
    try:
        outputs = f(*args, **kwargs)
    except _Branch as error:
        raise RuleError(_branch_message(name, f"on {error}")) from None
    except _Called as error:
        raise RuleError(
            f"{name} needs the gradient at a point of its own ({error}(...)): not supported yet. The gradient is taken at the"
            " current parameter; with a look-ahead point as the parameter (as PyTorch's Nesterov does) one gradient is enough."
        ) from None
    except RuleError:
        raise
    except Exception as error:
        if "truth value" in str(error):
            raise RuleError(_branch_message(name, str(error))) from None
        where = _line_of(error, f)
        raise RuleError(
            f"{name} cannot be traced with symbols{where}: {type(error).__name__}: {error}."
            f" Inside a rule use arithmetic and {RULE_FUNCTION_NAMES}; functions of math and numpy take numbers only."
        ) from error
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _line_of(error: Exception, f: Callable[..., Any]) -> str:
    code = getattr(f, "__code__", None)
    tb, found = error.__traceback__, ""
    while tb is not None:
        if tb.tb_frame.f_code is code:
            found = f" (line {tb.tb_lineno - code.co_firstlineno + 1} of the function)"
        tb = tb.tb_next
    return found


def _checked(output: Any, name: str, back: dict[sp.Basic, sp.Basic]) -> sp.Expr:
    if not isinstance(output, sp.Expr):
        try:
            output = exact(output, f"{name}: a returned value")
        except HyperparameterError:
            raise RuleError(f"{name} returns {output!r}, which is not an expression of its arguments.") from None
    expression = rationalize(output.xreplace(back))
    unknown = expression.free_symbols - set(back.values())
    if unknown:
        raise RuleError(
            f"{name} uses {', '.join(sorted(map(str, unknown)))} in {expression}, which is not one of its arguments;"
            " make it a keyword-only hyperparameter."
        )
    for node in sp.preorder_traversal(expression):
        if isinstance(node, sp.Function) and not isinstance(node, RULE_FUNCTIONS):
            raise RuleError(f"{name} uses the unknown function {node.func.__name__} in {node}. Known: {RULE_FUNCTION_NAMES}.")
    if expression.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
        raise RuleError(f"{name} computes {expression}: it divides by zero or is not finite.")
    return expression


def _scaling(values: Mapping[str, str] | None, dt: str | None, trace: Trace, name: str) -> Scaling | None:
    if values is None and dt is None:
        return None
    if values is None or dt is None:
        raise RuleError(f"{name}: a scaling needs both scaling={{...}} and dt=...")
    e = sp.Symbol("e", positive=True)
    states = [s.name for s in trace.states]
    known = [*trace.hyperparameters, *states]
    found: dict[str, sp.Expr] = {}
    try:
        for key, text in values.items():
            if key not in known:
                raise RuleError(f"{name}: scaling names {key!r}, which is neither a hyperparameter nor a state.{suggestion(key, known)}")
            kind: Callable[[str], sp.Expr] = (lambda n: sp.Symbol(n, real=True)) if key in states else positive
            found[key] = parse_expression(text, {"e": e}, kind)
        step = parse_expression(dt, dict(trace.hyperparameters))
    except ParseError as error:
        raise RuleError(f"{name}: scaling: {error}") from None
    return Scaling(e, MappingProxyType(found), step)
