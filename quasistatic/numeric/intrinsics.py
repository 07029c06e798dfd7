"""Numba intrinsics for generated code: bit casts, rows of lanes, functions that vectorise, and comparisons that keep NaN."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


@intrinsic
def as_float(typingctx: Any, x: Any) -> Any:
    """The float64 with these 64 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), codegen


@intrinsic
def as_bits(typingctx: Any, x: Any) -> Any:
    """The 64 bits of a float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), codegen


def _choice(comparison: str) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = args
        # a NaN on the left must be chosen explicitly; on the right it is the default of a false comparison
        first = builder.or_(builder.fcmp_ordered(comparison, a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(first, a, b)

    return codegen


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger number; NaN where either is."""
    return types.float64(types.float64, types.float64), _choice(">")


@intrinsic
def minimum(typingctx: Any, a: Any, b: Any) -> Any:
    """The smaller number; NaN where either is."""
    return types.float64(types.float64, types.float64), _choice("<")


@intrinsic
def sign(typingctx: Any, x: Any) -> Any:
    """-1, 0 or 1; NaN stays NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (v,) = args
        one, zero = v.type(1.0), v.type(0.0)
        negative = builder.select(builder.fcmp_ordered("<", v, zero), v.type(-1.0), v)
        return builder.select(builder.fcmp_ordered(">", v, zero), one, negative)

    return types.float64(types.float64), codegen


# In a loop over tables LLVM cannot know that the row it writes is none of those it reads, and would check at run time or give
# up. Loads and stores of one loop carry its number: a store with ``noalias`` never meets a load of the same ``alias.scope``.


def _scope(builder: Any, instruction: Any, kind: str, loop: int) -> None:
    module = builder.module
    domain = module.add_metadata(["quasistatic"])
    scope = module.add_metadata([f"quasistatic {loop}", domain])
    instruction.set_metadata(kind, module.add_metadata([scope]))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def load_row(typingctx: Any, loop: Any, array: Any, index: Any) -> Any:
    """``array[index]`` in a loop that stores to no place it loads from; ``loop`` is its number, a literal."""
    if not isinstance(loop, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_address(context, builder, sig.args[1], args[1], args[2]))
        _scope(builder, value, "alias.scope", loop.literal_value)
        return value

    return types.float64(loop, array, types.int64), codegen


@intrinsic
def store_row(typingctx: Any, loop: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index] = value`` in such a loop."""
    if not isinstance(loop, types.IntegerLiteral):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store = builder.store(args[3], _address(context, builder, sig.args[1], args[1], args[2]))
        _scope(builder, store, "noalias", loop.literal_value)
        return context.get_dummy_value()

    return types.void(loop, array, types.int64, types.float64), codegen


# exp and log of one lane call the C library, which keeps LLVM from vectorising the loop; these are polynomials, exact to two
# units in the last place, without branches. They keep NaN and infinities.

_MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to a whole number, which then stands in the low bits


def _horner(builder: Any, x: Any, coefficients: Any) -> Any:
    total = x.type(coefficients[0])
    for c in coefficients[1:]:
        total = builder.fadd(builder.fmul(total, x), x.type(c))
    return total


def _bits(builder: Any, x: Any) -> Any:
    return builder.bitcast(x, ir.IntType(64))


def _power_of_two(builder: Any, n: Any, double: Any) -> Any:
    """2.0**n for a whole number n from -1022 to 1023."""
    return builder.bitcast(builder.shl(builder.add(n, n.type(1023)), n.type(52)), double)


