"""Training that is interrupted, stopped or diverges; settings of torch; extreme values."""

import itertools
import threading
from contextlib import contextmanager
from pkgutil import resolve_name

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, random_ratings

from mflib import ALS, BPR, SVD, WARP
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split
from mflib.training import ensure_finite

LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases")
TRAINED = sorted(set(ALL) - {"Popularity"})  # models with more than one iteration
KERNELS = {
    "ALS": "mflib.als.conjugate_gradient",
    "ALS-exact": "mflib.als.cholesky",
    "BPR": "mflib.bpr.Unliked.sample",  # runs in the thread that draws
    "SVD": "mflib.svd.svd_step",
    "WARP": "mflib.warp.warp_step",
}


def copied(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def state_of(model):
    """Return a copy of all attributes of a model."""
    return {name: copied(value) for name, value in vars(model).items()}


def assert_unchanged(model, before):
    assert vars(model).keys() == before.keys()
    for name, value in before.items():
        now = getattr(model, name)
        equal = torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value
        assert equal, name


def assert_same_training(model, expected):
    """Check that two models have the same factors, biases and losses."""
    for name in LEARNED:
        assert torch.equal(getattr(model, name), getattr(expected, name)), name
    assert [h["loss"] for h in model.history] == [h["loss"] for h in expected.history]


@contextmanager
def raising(monkeypatch, kernel, error, call):
    """Make a kernel raise at its ``call``-th call, after it has updated the factors."""
    module, _, name = kernel.rpartition(".")
    original, calls = getattr(resolve_name(module), name), []
    counter = itertools.count(1)  # next() is atomic: ALS calls its kernels in several threads

    def step(*args, **kwargs):
        number = next(counter)
        calls.append(number)
        result = original(*args, **kwargs)
        if number == call:
            raise error
        return result

    with monkeypatch.context() as patch:
        patch.setattr(kernel, step)
        yield calls


@contextmanager
def interrupting(monkeypatch, name, call):
    """Expect a KeyboardInterrupt, which the kernel of a model raises at its ``call``-th call."""
    kernel, expected = KERNELS[name], pytest.raises(KeyboardInterrupt)
    with raising(monkeypatch, kernel, KeyboardInterrupt, call), expected:
        yield


# --- interrupting -------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [0, 38, 39])
@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupt_in_the_callback_keeps_the_finished_iterations(ratings, name, last):
    def interrupt(iteration, seconds, loss):
        if iteration == last:
            raise KeyboardInterrupt

    model = ALL[name](iterations=40)
    with pytest.raises(KeyboardInterrupt):
        model.fit(ratings, callback=interrupt)
    assert len(model.history) == last + 1
    assert_same_training(model, ALL[name](iterations=last + 1).fit(ratings))
    assert len(model.fit(ratings).history) == 40, "the model can be fitted again"


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupt_within_an_iteration_keeps_the_finished_ones(ratings, name, monkeypatch):
    iterations, model = 5, ALL[name](iterations=5)
    with raising(monkeypatch, KERNELS[name], KeyboardInterrupt, 0) as calls:
        model.fit(ratings)
    per_iteration = len(calls) // iterations
    for call in (3 * per_iteration + 1, 4 * per_iteration):  # the first and the last of the 4th
        model.random_state = 1
        with interrupting(monkeypatch, name, call):
            model.fit(ratings)
        assert len(model.history) == 3
        assert model.seed == 1
        assert_same_training(model, ALL[name](iterations=3, random_state=1).fit(ratings))


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupt_of_the_first_iteration_leaves_the_model_unchanged(ratings, name, monkeypatch):
    model = ALL[name](iterations=3)
    with interrupting(monkeypatch, name, call=1):
        model.fit(ratings)
    with pytest.raises(RuntimeError, match=r"call fit\(user_items\) first"):
        model.recommend(0, ratings[0])
    before = state_of(model.fit(ratings))
    with interrupting(monkeypatch, name, call=1):
        model.fit(ratings[::-1])
    assert_unchanged(model, before)


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupt_before_training_leaves_the_model_unchanged(ratings, name, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    model = ALL[name](iterations=2).fit(ratings)
    before = state_of(model)
    monkeypatch.setattr(type(model), "_initialise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(ratings)
    assert_unchanged(model, before)


@pytest.mark.parametrize("where", ["callback", "kernel"])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SystemExit])
@pytest.mark.parametrize("name", TRAINED)
def test_other_errors_leave_the_model_unchanged(ratings, name, error, where, monkeypatch):
    """This also holds after several finished iterations."""

    def fail(iteration, seconds, loss):
        if where == "callback" and iteration == 2:
            raise error

    model = ALL[name](iterations=4).fit(ratings)
    before = state_of(model)
    call = 0 if where == "callback" else 3
    with raising(monkeypatch, KERNELS[name], error, call), pytest.raises(error):
        model.fit(ratings[::-1], callback=fail)
    assert_unchanged(model, before)


def test_an_interrupted_model_shares_no_state_with_the_callback(ratings):
    """The callback cannot change the kept factors, because they are copies."""
    kept = []

    def spoil(iteration, seconds, loss):
        kept.append(model.item_factors)
        if iteration == 2:
            model.item_factors.zero_()
            model.history.clear()
            raise KeyboardInterrupt

    model = SVD(4, iterations=5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(ratings, callback=spoil)
    assert_same_training(model, SVD(4, iterations=3).fit(ratings))


# --- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [True, np.True_])
@pytest.mark.parametrize("name", TRAINED)
def test_a_callback_that_returns_true_stops_training(ratings, name, true):
    model = ALL[name](iterations=9)
    assert model.fit(ratings, callback=lambda iteration, *_: iteration == 3 and true) is model
    assert_same_training(model, ALL[name](iterations=4).fit(ratings))


@pytest.mark.parametrize("result", [1, 1.0, -3, [1], "stop", np.ones(1), np.False_, False, None])
def test_a_callback_that_returns_anything_else_does_not_stop_training(ratings, result):
    """``lambda i, s, loss: losses.append(loss) or loss`` returns a number by accident."""
    model = SVD(4, iterations=3).fit(ratings, callback=lambda *_: result)
    assert len(model.history) == 3


# --- one fit at a time --------------------------------------------------------------------------


def test_a_second_fit_in_another_thread_is_refused(ratings):
    refused = []

    def second():
        with pytest.raises(RuntimeError, match="one fit of a model at a time, got another one"):
            model.fit(ratings)
        refused.append(True)

    def fit_meanwhile(iteration, seconds, loss):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    model = SVD(4, iterations=3)
    model.fit(ratings, callback=fit_meanwhile)
    assert refused == [True] * 3
    assert_same_training(model, SVD(4, iterations=3).fit(ratings))


def test_a_second_fit_in_the_callback_is_refused(any_model, ratings):
    def fit_again(*_):
        with pytest.raises(RuntimeError, match="create a second model"):
            model.fit(ratings)

    model = any_model()
    model.fit(ratings, callback=fit_again)
    assert_same_training(model, any_model().fit(ratings))


def test_a_model_can_be_fitted_in_the_callback_of_another(ratings):
    inner = []
    model = SVD(4, iterations=2)
    model.fit(ratings, callback=lambda *_: inner.append(ALS(3).fit(ratings)))
    assert len(inner) == 2
    for fitted in inner:
        assert_same_training(fitted, ALS(3).fit(ratings))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_model_can_be_fitted_again_after_a_failed_fit(any_model, ratings, error):
    def fail(*_):
        raise error

    model = any_model()
    for _ in range(2):
        with pytest.raises(error):
            model.fit(ratings, callback=fail)
    assert_same_training(model.fit(ratings), any_model().fit(ratings))


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["SVD", "BPR", "WARP"])
def test_divergence_message_suggests_a_lower_learning_rate(ratings, name, dtype):
    """In float64 the factors may still be finite when the loss is 10**85."""
    model = ALL[name](iterations=2, dtype=dtype).fit(ratings)
    model.learning_rate, model.init_std, model.iterations = 1e6, 1e4, 30
    before = state_of(model)
    with pytest.raises(FloatingPointError, match=r"diverged: loss .*; lower the learning rate"):
        model.fit(ratings)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("model", "penalty"),
    [
        (SVD, "regularization"),
        (BPR, "user_regularization"),
        (BPR, "item_regularization"),
        (WARP, "regularization"),
    ],
)
def test_divergence_message_does_not_suggest_a_larger_penalty(ratings, model, penalty):
    with pytest.raises(
        FloatingPointError, match="lower the learning rate or the regularization"
    ) as e:
        model(4, **{penalty: 1e4}).fit(ratings)
    assert "raise" not in str(e.value)


