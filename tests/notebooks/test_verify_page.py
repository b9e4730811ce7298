"""build/verify.html and the annotations for CI, for every kind of difference."""

import base64
import re
from io import BytesIO

import execute
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from differences import Change, compare, pixels
from fresh_kernel import Failure
from matplotlib.image import imsave
from PIL import Image
from verify_page import Verified, annotations, diff, difference_image, page, table_rows

CELLS = {
    "same": "print('equal')",
    "text": "print('\\n'.join(f'line {n}' for n in range(40)))",
    "markup": "print('<b>a & b</b>')",
    "table": "import pandas\npandas.DataFrame({'title': ['Alien', 'Heat'], 'NDCG@10': [0.3, 0.1]})",
    "figure": "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()",
    "moved-figure": """import io
import IPython.display, numpy
image, file = numpy.full((240, 360, 3), 1.0), io.BytesIO()
image[60:120, 60:276] = 0.2
plt.imsave(file, image, format="png")
IPython.display.Image(file.getvalue())""",
    "no-figure": "plt.close()",
    "warning": "import sys\nprint('careful', file=sys.stderr)",
    "claims": "assert 1 + 1 == 3, 'the claim does not hold'",
}
DEAD = {
    "first": "print(1)",
    "dies": "import os\nos._exit(1)",
    "after": "print(2)",
    "last": "print(3)",
}
SLOW = {"sleeps": "import time\ntime.sleep(600)", "after": "print(2)"}


