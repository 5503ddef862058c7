"""Files as annotation tools write them: whoever reads one sees the same people at the same places.

`data check`, training, evaluation and int8 calibration (which share a reader), prediction, and pycocotools.
"""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval

import ofa_pose
from ofa_pose.data.images import read_upright
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.transforms import clean_sample
from ofa_pose.inference.evaluate import read_inputs
from ofa_pose.inference.sources import is_image

STORED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # by EXIF orientation, Pillow's way back from upright to stored
SIDES = (("left_", "right_", ""), ("L", "R", ""), ("", "", "LR"), ("l-", "r-", ""), ("Left.", "Right.", ""))
DOT = 3  # pixels, the radius of the light disc that is drawn at a joint
PLACES = np.array([[12, 10], [30, 14], [14, 40], [34, 44], [22, 26]])  # of a person's joints from its corner


@dataclass
class Written:
    """A dataset as some tool wrote it: its value, the folder of images, and where the joints are on upright images."""

    annotations: Path
    images: Path
    joints: dict[str, np.ndarray]
    names: list[str]


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """What differs between tools: ids and their types, empty boxes, areas, names of sides, suffixes, EXIF turns."""
    count = draw(st.integers(1, 3))
    ids = draw(st.lists(st.integers(0, 10**9), min_size=count, max_size=count, unique=True))
    return {
        "ids": [draw(st.sampled_from([number, str(number), float(number)])) for number in ids],
        "named": [draw(st.sampled_from([int, str, float])) for _ in ids],
        "sizes": draw(st.lists(st.sampled_from([(96, 64), (64, 96), (80, 80)]), min_size=count, max_size=count)),
        "turns": draw(st.lists(st.integers(1, 8), min_size=count, max_size=count)),
        "suffixes": [draw(st.sampled_from([".jpg", ".JPEG", ".jfif", ".jpe", ".png", ".webp"])) for _ in ids],
        "box": draw(st.sampled_from(["given", "zeros", "none", "missing"])),
        "area": draw(st.sampled_from(["given", 0, None, "missing"])),
        "crowd": draw(st.sampled_from([0, None, "missing"])),
        "counted": draw(st.booleans()),
        "sides": draw(st.sampled_from(SIDES)),
        "shift": draw(st.floats(0, 12)),
        "mark": draw(st.booleans()),
    }


