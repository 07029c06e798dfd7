"""Equations (15) to (22) and (28) to (39) of the quasistatic paper, re-derived in order: SGD with momentum.

    python derivations/quasistatic_momentum.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.
"""

from __future__ import annotations

import sys
from functools import cache

import sympy as sp
from pages import Entry, Erratum, Form, Page, Section, block, differences, equation, force, run, sde

import quasistatic as qs
from quasistatic.algebra.field import is_zero
from quasistatic.derivation.kernel import LAMBDA_I, LAMBDA_J
from quasistatic.derivation.law import BATCH as B
from quasistatic.show.typeset import tex

# -- settings ----------------------------------------------------------------------------------------------------------

RULE = qs.zoo.heavy_ball_velocity
eta, mu = RULE.hyperparameters["eta"], RULE.hyperparameters["mu"]
x = qs.symbols("x")
h = qs.function("h", positive=True)
alpha, sigma = qs.symbols("alpha sigma", positive=True)

# flat manifold y = 0 in R^4, k = 2: H = L L^T with unknown functions, noise factors with unknown entries
x1, x2, y1, y2 = qs.symbols("x1 x2 y1 y2")
p, q, r = qs.function("p", positive=True)(x1), qs.function("q")(x2), qs.function("r", positive=True)(x2)
X, Y = (x1, x2), sp.Matrix([y1, y2])
H = sp.Matrix([[p, 0], [q, r]]) * sp.Matrix([[p, 0], [q, r]]).T
a1, a2, a3, d1, d2, d3 = qs.symbols("a1 a2 a3 d1 d2 d3")
D11, D22 = sp.Matrix([[a1, 0], [a2, a3]]), sp.Matrix([[d1, 0], [d2, d3]])
Q = D22 * D22.T
Z = sp.zeros(2)

#: Where x, y, m_x and m_y stand in the state.
AT_X, AT_Y, AT_MX, AT_MY = (0, 1), (2, 3), (4, 5), (6, 7)
m_x, m_y = (sp.Matrix([sp.Symbol(f"m_{z}", real=True) for z in pair]) for pair in (X, ("y1", "y2")))


@cache
def flat(rule: qs.Rule = RULE, batch: sp.Expr = sp.Integer(1)) -> qs.SlowDynamics:
    """The rule on y^T H(x) y as an SDE, noise factors D11 and D22, its covariance divided by the batch size."""
    noise = qs.CovarianceNoise(sp.diag(D11 * D11.T, Q) / batch)
    problem = qs.Problem(sp.expand((Y.T * H * Y)[0]), {y1: 0, y2: 0}, noise, parameters=(x1, x2, y1, y2))
    return qs.derive(rule, problem, time="continuous")


@cache
def hessian_noise(strength: sp.Expr) -> qs.SlowDynamics:
    """The same with the noise covariance strength * H (half-Hessian)."""
    return qs.derive(RULE, flat().problem.with_noise(qs.HessianNoise(strength / 2)), time="continuous")


@cache
def law(time: str = "continuous") -> qs.Law:
    """The rule's law for any loss; its Hessian is the true one."""
    return qs.derive(RULE, time=time)


@cache
def blocks() -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """C1, C2, C3: covariances of m_y with itself, of m_y with y, of y with itself."""
    C = flat().covariance
    return block(C, AT_MY, AT_MY), block(C, AT_MY, AT_Y), block(C, AT_Y, AT_Y)


def gradient() -> tuple[sp.Matrix, sp.Matrix]:
    """Gradient of y^T H y along x and y."""
    return sp.Matrix([(Y.T * H.diff(c) * Y)[0] for c in X]), 2 * H * Y


def system(bend: sp.Matrix | None = None, batch: sp.Expr = sp.Integer(1), noise: sp.Matrix | None = None) -> Form:
    """Drift and noise covariance of (x, y, m_x, m_y)."""
    along, across = gradient()
    decay = (1 - mu) / eta
    drift = sp.Matrix.vstack(m_x / eta, m_y / eta, -decay * m_x - (along if bend is None else bend), -decay * m_y - across)
    kick = sp.diag(D11 * D11.T, Q) if noise is None else noise
    return drift, eta * sp.diag(sp.zeros(4), kick / batch)


