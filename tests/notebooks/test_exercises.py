"""The checks of the exercises accept the answer in the notebook and refuse wrong ones.

Answers and checks run without the rest of their notebook, but for the imports and the loop. So most
can be checked before the kernels are written.
"""

import nbformat
import pytest
from execute import sources

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
    ("02_als", 3): [
        # x as it was
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n"
        "    return inverse - alpha * np.outer(step, step) / (1 + alpha * y @ step), x",
        # as if x were a right-hand side
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n"
        "    inverse = inverse - alpha * np.outer(step, step) / (1 + alpha * y @ step)\n"
        "    return inverse, inverse @ (x + (1 + alpha) * y)",
        # b grows, but A x does, too
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n"
        "    inverse = inverse - alpha * np.outer(step, step) / (1 + alpha * y @ step)\n"
        "    return inverse, x + (1 + alpha) * inverse @ y",
        # with the inverse from before
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n"
        "    new = inverse - alpha * np.outer(step, step) / (1 + alpha * y @ step)\n"
        "    return new, x + (1 + alpha - alpha * (y @ x)) * step",
        # 1 + alpha in A, which holds 1 for every cell already
        "def one_more_like(inverse, x, y, alpha):\n    c = 1 + alpha\n    step = inverse @ y\n"
        "    inverse = inverse - c * np.outer(step, step) / (1 + c * y @ step)\n"
        "    return inverse, x + (c - c * (y @ x)) * inverse @ y",
        # alpha in b
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n"
        "    inverse = inverse - alpha * np.outer(step, step) / (1 + alpha * y @ step)\n"
        "    return inverse, x + (alpha - alpha * (y @ x)) * inverse @ y",
        # A for its inverse
        "def one_more_like(inverse, x, y, alpha):\n    A = np.linalg.inv(inverse) + alpha * np.outer(y, y)\n"
        "    return A, x + np.linalg.solve(A, (1 + alpha - alpha * (y @ x)) * y)",
        # the inputs changed
        "def one_more_like(inverse, x, y, alpha):\n    step = inverse @ y\n    scale = 1 + alpha * (y @ step)\n"
        "    x += (1 + alpha - alpha * (y @ x)) / scale * step\n"
        "    inverse -= alpha * np.outer(step, step) / scale\n    return inverse, x",
        "def one_more_like(inverse, x, y, alpha):\n    return np.eye(len(x)), np.zeros(len(x))",
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
        # no choice
        'def prediction():\n    return "d"',
        'def prediction():\n    return "the lists are other ones"',
        "def prediction():\n    return None",
        "def prediction():\n    return 3",
        'def prediction():\n    return "abc"',
    ],
    ("04_warp", 2): [
        # >= for >
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    ranks = [(others >= scores[i] - margin).sum() for i in liked]\n"
        "    return sum(1 / k for r in ranks for k in range(1, r + 1))",
        # liked items, and the item itself, violate
        "def objective(scores, liked, margin):\n"
        "    ranks = [(scores > scores[i] - margin).sum() for i in liked]\n"
        "    return sum(1 / k for r in ranks for k in range(1, r + 1))",
        # no margin
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    ranks = [(others > scores[i]).sum() for i in liked]\n"
        "    return sum(1 / k for r in ranks for k in range(1, r + 1))",
        # the rank itself
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    return sum((others > scores[i] - margin).sum() for i in liked)",
        # a logarithm
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    return sum(np.log1p((others > scores[i] - margin).sum()) for i in liked)",
        # one term too few
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    ranks = [(others > scores[i] - margin).sum() for i in liked]\n"
        "    return sum(1 / k for r in ranks for k in range(1, r))",
        # the hinge
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    return sum(np.maximum(0, margin - scores[i] + others).sum() for i in liked)",
        # the mean over the liked items
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    ranks = [(others > scores[i] - margin).sum() for i in liked]\n"
        "    return sum(1 / k for r in ranks for k in range(1, r + 1)) / max(len(liked), 1)",
        # a value learned by heart
        "def objective(scores, liked, margin):\n    return {4: 2.0, 5: 11 / 6}.get(len(scores), 0.0)",
    ],
    ("04_warp", 3): [
        # of the searches that find something
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
        "def smallest_penalty(R, alpha):\n    return np.sqrt(np.linalg.eigvalsh(R.T @ R)[-1]) * (alpha + 1)",
    ],
    ("02_als", 3): [
        # by the definition
        "def one_more_like(inverse, x, y, alpha):\n    A = np.linalg.inv(inverse)\n    b = A @ x + (1 + alpha) * y\n"
        "    new = np.linalg.inv(A + alpha * np.outer(y, y))\n    return new.tolist(), (new @ b).tolist()",
        # in torch, by the residual
        "def one_more_like(inverse, x, y, alpha):\n    A, x, y = map(torch.as_tensor, (inverse, x, y))\n"
        "    A = A - alpha * A @ y[:, None] @ (y @ A)[None] / (1 + alpha * y @ A @ y)\n"
        "    return A, x + A @ ((1 + alpha) * y - alpha * y * (x @ y))",
        # in loops
        "def one_more_like(inverse, x, y, alpha):\n    F = range(len(x))\n"
        "    step = [sum(inverse[f][g] * y[g] for g in F) for f in F]\n"
        "    scale = 1 + alpha * sum(y[f] * step[f] for f in F)\n"
        "    lacks = 1 + alpha - alpha * sum(x[f] * y[f] for f in F)\n"
        "    return ([[inverse[f][g] - alpha * step[f] * step[g] / scale for g in F] for f in F],\n"
        "            [x[f] + lacks / scale * step[f] for f in F])",
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
    ("04_warp", 1): [
        'def prediction():\n    return "a"',
        'def prediction():\n    return "b"',
        'def prediction():\n    return np.array(["b", "c"])[1]',
    ],
    ("04_warp", 2): [
        # lists and loops
        "def objective(scores, liked, margin):\n"
        "    scores, liked, total = list(scores), set(int(i) for i in liked), 0\n"
        "    for i in liked:\n        r = 0\n"
        "        for j, score in enumerate(scores):\n"
        "            if j not in liked and score > scores[i] - margin:\n"
        "                r += 1\n                total += 1 / r\n"
        "    return total",
        # torch
        "def objective(scores, liked, margin):\n    scores = torch.as_tensor(scores)\n"
        "    liked = torch.as_tensor(liked)\n    others = torch.ones(len(scores), dtype=torch.bool)\n"
        "    others[liked] = False\n"
        "    violates = scores[others] > scores[liked][:, None] - margin\n"
        "    L = torch.cat([torch.zeros(1), 1 / torch.arange(1.0, len(scores) + 1)]).cumsum(0)\n"
        "    return L[violates.sum(1)].sum()",
        # recursion, and a result in an array
        "def L(r):\n    return 0 if r == 0 else L(r - 1) + 1 / r\n\n\n"
        "def objective(scores, liked, margin):\n    others = np.delete(scores, liked)\n"
        "    return np.array([sum(L((others > scores[i] - margin).sum()) for i in liked)])",
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


@pytest.mark.parametrize(
    ("notebook", "exercise"),
    [("01_svd", 2), ("02_als", 2), ("03_bpr", 1), ("03_bpr", 2), ("04_warp", 1), ("04_warp", 3)],
)
def test_these_exercises_can_be_checked_before_the_kernels_are_written(
    notebook, exercise, monkeypatch
):
    for task, entry in RUBRIC.items():
        for name in entry["functions"]:
            monkeypatch.setattr(f"mflib.{task}.{name}", not_written)
    cells, namespace = NOTEBOOKS[notebook], {}
    for cell in ("imports", "loop", f"exercise-{exercise}", f"exercise-{exercise}-check"):
        exec(cells[cell], namespace)


def not_written(*_, **__):
    raise NotImplementedError("a kernel")
