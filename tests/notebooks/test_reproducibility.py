"""The assumptions behind reproducible outputs; see REPRODUCIBILITY.md."""

import re
import sys
import time
from importlib.metadata import version

import fresh_kernel
import nbformat
import pytest
import side_by_side
import torch
import versions
from differences import differences
from disturbances import COMBINED, USERS, a_users
from fresh_kernel import execute
from packaging.version import Version

UNSTABLE = {
    "accumulation by index_put_ in float32": """
import torch
rng = torch.Generator().manual_seed(0)
ids, values = torch.randint(50, (200_000,), generator=rng), torch.randn(200_000, 8, generator=rng)
total = torch.zeros(50, 8).index_put_((ids,), values, accumulate=True)
print(total.double().abs().sum().item())""",
    "all digits of a float32": """
import torch
A = torch.arange(250_000, dtype=torch.float64).sin().view(500, 500).float()
print((A @ A).sum().item())""",
    "a draw without a seed": "import random\nprint(random.random())",
    "the order of a set of strings": "print(list(set(map(str, range(100)))))",
}
STABLE = """
import matplotlib.pyplot as plt
import pandas as pd
from mflib import BPR, plots
model = BPR()
model.history = [{"iteration": n, "loss": 1 / (1 + n)} for n in range(9)]
curve = pd.DataFrame({"NDCG@10": [0.1, 0.2, 0.25]}, index=[1, 4, 9])
plots.learning_curve(model, curve, 0.15, "popularity")
plt.show()
print(sorted({"a", "b"}))"""

# Results that a user's settings could change: display of cells, floats and tables, and asserts.
SETTINGS = """
import sys
import numpy as np
print(sys.flags.optimize, __debug__, np.array([1 / 3]))
table = pd.DataFrame(np.full((2, 4), 1 / 3))
"before the last line"
1 / 3, table"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Execute the cells normally, under several disturbances at once, and as another user."""
    sources = UNSTABLE | {"stable": STABLE, "settings": SETTINGS}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(s.strip()) for s in sources.values()]
    )
    for what, cell in zip(sources, notebook.cells, strict=True):
        cell.id = what.replace(" ", "-")
    file = tmp_path_factory.mktemp("cells") / "cells.ipynb"
    nbformat.write(notebook, file)
    plain = {"OMP_NUM_THREADS": "2"}
    results = [execute(file, "ml-100k", settings) for settings in (plain, COMBINED)]
    with a_users(set(USERS), tmp_path_factory.mktemp("home")):
        results.append(execute(file, "ml-100k", plain))
    assert [error for _, error in results] == [None] * 3
    return [executed for executed, _ in results]


@pytest.mark.parametrize("what", UNSTABLE)
def test_unstable_cells_are_detected(what, runs):
    found = differences(*runs[:2])[what.replace(" ", "-")]
    assert found, f"{what}: the disturbed run gave the same"


@pytest.mark.parametrize("other", [1, 2], ids=["disturbed", "another user"])
def test_a_stable_cell_is_not_reported_and_its_figure_is_identical(runs, other):
    found = differences(runs[0], runs[other])
    assert (found["stable"], found["settings"]) == ("", "")
    figures = [
        [
            o.data["image/png"]
            for c in runs[n].cells
            for o in c.outputs
            if "image/png" in o.get("data", {})
        ]
        for n in (0, other)
    ]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 1


def test_a_missing_figure_is_an_error_and_no_home_folder_is_needed(tmp_path, monkeypatch):
    nowhere = str(tmp_path / "cells.ipynb" / "home")  # below a file, so it cannot be created
    for variable in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, nowhere)
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "1 / 0", "2 + 2")]
    for cell, name in zip(cells, ("nothing", "failed", "no-figure"), strict=True):
        cell.id = name
        if name != "nothing":
            cell.metadata["alt"] = "A curve that falls."
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "cells.ipynb")
    executed, error = execute(tmp_path / "cells.ipynb", "ml-100k", go_on=True)
    assert [cell.execution_count for cell in executed.cells] == [1, 2, 3]
    assert error == "cells.ipynb: expected a figure of each of the cells no-figure, got none"


def test_other_versions_replace_pins_and_their_dependencies():
    lines = versions.pins({"torch": "2.2", "ipywidgets": "7.7"}).splitlines()
    assert {"torch==2.2", "ipywidgets==7.7", f"numpy=={version('numpy')}"} <= set(lines)
    assert not [line for line in lines if line.startswith(("torch==2.1", "widgetsnbextension"))]
    assert [line for line in lines if line.startswith("colorama==") and "win32" in line]
    oldest = versions.bounds()
    assert set(oldest) >= {"torch", "numpy", "matplotlib", "ipywidgets"}
    assert all(Version(bound) <= Version(version(name)) for name, bound in oldest.items())


