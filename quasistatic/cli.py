"""The command line: ``quasistatic list`` and ``quasistatic derive``.

Exit codes: 0, 1 for a failed validation, 2 for bad input, 130 after Ctrl-C. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from quasistatic.errors import (
    HyperparameterError,
    OutputError,
    ParseError,
    ProblemError,
    QuasistaticError,
    RuleError,
    SimulationDiverged,
    StartError,
    suggestion,
)

try:
    import typer
except ImportError:  # the library works without its ``cli`` extra
    typer = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import sympy as sp

    from quasistatic.dynamics import Law, SlowDynamics
    from quasistatic.model.noise import Noise
    from quasistatic.model.problem import Problem
    from quasistatic.model.rule import Rule

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
STEPS, TRAJECTORIES = 40_000, 128
#: The problem on which a rule is shown where none is given.
EXAMPLE_PROBLEM = "valley"


def main() -> None:
    """The ``quasistatic`` command."""
    if typer is None:
        print('quasistatic: the command line needs two more packages: pip install "quasistatic[cli]"', file=sys.stderr)
        raise SystemExit(BAD_INPUT)
    make_app()()


def make_app() -> typer.Typer:
    """The commands as a typer application."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_quasistatic)
    app.command("list")(list_zoo)
    app.command("derive")(derive)
    return app


def _quasistatic(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lambda v: _version(v), help="Show the version.")] = False,
) -> None:
    """Derive where an optimizer drifts along its minima, and check it against a simulation of the very same rule."""