# -- section 2.3 -------------------------------------------------------------------------------------------------------


def equation_15() -> Entry:
    """The rule itself."""

    def residual(form: Form) -> list[sp.Expr]:
        z, g, (m,) = RULE.trace.parameter, RULE.trace.gradient, RULE.trace.variables[1:]
        return differences([u.xreplace(RULE.fixed_symbols) for u in RULE.updates], form(z, g, m))

    return Entry(
        "15",
        "SGD with momentum, the memory being the velocity, is",
        r"m_{k+1} = \mu\,m_k - \eta\,\nabla f(z_k), \qquad z_{k+1} = z_k + m_{k+1} .",
        lambda: lambda z, g, m: (z + mu * m - eta * g, mu * m - eta * g),
        residual,
    )


def sde_entry(number: str, sentence: str) -> Entry:
    """(16) and (28) are one equation."""
    return Entry(
        number,
        sentence,
        r"\dd m_t = -\Bigl(\frac{1-\mu}{\eta}\,m_t + \nabla f(z_t)\Bigr)\dd t + \sqrt{\eta}\,D(Pz_t)\,\dd W_t, \qquad"
        r" \dd z_t = \frac{1}{\eta}\,m_t\,\dd t .",
        system,
        lambda form: differences(sde(flat()), form),
        (
            Erratum(
                "E7",
                r"Where the text reads $\sqrt{\eta D}$, it is $\sqrt{\eta}\,D$: the noise has the covariance $\eta DD\T$ per unit of time.",
                lambda: system(noise=sp.diag(D11, D22)),
            ),
        ),
    )


def equation_16() -> Entry:
    """The SDE of the rule."""
    text = r"In the time $t = k\eta$, under the scaling $\eta = e^2$, $\mu = 1 - ce$, $m = O(e)$, $e \to 0$, its leading order is"
    return sde_entry("16", text)


def effective(number: str, sentence: str) -> Entry:
    """(17) and (30) are one equation."""

    def form(rows: int = 2) -> Form:
        V = blocks()[2]
        return -force(V[:rows, :rows], H[:rows, :rows], X), -(1 - mu) / eta * sp.eye(2), eta * D11 * D11.T

    def residual(stated: Form) -> list[sp.Expr]:
        moving = flat().averaged_map
        mean = moving.second(sp.Matrix(flat().covariance)) / 2 / moving.dt
        decay = block(moving.J, AT_MX, AT_MX) / moving.dt
        _, covariance = sde(flat())
        return differences((block(mean, AT_MX, (0,)), decay, block(covariance, AT_MX, AT_MX)), stated)

    return Entry(
        number,
        sentence,
        r"\dd m_t &= -\Bigl(\frac{1-\mu}{\eta}\,m_t + \sum_{i,j=1}^{d-k}(V^{\mathrm{sgdm}}_t)_{ij}\,\nabla_{\!\cM}\tH_{ij}(z_t)\Bigr)\dd t"
        r" + \sqrt{\eta}\,\D{11}(z_t)\,\dd W_t, \\ \dd z_t &= \frac{1}{\eta}\,m_t\,\dd t .",
        form,
        residual,
        (
            Erratum(
                "E5", "The paper sums to $n - k$; the normal space has $d - k$ dimensions, and a sum over fewer fails.", lambda: form(1)
            ),
        ),
    )


def equation_17() -> Entry:
    """The effective dynamics, still with momentum."""
    return effective("17", r"With $y$ and $m_y$ at equilibrium, $V^{\mathrm{sgdm}} = \E\,yy\T$ from (39) below, what is left is")


