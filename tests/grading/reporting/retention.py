"""What becomes of the pages of submissions that are not in the class any more."""

from collections.abc import Container
from pathlib import Path

from grading.result import load

GONE = "gone"  # a folder beside the pages; whoever comes back is not graded again


def put_away(target: Path, names: Container[str]) -> list[str]:
    """Move the pages and reports of all but ``names`` out of the way -> whose they were.

    Only what the grader has written itself is moved: a report that says so, and the page that goes
    with it. Nothing is deleted, since a class may be given in parts.
    """
    found = []
    for file in sorted((target / "submissions").glob("*.json")):
        report = load(file)
        if file.stem not in names and report is not None and report.name == file.stem:
            _move(target, target / GONE, file.stem)
            found.append(file.stem)
    return found


def bring_back(target: Path, name: str) -> None:
    """The page and the report of a submission that is here again, if there are none."""
    if not _report(target, name).exists() and _report(target / GONE, name).exists():
        _move(target / GONE, target, name)


def _report(folder: Path, name: str) -> Path:
    return folder / "submissions" / f"{name}.json"


def _move(source: Path, target: Path, name: str) -> None:
    """The report comes last: as long as it is where it was, this is done again."""
    (target / "submissions").mkdir(parents=True, exist_ok=True)
    if (page := source / f"{name}.html").exists():
        page.replace(target / page.name)
    _report(source, name).replace(_report(target, name))
