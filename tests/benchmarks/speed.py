"""Time to quality on MovieLens-1M, ours and the peers' in turn: a table into build/bench.md.

Both sides have the settings that trials.py found with equal budgets, 64 factors, float32 and two
threads. The target is the final value of the worse of the two on the test part, less .005 of
NDCG@10 or plus .002 of RMSE. Two times are taken from the call of fit, without the evaluations: to
the target, and of the whole fit. Medians over the split seeds 0, 1, 2, each with its own target.
Needs the results of quality.py and an idle machine.
"""

import bisect
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from peers import CONTENDERS, SEEDS, Watch, implicit_split
from report import PAIRS, TIMES, ratio, section, store, stored
from tqdm import tqdm

from mflib import ALS
from mflib.metrics import ranking_metrics
from mflib.model import FactorModel

THREADS, EVALUATIONS = 2, 25
UNITS = {"avx512f": "AVX-512", "avx2": "AVX2"}
SLACK = {"ndcg": 0.005, "rmse": 0.002}


def target(pair: tuple[str, str], split: int) -> float:
    """Return the score to reach, larger is better (see ``Contender.score``)."""
    quality = [stored()["quality"][name] for name in pair]
    if "rmse" in quality[0]:
        return -max(each["rmse"][split] for each in quality) - SLACK["rmse"]
    return min(each["ndcg"][split] for each in quality) - SLACK["ndcg"]


def seconds(name: str, split: int, target: float) -> tuple[float, float]:
    """Return the seconds to the target and of the whole fit."""
    contender, settings = CONTENDERS[name], stored()["search"][name]["settings"]
    train, test = contender.split(split)
    prepared, reached = contender.prepare(train), math.inf
    every = max(1, settings["iterations"] // EVALUATIONS)

    def look(model: FactorModel, iteration: int, seconds: float) -> None:
        nonlocal reached
        if reached == math.inf and (iteration % every == 0 or iteration == settings["iterations"]):
            reached = seconds if contender.score(model, train, test) >= target else math.inf

    def fit(**changed: int) -> float:
        watch = Watch(look)
        contender.fit(prepared, watch, **settings | changed)
        return watch.seconds

    def enough(iterations: int) -> bool:
        model = contender.fit(prepared, **settings | {"iterations": iterations})
        return contender.score(model, train, test) >= target

    if name == "Surprise SVD":  # it has no callback: find the epochs, then take their time
        epochs = range(5, settings["iterations"] + 1, 5)
        place = bisect.bisect_left(epochs[:-1], True, key=enough)
        return fit(iterations=epochs[place]), fit()
    whole = fit()
    return reached, whole


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def evaluation() -> tuple[float, float]:
    """Return the seconds of our evaluation of all users and of implicit's."""
    train, test = implicit_split(0)
    model, peer = ALS().fit(train, show_progress=False), AlternatingLeastSquares(64)
    peer.user_factors, peer.item_factors = model.user_factors.numpy(), model.item_factors.numpy()
    options = {"K": 10, "show_progress": False, "num_threads": THREADS}
    ours = [timed(lambda: ranking_metrics(model, train, test)) for _ in range(9)]
    theirs = [timed(lambda: ranking_metrics_at_k(peer, train, test, **options)) for _ in range(9)]
    return statistics.median(ours), statistics.median(theirs)


def processor() -> str:
    """Return the name of the processor, with its widest vector unit."""
    lines = Path("/proc/cpuinfo")
    text = lines.read_text(encoding="utf-8") if lines.exists() else ""
    names = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")]
    unit = next((name for flag, name in UNITS.items() if flag in text), "no vector unit known")
    return f"{(names or [platform.processor()])[0]} with {unit}"


def main() -> None:
    torch.set_num_threads(THREADS)
    store("machine", {"processor": processor(), "threads": THREADS})
    rows = {}
    for pair in tqdm(PAIRS, "pairs"):
        runs = [[seconds(name, split, target(pair, split)) for name in pair] for split in SEEDS]
        times = {
            name: {what: [run[side][place] for run in runs] for place, what in enumerate(TIMES)}
            for side, name in enumerate(pair)
        }
        store("speed", {" / ".join(pair): times})
        for name, of_name in times.items():
            rows[name] = {what: f"{statistics.median(of_name[what]):.2f}" for what in TIMES}
        rows[name]["ratio"] = "{:.1f} ({:.1f}-{:.1f})".format(*ratio(*times.values()))
    ours, theirs = evaluation()
    store("speed", {"evaluation": {"ours": ours, "implicit": theirs}})
    rows["evaluation of all users"] = {TIMES[1]: f"{ours:.2f}"}
    rows["implicit's ranking_metrics_at_k"] = {TIMES[1]: f"{theirs:.2f}"}
    table = pd.DataFrame(rows).T.fillna("").to_string()
    section("Speed: seconds to the same quality", f"{processor()}\n\n```\n{table}\n```")


if __name__ == "__main__":
    main()