def small_learning_rate() -> Entry:
    """How V of (39) differs from V of SGD over 1 - mu."""

    def residual(ratio: Form) -> list[sp.Expr]:
        sgd = qs.derive(qs.zoo.sgd, time="continuous").kernel
        halves = {LAMBDA_I: 2 * LAMBDA_I, LAMBDA_J: 2 * LAMBDA_J}  # kernels are in eigenvalues of the true Hessian
        found = (law().kernel / sgd * (1 - mu)).subs(halves, simultaneous=True)
        return [found - ratio]

    gap = eta * (LAMBDA_I - LAMBDA_J) ** 2 / ((1 - mu) ** 2 * (LAMBDA_I + LAMBDA_J))
    return Entry(
        "after 17",
        r"Dropping the double commutator in (39) leaves $\tilde V^{\mathrm{sgdm}} = V^{\mathrm{sgd}}/(1-\mu)$. In the eigenbasis of $\tH$,"
        r" with eigenvalues $\lambda_i$,",
        r"V^{\mathrm{sgdm}}_{ij} = \frac{\tilde V^{\mathrm{sgdm}}_{ij}}"
        r"{1 + \dfrac{\eta\,(\lambda_i - \lambda_j)^2}{(1-\mu)^2(\lambda_i + \lambda_j)}} .",
        lambda: 1 / (1 + gap),
        residual,
        (
            Erratum(
                "E12",
                r"The paper says that the two are close ``when $\eta$ is small''. They are equal where $Q$ and $\tH$ commute; otherwise"
                r" what must be small is $\eta(\lambda_i - \lambda_j)^2$ against $(1-\mu)^2(\lambda_i + \lambda_j)$.",
                lambda: sp.Integer(1),
            ),
        ),
    )


def equation_18() -> Entry:
    """The first order ODE."""

    def form() -> Form:
        V = block(flat(qs.zoo.sgd).variance, AT_Y, AT_Y)
        return -force(blocks()[2], H, X) / (1 - mu), -force(V, H, X) / (1 - mu) ** 2

    def residual(stated: Form) -> list[sp.Expr]:
        return differences((flat().drift, flat().leading("eta").drift), stated)

    return Entry(
        "18",
        r"Without noise along the manifold, $\D{11} = 0$, and once the momentum has settled, the manifold dynamics is a flow, which to"
        r" leading order in $\eta$ is faster than that of SGD by $1/(1-\mu)^2$:",
        r"\dot z = -\frac{1}{1-\mu}\sum_{i,j=1}^{d-k}(V^{\mathrm{sgdm}}_t)_{ij}\,\nabla_{\!\cM}\tH_{ij}(z_t), \qquad"
        r" \dot z \approx -\frac{1}{(1-\mu)^2}\sum_{i,j=1}^{d-k}(V^{\mathrm{sgd}}_t)_{ij}\,\nabla_{\!\cM}\tH_{ij}(z_t) .",
        form,
        residual,
        (
            Erratum(
                "E12",
                r"The second form is the leading order in $\eta$ at a fixed $\mu$, and no identity: with general noise the two differ.",
                lambda: (form()[1], form()[1]),
            ),
        ),
    )


def equation_19() -> Entry:
    """Noise like the Hessian."""

    def form(V: sp.Matrix, potential: sp.Expr) -> Form:
        return V, -sp.Matrix([potential.diff(c) for c in X]) / (1 - mu)

    def residual(stated: Form) -> list[sp.Expr]:
        slow = hessian_noise(alpha**2)
        return differences((block(slow.variance, AT_Y, AT_Y), slow.drift), stated)

    weight = eta * alpha**2 / (4 * (1 - mu))
    return Entry(
        "19",
        r"\emph{Example:} $\D{22} = \alpha\tH^{1/2}$, $\D{11} = 0$. Then"
        r" $V^{\mathrm{sgdm}} = \tilde V^{\mathrm{sgdm}} = \frac{\eta\alpha^2}{4(1-\mu)}I$, exactly, and",
        r"\dot z = -\frac{\eta\alpha^2}{4(1-\mu)^2}\,\nabla_{\!\cM}\tr\tH(z) .",
        lambda: form(weight * sp.eye(2), weight * H.trace()),
        residual,
        (
            Erratum(
                "E4",
                r"The paper prints $\D{22} = \alpha\tH$; it is the root. $\alpha\tH$ would give $V = \frac{\eta\alpha^2}{4(1-\mu)}\tH$.",
                lambda: form(weight * H, weight / 2 * (H**2).trace()),
            ),
        ),
        lambda: rf"\dot x = {tex(valley().drift[0])} \quad\text{{for}}\quad f = h(x)\,y^2",
    )


