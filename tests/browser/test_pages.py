"""The pages of `make run` in Chromium, wide and on a phone."""

import nbformat
import pytest
from execute import STORED, page

pytestmark = pytest.mark.browser
NAMES = sorted(file.stem for file in STORED["ml-100k"].glob("*.ipynb"))
WIDTHS = (1280, 390)
# A formula that was left as TeX: dollars or a command in the text that is shown, outside of code.
UNRENDERED = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node; (node = walker.nextNode());)
    if (!node.parentElement.closest('pre, code, script, style, math, .jp-OutputArea') &&
        /\$|\\[a-z]+/.test(node.data))
      found.push(node.data.trim());
  return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("pages")
    for name in NAMES:
        notebook = nbformat.read(STORED["ml-100k"] / f"{name}.ipynb", as_version=4)
        (target / f"{name}.html").write_text(page(notebook, name), encoding="utf-8")
    return target


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_is_complete(show, folder, screenshots, name, width):
    window, errors, requests = show((folder / f"{name}.html").as_uri(), width)
    window.screenshot(path=screenshots / f"{name}-{width}.png", full_page=True)
    assert window.evaluate("document.documentElement.scrollWidth") <= width, (
        "the page scrolls sideways"
    )
    wide = """() => [...document.querySelectorAll('body *')].filter(e => {
      for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
        if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return false;
      return e.getBoundingClientRect().right > innerWidth + 1;
    }).map(e => e.tagName + '.' + e.className)"""
    assert window.evaluate(wide) == [], "cut off at the right"
    assert errors == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert window.locator("math").count() > 10
    assert window.evaluate(UNRENDERED) == []
    size = "[i.alt.length > 20, i.naturalWidth > 0, i.getBoundingClientRect().width > 100]"
    images = window.locator("img").evaluate_all(f"images => images.map(i => {size})")
    assert len(images) >= 2
    assert all(all(image) for image in images), "each figure is there and has an alternative text"


def test_a_formula_left_as_tex_is_found(show, tmp_path, monkeypatch):
    monkeypatch.setattr("execute.mathml", lambda formula: formula[0])
    file = tmp_path / "raw.html"
    notebook = nbformat.read(STORED["ml-100k"] / f"{NAMES[0]}.ipynb", as_version=4)
    file.write_text(page(notebook, "raw"), encoding="utf-8")
    assert len(show(file.as_uri())[0].evaluate(UNRENDERED)) > 10


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_accessible(show, folder, name, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe-playwright-python"
    ).Axe()
    window, _, _ = show((folder / f"{name}.html").as_uri(), width)
    findings = axe.run(window).response["violations"]
    serious = [
        f"{f['id']}: {f['help']}: {f['nodes'][0]['html'][:200]} ({len(f['nodes'])} places)"
        for f in findings
        if f["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_keyboard_focus_is_visible(show, folder):
    window, _, _ = show((folder / f"{NAMES[0]}.html").as_uri())
    window.keyboard.press("Tab")
    focused = "[document.activeElement].map(e => [e.tagName, getComputedStyle(e).outlineStyle])"
    ((tag, style),) = window.evaluate(focused)
    assert tag != "BODY", "nothing takes the focus"
    assert style != "none"
