"""Popularity: the baseline of every table."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import scipy.sparse as sp
import torch

from mflib.matrices import likes_of
from mflib.model import FactorModel
from mflib.parameters import Size


@dataclass(eq=False, kw_only=True)
class Popularity(FactorModel):
    """Everybody is recommended what most users like: the score is the number of values above 0.

    It has a single factor, zero.
    """

    factors: Size = 1
    iterations: Size = 1

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        likes = likes_of(user_items)
        self._initialise(likes, std=0.0)
        self.item_biases += torch.from_numpy(likes.getnnz(0)).to(self.device)
        return itertools.repeat(0.0)
