"""What holds for every model: the known answers and the interface."""

import pickle
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, IMPLICIT, checkerboard, random_ratings

from mflib import ALS, SVD, WARP, Popularity
from mflib.model import top
from mflib.svd import svd_step
from mflib.warp import warp_step

FITTED_STATE = ("user_factors", "item_factors", "user_biases", "item_biases")


@pytest.mark.parametrize("seed", range(5))
def test_checkerboard(implicit_model, seed):
    board = checkerboard()
    ids, _ = implicit_model(random_state=seed).fit(board).recommend(np.arange(20), board, N=1)
    assert ids[:, 0].tolist() == list(range(20)), "each user lacks one item of their colour: their own number"


def test_checkerboard_neighbours(implicit_model):
    model = implicit_model().fit(checkerboard())
    for metric in ("cosine", "l2"):
        ids, _ = model.similar_items(np.arange(20), N=10, metric=metric)
        assert ((ids - np.arange(20)[:, None]) % 2 == 0).all(), f"{metric}: items of the other colour among the nearest"


def test_popularity_ranks_by_count(ratings):
    ids, scores = Popularity().fit(ratings).recommend(3, ratings[3], N=25)
    count = np.diff(ratings.tocsc().indptr)
    assert ids.tolist() == sorted(range(25), key=lambda i: (-count[i], i))
    assert scores.tolist() == count[ids].tolist()


def test_unregularised_svd_meets_eckart_young():
    """Of a full matrix whose rows and columns sum to zero, no biases and F factors leave less than the
    singular values beyond the F-th."""
    rng = np.random.default_rng(0)
    full = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(12, 10))
    full = full - full.mean(0) - full.mean(1, keepdims=True) + full.mean()
    optimum = (np.linalg.svd(full, compute_uv=False)[3:] ** 2).sum()
    model = SVD(3, learning_rate=0.02, regularization=0.0, decay=1.0, iterations=2000, batch_size=120)
    model.dtype = torch.float64
    model.fit(sp.csr_matrix(full))
    users, items = np.indices(full.shape).reshape(2, -1)
    error = ((full.ravel() - model.predict(users, items)) ** 2).sum()
    assert 0.999999 * optimum < error < 1.0001 * optimum


def test_fit_accepts_any_sparse_format_and_leaves_it_alone(any_model, ratings):
    expected = any_model().fit(ratings)
    shuffled = ratings.tocoo()
    order = np.random.default_rng(1).permutation(shuffled.nnz)
    shuffled = sp.coo_matrix((shuffled.data[order], (shuffled.row[order], shuffled.col[order])), shape=ratings.shape)
    for matrix in (ratings.tocsc(), shuffled, ratings.tolil(), sp.csr_array(ratings), ratings.astype(np.int32)):
        before = matrix.copy()
        model = any_model().fit(matrix)
        for name in FITTED_STATE:
            assert torch.allclose(getattr(model, name), getattr(expected, name), atol=1e-5), (type(matrix), name)
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


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in sorted(ALL) for size in ("factors", "iterations")]
    + [("SVD", "batch_size"), ("BPR", "batch_size"), ("WARP", "max_draws"), ("ALS", "cg_steps")],
)
def test_sizes_must_be_positive(ratings, name, size):
    with pytest.raises(ValueError, match=f"expected at least 1 for {size}, got {name[:3]}.*{size}=0"):
        ALL[name](**{size: 0}).fit(ratings)


@pytest.mark.parametrize("name", ["SVD", "BPR", "WARP"])
def test_divergence_stops_training(ratings, name):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        ALL[name](learning_rate=1e6).fit(ratings)


def test_als_divergence_names_its_remedy(ratings):
    with pytest.raises(FloatingPointError, match=r"\(ALS: alpha\) or raise the regularization"):
        ALS(4, alpha=1e38).fit(ratings)
    with pytest.raises(FloatingPointError, match="got a singular one; raise the regularization"):
        ALS(40, regularization=0.0, use_cg=False).fit(ratings)


def test_divergence_in_the_last_step_is_seen(ratings):
    """Its loss was computed before the step."""
    with pytest.raises(FloatingPointError, match="diverged"):
        SVD(4, learning_rate=1e38, init_std=10.0, iterations=1, batch_size=1000).fit(ratings)


@pytest.mark.parametrize("w", [0.0, 0.25])
def test_svd_learns_from_the_unobserved_cells(ratings, w, monkeypatch):
    """As many rows again, with the target 0 and the weight w U I / n; only without them is there a mean."""
    batches, step = [], svd_step
    monkeypatch.setattr("mflib.svd.svd_step", lambda *batch: batches.append(batch) or step(*batch))
    model = SVD(4, unobserved_weight=w, iterations=1, batch_size=1000).fit(ratings)
    (*_, mu, users, items, targets, weights, _, _), n = batches[0], ratings.nnz
    assert mu == model.global_bias == pytest.approx(0.0 if w else ratings.data.mean())
    known = sp.csr_matrix((targets[:n], (users[:n], items[:n])), ratings.shape)
    assert (known != ratings).nnz == 0
    assert weights[:n].tolist() == [1] * n
    assert len(users) == len(items) == (2 * n if w else n)
    assert targets[n:].abs().sum() == 0
    assert weights[n:].numpy() == pytest.approx(w * 30 * 25 / n)


