"""Seconds per iteration on MovieLens-1M, on an idle and on a busy machine.

The load is an endless loop per processor, as with a class on one server or a video call. Each model
is trained twice alone, with two threads and with one, and once under load, several times in
turn; the table, medians of the iterations, goes into build/bench.md.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from report import section
from tqdm import trange

from mflib import ALS, BPR, SVD, WARP
from mflib.data import load_movielens
from mflib.training import available_processors

ROUNDS = 3
MODELS = {
    "SVD": lambda: SVD(iterations=4),
    "ALS": lambda: ALS(iterations=10),
    "BPR": lambda: BPR(iterations=4),
    "WARP": lambda: WARP(iterations=3),
}


@contextmanager
def endless_loops() -> Iterator[None]:
    """Run one busy process per processor."""
    loop = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop) for _ in range(available_processors())]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def main() -> None:
    data, threads = load_movielens("ml-1m"), torch.get_num_threads()
    likes = data.likes()
    columns = {name: {"alone": [], "one thread": [], "busy": []} for name in MODELS}

    def train(name: str) -> list[float]:
        matrix = data.ratings if name == "SVD" else likes
        model = MODELS[name]().fit(matrix, show_progress=False)
        return [step["seconds"] for step in model.history[1:]]

    for _ in trange(ROUNDS, unit="round"):
        for name, seconds in columns.items():
            seconds["alone"] += train(name)
            torch.set_num_threads(1)
            seconds["one thread"] += train(name)
            torch.set_num_threads(threads)
            with endless_loops():
                seconds["busy"] += train(name)
    medians = {name: pd.Series(seconds).map(statistics.median) for name, seconds in columns.items()}
    table = pd.DataFrame(medians).T
    table["busy / alone"] = table["busy"] / table["alone"]
    load = f"with {available_processors()} endless loops"
    title = f"Seconds per iteration, alone ({threads} threads) and {load}"
    section(title, table.round(3).to_string())


if __name__ == "__main__":
    main()
