"""The models: known answers, training, recommendations, similar items, explanations."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, IMPLICIT, checkerboard, random_ratings

from mflib import ALS, SVD, Popularity

LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases")
LIKES_ONLY = ("BPR", "WARP", "Popularity")


def assert_same_factors(one, other):
    for name in LEARNED:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


# --- known answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_recommend_finds_the_withheld_item_of_a_checkerboard(implicit_model, seed):
    board = checkerboard()
    ids, _ = implicit_model(random_state=seed).fit(board).recommend(np.arange(20), board, N=1)
    assert ids[:, 0].tolist() == list(range(20)), "only item u is withheld from user u"


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_items_have_the_same_colour_on_a_checkerboard(implicit_model, metric):
    model = implicit_model().fit(checkerboard())
    ids, _ = model.similar_items(np.arange(20), N=10, metric=metric)
    assert ((ids - np.arange(20)[:, None]) % 2 == 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {"regularization": 0.1},
        {"regularization": 0.01, "use_cg": False, "iterations": 50},
        {"regularization": 0.01, "extrapolation": 0.0, "iterations": 50},
    ],
)
def test_als_with_weak_regularization_solves_a_checkerboard(options, seed):
    """Folding a user in finds the same item as the factors from training.

    With a regularization of 0.01, 32 factors almost memorise the board, and the score of the
    withheld item is only 0.04. Ten iterations are then not enough for exact ranks.
    """
    n, users = 50, np.arange(50)
    board = checkerboard(n)
    model = ALS(32, alpha=1.0, random_state=seed, **options).fit(board)
    for recalculate_user in (False, True):
        ids, _ = model.recommend(users, board, N=1, recalculate_user=recalculate_user)
        assert ids[:, 0].tolist() == users.tolist(), f"recalculate_user={recalculate_user}"


def test_popularity_ranks_by_count(ratings):
    ids, scores = Popularity().fit(ratings).recommend(3, ratings[3], N=25)
    count = np.diff(ratings.tocsc().indptr)
    assert ids.tolist() == sorted(range(25), key=lambda i: (-count[i], i))
    assert scores.tolist() == count[ids].tolist()


def test_svd_without_regularization_reaches_the_eckart_young_optimum():
    """Rows and columns sum to zero, so the smallest error is the tail of the singular values."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(12, 10))
    full = full - full.mean(0) - full.mean(1, keepdims=True) + full.mean()
    optimum = (np.linalg.svd(full, compute_uv=False)[3:] ** 2).sum()
    options = {"learning_rate": 0.02, "decay": 1.0, "iterations": 2000, "batches": 1}
    model = SVD(3, regularization=0.0, dtype=torch.float64, **options).fit(sp.csr_matrix(full))
    users, items = np.indices(full.shape).reshape(2, -1)
    error = ((full.ravel() - model.predict(users, items)) ** 2).sum()
    assert 0.999999 * optimum < error < 1.0001 * optimum


# --- input of fit -------------------------------------------------------------------------------


def test_fit_accepts_any_sparse_format_and_leaves_it_unchanged(any_model, ratings):
    expected = any_model().fit(ratings)
    coo = ratings.tocoo()
    order = np.random.default_rng(1).permutation(coo.nnz)
    positions = (coo.row[order], coo.col[order])
    shuffled = sp.coo_matrix((coo.data[order], positions), shape=ratings.shape)
    other_forms = (ratings.tocsc(), shuffled, ratings.tolil(), sp.csr_array(ratings))
    for matrix in (*other_forms, ratings.astype(np.int32)):
        before = matrix.copy()
        assert_same_factors(any_model().fit(matrix), expected)
        assert (before != matrix).nnz == 0


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((3, 3)), TypeError, "expected a scipy sparse matrix"),
        (torch.ones(3, 3), TypeError, "expected a scipy sparse matrix"),
        (sp.csr_matrix((3, 3)), ValueError, r"got an empty matrix of shape \(3, 3\)"),
        (sp.csr_matrix((0, 3)), ValueError, r"got an empty matrix of shape \(0, 3\)"),
        (sp.csr_matrix(np.array([[1.0, np.nan]])), ValueError, "got NaN or infinity"),
        (sp.csr_matrix(np.array([[1.0, np.inf]])), ValueError, "got NaN or infinity"),
    ],
)
def test_fit_refuses_invalid_matrices(any_model, bad, error, message):
    with pytest.raises(error, match=message):
        any_model().fit(bad)


