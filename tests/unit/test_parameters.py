"""The constructors' arguments: each kind, as users write them, and what is refused."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from known_answers import ALL

from mflib import ALS, BPR, SVD, WARP, Popularity
from mflib.inputs import normalise

SIZES = {"factors", "iterations", "batch_size", "draws", "max_draws", "cg_steps"}
OTHERS = {"random_state", "dtype", "device", "use_cg"}
ARGUMENTS = [
    (model, field.name)
    for model in (ALS, BPR, SVD, WARP, Popularity)
    for field in fields(model)
    if field.name not in OTHERS
]


@pytest.mark.parametrize(("model", "name"), ARGUMENTS)
def test_every_number_is_checked(model, name):
    """Also when it is set later, and by name."""
    with pytest.raises(ValueError, match=f"for {name}, got -1"):
        model(**{name: -1})
    with pytest.raises(ValueError, match=f"for {name}, got 'x'"):
        model(**{name: "x"})
    with pytest.raises(ValueError, match=f"for {name}, got nan"):
        model(**{name: float("nan")})
    with pytest.raises(ValueError, match=f"for {name}, got inf"):
        model(**{name: float("inf")})
    fine = model()
    setattr(fine, name, -1)
    with pytest.raises(ValueError, match=f"for {name}, got -1"):
        fine.fit(None)


@pytest.mark.parametrize(("model", "name"), ARGUMENTS)
def test_zero(model, name):
    if name in SIZES:
        with pytest.raises(ValueError, match=f"a whole number of at least 1 for {name}, got 0"):
            model(**{name: 0})
    elif name == "decay":
        with pytest.raises(ValueError, match="a finite number above 0 for decay, got 0"):
            model(decay=0)
    elif name == "init_std" and model in (ALS, WARP):  # from zero these would never move
        with pytest.raises(ValueError, match="a finite number above 0 for init_std, got 0"):
            model(init_std=0)
    else:
        assert getattr(model(**{name: 0}), name) == 0


@pytest.mark.parametrize("size", [7, 7.0, np.int64(7), np.float32(7), torch.tensor(7)])
def test_whole_numbers_are_sizes(size):
    model = ALS(factors=size)
    assert model.factors == 7
    assert type(model.factors) is int


@pytest.mark.parametrize("size", [7.5, True, None, "7"])
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match="a whole number of at least 1 for factors"):
        ALS(factors=size)


def test_numpy_numbers_become_plain():
    model = ALS(regularization=np.float32(0.5), alpha=np.int64(3))
    assert type(model.regularization) is type(model.alpha) is float


@pytest.mark.parametrize("dtype", [torch.float64, np.float64, "float64", np.dtype("f8"), float])
def test_dtypes_as_numpy_and_torch_name_them(ratings, dtype):
    model = ALS(3, dtype=dtype).fit(ratings)
    assert model.dtype is torch.float64
    assert model.item_factors.dtype is torch.float64


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, np.float16, "float16", np.int32, "half", None, "x"]
)
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(ValueError, match="float32 or float64 for dtype, got"):
        ALS(dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_devices(device):
    assert ALS(device=torch.device("cpu")).device == "cpu"
    with pytest.raises(ValueError, match="such as 'cpu', for device, got"):
        ALS(device=device)


@pytest.mark.parametrize("flag", ["False", None, 2])
def test_flags(flag):
    assert ALS(use_cg=np.bool_(False)).use_cg is False
    with pytest.raises(ValueError, match="expected True or False for use_cg, got"):
        ALS(use_cg=flag)


@pytest.mark.parametrize("name", sorted(ALL))
def test_random_states(ratings, name):
    """None draws anew, numpy's generators are drawn from, and the seed is kept."""

    def fitted(random_state):
        return ALL[name](iterations=2, random_state=random_state).fit(ratings)

    models = [fitted(np.random.default_rng(3)) for _ in range(2)]
    assert models[0].seed == models[1].seed
    assert torch.equal(models[0].item_factors, models[1].item_factors)
    assert torch.equal(fitted(models[0].seed).item_factors, models[0].item_factors)
    legacy = [fitted(np.random.RandomState(3)) for _ in range(2)]
    assert torch.equal(legacy[0].item_factors, legacy[1].item_factors)
    assert fitted(None).seed != fitted(None).seed
    assert torch.equal(fitted(np.int32(5)).item_factors, fitted(5).item_factors)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", 2**62])
def test_what_is_no_seed(seed):
    with pytest.raises(ValueError, match="None or a numpy generator for random_state, got"):
        ALS(random_state=seed)


def test_what_has_no_kind_is_left_alone():
    model = ALS(use_cg=False)
    normalise(model)
    assert model.use_cg is False
