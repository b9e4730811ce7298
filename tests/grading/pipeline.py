"""One submission graded, in a process of its own: it alone reads what strangers wrote.

What is known so far is sent after each step, so that a step that ends the process costs what comes
after it, not what came before.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from grading.intake.collect import Package
from grading.intake.submission import Submission, read
from grading.isolation.bounded_process import Send
from grading.plagiarism.public_answers import OF_ANSWERS, own
from grading.result import SOURCE, SOURCES, Report
from grading.rubric import POINTS, RUBRIC
from grading.scoring import Options, known, mark_functions, mark_lists, mark_notebook, tried

SHARES = {"functions": 0.2, "lists": 0.2, **dict.fromkeys(RUBRIC, 0.6 / len(RUBRIC))}  # of the work


@cache
def versions() -> str:
    """Of what numbers depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
    return f"Python {platform.python_version()}, {packages}"


def blank(package: Package, options: Options) -> Report:
    """The report on what has not been graded."""
    report = Report(package.name, dataset=options.dataset, secret=options.secret)
    report.versions = versions()
    report.marks = {task: dict.fromkeys(POINTS, 0.0) for task in RUBRIC}
    report.reasons = {task: [] for task in RUBRIC}
    return report


def sources(given: Submission) -> dict[str, str]:
    """What was written, by key: "svd/svd.py" for a module, "svd/ndcg" for an answer in cells.

    Of a module, what was not handed out.
    """
    found = {
        f"{task}/{RUBRIC[task]['module']}.py": content.decode("utf-8", "replace")
        for task, content in given.modules.items()
    }
    for key, cells in given.answers.items():
        found[key] = "\n\n".join(source for _, source in cells)
    kept, left = {}, SOURCES
    for key, source in found.items():
        kept[key] = own(key, source)[: min(SOURCE, left)]
        left -= len(kept[key])
    return kept


def grade(
    package: Package,
    options: Options,
    folder: Path,
    said: Callable[[Report, float], object] = lambda report, share: None,
) -> Report:
    """The marks of a submission, which is tried in ``folder``.

    ``said`` is called after each step with what is known, and the share of the work that is done.
    """
    report = blank(package, options)
    given = read(package.files, known())
    options = replace(options, own=number_of(given))
    report.notes = [*package.notes, *given.notes]
    report.answers = sources(given)
    for name, of_answer in OF_ANSWERS.items():
        report.prints[name] = {key: of_answer(key, text) for key, text in report.answers.items()}
    places = {name: folder / name for name in SHARES}
    found = tried(given, places["functions"], options)
    mark_functions(given, found, report)
    said(report, SHARES["functions"])
    mark_lists(given, found, places["lists"], options, report)
    said(report, SHARES["lists"])
    for task in RUBRIC:
        mark_notebook(task, given, found, places[task], options, report)
        said(report, SHARES[task])
    return report


def number_of(given: Submission) -> int:
    """A number that belongs to what was written.

    With it the hidden inputs change: whoever has seen them cannot hand in a table of the answers.
    """
    code = repr((sorted(given.modules.items()), sorted(given.answers.items())))
    return int.from_bytes(hashlib.sha256(code.encode("utf-8", "replace")).digest()[:5], "big")


def child(send: Send, package: Package, options: Options, folder: Path) -> None:
    """``grade`` in a process of its own: reports are sent as JSON.

    Beside each, the seconds of the processor of its step, with those in the sandbox.
    """
    before = 0.0

    def said(report: Report, share: float) -> None:
        nonlocal before
        now = sum(os.times()[:4]) + sum(options.spent)
        send({"report": report.bounded(), "share": share, "seconds": now - before})
        before = now

    grade(package, options, folder, said)
