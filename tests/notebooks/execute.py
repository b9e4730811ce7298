"""Execute the notebooks, each in a fresh kernel.

    python tests/notebooks/execute.py run ml-100k         into build/ml-100k, with pages and a table
    python tests/notebooks/execute.py store ml-1m         into the folder of stored outputs
    python tests/notebooks/execute.py verify ml-100k      against the stored outputs
    python tests/notebooks/execute.py reproduce ml-100k   the same under each of DISTURBANCES

Outputs on MovieLens-1M are stored in notebooks/, those on MovieLens-100K, of the same sources, in
ml-100k/ beside this file.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from differences import OTHER_FIGURE, differences, texts
from disturbances import COMBINED, DISTURBANCES, cannot, disturbed
from fresh_kernel import execute, tags, write
from pages import Lesson, index, page
from playground import build as build_playground
from playground import saving

from mflib.data import SOURCES as SOURCES_OF_DATA

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = ROOT / "notebooks"
STORED = {"ml-1m": SOURCES, "ml-100k": HERE / "ml-100k"}
HEADLINE = re.compile(
    r"(?P<metric>\S+): (?P<model>\w+) (?P<value>[\d.]+), (?P<baseline>.+) (?P<theirs>[\d.]+)"
)


def sources() -> list[Path]:
    return sorted(SOURCES.glob("*.ipynb"))


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
    target = ROOT / "build" / dataset
    lessons = [Lesson(file.stem, nbformat.read(file, as_version=4)) for file in sources()]
    rows, errors = [("notebook", "seconds", "metric", "model", "baseline")], []
    for file, lesson in zip(sources(), lessons, strict=True):
        start = time.perf_counter()
        last = saving(file.stem, target / "models")
        lesson.notebook, error = execute(file, dataset, last=last)
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
    playground = build_playground(dataset, target)
    errors += [f"no playground: {playground}"] if playground else []
    html = index(SOURCES_OF_DATA[dataset].title, lessons, with_playground=not playground)
    write(html, target / "index.html")
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


def without_lines(notebook: nbformat.NotebookNode, pattern: str) -> int:
    """Take the lines of stderr that match out of the outputs; returns how many they were."""
    removed = 0
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in (o for o in cell.outputs if o.get("name") == "stderr"):
            lines = output.text.splitlines(keepends=True)
            kept = [line for line in lines if not re.search(pattern, line)]
            removed += len(lines) - len(kept)
            output.text = "".join(kept)
        cell.outputs = [o for o in cell.outputs if o.get("text") != ""]
    return removed


def verify(
    dataset: str,
    environment: dict[str, str] | None = None,
    ignore: str | None = None,
    but_figures: bool = False,
) -> list[str]:
    """Execute all against the stored outputs, a line for each; returns what differs.

    ``ignore``: a pattern for lines of stderr that do not count; how many there are is printed.
    ``but_figures``: how figures look does not count, as matplotlib has another version.
    """
    rows, errors = [("notebook", "cells reproduced", "checks passed", "seconds")], []
    ignored = 0
    for file in sorted(STORED[dataset].glob("*.ipynb")):
        start = time.perf_counter()
        stored = nbformat.read(file, as_version=4)
        new, error = execute(file, dataset, environment, go_on=True)
        ignored += without_lines(new, ignore) if ignore else 0
        found = differences(stored, new)
        if but_figures:
            found = {cell: text.removesuffix(OTHER_FIGURE) for cell, text in found.items()}
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
    if ignore:
        print(f"\n{ignored} lines of stderr with {ignore} did not count.")
    return errors


def reproduce(dataset: str, names: list[str] | None = None) -> list[str]:
    """Verify under each disturbance (or those of ``names``), as a table; returns what differs."""
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
    parser.add_argument("--ignore", help="verify without lines of stderr of this pattern")
    parser.add_argument(
        "--but-figures", action="store_true", help="verify texts and tables, not how figures look"
    )
    parser.add_argument(
        "--only", nargs="+", choices=DISTURBANCES, help="of the disturbances, these"
    )
    arguments = parser.parse_args()
    if arguments.command == "verify":
        environment = COMBINED if arguments.combined else None
        how = {"ignore": arguments.ignore, "but_figures": arguments.but_figures}
        errors = verify(arguments.dataset, environment, **how)
    elif arguments.command == "reproduce":
        errors = reproduce(arguments.dataset, arguments.only)
    else:
        errors = {"run": run, "store": store}[arguments.command](arguments.dataset)
    sys.exit("\n\n".join(errors) if errors else 0)


if __name__ == "__main__":
    main()
