"""The checks of the exercises accept the answer in the notebook and refuse wrong ones.

Answers and checks run without the rest of their notebook, except the imports and the loop. So most
can be checked before the kernels are written.
"""

import nbformat
import pytest
from execute import sources

from grading.evaluation.possible_checks import GOOD, WORTHLESS
from grading.rubric import RUBRIC

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
        # first the bias alone, then the vector from the residual
        "def new_user(Q, b, mu, r, reg):\n    e = r - mu - b\n    bias = e.mean() / (1 + reg)\n"
        "    A = Q.T @ Q + reg * len(Q) * np.eye(Q.shape[1])\n"
        "    return bias, np.linalg.solve(A, Q.T @ (e - bias))",
        # without a bias
        "def new_user(Q, b, mu, r, reg):\n    A = Q.T @ Q + reg * len(Q) * np.eye(Q.shape[1])\n"
        "    return 0.0, np.linalg.solve(A, Q.T @ (r - mu - b))",
        "def new_user(Q, b, mu, r, reg):\n    return 0.0, np.zeros(Q.shape[1])",
    ],
    ("02_als", 1): [
        "def prediction():\n    return 'e'",
        "def prediction():\n    return 'ab'",
        "def prediction():\n    return ''",
        "def prediction():\n    return None",
        "def prediction():\n    return ['c']",
        "def prediction():\n    return 3",
    ],
    ("02_als", 2): [
        # the confidence forgotten, and in part
        "def smallest_penalty(R, alpha):\n    return np.linalg.norm(R, 2)",
        "def smallest_penalty(R, alpha):\n    return alpha * np.linalg.norm(R, 2)",
        # all directions, not the strongest
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) * np.linalg.norm(R)",
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) * np.linalg.norm(R, 'nuc')",
        # an iteration multiplies by the square
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) ** 2 * np.linalg.norm(R, 2) ** 2",
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) * np.sqrt(np.linalg.norm(R, 2))",
        # the most popular movie, the most active user
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) * max(R.sum(0).max(), R.sum(1).max())",
        "def smallest_penalty(R, alpha):\n    return (1 + alpha) * np.sqrt(R.sum(0).max() * R.sum(1).max())",
        "def smallest_penalty(R, alpha):\n    return {(1, 1): 3.0, (4, 3): 3.4641, (3, 5): 2.0}.get(R.shape, 2000)",
        "def smallest_penalty(R, alpha):\n    return np.inf",
        "def smallest_penalty(R, alpha):\n    return 0.0",
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
    ("04_warp", 1): [
        # no choice
        'def prediction():\n    return "d"',
        'def prediction():\n    return "the lists are other ones"',
        "def prediction():\n    return None",
        "def prediction():\n    return 3",
        'def prediction():\n    return "abc"',
    ],
    ("04_warp", 3): [
        # only over searches with a result
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, max_draws + 1)\n"
        "    chances = v / n_items * (1 - v / n_items) ** (d - 1)\n"
        "    found = max(chances.sum(), 1e-9)\n"
        "    return (chances * np.asarray(weights)[(n_items - 1) // d]).sum() / found",
        # the weight of the true rank
        "def average_weight(v, n_items, max_draws, weights):\n"
        "    return weights[v] * (1 - (1 - v / n_items) ** max_draws)",
        "def average_weight(v, n_items, max_draws, weights):\n    return weights[v]",
        # draws from all items but the liked one
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, max_draws + 1)\n"
        "    chance = v / (n_items - 1)\n    chances = chance * (1 - chance) ** (d - 1)\n"
        "    return (chances * np.asarray(weights)[(n_items - 1) // d]).sum()",
        # one failure too many
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, max_draws + 1)\n"
        "    chances = v / n_items * (1 - v / n_items) ** d\n"
        "    return (chances * np.asarray(weights)[(n_items - 1) // d]).sum()",
        # the estimate I / d
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, max_draws + 1)\n"
        "    chances = v / n_items * (1 - v / n_items) ** (d - 1)\n"
        "    ranks = np.minimum(n_items // d, n_items - 1)\n"
        "    return (chances * np.asarray(weights)[ranks]).sum()",
        # the last draw forgotten
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, max_draws)\n"
        "    chances = v / n_items * (1 - v / n_items) ** (d - 1)\n"
        "    return (chances * np.asarray(weights)[(n_items - 1) // d]).sum()",
        # without a limit
        "def average_weight(v, n_items, max_draws, weights):\n    d = np.arange(1, 999)\n"
        "    chances = v / n_items * (1 - v / n_items) ** (d - 1)\n"
        "    return (chances * np.asarray(weights)[(n_items - 1) // d]).sum()",
        # a value learned by heart
        "def average_weight(v, n_items, max_draws, weights):\n    return 0.4",
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
    # 02_als
    ("02_als", 1): [
        "def prediction():\n    return 'a'",
        "def prediction():\n    return ' D '",
        "def prediction():\n    return np.str_('b')",
    ],
    ("02_als", 2): [
        "def smallest_penalty(R, alpha):\n    return [(1 + alpha) * torch.linalg.matrix_norm(torch.as_tensor(R), 2)]",
        # by the power method, in loops
        "def smallest_penalty(R, alpha):\n    M = [[(1 + alpha) * r for r in row] for row in R.tolist()]\n"
        "    v = [1.0] * len(M[0])\n    for _ in range(300):\n"
        "        w = [sum(m * x for m, x in zip(row, v)) for row in M]\n"
        "        v = [sum(row[i] * x for row, x in zip(M, w)) for i in range(len(v))]\n"
        "        size = sum(x * x for x in v) ** 0.5\n        v = [x / size for x in v]\n    return size ** 0.5",
    ],
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
    # 04_warp
    ("04_warp", 1): [
        'def prediction():\n    return "a"',
        'def prediction():\n    return "b"',
        'def prediction():\n    return np.array(["b", "c"])[1]',
    ],
    ("04_warp", 3): [
        # a loop
        "def average_weight(v, n_items, max_draws, weights):\n    total, searching = 0.0, 1.0\n"
        "    for d in range(1, max_draws + 1):\n"
        "        total += searching * v / n_items * weights[(n_items - 1) // d]\n"
        "        searching *= 1 - v / n_items\n    return total",
        # recursion over the draws
        "def average_weight(v, n_items, max_draws, weights, d=1):\n    if d > max_draws:\n"
        "        return 0.0\n"
        "    later = average_weight(v, n_items, max_draws, weights, d + 1)\n"
        "    return v / n_items * weights[(n_items - 1) // d] + (1 - v / n_items) * later",
        # torch
        "def average_weight(v, n_items, max_draws, weights):\n    d = torch.arange(1, max_draws + 1)\n"
        "    chances = v / n_items * (1 - v / n_items) ** (d - 1).double()\n"
        "    return chances @ torch.as_tensor(weights).double()[(n_items - 1) // d]",
    ],
}
CHECKS = {("01_svd", 3): "svd", ("02_als", 3): "als", ("03_bpr", 3): "bpr", ("04_warp", 2): "warp"}
NOTEBOOKS = {
    file.stem: {cell.id: cell.source for cell in nbformat.read(file, 4).cells}
    for file in sources()
    if file.stem != "05_experiments"  # has no exercises
}


