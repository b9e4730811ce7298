"""Search the settings of ours and of the peers with one budget: settings go into results.json.

The training part of split 0 is split again, 90/10: models are trained on 90 % of it and evaluated
on the rest. The test part is not used. Each model has 12 trials: eight settings from a Latin
hypercube over the ranges in peers.py, then four near the best one so far. A trial is evaluated ten
times; it ends early after 40 seconds of CPU time in one thread, or after two evaluations without a
gain. Its best evaluation determines the number of iterations. What is not searched has the
library's default. The ranges are our choice. The defaults of our classes come from a longer search
(search.py), so the tables list them separately.

    python tests/benchmarks/trials.py [NAME ...]
"""

import sys
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from peers import CONTENDERS, Contender, Watch
from report import section, store, stored
from scipy.stats import qmc
from tqdm import tqdm

from mflib.model import FactorModel
from mflib.sampling import train_test_split

TRIALS, SPREAD_OUT, NEAR = 12, 8, 0.1  # trials, the first of them, how far from the best the others
SECONDS, EVALUATIONS, PATIENCE = 40.0, 10, 2  # of a trial


class EnoughError(Exception):
    """The trial has used its time, or gains nothing any more."""


def trial(
    contender: Contender, settings: dict, train, prepared, validation
) -> list[tuple[float, int, float]]:
    """Return (score, iterations, seconds of CPU time) of each evaluation."""
    curve, iterations = [], settings["iterations"]

    def look(model: FactorModel, iteration: int, seconds: float) -> None:
        over = seconds > SECONDS
        if not over and iteration * EVALUATIONS % iterations >= EVALUATIONS:
            return
        score = contender.score(model, train, validation)
        curve.append((score, iteration, seconds))
        if over or len(curve) - curve.index(max(curve)) > PATIENCE:
            raise EnoughError

    with suppress(EnoughError, FloatingPointError):  # out of time, or diverged
        contender.fit(prepared, Watch(look, time.process_time), **settings)
    return curve or [(-np.inf, 1, 0.0)]


def search(name: str) -> dict:
    """Return the best settings, their score and the cost of the search."""
    contender = CONTENDERS[name]
    train, validation = train_test_split(contender.split(0)[0], 0.9, 0)
    prepared, rng = contender.prepare(train), np.random.default_rng(0)
    points = list(qmc.LatinHypercube(len(contender.space), rng=rng).random(SPREAD_OUT))
    best, at, seconds = {"validation": -np.inf}, points[0], 0.0
    for number in tqdm(range(TRIALS), name):
        point = points[number] if number < SPREAD_OUT else rng.normal(at, NEAR).clip(0, 1)
        drawn = {key: of(x) for (key, of), x in zip(contender.space.items(), point, strict=True)}
        settings = {"iterations": contender.iterations} | drawn
        curve = trial(contender, settings, train, prepared, validation)
        score, iterations, _ = max(curve)
        seconds += curve[-1][2]
        print(f"{name}: {settings} {iterations} {score:.4f} {curve[-1][2]:.1f} s", flush=True)
        if score > best["validation"]:
            best, at = {"validation": score, "settings": drawn | {"iterations": iterations}}, point
    return best | {"trials": TRIALS, "seconds": round(seconds)}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CONTENDERS:
        store("search", {name: search(name)})
    found = pd.DataFrame(stored()["search"]).T
    found.insert(0, "differs", {name: each.differs for name, each in CONTENDERS.items()})
    table = found[["validation", "trials", "seconds", "settings"]].to_string()
    section("Search: validation part of split 0, seconds of CPU time", f"```\n{table}\n```")


if __name__ == "__main__":
    main()
