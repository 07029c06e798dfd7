"""The gradient noise of a large problem as numbers: what is drawn in a step, and with which factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp

from quasistatic.errors import ProblemError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import HessianNoise, IsotropicNoise, LabelNoise, Noise, SumNoise


@dataclass(frozen=True)
class Draws:
    """One stochastic gradient: J_rows^T (factor*r_rows + label*n) plus isotropic parts.

    The numbers of a step come from the trajectory's stream in this order: with a minibatch ``rows`` generator words, one
    for each residual drawn (the word's upper 32 bits w give the residual floor(w*n/2^32)); then normals, as many as
    ``normals`` says: one per row if ``label`` is not 0, d for ``everywhere``, n for ``normal``, d for ``tangent``.

    Attributes
    ----------
    batched:
        Whether rows are drawn, with replacement; otherwise all are used in order.
    rows:
        Residuals of one step.
    count, size:
        n and d.
    factor:
        2*scale, times n/rows with a minibatch.
    label:
        Factor of the normals of the rows.
    everywhere, normal, tangent:
        Strengths of isotropic noise in all directions, in the normal space (row space of J) and in the tangent space.
    """

    batched: bool
    rows: int
    count: int
    size: int
    factor: float
    label: float
    everywhere: float
    normal: float
    tangent: float

    @property
    def kinds(self) -> tuple[bool, bool, bool, bool]:
        """Which of label, everywhere, normal, tangent are there: these decide about the code, the numbers do not."""
        return bool(self.label), bool(self.everywhere), bool(self.normal), bool(self.tangent)

    @property
    def normals(self) -> int:
        """Normals of one step."""
        lengths = (self.rows, self.size, self.count, self.size)
        return sum(n for n, there in zip(lengths, self.kinds, strict=True) if there)


def noise_parts(noise: Noise) -> tuple[Noise, ...]:
    """The independent models of a noise."""
    return noise.parts if isinstance(noise, SumNoise) else (noise,)


def noise_constants(problem: ArrayProblem) -> list[sp.Symbol]:
    """Symbols of the strengths, sorted by name."""
    found: set[sp.Symbol] = set()
    for part in noise_parts(required_noise(problem)):
        found |= _strength(part).free_symbols
    return sorted(found, key=lambda s: str(s.name))


def required_noise(problem: ArrayProblem) -> Noise:
    """The problem's noise; ProblemError where it has none."""
    if problem.noise is None:
        raise ProblemError(
            f"{problem.name or 'the problem'} has no noise, and without noise nothing drifts: give noise=qs.LabelNoise(sigma);"
            " LabelNoise(0, batch=b) is the noise of minibatches alone."
        )
    return problem.noise


def _strength(part: Noise) -> sp.Expr:
    if isinstance(part, HessianNoise):
        return part.alpha
    if isinstance(part, (LabelNoise, IsotropicNoise)):
        return part.sigma
    raise ProblemError(
        f"{type(part).__name__} cannot be drawn for a problem given by array functions; use qs.LabelNoise, qs.HessianNoise or"
        " qs.IsotropicNoise, or sums of these."
    )


def plan(problem: ArrayProblem, values: Mapping[str, float]) -> Draws:
    """What one step draws, with ``values`` for the constants.

    Raises
    ------
    ProblemError
        For a batch larger than the data, different batches in one sum, and models that need a formula.
    """
    n, d, s = problem.functions.count, problem.functions.size, float(problem.scale)
    batch = _batch(problem, n)
    rows = n if batch is None else batch
    factor = 2 * s * n / rows
    squares = dict.fromkeys(("label", "everywhere", "normal", "tangent"), 0.0)
    for part in noise_parts(required_noise(problem)):
        strength = float(_strength(part).xreplace({k: sp.Float(values[k.name]) for k in _strength(part).free_symbols}))
        if isinstance(part, HessianNoise):
            squares["label"] += 2 * s * strength
        elif isinstance(part, LabelNoise):
            squares["label"] += (factor * strength) ** 2
        elif isinstance(part, IsotropicNoise):
            kind = "normal" if part.normal_only else "tangent" if part.tangent_only else "everywhere"
            squares[kind] += strength**2
    roots = {k: math.sqrt(v) for k, v in squares.items()}
    return Draws(batch is not None, rows, n, d, factor, **roots)


def _batch(problem: ArrayProblem, n: int) -> int | None:
    """The batch size of the label noise; None for the full batch."""
    parts = noise_parts(required_noise(problem))
    batches = {p.batch for p in parts if isinstance(p, LabelNoise)}
    if len(batches) > 1:
        raise ProblemError(f"two label noises with different batches, {sorted(map(str, batches))}: a step has one batch.")
    batch = batches.pop() if batches else None
    if batch is not None and any(isinstance(p, HessianNoise) for p in parts):
        raise ProblemError("HessianNoise needs all residuals of a step: it cannot be added to LabelNoise(batch=...).")
    if batch is not None and batch > n:
        raise ProblemError(
            f"LabelNoise(batch={batch}): the batch is larger than the data, {n} residuals; leave batch out for the full batch."
        )
    return batch
