"""A small network on real data: scikit-learn's digits, trained to zero residual, then driven along its minima by label noise.

64-60-1 tanh network with hidden biases (3960 weights), readout scaled by 1/sqrt(60), classes 5 to 9 against 0 to 4 on 100
images, loss (1/2n) sum r_i^2. :func:`setup` makes the problem and its start, :func:`run` simulates and measures, :func:`predict`
is the theory; :mod:`quasistatic.studies.digits_figure` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.dynamics import manifold_flow
from quasistatic.errors import HyperparameterError, QuasistaticError
from quasistatic.manifold import ManifoldFlow
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import LabelNoise
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress
from quasistatic.numeric.array_simulate import ArraySimulator, resolve_array
from quasistatic.numeric.ensemble import record_steps
from quasistatic.studies.least_squares import descend, fit
from quasistatic.validate import Row
from quasistatic.zoo.residuals.network import Network

Array = npt.NDArray[np.float64]

#: Largest grey value of an image.
GREY = 16.0
#: Steps that move the draws of an equilibrium along the manifold, until most of their limits agree.
CENTRING = 2
#: Relative accuracy of the slow dynamics; its path is smooth, and the integrator does better than asked.
ACCURACY = 1e-3
#: The theories: with the noise of the minibatches' own Jacobians, without it, and at leading order in the learning rate.
THEORIES = ("sampling", "additive", "leading")


@dataclass(frozen=True, eq=False)
class DigitsTask:
    """The problem without noise, a point of zero residual, and the images that were left out.

    Attributes
    ----------
    problem:
        64-hidden-1 network on the training images; ``problem.functions`` has the residuals.
    start:
        (d,) parameters with all residuals below 1e-12.
    test_images, test_labels:
        (N, 64) in [0, 1] and (N,) of +-1.
    """

    problem: ArrayProblem
    start: Array
    test_images: Array
    test_labels: Array

    @property
    def functions(self) -> Network:
        """The network."""
        assert isinstance(self.problem.functions, Network)
        return self.problem.functions

    @property
    def unit(self) -> float:
        """1/max_i |grad r_i|^2 at the start: the learning rate with which one image's step would fit it exactly."""
        return float(1 / np.max(np.sum(self.functions.jacobian(self.start) ** 2, axis=1)))

    def with_noise(self, sigma: float, batch: int | None) -> ArrayProblem:
        """The problem with label noise."""
        p = self.problem
        return ArrayProblem(p.functions, LabelNoise(repr(float(sigma)), batch=batch), p.scale, p.blocks, p.name)

    def trace(self, z: Array) -> float:
        """tr(Hessian) = |J|_F^2/n at a point of the manifold."""
        return float(np.sum(self.functions.jacobian(z) ** 2) / self.functions.count)

    def accuracy(self, z: Array) -> float:
        """Fraction of the test images on the right side."""
        return float(np.mean(np.sign(self.functions.predict(z, self.test_images)[:, 0]) == self.test_labels))