def png(level: float, shape: tuple[int, int] = (40, 60)) -> str:
    """Return a white picture with a dark bar whose length is ``level``."""
    (height, width), file = shape, BytesIO()
    image = np.full((height, width, 3), 1.0)
    image[height // 4 : height // 2, width // 6 : int(width / 6 + width * 2 / 3 * level)] = 0.2
    imsave(file, image, format="png")
    return base64.b64encode(file.getvalue()).decode()


def stored(cells: dict[str, str]) -> nbformat.NotebookNode:
    """Return a notebook with outputs that differ from a new execution."""
    outputs = {
        "same": [stream("equal\n")],
        "text": [stream("\n".join(f"line {n if n != 20 else 'XX'}" for n in range(40)) + "\n")],
        "markup": [stream("<script>alert(1)</script>\n")],
        "table": [table(0.2)],
        "figure": [shown(png(0.5, (480, 640)))],
        "moved-figure": [shown(png(0.5, (240, 360)))],
        "no-figure": [shown(png(0.5))],
        "first": [stream("1\n")],
    }
    notebook = nbformat.v4.new_notebook()
    for name, source in cells.items():
        cell = nbformat.v4.new_code_cell(source, outputs=outputs.get(name, []))
        cell.id = name
        if "figure" in name:
            cell.metadata["alt"] = "A line."
        notebook.cells.append(cell)
    return notebook


def stream(text: str):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def shown(figure: str):
    return nbformat.v4.new_output("display_data", data={"image/png": figure})


def table(value: float):
    rows = ["<tr><th></th><th>title</th><th>NDCG@10</th></tr>"]
    rows += [f"<tr><th>0</th><td>Alien</td><td>{value}</td></tr>"]
    rows += ["<tr><th>1</th><td>Heat</td><td>0.1</td></tr>", "<tr><th>2</th><td>Up</td></tr>"]
    html = f"<table>{''.join(rows)}</table>"
    return nbformat.v4.new_output("execute_result", data={"text/html": html, "text/plain": "…"})


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """Return errors, output and page of a verification with each kind of difference."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "notebooks"
    folder.mkdir()
    for stem, cells in (("01_all", CELLS), ("02_dead", DEAD), ("03_slow", SLOW)):
        nbformat.write(stored(cells), folder / f"{stem}.ipynb")
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "ROOT", root)
        patch.setattr(execute, "STORED", {"ml-100k": folder})
        patch.setattr(execute.tqdm, "write", printed.append)
        patch.setattr("builtins.print", lambda *texts, **_: printed.extend(map(str, texts)))
        patch.setenv("CI", "true")
        errors = execute.verify("ml-100k", {"LC_ALL": "C"}, cell_seconds=10)
    html = (root / "build" / "verify.html").read_text(encoding="utf-8")
    return errors, printed, BeautifulSoup(html, "html.parser"), html


def section(html: BeautifulSoup, stem: str, cell: str) -> BeautifulSoup:
    return html.select_one(f"#\\3{stem[0]} {stem[1:]}-{cell}")


def test_table_counts_reproduced_cells_and_checks(verified):
    rows = [line.split() for line in verified[1] if re.match(r"0\d_", line)]
    assert sorted(row[:4] for row in rows) == [
        ["01_all", "1", "/", "9"],
        ["02_dead", "1", "/", "4"],
        ["03_slow", "0", "/", "2"],
    ]
    assert [row[4:7] for row in sorted(rows)] == [["0", "/", "1"], ["0", "/", "0"], ["0", "/", "0"]]


def test_failures_are_named(verified):
    errors = "\n".join(verified[0])
    assert "cells no-figure, got none" in errors
    assert "02_dead.ipynb, cell dies: the kernel died" in errors
    assert "02_dead: 2 cells were not executed" in errors
    assert "03_slow.ipynb, cell sleeps: expected it to end within 10 s" in errors
    summary = [row.get_text(" ", strip=True) for row in verified[2].select("tbody tr")[:3]]
    for row, kind in zip(summary, ("missing figure", "dead kernel", "time-out"), strict=True):
        assert kind in row
    assert section(verified[2], "02_dead", "dies").select_one(".kind").text == "dead kernel"
    assert section(verified[2], "03_slow", "sleeps").select_one(".kind").text == "time-out"
    assert section(verified[2], "01_all", "no-figure").select_one(".kind").text == "missing figure"


def test_texts_are_shown_as_a_unified_diff(verified):
    shown = section(verified[2], "01_all", "text")
    lines = [(line["class"][0], line.text) for line in shown.select(".diff span")]
    assert ("stored", "-line XX") in lines
    assert ("new", "+line 20") in lines
    assert len(lines) == 1 + 3 + 2 + 3
    assert section(verified[2], "01_all", "same") is None
    heading = section(verified[2], "01_all", "warning").h4
    assert heading.get_text() == "stderr is new"
    claims = section(verified[2], "01_all", "claims")
    assert "AssertionError: the claim does not hold" in claims.get_text()
    assert not claims.select(".diff"), "the traceback is enough"


def test_outputs_are_escaped(verified):
    assert "<script" not in verified[3]
    assert "&lt;script&gt;alert(1)" in verified[3]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', verified[3]), "nothing is loaded"


def test_tables_mark_the_changed_cells(verified):
    shown = section(verified[2], "01_all", "table")
    changed = [cell.get_text(" ", strip=True) for cell in shown.select("td.changed")]
    assert changed == ["0.2 0.3"]
    assert [row["class"] for row in shown.select("tr")] == [
        ["same"],
        ["changed"],
        ["same"],
        ["stored"],
    ]
    assert not shown.select(".diff"), "the plain text repeats the table"


def test_figures_are_shown_as_stored_executed_and_difference(verified):
    shown = section(verified[2], "01_all", "figure")
    assert [c.text for c in shown.select("figcaption")][:2] == ["stored", "executed"]
    assert len(section(verified[2], "01_all", "moved-figure").select("figure img")) == 3
    missing = section(verified[2], "01_all", "no-figure")
    assert "is missing" in missing.get_text(" ")
    assert [bool(f.img) for f in missing.select("figure")] == [True, False]


def test_difference_image_shows_where_figures_differ():
    assert difference_image(png(0.5), png(0.5)) is None
    assert difference_image(png(0.5), png(0.9, (50, 60))) is None
    image = pixels(difference_image(png(0.5), png(0.9)))
    red = (image[..., 0] - image[..., 1]) > 0.5
    assert red[15, 40]
    assert not red[15, 15]
    assert not red[30].any()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_are_the_same_for_each_kind_of_png(mode):
    """A picture that another program has saved differs only if it looks different."""
    file, image = BytesIO(), (255 * pixels(png(0.5))).round().astype(np.uint8)
    Image.fromarray(image).convert(mode).save(file, "png")
    assert np.array_equal(pixels(base64.b64encode(file.getvalue()).decode()), pixels(png(0.5)))


def test_seconds_of_each_cell_are_listed(verified):
    tables = verified[2].select("h2 ~ details table")
    names = [row.th.text for row in tables[0].select("tbody tr")]
    assert names == list(CELLS)
    (slow,) = (row for row in tables[2].select("tbody tr") if row.th.text == "sleeps")
    assert 9 < float(slow.td.text) < 60


def test_ci_gets_annotations_that_point_at_the_cell(verified, tmp_path):
    lines = [line for line in verified[1] if line.startswith("::error")]
    titles = [re.search(r"title=([^:]+)::", line)[1] for line in lines]
    assert "01_all cell text differs" in titles
    assert "02_dead cell dies%3A dead kernel" in titles
    assert "03_slow cell sleeps%3A time-out" in titles
    assert all("\n" not in line for line in lines)
    file = tmp_path / "a,b.ipynb"
    nbformat.write(stored({"same": "1", "text": "2"}), file)
    change = Change(texts=[("stdout", "a\nb", "a\n100%")])
    one = Verified(file, nbformat.read(file, as_version=4), None, {}, {"text": change})
    (line,) = annotations(one, tmp_path)
    number = int(re.search(r"file=a%2Cb\.ipynb,line=(\d+),", line)[1])
    assert '"id": "text"' in file.read_text(encoding="utf-8").splitlines()[number - 1]
    assert line.endswith("::- b%0A+ 100%25")


def test_page_of_a_reproduced_notebook_reports_success():
    notebook = stored({"same": "1"})
    one = Verified(execute.ROOT / "01_all.ipynb", notebook, None, {"same": 0.1}, {"same": Change()})
    html = BeautifulSoup(page("MovieLens-100K", [one]), "html.parser")
    assert "All 1 cells are reproduced" in html.text
    assert one.errors() == []


def test_outputs_in_another_order_are_a_difference():
    a, b = stored({"x": "1"}).cells[0], stored({"x": "1"}).cells[0]
    result = nbformat.v4.new_output("execute_result", data={"text/plain": "1"})
    a.outputs, b.outputs = [stream("one"), result], [result, stream("one")]
    assert compare(a, b).reordered
    assert "another order" in compare(a, b).brief
    one = Verified(execute.ROOT / "a.ipynb", stored({"x": "1"}), None, {}, {"x": compare(a, b)})
    assert "another order" in page("MovieLens-100K", [one])


def test_inserted_rows_do_not_change_other_rows():
    rows = table_rows("<tr><td>a</td></tr><tr><td>b</td></tr>", "<tr><td>x</td></tr>" * 1)
    assert [kind for kind, _ in rows] == ["changed", "stored"]
    old = "".join(f"<tr><td>{n}</td></tr>" for n in range(5))
    rows = table_rows(old, "<tr><td>new</td></tr>" + old)
    assert [kind for kind, _ in rows] == ["new", *["same"] * 5]
    assert diff("a\n", "a\n") == []


def test_a_kernel_that_does_not_start_is_reported_without_a_cell():
    failure = Failure("01.ipynb, before the first cell: the kernel died", "dead kernel", [])
    one = Verified(execute.ROOT / "01.ipynb", stored({"x": "1"}), failure, {}, {"x": Change()})
    assert one.errors() == [str(failure), "01: 1 cells were not executed"]
    assert "before the first cell" in page("MovieLens-100K", [one])
    assert one.reproduced == 0
