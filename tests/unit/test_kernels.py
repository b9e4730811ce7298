"""The kernels against what they claim: autograd, ten-line loops, dense algebra."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import checkerboard, random_ratings
from torch.nn.functional import logsigmoid

from mflib import ALS, WARP
from mflib.als import cholesky, conjugate_gradient, weighted_entries
from mflib.bpr import Triples, bpr_step, hardest
from mflib.svd import svd_step
from mflib.warp import cut_into_rows, first_violations, harmonic_numbers, scorer, warp_step

N_USERS, N_ITEMS, F, B = 7, 9, 4, 40  # more rows than users or items: every batch has duplicates
LR, REG = 0.03, 0.2


@pytest.fixture
def ids():
    """Random ids below n: of 9 items some are positive in one row and negative in another."""
    rng = torch.Generator().manual_seed(3)
    return lambda n, size=B: torch.randint(n, (size,), generator=rng)


def after(params, step):
    """Copies of ``params`` after ``step(*copies)`` has updated them in place, and its result."""
    copies = [p.clone() for p in params]
    return copies, step(*copies)


def descend(params, objective):
    """``params`` after one step of gradient descent on ``objective(*params)``, by autograd."""
    leaves = [p.clone().requires_grad_() for p in params]
    gradients = torch.autograd.grad(objective(*leaves), leaves)
    return [p - LR * g for p, g in zip(params, gradients, strict=True)]


def assert_equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-14, atol=1e-14), (a - b).abs().max()


@pytest.fixture
def svd_case(draw, ids):
    params = (draw(N_USERS, F), draw(N_ITEMS, F), draw(N_USERS), draw(N_ITEMS))
    return params, 3.5, (ids(N_USERS), ids(N_ITEMS), draw(B) + 3, draw(B).abs())


def test_svd_step_descends_the_written_objective(svd_case):
    params, mu, (u, i, r, w) = svd_case

    def objective(P, Q, b_u, b_i):
        errors = r - mu - b_u[u] - b_i[i] - (P[u] * Q[i]).sum(1)
        penalty = b_u[u] ** 2 + b_i[i] ** 2 + (P[u] ** 2).sum(1) + (Q[i] ** 2).sum(1)
        return (w * errors**2 / 2 + REG / 2 * penalty).sum()

    got, losses = after(
        params, lambda P, Q, bu, bi: svd_step(P, Q, bu, bi, mu, u, i, r, w, LR, REG)
    )
    assert_equal(got, descend(params, objective))
    errors = r - mu - params[2][u] - params[3][i] - (params[0][u] * params[1][i]).sum(1)
    assert_equal([losses], [w * errors**2 / 2])


def test_svd_step_is_the_loop(svd_case):
    params, mu, batch = svd_case
    (P0, Q0, bu0, bi0), (P, Q, bu, bi) = params, [p.clone() for p in params]
    for u, i, r, w in zip(*(t.tolist() for t in batch), strict=True):
        e = w * (r - mu - float(bu0[u]) - float(bi0[i]) - float(P0[u] @ Q0[i]))
        P[u] += LR * (e * Q0[i] - REG * P0[u])
        Q[i] += LR * (e * P0[u] - REG * Q0[i])
        bu[u] += LR * (e - REG * bu0[u])
        bi[i] += LR * (e - REG * bi0[i])
    got, _ = after(params, lambda *copies: svd_step(*copies, mu, *batch, LR, REG))
    assert_equal(got, (P, Q, bu, bi))


@pytest.fixture
def bpr_case(draw, ids):
    users, i, j = ids(N_USERS), ids(N_ITEMS), ids(N_ITEMS)
    assert set(i.tolist()) & set(j.tolist()), (
        "an item must be positive in one row and negative in another"
    )
    return (draw(N_USERS, F), draw(N_ITEMS, F), draw(N_ITEMS)), (users, i, j)


def test_bpr_step_descends_the_written_objective(bpr_case):
    params, (u, i, j) = bpr_case
    reg_u, reg_i = 0.2, 0.7

    def objective(P, Q, b):
        x = b[i] - b[j] + (P[u] * (Q[i] - Q[j])).sum(1)
        items = (Q[i] ** 2).sum(1) + (Q[j] ** 2).sum(1) + b[i] ** 2 + b[j] ** 2
        return (-logsigmoid(x) + reg_u / 2 * (P[u] ** 2).sum(1) + reg_i / 2 * items).sum()

    got, losses = after(params, lambda *copies: bpr_step(*copies, u, i, j, LR, reg_u, reg_i))
    assert_equal(got, descend(params, objective))
    P, Q, b = params
    assert_equal([losses], [-logsigmoid(b[i] - b[j] + (P[u] * (Q[i] - Q[j])).sum(1))])


def test_bpr_step_is_the_loop(bpr_case):
    params, batch = bpr_case
    (P0, Q0, b0), (P, Q, b) = params, [p.clone() for p in params]
    for u, i, j in zip(*(t.tolist() for t in batch), strict=True):
        g = 1 / (1 + math.exp(float(b0[i] - b0[j] + P0[u] @ (Q0[i] - Q0[j]))))
        P[u] += LR * (g * (Q0[i] - Q0[j]) - REG * P0[u])
        Q[i] += LR * (g * P0[u] - REG * Q0[i])
        Q[j] += LR * (-g * P0[u] - REG * Q0[j])
        b[i] += LR * (g - REG * b0[i])
        b[j] += LR * (-g - REG * b0[j])
    got, _ = after(params, lambda *copies: bpr_step(*copies, *batch, LR, REG, REG))
    assert_equal(got, (P, Q, b))


def test_the_hardest_candidate_has_the_highest_score(bpr_case):
    (P, Q, b), (users, i, j) = bpr_case
    candidates = torch.stack([i, j, i.flip(0)])
    expected = [
        max(column, key=lambda k: float(b[k] + P[u] @ Q[k]))
        for u, column in zip(users.tolist(), candidates.T.tolist(), strict=True)
    ]
    assert hardest(P, Q, b, users, candidates).tolist() == expected
    assert hardest(P, Q, b, users, candidates[1:2]).tolist() == j.tolist()


def test_the_draws_of_each_user_are_not_liked():
    likes = checkerboard()
    triples = Triples(likes, draws=5)
    batch = triples.batch(torch.arange(len(triples)), torch.Generator().manual_seed(0))
    users, candidates = batch["users"], batch["candidates"]
    assert candidates.shape == (5, likes.nnz)
    assert not likes.toarray()[users, candidates].any()
    assert len(candidates.unique(dim=0)) == 5


@pytest.fixture
def warp_case(draw, ids):
    """Four users in a block, one of them twice; each has some items, with fifteen draws each."""
    users = torch.tensor([5, 0, 3, 0])
    liked = [[0, 4, 8], [2, 4], [1, 2, 3, 5, 6], [2, 4]]
    cells = torch.tensor([row * N_ITEMS + i for row, items in enumerate(liked) for i in items])
    rows, positives = (
        cells[1:-2] // N_ITEMS,
        cells[1:-2] % N_ITEMS,
    )  # not all that is liked is trained on
    draws = ids(N_ITEMS, 15 * len(rows)).view(15, -1)
    weights = torch.tensor(
        [sum(1 / k for k in range(1, r + 1)) for r in range(N_ITEMS)], dtype=torch.float64
    )
    return (
        (draw(N_USERS, F), draw(N_ITEMS, F)),
        users,
        liked,
        (cells, rows, positives, draws),
        weights,
    )


def warp_loop(params, users, liked, rows, positives, draws, weights, margin):
    """One positive at a time, one draw at a time."""
    (P0, Q0), (P, Q) = params, [p.clone() for p in params]
    losses, needed = [], []
    for row, i, candidates in zip(rows.tolist(), positives.tolist(), draws.T.tolist(), strict=True):
        u = users[row]
        limit = P0[u] @ Q0[i] - margin
        d = next(
            (
                d
                for d, j in enumerate(candidates, 1)
                if j not in liked[row] and P0[u] @ Q0[j] > limit
            ),
            0,
        )
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
def test_warp_step_is_the_loop(warp_case, margin, wide, monkeypatch):
    monkeypatch.setattr("mflib.warp.WIDE", wide)
    params, users, liked, batch, weights = warp_case
    got, (losses, needed) = after(
        params, lambda P, Q: warp_step(P, Q, users, *batch, weights, margin, LR, REG)
    )
    expected, its_losses, its_draws = warp_loop(params, users, liked, *batch[1:], weights, margin)
    assert max(its_draws) > 0
    assert margin > 0 or 0 in its_draws, "the case must have a positive without violation, too"
    assert needed.tolist() == its_draws
    assert_equal(got, expected)
    assert_equal([losses], [torch.tensor(its_losses, dtype=torch.float64)])


def test_warp_step_descends_the_written_objective(warp_case):
    params, users, _, (cells, rows, i, draws), weights = warp_case
    got, (_, needed) = after(
        params, lambda P, Q: warp_step(P, Q, users, cells, rows, i, draws, weights, 0.5, LR, REG)
    )
    k = needed.nonzero()[:, 0]
    u, i, j = users[rows[k]], i[k], draws[needed[k] - 1, k]
    assert set(i.tolist()) & set(j.tolist()), (
        "an item must be positive in one row and negative in another"
    )
    assert all(len(set(ids.tolist())) < len(ids) for ids in (u, i, j)), (
        "users and items must occur twice"
    )
    L = weights[(N_ITEMS - 1) // needed[k]]

    def objective(P, Q):
        s_i, s_j = (P[u] * Q[i]).sum(1), (P[u] * Q[j]).sum(1)
        penalty = (P[u] ** 2).sum(1) + (Q[i] ** 2).sum(1) + (Q[j] ** 2).sum(1)
        return (L * (0.5 - s_i + s_j) + REG / 2 * penalty).sum()

    assert_equal(got, descend(params, objective))


@pytest.mark.parametrize("wide", [0, 1000])
def test_scorer_knows_every_cell(warp_case, wide, monkeypatch):
    """All rows x all items at once, up to the last like of the last row and the items behind it."""
    monkeypatch.setattr("mflib.warp.WIDE", wide)
    (P, Q), users, liked, (cells, *_), _ = warp_case
    rows = torch.arange(len(users)).repeat_interleave(N_ITEMS)
    items = torch.arange(N_ITEMS).repeat(len(users))
    expected = P[users] @ Q.T
    for row, ids in enumerate(liked):
        expected[row, ids] = -torch.inf
    got = scorer(P[users], Q, cells)(rows, items).view(len(users), N_ITEMS)
    assert torch.allclose(got, expected, rtol=1e-14, atol=1e-14)


def test_warp_is_fitted_alike_on_many_items(monkeypatch):
    """Where only the drawn items are scored, the same factors come out."""
    ratings = random_ratings(40, 60, 0.4)
    options = {"factors": 5, "iterations": 4, "batch_size": 6, "dtype": torch.float64}
    narrow = WARP(**options).fit(ratings)
    monkeypatch.setattr("mflib.warp.WIDE", 0)
    wide = WARP(**options).fit(ratings)
    assert torch.allclose(wide.user_factors, narrow.user_factors, rtol=1e-9, atol=1e-12)
    assert torch.allclose(wide.item_factors, narrow.item_factors, rtol=1e-9, atol=1e-12)


def test_likes_are_cut_into_rows():
    """The example of the docstring: four users with 3, 0, 1 and 5 likes, in rows of 2."""
    likes = sp.csr_matrix(
        np.array([[1, 1, 0, 0, 0, 1], [0] * 6, [0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    )
    users, rows = cut_into_rows(likes, torch.Generator().manual_seed(0), length=2)
    assert users.tolist() == [0, 0, 2, 3, 3, 3]
    assert rows.getnnz(1).tolist() == [2, 1, 1, 2, 2, 1]
    whole = sp.csr_matrix((np.ones(6), (users, np.arange(6))), (4, 6)) @ rows
    assert (whole.toarray() == likes.toarray()).all(), "each like is in one row of its user"
    orders = {
        tuple(cut_into_rows(likes, torch.Generator().manual_seed(seed), 2)[1].indices.tolist())
        for seed in range(9)
    }
    assert len(orders) > 1, "the order within a user is drawn"


def test_harmonic_numbers():
    expected = [sum(1 / k for k in range(1, r + 1)) for r in range(9)]
    assert np.allclose(harmonic_numbers(9), expected, rtol=1e-15)
    assert harmonic_numbers(1).tolist() == [0]


def test_first_violations_one_by_one():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 50, generator=rng)
    rows = torch.randint(6, (300,), generator=rng)
    limits = torch.randn(300, generator=rng) + 1.5
    draws = torch.randint(50, (37, 300), generator=rng)
    expected = [
        next(
            (d for d, j in enumerate(draws[:, k].tolist(), 1) if scores[rows[k], j] > limits[k]), 0
        )
        for k in range(300)
    ]
    assert (
        first_violations(lambda rows, items: scores[rows, items], rows, limits, draws).tolist()
        == expected
    )
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
        missed = (1 - v / items) ** 50  # the share that fifty draws leave without a violation
        assert abs((needed > 50).double().mean() - missed) < 4 * math.sqrt(missed / n) + 1e-9


def penalties(R):
    """lambda_u and lambda_i of the models of ``fitted``."""
    return (0.9 * np.maximum((R != 0).sum(axis), 1)[:, None] ** 0.4 for axis in (1, 0))


def dense_objective(X, Y, R):
    """The objective of ALS over all cells, as written."""
    C, p, (reg_u, reg_i) = 1 + 0.7 * np.abs(R), (R > 0).astype(float), penalties(R)
    return (C * (p - X @ Y.T) ** 2).sum() + (reg_u * X**2).sum() + (reg_i * Y**2).sum()


@pytest.fixture
def signed():
    """Ratings and dislikes, an empty row and an empty column; 40 x 30."""
    dense = random_ratings(40, 30, 0.3, seed=2).toarray()
    dense[dense == 1] = -2
    dense[4], dense[:, 6] = 0, 0
    return dense


def fitted(signed, **kw):
    options = {
        "alpha": 0.7,
        "regularization": 0.9,
        "frequency_scaling": 0.4,
        "iterations": 1,
        "dtype": torch.float64,
    }
    model = ALS(5, **options | kw).fit(sp.csr_matrix(signed))
    return model, model.user_factors.numpy(), model.item_factors.numpy()


def start_of(signed):
    """The factors that the models of ``fitted`` start from."""
    model = ALS(5, dtype=torch.float64)
    model.seed = 0
    model._initialise(sp.csr_matrix(signed), model.init_std)
    return model.user_factors.numpy(), model.item_factors.numpy()


def test_als_loss_is_the_dense_objective(signed):
    for use_cg in (True, False):
        for dtype, rel in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            model, X, Y = fitted(signed, use_cg=use_cg, dtype=dtype)
            assert model.history[-1]["loss"] == pytest.approx(
                dense_objective(X, Y, signed), rel=rel
            )


def test_als_half_step_is_stationary(signed):
    """After the items were solved, the gradient of the dense objective in Y is zero."""
    _, X, Y = fitted(signed, use_cg=False)
    C, p = 1 + 0.7 * np.abs(signed), (signed > 0).astype(float)
    gradient = -2 * (C * (p - X @ Y.T)).T @ X + 2 * list(penalties(signed))[1] * Y
    assert np.abs(gradient).max() < 1e-10
    assert np.abs(X).max() > 0.1


def test_als_rows_are_the_normal_equations(signed):
    """Solved for the final items, x_u = (Y'C_u Y + lambda_u)^-1 Y'C_u p_u, row by row."""
    model, _, Y = fitted(signed, use_cg=False)
    folded = model._fold_in(sp.csr_matrix(signed), "user").numpy()
    for row, x, reg in zip(signed, folded, next(penalties(signed)), strict=True):
        C = np.diag(1 + 0.7 * np.abs(row))
        assert np.allclose(
            x, np.linalg.solve(Y.T @ C @ Y + reg * np.eye(5), Y.T @ C @ (row > 0)), atol=1e-12
        )


def conjugate_gradient_loop(X, Y, R, reg, steps):
    """One row at a time, as in a textbook."""
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
def test_conjugate_gradients_are_the_loop(signed, steps):
    """An iteration is that many steps for each user, then each item, from where they stand."""
    _, X, Y = fitted(signed, cg_steps=steps)
    X0, Y0 = start_of(signed)
    reg_u, reg_i = penalties(signed)
    expected = conjugate_gradient_loop(X0, Y0, signed, reg_u, steps)
    assert np.allclose(X, expected, rtol=1e-10, atol=1e-12)
    assert np.allclose(
        Y, conjugate_gradient_loop(Y0, expected, signed.T, reg_i, steps), rtol=1e-10, atol=1e-12
    )


def test_enough_conjugate_gradient_steps_are_exact(signed):
    """F steps solve a system of F unknowns."""
    exact, by_cg = fitted(signed, use_cg=False), fitted(signed, use_cg=True, cg_steps=5)
    assert np.allclose(by_cg[1], exact[1], atol=1e-8)
    assert np.allclose(by_cg[2], exact[2], atol=1e-8)
    assert not np.allclose(fitted(signed, use_cg=True, cg_steps=2)[1], exact[1], atol=1e-3)


@pytest.mark.parametrize("options", [{"use_cg": False}, {}, {"cg_steps": 1}])
def test_als_loss_never_rises(signed, options):
    model = ALS(5, alpha=4.0, regularization=0.3, iterations=30, dtype=torch.float64, **options)
    losses = [h["loss"] for h in model.fit(sp.csr_matrix(signed)).history]
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()
    assert losses[-1] < 0.9 * losses[0]


def exact(Y, R, reg):
    """The rows that minimise the objective given Y, by dense algebra."""
    rows = []
    for r, reg_u in zip(R, reg, strict=True):
        C = np.diag(1 + 0.7 * np.abs(r))
        rows.append(np.linalg.solve(Y.T @ C @ Y + reg_u * np.eye(Y.shape[1]), Y.T @ C @ (r > 0)))
    return np.array(rows)


def test_als_extrapolation_is_the_loop(signed):
    """Each iteration but the first starts from Y + .5 times what its last sweep has moved it."""
    reg_u, reg_i = penalties(signed)
    _, Y = start_of(signed)
    change = np.zeros_like(Y)
    for iterations in (1, 2, 3, 4):
        start = Y + 0.5 * change
        X = exact(start, signed, reg_u)
        Y = exact(X, signed.T, reg_i)
        change = Y - start
        got = fitted(signed, iterations=iterations, use_cg=False, extrapolation=0.5)
        assert np.allclose(got[1], X, atol=1e-9), f"users after {iterations} iterations"
        assert np.allclose(got[2], Y, atol=1e-9), f"items after {iterations} iterations"


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize("width", [1, 7, 29])
def test_als_blocks_do_not_matter(signed, monkeypatch, use_cg, width):
    """The columns in blocks, the last of them smaller, and exact solves a few rows at a time."""
    whole = fitted(signed, use_cg=use_cg)
    monkeypatch.setattr("mflib.als.WIDTH", width)
    monkeypatch.setattr("mflib.inputs.BLOCK", 11 * 5**2)
    blocks = fitted(signed, use_cg=use_cg)
    assert np.allclose(blocks[1], whole[1], atol=1e-12)
    assert np.allclose(blocks[2], whole[2], atol=1e-12)
    loss = whole[0].history[-1]["loss"]
    assert blocks[0].history[-1]["loss"] == pytest.approx(loss, rel=1e-12)


def test_exact_solves_hold_a_bounded_number_of_systems(signed, monkeypatch):
    """Training, folding in and the sides of users and items: never rows x F^2 for all rows."""
    held = []

    def spy(X, Y, blocks, penalty):
        held.append(len(X))
        cholesky(X, Y, blocks, penalty)

    monkeypatch.setattr("mflib.als.cholesky", spy)
    monkeypatch.setattr("mflib.inputs.BLOCK", 11 * 5**2)
    model, *_ = fitted(signed, use_cg=False)
    assert sum(held) == 40 + 30
    assert max(held) <= 11
    held.clear()
    matrix = sp.csr_matrix(signed)
    model.recommend(np.arange(40), matrix, recalculate_user=True)
    assert sum(held) == 40
    assert max(held) <= 11


def test_weighted_entries_are_the_confidences(signed, monkeypatch):
    """c - 1 = alpha |r| and c p at the stored cells, block by block."""
    monkeypatch.setattr("mflib.als.WIDTH", 7)
    blocks = weighted_entries(sp.csr_matrix(signed), alpha=0.7, dtype=torch.float64)
    assert [block.columns.start for block in blocks] == [0, 7, 14, 21, 28]
    excess = torch.cat([block.excess.to_dense() for block in blocks], dim=1)
    assert np.allclose(excess, 0.7 * np.abs(signed))
    for columns, excess, preference in blocks:
        r = signed[:, columns]
        cells = r[r != 0]
        assert np.allclose(preference, (cells > 0) * (1 + 0.7 * np.abs(cells)))
        assert excess.values().numel() == len(cells)


def test_a_row_that_is_solved_stays(signed):
    """Where nothing is left to be done, conjugate gradients divide nothing by nothing."""
    blocks = weighted_entries(sp.csr_matrix(signed), 0.7, torch.float64)
    penalty = torch.ones(40, 1, dtype=torch.float64)
    Y = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 5)))
    X = torch.zeros(40, 5, dtype=torch.float64)
    conjugate_gradient(X, Y, blocks, penalty, steps=3)
    assert (X[4] == 0).all(), "a user without interactions"
    assert X.isfinite().all()
