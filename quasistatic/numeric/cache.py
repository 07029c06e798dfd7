"""Generated source to machine code that outlives the process.

Numba can cache a function on disk only if it comes from a file. So the source is written to a module named by a hash of
everything that decides about the machine code, and imported from there; numbers never enter the source.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import ModuleType

from quasistatic.errors import OutputError

ENVIRONMENT = "QUASISTATIC_CACHE_DIR"
_LOADED: dict[tuple[str, str], ModuleType] = {}
_LOCK = threading.Lock()


def folder() -> Path:
    """Where compiled kernels are kept: $QUASISTATIC_CACHE_DIR, or the user's cache folder."""
    given = os.environ.get(ENVIRONMENT)
    if given:
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quasistatic", appauthor=False)) / "kernels"


def load(source: str) -> ModuleType:
    """The module with this source, compiled; from memory, from disk, or new.

    Raises
    ------
    OutputError
        If the cache folder cannot be written.
    """
    name = "quasistatic_kernel_" + key(source)
    place = folder()
    with _LOCK:
        if (str(place), name) not in _LOADED:
            _LOADED[str(place), name] = _import(name, source, place)
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


def _import(name: str, source: str, place: Path) -> ModuleType:
    path = place / f"{name}.py"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _write(path, source)
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise OSError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # Numba looks the module up when it reads its cache
        spec.loader.exec_module(module)
    except (OSError, RuntimeError) as error:
        sys.modules.pop(name, None)
        if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
            raise
        raise OutputError(
            f"cannot keep compiled code in the folder {place}: {error}. Set the environment variable {ENVIRONMENT} to a folder that"
            " can be written."
        ) from error
    return module


def _write(path: Path, source: str) -> None:
    """Put the source there unless it is there; other processes see the old file or the new one, never a half."""
    data = source.encode()
    if path.is_file() and path.read_bytes() == data:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".kernel", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
