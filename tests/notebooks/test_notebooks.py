"""The stored notebooks: complete, executed in order, and the same for both data sets."""

import ast
import copy
import re
from base64 import b64encode
from io import BytesIO
from urllib.parse import unquote

import execute
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from differences import alike, differences, texts
from execute import HEADLINE, ROOT, SOURCES, STORED, headlines, sources
from fresh_kernel import Failure, tags
from matplotlib.image import imsave
from pages import (
    FOLDED,
    FORMULA,
    SITE,
    Lesson,
    align,
    figure,
    folded,
    index,
    markdown,
    mathml,
    page,
)

LESSONS = ["01_svd", "02_als", "03_bpr", "04_warp"]
EXPERIMENTS = "05_experiments"
METRICS = r"RMSE|precision@10|NDCG@10"
# What a lesson is marked by: in sections 4, 5, 7 and 8, as the README says.
CRITERIA = {"loop", "kernel", "equality", "similar", "similarity"}
CRITERIA |= {"history", "recommendations", "judged"}
ASSERTING = re.compile("by-hand|equality")  # cells that compare two ways to compute the same
ALL = [folder / file.name for folder in STORED.values() for file in sources()]


def check(notebook) -> None:
    """Raise AssertionError unless all executable cells were run in order, with clean outputs.

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
def test_stored_outputs_are_complete(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    check(notebook)


def test_cells_for_interactive_use_have_both_tags():
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


def test_notebooks_are_the_four_lessons_and_the_experiments():
    assert [file.stem for file in sources()] == [*LESSONS, EXPERIMENTS]
    assert {file.name for file in STORED["ml-100k"].glob("*.ipynb")} == {
        file.name for file in sources()
    }


def code_cells(file):
    return [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]


def visible(cell) -> bool:
    """Return whether a page and JupyterLab show the code of a cell."""
    hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
    return not hidden and "skip-execution" not in tags(cell)


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_code_is_folded_by_its_tag(file):
    """Claims, figures, checks and answers are folded; all other code is short and shown."""
    for cell in code_cells(file):
        assert len(tags(cell)) <= 1 or "skip-execution" in tags(cell), cell.id
        answer = re.fullmatch(r"exercise-\d", cell.id)
        folded = set(tags(cell)) & set(FOLDED) or answer or "skip-execution" in tags(cell)
        assert visible(cell) == (not folded), cell.id
        assert len(cell.source.splitlines()) <= (25 if folded else 13), cell.id
        assert ("check" in tags(cell)) == bool(re.fullmatch(r"exercise-\d-check", cell.id))


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_no_cell_mixes_plotting_computing_and_asserting(file):
    for cell in code_cells(file):
        figure = any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert figure == ("alt" in cell.metadata) == ("figure" in tags(cell)), (
            f"cell {cell.id}: expected the tag 'figure' and an alt on figures, and only on figures"
        )
        if figure:
            calls = [
                node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)
            ]
            assert len(ast.parse(cell.source).body) <= 2, cell.id
            assert any(ast.unparse(call.func).startswith("plots.") for call in calls), cell.id
        asserts = re.search(r"^\s*assert ", cell.source, re.MULTILINE)
        allowed = {"claims", "check", "solution"} & set(tags(cell)) or ASSERTING.match(cell.id)
        assert not asserts or allowed, f"cell {cell.id} asserts; move it to a cell tagged 'claims'"


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_is_short(stem):
    """At most 1,850 words on the main line, 15 to 18 visible code cells of at most ten lines."""
    notebook = nbformat.read(SOURCES / f"{stem}.ipynb", as_version=4)
    shown = [cell for cell in code_cells(SOURCES / f"{stem}.ipynb") if visible(cell)]
    assert 15 <= len(shown) <= 18
    lines = {cell.id: len(cell.source.splitlines()) for cell in shown}
    assert lines.pop("loop") <= 13, "BPR's loop moves five rows, at three rates"
    assert max(lines.values()) <= 10
    assert len(words(notebook)) <= 1850  # read in 30 to 45 minutes
    assert 2 <= sum("alt" in cell.metadata for cell in notebook.cells) <= 4
    ids = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    assert [c.id for c in notebook.cells if c.cell_type == "code" and "solution" in tags(c)] == [
        "loop",
        "exercise-1",
        "exercise-2",
        "exercise-3",
    ]
    assert set(ids) >= {"idea", "by-hand", "curve", "explorer"} | CRITERIA


def words(notebook) -> list[str]:
    """Return the words of the main line: prose without folds, comments, code and formulas."""
    prose = (
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        and "skip-execution" not in tags(cell)
        and cell.id != "references"
    )
    hidden = r"<details>.*?</details>|<!--.*?-->|```.*?```"
    shown = re.sub(hidden, " ", "\n".join(prose), flags=re.DOTALL)
    return re.findall(r"[A-Za-z][\w'’-]*", FORMULA.sub(" ", shown))


def test_words_ignores_formulas_code_and_folded_blocks():
    text = (
        "One word $x_u$ more.\n\n<!-- hint: no -->\n\n"
        "<details><summary>Why</summary>\n\nnot this\n\n</details>\n\n"
        "```python\nfor u in users:\n```\n\nend"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    assert words(notebook) == ["One", "word", "more", "end"]


@pytest.mark.parametrize("stem", [*LESSONS])
def test_lessons_link_the_playground_and_the_experiments(stem):
    text = (SOURCES / f"{stem}.ipynb").read_text(encoding="utf-8")
    tabs = set(re.findall(r"\.\./build/ml-100k/playground\.html#(\w+)", text))
    assert tabs >= {"find"}
    assert tabs <= {"find", "you", "map", "step"}
    assert f"{EXPERIMENTS}.ipynb#" in text


@pytest.mark.parametrize("stem", LESSONS)
def test_a_prediction_hides_its_answer(stem):
    (cell,) = (c for c in code_cells(SOURCES / f"{stem}.ipynb") if c.id == "exercise-1-check")
    assert cell.metadata["jupyter"]["outputs_hidden"]


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_needs_no_kernel_of_another_lesson(stem):
    """A student may not have written it."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert set(re.findall(r"\b(SVD|ALS|BPR|WARP)\(", code)) == {stem[3:].upper()}


def test_tables_are_short():
    for file in ALL:
        for cell in nbformat.read(file, as_version=4).cells:
            for kind, text in texts(cell) if cell.cell_type == "code" else []:
                assert kind != "text/html" or text.count("<tr") <= 12, f"{file}, cell {cell.id}"


def test_readme_states_the_stored_results():
    """Each number of its table of results, and of its example, is printed by a notebook."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = r"^\| \[`(\w+)`\]\(notebooks/\1\.ipynb\) \| [^|]+ \| [^|]+ \| ([^|]+) \| ([^|]*)\|$"
    rows = re.findall(row, readme, re.MULTILINE)
    assert [stem for stem, *_ in rows] == [*LESSONS, EXPERIMENTS]
    assert rows.pop()[1] == "optional: which explanations hold?"
    for stem, result, baseline in rows:
        printed = headlines(nbformat.read(STORED["ml-1m"] / f"{stem}.ipynb", as_version=4))
        assert (result, baseline.strip()) in [
            (f"{h['metric']} {h['value']}", f"{h['theirs']}, {h['baseline']}") for h in printed
        ], stem
    lines = re.findall(rf"({METRICS}) +SVD ([\d.]+) +([a-z ]+) ([\d.]+)$", readme, re.MULTILINE)
    printed = headlines(nbformat.read(STORED["ml-100k"] / "01_svd.ipynb", as_version=4))
    assert lines == [(h["metric"], h["value"], h["baseline"], h["theirs"]) for h in printed]
    assert all(re.fullmatch(METRICS, h["metric"]) for h in printed)


def test_readme_names_sections_that_all_lessons_have():
    """By these sections, a lesson can be marked by hand."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"To judge a notebook by hand,.*?\n\n", readme, re.DOTALL)
    assert re.findall(r"\b\d\b", text) == ["4", "5", "8", "7"]
    titles = ("4. The textbook loop", "5. The kernel", "7. Evaluation", "8. Similar movies and rec")
    for stem in LESSONS:
        lesson = (SOURCES / f"{stem}.ipynb").read_text(encoding="utf-8")
        assert all(f"## {title}" in lesson for title in titles), stem


@pytest.fixture(scope="module")
def lessons():
    read = [nbformat.read(file, as_version=4) for file in sources()]
    return [Lesson(file.stem, notebook) for file, notebook in zip(sources(), read, strict=True)]


@pytest.fixture(scope="module")
def site(lessons):
    """Return the parsed pages by name."""
    found = {f"{each.stem}.html": page(each.notebook, each.stem, lessons) for each in lessons}
    found["index.html"] = index("MovieLens-1M", lessons)
    return {name: BeautifulSoup(html, "html.parser") for name, html in found.items()}


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.stem)
def test_pages_are_self_contained(file):
    """Pages load nothing, have no script and no raw formulas, and each figure has a text."""
    html = page(nbformat.read(file, as_version=4), file.stem)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//|import\(|@import|<script', html)
    assert len(html.encode()) < 3e6
    body = html.partition("<body")[2]
    assert "$" not in body
    assert body.count("<math") > 20
    described = re.findall(r'alt="[^"]{40,}"', body)
    assert body.count("<img") == len(described) + body.count('alt=""')
    assert len(described) >= 2
    assert "Explore" not in body, "what is for interactive readers has no place on a page"


