"""Quality on MovieLens-1M, ours and the peers' on the same splits: two tables into build/bench.md.

Explicit: 90/10 of the ratings, RMSE. Implicit: 80/20 of the likes, all items ranked, items of the training part
excluded, mean over users. 64 factors, float32, defaults. Means over the split seeds 0, 1, 2 ± their standard deviation.
"""

import numpy as np
import pandas as pd
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
    surprise_svd,
)
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.metrics import catalogue, ranking_metrics, rmse, similarity_quality

MODELS = {
    "popularity": lambda train: Popularity().fit(train, show_progress=False),
    "EASE (dense, the ceiling)": Ease,
    "implicit ALS": implicit_als,
    "ALS": lambda train: ALS().fit(train, show_progress=False),
    "implicit BPR": implicit_bpr,
    "LightFM BPR": lambda train: lightfm(train, "bpr", epochs=30, learning_rate=0.05),
    "BPR": lambda train: BPR().fit(train, show_progress=False),
    "LightFM WARP": lambda train: lightfm(train, "warp", epochs=20, learning_rate=0.05),
    "WARP": lambda train: WARP().fit(train, show_progress=False),
}
# For similar items, in their own table. What is best for a ranking is not best there: small penalties pay.
SIMILAR = {name: fit for name, fit in MODELS.items() if name not in ("popularity", "EASE (dense, the ceiling)")} | {
    "random": lambda _: Given(np.zeros((1, 64)), np.random.default_rng(0).normal(size=(likes.shape[1], 64))),
    "columns of likes": lambda train: Given(np.zeros((1, train.shape[0]), np.float32), train.T.toarray()),
    "ALS, implicit's objective": lambda train: ALS(alpha=2, regularization=50, frequency_scaling=0).fit(train, False),
    "WARP, λ .05": lambda train: WARP(regularization=0.05).fit(train, show_progress=False),
    "BPR, for similar items": lambda train: BPR(
        user_regularization=0.03, item_regularization=0.0003, iterations=100, decay=0.96
    ).fit(train, show_progress=False),
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
        held_out = test.tocoo()
        _, estimate = surprise_svd(train)
        model = SVD().fit(train, show_progress=False)
        errors["Surprise SVD"].append(rmse(estimate(held_out.row, held_out.col), held_out.data))
        errors["SVD"].append(rmse(model.predict(held_out.row, held_out.col), held_out.data))
    errors["SVD - Surprise SVD"] = [a - b for a, b in zip(errors["SVD"], errors["Surprise SVD"], strict=True)]
    return text({name: {"RMSE": spread(values, 4)} for name, values in errors.items()})


def implicit() -> str:
    figures = {name: [] for name in MODELS}
    for seed in SEEDS:
        train, test = implicit_split(seed)
        for name, fit in tqdm(MODELS.items(), f"likes, split {seed}"):
            model = fit(train)
            figures[name].append(ranking_metrics(model, train, test).mean().to_dict() | catalogue(model, train))
    for ours, theirs in PAIRS:
        figures[f"{ours} - {theirs}"] = [
            {key: a[key] - b[key] for key in a} for a, b in zip(figures[ours], figures[theirs], strict=True)
        ]
    digits = {"precision": 3, "recall": 3, "ndcg": 4, "map": 3, "auc": 4, "coverage": 3, "popularity": 0}
    return text(
        {
            name: {key: spread([run[key] for run in runs], digits[key]) for key in runs[0]}
            for name, runs in figures.items()
        }
    )


def similar() -> str:
    items, rows = np.flatnonzero(np.diff(likes.tocsc().indptr) >= 20), {}
    for name, fit in tqdm(SIMILAR.items(), "similar items"):
        model = fit(likes)
        metrics = ("cosine", "l2") if model.item_factors.shape[1] <= 65 else ("cosine",)  # others are too long for l2
        found = similarity_quality(model, data.movies, items, metrics)
        rows[name] = {what: f"{value:.3f}" for what, value in found.items()}
    return text(rows)


def main() -> None:
    section("SVD against Surprise: RMSE, 90/10 of the ratings", explicit())
    section("Ranking: 80/20 of the likes, N = 10", implicit())
    section("Similar items: factors of all likes, movies with at least 20, N = 10", similar())


if __name__ == "__main__":
    main()
