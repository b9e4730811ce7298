"""Limit all processes of a sandbox together with control groups, version 2.

Where systemd runs, it owns the groups and creates one for a command (``systemd-run --scope``). In a
container without systemd, groups are created directly. Groups also count memory that belongs to no
process: files in memory and memfd. Where neither works, the monitor adds up the processes' memory.
"""

import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import count
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")  # exists if systemd is running
NAME = "sandbox-of-grader"
PERIOD = 100_000  # microseconds; a quota of the same size allows one core
RUNS = count()
OLD = 600  # seconds


class Manager(StrEnum):
    """The program that creates control groups on this machine."""

    NOBODY = ""
    DIRECT = "version 2"
    SYSTEMD = "systemd"


@dataclass(frozen=True)
class Group:
    """A control group: a folder to enter, or a prefix for commands that creates the group."""

    folder: Path | None = None
    prefix: list[str] = field(default_factory=list)

    @property
    def entering(self) -> list[str]:
        """Shell commands that move the shell and its children into the group."""
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
        """Return the CPU time of all processes in the group, including ended ones."""
        usage = _values(self.folder / "cpu.stat").get("usage_usec") if self.folder else None
        return None if usage is None else usage / 1e6

    def ran_out(self) -> bool:
        """Return whether the kernel has killed a process because of the memory limit."""
        return bool(self.folder and _values(self.folder / "memory.events").get("oom_kill"))

    def close(self) -> None:
        """Remove the group, whose processes have ended or are about to end."""
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
    """Create a group with limits of one core, ``memory`` bytes and a number of processes."""
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
def available() -> tuple[Manager, str | None]:
    """Return the manager that can create groups here, and the error if there is none."""
    manager = Manager.SYSTEMD if SYSTEMD.exists() else Manager.DIRECT
    try:
        _try(manager)
    except OSError as error:
        return Manager.NOBODY, f"control groups: {error}"
    return manager, None


def _try(manager: Manager) -> None:
    """Create a group and enter it; raise OSError if that fails."""
    if manager is Manager.DIRECT:
        # only the root group may hold processes and have child groups with controllers; the file
        # exists only in version 2, and no other manager uses the groups
        (ROOT / "cgroup.controllers").read_text(encoding="utf-8")
        (ROOT / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="utf-8")
        _remove_abandoned()
    tried = group(manager, 2**28, 50)
    try:
        enter = [*tried.prefix, "sh", "-c", " && ".join([*tried.entering, "exit 0"])]
        done = subprocess.run(enter, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise OSError(done.stderr.strip() or f"{enter[0]} failed")
    finally:
        tried.close()


def _remove_abandoned() -> None:
    """Remove empty groups of killed graders, except recent ones, which may still be entered."""
    for folder in ROOT.glob(f"{NAME}-*"):
        with suppress(OSError):  # the group is in use
            if time.time() > folder.stat().st_mtime + OLD:
                folder.rmdir()
