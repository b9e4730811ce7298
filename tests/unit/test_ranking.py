"""The best N: ties, filters, blocks, padding."""

import numpy as np
import pytest
import torch

from mflib.ranking import admitted, best, similarities, top, without_padding


def test_ties_are_broken_by_id():
    scores = torch.tensor([[1.0, 2, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0]])
    ids, values = top(scores, 3)
    assert ids.tolist() == [[1, 2, 4], [0, 1, 2], [0, 1, 2]]
    assert values.tolist() == [[2, 2, 2], [0, 0, 0], [5, 4, 3]]
    many = torch.randint(4, (50, 40), generator=torch.Generator().manual_seed(0)).float()
    expected = many.sort(dim=1, descending=True, stable=True)
    for N in (1, 7, 40, 60):
        ids, values = top(many, N)
        assert torch.equal(ids, expected.indices[:, :N])
        assert torch.equal(values, expected.values[:, :N])


def test_candidates():
    assert admitted(4, "item", None, None).tolist() == [True] * 4
    assert admitted(4, "item", [1], None).tolist() == [True, False, True, True]
    assert admitted(4, "item", None, [1, 2]).tolist() == [False, True, True, False]
    assert admitted(4, "item", [2], [1, 2]).tolist() == [False, True, False, False]
    assert admitted(4, "item", [], []).tolist() == [False] * 4
    assert admitted(4, "item", torch.tensor([2]), torch.tensor([1, 2])).sum() == 1
    with pytest.raises(IndexError, match="item ids from 0 to 3"):
        admitted(4, "item", [4], None)


@pytest.mark.parametrize("block", [1, 12, 10**6])
def test_best_in_blocks_is_the_sort(block, monkeypatch):
    """Queries in blocks, with a column left out and N beyond what is there."""
    monkeypatch.setattr("mflib.inputs.BLOCK", block)
    scores = torch.randint(3, (7, 5), generator=torch.Generator().manual_seed(0)).double()
    admitted = torch.tensor([True, True, False, True, True])
    ids, values = best(lambda rows: scores[rows].clone(), 7, 6, admitted)
    assert ids.dtype == np.int32
    assert ids.shape == values.shape == (7, 6)
    for query in range(7):
        order = sorted([0, 1, 3, 4], key=lambda i: (-scores[query, i], i))
        assert ids[query].tolist() == [*order, -1, -1]
        assert values[query].tolist() == [*scores[query, order].tolist(), -np.inf, -np.inf]


def test_a_single_query_is_trimmed():
    ids, values = best(lambda rows: torch.tensor([[1.0, 3, 2]]), 1, 9, torch.tensor([True] * 3))
    ids, values = without_padding((ids, values))
    assert ids.tolist() == [1, 2, 0]
    assert values.tolist() == [3, 2, 1]


def test_no_query():
    ids, values = best(lambda rows: torch.ones(7, 3)[:0], 0, 2, torch.tensor([True] * 3))
    assert ids.shape == values.shape == (0, 2)


def test_best_refuses():
    with pytest.raises(ValueError, match="at least 1 for N, got 0"):
        best(lambda rows: torch.ones(1, 3), 1, 0, torch.tensor([True] * 3))


def test_nearness_of_zero_and_of_tiny_vectors():
    W = torch.tensor([[0.0, 0], [3, 4], [3e-30, 4e-30]])
    assert torch.allclose(similarities(W, W, "cosine"), torch.tensor([[0.0, 0, 0]] + [[0, 1, 1]] * 2))
    assert torch.allclose(similarities(W, W, "l2")[1], torch.tensor([-5.0, 0, -5]))
    with pytest.raises(ValueError, match="'cosine' or 'l2', got 'dot'"):
        similarities(W, W, "dot")
