"""A notebook in a fresh kernel that knows nothing of the user's settings.

The kernel is this interpreter, whatever others are installed. Of the environment it does not see
what sets up Python, IPython, Jupyter or a library of the notebooks, and where these look for a
user's files it finds folders of its own, empty and temporary. Submissions are executed by this
file, too: the student edition and the grader's sandbox have a copy.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from matplotlib import font_manager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

CELL_SECONDS = 600
# Variables that set up what a kernel consists of. Threads, vector units, locale and the like stay:
# no output depends on them.
SETTINGS = re.compile(
    "PYTHON|IPYTHON|IPYKERNEL|JUPYTER|JPY_|MPL|MATPLOTLIB|PANDAS_|NPY_PROMOTION|SCIPY_"
    "|TORCH|PYTORCH|TQDM_|PYDEVD_",
    re.IGNORECASE,
)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def write(text: str, file: Path) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def package_path(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """PYTHONPATH, if it takes one to import the mflib of the tree that ``folder`` is in.

    Elsewhere, as in a test, the one that this process imports. Where an interpreter finds it
    anyway, as an installed package, nothing else of that tree is to be found by chance.
    """
    above = (up / "mflib" / "__init__.py" for up in (folder, *folder.parents))
    wanted = next((file for file in above if file.is_file()), None)
    if wanted is None and (here := importlib.util.find_spec("mflib")):
        wanted = Path(here.origin or "")
    find = "import importlib.util as u; s = u.find_spec('mflib'); print(ascii(s and s.origin))"
    found = subprocess.run(
        [sys.executable, "-c", find],
        env=environment,
        cwd=environment["IPYTHONDIR"],  # where nothing is
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
    """The environment of a kernel for a notebook in ``folder``; its own folders go at the end."""
    kept = {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}
    # a kernel that is about to end may still write
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
        # matplotlib would look for fonts anew, and say so in the notebook if that takes long
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
) -> tuple[nbformat.NotebookNode, str | None]:
    """The notebook with new outputs, run from its own folder, and what failed or None.

    ``environment``: more variables for the kernel; ``go_on`` after a cell that fails; ``twice``:
    run all cells twice; ``last``: a cell to be run at the end, which the result does not hold;
    ``cell_seconds``: by the clock, for one cell.
    """
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    if twice:
        once = [nbformat.v4.new_code_cell(c.source, metadata=c.metadata) for c in code]
        notebook.cells = once + notebook.cells
    notebook.cells += [last] if last else []
    error = None
    variables = {"MFLIB_DATASET": dataset, "MFLIB_PROGRESS": "0"} | (environment or {})
    with own_settings(file.resolve().parent) as own, _bar(file.stem, len(notebook.cells)) as bar:
        client = NotebookClient(
            notebook,
            timeout=cell_seconds,
            allow_errors=go_on,
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # no warning: connections are local
            resources={"metadata": {"path": str(file.parent)}},
            on_cell_complete=lambda cell, cell_index: bar.update(cell_index + 1 - bar.n),
        )
        client.km = AsyncKernelManager(
            kernel_name="python3",  # without folders of kernels: this interpreter
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(Path(own["JUPYTER_RUNTIME_DIR"], "kernel.json")),
        )
        try:
            client.execute(env=own | variables)
            bar.update(bar.total - bar.n)
        except (CellExecutionError, RuntimeError, TimeoutError) as failure:  # a kernel may die
            error = f"{file.name}: {failure}"
    if twice:
        notebook.cells = notebook.cells[len(once) :]
    if last:
        notebook.cells.pop()
    if error is None and (cells := _without_figure(notebook)):
        error = f"{file.name}: expected a figure of each of the cells {', '.join(cells)}, got none"
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
    return tqdm(total=cells, desc=name, unit="cell", bar_format="{desc:8} {bar:30} {elapsed}")


def _without_figure(notebook: nbformat.NotebookNode) -> list[str]:
    """Cells with a text for their figure that came to their end without one."""
    return [
        cell.id
        for cell in notebook.cells
        if "alt" in cell.metadata
        and cell.execution_count
        and not any(output.output_type == "error" for output in cell.outputs)
        and not any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
