"""Execute the notebooks in fresh kernels: the one place that does.

    python tests/notebooks/execute.py run ml-100k         into build/ml-100k, with pages and a table
    python tests/notebooks/execute.py store ml-1m         into the folder of stored outputs
    python tests/notebooks/execute.py verify ml-100k      against the stored outputs
    python tests/notebooks/execute.py reproduce ml-100k   the same under each of DISTURBANCES

Outputs on MovieLens-1M are stored in notebooks/, those on MovieLens-100K, of the same sources, in
ml-100k/ beside this file.
"""

import argparse
import base64
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

import nbformat
import numpy as np
import torch
from matplotlib.image import imread
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm import tqdm

from mflib.data import LIKED, Source, data_dir
from mflib.data import SOURCES as SOURCES_OF_DATA

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = ROOT / "notebooks"
STORED = {"ml-1m": SOURCES, "ml-100k": HERE / "ml-100k"}
CELL_SECONDS = 600
# What must not change any text or table: environment variables, or what ``disturbed`` does.
DISTURBANCES = {
    "plain": {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "vectors of torch: default": {"ATEN_CPU_CAPABILITY": "default"},
    "vectors of torch: avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "vectors of torch: avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "MKL: COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "MKL: AVX2": {"MKL_CBWR": "AVX2"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "hash seed 2": {"PYTHONHASHSEED": "2"},
    "locale and time zone": {"LC_ALL": "C", "TZ": "Pacific/Chatham"},
    "another folder": {},
    "rows in another order": {},
    "under load": {},
    "cells run twice": {},
}
COMBINED = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "PYTHONHASHSEED": "7",
    "LC_ALL": "C",
}
HEADLINE = re.compile(
    r"(?P<metric>\S+): (?P<model>\w+) (?P<value>[\d.]+), (?P<baseline>.+) (?P<theirs>[\d.]+)"
)


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*.ipynb"))


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def execute(
    file: Path,
    dataset: str,
    environment: dict[str, str] | None = None,
    go_on: bool = False,
    twice: bool = False,
    cell_seconds: int | None = CELL_SECONDS,
) -> tuple[nbformat.NotebookNode, str | None]:
    """The notebook with new outputs, run from its own folder, and what failed or None.

    ``environment``: more variables for the kernel; ``go_on`` after a cell that fails; ``twice``:
    run all cells twice; ``cell_seconds``: by the clock, for one cell.
    """
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if twice:
        once = [
            nbformat.v4.new_code_cell(c.source, metadata=c.metadata)
            for c in notebook.cells
            if c.cell_type == "code"
        ]
        notebook.cells = once + notebook.cells
    bar = tqdm(
        total=len(notebook.cells),
        desc=file.stem,
        unit="cell",
        bar_format="{desc:8} {bar:30} {elapsed}",
    )
    client = NotebookClient(
        notebook,
        timeout=cell_seconds,
        kernel_name="python3",
        allow_errors=go_on,
        record_timing=False,
        extra_arguments=[
            "--IPKernelApp.log_level=40"
        ],  # no warning that local connections are not encrypted
        resources={"metadata": {"path": str(file.parent)}},
        on_cell_complete=lambda cell, cell_index: bar.update(cell_index + 1 - bar.n),
    )
    error = None
    try:
        variables = {"MFLIB_DATASET": dataset, "MFLIB_PROGRESS": "0"} | (environment or {})
        client.execute(env=os.environ | variables)
        bar.update(bar.total - bar.n)
    except (CellExecutionError, DeadKernelError, TimeoutError) as failure:
        error = f"{file.name}: {failure}"
    bar.close()
    if twice:
        notebook.cells = notebook.cells[len(once) :]
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},  # without the version: the outputs do not depend on it
    }
    return notebook, error


def write(text: str, file: Path) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def headlines(notebook: nbformat.NotebookNode) -> list[re.Match]:
    """What the cell tagged ``headline`` prints: a metric of model and baseline, a line each."""
    cells = [cell for cell in notebook.cells if "headline" in tags(cell)]
    lines = [
        line
        for cell in cells
        for output in cell.outputs
        for line in output.get("text", "").splitlines()
    ]
    return [match for line in lines if (match := HEADLINE.fullmatch(line))]


