"""Slow SDE of adaptive gradient methods near the manifold of minima, re-derived in the order of the poster that states it.

    python derivations/adaptive_slow_sde.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import frozen_preconditioner as numbers
import numpy as np
import sympy as sp
from adaptive_potentials import (
    adam_density,
    adam_limits,
    asymmetry_numbers,
    block_densities,
    joint_function,
    joint_minimum,
    joint_parts,
    known_potentials,
    loss_level,
    matrix_level,
    matrix_potentials,
    not_integrable,
    potential_of_blocks,
    power_density,
    silent_coordinate,
    stationary_density,
    target_correction,
    variance_correction,
)
from adaptive_settings import (
    ADAM,
    HALF,
    NOISE,
    PLANE,
    QUARTER,
    RESIDUAL,
    J,
    N,
    alpha,
    at_points,
    beta1,
    beta2,
    both,
    c,
    curve,
    d1,
    d2,
    d3,
    eps,
    eta,
    f,
    hh,
    k,
    on_curve,
    per_time,
    plane,
    surface,
    third,
    third_on_curve,
    v,
    valley,
    x,
    y,
    z,
)
from adaptive_slow_momentum import fast_momentum, kinetic_closure, kinetic_numbers, oscillation
from pages import Entry, Erratum, Form, Page, Section, equation, run, shown, within

import quasistatic as qs
from quasistatic.derivation.structure import at_late_times

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
        (Erratum("", r"With the old second moment, $S(v_k)$, it is another method.", lambda: form(1)),),
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
        r" and $\Psi$ of the first five rows from the rules, see (14) to (21); the rest is (28) and (29).",
        rf"\begin{{array}}{{llll}} {head} \\[0.4ex] \hline \rule{{0pt}}{{2.6ex}} {body} \end{{array}}",
        form,
        residual,
        (Erratum("", r"Adam's $\Psi$ is not SGD's, $\sum_i H_{ii}$.", lambda: form(sp.Integer(1))),),
        lambda: (
            rf"\text{{Adam: }} S = {shown(qs.derive(ADAM).preconditioner)}, \qquad"
            rf" \text{{AdamE: }} S = {shown(qs.derive(qs.zoo.adam_power).preconditioner)}"
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
        r"\Pi_S = \partial\Phi_S &= J\,(J\T S^{-1}J)^{-1}J\T S^{-1} = I - SN\,(N\T SN)^{-1}N\T \\ &= S^{1/2}\,\tilde P_\parallel\,S^{-1/2}"
        r" .",
        form,
        residual,
        (Erratum("", r"$S\tilde P_\parallel S^{-1}$ is none of these.", lambda: form(1.0)),),
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
                r"The orthogonal projection on the tangent space is that of SGD.",
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
        lambda stated: at_points(lambda p: both((numbers.projection(p) @ p.S, stated(p)), (p.S @ numbers.projection(p).T, stated(p)))),
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
        near = within(numbers.relative(flow, ambient), 0, 1e-4)  # second differences
        return [*(moved - stated(m["S"], N, m["K"], contracted)), near]

    return Entry(
        "4",
        r"A step $\sigma\,\dd W + b\,\dd t$ from $\zeta \in \Gamma$ moves the end of the flow by"
        r" $P_{\zeta,S}(\sigma\,\dd W + b\,\dd t) = \Phi_S(\zeta + \sigma\,\dd W + b\,\dd t) - \zeta ="
        r" \Pi_S(\sigma\,\dd W + b\,\dd t) + \frac12\partial^2\Phi_S[\sigma\sigma\T]\,\dd t$. For noise along $\Gamma$, and where $\Gamma$"
        r" is given by residuals $r = 0$ with $N = \nabla r$, the last term is normal in the metric $S^{-1}$:",
        r"\tfrac12\,\partial^2\Phi_S[\Sigma_\parallel] = -\tfrac12\,SN\,(N\T SN)^{-1}\bigl(\langle\nabla^2r_j,"
        r" \Sigma_\parallel\rangle\bigr)_j .",
        form,
        residual,
        (Erratum("", "With the other sign the point leaves the manifold.", lambda: form(HALF)),),
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
        (Erratum("", r"Without $-\Sigma_\parallel$ there is no solution.", lambda: form(False)),),
        lambda: rf"\text{{for label noise on the curve: }} \operatorname{{Var}}x = {shown(curve('label').frozen_variance[0, 0])}",
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
        r" \frac{\langle S^{1/2}\Sigma S^{1/2},\,\tilde v_i\tilde v_j\T\rangle}{\lambda_i + \lambda_j}\;\tilde v_i\tilde"
        r" v_j\T\Bigr]S^{1/2} .",
        form,
        lambda stated: [*at_points(lambda p: both((numbers.fluctuation(p), stated(p)))), *_law_kernel()],
        (Erratum("", r"The denominator is not the product of the eigenvalues.", lambda: form(True)),),
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
        r"\dd\zeta &= P_{\zeta,S}\bigl(\Sigma_\parallel^{1/2}(\zeta; S)\,\dd W_t - \tfrac12\,S\,\nabla^3L(\zeta)[\Sigma_\diamond(\zeta;"
        r" S)]\,"
        r"\dd t\bigr), \\ \dd v &= c\,\bigl(V(\Sigma(\zeta)) - v\bigr)\,\dd t .",
        form,
        residual,
        (
            Erratum(
                "E3",
                r"The poster prints $\Sigma^{1/2}(\zeta; S)$ in the diffusion. It is $\Sigma_\parallel^{1/2}$, which contains $S$: the"
                r" noise"
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
        r" $\Sigma_\diamond = S^{1/2}\tilde XS^{1/2}$ and $\nabla^3\tilde L[\tilde X] = S^{1/2}\nabla^3L[\Sigma_\diamond]$. (iv) $v$ moves"
        r" by"
        r" $O(\eta^2)$ a step, so that $\dot S$ adds nothing.",
        r"\tilde H\tilde X + \tilde X\tilde H = \tilde\Sigma - \tilde P_\parallel\tilde\Sigma\tilde P_\parallel .",
        form,
        residual,
        (Erratum("", r"With $S\Sigma S$ for $\tilde\Sigma$ the noise would be scaled twice.", lambda: form(1.0)),),
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
        r"In a chart $\zeta(u)$, $\dd u^a = a^a\,\dd t + B^a{}_\mu\,\dd W^\mu$ with $BB\T = D$. Only the Hessian on $\Gamma$ is needed,"
        r" because"
        r" $\partial_d\zeta\cdot\nabla^3L[X] = \langle\partial_dH, X\rangle$ for a frozen $X$; the It\^o term is that of $\zeta(u)$, with"
        r" the"
        r" Christoffel symbols of $G$ at frozen $S$.",
        r"& D = G^{-1}J\T\,\Sigma\,J\,G^{-1}, \qquad \boxed{a^e = -\tfrac12 G^{ed}\omega_d - \tfrac12\Gamma^e_{ab}D^{ab}}, \\"
        r"& \omega_d = \langle\partial_{u^d}H(\zeta(u)), \Sigma_\diamond\rangle, \qquad"
        r" \Gamma^e_{ab} = G^{ed}\,(\partial_d\zeta)\T S^{-1}\,\partial_a\partial_b\zeta .",
        form,
        residual,
        (
            Erratum("", r"The drift without the Christoffel term.", lambda: form(christoffel=0)),
            Erratum("", r"The drift without the part of $\Sigma_\diamond$ that mixes normal and tangent.", lambda: form(cross=0)),
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
        (Erratum("", r"$C$ cannot be left out where noise across and along $\Gamma$ is correlated.", lambda: form(0.0)),),
    )


def ito_example() -> Entry:
    """Numbers of the curve on which every term counts."""

    def residual(stated: Form) -> list[float]:
        slow = curve()
        there = slow.subs({f: lambda s: s**2 / 2, k: lambda s: 1 + s**2 / 4})
        factor = {d1: sp.sqrt(HALF), d2: sp.Rational(3, 10) / sp.sqrt(HALF), d3: sp.sqrt(sp.Rational(8, 10) - sp.Rational(9, 50))}
        numbers_at = {x: 1, eta: 1, slow.scales[0]: 1, slow.scales[1]: sp.Rational(2, 5), **factor}
        terms = there.frozen_terms
        lyapunov, ito, D = (
            e[0].subs(numbers_at).evalf() for e in (terms.flatness + terms.correlation, terms.ito, there._engine.diffusion())
        )
        return [within(float(a), b, 5.1e-5) for a, b in zip((lyapunov, ito, D), stated, strict=True)]

    return Entry(
        "after 10",
        r"\emph{Example.} $L = \frac12(1 + \frac{x^2}4)^2(y - \frac{x^2}2)^2$, $S = \operatorname{diag}(1, .4)$ and"
        r" $\Sigma = \bigl(\begin{smallmatrix} .5 & .3 \\ .3 & .8 \end{smallmatrix}\bigr)$. At $u = x = 1$ the two parts of the drift and"
        r" the"
        r" diffusion are",
        r"-\tfrac12G^{-1}\omega = -.0651, \qquad -\tfrac12\Gamma D = -.0554, \qquad D = .1551 .",
        lambda: (-0.0651, -0.0554, 0.1551),
        residual,
        (Erratum("", r"The It\^o term with the other sign.", lambda: (-0.0651, 0.0554, 0.1551)),),
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
        r"The stationary excess of the loss is $\frac\eta2\mu$, and the drift of (7) is a semi-gradient: $-\frac12$ times the gradient, in"
        r" the"
        r" metric $S^{-1}$, of $\langle H(\zeta), \bar X\rangle$ with $\bar X = \Sigma_\diamond$ held fixed.",
        r"\mu(\zeta, v) = \langle H, \Sigma_\diamond\rangle = \tfrac12\bigl[\tr(S\Sigma) - \tr(S^{-1}\Sigma_\parallel)\bigr] .",
        form,
        residual,
        (Erratum("", r"The full gradient of $\mu$, with the change of $\Sigma_\diamond$, is not the drift.", lambda: form(False)),),
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
                r"$\frac\alpha2S$ may stand for $\Sigma_\diamond$ inside the tangential drift, where the rest drops out, but only there;"
                r" as a"
                r" covariance it is wrong.",
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
                r"The poster has the prefactor $\frac\alpha2$, inconsistent with its own ODE of SGD, (14), where $S = I$; simulations"
                r" exclude"
                r" it by hundreds of standard errors.",
                lambda: form(HALF),
            ),
            Erratum(
                "E2",
                r"The poster prints $S\,P_{\parallel,S}\,S\,\nabla^3L[S]$. With a projection for $P_{\parallel,S}$ that is of third order"
                r" in"
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
        slow = qs.derive(qs.zoo.ema_momentum, qs.zoo.paraboloid(qs.HessianNoise(alpha))).leading("eta")
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
        r"\emph{Example.} For the valley $L = y'^2\,h(x')$, rotated by $\theta$, with $u = x'$: $\dot u = -\frac\alpha2h'(u)\,S_1S_2$,"
        r" $\dot v_1"
        r" = c\,(2\alpha h\sin^2\theta - v_1)$, $\dot v_2 = c\,(2\alpha h\cos^2\theta - v_2)$. With $v$ at rest and $\alpha ="
        r" \sigma_0^2/2$ this"
        r" contains, for $\theta = 0$ (and $\epsilon_0 \ll \sigma_0\sqrt h$) and $\theta = \pi/4$ ($\epsilon_0 = 0$), equations (50) and"
        r" (55) of"
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


PAGE = Page(
    "The slow SDE of adaptive gradient methods\\\\[0.5ex] near a manifold of minima",
    r"This page follows the poster \emph{Adam reduces a unique form of sharpness: theoretical insights near the minimizer manifold}, which"
    r" states the slow SDE for a class of adaptive gradient methods without definitions of its matrices; they are reconstructed here, and"
    r" the"
    r" equations are numbered as they come. Some results on it, on the implicit regularizers and on a slow momentum, which the poster does"
    r" not have, are included. A remark E says what is misprinted in the poster (E1 to E4) or in the section on Adam of \emph{A quasistatic"
    r" derivation of optimization algorithms' exploration on the minima manifold} (E5, E6); after ``Not so'' stands a form that nobody"
    r" published,"
    r" and that the check rejects. $H$ is the true Hessian, $\Sigma$ the covariance"
    r" of one step's gradient, $t = k\eta^2$.",
    (
        Section("A class of methods", "", (framework, member_table)),
        Section(
            "The slow SDE",
            r"The library's side of a comparison is its result for Adam with $S$ frozen, $S = \operatorname{diag}(S_x, S_y)$ free, on a"
            r" curve"
            r" $y = f(x)$ with the loss $\frac12k(x)^2(y - f(x))^2$, unknown functions $f$ and $k$, and noise $CC\T$, $C$ lower triangular"
            r" with"
            r" the free entries $d_1, d_2, d_3$. Identities between matrices were checked at random points in $\mathbb R^5$, $k = 2$, with"
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
