"""What a sweep returns: one row per point and seed, tidy columns, a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quasistatic.errors import OutputError, SweepError, suggestion
from quasistatic.sweeps.job import COMPARED, FINAL, OK

if TYPE_CHECKING:
    import numpy.typing as npt

    Column = npt.NDArray[Any]

#: Columns beside the hyperparameters and the compared quantities.
RESERVED = ("seed", "steps", "status", "message")
#: Rows that ``str`` shows.
SHOWN = 100
#: Differences beyond this many standard errors disagree, as in a validation.
SIGMAS = 5.0


@dataclass(frozen=True, eq=False)
class SweepTable:
    """Simulation and theory over a grid; ``str(sweep)`` is a table, ``sweep["eta"]`` a column.

    Attributes
    ----------
    rows:
        One mapping per point and seed, in the order of the grid: every hyperparameter and constant, ``seed``, ``steps``,
        ``status``, ``message``, and for each compared quantity ``..._theory``, ``..._simulation``, ``..._error`` (the standard
        error of their difference) and ``..._z``. The quantities are ``mean_x``, the mean of every coordinate at the end;
        ``variance_x``, its variance over trajectories, where the slow dynamics diffuses; ``fast_variance_y``, the variance of
        every parameter across the minima, averaged over the path. A status is "ok", "unstable" (outside the conditions),
        "diverged", "failed", or "lost" (its worker did not come back); all but "ok" have a message and no quantities.
    names:
        The hyperparameters and constants.
    total:
        Rows of the complete sweep.
    provenance:
        Rule, problem, grid, start, options, versions.
    interrupted:
        Whether Ctrl-C ended the sweep; ``rows`` are those that were finished.
    """

    rows: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]
    total: int
    provenance: Mapping[str, Any]
    interrupted: bool = False

    @cached_property
    def quantities(self) -> tuple[str, ...]:
        """Names of what is compared: ``mean_x``, ``fast_variance_y``, ..."""
        suffix = f"_{COMPARED[0]}"
        keys = (key for row in self.rows for key in row if key.endswith(suffix) and key not in self.names)
        return tuple(dict.fromkeys(key.removesuffix(suffix) for key in keys))

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Name to array, one entry per row; numbers that a row does not have are NaN."""
        compared = [f"{q}_{what}" for q in self.quantities for what in COMPARED]
        found = {n: np.array([row[n] for row in self.rows], dtype=np.float64) for n in self.names}
        for name in ("seed", "steps"):
            largest = max((row[name] for row in self.rows), default=0)
            found[name] = np.array([row[name] for row in self.rows], dtype=np.uint64 if largest >= 2**63 else np.int64)
        found["status"] = np.array([row["status"] for row in self.rows], dtype=np.str_)
        found.update({n: np.array([row.get(n, np.nan) for row in self.rows], dtype=np.float64) for n in compared})
        found["message"] = np.array([row["message"] for row in self.rows], dtype=np.str_)
        return found

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            raise SweepError(f"there is no column {name!r}.{suggestion(str(name), self.columns)} There is: {', '.join(self.columns)}.")
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def complete(self) -> bool:
        """Whether every point has its final row: none is missing, failed or lost."""
        return len(self.rows) == self.total and all(row["status"] in FINAL for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether every point ran, and theory and simulation agree within 5 standard errors everywhere."""
        return len(self.rows) == self.total and all(map(self._agrees, self.rows))

    def _agrees(self, row: Mapping[str, Any]) -> bool:
        return row["status"] == OK and all(abs(row[f"{q}_z"]) <= SIGMAS for q in self.quantities if f"{q}_z" in row)

    def to_pandas(self) -> Any:
        """The columns as a ``pandas.DataFrame``; SweepError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise SweepError("to_pandas() needs pandas: pip install pandas. Without it, sweep.columns has the same numbers.") from None
        return pandas.DataFrame(self.columns)

    def save(self, path: str | Path) -> None:
        """Write the table: ``.csv`` for spreadsheets, ``.jsonl`` with provenance for :func:`quasistatic.load` and ``results=``.

        Raises
        ------
        OutputError
            If the file cannot be written (then nothing is), or its name ends otherwise.
        """
        from quasistatic.storage import write_text
        from quasistatic.sweeps.results import lines

        target = Path(path)
        if target.suffix not in (".csv", ".jsonl"):
            raise OutputError(f"cannot write {target}: the name of a sweep's file ends in .csv or .jsonl.")
        write_text(target, self.csv() if target.suffix == ".csv" else "".join(lines(self)))

    def csv(self) -> str:
        """The table as comma-separated values, a header first; numbers read back as the same floats."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*(column.tolist() for column in self.columns.values()), strict=True))
        return text.getvalue()

    def __repr__(self) -> str:
        ended = ", interrupted" if self.interrupted else ""
        varied = ", ".join(self._varied()) or "nothing"
        return f"<sweep of {self._what} over {varied}: {len(self)} of {self.total}{ended}>"

    @property
    def _what(self) -> str:
        return f"{self.provenance['rule']} on {self.provenance['problem_name'] or self.provenance['problem']}"

    def _varied(self, *further: str) -> list[str]:
        return [n for n in (*self.names, *further) if len({row[n] for row in self.rows}) > 1]

    def __str__(self) -> str:
        from quasistatic.show.text import table

        about = self.provenance
        varied = self._varied("seed", "steps")
        same = {n: self.rows[0][n] for n in (*self.names, "seed", "steps") if self.rows and n not in varied}
        fixed = ", ".join(f"{n}={v:g}" if isinstance(v, float) else f"{n}={v}" for n, v in same.items())
        start = ", ".join(f"{k}={v:g}" for k, v in about["start"].items())
        title = f"{self._what}: {fixed}; from {start}, {about['trajectories']} trajectories"
        quantities = [f"{q}{part}" for q in self.quantities for part in ("", " sim.", " +-", " z")]
        rows = [self._cells(row, varied) for row in self.rows[:SHOWN]]
        lines = [title, table((*varied, *quantities, "status"), rows)]
        if len(self.rows) > SHOWN:
            lines.append(f"... and {len(self.rows) - SHOWN} more rows")
        lines += sorted({f"{row['status']}: {row['message']}" for row in self.rows[:SHOWN] if row["message"]})[:5]
        return "\n".join([*lines, self._summary()])

    def _cells(self, row: Mapping[str, Any], varied: list[str]) -> tuple[str, ...]:
        formats = dict(zip(COMPARED, (".6g", ".6g", ".2g", "+.2f"), strict=True))
        numbers = [format(row[f"{q}_{w}"], f) if f"{q}_{w}" in row else "" for q in self.quantities for w, f in formats.items()]
        status = row["status"] if row["status"] != OK or self._agrees(row) else "DIFFERS"
        return (*(f"{row[n]:g}" if isinstance(row[n], float) else str(row[n]) for n in varied), *numbers, status)

    def _summary(self) -> str:
        ok = [row for row in self.rows if row["status"] == OK]
        agree = sum(map(self._agrees, ok))
        text = f"{agree} of {len(ok)} agree within {SIGMAS:g} standard errors"
        others = [row["status"] for row in self.rows if row["status"] != OK]
        text += "".join(f"; {others.count(s)} {s}" for s in dict.fromkeys(others))
        missing = self.total - len(self.rows)
        text += f"; {missing} of {self.total} not run" if missing else ""
        return text + (" (interrupted)." if self.interrupted else ".")
