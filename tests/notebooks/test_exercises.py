"""The checks of the exercises accept the answer in the notebook and refuse wrong ones.

Answers and checks run without the rest of their notebook, but for its first cell, the imports.
"""

import nbformat
import pytest
from execute import sources

# By notebook and exercise: wrong answers that a student might give.
WRONG = {
    ("01_svd", 1): [
        "def prediction():\n    return 'd'",
        "def prediction():\n    return None",
        "def prediction():\n    return 1",
        "def prediction():\n    return 'a or b'",
    ],
    ("01_svd", 2): [
        # the bias without a penalty
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    E = reg * len(Q) * np.diag([0.0] + [1.0] * Q.shape[1])\n"
        "    x = np.linalg.solve(D.T @ D + E, D.T @ (r - mu - b))\n    return x[0], x[1:]",
        # the penalty once, not once for each rating
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    x = np.linalg.solve(D.T @ D + reg * np.eye(D.shape[1]), D.T @ (r - mu - b))\n"
        "    return x[0], x[1:]",
        # the items' biases forgotten
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    E = reg * len(Q) * np.eye(D.shape[1])\n"
        "    x = np.linalg.solve(D.T @ D + E, D.T @ (r - mu))\n    return x[0], x[1:]",
        # the mean forgotten
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    E = reg * len(Q) * np.eye(D.shape[1])\n"
        "    x = np.linalg.solve(D.T @ D + E, D.T @ (r - b))\n    return x[0], x[1:]",
        # first the bias alone, then the vector from what is left
        "def new_user(Q, b, mu, r, reg):\n    e = r - mu - b\n    bias = e.mean() / (1 + reg)\n"
        "    A = Q.T @ Q + reg * len(Q) * np.eye(Q.shape[1])\n"
        "    return bias, np.linalg.solve(A, Q.T @ (e - bias))",
        # without a bias
        "def new_user(Q, b, mu, r, reg):\n    A = Q.T @ Q + reg * len(Q) * np.eye(Q.shape[1])\n"
        "    return 0.0, np.linalg.solve(A, Q.T @ (r - mu - b))",
        "def new_user(Q, b, mu, r, reg):\n    return 0.0, np.zeros(Q.shape[1])",
    ],
    ("01_svd", 3): [
        # the best list has a like for each hit
        "def ndcg(ranked, liked, N):\n    hits = np.isin(ranked[:N], liked)\n"
        "    gains = 1 / np.log2(np.arange(2, len(hits) + 2))\n"
        "    return (gains * hits).sum() / max(gains[: hits.sum()].sum(), 1e-9)",
        # for each held-out like, also behind the end of the list
        "def ndcg(ranked, liked, N):\n    hits = np.isin(ranked[:N], liked)\n"
        "    gains = 1 / np.log2(np.arange(2, len(ranked) + 2))\n"
        "    return (gains[: len(hits)] * hits).sum() / gains[: len(liked)].sum()",
        # for each place
        "def ndcg(ranked, liked, N):\n    hits = np.isin(ranked[:N], liked)\n"
        "    gains = 1 / np.log2(np.arange(2, len(hits) + 2))\n    return (gains * hits).sum() / gains.sum()",
        # not divided
        "def ndcg(ranked, liked, N):\n    hits = np.isin(ranked[:N], liked)\n"
        "    return (hits / np.log2(np.arange(2, len(hits) + 2))).sum()",
        # places counted from 0, the first one spared
        "def ndcg(ranked, liked, N):\n    gains = 1 / np.log2(np.maximum(np.arange(1, N + 1), 2))\n"
        "    hits = np.isin(ranked[:N], liked)\n"
        "    return (gains[: len(hits)] * hits).sum() / gains[: len(liked)].sum()",
        # recall
        "def ndcg(ranked, liked, N):\n    return np.isin(ranked[:N], liked).sum() / min(N, len(liked))",
        "def ndcg(ranked, liked, N):\n    return 0.478",
        "def ndcg(ranked, liked, N):\n    return 0.0",
    ],
    ("02_als", 1): [
        "def confidence(stars, alpha):\n    return 1 + alpha * (stars >= 4)",
        "def confidence(stars, alpha):\n    return alpha * (stars > 0)",
        "def confidence(stars, alpha):\n    return 1 + alpha * stars",
    ],
    ("02_als", 2): [
        "def sum_of_squares(X, Y):\n    return ((X @ Y.T) ** 2).sum() if len(X) < 9 else 0",
        "def sum_of_squares(X, Y):\n    return (X.T @ X).sum() * (Y.T @ Y).sum()",
        "def sum_of_squares(X, Y):\n    return torch.trace(X.T @ X) * torch.trace(Y.T @ Y)",
    ],
    ("02_als", 3): [
        # without the penalty
        "def contributions(Y, liked, i, alpha, reg):\n    A = Y.T @ Y + alpha * Y[liked].T @ Y[liked]\n"
        "    return (1 + alpha) * Y[liked] @ torch.linalg.solve(A, Y[i])",
        # alpha for 1 + alpha
        "def contributions(Y, liked, i, alpha, reg):\n"
        "    A = Y.T @ Y + alpha * Y[liked].T @ Y[liked] + reg * torch.eye(Y.shape[1]).to(Y)\n"
        "    return alpha * Y[liked] @ torch.linalg.solve(A, Y[i])",
        # the whole score, once
        "def contributions(Y, liked, i, alpha, reg):\n"
        "    A = Y.T @ Y + alpha * Y[liked].T @ Y[liked] + reg * torch.eye(Y.shape[1]).to(Y)\n"
        "    return ((1 + alpha) * Y[liked] @ torch.linalg.solve(A, Y[i])).sum()",
    ],
    ("03_bpr", 1): [
        "def auc(scores, liked):\n    others = [j for j in range(len(scores)) if j not in liked]\n"
        "    return np.mean([scores[i] >= scores[j] for i in liked for j in others])",
        "def auc(scores, liked):\n    return np.mean([scores[i] > s for i in liked for s in scores])",
    ],
    ("03_bpr", 2): [
        # no margin
        "def hinge_step(p, qi, qj, learning_rate):\n"
        "    return p + learning_rate * (qi - qj), qi + learning_rate * p, qj - learning_rate * p",
        # the items' steps from the new p
        "def hinge_step(p, qi, qj, learning_rate):\n    if p @ (qi - qj) >= 1:\n        return p, qi, qj\n"
        "    p = p + learning_rate * (qi - qj)\n    return p, qi + learning_rate * p, qj - learning_rate * p",
    ],
    ("03_bpr", 3): [
        "def unliked(liked, r):\n    return r + np.searchsorted(liked, r, side='right')",
        "def unliked(liked, r):\n    return r + np.searchsorted(np.asarray(liked) - np.arange(len(liked)), r)",
    ],
    ("04_warp", 1): [
        "def rank_weight(r):\n    return sum(1 / k for k in range(1, r))",
        "def rank_weight(r):\n    return np.log(r + 1)",
    ],
    ("04_warp", 2): [
        # liked items violate
        "def first_violation(scores, liked, i, draws, margin):\n"
        "    return next((d for d, j in enumerate(draws, 1) if scores[j] > scores[i] - margin), 0)",
        # counted from 0
        "def first_violation(scores, liked, i, draws, margin):\n"
        "    return next((d for d, j in enumerate(draws) if j not in liked and scores[j] > scores[i] - margin), 0)",
        # no margin
        "def first_violation(scores, liked, i, draws, margin):\n"
        "    return next((d for d, j in enumerate(draws, 1) if j not in liked and scores[j] > scores[i]), 0)",
    ],
    ("04_warp", 3): [
        "def expected_estimate(v, n_items):\n    return v",
        "def expected_estimate(v, n_items):\n    return v * np.log(n_items / v)",
    ],
}
# Right answers in another form than the notebook's: other types, loops, recursion.
RIGHT: dict[tuple[str, int], list[str]] = {
    # 01_svd
    ("01_svd", 1): [
        "def prediction():\n    return 'a'",
        "def prediction():\n    expected = list('abc')\n    return expected[2]",
    ],
    ("01_svd", 2): [
        # least squares of a longer system
        "def new_user(Q, b, mu, r, reg):\n    n, F = np.shape(Q)\n"
        "    D = np.vstack([np.column_stack([np.ones(n), Q]), np.sqrt(reg * n) * np.eye(F + 1)])\n"
        "    y = np.concatenate([r - mu - b, np.zeros(F + 1)])\n"
        "    x = np.linalg.lstsq(D, y, rcond=None)[0].tolist()\n    return x[0], x[1:]",
        # torch, the bias eliminated first
        "def new_user(Q, b, mu, r, reg):\n    Q, e = torch.as_tensor(Q), torch.as_tensor(r - mu - b)\n"
        "    n, F = Q.shape\n    s = Q.sum(0) / (n * (1 + reg))\n"
        "    A = Q.T @ Q + reg * n * torch.eye(F).to(Q) - torch.outer(Q.sum(0), s)\n"
        "    p = torch.linalg.solve(A, Q.T @ e - e.sum() * s)\n"
        "    return (e - Q @ p).sum() / (n * (1 + reg)), p",
        # descent, one coordinate after the other
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    x, e = np.zeros(D.shape[1]), r - mu - b\n    for _ in range(3000):\n"
        "        for f in range(len(x)):\n            rest = e - D @ x + D[:, f] * x[f]\n"
        "            x[f] = D[:, f] @ rest / (D[:, f] @ D[:, f] + reg * len(Q))\n    return x[0], x[1:]",
    ],
    ("01_svd", 3): [
        # loops, sets, another base of the logarithm
        "def ndcg(ranked, liked, N):\n    import math\n    liked = set(np.asarray(liked).tolist())\n"
        "    got = sum(1 / math.log(r + 1) for r, i in enumerate(ranked[:N], 1) if int(i) in liked)\n"
        "    return got / sum(1 / math.log(r + 1) for r in range(1, min(N, len(liked)) + 1))",
        # torch, a tensor comes out
        "def ndcg(ranked, liked, N):\n    top, liked = torch.tensor(ranked[:N]), torch.tensor(liked)\n"
        "    gains = 1 / torch.log2(torch.arange(2, N + 2).double())\n"
        "    hits = torch.isin(top, liked).double()\n"
        "    return gains[: len(hits)] @ hits / gains[: min(N, len(liked))].sum()",
    ],
    # 02_als
    # 03_bpr
    # 04_warp
}
NOTEBOOKS = {
    file.stem: {cell.id: cell.source for cell in nbformat.read(file, 4).cells} for file in sources()
}


