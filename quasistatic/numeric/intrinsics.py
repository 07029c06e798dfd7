"""Numba intrinsics for generated code: bit casts, and maximum, minimum, sign without branches that keep NaN."""

from __future__ import annotations

from typing import Any

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
