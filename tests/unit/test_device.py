"""Models on a GPU, tested without one: CPU tensors carry the name of the device they stand for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from known_answers import random_ratings
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from mflib import ALS, BPR, SVD, WARP, Popularity, als, training, warp
from mflib.metrics import catalogue, ranking_metrics
from mflib.sampling import temporal_user_split, train_test_split
from mflib.sparse import Entries

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
MODELS = {
    "SVD": partial(SVD, 3, iterations=2, batches=3),
    "ALS": partial(ALS, 3, iterations=2),
    "ALS-exact": partial(ALS, 3, iterations=2, use_cg=False),
    "BPR": partial(BPR, 3, iterations=2, batches=3),
    "BPR-one-draw": partial(BPR, 3, iterations=2, batches=3, draws=1),
    "WARP": partial(WARP, 3, iterations=2, batch_size=8),
    "WARP-wide": partial(WARP, 3, iterations=2, batch_size=8),
    "Popularity": Popularity,
}
# Older versions pass fewer operations to a TorchFunctionMode, and warn of autocast without a GPU.
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="the simulation relies on how newer versions of torch call a TorchFunctionMode",
)
PRODUCTS = ("matmul", "__matmul__", "mm", "addmm", "addmm_")  # in half precision under autocast


# --- a simulated GPU ----------------------------------------------------------------------------


class SimulatedGPU(TorchFunctionMode):
    """Compute on the CPU; raise an error where a CUDA device would."""

    default: torch.device | None = None  # as set by torch.set_default_device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return device_of(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and device_of(args[0]) != CPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in (Tensor.to, Tensor.cpu):
            return moved(func, args, kwargs)
        device = kwargs.pop("device", None)
        if device is None and func in _device_constructors():
            device = self.default
        device = common_device(func, args, kwargs) if device is None else simulated(device)
        if device == GPU and func.__name__ in PRODUCTS and torch.is_autocast_enabled():
            raise RuntimeError(f"expected autocast to be off in {func.__name__}")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise RuntimeError(f"Expected a {device.type!r} generator, found one on the CPU")
        result = func(*args, **kwargs)
        operands = tensors_in([args, kwargs])  # an operation in place returns one of these
        for tensor in tensors_in(result):
            if not any(tensor is operand for operand in operands):
                tensor.stands_for = str(device)
        return result


def simulated(device: str | torch.device) -> torch.device:
    """Return CPU or GPU."""
    return GPU if torch.device(device).type == "cuda" else CPU


def device_of(tensor: Tensor) -> torch.device:
    """Return the device that a tensor stands for."""
    return torch.device(vars(tensor).get("stands_for", "cpu"))


def tensors_in(value: object) -> list[Tensor]:
    """Return all tensors in nested tuples, lists and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in tensors_in(part)]
    return [value] if isinstance(value, Tensor) else []


def moved(func: Callable, args: tuple, kwargs: dict) -> Tensor:
    """Return the tensor on the device given to ``to``; a copy if the device changes."""
    device = CPU if func == Tensor.cpu else device_of(args[0])
    for value in (*args[1:], *kwargs.values()):
        if isinstance(value, str | torch.device):
            device = simulated(value)
        elif isinstance(value, Tensor):
            device = device_of(value)
    args = ["cpu" if isinstance(value, str | torch.device) else value for value in args]
    kwargs = kwargs | ({"device": "cpu"} if "device" in kwargs else {})
    result = func(*args, **kwargs)
    if result is not args[0] or device_of(result) != device:
        result = result.clone()
        result.stands_for = str(device)
    return result


def common_device(func: Callable, args: tuple, kwargs: dict) -> torch.device:
    """Return the device of the operands; raise RuntimeError if CUDA would not accept them."""
    if func == Tensor.copy_:
        return device_of(args[0])
    operands, free = tensors_in([args, kwargs]), []  # free: may stay on the CPU
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        free = tensors_in(args[1])
    elif not func.__name__.startswith(("index_", "gather", "searchsorted", "cat")):
        free = [tensor for tensor in operands if tensor.dim() == 0]
    on_gpu = [tensor for tensor in operands if device_of(tensor) == GPU]
    bound = [tensor for tensor in operands if not any(tensor is other for other in free)]
    if on_gpu and not all(device_of(tensor) == GPU for tensor in bound):
        raise RuntimeError(f"Expected all tensors to be on the same device in {func.__name__}")
    return GPU if on_gpu else CPU


