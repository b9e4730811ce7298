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
    """Return likes of shape (80, 60)."""
    return sp.csr_matrix(random_ratings(80, 60, 0.2) > 0, dtype=np.float32)


def fitted_peer(likes, **options):
    """Return a fitted model of implicit; its alpha of 3 corresponds to 2 in mflib."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    options = {"regularization": 0.7, "alpha": 3.0, "random_state": 0} | options
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(8, num_threads=1, **options)
        model.fit(likes, show_progress=False)
    return model


def test_one_exact_iteration_of_als_agrees_with_implicit(likes):
    """Both start from the same item factors."""
    peer = fitted_peer(likes, use_cg=False, iterations=1)
    start = fitted_peer(likes, use_cg=False, iterations=0)
    options = {"frequency_scaling": 0.0, "use_cg": False, "iterations": 1}
    model = ALS(8, regularization=0.7, alpha=2.0, **options)
    model._initialise = lambda matrix, std: vars(model).update(
        user_factors=torch.from_numpy(start.user_factors.copy()),
        item_factors=torch.from_numpy(start.item_factors.copy()),
        user_biases=torch.zeros(80),
        item_biases=torch.zeros(60),
        global_bias=0.0,
    )
    model.fit(likes)
    assert np.allclose(model.user_factors, peer.user_factors, atol=1e-4)
    assert np.allclose(model.item_factors, peer.item_factors, atol=1e-4)


def test_ranking_metrics_agree_with_implicit(likes):
    """In implicit, precision is divided by the number of possible hits."""
    from implicit.evaluation import ranking_metrics_at_k

    train, test = train_test_split(likes, 0.7)
    model = ALS(8).fit(train)
    peer = fitted_peer(train, iterations=1)
    peer.user_factors, peer.item_factors = model.user_factors.numpy(), model.item_factors.numpy()
    options = {"K": 5, "show_progress": False, "num_threads": 1}
    expected = ranking_metrics_at_k(peer, train, test, **options)
    got = ranking_metrics(model, train, test, N=5)
    assert got["ndcg"].mean() == pytest.approx(expected["ndcg"], abs=1e-6)
    assert got["map"].mean() == pytest.approx(expected["map"], abs=1e-6)
    possible_hits = np.minimum(5, np.diff(test.indptr)[got.index])
    precision = (got["precision"] * 5).sum() / possible_hits.sum()
    assert precision == pytest.approx(expected["precision"], abs=1e-6)