def setup(seed: int = 0, samples: int = 100, hidden: int = 60) -> DigitsTask:
    """Choose the training images and the initial weights by ``seed``, and train to zero residual.

    Needs scikit-learn, the extra ``quasistatic[studies]``.

    Raises
    ------
    QuasistaticError
        Without scikit-learn, or where training does not reach zero residual.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise QuasistaticError("the digits come with scikit-learn: pip install 'quasistatic[studies]'.") from None
    data = load_digits()
    images, labels = np.asarray(data.data) / GREY, np.where(np.asarray(data.target) >= 5, 1.0, -1.0)
    if not 1 <= samples < len(images):
        raise HyperparameterError(f"samples = {samples}: take 1 to {len(images) - 1} of the {len(images)} images for training.")
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:samples], order[samples:]
    problem = zoo.mlp(images.shape[1], hidden, 1, images[train], labels[train], noise=LabelNoise(0))
    network = problem.functions
    assert isinstance(network, Network)
    return DigitsTask(problem, fit(network, network.initial(seed)), images[test], labels[test])


@dataclass(frozen=True, eq=False)
class DigitsRun:
    """What the simulation did; N trajectories, R records.

    Attributes
    ----------
    steps:
        (R,)
    trace:
        (R, N) tr(Hessian) there.
    points:
        (R, N, d) where gradient flow takes the iterates: the limit map, whose slow dynamics the theory predicts.
    accuracy:
        (R, N) test accuracy there.
    eta, sigma, batch:
        Numbers of the run.
    """

    steps: npt.NDArray[np.int64]
    trace: Array
    points: Array
    accuracy: Array
    eta: float
    sigma: float
    batch: int | None

    @property
    def drop(self) -> tuple[float, float]:
        """Decrease of tr(Hessian) from the first record to the last, mean over trajectories and standard error."""
        return _mean(self.trace[0] - self.trace[-1])

    @property
    def displacement(self) -> Array:
        """(R, d) mean over trajectories of the points, minus the start."""
        return np.asarray((self.points - self.points[:1]).mean(axis=1))

    def along(self, direction: Array) -> tuple[float, float]:
        """Final displacement along a direction (d,) in weight space, mean and standard error; the direction is normalised."""
        unit = direction / np.linalg.norm(direction)
        return _mean((self.points[-1] - self.points[0]) @ unit)

    def distance(self) -> tuple[float, float]:
        """Length of the mean final displacement, and its standard error.

        The square of a noisy mean is too large by its variance, which is subtracted.
        """
        moved = self.points[-1] - self.points[0]
        mean, N = moved.mean(axis=0), len(moved)
        variance = np.sum((moved - mean) ** 2) / max(N - 1, 1) / N
        length = float(np.sqrt(max(mean @ mean - variance, 0.0)))
        return length, self.along(mean)[1]

    def rows(self, theory: Mapping[str, float], direction: Array | None = None) -> tuple[Row, ...]:
        """Comparisons with predicted ``"drop"``, ``"displacement"`` (along ``direction``, else its length) and ``"accuracy"``."""
        measured = {"drop": self.drop, "accuracy": _mean(self.accuracy[-1])}
        measured["displacement"] = self.distance() if direction is None else self.along(direction)
        unknown = [k for k in theory if k not in measured]
        if unknown:
            raise HyperparameterError(f"{unknown[0]} was not measured; there are {', '.join(measured)}.")
        names = {"drop": "drop of tr H", "displacement": "displacement in weight space", "accuracy": "test accuracy"}
        return tuple(Row(names[k], value, *measured[k]) for k, value in theory.items())


def _mean(values: Array) -> tuple[float, float]:
    """Mean and standard error; the error of one value is 0."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)


def run(
    task: DigitsTask,
    rate: float = 0.5,
    sigma: float = 0.3,
    batch: int | None = 1,
    steps: int = 80_000,
    trajectories: int = 8,
    seed: int = 0,
    record: int = 17,
    threads: int = 1,
    rule: Rule | None = None,
    states: Array | None = None,
    progress: Progress | None = None,
    **hyper: Any,
) -> DigitsRun:
    """Simulate from the zero-residual start with label noise of strength ``sigma`` on minibatches.

    Parameters
    ----------
    rate:
        eta in units of 1/max_i |grad r_i|^2 at the start.
    batch:
        Images of a step, drawn with replacement; None is the full batch.
    rule:
        An update rule with a hyperparameter eta; SGD by default.
    states:
        (trajectories, 1+q, d) states to start from, such as :func:`equilibrium`'s; by default all are at rest at ``task.start``.
    **hyper:
        Its other hyperparameters.
    """
    problem, rule = task.with_noise(sigma, batch), zoo.sgd if rule is None else rule
    eta = rate * task.unit
    values = resolve_array(rule, problem, {"eta": eta, **hyper})
    simulator = ArraySimulator(rule, problem, values, seed, trajectories, threads)
    if states is None:
        simulator.states[:, 0] = task.start
    else:
        simulator.states[:] = states
    recorded = record_steps(steps, record)
    found = []
    for target in recorded:
        before = simulator.step
        shown = None if progress is None else lambda done, _, before=before: progress(before + done, steps)
        simulator.advance(int(target) - before, shown)
        found.append(descend(task.functions, simulator.points))
    points = np.array(found)
    trace = np.array([[task.trace(z) for z in row] for row in points])
    accuracy = np.array([[task.accuracy(z) for z in row] for row in points])
    return DigitsRun(recorded, trace, points, accuracy, eta, sigma, batch)


