"""Declaring update rules: what is traced, and what is refused."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs


@qs.optimizer(scaling={"eta": "e**2", "mu": "1 - c*e", "m": "e*p"}, dt="eta", examples={"eta": 1e-3})
def momentum(z, g, m, *, eta, mu=0.9):
    """Heavy ball."""
    m = mu * m - eta * g
    return z + m, m


def test_record():
    z, g, m = sp.symbols("z g m", real=True)
    eta, mu = sp.symbols("eta mu", positive=True)
    trace = momentum.trace
    assert trace.updates == (z + mu * m - eta * g, mu * m - eta * g)
    assert [q.point for q in trace.queries] == [z]
    assert [(s.name, s.shape, s.slow, s.initial) for s in trace.states] == [("m", "parameter", False, 0)]
    assert momentum.hyperparameters == {"eta": eta}
    assert momentum.fixed == {"mu": sp.Rational(9, 10)}
    assert "def momentum" in momentum.source
    assert momentum.doc == "Heavy ball."


def test_fix_and_free():
    assert momentum.free("mu").hyperparameters.keys() == {"eta", "mu"}
    assert momentum.fix(eta="1e-3").fixed["eta"] == sp.Rational(1, 1000)
    assert momentum.fix(eta=0.1).fixed["eta"] == sp.Rational(1, 10)
    assert momentum.fix(eta="9/10").updates[1] == momentum.fix(eta=0.9).updates[1]
    with pytest.raises(qs.HyperparameterError, match=r"no hyperparameter 'etaa'.*Did you mean 'eta'"):
        momentum.fix(etaa=1)
    with pytest.raises(qs.HyperparameterError, match="free already"):
        momentum.free("eta")
    for bad in ("nan", float("inf"), -1, "1/0", "x", True, None):
        with pytest.raises(qs.HyperparameterError):
            momentum.fix(eta=bad)


def test_still_a_function():
    assert momentum(1.0, 2.0, 0.0, eta=0.1) == (0.8, -0.2)
    np.testing.assert_allclose(momentum(np.ones(2), np.ones(2), np.zeros(2), eta=0.5, mu=0.0)[0], [0.5, 0.5])


def test_pickle():
    again = pickle.loads(pickle.dumps(momentum))
    assert again.trace.updates == momentum.trace.updates
    assert again.scaling.values == momentum.scaling.values
    with pytest.raises(qs.RuleError, match="loaded from a file"):
        again(1.0, 1.0, 0.0, eta=0.1)


def test_functions_inside_a_rule():
    @qs.optimizer(initial_state={"v": 1e-3}, slow_states=["v"])
    def everything(z, g, v, *, eta, t):
        v = qs.clip(v + qs.abs(g) * qs.sign(g), 0, 1) + qs.maximum(qs.exp(-v), qs.log(1 + v)) * qs.minimum(v, 1)
        return z - eta * g / (qs.sqrt(v) + qs.mean(v) + qs.block_mean(v)) * (1 - 0.9**t), v

    state = everything.trace.states[0]
    assert (state.slow, state.initial) == (True, sp.Rational(1, 1000))
    assert everything.trace.iteration is not None
    with pytest.raises(qs.RuleError, match=r"slow state v has no averaged equation"):
        qs.derive(everything)
    assert qs.sqrt(4.0) == 2.0
    assert qs.clip(3.0, 0, 1) == 1.0


def bad_rules():
    def too_few(z, g, m, *, eta):
        return z - eta * g

    def not_keyword_only(z, g, m, eta):
        return z - eta * m, m

    def branches(z, g, *, eta):
        return z - eta * g if eta > 1 else z

    def silent_branch(z, g, *, eta, nesterov):
        if nesterov:
            return z - eta * g
        return z - 2 * eta * g

    def compares(z, g, *, eta):
        return z - eta * g * max(z, 0)

    def unknown_function(z, g, *, eta):
        return z - eta * math.tanh(g)

    def numpy_function(z, g, *, eta):
        return z - eta * np.tanh(g)

    def sympy_function(z, g, *, eta):
        return z - eta * sp.gamma(g)

    def elsewhere(z, g, m, *, eta):
        return z - eta * g(z + m), m

    def swapped(g, z, *, eta):
        return z - eta * g

    def one_argument(z):
        return z

    def variadic(z, g, *states, eta):
        return z - eta * g

    def stray(z, g, *, eta):
        return z - eta * g * sp.Symbol("stray")

    def default_state(z, g, m=0, *, eta):
        return z - eta * g, m

    def nothing(z, g, *, eta):
        return None

    def divides(z, g, *, eta):
        return z - eta * g / (eta - eta)

    def indexes(z, g, *, eta):
        return z[0] - eta * g

    def small(z, g, *, e):
        return z - e * g

    def option(z, g, *, steps):
        return z - steps * g

    return {
        option: "name of an option of simulate",
        too_few: "returns 1 value.*1 parameter and 1 state",
        not_keyword_only: r"keyword-only: put a \* before eta",
        branches: "branches",
        silent_branch: "branches.*if nesterov",
        compares: "branches",
        unknown_function: "line 2.*cannot be traced|cannot be traced.*line 2",
        numpy_function: "cannot be traced",
        sympy_function: "unknown function gamma",
        elsewhere: "gradient at a point of its own",
        swapped: "first argument is the parameter",
        one_argument: "1 positional argument",
        variadic: "name every argument",
        stray: "uses stray",
        default_state: "is a state and has a default",
        nothing: "returns None",
        divides: "divides by zero",
        indexes: "cannot be traced",
        small: "small number of a scaling",
    }


@pytest.mark.parametrize(("function", "message"), bad_rules().items(), ids=lambda v: getattr(v, "__name__", ""))
def test_refused_when_declared(function, message):
    with pytest.raises(qs.RuleError, match=message) as caught:
        qs.optimizer(function)
    assert function.__name__ in str(caught.value)


def test_bad_options():
    def rule(z, g, m, *, eta, mu):
        return z - eta * g, mu * m

    with pytest.raises(qs.RuleError, match="slow_states names 'v'"):
        qs.optimizer(slow_states=["v"])(rule)
    with pytest.raises(qs.RuleError, match=r"initial_state names 'mm'.*Did you mean 'm'"):
        qs.optimizer(initial_state={"mm": 1})(rule)
    with pytest.raises(qs.RuleError, match="needs both"):
        qs.optimizer(scaling={"eta": "e"})(rule)
    with pytest.raises(qs.RuleError, match="scaling names 'etta'.*Did you mean 'eta'"):
        qs.optimizer(scaling={"etta": "e"}, dt="eta")(rule)
    with pytest.raises(qs.RuleError, match="cannot read the expression"):
        qs.optimizer(scaling={"eta": "__import__('os')"}, dt="eta")(rule)
    with pytest.raises(qs.RuleError, match="decorates a function"):
        qs.optimizer(3)


def test_refused_when_derived():
    @qs.optimizer
    def forever(z, g, m, *, eta):
        m = m + g
        return z - eta * m, m

    @qs.optimizer
    def squares(z, g, *, eta):
        return z - eta * g**2

    @qs.optimizer
    def signs(z, g, *, eta):
        return z - eta * qs.sign(g)

    @qs.optimizer
    def grows(z, g, *, eta):
        return 2 * z - eta * g

    @qs.optimizer
    def blind(z, g, *, eta):
        return z - eta * z

    @qs.optimizer
    def no_gain(z, g, m, *, eta):
        return z - eta * (g - m), g

    @qs.optimizer
    def clocked(z, g, *, eta, t):
        return z - eta * g / t

    cases = [
        (forever, "the memory m never forgets"),
        (squares, "not linear in the gradient: not supported yet"),
        (signs, "not linear in the gradient: not supported yet"),
        (grows, "does not stay at a minimum"),
        (blind, "does not use its gradient"),
        (no_gain, "no lasting effect"),
        (clocked, "depends on the iteration number"),
    ]
    for rule, message in cases:
        with pytest.raises(qs.RuleError, match=message):
            qs.derive(rule)
    with pytest.raises(qs.RuleError, match="declares no scaling"):
        qs.derive(qs.optimizer(lambda z, g, *, eta: z - eta * g), time="continuous")
    with pytest.raises(qs.RuleError, match="decorate the function"):
        qs.derive(lambda z: z)
    with pytest.raises(qs.RuleError, match="time='weeks'"):
        qs.derive(momentum, time="weeks")


def test_scaling_with_two_time_scales_is_refused():
    @qs.optimizer(scaling={"eta": "e**2", "mu": "1 - c*e"}, dt="eta")
    def unbalanced(z, g, m, *, eta, mu):
        m = mu * m + g
        return z - eta * m, m

    with pytest.raises(qs.RuleError, match="not one time scale"):
        qs.derive(unbalanced, time="continuous")


def test_bias_correction_is_taken_to_late_times():
    @qs.optimizer
    def corrected(z, g, m, *, eta, mu, t):
        m = mu * m + (1 - mu) * g
        return z - eta * m / (1 - mu**t), m

    law, plain = qs.derive(corrected), qs.derive(qs.zoo.ema_momentum)
    assert law.kernel == plain.kernel
    assert "mu < 1" in [str(c.inequality) for c in law.conditions]
