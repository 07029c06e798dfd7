"""Writes docs/api.md from the public docstrings: ``python docs/make_api.py``, or with ``--check`` says whether it is current."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import quasistatic as qs
from quasistatic.derivation.conditions import Condition
from quasistatic.derivation.law import ScalingRule
from quasistatic.derivation.reduction import Terms
from quasistatic.model.rule import Rule
from quasistatic.numeric.ensemble import Ensemble
from quasistatic.numeric.flow import Flow
from quasistatic.numeric.law import CompiledLaw
from quasistatic.numeric.simulate import simulate
from quasistatic.numeric.slow_sde import SlowEnsemble, SlowTrajectory
from quasistatic.validate import Report, Row, validate

TARGET = Path(__file__).with_name("api.md")

INTRO = """# API reference

Written by `docs/make_api.py` from the docstrings; do not edit. `import quasistatic as qs` is understood. How to read the
results: [when to trust it](when_to_trust_it.md), [conventions](conventions.md), [theory](theory.md).
"""

DECLARE = ("optimizer", "Rule", "Problem", "HessianNoise", "IsotropicNoise", "LabelNoise", "CovarianceNoise", "symbols", "function")
ACT = ("derive", "simulate", "assert_agrees", "sweep", "load")
RESULTS = ("SlowDynamics", "Law", "SweepTable")
INSIDE = ("sqrt", "exp", "log", "sign", "abs", "clip", "maximum", "minimum", "mean", "block_mean")

#: What the public functions return, and what their results hold.
RETURNED = (Flow, SlowTrajectory, SlowEnsemble, CompiledLaw, Ensemble, Report, Row, Condition, Terms, ScalingRule)

#: Classes that a user constructs; the others come out of functions.
CONSTRUCTED = ("Problem", "HessianNoise", "IsotropicNoise", "LabelNoise", "CovarianceNoise")

#: Thin functions of the facade to those that have the arguments.
DELEGATES: dict[Any, Callable[..., Any]] = {
    qs.simulate: simulate, qs.SlowDynamics.validate: validate, qs.assert_agrees: validate,
}  # fmt: skip


# -- docstrings --------------------------------------------------------------------------------------------------------


def prose(text: str) -> str:
    """Inline markup of a docstring as Markdown."""
    parts = re.split(r"(``.+?``|:\w+:`[^`]+`)", text)
    out = []
    for part in parts:
        if part.startswith("``"):
            out.append(f"`{part[2:-2].strip()}`")
        elif re.match(r":\w+:`", part):
            out.append("`" + part.split("`")[1].replace("quasistatic.", "qs.", 1) + "`")
        else:
            out.append(part.replace("<", "&lt;").replace("**", r"\*\*"))
    return "".join(out)


def markdown(doc: str | None) -> str:
    """A docstring with NumPy's sections as Markdown."""
    lines = inspect.cleandoc(doc or "").splitlines()
    out: list[str] = []
    in_section = False
    i = 0
    while i < len(lines):
        line = lines[i]
        if i + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[i + 1]):
            out += [f"*{line}*", ""]
            in_section = True
            i += 2
            continue
        following = lines[i + 1] if i + 1 < len(lines) else ""
        if in_section and line and not line.startswith(" ") and following.startswith(" "):
            j = i + 1
            while j < len(lines) and (lines[j].startswith(" ") or (not lines[j] and j + 1 < len(lines) and lines[j + 1].startswith(" "))):
                j += 1
            described = " ".join(part.strip() for part in lines[i + 1 : j] if part.strip())
            out.append(f"* {_term(line)}: {prose(described)}")
            i = j
            continue
        out.append(prose(line))
        i += 1
    return "\n".join(out).strip()


def _term(line: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in line.rstrip(":").split(","))


# -- signatures --------------------------------------------------------------------------------------------------------


