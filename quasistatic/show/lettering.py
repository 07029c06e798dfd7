"""Which letter stands for what in one document: the user's names, how they are renamed, and the document's own letters.

The user's names come first. Where one of them looks like a letter that the document uses itself (a hyperparameter ``gamma``
and the gain), the document's own letter steps aside. For that the user's letters are marked while a text is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction

from quasistatic.derivation.adaptive import AdaptiveResult
from quasistatic.derivation.adaptive_law import CURVATURE, AdaptiveLawResult
from quasistatic.derivation.law import ALPHA, BATCH, SIGMA_STRENGTH, LawResult
from quasistatic.derivation.result import SlowResult
from quasistatic.errors import OutputError, suggestion
from quasistatic.show.typeset import CLOSE, OPEN, lettered, name_tex
from quasistatic.symbols import GREEK

#: The letters of a derivation that no notation may take.
KEPT = {"f": "the loss", "H": "the Hessian", "V": "the equilibrium covariance", r"\Sigma": "the noise covariance"}
#: Letters that step aside.
OWN = frozenset(
    [*KEPT, *"ABCDFGIJKMNPQTWdknstu", r"\gamma", r"\delta", r"\zeta", r"\lambda", r"\xi", r"\rho", r"\varphi", r"\ell", r"\Lambda"]
) | {r"\Pi", r"\Psi", r"\psi"}
#: Characters of a name given in LaTeX.
LONGEST = 80


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TEXT = _set("text textrm textbf textit mathrm mathtt mathsf mathbf mathit operatorname")
_WITH_ARGUMENT = _TEXT | _set(
    "mathcal mathbb mathfrak boldsymbol hat widehat tilde widetilde bar overline underline dot ddot vec check breve acute grave"
)
_LETTERS = frozenset(g for g in GREEK if g != "omicron") | _set(
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega varepsilon vartheta varpi varrho varsigma varphi varkappa"
    " ell hbar imath jmath Re Im partial nabla infty aleph"
)
_MARKS = _set("star ast prime dagger ddagger circ bullet perp bot top parallel flat sharp natural pm mp times")


# -- names in a document -----------------------------------------------------------------------------------------------


def vocabulary(result: SlowResult | LawResult) -> dict[str, str]:
    """The user's names in the document of a result, and what each of them is."""
    rule = result.rule
    parameter, *states = (v.name for v in rule.trace.variables)
    found = {parameter: "a parameter of the rule", rule.trace.gradient.name: "the gradient"}
    found |= dict.fromkeys(states, "a state of the rule")
    if rule.trace.iteration is not None:
        found[rule.trace.iteration.name] = "the iteration"
    found |= dict.fromkeys((*rule.hyperparameters, *rule.fixed), "a hyperparameter")
    linear = result.linear
    if linear is not None and linear.continuous and rule.scaling is not None:
        scaled = {s.name for v in rule.scaling.values.values() for s in v.free_symbols}
        found |= {name: "a symbol of the scaling" for name in sorted(scaled) if name not in found}
    if isinstance(result, (AdaptiveResult, AdaptiveLawResult)):
        found.setdefault("S", "the preconditioner")
    if isinstance(result, AdaptiveLawResult):
        found |= {s.name: "a symbol of the law" for s in (ALPHA, CURVATURE) if s.name not in found}
        return found
    if isinstance(result, LawResult):
        found |= {s.name: "a symbol of the law" for s in (ALPHA, SIGMA_STRENGTH, BATCH) if s.name not in found}
        return found
    problem = result.problem
    found |= {s.name: "a constant of the problem" for s in problem.constants}
    found |= {str(f): "an unknown function" for f in problem.unknown_functions}
    found |= {s.name: "a coordinate" for s in problem.chart.coordinates}
    found |= {s.name: "a parameter of the problem" for s in problem.parameters}
    return found


def _compounds(result: SlowResult | LawResult) -> dict[str, tuple[str, str]]:
    """States of the single parameters: ``b_y`` is ``b`` of ``y``."""
    if isinstance(result, LawResult):
        return {}
    states = [v.name for v in result.rule.trace.variables[1:]]
    if isinstance(result, AdaptiveResult):
        states += ["S", "M"]
    return {f"{b}_{p.name}": (b, p.name) for b in states for p in result.problem.parameters}


