"""ALS across processes: shards, exchange, checkpoints, failures, and real processes of torchrun.

In most tests, threads take the place of processes: the fixture ``run`` replaces torch.distributed
in ``mflib.distributed``. The last test starts two processes, one of which is killed.
"""

import argparse
import copy
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import chain

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from known_answers import random_ratings

from mflib import ALS, distributed
from mflib.distributed import add_options, count_entries, fit, read_shards, read_share

SIDES = ("user", "item")
LOST = "another process has failed or was killed"
needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


@pytest.fixture
def ratings() -> sp.csr_matrix:
    """Return ratings of shape (203, 150); 25 of the users have half of the entries."""
    dense = random_ratings(203, 150, 0.1).toarray()
    dense[20:45] = random_ratings(25, 150, 0.6).toarray()
    return sp.csr_matrix(dense)


@pytest.fixture
def folder(ratings, tmp_path):
    """Write ``ratings`` as three shards of different sizes."""
    path = tmp_path / "shards"
    path.mkdir()
    for name, rows in (("00", slice(0, 19)), ("01", slice(19, 21)), ("02", slice(21, 203))):
        sp.save_npz(path / f"{name}.npz", ratings[rows])
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoint"


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    """Divide the small matrix into enough parts for seven processes."""
    monkeypatch.setattr("mflib.als.number_of_parts", lambda n_entries: 8)
    monkeypatch.setattr("mflib.sparse.BLOCK", 16**2 * 10)


