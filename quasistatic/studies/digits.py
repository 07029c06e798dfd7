"""A small network on real data: scikit-learn's digits, trained to zero residual, then driven along its minima by label noise.

64-60-1 tanh network with hidden biases (3960 weights), readout scaled by 1/sqrt(60), classes 5 to 9 against 0 to 4 on 100
images, loss (1/2n) sum r_i^2. :func:`setup` makes the problem and its start, :func:`run` simulates and measures; theory comes
in through :meth:`DigitsRun.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quasistatic import zoo
from quasistatic.errors import HyperparameterError, QuasistaticError
from quasistatic.model.array_problem import ArrayProblem
from quasistatic.model.noise import LabelNoise
from quasistatic.model.rule import Rule
from quasistatic.numeric.arguments import Progress
from quasistatic.numeric.array_simulate import simulate_array
from quasistatic.studies.least_squares import fit, project
from quasistatic.validate import Row
from quasistatic.zoo.residuals.network import Network

Array = npt.NDArray[np.float64]

#: Largest grey value of an image.
GREY = 16.0
#: Gauss-Newton steps from an iterate to the manifold; its distance is of the order of the noise.
PROJECTION = 5


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
        (R, N) tr(Hessian) at the projected iterates.
    points:
        (R, N, d) iterates projected onto the manifold.
    accuracy:
        (R, N) test accuracy of the projected iterates.
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
        """(R, d) mean over trajectories of the projected points, minus the start."""
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
    start: Array | None = None,
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
    start:
        (trajectories, d) points to start from: the theory averages over an equilibrium about the manifold, which flat directions
        take longer to reach than the steep ones; ``task.start`` itself by default.
    **hyper:
        Its other hyperparameters.
    """
    eta = rate * task.unit
    options: dict[str, Any] = {"trajectories": trajectories, "seed": seed, "record": record, "threads": threads, "progress": progress}
    first = task.start if start is None else start
    runs = simulate_array(
        zoo.sgd if rule is None else rule, task.with_noise(sigma, batch), first, steps, keep=True, eta=eta, **options, **hyper
    )
    assert runs.records is not None
    points = project(task.functions, runs.records, PROJECTION)
    trace = np.array([[task.trace(z) for z in row] for row in points])
    accuracy = np.array([[task.accuracy(z) for z in row] for row in points])
    return DigitsRun(runs.steps, trace, points, accuracy, eta, sigma, batch)
