"""Residuals from a JAX function; JAX is an optional extra and is imported only when one is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic.errors import ProblemError

Array = npt.NDArray[np.float64]


class JaxResiduals:
    """Residuals and derivatives of ``function(*arrays)`` by JAX, compiled, in double precision.

    Parameters
    ----------
    function:
        Of the arrays in the order of ``shapes``; returns the residuals in any shape.
    shapes:
        Name to shape.

    Raises
    ------
    ProblemError
        Without JAX, or where the function cannot be traced.
    """

    def __init__(self, function: Callable[..., Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        try:
            jax: Any = importlib.import_module("jax")
        except ImportError:
            raise ProblemError("ArrayProblem.from_jax needs JAX: pip install 'quasistatic[jax]'.") from None
        self._jax = jax
        self._function = function
        self.shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(dict(shapes))
        lengths = [int(np.prod(s)) for s in shapes.values()]
        self._ends = [int(n) for n in np.cumsum(lengths)]
        self.size = self._ends[-1]
        with self._double():
            try:
                traced = jax.eval_shape(self._flat, jax.ShapeDtypeStruct((self.size,), np.float64))
            except Exception as error:  # whatever the user's function raises
                raise ProblemError(f"from_jax: the function cannot be traced for {dict(shapes)}: {error}") from error
        self.count = int(traced.shape[0])
        self._compile()

    def _double(self) -> Any:
        """JAX computes in single precision by default; the setting is kept local to our calls."""
        if hasattr(self._jax, "enable_x64"):
            return self._jax.enable_x64(True)
        return importlib.import_module("jax.experimental").enable_x64()

    def _flat(self, z: Any) -> Any:
        starts = [0, *self._ends[:-1]]
        arrays = [z[a:b].reshape(s) for a, b, s in zip(starts, self._ends, self.shapes.values(), strict=True)]
        return self._jax.numpy.ravel(self._function(*arrays))

    def _compile(self) -> None:
        jax, f = self._jax, self._flat

        def pulled(z: Any, c: Any) -> Any:
            return jax.vjp(f, z)[1](c)[0]

        def one(z: Any, c: Any, w: Any) -> Any:
            return jax.jvp(lambda point: pulled(point, c), (z,), (w,))[1]

        def several(z: Any, c: Any, w: Any) -> Any:
            return jax.vmap(one, (None, 0, 0))(z, c, w).sum(0)

        self._compiled = {
            "residuals": jax.jit(f), "jacobian": jax.jit(jax.jacrev(f)), "jvp": jax.jit(lambda z, w: jax.jvp(f, (z,), (w,))[1]),
            "vjp": jax.jit(pulled), "hvp": jax.jit(one), "hvps": jax.jit(several),
        }  # fmt: skip

    def _call(self, name: str, *arguments: Array) -> Array:
        with self._double():
            found = np.asarray(self._compiled[name](*arguments), dtype=np.float64)
        if not np.isfinite(found).all():
            raise ProblemError(f"from_jax: {name} of the function is NaN or infinite.")
        return found

    def residuals(self, z: Array) -> Array:
        """r(z), shape (n,)."""
        return self._call("residuals", z)

    def jacobian(self, z: Array) -> Array:
        """J, shape (n, d)."""
        return self._call("jacobian", z)

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, shape (n,)."""
        return self._call("jvp", z, w)

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, shape (d,)."""
        return self._call("vjp", z, c)

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """sum_j c_j (d^2 r_j/dz^2) w, summed over leading axes, shape (d,)."""
        if c.ndim == 1:
            return self._call("hvp", z, c, w)
        return self._call("hvps", z, c.reshape(-1, self.count), w.reshape(-1, self.size))
