"""The random numbers of a simulation: a stream of normals for every (seed, trajectory), from one of two generators.

``"xoshiro"`` (the default, and the faster): trajectory t of seed s owns a xoshiro256++ generator whose four words are
splitmix64 outputs from ``splitmix(s) + t * 4 * GOLDEN`` on. Its normals are one sequence n_0, n_1, ...: pairs of uniforms
through Box-Muller, both numbers of a pair in order. An iteration that needs r normals takes the next r, so that step k
(from 0) uses n_{k r} ... n_{k r + r - 1}.

``"philox"``: normal j of step k is addressed by (seed, trajectory, k, j), whatever the number of normals per step: two rules,
or a rule and a slow SDE, that run with the same seed meet the same noise. Philox4x32-10 with the seed as its key and the
counter (j, trajectory, k // 2) gives the two uniforms of one Box-Muller pair; its first number belongs to the even step, its
second to the odd one.

These definitions are what "the same seed gives the same numbers" rests on: they never change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quasistatic.errors import QuasistaticError, suggestion

GENERATORS = ("xoshiro", "philox")
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FOUR_GOLDEN = np.uint64(4 * 0x9E3779B97F4A7C15 % 2**64)

#: Drawn into every seed of a slow SDE, whose noise must be independent of the simulation with the same seed.
SLOW_SALT = 0x5851F42D4C957F2D

UInt = npt.NDArray[np.uint64]


def generator_name(value: object) -> str:
    """One of :data:`GENERATORS`; QuasistaticError otherwise."""
    if value not in GENERATORS:
        raise QuasistaticError(f"there is no generator {value!r}: choose {' or '.join(GENERATORS)}.{suggestion(str(value), GENERATORS)}")
    return str(value)


def splitmix(x: UInt) -> tuple[UInt, UInt]:
    """splitmix64 on an array: the output and the next state."""
    x = x + GOLDEN
    z = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31)), x


def streams(seed: int, trajectories: int, generator: str = "xoshiro") -> UInt:
    """Initial generator words, shape (4, trajectories); of Philox the key and the trajectory, shape (2, trajectories)."""
    if generator == "philox":
        return np.array([np.full(trajectories, seed % 2**64, dtype=np.uint64), np.arange(trajectories, dtype=np.uint64)])
    start = splitmix(np.array([seed % 2**64], dtype=np.uint64))[0]
    k = start + np.arange(trajectories, dtype=np.uint64) * FOUR_GOLDEN
    words = np.empty((4, trajectories), dtype=np.uint64)
    for i in range(4):
        words[i], k = splitmix(k)
    return words


# -- the same numbers in NumPy ------------------------------------------------------------------------------------------


def normals(seed: int, trajectories: int, steps: int, rank: int, generator: str = "xoshiro", first: int = 0) -> npt.NDArray[np.float64]:
    """The standard normals that a simulation uses, shape (trajectories, steps, rank).

    For comparisons of two optimizers, or of an optimizer with a recursion of one's own, under the very same noise. The
    kernels' numbers agree with these to about fourteen digits (they contract products and sums).

    Parameters
    ----------
    seed, trajectories:
        Row t is the stream of (seed, t).
    steps, first:
        Iterations ``first``, ``first`` + 1, ..., counted from 0.
    rank:
        Normals per iteration, ``Simulator.noise_rank``.
    generator:
        ``"xoshiro"`` or ``"philox"``; with the latter the first columns do not depend on ``rank``.
    """
    if generator_name(generator) == "philox":
        return _philox_normals(seed, trajectories, steps, rank, first)
    words = streams(seed, trajectories)
    count = (first + steps) * rank
    found = np.empty((count + count % 2, trajectories))
    for i in range(0, count, 2):
        p, words = _xoshiro(words)
        q, words = _xoshiro(words)
        found[i], found[i + 1] = box_muller(p, q)
    return np.ascontiguousarray(found[first * rank : count].T).reshape(trajectories, steps, rank)


def _philox_normals(seed: int, trajectories: int, steps: int, rank: int, first: int) -> npt.NDArray[np.float64]:
    pairs = np.arange(first // 2, (first + steps + 1) // 2, dtype=np.uint64)
    shape = (trajectories, len(pairs), rank)
    t, m, j = np.meshgrid(np.arange(trajectories, dtype=np.uint64), pairs, np.arange(rank, dtype=np.uint64), indexing="ij")
    low, high = m & np.uint64(0xFFFFFFFF), m >> np.uint64(32)
    a, b, c, d = philox4x32((j, t, low, high), (np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)))
    n1, n2 = box_muller(a | (b << np.uint64(32)), c | (d << np.uint64(32)))
    both = np.stack([n1.reshape(shape), n2.reshape(shape)], axis=2).reshape(trajectories, 2 * len(pairs), rank)
    return np.ascontiguousarray(both[:, first % 2 : first % 2 + steps])


def philox4x32(counter: tuple[UInt, UInt, UInt, UInt], key: tuple[np.uint64, np.uint64]) -> tuple[UInt, UInt, UInt, UInt]:
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): four 32-bit words, held in uint64 arrays, of a counter under a key."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> shift) ^ b ^ k0, q & low, (p >> shift) ^ d ^ k1, p & low
        k0, k1 = np.uint64((int(k0) + 0x9E3779B9) & 0xFFFFFFFF), np.uint64((int(k1) + 0xBB67AE85) & 0xFFFFFFFF)
    return a, b, c, d


def _xoshiro(words: UInt) -> tuple[UInt, UInt]:
    a, b, c, d = words
    x = a + d
    out = ((x << np.uint64(23)) | (x >> np.uint64(41))) + a
    t = b << np.uint64(17)
    c, d = c ^ a, d ^ b
    b, a = b ^ c, a ^ d
    return out, np.array([a, b, c ^ t, (d << np.uint64(45)) | (d >> np.uint64(19))])


def box_muller(p: UInt, q: UInt) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The pair of normals of two random words: :data:`BOX_MULLER` in NumPy."""
    v = 2.0 - ((p >> np.uint64(12)) | np.uint64(0x3FF0000000000000)).view(np.float64)
    radius = np.sqrt(-2.0 * np.log(v))
    angle = (((q >> np.uint64(12)) | np.uint64(0x3FF0000000000000)).view(np.float64) - 1.5) * 1.5707963267948966
    sine, cosine = np.sin(angle), np.where(q & np.uint64(1), -1.0, 1.0) * np.cos(angle)
    swap = (q & np.uint64(2)) != 0
    return radius * np.where(swap, sine, cosine), radius * np.where(swap, cosine, sine)


