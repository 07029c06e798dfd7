"""Times of derivations in fresh processes, printed beside their targets: python tests/benchmarks/derivation_times.py

Times are CPU seconds after the imports, the median of three processes each; the shell's time is wall clock of the second
`quasistatic derive heavy_ball`. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

SETUP = """
import time, sympy as sp, quasistatic as qs
Q = sp.Rational
full = qs.CovarianceNoise([[3, 1, Q(1, 2)], [1, 2, Q(1, 3)], [Q(1, 2), Q(1, 3), 1]])
begin = time.process_time()
{code}
print(time.process_time() - begin)
"""
LOOK = "s = qs.derive({rule}, {problem}); s.drift, s.diffusion, s.covariance, s.conditions"
LAW = "law = qs.derive({rule}); law.kernel, law.matrix_equation, law.gain, law.speed_factor, law.conditions"
RULES = ("sgd", "heavy_ball", "heavy_ball_velocity", "ema_momentum", "nesterov", "qhm", "aggmo")


def cases() -> dict[str, tuple[str, float]]:
    """Label to code and target in seconds."""
    found = {f"{r} on the valley": (LOOK.format(rule=f"qs.zoo.{r}", problem="qs.zoo.valley()"), 1.0) for r in RULES}
    found |= {f"law of {r}": (LAW.format(rule=f"qs.zoo.{r}"), 2.0) for r in RULES}
    free = 'qs.zoo.aggmo.free("beta1", "beta2", "beta3")'
    found["law of aggmo, free betas: kernel"] = (f"law = qs.derive({free}); law.kernel, law.gain", 4.0)
    curved = "s = qs.derive(qs.zoo.heavy_ball, qs.zoo.curved_valley(noise=full)); s.drift, s.diffusion"
    found["heavy_ball on the curved valley, full noise"] = (curved, 5.0)
    return found


def seconds(code: str) -> float:
    runs = [subprocess.run([sys.executable, "-c", SETUP.format(code=code)], capture_output=True, text=True, check=True) for _ in range(3)]
    return statistics.median(float(r.stdout) for r in runs)


def main() -> None:
    for label, (code, target) in cases().items():
        print(f"{label:50s} {seconds(code):6.2f} s   target {target:g} s")
    command = [sys.executable, "-m", "quasistatic", "derive", "heavy_ball"]
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - begin)
    print(f"{'second `quasistatic derive heavy_ball`':50s} {statistics.median(times[1:]):6.2f} s   target 1.5 s (wall clock)")


if __name__ == "__main__":
    main()
