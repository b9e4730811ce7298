"""The ceiling on MovieLens-1M: closed-form models and Bayesian sampling compared with ours.

Ranking, 80/20 of the likes: the truncated singular value decomposition with 64 factors as it is and
with scaled columns and rows, EASE, EASE blended with ALS, and our classes in their defaults.
Exponents and weight are chosen on a tenth of the training part, for each split separately; then
the models are trained on all of it. Ratings, 90/10: Bayesian matrix factorization compared with
SVD. Means over the split seeds 0, 1, 2 ± their standard deviation, two tables into build/bench.md.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.sparse as sp
import torch
from peers import SEEDS, Ease, Given, explicit_split, implicit_split
from quality import MODELS, QUIET, spread, text
from report import section
from scipy.sparse.linalg import svds
from scipy.stats import wishart
from torch import Tensor
from tqdm import tqdm

from mflib import ALS, SVD
from mflib.metrics import ranking_metrics, rmse
from mflib.model import FactorModel
from mflib.sampling import train_test_split

torch.set_num_threads(1)  # nothing is timed here, and a busy machine punishes a second thread

OURS = {name: MODELS[name] for name in ("popularity", "BPR", "WARP", "ALS")}
METRICS = {"ndcg": "NDCG@10", "recall": "Recall@10", "precision": "Precision@10"}
EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def truncated_svd(likes: sp.csr_matrix, rows: float = 0.0, columns: float = 0.0) -> Given:
    """The best matrix of rank 64 for all cells, empty ones as zeros.

    This is PureSVD of Cremonesi, Koren, Turrin ("Performance of Recommender Algorithms on Top-N
    Recommendation Tasks", RecSys 2010). Before, rows and columns are divided by their number of
    likes to the power of ``rows`` and ``columns``; after, columns are multiplied back. Rows are
    not: that does not change the order of a user's items.
    """
    by_user, by_item = (
        np.maximum(likes.getnnz(axis), 1.0) ** exponent
        for axis, exponent in ((1, rows), (0, columns))
    )
    scaled = sp.diags(1 / by_user) @ likes.astype(np.float64) @ sp.diags(1 / by_item)
    U, singular, Vt = svds(scaled, 64, v0=np.ones(min(likes.shape)))
    return Given(U * singular, Vt.T * by_item[:, None])


class Blend(FactorModel):
    """``weight`` times the scores of one model plus 1 - ``weight`` times those of another.

    Both are standardised first: mean 0 and standard deviation 1 over the items of each user.
    """

    def __init__(self, one: FactorModel, other: FactorModel, weight: float):
        super().__init__()
        self.parts = ((weight, one), (1 - weight, other))
        self.user_factors, self.item_factors = one.user_factors, one.item_factors

    def scores(self, users: Tensor) -> Tensor:
        def standardised(scores: Tensor) -> Tensor:
            return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)

        return sum(weight * standardised(model.scores(users)) for weight, model in self.parts)


@dataclass(frozen=True)
class Choice:
    """What the closed forms leave open: exponents of the SVD, the weight of EASE in the blend."""

    columns: float  # the exponent of columns alone
    rows_and_columns: tuple[float, float]
    ease: float

    @classmethod
    def best(cls, train: sp.csr_matrix, validation: sp.csr_matrix) -> "Choice":
        """Those with the highest NDCG@10 on ``validation`` after learning from ``train``."""

        def ndcg(model: FactorModel) -> float:
            return ranking_metrics(model, train, validation)["ndcg"].mean()

        pairs = product(EXPONENTS, EXPONENTS)
        found = {pair: ndcg(truncated_svd(train, *pair)) for pair in pairs}
        ease, als = Ease(train), ALS().fit(train, **QUIET)
        return cls(
            columns=max(EXPONENTS, key=lambda columns: found[0.0, columns]),
            rows_and_columns=max(found, key=found.get),
            ease=max(WEIGHTS, key=lambda weight: ndcg(Blend(ease, als, weight))),
        )

    def models(self, train: sp.csr_matrix) -> dict[str, FactorModel]:
        """Fitted, by what the table calls them; ours in their defaults among them."""
        ours = {name: fit(train) for name, fit in OURS.items()}
        ease = Ease(train)
        return ours | {
            "truncated SVD": truncated_svd(train),
            "truncated SVD, columns scaled": truncated_svd(train, 0.0, self.columns),
            "truncated SVD, rows and columns scaled": truncated_svd(train, *self.rows_and_columns),
            "EASE": ease,
            "EASE + ALS": Blend(ease, ours["ALS"], self.ease),
        }


def ranking_row(runs: list[dict[str, float]]) -> dict[str, str]:
    """Means and spreads over the splits."""
    return {title: spread([run[key] for run in runs], 4) for key, title in METRICS.items()}


def ranking() -> str:
    figures, choices = {}, []
    for seed in tqdm(SEEDS, "likes"):
        train, test = implicit_split(seed)
        choice = Choice.best(*train_test_split(train, 0.9, seed))
        choices.append(f"split {seed}: {choice}")
        for name, model in choice.models(train).items():
            means = ranking_metrics(model, train, test).mean()
            figures.setdefault(name, []).append(means)
    table = text({name: ranking_row(runs) for name, runs in figures.items()})
    return table + "\n\nChosen on validation parts:\n\n    " + "\n    ".join(choices)


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


def ratings() -> str:
    errors = {"SVD, 64 factors": [], "Bayesian MF, 32 factors": []}
    for seed in tqdm(SEEDS, "ratings"):
        train, test = explicit_split(seed)
        held_out, svd = test.tocoo(), SVD().fit(train, **QUIET)
        errors["SVD, 64 factors"].append(
            rmse(svd.predict(held_out.row, held_out.col), held_out.data)
        )
        errors["Bayesian MF, 32 factors"].append(rmse(bayesian_mf(train, test), held_out.data))
    return text({name: {"RMSE": spread(values, 4)} for name, values in errors.items()})


def main() -> None:
    section("Ceilings: ranking, 80/20 of the likes", ranking())
    section("Ceilings: RMSE, 90/10 of the ratings", ratings())


if __name__ == "__main__":
    main()
