"""The stream of normals once more, in Python integers and NumPy: written from its definition, shares no code with the library."""

from __future__ import annotations

import math

import numpy as np

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(x: int) -> tuple[int, int]:
    x = (x + GOLDEN) & MASK
    z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31), x


def rotl(x: int, k: int) -> int:
    return ((x << k) | (x >> (64 - k))) & MASK


def words(seed: int, trajectory: int, count: int) -> list[int]:
    """The first outputs of xoshiro256++ for (seed, trajectory)."""
    k = (splitmix(seed)[0] + trajectory * 4 * GOLDEN) & MASK
    state = []
    for _ in range(4):
        word, k = splitmix(k)
        state.append(word)
    a, b, c, d = state
    out = []
    for _ in range(count):
        out.append((rotl((a + d) & MASK, 23) + a) & MASK)
        t = (b << 17) & MASK
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= t
        d = rotl(d, 45)
    return out


def normals(seed: int, trajectory: int, count: int) -> np.ndarray:
    """n_0 ... n_{count-1} by Box-Muller with the library's log, sin and cos; twelve digits agree with the kernel's polynomials."""
    pairs = words(seed, trajectory, 2 * ((count + 1) // 2))
    found = []
    for p, q in zip(pairs[::2], pairs[1::2], strict=True):
        v = 1.0 - (p >> 12) / 2**52
        r = np.sqrt(-2.0 * np.log(v))
        angle = ((q >> 12) / 2**52 - 0.5) * np.pi / 2
        s, c = np.sin(angle), np.cos(angle)
        if q & 1:
            c = -c
        found += [r * s, r * c] if q & 2 else [r * c, r * s]
    return np.array(found[:count])


def interpret(program, numbers, states: np.ndarray, steps: int) -> np.ndarray:
    """Run a kernel's source as plain Python, without a compiler: states (up to 16, n) of a map without noise after some steps."""
    assert program.lanes == 16
    source = "\n".join(line for line in program.source.splitlines() if "import" not in line and not line.startswith("@njit"))
    scope = {
        "np": np, "math": math, "exp": math.exp, "log": math.log, "power": math.pow, "maximum": max, "minimum": min,
        "sign": lambda v: float(np.sign(v)), "load_row": lambda loop, Z, i: Z[i],
        "store_row": lambda loop, Z, i, value: Z.__setitem__(i, value),
    }  # fmt: skip
    exec(source, scope)
    Z = np.zeros((program.rows, 16))
    Z[: program.variables, : len(states)] = states.T
    flat = Z.reshape(-1)
    with np.errstate(all="ignore"):
        scope["advance"](flat, None, np.array(numbers), program.table, 0, np.array([steps]), 0, program.variables, np.zeros(0))
    return Z[: program.variables, : len(states)].T.copy()