@pytest.mark.parametrize("name", LIKES_ONLY)
def test_fit_treats_dislikes_as_empty_entries(ratings, name):
    dislikes, likes = ratings.copy(), ratings.copy()
    dislikes.data[dislikes.data < 3] *= -1
    likes.data[likes.data < 3] = 0
    assert_same_factors(*(ALL[name](iterations=3).fit(matrix) for matrix in (dislikes, likes)))


@pytest.mark.parametrize("name", [*IMPLICIT, "Popularity"])
def test_fit_refuses_data_without_likes(ratings, name):
    message = f"expected at least one like .*, got {ratings.nnz} values <= 0"
    with pytest.raises(ValueError, match=message):
        ALL[name]().fit(-ratings)


@pytest.mark.parametrize("name", ["BPR", "WARP"])
def test_fit_refuses_data_in_which_every_user_likes_all_items_or_none(name):
    everything = sp.csr_matrix(np.array([[1.0, 1, 1], [0, 0, 0]]))
    with pytest.raises(ValueError, match="got only users who like all 3 items, or none"):
        ALL[name]().fit(everything)
    ALL[name](iterations=1).fit(sp.csr_matrix(np.array([[1.0, 1, 1], [1, 0, 0]])))


# --- training -----------------------------------------------------------------------------------


def test_fit_returns_the_factors_that_the_last_callback_saw(any_model, ratings):
    """Nothing, such as zeroing rows without interactions, happens after training."""
    seen = {}

    def keep(iteration, seconds, loss):
        seen.update({name: getattr(model, name).clone() for name in LEARNED})

    model = any_model()
    model.fit(ratings, callback=keep)
    for name in LEARNED:
        assert torch.equal(seen[name], getattr(model, name)), name


def test_history_matches_the_arguments_of_the_callback(any_model, ratings):
    seen = []
    model = any_model().fit(ratings, callback=lambda *args: seen.append(args))
    assert [entry["iteration"] for entry in model.history] == list(range(model.iterations))
    history = [(entry["iteration"], entry["seconds"], entry["loss"]) for entry in model.history]
    assert history == seen
    if not isinstance(model, Popularity):
        assert model.history[-1]["loss"] < model.history[0]["loss"]


@pytest.mark.parametrize("name", sorted(set(ALL) - {"Popularity"}))
def test_longer_training_has_the_same_first_iterations(ratings, name):
    """The number of iterations does not change the random numbers of the first ones."""
    states, long = [], ALL[name](iterations=7)

    def keep(*_):
        states.append([getattr(long, part).clone() for part in LEARNED])

    long.fit(ratings, callback=keep)
    for iterations in (1, 3):
        short = ALL[name](iterations=iterations).fit(ratings)
        for part, expected in zip(LEARNED, states[iterations - 1], strict=True):
            assert torch.equal(getattr(short, part), expected), (iterations, part)
        assert [h["loss"] for h in short.history] == [h["loss"] for h in long.history[:iterations]]


def test_fit_starts_from_scratch_at_each_call(any_model, ratings):
    model = any_model()
    first = model.fit(ratings).item_factors.clone()
    assert torch.equal(model.fit(ratings).item_factors, first)
    assert len(model.history) == model.iterations


def test_fit_does_not_keep_the_global_bias_of_an_earlier_fit(ratings):
    model = SVD(4, iterations=2).fit(ratings)
    assert model.global_bias == pytest.approx(ratings.data.mean())
    assert model.fit(2 * ratings).global_bias == pytest.approx(2 * ratings.data.mean())


def test_rows_without_interactions_start_at_zero(any_model, ratings):
    model = any_model()
    model.seed = 0
    model._initialise(ratings.astype(np.float32), std=1.0)
    for factors, empty in ((model.user_factors, 3), (model.item_factors, 7)):
        assert (factors[empty] == 0).all()
        assert (factors != 0).any(1).sum() == len(factors) - 1


@pytest.mark.parametrize("name", ALL)
def test_users_without_interactions_stay_at_zero(ratings, name):
    assert (ALL[name]().fit(ratings).user_factors[3] == 0).all()


