"""Slow SDE of adaptive gradient methods near the manifold of minima, re-derived in the order of the poster that states it.

    python derivations/adaptive_slow_sde.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache

import frozen_preconditioner as numbers
import numpy as np
import sympy as sp
from pages import Entry, Erratum, Form, Page, Section, differences, equation, run
from scipy.integrate import solve_ivp

import quasistatic as qs
from quasistatic.derivation.structure import at_late_times
from quasistatic.show.typeset import tex

# -- settings ----------------------------------------------------------------------------------------------------------

ADAM = qs.zoo.adam
eta, beta1, beta2, eps = (ADAM.hyperparameters[n] for n in ("eta", "beta1", "beta2", "eps"))
alpha = sp.Symbol("alpha", positive=True)
c, t = sp.symbols("c t", positive=True)
lam = sp.Symbol("lambda", positive=True)
hh = sp.Symbol("h", positive=True)
v = sp.Symbol("v", positive=True)
HALF, QUARTER = sp.Rational(1, 2), sp.Rational(1, 4)

# a curve y = f(x) of minima in the plane, any curvature k(x)^2 across it, any noise C C^T: everything is unknown
x, y, z = qs.symbols("x y z")
f, k = qs.function("f"), qs.function("k", positive=True)
c1, c2, c3 = qs.symbols("c1 c2 c3")
C = sp.Matrix([[c1, 0], [c2, c3]])
NOISE = C * C.T
CURVE = qs.Problem(k(x) ** 2 * (y - f(x)) ** 2 / 2, {y: f(x)}, qs.CovarianceNoise(NOISE), parameters=(x, y))
RESIDUAL = y - f(x)
J, N = sp.Matrix([1, f(x).diff(x)]), sp.Matrix([-f(x).diff(x), 1])
PLANE = (x, y)

# two numbers per seed are enough: the identities between matrices are rational
SEEDS = (0, 1)


@cache
def curve(noise: str = "general") -> qs.SlowDynamics:
    """Adam on the curve; noise "general" or "label". Behind frozen S it is every member with a diagonal preconditioner."""
    problem = CURVE if noise == "general" else CURVE.with_noise(qs.HessianNoise(alpha))
    return qs.derive(ADAM, problem).leading("eta")


@cache
def surface() -> qs.SlowDynamics:
    """Adam on a curved surface of minima in R^3, label noise."""
    return qs.derive(ADAM, qs.zoo.paraboloid(qs.HessianNoise(alpha))).leading("eta")


@cache
def valley() -> qs.SlowDynamics:
    """Adam on the rotated valley h(x') y'^2, label noise."""
    h = qs.function("h", positive=True)
    return qs.derive(ADAM, qs.zoo.rotated_valley(h=h, noise=qs.HessianNoise(alpha)))


def frozen(slow: qs.SlowDynamics) -> sp.Matrix:
    """Diagonal matrix of the frozen symbols S_x, S_y, ..."""
    return sp.diag(*slow.scales)


def per_time(matrix: sp.Matrix) -> sp.Matrix:
    """Per unit of t = k eta^2 instead of per iteration."""
    return sp.Matrix(matrix) / eta**2


def on_curve(matrix: sp.Matrix) -> sp.Matrix:
    """Restricted to y = f(x)."""
    return sp.Matrix(matrix).applyfunc(lambda e: e.subs(y, f(x)).doit())


@cache
def plane() -> dict[str, sp.Matrix]:
    """S, G, K, h, Pi, Sigma_par and Sigma_diamond on the curve, from their formulas for one normal direction."""
    S = frozen(curve())
    G, K, h = (J.T * S.inv() * J)[0], (N.T * S * N)[0], k(x) ** 2
    Pi = J * J.T * S.inv() / G
    A = (N.T * S * NOISE * S * N)[0] / K**2 / (2 * h * K)
    cross = (J.T * NOISE * S * N)[0] / (G * K * K * h)
    normal, mixed = A * S * N * N.T * S, cross * (J * N.T * S + S * N * J.T)
    names = {"S": S, "G": sp.Matrix([G]), "K": sp.Matrix([K]), "Pi": Pi, "parallel": Pi * S * NOISE * S * Pi.T}
    return {**names, "normal": normal, "mixed": mixed, "diamond": normal + mixed}


def third(loss: sp.Expr, coordinates: tuple[sp.Symbol, ...], X: sp.Matrix) -> sp.Matrix:
    """The vector d^3 L[X]."""
    n = range(len(coordinates))
    return sp.Matrix([sum(sp.diff(loss, i, coordinates[j], coordinates[m]) * X[j, m] for j in n for m in n) for i in coordinates])


@cache
def third_on_curve(which: str) -> sp.Matrix:
    """d^3 L[X] on the curve for a matrix of ``plane``."""
    X = sp.Matrix(2, 2, sp.symbols("X11 X12 X12 X22"))
    general = on_curve(third(CURVE.loss, PLANE, X))
    return general.xreplace(dict(zip(X, plane()[which], strict=True)))


def both(*pairs: tuple[numbers.Array, numbers.Array]) -> list[float]:
    """Relative differences of pairs of arrays."""
    return [numbers.relative(a, b) for a, b in pairs]


def at_points(check: Callable[[numbers.Point], list[float]]) -> list[float]:
    """A check at random points with dense S and Sigma."""
    return [r for seed in SEEDS for r in check(numbers.random_point(seed))]


# -- framework ---------------------------------------------------------------------------------------------------------


def framework() -> Entry:
    """The iteration, for every rule of the zoo that is a member."""

    def form(shift: int = 0) -> Callable[..., Form]:
        def iterate(S: Callable[[sp.Expr], sp.Expr], V: Callable[[sp.Expr], sp.Expr], point: sp.Expr, g: sp.Expr, *memory: sp.Expr) -> Form:
            m, second = (memory[0], memory[1]) if len(memory) == 2 else (g, memory[0])
            m = beta1 * m + (1 - beta1) * g if len(memory) == 2 else g
            new = beta2 * second + (1 - beta2) * V(g**2)
            updates = (point - eta * S(second if shift else new) * m, m, new)
            return updates if len(memory) == 2 else (updates[0], updates[2])

        return iterate

    def residual(stated: Form) -> list[sp.Expr]:
        power = qs.zoo.adam_power.hyperparameters["power"]
        scales = {"adam_power": lambda u: 1 / (u**power + eps)}
        means = {"adam_mini": qs.block_mean, "adalayer": qs.block_mean}
        total = []
        for name in ("adam", "rmsprop", "adam_power", "adam_mini", "adalayer"):
            rule = getattr(qs.zoo, name)
            zeros = {s: sp.Integer(0) for s, value in rule.fixed_symbols.items() if value == 0}
            found = [u.xreplace(zeros) for u in at_late_times(rule)[0]]
            S = scales.get(name, lambda u: 1 / (sp.sqrt(u) + eps))
            wanted = stated(S, means.get(name, lambda u: u), rule.trace.parameter, rule.trace.gradient, *rule.trace.variables[1:])
            total += [sp.expand(a - b) for a, b in zip(found, wanted, strict=True)]
        return total

    return Entry(
        "1",
        r"An adaptive gradient method averages the gradients $g_k$ and their squares, and scales its step by the latter; $V$ is linear and"
        r" $S(v)$ symmetric and positive. (After the bias correction has died out; $\beta_1 = 0$ for RMSprop.)",
        r"m_{k+1} &= \beta_1 m_k + (1-\beta_1)\,g_k, \qquad v_{k+1} = \beta_2 v_k + (1-\beta_2)\,V(g_kg_k\T), \\"
        r"\theta_{k+1} &= \theta_k - \eta\,S(v_{k+1})\,m_{k+1} .",
        form,
        residual,
        (Erratum("", r"(A form with the old second moment, $S(v_k)$, is another method, and is rejected.)", lambda: form(1)),),
    )


def member_table() -> Entry:
    """S, V and the potential of each member that the library has."""
    root = 1 / (sp.sqrt(v) + eps)

    def form(exponent: sp.Expr = HALF) -> Form:
        adam = (root, sp.sqrt(alpha * hh) / 2)
        return {"rmsprop": adam, "adam": adam, "adam_power": None, "adam_mini": adam, "adalayer": adam, "exponent": exponent}

    def residual(stated: Form) -> list[sp.Expr]:
        total = []
        for name, row in stated.items():
            if name in ("adam_power", "exponent"):
                continue
            law = qs.derive(getattr(qs.zoo, name))
            M = sp.Symbol("M", positive=True)
            moved = law.slow_drift[v] - (1 - beta2) * (M - v)
            found = qs.derive(getattr(qs.zoo, name).fix(eps=0)).regularizer() / eta**2
            total += [law.preconditioner - row[0], moved, found - row[1] * (alpha * hh) ** (stated["exponent"] - HALF)]
        power = qs.zoo.adam_power.hyperparameters["power"]
        law = qs.derive(qs.zoo.adam_power)
        return [*total, law.preconditioner - 1 / (v**power + eps)]

    rows = (
        (r"\text{SGD, EMA momentum}", r"\text{any}", "I", r"\tr H"),
        (r"\text{RMSprop } (\beta_1 = 0), \text{ Adam}", r"\operatorname{diag}M", r"\operatorname{Diag}\frac{1}{\sqrt v+\epsilon}",
         r"\textstyle\sum_i\sqrt{H_{ii}}"),
        (r"\text{AdamE-}\lambda", r"\operatorname{diag}M", r"\operatorname{Diag}\frac{1}{v^\lambda+\epsilon}",
         r"\textstyle\sum_iH_{ii}^{1-\lambda}"),
        (r"\text{Adam-mini, Adalayer}", r"\text{means over blocks}", r"\text{as Adam}", r"\textstyle\sum_B\sqrt{|B|\,\tr H_{BB}}"),
        (r"\text{one block}", r"\frac1d\tr M", r"\text{as Adam}", r"\sqrt{d\,\tr H}"),
        (r"\text{full matrix}", "M", r"(v^{1/2}+\epsilon)^{-1}", r"\tr H^{1/2}"),
        (r"\text{one-sided Shampoo}", r"\mathcal L = \tr_2M", r"\mathcal L^{-1/2}\otimes I", r"\tr(\tr_2H)^{1/2}"),
        (r"\text{Shampoo}", r"(\tr_2M,\ \tr_1M)", r"\mathcal L^{-1/4}\otimes\mathcal R^{-1/4}", r"\text{none}"),
        (r"\text{Adafactor}", r"\text{row, column means } r, c", r"\operatorname{Diag}(rc\T/\bar r)^{-1/2}", r"\text{none}"),
    )  # fmt: skip
    body = r" \\[0.6ex] ".join(" & ".join(row) for row in rows)
    head = r"\text{method} & V(M) & S(v) & \Psi,\ \epsilon \to 0"
    return Entry(
        "table",
        r"Methods of this kind, and what they descend under label noise, to be derived below, up to a factor. The library derives $S$, $V$"
        r" and $\Psi$ of the first four rows from the rules; the rest is (31) and (32).",
        rf"\begin{{array}}{{llll}} {head} \\ \hline {body} \end{{array}}",
        form,
        residual,
        (Erratum("", r"(With $\sum_i H_{ii}$ for Adam, SGD's, the comparison fails.)", lambda: form(sp.Integer(1))),),
        lambda: (
            rf"\text{{Adam: }} S = {tex(qs.derive(ADAM).preconditioner)}, \qquad"
            rf" \text{{AdamE: }} S = {tex(qs.derive(qs.zoo.adam_power).preconditioner)}"
        ),
    )


# -- slow SDE ----------------------------------------------------------------------------------------------------------


def projections() -> Entry:
    """Three forms of the projection."""

    def form(exponent: float = 0.5) -> Form:
        def three(p: numbers.Point) -> list[numbers.Array]:
            inverse, root = np.linalg.inv(p.S), numbers.power(p.S, exponent)
            first = p.J @ np.linalg.inv(p.J.T @ inverse @ p.J) @ p.J.T @ inverse
            second = np.eye(len(p.S)) - p.S @ p.N @ np.linalg.inv(p.N.T @ p.S @ p.N) @ p.N.T
            values, vectors = np.linalg.eigh(numbers.power(p.S, 0.5) @ p.H @ numbers.power(p.S, 0.5))
            kernel = vectors[:, np.abs(values) < 1e-10 * values[-1]]
            return [first, second, root @ kernel @ kernel.T @ np.linalg.inv(root)]

        return three

    def residual(stated: Form) -> list[sp.Expr | float]:
        found = at_points(lambda p: both(*((numbers.projection(p), form) for form in stated(p))))
        slow = curve()
        left = slow.geometry.express(slow.geometry.T_left)
        return [*found, *(J * sp.Matrix(left) - plane()["Pi"])]

    return Entry(
        "2",
        r"Let $\Gamma$ be the manifold of minima, $H = \nabla^2L$ on it, $J = \partial\zeta/\partial u$ the tangent vectors of a chart"
        r" $\zeta(u)$, and $N$ a basis of the range of $H$. With $S$ frozen, $\Phi_S(\theta)$ is where $\dot\theta = -S\nabla L(\theta)$"
        r" ends. Its derivative on $\Gamma$ projects on the tangent space along $S$ times the normal space; with $\tilde P_\parallel$ the"
        r" orthogonal projection on the kernel of $\tilde H = S^{1/2}HS^{1/2}$,",
        r"\Pi_S = \partial\Phi_S &= J\,(J\T S^{-1}J)^{-1}J\T S^{-1} = I - SN\,(N\T SN)^{-1}N\T \\ &= S^{1/2}\,\tilde P_\parallel\,S^{-1/2} .",
        form,
        residual,
        (Erratum("", r"(With $S\tilde P_\parallel S^{-1}$ in the last form the three differ.)", lambda: form(1.0)),),
    )


#: A surface of minima in R^3, a point on it, and a dense preconditioner, for the flow itself.
FLOW_POINT = np.array([1.2, 0.7, (1.2**2 + 0.7**2) / 2])
FLOW_S = np.array([[1.0, 0.2, -0.1], [0.2, 0.6, 0.15], [-0.1, 0.15, 0.8]])
FLOW_SIGMA = np.array([[0.5, 0.3, 0.1], [0.3, 0.8, -0.2], [0.1, -0.2, 0.4]])


def surface_gradient(point: numbers.Array) -> numbers.Array:
    """Gradient of k^2 r^2 / 2, r = z - (x^2 + y^2)/2, k = 1 + ((x-2)^2 + (y-1)^2)/2."""
    a, b, height = point
    r, stiffness = height - (a * a + b * b) / 2, 1 + ((a - 2) ** 2 + (b - 1) ** 2) / 2
    return np.array(
        [stiffness * (a - 2) * r**2 - stiffness**2 * r * a, stiffness * (b - 1) * r**2 - stiffness**2 * r * b, stiffness**2 * r]
    )


def surface_point() -> numbers.Point:
    """The matrices at that point."""
    a, b, _ = FLOW_POINT
    stiffness = 1 + ((a - 2) ** 2 + (b - 1) ** 2) / 2
    tangent, normal = np.array([[1.0, 0], [0, 1.0], [a, b]]), np.array([[-a], [-b], [1.0]])
    return numbers.Point(FLOW_S, tangent, normal, np.array([[stiffness**2]]), FLOW_SIGMA)


def flow_derivative() -> Entry:
    """The projection is the derivative of the limit of the flow, which is integrated."""

    def residual(stated: Form) -> list[float]:
        found = numbers.limit_jacobian(surface_gradient, FLOW_S, FLOW_POINT)
        return both((found, stated(surface_point())))

    return Entry(
        "after 2",
        r"That $\partial\Phi_S = \Pi_S$ is seen by integrating the flow itself. On the surface $z = (x^2+y^2)/2$ in $\mathbb R^3$ with the"
        r" loss $\frac12 k^2(z - \frac{x^2+y^2}2)^2$, $k = 1 + \frac12((x-2)^2 + (y-1)^2)$, and with a dense $S$, the derivative of its end"
        r" point by central differences agrees with (2).",
        "",
        lambda: numbers.projection,
        residual,
        (
            Erratum(
                "",
                r"(The orthogonal projection on the tangent space, right for SGD, is rejected.)",
                lambda: lambda p: numbers.projection(numbers.Point(np.eye(3), p.J, p.N, p.h, p.Sigma)),
            ),
        ),
    )


def projected_metric() -> Entry:
    """Pi_S S is symmetric."""
    return Entry(
        "3",
        r"Hence, with the metric $G = J\T S^{-1}J$ that $S^{-1}$ induces on $\Gamma$,",
        r"\Pi_S\,S = S\,\Pi_S\T = J\,G^{-1}J\T .",
        lambda: lambda p: p.J @ np.linalg.inv(p.G) @ p.J.T,
        lambda stated: at_points(
            lambda p: both((numbers.projection(p) @ p.S, stated(p)), (p.S @ numbers.projection(p).T, stated(p)))
        ),
        (
            Erratum(
                "E2",
                r"A projection is dimensionless: the symmetric $S^{1/2}\tilde P_\parallel S^{1/2} = \Pi_SS$ is none, but"
                r" $S\,\Pi_S\,S$, that the poster seems to use, is of the order $S^2$; it is rejected.",
                lambda: lambda p: p.S @ numbers.projection(p) @ p.S,
            ),
        ),
    )


def projected_step() -> Entry:
    """The Ito correction of the limit map, in terms of the residuals."""

    def form(factor: sp.Expr = -HALF) -> Form:
        def bend(S: sp.Matrix, normal: sp.Matrix, K: sp.Matrix, contracted: sp.Matrix) -> sp.Matrix:
            return factor * S * normal * K.inv() * contracted

        return bend

    def residual(stated: Form) -> list[sp.Expr | float]:
        slow, m = curve(), plane()
        second = on_curve(sp.hessian(RESIDUAL, PLANE))
        contracted = sp.Matrix([(second * m["parallel"]).trace()])
        D = per_time(slow._engine.diffusion())
        moved = sp.Matrix([0, f(x).diff(x, 2)]) * D[0] / 2 + J * per_time(slow.frozen_terms.ito)
        p = surface_point()
        P = numbers.projection(p)
        parallel = P @ p.S @ p.Sigma @ p.S @ P.T
        flow = numbers.limit_bend(surface_gradient, FLOW_S, FLOW_POINT, parallel)
        bent = sp.Matrix([np.sum(np.diag([-1.0, -1.0, 0.0]) * parallel)])
        ambient = np.array(stated(sp.Matrix(p.S), sp.Matrix(p.N), sp.Matrix(p.K), bent), float).ravel()
        near = numbers.relative(flow, ambient)  # the second difference has an error of about 1e-5
        return [*(moved - stated(m["S"], N, m["K"], contracted)), near * 1e-3]

    return Entry(
        "4",
        r"A step $\sigma\,\dd W + b\,\dd t$ from $\zeta \in \Gamma$ moves the end of the flow by"
        r" $P_{\zeta,S}(\sigma\,\dd W + b\,\dd t) = \Phi_S(\zeta + \sigma\,\dd W + b\,\dd t) - \zeta ="
        r" \Pi_S(\sigma\,\dd W + b\,\dd t) + \frac12\partial^2\Phi_S[\sigma\sigma\T]\,\dd t$. For noise along $\Gamma$, and where $\Gamma$"
        r" is given by residuals $r = 0$ with $N = \nabla r$, the last term is normal in the metric $S^{-1}$:",
        r"\tfrac12\,\partial^2\Phi_S[\Sigma_\parallel] = -\tfrac12\,SN\,(N\T SN)^{-1}\bigl(\langle\nabla^2r_j, \Sigma_\parallel\rangle\bigr)_j .",
        form,
        residual,
        (Erratum("", "(With the other sign the point leaves the manifold; it is rejected.)", lambda: form(HALF)),),
    )


def noise_matrices() -> Entry:
    """Sigma_par and the equation of Sigma_diamond."""

    def form(project: bool = True) -> Form:
        def equations(p: numbers.Point, X: numbers.Array) -> tuple[numbers.Array, numbers.Array]:
            P, kick = numbers.projection(p), p.S @ p.Sigma @ p.S
            right = kick - P @ kick @ P.T if project else kick
            return p.S @ p.H @ X + X @ p.H @ p.S, right

        return equations

    def residual(stated: Form) -> list[sp.Expr | float]:
        def check(p: numbers.Point) -> list[float]:
            return both(stated(p, numbers.fluctuation(p)))

        slow, m = curve("label"), plane()
        S, H = m["S"], k(x) ** 2 * N * N.T
        X = sp.Matrix(slow.frozen_variance) / eta  # no noise along the curve: V is all of it
        return [*at_points(check), *(S * H * X + X * H * S - alpha * S * H * S)]

    return Entry(
        "5",
        r"Two covariances are made of $\Sigma$, that of the gradient: the noise along $\Gamma$, and the fluctuation about it. $\eta\,"
        r"\Sigma_\diamond$ is the stationary covariance of $\theta - \Phi_S(\theta)$ with itself and with the noise along $\Gamma$; its"
        r" block along $\Gamma$ is zero, $J\T S^{-1}\Sigma_\diamond S^{-1}J = 0$.",
        r"\Sigma_\parallel = \Pi_S\,S\Sigma S\,\Pi_S\T, \qquad"
        r" \boxed{SH\,\Sigma_\diamond + \Sigma_\diamond\,HS = S\Sigma S - \Sigma_\parallel}",
        form,
        residual,
        (Erratum("", r"(Without $-\Sigma_\parallel$ there is no solution, and the comparison fails.)", lambda: form(False)),),
        lambda: rf"\text{{for label noise on the curve: }} \operatorname{{Var}}x = {tex(curve('label').frozen_variance[0, 0])}",
    )


def eigenvector_form() -> Entry:
    """Sigma_diamond in eigenvectors."""

    def form(square: bool = False) -> Form:
        def solve(p: numbers.Point) -> numbers.Array:
            root = numbers.power(p.S, 0.5)
            values, vectors = np.linalg.eigh(root @ p.H @ root)
            values = np.where(np.abs(values) < 1e-10 * values[-1], 0.0, values)
            total = values[:, None] * values[None, :] if square else values[:, None] + values[None, :]
            weights = np.where(total > 0, 1 / np.where(total > 0, total, 1.0), 0.0)
            return np.asarray(root @ vectors @ (weights * (vectors.T @ root @ p.Sigma @ root @ vectors)) @ vectors.T @ root)

        return solve

    return Entry(
        "6",
        r"In the eigenvectors $\tilde v_i$ of $\tilde H$, with eigenvalues $\lambda_i$,",
        r"\Sigma_\diamond = S^{1/2}\Bigl[\,\sum_{\lambda_i + \lambda_j \neq 0}"
        r" \frac{\langle S^{1/2}\Sigma S^{1/2},\,\tilde v_i\tilde v_j\T\rangle}{\lambda_i + \lambda_j}\;\tilde v_i\tilde v_j\T\Bigr]S^{1/2} .",
        form,
        lambda stated: [*at_points(lambda p: both((numbers.fluctuation(p), stated(p)))), *_law_kernel()],
        (Erratum("", r"(The product of the eigenvalues in the denominator is rejected.)", lambda: form(True)),),
        lambda: equation(r"\frac{V_{ij}}{\tilde\Sigma_{ij}}", qs.derive(ADAM).leading("eta").kernel),
    )


def _law_kernel() -> list[sp.Expr]:
    """The kernel that the library finds at leading order, whatever beta1."""
    li, lj = sp.symbols("lambda_i lambda_j", positive=True)
    found = qs.derive(ADAM).leading("eta").kernel
    named = {s: {"lambda_i": li, "lambda_j": lj}.get(s.name, s) for s in found.free_symbols}
    return [found.xreplace(named) - eta / (li + lj)]


def slow_sde() -> Entry:
    """The whole equation, in R^d, against the library in the chart."""

    def form(noise: str = "parallel") -> Form:
        return noise

    def residual(stated: Form) -> list[sp.Expr]:
        slow, m = curve(), plane()
        Pi, S = m["Pi"], m["S"]
        second = on_curve(sp.hessian(RESIDUAL, PLANE))
        bend = -S * N * (second * m["parallel"]).trace() / (2 * m["K"][0])
        ambient = -Pi * S * third_on_curve("diamond") / 2 + bend
        D = per_time(slow._engine.diffusion())
        moved = J * per_time(slow.frozen_terms.total) + sp.Matrix([0, f(x).diff(x, 2)]) * D[0] / 2
        spread = m["parallel"] if stated == "parallel" else Pi * NOISE * Pi.T
        return [*(moved - ambient), *(J * D * J.T - spread), *_second_moments()]

    return Entry(
        "7",
        r"With $t = k\eta^2$, $c = (1-\beta_2)/\eta^2$ and $S = S(v(t))$, the slow SDE is",
        r"\dd\zeta &= P_{\zeta,S}\bigl(\Sigma_\parallel^{1/2}(\zeta; S)\,\dd W_t - \tfrac12\,S\,\nabla^3L(\zeta)[\Sigma_\diamond(\zeta; S)]\,"
        r"\dd t\bigr), \\ \dd v &= c\,\bigl(V(\Sigma(\zeta)) - v\bigr)\,\dd t .",
        form,
        residual,
        (
            Erratum(
                "E3",
                r"The poster prints $\Sigma^{1/2}(\zeta; S)$ in the diffusion. It is $\Sigma_\parallel^{1/2}$, which contains $S$: the noise"
                r" of the gradient itself, projected, is rejected.",
                lambda: form("gradient"),
            ),
        ),
        lambda: equation(r"\frac{\dd\langle x\rangle}{\dd t}", per_time(curve()._engine.diffusion())[0]),
    )


def _second_moments() -> list[sp.Expr]:
    """dv/dt = c (V(Sigma) - v) on the rotated valley."""
    slow = valley().leading("eta")
    (theta,) = (s for s in slow.drift.free_symbols if s.name == "theta")
    (position,) = slow.coordinates
    h = slow.problem.loss.atoms(sp.core.function.AppliedUndef)
    value = 2 * alpha * next(iter(h)).func(position)
    wanted = [c * (value * share - v_i) for share, v_i in zip((sp.sin(theta) ** 2, sp.cos(theta) ** 2), slow.slow_state[1:], strict=True)]
    found = [row.subs(beta2, 1 - c * eta**2) / eta**2 for row in slow.drift[1:]]
    return [a - b for a, b in zip(found, wanted, strict=True)]


def as_sgd() -> Entry:
    """The derivation: in x = S^-1/2 theta it is SGD."""

    def form(noise: float = 0.5) -> Form:
        def transformed(p: numbers.Point) -> tuple[numbers.Array, numbers.Array]:
            root = numbers.power(p.S, 0.5)
            return root @ p.H @ root, numbers.power(p.S, noise) @ p.Sigma @ numbers.power(p.S, noise)

        return transformed

    def residual(stated: Form) -> list[sp.Expr | float]:
        def check(p: numbers.Point) -> list[float]:
            H, Sigma = stated(p)
            back = np.linalg.inv(numbers.power(p.S, 0.5))
            X = back @ numbers.fluctuation(p) @ back
            values, vectors = np.linalg.eigh(H)
            kernel = vectors[:, np.abs(values) < 1e-10 * values[-1]]
            P = kernel @ kernel.T
            return both((H @ X + X @ H, Sigma - P @ Sigma @ P))

        variance = curve("label").frozen_variance
        return [*at_points(check), *(variance[i].diff(beta1) for i in range(4))]

    return Entry(
        "8",
        r"\emph{Derivation.} In $x = S^{-1/2}\theta$ the method with frozen $S$ is SGD with averaged gradients on $\tilde L(x) ="
        r" L(S^{1/2}x)$, with noise $\tilde\Sigma = S^{1/2}\Sigma S^{1/2}$. (i) The fast part at a frozen point of $\Gamma$ has the"
        r" covariance $\eta\tilde X$ below. (ii) Averaging the gradient along $\Gamma$ gives the drift $-\frac12\tilde P_\parallel\nabla^3"
        r"\tilde L[\tilde X]$ per unit of $t$; a fixed $\beta_1$ changes neither at leading order. (iii) Back in $\theta$,"
        r" $\Sigma_\diamond = S^{1/2}\tilde XS^{1/2}$ and $\nabla^3\tilde L[\tilde X] = S^{1/2}\nabla^3L[\Sigma_\diamond]$. (iv) $v$ moves by"
        r" $O(\eta^2)$ a step, so that $\dot S$ adds nothing.",
        r"\tilde H\tilde X + \tilde X\tilde H = \tilde\Sigma - \tilde P_\parallel\tilde\Sigma\tilde P_\parallel .",
        form,
        residual,
        (Erratum("", r"(With $S\Sigma S$ for $\tilde\Sigma$ the noise is scaled twice; it is rejected.)", lambda: form(1.0)),),
    )


def chart_form() -> Entry:
    """Drift and diffusion in coordinates of the manifold."""

    def form(christoffel: int = 1, cross: int = 1) -> Form:
        m = plane()
        G, X = m["G"][0], m["normal"] + cross * m["mixed"]
        D = (J.T * NOISE * J)[0] / G**2
        omega = ((k(x) ** 2 * N * N.T).diff(x) * X).trace()
        connection = (J.T * m["S"].inv() * J.diff(x))[0] / G
        return omega, D, -omega / (2 * G), -christoffel * connection * D / 2

    def residual(stated: Form) -> list[sp.Expr]:
        slow = curve()
        omega, D, drift, ito = stated
        terms = slow.frozen_terms
        found = per_time(terms.flatness + terms.correlation)[0]
        G = slow._engine.metric()[0]
        return [-2 * G * found - omega, per_time(slow._engine.diffusion())[0] - D, found - drift, per_time(terms.ito)[0] - ito]

    return Entry(
        "9",
        r"In a chart $\zeta(u)$, $\dd u^a = a^a\,\dd t + B^a{}_\mu\,\dd W^\mu$ with $BB\T = D$. Only the Hessian on $\Gamma$ is needed, because"
        r" $\partial_d\zeta\cdot\nabla^3L[X] = \langle\partial_dH, X\rangle$ for a frozen $X$; the It\^o term is that of $\zeta(u)$, with the"
        r" Christoffel symbols of $G$ at frozen $S$.",
        r"& D = G^{-1}J\T\,\Sigma\,J\,G^{-1}, \qquad \boxed{a^e = -\tfrac12 G^{ed}\omega_d - \tfrac12\Gamma^e_{ab}D^{ab}}, \\"
        r"& \omega_d = \langle\partial_{u^d}H(\zeta(u)), \Sigma_\diamond\rangle, \qquad"
        r" \Gamma^e_{ab} = G^{ed}\,(\partial_d\zeta)\T S^{-1}\,\partial_a\partial_b\zeta .",
        form,
        residual,
        (
            Erratum("", r"(Without the Christoffel term the comparison fails,)", lambda: form(christoffel=0)),
            Erratum("", r"(and without the part of $\Sigma_\diamond$ that mixes normal and tangent.)", lambda: form(cross=0)),
        ),
        lambda: equation(r"-\tfrac12\,\Gamma D", per_time(curve().frozen_terms.ito)[0]),
    )


def closed_solution() -> Entry:
    """Sigma_diamond without square roots."""

    def form(cross: float = 1.0) -> Form:
        def solve(p: numbers.Point) -> numbers.Array:
            SN, K = p.S @ p.N, p.K
            inner = np.linalg.inv(K)
            right = inner @ SN.T @ p.Sigma @ SN @ inner
            m, hK = len(K), p.h @ K
            A = np.linalg.solve(np.kron(hK, np.eye(m)) + np.kron(np.eye(m), hK), right.ravel()).reshape(m, m)
            mixed = np.linalg.inv(p.G) @ p.J.T @ p.Sigma @ SN @ inner @ np.linalg.inv(K @ p.h)
            return np.asarray(SN @ A @ SN.T + cross * (p.J @ mixed @ SN.T + SN @ mixed.T @ p.J.T))

        return solve

    return Entry(
        "10",
        r"No matrix square root is needed for $\Sigma_\diamond$: with $H = NhN\T$ and $K = N\T SN$,",
        r"& \Sigma_\diamond = SN\,A\,N\T S + J\,C\,N\T S + SN\,C\T J\T, \\"
        r"& hKA + AKh = K^{-1}N\T S\,\Sigma\,SNK^{-1}, \qquad C = G^{-1}J\T\,\Sigma\,SN\,K^{-1}(Kh)^{-1} .",
        form,
        lambda stated: at_points(lambda p: both((numbers.fluctuation(p), stated(p)))),
        (Erratum("", r"(Without $C$, for noise that is correlated across and along $\Gamma$, it is rejected.)", lambda: form(0.0)),),
    )


def ito_example() -> Entry:
    """Numbers of the curve on which every term counts."""

    def residual(stated: Form) -> list[float]:
        slow = curve()
        there = slow.subs({f: lambda s: s**2 / 2, k: lambda s: 1 + s**2 / 4})
        factor = {c1: sp.sqrt(HALF), c2: sp.Rational(3, 10) / sp.sqrt(HALF), c3: sp.sqrt(sp.Rational(8, 10) - sp.Rational(9, 50))}
        numbers_at = {x: 1, eta: 1, slow.scales[0]: 1, slow.scales[1]: sp.Rational(2, 5), **factor}
        terms = there.frozen_terms
        lyapunov, ito, D = (
            e[0].subs(numbers_at).evalf() for e in (terms.flatness + terms.correlation, terms.ito, there._engine.diffusion())
        )
        return [1e-3 * max(0.0, abs(float(a) - b) - 5e-5) for a, b in zip((lyapunov, ito, D), stated, strict=True)]

    return Entry(
        "after 10",
        r"\emph{Example.} $L = \frac12(1 + \frac{x^2}4)^2(y - \frac{x^2}2)^2$, $S = \operatorname{diag}(1, .4)$ and"
        r" $\Sigma = \bigl(\begin{smallmatrix} .5 & .3 \\ .3 & .8 \end{smallmatrix}\bigr)$. At $u = x = 1$ the two parts of the drift and the"
        r" diffusion are",
        r"-\tfrac12G^{-1}\omega = -.0651, \qquad -\tfrac12\Gamma D = -.0554, \qquad D = .1551 .",
        lambda: (-0.0651, -0.0554, 0.1551),
        residual,
        (Erratum("", r"(The other sign of the It\^o term is rejected.)", lambda: (-0.0651, 0.0554, 0.1551)),),
    )


def semi_gradient() -> Entry:
    """mu, whose gradient at frozen Sigma_diamond is the drift."""

    def form(frozen_diamond: bool = True) -> Form:
        return frozen_diamond

    def residual(stated: Form) -> list[sp.Expr | float]:
        def identity(p: numbers.Point) -> list[float]:
            P = numbers.projection(p)
            parallel = P @ p.S @ p.Sigma @ p.S @ P.T
            mu = np.sum(p.H * numbers.fluctuation(p))
            return both((np.array([mu]), np.array([(np.trace(p.S @ p.Sigma) - np.trace(np.linalg.inv(p.S) @ parallel)) / 2])))

        terms, m = curve().frozen_terms, plane()
        H, X = k(x) ** 2 * N * N.T, m["diamond"]
        slope = (H.diff(x) * X).trace() if stated else (H * X).trace().diff(x)
        return [*at_points(identity), per_time(terms.flatness + terms.correlation)[0] + slope / (2 * m["G"][0])]

    return Entry(
        "11",
        r"The stationary excess of the loss is $\frac\eta2\mu$, and the drift of (7) is a semi-gradient: $-\frac12$ times the gradient, in the"
        r" metric $S^{-1}$, of $\langle H(\zeta), \bar X\rangle$ with $\bar X = \Sigma_\diamond$ held fixed.",
        r"\mu(\zeta, v) = \langle H, \Sigma_\diamond\rangle = \tfrac12\bigl[\tr(S\Sigma) - \tr(S^{-1}\Sigma_\parallel)\bigr] .",
        form,
        residual,
        (Erratum("", r"(The full gradient of $\mu$, with the change of $\Sigma_\diamond$, is not the drift.)", lambda: form(False)),),
    )


# -- label noise -------------------------------------------------------------------------------------------------------


def label_fluctuation() -> Entry:
    """Sigma_diamond for label noise."""

    def form(project: bool = True) -> Form:
        def stated(p: numbers.Point) -> numbers.Array:
            return np.asarray(p.S - numbers.projection(p) @ p.S if project else p.S) / 2

        return stated

    def residual(stated: Form) -> list[sp.Expr | float]:
        def check(p: numbers.Point) -> list[float]:
            quiet = numbers.Point(p.S, p.J, p.N, p.h, p.H)
            P = numbers.projection(quiet)
            return [*both((numbers.fluctuation(quiet), stated(p))), float(np.max(np.abs(P @ p.S @ p.H @ p.S @ P.T)))]

        m = plane()
        library = curve("label").frozen_variance / eta
        return [*at_points(check), *(sp.Matrix(library) - alpha * (m["S"] - m["Pi"] * m["S"]) / 2)]

    return Entry(
        "12",
        r"Under label noise $\Sigma = \alpha H$ there is no noise along $\Gamma$, $\Sigma_\parallel = 0$, and (10) is solved by"
        r" $A = \frac\alpha2K^{-1}$:",
        r"\Sigma_\diamond = \tfrac\alpha2\,(S - \Pi_SS), \qquad \mu = \tfrac\alpha2\,\langle H, S\rangle .",
        form,
        residual,
        (
            Erratum(
                "",
                r"($\frac\alpha2S$ may stand for $\Sigma_\diamond$ inside the tangential drift, where the rest drops out, but only there; as a"
                r" covariance it is rejected.)",
                lambda: form(False),
            ),
        ),
    )


def label_ode() -> Entry:
    """The ODE, with alpha/4 and Pi_S S."""

    def form(weight: sp.Expr = QUARTER, outer: str = "Pi S") -> Form:
        return weight, outer

    def residual(stated: Form) -> list[sp.Expr]:
        weight, outer = stated
        m, slow = plane(), curve("label")
        operator = {"Pi S": m["Pi"] * m["S"], "S Pi S": m["S"] * m["Pi"] * m["S"]}[outer]
        ambient = -weight * alpha * operator * third_on_curve("S")
        line = [*(J * per_time(slow.frozen_terms.total) - ambient), *slow.frozen_terms.ito, *slow._engine.diffusion()]
        wide = surface()
        H, S, G = wide.problem.hessian, wide.scales, sp.Matrix(wide._engine.metric())
        slope = sp.Matrix([sum(H[i, i].diff(u) * S[i] for i in range(3)) for u in wide.coordinates])
        return [*line, *(G * per_time(wide.frozen_terms.total) + weight * alpha * slope)]

    return Entry(
        "13",
        r"(7) becomes an ODE; in a chart only the diagonal of $H$ enters if $S$ is diagonal, and $\bar S = S(v)$ is held fixed:",
        r"& \boxed{\dot\zeta = -\tfrac\alpha4\,\Pi_S\,S\,\nabla^3L[S]}, \qquad \dot v = c\,(\alpha V(H) - v), \\"
        r"& \dot u = -\tfrac\alpha4\,G^{-1}\,\partial_u\langle H(\zeta(u)), \bar S\rangle .",
        form,
        residual,
        (
            Erratum(
                "E1",
                r"The poster has the prefactor $\frac\alpha2$, inconsistent with its own ODE of SGD, (14), where $S = I$; simulations exclude"
                r" it by hundreds of standard errors.",
                lambda: form(HALF),
            ),
            Erratum(
                "E2",
                r"The poster prints $S\,P_{\parallel,S}\,S\,\nabla^3L[S]$. With a projection for $P_{\parallel,S}$ that is of third order in"
                r" $S$, where scaling $S$ is scaling $\eta$, that is second order, and it is not tangent. It is right for"
                r" $P_{\parallel,S} = S^{-1/2}\tilde P_\parallel S^{-1/2}$, or with $S^{1/2}$ outside.",
                lambda: form(outer="S Pi S"),
            ),
        ),
        lambda: equation(r"\dot x\bigr|_{\text{curve}}", per_time(curve("label").frozen_terms.total)[0]),
    )


def sgd_limit() -> Entry:
    """S = I."""

    def residual(stated: Form) -> list[sp.Expr]:
        slow = qs.derive(qs.zoo.ema, qs.zoo.paraboloid(qs.HessianNoise(alpha))).leading("eta")
        rate = slow.linear.gain
        G = slow.problem.chart.tangent.T * slow.problem.chart.tangent
        trace = slow.problem.hessian.trace()
        slope = sp.Matrix([trace.diff(u) for u in slow.coordinates])
        return list(G * sp.Matrix(slow.drift) / rate**2 + stated * alpha * slope)

    return Entry(
        "14",
        r"For $S = I$ this is SGD, which descends the trace of the Hessian, with averaged gradients or without:",
        r"\dot\zeta = -\tfrac\alpha4\,P_\parallel\nabla\tr H .",
        lambda: QUARTER,
        residual,
        (Erratum("E1", r"$\frac\alpha2$ is rejected here too.", lambda: HALF),),
    )


def fixed_point() -> Entry:
    """Where it stops: tangential gradient."""
    stop = {x: sp.Rational(5, 3), y: sp.Rational(2, 3)}

    def form(tangential: bool = True) -> Form:
        problem = surface().problem
        phi = problem.chart.embedding
        there = {z: phi[2]}
        H = [problem.hessian[i, i].subs(there) for i in range(3)]
        S = sp.diag(*(1 / sp.sqrt(e) for e in H))
        ambient = third(problem.loss, (x, y, z), S).subs(there).subs(stop)
        tangent = sp.Matrix(problem.chart.tangent).subs(stop)
        return list(tangent.T * ambient) if tangential else list(ambient)

    return Entry(
        "15",
        r"Adam with $\epsilon \to 0$ stops where the gradient along $\Gamma$ of $\tr\operatorname{Diag}(H)^{1/2}$ vanishes; on the surface"
        r" after (2), where $\operatorname{diag}H = k^2(x^2, y^2, 1)$, at $(\frac53, \frac23)$.",
        r"\nabla_\Gamma\,\tr\operatorname{Diag}(H)^{1/2} = 0 .",
        form,
        lambda stated: [*stated, *_library_stops(stop)],
        (
            Erratum(
                "E4",
                r"The poster writes $\nabla\tr\operatorname{Diag}(H)^{1/2} = 0$. The gradient in all of $\mathbb R^d$, $\frac12\nabla^3"
                r"L[\operatorname{Diag}(H)^{-1/2}]$, does not vanish there; and $\epsilon \to 0$ is understood.",
                lambda: form(False),
            ),
        ),
    )


def _library_stops(stop: Mapping[sp.Symbol, sp.Expr]) -> list[sp.Expr]:
    """The coupled drift of the library with v at alpha diag H and eps = 0 at that point."""
    slow = surface()
    rest = dict(zip(slow.slow_state[2:], [alpha * slow.problem.hessian[i, i] for i in range(3)], strict=True))
    return [e.xreplace(rest).subs(eps, 0).subs(stop) for e in slow.drift[:2]]


def rotated_valley() -> Entry:
    """The example that the other paper solves at two angles."""
    h = qs.function("h", positive=True)
    w, (s,) = h(valley().coordinates[0]), valley().coordinates
    sigma0, eps0, theta = sp.Symbol("sigma0", positive=True), sp.Symbol("epsilon0", positive=True), qs.symbols("theta")
    slope = w.diff(s)

    def form(sign: int = -1, square: int = 2) -> Form:
        loss = (x * sp.sin(theta) + y * sp.cos(theta)) ** square * h(x * sp.cos(theta) - y * sp.sin(theta))
        return loss, sign * slope * sigma0 / (4 * eps0 * sp.sqrt(w)), -slope / (2 * w)

    def residual(stated: Form) -> list[sp.Expr]:
        loss, along, diagonal = stated
        slow = valley().leading("eta")
        rate = slow.frozen_terms.total[0] / eta**2 + alpha / 2 * slope * slow.scales[0] * slow.scales[1]
        strength = {alpha: sigma0**2 / 2}  # the other paper's noise sigma0^2 h, of which h is half the Hessian
        rest = per_time(slow.adiabatic().drift).xreplace(strength)[0].subs(eps, eps0)
        small = rest.subs(theta, 0).doit() * (sigma0 * sp.sqrt(w) + eps0) / (sigma0 * sp.sqrt(w))  # eps0 in the second factor is left out
        return [rate, loss - slow.problem.loss, small - along, rest.subs(theta, sp.pi / 4).subs(eps0, 0) - diagonal]

    return Entry(
        "16",
        r"\emph{Example.} For the valley $L = y'^2\,h(x')$, rotated by $\theta$, with $u = x'$: $\dot u = -\frac\alpha2h'(u)\,S_1S_2$, $\dot v_1"
        r" = c\,(2\alpha h\sin^2\theta - v_1)$, $\dot v_2 = c\,(2\alpha h\cos^2\theta - v_2)$. With $v$ at rest and $\alpha = \sigma_0^2/2$ this"
        r" contains, for $\theta = 0$ (and $\epsilon_0 \ll \sigma_0\sqrt h$) and $\theta = \pi/4$ ($\epsilon_0 = 0$), equations (50) and (55) of"
        r" the quasistatic paper, whose loss is its (23):",
        r"& \dot u = -\frac{\sigma_0h'}{4\epsilon_0\sqrt h}, \qquad \dot u = -\frac{h'}{2h}, \\"
        r"& L = (x\sin\theta + y\cos\theta)^2\,h(x\cos\theta - y\sin\theta) .",
        form,
        residual,
        (
            Erratum("E6", r"Appendix B of that paper prints (50) without the minus that its (27) has.", lambda: form(sign=1)),
            Erratum("E6", r"The head of its appendix B has the first factor of the loss unsquared.", lambda: form(square=1)),
        ),
        lambda: equation(r"\dot u", per_time(valley().adiabatic().leading("eta").drift)[0]),
    )


# -- potentials --------------------------------------------------------------------------------------------------------


@cache
def blocked() -> qs.SlowDynamics:
    """Adam-mini with the blocks {x, z} and {y} on the surface."""
    problem = qs.zoo.paraboloid(qs.HessianNoise(alpha)).with_blocks([(x, z), (y,)])
    return qs.derive(qs.zoo.adam_mini, problem).leading("eta")


def potential_of_blocks() -> Entry:
    """Psi for any S, one F for all."""

    def form(mean: int = 1) -> Form:
        return mean

    def residual(stated: Form) -> list[sp.Expr]:
        slow = surface()
        H, (Sx, Sy, Sz) = slow.problem.hessian, slow.scales
        first = (H[0, 0] + H[2, 2]) / 2 if stated else H[0, 0] + H[2, 2]
        means = ((2, first, (Sx, Sz)), (1, H[1, 1], (Sy,)))
        G, moved = sp.Matrix(slow._engine.metric()), per_time(slow.frozen_terms.total)
        total = []
        for a, u in enumerate(slow.coordinates):
            # d Psi = sum |B| s(alpha h_B) d h_B, whatever s; the values of s enter through two symbols
            values = {S: sp.Symbol(f"s{i}", positive=True) for i, (_, _, group) in enumerate(means) for S in group}
            slope = sum(size * values[group[0]] * hb.diff(u) for size, hb, group in means)
            total.append((G * moved)[a].xreplace(values) + alpha / 4 * slope)
        return total

    return Entry(
        "17",
        r"With $v$ at rest and $S = \operatorname{Diag}(s(v_{B(i)}))$, $B(i)$ the block of $i$ (for Adam $i$ alone),"
        r" $\langle\partial_aH, S\rangle = \partial_a\Psi$, so that (13) is a gradient flow, whatever $s$; checked for the blocks"
        r" $\{x, z\}$ and $\{y\}$ of the surface.",
        r"\Psi(\zeta) = \sum_B|B|\,F(\bar h_B), \quad \bar h_B = \tfrac1{|B|}\tr H_{BB}, \quad F(h) = \int_0^hs(\alpha w)\,\dd w, \quad"
        r" \dot u = -\tfrac\alpha4\,G^{-1}\partial_u\Psi .",
        form,
        residual,
        (Erratum("", r"With $\tr H_{BB}$ for the mean $\bar h_B$ the comparison fails.", lambda: form(0)),),
    )


def adam_density() -> Entry:
    """F of Adam at finite eps."""

    def form(weight: sp.Expr = sp.Integer(1)) -> Form:
        root = sp.sqrt(alpha) * sp.sqrt(hh)
        return 2 / alpha * (root - weight * eps * sp.log(1 + root / eps))

    return Entry(
        "18",
        r"\emph{Adam at finite $\epsilon$}, exactly:",
        r"F(h) = \frac2\alpha\Bigl[\sqrt{\alpha h} - \epsilon\ln\Bigl(1 + \frac{\sqrt{\alpha h}}\epsilon\Bigr)\Bigr] .",
        form,
        lambda stated: [
            qs.derive(ADAM).regularizer() - eta**2 * alpha / 4 * stated,
            stated.diff(hh) - 1 / (sp.sqrt(alpha) * sp.sqrt(hh) + eps),
        ],
        (Erratum("", r"Without the logarithm, $\epsilon \to 0$, it is another function.", lambda: form(sp.Integer(0))),),
        lambda: equation(r"\tfrac{\eta^2\alpha}{4}F(h)", qs.derive(ADAM).regularizer()),
    )


def adam_limits() -> Entry:
    """eps between SGD and Adam."""

    def residual(stated: Form) -> list[sp.Expr]:
        F = 4 / (eta**2 * alpha) * qs.derive(ADAM).regularizer()
        large, small = stated
        r = sp.Symbol("r", positive=True)
        wide = sp.series(F.subs(eps, 1 / r), r, 0, 2).removeO().coeff(r, 1)
        return [wide - large, sp.limit(F, eps, 0) - small]

    return Entry(
        "19",
        r"$\epsilon$ goes from Adam to SGD, whose $\tr H$ appears for $\sqrt{\alpha h} \ll \epsilon$; the minimizer depends on $\alpha$ through"
        r" $\epsilon/\sqrt\alpha$ only.",
        r"F(h) \to \frac h\epsilon \quad (\epsilon \gg \sqrt{\alpha h}), \qquad F(h) \to 2\sqrt{h/\alpha} \quad (\epsilon \ll \sqrt{\alpha h}) .",
        lambda: (hh, 2 * sp.sqrt(hh / alpha)),
        residual,
        (Erratum("", r"$\frac h{2\epsilon}$ is rejected.", lambda: (hh / 2, 2 * sp.sqrt(hh / alpha))),),
    )


def power_density() -> Entry:
    """AdamE."""
    rule = qs.zoo.adam_power.fix(eps=0)
    power = rule.hyperparameters["power"]

    def form(exponent: sp.Expr) -> Form:
        return alpha ** (-power) * hh**exponent / (1 - power)

    return Entry(
        "20",
        r"\emph{AdamE-$\lambda$}, $s = v^{-\lambda}$, $\epsilon = 0$: it descends $\tr\operatorname{Diag}(H)^{1-\lambda}$, with a speed"
        r" proportional to $\alpha^{1-\lambda}$ (for Adam $\sqrt\alpha$) in $\Psi$'s metric $S^{-1}$, which is $\alpha^{1-2\lambda}$ in the"
        r" coordinates: for Adam it does not depend on $\alpha$.",
        r"F(h) = \frac{\alpha^{-\lambda}\,h^{1-\lambda}}{1-\lambda} .",
        lambda: form(1 - power),
        lambda stated: [qs.derive(rule).regularizer() - eta**2 * alpha / 4 * stated],
        (Erratum("", r"$h^\lambda$, which agrees for Adam only, is rejected.", lambda: form(power)),),
        lambda: equation(r"\tfrac{\eta^2\alpha}{4}F(h)\bigr|_{\lambda = 1/4}", qs.derive(rule.fix(power="1/4")).regularizer()),
    )


def block_densities() -> Entry:
    """Adam-mini, and one block."""

    def form(size: sp.Expr = sp.Integer(2)) -> Form:
        slow = blocked()
        H = slow.problem.hessian
        return eta**2 * sp.sqrt(alpha) / 2 * (sp.sqrt(size * (H[0, 0] + H[2, 2])) + sp.sqrt(H[1, 1]))

    def residual(stated: Form) -> list[sp.Expr]:
        slow = qs.derive(qs.zoo.adam_mini.fix(eps=0), blocked().problem).leading("eta").adiabatic()
        found = slow.regularizer()
        one = qs.derive(qs.zoo.adam_mini.fix(eps=0), qs.zoo.paraboloid(qs.HessianNoise(alpha))).leading("eta").adiabatic()
        whole = eta**2 * sp.sqrt(alpha) / 2 * sp.sqrt(3 * one.problem.hessian.trace())
        # squares, term by term: the roots of sums are independent
        return _same_roots(found, stated) + _same_roots(one.regularizer(), whole)

    return Entry(
        "21",
        r"\emph{Blocks}, $\epsilon = 0$. One block for all parameters stops where SGD does.",
        r"\frac{\eta^2\alpha}4\Psi = \frac{\eta^2\sqrt\alpha}2\sum_B\sqrt{|B|\,\tr H_{BB}} .",
        form,
        residual,
        (Erratum("", r"Without the size $|B|$ of the block it is rejected.", lambda: form(sp.Integer(1))),),
        lambda: rf"F(\bar h) = {tex(4 / (eta**2 * alpha) * qs.derive(qs.zoo.adam_mini.fix(eps=0)).regularizer())}",
    )


def _same_roots(a: sp.Expr, b: sp.Expr) -> list[sp.Expr | float]:
    """Relative difference of two expressions with roots at two points of the positive quadrant."""
    found = []
    for number in (sp.Rational(7, 5), sp.Rational(3, 10)):
        at = {x: number, y: number + HALF, alpha: sp.Rational(4, 5), eta: 1}
        found.append(float((a / b).subs(at).evalf(30)) - 1)
    return found


def silent_coordinate() -> Entry:
    """A coordinate that the noise does not reach."""
    h = qs.function("h", positive=True)
    v0 = sp.Symbol("v0", positive=True)

    def form(rate: sp.Expr = c / 2) -> Form:
        return 1 / (sp.sqrt(v0) * sp.exp(-rate * t) + eps)

    def residual(stated: Form) -> list[sp.Expr]:
        slow = qs.derive(ADAM, qs.zoo.rotated_valley(0, h=h, noise=qs.HessianNoise(alpha))).leading("eta")
        row, v_x = slow.drift[1], slow.slow_state[1]
        decay = row.diff(v_x).subs(beta2, 1 - c * eta**2) / eta**2  # the rest of the row is (13)'s 0 plus the next moment
        rest = row.subs(v_x, 0)
        closure = 3 * (h(slow.coordinates[0]).diff(slow.coordinates[0]) * slow.frozen_variance[1, 1]) ** 2
        frozen_rest = closure.xreplace(dict(zip(slow.scales, slow.preconditioner, strict=True))) * (1 - beta2)
        root = 1 / stated - eps
        return [root.diff(t) - decay * root / 2, root.subs(t, 0) - sp.sqrt(v0), rest - frozen_rest]

    return Entry(
        "22",
        r"\emph{Coordinates with $H_{ii} = 0$ along all of $\Gamma$.} There $v_i \to 0$ and $S_i \to 1/\epsilon$, after a transient;"
        r" the resting places do not change. The library keeps the next moment, $\E g_i^2 = 3h'^2V^2$ for the valley at $\theta = 0$, so that"
        r" the limit $\epsilon \to 0$ is finite.",
        r"S_i = \frac1{\sqrt{v_i(0)}\,e^{-ct/2} + \epsilon} .",
        form,
        residual,
        (Erratum("", r"$e^{-ct}$ is the decay of $v_i$, not of its root.", lambda: form(c)),),
    )


# -- joint Lyapunov function -------------------------------------------------------------------------------------------


def joint_function() -> Entry:
    """The coupled flow descends E(u, v)."""

    def form(weight: sp.Expr = QUARTER) -> Form:
        return weight

    def residual(stated: Form) -> list[sp.Expr]:
        total = []
        for slow, blocks in ((surface(), ((0,), (1,), (2,))), (blocked(), ((0, 2), (1,)))):
            E, names = slow.lyapunov(), slow.slow_state[2:]
            same = {names[i]: names[group[0]] for group in blocks for i in group}
            E = E.xreplace(same)
            drift = [e.xreplace(same) for e in slow.drift]
            G = sp.Matrix(slow.metric).xreplace(same)
            along = sp.Matrix([E.diff(u) for u in slow.coordinates])
            total += list(G * sp.Matrix(drift[:2]) / eta**2 + stated * along)
            for group in blocks:
                name = names[group[0]]
                slope = (1 / (sp.sqrt(name) + eps)).diff(name)  # s' < 0
                rate = drift[2 + group[0]] / (1 - beta2)
                total.append(rate - E.diff(name) / (len(group) * slope))
        return total

    return Entry(
        "23",
        r"For decreasing $s$ and \emph{any} $c$, with $v$ not at rest, the coupled flow (13) of $u$ and $v$ is the gradient flow of one"
        r" function in a block metric, so that $\hat E$ decreases:",
        r"& \hat E(u, v) = \sum_B|B|\,\bigl[\alpha\,\bar h_B(u)\,s(v_B) - g(v_B)\bigr], \qquad g'(v) = v\,s'(v), \\"
        r"& \dot u = -\tfrac14\,G^{-1}\partial_u\hat E, \qquad \dot v_B = -\frac{c}{|B|\,|s'(v_B)|}\,\partial_{v_B}\hat E .",
        form,
        residual,
        (Erratum("", r"With the weight $\frac12$ in the first equation it is not the flow.", lambda: form(HALF)),),
    )


def joint_parts() -> Entry:
    """g for Adam and AdamE."""
    w = sp.Symbol("w", positive=True)
    power = qs.zoo.adam_power.hyperparameters["power"]

    def form(weight: int = 2) -> Form:
        adam = w - weight * eps * sp.log((w + eps) / eps) + eps - eps**2 / (w + eps)
        return adam, -power / (1 - power) * v ** (1 - power)

    def residual(stated: Form) -> list[sp.Expr]:
        adam, power_part = stated
        slow = surface()
        names = slow.slow_state[2:]
        quiet = slow.lyapunov().subs(alpha, 0)
        own = sum(adam.subs(w, sp.sqrt(n)) for n in names)
        slopes = [(quiet - own).diff(n) for n in names]
        start = adam.subs(w, 0)
        other = qs.derive(qs.zoo.adam_power.fix(eps=0), slow.problem).leading("eta")
        return [*slopes, start, power_part.diff(v) - v * (v ** (-power)).diff(v), *_power_joint(other, power)]

    return Entry(
        "24",
        r"For Adam, with $w = \sqrt v$, and for AdamE with $\epsilon = 0$,",
        r"& -g = \int_0^w\frac{x^2\,\dd x}{(x + \epsilon)^2} = w - 2\epsilon\ln\frac{w + \epsilon}\epsilon + \epsilon"
        r" - \frac{\epsilon^2}{w + \epsilon} \quad\text{(Adam)}, \\ & g = -\frac\lambda{1-\lambda}\,v^{1-\lambda} \quad\text{(AdamE)} .",
        form,
        residual,
        (Erratum("", r"$\epsilon\ln$ in place of $2\epsilon\ln$ is rejected.", lambda: form(1)),),
        lambda: equation(r"\hat E\bigr|_{\text{valley}}", valley().leading("eta").lyapunov()),
    )


def _power_joint(slow: qs.SlowDynamics, power: sp.Expr) -> list[sp.Expr]:
    """The slope of the library's E for AdamE along every second moment."""
    E, H = slow.lyapunov(), slow.problem.hessian
    rows = []
    for i, n in enumerate(slow.slow_state[2:]):
        rows.append(sp.expand((E.diff(n) - (alpha * H[i, i] - n) * (n ** (-power)).diff(n)) * n ** (1 + power)))
    return rows


def joint_minimum() -> Entry:
    """min over v."""

    def residual(stated: Form) -> list[sp.Expr]:
        E = surface().lyapunov()
        names, H = surface().slow_state[2:], surface().problem.hessian
        root = {n: stated * alpha * H[i, i] for i, n in enumerate(names)}
        slopes = [E.diff(n).xreplace(root) for n in names]
        h = sp.Symbol("h", positive=True)
        one = alpha * h / (sp.sqrt(v) + eps) + sp.sqrt(v) - 2 * eps * sp.log((sp.sqrt(v) + eps) / eps) + eps - eps**2 / (sp.sqrt(v) + eps)
        low = one.subs(v, alpha * h)
        F = 4 / (eta**2 * alpha) * qs.derive(ADAM).regularizer()
        return [*slopes, (low - alpha * F.xreplace({s: h for s in F.free_symbols if s.name == "h"})).diff(h)]

    return Entry(
        "25",
        r"Its minimum over $v$, at $v = \alpha\bar h$, is $\Psi$ up to a constant; for Adam with $\epsilon = 0$,"
        r" $\hat E = \sum_i(\alpha H_{ii}/\sqrt{v_i} + \sqrt{v_i})$.",
        r"\min_v\hat E(u, v) = \hat E\bigl(u, \alpha\bar h(u)\bigr) = \alpha\,\Psi(u) + \text{const} .",
        lambda: sp.Integer(1),
        residual,
        (Erratum("", r"At $v = 2\alpha\bar h$ the slope is not zero.", lambda: sp.Integer(2)),),
    )


# -- first corrections in eta ------------------------------------------------------------------------------------------


def target_correction() -> Entry:
    """What the second moment tends to."""

    def form(factor: sp.Expr = HALF) -> Form:
        return factor

    def residual(stated: Form) -> list[sp.Expr]:
        slow = valley()
        H = slow.problem.hessian
        S = sp.diag(*slow.preconditioner)
        target = alpha * (H + stated * eta * H * S * H)
        found = [row / (1 - beta2) + name for row, name in zip(slow.drift[1:], slow.slow_state[1:], strict=True)]
        first = [(a - b).diff(eta).subs(eta, 0) for a, b in zip(found, target.diagonal(), strict=True)]
        return [*first, *((a - b).subs(eta, 0) for a, b in zip(found, target.diagonal(), strict=True))]

    return Entry(
        "26",
        r"The first correction in $\eta$, for label noise. The gradient of the fluctuation itself adds to what $v$ tends to,",
        r"V(\Sigma + \eta\,H\Sigma_\diamond H) = \alpha\,V\bigl(H + \tfrac\eta2\,HSH\bigr),",
        form,
        residual,
        (Erratum("", r"With $\eta HSH$ it is rejected.", lambda: form(sp.Integer(1))),),
    )


def variance_correction() -> Entry:
    """The variance of a mode, exactly."""

    def form(momentum: int = 1) -> Form:
        share = (1 - beta1) / (1 + beta1) if momentum else sp.Integer(1)
        return eta * alpha / 2 / (1 - eta * lam * share / 2)

    def residual(stated: Form) -> list[sp.Expr]:
        kernel = qs.derive(ADAM).kernel
        own = kernel.xreplace({s: lam for s in kernel.free_symbols if s.name in ("lambda_i", "lambda_j")})
        return [alpha * lam * own - stated]

    return Entry(
        "27",
        r"and an eigenmode of $\tilde H$ with eigenvalue $\lambda$ has, exactly in $\eta$ where the loss is quadratic, the variance",
        r"\frac{\eta\alpha}2\Bigm/\Bigl(1 - \frac{\eta\lambda\,(1-\beta_1)}{2\,(1+\beta_1)}\Bigr) .",
        form,
        residual,
        (Erratum("", r"The factor of SGD, $1 - \frac{\eta\lambda}2$, is rejected.", lambda: form(0)),),
        lambda: equation("K(\\lambda_i, \\lambda_j)", qs.derive(ADAM).kernel),
    )


# -- which have a potential --------------------------------------------------------------------------------------------

ROWS, DIMENSION, EPS = 2, 6, 0.1
CLOSED = {"Adam", "AdamE", "Adam-mini", "one block", "full matrix", "one-sided Shampoo"}


@cache
def asymmetries() -> dict[str, float]:
    """Member to the asymmetry of its 1-form at a random second moment."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(DIMENSION, DIMENSION))
    M = A @ A.T / DIMENSION + 0.01 * np.eye(DIMENSION)
    return {name: numbers.asymmetry(scale, M, 1e-5) for name, scale in numbers.members(ROWS, EPS).items()}


def matrix_level() -> Entry:
    """Closedness of M -> S(V(alpha M))."""

    def residual(stated: Form) -> list[float]:
        return [a if name in stated else max(0.0, 0.03 - a) for name, a in asymmetries().items()]

    return Entry(
        "28",
        r"\emph{For every loss}, a method has a potential under label noise if the 1-form $M \mapsto S(V(\alpha M))$ on symmetric matrices is"
        r" closed, that is if its derivative is symmetric,",
        r"\langle Q, DS[P]\rangle = \langle P, DS[Q]\rangle .",
        lambda: CLOSED,
        residual,
        (
            Erratum("", r"Shampoo's $\mathcal L^{-1/4}\otimes\mathcal R^{-1/4}$ is not closed;", lambda: CLOSED | {"Shampoo"}),
            Erratum("", r"nor is $\operatorname{Diag}(rc\T/\bar r)^{-1/2}$ of Adafactor.", lambda: CLOSED | {"Adafactor"}),
        ),
    )


def asymmetry_numbers() -> Entry:
    """The sizes."""

    def residual(stated: Form) -> list[float]:
        found = asymmetries()
        return [1e-4 * max(0.0, abs(found[name] - value) - 0.0006) for name, value in stated.items()]

    return Entry(
        "after 28",
        r"The relative asymmetry $\|D - D\T\|/\|D\|$ of this derivative at a random $M$ ($2\times3$ parameters) is zero up to rounding for"
        r" Adam, AdamE, blocks, the full matrix and one-sided Shampoo. For the other two it depends on $M$, and is of the order",
        rf"\text{{Shampoo: }} {asymmetries()['Shampoo']:.3f}, \qquad \text{{Adafactor: }} {asymmetries()['Adafactor']:.3f} .",
        lambda: {name: round(asymmetries()[name], 3) for name in ("Shampoo", "Adafactor")},
        residual,
        (Erratum("", r"Zero is rejected.", lambda: {"Shampoo": 0.0, "Adafactor": 0.0}),),
    )


def matrix_potentials() -> Entry:
    """Potentials of the full-matrix members."""

    def form(exponent: float = 0.5) -> Form:
        return {
            "full matrix": lambda M: 2 * np.trace(numbers.power(M, exponent)),
            "one-sided Shampoo": lambda M: 2 * np.trace(numbers.power(numbers.row_part(M, ROWS), exponent)),
        }

    def residual(stated: Form) -> list[float]:
        rng = np.random.default_rng(1)
        M = numbers.positive(rng, DIMENSION)
        P = numbers.positive(rng, DIMENSION)
        scales = numbers.members(ROWS, 0.0)
        return both(
            *(
                (np.array([np.sum(scales[name](M) * P)]), np.array([numbers.derivative(function, M, P)]))
                for name, function in stated.items()
            )
        )

    return Entry(
        "29",
        r"For the closed ones with matrices ($\epsilon = 0$), $S(M)$ is the derivative of",
        r"2\tr M^{1/2} \ \text{ (full matrix)}, \qquad 2\tr(\tr_2M)^{1/2} \ \text{ (one-sided Shampoo)},",
        form,
        residual,
        (Erratum("", r"$2\tr M$, SGD's up to a factor, is rejected.", lambda: form(1.0)),),
    )


def loss_level() -> Entry:
    """What must be closed for one loss."""

    def form(with_metric: bool = True) -> Form:
        return with_metric

    def residual(stated: Form) -> list[sp.Expr]:
        slow = surface()
        H = slow.problem.hessian
        K = 1 + ((x - 2) ** 2 + (y - 1) ** 2) / 2
        roots = {slow.scales[0]: 1 / (K * x), slow.scales[1]: 1 / (K * y), slow.scales[2]: 1 / K}
        check = [sp.expand(roots[s] ** -2 - H[i, i]) for i, s in enumerate(slow.scales)]
        drift = per_time(slow.frozen_terms.total).xreplace(roots)
        G = sp.Matrix(slow._engine.metric()).xreplace(roots)
        omega = -2 * G * drift if stated else -2 * drift
        return [*check, omega[0].diff(y) - omega[1].diff(x)]

    return Entry(
        "30",
        r"\emph{For one loss}, with $v = V(\Sigma(u))$ put in: where there is no diffusion, the drift $a$ is $-\frac12$ times a gradient in"
        r" the metric $G$ if $\omega$ of (9), that is",
        r"\omega = -2\,G\,a, \qquad \partial_a\omega_b = \partial_b\omega_a,",
        form,
        residual,
        (Erratum("", r"closed; it is not $a$ itself that must be, and $a$ is not, for Adam on the surface.", lambda: form(False)),),
    )


NORMAL = sp.Matrix([[2 + x, y], [y, 3 - x]])


@cache
def plane_of_minima(noise: str) -> qs.SlowDynamics:
    """SGD on a flat plane of minima in R^4 with the Hessian NORMAL across it."""
    p, q = across = qs.symbols("p q")
    Y = sp.Matrix(across)
    strength = {"projector": alpha * sp.eye(2), "cube": alpha * NORMAL**3, "constant": sp.diag(1, 0)}[noise]
    covariance = qs.CovarianceNoise(sp.diag(sp.zeros(2), strength))
    problem = qs.Problem(sp.expand((Y.T * NORMAL * Y)[0] / 2), {p: 0, q: 0}, covariance, parameters=(x, y, p, q))
    return qs.derive(qs.zoo.sgd, problem).leading("eta")


def known_potentials() -> Entry:
    """Other noise at S = I."""

    def form(weight: sp.Expr = sp.Rational(1, 6)) -> Form:
        determinant = NORMAL[0, 0] * NORMAL[1, 1] - NORMAL[0, 1] ** 2
        return alpha * sp.log(determinant) / 2, alpha * weight * (NORMAL**3).trace()

    def residual(stated: Form) -> list[sp.Expr]:
        total = []
        for noise, omega in zip(("projector", "cube"), stated, strict=True):
            slow = plane_of_minima(noise)
            found = -2 * per_time(sp.Matrix(slow.drift))
            total += [found[i] - omega.diff(u) for i, u in enumerate((x, y))]
            total += [2 * slow.regularizer().diff(u) / eta**2 - omega.diff(u) for u in (x, y)]
        return total

    return Entry(
        "31",
        r"\emph{Other noise}, $S = I$, checked with $H = \bigl(\begin{smallmatrix} 2+x & y \\ y & 3-x \end{smallmatrix}\bigr)$ across a plane"
        r" of minima and, in the second, $p = 3$:",
        r"\Sigma = \sigma^2P_N:\ \ \omega = \tfrac{\sigma^2}2\,\dd\ln\det\nolimits_+H, \qquad"
        r" \Sigma = \sigma^2H^p:\ \ \omega = \tfrac{\sigma^2}{2p}\,\dd\tr H^p .",
        form,
        residual,
        (Erratum("", r"$\frac{\sigma^2}2\,\dd\tr H^p$ is rejected.", lambda: form(HALF)),),
        lambda: rf"\Psi = {tex(plane_of_minima('projector').regularizer())} \quad\text{{for }} \Sigma = \alpha P_N",
    )


def not_integrable() -> Entry:
    """A constant covariance."""
    q = x**2 - x + y**2 - 6

    def form(sign: int = -1) -> Form:
        return (5 * x + 2 * y**2 - 15) / (10 * q), -y * (x - 3) / (5 * q), sign * y / (5 * q)

    def residual(stated: Form) -> list[sp.Expr]:
        slow = plane_of_minima("constant")
        omega = -2 * per_time(sp.Matrix(slow.drift))
        curl = omega[1].diff(x) - omega[0].diff(y)
        refused = sp.Integer(1)
        try:
            slow.regularizer()
        except qs.NoPotential:
            refused = sp.Integer(0)
        value = float(curl.subs({x: HALF, y: sp.Rational(3, 10)}))
        return [*(omega[i] - stated[i] for i in range(2)), curl - stated[2], refused, 1e-2 * (value - 0.0097403)]

    def found() -> str:
        slow = plane_of_minima("constant")
        omega = -sp.Matrix(slow.drift)
        curl = sp.factor(sp.together(omega[1].diff(x) - omega[0].diff(y)))
        return equation(r"\partial_x(-\dot y) - \partial_y(-\dot x)", curl) + r"\quad\text{per iteration, and no potential}"

    return Entry(
        "32",
        r"Other noise has no potential in general. For $\Sigma_N = \operatorname{diag}(1, 0)$ and the same $H$, with $q = x^2 - x + y^2 - 6$,",
        r"\omega = \Bigl(\frac{5x + 2y^2 - 15}{10q},\ -\frac{y\,(x-3)}{5q}\Bigr), \qquad"
        r" \partial_x\omega_y - \partial_y\omega_x = -\frac y{5q} \neq 0,",
        form,
        residual,
        (Erratum("", r"(which is $.0097403$ at $(.5, .3)$); the other sign is rejected.", lambda: form(1)),),
        found,
    )


def stationary_density() -> Entry:
    """Where there is diffusion."""

    def form(inner: int = 1) -> Form:
        return inner

    def residual(stated: Form) -> list[sp.Expr]:
        D11, D12, D22 = (sp.Function(n)(x, y) for n in ("D11", "D12", "D22"))
        U = sp.Function("U")(x, y)
        D = sp.Matrix([[D11, D12], [D12, D22]])
        divergence = sp.Matrix([sum(D[i, j].diff(u) for j, u in enumerate((x, y))) for i in range(2)])
        slope = sp.Matrix([U.diff(u) for u in (x, y)])
        # choose a so that the stated form is -dU; then the current of exp(-U) must vanish
        chosen = (stated * divergence - D * slope) / 2
        density = sp.exp(-U)
        current = [chosen[i] * density - sum((D[i, j] * density).diff(u) for j, u in enumerate((x, y))) / 2 for i in range(2)]
        return [sp.expand(e / density) for e in current]

    return Entry(
        "33",
        r"With diffusion, a stationary density $e^{-U}$ (with respect to $\dd u$) with zero current exists if, for invertible $D$,",
        r"D^{-1}(2a - \partial\cdot D) = -\dd U \quad\text{is closed} .",
        form,
        residual,
        (Erratum("", r"Without $\partial\cdot D$ the current of $e^{-U}$ does not vanish.", lambda: form(0)),),
    )


# -- slow momentum -----------------------------------------------------------------------------------------------------

speed, rate1 = sp.symbols("s c_1", positive=True)
q, h_dot, s_dot, u_dot = sp.symbols("q hdot sdot udot", real=True)
root_eta = sp.Symbol("e", positive=True)


def oscillation() -> Entry:
    """The normal motion when the momentum is slow."""

    def form(friction: int = 1) -> Form:
        drift = sp.Matrix([[0, -speed / root_eta], [2 * rate1 * hh / root_eta, -friction * rate1]])
        return drift, sp.diag(0, 2 * rate1**2 * alpha * hh)

    def residual(stated: Form) -> list[sp.Expr]:
        linear = qs.derive(ADAM).preconditioned.linear  # of z/S and m
        slow = {beta1: 1 - rate1 * eta**2}
        A, b = sp.Matrix(linear.A).subs(slow), sp.Matrix(linear.b).subs(slow)
        units = sp.diag(root_eta / speed, root_eta**2)  # z/S = y/s = e Y/s, m = e^2 p
        step = A - sp.eye(2) + b * sp.Matrix([[2 * hh * speed, 0]])
        drift = (units.inv() * step * units / eta**2).subs(eta, root_eta**2)
        kick = units.inv() * b
        covariance = (2 * alpha * hh * kick * kick.T / eta**2).subs(eta, root_eta**2)
        return [_vanishing(a - b) for a, b in zip([*drift, *covariance], [*stated[0], *stated[1]], strict=True)]

    return Entry(
        "34",
        r"The quasistatic paper takes $1-\beta_1 = c_1\eta^2$ for Adam, and $y$ and $m_y$ at equilibrium. On the valley, with $S = sI$,"
        r" $y = \sqrt\eta\,Y$ and $m_y = \eta\,p$, the leading order of Adam's step is",
        r"\dd Y = -\frac s{\sqrt\eta}\,p\,\dd t, \qquad \dd p = \frac{2c_1h}{\sqrt\eta}\,Y\,\dd t - c_1p\,\dd t + c_1\sqrt{2\alpha h}\,\dd W :",
        form,
        residual,
        (Erratum("", r"an oscillator. Without the friction $-c_1p\,\dd t$ the comparison fails.", lambda: form(0)),),
    )


def _vanishing(gap: sp.Expr) -> sp.Expr:
    """The limit for eta to 0; 1 where there is none."""
    value = sp.limit(sp.expand(gap), root_eta, 0)
    return value if value.is_finite is not False else sp.Integer(1)


def kinetic_closure() -> Entry:
    """The slow equation of the normal variance."""

    def form(adiabatic: int = 1) -> Form:
        return rate1 * (alpha * speed / 2 - q) - adiabatic * q / 2 * (h_dot / hh - s_dot / speed)

    def instant() -> Form:
        return alpha * s_dot / 2  # of q = alpha s/2

    def residual(stated: Form) -> list[sp.Expr]:
        drift = sp.Matrix([[0, -speed / root_eta], [2 * rate1 * hh / root_eta, -rate1]])
        Y2, Yp, p2 = sp.symbols("Y2 Yp p2", real=True)
        M = sp.Matrix([[Y2, Yp], [Yp, p2]])
        moved = drift * M + M * drift.T + sp.diag(0, 2 * rate1**2 * alpha * hh)
        energy = rate1 * hh * Y2 + speed * p2 / 2  # the two fast terms cancel in its change
        change = rate1 * hh * moved[0, 0] + speed * moved[1, 1] / 2 + rate1 * h_dot * Y2 + s_dot * p2 / 2
        fast = sp.expand(change).coeff(root_eta, -1)
        equal = {Y2: q, p2: 2 * rate1 * hh * q / speed, Yp: sp.Integer(0)}  # what the fast terms of d(Yp)/dt leave
        parts = sp.expand(moved[0, 1]).coeff(root_eta, -1).subs(equal)
        wanted = 2 * rate1 * (hh * stated + h_dot * q)  # d(2 c1 h q)/dt
        return [fast, parts, change.subs(equal) - wanted, energy.subs(equal) - 2 * rate1 * hh * q]

    return Entry(
        "35",
        r"Its energy $c_1hY^2 + \frac s2p^2$ is not touched by the fast rotation, which shares it equally, and relaxes at the rate $c_1$ in slow"
        r" time: $(y, m_y)$ is no fast system. With $\eta q$ the normal variance,",
        r"& \dot q = c_1\bigl(\tfrac{\alpha s}2 - q\bigr) - \frac q2\,\frac{\dd}{\dd t}\ln\frac hs, \\"
        r"& \dot m_x = c_1\,(h'q - m_x), \qquad \dot u = -s\,m_x .",
        form,
        residual,
        (
            Erratum(
                "E5",
                r"Section 5 and appendix B of that paper have $q = \frac{\alpha s}2$ at every moment; this does not satisfy the balance of"
                r" energy. It is the limit $c_1 \gg 1$.",
                instant,
            ),
            Erratum("", r"Without the adiabatic term, $q\,\dd\ln(h/s)$, energy is not balanced either.", lambda: form(0)),
        ),
    )


KINETIC = {1: 1.7804, 5: 1.3554, 50: 1.2368}
INSTANT = {1: 1.5388, 5: 1.2857, 50: 1.2271}


def reduced_path(c_1: float, closure: str, horizon: float = 2.0) -> float:
    """u at the end, from u = 2, v = 5, at rest; theta = pi/4, alpha = 1, c = 2, eps = .001, h = 1 + u^2."""

    def rates(_: float, state: numbers.Array) -> list[float]:
        u, m, variance, second = state
        h, s = 1 + u * u, 1 / (np.sqrt(second) + 1e-3)
        moved, du = 2 * (h - second), -s * m
        q_now = s / 2 if closure == "instant" else variance
        s_change = -s * s * moved / (2 * np.sqrt(second))
        bend = variance / 2 * (2 * u * du / h - s_change / s)
        return [du, c_1 * (2 * u * q_now - m), c_1 * (s / 2 - variance) - bend, moved]

    done = solve_ivp(rates, (0, horizon), [2.0, 0.0, 0.0, 5.0], rtol=1e-10, atol=1e-12)
    return float(done.y[0, -1])


def moment_path(c_1: float, eta_: float, horizon: float = 2.0) -> float:
    """The same from the second moments of (34) themselves, oscillating."""

    def rates(_: float, state: numbers.Array) -> list[float]:
        u, m, Y2, Yp, p2, second = state
        h, s, e = 1 + u * u, 1 / (np.sqrt(second) + 1e-3), np.sqrt(eta_)
        return [
            -s * m, c_1 * (2 * u * Y2 - m), -2 * s * Yp / e, -s * p2 / e + 2 * c_1 * h * Y2 / e - c_1 * Yp,
            4 * c_1 * h * Yp / e - 2 * c_1 * p2 + 2 * c_1**2 * h, 2 * (h - second),
        ]  # fmt: skip

    done = solve_ivp(rates, (0, horizon), [2.0, 0.0, 0.0, 0.0, 0.0, 5.0], rtol=1e-10, atol=1e-12, method="DOP853")
    return float(done.y[0, -1])


def kinetic_numbers() -> Entry:
    """How far the two closures are apart."""

    def residual(stated: Form) -> list[float]:
        closure, table = stated
        ends = {rate: reduced_path(rate, closure) for rate in table}
        printed = [1e-3 * max(0.0, abs(ends[rate] - value) - 6e-5) for rate, value in table.items()]
        # the full moment system must approach the closure as eta falls, for c1 = 1
        gaps = [abs(moment_path(1.0, size) - ends[1]) for size in (4e-3, 2.5e-4)]
        return [*printed, 1e-3 * max(0.0, gaps[1] / gaps[0] - 0.5)]

    return Entry(
        "after 35",
        r"At $\theta = \pi/4$, $\alpha = 1$, $c = 2$, $\epsilon = .001$, $h = 1 + u^2$, from $u = 2$ and $y = m = 0$, (35) ends at $t = 2$ at the"
        r" points below; the moments of (34), integrated with their oscillation, approach them as $\eta \to 0$. (Simulations of Adam end at"
        r" $1.785(2)$ and $1.366(4)$ for $c_1 = 1$ and 5; the first-order ODE at $1.221$.)",
        r"c_1 = 1:\ 1.7804, \qquad c_1 = 5:\ 1.3554, \qquad c_1 = 50:\ 1.2368 .",
        lambda: ("kinetic", KINETIC),
        residual,
        (
            Erratum(
                "E5",
                r"With $q = \frac{\alpha s}2$ the ends are $1.5388$, $1.2857$ and $1.2271$, and the moments of (34) do not approach them.",
                lambda: ("instant", INSTANT),
            ),
        ),
    )


def fast_momentum() -> Entry:
    """c1 to infinity."""

    def residual(stated: Form) -> list[sp.Expr]:
        slope = sp.Symbol("hprime", real=True)
        rest = sp.solve(rate1 * (alpha * speed / 2 - q), q)[0]
        ode = -speed * slope * rest
        slow = valley().leading("eta")
        w = slow.coordinates[0]
        h = next(iter(slow.problem.loss.atoms(sp.core.function.AppliedUndef))).func(w)
        library = per_time(slow.frozen_terms.total)[0].xreplace(dict.fromkeys(slow.scales, speed))
        return [ode - stated * slope, library - stated * h.diff(w)]

    return Entry(
        "36",
        r"For $c_1 \gg 1$, $q = \frac{\alpha s}2$, $m_x = h'q$, and $u$ follows (13) with $S = sI$:",
        r"\dot u = -\tfrac\alpha2\,s^2\,h'(u) .",
        lambda: -alpha * speed**2 / 2,
        residual,
        (Erratum("E1", r"Twice this, from $\frac\alpha2$ in (13), is rejected.", lambda: -alpha * speed**2),),
    )


PAGE = Page(
    "The slow SDE of adaptive gradient methods\\\\[0.5ex] near a manifold of minima",
    r"This page follows the poster \emph{Adam reduces a unique form of sharpness: theoretical insights near the minimizer manifold}, which"
    r" states the slow SDE for a class of adaptive gradient methods without definitions of its matrices; they are reconstructed here, and the"
    r" equations are numbered as they come. Some results on it, on the implicit regularizers and on a slow momentum, which the poster does"
    r" not have, are included. A remark E says what is misprinted in the poster (E1 to E4) or in the section on Adam of \emph{A quasistatic"
    r" derivation of optimization algorithms' exploration on the minima manifold} (E5, E6). $H$ is the true Hessian, $\Sigma$ the covariance"
    r" of one step's gradient, $t = k\eta^2$.",
    (
        Section("A class of methods", "", (framework, member_table)),
        Section(
            "The slow SDE",
            r"The library's side of a comparison is its result for Adam with $S$ frozen, $S = \operatorname{diag}(S_x, S_y)$ free, on a curve"
            r" $y = f(x)$ with the loss $\frac12k(x)^2(y - f(x))^2$, unknown functions $f$ and $k$, and noise $CC\T$, $C$ lower triangular with"
            r" the free entries $c_1, c_2, c_3$. Identities between matrices were checked at random points in $\mathbb R^5$, $k = 2$, with"
            r" dense $S$ and $\Sigma$, against definitions without any of the formulas.",
            (
                projections,
                flow_derivative,
                projected_metric,
                projected_step,
                noise_matrices,
                eigenvector_form,
                slow_sde,
                as_sgd,
                chart_form,
                closed_solution,
                ito_example,
                semi_gradient,
            ),
        ),
        Section("Label noise", "", (label_fluctuation, label_ode, sgd_limit, fixed_point, rotated_valley)),
        Section(
            "Implicit regularizers", "",
            (potential_of_blocks, adam_density, adam_limits, power_density, block_densities, silent_coordinate),
        ),
        Section("A joint function of the point and the second moments", "", (joint_function, joint_parts, joint_minimum)),
        Section("First corrections in the learning rate", "", (target_correction, variance_correction)),
        Section(
            "Which methods have a potential", "",
            (
                matrix_level,
                asymmetry_numbers,
                matrix_potentials,
                loss_level,
                known_potentials,
                not_integrable,
                stationary_density,
            ),
        ),
        Section("Momentum that is slow", "", (oscillation, kinetic_closure, kinetic_numbers, fast_momentum)),
    ),
    r"the difference is zero identically in all symbols, and where numbers are compared, at random points, it is below"
    r" $10^{-7}$ (flows and printed decimals: below their own error)",
)  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(PAGE, sys.argv[1:], "adaptive_slow_sde.tex"))