def list_zoo() -> None:
    """List the ready-made update rules and problems."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from quasistatic import zoo

    rules = Table("rule", "hyperparameters", "", box=SIMPLE_HEAD)
    for name, rule in zoo.RULES.items():
        listed = ", ".join(f"{n}={rule.fixed[n]}" if n in rule.fixed else n for n in rule.trace.hyperparameters)
        rules.add_row(name, listed, rule.doc.strip().partition("\n")[0])
    problems = Table("problem", "loss", "minima", "noise", box=SIMPLE_HEAD)
    for name, make in zoo.PROBLEMS.items():
        problem = make()
        minima = ", ".join(f"{k} = {v}" for k, v in problem.minima.items())
        problems.add_row(name, str(problem.loss), minima, str(problem.require_noise()))
    # square brackets are no markup here; without a terminal, lines are not broken at 80 columns
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(rules)
    console.print(problems)


def derive(
    rule: Annotated[
        str, typer.Argument(metavar="NAME | FILE.py:NAME", help="A rule of `quasistatic list`, or your own (the file is executed).")
    ],
    problem: Annotated[str, typer.Option(metavar="NAME | FILE.py:NAME", help="A problem of `quasistatic list`, or your own.")] = "",
    loss: Annotated[str, typer.Option(metavar="EXPR", help='The loss, e.g. "(1+x**2)*y**2"; needs --minima.')] = "",
    minima: Annotated[str, typer.Option(metavar="Y=EXPR,...", help="Parameters on the manifold of minima, e.g. y=0.")] = "",
    coordinates: Annotated[
        str, typer.Option(metavar="S=EXPR,...", help="For new symbols in --minima: which value belongs to an iterate, e.g. s=u.")
    ] = "",
    parameters: Annotated[
        str, typer.Option(metavar="X,Y,...", help="The parameters and their order; other symbols of --loss are then constants.")
    ] = "",
    noise: Annotated[
        str,
        typer.Option(metavar="MODEL", help="hessian (alpha*Hessian, default), isotropic (sigma^2) or normal (sigma^2 across the minima)."),
    ] = "",
    time: Annotated[
        str, typer.Option(metavar="KIND", help="iteration (exact in the learning rate) or continuous (the papers' SDE).")
    ] = "iteration",
    fix: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Put an exact number into the derivation; repeatable.")] = None,
    free: Annotated[list[str] | None, typer.Option(metavar="K", help="Turn a default of the rule back into a symbol; repeatable.")] = None,
    leading: Annotated[str, typer.Option(metavar="K", help="Results at leading order in this hyperparameter, e.g. eta.")] = "",
    latex: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the derivation as a LaTeX document.")] = None,
    validate: Annotated[bool, typer.Option("--validate", help="Simulate the rule and compare; exit code 1 where they differ.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="PATH", help="Draw the validation (implies --validate), e.g. valley.png.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="K=V", help="A number for the validation: hyperparameter or noise strength; repeatable. The rest: examples."
        ),
    ] = None,
    start: Annotated[list[str] | None, typer.Option(metavar="X=V", help="Where the validation starts; repeatable.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Iterations of the validation.")] = STEPS,
    trajectories: Annotated[int, typer.Option(min=2, help="Trajectories of the validation.")] = TRAJECTORIES,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the validation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the simulation; they do not change the numbers.")] = 1,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Validate in the limit of weak noise (three times the steps).")
    ] = False,
) -> None:
    """Derive the slow dynamics of an update rule.

    Without --problem and --loss: its law for any loss, then its slow dynamics on the zoo's valley as an example.
    Numbers may be 0.9, 9/10, 1e-3 or pi/6. Text is parsed, never executed; only FILE.py is run, as Python.
    """
    with _exit_codes():
        for path in (latex, plot):
            _require_writable(path)
        if plot is not None and importlib.util.find_spec("matplotlib") is None:
            raise QuasistaticError('--plot needs matplotlib: pip install "quasistatic[plot]".')
        if plot is not None and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise OutputError(f"--plot {plot}: the name must end in .png, .pdf or .svg.")
        validate = validate or plot is not None
        if not validate and (values or start):
            raise QuasistaticError(
                "--set and --start give numbers to the validation: add --validate. --fix K=V puts a number into the derivation."
            )
        the_rule = _fixed(load_rule(rule), fix or (), free or ())
        the_problem = _problem(problem, loss, minima, coordinates, parameters, noise)
        if the_problem is None:
            slow = _on_example(the_rule, time, noise)
            law = _law(slow)
        else:
            law, slow = None, _derive(the_rule, the_problem, time)
        if leading:
            law, slow = law and law.leading(leading), slow.leading(leading)
        numbers = _numbers(slow, values or (), start or ()) if validate else None
        print("\n\n".join(str(result) for result in (law, slow) if result is not None))
        if latex is not None:
            slow.to_latex(latex)
            print(f"\nwrote {latex}")
        if numbers is not None:
            options = {"steps": steps, "trajectories": trajectories, "seed": seed, "threads": threads, "extrapolate": extrapolate}
            _validate(slow, numbers, plot, options)


# -- what the commands are made of -------------------------------------------------------------------------------------


def _version(wanted: bool) -> None:
    if wanted:
        from quasistatic import __version__

        print(f"quasistatic {__version__}")
        raise typer.Exit


@contextmanager
def _exit_codes() -> Iterator[None]:
    """The user's mistakes as one line on stderr, and the exit codes of the module's docstring."""
    try:
        yield
    except SimulationDiverged as error:
        if error.runs is not None:
            print(error.runs)
        _complain(f"error: {error}", FAILED)
    except QuasistaticError as error:
        _complain(f"error: {error}", BAD_INPUT)
    except KeyboardInterrupt:
        _complain("interrupted.", INTERRUPTED)


def _complain(message: str, code: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr)
    raise typer.Exit(code) from None


def _require_writable(path: Path | None) -> None:
    """Refuse an output path before any work is done."""
    if path is None:
        return
    folder = path.parent
    why = ""
    if path.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        why = "permission denied"
    if why:
        raise OutputError(f"cannot write {path}: {why}.")


def _derive(rule: Rule, problem: Problem, time: str) -> SlowDynamics:
    from quasistatic.dynamics import derive as derive_slow

    return derive_slow(rule, problem, time=time)


def _law(slow: SlowDynamics) -> Law | None:
    """The law of the same rule for any loss; None for a rule that is no linear filter, which has none."""
    from quasistatic.dynamics import derive as derive_law

    return None if slow.linear is None else derive_law(slow.rule, time=slow.time_kind)


def _on_example(rule: Rule, time: str, noise: str) -> SlowDynamics:
    """The slow dynamics on the example problem, whose symbols the rule may not use."""
    try:
        return _derive(rule, _zoo_problem(EXAMPLE_PROBLEM, noise), time)
    except HyperparameterError as error:
        raise HyperparameterError(f"{error} Or give another problem than the example: --problem, or --loss and --minima.") from None


class _Numbers(NamedTuple):
    """Numbers of a validation; ``examples`` are those that the user did not give, in words."""

    values: dict[str, Any]
    start: dict[str, Any]
    examples: str


def _validate(slow: SlowDynamics, numbers: _Numbers, plot: Path | None, options: dict[str, Any]) -> None:
    if numbers.examples:
        print(f"\nexample values, which --set and --start change: {numbers.examples}")
    print(flush=True)
    with _progress_bar() as progress:
        report = slow.validate(numbers.start, progress=progress, **options, **numbers.values)
    print(report)
    if plot is not None:
        report.plot(plot)
        print(f"wrote {plot}")
    if report.interrupted:
        raise KeyboardInterrupt
    if not report.passed:
        raise typer.Exit(FAILED)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr where that is a terminal, nothing elsewhere; it vanishes at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling", total=None)
        yield lambda done, total: bar.update(task, description="simulating", completed=done, total=total)


def _numbers(slow: SlowDynamics, given: Sequence[str], start: Sequence[str]) -> _Numbers:
    """What --set and --start say, and the examples of rule and problem for the rest."""
    rule, problem = slow.rule, slow.problem
    names = [*rule.hyperparameters, *(c.name for c in problem.constants)]
    points = [c.name for c in slow.coordinates]
    values = _assigned(
        "--set", given, names, HyperparameterError, {n: f"{rule.name} fixes {n}; --fix {n}=... changes it" for n in rule.fixed}
    )
    where = _assigned("--start", start, points, StartError, {})
    examples = {**problem.examples, **rule.examples}
    used = {n: examples[n] for n in (*names, *points) if n not in values and n not in where and n in examples}
    for flag, listed in (("--set", names), ("--start", points)):
        missing = [n for n in listed if n not in values and n not in where and n not in used]
        if missing:
            error = HyperparameterError if flag == "--set" else StartError
            raise error(f"the validation has no value for {', '.join(missing)}: add {' '.join(f'{flag} {n}=...' for n in missing)}")
    chosen = {**used, **values, **where}
    examples_used = ", ".join(f"{n}={v:g}" for n, v in used.items())
    return _Numbers({n: chosen[n] for n in names}, {n: chosen[n] for n in points}, examples_used)


def _assigned(
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


# -- rules and problems from text --------------------------------------------------------------------------------------


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


def _fixed(rule: Rule, fix: Iterable[str], free: Iterable[str]) -> Rule:
    rule = rule.free(*free)
    return rule.fix(**_assigned("--fix", fix, list(rule.trace.hyperparameters), HyperparameterError, {}))


def _zoo_problem(name: str, noise: str) -> Problem:
    from quasistatic import zoo

    if name not in zoo.PROBLEMS:
        known = ", ".join(zoo.PROBLEMS)
        raise ProblemError(
            f"there is no problem {name!r} in the zoo.{suggestion(name, zoo.PROBLEMS)} It has: {known}. Your own: FILE.py:NAME."
        )
    problem = zoo.PROBLEMS[name]()
    return problem.with_noise(_noise(noise)) if noise else problem


def _problem(problem: str, loss: str, minima: str, coordinates: str, parameters: str, noise: str) -> Problem | None:
    """The problem that the options describe; None where they describe none."""
    from quasistatic.model.problem import Problem

    described = {"--loss": loss, "--minima": minima, "--coordinates": coordinates, "--parameters": parameters}
    if problem:
        extra = [flag for flag, text in described.items() if text]
        if extra:
            raise ProblemError(f"--problem {problem} is complete: leave out {', '.join(extra)}.")
        if not _is_file(problem):
            return _zoo_problem(problem, noise)
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
