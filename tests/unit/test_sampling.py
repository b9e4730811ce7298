"""Splits, minibatches and negatives."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings

from mflib.sampling import (
    SPLIT,
    TRAINING,
    Unliked,
    generator,
    seed_of,
    temporal_global_split,
    temporal_user_split,
    train_test_split,
)
from mflib.training import epochs


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


def test_split_rounds_to_the_nearest(ratings):
    """Ten likes of twelve, where a share of .8 is 9.6."""
    train, test = train_test_split(sp.csr_matrix(np.ones((3, 4))), 0.8)
    assert (train.nnz, test.nnz) == (10, 2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.int64, np.float32])
@pytest.mark.parametrize("form", [sp.coo_matrix, sp.csr_matrix, sp.csc_array])
def test_split_sums_what_is_given_twice_without_overflow(dtype, form):
    """A song that was played 130 times is in one part, 130 times."""
    ids = np.zeros(130, int), np.zeros(130, int)
    cells = sp.coo_matrix((np.ones(130, dtype), ids), (1, 5))
    if form is not sp.coo_matrix:  # converting would sum them
        indices, pointers = np.zeros(130, np.int32), [0, 130]
        pointers = pointers if form is sp.csr_matrix else [0, 130, 130, 130, 130, 130]
        cells = form((np.ones(130, dtype), indices, pointers), (1, 5))
    train, test = train_test_split(cells, 0.5)
    assert (train + test).toarray().tolist() == [[130, 0, 0, 0, 0]]


def test_a_stored_zero_is_no_interaction():
    matrix = sp.csr_matrix((np.array([1.0, 0, 0, 2]), ([0, 0, 1, 1], [0, 1, 0, 1])), (2, 2))
    train, test = train_test_split(matrix, 0.5)
    assert train.nnz == test.nnz == 1


@pytest.fixture
def times(ratings):
    """Of each rating and of other cells: different ones, but for user 0, who rated all at once."""
    numbers = np.random.default_rng(5).permutation(np.prod(ratings.shape)) + 1
    times = numbers.reshape(ratings.shape)
    times[0] = times[0, 0]
    return sp.csr_matrix(times)


@pytest.mark.parametrize("share", [0, 1, -0.5, 80])
def test_split_refuses(ratings, times, share):
    for split in (temporal_user_split, temporal_global_split):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(ratings, times, share)
    with pytest.raises(ValueError, match="between 0 and 1"):
        train_test_split(ratings, share)


def test_temporal_splits_refuse_what_has_no_time(ratings, times):
    for split in (temporal_user_split, temporal_global_split):
        with pytest.raises(ValueError, match=rf"{ratings.nnz} of {ratings.nnz} without one"):
            split(ratings, sp.csr_matrix(ratings.shape, dtype=np.int64))
        with pytest.raises(ValueError, match="expected times of shape"):
            split(ratings, times[1:])


def test_the_last_of_each_user_are_held_out(ratings, times):
    train, test = temporal_user_split(ratings, times, 0.6, random_state=3)
    assert ((train + test) != ratings).nnz == 0
    assert train.multiply(test).nnz == 0
    when = times.toarray()
    for user, count in enumerate(np.diff(ratings.indptr)):
        kept, held_out = train[user].indices, test[user].indices
        assert len(kept) == -(-6 * count // 10)
        if len(held_out):
            assert when[user, kept].max() <= when[user, held_out].min()
    again, _ = temporal_user_split(sp.csc_matrix(ratings), times, 0.6, random_state=3)
    other, _ = temporal_user_split(ratings, times, 0.6, random_state=4)
    assert (train != again).nnz == 0
    differ = np.flatnonzero(np.diff((train != other).tocsr().indptr))
    assert differ.tolist() == [0], "the seed decides only between what happened at one time"


def test_one_date_parts_all_users(ratings, times):
    train, test = temporal_global_split(ratings, times, 0.6)
    when = times.toarray()
    before = [when[cells.nonzero()] for cells in (train, test)]
    assert before[0].max() < before[1].min()
    assert abs(train.nnz - 0.6 * ratings.nnz) <= ratings[0].nnz + 1
    everything = ratings.copy()
    everything.data[when[ratings.nonzero()] < before[1].min()] = 0
    everything.eliminate_zeros()
    known = np.diff(train.indptr) > 0
    assert test.nnz == everything[known].nnz
    assert not test[~known].nnz


def test_who_comes_after_the_date_is_not_held_out():
    likes = sp.csr_matrix(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]]))
    when = sp.csr_matrix(np.array([[1, 8, 0], [0, 2, 9], [7, 0, 8]]))
    train, test = temporal_global_split(likes, when, 0.4)  # of 1, 2, 7, 8, 8, 9 two are before
    assert train.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert test.toarray().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


class Recorded:
    """Rows 0 … 102 and the model that is trained on them: what came in is kept."""

    learning_rate, decay, batch_size, device = 0.5, 0.8, 10, "cpu"

    def __init__(self):
        self.batches, self.rates = [], []

    def __len__(self):
        return 103

    def batch(self, chosen, rng):
        return {"chosen": chosen}

    def _step(self, batch, learning_rate):
        self.batches.append(batch["chosen"])
        self.rates.append(learning_rate)
        return batch["chosen"] + 1.0


def test_an_epoch_visits_every_row_once():
    recorded = Recorded()
    training = epochs(recorded, recorded, generator(0, TRAINING))
    assert next(training) == 52, "the mean of what the steps return"
    batches = recorded.batches.copy()
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert torch.cat(batches).sort().values.tolist() == list(range(103))
    assert torch.cat(batches).tolist() != list(range(103))
    next(training)
    assert torch.cat(recorded.batches[11:]).tolist() != torch.cat(batches).tolist(), "a new order"


def test_the_learning_rate_decays_after_each_epoch():
    recorded = Recorded()
    losses = list(itertools.islice(epochs(recorded, recorded, generator(0, TRAINING)), 3))
    assert losses == [52] * 3
    expected = np.repeat([0.5, 0.4, 0.32], 11)
    assert np.allclose(recorded.rates, expected)


def test_streams_differ():
    streams = [generator(seed, stream) for seed in range(9) for stream in (TRAINING, SPLIT)]
    assert len({torch.randint(10**9, (1,), generator=rng).item() for rng in streams}) == 18


def test_seeds():
    assert seed_of(np.int64(7)) == 7
    assert seed_of(np.random.default_rng(5)) == seed_of(np.random.default_rng(5))
    rng = np.random.default_rng(5)
    assert seed_of(rng) != seed_of(rng), "a generator is advanced"
    assert seed_of(np.random.RandomState(5)) == seed_of(np.random.RandomState(5))
    assert seed_of(None) != seed_of(None)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", 2**62])
def test_what_is_no_seed(ratings, seed):
    with pytest.raises(ValueError, match="None or a numpy generator for random_state, got"):
        train_test_split(ratings, random_state=seed)


def test_splits_take_what_numpy_takes(ratings):
    expected, _ = train_test_split(ratings, random_state=np.random.default_rng(5))
    again, _ = train_test_split(ratings, random_state=np.random.default_rng(5))
    other, _ = train_test_split(ratings, random_state=None)
    assert (expected != again).nnz == 0
    assert (expected != other).nnz > 0


def test_negatives_of_very_many_items_are_uniform():
    """The lower half of 48,000 items comes half of the time: a draw modulo 2**16 would not do."""
    nothing = sp.csr_matrix((1, 48_000), dtype=bool)
    drawn = Unliked(nothing).sample(torch.zeros(100_000, dtype=torch.long), generator(0, TRAINING))
    assert abs((drawn < 24_000).double().mean().item() - 0.5) < 4 * 0.5 / np.sqrt(100_000)
    assert abs((drawn < 17_536).double().mean().item() - 17_536 / 48_000) < 0.01


def test_negatives_are_uniform_over_what_is_not_liked():
    likes = sp.csr_matrix(random_ratings(6, 12, 0.5).toarray() > 0)
    users = torch.arange(6).repeat_interleave(12_000)
    drawn = Unliked(likes).sample(users, generator(0, TRAINING))
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
    drawn = (
        Unliked(likes)
        .sample(torch.arange(4).repeat_interleave(200), generator(1, TRAINING))
        .view(4, 200)
    )
    assert [sorted(set(row.tolist())) for row in drawn] == [[1, 2], [0, 1], [2], [0, 1, 2]]
