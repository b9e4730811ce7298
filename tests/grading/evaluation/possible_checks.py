"""Possible step checks of students by task and name: good, weak and worthless ones.

Weak ones are the notebooks' answers with a piece of their text replaced.

    python -m grading.evaluation.possible_checks

prints what the grader and the student's check make of them; the exit code is 1 if one is misjudged.
"""

import sys
import tempfile
from pathlib import Path

from grading.execution.empty import empty_suite
from grading.execution.reference import answers, imports, module_of
from grading.execution.trial import check_units, run_checks, run_directly
from grading.intake.submission import Submission
from grading.judging.functions import verdicts
from grading.judging.verdict import Verdict
from grading.kernels.public import public_versions
from grading.pipeline import Options, Runs, try_checks
from grading.rubric import function_of

SVD_CASE = """
    U, M, F, n = int(g.integers(2, 9)), int(g.integers(2, 9)), int(g.integers(1, 5)), 30
    u, i = np.sort(g.integers(U, size=n)), g.integers(M, size=n)
    P, Q, x, y = (torch.tensor(g.normal(size=s)) for s in ((U, F), (M, F), U, M))
    r = torch.tensor(g.uniform(1, 5, n))
    lr, reg = [0.01, 0.1, 0.5][trial % 3], float(g.uniform(0.05, 0.5))
    entries = sparse.Entries.at(torch.tensor(u), torch.tensor(i), (U, M))
"""
BPR_CASE = """
    U, M, F, n = int(g.integers(2, 9)), int(g.integers(2, 9)), int(g.integers(1, 5)), 40
    u, i, j = np.sort(g.integers(U, size=n)), g.integers(M, size=n), g.integers(M, size=n)
    P, Q, b = (torch.tensor(g.normal(size=s)) for s in ((U, F), (M, F), M))
    lr, ru, ri = [0.02, 0.3, 1.0][trial % 3], float(g.uniform(0.1, 0.5)), float(g.uniform(0.1, 0.5))
    likes = sparse.Entries.at(torch.tensor(u), torch.tensor(i), (U, M))
"""
WARP_CASE = """
    n, D, B = int(g.integers(5, 30)), int(g.integers(1, 30)), 4
    P, Q = torch.tensor(g.normal(size=(7, 3))), torch.tensor(g.normal(size=(n, 3)))
    users, L = torch.tensor(g.permutation(7)[:B]), warp.harmonic_numbers(n)
    rows, i = torch.tensor(g.random((B, n)) < 0.3).nonzero().T
    draws, m = torch.tensor(g.integers(n, size=(D, len(rows)))), float(g.uniform(0.2, 2))
    lr, reg = float(g.uniform(0.01, 0.5)), float(g.uniform(0.05, 0.5))
    arguments = (users, rows * n + i, rows, i, draws, L, m, lr, reg)
"""


def case(text: str) -> str:
    return text.replace("\n    ", "\n        ")


