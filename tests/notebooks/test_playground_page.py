"""The playground's Python side: saving models from a notebook, packing data into the page."""

import base64
import json
import re
import zlib

import nbformat
import numpy as np
import pandas as pd
import playground
import pytest
import scipy.sparse as sp
import torch
from execute import execute
from playground import (
    LEAST,
    METRICS,
    MODELS,
    NOBODY,
    build,
    neighbours,
    packed,
    page,
    saving,
    two_factors,
)

from mflib import ALS
from mflib.data import MovieLens

ITEMS = 30
FIRST = """import numpy as np, scipy.sparse as sp, torch
from mflib import SVD
R = sp.csr_matrix(np.arange(20.0).reshape(4, 5))
model = SVD(2, iterations=1, dtype=torch.float64).fit(R)"""


@pytest.fixture
def data():
    """Return 40 users and 30 movies with awkward titles; the last has no likes."""
    rng = np.random.default_rng(0)
    often = rng.permutation(np.linspace(0.1, 0.95, ITEMS))
    liked = rng.random((40, ITEMS)) < often
    liked[:, -1] = False
    ratings = sp.csr_matrix(np.where(liked, 5.0, np.where(rng.random(liked.shape) < 0.2, 2.0, 0)))
    titles = [f"</script><b>{n} & 'é' (1999)" for n in range(ITEMS)]
    movies = pd.DataFrame({"title": titles, "genres": "Drama|War"})
    ids = np.arange(ITEMS)
    return MovieLens("ml-100k", ratings.astype(np.float32), movies, np.arange(40), ids, ratings)


@pytest.fixture
def models(data):
    known = {"01_svd": data.ratings}
    options = {"factors": 4, "iterations": 2, "dtype": torch.float64}
    return {
        stem: kind(**options).fit(known.get(stem, data.likes())) for stem, kind in MODELS.items()
    }


def unpacked(html: str) -> dict:
    """Unpack the data like the page's script, with an independent implementation."""
    found = re.search(r'id="data">([^<]*)<', html)
    whole = zlib.decompress(base64.b64decode(found[1]))
    end = 4 + int.from_bytes(whole[:4], "little")
    data = json.loads(whole[4:end])
    for name, size in data["arrays"].items():
        low, high = np.frombuffer(whole[end : end + 2 * size], np.uint8).reshape(2, size)
        data[name] = (low + 256 * high.astype(np.int64)).astype(np.uint16)
        end += 2 * size
    assert end == len(whole)
    return data


def test_page_contains_its_data_and_no_other_address(data, models):
    plane = np.random.default_rng(1).normal(size=(ITEMS, 2))
    html = page(data, models, plane)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert "default-src 'none'" in html
    assert "titles must not be published" in html
    assert html.count("</script>") == 2, "a title must not end the script"
    held = unpacked(html)
    assert held["titles"] == data.movies["title"].tolist()
    vectors = held["vectors"].view(np.int16).reshape(ITEMS, 4) * held["vectorScale"]
    wanted = models["02_als"].item_factors.numpy()
    assert abs(vectors - wanted).max() <= max(held["vectorScale"]) / 2
    points = held["plane"].view(np.int16).reshape(ITEMS, 2) * held["planeScale"]
    assert abs(points - plane).max() <= max(held["planeScale"]) / 2
    assert (held["likes"] == data.likes().getnnz(0)).all()
    near = held["neighbours"].reshape(len(MODELS), len(METRICS), ITEMS, 10)
    often = np.flatnonzero(data.likes().getnnz(0) >= LEAST)
    assert 10 < len(often) < ITEMS - 5
    for place, model in enumerate(models.values()):
        for lists, metric in zip(near[place], METRICS, strict=True):
            for film in range(ITEMS):
                ids, _ = model.similar_items(
                    film, 10, filter_items=[film], items=often, metric=metric
                )
                zero = not model.item_factors[film].any()
                assert lists[film].tolist() == ([NOBODY] * 10 if zero else ids.tolist())


def test_neighbours_break_ties_by_lowest_id():
    model = ALS(2, dtype=torch.float64).fit(sp.csr_matrix(np.ones((3, 14))))
    model.item_factors = torch.ones(14, 2, dtype=torch.float64)
    for metric in METRICS:
        ids, _ = neighbours(model, np.arange(1, 14), metric)
        assert ids[0].tolist() == list(range(1, 11))
        assert ids[3].tolist() == [1, 2, *range(4, 12)]
        ids, values = neighbours(model, np.arange(4), metric)
        assert ids[2].tolist() == [0, 1, 3, NOBODY]
        assert np.isfinite(values).all()


def test_values_that_do_not_fit_are_rejected(data, models, monkeypatch):
    plane = np.zeros((ITEMS, 2))
    with pytest.raises(ValueError, match="expected likes from 0 to 65535, got 0 to 70000"):
        packed({}, {"likes": np.array([0, 70_000])})
    with pytest.raises(
        ValueError, match="expected hundredths from -32767 to 32767, got 0 to 40000"
    ):
        packed({}, {"hundredths": np.array([0, 40_000])})
    with pytest.raises(ValueError, match="a row for each of 30 movies in the plane"):
        page(data, models, plane[1:])
    monkeypatch.setattr(playground, "LIMIT", 1000)
    with pytest.raises(ValueError, match="expected a page with at most 1,000 bytes"):
        page(data, models, plane)


def test_build_uses_the_saved_models(data, models, tmp_path, monkeypatch):
    monkeypatch.setattr(playground, "load_movielens", lambda name: data)
    folder, file = tmp_path / "models", tmp_path / "playground.html"
    folder.mkdir()
    file.write_text("of an earlier run", encoding="utf-8")
    assert "got no 01_svd.pt, 02_als.pt, 03_bpr.pt, 04_warp.pt" in build("ml-100k", tmp_path)
    assert not file.exists(), "a page of other models must be deleted"
    for stem, model in models.items():
        model.save(folder / f"{stem}.pt")
    assert build("ml-100k", tmp_path) is None
    assert file.read_text(encoding="utf-8") == page(data, models, two_factors(data))
    models["03_bpr"].save(folder / "02_als.pt")
    assert "expected a saved ALS" in build("ml-100k", tmp_path)


def test_two_factors_spread_most_along_the_first_axis(data):
    plane = two_factors(data)
    assert plane.shape == (ITEMS, 2)
    first = np.argsort(-data.ratings.getnnz(0), kind="stable")[0]
    assert (plane[first] > 0).all()
    moments = plane.T @ plane  # all 30 movies are among the 150 most rated
    assert moments[0, 0] > moments[1, 1]
    assert abs(moments[0, 1]) < 1e-9 * moments[0, 0]


@pytest.mark.parametrize("source", [FIRST, "model = 3"])
def test_saving_leaves_the_notebook_unchanged(tmp_path, source):
    file = tmp_path / "01_svd.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), file)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "01_svd.pt").write_text("of an earlier run", encoding="utf-8")
    notebook, error = execute(file, "ml-100k", last=saving("01_svd", folder))
    assert error is None, "a model that cannot be saved must not fail the notebook"
    assert [each.source for each in notebook.cells] == [source]
    saved = {each.name for each in folder.iterdir()}
    assert saved == ({"01_svd.pt"} if source == FIRST else set())
    if saved:
        assert MODELS["01_svd"].load(folder / "01_svd.pt").item_factors.shape == (5, 2)


def test_saving_ignores_notebooks_without_a_model(tmp_path):
    assert saving("05_experiments", tmp_path).source == ""
