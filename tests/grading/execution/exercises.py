"""The functions of the notebooks' exercises: their outputs, and how inputs are generated.

An exercise that is not listed here cannot be marked; a test says so.
"""

from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class Outputs:
    """The outputs of a function: arguments that it changes in place, by position, and results.

    ``kept``: the places of arguments that must stay as they are. ``choices``: the only admitted
    values of a prediction, of which none is wrong.
    """

    changed: dict[str, int] = field(default_factory=dict)
    returned: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.changed, *self.returned)


EXERCISES = {
    "svd/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "svd/new_user": Outputs({}, ("the bias", "the vector")),
    "svd/ndcg": Outputs({}, ("the NDCG",)),
    "als/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c", "d")),
    "als/smallest_penalty": Outputs({}, ("the penalty",)),
    "als/one_more_like": Outputs({}, ("the inverse", "the vector"), kept=(0, 1, 2)),
    "bpr/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "bpr/chosen": Outputs({}, ("the probability",)),
    "bpr/unliked": Outputs({}, ("the item",)),
    "warp/prediction": Outputs({}, ("the choice",), choices=("a", "b", "c")),
    "warp/objective": Outputs({}, ("the sum",)),
    "warp/average_weight": Outputs({}, ("the average",)),
}


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

    def subset(self, n: int, fraction: float = 0.4) -> list[int]:
        """Return some of 0 … n - 1, ascending; at least one, and not all."""
        order = torch.randperm(n, generator=self.rng)[: max(1, int(fraction * n))]
        return sorted(order.tolist())

    # One call or, as a list of tuples, several.

    def svd_prediction(self) -> list:
        return [()]

    def svd_new_user(self) -> list:
        found = []
        for n in (12, 2, 1):  # also fewer ratings than factors
            Q, b, r = self.real(n, self.factors), self.real(n), self.real(n) + 3
            found.append((Q.numpy(), b.numpy(), 3.2, r.numpy(), *self.rates(1)))
        return found

    def svd_ndcg(self) -> list:
        sizes = ((30, 4, 10), (30, 15, 10), (8, 3, 1), (300, 1, 2), (6, 2, 10), (20, 20, 20))
        found = []
        for n, likes, N in (size for size in sizes for _ in range(2)):
            ranked, liked = (torch.randperm(n, generator=self.rng).numpy() for _ in range(2))
            found.append((ranked, liked[:likes], N))
        return found

    def als_prediction(self) -> list:
        return [()]

    def als_smallest_penalty(self) -> list:
        shapes = ((self.n_users, self.n_items), (self.n_items, 4), (1, 3), (7, 7))
        likes = [(self.real(*shape) > 0.2).double().numpy() for shape in shapes]
        likes = [np.maximum(R, np.eye(*R.shape)) for R in likes]
        return [(R, 10 * rate) for R, rate in zip(likes, self.rates(4), strict=True)]

    def als_one_more_like(self) -> list:
        Y, x = self.real(self.n_items, self.factors), self.real(self.factors)
        inverse = torch.linalg.inv(Y.T @ Y + torch.eye(self.factors).double()).numpy()
        found = [(inverse, x.numpy(), y, 10 * self.rates(1)[0]) for y in Y[:3].numpy()]
        return [*found, (inverse[:1, :1], x[:1].numpy(), Y[0, :1].numpy(), 0.0)]

    def bpr_prediction(self) -> list:
        return [()]

    def bpr_chosen(self) -> list:
        sizes = [(self.whole(2, 12), self.whole(2, 6)) for _ in range(3)]
        found = [(r, n, draws) for n, draws in sizes for r in (1, n // 2 + 1, n)]
        return [*found, (1, 1, 3), (3, 7, 1), (self.whole(1, 900), 1000, 5)]

    def bpr_unliked(self) -> list:
        liked = self.subset(self.n_items)
        others = self.n_items - len(liked)
        return [*((liked, r) for r in range(others)), ([], 4), ([10**9], 10**9)]

    def warp_prediction(self) -> list:
        return [()]

    def warp_objective(self) -> list:
        rows = (4 * self.real(4, self.n_items)).round().div(4).numpy()  # with equal scores
        margins = (0.0, 0.25, 1.0, 1.75)
        pairs = zip(rows, margins, strict=True)
        found = [(row, np.array(self.subset(self.n_items)), margin) for row, margin in pairs]
        nobody, everything = np.array([], int), np.arange(self.n_items)
        return [*found, (rows[0], nobody, 1.0), (rows[1], everything, 1.0)]

    def warp_average_weight(self) -> list:
        sizes = [(self.whole(0, 5), self.whole(6, 40), D) for D in (1, 2, 3, 7, 20)]
        return [(*size, self.real(size[1]).abs().cumsum(0).numpy()) for size in sizes]
