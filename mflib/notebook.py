"""Tables and widgets of the notebooks, displayed source code, export to TensorBoard's projector."""

import ast
import copy
import errno
import inspect
import math
import os
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pooch
import scipy.sparse as sp
from IPython import get_ipython
from IPython.display import Markdown, display

from mflib.als import ALS
from mflib.data import MovieLens
from mflib.inputs import Ids, UserItems, as_csr, as_ids, positive_int, transposed_hint
from mflib.metrics import bootstrap_interval, similarity_quality
from mflib.model import FactorModel
from mflib.ranking import Metric

LINE = 100  # letters in a line of displayed code
# These movies are in MovieLens-1M and in MovieLens-100K.
EXAMPLE_TITLES = ("Blade Runner", "Aliens")
HEADINGS = {
    "ndcg": "NDCG@10",
    "precision": "precision@10",
    "recall": "recall@10",
    "map": "MAP@10",
    "auc": "AUC",
}
METRICS: tuple[Metric, Metric] = ("cosine", "l2")
PROJECTOR_CONFIG = "projector_config.pbtxt"  # written by TensorBoard next to the factors


def set_up() -> None:
    """Configure a notebook: tables show whole titles, figures have twice the resolution."""
    pd.set_option("display.max_colwidth", None)
    if shell := get_ipython():
        shell.run_line_magic("config", 'InlineBackend.figure_format = "retina"')


def source(*functions: Callable) -> Markdown:
    """Return the source code of functions for display.

    Type annotations are left out, and each docstring is cut to its first line.

    Parameters
    ----------
    *functions : callable
        Functions written in Python.

    Returns
    -------
    Markdown
    """
    return Markdown("```python\n" + "\n\n".join(map(_short_source, functions)) + "```")


def _short_source(function: Callable) -> str:
    """Return the source code of a function with a short signature and docstring."""
    code = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(code).body[0]
    if not isinstance(definition, ast.FunctionDef):
        return code
    lines, first = code.splitlines(keepends=True), definition.body[0]
    if ast.get_docstring(definition, clean=False) and first.lineno != first.end_lineno:
        lines[first.lineno - 1 : first.end_lineno] = [lines[first.lineno - 1].rstrip() + '"""\n']
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    names = ast.unparse(definition.args)
    signature = f"def {definition.name}({names}):\n"
    if len(signature) > LINE:
        signature = f"def {definition.name}(\n    {names}\n):\n"
    lines[definition.lineno - 1 : first.lineno - 1] = [signature]
    return "".join(lines)


# --- tables -------------------------------------------------------------------------------------


def try_check(
    check: Callable,
    kernel: Callable,
    right: Mapping[str, Callable],
    wrong: Mapping[str, Callable],
) -> None:
    """Print which versions of a kernel a check accepts.

    Parameters
    ----------
    check : callable
        It takes a version and raises AssertionError if that is wrong.
    kernel : callable
        Its arguments are those of all versions.
    right, wrong : mapping of str to callable
        Versions by description. They are called with arguments by name.

    Raises
    ------
    AssertionError
        The check refuses a right version or accepts a wrong one.
    """
    bind = inspect.signature(kernel).bind

    def accepted(version: Callable, is_right: bool) -> bool:
        try:
            check(lambda *values, **named: version(**bind(*values, **named).arguments))
        except AssertionError:
            if is_right:
                raise
            return False
        return True

    for is_right, versions in ((True, right), (False, wrong)):
        for name, version in versions.items():
            found = accepted(version, is_right)
            print(f"{'accepted' if found else 'refused'}: {name}")
            assert found == is_right, f"expected the check to refuse this kernel: {name}"


