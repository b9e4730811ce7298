"""What every factor model shares, in the dialect of the library implicit."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from mflib.matrices import Ids, UserItems, as_csr, as_ids, row_blocks, transposed_hint
from mflib.parameters import Device, Dtype, RandomState, Size, normalise
from mflib.ranking import Answer, Metric, best, candidates, nearness, trimmed
from mflib.sampling import INIT, generator, seed_of
from mflib.threads import one_thread, usable
from mflib.training import ensure_finite, progress

Callback = Callable[[int, float, float], None]  # iteration, elapsed, loss
File = str | os.PathLike | IO[bytes]
Side = Literal["user", "item"]


def write_whole(state: dict[str, Any], file: str | os.PathLike) -> None:
    """Save ``state`` to a path, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=Path(file).parent, prefix=".saving-") as folder:
        write(state, Path(folder) / "model")
        os.replace(Path(folder) / "model", file)


def write(state: dict[str, Any], file: Path) -> None:
    """Save ``state`` to a path; OSError where there is no room for it."""
    try:
        torch.save(state, file)
    except RuntimeError as error:  # as torch calls a full disk
        raise OSError(f"cannot write {file}: is there room on its disk?") from error


def read_whole(
    file: File, device: str | torch.device, marked: str, expected: str
) -> dict[str, Any]:
    """A state that was saved with an entry ``marked``; ValueError, from ``expected`` on, if not."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds on what it has not written
        raise ValueError(f"{expected}, got what is no model, or a part of one") from error
    if not isinstance(state, dict) or marked not in state:
        raise ValueError(f"{expected}, got {type(state).__name__} of something else")
    return state


@dataclass(eq=False)
class FactorModel:
    """The score of item i for user u is p_u·q_i plus biases; subclasses say how these are learned.

    Parameters
    ----------
    factors
        The length F of the vectors p_u and q_i.
    iterations
        How often ``fit`` goes through the interactions.
    random_state
        The seed; None takes another for each ``fit``, a numpy generator draws one.
    dtype
        float32 or float64, as torch or as numpy names it.
    device
        Where the factors live, "cpu" or "cuda".

    Attributes
    ----------
    user_factors, item_factors
        P and Q, tensors of ``dtype``, U x F and I x F. A row without interactions starts at zero.
    user_biases, item_biases, global_bias
        Tensors of ``dtype``, U and I, and a float; zeros in models without biases.
    history
        A list of dicts (iteration, loss, seconds), one for each iteration. The loss is the mean of
        an epoch's losses without the penalty (SVD, BPR, WARP) or the objective (ALS).
    seed
        The seed that the last ``fit`` took from ``random_state``.
    """

    factors: Size = 64
    _: KW_ONLY
    iterations: Size = 15
    random_state: RandomState = 0
    dtype: Dtype = torch.float32
    device: Device = "cpu"

    def __post_init__(self) -> None:
        normalise(self)

    def fit(
        self,
        user_items: UserItems,
        show_progress: bool = True,
        callback: Callback | None = None,
    ) -> Self:
        """Learn from interactions, anew at each call.

        After an error or an interruption the model is as it was before the call (but a numpy
        generator that was given as ``random_state`` has moved on).

        Parameters
        ----------
        user_items
            Scipy sparse matrix, U x I, finite; a stored 0 is an empty cell. Values are ratings
            (SVD), confidences, below 0 of dislikes (ALS), or likes where above 0 (the others).
        show_progress
            Whether to show a bar.
        callback
            Called as ``callback(iteration, elapsed, loss)`` after each iteration, counted from 0,
            which took ``elapsed`` seconds. What it finds in the model after the last one is what
            ``fit`` returns; to keep what it finds earlier, it must copy.

        Raises
        ------
        TypeError
            The matrix is dense.
        ValueError
            There is nothing to learn from, or an attribute has no admitted value.
        FloatingPointError
            The training diverged.
        """
        normalise(self)
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
        """The loop of ``fit``. ``start(threads)`` is ``_start`` with its data.

        Iterations that it finds done, it puts into ``history``.
        """
        threads = usable()
        before = vars(self).copy()  # shallow: training makes new tensors, it never updates old ones
        try:
            self.seed = seed_of(self.random_state)
            self.history: list[dict[str, float]] = []
            with one_thread():
                training = start(threads)
            left = range(len(self.history), self.iterations)
            for iteration in progress(left, type(self).__name__, show_progress):
                since = time.perf_counter()
                with one_thread():
                    loss = next(training)
                    ensure_finite(self, loss, iteration)
                elapsed = time.perf_counter() - since
                self.history.append({"iteration": iteration, "loss": loss, "seconds": elapsed})
                if callback:
                    callback(iteration, elapsed, loss)
        except BaseException:  # KeyboardInterrupt is no Exception
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    def _start(self, user_items: sp.csr_matrix, threads: int) -> Iterator[float]:
        """Check the data and initialise the factors -> an iterator without end.

        Each value taken from it runs one more iteration and is its loss. Torch is set to one
        thread meanwhile; ``threads``: how many Python threads may be used instead.
        """
        raise NotImplementedError

    def _initialise(self, user_items: sp.csr_matrix, std: float) -> None:
        """Normal factors, zero where ``user_items`` has nothing, and zero biases."""
        self._initialise_rows(user_items.getnnz(1), user_items.getnnz(0), std)

    def _initialise_rows(self, of_users: np.ndarray, of_items: np.ndarray, std: float) -> None:
        """``_initialise`` from the numbers of cells of all users and items."""
        rng = generator(self.seed, INIT)
        factors, biases = [], []
        for count in (of_users, of_items):
            # in float64, as float32 draws differ between types of CPU
            W = torch.randn(len(count), self.factors, generator=rng, dtype=torch.float64).mul_(std)
            W[torch.from_numpy(count == 0)] = 0
            factors.append(W.to(self.device, self.dtype))
            biases.append(factors[-1].new_zeros(len(count)))
        self.user_factors, self.item_factors = factors
        self.user_biases, self.item_biases = biases
        self.global_bias = 0.0

    def scores(self, users: Tensor) -> Tensor:
        """The scores of all items.

        Parameters
        ----------
        users
            int64 tensor of B ids.

        Returns
        -------
        Tensor of ``dtype``, B x I.
        """
        P, biases = self._factors("user"), self.user_biases
        return self._scores(P.index_select(0, users), biases.index_select(0, users))

    def _scores(self, P: Tensor, user_biases: Tensor) -> Tensor:
        scores = torch.addmm(self.item_biases, P, self.item_factors.T)
        return scores.add_((self.global_bias + user_biases)[:, None])

    def _scores_of_pairs(self, users: Tensor, items: Tensor) -> Tensor:
        p, q = self.user_factors.index_select(0, users), self.item_factors.index_select(0, items)
        b_u, b_i = self.user_biases.index_select(0, users), self.item_biases.index_select(0, items)
        return self.global_bias + (b_u + b_i) + (p * q).sum(1)

    def predict(self, userids: Ids, itemids: Ids) -> np.ndarray:
        """Estimated ratings (SVD) or scores of pairs.

        Parameters
        ----------
        userids, itemids
            n ids each: the pairs (userids[k], itemids[k]).

        Returns
        -------
        Array of ``dtype``, n.

        Raises
        ------
        ValueError
            There are not as many users as items.
        IndexError
            An id does not exist.
        """
        users, items = self._ids(userids, "user"), self._ids(itemids, "item")
        if len(users) != len(items):
            got = f"{len(users)} and {len(items)}"
            raise ValueError(f"expected as many users as items, got {got}")
        blocks = row_blocks(len(users), numbers_per_row=3 * len(self.item_factors.T))
        found = [self._scores_of_pairs(users[block], items[block]) for block in blocks]
        return torch.cat(found).cpu().numpy()

    def recommend(
        self,
        userid: Ids,
        user_items: UserItems | None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Ids | None = None,
        recalculate_user: bool = False,
        items: Ids | None = None,
    ) -> Answer:
        """The N items with the highest scores.

        Parameters
        ----------
        userid
            One id, or B of them.
        user_items
            Scipy sparse matrix with a row for each given user, B x I: what the user has already.
            None will do if neither of the two options that ask for it is true.
        filter_already_liked_items
            Leave out the cells of ``user_items``, disliked ones, too.
        filter_items
            Items to be left out.
        recalculate_user
            Find the factors of the users from ``user_items``; they may be new (ALS only).
        items
            The only items to be ranked.

        Returns
        -------
        ids, scores
            int32 and ``dtype``, best first, of equals the lowest id first: of one user N or as many
            as there are, of B users B x N, filled with id -1 and score -inf.

        Raises
        ------
        ValueError
            The rows of ``user_items`` are not those of the users, or N is no size.
        IndexError
            An id does not exist.
        NotImplementedError
            ``recalculate_user``, where the model has no formula for it.
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
                scores[known[block].nonzero()] = -torch.inf
            return scores

        admitted = candidates(len(self.item_factors), "item", filter_items, items)
        answer = best(scores_of, len(users), N, admitted)
        return trimmed(answer) if np.ndim(userid) == 0 else answer

    def similar_items(
        self,
        itemid: Ids,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: UserItems | None = None,
        filter_items: Ids | None = None,
        items: Ids | None = None,
        metric: Metric = "cosine",
    ) -> Answer:
        """The N items whose factors are nearest, the item itself among them.

        Parameters
        ----------
        itemid
            One id, or B of them.
        recalculate_item
            Find the factors of the items from ``item_users``; they may be new (ALS only).
        item_users
            Scipy sparse matrix with a row for each given item, B x U: who likes it.
        filter_items, items
            Items to be left out; the only items to be ranked.
        metric
            "cosine" of the factors (0 where one is zero), or "l2", the negative Euclidean distance.

        Returns
        -------
        ids, similarities
            As of ``recommend``.

        Raises
        ------
        ValueError
            Another metric, N no size, or rows of ``item_users`` that are not those of the items.
        IndexError
            An id does not exist.
        NotImplementedError
            ``recalculate_item``, where the model has no formula for it.
        """
        rows = None
        if recalculate_item:
            rows = self._checked_rows(item_users, len(self._ids(itemid, "item", new=True)), "item")
        return self._similar("item", itemid, N, rows, filter_items, items, metric)

    def similar_users(
        self,
        userid: Ids,
        N: int = 10,
        filter_users: Ids | None = None,
        users: Ids | None = None,
        metric: Metric = "cosine",
    ) -> Answer:
        """The N users whose factors are nearest; otherwise as ``similar_items``."""
        return self._similar("user", userid, N, None, filter_users, users, metric)

    def _similar(
        self,
        side: Side,
        query: Ids,
        N: int,
        rows: sp.csr_matrix | None,
        without: Ids | None,
        only: Ids | None,
        metric: Metric,
    ) -> Answer:
        ids, factors = self._ids(query, side, new=rows is not None), self._factors(side)

        def similarities(block: slice) -> Tensor:
            if rows is None:
                vectors = factors.index_select(0, ids[block])
            else:
                vectors = self._fold_in(rows[block], side)
            return nearness(vectors, factors, metric)

        admitted = candidates(len(factors), side, without, only)
        answer = best(similarities, len(ids), N, admitted)
        return trimmed(answer) if np.ndim(query) == 0 else answer

    def _fold_in(self, rows: sp.csr_matrix, side: Side) -> Tensor:
        """The factors of users (or items) with the interactions ``rows``, given the other side."""
        option = f"recalculate_{side}"
        raise NotImplementedError(
            f"{self!r} has no formula for new {side}s: expected {option}=False, or ALS"
        )

    def _factors(self, side: Side) -> Tensor:
        if not hasattr(self, "item_factors"):
            raise RuntimeError(f"expected a fitted model, got {self!r}; call fit(user_items) first")
        return self.user_factors if side == "user" else self.item_factors

    def _ids(self, ids: Ids, side: Side, new: bool = False) -> Tensor:
        """Checked ids (int64, n); those of ``new`` users or items may be any."""
        existing = len(self._factors(side))
        return torch.from_numpy(as_ids(ids, side, None if new else existing)).to(self.device)

    def _checked_rows(self, matrix: UserItems | None, n: int, side: Side) -> sp.csr_matrix:
        """The checked interactions of n users (or items): a row for each."""
        other: Side = "item" if side == "user" else "user"
        rows, name = as_csr(matrix), f"{side}_{other}s"
        if rows.shape != (expected := (n, len(self._factors(other)))):
            hint = f"a row for each given {side}: pass {name}[{side}id]"
            fitted = (len(self._factors(side)), len(self._factors(other)))
            hint += transposed_hint(rows.shape, expected, fitted)
            raise ValueError(f"expected {name} of shape {expected}, got {rows.shape}; {hint}")
        return rows

    def save(self, file: File) -> None:
        """Write the model to a path, whole or not at all, or to a file open for writing bytes.

        RuntimeError: the model is not fitted; TypeError: it has attributes that are not its own;
        OSError: it cannot be written there.
        """
        self._factors("item")
        normalise(self)  # what was set since: numpy's numbers would not be read again
        if others := vars(self).keys() - self._attributes():
            got = f"{sorted(others)}, too"
            raise TypeError(f"expected the attributes of {type(self).__name__} alone, got {got}")
        state = {"class": type(self).__name__} | vars(self)
        if not isinstance(self.random_state, int):
            state["random_state"] = self.seed  # numpy's generators cannot be saved as data
        if not isinstance(file, str | os.PathLike):
            torch.save(state, file)
            return
        write_whole(state, file)

    @classmethod
    def _attributes(cls) -> set[str]:
        """What a fitted model has: the constructor's arguments and what is learned."""
        learned = {"user_factors", "item_factors", "user_biases", "item_biases", "global_bias"}
        return {field.name for field in fields(cls)} | learned | {"history", "seed"}

    @classmethod
    def load(cls, file: File, device: str | torch.device = "cpu") -> Self:
        """Read what ``save`` wrote; data only, nothing in the file is executed.

        Parameters
        ----------
        file
            A path, or a file open for reading bytes.
        device
            Where the factors are put, wherever they were when they were saved.

        Raises
        ------
        ValueError
            The file holds another model, or none.
        """
        expected = f"expected a saved {cls.__name__} in {file}"
        state = read_whole(file, device, marked="class", expected=expected)
        if (saved := state.pop("class")) != cls.__name__:
            raise ValueError(f"{expected}, got {saved}: read it with {saved}.load")
        if others := state.keys() - cls._attributes():
            raise ValueError(f"{expected}, got one with {sorted(others)}")
        model = cls()
        vars(model).update(state)
        model.device = str(torch.device(device))
        return model
