"""Saving and loading: paths and file objects, damaged and malicious files, devices, seeds."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from known_answers import checkerboard

from mflib import ALS, SVD, Popularity

LEARNED = ("user_factors", "item_factors", "user_biases", "item_biases")


def state_in(file):
    return torch.load(file, weights_only=True)


def test_load_and_pickle_return_an_equal_model(any_model, ratings, tmp_path):
    model = any_model().fit(ratings)
    file = tmp_path / "model.pt"
    model.save(file)
    for copy in (type(model).load(file), pickle.loads(pickle.dumps(model))):
        assert repr(copy) == repr(model)
        assert copy.history == model.history
        assert copy.global_bias == model.global_bias
        assert all(torch.equal(getattr(copy, name), getattr(model, name)) for name in LEARNED)
    other = SVD if not isinstance(model, SVD) else ALS
    name = type(model).__name__
    message = f"expected a saved {other.__name__} in .*, got {name}: read it with {name}.load"
    with pytest.raises(ValueError, match=message):
        other.load(file)


def test_save_and_load_accept_paths_and_file_objects(any_model, ratings, tmp_path):
    model = any_model().fit(ratings)
    memory = io.BytesIO()
    model.save(memory)
    memory.seek(0)
    assert torch.equal(type(model).load(memory).item_factors, model.item_factors)
    file = tmp_path / "model.pt"
    with file.open("wb") as opened:
        model.save(opened)
    with file.open("rb") as opened:
        assert torch.equal(type(model).load(opened).item_factors, model.item_factors)
    model.save(str(file))
    assert torch.equal(type(model).load(str(file)).item_factors, model.item_factors)


def test_load_of_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ALS.load(tmp_path / "model.pt")


# --- invalid files ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["item_factors", "class", "history"])
def test_load_executes_nothing(ratings, tmp_path, place):
    """The payload would create a folder."""
    file, trace = tmp_path / "model.pt", tmp_path / "trace"

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    ALS(3).fit(ratings).save(file)
    torch.save(state_in(file) | {place: Payload()}, file)
    with pytest.raises(ValueError, match="got a damaged file or another format"):
        ALS.load(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists(), "the payload must work where code may be executed"


def saved_bytes(file):
    ALS(3).fit(checkerboard()).save(file)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_text("a text", encoding="utf-8"), "got a damaged file"),
        (lambda file: file.write_bytes(b""), "got a damaged file or another format"),
        (lambda file: file.write_bytes(saved_bytes(file)[:-100]), "got a damaged file"),
        (lambda file: file.write_bytes(saved_bytes(file)[:100]), "got a damaged file"),
        (lambda file: file.write_bytes(pickle.dumps({"class": "ALS"}, 2)), "got a damaged file"),
        (lambda file: torch.save(torch.ones(3), file), "got Tensor without the key 'class'"),
        (lambda file: torch.save({"state": 1}, file), "got dict without the key 'class'"),
        (lambda file: torch.save({"class": None}, file), "got None"),
    ],
)
def test_load_refuses_files_without_a_model(tmp_path, write, message):
    file = tmp_path / "model.pt"
    write(file)
    with pytest.raises(ValueError, match=f"expected a saved ALS in .*model.pt, {message}"):
        ALS.load(file)


@pytest.mark.parametrize("missing", ["item_factors", "history", "alpha", "device", "seed"])
def test_load_refuses_files_without_an_attribute(ratings, tmp_path, missing):
    file = tmp_path / "model.pt"
    ALS(3).fit(ratings).save(file)
    state = state_in(file)
    del state[missing]
    torch.save(state, file)
    with pytest.raises(ValueError, match=rf"got missing or unknown attributes: \['{missing}'\]"):
        ALS.load(file)


@pytest.mark.parametrize("other", ["fit", "recommend", "titles", "batch_size"])
def test_load_refuses_files_with_an_unknown_attribute(ratings, tmp_path, other):
    """An attribute with the name of a method would replace it."""
    file = tmp_path / "model.pt"
    ALS(3).fit(ratings).save(file)
    torch.save(state_in(file) | {other: 3}, file)
    with pytest.raises(ValueError, match=rf"got missing or unknown attributes: \['{other}'\]"):
        ALS.load(file)


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", -1.0), ("alpha", "x"), ("iterations", 0), ("dtype", "int8")]
)
def test_load_refuses_invalid_parameters(ratings, tmp_path, name, value):
    file = tmp_path / "model.pt"
    ALS(3).fit(ratings).save(file)
    torch.save(state_in(file) | {name: value}, file)
    with pytest.raises(ValueError, match=f"got invalid values: expected .* for {name}, got"):
        ALS.load(file)


# --- saved content ------------------------------------------------------------------------------


def test_save_keeps_parameters_that_were_set_after_fit(ratings, tmp_path):
    file = tmp_path / "model.pt"
    model = ALS(4, use_cg=np.bool_(True)).fit(ratings)
    model.alpha, model.dtype = np.float64(3), np.float32
    model.save(file)
    assert ALS.load(file).alpha == 3
    assert ALS.load(file).dtype is torch.float32


def test_save_refuses_unknown_attributes(ratings, tmp_path):
    model = ALS(4).fit(ratings)
    model.titles = np.array(["Heat"])
    with pytest.raises(TypeError, match=r"only attributes of ALS, also got \['titles'\]"):
        model.save(tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_save_keeps_a_random_state_of_none(ratings, tmp_path):
    SVD(3, random_state=None, iterations=1).fit(ratings).save(tmp_path / "model.pt")
    assert SVD.load(tmp_path / "model.pt").random_state is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user_factors", "x"),
        ("item_factors", torch.zeros(25, 2)),
        ("item_factors", torch.zeros(25, 3, dtype=torch.float64)),
        ("user_biases", torch.zeros(29)),
        ("global_bias", None),
        ("history", 3),
    ],
)
def test_load_rejects_learned_values_that_do_not_fit(ratings, tmp_path, name, value):
    file = tmp_path / "model.pt"
    SVD(3, iterations=1).fit(ratings).save(file)
    torch.save(state_in(file) | {name: value}, file)
    with pytest.raises(ValueError, match="got invalid values: expected"):
        SVD.load(file)


def test_save_replaces_a_numpy_generator_by_its_seed(ratings, tmp_path):
    model = SVD(3, random_state=np.random.default_rng(2), iterations=2).fit(ratings)
    model.save(tmp_path / "model.pt")
    loaded = SVD.load(tmp_path / "model.pt")
    assert loaded.random_state == loaded.seed == model.seed
    assert torch.equal(loaded.fit(ratings).item_factors, model.item_factors)


def test_save_accepts_numpy_parameters(ratings, tmp_path):
    file = tmp_path / "model.pt"
    for regularization in np.logspace(-1, 0, 2):
        ALS(3, regularization=regularization, random_state=np.int64(2)).fit(ratings).save(file)
        assert ALS.load(file).regularization == regularization


# --- paths and permissions ----------------------------------------------------------------------


def test_save_keeps_the_old_file_if_the_disk_is_full(ratings, tmp_path, monkeypatch):
    file = tmp_path / "model.pt"
    model = Popularity().fit(ratings)
    model.save(file)
    before = file.read_bytes()

    def full(state: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("enforce fail: unexpected pos")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*: is the disk full"):
        model.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("exists", [True, False])
def test_save_onto_a_symbolic_link_replaces_its_target(ratings, tmp_path, exists):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link = folder / "model.pt", tmp_path / "link.pt"
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(Path("elsewhere") / "model.pt")
    model = ALS(3).fit(ratings)
    model.save(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    for file in (link, target):
        assert torch.equal(ALS.load(file).item_factors, model.item_factors)
    assert sorted(tmp_path.iterdir()) == [folder, link]
    assert list(folder.iterdir()) == [target]


def test_save_into_a_missing_folder_is_an_os_error(ratings, tmp_path):
    with pytest.raises(FileNotFoundError):
        ALS(3).fit(ratings).save(tmp_path / "missing" / "model.pt")


def test_saved_files_get_the_permissions_of_new_files(ratings, tmp_path):
    """Files made by ``tempfile`` are readable by their owner only."""
    ALS(3).fit(ratings).save(tmp_path / "model.pt")
    (tmp_path / "other").write_bytes(b"")
    modes = [(tmp_path / name).stat().st_mode for name in ("model.pt", "other")]
    assert modes[0] == modes[1]


# --- devices ------------------------------------------------------------------------------------


def test_load_reads_a_model_saved_on_a_gpu_without_a_gpu(ratings, tmp_path):
    """The file is edited to look as if the factors had been saved from a GPU."""
    file, moved = tmp_path / "model.pt", tmp_path / "moved.pt"
    model = ALS(3).fit(ratings)
    model.save(file)
    replaced = 0
    with zipfile.ZipFile(file) as saved, zipfile.ZipFile(moved, "w") as target:
        for name in saved.namelist():
            content = saved.read(name)
            if name.endswith("data.pkl"):
                cpu, cuda = (b"X" + struct.pack("<I", len(d)) + d for d in (b"cpu", b"cuda:0"))
                replaced += content.count(cpu)
                content = content.replace(cpu, cuda)
            target.writestr(name, content)
    assert replaced
    loaded = ALS.load(moved)
    assert loaded.device == "cpu"
    assert loaded.item_factors.device.type == "cpu"
    assert torch.equal(loaded.item_factors, model.item_factors)
    loaded.fit(ratings)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu", torch.device("meta"), 3.5])
def test_load_names_unavailable_devices(ratings, tmp_path, device):
    ALS(3).fit(ratings).save(tmp_path / "model.pt")
    message = f"expected an available device, such as 'cpu' or 'cuda', for device, got .*{device}"
    with pytest.raises(ValueError, match=str(message).replace("(", ".").replace(")", ".")):
        ALS.load(tmp_path / "model.pt", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is available")
def test_load_to_an_unavailable_gpu_names_the_device(ratings, tmp_path):
    ALS(3).fit(ratings).save(tmp_path / "model.pt")
    for device in ("cuda", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"for device, got .*cuda"):
            ALS.load(tmp_path / "model.pt", device=device)
