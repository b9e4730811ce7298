"""The stored notebooks: executed whole and in order, clean, and the same sources for both data sets."""

import nbformat
import pytest
from execute import HEADLINE, SOURCES, STORED, headlines, sources, tags

ALL = [folder / file.name for folder in STORED.values() for file in sources()]


def check(notebook) -> None:
    """Raise AssertionError unless all cells meant to run were run from top to bottom and left clean outputs.

    nbval compares what is stored: a cleared notebook passes it with nothing compared.
    """
    code = [c for c in notebook.cells if c.cell_type == "code" and "skip-execution" not in tags(c)]
    counts = [c.execution_count for c in code]
    assert counts == list(range(1, len(code) + 1)), f"expected execution counts 1 to {len(code)}, got {counts}"
    assert any(c.outputs for c in code), "no cell has an output"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {cell.id} stores an error"
            assert output.get("name") != "stderr", f"cell {cell.id} stores output to stderr"
            assert not any("widget" in kind for kind in output.get("data", {})), f"cell {cell.id} stores a widget"
    assert notebook.metadata.kernelspec.name == "python3"
    assert headlines(notebook), "no cell tagged 'headline' prints a headline"


@pytest.mark.parametrize("file", ALL, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_stored_outputs_are_whole(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    check(notebook)


def test_cells_for_people_only_carry_both_tags():
    for file in sources():
        for cell in nbformat.read(file, as_version=4).cells:
            assert ("nbval-skip" in tags(cell)) == ("skip-execution" in tags(cell)), f"{file.name}, cell {cell.id}"


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_both_data_sets_have_the_same_sources(file):
    def cells(path):
        return [(c.id, c.cell_type, c.source, tags(c)) for c in nbformat.read(path, as_version=4).cells]

    assert cells(STORED["ml-100k"] / file.name) == cells(SOURCES / file.name)


def test_the_four_notebooks():
    assert [file.stem for file in sources()] == ["01_svd", "02_als", "03_bpr", "04_warp"]
    assert {file.name for file in STORED["ml-100k"].glob("*.ipynb")} == {file.name for file in sources()}


@pytest.mark.parametrize("damage", ["cleared", "reordered", "unexecuted", "error", "stderr", "widget", "no headline"])
def test_damaged_notebooks_are_refused(damage):
    notebook = nbformat.read(sources()[1], as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    check(notebook)
    if damage == "cleared":
        for cell in code:
            cell.outputs, cell.execution_count = [], None
    elif damage == "reordered":
        code[2].execution_count, code[3].execution_count = code[3].execution_count, code[2].execution_count
    elif damage == "unexecuted":
        code[-1].execution_count = None
    elif damage == "error":
        code[1].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[]))
    elif damage == "stderr":
        code[1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="warning"))
    elif damage == "widget":
        data = {"application/vnd.jupyter.widget-view+json": {}}
        code[1].outputs.append(nbformat.v4.new_output("display_data", data=data))
    else:
        for cell in code:
            cell.metadata.pop("tags", None)
    with pytest.raises(AssertionError):
        check(notebook)


def test_headline_format():
    line = HEADLINE.fullmatch("RMSE: SVD 0.839, movie means 0.979")
    assert line.groupdict() == {
        "metric": "RMSE",
        "model": "SVD",
        "value": "0.839",
        "baseline": "movie means",
        "theirs": "0.979",
    }
