"""Execute the notebooks in fresh kernels: the one place that does.

    python tests/execute.py run ml-100k     into build/ml-100k, as notebooks and pages, ending with a table
    python tests/execute.py store ml-1m     into the folder that holds the outputs on that data set

Outputs on MovieLens-1M are stored in notebooks/, those on MovieLens-100K, of the same sources, in tests/ml-100k/.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks"
STORED = {"ml-1m": SOURCES, "ml-100k": ROOT / "tests" / "ml-100k"}
CELL_SECONDS = 600
HEADLINE = re.compile(r"(?P<metric>\S+): (?P<model>\w+) (?P<value>[\d.]+), (?P<baseline>.+) (?P<theirs>[\d.]+)")


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*.ipynb"))


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def execute(file: Path, dataset: str) -> tuple[nbformat.NotebookNode, str | None]:
    """The notebook with new outputs, run from its own folder on ``dataset``, and what failed or None."""
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    os.environ.update(MFLIB_DATASET=dataset, MFLIB_PROGRESS="0")  # the kernel inherits them
    bar = tqdm(total=len(notebook.cells), desc=file.stem, unit="cell", bar_format="{desc:8} {bar:30} {elapsed}")
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warning that local connections are not encrypted
        resources={"metadata": {"path": str(file.parent)}},
        on_cell_complete=lambda cell, cell_index: bar.update(cell_index + 1 - bar.n),
    )
    error = None
    try:
        client.execute()
        bar.update(bar.total - bar.n)
    except (CellExecutionError, DeadKernelError, TimeoutError) as failure:
        error = f"{file.name}: {failure}"
    bar.close()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},  # without the version: the outputs do not depend on it
    }
    return notebook, error


def write(text: str, file: Path) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": name}})
    return html


def headlines(notebook: nbformat.NotebookNode) -> list[re.Match]:
    """What the cell tagged ``headline`` prints: a metric of the model and of the baseline, a line each."""
    cells = [cell for cell in notebook.cells if "headline" in tags(cell)]
    lines = [line for cell in cells for output in cell.outputs for line in output.get("text", "").splitlines()]
    return [match for line in lines if (match := HEADLINE.fullmatch(line))]


def run(dataset: str) -> list[str]:
    """Execute all into build/, print the table; returns what failed."""
    rows, errors = [], []
    for file in sources():
        start = time.perf_counter()
        notebook, error = execute(file, dataset)
        seconds = time.perf_counter() - start
        target = ROOT / "build" / dataset / file.name
        write(nbformat.writes(notebook), target)
        write(page(notebook, file.stem), target.with_suffix(".html"))
        found = headlines(notebook)
        if error is None and not found:
            error = f"{file.name}: expected a cell tagged 'headline' to print 'METRIC: MODEL x, BASELINE y'"
        errors += [error] if error else []
        for place, line in enumerate(found):
            first = (file.stem, f"{seconds:.0f}") if place == 0 else ("", "")
            values = (f"{line['model']} {line['value']}", f"{line['baseline']} {line['theirs']}")
            rows.append((*first, line["metric"], *values))
        if error:
            rows.append((file.stem, f"{seconds:.0f}", "failed", "", ""))
    table = [("notebook", "seconds", "metric", "model", "baseline"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nNotebooks and pages are in build/{dataset}/; open one of the .html files in a browser.")
    return errors


def store(dataset: str) -> list[str]:
    """Execute all and store the outputs in the repository, unless a notebook fails."""
    errors = []
    for file in sources():
        notebook, error = execute(file, dataset)
        if error:
            errors.append(error)
        else:
            write(nbformat.writes(notebook) + "\n", STORED[dataset] / file.name)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "store"])
    parser.add_argument("dataset", choices=sorted(STORED))
    arguments = parser.parse_args()
    errors = {"run": run, "store": store}[arguments.command](arguments.dataset)
    sys.exit("\n\n".join(errors) if errors else 0)


if __name__ == "__main__":
    main()
