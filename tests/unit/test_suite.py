"""The commands of tests/suite.py: creation of the environment, messages, steps of a command."""

import ast
import os
import platform
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import suite

SOURCE = Path(suite.__file__).read_text(encoding="utf-8")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Return a project in a folder with a non-ASCII name, and the commands that it records.

    Nothing is executed. A command that contains one of the words in ``fails`` returns 1.
    """
    root = tmp_path / "мой проект"
    root.mkdir()
    pins = "# direct\r\nnumpy==1.0\r\ntorch==2.13.0\r\n# For the tests:\r\npytest==9.0\r\n"
    (root / "requirements.txt").write_text(pins, encoding="utf-8", newline="")
    (root / "pyproject.toml").touch()
    found, fails = [], []

    def call(command, **_):
        found.append(" ".join(command))
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return int(any(word in found[-1] for word in fails))

    monkeypatch.setattr(suite, "ROOT", root)
    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setattr(suite, "call", lambda command, environment: call(command))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10e9))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(suite, "gpu_seen", lambda: False)
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    return namedtuple("Calls", "root found fails")(root, found, fails)


def disk(free):
    return namedtuple("Usage", "free")(free)


def make(calls, **how):
    suite.make_environment(calls.root / ".venv", calls.root / "requirements.txt", **how)


def test_suite_parses_in_old_pythons_and_uses_only_the_standard_library_and_ascii():
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names)
    assert SOURCE.isascii()


def test_environment_is_created_once_and_updated_after_changes(calls, capsys):
    make(calls)
    venv, torch, pins, path = calls.found
    assert "venv --clear" in venv
    assert torch.endswith("torch==2.13.0")
    assert f"--no-deps --index-url {suite.CPU_INDEX} " in torch
    assert pins.endswith("pip install --no-compile --no-deps numpy==1.0 torch==2.13.0")
    assert path.endswith(ascii(str(calls.root)))
    assert "1.6 GB" in capsys.readouterr().out, "the size is reported before the download"
    make(calls)
    assert len(calls.found) == 4, "a complete environment is kept"
    later = (calls.root / ".venv" / "ready").stat().st_mtime + 5
    os.utime(calls.root / "requirements.txt", (later, later))
    make(calls)
    assert not [command for command in calls.found[4:] if "venv --clear" in command]
    assert len(calls.found) == 7, "after a change of the pins, they are installed again"


def test_packages_of_the_tests_are_installed_when_they_are_needed(calls):
    make(calls, tests=True)
    assert len(calls.found) == 5
    assert calls.found[-1].endswith("--no-deps pytest==9.0")
    make(calls)
    make(calls, tests=True)
    assert len(calls.found) == 5
    stamp = calls.root / ".venv" / "ready-for-tests"
    stamp.unlink()
    calls.fails.append("pytest==9.0")
    with pytest.raises(SystemExit, match="error: the packages of the tests were not installed"):
        make(calls, tests=True)
    assert not stamp.exists()


def test_incomplete_pins_are_resolved_with_their_dependencies(calls):
    make(calls, complete=False)
    assert calls.found[2].endswith("pip install --no-compile numpy==1.0 torch==2.13.0")


def test_uv_is_used_if_available_and_pip_if_uv_fails(calls, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    make(calls)
    assert [command.startswith("/bin/uv pip install --python") for command in calls.found] == [
        *(False, True, True, False)
    ]
    assert "trying pip" not in capsys.readouterr().out
    shutil.rmtree(calls.root / ".venv")
    calls.found.clear()
    calls.fails.append("/bin/uv pip")
    make(calls)
    assert ["/bin/uv" in command for command in calls.found] == [0, 1, 0, 1, 0, 0]
    assert capsys.readouterr().out.count("trying pip") == 2


def test_mflib_is_importable_without_an_installation(tmp_path):
    """The line of the .pth file is ASCII, even if the folder's name is not."""
    root = tmp_path / "мой проект"
    (root / "mflib").mkdir(parents=True)
    (root / "mflib" / "__init__.py").touch()
    patched = suite.ADD_ROOT.replace('sysconfig.get_path("purelib")', repr(str(tmp_path)))
    subprocess.run([sys.executable, "-c", patched, ascii(str(root))], check=True)
    find = (
        f"import site; site.addsitedir({str(tmp_path)!r}); import sys; print(ascii(sys.path[-1]))"
    )
    command = [sys.executable, "-I", "-c", find]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert ast.literal_eval(done.stdout) == str(root)


