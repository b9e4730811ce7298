"""What a sandbox uses, looked at from outside while it runs; where that is too much, why to end it.

A control group bounds memory and processor by itself, and counts exactly. Without one, the memory
of all processes is added up here, what they share counted once, and what lies in files in memory;
who takes more than a core has to stand behind everybody else.
"""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from grading.isolation.bounded_process import MachineError
from grading.isolation.cgroups import Group

EVERY = 0.5  # seconds
SELDOM = 50  # times as long as it takes, until the files are counted again
GREEDY = 1.3  # cores
LAST = 19  # niceness
ROOM = 2**26  # bytes
# Who uses fewer cores waits, unless more often than this a process could go on, or reads a disk.
IDLE, READY = 0.05, 0.1
GOES_ON = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
BY_CLOCK = "by the clock"


@dataclass(frozen=True)
class Limits:
    """Of one run; of all its processes together, where nothing else is said."""

    cpu_seconds: int = 600  # of the processor
    seconds: float = 3600.0  # by the clock, for what waits
    idle: float = 60.0  # seconds in which the processor is hardly used
    memory: int = 6 * 2**30  # bytes: of address space of one process, and in use by all
    processes: int = 200  # threads count
    file_size: int = 200 * 2**20  # bytes of one file, the output included
    disk: int = 2 * 2**30  # bytes of all files
    files: int = 20_000


class Watch:
    def __init__(self, pid: int, work: Path, limits: Limits, group: Group):
        self.pid, self.work, self.limits, self.group = pid, work, limits, group
        self.start = self.looked = self.since = time.monotonic()
        self.cpu_seconds = self.cpu_then = 0.0
        self.walked = self.walking = 0.0  # when the files were counted, and seconds that it took
        self.looks = self.ready = 0
        self.ended = ""

    def look(self) -> str:
        """Why the run has to be ended, or nothing."""
        now = time.monotonic()
        if now > self.looked + EVERY:
            self.ended = self._why(now)
            self.looked = time.monotonic()
        return self.ended

    def _why(self, now: float) -> str:
        limits, processes = self.limits, self._processes()
        used = self.group.cpu_seconds()
        self.cpu_seconds = max(self.cpu_seconds, _seconds(processes) if used is None else used)
        waits = self._waits(now, processes)
        if self.cpu_seconds > limits.cpu_seconds:
            return f"after {limits.cpu_seconds} s of the processor: an endless loop, or too slow"
        if waits:
            return f"{BY_CLOCK}: it has waited for {limits.idle:.0f} s"
        if now > self.start + limits.seconds:
            return f"{BY_CLOCK}: it took more than {limits.seconds:.0f} s"
        if why := self._too_much(now):
            return why
        ensure_room(self.work)
        if self.group.ran_out() or self._too_large(processes):
            return "for filling the memory"
        if used is None and self.cpu_seconds > GREEDY * (now - self.start) + 5:
            _put_last(processes)
        return ""

    def _waits(self, now: float, processes: list[psutil.Process]) -> bool:
        """Whether nothing happens for long, though the machine would let it."""
        self.looks += 1
        self.ready += any(_goes_on(process) for process in processes)
        if now < self.since + self.limits.idle:
            return False
        hardly = self.cpu_seconds - self.cpu_then < IDLE * (now - self.since)
        found = hardly and self.ready <= READY * self.looks
        self.since, self.cpu_then, self.looks, self.ready = now, self.cpu_seconds, 0, 0
        return found

    def _processes(self) -> list[psutil.Process]:
        """Of the run; the sandbox's first process adopts its orphans."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _too_much(self, now: float) -> str:
        """What is too much on the disk; many files are counted less often."""
        if now < self.walked + SELDOM * self.walking:
            return ""
        begun = time.process_time()
        why = too_much_in(self.work, self.limits.disk, self.limits.files)
        self.walked, self.walking = now, time.process_time() - begun
        return why

    def _too_large(self, processes: list[psutil.Process]) -> bool:
        if self.group.counts_memory:
            return False
        most = self.limits.memory - _in_files(processes)
        # what is resident counts shared pages for each; only if that is too much, look closer
        return _sum(processes, _resident) > most and _sum(processes, _proportional) > most


def _sum(processes: list[psutil.Process], of_one: object) -> float:
    found = 0.0
    for process in processes:
        with suppress(psutil.Error, OSError):  # it may end while we look
            found += of_one(process)
    return found


def _goes_on(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() in GOES_ON
    return False


def _resident(process: psutil.Process) -> int:
    return process.memory_info().rss


def _proportional(process: psutil.Process) -> int:
    """Bytes, those that several processes share divided among them."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return _resident(process)


def _seconds(processes: list[psutil.Process]) -> float:
    """Of the processor, of those that have ended, too."""
    return _sum(processes, lambda process: sum(process.cpu_times()[:4]))


def _in_files(processes: list[psutil.Process]) -> int:
    """Bytes of the files in memory that the sandbox has: in its /tmp and /dev/shm."""
    for process in reversed(processes):  # the first ones are still outside
        with suppress(psutil.Error, OSError):
            top = Path("/proc", str(process.pid), "root")  # what the process sees as /
            if top.samefile("/"):  # the machine's, without a sandbox
                continue
            inside = [os.statvfs(top / place) for place in ("tmp", "dev/shm")]
            return sum((f.f_blocks - f.f_bfree) * f.f_frsize for f in inside)
    return 0


def _put_last(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            if process.nice() < LAST:
                process.nice(LAST)


def ensure_room(folder: Path) -> None:
    """MachineError if the disk is full: what cannot be written there seems not to be done."""
    if shutil.disk_usage(folder).free < ROOM:
        raise MachineError(f"expected {ROOM // 2**20} MiB free on the disk of {folder}, got less")


def too_much_in(folder: Path, disk: int, files: int) -> str:
    """Why a folder is too much, in bytes or in files, or nothing; other disks are not entered."""
    weight, seen, todo = 0, 0, [str(folder)]
    while todo:
        parent = todo.pop()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    seen += 1
                    if seen > files:
                        return f"for leaving more than {files} files"
                    with suppress(FileNotFoundError):  # it may go while we look
                        weight += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except PermissionError:
            with suppress(OSError):  # locked, so that we do not look
                os.chmod(parent, 0o700)
        except FileNotFoundError:
            pass
        except OSError:  # the path is too long
            return "for nesting folders too deeply"
        if weight > disk:
            return "for filling the disk"
    return ""
