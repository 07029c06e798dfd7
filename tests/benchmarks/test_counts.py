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

COUNTS = Path(__file__).with_name("counts.json")
WRITE = "QUASISTATIC_WRITE_COUNTS"
PARTS: dict[str, Callable[[], dict[str, Any]]] = {"kernels": counting.kernels, "solves": counting.solves}


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
    """By hand: one product and one difference in the loop, one root once, a power per step."""
    source = """
def advance(Z, S, h, first, last):
    a = math.sqrt(h[0])
    for step in range(first, last):
        b = a ** (step + 1.0)
        for l in range(L):
            Z[5*L + l] = n1*n2
        for l in range(L):
            c = Z[32 + l]*b
            y0 = c - 2.0 if c > -1.0 else -c
            Z[l] = y0
"""
    assert counting.kernel_counts(source) == {
        "once": {"sqrt": 1}, "per step": {"add": 1, "power": 1}, "per trajectory and step": {"add": 2, "choice": 2, "multiply": 1},
    }  # fmt: skip


def test_solves_are_seen() -> None:
    """Heavy ball's law needs a system, and the watch sees it."""
    import quasistatic as qs

    with counting.recorded_solves() as seen:
        assert qs.derive(qs.zoo.heavy_ball).kernel != 0
    assert seen
