"""Right and wrong versions of a kernel, on which the checks that students write are tried.

The grader's versions are whole kernels (hidden.py). The public ones are variants of the student's
own kernel, so the student edition contains no answer. A variant is a function of the kernel and the
kernel's arguments, by position: it changes arguments, or what the kernel makes of them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

Kernel = Callable[..., Any]
# Computes an argument from its values before the step, after it, and after one without penalty.
Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def after(
    n: int, kernel: Kernel, arguments: tuple, changes: Mapping[int, object] | None = None
) -> tuple[list[torch.Tensor], Any]:
    """Call a kernel on copies of the first ``n`` arguments; return these and its result."""
    given: list[Any] = list(arguments)
    for place, value in (changes or {}).items():
        given[place] = value
    given[:n] = [value.clone() for value in given[:n]]
    returned = kernel(*given)
    return given[:n], returned


def in_float32(n: int, kernel: Kernel, *arguments: Any) -> Any:
    """Compute in float32."""
    changes = dict(enumerate(map(_single, arguments)))
    updated, returned = after(n, kernel, arguments, changes)
    for argument, value in zip(arguments, updated, strict=False):
        argument.copy_(value)
    if isinstance(returned, tuple | list):
        return tuple(_like(arguments[0], part) for part in returned)
    return _like(arguments[0], returned)


def _single(value: Any) -> Any:
    if isinstance(value, list):  # blocks of ALS
        return _of_blocks(excess=torch.Tensor.float, weighted_preference=torch.Tensor.float)(value)
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _like(factors: torch.Tensor, value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(factors.dtype) if is_float else value


def reordered(entries: int, others: tuple[int, ...], kernel: Kernel, *arguments: Any) -> Any:
    """Visit the entries of each row in the opposite order; ``others``: their values."""
    given, known = list(arguments), arguments[entries]
    last_to_first = torch.arange(len(known) - 1, -1, -1)
    order = last_to_first[known.rows.flip(0).long().argsort(stable=True)]
    given[entries] = known.at(known.rows[order], known.columns[order], known.shape)
    for place in others:
        given[place] = given[place][order]
    losses = kernel(*given)
    return None if losses is None else torch.empty_like(losses).index_copy_(0, order, losses)


def reordered_positives(kernel: Kernel, *arguments: Any) -> Any:
    """Visit the positives of WARP in the opposite order."""
    flipped = {4: arguments[4].flip(0), 5: arguments[5].flip(0), 6: arguments[6].flip(1)}
    returned = kernel(*(flipped.get(place, value) for place, value in enumerate(arguments)))
    return None if returned is None else tuple(part.flip(0) for part in returned)


def without_result(kernel: Kernel, *arguments: Any) -> None:
    """Return nothing."""
    kernel(*arguments)


def given(place: int, change: Callable[[Any], Any], kernel: Kernel, *arguments: Any) -> Any:
    """Call the kernel with another value of one argument."""
    return kernel(*arguments[:place], change(arguments[place]), *arguments[place + 1 :])


def returning(change: Callable[[Any], Any], kernel: Kernel, *arguments: Any) -> Any:
    """Return something else."""
    return change(kernel(*arguments))


def moved(
    n: int, free: tuple[int, ...], formulas: dict[int, Formula], kernel: Kernel, *arguments: Any
) -> Any:
    """Set other values in some of the ``n`` updated arguments.

    ``free``: the places of the penalties.
    """
    updated, returned = after(n, kernel, arguments)
    unpenalised, _ = after(n, kernel, arguments, dict.fromkeys(free, 0.0))
    for place, values in enumerate(zip(arguments, updated, unpenalised, strict=False)):
        arguments[place].copy_(formulas[place](*values) if place in formulas else values[1])
    return returned


def unbounded(
    n: int, places: tuple[int, ...], entries: int, rate_at: int, kernel: Kernel, *arguments: Any
) -> Any:
    """Update the arguments ``places`` without the bound, by scaling up a very short step."""
    rate = arguments[rate_at]
    small = min(rate, 1.0) / max(len(arguments[entries]), 1)
    updated, returned = after(n, kernel, arguments)
    slow, _ = after(n, kernel, arguments, {rate_at: small})
    for place, (old, new) in enumerate(zip(arguments, updated, strict=False)):
        old.copy_(old + (slow[place] - old) * (rate / small) if place in places else new)
    return returned


def last_of_each_user(kernel: Kernel, *arguments: Any) -> Any:
    """Let only the last entry of each user move its factors (SVD)."""
    P, Q, b_u, b_i, mu, entries, ratings = arguments[:7]
    estimates = mu + b_u[entries.rows.long()] + b_i[entries.columns.long()] + entries.dot(P, Q)
    last = (entries.row_pointers[1:][entries.row_counts > 0] - 1).long()
    without_error = estimates.index_copy(0, last, ratings[last])
    (factors, *_), _ = after(4, kernel, arguments, {6: without_error})
    returned = kernel(*arguments)
    arguments[0].copy_(factors)
    return returned


def _of_blocks(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[list], list]:
    return lambda blocks: [
        block._replace(**{name: change(getattr(block, name)) for name, change in changes.items()})
        for block in blocks
    ]


def stays(old: torch.Tensor, new: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    return old


def unpenalised(old: torch.Tensor, new: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    return free


def opposite(old: torch.Tensor, new: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return the value after a step with the opposite sign."""
    return new - 2 * (free - old)


