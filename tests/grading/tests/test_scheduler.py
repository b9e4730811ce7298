"""Grading in separate processes: if one dies, its report gives the reason."""

import fcntl
import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from suite import own_environment

from grading import cli, gradebook, scheduler, schema
from grading.course.course import Course
from grading.csv_tables import read_table
from grading.intake.collect import Package, packages
from grading.intake.spool import spooled
from grading.isolation import workspace
from grading.isolation.bounded_process import (
    FORK,
    BoundedProcess,
    BoundError,
    MachineError,
    ProcessLimits,
    call,
)
from grading.judging.verdict import Verdict
from grading.outcomes import Failure, FailureKind
from grading.pipeline import Options, Progress, new_score
from grading.rubric import RUBRIC
from grading.scheduler import grade_all
from grading.tests.test_collect import EIGHT, zipped
from grading.tests.test_determinism import written

OPTIONS = Options("ml-100k", 7, Path("/nowhere"))
SMALL = ProcessLimits(memory=2**26, cpu_seconds=1, seconds=20, message=10_000)


def hog():
    return {"held": len([bytes(2**20) for _ in range(1000)])}


def spin():
    while True:
        pass


def burst():
    return {"text": "x" * 20_000}


def die():
    os.kill(os.getpid(), 15)


def fail():
    raise KeyError("unforeseen")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (hog, "needed more than 64 MiB"),
        (spin, "more than 1 s of CPU time"),
        (burst, "more than 10000 bytes of results"),
        (die, "killed by signal 15"),
        (fail, "unforeseen"),
        (dict, ""),
    ],
)
def test_bounded_process_reports_the_reason_of_its_end(function, says):
    if not says:
        assert call(function, bounds=SMALL) == {}
        return
    with pytest.raises(BoundError, match=says):
        call(function, bounds=SMALL)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"[" * 9000, b"\xff"])
def test_bounded_process_reports_an_unreadable_message(content):
    process = BoundedProcess(lambda send: None, bounds=SMALL)
    process.process.join()
    process.connection.close()
    process.connection, other = multiprocessing.Pipe()
    other.send_bytes(content)
    assert process.message() is None
    assert "sent an unreadable message" in process.ended


def test_bounded_process_that_dies_while_sending_has_no_reason_but_its_exit_code():
    process = BoundedProcess(lambda send: os._exit(7), bounds=SMALL)
    process.connection, other = multiprocessing.Pipe(duplex=False)
    os.write(other.fileno(), struct.pack("!i", 100) + b"cut off")
    other.close()
    assert process.message() is None
    assert (process.ended, process.killed) == ("exit code 7", False)


def test_bounded_process_limits_wall_time():
    with pytest.raises(BoundError, match="s of wall time"):
        call(time.sleep, 60, bounds=replace(SMALL, seconds=0.2))


def behave(send, package, options, folder):
    """Replace grade_in_child: behave as the submission's name says, and log it."""
    log = Path(os.environ["LOG"])
    tries = log.read_text(encoding="utf-8").split().count(package.name)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{package.name}\n")
    score = new_score(options)
    score.marks["svd"]["correctness"] = 40.0
    score.wall_time = package.name == "slow" and not options.alone
    if package.name == "slow" and options.alone:
        score.reasons["svd"].append("alone")
    if package.name == "claims":
        claim = Failure(FailureKind.RAISED, "raises ValueError: ended by the wall-time limit")
        score.functions["svd/svd_step"] = Verdict("svd/svd_step", failure=claim)
        score.reasons["svd"].append(score.functions["svd/svd_step"].sentence)
    message = schema.encode(Progress("functions", score, 1.0))
    if package.name == "odd":
        message["score"]["marks"]["svd"] = {"correctness": "a lot"}
    send(message)
    if package.name == "memory":
        hog()
    if package.name == "crash":
        die()
    if package.name == "unlucky" and tries < 2:
        os.kill(os.getpid(), 9)
    if package.name == "doomed":
        os.kill(os.getpid(), 9)


