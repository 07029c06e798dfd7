"""Equations (23) to (27) and (40) to (55) of the quasistatic paper, re-derived in order: Adam.

    python derivations/quasistatic_adam.py [OUT.tex]

checks everything, prints a line for every equation, and writes the page as a LaTeX document.

Every equation is derived here from the traced rule, under its declared scaling, with SymPy, and compared with what the library
derives with time="continuous", with sigma = sigma0/eta, eps = eps0/eta and 1 - beta_i = c_i*eta^2 put in; where the momentum is at
rest, also with its result per iteration, in which beta1 is fixed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import sympy as sp
from pages import Entry, Erratum, Form, Page, Section, equation, run

import quasistatic as qs
from quasistatic.algebra.field import is_zero

# -- settings ----------------------------------------------------------------------------------------------------------

RULE = qs.zoo.adam
eta, beta1, beta2, eps = (RULE.hyperparameters[n] for n in ("eta", "beta1", "beta2", "eps"))
sigma = sp.Symbol("sigma", positive=True)
sigma0, eps0, c1, c2, t = sp.symbols("sigma0 epsilon0 c1 c2 t", positive=True)
theta = qs.symbols("theta")
e = sp.Symbol("e", positive=True)

h_of = qs.function("h", positive=True)
x, y, xi, zeta = qs.symbols("x y xi zeta")  # (x, y) as in the loss; xi = x' and zeta = y' along and across the minima
h = h_of(xi)
dh = h.diff(xi)
mx, my = qs.symbols("m_x m_y")
u, v = sp.symbols("u v", positive=True)
g1, g2 = sp.symbols("gamma1 gamma2", positive=True)
ROOT = sp.sqrt(g2)
LATE = {g1: sp.Integer(1), g2: sp.Integer(1)}
QUARTER = sp.pi / 4

#: z = R z': with the loss (23), x' = x cos(theta) - y sin(theta) and y' = x sin(theta) + y cos(theta).
R = sp.Matrix([[sp.cos(theta), sp.sin(theta)], [-sp.sin(theta), sp.cos(theta)]])


@cache
def problem(angle: sp.Expr = theta) -> qs.Problem:
    """The rotated valley with noise of covariance sigma^2 h across it."""
    return qs.zoo.rotated_valley(angle, h=h_of, noise=qs.HessianNoise(sigma**2 / 2))


@cache
def library(angle: sp.Expr = theta) -> qs.SlowDynamics:
    """Adam on it per iteration, at leading order."""
    return qs.derive(RULE, problem(angle)).leading("eta")


def per_time(expression: sp.Expr, unit: sp.Expr = sp.Integer(1)) -> sp.Expr:
    """A rate per iteration of the library in the paper's time and constants; ``unit`` is that of the quantity, in the paper's."""
    return in_constants(expression) / unit / eta**2


#: v_x, v_y of the library are this times the paper's u, v.
MOMENT = sigma0**2 / eta**2


def in_constants(expression: sp.Expr) -> sp.Expr:
    """An expression of the library with sigma = sigma0/eta, eps = eps0/eta, v = sigma^2 u and 1 - beta2 = c2 eta^2."""
    (s,), names = library().coordinates, library().slow_state[1:]
    found = sp.sympify(expression, strict=True).subs(dict(zip(names, (MOMENT * u, MOMENT * v), strict=True)))
    found = found.subs({beta2: 1 - c2 * eta**2, sigma: sigma0 / eta, eps: eps0 / eta}, simultaneous=True)
    return sp.powdenest(found, force=True).subs(s, xi).doit()


def found_rate(expression: sp.Expr, left: str) -> str:
    """left = the library's expression, in the paper's constants and with x for x'."""
    together = expression.replace(lambda n: n.is_Add, sp.factor_terms)  # eta, which cancels, out of every sum
    return equation(left, together.subs(xi, x))


# -- the SDE of the rule -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """One coordinate of Adam's SDE: rates of the parameter, the momentum and u = v/sigma^2; the momentum's noise."""

    z: sp.Expr
    m: sp.Expr
    u: sp.Expr
    noise: sp.Expr


#: Gradient, memories, variance of the noise and its unit normal, of one coordinate.
force, memory, second, variance, kick = sp.symbols("f m w S n", positive=True)


@cache
def scaled() -> Scaled:
    """The leading order of one step over e^2, from the traced updates.

    gamma1 and gamma2 stand for 1 - beta^k, whose limits are those of (24): ``bias_corrections``.
    """
    trace = RULE.trace
    z, g, (m, w) = trace.parameter, trace.gradient, trace.variables[1:]
    updates = [update.xreplace(RULE.fixed_symbols) for update in trace.updates]
    powers = {beta1**trace.iteration: 1 - g1, beta2**trace.iteration: 1 - g2}
    values = {m: memory, w: sigma0**2 * second / e**2, g: force + sigma0 / e * kick * sp.sqrt(variance)}
    values |= {eta: e, beta1: 1 - c1 * e**2, beta2: 1 - c2 * e**2, eps: eps0 / e}
    moved = [update.subs(powers).subs(values, simultaneous=True) for update in updates]
    step_z = (moved[0] - z) / e**2
    step_m = sp.expand((moved[1] - memory) / e**2)
    step_u = sp.expand((moved[2] * e**2 / sigma0**2 - second) / e**2)
    quiet = step_m.subs(kick, 0)
    pushed = sp.expand((step_m - quiet) * e)  # a step's noise over sqrt(dt), dt = e^2
    mean_u = step_u.coeff(kick, 0) + step_u.coeff(kick, 2)  # E n = 0, E n^2 = 1
    return Scaled(_leading_step(step_z), quiet, sp.expand(mean_u).subs(e, 0), sp.expand(pushed**2 / kick**2))


def _leading_step(step: sp.Expr) -> sp.Expr:
    """The limit of the parameter's step: its preconditioner is of order 1/e, whose own change in a step is smaller by e^2."""
    numerator, denominator = sp.fraction(sp.together(step))
    ratio = sp.powdenest(sp.expand_power_base(numerator / denominator, force=True), force=True)
    return sp.limit(ratio, e, 0)


def bias_corrections() -> tuple[sp.Expr, sp.Expr]:
    """1 - beta_i^k with k = t/e^2 as e goes to 0."""
    return tuple(1 - sp.limit((1 - c * e**2) ** (t / e**2), e, 0) for c in (c1, c2))  # type: ignore[return-value]


def scale(moment: sp.Expr, root: sp.Expr | None = None) -> sp.Expr:
    """An entry of P."""
    return sigma0 * sp.sqrt(moment) + eps0 * (sp.sqrt(g2) if root is None else root)


