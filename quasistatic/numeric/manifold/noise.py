"""The gradient noise at a point, in the basis of the normal directions (theory, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp

from quasistatic.errors import HyperparameterError, ProblemError
from quasistatic.model.noise import CovarianceNoise, HessianNoise, IsotropicNoise, LabelNoise, Noise, SumNoise
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
    """The problem's noise with numbers for its constants; a sum of independent noises is a list of parts.

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
        listed = noise.parts if isinstance(noise, SumNoise) else (noise,)
        self.parts = [_Part(n, scale, count, values, parameters, size) for n in listed]
        sampled = [p for p in self.parts if p.batch is not None]
        if len(sampled) > 1:
            raise ProblemError("two label noises with minibatches in one sum: every iteration draws one batch.")
        self.sampled = sampled[0] if sampled else None

    @property
    def batch(self) -> int | None:
        """Size of the minibatches; None for the full batch."""
        return None if self.sampled is None else self.sampled.batch

    @property
    def proportional(self) -> str | None:
        """ "hessian" or "isotropic" where the noise is a multiple of the Hessian or of the normal projector, by a constant."""
        if len(self.parts) > 1 or self.sampled is not None or not self.parts[0].constant:
            return None
        noise = self.parts[0].noise
        if isinstance(noise, (HessianNoise, LabelNoise)):
            return "hessian"
        return "isotropic" if isinstance(noise, IsotropicNoise) and not noise.tangent_only else None

    def strength(self, z: Array) -> float:
        """alpha of Hessian noise, sigma^2 of isotropic noise, where ``proportional`` says so."""
        (part,) = self.parts
        return part.alpha(z) if self.proportional == "hessian" else part.sigma(z) ** 2

    @property
    def silent(self) -> bool:
        """Whether there is sampling, but nothing that it could amplify."""
        return all(p.constant and not np.any(p.strengths(np.zeros(0))) for p in self.parts)

    def blocks(self, local: Local, z: Array, root: Array) -> Blocks:
        """The noise at a point."""
        found = [p.blocks(local, z, root) for p in self.parts]
        if len(found) == 1:
            return found[0]
        flat = all(b.normal.ndim == 1 for b in found)
        normal = sum(b.normal if flat or b.normal.ndim == 2 else np.diag(b.normal) for b in found)
        crosses = [b.cross for b in found if b.cross is not None]
        tangents = [b.tangent for b in found if b.tangent is not None]
        return Blocks(np.asarray(normal), np.sum(crosses, axis=0) if crosses else None, np.hstack(tangents) if tangents else None)

    def diagonal(self, shape: Shape, z: Array) -> Array:
        """Sigma_ii, shape (d,)."""
        return np.asarray(sum(p.diagonal(shape, z) for p in self.parts))


class _Part:
    """One noise model with numbers for its constants.

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
    def constant(self) -> bool:
        """Whether the strength does not depend on the point."""
        return not any(e.free_symbols for e in self._at.expressions)

    def alpha(self, z: Array) -> float:
        """Factor of the Hessian in Sigma, for Hessian noise and for label noise."""
        (strength,) = self._at(z)
        if isinstance(self.noise, HessianNoise):
            return float(strength)
        copies = 1.0 if self.batch is None else self._count / self.batch
        return float(2 * copies * self._scale * strength**2)

    def strengths(self, z: Array) -> Array:
        """The model's expressions in numbers."""
        return self._at(z)

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
            if plain:
                W = local.normals
                normal = np.full(len(local.curvature), 0.0 if self.noise.tangent_only else sigma**2)
                return Blocks(normal, None, None if self.noise.normal_only else sigma * (np.eye(self.size) - W @ W.T))
        return _split(root[:, None] * self.factor(local, z, root), local.normals)

    def diagonal(self, shape: Shape, z: Array) -> Array:
        """Sigma_ii, shape (d,)."""
        if isinstance(self.noise, (HessianNoise, LabelNoise)):
            return self.alpha(z) * shape.diagonal(z)
        if isinstance(self.noise, CovarianceNoise):
            return np.diag(self._at(z).reshape(self.size, self.size)).copy()
        if isinstance(self.noise, IsotropicNoise) and not (self.noise.normal_only or self.noise.tangent_only):
            return np.full(self.size, self.sigma(z) ** 2)
        ones = np.ones(self.size)
        return np.asarray(np.sum(self.factor(shape.local(z, ones), z, ones) ** 2, axis=1))

    def factor(self, local: Local, z: Array, root: Array) -> Array:
        """C with C C^T = Sigma, shape (d, m)."""
        W = local.normals
        if isinstance(self.noise, IsotropicNoise):
            Q = np.linalg.qr(W / root[:, None])[0]
            if self.noise.normal_only:
                return self.sigma(z) * Q
            inside = Q @ Q.T if self.noise.tangent_only else np.zeros(1)
            return np.asarray(self.sigma(z) * (np.eye(self.size) - inside))
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
