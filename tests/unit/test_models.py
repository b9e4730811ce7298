"""What holds for every model: the known answers and the interface."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, IMPLICIT, checkerboard, random_ratings

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.sampling import generator
from mflib.svd import Ratings, svd_step
from mflib.training import ensure_finite
from mflib.warp import harmonic_numbers, warp_step

FITTED_STATE = ("user_factors", "item_factors", "user_biases", "item_biases")


@pytest.mark.parametrize("seed", range(5))
def test_checkerboard(implicit_model, seed):
    board = checkerboard()
    ids, _ = implicit_model(random_state=seed).fit(board).recommend(np.arange(20), board, N=1)
    assert ids[:, 0].tolist() == list(range(20)), (
        "each user lacks one item of their colour: their own number"
    )


def test_checkerboard_neighbours(implicit_model):
    model = implicit_model().fit(checkerboard())
    for metric in ("cosine", "l2"):
        ids, _ = model.similar_items(np.arange(20), N=10, metric=metric)
        assert ((ids - np.arange(20)[:, None]) % 2 == 0).all(), (
            f"{metric}: items of the other colour among the nearest"
        )


def test_popularity_ranks_by_count(ratings):
    ids, scores = Popularity().fit(ratings).recommend(3, ratings[3], N=25)
    count = np.diff(ratings.tocsc().indptr)
    assert ids.tolist() == sorted(range(25), key=lambda i: (-count[i], i))
    assert scores.tolist() == count[ids].tolist()


def test_unregularised_svd_meets_eckart_young():
    """Of a full matrix whose rows and columns sum to zero, F factors leave little more than the
    singular values beyond the F-th."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(12, 10))
    full = full - full.mean(0) - full.mean(1, keepdims=True) + full.mean()
    optimum = (np.linalg.svd(full, compute_uv=False)[3:] ** 2).sum()
    model = SVD(
        3, learning_rate=0.02, regularization=0.0, decay=1.0, iterations=2000, batch_size=120
    )
    model.dtype = torch.float64
    model.fit(sp.csr_matrix(full))
    users, items = np.indices(full.shape).reshape(2, -1)
    error = ((full.ravel() - model.predict(users, items)) ** 2).sum()
    assert 0.999999 * optimum < error < 1.0001 * optimum


def test_fit_accepts_any_sparse_format_and_leaves_it_alone(any_model, ratings):
    expected = any_model().fit(ratings)
    shuffled = ratings.tocoo()
    order = np.random.default_rng(1).permutation(shuffled.nnz)
    shuffled = sp.coo_matrix(
        (shuffled.data[order], (shuffled.row[order], shuffled.col[order])), shape=ratings.shape
    )
    for matrix in (
        ratings.tocsc(),
        shuffled,
        ratings.tolil(),
        sp.csr_array(ratings),
        ratings.astype(np.int32),
    ):
        before = matrix.copy()
        model = any_model().fit(matrix)
        for name in FITTED_STATE:
            assert torch.allclose(getattr(model, name), getattr(expected, name), atol=1e-5), (
                type(matrix),
                name,
            )
        assert (before != matrix).nnz == 0


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (np.ones((3, 3)), TypeError, "expected a scipy sparse matrix"),
        (torch.ones(3, 3), TypeError, "expected a scipy sparse matrix"),
        (sp.csr_matrix((3, 3)), ValueError, "got an empty matrix"),
        (sp.csr_matrix(np.array([[1.0, np.nan]])), ValueError, "got NaN or infinity"),
        (sp.csr_matrix(np.array([[1.0, np.inf]])), ValueError, "got NaN or infinity"),
    ],
)
def test_fit_refuses(any_model, bad, error, says):
    with pytest.raises(error, match=says):
        any_model().fit(bad)


@pytest.mark.parametrize("name", ["SVD", "BPR", "WARP"])
def test_divergence_stops_training(ratings, name):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        ALL[name](learning_rate=1e6).fit(ratings)


