"""Every rule of the zoo, step by step, against the NumPy transcription: as a function, as its record, and as a compiled simulation."""

import math

import numpy as np
import pytest
import sympy as sp
import transcription
from rule_lists import ADAPTIVE, KINKED, LINEAR

import quasistatic as qs
from quasistatic.errors import RuleError
from quasistatic.numeric.simulate import Simulator
from quasistatic.numeric.unfold import unfold
from quasistatic.symbols import BlockMean, Mean

STEPS = 50
TYPICAL = {"eta": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-3}
HOT = {"eta": 0.1, "beta1": 0.3, "beta2": 0.5, "eps": 0.2}
TINY = {"eta": 1e-3, "beta1": 0.0, "beta2": 0.999, "eps": 1e-10}
ADAM = [TYPICAL, {**HOT, "weight_decay": 0.3}, TINY]
HYPER = {
    "sgd": [{"eta": 0.01}, {"eta": 0.1, "weight_decay": 0.2}],
    "heavy_ball": [{"eta": 1e-2, "mu": 0.9}, {"eta": 1e-3, "mu": 0.5, "tau": 0.25, "weight_decay": 0.2}],
    "heavy_ball_velocity": [{"eta": 1e-2, "mu": 0.9}, {"eta": 1e-3, "mu": 0.0, "weight_decay": 0.2}],
    "ema_momentum": [{"eta": 1e-2, "mu": 0.9}, {"eta": 1e-2, "mu": 0.3, "weight_decay": 0.2}],
    "nesterov": [{"eta": 1e-3, "mu": 0.9}, {"eta": 1e-3, "mu": 0.3, "weight_decay": 0.2}],
    "qhm": [{"eta": 1e-2, "beta": 0.9, "nu": 0.7}, {"eta": 1e-2, "beta": 0.5, "nu": 1.0, "weight_decay": 0.2}],
    "aggmo": [{"eta": 1e-4}, {"eta": 1e-3, "beta1": 0.2, "beta2": 0.5, "beta3": 0.7}],
    "adam": ADAM,
    "adamw": [{**TYPICAL, "weight_decay": 0.01}, {**HOT, "weight_decay": 0.3}, {**TINY, "weight_decay": 0.0}],
    "rmsprop": [{k: v for k, v in h.items() if k != "beta1"} for h in ADAM],
    "adagrad": [{"eta": 0.01, "eps": 1e-10}, {"eta": 0.5, "eps": 0.1, "weight_decay": 0.3}],
    "amsgrad": ADAM,
    "adam_mini": ADAM,
    "adalayer": [TYPICAL, HOT, TINY],
    "adam_power": [{**TYPICAL, "power": 0.25}, {**HOT, "power": 0.5}, {**TINY, "power": 0.75}, {**TYPICAL, "power": 0.0}],
    "signsgd": [{"eta": 0.01}, {"eta": 0.1}],
    "lion": [{"eta": 0.01, "beta1": 0.9, "beta2": 0.99}, {"eta": 0.1, "beta1": 0.0, "beta2": 0.5, "weight_decay": 0.3}],
    "clipped_sgd": [{"eta": 0.01, "threshold": 1.0}, {"eta": 0.1, "threshold": 0.05, "weight_decay": 0.3}],
    "norm_clipped_sgd": [{"eta": 0.01, "threshold": 1.0}, {"eta": 0.1, "threshold": 0.05, "weight_decay": 0.3}],
}
CASES = [pytest.param(name, h, id=f"{name} {i}") for name, sets in HYPER.items() for i, h in enumerate(sets)]


