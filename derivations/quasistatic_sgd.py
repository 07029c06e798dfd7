"""Equations (1) to (14) of the quasistatic paper, re-derived in order: SGD, flat and curved manifolds of minima.

    python derivations/quasistatic_sgd.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.
"""

from __future__ import annotations

import sys
from functools import cache

import sympy as sp
from pages import Entry, Erratum, Form, Page, Section, block, differences, equation, force, run, sde

import quasistatic as qs
from quasistatic.show.typeset import tex

# -- settings ----------------------------------------------------------------------------------------------------------

x, y, w = qs.symbols("x y w")
h = qs.function("h", positive=True)
sigma = qs.symbols("sigma", positive=True)
eta = qs.zoo.sgd.hyperparameters["eta"]

# flat manifold y = 0 in R^4, k = 2: H = L L^T with unknown functions, noise factors with unknown entries
x1, x2, y1, y2 = qs.symbols("x1 x2 y1 y2")
p, q, r = qs.function("p", positive=True)(x1), qs.function("q")(x2), qs.function("r", positive=True)(x2)
X, Y = (x1, x2), sp.Matrix([y1, y2])
H = sp.Matrix([[p, 0], [q, r]]) * sp.Matrix([[p, 0], [q, r]]).T
a1, a2, a3, d1, d2, d3 = qs.symbols("a1 a2 a3 d1 d2 d3")
D11, D22 = sp.Matrix([[a1, 0], [a2, a3]]), sp.Matrix([[d1, 0], [d2, d3]])
Q = D22 * D22.T


@cache
def valley(noise: str = "hessian") -> qs.SlowDynamics:
    """The paper's example h(x) y^2 as an SDE; noise "hessian" (variance sigma^2 h), "normal" or "isotropic"."""
    models = {
        "hessian": qs.HessianNoise(sigma**2 / 2),
        "normal": qs.IsotropicNoise(sigma, normal_only=True),
        "isotropic": qs.IsotropicNoise(sigma),
    }
    return qs.derive(qs.zoo.sgd, qs.zoo.valley(h, models[noise]), time="continuous")


@cache
def flat(noise: str = "general") -> qs.SlowDynamics:
    """SGD on y^T H(x) y as an SDE; noise "general" (D11, D22), "hessian" (sigma^2 H) or "normal" (sigma^2 across)."""
    models = {
        "general": qs.CovarianceNoise(sp.diag(D11 * D11.T, Q)),
        "hessian": qs.HessianNoise(sigma**2 / 2),
        "normal": qs.IsotropicNoise(sigma, normal_only=True),
    }
    problem = qs.Problem(sp.expand((Y.T * H * Y)[0]), {y1: 0, y2: 0}, models[noise], parameters=(x1, x2, y1, y2))
    return qs.derive(qs.zoo.sgd, problem, time="continuous")


def normal_variance(slow: qs.SlowDynamics) -> sp.Matrix:
    """V, the equilibrium covariance of y on the flat manifold."""
    return block(slow.variance, (2, 3), (2, 3))


@cache
def curve() -> qs.SlowDynamics:
    """SGD on a space curve with general noise in the normal space and none along it."""
    problem = qs.zoo.curved_valley()
    normals = sp.Matrix([[-2 * x, 1, 0], [-y / 2, -x / 2, 1]]).T
    return qs.derive(qs.zoo.sgd, problem.with_noise(qs.CovarianceNoise(normals * Q * normals.T)), time="continuous")


@cache
def twisted() -> qs.SlowDynamics:
    """Minima on the x axis of R^3, half-Hessian eigenvectors that rotate with x, general noise."""
    problem = qs.Problem((Y.T * twisted_hessian() * Y)[0], {y1: 0, y2: 0}, qs.CovarianceNoise(sp.diag(0, Q)), parameters=(x, y1, y2))
    return qs.derive(qs.zoo.sgd, problem, time="continuous")


def rotation() -> sp.Matrix:
    """Rotation by x."""
    return sp.Matrix([[sp.cos(x), -sp.sin(x)], [sp.sin(x), sp.cos(x)]])


def eigenvalues() -> sp.Matrix:
    """Eigenvalues of the twisted half-Hessian."""
    return sp.diag(2 + x**2, 1 + x**4)


def twisted_hessian() -> sp.Matrix:
    """R diag R^T."""
    return rotation() * eigenvalues() * rotation().T


