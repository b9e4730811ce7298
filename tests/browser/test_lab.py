"""Using the notebooks in JupyterLab: Run All, the explorer, a change, an error."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from execute import ROOT, STORED, tags, texts

from mflib.data import data_dir

pytestmark = pytest.mark.browser
NAMES = sorted(file.stem for file in STORED["ml-100k"].glob("*.ipynb"))
LESSONS = [name for name in NAMES if name != "05_experiments"]
MINUTES = 60_000  # in milliseconds
TROUBLE = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr']"
# Put all cells into the page, not only the visible ones; show no announcements.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """Start JupyterLab with a copy of the notebooks, on a free port with a token.

    Yield its address and the folder.
    """
    if not (data_dir() / "ml-100k").is_dir():
        pytest.skip("no data: python -m mflib.data ml-100k")
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    for name, value in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "MFLIB_DATA": data_dir().resolve(),
        "MFLIB_DATASET": "ml-100k",
    }
    environment = {key: value for key, value in os.environ.items() if key != "MFLIB_PROGRESS"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=secret", f"--ServerApp.root_dir={home}"]
    with (home / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command,
            env=environment | {key: str(value) for key, value in own.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                assert server.poll() is None, (home / "log").read_text(encoding="utf-8")
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", home
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def opened(lab, show):
    """Return a function that opens a notebook, or one with new cells, and returns the page."""

    def opened(name: str, cells: list[str] | None = None):
        address, home = lab
        if cells is not None:
            new = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
            like = nbformat.read(ROOT / "notebooks" / f"{NAMES[0]}.ipynb", as_version=4)
            new.metadata = like.metadata
            nbformat.write(new, home / "notebooks" / f"{name}.ipynb")
        place = f"lab/tree/notebooks/{name}.ipynb?token=secret&reset"
        page, _, _ = show(f"{address}/{place}", 1280, 1000)
        page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=MINUTES)
        idle(page)
        return page

    return opened


def idle(page) -> None:
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=6 * MINUTES)


def menu(page, name: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).click()


def run_all(page, entry: str = "Run All Cells") -> None:
    """Choose Run All from the menu and wait until the first cells wait for the kernel."""
    menu(page, "Run", entry)
    if "Restart" in entry:
        page.locator(".jp-Dialog .jp-mod-accept").click()
    page.locator(".jp-CodeCell .jp-InputPrompt", has_text="[*]:").first.wait_for(timeout=MINUTES)


def all_done(page) -> None:
    """Wait until every code cell that is not folded has a number and the kernel is idle."""
    numbered = """() => [...document.querySelectorAll(
        '.jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)')].every(
        prompt => /^\\[\\d+\\]:$/.test(prompt.textContent.trim()))"""
    page.wait_for_function(numbered, timeout=6 * MINUTES)
    idle(page)


def saved(page, lab, name: str) -> nbformat.NotebookNode:
    def stored(response) -> bool:
        return response.request.method == "PUT" and f"{name}.ipynb" in response.url

    page.keyboard.press("Escape")
    with page.expect_response(stored):
        menu(page, "File", "Save Notebook")
    return nbformat.read(lab[1] / "notebooks" / f"{name}.ipynb", as_version=4)


def printed(notebook: nbformat.NotebookNode) -> dict[str, list]:
    """Return texts and tables by cell, without progress bars, which are widgets here."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in cells if "skip-execution" not in tags(cell)]
    widget = "application/vnd.jupyter.widget-view+json"
    for cell in cells:
        cell.outputs = [o for o in cell.outputs if widget not in o.get("data", {})]
    return {cell.id: texts(cell) for cell in cells}


@pytest.mark.parametrize("name", NAMES)
def test_run_all(lab, opened, screenshots, name):
    page = opened(name)
    bars = ".jp-Notebook .jupyter-widget-hprogress, .jp-Notebook .widget-hprogress"
    run_all(page)
    if name in LESSONS:  # the experiments train several models at a time, without progress bars
        page.locator(bars).first.wait_for(timeout=3 * MINUTES)
    all_done(page)
    assert page.locator(TROUBLE).count() == 0
    done = "b => b.querySelector('.progress-bar-success, .bar-success') !== null"
    ended = page.locator(bars).evaluate_all(f"bars => bars.every({done})")
    assert ended, "every progress bar must have come to its end"
    stored = nbformat.read(STORED["ml-100k"] / f"{name}.ipynb", as_version=4)
    outputs = [o for c in stored.cells if c.cell_type == "code" for o in c.outputs]
    pictures = sum("image/png" in o.get("data", {}) for o in outputs)
    assert page.locator(".jp-RenderedImage img").count() == pictures
    tables = page.locator(".jp-OutputArea .jp-RenderedHTMLCommon table")
    assert max(tables.evaluate_all("tables => tables.map(t => t.offsetWidth)")) > 200
    new = printed(saved(page, lab, name))
    assert new == printed(stored), "the same texts and tables as stored"
    for place, what in enumerate(page.locator(".jp-RenderedImage img").all()[:1]):
        what.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / f"lab-{name}-{place}.png")
    if name == NAMES[1]:
        run_all(page, "Restart Kernel and Run All Cells…")
        all_done(page)
        assert printed(saved(page, lab, name)) == new, "the same once more"
    if page.get_by_label("movie 1", exact=True).count():
        be_the_user(page, screenshots)
    if name in LESSONS:
        explore(page, name, screenshots)


