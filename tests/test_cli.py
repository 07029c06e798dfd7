"""The command line: output, files, exit codes, and that bad input is one clear line with nothing half-done."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rule_lists import VALIDATED
from typer.testing import CliRunner, Result

import quasistatic as qs
from quasistatic import cli

RULES = """
import quasistatic as qs

@qs.optimizer
def my_qhm(z, g, m, *, eta, mu, nu):
    m = mu * m + (1 - mu) * g
    return z - eta * ((1 - nu) * g + nu * m), m

@qs.optimizer
def clash(z, g, *, alpha):
    return z - alpha * g

def plain(z, g):
    return z

x, y, s = qs.symbols("x y s")
sigma = qs.symbols("sigma", positive=True)
hyperbola = qs.Problem.from_residuals([x * y - 1], {x: s, y: 1 / s}, qs.LabelNoise(sigma), coordinates={s: x})
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.make_app(), list(arguments))


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "quasistatic", *arguments], capture_output=True, text=True, check=False, **options)


def refused(*arguments: str) -> str:
    """The message of an invocation that must fail with exit code 2, print nothing else and write nothing."""
    before = {p.name for p in Path().iterdir()}
    result = run(*arguments)
    assert result.exit_code == cli.BAD_INPUT, result.output
    assert result.stdout == ""
    assert {p.name for p in Path().iterdir()} - {"__pycache__"} == before
    assert re.fullmatch(r"error: .*\n", result.stderr, flags=re.DOTALL)
    assert "Traceback" not in result.stderr
    return result.stderr


# -- what works --------------------------------------------------------------------------------------------------------


def test_list_shows_everything() -> None:
    result = run("list")
    assert result.exit_code == 0
    for name in (*qs.zoo.RULES, *qs.zoo.PROBLEMS):
        assert name in result.stdout
    assert "tau=0" in result.stdout
    assert "y = 0" in result.stdout


def test_derive_shows_the_law_and_then_an_example() -> None:
    result = run("derive", "heavy_ball")
    assert result.exit_code == 0
    assert result.stderr == ""
    law, slow = str(qs.derive(qs.zoo.heavy_ball)), str(qs.derive(qs.zoo.heavy_ball, qs.zoo.valley()))
    assert result.stdout == f"{law}\n\n{slow}\n"


def test_a_problem_from_text_is_the_problem_of_python() -> None:
    x, y = qs.symbols("x y")
    alpha = qs.symbols("alpha", positive=True)
    problem = qs.Problem((1 + x**2) * y**2, {y: 0}, qs.HessianNoise(alpha))
    result = run("derive", "sgd", "--loss", "(1+x**2)*y**2", "--minima", "y=0")
    assert result.stdout == f"{qs.derive(qs.zoo.sgd, problem)}\n"


def test_charts_constants_and_noise_from_text() -> None:
    u, v, s, k = qs.symbols("u v s k")
    sigma = qs.symbols("sigma", positive=True)
    noise = qs.IsotropicNoise(sigma, normal_only=True)
    problem = qs.Problem(k * (u * v - 1) ** 2, {u: s, v: 1 / s}, noise, parameters=(v, u), coordinates={s: u})
    text = ("--loss", "k*(u*v-1)**2", "--minima", "u=s, v=1/s", "--coordinates", "s=u", "--parameters", "v,u", "--noise", "normal")
    assert run("derive", "sgd", *text).stdout == f"{qs.derive(qs.zoo.sgd, problem)}\n"


def test_fix_free_leading_and_time() -> None:
    valley = qs.zoo.valley()
    fixed = qs.derive(qs.zoo.heavy_ball.fix(mu="9/10", tau="1/2"), valley)
    assert run("derive", "heavy_ball", "--problem", "valley", "--fix", "mu=0.9", "--fix", "tau=1/2").stdout == f"{fixed}\n"
    free = qs.derive(qs.zoo.heavy_ball.free("tau"), valley).leading("eta")
    assert run("derive", "heavy_ball", "--problem", "valley", "--free", "tau", "--leading", "eta").stdout == f"{free}\n"
    sde = qs.derive(qs.zoo.sgd, valley, time="continuous")
    assert run("derive", "sgd", "--problem", "valley", "--time", "continuous").stdout == f"{sde}\n"


def test_own_rules_and_problems() -> None:
    Path("mine.py").write_text(RULES)
    result = run("derive", "mine.py:my_qhm", "--problem", "mine.py:hyperbola", "--latex", "mine.tex")
    assert result.exit_code == 0, result.stderr
    assert "my_qhm" in result.stdout
    assert result.stdout.endswith("wrote mine.tex\n")
    assert r"\documentclass" in Path("mine.tex").read_text()


