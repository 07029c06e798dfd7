"""A content hash of expressions and of what is declared with them: the same in every process, other than Python's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from quasistatic.model.problem import Problem
from quasistatic.model.rule import Rule


def fingerprint(*things: Any) -> str:
    """Hash of expressions, rules, problems, noise models, numbers, texts, and tuples, sets and mappings of them.

    Raises
    ------
    TypeError
        For anything else.
    """
    return _digest(things, {}).hex()


def _digest(thing: Any, memo: dict[Any, bytes]) -> bytes:
    if isinstance(thing, sp.Basic) and not isinstance(thing, sp.MatrixBase):
        if thing not in memo:
            memo[thing] = _hash(*_node(thing, memo))
        return memo[thing]
    return _hash(*_parts(thing, memo))


def _node(e: sp.Basic, memo: dict[Any, bytes]) -> list[bytes]:
    name = type(e).__name__.encode()
    if isinstance(e, sp.Symbol):
        assumptions = sorted((k, v) for k, v in e._assumptions_orig.items() if v is not None)
        return [name, e.name.encode(), repr((assumptions, getattr(e, "dummy_index", None))).encode()]
    if isinstance(e, AppliedUndef):
        return [b"undefined", name, repr(sorted(type(e)._kwargs.items())).encode(), *(_digest(a, memo) for a in e.args)]
    if not e.args:
        return [name, sp.srepr(e).encode()]
    return [name, *(_digest(a, memo) for a in e.args)]


def _parts(thing: Any, memo: dict[Any, bytes]) -> list[bytes]:
    if thing is None or isinstance(thing, (bool, int, float, str, bytes)):
        return [repr(thing).encode()]
    if isinstance(thing, sp.MatrixBase):
        return [b"matrix", repr(thing.shape).encode(), *(_digest(e, memo) for e in thing)]
    if isinstance(thing, Rule):
        return [b"rule", _digest(thing.trace.__reduce__()[1], memo), _digest(thing.fixed, memo)]
    if isinstance(thing, Problem):
        return [b"problem", _digest(thing.__reduce__()[1], memo)]
    if isinstance(thing, Mapping):
        return [b"mapping", *(_digest(k, memo) + _digest(v, memo) for k, v in thing.items())]
    if isinstance(thing, (tuple, list)):
        return [b"sequence", *(_digest(a, memo) for a in thing)]
    if isinstance(thing, (set, frozenset)):
        return [b"set", *sorted(_digest(a, memo) for a in thing)]
    if is_dataclass(thing):
        return [type(thing).__name__.encode(), *(_digest(getattr(thing, f.name), memo) for f in fields(thing))]
    raise TypeError(f"{thing!r} has no fingerprint")


def _hash(*parts: bytes) -> bytes:
    h = hashlib.blake2b(digest_size=20)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()
