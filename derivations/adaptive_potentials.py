"""Entries of ``adaptive_slow_sde.py``: implicit regularizers, the joint function, first corrections, and who has a potential."""

from __future__ import annotations

from functools import cache

import frozen_preconditioner as numbers
import numpy as np
import sympy as sp
from adaptive_settings import (
    ADAM,
    HALF,
    QUARTER,
    alpha,
    beta1,
    beta2,
    both,
    c,
    eps,
    eta,
    hh,
    lam,
    per_time,
    surface,
    t,
    v,
    valley,
    x,
    y,
    z,
)
from pages import Entry, Erratum, Form, equation, shown, within

import quasistatic as qs

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
        (Erratum("", r"$\tr H_{BB}$ in place of the mean $\bar h_B$.", lambda: form(0)),),
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
        (Erratum("", r"Without the logarithm it is the limit $\epsilon \to 0$.", lambda: form(sp.Integer(0))),),
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
        r"$\epsilon$ goes from Adam to SGD, whose $\tr H$ appears for $\sqrt{\alpha h} \ll \epsilon$; the minimizer depends on $\alpha$"
        r" through"
        r" $\epsilon/\sqrt\alpha$ only.",
        r"F(h) \to \frac h\epsilon \quad (\epsilon \gg \sqrt{\alpha h}), \qquad F(h) \to 2\sqrt{h/\alpha} \quad (\epsilon \ll \sqrt{\alpha"
        r" h}) .",
        lambda: (hh, 2 * sp.sqrt(hh / alpha)),
        residual,
        (Erratum("", r"$\frac h{2\epsilon}$ for large $\epsilon$.", lambda: (hh / 2, 2 * sp.sqrt(hh / alpha))),),
    )