def run(dataset: str) -> list[str]:
    """Execute all into build/, with pages; print the table; returns what failed."""
    from pages import Lesson, index, page  # where submissions are executed, there are none

    target = ROOT / "build" / dataset
    lessons = [Lesson(file.stem, nbformat.read(file, as_version=4)) for file in sources()]
    rows, errors = [("notebook", "seconds", "metric", "model", "baseline")], []
    for file, lesson in zip(sources(), lessons, strict=True):
        start = time.perf_counter()
        lesson.notebook, error = execute(file, dataset)
        lesson.seconds = time.perf_counter() - start
        lesson.results = [line.groupdict() for line in headlines(lesson.notebook)]
        if error is None and not lesson.results:
            expected = "a cell tagged 'headline' to print 'METRIC: MODEL x, BASELINE y'"
            error = f"{file.name}: expected {expected}"
        lesson.failed = error is not None
        errors += [error] if error else []
        write(nbformat.writes(lesson.notebook), target / file.name)
        write(page(lesson.notebook, file.stem, lessons), target / f"{file.stem}.html")
        first = (file.stem, f"{lesson.seconds:.0f}")
        for line in lesson.results:
            values = (f"{line['model']} {line['value']}", f"{line['baseline']} {line['theirs']}")
            rows.append((*first, line["metric"], *values))
            first = ("", "")
        if error:
            rows.append((file.stem, f"{lesson.seconds:.0f}", "failed", "", ""))
    write(index(SOURCES_OF_DATA[dataset].title, lessons), target / "index.html")
    show(rows)
    print(f"\nOpen build/{dataset}/index.html in a browser: the lessons and their results.")
    print("The executed notebooks are beside it.")
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


