"""ALS over several processes, on one machine or on several: the factors of one, bit for bit.

    torchrun --standalone --nproc-per-node 2 -m mflib.distributed likes.npz likes.als --factors 64

fits an ``ALS``, whose parameters are options, and saves it for ``ALS.load``. The interactions are a
sparse matrix, users x items, as scipy.sparse.save_npz writes it, or a folder of shards, matrices of
consecutive users in the order of the files' names: no process then ever holds all interactions.
After each sweep ``likes.als.checkpoint`` is replaced, from which ``--resume`` goes on, with any
number of processes. If one fails or is killed, the others say so and end; but a machine that does
not even close its connections is missed after the time-out of torch.distributed, half an hour.
With ``--device cuda`` each process takes a GPU of its machine (nccl; untested here).

Each process owns a range of the users and one of the items, with about as many interactions as the
others, and of the matrix and its transpose these rows alone. It solves them with the kernels of
``als.py``; after each half sweep all of them get all factors (an all-gather of unequal parts, which
is a broadcast from each). Ranges consist of parts that depend on the data alone, and losses are
summed by rows, so no number depends on how many processes, or threads, there are, if all machines
have the same kind of processor. More processes than parts (``als.number_of_parts``) lie idle.

**Cost.** With U users, I items, n interactions, F factors of b bytes and K processes, each process

- receives (U + I) (F b + 8) (1 - 1/K) bytes a sweep: the factors and each row's part of the loss;
- holds (U + 2 I) F b bytes of factors, of the items also their last change;
- holds n/K (8 + 4 b) bytes of interactions, on both sides with an int32 and two numbers each, and
  U I / (1024 K) of pointers, as a block of 8192 columns points into its cells from each row;
- needs, while it starts, 8 F (U + I) bytes for the draws, 16 n/K for the interactions as they come,
  and a shard, which is read twice; of a single file every process reads all.

Of MovieLens-32M's shape with 64 float32, two processes get 38 MB a sweep each and take 0.9 GB, of
which 0.24 are torch itself; ``fit`` takes 1.8.

The factors are the limit: each process holds all, and F^2 (U + I) operations a sweep, for X'X and
Y'Y, are not shared. 10^8 rows of 64 float32 are 26 GB, on every machine and over every wire, in
each sweep. ALX (Mehta, Rendle, Krichene, Zhang, "ALX: Large Scale Matrix Factorization on TPUs",
2021) goes beyond: there the rows of both factors, too, are spread over all processes, which fetch
for each batch of users only those of the items that occur in it, and add up their parts of Y'Y.

**SGD stays on one machine.** A step of SVD, BPR or WARP begins at what the step before has left,
and to exchange small steps costs more than to take them. What would be done are strata without
conflicts (Gemulla, Nijkamp, Haas, Sismanis, "Large-Scale Matrix Factorization with Distributed
Stochastic Gradient Descent", KDD 2011): K ranges of users and K of items make K^2 blocks. K blocks
that share no row and no column can be trained by K processes at once as if one after another; then
the items' ranges move on to the next process, K times an epoch. But this is another order of steps,
with other factors for each K, and BPR and WARP could only draw negatives among the block's items.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist
from torch import Tensor

from mflib.als import ALS, balanced
from mflib.inputs import cells_of, shards
from mflib.model import Callback, Side, read_whole, write
from mflib.inputs import add_options, normalise

LEARNED = ("user_factors", "item_factors", "history", "seed")


class Share(NamedTuple):
    """What a process knows of the interactions, of users and of items."""

    digest: str  # of all interactions
    cells: dict[Side, np.ndarray]  # how many each row has, of all rows
    parts: dict[Side, list[list[slice]]]  # what each process solves, perhaps nothing
    rows: dict[Side, list[sp.csr_matrix]]  # this process's parts of the matrix and its transpose


def share_of(source: Path, model: ALS, process: int, processes: int) -> Share:
    """Read what one of the processes needs; ValueError if there is nothing to learn from."""
    of_users, of_items, digest = cells_of(source)
    cells: dict[Side, np.ndarray] = {"user": of_users, "item": of_items}
    parts: dict[Side, list[list[slice]]] = {}
    for side, count in cells.items():
        whole = model._parts(count)
        ends = np.cumsum([0, *(count[part].sum() for part in whole)])
        runs = [whole[run] for run in balanced(ends, processes)]
        parts[side] = runs + [[]] * (processes - len(runs))
    pieces: dict[Side, list[list[sp.csr_matrix]]]
    pieces = {side: [[] for _ in parts[side][process]] for side in parts}
    first = 0
    for shard in shards(source):
        for part, found in zip(parts["user"][process], pieces["user"], strict=True):
            found.append(shard[max(0, part.start - first) : max(0, part.stop - first)])
        by_item = shard.tocsc()
        for part, found in zip(parts["item"][process], pieces["item"], strict=True):
            found.append(by_item[:, part].T)
        first += shard.shape[0]
    rows: dict[Side, list[sp.csr_matrix]] = {
        "user": [sp.vstack(pieces["user"].pop(0), "csr") for _ in parts["user"][process]],
        "item": [sp.hstack(pieces["item"].pop(0), "csr") for _ in parts["item"][process]],
    }
    return Share(digest, cells, parts, rows)


@contextmanager
def connected() -> Iterator[None]:
    """What the backends raise when another process is gone becomes a ConnectionError."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError("another process has failed or was killed") from error


