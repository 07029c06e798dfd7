"""The page, the chart and the README's table of one run of ``speed.py``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TITLES = {
    "W1": "SGD on a valley", "W2": "heavy ball on a valley", "W3": "Adam on a rotated valley", "W4": "SGD on a 5×5×5 factorization",
}  # fmt: skip
OURS = "quasistatic"
BEGIN, END = "<!-- written by tests/benchmarks/speed.py -->", "<!-- end -->"
ROUNDED = 4  # digits kept in the JSON file


def labels(data: dict[str, Any]) -> list[str]:
    """Implementations measured anywhere, the first workload's order first."""
    found: dict[str, None] = {}
    for table in data["workloads"].values():
        found.update(dict.fromkeys(table))
    return list(found)


def number(value: float) -> str:
    """Two digits below ten, none above: a ratio for reading."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def ratio_table(data: dict[str, Any]) -> str:
    """CPU time relative to scalar C, as Markdown."""
    tables = data["workloads"]
    lines = ["| CPU time, scalar C = 1 | " + " | ".join(TITLES[w] for w in tables) + " |", "|---|" + "---|" * len(tables)]
    for label in labels(data):
        name = f"**{label}**" if label == OURS else label
        cells = [number(t[label]["ratio"]) if "ratio" in t.get(label, {}) else "–" for t in tables.values()]
        lines.append(f"| {name} | " + " | ".join(f"**{c}**" if label == OURS else c for c in cells) + " |")
    scalar = [f"{t['scalar C']['ns']:.1f}" if "scalar C" in t else "" for t in tables.values()]
    lines.append("| scalar C, ns per trajectory and step | " + " | ".join(scalar) + " |")
    return "\n".join(lines)


def machine(data: dict[str, Any]) -> str:
    """The kind of machine in words."""
    around = data["surroundings"]
    vectors = {512: "AVX-512", 256: "AVX2"}.get(around["vector bits"], f"{around['vector bits']}-bit vectors")
    return f"{around['architecture']} with {vectors}"


def page(data: dict[str, Any]) -> str:
    """docs/speed.md."""
    around = data["surroundings"]
    versions = ", ".join(f"{k} {v}" for k, v in around["versions"].items())
    lines = [
        "# Speed", "",
        "Written by `python tests/benchmarks/speed.py`, which compares implementations of the same iterations in one run. 64 trajectories,"
        " float64, one thread, CPU time, medians of interleaved rounds.", "",
        f"This run: {machine(data)}; Python {around['python']}, {versions}; {around['compiler'] or 'no C compiler'}.", "",
        "![CPU time of one step relative to scalar C](speed.png)", "", ratio_table(data), "",
    ]  # fmt: skip
    ours = [t.get(OURS, {}).get("ratio to SIMD C") for t in data["workloads"].values()]
    if all(ours):
        lines += ["quasistatic relative to SIMD C: " + ", ".join(f"{r:.2f}" for r in ours) + ".", ""]
    lines += _WHO
    for family, what, per in (("valley", "normal directions", "direction"), ("factorization", "m of m×m×m", "m³")):
        records = data["sizes"].get(family, [])
        if records:
            lines += ["", f"## SGD on a {family}: cost against size", "", *_size_table(family, records, what, per)]
    two, warm = data["threads"], data["warm start"]
    lines += [
        "", "## Threads and the first simulation of a process", "",
        f"* {_two_threads(two)} By their CPU times and the serial part, two threads on an idle machine are at most"
        f" {two['gain by CPU time']:.2f} times as fast as one.",
        f"* 64 trajectories of 10⁵ steps of SGD in a new process, nothing to compile: {warm['CPU, s']:.2f} s of CPU time"
        f" ({warm['wall clock, s']:.2f} s) beyond importing numpy, sympy and numba.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _two_threads(measured: dict[str, float]) -> str:
    if "gain" not in measured:
        return "One thread and two, wall clock: not compared, other programs used the machine."
    return (
        f"Two threads were {measured['gain']:.2f} times as fast as one (wall clock, {measured['trajectories']} trajectories, medians of"
        f" {measured['undisturbed runs']} runs or more that other programs did not disturb)."
    )


_WHO = [
    "* **scalar C**: one trajectory after the other, xoshiro256++ and ziggurat normals; **SIMD C**: loops over trajectories that the"
    " compiler vectorises, Box-Muller without branches ([reference.c](../tests/benchmarks/reference.c)).",
    "* **numba, np.random**: loops as people write them. **JAX**: `lax.scan` over steps, `vmap` over trajectories. **NumPy**: all"
    " trajectories in one array. **torch.optim**: the trajectories are a batch ([rivals.py](../tests/benchmarks/rivals.py)).",
    "* **diffrax** solves the SDE whose Euler step of length 1 is the map; **JiTCSDE** the SDE itself, with steps of its own choice"
    " (tolerances 10⁻³, 10⁻²).",
]


def _size_table(family: str, records: list[dict[str, float]], what: str, per: str) -> list[str]:
    lines = [f"| {what} | ns per trajectory and step | ns per {per} | compile, CPU s | build, CPU s |", "|---|---|---|---|---|"]
    for r in records:
        if "limit" in r:
            lines.append(f"| {r['size']:.0f} | not within {r['limit']:.0f} s | | | |")
            continue
        n = r["size"] if family == "valley" else r["size"] ** 3
        lines.append(f"| {r['size']:.0f} | {r['ns']:.3g} | {r['ns'] / n:.2g} | {r['compile_s']:.1f} | {r['build_s']:.1f} |")
    return lines


def readme(text: str, data: dict[str, Any]) -> str:
    """The README with this run's table between the two comments."""
    body = f"{BEGIN}\n\n{ratio_table(data)}\n\nMeasured in one run on {machine(data)}.\n\n{END}"
    changed, count = re.subn(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: body, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"README.md needs {BEGIN} ... {END} once")
    return changed


