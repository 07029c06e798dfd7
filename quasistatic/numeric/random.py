"""The random numbers of a simulation: a stream of normals for every (seed, trajectory).

Trajectory t of seed s owns a xoshiro256++ generator whose four words are splitmix64 outputs from
``splitmix(s) + t * 4 * GOLDEN`` on. Its normals are one sequence n_0, n_1, ...: pairs of uniforms through Box-Muller, both
numbers of a pair in order. An iteration that needs r normals takes the next r, so that step k uses n_{k r} ... n_{k r + r - 1}.
This definition is what "the same seed gives the same numbers" rests on: it never changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FOUR_GOLDEN = np.uint64(4 * 0x9E3779B97F4A7C15 % 2**64)

#: Drawn into every seed of a slow SDE, whose noise must be independent of the simulation with the same seed.
SLOW_SALT = 0x5851F42D4C957F2D

UInt = npt.NDArray[np.uint64]


def splitmix(x: UInt) -> tuple[UInt, UInt]:
    """splitmix64 on an array: the output and the next state."""
    x = x + GOLDEN
    z = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31)), x


def streams(seed: int, trajectories: int) -> UInt:
    """Initial generator states, shape (4, trajectories)."""
    start = splitmix(np.array([seed % 2**64], dtype=np.uint64))[0]
    k = start + np.arange(trajectories, dtype=np.uint64) * FOUR_GOLDEN
    words = np.empty((4, trajectories), dtype=np.uint64)
    for i in range(4):
        words[i], k = splitmix(k)
    return words


#: Draws a pair of normals ``n1, n2`` in lane l from the generator words ``S[i*L + l]``; Box-Muller without branches: log and
#: sincos as polynomials, so that LLVM vectorises over lanes.
PAIR = """\
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
