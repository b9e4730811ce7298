"""The rooms of the grader import only earlier ones."""

import ast

import pytest

from grading.paths import GRADING

ORDER = (  # each may import itself and what is to its left
    *("paths", "schema", "csv_tables", "outcomes", "rubric"),
    *("isolation", "intake", "execution", "kernels", "judging", "plagiarism", "result", "scoring"),
    *("talk", "course", "reporting", "pipeline", "scheduler", "gradebook", "cli", "__main__"),
    *("autograder", "student", "evaluation"),
)
MODULES = sorted(GRADING.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """Return the first part of a module's name below ``grading``."""
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(GRADING)))
def test_rooms_import_only_earlier_ones(file):
    parts = file.relative_to(GRADING.parent).with_suffix("").parts
    room = room_of(parts)
    if room in ("tests", "__init__"):
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grading":
            inside = node.module == "grading"
            for name in [alias.name for alias in node.names] if inside else [node.module]:
                other = name if inside else room_of(tuple(name.split(".")))
                assert ORDER.index(other) <= ORDER.index(room), f"line {node.lineno}: {other}"
