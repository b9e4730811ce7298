"""The SGD loop: epochs and batches, progress, divergence, threads.

How a batch flows through an SGD-trained model, for readers who want to write their own:

    FactorModel.fit      loop over the iterations, the same for all models
      X._start           validates the data, initialises the factors, returns ``epochs(...)``
        epochs           loop over the batches of an epoch (this module)
          draw           adds random draws to a batch, in a second thread, one step ahead
          X._step        calls the kernel with the batch, the factors and the learning rate
            x_step       the kernel: deterministic arithmetic

The batches are fixed when training starts: a random partition of the interactions. Each epoch
visits them in a new order.

Torch's threads busy-wait for each other. If the system suspends one of them, the others spin, and
training on a busy machine becomes 10 to 50 times slower. All computation here therefore uses
one torch thread per Python thread. Where more processors help, several Python threads are used;
torch releases the interpreter lock while it computes.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

Batch = dict[str, Any]  # arguments of a kernel, by name
DIVERGED = 1000  # multiple of the first loss; no successful run exceeded 4
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


class TrainedBySGD(Protocol):
    """The interface of a model for ``epochs``."""

    learning_rate: float
    decay: float

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        """Update the factors with one batch and return its losses: one dimension, any length.

        A tensor, an array, a list or a tuple.
        """
        ...


def epochs(
    model: TrainedBySGD,
    batches: Sequence[Batch],
    rng: torch.Generator,
    draw: Callable[[Batch, torch.Generator], Batch] | None = None,
) -> Iterator[float]:
    """Train ``model``: each ``next()`` runs one more epoch and yields its mean loss.

    An epoch visits all batches in a new random order. After each epoch the learning rate is
    multiplied by ``decay``.

    Parameters
    ----------
    model : SVD, BPR or WARP
    batches : sequence of dicts
        The fixed part of each batch.
    rng : torch.Generator
        In each epoch, determines the order of the batches and then the draws of each batch.
    draw : callable, optional
        Returns a batch together with its random draws.

    Raises
    ------
    FloatingPointError
        The loss is far above that of the first batch.
    """
    first = math.nan
    with worker_threads(1) as second:
        for iteration in itertools.count():
            learning_rate = model.learning_rate * model.decay**iteration
            order = torch.randperm(len(batches), generator=rng, device="cpu").tolist()
            visits = (batches[place] for place in order)
            drawn = ahead(visits, rng, draw, second) if draw else visits
            losses = [as_losses(model._step(batch, learning_rate)) for batch in drawn]
            joined = torch.cat(losses)
            loss = joined.sum(dtype=torch.float64).item() / len(joined)
            if iteration == 0:
                first = losses[0].mean().item()
            if loss > DIVERGED * (1 + first):  # in float64 it would stay finite for many iterations
                raise diverged(model, loss, iteration)
            yield loss


def as_losses(losses: Tensor | Sequence[float] | np.ndarray) -> Tensor:
    """Return the losses of a step as a tensor; a student's kernel may return a list or an array."""
    # as_tensor would move a tensor to the default device.
    return losses if torch.is_tensor(losses) else torch.as_tensor(losses, device="cpu")


def ahead(
    visits: Iterator[Batch],
    rng: torch.Generator,
    draw: Callable[[Batch, torch.Generator], Batch],
    second: Executor,
) -> Iterator[Batch]:
    """Yield each batch with its draws, which a ``second`` thread makes one step ahead.

    A single thread makes all draws, in order, so they do not depend on timing.
    """
    waiting = second.submit(draw, next(visits), rng)
    for following in visits:
        batch, waiting = waiting.result(), second.submit(draw, following, rng)
        yield batch
    yield waiting.result()


def row_rates(learning_rate: float, counts: Tensor, bound: float) -> Tensor:
    """Return the learning rate of each row: ``learning_rate``, but at most ``bound`` / count.

    A batch adds up the gradients of all entries of a row. For a row with many entries, such as a
    popular movie, that sum times the learning rate would overshoot. With the bound, the step is at
    most ``bound`` times the *mean* gradient.

    Parameters
    ----------
    learning_rate : float
    counts : floating-point tensor, shape (R,)
        The number of entries of each row in the batch.
    bound : float

    Returns
    -------
    tensor of the type of ``counts``, shape (R,)
    """
    return (bound / counts.clamp(min=1)).clamp_(max=learning_rate)


def ensure_finite(model: object, loss: float, iteration: int) -> None:
    """Raise FloatingPointError if the loss or a learned value is not finite."""
    learned = [value for value in vars(model).values() if isinstance(value, Tensor)]
    if not (math.isfinite(loss) and all(tensor.isfinite().all() for tensor in learned)):
        raise diverged(model, loss, iteration)


def diverged(model: object, loss: float, iteration: int) -> FloatingPointError:
    """Return the error to raise, with advice that fits the model."""
    if hasattr(model, "learning_rate"):
        advice = "lower the learning rate or the regularization, or use more batches"
    else:
        advice = "lower alpha, the extrapolation or the regularization"
    return FloatingPointError(f"{model!r} diverged: loss {loss} in iteration {iteration}; {advice}")


def progress(iterable: Iterable, description: str, show: bool = True) -> tqdm:
    """Return a progress bar over ``iterable``; the variable MFLIB_PROGRESS=0 disables it.

    (TQDM_DISABLE has no effect on notebook bars.)
    """
    off = not show or os.environ.get("MFLIB_PROGRESS") == "0"
    return tqdm(iterable, description, disable=off)


@contextmanager
def torch_settings(device: str | torch.device = "cpu") -> Iterator[None]:
    """Compute with one torch thread, without autograd, inference mode or autocast.

    Results then do not depend on the modes that the caller has set. On exit all are restored. Only
    the number of threads is a setting of the whole process: if calls from several Python threads
    overlap, torch may be left with one thread; call torch.set_num_threads again.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(mode=False))
            modes.enter_context(torch.no_grad())
            modes.enter_context(torch.autocast(torch.device(device).type, enabled=False))
            yield
    finally:
        torch.set_num_threads(threads)


def worker_threads(count: int) -> ThreadPoolExecutor:
    """Return a pool of ``count`` threads, each limited to one torch thread from the start.

    Without the initializer, a new thread uses MKL's default number of threads until some torch
    operation applies torch's setting. A matrix product does not apply it, and then rounds
    differently.
    """
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


@contextmanager
def thread_pool(device: str | torch.device = "cpu") -> Iterator[ThreadPoolExecutor]:
    """Provide ``available_threads()`` workers for independent tasks, with ``torch_settings``."""
    count = available_threads()
    with torch_settings(device), worker_threads(count) as executor:
        yield executor


def available_threads() -> int:
    """Return the number of worker threads: torch's setting, capped by the available processors.

    This respects OMP_NUM_THREADS and torch.set_num_threads.
    """
    return min(torch.get_num_threads(), available_processors())


def available_processors() -> int:
    """Return the number of processors this process may use (affinity and cgroup quota)."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    number = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, int(min(number, _cgroup_quota() + 0.5)))


def _cgroup_quota() -> float:
    """Return the number of processors that control groups (version 2) grant."""
    try:
        quota, period = CPU_MAX.read_text(encoding="utf-8").split()
    except OSError:  # no control group
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)
