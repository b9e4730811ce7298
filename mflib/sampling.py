"""Seeds and their streams, splits, negatives.

Integers drawn on the CPU are the same on every machine.
"""

import operator

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import UserItems, as_csr, interactions

# One seed gives each purpose numbers of its own. TRAINING is all that is drawn while a model is
# trained: the order of what is visited, negatives, cells; training longer only continues it.
INIT, TRAINING, SPLIT = range(3)
Seed = int | np.random.Generator | np.random.RandomState | None


def seed_of(random_state: Seed) -> int:
    """A seed: ``random_state`` itself, or drawn from a numpy generator, or anew (None).

    ValueError: it is none of these, or a number below 0 or above 2**62 - 1.
    """
    if random_state is None:
        random_state = np.random.default_rng()
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    try:
        seed = operator.index(random_state)
    except TypeError:
        seed = -1
    if not 0 <= seed < 2**62:
        expected = "a whole number from 0 to 2**62 - 1, None or a numpy generator"
        raise ValueError(f"expected {expected} for random_state, got {random_state!r}")
    return seed


def generator(seed: int, stream: int) -> torch.Generator:
    """The generator of one purpose (INIT, TRAINING or SPLIT) under ``seed``."""
    return torch.Generator().manual_seed(3 * seed + stream)


def train_test_split(
    user_items: UserItems, train_percentage: float = 0.8, random_state: Seed = 0
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out random interactions.

    Parameters
    ----------
    user_items
        Scipy sparse matrix, U x I; as in ``fit``, a stored 0 is no interaction.
    train_percentage
        The share, between 0 and 1, of the n interactions that stay for training.
    random_state
        A seed, None or a numpy generator.

    Returns
    -------
    train, test
        CSR matrices, U x I, float32 or float64 (see ``as_csr``), without a common cell; train has
        round(train_percentage * n) cells. The order of the entries that came in does not matter.

    Raises
    ------
    ValueError
        ``train_percentage`` is not between 0 and 1.
    """
    _check_share(train_percentage)
    cells = as_csr(user_items).tocoo()
    order = torch.randperm(cells.nnz, generator=generator(seed_of(random_state), SPLIT)).numpy()
    in_train = np.zeros(cells.nnz, bool)
    in_train[order[: round(train_percentage * cells.nnz)]] = True
    return _part(cells, in_train), _part(cells, ~in_train)


def temporal_user_split(
    user_items: UserItems,
    times: UserItems,
    train_percentage: float = 0.8,
    random_state: Seed = 0,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out the last interactions of each user.

    Nobody's own future is trained on, but other people's is: of two users, one may have left before
    the other came (Meng, McCreadie, Macdonald, Ounis, "Exploring Data Splitting Strategies for the
    Evaluation of Recommendation Models", RecSys 2020).

    Parameters
    ----------
    user_items
        As of ``train_test_split``.
    times
        Scipy sparse matrix, U x I: when, in any unit above 0; it may have more cells.
    train_percentage
        The share, between 0 and 1, of a user's n interactions that stay for training, rounded up.
    random_state
        What decides between interactions of a user at the same time.

    Returns
    -------
    train, test
        As of ``train_test_split``.

    Raises
    ------
    ValueError
        ``train_percentage`` is not between 0 and 1, or an interaction has no time.
    """
    _check_share(train_percentage)
    cells, when = _timed(user_items, times)
    rng = generator(seed_of(random_state), SPLIT)
    order = np.lexsort((torch.randperm(cells.nnz, generator=rng).numpy(), when, cells.row))
    count = np.bincount(cells.row, minlength=cells.shape[0])
    place = np.empty(cells.nnz, np.int64)  # of each interaction among its user's
    place[order] = np.arange(cells.nnz) - (count.cumsum() - count)[cells.row[order]]
    kept = np.ceil(np.round(train_percentage * count, 9))
    in_train = place < kept[cells.row]
    return _part(cells, in_train), _part(cells, ~in_train)


def temporal_global_split(
    user_items: UserItems, times: UserItems, train_percentage: float = 0.8
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out what happened from one date on: nothing that was trained on is later.

    ``train_percentage`` is the share of all interactions that happened before the date. Of users
    without any before it no model here knows anything: they are left out of the test part.
    Otherwise as ``temporal_user_split``.
    """
    _check_share(train_percentage)
    cells, when = _timed(user_items, times)
    date = np.quantile(when, train_percentage, method="higher")
    in_train = when < date
    known = np.bincount(cells.row[in_train], minlength=cells.shape[0]) > 0
    return _part(cells, in_train), _part(cells, ~in_train & known[cells.row])


def _check_share(train_percentage: float) -> None:
    if not 0 < train_percentage < 1:
        raise ValueError(f"expected a train_percentage between 0 and 1, got {train_percentage}")


def _timed(user_items: UserItems, times: UserItems) -> tuple[sp.coo_matrix, np.ndarray]:
    """The n interactions and the time of each."""
    cells = as_csr(user_items).tocoo()
    if times.shape != cells.shape:
        raise ValueError(f"expected times of shape {cells.shape}, got {times.shape}")
    when = np.asarray(sp.csr_matrix(times)[cells.row, cells.col]).ravel()
    if missing := int((when <= 0).sum()):
        got = f"{missing} of {cells.nnz} without one"
        raise ValueError(f"expected a time above 0 for each interaction, got {got}")
    return cells, when


def _part(cells: sp.coo_matrix, chosen: np.ndarray) -> sp.csr_matrix:
    ids = (cells.row[chosen], cells.col[chosen])
    return sp.csr_matrix((cells.data[chosen], ids), cells.shape)


class Unliked:
    """Uniform draws, without rejection, from the items that a user does *not* have.

    Before a user's j-th item k_j, in order and with j from 0, come k_j - j items that are not the
    user's. So the r-th of these is r + |{j: k_j - j <= r}|, and one binary search over all users
    finds it.

    Parameters
    ----------
    user_items
        CSR matrix, U x I, with sorted indices.

    Attributes
    ----------
    count
        How many items each user does not have, int64 tensor of U.
    """

    def __init__(self, user_items: sp.csr_matrix):
        self.n_items = user_items.shape[1]
        self.start = torch.from_numpy(user_items.indptr).long()  # U + 1
        has = self.start.diff()  # U
        users, items = interactions(user_items)  # n
        place = torch.arange(len(users)) - self.start.index_select(0, users)
        self.keys = users * (self.n_items + 1) + items - place  # n, ascending
        self.count = self.n_items - has

    def sample(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """One item for each of ``users``, none of whom may have all items.

        Parameters
        ----------
        users
            int64 tensor of B ids.
        rng
            The generator that the draws advance.

        Returns
        -------
        int64 tensor of B ids of items.
        """
        # of so large a number, the remainder is uniform but for one part in 2**40
        r = torch.randint(2**62, users.shape, generator=rng) % self.count.index_select(0, users)
        keys = users * (self.n_items + 1) + r
        place = torch.searchsorted(self.keys, keys, right=True)
        return r + place - self.start.index_select(0, users)
