"""The derivation pages: every equation agrees with the library, every erratum fails, and the documents compile and fit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "derivations"
if not FOLDER.is_dir():
    pytest.skip("the derivation pages are in the source tree", allow_module_level=True)

sys.path.insert(0, str(FOLDER))
import adaptive_slow_sde  # noqa: E402
import pages  # noqa: E402
import quasistatic_adam  # noqa: E402
import quasistatic_momentum  # noqa: E402
import quasistatic_sgd  # noqa: E402

sys.path.remove(str(FOLDER))

MODULES = {"sgd": quasistatic_sgd, "momentum": quasistatic_momentum, "adam": quasistatic_adam, "adaptive": adaptive_slow_sde}
NUMBERS = {
    "sgd": range(1, 15),
    "momentum": (*range(15, 23), *range(28, 40)),
    "adam": (*range(23, 28), *range(40, 56)),
    "adaptive": range(1, 37),
}
#: Errata of the quasistatic paper, in three pages, and of the poster about adaptive methods, which has its own numbers.
PAPER = {f"E{i}" for i in range(1, 25) if i not in (9, 13)} | {"E9(i)", "E9(ii)"}  # E13 is about matrix factorization
POSTER = {f"E{i}" for i in range(1, 7)}
needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def entries() -> Iterator[tuple[str, pages.Entry]]:
    for name, module in MODULES.items():
        for index, entry in enumerate(module.PAGE.entries()):
            yield f"{name}-{index}-({entry.number})", entry


def errata() -> Iterator[tuple[str, pages.Entry, pages.Erratum]]:
    for label, entry in entries():
        for index, erratum in enumerate(entry.errata):
            yield f"{label}-{erratum.number or 'variant'}-{index}", entry, erratum


@pytest.mark.parametrize("entry", [pytest.param(e, id=i) for i, e in entries()])
def test_equation(entry: pages.Entry) -> None:
    assert entry.check()


@pytest.mark.parametrize(("entry", "erratum"), [pytest.param(e, r, id=i) for i, e, r in errata()])
def test_erratum_fails_the_same_check(entry: pages.Entry, erratum: pages.Erratum) -> None:
    assert entry.rejects(erratum)


@pytest.mark.parametrize("name", MODULES)
def test_every_number_in_order(name: str) -> None:
    found = [int(e.number) for e in MODULES[name].PAGE.entries() if e.number.isdigit()]
    assert found == list(NUMBERS[name])


@pytest.mark.parametrize(("names", "numbers"), [(("sgd", "momentum", "adam"), PAPER), (("adaptive",), POSTER)])
def test_every_erratum_has_a_remark(names: tuple[str, ...], numbers: set[str]) -> None:
    found = {r.number for label, _, r in errata() if label.split("-")[0] in names}
    assert found - {""} == numbers


@pytest.mark.parametrize("name", ["adam", "adaptive"])
def test_every_equation_can_fail(name: str) -> None:
    """Every numbered check rejects some form, so that none of them passes whatever it is given."""
    bare = {e.number for e in MODULES[name].PAGE.entries() if not e.errata}
    assert bare <= {"27", "54"}  # (50), (55) and (26) once more


@pytest.mark.parametrize("name", MODULES)
def test_a_wrong_equation_is_reported(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page whose equation is the published misprint exits with 1 and says which."""
    right = next(e for e in MODULES[name].PAGE.entries() if e.errata)
    swapped = pages.Erratum("E0", "", right.printed)
    wrong = pages.Entry(right.number, right.sentence, right.latex, right.errata[0].published, right.residual, (swapped,))
    page = pages.Page("", "", (pages.Section("", "", (lambda: wrong,)),))
    assert pages.run(page, [str(tmp_path / "page.tex")], "") == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed
    assert "SHOULD FAIL" in printed


def run_page(module: ModuleType, folder: Path) -> tuple[Path, str]:
    """Run the file as a user does; the document and the lines."""
    assert module.__file__ is not None
    out = folder / "page.tex"
    done = subprocess.run([sys.executable, module.__file__, str(out)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@needs_tex
@pytest.mark.parametrize("name", MODULES)
def test_the_file_runs_and_its_document_compiles(name: str, tmp_path: Path) -> None:
    """One line an equation; no box is wider than the page by over 10 points, no reference or character is missing."""
    path, lines = run_page(MODULES[name], tmp_path)
    count = len(MODULES[name].PAGE.entries())
    assert lines.count(" ok") == len(lines.splitlines()) == count
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", path.name], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    log = path.with_suffix(".log").read_text(errors="replace")
    assert not [w for w in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log) if float(w) > 10]
    assert "Missing character" not in log
    assert not re.search(r"usepackage(?:\[[^]]*\])?\{(?!geometry|amsmath)", path.read_text())


def test_pages_name_no_private_material() -> None:
    for module in (pages, *MODULES.values()):
        assert module.__file__ is not None
        assert "shared/" not in Path(module.__file__).read_text(encoding="utf-8")