def gradients(seed=4):
    """(STEPS, 4): ordinary ones with zeros, small ones, a few large ones, and one coordinate that has none for a while."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(STEPS, 4)) * [1.0, 1e-4, 3.0, 1.0]
    g[rng.random(STEPS) < 0.3, 0] = 0.0
    g[[5, 20, 21], 2] = [1e4, -3e5, 2e6]
    g[:6, 3] = 0.0
    return g


def test_every_rule_is_in_a_list_and_here():
    assert sorted(qs.zoo.RULES) == sorted((*LINEAR, *ADAPTIVE, *KINKED)) == sorted(HYPER)
    assert {n for n in dir(transcription) if not n.startswith("_")} >= set(HYPER)
    for name, rule in qs.zoo.RULES.items():
        assert [s.name for s in rule.trace.states] == transcription.MEMORIES.get(name, "").split()
        assert {s.name for s in rule.trace.states if s.slow} == (
            {"v", "s", "v_max"} & {s.name for s in rule.trace.states} if name in ADAPTIVE else set()
        )
        assert set(rule.hyperparameters) <= set(rule.examples)


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_as_a_function(name, hyper):
    """With arrays; means over blocks are over the array."""
    rule, g = qs.zoo.RULES[name], gradients()
    z, states = np.array([1.0, -2.0, 0.5, 3.0]), [np.zeros(4) for _ in rule.trace.states]
    expected = transcription.path(name, lambda z, k: g[k], z, hyper, [[0, 1, 2, 3]])
    for t in range(STEPS):
        clock = {} if rule.trace.iteration is None else {"t": t + 1}
        output = rule(z, g[t], *states, **hyper, **clock)
        z, *states = output if states else [output]
        np.testing.assert_allclose(np.concatenate([z, *states]), next(expected), rtol=1e-11, atol=1e-14)


_OPERATIONS = {
    sp.Add: lambda *a: sum(a), sp.Mul: lambda *a: math.prod(a), sp.Pow: np.power, sp.sign: np.sign,
    sp.Max: lambda *a: _folded(np.maximum, a), sp.Min: lambda *a: _folded(np.minimum, a), Mean: np.mean,
}  # fmt: skip


def _folded(operation, values):
    found = values[0]
    for v in values[1:]:
        found = operation(found, v)
    return found


def value(e, numbers, blocks):
    """An expression of a record with arrays (d,) in place of its symbols."""
    if e.is_Symbol:
        return numbers[e]
    if e.is_Number:
        return float(e)
    args = [value(a, numbers, blocks) for a in e.args]
    if isinstance(e, BlockMean):
        out = np.empty(4)
        for block in blocks:
            out[block] = np.mean(args[0][block])
        return out
    return _OPERATIONS[e.func](*args)


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_as_a_record(name, hyper):
    """The traced updates evaluated as they stand, with fixed values of the signature in them."""
    rule, g, blocks = qs.zoo.RULES[name], gradients(5), [[0, 2], [1, 3]]
    trace = rule.trace
    shared = {s: hyper.get(n, float(rule.fixed.get(n, 0))) for n, s in trace.hyperparameters.items()}
    variables = [np.array([1.0, -2.0, 0.5, 3.0]), *(np.zeros(4) for _ in trace.states)]
    expected = transcription.path(name, lambda z, k: g[k], variables[0], hyper, blocks)
    for t in range(STEPS):
        numbers = {**shared, **dict(zip(trace.variables, variables, strict=True)), trace.gradient: g[t], trace.iteration: t + 1}
        variables = [value(u, numbers, blocks) for u in trace.updates]
        np.testing.assert_allclose(np.concatenate(variables), next(expected), rtol=1e-10, atol=1e-14)


# -- compiled: a problem without noise, whose gradient the test has in NumPy ------------------------------------------

x, y, w, q = qs.symbols("x y w q")
BLOCKS = [[0, 2], [1, 3]]


def problem():
    """f = 5 (1 + x^2) y^2 + (w - y)^2 / 2 + (1 + w^2) q^2: steep where it starts, and flat in x where y = 0."""
    loss = 5 * (1 + x**2) * y**2 + (w - y) ** 2 / 2 + (1 + w**2) * q**2
    noise = qs.HessianNoise(qs.symbols("alpha", positive=True))
    return qs.Problem(loss, {y: 0, w: 0, q: 0}, noise, parameters=(x, y, w, q), blocks=[(x, w), (y, q)])


def slope(z, k):
    a, b, c, d = z
    return np.array([10 * a * b**2, 10 * (1 + a**2) * b - (c - b), c - b + 2 * c * d**2, 2 * (1 + c**2) * d])


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_as_a_simulation(name, hyper):
    rule = qs.zoo.RULES[name]
    rule = rule.free(*(n for n in hyper if n in rule.fixed))
    start = [1.5, 0.0, 2.0, -0.3]
    simulator = Simulator(rule, problem(), {**hyper, "alpha": 0.0})
    assert simulator.noise_rank == 0
    simulator.set_state([*start, *([0.0] * 4 * len(rule.trace.states))])
    expected = transcription.path(name, slope, start, hyper, BLOCKS)
    for _ in range(STEPS):
        simulator.advance(1)
        np.testing.assert_allclose(simulator.states[5], next(expected), rtol=1e-8, atol=1e-12)


def test_means_over_blocks_with_noise():
    """One v for each block, also where every coordinate has noise of its own; blocks in any order."""
    valley = qs.zoo.curved_valley(noise=qs.IsotropicNoise(qs.symbols("sigma", positive=True)))
    a, b, c = valley.parameters
    split = qs.Problem(valley.loss, valley.minima, valley.noise, parameters=valley.parameters, blocks=[(b,), (c, a)])
    values = {**TYPICAL, "sigma": 0.5}
    start = {"x": 1, "y": 1, "w": 0.5}
    runs = qs.simulate(qs.zoo.adam_mini, split, start, 200, trajectories=8, seed=3, **values)
    v = runs.final_states[:, 6:]
    np.testing.assert_array_equal(v[:, 0], v[:, 2])
    assert (v[:, 0] != v[:, 1]).all()
    apart = qs.Problem(valley.loss, valley.minima, valley.noise, parameters=valley.parameters, blocks=[(a,), (b,), (c,)])
    one_each, adam = (qs.simulate(r, apart, start, 200, trajectories=8, seed=3, **values) for r in (qs.zoo.adalayer, qs.zoo.adam))
    np.testing.assert_allclose(one_each.final_states, adam.final_states, rtol=1e-9)
    shared = qs.simulate(qs.zoo.adalayer, valley, start, 200, trajectories=8, seed=3, **values).final_states[:, 6:]
    np.testing.assert_array_equal(shared, shared[:, :1] * np.ones(3))


def test_a_fixed_exponent_is_part_of_the_formula():
    """With power 1/2 the kernel takes a square root; the numbers are those of a power given when it runs."""
    values = {**TYPICAL, "alpha": 1.0}
    start, options = {"x": 1, "y": 0.3}, {"trajectories": 3, "seed": 4}
    fixed = qs.zoo.adam_power.fix(power="1/2")
    given = qs.simulate(qs.zoo.adam_power, qs.zoo.valley(), start, 100, power=0.5, **options, **values)
    found = qs.simulate(fixed, qs.zoo.valley(), start, 100, **options, **values)
    np.testing.assert_allclose(found.final_states, given.final_states, rtol=1e-9)
    sources = [unfold(r, qs.zoo.valley()).lane_source for r in (fixed, qs.zoo.adam_power)]
    assert ["power(" in s.partition("for l in range(L):")[2] for s in sources] == [False, True]


def test_the_running_maximum_never_falls():
    """At late times AMSGrad's v_max is the largest v so far, of every coordinate and trajectory."""
    valley = qs.zoo.valley()
    simulator = Simulator(qs.zoo.amsgrad, valley, {**TYPICAL, "alpha": 1.0}, seed=2, trajectories=5)
    simulator.set_state([1.0, 0.1, 0, 0, 0, 0, 0, 0])
    largest = np.zeros((5, 2))
    fell = 0
    for _ in range(300):
        simulator.advance(1)
        v, v_max = simulator.states[:, 4:6], simulator.states[:, 6:]
        largest = np.maximum(largest, v)
        fell += (v < largest).sum()
        np.testing.assert_array_equal(v_max, largest)
    assert fell > 100


