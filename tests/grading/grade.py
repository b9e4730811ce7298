"""Mark submissions: zips or folders, or a folder of many.

    python tests/grading/grade.py SUBMISSION [SUBMISSION …] [--dataset ml-100k]
        [--soft DATE] [--hard DATE] [--jobs 2] [--trust]

Of a submission only the bodies of the listed functions and the cells tagged "solution" are taken,
into the grader's own package and notebooks. They run in the sandbox; what comes out, arrays and
notebooks, is judged here. Marks by task, in points: see POINTS. Into build/grades/: report.json,
class.csv, and a page for each submission.

A submission was handed in when its files were last changed. After the soft deadline it has at most
80 of 100 points, after the hard one none; the remarks are the same.
"""

import argparse
import base64
import csv
import html
import importlib
import json
import os
import shutil
import stat
import struct
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import scipy.sparse as sp
import torch
from cases import RUBRIC, compare, outputs
from rules import answered, transplant
from sandbox import Finished, Limits, UnprotectedError, came_out, protections, ready, run
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "notebooks"))
from execute import differences, tags  # noqa: E402
from worker import FIT  # noqa: E402

import mflib  # noqa: E402
from mflib.data import data_dir, load_movielens  # noqa: E402
from mflib.sampling import train_test_split  # noqa: E402

POINTS = {
    "correctness": 40,
    "recommendations": 20,
    "similar movies": 15,
    "notebook": 15,
    "reproducibility": 10,
}
SEEDS = (1101, 1102, 1103, 1104)  # hidden: not those of the student's checks
FILE_SIZE = 20 * 2**20
# By the clock, for a task.
SECONDS = {"functions": 240, "notebook": 900, "notebook of an endless loop": 150}
NAMES = [f"notebooks/{entry['notebook']}.ipynb" for entry in RUBRIC.values()]
NAMES += [f"mflib/{entry['module']}.py" for entry in RUBRIC.values()]


@dataclass
class Report:
    """Points and reasons of one submission, by task and part."""

    name: str
    marks: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    # by task and cell: stored (-), re-executed (+)
    changes: dict[str, dict[str, str]] = field(default_factory=dict)
    late: str = ""  # or the deadline that was missed, "soft" or "hard"

    @property
    def total(self) -> float:
        """Of 100; a task is a quarter."""
        whole = sum(sum(parts.values()) for parts in self.marks.values()) / len(RUBRIC)
        return round(min(whole, {"": 100.0, "soft": 80.0, "hard": 0.0}[self.late]), 1)


def take(submission: Path) -> tuple[dict[str, str], list[str]]:
    """The files that a student may change, as texts, and what was wrong with the others.

    Nothing is unpacked.
    """
    texts, trouble = {}, []
    for name in NAMES:
        try:
            read = _from_zip if submission.is_file() else _from_folder
            texts[name] = read(submission, name).decode("utf-8-sig")
        except Exception as error:
            # zipfile and its decompressors raise many kinds on a corrupt file
            trouble.append(f"{name}: {error}")
    return texts, trouble


def _from_zip(file: Path, name: str) -> bytes:
    with zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > 1000:
            raise ValueError(
                f"expected at most 1000 files in the zip, got {len(archive.infolist())}"
            )
        # perhaps packed with its folder
        names = [n for n in archive.namelist() if n == name or n.endswith(f"/{name}")]
        entry = archive.getinfo(names[0] if len(names) == 1 else name)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError("expected a file, got a link")
        with archive.open(entry) as stream:  # the size in the header may lie
            return _bounded(stream.read(FILE_SIZE + 1))


