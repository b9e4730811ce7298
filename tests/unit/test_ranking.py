"""Top-N rankings: ties, filters, blocks, padding, similarity measures."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import Fixed

from mflib.ranking import admitted, best, similarities, top, unit_rows, without_padding


def everything(n):
    """Return the mask that admits all of n columns."""
    return torch.ones(n, dtype=torch.bool)


# --- the N highest scores -----------------------------------------------------------------------


def test_top_breaks_ties_by_lowest_id():
    scores = torch.tensor([[1.0, 2, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0]])
    ids, values = top(scores, 3)
    assert ids.tolist() == [[1, 2, 4], [0, 1, 2], [0, 1, 2]]
    assert values.tolist() == [[2, 2, 2], [0, 0, 0], [5, 4, 3]]


@pytest.mark.parametrize("N", [1, 7, 40, 60])
def test_top_equals_a_stable_sort_of_many_ties(N):
    scores = torch.randint(4, (50, 40), generator=torch.Generator().manual_seed(0)).float()
    expected = scores.sort(dim=1, descending=True, stable=True)
    ids, values = top(scores, N)
    assert torch.equal(ids, expected.indices[:, :N])
    assert torch.equal(values, expected.values[:, :N])


def test_top_does_not_change_the_scores():
    scores = torch.tensor([[1.0, 2, 2, 0]])
    top(scores, 1)
    assert scores.tolist() == [[1, 2, 2, 0]]


@pytest.mark.parametrize("block", [1, 12, 10**6])
@pytest.mark.parametrize("N", [1, 3, 5, 6, 10**12])
def test_best_equals_a_sort_of_the_admitted_columns(block, N, monkeypatch):
    """Lists are no longer than the number of columns and padded where a column is left out."""
    monkeypatch.setattr("mflib.sparse.BLOCK", block)
    scores = torch.randint(3, (7, 5), generator=torch.Generator().manual_seed(0)).double()
    mask = torch.tensor([True, True, False, True, True])
    ids, values = best(lambda rows: scores[rows].clone(), 7, N, mask)
    n = min(N, 5)
    assert ids.dtype == np.int32
    assert values.dtype == np.float64
    assert ids.shape == values.shape == (7, n)
    for query in range(7):
        order = sorted([0, 1, 3, 4], key=lambda i: (-scores[query, i], i))
        assert ids[query].tolist() == [*order, -1][:n]
        assert values[query].tolist() == [*scores[query, order].tolist(), -np.inf][:n]


def test_best_computes_blocks_within_the_bound(monkeypatch):
    monkeypatch.setattr("mflib.sparse.BLOCK", 12)
    sizes = []

    def scores(rows):
        sizes.append(rows.stop - rows.start)
        return torch.zeros(sizes[-1], 5)

    best(scores, 7, 2, everything(5))
    assert sorted(sizes) == [1, 2, 2, 2]


def test_best_without_queries_is_empty():
    ids, values = best(lambda rows: torch.ones(7, 3)[:0], 0, 2, everything(3))
    assert ids.shape == values.shape == (0, 2)


@pytest.mark.parametrize("N", [0, -1, 1.5, "3", None, True, 10**400, float("nan")])
def test_best_refuses_invalid_lengths(N):
    with pytest.raises(ValueError, match="expected a whole number >= 1 for N, got"):
        best(lambda rows: torch.ones(1, 3), 1, N, everything(3))


def test_best_refuses_nan():
    """Torch ranks NaN first; a list of such items would look like a good one."""
    scores = torch.tensor([[1.0, 2, 3], [1, torch.nan, 3]])
    with pytest.raises(ValueError, match="expected finite factors, got NaN"):
        best(lambda rows: scores[rows].clone(), 2, 1, everything(3))
    # NaN in a column that is not ranked does not matter.
    ids, _ = best(lambda rows: scores[rows].clone(), 2, 1, torch.tensor([True, False, True]))
    assert ids.tolist() == [[2], [2]]


def test_without_padding_returns_one_dimension():
    scores = torch.tensor([[1.0, 3, -torch.inf, 2]])
    ids, values = without_padding(best(lambda rows: scores.clone(), 1, 9, everything(4)))
    assert ids.tolist() == [1, 3, 0]
    assert values.tolist() == [3, 2, 1]


def test_admitted_combines_both_filters():
    assert admitted(4, "item", None, None).tolist() == [True] * 4
    assert admitted(4, "item", [1], None).tolist() == [True, False, True, True]
    assert admitted(4, "item", None, [1, 2]).tolist() == [False, True, True, False]
    assert admitted(4, "item", [2], [1, 2]).tolist() == [False, True, False, False]
    assert admitted(4, "item", [], []).tolist() == [False] * 4
    assert admitted(4, "item", torch.tensor([2]), np.array([1, 2])).tolist() == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("filters", [([4], None), (None, [4]), ([-1], None)])
def test_admitted_refuses_ids_that_do_not_exist(filters):
    with pytest.raises(IndexError, match="item ids from 0 to 3"):
        admitted(4, "item", *filters)


# --- recommendations ----------------------------------------------------------------------------

SCORES = np.array([[1.0, 2, 2, 0, 3, 2], [5, 5, 5, 5, 5, 5]])
LIKES = sp.csr_matrix(np.array([[0, 0, 0, 0, 1, 0], [1, 0, -1, 0, 0, 0]]))


def test_recommend_breaks_ties_by_lowest_id():
    ids, scores = Fixed(SCORES).recommend([0, 1], None, N=3, filter_already_liked_items=False)
    assert ids.tolist() == [[4, 1, 2], [0, 1, 2]]
    assert scores.tolist() == [[3, 2, 2], [5, 5, 5]]


def test_recommend_leaves_out_stored_entries_including_dislikes():
    ids, _ = Fixed(SCORES).recommend([0, 1], LIKES, N=3)
    assert ids.tolist() == [[1, 2, 5], [1, 3, 4]]


def test_recommend_applies_all_filters():
    ids, _ = Fixed(SCORES).recommend([0, 1], LIKES, N=6, filter_items=[1], items=[0, 1, 2, 4])
    assert ids.tolist() == [[2, 0, -1, -1, -1, -1], [4, -1, -1, -1, -1, -1]]


@pytest.mark.parametrize("N", [6, 7, 10**12])
def test_recommend_lists_are_not_longer_than_the_catalogue(N):
    model = Fixed(SCORES)
    ids, scores = model.recommend([0, 1], LIKES, N=N)
    assert ids.tolist() == [[1, 2, 5, 0, 3, -1], [1, 3, 4, 5, -1, -1]]
    assert scores.tolist() == [[2, 2, 2, 1, 0, -np.inf], [5, 5, 5, 5, -np.inf, -np.inf]]
    ids, scores = model.recommend(1, LIKES[1], N=N)
    assert ids.tolist() == [1, 3, 4, 5]
    assert scores.tolist() == [5] * 4


def test_recommend_refuses_factors_with_nan():
    model = Fixed(SCORES)
    model.user_factors[1, 3] = torch.nan
    assert model.recommend(0, LIKES[0], N=1)[0].tolist() == [1], "other users are not affected"
    with pytest.raises(ValueError, match="got NaN: have they been changed since fit"):
        model.recommend([0, 1], LIKES)


# --- similar items ------------------------------------------------------------------------------


def with_item_factors(vectors):
    """Return a model whose item factors are the given vectors."""
    model = Fixed(np.zeros((2, len(vectors))))
    model.item_factors = torch.as_tensor(vectors)
    return model


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similar_items_put_the_query_first_despite_rounding(metric, dtype):
    """Parallel vectors have cosines of 1 up to rounding, some of them above the query's own."""
    rng = torch.Generator().manual_seed(0)
    direction = torch.randn(1, 16, generator=rng, dtype=torch.float64)
    lengths = torch.rand(300, 1, generator=rng, dtype=torch.float64) + 0.5
    vectors = (lengths * direction).to(dtype)
    cosines = similarities(vectors, vectors, "cosine")
    assert (cosines.argmax(1) != torch.arange(300)).any(), "rounding must matter in this case"
    ids, values = with_item_factors(vectors).similar_items(np.arange(300), N=5, metric=metric)
    assert ids[:, 0].tolist() == list(range(300))
    assert all(len(set(row)) == 5 for row in ids.tolist())
    assert (values[:, 0] == (1 if metric == "cosine" else 0)).all()
    if metric == "cosine":
        assert np.allclose(values, 1, atol=1e-6)


