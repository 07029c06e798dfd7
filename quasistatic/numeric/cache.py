"""What was emitted and compiled, kept for later processes.

Two kinds of entries lie in one folder. A *plan* is what became of a rule and a problem: the emitted source and how its
arguments are laid out, under a hash of the expressions, so that nothing is differentiated or emitted again. A *kernel* is the
machine code of a source, under a hash of the source and of everything that it was compiled with: an object file that LLVM
links, and beside it the module from which Numba can load or compile it where that does not work. Numbers never enter a
source, only a plan.

Entries are JSON with a checksum, written whole or not at all. An entry that is damaged, of another version or of another user
is made anew; where nothing can be kept, everything is compiled in memory, with one warning. Machine code is executed, so a
folder or file that others could write to is not used.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import json
import os
import platform
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast

from quasistatic.numeric.machine import Compiled, extract, link

ENVIRONMENT = "QUASISTATIC_CACHE_DIR"
#: Set to 0 (or no, off, false) to keep nothing.
SWITCH = "QUASISTATIC_CACHE"
FORMAT = 1

_PREFIX = "quasistatic_kernel_"
_LOADED: dict[tuple[str, str], Any] = {}
_PLANS: dict[tuple[str, str], Any] = {}
_WARNED: set[str] = set()
_LOCK = threading.RLock()


T = TypeVar("T")


class CacheWarning(UserWarning):
    """Compiled code cannot be kept, and is compiled anew in every process."""


@dataclass(frozen=True)
class CacheInfo:
    """What lies in the cache: its folder, the number of plans and of kernels, all bytes; ``problem`` is why it is not used, or empty."""

    folder: Path
    plans: int
    kernels: int
    size: int
    problem: str

    def __str__(self) -> str:
        state = f"not used: {self.problem}" if self.problem else "in use"
        return f"{self.folder} ({state})\n{self.kernels} kernels, {self.plans} plans, {self.size / 1e6:.1f} MB"


def folder() -> Path:
    """Where compiled kernels are kept: $QUASISTATIC_CACHE_DIR, or the user's cache folder."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quasistatic", appauthor=False)) / "kernels"


def enabled() -> bool:
    """Whether anything is kept at all: $QUASISTATIC_CACHE is not 0."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("0", "no", "off", "false")


def info() -> CacheInfo:
    """What is kept, and where."""
    place = folder()
    files = _files(place)
    kernels = {f.name[: len(_PREFIX) + 32] for f in files if f.name.startswith(_PREFIX)}
    plans = sum(f.name.startswith("plan_") for f in files)
    problem = f"{SWITCH} is {os.environ.get(SWITCH)}" if not enabled() else _trouble(place)
    return CacheInfo(place, plans, len(kernels), sum(_size(f) for f in files), problem)


def clear() -> CacheInfo:
    """Remove everything that is kept (and nothing else that may lie in the folder); returns what there was."""
    before = info()
    for file in _files(before.folder):
        file.unlink(missing_ok=True)
    with _LOCK:
        _LOADED.clear()
        _PLANS.clear()
    return before


def _files(place: Path) -> list[Path]:
    """Our files: plans, kernels, their modules, Numba's files of them, and what an interrupted process left."""
    patterns = ("plan_*.json", f"{_PREFIX}*.json", f"{_PREFIX}*.py", f"__pycache__/{_PREFIX}*", ".kernel*.tmp")
    return [f for p in patterns for f in place.glob(p) if f.is_file()] if place.is_dir() else []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # removed by another process
        return 0


# -- kernels -----------------------------------------------------------------------------------------------------------


def load(source: str) -> Any:
    """The functions of this source, compiled: a module, or a namespace with the same names; from memory, from disk, or new."""
    name = _PREFIX + key(source)
    place = folder()
    with _LOCK:
        if (str(place), name) not in _LOADED:
            _LOADED[str(place), name] = _load(name, source, place)
        return _LOADED[str(place), name]


def key(source: str) -> str:
    """Content hash of a source and of everything that it is compiled with."""
    return hashlib.sha256("\0".join((source, *_surroundings())).encode()).hexdigest()[:32]


