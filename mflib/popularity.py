"""Popularity: the baseline of every table."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import scipy.sparse as sp
import torch

from mflib.inputs import likes_of
from mflib.model import FactorModel


@dataclass(eq=False, kw_only=True)
class Popularity(FactorModel):
    """Recommend to every user the items with the most likes (values above 0).

    The score is the bias of the item; the single factor is zero. One iteration is enough.
    """

    factors: int = field(default=1, init=False)
    iterations: int = field(default=1, init=False)

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        self._initialise(likes, std=0.0)
        self.item_biases += torch.from_numpy(likes.getnnz(0)).to(self.item_biases)
        return itertools.repeat(0.0)
