"""Inputs for the functions that a student writes, made from a seed, and what comes out of them.

The student's edition carries this file and, in cases.npz, what the reference makes of the same
inputs.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

RUBRIC = tomllib.loads((Path(__file__).parent / "rubric.toml").read_text(encoding="utf-8"))
SEEDS = (0, 1, 2)  # of the student's checks
NAMES = {  # of what a function returns or changes, in order
    "svd_step": ("P", "Q", "b_u", "b_i", "the losses"),
    "over_cells": ("the sum",),
    "conjugate_gradient": ("X",),
    "cholesky": ("X",),
    "bpr_step": ("P", "Q", "b", "the losses"),
    "first_violations": ("the draws needed",),
    "warp_step": ("P", "Q", "the losses", "the draws needed"),
}


class Inputs:
    """Random tensors of a size that depends on the seed, float64."""

    def __init__(self, seed: int):
        self.rng = torch.Generator().manual_seed(seed)
        self.n_users, self.n_items, self.factors = 9 + seed % 5, 12 + seed % 7, 3 + seed % 4
        self.steps = 1 + seed % 3

    def real(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.rng, dtype=torch.float64)

    def ids(self, n: int, size: int) -> torch.Tensor:
        return torch.randint(n, (size,), generator=self.rng)

    def svd_step(self) -> list:
        P, Q = self.real(self.n_users, self.factors), self.real(self.n_items, self.factors)
        users, items = self.ids(self.n_users, 40), self.ids(self.n_items, 40)
        batch = (users, items, self.real(40) + 3, self.real(40).abs())
        return [P, Q, self.real(self.n_users), self.real(self.n_items), 3.1, *batch, 0.02, 0.3]

    def bpr_step(self) -> list:
        P, Q = self.real(self.n_users, self.factors), self.real(self.n_items, self.factors)
        triples = (self.ids(self.n_users, 40), *(self.ids(self.n_items, 40) for _ in range(2)))
        return [P, Q, self.real(self.n_items), *triples, 0.05, 0.3, 0.2]

    def _cells(self, width: int | None = None) -> tuple:
        """The cells of all rows in blocks of ``width`` columns, and the penalty of each row."""
        from mflib.als import weighted_cells

        dense = (self.real(self.n_users, self.n_items) > 0.6).double()
        dense[1, :] = 0
        dense[:, 2] = 0
        dense[0, 0] = -1  # a dislike
        rows, width, blocks = sp.csr_matrix(dense.numpy()), width or self.n_items, []
        for start in range(0, self.n_items, width):
            columns = slice(start, start + width)
            (cells,) = weighted_cells(rows[:, columns], alpha=1.5, dtype=torch.float64)
            blocks.append(cells._replace(columns=columns))
        count = torch.from_numpy(rows.getnnz(1)).double()
        return blocks, 0.7 * count.clamp(min=1).sqrt()[:, None]

    def over_cells(self) -> list:
        X, Y = self.real(self.n_users, self.factors), self.real(self.n_items, self.factors)
        return [self._cells(5)[0], X, Y, lambda xy, excess, cp: cp - excess * xy**2]

    def conjugate_gradient(self) -> list:
        return [
            self.real(self.n_users, self.factors),
            self.real(self.n_items, self.factors),
            *self._cells(5),
            self.steps,
        ]

    def cholesky(self) -> list:
        return [
            self.real(self.n_users, self.factors),
            self.real(self.n_items, self.factors),
            *self._cells(),
        ]

    def first_violations(self) -> list:
        scores, rows = self.real(self.n_users, self.n_items), self.ids(self.n_users, 60)
        draws = torch.randint(self.n_items, (27, 60), generator=self.rng)
        return [lambda rows, items: scores[rows, items], rows, self.real(60) + 1, draws]

    def warp_step(self) -> list:
        P, Q = self.real(self.n_users, self.factors), self.real(self.n_items, self.factors)
        users = torch.randperm(self.n_users, generator=self.rng)[:6]
        likes = (self.real(6, self.n_items) > 0.3).nonzero()
        draws = torch.randint(self.n_items, (15, len(likes)), generator=self.rng)
        weights = torch.cat([torch.zeros(1), 1 / torch.arange(1, self.n_items)]).double().cumsum(0)
        cells = likes[:, 0] * self.n_items + likes[:, 1]
        return [P, Q, users, cells, *likes.T.contiguous(), draws, weights, 0.5, 0.02, 0.3]


def outputs(function: Callable, name: str, seed: int) -> list[np.ndarray]:
    """What ``function``, written for ``name``, changes in place and returns."""
    arguments = getattr(Inputs(seed), name)()
    returned = function(*arguments)
    changed = [a for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point()]
    # names of one to three letters are arguments
    changed = changed[: sum(len(n) <= 3 for n in NAMES[name])]
    returned = returned if isinstance(returned, tuple) else () if returned is None else (returned,)
    return [np.asarray(tensor) for tensor in (*changed, *returned)]


def compare(name: str, got: list[np.ndarray], expected: list[np.ndarray]) -> str | None:
    """What is wrong, in a sentence: number, then shape, then value; or None."""
    if len(got) != len(expected):
        return f"expected {', '.join(NAMES[name])}, got {len(got)} of these {len(expected)}"
    for what, mine, right in zip(NAMES[name], got, expected, strict=True):
        if mine.shape != right.shape:
            return f"in {what} expected the shape {right.shape}, got {mine.shape}"
        if mine.dtype.kind not in "biuf":
            return f"in {what} expected numbers, got {mine.dtype}"
        wrong = ~np.isclose(mine, right, rtol=1e-8, atol=1e-10)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            values = f"expected {right[place]:.6g} at {place}, got {mine[place]:.6g}"
            return f"in {what} {values}; {wrong.mean():.0%} differ"
    return None
