"""Build the command line that runs a command in bubblewrap's sandbox.

Root switches to another user, who may lack access to the folders that the sandbox shows. Root
therefore first binds them to places that every user can read.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO

from grading.isolation import syscalls
from grading.isolation.cgroups import Group, Manager
from grading.isolation.monitor import Limits

WORK = "/submission"  # the work folder's fixed path inside the sandbox


@dataclass(frozen=True)
class Strength:
    """The optional protections that this machine offers."""

    no_namespaces: bool = False  # within the sandbox
    filter: bool = False  # of system calls
    groups: Manager = Manager.NOBODY  # control groups
    refused: tuple[str, ...] = ()  # the errors of stronger protections

    def __str__(self) -> str:
        total = f"control groups, {self.groups}" if self.groups else "the monitor"
        yes = {True: "yes", False: "NO"}
        missing = "" if self.filter or syscalls.is_available() else " (install libseccomp2)"
        errors = "; ".join(" ".join(error.split())[:200] for error in self.refused)
        return (
            f"no namespaces within {yes[self.no_namespaces]}, "
            f"calls filtered {yes[self.filter]}{missing}, "
            f"total memory and CPU limited by {total}"
        ) + (f" (more is refused here: {errors})" if errors else "")


@dataclass(frozen=True)
class Bubblewrap:
    """The sandbox of one run, as a command line."""

    work: Path  # the folder that may be written to
    visible: list[Path]
    user: int | None  # the user to which root switches; None for other accounts
    limits: Limits
    group: Group
    strength: Strength
    call_filter: IO | None  # a file with the filter of system calls
    entered: Path  # a file that is created once everything outside has succeeded

    def wrap(self, command: list[str]) -> list[str]:
        """Return a command that enters the group and the sandbox and runs ``command`` there."""
        limits, steps = self.limits, [*self.group.entering]
        private: list[str] = []  # a private mount namespace
        become: list[str] = []  # another user
        if self.user is not None:
            places = self._places()
            steps += ["mount -t tmpfs none /mnt", *(f"mkdir {place}" for place in places.values())]
            steps += [f"mount --bind {quote(str(f))} {place}" for f, place in places.items()]
            private = ["unshare", "--mount", "--propagation", "private"]
            become = as_user(self.user)
        steps.append(f": > {quote(str(self.entered))}")
        # inside, other processes of the account are not counted
        inside = ["prlimit", f"--nproc={limits.processes}", *command]
        whole = [*become, *bounds_of(limits), *self._options(), "--", *inside]
        begin = [*private, "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh"]
        return [*self.group.prefix, *begin, *whole]

    def _places(self) -> dict[Path, Path]:
        """Return the place from which to bind each folder."""
        folders = dict.fromkeys(folder.resolve() for folder in [*self.visible, self.work])
        if self.user is None:
            return {folder: folder for folder in folders}
        return {folder: Path("/mnt") / str(n) for n, folder in enumerate(folders)}

    def _options(self) -> list[str]:
        bwrap = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
        if self.strength.no_namespaces:
            bwrap += ["--unshare-user", "--disable-userns"]
        if self.call_filter is not None:
            bwrap += ["--seccomp", str(self.call_filter.fileno())]
        bwrap += ["--proc", "/proc", "--dev", "/dev"]
        bwrap += ["--size", str(2**28), "--tmpfs", "/dev/shm"]
        bwrap += ["--size", str(2**30), "--tmpfs", "/tmp"]
        bwrap += ["--ro-bind", "/usr", "/usr"]
        for name in ("lib", "lib64", "bin", "sbin"):
            bwrap += ["--symlink", f"usr/{name}", f"/{name}"]
        for file in ("/etc/fonts", "/etc/ld.so.cache"):
            bwrap += ["--ro-bind-try", file, file]
        for folder, place in self._places().items():
            if folder == self.work.resolve():
                bwrap += ["--bind", str(place), WORK]
            else:
                bwrap += ["--ro-bind", str(place), str(folder)]
        return [*bwrap, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORK]


def as_user(user: int) -> list[str]:
    other = ["setpriv", f"--reuid={user}", f"--regid={user}"]
    return [*other, "--clear-groups", "--no-new-privs"]


def bounds_of(limits: Limits) -> list[str]:
    """Return the command that limits each process."""
    bounds = ["prlimit", f"--as={limits.memory}", f"--cpu={limits.cpu_seconds}", "--core=0"]
    return [*bounds, f"--fsize={limits.file_size}"]


@contextmanager
def open_filter(strength: Strength | None) -> Iterator[IO | None]:
    """Yield an open file with the filter of system calls, or None."""
    if strength is None or not strength.filter:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        syscalls.write_filter(file, memory_is_counted=bool(strength.groups))
        file.seek(0)
        yield file
