"""Wrong kernels: each must turn at least one unit test red.

    python tests/unit/mutants.py

Every mutant is a change of a line or two, made in a copy of the suite whose unit tests then have to fail. A mutant that
survives, or a line that is no longer there to be changed, is an error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["test_kernels.py", "test_sampling.py", "test_metrics.py", "test_models.py", "test_properties.py"]
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
    ("SVD: no mean", "svd.py", "if not cell_weight:", "if cell_weight:"),
    ("SVD: unobserved cells of the weight of one", "svd.py", "self.unobserved_weight * user_items.shape[0] * user_items.shape[1] / user_items.nnz", "self.unobserved_weight"),
    ("SVD: unobserved cells with the target 1", "svd.py", "torch.zeros_like(ratings)", "torch.ones_like(ratings)"),
    ("ALS: a step more", "als.py", "steps=self.cg_steps", "steps=self.cg_steps + 1"),
    ("ALS: confidence without the 1", "als.py", "(r_ui > 0) * (1 + extra.values())", "(r_ui > 0) * extra.values()"),
    ("ALS: dislikes count as likes", "als.py", "(r_ui > 0) * (1 + extra.values())", "(1 + extra.values())"),
    ("ALS: no penalty", "als.py", "(self.regularization * count", "(0 * count"),
    ("ALS: penalty left out of the steps", "als.py", "Ap = p @ gram + penalty * p", "Ap = p @ gram"),
    ("ALS: exact solves without the empty cells", "als.py", "A = Y.T @ Y + penalty", "A = penalty"),
    ("ALS: sign of the residual", "als.py", "X += length * p", "X -= length * p"),
    ("ALS: items never solved", "als.py", "solve(self.item_factors, self.user_factors, *item_side)", "pass"),
    ("ALS: extrapolation from where the items arrive", "als.py", "torch.sub(self.item_factors, start, out=change)", "change.copy_(self.item_factors)"),
    ("ALS: directions not conjugate", "als.py", "p = r + rr / before.clamp_min(tiny) * p", "p = r"),
    ("ALS: loss of the stored cells only", "als.py", "(XX * YY).sum() + (", "("),
    ("BPR: sign flipped", "bpr.py", "lr * torch.sigmoid(-x)", "-lr * torch.sigmoid(-x)"),
    ("BPR: duplicates in a batch lost", "bpr.py", "Q.index_add_(0, j, torch.add(step_p, qj, alpha=shrink).neg_())", "Q[j] -= torch.add(step_p, qj, alpha=shrink)"),
    ("BPR: gradient does not vanish", "bpr.py", "lr * torch.sigmoid(-x)", "lr * torch.sigmoid(x)"),
    ("BPR: negatives not pushed down", "bpr.py", "qj, alpha=shrink).neg_()", "qj, alpha=shrink)"),
    ("BPR: item bias not updated", "bpr.py", "b.index_add_(0, i, step - shrink * bi)", "pass"),
    ("BPR: bias left out of the difference", "bpr.py", "x = bi - bj + (", "x = ("),
    ("BPR: penalties swapped", "bpr.py", "alpha=lr * reg_u", "alpha=lr * reg_i"),
    ("BPR: negatives from all items", "sampling.py", "return r + found - self.start.index_select(0, users)", "return r"),
    ("negatives: first unliked item never drawn", "sampling.py", "r, right=True)", "r)"),
    ("WARP: sign flipped", "warp.py", "(qi - qj).mul_(step)", "(qj - qi).mul_(step)"),
    ("WARP: duplicates in a batch lost", "warp.py", "Q.index_add_(0, j, torch.add(step_p, qj, alpha=shrink).neg_())", "Q[j] -= torch.add(step_p, qj, alpha=shrink)"),
    ("WARP: penalty of the wrong factor", "warp.py", "torch.sub(step_p, qi, alpha=shrink)", "torch.sub(step_p, p, alpha=shrink)"),
    ("WARP: rank weights shifted", "warp.py", "torch.cat([torch.zeros(1), harmonic])", "torch.cat([torch.zeros(2), harmonic])"),
    ("WARP: likes beyond a user's first row left out", "warp.py", "(place % LIKES_PER_ROW == 0)", "(place == 0)"),
    ("WARP: liked items violate", "warp.py", ".index_fill_(0, liked, -torch.inf)", ""),
    ("WARP: rank off by one", "warp.py", "(len(Q) - 1) // d)", "len(Q) // d - 1)"),
    ("WARP: first draw of the round instead of the first violation", "warp.py", "start + 1 + first", "start + 1"),
    ("WARP: liked items violate among many", "warp.py", ".masked_fill_(known, -torch.inf)", ""),
    ("WARP: margin ignored", "warp.py", "limits = (p * qi).sum(1) - margin", "limits = (p * qi).sum(1)"),
    ("WARP: rank weight ignored", "warp.py", "(learning_rate * weight)[:, None]", "(learning_rate + 0 * weight)[:, None]"),
    ("WARP: penalty grows the negatives", "warp.py", "torch.add(step_p, qj, alpha=shrink)", "torch.sub(step_p, qj, alpha=shrink)"),
    ("seed ignored", "model.py", "rng = generator(self.random_state, INIT)", "rng = generator(0, INIT)"),
    ("decay ignored", "model.py", "model.learning_rate * model.decay**iteration", "model.learning_rate"),
    ("known items recommended", "model.py", "block[user_items[rows].nonzero()] = -torch.inf", "pass"),
    ("metrics: known items ranked", "metrics.py", "scores[train.nonzero()] = -np.inf", "pass"),
    ("metrics: ties in favour of the model", "metrics.py", 'np.searchsorted(*pair)', 'np.searchsorted(*pair, side="right")'),
    ("metrics: a leak goes unnoticed", "metrics.py", "train.multiply(test).nnz", "False"),
    ("split: entries given twice in both parts", "sampling.py", "csr.sum_duplicates()", "csr.sort_indices()"),
    ("split: test items stay in the training part", "sampling.py", "for m in (in_train, ~in_train)", "for m in (in_train | True, ~in_train)"),
]  # fmt: skip


def survives(file: str, right: str, wrong: str) -> str | None:
    """What is wrong with the mutant, or None if a test fails as it should."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("mflib", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, Path(folder) / part)
        target = Path(folder) / "mflib" / file
        source = target.read_text()
        if right not in source:
            return f"expected {right!r} in mflib/{file}, which has changed: bring the mutant up to date"
        target.write_text(source.replace(right, wrong))
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(f"tests/unit/{t}" for t in TESTS)]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode == 1:
        return None
    return "no test fails" if run.returncode == 0 else f"the tests did not run: {run.stdout[-500:]}"


def main() -> None:
    complaints = []
    for what, *mutant in tqdm(MUTANTS, unit="mutant"):
        if complaint := survives(*mutant):
            complaints.append(f"{what}: {complaint}")
    print(f"{len(MUTANTS) - len(complaints)} of {len(MUTANTS)} wrong versions are found out by the unit tests")
    sys.exit("\n".join(complaints) if complaints else 0)


if __name__ == "__main__":
    main()
