"""The epochs of stochastic gradient descent, progress, divergence."""

import os
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

Batch = dict[str, Tensor]  # arguments of a kernel, by name


class Rows(Protocol):
    """What an epoch visits: ratings, likes, or likes of one user."""

    def __len__(self) -> int: ...

    def batch(self, chosen: Tensor, rng: torch.Generator) -> Batch:
        """What the kernel needs for the rows ``chosen`` (int64, B), random draws included."""
        ...


class TrainedBySGD(Protocol):
    """What ``epochs`` asks of a model."""

    learning_rate: float
    decay: float
    iterations: int
    batch_size: int
    device: str

    def _step(self, batch: Batch, learning_rate: float) -> Tensor:
        """Move the factors by one batch -> the losses of its parts (B)."""
        ...


def epochs(model: TrainedBySGD, rows: Rows, rng: torch.Generator) -> Iterator[float]:
    """Train ``model``, an epoch for each value taken from the iterator: its mean loss.

    An epoch visits all ``rows`` in a new random order, ``batch_size`` at a time. ``decay`` lowers
    the learning rate after each. ``rng`` is advanced in the order of the batches.
    """
    for iteration in range(model.iterations):
        learning_rate = model.learning_rate * model.decay**iteration
        losses = []
        for chosen in torch.randperm(len(rows), generator=rng).split(model.batch_size):
            batch = {name: t.to(model.device) for name, t in rows.batch(chosen, rng).items()}
            losses.append(model._step(batch, learning_rate))
        whole = torch.cat(losses)
        yield whole.sum(dtype=torch.float64).item() / len(whole)


def ensure_finite(model: object, loss: float, iteration: int) -> None:
    """FloatingPointError if the loss of an iteration or a number of the model is not finite."""
    learned = [value for value in vars(model).values() if isinstance(value, Tensor)]
    if not (np.isfinite(loss) and all(tensor.isfinite().all() for tensor in learned)):
        remedy = "lower the learning rate (ALS: alpha) or raise the regularization"
        what = f"{model!r} diverged: loss {loss} in iteration {iteration}"
        raise FloatingPointError(f"{what}; {remedy}")


def progress(iterable: Iterable, description: str, show: bool = True) -> tqdm:
    """The one progress bar; MFLIB_PROGRESS=0 switches it off.

    TQDM_DISABLE does not in a kernel.
    """
    off = not show or os.environ.get("MFLIB_PROGRESS") == "0"
    return tqdm(iterable, description, disable=off)
