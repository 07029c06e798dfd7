"""The documents are exactly those of tests/show/golden/.

Where a change is wanted, write them anew and look at the difference before committing it:

    QUASISTATIC_WRITE_GOLDEN=1 python -m pytest tests/show/test_golden.py
    git diff tests/show/golden
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from cases import CASES, without_versions

from quasistatic.show import latex

GOLDEN = Path(__file__).parent / "golden"
WRITE = "QUASISTATIC_WRITE_GOLDEN"


@pytest.mark.parametrize("name", CASES)
def test_document_is_the_golden_one(name: str) -> None:
    source = without_versions(latex.document(CASES[name]()))
    path = GOLDEN / f"{name}.tex"
    if os.environ.get(WRITE):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    kept = path.read_text(encoding="utf-8")
    if source != kept:
        found = difflib.unified_diff(kept.splitlines(), source.splitlines(), f"golden/{path.name}", "now", lineterm="", n=1)
        pytest.fail("\n".join([*found, f"If this is wanted: {WRITE}=1 python -m pytest {Path(__file__).name}"]), pytrace=False)


def test_every_golden_file_is_compared() -> None:
    assert {p.stem for p in GOLDEN.glob("*.tex")} == set(CASES)
