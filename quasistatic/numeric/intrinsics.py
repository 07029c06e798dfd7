"""Numba intrinsics for generated code: bit casts, rows of lanes, and maximum, minimum, sign without branches that keep NaN."""

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