@cache
def circle(cross: bool) -> qs.SlowDynamics:
    """SGD on the unit circle, half-Hessian 2 + x, noise along it of size b and, where ``cross``, correlated with the normal."""
    s, b, c = qs.symbols("s b c")
    n, t = sp.Matrix([x, y]), sp.Matrix([-y, x])
    C = sp.Matrix.hstack(sigma * n + (c * t if cross else sp.zeros(2, 1)), b * t)
    problem = qs.Problem((2 + x) * (x**2 + y**2 - 1) ** 2 / 4, {x: sp.cos(s), y: sp.sin(s)}, qs.CovarianceNoise(C * C.T), parameters=(x, y))
    return qs.derive(qs.zoo.sgd, problem, time="continuous")


# -- introduction ------------------------------------------------------------------------------------------------------


def equation_1() -> Entry:
    """SGD as an SDE."""

    def residual(form: Form) -> list[sp.Expr]:
        problem = qs.Problem(h(x) * y**2, {y: 0}, qs.CovarianceNoise(sp.diag(d1**2, d2**2)), parameters=(x, y))
        return differences(sde(qs.derive(qs.zoo.sgd, problem, time="continuous")), form)

    gradient, D = sp.Matrix([h(x).diff(x) * y**2, 2 * h(x) * y]), sp.diag(d1, d2)
    return Entry(
        "1",
        r"SGD is $z_{k+1} = z_k - \eta\,(\nabla f(z_k) + D\xi_k)$. In the time $t = k\eta$, under the scaling $\eta = e^2$, $e \to 0$, its"
        " leading order is",
        r"\dd z_t = -\nabla f(z_t)\,\dd t + \sqrt{\eta}\, D(z_t)\,\dd W_t .",
        lambda: (-gradient, eta * D * D.T),
        residual,
        (
            Erratum(
                "E7",
                r"Where the text reads $\sqrt{\eta D}$, it is $\sqrt{\eta}\,D$ that is meant: the noise has the covariance $\eta D D\T$"
                r" per unit of time, not $\eta D$.",
                lambda: (-gradient, eta * D),
            ),
        ),
    )


def system_of_the_example() -> Entry:
    """The two-dimensional example."""
    dh, valley_noise = h(x).diff(x), sigma**2 * h(x)

    def form(sign: int = -1, noise: sp.Expr = valley_noise) -> Form:
        return sp.Matrix([-dh * y**2, sign * 2 * h(x) * y]), sp.diag(0, eta * noise)

    return Entry(
        "after 1",
        r"Let $f(x, y) = h(x)\,y^2$ with $h > 0$, and let the noise be like the Hessian,"
        r" $D^2 = \tfrac{\sigma^2}{2}\nabla^2 f(x, 0) = \operatorname{diag}(0, \sigma^2 h(x))$. Then",
        r"\dd x_t = -h'(x_t)\,y_t^2\,\dd t, \qquad \dd y_t = -2h(x_t)\,y_t\,\dd t + \sigma\sqrt{\eta\,h(x_t)}\,\dd W_t .",
        form,
        lambda f: differences(sde(valley()), f),
        (
            Erratum("E1", r"The paper prints $+2h(x_t)y_t\,\dd t$; a step against the gradient has the minus.", lambda: form(+1)),
            Erratum(
                "E2",
                r"Three normalisations of the noise appear: $\tfrac{\sigma^2}{2}\nabla^2 f$, $\sigma^2 H$ and, at the end of section 2.1,"
                r" $\sigma^2 H/2$. The first two are one, because $H$ is half of the Hessian; the third has half of the covariance.",
                lambda: form(noise=sigma**2 * h(x) / 2),
            ),
            Erratum(
                "E7",
                r"The noise coefficient is $\sigma\sqrt{\eta h}$, not $\sigma\eta h$.",
                lambda: form(noise=eta * sigma**2 * h(x) ** 2),
            ),
        ),
    )


def equation_2() -> Entry:
    """Quasistatic dynamics of the example: y at equilibrium for a frozen x."""

    def residual(rate: Form) -> list[sp.Expr]:
        slow = valley()
        moving, V = slow.averaged_map, slow.variance[1, 1]
        drift = moving.second(sp.Matrix(slow.variance)) / 2 / moving.dt
        balance = 2 * rate * V + eta * sigma**2 * h(x)  # d Var/dtau at equilibrium
        return [moving.J[1, 1] / moving.dt - rate, balance, drift[0] + h(x).diff(x) * V]

    return Entry(
        "2",
        "Near the minima $y$ moves much faster than $x$. With $y$ at its equilibrium for the present $x_t$,",
        r"\dd x_t = -\lim_{\tau\to\infty}\E\bigl[h'(x_t)\,y_\tau^2\bigr]\,\dd t, \qquad"
        r" \dd y_\tau = -2h(x_t)\,y_\tau\,\dd\tau + \sigma\sqrt{\eta\,h(x_t)}\,\dd W_\tau .",
        lambda: -2 * h(x),
        residual,
        (Erratum("E1", "With the printed sign, $+2h$, the fast process has no equilibrium.", lambda: 2 * h(x)),),
    )