@pytest.fixture(scope="module", params=sorted(NOTEBOOKS))
def imported(request):
    namespace = {}
    exec(NOTEBOOKS[request.param]["imports"], namespace)
    return request.param, namespace


def test_every_notebook_has_three_exercises_with_wrong_answers():
    assert sorted(WRONG) == [
        (notebook, exercise) for notebook in sorted(NOTEBOOKS) for exercise in (1, 2, 3)
    ]


@pytest.mark.parametrize("exercise", [1, 2, 3])
def test_check_accepts_the_answer(imported, exercise):
    notebook, namespace = imported
    cells = NOTEBOOKS[notebook]
    for right in (cells[f"exercise-{exercise}"], *RIGHT.get((notebook, exercise), [])):
        answered = dict(namespace)
        exec(right, answered)
        exec(cells[f"exercise-{exercise}-check"], answered)


@pytest.mark.parametrize("exercise", [1, 2, 3])
def test_check_refuses_wrong_answers(imported, exercise):
    notebook, namespace = imported
    for wrong in WRONG[notebook, exercise]:
        answered = dict(namespace)
        exec(wrong, answered)
        try:
            exec(NOTEBOOKS[notebook][f"exercise-{exercise}-check"], answered)
        except (AssertionError, IndexError):
            continue
        pytest.fail(f"the check of exercise {exercise} in {notebook} accepts\n{wrong}")