def test_a_row_that_cannot_be_run_gives_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "BUILD", tmp_path)
    monkeypatch.setattr(versions, "make_environment", lambda *_, **__: sys.exit("not made"))
    monkeypatch.setattr(versions.shutil, "which", lambda _: None)
    monkeypatch.setattr(versions, "newest", lambda _: version("torch").partition("+")[0])
    reasons = {}
    for name in versions.ROWS:
        ((_, _, _, _, reason), *more), errors = versions.run(name, "ml-100k")
        reasons[name] = reason
        assert (more, errors) == ([], [])
    here = sys.version_info[1]
    assert reasons.pop(f"Python 3.{here}") == "not run: the Python of .venv, see plain"
    assert reasons.pop("newest torch") == "not run: the pinned torch is the newest, see plain"
    if here == versions.MINORS[0]:
        del reasons["oldest"]
    assert all(re.fullmatch(r"not run: no python3.\d+ on the path", r) for r in reasons.values())


def safe_operations() -> dict[str, torch.Tensor]:
    """Return the results of the kernels' operations, on enough data for several threads."""
    results = {}
    for dtype in (torch.float32, torch.float64):
        rng = torch.Generator().manual_seed(0)
        W, rows = (
            torch.randn(n, 64, generator=rng, dtype=torch.float64).to(dtype) for n in (300, 40_000)
        )
        ids = torch.randint(300, (40_000,), generator=rng)
        start, columns = torch.arange(0, 40_001, 20), torch.randint(300, (40_000,), generator=rng)
        csr = torch.sparse_csr_tensor(
            start, columns, rows[:, 0].contiguous(), (2000, 300), check_invariants=False
        )
        results |= {
            f"index_add_ {dtype}": torch.zeros(300, 64, dtype=dtype).index_add_(0, ids, rows),
            f"scatter_add_ {dtype}": torch.zeros(300, dtype=dtype).scatter_add_(0, ids, rows[:, 1]),
            f"index_select {dtype}": W.index_select(0, ids),
            f"sum of rows {dtype}": (W.index_select(0, ids) * rows).sum(1),
            f"sampled_addmm {dtype}": torch.sparse.sampled_addmm(
                csr, rows[:2000], W.T.contiguous(), beta=0
            ).values(),
            f"sparse product {dtype}": csr @ W,
        }
    return results


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_safe_operations_do_not_depend_on_threads():
    """Repeat the operations, because a race may not show every time."""
    threads, first = torch.get_num_threads(), safe_operations()
    try:
        for repetition in range(12):
            torch.set_num_threads((1, 2, 4)[repetition % 3])
            for name, result in safe_operations().items():
                assert torch.equal(result, first[name]), (
                    f"{name} with {torch.get_num_threads()} threads"
                )
    finally:
        torch.set_num_threads(threads)


def test_an_interruption_stops_all_parallel_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "available_processors", lambda: 2)
    files = []
    for name, source in (("quick", "1"), ("later", "2"), ("slow", "import time\ntime.sleep(600)")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        files.append(tmp_path / f"{name}.ipynb")
    failures, start = {}, time.perf_counter()

    def task(file, share):
        failures[file.stem] = execute(file, "ml-100k", share)[1]

    def interrupted():
        for _ in side_by_side.side_by_side(files, "ml-100k", task):
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        fresh_kernel.STOPPED.clear()
    assert time.perf_counter() - start < 120
    assert failures["quick"] is None
    assert failures["slow"].kind == "dead kernel"
    assert failures.get("later", failures["slow"]).kind == "dead kernel"


@pytest.mark.parametrize(
    ("notebooks", "cores", "gigabytes", "expected"),
    [(5, 2, 16, 2), (5, 8, 16, 5), (5, 2, 1.5, 1), (5, 2, 0.1, 1), (1, 2, 16, 1), (5, 8, 3.5, 3)],
)
def test_parallel_notebooks_are_limited_by_cores_and_memory(
    notebooks, cores, gigabytes, expected, monkeypatch
):
    monkeypatch.setattr(side_by_side, "available_processors", lambda: cores)
    monkeypatch.setattr(side_by_side, "free_gigabytes", lambda: gigabytes)
    assert side_by_side.at_once(notebooks, "ml-100k") == expected


def test_free_memory_respects_the_limit_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "CGROUP", tmp_path)
    unlimited = side_by_side.free_gigabytes()
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert side_by_side.free_gigabytes() > unlimited / 2
    (tmp_path / "memory.max").write_text("3000000\n", encoding="utf-8")
    (tmp_path / "memory.current").write_text("1500000\n", encoding="utf-8")
    stat = "anon 900000\ninactive_file 500000\nactive_file 1\n"
    (tmp_path / "memory.stat").write_text(stat, encoding="utf-8")
    assert side_by_side.free_gigabytes() == 0.002


def test_free_memory_respects_the_limit_of_an_enclosing_control_group(tmp_path, monkeypatch):
    """Batch systems limit the group of a job; this process is in an inner group."""
    job = tmp_path / "slurm" / "job_7"
    (job / "step_0").mkdir(parents=True)
    monkeypatch.setattr(side_by_side, "CGROUP", tmp_path)
    monkeypatch.setattr(side_by_side, "PROCESS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("1:name=x:/other\n0::/slurm/job_7/step_0\n", encoding="utf-8")
    for file, text in {"max": "5000000", "current": "1000000", "stat": "anon 1000000"}.items():
        (job / f"memory.{file}").write_text(f"{text}\n", encoding="utf-8")
    assert side_by_side.free_gigabytes() == 0.004