RIGHT: dict[str, dict[str, Kernel]] = {
    "svd": {
        "in float32": partial(in_float32, 4),
        "in another order of the ratings": partial(reordered, 5, (6,)),
        "without losses": without_result,
    },
    "als": {
        "in float32": partial(in_float32, 1),
        "with the blocks in another order": partial(given, 2, lambda blocks: blocks[::-1]),
    },
    "bpr": {
        "in float32": partial(in_float32, 3),
        "in another order of the triples": partial(reordered, 3, (4,)),
        "without losses": without_result,
    },
    "warp": {
        "in float32": partial(in_float32, 2),
        "in another order of the likes": reordered_positives,
        "without losses": without_result,
    },
}
# Each has the name of the equal kernel in wrong.py, which the grader leaves out.
WRONG: dict[str, dict[str, Kernel]] = {
    "svd": {
        "users never bounded": partial(unbounded, 4, (0, 2), 5, 7),
        "duplicates of users lost": last_of_each_user,
        "the mean forgotten": partial(given, 4, lambda mu: 0.0),
        "items stay": partial(moved, 4, (8,), {1: stays}),
        "user biases stay": partial(moved, 4, (8,), {2: stays}),
        "no penalty on users": partial(moved, 4, (8,), {0: unpenalised}),
        "losses not halved": partial(returning, lambda losses: 2 * losses),
    },
    "als": {
        "the mean penalty for all": partial(given, 3, lambda x: x.mean().expand_as(x)),
        "the confidence forgotten": partial(
            given, 2, _of_blocks(weighted_preference=lambda weighted: weighted.clamp(max=1))
        ),
        "stored entries left out": partial(given, 2, _of_blocks(excess=lambda E: 0 * E)),
        "a copy is updated": partial(moved, 1, (), {0: stays}),
        "added to the old values": partial(moved, 1, (), {0: lambda old, new, free: old + new}),
    },
    "bpr": {
        "users' penalty on items": lambda kernel, *given: kernel(*given[:7], given[6]),
        "items never bounded": partial(unbounded, 3, (1, 2), 3, 5),
        "the others in another order": partial(given, 4, lambda negatives: negatives.flip(0)),
        "the users stay": partial(moved, 3, (6, 7), {0: stays}),
        "no penalty on biases": partial(moved, 3, (6, 7), {2: unpenalised}),
        "the sign flipped": partial(moved, 3, (6, 7), dict.fromkeys(range(3), opposite)),
        "the mean loss": partial(returning, lambda losses: losses.mean()),
    },
    "warp": {
        "liked items violate": partial(given, 3, lambda known: known[:1]),
        "no margin": partial(given, 8, lambda margin: 0.0),
        "the users stay": partial(moved, 2, (10,), {0: stays}),
        "no penalty on users": partial(moved, 2, (10,), {0: unpenalised}),
        "the sign flipped": partial(moved, 2, (10,), {0: opposite}),
        "draws counted from 0": partial(returning, lambda found: (found[0], found[1] - 1)),
    },
}
VARIANTS = {task: RIGHT[task] | WRONG[task] for task in RIGHT}
