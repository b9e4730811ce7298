"""Search the settings of ours and of the peers with one budget: settings go into results.json.

The training part of split 0 is reduced to every second user and split again, 90/10: models are
trained on 90 % of it and evaluated on the rest. The test part is not used. A model has up to 16
trials and up to 100 seconds of CPU time in one thread. The first two thirds are settings from a
Latin hypercube over the ranges in peers.py, the others are near the best one so far. A trial is
evaluated eight times; it ends early after 25 seconds, or after two evaluations without a gain. Its
best evaluation determines the number of iterations. What is not searched has the library's default.
The ranges are our choice. The defaults of our classes come from a longer search (search.py), so the
tables list them separately.

    python tests/benchmarks/trials.py [NAME ...]
"""

import sys
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from peers import CONTENDERS, Contender, Watch
from report import SECONDS, TRIALS, section, store, stored
from scipy.stats import qmc

from mflib.model import FactorModel
from mflib.sampling import train_test_split

SPREAD_OUT, NEAR = 2 / 3, 0.1  # the share of the first trials, how far from the best the others are
TRIAL_SECONDS, EVALUATIONS, PATIENCE = 25.0, 8, 2


class EnoughError(Exception):
    """The trial has used its time, or gains nothing any more."""


def trial(
    contender: Contender, settings: dict, train, prepared, validation
) -> list[tuple[float, int, float]]:
    """Return (score, iterations, seconds of CPU time) of each evaluation."""
    curve, iterations = [], settings["iterations"]

    def look(model: FactorModel, iteration: int, seconds: float) -> None:
        over = seconds > TRIAL_SECONDS
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
    train, validation = train_test_split(contender.split(0)[0][::2], 0.9, 0)
    prepared, rng = contender.prepare(train), np.random.default_rng(0)
    spread_out = qmc.LatinHypercube(len(contender.space), rng=rng).random(
        round(TRIALS * SPREAD_OUT)
    )
    best, at, seconds, number = {"validation": -np.inf}, spread_out[0], 0.0, 0
    while number < TRIALS and seconds < SECONDS:
        first = number < len(spread_out) and seconds < SECONDS * SPREAD_OUT
        point = spread_out[number] if first else rng.normal(at, NEAR).clip(0, 1)
        drawn = {key: of(x) for (key, of), x in zip(contender.space.items(), point, strict=True)}
        settings = {"iterations": contender.iterations} | drawn
        curve = trial(contender, settings, train, prepared, validation)
        score, iterations, _ = max(curve)
        seconds, number = seconds + curve[-1][2], number + 1
        print(f"{name}: {settings} {iterations} {score:.4f} {curve[-1][2]:.1f} s", flush=True)
        if score > best["validation"]:
            best, at = {"validation": score, "settings": drawn | {"iterations": iterations}}, point
    return best | {"trials": number, "seconds": round(seconds)}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CONTENDERS:
        store("search", {name: search(name)})
    found = pd.DataFrame(stored()["search"]).T
    table = found[["validation", "trials", "seconds", "settings"]].to_string()
    section(
        "Search: half of the users of split 0's training part, seconds of CPU time",
        f"```\n{table}\n```",
    )


if __name__ == "__main__":
    main()