def test_grade_all_continues_when_a_process_ends(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setattr(scheduler, "grade_in_child", behave)
    monkeypatch.setattr(scheduler, "BOUNDS", replace(SMALL, message=2**20))
    names = ("slow", "claims", "good", "odd", "memory", "crash", "unlucky", "doomed", "last")
    done: list[float] = []
    states: list[str] = []

    def report(work, state):
        done.append(work)
        states.append(state)

    todo = [Package(name) for name in names]
    graded = list(grade_all(todo, OPTIONS, 2, tmp_path / "w", tmp_path / "lock", report))
    found = {one.package.name: one for one in graded}
    assert sorted(found) == sorted(names)
    assert sum(done) == pytest.approx(len(names)), "of the work"
    assert "slow: lists, alone" in states, "its step after the functions"
    complete = {name for name, one in found.items() if one.score.complete}
    assert complete == {"slow", "claims", "good", "unlucky", "last"}
    notes = {name: "; ".join(one.score.notes) for name, one in found.items()}
    assert "needed more than 64 MiB" in notes["memory"]
    assert "killed by signal 15" in notes["crash"]
    assert "killed by signal 9" in notes["doomed"]
    assert "correctness: expected a number" in notes["odd"]
    kept = {name for name, one in found.items() if one.score.marks["svd"]["correctness"] == 40}
    assert kept == set(names) - {"odd"}, "what was known before the end is kept"
    assert found["slow"].score.reasons["svd"] == ["alone"]
    begun = log.read_text(encoding="utf-8").split()
    assert begun[-1] == "slow", "when nothing else is running"
    assert begun.count("slow") == 2
    assert begun.count("claims") == 1, "a message decides nothing"
    assert begun.count("unlucky") == begun.count("doomed") == scheduler.MAX_STARTS
    assert not list((tmp_path / "w").iterdir())


@pytest.mark.parametrize(
    ("processors", "gigabytes", "jobs"),
    [(1, 256, 1), (64, 256, 39), (64, 1000, 64), (2, 16, 2), (8, 16, 2), (4, 3, 1)],
)
def test_jobs_are_limited_by_available_cores_and_memory(monkeypatch, processors, gigabytes, jobs):
    monkeypatch.setattr(cli, "available_processors", lambda: processors)
    monkeypatch.setattr(cli, "free_gigabytes", lambda: gigabytes)
    assert cli.parse_arguments(["class.zip"]).jobs == jobs
    assert cli.parse_arguments(["class.zip", "--jobs", "5"]).jobs == 5


def no_room(send, package, options, folder):
    raise MachineError("expected 64 MiB free")


def test_machine_errors_cost_no_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "grade_in_child", no_room)
    (one,) = grade_all([Package("a")], OPTIONS, 1, tmp_path / "w", tmp_path / "lock")
    assert not one.score.complete
    assert "had to stop: expected 64 MiB free: run the grader again" in one.score.notes[0]


