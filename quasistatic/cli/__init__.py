"""The command line: ``quasistatic list``, ``derive``, ``reproduce``, ``sweep`` and ``cache``.

Exit codes: 0, 1 for a failed validation, 2 for bad input, 130 after Ctrl-C. Heavy imports happen inside the commands.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from quasistatic.cli.cache import make_cache_app
from quasistatic.cli.inputs import assigned_numbers, fixed_rule, load_problem, load_rule, zoo_problem
from quasistatic.cli.sweep import sweep
from quasistatic.errors import HyperparameterError, OutputError, QuasistaticError, SimulationDiverged, StartError, suggestion

try:
    import typer
except ImportError:  # the library works without its ``cli`` extra
    typer = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from quasistatic.dynamics import Law, SlowDynamics
    from quasistatic.model.problem import Problem
    from quasistatic.model.rule import Rule
    from quasistatic.validate import Report

FORMATS = ("text", "latex", "json")
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
STEPS, TRAJECTORIES = 40_000, 128
#: The problem on which a rule is shown where none is given; the other one where a preconditioner would meet a coordinate without noise.
EXAMPLE_PROBLEM, TURNED_EXAMPLE = "valley", "rotated_valley"


def main() -> None:
    """The ``quasistatic`` command."""
    if typer is None:
        print('quasistatic: the command line needs two more packages: pip install "quasistatic[cli]"', file=sys.stderr)
        raise SystemExit(BAD_INPUT)
    make_app()()


def make_app() -> typer.Typer:
    """The commands as a typer application."""
    app = typer.Typer(add_completion=True, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(_quasistatic)
    app.command("list")(list_zoo)
    app.command("derive")(derive)
    app.command("reproduce")(reproduce)
    app.command("sweep")(sweep)
    app.add_typer(make_cache_app(), name="cache")
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
        str,
        typer.Argument(
            metavar="NAME | FILE.py:NAME",
            help="A rule of `quasistatic list`, or your own (the file is executed).",
            autocompletion=lambda incomplete: complete_rules(incomplete),
        ),
    ],
    problem: Annotated[
        str,
        typer.Option(
            metavar="NAME | FILE.py:NAME",
            help="A problem of `quasistatic list`, or your own.",
            autocompletion=lambda incomplete: complete_problems(incomplete),
        ),
    ] = "",
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
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="What is printed: text, latex or json.")] = "text",
    latex: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the derivation as a LaTeX document.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="PATH", help="Keep the result as JSON for qs.load.")] = None,
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
    trajectories: Annotated[int, typer.Option(min=8, help="Trajectories of the validation.")] = TRAJECTORIES,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the validation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the simulation; they do not change the numbers.")] = 1,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Validate in the limit of weak noise (three times the steps).")
    ] = False,
) -> None:
    """Derive the slow dynamics of an update rule.

    Without --problem and --loss: its law for any loss, then its slow dynamics on the zoo's valley as an example (the rotated one
    for rules with slow states).
    Numbers may be 0.9, 9/10, 1e-3 or pi/6. Text is parsed, never executed; only FILE.py is run, as Python.
    """
    with _exit_codes():
        for path in (latex, plot, save):
            _require_writable(path)
        if form not in FORMATS:
            raise QuasistaticError(f"there is no format {form!r}.{suggestion(form, FORMATS)} There is: {', '.join(FORMATS)}.")
        if plot is not None and importlib.util.find_spec("matplotlib") is None:
            raise QuasistaticError('--plot needs matplotlib: pip install "quasistatic[plot]".')
        if plot is not None and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise OutputError(f"--plot {plot}: the name must end in .png, .pdf or .svg.")
        validate = validate or plot is not None
        if not validate and (values or start):
            raise QuasistaticError(
                "--set and --start give numbers to the validation: add --validate. --fix K=V puts a number into the derivation."
            )
        the_rule = fixed_rule(load_rule(rule), fix or (), free or ())
        the_problem = load_problem(problem, loss, minima, coordinates, parameters, noise)
        if the_problem is None:
            slow = _on_example(the_rule, time, noise)
            law = _law(slow)
        else:
            law, slow = None, _derive(the_rule, the_problem, time)
        if leading:
            law, slow = law and law.leading(leading), slow.leading(leading)
        numbers = _numbers(slow, values or (), start or ()) if validate else None
        results = [result for result in (law, slow) if result is not None]
        if form != "json":
            print("\n\n".join(str(r) if form == "text" else r.latex(standalone=False) for r in results))
        # beside JSON nothing else may stand on stdout
        say = partial(print, file=sys.stderr if form == "json" else sys.stdout, flush=True)
        for path, write in ((latex, slow.to_latex), (save, slow.save)):
            if path is not None:
                write(path)
                say(f"\nwrote {path}")
        options = {"steps": steps, "trajectories": trajectories, "seed": seed, "threads": threads, "extrapolate": extrapolate}
        report = None if numbers is None else _validate(slow, numbers, plot, options, say)
        if form == "json":
            _print_json(results, report)
        elif report is not None:
            _print_table(str(report))
        _leave(report)


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
    """The law of the same rule for any loss; None where there is none: no linear filter, a kink, or an SDE with a preconditioner."""
    from quasistatic.derivation.statistical import has_kink
    from quasistatic.dynamics import derive as derive_law

    if slow.linear is None or has_kink(slow.rule) or (slow.time_kind == "continuous" and any(s.slow for s in slow.rule.trace.states)):
        return None
    return derive_law(slow.rule, time=slow.time_kind)


def _example_problem(rule: Rule) -> str:
    from quasistatic.derivation.statistical import has_kink

    return TURNED_EXAMPLE if has_kink(rule) or any(s.slow for s in rule.trace.states) else EXAMPLE_PROBLEM


def _on_example(rule: Rule, time: str, noise: str) -> SlowDynamics:
    """The slow dynamics on the example problem, whose symbols the rule may not use."""
    try:
        return _derive(rule, zoo_problem(_example_problem(rule), noise), time)
    except HyperparameterError as error:
        raise HyperparameterError(f"{error} Or give another problem than the example: --problem, or --loss and --minima.") from None


class _Numbers(NamedTuple):
    """Numbers of a validation; ``examples`` are those that the user did not give, in words."""

    values: dict[str, Any]
    start: dict[str, Any]
    examples: str


def _validate(slow: SlowDynamics, numbers: _Numbers, plot: Path | None, options: dict[str, Any], say: Callable[[str], None]) -> Report:
    if numbers.examples:
        say(f"\nexample values, which --set and --start change: {numbers.examples}\n")
    with _progress_bar() as progress:
        report = slow.validate(numbers.start, progress=progress, **options, **numbers.values)
    if plot is not None:
        report.plot(plot)
        say(f"wrote {plot}")
    return report


def _leave(report: Report | None) -> None:
    """The exit code of a validation."""
    if report is not None and report.interrupted:
        raise KeyboardInterrupt
    if report is not None and not report.passed:
        raise typer.Exit(FAILED)


def _print_table(text: str) -> None:
    """A table with coloured verdicts where stdout is a terminal, the plain text elsewhere."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console
    from rich.text import Text

    coloured = Text(text)
    coloured.highlight_regex(r"\bpass(ed)?\b", "green")
    coloured.highlight_regex(r"\bFAIL(ED)?\b", "bold red")
    Console().print(coloured, soft_wrap=True)


