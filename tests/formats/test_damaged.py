"""Whatever a file holds in the place of what should be there: it is read, or one line says what is wrong."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.formats.annotated import Given
from ofa_pose.formats.reading import read_splits
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml
from tests.formats import slp_files, test_deeplabcut, test_label_studio, test_labelme, test_yolo
from tests.formats.scenes import JOINTS, LIMBS, Scene, write_images

SCENES = [Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)}, {"tail": (9.0, 9.0, 2)})), Scene("b.png", 30, 20, ())]
JUNK = [None, True, -1, 0, 1.5, 10**400, float("nan"), "", "x", "../../a.png", [], [1], ["a", "b"], [[]], {}, {"a": 1}]


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    found: list[tuple[Any, ...]] = [()]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += [(key, *rest) for rest in places(inner)]
    return found


def damaged(value: Any, draw: Any) -> Any:
    """The value with junk in a place or two."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(value)))
        junk = copy.deepcopy(draw(st.sampled_from(JUNK)))
        if not path:
            return junk
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = junk
    return value


def read(path: Path) -> None:
    """Read it; nothing but an InputError of short lines may come of it."""
    try:
        read_splits(Given(path))
    except InputError as error:
        assert all(fault.what and len(str(fault)) < 1000 for fault in error.faults)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_label_studio(data: st.DataObject) -> None:
    tasks = [test_label_studio.task(number, scene, "relation") for number, scene in enumerate(SCENES)]
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), SCENES)
        read(test_label_studio.write(Path(folder), damaged(tasks, data.draw)).path)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_labelme(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), SCENES)
        named = test_labelme.write(Path(folder), [damaged(test_labelme.value_of(SCENES[0]), data.draw)])
        read(named.path)
        read(named.path / "0.json")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_yolo(data: st.DataObject) -> None:
    value = {"path": "", "train": ["images/train"], "kpt_shape": [4, 3], "flip_idx": [0, 2, 1, 3], "names": {0: "fish"}}
    value["kpt_names"] = {0: list(JOINTS)}
    with tempfile.TemporaryDirectory() as folder:
        path = test_yolo.write(Path(folder), SCENES)
        path.write_text(dump_yaml(damaged(value, data.draw)))
        read(path)
        read(path.parent)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_deeplabcut_config(data: st.DataObject) -> None:
    config = {"Task": "fish", "scorer": "me", "bodyparts": list(JOINTS), "skeleton": [list(limb) for limb in LIMBS]}
    with tempfile.TemporaryDirectory() as folder:
        project = test_deeplabcut.make(folder, SCENES[:1], config={"a": 1})
        table = test_deeplabcut.write_csv(project, SCENES[:1], several=False)
        (project / "config.yaml").write_text(dump_yaml(damaged(config, data.draw)))
        for path in (table, project, project / "config.yaml"):
            read(path)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_sleap_metadata(data: st.DataObject) -> None:
    h5py = pytest.importorskip("h5py")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), SCENES)
        videos = damaged([slp_files.image_list(SCENES)], data.draw)
        is_list = isinstance(videos, list) and bool(videos)
        named = slp_files.write(Path(folder, "a.slp"), SCENES, videos if is_list else [videos], [(0, 0), (0, 1)])
        with h5py.File(named.path, "a") as file:
            head = json.loads(file["metadata"].attrs["json"])
            file["metadata"].attrs["json"] = json.dumps(damaged(head, data.draw))
        read(named.path)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_text_of_any_kind(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from((".json", ".xml", ".csv", ".yaml", ".zip", ".slp", ".h5", ".txt")))
    head = data.draw(st.sampled_from(("", "scorer,a\nbodyparts,b\ncoords,x\n", "<annotations><image ", "kpt_shape: ")))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_text(head + data.draw(st.text(max_size=60)), encoding="utf-8")
        read(path)
        Path(folder, "a.json").write_bytes(data.draw(st.binary(max_size=40)))
        read(Path(folder))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stated_flip_pairs(data: st.DataObject) -> None:
    pairs = damaged({"flip_pairs": [["left_hand", "right_hand"]]}, data.draw)
    category = {"id": 1, "name": "fish", "keypoints": list(JOINTS)} | (pairs if isinstance(pairs, dict) else {})
    value = {"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}], "annotations": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.json").write_text(json.dumps({**value, "categories": [category]}))
        skeleton = load_dataset(Path(folder, "a.json"), folder, check_images="none").skeleton
    assert all(len({a, b}) == 2 for a, b in skeleton.flip_pairs)
