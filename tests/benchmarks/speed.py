"""Speed of the simulation beside other ways to write it: python tests/benchmarks/speed.py

Measures, in one run, and writes docs/speed.json, docs/speed.md, docs/speed.png and the table of README.md:

* the workloads W1-W4 of ``workloads.py`` with everything in ``rivals.py`` that is installed: 64 trajectories, one thread, CPU time,
  the implementations in turn, medians of the ratios to scalar C;
* cost per step against the size of the problem, every size in a process of its own;
* one thread and two; a first simulation in a new process.

Nothing is asserted here: machines differ (``test_speed.py`` asserts ratios). ``--print`` writes nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reference
import report
import sizes
from rivals import RIVALS, Runner
from workloads import WORKLOADS, Workload

import quasistatic as qs

ROOT = Path(__file__).resolve().parents[2]
TRAJECTORIES = 64
#: How often a run may lose its core and still counts as undisturbed: the operating system itself has work now and then.
PREEMPTIONS = 3
PACKAGES = ("numpy", "numba", "llvmlite", "jax", "diffrax", "jitcsde", "torch")
WARM_START = """
import time, numpy, sympy, numba
wall, cpu = time.perf_counter(), time.process_time()
import quasistatic as qs
qs.simulate(qs.zoo.sgd, qs.zoo.valley(), start={"x": 2, "y": 0}, steps=100_000, trajectories=64, eta=1e-2, alpha=0.125)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def runners(w: Workload) -> tuple[dict[str, tuple[Runner, int]], dict[str, str]]:
    """Label to runner and steps of everything that can run here, and label to reason of what cannot."""
    found: dict[str, tuple[Runner, int]] = {}
    missing: dict[str, str] = {}
    for label, (factory, _, few, many) in RIVALS.items():
        try:
            runner, steps = factory(w), many if w.name == "W4" else few
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runner(steps, TRAJECTORIES, 0)  # compiles
        except NotImplementedError:
            continue
        except (ImportError, RuntimeError) as error:
            missing[label] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            continue
        found[label] = runner, steps
    return found, missing