def test_als_divergence_names_its_remedy(ratings):
    with pytest.raises(FloatingPointError, match=r"\(ALS: alpha\) or raise the regularization"):
        ALS(4, alpha=1e38).fit(ratings)
    with pytest.raises(FloatingPointError, match="got a singular one; raise the regularization"):
        ALS(40, regularization=0.0, use_cg=False).fit(ratings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "model", [WARP(8, learning_rate=0.5, iterations=6), BPR(8, learning_rate=30.0, iterations=6)]
)
def test_divergence_is_seen_before_numbers_end(model, dtype):
    """In float64 a loss may be 10**85, and the factors finite."""
    model.dtype = dtype
    with pytest.raises(FloatingPointError, match="diverged: loss"):
        model.fit(random_ratings(200, 100, 0.2))


def test_divergence_in_the_last_step_is_seen(ratings):
    """Its loss was computed before the step."""
    with pytest.raises(FloatingPointError, match="diverged"):
        SVD(4, learning_rate=1e38, init_std=10.0, iterations=1, batch_size=1000).fit(ratings)


@pytest.mark.parametrize("w", [0.0, 0.25])
def test_svd_learns_from_the_unobserved_cells(ratings, w, monkeypatch):
    """As many rows again, with the target 0 and the weight w U I / n; only without is a mean."""
    batches = []
    monkeypatch.setattr("mflib.svd.svd_step", lambda **k: batches.append(k) or svd_step(**k))
    model = SVD(4, unobserved_weight=w, iterations=1, batch_size=1000).fit(ratings)
    (batch,), n = batches, ratings.nnz
    users, items, targets, weights = (
        batch[name] for name in ("users", "items", "ratings", "weights")
    )
    assert batch["mu"] == model.global_bias == pytest.approx(0.0 if w else ratings.data.mean())
    known = sp.csr_matrix((targets[:n], (users[:n], items[:n])), ratings.shape)
    assert (known != ratings).nnz == 0
    assert weights[:n].tolist() == [1] * n
    assert len(users) == len(items) == (2 * n if w else n)
    assert targets[n:].abs().sum() == 0
    assert weights[n:].numpy() == pytest.approx(w * 30 * 25 / n)


def test_unobserved_cells_are_drawn_from_all_users_and_all_items():
    """Far more ratings than users or items, so that each is drawn; each about as often."""
    shape = (6, 40)
    ratings = Ratings(sp.csr_matrix(np.ones(shape)), 0.5, torch.float32)
    batch = ratings.batch(torch.zeros(24_000, dtype=torch.long), generator(0, 0))
    for name, n in (("users", 6), ("items", 40)):
        count = torch.bincount(batch[name][24_000:], minlength=n)
        assert len(count) == n
        assert (count - 24_000 / n).abs().max() < 5 * np.sqrt(24_000 / n)


