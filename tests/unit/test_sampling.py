"""Seeds, random streams, train/test splits, order of batches, negative sampling."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, random_ratings
from scipy.stats import chisquare

from mflib.sampling import (
    INIT,
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

# --- random splits ------------------------------------------------------------------------------


def assert_partition(matrix, train, test):
    """Check that each entry of the matrix is in exactly one of the two parts."""
    assert train.shape == test.shape == matrix.shape
    assert ((train + test) != matrix).nnz == 0
    assert train.nnz + test.nnz == matrix.nnz


def test_random_split_is_a_partition(ratings):
    train, test = train_test_split(ratings, 0.8, random_state=3)
    assert_partition(ratings, train, test)
    assert train.nnz == round(0.8 * ratings.nnz)


def test_random_split_depends_on_the_seed_only(ratings):
    train, _ = train_test_split(ratings, random_state=3)
    again, _ = train_test_split(sp.csc_matrix(ratings), random_state=3)
    other, _ = train_test_split(ratings, random_state=4)
    assert (train != again).nnz == 0
    assert (train != other).nnz > 0


def test_random_split_holds_out_each_entry_equally_often():
    """A split that always keeps the first entries, or whole rows, would fail."""
    matrix = sp.csr_matrix(np.ones((4, 5)))
    held_out = sum(train_test_split(matrix, 0.5, seed)[1].toarray() for seed in range(400))
    assert chisquare(held_out.ravel()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("n", "share", "kept"),
    [(12, 0.8, 10), (100, 0.55, 55), (100, 0.554, 55), (10, 0.25, 2), (10, 0.35, 4)],
)
def test_random_split_rounds_to_the_nearest(n, share, kept):
    train, test = train_test_split(sp.csr_matrix(np.ones((1, n))), share)
    assert (train.nnz, test.nnz) == (kept, n - kept)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.int64, np.float32])
@pytest.mark.parametrize("form", [sp.coo_matrix, sp.csr_matrix, sp.csc_array])
def test_random_split_sums_duplicates_without_overflow(dtype, form):
    """A song that was played 130 times is in one part, with the value 130."""
    ids = np.zeros(130, int), np.zeros(130, int)
    entries = sp.coo_matrix((np.ones(130, dtype), ids), (1, 5))
    if form is not sp.coo_matrix:  # a conversion would sum them
        indices, pointers = np.zeros(130, np.int32), [0, 130]
        pointers = pointers if form is sp.csr_matrix else [0, 130, 130, 130, 130, 130]
        entries = form((np.ones(130, dtype), indices, pointers), (1, 5))
    train, test = train_test_split(entries, 0.5)
    assert (train + test).toarray().tolist() == [[130, 0, 0, 0, 0]]


def test_random_split_ignores_stored_zeros():
    matrix = sp.csr_matrix((np.array([1.0, 0, 0, 2]), ([0, 0, 1, 1], [0, 1, 0, 1])), (2, 2))
    train, test = train_test_split(matrix, 0.5)
    assert train.nnz == test.nnz == 1


# --- temporal splits ----------------------------------------------------------------------------


@pytest.fixture
def times(ratings):
    """Return distinct times of all entries, except that all times of user 0 are equal."""
    numbers = np.random.default_rng(5).permutation(np.prod(ratings.shape)) + 1
    times = numbers.reshape(ratings.shape)
    times[0] = times[0, 0]
    return sp.csr_matrix(times)


@pytest.fixture(params=[temporal_user_split, temporal_global_split])
def temporal_split(request):
    return request.param


@pytest.mark.parametrize("share", [0, 1, -0.5, 80, float("nan"), "0.5", True, None])
def test_splits_refuse_invalid_shares(ratings, times, share):
    with pytest.raises(ValueError, match="a number between 0 and 1 for train_percentage, got"):
        train_test_split(ratings, share)
    for split in (temporal_user_split, temporal_global_split):
        with pytest.raises(ValueError, match="a number between 0 and 1 for train_percentage, got"):
            split(ratings, times, share)


def test_splits_of_an_empty_matrix_are_empty():
    empty = sp.csr_matrix((3, 4))
    splits = (
        train_test_split(empty),
        temporal_user_split(empty, empty),
        temporal_global_split(empty, empty),
    )
    for parts in splits:
        assert [part.shape for part in parts] == [(3, 4), (3, 4)]
        assert [part.nnz for part in parts] == [0, 0]


def test_temporal_splits_refuse_interactions_without_a_time(ratings, times, temporal_split):
    with pytest.raises(ValueError, match=rf"{ratings.nnz} of {ratings.nnz} without one"):
        temporal_split(ratings, sp.csr_matrix(ratings.shape, dtype=np.int64))
    some = times.copy()
    row, column = (int(ids[0]) for ids in ratings.nonzero())
    some[row, column] = -3
    with pytest.raises(ValueError, match=rf"a time > 0 .* got 1 of {ratings.nnz} without one"):
        temporal_split(ratings, some)


def test_temporal_splits_refuse_dense_times_and_other_shapes(ratings, times, temporal_split):
    with pytest.raises(
        ValueError, match=r"times as a sparse matrix of shape \(30, 25\), got shape"
    ):
        temporal_split(ratings, times[1:])
    with pytest.raises(ValueError, match="got ndarray"):
        temporal_split(ratings, times.toarray())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_temporal_splits_refuse_times_that_are_not_finite(ratings, times, temporal_split, value):
    wrong = times.astype(np.float64)
    row, column = (int(ids[0]) for ids in ratings.nonzero())
    wrong[row, column] = value
    with pytest.raises(ValueError, match="expected finite numbers as times, got NaN, infinity"):
        temporal_split(ratings, wrong)


def test_temporal_splits_refuse_times_that_are_not_real(ratings, times, temporal_split):
    with pytest.raises(ValueError, match="expected finite numbers as times"):
        temporal_split(ratings, times.astype(np.complex128))


def test_temporal_splits_ignore_times_without_an_interaction(ratings, times, temporal_split):
    needed = times.multiply(ratings != 0).tocsr()
    assert needed.nnz < times.nnz
    for part, expected in zip(
        temporal_split(ratings, times, 0.6), temporal_split(ratings, needed, 0.6), strict=True
    ):
        assert (part != expected).nnz == 0


@pytest.mark.parametrize("order", [1, -1])
def test_temporal_splits_use_the_latest_of_several_times(temporal_split, order):
    """Item 0 has the latest time, 9; item 1 has the later first time and more times."""
    items, played = np.array([0, 0, 1, 1, 1])[::order], np.array([1, 9, 5, 6, 5])[::order]
    times = sp.coo_matrix((played, (np.zeros(5, int), items)), (1, 2))
    train, test = temporal_split(sp.csr_matrix(np.ones((1, 2))), times, 0.5)
    assert train.toarray().tolist() == [[0, 1]]
    assert test.toarray().tolist() == [[1, 0]]


def test_user_split_distinguishes_nanoseconds():
    """float64 cannot hold these times."""
    times = 2**60 + np.array([[3, 1, 0, 2]], dtype=np.int64)
    train, _ = temporal_user_split(sp.csr_matrix(np.ones((1, 4))), sp.csr_matrix(times), 0.5)
    assert train.toarray().tolist() == [[0, 1, 1, 0]]


def test_user_split_holds_out_the_last_interactions_of_each_user(ratings, times):
    train, test = temporal_user_split(ratings, times, 0.6, random_state=3)
    assert_partition(ratings, train, test)
    when = times.toarray()
    for user, count in enumerate(np.diff(ratings.indptr)):
        kept, held_out = train[user].indices, test[user].indices
        assert len(kept) == -(-6 * count // 10)
        if len(held_out):
            assert when[user, kept].max() <= when[user, held_out].min()


def test_user_split_shuffles_only_simultaneous_interactions(ratings, times):
    train, _ = temporal_user_split(ratings, times, 0.6, random_state=3)
    again, _ = temporal_user_split(sp.csc_matrix(ratings), times, 0.6, random_state=3)
    other, _ = temporal_user_split(ratings, times, 0.6, random_state=4)
    assert (train != again).nnz == 0
    changed = np.flatnonzero(np.diff((train != other).tocsr().indptr))
    assert changed.tolist() == [0], "only user 0 rated several movies at one time"


@pytest.mark.parametrize(
    ("n", "share", "kept"), [(100, 0.55, 55), (100, 0.551, 56), (10, 0.25, 3), (1, 0.1, 1)]
)
def test_user_split_rounds_up_after_removing_rounding_errors(n, share, kept):
    """In floating point, 0.55 * 100 is 55.00000000000001."""
    matrix = sp.csr_matrix(np.arange(1, n + 1)[None].astype(float))
    train, test = temporal_user_split(matrix, matrix, share)
    assert train.indices.tolist() == list(range(kept))
    assert test.nnz == n - kept


def test_global_split_divides_all_users_at_one_date(ratings, times):
    train, test = temporal_global_split(ratings, times, 0.6)
    when = times.toarray()
    first_held_out = when[test.nonzero()].min()
    assert when[train.nonzero()].max() < first_held_out
    assert abs(train.nnz - 0.6 * ratings.nnz) <= ratings[0].nnz + 1
    known = train.getnnz(1) > 0
    later = (when >= first_held_out) & known[:, None]
    assert (test.toarray() == np.where(later, ratings.toarray(), 0)).all()


def test_global_split_drops_users_without_earlier_interactions():
    likes = sp.csr_matrix(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]]))
    when = sp.csr_matrix(np.array([[1, 8, 0], [0, 2, 9], [7, 0, 8]]))
    # The date is 7; only the times 1 and 2 are earlier.
    train, test = temporal_global_split(likes, when, 0.4)
    assert train.toarray().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert test.toarray().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_global_split_rejects_a_date_without_earlier_interactions():
    likes = sp.csr_matrix(np.ones((2, 3)))
    with pytest.raises(ValueError, match="got none: the first time, 7, is that of 6 of 6"):
        temporal_global_split(likes, 7 * likes)


# --- seeds and streams --------------------------------------------------------------------------


def test_streams_of_all_seeds_and_purposes_differ():
    streams = [generator(seed, stream) for seed in range(9) for stream in (INIT, TRAINING, SPLIT)]
    first = {torch.randint(10**9, (1,), generator=rng).item() for rng in streams}
    assert len(first) == 27
    again = generator(4, SPLIT)
    assert torch.randint(10**9, (1,), generator=again).item() in first, "streams are reproducible"


def test_seed_of_returns_integers_unchanged():
    assert seed_of(np.int64(7)) == 7
    assert type(seed_of(np.int64(7))) is int
    assert seed_of(0) == 0
    assert seed_of(2**30 - 1) == 2**30 - 1


@pytest.mark.parametrize("numpy_generator", [np.random.default_rng, np.random.RandomState])
def test_seed_of_draws_from_numpy_generators(numpy_generator):
    assert seed_of(numpy_generator(5)) == seed_of(numpy_generator(5))
    rng = numpy_generator(5)
    assert len({seed_of(rng) for _ in range(5)}) == 5, "the generator must advance"


def test_seed_of_none_is_a_new_seed():
    assert len({seed_of(None) for _ in range(5)}) == 5


@pytest.mark.parametrize("seed", [-1, 1.5, "1", 2**30, float("nan"), [1]])
def test_splits_refuse_invalid_seeds(ratings, seed):
    with pytest.raises(ValueError, match="None or a numpy generator for random_state, got"):
        train_test_split(ratings, random_state=seed)


def test_random_split_accepts_numpy_generators_and_none(ratings):
    expected, _ = train_test_split(ratings, random_state=np.random.default_rng(5))
    again, _ = train_test_split(ratings, random_state=np.random.default_rng(5))
    other, _ = train_test_split(ratings, random_state=None)
    assert (expected != again).nnz == 0
    assert (expected != other).nnz > 0


@pytest.mark.parametrize("numpy_generator", [np.random.default_rng, np.random.RandomState])
def test_fit_draws_a_new_seed_from_a_numpy_generator(ratings, numpy_generator):
    """The constructor must not replace a generator by a seed."""
    model = ALL["ALS"](iterations=1, random_state=numpy_generator(5))
    first, first_factors = model.fit(ratings).seed, model.item_factors.clone()
    second = model.fit(ratings).seed
    assert first != second
    assert not torch.equal(first_factors, model.item_factors)
    rng = numpy_generator(5)
    assert [first, second] == [seed_of(rng), seed_of(rng)]


# --- the order of batches -----------------------------------------------------------------------


class Recorder:
    """A model that records the batches and the learning rates of its steps."""

    learning_rate, decay = 0.5, 0.8

    def __init__(self):
        self.visited, self.rates, self.drawn = [], [], []

    def _step(self, batch, learning_rate):
        self.visited.append(batch["place"])
        self.rates.append(learning_rate)
        self.drawn.append(batch.get("draw"))
        return torch.full((batch["place"] + 1,), 1.0 + batch["place"])


BATCHES = [{"place": place} for place in range(11)]


def test_epochs_visit_each_batch_once_in_a_new_order():
    model = Recorder()
    training = epochs(model, BATCHES, generator(0, TRAINING))
    next(training), next(training)
    first, second = model.visited[:11], model.visited[11:]
    assert sorted(first) == sorted(second) == list(range(11))
    assert len({tuple(order) for order in (first, second, range(11))}) == 3


def test_epochs_yield_the_mean_loss_over_all_entries():
    """Batch k has k + 1 entries with the loss k + 1: a mean over batches would be 6."""
    losses = list(itertools.islice(epochs(Recorder(), BATCHES, generator(0, TRAINING)), 3))
    assert losses == [pytest.approx(sum(k * k for k in range(1, 12)) / 66)] * 3


def test_epochs_decay_the_learning_rate_after_each_epoch():
    model = Recorder()
    list(itertools.islice(epochs(model, BATCHES, generator(0, TRAINING)), 3))
    assert np.allclose(model.rates, np.repeat([0.5, 0.4, 0.32], 11))


def test_epochs_draw_in_the_order_of_the_batches():
    """The draws are made one batch ahead in a second thread, but must not get mixed up."""

    def draw(batch, rng):
        return batch | {"draw": (batch["place"], torch.randint(10**9, (), generator=rng).item())}

    model, rng = Recorder(), generator(0, TRAINING)
    list(itertools.islice(epochs(model, BATCHES, rng, draw), 2))
    expected, rng = [], generator(0, TRAINING)
    for _ in range(2):
        for place in torch.randperm(11, generator=rng).tolist():
            expected.append((place, torch.randint(10**9, (), generator=rng).item()))
    assert model.drawn == expected
    assert model.visited == [place for place, _ in expected]


# --- negatives ----------------------------------------------------------------------------------

N_ITEMS = 40
LIKED = {  # the liked items of each user
    "nothing": [],
    "few": [0, 17],
    "first half": [*range(20)],
    "all but two": [i for i in range(N_ITEMS) if i not in (5, 39)],
    "all but one": [*range(1, N_ITEMS)],
}


@pytest.fixture
def liked():
    dense = np.zeros((len(LIKED), N_ITEMS), bool)
    for user, items in enumerate(LIKED.values()):
        dense[user, items] = True
    return dense


def count_draws(unliked, method, n):
    """Return how often each item is drawn in n draws for each user, shape (U, I)."""
    n_users = unliked.likes.shape[0]
    users = torch.arange(n_users).repeat_interleave(n)
    drawn = getattr(unliked, method)(users, generator(0, TRAINING))
    assert drawn.dtype == torch.int64
    counts = np.zeros((n_users, unliked.n_items))
    np.add.at(counts, (users.numpy(), drawn.numpy()), 1)
    return counts


def assert_uniform_over_unliked(counts, liked):
    for draws, likes in zip(counts, liked, strict=True):
        assert not draws[likes].any(), "a liked item was drawn"
        # With the fixed seed this is deterministic; a uniform draw fails for 1 seed in 10,000.
        assert (~likes).sum() == 1 or chisquare(draws[~likes]).pvalue > 1e-4


@pytest.mark.parametrize("method", ["sample", "sample_exactly"])
def test_negatives_are_uniform_over_unliked_items(liked, method):
    """The users like no items, few items or almost all items."""
    unliked = Unliked(sp.csr_matrix(liked))
    assert unliked.count.tolist() == [40, 38, 20, 2, 1]
    assert_uniform_over_unliked(count_draws(unliked, method, 10_000), liked)


@pytest.mark.parametrize("collisions", ["all slots", "every other slot"])
def test_negatives_are_uniform_despite_collisions_in_the_hash_table(liked, collisions):
    """A set slot only means that an item may be liked; unliked items must not be replaced."""
    unliked = Unliked(sp.csr_matrix(liked))
    assert not unliked.perhaps_liked.all(), "otherwise the test would change nothing"
    unliked.perhaps_liked[:: 1 if collisions == "all slots" else 2] = True
    assert_uniform_over_unliked(count_draws(unliked, "sample", 10_000), liked)


def test_negatives_do_not_depend_on_collisions(liked):
    """Only draws of liked items are replaced."""
    users = torch.arange(4).repeat_interleave(500)
    unliked = Unliked(sp.csr_matrix(liked))
    expected = unliked.sample(users, generator(0, TRAINING))
    unliked.perhaps_liked[:] = True
    assert torch.equal(unliked.sample(users, generator(0, TRAINING)), expected)


def test_negatives_accept_users_in_any_order(liked):
    unliked = Unliked(sp.csr_matrix(liked))
    users = torch.tensor([4, 3, 4, 0, 3]).repeat(200)
    drawn = unliked.sample(users, generator(0, TRAINING))
    assert not liked[users, drawn].any()
    assert set(drawn[users == 4].tolist()) == {0}
    assert set(drawn[users == 3].tolist()) == {5, 39}


def test_negatives_of_many_items_are_uniform():
    """A draw modulo 2**16 would prefer the items below 17,536 of 48,000."""
    unliked = Unliked(sp.csr_matrix((1, 48_000), dtype=bool))
    users = torch.zeros(100_000, dtype=torch.long)
    for method in (unliked.sample, unliked.sample_exactly):
        drawn = method(users, generator(0, TRAINING))
        assert abs((drawn < 24_000).double().mean().item() - 0.5) < 4 * 0.5 / np.sqrt(100_000)
        assert abs((drawn < 17_536).double().mean().item() - 17_536 / 48_000) < 0.01


def test_negatives_of_many_users_and_items_are_never_liked():
    """The products of ids exceed 2**32, and the hashes exceed 2**63."""
    rng = np.random.default_rng(0)
    shape = (200_000, 60_000)
    users = np.repeat([0, 1, 99_999, 199_998, 199_999], 30_000)
    items = np.concatenate([rng.permutation(shape[1])[:30_000] for _ in range(5)])
    likes = sp.csr_matrix((np.ones(len(users), bool), (users, items)), shape)
    unliked = Unliked(likes)
    drawn = unliked.sample(torch.from_numpy(users), generator(0, TRAINING))
    drawn = drawn.numpy().copy()  # scipy needs arrays that own their memory
    assert not np.asarray(likes[users, drawn]).any()
    assert len(np.unique(drawn)) > 50_000
    assert unliked.perhaps_liked.double().mean() < 0.2, "most unliked items need no search"


@pytest.mark.parametrize("method", ["sample", "sample_exactly"])
def test_negatives_include_the_first_last_and_only_unliked_items(method):
    likes = sp.csr_matrix(np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool))
    counts = count_draws(Unliked(likes), method, 200)
    drawn = [np.flatnonzero(row).tolist() for row in counts]
    assert drawn == [[1, 2], [0, 1], [2], [0, 1, 2]]


@pytest.mark.parametrize("method", ["sample", "sample_exactly"])
def test_negatives_of_no_users_are_empty(liked, method):
    unliked = Unliked(sp.csr_matrix(liked))
    drawn = getattr(unliked, method)(torch.zeros(0, dtype=torch.long), generator(0, TRAINING))
    assert drawn.tolist() == []


def test_negatives_of_random_likes_are_uniform():
    liked = random_ratings(6, 12, 0.5).toarray() > 0
    counts = count_draws(Unliked(sp.csr_matrix(liked)), "sample", 12_000)
    assert_uniform_over_unliked(counts, liked)
