"""DeepLabCut: CollectedData of one animal and of several, as CSV and as pandas' HDF5, and the project's skeleton."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.formats import deeplabcut
from ofa_pose.formats.annotated import Given
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml
from tests.formats.scenes import JOINTS, LIMBS, Scene, assert_same, scene_lists, write_images

VIDEO = "labeled-data/swim"


def columns(several: bool) -> list[tuple[str, str, str]]:
    """Individual, body part and axis of each column; up to three individuals."""
    animals = ["one", "two", "three"] if several else [""]
    return [(who, part, axis) for who in animals for part in JOINTS for axis in ("x", "y")]


def cells(scene: Scene, several: bool) -> list[float | None]:
    """The numbers of a scene's row."""
    people = dict(zip(["one", "two", "three"] if several else [""], scene.people, strict=False))
    found = []
    for who, part, axis in columns(several):
        point = people.get(who, {}).get(part)
        found.append(None if point is None else point["xy".index(axis)])
    return found


def write_csv(project: Path, scenes: list[Scene], several: bool, parts_of_path: int = 3) -> Path:
    """CollectedData_me.csv; the image in three columns, as now, or in one, as before 2.2."""
    blanks = [""] * (parts_of_path - 1)
    heads = columns(several)
    lines = [["scorer", *blanks, *["me"] * len(heads)]]
    lines += [["individuals", *blanks, *(who for who, _, _ in heads)]] if several else []
    lines += [["bodyparts", *blanks, *(p for _, p, _ in heads)], ["coords", *blanks, *(axis for _, _, axis in heads)]]
    for scene in scenes:
        image = [*VIDEO.split("/"), scene.name] if parts_of_path == 3 else [f"{VIDEO}/{scene.name}".replace("/", "\\")]
        lines.append([*image, *("" if cell is None else repr(cell) for cell in cells(scene, several))])
    path = project / VIDEO / "CollectedData_me.csv"
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


def write_h5(project: Path, scenes: list[Scene], several: bool) -> Path:
    """CollectedData_me.h5 in pandas' fixed layout."""
    h5py = pytest.importorskip("h5py")
    heads = [("me", *column) if several else ("me", *column[1:]) for column in columns(several)]
    rows = [(*VIDEO.split("/"), scene.name) for scene in scenes]
    path = project / VIDEO / "CollectedData_me.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        for axis, labels in (("axis0", heads), ("block0_items", heads), ("axis1", rows)):
            for level, words in enumerate(zip(*labels, strict=True)):
                names = sorted(set(words))
                group[f"{axis}_level{level}"] = np.array([name.encode() for name in names])
                group[f"{axis}_label{level}"] = np.array([names.index(word) for word in words], np.int8)
        numbers = [[np.nan if cell is None else cell for cell in cells(scene, several)] for scene in scenes]
        group["block0_values"] = np.array(numbers, np.float64)
    return path


def make(folder: str, scenes: list[Scene], config: dict[str, Any] | None = None) -> Path:
    """A project with its images and its config."""
    project = Path(folder, "fish-me-2026")
    write_images(project / VIDEO, scenes)
    value = {"Task": "fish", "scorer": "me", "bodyparts": list(JOINTS), "skeleton": [list(limb) for limb in LIMBS]}
    (project / "config.yaml").write_text(dump_yaml(config or value))
    return project