def test_similar_items_of_identical_vectors_put_the_query_first():
    model = with_item_factors(torch.ones(4, 2))
    for metric in ("cosine", "l2"):
        ids, _ = model.similar_items(np.arange(4), N=9, metric=metric)
        assert ids.tolist() == [[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]]


def test_similar_items_filters_apply_to_the_query():
    model = with_item_factors(torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1]]))
    assert model.similar_items(0)[0].tolist() == [0, 1, 2, 3]
    assert model.similar_items(0, filter_items=[0])[0].tolist() == [1, 2, 3]
    assert model.similar_items(0, items=[2, 3])[0].tolist() == [2, 3]
    assert model.similar_items(0, filter_items=[2], items=[2, 0])[0].tolist() == [0]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_items_handles_zero_vectors(metric):
    """The cosine of a zero vector with any vector, including itself, is 0."""
    model = with_item_factors(torch.tensor([[0.0, 0], [3, 4], [0, 0], [-3, -4]]))
    ids, values = model.similar_items([0, 1, 2], N=4, metric=metric)
    if metric == "cosine":
        assert ids.tolist() == [[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3]]
        assert values.tolist() == [[0] * 4, pytest.approx([1, 0, 0, -1]), [0] * 4]
    else:
        assert ids.tolist() == [[0, 2, 1, 3], [1, 0, 2, 3], [2, 0, 1, 3]]
        assert values.tolist() == [[0, 0, -5, -5], [0, -5, -5, -10], [0, 0, -5, -5]]


