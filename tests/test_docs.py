"""Every code block of docs/ runs and prints what the page says, links lead somewhere, and the API reference is current."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import quasistatic as qs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.DOTALL | re.MULTILINE)
WITH_CODE = [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))]


def shape(text: str) -> list[str]:
    """Words without numbers, for what comes out of a simulation: its last digits are the machine's."""
    return re.sub(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", "#", re.sub(r"-{3,}", "", text)).split()


def numbers(text: str) -> list[float]:
    return [float(m[0]) for m in re.finditer(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.sub(r"-{3,}", "", text))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.name)
def test_blocks_run_and_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        code, expected = match[1], match[2] or ""
        line = text[: match.start()].count("\n") + 1
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{page.name}, block at line {line}", "exec"), namespace)
        printed = out.getvalue().rstrip()
        if "validate(" in code or "simulat" in code:
            assert shape(printed) == shape(expected), f"{page.name}, line {line}:\n{printed}"
            # another machine may draw other starts: most numbers stay close, a worst record may be another one
            close = [a == pytest.approx(b, rel=0.1, abs=0.05) for a, b in zip(numbers(printed), numbers(expected), strict=True)]
            assert sum(close) >= 0.6 * len(close), f"{page.name}, line {line}:\n{printed}"
        else:
            assert printed == expected.rstrip(), f"{page.name}, line {line}"


def test_every_block_of_python_is_seen() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(BLOCK.findall(text)) == len(re.findall(r"^```python", text, flags=re.MULTILINE)), page.name
        assert text.count("```") % 2 == 0, page.name


def test_the_page_on_trust_shows_a_failure_that_extrapolation_mends() -> None:
    text = (DOCS / "when_to_trust_it.md").read_text(encoding="utf-8")
    shown = [b for _, b in BLOCK.findall(text) if "judged at 5 standard errors" in b]
    verdicts = [re.search(r"^(passed|FAILED):", b, flags=re.MULTILINE)[1] for b in shown]  # type: ignore[index]
    assert verdicts == ["passed", "FAILED", "passed"]
    assert "[noise 1/2]" in shown[2]


# -- links -------------------------------------------------------------------------------------------------------------


def without_code(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def resolves(page: Path, link: str) -> bool:
    """Whether a link of a page leads to a file of the repository, and to a heading where it names one."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_file() or not target.is_relative_to(ROOT):
        return False
    return not anchor or target.suffix != ".md" or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    assert not [link for link in links if "://" not in link and not resolves(page, link)]


# -- the API reference -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_api() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_api_reference_is_current(make_api: ModuleType) -> None:
    current = (DOCS / "api.md").read_text(encoding="utf-8")
    assert make_api.page() == current, "docs/api.md is out of date: run python docs/make_api.py"


def test_api_reference_has_every_public_name(make_api: ModuleType) -> None:
    assert make_api.documented() == set(qs.__all__)
    headings = anchors(DOCS / "api.md")
    for name in (*qs.zoo.RULES, *qs.zoo.PROBLEMS):
        assert f"zoo{name}" in headings


def test_api_reference_says_something_about_everything(make_api: ModuleType) -> None:
    """No heading is followed by the next one, no entry ends in a colon without text."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    assert not re.search(r"^(###+ .*)\n\n(```text\n[^`]*```\n\n)?#", text, flags=re.MULTILINE)
    assert not re.search(r"^\* `[^`]+`: *$", text, flags=re.MULTILINE)


def test_api_page_is_the_same_every_time_and_checked_from_a_shell(
    make_api: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_api.page() == make_api.page()
    monkeypatch.setattr(make_api, "TARGET", tmp_path / "api.md")
    assert make_api.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert make_api.main([]) == 0
    assert make_api.main(["--check"]) == 0


def test_docstrings_become_markdown(make_api: ModuleType) -> None:
    doc = """Sum of ``a**2`` where x < y; see :func:`quasistatic.load`.

    Parameters
    ----------
    a, b:
        Two numbers,
        on two lines.

    Raises
    ------
    ValueError
        Never.
    """
    text = make_api.markdown(doc)
    assert text.startswith("Sum of `a**2` where x &lt; y; see `qs.load`.")
    assert "* `a`, `b`: Two numbers, on two lines." in text
    assert "* `ValueError`: Never." in text
