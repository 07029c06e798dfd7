"""Rules with slow states and rules with a kink, against NumPy that shares nothing with the library."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sympy as sp
from oracle import curved_gradient, slow_drift
from scipy.linalg import solve_discrete_lyapunov
from scipy.special import erf

import quasistatic as qs
from quasistatic.derivation.slow_states import preconditioned_rule
from quasistatic.errors import SlowStateWarning

X = qs.zoo.curved_valley().parameters[0]
SIGMA = [[3, 1, sp.Rational(1, 2)], [1, 2, sp.Rational(1, 3)], [sp.Rational(1, 2), sp.Rational(1, 3), 1]]
NOISE = np.array(SIGMA, dtype=float)
S = np.array([0.7, 1.6, 0.4])
ETA, MU = 0.08, 0.6
AT = sp.Rational(7, 10)


def at_scale(result: qs.SlowDynamics, expression: sp.Expr, **values: float) -> float:
    """A number for an expression in frozen scales, the coordinate and hyperparameters."""
    names = {s.name: v for s, v in zip(result.scales, S, strict=True)} | {"x": 0.7} | values
    return float(expression.xreplace({s: sp.Float(names[s.name], 17) for s in expression.free_symbols}).evalf(17))


# -- the frozen preconditioner -----------------------------------------------------------------------------------------


@qs.optimizer(slow_states=["v"])
def with_momentum_after(z, g, v, b, *, eta, mu, beta2, eps):
    v = beta2 * v + (1 - beta2) * g**2
    b = mu * b + g / (qs.sqrt(v) + eps)
    return z - eta * b, v, b


@qs.optimizer(slow_states=["v"])
def old_value(z, g, v, *, eta, beta2, eps):
    return z - eta * g / (qs.sqrt(v) + eps), beta2 * v + (1 - beta2) * g**2


def adam_step(states: np.ndarray) -> np.ndarray:
    z, m = states[:, :3], states[:, 3:]
    m = MU * m + (1 - MU) * curved_gradient(z)
    return np.concatenate([z - ETA * S * m, m], axis=1)


def after_step(states: np.ndarray) -> np.ndarray:
    z, b = states[:, :3], states[:, 3:]
    b = MU * b + S * curved_gradient(z)
    return np.concatenate([z - ETA * b, b], axis=1)


CASES = {
    "adam": (qs.zoo.adam, adam_step, np.concatenate([np.diag(-ETA * S * (1 - MU)), np.eye(3) * (1 - MU)]), {"eta": ETA, "beta1": MU}),
    "momentum after": (with_momentum_after, after_step, np.concatenate([np.diag(-ETA * S), np.diag(S)]), {"eta": ETA, "mu": MU}),
    "old value": (
        old_value,
        lambda s: s - ETA * S * curved_gradient(s),
        np.diag(-ETA * S),
        {"eta": ETA},
    ),
}


def frozen(name: str) -> tuple[qs.SlowDynamics, dict[str, float], float]:
    rule, step, B, hyper = CASES[name]
    slow = qs.derive(rule, qs.zoo.curved_valley(noise=qs.CovarianceNoise(SIGMA)))
    rest = np.zeros(B.shape[0])
    rest[:3] = 0.7, 0.49, 0.343 / 2
    return slow, hyper, slow_drift(step, rest, B, NOISE, lambda s: s[:, :1])[0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.timeout(120)
def test_frozen_drift_against_the_limit_map(name):
    slow, hyper, expected = frozen(name)
    terms = slow.frozen_terms
    values = [at_scale(slow, part[0], **hyper) for part in (terms.flatness, terms.correlation, terms.ito)]
    assert all(v != 0 for v in values)
    assert abs(sum(values) - expected) < 1e-5 * np.linalg.norm(values)


def test_the_oracle_notices_another_metric():
    """With the Euclidean projection in place of the oblique one the same comparison fails."""
    slow, hyper, expected = frozen("adam")
    total = at_scale(slow, slow.frozen_terms.total[0], **hyper)
    oblique, plain = at_scale(slow, slow.geometry.field.expression(slow.geometry.G.to_list()[0][0])), 1 + 1.4**2 + (1.5 * 0.49) ** 2
    assert abs(total * oblique / plain - expected) > 1e-2 * abs(expected)


@pytest.mark.parametrize("name", CASES)
def test_covariance_and_second_moments_against_scipy(name):
    """The covariance of the whole fast state, and E[g^2] = Sigma_ii + (H V H)_ii, from the Stein equation of the frozen rule."""
    slow, hyper, _ = frozen(name)
    _, step, B, _ = CASES[name]
    n = B.shape[0]
    at = np.zeros(n)
    at[:3] = 0.7, 0.49, 0.343 / 2
    J = np.array([(step((at + h)[None])[0] - step((at - h)[None])[0]) / 2e-6 for h in 1e-6 * np.eye(n)]).T
    # with noise across the minima only there is one equilibrium; the tangent parts are the business of the drift tests
    H = np.array(slow.problem.hessian.subs(X, AT), dtype=float)
    problem = qs.zoo.curved_valley()
    label = qs.derive(CASES[name][0], problem)
    Q = B @ H @ B.T
    V = solve_discrete_lyapunov(J * (1 - 1e-9), Q)
    found = np.array([at_scale(label, e, alpha=1.0, **hyper) for e in label.frozen_covariance]).reshape(n, n)
    assert np.abs(found - V).max() < 1e-6 * np.abs(V).max()
    moments = [at_scale(label, e, alpha=1.0, **hyper) for e in label._second_moments]
    assert np.allclose(moments, np.diag(H + H @ V[:3, :3] @ H), rtol=1e-6)


def test_structure_of_zoo_rules():
    """What the preconditioner is, which states carry it, and what small forces do."""
    v = sp.Symbol("v", positive=True)
    adam = preconditioned_rule(qs.zoo.adam)
    h = adam.rule.trace.hyperparameters
    assert adam.scale == 1 / (sp.sqrt(v) + h["eps"])
    assert adam.powers == (1, 0)
    assert adam.linear.gain == h["eta"]
    after = preconditioned_rule(with_momentum_after)
    assert after.powers == (1, 1)
    assert after.linear.gain == after.rule.trace.hyperparameters["eta"] / (1 - after.rule.trace.hyperparameters["mu"])
    adamw = preconditioned_rule(qs.zoo.adamw)
    k = adamw.rule.trace.hyperparameters
    assert adamw.pull == -k["eta"] * k["weight_decay"]
    assert adamw.forces == ("weight_decay",)
    coupled = preconditioned_rule(qs.zoo.adam.free("weight_decay"))
    k = coupled.rule.trace.hyperparameters
    assert sp.cancel(coupled.pull + k["eta"] * k["weight_decay"] / (sp.sqrt(v) + k["eps"])) == 0


def test_what_cannot_be_derived_says_why():
    with pytest.raises(qs.RuleError, match=r"v_max has no averaged equation"):
        qs.derive(qs.zoo.amsgrad, qs.zoo.valley())

    @qs.optimizer(slow_states=["v"])
    def curious(z, g, m, v, *, eta, beta):
        return z - eta * m, v * m + g, beta * v + (1 - beta) * g**2

    with pytest.raises(qs.RuleError, match=r"change more than the size of a step"):
        qs.derive(curious, qs.zoo.valley())
    with pytest.raises(qs.RuleError, match=r"s forgets nothing"):
        qs.derive(qs.zoo.adagrad, qs.zoo.rotated_valley()).adiabatic()
    with pytest.raises(qs.RuleError, match=r"equilibrium of v_x is implicit"):
        _ = qs.derive(qs.zoo.adam, qs.zoo.valley()).adiabatic().drift


# -- the coupled system ------------------------------------------------------------------------------------------------

ADAM = {"eta": 0.01, "beta1": 0.9, "beta2": 1 - 2e-4, "alpha": 1.0}


def test_coupled_adam_at_an_angle_agrees_with_the_rule():
    """AGM, table (a): theta = 30 degrees, v far from equilibrium."""
    slow = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=sp.pi / 6))
    start = {"s": 2, "v_x": 20, "v_y": 2}
    report = slow.validate(start, 20_000, trajectories=400, seed=3, record=20, eps=1e-3, **ADAM)
    assert report.passed, report
    assert abs(report.theory[-1][0] - 2) > 0.5  # it has moved


def test_axis_aligned_adam_saturates():
    """Where the noise does not reach x its second moment is the fluctuation's, and the speed stays finite as eps goes to 0."""
    slow = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=0))
    speeds = [slow.compile(eps=eps, **ADAM).drift({"s": 2.0})[0] for eps in (1e-2, 1e-4, 1e-6, 1e-9)]
    assert abs(speeds[3] / speeds[2] - 1) < 1e-2
    assert abs(speeds[3]) < ADAM["eta"]
    report = slow.validate({"s": 2}, 2_000, trajectories=200, seed=1, record=10, eps=0.05, eta=0.004, beta1=0.9, beta2=0.9999, alpha=0.5)
    assert report.passed, report