def test_similar_items_lists_are_not_longer_than_the_catalogue():
    model = with_item_factors(torch.eye(3))
    assert model.similar_items([0, 2], N=10**12)[0].tolist() == [[0, 1, 2], [2, 0, 1]]
    assert model.similar_items(2, N=10**12)[0].tolist() == [2, 0, 1]


def test_similar_items_refuse_factors_with_nan():
    vectors = torch.eye(3)
    vectors[1] = torch.nan
    with pytest.raises(ValueError, match="expected finite factors, got NaN"):
        with_item_factors(vectors).similar_items(0, N=1, items=[1, 2])


def test_similarities_equal_their_definitions(draw):
    X, Y = draw(3, 4), draw(5, 4)
    cosine = [[x @ y / (x.norm() * y.norm()) for y in Y] for x in X]
    distance = [[-(x - y).norm() for y in Y] for x in X]
    assert torch.allclose(similarities(X, Y, "cosine"), torch.tensor(cosine).double())
    assert torch.allclose(similarities(X, Y, "l2"), torch.tensor(distance).double())


def test_similarities_by_distance_are_exact_for_nearly_equal_vectors():
    """Matrix products, |x|^2 - 2 x·y + |y|^2, would lose these distances to rounding."""
    W = 1000 + torch.arange(40.0)[:, None] * torch.tensor([2**-12, 0.0])
    steps = torch.arange(40.0) * 2**-12
    assert torch.equal(similarities(W, W, "l2"), -(steps[:, None] - steps).abs())


def test_similarities_handle_zero_tiny_and_huge_vectors():
    """The squares of 3e-30 and 3e30 are not representable in float32."""
    W = torch.tensor([[0.0, 0], [3, 4], [3e-30, 4e-30], [3e30, 4e30]])
    expected = torch.tensor([[0.0, 0, 0, 0]] + [[0, 1, 1, 1]] * 3)
    assert torch.allclose(similarities(W, W, "cosine"), expected)
    assert torch.allclose(similarities(W, W, "l2")[1, :3], torch.tensor([-5.0, 0, -5]))
    assert torch.allclose(unit_rows(W), torch.tensor([[0.0, 0]] + [[0.6, 0.8]] * 3))


def test_similarities_refuse_unknown_metrics():
    with pytest.raises(ValueError, match="expected the metric 'cosine' or 'l2', got 'dot'"):
        similarities(torch.eye(2), torch.eye(2), "dot")