def slow_dynamics_of_the_example() -> Entry:
    """The result of the introduction."""

    def form(strength: sp.Expr) -> Form:
        return eta * strength / 4, -eta * strength / 4 * h(x).diff(x)

    return Entry(
        "after 2",
        r"The Ornstein--Uhlenbeck process (2) has the equilibrium $y_\infty \sim N(0, \eta\sigma^2/4)$, whatever $h$, so that",
        r"\frac{\dd x_t}{\dd t} = -\frac{\eta\sigma^2}{4}\,h'(x_t) .",
        lambda: form(sigma**2),
        lambda f: differences((valley().variance[1, 1], valley().drift[0]), f),
        (Erratum("E2", r"A noise covariance $\sigma^2H/2$ would give $\eta\sigma^2/8$.", lambda: form(sigma**2 / 2)),),
        lambda: r", \qquad ".join(
            equation(left, found)
            for left, found in ((r"\operatorname{Var} y", valley().variance[1, 1]), (r"\frac{\dd x}{\dd t}", valley().drift[0]))
        ),
    )


# -- flat manifold -----------------------------------------------------------------------------------------------------


def equation_3() -> Entry:
    """The loss near its minima: H is half of the Hessian."""

    def residual(stated: Form) -> list[sp.Expr]:
        problem = flat().problem
        return [*differences([problem.hessian], [stated]), *(problem.hessian * problem.chart.tangent)]

    return Entry(
        "3",
        r"Let $Pz$ be the point of the manifold $\cM$ of minima that is closest to $z$, and let $H \succeq 0$ with"
        r" $\ker H(z) = T_z\cM$. The loss is",
        r"f(z) = (z - Pz)\T H(Pz)\,(z - Pz), \qquad \nabla^2 f = 2H \quad\text{on } \cM .",
        lambda: 2 * sp.diag(sp.zeros(2), H),
        residual,
        (
            Erratum(
                "E3",
                r"The paper says that $H$ gives the Hessian of the loss; it is half of it, and (8), (9), (13) and (39) are right for the"
                r" half. With the true Hessian $\mathcal H = 2H$, (8) reads $\mathcal HV + V\mathcal H = \eta Q$ and (9) has the drift"
                r" $-\frac12\sum V_{ij}\nabla\mathcal H_{ij}$. The library takes the true Hessian everywhere.",
                lambda: sp.diag(sp.zeros(2), H),
            ),
        ),
    )


def equation_4() -> Entry:
    """The SDE with the noise of the projected point."""
    gradient = sp.Matrix([*(sp.diff((Y.T * H * Y)[0], c) for c in X), *(2 * H * Y)])
    return Entry(
        "4",
        r"With $D D\T$ the covariance of the gradient at the projected point,",
        r"\dd z_t = -\nabla f(z_t)\,\dd t + \sqrt{\eta}\,D(Pz_t)\,\dd W_t .",
        lambda: (-gradient, eta * sp.diag(D11 * D11.T, Q)),
        lambda form: differences(sde(flat()), form),
        (Erratum("E7", r"Again $\sqrt{\eta}\,D$, not $\sqrt{\eta D}$.", lambda: (-gradient, eta * sp.diag(D11, D22))),),
    )


def equation_5() -> Entry:
    """The loss in coordinates along and across a flat manifold."""

    def residual(stated: Form) -> list[sp.Expr]:
        problem = flat().problem
        away = sp.Matrix(problem.parameters) - problem.chart.restrict(sp.Matrix(problem.parameters))
        return [(away.T * sp.Matrix(problem.hessian) / 2 * away)[0] - stated]

    return Entry(
        "5",
        r"On a flat manifold $\cM = \{y = 0\}$, $z = (x, y)$, $x \in \mathbb R^k$, $y \in \mathbb R^{d-k}$, the kernel leaves"
        r" $H = \operatorname{diag}(0, \tH(x))$, and (3) becomes",
        r"f(x, y) = y\T\tH(x)\,y .",
        lambda: (Y.T * H * Y)[0],
        residual,
        (Erratum("E3", r"With the true Hessian in place of $\tH$ the loss would be twice as large.", lambda: 2 * (Y.T * H * Y)[0]),),
    )


