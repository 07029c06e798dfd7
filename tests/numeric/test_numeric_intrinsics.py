"""Functions that kernels use in place of the C library's, against NumPy."""

import threading
import time

import numpy as np
import pytest
import sympy as sp
from numba import njit

from quasistatic.numeric.intrinsics import exp, log, power
from quasistatic.numeric.kernel import StochasticMap
from quasistatic.numeric.lanes import Lanes

FLAGS = {"contract", "nsz", "arcp"}


@njit(fastmath=FLAGS, error_model="numpy")
def exponentials(x, out):
    for i in range(len(x)):
        out[i] = exp(x[i])


@njit(fastmath=FLAGS, error_model="numpy")
def logarithms(x, out):
    for i in range(len(x)):
        out[i] = log(x[i])


@njit(fastmath=FLAGS, error_model="numpy")
def powers(x, y, out):
    for i in range(len(x)):
        out[i] = power(x[i], y[i])


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -745.1, -745.2, -744, -708.5, 709.78, 709.79, 710, 1e308, 5e-324, 1e-310, 1, -1, 2.3e-308]


def numbers() -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = [rng.normal(size=20_000) * s for s in (1e-8, 0.01, 1, 30, 300)]
    near_one = [1 + rng.normal(size=20_000) * s for s in (1e-6, 1e-2, 0.2)]
    return np.concatenate([*spread, *near_one, np.exp(rng.uniform(-745, 709, 50_000)), SPECIAL])


@pytest.mark.parametrize(("ours", "numpys"), [(exponentials, np.exp), (logarithms, np.log)])
def test_two_units_in_the_last_place(ours, numpys):
    x = numbers()
    found = np.empty_like(x)
    ours(x, found)
    with np.errstate(all="ignore"):
        expected = numpys(x)
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite], equal_nan=True)
    assert (np.abs(found[finite] - expected[finite]) <= 2 * np.spacing(np.abs(expected[finite]))).all()


def test_powers():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.lognormal(0, 2, 20_000), rng.normal(size=5000), [0, 0, 0, -2, -2, -2, 1, 2, 2, np.nan, np.inf]])
    y = np.concatenate([3 * rng.normal(size=20_000), rng.integers(-4, 5, 5000), [0, 2.5, -1.5, 3, 2, 0.5, 7, 0, -3, 1, 0.5]])
    found = np.empty_like(x)
    powers(x, y, found)
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite], equal_nan=True)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-14)


def test_other_threads_run_meanwhile():
    """A kernel holds no lock of the interpreter: the main thread keeps waking up while one runs for longer than that takes."""
    x, n = sp.Symbol("x", real=True), sp.Symbol("n 0", real=True)
    lanes = Lanes(StochasticMap((x,), (), (n,), (), (x / 2 + n,)), [], 0, 64)
    steps = 1000
    while True:  # a piece of work of a fifth of a second
        begun = time.perf_counter()
        lanes._run(lanes.step + steps)
        if time.perf_counter() - begun > 0.2:
            break
        steps *= 4
    thread = threading.Thread(target=lanes._run, args=(lanes.step + 2 * steps,))
    thread.start()
    wakings = 0
    while thread.is_alive():
        time.sleep(0.005)
        wakings += 1
    assert wakings > 3
