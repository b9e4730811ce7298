"""Submissions that attack the grader, the machine or the class.

Each is written to a folder and graded in a class with an honest submission.
"""

import io
import json
import os
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from grading.paths import ROOT
from grading.rubric import RUBRIC

HONEST = 15 * 3 / 4  # points for an honest notebook without its check
STEP = "    others = likes.with_columns(negatives)\n"
# Forged results: the file of unit 0, and the line that reports it as finished.
FORGED = "import numpy, os, pathlib; here = pathlib.Path('0.npz'); {}"
FORGED += "; open('results.jsonl', 'a').write('{{\"unit\": 0}}\\n'); os._exit(0)"


@dataclass(frozen=True)
class Attack:
    """A submission, the expected message, and its points.

    The points for reproducibility have bounds: how many cells have outputs, and how many of them
    show nothing of a model, depends on the notebooks.
    """

    make: Callable[[Path], object]  # writes the submission into a folder
    says: str  # a regular expression
    points: float  # of all tasks, without reproducibility
    reproducibility: tuple[float, float] = (0.0, 0.0)  # the least and the most points


def module(name: str) -> str:
    return (ROOT / "mflib" / f"{name}.py").read_text(encoding="utf-8")


def stored(task: str) -> nbformat.NotebookNode:
    """Return the repository's notebook with its outputs."""
    file = ROOT / "tests" / "notebooks" / "ml-100k" / f"{RUBRIC[task].notebook}.ipynb"
    return nbformat.read(file, as_version=4)


def with_sources(task: str, **sources: str) -> str:
    """Return the notebook with other sources; exercise_1 is the cell "exercise-1"."""
    notebook = stored(task)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id.replace("-", "_"), cell.source)
    return nbformat.writes(notebook)


def without_check(task: str, **sources: str) -> str:
    """Return the notebook without the check of its kernel, which takes longest to grade."""
    (check,) = (cell.id for cell in stored(task).cells if "def check_step(" in cell.source)
    return with_sources(task, **{check.replace("-", "_"): ""} | sources)


def in_step(code: str) -> str:
    """Return the module of BPR with ``code`` at the beginning of bpr_step."""
    source = module("bpr")
    if STEP not in source:
        raise ValueError(f"expected {STEP!r} in bpr.py, which has changed: bring it up to date")
    return source.replace(STEP, f"    {code}\n{STEP}")


def files(**contents: str) -> Callable[[Path], None]:
    """Return a function that writes mflib/bpr.py (bpr="…") and 03_bpr.ipynb (notebook="…")."""

    def make(folder: Path) -> None:
        for name, content in contents.items():
            place = "notebooks/03_bpr.ipynb" if name == "notebook" else f"mflib/{name}.py"
            write(folder / place, content)

    return make


def write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


def harm(code: str, says: str) -> Attack:
    """Return an attack with code in bpr_step; the notebook is honest and keeps its points."""
    honest = lambda: without_check("bpr")  # noqa: E731
    return Attack(lambda f: files(bpr=in_step(code), notebook=honest())(f), says, HONEST)


def with_outputs(task: str, name: str, outputs: list) -> str:
    """Return the notebook with other outputs of one cell, which may be malformed."""
    notebook = json.loads(nbformat.writes(stored(task)))
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == name)
    cell["outputs"] = outputs
    return json.dumps(notebook)


def lying_png(width: int = 12_000) -> str:
    """Return a PNG (base64) with a small size for simple readers and then a large size."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    rows = zlib.compress(bytes((4 * width + 1) * width), 9)
    small = chunk(b"prVt", struct.pack(">II", 9, 9))  # where simple readers expect the size
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 6, 0, 0, 0))
    whole = b"\x89PNG\r\n\x1a\n" + small + size + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b64encode(whole).decode()


def entries(folder: Path, how_many: int = 300_000) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "work.zip", "w") as archive:
        for n in range(how_many):
            archive.writestr(f"mflib/{n}/svd.py", b"")


def bomb(folder: Path) -> None:
    """Write archives in an archive, each of gigabytes."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(40):
            archive.writestr(f"{n}/work.zip", bytes(90 * 2**20))
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "work.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("work.zip", inner.getvalue())


def several(inner: str, content: bytes, how_many: int) -> Callable[[Path], None]:
    """Return a function that writes a zip with many archives."""

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "work.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(how_many):
                archive.writestr(f"{n}/{inner}", content)

    return make


def zip_of_zeros() -> bytes:
    """Return an archive with a malformed archive in it: 95 MiB of zeros."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.zip", bytes(95 * 2**20))
    return target.getvalue()


def tar_of_zeros() -> bytes:
    """Return a few kilobytes that unpack to a gigabyte."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:bz2") as archive:
        entry = tarfile.TarInfo("svd.py")
        entry.size = 2**30
        archive.addfile(entry, Zeros(2**30))
    return target.getvalue()


