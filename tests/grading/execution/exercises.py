"""The functions of the notebooks' exercises: their outputs, and how inputs are generated.

Every exercise must be listed here to be marked; a test checks this.
"""

import numpy as np
import torch

SMALL = -1  # the seed of a case that can be computed by hand


class Drawn:
    """Random numbers, of sizes that depend on the seed."""

    def __init__(self, seed: int):
        self.seed, self.rng = seed, torch.Generator().manual_seed(seed)
        self.n_users, self.n_items = 6 + seed % 7, 11 + seed % 9
        self.factors, self.n = 2 + seed % 5, 40 + seed % 11
        if seed == SMALL:
            self.n_users, self.n_items, self.factors, self.n = 3, 5, 2, 6

    def real(self, *shape: int) -> torch.Tensor:
        numbers = torch.randn(*shape, generator=self.rng, dtype=torch.float64)
        return (10 * numbers).round() / 10 if self.seed == SMALL else numbers

    def model(self) -> list[torch.Tensor]:
        """Return P, Q, b_u, b_i."""
        P, Q = self.real(self.n_users, self.factors), self.real(self.n_items, self.factors)
        return [P, Q, self.real(self.n_users), self.real(self.n_items)]

    def ids(self, n: int, rows: int | None = None) -> torch.Tensor:
        shape = (self.n,) if rows is None else (rows, self.n)
        return torch.randint(n, shape, generator=self.rng)

    def rates(self, how_many: int) -> list[float]:
        """Return learning rates or penalties from 0.02 to 0.42."""
        uniform = torch.rand(how_many, generator=self.rng, dtype=torch.float64)
        return (0.02 + 0.4 * uniform).tolist()

    def whole(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=self.rng))

    # A tuple for one call, or a list of tuples for several.

    def svd_prediction(self) -> list:
        return [()]

    def svd_new_user(self) -> list:
        found = []
        for n in (12, 2, 1):  # includes fewer ratings than factors
            Q, b, r = self.real(n, self.factors), self.real(n), self.real(n) + 3
            found.append((Q.numpy(), b.numpy(), 3.2, r.numpy(), *self.rates(1)))
        return found

    def als_prediction(self) -> list:
        return [()]

    def als_smallest_penalty(self) -> list:
        shapes = ((self.n_users, self.n_items), (self.n_items, 4), (1, 3), (7, 7))
        likes = [(self.real(*shape) > 0.2).double().numpy() for shape in shapes]
        likes = [np.maximum(R, np.eye(*R.shape)) for R in likes]
        return [(R, 10 * rate) for R, rate in zip(likes, self.rates(4), strict=True)]

    def bpr_prediction(self) -> list:
        return [()]

    def bpr_chosen(self) -> list:
        sizes = [(self.whole(2, 12), self.whole(2, 6)) for _ in range(3)]
        found = [(r, n, draws) for n, draws in sizes for r in (1, n // 2 + 1, n)]
        return [*found, (1, 1, 3), (3, 7, 1), (self.whole(1, 900), 1000, 5)]

    def warp_prediction(self) -> list:
        return [()]

    def warp_average_weight(self) -> list:
        sizes = [(self.whole(0, 5), self.whole(6, 40), D) for D in (1, 2, 3, 7, 20)]
        return [(*size, self.real(size[1]).abs().cumsum(0).numpy()) for size in sizes]
