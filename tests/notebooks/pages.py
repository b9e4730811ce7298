"""Convert the executed notebooks to a small site: a page for each lesson, and an index.

A page loads nothing from elsewhere: figures, style and the font of the formulas are in it, and it
has no script. Formulas become MathML. What looks how is in site/.
"""

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert.filters import Highlight2HTML, strip_ansi
from nbconvert.filters.markdown_mistune import markdown2html_mistune

SITE = Path(__file__).resolve().parent / "site"
PICTURE = "idea"  # the cell whose figure represents a lesson on the index
# Cells that are folded on a page, by tag, and the line that unfolds them.
FOLDED = {
    "claims": "Checks: the statements above hold in this run",
    "figure": "Code of the figure",
    "check": "Check, with the answer",
}
PLAYGROUND = re.compile(r"\.\./build/[\w-]+/(?=playground\.html)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$`])\$([^$`]+?)\$", re.DOTALL)
# Numbers in a table: also gaps, shares, intervals, and numbers with an interval.
NUMBER = re.compile(r"[–—]?|NaN|(?=.*\d)(?:[-−+±\d.,%()\[\] ]|(?<= )to(?= ))+")
LONG_LINE = 42  # letters of code that fit on a phone
LONG_CELL = 22  # letters of a table's cell that may be wrapped on a phone
LONG_HEAD = 9  # letters of a column head of numbers that may be wrapped
WIDE_FIGURE = 720  # pixels: text in a wider figure would be too small on a phone
LONG_CODE = 40  # lines of code that may be split between printed pages
SHORT_CODE = 9  # lines of code that are printed on the same page as their output


@dataclass
class Lesson:
    """The entry of a notebook on the index."""

    stem: str
    notebook: nbformat.NotebookNode
    seconds: float = 0.0
    failed: bool = False
    results: list[dict[str, str]] = field(default_factory=list)  # metric, model, value, …

    @property
    def title(self) -> str:
        return self.notebook.cells[0].source.partition("\n")[0].lstrip("# ")

    @property
    def name(self) -> str:
        return self.title.partition(":")[0]

    @property
    def summary(self) -> str:
        """Return the first paragraph."""
        return markdown(self.notebook.cells[0].source.split("\n\n")[1])

    @property
    def picture(self) -> str:
        """Return the figure of the cell ``idea``, or otherwise the first figure."""
        figures = {
            cell.id: figure(output, cell.metadata.get("alt", ""))
            for cell in self.notebook.cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        }
        return figures.get(PICTURE) or next(iter(figures.values()), "")


def page(notebook: nbformat.NotebookNode, stem: str, lessons: list[Lesson] | None = None) -> str:
    """Return the notebook as an HTML page with links to its neighbours in ``lessons``."""
    lessons = lessons or [Lesson(stem, notebook)]
    cells = [cell for cell in notebook.cells if "skip-execution" not in tags(cell)]
    body = BeautifulSoup("\n".join(map(show, cells)), "html.parser")
    for table in body.find_all("table"):
        align(table)
    for link in body.find_all("a", class_="anchor-link"):
        link.decompose()
    for link in body.find_all("a", href=True):
        link["href"] = PLAYGROUND.sub("", link["href"])
        file, hash_, anchor = link["href"].partition("#")
        if file in {f"{lesson.stem}.ipynb" for lesson in lessons}:
            link["href"] = file.removesuffix(".ipynb") + ".html" + hash_ + anchor
    contents = [(quote(h["id"]), h.decode_contents()) for h in body.find_all("h2", id=True)]
    place = [lesson.stem for lesson in lessons].index(stem)
    return template("page").render(
        lesson=lessons[place],
        before=lessons[place - 1] if place else None,
        after=lessons[place + 1] if place + 1 < len(lessons) else None,
        contents=contents,
        body=str(body),
    )


def index(dataset: str, lessons: list[Lesson], with_playground: bool = False) -> str:
    """Return the index: results, a picture of each lesson, and a link to the playground."""
    return template("index").render(
        dataset=dataset, lessons=lessons, with_playground=with_playground
    )