@pytest.mark.parametrize(
    "options",
    [{"extrapolation": 3.0, "iterations": 200}, {"alpha": 1e30}, {"regularization": 1e38}],
)
def test_divergence_message_of_als_names_every_possible_cause(ratings, options):
    message = "lower alpha, the extrapolation or the regularization"
    with pytest.raises(FloatingPointError, match=message):
        ALS(4, **options).fit(ratings)


def test_singular_system_message_suggests_a_larger_regularization(ratings):
    message = "expected systems of full rank, got a singular one; raise the regularization"
    with pytest.raises(FloatingPointError, match=message):
        ALS(40, regularization=0.0, use_cg=False).fit(ratings)


def test_divergence_of_the_last_step_is_detected(ratings):
    """The loss of the last batch was computed before its step."""
    model = SVD(4, learning_rate=1.0, init_std=1e30, iterations=1, batches=1)
    with pytest.raises(FloatingPointError, match="diverged"):
        model.fit(ratings)


@pytest.mark.parametrize("part", LEARNED)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_divergence_is_detected_in_every_learned_value(ratings, part, value):
    model = SVD(4, iterations=1).fit(ratings)
    ensure_finite(model, 1.0, 0)
    getattr(model, part).view(-1)[-1] = value
    with pytest.raises(FloatingPointError, match=r"diverged: loss 1\.0 in iteration 3"):
        ensure_finite(model, 1.0, 3)


