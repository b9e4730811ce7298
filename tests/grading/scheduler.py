"""Grade several submissions of a class in parallel, each in its own process.

If one process dies, the others continue. A submission that was stopped by a limit of wall time is
graded again when nothing else is running, so that load costs no marks. If a process was killed from
outside, its submission is started again.
"""

import multiprocessing.connection
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from grading import schema
from grading.intake.collect import Package
from grading.intake.names import plain
from grading.isolation.bounded_process import BoundedProcess, ProcessLimits
from grading.isolation.sandbox import remove
from grading.isolation.workspace import Turn
from grading.pipeline import STEPS, Options, Progress, grade_in_child, new_score
from grading.result import Score, read_score

MAX_STARTS = 3  # of a submission whose process is killed from outside
BOUNDS = ProcessLimits()
OnProgress = Callable[[float, str], object]  # work done since the last call; the current steps


@dataclass
class Graded:
    """The score of a submission and the duration of its grading."""

    package: Package
    score: Score
    wall_seconds: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)  # by step


class Job:
    """A submission that is being graded."""

    def __init__(self, package: Package, options: Options, folder: Path, lock: Path, starts: int):
        self.package, self.options, self.folder, self.starts = package, options, folder, starts
        self.turn = Turn(lock, options.alone)
        self.graded = Graded(package, new_score(options))
        self.start, self.work, self.step = time.monotonic(), 0.0, next(iter(STEPS))
        folder.mkdir(parents=True)
        self.process = BoundedProcess(grade_in_child, package, options, folder, bounds=BOUNDS)

    def advance(self) -> bool:
        """Process the next message; return whether there may be more."""
        if (message := self.process.message()) is None:
            self.finish()
            return False
        try:
            progress = schema.decode(Progress, message)
            self.graded.score = read_score(message["score"])
            self.graded.cpu_seconds[progress.step] = progress.cpu_seconds
            self.work += progress.work
            self.step = _step_after(progress.step)
        except (ValueError, KeyError) as error:
            self.process.stop()
            self.process.ended = str(error)
            self.finish()
            return False
        return True

    def finish(self) -> None:
        self.graded.wall_seconds = time.monotonic() - self.start
        self.graded.score.complete = self.process.ended is None
        if self.process.ended is not None:
            ended = f"the grader's process {self.process.ended}"
            what = f"{ended}: run the grader again, or mark it by hand"
            self.graded.score.notes.append(what)
        self.turn.over()
        remove(self.folder)

    @property
    def must_start_again(self) -> bool:
        return self.process.killed and self.starts < MAX_STARTS

    @property
    def must_run_alone(self) -> bool:
        return self.graded.score.wall_time and not self.options.alone


def grade_all(
    packages: list[Package],
    options: Options,
    n_jobs: int,
    folder: Path,
    lock: Path,
    report: OnProgress = lambda work, state: None,
) -> Iterator[Graded]:
    """Yield each submission as soon as it is graded.

    Parameters
    ----------
    packages : list of Package
        The submissions.
    options : Options
        Options of the run.
    n_jobs : int
        The number of submissions graded in parallel.
    folder : Path
        A temporary folder.
    lock : Path
        A file that all graders of the class share.
    report : callable
        Called every second with the work done since the last call, where a submission is 1, and
        the steps of the submissions that are being graded.
    """
    waiting, alone = deque((package, 1) for package in packages), deque[tuple[Package, int]]()
    running: list[Job] = []
    numbers = count(1)

    def start(package: Package, starts: int, options: Options) -> None:
        report(0.0, plain(f"{package.name}: waits for other graders"))
        running.append(Job(package, options, folder / str(next(numbers)), lock, starts))

    try:
        while waiting or alone or running:
            while waiting and len(running) < n_jobs:
                start(*waiting.popleft(), options)
            if not running:
                start(*alone.popleft(), replace(options, alone=True))
            for job in _ready(running):
                before = job.work
                if job.advance():
                    report(job.work - before, state_of(running))
                    continue
                running.remove(job)
                is_done = not (job.must_start_again or job.must_run_alone)
                report(is_done - before, state_of(running))
                if job.must_start_again:
                    queue = alone if job.options.alone else waiting
                    queue.append((job.package, job.starts + 1))
                elif job.must_run_alone:
                    alone.append((job.package, 1))
                else:
                    yield job.graded
            report(0.0, state_of(running))
    finally:
        for job in running:
            job.process.stop()
            job.turn.over()
            remove(job.folder)


def state_of(running: list[Job]) -> str:
    """Return the current step of each submission, such as "Ann: lists, Bo: svd, alone"."""
    steps = [f"{job.package.name}: {job.step}" for job in running]
    alone = ["alone"] if any(job.options.alone for job in running) else []
    return plain(", ".join([*steps, *alone]))


def _step_after(step: str) -> str:
    steps = list(STEPS)
    return steps[min(steps.index(step) + 1, len(steps) - 1)]


def _ready(running: list[Job]) -> list[Job]:
    """Return the jobs with a message, and those that have exceeded their time."""
    connections = [job.process.connection for job in running]
    readable = multiprocessing.connection.wait(connections, timeout=1)
    now = time.monotonic()
    return [
        job for job in running if job.process.connection in readable or now > job.process.deadline
    ]