def judged(metrics: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Compare models by their mean ranking metrics, with the 95 % interval of NDCG@10.

    Parameters
    ----------
    metrics : dict
        The result of ``ranking_metrics`` with N = 10 for each model, by name.

    Returns
    -------
    DataFrame
        A row for each model. The interval is a bootstrap interval over the users.

    Raises
    ------
    ValueError
        There are no models.
    """
    if not metrics:
        raise ValueError("expected the metrics of at least one model, got none")
    means = pd.DataFrame({name: per_user.mean() for name, per_user in metrics.items()}).T
    table = means[list(HEADINGS)].rename(columns=HEADINGS).round(3)
    intervals = [bootstrap_interval(per_user["ndcg"]) for per_user in metrics.values()]
    table.insert(1, "95 % interval", [f"{low:.3f} to {high:.3f}" for low, high in intervals])
    return table


def similar_movies(
    model: FactorModel, data: MovieLens, title: str, N: int = 10, items: Ids | None = None
) -> pd.DataFrame:
    """List the N movies most similar to a movie, by cosine and by Euclidean distance.

    Parameters
    ----------
    model : FactorModel
        A model fitted on ``data``.
    data : MovieLens
    title : str
        With or without the year.
    N : int
    items : ids, optional
        List only these movies.

    Returns
    -------
    DataFrame
        A row for each rank, counted from 1. For each of the two measures, a column of titles and
        one of values.

    Raises
    ------
    KeyError
        There is not exactly one movie with this title.
    ValueError
        N is not a whole number >= 1, or the model was fitted on another data set.
    """
    _check_model(model, data)
    itemid = data.itemid(title)
    columns: dict[str, object] = {}
    for metric in METRICS:
        ids, values = model.similar_items(
            itemid, N, filter_items=[itemid], items=items, metric=metric
        )
        columns[f"by {metric}"] = data.movies["title"].loc[ids].to_list()
        # 0 - values, because -values would show a distance of zero as -0.0.
        columns[metric] = (values if metric == "cosine" else 0 - values).round(3)
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(ids) + 1, name=title))


def similarity(
    models: dict[str, FactorModel], data: MovieLens, likes: UserItems, min_likes: int = 20
) -> pd.DataFrame:
    """Compare models by ``similarity_quality``, measured on the movies with enough likes.

    Parameters
    ----------
    models : dict
        Models fitted on ``data``, by name.
    data : MovieLens
    likes : scipy sparse matrix, shape (U, I)
        The interactions to count.
    min_likes : int
        Leave out movies with fewer interactions.

    Returns
    -------
    DataFrame
        A row for each model.

    Raises
    ------
    ValueError
        Fewer than two movies remain, or a model or ``likes`` belongs to another data set.
    """
    items = _items_with(min_likes, likes, data)
    rows = {}
    for name, model in models.items():
        _check_model(model, data)
        rows[name] = similarity_quality(model, data.movies, items)
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def liked_movies(data: MovieLens, likes: UserItems, userid: int, N: int = 10) -> pd.DataFrame:
    """List the user's N best-rated movies among those with an entry in ``likes``.

    Parameters
    ----------
    data : MovieLens
    likes : scipy sparse matrix, shape (U, I)
        The user's entries are the movies to list. The stars come from ``data``.
    userid : int
    N : int

    Returns
    -------
    DataFrame
        title, genres and stars, best first, indexed by rank from 1; at most N rows.

    Raises
    ------
    ValueError
        N is not a whole number >= 1, or ``likes`` belongs to another data set.
    IndexError
        The user does not exist.
    """
    N = positive_int("N", N)
    ids = _row_of_user(likes, data, userid).indices
    stars = data.ratings[userid, ids].toarray()[0]
    stars = stars.astype(int) if (stars % 1 == 0).all() else stars  # keep half stars
    table = data.movies.loc[ids, ["title", "genres"]].assign(stars=stars)
    return _ranked(table.sort_values("stars", ascending=False, kind="stable").head(N))


def recommended_movies(
    model: FactorModel, data: MovieLens, known: UserItems, userid: int, N: int = 10
) -> pd.DataFrame:
    """List the N movies that a model recommends to a user.

    Parameters
    ----------
    model : FactorModel
        A model fitted on ``data``.
    data : MovieLens
    known : scipy sparse matrix, shape (U, I)
        The interactions of all users; the user's own are not recommended.
    userid : int
    N : int

    Returns
    -------
    DataFrame
        title, genres and score, best first, indexed by rank from 1; at most N rows.

    Raises
    ------
    ValueError
        N is not a whole number >= 1, or the model or ``known`` belongs to another data set.
    IndexError
        The user does not exist.
    """
    _check_model(model, data)
    ids, scores = model.recommend(userid, _row_of_user(known, data, userid), N)
    return _ranked(data.movies.loc[ids, ["title", "genres"]].assign(score=scores.round(3)))


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with ranks from 1 as its index."""
    return table.set_index(pd.RangeIndex(1, len(table) + 1))


def _check_model(model: FactorModel, data: MovieLens) -> None:
    """Raise an error unless the model is fitted and has as many items as there are movies."""
    n_items, n_movies = len(model._factors("item")), len(data.movies)
    if n_items != n_movies:
        expected = f"a model with the {n_movies:,} movies of {data.name}"
        got = f"a model with {n_items:,}"
        raise ValueError(f"expected {expected}, got {got}; fit it on this data set")


def _checked(user_items: UserItems, data: MovieLens) -> sp.csr_matrix:
    """Return validated interactions; raise ValueError unless they have the shape of ``data``."""
    matrix, expected = as_csr(user_items), data.ratings.shape
    if matrix.shape != expected:
        got = f"{matrix.shape}{transposed_hint(matrix.shape, expected, expected)}"
        raise ValueError(f"expected interactions of shape {expected} ({data.name}), got {got}")
    return matrix


def _row_of_user(user_items: UserItems, data: MovieLens, userid: int) -> sp.csr_matrix:
    """Return the interactions of one user, shape (1, I)."""
    matrix = _checked(user_items, data)
    if np.ndim(userid):
        raise TypeError(f"expected one user id, got {userid!r}")
    return matrix[as_ids(userid, "user", matrix.shape[0])]


def _items_with(min_likes: int, likes: UserItems, data: MovieLens) -> np.ndarray:
    """Return the ids of the items with at least ``min_likes`` entries."""
    return np.flatnonzero(_checked(likes, data).getnnz(0) >= min_likes)


# --- TensorBoard --------------------------------------------------------------------------------


def export_projector(model: FactorModel, data: MovieLens, folder: str | os.PathLike) -> None:
    """Write the item factors with titles and genres for TensorBoard's projector.

    The files are written to a folder named after the model's class inside ``folder``, completely or
    not at all. An earlier export is replaced. Show them with ``tensorboard --logdir folder``.

    If ``folder`` is not writable, as in a shared data folder, the user's cache folder is used
    instead and its path is printed. Like progress bars, this line is not printed if the variable
    MFLIB_PROGRESS is 0, so that stored outputs do not depend on the machine.

    Parameters
    ----------
    model : FactorModel
        A model fitted on ``data``.
    data : MovieLens
    folder : path
        Created if it does not exist.

    Raises
    ------
    FileExistsError
        Something other than an earlier export has the name of the class.
    OSError
        The files cannot be written.
    ValueError
        The model was fitted on another data set.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import and needed only here

    _check_model(model, data)
    target = _writable(Path(folder)) / type(model).__name__
    if target.exists() and not (target / PROJECTOR_CONFIG).is_file():
        hint = "move it away or choose another folder"
        raise FileExistsError(f"expected nothing or an earlier export in {target}; {hint}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new, columns = Path(temporary) / "new", ["title", "genres"]
        with SummaryWriter(new) as writer:
            labels = data.movies[columns].to_numpy().tolist()
            writer.add_embedding(model.item_factors, labels, metadata_header=columns, tag="items")
        _replace(target, new, Path(temporary) / "old")


def _writable(folder: Path) -> Path:
    """Return the folder, created if it does not exist, or another one if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder):
            return folder
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        reason = error.strerror
    other = Path(pooch.os_cache("mflib")) / folder.name
    other.mkdir(parents=True, exist_ok=True)
    if os.environ.get("MFLIB_PROGRESS") != "0":
        print(f"{folder} cannot be written to ({reason}); the files are in {other}")
    return other


