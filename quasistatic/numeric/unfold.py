"""From the record of a rule (one coordinate, elementwise) to one iteration on all coordinates of a problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import sympy as sp

from quasistatic.errors import ProblemError, RuleError
from quasistatic.model.noise import CovarianceNoise, Factor, LabelNoise, Noise, SumNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Query, Rule
from quasistatic.numeric.arguments import Array
from quasistatic.numeric.emit import require_closed
from quasistatic.numeric.kernel import StochasticMap
from quasistatic.symbols import BlockMean, Mean


@lru_cache(maxsize=64)
def unfold(rule: Rule, problem: Problem, noisy: bool = True, silent: frozenset[str] = frozenset()) -> StochasticMap:
    """One iteration of the rule: all parameters, then state 1 of every parameter, then state 2, ...

    Parameters
    ----------
    noisy:
        Whether gradients carry the problem's noise.
    silent:
        Names of constants that are 0: a noise strength of 0 changes the rank of the noise factor.

    Raises
    ------
    RuleError
        For more than one gradient per iteration, or one that is not at the current parameter.
    ProblemError
        Where an unknown function is still open, or the noise has no factor away from the manifold.
    """
    return _Unfolding(rule, problem, noisy, silent).run().lifted()


class _Unfolding:
    def __init__(self, rule: Rule, problem: Problem, noisy: bool, silent: frozenset[str]) -> None:
        self.rule, self.problem, self.noisy, self.silent = rule, problem, noisy, silent
        self.assignments: list[tuple[sp.Symbol, sp.Expr]] = []
        self.normals: list[sp.Symbol] = []
        self.data: dict[sp.Symbol, float] = {}
        self.means: dict[tuple[sp.Expr, int], sp.Symbol] = {}
        d = len(problem.parameters)
        states = [[_symbol(f"{s.name} {p.name}") for p in problem.parameters] for s in rule.trace.states]
        self.variables = [*problem.parameters, *(s for row in states for s in row)]
        self.local: list[dict[sp.Symbol, sp.Expr]] = [
            dict(zip(rule.trace.variables, [self.variables[i], *(row[i] for row in states)], strict=True)) for i in range(d)
        ]
        self.block = {p: b for b, block in enumerate(problem.blocks) for p in block}

    def run(self) -> StochasticMap:
        require_closed([self.problem.loss, *(self.problem.chart.embedding if self.problem.has_chart else ())], "problem")
        for query in self.rule.trace.queries:
            self.ask(query)
        shared = self.shared_symbols()
        for local in self.local:
            local.update(shared)
        d = len(self.problem.parameters)
        updates = tuple(self.at(u, i) for u in self.rule.trace.updates for i in range(d))
        t = self.rule.trace.iteration
        arguments = (*self.rule.hyperparameters.values(), *self.problem.constants)
        return StochasticMap(
            tuple(self.variables), arguments, tuple(self.normals), tuple(self.assignments), updates,
            None if t is None else shared[t], self.data,
        )  # fmt: skip

    def ask(self, query: Query) -> None:
        """Assign the gradient of every coordinate for one query."""
        if query is not self.rule.trace.queries[0] or query.point != self.rule.trace.parameter or query.sample != "this step":
            raise RuleError(f"{self.rule.name}: a gradient other than one per iteration at the current parameter is not supported yet.")
        noise = self.strengths(self.problem.require_noise()) if self.noisy else None
        factor = None if noise is None else self.factor(noise)
        for i, (p, value) in enumerate(zip(self.problem.parameters, self.gradient(noise, factor), strict=True)):
            g = _symbol(f"{query.name} {p.name}")
            self.assignments.append((g, value))
            self.local[i][query.symbol] = g

    def gradient(self, noise: Noise | None, factor: sp.ImmutableMatrix | None) -> list[sp.Expr]:
        """The stochastic gradient, d expressions in the assignments."""
        if self.problem.residuals is None:
            plain = list(self.problem.gradient)
        else:
            sigma = noise.sigma if isinstance(noise, LabelNoise) and self.normals else sp.Integer(0)
            pulls = self.pulls(self.problem.residuals, sigma)
            plain = _pulled_back(self.problem.residuals, self.problem.parameters, pulls)
            if sigma != 0:  # the noise is in the residuals: one product with J^T instead of two
                return plain
        return plain if factor is None else [g + _dot(factor[i, :], self.normals) for i, g in enumerate(plain)]

    def pulls(self, residuals: tuple[sp.Expr, ...], sigma: sp.Expr) -> list[sp.Expr]:
        """Assign 2 scale (r_j + sigma n_j), the factors of J^T in the gradient."""
        found: list[sp.Expr] = []
        for j, r in enumerate(residuals):
            found.append(_symbol(f"pull {j}"))
            noisy = r if sigma == 0 else r + sigma * self.normals[j]
            self.assignments.append((found[-1], sp.Mul(2 * self.problem.scale, noisy, evaluate=False)))
        return found

    def factor(self, noise: Noise) -> sp.ImmutableMatrix | None:
        """Assign the noise factor; its matrix C (d, r), or None where there is nothing to draw, or it is in the residuals."""
        if isinstance(noise, LabelNoise):
            noise.check(self.problem)
            noise.require_additive()
            self.normals += [_symbol(f"n {j}") for j in range(0 if noise.sigma == 0 else len(self.problem.residuals or ()))]
            return None
        factor: Factor = noise.factor(self.problem)
        if factor.rank == 0 or factor.matrix.is_zero_matrix:
            return None
        self.assignments += factor.assignments
        self.normals += [_symbol(f"n {j}") for j in range(factor.rank)]
        return factor.matrix

    def strengths(self, noise: Noise) -> Noise:
        """The noise with strengths of 0 put in (a Cholesky factor would divide by them), other numbers taken out."""
        parts = noise.parts if isinstance(noise, SumNoise) else (noise,)
        lift = not any(isinstance(p, CovarianceNoise) for p in parts)

        def change(e: sp.Expr) -> sp.Expr:
            e = e.xreplace({s: sp.Integer(0) for s in e.free_symbols if s in self.problem.constants and s.name in self.silent})
            if not lift or not e.is_number or e == 0:
                return e
            symbol = sp.Symbol(f"strength {len(self.data)}", positive=True)
            self.data[symbol] = float(e)
            return symbol

        return noise.map(change)

    def shared_symbols(self) -> dict[sp.Symbol, sp.Expr]:
        """Fixed hyperparameters and the iteration number: the same for every coordinate."""
        found: dict[sp.Symbol, sp.Expr] = {}
        exponents = {s for u in self.rule.trace.updates for power in u.atoms(sp.Pow) for s in power.exp.free_symbols}
        for symbol, value in self.rule.fixed_symbols.items():
            # 0 and 1 change the structure: tau = 0 takes a whole term away; a power of 1/2 is a square root, five times as fast
            if value in (0, 1) or symbol in exponents:
                found[symbol] = value
            else:
                found[symbol] = sp.Symbol(f"fixed {symbol.name}", positive=True)
                self.data[found[symbol]] = float(value)
        if self.rule.trace.iteration is not None:
            found[self.rule.trace.iteration] = sp.Symbol("t iteration", positive=True)
        return found

    def at(self, e: sp.Expr, i: int) -> sp.Expr:
        """An expression of the rule at coordinate i; means become assignments."""
        if not e.has(Mean, BlockMean):
            return e.xreplace(self.local[i])
        if isinstance(e, (Mean, BlockMean)):
            return self.mean(e, i)
        return e.func(*(self.at(a, i) for a in e.args))

    def mean(self, e: sp.Expr, i: int) -> sp.Symbol:
        """The variable with the mean over all coordinates, or over the block of coordinate i."""
        parameters = self.problem.parameters
        block = self.block[parameters[i]] if isinstance(e, BlockMean) else -1
        if (e, block) not in self.means:
            members = [j for j, p in enumerate(parameters) if block < 0 or self.block[p] == block]
            total = sp.Add(*(self.at(e.args[0], j) for j in members))
            symbol = self.means[e, block] = _symbol(f"mean {len(self.means)}")
            self.assignments.append((symbol, total / len(members)))
        return self.means[e, block]


def _dot(coefficients: Iterable[sp.Expr], symbols: Sequence[sp.Expr]) -> sp.Expr:
    return sp.Add(*(c * s for c, s in zip(coefficients, symbols, strict=True) if c != 0))


def _pulled_back(residuals: Sequence[sp.Expr], parameters: Sequence[sp.Symbol], pulls: Sequence[sp.Expr]) -> list[sp.Expr]:
    """J^T pulls, term by term: a large problem's residuals have few of the parameters each."""
    known = set(parameters)
    entries: dict[sp.Symbol, list[sp.Expr]] = {p: [] for p in parameters}
    for residual, pull in zip(residuals, pulls, strict=True):
        row: dict[sp.Symbol, list[sp.Expr]] = {}
        for term in sp.Add.make_args(residual):
            for p in term.free_symbols & known:
                row.setdefault(p, []).append(_slope(term, p))
        for p, slopes in row.items():
            entries[p].append(sp.Add(*slopes) * pull)
    return [sp.Add(*entries[p]) for p in parameters]


def _slope(term: sp.Expr, p: sp.Symbol) -> sp.Expr:
    """The derivative of a term; of a product of symbols without SymPy's machinery, which takes most of the time otherwise."""
    if isinstance(term, sp.Mul) and all(a.is_Symbol or a.is_Number for a in term.args):
        return sp.Mul(*(a for a in term.args if a != p))
    return term.diff(p)


def _symbol(name: str) -> sp.Symbol:
    """A real symbol; the space in its name keeps it apart from the user's."""
    if " " not in name:
        raise ProblemError(f"{name!r} could clash with a symbol of the problem.")
    return sp.Symbol(name, real=True)


def silent_names(values: Mapping[str, float]) -> frozenset[str]:
    """Names whose value is exactly 0."""
    return frozenset(n for n, v in values.items() if v == 0)


def map_numbers(step: StochasticMap, values: Mapping[str, float]) -> Array:
    """The argument vector of a kernel of this map."""
    return np.array([*(values[s.name] for s in step.arguments), *step.numbers], dtype=np.float64)
