"""Paths of the project, the grader and the notebook tools."""

import shutil
from collections.abc import Iterable
from pathlib import Path

GRADING = Path(__file__).resolve().parent
TESTS = GRADING.parent
ROOT = TESTS.parent  # of the project
NOTEBOOK_TOOLS = TESTS / "notebooks"


def copy_modules(names: Iterable[str], target: Path) -> None:
    """Copy modules of this package to ``target``/grading, where the same imports work.

    Parameters
    ----------
    names : iterable of str
        Paths in the package, such as "execution/harness.py".
    target : Path
        A folder on Python's import path.
    """
    for name in names:
        place = target / GRADING.name / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GRADING / name, place)
        for folder in [place.parent, *place.parent.parents]:
            if folder == target:
                break
            shutil.copy(GRADING / folder.relative_to(target / GRADING.name) / "__init__.py", folder)
