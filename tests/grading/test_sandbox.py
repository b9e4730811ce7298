"""Code that means harm, or has bad luck, comes to an end, sees nothing and leaves nothing."""

import sys
from pathlib import Path

import pytest
from sandbox import Limits, protections, run

MISSING = [tool for tool, there in protections().items() if not there]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"the sandbox needs bubblewrap and util-linux; missing: {MISSING}"
)
SOON = Limits(seconds=20, cpu_seconds=20, memory=2**30, processes=60, file_size=2**20)


@pytest.fixture
def execute(tmp_path):
    work = tmp_path / "work"
    work.mkdir()

    def execute(code, limits=SOON):
        return run([sys.executable, "-c", code], work, [], limits), work

    return execute


def test_honest_code_runs_and_writes_into_its_folder(execute):
    finished, work = execute("import json, numpy; open('a', 'w').write('1'); print('done')")
    assert (finished.code, finished.output) == (0, "done\n")
    assert (work / "a").read_text(encoding="utf-8") == "1"


def test_an_endless_loop_ends_by_the_clock(execute):
    finished, _ = execute("while True: pass", Limits(seconds=1.5))
    assert finished.code is None
    assert "by the clock" in finished.ended
    finished, _ = execute("while True: pass", Limits(seconds=30, cpu_seconds=1))
    assert finished.code not in (0, None)


def test_memory_is_bounded(execute):
    finished, _ = execute("x = bytearray(3 * 2**30)")
    assert finished.code == 1
    assert "MemoryError" in finished.output


def test_many_processes_share_one_bound_of_memory(execute):
    hogs = "import os, time\nfor n in range(4):\n    if os.fork() == 0: break\n"
    # orphans of orphans count, too
    hogs += "if os.fork() == 0: held = b'x' * 2**28; time.sleep(60)\ntime.sleep(60)"
    finished, _ = execute(hogs)
    assert finished.code is None
    assert "many processes" in finished.ended


def test_a_fork_bomb_is_bounded_and_nothing_is_left(execute):
    bomb = "import os, time\ntry:\n    while True:\n        if os.fork() == 0: time.sleep(60)\n"
    bomb += "except OSError as error: print(error)"
    finished, _ = execute(bomb)
    assert "temporarily unavailable" in finished.output
    assert finished.seconds < 15, "the children must not be waited for"


def test_gigabytes_of_output_are_cut(execute):
    finished, _ = execute("while True: print('x' * 10_000)")
    assert finished.code not in (0, None)
    assert len(finished.output) <= 20_000


def test_no_network(execute):
    finished, _ = execute("import socket; socket.create_connection(('1.1.1.1', 53), 3)")
    assert finished.code == 1
    assert "unreachable" in finished.output


def test_nothing_else_is_seen(execute, tmp_path):
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


def test_nothing_else_is_written(execute):
    for path in ("/usr/x", "/x", f"{sys.prefix}/x"):
        finished, _ = execute(f"open({path!r}, 'w')")
        assert finished.code == 1, path


def test_exit_codes_come_out(execute):
    assert execute("import os; os._exit(3)")[0].code == 3
    assert execute("raise SystemExit(0)")[0].code == 0
    assert execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")[0].code != 0


def test_the_private_tmp_is_bounded(execute):
    fill = "for n in range(3000): open(f'/tmp/{n}', 'wb').write(b'0' * 2**20)"
    finished, _ = execute(fill, Limits(seconds=30, file_size=2**30))
    assert finished.code == 1
    assert "No space left" in finished.output


def test_the_disk_is_not_filled(execute):
    fill = "for n in range(10_000): open(str(n), 'wb').write(bytes(2**20))"
    finished, _ = execute(fill, Limits(seconds=60, file_size=2**30, disk=2**27))
    assert (finished.code, finished.ended) == (None, "for filling the disk")