def test_an_iteration_of_warp_visits_every_like_once(monkeypatch):
    """Of users with more likes than a row holds, too; and all likes of a row's user are known."""
    likes, visited = random_ratings(6, 90, 0.7), []

    def spy(P, Q, users, known, rows, positives, draws, rank_weights, **rest):
        assert torch.bincount(rows).max() <= 32
        assert draws.shape == (50, len(rows))
        assert torch.equal(rank_weights, harmonic_numbers(90).float())
        assert torch.equal(known, known.sort().values)
        for row, user in enumerate(users.tolist()):
            of_row = known[known // 90 == row] % 90
            assert of_row.tolist() == likes[user].indices.tolist()
        visited.extend(zip(users[rows].tolist(), positives.tolist(), strict=True))
        return warp_step(P, Q, users, known, rows, positives, draws, rank_weights, **rest)

    monkeypatch.setattr("mflib.warp.warp_step", spy)
    WARP(4, iterations=1, batch_size=2).fit(likes)
    assert np.diff(likes.indptr).max() > 32
    assert sorted(visited) == list(zip(*(ids.tolist() for ids in likes.nonzero()), strict=True))


@pytest.mark.parametrize("name", ["BPR", "WARP", "Popularity"])
def test_dislikes_are_not_likes(ratings, name):
    """For a model of likes alone, a dislike is an empty cell: the same bits come out."""
    signed = ratings.copy()
    signed.data[signed.data < 3] *= -1
    likes = ratings.copy()
    likes.data[likes.data < 3] = 0
    one, other = (ALL[name](iterations=3).fit(matrix) for matrix in (signed, likes))
    for part in FITTED_STATE:
        assert torch.equal(getattr(one, part), getattr(other, part)), part


def test_what_fit_returns_is_what_was_trained(any_model, ratings):
    """The last callback sees the returned factors, bit for bit; WARP has moved item 7, too."""
    state = {}

    def keep(iteration, elapsed, loss):
        state.update({name: getattr(model, name).clone() for name in FITTED_STATE})

    model = any_model()
    model.fit(ratings, callback=keep)
    for name in FITTED_STATE:
        assert torch.equal(state[name], getattr(model, name)), name


def test_never_liked_items_are_negatives_and_stay_so():
    """WARP, BPR and SVD with zeros move an item that nobody likes from 0, where it started."""
    likes = sp.hstack([checkerboard(), sp.csr_matrix((20, 1))]).tocsr()
    for model in (
        IMPLICIT["WARP"](),
        IMPLICIT["BPR"](),
        SVD(6, unobserved_weight=0.3, iterations=20, batch_size=64),
    ):
        assert (model.fit(likes).item_factors[20] != 0).all(), type(model).__name__


def state_of(model):
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in vars(model).items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k]
        for k, v in one.items()
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_fit_leaves_the_model_as_it_was(any_model, ratings, error):
    def interrupt(iteration, elapsed, loss):
        raise error

    model = any_model(random_state=3)
    with pytest.raises(error):
        model.fit(ratings, callback=interrupt)
    with pytest.raises(RuntimeError, match=r"call fit\(user_items\) first"):
        model.recommend(0, ratings[0])
    before = state_of(model.fit(ratings))
    with pytest.raises(error):
        model.fit(ratings[::-1], callback=interrupt)
    assert same(before, state_of(model))


@pytest.mark.parametrize("name", ["SVD", "BPR", "WARP"])
def test_a_diverged_fit_leaves_the_model_as_it_was(ratings, name):
    model = ALL[name](iterations=2).fit(ratings)
    model.learning_rate = 1e30
    before = state_of(model)
    with pytest.raises(FloatingPointError, match="diverged"):
        model.fit(ratings)
    assert same(before, state_of(model))


@pytest.mark.parametrize("part", FITTED_STATE)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_divergence_is_looked_for_everywhere(ratings, part, value):
    model = SVD(4, iterations=1).fit(ratings)
    ensure_finite(model, 1.0, 0)
    getattr(model, part).view(-1)[-1] = value
    with pytest.raises(FloatingPointError, match=r"diverged: loss 1\.0 in iteration 3"):
        ensure_finite(model, 1.0, 3)


def test_a_second_fit_keeps_nothing_of_the_first(ratings):
    """Not the mean of the ratings, which SVD with zeros has not."""
    model = SVD(4, iterations=2).fit(ratings)
    assert model.global_bias > 0
    model.unobserved_weight = 0.1
    assert model.fit(ratings).global_bias == 0


@pytest.mark.parametrize("name", ["ALS", "BPR", "WARP", "Popularity"])
def test_only_dislikes_teach_nothing(ratings, name):
    with pytest.raises(ValueError, match="expected values above 0, the likes, to learn from"):
        ALL[name]().fit(-ratings)


@pytest.mark.parametrize("name", ["BPR", "WARP"])
def test_who_likes_everything_teaches_nothing(name):
    everything = sp.csr_matrix(np.array([[1.0, 1, 1], [0, 0, 0]]))
    with pytest.raises(ValueError, match="got only users who like all 3 items, or none"):
        ALL[name]().fit(everything)
    ALL[name](iterations=1).fit(sp.csr_matrix(np.array([[1.0, 1, 1], [1, 0, 0]])))


def test_history_and_callback(any_model, ratings):
    seen = []
    model = any_model().fit(ratings, callback=lambda *args: seen.append(args))
    assert [h["iteration"] for h in model.history] == list(range(model.iterations))
    assert [(h["iteration"], h["seconds"], h["loss"]) for h in model.history] == seen
    if not isinstance(model, Popularity):
        assert model.history[-1]["loss"] < model.history[0]["loss"]