# -- theory ------------------------------------------------------------------------------------------------------------


def flow(
    task: DigitsTask,
    rate: float = 0.5,
    sigma: float = 0.3,
    batch: int | None = 1,
    theory: str = "sampling",
    rule: Rule | None = None,
    **hyper: Any,
) -> ManifoldFlow:
    """The slow dynamics, by one of :data:`THEORIES`.

    The additive theory has the label noise of the minibatches, a full-batch label noise of strength sigma sqrt(n/batch), and
    takes the Jacobian of a step for its mean; for the full batch it is exact.

    Raises
    ------
    HyperparameterError
        For an unknown theory, and for the sampling theory of a full batch.
    """
    if theory not in THEORIES or (theory == "sampling" and batch is None):
        raise HyperparameterError(f"theory={theory!r} is not one of {', '.join(THEORIES[batch is None :])}.")
    n = task.functions.count
    problem = task.with_noise(sigma, batch) if theory == "sampling" else task.with_noise(sigma * np.sqrt(n / (batch or n)), None)
    leading = "eta" if theory == "leading" else None
    return manifold_flow(zoo.sgd if rule is None else rule, problem, leading=leading, eta=rate * task.unit, **hyper)


def equilibrium(task: DigitsTask, theory: ManifoldFlow, trajectories: int = 8, seed: int = 0) -> Array:
    """States (trajectories, 1+q, d) drawn from the theory's equilibrium about ``task.start``, with their limits close to it.

    Flat directions reach their equilibrium in tens of thousands of iterations, about as many as a whole run has: a start at rest
    would be colder than what the theory averages over. A draw's limit differs from the point that it was drawn about by the
    square of its distance; it is moved along the manifold by that.
    """
    states = theory.equilibrium(task.start, trajectories, seed)
    for _ in range(CENTRING):
        states[:, 0] -= descend(task.functions, states[:, 0]) - task.start
    return np.asarray(states)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A path of the slow dynamics and what it says of the network; R records.

    Attributes
    ----------
    steps:
        (R,)
    points:
        (R, d)
    trace, accuracy:
        (R,) tr(Hessian) and test accuracy.
    """

    steps: Array
    points: Array
    trace: Array
    accuracy: Array

    @property
    def drop(self) -> float:
        """Decrease of tr(Hessian) from the first record to the last."""
        return float(self.trace[0] - self.trace[-1])

    @property
    def displacement(self) -> Array:
        """(d,) from the first record to the last."""
        return np.asarray(self.points[-1] - self.points[0])

    @property
    def numbers(self) -> dict[str, float]:
        """What :meth:`DigitsRun.rows` compares."""
        return {"drop": self.drop, "displacement": float(np.linalg.norm(self.displacement)), "accuracy": float(self.accuracy[-1])}


def predict(task: DigitsTask, theory: ManifoldFlow, steps: int = 80_000, record: int = 17) -> Prediction:
    """The slow dynamics from ``task.start``."""
    path = theory.trajectory(task.start, steps, record=record, rtol=ACCURACY)
    trace, accuracy = (np.array([measure(z) for z in path.z]) for measure in (task.trace, task.accuracy))
    return Prediction(path.steps, path.z, trace, accuracy)