def _replace(target: Path, new: Path, old: Path) -> None:
    """Rename the folder ``new`` to ``target``, after renaming an existing ``target`` to ``old``.

    If that fails, ``target`` is restored.
    """
    replacing = target.exists()
    if replacing:
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if replacing:
            old.rename(target)
        raise


# --- widgets ------------------------------------------------------------------------------------


def explorer(
    model: FactorModel, data: MovieLens, likes: UserItems, min_likes: int = 20
) -> widgets.interactive:
    """Return a widget to look up similar movies, a user's history and recommendations.

    Parameters
    ----------
    model : FactorModel
        A model fitted on ``data``.
    data : MovieLens
        Users are entered by their ids in the files of the data set.
    likes : scipy sparse matrix, shape (U, I)
        The interactions the model was fitted on.
    min_likes : int
        List only movies with at least this many interactions as similar.

    Returns
    -------
    interactive widget

    Raises
    ------
    ValueError
        The model or ``likes`` belongs to another data set.
    """
    _check_model(model, data)
    items = _items_with(min_likes, likes, data)

    def show(movie: str, user: int) -> None:
        if not movie.strip():
            print("Type the title of a movie.")
            return
        try:
            userid = data.userid(user)
            similar = similar_movies(model, data, movie.strip(), items=items)
        except KeyError as error:
            print(error.args[0])
            return
        history = liked_movies(data, likes, userid)
        display(similar, history, recommended_movies(model, data, likes, userid))

    titles = data.movies["title"].tolist()
    movie = widgets.Combobox(value="Toy Story", options=titles, description="movie")
    user = widgets.IntText(value=data.user_ids[data.example_user()], description="user")
    return widgets.interactive(show, movie=movie, user=user)