def signature(function: Callable[..., Any], name: str, drop: tuple[str, ...] = ()) -> str:
    """``name(...)`` with annotations as they are written, without self and private arguments."""
    found = inspect.signature(function)
    dropped = ("self", "cls", *drop)
    parameters = [p for p in found.parameters.values() if p.name not in dropped and not p.name.startswith("_")]
    parts: list[str] = []
    keyword_only = False
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            keyword_only = True
        if p.kind is p.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
            keyword_only = True
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        text = prefix + p.name + (f": {_annotation(p.annotation)}" if p.annotation is not p.empty else "")
        if p.default is not p.empty:
            text += f" = {p.default!r}" if p.annotation is not p.empty else f"={p.default!r}"
        parts.append(text)
    result = "" if inspect.isclass(function) or found.return_annotation is found.empty else f" -> {_annotation(found.return_annotation)}"
    line = f"{name}({', '.join(parts)}){result}"
    return line if len(line) <= 110 else f"{name}(\n" + "".join(f"    {p},\n" for p in parts) + f"){result}"


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


# -- pieces of the page ------------------------------------------------------------------------------------------------


def function_entry(name: str, function: Callable[..., Any], level: int = 3) -> Iterator[str]:
    """Heading, signature and text of a function or method."""
    target = DELEGATES.get(function, function)
    yield f"{'#' * level} {name}"
    yield _block(signature(target, name.rpartition(".")[2] if level > 3 else f"qs.{name}", drop=("result",) if level > 3 else ()))
    yield markdown(function.__doc__ if target is function else _with_arguments(function.__doc__, target.__doc__))


def _with_arguments(own: str | None, other: str | None) -> str:
    """The first sentence of one docstring, with the sections of another."""
    summary = inspect.cleandoc(own or "").split("; arguments as for")[0].splitlines()[0].rstrip(".") + "."
    _, header, rest = inspect.cleandoc(other or "").partition("Parameters\n")
    return f"{summary}\n\n{header}{rest}"


def class_entry(name: str, cls: type) -> Iterator[str]:
    """Heading, text and public members of a class, inherited ones included."""
    yield f"### {name}"
    if name in CONSTRUCTED:
        yield _block(signature(cls, f"qs.{name}"))
    yield from filter(None, (markdown(text) for text in _class_texts(cls)))
    attributes, methods = [], []
    for member, value in sorted(_members(cls).items()):
        if isinstance(value, (property, functools.cached_property)):
            getter = value.fget if isinstance(value, property) else value.func
            doc = " ".join(inspect.cleandoc(getter.__doc__ or "").split("\n\n")[0].split())
            sections = re.findall(r"Raises\n-+\n(.*)", inspect.cleandoc(getter.__doc__ or ""), flags=re.DOTALL)
            attributes.append(f"* `{member}`: {prose(doc)}" + (f" {_raises(sections[0])}" if sections else ""))
        else:
            function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
            methods.append((member, function))
    if attributes:
        yield "*Properties*"
        yield "\n".join(attributes)
    for member, function in methods:
        yield from function_entry(f"{name}.{member}", function, level=4)


def _raises(section: str) -> str:
    return "Raises " + " ".join(prose(part.strip()) for part in section.splitlines() if part.strip())


def _class_texts(cls: type) -> Iterator[str]:
    """Docstrings of the class and, where it is a facade, of what it is one for."""
    yield cls.__doc__ or ""
    if cls in (qs.SlowDynamics, qs.Law):
        yield cls.__mro__[2].__doc__ or ""


def _members(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("quasistatic"):
            continue
        for member, value in vars(base).items():
            kinds = (property, functools.cached_property, classmethod, staticmethod)
            public = not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))
            if public and member not in found:
                found[member] = value
    if dataclasses.is_dataclass(cls):
        found = {m: v for m, v in found.items() if m not in {f.name for f in dataclasses.fields(cls)}}
    # models of noise are declared, their methods are for the package
    return {} if cls.__name__.endswith("Noise") else found