# -- source of the kernels ---------------------------------------------------------------------------------------------

#: Draws two words ``p, q`` in lane l from the generator words ``S[i*L + l]``.
XOSHIRO = """\
a = S[l]
b = S[L + l]
c = S[2*L + l]
d = S[3*L + l]
x = a + d
p = ((x << u64(23)) | (x >> u64(41))) + a
t = b << u64(17)
c ^= a
d ^= b
b ^= c
a ^= d
c ^= t
d = (d << u64(45)) | (d >> u64(19))
x = a + d
q = ((x << u64(23)) | (x >> u64(41))) + a
t = b << u64(17)
c ^= a
d ^= b
b ^= c
a ^= d
c ^= t
d = (d << u64(45)) | (d >> u64(19))
S[l] = a
S[L + l] = b
S[2*L + l] = c
S[3*L + l] = d
"""


def _philox_text() -> str:
    """Two words ``p, q`` of the block (pair, trajectory ``S[L + l]``, half) under the key ``S[0]``; ten rounds, unrolled."""
    low = "u64(0xFFFFFFFF)"  # LLVM multiplies 32 bits by 32 in one instruction only if it sees that the others are zero
    lines = [f"a = u64(pair) & {low}", f"b = S[L + l] & {low}", f"c = u64(half) & {low}", "d = u64(half) >> u64(32)"]
    for i in range(10):
        if i:
            lines += ["k0 = (k0 + u64(0x9E3779B9)) & u64(0xFFFFFFFF)", "k1 = (k1 + u64(0xBB67AE85)) & u64(0xFFFFFFFF)"]
        lines += ["p = u64(0xD2511F53)*a", "q = u64(0xCD9E8D57)*c"]
        lines += ["a = (q >> u64(32)) ^ b ^ k0", "b = q & u64(0xFFFFFFFF)", "c = (p >> u64(32)) ^ d ^ k1", "d = p & u64(0xFFFFFFFF)"]
    return "\n".join(
        ["k0 = S[0] & u64(0xFFFFFFFF)", "k1 = S[0] >> u64(32)", *lines, "p = a | (b << u64(32))", "q = c | (d << u64(32))", ""]
    )


PHILOX = _philox_text()

#: A pair of normals ``n1, n2`` from the words ``p, q``; no branches, log and sincos as polynomials, so that LLVM vectorises over lanes.
BOX_MULLER = """\
v = as_bits(2.0 - as_float((p >> u64(12)) | u64(0x3FF0000000000000)))
e = np.int64(v - u64(0x3FE6A09E667F3BCD)) >> np.int64(52)
m = as_float(v - (u64(e) << u64(52)))
s = (m - 1.0)/(m + 1.0)
w = s*s
lg = 0.07692307692307693
lg = lg*w + 0.09090909090909091
lg = lg*w + 0.1111111111111111
lg = lg*w + 0.14285714285714285
lg = lg*w + 0.2
lg = lg*w + 0.3333333333333333
lg = lg*w + 1.0
r = math.sqrt(-2.0*(np.float64(e)*0.6931471805599453 + 2.0*s*lg))
f = (as_float((q >> u64(12)) | u64(0x3FF0000000000000)) - 1.5)*1.5707963267948966
g = f*f
sn = -2.505210838544172e-08
sn = sn*g + 2.7557319223985893e-06
sn = sn*g - 0.0001984126984126984
sn = sn*g + 0.008333333333333333
sn = sn*g - 0.16666666666666666
sn = (sn*g + 1.0)*f
cs = 2.08767569878681e-09
cs = cs*g - 2.755731922398589e-07
cs = cs*g + 2.48015873015873e-05
cs = cs*g - 0.001388888888888889
cs = cs*g + 0.041666666666666664
cs = cs*g - 0.5
cs = cs*g + 1.0
cs = as_float(as_bits(cs) ^ ((q & u64(1)) << u64(63)))
swap = (q & u64(2)) != u64(0)
n1 = r*(sn if swap else cs)
n2 = r*(cs if swap else sn)
"""

#: Source that draws a pair in lane l, by generator.
PAIRS = {"xoshiro": XOSHIRO + BOX_MULLER, "philox": PHILOX + BOX_MULLER}
