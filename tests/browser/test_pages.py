"""The site of `make run` in Chromium: on a wide screen, on a phone, in dark mode, on paper."""

import re

import nbformat
import pytest
from execute import STORED, headlines
from pages import Lesson, index, page

pytestmark = pytest.mark.browser
NAMES = sorted(file.stem for file in STORED["ml-100k"].glob("*.ipynb"))
LESSONS = [name for name in NAMES if name != "05_experiments"]
LONGEST = 15_000  # pixels of a lesson at a width of 1280
WIDTHS = (1280, 390)
PART = 4000  # pixels of a page in a picture
PAPER = 680  # pixels of a line on A4 with margins of 15 mm
# Unconverted TeX: dollars or a command in visible text outside code.
UNRENDERED = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node; (node = walker.nextNode());)
    if (!node.parentElement.closest('pre, code, script, style, math, table') &&
        /\$|\\[a-z]+/.test(node.data))
      found.push(node.data.trim());
  return found;
}"""
# Elements that exceed the page at the right and are not in a scrolling box.
CUT = """() => [...document.querySelectorAll('body *')].filter(e => {
  if (!e.checkVisibility()) return false;
  for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return false;
  return e.getBoundingClientRect().right > innerWidth + 1;
}).map(e => e.tagName + '.' + e.className)"""
# Letters in a full line of each long paragraph.
LETTERS = """() => [...document.querySelectorAll('main p')].filter(p =>
  p.textContent.length > 300 && !p.querySelector('math, code')).map(p => {
    const range = document.createRange(); range.selectNodeContents(p);
    const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top / 8))).size;
    return p.textContent.length / (lines - 0.5);
  })"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Build the site from the stored outputs, with folded answers."""
    target = tmp_path_factory.mktemp("pages")
    lessons = []
    for name in NAMES:
        notebook = nbformat.read(STORED["ml-100k"] / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if re.fullmatch(r"exercise-\d", cell.id):
                cell.metadata["jupyter"] = {"source_hidden": True}
        found = [line.groupdict() for line in headlines(notebook)]
        lessons.append(Lesson(name, notebook, seconds=5, results=found))
    for lesson in lessons:
        html = page(lesson.notebook, lesson.stem, lessons)
        (target / f"{lesson.stem}.html").write_text(html, encoding="utf-8")
    html = index("MovieLens-100K", lessons, with_playground=True)
    (target / "index.html").write_text(html, encoding="utf-8")
    return target


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*NAMES, "index"])
def test_a_page_fits_and_is_complete(show, folder, screenshots, name, width, scheme):
    window, errors, requests = show((folder / f"{name}.html").as_uri(), width)
    window.emulate_media(color_scheme=scheme)
    height = window.evaluate("document.documentElement.scrollHeight")
    for part, y in enumerate(range(0, height, PART)):  # a whole page may be too high for Chromium
        clip = {"x": 0, "y": y, "width": width, "height": min(PART, height - y)}
        file = screenshots / f"{name}-{width}-{scheme}-{part}.png"
        window.screenshot(path=file, full_page=True, clip=clip)
    if width == 1280 and name in LESSONS:
        assert height < LONGEST, f"expected a page below {LONGEST:,} px, got {height:,}"
    assert window.evaluate("document.documentElement.scrollWidth") <= width, (
        "the page scrolls sideways"
    )
    assert window.evaluate(CUT) == [], "cut off at the right"
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert window.evaluate(UNRENDERED) == []
    size = "[i.alt.length > 20, i.naturalWidth > 0, i.getBoundingClientRect().width > 100]"
    # The second half of a figure with two panels has an empty text: the first half describes both.
    images = window.locator("img:not([alt=''])").evaluate_all(f"images => images.map(i => {size})")
    assert len(images) >= 2
    assert all(all(image) for image in images), "each figure is there and has an alternative text"
    ground = window.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (level < 60) == (scheme == "dark")


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_prose_have_about_75_letters(show, folder, name):
    window, _, _ = show((folder / f"{name}.html").as_uri(), 1280)
    letters = window.evaluate(LETTERS)
    assert letters
    assert 62 < sum(letters) / len(letters) < 88, letters


@pytest.mark.parametrize("name", NAMES)
def test_figures_have_their_natural_size_and_never_more_than_the_column(show, folder, name):
    window, _, _ = show((folder / f"{name}.html").as_uri(), 1280)
    sizes = """images => images.map(i => [i.getBoundingClientRect().width,
      Number(i.getAttribute('width')), i.closest('main').clientWidth])"""
    for shown, natural, column in window.locator("img").evaluate_all(sizes):
        assert shown == pytest.approx(min(natural, column), abs=1)


@pytest.mark.parametrize("name", NAMES)
def test_formulas_are_set_in_the_font_of_the_page(show, folder, name):
    """A letter missing from the subset would be in another font, which Chromium reports."""
    window, _, _ = show((folder / f"{name}.html").as_uri())
    assert window.locator("math").count() > 10
    session = window.context.new_cdp_session(window)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    for kind in ("mi", "mn", "mo"):
        asked = {"nodeId": root, "selector": f"math {kind}"}
        used = set()
        for node in session.send("DOM.querySelectorAll", asked)["nodeIds"]:
            for font in session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]:
                used.add((font["familyName"], font["isCustomFont"]))
                if used != {("Lesson Math", True)}:
                    pytest.fail(f"{font} {session.send('DOM.getOuterHTML', {'nodeId': node})}")
        assert used == {("Lesson Math", True)}
    stretched = """() => [...document.querySelectorAll('mo[stretchy=true]')].filter(o =>
      o.parentElement.querySelector('mfrac, munder, munderover')).map(o =>
      o.getBoundingClientRect().height / parseFloat(getComputedStyle(o).fontSize))"""
    assert all(height > 1.2 for height in window.evaluate(stretched)), "brackets are stretched"