def _from_folder(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        raise ValueError("expected a file, got nothing or a link")
    with path.open("rb") as stream:
        return _bounded(stream.read(FILE_SIZE + 1))


def _bounded(content: bytes) -> bytes:
    if len(content) > FILE_SIZE:
        raise ValueError(f"expected at most {FILE_SIZE} bytes")
    return content


@cache
def hidden(dataset: str) -> tuple[dict[str, np.ndarray], sp.csr_matrix, object, np.ndarray]:
    """A split with permuted ids for the sandbox.

    The held-out part, the movies and their order stay here.
    """
    data, rng = load_movielens(dataset), np.random.default_rng(20_260)
    users, items = (rng.permutation(n) for n in data.ratings.shape)
    train, test = train_test_split(data.ratings[users][:, items].tocsr(), 0.85, random_state=97)
    train.sort_indices()
    held_out = test.tocoo()
    arrays = {
        "data": train.data,
        "indices": train.indices,
        "indptr": train.indptr,
        "shape": np.array(train.shape),
    }
    arrays |= {"users": held_out.row.astype(np.int64), "items": held_out.col.astype(np.int64)}
    movies = data.movies.iloc[items].reset_index(drop=True)
    return arrays, test, movies, np.diff(train.tocsc().indptr)


def ndcg(ids: np.ndarray, wanted: sp.csr_matrix) -> float:
    """Mean NDCG@10 of lists (U x 10) over the users with at least one wanted item.

    A repeated item counts once.
    """
    found = []
    for user in np.flatnonzero(np.diff(wanted.indptr)):
        mine = wanted[user].indices
        _, first = np.unique(ids[user], return_index=True)
        hit = np.isin(ids[user], mine) & np.isin(np.arange(ids.shape[1]), first)
        best = (1 / np.log2(2 + np.arange(min(len(mine), ids.shape[1])))).sum()
        found.append((hit / np.log2(2 + np.arange(ids.shape[1]))).sum() / best)
    return float(np.mean(found))


def figures(
    task: str, dataset: str, ids: np.ndarray, similar: np.ndarray, estimates: np.ndarray
) -> dict[str, float]:
    """The measures of the recommendations and of the similar movies.

    RMSE for SVD, otherwise NDCG@10; the mean share of common genres.
    """
    arrays, test, movies, count = hidden(dataset)
    shape = tuple(arrays["shape"])
    if ids.shape != (shape[0], 10) or similar.shape != (shape[1], 11):
        got = f"{ids.shape} and {similar.shape}"
        raise ValueError(f"expected lists of {shape[0]} x 10 and {shape[1]} x 11, got {got}")
    wanted = sp.csr_matrix(test >= 4, dtype=float)
    judged = np.flatnonzero(count >= 20)
    genres = movies["genres"].str.get_dummies("|").to_numpy(bool)
    near = similar[judged]
    own, others = genres[judged][:, None], genres[np.clip(near, 0, shape[1] - 1)]
    share = (own & others).sum(2) / np.maximum((own | others).sum(2), 1)
    real = (near != judged[:, None]) & (near >= 0)
    quality = float((share * real).sum() / max(1, real.sum())) if real.any(1).all() else 0.0
    if task == "svd":
        if estimates.shape != (test.nnz,):
            raise ValueError(f"expected {test.nnz} estimates, got the shape {estimates.shape}")
        error = np.asarray(estimates, float) - test.tocoo().data
        return {"recommendations": float(np.sqrt(np.mean(error**2))), "similar movies": quality}
    return {"recommendations": ndcg(ids, wanted), "similar movies": quality}


def prepare(
    first: Path, second: Path, third: Path, task: str, texts: dict[str, str], dataset: str
) -> tuple[dict[str, nbformat.NotebookNode], list[str]]:
    """The folders for the sandbox, without answers.

    They hold the functions with hidden inputs, the notebook with data, the exercises alone. All are
    complete before anything of strangers runs: what that may leave in one cannot reach another.
    Returns the student's own cells by id and what could not be taken.
    """
    entry = RUBRIC[task]
    shutil.copytree(ROOT / "mflib", first / "mflib", ignore=shutil.ignore_patterns("__pycache__"))
    trouble = []
    # the student's own, also of the other tasks: a notebook uses several models
    for other, them in RUBRIC.items():
        name = f"mflib/{them['module']}.py"
        module, own = first / name, texts.get(name, "")
        code, found = transplant(module.read_text(encoding="utf-8"), own, list(them["functions"]))
        module.write_text(code, encoding="utf-8")
        trouble += found if other == task else []
    for file in ("cases.py", "rubric.toml", "worker.py"):
        shutil.copy(HERE / file, first)
    shutil.copytree(first, second)
    (first / "seeds.json").write_text(json.dumps(SEEDS))
    arrays = dict(hidden(dataset)[0])
    if task != "svd":  # where lists are judged, what is wanted stays outside
        del arrays["users"], arrays["items"]
    np.savez(first / "train.npz", **arrays)
    reference = nbformat.read(ROOT / "notebooks" / f"{entry['notebook']}.ipynb", as_version=4)
    notebook, theirs, more = answered(reference, texts.get(f"notebooks/{entry['notebook']}.ipynb"))
    (second / "tests").mkdir()
    shutil.copy(HERE.parent / "notebooks" / "execute.py", second / "tests")
    shutil.copytree(second, third)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in code if cell.id == "imports" or cell.id.startswith("exercise-")]
    alone = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    nbformat.write(alone, third / "notebook.ipynb")
    nbformat.write(notebook, second / "notebook.ipynb")
    shutil.copytree(data_dir() / dataset, second / "data" / dataset)
    return theirs, trouble + more


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that comes out of the sandbox; pickles and bombs are refused."""
    with zipfile.ZipFile(came_out(file)) as archive:
        if (size := sum(entry.file_size for entry in archive.infolist())) > 2**29:
            raise ValueError(f"expected at most {2**29} bytes of arrays, got {size}")
    with np.load(file, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


@cache
def reference_figures(task: str, dataset: str) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of knowing nothing, and of the reference."""
    arrays, _, _, count = hidden(dataset)
    train = sp.csr_matrix(
        (arrays["data"], arrays["indices"], arrays["indptr"]), tuple(arrays["shape"])
    )
    known = train if task == "svd" else sp.csr_matrix(train >= 4, dtype=np.float64)
    n_users, n_items = train.shape
    rng = np.random.default_rng(0)
    random_lists = np.column_stack([np.arange(n_items), rng.integers(n_items, size=(n_items, 10))])
    popularity = mflib.Popularity(dtype=torch.float64).fit(known, False)
    popular, _ = popularity.recommend(np.arange(n_users), known, 10)
    means = np.where(count > 0, train.sum(0).A1 / np.maximum(count, 1), train.data.mean())
    means = means[arrays["items"]]
    model = getattr(mflib, task.upper())(dtype=torch.float64, **FIT[task])
    model.fit(known, show_progress=False)
    ids, _ = model.recommend(np.arange(n_users), known, 10)
    similar, _ = model.similar_items(np.arange(n_items), 11)
    best = figures(task, dataset, ids, similar, model.predict(arrays["users"], arrays["items"]))
    return figures(task, dataset, popular, random_lists, means), best