def write(folder: Path, how: dict[str, Any]) -> Written:
    first, second, after = how["sides"]
    left, right = (after or "  ").strip()[:1], (after or "  ").strip()[1:]
    names = ["nose", f"{first}eye{left}", f"{second}eye{right}", f"{first}paw{left}", f"{second}paw{right}"]
    value: dict[str, Any] = {"images": [], "annotations": []}
    value["categories"] = [{"id": 1, "name": "animal", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}]
    joints = {}
    rows = zip(how["ids"], how["named"], how["sizes"], how["turns"], how["suffixes"], strict=True)
    for number, (image_id, kind, (width, height), turn, suffix) in enumerate(rows):
        places = PLACES + np.round(how["shift"] * (1 + number % 2) / 2)
        picture = np.full((height, width, 3), 40, np.uint8)
        for x, y in places:
            cv2.circle(picture, (int(x), int(y)), DOT, (230, 230, 230), -1)
        name = f"sub dir/{number}{suffix}"
        save(folder / "images" / name, picture, turn)
        value["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
        keypoints = [float(one) for x, y in places for one in (x + 0.5, y + 0.5, 2)]
        person: dict[str, Any] = {
            "id": number,
            "image_id": kind(int(image_id)),
            "category_id": 1,
            "keypoints": keypoints,
        }
        low, high = places.min(0), places.max(0)
        box = [*low.tolist(), *(high - low).tolist()]
        given: dict[str, Any] = {"given": box, "zeros": [0, 0, 0, 0], "none": None}
        person |= {} if how["box"] == "missing" else {"bbox": given[how["box"]]}
        person |= {} if how["area"] == "missing" else {"area": 900.0 if how["area"] == "given" else how["area"]}
        person |= {} if how["crowd"] == "missing" else {"iscrowd": how["crowd"]}
        person |= {"num_keypoints": 5} if how["counted"] else {}
        value["annotations"].append(person)
        joints[name] = places + 0.5
    text = json.dumps(value)
    (folder / "labels.json").write_bytes(text.encode("utf-8-sig" if how["mark"] else "utf-8"))
    return Written(folder / "labels.json", folder / "images", joints, names)


def save(path: Path, upright: np.ndarray, turn: int) -> None:
    """Store an upright picture turned, with the EXIF orientation that turns it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, exif = Image.fromarray(upright), Image.Exif()
    if turn > 1:
        exif[274] = turn
        image = image.transpose(Image.Transpose(STORED[turn]))
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix, "JPEG")
    image.save(path, kind, exif=exif, quality=95)


def light_at(image: np.ndarray, places: np.ndarray) -> None:
    """Every place is in a disc of light."""
    for x, y in places:
        assert image[int(y), int(x)].mean() > 150, (x, y)


@settings(max_examples=60, deadline=None)
@given(files())
def test_all_readers_see_the_same_people(how: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        written = write(Path(name), how)
        checked = ofa_pose.data_check(annotations=written.annotations, images=written.images).to_dict()
        dataset = load_dataset(written.annotations, written.images)
        count = len(how["ids"])
        assert (checked["images"], checked["people"], checked["labelled_people"]) == (count, count, count)
        assert (len(dataset), dataset.people) == (count, count)
        assert sorted(dataset.skeleton.flip_pairs) == [(1, 2), (3, 4)] and dataset.skeleton.mirror
        for record in dataset.images:
            places = written.joints[str(record.path.relative_to(written.images))]
            np.testing.assert_allclose(record.keypoints[0, :, :2], places, atol=1e-4)
            light_at(record.read(), places)  # training, evaluation and int8 calibration
            assert is_image(record.path)
            light_at(read_upright(record.path), places)  # prediction
            sample = clean_sample(record, 64, dataset.skeleton)
            seen = sample.keypoints[0][sample.keypoints[0, :, 2] > 0, :2]
            assert len(seen) >= 3
            light_at(sample.image, seen)
        for batch in read_inputs(dataset, 64):
            for image_id, frame, image in zip(batch.ids, batch.frames, batch.images, strict=True):
                (record,) = [one for one in dataset.images if one.id == image_id]
                light_at(image, frame.to_input(record.keypoints[0, :, :2]))
        hold_to_pycocotools(dataset, written, Path(name))


def hold_to_pycocotools(dataset: KeypointDataset, written: Written, folder: Path) -> None:
    """Score results that are off by some pixels with the product and, ids renumbered, with pycocotools."""
    rng = np.random.default_rng(len(written.joints))
    truth, results = dataset.ground_truth, []
    for number, person in enumerate(truth["annotations"]):
        keypoints = np.array(person["keypoints"], float).reshape(-1, 3)
        keypoints[:, :2] += rng.uniform(-3, 3, (5, 2))
        as_read = str(person["image_id"]) if number % 2 else person["image_id"]
        results.append({"image_id": as_read, "category_id": "1", "score": 0.9 - 0.1 * number})
        results[-1]["keypoints"] = keypoints.ravel().tolist()
    (folder / "results.json").write_text(json.dumps(results))
    ours = ofa_pose.evaluate(annotations=written.annotations, results=folder / "results.json").to_dict()["metrics"]
    number_of = {str(image["id"]): number for number, image in enumerate(truth["images"], start=1)}
    with redirect_stdout(io.StringIO()):
        coco = CocoFile()
        coco.dataset = {
            "images": [{**image, "id": number_of[str(image["id"])]} for image in truth["images"]],
            "annotations": [
                {**person, "id": number, "image_id": number_of[str(person["image_id"])]}
                for number, person in enumerate(truth["annotations"], start=1)
            ],
            "categories": truth["categories"],
        }
        coco.createIndex()
        found = [{**one, "image_id": number_of[str(one["image_id"])], "category_id": 1} for one in results]
        judge = COCOeval(coco, coco.loadRes(found), "keypoints")
        judge.params.kpt_oks_sigmas = np.array(dataset.skeleton.sigmas)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert ours["AP"] == pytest.approx(judge.stats[0]) and ours["AR"] == pytest.approx(judge.stats[5])