def equation_6() -> Entry:
    """The SDE in these coordinates."""

    def form(factor: int = 2) -> Form:
        bend = [-(Y.T * H.diff(c) * Y)[0] for c in X]
        return sp.Matrix([*bend, *(-factor * H * Y)]), eta * sp.diag(D11 * D11.T, Q)

    return Entry(
        "6",
        r"With $\D{12} = 0 = \D{21}$, (4) becomes",
        r"\dd x_t &= -y_t\T\,\partial_x\tH(x_t)\,y_t\,\dd t + \sqrt{\eta}\,\D{11}(x_t)\,\dd W^{(1)}_t, \\"
        r"\dd y_t &= -2\tH(x_t)\,y_t\,\dd t + \sqrt{\eta}\,\D{22}(x_t)\,\dd W^{(2)}_t .",
        form,
        lambda f: differences(sde(flat()), f),
        (Erratum("E3", r"Read with the true Hessian, the factor 2 in the second line would be counted twice.", lambda: form(4)),),
    )


def equation_7() -> Entry:
    """Quasistatic dynamics: y at equilibrium."""
    V = sp.Matrix(2, 2, sp.symbols("V11 V12 V12 V22", real=True))

    def residual(form: Form) -> list[sp.Expr]:
        moving = flat().averaged_map
        drift = moving.second(sp.diag(sp.zeros(2), V)) / 2 / moving.dt
        return differences((block(moving.J, (2, 3), (2, 3)) / moving.dt, block(drift, (0, 1), (0,))), form)

    return Entry(
        "7",
        r"The drift of $x$ is quadratic in the small $y$, that of $y$ linear: $y$ is faster. With $y$ at its equilibrium,",
        r"\dd x_t &= -\lim_{\tau\to\infty}\E\bigl[y_\tau\T\,\partial_x\tH(x_t)\,y_\tau\bigr]\,\dd t"
        r" + \sqrt{\eta}\,\D{11}(x_t)\,\dd W^{(1)}_t, \\"
        r"\dd y_\tau &= -2\tH(x_t)\,y_\tau\,\dd\tau + \sqrt{\eta}\,\D{22}(x_t)\,\dd W^{(2)}_\tau .",
        lambda: (-2 * H, -force(V, H, X)),
        residual,
        (
            Erratum(
                "E6",
                r"The paper has $y_t\,\dd t$ in the second line. Both indices are $\tau$: with $y_t$ frozen the equation would not be"
                r" linear in $y_\tau$, and its solution no equilibrium.",
                lambda: (sp.zeros(2), -force(V, H, X)),
            ),
        ),
    )


def equation_8() -> Entry:
    """The Lyapunov equation of the equilibrium."""

    def form(H_: sp.Matrix, V: sp.Matrix, scale: int = 1) -> sp.Matrix:
        return scale * (H_ * V + V * H_) - eta / 2 * Q

    def residual(stated: Form) -> list[sp.Expr]:
        left, right = qs.derive(qs.zoo.sgd, time="continuous").matrix_coefficients  # any loss: true Hessian, so eta and not eta/2
        law = [left[1, 0] - 1, left[0, 1] - 1, sp.Integer(len(left) - 2), right[0, 0] - eta]
        return [*stated(H, normal_variance(flat())), *law]

    return Entry(
        "8",
        r"For a frozen $x_t$ the equation of $y_\tau$ is linear. In equilibrium $\E\,y = 0$ and $\E\,y y\T = V_t$, with",
        r"\tH(x_t)\,V_t + V_t\,\tH(x_t) = \frac{\eta}{2}\,\D{22}(x_t)\,\D{22}(x_t)\T .",
        lambda: form,
        residual,
        (Erratum("E3", r"With the true Hessian the right-hand side is $\eta\D{22}\D{22}\T$.", lambda: lambda A, V: form(A, V, 2)),),
    )


