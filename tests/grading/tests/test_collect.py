"""Collecting submissions: every packing, every layout of a class, any file names."""

import io
import os
import tarfile
import zipfile
from datetime import UTC, datetime

import pytest

from grading.intake.collect import File, Package, packages, read_package
from grading.intake.layouts import Platform
from grading.intake.names import expected_file, plain, safe_name
from grading.intake.submission import choose_files
from grading.rubric import RUBRIC

NAMES = [f"notebooks/{entry.notebook}.ipynb" for entry in RUBRIC.values()]
NAMES += [f"mflib/{entry.module}.py" for entry in RUBRIC.values()]


def zipped(files, path=None):
    target = io.BytesIO() if path is None else path
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path or target.getvalue()


def written(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


EIGHT = dict.fromkeys(NAMES, "1")


def chosen(path):
    """Return the eight chosen files by expected name, and the notes."""
    package = read_package(path)
    notes = list(package.notes)
    found = choose_files(package.files, notes)
    return {which: package.files[name].read() for which, name in found.items()}, notes


def tarred(files, path):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return path


PACKINGS = {
    "zip": lambda f: zipped(EIGHT, f / "a.zip"),
    "tar.gz": lambda f: tarred(EIGHT, f / "a.tar.gz"),
    "folder": lambda f: written(f, EIGHT),
    "one more level": lambda f: zipped({f"hw/{n}": c for n, c in EIGHT.items()}, f / "a.zip"),
    "a zip in a zip": lambda f: zipped({"submission.zip": zipped(EIGHT)}, f / "a.zip"),
    "a zip in a folder": lambda f: written(f, {"submission.zip": zipped(EIGHT)}),
    "backslashes": lambda f: zipped(
        {n.replace("/", "\\"): c for n, c in EIGHT.items()}, f / "a.zip"
    ),
    "flat": lambda f: zipped({n.rpartition("/")[2]: c for n, c in EIGHT.items()}, f / "a.zip"),
    "capitals": lambda f: zipped({n.upper(): c for n, c in EIGHT.items()}, f / "a.zip"),
    "the whole edition": lambda f: zipped(
        EIGHT
        | {f"checks/suite/{n}": "0" for n in NAMES}
        | {"checks/grading/execution/inputs.py": "0"},
        f / "a.zip",
    ),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_read_package_accepts_every_packing(tmp_path, packing):
    found, _ = chosen(PACKINGS[packing](tmp_path))
    assert len(found) == 8
    assert set(found.values()) == {b"1"}
    (package,) = packages([tmp_path / "a.zip"] if (tmp_path / "a.zip").exists() else [tmp_path])
    assert len(package.files) >= 1


@pytest.mark.parametrize("form", ["{}", "0{n}_{}", "{}_final"])
def test_a_folder_for_each_task_is_one_submission(tmp_path, form):
    files = {}
    for n, task in enumerate(RUBRIC, 1):
        files |= {f"{form.format(task, n=n)}/{task}.{kind}": "1" for kind in ("py", "ipynb")}
    (found,) = packages([written(tmp_path / "ann", files)])
    assert (found.name, len(found.files)) == ("ann", 8)


def test_files_of_operating_systems_are_skipped_with_a_note(tmp_path):
    left = {f"__MACOSX/{n.replace('/', '/._')}": "x" for n in NAMES}
    left |= {".DS_Store": "x", "notebooks/.ipynb_checkpoints/01_svd-checkpoint.ipynb": "x"}
    left |= {"Thumbs.db": "x", "desktop.ini": "x", "mflib/__pycache__/svd.pyc": "x"}
    for path in (zipped(EIGHT | left, tmp_path / "a.zip"), written(tmp_path / "b", EIGHT | left)):
        found, notes = chosen(path)
        assert set(found.values()) == {b"1"}
        assert len(read_package(path).files) == 8
        assert any("skipped" in note and ".DS_Store" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("notebooks/01_svd (1).ipynb", "svd.ipynb"),
        ("01_SVD.ipynb", "svd.ipynb"),
        ("Copy of 02_als.ipynb", "als.ipynb"),
        ("doe_03_bpr-final.ipynb", "bpr.ipynb"),
        ("04_warp.ipynb.txt", "warp.ipynb"),
        ("svd (2).py", "svd.py"),
        ("mflib\\bpr.py".replace("\\", "/"), "bpr.py"),
        ("01_svd.py", "svd.ipynb"),
        ("test_svd.py", None),
        ("warped.py", None),
        ("results_also.ipynb", None),
        ("svd.pdf", None),
        ("Testa_01_svd.ipynb", "svd.ipynb"),  # surnames
        ("Checkley_svd.py", "svd.py"),
        ("check_svd.py", None),
    ],
)
def test_expected_file_recognises_names(name, which):
    assert expected_file(name) == which


def test_renamed_files_and_copies_are_noted(tmp_path):
    files = {"notebooks/01_svd (1).ipynb": "2", "mflib/svd.py": "1", "old/mflib/svd.py": "0"}
    found, notes = chosen(zipped(files, tmp_path / "a.zip"))
    assert found == {"svd.ipynb": b"2", "svd.py": b"1"}
    assert "01_svd (1).ipynb was used as notebooks/01_svd.ipynb" in notes
    assert "there are several copies; used: mflib/svd.py, not old/mflib/svd.py" in notes


LAYOUTS = {
    "Moodle": lambda who: f"{who}_123_assignsubmission_file_/submission.zip",
    "Canvas": lambda who: f"{who}_12345_67890_submission.zip",
    "Canvas, late": lambda who: f"{who}_LATE_12345_67890_submission.zip",
    "nbgrader": lambda who: f"submitted/{who}/ps1/submission.zip",
    "zips": lambda who: f"{who}.zip",
    "zips in folders": lambda who: f"{who}/submission.zip",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_packages_reads_exports_of_every_platform(tmp_path, layout, packed):
    files = {LAYOUTS[layout](who): zipped(EIGHT) for who in ("Jane Doe", "Bo")}
    path = zipped(files, tmp_path / "c.zip") if packed else written(tmp_path / "class", files)
    found = packages([path])
    assert sorted(package.name for package in found) == ["Bo", "Jane Doe"]
    for package in found:
        assert len([n for n in package.files if expected_file(n)]) == 8


def test_packages_reads_loose_files_of_platforms(tmp_path):
    moodle = {f"Jane Doe_12_assignsubmission_file_/{n}": "1" for n in NAMES}
    moodle |= {f"Bo_13_assignsubmission_file_{n.rpartition('/')[2]}": "1" for n in NAMES}
    canvas = {f"doejane_12_{n}_{name.rpartition('/')[2]}": "1" for n, name in enumerate(NAMES)}
    one = packages([written(tmp_path / "m", moodle)])
    assert sorted(p.name for p in one) == ["Bo", "Jane Doe"]
    (two,) = packages([written(tmp_path / "c", canvas)])
    assert (two.name, len(two.files)) == ("doejane", 8)


TWO = {"mflib/svd.py": "1", "notebooks/01_svd.ipynb": "1"}
WHO = ("ann", "bo", "cy")


def class_of(form, **more):
    """Return the files of three students, each in a folder of this form."""
    return {f"{form.format(who)}/{name}": c for who in WHO for name, c in (TWO | more).items()}


def made(folder, files, packed):
    return zipped(files, folder / "c.zip") if packed else written(folder / "c", files)


NESTED = {
    "a folder of students": class_of("class/{}"),
    "a folder in a folder": class_of("a/b/{}"),
    "only class.zip": {"class.zip": zipped(class_of("{}"))},
    "only class.zip, with a folder": {"class.zip": zipped(class_of("hw/{}"))},
    "clones": class_of("hw-submissions/{}", **{".git/config": "", "README.md": ""}),
    "zips one level down": {f"class/{who}.zip": zipped(TWO) for who in WHO},
    "folders of zips": {f"class/{who}/work.zip": zipped(TWO) for who in WHO},
    "old copies": class_of("class/{}", **{"Old/mflib/svd.py": "0", "backup/svd.py": "0"}),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", NESTED)
def test_packages_finds_a_class_at_any_depth(tmp_path, layout, packed):
    found = packages([made(tmp_path, NESTED[layout], packed)])
    assert [package.name for package in found] == list(WHO)
    for package in found:
        taken = choose_files(package.files, [])
        assert [package.files[taken[f"svd.{kind}"]].read() for kind in ("py", "ipynb")] == [
            b"1"
        ] * 2
        assert package.notes == []


HEAD = "Essay_1_{}_attempt_2026-06-{}-14-05-09"  # a possible title of an assignment
PEOPLE = """---
submission_7:
  :submitters:
  - :name: 'Ann O''Hara'
    :sid: 's7'
    :email: ann@x.org
  - :name: "Bo \\u0141"
    :email: bo@x.org
  :created_at: 2026-06-09 14:05:09.000000000 Z
  :results:
    :name: mallory
submission_8:
  :submitters:
  - :name: Cy
    :email: cy@x.org
  :created_at: 2026-06-10 14:05:09.000000000 Z
"""
# By platform: files, and name, number, identifiers and time (of the first) of each submission.
EXPORTS = {
    Platform.BLACKBOARD: (
        {
            f"{HEAD.format('ann', '02')}.txt": "Name: Ann Lee (ann)\nAssignment: Essay\n",
            f"{HEAD.format('ann', '02')}_svd.py": "0",
            f"{HEAD.format('ann', '09')}.txt": "Name: Ann Lee (ann)\nName: Bo (bo)\n",
            f"{HEAD.format('ann', '09')}_svd.py": "1",
            f"{HEAD.format('bo', '09')}.txt": "Name: Bo (bo)\n",
            f"{HEAD.format('bo', '09')}_work.zip": zipped({"mflib/svd.py": "1"}),
            f"{HEAD.format('mal', '09')}.txt": "Name: Ann Lee (ann)\n",  # not the login
            f"{HEAD.format('mal', '09')}_svd.py": "1",
        },
        [("Ann Lee", "ann"), ("Bo", "bo"), ("mal", "mal")],
        datetime(2026, 6, 9, 14, 5, 9),
    ),
    Platform.BRIGHTSPACE: (
        {
            "index.html": "",
            "12-3 - Ann Lee - Jun 8, 2026 904 AM/svd.py": "0",
            "12-3 - Ann Lee - Jun 8, 2026 205 PM/svd.py": "1",
            "12-3 - Ann Lee - Jun 8, 2026 1159 AM/svd.py": "0",
            "13-3 - Bo - 8 June, 2026 1405/svd.py": "1",
        },
        [("Ann Lee", "12"), ("Bo", "13")],
        datetime(2026, 6, 8, 14, 5),
    ),
    Platform.TEAMS: (
        {
            "Submitted files/Ann Lee/HW/Version 2/svd.py": "0",
            "Submitted files/Ann Lee/HW/Version 10/svd.py": "1",
            "Submitted files/Bo/HW/Version 1/work.zip": zipped({"mflib/svd.py": "1"}),
            "Working files/Bo/HW/svd.py": "0",
        },
        [("Ann Lee", ""), ("Bo", "")],
        None,
    ),
    Platform.GRADESCOPE: (
        {
            "export/submission_metadata.yml": PEOPLE,
            "export/submission_7/mflib/svd.py": "1",
        },
        [("Ann O'Hara and Bo Ł", "7"), ("Cy", "8")],
        datetime(2026, 6, 9, 14, 5, 9, tzinfo=UTC),
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("platform", EXPORTS)
def test_exports_have_names_times_and_the_newest_attempt(tmp_path, platform, packed):
    files, people, time = EXPORTS[platform]
    found = packages([made(tmp_path, files, packed)])
    assert [(p.name, p.number) for p in found] == people
    assert {p.platform for p in found} == {platform}
    assert found[0].time == time
    for package in found:
        contents = [file.read() for name, file in package.files.items() if expected_file(name)]
        assert contents == ([] if package.name == "Cy" else [b"1"])
    if platform is Platform.GRADESCOPE:
        assert [owner.ids for owner in found[0].owners] == [("s7", "ann@x.org"), ("bo@x.org",)]
        assert found[1].notes == ["nothing was submitted"]
    else:
        n = 3 if platform is Platform.BRIGHTSPACE else 2
        assert found[0].notes == [f"{n} attempts: the newest counts"]


@pytest.mark.parametrize("packed", [False, True])
def test_ambiguous_layouts_are_refused_with_a_choice(tmp_path, packed):
    sections = made(tmp_path, class_of("one/{}") | class_of("two/{}"), packed)
    with pytest.raises(ValueError, match=r"in each of one, two; pass --level 1 if .*--level 2 if"):
        packages([sections])
    found = packages([sections], level=2)
    assert [p.name for p in found] == [f"{who} ({n})" for n in (1, 2) for who in WHO]
    assert [p.name for p in packages([sections], level=1)] == ["one", "two"]
    teams = {f"Submitted files/ann/{hw}/Version 1/svd.py": "1" for hw in ("HW1", "HW2")}
    with pytest.raises(ValueError, match="expected one assignment in Teams' folders, got HW1, HW2"):
        packages([made(tmp_path / "teams", teams, packed=False)])


def test_copies_in_one_zip_are_refused_with_a_choice(tmp_path):
    path = zipped({"a/svd.py": "1", "b/svd.py": "2", "als.py": "1"}, tmp_path / "x.zip")
    with pytest.raises(ValueError, match=r"there are 2 copies of svd.py: a/svd.py, b/svd.py; pass"):
        packages([path])
    assert [p.name for p in packages([path], level=0)] == ["x"]


def test_choose_files_prefers_the_shallowest_then_the_newest_copy():
    def taken(**times):
        notes = []
        files = {name: File(lambda: b"", time) for name, time in times.items()}
        return choose_files(files, notes)["svd.py"], notes

    old = {"Old/mflib/svd.py": 9, "backup/svd.py": 9, "a/b/svd.py": 9}
    assert taken(**old, **{"mflib/svd.py": 1})[0] == "mflib/svd.py"
    assert taken(**old, **{"svd.py": 1})[0] == "svd.py"
    assert taken(**{"a/svd.py": 1, "b/svd.py": 2})[0] == "b/svd.py"
    name, (note,) = taken(**{"a/svd.py": 2, "b/svd.py": 1})
    assert (name, note) == (
        "a/svd.py",
        "there are several copies; used: a/svd.py, not b/svd.py",
    )


def test_the_newest_of_two_zips_of_a_student_counts(tmp_path):
    inner = {}
    for name, day in (("a", 3), ("b", 9), ("c", 5)):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(zipfile.ZipInfo("mflib/svd.py", (2026, 6, day, 0, 0, 0)), name)
        inner[f"Ann_1_assignsubmission_file_/{name}.zip"] = target.getvalue()
    inner["Bo_2_assignsubmission_file_/a.zip"] = zipped(TWO)
    ann, bo = packages([written(tmp_path / "c", inner)])
    notes = []
    assert ann.files[choose_files(ann.files, notes)["svd.py"]].read() == b"b"
    assert len(notes) == 1
    assert (bo.name, bo.notes) == ("Bo", [])


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_zip_gets_a_row_with_the_reason(tmp_path, packed):
    for form in ("{}_1_assignsubmission_file_/w.zip", "{}_1_2_w.zip", "{}.zip", "{}/w.zip"):
        files = {form.format("ann"): zipped(TWO), form.format("bo"): zipped(TWO)}
        files[form.format("cy")] = zipped({})
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        found = {p.name: p.notes for p in packages([made(folder, files, packed)])}
        assert list(found) == list(WHO), form
        name = form.rpartition("/")[2].format("cy")
        assert found["cy"] == [f"{name} has no files"]
        assert found["ann"] == found["bo"] == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [".DS_Store", "mflib/.DS_Store", ".git/config"])
def test_a_submission_of_only_skipped_files_gets_a_row(tmp_path, name, packed):
    files = {"ann/svd.py": "1", f"bo/{name}": "", "cy/svd.py": "1", "__MACOSX/di/._x": ""}
    found = {p.name: p.notes for p in packages([made(tmp_path, files, packed)])}
    assert sorted(found) == list(WHO)
    assert found["bo"] == ["bo has no files"]


def test_impostors_are_numbered_and_noted(tmp_path):
    names = (" honest", "HONEST", "honest", "honest.")
    found = packages([zipped({f"{who}/svd.py": who for who in names}, tmp_path / "c.zip")])
    assert sorted(p.name.casefold() for p in found) == [f"honest ({n})" for n in range(1, 5)]
    for package in found:
        assert package.notes[0].startswith("4 submissions have the same name: ")
        assert package.files["svd.py"].read().decode() == package.owners[0].name


def test_every_entry_of_a_class_gets_a_row(tmp_path, capsys):
    files = {f"ann/{n}": "1" for n in NAMES} | {"bo/report.docx": "", "cy.rar": "", "di.7z": ""}
    found = {p.name: p for p in packages([written(tmp_path / "class", files | {"grades.csv": ""})])}
    assert sorted(found) == ["ann", "bo", "cy", "di"]
    assert found["cy"].notes == ["cy.rar cannot be opened here: pack a .zip instead"]
    assert "not treated as submissions: grades.csv" in capsys.readouterr().out
    (alone,) = packages([tmp_path / "class" / "di.7z"])
    assert "pack a .zip instead" in alone.notes[0]
    form = {f"{who} {who}_10{n}_assignsubmission_file/work.rar": "" for n, who in enumerate(WHO)}
    for package in packages([written(tmp_path / "moodle", form)]):
        assert package.notes == ["work.rar cannot be opened here: pack a .zip instead"]


def test_too_many_files_affect_only_their_submission(tmp_path, monkeypatch):
    monkeypatch.setattr("grading.intake.collect.STUDENT_FILES", 5)
    files = {f"bo/{n}.txt": "1" for n in range(9)} | {"ann/svd.py": "1", "cy/svd.py": "1"}
    found = {p.name: p for p in packages([written(tmp_path / "class", files)])}
    assert sorted(found) == ["ann", "bo", "cy"]
    assert [p.notes for p in found.values()] == [[], ["bo: expected at most 5 files"], []]


@pytest.mark.parametrize("packed", [False, True])
def test_an_oversized_archive_affects_only_its_submission(tmp_path, packed):
    """Mallory submits 20,000 files, 30 archives or 50 links, between two honest students."""
    own = {f"x/{n}.txt": "" for n in range(20_000)} | {"mflib/svd.py": "1"}
    several = {f"{n}.zip": zipped({"mflib/svd.py": f"{n}"}) for n in range(30)}
    for what in (own, several):
        hers = {"work.zip": zipped(what)} if packed else what
        files = {f"mallory_2_assignsubmission_file_/{n}": text for n, text in hers.items()}
        for n, who in enumerate(("ann", "zoe"), 3):
            files[f"{who}_{n}_assignsubmission_file_/work.zip"] = zipped(EIGHT)
        found = {p.name: p for p in packages([zipped(files, tmp_path / "class.zip")])}
        assert sorted(found) == ["ann", "mallory", "zoe"]
        for who in ("ann", "zoe"):
            assert found[who].notes == []
            assert len(found[who].files) == 8
        assert "expected at most" in found["mallory"].notes[0]
        (tmp_path / "class.zip").unlink()


def test_names_of_students_cannot_change_the_layout(tmp_path):
    honest = {f"{who}/{name}": "1" for who in ("ann", "zoe") for name in NAMES}
    for name in (
        "submitted/zoe/ps1/mflib/svd.py",
        "log_2024_01_notes.txt",
        "zoe_3_assignsubmission_file_/svd.py",
        "a_1_2_b.zip",
    ):
        files = honest | {f"mallory/{name}": "0", "mallory/mflib/svd.py": "0"}
        found = packages([zipped(files, tmp_path / "class.zip")])
        assert sorted(package.name for package in found) == ["ann", "mallory", "zoe"], name
    alone = dict.fromkeys(NAMES, "1") | {"log_2024_01_notes.txt": ""}
    (own,) = packages([zipped(alone, tmp_path / "ann.zip")])
    assert (own.name, len(own.files)) == ("ann", 9)


def test_file_names_on_canvas_cannot_impersonate_others(tmp_path):
    """A Moodle name inside a Canvas file name is the student's choice."""
    files = {
        "mallory_200_9002_300_assignsubmission_file_svd.py": "0",
        "zoe_300_9003_svd.py": "1",
    }
    found = packages([written(tmp_path / "class", files)])
    assert [(p.name, p.number) for p in found] == [("mallory", "200"), ("zoe", "300")]


def test_notes_belong_to_the_submission_that_they_concern(tmp_path):
    """A submission that is only a link has a row, and only this row has the note."""
    written(tmp_path / "class", {f"ann/{n}": "1" for n in NAMES} | {"zoe/svd.py": "1"})
    (tmp_path / "class" / "mallory").mkdir()
    (tmp_path / "class" / "mallory" / "ann copied this from zoe").symlink_to("/etc")
    found = {p.name: p for p in packages([tmp_path / "class"])}
    assert sorted(found) == ["ann", "mallory", "zoe"]
    assert found["ann"].notes == found["zoe"].notes == []
    assert "is a link" in found["mallory"].notes[0]


def test_equal_safe_names_are_numbered(tmp_path):
    files = {f"{who}/svd.py": who for who in ("zo:e", "zo_e", "zo_e (2)", "ZO_E")}
    found = {p.name: p.files["svd.py"].read() for p in packages([written(tmp_path / "c", files)])}
    assert sorted(found.values()) == [b"ZO_E", b"zo:e", b"zo_e", b"zo_e (2)"]


def test_names_are_unique_and_missing_paths_are_refused(tmp_path):
    for folder in ("a", "b"):
        zipped(EIGHT, (tmp_path / folder).mkdir() or tmp_path / folder / "same.zip")
    found = packages([tmp_path / "a" / "same.zip", tmp_path / "b" / "same.zip"])
    assert [package.name for package in found] == ["same (1)", "same (2)"]
    assert [len(package.notes) for package in found] == [1, 1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="got none"):
        packages([tmp_path / "empty"])
    with pytest.raises(ValueError, match="got nothing at"):
        packages([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("=HYPERLINK(1)", "_HYPERLINK(1)"),
        ("+1", "_1"),
        ("@x", "x"),
        ("\x1b[31mred", "_[31mred".replace("[", "_")),
        ("a/../b", "a_.._b"),
        ("..", "unnamed"),
        ("caf\udce9", "caf_"),
        ("Zoë Müller", "Zoë Müller"),
        ("x" * 300, "x" * 80),
        ("\U00020000" * 80, "\U00020000" * 40),
        ("\u202egpj.exe", "_gpj.exe"),
        ("-rf", "rf"),
    ],
)
def test_safe_name_accepts_any_bytes(raw, safe):
    assert safe_name(raw) == safe


def test_latin_1_names_are_read(tmp_path):
    raw = bytes(tmp_path) + b"/class"
    os.makedirs(raw + b"/M\xfcller")
    with open(raw + b"/M\xfcller/svd.py", "w", encoding="utf-8") as file:
        file.write("1")
    os.makedirs(raw + b"/Bo")
    with open(raw + b"/Bo/svd.py", "w", encoding="utf-8") as file:
        file.write("1")
    found = packages([tmp_path / "class"])
    assert sorted(package.name for package in found) == ["Bo", "M_ller"]
    assert plain("a\x1b[0m\udce9") == "a\ufffd[0m\\udce9"


@pytest.mark.parametrize("damage", ["bomb", "link", "corrupt", "deflate", "encrypted"])
def test_a_bad_zip_gives_a_reason(tmp_path, damage):
    files = dict(EIGHT)
    if damage == "bomb":
        files[NAMES[0]] = "0" * (21 * 2**20)
    path = zipped(files, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    if damage == "deflate":
        content[30 + len(NAMES[0])] = 255  # the first byte after the name
    elif damage == "corrupt":
        content = content[:-30]
    elif damage == "encrypted":
        central = content.index(b"PK\x01\x02")
        content[6], content[central + 8] = 1, 1
    path.write_bytes(content)
    if damage == "link":
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo(NAMES[0])
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    package = read_package(path)
    try:
        content = package.files[NAMES[0]].read()
    except Exception as error:
        content = str(error)
    assert package.notes or isinstance(content, str)


def test_links_in_a_folder_are_not_followed(tmp_path):
    (tmp_path / "mflib").mkdir()
    (tmp_path / "mflib" / "svd.py").symlink_to("/etc/passwd")
    (tmp_path / "notebooks").symlink_to("/etc")
    package = read_package(tmp_path)
    assert package.files == {}
    assert len([note for note in package.notes if "is a link" in note]) == 2


def test_handed_in_is_the_date_of_the_newest_file(tmp_path):
    written(tmp_path, EIGHT)
    for name in NAMES:
        os.utime(tmp_path / name, (0, datetime(2026, 1, 1).timestamp()))
    os.utime(tmp_path / NAMES[3], (0, datetime(2026, 2, 1).timestamp()))
    assert packages([tmp_path])[0].handed_in == datetime(2026, 2, 1)


@pytest.mark.parametrize("time", [-1e12, 0, 2.0**62])
def test_impossible_dates_are_clamped(time):
    package = Package("a", {"svd.py": File(bytes, time)})
    assert 1969 <= package.handed_in.astimezone(UTC).year < 9999
