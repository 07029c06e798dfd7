"""The table of symbols that a document starts with: what each stands for, and its unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sympy as sp

from quasistatic.algebra.field import normal
from quasistatic.derivation.kernel import LAMBDA, LAMBDA_I
from quasistatic.derivation.law import ALPHA, BATCH, SIGMA_STRENGTH, LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.model.noise import HessianNoise, IsotropicNoise, SumNoise
from quasistatic.show import notation
from quasistatic.show.notation import operations
from quasistatic.show.steps import Step, dt_factor
from quasistatic.show.typeset import Sentence, escape, symbol_tex, tex

Row = tuple[str, str, str]
NONE = "--"
#: Coefficients larger than this are not looked at for units.
LARGEST = 3000
#: Symbols listed in one row.
MOST = 8
TABLE = r"""\begin{center}\small\renewcommand{\arraystretch}{1.15}
\begin{tabular}{@{}p{0.18\linewidth}p{0.58\linewidth}l@{}}
\hline
Symbol & Meaning & Unit \\
\hline
ROWS
\hline
\end{tabular}
\end{center}"""


def table_step(rows: Iterable[Row], parameter: sp.Symbol) -> Step:
    """The table, its units in terms of those of a parameter and of the loss."""
    lines = [rf"{symbol} & {meaning} & {unit} \\" for symbol, meaning, unit in rows]
    text = (
        rf"Units are given by those of a parameter, $[{tex(parameter)}]$, and of the loss, $[f]$; a dash stands where the problem or"
        " the rule decides."
    )
    body = TABLE.replace("ROWS", "\n".join(lines))
    return Step("Notation", (Sentence(text), Sentence(body)))


def _dollar(text: str) -> str:
    return f"${text}$"


def unit(parameter: sp.Symbol, z: int, f: int) -> str:
    """[f]^f [z]^z in LaTeX."""
    names = {"[f]": f, f"[{tex(parameter)}]": z}
    top, bottom = (
        r"\,".join(name if abs(p) == 1 else f"{name}^{{{abs(p)}}}" for name, p in names.items() if p * sign > 0) for sign in (1, -1)
    )
    if not top and not bottom:
        return "1"
    return _dollar(f"{top or '1'}/{bottom}" if bottom else top)


# -- units of hyperparameters ------------------------------------------------------------------------------------------


def powers_of_gain(law: LawResult) -> dict[sp.Symbol, sp.Rational]:
    """The units of hyperparameters as powers of the gain's, as far as the law decides them.

    The gain is one unit, the coefficients of H^a V H^b and H^a Sigma H^b are a+b-1 and a+b+1 of it; sums have one unit.
    """
    symbols = [*law.rule.hyperparameters.values()]
    rows: list[list[sp.Rational]] = []
    left, right = law.matrix_coefficients
    known = [(law.gain, 1)]
    known += [(c, a + b - 1) for (a, b), c in left.items()] + [(c, a + b + 1) for (a, b), c in right.items()]
    for expression, power in known:
        # a root or an exponential of a hyperparameter says nothing about units here
        if operations(expression) <= LARGEST and expression.is_rational_function(*symbols):
            rows += _homogeneous(expression, power, symbols)
    return _decided(rows, symbols)


def _homogeneous(expression: sp.Expr, power: int, symbols: Sequence[sp.Symbol]) -> list[list[sp.Rational]]:
    """Equations for the powers: all terms of the numerator are alike, all of the denominator, and their ratio is known."""
    if not symbols:
        return []
    top, bottom = (sp.Poly(part, *symbols).monoms() for part in sp.fraction(normal(expression)))
    alike = [[a - b for a, b in zip(m, group[0], strict=True)] + [0] for group in (top, bottom) for m in group[1:]]
    return [*alike, [a - b for a, b in zip(top[0], bottom[0], strict=True)] + [power]]


def _decided(rows: Sequence[Sequence[sp.Rational]], symbols: Sequence[sp.Symbol]) -> dict[sp.Symbol, sp.Rational]:
    if not rows:
        return {}
    reduced, pivots = sp.Matrix([list(r) for r in rows]).rref()
    if len(symbols) in pivots:
        return {}
    return {symbols[p]: reduced[k, -1] for k, p in enumerate(pivots) if not any(reduced[k, j] for j in range(p + 1, len(symbols)))}


def _hyperparameters(result: SlowResult | LawResult) -> list[Row]:
    law = notation.law_of(result) if isinstance(result, SlowResult) else result
    powers: Mapping[sp.Symbol, sp.Rational] = {} if law is None else powers_of_gain(law)
    z = result.rule.trace.parameter
    rows = []
    for name, symbol in result.rule.hyperparameters.items():
        power = powers.get(symbol)
        shown = NONE if power is None or not power.is_Integer else unit(z, 2 * int(power), -int(power))
        rows.append((_dollar(symbol_tex(name)), rf"hyperparameter \texttt{{{escape(name)}}}", shown))
    return rows


# -- rows --------------------------------------------------------------------------------------------------------------


def _rule_rows(result: SlowResult | LawResult) -> list[Row]:
    trace = result.rule.trace
    z, *states = trace.variables
    rows = [
        (_dollar(tex(z)), "one of the parameters", unit(z, 1, 0)),
        (_dollar(tex(trace.gradient)), "its stochastic gradient", unit(z, -1, 1)),
    ]
    if states:
        words = "what the rule remembers for it" if len(states) == 1 else "what the rule remembers for it, one number each"
        rows.append((_listed(states), words, NONE))
    return [*_hyperparameters(result), *rows]


def _listed(symbols: Sequence[sp.Symbol]) -> str:
    if len(symbols) > MOST:
        return rf"${tex(symbols[0])}$, \ldots, ${tex(symbols[-1])}$"
    return ", ".join(_dollar(tex(s)) for s in symbols)


def _time_row(result: SlowResult | LawResult) -> Row:
    linear = result.linear
    if linear is None or not linear.continuous:
        return "$k$", "time: the number of iterations", "iteration"
    return rf"$t = k\,{dt_factor(linear)}$", "time, after $k$ iterations", NONE


def _common_rows(z: sp.Symbol, curvature: str) -> list[Row]:
    return [
        ("$f$", "loss", unit(z, 0, 1)),
        (r"$H = \nabla^2 f$", "true Hessian on the minima", unit(z, -2, 1)),
        (_dollar(curvature), "curvature across the minima: an eigenvalue of $H$", unit(z, -2, 1)),
        (r"$\Sigma$", "covariance of the gradient noise", unit(z, -2, 2)),
        ("$V$", "equilibrium covariance of the parameters", unit(z, 2, 0)),
    ]


def slow_table(result: SlowResult) -> Step:
    """Symbols of slow dynamics on a problem."""
    problem, z = result.problem, result.rule.trace.parameter
    rows = _rule_rows(result) + _constants(result)
    rows.append((_listed(problem.parameters), "the parameters" if len(problem.parameters) > 1 else "the parameter", unit(z, 1, 0)))
    coordinates = problem.chart.coordinates
    own = all(u in problem.parameters for u in coordinates)
    words = f"coordinate{'s' if len(coordinates) > 1 else ''} of the manifold of minima, in general $u$"
    rows.append((_listed(coordinates), words, unit(z, 1, 0) if own else NONE))
    rows += _common_rows(z, r"\lambda")
    if result.linear is not None:
        rows.append((r"$\gamma$", "gain: what a unit kick of the gradient displaces in the end", unit(z, 2, -1)))
    return table_step([*rows, _time_row(result)], z)


def _constants(result: SlowResult) -> list[Row]:
    problem, z = result.problem, result.rule.trace.parameter
    noise = problem.noise
    known = {}
    for part in noise.parts if isinstance(noise, SumNoise) else (noise,):
        if isinstance(part, HessianNoise):
            known[part.alpha] = ("strength of the noise", unit(z, 0, 1))
        if isinstance(part, IsotropicNoise):
            where = "in tangent directions" if part.tangent_only else "in every direction"
            known[part.sigma] = (f"strength of the noise {where}", unit(z, -1, 1))
    rows = [(_dollar(symbol_tex(str(h))), "function of the problem, left open", NONE) for h in problem.unknown_functions]
    for s in sorted(problem.constants, key=lambda c: str(c.name)):
        words, units = known.get(s, (rf"constant \texttt{{{escape(s.name)}}} of the problem", NONE))
        rows.append((_dollar(tex(s)), words, units))
    return rows


def law_table(result: LawResult) -> Step:
    """Symbols of a law for any loss."""
    z = result.rule.trace.parameter
    rows = [
        *_rule_rows(result),
        *_common_rows(z, tex(LAMBDA_I)),
        (r"$K$", r"kernel, $V_{ij} = K(\lambda_i, \lambda_j)\, \Sigma_{ij}$", unit(z, 4, -2)),
        (r"$\gamma$", "gain: what a unit kick of the gradient displaces in the end", unit(z, 2, -1)),
        (r"$\Pi$", "orthogonal projection on the flat directions", "1"),
        (_dollar(rf"\rho({tex(LAMBDA)})"), r"what is minimised is $\operatorname{tr} \rho(H)$", NONE),
        (_dollar(tex(ALPHA)), r"strength of noise with covariance proportional to the Hessian", unit(z, 0, 1)),
        (_dollar(tex(SIGMA_STRENGTH)), "strength of noise that is the same in all directions", unit(z, -1, 1)),
        (_dollar(tex(BATCH)), "batch size", "1"),
        _time_row(result),
    ]
    return table_step(rows, z)
