"""Matrix factorisation and diagonal networks, section 3 of the quasistatic paper and what adaptive rules make of it.

    python derivations/matrix_factorization.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import sympy as sp
from pages import Entry, Erratum, Form, Page, Section, differences, run
from scipy.linalg import solve_sylvester

import quasistatic as qs
from quasistatic.show.typeset import tex

# -- settings ----------------------------------------------------------------------------------------------------------

sigma, alpha = (sp.Symbol(n, positive=True) for n in ("sigma", "alpha"))
eta, mu = qs.zoo.heavy_ball.hyperparameters["eta"], qs.zoo.heavy_ball.hyperparameters["mu"]
#: Shapes m, n, p at which the equations with symbols are checked.
SIZES = ((2, 3, 2), (3, 2, 1), (2, 2, 2))
#: Relative accuracy of comparisons in numbers.
DIGITS = 1e-9


@cache
def factors(m: int, n: int, p: int) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """U, W and the target M with free entries."""
    return tuple(
        sp.Matrix(rows, columns, lambda a, b, name=name: sp.Symbol(f"{name}{a + 1}{b + 1}", real=True))
        for name, rows, columns in (("u", m, p), ("w", n, p), ("M", m, n))
    )  # type: ignore[return-value]


@cache
def factorization(m: int, n: int, p: int) -> qs.Problem:
    """The problem with symbols; the paper's noise sigma in 2(U W^T - M) is label noise of sigma/2."""
    U, W, M = factors(m, n, p)
    return qs.Problem.from_residuals(list(U * W.T - M), noise=qs.LabelNoise(sigma / 2), scale=1, parameters=(*U, *W))


def jacobian(m: int, n: int, p: int) -> sp.Matrix:
    """J of the residuals, row-major, from the library's problem."""
    problem = factorization(m, n, p)
    return sp.Matrix(problem.residuals).jacobian(sp.Matrix(problem.parameters))


def on_minima(matrix: sp.Matrix, m: int, n: int, p: int) -> sp.Matrix:
    """With U W^T in place of M."""
    U, W, M = factors(m, n, p)
    return matrix.xreplace(dict(zip(M, U * W.T, strict=True)))


def half_hessian(m: int, n: int, p: int) -> sp.Matrix:
    """Half the Hessian of the library's loss, anywhere."""
    problem = factorization(m, n, p)
    return sp.hessian(problem.loss, problem.parameters) / 2


@cache
def vector() -> qs.Problem:
    """m = p = 1, n = 2 with a chart: u w_b = M_b, minima over u."""
    (u,), (w1, w2), (M1, M2) = factors(1, 2, 1)
    return qs.Problem.from_residuals(
        [u * w1 - M1, u * w2 - M2], {w1: M1 / u, w2: M2 / u}, qs.LabelNoise(sigma / 2), scale=1, parameters=(u, w1, w2)
    )


@cache
def flow(m: int, n: int, p: int, mu: float = 0.0, eta: float = 1e-3) -> tuple[qs.ManifoldFlow, np.ndarray, np.ndarray]:
    """The numeric flow at leading order, sigma = 1, and a point of its minima that is not special."""
    rng = np.random.default_rng(7)
    U, W = rng.standard_normal((m, p)), rng.standard_normal((n, p))
    problem = qs.zoo.matrix_factorization(m, n, p, U @ W.T, qs.LabelNoise("1/2"))
    return qs.manifold_flow(qs.zoo.heavy_ball, problem, leading="eta", eta=eta, mu=mu), U, W


def same(found: np.ndarray, stated: np.ndarray) -> list[sp.Expr]:
    """What vanishes where arrays agree to nine digits."""
    size = np.abs(found).max(initial=0.0) + np.abs(stated).max(initial=0.0)
    return [sp.Integer(0 if np.abs(found - stated).max() <= DIGITS * size else 1)]


def packed(U: np.ndarray, W: np.ndarray) -> np.ndarray:
    """One point, row-major."""
    return np.concatenate([U.ravel(), W.ravel()])


# -- the model ---------------------------------------------------------------------------------------------------------


