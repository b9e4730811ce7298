"""Execute the notebooks, each in a fresh kernel, several side by side.

    python tests/notebooks/execute.py run ml-100k         into build/ml-100k, with pages and a table
    python tests/notebooks/execute.py store ml-1m         into the folder of stored outputs
    python tests/notebooks/execute.py verify ml-100k      compare with the stored outputs
    python tests/notebooks/execute.py reproduce ml-100k   the same under each of DISTURBANCES

Outputs on MovieLens-1M are stored in notebooks/, those of the same sources on MovieLens-100K in
ml-100k/ next to this file. What differs is shown in build/verify.html.
"""

import argparse
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
from differences import changes, differences, texts
from disturbances import COMBINED, DISTURBANCES, cannot, disturbed
from fresh_kernel import CELL_SECONDS, Failure, execute, tags, write
from pages import Lesson, index, page
from playground import build as build_playground
from playground import saving
from side_by_side import side_by_side
from tqdm import tqdm
from verify_page import Verified, annotations
from verify_page import page as verify_page

from mflib.data import SOURCES as SOURCES_OF_DATA

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = ROOT / "notebooks"
STORED = {"ml-1m": SOURCES, "ml-100k": HERE / "ml-100k"}
ASSERTS = re.compile(r"^\s*assert ", re.MULTILINE)
HEADLINE = re.compile(
    r"(?P<metric>\S+): (?P<model>\w+) (?P<value>[\d.]+), (?P<baseline>.+) (?P<theirs>[\d.]+)"
)


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*.ipynb"))


def headlines(notebook: nbformat.NotebookNode) -> list[re.Match]:
    """Return the lines of the cell tagged ``headline``: a metric of the model and the baseline."""
    cells = [cell for cell in notebook.cells if "headline" in tags(cell)]
    lines = [
        line
        for cell in cells
        for output in cell.outputs
        for line in output.get("text", "").splitlines()
    ]
    return [match for line in lines if (match := HEADLINE.fullmatch(line))]


def run(dataset: str) -> list[str]:
    """Execute all notebooks into build/, write pages and print results; return the failures."""
    target = ROOT / "build" / dataset
    lessons = {file: Lesson(file.stem, nbformat.read(file, as_version=4)) for file in sources()}
    errors: list[str] = []

    def task(file: Path, share: dict[str, str]):
        start, last = time.perf_counter(), saving(file.stem, target / "models")
        return *execute(file, dataset, share, last=last), time.perf_counter() - start

    width = max(map(len, (file.stem for file in lessons)), default=0)
    table = Table(
        ("notebook", width), ("seconds", 7), ("metric", 12), ("model", 11), ("baseline", 0)
    )
    for file, (notebook, error, seconds) in side_by_side([*lessons], dataset, task):
        lesson = lessons[file]
        lesson.notebook, lesson.seconds = notebook, seconds
        lesson.results = [line.groupdict() for line in headlines(notebook)]
        if error is None and not lesson.results:
            expected = "a cell tagged 'headline' to print 'METRIC: MODEL x, BASELINE y'"
            error = Failure(f"{file.name}: expected {expected}", "error", [])
        lesson.failed = error is not None
        errors += [error] if error else []
        first = (file.stem, f"{seconds:.0f}")
        for line in lesson.results:
            values = (f"{line['model']} {line['value']}", f"{line['baseline']} {line['theirs']}")
            table.add(*first, line["metric"], *values)
            first = ("", "")
        if error:
            table.add(file.stem, f"{seconds:.0f}", f"failed: {error.kind}")
        write(nbformat.writes(notebook), target / file.name)
        write(page(notebook, file.stem, [*lessons.values()]), target / f"{file.stem}.html")
    playground = build_playground(dataset, target)
    errors += [f"no playground: {playground}"] if playground else []
    title = SOURCES_OF_DATA[dataset].title
    html = index(title, [*lessons.values()], with_playground=not playground)
    write(html, target / "index.html")
    print(f"\nOpen build/{dataset}/index.html in a browser: the lessons and their results.")
    print("The executed notebooks are in the same folder.")
    return sorted(errors)


