"""Ready-made update rules; `linear` means linear in the gradient."""

from __future__ import annotations

from typing import Any

from quasistatic.model.trace import optimizer


@optimizer(scaling={"eta": "e**2"}, dt="eta", examples={"eta": 1e-3})
def sgd(z: Any, g: Any, *, eta: Any, weight_decay: Any = 0) -> Any:
    """Stochastic gradient descent; weight_decay adds its multiple of z to the gradient (L2)."""
    return z - eta * (g + weight_decay * z)


@optimizer(scaling={"eta": "e**2", "mu": "1 - c*e", "b": "-p/e"}, dt="eta", examples={"eta": 1e-3, "mu": 0.9})
def heavy_ball(z: Any, g: Any, b: Any, *, eta: Any, mu: Any, tau: Any = 0, weight_decay: Any = 0) -> Any:
    """Heavy ball as in PyTorch and optax, with dampening tau; the first step uses b = (1 - tau) g (PyTorch: b = g)."""
    b = mu * b + (1 - tau) * (g + weight_decay * z)
    return z - eta * b, b


@optimizer(scaling={"eta": "e**2", "mu": "1 - c*e", "m": "e*p"}, dt="eta", examples={"eta": 1e-3, "mu": 0.9})
def heavy_ball_velocity(z: Any, g: Any, m: Any, *, eta: Any, mu: Any, weight_decay: Any = 0) -> Any:
    """Heavy ball as in the quasistatic paper (eq. 15): the memory is the velocity. heavy_ball with m = -eta*b."""
    m = mu * m - eta * (g + weight_decay * z)
    return z + m, m


@optimizer(scaling={"eta": "e", "mu": "1 - c*e"}, dt="eta", examples={"eta": 1e-2, "mu": 0.9})
def ema_momentum(z: Any, g: Any, m: Any, *, eta: Any, mu: Any, weight_decay: Any = 0) -> Any:
    """Momentum as an exponential moving average; heavy ball with learning rate (1 - mu)*eta."""
    m = mu * m + (1 - mu) * (g + weight_decay * z)
    return z - eta * m, m


@optimizer(scaling={"eta": "e**2", "mu": "1 - c*e", "b": "-p/e"}, dt="eta", examples={"eta": 1e-3, "mu": 0.9})
def nesterov(z: Any, g: Any, b: Any, *, eta: Any, mu: Any, weight_decay: Any = 0) -> Any:
    """Nesterov momentum as in PyTorch and optax; z is the look-ahead point (Sutskever's form stores the other one)."""
    g = g + weight_decay * z
    b = mu * b + g
    return z - eta * (g + mu * b), b


@optimizer(scaling={"eta": "e", "beta": "1 - c*e"}, dt="eta", examples={"eta": 1e-2, "beta": 0.9, "nu": 0.7})
def qhm(z: Any, g: Any, d: Any, *, eta: Any, beta: Any, nu: Any, weight_decay: Any = 0) -> Any:
    """Quasi-hyperbolic momentum (Ma and Yarats 2019): a mixture of SGD and EMA momentum."""
    g = g + weight_decay * z
    d = beta * d + (1 - beta) * g
    return z - eta * ((1 - nu) * g + nu * d), d


@optimizer(
    scaling={
        "eta": "e**2", "beta1": "1 - c1*e", "beta2": "1 - c2*e", "beta3": "1 - c3*e", "v1": "-p1/e", "v2": "-p2/e", "v3": "-p3/e",
    },
    dt="eta",
    examples={"eta": 1e-4},
)  # fmt: skip
def aggmo(
    z: Any,
    g: Any,
    v1: Any,
    v2: Any,
    v3: Any,
    *,
    eta: Any,
    beta1: Any = 0,
    beta2: Any = "9/10",
    beta3: Any = "99/100",
    weight_decay: Any = 0,
) -> Any:
    """Aggregated momentum (Lucas et al. 2019): the mean of three undamped velocities."""
    g = g + weight_decay * z
    v1 = beta1 * v1 + g
    v2 = beta2 * v2 + g
    v3 = beta3 * v3 + g
    return z - eta * (v1 + v2 + v3) / 3, v1, v2, v3
