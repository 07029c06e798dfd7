"""The residuals of a large problem once more, as two plain functions that can be compiled and that know single residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Machine:
    """Two functions in the part of Python that Numba compiles: loops over numbers, ``math``, ``np``; nothing from outside.

    Their source is copied into the compiled simulation, so they are module-level functions that use no other name of
    their module. Residuals (see :class:`quasistatic.model.array_problem.Residuals`) that have an attribute ``machine`` are
    simulated with it, and a minibatch then costs as much as its own residuals; without it the NumPy functions are called.

    Attributes
    ----------
    forward:
        ``forward(z, rows, r, work, *data)``: r[k] = residual number rows[k] at z; z (d,), rows (b,) int64, r (b,). It may
        leave in ``work`` what ``pullback`` needs.
    pullback:
        ``pullback(z, rows, c, g, work, *data)``: adds sum_k c[k] grad r_rows[k] to g (d,); always called after ``forward``
        with the same z, rows and work.
    data:
        Contiguous arrays and numbers, handed to both.
    work:
        Floats of working memory per residual.
    """

    forward: Callable[..., None]
    pullback: Callable[..., None]
    data: tuple[npt.NDArray[Any] | float | int, ...]
    work: int = 0

    def rows(self, count: int) -> npt.NDArray[np.int64]:
        """The row numbers of a full batch of ``count`` residuals."""
        return np.arange(count, dtype=np.int64)
