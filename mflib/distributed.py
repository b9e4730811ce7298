"""ALS across several processes, on one machine or several, with the same results as one process.

Start it with torchrun, here with two processes:

    torchrun --standalone --nproc-per-node 2 -m mflib.distributed likes.npz likes.als --factors 64

This fits an ``ALS``, whose parameters are options, and saves it for ``ALS.load``. On several
machines, run the same command on each, with torchrun's rendezvous options.

**Input.** A sparse matrix (users x items) written by scipy.sparse.save_npz, or a folder of such
files (shards) with consecutive users in the order of the file names. With shards, no process holds
all interactions.

**Checkpoint.** After each iteration, ``likes.als.checkpoint`` is replaced. ``--resume`` continues
from it, with any number of processes. If a process fails, the others report it and exit. A machine
that vanishes without closing its connections is noticed after the timeout of torch.distributed, 30
minutes.

**Method.** Each process owns a range of users and a range of items, with about as many interactions
as the others, and solves these rows with the kernels of ``als.py``. After each half of an iteration
the processes exchange the new factors. The factors and losses do not depend on the number of
processes, if all machines have the same type of processor. With ``--device cuda`` each process uses
one GPU of its machine, through nccl; this is untested.

**Cost.** With U users, I items, n interactions, F factors of b bytes each, and K processes, each
process

- receives (U + I) (F b + 8) (1 - 1/K) bytes per iteration;
- holds (U + 2 I) F b bytes of factors, and n/K (8 + 4 b) + U I / (1024 K) bytes of interactions;
- needs at the start 8 F (U + I) bytes for random numbers, 16 n/K for interactions, and one shard.

**Limits.** Each process holds all factors, and F^2 (U + I) operations per iteration (X'X and Y'Y)
are not shared: 10^8 rows of 64 float32 are 26 GB per process. ALX (Mehta, Rendle, Krichene, Zhang,
"ALX: Large Scale Matrix Factorization on TPUs", 2021) distributes the factors as well. More
processes than parts (``als.number_of_parts``) are idle.

SVD, BPR and WARP run on one machine only, because each step of SGD starts from the result of the
previous one. Stratified SGD (Gemulla, Nijkamp, Haas, Sismanis, "Large-Scale Matrix Factorization
with Distributed Stochastic Gradient Descent", KDD 2011) trains blocks without common rows or
columns at the same time, but its results depend on the number of processes.
"""

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist
from torch import Tensor

from mflib.als import ALS, RowsToSolve, balanced
from mflib.inputs import as_csr, check_likes
from mflib.model import LEARNED, Callback, Side, read_state, write_atomically

# --- interactions -------------------------------------------------------------------------------


class Share(NamedTuple):
    """The interactions that one process needs, and the rows that each process owns."""

    digest: str  # of all interactions
    counts: dict[Side, np.ndarray]  # the number of entries of each user and of each item
    owned: dict[Side, list[slice]]  # the rows of each process, possibly empty
    parts: dict[Side, list[slice]]  # the parts of this process
    entries: dict[Side, list[sp.csr_matrix]]  # the rows of the matrix, or its transpose, by part


def read_share(source: Path, model: ALS, process: int, processes: int) -> Share:
    """Read the interactions that a process needs.

    Parameters
    ----------
    source : Path
        A file, or a folder of shards.
    model : ALS
        Determines the parts.
    process, processes : int
        The rank of the process, and the number of processes.

    Raises
    ------
    ValueError
        The interactions cannot be read, or none of them is a like.
    """
    user_counts, item_counts, digest = count_entries(source)
    counts: dict[Side, np.ndarray] = {"user": user_counts, "item": item_counts}
    assigned = {side: assign_parts(model, counts[side], processes) for side in counts}
    owned = {
        side: [slice(run[0].start, run[-1].stop) if run else slice(0, 0) for run in runs]
        for side, runs in assigned.items()
    }
    parts = {side: runs[process] for side, runs in assigned.items()}

    by_user: list[list[sp.csr_matrix]] = [[] for _ in parts["user"]]
    by_item: list[list[sp.csr_matrix]] = [[] for _ in parts["item"]]
    first = 0  # the first user of the shard
    for shard in read_shards(source):
        for part, pieces in zip(parts["user"], by_user, strict=True):
            pieces.append(shard[max(0, part.start - first) : max(0, part.stop - first)])
        columns = shard.tocsc()
        for part, pieces in zip(parts["item"], by_item, strict=True):
            pieces.append(columns[:, part].T)
        first += shard.shape[0]
    entries: dict[Side, list[sp.csr_matrix]] = {  # pop releases the pieces of each part
        "user": [sp.vstack(by_user.pop(0), "csr") for _ in parts["user"]],
        "item": [sp.hstack(by_item.pop(0), "csr") for _ in parts["item"]],
    }
    return Share(digest, counts, owned, parts, entries)


