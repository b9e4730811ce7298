"""Bounds on all processes of a sandbox together, kept by the kernel: control groups.

Version 2 where its controllers are there, otherwise version 1, both directly; for an ordinary
account by systemd. They count what belongs to no process, too: files in memory, memfd.
"""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
NAME = "sandbox-of-grader"
PERIOD = 100_000  # microseconds; of as many a sandbox has the processor, that is one core
RUNS = count()
OLD = 600  # seconds
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")


@dataclass
class Group:
    """Where a command is bounded: in ``folders``, or by what stands before it."""

    folders: list[Path] = field(default_factory=list)
    before: list[str] = field(default_factory=list)

    @property
    def entering(self) -> list[str]:
        """Commands of a shell that put it, and what it becomes, into the group."""
        return [f"echo $$ > '{folder}/cgroup.procs'" for folder in self.folders]

    @property
    def environment(self) -> dict[str, str]:
        """What the command before needs to reach the account's systemd."""
        names = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS") if self.before else ()
        return {name: os.environ[name] for name in names if name in os.environ}

    @property
    def counts_memory(self) -> bool:
        return bool(self.folders or self.before)

    def cpu_seconds(self) -> float | None:
        """What all its processes have used of the processor, those that ended, too."""
        for folder in self.folders:
            if "usage_usec" in (told := _told(folder / "cpu.stat")):
                return told["usage_usec"] / 1e6
            with suppress(OSError):
                return int((folder / "cpuacct.usage").read_text(encoding="utf-8")) / 1e9
        return None

    def ran_out(self) -> bool:
        """Whether the kernel had to end a process for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                if "oom_kill" in (told := _told(folder / name)):
                    return told["oom_kill"] > 0
        return False

    def close(self) -> None:
        """Its processes have ended, or are about to."""
        for folder in self.folders:
            for _ in range(200):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


def _told(file: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


def group(kind: str, memory: int, processes: int) -> Group:
    """A new group of a kind that ``available`` has named. ``memory``: bytes."""
    if not kind:
        return Group()
    if kind == "systemd":
        bounds = (f"MemoryMax={memory}", f"TasksMax={processes}", "CPUQuota=100%")
        before = ["systemd-run", "--user", "--scope", "--quiet", "--collect"]
        return Group(before=[*before, *(f"--property={bound}" for bound in bounds), "--"])
    name = f"{NAME}-{os.getpid()}-{next(RUNS)}"
    if kind == "version 2":
        folder = ROOT / name
        folder.mkdir()
        _set(folder, {"memory.max": memory, "pids.max": processes, "cpu.max": f"{PERIOD} {PERIOD}"})
        _set(folder, {"memory.swap.max": 0, "memory.oom.group": 1}, optional=True)
        return Group([folder])
    folders = {controller: _own(controller) / name for controller in CONTROLLERS}
    for folder in folders.values():
        folder.mkdir()
    _set(folders["memory"], {"memory.limit_in_bytes": memory})
    _set(folders["memory"], {"memory.memsw.limit_in_bytes": memory}, optional=True)
    _set(folders["pids"], {"pids.max": processes})
    _set(folders["cpu"], {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD})
    return Group(list(folders.values()))


def _set(folder: Path, values: dict[str, object], optional: bool = False) -> None:
    for name, value in values.items():
        try:
            (folder / name).write_text(str(value), encoding="utf-8")
        except OSError:
            if not optional:
                raise


def _own(controller: str) -> Path:
    """The group of version 1 that this process is in."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, names, place = line.split(":", 2)
        if controller in names.split(","):
            return ROOT / controller / place.lstrip("/")
    raise FileNotFoundError(f"expected a control group for {controller}, found none")


@cache
def available() -> str:
    """The first kind that works here: "version 2", "version 1", "systemd", or "" for none."""
    for kind in ("version 2", "version 1"):
        with suppress(OSError):
            if kind == "version 2":  # of the root, since a group with processes has no groups
                (ROOT / "cgroup.controllers").read_text(encoding="utf-8")  # it is one
                (ROOT / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="utf-8")
            _swept(kind)
            tried = group(kind, 2**28, 50)
            try:
                entered = " && ".join([*tried.entering, "exit 0"])
                if subprocess.run(["sh", "-c", entered], capture_output=True).returncode == 0:
                    return kind
            finally:
                tried.close()
    if shutil.which("systemd-run") and os.geteuid() != 0:
        command = [*group("systemd", 2**28, 50).before, "true"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return "systemd"
    return ""


def _swept(kind: str) -> None:
    """Remove empty groups that a killed grader has left; what is new may be about to be entered."""
    places = [ROOT] if kind == "version 2" else [_own(name) for name in CONTROLLERS]
    for folder in (folder for place in places for folder in place.glob(f"{NAME}-*")):
        with suppress(OSError):  # it is in use
            if time.time() > folder.stat().st_mtime + OLD:
                folder.rmdir()