def fit(
    model: ALS,
    source: Path,
    checkpoint: Path,
    resume: bool = False,
    show_progress: bool = True,
    callback: Callback | None = None,
) -> ALS:
    """``model.fit`` by the processes of torch.distributed's group, each of which calls this.

    Parameters
    ----------
    model
        With the same parameters in all; afterwards fitted in all. The seed is that of process 0.
    source
        The interactions: a file, or a folder of shards.
    checkpoint
        The file that process 0 writes after each sweep.
    resume
        Whether to go on from ``checkpoint``, if there is one.
    show_progress, callback
        As of ``ALS.fit``, in process 0.

    Raises
    ------
    ValueError
        The interactions cannot be learned from, or are not those of the checkpoint.
    FileExistsError
        A checkpoint would be lost.
    ConnectionError
        Another process has ended.
    OSError
        The checkpoint cannot be written.
    FloatingPointError
        The training diverged, or a system is singular.
    """
    normalise(model)
    process, new = dist.get_rank(), checkpoint.with_name(f"{checkpoint.name}.new")
    digest, cells, parts, rows = share_of(source, model, process, dist.get_world_size())
    change = torch.zeros(len(cells["item"]), model.factors, dtype=model.dtype, device=model.device)
    of = f"{replace(model, iterations=1, device='cpu')!r} on interactions of SHA-256 {digest}"

    def start(threads: int) -> Iterator[float]:
        model._initialise_rows(cells["user"], cells["item"], model.init_std)
        if process == 0 and checkpoint.exists():
            go_on()
        begun: list[Any] = [model.seed, model.history, of]
        with connected():
            dist.broadcast_object_list(begun)
        model.seed, model.history, theirs = begun
        if theirs != of:
            raise ValueError(f"expected {theirs}, as process 0 has it, got {of}")
        with connected():
            for W in (model.user_factors, model.item_factors, change):
                dist.broadcast(W, src=0)
        users, items = (
            [model._rows_to_solve(part, rows[side].pop(0)) for part in parts[side][process]]
            for side in parts
        )
        return model._sweeps(users, items, change, threads, gather)

    def gather(W: Tensor, side: Side) -> None:
        with connected():
            for owner, owned in enumerate(parts[side]):
                if owned:
                    dist.broadcast(W[owned[0].start : owned[-1].stop], src=owner)

    def after(iteration: int, elapsed: float, loss: float) -> None:
        learned = {name: getattr(model, name) for name in LEARNED}
        write(learned | {"change": change, "of": of}, new)
        new.replace(checkpoint)
        if callback:
            callback(iteration, elapsed, loss)

    def go_on() -> None:
        if not resume:
            hint = "--resume goes on from it, or delete it"
            raise FileExistsError(f"expected no {checkpoint} of a run that did not end; {hint}")
        state = read_whole(checkpoint, model.device, "of", f"expected a checkpoint in {checkpoint}")
        if state["of"] != of:
            raise ValueError(f"expected a checkpoint of {of}, got one of {state['of']}")
        if (done := len(state["history"])) > model.iterations:
            raise ValueError(
                f"expected at most {model.iterations} sweeps in {checkpoint}, got {done}"
            )
        change.copy_(state["change"])
        vars(model).update({name: state[name] for name in LEARNED})

    first = process == 0
    return model._train(start, show_progress and first, after if first else None)


def main() -> None:
    """Fit an ALS by the processes that torchrun has started, and save it."""
    parser = argparse.ArgumentParser("torchrun ... -m mflib.distributed", description=main.__doc__)
    parser.add_argument("source", help="an .npz of a sparse matrix, or a folder of shards")
    parser.add_argument("file", help="what to write, for ALS.load")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if any")
    add_options(parser, ALS)
    options = vars(parser.parse_args())
    source, file, resume = (options.pop(name) for name in ("source", "file", "resume"))
    if not dist.is_torchelastic_launched():
        parser.error("expected to be started by torchrun, as its documentation shows")
    if not Path(file).parent.is_dir():
        parser.error(f"expected {file} to be in a folder that there is")
    checkpoint, process = Path(f"{file}.checkpoint"), os.environ["RANK"]

    def end(why: object) -> NoReturn:
        hint = f"; --resume goes on from {checkpoint}" if checkpoint.exists() else ""
        print(f"process {process} ends: {why}{hint}", file=sys.stderr, flush=True)
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun's, when another process has ended
        signal.signal(number, lambda *_: end("another process has failed, or the run was stopped"))
    try:
        if gpu := options["device"] == "cuda":  # one a process
            options["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(options["device"])
        dist.init_process_group("nccl" if gpu else "gloo")
        model = fit(ALS(**options), Path(source), checkpoint, resume)
        if process == "0":
            model.save(file)
            checkpoint.unlink()
            print(f"{file}: {len(model.history)} sweeps, loss {model.history[-1]['loss']:.8g}")
        dist.destroy_process_group()
    except (OSError, ValueError, FloatingPointError) as error:
        end(error)


if __name__ == "__main__":
    main()
