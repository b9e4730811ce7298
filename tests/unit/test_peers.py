"""Agreement with the library implicit, where it is installed."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib import ALS
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split

pytest.importorskip("implicit", reason="the library implicit is not installed")


@pytest.fixture
def likes() -> sp.csr_matrix:
    return sp.csr_matrix(random_ratings(80, 60, 0.2) > 0, dtype=np.float32)


def peer(likes, **options):
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            8, regularization=0.7, alpha=3.0, random_state=0, num_threads=1, **options
        )
        model.fit(likes, show_progress=False)
    return model


def test_one_exact_iteration_agrees_with_implicit(likes):
    """From the same items, one iteration gives the same factors; implicit's alpha is ours + 1."""
    theirs = peer(likes, use_cg=False, iterations=1)
    start = peer(likes, use_cg=False, iterations=0)
    ours = ALS(8, regularization=0.7, alpha=2.0, frequency_scaling=0.0, use_cg=False, iterations=1)
    ours._initialise = lambda matrix, std: vars(ours).update(
        user_factors=torch.from_numpy(start.user_factors.copy()),
        item_factors=torch.from_numpy(start.item_factors.copy()),
        user_biases=torch.zeros(80),
        item_biases=torch.zeros(60),
        global_bias=0.0,
    )
    ours.fit(likes)
    assert np.allclose(ours.user_factors, theirs.user_factors, atol=1e-4)
    assert np.allclose(ours.item_factors, theirs.item_factors, atol=1e-4)


def test_ranking_metrics_agree_with_implicit(likes):
    """Precision as implicit divides it, and NDCG, on scores without ties."""
    from implicit.evaluation import ranking_metrics_at_k

    train, test = train_test_split(likes, 0.7)
    model = ALS(8).fit(train)
    theirs = peer(train, iterations=1)
    theirs.user_factors, theirs.item_factors = (
        model.user_factors.numpy(),
        model.item_factors.numpy(),
    )
    expected = ranking_metrics_at_k(theirs, train, test, K=5, show_progress=False, num_threads=1)
    got = ranking_metrics(model, train, test, N=5)
    assert got["ndcg"].mean() == pytest.approx(expected["ndcg"], abs=1e-6)
    assert got["map"].mean() == pytest.approx(expected["map"], abs=1e-6)
    hits = got["precision"] * 5
    possible = np.minimum(5, np.diff(test.indptr)[got.index])
    assert hits.sum() / possible.sum() == pytest.approx(expected["precision"], abs=1e-6)
