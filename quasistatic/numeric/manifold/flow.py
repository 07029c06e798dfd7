"""manifold_flow: the slow dynamics of a rule on a manifold that nobody parametrised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import sympy as sp
from scipy.integrate import DOP853, OdeSolver

from quasistatic.derivation.law import hyperparameter
from quasistatic.derivation.reduction import Order
from quasistatic.derivation.structure import linear_rule
from quasistatic.errors import HyperparameterError, NoPotential, ProblemError, RuleError, StartError, UnstableError
from quasistatic.model.array_problem import ArrayProblem, flat_point
from quasistatic.model.noise import LabelNoise
from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Array, Progress, number_of, point, resolve, resolve_names, seed_number, whole
from quasistatic.numeric.ensemble import record_steps
from quasistatic.numeric.manifold import project as onto
from quasistatic.numeric.manifold.kernels import LinearFilter
from quasistatic.numeric.manifold.noise import NoiseModel
from quasistatic.numeric.manifold.paths import ManifoldEnsemble, ManifoldTrajectory
from quasistatic.numeric.manifold.preconditioned import Preconditioned, preconditioned
from quasistatic.numeric.manifold.reduction import SILENT, LowRank, ManifoldTerms, PointReduction
from quasistatic.numeric.manifold.regularizer import trace_function
from quasistatic.numeric.manifold.shape import ResidualShape, Shape
from quasistatic.numeric.manifold.symbolic import symbolic_shape
from quasistatic.symbols import natural_sort

#: Euler steps of a whole SDE run, unless ``substeps`` says otherwise.
EULER_STEPS = 500
#: Iterations of the slow states' equilibrium where it depends on itself.
FIXED_POINT = 200


def _values(rule: Rule | Preconditioned, problem: Problem | ArrayProblem, given: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of the rule's hyperparameters and the problem's constants."""
    if isinstance(rule, Rule) and isinstance(problem, Problem):
        return resolve(rule, problem, given)
    symbols = problem.constants if isinstance(problem, Problem) else natural_sort(problem.require_noise().free_symbols)
    if isinstance(rule, Rule) and isinstance(problem, ArrayProblem):
        clash = [s.name for s in symbols if s.name in rule.hyperparameters]
        if clash:
            raise HyperparameterError(
                f"the name {clash[0]} is a hyperparameter of {rule.name} and a symbol of the noise: rename one of them."
            )
        return resolve_names(rule, symbols, problem.functions.shapes, given)
    known = {s.name: s for s in symbols}
    if set(given) != set(known):
        raise HyperparameterError(
            f"{rule.name} has its numbers; the problem's constants are {', '.join(known) or 'none'}, given {list(given)}."
        )
    return {n: number_of(n, s, given[n]) for n, s in known.items()}


def _parts(
    rule: Rule | Preconditioned, problem: Problem | ArrayProblem, values: Mapping[str, float], size: int, leading: str | None
) -> tuple[LinearFilter, Preconditioned | None]:
    """The linear filter, and what else the rule has."""
    if isinstance(rule, Preconditioned):
        if leading is not None:
            raise RuleError("leading=... belongs to the filter of a preconditioned rule: give LinearFilter(..., order=...).")
        return rule.filter, rule
    order = Order() if leading is None else Order(hyperparameter(rule, leading))
    if any(s.slow for s in rule.trace.states):
        blocks: Any = problem.blocks
        if isinstance(problem, Problem):
            blocks = [[problem.parameters.index(p) for p in block] for block in problem.blocks]
        slow = preconditioned(rule, values, size, blocks, order)
        return slow.filter, slow
    linear = linear_rule(rule)
    if linear is None:
        raise RuleError(f"{rule.name} is not one linear filter for every coordinate, which manifold_flow needs.")
    return LinearFilter(linear, values, order), None


