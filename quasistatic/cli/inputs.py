"""What a user types, as rules, problems and numbers. Text is parsed by the whitelist; only FILE.py is executed."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quasistatic.errors import HyperparameterError, ParseError, ProblemError, QuasistaticError, RuleError, suggestion

if TYPE_CHECKING:
    import sympy as sp

    from quasistatic.model.noise import Noise
    from quasistatic.model.problem import Problem
    from quasistatic.model.rule import Rule


def assigned_numbers(
    flag: str, texts: Iterable[str], names: Sequence[str], error: type[QuasistaticError], remarks: Mapping[str, str]
) -> dict[str, sp.Expr]:
    """``k=v`` texts as exact numbers, each name known and given once."""
    from quasistatic.parse import parse_assignments, parse_number

    found: dict[str, Any] = {}
    for name, text in (pair for t in texts for pair in parse_assignments(t)):
        if name in remarks:
            raise error(f"{flag} {name}: {remarks[name]}.")
        if name not in names:
            raise error(f"{flag}: there is no {name}.{suggestion(name, names)} There is: {', '.join(names) or 'nothing to set'}.")
        if name in found:
            raise error(f"{flag}: {name} is given twice.")
        found[name] = parse_number(text, f"{flag} {name}")
    return found


def grid_numbers(flag: str, texts: Iterable[str], names: Sequence[str], remarks: Mapping[str, str]) -> dict[str, list[sp.Expr]]:
    """``k=v,v,...`` texts as lists of exact numbers, each name known and given once."""
    from quasistatic.parse import parse_number

    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = (part.strip() for part in text.partition("="))
        first, *rest = listed.split(",")
        if not equals or not first.strip() or not name.isidentifier():
            raise ParseError(f"{flag}: cannot read {text!r}: write name=number,number,..., for example eta=1e-3,1e-2.")
        if name in found:
            raise HyperparameterError(f"{flag}: {name} is given twice.")
        # a name that is not free is as wrong here as it is for a single number, with the same words
        found |= {n: [v] for n, v in assigned_numbers(flag, [f"{name}={first}"], names, HyperparameterError, remarks).items()}
        found[name] += [parse_number(part, f"{flag} {name}") for part in rest]
    return found


def load_rule(reference: str) -> Rule:
    """A rule of the zoo, or ``FILE.py:NAME``."""
    from quasistatic import zoo
    from quasistatic.model.rule import Rule

    if _is_file(reference):
        found: Rule = _from_file(reference, Rule, "update rule (a function with @qs.optimizer)")
        return found
    if reference not in zoo.RULES:
        known = ", ".join(zoo.RULES)
        raise RuleError(
            f"there is no rule {reference!r} in the zoo.{suggestion(reference, zoo.RULES)} It has: {known}. Your own: FILE.py:NAME."
        )
    return zoo.RULES[reference]


def fixed_rule(rule: Rule, fix: Iterable[str], free: Iterable[str]) -> Rule:
    rule = rule.free(*free)
    return rule.fix(**assigned_numbers("--fix", fix, list(rule.trace.hyperparameters), HyperparameterError, {}))


def zoo_problem(name: str, noise: str) -> Problem:
    from quasistatic import zoo

    if name not in zoo.PROBLEMS:
        known = ", ".join(zoo.PROBLEMS)
        raise ProblemError(
            f"there is no problem {name!r} in the zoo.{suggestion(name, zoo.PROBLEMS)} It has: {known}. Your own: FILE.py:NAME."
        )
    problem = zoo.PROBLEMS[name]()
    return problem.with_noise(_noise(noise)) if noise else problem


def load_problem(problem: str, loss: str, minima: str, coordinates: str, parameters: str, noise: str) -> Problem | None:
    """The problem that the options describe; None where they describe none."""
    from quasistatic.model.problem import Problem

    described = {"--loss": loss, "--minima": minima, "--coordinates": coordinates, "--parameters": parameters}
    if problem:
        extra = [flag for flag, text in described.items() if text]
        if extra:
            raise ProblemError(f"--problem {problem} is complete: leave out {', '.join(extra)}.")
        if not _is_file(problem):
            return zoo_problem(problem, noise)
        found: Problem = _from_file(problem, Problem, "problem (a qs.Problem)")
        return found.with_noise(_noise(noise)) if noise else found
    if not any(described.values()):
        return None
    for flag in ("--loss", "--minima"):
        if not described[flag]:
            raise ProblemError(f'{flag} is missing; a problem is for example --loss "(1+x**2)*y**2" --minima y=0.')
    return _described_problem(loss, minima, coordinates, parameters, _noise(noise))


def _described_problem(loss: str, minima: str, coordinates: str, parameters: str, noise: Noise) -> Problem:
    from quasistatic.model.problem import Problem
    from quasistatic.parse import parse_assignments, parse_expression
    from quasistatic.symbols import symbols

    def parse(text: str) -> sp.Expr:
        return parse_expression(text, symbol=symbols)

    def assigned(text: str) -> dict[Any, sp.Expr]:
        pairs = parse_assignments(text)
        repeated = {name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1}
        if repeated:
            raise ParseError(f"{', '.join(sorted(repeated))} is given twice in {text!r}.")
        return {parse(name): parse(value) for name, value in pairs}

    listed = [parse(name) for name in parameters.split(",")] if parameters else None
    spelt = {"loss": parse(loss), "minima": assigned(minima), "coordinates": assigned(coordinates) if coordinates else None}
    used = {s.name for e in (spelt["loss"], *spelt["minima"].values()) for s in e.free_symbols}
    strength = next(iter(vars(noise).values()))
    if strength.name in used:
        raise ProblemError(f"{strength.name} is the strength of the noise: give the {strength.name} of the problem another name.")
    return Problem(**spelt, noise=noise, parameters=listed)


def _noise(model: str) -> Noise:
    from quasistatic.model.noise import HessianNoise, IsotropicNoise
    from quasistatic.symbols import positive

    alpha, sigma = positive("alpha"), positive("sigma")
    models = {"hessian": HessianNoise(alpha), "isotropic": IsotropicNoise(sigma), "normal": IsotropicNoise(sigma, normal_only=True)}
    if (model or "hessian") not in models:
        raise ProblemError(f"there is no noise model {model!r}.{suggestion(model, models)} There is: {', '.join(models)}.")
    return models[model or "hessian"]


def _is_file(reference: str) -> bool:
    return reference.endswith(".py") or ".py:" in reference


def _from_file(reference: str, kind: type[Any], what: str) -> Any:
    """The object NAME of a user's FILE.py, which is executed."""
    file, _, name = reference.rpartition(":") if not reference.endswith(".py") else (reference, "", "")
    found = _execute(Path(file))
    names = [n for n, value in found.items() if isinstance(value, kind)]
    listed = f"It has: {', '.join(names)}." if names else f"There is no {what} in it."
    if not name:
        raise QuasistaticError(f"{file}: say which one, {file}:NAME. {listed}")
    if name not in found:
        raise QuasistaticError(f"{file} has no {name!r}.{suggestion(name, names)} {listed}")
    if not isinstance(found[name], kind):
        raise QuasistaticError(f"{name} in {file} is a {type(found[name]).__name__}, not an {what}. {listed}")
    return found[name]


def _execute(file: Path) -> dict[str, Any]:
    """The names that a user's file defines; errors in it name file and line."""
    if not file.is_file():
        raise QuasistaticError(f"there is no file {file}.")
    spec = importlib.util.spec_from_file_location(f"_quasistatic_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(file.resolve().parent))  # as for a script: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the file raises, sys.exit() too, is the user's mistake and not ours
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename) == file or Path(frame.filename) == file.resolve():
                line = frame.lineno
        raise QuasistaticError(f"{file}, line {line}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    return vars(module)