def step_40(root: sp.Expr | None = None, corrected: sp.Expr | None = None, cover: sp.Expr | None = None) -> Form:
    """(24) and (40) for one coordinate, and the limits of the bias corrections."""
    factor = sp.sqrt(g2) / g1 if corrected is None else corrected
    inside = variance if cover is None else cover
    rates = Scaled(-factor * memory / scale(second, root), c1 * (force - memory), c2 * (inside - second), sigma0**2 * c1**2 * variance)
    return rates, 1 - sp.exp(-c1 * t), 1 - sp.exp(-c2 * t)


def sde_entry(number: str, sentence: str, errata: tuple[Erratum, ...]) -> Entry:
    """(24) and (40) are one equation."""

    def residual(stated: Form) -> list[sp.Expr]:
        rates, first, last = stated
        found, corrections = scaled(), bias_corrections()
        pairs = ((found.z, rates.z), (found.m, rates.m), (found.u, rates.u), (found.noise, rates.noise))
        return [*(a - b for a, b in pairs), corrections[0] - first, corrections[1] - last]

    return Entry(
        number,
        sentence,
        r"\dd x_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,P_t^{-1}m_t\,\dd t, &"
        r" \dd m_t &= c_1\,(\nabla f(x_t) - m_t)\,\dd t + \sigma_0c_1\,\Sigma^{1/2}(x_t)\,\dd W_t, \\"
        r" \dd u_t &= c_2\,(\operatorname{diag}\Sigma(x_t) - u_t)\,\dd t, &"
        r" P_t &= \sigma_0\operatorname{diag}(u_t)^{1/2} + \epsilon_0\sqrt{\gamma_2(t)}\,I .",
        step_40,
        residual,
        errata,
    )


# -- along and across the minima ---------------------------------------------------------------------------------------


def along(expression: sp.Expr) -> sp.Expr:
    """A function of (x, y) in the coordinates (x', y')."""
    moved = R * sp.Matrix([xi, zeta])
    return expression.subs({x: moved[0], y: moved[1]}, simultaneous=True)


def mobility(angle: sp.Expr = theta, transient: bool = True) -> sp.Matrix:
    """sqrt(gamma2)/gamma1 R^T P^-1 R."""
    P = sp.diag(scale(u), scale(v))
    turned = R.subs(theta, angle)
    found = sp.sqrt(g2) / g1 * turned.T * P.inv() * turned
    return found if transient else found.subs(LATE)


@dataclass(frozen=True)
class Rates:
    """Rates of x', y', m_x', m_y', u, v, and the strength of dB in m_y'."""

    xi: sp.Expr
    zeta: sp.Expr
    mx: sp.Expr
    my: sp.Expr
    u: sp.Expr
    v: sp.Expr
    noise: sp.Expr

    def parts(self) -> list[sp.Expr]:
        """In order."""
        return [self.xi, self.zeta, self.mx, self.my, self.u, self.v, self.noise]


@cache
def derived(angle: sp.Expr = theta) -> Rates:
    """(40) on the loss and the noise of the library, turned to (x', y')."""
    turned = R.subs(theta, angle)
    loss, covariance = turned_problem(angle)
    gradient = [loss.diff(xi), loss.diff(zeta)]
    rule = scaled()
    P_inverse = sp.diag(*(-rule.z.subs({memory: 1, second: w}) for w in (u, v)))
    moved = -turned.T * P_inverse * turned * sp.Matrix([mx, my])
    m_rates = [rule.m.subs({memory: m, force: g}) for m, g in zip((mx, my), gradient, strict=True)]
    diagonal = (turned * covariance * turned.T).diagonal()
    u_rates = [rule.u.subs({second: w, variance: S}) for w, S in zip((u, v), diagonal, strict=True)]
    return Rates(*moved, *m_rates, *u_rates, rule.noise.subs(variance, covariance[1, 1]))


@cache
def turned_problem(angle: sp.Expr = theta) -> tuple[sp.Expr, sp.Matrix]:
    """Loss and covariance over sigma^2 in (x', y'): h(x') y'^2 and diag(0, h), which the library's are shown to be."""
    found, turned = problem(angle), R.subs(theta, angle)
    point = turned * sp.Matrix([xi, zeta])
    (profile,) = found.loss.atoms(sp.core.function.AppliedUndef)
    loss = found.loss.xreplace({profile: sp.Symbol("H", positive=True)}).subs({x: point[0], y: point[1]}, simultaneous=True)
    argument = profile.args[0].subs({x: point[0], y: point[1]}, simultaneous=True)
    covariance = found.covariance.subs(found.chart.coordinates[0], xi) / sigma**2
    covariance = covariance.replace(lambda n: isinstance(n, sp.core.function.AppliedUndef), lambda n: sp.Symbol("H", positive=True))
    wanted = sp.diag(0, sp.Symbol("H", positive=True))
    gap = [argument - xi, loss - sp.Symbol("H", positive=True) * zeta**2, *(turned.T * covariance * turned - wanted)]
    if not is_zero(gap):
        raise AssertionError("the library's problem is not the paper's")
    return h * zeta**2, sp.diag(0, h)


def agree(found: Rates, stated: Rates) -> list[sp.Expr]:
    """Differences, the noise as a variance."""
    return [a - b for a, b in zip(found.parts(), stated.parts(), strict=True)]


def normal_variance(a: sp.Expr) -> sp.Expr:
    """E y'^2 of dy = -a m dt, dm = c1 (2 h y - m) dt + sigma0 c1 sqrt(h) dB, from its Lyapunov equation."""
    A = sp.Matrix([[0, -a], [2 * c1 * h, -c1]])
    yy, ym, mm = unknown = sp.symbols("yy ym mm")
    C = sp.Matrix([[yy, ym], [ym, mm]])
    balance = A * C + C * A.T + sp.diag(0, sigma0**2 * c1**2 * h)
    rows = [balance[0, 0], balance[0, 1], balance[1, 1]]
    left, right = sp.linear_eq_to_matrix(rows, unknown)
    return sp.cancel(left.LUsolve(right)[0])


