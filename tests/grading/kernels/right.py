"""Right answers in different styles, by function and style: code that replaces the reference's.

A kernel's code replaces the function in its module, a loop's code replaces its cell. Right answers
to exercises are in tests/notebooks/test_exercises.py.
"""

SVD, BPR, WARP = "svd/svd_step", "bpr/bpr_step", "warp/warp_step"
HEAD = "P, Q, b_u, b_i, mu, entries, ratings, learning_rate, regularization"
BHEAD = "P, Q, b, likes, negatives, learning_rate, user_regularization, item_regularization"
WHEAD = "P, Q, users, known, rows, positives, draws, rank_weights, margin, learning_rate, regularization"
# A plain right step, to be wrapped in this style and that.
PLAIN = """
    users, items = entries.rows.long(), entries.columns.long()
    p, q, bu, bi = P[users], Q[items], b_u[users], b_i[items]
    e = ratings - mu - bu - bi - (p * q).sum(1)
    losses = e * e / 2
    lr, reg = learning_rate, regularization
    lr_u = (1 / entries.row_counts.to(P)).clamp(max=lr)[users]
    lr_i = (1 / entries.column_counts.to(P)).clamp(max=lr)[items]
    P.index_add_(0, users, lr_u[:, None] * (e[:, None] * q - reg * p))
    Q.index_add_(0, items, lr_i[:, None] * (e[:, None] * p - reg * q))
    b_u.index_add_(0, users, lr_u * (e - reg * bu))
    b_i.index_add_(0, items, lr_i * (e - reg * bi))
    return losses
"""
BPLAIN = """
    users, positives = likes.rows.long(), likes.columns.long()
    p, qi, qj = P[users], Q[positives], Q[negatives]
    x = b[positives] - b[negatives] + (p * (qi - qj)).sum(1)
    g = 1 / (1 + torch.exp(x))
    bi, bj = b[positives].clone(), b[negatives].clone()
    n_i = torch.bincount(torch.cat([positives, negatives]), minlength=len(Q))
    rate_u = (4 / likes.row_counts.to(P)).clamp(max=learning_rate)[users]
    rate = (4 / n_i.to(P)).clamp(max=learning_rate)
    rate_i, rate_j = rate[positives], rate[negatives]
    P.index_add_(0, users, rate_u[:, None] * (g[:, None] * (qi - qj) - user_regularization * p))
    Q.index_add_(0, positives, rate_i[:, None] * (g[:, None] * p - item_regularization * qi))
    Q.index_add_(0, negatives, rate_j[:, None] * (-g[:, None] * p - item_regularization * qj))
    b.index_add_(0, positives, rate_i * (g - item_regularization * bi))
    b.index_add_(0, negatives, rate_j * (-g - item_regularization * bj))
    return torch.nn.functional.softplus(-x)
"""
WLOOP = """
    old_P, old_Q, likes = P.clone(), Q.clone(), set(known.tolist())
    losses, needed = P.new_zeros(len(rows)), torch.zeros_like(rows)
    for k, (row, i) in enumerate(zip(rows.tolist(), positives.tolist())):
        u = users[row]
        p, qi = old_P[u], old_Q[i]
        for d, j in enumerate(draws[:, k].tolist(), 1):
            excess = margin - p @ qi + p @ old_Q[j]
            if excess > 0 and row * len(Q) + j not in likes:
                weight = rank_weights[(len(Q) - 1) // d]
                losses[k], needed[k] = weight * excess, d
                P[u] += learning_rate * (weight * (qi - old_Q[j]) - regularization * p)
                Q[i] += learning_rate * (weight * p - regularization * qi)
                Q[j] -= learning_rate * (weight * p + regularization * old_Q[j])
                break
    return losses, needed
"""

