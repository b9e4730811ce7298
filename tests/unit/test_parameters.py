"""Validation of each model parameter in the constructor, in ``fit`` and in ``save``."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from known_answers import ALL

from mflib import ALS, BPR, SVD, WARP, Popularity

MODELS = (ALS, BPR, SVD, WARP, Popularity)
COUNTS = {"factors", "iterations", "batches", "batch_size", "draws", "max_draws", "cg_steps"}
NOT_NUMBERS = {"random_state", "dtype", "device", "use_cg"}
POSITIVE = {(SVD, "decay"), (BPR, "decay"), (WARP, "decay"), (ALS, "init_std"), (WARP, "init_std")}
PARAMETERS = [(model, field.name) for model in MODELS for field in fields(model) if field.init]
NUMBERS = [(model, name) for model, name in PARAMETERS if name not in NOT_NUMBERS]


def ids_of(value):
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize("value", [-1, "x", "3", None, True, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=ids_of)
def test_every_number_is_validated(model, name, value):
    with pytest.raises(ValueError, match=f"for {name}, got {value!r}"[:60]):
        model(**{name: value})


@pytest.mark.parametrize(("model", "name"), PARAMETERS, ids=ids_of)
def test_every_parameter_is_validated_again_in_fit(model, name, ratings):
    changed = model()
    setattr(changed, name, -1)
    with pytest.raises(ValueError, match=f"for {name}, got -1"):
        changed.fit(ratings)
    assert not hasattr(changed, "item_factors")


@pytest.mark.parametrize(("model", "name"), PARAMETERS, ids=ids_of)
def test_every_parameter_is_validated_again_in_save(model, name, ratings, tmp_path):
    changed = (model() if model is Popularity else model(2, iterations=1)).fit(ratings)
    setattr(changed, name, -1)
    with pytest.raises(ValueError, match=f"for {name}, got -1"):
        changed.save(tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=ids_of)
def test_zero_is_refused_where_nothing_could_be_learned(model, name):
    """Counts, the decay, and the initial factors of some models must be positive."""
    if name in COUNTS:
        with pytest.raises(ValueError, match=f"a whole number >= 1 for {name}, got 0"):
            model(**{name: 0})
    elif (model, name) in POSITIVE:
        with pytest.raises(ValueError, match=f"a finite number > 0 for {name}, got 0"):
            model(**{name: 0})
    else:
        assert getattr(model(**{name: 0}), name) == 0


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=ids_of)
def test_numpy_and_torch_numbers_become_python_numbers(model, name):
    for value in (np.float32(7), np.int64(7), torch.tensor(7)):
        got = getattr(model(**{name: value}), name)
        assert got == 7
        assert type(got) is (int if name in COUNTS else float)


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=ids_of)
def test_counts_must_be_whole_numbers(model, name):
    if name in COUNTS:
        with pytest.raises(ValueError, match=f"a whole number >= 1 for {name}, got 7.5"):
            model(**{name: 7.5})
    else:
        assert getattr(model(**{name: 7.5}), name) == 7.5


@pytest.mark.parametrize("dtype", [torch.float64, np.float64, "float64", np.dtype("f8"), float])
def test_dtype_accepts_names_of_numpy_and_torch(any_model, ratings, dtype):
    model = any_model(dtype=dtype).fit(ratings)
    assert model.dtype is torch.float64
    for tensor in (model.user_factors, model.item_factors, model.user_biases, model.item_biases):
        assert tensor.dtype is torch.float64
    assert model.recommend(3, ratings[3])[1].dtype == np.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, np.float16, "half", None, "x"])
def test_dtype_refuses_half_precision_and_unknown_types(dtype):
    with pytest.raises(ValueError, match=r"float32 or float64 for dtype, got .*half precision"):
        ALS(dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5, "meta", ""])
def test_device_refuses_unavailable_devices(device):
    assert ALS(device=torch.device("cpu")).device == "cpu"
    with pytest.raises(ValueError, match=f"such as 'cpu' or 'cuda', for device, got {device!r}"):
        ALS(device=device)


@pytest.mark.parametrize("flag", ["False", None, 2, 0])
def test_use_cg_refuses_anything_but_booleans(flag):
    assert ALS(use_cg=np.bool_(False)).use_cg is False
    with pytest.raises(ValueError, match="expected True or False for use_cg, got"):
        ALS(use_cg=flag)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"Popularity"}))
def test_random_state_accepts_seeds_generators_and_none(ratings, name):
    """A numpy generator draws the seed; None draws a new one in each fit. ``seed`` stores it."""

    def fitted(random_state):
        return ALL[name](iterations=2, random_state=random_state).fit(ratings)

    for numpy_generator in (np.random.default_rng, np.random.RandomState):
        first, second = fitted(numpy_generator(3)), fitted(numpy_generator(3))
        assert first.seed == second.seed
        assert torch.equal(first.item_factors, second.item_factors)
        assert torch.equal(fitted(first.seed).item_factors, first.item_factors)
        second.fit(ratings)
        assert second.seed != first.seed, "each fit draws another seed"
    assert fitted(None).seed != fitted(None).seed
    assert torch.equal(fitted(np.int32(5)).item_factors, fitted(5).item_factors)
    assert not torch.equal(fitted(6).item_factors, fitted(5).item_factors)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", 2**30, 10**400])
def test_random_state_refuses_invalid_seeds(seed):
    with pytest.raises(ValueError, match="None or a numpy generator for random_state, got"):
        ALS(random_state=seed)
