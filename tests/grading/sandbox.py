"""Run a command that strangers have written, under limits, seeing nothing but what it is given.

bubblewrap makes a world of its own: the system read-only, a private /tmp, no network, no other
processes, no further namespaces, and of the rest of the machine only the folders that are named.
prlimit bounds each process; a control group, or where there is none the watcher in watch.py, all of
them together. Root's processes are not counted by some limits, so root becomes another user before
it enters.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import cgroups
import seccomp
from watch import Watch

TOOLS = ("bwrap", "prlimit", "setpriv", "unshare", "mount")
# The user id that root becomes, plus a number, so that two runs are not counted together.
STRANGER = 61_000
RUNS = count()
PLACE = "/submission"  # the folder as it is called inside: the same wherever it was made
# One thread each: several runs share a machine. Sets have the same order everywhere.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


class UnprotectedError(RuntimeError):
    """This machine cannot run the code of strangers safely; the message says what is missing."""


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


@dataclass(frozen=True)
class Finished:
    """The exit code of a run, or None where it was ended, and why; the end of what it printed."""

    code: int | None
    output: str
    seconds: float  # of the processor
    ended: str = ""


@dataclass(frozen=True)
class Strength:
    """What this machine has beyond the tools without which nothing is run."""

    no_namespaces: bool = False  # within the sandbox
    filter: bool = False  # of system calls
    group: str = ""  # see cgroups.available

    def __str__(self) -> str:
        bounded = f"control groups, {self.group}" if self.group else "watched"
        yes = {True: "yes", False: "NO"}
        return (
            f"no namespaces within {yes[self.no_namespaces]}, calls filtered {yes[self.filter]}, "
            f"memory and processor of all processes: {bounded}"
        )


@cache
def strength() -> Strength:
    """The strongest that works on this machine."""
    known = platform.machine() in seccomp.ARCHITECTURES
    group = cgroups.available()
    for there in (group, "") if group else ("",):
        for no_namespaces in (True, False):
            tried = Strength(no_namespaces, known, there)
            if _works(tried):
                return tried
    return Strength()


def _works(tried: Strength) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        finished = _run(["/usr/bin/true"], Path(folder), [], Limits(seconds=20), tried)
    return finished.code == 0


@cache
def protections() -> dict[str, bool]:
    """Which of the tools are here, and whether they work together on this machine."""
    found = {tool: shutil.which(tool) is not None for tool in TOOLS}
    if all(found.values()):
        found["a sandbox"] = _works(strength())
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
    container: bool = False,
) -> Finished:
    """Run ``command`` in the folder ``work``, the only one that it may write to.

    It may read ``visible``, the interpreter and its packages. With ``trust`` only the watcher
    protects; in a ``container`` that is thrown away it, limits, and another user. Raises
    UnprotectedError where a protection is missing and neither is given.
    """
    if container:
        return _run_in_container(command, work, limits)
    ready(trust)
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return _run(command, work, [*prefixes, *visible], limits, None if trust else strength())


def _run(
    command: list[str], work: Path, visible: list[Path], limits: Limits, how: Strength | None
) -> Finished:
    group = cgroups.group(how.group if how else "", limits.memory, limits.processes + 50)
    try:
        with _output() as (file, path), _handed_over(work) as user, _filter(how) as rules:
            whole = command
            if how is not None:
                inside = ["prlimit", f"--nproc={limits.processes}", *command]
                bwrap = [*_bubblewrap(work, visible, user, how, rules), "--", *inside]
                whole = _entered(bwrap, work, visible, user, limits, group)
            process = subprocess.Popen(
                whole,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(os.environ) if how is None else group.environment | ENVIRONMENT,
                cwd=work if how is None else "/",
                pass_fds=[] if rules is None else [rules.fileno()],
                start_new_session=True,
            )
            watch = Watch(process.pid, work, limits, group)
            return _finished(process, watch, path)
    finally:
        group.close()


def _finished(process: subprocess.Popen, watch: Watch, path: Path) -> Finished:
    try:
        while process.poll() is None and not watch.look():
            time.sleep(0.05)
    finally:  # the first process of the sandbox takes all others with it
        _end(process)
    code = None if watch.ended else process.returncode
    return Finished(code, _tail(path), watch.cpu_seconds, watch.ended)


def _run_in_container(command: list[str], work: Path, limits: Limits) -> Finished:
    """Run as another user, who may neither read the grader nor write what it finds."""
    if os.geteuid() != 0:
        raise UnprotectedError("expected root in the container, to become another user for others")
    with _output() as (file, path), _handed_over(work) as user:
        bounds = [*_as_user(user), *_bounds(limits), f"--nproc={limits.processes}"]
        process = subprocess.Popen(
            [*bounds, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd=work,
            start_new_session=True,
        )
        watch = Watch(process.pid, work, limits, cgroups.group("", limits.memory, 0))
        try:
            return _finished(process, watch, path)
        finally:  # nobody takes the others with it: they are known by their user
            end = ["pkill", "--signal", "KILL", "--uid", str(user)]
            subprocess.run(end, capture_output=True)


def _places(work: Path, visible: list[Path], user: int | None) -> dict[Path, Path]:
    """Where each folder is bound from: root binds it where the other user may look."""
    folders = dict.fromkeys(folder.resolve() for folder in [*visible, work])
    if user is None:
        return {folder: folder for folder in folders}
    return {folder: Path("/mnt") / str(n) for n, folder in enumerate(folders)}


def _bubblewrap(
    work: Path, visible: list[Path], user: int | None, how: Strength, rules: object
) -> list[str]:
    bwrap = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    if how.no_namespaces:
        bwrap += ["--unshare-user", "--disable-userns"]
    if rules is not None:
        bwrap += ["--seccomp", str(rules.fileno())]
    bwrap += ["--proc", "/proc", "--dev", "/dev"]
    bwrap += ["--size", str(2**28), "--tmpfs", "/dev/shm"]
    bwrap += ["--size", str(2**30), "--tmpfs", "/tmp"]
    bwrap += ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib64", "bin", "sbin"):
        bwrap += ["--symlink", f"usr/{name}", f"/{name}"]
    for place in ("/etc/fonts", "/etc/ld.so.cache"):
        bwrap += ["--ro-bind-try", place, place]
    for folder, place in _places(work, visible, user).items():
        own = folder == work.resolve()
        bwrap += ["--bind" if own else "--ro-bind", str(place), PLACE if own else str(folder)]
    return [*bwrap, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", PLACE]


def _entered(
    bwrap: list[str],
    work: Path,
    visible: list[Path],
    user: int | None,
    limits: Limits,
    group: cgroups.Group,
) -> list[str]:
    """The command that enters the group, becomes the other user, sets limits, enters the world."""
    bounds = _bounds(limits)
    steps, apart, other = [*group.entering], [], []
    if user is not None:
        places = _places(work, visible, user)
        steps += ["mount -t tmpfs none /mnt", *(f"mkdir {place}" for place in places.values())]
        steps += [f"mount --bind '{folder}' {place}" for folder, place in places.items()]
        apart = ["unshare", "--mount", "--propagation", "private"]
        other = _as_user(user)
    whole = [*other, *bounds, *bwrap]
    if steps:
        whole = [*apart, "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *whole]
    return [*group.before, *whole]


def _bounds(limits: Limits) -> list[str]:
    bounds = ["prlimit", f"--as={limits.memory}", f"--cpu={limits.cpu_seconds}", "--core=0"]
    return [*bounds, f"--fsize={limits.file_size}"]


def _as_user(user: int) -> list[str]:
    other = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*other, "--no-new-privs"]


@contextmanager
def _filter(how: Strength | None) -> Iterator[object]:
    """An open file with the rules of system calls, or None."""
    if how is None or not how.filter:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(seccomp.program(platform.machine(), hidden_memory=bool(how.group)))
        file.seek(0)
        yield file


@contextmanager
def _handed_over(work: Path) -> Iterator[int | None]:
    """The user to become, who owns ``work`` meanwhile; None where we are not root."""
    if os.geteuid() != 0:
        yield None
        return
    user = STRANGER + (os.getpid() + 7 * next(RUNS)) % 4000
    _own(work, user)
    try:
        yield user
    finally:
        _own(work, 0)


# These tools walk with open folders: neither depth nor the length of a path ends them.


def _own(folder: Path, user: int) -> None:
    subprocess.run(["chown", "-R", "-h", "--", f"{user}:{user}", str(folder)], check=True)


def remove(folder: Path) -> None:
    """Delete a folder that strangers had, whatever they nested or locked in it."""
    subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True)
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=True)


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