def _exp(builder: Any, given: Any) -> Any:
    double = given.type
    low = builder.fcmp_ordered("<", given, double(-746.0))
    v = builder.select(low, double(-746.0), given)
    v = builder.select(builder.fcmp_ordered(">", v, double(710.0)), double(710.0), v)
    shifted = builder.fadd(builder.fmul(v, double(1.4426950408889634)), double(_MAGIC))
    whole = builder.fsub(shifted, double(_MAGIC))
    rest = builder.fsub(v, builder.fmul(whole, double(0.6931471803691238)))
    rest = builder.fsub(rest, builder.fmul(whole, double(1.9082149292705877e-10)))
    value = _horner(builder, rest, [1.0 / math.factorial(k) for k in range(13, -1, -1)])
    n = builder.sub(_bits(builder, shifted), _bits(builder, double(_MAGIC)))
    half = builder.ashr(n, n.type(1))  # in two steps, for results that are close to the largest or the smallest number
    value = builder.fmul(value, _power_of_two(builder, half, double))
    value = builder.fmul(value, _power_of_two(builder, builder.sub(n, half), double))
    return builder.select(builder.fcmp_unordered("uno", given, given), given, value)


def _log(builder: Any, given: Any) -> Any:
    double, one = given.type, given.type(1.0)
    tiny = builder.fcmp_ordered("<", given, double(2.2250738585072014e-308))
    v = builder.select(tiny, builder.fmul(given, double(2.0**54)), given)
    bits = _bits(builder, v)
    exponent = builder.ashr(builder.sub(bits, bits.type(0x3FE6A09E667F3BCD)), bits.type(52))  # mantissa in [sqrt(1/2), sqrt(2))
    mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, bits.type(52))), double)
    count = builder.bitcast(builder.add(exponent, _bits(builder, double(_MAGIC))), double)
    count = builder.fsub(builder.fsub(count, double(_MAGIC)), builder.select(tiny, double(54.0), double(0.0)))
    f = builder.fsub(mantissa, one)
    s = builder.fdiv(f, builder.fadd(f, double(2.0)))
    w = builder.fmul(s, s)
    tail = builder.fmul(w, _horner(builder, w, [2.0 / k for k in range(21, 2, -2)]))
    half = builder.fmul(builder.fmul(f, f), double(0.5))
    # log(1 + f) = f - (f^2/2 - s (f^2/2 + tail)) loses nothing where f is small
    inner = builder.fadd(builder.fmul(s, builder.fadd(half, tail)), builder.fmul(count, double(1.9082149292705877e-10)))
    value = builder.fsub(f, builder.fsub(half, inner))
    value = builder.fadd(builder.fmul(count, double(0.6931471803691238)), value)
    infinite = builder.fcmp_ordered("==", given, double(float("inf")))
    value = builder.select(infinite, given, value)
    value = builder.select(builder.fcmp_ordered("==", given, double(0.0)), double(float("-inf")), value)
    bad = builder.fcmp_unordered("<", given, double(0.0))  # NaN too
    return builder.select(bad, double(float("nan")), value)


@intrinsic
def exp(typingctx: Any, x: Any) -> Any:
    """The exponential."""
    return types.float64(types.float64), lambda context, builder, sig, args: _exp(builder, args[0])


@intrinsic
def log(typingctx: Any, x: Any) -> Any:
    """The natural logarithm; -infinity at 0, NaN below."""
    return types.float64(types.float64), lambda context, builder, sig, args: _log(builder, args[0])


@intrinsic
def power(typingctx: Any, x: Any, y: Any) -> Any:
    """x**y through exp and log, to about |y log x| units in the last place; NaN for x < 0 unless y is whole."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        base, exponent = args
        double = base.type
        zero = double(0.0)
        floor = builder.module.declare_intrinsic("llvm.floor", [double])
        negative = builder.fcmp_ordered("<", base, zero)
        size = builder.select(negative, builder.fneg(base), base)
        value = _exp(builder, builder.fmul(exponent, _log(builder, size)))
        half = builder.fmul(exponent, double(0.5))
        odd = builder.fcmp_ordered("!=", builder.call(floor, [half]), half)
        signed = builder.select(odd, builder.fneg(value), value)
        signed = builder.select(builder.fcmp_ordered("==", builder.call(floor, [exponent]), exponent), signed, double(float("nan")))
        value = builder.select(negative, signed, value)
        return builder.select(builder.fcmp_ordered("==", exponent, zero), double(1.0), value)

    return types.float64(types.float64, types.float64), codegen
