"""ALS over processes: cuts, shards, checkpoints, and two real processes, one of which is killed."""

import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from known_answers import random_ratings

from mflib import ALS
from mflib.distributed import fit, share_of
from mflib.inputs import cells_of

SIDES = ("user", "item")
gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


@pytest.fixture
def ratings() -> sp.csr_matrix:
    """203 x 150; an eighth of the users have half of the cells."""
    dense = random_ratings(203, 150, 0.1).toarray()
    dense[20:45] = random_ratings(25, 150, 0.6).toarray()
    return sp.csr_matrix(dense)


@pytest.fixture
def folder(ratings, tmp_path):
    """Three shards of it, of unlike sizes."""
    path = tmp_path / "shards"
    path.mkdir()
    for name, rows in (("00", slice(0, 19)), ("01", slice(19, 21)), ("02", slice(21, 203))):
        sp.save_npz(path / f"{name}.npz", ratings[rows])
    return path


def same(one: ALS, other: ALS) -> bool:
    losses = [[step["loss"] for step in model.history] for model in (one, other)]
    factors = (
        torch.equal(getattr(one, f"{s}_factors"), getattr(other, f"{s}_factors")) for s in SIDES
    )
    return all(factors) and losses[0] == losses[1]


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    """As if there were more interactions: enough parts for seven processes."""
    monkeypatch.setattr("mflib.als.number_of_parts", lambda cells: 8)
    monkeypatch.setattr("mflib.inputs.BLOCK", 16**2 * 10)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7])
def test_each_process_has_its_rows(processes, ratings, folder):
    """All rows once, and no process has many more cells than its share."""
    shares = [share_of(folder, ALS(16), process, processes) for process in range(processes)]
    for side, matrix in zip(SIDES, (ratings, ratings.T.tocsr()), strict=True):
        joined = sp.vstack([*chain(*(share.rows[side] for share in shares))], "csr")
        assert (joined != matrix).nnz == 0
        assert np.array_equal(shares[0].cells[side], matrix.getnnz(1))
        # the parts are those of one process: in other parts, rows may have other bits
        assert [*chain(*shares[0].parts[side])] == ALS(16)._parts(matrix.getnnz(1))
        for process, share in enumerate(shares):
            for part, rows in zip(share.parts[side][process], share.rows[side], strict=True):
                assert rows.shape[0] == part.stop - part.start
            cells = sum(rows.nnz for rows in share.rows[side])
            assert cells < 1.25 * matrix.nnz / min(processes, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"extrapolation": 0.5}, {"use_cg": False}])
def test_the_number_of_processes_does_not_matter(dtype, options, ratings, folder):
    """Factors and losses, bit for bit; here the processes' parts are solved one after another."""
    model = ALS(factors=16, iterations=2, dtype=dtype, **options)
    whole = ALS(factors=16, iterations=2, dtype=dtype, **options).fit(ratings)
    for processes in (1, 2, 3, 4, 7, 40):
        shares = [share_of(folder, model, process, processes) for process in range(processes)]

        def start(threads, shares=shares):
            model._initialise_rows(*shares[0].cells.values(), std=model.init_std)
            parts = {side: [] for side in SIDES}
            for process, share in enumerate(shares):
                for side in SIDES:
                    found = zip(share.parts[side][process], share.rows[side], strict=True)
                    parts[side] += [model._rows_to_solve(*part) for part in found]
            return model._sweeps(*parts.values(), torch.zeros_like(model.item_factors), threads)

        assert same(model._train(start, show_progress=False, callback=None), whole), processes


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@gloo
@pytest.mark.parametrize("extrapolation", [0.0, 0.5])
def test_a_checkpoint_is_where_a_run_stopped(extrapolation, ratings, folder, group, tmp_path):
    checkpoint, seen = tmp_path / "checkpoint", []
    model = ALS(8, iterations=2, extrapolation=extrapolation)
    fit(model, folder, checkpoint)
    model.iterations = 4
    fit(model, folder, checkpoint, resume=True, callback=lambda *step: seen.append(step))
    assert same(model, ALS(8, iterations=4, extrapolation=extrapolation).fit(ratings))
    assert [iteration for iteration, _, _ in seen] == [2, 3]
    assert [loss for _, _, loss in seen] == [step["loss"] for step in model.history[2:]]


