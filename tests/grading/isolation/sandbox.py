"""Run untrusted code in a sandbox, within limits.

In bubblewrap, the code sees a read-only system, a private /tmp and the listed folders. It has no
network and sees no other processes. prlimit limits each process. A control group, or otherwise the
monitor, limits all processes together. Some limits do not apply to root, so root switches to
another user before it enters the sandbox.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO

from grading.isolation import cgroups, syscalls
from grading.isolation.bounded_process import MachineError
from grading.isolation.bubblewrap import Bubblewrap, Strength, as_user, bounds_of, open_filter
from grading.isolation.monitor import Limits, Monitor, ensure_room
from grading.outcomes import Failure, FailureKind

TOOLS = ("bwrap", "prlimit", "setpriv", "unshare", "mount")
# Runs of root use user ids from here on; parallel runs have different ones, with few exceptions,
# so that processes are counted per run.
FIRST_USER = 61_000
RUNS = count()
RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
DEFAULT_LIMITS = Limits()
# One thread each, because several runs share a machine; a fixed order of sets.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


class UnprotectedError(RuntimeError):
    """This machine cannot run untrusted code safely; the message names what is missing."""


@dataclass(frozen=True)
class Finished:
    """The result of a run."""

    code: int | None  # the exit code; None if it was stopped
    output: str  # the end of its output
    cpu_seconds: float
    waited: float = 0.0  # seconds in which no process could use a CPU
    stopped: Failure | None = None  # by the monitor

    @property
    def failure(self) -> Failure | None:
        """The failure of the run, if any."""
        if self.stopped or not self.code:
            return self.stopped
        end = self.output.strip()[-300:]
        return Failure(FailureKind.CRASHED, f"ended with exit code {self.code}: {end}")


@cache
def strength() -> Strength:
    """Return the strongest protections that work on this machine, and why not stronger ones."""
    filters = (True, False) if syscalls.is_available() else (False,)
    manager, error = cgroups.available()
    errors = [error]
    for groups in dict.fromkeys((manager, cgroups.Manager.NOBODY)):
        for filter_calls in filters:
            for no_namespaces in (True, False):
                tried = Strength(no_namespaces, filter_calls, groups)
                if (error := _refusal(tried)) is None:
                    return replace(tried, refused=tuple(dict.fromkeys(filter(None, errors))))
                errors.append(error)
    return Strength()  # ``missing_protections`` has the error


def _refusal(tried: Strength) -> str | None:
    """Return the error of a sandbox with these protections, or None if it works."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = _run(["/usr/bin/true"], Path(folder), [], Limits(seconds=20), tried)
        except (MachineError, OSError) as error:
            return str(error)
    return None if done.code == 0 else done.output.strip() or str(done.failure)


@cache
def missing_protections() -> dict[str, str]:
    """Return the missing protections of this machine; the values are errors or empty texts."""
    if missing := {tool: "" for tool in TOOLS if shutil.which(tool) is None}:
        return missing
    if (error := _refusal(strength())) is not None:
        return {"a sandbox": error}
    # without these packages, all students' functions would appear to fail
    probe = [sys.executable, "-c", "import torch, nbclient"]
    with tempfile.TemporaryDirectory() as folder:
        done = _with_python(probe, Path(folder), [], DEFAULT_LIMITS)
    return {} if done.code == 0 else {"this Python in it": done.output.strip()[-500:]}


def require_protection(trust: bool) -> None:
    """Raise UnprotectedError if a protection is missing and ``trust`` is False."""
    missing = missing_protections()
    if not missing or trust:
        return
    lines = []
    for name, error in missing.items():
        lines.append(f"expected {name} to run untrusted code, got {error or 'no such program'}")
    if "a sandbox" in missing:
        lines += cures(missing["a sandbox"])
    elif "this Python in it" in missing:
        lines.append(f"make {sys.prefix} and {sys.base_prefix} readable by all accounts")
    else:
        lines.append("install the packages bubblewrap and util-linux")
    lines.append("if you trust the authors of the code, --trust runs it without a sandbox")
    raise UnprotectedError("\n".join(lines))


