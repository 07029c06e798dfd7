"""Streams of normals: their definition, their distribution, their independence."""

import numpy as np
import pytest
import sympy as sp
from lane_reference import normals, words
from scipy import stats

from quasistatic.numeric.kernel import StochasticMap
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.random import streams


def draw(rank: int, steps: int, seed: int, trajectories: int, **options) -> np.ndarray:
    """Normals as the kernel consumes them, shape (trajectories, steps * rank)."""
    z = sp.symbols(f"z:{rank}", real=True)
    n = sp.symbols(f"n:{rank}", real=True)
    lanes = Lanes(StochasticMap(z, (), n, (), n), np.zeros(0), seed, trajectories, **options)
    found = []
    for _ in range(steps):
        lanes.advance(1)
        found.append(lanes.states)
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_one_sequence_whatever_the_rank(rank):
    found = draw(rank, 6, 7, 40)
    expected = np.array([normals(7, t, 6 * rank) for t in range(40)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-11)


def test_seeds_of_the_streams():
    assert words(0, 0, 1) != words(1, 0, 1)
    for seed in (0, 1, 2**63, 2**64 - 1):
        first = streams(seed, 3)
        assert first.shape == (4, 3)
        assert len(np.unique(first)) == 12


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """Two million normals: 64 streams of 31250."""
    return draw(25, 1250, 3, 64)


def test_moments(many):
    n = many.size
    assert n == 2_000_000
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        values = many.ravel() ** power
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(n)


def test_distribution(many):
    assert stats.kstest(many.ravel(), "norm").pvalue > 1e-4
    assert 4.7 < np.abs(many).max() < 6.5


def test_streams_are_uncorrelated(many):
    T = many.shape[1]
    correlation = np.corrcoef(many)
    assert np.abs(correlation[~np.eye(64, dtype=bool)]).max() < 5.5 / np.sqrt(T)
    for lag in (1, 2, 3, 25):
        assert abs(np.mean(many[:, lag:] * many[:, :-lag])) < 5 / np.sqrt(many.size)
        assert abs(np.mean(many[:, lag:] ** 2 * many[:, :-lag] ** 2) - 1) < 5 * np.sqrt(8 / many.size)


def test_neighbouring_seeds_are_uncorrelated():
    columns = np.concatenate([draw(5, 400, seed, 32) for seed in (0, 1, 2)])
    correlation = np.corrcoef(columns)
    assert np.abs(correlation[~np.eye(96, dtype=bool)]).max() < 5.5 / np.sqrt(columns.shape[1])
