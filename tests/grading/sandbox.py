"""Run a command that strangers have written, under limits, seeing nothing but what it is given.

bubblewrap makes a world of its own: the system read-only, a private /tmp, no network, no other
processes, and of the rest of the machine only the folders that are named. prlimit bounds memory,
processor time, processes and the size of files; a clock out here bounds the whole. Root's processes
are not counted by those limits, so root becomes another user before it enters.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import psutil

TOOLS = ("bwrap", "prlimit", "setpriv", "unshare", "mount")
# The user id that root becomes, plus a number, so that two runs are not counted together.
STRANGER = 61_000
RUNS = count()
# One thread each: several runs share a machine.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}


class UnprotectedError(RuntimeError):
    """This machine cannot run the code of strangers safely; the message says what is missing."""


@dataclass(frozen=True)
class Limits:
    """Of one run."""

    seconds: float = 600.0  # by the clock
    cpu_seconds: int = 1200  # of all threads
    memory: int = 6 * 2**30  # bytes: of address space of one process, and resident of all processes
    processes: int = 200  # threads count
    file_size: int = 200 * 2**20  # bytes of one file, the output included
    disk: int = 2 * 2**30  # bytes of all files


@dataclass(frozen=True)
class Finished:
    """The exit code of a run, or None where it was ended, and why; the end of what it printed."""

    code: int | None
    output: str
    seconds: float
    ended: str = ""


@cache
def protections() -> dict[str, bool]:
    """Which of the tools are here, and whether they work together on this machine."""
    found = {tool: shutil.which(tool) is not None for tool in TOOLS}
    if all(found.values()):
        with tempfile.TemporaryDirectory() as folder, _handed_over(Path(folder)) as user:
            command = _sealed(["/usr/bin/true"], Path(folder), [], user, Limits())
            found["a sandbox"] = subprocess.run(command, capture_output=True).returncode == 0
    return found


def ready(trust: bool) -> None:
    """Raise UnprotectedError where a protection is missing and ``trust`` is not given."""
    missing = [tool for tool, there in protections().items() if not there]
    if missing and not trust:
        raise UnprotectedError(
            f"expected bubblewrap and util-linux to run the code of strangers, missing: {missing}; "
            "install the package bubblewrap, or pass --trust if you know who wrote it"
        )


def run(
    command: list[str],
    work: Path,
    visible: list[Path],
    limits: Limits = Limits(),
    trust: bool = False,
) -> Finished:
    """Run ``command`` in the folder ``work``, the only one that it may write to.

    It may read ``visible``, the interpreter and its packages. With ``trust`` only the clock
    protects. Raises UnprotectedError where a protection is missing and ``trust`` is not given.
    """
    ready(trust)
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    with _output() as (file, path), _handed_over(work) as user:
        whole = command if trust else _sealed(command, work, [*prefixes, *visible], user, limits)
        environment = dict(os.environ) if trust else ENVIRONMENT
        start = time.monotonic()
        process = subprocess.Popen(
            whole,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=work if trust else "/",
            start_new_session=True,
        )
        try:
            ended = _watch(process, work, limits)
        finally:  # the first process of the sandbox takes all others with it
            _end(process)
        code = None if ended else process.returncode
        return Finished(code, _tail(path), time.monotonic() - start, ended)


def _watch(process: subprocess.Popen, work: Path, limits: Limits) -> str:
    """Wait for the end -> why it has to be ended, or nothing."""
    deadline, weighed = time.monotonic() + limits.seconds, time.monotonic()
    while process.poll() is None:
        if time.monotonic() > deadline:
            return "by the clock: an endless loop, or far too slow"
        if time.monotonic() > weighed + 0.5:
            if _weight(work) > limits.disk:
                return "for filling the disk"
            if _resident(process.pid) > limits.memory:
                return "for filling the memory with many processes"
            weighed = time.monotonic()
        time.sleep(0.05)
    return ""


def _resident(pid: int) -> int:
    """Bytes in memory of a process and all that have come of it.

    The sandbox's first process adopts its orphans.
    """
    found = 0
    with suppress(psutil.NoSuchProcess):
        for one in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # it may end while we look
                found += one.memory_info().rss
    return found


def _weight(folder: Path) -> int:
    """Bytes on the disk."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # it may go while we look
                found += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return found


def _sealed(
    command: list[str], work: Path, visible: list[Path], user: int | None, limits: Limits
) -> list[str]:
    bwrap = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    bwrap += ["--proc", "/proc", "--dev", "/dev"]
    bwrap += ["--size", str(2**28), "--tmpfs", "/dev/shm"]
    bwrap += ["--size", str(2**30), "--tmpfs", "/tmp"]
    bwrap += ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib64", "bin", "sbin"):
        bwrap += ["--symlink", f"usr/{name}", f"/{name}"]
    for place in ("/etc/fonts", "/etc/ld.so.cache"):
        bwrap += ["--ro-bind-try", place, place]
    places = {folder.resolve(): folder.resolve() for folder in [*visible, work]}
    mounts = []
    # root can read what the other user cannot: bind it where that user may look
    if user is not None:
        places = {folder: Path("/mnt") / str(n) for n, folder in enumerate(places)}
        mounts = ["mount -t tmpfs none /mnt", *(f"mkdir {place}" for place in places.values())]
        mounts += [f"mount --bind '{folder}' {place}" for folder, place in places.items()]
    for folder, place in places.items():
        bwrap += ["--bind" if folder == work.resolve() else "--ro-bind", str(place), str(folder)]
    bwrap += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(work.resolve()), "--"]
    bounds = ["prlimit", f"--as={limits.memory}", f"--cpu={limits.cpu_seconds}", "--core=0"]
    bounds += [f"--nproc={limits.processes}", f"--fsize={limits.file_size}"]
    whole = [*bounds, *bwrap, *command]
    if user is None:
        return whole
    other = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    script = " && ".join([*mounts, 'exec "$@"'])
    apart = ["unshare", "--mount", "--propagation", "private"]
    return [*apart, "sh", "-c", script, "sh", *other, *whole]


@contextmanager
def _handed_over(work: Path) -> Iterator[int | None]:
    """The user to become, who owns ``work`` meanwhile; None where we are not root."""
    if os.geteuid() != 0:
        yield None
        return
    user = STRANGER + (os.getpid() + 7 * next(RUNS)) % 4000
    everything = [work, *work.rglob("*")]
    for path in everything:
        os.chown(path, user, user, follow_symlinks=False)
    try:
        yield user
    finally:
        for path in [work, *work.rglob("*")]:
            os.chown(path, 0, 0, follow_symlinks=False)


@contextmanager
def _output() -> Iterator[tuple[object, Path]]:
    with tempfile.TemporaryDirectory(prefix="output-") as folder:
        path = Path(folder) / "output"
        with path.open("wb") as file:
            yield file, path


def _tail(path: Path, size: int = 20_000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode("utf-8", "replace")


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def remove(folder: Path) -> None:
    """Delete a folder that strangers had, whatever they nested or locked in it."""
    # these tools walk with open folders: neither depth nor the length of a path ends them
    subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True)
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=True)
