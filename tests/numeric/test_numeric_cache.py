"""What is kept on disk: found again by other processes, made anew when damaged, and never trusted when others could write it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import quasistatic.zoo as zoo
from quasistatic.numeric import cache, machine
from quasistatic.numeric.fingerprint import fingerprint
from quasistatic.numeric.simulate import simulate
from quasistatic.numeric.table import Table
from quasistatic.symbols import symbols

SOURCE = """from numba import njit

@njit('void(float64[::1], int64, float64)', cache=True, nogil=True)
def f(x, i, v):
    x[i] += v + {}
"""
here = pytest.mark.skipif(machine.undefined_symbols(b"") is None and sys.platform != "linux", reason="object files are linked on Linux")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A cache of its own, without what earlier tests left in memory."""
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_LOADED", {})
    monkeypatch.setattr(cache, "_PLANS", {})
    return tmp_path / "cache"


def value(module) -> float:
    x = np.zeros(3)
    module.f(x, 1, 1.0)
    return float(x[1])


def forget() -> None:
    cache._LOADED.clear()
    cache._PLANS.clear()


def test_memory_and_disk(place):
    module = cache.load(SOURCE.format(1))
    assert value(module) == 2.0
    assert cache.load(SOURCE.format(1)) is module
    assert value(cache.load(SOURCE.format(2))) == 3.0
    assert place.stat().st_mode & 0o777 == 0o700
    assert len(list(place.glob("*.py"))) == 2
    assert not list(place.glob(".*.tmp"))
    assert list(place.glob("__pycache__/*.nbc"))
    forget()
    assert value(cache.load(SOURCE.format(1))) == 2.0


@here
def test_the_object_file_is_linked(place):
    cache.load(SOURCE.format(3))
    forget()
    linked = cache.load(SOURCE.format(3))
    assert not hasattr(linked.f, "py_func")
    assert value(linked) == 4.0
    for wrong in ((np.zeros(3, dtype=np.float32), 1, 1.0), (np.zeros((3, 3)), 1, 1.0), (np.zeros(6)[::2], 1, 1.0), (np.zeros(3), 1)):
        with pytest.raises(TypeError):
            linked.f(*wrong)


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "another byte": lambda data: data.replace(b"A", b"B"),
    "no JSON": lambda data: b"{" + data,
    "other format": lambda data: data.replace(b'"format": 1', b'"format": 2'),
    "of another name": lambda data: data.replace(b'"name": "q', b'"name": "r').replace(b'"name": "p', b'"name": "r'),
    "a list": lambda data: b"[1]",
    "deep": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_entries_are_made_anew(place, damage):
    """Plans and kernels, and the modules beside them."""
    first = run()
    files = list(place.glob("*.json"))
    assert len(files) == 2
    good = {f: f.read_bytes() for f in files}
    for f in [*files, *place.glob("*.py")]:
        f.write_bytes(damage(f.read_bytes()))
    forget()
    assert np.array_equal(run().final, first.final)
    assert {f: json.loads(f.read_bytes())["name"] for f in files} == {f: f.stem for f in files}
    assert set(good) == set(place.glob("*.json"))
    forget()
    assert np.array_equal(run().final, first.final)


def run():
    return simulate(zoo.sgd, zoo.valley(), {"x": 1, "y": 0}, 20, 3, eta=1e-3, alpha=1)


def test_damaged_files_of_numba(place):
    """They are unpickled by Numba, which fails in many ways."""
    first = run()
    for f in place.glob("*.json"):
        f.unlink()
    for f in place.glob("__pycache__/*"):
        f.write_bytes(f.read_bytes()[:40])
    forget()
    assert np.array_equal(run().final, first.final)


def test_an_object_file_that_cannot_be_linked(place):
    """A symbol that is nowhere: LLVM would end the process."""
    run()
    (file,) = place.glob("quasistatic_kernel_*.json")
    entry = json.loads(file.read_bytes())
    symbol, arguments, code = entry["payload"]["advance"]
    compiled = machine.Compiled(symbol, tuple(arguments), cache.base64.b64decode(code))
    assert machine.link(compiled) is not None
    unknown = compiled.code.replace(b"PyErr_Occurred", b"PyErr_Nonsense")
    assert unknown != compiled.code
    assert machine.link(compiled._replace(code=unknown)) is None
    assert machine.link(compiled._replace(code=b"\x7fELF\x02\x01" + b"\xff" * 200)) is None
    assert machine.link(compiled._replace(code=b"MZ" + compiled.code)) is None


def test_other_users_entries_are_not_used(place):
    run()
    os.chmod(place, 0o777)
    forget()
    cache._WARNED.clear()
    with pytest.warns(cache.CacheWarning, match=r"can be written by others \(chmod go-w\)"):
        run()
    assert "others" in cache.info().problem
    os.chmod(place, 0o700)
    (file,) = place.glob("quasistatic_kernel_*.json")
    os.chmod(file, 0o666)
    assert cache._read(file) is None


