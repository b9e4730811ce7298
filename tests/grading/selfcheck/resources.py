"""What processes use at most while something runs: the grader's own, and those in the sandbox.

    python peaks.py PID

looks at the process and all that it starts until its standard input ends, then prints the peaks as
JSON. Another process does so, since whoever forks should have no threads.
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
    """Memory in bytes, times in seconds."""

    outside: int = 0  # resident, of the largest process of the grader
    inside: int = 0  # of all processes in sandboxes together, files in memory included
    cpu_outside: float = 0.0  # of the processor, by the grader's processes
    seconds: float = 0.0  # by the clock

    def add(self, root: psutil.Process, cpu: dict[int, float], shared: int) -> None:
        """Look once. ``cpu``: by process; ``shared``: files in memory when it began."""
        inside, own = max(0, psutil.virtual_memory().shared - shared), root.cmdline()
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error, OSError):  # it may end while we look
                if process.cmdline() == own:  # forked
                    self.outside = max(self.outside, _kilobytes(process.pid, "status", "VmHWM:"))
                    cpu[process.pid] = sum(process.cpu_times()[:2])
                elif process.pid != psutil.Process().pid:
                    inside += _kilobytes(process.pid, "smaps_rollup", "Pss_Anon:")
        self.inside = max(self.inside, inside)


def _kilobytes(pid: int, file: str, name: str) -> int:
    """Bytes by one of the kernel's lines on a process: its peak of what is resident, or its part of
    the pages that belong to no file, which processes share that were forked from one.
    """
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8")
    return 1024 * int(lines.partition(name)[2].split()[0])


@contextmanager
def measured() -> Iterator[Peaks]:
    """The peaks of this process and of what it starts; they are known when the block has ended."""
    found, me = Peaks(), psutil.Process()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far is forgotten
    watching = [sys.executable, __file__, str(me.pid)]
    pipe = subprocess.PIPE
    with subprocess.Popen(watching, stdin=pipe, stdout=pipe, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # it has begun
        start, cpu = time.monotonic(), sum(me.cpu_times()[:2])
        yield found
        found.seconds = time.monotonic() - start
        found.cpu_outside = sum(me.cpu_times()[:2]) - cpu
        told = json.loads(watcher.communicate()[0])
    found.outside, found.inside = told["outside"], told["inside"]
    found.cpu_outside += told["cpu of children"]


def main() -> None:
    root, found = psutil.Process(int(sys.argv[1])), Peaks()
    cpu: dict[int, float] = {}
    shared = psutil.virtual_memory().shared
    print(flush=True)
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        found.add(root, cpu, shared)
    cpu.pop(root.pid, None)
    told = {"outside": found.outside, "inside": found.inside}
    print(json.dumps(told | {"cpu of children": sum(cpu.values())}))


if __name__ == "__main__":
    main()
