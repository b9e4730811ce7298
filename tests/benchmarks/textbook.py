"""The textbook formulation over a dense matrix: a Python loop over torch tensors.

One user or one sample at a time, for comparison only. Each function runs a slice of an iteration
over a dense matrix (U x I) and returns the seconds that the whole iteration would take.
"""

import time

import torch
from torch import Tensor


def scaled(slice_of: int, whole: int, start: float) -> float:
    return (time.perf_counter() - start) * whole / slice_of


def factors_of(dense: Tensor) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return tuple(0.1 * torch.randn(n, 64, generator=rng) for n in dense.shape)


def some_cells(dense: Tensor, n: int) -> tuple[list[tuple[int, int]], int]:
    """n of the cells that are not zero, at random, and how many there are."""
    cells = dense.nonzero()
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    return cells[order[:n]].tolist(), len(cells)


def als(dense: Tensor, rows: int = 20, alpha: float = 2.0, reg: float = 50.0) -> float:
    """A linear system for each user and each item.

    With the diagonal matrix of confidences, as in the formula.
    """
    X, Y = factors_of(dense)
    total = 0.0
    for W, V, matrix in ((X, Y, dense), (Y, X, dense.T)):
        start = time.perf_counter()
        for row in range(rows):
            C, p = torch.diag(1 + alpha * matrix[row]), (matrix[row] > 0).float()
            W[row] = torch.linalg.solve(V.T @ C @ V + reg * torch.eye(64), V.T @ C @ p)
        total += scaled(rows, len(W), start)
    return total


def svd(dense: Tensor, samples: int = 5000, lr: float = 0.005, reg: float = 0.05) -> float:
    P, Q = factors_of(dense)
    b_u, b_i, mu = torch.zeros(len(P)), torch.zeros(len(Q)), dense[dense > 0].mean()
    cells, n = some_cells(dense, samples)
    start = time.perf_counter()
    for u, i in cells:
        error = dense[u, i] - mu - b_u[u] - b_i[i] - P[u] @ Q[i]
        b_u[u] += lr * (error - reg * b_u[u])
        b_i[i] += lr * (error - reg * b_i[i])
        new_p = P[u] + lr * (error * Q[i] - reg * P[u])
        Q[i] = Q[i] + lr * (error * P[u] - reg * Q[i])
        P[u] = new_p
    return scaled(samples, n, start)


def bpr(dense: Tensor, samples: int = 5000, lr: float = 0.05, reg: float = 0.01) -> float:
    P, Q = factors_of(dense)
    rng = torch.Generator().manual_seed(0)
    cells, n = some_cells(dense, samples)
    start = time.perf_counter()
    for u, i in cells:
        unliked = (dense[u] == 0).nonzero()[:, 0]
        j = unliked[torch.randint(len(unliked), (), generator=rng)]
        p, g = P[u].clone(), torch.sigmoid(-P[u] @ (Q[i] - Q[j]))
        P[u] += lr * (g * (Q[i] - Q[j]) - reg * p)
        Q[i] += lr * (g * p - reg * Q[i])
        Q[j] += lr * (-g * p - reg * Q[j])
    return scaled(samples, n, start)


def warp(dense: Tensor, samples: int = 1000, lr: float = 0.01, reg: float = 0.1) -> float:
    """Up to 100 draws, one after the other."""
    P, Q = factors_of(dense)
    rng = torch.Generator().manual_seed(0)
    cells, n = some_cells(dense, samples)
    start = time.perf_counter()
    for u, i in cells:
        unliked, limit = (dense[u] == 0).nonzero()[:, 0], P[u] @ Q[i] - 1
        for draw in range(1, 101):
            j = unliked[torch.randint(len(unliked), (), generator=rng)]
            if P[u] @ Q[j] > limit:
                weight = sum(1 / rank for rank in range(1, (len(Q) - 1) // draw + 1))
                p = P[u].clone()
                P[u] += lr * (weight * (Q[i] - Q[j]) - reg * p)
                Q[i] += lr * (weight * p - reg * Q[i])
                Q[j] += lr * (-weight * p - reg * Q[j])
                break
    return scaled(samples, n, start)
