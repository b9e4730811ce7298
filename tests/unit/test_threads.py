"""Threads: how many are used, that torch is left as it was, that results do not depend on them."""

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

FITTED_STATE = ("user_factors", "item_factors", "user_biases", "item_biases")


@pytest.fixture
def many(monkeypatch):
    """As if there were eight processors; sets torch's number of threads."""
    before = torch.get_num_threads()
    monkeypatch.setattr("mflib.training.available_processors", lambda: 8)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def run_with_two_threads():
    """What a program prints, in a process of its own."""

    def run(code):
        command = [sys.executable, "-W", "ignore", "-c", code]
        how = {"env": os.environ | {"OMP_NUM_THREADS": "2"}, "capture_output": True, "text": True}
        return subprocess.run(command, check=True, **how).stdout.strip()

    return run


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_the_quota_of_a_container(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("mflib.training.CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_processors() == expected


def test_without_affinity_all_processors_count(tmp_path, monkeypatch):
    """As on macOS and Windows."""
    monkeypatch.setattr("mflib.training.CGROUP", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_processors() == 6


def test_a_setting_of_the_user_wins(many):
    many(3)
    assert available_threads() == 3
    many(20)
    assert available_threads() == 8, "but there must be processors"


def test_torch_is_left_as_it_was(many):
    many(3)

    def fails():
        with torch_settings():
            inside.append(torch.get_num_threads())
            raise ZeroDivisionError

    inside = []
    with pytest.raises(ZeroDivisionError):
        fails()
    assert inside == [1]
    assert torch.get_num_threads() == 3
    with thread_pool() as threads:
        assert list(threads.map(lambda _: torch.get_num_threads(), range(5))) == [1] * 5
    assert torch.get_num_threads() == 3


def test_fit_computes_in_one_thread_and_calls_back_in_all(any_model, ratings, many, monkeypatch):
    """Kernels never share the threads of torch, and the callback finds them as they were."""
    many(3)
    seen, during = [], []
    monkeypatch.setattr(
        "mflib.model.ensure_finite", lambda *_: during.append(torch.get_num_threads())
    )
    any_model(iterations=2).fit(ratings, callback=lambda *_: seen.append(torch.get_num_threads()))
    assert during == [1, 1]
    assert seen == [3, 3]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(ALL))
def test_the_number_of_threads_does_not_matter(name, dtype, many):
    """Factors and losses, bit for bit."""
    ratings = random_ratings(203, 150, 0.1)
    fitted = []
    for threads in (1, 2, 3, 7):
        many(threads)
        fitted.append(ALL[name](factors=16, iterations=2, dtype=dtype).fit(ratings))
    for other in fitted[1:]:
        for part in FITTED_STATE:
            assert torch.equal(getattr(fitted[0], part), getattr(other, part)), part
        assert [h["loss"] for h in other.history] == [h["loss"] for h in fitted[0].history]


def test_rankings_do_not_depend_on_threads(ratings, many, monkeypatch):
    monkeypatch.setattr("mflib.inputs.BLOCK", 100)  # several blocks
    train, test = train_test_split(ratings)
    model = ALS(3).fit(train)
    answers = []
    for threads in (1, 4):
        many(threads)
        ids, scores = model.recommend(np.arange(30), train)
        answers.append((ids, scores, ranking_metrics(model, train, test).to_numpy()))
    for one, other in zip(*answers, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_balanced_parts(parts):
    """All rows once, with cells in about equal shares."""
    ratings = random_ratings(400, 60, 0.2)
    slices = balanced(ratings.indptr, parts)
    assert [row for part in slices for row in range(400)[part]] == list(range(400))
    assert len(slices) <= parts
    if parts <= 3:
        cells = [ratings[part].nnz for part in slices]
        assert max(cells) < 1.2 * ratings.nnz / parts


def test_parts_end_where_it_is_fairest():
    assert balanced(np.array([0, 4, 9, 14, 20]), 2) == [slice(0, 2), slice(2, 4)]
    assert balanced(np.array([0, 9, 10]), 5) == [slice(0, 1), slice(1, 2)]


FIRST = """
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


def test_the_first_product_of_a_worker_is_like_all_others(run_with_two_threads):
    """The sums of MKL's threads have other bits than those of one."""
    assert run_with_two_threads(FIRST) == "True"


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
def test_a_forked_child_can_be_trained_in(request, run_with_two_threads):
    """It has none of its parent's threads, which torch would wait for."""
    assert run_with_two_threads(FORKED.format(tests=str(request.path.parent))) == "0"