# --- settings of torch --------------------------------------------------------------------------


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "default device": default_device,
    "device context": lambda: torch.device("meta"),
    "default dtype": default_dtype,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "numpy errors": lambda: np.errstate(all="raise"),
}


def results_of(model, likes, train, test):
    """Return the results of every method of a fitted model as a flat list of arrays."""
    users = np.arange(likes.shape[0])
    results = [
        *model.recommend(users, likes),
        *model.recommend(3, likes[3], filter_items=[4], items=[2, 4, 5, 9, 11]),
        *model.similar_items(np.arange(likes.shape[1])),
        *model.similar_items(2, metric="l2"),
        *model.similar_users(users),
        model.predict(users, users % likes.shape[1]),
        model.scores(users).cpu().numpy(),
        ranking_metrics(model, train, test, N=5).to_numpy(),
    ]
    if isinstance(model, ALS):
        columns = sp.csr_matrix(likes.T)
        results += model.recommend(users, likes, recalculate_user=True)
        results += model.similar_items([1, 2], recalculate_item=True, item_users=columns[[1, 2]])
        score, contributions = model.explain(3, likes[3], 5)
        results += [np.array([score]), np.array(contributions)]
    return results


def assert_equal_bits(got, expected):
    for place, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == other.dtype, place
        assert np.array_equal(one, other), place


@pytest.mark.parametrize("mode", MODES)
def test_torch_settings_do_not_change_training(any_model, mode, monkeypatch):
    """This includes training in the worker threads of ALS."""
    monkeypatch.setattr("mflib.model.available_threads", lambda: 3)
    likes = random_ratings(60, 40, 0.2)
    expected = any_model().fit(likes)
    with MODES[mode]():
        model = any_model().fit(likes)
    assert_same_training(model, expected)
    for name in LEARNED:
        tensor = getattr(model, name)
        assert tensor.device.type == "cpu", name
        assert tensor.dtype == torch.float32, name
        assert not tensor.requires_grad, name
        assert not tensor.is_inference(), name
    model.item_factors.mul_(2)  # inference tensors could not be changed here


@pytest.mark.parametrize("mode", MODES)
def test_torch_settings_do_not_change_results(any_model, mode):
    likes = random_ratings(60, 40, 0.2)
    train, test = train_test_split(likes)
    model = any_model().fit(likes)
    expected = results_of(model, likes, train, test)
    with MODES[mode]():
        got = results_of(model, likes, train, test)
    assert_equal_bits(got, expected)


@pytest.mark.parametrize("mode", MODES)
def test_torch_settings_do_not_affect_save_and_load(any_model, ratings, mode, tmp_path):
    expected = any_model().fit(ratings)
    with MODES[mode]():
        model = any_model().fit(ratings)
        model.save(tmp_path / "model.pt")
        loaded = type(model).load(tmp_path / "model.pt")
        loaded.fit(ratings)
    assert_same_training(loaded, expected)


@pytest.mark.parametrize("mode", MODES)
def test_torch_settings_do_not_affect_an_interrupted_fit(any_model, ratings, mode):
    """The kept factors are ordinary tensors, as after a complete fit."""

    def interrupt(*_):
        raise KeyboardInterrupt

    model = any_model()
    with MODES[mode](), pytest.raises(KeyboardInterrupt):
        model.fit(ratings, callback=interrupt)
    for name in LEARNED:
        assert not getattr(model, name).is_inference(), name
        getattr(model, name).mul_(2)