def test_recommend_leaves_out_what_the_user_has(any_model, ratings):
    model, users = any_model().fit(ratings), np.arange(30)
    ids, scores = model.recommend(users, ratings, N=25)
    for user in users:
        known, got = set(ratings[user].indices), ids[user][ids[user] >= 0]
        assert known.isdisjoint(got)
        assert len(known) + len(got) == 25
        assert (scores[user][ids[user] < 0] == -np.inf).all()
        assert (np.diff(scores[user][: len(got)]) <= 0).all()
    with_known, _ = model.recommend(users, None, N=25, filter_already_liked_items=False)
    assert (np.sort(with_known) == np.arange(25)).all()


def test_recommend_leaves_out_dislikes():
    matrix = checkerboard().tolil()
    matrix[0, 1] = -1.0
    matrix = matrix.tocsr()
    ids, _ = ALS(6).fit(matrix).recommend(0, matrix[0], N=20)
    assert 1 not in ids


def test_recommend_one_and_many_agree(any_model, ratings):
    model = any_model().fit(ratings)
    ids, scores = model.recommend([4, 5, 3, 4], ratings[[4, 5, 3, 4]], N=30)
    assert ids.shape == scores.shape == (4, 30)
    for row, user in enumerate([4, 5, 3, 4]):
        one, its_scores = model.recommend(user, ratings[user], N=30)
        assert one.tolist() == ids[row][ids[row] >= 0].tolist()
        assert np.allclose(its_scores, scores[row][: len(one)], atol=1e-5)
        assert np.allclose(model.predict(np.full(len(one), user), one), its_scores, atol=1e-5)
    assert (
        model.recommend(4, sp.csr_array(ratings)[4])[0].tolist()
        == model.recommend(4, ratings[4])[0].tolist()
    )
    nobody, _ = model.recommend(np.array([], int), ratings[:0], N=4)
    assert nobody.shape == (0, 4)


def test_recommend_candidates(any_model, ratings):
    model = any_model().fit(ratings)
    everything, _ = model.recommend(3, ratings[3], N=25)
    some, _ = model.recommend(3, ratings[3], N=25, items=[9, 2, 4])
    assert some.tolist() == [i for i in everything if i in (9, 2, 4)]
    both, _ = model.recommend(3, ratings[3], N=25, items=[9, 2, 4], filter_items=[2])
    assert both.tolist() == [i for i in everything if i in (9, 4)], "what is left out stays out"
    without, _ = model.recommend(3, ratings[3], N=25, filter_items=[9, 2, 4])
    assert without.tolist() == [i for i in everything if i not in (9, 2, 4)]


def test_recommend_in_blocks(any_model, ratings, monkeypatch):
    model = any_model().fit(ratings)
    whole, _ = model.recommend(np.arange(30), ratings)
    monkeypatch.setattr("mflib.inputs.BLOCK", 60)
    parts, _ = model.recommend(np.arange(30), ratings)
    assert (whole == parts).all()


def test_predict_in_blocks(any_model, ratings, monkeypatch):
    model, users = any_model().fit(ratings), np.arange(30)
    expected = model.predict(users, users % 25)
    monkeypatch.setattr("mflib.inputs.BLOCK", 60)
    assert model.predict(users, users % 25).tolist() == expected.tolist()
    assert model.predict([], []).shape == (0,)


def test_recommend_refuses(any_model, ratings):
    model = any_model().fit(ratings)
    with pytest.raises(ValueError, match="a row for each given user"):
        model.recommend(3, ratings)
    with pytest.raises(ValueError, match=r"pass user_items\[userid\]; it looks transposed"):
        model.recommend(3, ratings.T.tocsr()[3])
    with pytest.raises(TypeError, match="scipy sparse"):
        model.recommend(3, ratings[3].toarray())
    with pytest.raises(IndexError, match="from 0 to 29, got 30 to 30; ids are contiguous"):
        model.recommend(30, ratings[3])
    with pytest.raises(IndexError, match="from 0 to 29, got -1"):
        model.recommend(-1, ratings[3])
    with pytest.raises(IndexError, match="item ids from 0 to 24"):
        model.recommend(3, ratings[3], items=[25])
    with pytest.raises(TypeError, match="got float64"):
        model.recommend(1.5, ratings[3])
    for N in (0, 2.5, True, None, "3"):
        with pytest.raises(ValueError, match="a whole number of at least 1 for N, got"):
            model.recommend(3, ratings[3], N=N)
    assert len(model.recommend(3, ratings[3], N=np.float64(5.0))[0]) == 5
    with pytest.raises(ValueError, match="as many users as items"):
        model.predict([1, 2], [1])


