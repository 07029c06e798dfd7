"""Machine code without a compiler: the object file that Numba made, kept and linked again by LLVM alone.

Reading Numba's own cache imports Numba and unpickles; linking an object file takes milliseconds. It leans on two things that
Numba does not promise, the object of a compiled library and the calling convention, so every step may answer "not here", and
then Numba's cache is used.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Element type to ctypes, for scalars; arrays are passed as their parts.
_SCALARS: dict[str, Any] = {"int64": ctypes.c_int64, "float64": ctypes.c_double}
_ARRAYS = ("int64", "int32", "uint64", "float64")

#: Engines own the code; they live as long as the process.
_ENGINES: list[Any] = []


class Compiled(NamedTuple):
    """A function as machine code: its name in the object file, its arguments ("float64", or "float64[2]" for two axes), the object."""

    symbol: str
    arguments: tuple[str, ...]
    code: bytes


def extract(dispatcher: Any) -> Compiled | None:
    """The object file of a function that Numba has compiled for one signature, or None where that is not possible."""
    try:
        (signature,) = dispatcher.nopython_signatures
        (overload,) = dispatcher.overloads.values()
        code = overload.library._get_compiled_object()
        compiled = Compiled(overload.fndesc.mangled_name, tuple(map(_described, signature.args)), bytes(code))
    except (AttributeError, ValueError, TypeError, RuntimeError):
        return None
    return compiled if undefined_symbols(compiled.code) is not None else None


def _described(kind: Any) -> str:
    """A Numba type as text; ValueError for one that is not needed here."""
    dtype, axes = getattr(kind, "dtype", None), getattr(kind, "ndim", None)
    name = str(kind if axes is None else dtype)
    if axes is None and name in _SCALARS:
        return name
    if axes is not None and name in _ARRAYS and kind.layout == "C":
        return f"{name}[{axes}]"
    raise ValueError(f"arguments of the type {kind} are not passed")


def link(compiled: Compiled) -> Callable[..., None] | None:
    """The function, linked into this process; None where a symbol is missing or the file is not for this machine."""
    from llvmlite import binding  # type: ignore[import-untyped]

    needed = undefined_symbols(compiled.code)
    if needed is None or not all(_resolve(name) for name in needed):
        return None  # LLVM would end the process
    try:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(jit=True)
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        engine.add_object_file(binding.ObjectFileRef.from_data(compiled.code))
        engine.finalize_object()
        address = engine.get_function_address(compiled.symbol)
    except (RuntimeError, AttributeError, TypeError, OSError):
        return None
    if not address:
        return None
    _ENGINES.append(engine)
    return _callable(address, compiled.arguments)


def _resolve(name: str) -> bool:
    """Make sure that LLVM finds a symbol.

    Beside the function itself lies the wrapper that Numba calls it through, which needs Python's interface and Numba's
    run-time. It is never called from here, nor is anything that frees arrays: ours are passed without an owner. Numba, when
    imported later, registers its own functions over these.
    """
    from llvmlite import binding

    if binding.address_of_symbol(name):
        return True
    if name.startswith(("Py", "_Py")):
        try:
            address = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name))
        except ValueError:
            return False
    elif name.startswith("NRT_"):
        address = ctypes.cast(_unused, ctypes.c_void_p).value or 0
    else:
        return False
    binding.add_symbol(name, address)
    return True


#: Stands for functions that are linked but never called.
_unused = ctypes.CFUNCTYPE(None)(lambda: None)


def _callable(address: int, arguments: Sequence[str]) -> Callable[..., None]:
    """Numba's convention: room for the result and for an exception, then the arguments; an array is seven numbers, or more."""
    kinds: list[Any] = []
    expected: list[tuple[np.dtype[Any], int] | None] = []
    for text in arguments:
        name, _, axes = text.rstrip("]").partition("[")
        if axes:
            kinds += [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, *2 * int(axes) * [ctypes.c_int64]]
            expected.append((np.dtype(name), int(axes)))
        else:
            kinds.append(_SCALARS[name])
            expected.append(None)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *kinds)(address)

    def call(*values: Any) -> None:
        if len(values) != len(expected):
            raise TypeError(f"{len(values)} arguments instead of {len(expected)}")
        room = (ctypes.c_void_p * 2)()
        start = ctypes.addressof(room)
        given: list[Any] = [start, start + ctypes.sizeof(ctypes.c_void_p)]
        for value, kind in zip(values, expected, strict=True):
            if kind is None:
                given.append(value)
                continue
            if value.dtype != kind[0] or value.ndim != kind[1] or not value.flags.c_contiguous:
                raise TypeError(f"an array of {value.dtype}{value.shape} instead of contiguous {kind[0]} with {kind[1]} axes")
            given += [None, None, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
        if function(*given):
            raise RuntimeError("a compiled function reports an error")

    return call


def undefined_symbols(code: bytes) -> list[str] | None:
    """Names that an object file needs from elsewhere; None if it is not ELF for 64 bits, little-endian, on Linux."""
    if sys.platform != "linux" or sys.byteorder != "little" or code[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        sections, size, count = struct.unpack_from("<Q", code, 40)[0], *struct.unpack_from("<HH", code, 58)
        headers = [struct.unpack_from("<IIQQQQIIQQ", code, sections + i * size) for i in range(count)]
        found = []
        for _, kind, _, _, offset, length, link_to, *_ in headers:
            if kind != 2:  # the symbol table
                continue
            names = headers[link_to][4]
            for at in range(offset + 24, offset + length, 24):  # the first symbol is always empty
                name, _, _, section = struct.unpack_from("<IBBH", code, at)
                if section == 0 and name:
                    found.append(code[names + name : code.index(b"\0", names + name)].decode("ascii"))
    except (struct.error, IndexError, ValueError, OverflowError):
        return None
    return found