def test_a_rule_may_import_its_neighbours_and_use_dataclasses() -> None:
    folder = Path("rules")
    folder.mkdir()
    (folder / "my_gains.py").write_text("def gain(eta):\n    return 2 * eta\n")
    (folder / "rule.py").write_text(
        "from __future__ import annotations\nimport dataclasses\nimport quasistatic as qs\nimport my_gains\n\n"
        "@dataclasses.dataclass\nclass Options:\n    scale: int = 1\n\n"
        "@qs.optimizer\ndef double(z, g, *, eta):\n    return z - Options().scale * my_gains.gain(eta) * g\n"
    )
    path = list(sys.path)
    assert run("derive", "rules/rule.py:double").exit_code == 0
    assert sys.path == path


def test_the_main_job(tmp_path: Path) -> None:
    """What the README's first command runs: formula, LaTeX, picture and a passing validation with the example values."""
    result = shell("derive", "heavy_ball", "--latex", "heavy_ball.tex", "--validate", "--plot", "heavy_ball.png")
    assert result.returncode == 0, result.stderr
    assert "example values, which --set and --start change: eta=0.001, mu=0.9, alpha=1.125, x=5" in result.stdout
    assert "passed" in result.stdout
    assert result.stderr == ""  # no progress bar where stderr is not a terminal
    assert (tmp_path / "heavy_ball.tex").stat().st_size > 1000
    assert (tmp_path / "heavy_ball.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", VALIDATED)
def test_every_rule_validates_with_its_example_values(name: str) -> None:
    result = run("derive", name, "--problem", "valley", "--validate")
    assert result.exit_code == 0, result.output


def test_validation_uses_the_given_numbers() -> None:
    result = run(
        "derive", "sgd", "--problem", "valley", "--validate", "--set", "eta=1/500", "--start", "x=3", "--steps", "2000", "--seed", "5"
    )
    assert result.exit_code == 0, result.output
    assert "example values, which --set and --start change: alpha=1.125\n" in result.stdout
    report = qs.derive(qs.zoo.sgd, qs.zoo.valley()).validate({"x": 3}, 2000, trajectories=128, seed=5, eta=0.002, alpha=1.125)
    assert result.stdout.endswith(f"{report}\n")


def test_a_failed_validation_is_exit_code_1() -> None:
    """The SDE form is wrong at finite learning rates, and enough trajectories show it."""
    result = run("derive", "sgd", "--problem", "valley", "--time", "continuous", "--validate", "--set", "eta=1e-2", "--steps", "4000")
    assert result.exit_code == cli.FAILED, result.output
    assert "FAIL" in result.stdout


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_unknown_names_get_suggestions() -> None:
    assert "Did you mean 'heavy_ball'?" in refused("derive", "heavy_bal")
    assert "Did you mean 'valley'?" in refused("derive", "sgd", "--problem", "valey")
    assert "Did you mean 'hessian'?" in refused("derive", "sgd", "--noise", "hesian")
    assert "Did you mean 'eta'?" in refused("derive", "sgd", "--validate", "--set", "etta=1")
    assert "Did you mean 'mu'?" in refused("derive", "heavy_ball", "--fix", "mue=1")
    assert "'mu'" in refused("derive", "sgd", "--leading", "mu")
    assert "there is no z" in refused("derive", "sgd", "--validate", "--start", "z=1")
    assert "continuous" in refused("derive", "sgd", "--time", "continous")


def test_files_of_rules() -> None:
    Path("mine.py").write_text(RULES)
    assert "there is no file nothing.py" in refused("derive", "nothing.py:f")
    assert "Did you mean 'my_qhm'?" in refused("derive", "mine.py:my_qmh")
    assert "mine.py:NAME. It has: my_qhm, clash" in refused("derive", "mine.py")
    assert "function, not an update rule" in refused("derive", "mine.py:plain")
    assert "Did you mean 'hyperbola'?" in refused("derive", "sgd", "--problem", "mine.py:hyperbol")
    assert "'alpha'" in refused("derive", "mine.py:clash")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import quasistatic\nx = 1\ny = undefined\n", "rule.py, line 3: NameError"),
        ("x = 1\ndef f(:\n", "rule.py, line 2: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "rule.py, line 2: SystemExit"),
        (
            "import quasistatic as qs\n@qs.optimizer\ndef f(z, g, *, eta):\n    return z - eta * g if g > 0 else z\n",
            "rule.py, line 2: RuleError",
        ),
        ("def f():\n    import json\n    json.loads('{')\nf()\n", "rule.py, line 3: JSONDecodeError"),
    ],
)
def test_errors_inside_a_users_file_name_the_line(text: str, message: str) -> None:
    Path("rule.py").write_text(text)
    assert message in refused("derive", "rule.py:f")


