"""Declaring problems: manifolds, charts, noise, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp

import quasistatic as qs

x, y, w, u, v, s = qs.symbols("x y w u v s")
alpha, sigma = qs.symbols("alpha sigma", positive=True)


def test_natural_order():
    a, b, c = qs.symbols("x10 x2 x1")
    problem = qs.Problem((1 + c**2) * (a**2 + b**2), {a: 0, b: 0})
    assert [p.name for p in problem.parameters] == ["x1", "x2", "x10"]
    assert problem.chart.coordinates == (c,)


def test_constants_and_coordinates():
    k = qs.symbols("k", positive=True)
    problem = qs.Problem(k * (u * v - 1) ** 2, {u: s, v: 1 / s}, qs.HessianNoise(alpha), parameters=(u, v), coordinates={s: u})
    assert problem.chart.coordinates == (s,)
    assert problem.constants == (alpha, k)
    assert sp.Matrix(problem.hessian) == sp.Matrix([[2 * k / s**2, 2 * k], [2 * k, 2 * k * s**2]])


def test_residuals_and_scale():
    """Label noise: 4 s^2 sigma^2 J^T J = 2 s sigma^2 Hessian."""
    for scale in (sp.Rational(1, 2), 1):
        problem = qs.Problem.from_residuals([u * v - 1], {u: s, v: 1 / s}, qs.LabelNoise(sigma), scale=scale, coordinates={s: u})
        expected = 2 * scale * sigma**2 * sp.Matrix(problem.hessian)
        assert sp.Matrix(problem.covariance - expected).applyfunc(sp.cancel) == sp.zeros(2, 2)
        J = sp.Matrix([[v, u]])
        assert sp.Matrix(problem.noise.factor(problem).matrix) == 2 * scale * sigma * J.T
    batched = qs.LabelNoise(sigma, batch=2)
    many = qs.Problem.from_residuals([u * v - 1] * 4, {u: s, v: 1 / s}, batched, coordinates={s: u})
    full = qs.Problem.from_residuals([u * v - 1] * 4, {u: s, v: 1 / s}, qs.LabelNoise(sigma), coordinates={s: u})
    assert sp.Matrix(many.covariance) == 2 * sp.Matrix(full.covariance)
    with pytest.raises(qs.ProblemError, match="minibatches.*not supported yet"):
        qs.derive(qs.zoo.sgd, many)
    with pytest.raises(qs.ProblemError, match="minibatches.*not supported yet"):
        qs.simulate(qs.zoo.sgd, many, start={u: 1, v: 1}, steps=1, eta=0.1, sigma=0.1)


@pytest.mark.parametrize(
    "noise",
    [
        qs.HessianNoise(alpha),
        qs.IsotropicNoise(sigma),
        qs.IsotropicNoise(sigma, normal_only=True),
        qs.CovarianceNoise([[3, 1, 0.5], [1, 2, 0.25], [0.5, 0.25, 1]]),
        qs.CovarianceNoise([[1 + x**2, 1, 0], [1, 1, 0], [0, 0, 0]]),
    ],
    ids=str,
)
def test_factor_reproduces_the_covariance(noise):
    """C(z) C(z)^T = Sigma at the manifold point that belongs to z, off the manifold too."""
    problem = qs.zoo.curved_valley(noise=noise)
    factor = noise.factor(problem)
    numbers = dict(zip(problem.parameters, (0.7, 0.1, -0.3), strict=True))
    numbers |= {alpha: 0.3, sigma: 0.9}
    for symbol, expression in factor.assignments:
        numbers[symbol] = expression.subs(numbers)
    C = np.array(factor.matrix.subs(numbers).tolist(), dtype=float)
    expected = np.array(problem.covariance.subs(numbers).tolist(), dtype=float)
    np.testing.assert_allclose(C @ C.T, expected, atol=1e-12)


def test_unknown_functions_and_substitution():
    h = qs.function("h", positive=True)
    problem = qs.zoo.valley(h=h)
    assert problem.unknown_functions == ("h",)
    known = problem.subs({h: lambda t: 2 + t**2, alpha: sp.Rational(1, 2)})
    assert known.unknown_functions == ()
    assert known.constants == ()
    assert sp.expand(known.hessian[1, 1] - 2 * (2 + x**2)) == 0
    slow = qs.derive(qs.zoo.sgd, problem)
    direct = qs.derive(qs.zoo.sgd, qs.zoo.valley(h=2 + x**2))
    assert sp.cancel(slow.subs({h: lambda t: 2 + t**2}).drift[0] - direct.drift[0]) == 0
    with pytest.raises(qs.ProblemError, match="negative eigenvalue"):
        problem.subs({h: lambda t: -1 - t**2})
    with pytest.raises(qs.ProblemError, match="parameter or coordinate"):
        problem.subs({x: 1})


def test_pickle():
    problem = qs.zoo.rotated_valley(h=qs.function("h", positive=True))
    again = pickle.loads(pickle.dumps(problem))
    assert again.loss == problem.loss
    assert again.chart == problem.chart


BAD = {
    "gradient": (lambda: qs.Problem(x * y**2, {y: 1}), "gradient is not zero on the minima"),
    "maximum": (lambda: qs.Problem(-(1 + x**2) * y**2, {y: 0}), r"negative eigenvalue .* direction \(x: 0, y: 1\)"),
    "saddle": (lambda: qs.Problem((1 + x**2) * (y**2 - w**2), {y: 0, w: 0}), "negative eigenvalue"),
    "flat": (lambda: qs.Problem((1 + x**2) * (y**2 + w**4), {y: 0, w: 0}), r"rank 1, but 3 parameters and 1 coordinate.*w: "),
    "isolated": (lambda: qs.Problem(x**2 + y**2, {x: 0, y: 0}), "isolated minimum"),
    "misspelt": (lambda: qs.Problem((1 + x**2) * y**2, {qs.symbols("yy"): 0}), "Did you mean 'y'"),
    "same name": (lambda: qs.Problem((1 + x**2) * y**2, {sp.Symbol("y"): 0}), "other assumptions"),
    "circular": (lambda: qs.Problem((1 + x**2) * (y - w) ** 2 + y**2, {y: w, w: y}), "both sides"),
    "not real": (lambda: qs.Problem((1 + x**2) * sp.Symbol("q") ** 2, {}), "not declared real"),
    "positive parameter": (lambda: qs.Problem(alpha * (1 + x**2) * y**2, {y: 0}), "declared positive"),
    "no parameters": (lambda: qs.Problem(sp.Integer(3), {}), "no parameters"),
    "text": (lambda: qs.Problem("(1+x**2)*y**2", {y: 0}), "not a SymPy expression"),
    "minima": (lambda: qs.Problem((1 + x**2) * y**2, [y]), "mapping of parameters"),
    "infinite": (lambda: qs.Problem((1 + x**2) * y**2 + sp.oo, {y: 0}), "not a finite real"),
    "dependent chart": (
        lambda: qs.Problem((u * v - 1) ** 2, {u: s + w, v: 1 / (s + w)}, parameters=(u, v)),
        "not independent",
    ),
    "blocks": (lambda: qs.Problem((1 + x**2) * y**2, {y: 0}, blocks=[(x,)]), "not a partition"),
    "coordinates": (
        lambda: qs.Problem((u * v - 1) ** 2, {u: s, v: 1 / s}, coordinates={w: u}),
        "is not a coordinate of the manifold",
    ),
    "asymmetric": (lambda: qs.zoo.valley(noise=qs.CovarianceNoise([[1, 2], [1, 5]])), "not symmetric: entry"),
    "indefinite": (lambda: qs.zoo.valley(noise=qs.CovarianceNoise([[1, 2], [2, 1]])), "not positive semidefinite.*direction"),
    "covariance size": (lambda: qs.zoo.valley(noise=qs.CovarianceNoise([[1]])), "1x1, the problem has 2 parameters"),
    "not square": (lambda: qs.CovarianceNoise([[1, 2]]), "not square"),
    "covariance nan": (lambda: qs.CovarianceNoise([[float("nan")]]), "not finite"),
    "noise kind": (lambda: qs.Problem((1 + x**2) * y**2, {y: 0}, noise=0.1), "use qs.HessianNoise"),
    "label without residuals": (lambda: qs.zoo.valley(noise=qs.LabelNoise(1)), "from_residuals"),
    "no noise": (lambda: qs.derive(qs.zoo.sgd, qs.Problem((1 + x**2) * y**2, {y: 0})), "has no noise"),
    "not a problem": (lambda: qs.derive(qs.zoo.sgd, "valley"), "is not a problem"),
    "negative scale": (lambda: qs.Problem.from_residuals([y], {y: 0}, scale=-1), "must be positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name):
    make, message = BAD[name]
    with pytest.raises(qs.ProblemError, match=message):
        make()


def test_bad_noise_strengths():
    for bad in (-1, float("nan"), "x", None):
        with pytest.raises(qs.HyperparameterError):
            qs.HessianNoise(bad)
    for bad in (0, 1.5, True):
        with pytest.raises(qs.HyperparameterError, match="batch"):
            qs.LabelNoise(1, batch=bad)


def test_name_used_twice():
    """A hyperparameter name that the problem uses too is an error that names both."""
    eta = qs.symbols("eta", positive=True)
    problem = qs.zoo.valley(noise=qs.HessianNoise(eta))
    with pytest.raises(qs.HyperparameterError, match="sgd has a hyperparameter 'eta' and valley uses the symbol 'eta'"):
        qs.derive(qs.zoo.sgd, problem)
    qs.derive(qs.zoo.sgd.fix(eta="1/100"), problem)


def test_strengths_are_taken_on_the_manifold():
    """A strength that depends on a parameter is that of the manifold point, for every model."""
    loss = (1 + x**2) * (y - x**2) ** 2
    for make in (qs.HessianNoise, qs.IsotropicNoise):
        spelt = qs.derive(qs.zoo.sgd, qs.Problem(loss, {y: x**2}, make(1 + y**2)))
        direct = qs.derive(qs.zoo.sgd, qs.Problem(loss, {y: x**2}, make(1 + x**4)))
        assert y not in spelt.drift.free_symbols
        assert sp.cancel(spelt.drift[0] - direct.drift[0]) == 0


def test_subs_refuses_what_it_does_not_know():
    h = qs.function("h", positive=True)
    slow = qs.derive(qs.zoo.sgd, qs.zoo.valley(h=h))
    for bad in ({"eta": 1}, {qs.symbols("zz"): 2}, {qs.function("other"): lambda t: t}):
        with pytest.raises(qs.ProblemError, match="no symbol or unknown function"):
            slow.subs(bad)
    for bad in ({h: "1+x**2"}, {h: lambda: 2}):
        with pytest.raises(qs.ProblemError):
            slow.subs(bad)
    with pytest.raises(qs.ProblemError, match="mapping"):
        slow.subs([(alpha, 2)])


def test_hyperparameters_that_a_law_has_symbols_of():
    for name in ("alpha", "sigma", "B"):
        space: dict = {"qs": qs}
        exec(f"def rule(z, g, *, {name}):\n    return z - {name} * g", space)
        rule = qs.optimizer(space["rule"])
        with pytest.raises(qs.HyperparameterError, match=f"hyperparameter '{name}'"):
            qs.derive(rule)
    space = {"qs": qs}
    exec("def rule(z, g, *, lambda_i):\n    return z - lambda_i * g", space)
    with pytest.raises(qs.RuleError, match="curvatures of a law"):
        qs.optimizer(space["rule"])
