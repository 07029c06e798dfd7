"""Where optimizers stop: two problems whose minima form a surface, and every optimizer its own point on it.

Under label noise an optimizer descends sum_i F(H_ii) along the minima, F depending on its preconditioner: SGD descends
the trace of the Hessian, Adam the sum of the roots of its diagonal. On ``two_channels`` (flat, four parameters) and
``paraboloid`` (curved, three) these have minima apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import minimize

from quasistatic import zoo
from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.studies.slow_time import Array, Experiment, Sample, extrapolate, sample

#: Noise strength, memory of the momentum, (1 - beta2)/eta^2 and second moments at the start.
ALPHA, BETA1, RATE, MOMENTS = 1.0, 0.9, 1.0, 20.0
#: Part of a run, at the end, that its resting point is averaged over, and how often.
LAST, RECORDS = 0.4, 40


@dataclass(frozen=True, eq=False)
class Contender:
    """An optimizer on one of the problems.

    Attributes
    ----------
    name, rule, problem:
        What runs.
    start:
        Coordinates at the start.
    time:
        Slow time t = eta^2 k after which it has come to rest.
    etas:
        Two learning rates, the first twice the second.
    trajectories:
        Of each run.
    eps:
        Where the rule has one that is not fixed.
    """

    name: str
    rule: Rule
    problem: Problem
    start: Mapping[str, float]
    time: float
    etas: tuple[float, float]
    trajectories: int = 512
    eps: float = 0.0
    hyper: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> Experiment:
        """The runs and flows behind it."""
        known = {"alpha": ALPHA, "beta1": BETA1, "eps": self.eps, **self.hyper}
        names = {*self.rule.hyperparameters, "alpha"}
        state = {s.name: MOMENTS for s in self.rule.trace.states if s.slow}
        return Experiment(self.rule, self.problem, self.start, state, {n: v for n, v in known.items() if n in names}, RATE)

    @cached_property
    def regularizer(self) -> sp.Expr:
        """What it descends, at leading order per iteration: the library's, with numbers for all but the coordinates (eta = 1)."""
        slow = self.experiment.limit
        psi = (slow.adiabatic() if isinstance(slow, AdaptiveResult) else slow).regularizer()
        numbers = {s: sp.Float(self.experiment.values(1.0)[s.name]) for s in psi.free_symbols - set(slow.coordinates)}
        return psi.xreplace(numbers)

    def potential(self, u: Array) -> Array:
        """The regularizer at points (..., k)."""
        names = self.problem.chart.coordinates
        return np.asarray(sp.lambdify(names, self.regularizer, "numpy")(*np.moveaxis(u, -1, 0)))

    @cached_property
    def predicted(self) -> Array:
        """(k,) the regularizer's minimum next to the start."""
        u0 = np.array([self.start[c.name] for c in self.problem.chart.coordinates], dtype=np.float64)
        search: Any = minimize  # the stubs know no options of this method
        found = search(self.potential, u0, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000})
        return np.asarray(found.x, dtype=np.float64)

    def rests(self, eta: float, seed: int, threads: int = 1) -> Sample:
        """Time mean of the coordinates over the last part of a run, over trajectories, (k,)."""
        times = self.time * np.linspace(1 - LAST, 1, RECORDS + 1)[1:]
        u, _ = self.experiment.run(list(times), eta, self.trajectories, seed, threads)
        return sample(u.mean(axis=0))

    def limit(self, seed: int, threads: int = 1) -> tuple[Sample, Sample]:
        """Where it rests at the smaller learning rate, and extrapolated to none."""
        coarse, fine = (self.rests(eta, seed + i, threads) for i, eta in enumerate(self.etas))
        return fine, extrapolate(coarse, fine)


def two_channels() -> dict[str, Contender]:
    """Optimizers on ``zoo.two_channels()`` from (1.5, -1), all second moments 20."""
    flat = zoo.two_channels()
    t1, t2, t3, t4 = flat.parameters
    blocks = flat.with_blocks([(t1, t2), (t3, t4)])
    base = Contender("SGD", zoo.sgd, flat, {"x": 1.5, "y": -1.0}, 10.0, (0.01, 0.005))
    return _named(
        base,
        replace(base, name="AdamE-1/4", rule=_power("1/4"), time=18.0, trajectories=256),
        replace(base, name="Adam", rule=_power("1/2"), time=35.0),
        replace(base, name="Adam, eps=1", rule=zoo.adam_power.fix(power="1/2"), time=45.0, eps=1.0),
        replace(base, name="AdamE-3/4", rule=_power("3/4"), time=50.0, etas=(0.008, 0.004), trajectories=96),
        replace(base, name="Adam-mini", rule=zoo.adam_mini.fix(eps=0), problem=blocks, time=22.0),
        replace(base, name="one block", rule=zoo.adam_mini.fix(eps=0), time=22.0),
    )


def paraboloid() -> dict[str, Contender]:
    """Optimizers on ``zoo.paraboloid()`` from (2.2, 1.2), all second moments 20."""
    curved = zoo.paraboloid()
    x, y, z = curved.parameters
    blocks = curved.with_blocks([(x, z), (y,)])
    base = Contender("SGD", zoo.sgd, curved, {"x": 2.2, "y": 1.2}, 40.0, (0.02, 0.01))
    return _named(
        base,
        replace(base, name="AdamE-1/4", rule=_power("1/4"), time=60.0, trajectories=256),
        replace(base, name="Adam", rule=_power("1/2"), time=80.0),
        replace(base, name="Adam, eps=1", rule=zoo.adam_power.fix(power="1/2"), time=200.0, trajectories=256, eps=1.0),
        replace(base, name="Adam-mini", rule=zoo.adam_mini.fix(eps=0), problem=blocks, time=90.0),
    )


def _power(power: str) -> Rule:
    return zoo.adam_power.fix(power=power, eps=0)


def _named(*contenders: Contender) -> dict[str, Contender]:
    return {c.name: c for c in contenders}


__all__ = ["Contender", "paraboloid", "two_channels"]
