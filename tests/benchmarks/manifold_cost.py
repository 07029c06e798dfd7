"""Cost of one right-hand side of a manifold flow against the number of parameters and the rank: python tests/benchmarks/manifold_cost.py

Wall-clock times, the median of several; nothing is asserted. Set OPENBLAS_NUM_THREADS=1 on a machine that is shared: the
matrices are small, and threads that wait for a busy core cost more than they save.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

import quasistatic as qs


def at(m: int, n: int, p: int) -> tuple[qs.ArrayProblem, np.ndarray]:
    """A factorization with well-conditioned factors, and the point of its manifold that they are."""
    rng = np.random.default_rng(0)
    U = np.eye(m, p) + rng.standard_normal((m, p)) / (3 * np.sqrt(p))
    W = np.eye(n, p) + rng.standard_normal((n, p)) / (3 * np.sqrt(p))
    return qs.zoo.matrix_factorization(m, n, p, U @ W.T, noise=qs.LabelNoise("1/10")), np.concatenate([U.ravel(), W.ravel()])


def network(samples: int, hidden: int) -> tuple[qs.ArrayProblem, np.ndarray]:
    """A tanh network 64-hidden-1 on random data whose targets are its own outputs, batch 1."""
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (samples, 64))
    untrained = qs.zoo.mlp(64, hidden, 1, X, np.zeros(samples), noise=qs.LabelNoise("3/10", batch=1))
    z = untrained.functions.initial(0)
    return qs.zoo.mlp(64, hidden, 1, X, untrained.functions.residuals(z), noise=qs.LabelNoise("3/10", batch=1)), z


def seconds(problem: qs.ArrayProblem, z: np.ndarray, eta: float) -> tuple[float, int]:
    """Median time of a drift, and the rank."""
    flow = qs.manifold_flow(qs.zoo.heavy_ball, problem, eta=eta, mu=0.5)
    flow.drift(z)  # the first one checks derivatives
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        flow.drift(z)
        times.append(time.perf_counter() - begin)
    return statistics.median(times), len(flow.curvatures(z))


def exponent(sizes: list[float], times: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main() -> None:
    print(f"{'problem':40s} {'d':>6s} {'rank':>6s} {'time':>12s}")
    ds, ranks, times = [], [], []
    for m in (5, 8, 10, 14, 20, 26):
        problem, z = at(m, m, m)
        found, rank = seconds(problem, z, 1e-3)
        ds.append(float(problem.size))
        ranks.append(float(rank))
        times.append(found)
        target = {5: "target 2 ms", 20: "target 300 ms"}.get(m, "")
        print(f"{f'factorization {m}x{m}x{m}, full batch':40s} {problem.size:6d} {rank:6d} {1e3 * found:9.2f} ms  {target}")
    print(f"time grows as d^{exponent(ds[2:], times[2:]):.2f} = rank^{exponent(ranks[2:], times[2:]):.2f} (d = 2 rank/m)")
    widths, times = (30, 60, 120, 240), []
    for hidden in widths:
        problem, z = network(100, hidden)
        found, rank = seconds(problem, z, 1e-2)
        times.append(found)
        target = "target 1 s" if hidden == 60 else ""
        print(f"{f'network 64-{hidden}-1, batch 1':40s} {problem.size:6d} {rank:6d} {1e3 * found:9.2f} ms  {target}")
    print(f"at rank 100 time grows as d^{exponent([float(w) for w in widths], times):.2f}")
    counts, times = (50, 100, 150), []
    for samples in counts:
        problem, z = network(samples, 60)
        found, rank = seconds(problem, z, 1e-2)
        times.append(found)
        print(f"{f'network 64-60-1, {samples} images, batch 1':40s} {problem.size:6d} {rank:6d} {1e3 * found:9.2f} ms")
    print(f"at {problem.size} parameters time grows as rank^{exponent([float(c) for c in counts], times):.2f}")


if __name__ == "__main__":
    main()