def test_unfitted_models_say_so(any_model, ratings, tmp_path):
    for call in (
        lambda m: m.recommend(0, ratings[0]),
        lambda m: m.similar_items(0),
        lambda m: m.predict([0], [0]),
        lambda m: m.save(tmp_path / "file"),
    ):
        with pytest.raises(RuntimeError, match=r"call fit\(user_items\) first"):
            call(any_model())


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_is_the_plain_formula(any_model, ratings, metric):
    model = any_model(dtype=torch.float64).fit(ratings)
    for W, similar in (
        (model.item_factors, model.similar_items),
        (model.user_factors, model.similar_users),
    ):
        W = W.numpy()
        ids, values = similar(np.arange(len(W)), N=5, metric=metric)
        for query in range(len(W)):
            if metric == "l2":
                expected = -np.sqrt(((W[query] - W) ** 2).sum(1))
            else:
                norms = np.linalg.norm(W[query]) * np.linalg.norm(W, axis=1)
                expected = np.divide(W @ W[query], norms, out=np.zeros(len(W)), where=norms > 0)
            assert np.allclose(values[query], np.sort(expected)[::-1][:5], atol=1e-9)
            assert np.allclose(expected[ids[query]], values[query], atol=1e-9)


def test_the_cosine_of_tiny_factors(any_model, ratings):
    """In float32 the squares of such factors are zero."""
    model = any_model().fit(ratings)
    ids, values = model.similar_items(np.arange(25))
    model.item_factors *= 2.0**-90
    tiny_ids, tiny_values = model.similar_items(np.arange(25))
    assert (tiny_ids == ids).all()
    assert (tiny_values == values).all()


def test_similar_filters_and_refuses(any_model, ratings):
    model = any_model().fit(ratings)
    assert 4 not in model.similar_items(4, N=25, filter_items=[4])[0]
    assert sorted(model.similar_items(4, items=[4, 8])[0]) == [4, 8]
    assert sorted(model.similar_users(4, N=3, users=[1, 2])[0]) == [1, 2]
    with pytest.raises(ValueError, match="'cosine' or 'l2', got 'dot'"):
        model.similar_items(4, metric="dot")
    with pytest.raises(IndexError, match="item ids from 0 to 24"):
        model.similar_items(25)


def test_rows_without_interactions_start_at_zero(any_model, ratings):
    model = any_model()
    model.seed = 0
    model._initialise(ratings.astype(np.float32), std=1.0)
    for factors, empty in ((model.user_factors, 3), (model.item_factors, 7)):
        assert (factors[empty] == 0).all()
        assert (factors != 0).any(1).sum() == len(factors) - 1
    model.fit(ratings)
    assert (model.user_factors[3] == 0).all(), "nothing has moved a user whom nobody draws"


@pytest.mark.parametrize("name", ["ALS", "SVD", "BPR"])
def test_the_cosine_with_nothing_is_zero(ratings, name):
    model = ALL[name]().fit(ratings)
    assert (model.similar_users(3)[1] == 0).all()


def exact_als(**options):
    options = {"alpha": 3.0, "regularization": 0.5, "use_cg": False} | options
    return ALS(4, dtype=torch.float64, **options)


def folded(Y, row):
    """The factors of a user with a row of stars, or of an item with a column, given the others."""
    row = torch.from_numpy(row.toarray()[0])
    A = Y.T @ Y + 0.5 * (row != 0).sum() ** 0.5 * torch.eye(4)
    A = A + (Y * (3 * row)[:, None]).T @ Y
    return torch.linalg.solve(A, Y.T @ ((1 + 3 * row) * (row > 0)))


