"""Seeds and random streams, train/test splits, negative sampling.

Integers drawn on the CPU are the same on every machine.
"""

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.inputs import Seed, UserItems, as_csr, seed_of, share
from mflib.sparse import interactions

# One seed yields an independent stream for each purpose. TRAINING covers everything drawn while a
# model is trained: the partition into batches, their order, negatives, sampled entries. Training
# for more iterations only continues that stream.
INIT, TRAINING, SPLIT = range(3)


def generator(seed: int, stream: int) -> torch.Generator:
    """Return the generator of one stream (INIT, TRAINING or SPLIT) of ``seed``."""
    return torch.Generator(device="cpu").manual_seed(3 * seed + stream)


def train_test_split(
    user_items: UserItems, train_percentage: float = 0.8, random_state: Seed = 0
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out random interactions.

    Parameters
    ----------
    user_items : sparse matrix, shape (U, I)
        As in ``fit``, stored zeros are not interactions. The order of the entries does not matter.
    train_percentage : float
        The share of the n interactions to keep for training, between 0 and 1.
    random_state : int, numpy generator or None

    Returns
    -------
    train, test : csr_matrix, shape (U, I)
        float32 or float64 (see ``as_csr``), without common entries. ``train`` has
        round(train_percentage * n) entries.

    Raises
    ------
    ValueError
        ``train_percentage`` is not between 0 and 1.
    """
    train_percentage = share("train_percentage", train_percentage)
    entries = as_csr(user_items).tocoo()
    rng = generator(seed_of(random_state), SPLIT)
    order = torch.randperm(entries.nnz, generator=rng, device="cpu").numpy()
    in_train = np.zeros(entries.nnz, bool)
    in_train[order[: round(train_percentage * entries.nnz)]] = True
    return _select(entries, in_train), _select(entries, ~in_train)


def temporal_user_split(
    user_items: UserItems,
    times: UserItems,
    train_percentage: float = 0.8,
    random_state: Seed = 0,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out the last interactions of each user.

    No user's own later interactions are used for training. Later interactions of other users are,
    because one user may have left before another arrived (Meng, McCreadie, Macdonald, Ounis,
    "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys 2020).

    Parameters
    ----------
    user_items : sparse matrix, shape (U, I)
    times : sparse matrix, shape (U, I)
        The time of each interaction, in any unit, > 0. If an entry is given more than once, the
        latest time counts. Entries without an interaction are ignored.
    train_percentage : float
        The share of each user's interactions to keep for training, between 0 and 1, rounded up.
    random_state : int, numpy generator or None
        Orders interactions of a user that happened at the same time.

    Returns
    -------
    train, test : csr_matrix, shape (U, I)
        See ``train_test_split``.

    Raises
    ------
    ValueError
        ``train_percentage`` is not between 0 and 1, or an interaction has no valid time.
    """
    train_percentage = share("train_percentage", train_percentage)
    entries, when = _with_times(user_items, times)
    rng = generator(seed_of(random_state), SPLIT)
    shuffled = torch.randperm(entries.nnz, generator=rng, device="cpu").numpy()
    order = np.lexsort((shuffled, when, entries.row))
    count = np.bincount(entries.row, minlength=entries.shape[0])
    place = np.empty(entries.nnz, np.int64)  # of each interaction among those of its user
    place[order] = np.arange(entries.nnz) - (count.cumsum() - count)[entries.row[order]]
    kept = np.ceil(np.round(train_percentage * count, 9))  # .55 * 100 is 55.00000000000001
    in_train = place < kept[entries.row]
    return _select(entries, in_train), _select(entries, ~in_train)


def temporal_global_split(
    user_items: UserItems, times: UserItems, train_percentage: float = 0.8
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out all interactions from one date on, so that no training data is later than test data.

    ``train_percentage`` is the share of all interactions that happened before the date. Users
    without earlier interactions are dropped from the test set, because no model here can score
    them. Otherwise see ``temporal_user_split``.

    Raises
    ------
    ValueError
        No interaction is earlier than the date, or see ``temporal_user_split``.
    """
    train_percentage = share("train_percentage", train_percentage)
    entries, when = _with_times(user_items, times)
    if not entries.nnz:
        return _select(entries, when > 0), _select(entries, when > 0)
    date = np.quantile(when, train_percentage, method="higher")
    in_train = when < date
    if not in_train.any():
        raise ValueError(
            f"expected interactions before the date, got none: the first time, {date:g}, is that "
            f"of {(when == date).sum()} of {entries.nnz}; raise train_percentage"
        )
    known = np.bincount(entries.row[in_train], minlength=entries.shape[0]) > 0
    return _select(entries, in_train), _select(entries, ~in_train & known[entries.row])


def _with_times(user_items: UserItems, times: UserItems) -> tuple[sp.coo_matrix, np.ndarray]:
    """Return the n interactions and the time of each."""
    entries = as_csr(user_items).tocoo()
    if not sp.issparse(times) or times.shape != entries.shape:
        got = f"shape {np.shape(times)}" if sp.issparse(times) else type(times).__name__
        raise ValueError(f"expected times as a sparse matrix of shape {entries.shape}, got {got}")
    given = times.tocoo()
    if given.data.dtype.kind not in "biuf" or not np.isfinite(given.data).all():
        raise ValueError(
            "expected finite numbers as times, got NaN, infinity or another type; "
            "leave the interaction out if its time is unknown"
        )
    keys, wanted = (m.row.astype(np.int64) * m.shape[1] + m.col for m in (given, entries))
    latest = pd.Series(given.data, index=keys).groupby(level=0).max()
    when = latest.reindex(wanted).fillna(0).to_numpy()
    if missing := int((when <= 0).sum()):
        got = f"{missing} of {entries.nnz} without one"
        raise ValueError(f"expected a time > 0 for each interaction, got {got}")
    return entries, when


def _select(entries: sp.coo_matrix, chosen: np.ndarray) -> sp.csr_matrix:
    """Return the chosen entries (a boolean mask) as a matrix of the same shape."""
    ids = (entries.row[chosen], entries.col[chosen])
    return sp.csr_matrix((entries.data[chosen], ids), entries.shape)


class Unliked:
    """Draw uniformly from the items that a user does *not* like.

    Most items are unliked, so ``sample`` draws from all items and replaces the few liked ones by
    ``sample_exactly``. A hash table identifies almost all unliked items with a single look-up. Only
    if the slot of an item is set are the user's likes searched.

    Parameters
    ----------
    likes : csr_matrix, shape (U, I)
        Each stored entry is a like. Indices are sorted.

    Attributes
    ----------
    count : int64 tensor, shape (U,)
        The number of items that each user does not like.
    """

    def __init__(self, likes: sp.csr_matrix):
        self.likes, self.n_items = likes.astype(bool), likes.shape[1]
        self.start = torch.from_numpy(likes.indptr).long()  # U + 1
        self.count = self.n_items - self.start.diff()  # U
        users, items = interactions(likes)  # n
        place = torch.arange(len(users), device="cpu") - self.start.index_select(0, users)
        self.keys = users * (self.n_items + 1) + items - place  # n, ascending
        self.bits = max(3, (8 * likes.nnz - 1).bit_length())
        self.perhaps_liked = torch.zeros(1 << self.bits, dtype=torch.bool, device="cpu")
        self.perhaps_liked[self._slots(users, items)] = True

    def _slots(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the slot of each pair in the hash table (Fibonacci hashing, Knuth 6.4)."""
        hashed = (users * self.n_items + items) * -7046029254386353131  # 2**64 / golden ratio
        return (hashed >> (64 - self.bits)) & ((1 << self.bits) - 1)

    def sample(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """Return one unliked item for each of ``users``, none of whom may like all items.

        Parameters
        ----------
        users : int64 tensor, shape (n,)
            Fastest if ascending.
        rng : torch.Generator

        Returns
        -------
        int64 tensor, shape (n,)
        """
        items = torch.randint(self.n_items, users.shape, generator=rng, device="cpu")
        suspects = self.perhaps_liked.index_select(0, self._slots(users, items)).nonzero()[:, 0]
        if not len(suspects):  # scipy would return a sparse matrix for no pairs
            return items
        pairs = (ids.index_select(0, suspects).numpy().copy() for ids in (users, items))
        liked = np.asarray(self.likes[tuple(pairs)]).ravel()
        replaced = suspects[torch.from_numpy(liked)]
        return items.index_copy_(0, replaced, self.sample_exactly(users[replaced], rng))

    def sample_exactly(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """Return unliked items as ``sample`` does, but with a search for each draw.

        Let k_j be the j-th liked item of a user, from j = 0. It is preceded by k_j - j unliked
        items. So the r-th unliked item is r + |{j: k_j - j <= r}|, found by one binary search over
        the keys of all users.
        """
        # With a range this large, the remainder is uniform up to one part in 2**40.
        r = torch.randint(2**62, users.shape, generator=rng, device="cpu")
        r %= self.count.index_select(0, users)
        keys = users * (self.n_items + 1) + r
        place = torch.searchsorted(self.keys, keys, right=True)
        return r + place - self.start.index_select(0, users)
