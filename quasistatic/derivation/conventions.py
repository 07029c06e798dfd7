"""What the symbols of a result mean, in words: the conventions that papers differ in."""

from __future__ import annotations

COMMON = (
    "H is the true Hessian of the loss (a paper that writes f = y^T H y has half of it).",
    "Sigma is the covariance of one iteration's gradient noise; HessianNoise(alpha) is Sigma = alpha*H, so a noise variance"
    " sigma^2*h in y for f = h*y^2 is alpha = sigma^2/2.",
    "V is the covariance of the point at which the gradient is taken, minus its slow part.",
    "The gain is the net displacement of a flat direction against a unit gradient kick.",
)
SLOW = (
    "The drift is the mean change of the coordinates at the limit point of the noiseless iteration, Ito term included.",
    "The potential Psi is that of the drift without its Ito part, which is -M^-1 dPsi/du with the induced metric M; no constants"
    " are dropped.",
    "The state is ordered parameters first, then every optimizer variable for every parameter.",
)
LAW = (
    "The regularizer rho is per unit of time: the optimizer descends tr rho(H) along the minima; rho(0) = 0, log(lambda) has no constant.",
)


def unit(time: str, dt: str) -> str:
    """The sentence about the unit of time."""
    if time == "iteration":
        return "Rates are per iteration, exact in the learning rate: k counts calls of the rule."
    return f"Rates are per unit of {time}, one iteration being {dt}: the SDE of the rule's declared scaling; V is the same per iteration."


def conventions(time: str, dt: str, order: str | None, slow: bool) -> str:
    """All conventions of a result, one a line."""
    lines = [unit(time, dt), *COMMON, *(SLOW if slow else LAW)]
    if order is not None:
        lines.append(f"Everything is at leading order in {order}, the other hyperparameters and the noise held fixed.")
    return "\n".join(f"- {line}" for line in lines)
