"""Growth: a generated set of MovieLens-32M's shape compared with MovieLens-1M.

One epoch of each model and the evaluation of 2,000 users; cost per interaction, as a multiple of
that on MovieLens-1M, in a table into build/bench.md. Each row runs in a separate process, so that
its peak of resident memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.data import load_movielens
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split

USERS, ITEMS, INTERACTIONS, EVALUATED = 200_948, 84_432, 32_000_000, 2_000
MODELS = {"SVD": SVD, "ALS": ALS, "BPR": BPR, "WARP": WARP}


def generated(seed: int = 0) -> sp.csr_matrix:
    """U x I with long tails on both sides, values 1 … 5, float32; built block by block of users."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(sigma=1.2, size=USERS)
    counts = np.round(activity * INTERACTIONS / activity.sum())
    counts = np.clip(counts, 1, ITEMS // 4).astype(np.int64)
    popularity = np.cumsum((1.0 + np.arange(ITEMS)) ** -0.8)
    parts = []
    blocks = np.array_split(np.arange(USERS), 64)
    for block in tqdm(blocks, "generating", disable=not sys.stderr.isatty()):
        count, users = counts[block], np.arange(len(block))
        # half of the draws may fall on an item that the user already has
        rows = np.repeat(users, 2 * count)
        items = np.searchsorted(popularity, rng.random(len(rows)) * popularity[-1])
        keys, first = np.unique(rows * ITEMS + items, return_index=True)
        # in the order of the draws: popular items come no earlier than others
        keys = keys[np.argsort(first)]
        keys = keys[np.argsort(keys // ITEMS, kind="stable")]
        place = np.arange(len(keys)) - np.searchsorted(keys // ITEMS, users)[keys // ITEMS]
        keys = np.sort(keys[place < count[keys // ITEMS]])
        starts = np.searchsorted(keys, np.arange(len(block) + 1) * ITEMS)
        stars = rng.integers(1, 6, len(keys)).astype(np.float32)
        cells = (stars, (keys % ITEMS).astype(np.int32), starts)
        parts.append(sp.csr_matrix(cells, (len(block), ITEMS)))
    return sp.vstack(parts, format="csr")


def measure(name: str, large: bool) -> dict[str, float]:
    """Seconds of an epoch and of the evaluation, and the peak in GB.

    On MovieLens-1M the epoch is the best of three.
    """
    torch.set_num_threads(2)
    ratings = generated() if large else load_movielens("ml-1m").ratings
    train, test = train_test_split(ratings, 0.9)
    del ratings
    epochs = []
    model = MODELS[name](iterations=1 if large else 3)
    model.fit(train, callback=lambda iteration, elapsed, loss: epochs.append(elapsed))
    users = np.random.default_rng(0).choice(train.shape[0], EVALUATED, replace=False)
    chosen = sp.csr_matrix((np.ones(EVALUATED, np.float32), (users, users)), (train.shape[0],) * 2)
    start = time.perf_counter()
    found = ranking_metrics(model, train, chosen @ test)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "interactions": train.nnz,
        "epoch": min(epochs),
        "evaluation": seconds,
        "cells": len(found) * train.shape[1],
        "peak": peak,
    }


def apart(name: str, size: str) -> dict[str, float]:
    """Run ``measure`` in a separate process."""
    command = [sys.executable, __file__, name, size]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    rows = []
    for name in tqdm(MODELS, "models"):
        small, large = (apart(name, size) for size in ("small", "large"))
        nanoseconds = [run["epoch"] / run["interactions"] * 1e9 for run in (small, large)]
        evaluation = [run["evaluation"] / run["cells"] * 1e9 for run in (small, large)]
        rows.append(
            {
                "": name,
                "epoch, s": f"{large['epoch']:.0f}",
                "ns an interaction": f"{nanoseconds[1]:.0f}",
                "× ML-1M": f"{nanoseconds[1] / nanoseconds[0]:.2f}",
                "evaluation, s": f"{large['evaluation']:.1f}",
                "a score × ML-1M": f"{evaluation[1] / evaluation[0]:.2f}",
                "peak, GB": f"{large['peak']:.1f}",
            }
        )
    millions = large["interactions"] / 0.9 / 1e6
    shape = f"{USERS:,} users, {ITEMS:,} items, {millions:.1f} M interactions"
    table = pd.DataFrame(rows).set_index("").to_string()
    section(f"Growth: {shape}, {EVALUATED:,} users evaluated", f"```\n{table}\n```")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=MODELS)
    parser.add_argument("size", nargs="?", choices=("small", "large"))
    arguments = parser.parse_args()
    if arguments.model:
        print(json.dumps(measure(arguments.model, arguments.size == "large")))
    else:
        main()
