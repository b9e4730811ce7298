"""The command that runs another in a world of its own: what bubblewrap shows of the machine.

Root binds what the other user may see where that user may look, and becomes that user.
"""

import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO

from grading.isolation import syscalls
from grading.isolation.cgroups import Group
from grading.isolation.monitor import Limits

PLACE = "/submission"  # the folder as it is called inside: the same wherever it was made


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


@dataclass(frozen=True)
class World:
    """Of one run."""

    work: Path  # the folder that may be written to
    visible: list[Path]
    user: int | None  # to become, where we are root
    limits: Limits
    group: Group
    how: Strength
    rules: IO | None  # of system calls
    mark: Path  # a file that is there once what could fail outside has not

    def entered(self, command: list[str]) -> list[str]:
        """The command that enters the group, becomes the user, sets limits, enters the world."""
        limits, steps, apart, other = self.limits, [*self.group.entering], [], []
        if self.user is not None:
            places = self._places()
            steps += ["mount -t tmpfs none /mnt", *(f"mkdir {place}" for place in places.values())]
            steps += [f"mount --bind {quote(str(f))} {place}" for f, place in places.items()]
            apart = ["unshare", "--mount", "--propagation", "private"]
            other = as_user(self.user)
        steps.append(f": > {quote(str(self.mark))}")
        # inside, where the account's other processes do not count
        inside = ["prlimit", f"--nproc={limits.processes}", *command]
        whole = [*other, *bounds_of(limits), *self._bubblewrap(), "--", *inside]
        begin = [*apart, "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh"]
        return [*self.group.before, *begin, *whole]

    def _places(self) -> dict[Path, Path]:
        """Where each folder is bound from."""
        folders = dict.fromkeys(folder.resolve() for folder in [*self.visible, self.work])
        if self.user is None:
            return {folder: folder for folder in folders}
        return {folder: Path("/mnt") / str(n) for n, folder in enumerate(folders)}

    def _bubblewrap(self) -> list[str]:
        bwrap = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
        if self.how.no_namespaces:
            bwrap += ["--unshare-user", "--disable-userns"]
        if self.rules is not None:
            bwrap += ["--seccomp", str(self.rules.fileno())]
        bwrap += ["--proc", "/proc", "--dev", "/dev"]
        bwrap += ["--size", str(2**28), "--tmpfs", "/dev/shm"]
        bwrap += ["--size", str(2**30), "--tmpfs", "/tmp"]
        bwrap += ["--ro-bind", "/usr", "/usr"]
        for name in ("lib", "lib64", "bin", "sbin"):
            bwrap += ["--symlink", f"usr/{name}", f"/{name}"]
        for file in ("/etc/fonts", "/etc/ld.so.cache"):
            bwrap += ["--ro-bind-try", file, file]
        for folder, place in self._places().items():
            own = folder == self.work.resolve()
            bwrap += ["--bind" if own else "--ro-bind", str(place), PLACE if own else str(folder)]
        return [*bwrap, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", PLACE]


def as_user(user: int) -> list[str]:
    other = ["setpriv", f"--reuid={user}", f"--regid={user}"]
    return [*other, "--clear-groups", "--no-new-privs"]


def bounds_of(limits: Limits) -> list[str]:
    """Of each process."""
    bounds = ["prlimit", f"--as={limits.memory}", f"--cpu={limits.cpu_seconds}", "--core=0"]
    return [*bounds, f"--fsize={limits.file_size}"]


@contextmanager
def filtered(how: Strength | None) -> Iterator[IO | None]:
    """An open file with the rules of system calls, or None."""
    if how is None or not how.filter:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(syscalls.program(platform.machine(), hidden_memory=bool(how.group)))
        file.seek(0)
        yield file
