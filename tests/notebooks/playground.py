"""Build the playground: one HTML file to explore the models of the executed notebooks.

    python tests/notebooks/playground.py ml-100k      uses the models that `make run` has saved

The page needs no network, no server and no Python: it contains its data, style and script. The
neighbours are computed here with ``mflib``. Recommendations are computed in the page, from the item
factors of ALS, rounded to 16 bits.
"""

import argparse
import base64
import hashlib
import json
import sys
import zlib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
import numpy as np
import torch
from fresh_kernel import write
from pages import SITE, template
from torch import Tensor

from mflib import ALS, BPR, SVD, WARP
from mflib.data import SOURCES, MovieLens, load_movielens
from mflib.model import FactorModel
from mflib.ranking import Metric, best, similarities

ROOT = Path(__file__).resolve().parents[2]
MODELS: dict[str, type[FactorModel]] = {
    "01_svd": SVD,
    "02_als": ALS,
    "03_bpr": BPR,
    "04_warp": WARP,
}
METRICS: tuple[Metric, Metric] = ("cosine", "l2")
NEIGHBOURS = 10
LEAST = 20  # minimum of likes for a neighbour, as in the lessons
NOBODY = 2**16 - 1  # marks a missing neighbour
MOST = 2**15 - 1  # the largest signed number stored in 16 bits
LIMIT = 2_000_000  # bytes of the page
STYLES = ("style", "playground")
SIGNED = ("hundredths", "vectors", "plane")


def saving(stem: str, folder: Path) -> nbformat.NotebookNode:
    """Return a cell that saves ``model`` in the kernel of an executed notebook.

    The file of an earlier run is deleted. An error in the cell does not stop the execution.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{stem}.pt"
    file.unlink(missing_ok=True)
    source = f"model.save({str(file)!r})" if stem in MODELS else ""
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})


def build(dataset: str, target: Path) -> str | None:
    """Write ``target``/playground.html from ``target``/models; return an error message or None."""
    folder, file = target / "models", target / "playground.html"
    file.unlink(missing_ok=True)
    if missing := [name for stem in MODELS if not (folder / (name := f"{stem}.pt")).exists()]:
        expected = "expected each lesson to run to its end and to leave a fitted `model`"
        return f"{expected}; got no {', '.join(missing)} in {folder}"
    try:
        models = {stem: kind.load(folder / f"{stem}.pt") for stem, kind in MODELS.items()}
        with redirect_stdout(StringIO()):  # the notebooks have described the data already
            data = load_movielens(dataset)
        write(page(data, models, two_factors(data)), file)
    except ValueError as error:
        return str(error)
    return None


def two_factors(data: MovieLens) -> np.ndarray:
    """Return the item factors of an SVD with two factors, shape (I, 2).

    They are rotated so that the 150 most rated movies spread most along the first axis, and the
    most rated movie has positive coordinates.
    """
    two = SVD(factors=2, dtype=torch.float64).fit(data.ratings, show_progress=False)
    Q = two.item_factors.numpy()
    most = np.argsort(-data.ratings.getnnz(0), kind="stable")[:150]
    turned = Q @ np.linalg.svd(Q[most], full_matrices=False)[2].T
    return turned * np.where(turned[most[0]] < 0, -1, 1)


def page(data: MovieLens, models: dict[str, FactorModel], plane: np.ndarray) -> str:
    """Return the page for these models.

    Parameters
    ----------
    data : MovieLens
        The data on which the models were fitted.
    models : dict
        A fitted model for each name in ``MODELS``.
    plane : array, shape (I, 2)
        A point for each movie.

    Raises
    ------
    ValueError
        A model or the plane belongs to other movies, or the page would exceed ``LIMIT`` bytes.
    """
    shapes = {name: tuple(model.item_factors.shape) for name, model in models.items()}
    for name, shape in (shapes | {"the plane": plane.shape}).items():
        if shape[0] != len(data.movies):
            raise ValueError(
                f"expected a row for each of {len(data.movies)} movies in {name}, got {shape}"
            )
    script = (SITE / "playground.js").read_text(encoding="utf-8")
    style = "".join((SITE / f"{name}.css").read_text(encoding="utf-8") for name in STYLES)
    html = template("playground").render(
        dataset=SOURCES[data.name].title,
        script=script,
        script_hash=content_hash(script),
        page_style=style,
        style_hash=content_hash(style),
        packed=packed(*contents(data, models, plane)),
    )
    if (size := len(html.encode())) > LIMIT:
        raise ValueError(f"expected a page with at most {LIMIT:,} bytes, got {size:,}")
    return html


def contents(
    data: MovieLens, models: dict[str, FactorModel], plane: np.ndarray
) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the input of the script: a dict of texts and numbers, and arrays of 16 bits.

    It holds the movies; for each model, metric and movie, ten neighbours and their similarities in
    hundredths; the vectors of ALS and the plane, in units of a scale.
    """
    likes = np.asarray(data.likes().getnnz(0))
    often = np.flatnonzero(likes >= LEAST)
    found = [neighbours(model, often, metric) for model in models.values() for metric in METRICS]
    als = models["02_als"]
    vectors, vector_scale = rounded(als.item_factors.numpy())
    points, point_scale = rounded(plane)
    head = {
        "dataset": SOURCES[data.name].title,
        "models": [type(model).__name__ for model in models.values()],
        "metrics": METRICS,
        "titles": data.movies["title"].tolist(),
        "genres": data.movies["genres"].tolist(),
        "users": data.ratings.shape[0],
        "least": LEAST,
        "alpha": als.alpha,
        "lambda": als.regularization,
        "nu": als.frequency_scaling,
        "vectorScale": vector_scale.tolist(),
        "planeScale": point_scale.tolist(),
    }
    arrays = {
        "likes": likes,
        "ratings": data.ratings.getnnz(0),
        "neighbours": np.stack([ids for ids, _ in found]),
        "hundredths": np.stack([(100 * values).round() for _, values in found]),
        "vectors": vectors,
        "plane": points,
    }
    return head, arrays