def equation_9() -> Entry:
    """The slow dynamics on a flat manifold."""

    def form(rows: int = 2) -> Form:
        V = normal_variance(flat())
        return -force(V[:rows, :rows], H[:rows, :rows], X), eta * D11 * D11.T

    return Entry(
        "9",
        r"Inserting these moments in the first line of (7) gives the slow dynamics",
        r"\dd x_t = -\sum_{i,j=1}^{d-k} (V_t)_{ij}\,\nabla_x\tH_{ij}(x_t)\,\dd t + \sqrt{\eta}\,\D{11}(x_t)\,\dd W^{(1)}_t .",
        form,
        lambda f: differences((flat().drift, flat().diffusion), f),
        (
            Erratum(
                "E5",
                r"The paper sums to $n - k$ here and in (11), (12) and (17), with an $n$ that is not introduced; the normal space has"
                r" $d - k$ dimensions. A sum over fewer is rejected.",
                lambda: form(1),
            ),
            Erratum(
                "E6",
                r"Before (9) the paper speaks of the ``$u$-dynamics''; it is that of $x$. Put into the equation of $y$ at rest, whose"
                r" drift is linear, the moments give no drift at all.",
                lambda: (sp.zeros(2, 1), eta * D11 * D11.T),
            ),
        ),
    )


# -- general manifold --------------------------------------------------------------------------------------------------


def parallel_hessian() -> sp.Matrix:
    """Half-Hessian of the space curve's loss in normal vectors parallel at the origin, to first order in x."""
    n1, n2 = sp.Matrix([1, 0]), sp.Matrix([-x / 2, 1])
    return ((1 + x**2) * n1 * n1.T + (2 + x) * n2 * n2.T) / 2


def at_origin(expression: sp.Expr) -> sp.Expr:
    """The value at z_0 = 0."""
    return sp.sympify(expression, strict=True).subs({x: 0, y: 0, w: 0})


def equation_10() -> Entry:
    """The companion loss on the tangent space."""

    def companion(hessian: sp.Matrix) -> sp.Expr:
        n = sp.Matrix([y, w])
        return sp.expand((n.T * hessian * n)[0])

    def residual(stated: Form) -> list[sp.Expr]:
        gap = curve().problem.loss - stated
        pairs = [(y, y), (y, w), (w, w)]
        return [at_origin(sp.diff(gap, *pair, *more)) for pair in pairs for more in ((), (x,))]

    return Entry(
        "10",
        r"A curved $\cM$ is compared with its tangent space at $z_0$, which the projection $P_{z_0}$ maps it to one to one. The companion"
        r" loss $\hat f(z) = y\T\tH(P_{z_0}^{-1}x)\,y$ has a flat manifold of minima and agrees with $f$ in all that enters the slow"
        r" dynamics at $z_0$: $\partial_y^2 f$ and $\partial_x\partial_y^2 f$. Its SDE is",
        r"\dd z_t = -\nabla\hat f(z_t)\,\dd t + \sqrt{\eta}\,D(P_{z_0}^{-1}P_{z_0}z_t)\,\dd W_t .",
        lambda: companion(parallel_hessian()),
        residual,
        (
            Erratum(
                "E8",
                r"$\tH$ is expressed in orthonormal frames of the normal spaces that differ from the one at $z_0$ by $O(\|z - z_0\|)$, as"
                r" the circle shows, and not by $O(\|z - z_0\|^2)$ as the paper says. The first order matters: the frame must be parallel"
                r" in the normal bundle. In one that turns with $x$, $\partial_x\partial_y^2 f$ comes out wrong.",
                lambda: companion(rotation().T * parallel_hessian() * rotation()),
            ),
        ),
    )


def equation_11() -> Entry:
    """The slow dynamics of the companion, at z_0, is that of the curved manifold."""

    def form(hessian: sp.Matrix, terms: int = 2) -> sp.Expr:
        V = block(curve().variance, (1, 2), (1, 2)).applyfunc(at_origin)
        return -at_origin(force(V[:terms, :terms], hessian[:terms, :terms], [x])[0])

    return Entry(
        "11",
        r"The flat case, applied to the companion, gives",
        r"\dd x_t = -\sum_{i,j=1}^{d-k}(V_t)_{ij}\,\nabla_x\tH_{ij}(P_{z_0}^{-1}x_t)\,\dd t"
        r" + \sqrt{\eta}\,\D{11}(P_{z_0}^{-1}x_t)\,\dd W^{(1)}_t .",
        lambda: form(parallel_hessian()),
        lambda f: [at_origin(curve().drift[0]) - f],
        (
            Erratum("E5", "A sum over fewer than $d - k$ directions is rejected here too.", lambda: form(parallel_hessian(), 1)),
            Erratum("E8", "And so is a frame that is not parallel.", lambda: form(rotation().T * parallel_hessian() * rotation())),
        ),
    )


