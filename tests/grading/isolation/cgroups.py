"""Control groups, version 2: limits of the kernel on all processes of a sandbox together.

Where systemd runs, it owns the groups and makes one for a command (``systemd-run --scope``). In a
container without systemd, groups are made directly. They count memory that belongs to no process,
too: files in memory, memfd. Where neither works, the monitor adds up what processes use.
"""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import count
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")  # is there if systemd runs
NAME = "sandbox-of-grader"
PERIOD = 100_000  # microseconds; with as large a quota, a sandbox has one core
RUNS = count()
OLD = 600  # seconds


class Manager(StrEnum):
    """What makes control groups on this machine."""

    NOBODY = ""
    DIRECT = "version 2"
    SYSTEMD = "systemd"


@dataclass(frozen=True)
class Group:
    """A control group: a folder that is entered, or a command that runs another one in a group."""

    folder: Path | None = None
    prefix: list[str] = field(default_factory=list)

    @property
    def entering(self) -> list[str]:
        """Shell commands that put the shell, and what it executes, into the group."""
        return [f"echo $$ > '{self.folder}/cgroup.procs'"] if self.folder else []

    @property
    def environment(self) -> dict[str, str]:
        """Variables that ``prefix`` needs to reach the account's systemd."""
        names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS") if self.prefix else ()
        return {name: os.environ[name] for name in names if name in os.environ}

    @property
    def counts_memory(self) -> bool:
        return bool(self.folder or self.prefix)

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of all its processes, including those that have ended."""
        usage = _values(self.folder / "cpu.stat").get("usage_usec") if self.folder else None
        return None if usage is None else usage / 1e6

    def ran_out(self) -> bool:
        """Return whether the kernel had to end a process because of the memory limit."""
        return bool(self.folder and _values(self.folder / "memory.events").get("oom_kill"))

    def close(self) -> None:
        """Remove the group; its processes have ended, or are about to."""
        if self.folder is None:
            return
        for _ in range(200):
            try:
                self.folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)


def _values(file: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


def group(manager: Manager, memory: int, processes: int) -> Group:
    """Make a group that is limited to one core, ``memory`` bytes and a number of processes."""
    if manager is Manager.NOBODY:
        return Group()
    if manager is Manager.SYSTEMD:
        limits = (f"MemoryMax={memory}", "MemorySwapMax=0", f"TasksMax={processes}")
        account = [] if os.geteuid() == 0 else ["--user"]
        prefix = ["systemd-run", *account, "--scope", "--quiet", "--collect"]
        prefix += [f"--property={limit}" for limit in (*limits, "CPUQuota=100%")]
        return Group(prefix=[*prefix, "--"])
    folder = ROOT / f"{NAME}-{os.getpid()}-{next(RUNS)}"
    folder.mkdir()
    files = {"memory.max": memory, "pids.max": processes, "cpu.max": f"{PERIOD} {PERIOD}"}
    for name, value in files.items():
        (folder / name).write_text(str(value), encoding="utf-8")
    for name, value in {"memory.swap.max": 0, "memory.oom.group": 1}.items():
        with suppress(OSError):  # not in every kernel
            (folder / name).write_text(str(value), encoding="utf-8")
    return Group(folder)


@cache
def available() -> Manager:
    """Return the manager that can make groups on this machine."""
    manager = Manager.SYSTEMD if SYSTEMD.exists() else Manager.DIRECT
    try:
        return manager if _works(manager) else Manager.NOBODY
    except OSError:
        return Manager.NOBODY


def _works(manager: Manager) -> bool:
    if manager is Manager.SYSTEMD:
        if not shutil.which("systemd-run"):
            return False
    else:
        # only the root may hold processes and have groups with controllers; it is there in version
        # 2 only, and nobody else manages it
        (ROOT / "cgroup.controllers").read_text(encoding="utf-8")
        (ROOT / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="utf-8")
        _remove_abandoned()
    tried = group(manager, 2**28, 50)
    try:
        enter = [*tried.prefix, "sh", "-c", " && ".join([*tried.entering, "exit 0"])]
        return subprocess.run(enter, capture_output=True).returncode == 0
    finally:
        tried.close()


def _remove_abandoned() -> None:
    """Remove empty groups of graders that were killed; new ones may be about to be entered."""
    for folder in ROOT.glob(f"{NAME}-*"):
        with suppress(OSError):  # it is in use
            if time.time() > folder.stat().st_mtime + OLD:
                folder.rmdir()
