"""Operations of kernels and sizes of solves are exactly those of counts.json: a regression shows in a diff, and so does progress.

Where a change is wanted, write them anew and look at the difference before committing it:

    QUASISTATIC_WRITE_COUNTS=1 python -m pytest tests/benchmarks/test_counts.py
    git diff tests/benchmarks/counts.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import counting
import pytest

import quasistatic as qs
from quasistatic.numeric.unfold import unfold

COUNTS = Path(__file__).with_name("counts.json")
WRITE = "QUASISTATIC_WRITE_COUNTS"
PARTS: dict[str, Callable[[], dict[str, Any]]] = {"kernels": counting.kernels, "loops": counting.loops, "solves": counting.solves}


@pytest.mark.parametrize("part", PARTS)
def test_counts_are_the_kept_ones(part: str) -> None:
    counts = PARTS[part]()
    kept = json.loads(COUNTS.read_text(encoding="utf-8")) if COUNTS.is_file() else {}
    if os.environ.get(WRITE):
        kept[part] = counts
        COUNTS.write_text(as_text(kept), encoding="utf-8")
    expected = kept.get(part, {})
    changed = [f"{label}: kept {expected.get(label)}, now {counts.get(label)}" for label in sorted({*counts, *expected})
               if counts.get(label) != expected.get(label)]  # fmt: skip
    if changed:
        pytest.fail("\n".join([*changed, f"If this is wanted: {WRITE}=1 python -m pytest {Path(__file__).name}"]), pytrace=False)


def as_text(parts: dict[str, dict[str, Any]]) -> str:
    """JSON with one line for every label, so that a difference is readable."""
    blocks = []
    for part, counts in sorted(parts.items()):
        lines = ",\n".join(f"  {json.dumps(label)}: {json.dumps(value)}" for label, value in sorted(counts.items()))
        blocks.append(f" {json.dumps(part)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def test_counting_counts() -> None:
    """Against counts by hand."""
    found = counting.operations("a = b*b - 2.0\nc = -2.0*math.sqrt(a)\nd = c/b if b > -1.0 else -a")
    assert found == {"add": 2, "choice": 2, "divide": 1, "multiply": 2, "sqrt": 1}
    # x - eta*2*x*y**2, y - eta*(2*s*y + sqrt(2*alpha*s)*n), s = 1 + x**2: at least four additions, one root per trajectory
    counts = counting.kernel_counts(unfold(qs.zoo.sgd, qs.zoo.valley()))
    assert counts["per trajectory"]["sqrt"] == 1
    assert 4 <= counts["per trajectory"]["add"] <= 5
    assert 8 <= counts["per trajectory"]["multiply"] <= 12


def test_solves_are_seen() -> None:
    """Heavy ball's law needs a system, and the watch sees it."""
    with counting.recorded_solves() as seen:
        assert qs.derive(qs.zoo.heavy_ball).kernel != 0
    assert seen
