"""Operations of every kernel and sizes of every linear solve: the costs that do not depend on the machine."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from workloads import WORKLOADS, factorization

import quasistatic as qs
from quasistatic.algebra import equations
from quasistatic.numeric.emit import emit, local_names
from quasistatic.numeric.kernel import StochasticMap, lane_program
from quasistatic.numeric.unfold import unfold

#: Differences and signs are additions.
_OPERATORS = {
    ast.Add: "add", ast.Sub: "add", ast.USub: "add", ast.Mult: "multiply", ast.Div: "divide", ast.Pow: "power",
}  # fmt: skip


def kernel_counts(step: StochasticMap) -> dict[str, dict[str, int]]:
    """Operations of the straight-line program of one iteration, after common subexpressions: "once", "per step" and "per trajectory".

    Random numbers, which cost the same for every rule, are not among them.
    """
    known = dict.fromkeys((*step.variables, *step.normals), 2)
    if step.iteration is not None:
        known[step.iteration] = 1
    program = emit(step.updates, local_names([*known, *step.all_arguments]), step.assignments, known)
    stages = [list(lines) for lines in program.stages]
    stages[-1] += program.outputs
    return {part: operations("\n".join(lines)) for part, lines in zip(("once", "per step", "per trajectory"), stages, strict=True)}


def operations(source: str) -> dict[str, int]:
    """Kind of operation to how often straight-line code does it; a negative number is no negation."""
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.BinOp, ast.UnaryOp)) and type(node.op) in _OPERATORS:
            negative = isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)
            found[_OPERATORS[type(node.op)]] += not negative
        elif isinstance(node, ast.Call):
            found[ast.unparse(node.func).removeprefix("math.")] += 1
        elif isinstance(node, (ast.Compare, ast.IfExp)):
            found["choice"] += 1
    return dict(sorted((+found).items()))


def kernels() -> dict[str, dict[str, dict[str, int]]]:
    """Label to operations for every rule of the zoo on every problem of the zoo, and W3 and W4."""
    problems = {p: make() for p, make in qs.zoo.PROBLEMS.items()}
    maps = {f"{r} on {p}": (rule, problem) for r, rule in qs.zoo.RULES.items() for p, problem in problems.items()}
    maps["W3"] = (WORKLOADS["W3"].rule, WORKLOADS["W3"].problem)
    maps["W4"] = (WORKLOADS["W4"].rule, WORKLOADS["W4"].problem)
    return {label: kernel_counts(unfold(rule, problem)) for label, (rule, problem) in maps.items()}


def loops() -> dict[str, dict[str, int]]:
    """Label to operations per trajectory, loops and lines of the source of maps that are too large for straight-line code."""
    maps = {f"sgd on {m}x{m}x{m}": unfold(qs.zoo.sgd, factorization(m)) for m in (8, 12)}
    maps["adam on 8x8x8"] = unfold(qs.zoo.adam, factorization(8))
    programs = {label: lane_program(step) for label, step in maps.items()}
    return {
        label: {"operations": p.operations, "loops": p.source.count("store_row("), "lines": p.source.count("\n")}
        for label, p in programs.items()
    }


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
    for name, module in list(sys.modules.items()):
        if name.startswith("quasistatic"):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    patch.setattr(module, attribute, replacement)


def solves() -> dict[str, dict[str, int]]:
    """Label to how often a linear system of which size is solved, for laws and for slow dynamics; {} where it is refused or needs none."""
    cases = {f"law of {name}": (rule,) for name, rule in qs.zoo.RULES.items()}
    cases |= {f"{name} on valley": (rule, qs.zoo.valley()) for name, rule in qs.zoo.RULES.items()}
    cases["heavy_ball on curved_valley"] = (qs.zoo.heavy_ball, qs.zoo.curved_valley())
    cases["adam on rotated_valley"] = (qs.zoo.adam, qs.zoo.rotated_valley())
    return {label: _solves(*arguments) for label, arguments in cases.items()}


def _solves(*arguments: Any) -> dict[str, int]:
    with recorded_solves() as seen:
        try:
            result = qs.derive(*arguments)
            for name in ("kernel", "gain") if len(arguments) == 1 else ("drift", "diffusion", "covariance"):
                getattr(result, name)
        except qs.QuasistaticError:
            return {}
    return dict(sorted(Counter(seen).items()))
