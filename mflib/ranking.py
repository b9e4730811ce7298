"""Top-N rankings in blocks: ties, filters, similarity measures."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mflib.inputs import Ids, as_ids, positive_int
from mflib.sparse import row_blocks
from mflib.training import thread_pool

Ranking: TypeAlias = tuple[np.ndarray, np.ndarray]  # ids, scores
Metric: TypeAlias = Literal["cosine", "l2"]


def admitted(count: int, kind: str, excluded: Ids | None, only: Ids | None) -> Tensor:
    """Return a mask of the users or items that may be ranked.

    Parameters
    ----------
    count : int
        The number of users or items.
    kind : {"user", "item"}
        Used in error messages.
    excluded : ids or None
        Ids to leave out.
    only : ids or None
        The only ids to rank; None admits all.

    Returns
    -------
    bool tensor, shape (count,)

    Raises
    ------
    TypeError, IndexError
        See ``as_ids``.
    """
    mask = torch.full((count,), only is None, device="cpu")
    if only is not None:
        mask[as_ids(only, kind, count)] = True
    if excluded is not None:
        mask[as_ids(excluded, kind, count)] = False
    return mask


def best(scores: Callable[[slice], Tensor], queries: int, N: int, mask: Tensor) -> Ranking:
    """Return the N highest scores of each query, computed in blocks of queries.

    Parameters
    ----------
    scores : callable
        Returns the scores of a block of queries as a new tensor of shape (B, I), which is
        overwritten. A score of -inf is never ranked.
    queries : int
    N : int
    mask : bool tensor, shape (I,)
        The columns that may be ranked.

    Returns
    -------
    ids, values : int32 array and array of the scores' type, shape (queries, min(N, I))
        Best first; ties go to the lowest id. If fewer columns remain, rows are padded with -1 and
        -inf.

    Raises
    ------
    ValueError
        N is not a whole number >= 1, or a score is NaN.
    """
    N = positive_int("N", N)

    def best_of_block(rows: slice) -> tuple[Tensor, Tensor]:
        block = scores(rows)
        block[:, ~mask] = -torch.inf
        return top(block, N)

    with thread_pool(mask.device) as threads:
        blocks = row_blocks(queries, numbers_per_row=max(1, len(mask)))
        rankings = list(threads.map(best_of_block, blocks))
    ids, values = (torch.cat(parts).cpu().numpy() for parts in zip(*rankings, strict=True))
    if np.isnan(values).any():  # torch ranks NaN first
        raise ValueError("expected finite factors, got NaN: have they been changed since fit?")
    ids[np.isneginf(values)] = -1
    return ids.astype(np.int32), values


def top(scores: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """Return the N highest scores of each row; ties go to the lowest id.

    Parameters
    ----------
    scores : tensor, shape (B, I)
    N : int

    Returns
    -------
    ids, values : int64 tensor and tensor of the scores' type, shape (B, min(N, I))
        Best first.
    """
    N = min(N, scores.shape[1])
    values, ids = scores.topk(N)
    # topk returns any of several equal scores. Rows where this changes the set are sorted instead.
    tied = ((scores >= values[:, -1:]).sum(1) > N).nonzero()[:, 0]
    ids[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :N]
    ids = ids.sort(1).values  # by id, so that the stable sort keeps ties in this order
    values, order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), values


def without_padding(ranking: Ranking) -> Ranking:
    """Return the ranking of a single query as 1-D arrays without padding."""
    ids, values = ranking[0][0], ranking[1][0]
    return ids[ids >= 0], values[ids >= 0]


def similarities(vectors: Tensor, factors: Tensor, metric: Metric) -> Tensor:
    """Return the similarity of each vector to each row of ``factors``.

    Parameters
    ----------
    vectors, factors : tensors, shapes (B, F) and (I, F)
    metric : {"cosine", "l2"}
        The cosine (0 where either vector is zero), or the negative Euclidean distance.

    Returns
    -------
    tensor, shape (B, I)

    Raises
    ------
    ValueError
        The metric is unknown.
    """
    if metric == "cosine":
        return unit_rows(vectors) @ unit_rows(factors).T
    if metric == "l2":
        # With matrix products, rounding would make the distance of an item to itself nonzero.
        return 0 - torch.cdist(vectors, factors, compute_mode="donot_use_mm_for_euclid_dist")
    raise ValueError(f"expected the metric 'cosine' or 'l2', got {metric!r}")


def unit_rows(W: Tensor) -> Tensor:
    """Return the rows of W scaled to length 1; zero rows stay zero."""
    # Scale by the largest element first, because squares of tiny numbers would underflow.
    largest = W.abs().amax(1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
    return torch.nn.functional.normalize(W / largest)