def test_every_link_of_the_site_has_a_target(site):
    playground = (SITE / "playground.html.j2").read_text(encoding="utf-8")
    ids = {name: {tag["id"] for tag in html.find_all(id=True)} for name, html in site.items()}
    for name, html in site.items():
        for link in html.find_all("a", href=True):
            target, _, anchor = link["href"].partition("#")
            if target == "playground.html":
                assert f'id="{anchor}-view"' in playground, f"{name} links to {link['href']}"
                continue
            assert (target or name) in site, f"{name} links to {link['href']}"
            assert not anchor or unquote(anchor) in ids[target or name] or anchor in ids[name], (
                f"{name} links to {link['href']}"
            )
    for place, name in enumerate(names := sorted(set(site) - {"index.html"})):
        for rel, there in (("prev", place - 1), ("next", place + 1)):
            links = {link["href"] for link in site[name].select(f"a[rel={rel}]")}
            assert links == ({names[there]} if 0 <= there < len(names) else set())
        headings = [h.text for h in site[name].select("main h2")]
        assert [link.text for link in site[name].select("nav.contents a")] == headings
        assert len(headings) >= 8


def test_links_between_notebooks_become_links_between_pages(lessons):
    notebook = copy.deepcopy(lessons[1].notebook)
    notebook.cells[0].source += (
        '\n<a id="here"></a> [there](01_svd.ipynb#metrics), [it](#here), '
        "[map](../build/ml-100k/playground.html#map)"
    )
    html = BeautifulSoup(page(notebook, "02_als", lessons), "html.parser")
    assert html.find("a", string="there")["href"] == "01_svd.html#metrics"
    assert html.find("a", string="it")["href"] == "#here"
    assert html.find("a", string="map")["href"] == "playground.html#map"
    assert html.find(id="here")