def equation_12() -> Entry:
    """The slow dynamics on a general manifold, in a frame of the normal spaces."""

    def residual(frame: Form) -> list[sp.Expr]:
        slow, still = twisted(), sp.Dummy("x_0", real=True)
        V = block(slow.variance, (1, 2), (1, 2))
        here = frame.subs(x, still) if frame.free_symbols else frame
        change = (frame.T * twisted_hessian() * frame).diff(x)  # gradient of the components; those of V are at the point itself
        return [slow.drift[0] + ((here.T * V * here).subs(still, x) * change).trace()]

    return Entry(
        "12",
        r"Here $V_t$ comes from (8). At $x = x_0$ the gradient in the tangent space is the one on the manifold; as $z_0$ was any point,",
        r"\dd z = -\sum_{i,j=1}^{d-k} V_{ij}\,\nabla_{\!\cM}\tH_{ij}(z)\,\dd t + \sqrt{\eta}\,\D{11}(z)\,\dd W^{(1)}_t .",
        lambda: sp.eye(2),
        residual,
        (
            Erratum(
                "E8",
                r"The components $\tH_{ij}$ must be those in a parallel frame. In a frame that turns at the rate $\Omega$ the sum changes"
                r" by $\tr(\Omega[V, \tH])$, which vanishes only where $V$ and $\tH$ commute. In the frame of eigenvectors of a"
                r" half-Hessian that turns along the manifold, with any noise, (12) is rejected.",
                rotation,
            ),
        ),
    )


def invariant_form() -> Entry:
    """The same without a frame."""

    def form(factor: sp.Expr) -> sp.Expr:
        problem, V = curve().problem, curve().variance
        z = problem.parameters
        pairs = [(i, j) for i in range(3) for j in range(3)]
        third = sp.Matrix([sum(sp.diff(problem.loss, a, z[i], z[j]) * V[i, j] for i, j in pairs) for a in z])
        t = problem.chart.tangent
        return -factor * (t.T * problem.chart.restrict(third))[0] / (t.T * t)[0]

    return Entry(
        "after 12",
        r"Without any frame, for every loss, and with $V$ supported on the normal space, (12) is"
        r" $\frac12(\nabla^2 f\,V + V\,\nabla^2 f) = \frac{\eta}{2}\,Q$ and",
        r"P_T\,\dot z = -\tfrac12\,P_T\,\nabla^3 f(z)[V], \qquad (\nabla^3 f[V])_a = \sum_{b,c}\partial_{abc}f\;V_{bc} .",
        lambda: form(sp.Rational(1, 2)),
        lambda f: [curve().drift[0] - f],
        (Erratum("E3", r"Reading $H$ as the Hessian itself loses the factor $\frac12$.", lambda: form(sp.Integer(1))),),
    )


def tangent_noise() -> Entry:
    """Noise along a curved manifold: the Ito term of the point in R^d."""

    def residual(radial: Form) -> list[sp.Expr]:
        slow = circle(False)
        (s,), phi = slow.coordinates, sp.Matrix(slow.problem.chart.embedding)
        moved = phi.diff(s) * slow.drift[0] + phi.diff(s, 2) * slow.diffusion[0] / 2
        return [(phi.T * moved)[0] - radial]

    b = qs.symbols("b")
    return Entry(
        "after 12",
        r"On a curved manifold (12) is right in coordinates. As an It\^o equation for the point $z \in \mathbb R^d$ it needs the second"
        r" fundamental form besides; on the unit circle, with noise of size $b$ along it,",
        r"\dd z = (\ldots) + \tfrac{\eta}{2}\,\mathrm{II}(\D{11}\D{11}\T)\,\dd t, \qquad z\cdot\tfrac{\eta}{2}\mathrm{II} ="
        r" -\tfrac{\eta}{2}\,b^2 .",
        lambda: -eta * b**2 / 2,
        residual,
        (Erratum("E9(i)", "Without it the normal drift is zero, and the solution leaves the manifold.", lambda: sp.Integer(0)),),
    )


