"""Every random choice: seeds, splits, negatives. Integers drawn on the CPU are the same on every machine."""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

INIT, ORDER, SPLIT = range(3)  # one stream per purpose: more epochs do not change the split


def generator(random_state: int, stream: int) -> torch.Generator:
    """The generator of one purpose (INIT, ORDER or SPLIT) under the seed ``random_state``."""
    return torch.Generator().manual_seed(3 * int(random_state) + stream)


def train_test_split(
    user_items: sp.spmatrix, train_percentage: float = 0.8, random_state: int = 0
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out random interactions of ``user_items`` (scipy sparse, U x I) -> (train, test), CSR of shape and dtype.

    train has round(train_percentage * n) of the n interactions. ValueError unless 0 < train_percentage < 1.
    """
    if not 0 < train_percentage < 1:
        raise ValueError(f"expected a train_percentage between 0 and 1, got {train_percentage}")
    csr = sp.csr_matrix(user_items, copy=True)
    csr.sum_duplicates()  # sorts, too: the split does not depend on the format, and no cell is in both parts
    coo = csr.tocoo()
    order = torch.randperm(coo.nnz, generator=generator(random_state, SPLIT)).numpy()
    in_train = np.zeros(coo.nnz, bool)
    in_train[order[: round(train_percentage * coo.nnz)]] = True
    train, test = (sp.csr_matrix((coo.data[m], (coo.row[m], coo.col[m])), coo.shape) for m in (in_train, ~in_train))
    return train, test


class Unliked:
    """Uniform draws, without rejection, from what a user does *not* have in ``user_items`` (sorted CSR, U x I).

    Before a user's j-th item k_j, in order, come k_j - j items that are not the user's. So the r-th of these is
    r + |{j: k_j - j <= r}|, and one binary search over all users finds it.
    """

    def __init__(self, user_items: sp.csr_matrix):
        self.n_items = user_items.shape[1]
        self.start = torch.from_numpy(user_items.indptr).long()  # U + 1
        count = self.start.diff()
        users = torch.repeat_interleave(torch.arange(len(count)), count)
        place = torch.arange(len(users)) - self.start.index_select(0, users)
        self.keys = users * (self.n_items + 1) + torch.from_numpy(user_items.indices).long() - place  # n, ascending
        self.count = self.n_items - count  # U: how many items each user does not have

    def sample(self, users: Tensor, rng: torch.Generator) -> Tensor:
        """One item for each of ``users`` (int64, B) -> int64, B. None of them may have all items."""
        r = torch.randint(2**62, users.shape, generator=rng) % self.count.index_select(0, users)
        found = torch.searchsorted(self.keys, users * (self.n_items + 1) + r, right=True)
        return r + found - self.start.index_select(0, users)
