"""A temporary folder for one grader, and a lock shared with other graders of the same class."""

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
def workspace() -> Iterator[Path]:
    """Yield a folder that is removed at the end, or by the next grader if this one is killed."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (folder / ALIVE).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            remove(folder)


def _remove_abandoned() -> None:
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{ALIVE}"):
        try:
            with file.open("a", encoding="utf-8") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() > file.stat().st_mtime + OLD:
                    remove(file.parent)
        except OSError:  # the folder is in use or belongs to another account
            continue


class Turn:
    """A lock for the time in which a submission is graded, shared or exclusive (``alone``).

    All graders of a class use the same ``file``. The constructor may wait only while no submission
    of this process runs: otherwise this process already shares the lock. A submission that must be
    alone starts last.
    """

    def __init__(self, file: Path, alone: bool):
        # Closed in ``over``. NFS shares a lock only on a file that is open for reading.
        self.file = file.open("a+", encoding="utf-8")
        fcntl.flock(self.file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)

    def over(self) -> None:
        if self.file.closed:
            return
        fcntl.flock(self.file, fcntl.LOCK_UN)  # forked processes also hold the file
        self.file.close()
