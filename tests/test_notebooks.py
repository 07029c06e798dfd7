"""The notebooks run, print what their committed outputs say, and draw figures with labels and legends."""

from __future__ import annotations

import asyncio
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

#: Run after every cell that draws: what its figure lacks.
INSPECT = """
_shared = figure.axes[-1].get_shared_x_axes(), figure.axes[0].get_shared_y_axes()
assert all(a.get_xlabel() or (a is not figure.axes[-1] and _shared[0].joined(a, figure.axes[-1])) for a in figure.axes), "x label"
assert all(a.get_ylabel() or (a is not figure.axes[0] and _shared[1].joined(a, figure.axes[0])) for a in figure.axes), "y label"
assert any(a.get_legend() for a in figure.axes), "legend"
assert all(a.get_title() for a in figure.axes if a.get_subplotspec().is_first_row()), "title"
"""


def printed(cell: Any) -> str:
    """What a cell wrote and the text of its results, pictures and LaTeX apart."""
    parts = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            parts.append(output["text"])
        elif "image/png" not in output.get("data", {}):
            parts.append(output.get("data", {}).get("text/plain", ""))
    return "".join(parts)


def shape(text: str) -> list[str]:
    """Words without numbers: the last digits of a simulation are the machine's."""
    return re.sub(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", "#", re.sub(r"-{3,}", "", text)).replace("(", " ( ").split()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path: Path, tmp_path: Path) -> None:
    committed = nbformat.read(path, as_version=4)
    notebook = nbformat.v4.new_notebook(metadata=committed.metadata)
    for cell in committed.cells:
        if cell.cell_type == "code":
            cell.source += "" if "figure, " not in cell.source else "\n" + INSPECT
    notebook.cells = [nbformat.from_dict({**c, **({"outputs": []} if c.cell_type == "code" else {})}) for c in committed.cells]
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    with warnings.catch_warnings():  # of the Jupyter machinery in this process; the kernel is another one
        warnings.simplefilter("ignore")
        asyncio.run(client.async_execute())
    for fresh, old in zip(notebook.cells, committed.cells, strict=True):
        assert shape(printed(fresh)) == shape(printed(old)), fresh.source
        assert not any(o.get("name") == "stderr" for o in fresh.get("outputs", [])), printed(fresh)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_small_and_carries_no_trace_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert not re.search(r"/tmp/|/home/|/work/|/root/|ipykernel_", text)
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run the notebook from top to bottom"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_of_a_notebook_resolve(path: Path) -> None:
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).is_file()]


def test_all_notebooks_are_there() -> None:
    expected = {
        "first_tour", "figures_1_2", "learning_rate_batch_momentum", "adam_at_an_angle", "three_resting_places",
        "figure_2_factorization", "sparse_regression", "digits",
    }  # fmt: skip
    assert {p.stem for p in NOTEBOOKS} == expected