def share(value: float, nothing: float, best: float) -> float:
    """0 for knowing nothing, 1 for nearly what the reference reaches."""
    reached = np.clip((value - nothing) / (0.95 * (best - nothing)), 0, 1)
    return float(np.nan_to_num(reached, nan=0.0))


def grade_task(task: str, texts: dict[str, str], dataset: str, trust: bool, report: Report) -> None:
    entry, marks, reasons = RUBRIC[task], dict.fromkeys(POINTS, 0.0), []
    report.marks[task], report.reasons[task] = marks, reasons
    with tempfile.TemporaryDirectory(prefix="grading-") as folder:
        names = ("functions", "notebook", "exercises")
        work, second, third = (Path(folder) / name for name in names)
        theirs, trouble = prepare(work, second, third, task, texts, dataset)
        reasons += trouble
        limits = Limits(seconds=SECONDS["functions"])
        finished = run([sys.executable, "worker.py", task], work, [], limits, trust)
        explain(finished, reasons)
        errors = errors_of(work / "errors.json", reasons)
        for name, hint in entry["functions"].items():
            wrong = errors.get(name) or judge_function(entry["module"], name, work / f"{name}.npz")
            marks["correctness"] += 0 if wrong else POINTS["correctness"] / len(entry["functions"])
            if wrong:
                reasons.append(
                    wrong if wrong == "not attempted" else f"{name}: {wrong}. Hint: {hint}"
                )
        judge_figures(
            task, dataset, work / "recommended.npz", errors.get("recommend"), marks, reasons
        )
        kind = "notebook" if finished.code is not None else "notebook of an endless loop"
        limits = Limits(seconds=SECONDS[kind])
        attempted = any(errors.get(name) != "not attempted" for name in entry["functions"])
        # The exercises alone, too: they count though the notebook fails, and where it could earn
        # nothing else.
        executed = {}
        for place in (third, second) if attempted else (third,):
            command = [sys.executable, "worker.py", "notebook", dataset]
            finished = run(command, place, [], limits, trust)
            explain(finished, reasons)
            executed = executed_cells(place, finished, reasons) | executed
        reference = nbformat.read(ROOT / "notebooks" / f"{entry['notebook']}.ipynb", as_version=4)
        changes = judge_notebook(reference, theirs, executed, marks, reasons)
        report.changes[task] = changes if attempted else {}


