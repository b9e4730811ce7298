"""FactorModel: fit, predict, recommend, similar items and users, save, load."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.inputs import (
    Ids,
    Seed,
    UserItems,
    as_csr,
    as_ids,
    available_device,
    float_dtype,
    positive_int,
    seed_of,
    seed_or_generator,
    transposed_hint,
)
from mflib.ranking import Metric, Ranking, admitted, best, similarities, without_padding
from mflib.sampling import INIT, generator
from mflib.sparse import row_blocks
from mflib.training import available_threads, ensure_finite, progress, torch_settings

Callback: TypeAlias = Callable[[int, float, float], object]  # iteration, seconds, loss
File: TypeAlias = str | os.PathLike | IO[bytes]
Side: TypeAlias = Literal["user", "item"]
LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases", "global_bias")


@dataclass(eq=False)
class FactorModel:
    """Base class: the score of item i for user u is p_u·q_i plus biases.

    The API follows the library ``implicit``. To add a model, write a subclass with the decorator
    ``@dataclass(eq=False, kw_only=True)``; its fields are the parameters. It implements

    - ``_start``, which initialises the factors and returns the iterations; with SGD, it returns
      ``training.epochs`` and implements ``_step``;
    - ``_validate``, if it has parameters of its own;
    - ``_attributes`` and ``_scores``, if it learns more than factors and biases;
    - ``_fold_in``, if it can compute the factors of new users or items.

    Parameters
    ----------
    factors : int
        F, the length of the vectors p_u and q_i.
    iterations : int
        The number of passes over the interactions.
    random_state : int, numpy generator or None
        The seed. None uses a new seed for each ``fit``; a numpy generator draws one.
    dtype : torch.float32 or torch.float64
        The type of the factors; numpy types and names are accepted.
    device : str
        Where the factors live, "cpu" or "cuda".

    Attributes
    ----------
    user_factors, item_factors : tensors, shapes (U, F) and (I, F)
        P and Q. A row without interactions starts at zero.
    user_biases, item_biases : tensors, shapes (U,) and (I,)
        Zero in models without biases.
    global_bias : float
    history : list of dict
        iteration, loss and seconds of each finished iteration. The loss is the mean over the epoch
        without the penalty (SVD, BPR, WARP), or the objective (ALS).
    seed : int
        The seed that the last ``fit`` used.
    """

    factors: int = 64
    _: KW_ONLY
    iterations: int = 15
    random_state: Seed = 0
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._validate()

    def _validate(self) -> None:
        """Check all parameters and convert them to their types; raise ValueError if invalid."""
        self.factors = positive_int("factors", self.factors)
        self.iterations = positive_int("iterations", self.iterations)
        self.random_state = seed_or_generator("random_state", self.random_state)
        self.dtype = float_dtype("dtype", self.dtype)
        self.device = available_device("device", self.device)

    # --- training -------------------------------------------------------------------------------

    def fit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        callback: Callback | None = None,
    ) -> Self:
        """Learn the factors from interactions, from scratch at each call.

        If training is interrupted (KeyboardInterrupt) or stopped by the callback, the model keeps
        the result of the last finished iteration, and ``history`` has one entry for each finished
        iteration. If none has finished, or after any other error, the model is unchanged. The
        KeyboardInterrupt is raised again, so ``model = ALS().fit(likes)`` assigns nothing then; to
        keep the work, write ``model = ALS()`` and ``model.fit(likes)``.

        Parameters
        ----------
        user_items : scipy sparse matrix, shape (U, I)
            Finite values; a stored 0 is an empty entry. In SVD, values are ratings. In ALS, they
            are confidences, negative for dislikes. In the other models, values > 0 are likes.
        show_progress : bool
            Whether to show a progress bar.
        callback : callable, optional
            Called as ``callback(iteration, seconds, loss)`` after each iteration, counted from 0.
            Returning True stops the training. The callback may read the model but must copy what it
            wants to keep: the next iteration changes the factors in place.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            The matrix is dense.
        ValueError
            There is nothing to learn from, or a parameter has an invalid value.
        FloatingPointError
            The training diverged.
        RuntimeError
            The model is already being fitted, by another thread or by the caller of the callback.
        """
        self._validate()
        matrix = as_csr(user_items)
        if matrix.nnz == 0:
            got = f"an empty matrix of shape {matrix.shape}"
            raise ValueError(f"expected interactions to learn from, got {got}")
        return self._train(lambda threads: self._start(matrix, threads), show_progress, callback)

    def _train(
        self,
        start: Callable[[int], Iterator[float]],
        show_progress: bool,
        callback: Callback | None,
    ) -> Self:
        """Run the training loop of ``fit``.

        ``start(threads)`` calls ``_start`` with the data. It may append iterations that an earlier
        run has completed to ``history``.
        """
        threads = available_threads()
        with _exclusive(self):
            before = vars(self).copy()  # shallow: training creates new tensors
            finished: dict[str, Any] = {}
            try:
                self.seed = seed_of(self.random_state)
                self.history: list[dict[str, float]] = []
                with torch_settings(self.device):
                    training = start(threads)
                remaining = range(len(self.history), self.iterations)
                for iteration in progress(remaining, type(self).__name__, show_progress):
                    since = time.perf_counter()
                    with torch_settings(self.device):
                        loss = next(training)
                        ensure_finite(self, loss, iteration)
                        seconds = time.perf_counter() - since
                        done = {"iteration": iteration, "loss": loss, "seconds": seconds}
                        self.history.append(done)
                        finished = self._snapshot()
                    stop = callback(iteration, seconds, loss) if callback else False
                    if isinstance(stop, bool | np.bool_) and stop:
                        break
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt) and finished
                vars(self).clear()
                vars(self).update(finished if interrupted else before)
                raise
        return self

    def _snapshot(self) -> dict[str, Any]:
        """Return the attributes, with copies of those that training changes in place."""
        copies = {
            name: value.clone() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return vars(self) | copies | {"history": self.history.copy()}

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        """Check the data, initialise the factors and return an endless iterator.

        Each ``next()`` runs one more iteration and yields its loss. Torch is limited to one thread,
        but up to ``threads`` Python threads may be used.
        """
        raise NotImplementedError

    def _initialise(self, user_items: sp.csr_matrix, std: float) -> None:
        """Draw normal factors, except for zero rows where there are no entries, and zero biases."""
        self._initialise_rows(user_items.getnnz(1), user_items.getnnz(0), std)

    def _initialise_rows(
        self, user_counts: np.ndarray, item_counts: np.ndarray, std: float
    ) -> None:
        """Initialise the model, given the number of entries of each user and of each item."""
        rng = generator(self.seed, INIT)
        factors, biases = [], []
        for counts in (user_counts, item_counts):
            # In float64, because float32 draws differ between types of CPU.
            shape = (len(counts), self.factors)
            W = torch.randn(shape, generator=rng, dtype=torch.float64, device="cpu").mul_(std)
            W[torch.from_numpy(counts == 0)] = 0
            factors.append(W.to(self.device, self.dtype))
            biases.append(factors[-1].new_zeros(len(counts)))
        self.user_factors, self.item_factors = factors
        self.user_biases, self.item_biases = biases
        self.global_bias = 0.0

    # --- scores ---------------------------------------------------------------------------------

    def scores(self, users: Ids) -> Tensor:
        """Return the scores of all items.

        Parameters
        ----------
        users : array or tensor of B ids

        Returns
        -------
        tensor, shape (B, I)
        """
        ids = self._ids(users, "user")
        with torch_settings(ids.device):
            return self._scores(
                self.user_factors.index_select(0, ids), self.user_biases.index_select(0, ids)
            )

    def _scores(self, P: Tensor, user_biases: Tensor) -> Tensor:
        scores = torch.addmm(self.item_biases, P, self.item_factors.T)
        return scores.add_((self.global_bias + user_biases)[:, None])

    def predict(self, userids: Ids, itemids: Ids) -> np.ndarray:
        """Return estimated ratings (SVD) or scores of user-item pairs.

        Parameters
        ----------
        userids, itemids : n ids each
            The pairs (userids[k], itemids[k]).

        Returns
        -------
        array, shape (n,)

        Raises
        ------
        ValueError
            The numbers of users and items differ.
        IndexError
            An id does not exist.
        """
        users, items = self._ids(userids, "user"), self._ids(itemids, "item")
        if len(users) != len(items):
            got = f"{len(users)} and {len(items)}"
            raise ValueError(f"expected as many users as items, got {got}")
        scores = []
        with torch_settings(users.device):
            for block in row_blocks(len(users), numbers_per_row=3 * self.item_factors.shape[1]):
                u, i = users[block], items[block]
                p, q = self.user_factors.index_select(0, u), self.item_factors.index_select(0, i)
                biases = self.user_biases.index_select(0, u) + self.item_biases.index_select(0, i)
                scores.append(self.global_bias + biases + (p * q).sum(1))
        return torch.cat(scores).cpu().numpy()

    # --- recommendations and neighbours ---------------------------------------------------------

    def recommend(
        self,
        userid: Ids,
        user_items: UserItems | None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Ids | None = None,
        recalculate_user: bool = False,
        items: Ids | None = None,
    ) -> Ranking:
        """Return the N highest-scoring items for one or several users.

        Parameters
        ----------
        userid : int or B ids
        user_items : scipy sparse matrix, shape (B, I), or None
            The interactions of the given users, a row for each. Needed by
            ``filter_already_liked_items`` and ``recalculate_user``.
        N : int
        filter_already_liked_items : bool
            Leave out all stored entries of ``user_items``, including dislikes.
        filter_items : ids, optional
            Items to leave out.
        recalculate_user : bool
            Compute the factors of the users from ``user_items``; the users may be new (ALS only).
        items : ids, optional
            Rank only these items.

        Returns
        -------
        ids, scores : int32 array and array of ``dtype``
            Best first; ties go to the lowest id. For one user, shape (n,) with n <= N. For B users,
            shape (B, min(N, I)), padded with id -1 and score -inf.

        Raises
        ------
        ValueError
            ``user_items`` does not have one row for each user, or N is not a whole number >= 1.
        IndexError
            An id does not exist.
        NotImplementedError
            ``recalculate_user`` is set and the model does not support it.
        """
        users = self._ids(userid, "user", new=recalculate_user)
        if filter_already_liked_items or recalculate_user:
            known = self._checked_rows(user_items, len(users), "user")
        else:
            known = sp.csr_matrix((len(users), len(self.item_factors)))

        def scores_of(block: slice) -> Tensor:
            if recalculate_user:
                P = self._fold_in(known[block], "user")
                scores = self._scores(P, P.new_zeros(len(P)))  # a new user has no bias
            else:
                scores = self.scores(users[block])
            if filter_already_liked_items:
                rows, columns = (torch.from_numpy(ids) for ids in known[block].nonzero())
                scores[rows.to(scores.device), columns.to(scores.device)] = -torch.inf
            return scores

        mask = admitted(len(self.item_factors), "item", filter_items, items)
        ranking = best(scores_of, len(users), N, mask.to(users.device))
        return without_padding(ranking) if np.ndim(userid) == 0 else ranking

    def similar_items(
        self,
        itemid: Ids,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: UserItems | None = None,
        filter_items: Ids | None = None,
        items: Ids | None = None,
        metric: Metric = "cosine",
    ) -> Ranking:
        """Return the N items with the most similar factors; the item itself comes first.

        Parameters
        ----------
        itemid : int or B ids
        N : int
        recalculate_item : bool
            Compute the factors of the items from ``item_users``; the items may be new (ALS only).
        item_users : scipy sparse matrix, shape (B, U), optional
            The users who like the given items, a row for each item.
        filter_items : ids, optional
            Items to leave out.
        items : ids, optional
            Rank only these items.
        metric : {"cosine", "l2"}
            The cosine of the factors (0 where one of them is zero), or the negative Euclidean
            distance.

        Returns
        -------
        ids, similarities
            See ``recommend``.

        Raises
        ------
        ValueError
            The metric is unknown, N is not a whole number >= 1, or ``item_users`` does not have one
            row for each item.
        IndexError
            An id does not exist.
        NotImplementedError
            ``recalculate_item`` is set and the model does not support it.
        """
        rows = None
        if recalculate_item:
            count = len(self._ids(itemid, "item", new=True))
            rows = self._checked_rows(item_users, count, "item")
        return self._similar("item", itemid, N, rows, filter_items, items, metric)

    def similar_users(
        self,
        userid: Ids,
        N: int = 10,
        filter_users: Ids | None = None,
        users: Ids | None = None,
        metric: Metric = "cosine",
    ) -> Ranking:
        """Return the N users with the most similar factors; see ``similar_items``."""
        return self._similar("user", userid, N, None, filter_users, users, metric)

    def _similar(
        self,
        side: Side,
        query: Ids,
        N: int,
        rows: sp.csr_matrix | None,
        excluded: Ids | None,
        only: Ids | None,
        metric: Metric,
    ) -> Ranking:
        ids, factors = self._ids(query, side, new=rows is not None), self._factors(side)

        def similarities_of(block: slice) -> Tensor:
            if rows is not None:
                return similarities(self._fold_in(rows[block], side), factors, metric)
            queries = ids[block]
            values = similarities(factors.index_select(0, queries), factors, metric)
            # The query comes first, even if rounding puts another item closer than itself.
            values[torch.arange(len(queries), device=queries.device), queries] = torch.inf
            return values

        mask = admitted(len(factors), side, excluded, only).to(ids.device)
        ranked, values = best(similarities_of, len(ids), N, mask)
        if rows is None:  # the similarity of a query to itself
            one = factors.index_select(0, ids).any(1) if metric == "cosine" else 0 * ids
            itself = one.to("cpu", factors.dtype).numpy()
            values = np.where(np.isposinf(values), itself[:, None], values)
        return without_padding((ranked, values)) if np.ndim(query) == 0 else (ranked, values)

    def _fold_in(self, rows: sp.csr_matrix, side: Side) -> Tensor:
        """Return the factors of users (or items) with the interactions ``rows``."""
        option = f"recalculate_{side}"
        raise NotImplementedError(
            f"expected {option}=False or an ALS model, got {self!r}, which cannot compute "
            f"factors of new {side}s"
        )

    def _factors(self, side: Side) -> Tensor:
        if not hasattr(self, "item_factors"):
            raise RuntimeError(f"expected a fitted model, got {self!r}; call fit(user_items) first")
        return self.user_factors if side == "user" else self.item_factors

    def _ids(self, ids: Ids, side: Side, new: bool = False) -> Tensor:
        """Return validated ids (int64, shape (n,)); with ``new`` they need not exist."""
        factors = self._factors(side)
        checked = as_ids(ids, side, None if new else len(factors))
        return torch.from_numpy(checked).to(factors.device)

    def _checked_rows(self, matrix: UserItems | None, n: int, side: Side) -> sp.csr_matrix:
        """Return the validated interactions of n users (or items), a row for each."""
        other: Side = "item" if side == "user" else "user"
        name = f"{side}_{other}s"
        if matrix is None:
            hint = f"pass {name}[{side}id]"
            if side == "user":
                hint += " or filter_already_liked_items=False"
            raise ValueError(f"expected {name}, got None; {hint}")
        rows = as_csr(matrix)
        if rows.shape != (expected := (n, len(self._factors(other)))):
            hint = f"a row for each given {side}: pass {name}[{side}id]"
            fitted = (len(self._factors(side)), len(self._factors(other)))
            hint += transposed_hint(rows.shape, expected, fitted)
            raise ValueError(f"expected {name} of shape {expected}, got {rows.shape}; {hint}")
        return rows

    # --- files ----------------------------------------------------------------------------------

    def save(self, file: File) -> None:
        """Write the model to a path, atomically, or to a binary file object.

        Raises
        ------
        RuntimeError
            The model is not fitted.
        TypeError
            The model has attributes that its class does not define.
        OSError
            The file cannot be written.
        """
        self._factors("item")
        self._validate()  # converts numpy numbers set since fit, which ``load`` would refuse
        if unknown := vars(self).keys() - self._attributes():
            got = sorted(unknown)
            raise TypeError(f"expected only attributes of {type(self).__name__}, also got {got}")
        state = {"class": type(self).__name__} | vars(self)
        if isinstance(self.random_state, np.random.Generator | np.random.RandomState):
            state["random_state"] = self.seed  # a generator cannot be saved as data
        if isinstance(file, str | os.PathLike):
            write_atomically(state, file)
        else:
            torch.save(state, file)

    @classmethod
    def _attributes(cls) -> set[str]:
        """Return the names of the attributes of a fitted model: parameters and learned values."""
        return {field.name for field in fields(cls)} | {*LEARNED, "history", "seed"}

    @classmethod
    def load(cls, file: File, device: str | torch.device = "cpu") -> Self:
        """Read a model that ``save`` wrote, without executing code from the file.

        Parameters
        ----------
        file : path or binary file object
        device : str
            Where to put the factors, regardless of the device they were saved from.

        Raises
        ------
        ValueError
            The file does not hold a complete model of this class, or the device is not available.
        """
        device = available_device("device", device)
        expected = f"expected a saved {cls.__name__} in {file}"
        state = read_state(file, device, marker="class", expected=expected)
        if (saved := state.pop("class")) != cls.__name__:
            raise ValueError(f"{expected}, got {saved}: read it with {saved}.load")
        if difference := state.keys() ^ cls._attributes():
            raise ValueError(f"{expected}, got missing or unknown attributes: {sorted(difference)}")
        model = cls.__new__(cls)
        vars(model).update(state | {"device": device})
        try:
            model._validate()
            model._validate_learned()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{expected}, got invalid values: {error}") from error
        return model

    def _validate_learned(self) -> None:
        """Raise ValueError if the types and shapes of the learned values do not fit together."""
        for side in ("user", "item"):
            W, b = getattr(self, f"{side}_factors"), getattr(self, f"{side}_biases")
            if not all(isinstance(value, Tensor) for value in (W, b)):
                raise ValueError(f"expected tensors as {side} factors and biases, got {type(W)}")
            expected = (len(W), self.factors), (len(W),), self.dtype, self.dtype
            if (got := (tuple(W.shape), tuple(b.shape), W.dtype, b.dtype)) != expected:
                raise ValueError(f"expected {side} factors and biases like {expected}, got {got}")
        if not (isinstance(self.global_bias, float) and isinstance(self.history, list)):
            raise ValueError("expected a float as global_bias and a list as history")


_fitting: set[int] = set()
_lock = threading.Lock()


@contextmanager
def _exclusive(model: FactorModel) -> Iterator[None]:
    """Raise RuntimeError if the model is already being fitted."""
    with _lock:
        if id(model) in _fitting:
            hint = "create a second model"
            raise RuntimeError(f"expected one fit of a model at a time, got another one; {hint}")
        _fitting.add(id(model))
    try:
        yield
    finally:
        _fitting.discard(id(model))


def write_atomically(state: dict[str, Any], file: str | os.PathLike) -> None:
    """Save ``state`` to a path, completely or not at all; a symbolic link keeps its target."""
    target = Path(file).resolve()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving-") as folder:
        write_state(state, Path(folder) / "model")
        os.replace(Path(folder) / "model", target)


def write_state(state: dict[str, Any], file: Path) -> None:
    """Save ``state`` to a path; raise OSError if there is no room for it."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # how torch reports a full disk
        raise OSError(f"cannot write {file}: is the disk full?") from error


def read_state(
    file: File, device: str | torch.device, marker: str, expected: str
) -> dict[str, Any]:
    """Read a dict with the key ``marker`` that ``write_state`` wrote.

    ValueError, starting with ``expected``, is raised for any other content.
    """
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (OSError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # torch raises many types on files it did not write
        raise ValueError(f"{expected}, got a damaged file or another format") from error
    if not isinstance(state, dict) or marker not in state:
        raise ValueError(f"{expected}, got {type(state).__name__} without the key {marker!r}")
    return state
