"""The filter of system calls for bubblewrap's --seccomp, compiled by libseccomp.

The library knows the numbers of the calls on every architecture. This module calls it through
ctypes, because it needs only six functions and pyseccomp can be installed on Linux only. Refused
calls fail with EPERM, as if a permission were missing. Calls with another architecture's numbers
end the process.
"""

import ctypes
import errno
from functools import cache
from typing import IO

LIBRARY = "libseccomp.so.2"  # Debian's package libseccomp2
# System calls that no homework needs.
REFUSED = (
    # other views of the file system, other namespaces
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "name_to_handle_at"),
    *("open_by_handle_at", "quotactl", "swapon", "swapoff"),
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    # large and rarely needed parts of the kernel
    *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "fanotify_init", "syslog", "acct"),
    *("reboot", "kexec_load", "init_module", "finit_module", "delete_module"),
)
# Calls that allocate memory outside all processes: refused if no control group counts it.
UNCOUNTED_MEMORY = ("memfd_create", "memfd_secret", "shmget", "msgget")
# The flags of clone that create a namespace: of mounts, control groups, host name, IPC, users,
# processes, network.
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
# From seccomp.h.
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
BAD_ARCHITECTURE, MASKED_EQUAL, UNKNOWN = 2, 7, -1


class Comparison(ctypes.Structure):
    """A condition on an argument: (argument & mask) == value."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


@cache
def library() -> ctypes.CDLL | None:
    """Return libseccomp, or None if it is not installed."""
    try:
        loaded = ctypes.CDLL(LIBRARY)
        loaded.seccomp_init.restype = ctypes.c_void_p
        return loaded
    except OSError:
        return None


def is_available() -> bool:
    return library() is not None


def write_filter(file: IO[bytes], memory_is_counted: bool) -> None:
    """Write the filter as a BPF program for this machine.

    Parameters
    ----------
    file : file object
        An open file.
    memory_is_counted : bool
        Whether memory that belongs to no process is allowed.

    Raises
    ------
    OSError
        If libseccomp is missing, fails, or does not know a call.
    """
    seccomp = library()
    if seccomp is None:
        raise OSError(f"expected {LIBRARY} to filter system calls; install libseccomp2")
    context = ctypes.c_void_p(seccomp.seccomp_init(ALLOW))
    try:
        _check(seccomp.seccomp_attr_set(context, BAD_ARCHITECTURE, KILL_PROCESS))
        for name in REFUSED + (() if memory_is_counted else UNCOUNTED_MEMORY):
            _refuse(seccomp, context, name, errno.EPERM)
        # its flags are in memory, which a filter cannot read; the C library falls back to clone
        _refuse(seccomp, context, "clone3", errno.ENOSYS)
        for flag in NAMESPACES:
            _refuse(seccomp, context, "clone", errno.EPERM, Comparison(0, MASKED_EQUAL, flag, flag))
        _check(seccomp.seccomp_export_bpf(context, file.fileno()))
    finally:
        seccomp.seccomp_release(context)


def _refuse(
    seccomp: ctypes.CDLL, context: ctypes.c_void_p, name: str, code: int, *when: Comparison
) -> None:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    if number == UNKNOWN:
        raise OSError(f"expected {LIBRARY} to know {name}; install version 2.5.3 or newer")
    conditions = (Comparison * len(when))(*when)
    _check(seccomp.seccomp_rule_add_array(context, ERRNO | code, number, len(when), conditions))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, f"{LIBRARY} failed")
