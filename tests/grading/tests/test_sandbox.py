"""The sandbox: limits, isolation, and messages if it does not work."""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from grading.isolation import cgroups, monitor, sandbox, syscalls
from grading.isolation.bounded_process import MachineError
from grading.isolation.bubblewrap import Strength
from grading.isolation.cgroups import Manager
from grading.isolation.sandbox import Limits, remove, run
from grading.outcomes import FailureKind

MISSING = sandbox.missing_protections()
# In continuous integration, where CI is set, these tests fail if they cannot be run.
needs_sandbox = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("CI"), reason=f"the sandbox does not work: {MISSING}"
)
pytestmark = needs_sandbox
SOON = Limits(seconds=60, cpu_seconds=20, memory=2**30, processes=60, file_size=2**20)


@pytest.fixture
def execute(tmp_path):
    work = tmp_path / "work"
    work.mkdir()

    def execute(code, limits=SOON):
        return run([sys.executable, "-c", code], work, [], limits), work

    yield execute
    remove(work)  # pytest cannot, see below


def test_sandbox_runs_code_that_writes_into_its_folder(execute):
    finished, work = execute("import json, numpy; open('a', 'w').write('1'); print('done')")
    assert (finished.code, finished.output) == (0, "done\n")
    assert (work / "a").read_text(encoding="utf-8") == "1"


@pytest.fixture
def refused(monkeypatch):
    """Return a function that makes bubblewrap fail with an error on this machine."""

    def refuse(error):
        fail = f"echo {error!r} >&2; exit 1"
        monkeypatch.setattr(
            sandbox.Bubblewrap,
            "wrap",
            lambda self, command: ["sh", "-c", f": > {self.entered}; {fail}"],
        )

    cached = (sandbox.strength, sandbox.missing_protections)
    for function in cached:
        function.cache_clear()
    yield refuse
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize(
    ("error", "setting", "named"),
    [
        ("bwrap: setting up uid map: Permission denied", None, True),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "1", True),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "0", False),
        ("bwrap: Creating new namespace failed: Operation not permitted", None, False),
    ],
)
def test_require_protection_shows_the_error_of_bubblewrap_and_the_cure(
    refused, tmp_path, monkeypatch, error, setting, named
):
    if setting is not None:
        (tmp_path / "setting").write_text(f"{setting}\n", encoding="utf-8")
    monkeypatch.setattr(sandbox, "RESTRICTED", tmp_path / "setting")
    refused(error)
    with pytest.raises(sandbox.UnprotectedError) as caught:
        sandbox.require_protection(trust=False)
    first, *others, last = str(caught.value).splitlines()
    assert first == f"expected a sandbox to run untrusted code, got {error}"
    assert "--trust" in last
    assert "--trust" not in " ".join(others), "the cures come first"
    cures = " ".join(others)
    assert ("kernel.apparmor_restrict_unprivileged_userns=0" in cures) == named
    assert ("/etc/apparmor.d/bwrap" in cures) == named
    sandbox.require_protection(trust=True)


