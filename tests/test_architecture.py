"""What may import what, and the house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quasistatic as qs

ROOT = Path(qs.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

#: Package or module to what it must not import; the clauses of the import-linter contracts, checked without import-linter.
FORBIDDEN = {
    "algebra": {"model", "derivation"},
    "model": {"derivation", "numeric", "show", "validate", "dynamics"},
    "derivation": {"numeric", "show", "validate", "zoo", "dynamics"},
    "numeric": {"show", "validate", "dynamics"},
    "show": {"numeric"},
    "validate": {"dynamics"},
    "sweeps": {"dynamics"},
    "zoo": {"algebra", "derivation", "numeric", "show", "parse", "validate", "dynamics"},
}
ENTRY_POINTS = {"studies", "cli"}
MAY_IMPORT_ENTRY_POINTS = {"studies", "cli", "__main__"}
OPTIMIZERS = (
    "heavy ball", "nesterov", "sgd", "ema momentum", "adam", "adamw", "amsgrad", "adagrad", "adai", "rmsprop", "lion", "signsgd",
    "signum", "shampoo", "muon", "polyak",
)  # fmt: skip


def part(path: Path) -> str:
    """The package or module directly under quasistatic that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Parts of quasistatic that a module imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{a.name}" for a in node.names]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("quasistatic."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_forbidden_import(path: Path) -> None:
    here = part(path)
    forbidden = FORBIDDEN.get(here, set()) | (set() if here in MAY_IMPORT_ENTRY_POINTS else ENTRY_POINTS)
    found = set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found & forbidden


@pytest.mark.skipif(not (ROOT.parent / "pyproject.toml").exists(), reason="the contracts are in the source tree")
def test_import_linter_contracts_hold() -> None:
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    if linter is None:
        pytest.skip("import-linter is not installed (the dev extra)")
    run = subprocess.run([linter, "--no-cache", "--no-logo"], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Names of the called functions: the bare name, or ``sp.name`` for SymPy's and ``.name`` for methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            f = node.func
            if isinstance(f, ast.Name):
                yield f.id, node
            elif isinstance(f, ast.Attribute):
                module = isinstance(f.value, ast.Name) and f.value.id in ("sp", "sympy")
                yield f"sp.{f.attr}" if module else f".{f.attr}", node


def complaints(tree: ast.AST, may_print: bool) -> list[str]:
    """House rules 1, 6 and 7: calls that hang, execute text or print."""
    found = []
    for name, node in called(tree):
        plain = name.removeprefix("sp.").removeprefix(".")
        if name in ("eval", "exec", "compile", "__import__") or (name == "print" and not may_print):
            found.append(f"line {node.lineno}: {name}()")
        if plain in ("simplify", "nsimplify", "parse_expr") or name == "sp.solve":
            found.append(f"line {node.lineno}: {name}()")
        if plain == "sympify":
            strict = next((k.value for k in node.keywords if k.arg == "strict"), None)
            if not (isinstance(strict, ast.Constant) and strict.value is True):
                found.append(f"line {node.lineno}: {name}() without strict=True")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sympy"):
            found.extend(
                f"line {node.lineno}: from sympy import {a.name}" for a in node.names if a.name in ("solve", "simplify", "sympify")
            )
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_hangs_executes_or_prints(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not complaints(tree, may_print=part(path) == "cli")


def test_complaints_are_found() -> None:
    text = "sp.solve(a)\nsimplify(a)\nb.simplify()\nsp.sympify(a)\nsp.sympify(a, strict=True)\neval(a)\nprint(a)\nsolve(a)\n"
    assert [c.split(":")[0] for c in complaints(ast.parse(text), may_print=False)] == [f"line {n}" for n in (1, 2, 3, 4, 6, 7)]


@pytest.mark.parametrize("path", sorted((ROOT / "derivation").rglob("*.py")), ids=lambda p: p.name)
def test_the_derivation_knows_no_optimizer(path: Path) -> None:
    """Laws come out of rules, they are not typed in: not even a comment there names an optimizer."""
    names = {n.replace("_", " ") for n in (*qs.zoo.RULES, *OPTIMIZERS)}
    pattern = r"(?<![A-Za-z0-9])(" + "|".join(n.replace(" ", "[ _-]?") for n in sorted(names)) + r")(?![A-Za-z0-9])"
    found = [m.group() for m in re.finditer(pattern, path.read_text(encoding="utf-8"), flags=re.IGNORECASE)]
    assert not found


def test_every_module_says_what_it_is() -> None:
    assert not [str(p) for p in FILES if p.read_text(encoding="utf-8") and not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]


def test_public_names_are_documented_and_exist() -> None:
    assert sorted(qs.__all__) == qs.__all__
    for name in qs.__all__:
        assert getattr(qs, name).__doc__, name


@pytest.mark.parametrize("module", ["quasistatic", "quasistatic.cli"])
def test_importing_is_light(module: str) -> None:
    """Deriving needs SymPy only: compilers and pictures are loaded when something is compiled or drawn."""
    code = f"import sys, {module}; print(*sorted({{'numba', 'matplotlib', 'scipy', 'rich.progress'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
