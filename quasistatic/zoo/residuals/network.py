"""Feed-forward networks on a data set: linear, tanh or ReLU, any depth, with all derivatives by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from quasistatic.errors import ProblemError, suggestion
from quasistatic.model.machine import Machine
from quasistatic.zoo.residuals.base import Array, ResidualModel, finite_array

#: Name of an activation to its number in the compiled functions.
ACTIVATIONS = {"linear": 0, "tanh": 1, "relu": 2}
#: Floats of an intermediate result that ``hvp`` keeps at a time: half a megabyte stays in the cache.
CHUNK = 60_000


def network_forward(
    z: Any, rows: Any, r: Any, work: Any, X: Any, Y: Any, widths: Any, weights: Any, biases: Any, code: int, scale: float
) -> None:
    """Output k of sample i minus its target; the residual of (i, k) has the number i*outputs + k.

    ``weights`` and ``biases`` are where in z the arrays of a layer begin (-1: no bias). The working memory of a row holds the
    inputs, then all hidden layers, then two layers of room for ``network_pullback``.
    """
    depth = widths.shape[0] - 1
    outputs = widths[depth]
    room = work.shape[0] // rows.shape[0]
    for q in range(rows.shape[0]):
        i = rows[q] // outputs
        k = rows[q] - i * outputs
        here = q * room
        for a in range(widths[0]):
            work[here + a] = X[i, a]
        for layer in range(depth - 1):
            n = widths[layer]
            there = here + n
            h = work[here : here + n]
            for o in range(widths[layer + 1]):
                w = z[weights[layer] + o * n : weights[layer] + (o + 1) * n]
                total = 0.0
                for a in range(n):
                    total += w[a] * h[a]
                if biases[layer] >= 0:
                    total += z[biases[layer] + o]
                if code == 1:
                    total = math.tanh(total)
                elif code == 2:
                    total = max(total, 0.0)
                work[there + o] = total
            here = there
        n = widths[depth - 1]
        start = weights[depth - 1] + k * n
        total = 0.0
        for a in range(n):
            total += z[start + a] * work[here + a]
        r[q] = scale * total - Y[i, k]


def network_pullback(
    z: Any, rows: Any, c: Any, g: Any, work: Any, X: Any, Y: Any, widths: Any, weights: Any, biases: Any, code: int, scale: float
) -> None:
    """Back-propagation of c through the layers that ``network_forward`` left in the working memory."""
    depth = widths.shape[0] - 1
    outputs = widths[depth]
    room = work.shape[0] // rows.shape[0]
    largest = 0
    for layer in range(depth):
        largest = max(largest, widths[layer])
    for q in range(rows.shape[0]):
        k = rows[q] % outputs
        free = (q + 1) * room - 2 * largest
        here = q * room
        for layer in range(depth - 1):
            here += widths[layer]
        n = widths[depth - 1]
        start = weights[depth - 1] + k * n
        pull = scale * c[q]
        for a in range(n):
            work[free + a] = pull * z[start + a]
            g[start + a] += pull * work[here + a]
        for step in range(depth - 1):
            layer = depth - 2 - step
            n = widths[layer]
            above = here
            here -= n
            h = work[here : here + n]
            below = free + largest
            for a in range(n):
                work[below + a] = 0.0
            for o in range(widths[layer + 1]):
                slope = 1.0
                if code == 1:
                    slope = 1.0 - work[above + o] * work[above + o]
                elif code == 2:
                    slope = 1.0 if work[above + o] > 0.0 else 0.0
                pull = slope * work[free + o]
                first = weights[layer] + o * n
                into = g[first : first + n]
                for a in range(n):
                    into[a] += pull * h[a]
                if biases[layer] >= 0:
                    g[biases[layer] + o] += pull
                if layer > 0:
                    for a in range(n):
                        work[below + a] += pull * z[first + a]
            for a in range(n):
                work[free + a] = work[below + a]


class Network(ResidualModel):
    """r_(ik) = scale * (W_L phi(W_{L-1} ... phi(W_1 x_i + b_1) ...))_k - y_ik; sample major.

    Parameters
    ----------
    widths:
        Inputs, hidden widths, outputs: at least three numbers.
    X, Y:
        (n, inputs) and (n, outputs); Y may be (n,) for one output.
    activation:
        "linear", "tanh" or "relu", of every hidden layer.
    bias:
        Whether hidden layers have one; the output has none.
    scale:
        Factor of the output.

    The arrays of a point are W1, b1, W2, b2, ..., each W (width, width before).
    """

    def __init__(self, widths: Sequence[int], X: Any, Y: Any, activation: str = "linear", bias: bool = False, scale: float = 1.0) -> None:
        if activation not in ACTIVATIONS:
            raise ProblemError(
                f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}.{suggestion(str(activation), ACTIVATIONS)}"
            )
        self.X = finite_array(X, "X", 2)
        given = np.asarray(Y)
        self.Y = finite_array(given[:, None] if given.ndim == 1 else Y, "y", 2)
        self.widths = tuple(int(w) for w in widths)
        self.activation, self.scale = activation, float(scale)
        if len(self.widths) < 3 or min(self.widths) < 1:
            raise ProblemError(f"widths={tuple(widths)}: give the inputs, at least one hidden width and the outputs, each at least 1.")
        if self.X.shape[1] != self.widths[0]:
            raise ProblemError(f"X has shape {self.X.shape}, but the network has {self.widths[0]} inputs.")
        if self.Y.shape != (len(self.X), self.widths[-1]):
            raise ProblemError(
                f"y has shape {given.shape}; {len(self.X)} samples and {self.widths[-1]} outputs need {(len(self.X), self.widths[-1])}."
            )
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(1, len(self.widths)):
            shapes[f"W{layer}"] = (self.widths[layer], self.widths[layer - 1])
            if bias and layer < len(self.widths) - 1:
                shapes[f"b{layer}"] = (self.widths[layer],)
        super().__init__(shapes, self.Y.size)

    @property
    def depth(self) -> int:
        """Number of weight matrices."""
        return len(self.widths) - 1

    @property
    def machine(self) -> Machine:
        starts, at = {}, 0
        for name, shape in self.shapes.items():
            starts[name] = at
            at += int(np.prod(shape))
        weights = np.array([starts[f"W{l}"] for l in range(1, self.depth + 1)], dtype=np.int64)
        biases = np.array([starts.get(f"b{l}", -1) for l in range(1, self.depth + 1)], dtype=np.int64)
        data = (self.X, self.Y, np.array(self.widths, dtype=np.int64), weights, biases, ACTIVATIONS[self.activation], self.scale)
        room = sum(self.widths[:-1]) + 2 * max(self.widths[:-1])
        return Machine(network_forward, network_pullback, data, work=room)

    def initial(self, seed: int = 0, size: float = 1.0) -> Array:
        """Gaussian weights of standard deviation size/sqrt(inputs of the layer), the last layer size; biases 0."""
        rng = np.random.default_rng(seed)
        arrays = {}
        for name, shape in self.shapes.items():
            spread = size if name == f"W{self.depth}" and self.scale != 1 else size / np.sqrt(shape[-1])
            arrays[name] = rng.normal(0, spread, shape) if name[0] == "W" else np.zeros(shape)
        return self.pack(**arrays)

    def predict(self, z: Array, X: Any) -> Array:
        """The outputs (n, outputs) on other inputs (n, inputs)."""
        a, h = self.unpack(z), np.asarray(X, dtype=np.float64)
        for layer in range(1, self.depth):
            h = self._phi(h @ a[f"W{layer}"].T + a.get(f"b{layer}", 0.0))
        return np.asarray(self.scale * h @ a[f"W{self.depth}"].T)

    # -- activations; slopes in terms of the value of the activation ---------------------------------------------------

    def _phi(self, s: Array) -> Array:
        if self.activation == "tanh":
            return np.tanh(s)
        return np.maximum(s, 0.0) if self.activation == "relu" else s

    def _slope(self, h: Array) -> Array:
        if self.activation == "tanh":
            return 1 - h**2
        return (h > 0).astype(np.float64) if self.activation == "relu" else np.ones_like(h)

    def _bend(self, h: Array) -> Array | float:
        """Second derivative of the activation."""
        return -2 * h * (1 - h**2) if self.activation == "tanh" else 0.0

    def _layers(self, a: dict[str, Array]) -> list[Array]:
        """Inputs and hidden layers, (n, width) each."""
        h = [self.X]
        for layer in range(1, self.depth):
            h.append(self._phi(h[-1] @ a[f"W{layer}"].T + a.get(f"b{layer}", 0.0)))
        return h

    # -- residuals and derivatives -------------------------------------------------------------------------------------

    def residuals(self, z: Array) -> Array:
        """(n*outputs,)"""
        return np.asarray(self.predict(z, self.X) - self.Y).reshape(-1)

    def jacobian(self, z: Array) -> Array:
        """(n*outputs, d)"""
        a = self.unpack(z)
        h = self._layers(a)
        n, K = self.Y.shape
        parts: dict[str, Array] = {}
        readout = np.zeros((n, K, K, self.widths[-2]))
        for k in range(K):
            readout[:, k, k] = self.scale * h[-1]
        parts[f"W{self.depth}"] = readout
        delta = np.broadcast_to(self.scale * a[f"W{self.depth}"], (n, K, self.widths[-2]))
        for layer in range(self.depth - 1, 0, -1):
            delta = delta * self._slope(h[layer])[:, None]
            parts[f"W{layer}"] = delta[..., None] * h[layer - 1][:, None, None, :]
            parts[f"b{layer}"] = delta
            delta = delta @ a[f"W{layer}"]
        return np.concatenate([parts[name].reshape(n * K, -1) for name in self.shapes], axis=1)

    def jvp(self, z: Array, w: Array) -> Array:
        """J w, (n*outputs,)"""
        a, b = self.unpack(z), self.unpack(w)
        h, dh = self._layers(a), np.zeros_like(self.X)
        for layer in range(1, self.depth):
            ds = dh @ a[f"W{layer}"].T + h[layer - 1] @ b[f"W{layer}"].T + b.get(f"b{layer}", 0.0)
            dh = self._slope(h[layer]) * ds
        last = f"W{self.depth}"
        return np.asarray(self.scale * (dh @ a[last].T + h[-1] @ b[last].T)).reshape(-1)

    def vjp(self, z: Array, c: Array) -> Array:
        """J^T c, (d,)"""
        a = self.unpack(z)
        h = self._layers(a)
        C = self.scale * np.reshape(c, self.Y.shape)
        parts = {f"W{self.depth}": C.T @ h[-1]}
        delta = C @ a[f"W{self.depth}"]
        for layer in range(self.depth - 1, 0, -1):
            delta = delta * self._slope(h[layer])
            parts[f"W{layer}"], parts[f"b{layer}"] = delta.T @ h[layer - 1], delta.sum(axis=0)
            delta = delta @ a[f"W{layer}"]
        return np.concatenate([parts[name].reshape(-1) for name in self.shapes])

    def hvp(self, z: Array, c: Array, w: Array) -> Array:
        """Forward derivative of back-propagation, for many pairs at once, in pieces that stay in the cache."""
        weights, vectors = self.pairs(c, w)
        a = self.unpack(z)
        h = self._layers(a)
        size = max(1, CHUNK // (len(self.X) * max(self.widths)))
        total = np.zeros(self.size)
        for first in range(0, len(weights), size):
            C = self.scale * weights[first : first + size].reshape(-1, *self.Y.shape)
            total += self._second(a, h, C, self.unpack(vectors[first : first + size]))
        return total

    def _second(self, a: dict[str, Array], h: list[Array], C: Array, b: dict[str, Array]) -> Array:
        dh: list[Array] = [np.zeros((1, 1, 1))]
        ds: list[Array] = [np.zeros((1, 1, 1))]
        for layer in range(1, self.depth):
            s = h[layer - 1] @ b[f"W{layer}"].transpose(0, 2, 1)
            if layer > 1:
                s += dh[-1] @ a[f"W{layer}"].T
            if f"b{layer}" in b:
                s += b[f"b{layer}"][:, None, :]
            ds.append(s)
            dh.append(self._slope(h[layer]) * s)
        last = f"W{self.depth}"
        parts = {last: _outer(C, dh[-1])}
        pull, dpull = C @ a[last], C @ b[last]
        for layer in range(self.depth - 1, 0, -1):
            slope, bend = self._slope(h[layer]), self._bend(h[layer])
            delta, ddelta = pull * slope, dpull * slope + pull * (bend * ds[layer])
            parts[f"W{layer}"] = ddelta.sum(axis=0).T @ h[layer - 1]
            parts[f"b{layer}"] = ddelta.sum(axis=(0, 1))
            if layer > 1:
                parts[f"W{layer}"] += _outer(delta, dh[layer - 1])
                pull, dpull = delta @ a[f"W{layer}"], ddelta @ a[f"W{layer}"] + delta @ b[f"W{layer}"]
        return np.concatenate([parts[name].reshape(-1) for name in self.shapes])


def _outer(left: Array, right: Array) -> Array:
    """sum over pairs and samples of left (K, n, p) times right (K, n, q), shape (p, q)."""
    return np.asarray(left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1]))
