"""Threads: number of workers, torch's setting, results independent of their number."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from known_answers import ALL, random_ratings

from mflib import ALS
from mflib.als import balanced
from mflib.metrics import ranking_metrics
from mflib.sampling import train_test_split
from mflib.training import available_processors, available_threads, thread_pool, torch_settings

LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases")


@pytest.fixture
def set_threads(monkeypatch):
    """Return torch.set_num_threads on a machine that seems to have eight processors."""
    before = torch.get_num_threads()
    monkeypatch.setattr("mflib.training.available_processors", lambda: 8)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def run_with_two_threads():
    """Return a function that runs Python code in a new process and returns its output."""

    def run(code):
        command = [sys.executable, "-W", "ignore", "-c", code]
        environment = os.environ | {"OMP_NUM_THREADS": "2"}
        options = {"env": environment, "capture_output": True, "text": True}
        return subprocess.run(command, check=True, **options).stdout.strip()

    return run


# --- number of threads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (None, 8),
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("140000 100000\n", 1),
        ("50000 100000\n", 1),
        ("10000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("400000 200000\n", 2),
    ],
)
def test_available_processors_respect_the_quota_of_a_container(
    quota, expected, tmp_path, monkeypatch
):
    file = tmp_path / "cpu.max"
    if quota:
        file.write_text(quota, encoding="utf-8")
    monkeypatch.setattr("mflib.training.CPU_MAX", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_processors() == expected


def test_available_processors_respect_the_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr("mflib.training.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert available_processors() == 3


@pytest.mark.parametrize(("count", "expected"), [(6, 6), (None, 1)])
def test_available_processors_without_affinity_equal_the_cpu_count(
    count, expected, tmp_path, monkeypatch
):
    """macOS and Windows do not report an affinity."""
    monkeypatch.setattr("mflib.training.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert available_processors() == expected


def test_available_threads_are_the_setting_capped_by_the_processors(set_threads):
    set_threads(3)
    assert available_threads() == 3
    set_threads(20)
    assert available_threads() == 8


# --- torch's setting ----------------------------------------------------------------------------


def test_torch_settings_restore_the_number_of_threads(set_threads):
    set_threads(3)
    inside = []

    def fail():
        with torch_settings():
            inside.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [1]
    assert torch.get_num_threads() == 3


def test_worker_threads_use_one_torch_thread_each(set_threads):
    set_threads(3)
    with thread_pool() as threads:
        assert list(threads.map(lambda _: torch.get_num_threads(), range(5))) == [1] * 5
    assert torch.get_num_threads() == 3


def test_fit_computes_in_one_torch_thread_and_restores_the_setting_for_callbacks(
    any_model, ratings, set_threads, monkeypatch
):
    set_threads(3)
    in_callbacks, in_training = [], []
    monkeypatch.setattr(
        "mflib.model.ensure_finite", lambda *_: in_training.append(torch.get_num_threads())
    )
    model = any_model(iterations=2)
    model.fit(ratings, callback=lambda *_: in_callbacks.append(torch.get_num_threads()))
    assert in_training == [1] * model.iterations
    assert in_callbacks == [3] * model.iterations
    assert torch.get_num_threads() == 3


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(ALL))
def test_training_does_not_depend_on_the_number_of_threads(name, dtype, set_threads):
    """Factors and losses are equal bit for bit."""
    ratings = random_ratings(203, 150, 0.1)
    fitted = []
    for threads in (1, 2, 3, 7):
        set_threads(threads)
        fitted.append(ALL[name](factors=16, iterations=2, dtype=dtype).fit(ratings))
    for other in fitted[1:]:
        for part in LEARNED:
            assert torch.equal(getattr(fitted[0], part), getattr(other, part)), part
        assert [h["loss"] for h in other.history] == [h["loss"] for h in fitted[0].history]


def test_rankings_do_not_depend_on_the_number_of_threads(ratings, set_threads, monkeypatch):
    monkeypatch.setattr("mflib.sparse.BLOCK", 100)  # several blocks
    train, test = train_test_split(ratings)
    model, results = ALS(3).fit(train), []
    for threads in (1, 4):
        set_threads(threads)
        ids, scores = model.recommend(np.arange(30), train)
        results.append((ids, scores, ranking_metrics(model, train, test).to_numpy()))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_balanced_divides_all_rows_into_parts_of_similar_size(parts):
    ratings = random_ratings(400, 60, 0.2)
    slices = balanced(ratings.indptr, parts)
    assert [row for part in slices for row in range(400)[part]] == list(range(400))
    assert len(slices) <= parts
    if parts <= 3:
        assert len(slices) == parts
        assert max(ratings[part].nnz for part in slices) < 1.2 * ratings.nnz / parts


def test_balanced_cuts_at_the_nearest_row():
    assert balanced(np.array([0, 4, 9, 14, 20]), 2) == [slice(0, 2), slice(2, 4)]
    assert balanced(np.array([0, 9, 10]), 5) == [slice(0, 1), slice(1, 2)]


FIRST_PRODUCT = """
import torch
from mflib.training import thread_pool, torch_settings
W = torch.randn(6040, 64, generator=torch.Generator().manual_seed(0))
def product(_):
    return W.T @ W
with thread_pool() as threads:
    found = list(threads.map(product, range(8)))
with torch_settings():
    print(all(torch.equal(product(0), other) for other in found))
"""


def test_the_first_product_of_a_worker_has_the_same_bits_as_all_others(run_with_two_threads):
    """MKL sums in a different order with two threads than with one."""
    assert run_with_two_threads(FIRST_PRODUCT) == "True"


FORKED = """
import multiprocessing, sys
sys.path.insert(0, {tests!r})
from known_answers import ALL, random_ratings
ratings = random_ratings(900, 700, 0.1)
def fit():
    for name in sorted(ALL):
        ALL[name](factors=64, iterations=1).fit(ratings, show_progress=False)
fit()
child = multiprocessing.get_context("fork").Process(target=fit)
child.start()
child.join(60)
print(child.exitcode)
child.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_models_can_be_trained_in_a_forked_process(request, run_with_two_threads):
    """The child does not have its parent's threads, so torch must not wait for them."""
    assert run_with_two_threads(FORKED.format(tests=str(request.path.parent))) == "0"
