"""The notebooks run, and give the output that is kept in them.

Numbers may differ a little between machines, pictures by the noise of their compression; words may not.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from script import ROOT, load_script

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 300_000  # of a notebook with its pictures
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")

run_notebooks = load_script("run_notebooks")


def cells_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell prints."""
    return "".join(output.get("text", "") for output in cell.outputs)


def pictures_of(cell: nbformat.NotebookNode) -> list[np.ndarray]:
    encoded = [output.get("data", {}).get("image/jpeg") for output in cell.outputs]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in encoded if data]


def is_near(new: str, old: str) -> bool:
    """Within 2 %; or within 1 of whole numbers, pixels for the most part, and 0.02 of others."""
    value, expected = (float(number.replace(",", "")) for number in (new, old))
    return abs(value - expected) <= max(0.02 * abs(expected), 0.02 if "." in old else 1)


def words_of(text: str) -> str:
    return " ".join(NUMBER.sub("#", text).split())


@pytest.fixture(scope="module")
def given() -> dict[Path, list[nbformat.NotebookNode]]:
    """The cells of each notebook with what they give now.

    One behind the other on one Python, which takes seconds to load TensorFlow, and each without the names of those before
    it; the first is the one that loads it itself.
    """
    cells = {path: cells_of(nbformat.read(path, as_version=4)) for path in reversed(NOTEBOOKS)}
    parts = [cell for own in cells.values() for cell in (nbformat.v4.new_code_cell("%reset -f"), *own)]
    ran = iter(run_notebooks.run_cells(nbformat.v4.new_notebook(cells=parts), ROOT / "notebooks").cells)
    return {path: list(itertools.islice(ran, 1 + len(own)))[1:] for path, own in cells.items()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_the_output_that_it_holds(path: Path, given: dict[Path, list[nbformat.NotebookNode]]) -> None:
    kept = nbformat.read(path, as_version=4)
    for before, now in zip(cells_of(kept), given[path], strict=True):
        old, new = text_of(before), text_of(now)
        assert words_of(new) == words_of(old)
        assert all(map(is_near, NUMBER.findall(new), NUMBER.findall(old))), new
        for shown, drawn in zip(pictures_of(before), pictures_of(now), strict=True):
            assert drawn.shape == shown.shape
            assert np.abs(drawn.astype(int) - shown).mean() < 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_holds_is_whole_and_clean(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert str(ROOT) not in text and "site-packages" not in text
    cells = cells_of(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert {(output.output_type, output.get("name")) for output in outputs} <= {
        ("stream", "stdout"), ("display_data", None), ("execute_result", None),
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_a_notebook_finds_the_phantoms(path: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / folder)
    [line] = re.findall(r"^ROOT = .*$", "\n".join(cell.source for cell in cells_of(nbformat.read(path, 4))), re.MULTILINE)
    names: dict = {"Path": Path}
    exec(line, names)
    assert (names["ROOT"] / "data" / "phantoms" / "images").is_dir()


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["evaluate", "find_lungs", "inspect_dataset"]
    film_to_lungs = nbformat.read(ROOT / "notebooks" / "find_lungs.ipynb", as_version=4)
    assert len(cells_of(film_to_lungs)) == 5
