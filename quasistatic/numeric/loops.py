"""Large maps as loops over tables: straight-line code rolled up again.

A factorisation of thousands of products would be pages of source and half a minute of compilation. Here every
intermediate result becomes a *statement* whose leaves (variables, normals, earlier results, uniform numbers) are taken out;
what is left is its skeleton, such as ``r*r + r*r - u``. Statements with one skeleton and one depth in the dependencies are
one loop over a table of row numbers, with the loop over lanes inside. Long sums are chained partial sums, so that a sum of
products of any length is a few loops. The rows that intermediate results live in are used again when they are no longer
needed, to keep the working set in the cache.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import sympy as sp

from quasistatic.numeric.emit import emit, require_closed

#: Operations of one statement: eight products in a sum fill the loads of an index without running out of registers.
GRAIN = 16

#: More loops than this would take long to compile; then statements of single operations are made, of which there are few kinds.
MOST_GROUPS = 120

#: A skeleton: "r" and "u" are leaves (a row of lanes, a uniform number), numbers stand for themselves, (class, children) is a node.
Tree: TypeAlias = Any
#: A leaf: ("r", register) or ("u", number of the uniform value).
Leaf: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Piece:
    """An expression as skeleton and leaves; ``key`` is the skeleton as text, ``size`` its operations.

    ``is_number`` is not true of conditions, which cannot be stored.
    """

    key: str
    tree: Tree
    leaves: tuple[Leaf, ...]
    size: int
    is_number: bool = True


@dataclass
class Group:
    """Statements with one skeleton that do not depend on each other."""

    tree: Tree
    results: list[int] = field(default_factory=list)
    leaves: list[tuple[Leaf, ...]] = field(default_factory=list)


@dataclass(frozen=True)
class Rolled:
    """Source of one iteration as loops.

    Attributes
    ----------
    setup, clock, body:
        Lines that run once per call, once per iteration, and the loops themselves.
    table:
        The row numbers, times the number of lanes.
    rows:
        Rows of the state buffer, scratch and uniform numbers included.
    operations:
        Arithmetic operations per iteration and trajectory.
    """

    setup: tuple[str, ...]
    clock: tuple[str, ...]
    body: tuple[str, ...]
    table: npt.NDArray[np.int32]
    rows: int
    operations: int


def roll(
    outputs: Sequence[sp.Expr],
    assignments: Sequence[tuple[sp.Symbol, sp.Expr]],
    rows: Mapping[sp.Symbol, int],
    arguments: Sequence[sp.Symbol],
    clock: sp.Symbol | None,
    first_row: int,
    lanes: int,
) -> Rolled:
    """Loops that put ``outputs`` into rows 0, 1, ... of the state buffer.

    Parameters
    ----------
    rows:
        Row of every variable and normal.
    arguments:
        Symbols of the numbers ``h``; ``clock`` is the one of the iteration number.
    first_row:
        First row that scratch may use.
    lanes:
        L.
    """
    require_closed([*(e for _, e in assignments), *outputs])
    for grain in (GRAIN, 1):
        roller = _Roller(assignments, rows, arguments, clock, grain)
        roller.run(outputs)
        if len(roller.groups) <= MOST_GROUPS:
            break
    return _Layout(roller, len(outputs), first_row, lanes).source()


class _Roller:
    """From expressions to statements, grouped by depth and skeleton."""

    def __init__(
        self,
        assignments: Sequence[tuple[sp.Symbol, sp.Expr]],
        rows: Mapping[sp.Symbol, int],
        arguments: Sequence[sp.Symbol],
        clock: sp.Symbol | None,
        grain: int,
    ) -> None:
        self.definitions = dict(assignments)
        self.grain = grain
        self.arguments, self.clock = tuple(arguments), clock
        self.fixed = dict(enumerate(rows.values()))
        self.depth = dict.fromkeys(self.fixed, 0)
        self.pieces: dict[sp.Basic, Piece] = {s: _leaf("r", i) for i, s in enumerate(rows)}
        # the arguments and their negatives, so that data of both signs have one skeleton; then what is computed from them
        self.uniform_of: dict[sp.Basic, int] = {e: i for i, e in enumerate([*arguments, *(-a for a in arguments)])}
        self.varies: dict[sp.Basic, bool] = {**dict.fromkeys(rows, True), **dict.fromkeys(arguments, False)}
        self.uses: dict[sp.Basic, int] = {}
        self.known: dict[tuple[str, tuple[Leaf, ...]], int] = {}
        self.groups: dict[tuple[int, str], Group] = {}
        self.outputs: dict[int, int] = {}

    def run(self, outputs: Sequence[sp.Expr]) -> None:
        for output in outputs:
            self.count(output)
        for symbol in self.definitions:
            if self.uses.get(symbol) and self.lane_dependent(symbol):
                piece = self.piece(self.definitions[symbol])
                self.pieces[symbol] = self.stored(piece) if self.uses[symbol] > 1 else piece
        for j, output in enumerate(outputs):
            piece = self.piece(output)
            register = piece.leaves[0][1] if piece.tree == "r" else -1
            if register < len(self.fixed) or register in self.outputs:  # not a result that is stored anyway
                register = self.statement(piece, fresh=True)
            self.outputs[register] = j

    def count(self, root: sp.Basic) -> None:
        """How often every expression is used; definitions are looked into when first met."""
        todo = [root]
        while todo:
            e = todo.pop()
            self.uses[e] = self.uses.get(e, 0) + 1
            if self.uses[e] == 1:
                todo += [self.definitions[e]] if e in self.definitions else e.args

    def lane_dependent(self, e: sp.Basic) -> bool:
        if e not in self.varies:
            inner = (self.definitions[e],) if e in self.definitions else e.args
            self.varies[e] = any(self.lane_dependent(a) for a in inner)
        return self.varies[e]

    # -- pieces --------------------------------------------------------------------------------------------------------

    def piece(self, e: sp.Basic) -> Piece:
        """The expression as skeleton and leaves; what is used more than once is stored first."""
        if e in self.pieces:
            return self.pieces[e]
        if isinstance(e, sp.Symbol) or not self.lane_dependent(e):
            return self.uniform(e)
        if isinstance(e, sp.Add):
            made = self.chain(sp.Add, list(e.args))
        elif isinstance(e, sp.Mul):
            made = self.chain(sp.Mul, list(e.args))
        else:
            made = self.node(e)
        if self.uses.get(e, 0) > 1 and made.size > 1 and made.is_number:
            made = self.pieces[e] = self.stored(made)
        return made

    def uniform(self, e: sp.Basic) -> Piece:
        """The same number in all lanes; the factors of a product stay apart, so that data alone do not make new skeletons."""
        if not e.args and not isinstance(e, sp.Symbol):
            return Piece(str(e), e, (), 0)
        if isinstance(e, sp.Mul) and len(e.args) <= 4 and e not in self.uniform_of:
            return self.chain(sp.Mul, list(e.args))
        if not isinstance(e, sp.Expr):  # a condition on uniform numbers
            return self.node(e)
        return _leaf("u", self.uniform_of.setdefault(e, len(self.uniform_of)))

    def node(self, e: sp.Basic) -> Piece:
        parts = [self.piece(a) for a in e.args]
        while sum(p.size for p in parts) >= self.grain and any(_can_be_stored(p) for p in parts):
            largest = max((i for i, p in enumerate(parts) if _can_be_stored(p)), key=lambda i: parts[i].size)
            parts[largest] = self.stored(parts[largest])
        if isinstance(e, (sp.Max, sp.Min)):
            parts.sort(key=lambda p: p.key)
        return _join(e.func, parts)

    def chain(self, kind: type[sp.Basic], terms: Sequence[sp.Basic]) -> Piece:
        """A sum or product: in parts of at most ``grain`` operations, each added to the one before."""
        parts = [self.piece(term) for term in terms]
        most = max(self.grain - len(parts) + 1, self.grain // 2)  # a single long part may stay: 2*(a*b + c*d + ...)
        parts = [self.stored(p) if p.size > most and _is_row(p) else p for p in parts]
        parts.sort(key=lambda p: p.key)
        while sum(p.size + 1 for p in parts) - 1 > self.grain and len(parts) > 2:
            size = taken = 0
            while taken < len(parts) and (taken < 2 or size + parts[taken].size + 1 <= self.grain + 1):
                size += parts[taken].size + 1
                taken += 1
            if taken == len(parts) or not any(_is_row(p) for p in parts[:taken]):
                break
            parts = [self.stored(_join(kind, parts[:taken])), *parts[taken:]]
        return _join(kind, parts)

    # -- statements ----------------------------------------------------------------------------------------------------

    def stored(self, piece: Piece) -> Piece:
        """The piece as one row."""
        return piece if piece.tree == "r" else _leaf("r", self.statement(piece))

    def statement(self, piece: Piece, fresh: bool = False) -> int:
        """The register that this piece is computed into; ``fresh`` for one of its own."""
        if not fresh and (piece.key, piece.leaves) in self.known:
            return self.known[piece.key, piece.leaves]
        depth = 1 + max((self.depth[i] for kind, i in piece.leaves if kind == "r"), default=0)
        register = len(self.depth)
        self.depth[register] = depth
        group = self.groups.setdefault((depth, piece.key), Group(piece.tree))
        group.results.append(register)
        group.leaves.append(piece.leaves)
        if not fresh:
            self.known[piece.key, piece.leaves] = register
        return register


class _Layout:
    """Registers to rows, and the text of the loops."""

    def __init__(self, roller: _Roller, outputs: int, first_row: int, lanes: int) -> None:
        self.roller, self.outputs, self.L = roller, outputs, lanes
        self.groups = [roller.groups[k] for k in sorted(roller.groups)]
        self.row = dict(roller.fixed)
        self.row.update({register: first_row + j for register, j in roller.outputs.items()})
        self.top = first_row + outputs
        self.free: list[int] = []
        self.table: list[npt.NDArray[np.int64]] = []
        self.length = 0
        self.operations = 0
        self.allocate()

    def allocate(self) -> None:
        """Rows for the results of every group; those that nobody reads any more are used again."""
        last: dict[int, int] = {}
        for g, group in enumerate(self.groups):
            for leaves in group.leaves:
                last.update({i: g for kind, i in leaves if kind == "r"})
        ends: dict[int, list[int]] = {}
        for register, g in last.items():
            if register not in self.row:
                ends.setdefault(g, []).append(register)
        for g, group in enumerate(self.groups):
            for register in group.results:
                if register not in self.row:
                    self.row[register] = self.take()
            self.free = sorted([*self.free, *(self.row[r] for r in ends.get(g, ()))], reverse=True)
        self.uniform_row = self.top

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.top += 1
        return self.top - 1

    def source(self) -> Rolled:
        body = [line for g, group in enumerate(self.groups) for line in self.loop(g, group)]
        first = min(self.row[r] for r in self.roller.outputs) * self.L
        body += [f"for l in range({self.outputs}*L):", f"    Z[l] = Z[{first} + l]"]
        setup, clock = self.uniforms()
        rows = self.uniform_row + -(-len(self.roller.uniform_of) // self.L)
        table = np.concatenate(self.table) if self.table else np.zeros(1, dtype=np.int64)
        return Rolled(tuple(setup), tuple(clock), tuple(body), table.astype(np.int32), rows, self.operations)

    def uniforms(self) -> tuple[list[str], list[str]]:
        """Lines that put the uniform numbers into their place: arguments, then what is computed from them."""
        roller, start = self.roller, self.uniform_row * self.L
        h = len(roller.arguments)
        setup = [f"for i in range({h}):", f"    Z[{start} + i] = h[i]", f"    Z[{start + h} + i] = -h[i]"] if h else []
        computed = list(roller.uniform_of)[2 * h :]
        if not computed:
            return setup, []
        names = {a: f"h[{i}]" for i, a in enumerate(roller.arguments)}
        levels: dict[sp.Symbol, int] = {}
        if roller.clock is not None:
            names[roller.clock] = "clock"
            levels[roller.clock] = 1
        given = [(s, e) for s, e in roller.definitions.items() if not roller.lane_dependent(s)]
        early = [e for e in computed if not self.needs_clock(e)]
        late = [e for e in computed if self.needs_clock(e)]
        clock: list[str] = []
        for expressions, lines in ((early, setup), (late, clock)):
            if expressions:
                program = emit(expressions, names, given)
                lines += [line for stage in program.stages for line in stage]
                lines += [f"Z[{start + roller.uniform_of[e]}] = {text}" for e, text in zip(expressions, program.outputs, strict=True)]
        if late:
            clock.insert(0, "clock = step + 1.0")
        return setup, clock

    def needs_clock(self, e: sp.Basic) -> bool:
        if e == self.roller.clock:
            return True
        inner = (self.roller.definitions[e],) if e in self.roller.definitions else e.args
        return any(self.needs_clock(a) for a in inner)

    # -- text ----------------------------------------------------------------------------------------------------------

    def loop(self, number: int, group: Group) -> list[str]:
        """The loop over one group: for every statement its rows, then all lanes."""
        count = len(group.results)
        symbols: list[sp.Symbol] = []
        expression = _expression(group.tree, symbols)
        kinds = [kind for kind, _ in group.leaves[0]]
        offset = self.uniform_row * self.L
        columns = [
            np.array([self.row[leaves[s][1]] * self.L if kind == "r" else offset + leaves[s][1] for leaves in group.leaves])
            for s, kind in enumerate(kinds)
        ]
        columns.append(np.array([self.row[r] * self.L for r in group.results]))
        texts, tabled = self.places(columns)
        names = {s: f"{kind}{i}" for i, (s, kind) in enumerate(zip(symbols, kinds, strict=True))}
        program = emit([expression], names)
        lines = list(program.stages[0])
        self.operations += count * count_operations([*lines, *program.outputs])
        flat = count > 1 and not tabled and all(self.is_flat(c, kind) for c, kind in zip(columns, [*kinds, "r"], strict=True))
        if flat:  # consecutive rows everywhere: one long row
            texts = [f"np.int64({c[0]})" for c in columns]
        outer = [f"a{s} = {text}" for s, text in enumerate(texts)]
        if tabled:
            outer.insert(0, f"k = {self.length - tabled * count} + i*{tabled}")
        outer += [f"u{s} = Z[a{s}]" for s, kind in enumerate(kinds) if kind == "u"]
        inner = [f"r{s} = load_row({number}, Z, a{s} + l)" for s, kind in enumerate(kinds) if kind == "r"]
        inner += [*lines, f"store_row({number}, Z, a{len(kinds)} + l, {program.outputs[0]})"]
        body = [*outer, f"for l in range({count}*L):" if flat else "for l in range(L):", *("    " + line for line in inner)]
        if flat:
            return body
        return [f"for i in range({count}):", *("    " + line for line in body)]

    def is_flat(self, column: npt.NDArray[np.int64], kind: str) -> bool:
        """Whether statement i has row number i after the first, or the same uniform number for all."""
        return bool((np.diff(column) == (self.L if kind == "r" else 0)).all())

    def places(self, columns: list[npt.NDArray[np.int64]]) -> tuple[list[str], int]:
        """How statement i finds its row: a formula where the numbers are equally spaced, else a column of the table."""
        texts: list[str] = []
        tabled: list[npt.NDArray[np.int64]] = []
        for column in columns:
            steps = np.diff(column)
            if not steps.size or not steps.any():
                texts.append(f"np.int64({column[0]})")
            elif (steps == steps[0]).all():
                texts.append(f"np.int64({column[0]}) + i*{steps[0]}")
            else:
                texts.append(f"np.int64(I[k + {len(tabled)}])")
                tabled.append(column)
        if tabled:
            block = np.stack(tabled, axis=1).ravel()
            self.table.append(block)
            self.length += block.size
        return texts, len(tabled)


def _leaf(kind: str, number: int) -> Piece:
    return Piece(kind, kind, ((kind, number),), 0)


def _is_row(piece: Piece) -> bool:
    """Whether it differs between lanes."""
    return any(kind == "r" for kind, _ in piece.leaves)


def _can_be_stored(piece: Piece) -> bool:
    return piece.size > 0 and piece.is_number and _is_row(piece)


def _join(kind: Any, parts: Sequence[Piece]) -> Piece:
    """A node over pieces; a sum or product of n has n-1 operations, a factor of -1 none."""
    if kind in (sp.Add, sp.Mul):
        if len(parts) == 1:
            return parts[0]
        operations = len(parts) - 1 - sum(p.key == "-1" for p in parts if kind is sp.Mul)
    else:
        operations = 1
    key = f"{kind.__name__}({','.join(p.key for p in parts)})"
    leaves = tuple(leaf for p in parts for leaf in p.leaves)
    size = max(operations, 0) + sum(p.size for p in parts)
    return Piece(key, (kind, tuple(p.tree for p in parts)), leaves, size, issubclass(kind, sp.Expr))


def _expression(tree: Tree, symbols: list[sp.Symbol]) -> Any:
    """The skeleton as an expression; every leaf is a new real symbol, appended to ``symbols``."""
    if isinstance(tree, str):
        symbols.append(sp.Symbol(f"leaf {len(symbols)}", real=True))
        return symbols[-1]
    if not isinstance(tree, tuple):
        return tree
    kind, children = tree
    return kind(*(_expression(c, symbols) for c in children))


def count_operations(lines: Iterable[str]) -> int:
    """Arithmetic operations, comparisons and calls in lines of source."""
    counted = (ast.BinOp, ast.Compare, ast.IfExp, ast.Call, ast.BoolOp)
    found = 0
    for line in lines:
        tree = ast.parse(line)
        found += sum(isinstance(node, counted) for node in ast.walk(tree))
    return found
