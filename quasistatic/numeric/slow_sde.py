"""Paths of the slow dynamics: the records of an ODE or an SDE, and one Euler-Maruyama step of the SDE as a stochastic map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy as sp

from quasistatic.numeric.arguments import Array
from quasistatic.numeric.emit import lift_numbers
from quasistatic.numeric.kernel import StochasticMap

#: Symbol of the Euler step's length; the space keeps it apart from the user's.
DT = sp.Symbol("time step", positive=True)

#: A pivot of the diffusion below this part of its diagonal entry counts as zero: the noise has lower rank there.
PIVOT = sp.Rational(1, 10**12)


@dataclass(frozen=True, eq=False)
class SlowTrajectory:
    """A path of the deterministic slow dynamics.

    Attributes
    ----------
    steps:
        (R,) times: iterations, or t where the slow dynamics is per unit of t.
    u:
        (R, k) coordinates.
    coordinates:
        Their names.
    """

    steps: Array
    u: Array
    coordinates: tuple[str, ...]

    def __repr__(self) -> str:
        end = ", ".join(f"{c}={v:.6g}" for c, v in zip(self.coordinates, self.u[-1], strict=True))
        return f"<slow trajectory to {self.steps[-1]:g}, {len(self.steps)} record(s), ends at {end}>"


@dataclass(frozen=True, eq=False)
class SlowEnsemble:
    """Paths of the slow SDE.

    Attributes
    ----------
    steps:
        (R,) times: iterations, or t where the slow dynamics is per unit of t.
    mean, covariance:
        (R, k) and (R, k, k): of the coordinates, over paths.
    final:
        (N, k) end points.
    coordinates:
        Names of the coordinates.
    seed:
        Of the noise; independent of the optimizer's noise under the same seed.
    """

    steps: Array
    mean: Array
    covariance: Array
    final: Array
    coordinates: tuple[str, ...]
    seed: int

    def __repr__(self) -> str:
        end = f"{self.steps[-1]:g}" if len(self.steps) else "nowhere"
        return f"<{len(self.final)} slow paths of {', '.join(self.coordinates)} to {end}, {len(self.steps)} record(s), seed {self.seed}>"


def euler_step(u: tuple[sp.Symbol, ...], arguments: tuple[sp.Symbol, ...], drift: sp.Matrix, diffusion: sp.Matrix) -> StochasticMap:
    """u + drift*dt + L n sqrt(dt) with L L^T = diffusion; the last argument is dt. Ito.

    L is a Cholesky factor in which a vanishing pivot makes a zero column, so that semidefinite diffusions are allowed.
    """
    k = len(u)
    given, data = lift_numbers([*drift, *diffusion])
    drift_at, diffusion_at = given[:k], given[k:]
    if all(e == 0 for e in diffusion_at):
        updates = tuple(ui + DT * f for ui, f in zip(u, drift_at, strict=True))
        return StochasticMap(u, (*arguments, DT), (), (), updates, None, data)
    normals = tuple(sp.Symbol(f"n {j}", real=True) for j in range(k))
    if k == 1:
        update = u[0] + DT * drift_at[0] + sp.sqrt(DT) * sp.sqrt(diffusion_at[0]) * normals[0]
        return StochasticMap(u, (*arguments, DT), normals, (), (update,), None, data)
    assignments, L = _factor(diffusion_at, k)
    kicks = [sum((L[i][j] * normals[j] for j in range(i + 1)), sp.Integer(0)) for i in range(k)]
    updates = tuple(u[i] + DT * drift_at[i] + sp.sqrt(DT) * kicks[i] for i in range(k))
    return StochasticMap(u, (*arguments, DT), normals, tuple(assignments), updates, None, data)


def _factor(entries: list[sp.Expr], k: int) -> tuple[list[tuple[sp.Symbol, sp.Expr]], list[list[sp.Expr]]]:
    """Assignments and entries of the Cholesky factor of a (k, k) matrix given row by row."""
    assignments: list[tuple[sp.Symbol, sp.Expr]] = []

    def name(label: str, value: sp.Expr) -> sp.Symbol:
        symbol = sp.Symbol(label, real=True)
        assignments.append((symbol, value))
        return symbol

    D = [[name(f"D {i} {j}", entries[i * k + j]) for j in range(i + 1)] for i in range(k)]
    L: list[list[sp.Expr]] = [[sp.Integer(0)] * k for _ in range(k)]
    for j in range(k):
        pivot = name(f"pivot {j}", D[j][j] - sum(L[j][q] ** 2 for q in range(j)))
        alive = sp.StrictGreaterThan(pivot, PIVOT * D[j][j], evaluate=False)
        L[j][j] = name(f"L {j} {j}", sp.Piecewise((sp.sqrt(pivot), alive), (0, True), evaluate=False))
        for i in range(j + 1, k):
            rest = D[i][j] - sum(L[i][q] * L[j][q] for q in range(j))
            L[i][j] = name(f"L {i} {j}", sp.Piecewise((rest / L[j][j], alive), (0, True), evaluate=False))
    return assignments, L


def uniform_times(end: float, record: int) -> Array:
    """``record`` equally spaced times from 0 to ``end``; record=1 is the end alone."""
    return np.array([end]) if record == 1 else np.linspace(0.0, end, record)
