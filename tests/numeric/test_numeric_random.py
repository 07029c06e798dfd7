"""Streams of normals: their definition, their distribution, their independence."""

import numpy as np
import pytest
import sympy as sp
from lane_reference import normals, words
from scipy import stats

from quasistatic.errors import QuasistaticError
from quasistatic.numeric.kernel import StochasticMap
from quasistatic.numeric.lanes import Lanes
from quasistatic.numeric.random import GENERATORS, philox4x32, streams
from quasistatic.numeric.random import normals as library_normals


def draw(rank: int, steps: int, seed: int, trajectories: int, generator: str = "xoshiro") -> np.ndarray:
    """Normals as the kernel consumes them, shape (trajectories, steps * rank)."""
    z = sp.symbols(f"z:{rank}", real=True)
    n = sp.symbols(f"n:{rank}", real=True)
    lanes = Lanes(StochasticMap(z, (), n, (), n), np.zeros(0), seed, trajectories, generator=generator)
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


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(("rank", "first"), [(1, 0), (3, 0), (2, 5)])
def test_the_kernel_draws_what_the_library_says(generator, rank, first):
    found = draw(rank, first + 6, 2**63 + 7, 40, generator).reshape(40, first + 6, rank)
    np.testing.assert_allclose(found[:, first:], library_normals(2**63 + 7, 40, 6, rank, generator, first), rtol=0, atol=3e-11)


def test_xoshiro_in_numpy_is_the_defined_sequence():
    expected = np.array([normals(5, t, 15) for t in range(4)]).reshape(4, 5, 3)
    np.testing.assert_allclose(library_normals(5, 4, 5, 3), expected, rtol=0, atol=1e-13)


# the vectors that Random123 publishes for philox4x32-10: counter, key, output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    found = philox4x32(tuple(np.array([c], dtype=np.uint64) for c in counter), tuple(np.uint64(k) for k in key))
    assert tuple(int(w[0]) for w in found) == expected


def test_philox_is_addressed_by_step():
    """A normal does not depend on how many there are in a step, nor on the steps before."""
    wide, narrow = draw(4, 6, 3, 20, "philox").reshape(20, 6, 4), draw(1, 6, 3, 20, "philox").reshape(20, 6, 1)
    assert np.array_equal(wide[:, :, :1], narrow)
    assert len(np.unique(wide)) == wide.size
    assert not np.isin(draw(1, 6, 4, 20, "philox"), narrow).any()


def test_unknown_generator():
    with pytest.raises(QuasistaticError, match=r"no generator 'philux'.*Did you mean 'philox'"):
        library_normals(0, 1, 1, 1, "philux")
    with pytest.raises(QuasistaticError, match="no generator 'mt19937'"):
        draw(1, 1, 0, 1, "mt19937")


@pytest.fixture(scope="module", params=GENERATORS)
def many(request) -> np.ndarray:
    """Two million normals: 64 streams of 31250."""
    return draw(25, 1250, 3, 64, request.param)


def test_moments(many):
    n = many.size
    assert n == 2_000_000
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3), (5, 0), (6, 15)):
        values = many.ravel() ** power
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(n)


def test_distribution(many):
    assert stats.kstest(many.ravel(), "norm").pvalue > 1e-4
    assert 4.7 < np.abs(many).max() < 6.5


@pytest.mark.parametrize("bound", [1, 2, 3, 4, 5])
def test_tails(many, bound):
    """Counts beyond the bound on both sides, within five standard deviations (at least one count) of the normal law."""
    expected = many.size * stats.norm.sf(bound)
    for count in (np.sum(many > bound), np.sum(many < -bound)):
        assert abs(count - expected) < 5 * max(np.sqrt(expected), 1)


def test_streams_are_uncorrelated(many):
    T = many.shape[1]
    correlation = np.corrcoef(many)
    assert np.abs(correlation[~np.eye(64, dtype=bool)]).max() < 5.5 / np.sqrt(T)
    for lag in (1, 2, 3, 25):
        assert abs(np.mean(many[:, lag:] * many[:, :-lag])) < 5 / np.sqrt(many.size)
        assert abs(np.mean(many[:, lag:] ** 2 * many[:, :-lag] ** 2) - 1) < 5 * np.sqrt(8 / many.size)


@pytest.mark.parametrize("generator", GENERATORS)
def test_neighbouring_seeds_are_uncorrelated(generator):
    columns = np.concatenate([draw(5, 400, seed, 32, generator) for seed in (0, 1, 2)])
    correlation = np.corrcoef(columns)
    assert np.abs(correlation[~np.eye(96, dtype=bool)]).max() < 5.5 / np.sqrt(columns.shape[1])
