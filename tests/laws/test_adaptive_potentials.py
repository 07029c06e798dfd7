"""What adaptive rules descend: the joint function of coordinates and second moments, regularizers, and where there is none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs
from quasistatic.symbols import exact

CHANNELS, SURFACE = qs.zoo.two_channels(), qs.zoo.paraboloid()
t1, t2, t3, t4 = CHANNELS.parameters
p, q, r = SURFACE.parameters
BLOCKS = {"channels": CHANNELS.with_blocks([(t1, t2), (t3, t4)]), "paraboloid": SURFACE.with_blocks([(p, r), (q,)])}
PROBLEMS = {"channels": CHANNELS, "paraboloid": SURFACE}
RULES = {
    "adam": qs.zoo.adam.fix(eps=0),
    "adam, eps": qs.zoo.adam,
    "adamE-1/4": qs.zoo.adam_power.fix(power="1/4", eps=0),
    "adamE-3/4": qs.zoo.adam_power.fix(power="3/4", eps=0),
    "rmsprop": qs.zoo.rmsprop,
    "adam_mini": qs.zoo.adam_mini,
}
CASES = list(itertools.product(PROBLEMS, RULES))
START = {"channels": {"x": 1.5, "y": -1.0}, "paraboloid": {"x": 2.2, "y": 1.2}}


def derived(problem, rule):
    chosen = BLOCKS if rule == "adam_mini" else PROBLEMS
    return qs.derive(RULES[rule], chosen[problem]).leading("eta")


def numbers(slow, seed):
    """Exact numbers for coordinates, slow states, hyperparameters and constants: positive, second moments over a decade."""
    rng = np.random.default_rng(seed)
    k = len(slow.coordinates)
    point = {s: exact(round(float(rng.uniform(0.05, 0.9)), 4), "a") for s in hyperparameters(slow)}
    point.update({s: exact(round(float(rng.uniform(0.4, 2.2)), 4), "u") for s in slow.coordinates})
    point.update({s: exact(round(float(10 ** rng.uniform(-1, 1)), 4), "v") for s in slow.slow_state[k:]})
    return point


def hyperparameters(slow):
    return [*slow.rule.hyperparameters.values(), *slow.problem.constants]


def at(expression, point):
    return complex(sp.sympify(expression).xreplace(point).doit().evalf(40)).real


@pytest.mark.parametrize(("problem", "rule"), CASES)
def test_the_coupled_flow_is_a_gradient_flow(problem, rule):
    """u' = -(gain^2/4) G^-1 dE/du and v' = -(rate/|S'|) dE/dv, at random points to 1e-12."""
    slow = derived(problem, rule)
    E = slow.lyapunov()
    k, d = len(slow.coordinates), len(slow.problem.parameters)
    gain = slow.symbols["eta"]  # of an average of gradients: one gradient moves by eta S in the end
    for seed in range(2):
        point = numbers(slow, seed)
        if rule == "adam_mini":  # one v for a block, written once for each of its parameters
            for block in BLOCKS[problem].blocks:
                rows = [sp.Symbol(f"v_{b}", positive=True) for b in block]
                point.update(dict.fromkeys(rows, point[rows[0]]))
        G = np.array([[at(slow.metric[i, j], point) for j in range(k)] for i in range(k)])
        slope = np.array([at(E.diff(c), point) for c in slow.coordinates])
        drift = np.array([at(x, point) for x in slow.drift])
        assert G @ drift[:k] == pytest.approx(-(at(gain, point) ** 2) / 4 * slope, rel=1e-12)
        for i, v in enumerate(slow.slow_state[k : k + d]):
            steepness = abs(at(slow.preconditioner[i].diff(v), point))
            rate = 1 - at(slow.symbols["beta2"], point)
            assert drift[k + i] == pytest.approx(-rate / steepness * at(E.diff(v), point), rel=1e-12)


@pytest.mark.parametrize(("problem", "rule"), CASES)
def test_its_minimum_over_the_second_moments_is_the_regularizer(problem, rule):
    """At v = V(Sigma) the joint function is stationary in v, and (gain^2/4) times it is the regularizer up to a constant."""
    slow = derived(problem, rule)
    E, psi, rest = slow.lyapunov(), slow.adiabatic().regularizer(), slow.adiabatic().equilibrium
    constants = []
    for seed in range(3):
        point = numbers(slow, 7)
        point.update({c: numbers(slow, seed)[c] for c in slow.coordinates})
        here = {**point, **{v: sp.sympify(e).xreplace(point) for v, e in rest.items()}}
        for v in rest:
            assert abs(at(E.diff(v), here)) < 1e-12
            for factor in (sp.Rational(1, 2), 2):
                assert at(E, {**here, v: here[v] * factor}) > at(E, here)
        constants.append(at(E, here) * at(slow.symbols["eta"], point) ** 2 / 4 - at(psi, point))
    assert constants == pytest.approx([constants[0]] * 3, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("v0", [20.0, 0.5])
@pytest.mark.parametrize(("problem", "rule"), list(itertools.product(PROBLEMS, ["adam", "adam, eps", "adamE-1/4"])))
def test_the_joint_function_falls_along_the_flow(problem, rule, v0):
    """(1 - beta2)/eta^2 = 1/2, from second moments far above and far below: every step of the compiled flow goes down."""
    slow = derived(problem, rule)
    known = {"eta": 0.01, "beta1": 0.9, "beta2": 1 - 0.5e-4, "eps": 0.3, "alpha": 1.0}
    values = {n: known[n] for n in (*slow.rule.hyperparameters, "alpha")}
    flow = slow.compile(**values)
    start = {**START[problem], **{s.name: v0 for s in slow.slow_state[2:]}}
    path = flow.trajectory(start, 100_000, record=400).u
    constants = {s: sp.Float(values[s.name]) for s in hyperparameters(slow)}
    E = sp.lambdify(slow.slow_state, slow.lyapunov().xreplace(constants), "numpy")(*path.T)
    assert np.all(np.diff(E) < 0)
    assert E[0] - E[-1] > 0.1


def test_it_needs_label_noise_and_no_force():
    isotropic = qs.zoo.two_channels(noise=qs.IsotropicNoise(1))
    with pytest.raises(qs.NoPotential, match="label noise"):
        qs.derive(qs.zoo.adam, isotropic).lyapunov()
    with pytest.raises(qs.NoPotential, match="weight_decay"):
        qs.derive(qs.zoo.adamw, CHANNELS).lyapunov()


# -- regularizers, and none -------------------------------------------------------------------------------------------


def one_form(slow):
    """omega = -M*(drift without its Ito part), as functions of the coordinates."""
    return -sp.Matrix(slow.metric) * (sp.Matrix(slow.drift) - sp.Matrix(slow.ito))


def test_constant_noise_on_varying_curvatures_has_no_potential():
    """Normals' Hessian [[2+x, y], [y, 3-x]] and the noise diag(1, 0): SGD's drift along the minima is no gradient flow."""
    a, b, x, y = qs.symbols("a b x y")
    loss = ((2 + x) * a**2 + 2 * y * a * b + (3 - x) * b**2) / 2
    problem = qs.Problem(loss, {a: 0, b: 0}, qs.CovarianceNoise(sp.diag(0, 0, 1, 0)), parameters=(x, y, a, b))
    slow = qs.derive(qs.zoo.sgd, problem).leading("eta")
    omega, eta = one_form(slow), slow.symbols["eta"]
    q = x**2 - x + y**2 - 6
    known = sp.Matrix([(5 * x + 2 * y**2 - 15) / (10 * q), -y * (x - 3) / (5 * q)]) * eta**2 / 2
    assert (omega - known).applyfunc(sp.cancel).is_zero_matrix
    curl = sp.cancel(omega[1].diff(x) - omega[0].diff(y))
    assert sp.cancel(curl + eta**2 / 2 * y / (5 * q)) == 0
    assert float(curl.subs({x: 0.5, y: 0.3, eta: 1})) == pytest.approx(0.0097403 / 2, abs=3e-8)
    with pytest.raises(qs.NoPotential, match=r"d omega_y/dx - d omega_x/dy = eta\*\*2\*y/\(10\*"):
        slow.regularizer()
    with pytest.raises(qs.NoPotential, match="not a gradient flow"):
        qs.derive(qs.zoo.sgd, problem).compile(eta=0.01).regularizer([0.5, 0.3])


@pytest.mark.parametrize("rule", [qs.zoo.adamw, qs.zoo.adam_mini.free("weight_decay")], ids=lambda r: r.name)
def test_decoupled_decay_behind_a_preconditioner_has_no_potential(rule):
    """z shrinks by eta*weight_decay in coordinates whose metric is the preconditioner's inverse: omega has a curl on the channels."""
    slow = qs.derive(rule, BLOCKS["channels"]).leading("eta").adiabatic()
    with pytest.raises(qs.NoPotential, match=r"small force \(weight_decay\) has no potential.*is not zero"):
        slow.regularizer()
    x, y = slow.coordinates
    omega = one_form(slow)
    point = {x: sp.Rational(1, 3), y: sp.Rational(2, 5)}
    sizes = dict.fromkeys(hyperparameters(slow), sp.Rational(1, 100))
    step = sp.Rational(1, 10**8)

    def entry(i, where):
        return omega[i].subs(sizes).subs(where).evalf(40)

    curl = sum(
        sign * (entry(i, {**point, u: point[u] + step}) - entry(i, {**point, u: point[u] - step})) / (2 * step)
        for i, u, sign in ((1, x, 1), (0, y, -1))
    )
    if rule is qs.zoo.adamw:  # sqrt(alpha)*eta*weight_decay*y*(3 + sqrt(3))/4
        expected = sp.sqrt(sp.Rational(1, 100)) * sp.Rational(1, 10**4) * point[y] * (3 + sp.sqrt(3)) / 4
        assert float(curl) == pytest.approx(float(expected), rel=1e-6)
    assert abs(curl) > 1e-6


def test_coupled_decay_is_part_of_the_potential():
    """Decay added to the gradient passes the preconditioner too: (gain*weight_decay/2)|z|^2 beside Adam's regularizer."""
    rule = qs.zoo.adam.free("weight_decay")
    slow = qs.derive(rule, CHANNELS).leading("eta").adiabatic()
    x, y = slow.coordinates
    eta, decay = slow.symbols["eta"], slow.symbols["weight_decay"]
    without = qs.derive(qs.zoo.adam, CHANNELS).leading("eta").adiabatic().regularizer()
    extra = slow.regularizer() - without.xreplace({qs.derive(qs.zoo.adam, CHANNELS).symbols["eta"]: eta})
    assert sp.expand(extra - eta * decay * (x**2 + y**2) / 2) == 0
    # the one-form agrees to first order in the decay, which enters second moments by its square
    psi, omega = slow.regularizer(), one_form(slow)
    point = {**numbers(slow, 2), decay: sp.Rational(1, 10**6)}
    for c, component in zip((x, y), omega, strict=True):
        assert at(component, point) == pytest.approx(at(psi.diff(c), point), rel=1e-9)


def test_on_a_curve_every_decay_has_a_potential():
    """One coordinate: any one-form is closed. Where it has no formula the refusal names the numerical one, which exists."""
    slow = qs.derive(qs.zoo.adamw.fix(eps=0), qs.zoo.rotated_valley(theta=sp.pi / 4)).leading("eta").adiabatic()
    with pytest.raises(qs.NoPotential, match="the potential exists.*flow.regularizer"):
        slow.regularizer()
    flow = slow.compile(eta=0.01, beta1=0.9, beta2=0.999, weight_decay=0.1, alpha=0.5)
    step = 1e-4
    slope = (flow.regularizer(np.array([1 + step])) - flow.regularizer(np.array([1 - step]))) / (2 * step)
    assert slope == pytest.approx(-(flow.metric([1.0]) @ flow.drift([1.0]))[0], rel=1e-6)


@qs.optimizer(slow_states=["v"])
def eps_inside(z, g, v, *, eta, beta2, eps):
    """The denominator of optax's default RMSprop."""
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * g / qs.sqrt(v + eps), v


@qs.optimizer(slow_states=["v"])
def eps_both(z, g, v, *, eta, beta2, eps):
    v = beta2 * v + (1 - beta2) * g**2
    return z - eta * g / (qs.sqrt(v + eps) + eps), v


def test_eps_inside_the_root() -> None:
    """psi' = eta^2 alpha/4 (alpha h + eps)^-1/2, psi(0) = 0; two kinds of eps at once have no formula."""
    psi = qs.derive(eps_inside).regularizer()
    values = {"eta": 0.1, "alpha": 0.7, "eps": 0.3, "h": 1.3}
    found = float(psi.xreplace({s: sp.Float(values[s.name], 17) for s in psi.free_symbols}))
    assert found == pytest.approx(0.1**2 * 0.7 / 4 * 2 / 0.7 * (np.sqrt(0.7 * 1.3 + 0.3) - np.sqrt(0.3)), rel=1e-12)
    with pytest.raises(qs.NoPotential, match="no closed form"):
        qs.derive(eps_both).regularizer()
