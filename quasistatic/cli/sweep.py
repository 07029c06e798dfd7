"""``quasistatic sweep``: simulation and theory over a grid, here or on a Dask cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from quasistatic.cli.inputs import assigned_numbers, fixed_rule, grid_numbers, load_problem, load_rule
from quasistatic.errors import HyperparameterError, OutputError, ProblemError, QuasistaticError, StartError, suggestion

try:
    import typer
except ImportError:
    typer = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from quasistatic.model.problem import Problem
    from quasistatic.model.rule import Rule
    from quasistatic.sweeps.table import SweepTable

FORMATS = ("text", "csv", "json")


def sweep(
    rule: Annotated[str, typer.Argument(metavar="NAME | FILE.py:NAME", help="A rule of `quasistatic list`, or your own.")],
    grid: Annotated[
        list[str], typer.Option(metavar="K=V,V,...", help="Numbers of a hyperparameter or constant; repeatable: all combinations run.")
    ],
    problem: Annotated[str, typer.Option(metavar="NAME | FILE.py:NAME", help="A problem of `quasistatic list`, or your own.")] = "",
    loss: Annotated[str, typer.Option(metavar="EXPR", help='The loss, e.g. "(1+x**2)*y**2"; needs --minima.')] = "",
    minima: Annotated[str, typer.Option(metavar="Y=EXPR,...", help="Parameters on the manifold of minima, e.g. y=0.")] = "",
    coordinates: Annotated[str, typer.Option(metavar="S=EXPR,...", help="For new symbols in --minima, e.g. s=u.")] = "",
    parameters: Annotated[str, typer.Option(metavar="X,Y,...", help="The parameters of --loss and their order.")] = "",
    noise: Annotated[str, typer.Option(metavar="MODEL", help="hessian (default), isotropic or normal.")] = "",
    time: Annotated[str, typer.Option(metavar="KIND", help="The theory: iteration or continuous.")] = "iteration",
    fix: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Put an exact number into the derivation; repeatable.")] = None,
    free: Annotated[list[str] | None, typer.Option(metavar="K", help="Turn a default of the rule into a symbol; repeatable.")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="A number that is the same everywhere; repeatable. The rest: examples.")
    ] = None,
    start: Annotated[list[str] | None, typer.Option(metavar="X=V", help="Where every simulation starts; repeatable.")] = None,
    steps: Annotated[
        str, typer.Option(metavar="N | EXPR", help='Iterations, a number or an expression of the hyperparameters, e.g. "4/eta**2".')
    ] = "40000",
    trajectories: Annotated[int, typer.Option(min=8, help="Trajectories of every simulation.")] = 128,
    seeds: Annotated[int, typer.Option(min=1, help="Every point runs with the seeds 0, 1, ... up to this many.")] = 1,
    results: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Keep finished points in this file, and skip those that it has already.")
    ] = None,
    scheduler: Annotated[str, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster of this scheduler, tcp://HOST:PORT.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Points at a time on this machine; 0: one per processor.")] = 0,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="What is printed: text, csv or json.")] = "text",
    save: Annotated[Path | None, typer.Option(metavar="PATH", help="Write the finished table, as .csv or .jsonl.")] = None,
) -> None:
    """Simulate an update rule over a grid of hyperparameters and compare with the theory at every point.

    Points outside the theory's conditions are rows that say so. The exit code is 1 where a point could not be run, 130 after
    Ctrl-C; with --results, the same command goes on where it stopped.
    """
    from quasistatic.cli import _exit_codes, _progress_bar, _require_writable

    with _exit_codes():
        if form not in FORMATS:
            raise QuasistaticError(f"there is no format {form!r}.{suggestion(form, FORMATS)} There is: {', '.join(FORMATS)}.")
        _require_writable(save)
        if save is not None and save.suffix not in (".csv", ".jsonl"):
            raise OutputError(f"--save {save}: the name must end in .csv or .jsonl.")
        if scheduler and jobs:
            raise QuasistaticError("--jobs is for this machine; how many points run on a cluster is for its workers to say.")
        the_rule = fixed_rule(load_rule(rule), fix or (), free or ())
        the_problem = load_problem(problem, loss, minima, coordinates, parameters, noise)
        if the_problem is None:
            raise ProblemError("a sweep needs a problem: --problem NAME, or --loss and --minima.")
        numbers = _numbers(the_rule, the_problem, grid, values or (), start or ())
        options: dict[str, Any] = {"time": time, "trajectories": trajectories, "seeds": seeds, "results": results}
        from quasistatic.dynamics import sweep as run

        with _executor(scheduler, jobs) as executor, _progress_bar() as progress:
            table = run(
                the_rule, the_problem, numbers.axes, numbers.start, steps, executor=executor, progress=progress, **options, **numbers.values
            )  # fmt: skip
        if numbers.note:
            print(numbers.note, file=sys.stderr)
        _print(table, form)
        if save is not None:
            table.save(save)
            print(f"wrote {save}", file=sys.stderr)
        if table.interrupted:
            if results is not None:
                print(f"{len(table)} of {table.total} points are in {results}; the same command goes on from there.", file=sys.stderr)
            raise KeyboardInterrupt
        if not table.complete:
            raise typer.Exit(1)


class _Numbers(NamedTuple):
    """Numbers of a sweep; ``note`` tells those that the user did not give."""

    values: dict[str, Any]
    start: dict[str, Any]
    axes: dict[str, list[Any]]
    note: str


def _numbers(rule: Rule, problem: Problem, grid: Sequence[str], given: Sequence[str], start: Sequence[str]) -> _Numbers:
    """What --set and --start say, with examples for the rest, and the axes of the grid."""
    names = [*rule.hyperparameters, *(c.name for c in problem.constants)]
    points = [c.name for c in problem.chart.coordinates]
    remarks = {n: f"{rule.name} fixes {n}; --free {n} makes it a hyperparameter" for n in rule.fixed}
    axes = grid_numbers("--grid", grid, names, remarks)
    taken = dict.fromkeys(axes, "--grid has it already")
    values = assigned_numbers("--set", given, names, HyperparameterError, {**remarks, **taken})
    where = assigned_numbers("--start", start, points, StartError, {})
    examples = {**problem.examples, **rule.examples}
    shown: list[str] = []
    for flag, listed, found in (("--set", [n for n in names if n not in axes], values), ("--start", points, where)):
        missing = [n for n in listed if n not in found and n not in examples]
        if missing:
            error = HyperparameterError if flag == "--set" else StartError
            raise error(f"the sweep has no value for {', '.join(missing)}: add {' '.join(f'{flag} {n}=...' for n in missing)}")
        used = {n: examples[n] for n in listed if n not in found}
        found.update(used)
        shown += [f"{n}={v:g}" for n, v in used.items()]
    note = f"example values, which --set and --start change: {', '.join(shown)}" if shown else ""
    return _Numbers(values, where, axes, note)


@contextmanager
def _executor(scheduler: str, jobs: int) -> Iterator[Executor | str | None]:
    if not jobs:
        yield scheduler or None
        return
    with ThreadPoolExecutor(jobs) as pool:
        yield pool


def _print(table: SweepTable, form: str) -> None:
    if form == "text":
        from quasistatic.cli import _print_table

        _print_table(str(table))
    elif form == "csv":
        sys.stdout.write(table.csv())
    else:
        print(json.dumps({"provenance": table.provenance, "interrupted": table.interrupted, "rows": table.rows}, indent=1))