@pytest.fixture(params=[None, GPU], ids=["default-cpu", "default-gpu"])
def gpu(request, monkeypatch) -> Iterator[SimulatedGPU]:
    """Return a mode in which "cuda" is available; autocast for it is on."""
    mode, load = SimulatedGPU(), torch.load
    mode.default = request.param

    class Pool(ThreadPoolExecutor):  # a mode is active in one thread only
        def __init__(self, count, initializer, initargs):
            super().__init__(count, initializer=lambda: (initializer(*initargs), mode.__enter__()))

    def load_to(file, map_location=None, **options):
        state = load(file, "cpu", **options)
        for tensor in tensors_in(state):
            tensor.stands_for = str(simulated(map_location or device_of(tensor)))
        return state

    monkeypatch.setattr(training, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(torch, "load", load_to)
    torch.set_autocast_enabled(True)
    yield mode
    torch.set_autocast_enabled(False)


def test_simulated_gpu_raises_errors_where_cuda_does(gpu):
    with gpu:
        here, there = torch.ones(3, device="cpu"), torch.ones(3, device="cuda")
        ids = torch.tensor([0, 2], device="cpu")
        assert (there * here.sum())[ids].device == GPU  # CPU scalars and CPU indices are allowed
        assert there.cpu().numpy().sum() == 3
        assert torch.empty(1).device == (gpu.default or CPU)
        for forbidden in (
            lambda: here + there,
            lambda: here[ids.to(GPU)],
            lambda: there.index_select(0, ids),
            lambda: torch.mul(here, here, out=there),
            lambda: torch.cat([there, here]),
            lambda: torch.randn(3, generator=torch.Generator(), device=GPU),
            lambda: there @ there,
        ):
            with pytest.raises(RuntimeError, match=r"same device|'cuda' generator|autocast"):
                forbidden()
        with pytest.raises(TypeError, match="can't convert cuda"):
            np.asarray(there)


# --- models -------------------------------------------------------------------------------------


def answers(model, train, test) -> dict[str, object]:
    """Return the results of all methods of a fitted model, by name."""
    users, some = np.arange(len(model.user_factors)), np.array([0, 4, 9])
    ids = torch.tensor([4, 9], device=model.item_factors.device)
    results = {
        "loss": [step["loss"] for step in model.history],
        "factors": [W.cpu().numpy() for W in (model.user_factors, model.item_factors)],
        "scores": model.scores(users).cpu().numpy(),
        "predict": model.predict(users, users % 25),
        "recommend": model.recommend(users, train, N=5),
        "recommend one": model.recommend(9, train[9], filter_items=ids),
        "recommend some": model.recommend(ids, None, 3, False, items=some),
        "similar users": model.similar_users(some, users=users[:20], filter_users=ids),
        "metrics": ranking_metrics(model, train, test).to_numpy(),
        "catalogue": list(catalogue(model, train).values()),
    }
    for metric in ("cosine", "l2"):
        results[metric] = model.similar_items(ids, 4, items=some, metric=metric)
        results[f"{metric}, users"] = model.similar_users(9, metric=metric)
    if isinstance(model, ALS):
        rows = train.T.tocsr()[some]
        results["new users"] = model.recommend(some, train[some], recalculate_user=True)
        results["new items"] = model.similar_items(some, recalculate_item=True, item_users=rows)
        results["explain"] = model.explain(9, train[9], itemid=4)
    return results


def assert_equal_answers(model, expected: dict[str, object], *data) -> None:
    for name, value in answers(model, *data).items():
        for computed, wanted in zip(value, expected[name], strict=True):
            np.testing.assert_array_equal(computed, wanted, err_msg=name)


def devices(holder: object) -> set[torch.device]:
    """Return the devices of all tensors among the attributes of an object."""
    return {device_of(tensor) for tensor in tensors_in(vars(holder))}


@pytest.mark.parametrize("name", MODELS)
def test_model_on_gpu_equals_model_on_cpu(gpu, name, monkeypatch, tmp_path):
    monkeypatch.setattr(als, "WIDTH", 10)  # several blocks of columns
    if name == "WARP-wide":
        monkeypatch.setattr(warp, "WIDE", 0)
    data = train, _ = train_test_split(random_ratings(30, 25, 0.3))
    if name.startswith("ALS"):
        train.data -= 2.5  # some values become dislikes
    expected = answers(MODELS[name]().fit(train, show_progress=False), *data)
    with gpu:
        for device in (GPU, CPU):
            model = MODELS[name](device=device).fit(train, show_progress=False)
            assert (model.device, devices(model)) == (str(device), {device})
            assert model.scores([0]).device == device
            assert_equal_answers(model, expected, *data)

            model.save(tmp_path / "model")
            for other in (CPU, GPU):
                loaded = type(model).load(tmp_path / "model", device=other)
                assert (loaded.device, devices(loaded)) == (str(other), {other})
                assert_equal_answers(loaded, expected, *data)

            model.device = "cpu" if device == GPU else "cuda"  # for the next fit
            assert_equal_answers(model, expected, *data)
            assert devices(model.fit(train, show_progress=False)) == {simulated(model.device)}


@pytest.mark.parametrize("split", [train_test_split, lambda X: temporal_user_split(X, X)])
def test_split_does_not_depend_on_default_device(gpu, split):
    ratings = random_ratings(30, 25, 0.3)
    expected = split(ratings)
    with gpu:
        found = split(ratings)
    assert all((part != wanted).nnz == 0 for part, wanted in zip(found, expected, strict=True))


def test_entries_stay_on_the_device_of_their_positions(gpu):
    with gpu:
        rows, columns = torch.tensor([[0, 2, 2], [3, 1, 0]], device=GPU)
        entries = Entries.at(rows, columns, (3, 4))
        assert devices(entries) == devices(entries.with_columns(columns)) == {GPU}
        assert entries.matrix(torch.ones(3, device=GPU)).crow_indices().device == GPU
