"""Measure the resources of the processes in a sandbox, and decide when to stop them.

A control group limits memory and CPU itself and counts exactly. Without one, this module adds up
the memory of all processes and of files in memory, counting shared pages once. Processes that use
more than one core get the lowest priority.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from grading.isolation.bounded_process import MachineError
from grading.isolation.cgroups import Group
from grading.outcomes import Failure, FailureKind

INTERVAL = 0.5  # seconds
WALK_FACTOR = 50  # the interval between two counts of files / the duration of a count
GREEDY = 1.3  # cores
LOWEST_PRIORITY = 19  # niceness
ROOM = 2**26  # bytes
# A run that uses fewer than IDLE cores is waiting, unless one of its processes was runnable or
# reading from a disk in more than the fraction READY of the samples. If less than the fraction SEEN
# of the samples was taken, the monitor itself was not scheduled, and the run is not stopped.
IDLE, READY, SEEN = 0.05, 0.1, 0.5
WAITS = "stopped because it only waited: it sleeps, or waits for an event that never happens"
RUNNABLE = (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)


@dataclass(frozen=True)
class Limits:
    """Limits of one run, for all its processes together unless a comment says otherwise."""

    cpu_seconds: int = 600
    seconds: float = 3600.0  # wall time
    idle: float = 60.0  # seconds of waiting at a time
    waiting: float = 180.0  # seconds of waiting in all
    memory: int = 6 * 2**30  # bytes: of address space of one process, and in use by all
    processes: int = 200  # including threads
    file_size: int = 200 * 2**20  # bytes of one file, including the output
    disk: int = 2 * 2**30  # bytes of all files
    files: int = 20_000


class Monitor:
    """Samples the resources of one run; ``check`` returns the reason to stop it."""

    def __init__(self, pid: int, work: Path, limits: Limits, group: Group):
        self.pid, self.work, self.limits, self.group = pid, work, limits, group
        self.start = self.sampled = self.period_start = time.monotonic()
        self.cpu_seconds = self.cpu_at_period_start = self.waited = 0.0
        self.walked = self.walk_seconds = 0.0  # time and duration of the last count
        self.samples = self.runnable_samples = 0
        self.failure: Failure | None = None

    def check(self) -> Failure | None:
        """Take a sample if one is due; return the reason to stop the run, if any."""
        now = time.monotonic()
        if now > self.sampled + INTERVAL:
            self.failure = self._sample(now)
            self.sampled = time.monotonic()
        return self.failure

    def _sample(self, now: float) -> Failure | None:
        limits, processes = self.limits, self._processes()
        counted = self.group.cpu_seconds()
        used = _cpu_seconds(processes) if counted is None else counted
        self.cpu_seconds = max(self.cpu_seconds, used)
        waits = self._waits(now, processes) or self.waited > limits.waiting
        if self.cpu_seconds > limits.cpu_seconds:
            text = f"ended after {limits.cpu_seconds} s of CPU time: an endless loop, or too slow"
            return Failure(FailureKind.CPU_TIME, text)
        if waits:
            return Failure(FailureKind.WAITED, WAITS)
        if now > self.start + limits.seconds:
            text = f"ended by the wall-time limit: it took more than {limits.seconds:.0f} s"
            return Failure(FailureKind.WALL_TIME, text)
        if why := self._too_many_files(now):
            return Failure(FailureKind.SPACE, f"stopped: {why}")
        ensure_room(self.work)
        if self.group.ran_out() or self._too_much_memory(processes):
            return Failure(FailureKind.SPACE, "stopped: it filled the memory")
        if counted is None and self.cpu_seconds > GREEDY * (now - self.start) + 5:
            _lower_priority(processes)
        return None

    def _waits(self, now: float, processes: list[psutil.Process]) -> bool:
        """Return whether the run has been idle for a period although a CPU was available."""
        runnable = any(_is_runnable(process) for process in processes)
        self.samples += 1
        self.runnable_samples += runnable
        if not runnable:
            self.waited += min(now - self.sampled, 2 * INTERVAL)
        if now < self.period_start + self.limits.idle:
            return False
        used, period = self.cpu_seconds - self.cpu_at_period_start, now - self.period_start
        waits = used < IDLE * period and self.runnable_samples <= READY * self.samples
        waits = waits and self.samples >= SEEN * period / INTERVAL
        self.period_start, self.cpu_at_period_start = now, self.cpu_seconds
        self.samples = self.runnable_samples = 0
        return waits

    def _processes(self) -> list[psutil.Process]:
        """Return the processes of the run; the sandbox's first process adopts orphans."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _too_many_files(self, now: float) -> str:
        """Return the exceeded disk limit, if any; the more files, the rarer the counts."""
        if now < self.walked + WALK_FACTOR * self.walk_seconds:
            return ""
        start = time.process_time()
        why = excess_in(self.work, self.limits.disk, self.limits.files)
        self.walked, self.walk_seconds = now, time.process_time() - start
        return why

    def _too_much_memory(self, processes: list[psutil.Process]) -> bool:
        if self.group.counts_memory:
            return False
        most = self.limits.memory - _in_files(processes)
        # resident sizes count shared pages repeatedly; the exact sum takes longer
        return _sum(processes, _resident) > most and _sum(processes, _proportional) > most


def _sum(processes: list[psutil.Process], of_one: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error, OSError):  # the process may end meanwhile
            total += of_one(process)
    return total


def _is_runnable(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() in RUNNABLE
    return False


def _resident(process: psutil.Process) -> int:
    return process.memory_info().rss


def _proportional(process: psutil.Process) -> int:
    """Return bytes of memory; a page shared by n processes counts 1/n."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return _resident(process)


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the CPU time of processes and of their ended children."""
    return _sum(processes, lambda process: sum(process.cpu_times()[:4]))


def _in_files(processes: list[psutil.Process]) -> int:
    """Return the bytes of in-memory files, in the sandbox's /tmp and /dev/shm."""
    for process in reversed(processes):  # the first ones are still outside
        with suppress(psutil.Error, OSError):
            top = Path("/proc", str(process.pid), "root")  # the root folder of the process
            if top.samefile("/"):  # the machine's root: no sandbox
                continue
            inside = [os.statvfs(top / place) for place in ("tmp", "dev/shm")]
            return sum((f.f_blocks - f.f_bfree) * f.f_frsize for f in inside)
    return 0


def _lower_priority(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            if process.nice() < LOWEST_PRIORITY:
                process.nice(LOWEST_PRIORITY)


def ensure_room(folder: Path) -> None:
    """Raise MachineError if the disk is full, so that unwritten results do not cost marks."""
    if shutil.disk_usage(folder).free < ROOM:
        raise MachineError(f"expected {ROOM // 2**20} MiB free on the disk of {folder}, got less")


def excess_in(folder: Path, disk: int, files: int) -> str:
    """Return a message if a folder has too many bytes or files, otherwise an empty text."""
    weight, seen, todo = 0, 0, [str(folder)]
    while todo:
        parent = todo.pop()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    seen += 1
                    if seen > files:
                        return f"it left more than {files} files"
                    with suppress(FileNotFoundError):  # the file may be deleted meanwhile
                        weight += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except PermissionError:
            with suppress(OSError):  # untrusted code may lock folders
                os.chmod(parent, 0o700)
        except FileNotFoundError:
            pass
        except OSError:  # the path is too long
            return "it nested folders too deeply"
        if weight > disk:
            return "it filled the disk"
    return ""