def letters(result: SlowResult | LawResult, notation: Mapping[Any, str] | None = None) -> dict[str, str]:
    """The LaTeX of every name of the user's in the document of a result.

    Parameters
    ----------
    notation:
        Names or SymPy symbols to LaTeX (``r"\\beta_1"``) or to plain names (``"lr"``).

    Raises
    ------
    OutputError
        If a key is unknown or given twice, if a value is not safe LaTeX, or if two symbols would share a name.
    """
    known = vocabulary(result)
    parts = _compounds(result)
    given = _given(notation or {}, [*known, *(c for c in parts if c not in known)])
    found = {name: given.get(name) or name_tex(name) for name in known}
    for name, (state, parameter) in parts.items():
        plain = state not in given and parameter not in given and "_" not in found[parameter]
        found[name] = given.get(name) or (name_tex(name) if plain else _subscript(found.get(state, state), found[parameter]))
    _require_distinct(found, given)
    return found


def _subscript(head: str, below: str) -> str:
    return rf"{{{head}}}_{{{below}}}" if "_" in head else f"{head}_{{{below}}}"


def _given(notation: Mapping[Any, str], known: list[str]) -> dict[str, str]:
    if not isinstance(notation, Mapping):
        raise OutputError(f"notation is a mapping of names to LaTeX, e.g. {{'eta': 'lr'}}, not {notation!r}.")
    found: dict[str, str] = {}
    for key, value in notation.items():
        name = _key(key)
        if name not in known:
            raise OutputError(f"notation: {name!r} is not a symbol of this document (known: {', '.join(known)}).{suggestion(name, known)}")
        if name in found:
            raise OutputError(f"notation names {name!r} twice.")
        found[name] = checked(value, f"notation[{name!r}]")
    return found


def _key(key: Any) -> str:
    if isinstance(key, AppliedUndef):
        key = type(key)
    if isinstance(key, (str, sp.Symbol, UndefinedFunction)):
        return str(key)
    raise OutputError(f"notation: {key!r} is neither a name nor a SymPy symbol.")


def _require_distinct(found: Mapping[str, str], given: Mapping[str, str]) -> None:
    for name, new in given.items():
        if new in KEPT:
            raise OutputError(f"notation maps {name!r} to {new}, which is {KEPT[new]} in this document; choose another name.")
        for other, letter in found.items():
            if other == name or letter != new:
                continue
            if other in given:
                raise OutputError(f"notation maps both {name!r} and {other!r} to {new}; give them different names.")
            raise OutputError(f"notation maps {name!r} to {new}, which is the name of {other!r} already; rename that one too.")


# -- LaTeX that a user gives -------------------------------------------------------------------------------------------


def checked(value: Any, what: str) -> str:
    """A name as safe LaTeX with all its braces; only what names are made of is let through.

    Raises
    ------
    OutputError
        For anything that is not a name, or that TeX would not read as one.
    """
    if not isinstance(value, str):
        raise OutputError(f"{what} = {value!r}: write LaTeX such as r'\\beta_1', or a plain name such as 'lr'.")
    if len(value) > LONGEST or not value.isprintable():
        raise OutputError(f"{what}: {value[:LONGEST]!r} is no name: at most {LONGEST} printable characters.")
    if not re.search(r"[^\W\d_]", value):
        raise OutputError(f"{what}: {value!r} has no letter in it.")
    if not any(c in value for c in "\\{}^"):
        return name_tex(value.strip())
    return _Reader(value, what).name()


