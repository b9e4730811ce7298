"""The ceiling on MovieLens-1M's ratings: Bayesian sampling, and SVD averaged over five seeds.

90/10 of the ratings, RMSE, means over the split seeds 0, 1, 2 ± their standard deviation, into
build/bench.md. The ceilings of the ranking are rows of quality.py's table.
"""

import numpy as np
import scipy.sparse as sp
import torch
from peers import SEEDS, Given, explicit_split
from quality import QUIET, table
from report import section, store, stored
from scipy.stats import wishart
from torch import Tensor
from tqdm import tqdm

from mflib import SVD
from mflib.metrics import rmse


def factor_prior(W: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The mean (F) and the precision (F x F) of the rows of W, drawn given these.

    From the Normal-Wishart of Salakhutdinov and Mnih 2008, eq. 14, with mu_0 = 0, beta_0 = 2,
    nu_0 = F, W_0 = E, as in their program.
    """
    n, F = W.shape
    mean, beta = W.double().mean(0).numpy(), 2.0
    scatter = n * np.cov(W.double().numpy().T, bias=True)
    inverse = np.eye(F) + scatter + beta * n / (beta + n) * np.outer(mean, mean)
    precision = wishart.rvs(F + n, np.linalg.inv(inverse), random_state=rng)
    drawn = rng.multivariate_normal(n * mean / (beta + n), np.linalg.inv((beta + n) * precision))
    return torch.from_numpy(drawn).float(), torch.from_numpy(precision).float()


def draw_rows(
    ratings: sp.csr_matrix, X: Tensor, Y: Tensor, alpha: float, rng: np.random.Generator
) -> Tensor:
    """All rows of X drawn given Y (ibid., eq. 11): a least-squares solution each, plus noise."""
    mean, precision = factor_prior(X, rng)
    columns = torch.from_numpy(ratings.indices).long()
    cells = Y.index_select(0, columns).split(np.diff(ratings.indptr).tolist())
    A = precision + alpha * torch.stack([Y_u.T @ Y_u for Y_u in cells])  # rows x F x F
    b = precision @ mean + alpha * torch.from_numpy(ratings @ Y.numpy())  # rows x F
    R = torch.linalg.cholesky(A, upper=True)
    noise = torch.from_numpy(rng.standard_normal((*b.shape, 1), np.float32))
    solution = torch.cholesky_solve(b[:, :, None], R, upper=True)
    return (solution + torch.linalg.solve_triangular(R, noise, upper=True))[:, :, 0]


def bayesian_mf(
    train: sp.csr_matrix, test: sp.csr_matrix, factors: int = 32, sweeps: int = 250
) -> np.ndarray:
    """Estimates of the test cells, means over the sweeps of a Gibbs sampler but the first tenth.

    Salakhutdinov, Mnih, "Bayesian Probabilistic Matrix Factorization using Markov Chain Monte
    Carlo", ICML 2008. There the precision alpha of a rating is 2; here it is drawn, too, as in
    Rendle, "Factorization Machines with libFM", ACM TIST 2012. Nothing is left to be tuned.
    """
    rng = np.random.default_rng(0)
    mu = float(train.data.mean(dtype=np.float64))
    centred = train.copy()
    centred.data -= np.float32(mu)
    by_item, known, unknown = centred.T.tocsr(), train.tocoo(), test.tocoo()
    P, Q = (
        torch.from_numpy(0.1 * rng.standard_normal((n, factors), np.float32)) for n in train.shape
    )

    def estimates(cells: sp.coo_matrix) -> np.ndarray:
        return Given(P.numpy(), Q.numpy(), mu=mu).predict(cells.row, cells.col)

    total, first = np.zeros(test.nnz), sweeps // 10
    for sweep in tqdm(range(sweeps), "Gibbs", leave=False):
        errors = known.data - estimates(known)
        alpha = rng.gamma(1 + known.nnz / 2, 1 / (1 + np.square(errors, dtype=float).sum() / 2))
        P = draw_rows(centred, P, Q, alpha, rng)
        Q = draw_rows(by_item, Q, P, alpha, rng)
        if sweep >= first:
            total += estimates(unknown)
    return total / (sweeps - first)


def svd_of_five_seeds(train: sp.csr_matrix, test: sp.csr_matrix) -> np.ndarray:
    """Estimates of the test cells, means over five models that differ in their seeds."""
    models = (SVD(random_state=seed).fit(train, **QUIET) for seed in range(5))
    held_out = test.tocoo()
    return np.mean([model.predict(held_out.row, held_out.col) for model in models], axis=0)


ESTIMATES = {"SVD, mean of five seeds": svd_of_five_seeds, "Bayesian MF": bayesian_mf}


def main() -> None:
    for name, estimates in ESTIMATES.items():
        splits = map(explicit_split, tqdm(SEEDS, name))
        errors = [rmse(estimates(train, test), test.tocoo().data) for train, test in splits]
        store("quality", {name: {"rmse": errors}})
    known = {name: stored()["quality"][name] for name in ESTIMATES}
    section("Ceilings: RMSE, 90/10 of the ratings", table(known))


if __name__ == "__main__":
    main()