def test_weight_decay_as_a_small_force():
    slow = qs.derive(qs.zoo.adamw, qs.zoo.rotated_valley(theta=sp.pi / 6))
    report = slow.validate({"s": 2}, 10_000, trajectories=200, seed=2, record=10, eps=1e-3, weight_decay=0.01, **ADAM)
    assert report.passed, report
    still = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=sp.pi / 6)).compile(eps=1e-3, **ADAM).trajectory({"s": 2}, 10_000, record=1)
    assert abs(still.u[-1][0] - report.theory[-1][0]) > 20 * report.error[-1][0]


def test_adagrad_grows_and_slows_down():
    """No equilibrium: the coupled law in (u, s), against the rule."""
    slow = qs.derive(qs.zoo.adagrad, qs.zoo.rotated_valley(theta=sp.pi / 6))
    report = slow.validate({"s": 2, "s_x": 400, "s_y": 400}, 5_000, trajectories=200, seed=5, record=10, eta=0.2, eps=1e-8, alpha=1.0)
    assert report.passed, report


def test_a_slow_state_that_is_not_slow_is_named_with_its_ratio():
    slow = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=sp.pi / 6))
    flow = slow.compile(eps=1e-3, **{**ADAM, "beta2": 0.9})
    with pytest.warns(SlowStateWarning, match=r"v is not slow: its rate is [\d.]+ times the fast rate"):
        flow.trajectory({"s": 2}, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow.compile(eps=1e-3, **ADAM).trajectory({"s": 2}, 100)


def test_a_vanishing_second_moment_with_eps_0_is_refused():
    slow = qs.derive(qs.zoo.adam.fix(eps=0), qs.zoo.valley())
    with pytest.raises(qs.UnstableError, match=r"preconditioner of x is not a positive number"):
        slow.compile(**ADAM).trajectory({"x": 2, "v_x": 0, "v_y": 1}, 10)


# -- rules with a kink -------------------------------------------------------------------------------------------------


def sign_step(eta: float, sigma: float, rho: float, at: float):
    """The averaged signSGD on the valley h = 1 + x^2 rotated by pi/6, noise sigma^2 [[1 + u^2, rho], [rho, 2]] at u(z)."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)

    def gradient(z: np.ndarray) -> np.ndarray:
        u, y = z[:, 0] * c - z[:, 1] * s, z[:, 0] * s + z[:, 1] * c
        du, dy = 2 * u * y**2, 2 * (1 + u**2) * y
        return np.stack([du * c + dy * s, -du * s + dy * c], axis=1)

    def deviation(z: np.ndarray) -> np.ndarray:
        u = z[:, 0] * c - z[:, 1] * s
        return sigma * np.stack([np.sqrt(1 + u**2), np.full_like(u, np.sqrt(2))], axis=1)

    def step(z: np.ndarray) -> np.ndarray:
        return z - eta * erf(np.asarray(gradient(z) / (np.sqrt(2) * deviation(z)), dtype=float))

    across = rho / np.sqrt(2 * (1 + at**2))
    R = 2 / np.pi * np.arcsin(np.array([[1, across], [across, 1]]))
    return step, R


def test_signsgd_against_the_averaged_map():
    """Correlated noise that changes along the manifold: S depends on the point, which the drift must contain."""
    s = qs.symbols("s")
    problem = qs.zoo.rotated_valley(
        theta=sp.pi / 6, noise=qs.CovarianceNoise(sp.Matrix([[1 + s**2, sp.Rational(1, 2)], [sp.Rational(1, 2), 2]]) / 4)
    )
    slow = qs.derive(qs.zoo.signsgd, problem)
    step, R = sign_step(0.02, 0.5, 0.5, 0.8)
    c, d = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = slow_drift(step, np.array([0.8 * c, -0.8 * d]), 0.02 * np.eye(2), R, lambda z: z[:, :1] * c - z[:, 1:] * d, e=3e-2)[0]
    at = {slow.symbols["eta"]: sp.Float(0.02, 17), s: sp.Float(0.8, 17)}
    found = float(slow.drift[0].xreplace(at).evalf(17))
    change = float((sp.Matrix(slow._thawed(slow._change_of_scale()))[0]).xreplace(at).evalf(17))
    assert abs(change) > 0.02 * abs(found)  # the term is there, and counts
    assert abs(found - expected) < 1e-4 * abs(expected)


def test_sign_of_rank_one_label_noise_does_not_drift():
    """On (uv - 1)^2/2 with rank-one label noise signSGD stands still; with independent noise it moves."""
    u, v, s = qs.symbols("u v s")
    problem = qs.Problem.from_residuals([u * v - 1], {u: s, v: 1 / s}, qs.LabelNoise(sp.Rational(1, 2)), coordinates={s: u})
    at = {s: sp.Rational(7, 5), qs.zoo.signsgd.hyperparameters["eta"]: sp.Rational(1, 50)}
    still = qs.derive(qs.zoo.signsgd, problem)
    pull = float(sp.Matrix(still._thawed(still._engine.terms().flatness))[0].xreplace(at).evalf())
    assert abs(float(still.drift[0].xreplace(at).evalf())) < 1e-14 * abs(pull)
    moving = qs.derive(qs.zoo.signsgd, problem.with_noise(qs.IsotropicNoise(sp.Rational(1, 2))))
    assert abs(float(moving.drift[0].xreplace(at).evalf())) > 1e-6


@pytest.mark.parametrize(
    ("rule", "numbers", "steps"),
    [
        (qs.zoo.signsgd, {"eta": 0.002}, 20_000),
        (qs.zoo.lion, {"eta": 1e-4, "beta1": 0.9, "beta2": 0.99}, 60_000),
        (qs.zoo.lion, {"eta": 1e-4, "beta1": 0.9, "beta2": 0.999}, 60_000),
    ],
    ids=["signsgd", "lion .99", "lion .999"],
)
def test_signs_agree_with_the_simulation(rule, numbers, steps):
    """Equilibrium variance and drift; without averaging over Lion's own momentum both are off at beta2 = .99."""
    slow = qs.derive(rule, qs.zoo.rotated_valley(theta=sp.pi / 6))
    report = slow.validate({"s": 1.5}, steps, trajectories=128, seed=1, record=10, alpha=0.5, **numbers)
    assert report.passed, report


def test_lion_without_its_momentum_is_rejected():
    """S from the fresh gradient alone: 1/(1 - beta1) instead of the deviation of the whole argument; the variance misses."""
    slow = qs.derive(qs.zoo.lion, qs.zoo.rotated_valley(theta=sp.pi / 6))
    gain = float(slow.kink.gain.xreplace({s: sp.Float({"beta1": 0.9, "beta2": 0.99}[s.name]) for s in slow.kink.gain.free_symbols}))
    assert abs((0.1 / gain) - 0.843) < 1e-3  # simulation/theory would be .85 (theory, section 1)


@pytest.mark.parametrize("threshold", [0.2, 1.0])
def test_clipping(threshold):
    noise = qs.IsotropicNoise(sp.Rational(1, 2), normal_only=False)
    slow = qs.derive(qs.zoo.clipped_sgd, qs.zoo.valley(noise=noise))
    report = slow.validate({"x": 1.5}, 4_000, trajectories=128, seed=4, record=10, eta=0.01, threshold=threshold)
    assert report.passed, report


def test_refusals_of_kinks():
    with pytest.raises(qs.ProblemError, match=r"noise of x vanishes: nothing smooths the sign"):
        _ = qs.derive(qs.zoo.signsgd, qs.zoo.valley()).drift
    with pytest.raises(qs.RuleError, match=r"neither the sign nor a symmetric clip"):
        _ = qs.derive(qs.zoo.norm_clipped_sgd, qs.zoo.valley())
    with pytest.raises(qs.RuleError, match=r"kink: its continuous form"):
        qs.derive(qs.zoo.signsgd, qs.zoo.rotated_valley(), time="continuous")


# -- continuous time ---------------------------------------------------------------------------------------------------


def test_the_papers_equations_in_their_constants():
    """Quasistatic paper, eqs 46, 48, 50, 53 and 55 with sigma0^2 = 2 alpha0 (alpha0 H is the noise, H = 2h)."""
    s, m = qs.symbols("s m_s")
    c1, c2, eps0, alpha0 = (sp.Symbol(n, positive=True) for n in ("c1", "c2", "eps0", "alpha0"))
    u_x, u_y = (sp.Symbol(n, positive=True) for n in ("u_x", "u_y"))
    h = 1 + s**2
    straight = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=0), time="continuous")
    eq46 = [-m / (sp.sqrt(u_x) + eps0), c1 * (alpha0 * s / (sp.sqrt(u_y) + eps0) - m), -c2 * u_x, c2 * (2 * alpha0 * h - u_y)]
    found = straight.scaled()
    assert found.slow_state == (s, m, u_x, u_y)
    assert all(sp.simplify(a - b) == 0 for a, b in zip(found.drift, eq46, strict=True))
    eq48 = [-m / eps0, c1 * (alpha0 * s / (sp.sqrt(2 * alpha0 * h) + eps0) - m)]
    assert all(sp.simplify(a - b) == 0 for a, b in zip(straight.adiabatic().scaled().drift, eq48, strict=True))
    eq50 = -alpha0 * s / (eps0 * (sp.sqrt(2 * alpha0 * h) + eps0))
    assert sp.simplify(straight.adiabatic().overdamped().scaled().drift[0] - eq50) == 0
    diagonal = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=sp.pi / 4), time="continuous").adiabatic()
    eq53 = [-m / (sp.sqrt(alpha0 * h) + eps0), c1 * (alpha0 * s / (sp.sqrt(alpha0 * h) + eps0) - m)]
    assert all(sp.simplify(a - b) == 0 for a, b in zip(diagonal.scaled().drift, eq53, strict=True))
    eq55 = -s / h
    assert sp.simplify(sp.limit(diagonal.overdamped().scaled().drift[0], eps0, 0) - eq55) == 0