class _Reader:
    """Reads a name written in LaTeX: letters, accents and fonts, sub- and superscripts."""

    def __init__(self, source: str, what: str) -> None:
        self.source, self.what = source, what
        self.tokens: list[str] = re.findall(r"\\[A-Za-z]+|\\.|\\$|\S", source)
        self.at = 0

    def name(self) -> str:
        body = self.atoms(top=True)
        if self.at < len(self.tokens):
            self.refuse("a brace is closed that was not opened")
        return body

    def refuse(self, why: str) -> None:
        raise OutputError(f"{self.what}: {self.source!r} cannot be a name in LaTeX: {why}.")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at >= len(self.tokens):
            self.refuse("something is missing at its end")
        self.at += 1
        return self.tokens[self.at - 1]

    def atoms(self, top: bool = False) -> str:
        """Everything up to a closing brace or the end."""
        found: list[str] = []
        while self.peek() not in ("", "}"):
            found.append(self.scripted(top))
        if not found:
            self.refuse("an empty group")
        return " ".join(found) if any(f.startswith("\\") for f in found) else "".join(found)

    def scripted(self, top: bool) -> str:
        body = self.nucleus(top)
        seen: dict[str, str] = {}
        while self.peek() in ("_", "^"):
            mark = self.take()
            if mark in seen:
                self.refuse(f"two of {mark} on one letter")
            seen[mark] = self.group()
        return body + "".join(f"{mark}{{{seen[mark]}}}" for mark in "_^" if mark in seen)

    def group(self) -> str:
        """The argument of an accent or script: a group in braces or one letter."""
        if self.peek() != "{":
            return self.nucleus(top=False)
        self.take()
        body = self.atoms()
        if self.peek() != "}":
            self.refuse("a brace is not closed")
        self.take()
        return body

    def nucleus(self, top: bool) -> str:
        token = self.take()
        if token == "{":
            self.at -= 1
            return f"{{{self.group()}}}"
        if token.startswith("\\"):
            return self.command(token)
        if token.isascii() and (token.isalnum() or (not top and token in "*+-,.()/|=")):
            return token
        if not token.isascii() and name_tex(token) != token and re.fullmatch(r"\\[A-Za-z]+", name_tex(token)):
            return name_tex(token)
        self.refuse(f"{token} is not allowed there")
        return ""

    def command(self, token: str) -> str:
        word = token[1:]
        if word in _LETTERS or word in _MARKS:
            return token
        if word in _WITH_ARGUMENT:
            return f"{token}{{{self.words() if word in _TEXT and self.peek() == '{' else self.group()}}}"
        self.refuse(f"{token} is not among the commands that names are made of (Greek letters, accents, fonts)")
        return ""

    def words(self) -> str:
        """The argument of an upright font: letters and escaped characters."""
        self.take()
        found = ""
        while self.peek() not in ("", "}"):
            token = self.take()
            if not (token.isascii() and (token.isalnum() or token in "-+*.,()/" or token in (r"\_", r"\%", r"\&", r"\#"))):
                self.refuse(f"{token} is not allowed in a word")
            found += token
        if self.peek() != "}" or not found:
            self.refuse("a brace is not closed" if found else "an empty group")
        self.take()
        return found


# -- the document's own letters ----------------------------------------------------------------------------------------


@contextmanager
def lettering(result: SlowResult | LawResult, notation: Mapping[Any, str] | None = None) -> Iterator[Mapping[str, str]]:
    """Inside, the user's names have the letters of the notation; gives the own letters that step aside, with what replaces them."""
    found = letters(result, notation)
    taken = set(found.values())
    aside = {letter: _aside(letter, taken) for letter in sorted(OWN & taken)}
    marked = {name: f"{OPEN}{letter}{CLOSE}" for name, letter in found.items()} if aside else found
    token = lettered.set(marked)
    try:
        yield aside
    finally:
        lettered.reset(token)


def _aside(letter: str, taken: set[str]) -> str:
    """What an own letter becomes where the user has it: sans serif, or with a hat."""
    choices = [rf"\hat{{{letter}}}", rf"\tilde{{{letter}}}", rf"\breve{{{letter}}}"]
    if not letter.startswith("\\"):
        choices.insert(0, rf"\mathsf{{{letter}}}")
    return next(c for c in choices if c not in taken)


_PIECE = re.compile(rf"{OPEN}[^{CLOSE}]*{CLOSE}|\\(?:begin|end)\{{equation\}}|\\\\\[[\d.]+[a-z]+\]|\\[A-Za-z]+|\\.|.", re.S)
_VERBATIM = frozenset(rf"\{w}" for w in (*_TEXT, "texttt", "mathcal", "begin", "end"))


def settle(text: str, aside: Mapping[str, str]) -> str:
    """Text with the own letters out of the way of the user's, whose marks are dropped."""
    if not aside:
        return text
    pieces = _PIECE.findall(text)
    found: list[str] = []
    formula = False
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        at += 1
        if piece in ("$", r"\[", r"\]", r"\begin{equation}", r"\end{equation}"):
            formula = not formula if piece == "$" else piece in (r"\[", r"\begin{equation}")
        elif formula and piece in _VERBATIM:
            end = _argument(pieces, at)
            piece += "".join(pieces[at:end])
            at = end
        elif formula:
            piece = aside.get(piece, piece)
        found.append(piece)
    return re.sub(f"[{OPEN}{CLOSE}]", "", "".join(found))


def _argument(pieces: list[str], at: int) -> int:
    """Where the argument that starts here ends."""
    while at < len(pieces) and pieces[at] == " ":
        at += 1
    depth = 0
    while at < len(pieces):
        depth += (pieces[at] == "{") - (pieces[at] == "}")
        at += 1
        if depth == 0:
            return at
    return at
