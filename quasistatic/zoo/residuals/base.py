"""What all residual models share: named arrays inside one flat point, and starting points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import ProblemError, StartError, suggestion
from quasistatic.model.machine import Machine

Array = npt.NDArray[np.float64]


def finite_array(value: Any, what: str, ndim: int) -> Array:
    """A float64 array of ``ndim`` axes; ProblemError where it is not one, is empty, or holds NaN or infinity."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ProblemError(f"{what} is {value!r}, which is not an array of numbers.") from None
    if array.ndim != ndim:
        raise ProblemError(f"{what} has shape {array.shape}; it needs {ndim} axes.")
    if array.size == 0:
        raise ProblemError(f"{what} has shape {array.shape}: it is empty.")
    if not np.isfinite(array).all():
        raise ProblemError(f"{what} holds NaN or infinity.")
    return np.ascontiguousarray(array)


class ResidualModel:
    """Base class: ``shapes`` names the arrays that a point z is the concatenation of (row-major).

    Attributes
    ----------
    shapes:
        Name to shape, in order.
    size:
        d, length of z.
    count:
        n, number of residuals.
    """

    shapes: Mapping[str, tuple[int, ...]]
    size: int
    count: int

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], count: int) -> None:
        self.shapes = MappingProxyType(dict(shapes))
        self.size = sum(math.prod(s) for s in shapes.values())
        self.count = count

    def __reduce__(self) -> Any:  # a mapping proxy cannot be pickled
        state = {k: v for k, v in self.__dict__.items() if k != "shapes"}
        return _restore, (type(self), dict(self.shapes), state)

    @property
    def machine(self) -> Machine:
        """The same residuals for the compiled simulation."""
        raise NotImplementedError

    def pack(self, **arrays: Any) -> Array:
        """The flat point z (d,) of the named arrays.

        Raises
        ------
        StartError
            For names that are missing or unknown, and wrong shapes.
        """
        for name in arrays:
            if name not in self.shapes:
                raise StartError(f"{name} is not an array of this model ({', '.join(self.shapes)}).{suggestion(name, self.shapes)}")
        missing = [n for n in self.shapes if n not in arrays]
        if missing:
            raise StartError(f"no array for {', '.join(missing)}; every one of {', '.join(self.shapes)} is needed.")
        parts = []
        for name, shape in self.shapes.items():
            value = np.asarray(arrays[name], dtype=np.float64)
            if value.shape != shape:
                raise StartError(f"{name} has shape {value.shape}; this model needs {shape}.")
            parts.append(value.reshape(-1))
        return np.concatenate(parts)

    def unpack(self, z: Any) -> dict[str, Array]:
        """The named arrays of points z (..., d), each with the same leading axes; views where possible."""
        points = np.asarray(z, dtype=np.float64)
        if points.shape[-1:] != (self.size,):
            raise StartError(f"a point has shape {points.shape}; this model has {self.size} parameters.")
        found, at = {}, 0
        for name, shape in self.shapes.items():
            length = math.prod(shape)
            found[name] = points[..., at : at + length].reshape(*points.shape[:-1], *shape)
            at += length
        return found

    def residuals(self, z: Array) -> Array:
        """r(z), shape (n,)."""
        raise NotImplementedError

    def jacobian(self, z: Array) -> Array:
        """J (n, d)."""
        raise NotImplementedError

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, shape (n,)."""
        raise NotImplementedError

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, shape (d,)."""
        raise NotImplementedError

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """sum_j c_j (d^2 r_j / dz^2) w, shape (d,), summed over leading axes of c (..., n) and w (..., d)."""
        raise NotImplementedError

    def pairs(self, c: Any, w: Any) -> tuple[Array, Array]:
        """c and w with one leading axis: (K, n) and (K, d)."""
        weights = np.asarray(c, dtype=np.float64)
        vectors = np.asarray(w, dtype=np.float64)
        if weights.shape[-1:] != (self.count,) or vectors.shape[-1:] != (self.size,) or weights.shape[:-1] != vectors.shape[:-1]:
            raise ProblemError(
                f"c has shape {weights.shape} and w {vectors.shape}; they need (..., {self.count}) and (..., {self.size}) with the same"
                " leading axes."
            )
        return weights.reshape(-1, self.count), vectors.reshape(-1, self.size)


def _restore(kind: type[ResidualModel], shapes: dict[str, tuple[int, ...]], state: dict[str, Any]) -> ResidualModel:
    model = kind.__new__(kind)
    model.shapes = MappingProxyType(shapes)
    model.__dict__.update(state)
    return model