@cache
def valley() -> qs.SlowDynamics:
    """The paper's two-dimensional example with the noise covariance alpha^2 h in y."""
    return qs.derive(RULE, qs.zoo.valley(h, qs.HessianNoise(alpha**2 / 2)), time="continuous")


# -- section 4 ---------------------------------------------------------------------------------------------------------


def equation_20() -> Entry:
    """A batch divides the noise."""
    return Entry(
        "20",
        r"A batch of $B$ samples divides the covariance of the gradient by $B$, so that (16) becomes",
        r"\dd m_t = -\Bigl(\frac{1-\mu}{\eta}\,m_t + \nabla f(z_t)\Bigr)\dd t + \sqrt{\frac{\eta}{B}}\,D(Pz_t)\,\dd W_t, \qquad"
        r" \dd z_t = \frac{1}{\eta}\,m_t\,\dd t .",
        lambda: system(batch=B),
        lambda form: differences(sde(flat(batch=B)), form),
        (Erratum("E7", r"As above: $\eta DD\T/B$ is the covariance, not $\eta D/B$.", lambda: system(batch=B, noise=sp.diag(D11, D22))),),
    )


def equation_21() -> Entry:
    """The manifold dynamics with a batch size."""

    def form(strength: sp.Expr) -> Form:
        return -eta * strength / (4 * B * (1 - mu) ** 2) * sp.Matrix([H.trace().diff(c) for c in X])

    return Entry(
        "21",
        r"With $\D{22} = \sigma\tH^{1/2}$ and $\D{11} = 0$, (19) becomes",
        r"\dot z = -\frac{\eta\sigma^2}{4B(1-\mu)^2}\,\nabla_{\!\cM}\tr\tH(z) .",
        lambda: form(sigma**2),
        lambda f: differences([hessian_noise(sigma**2 / B).drift], [f]),
        (
            Erratum(
                "E22",
                r"The paper derives (21) ``by equation 18''; it is (19), with the $\alpha$ there called $\sigma$ here. The two letters"
                r" cannot be mixed: $\alpha$ of (19) is $\sigma/\sqrt B$, and $\alpha = \sigma/B$ is rejected.",
                lambda: form(sigma**2 / B),
            ),
            Erratum(
                "E4",
                r"And again $\sigma\tH^{1/2}$, not $\sigma\tH$, with which the gradient would be that of $\frac12\tr\tH^2$.",
                lambda: -eta * sigma**2 / (8 * B * (1 - mu) ** 2) * sp.Matrix([(H**2).trace().diff(c) for c in X]),
            ),
        ),
    )


def speed_factor() -> Entry:
    """The number of iterations, and the speed factor."""
    speed = eta**2 / (B * (1 - mu) ** 2)

    def residual(stated: Form) -> list[sp.Expr]:
        slow = hessian_noise(sigma**2 / B)
        per_iteration = eta * sp.Matrix(slow.drift)
        reference = -(sigma**2) / 4 * sp.Matrix([H.trace().diff(c) for c in X])
        return [*(per_iteration - stated * reference), law("iteration").speed_factor - stated]

    return Entry(
        "after 21",
        r"Let $\bar z$ solve $\dot{\bar z} = -\frac{\sigma^2}{4}\nabla_{\!\cM}\tr\tH(\bar z)$. An iteration is $\eta$ units of time, so it"
        r" takes $T\,B(1-\mu)^2/\eta^2$ iterations to follow $\bar z$ until $T$. The inverse of this, per unit of $T$, is the speed factor",
        r"s(\eta, \mu, B) = \frac{\eta^2}{B(1-\mu)^2} .",
        lambda: speed,
        residual,
        (),
        lambda: equation("s", law("iteration").speed_factor),
    )