def read_shards(source: Path) -> Iterator[sp.csr_matrix]:
    """Yield the validated matrix of a file, or the matrices of a folder in the order of the names.

    Raises
    ------
    ValueError
        There is no matrix, the order is ambiguous, or the numbers of items differ.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.npz"))
    if len({len(file.name) for file in files}) != 1:  # 10.npz would precede 9.npz
        got = ", ".join(file.name for file in files) or "nothing"
        expected = "an .npz file or a folder of .npz files with names of equal length"
        raise ValueError(f"expected {source} to be {expected} (00.npz, 01.npz, ...), got {got}")
    columns = None
    for file in files:
        try:
            shard = as_csr(sp.load_npz(file))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # scipy raises many types on files it did not write
            expected = "a sparse matrix that scipy.sparse.save_npz wrote"
            raise ValueError(f"expected {file} to hold {expected}, got: {error}") from error
        columns = shard.shape[1] if columns is None else columns
        if shard.shape[1] != columns:
            expected = f"{columns} columns in {file}, as in {files[0]}"
            raise ValueError(f"expected {expected}, got {shard.shape[1]}")
        yield shard


def count_entries(source: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Count the entries of each user and of each item.

    Returns
    -------
    user_counts, item_counts : int64 arrays, shapes (U,) and (I,)
    digest : str
        The SHA-256 of all entries. It does not depend on how they are divided into shards.

    Raises
    ------
    ValueError
        The interactions cannot be read, or none of them is a like.
    """
    user_counts, item_counts, n_likes = [], np.zeros(1, np.int64), 0
    ids, values = hashlib.sha256(), hashlib.sha256()
    for shard in read_shards(source):
        ids.update(shard.indices.astype(np.int64))
        values.update(shard.data.astype(np.float64))
        user_counts.append(shard.getnnz(1).astype(np.int64))
        item_counts = item_counts + shard.getnnz(0)
        n_likes += int(np.count_nonzero(shard.data > 0))
    check_likes(n_likes, int(item_counts.sum()))
    of_users = np.concatenate(user_counts)
    digest = hashlib.sha256(of_users.tobytes() + ids.digest() + values.digest()).hexdigest()
    return of_users, item_counts, digest


def assign_parts(model: ALS, counts: np.ndarray, processes: int) -> list[list[slice]]:
    """Assign consecutive parts to each process, with about the same number of entries.

    The parts are those of ``ALS`` for any number of processes. Some processes may get none.

    Parameters
    ----------
    model : ALS
    counts : int array
        The number of entries of each user, or of each item.
    processes : int
    """
    parts = model._parts(counts)
    pointers = np.cumsum([0, *(counts[part].sum() for part in parts)])
    runs = [parts[run] for run in balanced(pointers, processes)]
    return runs + [[] for _ in range(processes - len(runs))]


# --- training -----------------------------------------------------------------------------------