def compare(w: Workload, rounds: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Label to nanoseconds per trajectory-step, and ratios to scalar C and to SIMD C: medians over interleaved rounds."""
    found, missing = runners(w)
    times: dict[str, list[float]] = {label: [] for label in found}
    for r in range(rounds):
        for label, (runner, steps) in found.items():
            begin = time.process_time()
            final = runner(steps, TRAJECTORIES, r + 1)
            times[label].append((time.process_time() - begin) / steps / TRAJECTORIES * 1e9)
            if not np.isfinite(final).all():  # also keeps the result in use
                raise AssertionError(f"{label} on {w.name}: not finite")
    table = {label: {"ns": statistics.median(seen)} for label, seen in times.items()}
    for key, base in (("ratio", "scalar C"), ("ratio to SIMD C", "SIMD C")):
        for label, seen in times.items() if base in times else ():
            table[label][key] = statistics.median(a / b for a, b in zip(seen, times[base], strict=True))
    return table, missing


def threads(rounds: int, trajectories: int = 512, steps: int = 500_000) -> dict[str, float]:
    """W1 on one thread and on two: the ratio of wall clocks, "gain", and the one that the CPU times allow, "gain by CPU time".

    The wall clocks are medians of nanoseconds per trajectory-step over undisturbed runs: the operating system never took a core
    away from the process for another. There are up to five times as many tries as rounds; without a success for both, there is no
    "gain". The CPU times need no idle machine: what the calling thread does itself is serial, the rest is halved at best.
    """
    w = WORKLOADS["W1"]
    wall: dict[int, list[float]] = {1: [], 2: []}
    allowed: list[float] = []
    for n in wall:
        w.run(1000, trajectories, 0, n)
    for r in range(5 * rounds):
        used = {}
        for n in wall:
            begin, before = [now() for now in _CLOCKS], _preemptions()
            w.run(steps, trajectories, r, n)
            seconds, used[n], serial = (now() - b for now, b in zip(_CLOCKS, begin, strict=True))
            if _preemptions() - before <= PREEMPTIONS:
                wall[n].append(seconds / steps / trajectories * 1e9)
        allowed.append(used[1] / (serial + (used[2] - serial) / 2))
        if r + 1 >= rounds and min(map(len, wall.values())) >= rounds:
            break
    found: dict[str, float] = {"trajectories": trajectories, "gain by CPU time": statistics.median(allowed)}
    if all(wall.values()):
        one, two = (statistics.median(t) for t in wall.values())
        found |= {"one thread, ns": one, "two threads, ns": two, "gain": one / two, "undisturbed runs": min(map(len, wall.values()))}
    return found


_CLOCKS = time.perf_counter, time.process_time, time.thread_time


def _preemptions() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def warm_start(rounds: int = 5) -> dict[str, float]:
    """Seconds beyond importing numpy, sympy and numba of W1 with 64 trajectories and 10**5 steps in a new process; not the first."""
    seen = []
    for _ in range(rounds + 1):
        run = subprocess.run([sys.executable, "-c", WARM_START], capture_output=True, text=True, check=True, cwd=ROOT)
        seen.append([float(t) for t in run.stdout.split()])
    wall, cpu = zip(*seen[1:], strict=True)
    return {"wall clock, s": statistics.median(wall), "CPU, s": statistics.median(cpu), "first, s": seen[0][0]}


def cost_of_size(largest: int, limit: float) -> dict[str, list[dict[str, float]]]:
    """Records of ``sizes.py`` by family, up to the first size that takes longer than ``limit`` seconds."""
    table: dict[str, list[dict[str, float]]] = {}
    for family, listed in (("valley", sizes.VALLEYS), ("factorization", sizes.FACTORIZATIONS)):
        cap = 10 * largest if family == "valley" else largest
        for size in (s for s in listed if s <= cap):
            found = sizes.measure_apart(family, size, limit)
            if found is None:
                print(f"{family} {size}: not within {limit:g} s", flush=True)
                table.setdefault(family, []).append({"size": size, "limit": limit})
                break
            table.setdefault(family, []).append(found)
            print(f"{family} {size}: {found['ns']:.3g} ns per step, compiled in {found['compile_s']:.1f} s", flush=True)
    return table


def surroundings() -> dict[str, Any]:
    """The kind of machine and the versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = reference.compiler()
    words = "" if found is None else subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return {
        "architecture": platform.machine(), "vector bits": reference.vector_bits(), "cores": os.cpu_count(), "compiler": words,
        "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of the simulation beside other ways to write it.")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (9)")
    parser.add_argument("--largest", type=int, default=20, help="largest m of m x m x m factorizations; valleys to 10 m directions (20)")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one size (120)")
    parser.add_argument("--only", choices=PARTS, help="measure this part anew; the others stay as docs/speed.json has them")
    parser.add_argument("--print", action="store_true", dest="only_print", help="write no files")
    given = parser.parse_args(arguments)
    if Path(qs.__file__).resolve().parents[1] != ROOT:
        raise SystemExit(
            f"Python imports {Path(qs.__file__).parent}, not the package beside these benchmarks: PYTHONPATH={ROOT} python ..."
        )
    kept = ROOT / "docs/speed.json"
    data: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if given.only else {}
    for part, measure in PARTS.items():
        if given.only in (None, part):
            data |= measure(given)
            print(f"{part}: measured", flush=True)
    print(report.page(report.rounded(data)))
    for label, reason in data["missing"].items():
        print(f"not measured: {label} ({reason})")
    if not given.only_print:
        report.write(data, ROOT)


def compare_all(rounds: int) -> dict[str, Any]:
    """All workloads, what is missing, and where this is."""
    tables, missing = {}, {}
    for w in WORKLOADS.values():
        tables[w.name], absent = compare(w, rounds)
        missing.update(absent)
    return {"surroundings": surroundings(), "workloads": tables, "missing": missing}


#: Part of a run to its measurement, with the command line's options.
PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "workloads": lambda given: compare_all(given.rounds),
    "threads": lambda given: {"threads": threads(given.rounds)},
    "warm": lambda given: {"warm start": warm_start()},
    "sizes": lambda given: {"sizes": cost_of_size(given.largest, given.limit)},
}


if __name__ == "__main__":
    main()
