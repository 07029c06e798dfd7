"""Compiled code on disk: found again by other processes, rewritten when damaged, and clear about folders it cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp

from quasistatic.errors import OutputError
from quasistatic.numeric import cache
from quasistatic.numeric.table import Table

SOURCE = "from numba import njit\n\n@njit('float64(float64)', cache=True)\ndef f(x):\n    return x + {}\n"


def test_memory_and_disk(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    module = cache.load(SOURCE.format(1))
    assert module.f(1.0) == 2.0
    assert cache.load(SOURCE.format(1)) is module
    assert cache.load(SOURCE.format(2)) is not module
    assert len(list(tmp_path.glob("*.py"))) == 2
    assert not list(tmp_path.glob("*.tmp"))
    assert list(tmp_path.glob("__pycache__/*.nbc"))


def test_damaged_file_is_rewritten(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path))
    path = tmp_path / f"quasistatic_kernel_{cache.key(SOURCE.format(3))}.py"
    path.write_text("raise SystemExit('damaged')")
    assert cache.load(SOURCE.format(3)).f(1.0) == 4.0
    assert path.read_text() == SOURCE.format(3)


@pytest.mark.parametrize("below", ["file", "file/deeper/still"])
def test_unusable_folder(tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("")  # a folder below a regular file cannot be made, not even by root
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / below))
    with pytest.raises(OutputError, match=r"file.*QUASISTATIC_CACHE_DIR"):
        Table("t", [sp.Symbol("x")], [sp.Symbol("x")], [])([[1.0]], {})


def test_default_folder(monkeypatch):
    monkeypatch.delenv(cache.ENVIRONMENT)
    assert "quasistatic" in str(cache.folder())


SCRIPT = """
import sympy as sp, quasistatic.zoo as zoo
from quasistatic.numeric.simulate import simulate
from quasistatic.numeric import cache
runs = simulate(zoo.heavy_ball, zoo.curved_valley(), {"x": 1, "y": 1, "w": 0.5}, 10, 3, eta=1e-3, mu=%s, alpha=%s)
(module,) = cache._LOADED.values()
print(sum(module.advance.stats.cache_hits.values()), module.__file__)
"""


def test_second_process_compiles_nothing(tmp_path):
    """Other numbers, another hash seed, another process: the same machine code."""

    def run(mu: float, alpha: float, hashseed: str) -> tuple[int, str]:
        environment = {**os.environ, cache.ENVIRONMENT: str(tmp_path), "PYTHONHASHSEED": hashseed}
        done = subprocess.run([sys.executable, "-c", SCRIPT % (mu, alpha)], env=environment, capture_output=True, text=True, check=True)
        hits, path = done.stdout.split()
        return int(hits), path

    first, second = run(0.9, 0.05, "1"), run(0.8, 0.07, "2")
    assert (first[0], second[0]) == (0, 1)
    assert first[1] == second[1]
    assert len(list(Path(tmp_path).glob("*.py"))) == 1
