"""The stored notebooks: executed whole and in order, clean, the same for both data sets."""

import copy
import re
import statistics
from base64 import b64encode
from io import BytesIO

import nbformat
import numpy as np
import pytest
from execute import (
    FORMULA,
    HEADLINE,
    ROOT,
    SOURCES,
    STORED,
    alike,
    differences,
    headlines,
    mathml,
    page,
    sources,
    tags,
    texts,
)
from matplotlib.image import imsave

ALL = [folder / file.name for folder in STORED.values() for file in sources()]


def check(notebook) -> None:
    """Raise AssertionError unless all cells meant to run were run in order, with clean outputs.

    nbval compares what is stored: a cleared notebook passes it with nothing compared.
    """
    code = [c for c in notebook.cells if c.cell_type == "code" and "skip-execution" not in tags(c)]
    counts = [c.execution_count for c in code]
    assert counts == list(range(1, len(code) + 1)), (
        f"expected execution counts 1 to {len(code)}, got {counts}"
    )
    assert any(c.outputs for c in code), "no cell has an output"
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {cell.id} stores an error"
            assert output.get("name") != "stderr", f"cell {cell.id} stores output to stderr"
            assert not any("widget" in kind for kind in output.get("data", {})), (
                f"cell {cell.id} stores a widget"
            )
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
            assert ("nbval-skip" in tags(cell)) == ("skip-execution" in tags(cell)), (
                f"{file.name}, cell {cell.id}"
            )


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_both_data_sets_have_the_same_sources(file):
    def cells(path):
        return [
            (c.id, c.cell_type, c.source, tags(c)) for c in nbformat.read(path, as_version=4).cells
        ]

    assert cells(STORED["ml-100k"] / file.name) == cells(SOURCES / file.name)


