"""Where a grader works: its folder, and its turn beside other graders of the same class."""

import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grading.isolation.sandbox import remove

PREFIX, ALIVE = "grading-", "alive"
OLD = 60  # seconds: a younger folder may not be locked yet


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is removed at the end; if this grader is killed, by the next one."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (folder / ALIVE).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            remove(folder)


def _sweep() -> None:
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{ALIVE}"):
        try:
            with file.open("a", encoding="utf-8") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() > file.stat().st_mtime + OLD:
                    remove(file.parent)
        except OSError:  # it is in use, or another account's
            continue


class Turn:
    """Held while a submission is graded: together with others, or alone.

    ``file``: the same for all graders of a class. Waits until nothing is in the way.
    """

    def __init__(self, file: Path, alone: bool):
        self.file = file.open("a", encoding="utf-8")  # closed when the turn is over
        fcntl.flock(self.file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)

    def over(self) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)  # by name: forked processes have the file open, too
        self.file.close()
