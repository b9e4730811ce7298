"""The best N of scores or of neighbours: in blocks, with filters, ties by id."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mflib.matrices import Ids, as_ids, row_blocks
from mflib.parameters import size
from mflib.threads import pool

Answer = tuple[np.ndarray, np.ndarray]  # ids, scores
Metric = Literal["cosine", "l2"]
ScoresOf = Callable[[slice], Tensor]  # a block of queries -> its scores, B x I


def candidates(n: int, what: str, without: Ids | None, only: Ids | None) -> Tensor:
    """Which of ``n`` users or items may be ranked: those of ``only``, but for those of ``without``.

    Returns a bool tensor of n; None stands for all and for none. Errors are those of ``as_ids``.
    """
    admitted = torch.full((n,), only is None)
    if only is not None:
        admitted[as_ids(only, what, n)] = True
    if without is not None:
        admitted[as_ids(without, what, n)] = False
    return admitted


def best(scores: ScoresOf, queries: int, N: int, admitted: Tensor) -> Answer:
    """The N highest scores of each query, a block of queries at a time.

    Parameters
    ----------
    scores
        The function that gives the scores of a block of queries, a new tensor of B x I, which is
        overwritten; -inf is never ranked.
    queries
        How many queries there are.
    admitted
        Which columns may be ranked, bool tensor of I.

    Returns
    -------
    ids, values
        queries x N, int32 and the scores' type, best first, of equals the lowest id first; where
        fewer are left, the rest is filled with -1 and -inf.

    Raises
    ------
    ValueError
        N is no whole number of at least 1.
    """
    N = size("N", N)

    def best_of_block(rows: slice) -> tuple[Tensor, Tensor]:
        block = scores(rows)
        block[:, ~admitted.to(block.device)] = -torch.inf
        return top(block, N)

    with pool() as threads:
        blocks = row_blocks(queries, numbers_per_row=len(admitted))
        found = list(threads.map(best_of_block, blocks))
    ids, values = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    ids[np.isneginf(values)] = -1
    room = ((0, 0), (0, N - ids.shape[1]))
    padded = np.pad(ids.astype(np.int32), room, constant_values=-1)
    return padded, np.pad(values, room, constant_values=-np.inf)


def top(scores: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """The N highest scores of each row, of equals the lowest id first.

    Parameters
    ----------
    scores
        B x I.

    Returns
    -------
    ids, values
        B x min(N, I), int64 and the scores' type, best first.
    """
    N = min(N, scores.shape[1])
    values, ids = scores.topk(N)
    # topk takes any of several equal scores; the rows where that changes the set are sorted instead
    tied = ((scores >= values[:, -1:]).sum(1) > N).nonzero()[:, 0]
    ids[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :N]
    ids = ids.sort(1).values  # by id, so that the stable sort leaves equals in this order
    values, order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), values


def trimmed(answer: Answer) -> Answer:
    """The answer to a single query: a row without the padding."""
    ids, values = answer[0][0], answer[1][0]
    return ids[ids >= 0], values[ids >= 0]


def nearness(vectors: Tensor, factors: Tensor, metric: Metric) -> Tensor:
    """The cosine of each vector (B x F) and each row of ``factors`` (I x F), 0 where one is zero.

    With "l2" the negative Euclidean distance. Returns B x I; ValueError: another metric.
    """
    if metric == "cosine":
        return unit_rows(vectors) @ unit_rows(factors).T
    if metric == "l2":
        # by products, rounding would put an item at a distance from itself
        return 0 - torch.cdist(vectors, factors, compute_mode="donot_use_mm_for_euclid_dist")
    raise ValueError(f"expected the metric 'cosine' or 'l2', got {metric!r}")


def unit_rows(W: Tensor) -> Tensor:
    """Rows of length 1, zero rows left alone; the squares of tiny numbers would vanish."""
    largest = W.abs().amax(1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
    return torch.nn.functional.normalize(W / largest)
