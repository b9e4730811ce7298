"""Time to quality on MovieLens-1M, ours against the peers', alternating in one run: a table into build/bench.md.

What a user waits for is quality, so each side is timed from the call of fit to the first iteration whose value is the
peer's final one less .005 of NDCG@10 (SVD: plus .002 of RMSE; ALS: the training loss that implicit reaches), without
the time of the evaluations. Medians of several rounds, 64 factors, float32, two threads, split seed 0.
"""

import statistics
import time

import numpy as np
import pandas as pd
import textbook
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from peers import (
    data,
    explicit_split,
    implicit_als,
    implicit_bpr,
    implicit_split,
    lightfm,
    surprise_svd,
)
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.metrics import ranking_metrics, rmse

ROUNDS = 5


class Reached(Exception):
    """The target is met: training may stop."""


class Watch:
    """A callback that measures the time of training until ``good(model)``, without the time of asking."""

    def __init__(self, good):
        self.good, self.seconds, self.since = good, 0.0, time.perf_counter()

    def __call__(self, model) -> None:
        self.seconds += time.perf_counter() - self.since
        if self.good(model):
            raise Reached
        self.since = time.perf_counter()


def seconds_until(good, fit) -> float:
    """Seconds that ``fit(callback)`` takes until ``good(model)``; inf if it ends before."""
    watch = Watch(good)
    try:
        fit(watch)
    except Reached:
        return watch.seconds
    return float("inf")


def fit_ours(model, train):
    return lambda watch: model.fit(train, show_progress=False, callback=lambda *_: watch(model))


def compare(name: str, ours, theirs, rounds: int = ROUNDS) -> dict[str, str]:
    """A row of the table: the two sides in turn, medians, and the median of the ratios of the rounds."""
    pairs = [(ours(), theirs()) for _ in tqdm(range(rounds), name)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(t / o for o, t in pairs)
    return {"": name, "ours, s": f"{a:.2f}", "theirs, s": f"{b:.2f}", "theirs / ours": f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"}  # fmt: skip


def svd_row() -> dict[str, str]:
    train, test = explicit_split(0)
    held_out = test.tocoo()

    def error(estimate) -> float:
        return rmse(estimate(held_out.row, held_out.col), held_out.data)

    target = error(surprise_svd(train)[1]) + 0.002
    epochs = next(n for n in (20, 25, 30, 35, 40) if error(surprise_svd(train, n)[1]) <= target)
    model = SVD()
    return compare(
        f"SVD, RMSE {target:.4f}, against Surprise ({epochs} epochs)",
        lambda: seconds_until(lambda m: error(m.predict) <= target, fit_ours(model, train)),
        lambda: surprise_svd(train, epochs)[0],
        rounds=3,
    )


def als_row() -> dict[str, str]:
    train, _ = implicit_split(0)
    model = ALS()
    cells = model._cells(train)

    def loss(of) -> float:
        model.user_factors, model.item_factors = of.user_factors, of.item_factors
        return model._loss(*cells)

    target = loss(implicit_als(train))
    ours = ALS()
    return compare(
        f"ALS, loss {target:.0f}, against implicit (15 iterations)",
        lambda: seconds_until(lambda m: m.history[-1]["loss"] <= target, fit_ours(ours, train)),
        lambda: seconds_until(lambda m: loss(m) <= target * (1 + 1e-6), lambda watch: implicit_als(train, watch)),
    )


def ranking_row(name: str, model, theirs) -> dict[str, str]:
    train, test = implicit_split(0)

    def ndcg(m) -> float:
        return ranking_metrics(m, train, test)["ndcg"].mean()

    target = ndcg(theirs(train, None)) - 0.005
    return compare(
        f"{name}, NDCG@10 {target:.3f}",
        lambda: seconds_until(lambda m: ndcg(m) >= target, fit_ours(model, train)),
        lambda: seconds_until(lambda m: ndcg(m) >= target, lambda watch: theirs(train, watch)),
        rounds=3,
    )


def evaluation_row() -> dict[str, str]:
    train, test = implicit_split(0)
    model = ALS().fit(train, show_progress=False)
    peer = AlternatingLeastSquares(64)
    peer.user_factors, peer.item_factors = model.user_factors.numpy(), model.item_factors.numpy()

    def timed(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return compare(
        "evaluation of all users, against implicit",
        lambda: timed(lambda: ranking_metrics(model, train, test)),
        lambda: timed(lambda: ranking_metrics_at_k(peer, train, test, K=10, show_progress=False, num_threads=2)),
    )


def textbook_row(model, train) -> dict[str, str]:
    """A whole iteration of ours against the textbook's loop over a dense matrix, timed on a slice and scaled."""
    name = type(model).__name__
    loop = getattr(textbook, name.lower())
    return compare(
        f"an iteration of {name}, against one sample at a time over a dense matrix",
        lambda: min(h["seconds"] for h in model.fit(train, show_progress=False).history),
        lambda: loop(train.toarray()),
        rounds=1,
    )


def rates() -> str:
    """What is reported without a mark: the peers buy these with data races or compiled loops."""
    train, _ = implicit_split(0)
    bpr = BPR(iterations=5).fit(train, show_progress=False)
    ours = train.nnz / min(h["seconds"] for h in bpr.history)
    start = time.perf_counter()
    implicit_bpr(train, iterations=20)
    theirs = 20 * train.nnz / (time.perf_counter() - start)
    exact = min(h["seconds"] for h in ALS(use_cg=False, iterations=3).fit(train, show_progress=False).history)
    times = []
    implicit_als(train, lambda _: times.append(time.perf_counter()), use_cg=False, iterations=4)
    return (
        f"BPR: {ours / 1e6:.1f} million triples per second, implicit {theirs / 1e6:.1f}. "
        f"Exact ALS: {exact:.2f} s an iteration, implicit {np.diff(times).min():.2f} s."
    )


def main() -> None:
    rows = [
        svd_row(),
        als_row(),
        ranking_row("BPR, against implicit", BPR(), implicit_bpr),
        ranking_row("WARP, against LightFM", WARP(), lambda train, watch: lightfm(train, "warp", 20, callback=watch)),
        evaluation_row(),
        textbook_row(SVD(iterations=3), data.ratings),
        *(textbook_row(Model(iterations=3), implicit_split(0)[0]) for Model in (ALS, BPR, WARP)),
    ]
    table = pd.DataFrame(rows).set_index("").to_string()
    section("Speed: seconds to the peer's quality", f"```\n{table}\n```\n\n{rates()}")


if __name__ == "__main__":
    main()