def _print_json(results: Sequence[Any], report: Report | None) -> None:
    import json

    from quasistatic.show.data import data, report_data

    named = {("law" if hasattr(r, "kernel") else "slow"): data(r) for r in results}
    if report is not None:
        named["validation"] = report_data(report)
    print(json.dumps(named, indent=1))


def reproduce(
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="fig1, fig2, fig3, fig3-right or digits.",
            autocompletion=lambda incomplete: complete_figures(incomplete),
        ),
    ],
    output: Annotated[Path | None, typer.Option(metavar="PATH", help="Where the picture goes; FIGURE.png by default.")] = None,
    scale: Annotated[float, typer.Option(min=0.01, max=1.0, help="Part of the full ensemble: smaller is quicker and noisier.")] = 1.0,
) -> None:
    """Simulate a figure, of the quasistatic paper or of a network on digits, compare with theory, draw it; exit code 1 if they differ."""
    with _exit_codes():
        from quasistatic.studies.figures import FIGURES

        if figure not in FIGURES:
            raise QuasistaticError(f"there is no figure {figure!r}.{suggestion(figure, FIGURES)} There is: {', '.join(FIGURES)}.")
        path = output or Path(f"{figure}.png")
        _require_writable(path)
        with _progress_bar() as progress:
            study = FIGURES[figure](scale=scale, progress=progress)
        _print_table(str(study))
        study.plot(path)
        print(f"wrote {path}")
        if not study.passed:
            raise typer.Exit(FAILED)


def complete_rules(incomplete: str) -> list[str]:
    """Names of the zoo's rules that begin so."""
    from quasistatic import zoo

    return [n for n in zoo.RULES if n.startswith(incomplete)]


def complete_problems(incomplete: str) -> list[str]:
    """Names of the zoo's problems that begin so."""
    from quasistatic import zoo

    return [n for n in zoo.PROBLEMS if n.startswith(incomplete)]


def complete_figures(incomplete: str) -> list[str]:
    """Names of the figures that begin so."""
    from quasistatic.studies.figures import FIGURES

    return [n for n in FIGURES if n.startswith(incomplete)]


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
    others = [s.name for s in slow.slow_state if s not in slow.coordinates]
    rest = {n: state.name for state in rule.trace.states for n in others if state.slow and n.startswith(f"{state.name}_")}
    values = assigned_numbers(
        "--set", given, names, HyperparameterError, {n: f"{rule.name} fixes {n}; --fix {n}=... changes it" for n in rule.fixed}
    )
    where = assigned_numbers("--start", start, [*points, *rest], StartError, {})
    examples = {**{n: v for n, v in rule.examples.items() if n in rule.hyperparameters}, **problem.examples}
    used = {n: examples[n] for n in (*names, *points) if n not in values and n not in where and n in examples}
    # slow states start at their equilibrium; those that have none have an example
    used |= {n: rule.examples[state] for n, state in rest.items() if n not in where and state in rule.examples}
    for flag, listed in (("--set", names), ("--start", points)):
        missing = [n for n in listed if n not in values and n not in where and n not in used]
        if missing:
            error = HyperparameterError if flag == "--set" else StartError
            raise error(f"the validation has no value for {', '.join(missing)}: add {' '.join(f'{flag} {n}=...' for n in missing)}")
    chosen = {**used, **values, **where}
    examples_used = ", ".join(f"{n}={v:g}" for n, v in used.items())
    return _Numbers({n: chosen[n] for n in names}, {n: chosen[n] for n in (*points, *rest) if n in chosen}, examples_used)
