"""Adaptive rules over a slow time t = eta^2 k, at several learning rates: what a table of limits eta -> 0 needs.

1 - beta2 is rate * eta^2, so that second moments move on the slow time too, and rules run without bias corrections, which
belong to a cold start. Means over trajectories are off by O(eta); two learning rates give the limit (``extrapolate``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic.derivation.slow_states import late_rule
from quasistatic.dynamics import SlowDynamics, derive
from quasistatic.errors import StartError
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import resolve
from quasistatic.numeric.simulate import Simulator, initial_states

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Means over trajectories and their standard errors, of one shape."""

    mean: Array
    error: Array

    def z(self, theory: Any) -> Array:
        """Differences from a theory in standard errors."""
        return np.asarray((self.mean - np.asarray(theory)) / self.error)


def extrapolate(coarse: Sample, fine: Sample, ratio: float = 2.0) -> Sample:
    """The limit of what is linear in the learning rate, from two of them, ``coarse`` at ``ratio`` times ``fine``'s."""
    weight = 1 / (ratio - 1)
    mean = (1 + weight) * fine.mean - weight * coarse.mean
    return Sample(mean, np.hypot((1 + weight) * fine.error, weight * coarse.error))


@dataclass(frozen=True, eq=False)
class Experiment:
    """A rule on a problem from one start, at any learning rate.

    Attributes
    ----------
    rule, problem:
        What runs; the problem's chart maps iterates to coordinates.
    start:
        Coordinate to number: the run starts on the manifold, at rest.
    state:
        Slow state (``v``, or ``v_x`` for one parameter) to its number at the start.
    hyper:
        Hyperparameters and constants besides the learning rate and beta2.
    rate:
        (1 - beta2)/eta^2; of no effect where the rule has no beta2.
    """

    rule: Rule
    problem: Problem
    start: Mapping[str, float]
    state: Mapping[str, float] = field(default_factory=dict)
    hyper: Mapping[str, float] = field(default_factory=dict)
    rate: float = 1.0

    @cached_property
    def slow(self) -> SlowDynamics:
        """The coupled slow dynamics, exact in the learning rate."""
        return derive(self.rule, self.problem)

    @cached_property
    def limit(self) -> SlowDynamics:
        """Its leading order in the learning rate."""
        return self.slow.leading("eta")

    def values(self, eta: float) -> dict[str, float]:
        """All hyperparameters and constants at a learning rate."""
        found = {**self.hyper, "eta": eta}
        if "beta2" in self.rule.hyperparameters:
            found["beta2"] = 1 - self.rate * eta**2
        return found

    def path(self, times: Sequence[float], eta: float, exact: bool = True) -> Array:
        """The coupled flow at increasing slow times, (R, k + slow states); ``exact=False`` is its limit eta -> 0."""
        flow = (self.slow if exact else self.limit).compile(**self.values(eta))
        where: Any = {str(c): v for c, v in self.start.items()}
        for symbol in self.slow.slow_state[len(self.slow.coordinates) :]:
            where[symbol.name] = self._number(symbol.name)
        rows, before = [], 0
        for step in (round(t / eta**2) for t in times):
            if step > before:
                where = flow.trajectory(where, step - before, record=1).u[-1]
            rows.append(np.asarray(where if not isinstance(where, dict) else [where[c] for c in flow.coordinates]))
            before = step
        return np.array(rows)

    def _number(self, name: str) -> float:
        """Start of one slow state, v_x, from the number for it or for all of its kind."""
        kinds = [s.name for s in self.rule.trace.states if name.startswith(f"{s.name}_")]
        for given in (name, *kinds):
            if given in self.state:
                return self.state[given]
        raise StartError(f"{self.rule.name}: the slow state {name} has no start; give state={{{kinds[0]!r}: ...}} or {{{name!r}: ...}}.")

    def run(self, times: Sequence[float], eta: float, trajectories: int, seed: int, threads: int = 1) -> tuple[Array, Array]:
        """The rule itself at increasing slow times: coordinates (R, N, k), and all its variables at the end (N, n)."""
        rule, values = late_rule(self.rule), self.values(eta)
        numbers = resolve(rule, self.problem, values)
        simulator = Simulator(rule, self.problem, numbers, seed, trajectories, threads)
        here = {c: sp.Float(self.start[c.name], 17) for c in self.problem.chart.coordinates}
        z = np.array([float(e.xreplace(here)) for e in self.problem.chart.embedding])
        simulator.set_state(np.tile(initial_states(rule, self.problem, numbers, z, self.state), (trajectories, 1)))
        locate = sp.lambdify(self.problem.parameters, self.problem.chart.require_coordinate_map(), "numpy")
        rows = []
        for t in times:
            simulator.advance(round(t / eta**2) - simulator.step)
            states = simulator.states
            rows.append(np.stack(np.broadcast_arrays(*locate(*states[:, : len(z)].T)), axis=1))
        return np.array(rows), states

    def ends(self, time: float, eta: float, trajectories: int, seed: int, threads: int = 1) -> Sample:
        """Mean of the coordinates and of all slow states at a slow time, (k + slow states,)."""
        u, states = self.run([time], eta, trajectories, seed, threads)
        d = len(self.problem.parameters)
        slow = [states[:, (1 + i) * d : (2 + i) * d] for i, s in enumerate(self.rule.trace.states) if s.slow]
        return sample(np.concatenate([u[-1], *slow], axis=1))


def sample(values: Array) -> Sample:
    """Mean over the first axis and its standard error."""
    return Sample(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


__all__ = ["Experiment", "Sample", "extrapolate", "sample"]
