"""The textbook formulation over a dense matrix: one user or one sample at a time, in Python. For the comparison only.

Each function runs a slice of an iteration over a dense matrix (U x I) and returns the seconds of a whole one.
"""

import time

import numpy as np


def als(dense: np.ndarray, rows: int = 20, factors: int = 64, alpha: float = 2.0, reg: float = 50.0) -> float:
    """One linear system for each user and each item, with a dense diagonal matrix of confidences, as in the formula."""
    rng = np.random.default_rng(0)
    X, Y = (0.1 * rng.normal(size=(n, factors)) for n in dense.shape)
    total = 0.0
    for W, V, matrix in ((X, Y, dense), (Y, X, dense.T)):
        start = time.perf_counter()
        for row in range(rows):
            C = np.diag(1 + alpha * matrix[row])
            W[row] = np.linalg.solve(V.T @ C @ V + reg * np.eye(factors), V.T @ C @ (matrix[row] > 0))
        total += (time.perf_counter() - start) * len(W) / rows
    return total


def svd(dense: np.ndarray, samples: int = 20_000, factors: int = 64, lr: float = 0.005, reg: float = 0.05) -> float:
    """One known rating at a time."""
    rng = np.random.default_rng(0)
    P, Q = (0.1 * rng.normal(size=(n, factors)) for n in dense.shape)
    b_u, b_i, mu = np.zeros(len(P)), np.zeros(len(Q)), dense[dense > 0].mean()
    users, items = np.nonzero(dense)
    chosen = rng.permutation(len(users))[:samples]
    start = time.perf_counter()
    for u, i in zip(users[chosen], items[chosen], strict=True):
        error = dense[u, i] - mu - b_u[u] - b_i[i] - P[u] @ Q[i]
        b_u[u] += lr * (error - reg * b_u[u])
        b_i[i] += lr * (error - reg * b_i[i])
        P[u], Q[i] = P[u] + lr * (error * Q[i] - reg * P[u]), Q[i] + lr * (error * P[u] - reg * Q[i])
    return (time.perf_counter() - start) * len(users) / samples


def bpr(dense: np.ndarray, samples: int = 5_000, factors: int = 64, lr: float = 0.05, reg: float = 0.01) -> float:
    """One triple at a time; the negatives of a user are looked up in the user's dense row."""
    rng = np.random.default_rng(0)
    P, Q = (0.1 * rng.normal(size=(n, factors)) for n in dense.shape)
    users, items = np.nonzero(dense)
    chosen = rng.permutation(len(users))[:samples]
    start = time.perf_counter()
    for u, i in zip(users[chosen], items[chosen], strict=True):
        j = rng.choice(np.flatnonzero(dense[u] == 0))
        g = 1 / (1 + np.exp(P[u] @ (Q[i] - Q[j])))
        p = P[u].copy()
        P[u] += lr * (g * (Q[i] - Q[j]) - reg * p)
        Q[i] += lr * (g * p - reg * Q[i])
        Q[j] += lr * (-g * p - reg * Q[j])
    return (time.perf_counter() - start) * len(users) / samples


def warp(dense: np.ndarray, samples: int = 2_000, factors: int = 64, lr: float = 0.01, reg: float = 0.1) -> float:
    """One like at a time, one draw at a time, up to 100 of them."""
    rng = np.random.default_rng(0)
    P, Q = (0.1 * rng.normal(size=(n, factors)) for n in dense.shape)
    users, items = np.nonzero(dense)
    chosen = rng.permutation(len(users))[:samples]
    n_items = len(Q)
    start = time.perf_counter()
    for u, i in zip(users[chosen], items[chosen], strict=True):
        unliked, s_i = np.flatnonzero(dense[u] == 0), P[u] @ Q[i]
        for draw in range(1, 101):
            j = rng.choice(unliked)
            if P[u] @ Q[j] > s_i - 1:
                weight = sum(1 / rank for rank in range(1, (n_items - 1) // draw + 1))
                p = P[u].copy()
                P[u] += lr * (weight * (Q[i] - Q[j]) - reg * p)
                Q[i] += lr * (weight * p - reg * Q[i])
                Q[j] += lr * (-weight * p - reg * Q[j])
                break
    return (time.perf_counter() - start) * len(users) / samples
