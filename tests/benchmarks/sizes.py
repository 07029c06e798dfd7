"""Cost per step against the size of the problem; one size per process: python tests/benchmarks/sizes.py valley 20

Prints a JSON record, all CPU time: seconds to build the map and its source, seconds to compile it, nanoseconds per trajectory-step.
Kernels are compiled anew, in a cache folder of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import workloads

import quasistatic as qs
from quasistatic.numeric.kernel import best_lanes, lane_program
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.unfold import map_numbers, unfold

VALLEYS = (2, 5, 10, 20, 50, 100, 200)
TRAJECTORIES = 64
FACTORIZATIONS = (2, 3, 5, 8, 12, 16, 20)


def valley(n: int) -> Any:
    """f = sum_i (1 + c_i x^2) y_i^2 with n normal directions, noise proportional to the Hessian."""
    x, y, alpha = qs.symbols("x"), qs.symbols(f"y0:{n}"), qs.symbols("alpha", positive=True)
    loss = sum((1 + sp.Rational(n + i, n) * x**2) * y[i] ** 2 for i in range(n))
    return qs.Problem(loss, dict.fromkeys(y, 0), qs.HessianNoise(alpha), parameters=(x, *y))


def measure(family: str, size: int) -> dict[str, float]:
    """Times of SGD on one problem."""
    begin = time.process_time()
    if family == "valley":
        problem, numbers = valley(size), {"eta": 1e-3, "alpha": 0.125}
        start = np.array([1.0] + [0.0] * size)
    else:
        problem, numbers, start = workloads.factorization(size), {"eta": 1e-3, "sigma": 0.1}, workloads.factorization_start(size)
    step = unfold(qs.zoo.sgd, problem)
    program = lane_program(step, lanes=best_lanes(step, TRAJECTORIES))
    built = time.process_time()
    lanes = Lanes(program, map_numbers(step, numbers), 0, TRAJECTORIES)
    compiled = time.process_time()
    lanes.set_state(start)
    lanes.advance(200)
    runs, steps = [], 200
    while len(runs) < 5:
        clock = time.process_time()
        lanes.advance(steps)
        seconds = time.process_time() - clock
        if seconds < 0.05:
            steps *= 4
        else:
            runs.append(seconds / steps / lanes.trajectories * 1e9)
    return {
        "size": size,
        "lines": program.source.count("\n"),
        "operations": program.operations,
        "lanes": program.lanes,
        "build_s": built - begin,
        "compile_s": compiled - built,
        "ns": float(np.median(runs)),
    }


def measure_apart(family: str, size: int, limit: float) -> dict[str, float] | None:
    """:func:`measure` in a process of its own with nothing compiled yet; None where ``limit`` seconds are not enough."""
    with tempfile.TemporaryDirectory() as folder:
        # the package that is measured here, not another one that is installed
        environment = {**os.environ, "QUASISTATIC_CACHE_DIR": folder, "PYTHONPATH": str(Path(qs.__file__).parents[1])}
        command = [sys.executable, __file__, family, str(size)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit, env=environment)
        except subprocess.TimeoutExpired:
            return None
        found: dict[str, float] = json.loads(run.stdout)
        return found


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