@pytest.mark.parametrize(
    "attack",
    ["__import__('os').system('touch hacked')", "().__class__.__base__", "open('hacked', 'w')", "x.diff(x)", "exec('1')", "x if y else 1"],
)
def test_text_is_never_executed(attack: str) -> None:
    assert "cannot read" in refused("derive", "sgd", "--loss", attack, "--minima", "y=0")
    assert "cannot read" in refused("derive", "sgd", "--loss", "(1+x**2)*y**2", "--minima", f"y={attack}")
    assert "cannot read" in refused("derive", "sgd", "--loss", "(1+x**2)*y**2", "--minima", "y=0", "--coordinates", f"x={attack}")
    assert "cannot read" in refused("derive", "sgd", "--loss", "(1+x**2)*y**2", "--minima", "y=0", "--parameters", attack)
    assert "cannot read" in refused("derive", "sgd", "--validate", "--set", f"eta={attack}")
    assert "cannot read" in refused("derive", "sgd", "--validate", "--start", f"x={attack}")
    assert "cannot read" in refused("derive", "sgd", "--fix", f"eta={attack}")
    assert not Path("hacked").exists()


def test_problems_that_do_not_fit() -> None:
    loss = ("--loss", "(1+x**2)*y**2")
    assert "--minima is missing" in refused("derive", "sgd", *loss)
    assert "--loss is missing" in refused("derive", "sgd", "--minima", "y=0")
    assert "write name=expression" in refused("derive", "sgd", *loss, "--minima", "y")
    assert "given twice" in refused("derive", "sgd", *loss, "--minima", "y=0, y=1")
    assert "gradient is not zero" in refused("derive", "sgd", *loss, "--minima", "y=1")
    assert "leave out --loss, --minima" in refused("derive", "sgd", "--problem", "valley", *loss, "--minima", "y=0")
    assert "strength of the noise" in refused("derive", "sgd", "--loss", "alpha*y**2*(1+x**2)", "--parameters", "x,y", "--minima", "y=0")
    assert "'eta'" in refused("derive", "sgd", "--loss", "(1+eta**2)*y**2", "--minima", "y=0")


def test_numbers_that_do_not_fit() -> None:
    assert "fixes tau; --fix tau=" in refused("derive", "heavy_ball", "--validate", "--set", "tau=0.1")
    assert "given twice" in refused("derive", "sgd", "--validate", "--set", "eta=1", "--set", "eta=2")
    assert "add --set sigma=" in refused("derive", "sgd", "--noise", "isotropic", "--validate")
    assert "add --start x=" in refused("derive", "sgd", "--loss", "x**2*y**2+y**2", "--minima", "y=0", "--validate", "--set", "alpha=1")
    assert "add --validate" in refused("derive", "sgd", "--set", "eta=1e-3")
    assert "not a real number" in refused("derive", "sgd", "--validate", "--set", "eta=sqrt(-1)")
    assert "non-negative" in refused("derive", "sgd", "--fix", "eta=-1")


def test_senseless_numbers_of_the_validation() -> None:
    for arguments in (("--set", "eta=-1"), ("--set", "eta=1")):  # negative; beyond the stability condition
        result = run("derive", "sgd", "--problem", "valley", "--validate", *arguments)
        assert result.exit_code == cli.BAD_INPUT
        assert result.stderr.startswith("error: ")
        assert "eta" in result.stderr
    for arguments in (("--steps", "0"), ("--trajectories", "1"), ("--threads", "0"), ("--seed", "-1"), ("--steps", "many")):
        assert run("derive", "sgd", "--validate", *arguments).exit_code == cli.BAD_INPUT


@pytest.mark.parametrize("option", ["--latex", "--plot"])
def test_unwritable_paths_are_refused_first(option: str) -> None:
    assert "there is no folder" in refused("derive", "sgd", option, "missing/out.tex")
    Path("folder").mkdir()
    assert "it is a folder" in refused("derive", "sgd", option, "folder")


# -- the process -------------------------------------------------------------------------------------------------------


def test_help_and_version() -> None:
    assert run("derive", "--help").exit_code == 0
    assert run("--version").stdout == f"quasistatic {qs.__version__}\n"
    assert shell("derive").returncode == cli.BAD_INPUT
    assert shell("derive", "nothing").returncode == cli.BAD_INPUT


