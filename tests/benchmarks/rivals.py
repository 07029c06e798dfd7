"""Other ways to simulate the workloads of ``workloads.py``, each as one would write it with that tool.

A rival is a function ``(workload, steps, trajectories, seed) -> final parameters (trajectories, d)``, made by a factory that may
raise ``ImportError`` (the tool is not installed) or ``NotImplementedError`` (the tool does not cover this workload). All compute
in float64. The optimizer's own variables start at 0.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import reference
from workloads import ANGLE, SIZE, Workload

Array = npt.NDArray[np.float64]
Runner = Callable[[int, int, int], Array]
C, S = float(np.cos(ANGLE)), float(np.sin(ANGLE))


def scalar_c(w: Workload) -> Runner:
    """C, one trajectory after the other."""
    return _compiled(w, "scalar")


def simd_c(w: Workload) -> Runner:
    """C, SIMD across trajectories."""
    return _compiled(w, "simd")


def _compiled(w: Workload, kind: str) -> Runner:
    name = f"{kind}_{w.name.lower()}"
    return lambda steps, trajectories, seed: reference.run(name, w.reference_numbers, w.start, steps, trajectories, seed)


def ours(w: Workload) -> Runner:
    """quasistatic, one thread."""
    return w.run


# -- NumPy -------------------------------------------------------------------------------------------------------------


def _gradient(w: Workload, xp: Any) -> Callable[[Any, Any], Any]:
    """Noisy gradient (N, d) at z (N, d) with normals n (N, r), in the array functions ``xp``."""
    h = w.numbers
    if w.name in ("W1", "W2"):
        sigma = (2 * h["alpha"]) ** 0.5

        def gradient(z: Any, n: Any) -> Any:
            x, y = z[..., 0], z[..., 1]
            s = 1 + x * x
            return xp.stack((2 * x * y * y, 2 * s * y + sigma * xp.sqrt(s) * n[..., 0]), -1)

    elif w.name == "W3":
        sigma = (2 * h["alpha"]) ** 0.5

        def gradient(z: Any, n: Any) -> Any:
            s, v = C * z[..., 0] - S * z[..., 1], S * z[..., 0] + C * z[..., 1]
            a = 1 + s * s
            along, across = 2 * s * v * v, 2 * a * v + sigma * xp.sqrt(a) * n[..., 0]
            return xp.stack((C * along + S * across, C * across - S * along), -1)

    else:
        M, sigma = target_matrix(w), h["sigma"]

        def gradient(z: Any, n: Any) -> Any:
            shape = (*z.shape[:-1], SIZE, SIZE)
            U, V = z[..., : SIZE**2].reshape(shape), z[..., SIZE**2 :].reshape(shape)
            R = 2 * (U @ xp.swapaxes(V, -1, -2) - M + sigma * n.reshape(shape))
            both = xp.stack((R @ V, xp.swapaxes(R, -1, -2) @ U), -3)
            return both.reshape(z.shape)

    return gradient


def target_matrix(w: Workload) -> Array:
    """M of W4."""
    return np.array(w.extra).reshape(SIZE, SIZE)


def noise_rank(w: Workload) -> int:
    """Normals per step."""
    return SIZE**2 if w.name == "W4" else 1


def _update(w: Workload, xp: Any) -> Callable[[Any, Any, Any], Any]:
    """(z, m, v), gradient and step number (from 1) to the next (z, m, v)."""
    h = w.numbers
    eta = h["eta"]
    if w.name == "W2":

        def update(state: Any, g: Any, t: Any) -> Any:
            z, m, v = state
            m = h["mu"] * m + g
            return z - eta * m, m, v

    elif w.name == "W3":

        def update(state: Any, g: Any, t: Any) -> Any:
            z, m, v = state
            m = h["beta1"] * m + (1 - h["beta1"]) * g
            v = h["beta2"] * v + (1 - h["beta2"]) * g * g
            return z - eta / (1 - h["beta1"] ** t) * m / (xp.sqrt(v / (1 - h["beta2"] ** t)) + h["eps"]), m, v

    else:

        def update(state: Any, g: Any, t: Any) -> Any:
            return state[0] - eta * g, state[1], state[2]

    return update


def numpy_vectorised(w: Workload) -> Runner:
    """NumPy, all trajectories in one array."""
    gradient, update, r = _gradient(w, np), _update(w, np), noise_rank(w)

    def run(steps: int, trajectories: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        z = np.tile(w.start, (trajectories, 1))
        state = (z, np.zeros_like(z), np.zeros_like(z))
        for t in range(1, steps + 1):
            state = update(state, gradient(state[0], rng.standard_normal((trajectories, r))), t)
        return state[0]

    return run


# -- Numba -------------------------------------------------------------------------------------------------------------


def numba_loops(w: Workload) -> Runner:
    """Numba, one trajectory after the other, np.random.normal: what people write."""
    import numba

    h = tuple(w.numbers.values())
    M = target_matrix(w) if w.name == "W4" else np.zeros((0, 0))
    loop = numba.njit({"W1": _loop_w1, "W2": _loop_w2, "W3": _loop_w3, "W4": _loop_w4}[w.name])

    def run(steps: int, trajectories: int, seed: int) -> Array:
        out = np.tile(w.start, (trajectories, 1))
        loop(steps, seed, h, M, out)
        return out

    return run


def _loop_w1(steps, seed, h, M, out):  # type: ignore[no-untyped-def]
    eta, alpha = h
    np.random.seed(seed)
    for i in range(len(out)):
        x, y = out[i]
        for _ in range(steps):
            s = 1 + x**2
            gx = 2 * x * y**2
            gy = 2 * s * y + np.sqrt(2 * alpha * s) * np.random.normal()
            x -= eta * gx
            y -= eta * gy
        out[i, 0] = x
        out[i, 1] = y


def _loop_w2(steps, seed, h, M, out):  # type: ignore[no-untyped-def]
    eta, mu, alpha = h
    np.random.seed(seed)
    for i in range(len(out)):
        x, y = out[i]
        bx = by = 0.0
        for _ in range(steps):
            s = 1 + x**2
            bx = mu * bx + 2 * x * y**2
            by = mu * by + 2 * s * y + np.sqrt(2 * alpha * s) * np.random.normal()
            x -= eta * bx
            y -= eta * by
        out[i, 0] = x
        out[i, 1] = y


def _loop_w3(steps, seed, h, M, out):  # type: ignore[no-untyped-def]
    eta, beta1, beta2, eps, alpha = h
    np.random.seed(seed)
    for i in range(len(out)):
        x, y = out[i]
        mx = my = vx = vy = 0.0
        for t in range(1, steps + 1):
            s, v = C * x - S * y, S * x + C * y
            a = 1 + s**2
            along = 2 * s * v**2
            across = 2 * a * v + np.sqrt(2 * alpha * a) * np.random.normal()
            gx, gy = C * along + S * across, C * across - S * along
            mx = beta1 * mx + (1 - beta1) * gx
            my = beta1 * my + (1 - beta1) * gy
            vx = beta2 * vx + (1 - beta2) * gx**2
            vy = beta2 * vy + (1 - beta2) * gy**2
            rate, unbias = eta / (1 - beta1**t), 1 - beta2**t
            x -= rate * mx / (np.sqrt(vx / unbias) + eps)
            y -= rate * my / (np.sqrt(vy / unbias) + eps)
        out[i, 0] = x
        out[i, 1] = y


def _loop_w4(steps, seed, h, M, out):  # type: ignore[no-untyped-def]
    eta, sigma = h
    np.random.seed(seed)
    m = len(M)
    R = np.empty((m, m))
    for i in range(len(out)):
        U, V = out[i, : m * m].copy().reshape(m, m), out[i, m * m :].copy().reshape(m, m)
        for _ in range(steps):
            for a in range(m):
                for b in range(m):
                    r = sigma * np.random.normal() - M[a, b]
                    for k in range(m):
                        r += U[a, k] * V[b, k]
                    R[a, b] = 2 * eta * r
            old = U.copy()
            for a in range(m):
                for b in range(m):
                    for k in range(m):
                        U[a, k] -= R[a, b] * V[b, k]
            for a in range(m):
                for b in range(m):
                    for k in range(m):
                        V[b, k] -= R[a, b] * old[a, k]
        out[i, : m * m] = U.ravel()
        out[i, m * m :] = V.ravel()


# -- JAX and diffrax ---------------------------------------------------------------------------------------------------


def jax_scan(w: Workload) -> Runner:
    """JAX: lax.scan over steps of one trajectory, vmap over trajectories, jit."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    gradient, update, r = _gradient(w, jnp), _update(w, jnp), noise_rank(w)

    def one(key: Any, times: Any) -> Any:
        def step(carry: Any, t: Any) -> Any:
            state, key = carry
            key, now = jax.random.split(key)
            n = jax.random.normal(now, (r,), dtype=jnp.float64)
            return (update(state, gradient(state[0], n), t), key), None

        z = jnp.array(w.start)
        return jax.lax.scan(step, ((z, 0 * z, 0 * z), key), times)[0][0][0]

    many = jax.jit(jax.vmap(one, in_axes=(0, None)))

    def run(steps: int, trajectories: int, seed: int) -> Array:
        keys = jax.random.split(jax.random.PRNGKey(seed), trajectories)
        return np.asarray(many(keys, jnp.arange(1.0, steps + 1)))

    return run