def errors_of(file: Path, reasons: list[str]) -> dict[str, str]:
    """What the functions raised, by name; strangers' code may have left anything there."""
    try:
        found = json.loads(came_out(file).read_text(encoding="utf-8"))
        return {str(name): str(what) for name, what in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        what = "nothing came out" if isinstance(error, FileNotFoundError) else error
        reasons.append(f"the list of errors cannot be read: {what}")
        return {}


def explain(finished: Finished, reasons: list[str]) -> None:
    if finished.code is None:
        reasons.append(f"ended after {finished.seconds:.0f} s {finished.ended}")
    elif finished.code != 0:
        reasons.append(f"ended with exit code {finished.code}: {finished.output.strip()[-300:]}")


def judge_function(module: str, name: str, file: Path) -> str | None:
    """What is wrong with the results of a function on the hidden inputs, or None."""
    try:
        got = arrays_of(file)
    except FileNotFoundError:
        return "no results came out"
    except Exception as error:  # strangers' code may have left anything there
        return f"the results cannot be read: {error}"
    reference = getattr(importlib.import_module(f"mflib.{module}"), name)
    for seed in SEEDS:
        mine = [got[key] for key in sorted(got) if key.startswith(f"{seed}/")]
        if wrong := compare(name, mine, outputs(reference, name, seed)):
            return wrong
    return None


def judge_figures(
    task: str,
    dataset: str,
    file: Path,
    error: str | None,
    marks: dict[str, float],
    reasons: list[str],
) -> None:
    try:
        got = arrays_of(file)
        found = figures(task, dataset, got["ids"], got["similar"], got["estimates"])
    except Exception as failure:  # as above
        what = "none came out" if isinstance(failure, FileNotFoundError) else str(failure)
        reasons.append(f"recommendations: {error or what}")
        return
    nothing, best = reference_figures(task, dataset)
    for part, value in found.items():
        marks[part] = POINTS[part] * share(value, nothing[part], best[part])
        if marks[part] < POINTS[part]:
            known = f"the reference has {best[part]:.3f} and {nothing[part]:.3f} is for nothing"
            reasons.append(f"{part}: {value:.3f}, where {known}")


def executed_cells(
    work: Path, finished: Finished, reasons: list[str]
) -> dict[str, nbformat.NotebookNode]:
    """The code cells that came out, by id; none if the run had to be ended or was broken off."""
    if finished.code != 0:
        return {}
    try:
        executed = nbformat.read(came_out(work / "executed.ipynb", 2**25), as_version=4)
        nbformat.validate(executed)
    except Exception as error:  # no file, or what strangers' code has left there
        reasons.append(f"the executed {work.name}: {type(error).__name__}")
        return {}
    return {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}


def judge_notebook(
    reference: nbformat.NotebookNode,
    theirs: dict[str, nbformat.NotebookNode],
    executed: dict[str, nbformat.NotebookNode],
    marks: dict[str, float],
    reasons: list[str],
) -> dict[str, str]:
    """Mark the loop, the exercises, and how many cells gave what was handed in.

    Returns what differs, by cell.
    """
    checks = ["equality", *(f"exercise-{n}-check" for n in (1, 2, 3))]
    for check in checks:
        cell = executed.get(check, nbformat.v4.new_code_cell())
        failed = [o for o in cell.outputs if o.output_type == "error"]
        if failed or not cell.execution_count:
            why = f"{failed[0].ename}: {failed[0].evalue}" if failed else "not executed"
            reasons.append(f"{check}: {why}")
        elif check == "equality" and marks["correctness"] < POINTS["correctness"]:
            reasons.append(
                "equality: a loop earns nothing by being equal to a function that is wrong"
            )
        else:
            marks["notebook"] += POINTS["notebook"] / len(checks)
    cells = [
        c.id for c in reference.cells if c.cell_type == "code" and "skip-execution" not in tags(c)
    ]
    changes = {
        name: change for name in cells if (change := _change(theirs.get(name), executed.get(name)))
    }
    same = len(cells) - len(changes)
    if marks["correctness"]:  # else there is nothing of one's own to reproduce
        marks["reproducibility"] = POINTS["reproducibility"] * same / len(cells)
    if changes:
        reproduced = f"{same} of {len(cells)} cells have the outputs that came out here"
        reasons.append(f"reproducibility: {reproduced}")
    return changes


def _change(stored: nbformat.NotebookNode | None, executed: nbformat.NotebookNode | None) -> str:
    """How a cell, executed here, differs from the one handed in; "" if it does not."""
    if stored is None or not stored.get("execution_count"):
        return "no outputs were handed in"
    if executed is None:
        return "not executed here"
    if failed := [o for o in executed.outputs if o.output_type == "error"]:
        return f"{failed[0].ename}: {failed[0].evalue}"
    try:
        outputs = [*stored.outputs, *executed.outputs]
        for output in (o for o in outputs if "image/png" in o.get("data", {})):
            width, height = struct.unpack(">II", base64.b64decode(output.data["image/png"])[16:24])
            if width * height > 2**22:
                return f"a figure of {width} x {height} pixels is too large to compare"
        pair = (nbformat.v4.new_notebook(cells=[cell]) for cell in (stored, executed))
        return differences(*pair)[executed.id]
    except Exception as error:  # what is stored may be anything
        return f"the outputs handed in cannot be read: {error}"


def grade(
    submission: Path,
    dataset: str,
    trust: bool,
    deadlines: dict[str, datetime],
    done: Callable[[], object] = lambda: None,
) -> Report:
    """The marks of a submission, which was late after one of ``deadlines``.

    ``done`` is called after each task.
    """
    report = Report(submission.name if submission.is_dir() else submission.stem)
    files = [file for name in NAMES if (file := submission / name).is_file()] or [submission]
    handed_in = datetime.fromtimestamp(max(file.lstat().st_mtime for file in files))
    missed = (name for name in ("hard", "soft") if handed_in > deadlines.get(name, datetime.max))
    report.late = next(missed, "")
    texts, trouble = take(submission)
    if report.late:
        late = f"handed in {handed_in:%Y-%m-%d %H:%M}, after the {report.late} deadline"
        trouble = [late, *trouble]
    report.reasons["submission"] = trouble
    for task in RUBRIC:
        try:
            grade_task(task, texts, dataset, trust, report)
        except Exception:
            # one submission must not cost the class its marks; the instructor looks at this one
            why = traceback.format_exc()
            report.reasons[task].append(f"the grader failed, mark this task by hand:\n{why}")
        done()
    return report


STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
body { overflow-wrap: anywhere }
table { border-collapse: collapse } tr { border-bottom: 1px solid #ccc }
td, th { padding: .3em .8em .3em 0; text-align: left }
pre { background: #f3f3f3; padding: .5em; white-space: pre-wrap }
.first { border-left: 4px solid #b35900; padding-left: .8em }
"""


def page(report: Report) -> str:
    """For the student to read: what earned, what not and why, what came out otherwise here."""
    head = "".join(f"<th>{part}</th>" for part in (*POINTS, "together"))
    rows = "".join(
        f"<tr><th>{task}</th>"
        + "".join(f"<td>{parts[part]:.1f} of {POINTS[part]}</td>" for part in POINTS)
        + f"<td>{sum(parts.values()):.1f} of 100</td></tr>"
        for task, parts in report.marks.items()
    )
    sections = ""
    for what, why in report.reasons.items():
        texts, changes = [html.escape(reason) for reason in why], report.changes.get(what, {})
        if texts:
            sections += f"<h2>{html.escape(what)}</h2><p class=first>{texts[0]}</p>"
            others = "".join(f"<li>{text}</li>" for text in texts[1:])
            sections += f"<ul>{others}</ul>" if others else ""
        if changes:
            pairs = "".join(
                f"<dt>{html.escape(c)}</dt><dd><pre>{html.escape(d)}</pre></dd>"
                for c, d in changes.items()
            )
            sections += "<details><summary>cells with other outputs: handed in (-), here (+)"
            sections += f"</summary><dl>{pairs}</dl></details>"
    name = html.escape(report.name)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style><h1>{name}: {report.total} of 100</h1>"
        "<p>Each task is a quarter of the whole. "
        "Of what is missing, the first reason is marked: mend it first.</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table>{sections}"
    )


def write(reports: list[Report], target: Path) -> None:
    """All marks so far: a page each, one table, one file for programs."""
    file = target / f"{reports[-1].name}.html"
    # a student's message may hold what no encoding has
    file.write_text(page(reports[-1]), encoding="utf-8", errors="backslashreplace")
    full = [asdict(report) | {"total": report.total} for report in reports]
    (target / "report.json").write_text(json.dumps(full, indent=1), encoding="utf-8")
    with (target / "class.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *RUBRIC, "late", "total"])
        for r in reports:
            points = [round(sum(parts.values()), 1) for parts in r.marks.values()]
            writer.writerow([r.name, *points, r.late, r.total])


def deadline(text: str) -> datetime:
    """A time, or the end of a day."""
    return datetime.fromisoformat(text) + timedelta(days=len(text) == len("2026-01-31"))


def submissions(paths: list[Path]) -> list[Path]:
    """Each zip or folder that is a submission, and those in a folder of many.

    ValueError if two have the same name.
    """
    found = []
    for path in paths:
        if not path.exists():
            expected = "a submission or a folder of submissions"
            raise ValueError(f"expected {expected}, got nothing at {path}")
        if path.is_file() or any((path / name).exists() for name in NAMES):
            found.append(path)
        else:
            files = sorted(path.iterdir())
            found += [file for file in files if file.suffix.lower() == ".zip" or file.is_dir()]
    names = [path.name if path.is_dir() else path.stem for path in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        got = f"several called {twice}"
        raise ValueError(f"expected a name for each submission, got {got}; rename them")
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"expected submissions, zips or folders, got none in {places}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="+", type=Path)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--soft", type=deadline, help="as 2026-01-31 (its end) or 2026-01-31T18:00")
    parser.add_argument("--hard", type=deadline, help="likewise")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        help="submissions at once (default: a core each)",
    )
    parser.add_argument(
        "--trust", action="store_true", help="run without the sandbox: only for code that you know"
    )
    arguments = parser.parse_args()
    deadlines = {name: time for name in ("soft", "hard") if (time := getattr(arguments, name))}
    print(
        "protections:",
        ", ".join(f"{name} {'yes' if there else 'NO'}" for name, there in protections().items()),
    )
    target, reports = ROOT / "build" / "grades", []
    target.mkdir(parents=True, exist_ok=True)
    try:
        ready(arguments.trust)
        found = submissions(arguments.submissions)
    except (UnprotectedError, ValueError) as error:
        sys.exit(f"error: {error}")
    for task in RUBRIC:  # once, before the threads ask for them
        reference_figures(task, arguments.dataset)
    with (
        tqdm(total=len(found) * len(RUBRIC), unit="task") as bar,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):
        options = (arguments.dataset, arguments.trust, deadlines, bar.update)
        for report in pool.map(lambda path: grade(path, *options), found):
            reports.append(report)
            write(reports, target)
    print((target / "class.csv").read_text(encoding="utf-8"))
    what = "class.csv, report.json, and a page for each submission"
    print(f"Marks are in {target.relative_to(ROOT)}: {what}.")


if __name__ == "__main__":
    main()