def be_the_user(model: ALS, data: MovieLens) -> widgets.interactive:
    """Return a widget that recommends movies to a new user, who types a few titles.

    Each recommendation is shown with the two likes that contribute most to it. The sliders set
    alpha and lambda of the system that is solved for the new user. The model is not trained again:
    the movies keep their factors.

    Parameters
    ----------
    model : ALS
        A model fitted on ``data``.
    data : MovieLens

    Returns
    -------
    interactive widget

    Raises
    ------
    TypeError
        The model is not an ALS model.
    ValueError
        The model was fitted on another data set.
    """
    if not isinstance(model, ALS):
        got = f"{model!r}, which cannot compute factors of new users"
        raise TypeError(f"expected an ALS model, got {got}")
    _check_model(model, data)

    def show(alpha: float, regularization: float, **typed: str) -> None:
        try:
            liked = sorted(
                {data.itemid(title.strip()) for title in typed.values() if title.strip()}
            )
        except KeyError as error:
            print(error.args[0])
            return
        if not liked:
            print("Type the title of a movie that you like.")
        elif not model.item_factors[liked].any():
            print("The model has not learned anything about this movie. Type another title.")
        else:
            changed = copy.copy(model)  # shares the factors
            changed.alpha, changed.regularization = alpha, regularization
            display(_explained(changed, data, liked))

    titles = data.movies["title"].tolist()
    boxes = {
        f"movie_{n}": widgets.Combobox(value=title, options=titles, description=f"movie {n}")
        for n, title in enumerate([*EXAMPLE_TITLES, "", ""], start=1)
    }
    return widgets.interactive(show, **boxes, **_sliders(model))


def _explained(model: ALS, data: MovieLens, liked: list[int]) -> pd.DataFrame:
    """Return recommendations for a new user, with the two likes that contribute most to each."""
    shape, titles = (1, len(data.movies)), data.movies["title"]
    row = sp.csr_matrix((np.ones(len(liked)), (np.zeros_like(liked), liked)), shape)
    ids, scores = model.recommend(0, row, recalculate_user=True)
    reasons = []
    for itemid in ids:
        _, contributions = model.explain(0, row, itemid, N=2)
        reasons.append(", ".join(f"{titles[j]} ({share:.2f})" for j, share in contributions))
    table = pd.DataFrame({"title": titles.loc[ids], "score": scores.round(2)})
    return _ranked(table.assign(**{"because you like (share)": reasons}))


def _sliders(model: ALS) -> dict[str, widgets.FloatSlider]:
    """Return sliders for alpha and lambda, with ranges that include the model's own values.

    A lambda of 0 has no logarithm, so the slider starts at 0.1 instead.
    """
    exponent = math.log10(model.regularization) if model.regularization else -1.0
    return {
        "alpha": widgets.FloatSlider(
            model.alpha, min=0, max=max(40, model.alpha), step=1, description="α"
        ),
        "regularization": widgets.FloatLogSlider(
            model.regularization or 0.1,
            min=min(-1, math.floor(exponent)),
            max=max(3, math.ceil(exponent)),
            description="λ",
        ),
    }