def test_without_the_extra_there_is_a_hint() -> None:
    code = "import sys; sys.modules['typer'] = None; import quasistatic.cli as c; c.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == cli.BAD_INPUT
    assert result.stderr.count("\n") == 1
    assert 'pip install "quasistatic[cli]"' in result.stderr


def test_deriving_loads_neither_compiler_nor_pictures() -> None:
    """What keeps the second ``quasistatic derive heavy_ball`` near half a second."""
    code = (
        "import sys; from typer.testing import CliRunner; from quasistatic import cli;"
        "r = CliRunner().invoke(cli.make_app(), ['derive', 'heavy_ball', '--latex', 'out.tex']); assert r.exit_code == 0, r.output;"
        "print(*sorted({'numba', 'llvmlite', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_shows_what_was_computed() -> None:
    arguments = ["derive", "sgd", "--problem", "valley", "--validate", "--steps", "400000000", "--trajectories", "32"]
    command = [sys.executable, "-m", "quasistatic", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = ""
        while "example values" not in seen:  # the results are there before the simulation begins
            line = process.stdout.readline()
            assert line, "the process ended early"
            seen += line
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED, rest + errors
    assert "E[Delta x]" in seen
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_json_is_alone_on_stdout_and_complete() -> None:
    done = shell("derive", "sgd", "--format", "json", "--validate", "--steps", "500", "--trajectories", "16")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["law"]["gain"] == "eta"
    assert found["slow"]["coordinates"] == ["x"]
    assert found["slow"]["potential"]["formula"].startswith("-alpha*eta*log(")
    assert found["validation"]["passed"] is True
    assert "example values" in done.stderr


def test_latex_goes_to_stdout() -> None:
    result = run("derive", "heavy_ball", "--format", "latex")
    assert result.exit_code == 0, result.output
    assert r"\subsection*" in result.output
    assert r"\begin{document}" not in result.output


def test_saved_results_load(tmp_path: Path) -> None:
    result = run("derive", "nesterov", "--save", str(tmp_path / "slow.json"))
    assert result.exit_code == 0, result.output
    assert qs.load(tmp_path / "slow.json").rule.name == "nesterov"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("derive", "sgd", "--format", "yaml"), "no format 'yaml'"),
        (("derive", "sgd", "--format", "jsn"), "Did you mean 'json'"),
        (("derive", "sgd", "--save", "/no/such/folder/a.json"), "cannot write"),
        (("derive", "sgd", "--plot", "picture.doc"), "must end in"),
    ],
)
def test_bad_outputs(arguments: tuple[str, ...], message: str) -> None:
    done = shell(*arguments)
    assert done.returncode == cli.BAD_INPUT
    assert message in done.stderr


def test_completion_knows_the_zoo() -> None:
    assert cli.complete_rules("heavy") == ["heavy_ball", "heavy_ball_velocity"]
    assert cli.complete_problems("val") == ["valley"]


def test_reproduce(tmp_path: Path) -> None:
    """A small ensemble of figure 2: the exact theory passes at any size, and the picture is written."""
    done = shell("reproduce", "fig2", "--scale", "0.25", "--output", "figure.png")
    assert done.returncode == 0, done.stderr
    assert "mu=0.9: x at the end" in done.stdout
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_reproduce_lists_the_known_figures() -> None:
    message = refused("reproduce", "fig7")
    assert "There is: fig1, fig2, fig3, digits." in message


# -- compiled code that is kept ----------------------------------------------------------------------------------------


def test_cache_info_and_clear(tmp_path, monkeypatch):
    monkeypatch.setenv("QUASISTATIC_CACHE_DIR", str(tmp_path / "kernels"))
    x, y = qs.symbols("x y")
    qs.simulate(qs.zoo.sgd, qs.zoo.valley(), {x: 1, y: 0}, 10, trajectories=2, eta=1e-3, alpha=1)
    shown = run("cache", "info")
    assert shown.exit_code == 0
    assert re.search(rf"{re.escape(str(tmp_path / 'kernels'))} \(in use\)\n\d kernels, \d plans, 0\.\d MB", shown.stdout)
    cleared = run("cache", "clear")
    assert re.match(r"removed \d kernels and \d plans", cleared.stdout)
    assert "0 kernels, 0 plans, 0.0 MB" in run("cache", "info").stdout


def test_cache_that_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("QUASISTATIC_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("QUASISTATIC_CACHE", "0")
    assert "not used: QUASISTATIC_CACHE is 0" in run("cache", "info").stdout
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("QUASISTATIC_CACHE")
    monkeypatch.setenv("QUASISTATIC_CACHE_DIR", str(tmp_path / "file" / "deeper"))
    assert "cannot be used" in run("cache", "info").stdout