def test_accumulator_of_adagrad():
    """s is the sum of the squared gradients; the gradients of a linear loss' noise are what moves z without preconditioning."""
    valley = qs.zoo.valley(noise=qs.IsotropicNoise(sp.Rational(1, 2)))
    simulator = Simulator(qs.zoo.adagrad, valley, {"eta": 0.01, "eps": 1e-3}, seed=2, trajectories=5)
    simulator.set_state([1.0, 0.1, 0, 0])
    total = np.zeros((5, 2))
    for _ in range(100):
        before = simulator.states
        simulator.advance(1)
        after = simulator.states
        g = (before - after)[:, :2] / 0.01 * (np.sqrt(after[:, 2:]) + 1e-3)
        total += g**2
        np.testing.assert_allclose(after[:, 2:], total, rtol=1e-9)


# -- what is refused --------------------------------------------------------------------------------------------------

VALLEY = {"alpha": 1.0}


@pytest.mark.parametrize("name", [n for n, r in qs.zoo.RULES.items() if r.trace.averages])
def test_weights_of_averages_are_fractions(name):
    rule = qs.zoo.RULES[name]
    for weight in rule.trace.averages:
        good = {**rule.examples, **VALLEY, "weight_decay": 0.0}
        rule_free = rule.free(*(n for n in rule.fixed if n == "weight_decay"))
        good = {n: v for n, v in good.items() if n in rule_free.hyperparameters or n == "alpha"}
        for bad in (1, 1.5, 1 + 1e-15):
            with pytest.raises(qs.HyperparameterError, match=rf"{name}: {weight} = .* must be at least 0 and below 1"):
                qs.simulate(rule_free, qs.zoo.valley(), {"x": 1, "y": 0}, 3, **{**good, weight: bad})
            with pytest.raises(qs.HyperparameterError, match=rf"{name}: {weight} = "):
                rule.fix(**{weight: bad})
        with pytest.raises(qs.HyperparameterError, match="negative"):
            qs.simulate(rule_free, qs.zoo.valley(), {"x": 1, "y": 0}, 3, **{**good, weight: -0.1})
        assert rule.fix(**{weight: 0}).fixed[weight] == 0