def test_transient_keeps_the_bias_corrections():
    """Eqs 44 and 45: P = sigma0 u^1/2 + eps0 gamma2^1/2, and gamma2^1/2 rather than gamma2 (E17)."""
    slow = qs.derive(qs.zoo.adam, qs.zoo.rotated_valley(theta=0), time="continuous", transient=True).scaled()
    t = slow.slow_state[-1]
    values = {"c1": 1.3, "c2": 0.4, "eps0": 0.2, "alpha0": 0.7, "s": 0.9, "m_s": 0.3, "u_x": 0.5, "u_y": 1.1, "t": 0.8}
    gamma1, gamma2 = 1 - np.exp(-1.3 * 0.8), 1 - np.exp(-0.4 * 0.8)
    number = {x: sp.Float(values[x.name], 17) for e in (*slow.drift, *slow.variance) for x in e.free_symbols}
    assert t.name == "t"
    assert slow.drift[-1] == 1
    velocity = -np.sqrt(gamma2) / gamma1 * 0.3 / (np.sqrt(0.5) + 0.2 * np.sqrt(gamma2))
    assert float(slow.drift[0].xreplace(number)) == pytest.approx(velocity, rel=1e-12)
    variance = 2 * 0.7 * np.sqrt(gamma2) / (4 * gamma1 * (np.sqrt(1.1) + 0.2 * np.sqrt(gamma2)))
    assert float(slow.variance[1, 1].xreplace(number)) == pytest.approx(variance, rel=1e-12)
    assert float(slow.variance[1, 1].xreplace(number)) != pytest.approx(variance * np.sqrt(gamma2), rel=1e-3)


def test_overdamped_commutes_with_the_leading_order_of_the_map():
    problem = qs.zoo.rotated_valley()
    eta = qs.zoo.adam.hyperparameters["eta"]
    continuous = qs.derive(qs.zoo.adam, problem, time="continuous").adiabatic().overdamped().drift[0] * eta**2
    assert sp.simplify(continuous - qs.derive(qs.zoo.adam, problem).adiabatic().leading("eta").drift[0]) == 0


def test_rmsprop_has_the_same_first_order_law():
    """The memory drops out: eq. 45 does not depend on c1."""
    problem = qs.zoo.rotated_valley()
    found = [qs.derive(r, problem, time="continuous").adiabatic().overdamped().drift[0] for r in (qs.zoo.adam, qs.zoo.rmsprop)]
    numbers = {"alpha": 0.4, "eta": 0.1, "eps": 0.2, "s": 1.3, "theta": 0.5}
    a, b = (float(e.xreplace({x: sp.Float(numbers[x.name], 17) for x in e.free_symbols})) for e in found)
    assert a == pytest.approx(b, rel=1e-13)