def test_the_four_notebooks():
    assert [file.stem for file in sources()] == ["01_svd", "02_als", "03_bpr", "04_warp"]
    assert {file.name for file in STORED["ml-100k"].glob("*.ipynb")} == {
        file.name for file in sources()
    }


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_shape_of_a_lesson(file):
    """Short cells, few figures, each with a text; what a student writes is tagged."""
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lines = [len(cell.source.splitlines()) for cell in code]
    assert 18 <= len(code) <= 31
    assert max(lines) <= 25
    assert statistics.median(lines) <= 6
    figures = [cell for cell in code if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert 2 <= len(figures) <= 4
    for cell in code:
        assert (cell in figures) == ("alt" in cell.metadata), (
            f"cell {cell.id}: a figure and only a figure has an alt"
        )
    assert [c.id for c in code if "solution" in tags(c)] == [
        "loop",
        "exercise-1",
        "exercise-2",
        "exercise-3",
    ]
    assert {"by-hand", "kernel", "equality", "curve", "similar", "similar-five", "history"} <= {
        c.id for c in code
    }


def test_tables_are_short():
    for file in ALL:
        for cell in nbformat.read(file, as_version=4).cells:
            for kind, text in texts(cell) if cell.cell_type == "code" else []:
                assert kind != "text/html" or text.count("<tr") <= 12, f"{file}, cell {cell.id}"


def test_readme_states_the_stored_results():
    """Each figure of its table of results, and of its example, is what a notebook has printed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(0\d_\w+)` \|.*\| (RMSE|NDCG@10) ([\d.]+) \| ([\d.]+), ([\w ]+) \|$",
        readme,
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == [file.stem for file in sources()]
    for stem, *figures in rows:
        printed = headlines(nbformat.read(STORED["ml-1m"] / f"{stem}.ipynb", as_version=4))
        assert tuple(figures) in [
            (h["metric"], h["value"], h["theirs"], h["baseline"]) for h in printed
        ], stem
    example = re.findall(r"(RMSE|NDCG@10) +SVD ([\d.]+) +([a-z ]+) ([\d.]+)$", readme, re.MULTILINE)
    printed = headlines(nbformat.read(STORED["ml-100k"] / "01_svd.ipynb", as_version=4))
    assert example == [(h["metric"], h["value"], h["baseline"], h["theirs"]) for h in printed]


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_pages_stand_alone(file):
    """Nothing from elsewhere, no formula left in dollars, no figure without a text."""
    html = page(nbformat.read(file, as_version=4), file.stem)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//|import\(|@import', html)
    body = html.partition("<body")[2]
    assert "$" not in body
    assert body.count("<math") > 50
    assert body.count("<img") == len(re.findall(r'alt="[^"]{40,}"', body)) >= 2
    assert "Explore" not in body, "what is for interactive readers has no place on a page"


def test_formulas_become_mathml():
    text = "If $x_u$ costs `$5`:\n\n$$\\sum_i\na < b$$ and \\$5"
    assert FORMULA.findall(text) == [("", "x_u"), ("\\sum_i\na < b", "")]
    block = mathml(FORMULA.search("$$\\sum_i\na < b$$"))
    assert block.startswith("<math")
    assert 'display="block"' in block
    assert "a < b" not in block, "what means something in HTML must be escaped"
    assert "\n" not in block


def test_differences_are_found():
    notebook = nbformat.read(sources()[1], as_version=4)
    assert not any(differences(notebook, copy.deepcopy(notebook)).values())
    for change in ("value", "missing", "error", "stderr"):
        other = copy.deepcopy(notebook)
        cell = next(cell for cell in other.cells if cell.id == "judged")
        if change == "value":
            cell.outputs[0].text = cell.outputs[0].text.replace("0.", "1.", 1)
        elif change == "missing":
            del cell.outputs[-1]
        elif change == "error":
            cell.outputs = [
                nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
            ]
        else:
            cell.outputs.append(nbformat.v4.new_output("stream", name="stderr", text="warning"))
        found = differences(notebook, other)
        assert [cell for cell, text in found.items() if text] == ["judged"], change


def test_where_a_stream_is_cut_is_no_difference():
    notebook = nbformat.read(sources()[1], as_version=4)
    other = copy.deepcopy(notebook)
    for cell in other.cells:
        for output in [o for o in cell.get("outputs", []) if o.output_type == "stream"]:
            half = len(output.text) // 2
            rest = nbformat.v4.new_output("stream", name=output.name, text=output.text[half:])
            output.text = output.text[:half]
            cell.outputs.insert(cell.outputs.index(output) + 1, rest)
    assert not any(differences(notebook, other).values())


def test_figures_must_look_the_same():
    def png(level):
        file = BytesIO()
        imsave(file, np.full((20, 30), level / 255), vmin=0, vmax=1, cmap="gray", format="png")
        return b64encode(file.getvalue()).decode()

    assert alike(png(100), png(100))
    assert alike(png(100), png(102))
    assert not alike(png(100), png(120))
    notebook = nbformat.read(sources()[1], as_version=4)
    for change in ("another", "none"):
        other = copy.deepcopy(notebook)
        (cell,) = (cell for cell in other.cells if cell.id == "curve")
        for output in cell.outputs:
            output.data["image/png"] = png(100)
        if change == "none":
            cell.outputs = []
        assert differences(notebook, other)["curve"].endswith("the figure looks different")


@pytest.mark.parametrize(
    "damage", ["cleared", "reordered", "unexecuted", "error", "stderr", "widget", "no headline"]
)
def test_damaged_notebooks_are_refused(damage):
    notebook = nbformat.read(sources()[1], as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    check(notebook)
    if damage == "cleared":
        for cell in code:
            cell.outputs, cell.execution_count = [], None
    elif damage == "reordered":
        code[2].execution_count, code[3].execution_count = (
            code[3].execution_count,
            code[2].execution_count,
        )
    elif damage == "unexecuted":
        next(c for c in reversed(code) if "skip-execution" not in tags(c)).execution_count = None
    elif damage == "error":
        code[1].outputs.append(
            nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
        )
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
