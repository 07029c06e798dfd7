"""The gradient noise at a point, in the basis of the normal directions (theory, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, ProblemError
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise, Noise
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.manifold.shape import Local, Shape

#: Parts of a covariance below this part of its size count as zero.
NOTHING = 1e-13


@dataclass(frozen=True, eq=False)
class Blocks:
    """Sigma in the coordinates S^(-1/2) z, split along and across the manifold.

    Attributes
    ----------
    normal:
        W^T Sigma W: (rank,) where it is diagonal, else (rank, rank).
    cross:
        P Sigma W, shape (d, rank); None where it vanishes.
    tangent:
        F with F F^T = P Sigma P, shape (d, m); None where it vanishes.
    """

    normal: Array
    cross: Array | None = None
    tangent: Array | None = None


class NoiseModel:
    """A noise model with numbers for its constants.

    Parameters
    ----------
    noise, scale, count:
        The model; the loss's factor of the sum of squares, and the number of residuals (0 without residuals).
    values:
        Name to number of its constants.
    parameters:
        Symbols of the parameters, which a strength may depend on; none for array problems.
    size:
        d.
    """

    def __init__(
        self, noise: Noise, scale: float, count: int, values: Mapping[str, float], parameters: Sequence[sp.Symbol], size: int
    ) -> None:
        self.noise, self.size = noise, size
        self._scale, self._count = scale, count
        constants = {s: sp.Float(values[s.name], 17) for s in noise.free_symbols if s.name in values}
        self._at = _Strengths([e.xreplace(constants) for e in _expressions(noise)], parameters)
        self.batch = noise.batch if isinstance(noise, LabelNoise) else None
        if self.batch is not None and self.batch > count:
            raise ProblemError(f"LabelNoise(batch={self.batch}): the problem has only {count} residual(s) to draw from.")
        if isinstance(noise, LabelNoise) and count == 0:
            raise ProblemError("LabelNoise perturbs residuals: build the problem with qs.Problem.from_residuals(...).")
        if isinstance(noise, CovarianceNoise) and noise.matrix.rows != size:
            raise ProblemError(
                f"CovarianceNoise: the matrix is {noise.matrix.rows}x{noise.matrix.cols}, the problem has {size} parameters."
            )

    @property
    def proportional(self) -> str | None:
        """ "hessian" or "isotropic" where the noise is a multiple of the Hessian or of the normal projector, by a constant."""
        constant = not any(e.free_symbols for e in self._at.expressions)
        if not constant or self.batch is not None:
            return None
        if isinstance(self.noise, (HessianNoise, LabelNoise)):
            return "hessian"
        return "isotropic" if isinstance(self.noise, IsotropicNoise) else None

    def alpha(self, z: Array) -> float:
        """Factor of the Hessian in Sigma, for Hessian noise and for label noise."""
        (strength,) = self._at(z)
        if isinstance(self.noise, HessianNoise):
            return float(strength)
        copies = 1.0 if self.batch is None else self._count / self.batch
        return float(2 * copies * self._scale * strength**2)

    def sigma(self, z: Array) -> float:
        """The strength sigma of label noise or of isotropic noise."""
        return float(self._at(z)[0])

    def blocks(self, local: Local, z: Array, root: Array) -> Blocks:
        """The noise at a point."""
        if isinstance(self.noise, (HessianNoise, LabelNoise)):
            return Blocks(self.alpha(z) * local.curvature)
        plain = bool(np.all(root == 1))
        if isinstance(self.noise, IsotropicNoise):
            sigma = self.sigma(z)
            if plain and self.noise.normal_only:
                return Blocks(np.full(len(local.curvature), sigma**2))
            if plain:
                W = local.normals
                rest = np.eye(self.size) - W @ W.T
                return Blocks(np.full(len(local.curvature), sigma**2), None, sigma * rest)
        return _split(root[:, None] * self.factor(local, z, root), local.normals)

    def diagonal(self, shape: Shape, z: Array) -> Array:
        """Sigma_ii, shape (d,)."""
        if isinstance(self.noise, (HessianNoise, LabelNoise)):
            return self.alpha(z) * shape.diagonal(z)
        if isinstance(self.noise, CovarianceNoise):
            return np.diag(self._at(z).reshape(self.size, self.size)).copy()
        if isinstance(self.noise, IsotropicNoise) and not self.noise.normal_only:
            return np.full(self.size, self.sigma(z) ** 2)
        ones = np.ones(self.size)
        return np.asarray(np.sum(self.factor(shape.local(z, ones), z, ones) ** 2, axis=1))

    def factor(self, local: Local, z: Array, root: Array) -> Array:
        """C with C C^T = Sigma, shape (d, m)."""
        W = local.normals
        if isinstance(self.noise, IsotropicNoise):
            if not self.noise.normal_only:
                return self.sigma(z) * np.eye(self.size)
            return self.sigma(z) * np.linalg.qr(W / root[:, None])[0]
        if isinstance(self.noise, CovarianceNoise):
            weights, vectors = np.linalg.eigh(self._at(z).reshape(self.size, self.size))
            keep = weights > NOTHING * max(weights[-1], 1e-300)
            return np.asarray(vectors[:, keep] * np.sqrt(weights[keep]))
        return np.asarray(np.sqrt(self.alpha(z)) * (W / root[:, None]) * np.sqrt(local.curvature))


def _split(factor: Array, W: Array) -> Blocks:
    inside = W.T @ factor
    rest = factor - W @ inside
    rest -= W @ (W.T @ rest)  # twice is enough: rounding must not look like noise along the manifold
    normal = inside @ inside.T
    if float(np.abs(rest).max(initial=0.0)) <= NOTHING * float(np.abs(factor).max(initial=0.0)):
        return Blocks(normal)
    cross = rest @ inside.T
    return Blocks(normal, cross if float(np.abs(cross).max()) > 0 else None, rest)


def _expressions(noise: Noise) -> list[sp.Expr]:
    if isinstance(noise, HessianNoise):
        return [noise.alpha]
    if isinstance(noise, (IsotropicNoise, LabelNoise)):
        return [noise.sigma]
    if isinstance(noise, CovarianceNoise):
        return list(noise.matrix)
    raise ProblemError(f"{type(noise).__name__} is not a noise model that manifold_flow knows.")


class _Strengths:
    """Expressions of the parameters as numbers; constants are evaluated once."""

    def __init__(self, expressions: list[sp.Expr], parameters: Sequence[sp.Symbol]) -> None:
        self.expressions = expressions
        open_ = sorted({s.name for e in expressions for s in e.free_symbols} - {p.name for p in parameters})
        if open_:
            raise HyperparameterError(f"no value for {', '.join(open_)} of the noise; add {open_[0]}=....")
        self._call: Callable[..., list[float]] | None = None
        if any(e.free_symbols for e in expressions):
            self._call = sp.lambdify(parameters, expressions, "numpy", cse=True)
        else:
            self._values = np.array([float(e) for e in expressions])

    def __call__(self, z: Array) -> Array:
        return self._values if self._call is None else np.array(self._call(*z), dtype=np.float64)
