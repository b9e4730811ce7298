"""Execute the notebooks, pack submission.zip, and report its content as the grader reads it.

python suite.py submit
"""

import json
import sys
import zipfile
from pathlib import Path

import nbformat
from fresh_kernel import execute, write

from grading.intake.names import plain
from grading.rubric import RUBRIC
from grading.student.check import ROOT, SUITE, check, show


def is_untouched(notebook: str, module: str) -> bool:
    """Return whether a task's files have no code of the student's."""

    def code(folder: Path) -> list[str]:
        cells = nbformat.read(folder / notebook, as_version=4).cells
        return [cell.source for cell in cells if cell.cell_type == "code"]

    pair = ROOT / module, SUITE / module
    same_module = pair[0].is_file() and pair[0].read_bytes() == pair[1].read_bytes()
    return same_module and code(ROOT) == code(SUITE)


def executed(name: str, dataset: str) -> str:
    """Execute a notebook of the edition in place; return a message on failing cells."""
    notebook, error = execute(ROOT / name, dataset, go_on=True)
    failed = {
        cell.id: f"{output.ename}: {output.evalue}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }
    write(nbformat.writes(notebook) + "\n", ROOT / name)
    if not failed:
        return f"{name}: {error}" if error else ""
    (first, why), *others = failed.items()
    behind = f", then {len(others)} other cells that may depend on it" if others else ""
    return plain(f"{name}: the cell {first} fails ({why:.200}){behind}")


def own_modules() -> list[str]:
    """Return the student's additional Python files in mflib/ and notebooks/."""
    added = [*(ROOT / "mflib").rglob("*.py"), *(ROOT / "notebooks").rglob("*.py")]
    names = (file.relative_to(ROOT) for file in sorted(added))
    return [name.as_posix() for name in names if not (SUITE / name).exists()]


def main() -> None:
    dataset = sys.argv[1] if len(sys.argv) > 1 else "ml-100k"
    files: list[str] = []
    messages: list[str] = []
    missing = 0
    for number, entry in enumerate(RUBRIC.values(), 1):
        notebook, module = f"notebooks/{entry.notebook}.ipynb", f"mflib/{entry.module}.py"
        for name in (notebook, module):
            if (ROOT / name).is_file():
                files.append(name)
            else:
                messages.append(f"{name} is missing and cannot earn points")
                missing += 1
        if notebook in files:
            try:
                if is_untouched(notebook, module):
                    messages.append(f"{notebook}: nothing written yet, packed as it is")
                    continue
                print(f"executing {notebook} ({number} of {len(RUBRIC)})", flush=True)
                messages.append(executed(notebook, dataset))
            except Exception as error:  # an unreadable notebook
                messages.append(f"{notebook} cannot be executed: {type(error).__name__}: {error}")
    files += own_modules()
    temporary = ROOT / ".submission.zip"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            archive.write(ROOT / name, name)
        archive.writestr("manifest.json", json.dumps({"dataset": dataset, "files": files}))
    temporary.replace(ROOT / "submission.zip")
    print("\nWhat the grader will find in submission.zip:\n")
    show(check(ROOT / "submission.zip"))
    packed = f"submission.zip is packed: {len(files)} files, executed on {dataset}"
    print("\n".join(["", *filter(None, messages), packed]))
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