@contextmanager
def connection_errors() -> Iterator[None]:
    """Raise ConnectionError where torch raises RuntimeError because another process ended."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"another process has failed or was killed ({reason})") from error


class DistributedALS(ALS):
    """ALS in one of several processes: solves the rows it owns and receives the others."""

    def __init__(self, model: ALS, share: Share) -> None:
        parameters = {field.name: getattr(model, field.name) for field in fields(model)}
        super().__init__(**parameters)
        self.share = share
        shape = (len(share.counts["item"]), self.factors)
        self.change = torch.zeros(shape, dtype=self.dtype, device=self.device)
        if not isinstance(self.random_state, int):
            parameters["random_state"] = None  # the repr of a generator contains its address
        settings = ", ".join(
            f"{name}={value!r}"
            for name, value in parameters.items()
            if name not in ("iterations", "device")  # these may differ when a run is resumed
        )
        self.task = f"ALS({settings}) on interactions with SHA-256 {share.digest}"

    def begin(self, threads: int, checkpoint: Path) -> Iterator[float]:
        """Return the iterator over the sweeps, from the state of process 0."""
        counts = self.share.counts
        self._initialise_rows(counts["user"], counts["item"], self.init_std)
        if dist.get_rank() == 0 and checkpoint.exists():
            self.read(checkpoint)
        task = f"{self.iterations} iterations of {self.task}"
        agreed: list[Any] = [task, self.seed, self.history]
        with connection_errors():
            dist.broadcast_object_list(agreed, src=0)
        expected, self.seed, self.history = agreed
        if task != expected:
            raise ValueError(f"expected the task of process 0, {expected}, got {task}")
        with connection_errors():
            for W in (self.user_factors, self.item_factors, self.change):
                dist.broadcast(W, src=0)
        parts, entries = self.share.parts, self.share.entries
        users, items = (  # pop releases the matrix of each part
            [self._rows_to_solve(part, entries[side].pop(0)) for part in parts[side]]
            for side in parts
        )
        return self._sweeps(users, items, self.change, threads)

    def _solve(self, side: Side, parts: list[RowsToSolve], pool: Executor) -> None:
        super()._solve(side, parts, pool)
        self._exchange(side, self._factors(side))

    def _losses(self, side: Side, parts: list[RowsToSolve], pool: Executor) -> Tensor:
        losses = super()._losses(side, parts, pool)
        self._exchange(side, losses)
        return losses

    def _exchange(self, side: Side, W: Tensor) -> None:
        """Send the rows of ``W`` that this process owns and receive the others, in place."""
        with connection_errors():
            for process, rows in enumerate(self.share.owned[side]):
                if rows.start < rows.stop:
                    dist.broadcast(W[rows], src=process)

    def _snapshot(self) -> dict[str, Any]:
        """Return no copies of the factors: the checkpoint has them."""
        return {}

    def learned(self) -> dict[str, Any]:
        """Return the attributes that training has set."""
        return {name: getattr(self, name) for name in (*LEARNED, "history", "seed")}

    def write(self, checkpoint: Path) -> None:
        """Save the state for ``read`` atomically."""
        write_atomically(self.learned() | {"change": self.change, "task": self.task}, checkpoint)

    def read(self, checkpoint: Path) -> None:
        """Continue from a checkpoint; raise ValueError if it belongs to another task."""
        expected = f"expected a checkpoint in {checkpoint}"
        state = read_state(checkpoint, self.device, marker="task", expected=expected)
        if state["task"] != self.task:
            raise ValueError(f"expected a checkpoint of {self.task}, got one of {state['task']}")
        if (done := len(state["history"])) > self.iterations:
            expected = f"at most {self.iterations} iterations in {checkpoint}"
            raise ValueError(f"expected {expected}, got {done}")
        self.change.copy_(state["change"])
        vars(self).update({name: state[name] for name in self.learned()})


def fit(
    model: ALS,
    source: Path,
    checkpoint: Path,
    resume: bool = False,
    show_progress: bool = True,
    callback: Callback | None = None,
) -> ALS:
    """Fit a model in all processes of torch.distributed's default group.

    Every process must call this function. After any error or KeyboardInterrupt, the model is
    unchanged, and the checkpoint holds the last finished iteration.

    Parameters
    ----------
    model : ALS
        With the same parameters in all processes; fitted in all of them. The seed is that of
        process 0.
    source : Path
        The interactions: a file, or a folder of shards.
    checkpoint : Path
        The file that process 0 writes after each iteration. It remains after the last one.
    resume : bool
        Whether to continue from ``checkpoint`` if it exists.
    show_progress, callback
        See ``ALS.fit``. They have an effect in process 0 only; all processes stop together.

    Returns
    -------
    model

    Raises
    ------
    ValueError
        The parameters or the interactions are invalid, or differ from those of process 0 or of the
        checkpoint.
    FileExistsError
        There is a checkpoint, but ``resume`` is not set.
    ConnectionError
        Another process has ended.
    OSError
        The checkpoint cannot be written.
    FloatingPointError
        The training diverged, or a system is singular.
    """
    model._validate()
    process = dist.get_rank()
    if process == 0 and checkpoint.exists() and not resume:
        hint = "continue from it with --resume (resume=True), or delete it"
        raise FileExistsError(f"expected no checkpoint of an earlier run, got {checkpoint}; {hint}")
    share = read_share(source, model, process, dist.get_world_size())
    worker = DistributedALS(model, share)

    def after_iteration(iteration: int, seconds: float, loss: float) -> bool:
        stop = torch.zeros(1, dtype=torch.uint8, device=model.device)
        if process == 0:
            worker.write(checkpoint)
            if callback:
                vars(model).update(worker.learned())  # the callback may read the model
                result = callback(iteration, seconds, loss)
                stop += isinstance(result, bool | np.bool_) and bool(result)
        with connection_errors():
            dist.broadcast(stop, src=0)
        return bool(stop)

    before = vars(model).copy()
    try:
        worker._train(
            lambda threads: worker.begin(threads, checkpoint),
            show_progress and process == 0,
            after_iteration,
        )
    except BaseException:
        vars(model).clear()
        vars(model).update(before)
        raise
    vars(model).update(worker.learned())
    return model


# --- command line -------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, model: type) -> None:
    """Add an option for each parameter of ``model``, a dataclass: --cg_steps 3, --no-use_cg."""
    for field in fields(model):
        kind = type(field.default)
        options: dict[str, Any] = {"type": kind if kind in (int, float) else str}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        default = str(field.default).removeprefix("torch.")
        parser.add_argument(
            f"--{field.name}", default=field.default, help=f"default: {default}", **options
        )


def main() -> None:
    """Fit ALS in the processes that torchrun started, and save the model."""
    parser = argparse.ArgumentParser(
        "torchrun [...] -m mflib.distributed",
        description="Fit ALS in several processes, and save the model.",
    )
    parser.add_argument("source", help="an .npz file of a sparse matrix, or a folder of shards")
    parser.add_argument("file", help="the file to write, for ALS.load")
    parser.add_argument("--resume", action="store_true", help="continue from a checkpoint, if any")
    add_options(parser, ALS)
    options = vars(parser.parse_args())
    source, file, resume = (options.pop(name) for name in ("source", "file", "resume"))
    if not dist.is_torchelastic_launched():
        start = "torchrun --standalone --nproc-per-node 2 -m mflib.distributed"
        parser.error(f"expected to be started by torchrun; run {start} {source} {file}")
    if not Path(file).parent.is_dir():
        parser.error(f"expected {file} to be in an existing folder; create {Path(file).parent}")
    checkpoint, process = Path(f"{file}.checkpoint"), os.environ["RANK"]

    def end(reason: object) -> NoReturn:
        hint = f"; continue from {checkpoint} with --resume" if checkpoint.exists() else ""
        print(f"process {process} ends: {reason}{hint}", file=sys.stderr, flush=True)
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun sends SIGTERM if a process fails
        signal.signal(number, lambda *_: end("another process has failed, or the run was stopped"))
    try:
        if gpu := options["device"] == "cuda":  # one GPU for each process
            options["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(options["device"])
        dist.init_process_group("nccl" if gpu else "gloo")
        model = fit(ALS(**options), Path(source), checkpoint, resume)
        if process == "0":
            model.save(file)
            checkpoint.unlink()
            loss = model.history[-1]["loss"]
            print(f"{file}: {len(model.history)} iterations, loss {loss:.8g}")
        dist.destroy_process_group()
    except (OSError, ValueError, FloatingPointError) as error:
        end(error)


if __name__ == "__main__":
    main()