def test_brackets_are_as_high_as_their_content(show, tmp_path):
    file = tmp_path / "brackets.html"
    cell = nbformat.v4.new_markdown_cell(
        "# T\n\nA $[x]$.\n\n$$\\left[\\sum_{i=0}^n \\frac{a}{b}\\right]$$"
    )
    file.write_text(page(nbformat.v4.new_notebook(cells=[cell]), "t"), encoding="utf-8")
    window, _, _ = show(file.as_uri())
    high = "e => e.map(o => o.getBoundingClientRect().height)"
    small, large = (
        window.locator(f"{s} mo").evaluate_all(high) for s in ("p:not(:has(.formula))", ".formula")
    )
    assert min(large[0], large[-1]) > 2 * max(small)


def test_a_formula_left_as_tex_is_found(show, tmp_path, monkeypatch):
    monkeypatch.setattr("pages.mathml", lambda formula: formula[0])
    file = tmp_path / "raw.html"
    notebook = nbformat.read(STORED["ml-100k"] / f"{NAMES[0]}.ipynb", as_version=4)
    file.write_text(page(notebook, "raw"), encoding="utf-8")
    assert len(show(file.as_uri())[0].evaluate(UNRENDERED)) > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*NAMES, "index"])
def test_a_page_is_accessible(show, folder, name, width, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe-playwright-python"
    ).Axe()
    window, _, _ = show((folder / f"{name}.html").as_uri(), width)
    window.emulate_media(color_scheme=scheme)
    window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    findings = axe.run(window).response["violations"]
    serious = [
        f"{f['id']}: {f['help']}: {f['nodes'][0]['html'][:200]} ({len(f['nodes'])} places)"
        for f in findings
        if f["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_keyboard_focus_is_visible(show, folder):
    window, _, _ = show((folder / f"{NAMES[0]}.html").as_uri())
    focused = "[document.activeElement].map(e => [e.tagName, getComputedStyle(e).outlineStyle])"
    for _ in range(5):
        window.keyboard.press("Tab")
        ((tag, style),) = window.evaluate(focused)
        assert tag != "BODY", "nothing takes the focus"
        assert style != "none"


@pytest.mark.parametrize("width", WIDTHS)
def test_links_lead_from_the_index_through_all_lessons(show, folder, width):
    window, errors, _ = show((folder / "index.html").as_uri(), width)
    assert window.locator("table.results tbody tr").count() == len(NAMES)
    window.locator("article h3 a").first.click()
    for place, name in enumerate(NAMES):
        assert window.url.endswith(f"{name}.html")
        assert window.locator("header a[rel=prev]").count() == (place > 0)
        if width < 1000:
            window.locator("main details.contents summary").click()
        window.locator(".contents a:visible").last.click()
        heading = window.locator("main h2").last
        assert heading.evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")
        if place + 1 < len(NAMES):
            window.locator("footer a[rel=next]").click()
    assert window.locator("a[rel=next]").count() == 0
    window.locator("header a", has_text="All lessons").click()
    assert window.url.endswith("index.html")
    assert errors == []


def test_answers_are_folded_until_opened(show, folder):
    window, _, _ = show((folder / f"{NAMES[0]}.html").as_uri())
    answers = window.locator("details.answer")
    assert answers.count() == 3
    code = answers.first.locator("pre")
    assert not code.is_visible()
    answers.first.locator("summary").focus()
    window.keyboard.press("Enter")
    assert code.is_visible()
    window.emulate_media(media="print")
    assert code.is_visible()
    assert not answers.last.is_visible(), "what is folded is not printed"


@pytest.mark.parametrize("name", [*NAMES, "index"])
def test_printing_cuts_nothing_off(show, folder, screenshots, name):
    window, _, _ = show((folder / f"{name}.html").as_uri(), PAPER)
    window.emulate_media(media="print", color_scheme="dark")
    boxes = """() => [...document.querySelectorAll('pre, table, img, math, p')].filter(e =>
      e.offsetParent !== null || e.tagName === 'math').filter(e => {
        const range = document.createRange(); range.selectNodeContents(e);
        const all = [...range.getClientRects(), e.getBoundingClientRect()];
        return Math.max(...all.map(r => r.right)) > innerWidth + 1;
      }).map(e => e.outerHTML.slice(0, 200))"""
    assert window.evaluate(boxes) == [], "wider than the paper"
    wider = "images => images.map(i => i.clientWidth - Number(i.getAttribute('width')))"
    assert max(window.locator("img").evaluate_all(wider)) <= 0, "no figure is enlarged"
    assert window.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    ), "paper is white, in the dark, too"
    wrapped = """() => [...document.querySelectorAll('.code pre')].filter(e => {
      const line = parseFloat(getComputedStyle(e).lineHeight);
      const lines = e.textContent.trimEnd().split('\\n').length;
      return e.offsetParent && e.getBoundingClientRect().height > line * (lines + .5) + 40;
    }).length"""
    assert window.evaluate(wrapped) == 0, "a line of code fits on a line"
    pdf = screenshots / f"{name}.pdf"
    window.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox\s*\[([^\]]*)\]", data)
    assert boxes
    for box in boxes:  # A4 in points
        assert [round(float(x)) for x in box.split()] == [0, 0, 595, 842]