def cures(error: str) -> list[str]:
    """Return advice for an administrator if bubblewrap cannot create user namespaces."""
    try:
        restricted = RESTRICTED.read_text(encoding="utf-8").strip() == "1"
    except OSError:  # this kernel has no such setting
        restricted = False
    if not (restricted or "uid map" in error or "Permission denied" in error):
        return ["allow programs to create user namespaces; in a container, change its options"]
    return [
        "Ubuntu 24.04 and newer allow user namespaces only to programs with an AppArmor profile:",
        "  write bubblewrap's profile from tests/grading/README.md to /etc/apparmor.d/bwrap",
        "  and run: sudo apparmor_parser -r /etc/apparmor.d/bwrap",
        "or allow them for all programs until the next restart:",
        "  sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ]


def run(
    command: list[str],
    work: Path,
    visible: list[Path],
    limits: Limits = DEFAULT_LIMITS,
    trust: bool = False,
    container: bool = False,
) -> Finished:
    """Run a command in the sandbox.

    Parameters
    ----------
    command : list of str
        The program and its arguments.
    work : Path
        The command's working folder, the only folder that it may write to.
    visible : list of Path
        Folders that it may read, in addition to the interpreter and its packages.
    limits : Limits
        The limits at which it is stopped.
    trust : bool
        Run it without a sandbox, only with the monitor.
    container : bool
        The machine is a disposable container: run the command as another user, with limits and
        the monitor.

    Raises
    ------
    UnprotectedError
        If a protection is missing, and neither ``trust`` nor ``container`` is set.
    MachineError
        If the command could not run because of the machine.
    """
    if container:
        return _run_in_container(command, work, limits)
    require_protection(trust)
    return _with_python(command, work, visible, limits, trust)


def _with_python(
    command: list[str], work: Path, visible: list[Path], limits: Limits, trust: bool = False
) -> Finished:
    own = Path(sys.prefix).resolve()
    prefixes = {own, Path(sys.base_prefix).resolve()}
    program = Path(command[0])
    if program.is_relative_to(sys.prefix):  # it may be a link outside, but not inside
        command = [str(own / program.relative_to(sys.prefix)), *command[1:]]
    return _run(command, work, [*prefixes, *visible], limits, None if trust else strength())


def _run(
    command: list[str], work: Path, visible: list[Path], limits: Limits, how: Strength | None
) -> Finished:
    group = cgroups.Group()
    if how is not None:  # bubblewrap and the commands before it also have processes
        group = cgroups.group(how.groups, limits.memory, limits.processes + 50)
    try:
        with (
            _output(work) as (file, path),
            _handed_over(work) as user,
            open_filter(how) as call_filter,
        ):
            entered = path.with_name("entered")
            folder, environment = work, dict(os.environ)
            if how is not None:
                wrapper = Bubblewrap(work, visible, user, limits, group, how, call_filter, entered)
                command = wrapper.wrap(command)
                folder, environment = Path("/"), group.environment | ENVIRONMENT
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=folder,
                pass_fds=[] if call_filter is None else [call_filter.fileno()],
                start_new_session=True,
            )
            monitor = Monitor(process.pid, work, limits, group)
            finished = _finished(process, monitor, path)
            if how is not None and not entered.exists():
                raise MachineError(f"the sandbox could not be entered: {finished.output[-300:]}")
            return finished
    finally:
        group.close()


def _finished(process: subprocess.Popen, monitor: Monitor, path: Path) -> Finished:
    try:
        while process.poll() is None and not monitor.check():
            time.sleep(0.05)
    finally:  # killing the sandbox's first process ends all others
        _end(process)
    ensure_room(monitor.work)
    code = None if monitor.failure else process.returncode
    return Finished(code, _tail(path), monitor.cpu_seconds, monitor.waited, monitor.failure)


def _run_in_container(command: list[str], work: Path, limits: Limits) -> Finished:
    """Run as another user, who can neither read the grader nor write its results."""
    if os.geteuid() != 0:
        raise UnprotectedError(
            "expected root in the container: only root can run students' code as another user"
        )
    with _output(work) as (file, path), _handed_over(work) as user:
        assert user is not None  # we are root
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
        monitor = Monitor(process.pid, work, limits, cgroups.Group())
        try:
            return _finished(process, monitor, path)
        finally:  # end its other processes: all processes of its user
            end = ["pkill", "--signal", "KILL", "--uid", str(user)]
            subprocess.run(end, capture_output=True)


@contextmanager
def _handed_over(work: Path) -> Iterator[int | None]:
    """Yield the user to which root switches, who temporarily owns ``work``; None if not root."""
    if os.geteuid() != 0:
        yield None
        return
    user = FIRST_USER + (os.getpid() + 7 * next(RUNS)) % 4000
    _own(work, user)
    try:
        yield user
    finally:
        _own(work, 0)


# Unlike Python's functions, chown, chmod and rm handle paths of any depth and length.


def _own(folder: Path, user: int) -> None:
    subprocess.run(["chown", "-R", "-h", "--", f"{user}:{user}", str(folder)], check=True)


def remove(folder: Path) -> None:
    """Delete a folder that untrusted code has written to, even if parts are locked or nested."""
    for check in (False, True):  # twice: processes that are ending may still write
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(folder)], check=check)
        if not folder.exists():
            return


@contextmanager
def _output(work: Path) -> Iterator[tuple[IO[bytes], Path]]:
    # next to the work folder, so both are removed together if this process is killed
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
