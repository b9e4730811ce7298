"""Fixtures for the unit tests: ratings, all models, random tensors."""

import pytest
import scipy.sparse as sp
import torch
from known_answers import ALL, IMPLICIT, random_ratings


@pytest.fixture
def ratings() -> sp.csr_matrix:
    """Return 30 x 25 ratings; user 3 and item 7 have none, user 5 has rated all other items."""
    dense = random_ratings(30, 25, 0.3).toarray()
    dense[5], dense[3], dense[:, 7] = 4, 0, 0
    return sp.csr_matrix(dense)


@pytest.fixture(params=sorted(ALL))
def any_model(request):
    """Return a function that creates a model, for each model."""
    return ALL[request.param]


@pytest.fixture(params=sorted(IMPLICIT))
def implicit_model(request):
    """Return a function that creates a model, for each model that learns from likes."""
    return IMPLICIT[request.param]


@pytest.fixture
def draw():
    """Return a function that creates random float64 tensors of a given shape."""
    rng = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