def test_answers_checks_claims_and_code_of_figures_are_folded(lessons):
    notebook = lessons[0].notebook
    html = BeautifulSoup(page(notebook, "01_svd", lessons), "html.parser")
    assert not html.select("details[open]")
    answers = [c.source for c in notebook.cells if re.fullmatch(r"exercise-\d", c.id)]
    assert [d.pre.text.strip() for d in html.select("details.answer")] == answers
    for kind in FOLDED:
        sources_ = [c.source.strip() for c in notebook.cells if kind in tags(c)]
        assert [d.pre.text.strip() for d in html.select(f"details.{kind}")] == sources_
    assert html.select_one("details.check .printed"), "the output of a check contains the answer"
    assert html.select("details.figure")[0].find_previous_sibling("figure"), (
        "a figure stays visible"
    )
    loop = next(c.source for c in notebook.cells if c.id == "loop")
    assert not [d for d in html.select("details") if loop in d.text]
    assert folded("check", "Check", "<p>x</p>").endswith("<p>x</p></details>")


def test_the_index_has_a_row_and_a_picture_of_each_lesson(lessons):
    for each in lessons:
        each.results = [line.groupdict() for line in headlines(each.notebook)]
    html = BeautifulSoup(index("MovieLens-1M", lessons), "html.parser")
    rows = html.select("table.results tbody tr")
    assert [row.th.text for row in rows] == [each.stem for each in lessons]
    for row, each in zip(rows, lessons, strict=True):
        for line in each.results:
            for kind in ("metric", "model", "value", "baseline", "theirs"):
                assert line[kind] in row.text
    articles = html.select("article")
    for article, each in zip(articles, lessons, strict=True):
        assert article.h3.text == each.title
        assert len(article.p.text) > 100
        assert len(article.img["alt"]) > 40
    assert "MovieLens-1M" in html.h1.text
    assert "not be redistributed" in html.text
    lost = Lesson("01_svd", nbformat.v4.new_notebook(cells=lessons[0].notebook.cells[:2]))
    lost.failed = True
    html = BeautifulSoup(index("MovieLens-1M", [lost]), "html.parser")
    assert "failed" in html.select_one("table.results tbody tr").text
    assert not html.select("article img")


