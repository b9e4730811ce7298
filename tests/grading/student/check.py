"""How far are you? What is done and what is wrong, for each task; on generated data, in a minute.

python checks/check.py
"""

import importlib
import sys
from pathlib import Path

import nbformat
import numpy as np
from cases import RUBRIC, SEEDS, compare, outputs
from rules import refused_source, taken, transplant

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def check_function(module: str, name: str, hint: str) -> str:
    """ "done", "not attempted" or what is wrong."""
    with np.load(HERE / "cases.npz", allow_pickle=False) as stored:
        expected = {
            seed: [stored[key] for key in sorted(stored) if key.startswith(f"{name}/{seed}/")]
            for seed in SEEDS
        }
    for seed in SEEDS:
        try:
            got = outputs(getattr(importlib.import_module(f"mflib.{module}"), name), name, seed)
        except NotImplementedError:
            return "not attempted"
        except Exception as error:  # whatever a student's code raises is a result of the check
            return f"wrong: {name} raises {type(error).__name__}: {error}"
        if wrong := compare(name, got, expected[seed]):
            return f"wrong: {wrong}. Hint: {hint}"
    return "done"


def check_exercise(cells: dict[str, str], exercise: int, names: dict[str, str]) -> str:
    namespace: dict = {}
    if why := refused_source(cells.get(f"exercise-{exercise}", ""), names):
        return f"wrong: the grader does not execute it: it {why}"
    try:
        exec(cells["imports"], namespace)
        exec(cells[f"exercise-{exercise}"], namespace)
        exec(cells[f"exercise-{exercise}-check"], namespace)
    except NotImplementedError:
        return "not attempted"
    except KeyError as error:
        return f"wrong: the notebook has no cell {error}"
    except Exception as error:  # as above
        return f"wrong: {type(error).__name__}: {error}"
    return "done"


def main() -> None:
    found = []
    for task, entry in RUBRIC.items():
        rows = [
            (name, check_function(entry["module"], name, hint))
            for name, hint in entry["functions"].items()
        ]
        source = (ROOT / "mflib" / f"{entry['module']}.py").read_text(encoding="utf-8")
        rows += [
            ("for the grader", f"wrong: {why}")
            for why in transplant(source, source, list(entry["functions"]))[1]
        ]
        notebook = nbformat.read(ROOT / "notebooks" / f"{entry['notebook']}.ipynb", as_version=4)
        cells, names = {cell.id: cell.source for cell in notebook.cells}, taken(notebook)
        rows += [(f"exercise {n}", check_exercise(cells, n, names)) for n in (1, 2, 3)]
        print(f"{task} ({entry['notebook']})")
        for name, result in rows:
            print(f"    {name:20} {result}")
        found += [result for _, result in rows]
    done = found.count("done")
    print(f"\n{done} of {len(found)} done, {found.count('not attempted')} not attempted")
    sys.exit(done < len(found))


if __name__ == "__main__":
    main()