@pytest.mark.parametrize("name", ["WARP", "BPR"])
def test_items_without_likes_are_moved_as_negatives(name):
    likes = sp.hstack([checkerboard(), sp.csr_matrix((20, 1))]).tocsr()
    assert (ALL[name]().fit(likes).item_factors[20] != 0).all()


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
    "decay": 0.5,
    "batches": 7,
    "batch_size": 7,
    "init_std": 0.2,
    "alpha": 3.0,
    "frequency_scaling": 0.0,
    "use_cg": False,
    "cg_steps": 1,
    "extrapolation": 0.2,
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
def test_every_parameter_changes_the_factors(ratings, name, parameter):
    default = ALL[name](iterations=4).fit(ratings)
    changed = ALL[name](**{"iterations": 4} | {parameter: CHANGED[parameter]}).fit(ratings)
    assert getattr(default, parameter) != getattr(changed, parameter)
    assert not np.array_equal(default.item_factors.numpy(), changed.item_factors.numpy())


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


def test_the_same_seed_gives_the_same_bits_in_any_process_and_number_of_threads(request):
    runs = []
    for threads in (1, 2):
        code = SAME_BITS.format(tests=str(request.path.parent), threads=threads)
        command = [sys.executable, "-c", code]
        runs.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [line.split()[0] for line in runs[0].splitlines()] == sorted(ALL)
    assert runs[0] == runs[1]


# --- recommendations ----------------------------------------------------------------------------


def test_recommend_leaves_out_known_items(any_model, ratings):
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


def test_recommend_returns_the_same_items_for_one_user_and_for_many(any_model, ratings):
    model, users = any_model().fit(ratings), [4, 5, 3, 4]
    ids, scores = model.recommend(users, ratings[users], N=20)
    assert ids.shape == scores.shape == (4, 20)
    for row, user in enumerate(users):
        one, scores_of_one = model.recommend(user, ratings[user], N=20)
        assert one.tolist() == ids[row][ids[row] >= 0].tolist()
        assert np.allclose(scores_of_one, scores[row][: len(one)], atol=1e-5)
        assert np.allclose(model.predict(np.full(len(one), user), one), scores_of_one, atol=1e-5)
        array, _ = model.recommend(user, sp.csr_array(ratings)[user], N=20)
        assert array.tolist() == one.tolist()
    nobody, _ = model.recommend(np.array([], int), ratings[:0], N=4)
    assert nobody.shape == (0, 4)


@pytest.mark.parametrize("N", [26, 10**12, np.float64(30)])
def test_lists_are_at_most_as_long_as_the_catalogue(any_model, ratings, N):
    model = any_model().fit(ratings)
    assert model.recommend([3, 5], ratings[[3, 5]], N=N)[0].shape == (2, 25)
    assert len(model.recommend(3, ratings[3], N=N)[0]) == 25
    assert model.similar_items([3, 5], N=N)[0].shape == (2, 25)
    assert model.similar_users([3, 5], N=N)[0].shape == (2, min(int(N), 30))


def test_recommend_ranks_only_given_items_and_leaves_out_filtered_ones(any_model, ratings):
    model = any_model().fit(ratings)

    def recommended(**options):
        return model.recommend(3, ratings[3], N=25, **options)[0].tolist()

    ranking = recommended()
    assert recommended(items=[9, 2, 4]) == [i for i in ranking if i in (9, 2, 4)]
    assert recommended(items=[9, 2, 4], filter_items=[2]) == [i for i in ranking if i in (9, 4)]
    assert recommended(filter_items=[9, 2, 4]) == [i for i in ranking if i not in (9, 2, 4)]


def test_results_do_not_depend_on_the_size_of_blocks(any_model, ratings, monkeypatch):
    model, users = any_model().fit(ratings), np.arange(30)
    expected = model.recommend(users, ratings)[0], model.predict(users, users % 25)
    blocks, scores = [], model._scores
    monkeypatch.setattr("mflib.sparse.BLOCK", 60)
    monkeypatch.setattr(model, "_scores", lambda *P: blocks.append(P) or scores(*P))
    assert np.array_equal(model.recommend(users, ratings)[0], expected[0])
    assert len(blocks) == 15
    assert np.array_equal(model.predict(users, users % 25), expected[1])
    assert model.predict([], []).shape == (0,)


