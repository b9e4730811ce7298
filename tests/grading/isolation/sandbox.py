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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

from grading.isolation import cgroups, syscalls
from grading.isolation.bounded_process import MachineError
from grading.isolation.bubblewrap import Strength, World, as_user, bounds_of, filtered
from grading.isolation.monitor import Limits, Watch, ensure_room

TOOLS = ("bwrap", "prlimit", "setpriv", "unshare", "mount")
# The user id that root becomes, plus a number, so that two runs are not counted together.
STRANGER = 61_000
RUNS = count()
USUAL = Limits()
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
class Finished:
    """The exit code of a run, or None where it was ended, and why; the end of what it printed."""

    code: int | None
    output: str
    seconds: float  # of the processor
    ended: str = ""


@cache
def strength() -> Strength:
    """The strongest that works on this machine."""
    known = platform.machine() in syscalls.ARCHITECTURES
    group = cgroups.available()
    for there in (group, "") if group else ("",):
        for no_namespaces in (True, False):
            tried = Strength(no_namespaces, known, there)
            if _works(tried):
                return tried
    return Strength()


def _works(tried: Strength) -> bool:
    with tempfile.TemporaryDirectory() as folder, suppress(MachineError):
        return _run(["/usr/bin/true"], Path(folder), [], Limits(seconds=20), tried).code == 0
    return False


@cache
def protections() -> dict[str, bool]:
    """Which of the tools are here, and whether they work together on this machine."""
    found = {tool: shutil.which(tool) is not None for tool in TOOLS}
    if all(found.values()):
        found["a sandbox"] = _works(strength())
    if all(found.values()):  # else all students' functions would seem to fail
        probe = [sys.executable, "-c", "import torch, nbclient"]
        with tempfile.TemporaryDirectory() as folder:
            found["this Python in it"] = _with_python(probe, Path(folder), [], USUAL).code == 0
    return found


def ready(trust: bool) -> None:
    """Raise UnprotectedError where a protection is missing and ``trust`` is not given."""
    missing = [tool for tool, there in protections().items() if not there]
    if missing and not trust:
        raise UnprotectedError(
            f"expected bubblewrap and util-linux to run the code of strangers, missing: {missing}; "
            "install the package bubblewrap, see that all may read the environment of Python, or "
            "pass --trust if you know who wrote it"
        )


def run(
    command: list[str],
    work: Path,
    visible: list[Path],
    limits: Limits = USUAL,
    trust: bool = False,
    container: bool = False,
) -> Finished:
    """Run ``command`` in the folder ``work``, the only one that it may write to.

    It may read ``visible``, the interpreter and its packages. With ``trust`` only the watcher
    protects; in a ``container`` that is thrown away it, limits, and another user. Raises
    UnprotectedError where a protection is missing and neither is given, MachineError where the
    machine kept the command from running.
    """
    if container:
        return _run_in_container(command, work, limits)
    ready(trust)
    return _with_python(command, work, visible, limits, trust)


def _with_python(
    command: list[str], work: Path, visible: list[Path], limits: Limits, trust: bool = False
) -> Finished:
    own = Path(sys.prefix).resolve()
    prefixes = {own, Path(sys.base_prefix).resolve()}
    program = Path(command[0])
    if program.is_relative_to(sys.prefix):  # which may be a link, and is not one inside
        command = [str(own / program.relative_to(sys.prefix)), *command[1:]]
    return _run(command, work, [*prefixes, *visible], limits, None if trust else strength())


def _run(
    command: list[str], work: Path, visible: list[Path], limits: Limits, how: Strength | None
) -> Finished:
    group = cgroups.group(how.group if how else "", limits.memory, limits.processes + 50)
    try:
        with _output(work) as (file, path), _handed_over(work) as user, filtered(how) as rules:
            entered = path.with_name("entered")
            world = World(work, visible, user, limits, group, how, rules, entered)
            process = subprocess.Popen(
                command if how is None else world.entered(command),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(os.environ) if how is None else group.environment | ENVIRONMENT,
                cwd=work if how is None else "/",
                pass_fds=[] if rules is None else [rules.fileno()],
                start_new_session=True,
            )
            watch = Watch(process.pid, work, limits, group)
            finished = _finished(process, watch, path)
            if how is not None and not entered.exists():
                raise MachineError(f"the sandbox could not be entered: {finished.output[-300:]}")
            return finished
    finally:
        group.close()


def _finished(process: subprocess.Popen, watch: Watch, path: Path) -> Finished:
    try:
        while process.poll() is None and not watch.look():
            time.sleep(0.05)
    finally:  # the first process of the sandbox takes all others with it
        _end(process)
    ensure_room(watch.work)
    code = None if watch.ended else process.returncode
    return Finished(code, _tail(path), watch.cpu_seconds, watch.ended)


def _run_in_container(command: list[str], work: Path, limits: Limits) -> Finished:
    """Run as another user, who may neither read the grader nor write what it finds."""
    if os.geteuid() != 0:
        raise UnprotectedError("expected root in the container, to become another user for others")
    with _output(work) as (file, path), _handed_over(work) as user:
        bounds = [*as_user(user), *bounds_of(limits), f"--nproc={limits.processes}"]
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
def _output(work: Path) -> Iterator[tuple[object, Path]]:
    # beside the work: it goes with that folder if this process is ended
    with tempfile.TemporaryDirectory(prefix="output-", dir=work.parent) as folder:
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
