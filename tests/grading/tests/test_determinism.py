"""Marks do not depend on machine load, parallel graders, interruptions or order.

A generated class is graded by 1, 2 and 4 graders in three orders, and graders are killed at random.
The files that they write must be identical. CLASS=100 sets the size of the class.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from suite import own_environment

from grading.execution.reference import expected, notebook_of
from grading.isolation.bounded_process import BoundedProcess, _once
from grading.kernels.wrong import WRONG
from grading.paths import ROOT
from grading.rubric import OUTPUTS, RUBRIC
from grading.tests.test_sandbox import needs_sandbox

pytestmark = [pytest.mark.slow, needs_sandbox]
SIZE, ROUNDS = int(os.environ.get("CLASS", "6")), int(os.environ.get("ROUNDS", "4"))
GRADE = [sys.executable, "-m", "grading"]
ORDERS = {
    1: lambda paths: paths,
    2: lambda paths: paths[::-1],
    4: lambda paths: random.Random(4).sample(paths, len(paths)),
}


def submissions(folder: Path, how_many: int) -> list[Path]:
    """Write zips with one task each, some with a wrong kernel, some corrupt."""
    wrong = {}
    for key, _, right, instead in WRONG:
        wrong.setdefault(key.partition("/")[0], []).append((right, instead))
    paths = []
    for n in range(how_many):
        task = list(RUBRIC)[n % len(RUBRIC)]
        entry = RUBRIC[task]
        source = (ROOT / "mflib" / f"{entry.module}.py").read_text(encoding="utf-8")
        if n % 3 == 1:
            source = source.replace(*wrong[task][n % len(wrong[task])])
        notebook = notebook_of(task)
        for cell in notebook.cells:
            cell.pop("outputs", None), cell.pop("execution_count", None)
        path = folder / f"student {n:03}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"mflib/{entry.module}.py", source)
            if n % 2:
                archive.writestr(f"notebooks/{entry.notebook}.ipynb", json.dumps(notebook))
        if n % 10 == 9:
            path.write_bytes(path.read_bytes()[:500])
        paths.append(path)
    return paths


def graded(paths: list[Path], target: Path, workers: int, deaths: int) -> None:
    """Grade with parallel graders, some of which are killed and restarted, then merge."""
    chance = random.Random(workers)
    command = [*GRADE, *map(str, paths), "--into", str(target), "--secret", "77", "--jobs", "1"]
    shards = [[*command, "--shard", f"{n + 1}/{workers}"] for n in range(workers)]
    running = {n: _started(shard) for n, shard in enumerate(shards)}
    while running:
        if deaths and chance.random() < 0.1:
            victim = chance.choice(sorted(running))
            running[victim].kill()
            deaths -= 1
        for n, process in list(running.items()):
            if process.poll() is not None:
                assert process.returncode in (0, -9), process.returncode
                del running[n]
                if process.returncode:
                    running[n] = _started(shards[n])
        time.sleep(1)
    subprocess.run(
        [*command, "--merge"], env=own_environment(), check=True, stdout=subprocess.DEVNULL
    )


def _started(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command, env=own_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def written(target: Path) -> dict[str, str]:
    """Return a hash of each file except the file with times."""
    files = [file for file in target.rglob("*") if file.is_file() and file.name != "seconds.csv"]
    return {
        file.relative_to(target).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_marks_do_not_depend_on_number_and_interruptions_of_graders(tmp_path):
    (tmp_path / "class").mkdir()
    paths = submissions(tmp_path / "class", SIZE)
    found = {}
    for workers, ordered in ORDERS.items():
        given = ordered(paths)
        target = tmp_path / str(workers)
        graded(given, target, workers, deaths=workers)
        found[workers] = written(target)
        names = {re.sub(r"\.json$", "", Path(name).name) for name in found[workers]}
        assert {path.stem for path in paths} <= names
    assert found[1] == found[2] == found[4]
    digest = hashlib.sha256(json.dumps(found[1], sort_keys=True).encode()).hexdigest()
    print(f"\n{SIZE} submissions by 1, 2 and 4 graders: {len(found[1])} files, SHA-256 {digest}")
    # nothing is graded again
    again = [*GRADE, *map(str, paths), "--into", str(tmp_path / "1"), "--secret", "77"]
    done = subprocess.run(again, env=own_environment(), capture_output=True, text=True, check=True)
    assert "There was nothing to grade." in done.stdout
    assert written(tmp_path / "1") == found[1]


@pytest.mark.skipif(not shutil.which("parallel"), reason="needs GNU parallel")
def test_parallel_drives_graders(tmp_path):
    """This is the command in tests/grading/README.md."""
    (tmp_path / "class").mkdir()
    paths = submissions(tmp_path / "class", 4)
    command = [*GRADE, str(tmp_path / "class"), "--secret", "77"]
    environment = own_environment()
    subprocess.run([*command, "--into", str(tmp_path / "one")], env=environment, check=True)
    command += ["--into", str(tmp_path / "shares")]
    shares = [*command, "--jobs", "1", "--shard", "{}/8", ":::", *map(str, range(1, 9))]
    subprocess.run(["parallel", "-j", "2", *shares], env=environment, check=True)
    subprocess.run([*command, "--merge"], env=environment, check=True)
    assert written(tmp_path / "shares") == written(tmp_path / "one")
    assert len(list((tmp_path / "shares" / "submissions").iterdir())) == len(paths)


def _digest() -> dict:
    """Return the hashes of the reference's outputs, without using the cache."""
    found = hashlib.sha256()
    for key in OUTPUTS:
        for place, came in sorted(expected.__wrapped__(key, (77, 78)).items()):
            found.update(place.encode() + came.after.tobytes())
    return {"digest": found.hexdigest()}


def test_the_reference_passes_in_parallel_runs():
    """Sixteen parallel threads must not change the arrays that they share."""
    torch.set_num_threads(1)
    right = _digest()
    for _ in range(ROUNDS):
        children = [BoundedProcess(_once, _digest, ()) for _ in range(16)]
        assert [child.message() for child in children] == [right] * 16
        assert [child.message() for child in children] == [None] * 16
        assert [child.ended for child in children] == [""] * 16
    assert _digest() == right