def diffrax_euler(w: Workload) -> Runner:
    """diffrax: Euler's method on the SDE whose Euler step of length 1 is the map."""
    if w.name not in ("W1", "W2"):
        raise NotImplementedError("an SDE of this rule is not the map")
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    eta, sigma, mu = w.numbers["eta"], (2 * w.numbers["alpha"]) ** 0.5, w.numbers.get("mu", 0.0)

    def drift(t: Any, z: Any, args: Any) -> Any:
        x, y, bx, by = z
        gx, gy = mu * bx + 2 * x * y**2, mu * by + 2 * (1 + x**2) * y
        return jnp.stack((-eta * gx, -eta * gy, gx - bx, gy - by))

    def diffusion(t: Any, z: Any, args: Any) -> Any:
        kick = sigma * jnp.sqrt(1 + z[0] ** 2)
        return jnp.stack((0 * kick, -eta * kick, 0 * kick, kick))

    def one(key: Any, steps: Any) -> Any:
        noise = diffrax.UnsafeBrownianPath(shape=(), key=key)
        terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise))
        begin = jnp.array([*w.start, 0.0, 0.0])
        solution = diffrax.diffeqsolve(
            terms, diffrax.Euler(), t0=0.0, t1=steps, dt0=1.0, y0=begin, adjoint=diffrax.ForwardMode(), max_steps=None
        )
        return solution.ys[-1, :2]

    many = jax.jit(jax.vmap(one, in_axes=(0, None)))

    def run(steps: int, trajectories: int, seed: int) -> Array:
        keys = jax.random.split(jax.random.PRNGKey(seed), trajectories)
        return np.asarray(many(keys, float(steps)))

    return run