def _shape(problem: Problem | ArrayProblem, values: Mapping[str, float]) -> tuple[Shape, float, int]:
    if isinstance(problem, ArrayProblem):
        return ResidualShape(problem.functions, float(problem.scale)), float(problem.scale), problem.count
    scale = float(problem.scale.xreplace({s: sp.Float(values[s.name], 17) for s in problem.scale.free_symbols}))
    shape = symbolic_shape(problem, values)
    count = len(problem.residuals) if problem.residuals is not None and isinstance(shape, ResidualShape) else 0
    if isinstance(problem.noise, LabelNoise) and count == 0:
        raise ProblemError("label noise needs residuals that vanish on the minima; those of this problem do not.")
    return shape, scale, count


class ManifoldFlow:
    """The slow dynamics at points of the manifold; made by :func:`quasistatic.manifold_flow`. All rates are per iteration.

    A point is an array (d,) or a mapping: of the parameters' names to numbers, or for an :class:`ArrayProblem` of its
    arrays' names to arrays. It is taken as it is: :meth:`project` first what is not on the manifold.

    Attributes
    ----------
    rule, problem:
        What it was made from.
    values:
        Name to number of hyperparameters and constants.
    """

    def __init__(
        self,
        rule: Rule | Preconditioned,
        problem: Problem | ArrayProblem,
        values: Mapping[str, float],
        filter_: LinearFilter,
        slow: Preconditioned | None,
        shape: Shape,
        noise: NoiseModel,
        scale: float,
    ) -> None:
        self.rule, self.problem, self.values = rule, problem, dict(values)
        self._filter, self._slow, self._shape, self._noise, self._scale = filter_, slow, shape, noise, scale
        self._ones = np.ones(shape.size)
        self._rank: int | None = None

    @classmethod
    def make(cls, rule: Rule | Preconditioned, problem: Problem | ArrayProblem, leading: str | None, given: Mapping[str, Any]) -> Self:
        """The flow of a rule on a problem, see :func:`quasistatic.manifold_flow`."""
        if not isinstance(problem, (Problem, ArrayProblem)):
            raise ProblemError(f"{problem!r} is not a problem: use qs.Problem, qs.Problem.from_residuals or qs.ArrayProblem.")
        if not isinstance(rule, (Rule, Preconditioned)):
            raise RuleError(f"{rule!r} is not an update rule: decorate the function with @qs.optimizer.")
        noise = problem.require_noise()
        values = _values(rule, problem, given)
        shape, scale, count = _shape(problem, values)
        filter_, slow = _parts(rule, problem, values, shape.size, leading)
        symbols = problem.parameters if isinstance(problem, Problem) else ()
        model = NoiseModel(noise, scale, count, values, symbols, shape.size)
        if model.batch is not None and model.silent:
            raise ProblemError(
                "nothing drifts at this order: where all residuals vanish, drawing minibatches makes no noise of its own; without label"
                " noise (sigma = 0) there is no flow to print."
            )
        return cls(rule, problem, values, filter_, slow, shape, model, scale)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={v:g}" for k, v in self.values.items())
        return f"<manifold flow of {self.rule.name} in {self.size} parameters; {numbers}>"

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return self._shape.size

    @property
    def gain(self) -> float:
        """Net displacement of a flat direction per unit gradient kick."""
        return self._filter.gain

    @property
    def has_slow_states(self) -> bool:
        """Whether the rule has a preconditioner that moves slowly."""
        return self._slow is not None

    # -- points --------------------------------------------------------------------------------------------------------

    def point(self, z: Any) -> Array:
        """A point as an array (d,)."""
        if isinstance(self.problem, ArrayProblem):
            return self.problem.pack(z)
        if isinstance(z, Mapping):
            return point(z, self.problem.parameters, "parameter")
        return flat_point(z, self.size)

    def _root(self, z: Array, slow: Any) -> Array:
        v = self._slow_at(z, slow)
        return self._ones if self._slow is None or v is None else self._slow.root(v, self.size)

    def _at(self, z: Any, slow: Any = None) -> PointReduction:
        here = self.point(z)
        v = self._slow_at(here, slow)
        root = self._ones if self._slow is None or v is None else self._slow.root(v, self.size)
        local = self._shape.local(here, root)
        self._require_rank(len(local.curvature), here)
        return PointReduction(self._filter, local, self._noise, here, root, self._displacement(here, v), self._scale)

    def _slow_at(self, z: Array, slow: Any) -> Array | None:
        """The slow states given, or their equilibrium; None for a rule without."""
        if self._slow is None:
            if slow is not None:
                raise RuleError(f"{self.rule.name} has no slow states to give.")
            return None
        return self.slow_states(z) if slow is None else self._slow.states(slow, self.size)

    def _displacement(self, z: Array, v: Array | None) -> Array | None:
        if self._slow is not None and v is not None:
            return None if self._slow.force is None else self._slow.force(z, v)
        if not self._filter.linear.has_force:
            return None
        return self._filter.pull * z + self._filter.shift

    def _require_rank(self, rank: int, z: Array) -> None:
        if self._rank is None:
            self._set_rank(z)
        if rank != self._rank:
            shown = ", ".join(f"{x:.6g}" for x in z[:6])
            raise UnstableError(
                f"the Jacobian of the residuals has rank {rank} at z = ({shown}{', ...' if len(z) > 6 else ''}), {self._rank} elsewhere:"
                " the manifold is degenerate there, and the theory ends."
            )

    def _set_rank(self, z: Array) -> None:
        """The rank at a generic point near the first one; a user's derivatives are checked there too."""
        if isinstance(self.problem, ArrayProblem):
            self.problem.check_derivatives(z)
        rng = np.random.default_rng(0)
        kick = 1e-3 * max(1e-3, float(np.abs(z).max())) * rng.standard_normal(self.size)
        local = self._shape.local(z, self._ones)
        kick -= local.normals @ (local.normals.T @ kick)
        try:
            near = onto.newton(self._shape, z + kick, self._ones)
            self._rank = len(self._shape.local(near, self._ones).curvature)
        except StartError:
            self._rank = len(local.curvature)
        if self._rank == 0:
            raise ProblemError("all residuals are constant here: there is no manifold of minima to speak of.")
        if self._rank >= self.size:
            self._rank = None
            raise ProblemError("the residuals have an isolated zero: there is no manifold along which anything could drift.")

    def project(self, z: Any, method: str = "gauss-newton", slow: Any = None) -> Array:
        """The manifold point that belongs to an iterate, (d,).

        Parameters
        ----------
        method:
            "gauss-newton": the nearest point to first order, in the metric S^-1; or "limit": where the rule without
            noise takes z with its memories at rest. They differ by the square of the distance.
        slow:
            Slow states (m,), at their equilibrium by default.

        Raises
        ------
        StartError
            If there is no point of zero residual near z, with the residual that was reached.
        """
        if method not in ("gauss-newton", "limit"):
            raise RuleError(f'project: method={method!r} is neither "gauss-newton" nor "limit".')
        here = self.point(z)
        root = self._root(here, slow)
        if method == "limit":
            return onto.limit(self._shape, here, self._filter, root, rank=self._rank)
        return onto.newton(self._shape, here, root, self._rank)

    # -- the reduction at a point --------------------------------------------------------------------------------------

    def terms(self, z: Any, slow: Any = None) -> ManifoldTerms:
        """The parts of E[dz] per iteration, each (d,)."""
        return self._at(z, slow).terms()

    def drift(self, z: Any, slow: Any = None) -> Array:
        """E[dz] per iteration, (d,): flatness, correlation and small forces along the manifold, the Ito term across it."""
        at = self._at(z, slow)
        return at.drift() + at.ito()

    def diffusion(self, z: Any, slow: Any = None) -> Array:
        """Cov[dz] per iteration, (d, d)."""
        factor = self.diffusion_factor(z, slow)
        return factor @ factor.T

    def diffusion_factor(self, z: Any, slow: Any = None) -> Array:
        """F (d, m) with F F^T the diffusion; m = 0 where nothing diffuses."""
        kick = self._at(z, slow).kick()
        return np.zeros((self.size, 0)) if kick is None else kick

    def covariance(self, z: Any, slow: Any = None) -> Array:
        """Equilibrium covariance of the parameters' fast part, (d, d)."""
        return self._at(z, slow).covariance().dense()

    def covariance_factors(self, z: Any, slow: Any = None) -> LowRank:
        """The same as left core left^T (+ rest rest^T), for many parameters."""
        return self._at(z, slow).covariance()

    def curvatures(self, z: Any) -> Array:
        """Nonzero eigenvalues of the Hessian (of S^(1/2) H S^(1/2) with a preconditioner), descending."""
        return self._at(z).local.curvature

    def hessian_trace(self, z: Any) -> float:
        """Trace of the loss's Hessian."""
        return float(self._shape.diagonal(self.point(z)).sum())

    def slow_states(self, z: Any) -> Array:
        """Equilibrium of the slow states, (m,): V(Sigma), and unless at leading order the fluctuation's own gradient besides.

        Raises
        ------
        RuleError
            Where the rule has none, or they have no equilibrium.
        """
        slow, here = self._require_slow(), self.point(z)
        noise = self._noise.diagonal(self._shape, here)
        first = slow.equilibrium(noise, here)
        if slow.fluctuation and noise.min() <= SILENT * noise.max():
            raise RuleError(
                f"{self.rule.name}: the noise does not reach every coordinate here, so the second moment of one comes from the fluctuation,"
                " which depends on it in turn. Let the slow states move: slow=..., adiabatic=False."
            )
        return slow.equilibrium(self._squares(here, first), here) if slow.fluctuation else first

    def _squares(self, z: Array, v: Array) -> Array:
        """E[g_i^2] at slow states v, (d,)."""
        plain = self._noise.diagonal(self._shape, z)
        return self._at(z, v).second_moments(plain) if self._require_slow().fluctuation else plain

    def _require_slow(self) -> Preconditioned:
        if self._slow is None:
            raise RuleError(f"{self.rule.name} has no slow states.")
        return self._slow

    def slow_drift(self, z: Any, slow: Any) -> Array:
        """dv per iteration, (m,)."""
        rule, here = self._require_slow(), self.point(z)
        v = rule.states(slow, self.size)
        return np.asarray(rule.source(self._squares(here, v), here) - rule.rate * v, dtype=np.float64)

    def check(self, z: Any, slow: Any = None) -> None:
        """Raise UnstableError, with the broken inequality, where a direction across the manifold does not settle at z."""
        at = self._at(z, slow)
        self._filter.require_stable(at.local.curvature, at.where)
        _ = at.core  # minibatches have a condition of their own

    def sizes(self, z: Any) -> dict[str, float]:
        """What the theory neglects at a point, by name; each number should be small against 1."""
        here = self.start(z)
        at = self._at(here)
        drift, c = at.drift(), at.local.curvature
        length = float(np.linalg.norm(drift))
        found = {"fast variance / size of the point": float(at.covariance().diagonal().sum() / (here @ here))}
        if length > 0:
            # the drift's change along itself, which is what the path meets
            h = 1e-4 * max(1.0, float(np.linalg.norm(here)))
            ends = [self.drift(self.project(here + s * h * drift / length)) for s in (1, -1)]
            found = {"slow rate / fast rate": float(np.linalg.norm(ends[0] - ends[1])) / (2 * h) / self._filter.fast_rate(c), **found}
        if np.any(at.force()):
            found["force per step"] = float(np.abs(at.force()).max())
        return found

    def equilibrium(self, z: Any, count: int, seed: int = 0) -> Array:
        """States (count, 1 + q, d) at z: the parameter, then the rule's states in its own order.

        The fast part across the manifold is drawn from its equilibrium, slow states are at theirs.
        """
        stream = np.random.default_rng([seed_number(seed), 1])
        if self._slow is None:
            return self._at(z).equilibrium(count, stream)
        if not isinstance(self.rule, Rule):
            raise RuleError(f"{self.rule.name} was given as a filter and functions: its own states are not known.")
        v = self.slow_states(z).reshape(-1, self.size)
        fast = iter(np.moveaxis(self._at(z, v.ravel()).equilibrium(count, stream, self._slow.powers), 1, 0))
        found = [next(fast)]
        for state in self.rule.trace.states:
            found.append(np.repeat(v[self._slow.names.index(state.name)][None], count, axis=0) if state.slow else next(fast))
        return np.stack(found, axis=1)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def start(self, z: Any, slow: Any = None) -> Array:
        """The manifold point (d,) of a start, checked: stable, with a Jacobian of full rank and right derivatives."""
        here = self.project(z, slow=slow)
        self.check(here, slow)
        return here

    def trajectory(
        self, z0: Any, steps: int, record: int = 100, *, slow: Any = None, adiabatic: bool = True, rtol: float = 1e-8,
        progress: Progress | None = None,
    ) -> ManifoldTrajectory:  # fmt: skip
        """The ODE dz/dk = drift(z) along the manifold, without noise.

        Where the noise diffuses along the manifold this is the path of the drift alone, not the mean of the paths.

        Parameters
        ----------
        z0:
            Start; moved to the manifold by Gauss-Newton.
        steps:
            Iterations.
        record:
            Number of equally spaced records from 0 to ``steps``; 1 is the end alone.
        slow:
            Slow states (m,) at the start, with ``adiabatic=False``; at their equilibrium by default.
        adiabatic:
            Whether slow states follow the point at their equilibrium, or move at their own rate.
        rtol:
            Relative accuracy of the integration.

        Raises
        ------
        StartError
            If there is no point of zero residual near the start.
        UnstableError
            If a direction does not settle, or the Jacobian loses rank, at a record: where, is said.
        """
        times = record_steps(whole(steps, "steps"), whole(record, "record")).astype(np.float64)
        moving = self._slow is not None and not adiabatic
        if slow is not None and not moving:
            raise RuleError("slow=... is the start of slow states that move: it needs adiabatic=False.")
        here = self.start(z0, slow)
        v0 = self._slow_at(here, slow) if moving else None
        first = here if v0 is None else np.concatenate([here, v0])
        path = _Path(self._field(moving), first, float(times[-1]), rtol)
        d, zs, vs = self.size, [], []
        for i, time in enumerate(times):
            state = path.at(float(time))
            v = state[d:] if moving else None
            z = onto.newton(self._shape, state[:d], self._root(state[:d], v), self._rank)
            self.check(z, v)
            zs.append(z)
            vs.append(state[d:])
            if progress is not None:
                progress(i + 1, len(times))
        return ManifoldTrajectory(times, np.array(zs), np.array(vs) if moving else None, path.evaluations)

    def _field(self, moving: bool) -> Callable[[float, Array], Array]:
        d = self.size
        if not moving:
            return lambda _, z: self._at(z).drift()

        def both(_: float, state: Array) -> Array:
            z, v = state[:d], state[d:]
            return np.concatenate([self._at(z, v).drift(), self.slow_drift(z, v)])

        return both

    def sde_trajectory(
        self, z0: Any, steps: int, trajectories: int = 16, seed: int = 0, record: int = 20, substeps: int | None = None,
        normals: Callable[[int, int], Array] | None = None, progress: Progress | None = None,
    ) -> ManifoldEnsemble:  # fmt: skip
        """The Ito SDE on the manifold: Euler steps along it, each brought back by Gauss-Newton (which is the Ito term).

        Parameters
        ----------
        z0:
            One start for all.
        steps, trajectories, record:
            Iterations, number of paths, number of records.
        seed:
            The numbers of path i depend on (seed, i) only.
        substeps:
            Euler steps between two records; by default such that a run has about 500, none shorter than an iteration.
        normals:
            ``normals(path, step)``, the (m,) standard normals of an Euler step (from 0) instead of random ones: to drive
            paths by the optimizer's own noise. m is that of :meth:`diffusion_factor`.

        Slow states are at their equilibrium.
        """
        times = record_steps(whole(steps, "steps"), whole(record, "record"))
        N = whole(trajectories, "trajectories")
        streams = [np.random.default_rng([seed_number(seed), i]) for i in range(N)]
        here = self.start(z0)
        rows = np.repeat(here[None], N, axis=0)
        means, variances, now, done = [], [], 0, 0
        for i, time in enumerate(times):
            length = int(time) - now
            parts = 0 if length == 0 else whole(substeps, "substeps") if substeps else self._substeps(length, int(times[-1]))
            for _ in range(parts):
                for p in range(N):
                    given = None if normals is None else (lambda p=p, k=done: normals(p, k))
                    rows[p] = self._euler(rows[p], length / parts, streams[p], given)
                done += 1
            now = int(time)
            means.append(rows.mean(axis=0))
            variances.append(rows.var(axis=0, ddof=1) if N > 1 else np.zeros(self.size))
            if progress is not None:
                progress(i + 1, len(times))
        return ManifoldEnsemble(times.astype(np.float64), np.array(means), np.array(variances), rows, int(seed))

    @staticmethod
    def _substeps(length: int, end: int) -> int:
        return min(length, max(1, round(EULER_STEPS * length / end)))

    def _euler(self, z: Array, dt: float, stream: np.random.Generator, given: Callable[[], Array] | None) -> Array:
        at = self._at(z)
        moved = z + dt * at.drift()
        factor = at.kick()
        if factor is not None:
            draw = np.asarray(stream.standard_normal(factor.shape[1]) if given is None else given(), dtype=np.float64)
            if draw.shape != (factor.shape[1],):
                raise StartError(f"normals returned shape {draw.shape}; the diffusion has {factor.shape[1]} columns.")
            moved = moved + np.sqrt(dt) * factor @ draw
        return onto.newton(self._shape, moved, at.root, self._rank)

    # -- the potential -------------------------------------------------------------------------------------------------

    def regularizer(self, z: Any) -> float:
        """tr rho(H): the function that the drift without its Ito part descends along the manifold, per iteration.

        For Hessian noise, and label noise of the full batch, from rho(0) = 0; for isotropic noise from rho(1) = 0; with
        small forces their potential besides.

        Raises
        ------
        NoPotential
            For other noise, for minibatches, and for rules with slow states, where the drift in general has no potential.
        """
        if self._slow is not None:
            raise NoPotential(f"{self.rule.name} has a preconditioner: its drift is not the gradient of a trace function of the Hessian.")
        kind = self._noise.proportional
        if kind is None:
            raise NoPotential(
                "the noise is neither a constant times the Hessian nor a constant times the normal projector: in general the drift has"
                " no potential, and without a chart there is no test for one."
            )
        at = self._at(z)
        total = trace_function(self._filter, at.local.curvature, self._noise.strength(at.z), kind == "hessian")
        if self._filter.linear.has_force:
            total -= self._filter.pull * float(at.z @ at.z) / 2 + self._filter.shift * float(at.z.sum())
        return total


class _Path:
    """An ODE integrated as far as asked for, with dense output; the residuals are constant along the exact field."""

    def __init__(self, field: Callable[[float, Array], Array], first: Array, end: float, rtol: float) -> None:
        size = float(np.abs(first).max()) or 1.0
        self._first, self._end = first, end
        self._solver: OdeSolver = DOP853(field, 0.0, first, end, rtol=rtol, atol=1e-3 * rtol * size)
        self._dense: Any = None

    @property
    def evaluations(self) -> int:
        """Right-hand sides so far."""
        return int(self._solver.nfev)

    def at(self, time: float) -> Array:
        """The state at a time not before the last one asked for."""
        if time == 0:
            return self._first
        while self._solver.t < time:
            message = self._solver.step()
            if self._solver.status == "failed" or not np.isfinite(self._solver.y).all():
                raise UnstableError(f"the slow dynamics ends at iteration {self._solver.t:.6g}: {message}")
            self._dense = self._solver.dense_output()
        return np.asarray(self._dense(time), dtype=np.float64)