def cross_noise() -> Entry:
    """Noise across a curved manifold that is correlated with noise along it."""
    c = qs.symbols("c")

    def form(cross: int) -> sp.Expr:
        slow = circle(True)
        (s,) = slow.coordinates
        g, correlation = 2 + sp.cos(s), sigma * c  # half-Hessian along the normal, whose derivative is the tangent
        third = 2 * g  # of f, along tangent, normal and tangent
        return -eta * sigma**2 / (4 * g) * sp.diff(g, s) - cross * eta * third * correlation / (2 * g)

    return Entry(
        "after 12",
        r"Where $\D{12} \ne 0$, a curved manifold has one more drift along it, with $Q_{NT}$ the covariance of normal and tangential"
        r" noise and $\dagger$ the pseudo-inverse; on the circle, whose normal turns, it is $-\eta\,Q_{NT}$:",
        r"P_T\,\dot z = -\tfrac12\,P_T\nabla^3 f[V] - \eta\,P_T\,\nabla^3 f\bigl[(\nabla^2 f)^\dagger Q_{NT}\bigr] .",
        lambda: form(1),
        lambda f: [circle(True).drift[0] - f],
        (
            Erratum(
                "E9(ii)",
                r"(12) as printed lacks this term; the paper excludes $\D{12}$ on flat manifolds, where it is zero.",
                lambda: form(0),
            ),
        ),
    )


def equation_13() -> Entry:
    """Noise like the Hessian."""

    def form(V: sp.Matrix, potential: sp.Expr) -> Form:
        return V, -sp.Matrix([potential.diff(c) for c in X])

    weight = eta * sigma**2 / 4
    return Entry(
        "13",
        r"\emph{Noise like the Hessian}, $D^2 = \sigma^2 H$, that is $\D{22} = \sigma\tH^{1/2}$, $\D{11} = 0$: then (8) gives"
        r" $V = \tfrac{\eta\sigma^2}{4}I$, and SGD descends the trace of $H$,",
        r"\dot z = -\frac{\eta\sigma^2}{4}\,\nabla_{\!\cM}\tr H(z) .",
        lambda: form(weight * sp.eye(2), weight * H.trace()),
        lambda f: differences((normal_variance(flat("hessian")), flat("hessian").drift), f),
        (
            Erratum("E2", r"For $D^2 = \sigma^2H/2$ all is half of this.", lambda: form(weight / 2 * sp.eye(2), weight / 2 * H.trace())),
            Erratum(
                "E3",
                r"With the true Hessian $\mathcal H$ and the covariance $\sigma'^2\mathcal H$, $V = \frac{\eta\sigma'^2}{2}I$, and the"
                r" drift reads as before, $-\frac{\eta\sigma'^2}{4}\nabla\tr\mathcal H$. Only the two conventions mixed are wrong:"
                r" $\sigma$ for $H$ with the trace of $\mathcal H$.",
                lambda: form(weight * sp.eye(2), weight * 2 * H.trace()),
            ),
            Erratum(
                "E4",
                r"The paper prints $\D{22} = \sigma\tH$; it is the square root. $\sigma\tH$ would give $V = \frac{\eta\sigma^2}{4}\tH$ and"
                r" the drift $-\frac{\eta\sigma^2}{8}\nabla\tr\tH^2$.",
                lambda: form(weight * H, weight / 2 * (H**2).trace()),
            ),
        ),
        lambda: rf"\Psi = {tex(valley().regularizer())}, \qquad \dot x = -\Psi'(x) \quad\text{{for}}\quad f = h(x)\,y^2",
    )


def equation_14() -> Entry:
    """Isotropic noise across the minima."""
    weight = eta * sigma**2 / 4
    determinant = H[0, 0] * H[1, 1] - H[0, 1] ** 2
    inverse = sp.Matrix([[H[1, 1], -H[0, 1]], [-H[0, 1], H[0, 0]]]) / determinant

    def form(scale: sp.Expr, drift_scale: sp.Expr = sp.Integer(1)) -> Form:
        return scale * weight * inverse, -drift_scale * weight * sp.Matrix([determinant.diff(c) / determinant for c in X])

    return Entry(
        "14",
        r"\emph{Isotropic noise across the minima}, $\D{22} = \sigma I$, $\D{11} = 0$: then $V = \tfrac{\eta\sigma^2}{4}\tH^{-1}$, and SGD"
        r" descends the logarithm of the determinant,",
        r"\dot z = -\frac{\eta\sigma^2}{4}\,\nabla_{\!\cM}\tr\log\tH(z) = -\frac{\eta\sigma^2}{4}\,\nabla_{\!\cM}\log\det\tH(z) .",
        lambda: form(sp.Integer(1)),
        lambda f: differences((normal_variance(flat("normal")), flat("normal").drift), f),
        (
            Erratum(
                "E3",
                r"The drift reads the same for the true Hessian, $V$ does not: it is $\frac{\eta\sigma^2}{2}\mathcal H^{-1}$, and"
                r" $\frac{\eta\sigma^2}{4}\mathcal H^{-1}$ is rejected.",
                lambda: form(sp.Rational(1, 2)),
            ),
        ),
        lambda: rf"\Psi = {tex(valley('normal').regularizer())}, \qquad \dot x = -\Psi'(x) \quad\text{{for}}\quad f = h(x)\,y^2",
    )