@pytest.mark.parametrize("below", ["file", "file/deeper/still"])
def test_unusable_folder(tmp_path, monkeypatch, below, place):
    """Compiled in memory, with one warning that says what to do."""
    (tmp_path / "file").write_text("")  # a folder below a regular file cannot be made, not even by root
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / below))
    x = sp.Symbol("x")
    with pytest.warns(cache.CacheWarning, match=r"file.*QUASISTATIC_CACHE_DIR"):
        assert Table("t", [x + 1], [x], [])([[1.0]], {}) == [[2.0]]
    assert Table("t", [x + 2], [x], [])([[1.0]], {}) == [[3.0]]  # a second warning would be an error


def test_a_full_disk(place, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.tempfile, "mkstemp", full)
    assert np.isfinite(run().final).all()
    assert not list(place.glob("*.json"))


def test_switched_off(place, monkeypatch):
    monkeypatch.setenv(cache.SWITCH, "0")
    assert np.isfinite(run().final).all()
    assert not place.exists()
    assert cache.info().problem == "QUASISTATIC_CACHE is 0"


def test_default_folder(monkeypatch):
    monkeypatch.delenv(cache.ENVIRONMENT)
    assert "quasistatic" in str(cache.folder())


def test_info_and_clear(place):
    run()
    (place / "mine.txt").write_text("keep")
    info = cache.info()
    assert (info.folder, info.kernels, info.plans, info.problem) == (place, 1, 1, "")
    assert info.size > 5000
    assert "1 kernels, 1 plans" in str(info)
    assert cache.clear() == info
    assert (cache.info().kernels, cache.info().plans) == (0, 0)
    assert [f.name for f in place.iterdir() if f.is_file()] == ["mine.txt"]
    assert np.isfinite(run().final).all()


# -- fingerprints ------------------------------------------------------------------------------------------------------


def test_fingerprints_differ():
    x, y = symbols("x y")
    things = [
        x, sp.Symbol("x"), y, x + y, x * y, x - y, x**2, x**3, sp.sin(x), sp.Function("h")(x), sp.Function("g")(x), sp.Integer(1),
        sp.Float(1.5), sp.Rational(3, 2), sp.Matrix([x, y]), sp.Matrix([[x, y]]), (x, y), (y, x), zoo.sgd, zoo.heavy_ball,
        zoo.heavy_ball.fix(mu="9/10"), zoo.valley(), zoo.curved_valley(), None, 1, 1.0, "x", True,
    ]  # fmt: skip
    assert len({fingerprint(t) for t in things}) == len(things)
    assert fingerprint(zoo.sgd, zoo.valley()) == fingerprint(zoo.sgd, zoo.valley())
    with pytest.raises(TypeError, match="no fingerprint"):
        fingerprint(object())


# -- other processes ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, sympy as sp, quasistatic.zoo as zoo
from quasistatic.numeric import emit, kernel, unfold, plans, cache
from quasistatic.numeric.simulate import simulate
if %r == "warm":
    def never(*args, **options):
        raise AssertionError("made again")
    plans.unfold = plans.lane_program = cache._import = never
runs = simulate(zoo.heavy_ball, zoo.curved_valley(), {"x": 1, "y": 1, "w": 0.5}, 10, 3, eta=1e-3, mu=%s, alpha=%s)
print(runs.final.tobytes().hex(), "numba" in sys.modules)
"""


def start(place: Path, *values, hashseed: str = "0") -> subprocess.Popen:
    environment = {**os.environ, cache.ENVIRONMENT: str(place), "PYTHONHASHSEED": hashseed}
    return subprocess.Popen([sys.executable, "-c", SCRIPT % values], env=environment, stdout=subprocess.PIPE, text=True)


@here
def test_a_second_process_makes_nothing_again(tmp_path):
    """Other numbers, another hash seed: nothing is unfolded, emitted or compiled, and Numba is not even imported."""
    first, _ = start(tmp_path, "cold", 0.9, 0.05, hashseed="1").communicate()
    same, _ = start(tmp_path, "warm", 0.9, 0.05, hashseed="2").communicate()
    other, _ = start(tmp_path, "warm", 0.8, 0.07, hashseed="3").communicate()
    assert first.split() == [same.split()[0], "True"]
    assert same.split()[1] == other.split()[1] == "False"
    assert other.split()[0] != first.split()[0]
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_processes_at_once(tmp_path):
    processes = [start(tmp_path, "cold", 0.9, 0.05) for _ in range(3)]
    results = [p.communicate()[0].split()[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0]
    assert len(set(results)) == 1
    assert not list(tmp_path.glob(".*.tmp"))
    assert all(json.loads(f.read_bytes())["name"] == f.stem for f in tmp_path.glob("*.json"))
