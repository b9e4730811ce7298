"""Time to quality on MovieLens-1M, ours against the peers', alternating in one run.

A table into build/bench.md. What a user waits for is quality: the peer's final value less .005 of
NDCG@10 (SVD: plus .002 of RMSE; ALS: the training loss that implicit's default solver reaches in 15
iterations). Three times are taken, from the call of fit and without the evaluations: ours to that
value, in the quick setting named in the table; the peer's whole fit, which is what its user waits
for, who does not see the curve; and the peer's own to that value. Medians of several rounds, 64
factors, float32, two threads; the split seeds 0, 1, 2 in turn, each with the value that the peer
reaches there.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp
import textbook
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from peers import (
    SEEDS,
    data,
    explicit_split,
    implicit_als,
    implicit_bpr,
    implicit_split,
    lightfm,
    surprise_rmse,
    surprise_svd,
)
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.metrics import ranking_metrics, rmse
from mflib.model import FactorModel
from mflib.sparse import interactions

QUICK = {
    "SVD": SVD(learning_rate=0.08, decay=0.65, regularization=0.04, init_std=0.05, iterations=8),
    # implicit's objective
    "ALS": ALS(
        alpha=2.0, regularization=50.0, frequency_scaling=0.0, cg_steps=4, extrapolation=0.7
    ),
    "BPR": BPR(
        learning_rate=0.15,
        user_regularization=0.03,
        item_regularization=0.003,
        draws=3,
        decay=0.9,
        iterations=10,
    ),
    "WARP": WARP(regularization=0.4, decay=0.7, max_draws=50, init_std=0.1, iterations=7),
}


class Watch:
    """A callback that counts the seconds of training until ``good(model)``.

    The time of asking is left out.
    """

    def __init__(self, good: Callable[[FactorModel], bool]):
        self.good, self.seconds, self.reached = good, 0.0, float("inf")
        self.since = time.perf_counter()

    def __call__(self, model: FactorModel) -> None:
        self.seconds += time.perf_counter() - self.since
        if self.reached == float("inf") and self.good(model):
            self.reached = self.seconds
        self.since = time.perf_counter()


def ours(model: FactorModel, train, good) -> float:
    watch = Watch(good)
    model.fit(train, show_progress=False, callback=lambda *_: watch(model))
    return watch.reached


def theirs(fit, train, good) -> tuple[float, float]:
    """(seconds of the whole fit, seconds to the value)."""
    watch = Watch(good)
    fit(train, watch)
    return watch.seconds, watch.reached


def row(name: str, rounds: int, run_ours, run_theirs) -> dict[str, str]:
    """The two sides in turn, told which round it is.

    Medians, and the median of the rounds' ratios with its range.
    """
    times = [(run_ours(r), *run_theirs(r)) for r in tqdm(range(rounds), name)]
    result = {"": name, "ours, s": f"{statistics.median(t[0] for t in times):.2f}"}
    for place, what in enumerate(("whole fit", "to the value")[: len(times[0]) - 1], 1):
        ratios = sorted(t[place] / t[0] for t in times)
        result[f"theirs, {what}, s"] = f"{statistics.median(t[place] for t in times):.2f}"
        middle, low, high = statistics.median(ratios), ratios[0], ratios[-1]
        result[f"ratio, {what}"] = f"{middle:.2f} ({low:.2f}-{high:.2f})"
    return result


def svd_row() -> dict[str, str]:
    splits, targets, epochs = [explicit_split(seed) for seed in SEEDS], [], []
    for train, test in splits:
        targets.append(surprise_rmse(surprise_svd(train)[1], test) + 0.002)
        for n in (20, 25, 30, 35, 40):  # it has no callback
            if surprise_rmse(surprise_svd(train, n)[1], test) <= targets[-1]:
                break
        epochs.append(n)

    def as_good(r: int) -> Callable[[FactorModel], bool]:
        held_out = splits[r][1].tocoo()

        def good(model: FactorModel) -> bool:
            return rmse(model.predict(held_out.row, held_out.col), held_out.data) <= targets[r]

        return good

    return row(
        f"SVD, RMSE {np.mean(targets):.4f}, against Surprise (40 epochs; {epochs} to the value)",
        len(SEEDS),
        lambda r: ours(QUICK["SVD"], splits[r][0], as_good(r)),
        lambda r: (surprise_svd(splits[r][0])[0], surprise_svd(splits[r][0], epochs[r])[0]),
    )


def objective(
    model: FactorModel, train: sp.csr_matrix, alpha: float, regularization: float
) -> float:
    """The loss of ALS on ``train``, a matrix of ones, where the penalty does not grow with a row.

    Over all cells, the sum of (x_u·y_i)^2 is the trace of X'X Y'Y.
    """
    X, Y = model.user_factors.double(), model.item_factors.double()
    users, items = interactions(train)
    xy = (X.index_select(0, users) * Y.index_select(0, items)).sum(1)
    cells = (1 + alpha) * (1 - xy) ** 2 - xy**2
    squares = (X**2).sum() + (Y**2).sum()
    return float(((X.T @ X) * (Y.T @ Y)).sum() + cells.sum() + regularization * squares)


def als_row() -> dict[str, str]:
    splits, judge = [implicit_split(seed)[0] for seed in SEEDS], QUICK["ALS"]

    def loss(r: int, model: FactorModel) -> float:
        return objective(model, splits[r], judge.alpha, judge.regularization)

    targets = [loss(r, implicit_als(train)) for r, train in enumerate(splits)]

    def run_ours(r: int) -> float:
        r %= len(SEEDS)
        return ours(judge, splits[r], lambda model: model.history[-1]["loss"] <= targets[r])

    def run_theirs(r: int) -> tuple[float, float]:
        r %= len(SEEDS)
        return theirs(
            implicit_als, splits[r], lambda model: loss(r, model) <= targets[r] * (1 + 1e-6)
        )

    title = f"ALS, training loss {np.mean(targets):.0f}, against implicit (15 iterations)"
    return row(title, 2 * len(SEEDS), run_ours, run_theirs)


def ranking_row(name: str, fit: Callable) -> dict[str, str]:
    splits, quick = [implicit_split(seed) for seed in SEEDS], QUICK[name[:4].strip(",")]

    def ndcg(r: int, model: FactorModel) -> float:
        return ranking_metrics(model, *splits[r])["ndcg"].mean()

    targets = [ndcg(r, fit(train, None)) - 0.005 for r, (train, _) in enumerate(splits)]
    return row(
        f"{name}, NDCG@10 {np.mean(targets):.3f}",
        len(SEEDS),
        lambda r: ours(quick, splits[r][0], lambda model: ndcg(r, model) >= targets[r]),
        lambda r: theirs(fit, splits[r][0], lambda model: ndcg(r, model) >= targets[r]),
    )


def timed(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def evaluation_row() -> dict[str, str]:
    train, test = implicit_split(0)
    model, peer = ALS().fit(train, show_progress=False), AlternatingLeastSquares(64)
    peer.user_factors, peer.item_factors = model.user_factors.numpy(), model.item_factors.numpy()
    options = {"K": 10, "show_progress": False, "num_threads": 2}
    return row(
        "evaluation of all users, against implicit's ranking_metrics_at_k",
        9,
        lambda _: timed(lambda: ranking_metrics(model, train, test)),
        lambda _: (timed(lambda: ranking_metrics_at_k(peer, train, test, **options)),),
    )


def quickest_iteration(model: FactorModel, train) -> float:
    """Its seconds."""
    model.fit(train, show_progress=False)
    return min(iteration["seconds"] for iteration in model.history)


def textbook_row(model: FactorModel, train) -> dict[str, str]:
    name, dense = type(model).__name__, torch.from_numpy(train.toarray())
    return row(
        f"an iteration of {name}, against the textbook's loop over a dense matrix",
        3,
        lambda _: quickest_iteration(model, train),
        lambda _: (getattr(textbook, name.lower())(dense),),
    )


def rates() -> str:
    """What is reported without a mark: the peers buy it with data races or compiled loops."""
    train, _ = implicit_split(0)
    triples = train.nnz / quickest_iteration(BPR(iterations=5), train) / 1e6
    theirs_triples = 20 * train.nnz / timed(lambda: implicit_bpr(train, iterations=20)) / 1e6
    exact = quickest_iteration(ALS(use_cg=False, iterations=3), train)
    times: list[float] = []
    implicit_als(train, lambda _: times.append(time.perf_counter()), use_cg=False, iterations=4)
    return (
        f"BPR: {triples:.1f} million triples per second, implicit {theirs_triples:.1f}. "
        f"Exact ALS: {exact:.2f} s an iteration, implicit {np.diff(times).min():.2f} s."
    )


def main() -> None:
    def lightfm_warp(train, callback):
        return lightfm(train, "warp", 20, callback)

    rows = [
        svd_row(),
        als_row(),
        ranking_row("BPR, against implicit (100 iterations)", implicit_bpr),
        ranking_row("WARP, against LightFM (20 epochs)", lightfm_warp),
        evaluation_row(),
        textbook_row(SVD(iterations=3), data.ratings),
        *(textbook_row(Model(iterations=3), implicit_split(0)[0]) for Model in (ALS, BPR, WARP)),
    ]
    table = pd.DataFrame(rows).set_index("").fillna("").to_string()
    settings = "\n".join(f"    {model!r}" for model in QUICK.values())
    whole = f"```\n{table}\n```\n\n{rates()}\n\nOur settings:\n\n{settings}"
    section("Speed: seconds to the peer's quality", whole)


if __name__ == "__main__":
    main()
