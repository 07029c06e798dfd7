"""Entries of ``adaptive_slow_sde.py``: momentum that is as slow as the second moments."""

from __future__ import annotations

import frozen_preconditioner as numbers
import numpy as np
import sympy as sp
from adaptive_settings import ADAM, alpha, beta1, eta, hh, per_time, valley
from pages import Entry, Erratum, Form, within
from scipy.integrate import solve_ivp

import quasistatic as qs

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
        r"\dd Y = -\frac s{\sqrt\eta}\,p\,\dd t, \qquad \dd p = \frac{2c_1h}{\sqrt\eta}\,Y\,\dd t - c_1p\,\dd t + c_1\sqrt{2\alpha h}\,\dd"
        r" W :",
        form,
        residual,
        (Erratum("", r"The oscillator has friction, $-c_1p\,\dd t$.", lambda: form(0)),),
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
        r"Its energy $c_1hY^2 + \frac s2p^2$ is not touched by the fast rotation, which shares it equally, and relaxes at the rate $c_1$"
        r" in slow"
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


KINETIC = {1: 1.7804, 5: 1.3554, 50: 1.2335}
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
        printed = [within(ends[rate], value, 5.1e-5) for rate, value in table.items()]
        # the full moment system must approach the closure as eta falls, for c1 = 1
        gaps = [abs(moment_path(1.0, size) - ends[1]) for size in (4e-3, 2.5e-4)]
        return [*printed, float(gaps[1] > gaps[0] / 2)]

    return Entry(
        "after 35",
        r"At $\theta = \pi/4$, $\alpha = 1$, $c = 2$, $\epsilon = .001$, $h = 1 + u^2$, from $u = 2$ and $y = m = 0$, (35) ends at $t = 2$"
        r" at the"
        r" points below; the moments of (34), integrated with their oscillation, approach them as $\eta \to 0$. (Simulations of Adam with"
        r" $\eta = .005$ end at $1.784(5)$ and $1.348(9)$ for $c_1 = 1$ and 5.)",
        r"c_1 = 1:\ 1.7804, \qquad c_1 = 5:\ 1.3554, \qquad c_1 = 50:\ 1.2335 .",
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