def be_the_user(page, screenshots: Path) -> None:
    """Use the widget for choosing movies: recommendations, reasons, sliders, a typing error."""
    first = page.get_by_label("movie 1", exact=True)
    widget = page.locator(".widget-interact").filter(has=first)
    first.scroll_into_view_if_needed()
    for number, title in enumerate(("Star Wars (1977)", "Empire Strikes Back, The (1980)"), 1):
        page.get_by_label(f"movie {number}", exact=True).fill(title)
    widget.get_by_text("Return of the Jedi (1983)").first.wait_for()
    widget.get_by_text("Empire Strikes Back, The (1980) (0.").first.wait_for()
    page.screenshot(path=screenshots / "lab-be-the-user.png")
    changed = "([widget, old]) => widget.innerText !== old && widget.querySelector('table')"
    for label in ("α", "λ"):
        before = widget.inner_text()
        slider = widget.locator(".widget-slider").filter(has_text=label).get_by_role("slider")
        slider.press("End")
        page.wait_for_function(changed, arg=[widget.element_handle(), before])
    first.fill("No such movie")
    widget.get_by_text("the title of 0 movies; look it up in the table movies").wait_for()
    first.fill("")
    widget.locator("table").wait_for()
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def explore(page, name: str, screenshots: Path) -> None:
    """Use the explorer at the end of the notebook."""
    movie, user = page.get_by_label("movie", exact=True), page.get_by_label("user", exact=True)
    explorer = page.locator(".widget-interact").filter(has=movie)
    movie.scroll_into_view_if_needed()
    movie.fill("star wars")
    explorer.get_by_text("did you mean one of ['Star Wars (1977)']?").wait_for()
    movie.fill("Star Wars (1977)")
    explorer.get_by_text("Empire Strikes Back, The (1980)").first.wait_for()
    user.fill("7")
    user.press("Enter")
    explorer.locator("table").nth(2).wait_for()
    before = explorer.inner_text()
    explorer.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"lab-{name}-explorer.png")
    user.fill("1")
    user.press("Enter")
    changed = "([explorer, old]) => explorer.innerText !== old"
    page.wait_for_function(changed, arg=[explorer.element_handle(), before])
    movie.fill("No such movie")
    explorer.get_by_text("the title of 0 movies; look it up in the table movies").wait_for()
    movie.fill("Alien (1979)")
    user.fill("99999")
    user.press("Enter")
    explorer.get_by_text("expected one of the 943 user ids of ml-100k, got 99999").wait_for()
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


TRAINING = [
    "from mflib import SVD\nfrom mflib.data import load_movielens\ndata = load_movielens()",
    "model = SVD(8, iterations=2).fit(data.ratings)\nprint(model.history[-1]['loss'])",
]


def test_a_changed_hyperparameter_changes_the_numbers(lab, opened):
    page = opened("changed", TRAINING)
    run_all(page)
    all_done(page)
    first = printed(saved(page, lab, "changed"))
    editor = page.locator(".jp-CodeCell .cm-content").last
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(TRAINING[1].replace("iterations=2", "iterations=4"))
    run_all(page)
    all_done(page)
    second = printed(saved(page, lab, "changed"))
    assert list(first.values())[1] != list(second.values())[1]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        (
            "dense",
            "model.fit(data.ratings.toarray())",
            "TypeError: expected a scipy sparse matrix (users x items)",
        ),
        ("unknown", "data.itemid('Toy Storey')", "look it up in the table movies"),
        (
            "missing",
            "%env MFLIB_DATA=nowhere\nload_movielens('ml-1m')",
            "run: python -m mflib.data ml-1m",
        ),
    ],
)
def test_errors_explain_what_to_do(lab, opened, screenshots, name, code, says):
    page = opened(name, [*TRAINING, code])
    run_all(page)
    all_done(page)
    error = page.locator(TROUBLE).last
    assert says in error.inner_text()
    assert "site-packages/torch" not in error.inner_text(), "not an error from inside torch"
    error.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / f"lab-error-{name}.png")
