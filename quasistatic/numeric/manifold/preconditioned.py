"""A linear filter of the gradient behind a diagonal preconditioner that moves slowly (theory, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quasistatic.errors import RuleError
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.kernels import LinearFilter


@dataclass(frozen=True, eq=False)
class Preconditioned:
    """z <- z - S(v) * (what the filter makes of g),  v <- v + rate (V(g g^T) - v), S and V of the diagonal.

    Attributes
    ----------
    filter:
        The linear filter that acts where S = 1: its gain and kernel are the rule's at fixed S.
    scale:
        v (m,) to the diagonal of S, (d,), positive.
    target:
        The second moments E[g_i^2], (d,), to what v tends to, (m,).
    rate:
        Part of the way to its target that v goes in one iteration, 1 - beta2.
    force:
        z (d,) and v (m,) to the displacement (d,) that one averaged step gives a point of the manifold (weight decay);
        None where there is none.
    name:
        Shown in messages.
    """

    filter: LinearFilter
    scale: Callable[[Array], Array]
    target: Callable[[Array], Array]
    rate: float
    force: Callable[[Array, Array], Array] | None = None
    name: str = "preconditioned rule"

    def root(self, v: Array, size: int) -> Array:
        """The diagonal of S(v)^(1/2), (d,)."""
        found = np.asarray(self.scale(v), dtype=np.float64)
        if found.shape != (size,) or not np.isfinite(found).all() or found.min() <= 0:
            raise RuleError(f"{self.name}: S(v) must be {size} positive numbers; it has shape {found.shape}, smallest {found.min():.3g}.")
        return np.sqrt(found)
