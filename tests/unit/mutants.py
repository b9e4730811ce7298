"""Wrong kernels: each must turn at least one unit test red.

    python tests/unit/mutants.py

Every mutant is a change of a line or two, made in a copy of the suite whose unit tests then have to
fail. A mutant that survives, or a line that is no longer there to be changed, is an error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = [  # what is wrong, file, right, wrong
    ("SVD: sign of the user step", "svd.py", "(step[:, None] * q).sub_(p", "(-step[:, None] * q).sub_(p"),
    ("SVD: duplicates in a batch lost", "svd.py", "P.index_add_(0, users, (step[:, None] * q).sub_(p, alpha=shrink))", "P[users] += (step[:, None] * q).sub_(p, alpha=shrink)"),
    ("SVD: penalty grows the factors", "svd.py", ".sub_(q, alpha=shrink)", ".add_(q, alpha=shrink)"),
    ("SVD: penalty of the wrong factor", "svd.py", "* p).sub_(q, alpha", "* p).sub_(p, alpha"),
    ("SVD: item bias not updated", "svd.py", "b_i.index_add_(0, items, step - shrink * bi)", "pass"),
    ("SVD: mean left out", "svd.py", "(mu + bu + bi", "(bu + bi"),
    ("SVD: weights of rows ignored", "svd.py", "learning_rate * weights * error", "learning_rate * error"),
    ("SVD: user already moved when the item moves", "svd.py", "(step[:, None] * p).sub_", "(step[:, None] * P[users]).sub_"),
    ("SVD: user bias not updated", "svd.py", "b_u.index_add_(0, users, step - shrink * bu)", "pass"),
    ("SVD: no mean", "svd.py", "if not self.unobserved_weight:", "if self.unobserved_weight:"),
    ("SVD: unobserved cells of the weight of one", "svd.py", "unobserved_weight * self.shape[0] * self.shape[1] / ratings.nnz", "unobserved_weight"),
    ("SVD: unobserved cells with the target 1", "svd.py", "torch.zeros_like(ratings)", "torch.ones_like(ratings)"),
    ("SVD: unobserved users drawn from the items", "svd.py", "torch.randint(n_users", "torch.randint(n_items"),
    ("SVD: unobserved items drawn from the users", "svd.py", "torch.randint(n_items", "torch.randint(n_users"),
    ("SVD: ratings always float32", "matrices.py", "np.float64 if wide else np.float32", "np.float32"),
    ("ALS: a step more", "als.py", "steps=self.cg_steps", "steps=self.cg_steps + 1"),
    ("ALS: confidence without the 1", "als.py", "(values > 0) * (1 + excess.values())", "(values > 0) * excess.values()"),
    ("ALS: dislikes count as likes", "als.py", "(values > 0) * (1 + excess.values())", "(1 + excess.values())"),
    ("ALS: no penalty", "als.py", "(self.regularization * count", "(0 * count"),
    ("ALS: penalty left out of the steps", "als.py", "direction @ gram + penalty * direction", "direction @ gram"),
    ("ALS: exact solves without the empty cells", "als.py", "A = Y.T @ Y + penalty[:, :, None] * identity", "A = penalty[:, :, None] * identity"),
    ("ALS: sign of the residual", "als.py", "X += length * direction", "X -= length * direction"),
    ("ALS: items never solved", "als.py", "self._solve(self.item_factors, self.user_factors, items, pool)", "pass"),
    ("ALS: extrapolation from where the items arrive", "als.py", "torch.sub(self.item_factors, change, out=change)", "change.copy_(self.item_factors)"),
    ("ALS: extrapolation from the first items", "als.py", "change.copy_(self.item_factors)  #", "first = locals().get('first', self.item_factors.clone()); change.copy_(first)  #"),
    ("ALS: extrapolation in the second iteration only", "als.py", "torch.sub(self.item_factors, change, out=change)", "torch.sub(self.item_factors, change, out=change) if not self.history else change.zero_()"),
    ("ALS: directions not conjugate", "als.py", "direction = residual + rr / before.clamp_min(tiny) * direction", "direction = residual"),
    ("ALS: loss of the stored cells only", "als.py", "of_all_cells = (squares(X) * squares(Y)).sum()", "of_all_cells = 0 * X.sum()"),
    ("ALS: the last block of columns dropped", "als.py", "range(0, user_items.shape[1], WIDTH)", "range(0, max(1, user_items.shape[1] - WIDTH), WIDTH)"),
    ("ALS: all systems held at once", "matrices.py", "size = max(1, BLOCK // numbers_per_row)", "size = max(1, n_rows)"),
    ("ALS: new users have the biases of user 0", "model.py", "P.new_zeros(len(P))", "self.user_biases[:1].expand(len(P))"),
    ("ALS: new items from the items' factors", "als.py", 'Y = self.item_factors if side == "user" else self.user_factors', "Y = self.item_factors"),
    ("ALS: dislikes explain", "als.py", "ids, shares = ids[r > 0], shares[r > 0]", "pass"),
    ("BPR: sign flipped", "bpr.py", "learning_rate * torch.sigmoid(-x)", "-learning_rate * torch.sigmoid(-x)"),
    ("BPR: duplicates in a batch lost", "bpr.py", "Q.index_add_(0, negatives, torch.add(step_p, qj, alpha=shrink_q).neg_())", "Q[negatives] -= torch.add(step_p, qj, alpha=shrink_q)"),
    ("BPR: gradient does not vanish", "bpr.py", "learning_rate * torch.sigmoid(-x)", "learning_rate * torch.sigmoid(x)"),
    ("BPR: negatives not pushed down", "bpr.py", "qj, alpha=shrink_q).neg_()", "qj, alpha=shrink_q)"),
    ("BPR: item bias not updated", "bpr.py", "b.index_add_(0, positives, step - shrink_q * bi)", "pass"),
    ("BPR: bias left out of the difference", "bpr.py", "x = bi - bj + (", "x = ("),
    ("BPR: penalties swapped", "bpr.py", "learning_rate * user_regularization", "learning_rate * item_regularization"),
    ("BPR: the easiest draw", "bpr.py", "scores.argmax(0", "scores.argmin(0"),
    ("BPR: draws judged without the bias", "bpr.py", "scores = b[candidates] + q", "scores = q"),
    ("BPR: draws of other users", "bpr.py", "users.repeat(self.draws)", "users.repeat_interleave(self.draws)"),
    ("BPR: one draw, whatever is asked", "bpr.py", "self.draws = draws", "self.draws = 1"),
    ("BPR: dislikes are likes", "bpr.py", "likes = likes_of(user_items)", "likes = user_items != 0"),
    ("BPR: negatives from all items", "sampling.py", "return r + place - self.start.index_select(0, users)", "return r"),
    ("negatives: first unliked item never drawn", "sampling.py", "keys, right=True)", "keys)"),
    ("negatives: low ids more often", "sampling.py", "torch.randint(2**62", "torch.randint(2**16"),
    ("WARP: sign flipped", "warp.py", "(qi - qj).mul_(step)", "(qj - qi).mul_(step)"),
    ("WARP: duplicates in a batch lost", "warp.py", "Q.index_add_(0, violating, torch.add(step_p, qj, alpha=shrink).neg_())", "Q[violating] -= torch.add(step_p, qj, alpha=shrink)"),
    ("WARP: penalty of the wrong factor", "warp.py", "torch.sub(step_p, qi, alpha=shrink)", "torch.sub(step_p, p, alpha=shrink)"),
    ("WARP: rank weights shifted", "warp.py", "torch.cat([torch.zeros(1,", "torch.cat([torch.zeros(2,"),
    ("WARP: likes beyond a user's first row left out", "warp.py", "(place % length == 0)", "(place == 0)"),
    ("WARP: likes of a user not shuffled", "warp.py", "order = torch.randperm(likes.nnz, generator=rng)", "order = torch.arange(likes.nnz)"),
    ("WARP: liked items violate", "warp.py", ".index_fill_(0, known, -torch.inf)", ""),
    ("WARP: known are the likes of the row, not of the user", "warp.py", "interactions(self.likes[users])", "interactions(self.likes_by_row[chosen.numpy()].sorted_indices())"),
    ("WARP: dislikes are likes", "warp.py", "likes = likes_of(user_items)", "likes = user_items != 0"),
    ("WARP: rank off by one", "warp.py", "(len(Q) - 1) // needed_draws)", "len(Q) // needed_draws - 1)"),
    ("WARP: first draw of the round instead of the first violation", "warp.py", "start + 1 + first", "start + 1"),
    ("WARP: liked items violate among many", "warp.py", ".masked_fill_(is_known, -torch.inf)", ""),
    ("WARP: the last like of a block unknown among many", "warp.py", "clamp_(max=len(known) - 1)", "clamp_(max=len(known) - 2)"),
    ("WARP: nothing behind the last like among many", "warp.py", ".clamp_(max=len(known) - 1)", ""),
    ("WARP: cells not sorted among many", "warp.py", '"known": known_rows * n_items + known_items', '"known": (known_rows * n_items + known_items).flip(0)'),
    ("WARP: margin ignored", "warp.py", "limits = (p * qi).sum(1) - margin", "limits = (p * qi).sum(1)"),
    ("WARP: rank weight ignored", "warp.py", "(learning_rate * weight)[:, None]", "(learning_rate + 0 * weight)[:, None]"),
    ("WARP: penalty grows the negatives", "warp.py", "torch.add(step_p, qj, alpha=shrink)", "torch.sub(step_p, qj, alpha=shrink)"),
    ("seed ignored", "model.py", "rng = generator(self.seed, INIT)", "rng = generator(0, INIT)"),
    ("factors zeroed after the training", "model.py", "        except BaseException:", "            self.item_factors[torch.from_numpy(matrix.getnnz(0) == 0)] = 0\n        except BaseException:"),
    ("an interrupted model looks fitted", "model.py", "            vars(self).clear()\n", ""),
    ("an interrupted model is forgotten", "model.py", "            vars(self).clear()\n            vars(self).update(before)\n", "            del self.item_factors\n"),
    ("a global bias is kept on a refit", "model.py", "        self.global_bias = 0.0", '        self.global_bias = getattr(self, "global_bias", 0.0)'),
    ("decay ignored", "training.py", "model.learning_rate * model.decay**iteration", "model.learning_rate"),
    ("decay too early", "training.py", "model.decay**iteration", "model.decay**(iteration + 1)"),
    ("divergence looked for in one factor", "training.py", "all(tensor.isfinite().all() for tensor in learned)", "model.user_factors.isfinite().all()"),
    ("divergence is seen at infinity only", "training.py", "if loss > DIVERGED * (1 + first):", "if False:"),
    ("ids outside the shape are taken", "matrices.py", "        _check_indices(user_items)", "        pass"),
    ("a model that cannot be read is saved", "model.py", "        normalise(self)  # what was set since", "        pass  # what was set since"),
    ("threads: torch is left with one", "threads.py", "        torch.set_num_threads(before)", "        pass"),
    ("threads: the quota of a container ignored", "threads.py", "_quota() + 0.5", "number"),
    ("threads: training in those of torch", "model.py", "                with torch_settings():\n                    loss", "                if True:\n                    loss"),
    ("threads: parts of ALS end behind the fairest row", "als.py", "(indptr[:-1] + indptr[1:]) / 2", "indptr[1:]"),
    ("processes: other parts for another number", "distributed.py", "whole = model._parts(count)", "whole = balanced(np.concatenate([[0], np.cumsum(count)]), processes)"),
    ("processes: items are not gathered", "als.py", '                gather(self.item_factors, "item")\n', ""),
    ("processes: each solves the first rows of its own", "als.py", "RowsToSolve(part, blocks", "RowsToSolve(slice(0, part.stop - part.start), blocks"),
    ("processes: what items ran ahead is lost in a checkpoint", "distributed.py", 'change.copy_(state["change"])', "pass"),
    ("processes: a checkpoint of other data", "distributed.py", 'state["of"] != of', "False"),
    ("processes: the loss of one's own rows", "als.py", '        gather(of_items, "item")\n', ""),
    ("threads: a worker begins with MKL's threads", "threads.py", "ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,))", "ThreadPoolExecutor(number)"),
    ("known items recommended", "model.py", "scores[known[block].nonzero()] = -torch.inf", "pass"),
    ("a loaded file is executed", "model.py", "weights_only=True", "weights_only=False"),
    ("a saved GPU is asked for", "model.py", "map_location=device, ", ""),
    ("excluded items come back as candidates", "ranking.py", "    if without is not None:\n        admitted[as_ids(without, what, n)] = False\n", "    if without is not None and only is None:\n        admitted[as_ids(without, what, n)] = False\n"),
    ("the last block of queries dropped", "matrices.py", "range(0, max(n_rows, 1), size)", "range(0, max(n_rows - size, 1), size)"),
    ("ties in any order", "ranking.py", "    ids[tied] = ", "    ids[:0] = 0 * "),
    ("ids as int64", "ranking.py", "ids.astype(np.int32)", "ids"),
    ("sizes need not be positive", "parameters.py", "number >= 1 and", "number == number and"),
    ("half precision is accepted", "parameters.py", "(torch.float32, torch.float64)", "(torch.float32, torch.float64, torch.float16, torch.bfloat16)"),
    ("what is given twice overflows", "matrices.py", "user_items.astype(np.float64 if wide else np.float32)", "user_items"),
    ("stored zeros are interactions", "matrices.py", "    csr.eliminate_zeros()\n", ""),
    ("only dislikes are learned from", "matrices.py", "    if not likes:", "    if False:"),
    ("metrics: known items ranked", "metrics.py", "scores[known.nonzero()] = -np.inf", "pass"),
    ("metrics: ties in favour of the model", "metrics.py", "np.searchsorted(row, mine)", 'np.searchsorted(row, mine, side="right")'),
    ("metrics: a leak goes unnoticed", "metrics.py", "known.multiply(wanted).nnz", "False"),
    ("metrics: each estimate compared with each rating", "metrics.py", "if estimates.shape != ratings.shape:", "if False:"),
    ("metrics: pairs counted in int32", "metrics.py", "np.diff(wanted.indptr).astype(np.int64)", "np.diff(wanted.indptr)"),
    ("metrics: the interval of another metric", "notebook.py", 'bootstrap_interval(per_user["ndcg"])', 'bootstrap_interval(per_user["map"])'),
    ("split: entries given twice in both parts", "matrices.py", "    csr.sum_duplicates()\n", "    csr.sort_indices()\n"),
    ("split: test items stay in the training part", "sampling.py", "_part(cells, in_train), ", "_part(cells, in_train | True), "),
    ("split: the share rounded down", "sampling.py", "round(train_percentage * cells.nnz)", "int(train_percentage * cells.nnz)"),
    ("split: the first of each user held out", "sampling.py", "place < kept", "place >= kept"),
    ("split: a user's share rounded down", "sampling.py", "kept = np.ceil(", "kept = np.floor("),
    ("split: at one time, the lowest id first", "sampling.py", "torch.randperm(cells.nnz, generator=rng).numpy(), when", "cells.col, when"),
    ("split: the date's own day on both sides", "sampling.py", "in_train = when < date", "in_train = when <= date"),
    ("split: users who come after the date are held out", "sampling.py", "~in_train & known[cells.row]", "~in_train"),
    ("split: what has no time is the oldest", "sampling.py", "missing := int((when <= 0).sum())", "missing := 0"),
    ("data: times are not verified", "data.py", "!= source.times_hash", "== ''"),
    ("data: times of all ratings are used", "data.py", "LIKED).to_numpy()", "0).to_numpy()"),
    ("data: the example user may have 14 likes", "data.py", "(count >= 15)", "(count >= 14)"),
    ("data: the example user has more than 15 likes", "data.py", "(count >= 15)", "(count > 15)"),
    ("data: the example user may have 41 likes", "data.py", "(count <= 40)", "(count <= 41)"),
    ("data: the example user has fewer than 40 likes", "data.py", "(count <= 40)", "(count < 40)"),
    ("data: unknown cells are liked", "data.py", "        likes = self.ratings.copy()  # a comparison of the whole matrix would like unknown cells\n        likes.data = (likes.data >= threshold).astype(np.float32)\n        likes.eliminate_zeros()\n        return likes", "        return sp.csr_matrix(self.ratings >= threshold, dtype=np.float32)"),
    ("data: likes change the ratings", "data.py", "likes = self.ratings.copy()", "likes = self.ratings"),
    ("data: what another process has put there is not verified", "data.py", "                _read(name, folder)  # another process was faster", "                pass"),
    ("data: movies are not verified", "data.py", "if (found := movies_hash(movies)) != source.movies_hash:", "if not (found := movies_hash(movies)):"),
]  # fmt: skip


def tests(file: str) -> list[str]:
    """The unit tests, those that are likely to find a mutant of the file first."""
    first = [f"test_{Path(file).stem}.py", "test_kernels.py", "test_models.py"]
    names = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    names.remove("test_environment.py")  # of pins and README, which the copy has not
    ordered = sorted(names, key=lambda name: (name not in first, name))
    return [f"tests/unit/{name}" for name in ordered]


def survives(file: str, right: str, wrong: str) -> str | None:
    """What is wrong with the mutant, or None if a test fails as it should."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("mflib", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(folder) / part)
        target = Path(folder) / "mflib" / file
        source = target.read_text(encoding="utf-8")
        if right not in source:
            return f"expected {right!r} in mflib/{file}, which has changed: bring it up to date"
        target.write_text(source.replace(right, wrong), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OMP_NUM_THREADS": "1"}  # several mutants run side by side
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests(file)]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode == 1:
        return None
    return "no test fails" if run.returncode == 0 else f"tests did not run: {run.stdout[-500:]}"


def main() -> None:
    complaints = []
    if survives("model.py", "Learn from", "Learn from") != "no test fails":
        sys.exit("expected the unit tests to pass on the package as it is, but one fails")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda mutant: survives(*mutant[1:]), MUTANTS)
        for (what, *_), complaint in zip(MUTANTS, tqdm(results, total=len(MUTANTS)), strict=True):
            if complaint:
                complaints.append(f"{what}: {complaint}")
                tqdm.write(complaints[-1])
    found = len(MUTANTS) - len(complaints)
    print(f"{found} of {len(MUTANTS)} wrong versions are found out by the unit tests")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
