"""Default parameters on data of any shape, on checkerboards, and compared with popularity.

In MovieLens, no row has many entries in a batch. Here one item is liked by all
users, one user likes nearly all items, and a matrix may be 10 x 5,000 or 5,000 x 10.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from known_answers import checkerboard
from shapes import KINDS, ratings_of, shapes

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split

MODELS = {
    "ALS": ALS,
    "BPR": BPR,
    "SVD": SVD,
    "WARP": WARP,
}


def test_the_grid_has_sixty_shapes_of_all_kinds():
    grid = shapes()
    assert len(grid) >= 60
    for users, items, density, kind in grid:
        ratings = ratings_of(users, items, density, kind)
        assert ratings.shape == (users, items)
        if kind in ("popular item", "both", "skewed"):
            assert ratings.getnnz(0).max() == users
        if kind in ("heavy user", "both", "skewed"):
            assert ratings[users // 2].nnz >= 0.9 * items
    assert {kind for *_, kind in grid} == set(KINDS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: "{}x{}-{}-{}".format(*shape))
def test_defaults_train_on_data_of_any_shape(name, shape):
    """All divergences known so far happened in the first iterations."""
    model = MODELS[name](iterations=3).fit(ratings_of(*shape))
    losses = [entry["loss"] for entry in model.history]
    assert np.isfinite(losses).all()
    assert losses[-1] < 3 * losses[0]


@pytest.mark.parametrize("n", [50, 100, 200])
@pytest.mark.parametrize("name", ["ALS", "BPR", "WARP"])
def test_defaults_solve_checkerboards(name, n):
    """The withheld item u must come first for user u.

    WARP also draws the withheld items as negatives. On a board of 200, where each user likes 99
    items, a few withheld items are therefore not in first place (1 to 4 with other seeds).
    """
    users, board = np.arange(n), checkerboard(n)
    ids, _ = MODELS[name]().fit(board).recommend(users, board, N=1)
    wrong = int((ids[:, 0] != users).sum())
    assert wrong <= (0.03 * n if (name, n) == ("WARP", 200) else 0)


def planted(users: int = 300, items: int = 200, rank: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of low rank, standardised for each user, and a random mask of 30 %."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(users, rank)) @ rng.normal(size=(rank, items))
    scores = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    return scores, rng.random(scores.shape) < 0.3


@pytest.mark.parametrize("name", MODELS)
def test_defaults_beat_popularity_on_planted_factors(name):
    """SVD learns from ratings at random positions, the others from likes alone."""
    scores, known = planted()
    values = np.clip(np.rint(3 + 1.3 * scores), 1, 5) if name == "SVD" else scores > 1
    train, test = train_test_split(sp.csr_matrix(values * known))
    test.data *= test.data >= (4 if name == "SVD" else 1)

    def ndcg(model):
        return ranking_metrics(model.fit(train), train, test)["ndcg"].mean()

    assert ndcg(MODELS[name]()) > 1.2 * ndcg(Popularity())
