"""Operations of every kernel and sizes of every linear solve: the costs that do not depend on the machine."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from workloads import WORKLOADS, adam

import quasistatic as qs
from quasistatic.algebra import equations
from quasistatic.numeric.unfold import unfold

_OPERATORS = {
    ast.Add: "add", ast.Sub: "add", ast.USub: "add", ast.Mult: "multiply", ast.Div: "divide", ast.Pow: "power",
}  # fmt: skip


def kernel_counts(source: str) -> dict[str, dict[str, int]]:
    """Operations of a lane kernel: "once", "per step" and "per trajectory and step".

    The last are those of the innermost loop over lanes that stores the state; the generator's own loops, which are the same for
    every rule, are left out, and so is the arithmetic of indices.
    """
    function = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == "advance")
    steps = next(n for n in function.body if isinstance(n, ast.For))
    lanes = [n for n in steps.body if isinstance(n, ast.For)][-1]
    once = [n for n in function.body if n is not steps]
    per_step = [n for n in steps.body if not isinstance(n, (ast.For, ast.If))]
    parts = {"once": once, "per step": per_step, "per trajectory and step": lanes.body}
    return {name: dict(sorted(_operations(body).items())) for name, body in parts.items()}


def _operations(body: list[ast.stmt]) -> Counter[str]:
    found: Counter[str] = Counter()
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Subscript):  # addresses are constants of the compiled loop
            continue
        if isinstance(node, (ast.BinOp, ast.UnaryOp)) and type(node.op) in _OPERATORS:
            negative = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
            found[_OPERATORS[type(node.op)]] += not negative
        elif isinstance(node, ast.Call):
            found[ast.unparse(node.func).removeprefix("math.")] += 1
        elif isinstance(node, (ast.Compare, ast.IfExp)):
            found["choice"] += 1
        todo += ast.iter_child_nodes(node)
    return +found


def kernels() -> dict[str, dict[str, dict[str, int]]]:
    """Label to operations for every rule of the zoo on every problem of the zoo, and W1-W4."""
    maps = {f"{r} on {p}": (rule, make()) for r, rule in qs.zoo.RULES.items() for p, make in qs.zoo.PROBLEMS.items()}
    maps["Adam of W3"] = (adam, WORKLOADS["W3"].problem)
    maps["W4"] = (WORKLOADS["W4"].rule, WORKLOADS["W4"].problem)
    return {label: kernel_counts(unfold(rule, problem).lane_source) for label, (rule, problem) in maps.items()}


@contextmanager
def recorded_solves() -> Iterator[list[str]]:
    """The sizes of all linear solves done inside, in order: "field 3x3, 1 right" and "ring 2x2, 2 right"."""
    seen: list[str] = []

    def watch(kind: str, original: Any) -> Any:
        def solve(A: Any, B: Any) -> Any:
            seen.append(f"{kind} {A.shape[0]}x{A.shape[1]}, {B.shape[1]} right")
            return original(A, B)

        return solve

    with pytest.MonkeyPatch.context() as patch:
        for name, kind in (("solve_field", "field"), ("solve", "ring")):
            original = getattr(equations, name)
            _replace_everywhere(patch, original, watch(kind, original))
        yield seen


def _replace_everywhere(patch: pytest.MonkeyPatch, original: Any, replacement: Any) -> None:
    """In every module of the package that has imported the function, under whatever name."""
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith("quasistatic"):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    patch.setattr(module, attribute, replacement)


def solves() -> dict[str, dict[str, int]]:
    """Label to how often a linear system of which size is solved, for laws and for slow dynamics on the valley."""
    found = {}
    for name, rule in qs.zoo.RULES.items():
        for label, arguments in ((f"law of {name}", (rule,)), (f"{name} on valley", (rule, qs.zoo.valley()))):
            with recorded_solves() as seen:
                result = qs.derive(*arguments)
                if len(arguments) == 1:
                    _ = result.kernel, result.gain
                else:
                    _ = result.drift, result.diffusion, result.covariance
            found[label] = dict(sorted(Counter(seen).items()))
    return found