def test_turn_alone_waits_for_the_others(tmp_path):
    shared = workspace.Turn(tmp_path / "lock", alone=False)
    assert shared.file.readable(), "NFS needs it for shared locks, and writing for exclusive ones"
    assert shared.file.writable()
    workspace.Turn(tmp_path / "lock", alone=False).over()
    with (tmp_path / "lock").open("a", encoding="utf-8") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shared.over()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_workspace_removes_folders_of_killed_graders(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path))
    for name in ("grading-old", "grading-new", "grading-used"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alive").touch()
        age = 0 if name == "grading-new" else 100
        os.utime(tmp_path / name / "alive", (0, time.time() - age))
    with (tmp_path / "grading-used" / "alive").open(encoding="utf-8") as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        with workspace.workspace() as place:
            there = {path.name for path in tmp_path.iterdir()}
            assert there == {"grading-new", "grading-used", place.name}
    assert not place.exists()


def test_shards_depend_on_the_names_alone():
    names = [f"student {n}" for n in range(200)]
    for of in (1, 2, 5):
        each = [[n for n in names if cli.in_shard(n, (m + 1, of))] for m in range(of)]
        assert sorted(name for part in each for name in part) == sorted(names)
        assert min(map(len, each)) > 100 / of
    assert cli.in_shard("student 1", (2, 2)), "on every machine"
    assert cli.shard("2/5") == (2, 5)
    for text in ("0/5", "6/5", "2", "a/b", "-1/3"):
        with pytest.raises(ArgumentTypeError, match="expected a shard"):
            cli.shard(text)


def judged(send, package, options, folder):
    """Replace grade_in_child: marks depend only on the submission."""
    score = new_score(options)
    for name in package.files.keys() & {"mflib/svd.py"}:
        score.marks["svd"]["correctness"] = float(package.files[name].read())
    send(schema.encode(Progress("functions", score, 1.0)))


def test_merged_shards_equal_the_result_of_one_grader(tmp_path, monkeypatch):
    (tmp_path / "class").mkdir()
    for n in range(7):
        zipped({"mflib/svd.py": f"{n}"}, tmp_path / "class" / f"s{n}.zip")
    (tmp_path / "class" / "broken.zip").write_bytes(b"no archive")
    monkeypatch.setattr(scheduler, "grade_in_child", judged)
    monkeypatch.setattr(cli, "warm_up", lambda options, *_: options)

    def graded(into: str, *more: str) -> dict[str, str]:
        given = [str(tmp_path / "class"), "--into", str(tmp_path / into), "--secret", "7"]
        monkeypatch.setattr(sys, "argv", ["grading", *given, "--trust", "--jobs", "2", *more])
        cli.main()
        return written(tmp_path / into)

    one = graded("one")
    graded("two", "--shard", "2/2")
    with pytest.raises(SystemExit, match="are not graded or have changed"):
        graded("two", "--merge")
    graded("two", "--shard", "1/2")
    assert graded("two", "--merge") == one
    assert {"class.csv", "index.html", "s6.html", "submissions/broken.json"} <= set(one)


@pytest.mark.parametrize("pseudonyms", [False, True])
def test_one_of_a_class_is_graded_again_by_name(pseudonyms, tmp_path, monkeypatch, capsys):
    (tmp_path / "class").mkdir()
    for name in ("ann", "bo"):
        zipped({"mflib/svd.py": "1"}, tmp_path / "class" / f"{name}.zip")
    monkeypatch.setattr(scheduler, "grade_in_child", judged)
    monkeypatch.setattr(cli, "warm_up", lambda options, *_: options)
    given = [str(tmp_path / "class"), "--into", str(tmp_path / "x"), "--trust", "--jobs", "1"]
    given += ["--anonymous", str(tmp_path / "key.csv")] if pseudonyms else []
    for more, said in (([], "2 graded"), (["--again", "ann"], "1 graded"), ([], "nothing to")):
        cli.main([*given, *more])
        assert said in capsys.readouterr().out


def test_an_incomplete_score_counts_until_it_is_graded_again(tmp_path, monkeypatch):
    """Merging the shards gives the same result as one grader."""
    zipped({"mflib/svd.py": "1"}, tmp_path / "crash.zip")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "log").touch()
    monkeypatch.setattr(scheduler, "grade_in_child", behave)
    monkeypatch.setattr(cli, "warm_up", lambda options, *_: options)
    found = []
    for more in ([], ["--merge"], []):
        given = [str(tmp_path / "crash.zip"), "--into", str(tmp_path / "x"), "--trust", *more]
        monkeypatch.setattr(sys, "argv", ["grading", *given])
        cli.main()
        found.append((tmp_path / "x" / "class.csv").read_text(encoding="utf-8-sig"))
    assert "crash,10.0,40.0,0.0" in found[0]
    assert "killed by signal 15" in found[0]
    assert found[0] == found[1] == found[2]
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["crash"] * 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--secret", "-5"], "expected a whole number from 0"),
        (["--secret", "9" * 20], "expected a whole number from 0"),
        (["--jobs", "0"], "expected a whole number >= 1, got 0"),
        (["--dataset", "nonsense"], "invalid choice"),
        (["--again", "ann", "nobody"], "expected names of submissions after --again, got nobody"),
        (["--into", __file__], "error: .*exists"),
        ([], "secret: expected a whole number from 0"),
    ],
)
def test_invalid_options_are_reported(tmp_path, monkeypatch, capsys, more, says):
    zipped(EIGHT, tmp_path / "ann.zip")
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "secret").write_text("nothing\n", encoding="utf-8")
    given = [str(tmp_path / "ann.zip"), "--into", str(tmp_path / "into"), "--trust", *more]
    monkeypatch.setattr(sys, "argv", ["grading", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert re.search(says, f"{ended.value} {capsys.readouterr().err}")


def test_scores_of_submissions_changed_during_grading_are_not_reused(tmp_path):
    (tmp_path / "class" / "ann").mkdir(parents=True)
    (tmp_path / "class" / "ann" / "svd.py").write_text("1", encoding="utf-8")
    (package,) = packages([tmp_path / "class" / "ann"])
    for meanwhile, kept in (("1", True), ("2", False)):
        book = gradebook.Gradebook([package], OPTIONS, Course(), tmp_path)
        (tmp_path / "class" / "ann" / "svd.py").write_text(meanwhile, encoding="utf-8")
        book.add(scheduler.Graded(package, new_score(OPTIONS)))
        score = book.reports["ann"].score
        assert (score.content == book.fingerprints["ann"]) == kept
        assert any("changed or became unreadable" in note for note in score.notes) != kept


def test_bounded_process_may_be_killed_while_it_sends():
    """Only a part of the message arrives: its length and some bytes."""
    child = BoundedProcess(lambda send: die(), bounds=SMALL)
    child.connection.close()
    child.connection, theirs = FORK.Pipe(duplex=False)
    os.write(theirs.fileno(), struct.pack("!i", 5_000) + b"half")
    theirs.close()
    assert child.message() is None
    assert child.ended == "was killed by signal 15"


def test_a_folder_has_one_secret(tmp_path):
    drawn = gradebook.secret_of(tmp_path, None)
    assert gradebook.secret_of(tmp_path, None) == drawn >= 1000
    assert gradebook.secret_of(tmp_path, 5) == gradebook.secret_of(tmp_path, None) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_hostile_archives_cost_their_own_submission_only(tmp_path):
    """A class whose archives are hostile has a row for everybody."""
    folder = tmp_path / "class"
    folder.mkdir()
    zipped(EIGHT, folder / "ann.zip")
    zipped({"deep.zip": zipped(EIGHT)}, folder / "bo.zip")
    (folder / "cy.zip").write_bytes(b"no archive")
    zipped({f"{n}.txt": "" for n in range(20_001)} | EIGHT, folder / "di.zip")
    zipped({"mflib/svd.py": "1" * (2**21 + 1), f"mflib/{'x' * 600}.py": ""}, folder / "ed.zip")
    found = {p.name: p for p in packages([folder], spooled(tmp_path / "spool"))}
    assert sorted(found) == ["ann", "bo", "cy", "di", "ed"]
    assert all(found["ann"].files[name].read() == b"1" for name in EIGHT)
    assert sum(file.read() == b"1" for file in found["bo"].files.values()) == 8
    assert "cannot be opened" in found["cy"].notes[0]
    assert "at most 20000 files" in found["di"].notes[0]
    with pytest.raises(ValueError, match="expected at most 2097152 bytes"):
        found["ed"].files["mflib/svd.py"].read()


def linger(send, package, options, folder):
    """Replace grade_in_child: report one step and wait."""
    send(schema.encode(Progress("functions", new_score(options), 1.0)))
    os.read(os.pipe()[0], 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_grader_removes_its_folder(tmp_path, monkeypatch, number):
    zipped(EIGHT, tmp_path / "ann.zip")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(scheduler, "grade_in_child", linger)
    monkeypatch.setattr(cli, "warm_up", lambda options, *_: options)
    begun = []

    def stop(running):
        begun.extend(job.process.process.pid for job in running)
        assert list(temporary.glob("grading-*/*/1"))
        signal.raise_signal(number)

    monkeypatch.setattr(scheduler, "_ready", stop)
    with pytest.raises(SystemExit, match="stopped: finished submissions are kept"):
        cli.main([str(tmp_path / "ann.zip"), "--into", str(tmp_path / "x"), "--trust"])
    assert list(temporary.iterdir()) == []
    assert len(begun) == 1
    assert not psutil.pid_exists(begun[0])


NAMES = ("Åsa Müller", "Жанна", "Ann")


@pytest.mark.parametrize("encoding", ["latin-1", ""])
def test_the_command_works_in_any_locale(tmp_path, encoding):
    """The locale is ASCII, and the output has different encodings."""
    (tmp_path / "class").mkdir()
    for name in NAMES:
        zipped(EIGHT, tmp_path / "class" / f"{name}.zip")
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    locale |= {"PYTHONIOENCODING": encoding} if encoding else {}
    environment = own_environment() | locale
    command = [sys.executable, "-m", "grading", str(tmp_path / "class"), "--merge"]
    command += ["--into", str(tmp_path / "märks")]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert b"Traceback" not in done.stderr
    assert b"error: 3 submissions are not graded or have changed: Ann" in done.stderr
    table = read_table(tmp_path / "märks" / "class.csv")
    assert sorted(row.cells["name"] for row in table.rows) == sorted(NAMES)
    for name in NAMES:
        assert name.encode(encoding or "utf-8", "backslashreplace") in done.stdout


def test_merge_refuses_again(capsys):
    with pytest.raises(SystemExit):
        cli.parse_arguments(["class", "--merge", "--again"])
    assert "--merge grades nothing" in capsys.readouterr().err


def test_the_command_prints_its_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert "--shard I/N" in capsys.readouterr().out
    assert set(RUBRIC) == {"svd", "als", "bpr", "warp"}
