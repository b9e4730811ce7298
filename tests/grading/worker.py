"""What runs inside the sandbox: the functions of a task on hidden inputs; arrays come out.

    python worker.py TASK
    python worker.py notebook DATASET

In the folder: mflib (the grader's, with the student's functions), cases.py, rubric.toml,
seeds.json, train.npz (a split with permuted ids). Written: a file for each function, one for the
recommendations, and errors.json, after each step.
"""

import importlib
import json
import sys
import traceback
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from cases import RUBRIC, outputs

import mflib

FIT = {  # shorter than the defaults, on a small data set
    "svd": {"iterations": 30},
    "als": {"iterations": 10, "use_cg": True},
    "bpr": {"iterations": 40},
    "warp": {"iterations": 15},
}


def attempt(errors: dict[str, str], name: str, step) -> None:
    try:
        step()
    except NotImplementedError:
        errors[name] = "not attempted"
    except Exception as error:  # whatever a student's code raises is a result
        line = traceback.extract_tb(error.__traceback__)[-1]
        errors[name] = f"raises {type(error).__name__}: {error} (line {line.lineno} of {line.name})"
    with open("errors.json", "w", encoding="utf-8") as file:
        json.dump(errors, file)


def recommend(task: str) -> None:
    with np.load("train.npz", allow_pickle=False) as stored:
        cells = (stored["data"], stored["indices"], stored["indptr"])
        train = sp.csr_matrix(cells, tuple(stored["shape"]))
        pairs = (stored["users"], stored["items"]) if task == "svd" else ([], [])
    train = train if task == "svd" else sp.csr_matrix(train >= 4, dtype=np.float64)
    model = getattr(mflib, task.upper())(dtype=torch.float64, **FIT[task])
    model.fit(train, show_progress=False)
    ids, _ = model.recommend(np.arange(train.shape[0]), train, 10)
    similar, _ = model.similar_items(np.arange(train.shape[1]), 11)
    np.savez("recommended.npz", ids=ids, similar=similar, estimates=model.predict(*pairs))


def execute_notebook(dataset: str) -> None:
    """All cells, whatever they do."""
    sys.path.insert(0, "tests")
    import nbformat
    from execute import execute

    notebook, _ = execute(Path("notebook.ipynb").resolve(), dataset, go_on=True)
    nbformat.write(notebook, "executed.ipynb")


def main() -> None:
    if sys.argv[1] == "notebook":
        execute_notebook(sys.argv[2])
        return
    task, errors = sys.argv[1], {}
    with open("seeds.json", encoding="utf-8") as file:
        seeds = json.load(file)
    for name in RUBRIC[task]["functions"]:
        function = getattr(importlib.import_module(f"mflib.{RUBRIC[task]['module']}"), name)

        def step(name=name, function=function) -> None:
            arrays = {}
            for seed in seeds:
                for n, array in enumerate(outputs(function, name, seed)):
                    arrays[f"{seed}/{n}"] = array
            np.savez(f"{name}.npz", **arrays)

        attempt(errors, name, step)
    attempt(errors, "recommend", lambda: recommend(task))


if __name__ == "__main__":
    main()