def range_factor() -> Entry:
    """The range factor is a variance."""
    factor = eta / (B * (1 - mu))

    def residual(stated: Form) -> list[sp.Expr]:
        V = block(hessian_noise(sigma**2 / B).variance, AT_Y, AT_Y)
        variance, name = stated
        return [*(V - variance * sp.eye(2)), law("iteration").range_factor - name]

    return Entry(
        "after 21",
        r"Noise explores a range in the normal directions that depends on the hyperparameters through the range factor alone:",
        r"V^{\mathrm{sgdm}} = \frac{\sigma^2}{4}\,r\,I, \qquad r(\eta, \mu, B) = \frac{\eta}{B(1-\mu)} .",
        lambda: (sigma**2 / 4 * factor, factor),
        residual,
        (
            Erratum(
                "E22",
                r"The ``range of the oscillation'' $r$ is a variance: the width of the oscillation is proportional to $\sqrt r$.",
                lambda: ((sigma / 2 * factor) ** 2, factor),
            ),
        ),
        lambda: equation("r", law("iteration").range_factor),
    )


def equation_22() -> Entry:
    """The scaling rule."""

    def residual(form: Form) -> list[sp.Expr]:
        c, batch, gain, speed = form
        rule = law("iteration").scaling_rule(c)
        factors = law("iteration")
        new_range, new_speed = (
            f.subs({eta: gain * (1 - mu), B: batch}, simultaneous=True) for f in (factors.range_factor, factors.speed_factor)
        )
        return [rule.batch - batch, rule.gain - gain, new_range - factors.range_factor, new_speed - speed]

    c = sp.Symbol("c", positive=True)
    return Entry(
        "22",
        r"Both factors contain $\eta/(1-\mu)$, so the speed changes at a fixed range only if $B$ does. With $B' = cB$ and"
        r" $\frac{\eta'}{1-\mu'} = c\,\frac{\eta}{1-\mu}$, the range stays and the speed is $c$ times as large:",
        r"\frac{\eta'}{B'(1-\mu')} = \frac{\eta}{B(1-\mu)}, \qquad"
        r" \frac{\eta'^2}{B'(1-\mu')^2} = c\,\frac{\eta^2}{B(1-\mu)^2} .",
        lambda: (c, c * B, c * eta / (1 - mu), c * eta**2 / (B * (1 - mu) ** 2)),
        residual,
    )


# -- appendix A --------------------------------------------------------------------------------------------------------


def equation_28() -> Entry:
    """(16) again."""
    return sde_entry("28", "Appendix A starts from (16),")


def equation_29() -> Entry:
    """The components of (28)."""
    return Entry(
        "29",
        r"In coordinates along and across the flat manifold it is",
        r"\dd m_{x,t} &= -\Bigl(\frac{1-\mu}{\eta}\,m_{x,t} + y_t\T\,\partial_x\tH(x_t)\,y_t\Bigr)\dd t + \sqrt{\eta}\,\D{11}(x_t)\,\dd"
        r" W^{(1)}_t, & \dd x_t &= \frac{1}{\eta}\,m_{x,t}\,\dd t, \\"
        r"\dd m_{y,t} &= -\Bigl(\frac{1-\mu}{\eta}\,m_{y,t} + 2\tH(x_t)\,y_t\Bigr)\dd t + \sqrt{\eta}\,\D{22}(x_t)\,\dd"
        r" W^{(2)}_t, & \dd y_t &= \frac{1}{\eta}\,m_{y,t}\,\dd t .",
        system,
        lambda form: differences(sde(flat()), form),
        (
            Erratum(
                "E6",
                r"The paper prints $v_t\T\,\partial_u\tH\,y_t$, in the letters of another draft: both vectors are $y_t$, and the"
                r" derivative is along $x$. With $v$ read as the velocity of $y$, the check fails.",
                lambda: system(bend=sp.Matrix([(m_y.T * H.diff(c) * Y)[0] for c in X])),
            ),
        ),
    )


def equation_30() -> Entry:
    """(17) again."""
    return effective("30", "Taking the expectation over $y$ at equilibrium, and writing $z$ for $x$, one has (17):")


