"""Forms in which the same work can be saved and packed.

Each takes the eight files by name (bytes) and a folder, and returns the path of what is submitted:
one submission, or a class in which "Jane Doe" has these files.
"""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat

Eight = dict[str, bytes]
Form = Callable[[Eight, Path], Path]


def zipped(files: Eight) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(files: Eight) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def written(folder: Path, files: Mapping[Any, bytes]) -> Path:
    for name, content in files.items():
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return folder


def as_zip(change: Callable[[Eight], Eight]) -> Form:
    def build(files: Eight, folder: Path) -> Path:
        written(folder, {"Jane Doe.zip": zipped(change(files))})
        return folder / "Jane Doe.zip"

    return build


def named(change: Callable[[str], str]) -> Form:
    return as_zip(lambda files: {change(name): content for name, content in files.items()})


def notebooks(change: Callable[[dict], object]) -> Form:
    """Return a form; ``change`` alters a notebook in place or returns a replacement."""

    def altered(files: Eight) -> Eight:
        found = dict(files)
        for name in [n for n in files if n.endswith(".ipynb")]:
            book = json.loads(files[name])
            saved = change(book)
            text = saved if isinstance(saved, str | bytes) else json.dumps(book)
            found[name] = text.encode() if isinstance(text, str) else text
        return found

    return as_zip(altered)


def in_class(place: Callable[[str, Eight], dict[str | bytes, bytes]]) -> Form:
    def build(files: Eight, folder: Path) -> Path:
        return written(folder, place("Jane Doe", files) | place("Bo", files))

    return build


def code_cell(source: str) -> dict:
    cell = {"cell_type": "code", "id": "added", "metadata": {}, "source": source}
    return cell | {"outputs": [], "execution_count": None}


def without_ids(book: dict) -> None:
    book["nbformat_minor"] = 0
    for cell in book["cells"]:
        cell.pop("id", None)


def colab(book: dict) -> None:
    book["nbformat_minor"] = 0
    for cell in book["cells"]:
        cell["metadata"]["id"] = cell.pop("id")


def new_ids(book: dict) -> None:
    for n, cell in enumerate(book["cells"]):
        cell["id"] = f"fresh-{n}"


def jupyterlab(book: dict) -> None:
    for cell in book["cells"]:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        cell["metadata"]["jupyter"] = {"source_hidden": False}


def script(book: dict) -> str:
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    return "\n".join("# %%\n" + "".join(cell["source"]) + "\n" for cell in cells)


def scripts(files: Eight, folder: Path) -> Path:
    found = {
        n.replace(".ipynb", ".py"): script(json.loads(c)).encode() if n.endswith("ipynb") else c
        for n, c in files.items()
    }
    return as_zip(lambda _: found)(files, folder)


def with_magics(book: dict) -> None:
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            magics = "%%time\n!pip list\nfiles = !ls \\\n    -l\n%matplotlib inline\n"
            cell["source"] = magics + "".join(cell["source"])


def with_extra_cells(book: dict) -> None:
    extra = (code_cell(f"print(model, {n})\nscratch = 1 +") for n in range(200))
    book["cells"] = [c for cell in book["cells"] for c in (cell, next(extra))]


def merged(book: dict) -> None:
    """Put all answers into one cell at the end."""
    solutions = [c for c in book["cells"] if "solution" in c["metadata"].get("tags", [])]
    book["cells"] = [c for c in book["cells"] if c not in solutions]
    sources = ["".join(cell["source"]) for cell in solutions]
    book["cells"].append(code_cell("\n\n\n".join(sources) + "\nprint(data.undefined)"))


def cleared(book: dict) -> None:
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def version_3(book: dict) -> str:
    old = nbformat.convert(nbformat.reads(json.dumps(book), as_version=4), 3)
    return nbformat.writes(old, version=3)