def test_require_protection_names_missing_programs(refused, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda tool: None)
    with pytest.raises(sandbox.UnprotectedError) as caught:
        sandbox.require_protection(trust=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == "expected bwrap to run untrusted code, got no such program"
    assert lines[-2] == "install the packages bubblewrap and util-linux"


def test_require_protection_names_an_unreadable_environment(refused, monkeypatch):
    monkeypatch.setattr(sandbox, "_refusal", lambda tried: None)
    failed = sandbox.Finished(1, "ModuleNotFoundError: No module named 'torch'\n", 0.1)
    monkeypatch.setattr(sandbox, "_with_python", lambda *_: failed)
    with pytest.raises(sandbox.UnprotectedError) as caught:
        sandbox.require_protection(trust=False)
    first, second, _ = str(caught.value).splitlines()
    assert first.endswith("got ModuleNotFoundError: No module named 'torch'")
    assert sys.prefix in second


def test_strength_names_the_errors_of_stronger_protections(refused, monkeypatch):
    monkeypatch.setattr(cgroups, "available", lambda: (Manager.NOBODY, "control groups: read-only"))
    old = "bwrap: Unknown option\n  --disable-userns"
    monkeypatch.setattr(sandbox, "_refusal", lambda tried: old if tried.no_namespaces else None)
    shown = str(sandbox.strength())
    assert shown.startswith("no namespaces within NO, ")
    errors = "control groups: read-only; bwrap: Unknown option --disable-userns"
    assert shown.endswith(f"by the monitor (more is refused here: {errors})")
    monkeypatch.setattr(cgroups, "available", lambda: (Manager.NOBODY, None))
    monkeypatch.setattr(sandbox, "_refusal", lambda tried: None)
    sandbox.strength.cache_clear()
    assert "refused" not in str(sandbox.strength())


def test_sandbox_limits_cpu_time_of_all_processes(execute):
    finished, _ = execute("while True: pass", Limits(cpu_seconds=1))
    assert finished.code != 0
    # by all its processes together
    forks = "import os\nfor n in range(6): os.fork()\nwhile True: pass"
    finished, _ = execute(forks, Limits(cpu_seconds=2))
    assert finished.stopped.kind is FailureKind.CPU_TIME


def test_monitor_stops_waiting_runs(execute):
    sleeping = "import time; time.sleep(600)"
    for limits, kind in {
        Limits(seconds=1.5): FailureKind.WALL_TIME,
        Limits(idle=1.0): FailureKind.WAITED,
        Limits(waiting=1.0): FailureKind.WAITED,
    }.items():
        finished, _ = execute(sleeping, limits)
        assert finished.stopped.kind is kind
        assert finished.waited > 0.4


def test_monitor_does_not_treat_runnable_processes_as_waiting(execute, monkeypatch):
    monkeypatch.setattr(monitor, "_is_runnable", lambda process: True)
    limits = Limits(idle=0.5, waiting=0.5, seconds=3)
    finished, _ = execute("import time; time.sleep(600)", limits)
    assert finished.stopped.kind is FailureKind.WALL_TIME
    assert "took more than 3 s" in str(finished.stopped)
    assert finished.waited == 0


def test_monitor_concludes_nothing_from_few_samples(tmp_path, monkeypatch):
    """There is one sample in a minute, during which the process sleeps."""
    monkeypatch.setattr(monitor, "_is_runnable", lambda process: False)
    watch = monitor.Monitor(os.getpid(), tmp_path, Limits(), cgroups.Group())
    assert not watch._waits(watch.start + 61, watch._processes()[:1])
    assert watch.waited <= 2 * monitor.INTERVAL


def test_monitor_stops_waiting_after_a_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "_is_runnable", lambda process: False)
    watch = monitor.Monitor(os.getpid(), tmp_path, Limits(), cgroups.Group())
    waits = []
    for n in range(1, 125):
        waits.append(watch._waits(watch.start + n * monitor.INTERVAL, watch._processes()[:1]))
        watch.sampled = watch.start + n * monitor.INTERVAL
    assert waits.index(True) == 119
    assert watch.waited == 62


def test_sandbox_limits_memory_of_a_process(execute):
    finished, _ = execute("x = bytearray(3 * 2**30)")
    assert finished.code == 1
    assert "MemoryError" in finished.output


def test_sandbox_limits_memory_of_all_processes(execute):
    hogs = "import os, time\nfor n in range(4):\n    if os.fork() == 0: break\n"
    # orphans of orphans are counted, too
    hogs += "if os.fork() == 0: held = b'x' * 2**28; time.sleep(60)\ntime.sleep(60)"
    finished, _ = execute(hogs)
    assert (finished.code, str(finished.stopped)) == (None, "stopped: it filled the memory")


def test_sandbox_limits_the_number_of_processes(execute):
    bomb = "import os, time\ntry:\n    while True:\n        if os.fork() == 0: time.sleep(60)\n"
    bomb += "except OSError as error: print(error)"
    finished, _ = execute(bomb)
    assert "temporarily unavailable" in finished.output


def test_sandbox_cuts_output(execute):
    finished, _ = execute("while True: print('x' * 10_000)")
    assert finished.code not in (0, None)
    assert len(finished.output) <= 20_000


def test_sandbox_has_no_network(execute):
    finished, _ = execute("import socket; socket.create_connection(('1.1.1.1', 53), 3)")
    assert finished.code == 1
    assert "unreachable" in finished.output


def test_sandbox_hides_other_files(execute, tmp_path):
    (tmp_path / "secret").write_text("the answer", encoding="utf-8")
    for path in (
        tmp_path / "secret",
        __file__,
        "/etc/passwd",
        Path("/proc/1/root") / "etc" / "passwd",
    ):
        finished, _ = execute(f"print(open({str(path)!r}).read())")
        assert finished.code == 1, path
        assert "No such file" in finished.output or "denied" in finished.output


def test_sandbox_denies_writing_elsewhere(execute):
    for path in ("/usr/x", "/x", f"{sys.prefix}/x"):
        finished, _ = execute(f"open({path!r}, 'w')")
        assert finished.code == 1, path


