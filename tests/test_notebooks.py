"""Every notebook runs from top to bottom and ends with its own assertions."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

SLOW = ("02_matminer_features", "04_training")
"""Half a minute and more on one core; the others take 10 to 15 seconds."""

RUN = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in NOTEBOOKS
]


def test_all_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert {path.stem for path in NOTEBOOKS} > {*SLOW}


@pytest.mark.parametrize("path", RUN)
def test_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": path.parent}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_keeps_its_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    codes = [cell for cell in cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in codes) > len(codes) / 2
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ends_in_an_asserted_number(path: Path) -> None:
    *_, last = (cell for cell in nbformat.read(path, as_version=4).cells)
    assert "assert " in last.source
    assert any("text" in output for output in last.outputs)