def equation_31() -> Entry:
    """The fast linear system."""

    def form(upper: sp.Expr = sp.Integer(2)) -> Form:
        A = sp.Matrix(sp.BlockMatrix([[-(1 - mu) / eta * sp.eye(2), -upper * H], [sp.eye(2) / eta, Z]]))
        return A, eta * sp.diag(Q, Z)

    def residual(stated: Form) -> list[sp.Expr]:
        moving = flat().averaged_map
        fast = (*AT_MY, *AT_Y)
        return differences((block(moving.J, fast, fast) / moving.dt, block(sde(flat())[1], fast, fast)), stated)

    return Entry(
        "31",
        r"\emph{The derivation of $V^{\mathrm{sgdm}}$.} For frozen $x$ and $m_x$, $u = (m_y, y)$ obeys a linear equation,",
        r"\dd u_\tau = A\,u_\tau\,\dd\tau + \sqrt{\eta}\,\mathbf D\,\dd B_\tau, \quad"
        r" A = \begin{pmatrix} -\frac{1-\mu}{\eta} I & -2\tH \\[0.8ex] \frac1\eta I & 0 \end{pmatrix}, \quad"
        r" \mathbf D = \begin{pmatrix} 0 & \D{22} \\ 0 & 0 \end{pmatrix} .",
        form,
        residual,
        (
            Erratum(
                "E3",
                r"With $\tH$ the true Hessian the block would be $-\tH$; together with the half it is rejected.",
                lambda: form(sp.Integer(1)),
            ),
            Erratum(
                "E6",
                r"The paper's text has $\dd y_{t=\tau}$ and $2(d0k)$ rows; it is $\dd y_\tau$ and $2(d-k)$, here 4; fewer are rejected.",
                lambda: tuple(sp.diag(m[:3, :3], 0) for m in form()),
            ),
        ),
    )


def equation_32() -> Entry:
    """The Lyapunov equation of the fast system."""

    def form(A: sp.Matrix, C: sp.Matrix) -> sp.Matrix:
        return A * C + C * A.T + eta * sp.diag(Q, Z)

    def residual(stated: Form) -> list[sp.Expr]:
        moving = flat().averaged_map
        fast = (*AT_MY, *AT_Y)
        C = block(flat().covariance, fast, fast)
        C1, C2, C3 = blocks()
        named = sp.Matrix(sp.BlockMatrix([[C1, C2], [C2.T, C3]]))
        return [*stated(block(moving.J, fast, fast) / moving.dt, C), *(C - named)]

    return Entry(
        "32",
        r"The equilibrium covariance $C = \E\,uu\T$ satisfies",
        r"AC + CA\T = -\eta\,\mathbf D\mathbf D\T, \qquad"
        r" C = \begin{pmatrix} C_1 & C_2 \\ C_2\T & C_3 \end{pmatrix}, \qquad C_3 = V^{\mathrm{sgdm}} .",
        lambda: form,
        residual,
    )


def in_blocks(number: str, sentence: str, latex: str, printed: Form, errata: tuple[Erratum, ...] = ()) -> Entry:
    """An equation for the blocks: a function of C1, C2, C3 that vanishes."""
    return Entry(number, sentence, latex, lambda: printed, lambda form: list(form(*blocks())), errata)


def equation_33() -> Entry:
    """First block."""
    return in_blocks(
        "33",
        "Block by block, (32) is",
        r"-\frac{2(1-\mu)}{\eta}\,C_1 - 2\bigl(\tH C_2\T + C_2\tH\bigr) = -\eta\,\D{22}\D{22}\T,",
        lambda C1, C2, C3: -2 * (1 - mu) / eta * C1 - 2 * (H * C2.T + C2 * H) + eta * Q,
        (
            Erratum(
                "E10",
                r"The printed parentheses are lost: with $-2\tH C_2\T + C_2\tH$ the equation fails.",
                lambda: lambda C1, C2, C3: -2 * (1 - mu) / eta * C1 - 2 * H * C2.T + C2 * H + eta * Q,
            ),
        ),
    )


def equation_34() -> Entry:
    """Second block."""
    return in_blocks(
        "34",
        "",
        r"\frac1\eta\,C_1 - \frac{1-\mu}{\eta}\,C_2 - 2\tH C_3 = 0,",
        lambda C1, C2, C3: C1 / eta - (1 - mu) / eta * C2 - 2 * H * C3,
    )


