"""The epochs of stochastic gradient descent, progress, divergence.

The way of a batch through a model that is trained by SGD, for who wants to write another one:

    FactorModel.fit    the loop over the iterations, the same for all models
      X._start         checks the data, initialises the factors, returns ``epochs(...)``
        epochs         the loop over the batches of an epoch, here
          batch        of the examples that X._start made: ids and random draws, as a dict, made
                       while the step before is taken
          X._step      hands this dict to the kernel, with the factors and the learning rate
            x_step     the kernel: arithmetic, and nothing else

A kernel takes rows by ``index_select``, which is several times as fast as W[ids], and adds to them
by ``index_add_``, which, unlike W[ids] +=, minds ids that come twice.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mflib.threads import workers

Batch = dict[str, Tensor]  # arguments of a kernel, by name
DIVERGED = 1000  # times the first loss; where training succeeded, none was seen above 4


class Examples(Protocol):
    """What an epoch visits: ratings, likes, or rows of likes."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Tensor, rng: torch.Generator) -> Batch:
        """What the kernel needs for the examples ``chosen`` (int64, B), draws included."""
        ...


class TrainedBySGD(Protocol):
    """What ``epochs`` asks of a model."""

    learning_rate: float
    decay: float
    batch_size: int
    device: str

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        """Move the factors by one batch -> the losses of its parts, however many there are."""
        ...


def epochs(model: TrainedBySGD, examples: Examples, rng: torch.Generator) -> Iterator[float]:
    """Train ``model``: each value taken from the iterator is the mean loss of one more epoch.

    An epoch visits all ``examples`` in a new random order, ``batch_size`` at a time. ``decay``
    lowers the learning rate after each. ``rng`` is advanced in the order of the batches.

    FloatingPointError: the loss is far above that of the first batch.
    """
    first = math.nan
    with workers(1) as second:
        for iteration in itertools.count():
            learning_rate = model.learning_rate * model.decay**iteration
            losses = []
            for batch in batches(examples, model.batch_size, rng, second):
                batch = {name: t.to(model.device) for name, t in batch.items()}
                losses.append(model._step(batch, learning_rate))
            whole = torch.cat(losses)
            loss = whole.sum(dtype=torch.float64).item() / len(whole)
            if iteration == 0:
                first = losses[0].mean().item()
            if loss > DIVERGED * (1 + first):  # float64 has room for many such iterations
                raise diverged(model, loss, iteration)
            yield loss


def batches(
    examples: Examples, batch_size: int, rng: torch.Generator, second: Executor
) -> Iterator[Batch]:
    """All examples in a random order; each batch is made in a ``second`` thread.

    That is while the one before is in use: steps are too small to be shared by two threads, but
    what they need can be drawn ahead. One thread draws all of it, in order.
    """
    chosen = torch.randperm(len(examples), generator=rng).split(batch_size)
    ahead = second.submit(examples.batch, chosen[0], rng)
    for following in chosen[1:]:
        batch, ahead = ahead.result(), second.submit(examples.batch, following, rng)
        yield batch
    yield ahead.result()


def ensure_finite(model: object, loss: float, iteration: int) -> None:
    """FloatingPointError if the loss of an iteration or a number of the model is not finite."""
    learned = [value for value in vars(model).values() if isinstance(value, Tensor)]
    if not (math.isfinite(loss) and all(tensor.isfinite().all() for tensor in learned)):
        raise diverged(model, loss, iteration)


def diverged(model: object, loss: float, iteration: int) -> FloatingPointError:
    """The error to raise, with the remedy."""
    remedy = "lower the learning rate (ALS: alpha) or raise the regularization"
    what = f"{model!r} diverged: loss {loss} in iteration {iteration}"
    return FloatingPointError(f"{what}; {remedy}")


def progress(iterable: Iterable, description: str, show: bool = True) -> tqdm:
    """The one progress bar; MFLIB_PROGRESS=0 switches it off, in a notebook, too.

    (TQDM_DISABLE has no effect on the bar of a notebook.)
    """
    off = not show or os.environ.get("MFLIB_PROGRESS") == "0"
    return tqdm(iterable, description, disable=off)
