"""Splits, minibatches and negatives."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib.model import sgd
from mflib.sampling import ORDER, SPLIT, Unliked, generator, train_test_split


def test_split_is_a_partition(ratings):
    train, test = train_test_split(ratings, 0.8, random_state=3)
    assert train.nnz == round(0.8 * ratings.nnz)
    assert train.multiply(test).nnz == 0
    assert ((train + test) != ratings).nnz == 0
    assert train.shape == test.shape == ratings.shape


def test_split_depends_on_the_seed_only(ratings):
    train, _ = train_test_split(ratings, random_state=3)
    again, _ = train_test_split(sp.csc_matrix(ratings), random_state=3)
    other, _ = train_test_split(ratings, random_state=4)
    assert (train != again).nnz == 0
    assert (train != other).nnz > 0


@pytest.mark.parametrize("share", [0, 1, -0.5, 80])
def test_split_refuses(ratings, share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        train_test_split(ratings, share)


def test_an_epoch_visits_every_row_once():
    batches, model = [], SimpleNamespace(random_state=0, learning_rate=0.5, decay=1, batch_size=10)

    def step(rows, learning_rate, rng):
        batches.append(rows)
        return rows + 1.0

    assert sgd(model, 103, step)(0) == 52, "the mean of what the steps return"
    assert [len(b) for b in batches] == [10] * 10 + [3]
    assert torch.cat(batches).sort().values.tolist() == list(range(103))
    assert torch.cat(batches).tolist() != list(range(103))


def test_streams_differ():
    streams = [generator(seed, stream) for seed in range(9) for stream in (ORDER, SPLIT)]
    assert len({torch.randint(10**9, (1,), generator=rng).item() for rng in streams}) == 18


def test_negatives_are_uniform_over_what_is_not_liked():
    likes = sp.csr_matrix(random_ratings(6, 12, 0.5).toarray() > 0)
    users = torch.arange(6).repeat_interleave(12_000)
    drawn = Unliked(likes).sample(users, generator(0, ORDER))
    counts = np.zeros((6, 12))
    np.add.at(counts, (users.numpy(), drawn.numpy()), 1)
    liked = likes.toarray()
    assert (counts[liked] == 0).all(), "a liked item was drawn"
    for user in range(6):
        expected = 12_000 / (~liked[user]).sum()
        assert np.abs(counts[user][~liked[user]] - expected).max() < 5 * np.sqrt(expected)


def test_negatives_at_the_edges():
    """First, last, all but one, none liked."""
    likes = sp.csr_matrix(np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]]))
    drawn = Unliked(likes).sample(torch.arange(4).repeat_interleave(200), generator(1, ORDER)).view(4, 200)
    assert [sorted(set(row.tolist())) for row in drawn] == [[1, 2], [0, 1], [2], [0, 1, 2]]
