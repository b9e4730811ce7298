"""Known-answer data, the models in the settings that the known answers need, and Chromium for tests/browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

os.environ["MFLIB_PROGRESS"] = "0"

from mflib import ALS, BPR, SVD, WARP, Popularity

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

IMPLICIT = {
    "ALS": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5} | kw),
    "ALS-exact": lambda **kw: ALS(**{"factors": 3, "regularization": 0.5, "use_cg": False} | kw),
    "BPR": lambda **kw: BPR(**{"factors": 6, "iterations": 200, "batch_size": 64} | kw),
    "WARP": lambda **kw: WARP(**{"factors": 6, "iterations": 100, "learning_rate": 0.01, "regularization": 0.1} | kw),
}
ALL = IMPLICIT | {
    "SVD": lambda **kw: SVD(**{"factors": 6, "iterations": 20, "batch_size": 64} | kw),
    "Popularity": lambda **kw: Popularity(**kw),
}


def checkerboard(n: int = 20) -> sp.csr_matrix:
    """Even users like even items, odd users odd ones, but nobody the item with their own number."""
    board = (np.add.outer(np.arange(n), np.arange(n)) % 2 == 0).astype(np.float32)
    np.fill_diagonal(board, 0)
    return sp.csr_matrix(board)


def random_ratings(users: int, items: int, density: float, seed: int = 0) -> sp.csr_matrix:
    """Ratings 1 … 5 in about density * users * items cells."""
    rng = np.random.default_rng(seed)
    known = rng.random((users, items)) < density
    return sp.csr_matrix(np.where(known, rng.integers(1, 6, known.shape), 0).astype(np.float64))


@pytest.fixture
def ratings() -> sp.csr_matrix:
    """30 x 25; user 3 and item 7 have none, user 5 has rated everything else."""
    dense = random_ratings(30, 25, 0.3).toarray()
    dense[5], dense[3], dense[:, 7] = 4, 0, 0
    return sp.csr_matrix(dense)


@pytest.fixture(params=sorted(ALL))
def any_model(request):
    return ALL[request.param]


@pytest.fixture(params=sorted(IMPLICIT))
def implicit_model(request):
    return IMPLICIT[request.param]


@pytest.fixture
def draw():
    """Random float64 tensors of the given shape."""
    rng = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no browser: install Chromium, on Debian as root: apt-get install chromium")
    reason = "no Playwright: .venv/bin/python -m pip install -c requirements.txt -r tests/browser/requirements.txt"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser):
    """Opens an address in a window of a width -> the page, and lists to which console errors and requests are added."""
    contexts = []

    def show(address: str, width: int = 1280, height: int = 900):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page, errors, requests = context.new_page(), [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        return page, errors, requests

    yield show
    for context in contexts:
        context.close()