def test_an_iteration_of_warp_visits_every_like_once(monkeypatch):
    """Of users with more likes than a row holds, too; and a rank r weighs 1 + 1/2 + ... + 1/r."""
    likes, visited, step = random_ratings(6, 90, 0.7), [], warp_step

    def spy(P, Q, users, liked, rows, positives, draws, weights, *rest):
        assert torch.bincount(rows).max() <= 32
        assert draws.shape == (50, len(rows))
        assert torch.allclose(weights, torch.tensor([sum(1 / k for k in range(1, r + 1)) for r in range(90)]))
        visited.extend(zip(users[rows].tolist(), positives.tolist(), strict=True))
        return step(P, Q, users, liked, rows, positives, draws, weights, *rest)

    monkeypatch.setattr("mflib.warp.warp_step", spy)
    WARP(4, iterations=1, batch_size=2).fit(likes)
    assert np.diff(likes.indptr).max() > 32
    assert sorted(visited) == list(zip(*(ids.tolist() for ids in likes.nonzero()), strict=True))


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
    assert model.recommend(4, sp.csr_array(ratings)[4])[0].tolist() == model.recommend(4, ratings[4])[0].tolist()
    nobody, _ = model.recommend(np.array([], int), ratings[:0], N=4)
    assert nobody.shape == (0, 4)


def test_recommend_candidates(any_model, ratings):
    model = any_model().fit(ratings)
    everything, _ = model.recommend(3, ratings[3], N=25)
    some, _ = model.recommend(3, ratings[3], N=25, items=[9, 2, 4])
    assert some.tolist() == [i for i in everything if i in (9, 2, 4)]
    without, _ = model.recommend(3, ratings[3], N=25, filter_items=[9, 2, 4])
    assert without.tolist() == [i for i in everything if i not in (9, 2, 4)]


def test_recommend_in_blocks(any_model, ratings, monkeypatch):
    model = any_model().fit(ratings)
    whole, _ = model.recommend(np.arange(30), ratings)
    monkeypatch.setattr("mflib.model.BLOCK", 60)
    parts, _ = model.recommend(np.arange(30), ratings)
    assert (whole == parts).all()


def test_recommend_refuses(any_model, ratings):
    model = any_model().fit(ratings)
    with pytest.raises(ValueError, match="a row for each given user"):
        model.recommend(3, ratings)
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
    with pytest.raises(ValueError, match="N of at least 1"):
        model.recommend(3, ratings[3], N=0)
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
    for W, similar in ((model.item_factors, model.similar_items), (model.user_factors, model.similar_users)):
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


def test_rows_without_interactions_are_zero(any_model, ratings):
    model = any_model().fit(ratings)
    assert (model.user_factors[3] == 0).all()
    assert (model.item_factors[7] == 0).all()
    assert (model.similar_items(7)[1] == 0).all(), "the cosine with nothing is 0, not NaN"


def test_fold_in(ratings):
    model = ALS(4, alpha=3.0, regularization=0.5, use_cg=False, dtype=torch.float64)
    model.fit(ratings)
    A = (Y := model.item_factors).T @ Y + 0.5 * ratings[6].nnz ** 0.5 * torch.eye(4)
    row = torch.from_numpy(ratings[[6]].toarray()[0])
    A += (Y * (3 * row)[:, None]).T @ Y
    x = torch.linalg.solve(A, Y.T @ ((1 + 3 * row) * (row > 0)))
    ids, scores = model.recommend(6, ratings[6], N=5, recalculate_user=True)
    assert np.allclose(scores, (Y @ x).numpy()[ids])
    assert np.allclose(model.recommend(1000, ratings[6], N=5, recalculate_user=True)[0], ids), (
        "a new user has no id yet"
    )


@pytest.mark.parametrize("name", sorted(set(ALL) - {"ALS", "ALS-exact"}))
def test_fold_in_is_for_als(ratings, name):
    with pytest.raises(NotImplementedError, match="recalculate_user=False, or ALS"):
        ALL[name]().fit(ratings).recommend(6, ratings[6], recalculate_user=True)


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


def test_numpy_hyperparameters_are_saved(ratings, tmp_path):
    for regularization in np.logspace(-1, 0, 2):
        ALS(3, regularization=regularization, random_state=np.int64(2)).fit(ratings).save(tmp_path / "model.pt")
        assert ALS.load(tmp_path / "model.pt").regularization == regularization


def test_a_failed_save_keeps_the_old_file(ratings, tmp_path, monkeypatch):
    file = tmp_path / "model.pt"
    model = Popularity().fit(ratings)
    model.save(file)
    before = file.read_bytes()
    monkeypatch.setattr(torch, "save", lambda state, path: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
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
    assert not np.array_equal(plain.item_factors.numpy(), changed.item_factors.numpy()), f"{parameter} is ignored"


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
    bits = b"".join(W.numpy().tobytes() for W in (model.user_factors, model.item_factors, model.item_biases))
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