@pytest.fixture(scope="module", params=sorted(NOTEBOOKS))
def imported(request):
    namespace = {}
    exec(NOTEBOOKS[request.param]["imports"], namespace)
    exec(NOTEBOOKS[request.param]["loop"], namespace)
    return request.param, namespace


def test_every_notebook_has_three_exercises_with_wrong_answers():
    assert sorted([*WRONG, *CHECKS]) == [
        (notebook, exercise) for notebook in sorted(NOTEBOOKS) for exercise in (1, 2, 3)
    ]


@pytest.mark.parametrize("exercise", [1, 2, 3])
def test_check_accepts_the_answer(imported, exercise):
    notebook, namespace = imported
    cells = NOTEBOOKS[notebook]
    checks = CHECKS.get((notebook, exercise))
    right_ones = [source for (task, _), source in GOOD.items() if task == checks]
    right_ones += RIGHT.get((notebook, exercise), [])
    for right in (cells[f"exercise-{exercise}"], *right_ones):
        answered = dict(namespace)
        exec(right, answered)
        exec(cells[f"exercise-{exercise}-check"], answered)


@pytest.mark.parametrize("exercise", [1, 2, 3])
def test_check_refuses_wrong_answers(imported, exercise):
    notebook, namespace = imported
    worthless = [WORTHLESS[f"{does} everything"] for does in ("accepts", "refuses")]
    for wrong in WRONG.get((notebook, exercise), worthless):
        answered = dict(namespace)
        exec(wrong, answered)
        try:
            exec(NOTEBOOKS[notebook][f"exercise-{exercise}-check"], answered)
        except (AssertionError, IndexError):
            continue
        pytest.fail(f"the check of exercise {exercise} in {notebook} accepts\n{wrong}")


@pytest.mark.parametrize(
    ("notebook", "exercise"),
    [("01_svd", 2), ("02_als", 2), ("03_bpr", 1), ("03_bpr", 2), ("04_warp", 1), ("04_warp", 3)],
)
def test_these_exercises_can_be_checked_before_the_kernels_are_written(
    notebook, exercise, monkeypatch
):
    for task, entry in RUBRIC.items():
        for name in entry.kernels:
            monkeypatch.setattr(f"mflib.{task}.{name}", not_written)
    cells, namespace = NOTEBOOKS[notebook], {}
    for cell in ("imports", "loop", f"exercise-{exercise}", f"exercise-{exercise}-check"):
        exec(cells[cell], namespace)


def not_written(*_, **__):
    raise NotImplementedError("a kernel")