class Zeros(io.RawIOBase):
    def __init__(self, size: int):
        self.left = size

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def many_files(folder: Path, how_many: int = 50_000) -> None:
    (folder / "mflib").mkdir(parents=True)
    for n in range(how_many):
        os.close(os.open(folder / "mflib" / str(n), os.O_CREAT))


def nested(folder: Path, how_many: int = 3_000) -> None:
    """Write nested folders, deeper than a path may be long."""
    write(folder / "essay.txt", "")
    here = os.open(folder, os.O_DIRECTORY)
    for _ in range(how_many):
        os.mkdir("nested", dir_fd=here)
        deeper = os.open("nested", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def large_reason(folder: Path) -> None:
    """Write code that raises a huge message, and forges one into the results."""
    line = """'{"unit": 1, "kind": "raised", "message": "' + 'y' * 1_000_000 + '"}\\n'"""
    code = f"open('results.jsonl', 'a').write({line}); raise ValueError('x' * 96 * 2**20)"
    files(bpr=in_step(code), notebook=without_check("bpr"))(folder)


SESSIONS = """import os
    for n in range(24):
        if os.fork() == 0:
            os.setsid()
            while True: pass
    while True: pass"""
LINES = "open('results.jsonl', 'a').write(('x' * 2**20 + '\\n') * 40); import os; os._exit(0)"
HEADER = """import io, os, zipfile
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }" + b" " * 50
    content = b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile("0.npz", "w") as archive: archive.writestr("7/0/0.npy", content)
    open("results.jsonl", "a").write('{"unit": 0}\\n'); os._exit(0)"""
READ = "raise ValueError(open('job.json').read()[:60])"
INVALID = [{"output_type": "x"}] * 60_000  # 1.9 MB
STATEMENTS = "0;" * 2**19
PARTS = "f'" + "{a}" * 170_000 + "'"


def with_source(source: str) -> Attack:
    """Return an attack with a module and a cell; the other cells keep their points."""
    make = lambda f: files(bpr=source, notebook=without_check("bpr", exercise_2=source))(f)  # noqa: E731
    return Attack(make, "is too long and was not read", 7.5)


def with_figure(folder: Path) -> None:
    """Write a right submission with a malicious figure."""
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"image/png": lying_png()}}]
    files(bpr=module("bpr"), notebook=with_outputs("bpr", "curve", outputs))(folder)


def with_invalid(folder: Path) -> None:
    """Write a right kernel, and a notebook with tens of thousands of outputs in its first cell."""
    end = "import os, time\ntime.sleep(1)\nos._exit(0)"  # after the earlier outputs have been sent
    notebook = json.loads(with_outputs("bpr", "imports", INVALID))
    for cell in notebook["cells"]:
        if cell["id"] == "loop":
            cell["source"] = f"{end}\n{''.join(cell['source'])}"
    files(bpr=module("bpr"), notebook=json.dumps(notebook))(folder)


# By name of the attack.
ATTACKS = {
    "24 processes in separate sessions": harm(SESSIONS, "s of CPU time"),
    "results of 40 MiB": harm(LINES, "before there was a result"),
    "a reason of 96 MB": Attack(large_reason, "before there was a result", HONEST),
    "a header of 10^12 numbers": harm(HEADER, "the results cannot be read"),
    "a megabyte of 0;": with_source(STATEMENTS),
    "an f-string of 170,000 parts": with_source(PARTS),
    "the hidden inputs read": harm(READ, r"raises ValueError: ..seeds.: \[\d{5}"),
    "60,000 outputs of no form": Attack(with_invalid, "cells have the outputs", 86.25, (0.0, 3.0)),
    "a picture whose header lies": Attack(with_figure, "cells have the outputs", 90.0, (9.0, 9.9)),
    "a zip of 300,000 entries": Attack(entries, "expected at most 20000 files", 0.0),
    "zips in a zip, gigabytes in each": Attack(bomb, "expected at most", 0.0),
    "40 zips of a hundred MiB in zips": Attack(
        lambda f: several("a.zip", zip_of_zeros(), 40)(f), "expected at most 20 archives", 0.0
    ),
    "24 archives that unpack to a gigabyte": Attack(
        lambda f: several("a.tar.bz2", tar_of_zeros(), 24)(f), "more than|expected at most", 0.0
    ),
    "a folder of 50,000 files": Attack(many_files, "expected at most 20000 files", 0.0),
    "a folder of 3,000 folders in folders": Attack(nested, "cannot be opened|none of the", 0.0),
}
