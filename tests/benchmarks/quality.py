"""Quality on MovieLens-1M, ours and the peers' on the same splits: two tables into build/bench.md.

Explicit: 90/10 of the ratings, RMSE. Implicit: 80/20 of the likes, all items ranked, items of the
training part excluded, mean over users. 64 factors, float32, defaults. Means over the split seeds
0, 1, 2 ± their standard deviation. Similar items: factors of all likes (SVD: of all ratings), means
over the models' seeds 0, 1, 2.
"""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from peers import (
    SEEDS,
    Ease,
    Given,
    data,
    explicit_split,
    implicit_als,
    implicit_bpr,
    implicit_split,
    lightfm,
    likes,
    surprise_rmse,
    surprise_svd,
)
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.metrics import catalogue, ranking_metrics, rmse, similarity_quality

QUIET = {"show_progress": False}
MODELS = {  # train, seed of the model -> fitted model
    "popularity": lambda train, seed=0: Popularity().fit(train, **QUIET),
    "EASE (dense, the ceiling)": lambda train, seed=0: Ease(train),
    "implicit ALS": lambda train, seed=0: implicit_als(train, random_state=seed),
    "ALS": lambda train, seed=0: ALS(random_state=seed).fit(train, **QUIET),
    "implicit BPR": lambda train, seed=0: implicit_bpr(train, random_state=seed),
    "LightFM BPR": lambda train, seed=0: lightfm(train, "bpr", epochs=30, random_state=seed),
    "BPR": lambda train, seed=0: BPR(random_state=seed).fit(train, **QUIET),
    "LightFM WARP": lambda train, seed=0: lightfm(train, "warp", epochs=20, random_state=seed),
    "WARP": lambda train, seed=0: WARP(random_state=seed).fit(train, **QUIET),
}
NO_FACTORS = ("popularity", "EASE (dense, the ceiling)")


def random(train: sp.csr_matrix, seed: int) -> Given:
    rng = np.random.default_rng(seed)
    return Given(np.zeros((1, 64)), rng.normal(size=(train.shape[1], 64)))


def columns(train: sp.csr_matrix, seed: int) -> Given:
    return Given(np.zeros((1, train.shape[0]), np.float32), train.T.toarray())


# For similar items, in their own table. What is best for a ranking is not best there: small
# penalties pay, with which several draws diverge.
SIMILAR = {
    "random": random,
    "columns of likes": columns,
    "Surprise SVD": lambda _, seed: surprise_svd(data.ratings, random_state=seed)[1],
    "SVD": lambda _, seed: SVD(random_state=seed).fit(data.ratings, **QUIET),
    **{name: fit for name, fit in MODELS.items() if name not in NO_FACTORS},
    "ALS, implicit's objective": lambda train, seed: ALS(
        alpha=2, regularization=50, frequency_scaling=0, random_state=seed
    ).fit(train, **QUIET),
    "WARP, λ .05": lambda train, seed: WARP(regularization=0.05, random_state=seed).fit(
        train, **QUIET
    ),
    "BPR, for similar items": lambda train, seed: BPR(
        user_regularization=0.03,
        item_regularization=0.0003,
        draws=1,
        iterations=100,
        decay=0.96,
        random_state=seed,
    ).fit(train, **QUIET),
}
PAIRS = [("ALS", "implicit ALS"), ("BPR", "implicit BPR"), ("WARP", "LightFM WARP")]


def spread(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def text(rows: dict[str, dict[str, str]]) -> str:
    return "```\n" + pd.DataFrame(rows).T.fillna("").to_string() + "\n```"


def explicit() -> str:
    errors = {"Surprise SVD": [], "SVD": []}
    for seed in tqdm(SEEDS, "ratings"):
        train, test = explicit_split(seed)
        held_out, model = test.tocoo(), SVD().fit(train, **QUIET)
        errors["Surprise SVD"].append(surprise_rmse(surprise_svd(train)[1], test))
        errors["SVD"].append(rmse(model.predict(held_out.row, held_out.col), held_out.data))
    pairs = zip(errors["SVD"], errors["Surprise SVD"], strict=True)
    errors["SVD - Surprise SVD"] = [ours - theirs for ours, theirs in pairs]
    return text({name: {"RMSE": spread(values, 4)} for name, values in errors.items()})


def implicit() -> str:
    figures = {name: [] for name in MODELS}
    for seed in SEEDS:
        train, test = implicit_split(seed)
        for name, fit in tqdm(MODELS.items(), f"likes, split {seed}"):
            model = fit(train)
            means = ranking_metrics(model, train, test).mean().to_dict()
            figures[name].append(means | catalogue(model, train))
    for ours, theirs in PAIRS:
        pairs = zip(figures[ours], figures[theirs], strict=True)
        figures[f"{ours} - {theirs}"] = [{key: a[key] - b[key] for key in a} for a, b in pairs]
    digits = dict.fromkeys(("precision", "recall", "map", "coverage"), 3)
    digits |= {"ndcg": 4, "auc": 4, "popularity": 0}
    return text(
        {
            name: {key: spread([run[key] for run in runs], digits[key]) for key in runs[0]}
            for name, runs in figures.items()
        }
    )


def similar() -> str:
    items, rows = np.flatnonzero(np.diff(likes.tocsc().indptr) >= 20), {}
    for name, fit in tqdm(SIMILAR.items(), "similar items"):
        # which are too long for l2
        metrics = ("cosine",) if name == "columns of likes" else ("cosine", "l2")
        runs = [similarity_quality(fit(likes, seed), data.movies, items, metrics) for seed in SEEDS]
        rows[name] = {what: spread([run[what] for run in runs], 3) for what in runs[0]}
    return text(rows)


def main() -> None:
    section("SVD against Surprise: RMSE, 90/10 of the ratings", explicit())
    section("Ranking: 80/20 of the likes, N = 10", implicit())
    what = "factors of all likes (SVD: of all ratings), movies with at least 20, N = 10"
    section(f"Similar items: {what}", similar())


if __name__ == "__main__":
    main()
