"""Execute the notebooks as the grader will, check that they are complete, and pack submission.zip.

python checks/submit.py ml-100k
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import nbformat
from cases import RUBRIC
from execute import execute, write

ROOT = Path(__file__).resolve().parents[1]


def incomplete(notebook: nbformat.NotebookNode, handed_out: list[str]) -> str | None:
    """Why this notebook cannot be handed in, or None."""
    ids = [cell.id for cell in notebook.cells]
    if missing := [i for i in handed_out if i not in ids]:
        return f"the cells {missing} are missing; take them from the notebook that was handed out"
    if [i for i in ids if i in handed_out] != handed_out:
        return "the cells are not in the order in which they were handed out"
    return None


def main() -> None:
    dataset, files, trouble, failing = sys.argv[1] if len(sys.argv) > 1 else "ml-100k", {}, [], []
    handed_out = json.loads((ROOT / "checks" / "cells.json").read_text(encoding="utf-8"))
    for entry in RUBRIC.values():
        name = f"notebooks/{entry['notebook']}.ipynb"
        if not (ROOT / name).exists():
            trouble.append(f"{name} is missing")
            continue
        notebook, error = execute(ROOT / name, dataset, go_on=True)
        if reason := incomplete(notebook, handed_out[entry["notebook"]]):
            trouble.append(f"{name}: {reason}")
        failed = [
            c.id
            for c in notebook.cells
            if any(o.output_type == "error" for o in c.get("outputs", []))
        ]
        if failed or error:
            why = f" ({error})" if error else ""
            failing.append(f"{name}: the cells {failed} fail{why}; they will earn nothing")
        write(nbformat.writes(notebook) + "\n", ROOT / name)
        files[name] = (ROOT / name).read_bytes()
        files[f"mflib/{entry['module']}.py"] = (
            ROOT / "mflib" / f"{entry['module']}.py"
        ).read_bytes()
    manifest = {
        name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())
    }
    temporary = ROOT / ".submission.zip"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(
            "manifest.json", json.dumps({"dataset": dataset, "sha256": manifest}, indent=1)
        )
    temporary.replace(ROOT / "submission.zip")
    packed = f"submission.zip is packed: {len(files)} files, executed on {dataset}"
    print("\n".join(["", *trouble, *failing, packed]))
    sys.exit(bool(trouble))


if __name__ == "__main__":
    main()