FORMS: dict[str, Form] = {
    "a zip": as_zip(dict),
    "a tar.gz": lambda files, folder: (
        written(folder, {"Jane Doe.tar.gz": tarred(files)}) / "Jane Doe.tar.gz"
    ),
    "a folder": lambda files, folder: written(folder / "Jane Doe", files),
    "one more level of folders": named(lambda name: f"my homework/{name}"),
    "a zip in a zip": as_zip(lambda files: {"submission.zip": zipped(files)}),
    "a zip in a folder": lambda files, folder: written(
        folder / "Jane Doe", {"submission.zip": zipped(files)}
    ),
    "backslashes in names (Windows)": named(lambda name: name.replace("/", "\\")),
    "all files in one place": named(lambda name: name.rpartition("/")[2]),
    "capitals in names": named(str.upper),
    "the whole edition packed": as_zip(
        lambda files: files | {f"checks/suite/{name}": b"empty" for name in files}
    ),
    "macOS's leavings": as_zip(
        lambda files: (
            files
            | {f"__MACOSX/{name.replace('/', '/._')}": b"x" for name in files}
            | {".DS_Store": b"x"}
        )
    ),
    "Windows' and editors' leavings": as_zip(
        lambda files: (
            files
            | {"Thumbs.db": b"x", "desktop.ini": b"x", ".vscode/settings.json": b"x"}
            | {"notebooks/.ipynb_checkpoints/01_svd-checkpoint.ipynb": b"old"}
        )
    ),
    "downloaded twice: 01_svd (1).ipynb": named(lambda name: name.replace(".", " (1).")),
    "Copy of 01_svd.ipynb (Colab)": named(lambda name: name.replace("/0", "/Copy of 0")),
    "saved by a browser: .ipynb.txt": named(lambda name: f"{name}.txt"),
    "a name behind: 01_svd_doe.ipynb": named(lambda name: name.replace(".", "_doe.")),
    "Moodle's class": in_class(
        lambda who, files: {f"{who}_12_assignsubmission_file_/submission.zip": zipped(files)}
    ),
    "Moodle's class, without folders": in_class(
        lambda who, files: {
            f"{who}_12_assignsubmission_file_{name.rpartition('/')[2]}": content
            for name, content in files.items()
        }
    ),
    "Canvas' class": in_class(
        lambda who, files: {f"{who}_LATE_12_345_submission.zip": zipped(files)}
    ),
    "Canvas' class, loose files": in_class(
        lambda who, files: {
            f"{who}_12_{n}_{name.rpartition('/')[2]}": files[name] for n, name in enumerate(files)
        }
    ),
    "nbgrader's class": in_class(
        lambda who, files: {f"submitted/{who}/ps1/{name}": files[name] for name in files}
    ),
    "a class with a Latin-1 name": lambda files, folder: written(
        folder,
        {f"Jane Doe/{name}": content for name, content in files.items()}
        | {b"M\xfcller/svd.py": b"x"},
    ),
    "a class with a formula for a name": lambda files, folder: written(
        folder,
        {f"Jane Doe/{name}": content for name, content in files.items()}
        | {"=HYPERLINK(1)/svd.py": b"x", "\x1b[31m/svd.py": b"x"},
    ),
    "notebooks of version 4.0, no ids": notebooks(without_ids),
    "Colab: ids in the metadata": notebooks(colab),
    "VS Code: all ids new": notebooks(new_ids),
    "JupyterLab: sources as lists": notebooks(jupyterlab),
    "scripts with cell marks": scripts,
    "notebooks of version 3": notebooks(version_3),
    "line ends of Windows, byte order marks": as_zip(
        lambda files: {
            name: b"\xef\xbb\xbf" + (c.replace(b"\n", b"\r\n") if name.endswith("py") else c)
            for name, c in files.items()
        }
    ),
    "notebooks in UTF-16": notebooks(lambda book: json.dumps(book).encode("utf-16")),
    "magics and shell lines": notebooks(with_magics),
    "an extra cell behind each": notebooks(with_extra_cells),
    "all answers in one new cell": notebooks(merged),
    "cells in reverse order": notebooks(lambda book: book["cells"].reverse()),
    "outputs cleared": notebooks(cleared),
}
# Forms that cannot be read, with the expected message.
SAID: dict[str, tuple[Form, str]] = {
    "a rar": (
        lambda files, folder: written(folder, {"Jane Doe.rar": b"Rar!"}) / "Jane Doe.rar",
        "pack a .zip instead",
    ),
    "a 7z in a class": (
        lambda files, folder: written(folder, {"Jane Doe.7z": b"7z", "Bo/svd.py": b"x"}),
        "pack a .zip instead",
    ),
    "an essay": (as_zip(lambda files: {"essay.docx": b"x"}), "none of the expected files"),
    "an empty zip": (as_zip(lambda files: {}), "none of the expected files"),
    "a zip cut off": (
        lambda files, folder: (
            written(folder, {"Jane Doe.zip": zipped(files)[:-50]}) / "Jane Doe.zip"
        ),
        "cannot be opened",
    ),
    "only the notebooks": (
        as_zip(lambda files: {n: c for n, c in files.items() if n.endswith("ipynb")}),
        "svd.py: was not submitted",
    ),
    "only the modules": (
        as_zip(lambda files: {n: c for n, c in files.items() if n.endswith("py")}),
        "01_svd.ipynb: was not submitted",
    ),
    "notebooks that are none": (
        notebooks(lambda book: "<html>"),
        "is a web page about the file",
    ),
}
PROGRAMS = {  # every right answer is saved by each program
    "script": scripts,
    "Colab": notebooks(colab),
    "VS Code": notebooks(new_ids),
    "JupyterLab": notebooks(jupyterlab),
}