def template(name: str):
    environment = Environment(
        loader=FileSystemLoader(SITE), trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.globals.update(
        style=(SITE / "style.css").read_text(encoding="utf-8"),
        font=base64.b64encode((SITE / "math.woff2").read_bytes()).decode(),
        scheme=(SITE / "factors.svg").read_text(encoding="utf-8"),
        play=(SITE / "playground.svg").read_text(encoding="utf-8"),
    )
    return environment.get_template(f"{name}.html.j2")


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def show(cell: nbformat.NotebookNode) -> str:
    """Return a cell as HTML."""
    if cell.cell_type == "markdown":
        return f'<section class="text">{markdown(cell.source)}</section>'
    source = code(cell.source)
    results = "\n".join(result(output, cell.metadata) for output in joined(cell.outputs))
    kind = next((tag for tag in tags(cell) if tag in FOLDED), "")
    if kind == "check":  # the output of a check contains the answer
        return folded(kind, FOLDED[kind], source + results)
    if kind:
        return results + folded(kind, FOLDED[kind], source)
    if "solution" in tags(cell) and cell.metadata.get("jupyter", {}).get("source_hidden"):
        source = folded("answer", "Answer", source)
    return source + results


def folded(kind: str, summary: str, html: str) -> str:
    """Return a folded block of HTML."""
    return f'<details class="{kind}"><summary>{summary}</summary>{html}</details>'


def joined(outputs: list) -> Iterator[nbformat.NotebookNode]:
    """Return the outputs, with consecutive pieces of a stream joined."""
    last = None
    for output in outputs:
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            if last:
                yield last
            last = nbformat.from_dict(output)
    if last:
        yield last


def result(output: nbformat.NotebookNode, metadata: dict) -> str:
    """Return an output as HTML, in its richest form. ``metadata`` is that of the cell."""
    data = output.get("data", {})
    if output.output_type == "error":
        return printed("\n".join(output.traceback), "error")
    if output.output_type == "stream":
        return printed(output.text, output.name)
    if "image/png" in data:
        return figure(output, metadata.get("alt", ""), metadata.get("panels", 1))
    if "text/html" in data:
        return data["text/html"]
    if "text/markdown" in data:
        return f'<div class="shown">{markdown(data["text/markdown"])}</div>'
    return printed(data.get("text/plain", ""), "stdout")


def printed(text: str, kind: str) -> str:
    """Return printed text, with long lines wrapped; tables in columns scroll instead."""
    columns = ' scroll" tabindex="0' if re.search(r"\S {2,}\S", text) else ""
    return f'<pre class="printed {kind}{columns}">{escape(strip_ansi(text).rstrip())}</pre>'


def figure(output: nbformat.NotebookNode, alt: str, panels: int = 1) -> str:
    """Return a figure at its natural size, which the metadata state if it has twice the resolution.

    A figure with two panels of equal width is cut between them, so that they stack on a phone.
    """
    png = output.data["image/png"].replace("\n", "")
    pixels = struct.unpack(">II", base64.b64decode(png[:44])[16:24])
    shape = output.metadata.get("image/png", {})
    width, height = shape.get("width", pixels[0]), shape.get("height", pixels[1])
    box = ' class="scroll" tabindex="0"' if width > WIDE_FIGURE and panels == 1 else ""
    image = f'src="data:image/png;base64,{png}" width="{width}" height="{height}"'
    if panels == 1:
        return f'<figure{box}><img {image} alt="{escape(alt)}"></figure>'
    parts = [f'<div style="--width:{width // panels}px">' for _ in range(panels)]
    texts = [escape(alt), *[""] * (panels - 1)]  # screen readers read the text once
    halves = [
        f'{part}<img {image} alt="{alt}"></div>' for part, alt in zip(parts, texts, strict=True)
    ]
    return f'<figure class="panels">{"".join(halves)}</figure>'


def code(source: str) -> str:
    """Return highlighted code in a box that the keyboard can reach if it scrolls."""
    lines = source.splitlines()
    kind = " long" if len(lines) > LONG_CODE else " short" if len(lines) < SHORT_CODE else ""
    focus = ' tabindex="0"' if max(map(len, lines), default=0) > LONG_LINE else ""
    coloured = BeautifulSoup(Highlight2HTML()(source, language="ipython3"), "html.parser").pre
    return f'<div class="code scroll{kind}"{focus}>{coloured}</div>'


def markdown(text: str) -> str:
    """Return Markdown with formulas as HTML."""
    found = BeautifulSoup(markdown2html_mistune(FORMULA.sub(mathml, text)), "html.parser")
    for box in found.find_all("div", class_="highlight"):
        box.replace_with(BeautifulSoup(code(box.get_text().rstrip("\n")), "html.parser"))
    for formula in found.find_all("math"):
        after = formula.next_sibling
        if formula["display"] == "block":
            box = {"class": "formula scroll", "tabindex": "0"}
            formula.wrap(found.new_tag("span", attrs=box))
        elif isinstance(after, str) and (mark := re.match(r"[.,;:!?)’]+", after)):
            after.replace_with(after[mark.end() :])  # keeps a full stop off the next line
            formula.wrap(found.new_tag("span", attrs={"class": "together"})).append(mark[0])
    return str(found)


def mathml(formula: re.Match) -> str:
    """Return a formula between dollars as MathML on one line, which Markdown does not change."""
    kind = "block" if formula[1] else "inline"
    text = " ".join((formula[1] or formula[2]).split())
    found = BeautifulSoup(" ".join(latex_to_mathml(text, display=kind).split()), "html.parser")
    for letter in found.find_all("mi", string=re.compile("^[·×∈≥≤→]$")):
        letter.name = "mo"  # the converter treats symbols without a TeX command as names
    for dot in found.find_all("mo", string="·"):
        dot["lspace"] = dot["rspace"] = "0.2em"
    bars = found.find_all("mo", string="|")
    for place, bar in enumerate(bars if len(bars) % 2 == 0 else []):
        bar.attrs |= {"form": ("prefix", "postfix")[place % 2], "lspace": "0", "rspace": "0"}
    for minus in found.find_all("mo", string="−"):
        before = minus.find_previous_sibling()
        if before is not None and before.name == "mo" and before.text not in ")]|":
            minus["form"] = "prefix"
    for name in found.find_all("mi", string=re.compile("^(ln|log|exp)$")):
        whole = name.parent if name.parent.name in ("msub", "msup") else name
        after = whole.find_next_sibling()
        if after is not None and after.text[0] not in "([":
            whole.insert_after(found.new_tag("mspace", attrs={"width": "0.17em"}))
    return str(found)


def align(table: Tag) -> None:
    """Align text left, numbers right and heads like their columns; put the table in a box.

    Columns are counted from the right: in a row below a head that spans several, cells are missing
    at the left.
    """
    for attribute in ("border", "class"):
        del table[attribute]
    if (parent := table.parent) and parent.name == "div":
        for style in parent.find_all("style"):
            style.decompose()
    heads = [row.find_all(["th", "td"]) for row in table.select("thead tr")]
    if len(heads) == 2 and heads[0] and not any(cell.text for cell in heads[0][:1] + heads[1][1:]):
        heads[0][0].replace_with(heads[1][0].extract())  # the index's name gets no separate row
        table.select("thead tr")[1].decompose()
    columns: dict[int, list[Tag]] = {}
    for row in table.find_all("tr"):
        del row["style"]
        place = 0
        for cell in reversed(row.find_all(["th", "td"])):
            columns.setdefault(place, []).append(cell)
            place += int(cell.get("colspan", 1))
    for cells in columns.values():
        body = [cell for cell in cells if cell.find_parent("thead") is None]
        numbers = all(NUMBER.fullmatch(cell.text.strip()) for cell in body)
        counted = cells if numbers else body
        longest = max((len(cell.text.strip()) for cell in counted), default=0)
        for cell in cells:
            del cell["style"], cell["valign"]
            kinds = ["number"] * numbers + ["wide"] * (
                longest > (LONG_HEAD if numbers else LONG_CELL)
            )
            if kinds:
                cell["class"] = kinds
            if cell.name == "th":
                if not cell.text.strip():
                    cell.name = "td"  # a head must name something
                else:
                    rows = "rowgroup" if "rowspan" in cell.attrs else "row"
                    cell["scope"] = "col" if cell.find_parent("thead") else rows
            for text in cell.find_all(string=re.compile(r"\S\|\S")):
                parts = BeautifulSoup(escape(text).replace("|", "|<wbr/>"), "html.parser")
                text.replace_with(parts)  # a list of genres breaks at its bars
    box = BeautifulSoup("", "html.parser").new_tag(
        "div", attrs={"class": "scroll", "tabindex": "0"}
    )
    table.wrap(box)


def escape(text: str) -> str:
    for letter, name in {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}.items():
        text = text.replace(letter, name)
    return text