def write(data: dict[str, Any], root: Path) -> None:
    """docs/speed.json, .md and .png, and the table in README.md."""
    data = rounded(data)
    docs = root / "docs"
    (docs / "speed.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (docs / "speed.md").write_text(page(data), encoding="utf-8")
    (root / "README.md").write_text(readme((root / "README.md").read_text(encoding="utf-8"), data), encoding="utf-8")
    chart(data, docs / "speed.png")


def rounded(value: Any) -> Any:
    """Floats to a few digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.{ROUNDED}g}") if isinstance(value, float) else value


def chart(data: dict[str, Any], path: Path) -> None:
    """Bars from scalar C on a logarithmic axis: faster to the left, slower to the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tables = {w: t for w, t in data["workloads"].items() if "scalar C" in t}
    names = [label for label in labels(data) if label != "scalar C"]
    figure, axes = plt.subplots(1, len(tables), figsize=(11, 0.34 * len(names) + 1.3), sharey=True, squeeze=False, layout="constrained")
    every = [r["ratio"] for t in tables.values() for r in t.values()]
    left, right = min(every) / 6, max(every) * 6
    for axis, (w, table) in zip(axes[0], tables.items(), strict=True):
        for row, label in enumerate(names):
            ratio = table.get(label, {}).get("ratio")
            if ratio is None:
                axis.annotate("–", (1, row), xytext=(4, 0), textcoords="offset points", va="center", color="0.6")
                continue
            color = "#d1495b" if label == OURS else "#6b8299" if ratio < 1 else "#a9b8c6"
            axis.barh(row, ratio - 1, left=1, color=color, height=0.72)
            axis.annotate(
                number(ratio), (ratio, row), xytext=(4 if ratio > 1 else -4, 0), textcoords="offset points", va="center", fontsize=8.5,
                ha="left" if ratio > 1 else "right", weight="bold" if label == OURS else "normal",
            )  # fmt: skip
        axis.axvline(1, color="black", lw=1)
        axis.set(xscale="log", xlim=(left, right))
        ticks = [10.0**k for k in range(-3, 5) if left <= 10.0**k <= right]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.set_title(f"{TITLES[w]}\nscalar C: {table['scalar C']['ns']:.3g} ns", fontsize=9.5)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", color="0.9", lw=0.7)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=9.5)
    axes[0][0].get_yticklabels()[names.index(OURS)].set_weight("bold")
    axes[0][0].invert_yaxis()
    figure.supxlabel("CPU time per trajectory and step, relative to scalar C (left of the line is faster)", fontsize=9.5)
    figure.savefig(path, dpi=130)
    plt.close(figure)