def test_sandbox_reports_exit_codes(execute):
    assert execute("import os; os._exit(3)")[0].code == 3
    assert execute("raise SystemExit(0)")[0].code == 0
    assert execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")[0].code != 0


def test_sandbox_limits_its_private_tmp(execute):
    fill = "for n in range(3000): open(f'/tmp/{n}', 'wb').write(b'0' * 2**20)"
    finished, _ = execute(fill, Limits(seconds=30, file_size=2**30))
    assert finished.code == 1
    assert "No space left" in finished.output


def test_monitor_limits_bytes_on_disk(execute):
    fill = "for n in range(10_000): open(str(n), 'wb').write(bytes(2**20))"
    finished, _ = execute(fill, Limits(seconds=60, file_size=2**30, disk=2**27))
    assert (finished.code, str(finished.stopped)) == (None, "stopped: it filled the disk")


def test_a_full_disk_is_a_machine_error(execute, monkeypatch):
    monkeypatch.setattr(monitor, "ROOM", 2**62)
    with pytest.raises(MachineError, match="free on the disk of"):
        execute("raise OSError('no space left')")


def test_a_sandbox_that_was_not_entered_is_a_machine_error(execute, monkeypatch, tmp_path):
    """Another grader has removed its group; untrusted code cannot forge this error."""
    gone = cgroups.Group(tmp_path / "gone")
    monkeypatch.setattr(cgroups, "group", lambda *_: gone)
    with pytest.raises(MachineError, match=r"could not be entered: .*cgroup\.procs"):
        execute("print(1)")


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """Return a folder that looks like the root of version 2, on a machine without systemd."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids", encoding="utf-8")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "SYSTEMD", tmp_path / "none")
    cgroups.available.cache_clear()
    yield tmp_path
    cgroups.available.cache_clear()


def test_control_groups_are_made_directly_without_systemd(control_groups, monkeypatch):
    monkeypatch.setattr(cgroups.Group, "close", lambda _: None)  # these files cannot be removed
    assert cgroups.available() == (Manager.DIRECT, None)
    root = control_groups / "cgroup.subtree_control"
    assert root.read_text(encoding="utf-8") == "+memory +pids +cpu"
    group = cgroups.group(Manager.DIRECT, 2**28, 50)
    files = ("memory.max", "pids.max", "cpu.max", "memory.swap.max")
    limits = [(group.folder / name).read_text(encoding="utf-8") for name in files]
    assert limits == [str(2**28), "50", "100000 100000", "0"]
    assert (group.cpu_seconds(), group.ran_out(), group.counts_memory) == (None, False, True)
    (group.folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1", encoding="utf-8")
    (group.folder / "memory.events").write_text("max 3\noom_kill 1", encoding="utf-8")
    assert (group.cpu_seconds(), group.ran_out()) == (2.5, True)


def test_groups_of_other_graders_are_kept(control_groups, monkeypatch):
    folder = control_groups / f"{cgroups.NAME}-1-1"
    folder.mkdir()
    cgroups._remove_abandoned()
    assert folder.is_dir()
    monkeypatch.setattr(cgroups, "OLD", -60)
    cgroups._remove_abandoned()
    assert not folder.is_dir()


def test_the_root_group_is_not_used_if_systemd_runs(control_groups, monkeypatch):
    monkeypatch.setattr(cgroups, "SYSTEMD", control_groups)
    monkeypatch.setenv("PATH", "")
    manager, error = cgroups.available()
    assert manager is Manager.NOBODY
    assert error.endswith("No such file or directory: 'systemd-run'")
    assert not (control_groups / "cgroup.subtree_control").exists()
    command = cgroups.group(Manager.SYSTEMD, 2**28, 50).prefix
    assert command[0] == "systemd-run"
    assert ("--user" in command) == (os.geteuid() != 0)
    assert f"--property=MemoryMax={2**28}" in command


def test_version_1_is_not_used(control_groups):
    (control_groups / "cgroup.controllers").unlink()
    assert cgroups.available()[0] is Manager.NOBODY


def test_monitor_limits_the_number_of_files(execute):
    finished, _ = execute("for n in range(10**9): open(str(n), 'w')")
    assert str(finished.stopped) == "stopped: it left more than 20000 files"


def test_deeply_nested_folders_are_counted_and_removed(execute):
    nested = "import os\nfor n in range(3000): os.mkdir('x'); os.chdir('x')\nwhile True: pass"
    finished, work = execute(nested)
    assert str(finished.stopped) == "stopped: it nested folders too deeply"
    remove(work)
    assert not work.exists()


def test_locked_folders_are_counted_and_removed(execute):
    locked = "import os; os.mkdir('x'); open('x/y', 'wb').write(bytes(2**20)); os.chmod('x', 0)\n"
    finished, work = execute(locked + "while True: pass", Limits(disk=2**19, cpu_seconds=20))
    assert str(finished.stopped) == "stopped: it filled the disk"
    remove(work)
    assert not work.exists()


CALL = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
MEMFD = CALL + (
    "held = [os.memfd_create(str(n)) for n in range(45)]\n"
    "for file in held:\n    for _ in range(190): os.write(file, bytes(2**20))\n"
)


@pytest.fixture
def no_groups(monkeypatch):
    weaker = replace(sandbox.strength(), groups=Manager.NOBODY)
    monkeypatch.setattr(sandbox, "strength", lambda: weaker)


@pytest.mark.skipif(not sandbox.strength().groups, reason="no control groups on this machine")
def test_control_groups_count_memory_outside_processes(execute):
    finished, _ = execute(MEMFD, replace(SOON, file_size=2**30))
    assert finished.failure.kind in (FailureKind.SPACE, FailureKind.CRASHED)


@pytest.mark.skipif(not sandbox.strength().filter, reason="no filter of calls on this machine")
def test_memory_outside_processes_is_refused_without_control_groups(execute, no_groups):
    finished, _ = execute(MEMFD, replace(SOON, file_size=2**30))
    assert "Operation not permitted" in finished.output


def test_monitor_adds_up_memory_without_control_groups(execute, no_groups):
    hogs = "import os, time\nfor n in range(5):\n    if os.fork() == 0: break\n"
    hogs += "held = b'x' * 2**28; time.sleep(600)"
    assert execute(hogs)[0].stopped.kind is FailureKind.SPACE
    # shared memory is counted once
    shared = "import os, time\nheld = b'x' * 2**28\nfor n in range(8):\n"
    shared += "    if os.fork() == 0: break\ntime.sleep(600)"
    assert execute(shared, replace(SOON, idle=2))[0].stopped.kind is FailureKind.WAITED
    # in files, too
    files = "for n in range(7): open(f'/tmp/{n}', 'wb').write(bytes(2**27))\n"
    files += "held = b'x' * 2**28\nwhile True: pass"
    limits = replace(SOON, memory=2**30, file_size=2**28)
    assert execute(files, limits)[0].stopped.kind is FailureKind.SPACE


@pytest.mark.skipif(not sandbox.strength().filter, reason="no filter of calls on this machine")
def test_filter_refuses_calls_and_namespaces(execute):
    resolve = syscalls.library().seccomp_syscall_resolve_name
    numbers = {name: resolve(name.encode()) for name in (*syscalls.REFUSED, "clone", "clone3")}
    clone, clone3 = numbers.pop("clone"), numbers.pop("clone3")
    assert min(numbers.values()) >= 0, "all exist on this architecture"
    tries = f"for name, n in {numbers}.items():\n"
    tries += "    print(name, libc.syscall(n, 0, 0, 0, 0, 0), ctypes.get_errno())\n"
    finished, _ = execute(CALL + tries)
    assert finished.code == 0
    results = [line.split() for line in finished.output.splitlines()]
    assert [name for name, *result in results if result != ["-1", "1"]] == []
    assert len(results) == len(numbers)
    # a fork is allowed, a namespace is not; clone3 fails as if the kernel did not have it
    finished, _ = execute(
        CALL + "print(libc.unshare(0x10000000), flush=True); print(os.fork() >= 0)"
    )
    assert finished.output.split() == ["-1", "True", "True"]
    for flag in syscalls.NAMESPACES:
        assert execute(f"{CALL}print(libc.syscall({clone}, {flag} | 17, 0, 0, 0, 0))")[
            0
        ].output == ("-1\n")
    clones = f"print(libc.syscall({clone3}, 0, 0), ctypes.get_errno())"
    assert execute(CALL + clones)[0].output == "-1 38\n"


def test_filter_names_a_missing_library(monkeypatch):
    monkeypatch.setattr(syscalls, "library", lambda: None)
    with pytest.raises(OSError, match="install libseccomp2"):
        syscalls.write_filter(None, memory_is_counted=True)
    assert "calls filtered NO (install libseccomp2)" in str(Strength())


def test_filter_names_an_unknown_call(monkeypatch):
    if not syscalls.is_available():
        pytest.skip("no libseccomp on this machine")
    monkeypatch.setattr(syscalls, "REFUSED", ("no_such_call",))
    with tempfile.TemporaryFile() as file, pytest.raises(OSError, match="to know no_such_call"):
        syscalls.write_filter(file, memory_is_counted=True)
