"""What of the kernel no homework needs: a filter of system calls, for bubblewrap's --seccomp.

A classic BPF program (linux/seccomp.h, linux/filter.h), for x86-64 and aarch64. Refused calls fail
with EPERM, as they do where a right is missing.
"""

import errno
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
# By name, the numbers on x86-64 and aarch64.
REFUSED = {
    # other views of the file system, other namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # large, and rarely needed, parts of the kernel
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "syslog": (103, 116),
    "acct": (163, 89),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
}
# Memory that belongs to no process: refused where no control group counts it.
HIDDEN = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
}
CLONE, CLONE3 = (56, 220), (435, 435)
NAMESPACES = 0x7E020000  # of clone's flags those that make any namespace
X32 = 0x40000000  # numbers of another set of calls on x86-64
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# Of struct seccomp_data: the number, the architecture, the first argument's lower half.
NUMBER, ARCHITECTURE, FLAGS = 0, 4, 16
LOAD, RETURN, EQUAL, AT_LEAST, ANY_OF = 0x20, 0x06, 0x15, 0x35, 0x45


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """An instruction; ``then``, ``otherwise``: how many of the next are left out."""
    return struct.pack("<HBBI", code, then, otherwise, value)


def program(machine: str, hidden_memory: bool) -> bytes:
    """The filter for a machine, as ``platform.machine()`` names it; KeyError for unknown ones.

    ``hidden_memory``: whether memory that belongs to no process is allowed.
    """
    place = list(ARCHITECTURES).index(machine) if machine in ARCHITECTURES else None
    if place is None:
        raise KeyError(f"expected one of {sorted(ARCHITECTURES)}, got {machine}")
    refuse = _step(RETURN, ERROR | errno.EPERM)
    steps = [
        _step(LOAD, ARCHITECTURE),
        _step(EQUAL, ARCHITECTURES[machine], then=1),
        _step(RETURN, KILL),
        _step(LOAD, NUMBER),
        # its flags are in memory, where a filter cannot look; the C library then takes clone
        _step(EQUAL, CLONE3[place], otherwise=1),
        _step(RETURN, ERROR | errno.ENOSYS),
    ]
    if machine == "x86_64":
        steps += [_step(AT_LEAST, X32, otherwise=1), refuse]
    for numbers in (REFUSED | ({} if hidden_memory else HIDDEN)).values():
        steps += [_step(EQUAL, numbers[place], otherwise=1), refuse]
    steps += [
        _step(EQUAL, CLONE[place], otherwise=3),
        _step(LOAD, FLAGS),
        _step(ANY_OF, NAMESPACES, otherwise=1),
        refuse,
        _step(RETURN, ALLOW),
    ]
    return b"".join(steps)