class Group:
    """Stand in for torch.distributed, with a thread for each process.

    As in torch, receiving from a process that has ended raises RuntimeError. Waiting longer than a
    minute raises it, too.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.local = threading.local()
        self.changed = threading.Condition()
        self.sent: dict[int, object] = {}
        self.ended: set[int] = set()

    def get_world_size(self) -> int:
        return self.processes

    def get_rank(self) -> int:
        return self.local.rank

    def broadcast_object_list(self, objects: list, src: int) -> None:
        objects[:] = copy.deepcopy(self._receive(copy.deepcopy(objects), src))

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        sent = self._receive(tensor.clone(), src)
        assert (sent.shape, sent.dtype) == (tensor.shape, tensor.dtype)
        tensor.copy_(sent)

    def _receive(self, value, src):
        if self.processes == 1:
            return value  # not kept in ``sent``
        number = self.local.number
        self.local.number += 1
        with self.changed:
            if self.get_rank() == src:
                self.sent[number] = value
                self.changed.notify_all()
            self.changed.wait_for(lambda: number in self.sent or src in self.ended, timeout=60)
            if number not in self.sent:
                raise RuntimeError(f"connection closed by process {src}")
            return self.sent[number]

    def run(self, rank: int, function):
        """Return the result of ``function(rank)``, or the exception that it raises."""
        self.local.rank, self.local.number = rank, 0
        try:
            return function(rank)
        except BaseException as error:
            return error
        finally:
            with self.changed:
                self.ended.add(rank)
                self.changed.notify_all()

    def is_torchelastic_launched(self) -> bool:
        return True

    def init_process_group(self, backend: str) -> None:
        assert backend == "gloo"

    def destroy_process_group(self) -> None:
        pass


@pytest.fixture
def run(monkeypatch):
    """Return a function that calls ``function(rank)`` in each process and returns the results.

    The result of a process that raises an exception is the exception.
    """

    load, lock = sp.load_npz, threading.Lock()

    def load_npz(file):
        with lock:  # numpy parses headers with ast, which is not thread-safe in Python 3.11
            return load(file)

    monkeypatch.setattr(sp, "load_npz", load_npz)

    def run_all(processes, function):
        group = Group(processes)
        monkeypatch.setattr(distributed, "dist", group)
        with ThreadPoolExecutor(processes) as pool:
            return [*pool.map(lambda rank: group.run(rank, function), range(processes))]

    return run_all


def assert_same(one: ALS, other: ALS) -> None:
    """Compare the factors and losses of two models, bit for bit."""
    assert isinstance(one, ALS), one  # not an exception
    for side in SIDES:
        assert torch.equal(getattr(one, f"{side}_factors"), getattr(other, f"{side}_factors"))
        assert torch.equal(getattr(one, f"{side}_biases"), getattr(other, f"{side}_biases"))
    assert [step["loss"] for step in one.history] == [step["loss"] for step in other.history]
    assert one.seed == other.seed
    assert vars(one).keys() == vars(other).keys()


# --- interactions -------------------------------------------------------------------------------


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_read_share_divides_the_rows_evenly(processes, use_cg, ratings, folder):
    model = ALS(16, use_cg=use_cg)
    shares = [read_share(folder, model, process, processes) for process in range(processes)]
    for side, matrix in zip(SIDES, (ratings, ratings.T.tocsr()), strict=True):
        joined = sp.vstack([*chain(*(share.entries[side] for share in shares))], "csr")
        assert joined.shape == matrix.shape
        assert (joined != matrix).nnz == 0
        for process, share in enumerate(shares):
            assert np.array_equal(share.counts[side], matrix.getnnz(1))
            assert share.owned == shares[0].owned
            ids = np.arange(matrix.shape[0])
            solved = np.concatenate([ids[:0], *(ids[part] for part in share.parts[side])])
            assert np.array_equal(ids[share.owned[side][process]], solved)
            for part, rows in zip(share.parts[side], share.entries[side], strict=True):
                assert rows.shape == (part.stop - part.start, matrix.shape[1])
            n_entries = sum(rows.nnz for rows in share.entries[side])
            assert n_entries < 1.25 * matrix.nnz / min(processes, 4)


@pytest.mark.parametrize("use_cg", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7, 40])
def test_read_share_makes_the_same_parts_for_any_number_of_processes(
    processes, use_cg, ratings, folder
):
    """With other parts, the rounding of a row could differ."""
    model = ALS(16, use_cg=use_cg)
    shares = [read_share(folder, model, process, processes) for process in range(processes)]
    for side, matrix in zip(SIDES, (ratings, ratings.T.tocsr()), strict=True):
        parts = [*chain(*(share.parts[side] for share in shares))]
        assert parts == model._parts(matrix.getnnz(1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "names of equal length .*got nothing"),
        (("9.npz", "10.npz"), "names of equal length .*got 10.npz, 9.npz"),
        (("0.npz", "1.npz"), "expected 5 columns in .*1.npz, as in .*0.npz, got 6"),
    ],
)
def test_read_share_rejects_inconsistent_shards(names, message, tmp_path):
    for columns, name in enumerate(names, start=5):
        sp.save_npz(tmp_path / name, sp.eye(4, columns, format="csr"))
    with pytest.raises(ValueError, match=message):
        read_share(tmp_path, ALS(), 0, 1)


def test_read_share_rejects_files_without_interactions(tmp_path):
    file = tmp_path / "likes.npz"
    file.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected .*likes.npz to hold a sparse matrix"):
        read_share(file, ALS(), 0, 1)
    sp.save_npz(file, -sp.eye(4, format="csr"))
    with pytest.raises(ValueError, match=r"at least one like .*got 4 values <= 0"):
        read_share(file, ALS(), 0, 1)


def test_read_shards_reads_files_in_name_order_and_validates_them(tmp_path):
    for name, value in (("1", 3.0), ("0", 2.0)):
        duplicates = sp.coo_array(([value, value], ([0, 0], [1, 1])), (1, 2))
        sp.save_npz(tmp_path / f"{name}.npz", duplicates)
    assert [shard.toarray().tolist() for shard in read_shards(tmp_path)] == [[[0, 4]], [[0, 6]]]
    sp.save_npz(tmp_path / "1.npz", sp.csr_array([[0, np.nan]]))
    with pytest.raises(ValueError, match=r"1.npz to hold .*expected finite values"):
        [*read_shards(tmp_path)]


def test_count_entries_does_not_depend_on_the_shards(ratings, folder, tmp_path):
    sp.save_npz(tmp_path / "whole.npz", ratings)
    *counts, digest = count_entries(tmp_path / "whole.npz")
    assert np.array_equal(counts[0], ratings.getnnz(1))
    assert np.array_equal(counts[1], ratings.getnnz(0))
    *of_shards, digest_of_shards = count_entries(folder)
    assert all(map(np.array_equal, of_shards, counts))
    assert digest_of_shards == digest


def test_count_entries_digest_depends_on_every_entry(ratings, tmp_path):
    other = ratings.copy()
    other.data[-1] += 1
    pairs = [
        (ratings, other),
        (sp.csr_matrix([[1, 1, 0]]), sp.csr_matrix([[1, 0, 1]])),
        (sp.csr_matrix([[1, 0], [0, 1], [0, 0]]), sp.csr_matrix([[1, 0], [0, 0], [0, 1]])),
    ]
    matrices = [matrix for pair in pairs for matrix in pair]
    digests = set()
    for matrix in matrices:
        sp.save_npz(tmp_path / "matrix.npz", matrix)
        digests.add(count_entries(tmp_path / "matrix.npz")[2])
    assert len(digests) == len(matrices)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"extrapolation": 0.0}, {"use_cg": False}])
def test_fit_is_bit_identical_for_any_number_of_processes(
    dtype, options, ratings, folder, run, checkpoint
):
    options = {"factors": 16, "iterations": 2, "dtype": dtype, **options}
    expected = ALS(**options).fit(ratings)
    for processes in (1, 2, 3, 4, 7, 40):
        models = run(processes, lambda _: fit(ALS(**options), folder, checkpoint))
        assert len(models) == processes
        for model in models:
            assert_same(model, expected)
        checkpoint.unlink()


def test_fit_uses_the_seed_of_process_0(ratings, folder, run, checkpoint):
    models = run(2, lambda _: fit(ALS(8, iterations=1, random_state=None), folder, checkpoint))
    expected = ALS(8, iterations=1, random_state=models[0].seed).fit(ratings)
    for model in models:
        assert_same(model, expected)


@pytest.mark.parametrize("options", [{"alpha": 9.0}, {"iterations": 5}, {"random_state": 1}])
def test_fit_rejects_parameters_that_differ_between_processes(options, folder, run, checkpoint):
    models = [ALS(8), ALS(8, **options)]
    before = [vars(model).copy() for model in models]
    errors = run(2, lambda rank: fit(models[rank], folder, checkpoint))
    assert isinstance(errors[0], ConnectionError)
    assert isinstance(errors[1], ValueError)
    assert "expected the task of process 0" in str(errors[1])
    assert [vars(model) for model in models] == before


def test_fit_rejects_interactions_that_differ_between_processes(
    ratings, folder, tmp_path, run, checkpoint
):
    sp.save_npz(tmp_path / "other.npz", ratings * 2)
    sources = [folder, tmp_path / "other.npz"]
    _, error = run(2, lambda rank: fit(ALS(8), sources[rank], checkpoint))
    assert isinstance(error, ValueError)
    assert "expected the task of process 0" in str(error)


@pytest.mark.parametrize("extrapolation", [0.0, 0.5])
@pytest.mark.parametrize("processes", [(1, 1), (2, 3)])
def test_fit_resumes_from_a_checkpoint(extrapolation, processes, ratings, folder, run, checkpoint):
    def fit_4(rank, iterations, **options):
        model = ALS(8, iterations=iterations, extrapolation=extrapolation)
        return fit(model, folder, checkpoint, **options)

    run(processes[0], lambda rank: fit_4(rank, 2))
    steps = []
    models = run(
        processes[1],
        lambda rank: fit_4(rank, 4, resume=True, callback=lambda *step: steps.append(step)),
    )
    expected = ALS(8, iterations=4, extrapolation=extrapolation).fit(ratings)
    for model in models:
        assert_same(model, expected)
    assert [(iteration, loss) for iteration, _, loss in steps] == [  # only process 0 appends
        (iteration, expected.history[iteration]["loss"]) for iteration in (2, 3)
    ]
    # All iterations are done, so resuming again changes nothing.
    for model in run(2, lambda rank: fit_4(rank, 4, resume=True)):
        assert_same(model, expected)


def test_fit_resumes_with_a_generator_as_random_state(folder, run, checkpoint):
    def fit_4(iterations, seed):
        model = ALS(8, iterations=iterations, random_state=np.random.default_rng(seed))
        return fit(model, folder, checkpoint, resume=True)

    first = run(1, lambda _: fit_4(1, seed=1))[0]
    resumed = run(1, lambda _: fit_4(2, seed=2))[0]
    assert resumed.history[:1] == first.history
    assert resumed.seed == first.seed


def test_fit_does_not_overwrite_a_checkpoint(folder, run, checkpoint):
    run(1, lambda _: fit(ALS(8, iterations=1), folder, checkpoint))
    content = checkpoint.read_bytes()
    [error] = run(1, lambda _: fit(ALS(8), folder, checkpoint))
    assert isinstance(error, FileExistsError)
    assert "continue from it with --resume" in str(error)
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 9.0}, "alpha=9.0.* got one of .*alpha=4.0"),
        ({"random_state": 1}, "random_state=1.* got one of .*random_state=0"),
        ({"dtype": torch.float64}, "float64.* got one of .*float32"),
        ({"iterations": 1}, "at most 1 iterations in .*checkpoint, got 2"),
        ("positions", "expected a checkpoint of .*SHA-256"),
        ("values", "expected a checkpoint of .*SHA-256"),
    ],
)
def test_fit_rejects_the_checkpoint_of_another_task(change, message, folder, run, checkpoint):
    run(1, lambda _: fit(ALS(8, iterations=2), folder, checkpoint))
    content = checkpoint.read_bytes()
    options = {"iterations": 3}
    if isinstance(change, dict):
        options |= change
    else:
        shard = sp.load_npz(folder / "02.npz")
        data = 6 - shard.data if change == "values" else shard.data
        indices = 149 - shard.indices if change == "positions" else shard.indices
        sp.save_npz(folder / "02.npz", sp.csr_matrix((data, indices, shard.indptr), shard.shape))
    [error] = run(1, lambda _: fit(ALS(8, **options), folder, checkpoint, resume=True))
    with pytest.raises(ValueError, match=message):
        raise error
    assert checkpoint.read_bytes() == content


def test_fit_rejects_a_damaged_checkpoint(folder, run, checkpoint):
    run(1, lambda _: fit(ALS(8, iterations=1), folder, checkpoint))
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    [error] = run(1, lambda _: fit(ALS(8), folder, checkpoint, resume=True))
    with pytest.raises(ValueError, match=r"expected a checkpoint in .*, got a damaged file"):
        raise error


@pytest.mark.parametrize("stop", [True, np.True_])
def test_fit_stops_in_all_processes_when_the_callback_returns_true(
    stop, ratings, folder, run, checkpoint
):
    def callback(iteration, seconds, loss):
        return stop if iteration == 1 else 1  # 1 is not True

    models = run(3, lambda _: fit(ALS(8), folder, checkpoint, callback=callback))
    expected = ALS(8, iterations=2).fit(ratings)
    for model in models:
        model.iterations = 2
        assert_same(model, expected)


def test_fit_lets_the_callback_read_the_model(ratings, folder, run, checkpoint):
    models, factors = [ALS(8, iterations=3) for _ in range(2)], []

    def callback(*_):
        factors.append(models[0].item_factors.clone())

    run(2, lambda rank: fit(models[rank], folder, checkpoint, callback=callback))
    for iterations, found in enumerate(factors, start=1):
        assert torch.equal(found, ALS(8, iterations=iterations).fit(ratings).item_factors)
    assert len(factors) == 3


def test_fit_keeps_one_copy_of_the_factors(folder, run, checkpoint):
    counts = []

    def count(*_):
        gc.collect()
        shapes = [tuple(thing.shape) for thing in gc.get_objects() if type(thing) is torch.Tensor]
        counts.append((shapes.count((203, 11)), shapes.count((150, 11))))

    run(1, lambda _: fit(ALS(11, iterations=2), folder, checkpoint, callback=count))
    assert counts == [(1, 2), (1, 2)]  # for the items, also their last change


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("fitted", [False, True])
def test_fit_restores_the_models_and_keeps_the_checkpoint_after_an_error(
    error, fitted, ratings, folder, run, checkpoint
):
    models = [ALS(8, iterations=3) for _ in range(2)]
    if fitted:
        for model in models:
            model.fit(ratings[:100])
    before = [vars(model).copy() for model in models]
    factors = [vars(model).get("item_factors", torch.empty(0)).clone() for model in models]

    def interrupt(iteration, seconds, loss):
        if iteration == 1:
            raise error

    results = run(2, lambda rank: fit(models[rank], folder, checkpoint, callback=interrupt))
    assert isinstance(results[0], error)
    assert isinstance(results[1], ConnectionError)
    assert LOST in str(results[1])
    for model, attributes, values in zip(models, before, factors, strict=True):
        assert vars(model) == attributes  # the same objects
        assert torch.equal(attributes.get("item_factors", torch.empty(0)), values)
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 2
    resumed = run(2, lambda rank: fit(models[rank], folder, checkpoint, resume=True))
    for model in resumed:
        assert_same(model, ALS(8, iterations=3).fit(ratings))


def test_fit_reports_divergence_in_all_processes(folder, run, checkpoint):
    options = {"init_std": 1e25, "extrapolation": 0.0}
    for error in run(2, lambda _: fit(ALS(8, **options), folder, checkpoint)):
        with pytest.raises(FloatingPointError, match="diverged"):
            raise error
    assert not checkpoint.exists()


# --- command line -------------------------------------------------------------------------------


def test_add_options_covers_every_parameter():
    parser = argparse.ArgumentParser()
    add_options(parser, ALS)
    assert repr(ALS(**vars(parser.parse_args([])))) == repr(ALS())
    given = ALS(
        7,
        iterations=3,
        random_state=5,
        dtype=torch.float64,
        regularization=0.5,
        alpha=2.5,
        frequency_scaling=0.25,
        use_cg=False,
        cg_steps=2,
        extrapolation=0.75,
        init_std=0.01,
    )
    names = {field.name for field in fields(ALS)}
    assert {name for name in names if getattr(given, name) == getattr(ALS(), name)} == {"device"}
    arguments = ["--no-use_cg", "--dtype=float64"]
    for name in names - {"use_cg", "dtype"}:
        arguments.append(f"--{name}={getattr(given, name)}")
    assert repr(ALS(**vars(parser.parse_args(arguments)))) == repr(given)


@pytest.mark.parametrize(
    ("launched", "file", "message"),
    [
        (False, "model", "expected to be started by torchrun; run torchrun --standalone"),
        (True, "missing/model", "in an existing folder"),
    ],
)
def test_main_explains_how_to_start_the_command(
    launched, file, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(dist, "is_torchelastic_launched", lambda: launched)
    monkeypatch.setattr(sys, "argv", ["distributed", "likes.npz", str(tmp_path / file)])
    with pytest.raises(SystemExit, match="2"):
        distributed.main()
    assert message in capsys.readouterr().err


@pytest.fixture
def run_main(monkeypatch):
    """Return a function that calls ``main`` with arguments, as the only process of torchrun."""

    def call(*arguments):
        group = Group(1)
        group.local.rank, group.local.number = 0, 0
        monkeypatch.setattr(distributed, "dist", group)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setattr(sys, "argv", ["distributed", *map(str, arguments)])
        distributed.main()

    return call


def test_main_saves_the_model_and_removes_the_checkpoint(ratings, folder, run_main, tmp_path):
    run_main(folder, tmp_path / "model", "--iterations=2", "--factors=8", "--no-use_cg")
    expected = ALS(8, iterations=2, use_cg=False).fit(ratings)
    assert_same(ALS.load(tmp_path / "model"), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "shards"}


@pytest.mark.parametrize("option", ["--factors=0", "--init_std=1e25"])
def test_main_reports_errors_in_one_line(option, folder, run_main, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        run_main(folder, tmp_path / "model", option)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("process 0 ends: ")] == lines[-1:]
    assert "--resume" not in lines[-1]  # there is no checkpoint
    assert not (tmp_path / "model").exists()


KILL_PROCESS_1 = """
import os, signal
from mflib import ALS, distributed
losses, sweeps = ALS._losses, []