def texts(cell: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """What a cell has put out, pictures aside: (kind, text) of streams, errors and results."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if found and found[-1][0] == output.name:  # where a stream is cut is up to chance
                output = {"name": output.name, "text": found.pop()[1] + output.text}
            found.append((output["name"], output["text"]))
        elif output.output_type == "error":
            found.append(("error", f"{output.ename}: {output.evalue}"))
        else:
            found += [
                (kind, text)
                for kind, text in sorted(output.data.items())
                if kind.startswith("text/")
            ]
    return found


def alike(one: str, other: str) -> bool:
    """Whether two PNGs (base64) look the same: another machine may round a pixel differently."""
    if one == other:
        return True
    a, b = (
        imread(BytesIO(base64.b64decode(png))) for png in (one, other)
    )  # height x width x channels, 0 … 1
    return a.shape == b.shape and float(np.sqrt(((a - b) ** 2).mean())) < 5 / 255


def differences(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> dict[str, str]:
    """By the id of each executed cell, what differs in its texts and figures, or ""."""
    found = {}
    for old, cell in zip(stored.cells, new.cells, strict=True):
        if cell.cell_type == "code" and "skip-execution" not in tags(cell):
            was, came = texts(old), texts(cell)
            pairs = [(a, b) for a, b in zip_longest(was, came, fillvalue=("nothing", "")) if a != b]
            pairs.sort(
                key=lambda pair: pair[0][0] == "text/html"
            )  # of a table, its plain text is easier to read
            lines = [
                pair
                for a, b in pairs[:1]
                for pair in zip_longest(a[1].splitlines(), b[1].splitlines())
            ]
            changed = [pair for pair in lines if pair[0] != pair[1]][:2]
            shown = [
                f"{sign} {line}"
                for pair in changed
                for sign, line in zip("-+", pair, strict=True)
                if line
            ]
            found[cell.id] = "\n".join(shown) or (
                f"{pairs[0][0][0]} became {pairs[0][1][0]}" if pairs else ""
            )
            figures = [
                [o.data["image/png"] for o in c.outputs if "image/png" in o.get("data", {})]
                for c in (old, cell)
            ]
            if len(figures[0]) != len(figures[1]) or not all(map(alike, *figures)):
                found[cell.id] += "the figure looks different"
    return found


def verify(dataset: str, environment: dict[str, str] | None = None) -> list[str]:
    """Execute all against the stored outputs, a line for each; returns what differs."""
    rows, errors = [("notebook", "cells reproduced", "checks passed", "seconds")], []
    for file in sorted(STORED[dataset].glob("*.ipynb")):
        start = time.perf_counter()
        stored = nbformat.read(file, as_version=4)
        new, error = execute(file, dataset, environment, go_on=True)
        found = differences(stored, new)
        checks = [
            c
            for c in new.cells
            if c.id in found and re.search(r"^\s*assert ", c.source, re.MULTILINE)
        ]
        passed = [
            c for c in checks if c.execution_count and "error" not in (kind for kind, _ in texts(c))
        ]
        same = sum(not difference for difference in found.values())
        seconds = f"{time.perf_counter() - start:.0f}"
        rows.append(
            (file.stem, f"{same} / {len(found)}", f"{len(passed)} / {len(checks)}", seconds)
        )
        errors += [error] if error else []
        errors += [f"{file.stem}, cell {cell}:\n{text}" for cell, text in found.items() if text]
    show(rows)
    return errors


def reproduce(dataset: str, names: list[str] | None = None) -> list[str]:
    """Verify under each disturbance (or those of ``names``), as a table; returns what differs."""
    rows, errors = [("disturbance", "notebook", "cells", "differ", "first difference")], []
    for name in names or DISTURBANCES:
        if "avx512" in name and torch.backends.cpu.get_cpu_capability() != "AVX512":
            rows.append((name, "", "", "", "not run: this processor has no AVX-512"))
            continue
        for file in sorted(STORED[dataset].glob("*.ipynb")):
            stored = nbformat.read(file, as_version=4)
            with disturbed(name, file, dataset) as (place, environment):
                new, error = execute(
                    place, dataset, environment, go_on=True, twice=name == "cells run twice"
                )
            found = differences(stored, new)
            wrong = [f"{cell}: {text}" for cell, text in found.items() if text] + (
                [error] if error else []
            )
            first = wrong[0].replace("\n", " ")[:80] if wrong else ""
            rows.append((name, file.stem, str(len(found)), str(len(wrong)), first))
            errors += [f"{name}, {file.stem}, {text}" for text in wrong]
    show(rows)
    return errors


@contextmanager
def disturbed(name: str, file: Path, dataset: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The notebook to be executed and the variables to be set under a disturbance."""
    environment = DISTURBANCES[name]
    with tempfile.TemporaryDirectory(prefix="mflib ünïcode ") as temporary:
        folder = Path(temporary)
        if name == "another folder":
            shutil.copytree(ROOT / "mflib", folder / "mflib")
            file = Path(shutil.copy(file, folder))
            environment = {"PYTHONPATH": temporary, "MFLIB_DATA": str(data_dir())}
        elif name == "rows in another order":
            shuffle(data_dir() / dataset, folder / dataset, SOURCES_OF_DATA[dataset])
            environment = {"MFLIB_DATA": temporary}
        busy = [sys.executable, "-c", "while True: pass"]
        load = (
            [subprocess.Popen(busy) for _ in range(os.cpu_count() or 1)]
            if name == "under load"
            else []
        )
        try:
            yield file, environment
        finally:
            for process in load:
                process.kill()
                process.wait()


def shuffle(source: Path, target: Path, layout: Source) -> None:
    """A copy of a data set with the ratings in another order, those below 4 at other times."""
    shutil.copytree(source, target)
    file = target / Path(layout.ratings).name
    lines = file.read_text(layout.encoding).splitlines()
    header, rows = lines[: layout.header], lines[layout.header :]
    random.Random(0).shuffle(rows)
    fields = [row.split(layout.separator) for row in rows]
    moved = [
        layout.separator.join([*row[:3], row[3] if float(row[2]) >= LIKED else str(n)])
        for n, row in enumerate(fields)
    ]
    file.write_text("\n".join(header + moved) + "\n", layout.encoding)


def show(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "store", "verify", "reproduce"])
    parser.add_argument("dataset", choices=sorted(STORED))
    parser.add_argument(
        "--combined", action="store_true", help="verify under several disturbances at once"
    )
    parser.add_argument(
        "--only", nargs="+", choices=DISTURBANCES, help="of the disturbances, these"
    )
    arguments = parser.parse_args()
    if arguments.command == "verify":
        errors = verify(arguments.dataset, COMBINED if arguments.combined else None)
    elif arguments.command == "reproduce":
        errors = reproduce(arguments.dataset, arguments.only)
    else:
        errors = {"run": run, "store": store}[arguments.command](arguments.dataset)
    sys.exit("\n\n".join(errors) if errors else 0)


if __name__ == "__main__":
    main()