def test_fold_in(ratings):
    model = exact_als().fit(ratings)
    Y = model.item_factors
    x = folded(Y, ratings[6])
    ids, scores = model.recommend(6, ratings[6], N=5, recalculate_user=True)
    assert np.allclose(scores, (Y @ x).numpy()[ids])
    new = model.recommend(1000, ratings[6], N=5, recalculate_user=True)
    assert new[0].tolist() == ids.tolist(), "a new user has no id yet"


def test_a_new_user_has_no_bias(ratings):
    """Not even that of user 0."""
    model = exact_als().fit(ratings)
    expected = model.recommend(6, ratings[6], recalculate_user=True)[1]
    model.user_biases += 5
    assert model.recommend(6, ratings[6], recalculate_user=True)[1].tolist() == expected.tolist()


def test_recalculated_items(ratings):
    model = exact_als().fit(ratings)
    columns = sp.csr_matrix(ratings.T)
    y = folded(model.user_factors, columns[6])
    for metric in ("cosine", "l2"):
        ids, values = model.similar_items(
            1000, N=9, recalculate_item=True, item_users=columns[6], metric=metric
        )
        W = model.item_factors
        expected = (
            torch.cosine_similarity(y[None], W) if metric == "cosine" else -(y - W).norm(dim=1)
        )
        assert np.allclose(values, expected[ids].numpy())
        assert expected.topk(9).values.numpy() == pytest.approx(values)
    many, _ = model.similar_items([6, 2], 9, True, columns[[6, 2]], metric="l2")
    assert many[0].tolist() == ids.tolist()
    with pytest.raises(ValueError, match=r"a row for each given item: pass item_users\[itemid\]"):
        model.similar_items(6, recalculate_item=True, item_users=columns)
    with pytest.raises(TypeError, match="scipy sparse"):
        model.similar_items(6, recalculate_item=True)


def test_an_explanation_adds_up(ratings):
    """The shares of all that the user likes are the score of the folded-in user."""
    signed = ratings.copy()
    signed.data[signed.data == 1] = -1
    model = exact_als().fit(signed)
    assert {-1} < set(signed[6].data), "the user must have dislikes, too"
    negative = 0
    for item in range(25):
        ((_,), (score,)) = model.recommend(
            0, signed[6], items=[item], recalculate_user=True, filter_already_liked_items=False
        )
        total, shares = model.explain(6, signed[6], item, N=100)
        assert total == pytest.approx(score)
        assert sum(share for _, share in shares) == pytest.approx(score)
        assert sorted(i for i, _ in shares) == np.flatnonzero(signed[6].toarray()[0] > 0).tolist()
        assert [share for _, share in shares] == sorted((s for _, s in shares), reverse=True)
        assert model.explain(6, signed[6], item, N=3)[1] == shares[:3]
        negative += sum(share < 0 for _, share in shares)
    assert negative, "a like may speak against a movie, and is shown"
    with pytest.raises(ValueError, match="a row for each given user"):
        model.explain(6, signed, 2)
    with pytest.raises(ValueError, match="a whole number of at least 1 for N, got -1"):
        model.explain(6, signed[6], 2, N=-1)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"ALS", "ALS-exact"}))
def test_fold_in_is_for_als(ratings, name):
    with pytest.raises(NotImplementedError, match="recalculate_user=False, or ALS"):
        ALL[name]().fit(ratings).recommend(6, ratings[6], recalculate_user=True)
    with pytest.raises(NotImplementedError, match="new items: expected recalculate_item=False"):
        ALL[name]().fit(ratings).similar_items(6, 3, True, sp.csr_matrix(ratings.T)[6])


