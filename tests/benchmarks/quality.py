"""Quality on MovieLens-1M, ours and the peers' on the same splits: tables into build/bench.md.

Ratings: 90/10, RMSE. Likes: 80/20, all items ranked, items of the training part excluded, mean over
users. 64 factors, float32, one thread, the settings that trials.py found; "defaults" are our
classes as they are. Means over the split seeds 0, 1, 2 ± their standard deviation. Similar items:
factors of all likes (SVD: of all ratings), means over the models' seeds 0, 1, 2.

    python tests/benchmarks/quality.py [NAME ...]
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from peers import CONTENDERS, SEEDS, Ease, Given, data, explicit_split, implicit_split, likes
from report import section, store, stored
from torch import Tensor
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.metrics import catalogue, ranking_metrics, rmse, similarity_quality
from mflib.model import FactorModel

torch.set_num_threads(1)  # nothing is timed here, and a busy machine punishes a second thread

QUIET = {"show_progress": False}
OURS = {"ALS": ALS, "BPR": BPR, "WARP": WARP}
BLENDS = {
    "ALS + WARP": ("ALS, defaults", "WARP, defaults"),
    "EASE + ALS": ("EASE", "ALS, defaults"),
}
OF_RATINGS = ["SVD", "SVD, defaults", "Surprise SVD"]
OF_LIKES = [name for name, contender in CONTENDERS.items() if not contender.of_ratings]
OF_LIKES += ["EASE", *(f"{name}, defaults" for name in OURS), *BLENDS, "popularity"]
DIGITS = dict.fromkeys(("precision", "recall", "map", "coverage"), 3)
DIGITS |= {"ndcg": 4, "auc": 4, "popularity": 0, "rmse": 4}


class Blend(FactorModel):
    """The sum of the scores of two models, with standard deviation 1 over the items of each user.

    For two models of factors the order is that of a dot product again: their factors concatenated,
    a user's divided by the standard deviations.
    """

    def __init__(self, one: FactorModel, other: FactorModel):
        super().__init__()
        self.parts = one, other
        self.user_factors, self.item_factors = one.user_factors, one.item_factors

    def scores(self, users: Tensor) -> Tensor:
        scores = [model.scores(users) for model in self.parts]
        # a user without likes has equal scores
        return sum(each / each.std(1, keepdim=True).clamp(min=1e-9) for each in scores)


DONE: dict[int, dict[str, FactorModel]] = {split: {} for split in SEEDS}


def with_found_settings(name: str, train: sp.csr_matrix, seed: int = 0) -> FactorModel:
    contender, settings = CONTENDERS[name], stored()["search"][name]["settings"]
    model = contender.fit(contender.prepare(train), seed=seed, **settings)
    assert model.user_factors.shape[1] in (64, 65)  # implicit's BPR has a column for its biases
    return model


def fitted(name: str, train: sp.csr_matrix, done: dict[str, FactorModel]) -> FactorModel:
    """Return the model of a row of the ranking table; ``done`` keeps the models of ``train``."""
    if name not in done:
        kind, *_ = name.partition(", defaults")
        if name == "popularity":
            model = Popularity().fit(train, **QUIET)
        elif name == "EASE":
            model = Ease(train)  # not searched
        elif " + " in name:
            model = Blend(*(fitted(part, train, done) for part in BLENDS[name]))
        elif kind != name:
            model = OURS[kind]().fit(train, **QUIET)
        else:
            model = with_found_settings(name, train)
        done[name] = model
    return done[name]


def spread(values: list[float], digits: int = 4) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def text(rows: dict[str, dict[str, str]]) -> str:
    return "```\n" + pd.DataFrame(rows).T.fillna("").to_string() + "\n```"


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """Return means and spreads over the splits."""
    return text(
        {
            name: {what: spread(runs, DIGITS[what]) for what, runs in metrics.items()}
            for name, metrics in figures.items()
        }
    )


def rating_errors(name: str) -> dict[str, list[float]]:
    errors = []
    for train, test in map(explicit_split, SEEDS):
        default = name == "SVD, defaults"
        model = SVD().fit(train, **QUIET) if default else with_found_settings(name, train)
        held_out = test.tocoo()
        errors.append(rmse(model.predict(held_out.row, held_out.col), held_out.data))
    return {"rmse": errors}


def ranking_quality(name: str) -> dict[str, list[float]]:
    runs = []
    for split in tqdm(SEEDS, name):
        train, test = implicit_split(split)
        model = fitted(name, train, DONE[split])
        runs.append(ranking_metrics(model, train, test).mean().to_dict() | catalogue(model, train))
    return {what: [run[what] for run in runs] for what in runs[0]}


def random(seed: int) -> Given:
    rng = np.random.default_rng(seed)
    return Given(np.zeros((1, 64)), rng.normal(size=(likes.shape[1], 64)))


def columns(seed: int) -> Given:
    return Given(np.zeros((1, likes.shape[0]), np.float32), likes.T.toarray())


# Settings for similar items. What is best for a ranking is not best there: small penalties pay,
# with which several draws diverge.
CLOSE = {
    "ALS, implicit's objective": partial(ALS, alpha=2, regularization=50, frequency_scaling=0),
    "WARP, λ .05": partial(WARP, regularization=0.05),
    "BPR, for similar items": partial(
        BPR,
        user_regularization=0.03,
        item_regularization=0.0003,
        draws=1,
        iterations=100,
        decay=0.96,
    ),
}


def factors_of_all(name: str, seed: int) -> FactorModel:
    if name in CLOSE or name in OURS:
        return (CLOSE | OURS)[name](random_state=seed).fit(likes, **QUIET)
    if name == "SVD":
        return SVD(random_state=seed).fit(data.ratings, **QUIET)
    matrix = data.ratings if CONTENDERS[name].of_ratings else likes
    return with_found_settings(name, matrix, seed)


def similar() -> str:
    items, rows = np.flatnonzero(likes.getnnz(0) >= 20), {}
    known = {"random": random, "columns of likes": columns}
    iterative = [name for name, contender in CONTENDERS.items() if contender.iterations > 1]
    names = [*known, *(name for name in iterative if name != "BPR, one draw"), *CLOSE]
    for name in tqdm(names, "similar items"):
        # which are too long for l2
        metrics = ("cosine",) if name == "columns of likes" else ("cosine", "l2")
        models = (known[name](s) if name in known else factors_of_all(name, s) for s in SEEDS)
        runs = [similarity_quality(model, data.movies, items, metrics) for model in models]
        rows[name] = {what: spread([run[what] for run in runs], 3) for what in runs[0]}
    return text(rows)


def main() -> None:
    chosen = set(sys.argv[1:])
    tables = {
        "RMSE, 90/10 of the ratings": (OF_RATINGS, rating_errors),
        "Ranking: 80/20 of the likes, N = 10": (OF_LIKES, ranking_quality),
    }
    for title, (names, measure) in tables.items():
        for name in names:
            if not chosen or name in chosen:
                store("quality", {name: measure(name)})
        known = stored()["quality"]
        figures = {name: known[name] for name in names if name in known}
        section(title, table(figures))
    if not chosen:
        what = "factors of all likes (SVD: of all ratings), movies with at least 20, N = 10"
        section(f"Similar items: {what}", similar())


if __name__ == "__main__":
    main()
