"""Search for the default hyperparameters on MovieLens-1M; tables go into build/bench.md.

The training part of each split is split again, 90/10: models are trained on 90 % of it and
evaluated on the rest (RMSE for SVD, NDCG@10 for the others). The test part is not used. Starting
from the defaults, one hyperparameter at a time is moved down and up by a step. A move that gains
more than its standard error over the splits is kept, until no move gains.

Defaults must also train on other data. Settings that diverge on one of the generated shapes of
tests/unit/shapes.py score minus infinity.

    python tests/benchmarks/search.py [SVD ALS BPR WARP] [--seeds 0 1 2]
        [--start '{"regularization": 1.0}']
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from report import section
from tqdm import tqdm

from mflib import ALS, BPR, SVD, WARP
from mflib.data import load_movielens
from mflib.metrics import ranking_metrics, rmse
from mflib.model import FactorModel
from mflib.sampling import train_test_split

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from shapes import ratings_of, shapes  # in the folder of the unit tests

# How far a step goes: a factor, or for an exponent, a decay and a margin a difference.
STEPS = {
    SVD: {"learning_rate": "*1.5", "regularization": "*1.25", "decay": "+0.03", "init_std": "*2"},
    ALS: {
        "regularization": "*1.5",
        "alpha": "*1.5",
        "frequency_scaling": "+0.15",
        "cg_steps": "+1",
    },
    BPR: {
        "learning_rate": "*1.5",
        "user_regularization": "*1.5",
        "item_regularization": "*1.5",
        "draws": "*2",
        "decay": "+0.02",
        "init_std": "*2",
    },
    WARP: {
        "learning_rate": "*1.5",
        "regularization": "*1.15",
        "margin": "+0.5",
        "max_draws": "*2",
        "decay": "+0.03",
        "init_std": "*2",
    },
}


def moves(value: float, step: str) -> Iterator[float]:
    """``value`` one step down and one step up, where that is above 0."""
    kind, size = step[0], float(step[1:])
    for moved in (value / size, value * size) if kind == "*" else (value - size, value + size):
        if (rounded := type(value)(round(moved, 6))) > 0:
            yield rounded


def trains_on_all_shapes(model: FactorModel) -> bool:
    """Return whether the model trains for eight iterations on each shape without diverging."""
    short = replace(model, iterations=8)
    try:
        for shape in shapes():
            short.fit(ratings_of(*shape), show_progress=False)
    except FloatingPointError:
        return False
    return True


class Judge:
    """The scores of a model on the validation part of each split, larger is better.

    They are remembered by its settings.
    """

    def __init__(self, model_class: type[FactorModel], seeds: list[int]):
        data = load_movielens("ml-1m")
        self.explicit = model_class is SVD
        matrix, share = (data.ratings, 0.9) if self.explicit else (data.likes(), 0.8)
        parts = [train_test_split(matrix, share, seed)[0] for seed in seeds]
        self.splits = [
            train_test_split(part, 0.9, seed) for part, seed in zip(parts, seeds, strict=True)
        ]
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, model: FactorModel) -> np.ndarray:
        if repr(model) not in self.known:
            works = trains_on_all_shapes(model)
            scores = [self.score(model, *split) if works else -np.inf for split in self.splits]
            self.known[repr(model)] = np.array(scores)
        return self.known[repr(model)]

    def score(self, model: FactorModel, train, validation) -> float:
        try:
            model.fit(train, show_progress=False)
        except FloatingPointError:
            return -np.inf  # diverged: as bad as can be
        if self.explicit:
            cells = validation.tocoo()
            return -rmse(model.predict(cells.row, cells.col), cells.data)
        return ranking_metrics(model, train, validation)["ndcg"].mean()


def climb(model_class: type[FactorModel], seeds: list[int], settings: dict[str, float]) -> str:
    judge, rows, better = Judge(model_class, seeds), [], True
    steps = STEPS[model_class]
    settings = {name: getattr(model_class(), name) for name in steps} | settings
    while better:
        better = False
        for name in tqdm(steps, f"{model_class.__name__} {settings}"):
            for value in moves(settings[name], steps[name]):
                moved = settings | {name: value}
                gains = judge(model_class(**moved)) - judge(model_class(**settings))
                gain = gains.mean()
                error = gains.std(ddof=1) / len(seeds) ** 0.5 if seeds[1:] else 0
                move = {"move": f"{name} = {value:g}", "gain": f"{gain:+.4f} ± {error:.4f}"}
                rows.append(settings | move)
                if gain > max(error, 0.0002):
                    settings, better = moved, True
    final = f"{abs(judge(model_class(**settings)).mean()):.4f}"
    return f"```\n{pd.DataFrame(rows).to_string(index=False)}\n```\n\nThe end: {settings}, {final}."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    classes = {model_class.__name__: model_class for model_class in STEPS}
    parser.add_argument("models", nargs="*", default=list(classes), choices=classes)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--start", type=json.loads, default={})
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    for name in arguments.models:
        title = f"Search from the defaults of {name}, validation part"
        section(title, climb(classes[name], arguments.seeds, arguments.start))


if __name__ == "__main__":
    main()