def kill(model, side, *arguments):
    if side == "user":
        sweeps.append(1)
    if os.environ["RANK"] == "1" and len(sweeps) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(model, side, *arguments)

ALS._losses = kill
distributed.main()
"""


@needs_gloo
def test_main_resumes_after_a_process_was_killed(ratings, folder, tmp_path, monkeypatch):
    (tmp_path / "kill.py").write_text(KILL_PROCESS_1, encoding="utf-8")
    file, checkpoint = tmp_path / "model", tmp_path / "model.checkpoint"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [str(folder), str(file), "--factors=8", "--iterations=4"]

    def start(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*torchrun, *arguments, *options], capture_output=True, text=True, timeout=300
        )

    killed = start(str(tmp_path / "kill.py"))
    assert killed.returncode == 1
    assert "process 0 ends: another process has failed" in killed.stderr
    assert f"; continue from {checkpoint} with --resume" in killed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"kill.py", "shards", checkpoint.name}
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 2
    options.append("--resume")
    resumed = start("-m", "mflib.distributed")
    assert resumed.returncode == 0, resumed.stderr
    assert "4 iterations" in resumed.stdout
    assert not checkpoint.exists()
    model = ALS.load(file)
    monkeypatch.undo()  # the processes use the real number of parts
    assert_same(model, ALS(8, iterations=4).fit(ratings))
    assert len(model.recommend(0, ratings[0])[0]) == 10