@pytest.mark.parametrize("ids", [[4, 5], np.array([4, 5], np.int8), torch.tensor([4, 5])])
def test_ids_of_any_kind(any_model, ratings, ids):
    model = any_model().fit(ratings)
    rows = ratings[[4, 5]]
    expected = model.recommend([4, 5], rows, filter_items=[4, 5])[0].tolist()
    assert model.recommend(ids, rows, filter_items=ids)[0].tolist() == expected
    assert model.recommend(ids, rows, items=ids)[0].shape == (2, 10)
    assert model.similar_items(ids, items=ids)[0].shape == (2, 10)
    assert model.similar_users(ids, filter_users=ids)[0].shape == (2, 10)
    assert model.predict(ids, ids).shape == (2,)
    assert model.recommend(torch.tensor(4), ratings[4])[0].ndim == 1


def test_ids_come_out_as_int32(any_model, ratings):
    """As implicit's evaluation wants them."""
    model = any_model().fit(ratings)
    for ids, _ in (model.recommend(1, ratings[1]), model.similar_items([1, 2])):
        assert ids.dtype == np.int32


def test_save_load_and_pickle(any_model, ratings, tmp_path):
    model = any_model().fit(ratings)
    file = tmp_path / "model.pt"
    model.save(file)
    for copy in (type(model).load(file), pickle.loads(pickle.dumps(model))):
        assert repr(copy) == repr(model)
        assert copy.history == model.history
        assert copy.global_bias == model.global_bias
        assert all(torch.equal(getattr(copy, name), getattr(model, name)) for name in FITTED_STATE)
    other = SVD if not isinstance(model, SVD) else ALS
    with pytest.raises(ValueError, match=f"expected a saved {other.__name__}"):
        other.load(file)


def test_save_and_load_take_files(any_model, ratings, tmp_path):
    model = any_model().fit(ratings)
    memory = io.BytesIO()
    model.save(memory)
    memory.seek(0)
    assert torch.equal(type(model).load(memory).item_factors, model.item_factors)
    with (tmp_path / "model.pt").open("wb") as file:
        model.save(file)
    with (tmp_path / "model.pt").open("rb") as file:
        assert torch.equal(type(model).load(file).item_factors, model.item_factors)


def test_loading_executes_nothing(ratings, tmp_path):
    """What is no data is refused; a file of this kind could do anything."""

    class Trap:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"class": "ALS", "item_factors": Trap()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="got what is no model"):
        ALS.load(tmp_path / "model.pt")


def whole(file):
    ALS(3).fit(checkerboard()).save(file)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (
            lambda file: file.write_text("a text", encoding="utf-8"),
            "got what is no model, or a part of one",
        ),
        (lambda file: file.write_bytes(b""), "got what is no model"),
        (lambda file: file.write_bytes(whole(file)[:-100]), "got what is no model"),
        (lambda file: file.write_bytes(pickle.dumps({"class": "ALS"}, 2)), "got what is no model"),
        (lambda file: torch.save(torch.ones(3), file), "got Tensor of something else"),
        (lambda file: torch.save({"state": 1}, file), "got dict of something else"),
        (lambda file: torch.save({"class": "ALS", "fit": 3}, file), r"got one with \['fit'\]"),
    ],
)
def test_what_is_no_model_is_not_loaded(tmp_path, write, says):
    file = tmp_path / "model.pt"
    write(file)
    with pytest.raises(ValueError, match=f"expected a saved ALS in .*model.pt, {says}"):
        ALS.load(file)