@pytest.mark.parametrize("mode", ["default device", "default dtype", "autocast", "inference mode"])
def test_callbacks_run_with_the_settings_of_the_caller(ratings, mode):
    def settings():
        product = torch.ones(1, 1) @ torch.ones(1, 1)  # its type shows autocast
        modes = (torch.is_inference_mode_enabled(), torch.get_default_dtype())
        return (*modes, product.device, product.dtype)

    seen = []
    with MODES[mode]():
        outside = settings()
        SVD(3, iterations=2).fit(ratings, callback=lambda *_: seen.append(settings()))
        assert settings() == outside
    assert seen == [outside] * 2
    assert settings() != outside


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["meta", "cuda:99", "xpu"])
def test_results_do_not_depend_on_the_device_attribute(any_model, device):
    """The factors stay where they are until the next fit."""
    likes = random_ratings(60, 40, 0.2)
    train, test = train_test_split(likes)
    model = any_model().fit(likes)
    expected = results_of(model, likes, train, test)
    model.device = device
    assert_equal_bits(results_of(model, likes, train, test), expected)
    with pytest.raises(ValueError, match=f"for device, got '{device}'"):
        model.fit(likes)
    assert_equal_bits(results_of(model, likes, train, test), expected)


@pytest.mark.parametrize("device", ["meta", torch.device("meta"), "meta:0"])
@pytest.mark.parametrize("model", [ALS, BPR, SVD, WARP])
def test_the_meta_device_is_refused(model, device):
    with pytest.raises(
        ValueError, match=r"for device, got .*meta.*: tensors on 'meta' hold no data"
    ):
        model(device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is available")
def test_an_unavailable_gpu_is_refused():
    with pytest.raises(ValueError, match="for device, got 'cuda'"):
        ALS(device="cuda")


# --- extreme values -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e-50, 5e-324, 1e39, 1.7e308])
@pytest.mark.parametrize("name", ["BPR", "WARP", "Popularity"])
def test_any_value_above_zero_is_a_like(ratings, name, value):
    """In float32 the value would be 0 or infinity."""
    likes = (ratings > 0).astype(np.float64)
    extreme = likes * value
    assert (extreme.data == value).all()
    assert_same_training(ALL[name](iterations=2).fit(extreme), ALL[name](iterations=2).fit(likes))


@pytest.mark.parametrize("value", [1e-50, 1e39, -1e39])
@pytest.mark.parametrize("name", ["ALS", "ALS-exact", "SVD"])
def test_values_that_float32_cannot_hold_are_refused(ratings, name, value):
    extreme = ratings.copy()
    extreme.data[5] = value
    with pytest.raises(ValueError, match=r"values that torch\.float32 can represent, got"):
        ALL[name](iterations=2).fit(extreme)


def test_values_that_float32_cannot_hold_are_refused_when_folding_in(ratings):
    model = ALS(3).fit(ratings)
    row = sp.csr_matrix(np.where(np.arange(25) == 4, 1e39, 0.0)[None])
    for call in (
        lambda: model.recommend(0, row, recalculate_user=True),
        lambda: model.explain(0, row, 5),
    ):
        with pytest.raises(ValueError, match=r"values that torch\.float32 can represent"):
            call()
    assert 4 not in model.recommend(0, row, N=25)[0], "without folding in, the value is not used"


@pytest.mark.parametrize("name", ["ALS", "SVD"])
def test_float64_models_learn_from_tiny_values(ratings, name):
    tiny = ratings.copy()
    tiny.data[5] = 1e-50
    model = ALL[name](iterations=2, dtype=torch.float64).fit(tiny)
    assert model.item_factors.isfinite().all()


@pytest.mark.parametrize("value", [10**400, -(10**400)])
@pytest.mark.parametrize("name", ["alpha", "regularization", "init_std", "factors", "iterations"])
def test_integers_too_large_for_floats_are_refused(name, value):
    with pytest.raises(ValueError, match=f"for {name}, got -?10"):
        ALS(**{name: value})


# --- factors that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_are_refused(ratings, value):
    train, test = train_test_split(ratings)
    model = ALS(3).fit(train)
    model.item_factors[7:9] = value
    model.item_factors[8] = -model.item_factors[8]
    for call in (
        lambda: model.recommend(0, train[0], N=25),
        lambda: model.recommend([0, 1], train[[0, 1]]),
        lambda: model.similar_items(7),
        lambda: model.similar_items(3, metric="l2") if np.isnan(value) else model.similar_items(8),
        lambda: ranking_metrics(model, train, test),
    ):
        with pytest.raises(ValueError, match="expected finite factors, got NaN"):
            call()
    with pytest.raises(FloatingPointError, match="expected systems of full rank"):
        model.recommend(0, train[0], recalculate_user=True)
