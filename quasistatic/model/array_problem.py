"""Large problems: residuals given by array functions, the manifold is where all of them vanish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from quasistatic.model.noise import Noise

Array = npt.NDArray[np.float64]


@runtime_checkable
class Residuals(Protocol):
    """n residuals on R^d and their derivatives, as array functions of one point z, shape (d,), float64.

    Attributes
    ----------
    size:
        d, the number of parameters.
    count:
        n, the number of residuals.
    shapes:
        Name to shape of the arrays that z is the concatenation of (row-major), in order.
    """

    size: int
    count: int
    shapes: Mapping[str, tuple[int, ...]]

    def residuals(self, z: Array) -> Array:
        """r(z), shape (n,)."""
        ...

    def jacobian(self, z: Array) -> Array:
        """J = dr/dz, shape (n, d)."""
        ...

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, shape (n,)."""
        ...

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, shape (d,)."""
        ...

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """sum_j c_j (d^2 r_j / dz^2) w, shape (d,); with leading axes in c and w (K, n), (K, d): the sum over them."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayProblem:
    """The loss ``scale * sum_j r_j(z)^2`` with minima r = 0, given by array functions.

    Attributes
    ----------
    functions:
        The residuals and their derivatives.
    noise:
        A noise model; needed by ``manifold_flow`` and ``simulate``.
    scale:
        Factor of the sum of squares: 1 for ``||U W^T - M||^2``, 1/(2n) for a mean over a data set.
    blocks:
        A partition of the indices 0 ... d-1 for ``qs.block_mean``; one block by default.
    name:
        Shown in results.
    """

    functions: Residuals
    noise: Noise | None = None
    scale: float = 0.5
    blocks: tuple[Sequence[int], ...] = ()
    name: str = ""
    examples: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
