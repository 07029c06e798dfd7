"""Ready-made update rules that scale each coordinate by its own gradients, or that take the gradient's sign or clip it.

States named ``v`` (or ``s``) are second moments of the gradient and slow: they move with the point on the manifold. All
states start at 0, as in PyTorch; ``simulate(..., initial_state={"v": 20})`` starts them warm.
A scaling is that of the quasistatic paper (section 5): time t = k*eta^2, 1 - beta_i = c_i*eta^2, eps = eps0/eta, v = u/eta^2. It
belongs to gradient noise of standard deviation sigma0/eta, which is the problem's to declare.
"""

from __future__ import annotations

from typing import Any

from quasistatic.model.trace import optimizer
from quasistatic.symbols import block_mean, clip, maximum, mean, sign, sqrt

_SCALING = {"eta": "e", "beta1": "1 - c1*e**2", "beta2": "1 - c2*e**2", "eps": "eps0/e", "v": "u/e**2"}
_EXAMPLES = {"eta": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


@optimizer(slow_states=["v"], scaling=_SCALING, dt="eta**2", examples=_EXAMPLES)
def adam(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, t: Any, weight_decay: Any = 0) -> Any:
    """Adam as in PyTorch (Kingma and Ba 2015), weight_decay added to the gradient (L2).

    TensorFlow adds eps to the uncorrected sqrt(v): its eps is eps*sqrt(1 - beta2^t) here. optax can also put eps_root into the root.
    """
    g = g + weight_decay * z
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


@optimizer(slow_states=["v"], scaling=_SCALING, dt="eta**2", examples={**_EXAMPLES, "weight_decay": 1e-2})
def adamw(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, weight_decay: Any, t: Any) -> Any:
    """AdamW as in PyTorch (Loshchilov and Hutter 2019): z shrinks by 1 - eta*weight_decay, then Adam's step.

    Neither m nor v sees the decay. optax adds weight_decay*z to Adam's direction, which is the same number. The paper's own form
    does not multiply the decay by eta.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return (1 - eta * weight_decay) * z - eta * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


@optimizer(
    slow_states=["v"],
    scaling={"eta": "e", "beta2": "1 - c2*e**2", "eps": "eps0/e", "v": "u/e**2"},
    dt="eta**2",
    examples={"eta": 1e-3, "beta2": 0.99, "eps": 1e-8},
)
def rmsprop(z: Any, g: Any, v: Any, *, eta: Any, beta2: Any, eps: Any, weight_decay: Any = 0) -> Any:
    """RMSprop as in PyTorch, where beta2 is called alpha: no bias correction, no centering; L2 weight decay.

    PyTorch's momentum, a heavy ball after the preconditioning, is left out. optax and TensorFlow put eps into the root by default.
    """
    g = g + weight_decay * z
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * g / (sqrt(v) + eps), v


@optimizer(slow_states=["s"], examples={"eta": 1e-2, "eps": 1e-10})
def adagrad(z: Any, g: Any, s: Any, *, eta: Any, eps: Any, weight_decay: Any = 0) -> Any:
    """Adagrad as in PyTorch (Duchi et al. 2011): s is the sum of all squared gradients, without an equilibrium; L2 weight decay.

    s starts at 0 in PyTorch and here, at 0.1 in optax and TensorFlow; optax puts eps into the root. PyTorch's lr_decay is left out.
    """
    g = g + weight_decay * z
    s = s + g**2
    return z - eta * g / (sqrt(s) + eps), s


@optimizer(slow_states=["v", "v_max"], scaling={**_SCALING, "v_max": "u_max/e**2"}, dt="eta**2", examples=_EXAMPLES)
def amsgrad(
    z: Any, g: Any, m: Any, v: Any, v_max: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, t: Any, weight_decay: Any = 0
) -> Any:
    """AMSGrad as in PyTorch (Reddi et al. 2018): v_max is the running maximum of the raw v and bias-corrected afterwards; L2 weight decay.

    The paper has no bias correction; optax takes the maximum of the bias-corrected v.
    """
    g = g + weight_decay * z
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    v_max = maximum(v_max, v)
    return z - eta * (m / (1 - beta1**t)) / (sqrt(v_max / (1 - beta2**t)) + eps), m, v, v_max


@optimizer(slow_states=["v"], scaling=_SCALING, dt="eta**2", examples=_EXAMPLES)
def adam_mini(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, t: Any, weight_decay: Any = 0) -> Any:
    """Adam-mini (Zhang et al. 2024): Adam with one v for each of the problem's blocks, the mean of g^2 over the block.

    Weight decay is decoupled, as in the authors' program. Called with numbers, the arrays are one block.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * block_mean(g**2)
    return (1 - eta * weight_decay) * z - eta * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


@optimizer(slow_states=["v"], scaling=_SCALING, dt="eta**2", examples=_EXAMPLES)
def adalayer(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, t: Any) -> Any:
    """Adalayer (Zhao et al. 2024): Adam with one v for each layer; one of the problem's blocks per layer.

    adam_mini without weight decay. With a single block all coordinates share v.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * block_mean(g**2)
    return z - eta * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps), m, v


@optimizer(slow_states=["v"], examples={**_EXAMPLES, "power": 0.25})
def adam_power(z: Any, g: Any, m: Any, v: Any, *, eta: Any, beta1: Any, beta2: Any, eps: Any, power: Any) -> Any:
    """AdamE-lambda: Adam with 1/(v^power + eps), without bias correction; power 1/2 is Adam, power 0 EMA momentum at rate eta/(1 + eps).

    Padam (Chen et al. 2018) is close, but raises the corrected running maximum and adds eps to it before the power.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * m / (v**power + eps), m, v


@optimizer(scaling={"eta": "e"}, dt="eta**2", examples={"eta": 1e-3})
def signsgd(z: Any, g: Any, *, eta: Any) -> Any:
    """signSGD (Bernstein et al. 2018): a step of eta against the sign of each coordinate's gradient; sign(0) = 0."""
    return z - eta * sign(g)


@optimizer(examples={"eta": 1e-4, "beta1": 0.9, "beta2": 0.99})
def lion(z: Any, g: Any, m: Any, *, eta: Any, beta1: Any, beta2: Any, weight_decay: Any = 0) -> Any:
    """Lion (Chen et al. 2023), as in optax and the authors' program: the sign of a mixture of memory and gradient.

    The memory is updated after its use; weight decay is decoupled.
    """
    direction = sign(beta1 * m + (1 - beta1) * g)
    m = beta2 * m + (1 - beta2) * g
    return z - eta * (direction + weight_decay * z), m


@optimizer(scaling={"eta": "e**2"}, dt="eta", examples={"eta": 1e-3, "threshold": 1.0})
def clipped_sgd(z: Any, g: Any, *, eta: Any, threshold: Any, weight_decay: Any = 0) -> Any:
    """SGD with each coordinate's gradient clipped to [-threshold, threshold] (PyTorch's clip_grad_value_); the decay is not clipped."""
    return z - eta * (clip(g, -threshold, threshold) + weight_decay * z)


@optimizer(scaling={"eta": "e**2"}, dt="eta", examples={"eta": 1e-3, "threshold": 1.0})
def norm_clipped_sgd(z: Any, g: Any, *, eta: Any, threshold: Any, weight_decay: Any = 0) -> Any:
    """SGD with the whole gradient scaled down to a root mean square of threshold over the d coordinates; the decay is not clipped.

    PyTorch's clip_grad_norm_ with max_norm = sqrt(d)*threshold, apart from the 1e-6 that it adds to the norm.
    """
    size = sqrt(mean(g**2))
    return z - eta * (g * threshold / maximum(threshold, size) + weight_decay * z)
