"""Seeds and their streams, the split, negatives.

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
    if not 0 < train_percentage < 1:
        raise ValueError(f"expected a train_percentage between 0 and 1, got {train_percentage}")
    cells = as_csr(user_items).tocoo()
    order = torch.randperm(cells.nnz, generator=generator(seed_of(random_state), SPLIT)).numpy()
    in_train = np.zeros(cells.nnz, bool)
    in_train[order[: round(train_percentage * cells.nnz)]] = True
    return _part(cells, in_train), _part(cells, ~in_train)


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