@cache
def _surroundings() -> tuple[str, ...]:
    from llvmlite import binding  # type: ignore[import-untyped]

    # the intrinsics are compiled into the kernels, and Numba's own cache would not notice that they changed
    helpers = (Path(__file__).with_name("intrinsics.py")).read_text(encoding="utf-8")
    versions = [f"{n} {importlib.metadata.version(n)}" for n in ("quasistatic", "numba", "llvmlite", "numpy")]
    cpu = (binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    return (helpers, *versions, platform.python_implementation() + platform.python_version(), *cpu)


def _load(name: str, source: str, place: Path) -> Any:
    if not _in_use(place):
        return _in_memory(name, source)
    path = place / f"{name}.json"
    entry = _read(path)
    linked = None if entry is None else _linked(entry)
    if linked is not None:
        return linked
    if entry is None:  # without an object file, or with a damaged one: Numba gives it away only when it compiles
        _remove_modules(name, place)
    module = _import(name, source, place)
    if module is None:
        return _in_memory(name, source)
    if entry is not None:
        return module
    made_here = {n: f for n, f in vars(module).items() if hasattr(f, "nopython_signatures") and f.__module__ == name}
    compiled = {n: extract(f) for n, f in made_here.items()}
    parts = {n: [c.symbol, list(c.arguments), base64.b64encode(c.code).decode()] for n, c in compiled.items() if c}
    _write(path, parts if len(parts) == len(made_here) else {})  # an empty entry: only Numba can load it
    return module


def _linked(entry: Any) -> SimpleNamespace | None:
    """The functions of an entry, linked; None where one cannot be."""
    try:
        compiled = {n: Compiled(symbol, tuple(arguments), base64.b64decode(code)) for n, (symbol, arguments, code) in entry.items()}
    except (AttributeError, TypeError, ValueError):
        return None
    functions = {n: link(c) for n, c in compiled.items()}
    return SimpleNamespace(**functions) if functions and all(functions.values()) else None


def _import(name: str, source: str, place: Path) -> ModuleType | None:
    """The source as a module that Numba can cache beside; None where the folder does not allow it."""
    path = place / f"{name}.py"
    if not _write_bytes(path, source.encode()):
        return None
    for attempt in (1, 2):
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # Numba looks the module up when it reads its cache
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # damaged files of Numba raise whatever unpickling them raises
            sys.modules.pop(name, None)
            if "cannot cache" in str(error):
                return None
            if attempt == 2:
                raise
            _remove_modules(name, place)
        else:
            return module
    return None


def _remove_modules(name: str, place: Path) -> None:
    """Remove what Numba and Python keep of a module."""
    try:
        for file in place.glob(f"__pycache__/{name}*"):
            file.unlink(missing_ok=True)
    except OSError:  # a folder that may only be read
        pass


class _Source(importlib.abc.InspectLoader):
    """Loads a module from text, as if from a file that nobody can cache beside."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source


def _in_memory(name: str, source: str) -> ModuleType:
    """Compiled for this process alone."""
    loader = _Source(source.replace("cache=True, ", ""))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


# -- plans -------------------------------------------------------------------------------------------------------------


def recall(kind: str, hash_of: str | None, build: Callable[[], T], pack: Callable[[T], Any], unpack: Callable[[Any], T]) -> T:
    """Something made from expressions: from memory, from disk, or built and kept.

    Parameters
    ----------
    hash_of:
        Fingerprint of everything that ``build`` depends on (the version of this package is added); None to keep nothing.
    pack, unpack:
        To plain data and back; an entry that ``unpack`` refuses with TypeError, KeyError or ValueError is built again.
    """
    if hash_of is None:
        return build()
    name = f"plan_{hashlib.sha256(chr(0).join((kind, hash_of, _own_version())).encode()).hexdigest()[:32]}"
    place = folder()
    with _LOCK:
        if (str(place), name) in _PLANS:
            return cast("T", _PLANS[str(place), name])
    found = _recalled(place / f"{name}.json", unpack) if _in_use(place) else None
    if found is None:
        found = build()
        if _in_use(place):
            _write(place / f"{name}.json", pack(found))
    with _LOCK:
        _PLANS[str(place), name] = found
    return found


def _recalled(path: Path, unpack: Callable[[Any], T]) -> T | None:
    payload = _read(path)
    try:
        return None if payload is None else unpack(payload)
    except (TypeError, KeyError, ValueError):
        return None


@cache
def _own_version() -> str:
    """Version of this package and content of the modules that plans come from."""
    package = Path(__file__).parent.parent
    h = hashlib.sha256(f"{importlib.metadata.version('quasistatic')} {importlib.metadata.version('sympy')}".encode())
    for file in sorted(f for part in ("numeric", "model", "algebra") for f in (package / part).glob("*.py")):
        h.update(file.read_bytes())
    return h.hexdigest()


# -- files -------------------------------------------------------------------------------------------------------------


def _in_use(place: Path) -> bool:
    """Whether entries may be read from this folder; makes it where it is missing, warns once where it cannot be used."""
    if not enabled():
        return False
    trouble = _trouble(place)
    if trouble and str(place) not in _WARNED:
        _WARNED.add(str(place))
        warnings.warn(
            f"compiled code is not kept: {trouble}. Set the environment variable {ENVIRONMENT} to a folder of your own, or {SWITCH}=0"
            " to be silent.",
            CacheWarning,
            stacklevel=2,
        )
    return not trouble


def _trouble(place: Path) -> str:
    """Why this folder cannot be used, or nothing."""
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _foreign(place.stat(), str(place))
    except OSError as error:
        return f"the folder {place} cannot be used ({error.strerror or error})"


def _foreign(status: os.stat_result, what: str) -> str:
    """Why a file or folder is not safe to execute from, or nothing: only its owner, or root, may be able to write to it."""
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid not in (0, os.geteuid()):
        return f"{what} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{what} can be written by others (chmod go-w)"
    return ""


def _read(path: Path) -> Any:
    """The payload of an entry; None if there is none, or it is damaged, foreign or of another format."""
    try:
        with path.open("rb") as file:
            if _foreign(os.fstat(file.fileno()), str(path)):
                return None
            data = json.loads(file.read())
        payload = data["payload"]
        if data["format"] != FORMAT or data["name"] != path.stem or data["checksum"] != _checksum(payload):
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return payload


def _write(path: Path, payload: Any) -> None:
    entry = {"format": FORMAT, "name": path.stem, "checksum": _checksum(payload), "payload": payload}
    _write_bytes(path, json.dumps(entry).encode())


def _checksum(payload: Any) -> str:
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def _write_bytes(path: Path, data: bytes) -> bool:
    """Put the file there unless it is there; other processes see the old file or the new one, never a half. False if impossible."""
    temporary = None
    try:
        if path.is_file() and not _foreign(path.stat(), str(path)) and path.read_bytes() == data:
            return True
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".kernel", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True
