"""The kernels compared with textbook loops, finite differences and dense algebra."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings
from torch.nn.functional import logsigmoid

from mflib import ALS, BPR, SVD, WARP
from mflib.als import cholesky, conjugate_gradient, weighted_entries
from mflib.bpr import bpr_step, hardest
from mflib.sparse import Entries
from mflib.svd import svd_step
from mflib.training import row_rates
from mflib.warp import cut_into_rows, first_violations, harmonic_numbers, scorer, warp_step

N_USERS, N_ITEMS, F, B = 7, 9, 4, 40  # a batch has more entries than there are users or items
LR, REG = 0.03, 0.2


@pytest.fixture
def ids():
    """Return a function that draws n random ids below a bound."""
    rng = torch.Generator().manual_seed(3)
    return lambda bound, n=B: torch.randint(bound, (n,), generator=rng)


def after(params, step):
    """Return copies of ``params`` that ``step(*copies)`` has updated in place, and its result."""
    copies = [p.clone() for p in params]
    return copies, step(*copies)


def assert_equal(got, expected, tolerance=1e-12):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), (a - b).abs().max()


def assert_descends(before, got, objective, learning_rate):
    """Check that the step from ``before`` to ``got`` is -learning_rate times the gradient.

    The gradient of ``objective(*params)`` is computed by central differences.
    """
    h = 1e-5
    for k, (old, new) in enumerate(zip(before, got, strict=True)):
        gradient = torch.zeros_like(old)
        for place in range(old.numel()):
            values = []
            for shift in (h, -h):
                params = [p.clone() for p in before]
                params[k].view(-1)[place] += shift
                values.append(float(objective(*params)))
            gradient.view(-1)[place] = (values[0] - values[1]) / (2 * h)
        assert gradient.abs().max() > 0.1, "the check needs a gradient that is not zero"
        assert torch.allclose((old - new) / learning_rate, gradient, rtol=1e-6, atol=1e-6)


def assert_bounded(rates, learning_rate, rows):
    """Check that the bound is active for "no", "some" or "all" of the ``rates`` (a dict)."""
    active = [rate < learning_rate for rate in rates.values()]
    assert {"no": not any(active), "some": any(active) and not all(active), "all": all(active)}[
        rows
    ]


# --- SVD ----------------------------------------------------------------------------------------


@pytest.fixture
def svd_case(draw, ids):
    """Return parameters, mu and a batch; the last user and the last item have no entries."""
    params = (draw(N_USERS, F), draw(N_ITEMS, F), draw(N_USERS), draw(N_ITEMS))
    entries = Entries.at(ids(N_USERS - 1).sort().values, ids(N_ITEMS - 1), (N_USERS, N_ITEMS))
    pairs = set(zip(entries.rows.tolist(), entries.columns.tolist(), strict=True))
    assert len(pairs) < B, "some entries must be duplicates"
    return params, 3.5, (entries, draw(B) + 3)


def svd_loop(params, mu, entries, ratings, learning_rate):
    """Return the updated parameters and the losses, one rating at a time."""
    (P0, Q0, bu0, bi0), (P, Q, bu, bi) = params, [p.clone() for p in params]
    users, items = entries.rows.tolist(), entries.columns.tolist()
    rate_u = {u: min(learning_rate, 1 / n) for u, n in Counter(users).items()}
    rate_i = {i: min(learning_rate, 1 / n) for i, n in Counter(items).items()}
    losses = []
    for u, i, r in zip(users, items, ratings.tolist(), strict=True):
        e = r - mu - float(bu0[u]) - float(bi0[i]) - float(P0[u] @ Q0[i])
        P[u] += rate_u[u] * (e * Q0[i] - REG * P0[u])
        Q[i] += rate_i[i] * (e * P0[u] - REG * Q0[i])
        bu[u] += rate_u[u] * (e - REG * bu0[u])
        bi[i] += rate_i[i] * (e - REG * bi0[i])
        losses.append(e**2 / 2)
    return (P, Q, bu, bi), torch.tensor(losses, dtype=torch.float64), (rate_u, rate_i)


@pytest.mark.parametrize(("learning_rate", "rows"), [(0.03, "no"), (0.15, "some"), (5.0, "all")])
def test_svd_step_equals_the_textbook_loop(svd_case, learning_rate, rows):
    """The learning rates cover rows with and without the bound 1 / n."""
    params, mu, batch = svd_case
    expected, expected_losses, rates = svd_loop(params, mu, *batch, learning_rate)
    assert_bounded(rates[0], learning_rate, rows)
    assert_bounded(rates[1], learning_rate, rows)
    got, losses = after(params, lambda *copies: svd_step(*copies, mu, *batch, learning_rate, REG))
    assert_equal(got, expected)
    assert_equal([losses], [expected_losses])
    assert torch.equal(got[0][-1], params[0][-1]), "a user without entries does not move"
    assert torch.equal(got[1][-1], params[1][-1]), "an item without entries does not move"


def test_svd_step_descends_the_stated_objective(svd_case):
    params, mu, (entries, r) = svd_case
    u, i = entries.rows.long(), entries.columns.long()

    def objective(P, Q, b_u, b_i):
        errors = r - mu - b_u[u] - b_i[i] - (P[u] * Q[i]).sum(1)
        penalty = b_u[u] ** 2 + b_i[i] ** 2 + (P[u] ** 2).sum(1) + (Q[i] ** 2).sum(1)
        return (errors**2 / 2 + REG / 2 * penalty).sum()

    got, _ = after(params, lambda *copies: svd_step(*copies, mu, entries, r, LR, REG))
    assert_descends(params, got, objective, LR)


def test_svd_step_on_one_rating_is_the_classical_update():
    P, Q = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    b_u, b_i, one = torch.tensor([0.5]), torch.tensor([-0.5]), torch.ones(1)
    entries = Entries.at(torch.tensor([0]), torch.tensor([0]), (1, 1))
    loss = svd_step(P, Q, b_u, b_i, 3.0, entries, 5 * one, 0.5, 0.25)  # the error is 1
    assert loss.tolist() == [0.5]
    assert P.tolist() == [[1 + 0.5 * (3 - 0.25), 2 + 0.5 * (-1 - 0.5)]]
    assert Q.tolist() == [[3 + 0.5 * (1 - 0.75), -1 + 0.5 * (2 + 0.25)]]
    assert b_u.tolist() == [0.5 + 0.5 * (1 - 0.125)]
    assert b_i.tolist() == [-0.5 + 0.5 * (1 + 0.125)]


def test_row_rates_are_bounded_by_the_count():
    counts = torch.tensor([0.0, 1, 2, 3, 8])
    rates = row_rates(0.5, counts, 1.0)
    assert torch.allclose(rates, torch.tensor([0.5, 0.5, 0.5, 1 / 3, 1 / 8]))
    assert torch.allclose(row_rates(0.5, counts, 4.0), torch.full((5,), 0.5))
    assert row_rates(10.0, counts, 4.0).tolist() == pytest.approx([4, 4, 2, 4 / 3, 0.5])
    assert counts.tolist() == [0, 1, 2, 3, 8], "the counts must not be changed"
    assert row_rates(0.5, counts.double(), 1.0).dtype == torch.float64


def test_svd_visits_each_rating_once_per_iteration(ratings, monkeypatch):
    batches, means = [], set()

    def spy(entries, ratings, mu, **others):
        batches.append((entries.rows, entries.columns, ratings))
        means.add(mu)
        return torch.zeros(1)

    monkeypatch.setattr("mflib.svd.svd_step", spy)
    SVD(3, iterations=2, batches=5, dtype=torch.float64).fit(ratings)
    assert [*means] == pytest.approx([ratings.data.mean()])
    for epoch in (batches[:5], batches[5:]):
        rows, columns, values = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        matrix = sp.csr_matrix((values, (rows, columns)), ratings.shape)
        assert len(values) == ratings.nnz
        assert (matrix != ratings).nnz == 0


# --- BPR ----------------------------------------------------------------------------------------

REG_U, REG_I = 0.2, 0.07


@pytest.fixture
def bpr_case(draw, ids):
    """Return parameters and a batch; the last user and the last item have no triples."""
    likes = Entries.at(ids(N_USERS - 1).sort().values, ids(N_ITEMS - 1), (N_USERS, N_ITEMS))
    negatives = ids(N_ITEMS - 1)
    triples = list(
        zip(likes.rows.tolist(), likes.columns.tolist(), negatives.tolist(), strict=True)
    )
    assert {i for _, i, _ in triples} & {j for _, _, j in triples}, (
        "some item must occur both as i and as j"
    )
    assert len({(u, i) for u, i, _ in triples}) < B, "some likes must be duplicates"
    return (draw(N_USERS, F), draw(N_ITEMS, F), draw(N_ITEMS)), likes, negatives


def bpr_loop(params, likes, negatives, learning_rate):
    """Return the updated parameters and the losses, one triple at a time."""
    (P0, Q0, b0), (P, Q, b) = params, [p.clone() for p in params]
    users, positives, others = likes.rows.tolist(), likes.columns.tolist(), negatives.tolist()
    rate_u = {u: min(learning_rate, 4 / n) for u, n in Counter(users).items()}
    rate_i = {i: min(learning_rate, 4 / n) for i, n in Counter(positives + others).items()}
    losses = []
    for u, i, j in zip(users, positives, others, strict=True):
        x = float(b0[i] - b0[j] + P0[u] @ (Q0[i] - Q0[j]))
        g = 1 / (1 + math.exp(x))
        P[u] += rate_u[u] * (g * (Q0[i] - Q0[j]) - REG_U * P0[u])
        Q[i] += rate_i[i] * (g * P0[u] - REG_I * Q0[i])
        Q[j] += rate_i[j] * (-g * P0[u] - REG_I * Q0[j])
        b[i] += rate_i[i] * (g - REG_I * b0[i])
        b[j] += rate_i[j] * (-g - REG_I * b0[j])
        losses.append(math.log(1 + math.exp(-x)))
    return (P, Q, b), torch.tensor(losses, dtype=torch.float64), (rate_u, rate_i)


@pytest.mark.parametrize(("learning_rate", "rows"), [(0.03, "no"), (0.55, "some"), (5.0, "all")])
def test_bpr_step_equals_the_textbook_loop(bpr_case, learning_rate, rows):
    """The learning rates cover rows with and without the bound 4 / count."""
    params, likes, negatives = bpr_case
    expected, expected_losses, rates = bpr_loop(params, likes, negatives, learning_rate)
    assert_bounded(rates[0] | {-1 - i: rate for i, rate in rates[1].items()}, learning_rate, rows)
    got, losses = after(
        params,
        lambda *copies: bpr_step(*copies, likes, negatives, learning_rate, REG_U, REG_I),
    )
    assert_equal(got, expected)
    assert_equal([losses], [expected_losses])
    assert torch.equal(got[0][-1], params[0][-1]), "a user without triples does not move"
    assert torch.equal(got[1][-1], params[1][-1]), "an item without triples does not move"


def test_bpr_step_descends_the_stated_objective(bpr_case):
    params, likes, j = bpr_case
    u, i = likes.rows.long(), likes.columns.long()

    def objective(P, Q, b):
        x = b[i] - b[j] + (P[u] * (Q[i] - Q[j])).sum(1)
        items = (Q[i] ** 2).sum(1) + (Q[j] ** 2).sum(1) + b[i] ** 2 + b[j] ** 2
        return (-logsigmoid(x) + REG_U / 2 * (P[u] ** 2).sum(1) + REG_I / 2 * items).sum()

    got, _ = after(params, lambda *copies: bpr_step(*copies, likes, j, LR, REG_U, REG_I))
    assert_descends(params, got, objective, LR)


@pytest.mark.parametrize("draws", [1, 2, 5])
def test_hardest_equals_an_explicit_search(draw, ids, draws):
    """Parameters are rounded so that scores tie; the first tied candidate must be returned."""
    n_users, n_items = 20, 30
    P, Q, b = (draw(*shape).round() for shape in ((n_users, 2), (n_items, 2), (n_items,)))
    likes = Entries.at(ids(n_users).sort().values, ids(n_items), (n_users, n_items))
    candidates = ids(n_items, B * draws).view(B, draws)
    expected, ties = [], 0
    for u, row in zip(likes.rows.tolist(), candidates.tolist(), strict=True):
        scores = [float(b[j] + P[u] @ Q[j]) for j in row]
        expected.append(row[scores.index(max(scores))])
        ties += len({j for j, score in zip(row, scores, strict=True) if score == max(scores)}) > 1
    assert ties or draws == 1, "the case must have ties between different items"
    assert hardest(P, Q, b, likes, candidates).tolist() == expected


def test_bpr_visits_each_like_once_per_iteration_with_unliked_candidates(ratings, monkeypatch):
    """User 5, who likes all items but one in ``ratings``, likes all items here."""
    dense = ratings.toarray()
    dense[5] = 1
    batches = []

    def spy(P, Q, b, likes, candidates):
        batches.append((likes.rows.long(), likes.columns.long(), candidates))
        return hardest(P, Q, b, likes, candidates)

    monkeypatch.setattr("mflib.bpr.hardest", spy)
    BPR(3, iterations=2, batches=4, draws=5).fit(sp.csr_matrix(dense))
    liked = dense > 0
    trainable = liked.copy()
    trainable[5] = False  # a user without unliked items has no pairs
    for epoch in (batches[:4], batches[4:]):
        rows, columns, candidates = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        visits = np.zeros(dense.shape)
        np.add.at(visits, (rows.numpy(), columns.numpy()), 1)
        assert (visits == trainable).all()
        assert candidates.shape == (trainable.sum(), 5)
        assert not liked[rows[:, None].numpy(), candidates.numpy()].any()
        assert len(candidates.unique(dim=1).T) == 5, "the draws of a like must differ"
    first, second = (torch.cat([batch[2] for batch in part]) for part in (batches[:4], batches[4:]))
    assert not torch.equal(first, second), "each iteration draws new candidates"


def test_bpr_step_receives_the_hardest_candidate(ratings, monkeypatch):
    """The parameter ``draws`` and both penalties must reach the kernel."""
    calls = []

    def spy(P, Q, b, likes, negatives, user_regularization, item_regularization, **others):
        calls.append((negatives, user_regularization, item_regularization))
        return torch.zeros(len(likes))

    monkeypatch.setattr("mflib.bpr.hardest", lambda P, Q, b, likes, candidates: candidates[:, -1])
    monkeypatch.setattr("mflib.bpr.bpr_step", spy)
    seen = []
    for draws in (1, 3):
        calls.clear()
        options = {"user_regularization": 0.3, "item_regularization": 0.4, "random_state": 1}
        BPR(3, iterations=1, batches=1, draws=draws, **options).fit(ratings)
        ((negatives, *penalties),) = calls
        assert penalties == [0.3, 0.4]
        seen.append(negatives)
    assert len(seen[0]) == len(seen[1]) == ratings.nnz
    assert not torch.equal(*seen), "the number of draws must reach the sampler"


@pytest.mark.parametrize("draws", [1, 4])
def test_bpr_fits_a_matrix_smaller_than_its_candidates(draws):
    """One batch has more candidates than the matrix has positions."""
    model = BPR(2, iterations=60, batches=1, draws=draws).fit(sp.csr_matrix(np.eye(2)))
    assert (model.scores([0, 1]).argmax(1) == torch.arange(2)).all()


# --- WARP ---------------------------------------------------------------------------------------


@pytest.fixture
def warp_case(draw, ids):
    """Return factors and a block of four rows, two of one user, with 15 draws per positive."""
    users = torch.tensor([5, 0, 3, 0])
    liked = [[0, 4, 8], [2, 4], [1, 2, 3, 5, 6], [2, 4]]
    known = torch.tensor([row * N_ITEMS + i for row, items in enumerate(liked) for i in items])
    trained = known[1:-2]  # some likes are known but not trained on in this block
    rows, positives = trained // N_ITEMS, trained % N_ITEMS
    draws = ids(N_ITEMS, 15 * len(rows)).view(15, -1)
    weights = [sum(1 / k for k in range(1, r + 1)) for r in range(N_ITEMS)]
    return (
        (draw(N_USERS, F), draw(N_ITEMS, F)),
        users,
        liked,
        (known, rows, positives, draws),
        torch.tensor(weights, dtype=torch.float64),
    )


def warp_loop(params, users, liked, rows, positives, draws, weights, margin):
    """Return the updated factors, losses and numbers of draws, one positive at a time."""
    (P0, Q0), (P, Q) = params, [p.clone() for p in params]
    losses, needed = [], []
    for row, i, candidates in zip(rows.tolist(), positives.tolist(), draws.T.tolist(), strict=True):
        u = users[row]
        limit = P0[u] @ Q0[i] - margin
        violations = (
            d for d, j in enumerate(candidates, 1) if j not in liked[row] and P0[u] @ Q0[j] > limit
        )
        d = next(violations, 0)
        needed.append(d)
        if d == 0:
            losses.append(0.0)
            continue
        j, L = candidates[d - 1], weights[(N_ITEMS - 1) // d]
        losses.append(float(L * (margin - P0[u] @ Q0[i] + P0[u] @ Q0[j])))
        P[u] += LR * (L * (Q0[i] - Q0[j]) - REG * P0[u])
        Q[i] += LR * (L * P0[u] - REG * Q0[i])
        Q[j] += LR * (-L * P0[u] - REG * Q0[j])
    return (P, Q), losses, needed


@pytest.mark.parametrize("wide", [0, 1000])
@pytest.mark.parametrize("margin", [-2.0, 0.5])
def test_warp_step_equals_the_textbook_loop(warp_case, margin, wide, monkeypatch):
    monkeypatch.setattr("mflib.warp.WIDE", wide)
    params, users, liked, batch, weights = warp_case
    got, (losses, needed) = after(
        params, lambda P, Q: warp_step(P, Q, users, *batch, weights, margin, LR, REG)
    )
    expected, expected_losses, expected_draws = warp_loop(
        params, users, liked, *batch[1:], weights, margin
    )
    assert max(expected_draws) > 0
    assert margin > 0 or 0 in expected_draws, "the case also needs a positive without a violation"
    assert needed.tolist() == expected_draws
    assert_equal(got, expected)
    assert_equal([losses], [torch.tensor(expected_losses, dtype=torch.float64)])


def test_warp_step_descends_the_stated_objective(warp_case):
    params, users, _, (known, rows, i, draws), weights = warp_case
    got, (_, needed) = after(
        params, lambda P, Q: warp_step(P, Q, users, known, rows, i, draws, weights, 0.5, LR, REG)
    )
    k = needed.nonzero()[:, 0]
    u, i, j = users[rows[k]], i[k], draws[needed[k] - 1, k]
    assert set(i.tolist()) & set(j.tolist()), "an item must be positive here and negative there"
    for ids in (u, i, j):
        assert len(set(ids.tolist())) < len(ids), "users and items must occur twice"
    L = weights[(N_ITEMS - 1) // needed[k]]

    def objective(P, Q):
        s_i, s_j = (P[u] * Q[i]).sum(1), (P[u] * Q[j]).sum(1)
        penalty = (P[u] ** 2).sum(1) + (Q[i] ** 2).sum(1) + (Q[j] ** 2).sum(1)
        return (L * (0.5 - s_i + s_j) + REG / 2 * penalty).sum()

    assert_descends(params, got, objective, LR)


@pytest.mark.parametrize("wide", [0, 1000])
def test_scorer_equals_the_dense_product_without_known_items(warp_case, wide, monkeypatch):
    """All rows and items are scored, including those after the last like of the last row."""
    monkeypatch.setattr("mflib.warp.WIDE", wide)
    (P, Q), users, liked, (known, *_), _ = warp_case
    rows = torch.arange(len(users)).repeat_interleave(N_ITEMS)
    items = torch.arange(N_ITEMS).repeat(len(users))
    expected = P[users] @ Q.T
    for row, ids in enumerate(liked):
        expected[row, ids] = -torch.inf
    got = scorer(P[users], Q, known)(rows, items).view(len(users), N_ITEMS)
    assert torch.allclose(got, expected, rtol=1e-14, atol=1e-14)


def test_warp_fit_does_not_depend_on_how_items_are_scored(monkeypatch):
    """With many items only the drawn ones are scored."""
    ratings = random_ratings(40, 60, 0.4)
    options = {"factors": 5, "iterations": 4, "batch_size": 6, "dtype": torch.float64}
    narrow = WARP(**options).fit(ratings)
    monkeypatch.setattr("mflib.warp.WIDE", 0)
    wide = WARP(**options).fit(ratings)
    assert torch.allclose(wide.user_factors, narrow.user_factors, rtol=1e-9, atol=1e-12)
    assert torch.allclose(wide.item_factors, narrow.item_factors, rtol=1e-9, atol=1e-12)


def test_warp_batches_visit_each_like_once_and_contain_all_known_likes(monkeypatch):
    """Users have more likes than fit in a row, but ``known`` must hold all of them."""
    likes = sp.csr_matrix(random_ratings(12, 70, 0.8))
    assert (likes.getnnz(1) > 32).all()
    batches = []

    def spy(users, known, rows, positives, draws, **others):
        batches.append((users, known, rows, positives, draws))
        return torch.zeros(len(rows)), None

    monkeypatch.setattr("mflib.warp.warp_step", spy)
    WARP(3, iterations=1, batch_size=5, max_draws=11).fit(likes)
    visits = np.zeros(likes.shape)
    for users, known, rows, positives, draws in batches:
        np.add.at(visits, (users[rows].numpy(), positives.numpy()), 1)
        expected = [
            row * 70 + item
            for row, user in enumerate(users.tolist())
            for item in sorted(likes[user].indices.tolist())
        ]
        assert known.tolist() == expected
        assert len(users) <= 5
        assert draws.shape == (11, len(rows))
        assert (draws >= 0).all()
        assert (draws < 70).all()
    assert (visits == (likes.toarray() > 0)).all()


def test_cut_into_rows_matches_the_example_of_its_docstring():
    """Four users with 3, 0, 1 and 5 likes are cut into rows of 2."""
    likes = sp.csr_matrix(
        np.array([[1, 1, 0, 0, 0, 1], [0] * 6, [0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    )
    users, rows = cut_into_rows(likes, torch.Generator().manual_seed(0), length=2)
    assert users.tolist() == [0, 0, 2, 3, 3, 3]
    assert rows.getnnz(1).tolist() == [2, 1, 1, 2, 2, 1]
    joined = sp.csr_matrix((np.ones(6), (users, np.arange(6))), (4, 6)) @ rows
    assert (joined.toarray() == likes.toarray()).all(), "each like is in one row of its user"
    orders = {
        tuple(cut_into_rows(likes, torch.Generator().manual_seed(seed), 2)[1].indices.tolist())
        for seed in range(9)
    }
    assert len(orders) > 1, "the order within a user is random"


def test_harmonic_numbers_equal_their_definition():
    expected = [sum(1 / k for k in range(1, r + 1)) for r in range(9)]
    assert np.allclose(harmonic_numbers(9), expected, rtol=1e-15)
    assert harmonic_numbers(1).tolist() == [0]


def test_first_violations_equal_an_explicit_search():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 50, generator=rng)
    rows = torch.randint(6, (300,), generator=rng)
    limits = torch.randn(300, generator=rng) + 1.5
    draws = torch.randint(50, (37, 300), generator=rng)
    expected = []
    for k in range(300):
        violates = scores[rows[k], draws[:, k]] > limits[k]
        expected.append(violates.tolist().index(True) + 1 if violates.any() else 0)
    got = first_violations(lambda rows, items: scores[rows, items], rows, limits, draws)
    assert got.tolist() == expected
    assert expected.count(0) > 10
    assert max(expected) > 31, "the case must reach the last round"


def test_rank_estimate_has_the_expectation_of_the_docstring():
    """With v violating items of I, the mean of (I - 1) / draws is (I - 1) v / (I - v) ln(I / v)."""
    items, n = 200, 20_000
    draws = torch.randint(items, (1000, n), generator=torch.Generator().manual_seed(1))
    for v in (2, 10, 100):
        rows, limits = torch.zeros(n, dtype=torch.long), torch.full((n,), 0.5)
        needed = first_violations(
            lambda _, items, v=v: (items < v).double(), rows, limits, draws
        ).double()
        estimate = (items - 1) / needed[needed > 0]
        expected = (items - 1) * v / (items - v) * math.log(items / v)
        assert abs(estimate.mean() - expected) < 4 * estimate.std() / math.sqrt(n)
        assert expected > v
        missed = (1 - v / items) ** 50  # the share of positives without a violation in 50 draws
        assert abs((needed > 50).double().mean() - missed) < 4 * math.sqrt(missed / n) + 1e-9


# --- ALS ----------------------------------------------------------------------------------------


def penalties(R):
    """Return lambda_u and lambda_i of the models of ``fitted``."""
    return (0.9 * np.maximum((R != 0).sum(axis), 1)[:, None] ** 0.4 for axis in (1, 0))


def dense_objective(X, Y, R):
    """Return the objective of ALS, computed directly over all entries."""
    C, p, (reg_u, reg_i) = 1 + 0.7 * np.abs(R), (R > 0).astype(float), penalties(R)
    return (C * (p - X @ Y.T) ** 2).sum() + (reg_u * X**2).sum() + (reg_i * Y**2).sum()


@pytest.fixture
def signed():
    """Return ratings and dislikes, shape (40, 30); user 4 and item 6 have none."""
    dense = random_ratings(40, 30, 0.3, seed=2).toarray()
    dense[dense == 1] = -2
    dense[4], dense[:, 6] = 0, 0
    return dense


def fitted(signed, **options):
    """Return an ALS model after one iteration, and its factors."""
    defaults = {
        "alpha": 0.7,
        "regularization": 0.9,
        "frequency_scaling": 0.4,
        "iterations": 1,
        "dtype": torch.float64,
    }
    model = ALS(5, **defaults | options).fit(sp.csr_matrix(signed))
    return model, model.user_factors.numpy(), model.item_factors.numpy()


def initial_factors(signed):
    """Return the factors from which the models of ``fitted`` start."""
    model = ALS(5, dtype=torch.float64)
    model.seed = 0
    model._initialise(sp.csr_matrix(signed), model.init_std)
    return model.user_factors.numpy(), model.item_factors.numpy()


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_als_loss_is_the_dense_objective(signed, use_cg, dtype, rel):
    model, X, Y = fitted(signed, use_cg=use_cg, dtype=dtype)
    expected = dense_objective(X.astype(np.float64), Y.astype(np.float64), signed)
    assert model.history[-1]["loss"] == pytest.approx(expected, rel=rel)


def test_als_half_step_is_stationary(signed):
    """After the items are solved, the gradient of the dense objective in Y is zero."""
    _, X, Y = fitted(signed, use_cg=False)
    C, p = 1 + 0.7 * np.abs(signed), (signed > 0).astype(float)
    gradient = -2 * (C * (p - X @ Y.T)).T @ X + 2 * list(penalties(signed))[1] * Y
    assert np.abs(gradient).max() < 1e-10
    assert np.abs(X).max() > 0.1


def solve_rows(Y, R, reg):
    """Return the rows that minimise the objective given Y, by dense algebra."""
    rows = []
    for r, reg_u in zip(R, reg, strict=True):
        C = np.diag(1 + 0.7 * np.abs(r))
        rows.append(np.linalg.solve(Y.T @ C @ Y + reg_u * np.eye(Y.shape[1]), Y.T @ C @ (r > 0)))
    return np.array(rows)


def test_als_fold_in_solves_the_normal_equations(signed):
    """Given the items, x_u = (Y'C_u Y + lambda_u)^-1 Y'C_u p_u for each row."""
    model, _, Y = fitted(signed, use_cg=False)
    folded = model._fold_in(sp.csr_matrix(signed), "user").numpy()
    assert np.allclose(folded, solve_rows(Y, signed, next(penalties(signed))), atol=1e-12)


def conjugate_gradient_loop(X, Y, R, reg, steps):
    """Return X after ``steps`` steps of the textbook algorithm, one row at a time."""
    X = X.copy()
    for x, r_u, reg_u in zip(X, R, reg, strict=True):
        C = np.diag(1 + 0.7 * np.abs(r_u))
        A = Y.T @ C @ Y + reg_u * np.eye(len(x))
        r = Y.T @ C @ (r_u > 0) - A @ x
        p = r
        for _ in range(steps if r.any() else 0):
            a = (r @ r) / (p @ A @ p)
            x += a * p
            r, before = r - a * A @ p, r
            p = r + (r @ r) / (before @ before) * p
    return X


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_conjugate_gradient_equals_the_textbook_loop(signed, steps):
    """An iteration updates each user, then each item, starting from the current factors."""
    _, X, Y = fitted(signed, cg_steps=steps)
    X0, Y0 = initial_factors(signed)
    reg_u, reg_i = penalties(signed)
    expected = conjugate_gradient_loop(X0, Y0, signed, reg_u, steps)
    assert np.allclose(X, expected, rtol=1e-10, atol=1e-12)
    expected = conjugate_gradient_loop(Y0, expected, signed.T, reg_i, steps)
    assert np.allclose(Y, expected, rtol=1e-10, atol=1e-12)


def test_conjugate_gradient_with_f_steps_is_exact(signed):
    """F steps solve a system of F unknowns."""
    exact, by_cg = fitted(signed, use_cg=False), fitted(signed, use_cg=True, cg_steps=5)
    assert np.allclose(by_cg[1], exact[1], atol=1e-8)
    assert np.allclose(by_cg[2], exact[2], atol=1e-8)
    assert not np.allclose(fitted(signed, use_cg=True, cg_steps=2)[1], exact[1], atol=1e-3)


def test_conjugate_gradient_leaves_a_solved_row_unchanged(signed):
    """If the residual is zero, the step length must not become 0 / 0."""
    blocks = weighted_entries(sp.csr_matrix(signed), 0.7, torch.float64)
    penalty = torch.ones(40, 1, dtype=torch.float64)
    Y = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 5)))
    X = torch.zeros(40, 5, dtype=torch.float64)
    conjugate_gradient(X, Y, blocks, penalty, steps=3)
    assert (X[4] == 0).all(), "a user without interactions"
    assert X.isfinite().all()
    assert X.any(1).sum() > 30, "the other users move"


@pytest.mark.parametrize("options", [{"use_cg": False}, {}, {"cg_steps": 1}])
def test_als_loss_never_rises_without_extrapolation(signed, options):
    defaults = {"alpha": 4.0, "regularization": 0.3, "iterations": 30, "extrapolation": 0.0}
    model = ALS(5, dtype=torch.float64, **defaults | options).fit(sp.csr_matrix(signed))
    losses = [entry["loss"] for entry in model.history]
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    assert losses[-1] < 0.9 * losses[0]


def test_als_extrapolation_equals_the_textbook_loop(signed):
    """Each iteration but the first starts from Y plus 0.3 times its last change."""
    reg_u, reg_i = penalties(signed)
    _, Y = initial_factors(signed)
    change = np.zeros_like(Y)
    for iterations in (1, 2, 3, 4):
        start = Y + 0.3 * change
        X = solve_rows(start, signed, reg_u)
        Y = solve_rows(X, signed.T, reg_i)
        change = Y - start
        got = fitted(signed, iterations=iterations, use_cg=False, extrapolation=0.3)
        assert np.allclose(got[1], X, atol=1e-9), f"users after {iterations} iterations"
        assert np.allclose(got[2], Y, atol=1e-9), f"items after {iterations} iterations"


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize("width", [1, 7, 29])
def test_als_does_not_depend_on_the_size_of_blocks(signed, monkeypatch, use_cg, width):
    """The last block of columns is smaller, and each block of rows has few systems."""
    whole = fitted(signed, use_cg=use_cg)
    monkeypatch.setattr("mflib.als.WIDTH", width)
    monkeypatch.setattr("mflib.sparse.BLOCK", 11 * 5**2)
    blocks = fitted(signed, use_cg=use_cg)
    assert np.allclose(blocks[1], whole[1], atol=1e-12)
    assert np.allclose(blocks[2], whole[2], atol=1e-12)
    loss = whole[0].history[-1]["loss"]
    assert blocks[0].history[-1]["loss"] == pytest.approx(loss, rel=1e-12)


def test_cholesky_holds_a_bounded_number_of_systems(signed, monkeypatch):
    """Neither training nor folding in may hold rows x F^2 numbers for all rows."""
    held = []

    def spy(X, Y, blocks, penalty):
        held.append(len(X))
        cholesky(X, Y, blocks, penalty)

    monkeypatch.setattr("mflib.als.cholesky", spy)
    monkeypatch.setattr("mflib.sparse.BLOCK", 11 * 5**2)
    model, *_ = fitted(signed, use_cg=False)
    assert sum(held) == 40 + 30
    assert max(held) <= 11
    held.clear()
    matrix = sp.csr_matrix(signed)
    model.recommend(np.arange(40), matrix, recalculate_user=True)
    assert sum(held) == 40
    assert max(held) <= 11


def test_weighted_entries_hold_the_confidences(signed, monkeypatch):
    """Each block holds c - 1 = alpha |r| and c times the preference of its stored entries."""
    monkeypatch.setattr("mflib.als.WIDTH", 7)
    blocks = weighted_entries(sp.csr_matrix(signed), alpha=0.7, dtype=torch.float64)
    assert [block.columns.start for block in blocks] == [0, 7, 14, 21, 28]
    excess = torch.cat([block.excess.to_dense() for block in blocks], dim=1)
    assert np.allclose(excess, 0.7 * np.abs(signed))
    for columns, excess, weighted_preference in blocks:
        r = signed[:, columns]
        stored = r[r != 0]
        assert np.allclose(weighted_preference, (stored > 0) * (1 + 0.7 * np.abs(stored)))
        assert excess.values().numel() == len(stored)


def test_weighted_entries_refuse_values_that_overflow():
    matrix = sp.csr_matrix(np.array([[1.0, 1e30]]))
    with pytest.raises(ValueError, match=r"expected finite confidences .* got alpha = 1e\+10"):
        weighted_entries(matrix, alpha=1e10, dtype=torch.float32)
    (block,) = weighted_entries(matrix, alpha=1e10, dtype=torch.float64)
    assert block.excess.values().tolist() == [1e10, 1e40]
