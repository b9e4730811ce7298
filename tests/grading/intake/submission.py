"""The one reading of a submission, shared by check, submit and grade: which file is which."""

import ast
from dataclasses import dataclass, field

from grading.intake.cells import Cells, HandedOut, answer_of, binds, cells_of, recognise
from grading.intake.collect import Files, expected, safe_name
from grading.rubric import RUBRIC


@dataclass
class Submission:
    """What a student has written, by task."""

    modules: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Cells] = field(default_factory=dict)  # by key, as "svd/ndcg"
    stored: dict[str, dict[str, dict]] = field(default_factory=dict)  # by task and handed-out id
    notes: list[str] = field(default_factory=list)  # what was done to read it
    trouble: dict[str, list[str]] = field(default_factory=dict)  # by task: what is missing


def read(files: Files, known: dict[str, list[HandedOut]]) -> Submission:
    """What a student has written, found among files of any names."""
    found = Submission()
    taken = chosen(files, found.notes)
    if not taken:
        names = ", ".join(map(safe_name, sorted(files)[:5])) or "nothing"
        found.notes.append(
            "none of the expected files (mflib/svd.py, notebooks/01_svd.ipynb, …) was handed in; "
            f"there is: {names}"
        )
    for task, entry in RUBRIC.items():
        trouble = found.trouble[task] = []
        contents: dict[str, bytes] = {}
        for kind, label in (("py", f"{entry['module']}.py"), ("ipynb", f"{entry['notebook']}")):
            name = taken.get(f"{task}.{kind}")
            try:
                if name is None:
                    raise ValueError("was not handed in")
                contents[kind] = files[name].read()
            except Exception as error:  # a corrupt archive, a file that is too large
                shown = label if kind == "py" else f"{label}.ipynb"
                trouble.append(f"{shown}: {error}")
        if "py" in contents:
            found.modules[task] = contents["py"]
        if "ipynb" in contents:
            cells = cells_of(contents["ipynb"], taken[f"{task}.ipynb"], trouble)
            recognise(cells, known[task])
            found.stored[task] = {c.known_as: c.raw for c in cells if c.known_as and c.raw}
            imported = binds(ast.parse(known[task][0].source))  # by the first cell
            for cell in known[task]:
                for name in cell.functions:
                    if answer := answer_of(cells, name, cell.id, imported):
                        found.answers[f"{task}/{name}"] = answer
                    else:
                        trouble.append(f"{name}: the cell {cell.id} is missing")
    return found


def chosen(files: Files, notes: list[str]) -> dict[str, str]:
    """For each expected file, the one that is meant; what is not obvious is said."""
    candidates: dict[str, list[str]] = {}
    for name in files:
        if which := expected(name):
            candidates.setdefault(which, []).append(name)
    found = {}
    for which, names in candidates.items():
        task, _, kind = which.partition(".")
        entry = RUBRIC[task]
        exact = f"mflib/{entry['module']}.py" if kind == "py" else f"notebooks/{entry['notebook']}"
        exact += "" if kind == "py" else ".ipynb"
        own = [name for name in names if "checks/suite/" not in f"/{name}"]  # the checks' own
        if not own:
            continue

        def order(name: str, exact: str = exact, kind: str = kind) -> tuple:
            whole, base = f"/{name}".endswith(f"/{exact}"), name.rpartition("/")[2]
            return (not whole, base != exact.rpartition("/")[2], not name.endswith(kind), name)

        found[which] = min(own, key=order)
        base = found[which].rpartition("/")[2]
        if base != exact.rpartition("/")[2]:
            notes.append(f"{safe_name(base)} was taken for {exact}")
        if len(own) > 1:
            taken, *others = map(safe_name, [found[which], *sorted(set(own) - {found[which]})])
            notes.append(f"of several files for {exact}, {taken} was taken, not {others[:3]}")
    return found
