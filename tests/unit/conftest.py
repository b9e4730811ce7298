"""What several unit tests are given: ratings, every model, random tensors."""

import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, IMPLICIT, random_ratings


@pytest.fixture
def ratings() -> sp.csr_matrix:
    """30 x 25; user 3 and item 7 have none, user 5 has rated everything else."""
    dense = random_ratings(30, 25, 0.3).toarray()
    dense[5], dense[3], dense[:, 7] = 4, 0, 0
    return sp.csr_matrix(dense)


@pytest.fixture(params=sorted(ALL))
def any_model(request):
    return ALL[request.param]


@pytest.fixture(params=sorted(IMPLICIT))
def implicit_model(request):
    return IMPLICIT[request.param]


@pytest.fixture
def draw():
    """Random float64 tensors of the given shape."""
    rng = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