def test_recommend_refuses_matrices_of_another_shape(any_model, ratings):
    model = any_model().fit(ratings)
    with pytest.raises(ValueError, match="a row for each given user"):
        model.recommend(3, ratings)
    with pytest.raises(ValueError, match=r"pass user_items\[userid\]; it looks transposed"):
        model.recommend(3, ratings.T.tocsr()[3])
    with pytest.raises(TypeError, match="scipy sparse"):
        model.recommend(3, ratings[3].toarray())
    with pytest.raises(ValueError, match=r"got None; pass user_items\[userid\] or filter_already"):
        model.recommend(3, None)


def test_recommend_refuses_ids_that_do_not_exist(any_model, ratings):
    model = any_model().fit(ratings)
    with pytest.raises(IndexError, match="from 0 to 29, got 30 to 30; ids are contiguous"):
        model.recommend(30, ratings[3])
    with pytest.raises(IndexError, match="from 0 to 29, got -1"):
        model.recommend(-1, ratings[3])
    with pytest.raises(IndexError, match="item ids from 0 to 24"):
        model.recommend(3, ratings[3], items=[25])
    with pytest.raises(IndexError, match="item ids from 0 to 24"):
        model.recommend(3, ratings[3], filter_items=[25])
    with pytest.raises(TypeError, match="got float64"):
        model.recommend(1.5, ratings[3])
    with pytest.raises(ValueError, match="as many users as items, got 2 and 1"):
        model.predict([1, 2], [1])


@pytest.mark.parametrize("N", [0, -1, 2.5, True, None, "3", float("inf"), 10**400])
def test_invalid_list_lengths_are_refused(ratings, N):
    model = ALL["ALS"]().fit(ratings)
    for call in (
        lambda: model.recommend(3, ratings[3], N=N),
        lambda: model.similar_items(3, N=N),
        lambda: model.similar_users(3, N=N),
        lambda: model.explain(3, ratings[3], 5, N=N),
    ):
        with pytest.raises(ValueError, match="a whole number >= 1 for N, got"):
            call()


def test_unfitted_models_ask_for_fit(any_model, ratings, tmp_path):
    for call in (
        lambda model: model.recommend(0, ratings[0]),
        lambda model: model.similar_items(0),
        lambda model: model.similar_users(0),
        lambda model: model.predict([0], [0]),
        lambda model: model.scores([0]),
        lambda model: model.save(tmp_path / "file"),
    ):
        with pytest.raises(RuntimeError, match=r"call fit\(user_items\) first"):
            call(any_model())


@pytest.mark.parametrize("ids", [[4, 5], (4, 5), np.array([4, 5], np.int8), torch.tensor([4, 5])])
def test_ids_of_any_type_give_the_same_results(any_model, ratings, ids):
    model, rows = any_model().fit(ratings), ratings[[4, 5]]

    def results(ids, first):
        return [
            model.recommend(ids, rows),
            model.recommend(ids, rows, items=ids),
            model.recommend(ids, rows, filter_items=ids),
            model.similar_items(ids),
            model.similar_items(ids, items=ids),
            model.similar_users(ids, filter_users=ids),
            model.recommend(first, ratings[4]),
            model.similar_items(first),
            (model.predict(ids, ids), model.scores(ids).numpy()),
        ]

    for got, expected in zip(results(ids, ids[0]), results([4, 5], 4), strict=True):
        for array, other in zip(got, expected, strict=True):
            assert np.array_equal(array, other)


def test_ids_are_returned_as_int32(any_model, ratings):
    """The evaluation of implicit expects this type."""
    model = any_model().fit(ratings)
    for ids, _ in (model.recommend(1, ratings[1]), model.similar_items([1, 2])):
        assert ids.dtype == np.int32


# --- similar items and users --------------------------------------------------------------------