def rule_entry(name: str, rule: Rule) -> Iterator[str]:
    """A rule of the zoo: its text and its source."""
    yield f"### zoo.{name}"
    yield markdown(rule.doc)
    if rule.examples:
        yield "Example values: " + ", ".join(f"`{k} = {v:g}`" for k, v in rule.examples.items()) + "."
    yield _block(rule.source.rstrip())


def problem_entry(name: str, make: Callable[..., Any]) -> Iterator[str]:
    """A problem of the zoo."""
    yield f"### zoo.{name}"
    yield _block(signature(make, f"qs.zoo.{name}"))
    yield markdown(make.__doc__)
    problem = make()
    yield "Example values: " + ", ".join(f"`{k} = {v:g}`" for k, v in problem.examples.items()) + "."


def error_entry(name: str, error: type) -> str:
    """One line for an exception."""
    first = inspect.cleandoc(error.__doc__ or "").split("\n\n")[0]
    fields = re.findall(r"^(\w+):$", inspect.cleandoc(error.__doc__ or ""), flags=re.MULTILINE)
    has = f" It has `{'` and `'.join(fields)}`." if fields else ""
    return f"* `{name}` (from `{error.__bases__[0].__name__}`): {prose(' '.join(first.split()))}{has}"


def sections() -> Iterator[tuple[str, list[str]]]:
    """Title and pieces of every section."""

    def entries(names: tuple[str, ...]) -> list[str]:
        out: list[str] = []
        for name in names:
            value = getattr(qs, name)
            out += class_entry(name, value) if inspect.isclass(value) else function_entry(name, value)
        return out

    yield "Declaring", entries(DECLARE)
    yield "Deriving, simulating, checking", entries(ACT)
    yield "Results", entries(RESULTS)
    yield "What results hold and methods return", [piece for cls in RETURNED for piece in class_entry(cls.__name__, cls)]
    yield (
        "Functions for use inside a rule",
        ["With symbols they build an expression, with numbers they compute.", "\n".join(_inside(name) for name in INSIDE)],
    )
    yield "Rules of the zoo", [piece for name, rule in qs.zoo.RULES.items() for piece in rule_entry(name, rule)]
    yield "Problems of the zoo", [piece for name, make in qs.zoo.PROBLEMS.items() for piece in problem_entry(name, make)]
    errors = [n for n in qs.__all__ if inspect.isclass(getattr(qs, n)) and issubclass(getattr(qs, n), Exception)]
    yield "Exceptions", ["\n".join(error_entry(name, getattr(qs, name)) for name in errors)]


def _inside(name: str) -> str:
    return f"* `qs.{name}`: {prose((getattr(qs, name).__doc__ or '').replace(', for use inside a rule', ''))}"


def documented() -> set[str]:
    """Names of ``qs.__all__`` that the page has."""
    errors = {n for n in qs.__all__ if inspect.isclass(getattr(qs, n)) and issubclass(getattr(qs, n), Exception)}
    return {*DECLARE, *ACT, *RESULTS, *INSIDE, *errors, "zoo"}


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def page() -> str:
    """The whole page."""
    parts, contents = [], []
    for title, pieces in sections():
        names = [p.removeprefix("### ") for p in pieces if p.startswith("### ")]
        listed = ", ".join(f"[{n}](#{slug(n)})" for n in names)
        contents.append(f"* [{title}](#{slug(title)})" + (f": {listed}" if names else ""))
        parts += [f"## {title}", *pieces]
    text = "\n\n".join([INTRO.strip(), "\n".join(contents), *parts]) + "\n"
    return "\n".join(line.rstrip() for line in text.split("\n"))


def main(arguments: list[str]) -> int:
    """Write the page; with --check compare only."""
    text = page()
    if "--check" in arguments:
        current = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        print("docs/api.md is current." if current else "docs/api.md is out of date: run python docs/make_api.py.")
        return 0 if current else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
