"""Execute a notebook in a fresh kernel without the user's settings.

The kernel is this interpreter, whatever other kernels are installed. It does not see variables that
configure Python, IPython, Jupyter or a library of the notebooks, and it gets empty temporary
folders in place of the user's. Submissions are executed by this file, too: the student edition and
the grader's sandbox have a copy.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from matplotlib import font_manager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from tqdm import tqdm

CELL_SECONDS = 600
# Variables that configure the parts of a kernel. Variables for threads, vector units, locale etc.
# are kept, because no output depends on them.
SETTINGS = re.compile(
    "PYTHON|IPYTHON|IPYKERNEL|JUPYTER|JPY_|MPL|MATPLOTLIB|PANDAS_|NPY_PROMOTION|SCIPY_"
    "|TORCH|PYTORCH|TQDM_|PYDEVD_",
    re.IGNORECASE,
)


RUNNING: set[AsyncKernelManager] = set()
STOPPED = threading.Event()


class Failure(str):
    """The message of a failed execution, with its kind and the ids of the cells concerned."""

    kind: str  # "error", "dead kernel", "time-out" or "missing figure"
    cells: list[str]

    def __new__(cls, message: str, kind: str, cells: list[str]) -> "Failure":
        failure = super().__new__(cls, message)
        failure.kind, failure.cells = kind, cells
        return failure


def stop_kernels() -> None:
    """End all executions in other threads; they return a failure."""
    STOPPED.set()
    for kernel in list(RUNNING):
        if process := getattr(kernel.provisioner, "process", None):
            process.kill()


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def write(text: str, file: Path) -> None:
    """Write a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def package_path(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Return the PYTHONPATH that imports the mflib of the tree that ``folder`` is in, or {}.

    Outside a tree, as in a test, that is the mflib which this process imports. No PYTHONPATH is set
    if an interpreter finds this mflib anyway, so that it does not find other files of the tree.
    """
    above = (up / "mflib" / "__init__.py" for up in (folder, *folder.parents))
    wanted = next((file for file in above if file.is_file()), None)
    if wanted is None and (here := importlib.util.find_spec("mflib")):
        wanted = Path(here.origin or "")
    find = "import importlib.util as u; s = u.find_spec('mflib'); print(ascii(s and s.origin))"
    found = subprocess.run(
        [sys.executable, "-c", find],
        env=environment,
        cwd=environment["IPYTHONDIR"],  # an empty folder
        capture_output=True,
        check=True,
        text=True,
    )
    installed = ast.literal_eval(found.stdout)
    if wanted is None or (installed and Path(installed).samefile(wanted)):
        return {}
    return {"PYTHONPATH": str(wanted.parents[1])}


@contextmanager
def own_settings(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a kernel for a notebook in ``folder``, with temporary folders."""
    kept = {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}
    # a kernel that is ending may still write
    with tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as temporary:
        own = {
            "IPYTHONDIR": "ipython",
            "JUPYTER_CONFIG_DIR": "jupyter",
            "JUPYTER_DATA_DIR": "jupyter",
            "JUPYTER_RUNTIME_DIR": "jupyter",
            "MPLCONFIGDIR": "matplotlib",
        }
        places = {variable: Path(temporary, name) for variable, name in own.items()}
        for place in places.values():
            place.mkdir(exist_ok=True)
        # without it, matplotlib would search for fonts and may print that in the notebook
        fonts = f"fontlist-v{font_manager.FontManager.__version__}.json"
        font_manager.json_dump(font_manager.fontManager, places["MPLCONFIGDIR"] / fonts)
        environment = kept | {variable: str(place) for variable, place in places.items()}
        yield environment | package_path(folder, environment)


def execute(
    file: Path,
    dataset: str,
    environment: dict[str, str] | None = None,
    go_on: bool = False,
    twice: bool = False,
    last: nbformat.NotebookNode | None = None,
    cell_seconds: int | None = CELL_SECONDS,
    seconds: dict[str, float] | None = None,
) -> tuple[nbformat.NotebookNode, Failure | None]:
    """Execute a notebook in its own folder.

    Parameters
    ----------
    file : path of the notebook
    dataset : "ml-100k" or "ml-1m"
    environment : more variables for the kernel
    go_on : whether to continue after a cell that raises an exception
    twice : whether to run all cells twice
    last : a cell to run at the end, which the result does not contain
    cell_seconds : limit of the wall time of one cell
    seconds : filled with the wall time of each cell, by its id

    Returns
    -------
    The notebook with new outputs, and the failure that stopped it, or None.
    """
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    if twice:
        once = [nbformat.v4.new_code_cell(c.source, metadata=c.metadata) for c in code]
        notebook.cells = once + notebook.cells
    notebook.cells += [last] if last else []
    error, current, started = None, "", 0.0
    seconds = {} if seconds is None else seconds

    def start(cell, cell_index: int) -> None:
        nonlocal current, started
        if STOPPED.is_set():
            raise RuntimeError("interrupted")
        current, started = cell.id, time.perf_counter()

    def finish(cell, cell_index: int, execute_reply) -> None:
        seconds[cell.id] = time.perf_counter() - started
        bar.update(cell_index + 1 - bar.n)

    variables = {"MFLIB_DATASET": dataset, "MFLIB_PROGRESS": "0"} | (environment or {})
    with own_settings(file.resolve().parent) as own, _bar(file.stem, len(notebook.cells)) as bar:
        client = NotebookClient(
            notebook,
            timeout=cell_seconds,
            allow_errors=go_on,
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # no warning: connections are local
            resources={"metadata": {"path": str(file.parent)}},
            on_cell_execute=start,
            on_cell_executed=finish,
        )
        client.km = AsyncKernelManager(
            kernel_name="python3",  # without folders of kernels: this interpreter
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(Path(own["JUPYTER_RUNTIME_DIR"], "kernel.json")),
        )
        kernel = client.km
        RUNNING.add(kernel)
        try:
            client.execute(env=own | variables)
            bar.update(bar.total - bar.n)
        except CellExecutionError as failure:
            error = Failure(f"{file.name}: {failure}", "error", [current])
        except CellTimeoutError:
            text = f"cell {current}: expected it to end within {cell_seconds} s; it was stopped"
            error = Failure(f"{file.name}, {text}", "time-out", [current])
        except (RuntimeError, TimeoutError) as failure:
            where = f"cell {current}" if current else "before the first cell"
            text = f"{where}: the kernel died ({str(failure).rstrip('.')})"
            error = Failure(f"{file.name}, {text}", "dead kernel", [current] if current else [])
        finally:
            RUNNING.discard(kernel)
        if error and current:
            seconds[current] = time.perf_counter() - started
    if twice:
        notebook.cells = notebook.cells[len(once) :]
    if last:
        notebook.cells.pop()
    if error is None and (cells := _without_figure(notebook)):
        text = f"expected a figure of each of the cells {', '.join(cells)}, got none"
        error = Failure(f"{file.name}: {text}", "missing figure", cells)
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},  # without the version: the outputs do not depend on it
    }
    return notebook, error


def _bar(name: str, cells: int) -> tqdm:
    """Return a progress bar that disappears at the end; disabled outside a terminal."""
    shape = "{desc:8} {bar:30} {elapsed}"
    return tqdm(total=cells, desc=name, unit="cell", bar_format=shape, leave=False, disable=None)


def _without_figure(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the ids of completed cells that describe a figure but show none."""
    return [
        cell.id
        for cell in notebook.cells
        if "alt" in cell.metadata
        and cell.execution_count
        and not any(output.output_type == "error" for output in cell.outputs)
        and not any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
