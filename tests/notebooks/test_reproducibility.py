"""What the reproducibility of the stored outputs rests on; see REPRODUCIBILITY.md."""

import nbformat
import pytest
import torch
from execute import COMBINED, differences, execute

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
    "the order of a set of strings": "print(list(set('the order is that of hashes'.split())))",
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The cells, executed plainly and under all disturbances at once."""
    sources = UNSTABLE | {"stable": STABLE}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(s.strip()) for s in sources.values()]
    )
    for what, cell in zip(sources, notebook.cells, strict=True):
        cell.id = what.replace(" ", "-")
    file = tmp_path_factory.mktemp("cells") / "cells.ipynb"
    nbformat.write(notebook, file)
    results = [
        execute(file, "ml-100k", settings) for settings in ({"OMP_NUM_THREADS": "2"}, COMBINED)
    ]
    assert [error for _, error in results] == [None, None]
    return [executed for executed, _ in results]


@pytest.mark.parametrize("what", UNSTABLE)
def test_unstable_cells_are_caught(what, runs):
    assert differences(*runs)[what.replace(" ", "-")], f"{what}: the disturbed run gave the same"


def test_a_stable_cell_is_not_and_its_figure_is_equal_byte_for_byte(runs):
    assert differences(*runs)["stable"] == ""
    figures = [[o.data["image/png"] for o in nb.cells[-1].outputs if "data" in o] for nb in runs]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 1


def safe_operations() -> dict[str, torch.Tensor]:
    """The operations that the kernels are made of, on enough data for several threads."""
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
    """Many repetitions: a race can look stable."""
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
