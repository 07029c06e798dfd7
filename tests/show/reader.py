"""Reads printed LaTeX back to numbers: the subset that the printer emits, for tests only."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+|[^\s]")
_SPACES = {r"\,", r"\!", r"\ ", r"\quad", r"\qquad", "&"}
Function = Callable[[float, int], float]


def rows_of(body: str) -> list[tuple[str, str]]:
    """(left, right) of every equation in an aligned display, continued rows joined."""
    body = re.sub(r"\\(begin|end)\{aligned\}", "", body)
    joined = re.sub(r"\\\\\s*&\\quad \{\} ", " ", body)
    found = []
    for row in joined.split(r"\\"):
        left, _, right = row.replace("&", "").partition("=")
        found.append((left.strip(), right.strip()))
    return found


class Reader:
    """Values of formulas by recursive descent.

    ``names`` are numbers by LaTeX, ``functions`` by LaTeX too: called with argument and order of the derivative.
    """

    def __init__(self, names: Mapping[str, float], functions: Mapping[str, Function] | None = None) -> None:
        self.names, self.functions = dict(names), dict(functions or {})

    def value(self, source: str) -> float:
        self.tokens = [t for t in _TOKEN.findall(source) if t not in _SPACES]
        self.at = 0
        found = self.sum()
        assert self.at == len(self.tokens), (source, self.tokens[self.at :])
        return found

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, wanted: str | None = None) -> str:
        token = self.peek()
        assert wanted is None or token == wanted, (token, wanted, self.tokens)
        self.at += 1
        return token

    def sum(self) -> float:
        total, sign = 0.0, 1.0
        if self.peek() in "+-":
            sign = -1.0 if self.take() == "-" else 1.0
        total = sign * self.product()
        while self.peek() and self.peek() in "+-":
            sign = -1.0 if self.take() == "-" else 1.0
            total += sign * self.product()
        return total

    def product(self) -> float:
        found = self.power()
        while self.peek() and self.peek() not in ("+", "-", ")", "}", "]", ",", r"\right"):
            if self.peek() in (r"\cdot", r"\times"):
                self.take()
            found *= self.power()
        return found

    def power(self) -> float:
        base = self.atom()
        if self.peek() == "^":
            self.take()
            base = base ** self.group()
        return base

    def group(self) -> float:
        if self.peek() != "{":
            return self.atom()
        self.take()
        found = self.sum()
        self.take("}")
        return found

    def brackets(self) -> float:
        if self.peek() == r"\left":
            self.take()
            self.take("(")
            found = self.sum()
            self.take(r"\right")
        else:
            self.take("(")
            found = self.sum()
        self.take(")")
        return found

    def atom(self) -> float:
        token = self.peek()
        if token in (r"\left", "("):
            return self.brackets()
        if token == "{":
            return self.group()
        self.take()
        if token.isdigit():
            return float(token)
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            top = self.group()
            return top / self.group()
        if token == r"\sqrt":
            root = 2.0
            if self.peek() == "[":
                self.take()
                root = self.sum()
                self.take("]")
            return self.group() ** (1 / root)
        if token in (r"\log", r"\exp"):
            return getattr(math, token[1:])(self.group() if self.peek() == "{" else self.brackets())
        return self.named(token)

    def raw(self) -> str:
        """The source of a group, as it is."""
        found = self.take("{")
        while found.count("{") != found.count("}"):
            found += self.take()
        return found

    def named(self, token: str) -> float:
        name = token
        if token in (r"\mathrm", r"\mathcal", r"\hat"):
            name += self.raw()
        if self.peek() == "_":
            name += self.take() + self.raw()
        if name in self.functions:
            order = 0
            while self.peek() == "'":
                self.take()
                order += 1
            return self.functions[name](self.brackets(), order)
        assert name in self.names, (name, sorted(self.names))
        return self.names[name]
