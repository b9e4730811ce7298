"""Build the autograder for Gradescope, and write the results of a submission there.

    python -m grading.autograder.gradescope build [--cap 80]      build/gradescope.zip

On Gradescope the container is the sandbox, because bubblewrap does not work in it. Students' code
runs as another user, who can neither read the suite nor write results, with the limits of prlimit,
but with the container's network. The best submission of a student counts; after the due date it
gets at most ``cap`` points.
"""

import argparse
import json
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from grading.course.course import Course
from grading.course.deadlines import Deadlines, HandedIn, moment
from grading.csv_tables import write_whole
from grading.execution.empty import empty_suite
from grading.gradebook import MAX_SECRET, warm_up
from grading.intake.collect import read_package
from grading.intake.spool import spooled
from grading.isolation.workspace import workspace
from grading.paths import GRADING, ROOT
from grading.pipeline import Options
from grading.reporting.render import deadline_sentences
from grading.result import Report
from grading.rubric import POINTS, RUBRIC
from grading.scheduler import grade_all
from grading.talk.sheet import sheet_of

TARGET = ROOT / "build" / "gradescope.zip"
AUTOGRADER = GRADING / "autograder"
PACKED = (
    *("mflib", "notebooks", "tests/grading", "tests/notebooks", "data/README.md"),
    *("requirements.txt", "pyproject.toml", "LICENSE"),
)


def build(target: Path, cap: float) -> None:
    """Write the autograder's zip atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".gradescope-") as temporary:
        new = Path(temporary) / "autograder"
        new.mkdir()
        for name in PACKED:
            place = new / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
        for file in (AUTOGRADER / "setup.sh", AUTOGRADER / "run_autograder"):
            text = file.read_text(encoding="utf-8").replace("--cap CAP", f"--cap {cap:g}")
            (new / file.name).write_text(text, encoding="utf-8")
            (new / file.name).chmod(0o755)
        packed = shutil.make_archive(str(Path(temporary) / "packed"), "zip", new)
        Path(packed).replace(target)


def handed_in(metadata: Mapping, cap: float) -> tuple[datetime, Deadlines]:
    """Return time and deadlines from Gradescope's metadata.

    A student's individual deadlines count. For a group, the latest deadlines of its members count.
    """
    time = moment(metadata["created_at"])
    limits: dict[str, list[datetime | None]] = {"due_date": [], "late_due_date": []}
    for user in metadata.get("users") or [{}]:
        dates = dict(metadata["assignment"]) | (user.get("assignment") or {})
        for name, found in limits.items():
            text = dates.get(name)
            found.append(moment(text) if text else None)
    soft, hard = (None if None in found else max(filter(None, found)) for found in limits.values())
    if soft and hard:
        hard = max(soft, hard)  # an extension may move only one of the two
    return time, Deadlines(soft, hard, cap=cap, zone=time.tzinfo)


def grade_in_container(submission: Path, time: datetime, deadlines: Deadlines) -> Report:
    """Grade a submission, running its code as another user of this container."""
    with workspace() as folder:
        folder.chmod(0o711)  # accessible for the other user
        empty_suite(folder / "suite")
        secret = secrets.randbelow(MAX_SECRET)
        options = Options("ml-100k", secret, folder / "suite", container=True)
        package = read_package(submission, spooled(folder / "spool"))
        options = warm_up(options, folder)
        (graded,) = grade_all([package], options, 1, folder / "work", folder / "lock")
        course = Course(deadlines, {package.name: HandedIn(time, "Gradescope")})
        return Report(package.name, graded.score, course.decide(package.name, time))


def results(report: Report, metadata: Mapping) -> dict:
    """Return the data for Gradescope's page: the best total, the parts of each task, reasons."""
    before = [one.get("score") or 0 for one in metadata.get("previous_submissions") or []]
    best = max([report.total, *map(float, before)])
    output = [*deadline_sentences(report), *report.score.notes]
    if best > report.total:
        output.append(
            f"This submission has {report.total:g} points; an earlier one with {best:g} counts."
        )
    tests = []
    for task, parts in report.score.marks.items():
        reasons = "\n".join(f"- {reason}" for reason in report.score.reasons.get(task, []))
        for n, (part, most) in enumerate(POINTS.items()):
            tests.append(
                {
                    "name": f"{task}: {part}",
                    "score": round(parts[part] / len(RUBRIC), 2),
                    "max_score": most / len(RUBRIC),
                    "output": reasons if n == 0 else "",
                }
            )
    tests += for_instructor(report, metadata)
    return {
        "score": best,
        "output": "\n".join(output),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def for_instructor(report: Report, metadata: Mapping) -> list[dict]:
    """Return tests without points that students do not see: declarations, questions for the talk.

    The draw of the questions depends on the assignment and the students' names alone, because every
    run has another secret, and the package's name is always the same.
    """
    users = [str(user.get("name")) for user in metadata.get("users") or []]
    assignment = str((metadata.get("assignment") or {}).get("id"))
    score = replace(report.score, secret=int.from_bytes(assignment.encode()[:8]))
    sheet = sheet_of(replace(report, name=", ".join(sorted(users)), score=score))
    questions = [
        f"{n}. {question.text}\n{question.place} {question.quote}\nExpected: {question.answer}\n"
        f"Where to look: {question.look}"
        for n, question in enumerate(sheet.questions, 1)
    ]
    declared = [f"{task}: {text}" for task, text in report.score.declarations.items()]
    parts = {"declarations": declared or ["none"], "questions for the talk": questions}
    return [
        {
            "name": f"for the instructor: {name}",
            "output": "\n\n".join(texts),
            "visibility": "hidden",
        }
        for name, texts in parts.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="write build/gradescope.zip")
    running = commands.add_parser("run", help="grade a submission, in Gradescope's container")
    running.add_argument("place", type=Path, help="/autograder")
    for one in (building, running):
        cap = "maximum of points after the due date (default: 80)"
        one.add_argument("--cap", type=float, default=80.0, help=cap)
    given = parser.parse_args()
    if given.command == "build":
        build(TARGET, given.cap)
        print(f"Upload {TARGET.relative_to(ROOT)} to Gradescope as the autograder.")
        return
    metadata = json.loads((given.place / "submission_metadata.json").read_text(encoding="utf-8"))
    report = grade_in_container(given.place / "submission", *handed_in(metadata, given.cap))
    text = json.dumps(results(report, metadata), indent=1)
    write_whole(given.place / "results" / "results.json", text)


if __name__ == "__main__":
    main()