def equation_35() -> Entry:
    """Third block."""
    return in_blocks("35", "", r"\frac1\eta\,C_2 + \frac1\eta\,C_2\T = 0 .", lambda C1, C2, C3: (C2 + C2.T) / eta)


def equation_36() -> Entry:
    """The symmetric part of (34)."""
    return in_blocks(
        "36",
        r"$C_2$ is skew by (35), $C_1$ and $C_3$ are symmetric. The symmetric part of (34) is",
        r"C_1 = \eta\,\bigl(\tH C_3 + C_3\tH\bigr) .",
        lambda C1, C2, C3: C1 - eta * (H * C3 + C3 * H),
        (
            Erratum(
                "E10",
                r"In the line before it, $\frac1\eta C_1 - (\tH C_3 + C_3\tH) = 0$, the parentheses are lost too.",
                lambda: lambda C1, C2, C3: C1 / eta - H * C3 + C3 * H,
            ),
        ),
    )


def equation_37() -> Entry:
    """The antisymmetric part of (34)."""
    return in_blocks(
        "37",
        r"The antisymmetric part is",
        r"C_2 = \frac{\eta}{1-\mu}\,\bigl(C_3\tH - \tH C_3\bigr) .",
        lambda C1, C2, C3: C2 - eta / (1 - mu) * (C3 * H - H * C3),
        (
            Erratum(
                "E10",
                r"It is (34) that (36) is inserted in, not (35) as printed: put in the place of $C_2$ in (35), it would make the"
                r" symmetric $C_1$ skew.",
                lambda: lambda C1, C2, C3: C1 + C1.T,
            ),
        ),
    )


def equation_38() -> Entry:
    """(36) and (37) in (33)."""
    return in_blocks(
        "38",
        "Both in (33) give an equation for $C_3$ alone,",
        r"2(1-\mu)\bigl(\tH C_3 + C_3\tH\bigr)"
        r" + \frac{2\eta}{1-\mu}\bigl(C_3\tH^2 + \tH^2C_3 - 2\tH C_3\tH\bigr) = \eta\,\D{22}\D{22}\T .",
        lambda C1, C2, C3: 2 * (1 - mu) * (H * C3 + C3 * H) + 2 * eta / (1 - mu) * (C3 * H**2 + H**2 * C3 - 2 * H * C3 * H) - eta * Q,
        (
            Erratum(
                "E10",
                r"The parentheses that are lost here: $2(1-\mu)\tH C_3 + C_3\tH$ fails.",
                lambda: (
                    lambda C1, C2, C3: (
                        2 * (1 - mu) * H * C3 + C3 * H + 2 * eta / (1 - mu) * (C3 * H**2 + H**2 * C3 - 2 * H * C3 * H) - eta * Q
                    )
                ),
            ),
        ),
    )


def equation_39() -> Entry:
    """The equation of V."""

    def form(weight: sp.Expr, scale: int = 1) -> Form:
        return weight, scale

    def residual(stated: Form) -> list[sp.Expr]:
        weight, scale = stated
        V, G = blocks()[2], scale * H
        commutator = V * G**2 + G**2 * V - 2 * G * V * G
        left, right = law().matrix_coefficients  # true Hessian 2H: the commutator's coefficient is half, the noise's twice as large
        general = {(0, 1): 1, (1, 0): 1, (2, 0): weight / 2, (0, 2): weight / 2, (1, 1): -weight}
        same = [left.get(k, sp.Integer(0)) - c for k, c in general.items()]
        return [*(G * V + V * G + weight * commutator - eta / (2 * (1 - mu)) * Q), *same, right[0, 0] - eta / (1 - mu)]

    weight = eta / (1 - mu) ** 2
    return Entry(
        "39",
        r"With $H = \tH(x)$, $V = V^{\mathrm{sgdm}} = C_3$, and the bracket $[H, [H, V]]$,",
        r"\boxed{HV + VH + \frac{\eta}{(1-\mu)^2}\bigl(VH^2 + H^2V - 2HVH\bigr) = \frac{\eta}{2(1-\mu)}\,\D{22}\D{22}\T}",
        lambda: form(weight),
        residual,
        (
            Erratum(
                "E3",
                r"This is the half-Hessian. For the true one, the coefficients are $\frac{\eta}{2(1-\mu)^2}$ and $\frac{\eta}{1-\mu}$; the"
                r" library's law, in the true Hessian, agrees.",
                lambda: form(weight, 2),
            ),
        ),
        half_kernel,
    )