def test_imports_are_compiled_once_before_grading(calls, monkeypatch):
    monkeypatch.setattr(suite, "make_environment", lambda *_, **__: None)
    monkeypatch.setattr(suite, "COMMANDS", {"grade": [], "run": []})
    (calls.root / ".venv").mkdir()
    (calls.root / ".venv" / "ready").touch()
    for command, count in (("run", 0), ("grade", 1), ("grade", 1)):
        assert suite.main([command]) == 0
        assert len([call for call in calls.found if "import ipykernel" in call]) == count


def test_incomplete_environment_is_created_again_unless_it_is_a_link(calls):
    (calls.root / ".venv").mkdir()
    make(calls)
    assert "venv --clear" in calls.found[0]
    shutil.rmtree(calls.root / ".venv")
    (calls.root / "shared").mkdir()
    (calls.root / ".venv").symlink_to(calls.root / "shared")
    with pytest.raises(SystemExit, match="is a link"):
        make(calls)
    stamp = calls.root / "shared" / "ready"
    stamp.touch()
    os.utime(stamp, (0, 0))  # older than the pins
    with pytest.raises(SystemExit, match="is a link"):
        make(calls)
    assert len(calls.found) == 4, "another folder's environment must not be changed"


@pytest.mark.parametrize(
    ("fails", "sentence"),
    [
        ("venv --clear", "python3-venv"),
        ("numpy", "HTTPS_PROXY=http://127.0.0.1:9"),
        ("purelib", "mflib"),
    ],
)
def test_failures_are_explained_and_the_next_run_starts_from_scratch(
    calls, monkeypatch, fails, sentence
):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    calls.fails.append(fails)
    with pytest.raises(SystemExit, match=f"error: .*{sentence}"):
        make(calls)
    calls.fails.clear()
    tried = len(calls.found)
    make(calls)
    assert "venv --clear" in calls.found[tried]


def test_torch_is_installed_without_cuda_if_there_is_no_gpu(calls, monkeypatch, capsys):
    calls.fails.append(suite.CPU_INDEX)
    make(calls)
    assert len(calls.found) == 4
    assert "did not answer" in capsys.readouterr().out
    assert "--no-deps" not in calls.found[2], "the build with CUDA requires packages without pins"
    for index in ("", "https://example.org/simple"):
        monkeypatch.setenv("TORCH_INDEX", index)
        assert suite.cpu_index() == index
    monkeypatch.delenv("TORCH_INDEX")
    monkeypatch.setattr(suite, "gpu_seen", lambda: True)
    assert suite.cpu_index() == ""
    monkeypatch.setattr(suite, "gpu_seen", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert suite.cpu_index() == "", "the plain wheels of other systems have no CUDA"


def test_a_full_disk_is_reported_before_anything_is_installed(calls, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(1e9))
    with pytest.raises(SystemExit, match=r"expected 1\.6 GB free for .*, got 1\.0 GB"):
        make(calls)
    assert not calls.found


@pytest.mark.parametrize(
    ("system", "machine", "version", "libc", "sentence"),
    [
        ("Linux", "x86_64", (3, 10), "glibc", "expected a Python from 3.11 to 3.14"),
        ("Linux", "aarch64", (3, 15), "glibc", "py -3.11"),
        ("Darwin", "x86_64", (3, 12), "", "Apple silicon"),
        ("Windows", "ARM64", (3, 12), "", "got Windows ARM64"),
        ("Linux", "x86_64", (3, 12), "", "glibc"),
        ("Linux", "x86_64", (3, 14), "glibc", ""),
        ("Darwin", "arm64", (3, 12), "", ""),
        ("Windows", "AMD64", (3, 11), "", ""),
    ],
)
def test_systems_without_wheels_are_reported(
    calls, monkeypatch, system, machine, version, libc, sentence
):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(suite.sys, "version_info", version)
    assert sentence in suite.trouble()
    assert bool(sentence) == bool(suite.trouble())
    if sentence:
        with pytest.raises(SystemExit, match="error: expected"):
            make(calls)
        assert not calls.found


def test_steps_ignore_environment_variables_of_python_and_pip(monkeypatch):
    for variable, text in {"PYTHONOPTIMIZE": "2", "PYTHONPATH": "/mine", "PIP_USER": "1"}.items():
        monkeypatch.setenv(variable, text)
    variables = suite.own_environment()
    assert "PYTHONOPTIMIZE" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep) == [
        *map(str, (suite.ROOT, suite.HERE, suite.HERE / "notebooks"))
    ]
    assert variables["PIP_USER"] == "0"
    assert variables["PYTHONUTF8"] == "1"


