"""Large problems: residuals given by array functions, the manifold is where all of them vanish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from quasistatic.errors import ProblemError, StartError, suggestion
from quasistatic.model.noise import Noise

Array = npt.NDArray[np.float64]

#: Relative size of the steps of the finite differences that check a user's derivatives.
STEP = 1e-5
#: Relative difference from them at which a derivative is called wrong; far above what rounding and curvature make of STEP.
WRONG = 1e-4


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
        The residuals and their derivatives; :meth:`from_functions` and :meth:`from_jax` make them.
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

    def __post_init__(self) -> None:
        if not isinstance(self.functions, Residuals):
            missing = [
                n for n in ("size", "count", "shapes", "residuals", "jacobian", "jvp", "vjp", "hvp") if not hasattr(self.functions, n)
            ]
            raise ProblemError(
                f"ArrayProblem: {type(self.functions).__name__} has no {', '.join(missing)}; qs.ArrayProblem.from_functions(...) fills in"
                " what follows from the rest."
            )
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)) or not 0 < self.scale < float("inf"):
            raise ProblemError(f"ArrayProblem: scale = {self.scale!r} is not a positive number.")
        if self.noise is not None and not isinstance(self.noise, Noise):
            raise ProblemError(f"noise is {self.noise!r}; use qs.HessianNoise, qs.IsotropicNoise, qs.CovarianceNoise or qs.LabelNoise.")
        total = sum(int(np.prod(s)) for s in self.functions.shapes.values())
        if total != self.size:
            raise ProblemError(f"ArrayProblem: the shapes {dict(self.functions.shapes)} hold {total} numbers, size says {self.size}.")
        if self.blocks and sorted(int(i) for b in self.blocks for i in b) != list(range(self.size)):
            raise ProblemError(
                f"ArrayProblem: blocks is not a partition of 0 ... {self.size - 1}: every index belongs to exactly one block."
            )

    def __repr__(self) -> str:
        arrays = ", ".join(f"{n} {'x'.join(map(str, s)) or 'scalar'}" for n, s in self.functions.shapes.items())
        label = f"{self.name}: " if self.name else ""
        return f"<array problem {label}{self.size} parameters ({arrays}), {self.count} residuals, noise {self.noise}>"

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return self.functions.size

    @property
    def count(self) -> int:
        """n, the number of residuals."""
        return self.functions.count

    def require_noise(self) -> Noise:
        """The noise model; raises ProblemError where there is none."""
        if self.noise is None:
            raise ProblemError(
                "the problem has no noise, and without noise nothing drifts: give ArrayProblem(..., noise=qs.LabelNoise(sigma))."
            )
        return self.noise

    def with_noise(self, noise: Noise) -> ArrayProblem:
        """The same problem with another model of the noise."""
        return ArrayProblem(self.functions, noise, self.scale, self.blocks, self.name, self.examples)

    # -- points --------------------------------------------------------------------------------------------------------

    def pack(self, start: Any) -> Array:
        """One point as a flat array (d,), from such an array or from a mapping of every array's name to its values.

        Raises
        ------
        StartError
            Naming the array that is missing, unknown, of another shape, or not finite.
        """
        shapes = self.functions.shapes
        if not isinstance(start, Mapping):
            return flat_point(start, self.size)
        for name in start:
            if str(name) not in shapes:
                raise StartError(f"start: {name} is not an array of the problem ({', '.join(shapes)}).{suggestion(str(name), shapes)}")
        missing = [n for n in shapes if n not in start]
        if missing:
            raise StartError(f"start: no values for {', '.join(missing)}.")
        parts = []
        for name, shape in shapes.items():
            values = _numbers(start[name], f"start: {name}")
            if values.shape != tuple(shape):
                raise StartError(f"start: {name} has shape {values.shape}, the problem's is {tuple(shape)}.")
            parts.append(values.reshape(-1))
        return flat_point(np.concatenate(parts), self.size)

    def unpack(self, z: Any) -> dict[str, Array]:
        """Name to array, from points of shape (..., d)."""
        given = np.asarray(z, dtype=np.float64)
        if given.ndim == 0 or given.shape[-1] != self.size:
            raise StartError(f"a point has shape {given.shape}; the last axis must be the {self.size} parameters.")
        found, at = {}, 0
        for name, shape in self.functions.shapes.items():
            length = int(np.prod(shape))
            found[name] = given[..., at : at + length].reshape(*given.shape[:-1], *shape)
            at += length
        return found

    # -- making one ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_functions(
        cls,
        residuals: Callable[[Array], Any],
        *,
        shapes: Mapping[str, tuple[int, ...]] | int,
        count: int,
        hvp: Callable[[Array, Array, Array], Any],
        jacobian: Callable[[Array], Any] | None = None,
        jvp: Callable[[Array, Array], Any] | None = None,
        vjp: Callable[[Array, Array], Any] | None = None,
        **options: Any,
    ) -> ArrayProblem:
        """A problem from functions of a flat point z, shape (d,).

        Parameters
        ----------
        residuals:
            z to r, shape (n,).
        shapes:
            Name to shape of the arrays that z is made of, or d alone.
        count:
            n.
        hvp:
            ``hvp(z, c, w)`` = sum_j c_j (d^2 r_j/dz^2) w for one c (n,) and w (d,), shape (d,).
        jacobian, jvp, vjp:
            z to J (n, d); ``jvp(z, w)`` = J w; ``vjp(z, c)`` = J^T c. Give ``jacobian`` or ``vjp``; the others follow.
        **options:
            noise, scale, blocks, name as for the class.

        Every value is checked for its shape and for NaN when it is computed; ``manifold_flow`` also compares the
        derivatives with finite differences once, at its first point.
        """
        if jacobian is None and vjp is None:
            raise ProblemError("from_functions needs jacobian=... (n, d) or vjp=... (z, c) -> J^T c.")
        sizes = _shapes(shapes)
        return cls(_Given(residuals, sizes, _count(count), hvp, jacobian, jvp, vjp), **options)

    @classmethod
    def from_jax(cls, function: Callable[..., Any], *, shapes: Mapping[str, tuple[int, ...]], **options: Any) -> ArrayProblem:
        """A problem from a JAX function of the arrays (in the order of ``shapes``) that returns the residuals, in any shape.

        Derivatives are JAX's, compiled, in double precision. Needs the extra ``quasistatic[jax]``. Other arguments as for
        the class.
        """
        from quasistatic.model.jax_residuals import JaxResiduals

        return cls(JaxResiduals(function, _shapes(shapes)), **options)

    # -- checks --------------------------------------------------------------------------------------------------------

    def check_derivatives(self, z: Any, seed: int = 0) -> None:
        """Compare jvp, vjp, jacobian and hvp with finite differences of the residuals, and with each other, at one point.

        Raises
        ------
        ProblemError
            Naming the function that returns a wrong shape, NaN or a wrong derivative.
        """
        f, at = self.functions, self.pack(z)
        rng = np.random.default_rng(seed)
        w, w2 = (x / np.linalg.norm(x) for x in rng.standard_normal((2, self.size)))
        c, c2 = rng.standard_normal((2, self.count))
        h = STEP * max(1.0, float(np.abs(at).max()))
        _value(f.residuals(at), (self.count,), "residuals(z)")
        Jw = _value(f.jvp(at, w), (self.count,), "jvp(z, w)")
        Jc = _value(f.vjp(at, c), (self.size,), "vjp(z, c)")
        J = _value(f.jacobian(at), (self.count, self.size), "jacobian(z)")
        Hw = _value(f.hvp(at, c, w), (self.size,), "hvp(z, c, w)")
        both = _value(f.hvp(at, np.stack([c, c2]), np.stack([w, w2])), (self.size,), "hvp(z, c, w) with leading axes (2, n), (2, d)")
        _compare("jvp(z, w) and finite differences of the residuals", Jw, (f.residuals(at + h * w) - f.residuals(at - h * w)) / (2 * h))
        _compare("jacobian(z) @ w and jvp(z, w)", J @ w, Jw)
        _compare("vjp(z, c) and jacobian(z).T @ c", Jc, J.T @ c)
        _compare("hvp(z, c, w) and finite differences of vjp(z, c)", Hw, (f.vjp(at + h * w, c) - f.vjp(at - h * w, c)) / (2 * h))
        _compare("hvp with leading axes and the sum of single ones", both, Hw + f.hvp(at, c2, w2))


def flat_point(value: Any, size: int) -> Array:
    """A finite array (size,); StartError otherwise."""
    found = _numbers(value, "the point")
    if found.shape != (size,):
        raise StartError(f"a point has shape {found.shape}; expected ({size},).")
    if not np.isfinite(found).all():
        raise StartError("the point is not finite.")
    return found


def _numbers(value: Any, what: str) -> Array:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise StartError(f"{what} is {value!r}, which is not an array of numbers.") from None


def _value(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """What a user's function returned, as floats of the right shape."""
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ProblemError(f"{what} returned {type(value).__name__}, which is not an array of numbers.") from None
    if found.shape != shape:
        raise ProblemError(f"{what} returned shape {found.shape}; expected {shape}.")
    if not np.isfinite(found).all():
        raise ProblemError(f"{what} returned NaN or infinity.")
    return found


