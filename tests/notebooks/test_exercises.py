"""The checks of the exercises accept the answer in the notebook and refuse wrong ones.

Answers and checks run without the rest of their notebook, but for its first cell, the imports.
"""

import nbformat
import pytest
from execute import sources

# By notebook and exercise: wrong answers that a student might give.
WRONG = {
    ("01_svd", 1): [
        "def clip(estimates):\n    return estimates",
        "def clip(estimates):\n    return np.clip(estimates, 0, 5)",
        "def clip(estimates):\n    return np.round(np.clip(estimates, 1, 5))",
    ],
    ("01_svd", 2): [
        # the item's step from the new p
        "def funk_step(p, q, rating, learning_rate, reg):\n    error = rating - p @ q\n"
        "    p = p + learning_rate * (error * q - reg * p)\n    return p, q + learning_rate * (error * p - reg * q)",
        # the sign of the penalty
        "def funk_step(p, q, rating, learning_rate, reg):\n    error = rating - p @ q\n"
        "    return p + learning_rate * (error * q + reg * p), q + learning_rate * (error * p + reg * q)",
    ],
    ("01_svd", 3): [
        # the bias without a penalty
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    E = np.diag([0.0] + [1.0] * Q.shape[1])\n"
        "    x = np.linalg.solve(D.T @ D + reg * E, D.T @ (r - mu - b))\n    return x[0], x[1:]",
        # the items' biases forgotten
        "def new_user(Q, b, mu, r, reg):\n    D = np.column_stack([np.ones(len(Q)), Q])\n"
        "    x = np.linalg.solve(D.T @ D + reg * np.eye(D.shape[1]), D.T @ (r - mu))\n    return x[0], x[1:]",
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
        # no choice at all
        "def prediction():\n    return 'd'",
        "def prediction():\n    return 'ab'",
        "def prediction():\n    return ['b']",
        "def prediction():\n    return None",
        "def prediction():\n    return True",
        "def prediction():\n    print('b')",
    ],
    ("03_bpr", 2): [
        # uniform
        "def chosen(r, n, draws):\n    return 1 / n",
        # place 1 is the lowest
        "def chosen(r, n, draws):\n    return (r**draws - (r - 1) ** draws) / n**draws",
        # without replacement
        "def chosen(r, n, draws):\n    from math import comb\n    if draws > n:\n        return 1 / n\n"
        "    return comb(n - r, draws - 1) / comb(n, draws)",
        # in the limit of many movies
        "def chosen(r, n, draws):\n    return draws * (1 - r / n) ** (draws - 1) / n",
        # at place r or below
        "def chosen(r, n, draws):\n    return ((n - r + 1) / n) ** draws",
        # one draw is at place r, all others strictly below
        "def chosen(r, n, draws):\n    return draws * (n - r) ** (draws - 1) / n**draws",
        # for one size, by heart
        "def chosen(r, n, draws):\n    return [0.4375, 0.3125, 0.1875, 0.0625][r - 1]",
    ],
    ("03_bpr", 3): [
        "def unliked(liked, r):\n    return r + np.searchsorted(liked, r, side='right')",
        "def unliked(liked, r):\n    return r + np.searchsorted(np.asarray(liked) - np.arange(len(liked)), r)",
        # the r-th from 1
        "def unliked(liked, r):\n"
        "    return r - 1 + np.searchsorted(np.asarray(liked) - np.arange(len(liked)), r - 1, side='right')",
        # all liked items are before it
        "def unliked(liked, r):\n    return r + len(liked)",
        # among ten items only
        "def unliked(liked, r):\n    return np.setdiff1d(np.arange(10), liked)[r]",
        # the first that is not liked
        "def unliked(liked, r):\n    while r in liked:\n        r += 1\n    return r",
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
    # 02_als
    # 03_bpr
    ("03_bpr", 1): [
        "def prediction():\n    return 'a'",
        'def prediction():\n    answer = "c"\n    return answer',
        "prediction = lambda: 'b'",
    ],
    ("03_bpr", 2): [
        # a sum over how many of the draws are at place r, the others below
        "def chosen(r, n, draws):\n    from math import comb\n"
        "    return sum(comb(draws, k) * (n - r) ** (draws - k) for k in range(1, draws + 1)) / n**draws",
        # in torch
        "def chosen(r, n, draws):\n    below = torch.tensor([n - r + 1, n - r], dtype=torch.float64) / n\n"
        "    return -(below**draws).diff()[0]",
        # exact, by recursion over the draws
        "def chosen(r, n, draws):\n    from fractions import Fraction\n\n    def at_most(d):\n"
        "        return (Fraction(n - r + 1, n) ** d, Fraction(n - r, n) ** d)\n\n"
        "    high, low = at_most(draws)\n    return high - low",
        "def chosen(r, n, draws):\n    if draws == 1:\n        return 1 / n\n"
        "    return chosen(r, n, draws - 1) * (n - r) / n + ((n - r + 1) / n) ** (draws - 1) / n",
    ],
    ("03_bpr", 3): [
        # a loop over the likes
        "def unliked(liked, r):\n    for k in liked:\n        r += k <= r\n    return r",
        "def unliked(liked, r):\n    gaps = torch.tensor(liked, dtype=torch.int64) - torch.arange(len(liked))\n"
        "    return r + torch.searchsorted(gaps, torch.tensor(r), right=True)",
        "def unliked(liked, r):\n    from bisect import bisect_right\n"
        "    return r + bisect_right([k - m for m, k in enumerate(liked)], r)",
        # recursion
        "def unliked(liked, r):\n    if not liked or liked[0] > r:\n        return r\n"
        "    return unliked(liked[1:], r + 1)",
        # an array of one number
        "def unliked(liked, r):\n    return np.array([r + sum(k - m <= r for m, k in enumerate(liked))])",
    ],
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