def test_a_relative_data_folder_is_relative_to_the_caller(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, expected in {"movies": "movies", "~/movies": "home/movies"}.items():
        monkeypatch.setenv("MFLIB_DATA", given)
        assert suite.own_environment()["MFLIB_DATA"] == str(tmp_path / expected)
    monkeypatch.setenv("MFLIB_DATA", "")
    assert not suite.own_environment()["MFLIB_DATA"], "empty means the default"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_step_is_asked_to_end_before_the_command_ends(tmp_path):
    """The step removes its file when it gets SIGTERM; the command ends after that."""
    file = tmp_path / "left"
    step = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.touch()\n"
        "try:\n"
        "    print('begun', flush=True)\n"  # in here, so that the signal cannot come before
        "    time.sleep(60)\n"
        "finally:\n"
        "    file.unlink()\n"
    )
    code = f"import os, sys, suite; sys.exit(suite.call({[sys.executable, '-c', step, str(file)]}"
    command = [sys.executable, "-c", f"{code}, dict(os.environ)))"]
    process = subprocess.Popen(command, env=suite.own_environment(), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.terminate()
    assert process.communicate()[0] == b""
    assert process.returncode == 3
    assert not file.exists()


def test_lab_keeps_the_settings_of_the_user_and_adds_our_kernel(calls, monkeypatch):
    environments = []
    monkeypatch.setattr(suite, "call", lambda *step: environments.append(step))
    monkeypatch.setattr(suite, "make_environment", lambda *_, **__: None)
    monkeypatch.setattr(suite, "is_root", lambda: True)
    monkeypatch.setenv("JUPYTER_PATH", "/mine")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("MFLIB_DATA", "movies")
    assert suite.main(["lab"]) == 0
    command, environment = environments[-1]
    assert command[-1] == "--allow-root"
    ours = calls.root / ".venv" / "share" / "jupyter"
    assert environment["JUPYTER_PATH"].split(os.pathsep) == [str(ours), "/mine"]
    assert environment["MPLBACKEND"] == "Agg"
    assert environment["MFLIB_DATA"] == os.path.abspath("movies"), "kernels run in another folder"
    monkeypatch.setattr(suite, "is_root", lambda: False)
    suite.main(["lab"])
    assert environments[-1][0][-1] == "notebooks"


def test_extra_arguments_go_to_the_last_step_and_a_failure_stops_all_steps(calls, monkeypatch):
    monkeypatch.setattr(suite, "make_environment", lambda *_, **__: None)
    monkeypatch.setattr(suite, "compile_imports", lambda _: None)
    assert suite.main(["grade", "a class", "--dataset", "ml-1m", "--soft", "2026-01-31"]) == 0
    assert calls.found[0].endswith("-m mflib.data ml-1m")
    assert calls.found[1].endswith("-m grading --dataset ml-1m a class --soft 2026-01-31")
    calls.fails.append("mypy")
    assert suite.main(["test"]) == 1
    assert "mypy" in calls.found[-1]


def test_verify_shows_what_differs_after_nbval_has_failed(calls, monkeypatch):
    monkeypatch.setattr(suite, "make_environment", lambda *_, **__: None)
    monkeypatch.setattr(suite, "compile_imports", lambda _: None)
    assert suite.main(["test"]) == 0
    assert "nbval" in calls.found[-1]
    calls.fails.append("nbval")
    assert suite.main(["test"]) == 1
    assert calls.found[-1].endswith("execute.py verify ml-100k --combined")


def test_help_is_printed_on_any_console():
    command = [sys.executable, suite.__file__, "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1251:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"run" in done.stdout
