"""The results file of a sweep: a header that says which sweep it is, then one line of JSON per finished point.

Python writes a float as the shortest decimal that reads back as the same float, so the numbers are kept to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from quasistatic.errors import OutputError, ParseError, SweepError
from quasistatic.storage import write_text
from quasistatic.sweeps.job import COMPARED, FINAL, OK
from quasistatic.sweeps.table import SweepTable

MARK = "quasistatic_sweep"
FORMAT = 1
#: What is said about the sweep but does not make it another one: the text of a rule may change while its record stays.
SAID = ("source", "sha256")
#: Characters of one side of a difference in a message.
_LONGEST = 200

Row = dict[str, Any]
Header = dict[str, Any]
#: A point and a seed: all numbers of the grid, the number of steps, the seed.
Key = tuple[Any, ...]


def digest(identity: Mapping[str, Any]) -> str:
    """A hash of everything that makes a sweep this sweep."""
    compared = {k: v for k, v in identity.items() if k not in SAID}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def key(row: Mapping[str, Any], names: Sequence[str]) -> Key:
    """What tells rows apart."""
    return (*(row[n] for n in names), row["seed"], row["steps"])


def is_results(path: str | Path) -> bool:
    """Whether a file begins like a results file."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MARK) + 3).startswith(f'{{"{MARK}"'.encode())
    except OSError:
        return False


def lines(sweep: SweepTable) -> Iterator[str]:
    """A sweep as the lines of its results file."""
    yield _line({MARK: FORMAT, **sweep.provenance})
    yield from (_line(row) for row in sweep.rows)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def read(path: str | Path) -> SweepTable:
    """The sweep of a results file, finished or not, in the order of its grid.

    Raises
    ------
    ParseError
        If it is not one.
    """
    header, rows, _ = _parsed(Path(path))
    order = {k: i for i, k in enumerate(_keys(header))}
    names = tuple(header["names"])
    found = sorted(rows.values(), key=lambda row: order[key(row, names)])
    provenance = {k: v for k, v in header.items() if k != MARK}
    return SweepTable(tuple(found), names, len(order), provenance)


def _keys(header: Header) -> list[Key]:
    return [(*point, seed, steps) for point, steps in zip(header["points"], header["steps"], strict=True) for seed in header["seeds"]]


def _parsed(path: Path) -> tuple[Header, dict[Key, Row], bool]:
    """Header, good rows, and whether there was anything else (a line that was cut off, say)."""
    try:
        first, *rest = path.read_bytes().splitlines(keepends=True) or [b""]
    except OSError as error:
        raise ParseError(f"cannot read {path}: {error.strerror or error}.") from None
    header = _json(first)
    if header is None or MARK not in header:
        raise ParseError(f"{path} is not the results file of a sweep.")
    if header[MARK] != FORMAT:
        raise ParseError(f"{path} has the format {header[MARK]!r}; this version reads {FORMAT}.")
    try:
        names, wanted = header["names"], set(_keys(header))
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError(f"{path} is damaged: its header lacks {error}.") from None
    rows: dict[Key, Row] = {}
    bad = not first.endswith(b"\n")
    for line in rest:
        row = _json(line) if line.endswith(b"\n") else None
        if row is None or not _is_row(row, names) or key(row, names) not in wanted or key(row, names) in rows:
            bad = True
        else:
            rows[key(row, names)] = row
    return header, rows, bad


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_row(row: Row, names: Sequence[str]) -> bool:
    """Whether every entry of a row is there and has its type."""
    numbers = [row.get(n) for n in names]
    compared = [v for k, v in row.items() if k.rpartition("_")[2] in COMPARED and k not in names]
    return (
        all(isinstance(v, float) for v in (*numbers, *compared))
        and all(type(row.get(n)) is int for n in ("seed", "steps"))
        and all(isinstance(row.get(n), str) for n in ("status", "message"))
        and (row["status"] != OK or len(compared) >= len(COMPARED))
        and len(compared) % len(COMPARED) == 0
    )