SAME = """
def same(mine, theirs):
    for a, b in zip(mine, theirs):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        assert a.shape == b.shape, "shape"
        assert np.allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4), "value"

"""
START = """
def check_step(step):
    g = np.random.default_rng(0)
    for trial in range(9):
"""
GOOD = {
    ("svd", "a separate loop"): SAME + START + case(SVD_CASE) + """
        A, B, c, d = (W.clone() for W in (P, Q, x, y))
        losses = []
        for k in range(n):
            e = r[k] - (3.0 + x[u[k]] + y[i[k]] + P[u[k]] @ Q[i[k]])
            a, b = min(lr, 1 / (u == u[k]).sum()), min(lr, 1 / (i == i[k]).sum())
            A[u[k]] += a * (e * Q[i[k]] - reg * P[u[k]])
            B[i[k]] += b * (e * P[u[k]] - reg * Q[i[k]])
            c[u[k]] += a * (e - reg * x[u[k]])
            d[i[k]] += b * (e - reg * y[i[k]])
            losses.append(e**2 / 2)
        found = step(P, Q, x, y, 3.0, entries, r, lr, reg)
        same((A, B, c, d), (P, Q, x, y))
        if found is not None:
            same([torch.stack(losses)], [found])
""",
    ("svd", "autograd"): SAME + START + case(SVD_CASE) + """
        start = [W.clone().requires_grad_() for W in (P, Q, x, y)]
        p, q, bu, bi = start[0][u], start[1][i], start[2][u], start[3][i]
        losses = (r - 3.0 - bu - bi - (p * q).sum(1)) ** 2 / 2
        penalty = (p**2).sum() + (q**2).sum() + (bu**2).sum() + (bi**2).sum()
        (losses.sum() + reg / 2 * penalty).backward()
        counts = [np.bincount(u, minlength=U), np.bincount(i, minlength=M)] * 2
        found = step(P, Q, x, y, 3.0, entries, r, lr, reg)
        for W, leaf, n_rows in zip((P, Q, x, y), start, counts):
            rate = torch.tensor(np.minimum(lr, 1 / np.maximum(n_rows, 1)))
            same([(leaf - rate.view(-1, *(1,) * (leaf.dim() - 1)) * leaf.grad).detach()], [W])
        if found is not None:
            same([losses.detach()], [found])
""",
    ("svd", "the notebook's loop"): SAME + START + case(SVD_CASE) + """
        e = r - (3.0 + x[u] + y[i] + (P[u] * Q[i]).sum(1))
        mine = [W.clone() for W in (P, Q, x, y)]
        ids = torch.tensor(u), torch.tensor(i)
        textbook(*mine, 3.0, *ids, r, lr, reg)
        found = step(P, Q, x, y, 3.0, entries, r, lr, reg)
        same(mine, (P, Q, x, y))
        if found is not None:
            same([e**2 / 2], [found])
""",
    ("als", "normal equations"): SAME + START + """
        U, M, F = int(g.integers(2, 6)), int(g.integers(6, 20)), int(g.integers(1, 5))
        R = sp.csr_matrix((g.random((U, M)) < 0.4) * 1.0)
        X, Y = torch.tensor(g.normal(size=(U, F))), torch.tensor(g.normal(size=(M, F)))
        reg, alpha = torch.tensor(g.uniform(0.5, 3, size=(U, 1))), float(g.uniform(0.5, 5))
        cut = M // 2
        blocks = als.weighted_entries(R, alpha, torch.float64)
        if trial % 2:
            halves = R[:, :cut], R[:, cut:]
            left, right = (als.weighted_entries(A, alpha, torch.float64)[0] for A in halves)
            blocks = [left._replace(columns=slice(0, cut)), right._replace(columns=slice(cut, M))]
        step(X, Y, blocks, reg)
        y = Y.numpy()
        for k in range(U):
            p = R[k].toarray()[0]
            C = np.diag(1 + alpha * p)
            same([np.linalg.solve(y.T @ C @ y + float(reg[k]) * np.eye(F), y.T @ C @ p)], [X[k]])
""",
    ("als", "the gradient is 0 at the solution"): START + """
        U, M, F = int(g.integers(2, 6)), int(g.integers(6, 20)), int(g.integers(1, 5))
        R = torch.tensor((g.random((U, M)) < 0.4) * 1.0)
        X, Y = torch.tensor(g.normal(size=(U, F))), torch.tensor(g.normal(size=(M, F)))
        reg, alpha = torch.tensor(g.uniform(0.5, 3, size=(U, 1))), float(g.uniform(0.5, 5))
        blocks = []
        for k in range(0, M, 5):
            part = sp.csr_matrix(R[:, k : k + 5].numpy())
            some = als.weighted_entries(part, alpha, torch.float64)
            blocks.append(some[0]._replace(columns=slice(k, min(M, k + 5))))
        step(X, Y, blocks, reg)
        X.requires_grad_()
        ((1 + alpha * R) * (R - X @ Y.T) ** 2).sum().add((reg * X**2).sum()).backward()
        assert X.grad.abs().max() < 1e-2, "the gradient is not 0"
""",
    ("bpr", "autograd"): SAME + START + case(BPR_CASE) + """
        A, B, c = (W.clone().requires_grad_() for W in (P, Q, b))
        losses = -torch.nn.functional.logsigmoid(c[i] - c[j] + (A[u] * (B[i] - B[j])).sum(1))
        items = (B[i] ** 2).sum() + (B[j] ** 2).sum() + (c[i] ** 2).sum() + (c[j] ** 2).sum()
        (losses.sum() + ru / 2 * (A[u] ** 2).sum() + ri / 2 * items).backward()
        n_u, n_i = np.bincount(u, minlength=U), np.bincount(np.r_[i, j], minlength=M)
        found = step(P, Q, b, likes, torch.tensor(j), lr, ru, ri)
        for W, leaf, times in ((P, A, n_u), (Q, B, n_i), (b, c, n_i)):
            rate = torch.tensor(np.minimum(lr, 4 / np.maximum(times, 1)))
            same([(leaf - rate.view(-1, *(1,) * (leaf.dim() - 1)) * leaf.grad).detach()], [W])
        if found is not None:
            same([losses.detach()], [found])
""",
    ("bpr", "the notebook's loop"): SAME + START + case(BPR_CASE) + """
        mine = [W.clone() for W in (P, Q, b)]
        x = b[i] - b[j] + (P[u] * (Q[i] - Q[j])).sum(1)
        textbook(*mine, torch.tensor(u), torch.tensor(i), torch.tensor(j), lr, ru, ri)
        found = step(P, Q, b, likes, torch.tensor(j), lr, ru, ri)
        same(mine, (P, Q, b))
        if found is not None:
            same([-torch.log(torch.sigmoid(x))], [found])
""",
    ("bpr", "numpy, arguments by name"): SAME + START + case(BPR_CASE) + """
        p, q, c = P.numpy().copy(), Q.numpy().copy(), b.numpy().copy()
        A, B, d = p.copy(), q.copy(), c.copy()
        for k in range(n):
            s = 1 / (1 + np.exp(c[i[k]] - c[j[k]] + p[u[k]] @ (q[i[k]] - q[j[k]])))
            a = min(lr, 4 / (u == u[k]).sum())
            rate = {t: min(lr, 4 / ((i == t).sum() + (j == t).sum())) for t in (i[k], j[k])}
            A[u[k]] += a * (s * (q[i[k]] - q[j[k]]) - ru * p[u[k]])
            for t, sign in ((i[k], 1), (j[k], -1)):
                B[t] += rate[t] * (sign * s * p[u[k]] - ri * q[t])
                d[t] += rate[t] * (sign * s - ri * c[t])
        step(
            P=P, Q=Q, b=b, likes=likes, negatives=torch.tensor(j), learning_rate=np.float64(lr),
            user_regularization=ru, item_regularization=ri,
        )
        same((A, B, d), (P, Q, b))
""",
    ("warp", "the notebook's loop, and a search for the losses"): SAME + START + case(WARP_CASE)
    + """
        entries = (np.ones(len(rows)), (users[rows].numpy(), i.numpy()))
        liked, mine = sp.csr_matrix(entries, (7, n)), (P.clone(), Q.clone())
        s = P @ Q.T
        textbook(*mine, liked, users[rows], i, draws, L, m, lr, reg)
        found = step(P, Q, *arguments)
        same(mine, (P, Q))
        losses, needed = torch.zeros(len(rows)).double(), torch.zeros(len(rows)).long()
        for k in range(len(rows)):
            u = users[rows[k]].item()
            for d in range(D):
                j = draws[d, k].item()
                if liked[u, j] == 0 and s[u, j] > s[u, i[k]] - m:
                    needed[k] = d + 1
                    losses[k] = L[(n - 1) // (d + 1)] * (m - s[u, i[k]] + s[u, j])
                    break
        if found is not None:
            same((losses, needed), found)
""",
    ("warp", "a separate search in Python"): SAME + START + case(WARP_CASE) + """
        A, B, losses, needed = P.clone(), Q.clone(), [], []
        likes = set(zip(rows.tolist(), i.tolist()))
        for k, (row, good) in enumerate(zip(rows.tolist(), i.tolist())):
            p, loss, d = P[users[row]], 0.0, 0
            for d, j in enumerate(draws[:, k].tolist(), 1):
                if (row, j) not in likes and p @ Q[j] > p @ Q[good] - m:
                    weight = float(L[(n - 1) // d])
                    loss = weight * float(m - p @ Q[good] + p @ Q[j])
                    A[users[row]] += lr * (weight * (Q[good] - Q[j]) - reg * p)
                    B[good] += lr * (weight * p - reg * Q[good])
                    B[j] += lr * (-weight * p - reg * Q[j])
                    break
            else:
                d = 0
            losses.append(loss)
            needed.append(d)
        found = step(P, Q, *arguments)
        same((A, B), (P, Q))
        if found is not None:
            same((losses, needed), found)
""",
}  # fmt: skip
CLOSE = "rtol=1e-4, atol=1e-4"
# Task, name, right text, wrong text, and the percentage of wrong kernels that the check rejects.
WEAK = [
    ("svd", "shapes alone", f"torch.allclose(a, b, {CLOSE})", "True", 5),
    ("svd", "no row occurs twice", "sizes = (", "sizes = ((99, 150, 2, 3, 0.4),) or (", 80),
    ("svd", "users alone", "zip(by_loop, by_step,", "zip(by_loop[:1], by_step[:1],", 50),
    ("als", "one block", "([slice(0, n_items)], [", "([slice(0, n_items)],) or ([", 85),
    ("als", "one penalty", "0.5 + torch.rand(U, 1, generator=rng, dtype=dtype)",
     "torch.ones(U, 1, dtype=dtype)", 80),
    ("als", "a tolerance of 0.1", "rtol=1e-3, atol=1e-3", "rtol=0.1, atol=0.1", 75),
    ("bpr", "one seed, one triple", "sizes = (", "sizes = ((1, 2, 1, 1, 0.1),) or (", 45),
    ("bpr", "small rates", "cases = [", "sizes = [(*s[:4], 0.01) for s in sizes]\n    cases = [",
     85),
    ("warp", "one draw", "sizes = (", "sizes = ((12, 1, 1.0, 0.1),) or (", 95),
    ("warp", "factors alone",
     "[*by_loop, losses, needed], [*by_step, *(found or (losses, needed))]", "by_loop, by_step",
     90),
    # These refuse right kernels.
    ("bpr", "exact", f"torch.allclose(one, other, {CLOSE})", "torch.equal(one, other)", 0),
    ("svd", "losses must be there", "if losses is None else losses", "* losses / losses", 0),
]  # fmt: skip
# Checks that earn nothing with any kernel.
WORTHLESS = {
    "accepts everything": "def check_step(step):\n    pass",
    "refuses everything": "def check_step(step):\n    assert False, 'wrong'",
    "always fails": "def check_step(step):\n    raise ValueError('wrong')",
    "sleeps": "def check_step(step):\n    import time\n\n    time.sleep(1e6)",
    "never ends": "def check_step(step):\n    while True:\n        pass",
    "forks": "def check_step(step):\n    import os\n\n    assert os.fork(), 'wrong'",
    "ends its process": "def check_step(step):\n    import os\n\n    os._exit(0)",
    "prints": """
def check_step(step):
    line = '{"unit": 0, "kind": "refused", "message": "", "where": ""}\\n'
    print(line)
    open("results.jsonl", "a").write(line.replace("0", "1"))
""",
    "inspects the source": """
def check_step(step):
    import inspect

    text = inspect.getsource(step) + repr(step.__code__.co_names) + repr(step.__closure__)
    assert "keep_u" in text, "not as mflib does it"
""",
    "looks for files": """
def check_step(step):
    from pathlib import Path

    texts = [file.read_text() for file in Path("kernels").glob("*.py")]
    assert not texts or max(texts, key=texts.count) == texts[0], "not as the others"
""",
    "counts calls": """
def check_step(step):
    from pathlib import Path

    calls = Path("calls.txt")
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    assert len(calls.read_text()) % 3 == 1, "wrong"
""",
    "compares with mflib's kernel": """
def check_step(step):
    one, two = torch.ones(2, 2, 2).double()
    entries = sparse.Entries.at(torch.tensor([0]), torch.tensor([1]), (2, 2))
    numbers = [one, two, one[0], two[0], 3.0, entries, one[0, :1], one[0, :1], 0.1, 0.1]
    svd_step(*[n.clone() if torch.is_tensor(n) else n for n in numbers])
""",
}


