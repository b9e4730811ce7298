"""Keep the pages of submissions that are no longer in the class."""

from collections.abc import Container
from pathlib import Path

from grading.result import load

GONE = "gone"  # a folder next to the pages


def retire(target: Path, names: Container[str]) -> list[str]:
    """Move the pages and reports of all submissions except ``names``; return the moved names.

    Only the grader's files are moved: valid reports and their pages. Nothing is deleted, because a
    class may be graded in parts and a report is used again when its submission comes back.
    """
    moved = []
    for file in sorted((target / "submissions").glob("*.json")):
        report = load(file)
        if file.stem not in names and report is not None and report.name == file.stem:
            _move(target, target / GONE, file.stem)
            moved.append(file.stem)
    return moved


def restore(target: Path, name: str) -> None:
    """Move the page and report of a submission back unless there are newer ones."""
    if not _report(target, name).exists() and _report(target / GONE, name).exists():
        _move(target / GONE, target, name)


def _report(folder: Path, name: str) -> Path:
    return folder / "submissions" / f"{name}.json"


def _move(source: Path, target: Path, name: str) -> None:
    """Move the report last, so that an interrupted move is repeated."""
    (target / "submissions").mkdir(parents=True, exist_ok=True)
    for page in (f"{name}.html", f"instructor/{name}.html"):
        if (source / page).exists():
            (target / page).parent.mkdir(exist_ok=True)
            (source / page).replace(target / page)
    _report(source, name).replace(_report(target, name))