def store(dataset: str) -> list[str]:
    """Execute all notebooks and store the outputs in the repository, unless one fails."""

    def task(file: Path, share: dict[str, str]):
        return execute(file, dataset, share)

    errors = []
    for file, (notebook, error) in side_by_side(sources(), dataset, task):
        if error:
            errors.append(error)
        else:
            write(nbformat.writes(notebook) + "\n", STORED[dataset] / file.name)
    return sorted(errors)


def verify(
    dataset: str,
    environment: dict[str, str] | None = None,
    but_figures: bool = False,
    cell_seconds: int | None = CELL_SECONDS,
) -> list[str]:
    """Compare all notebooks with their stored outputs, a line for each; return the differences.

    ``but_figures`` ignores how figures look, as with another version of matplotlib.
    build/verify.html shows all differences in full.
    """
    files = sorted(STORED[dataset].glob("*.ipynb"))

    def task(file: Path, share: dict[str, str]) -> Verified:
        seconds: dict[str, float] = {}
        variables = share | (environment or {})
        how = {"go_on": True, "cell_seconds": cell_seconds, "seconds": seconds}
        new, failure = execute(file, dataset, variables, **how)
        return Verified(file, new, failure, seconds)

    width = max(map(len, (file.stem for file in files)), default=0)
    names = ("cells reproduced", "checks passed", "seconds")
    table = Table(("notebook", width), *((name, len(name)) for name in names))
    done = []
    for file, verified in side_by_side(files, dataset, task):
        new = verified.notebook
        verified.changes = changes(nbformat.read(file, as_version=4), new)
        if but_figures:
            verified.changes = {
                cell: replace(change, figures=[]) for cell, change in verified.changes.items()
            }
        done.append(verified)
        checks = [c for c in new.cells if c.id in verified.changes and ASSERTS.search(c.source)]
        passed = [c for c in checks if c.execution_count and "error" not in dict(texts(c))]
        table.add(
            file.stem,
            f"{verified.reproduced} / {len(verified.changes)}",
            f"{len(passed)} / {len(checks)}",
            f"{sum(verified.seconds.values()):.0f}",
        )
    done.sort(key=lambda each: each.file)
    report = ROOT / "build" / "verify.html"
    write(verify_page(SOURCES_OF_DATA[dataset].title, done, environment), report)
    errors = [error for each in done for error in each.errors()]
    if errors:
        print("\nOpen build/verify.html in a browser: all differences in full.")
    if os.environ.get("CI") or os.environ.get("GITHUB_ACTIONS"):
        print(*(line for each in done for line in annotations(each, ROOT)), sep="\n")
    return errors


def reproduce(dataset: str, names: list[str] | None = None) -> list[str]:
    """Verify under each disturbance (or those in ``names``) and print a table."""
    rows, errors = [("disturbance", "notebook", "cells", "differ", "first difference")], []
    for name in names or DISTURBANCES:
        if why := cannot(name):
            rows.append((name, "", "", "", f"not run: {why}"))
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


def show(rows: list[tuple[str, ...]]) -> None:
    """Print a table whose first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = Table(*zip(rows[0], widths, strict=True))
    for row in rows[1:]:
        table.add(*row)


class Table:
    """Print a table in the terminal row by row, above the progress bars."""

    def __init__(self, *columns: tuple[str, int]) -> None:
        self.widths = [max(len(name), width) for name, width in columns]
        tqdm.write("")
        self.add(*(name for name, _ in columns))

    def add(self, *texts: str) -> None:
        line = "  ".join(text.ljust(width) for text, width in zip(texts, self.widths, strict=False))
        tqdm.write(line.rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "store", "verify", "reproduce"])
    parser.add_argument("dataset", choices=sorted(STORED))
    parser.add_argument(
        "--combined", action="store_true", help="verify under several disturbances at once"
    )
    parser.add_argument("--but-figures", action="store_true", help="verify texts and tables only")
    parser.add_argument("--only", nargs="+", choices=DISTURBANCES, help="only these disturbances")
    arguments = parser.parse_args()
    if arguments.command == "verify":
        environment = COMBINED if arguments.combined else None
        errors = verify(arguments.dataset, environment, arguments.but_figures)
    elif arguments.command == "reproduce":
        errors = reproduce(arguments.dataset, arguments.only)
    else:
        errors = {"run": run, "store": store}[arguments.command](arguments.dataset)
    sys.exit("\n\n".join(errors) if errors else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