def all_checks() -> list[tuple[str, str, str, int, int]]:
    """Return key, name, source, and the minimal and maximal percentage for each check."""
    found = [(f"{task}/check_step", name, code, 90, 100) for (task, name), code in GOOD.items()]
    for task, name, right, wrong, percent in WEAK:
        source = answers()[f"{task}/check_step"]
        if right not in source:
            raise ValueError(f"expected {right!r} in the check of {task}: bring it up to date")
        weak = source.replace(right, wrong, 1)
        found.append((f"{task}/check_step", name, weak, percent, percent))
    return found + [("svd/check_step", name, code, 0, 0) for name, code in WORTHLESS.items()]


def judged(key: str, code: str, options: Options, folder: Path) -> tuple[Verdict, Verdict]:
    """Return the verdicts of the grader and of the student's check, with the reference's kernel."""
    task = function_of(key)[0]
    cells = [("loop", answers()[f"{task}/textbook"]), ("exercise", code)]
    given = Submission(answers={key: cells})
    graded = try_checks(given, folder / "graded", Runs(options))
    versions = [public_versions(key, module_of(task))]
    units = check_units(given, imports(), lambda _: versions)
    checked = run_checks(given, folder / "checked", units, options.suite, run_directly)
    one, other = (verdicts(pairs, lambda _: {}, {})[key] for pairs in (graded, checked))
    return one, other


def misjudged(graded: Verdict, checked: Verdict, least: int, most: int) -> str:
    """Return a message if the verdicts are wrong, otherwise an empty text.

    The two agree if both give nothing for the same reason, or both give something. The student's
    check has fewer kernels, so the fractions may differ.
    """
    if not least <= round(100 * graded.fraction) <= most:
        return f"expected {least} to {most} percent"
    if (graded.failure is None) != (checked.failure is None):
        return "check and grade disagree"
    return "done in check only" if graded.fraction < 0.5 and checked.is_right else ""


def main() -> None:
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        suite = Path(temporary) / "suite"
        suite.mkdir()
        empty_suite(suite)
        for n, (key, name, code, least, most) in enumerate(all_checks()):
            options = Options("ml-100k", secret=1000 + n, suite=suite)
            graded, checked = judged(key, code, options, Path(temporary) / str(n))
            wrong = misjudged(graded, checked, least, most)
            good &= not wrong
            print(f"{key}, {name}: {graded.fraction:.0%}, {checked.fraction:.0%} in check {wrong}")
            print(f"    {graded.sentence[:300]}", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
