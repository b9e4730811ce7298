"""A class graded side by side: a process for each submission, so many at once.

Whatever ends one of them, the others go on. What was ended by the clock is graded again when
nothing else is running: load must not take marks. What was killed from outside is begun again.
"""

import multiprocessing.connection
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from grading.intake.collect import Package
from grading.isolation.bounded_process import Bounds, Child
from grading.isolation.sandbox import remove
from grading.isolation.workspace import Turn
from grading.pipeline import SHARES, blank, child
from grading.result import Report, read_report
from grading.scoring import BY_CLOCK, Options

TRIES = 3  # of what is killed from outside
BOUNDS = Bounds()


@dataclass
class Graded:
    """A report, and how long it took."""

    package: Package
    report: Report
    whole: bool = False  # otherwise its notes say why not
    clock: float = 0.0  # seconds
    steps: dict[str, float] = field(default_factory=dict)  # seconds of the processor


class Attempt:
    """A submission that is being graded."""

    def __init__(self, package: Package, options: Options, folder: Path, lock: Path, tries: int):
        self.package, self.options, self.folder, self.tries = package, options, folder, tries
        self.turn = Turn(lock, options.alone)
        self.found = Graded(package, blank(package, options))
        self.start, self.done = time.monotonic(), 0.0
        folder.mkdir(parents=True)
        self.child = Child(child, package, options, folder, bounds=BOUNDS)

    def go_on(self, progress: Callable[[float], object]) -> bool:
        """Take the next message; whether there may be more."""
        if (message := self.child.message()) is None:
            self.finish()
            return False
        try:
            self.found.report = read_report(message["report"])
            self.found.steps[list(SHARES)[len(self.found.steps)]] = float(message["seconds"])
            share = float(message["share"])
            self.done += share
            progress(share)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.child.stop()
            self.child.ended = str(error)
            self.finish()
            return False
        return True

    def finish(self) -> None:
        self.found.clock = time.monotonic() - self.start
        self.found.whole = not self.child.ended
        if self.child.ended:
            what = f"the grader's process {self.child.ended}; grade again, or the rest by hand"
            self.found.report.notes.append(what)
        self.turn.over()
        remove(self.folder)

    @property
    def to_be_begun_again(self) -> bool:
        return self.child.killed and self.tries < TRIES

    @property
    def to_be_tried_alone(self) -> bool:
        report = self.found.report
        said = [str(f["error"]) for f in report.functions.values()]
        said += [reason for reasons in report.reasons.values() for reason in reasons]
        return not self.options.alone and any(BY_CLOCK in text for text in said)


def grade_all(
    todo: list[Package],
    options: Options,
    at_once: int,
    place: Path,
    lock: Path,
    progress: Callable[[float], object] = lambda share: None,
) -> Iterator[Graded]:
    """Every submission of ``todo``, as it is finished.

    ``place``: a folder to work in; ``lock``: a file that all graders of the class share.
    """
    waiting, alone = deque((package, 1) for package in todo), deque()
    running: list[Attempt] = []
    number = 0
    try:
        while waiting or alone or running:
            while waiting and len(running) < at_once:
                package, tries = waiting.popleft()
                number += 1
                running.append(Attempt(package, options, place / str(number), lock, tries))
            if not running:
                package, tries = alone.popleft()
                number += 1
                calm = replace(options, alone=True)
                running.append(Attempt(package, calm, place / str(number), lock, tries))
            for attempt in _ready(running):
                if attempt.go_on(progress):
                    continue
                running.remove(attempt)
                again = (attempt.package, attempt.tries + 1)
                done = not (attempt.to_be_begun_again or attempt.to_be_tried_alone)
                progress(done - attempt.done)
                if attempt.to_be_begun_again:
                    (alone if attempt.options.alone else waiting).append(again)
                elif attempt.to_be_tried_alone:
                    alone.append((attempt.package, 1))
                else:
                    yield attempt.found
    finally:
        for attempt in running:
            attempt.child.stop()
            remove(attempt.folder)


def _ready(running: list[Attempt]) -> list[Attempt]:
    """Those that have something to say, or have said nothing for too long."""
    connections = [attempt.child.connection for attempt in running]
    heard = multiprocessing.connection.wait(connections, timeout=1)
    now = time.monotonic()
    return [a for a in running if a.child.connection in heard or now > a.child.deadline]