def half_kernel() -> str:
    """The kernel in eigenvalues of the half-Hessian, by its printed denominator; what is printed is what was derived."""
    found = law().kernel.subs({LAMBDA_I: 2 * LAMBDA_I, LAMBDA_J: 2 * LAMBDA_J}, simultaneous=True)
    shown = (LAMBDA_I + LAMBDA_J) + eta * (LAMBDA_I - LAMBDA_J) ** 2 / (1 - mu) ** 2
    if not is_zero(found * shown * 2 * (1 - mu) - eta):
        raise AssertionError("the kernel is not the one that is printed")
    kernel = rf"\frac{{\eta}}{{2(1-\mu)}} \Bigm/ \Bigl({tex(shown)}\Bigr)"
    return rf"\frac{{V_{{ij}}}}{{Q_{{ij}}}} = {kernel} \qquad\text{{in the eigenbasis of }} H"


def without_momentum() -> Entry:
    """What becomes of (39) for mu = 0."""

    def residual(stated: Form) -> list[sp.Expr]:
        found = [2 * law(t).matrix_coefficients[0].get((2, 0), sp.Integer(0)) for t in ("continuous", "iteration")]
        return differences([*(f.subs(mu, 0) for f in found), found[1] / found[0]], stated)

    return Entry(
        "after 39",
        r"For $\mu = 0$ the rule is SGD, and its exact equilibrium has no double commutator; (39) keeps one, with coefficient $\eta$. The"
        r" coefficient that is exact in the learning rate is smaller by the factor",
        r"\frac{2\mu}{(1-\mu)^2(1+\mu)}\,\eta \Bigm/ \frac{\eta}{(1-\mu)^2} = \frac{2\mu}{1+\mu} .",
        lambda: (eta, sp.Integer(0), 2 * mu / (1 + mu)),
        residual,
        (
            Erratum(
                "E11",
                r"(39) does not reduce to (8) as $\mu \to 0$, unless $[H, Q] = 0$: it is an expansion about $\mu = 1$.",
                lambda: (sp.Integer(0), sp.Integer(0), 2 * mu / (1 + mu)),
            ),
        ),
    )


PAGE = Page(
    "Exploration on the minima manifold:\\\\[0.5ex] momentum, equations (15) to (22) and (28) to (39)",
    r"This page follows sections 2.3 and 4 and appendix A of \emph{A quasistatic derivation of optimization algorithms' exploration on the"
    r" minima manifold}, with its numbers. Where the paper has a misprint, the equation here is the corrected one, and a remark says so."
    r" $H$ is half of the Hessian, as in the paper. Equations in coordinates were checked on a flat manifold with $d = 4$, $k = 2$ and"
    r" unknown functions: $\tH = LL\T$, $L$ lower triangular with entries $p(x_1) > 0$, $q(x_2)$, $r(x_2) > 0$, and $\D{11}$, $\D{22}$"
    r" lower triangular with free entries.",
    (
        Section("SGD with momentum", "", (equation_15, equation_16, equation_17, small_learning_rate, equation_18, equation_19)),
        Section("Learning rate, batch size and momentum", "", (equation_20, equation_21, speed_factor, range_factor, equation_22)),
        Section(
            "The derivation for SGD with momentum",
            "",
            (
                equation_28,
                equation_29,
                equation_30,
                equation_31,
                equation_32,
                equation_33,
                equation_34,
                equation_35,
                equation_36,
                equation_37,
                equation_38,
                equation_39,
                without_momentum,
            ),
        ),
    ),
)


if __name__ == "__main__":
    sys.exit(run(PAGE, sys.argv[1:], "quasistatic_momentum.tex"))