def test_only_averages_have_weights():
    """Heavy ball's memory is no average: whether it forgets is a condition of its result."""
    assert {n: set(r.trace.averages) for n, r in qs.zoo.RULES.items() if r.trace.averages} == {
        "ema_momentum": {"mu"}, "qhm": {"beta"}, "rmsprop": {"beta2"},
        **{n: {"beta1", "beta2"} for n in ("adam", "adamw", "amsgrad", "adam_mini", "adalayer", "adam_power", "lion")},
    }  # fmt: skip


def test_a_default_outside_its_range_is_refused_when_declared():
    with pytest.raises(qs.HyperparameterError, match="lagged: hold = 6/5 must be at least 0 and below 1"):

        @qs.optimizer
        def lagged(z, g, v, *, eta, hold=1.2):
            v = (1 - hold) * qs.block_mean(qs.abs(g)) + hold * v
            return z - eta * g / v, v


DIVIDES = [("adam", TYPICAL), ("adam_power", {**TYPICAL, "power": 0.5}), ("adagrad", {"eta": 0.1}), ("amsgrad", TYPICAL)]


@pytest.mark.parametrize(("name", "hyper"), DIVIDES)
def test_eps_of_zero_and_a_gradient_of_zero(name, hyper):
    """On the axis-aligned valley x has no noise: its first gradient at y = 0 is exactly 0."""
    numbers = {**hyper, "eps": 0, "alpha": 1.0}
    with pytest.raises(
        qs.SimulationDiverged, match=rf"after step 1, .*\(x\)\. With eps = 0, {name} divides by zero.*give eps > 0"
    ) as caught:
        qs.simulate(qs.zoo.RULES[name], qs.zoo.valley(), {"x": 1, "y": 0}, 100, **numbers)
    assert caught.value.step == 1
    memory = qs.zoo.RULES[name].trace.states[-1].name
    warm = {s.name: 1 for s in qs.zoo.RULES[name].trace.states if s.slow}
    runs = qs.simulate(qs.zoo.RULES[name], qs.zoo.valley(), {"x": 1, "y": 0}, 5, initial_state=warm, **numbers)
    assert np.isfinite(runs.final_states).all()
    assert memory in warm
    turned = qs.zoo.rotated_valley(sp.pi / 6)
    assert np.isfinite(qs.simulate(qs.zoo.RULES[name], turned, {"x": 0, "y": 0}, 50, **numbers).final).all()