def test_what_is_set_after_fit_is_saved(ratings, tmp_path):
    """Numpy's numbers become plain ones; what is not the model's own is refused, not lost."""
    model = ALS(4, use_cg=np.bool_(True)).fit(ratings)
    model.alpha, model.dtype = np.float64(3), np.float32
    model.save(tmp_path / "model.pt")
    assert ALS.load(tmp_path / "model.pt").alpha == 3
    model.titles = np.array(["Heat"])
    with pytest.raises(TypeError, match=r"attributes of ALS alone, got \['titles'\], too"):
        model.save(tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


def test_a_model_of_a_gpu_is_loaded_without_one(ratings, tmp_path):
    """The file is changed to say what it would, had the factors been on a GPU."""
    file, moved = tmp_path / "model.pt", tmp_path / "moved.pt"
    model = ALS(3).fit(ratings)
    model.save(file)
    with zipfile.ZipFile(file) as saved, zipfile.ZipFile(moved, "w") as target:
        for name in saved.namelist():
            content = saved.read(name)
            if name.endswith("data.pkl"):
                cpu, cuda = (b"X" + struct.pack("<I", len(d)) + d for d in (b"cpu", b"cuda:0"))
                assert cpu in content
                content = content.replace(cpu, cuda)
            target.writestr(name, content)
    loaded = ALS.load(moved)
    assert loaded.device == "cpu"
    assert torch.equal(loaded.item_factors, model.item_factors)
    assert ALS.load(moved, device="meta").item_factors.device.type == "meta"
    loaded.fit(ratings)


@pytest.mark.parametrize("random_state", [None, np.random.default_rng(2)])
def test_the_seed_is_saved(ratings, tmp_path, random_state):
    """A numpy generator is no data; what it gave is."""
    model = SVD(3, random_state=random_state, iterations=2).fit(ratings)
    model.save(tmp_path / "model.pt")
    loaded = SVD.load(tmp_path / "model.pt")
    assert loaded.random_state == loaded.seed == model.seed
    assert torch.equal(loaded.fit(ratings).item_factors, model.item_factors)


def test_numpy_hyperparameters_are_saved(ratings, tmp_path):
    for regularization in np.logspace(-1, 0, 2):
        ALS(3, regularization=regularization, random_state=np.int64(2)).fit(ratings).save(
            tmp_path / "model.pt"
        )
        assert ALS.load(tmp_path / "model.pt").regularization == regularization


def test_a_failed_save_keeps_the_old_file(ratings, tmp_path, monkeypatch):
    file = tmp_path / "model.pt"
    model = Popularity().fit(ratings)
    model.save(file)
    before = file.read_bytes()

    def full(state: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("enforce fail: unexpected pos")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*: is there room"):
        model.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


CHANGED = {
    "factors": 5,
    "iterations": 7,
    "random_state": 1,
    "dtype": torch.float64,
    "learning_rate": 0.003,
    "regularization": 0.7,
    "user_regularization": 0.3,
    "item_regularization": 0.3,
    "draws": 2,
    "unobserved_weight": 0.1,
    "decay": 0.5,
    "batch_size": 7,
    "init_std": 0.2,
    "alpha": 3.0,
    "frequency_scaling": 0.0,
    "use_cg": True,
    "cg_steps": 1,
    "extrapolation": 0.5,
    "margin": 0.0,
    "max_draws": 2,
}


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, field.name)
        for name in ("ALS", "BPR", "SVD", "WARP")
        for field in fields(ALL[name]())
        if field.name != "device"
    ],
)
def test_every_hyperparameter_matters(ratings, name, parameter):
    plain = ALL[name](iterations=4).fit(ratings)
    value = not plain.use_cg if parameter == "use_cg" else CHANGED[parameter]
    changed = ALL[name](**{"iterations": 4} | {parameter: value}).fit(ratings)
    assert not np.array_equal(plain.item_factors.numpy(), changed.item_factors.numpy()), (
        f"{parameter} is ignored"
    )


def test_fit_starts_anew(any_model, ratings):
    model = any_model()
    first = model.fit(ratings).item_factors.clone()
    assert torch.equal(model.fit(ratings).item_factors, first)
    assert len(model.history) == model.iterations


SAME_BITS = """
import sys, torch, numpy as np, hashlib
sys.path.insert(0, {tests!r})
torch.set_num_threads({threads})
from known_answers import ALL, random_ratings
ratings = random_ratings(500, 400, .1)
for name in sorted(ALL):
    model = ALL[name](factors=16, iterations=2).fit(ratings, show_progress=False)
    parts = (model.user_factors, model.item_factors, model.item_biases)
    bits = b"".join(W.numpy().tobytes() for W in parts)
    print(name, hashlib.sha256(bits).hexdigest())
"""


def test_same_seed_same_bits_across_processes_and_threads(request):
    tests = str(request.path.parent)
    runs = [
        subprocess.run(
            [sys.executable, "-c", SAME_BITS.format(tests=tests, threads=threads)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in (1, 2)
    ]
    assert len(runs[0].splitlines()) == len(IMPLICIT) + 2
    assert runs[0] == runs[1]