class ResultsFile:
    """Where finished points are kept as they come, and found again by the next run.

    Parameters
    ----------
    path:
        Nothing is written before the first point is finished.
    identity:
        Everything that makes this sweep this sweep, as plain data; becomes the header.

    Raises
    ------
    SweepError
        If the file belongs to another sweep, or is none of ours; it is left as it is.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.header: Header = {MARK: FORMAT, **identity}
        self.rows: dict[Key, Row] = {}
        self._file: Any = None
        self._require_writable()
        if self.path.exists() and self.path.stat().st_size:
            self._resume()

    def _require_writable(self) -> None:
        path, folder = self.path, self.path.parent
        why = ""
        if path.is_dir():
            why = "it is a folder"
        elif not folder.is_dir():
            why = f"there is no folder {folder}"
        elif path.exists() and not path.is_file():
            why = "it is not a regular file"
        elif not os.access(path if path.exists() else folder, os.W_OK):
            why = "permission denied"
        if why:
            raise OutputError(f"cannot keep results in {path}: {why}.")

    def _resume(self) -> None:
        try:
            header, rows, bad = _parsed(self.path)
        except ParseError as error:
            raise SweepError(f"{error} Give results= another path; this file is left as it is.") from None
        differences = list(_differences(header, self.header))
        if differences:
            listed = "\n".join(f"  {d}" for d in differences)
            raise SweepError(f"{self.path} keeps the results of another sweep; it is left as it is. What differs:\n{listed}")
        self.rows = {k: row for k, row in rows.items() if row["status"] in FINAL}
        if bad or len(self.rows) < len(rows):
            write_text(self.path, _line(header) + "".join(map(_line, self.rows.values())))

    def add(self, row: Row) -> None:
        """Keep a finished row; it is in the file when this returns. Rows that another run may finish are not kept."""
        if row["status"] not in FINAL:
            return
        try:
            if self._file is None:
                if not self.path.exists() or not self.path.stat().st_size:
                    write_text(self.path, _line(self.header))
                self._file = self.path.open("a", encoding="utf-8")
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot keep results in {self.path}: {error.strerror or error}. What it has so far is kept.") from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# -- differences -------------------------------------------------------------------------------------------------------


def _differences(there: Header, here: Header) -> Iterator[str]:
    """What the file says and what this sweep is, where they are not the same."""
    there, here = json.loads(json.dumps(there)), json.loads(json.dumps(here))
    if there["names"] != here["names"]:
        yield _difference("hyperparameters and constants", ", ".join(there["names"]), ", ".join(here["names"]))
    elif there["points"] != here["points"]:
        yield from _grid_difference(there, here)
    elif there["steps"] != here["steps"]:
        yield _difference("steps", _values(there["steps"]), _values(here["steps"]))
    for name in dict.fromkeys((*there, *here)):
        if name in ("names", "points", "steps", MARK, *SAID) or there.get(name) == here.get(name):
            continue
        one, two = there.get(name), here.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            for inner in dict.fromkeys((*one, *two)):
                if one.get(inner) != two.get(inner):
                    yield _difference(f"{name}, {inner}", one.get(inner, "nothing"), two.get(inner, "nothing"))
        else:
            yield _difference(name, one, two)


def _grid_difference(there: Header, here: Header) -> Iterator[str]:
    found = False
    for i, name in enumerate(here["names"]):
        one, two = _values([p[i] for p in there["points"]]), _values([p[i] for p in here["points"]])
        if one != two:
            found = True
            yield _difference(f"grid, {name}", one, two)
    if not found:
        yield _difference("grid", f"{len(there['points'])} points", f"{len(here['points'])} points, combined or ordered in another way")


def _values(numbers: Sequence[float]) -> str:
    return ", ".join(f"{v:.12g}" for v in dict.fromkeys(numbers))


def _difference(what: str, there: Any, here: Any) -> str:
    one, two = str(there), str(here)
    if max(len(one), len(two)) > _LONGEST:  # long texts: from a little before where they part
        part = max(next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))) - 20, 0)
        one, two = (("..." if part else "") + t[part : part + _LONGEST] + ("..." if len(t) > part + _LONGEST else "") for t in (one, two))
    return f"{what}: the file has {one}; this sweep {two}"