def equation_1() -> Entry:
    """Jacobian."""

    def form() -> Form:
        found = []
        for m, n, p in SIZES:
            U, W, _ = factors(m, n, p)
            right = sp.Matrix.vstack(*(sp.kronecker_product(sp.eye(n), U[a, :]) for a in range(m)))
            found.append(sp.Matrix.hstack(sp.kronecker_product(sp.eye(m), W), right))
        return found

    return Entry(
        "1",
        r"Let $f(U, W) = \|R\|_F^2$ with $R = UW\T - M$, $U \in \mathbb R^{m\times p}$, $W \in \mathbb R^{n\times p}$ (the"
        r" paper's $V$). Its"
        r" residuals are bilinear; with $R$, $U$ and $W$ read row by row,",
        r"\frac{\partial R_{ab}}{\partial U_{a'c}} = \delta_{aa'}W_{bc}, \qquad \frac{\partial R_{ab}}{\partial W_{b'c}} ="
        r" \delta_{bb'}U_{ac} .",
        form,
        lambda f: differences([jacobian(*s) for s in SIZES], f),
    )


def equation_2() -> Entry:
    """Half-Hessian on the minima."""

    def form(cross: Callable[[sp.Expr, sp.Expr], sp.Expr] = lambda u, w: u * w) -> Form:
        found = []
        for m, n, p in SIZES:
            U, W, _ = factors(m, n, p)
            block = sp.Matrix(m * p, n * p, lambda i, j, U=U, W=W, p=p: cross(U[i // p, j % p], W[j // p, i % p]))
            top, bottom = sp.kronecker_product(sp.eye(m), W.T * W), sp.kronecker_product(sp.eye(n), U.T * U)
            found.append(sp.Matrix(sp.BlockMatrix([[top, block], [block.T, bottom]])))
        return found

    return Entry(
        "2",
        r"On the minima, $R = 0$, the half-Hessian $H = \frac12\nabla^2 f$ is $J\T J$. Its blocks are",
        r"H_{UU} = I_m \otimes W\T W, \qquad H_{WW} = I_n \otimes U\T U, \qquad H_{U_{ac},W_{bc'}} = U_{ac'}W_{bc} .",
        form,
        lambda f: differences([on_minima(half_hessian(*s), *s) for s in SIZES], f),
        (
            Erratum(
                "E3",
                r"``$H$ gives the Hessian of the loss'': the Hessian is $2H$. Everything on this page is in terms of the half.",
                lambda: [2 * h for h in form()],
            ),
        ),
    )


def equation_3() -> Entry:
    """Spectrum."""

    def power_sums(weights: Callable[[int, int], sp.Expr]) -> list[sp.Expr]:
        """tr (J J^T)^k, k = 1 ... mn, of a spectrum {s_a + t_b}."""
        U, W, _ = factors(2, 2, 2)
        left, right = U * U.T, W * W.T
        return [sum(weights(k, j) * (left**j).trace() * (right ** (k - j)).trace() for j in range(k + 1)) for k in range(1, 5)]

    def residual(form: Form) -> list[sp.Expr]:
        J = jacobian(2, 2, 2)
        K, power, found = J * J.T, sp.eye(4), []
        for stated in form:
            power = (power * K).expand()
            found.append(sp.expand(power.trace() - stated))
        here, U, W = flow(4, 3, 3)
        left, right = np.linalg.svd(U, compute_uv=False), np.linalg.svd(W, compute_uv=False)
        sums = np.sort(np.add.outer(np.append(left**2, 0), right**2).ravel())[::-1]
        return [*found, *same(here.curvatures(packed(U, W)), 2 * sums)]

    return Entry(
        "3",
        r"Its nonzero eigenvalues are those of $JJ\T = I_m\otimes WW\T + UU\T\otimes I_n$: with singular values $\sigma_a(U)$ and"
        r" $\sigma_b(W)$, completed by zeros to $m$ and $n$ of them,",
        r"\operatorname{spec} JJ\T = \bigl\{\,\sigma_a(U)^2 + \sigma_b(W)^2 \,\bigr\}_{a \le m,\; b \le n} .",
        lambda: power_sums(lambda k, j: sp.binomial(k, j)),
        residual,
    )


def equation_4() -> Entry:
    """Trace, E13."""

    def form(left: Callable[[int, int], int], right: Callable[[int, int], int]) -> Form:
        found = []
        for m, n, p in SIZES:
            U, W, _ = factors(m, n, p)
            found.append(left(m, n) * sum(x**2 for x in U) + right(m, n) * sum(x**2 for x in W))
        return found

    return Entry(
        "4",
        r"No residual is quadratic in one entry, so the trace of (2) holds everywhere, on the minima and off them:",
        r"\tr H = \|J\|_F^2 = n\,\|U\|_F^2 + m\,\|W\|_F^2, \qquad \tr\nabla^2 f = 2n\,\|U\|_F^2 + 2m\,\|W\|_F^2 .",
        lambda: form(lambda m, n: n, lambda m, n: m),
        lambda f: differences([half_hessian(*s).trace() for s in SIZES], f),
        (
            Erratum(
                "E13",
                r"The paper has $\tr H \propto \|U\|_F^2 + \|W\|_F^2$. That is so if and only if $m = n$.",
                lambda: form(lambda m, n: n, lambda m, n: n),
            ),
        ),
    )


def equation_5() -> Entry:
    """Tangent space."""

    def residual(sign: Form) -> list[sp.Expr]:
        found: list[sp.Expr] = []
        for m, n, p in ((2, 2, 2), (2, 3, 2)):
            U, W, _ = factors(m, n, p)
            a = sp.Matrix(p, p, sp.symbols(f"a1:{p * p + 1}", real=True))
            step = sp.Matrix([*(U * a), *(sign * W * a.T)])
            found += [sp.expand(x) for x in jacobian(m, n, p) * step]
            # as many as there are: p (m + n) - rank J
            found.append(sp.Integer(p * (m + n) - m * n - p * p))
        return found

    return Entry(
        "5",
        r"For $p = m$ and invertible $U$, so in particular for $p = m = n$, a step $(\dot U, \dot W)$ with $\dot UW\T + U\dot W\T"
        r" = 0$ is one"
        r" of the $p^2$ directions",
        r"\dot U = U a, \qquad \dot W = -W a\T, \qquad a \in \mathbb R^{p\times p} .",
        lambda: sp.Integer(-1),
        residual,
    )


# -- the flow of SGD ---------------------------------------------------------------------------------------------------


def equation_6() -> Entry:
    """Label noise is Hessian noise."""
    return Entry(
        "6",
        r"\emph{Noise in the labels} makes the gradients $(2R + \sigma\Xi)W$ and $(2R + \sigma\Xi)\T U$, $\Xi_{ab} \sim N(0, 1)$"
        r" independent. On the minima its covariance is like the Hessian,",
        r"D^2 = \sigma^2 J\T J = \sigma^2 H .",
        lambda: sigma**2 * sp.Matrix(vector().hessian) / 2,
        lambda f: differences([sp.Matrix(vector().covariance)], [f]),
        (
            Erratum(
                "E4",
                r"Where the paper prints $\sigma H$ for the factor $D_{22}$, it is $\sigma H^{1/2}$.",
                lambda: sigma**2 * sp.Matrix(vector().hessian) ** 2 / 4,
            ),
        ),
    )


def equation_7() -> Entry:
    """SGD descends the trace."""

    def form(left: int, right: int) -> sp.Expr:
        u, w1, w2 = vector().chart.embedding
        return eta**2 * sigma**2 / 4 * (left * u**2 + right * (w1**2 + w2**2))

    def residual(stated: Form) -> list[sp.Expr]:
        slow = qs.derive(qs.zoo.sgd, vector()).leading("eta")
        coordinate = slow.coordinates[0]
        metric = (vector().chart.tangent.T * vector().chart.tangent)[0]
        return [slow.regularizer() - stated, metric * slow.drift[0] + stated.diff(coordinate)]

    return Entry(
        "7",
        r"SGD then descends the trace, in the time $t = k\eta$ as $\dot z = -\frac{\eta\sigma^2}{4}\nabla_{\!\cM}\tr H$; an"
        r" iteration is the"
        r" step $\eta$ of that time. For $m = p = 1$, $n = 2$, where the minima are a curve, $w_b = M_b/u$, with all symbols:",
        r"\Psi = \frac{\eta^2\sigma^2}{4}\bigl(2u^2 + w_1^2 + w_2^2\bigr) \quad\text{per iteration.}",
        lambda: form(2, 1),
        residual,
        (Erratum("E13", r"$\|U\|_F^2 + \|W\|_F^2$ would give another force along the curve.", lambda: form(2, 2)),),
        lambda: rf"\Psi = {tex(qs.derive(qs.zoo.sgd, vector()).leading('eta').regularizer())}",
    )


def equation_8() -> Entry:
    """Sylvester form."""

    def form(left: Callable[[int, int], int], right: Callable[[int, int], int]) -> Form:
        found = []
        for m, n, p in ((3, 3, 3), (2, 3, 2)):
            _, U, W = flow(m, n, p)
            a = solve_sylvester(U.T @ U, W.T @ W, 2 * (left(m, n) * U.T @ U - right(m, n) * W.T @ W))
            found.append(1e-6 / 4 * packed(-U @ a, W @ a.T))
        return found

    def residual(stated: Form) -> list[sp.Expr]:
        found: list[sp.Expr] = []
        for (m, n, p), drift in zip(((3, 3, 3), (2, 3, 2)), stated, strict=True):
            here, U, W = flow(m, n, p)
            found += same(here.drift(packed(U, W)), drift)
        return found

    return Entry(
        "8",
        r"\emph{Manifold ODE.} In the coordinates of (5), with $c = \eta\sigma^2/4$ per unit of $t = k\eta$, or $\eta^2\sigma^2/4$ per"
        r" iteration, the projection of $-c\,\nabla\tr H$ on the tangent space is a Sylvester equation for $a$:",
        r"\dot U = -c\,Ua, \qquad \dot W = c\,Wa\T, \qquad (U\T U)\,a + a\,(W\T W) = 2\,(n\,U\T U - m\,W\T W) .",
        lambda: form(lambda m, n: n, lambda m, n: m),
        residual,
        (
            Erratum(
                "E13",
                r"With $U\T U - W\T W$ on the right, at any common weight, the ODE is wrong for $m \ne n$.",
                lambda: form(lambda m, n: n, lambda m, n: n),
            ),
        ),
    )


def equation_9() -> Entry:
    """Projector form for any shape."""

    def form(left: int, right: int) -> Form:
        _, U, W = flow(3, 2, 2)
        J = np.array(jacobian(3, 2, 2).subs(_values(U, W)), dtype=float)
        gradient = packed(2 * left * U, 2 * right * W)
        return -1e-6 / 4 * (gradient - J.T @ np.linalg.solve(J @ J.T, J @ gradient))

    here, U, W = flow(3, 2, 2)
    return Entry(
        "9",
        r"For any $m$, $n$, $p$ the projector on the tangent space is $P_T = I - J\T(JJ\T)^{+}J$, one linear system in the $mn$ residuals:",
        r"\dot z = -c\,P_T \begin{pmatrix} 2n\,U \\ 2m\,W \end{pmatrix} .",
        lambda: form(2, 3),
        lambda f: same(here.drift(packed(U, W)), f),
        (Erratum("E13", r"For $m = 3$, $n = p = 2$ the unweighted trace fails.", lambda: form(2, 2)),),
    )


def _values(U: np.ndarray, W: np.ndarray) -> dict[sp.Symbol, float]:
    m, p = U.shape
    left, right, _ = factors(m, len(W), p)
    return dict(zip((*left, *right), (float(x) for x in packed(U, W)), strict=True))


def equation_10() -> Entry:
    """Fixed points."""
    s1, s2, r = (sp.Symbol(n, positive=True) for n in ("s1", "s2", "r"))

    def residual(weights: Form) -> list[sp.Expr]:
        """weights(m, n) = (p, q) with p U^T U = q W^T W at rest."""
        found: list[sp.Expr] = []
        for m, n in ((2, 2), (2, 3), (3, 2)):
            one, other = weights(m, n)
            ratio = sp.root(sp.Rational(other, one), 4)  # U = ratio S^(1/2), W = S^(1/2)/ratio
            trace = (n * ratio**2 + m / ratio**2) * (s1 + s2)
            found.append(trace - 2 * sp.sqrt(m * n) * (s1 + s2))
            M = np.zeros((m, n))
            M[0, 0], M[1, 1] = 2.0, 0.5
            problem = qs.zoo.matrix_factorization(m, n, 2, M, qs.LabelNoise("1/2"))
            U, W = np.zeros((m, 2)), np.zeros((n, 2))
            U[range(2), range(2)] = float(ratio) * np.sqrt([2.0, 0.5])
            W[range(2), range(2)] = np.sqrt([2.0, 0.5]) / float(ratio)
            drift = qs.manifold_flow(qs.zoo.sgd, problem, leading="eta", eta=1e-3).drift(packed(U, W))
            found.append(sp.Integer(0 if np.abs(drift).max() < 1e-6 * DIGITS else 1))
        # along U -> r U, W -> W/r this is the least trace
        scaled = 2 * r**2 + 3 / r**2
        return [*found, scaled.diff(r).subs(r, sp.root(sp.Rational(3, 2), 4))]

    return Entry(
        "10",
        r"\emph{Fixed points} are balanced, in the weights of (4), and there the trace is as small as it can be, a multiple of"
        r" the nuclear norm"
        r" $\|M\|_*$. For $m = n$: $U\T U = W\T W$ and $\|U\|_F^2 + \|W\|_F^2 = 2\|M\|_*$.",
        r"n\,U\T U = m\,W\T W, \qquad \tr H = 2\sqrt{mn}\,\|M\|_* .",
        lambda: lambda m, n: (n, m),
        residual,
        (Erratum("E13", r"$U\T U = W\T W$ is no fixed point for $m \ne n$.", lambda: lambda m, n: (1, 1)),),
    )


def equation_11() -> Entry:
    """Momentum."""
    lam = sp.Symbol("lambda", positive=True)

    def residual(form: Form) -> list[sp.Expr]:
        factor, slope = form
        slow = {rule: qs.derive(getattr(qs.zoo, rule), vector()).leading("eta") for rule in ("sgd", "heavy_ball")}
        found = [slow["heavy_ball"].drift[0] - factor * slow["sgd"].drift[0]]
        law = qs.derive(qs.zoo.heavy_ball)
        # the law is in terms of the eigenvalue 2 lambda of the Hessian and of alpha = sigma^2/2
        names = {s.name: s for s in law.regularizer_density().free_symbols}
        density = 2 * law.regularizer_density().subs({names["alpha"]: sigma**2 / 2, names["lambda"]: 2 * lam})
        plain, U, W = flow(3, 2, 2)
        fast = flow(3, 2, 2, 0.75)[0]
        ratio = float(factor.subs(mu, sp.Rational(3, 4)))
        return [*found, density - slope, *same(fast.drift(packed(U, W)), ratio * plain.drift(packed(U, W)))]

    exact = eta**2 * sigma**2 / (4 * (1 - mu) ** 2) / (1 - eta * lam / (1 + mu))
    return Entry(
        "11",
        r"\emph{Heavy ball} goes the same way $1/(1-\mu)^2$ times as fast per iteration. At a learning rate that is not small both descend"
        r" $\sum_i\rho(\lambda_i)$ over the spectrum (3) instead of the trace,",
        r"\frac{\dd z}{\dd k} = -\frac{\eta^2\sigma^2}{4(1-\mu)^2}\,\nabla_{\!\cM}\tr H + O(\eta^3), \qquad \rho'(\lambda) ="
        r" \frac{\eta^2\sigma^2}{4(1-\mu)^2}\,\frac{1}{1 - \eta\lambda/(1+\mu)} .",
        lambda: (1 / (1 - mu) ** 2, exact),
        residual,
    )


# -- what the optimizers prefer ----------------------------------------------------------------------------------------

weight, size, other = (sp.Symbol(n, positive=True) for n in ("m", "w", "q"))
#: Rule with eps = 0, and lambda of its preconditioner v^-lambda.
OPTIMIZERS = (
    (qs.zoo.sgd, sp.Integer(0)),
    (qs.zoo.adam.fix(eps=0), sp.Rational(1, 2)),
    (qs.zoo.adam_power.fix(eps=0, power="1/4"), sp.Rational(1, 4)),
    (qs.zoo.adam_power.fix(eps=0, power="2/3"), sp.Rational(2, 3)),
)


@cache
def preference(rule: qs.Rule) -> tuple[sp.Expr, sp.Symbol]:
    """psi(h), of which the rule descends the sum over the diagonal of the Hessian, and h; SGD's trace is such a sum."""
    law = qs.derive(rule)
    found = law.leading("eta").regularizer() if rule.name == "sgd" else law.regularizer()
    (h,) = (s for s in found.free_symbols if s.name in ("h", "lambda"))
    return found, h


def constant(rule: qs.Rule, power: sp.Expr) -> sp.Expr:
    """kappa of psi(h) = kappa h^(1-lambda)."""
    rate = rule.hyperparameters["eta"]
    return rate**2 * alpha ** (1 - power) / (4 * (1 - power))


def evaluated(rule: qs.Rule, curvature: sp.Expr) -> sp.Expr:
    """psi of a curvature."""
    found, h = preference(rule)
    named = next((s for s in found.free_symbols if s.name == "alpha"), alpha)
    return found.subs({h: curvature, named: alpha})


def equation_12() -> Entry:
    """psi of every rule."""
    h = sp.Symbol("h", positive=True)
    return Entry(
        "12",
        r"Under label noise of covariance $\alpha\nabla^2 f$ a rule with the diagonal preconditioner $v^{-\lambda}$, $v$ at its"
        r" equilibrium,"
        r" descends a sum over the diagonal of the Hessian. SGD is $\lambda = 0$, Adam $\lambda = \frac12$, AdamE any $\lambda < 1$;"
        r" checked for $\lambda = 0, \frac14, \frac12, \frac23$.",
        r"\Psi = \sum_i \psi(h_i), \qquad h_i = (\nabla^2 f)_{ii}, \qquad \psi(h) ="
        r" \frac{\eta^2\alpha^{1-\lambda}}{4(1-\lambda)}\,h^{1-\lambda} \quad\text{per iteration } (\epsilon = 0) .",
        lambda: [constant(r, p) * h ** (1 - p) for r, p in OPTIMIZERS],
        lambda f: [evaluated(r, h) - x for (r, _), x in zip(OPTIMIZERS, f, strict=True)],
        (),
        lambda: rf"\psi = {tex(preference(OPTIMIZERS[1][0])[0])} \quad\text{{for Adam}}",
    )


def _diagonals(form: str) -> list[sp.Expr]:
    """Diagonal of the Hessian of a diagonal network on its minima, two weights and three samples, with symbols, over u, v."""
    X = sp.Matrix(3, 2, sp.symbols("x1:7", real=True))
    u, v = (sp.Matrix(sp.symbols(f"{n}1:3", real=True)) for n in "uv")
    y = sp.Matrix(sp.symbols("y1:4", real=True))
    w = sp.Matrix([a**2 - b**2 if form == "squares" else a * b for a, b in zip(u, v, strict=True)])
    problem = qs.Problem.from_residuals(list(X * w - y), noise=qs.LabelNoise(1), scale=sp.Rational(1, 6), parameters=(*u, *v))
    hessian = sp.hessian(problem.loss, problem.parameters).subs(dict(zip(y, X * w, strict=True)))
    return [sp.expand(hessian[i, i]) for i in range(4)]


def _stated_diagonals(form: str) -> list[sp.Expr]:
    X = sp.Matrix(3, 2, sp.symbols("x1:7", real=True))
    u, v = sp.symbols("u1:3", real=True), sp.symbols("v1:3", real=True)
    m = [sum(X[i, j] ** 2 for i in range(3)) / 3 for j in range(2)]
    squares = [4 * m[j] * z[j] ** 2 for z in (u, v) for j in range(2)]
    return squares if form == "squares" else [m[j] * z[j] ** 2 for z in (v, u) for j in range(2)]


def equation_13() -> Entry:
    """u^2 - v^2."""

    def residual(form: Form) -> list[sp.Expr]:
        found = [a - b for a, b in zip(_diagonals("squares"), _stated_diagonals("squares"), strict=True)]
        for (rule, _), stated in zip(OPTIMIZERS, form, strict=True):
            # u^2 = w + q, v^2 = q: nothing falls with q, so the least is at q = 0
            total = evaluated(rule, 4 * weight * (size + other)) + evaluated(rule, 4 * weight * other)
            slope = total.diff(other)
            found += [sp.Integer(0 if slope.subs({other: 1, size: 1, weight: 1}).is_positive else 1), total.subs(other, 0) - stated]
        return found

    return Entry(
        "13",
        r"\emph{Diagonal network} $w_j = u_j^2 - v_j^2$, loss $\frac{1}{2N}\sum_i(x_i\cdot w - y_i)^2$, with $m_j = \frac1N\sum_i"
        r" x_{ij}^2$:"
        r" the curvatures are $4m_ju_j^2$ and $4m_jv_j^2$. At given $w$ the sum increases with $\min(u_j^2, v_j^2)$, so that one of both is"
        r" zero where it is least: $\ell_1$ for SGD, $\ell_{1/2}$ for Adam, $\ell_{1-\lambda}$ for AdamE,",
        r"\min_{u^2 - v^2 = w}\Psi = \frac{\eta^2\alpha^{1-\lambda}}{4(1-\lambda)}\sum_j \bigl(4m_j\,|w_j|\bigr)^{1-\lambda} .",
        lambda: [constant(r, p) * (4 * weight * size) ** (1 - p) for r, p in OPTIMIZERS],
        residual,
    )


def balanced(rule: qs.Rule, first: sp.Expr, second: sp.Expr, copies: Sequence[sp.Expr], power: sp.Expr) -> list[sp.Expr]:
    """Least of copies[0] psi(first/t) + copies[1] psi(second t) over t > 0: value, and the slope where it is taken."""
    t = sp.Symbol("t", positive=True)
    total = copies[0] * evaluated(rule, first / t) + copies[1] * evaluated(rule, second * t)
    at = (copies[0] / copies[1]) ** (1 / (2 * (1 - power))) * sp.sqrt(first / second)
    return [sp.powsimp(sp.expand_power_base(e.subs(t, at), force=True), force=True) for e in (total, total.diff(t))]


def equation_14() -> Entry:
    """u v."""
    u, v = (sp.Symbol(n, positive=True) for n in "uv")

    def residual(form: Form) -> list[sp.Expr]:
        found = [a - b for a, b in zip(_diagonals("product"), _stated_diagonals("product"), strict=True)]
        for (rule, p), stated in zip(OPTIMIZERS, form, strict=True):
            value, slope = balanced(rule, weight * v**2, weight * u**2, (sp.Integer(1), sp.Integer(1)), p)
            found += [value - stated, slope]
        return found

    return Entry(
        "14",
        r"\emph{Diagonal network} $w_j = u_jv_j$: the curvature of $u_j$ is $m_jv_j^2$ and that of $v_j$ is $m_ju_j^2$. The scaling"
        r" $u_j \to \sqrt t\,u_j$, $v_j \to v_j/\sqrt t$ keeps $w_j$; the sum is least where $|u_j| = |v_j|$, and the norm is the same:",
        r"\min_{uv = w}\Psi = \frac{\eta^2\alpha^{1-\lambda}}{2(1-\lambda)}\sum_j \bigl(m_j\,|w_j|\bigr)^{1-\lambda} .",
        lambda: [2 * constant(r, p) * (weight * u * v) ** (1 - p) for r, p in OPTIMIZERS],
        residual,
    )


def equation_15() -> Entry:
    """Columns of a factorisation."""
    u, w = (sp.Symbol(n, positive=True) for n in ("|u|", "|w|"))
    rows, columns = (sp.Symbol(n, positive=True) for n in ("m", "n"))

    def diagonals() -> list[sp.Expr]:
        found: list[sp.Expr] = []
        for m, n, p in SIZES:
            U, W, _ = factors(m, n, p)
            H = half_hessian(m, n, p)
            for i in range(m * p):
                found.append(2 * H[i, i] - 2 * sum(W[b, i % p] ** 2 for b in range(n)))
            for j in range(n * p):
                found.append(2 * H[m * p + j, m * p + j] - 2 * sum(U[a, j % p] ** 2 for a in range(m)))
        return found

    def residual(form: Form) -> list[sp.Expr]:
        found = diagonals()
        for (rule, p), stated in zip(OPTIMIZERS, form, strict=True):
            value, slope = balanced(rule, 2 * w**2, 2 * u**2, (rows, columns), p)
            found += [value - stated, slope]
        return found

    return Entry(
        "15",
        r"\emph{Factorisation.} The curvature of $U_{ac}$ is $2|w_c|^2$ and that of $W_{bc}$ is $2|u_c|^2$, $u_c$ and $w_c$ the"
        r" columns of $U$"
        r" and $W$. The scaling of a column against its partner is balanced where",
        r"\min_{t}\Psi = \frac{\eta^2\alpha^{1-\lambda}\sqrt{mn}}{2(1-\lambda)}\sum_c \bigl(2\,|u_c|\,|w_c|\bigr)^{1-\lambda} .",
        lambda: [2 * constant(r, p) * sp.sqrt(rows * columns) * (2 * u * w) ** (1 - p) for r, p in OPTIMIZERS],
        residual,
    )


def equation_16() -> Entry:
    """Schatten-type norms."""
    s = [sp.Symbol(f"s{i}", positive=True) for i in (1, 2)]

    def residual(form: Form) -> list[sp.Expr]:
        """At the columns of the singular value decomposition, and for SGD at columns turned by any angle against them."""
        turn = sp.Symbol("phi", real=True)
        c, d = sp.cos(turn), sp.sin(turn)
        found: list[sp.Expr] = []
        for (_, p), stated in zip(OPTIMIZERS, form, strict=True):
            found.append(sum(x ** (1 - p) for x in s) - stated)
        # balanced factors S^(1/2) Q: the columns have |u_c||w_c| = sum_k S_k Q_kc^2, whose sum is the nuclear norm for every Q
        products = [s[0] * c**2 + s[1] * d**2, s[0] * d**2 + s[1] * c**2]
        found.append(sp.expand(sum(products).subs(d**2, 1 - c**2) - form[0]))
        # sum kept, product larger: the two are closer to each other than s1 and s2, and a concave function's sum is larger
        apart = (products[0] * products[1] - s[0] * s[1] - (s[0] - s[1]) ** 2 * c**2 * d**2).subs(d, sp.sqrt(1 - c**2))
        found.append(sp.expand(apart))
        return found

    return Entry(
        "16",
        r"Over all factors of $M$, SGD's sum of $|u_c||w_c|$ is least for the nuclear norm, at balanced factors $S^{1/2}Q$ whose"
        r" columns may be turned by any orthogonal $Q$. The concave powers of Adam and AdamE prefer the columns of the singular value"
        r" decomposition: turned against them (checked for two), the products $|u_c||w_c|$ keep their sum and come closer to each other,"
        r" which makes the sum of their powers larger. With the singular values $s_c$ of $M$ this is a Schatten quasi-norm, for Adam"
        r" $\sum_c\sqrt{s_c}$:",
        r"\min_{UW\T = M}\; \sum_c \bigl(|u_c|\,|w_c|\bigr)^{1-\lambda} = \sum_c s_c^{1-\lambda} .",
        lambda: [sum(x ** (1 - p) for x in s) for _, p in OPTIMIZERS],
        residual,
    )


PAGE = Page(
    r"Matrix factorisation:\\[0.5ex] what SGD and Adam do on its minima",
    r"This page follows section 3 of \emph{A quasistatic derivation of optimization algorithms' exploration on the minima"
    r" manifold} and goes"
    r" on to the norms that optimizers prefer. The equations have no numbers in the paper. Where it has a misprint, the"
    r" equation here is the"
    r" corrected one, and a remark says so.",
    (
        Section(
            "The model",
            r"Checked with a symbol for every entry of $U$, $W$ and $M$, for $(m, n, p) = (2, 3, 2)$, $(3, 2, 1)$ and $(2, 2, 2)$;"
            r" (3) by the"
            r" power sums of the eigenvalues for $(2, 2, 2)$ and in numbers for $(4, 3, 3)$.",
            (equation_1, equation_2, equation_3, equation_4, equation_5),
        ),
        Section(
            "The flow of SGD and of heavy ball",
            r"(6), (7) and (11) were checked with symbols on the curve of minima of $(m, n, p) = (1, 2, 1)$. (8), (9) and (10) are"
            r" compared in"
            r" numbers, to nine digits, with the drift that \texttt{qs.manifold\_flow} computes without coordinates.",
            (equation_6, equation_7, equation_8, equation_9, equation_10, equation_11),
        ),
        Section(
            "What the optimizers prefer",
            r"$\psi$ is what \texttt{qs.derive(rule).regularizer()} derives; the diagonals of the Hessians were computed with"
            r" symbols. What is"
            r" minimised is left over by the fibre of parameters that make the same $w$ or $M$.",
            (equation_12, equation_13, equation_14, equation_15, equation_16),
        ),
    ),
    method=r"the difference is zero identically in all symbols, except in (8), (9), (10) and parts of (3) and (11), which are compared in"
    " numbers, to nine digits",
)


if __name__ == "__main__":
    sys.exit(run(PAGE, sys.argv[1:], "matrix_factorization.tex"))