@gloo
def test_what_a_checkpoint_does_not_belong_to(folder, group, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    fit(ALS(8, iterations=1), folder, checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(FileExistsError, match="--resume goes on"):
        fit(ALS(8), folder, checkpoint)
    with pytest.raises(ValueError, match=r"alpha=9.0.* got one of .*alpha=4.0"):
        fit(ALS(8, alpha=9), folder, checkpoint, resume=True)
    ratings = sp.load_npz(folder / "02.npz")
    for data in (ratings.data, 6 - ratings.data):  # other cells, then other values in them
        indices = ratings.indices if data is not ratings.data else 149 - ratings.indices
        other = sp.csr_matrix((data, indices, ratings.indptr), ratings.shape)
        sp.save_npz(folder / "02.npz", other)
        with pytest.raises(ValueError, match="expected a checkpoint of"):
            fit(ALS(8), folder, checkpoint, resume=True)
    sp.save_npz(folder / "02.npz", ratings)
    fit(ALS(8, iterations=2), folder, checkpoint, resume=True)
    with pytest.raises(ValueError, match=r"at most 1 sweeps in .*checkpoint, got 2"):
        fit(ALS(8, iterations=1), folder, checkpoint, resume=True)
    checkpoint.write_bytes(before)
    assert checkpoint.read_bytes() == before
    checkpoint.write_bytes(before[:1000])
    with pytest.raises(ValueError, match="or a part of one"):
        fit(ALS(8), folder, checkpoint, resume=True)


@gloo
def test_all_processes_must_have_the_same_input(folder, group, tmp_path, monkeypatch):
    def of_another(begun: list) -> None:
        begun[2] = begun[2].replace("factors=8", "factors=9")

    monkeypatch.setattr(dist, "broadcast_object_list", of_another)
    with pytest.raises(ValueError, match=r"factors=9.*as process 0 has it, got .*factors=8"):
        fit(ALS(8, iterations=1), folder, tmp_path / "checkpoint")


KILLED = """
import os, signal
from mflib import ALS, distributed
loss, sweeps = ALS._loss, []

def killed(*arguments):
    sweeps.append(1)
    if os.environ["RANK"] == "1" and len(sweeps) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments)

ALS._loss = killed
distributed.main()
"""


@gloo
def test_two_processes_of_which_one_is_killed(ratings, folder, tmp_path, monkeypatch):
    """It ends with a sentence and a checkpoint; from there, the factors are those of ``fit``."""
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    file, checkpoint = tmp_path / "model", tmp_path / "model.checkpoint"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [str(folder), str(file), "--factors=8", "--iterations=4", "--extrapolation=.5"]

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*torchrun, *arguments, *options], capture_output=True, text=True, timeout=300
        )

    killed = run(str(tmp_path / "killed.py"))
    assert killed.returncode == 1
    assert f"--resume goes on from {checkpoint}" in killed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"killed.py", "shards", checkpoint.name}
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 2
    options.append("--resume")
    resumed = run("-m", "mflib.distributed")
    assert resumed.returncode == 0, resumed.stderr
    assert "4 sweeps" in resumed.stdout
    assert not checkpoint.exists()
    model = ALS.load(file)
    monkeypatch.undo()  # the processes have not as many parts
    assert same(model, ALS(8, iterations=4, extrapolation=0.5).fit(ratings))
    assert len(model.recommend(0, ratings[0])[0]) == 10


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "got nothing"),
        (("9.npz", "10.npz"), "names of one length.* got 10.npz, 9.npz"),
        (("0.npz", "1.npz"), "expected 5 columns in .*1.npz, as in .*0.npz, got 6"),
    ],
)
def test_shards_that_do_not_fit(names, sentence, tmp_path):
    for columns, name in enumerate(names, start=5):
        sp.save_npz(tmp_path / name, sp.eye(4, columns, format="csr"))
    with pytest.raises(ValueError, match=sentence):
        share_of(tmp_path, ALS(), 0, 1)


def test_the_hash_of_interactions_is_that_of_the_whole(ratings, folder, tmp_path):
    sp.save_npz(tmp_path / "whole.npz", ratings)
    sp.save_npz(tmp_path / "other.npz", ratings * 2)
    hashes = [cells_of(path)[2] for path in (folder, tmp_path / "whole.npz")]
    assert hashes[0] == hashes[1] != cells_of(tmp_path / "other.npz")[2]


def test_files_that_hold_no_interactions(tmp_path):
    file = tmp_path / "likes.npz"
    file.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected .*likes.npz to hold a sparse matrix"):
        share_of(file, ALS(), 0, 1)
    sp.save_npz(file, -sp.eye(4, format="csr"))
    with pytest.raises(ValueError, match="got 4 values of at most 0"):
        share_of(file, ALS(), 0, 1)