RIGHT = {
    (SVD, "plain indexing"): f"def svd_step({HEAD}):{PLAIN}",
    (SVD, "autograd on copies"): f"""
def svd_step({HEAD}):
    users, items = entries.rows.long(), entries.columns.long()
    leaves = [W.detach().clone().requires_grad_(True) for W in (P, Q, b_u, b_i)]
    p, q, x, y = leaves[0][users], leaves[1][items], leaves[2][users], leaves[3][items]
    losses = (ratings - (mu + x + y + (p * q).sum(1))) ** 2 / 2
    penalty = regularization / 2 * sum((W**2).sum() for W in (p, q, x, y))
    (losses.sum() + penalty).backward()
    rate_u, rate_i = (
        torch.where(n * learning_rate > 1, 1 / n, learning_rate)
        for n in (entries.row_counts.double(), entries.column_counts.double())
    )
    with torch.no_grad():
        P.sub_(rate_u[:, None] * leaves[0].grad)
        Q.sub_(rate_i[:, None] * leaves[1].grad)
        b_u.sub_(rate_u * leaves[2].grad)
        b_i.sub_(rate_i * leaves[3].grad)
    return losses.detach()
""",
    (SVD, "autograd on the arguments, left on them"): f"""
def svd_step({HEAD}):
    users, items = entries.rows.long(), entries.columns.long()
    for W in (P, Q, b_u, b_i):
        W.requires_grad_(True)
    p, q, x, y = P[users], Q[items], b_u[users], b_i[items]
    losses = (ratings - (mu + x + y + (p * q).sum(1))) ** 2 / 2
    penalty = regularization / 2 * sum((W**2).sum() for W in (p, q, x, y))
    grads = torch.autograd.grad(losses.sum() + penalty, (P, Q, b_u, b_i))
    with torch.no_grad():
        for W, grad, ids in zip((P, Q, b_u, b_i), grads, (users, items, users, items)):
            n = ids.bincount(minlength=len(W)).to(W)
            W.sub_((grad.T / n.clamp(min=1 / learning_rate)).T)
    return losses
""",
    (SVD, "an optimizer of torch"): f"""
def svd_step({HEAD}):
    users, items = entries.rows.long(), entries.columns.long()
    tables = [torch.nn.Parameter(W.clone()) for W in (P, Q, b_u, b_i)]
    optimizer = torch.optim.SGD(tables, lr=learning_rate)
    p, q, x, y = tables[0][users], tables[1][items], tables[2][users], tables[3][items]
    losses = (ratings - (mu + x + y + (p * q).sum(1))) ** 2 / 2
    (losses.sum() + regularization / 2 * sum((W**2).sum() for W in (p, q, x, y))).backward()
    with torch.no_grad():
        for table, n in zip(tables, 2 * (entries.row_counts, entries.column_counts)):
            too_long = n * learning_rate > 1
            table.grad[too_long] /= (n * learning_rate)[too_long].view(-1, *[1] * (table.dim() - 1))
    optimizer.step()
    for W, table in zip((P, Q, b_u, b_i), tables):
        W.copy_(table.data)
    return losses.detach()
""",
    (SVD, "einsum and one-hot matrices"): f"""
def svd_step({HEAD}):
    U = torch.nn.functional.one_hot(entries.rows.long(), len(P)).to(P)
    I = torch.nn.functional.one_hot(entries.columns.long(), len(Q)).to(P)
    p, q = torch.einsum("bu,uf->bf", U, P), torch.einsum("bi,if->bf", I, Q)
    bu, bi = U @ b_u, I @ b_i
    e = ratings - mu - bu - bi - torch.einsum("bf,bf->b", p, q)
    U *= (1 / U.sum(0)).nan_to_num().clamp(max=learning_rate)
    I *= (1 / I.sum(0)).nan_to_num().clamp(max=learning_rate)
    P += torch.einsum("bu,b,bf->uf", U, e, q) - regularization * U.T @ p
    Q += torch.einsum("bi,b,bf->if", I, e, p) - regularization * I.T @ q
    b_u += U.T @ (e - regularization * bu)
    b_i += I.T @ (e - regularization * bi)
    return e * e / 2
""",
    (SVD, "sparse products"): f"""
def svd_step({HEAD}):
    users, items = entries.rows.long(), entries.columns.long()
    n, ones = len(users), torch.ones(len(users), dtype=P.dtype)
    U = torch.sparse_coo_tensor(torch.stack([users, torch.arange(n)]), ones, (len(P), n))
    I = torch.sparse_coo_tensor(torch.stack([items, torch.arange(n)]), ones, (len(Q), n))
    p, q, bu, bi = P[users], Q[items], b_u[users], b_i[items]
    e = ratings - mu - bu - bi - (p * q).sum(1)
    s = torch.full((len(P), 1), learning_rate).to(P).minimum(1 / U.sum(1).to_dense()[:, None])
    t = torch.full((len(Q), 1), learning_rate).to(P).minimum(1 / I.sum(1).to_dense()[:, None])
    P += s * torch.sparse.mm(U, e[:, None] * q - regularization * p)
    Q += t * torch.sparse.mm(I, e[:, None] * p - regularization * q)
    b_u += (s * torch.sparse.mm(U, (e - regularization * bu)[:, None]))[:, 0]
    b_i += (t * torch.sparse.mm(I, (e - regularization * bi)[:, None]))[:, 0]
    return 0.5 * e.square()
""",
    (SVD, "a loop over the batch"): f"""
from collections import Counter


def svd_step({HEAD}):
    old = [W.clone() for W in (P, Q, b_u, b_i)]
    users, items = entries.rows.tolist(), entries.columns.tolist()
    times_u, times_i = Counter(users), Counter(items)
    losses = []
    for u, i, r in zip(users, items, ratings):
        p, q, x, y = old[0][u], old[1][i], old[2][u], old[3][i]
        e = r - mu - x - y - p.dot(q)
        fast, slow = min(learning_rate, 1 / times_u[u]), min(learning_rate, 1 / times_i[i])
        P[u] += fast * (e * q - regularization * p)
        Q[i] += slow * (e * p - regularization * q)
        b_u[u] += fast * (e - regularization * x)
        b_i[i] += slow * (e - regularization * y)
        losses.append(e**2 / 2)
    return torch.stack(losses)
""",
    (SVD, "numpy, on shared memory"): f"""
import numpy as np


def svd_step({HEAD}):
    A, B, c, d = (W.numpy() for W in (P, Q, b_u, b_i))
    u, i = entries.rows.numpy(), entries.columns.numpy()
    p, q, x, y = A[u], B[i], c[u], d[i]
    e = ratings.numpy() - mu - x - y - np.einsum("bf,bf->b", p, q)
    k, m = np.bincount(u, minlength=len(A)), np.bincount(i, minlength=len(B))
    f = np.minimum(learning_rate, 1 / np.maximum(k, 1))[u]
    g = np.minimum(learning_rate, 1 / np.maximum(m, 1))[i]
    np.add.at(A, u, f[:, None] * (e[:, None] * q - regularization * p))
    np.add.at(B, i, g[:, None] * (e[:, None] * p - regularization * q))
    np.add.at(c, u, f * (e - regularization * x))
    np.add.at(d, i, g * (e - regularization * y))
    return e**2 / 2
""",
    (SVD, "losses as a list of numbers"): f"""
def in_place({HEAD}):{PLAIN}

def svd_step({HEAD}):
    losses = in_place({HEAD})
    return losses.tolist()
""",
    (SVD, "losses as a tuple of tensors"): f"""
def in_place({HEAD}):{PLAIN}

def svd_step({HEAD}):
    return tuple(in_place({HEAD}))
""",
    (SVD, "scatter_add_ and index_put_"): f"""
def svd_step({HEAD}):
    users, items = entries.rows.long(), entries.columns.long()
    p, q, bu, bi = P[users], Q[items], b_u[users], b_i[items]
    e = ratings - (mu + bu + bi + (p * q).sum(-1))
    ones = torch.ones_like(e)
    how_often = torch.zeros_like(b_u).scatter_add_(0, users, ones).gather(0, users)
    how_often_i = torch.zeros_like(b_i).scatter_add_(0, items, ones).gather(0, items)
    step_u = how_often.reciprocal().clip(max=learning_rate)
    step_i = how_often_i.reciprocal().clip(max=learning_rate)
    along = step_u.unsqueeze(1) * (e.unsqueeze(1) * q - regularization * p)
    P.scatter_add_(0, users[:, None].expand_as(p), along)
    across = step_i.unsqueeze(1) * (e.unsqueeze(1) * p - regularization * q)
    Q.index_put_((items,), across, accumulate=True)
    b_u.scatter_add_(0, users, step_u * (e - regularization * bu))
    b_i.scatter_add_(0, items, step_i * (e - regularization * bi))
    return e.pow(2).div(2)
""",
    (SVD, "users one by one"): f"""
def svd_step({HEAD}):
    users, items = entries.rows, entries.columns
    p, q, bu, bi = P[users], Q[items], b_u[users], b_i[items]
    e = ratings - mu - bu - bi - (p * q).sum(1)
    reg = regularization
    for u in users.unique():
        mine = users == u
        lr = min(learning_rate, 1 / mine.sum().item())
        P[u] += lr * (e[mine] @ q[mine] - reg * p[mine].sum(0))
        b_u[u] += lr * (e[mine].sum() - reg * bu[mine].sum())
    for i in items.unique():
        mine = items == i
        lr = min(learning_rate, 1 / mine.sum().item())
        Q[i] += lr * (e[mine] @ p[mine] - reg * q[mine].sum(0))
        b_i[i] += lr * (e[mine].sum() - reg * bi[mine].sum())
    return e**2 / 2
""",
    (SVD, "biases in columns of the factors"): f"""
def svd_step({HEAD}):
    one_u, one_i = torch.ones_like(b_u)[:, None], torch.ones_like(b_i)[:, None]
    X = torch.cat([P, b_u[:, None], one_u], 1)
    Y = torch.cat([Q, one_i, b_i[:, None]], 1)
    E = ratings - mu - entries.dot(X, Y)
    n_u, n_i = (n[:, None].to(P) for n in (entries.row_counts, entries.column_counts))
    to_X = entries.matrix(E) @ Y - regularization * n_u * X
    to_Y = entries.transposed(E) @ X - regularization * n_i * Y
    X += to_X / n_u.clamp(min=1 / learning_rate)
    Y += to_Y / n_i.clamp(min=1 / learning_rate)
    P[:], b_u[:] = X[:, :-2], X[:, -2]
    Q[:], b_i[:] = Y[:, :-2], Y[:, -1]
    return E * E / 2
""",
    (SVD, "functional, with a copy back"): f"""
def updated({HEAD}):
    P, Q, b_u, b_i = (W.clone() for W in (P, Q, b_u, b_i)){PLAIN.replace("return losses", "return P, Q, b_u, b_i, losses")}

def svd_step({HEAD}):
    *new, losses = updated({HEAD})
    for old, W in zip((P, Q, b_u, b_i), new):
        old[:] = W
    return losses
""",
    (SVD, "float32 inside"): f"""
def svd_step({HEAD}):
    small = [W.float() for W in (P, Q, b_u, b_i)]
    losses = in_float32(*small, mu, entries, ratings.float(), learning_rate, regularization)
    for W, own in zip((P, Q, b_u, b_i), small):
        W.copy_(own)
    return losses


def in_float32({HEAD}):{PLAIN}""",
    (
        SVD,
        "no_grad called on a function",
    ): f"def _step({HEAD}):{PLAIN}\n\nsvd_step = torch.no_grad()(_step)\n",
    (SVD, "the decorator no_grad"): f"@torch.no_grad()\ndef svd_step({HEAD}):{PLAIN}",
    (SVD, "inference mode"): f"@torch.inference_mode()\ndef svd_step({HEAD}):{PLAIN}",
    (SVD, "a decorator of one's own and a logger"): f"""
import functools
import logging

logger = logging.getLogger(__name__)


def logged(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        logger.debug("%s", function.__name__)
        return function(*args, **kwargs)

    return call


@logged
def svd_step({HEAD}):{PLAIN}""",
    (SVD, "a class with __call__"): f"""
class Step:
    calls: int = 0

    def __call__(self, {HEAD}):
        self.calls += 1{PLAIN.replace(chr(10), chr(10) + "    ")}

svd_step = Step()
""",
    (SVD, "a dataclass for the batch"): f"""
from dataclasses import dataclass as record


@record
class Rows:
    users: Tensor
    items: Tensor
    ratings: Tensor


def svd_step({HEAD}):
    rows = Rows(entries.rows, entries.columns, ratings)
    assert type(rows) is Rows{PLAIN}""",
    (
        SVD,
        "constants with annotations",
    ): f"EPS: float = 1e-12\nSCALE: int = 1\n\n\ndef svd_step({HEAD}):{PLAIN.replace('/ 2', '/ (2 * SCALE)')}",
    (
        SVD,
        "guarded imports",
    ): f"try:\n    import cupy as xp\nexcept ImportError:\n    xp = None\n\n\ndef svd_step({HEAD}):{PLAIN}",
    (
        SVD,
        "tqdm",
    ): f"from tqdm import tqdm\n\n\ndef svd_step({HEAD}):\n    for _ in tqdm(range(3), disable=True):\n        pass{PLAIN}",
    (SVD, "a helper that asks for types"): f"""
def as_float(x):
    return float(x) if type(x) is not float else x


def svd_step({HEAD}):
    mu = as_float(mu){PLAIN}""",
    (SVD, "other names of arguments, keywords of its own"): """
def svd_step(P, Q, bu, bi, mean, batch, r, lr=0.01, lam=0.1, *, verbose=False):
    u, i = batch.rows, batch.columns
    p, q, x, y = P[u], Q[i], bu[u], bi[i]
    e = r - mean - x - y - (p * q).sum(1)
    n, m = (ids.long().bincount()[ids].to(P) for ids in (u, i))
    n, m = (1 / torch.stack([n, m])).clamp(max=lr)
    P.index_add_(0, u, n[:, None] * (e[:, None] * q - lam * p))
    Q.index_add_(0, i, m[:, None] * (e[:, None] * p - lam * q))
    bu.index_add_(0, u, n * (e - lam * x))
    bi.index_add_(0, i, m * (e - lam * y))
    return e**2 / 2
""",
    (SVD, "arguments as a star"): f"def svd_step(*arguments):\n    {HEAD} = arguments{PLAIN}",
    (SVD, "tensors' data assigned"): f"""
def svd_step({HEAD}):
    own = [W.clone() for W in (P, Q, b_u, b_i)]
    losses = plain_step(*own, mu, entries, ratings, learning_rate, regularization)
    for W, new in zip((P, Q, b_u, b_i), own):
        W.data.copy_(new)
    return losses


def plain_step({HEAD}):{PLAIN}""",
    (
        SVD,
        "prints and warnings",
    ): f"import warnings\n\n\ndef svd_step({HEAD}):\n    print('step')\n    warnings.warn('slow'){PLAIN}",
    (BPR, "plain indexing"): f"def bpr_step({BHEAD}):{BPLAIN}",
    (BPR, "autograd and logsigmoid"): f"""
def bpr_step({BHEAD}):
    users, positives = likes.rows.long(), likes.columns.long()
    A, B, c = (W.clone().requires_grad_() for W in (P, Q, b))
    p, qi, qj, bi, bj = A[users], B[positives], B[negatives], c[positives], c[negatives]
    losses = -torch.nn.functional.logsigmoid(bi - bj + (p * (qi - qj)).sum(1))
    penalty = user_regularization / 2 * p.pow(2).sum()
    penalty = penalty + item_regularization / 2 * sum(W.pow(2).sum() for W in (qi, qj, bi, bj))
    (losses.sum() + penalty).backward()
    n_u, n_i = users.bincount(minlength=len(P)), positives.bincount(minlength=len(Q))
    n_i = n_i + negatives.bincount(minlength=len(Q))
    for W, leaf, n in ((P, A, n_u), (Q, B, n_i), (b, c, n_i)):
        rate = torch.where(n > 4 / learning_rate, 4 / n.double(), learning_rate)
        W.sub_((leaf.grad.T * rate).T)
    return losses.detach()
""",
    (BPR, "a loop over triples"): f"""
def bpr_step({BHEAD}):
    users, positives = likes.rows.tolist(), likes.columns.tolist()
    old_P, old_Q, old_b, losses = P.clone(), Q.clone(), b.clone(), torch.zeros(len(users)).to(P)
    for n, (u, i, j) in enumerate(zip(users, positives, negatives.tolist())):
        x = old_b[i] - old_b[j] + old_P[u] @ (old_Q[i] - old_Q[j])
        g = torch.sigmoid(-x)
        of_u = min(learning_rate, 4 / users.count(u))
        of_i, of_j = (
            min(learning_rate, 4 / (positives.count(k) + int((negatives == k).sum())))
            for k in (i, j)
        )
        P[u] += of_u * (g * (old_Q[i] - old_Q[j]) - user_regularization * old_P[u])
        Q[i] += of_i * (g * old_P[u] - item_regularization * old_Q[i])
        Q[j] -= of_j * (g * old_P[u] + item_regularization * old_Q[j])
        b[i] += of_i * (g - item_regularization * old_b[i])
        b[j] -= of_j * (g + item_regularization * old_b[j])
        losses[n] = torch.logaddexp(torch.zeros_like(x), -x)
    return losses
""",
    (BPR, "both items at once"): f"""
def bpr_step({BHEAD}):
    items, n = torch.cat([likes.columns, negatives]), len(likes)
    users = likes.rows.repeat(2)
    sign = torch.cat([torch.ones(n), -torch.ones(n)]).to(P)
    p, q, bias = P[users], Q[items], b[items]
    x = (sign * (bias + (p * q).sum(1))).view(2, n).sum(0)
    g = torch.sigmoid(-x).repeat(2)
    counts = torch.bincount(users) / 2, torch.bincount(items)
    rate_u, rate_i = ((4 / c.to(P)).clamp(max=learning_rate) for c in counts)
    rate_u, rate_i = rate_u[users][:, None], rate_i[items]
    up = sign * g
    P.index_add_(0, users, rate_u * (up[:, None] * q - user_regularization / 2 * p))
    Q.index_add_(0, items, rate_i[:, None] * (up[:, None] * p - item_regularization * q))
    b.index_add_(0, items, rate_i * (up - item_regularization * bias))
    return torch.where(x > 0, torch.log1p(torch.exp(-x.abs())), torch.log1p(torch.exp(-x.abs())) - x)
""",
    (
        BPR,
        "the annotated constant that cost everything",
    ): f"EPS: float = 1e-12\n\n\ndef bpr_step({BHEAD}):{BPLAIN}",
    (
        BPR,
        "no_grad called on a function",
    ): f"def _step({BHEAD}):{BPLAIN}\n\nbpr_step = torch.no_grad()(_step)\n",
    (BPR, "numpy, added at"): f"""
import numpy as np


def bpr_step({BHEAD}):
    u, i, j = likes.rows.numpy(), likes.columns.numpy(), negatives.numpy()
    A, B, c = P.numpy(), Q.numpy(), b.numpy()
    p, qi, qj, bi, bj = A[u], B[i], B[j], c[i], c[j]
    x = bi - bj + ((qi - qj) * p).sum(1)
    g = 1 / (1 + np.exp(x))
    ids, place, times = np.unique(np.r_[i, j], return_inverse=True, return_counts=True)
    ri, rj = np.split(np.fmin(learning_rate, 4 / times)[place.ravel()], 2)
    ru = np.array([[min(learning_rate, 4 / (u == own).sum())] for own in u])
    np.add.at(A, u, ru * (g[:, None] * (qi - qj) - user_regularization * p))
    np.add.at(B, i, ri[:, None] * (g[:, None] * p - item_regularization * qi))
    np.add.at(B, j, rj[:, None] * (-g[:, None] * p - item_regularization * qj))
    np.add.at(c, i, ri * (g - item_regularization * bi))
    np.add.at(c, j, rj * (-g - item_regularization * bj))
    return torch.from_numpy(np.logaddexp(0, -x))
""",
    ("als/over_entries", "row by row"): """
def over_entries(blocks, X, Y, value):
    total = torch.zeros_like(X)
    for columns, excess, weighted in blocks:
        start = excess.crow_indices().tolist()
        for u in range(len(X)):
            own = slice(start[u], start[u + 1])
            y = Y[columns][excess.col_indices()[own]]
            total[u] += value(y @ X[u], excess.values()[own], weighted[own]) @ y
    return total
""",
    ("als/over_entries", "coordinates and index_add"): """
def over_entries(blocks, X, Y, value):
    total = X.new_zeros(X.shape)
    for columns, excess, weighted in blocks:
        coo = excess.to_sparse_coo().coalesce()
        rows, cols = coo.indices()
        y = Y[columns][cols]
        total.index_add_(0, rows, value((X[rows] * y).sum(1), coo.values(), weighted)[:, None] * y)
    return total
""",
    ("als/over_entries", "dense blocks"): """
def over_entries(blocks, X, Y, value):
    parts = []
    for columns, excess, weighted in blocks:
        rows, cols = excess.to_sparse_coo().indices()
        dense = torch.zeros(excess.shape, dtype=X.dtype)
        dense[rows, cols] = value((X @ Y[columns].T)[rows, cols], excess.values(), weighted)
        parts.append(dense @ Y[columns])
    return sum(parts)
""",
    ("als/conjugate_gradient", "a function for A x"): """
def conjugate_gradient(X, Y, blocks, penalty, steps):
    gram = Y.T @ Y

    def A(V):
        return V @ gram + penalty * V + over_entries(blocks, V, Y, lambda xy, excess, weighted: excess * xy)

    r = over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted) - A(X)
    d, rr = r.clone(), (r * r).sum(1, keepdim=True)
    for _ in range(steps):
        Ad = A(d)
        alpha = rr / ((d * Ad).sum(1, keepdim=True) + 1e-300)
        X.add_(alpha * d)
        r = r - alpha * Ad
        new = (r * r).sum(1, keepdim=True)
        d, rr = r + new / (rr + 1e-300) * d, new
""",
    ("als/conjugate_gradient", "row by row, dense"): """
def conjugate_gradient(X, Y, blocks, penalty, steps):
    excess = torch.cat([e.to_dense() for _, e, _ in blocks], 1)
    weighted = torch.cat([_as_dense(e, v) for _, e, v in blocks], 1)
    for u in range(len(X)):
        A = Y.T @ Y + penalty[u] * torch.eye(Y.shape[1]).to(Y) + (Y.T * excess[u]) @ Y
        r = Y.T @ weighted[u] - A @ X[u]
        d = r
        for _ in range(steps):
            if r @ r < 1e-280:
                break
            a = (r @ r) / (d @ A @ d)
            X[u] += a * d
            new = r - a * (A @ d)
            d, r = new + (new @ new) / (r @ r) * d, new


def _as_dense(pattern, values):
    return torch.sparse_csr_tensor(
        pattern.crow_indices(), pattern.col_indices(), values, pattern.shape
    ).to_dense()
""",
    ("als/cholesky", "solved row by row"): """
def cholesky(X, Y, blocks, penalty):
    b = over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted)
    for u in range(len(X)):
        A = Y.T @ Y + penalty[u] * torch.eye(Y.shape[1], dtype=Y.dtype)
        for columns, excess, _ in blocks:
            y = Y[columns]
            A = A + (y.T * excess[u].to_dense()) @ y
        X[u] = torch.linalg.solve(A, b[u])
""",
    ("als/cholesky", "all at once, by einsum"): """
def cholesky(X, Y, blocks, penalty):
    A = (Y.T @ Y)[None] + penalty[:, :, None] * torch.eye(Y.shape[1]).to(Y)
    for columns, excess, _ in blocks:
        A = A + torch.einsum("ui,if,ig->ufg", excess.to_dense(), Y[columns], Y[columns])
    b = over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted)
    X[:] = torch.linalg.inv(A).matmul(b[..., None]).squeeze(-1)
""",
    ("als/cholesky", "scipy's solver"): """
from scipy.linalg import cho_factor, cho_solve


def cholesky(X, Y, blocks, penalty):
    y, b = Y.numpy(), over_entries(blocks, X, Y, lambda xy, excess, weighted: weighted).numpy()
    whole = np.hstack([excess.to_dense().numpy() for _, excess, _ in blocks])
    for u, row in enumerate(whole):
        A = y.T @ y + float(penalty[u]) * np.eye(y.shape[1]) + (y.T * row) @ y
        X[u] = torch.from_numpy(cho_solve(cho_factor(A), b[u]))
""",
    ("warp/first_violations", "one by one"): """
def first_violations(scores, rows, limits, draws):
    needed = torch.zeros_like(rows)
    for k in range(len(rows)):
        for d in range(len(draws)):
            if scores(rows[k : k + 1], draws[d, k : k + 1]) > limits[k]:
                needed[k] = d + 1
                break
    return needed
""",
    ("warp/first_violations", "all draws at once"): """
def first_violations(scores, rows, limits, draws):
    violates = scores(rows.expand_as(draws), draws) > limits
    place = torch.arange(1, len(draws) + 1)[:, None].where(violates, len(draws) + 1).amin(0)
    return place.where(place <= len(draws), 0)
""",
    ("warp/first_violations", "numpy, draw by draw"): """
def first_violations(scores, rows, limits, draws):
    needed = np.zeros(len(rows), dtype=np.int64)
    for d, candidates in enumerate(draws, 1):
        hit = (scores(rows, candidates) > limits).numpy()
        needed[hit & (needed == 0)] = d
    return torch.from_numpy(needed)
""",
    (WARP, "positive by positive"): f"def warp_step({WHEAD}):{WLOOP}",
    (WARP, "dense scores, all draws at once"): f"""
def warp_step({WHEAD}):
    scores = P[users] @ Q.T
    scores.view(-1)[known] = -torch.inf
    p, qi = P[users[rows]], Q[positives]
    limits = (p * qi).sum(1) - margin
    violates = scores[rows, draws] > limits
    needed = torch.where(violates.any(0), violates.int().argmax(0) + 1, 0)
    ok = needed > 0
    u, i, j = users[rows][ok], positives[ok], draws[(needed - 1).clamp(min=0), torch.arange(len(rows))][ok]
    w = rank_weights[(len(Q) - 1) // needed[ok]]
    losses = torch.zeros(len(rows), dtype=P.dtype)
    losses[ok] = w * (scores[rows[ok], j] - limits[ok])
    p, qi, qj = P[u], Q[i], Q[j]
    P.index_add_(0, u, learning_rate * (w[:, None] * (qi - qj) - regularization * p))
    Q.index_add_(0, i, learning_rate * (w[:, None] * p - regularization * qi))
    Q.index_add_(0, j, learning_rate * (-w[:, None] * p - regularization * qj))
    return losses, needed
""",
    (
        WARP,
        "a list of two",
    ): f"def warp_step({WHEAD}):{WLOOP.replace('return losses, needed', 'return [losses, needed]')}",
    (
        WARP,
        "no_grad called on a function",
    ): f"def _step({WHEAD}):{WLOOP}\n\nwarp_step = torch.no_grad()(_step)\n",
    ("svd/textbook", "without a loop"): """
def textbook(P, Q, b_u, b_i, mu, users, items, ratings, learning_rate, reg):
    p, q, x, y = P[users], Q[items], b_u[users], b_i[items]
    e = ratings - (mu + x + y + (p * q).sum(1))
    r, s = (
        (1 / torch.bincount(ids)[ids].double()).clamp(max=learning_rate) for ids in (users, items)
    )
    P.index_add_(0, users, r[:, None] * (e[:, None] * q - reg * p))
    Q.index_add_(0, items, s[:, None] * (e[:, None] * p - reg * q))
    b_u.index_add_(0, users, r * (e - reg * x))
    b_i.index_add_(0, items, s * (e - reg * y))
""",
    ("svd/textbook", "numpy, sums kept apart"): """
import math

RATE_OF_BIAS: float = 1.0


def textbook(P, Q, b_u, b_i, mu, users, items, ratings, learning_rate, reg):
    moves = [np.zeros(tuple(W.shape)) for W in (P, Q, b_u, b_i)]
    count = [np.zeros(len(W), int) for W in (P, Q)]
    for n in range(len(users)):
        u, i, r = int(users[n]), int(items[n]), float(ratings[n])
        p, q = P[u].numpy(), Q[i].numpy()
        e = r - mu - float(b_u[u]) - float(b_i[i]) - math.fsum(p * q)
        count[0][u] += 1
        count[1][i] += 1
        moves[0][u] += e * q - reg * p
        moves[1][i] += e * p - reg * q
        moves[2][u] += RATE_OF_BIAS * e - reg * float(b_u[u])
        moves[3][i] += RATE_OF_BIAS * e - reg * float(b_i[i])
    for W, move, times in zip((P, Q, b_u, b_i), moves, count + count):
        rate = np.where(times > 1 / learning_rate, 1 / np.maximum(times, 1), learning_rate)
        W += torch.from_numpy((move.T * rate).T)
""",
    ("als/textbook", "only the stored entries, with the gram matrix"): """
def textbook(X, Y, R, alpha, reg):
    gram = Y.T @ Y + reg * torch.eye(Y.shape[1]).to(Y)
    for u in range(X.shape[0]):
        row = R[u].tocoo()
        y, r = Y[torch.from_numpy(row.col).long()], torch.from_numpy(row.data).to(Y)
        X[u] = torch.linalg.inv(gram + (y.T * (alpha * r)) @ y) @ (y.T @ (1 + alpha * r))
""",
    ("bpr/textbook", "one function for the gradient"): """
def gradient(p, qi, qj, bi, bj):
    s = 1 / (1 + torch.exp(bi - bj + torch.dot(p, qi - qj)))
    return s * (qi - qj), s * p, -s * p, s, -s


def textbook(P, Q, b, users, i_s, j_s, learning_rate, reg_u, reg_i):
    start = P.clone(), Q.clone(), b.clone()
    times = [{}, {}]
    for ids, kind in ((users, 0), (i_s, 1), (j_s, 1)):
        for row in ids.tolist():
            times[kind][row] = times[kind].get(row, 0) + 1
    for u, i, j in zip(users.tolist(), i_s.tolist(), j_s.tolist()):
        values = start[0][u], start[1][i], start[1][j], start[2][i], start[2][j]
        targets = (P, u), (Q, i), (Q, j), (b, i), (b, j)
        for (W, row), value, g, reg in zip(targets, values, gradient(*values), [reg_u] + 4 * [reg_i]):
            rate = min(learning_rate, 4 / times[W is not P][row])
            W[row] += rate * (g - reg * value)
""",
    ("warp/textbook", "the first violation by next"): """
def textbook(P, Q, user_items, users, positives, draws, L, margin, learning_rate, reg):
    A, B = P.clone(), Q.clone()
    dense = user_items.toarray() > 0
    for k in range(len(users)):
        u, i = int(users[k]), int(positives[k])
        s = B @ A[u]
        bad = (n for n, j in enumerate(draws[:, k].tolist()) if not dense[u, j] and s[j] > s[i] - margin)
        d = next(bad, None)
        if d is None:
            continue
        j, w = int(draws[d, k]), float(L[(Q.shape[0] - 1) // (d + 1)])
        P[u] += learning_rate * (w * (B[i] - B[j]) - reg * A[u])
        Q[i] += learning_rate * (w * A[u] - reg * B[i])
        Q[j] += learning_rate * (-w * A[u] - reg * B[j])
""",
}