def test_a_divergence_that_is_none_of_eps_says_so():
    with pytest.raises(qs.SimulationDiverged, match=r"not finite \(x, y\)\. Take a smaller eta"):
        qs.simulate(qs.zoo.sgd, qs.zoo.valley(), {"x": 1, "y": 3}, 1000, eta=5, alpha=1.0)


def test_blocks_are_a_partition():
    for blocks in ([(x, w), (y,)], [(x, w), (y, q, x)], [(x, y, w, q), (qs.symbols("other"),)]):
        with pytest.raises(qs.ProblemError, match="not a partition of the parameters"):
            qs.Problem((w - y) ** 2 + y**2 + q**2, {y: 0, w: 0, q: 0}, parameters=(x, y, w, q), blocks=blocks)


# -- warm starts ------------------------------------------------------------------------------------------------------


def test_initial_state_of_a_simulation():
    """Of all parameters, of one of them, or as declared: one noiseless step shows where v started."""
    numbers = {"eta": 0.1, "beta1": 0.0, "beta2": 0.5, "eps": 0.5, "alpha": 0.0}
    start = {"x": 1, "y": 1}

    def second_moments(**option):
        return qs.simulate(qs.zoo.adam, qs.zoo.valley(), start, 1, trajectories=1, **option, **numbers).final_states[0, 4:]

    # the gradient is (2, 4)
    np.testing.assert_allclose(second_moments(), [2, 8])
    np.testing.assert_allclose(second_moments(initial_state={"v": 20}), [12, 18])
    np.testing.assert_allclose(second_moments(initial_state={"v_y": "20", "m_x": 3}), [2, 18])
    np.testing.assert_allclose(second_moments(initial_state={"v_y": 2, "v": 20}), [12, 9])
    runs = qs.simulate(qs.zoo.adam, qs.zoo.valley(), start, 1, trajectories=1, initial_state={"v_y": 2, "m": 1}, **numbers)
    assert runs.start == {"x": 1, "y": 1, "v_y": 2, "m_x": 1, "m_y": 1}
    for bad, message in (
        ({"vv": 1}, "no state 'vv'.*Did you mean 'v'"), ({"v_w": 1}, "no state 'v_w'"), ({"v": "much"}, "v = 'much' is not a finite"),
        (20, "a mapping of states"), ({"x": 1}, "no state 'x'"),
    ):  # fmt: skip
        with pytest.raises(qs.StartError, match=message):
            second_moments(initial_state=bad)
    with pytest.raises(RuleError, match="name of an option"):
        qs.optimizer(lambda z, g, *, initial_state: z - initial_state * g)


# -- scalings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in ADAPTIVE if qs.zoo.RULES[n].scaling])
def test_scaling_is_one_time_scale(name):
    """With noise sigma0/e, z and v move by dt = e^2 in an iteration (z by sqrt(dt) where the noise is not averaged first)."""
    rule = qs.zoo.RULES[name]
    scaling, trace = rule.scaling, rule.trace
    assert scaling.dt == trace.hyperparameters["eta"] ** 2

    def moves(e):
        numbers = {n: float(v.xreplace(dict.fromkeys(v.free_symbols, sp.Float(0.7)) | {scaling.e: e})) for n, v in scaling.values.items()}
        hyper = {n: v for n, v in numbers.items() if n in trace.hyperparameters}
        clock = {} if trace.iteration is None else {"t": 10**14}
        states = {s.name: numbers.get(s.name, 0.3) for s in trace.states}
        extra = {"weight_decay": 0.0} if name == "adamw" else {}
        z, *new = rule(0.0, 1.3 / e, *states.values(), **hyper, **clock, **extra)
        return {"z": z, **{n: (v - w) * e**2 for (n, w), v in zip(states.items(), new, strict=True) if n == "v"}}

    large, small = moves(1e-2), moves(1e-4)
    for n, order in (("z", 2 if "m" in [s.name for s in trace.states] else 1), ("v", 2)):
        assert abs(math.log(large[n] / small[n], 100) - order) < 0.02, n
