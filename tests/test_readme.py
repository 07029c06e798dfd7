"""Every code block of the README runs, and the pages agree with each other and with .ci/run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quasistatic import cli
from quasistatic.algebra.field import is_zero
from quasistatic.parse import parse_expression

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING, CI = (ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".ci/run"))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of the shell blocks."""
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


def test_python_blocks_run(tmp_path: Path) -> None:
    """In order, as one script; numbers of the validation included."""
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks(README, "python")) + "\nassert report.passed\n", encoding="utf-8")
    run = subprocess.run([sys.executable, "-W", "error", script.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "passed" in run.stdout
    assert (tmp_path / "my_qhm.tex").is_file()


def own_optimizer() -> str:
    """The block of the user's own optimizer."""
    return next(b for b in blocks(README, "python") if "def my_qhm" in b)


def test_the_first_screen_says_the_drift() -> None:
    namespace: dict[str, object] = {}
    first = blocks(README, "python")[0]
    exec(first.split("report =")[0], namespace)
    slow = namespace["slow"]
    shown = re.search(r"slow\.drift\s+# (.*)", first)
    assert shown is not None
    names = {s.name: s for s in slow.drift.free_symbols}  # type: ignore[attr-defined]
    assert is_zero(slow.drift[0] - parse_expression(shown[1], names))  # type: ignore[attr-defined]


def test_the_gain_and_factors_are_as_the_comment_says() -> None:
    namespace: dict[str, object] = {}
    law = next(b for b in blocks(README, "python") if "law.gain" in b)
    exec(own_optimizer() + law.split("\n\n")[0], namespace)
    law_ = namespace["law"]
    assert [str(e) for e in (law_.gain, law_.speed_factor, law_.range_factor)] == ["eta", "eta**2/B", "eta/B"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", [c for c in commands(README) if "bin/quasistatic" in c])
def test_quasistatic_commands_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_qhm.py").write_text(own_optimizer(), encoding="utf-8")
    arguments = shlex.split(line.rpartition("bin/quasistatic")[2])
    result = CliRunner().invoke(cli.make_app(), arguments)
    assert result.exit_code == 0, result.output
    for block in blocks(README, "text") if "heavy_ball" in line else []:
        assert all(shown in result.stdout.splitlines() for shown in block.splitlines())
    assert Path(arguments[arguments.index("--latex") + 1]).is_file()


def test_the_own_optimizer_is_six_lines() -> None:
    assert len(own_optimizer().splitlines()) == 6


def test_ci_runs_what_the_pages_document() -> None:
    script = [line.strip() for line in CI.read_text(encoding="utf-8").splitlines()]
    documented = commands(CONTRIBUTING)
    assert all(c in script for c in documented)
    second = next(c for c in commands(README) if "pytest" in c)
    assert second == documented[0]


def test_extras_exist() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"\.\[([a-z,]+)\]", README.read_text(encoding="utf-8")):
        assert set(names.split(",")) <= set(extras)


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=lambda p: p.name)
def test_links_inside_the_repository_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]
