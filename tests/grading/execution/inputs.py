"""Generate inputs for students' functions from a seed, call them and collect the outputs.

Check and grader use different seeds. The inputs of exercises are in exercises.py.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from grading.execution.exercises import SMALL, Drawn
from grading.rubric import OUTPUTS, RUBRIC

SEEDS = (0, 1, 2, SMALL)  # the seeds of the student's checks
LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases")
SHORT_FIT: dict[str, dict[str, Any]] = {
    "svd": {"iterations": 2, "batches": 8},
    "als": {"iterations": 2},
    "bpr": {"iterations": 2, "batches": 8},
    "warp": {"iterations": 2},
}


class Kernels(Drawn):
    """Arguments of the kernels and of the textbook loops: random tensors, float64.

    mflib is imported where it is needed: check.py imports this module where a student's file may
    not be importable.
    """

    def _entries(self, users: torch.Tensor, items: torch.Tensor) -> Any:
        from mflib.sparse import Entries

        order = users.argsort(stable=True)
        return Entries.at(users[order], items[order], (self.n_users, self.n_items))

    def _uneven(self, n: int, length: int) -> torch.Tensor:
        """Return ids below n in random order: one nine times or more, one once, one never.

        In a small case, the first is a half of them.
        """
        first, once, _, *others = torch.randperm(n, generator=self.rng).tolist()
        choices = torch.tensor([first, *others])
        most = min(9, length // 2)
        more = torch.randint(len(choices), (length - most - 1,), generator=self.rng)
        ids = torch.cat([torch.tensor(most * [first] + [once]), choices[more]])
        return ids[torch.randperm(length, generator=self.rng)]

    def _rate(self, bound: float) -> float:
        """Return a learning rate: at 9 entries ``bound / n`` is below it, at 2 above it."""
        return bound * (0.15 + 0.7 * self.rates(1)[0])

    def _ratings(self) -> tuple:
        """Return the model, the users, items and ratings of a batch, the rate and the penalty."""
        users, items = self._uneven(self.n_users, self.n), self._uneven(self.n_items, self.n)
        users, items = (torch.cat([ids, ids[:1]]) for ids in (users, items))  # a pair occurs twice
        ratings = self.real(len(users)) + 3
        return self.model(), users, items, ratings, self._rate(1.0), *self.rates(1)

    # One call or, as a list of tuples, several.

    def svd_svd_step(self) -> list:
        model, users, items, ratings, *rates = self._ratings()
        return [*model, 3.1, self._entries(users, items), ratings, *rates]

    def svd_textbook(self) -> list:
        model, users, items, ratings, *rates = self._ratings()
        return [*model, 3.1, users, items, ratings, *rates]

    def _triples(self) -> tuple:
        """Return P, Q and b; the users, positives and negatives of a batch; rate and penalties."""
        n, users = self.n, self._uneven(self.n_users, self.n)
        positives, negatives = self._uneven(self.n_items, 2 * n + 1).split([n, n + 1])
        users, positives = (torch.cat([ids, ids[:1]]) for ids in (users, positives))
        P, Q, _, b = self.model()
        return (P, Q, b), users, positives, negatives, self._rate(4.0), *self.rates(2)

    def bpr_bpr_step(self) -> list:
        found = []
        for spread in (1, 400):  # with biases that differ by hundreds, exp(-x) overflows
            (P, Q, b), users, positives, negatives, *rates = self._triples()
            b *= spread
            likes = self._entries(users, positives)
            if spread > 1:
                b[negatives[0]] = b[int(likes.columns[0])] + 1000
            found.append((P, Q, b, likes, negatives, *rates))
        return found

    def bpr_textbook(self) -> list:
        model, *triples_and_rates = self._triples()
        return [*model, *triples_and_rates]

    def _likes(self) -> sp.csr_matrix:
        dense = (self.real(self.n_users, self.n_items) > 0.6).double()
        dense[1, :] = 0
        dense[:, 2] = 0
        dense[0, 0] = 1
        return sp.csr_matrix(dense.numpy())

    def _blocks(self) -> tuple:
        """Return all entries, in blocks of five columns, and the penalty of each row."""
        from mflib.als import weighted_entries

        rows, width, blocks = self._likes(), 5, []
        rows[0, 0] = -1  # a dislike
        for start in range(0, self.n_items, width):
            columns = slice(start, start + width)
            (block,) = weighted_entries(rows[:, columns], alpha=1.5, dtype=torch.float64)
            blocks.append(block._replace(columns=columns))
        count = torch.from_numpy(rows.getnnz(1)).double()
        return blocks, 0.7 * count.clamp(min=1).sqrt()[:, None]

    def als_over_entries(self) -> list:
        X, Y, *_ = self.model()
        return [self._blocks()[0], X, Y, lambda xy, excess, weighted: weighted - excess * xy**2]

    def als_conjugate_gradient(self) -> list:
        X, Y, *_ = self.model()
        X[1] = 0  # a user without entries, as training starts: the residual is 0
        return [X, Y, *self._blocks(), 1 + self.seed % 3]

    def als_cholesky(self) -> list:
        X, Y, *_ = self.model()
        return [X, Y, *self._blocks()]

    def als_textbook(self) -> list:
        X, Y, *_ = self.model()
        return [X, Y, self._likes(), *(10 * rate for rate in self.rates(2))]

    def warp_first_violations(self) -> list:
        found = []
        for steps in (None, 2):
            scores, rows = self.real(self.n_users, self.n_items), self.ids(self.n_users)
            limits, draws = self.real(self.n) + 1.2, self.ids(self.n_items, self._depth(70))
            scores, limits = in_steps(scores, steps), in_steps(limits, steps)
            found.append((partial(_score_of, scores), rows, limits, draws))
        return found

    def _depth(self, draws: int) -> int:
        return 4 if self.seed == SMALL else draws

    def _search(self) -> tuple:
        """Return five users, their likes, candidates and the weights of ranks."""
        users = torch.randperm(self.n_users, generator=self.rng)[:5]
        likes = (self.real(len(users), self.n_items) > 0.3).nonzero()
        shape = (self._depth(15), len(likes))
        draws = torch.randint(self.n_items, shape, generator=self.rng)
        weights = torch.cat([torch.zeros(1), 1 / torch.arange(1, self.n_items)]).double().cumsum(0)
        return users, likes, draws, weights

    def warp_warp_step(self) -> list:
        found = []
        for steps in (None, 2):
            P, Q = (in_steps(W, steps) for W in self.model()[:2])
            users, likes, draws, weights = self._search()
            known = likes[:, 0] * self.n_items + likes[:, 1]
            lists = [users, known, *likes.T.contiguous(), draws, weights]
            found.append((P, Q, *lists, 0.5, *self.rates(2)))
        return found

    def warp_textbook(self) -> list:
        found = []
        for steps in (None, 2):
            P, Q = (in_steps(W, steps) for W in self.model()[:2])
            users, likes, draws, weights = self._search()
            rows, positives = likes.T.contiguous()
            entries = (np.ones(len(rows)), (users[rows].numpy(), positives.numpy()))
            liked = sp.csr_matrix(entries, (self.n_users, self.n_items))
            search = (liked, users[rows], positives, draws, weights)
            found.append((P, Q, *search, 0.5, *self.rates(2)))
        return found


def in_steps(numbers: torch.Tensor, steps: int | None) -> torch.Tensor:
    """Return multiples of 1 / ``steps``: their products and sums are exact, so scores tie."""
    return numbers if steps is None else (steps * numbers).round() / steps


def _score_of(scores: torch.Tensor, rows: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    return scores[rows, items]


def short_fit(key: str, seed: int) -> dict[str, np.ndarray]:
    """Fit the package's class with a kernel for a few iterations; return the learned arrays.

    The ratings are generated from the seed. They are few, so that a loop over the batch takes
    seconds, too.
    """
    import mflib

    task, _, name = key.partition("/")
    rng = np.random.default_rng(seed)
    n_users, n_items, rank = 60 + seed % 7, 70 + seed % 9, 3
    scores = rng.normal(size=(n_users, rank)) @ rng.normal(size=(rank, n_items))
    ratings = np.clip(np.rint(3.4 + 0.8 * scores), 1, 5) * (rng.random(scores.shape) < 0.35)
    ratings[1] = 0  # in real data, too, some users have nothing to train on
    matrix = sp.csr_matrix(ratings if task == "svd" else (ratings >= 4).astype(float))
    options = SHORT_FIT[task] | RUBRIC[task].lists[name]
    options |= {"dtype": torch.float64, "random_state": seed % 2**30}
    model = getattr(mflib, task.upper())(8, **options)
    model.fit(matrix, show_progress=False)
    return {learned: getattr(model, learned).numpy() for learned in LEARNED}


class Observed(NamedTuple):
    """An output before the call (None for a returned value) and after it."""

    before: np.ndarray | None
    after: np.ndarray


def calls(key: str, seed: int) -> list[list]:
    """Return the arguments of each call; functions of scalars are called several times."""
    task, _, name = key.partition("/")
    made = getattr(Kernels(seed), f"{task}_{name}")()
    return made if isinstance(made[0], tuple) else [made]


def outputs(function: Callable, key: str, seed: int) -> dict[str, Observed]:
    """Call a function; return its changed arguments and results by "seed/call/output".

    An output that is not returned, or is None, has no entry.
    """
    found: dict[str, Observed] = {}
    wanted = OUTPUTS[key]
    for place, arguments in enumerate(calls(key, seed)):
        before = [as_array(arguments[n]).copy() for n in wanted.changed.values()]
        returned = function(*arguments)
        after = [as_array(arguments[n]) for n in wanted.changed.values()]
        pairs: list[tuple[np.ndarray | None, np.ndarray | None]] = [
            *zip(before, after, strict=True)
        ]
        pairs += [(None, value) for value in _returned(returned, len(wanted.returned))]
        for n, (old, new) in enumerate(pairs):
            if new is not None:
                found[f"{seed}/{place}/{n}"] = Observed(old, new)
    return found


def _returned(value: object, how_many: int) -> list[np.ndarray | None]:
    if how_many == 1:
        return [None if value is None else as_array(value)]
    parts = list(value) if isinstance(value, tuple | list | np.ndarray | torch.Tensor) else [value]
    parts = parts if len(parts) == how_many else [None] * how_many
    return [None if part is None else as_array(part) for part in parts]


def as_array(value: object) -> np.ndarray:
    """Convert a result of a student's function, in any form, to an array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        value = value.float() if value.dtype == torch.bfloat16 else value  # numpy has no bfloat16
    array = sp.csr_array(value).toarray() if sp.issparse(value) else np.asarray(value)
    if array.dtype == object:  # fractions, for example
        with suppress(TypeError, ValueError):
            return array.astype(float)
    return array
