"""The kernels against what they claim: autograd, ten-line loops, dense algebra."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import random_ratings
from torch.nn.functional import logsigmoid

from mflib import ALS
from mflib.bpr import bpr_step
from mflib.svd import svd_step
from mflib.warp import first_violations, warp_step

N_USERS, N_ITEMS, F, B = 7, 9, 4, 40  # more rows than users or items: every batch has duplicates
LR, REG = 0.03, 0.2


@pytest.fixture
def ids():
    """Random ids below n; with 40 rows and 9 items some are positive in one row and negative in another."""
    rng = torch.Generator().manual_seed(3)
    return lambda n, size=B: torch.randint(n, (size,), generator=rng)


def after(params, step):
    """Copies of the tensors ``params`` after ``step(*copies)`` has updated them in place, and its result."""
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

    got, losses = after(params, lambda P, Q, bu, bi: svd_step(P, Q, bu, bi, mu, u, i, r, w, LR, REG))
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
    assert set(i.tolist()) & set(j.tolist()), "an item must be positive in one row and negative in another"
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


@pytest.fixture
def warp_case(draw, ids):
    """Four users in a block, one of them twice; each has some of the items, and fifteen draws for each."""
    users = torch.tensor([5, 0, 3, 0])
    liked = [[0, 4, 8], [2, 4], [1, 2, 3, 5, 6], [2, 4]]
    cells = torch.tensor([row * N_ITEMS + i for row, items in enumerate(liked) for i in items])
    rows, positives = cells[1:-2] // N_ITEMS, cells[1:-2] % N_ITEMS  # not all that is liked is trained on
    draws = ids(N_ITEMS, 15 * len(rows)).view(15, -1)
    weights = torch.tensor([sum(1 / k for k in range(1, r + 1)) for r in range(N_ITEMS)], dtype=torch.float64)
    return (draw(N_USERS, F), draw(N_ITEMS, F)), users, liked, (cells, rows, positives, draws), weights


def warp_loop(params, users, liked, rows, positives, draws, weights, margin):
    """One positive at a time, one draw at a time."""
    (P0, Q0), (P, Q) = params, [p.clone() for p in params]
    losses, needed = [], []
    for row, i, candidates in zip(rows.tolist(), positives.tolist(), draws.T.tolist(), strict=True):
        u = users[row]
        limit = P0[u] @ Q0[i] - margin
        d = next((d for d, j in enumerate(candidates, 1) if j not in liked[row] and P0[u] @ Q0[j] > limit), 0)
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
    got, (losses, needed) = after(params, lambda P, Q: warp_step(P, Q, users, *batch, weights, margin, LR, REG))
    expected, its_losses, its_draws = warp_loop(params, users, liked, *batch[1:], weights, margin)
    assert max(its_draws) > 0
    assert margin > 0 or 0 in its_draws, "the case must have a positive without violation, too"
    assert needed.tolist() == its_draws
    assert_equal(got, expected)
    assert_equal([losses], [torch.tensor(its_losses, dtype=torch.float64)])


def test_warp_step_descends_the_written_objective(warp_case):
    params, users, _, (cells, rows, i, draws), weights = warp_case
    got, (_, needed) = after(params, lambda P, Q: warp_step(P, Q, users, cells, rows, i, draws, weights, 0.5, LR, REG))
    k = needed.nonzero()[:, 0]
    u, i, j = users[rows[k]], i[k], draws[needed[k] - 1, k]
    assert set(i.tolist()) & set(j.tolist()), "an item must be positive in one row and negative in another"
    assert all(len(set(ids.tolist())) < len(ids) for ids in (u, i, j)), "users and items must occur twice"
    L = weights[(N_ITEMS - 1) // needed[k]]

    def objective(P, Q):
        s_i, s_j = (P[u] * Q[i]).sum(1), (P[u] * Q[j]).sum(1)
        penalty = (P[u] ** 2).sum(1) + (Q[i] ** 2).sum(1) + (Q[j] ** 2).sum(1)
        return (L * (0.5 - s_i + s_j) + REG / 2 * penalty).sum()

    assert_equal(got, descend(params, objective))


def test_first_violations_one_by_one():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 50, generator=rng)
    rows = torch.randint(6, (300,), generator=rng)
    limits = torch.randn(300, generator=rng) + 1.5
    draws = torch.randint(50, (37, 300), generator=rng)
    expected = [
        next((d for d, j in enumerate(draws[:, k].tolist(), 1) if scores[rows[k], j] > limits[k]), 0)
        for k in range(300)
    ]
    assert first_violations(lambda rows, items: scores[rows, items], rows, limits, draws).tolist() == expected
    assert expected.count(0) > 10
    assert max(expected) > 24, "the case must reach the third round"


def test_rank_estimate_has_the_expectation_of_the_docstring():
    """With v violating items of I, the mean of (I - 1) / draws is (I - 1) v / (I - v) ln(I / v)."""
    items, n = 200, 20_000
    draws = torch.randint(items, (1000, n), generator=torch.Generator().manual_seed(1))
    for v in (2, 10, 100):
        rows, limits = torch.zeros(n, dtype=torch.long), torch.full((n,), 0.5)
        needed = first_violations(lambda _, items, v=v: (items < v).double(), rows, limits, draws).double()
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
    options = {"alpha": 0.7, "regularization": 0.9, "frequency_scaling": 0.4, "iterations": 1, "dtype": torch.float64}
    model = ALS(5, **options | kw).fit(sp.csr_matrix(signed))
    return model, model.user_factors.numpy(), model.item_factors.numpy()


def test_als_loss_is_the_dense_objective(signed):
    for use_cg in (True, False):
        for dtype, rel in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            model, X, Y = fitted(signed, use_cg=use_cg, dtype=dtype)
            assert model.history[-1]["loss"] == pytest.approx(dense_objective(X, Y, signed), rel=rel)


def test_als_half_step_is_stationary(signed):
    """After the items were solved, the gradient of the dense objective in Y is zero."""
    _, X, Y = fitted(signed, use_cg=False)
    C, p = 1 + 0.7 * np.abs(signed), (signed > 0).astype(float)
    gradient = -2 * (C * (p - X @ Y.T)).T @ X + 2 * list(penalties(signed))[1] * Y
    assert np.abs(gradient).max() < 1e-10
    assert np.abs(X).max() > 0.1


def test_als_rows_are_the_normal_equations(signed):
    """Solving the users for the final items gives x_u = (Y'C_u Y + lambda_u)^-1 Y'C_u p_u, row by row."""
    model, _, Y = fitted(signed, use_cg=False)
    folded = model._fold_in(sp.csr_matrix(signed)).numpy()
    for row, x, reg in zip(signed, folded, next(penalties(signed)), strict=True):
        C = np.diag(1 + 0.7 * np.abs(row))
        assert np.allclose(x, np.linalg.solve(Y.T @ C @ Y + reg * np.eye(5), Y.T @ C @ (row > 0)), atol=1e-12)


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
    """An iteration of ALS is that many steps for each user, then for each item, from where they stand."""
    model, X, Y = fitted(signed, cg_steps=steps)
    start = ALS(5, dtype=torch.float64)
    start._draw(signed.shape, model.init_std)
    start._clear_empty(sp.csr_matrix(signed))
    X0, Y0 = start.user_factors.numpy(), start.item_factors.numpy()
    reg_u, reg_i = penalties(signed)
    expected = conjugate_gradient_loop(X0, Y0, signed, reg_u, steps)
    assert np.allclose(X, expected, rtol=1e-10, atol=1e-12)
    assert np.allclose(Y, conjugate_gradient_loop(Y0, expected, signed.T, reg_i, steps), rtol=1e-10, atol=1e-12)


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


def test_als_extrapolation_starts_ahead_of_the_items(signed):
    """The users of the second iteration are solved for Y + .5 (Y - Y before it)."""
    options = {"use_cg": False, "extrapolation": 0.5}
    model, _, Y = fitted(signed, **options)
    start = ALS(5, dtype=torch.float64)
    start._draw(signed.shape, model.init_std)
    start = start.item_factors * torch.from_numpy(signed.any(0))[:, None]
    model.item_factors = torch.from_numpy(Y) + 0.5 * (torch.from_numpy(Y) - start)
    assert np.allclose(fitted(signed, iterations=2, **options)[1], model._fold_in(sp.csr_matrix(signed)), atol=1e-12)


@pytest.mark.parametrize("use_cg", [True, False])
def test_als_blocks_do_not_matter(signed, monkeypatch, use_cg):
    whole = fitted(signed, use_cg=use_cg)
    monkeypatch.setattr("mflib.als.WIDTH", 7)
    blocks = fitted(signed, use_cg=use_cg)
    assert np.allclose(blocks[2], whole[2], atol=1e-12)
    assert blocks[0].history[-1]["loss"] == pytest.approx(whole[0].history[-1]["loss"], rel=1e-12)