def figure_1() -> Entry:
    """What figure 1 needs: no noise along the minima, and a small learning rate."""

    def residual(form: Form) -> list[sp.Expr]:
        exact = qs.derive(qs.zoo.sgd, valley().problem)
        found = differences((exact.variance[1, 1], valley("isotropic").diffusion[0]), form)
        # per iteration, dx/dk = -eta^2 sigma^2 x/2 and d(ln x + x^2/2)/dk = -eta^2 sigma^2/2 for h = 1 + x^2
        rates = [eta * valley(noise).subs({h: lambda s: 1 + s**2}).drift[0] for noise in ("hessian", "normal")]
        step = eta**2 * sigma**2 / 2
        return [*found, rates[0] + step * x, rates[1] * (1 / x + x) + step]

    weight = eta * sigma**2 / 4
    return Entry(
        "figure 1",
        r"For $h = 1 + x^2$ the solution of (13) is $x_k = x_0 e^{-\eta^2\sigma^2k/2}$; that of (14) is given by $\ln x + x^2/2$, which"
        r" decreases by $\frac12\eta^2\sigma^2$ per iteration. The iteration itself, for any learning rate, has another variance than its"
        r" SDE, and isotropic noise diffuses along the minima:",
        r"\operatorname{Var} y = \frac{\eta\sigma^2}{4\,(1 - \eta h(x))}, \qquad"
        r" \frac{\dd\operatorname{Var} x}{\dd t} = \eta\sigma^2 \ \text{ for } D = \sigma I .",
        lambda: (weight / (1 - eta * h(x)), eta * sigma**2),
        residual,
        (
            Erratum(
                "E23",
                r"The caption calls the noise isotropic, with the identity as covariance. Then $D_{11} = \sigma I$, its diffusion is of"
                r" the order of the drift (14), and no single path follows the ODE. The noise of (14) acts across the minima only.",
                lambda: (weight / (1 - eta * h(x)), sp.Integer(0)),
            ),
            Erratum(
                "E24",
                r"At the start of figure 1, $x_0 = 5$, the curvature is $h = 26$: at $\eta = .01$ the variance is $1/(1 - .26)$ times the"
                r" SDE's, which shows.",
                lambda: (weight, eta * sigma**2),
            ),
        ),
    )


PAGE = Page(
    "Exploration on the minima manifold:\\\\[0.5ex] SGD, equations (1) to (14)",
    r"This page follows sections 1 and 2 of \emph{A quasistatic derivation of optimization algorithms' exploration on the minima"
    r" manifold}, with its numbers. Where the paper has a misprint, the equation here is the corrected one, and a remark says so.",
    (
        Section("An illustrative example", "", (equation_1, system_of_the_example, equation_2, slow_dynamics_of_the_example)),
        Section(
            "Flat manifold",
            r"The equations of this section were checked for $d = 4$, $k = 2$ with unknown functions: $\tH = LL\T$, $L$ lower triangular"
            r" with entries $p(x_1) > 0$, $q(x_2)$, $r(x_2) > 0$, and $\D{11}$, $\D{22}$ lower triangular with free entries.",
            (equation_3, equation_4, equation_5, equation_6, equation_7, equation_8, equation_9),
        ),
        Section(
            "General manifold",
            r"(10), (11) and the invariant form were checked on the space curve $y = x^2$, $w = x^3/2$ in $\mathbb R^3$ with two unequal"
            r" curvatures and general noise across it; (12) on a half-Hessian whose eigenvectors turn along the manifold.",
            (
                equation_10,
                equation_11,
                equation_12,
                invariant_form,
                tangent_noise,
                cross_noise,
                equation_13,
                equation_14,
                figure_1,
            ),
        ),
    ),
)


if __name__ == "__main__":
    sys.exit(run(PAGE, sys.argv[1:], "quasistatic_sgd.tex"))