# -- JiTCSDE -----------------------------------------------------------------------------------------------------------


def jitcsde_adaptive(w: Workload) -> Runner:
    """JiTCSDE: adaptive steps on the SDE, one trajectory after the other."""
    if w.name not in ("W1", "W2"):
        raise NotImplementedError("an SDE of this rule is not the map")
    import symengine
    from jitcsde import jitcsde, y

    eta, alpha, mu = w.numbers["eta"], w.numbers["alpha"], w.numbers.get("mu", 0.0)
    kick = symengine.sqrt(2 * alpha * (1 + y(0) ** 2))
    gradient = (2 * y(0) * y(1) ** 2, 2 * (1 + y(0) ** 2) * y(1))
    if w.name == "W1":
        f, g = [-eta * e for e in gradient], [symengine.Integer(0), eta * kick]
    else:
        f = [-eta * y(2), -eta * y(3), (mu - 1) * y(2) + gradient[0], (mu - 1) * y(3) + gradient[1]]
        g = [symengine.Integer(0)] * 3 + [kick]
    with _quiet(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # setuptools looks for a project here
        sde = jitcsde(f, g)
        sde.compile_C()

    def run(steps: int, trajectories: int, seed: int) -> Array:
        out = np.empty((trajectories, 2))
        with _quiet():
            for i in range(trajectories):
                sde.set_initial_value(np.array([*w.start, *[0.0] * (len(f) - 2)]), 0.0)
                sde.set_integration_parameters(atol=1e-3, rtol=1e-2)
                sde.set_seed(seed * 1_000_003 + i)
                out[i] = sde.integrate(float(steps))[:2]
        return out

    return run


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def torch_loop(w: Workload) -> Runner:
    """PyTorch: torch.optim, the trajectories as a batch."""
    import torch

    torch.set_num_threads(1)
    h, sigma = w.numbers, (2 * w.numbers.get("alpha", 0.0)) ** 0.5
    M = torch.tensor(target_matrix(w)) if w.name == "W4" else None

    def loss(z: Any, noise: Any) -> Any:
        """A loss whose gradient is the noisy one: with W1-W3 the kick is a linear term at frozen strength."""
        if w.name == "W4":
            U, V = z[:, : SIZE**2].view(-1, SIZE, SIZE), z[:, SIZE**2 :].view(-1, SIZE, SIZE)
            return ((U @ V.transpose(1, 2) - M + h["sigma"] * noise.view(-1, SIZE, SIZE)) ** 2).sum()
        x, y = (C * z[:, 0] - S * z[:, 1], S * z[:, 0] + C * z[:, 1]) if w.name == "W3" else (z[:, 0], z[:, 1])
        s = 1 + x**2
        return (s * y**2 + sigma * s.detach().sqrt() * noise[:, 0] * y).sum()

    def run(steps: int, trajectories: int, seed: int) -> Array:
        generator = torch.Generator().manual_seed(seed)
        z = torch.tensor(np.tile(w.start, (trajectories, 1)), requires_grad=True)
        if w.name == "W3":
            optimizer: Any = torch.optim.Adam([z], lr=h["eta"], betas=(h["beta1"], h["beta2"]), eps=h["eps"])
        else:
            optimizer = torch.optim.SGD([z], lr=h["eta"], momentum=h.get("mu", 0.0))
        for _ in range(steps):
            noise = torch.randn((trajectories, noise_rank(w)), generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            loss(z, noise).backward()
            optimizer.step()
        return z.detach().numpy().copy()

    return run


#: Label to factory, whether it computes the map (JiTCSDE integrates the SDE, which differs), and steps per timing of W1-W3 and W4.
RIVALS: dict[str, tuple[Callable[[Workload], Runner], bool, int, int]] = {
    "scalar C": (scalar_c, True, 100_000, 4_000),
    "SIMD C": (simd_c, True, 400_000, 20_000),
    "quasistatic": (ours, True, 400_000, 20_000),
    "numba, np.random": (numba_loops, True, 20_000, 1_000),
    "JAX, scan + vmap": (jax_scan, True, 20_000, 2_000),
    "NumPy, vectorised": (numpy_vectorised, True, 4_000, 1_000),
    "diffrax, Euler": (diffrax_euler, True, 10_000, 0),
    "JiTCSDE, adaptive": (jitcsde_adaptive, False, 2_000, 0),
    "torch.optim": (torch_loop, True, 300, 200),
}

#: What needs a package that is not among the library's own.
OPTIONAL = ("JAX, scan + vmap", "diffrax, Euler", "JiTCSDE, adaptive", "torch.optim")
