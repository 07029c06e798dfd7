"""Problems given by array functions: users' own functions, JAX, and what is checked."""

from __future__ import annotations

import numpy as np
import pytest
from manifold_models import Factorization, factorization

import quasistatic as qs

MODEL = Factorization(2, 3, 2, np.ones((2, 3)))
GOOD = {"residuals": MODEL.residuals, "shapes": {"U": (2, 2), "W": (3, 2)}, "count": 6, "hvp": MODEL.hvp, "jacobian": MODEL.jacobian}
Z = np.random.default_rng(0).standard_normal(10)


def changed(**new):
    """A problem from the good functions with some replaced or left out (None)."""
    given = {k: v for k, v in (GOOD | new).items() if v is not None}
    return qs.ArrayProblem.from_functions(given.pop("residuals"), **given)


@pytest.mark.parametrize("given", [{}, {"jacobian": None, "vjp": MODEL.vjp}, {"vjp": MODEL.vjp, "jvp": MODEL.jvp}])
def test_what_is_left_out_follows_from_the_rest(given):
    problem = changed(**given)
    problem.check_derivatives(Z)
    f, w, c = problem.functions, np.arange(10.0), np.arange(6.0)
    assert f.jvp(Z, w) == pytest.approx(MODEL.jvp(Z, w))
    assert f.vjp(Z, c) == pytest.approx(MODEL.vjp(Z, c))
    assert f.jacobian(Z) == pytest.approx(MODEL.jacobian(Z))
    assert f.hvp(Z, np.stack([c, 2 * c]), np.stack([w, w])) == pytest.approx(3 * MODEL.hvp(Z, c, w))
    assert {n: a.shape for n, a in problem.unpack(Z).items()} == GOOD["shapes"]
    assert problem.pack(problem.unpack(Z)) == pytest.approx(Z)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"residuals": lambda z: MODEL.residuals(z)[:5]}, r"residuals\(z\) returned shape \(5,\); expected \(6,\)"),
        ({"residuals": lambda z: MODEL.residuals(z) * np.nan}, "NaN"), ({"residuals": lambda z: "no"}, "not an array"),
        ({"jacobian": lambda z: MODEL.jacobian(z).T}, r"jacobian\(z\) returned shape \(10, 6\)"),
        ({"jacobian": lambda z: 2 * MODEL.jacobian(z)}, "jvp.*finite differences"),
        ({"vjp": lambda z, c: -MODEL.vjp(z, c)}, "vjp"), ({"jvp": lambda z, w: MODEL.jvp(z, w)[:2]}, "jvp"),
        ({"hvp": lambda z, c, w: 2 * MODEL.hvp(z, c, w)}, "hvp.*finite differences"),
        ({"hvp": lambda z, c, w: MODEL.hvp(z, c, w)[None]}, "hvp"),
    ],
)  # fmt: skip
def test_wrong_functions_are_named(new, message):
    with pytest.raises(qs.ProblemError, match=message):
        changed(**new).check_derivatives(Z)


def test_a_flow_checks_the_derivatives_before_its_first_number():
    problem = changed(hvp=lambda z, c, w: 2 * MODEL.hvp(z, c, w), noise=qs.LabelNoise(1))
    with pytest.raises(qs.ProblemError, match="hvp"):
        qs.manifold_flow(qs.zoo.sgd, problem, eta=0.01).drift(Z)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: changed(jacobian=None), "jacobian=.* or vjp"), (lambda: changed(count=0), "count"), (lambda: changed(shapes={}), "empty"),
        (lambda: changed(shapes={"z": (10, 0)}), "positive whole"), (lambda: changed(scale=-1), "scale"),
        (lambda: changed(noise=1), "noise"),
        (lambda: changed(blocks=[[0, 1], [1, 2]]), "partition"), (lambda: qs.ArrayProblem(lambda z: z), "has no size"),
    ],
)  # fmt: skip
def test_bad_declarations(make, message):
    with pytest.raises(qs.ProblemError, match=message):
        make()


def test_the_flow_of_users_functions_is_that_of_the_model():
    model, z = factorization(noise=qs.LabelNoise(0.2), scale=0.5)
    f = model.functions
    own = qs.ArrayProblem.from_functions(f.residuals, shapes=10, count=6, vjp=f.vjp, hvp=f.hvp, noise=qs.LabelNoise(0.2))
    one, two = (qs.manifold_flow(qs.zoo.sgd, p, eta=0.02).drift(z) for p in (model, own))
    assert two == pytest.approx(one, rel=1e-12)
    assert "10 parameters (z 10), 6 residuals" in repr(own)


def test_a_jax_function():
    pytest.importorskip("jax")
    model, z = factorization(noise=qs.LabelNoise(0.2, batch=2), scale=0.5)
    own = qs.ArrayProblem.from_jax(
        lambda U, W: U @ W.T - model.functions.target, shapes={"U": (2, 2), "W": (3, 2)}, noise=qs.LabelNoise(0.2, batch=2)
    )
    own.check_derivatives(z)
    one, two = (qs.manifold_flow(qs.zoo.heavy_ball, p, eta=0.02, mu=0.5).drift(z) for p in (model, own))
    assert two == pytest.approx(one, rel=1e-12)
    with pytest.raises(qs.ProblemError, match="cannot be traced"):
        qs.ArrayProblem.from_jax(lambda U, W: U @ W, shapes={"U": (2, 2), "W": (3, 2)})


def test_without_jax(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(qs.ProblemError, match=r"pip install 'quasistatic\[jax\]'"):
        qs.ArrayProblem.from_jax(lambda z: z, shapes={"z": (2,)})