def test_picture_is_the_idea_or_else_the_first_figure(lessons):
    def png(lesson):
        return re.search(r'base64,([^"]+)"', lesson.picture)[1]

    notebook = copy.deepcopy(lessons[0].notebook)
    cells = [cell for cell in notebook.cells if "alt" in cell.metadata]
    figures = [
        output.data["image/png"].replace("\n", "")
        for cell in cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    (idea,) = (place for place, cell in enumerate(cells) if cell.id == "idea")
    assert png(Lesson("01_svd", notebook)) == figures[idea]
    cells[idea].id = "other"
    cells[-1].id = "idea"
    assert png(Lesson("01_svd", notebook)) == figures[-1]
    cells[-1].id = "another"
    assert png(Lesson("01_svd", notebook)) == figures[0]


def test_figures_at_twice_the_resolution_have_their_natural_size():
    file = BytesIO()
    imsave(file, np.zeros((20, 60)), format="png")
    data = {"image/png": b64encode(file.getvalue()).decode()}
    twice = {"image/png": {"width": 30, "height": 10}}
    for metadata, width, height in (({}, "60", "20"), (twice, "30", "10")):
        output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
        img = BeautifulSoup(figure(output, 'a "text"'), "html.parser").img
        assert (img["width"], img["height"], img["alt"]) == (width, height, 'a "text"')


def test_figures_with_two_panels_are_cut_between_them():
    file = BytesIO()
    imsave(file, np.zeros((20, 60)), format="png")
    data = {"image/png": b64encode(file.getvalue()).decode()}
    html = BeautifulSoup(
        figure(nbformat.v4.new_output("display_data", data=data), "two", 2), "html.parser"
    )
    assert [div["style"] for div in html.select(".panels > div")] == ["--width:30px"] * 2
    assert [img["alt"] for img in html.find_all("img")] == ["two", ""]


@pytest.mark.parametrize(
    ("table", "numbers"),
    [
        (pd.DataFrame({"title": ["a", "b"], "score": [1.5, -2.0]}, index=[1, 2]), [1, 0, 1]),
        (
            pd.DataFrame({"n": [1, 2], "95 %": ["0.1 to 0.2", "0.3 to 0.4"]}, index=["A", "B"]),
            [0, 1, 1],
        ),
        (pd.DataFrame({"x": ["30 %", "–"], "y": [True, False]}, index=["A", "B"]), [0, 1, 0]),
        (
            pd.DataFrame(
                {"x": ["0.1 (-0.1 to +0.2)", "0.3"], "y": ["2 to", "(a)"]}, index=["A", "B"]
            ),
            [0, 1, 0],
        ),
        (
            pd.DataFrame(
                {1: list("abcd"), 2: [1, 2, 3, 4]},
                index=pd.MultiIndex.from_product([["u", "v"], ["cosine", "l2"]]),
            ),
            [0, 0, 0, 1],
        ),
        (pd.DataFrame({("a", 1): [1], ("a", 2): ["x"]}, index=["r"]), [0, 1, 0]),
    ],
)
def test_tables_align_text_left_and_numbers_right(table, numbers):
    html = BeautifulSoup(table.to_html(), "html.parser")
    align(html.table)
    assert not html.find_all(style=True)
    assert html.table.parent["class"] == ["scroll"]
    for row in html.select("tr"):
        cells = row.find_all(["th", "td"])
        if not any("colspan" in cell.attrs for cell in cells):
            found = ["number" in cell.get("class", []) for cell in cells]
            assert found == list(map(bool, numbers[-len(cells) :]))
    for head in html.find_all("th"):
        assert head.text.strip()
        assert head["scope"] == ("col" if head.find_parent("thead") else head["scope"])


def test_index_names_share_the_head_row_and_titles_are_not_split():
    title = "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb & <more> (1963)"
    index = pd.RangeIndex(1, 2, name="Toy Story")
    table = pd.DataFrame({"title": [title], "genres": ["Action|Sci-Fi"]}, index=index)
    with pd.option_context("display.max_colwidth", None):
        html = BeautifulSoup(table.to_html(), "html.parser")
    align(html.table)
    (row,) = html.select("thead tr")
    assert [cell.text for cell in row.find_all("th")] == ["Toy Story", "title", "genres"]
    assert [cell.text for cell in html.find_all("td")] == [title, "Action|Sci-Fi"]
    assert html.find("wbr"), "a list of genres may break"


def test_run_makes_a_site(tmp_path, monkeypatch, capsys):
    def stored(file, dataset, environment=None, last=None):
        notebook = nbformat.read(STORED[dataset] / file.name, as_version=4)
        failure = Failure(f"{file.name}: no", "error", [])
        return notebook, failure if file.stem == "04_warp" else None

    monkeypatch.setattr(execute, "execute", stored)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    errors = execute.run("ml-100k")
    assert errors[0] == "04_warp.ipynb: no"
    assert errors[1].startswith("no playground: ")
    assert len(errors) == 2
    folder = tmp_path / "build" / "ml-100k"
    names = {f"{file.stem}.{kind}" for file in sources() for kind in ("ipynb", "html")}
    assert {file.name for file in folder.iterdir()} == names | {"index.html", "models"}
    text = capsys.readouterr().out
    assert "build/ml-100k/index.html" in text
    for line in headlines(stored(sources()[0], "ml-100k")[0]):
        assert f"{line['model']} {line['value']}" in text
    assert "failed" in (folder / "index.html").read_text(encoding="utf-8")
    assert "MovieLens-100K" in (folder / "index.html").read_text(encoding="utf-8")


def test_formulas_become_mathml():
    text = "If $x_u$ costs `$5`:\n\n$$\\sum_i\na < b$$ and \\$5"
    assert FORMULA.findall(text) == [("", "x_u"), ("\\sum_i\na < b", "")]
    block = mathml(FORMULA.search("$$\\sum_i\na < b$$"))
    assert block.startswith("<math")
    assert 'display="block"' in block
    assert "a < b" not in block, "what means something in HTML must be escaped"
    assert "\n" not in block


def test_formulas_have_the_intended_markup():
    def tags_of(formula):
        html = BeautifulSoup(mathml(FORMULA.search(f"${formula}$")), "html.parser")
        return [(tag.name, tag.text, tag.attrs) for tag in html.find_all(["mi", "mo", "mspace"])]

    def forms(formula, sign):
        return [attrs.get("form") for _, text, attrs in tags_of(formula) if text == sign]

    assert forms("a - b = -c", "−") == [None, "prefix"]
    assert forms("|x| + |y|", "|") == ["prefix", "postfix"] * 2
    assert forms("P(a | b)", "|") == [None], "a single bar is no fence"
    assert ("mo", "×") in [tag[:2] for tag in tags_of("U × I")]
    assert [tag[:2] for tag in tags_of(r"\ln σ")] == [("mi", "ln"), ("mspace", ""), ("mi", "σ")]
    assert not [tag for tag in tags_of(r"\ln(x) + \log_2(y)") if tag[0] == "mspace"]
    assert 'class="together"' in markdown("So is $x$. Then")
    assert 'class="together"' not in markdown("So $x$ is")


def test_the_font_of_the_formulas_includes_its_licence():
    assert (SITE / "math.woff2").read_bytes()[:4] == b"wOF2"
    assert "SIL OPEN FONT LICENSE" in (SITE / "OFL.txt").read_text(encoding="utf-8")
    assert "math.woff2" in (SITE / "math_font.py").read_text(encoding="utf-8")


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


def test_splitting_a_stream_is_no_difference():
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
        expected = {"another": "the figure looks different", "none": "the figure is missing"}
        assert differences(notebook, other)["curve"].endswith(expected[change])


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
