"""A validation report as a table."""

from __future__ import annotations

from typing import Any

from quasistatic.show.text import table


def report_text(report: Any) -> str:
    """Quantity, theory, simulation, standard error, z and verdict of every comparison, and what the theory neglects."""
    about = report.provenance
    values = ", ".join(f"{k}={v:g}" for k, v in about["values"].items())
    start = ", ".join(f"{k}={v:g}" for k, v in about["start"].items())
    lines = [
        f"{about['rule_name']} on {about['problem_name'] or about['problem']}: {values}; from {start},"
        f" {about['steps']} steps, {about['trajectories']} trajectories, seed {about['seed']}"
    ]
    header = ("quantity", "theory", "simulation", "std. error", "z", "verdict")
    rows = [_cells(r, "pass" if r.passed else "FAIL") for r in report.rows]
    rows += [_cells(r, "") for r in report.informative]
    lines.append(table(header, rows))
    if report.sizes:
        lines.append("neglected, to be small against 1: " + ", ".join(f"{k} = {v:.2g}" for k, v in report.sizes.items()))
    if report.interrupted:
        lines.append("interrupted: the table shows what was computed.")
    verdict = "passed" if report.passed else "FAILED"
    lines.append(f"{verdict}: differences are judged at 5 standard errors.")
    return "\n".join(lines)


def _cells(row: Any, verdict: str) -> tuple[str, ...]:
    return (row.quantity, f"{row.theory:.6g}", f"{row.simulation:.6g}", f"{row.error:.2g}", f"{row.z:+.2f}", verdict)