def similarities(W, query, metric):
    """Return the similarities of a row of W to all rows, computed from the definition."""
    if metric == "l2":
        return -np.sqrt(((W[query] - W) ** 2).sum(1))
    norms = np.linalg.norm(W[query]) * np.linalg.norm(W, axis=1)
    return np.divide(W @ W[query], norms, out=np.zeros(len(W)), where=norms > 0)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_items_and_users_match_the_definition(any_model, ratings, metric):
    model = any_model(dtype=torch.float64).fit(ratings)
    sides = ((model.item_factors, model.similar_items), (model.user_factors, model.similar_users))
    for factors, similar in sides:
        W = factors.numpy()
        ids, values = similar(np.arange(len(W)), N=5, metric=metric)
        assert ids[:, 0].tolist() == list(range(len(W))), "the query comes first"
        for query in range(len(W)):
            expected = similarities(W, query, metric)
            others = np.sort(np.delete(expected, query))[::-1][:4]
            assert np.allclose(values[query], [expected[query], *others], atol=1e-9)
            assert np.allclose(expected[ids[query]], values[query], atol=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_items_puts_the_query_before_equal_items(ratings, metric):
    """Rounding would rank some of the equal or proportional items above the query."""
    model = ALS(5).fit(ratings)
    model.item_factors[:] = model.item_factors[0]
    ids, values = model.similar_items(np.arange(25), N=25, metric=metric)
    assert ids[:, 0].tolist() == list(range(25))
    assert (values[:, 0] == (1 if metric == "cosine" else 0)).all()
    assert np.isfinite(values).all()


def test_similar_items_handles_tiny_factors(any_model, ratings):
    """In float32 the squares of tiny factors underflow to zero."""
    model = any_model().fit(ratings)
    ids, values = model.similar_items(np.arange(25))
    model.item_factors *= 2.0**-90
    tiny_ids, tiny_values = model.similar_items(np.arange(25))
    assert (tiny_ids == ids).all()
    assert (tiny_values == values).all()


def test_similar_items_and_users_apply_filters(any_model, ratings):
    model = any_model().fit(ratings)
    assert 4 not in model.similar_items(4, N=25, filter_items=[4])[0]
    assert sorted(model.similar_items(4, items=[4, 8])[0]) == [4, 8]
    assert sorted(model.similar_users(4, N=3, users=[1, 2])[0]) == [1, 2]
    assert 4 not in model.similar_users(4, N=30, filter_users=[4])[0]


def test_similar_items_refuses_unknown_metrics_and_ids(any_model, ratings):
    model = any_model().fit(ratings)
    with pytest.raises(ValueError, match="'cosine' or 'l2', got 'dot'"):
        model.similar_items(4, metric="dot")
    with pytest.raises(IndexError, match="item ids from 0 to 24"):
        model.similar_items(25)


@pytest.mark.parametrize("name", ["ALS", "SVD", "BPR"])
def test_the_cosine_of_a_zero_vector_is_zero(ratings, name):
    model = ALL[name]().fit(ratings)
    ids, values = model.similar_users(3)
    assert ids[0] == 3
    assert (values == 0).all()


# --- folding in and explaining ------------------------------------------------------------------


def exact_als(**options):
    options = {"alpha": 3.0, "regularization": 0.5, "use_cg": False} | options
    return ALS(4, dtype=torch.float64, **options)


def folded_in(Y, row):
    """Return the factors of a user (or item) with the given row of values, by dense algebra."""
    row = torch.from_numpy(row.toarray()[0])
    A = Y.T @ Y + 0.5 * (row != 0).sum() ** 0.5 * torch.eye(4)
    A = A + (Y * (3 * row)[:, None]).T @ Y
    return torch.linalg.solve(A, Y.T @ ((1 + 3 * row) * (row > 0)))


@pytest.mark.parametrize("liked", [[9], [9, 2], [0, 5, 9, 11]])
def test_recommend_folds_in_a_user(ratings, liked):
    """With one like, the penalty is ``regularization`` itself."""
    model = exact_als().fit(ratings)
    row = sp.csr_matrix((np.full(len(liked), 4.0), ([0] * len(liked), liked)), (1, 25))
    expected = (model.item_factors @ folded_in(model.item_factors, row)).numpy()
    ids, scores = model.recommend(6, row, N=5, recalculate_user=True)
    assert np.allclose(scores, expected[ids])
    new_ids, new_scores = model.recommend(1000, row, N=5, recalculate_user=True)
    assert new_ids.tolist() == ids.tolist(), "a new user has no id yet"
    assert new_scores.tolist() == scores.tolist()


def test_fit_gives_a_user_with_one_like_the_exact_solution():
    """The last iteration solves the user with the items of the iteration before."""
    likes = random_ratings(20, 15, 0.3).tolil()
    likes[4] = 0
    likes[4, 2] = 5.0
    likes, before = likes.tocsr(), {}
    model = exact_als(iterations=2, extrapolation=0.0)

    def keep(iteration, seconds, loss):
        before[iteration] = model.item_factors.clone()

    model.fit(likes, callback=keep)
    assert torch.allclose(model.user_factors[4], folded_in(before[0], likes[4]))


def test_recommend_gives_a_new_user_no_bias(ratings):
    model = exact_als().fit(ratings)
    expected = model.recommend(6, ratings[6], recalculate_user=True)[1]
    model.user_biases += 5
    assert model.recommend(6, ratings[6], recalculate_user=True)[1].tolist() == expected.tolist()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_similar_items_folds_in_items(ratings, metric):
    model = exact_als().fit(ratings)
    columns, W = sp.csr_matrix(ratings.T), model.item_factors
    y = folded_in(model.user_factors, columns[6])
    options = {"N": 9, "recalculate_item": True, "metric": metric}
    ids, values = model.similar_items(1000, item_users=columns[6], **options)
    cosine = metric == "cosine"
    expected = torch.cosine_similarity(y[None], W) if cosine else -(y - W).norm(dim=1)
    assert np.allclose(values, expected[ids].numpy())
    assert expected.topk(9).values.numpy() == pytest.approx(values)
    several, _ = model.similar_items([6, 2], item_users=columns[[6, 2]], **options)
    assert several[0].tolist() == ids.tolist()


def test_similar_items_refuses_matrices_of_another_shape(ratings):
    model = exact_als().fit(ratings)
    with pytest.raises(ValueError, match=r"a row for each given item: pass item_users\[itemid\]"):
        model.similar_items(6, recalculate_item=True, item_users=sp.csr_matrix(ratings.T))
    with pytest.raises(ValueError, match=r"got None; pass item_users\[itemid\]"):
        model.similar_items(6, recalculate_item=True)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"ALS", "ALS-exact"}))