def neighbours(
    model: FactorModel, candidates: np.ndarray, metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest candidates of every movie, without the movie itself.

    Equivalent to ``similar_items`` with ``items=candidates``. Returns ids and similarities (for
    "l2" distances), shape (I, 10).
    """
    Q, own = model.item_factors, torch.from_numpy(candidates)
    compared = Q.index_select(0, own)
    place = torch.full((len(Q),), len(own)).index_copy_(0, own, torch.arange(len(own)))

    def near(rows: slice) -> Tensor:
        block = similarities(Q[rows], compared, metric)
        among = (place[rows] < len(own)).nonzero()[:, 0]
        block[among, place[rows][among]] = -torch.inf
        return block

    places, values = best(near, len(Q), NEIGHBOURS, torch.ones(len(own), dtype=torch.bool))
    # The vector 0 has no neighbours, and there may be fewer than ten candidates.
    known = (Q != 0).any(1, keepdim=True).numpy() & (places >= 0)
    ids, values = np.where(known, candidates[places], NOBODY), np.where(known, values, 0)
    return ids, abs(values) if metric == "l2" else values


def rounded(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns as integers from -32767 to 32767, and the unit of each column."""
    scale = np.maximum(np.abs(W).max(0), np.finfo(float).tiny) / MOST
    return (W / scale).round(), scale


def packed(head: dict, arrays: dict[str, np.ndarray]) -> str:
    """Return everything as one string: base64 of the zlib-compressed concatenation of

    - the length of the head, 4 bytes, little-endian;
    - the head as JSON, with the names and sizes of the arrays;
    - the arrays, one after the other: the low bytes of all numbers, then the high bytes.

    Raises ValueError if an array does not fit in 16 bits.
    """
    parts = []
    for name, array in arrays.items():
        words = np.asarray(array).astype(np.int64).ravel()
        low, high = (-MOST, MOST) if name in SIGNED else (0, NOBODY)
        if words.min(initial=0) < low or words.max(initial=0) > high:
            got = f"{words.min()} to {words.max()}"
            raise ValueError(f"expected {name} from {low} to {high}, got {got}")
        parts.append((words & 0xFF).astype(np.uint8).tobytes())
        parts.append((words >> 8 & 0xFF).astype(np.uint8).tobytes())
    sizes = {name: int(np.size(array)) for name, array in arrays.items()}
    text = json.dumps(head | {"arrays": sizes}, ensure_ascii=False).encode()
    whole = len(text).to_bytes(4, "little") + text + b"".join(parts)
    return base64.b64encode(zlib.compress(whole, 9)).decode()


def content_hash(text: str) -> str:
    """Return the hash by which a content security policy allows a script or a style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(SOURCES))
    dataset = parser.parse_args().dataset
    sys.exit(build(dataset, ROOT / "build" / dataset))


if __name__ == "__main__":
    main()
