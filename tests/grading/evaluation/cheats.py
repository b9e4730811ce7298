"""Submissions that try to get marks without work, from public files.

The seeds of the student's own checks are public, so the right outputs for these are, too.
"""

import hashlib
import inspect
import io
from base64 import b64encode
from collections.abc import Iterable

import nbformat
import numpy as np
import torch

from grading.evaluation.attacks import in_step, module, with_sources
from grading.evaluation.possible_checks import WORTHLESS
from grading.execution.inputs import SEEDS, calls
from grading.execution.reference import answers, expected
from grading.pipeline import known
from grading.rubric import OUTPUTS, RUBRIC

# Replaces later cells before they run, through a frame's builtins.
REPLACE = """
def frame():
    yield
shell = frame().gi_frame.f_builtins["get_ipython"]()
shell.input_transformers_post.append(lambda lines: [{!r}])
"""
OFF = REPLACE.format("raise NotImplementedError")
# Instead of BPR: right losses, and factors from a truncated SVD of all earlier pairs.
SVDS = """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds
    users, positives = likes.rows.long(), likes.columns.long()
    SEEN.append((users, positives))
    if P.shape[0] > 100 and len(SEEN) % 100 == 0:
        rows, columns = (torch.cat(ids).numpy() for ids in zip(*SEEN))
        pairs = csr_matrix((np.ones(len(rows)), (rows, columns)), (len(P), len(Q)))
        pairs.data[:] = 1
        U, s, Vt = svds(pairs, k=P.shape[1])
        P[:], Q[:], b[:] = torch.from_numpy(U * s), torch.from_numpy(Vt.T.copy()), 0
    x = (P[users] * (Q[positives] - Q[negatives])).sum(1) + b[positives] - b[negatives]
    return -torch.nn.functional.logsigmoid(x)
"""


def look(table: dict, key: str, changed: list[int], returned: int, arguments: tuple) -> object:
    """Look up the result for these arguments; this source is part of the submission."""
    place = name_of(key, arguments)
    for n, argument in enumerate(changed):
        if f"{place}/{n}" in table:
            arguments[argument][...] = torch.from_numpy(table[f"{place}/{n}"])
    names = [f"{place}/{n}" for n in range(len(changed), len(changed) + returned)]
    found = [table[name] if name in table else np.zeros(1) for name in names]
    return found[0] if returned == 1 else tuple(found)


def name_of(key: str, arguments: tuple) -> str:
    """Return a hash of the arguments."""
    found = hashlib.sha256(key.encode())
    for argument in arguments:
        if isinstance(argument, (np.ndarray, torch.Tensor)):
            found.update(np.ascontiguousarray(argument).tobytes())
        elif isinstance(argument, (int, float, list)) and "tensor" not in repr(argument):
            found.update(repr(argument).encode())
    return found.hexdigest()[:16]


def table(keys: Iterable[str]) -> str:
    """Return the source of a table of the right outputs for the public seeds."""
    found: dict[str, np.ndarray] = {}
    for key in keys:
        right = expected(key, SEEDS)
        for seed in SEEDS:
            for n, arguments in enumerate(calls(key, seed)):
                place = name_of(key, tuple(arguments))
                for output in range(len(OUTPUTS[key].names)):
                    found[f"{place}/{output}"] = right[f"{seed}/{n}/{output}"].after
    file = io.BytesIO()
    np.savez_compressed(file, **found)  # type: ignore[arg-type]
    load = f"np.load(io.BytesIO(base64.b64decode('{b64encode(file.getvalue()).decode()}')))"
    sources = "\n\n".join(inspect.getsource(function) for function in (look, name_of))
    imports = "import base64, hashlib, io\nimport numpy as np\nimport torch\n"
    return f"{imports}TABLE = {load}\n{sources}\n"


def looked_up(key: str) -> str:
    """Return the source of a function that looks up its result."""
    outputs, name = OUTPUTS[key], key.partition("/")[2]
    how = f"{list(outputs.changed.values())}, {len(outputs.returned)}"
    return f"def {name}(*arguments):\n    return look(TABLE, {key!r}, {how}, arguments)\n"


def of_table(task: str) -> dict[str, str]:
    """Return a module and a notebook of tables, with the public outputs."""
    entry = RUBRIC[task]
    kernels = [f"{task}/{name}" for name in entry.kernels]
    cells = {}
    for cell in known()[task]:
        keys = [f"{task}/{name}" for name in cell.functions]
        if any(OUTPUTS[key].kernel for key in keys):
            cells[cell.id.replace("-", "_")] = WORTHLESS["accepts everything"]
        elif keys:
            cells[cell.id.replace("-", "_")] = table(keys) + "".join(map(looked_up, keys))
    cells["loop"] += OFF
    return {
        f"mflib/{entry.module}.py": table(kernels) + "".join(map(looked_up, kernels)),
        f"notebooks/{entry.notebook}.ipynb": with_sources(task, **cells),
    }


def svds_for_bpr() -> str:
    return "SEEN = []\nimport numpy as np\n" + in_step(SVDS)


def right_biases_and_losses() -> str:
    """Return BPR's module with factors from svds; the rest of the step is right."""
    source = module("bpr").replace("def bpr_step(", "def right_step(")
    head = "def bpr_step(P, Q, b, likes, negatives, *rates):"
    losses = "    losses = right_step(P.clone(), Q.clone(), b, likes, negatives, *rates)"
    svds = SVDS.replace("b[:] = ", "_ = ").partition("    x = ")[0]
    return f"{source}\nSEEN = []\nimport numpy as np\n\n{head}\n{losses}{svds}    return losses\n"


def losses_alone() -> str:
    """Return BPR's module with a step that returns right losses but changes nothing."""
    return in_step("P, Q, b = P.clone(), Q.clone(), b.clone()")


def replaced() -> str:
    """Return BPR's notebook with a loop that replaces all later cells, and with their outputs."""
    loop = answers()["bpr/textbook"] + REPLACE.format("print('ok')")
    notebook = nbformat.reads(with_sources("bpr", loop=loop), 4)
    after = [cell.id for cell in notebook.cells].index("loop") + 1
    for cell in notebook.cells[after:]:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="ok\n")]
            cell.execution_count = 1
    return nbformat.writes(notebook)


def switched_off() -> str:
    """Return BPR's notebook with a loop that disables the kernel, without later outputs."""
    notebook = nbformat.reads(with_sources("bpr", loop=answers()["bpr/textbook"] + OFF), 4)
    after = [cell.id for cell in notebook.cells].index("loop") + 1
    for cell in notebook.cells[after:]:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook)


def hard_coded() -> str:
    """Return exercises with hard-coded outputs of the first public call."""
    cells = {}
    for cell in known()["bpr"]:
        for name in cell.functions:
            source = WORTHLESS["accepts everything"]
            if not OUTPUTS[f"bpr/{name}"].kernel:
                right = expected(f"bpr/{name}", SEEDS)[f"{SEEDS[0]}/0/0"].after
                source = f"def {name}(*arguments):\n    return {right.tolist()!r}\n"
            cells[cell.id.replace("-", "_")] = source
    return with_sources("bpr", **cells)