def test_only_als_folds_in(ratings, name):
    model = ALL[name]().fit(ratings)
    with pytest.raises(NotImplementedError, match="recalculate_user=False or an ALS model"):
        model.recommend(6, ratings[6], recalculate_user=True)
    with pytest.raises(NotImplementedError, match="cannot compute factors of new items"):
        model.similar_items(6, 3, True, sp.csr_matrix(ratings.T)[6])


def test_explain_splits_the_score_into_the_likes(ratings):
    """The contributions of all likes add up to the score of the folded-in user."""
    signed = ratings.copy()
    signed.data[signed.data == 1] = -1
    model, row = exact_als().fit(signed), signed[6]
    assert (row.data == -1).any(), "the user must have dislikes, too"
    negative = 0
    for item in range(25):
        options = {"recalculate_user": True, "filter_already_liked_items": False}
        _, (score,) = model.recommend(0, row, items=[item], **options)
        total, contributions = model.explain(6, row, item, N=100)
        shares = [share for _, share in contributions]
        assert total == pytest.approx(score)
        assert sum(shares) == pytest.approx(score)
        assert sorted(i for i, _ in contributions) == np.flatnonzero(row.toarray()[0] > 0).tolist()
        assert shares == sorted(shares, reverse=True)
        assert model.explain(6, row, item, N=3)[1] == contributions[:3]
        negative += sum(share < 0 for share in shares)
    assert negative, "likes that lower the score must be listed, too"


@pytest.mark.parametrize("item", [[5, 7], np.array([5]), torch.tensor([5, 7]), (), "5", 5.0, None])
def test_explain_refuses_anything_but_one_item(ratings, item):
    model = exact_als().fit(ratings)
    with pytest.raises(TypeError, match="expected one item id"):
        model.explain(6, ratings[6], item)


def test_explain_refuses_invalid_items_and_matrices(ratings):
    model = exact_als().fit(ratings)
    for item in (25, -1):
        with pytest.raises(IndexError, match="item ids from 0 to 24"):
            model.explain(6, ratings[6], item)
    with pytest.raises(ValueError, match="a row for each given user"):
        model.explain(6, ratings, 2)
    for item in (np.int64(2), torch.tensor(2)):
        assert model.explain(6, ratings[6], item) == model.explain(6, ratings[6], 2)


def test_explain_of_a_user_without_likes_is_empty(ratings):
    model = exact_als().fit(ratings)
    assert model.explain(6, sp.csr_matrix((1, 25)), 2) == (0.0, [])
    assert model.explain(6, -ratings[6], 2) == (0.0, [])