def effective(angle: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Rates of x' and m_x' with (y', m_y') at equilibrium, for angles at which P^-1 does not mix x' and y'."""
    rates, M = derived(angle), mobility(angle)
    moved = rates.xi
    if angle == QUARTER:
        moved, M = sp.cancel(moved.subs(v, u)), M.subs(v, u)
    mean = rates.mx.subs(zeta**2, normal_variance(M[1, 1]))
    return moved.subs(my, 0), mean


def late(expression: sp.Expr, angle: sp.Expr) -> sp.Expr:
    """With u, v at rest on h, and the bias corrections gone."""
    rest = {u: sp.Integer(0), v: h} if angle == 0 else {u: h / 2, v: h / 2}
    return expression.subs(rest).subs(LATE)


# -- the library in the paper's time -----------------------------------------------------------------------------------


@cache
def continuous(angle: sp.Expr = theta, transient: bool = False) -> qs.SlowDynamics:
    """Adam under its scaling: (x', m_x', v_x, v_y), and with ``transient`` the bias corrections."""
    return qs.derive(RULE, problem(angle), time="continuous", transient=transient)


def in_time(expression: sp.Expr, slow: qs.SlowDynamics) -> sp.Expr:
    """A rate of ``continuous`` in the paper's letters: gamma_i for the bias corrections, m_x' for the momentum."""
    momentum = {s: mx for s in slow.slow_state if s.name == f"m_{slow.coordinates[0]}"}
    found = in_constants(expression.xreplace(momentum)).subs(beta1, 1 - c1 * eta**2)
    return found.xreplace({sp.exp(-c1 * t): 1 - g1, sp.exp(-c2 * t): 1 - g2})


def transient_rates(angle: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """The library's rates of x' and m_x' with u, v and the bias corrections."""
    slow = continuous(angle, True)
    moved, mean = (in_time(row, slow) for row in slow.drift[:2])
    return (moved.subs(v, u), mean.subs(v, u)) if angle == QUARTER else (moved, mean)


def late_rates(angle: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """The same with u and v at rest on h."""
    slow = continuous(angle).adiabatic()
    moved, mean = (in_time(row, slow) for row in slow.drift)
    return moved, mean


# -- section 5 ---------------------------------------------------------------------------------------------------------


def equation_23() -> Entry:
    """The loss, and where its minima lie."""

    def form(square: int = 2, turn: int = -1) -> Form:
        loss = (x * sp.sin(theta) + y * sp.cos(theta)) ** square * ((x * sp.cos(theta) - y * sp.sin(theta)) ** 2 + 1)
        return loss, (sp.cos(theta), turn * sp.sin(theta))

    def residual(stated: Form) -> list[sp.Expr]:
        loss, direction = stated
        (s,) = problem().chart.coordinates
        found, chart = qs.zoo.rotated_valley(theta), problem().chart.embedding
        return [found.loss - loss, *(chart[i] - s * direction[i] for i in range(2))]

    return Entry(
        "23",
        r"Adam is not invariant under rotations. The example is $(1+x^2)\,y^2$, rotated by $\theta$:",
        r"f(x, y) = (x\sin\theta + y\cos\theta)^2\,\bigl((x\cos\theta - y\sin\theta)^2 + 1\bigr) .",
        form,
        residual,
        (
            Erratum("E14", r"Appendix B prints the first factor without its square; the paper has it here.", lambda: form(square=1)),
            Erratum(
                "E15",
                r"The paper calls this a counterclockwise rotation. Its minima, $x\sin\theta + y\cos\theta = 0$, lie along"
                r" $(\cos\theta, -\sin\theta)$: it is clockwise. (``By $\theta^2$'' is $\theta$ with a footnote mark.)",
                lambda: form(turn=1),
            ),
        ),
    )


def equation_24() -> Entry:
    """The SDE."""
    return sde_entry(
        "24",
        r"Let the gradient noise have the covariance $\sigma^2\Sigma$, $\sigma_0 = \sigma\eta$, $\epsilon_0 = \epsilon\eta$, $c_i ="
        r" (1-\beta_i)/\eta^2$, $\gamma_i(t) = 1 - e^{-c_it}$, and $t = k\eta^2$. With all of these fixed, the leading order in $\eta$ of"
        r" Adam is, with $v = \sigma^2u$,",
        (
            Erratum(
                "E16",
                r"The text calls the covariance of the noise $\sigma\Sigma$. It is $\sigma^2\Sigma$: else $u$ would not relax to"
                r" $\operatorname{diag}\Sigma$ but to $\operatorname{diag}\Sigma/\sigma$, here $\eta\operatorname{diag}\Sigma/\sigma_0$.",
                lambda: step_40(cover=variance * eta / sigma0),
            ),
            Erratum(
                "E17",
                r"Where $\gamma_2/\gamma_1$ and $\epsilon_0\gamma_2$ are printed, it is $\sqrt{\gamma_2}$ in both, here and in (40) to"
                r" (46).",
                lambda: step_40(root=g2, corrected=g2 / g1),
            ),
        ),
    )


def momentum_pair(angle: sp.Expr, errata: Callable[[Callable[..., Form]], tuple[Erratum, ...]], number: str, sentence: str) -> Entry:
    """(25) = (49) and (26) = (54): the effective dynamics with momentum, eps0 small where sigma0 sqrt(h) stands beside it."""
    wide = {sp.S.Zero: (eps0, 4 * sp.sqrt(h)), QUARTER: (sigma0 * sp.sqrt(h) / sp.sqrt(2), 2 * sp.sqrt(2 * h))}[angle]

    def form(weight: sp.Expr = sp.Integer(1), tangent: sp.Expr | None = None) -> Form:
        return c1 * (weight * sigma0 * dh / wide[1] - mx), -mx / (wide[0] if tangent is None else tangent)

    def residual(stated: Form) -> list[sp.Expr]:
        moved, mean = (late(r, angle) for r in effective(angle))
        # eps0 is dropped beside sigma0 sqrt(h): everywhere at pi/4, at 0 in the momentum alone
        mean = mean.subs(eps0, 0)
        moved = moved.subs(eps0, 0) if angle == QUARTER else moved
        first = sp.solve(stated[0], mx)[0]  # the momentum at rest gives the library's first-order rate
        library_moved, library_mean = late_rates(angle)
        library_moved = library_moved.subs(eps0, 0) if angle == QUARTER else library_moved
        own = [mean - stated[0], moved - stated[1], first_order(angle) - stated[1].subs(mx, first)]
        return [*own, library_mean.subs(eps0, 0) - stated[0], library_moved - stated[1]]

    rows = {
        sp.S.Zero: r"\dd m_{x,t} = c_1\Bigl(\frac{\sigma_0\,h'(x_t)}{4\sqrt{h(x_t)}} - m_{x,t}\Bigr)\dd t, \qquad"
        r" \dd x_t = -\frac{m_{x,t}}{\epsilon_0}\,\dd t",
        QUARTER: r"\dd m_{x,t} = c_1\Bigl(\frac{\sigma_0\,h'(x_t)}{2\sqrt{2h(x_t)}} - m_{x,t}\Bigr)\dd t, \qquad"
        r" \dd x_t = -\frac{\sqrt2\,m_{x,t}}{\sigma_0\sqrt{h(x_t)}}\,\dd t",
    }
    return Entry(number, sentence, rows[angle] + " .", form, residual, errata(form))


@cache
def first_order(angle: sp.Expr) -> sp.Expr:
    """The library's rate with all else at rest, per t; eps0 is dropped beside sigma0 sqrt(h)."""
    slow = continuous(angle).adiabatic().overdamped()
    rate = in_time(slow.drift[0], slow)
    if angle == QUARTER:
        return rate.subs(eps0, 0)
    return rate * (sigma0 * sp.sqrt(h) + eps0) / (sigma0 * sp.sqrt(h))


def equation_25() -> Entry:
    """theta = 0."""
    return momentum_pair(
        sp.S.Zero,
        lambda form: (
            Erratum(
                "E7",
                r"Text versions of the paper lose the root in the denominator: with $4h$ it is rejected.",
                lambda: form(weight=1 / sp.sqrt(h)),
            ),
        ),
        "25",
        r"Appendix B finds, for $\theta = 0$, where the minima lie along an axis ($x$ is the coordinate along the minima),",
    )


def equation_26() -> Entry:
    """theta = pi/4."""
    return momentum_pair(
        QUARTER,
        lambda form: (Erratum("E7", r"And here $\sigma_0\sqrt h$, not $\sigma_0h$.", lambda: form(tangent=sigma0 * h / sp.sqrt(2))),),
        "26",
        r"and for $\theta = \pi/4$",
    )


def first_order_entry(number: str, angle: sp.Expr, sentence: str, errata: tuple[Erratum, ...]) -> Entry:
    """(50) and (55)."""
    rates = {sp.S.Zero: -sigma0 * dh / (4 * eps0 * sp.sqrt(h)), QUARTER: -dh / (2 * h)}
    rows = {
        sp.S.Zero: r"\frac{\dd x'_t}{\dd t} = -\frac{\sigma_0\,h'(x'_t)}{4\epsilon_0\sqrt{h(x'_t)}} .",
        QUARTER: r"\frac{\dd x'_t}{\dd t} = -\frac{h'(x'_t)}{2h(x'_t)} .",
    }
    return Entry(
        number, sentence, rows[angle], lambda: rates[angle], lambda stated: [first_order(angle) - stated, _rest_of(angle) - stated], errata
    )  # fmt: skip


def _rest_of(angle: sp.Expr) -> sp.Expr:
    """This page's own first order: the momentum at rest."""
    moved, mean = (late(r, angle) for r in effective(angle))
    mean = mean.subs(eps0, 0)
    moved = moved.subs(eps0, 0) if angle == QUARTER else moved
    return moved.subs(mx, sp.solve(mean, mx)[0])


def equation_27() -> Entry:
    """Both first-order results."""

    def residual(stated: Form) -> list[sp.Expr]:
        return [first_order(a) - rate for a, rate in zip((sp.S.Zero, QUARTER), stated, strict=True)]

    return Entry(
        "27",
        r"With the momentum at rest as well,",
        r"\theta = 0:\quad \dot x = -\frac{\sigma_0\,h'(x)}{4\epsilon_0\sqrt{h(x)}}, \qquad\qquad"
        r" \theta = \frac\pi4:\quad \dot x = -\frac{h'(x)}{2h(x)} .",
        lambda: (-sigma0 * dh / (4 * eps0 * sp.sqrt(h)), -dh / (2 * h)),
        residual,
        (),
        lambda: found_rate(_any_rate(), r"\dot x"),
    )


def descended() -> Entry:
    """What is descended at the two angles."""

    def form(power: sp.Expr = sp.Rational(1, 2)) -> Form:
        return sigma0 / (2 * eps0) * h**power, sp.log(h) / 2

    def residual(stated: Form) -> list[sp.Expr]:
        return [first_order(a) + Psi.diff(xi) for a, Psi in zip((sp.S.Zero, QUARTER), stated, strict=True)]

    return Entry(
        "after 27",
        r"These are gradient flows of",
        r"\frac{\sigma_0}{2\epsilon_0}\sqrt{h} \quad (\theta = 0), \qquad \frac12\ln h \quad (\theta = \tfrac\pi4) .",
        form,
        residual,
        (Erratum("E18", r"The text after (27) says that for $\theta = 0$ it is $h$ that is minimized, (49) $\sqrt h$.",
                 lambda: form(sp.Integer(1))),),
    )  # fmt: skip


# -- appendix B --------------------------------------------------------------------------------------------------------


def equation_40() -> Entry:
    """(24) again."""
    return sde_entry(
        "40",
        "Appendix B starts from (24).",
        (Erratum("E17", r"The roots of $\gamma_2$ are lost here too.", lambda: step_40(root=g2, corrected=g2 / g1)),),
    )


def equation_41() -> Entry:
    """The turned coordinates."""

    def residual(turned: Form) -> list[sp.Expr]:
        point = turned * sp.Matrix([xi, zeta])
        normal_vector = sp.Matrix([sp.sin(theta), sp.cos(theta)])
        across = (sp.Matrix([x, y]).T * normal_vector)[0].subs({x: point[0], y: point[1]}, simultaneous=True)
        Sigma = h * normal_vector * normal_vector.T
        library_Sigma = problem().covariance.subs(problem().chart.coordinates[0], xi) / sigma**2
        return [across - zeta, *(turned.T * Sigma * turned - sp.diag(0, h)), *(library_Sigma - Sigma)]

    return Entry(
        "41",
        r"In coordinates $(x', y')$ along and across the minima, $R = \bigl(\begin{smallmatrix} \cos\theta & \sin\theta \\ -\sin\theta &"
        r" \cos\theta \end{smallmatrix}\bigr)$ and $\mathbf x = R\,\mathbf x'$, so that $f = h(x')\,y'^2$ with $h = 1 + x'^2$, or any other"
        r" positive $h$:",
        r"\mathbf x' = R\T\mathbf x, \qquad m' = R\T m, \qquad \Sigma' = R\T\Sigma R = \begin{pmatrix} 0 & 0 \\ 0 & h(x') \end{pmatrix} .",
        lambda: R,
        residual,
        (
            Erratum(
                "E15",
                r"Appendix B has $R_{-\theta}$ with the counterclockwise $R_\theta$ for the $R\T$ of the loss (23), and"
                r" $-\sin\theta\cos\theta$"
                r" off the diagonal of $\Sigma$; both signs turn. Nothing after it changes, because only $|\sin\theta|$ and $|\cos\theta|$"
                r" matter.",
                lambda: R.T,
            ),
        ),
    )


def equation_42() -> Entry:
    """(40) in these coordinates."""

    def form(root: sp.Expr = ROOT) -> Form:
        P = sp.diag(scale(u, root), scale(v, root))
        moved = -root / g1 * R.T * P.inv() * R * sp.Matrix([mx, my])
        return list(moved)

    return Entry(
        "42",
        r"$u$ and $P$ stay in the old coordinates, the only ones in which $P$ is diagonal:",
        r"\dd\mathbf x'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,R\T P_t^{-1}R\,m'_t\,\dd t, &"
        r" \dd m'_t &= c_1\,(R\T\nabla f(\mathbf x_t) - m'_t)\,\dd t + \sigma_0c_1\,\Sigma'^{1/2}\,\dd B_t, \\"
        r" \dd u_t &= c_2\,(\operatorname{diag}\Sigma - u_t)\,\dd t, &"
        r" P_t &= \sigma_0\operatorname{diag}(u_t)^{1/2} + \epsilon_0\sqrt{\gamma_2(t)}\,I .",
        form,
        lambda stated: [a - b for a, b in zip((derived().xi, derived().zeta), stated, strict=True)],
        (Erratum("E17", r"$\gamma_2$ without its root is rejected.", lambda: form(g2)),),
    )


def equation_43() -> Entry:
    """The components."""

    def form(noise: sp.Expr = h, swap: bool = False, root: sp.Expr = ROOT) -> Form:
        P = sp.diag(scale(u, root), scale(v, root))
        moved = -root / g1 * R.T * P.inv() * R * sp.Matrix([mx, my])
        shares = (sp.cos(theta), sp.sin(theta)) if swap else (sp.sin(theta), sp.cos(theta))
        return Rates(
            *moved, c1 * (dh * zeta**2 - mx), c1 * (2 * h * zeta - my), c2 * (h * shares[0] ** 2 - u), c2 * (h * shares[1] ** 2 - v),
            sigma0**2 * c1**2 * noise,
        )  # fmt: skip

    def residual(stated: Rates) -> list[sp.Expr]:
        rows = [in_time(r, continuous()) / MOMENT for r in continuous().drift[2:]]
        return [*agree(derived(), stated), rows[0] - stated.u, rows[1] - stated.v]

    return Entry(
        "43",
        r"With the components $m' = (m_{x'}, m_{y'})$, and $(u, v)$ for $u$,",
        r"\begin{pmatrix} \dd x'_t \\ \dd y'_t \end{pmatrix} &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,R\T P_t^{-1}R"
        r" \begin{pmatrix} m_{x',t} \\ m_{y',t} \end{pmatrix}\dd t, \\"
        r" \dd m_{x',t} &= c_1\,(h'(x'_t)\,y_t'^2 - m_{x',t})\,\dd t, \\"
        r" \dd m_{y',t} &= c_1\,(2h(x'_t)\,y'_t - m_{y',t})\,\dd t + \sigma_0c_1\sqrt{h(x'_t)}\,\dd B_t, \\"
        r" \dd u_t &= c_2\,(h(x'_t)\sin^2\theta - u_t)\,\dd t, \\ \dd v_t &= c_2\,(h(x'_t)\cos^2\theta - v_t)\,\dd t, \\"
        r" P_t &= \sigma_0\begin{pmatrix} u_t & 0 \\ 0 & v_t \end{pmatrix}^{1/2} + \epsilon_0\sqrt{\gamma_2(t)}\,I .",
        form,
        residual,
        (
            Erratum("E7", r"The noise is $\sigma_0c_1\sqrt h$; without the root it is rejected.", lambda: form(noise=h**2)),
            Erratum("E17", r"So is $\gamma_2$ without its root.", lambda: form(root=g2)),
        ),
        lambda: found_rate(in_time(continuous().drift[2], continuous()) / MOMENT, r"\frac{\dd u}{\dd t}"),
    )


def at_zero(root: sp.Expr = ROOT) -> Form:
    """(44)."""
    factor = root / g1
    return Rates(
        -factor * mx / scale(u, root), -factor * my / scale(v, root), c1 * (dh * zeta**2 - mx), c1 * (2 * h * zeta - my),
        -c2 * u, c2 * (h - v), sigma0**2 * c1**2 * h,
    )  # fmt: skip


def equation_44() -> Entry:
    """theta = 0."""
    return Entry(
        "44",
        r"\emph{Case $\theta = 0$.} Here $P^{-1}$ is diagonal in $(x', y')$ too, and (43) is",
        r"\dd x'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,\frac{m_{x',t}}{\sigma_0\sqrt{u_t} + \epsilon_0\sqrt{\gamma_2(t)}}\,\dd t, &"
        r" \dd y'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,\frac{m_{y',t}}{\sigma_0\sqrt{v_t} + \epsilon_0\sqrt{\gamma_2(t)}}\,\dd t,"
        r" \\"
        r" \dd u_t &= -c_2u_t\,\dd t, & \dd v_t &= c_2\,(h(x'_t) - v_t)\,\dd t,",
        at_zero,
        lambda stated: [*agree(derived(sp.S.Zero), stated), transient_rates(sp.S.Zero)[0] - stated.xi, *_memories(stated)],
        (Erratum("E17", r"$\gamma_2$ without its root is rejected.", lambda: at_zero(g2)),),
    )


def _memories(stated: Rates) -> list[sp.Expr]:
    """The library's equations of u and v while the bias corrections last."""
    slow = continuous(sp.S.Zero, True)
    return [in_time(row, slow) / MOMENT - rate for row, rate in zip(slow.drift[2:4], (stated.u, stated.v), strict=True)]


def equation_45() -> Entry:
    """The equilibrium."""

    def form(root: sp.Expr = ROOT, share: int = 4) -> Form:
        return sigma0**2 * root / (share * g1 * scale(v, root))

    def residual(stated: Form) -> list[sp.Expr]:
        own = normal_variance(mobility(sp.S.Zero)[1, 1])
        slow = continuous(sp.S.Zero, True)
        fixed = in_constants(library().variance[1, 1].subs(theta, 0))  # for a fixed beta1
        return [own - stated, own.diff(c1), in_time(slow.variance[1, 1], slow) - stated, fixed - stated.subs(LATE)]

    return Entry(
        "45",
        r"with $m_{x'}$ and $m_{y'}$ as in (43). For frozen $x'$, $v$ and $t$, $y'$ and $m_{y'}$ obey a linear SDE, whose equilibrium has"
        r" the"
        r" variance below, independent of $c_1$. (So RMSprop, $\beta_1 = 0$, has the same first-order results.)",
        r"\lim_{\tau\to\infty}\E\,y_\tau'^2 = \frac{\sigma_0^2\sqrt{\gamma_2(t)}}"
        r"{4\gamma_1(t)\,\bigl(\sigma_0\sqrt{v_t} + \epsilon_0\sqrt{\gamma_2(t)}\bigr)} .",
        form,
        residual,
        (Erratum("E17", r"$\sigma_0^2\gamma_2$ and $\epsilon_0\gamma_2$ are printed; they are rejected.", lambda: form(g2)),),
        lambda: found_rate(in_time(continuous(sp.S.Zero, True).variance[1, 1], continuous(sp.S.Zero, True)), r"\operatorname{Var}y'"),
    )


def equation_46() -> Entry:
    """The effective dynamics."""

    def form(root: sp.Expr = ROOT) -> Form:
        moved = -root / g1 * mx / scale(u, root)
        return moved, c1 * (sigma0**2 * root * dh / (4 * g1 * scale(v, root)) - mx)

    return Entry(
        "46",
        r"Hence, besides the equations of $u$ and $v$,",
        r"\dd x'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,\frac{m_{x',t}}{\sigma_0\sqrt{u_t} + \epsilon_0\sqrt{\gamma_2(t)}}\,\dd t,"
        r" \\"
        r" \dd m_{x',t} &= c_1\Bigl(\frac{\sigma_0^2\sqrt{\gamma_2(t)}\,h'(x'_t)}"
        r"{4\gamma_1(t)\,(\sigma_0\sqrt{v_t} + \epsilon_0\sqrt{\gamma_2(t)})} - m_{x',t}\Bigr)\dd t .",
        form,
        lambda stated: [a - b for found in (effective(sp.S.Zero), transient_rates(sp.S.Zero)) for a, b in zip(found, stated, strict=True)],
        (Erratum("E17", r"Again $\sqrt{\gamma_2}$ in all four places.", lambda: form(g2)),),
    )


def equation_47() -> Entry:
    """What u and v tend to."""
    tau, u0, v0, a, b = sp.symbols("tau u0 v0 a b", positive=True)

    def profile(time: sp.Expr) -> sp.Expr:
        """A moving h for the check of the integral."""
        return 2 + a * time + sp.exp(-b * time)

    def form(decay: sp.Expr = c2) -> Form:
        forgotten = sp.exp(-decay * t)
        inner = sp.integrate(sp.expand(c2 * sp.exp(c2 * (tau - t)) * (2 + a * tau)), (tau, 0, t))
        inner += c2 * (sp.exp(-b * t) - sp.exp(-c2 * t)) / (c2 - b)  # the integral of the exponential, c2 != b
        return u0 * forgotten, v0 * forgotten + inner

    def residual(stated: Form) -> list[sp.Expr]:
        U, V = stated
        rates = derived(sp.S.Zero)
        moved = [rates.u.subs(u, U), sp.expand(rates.v).subs(h, profile(t)).subs(v, V)]
        gaps = [U.diff(t) - moved[0], V.diff(t) - moved[1], U.subs(t, 0) - u0, V.subs(t, 0) - v0]
        still = rates.v.subs(v, h), sp.limit(stated[0], t, sp.oo)
        return [*(sp.expand(sp.expand(g), power_exp=True) for g in gaps), *still]

    return Entry(
        "47",
        r"The solutions $u_t = u_0e^{-c_2t}$ and $v_t = v_0e^{-c_2t} + c_2\int_0^te^{c_2(s-t)}h(x'_s)\,\dd s$ become, for late times and"
        r" slow"
        r" $h(x'_t)$, with $\gamma_1 = \gamma_2 = 1$,",
        r"u_t = 0, \qquad v_t = h(x'_t) .",
        form,
        residual,
        (
            Erratum(
                "E20",
                r"The text wants $e^{-t}$ close to 0. It is $e^{-c_it}$: with $e^{-t}$ they do not solve their equations.",
                lambda: form(sp.Integer(1)),
            ),
        ),
    )


def equation_48() -> Entry:
    """Both at rest."""

    def form(weight: int = 4) -> Form:
        return -mx / eps0, c1 * (sigma0**2 * dh / (weight * (sigma0 * sp.sqrt(h) + eps0)) - mx)

    def residual(stated: Form) -> list[sp.Expr]:
        moved, mean = (late(r, sp.S.Zero) for r in effective(sp.S.Zero))
        first = stated[0].subs(mx, sp.solve(stated[1], mx)[0])
        found = per_time(library().adiabatic().drift[0]).subs(theta, 0).doit()
        late_moved, late_mean = late_rates(sp.S.Zero)
        return [moved - stated[0], mean - stated[1], found - first, late_moved - stated[0], late_mean - stated[1]]

    return Entry(
        "48",
        r"In (46) this gives",
        r"\dd x'_t = -\frac{m_{x',t}}{\epsilon_0}\,\dd t, \qquad"
        r" \dd m_{x',t} = c_1\Bigl(\frac{\sigma_0^2\,h'(x'_t)}{4\sigma_0\sqrt{h(x'_t)} + 4\epsilon_0} - m_{x',t}\Bigr)\dd t .",
        form,
        residual,
        (Erratum("", r"Half of the force is rejected.", lambda: form(8)),),
        lambda: found_rate(late_rates(sp.S.Zero)[1], r"\frac{\dd m_{x'}}{\dd t}"),
    )


def silent_limit() -> Entry:
    """The divergence for eps to 0, and what stops it."""
    (s,) = library().coordinates

    def form(keeps: int = 1) -> Form:
        v_x, v_y = library(sp.S.Zero).slow_state[1:]
        V = eta * sigma**2 / (4 * (sp.sqrt(v_y) + eps))
        return (1 - beta2) * (keeps * 3 * h_of(s).diff(s) ** 2 * V**2 - v_x)

    return Entry(
        "after 48",
        r"(48) to (50) diverge as $\epsilon \to 0$, Adam does not. $v_t$ of the algorithm is no second moment of the noise alone: it"
        r" contains"
        r" the gradient along the minima, $g = h'y'^2$, whose mean square is $3h'^2V^2$ with $V = \operatorname{Var}y'$. For $\theta = 0$"
        r" the"
        r" library's coupled system has, per iteration and in the algorithm's units,",
        r"\dot v_x = (1-\beta_2)\,(3h'^2V^2 - v_x), \qquad V = \frac{\eta\sigma^2}{4(\sqrt{v_y} + \epsilon)},",
        form,
        lambda stated: [library(sp.S.Zero).drift[1] - stated],
        (
            Erratum(
                "E21",
                r"The paper's $\dot u = -c_2u$ leaves this out, so that its limit $\epsilon \to 0$ is unphysical. (48) to (50) hold for"
                r" $\epsilon \gg \sqrt3\,|h'|V$.",
                lambda: form(0),
            ),
        ),
    )


def equation_49() -> Entry:
    """(25) in the appendix."""
    return momentum_pair(
        sp.S.Zero,
        lambda form: (
            Erratum("E18", r"It minimizes $\frac{\sigma_0}2\sqrt h$, not $h$: $\frac{\sigma_0h'}4$ is rejected.",
                    lambda: form(weight=sp.sqrt(h))),
        ),
        "49",
        r"Where $\epsilon_0 \ll \sigma_0\sqrt h$ one has (25), a flow with momentum,",
    )  # fmt: skip


def equation_50() -> Entry:
    """(27), theta = 0."""
    plus = Erratum("E19", r"The paper prints a plus here; (27) has the minus.", lambda: sigma0 * dh / (4 * eps0 * sp.sqrt(h)))
    return first_order_entry("50", sp.S.Zero, r"and with the momentum at rest,", (plus,))


def equation_51() -> Entry:
    """theta = pi/4."""

    def form(root: sp.Expr = ROOT) -> Form:
        factor = root / g1 / scale(u, root)
        return -factor * mx, -factor * my, c2 * (h / 2 - u)

    def residual(stated: Form) -> list[sp.Expr]:
        rates = derived(QUARTER)
        same = [r.subs(v, u) for r in (rates.xi, rates.zeta, rates.u, rates.v)]
        slow = continuous(QUARTER, True)
        rows = [(in_time(r, slow) / MOMENT).subs(v, u) for r in slow.drift[2:4]]
        return [
            same[0] - stated[0],
            same[1] - stated[1],
            same[2] - stated[2],
            same[3] - stated[2],
            *(r - stated[2] for r in rows),
            transient_rates(QUARTER)[0] - stated[0],
        ]

    return Entry(
        "51",
        r"\emph{Case $\theta = \pi/4$.} $u$ and $v$ have the same equation; for $u_0 = v_0$ they are equal, $P$ is a multiple of the"
        r" identity,"
        r" and",
        r"\dd x'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,\frac{m_{x',t}}{\sigma_0\sqrt{u_t} + \epsilon_0\sqrt{\gamma_2(t)}}\,\dd t, &"
        r" \dd y'_t &= -\frac{\sqrt{\gamma_2(t)}}{\gamma_1(t)}\,\frac{m_{y',t}}{\sigma_0\sqrt{u_t} + \epsilon_0\sqrt{\gamma_2(t)}}\,\dd t,"
        r" \\"
        r" \dd u_t &= c_2\bigl(\tfrac12h(x'_t) - u_t\bigr)\,\dd t .",
        form,
        residual,
        (Erratum("E17", r"$\gamma_2$ without its root is rejected.", lambda: form(g2)),),
    )


def equation_52() -> Entry:
    """The effective momentum."""

    def form(root: sp.Expr = ROOT) -> Form:
        return c1 * (sigma0**2 * root * dh / (4 * g1 * scale(u, root)) - mx)

    return Entry(
        "52",
        r"As in (45) and (46),",
        r"\dd m_{x',t} = c_1\Bigl(\frac{\sigma_0^2\sqrt{\gamma_2(t)}\,h'(x'_t)}"
        r"{4\gamma_1(t)\,(\sigma_0\sqrt{u_t} + \epsilon_0\sqrt{\gamma_2(t)})} - m_{x',t}\Bigr)\dd t .",
        form,
        lambda stated: [effective(QUARTER)[1] - stated, transient_rates(QUARTER)[1] - stated],
        (Erratum("E17", r"$\gamma_2$ without its root is rejected.", lambda: form(g2)),),
    )


def equation_53() -> Entry:
    """u at rest."""

    def form(share: int = 2) -> Form:
        p = sigma0 * sp.sqrt(h) / sp.sqrt(share) + eps0
        return -mx / p, c1 * (sigma0**2 * dh / (4 * p) - mx)

    def residual(stated: Form) -> list[sp.Expr]:
        moved, mean = (late(r, QUARTER) for r in effective(QUARTER))
        first = stated[0].subs(mx, sp.solve(stated[1], mx)[0])
        found = per_time(library(QUARTER).adiabatic().drift[0])
        late_moved, late_mean = late_rates(QUARTER)
        return [moved - stated[0], mean - stated[1], found - first, late_moved - stated[0], late_mean - stated[1]]

    return Entry(
        "53",
        r"For late times $\gamma_1 = \gamma_2 = 1$ and $u = \frac12h(x')$:",
        r"\dd x'_t = -\frac{m_{x',t}}{\sigma_0\sqrt{h(x'_t)/2} + \epsilon_0}\,\dd t, \quad"
        r" \dd m_{x',t} = c_1\Bigl(\frac{\sigma_0^2\,h'(x'_t)}{4\,(\sigma_0\sqrt{h(x'_t)/2} + \epsilon_0)} - m_{x',t}\Bigr)\dd t .",
        form,
        residual,
        (Erratum("", r"$u = h$, of the axis across the minima at $\theta = 0$, is rejected.", lambda: form(1)),),
        lambda: found_rate(late_rates(QUARTER)[1], r"\frac{\dd m_{x'}}{\dd t}"),
    )


def equation_54() -> Entry:
    """(26) in the appendix."""
    return momentum_pair(QUARTER, lambda form: (), "54", r"and for $\epsilon_0 \ll \sigma_0\sqrt h$ this is (26),")


def equation_55() -> Entry:
    """(27), theta = pi/4."""
    return first_order_entry(
        "55",
        QUARTER,
        r"and with the momentum at rest, independently of $\sigma_0$, $c_1$ and $c_2$,",
        (Erratum("E19", r"With the sign of the printed (50) it would climb.", lambda: dh / (2 * h)),),
    )


# -- any angle ---------------------------------------------------------------------------------------------------------

p1 = sigma0 * sp.sqrt(h) * sp.Abs(sp.sin(theta)) + eps0
p2 = sigma0 * sp.sqrt(h) * sp.Abs(sp.cos(theta)) + eps0


@cache
def _any_rate() -> sp.Expr:
    """The library's rate with all else at rest, at any angle."""
    slow = continuous().adiabatic().overdamped()
    return in_time(slow.drift[0], slow)


def slow_coordinate() -> Entry:
    """What is slow: the projection along P^-1 times the normal."""

    def form(oblique: int = 1) -> Form:
        M = mobility(theta).subs(LATE)
        return oblique * M[0, 1] / M[1, 1]

    def residual(weight: Form) -> list[sp.Expr]:
        rates, M = derived(), mobility(theta).subs(LATE)
        moved = (rates.xi - weight * rates.zeta).subs(LATE)
        P = R.T * sp.diag(scale(u), scale(v)).subs(LATE) * R
        found = in_time(continuous().drift[0], continuous())
        return [moved.diff(my), moved.diff(mx) * P[0, 0] + 1, M[1, 1] - P[0, 0] / P.det(), found + mx / P[0, 0]]

    return Entry(
        "any angle",
        r"At other angles $R\T P^{-1}R$ mixes $x'$ and $y'$, and $x'$ is not slow. With $M = R\T P^{-1}R$ and $P$ frozen, the slow"
        r" coordinate"
        r" is the projection on the minima along $P^{-1}$ times the normal; it moves with $m_{x'}$ alone, through the element $(R\T"
        r" PR)_{11}$:",
        r"w = x' - \frac{M_{12}}{M_{22}}\,y', \qquad \dot w = -\frac{m_{x'}}{(R\T PR)_{11}}, \qquad M_{22} = \frac{(R\T PR)_{11}}{\det P}"
        r" .",
        form,
        residual,
        (Erratum("", r"$x'$ itself still moves with $m_{y'}$.", lambda: form(0)),),
    )


def any_angle() -> Entry:
    """The closed form."""

    def form(power: int = 1) -> Form:
        rate = -(sigma0**2) * dh / (4 * p1 * p2)
        spread = sigma0**2 / 4 * (sp.sin(theta) ** 2 / p1 + sp.cos(theta) ** 2 / p2)
        return rate * (1 if power else p1 / p2), spread

    def residual(stated: Form) -> list[sp.Expr]:
        rate, spread = stated
        own = normal_variance(mobility(theta).subs(LATE)[1, 1])
        rest = {u: h * sp.sin(theta) ** 2, v: h * sp.cos(theta) ** 2}
        weight = (R.T * sp.diag(scale(u), scale(v)).subs(LATE) * R)[0, 0]
        own_rate = -own * dh / weight
        found = _any_rate()
        n = sp.Matrix([sp.sin(theta), sp.cos(theta)])
        V = (n.T * library().adiabatic().variance * n)[0]
        return [
            own_rate.subs(rest) - rate,
            found - rate,
            own.subs(rest) - spread,
            in_constants(V) - spread,
            per_time(library().adiabatic().drift[0]) - rate,
        ]

    return Entry(
        "any angle",
        r"so that, with $u$, $v$ at rest,",
        r"\boxed{\frac{\dd w}{\dd t} = -\frac{\sigma_0^2\,h'(w)}"
        r"{4\,(\sigma_0\sqrt h\,|\sin\theta| + \epsilon_0)\,(\sigma_0\sqrt h\,|\cos\theta| + \epsilon_0)}}, \qquad"
        r" \E\,y'^2 = \frac{\sigma_0^2}4\Bigl(\frac{\sin^2\theta}{p_1} + \frac{\cos^2\theta}{p_2}\Bigr),",
        form,
        residual,
        (Erratum("", r"The square of one factor in place of the product is rejected.", lambda: form(0)),),
        lambda: found_rate(_any_rate(), r"\frac{\dd w}{\dd t}"),
    )


def small_epsilon() -> Entry:
    """eps to 0, and where Adam and SGD cross."""

    def form(double: int = 2) -> Form:
        return -dh / (4 * h * sp.Abs(sp.sin(theta)) * sp.Abs(sp.cos(theta))), double

    def residual(stated: Form) -> list[sp.Expr]:
        rate, crossing = stated
        found = per_time(library().adiabatic().drift[0]).subs(eps0, 0)
        (s,) = library().coordinates
        sgd = qs.derive(qs.zoo.sgd, problem()).leading("eta").drift[0].subs(s, xi).doit()
        # per iteration SGD has -eta^2 sigma^2 h'/4: equal speeds where sigma^2 h |sin 2 theta| = 2
        equal = rate * eta**2 * (2 * sp.Abs(sp.sin(theta)) * sp.Abs(sp.cos(theta))) / (crossing / (sigma**2 * h))
        return [found - rate, equal - sgd]

    return Entry(
        "any angle",
        r"with $p_1$, $p_2$ the two factors in the denominator. For $\epsilon \to 0$ at a fixed angle that is no multiple of $\pi/2$ it is"
        r" slowest"
        r" at $\pi/4$; per iteration it is slower than SGD, $\frac14\eta^2\sigma^2h'$, where $\sigma^2h\,|\sin2\theta| > 2$.",
        r"\dot w = -\frac{h'}{2h\,|\sin2\theta|}, \qquad \sigma^2h\,|\sin2\theta| = 2 \ \text{ where SGD and Adam are equally fast} .",
        form,
        residual,
        (Erratum("", r"They do not cross where it is 1.", lambda: form(1)),),
    )


PAGE = Page(
    "Exploration on the minima manifold:\\\\[0.5ex] Adam, equations (23) to (27) and (40) to (55)",
    r"This page follows section 5 and appendix B of \emph{A quasistatic derivation of optimization algorithms' exploration on the minima"
    r" manifold}, with its numbers. Where the paper has a misprint, the equation here is the corrected one, and a remark E says so; after"
    r" ``Not so'' stands a form that nobody published, and that the check rejects. The SDE is derived from the rule itself, and so is"
    r" everything after it, and both are compared with the library's continuous form, $\gamma_1$ and $\gamma_2$ included. What it finds per"
    r" iteration for a fixed $\beta_1$ is compared besides, in the paper's time $t = k\eta^2$ and constants, wherever the momentum is at"
    r" rest.",
    (
        Section("Adam on a rotated valley", "", (equation_23, equation_24, equation_25, equation_26, equation_27, descended)),
        Section(
            "The derivation",
            "",
            (
                equation_40,
                equation_41,
                equation_42,
                equation_43,
                equation_44,
                equation_45,
                equation_46,
                equation_47,
                equation_48,
                silent_limit,
                equation_49,
                equation_50,
                equation_51,
                equation_52,
                equation_53,
                equation_54,
                equation_55,
            ),
        ),
        Section("Any angle", "", (slow_coordinate, any_angle, small_epsilon)),
    ),
)


if __name__ == "__main__":
    sys.exit(run(PAGE, sys.argv[1:], "quasistatic_adam.tex"))
