"""Measure peak memory and CPU time of the grader's processes and of the sandboxes.

    python resources.py PID

samples a process and its descendants until standard input ends, and prints the peaks as JSON. This
is a separate process, because a process that forks should have no threads.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.1  # seconds


@dataclass
class Peaks:
    """Peak memory in bytes, times in seconds."""

    outside: int = 0  # resident, of the largest process of the grader
    inside: int = 0  # of all processes in sandboxes together, files in memory included
    cpu_outside: float = 0.0  # CPU time of the grader's processes
    seconds: float = 0.0  # wall time

    def add(self, root: psutil.Process, cpu: dict[int, float], shared: int) -> None:
        """Take a sample. ``cpu``: CPU time by process; ``shared``: files in memory at the start."""
        inside, own = max(0, psutil.virtual_memory().shared - shared), root.cmdline()
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error, OSError):  # the process may end meanwhile
                if process.cmdline() == own:  # forked
                    self.outside = max(self.outside, _kilobytes(process.pid, "status", "VmHWM:"))
                    cpu[process.pid] = sum(process.cpu_times()[:2])
                elif process.pid != psutil.Process().pid:
                    inside += _kilobytes(process.pid, "smaps_rollup", "Pss_Anon:")
        self.inside = max(self.inside, inside)


def _kilobytes(pid: int, file: str, name: str) -> int:
    """Return the bytes in one line of a file in /proc/PID."""
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8")
    return 1024 * int(lines.partition(name)[2].split()[0])


@contextmanager
def measured() -> Iterator[Peaks]:
    """Yield the peaks of this process and its descendants, which are set when the block ends."""
    found, me = Peaks(), psutil.Process()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    watching = [sys.executable, __file__, str(me.pid)]
    pipe = subprocess.PIPE
    with subprocess.Popen(watching, stdin=pipe, stdout=pipe, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # waits for its start
        start, cpu = time.monotonic(), sum(me.cpu_times()[:2])
        yield found
        found.seconds = time.monotonic() - start
        found.cpu_outside = sum(me.cpu_times()[:2]) - cpu
        measured = json.loads(watcher.communicate()[0])
    found.outside, found.inside = measured["outside"], measured["inside"]
    found.cpu_outside += measured["cpu of children"]


def main() -> None:
    root, found = psutil.Process(int(sys.argv[1])), Peaks()
    cpu: dict[int, float] = {}
    shared = psutil.virtual_memory().shared
    print(flush=True)
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        found.add(root, cpu, shared)
    cpu.pop(root.pid, None)
    peaks = {"outside": found.outside, "inside": found.inside}
    print(json.dumps(peaks | {"cpu of children": sum(cpu.values())}))


if __name__ == "__main__":
    main()
