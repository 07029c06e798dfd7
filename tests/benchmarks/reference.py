"""The C references of ``reference.c``, compiled at run time, called in this process."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

SOURCE = Path(__file__).with_name("reference.c")
#: Without -fno-tree-slp-vectorize gcc packs the generator's words into vectors: 1.5 times slower, a straw man.
FLAGS = ("-O3", "-march=native", "-fno-tree-slp-vectorize", "-fno-math-errno", "-fno-trapping-math")
#: Trajectories side by side in the SIMD references: the fastest of 8 ... 64 where they were written (AVX-512).
LANES = {"w1": 32, "w2": 32, "w3": 64, "w4": 16}
Array = npt.NDArray[np.float64]


def compiler() -> str | None:
    """The C compiler: $CC, else gcc or cc; None where there is none."""
    return next((found for name in (os.environ.get("CC"), "gcc", "cc") if name and (found := shutil.which(name))), None)


def vector_bits() -> int:
    """Width of the machine's vectors of float64 that the kernels can use: 512 (AVX-512), 256 (AVX2) or 128."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512dq"):
        return 512
    return 256 if features.get("avx2") else 128


@cache
def library(lanes: int) -> ctypes.CDLL:
    """The compiled references; RuntimeError with the compiler's words where it fails."""
    found = compiler()
    if found is None:
        raise RuntimeError("no C compiler")
    wide = ("-mprefer-vector-width=512",) if vector_bits() == 512 else ()
    with tempfile.TemporaryDirectory() as folder:  # a loaded library may lose its file
        target = Path(folder) / "reference.so"
        command = [found, *FLAGS, *wide, f"-DLANES={lanes}", "-shared", "-fPIC", "-o", str(target), str(SOURCE), "-lm"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"{' '.join(command)}: {run.stderr[-2000:]}")
        return ctypes.CDLL(str(target))


def run(name: str, numbers: Array, start: Array, steps: int, trajectories: int, seed: int) -> Array:
    """Final parameters (trajectories, d) of e.g. ``scalar_w1`` after an even number of steps."""
    if steps % 2:
        raise ValueError("the references take two steps at a time")
    out = np.empty((trajectories, len(start)))
    h, z = (np.ascontiguousarray(a, dtype=np.float64) for a in (numbers, start))
    double = ctypes.POINTER(ctypes.c_double)
    function = getattr(library(LANES[name[-2:]]), name)
    function.restype = None
    function.argtypes = (ctypes.c_long, ctypes.c_long, double, double, ctypes.c_uint64, double)
    function(trajectories, steps, h.ctypes.data_as(double), z.ctypes.data_as(double), seed, out.ctypes.data_as(double))
    return out