def power_density() -> Entry:
    """AdamE."""
    rule = qs.zoo.adam_power.fix(eps=0)
    power = rule.hyperparameters["power"]

    def form(exponent: sp.Expr) -> Form:
        return alpha ** (-power) * hh**exponent / (1 - power)

    return Entry(
        "20",
        r"\emph{AdamE-$\lambda$}, $s = v^{-\lambda}$, $\epsilon = 0$: it descends $\tr\operatorname{Diag}(H)^{1-\lambda}$. Its speed is"
        r" proportional to $\alpha^{1-2\lambda}$: that of Adam does not depend on $\alpha$.",
        r"F(h) = \frac{\alpha^{-\lambda}\,h^{1-\lambda}}{1-\lambda} .",
        lambda: form(1 - power),
        lambda stated: [sp.powsimp(qs.derive(rule).regularizer() / (eta**2 * alpha / 4 * stated)).cancel() - 1],
        (Erratum("", r"$h^\lambda$ agrees for Adam only.", lambda: form(power)),),
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
        (Erratum("", r"The size $|B|$ of the block cannot be left out.", lambda: form(sp.Integer(1))),),
        lambda: rf"F(\bar h) = {shown(4 / (eta**2 * alpha) * qs.derive(qs.zoo.adam_mini.fix(eps=0)).regularizer())}",
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
        r" the resting places do not change. The library keeps the next moment, $\E g_i^2 = 3h'^2V^2$ for the valley at $\theta = 0$, so"
        r" that"
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
        return [*slopes, start, sp.powsimp(power_part.diff(v) / (v * (v ** (-power)).diff(v))) - 1, *_power_joint(other, power)]

    return Entry(
        "24",
        r"For Adam, with $w = \sqrt v$, and for AdamE with $\epsilon = 0$,",
        r"& -g = \int_0^w\frac{x^2\,\dd x}{(x + \epsilon)^2} = w - 2\epsilon\ln\frac{w + \epsilon}\epsilon + \epsilon"
        r" - \frac{\epsilon^2}{w + \epsilon} \quad\text{(Adam)}, \\ & g = -\frac\lambda{1-\lambda}\,v^{1-\lambda} \quad\text{(AdamE)} .",
        form,
        residual,
        (Erratum("", r"$\epsilon\ln$ in place of $2\epsilon\ln$.", lambda: form(1)),),
        lambda: equation(
            r"\hat E\bigr|_{\text{valley},\ \epsilon = 0}", qs.derive(ADAM.fix(eps=0), valley().problem).leading("eta").lyapunov()
        ),
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
        quadrant = {u: sp.Symbol(u.name, positive=True) for u in surface().coordinates}
        slopes = [E.diff(n).xreplace(root).xreplace(quadrant) for n in names]
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
        (Erratum("", r"$\eta HSH$ is twice as much.", lambda: form(sp.Integer(1))),),
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
        (Erratum("", r"The factor $1 - \frac{\eta\lambda}2$ is that of SGD.", lambda: form(0)),),
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
        return [a if name in stated else float(a < 0.03) for name, a in asymmetries().items()]

    return Entry(
        "28",
        r"\emph{For every loss}, a method has a potential under label noise if the 1-form $M \mapsto S(V(\alpha M))$ on symmetric matrices"
        r" is"
        r" closed, that is if its derivative is symmetric,",
        r"\langle Q, DS[P]\rangle = \langle P, DS[Q]\rangle .",
        lambda: CLOSED,
        residual,
        (
            Erratum("", r"Shampoo's $\mathcal L^{-1/4}\otimes\mathcal R^{-1/4}$ is not closed.", lambda: CLOSED | {"Shampoo"}),
            Erratum("", r"Adafactor's $\operatorname{Diag}(rc\T/\bar r)^{-1/2}$ is not.", lambda: CLOSED | {"Adafactor"}),
        ),
    )


def asymmetry_numbers() -> Entry:
    """The sizes."""

    def residual(stated: Form) -> list[float]:
        found = asymmetries()
        return [within(found[name], value, 0.0006) for name, value in stated.items()]

    return Entry(
        "after 28",
        r"The relative asymmetry $\|D - D\T\|/\|D\|$ of this derivative at a random $M$ ($2\times3$ parameters) is zero up to rounding for"
        r" Adam, AdamE, blocks, the full matrix and one-sided Shampoo. For the other two it depends on $M$, and is, at this one,",
        r"\text{Shampoo: } .172, \qquad \text{Adafactor: } .174 .",
        lambda: {"Shampoo": 0.172, "Adafactor": 0.174},
        residual,
        (Erratum("", r"It is not zero.", lambda: {"Shampoo": 0.0, "Adafactor": 0.0}),),
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
        (Erratum("", r"$2\tr M$ is SGD's, up to a factor.", lambda: form(1.0)),),
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
        (Erratum("", r"It is not $a$ itself that must be closed; for Adam on the surface, $a$ is not.", lambda: form(False)),),
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
        r"\emph{Other noise}, $S = I$, checked with $H = \bigl(\begin{smallmatrix} 2+x & y \\ y & 3-x \end{smallmatrix}\bigr)$ across a"
        r" plane"
        r" of minima and, in the second, $p = 3$:",
        r"\Sigma = \sigma^2P_N:\ \ \omega = \tfrac{\sigma^2}2\,\dd\ln\det\nolimits_+H, \qquad"
        r" \Sigma = \sigma^2H^p:\ \ \omega = \tfrac{\sigma^2}{2p}\,\dd\tr H^p .",
        form,
        residual,
        (Erratum("", r"$\frac{\sigma^2}2\,\dd\tr H^p$ lacks the $p$.", lambda: form(HALF)),),
        lambda: rf"\Psi = {shown(plane_of_minima('projector').regularizer())} \quad\text{{for }} \Sigma = \alpha P_N",
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
        return [*(omega[i] - stated[i] for i in range(2)), curl - stated[2], refused, within(value, 0.0097403, 5e-8)]

    def found() -> str:
        slow = plane_of_minima("constant")
        omega = -sp.Matrix(slow.drift)
        curl = sp.factor(sp.together(omega[1].diff(x) - omega[0].diff(y)))
        return equation(r"\partial_x(-\dot y) - \partial_y(-\dot x)", curl) + r"\quad\text{per iteration, and no potential}"

    return Entry(
        "32",
        r"Other noise has no potential in general. The curl below is $.0097403$ at $(.5, .3)$. For $\Sigma_N = \operatorname{diag}(1, 0)$"
        r" and the same $H$, with $q = x^2 - x + y^2 - 6$,",
        r"\omega = \Bigl(\frac{5x + 2y^2 - 15}{10q},\ -\frac{y\,(x-3)}{5q}\Bigr), \qquad"
        r" \partial_x\omega_y - \partial_y\omega_x = -\frac y{5q},",
        form,
        residual,
        (Erratum("", r"The curl with the other sign.", lambda: form(1)),),
        found,
    )


def stationary_density() -> Entry:
    """Where there is diffusion."""

    def form(inner: int = 1) -> Form:
        return inner

    def residual(stated: Form) -> list[sp.Expr]:
        p, r = qs.function("p"), qs.function("r")
        D11, D12, D22 = 2 + p(x) * r(y), x * y + r(x), 3 + x * r(y)
        U = r(x) * p(y) + x * y
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
