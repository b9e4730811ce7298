"""What every factor model shares, with the interface of the library implicit: ``user_items`` is users x items."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm.auto import tqdm

from mflib.sampling import INIT, ORDER, generator

BLOCK = 2**22  # scores held at once; users x items never is
Answer = tuple[np.ndarray, np.ndarray]  # ids, scores
Callback = Callable[[int, float, float], None]  # iteration, elapsed, loss
Epoch = Callable[[int], float]  # iteration -> loss
Ids = ArrayLike | None
Metric = Literal["cosine", "l2"]
ScoresOf = Callable[[slice], Tensor]  # rows of a query -> B x I


@dataclass(eq=False)
class FactorModel:
    """The score of item i for user u is p_u·q_i plus biases; subclasses say how P and Q are found.

    ``fit`` sets ``user_factors`` (U x F), ``item_factors`` (I x F; zero without interactions), ``user_biases`` (U) and
    ``item_biases`` (I), tensors of ``dtype`` on ``device``, the float ``global_bias`` (models without biases have
    zeros), and ``history``, a dict (iteration, loss, seconds) per iteration.
    """

    factors: int = 64
    _: KW_ONLY
    iterations: int = 15
    random_state: int = 0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def fit(self, user_items: sp.spmatrix, show_progress: bool = True, callback: Callback | None = None) -> Self:
        """Learn from ``user_items`` (scipy sparse, U x I, finite; a stored 0 is empty), anew from ``random_state``.

        ``callback(iteration, elapsed, loss)`` follows each iteration, counted from 0, which took ``elapsed`` seconds.
        TypeError: a dense matrix; ValueError: no interactions; FloatingPointError: training diverged.
        """
        sizes = ("factors", "iterations", "batch_size", "max_draws", "cg_steps")
        if wrong := [name for name in sizes if getattr(self, name, 1) < 1]:
            raise ValueError(f"expected at least 1 for {wrong[0]}, got {self!r}")
        user_items = as_csr(user_items)
        if user_items.nnz == 0:
            raise ValueError(f"expected interactions to learn from, got an empty matrix of shape {user_items.shape}")
        self.history = []
        epoch = self._prepare(user_items)
        self._clear_empty(user_items)
        for iteration in progress(range(self.iterations), type(self).__name__, show_progress):
            start = time.perf_counter()
            loss = epoch(iteration)
            seconds = time.perf_counter() - start
            if not (np.isfinite(loss) and self.user_factors.isfinite().all() and self.item_factors.isfinite().all()):
                remedy = "lower the learning rate (ALS: alpha) or raise the regularization"
                raise FloatingPointError(f"{self!r} diverged: loss {loss} in iteration {iteration}; {remedy}")
            self.history.append({"iteration": iteration, "loss": loss, "seconds": seconds})
            if callback:
                callback(iteration, seconds, loss)
        self._clear_empty(user_items)
        return self

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        """Initialise the factors -> the function that runs an iteration and returns its loss."""
        raise NotImplementedError

    def _draw(self, shape: tuple[int, int], std: float) -> None:
        """Normal factors and zero biases. Drawn in float64: float32 draws differ between CPU types."""
        rng = generator(self.random_state, INIT)
        drawn = (std * torch.randn(n, self.factors, generator=rng, dtype=torch.float64) for n in shape)
        self.user_factors, self.item_factors = (W.to(self.device, self.dtype) for W in drawn)
        self.user_biases, self.item_biases = (W.new_zeros(len(W)) for W in (self.user_factors, self.item_factors))
        self.global_bias = 0.0

    def _clear_empty(self, user_items: sp.csr_matrix) -> None:
        self.user_factors[torch.from_numpy(np.diff(user_items.indptr) == 0)] = 0
        self.item_factors[torch.from_numpy(np.diff(user_items.tocsc().indptr) == 0)] = 0

    def scores(self, users: Tensor, P: Tensor | None = None) -> Tensor:
        """Scores of all items for ``users`` (int64, B), whose factors may be given as ``P`` (B x F) -> B x I."""
        P = self.user_factors.index_select(0, users) if P is None else P
        scores = torch.addmm(self.item_biases, P, self.item_factors.T)
        return scores.add_((self.global_bias + self.user_biases.index_select(0, users))[:, None])

    def predict(self, userids: ArrayLike, itemids: ArrayLike) -> np.ndarray:
        """Estimated ratings (SVD) or scores of the pairs (userids[k], itemids[k]) -> n."""
        users, items = self._ids(userids, "user"), self._ids(itemids, "item")
        if len(users) != len(items):
            raise ValueError(f"expected as many users as items, got {len(users)} and {len(items)}")
        products = (self.user_factors.index_select(0, users) * self.item_factors.index_select(0, items)).sum(1)
        biases = self.user_biases.index_select(0, users) + self.item_biases.index_select(0, items)
        return (self.global_bias + biases + products).cpu().numpy()

    def recommend(
        self, userid: ArrayLike, user_items: sp.spmatrix | None, N: int = 10, filter_already_liked_items: bool = True,
        filter_items: Ids = None, recalculate_user: bool = False, items: Ids = None,
    ) -> Answer:  # fmt: skip
        """The N items with the highest scores -> (ids int64, scores), best first, ties by id.

        ``userid``: one id (at most N results) or B of them (B x N results, padded with id -1 and score -inf).
        ``user_items``: a row per given user, the cells that are not to be recommended, if
        ``filter_already_liked_items`` (None will do otherwise). ``filter_items`` are excluded, only ``items`` are
        candidates. ``recalculate_user`` (ALS) finds the factors of users, old or new, from ``user_items``.
        ValueError: rows that do not fit the users; IndexError: ids that do not exist.
        """
        users = self._ids(0 * np.asarray(userid) if recalculate_user else userid, "user")
        if filter_already_liked_items or recalculate_user:
            user_items = as_csr(user_items)
            if user_items.shape != (expected := (len(users), len(self.item_factors))):
                hint = "a row for each given user: pass user_items[userid]"
                raise ValueError(f"expected user_items of shape {expected}, got {user_items.shape}; {hint}")

        def scores(rows: slice) -> Tensor:
            block = self.scores(users[rows], self._fold_in(user_items[rows]) if recalculate_user else None)
            if filter_already_liked_items:
                block[user_items[rows].nonzero()] = -torch.inf
            return block

        return self._ranked(scores, "item", userid, N, filter_items, items)

    def _fold_in(self, user_items: sp.csr_matrix) -> Tensor:
        raise NotImplementedError(f"{self!r} has no formula for new users: expected recalculate_user=False, or ALS")

    def similar_items(
        self, itemid: ArrayLike, N: int = 10, filter_items: Ids = None, items: Ids = None, metric: Metric = "cosine"
    ) -> Answer:
        """The N items nearest to ``itemid``, one id or an array, itself among them -> (ids, similarities), best first:
        the cosine of the factors (0 where one is zero) or, with "l2", the negative Euclidean distance."""
        return self._similar("item", itemid, N, filter_items, items, metric)

    def similar_users(
        self, userid: ArrayLike, N: int = 10, filter_users: Ids = None, users: Ids = None, metric: Metric = "cosine"
    ) -> Answer:
        """The N users nearest to ``userid``; otherwise as ``similar_items``."""
        return self._similar("user", userid, N, filter_users, users, metric)

    def _similar(self, what: str, query: ArrayLike, N: int, without: Ids, only: Ids, metric: str) -> Answer:
        if metric not in ("cosine", "l2"):
            raise ValueError(f"expected the metric 'cosine' or 'l2', got {metric!r}")
        ids, W = self._ids(query, what), getattr(self, f"{what}_factors")
        if metric == "cosine":
            W = W / W.abs().amax(1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)  # squares of tiny factors vanish
            W = torch.nn.functional.normalize(W)

        def similarities(rows: slice) -> Tensor:
            V = W.index_select(0, ids[rows])
            # by products, rounding would put an item at a distance from itself
            return V @ W.T if metric == "cosine" else 0 - torch.cdist(V, W, compute_mode="donot_use_mm_for_euclid_dist")

        return self._ranked(similarities, what, query, N, without, only)

    def _ranked(self, scores: ScoresOf, what: str, query: ArrayLike, N: int, without: Ids, only: Ids) -> Answer:
        """The best N by ``scores(rows of the query)``: trimmed for one query, padded to N for an array."""
        n = len(getattr(self, f"{what}_factors"))
        barred = torch.full((n,), only is not None, device=self.device)
        for ids, bar in ((only, False), (without, True)):
            if ids is not None:
                barred[self._ids(ids, what)] = bar
        size, blocks = max(1, BLOCK // n), []
        for start in range(0, max(1, np.size(query)), size):
            block = scores(slice(start, start + size))
            block[:, barred] = -torch.inf
            blocks.append(top(block, N))
        ids, best = (torch.cat(parts).cpu().numpy() for parts in zip(*blocks, strict=True))
        ids[np.isneginf(best)] = -1
        if np.ndim(query) == 0:
            return ids[0][ids[0] >= 0], best[0][ids[0] >= 0]
        room = ((0, 0), (0, N - ids.shape[1]))
        return np.pad(ids, room, constant_values=-1), np.pad(best, room, constant_values=-np.inf)

    def _ids(self, ids: ArrayLike, what: str) -> Tensor:
        """Checked ids (one or an array) -> int64, n."""
        if not hasattr(self, "item_factors"):
            raise RuntimeError(f"expected a fitted model, got {self!r}; call fit(user_items) first")
        n, ids = len(getattr(self, f"{what}_factors")), np.atleast_1d(np.asarray(ids))
        if ids.ndim > 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise TypeError(f"expected one {what} id or an array of them, got {ids.dtype} of shape {ids.shape}")
        if ids.size and (ids.min() < 0 or ids.max() >= n):
            hint = "ids are contiguous: userid() and itemid() of the data translate"
            raise IndexError(f"expected {what} ids from 0 to {n - 1}, got {ids.min()} to {ids.max()}; {hint}")
        return torch.from_numpy(ids.astype(np.int64)).to(self.device)

    def save(self, file: str | os.PathLike) -> None:
        """Write everything to ``file``, whole or not at all."""
        self._ids([], "item")
        with tempfile.TemporaryDirectory(dir=Path(file).parent, prefix=".saving-") as folder:
            plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in vars(self).items()}  # no numpy scalars
            torch.save({"class": type(self).__name__} | plain, Path(folder) / "model")
            os.replace(Path(folder) / "model", file)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Self:
        """Read what ``save`` wrote; data only, nothing in the file is executed."""
        state = torch.load(file, weights_only=True)
        if (saved := state.pop("class")) != cls.__name__:
            raise ValueError(f"expected a saved {cls.__name__} in {file}, got {saved}: read it with {saved}.load")
        model = cls()
        vars(model).update(state)
        return model


@dataclass(eq=False, kw_only=True)
class Popularity(FactorModel):
    """Everybody is recommended what most users have: the baseline of every table. F = 1, all zero."""

    factors: int = 1
    iterations: int = 1

    def _prepare(self, user_items: sp.csr_matrix) -> Epoch:
        self._draw(user_items.shape, std=0.0)
        self.item_biases += torch.from_numpy((user_items > 0).sum(0).A1).to(self.device)
        return lambda iteration: 0.0


def sgd(model: FactorModel, n: int, step: Callable[[Tensor, float, torch.Generator], Tensor]) -> Epoch:
    """Epochs of ``step(rows, learning_rate, rng)`` over minibatches (int64, B) of the rows 0 … n-1.

    It returns losses, of which the epoch returns the mean. ``model.decay`` lowers the learning rate after each epoch.
    """
    rng = generator(model.random_state, ORDER)

    def epoch(iteration: int) -> float:
        rate = model.learning_rate * model.decay**iteration
        losses = torch.cat([step(rows, rate, rng) for rows in torch.randperm(n, generator=rng).split(model.batch_size)])
        return losses.sum(dtype=torch.float64).item() / max(1, len(losses))

    return epoch


def as_csr(user_items: sp.spmatrix) -> sp.csr_matrix:
    """A checked copy in canonical form: float CSR, sorted, duplicates summed, without stored zeros."""
    if not sp.issparse(user_items):
        got = type(user_items).__name__
        raise TypeError(f"expected a scipy sparse matrix, users x items, got {got}; scipy.sparse.csr_matrix makes one")
    dtype = np.float64 if user_items.dtype == np.float64 else np.float32
    rows = user_items.reshape(1, -1) if user_items.ndim == 1 else user_items  # a row of a sparse array
    csr = sp.csr_matrix(rows, dtype=dtype, copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    if not np.isfinite(csr.data).all():
        raise ValueError("expected finite values in user_items, got NaN or infinity; leave unknown cells out instead")
    return csr


def interactions(user_items: sp.csr_matrix) -> tuple[Tensor, Tensor]:
    """The (user, item) ids of all stored cells, row by row -> int64, n each."""
    return tuple(torch.from_numpy(ids.astype(np.int64)) for ids in user_items.tocoo().coords)


def top(scores: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """The N highest scores of each row (B x I) -> (ids, scores), B x min(N, I); ties by id."""
    if N < 1:
        raise ValueError(f"expected N of at least 1, got {N}")
    values, ids = scores.topk(N := min(N, scores.shape[1]))
    # topk takes any of several equal scores; the rows where that changes the set are sorted instead
    tied = ((scores >= values[:, -1:]).sum(1) > N).nonzero()[:, 0]
    ids[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :N]
    ids = ids.sort(1).values
    values, order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), values


def progress(iterable: Iterable, description: str, show: bool = True) -> tqdm:
    """The one progress bar. MFLIB_PROGRESS=0 switches it off: TQDM_DISABLE does not in a kernel."""
    return tqdm(iterable, description, disable=not show or os.environ.get("MFLIB_PROGRESS") == "0")