@settings(max_examples=30, deadline=None)
@given(scene_lists(flags=(2,), most_people=1), st.sampled_from((1, 3)))
def test_one_animal(scenes: list[Scene], parts_of_path: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = make(folder, scenes)
        table = write_csv(project, scenes, several=False, parts_of_path=parts_of_path)
        for path in (table, project, project / "config.yaml"):
            assert deeplabcut.FORMAT.accepts(Given(path))
            (part,) = deeplabcut.FORMAT.read(Given(path))
            assert_same(part, scenes)
            category = part.value["categories"][0]
            assert category["keypoints"] == list(JOINTS) and category["skeleton"] == [[1, 2], [1, 3], [1, 4]]
            assert not part.losses and not part.notes


@settings(max_examples=30, deadline=None)
@given(scene_lists(flags=(2,)))
def test_several_animals(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = make(folder, scenes)
        (part,) = deeplabcut.FORMAT.read(Given(write_csv(project, scenes, several=True)))
        assert_same(part, scenes)
        assert {record["individual"] for record in part.value["annotations"]} <= {"one", "two", "three"}


@settings(max_examples=20, deadline=None)
@given(scene_lists(flags=(2,), most_people=1), st.booleans())
def test_hdf5(scenes: list[Scene], several: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_h5(make(folder, scenes), scenes, several)
        (part,) = deeplabcut.FORMAT.read(Given(path))
        assert_same(part, scenes)


SCENE = Scene("a.png", 50, 40, (dict.fromkeys(JOINTS, (1.5, 2.5, 2)),))


def test_the_pickles_of_pandas_other_layout_are_not_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    project = make(str(tmp_path), [SCENE])
    path = project / VIDEO / "CollectedData_me.h5"
    with h5py.File(path, "w") as file:
        file.create_group("df_with_missing").create_dataset("table", data=np.zeros(3))
    with pytest.raises(InputError, match="is not a table in pandas' fixed layout; name the CSV file"):
        deeplabcut.FORMAT.read(Given(path))
    write_csv(project, [SCENE], several=False)
    assert_same(deeplabcut.FORMAT.read(Given(path))[0], [SCENE])
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match="is not an HDF5 file"):
        deeplabcut.FORMAT.read(Given(path))


@pytest.mark.parametrize("name", ["block0_values", "axis1_level0", "axis1_label1", "block0_items_level2"])
def test_a_small_file_that_stands_for_far_more_is_refused(tmp_path: Path, name: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = write_h5(make(str(tmp_path), [SCENE]), [SCENE], several=True)
    with h5py.File(path, "a") as file:
        group = file["df_with_missing"]
        kind = group.pop(name).dtype
        group.create_dataset(name, (10**10,), kind, chunks=(1000,))
    with pytest.raises(InputError, match=rf"me.h5: its df_with_missing/{name} stands for [\d,]+ MiB, far more than"):
        deeplabcut.FORMAT.read(Given(path))


def test_without_a_config_the_limbs_are_not_known(tmp_path: Path) -> None:
    path = write_csv(make(str(tmp_path), [SCENE]), [SCENE], several=False)
    (tmp_path / "fish-me-2026" / "config.yaml").unlink()
    (part,) = deeplabcut.FORMAT.read(Given(path))
    assert_same(part, [SCENE])
    assert "no limbs are known" in part.notes[0]


def test_body_parts_that_are_nobodys_are_counted(tmp_path: Path) -> None:
    path = write_csv(make(str(tmp_path), [SCENE]), [SCENE], several=True)
    lines = path.read_text().splitlines()
    more = ("me,me", "single,single", "corner,corner", "x,y", "5,6")
    path.write_text("\n".join(f"{line},{cell}" for line, cell in zip(lines, more, strict=True)))
    (part,) = deeplabcut.FORMAT.read(Given(path))
    assert_same(part, [SCENE])
    assert part.losses == {"joints_of_nobody": 1}


FAULTS = [
    (("1.5", "wide"), "row labeled-data/swim/a.png: head x is 'wide', not a number"),
    (("1.5,", "1.5,9,"), r"CollectedData_me.csv:4: has \d+ cells, not \d+"),
    (("bodyparts", "somethings"), "has no rows bodyparts and coords"),
    ((",x,y,x", ",x,likelihood,x"), "holds what a network predicted"),
    (("a.png", "b.png"), "no such image, and its size is needed"),
    (("labeled-data,swim,a.png", "..,..,../../a.png"), "leads out of"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write_csv(make(str(tmp_path), [SCENE]), [SCENE], several=False)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(change[0], change[1], 1))
    with pytest.raises(InputError, match=message):
        deeplabcut.FORMAT.read(Given(path))


def test_a_project_without_labels(tmp_path: Path) -> None:
    project = make(str(tmp_path), [SCENE])
    with pytest.raises(InputError, match="has no CollectedData files"):
        deeplabcut.FORMAT.read(Given(project / "config.yaml"))
    path = write_csv(project, [], several=False)
    with pytest.raises(InputError, match="has no rows; label some images"):
        deeplabcut.FORMAT.read(Given(path))


def test_a_csv_file_of_another_program(tmp_path: Path) -> None:
    path = write_csv(make(str(tmp_path), [SCENE]), [SCENE], several=False)
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert deeplabcut.FORMAT.accepts(Given(path))
    assert_same(deeplabcut.FORMAT.read(Given(path))[0], [SCENE])
    path.write_text(text + '"' + "1," * 100_000)
    with pytest.raises(InputError, match=r"CollectedData_me.csv: is not valid CSV \(field larger"):
        deeplabcut.FORMAT.read(Given(path))


def test_of_a_csv_file_without_end_the_first_word_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.touch()
    os.truncate(path, 1 << 40)  # a single line, which takes no room on the disk
    assert deeplabcut.FORMAT.accepts(Given(path)) is False


def test_a_project_is_read_by_its_own_scorer(tmp_path: Path) -> None:
    project = make(str(tmp_path), [SCENE])
    path = write_csv(project, [SCENE], several=False)
    other = path.with_stem("CollectedData_you")
    other.write_text(path.read_text().replace("1.5", "9.5"))
    (part,) = deeplabcut.FORMAT.read(Given(project))
    assert_same(part, [SCENE])
    assert "1 files of other scorers than me are left out" in part.notes[0]
    (part,) = deeplabcut.FORMAT.read(Given(other))
    assert part.value["annotations"][0]["keypoints"][0] == 9.5 and not part.notes
    (project / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"several scorers \(CollectedData_me.csv, CollectedData_you.csv\)"):
        deeplabcut.FORMAT.read(Given(project))