def _compare(what: str, one: Array, other: Array) -> None:
    size = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
    difference = float(np.linalg.norm(one - other))
    if difference > WRONG * size + 1e-8:
        raise ProblemError(f"the derivatives are not consistent: {what} differ by {difference / size:.2g} of their size.")


def _count(count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ProblemError(f"count = {count!r} is not a positive whole number of residuals.")
    return int(count)


def _shapes(shapes: Mapping[str, tuple[int, ...]] | int) -> dict[str, tuple[int, ...]]:
    given = {"z": (int(shapes),)} if isinstance(shapes, (int, np.integer)) else dict(shapes)
    found = {}
    for name, shape in given.items():
        sides = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if not all(isinstance(n, (int, np.integer)) and n > 0 for n in sides):
            raise ProblemError(f"shapes: {name} has shape {shape!r}; give positive whole numbers.")
        found[str(name)] = tuple(int(n) for n in sides)
    if not found:
        raise ProblemError("shapes is empty: a problem needs at least one array of parameters.")
    return found


class _Given:
    """A user's functions, checked at every call, with what follows from the given ones filled in."""

    def __init__(
        self,
        residuals: Callable[[Array], Any],
        shapes: Mapping[str, tuple[int, ...]],
        count: int,
        hvp: Callable[[Array, Array, Array], Any],
        jacobian: Callable[[Array], Any] | None,
        jvp: Callable[[Array, Array], Any] | None,
        vjp: Callable[[Array, Array], Any] | None,
    ) -> None:
        self.shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(dict(shapes))
        self.size = sum(int(np.prod(s)) for s in shapes.values())
        self.count = count
        self._residuals, self._hvp, self._jacobian, self._jvp, self._vjp = residuals, hvp, jacobian, jvp, vjp

    def residuals(self, z: Array) -> Array:
        return _value(self._residuals(z), (self.count,), "residuals(z)")

    def jacobian(self, z: Array) -> Array:
        if self._jacobian is not None:
            return _value(self._jacobian(z), (self.count, self.size), "jacobian(z)")
        return np.stack([self.vjp(z, row) for row in np.eye(self.count)])

    def jvp(self, z: Array, w: Array) -> Array:
        return self.jacobian(z) @ w if self._jvp is None else _value(self._jvp(z, w), (self.count,), "jvp(z, w)")

    def vjp(self, z: Array, c: Array) -> Array:
        return c @ self.jacobian(z) if self._vjp is None else _value(self._vjp(z, c), (self.size,), "vjp(z, c)")

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        if c.ndim == 1:
            return _value(self._hvp(z, c, w), (self.size,), "hvp(z, c, w)")
        total = np.zeros(self.size)
        for one, other in zip(c.reshape(-1, self.count), w.reshape(-1, self.size), strict=True):
            total += _value(self._hvp(z, one, other), (self.size,), "hvp(z, c, w)")
        return total
