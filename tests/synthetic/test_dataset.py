"""Synthetic scenes: the same everywhere, within the promised statistics, labelled as an annotator would."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval

from ofa_pose.skeleton import COCO, CROWDPOSE, Skeleton
from ofa_pose.synthetic import dataset as module
from ofa_pose.synthetic.dataset import Person, Scene, draw_scene, write_dataset
from ofa_pose.utils import run_dir
from ofa_pose.utils.errors import InputError, OfaPoseError

SIZE = 128
LEFT, RIGHT = COCO.joints.index("left_shoulder"), COCO.joints.index("right_shoulder")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(3, index, SIZE, COCO) for index in range(150)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("synth") / "coco", 12, 96, "coco", 5, workers=1)


def _draw(index: int) -> Scene:
    return draw_scene(3, index, SIZE, COCO)


def _equal(a: Scene, b: Scene) -> bool:
    same = np.array_equal(a.image, b.image) and np.array_equal(a.owner, b.owner) and len(a.people) == len(b.people)
    return same and all(
        np.array_equal(p.keypoints, q.keypoints) and p.segmentation == q.segmentation and p.bbox == q.bbox
        for p, q in zip(a.people, b.people, strict=True)
    )


def test_a_scene_depends_on_seed_and_index_only(scenes: list[Scene]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.map(_draw, [17, 4])
    assert _equal(elsewhere[0], scenes[17]) and _equal(elsewhere[1], scenes[4])
    assert not np.array_equal(draw_scene(4, 17, SIZE, COCO).image, scenes[17].image)
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_people_heights_and_hidden_joints_are_as_promised(scenes: list[Scene]) -> None:
    counts = [len(scene.people) for scene in scenes]
    assert min(counts) >= 1 and max(counts) == 6 and np.mean(counts) >= 2.5
    heights = np.array([person.height for scene in scenes for person in scene.people]) / SIZE
    assert heights.min() >= 0.25 and heights.max() <= 0.9 + 1e-9
    assert heights.min() < 0.3 and heights.max() > 0.8
    seen = np.concatenate([person.keypoints[:, 2] for scene in scenes for person in scene.people])
    assert 0.15 <= (seen == 1).sum() / (seen > 0).sum() <= 0.4
    assert 0.02 < (seen == 0).mean() < 0.3
    views = np.array([person.facing for scene in scenes for person in scene.people])
    assert (views > 0.7).mean() > 0.5, "most people face the camera"
    assert (views < -0.7).mean() > 0.03 and (abs(views) < 0.5).mean() > 0.03


def test_labelled_joints_lie_in_the_image_and_others_are_zero(scenes: list[Scene]) -> None:
    points = np.concatenate([person.keypoints for scene in scenes for person in scene.people])
    labelled = points[points[:, 2] > 0]
    assert labelled[:, :2].min() >= 0 and labelled[:, :2].max() < SIZE
    assert not points[points[:, 2] == 0].any()
    assert set(np.unique(points[:, 2])) == {0, 1, 2}


def test_a_visible_joint_lies_on_its_own_persons_pixels(scenes: list[Scene]) -> None:
    for scene in scenes:
        for number, person in enumerate(scene.people, 1):
            seen = person.keypoints[person.keypoints[:, 2] == 2].astype(int)
            assert (scene.owner[seen[:, 1], seen[:, 0]] == number).all()


def test_a_joint_under_somebody_else_is_never_visible(scenes: list[Scene]) -> None:
    hidden = 0
    for scene in scenes:
        for number, person in enumerate(scene.people, 1):
            guessed = person.keypoints[person.keypoints[:, 2] == 1].astype(int)
            on_top = scene.owner[guessed[:, 1], guessed[:, 0]]
            hidden += int(((on_top != number) & (on_top > 0)).sum())
            for x, y, _ in guessed:  # something of the person is near enough to guess from
                near = scene.owner[max(y - 20, 0) : y + 21, max(x - 20, 0) : x + 21]
                assert (near == number).any()
    assert hidden > 200


def test_box_area_and_polygons_describe_the_visible_pixels(scenes: list[Scene]) -> None:
    for scene in scenes[:60]:
        for number, person in enumerate(scene.people, 1):
            mask = scene.owner == number
            rows, columns = np.nonzero(mask)
            x, y, w, h = person.bbox
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
            assert person.area == mask.sum()
            drawn = np.zeros((SIZE * 4, SIZE * 4), np.uint8)
            for polygon in person.segmentation:
                corners = np.round(np.array(polygon).reshape(-1, 2) * 4).astype(np.int32)
                cv2.fillPoly(drawn, [corners], 255)
            shape = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 0
            assert (shape & mask).sum() > 0.9 * mask.sum()


def test_left_is_on_the_images_right_of_a_person_who_faces_the_camera(scenes: list[Scene]) -> None:
    steps: dict[bool, list[float]] = {True: [], False: []}
    for person in (person for scene in scenes for person in scene.people):
        k = person.keypoints
        if abs(person.facing) > 0.75 and k[LEFT, 2] and k[RIGHT, 2]:
            steps[person.facing > 0].append((k[LEFT, 0] - k[RIGHT, 0]) / person.height)
    assert len(steps[True]) > 60 and len(steps[False]) > 5
    assert np.mean(np.array(steps[True]) > 0) > 0.98 and np.mean(np.array(steps[False]) < 0) > 0.98


def test_nose_and_eyes_are_unlabelled_from_behind(scenes: list[Scene]) -> None:
    people = [person for scene in scenes for person in scene.people]
    behind = np.array([person.keypoints[:3, 2].any() for person in people if person.facing < -0.8])
    ahead = np.array([person.keypoints[:3, 2].any() for person in people if person.facing > 0.8])
    assert behind.mean() < 0.1 and ahead.mean() > 0.8


def test_people_differ_from_what_is_behind_them(scenes: list[Scene]) -> None:
    """Most people can be told from the background by colour, or there is nothing to learn."""
    contrast = []
    for scene in scenes[:60]:
        for number in range(1, len(scene.people) + 1):
            mask = (scene.owner == number).astype(np.uint8)
            ring = (cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 0) & (scene.owner == 0)
            if ring.sum() > 20:
                mean = [scene.image[where].astype(float).mean(0) for where in (mask > 0, ring)]
                contrast.append(np.abs(mean[0] - mean[1]).max())
    assert np.median(contrast) > 30


def test_both_sides_of_the_body_look_alike(scenes: list[Scene]) -> None:
    """Nothing painted gives a joint away: colours around left and right joints have the same statistics."""
    for name in ("shoulder", "elbow", "wrist", "knee", "ankle"):
        colours: dict[str, list[np.ndarray]] = {"left": [], "right": []}
        for scene in scenes:
            for person in scene.people:
                for side, found in colours.items():
                    x, y, v = person.keypoints[COCO.joints.index(f"{side}_{name}")]
                    if v == 2:
                        found.append(scene.image[int(y), int(x)].astype(float))
        left, right = np.array(colours["left"]), np.array(colours["right"])
        spread = np.sqrt(left.var(0) / len(left) + right.var(0) / len(right))
        assert (np.abs(left.mean(0) - right.mean(0)) < 4.5 * spread).all(), name


def test_crowdpose_scenes_are_the_same_pictures_with_other_joints(scenes: list[Scene]) -> None:
    indices = []
    for index in range(40):
        scene = draw_scene(3, index, SIZE, CROWDPOSE)
        assert np.array_equal(scene.image, scenes[index].image)
        indices.append(scene.crowd_index)
        for person, same in zip(scene.people, scenes[index].people, strict=True):
            assert person.keypoints.shape == (14, 3)
            both = [(CROWDPOSE.joints.index(j), COCO.joints.index(j)) for j in CROWDPOSE.joints[:12]]
            assert all(np.array_equal(person.keypoints[a], same.keypoints[b]) for a, b in both)
            head, neck = person.keypoints[12], person.keypoints[13]
            assert not (head[2] and neck[2]) or np.hypot(*(head - neck)[:2]) < 0.45 * person.height
    assert min(indices) == 0 and max(indices) <= 1 and np.mean(indices) > 0.1


def test_crowd_index_counts_the_joints_of_others_in_ones_box() -> None:
    def person(points: list[tuple[int, int]], bbox: tuple[float, float, float, float]) -> Person:
        return Person(np.array([(x, y, 2) for x, y in points], float), bbox, 1.0, (), 1.0, 1.0)

    one = person([(1, 1), (2, 2), (3, 3), (4, 4)], (0, 0, 5, 5))
    two = person([(4, 4), (9, 9)], (4, 4, 8, 8))
    scene = Scene(np.zeros((1, 1, 3), np.uint8), (one, two), np.zeros((1, 1), np.uint8))
    assert scene.crowd_index == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_a_dataset_is_the_same_for_any_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "two", 12, 96, "coco", 5, workers=2)
    assert other.read_bytes() == dataset.read_bytes()
    for image in sorted((dataset.parent / "images").iterdir()):
        assert (other.parent / "images" / image.name).read_bytes() == image.read_bytes()
    assert len(list((other.parent / "images").iterdir())) == 12


@pytest.mark.parametrize(("joints", "skeleton"), [("coco", COCO), ("crowdpose", CROWDPOSE)])
def test_pycocotools_loads_a_dataset_and_scores_the_truth_as_perfect(
    tmp_path: Path, joints: str, skeleton: Skeleton
) -> None:
    path = write_dataset(tmp_path / joints, 10, 96, joints, 1, workers=1)
    document = json.loads(path.read_text())
    assert document["categories"][0]["keypoints"] == list(skeleton.joints)
    assert min(min(limb) for limb in document["categories"][0]["skeleton"]) == 1
    assert [image["id"] for image in document["images"]] == list(range(1, 11))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = CocoFile(str(path))
        results = truth.loadRes([{**one, "score": 1.0} for one in document["annotations"]])
        evaluation = COCOeval(truth, results, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        masks = [truth.annToMask(one) for one in document["annotations"]]
    assert evaluation.stats[0] > 0.99
    assert all(mask.any() for mask in masks)
    for image in document["images"]:
        pixels = cv2.imread(str(path.parent / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
    for one in document["annotations"]:
        assert one["num_keypoints"] == sum(v > 0 for v in one["keypoints"][2::3]) > 0
        if joints == "crowdpose":
            assert one["area"] == pytest.approx(0.53 * one["bbox"][2] * one["bbox"][3], abs=0.01)
    crowded = [image.get("crowdIndex") for image in document["images"]]
    assert all((value is not None and 0 <= value <= 1) == (joints == "crowdpose") for value in crowded)


def test_the_same_dataset_is_used_again_and_nothing_else_overwritten(dataset: Path, tmp_path: Path) -> None:
    out, before = dataset.parent, dataset.stat().st_mtime_ns
    assert write_dataset(out, 12, 96, "coco", 5) == dataset and dataset.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another dataset \\(seed 5, not 6\\)"):
        write_dataset(out, 12, 96, "coco", 6)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="not empty"):
        write_dataset(tmp_path, 12, 96, "coco", 5)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("drawn", [0, 5, 12])
def test_a_dataset_that_was_cut_off_is_gone_on_with(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: int
) -> None:
    write, calls = module._write_scene, list[int]()

    def cut(*arguments: Any) -> Any:
        if len(calls) == drawn:
            raise KeyboardInterrupt
        calls.append(arguments[-1])
        return write(*arguments)

    monkeypatch.setattr(module, "_write_scene", cut)
    if drawn == 12:
        monkeypatch.setattr(module, "write_json", lambda *_, **__: cut())
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        write_dataset(out, 12, 96, "coco", 5, workers=1)
    monkeypatch.undo()
    if drawn == 5:
        (out / "images" / "000002.jpg").write_bytes(b"")  # its power was lost, too
        with (out / "drawn.jsonl").open("ab") as file:
            file.write(b'[{"id": 6, "file_n\xff')
    with pytest.raises(InputError, match=r"holds a dataset that was cut off; add --resume"):
        write_dataset(out, 12, 96, "coco", 5)
    with pytest.raises(InputError, match=r"another dataset \(seed 5, not 6\)"):
        write_dataset(out, 12, 96, "coco", 6, resume=True)
    again = list[int]()
    monkeypatch.setattr(module, "_write_scene", lambda *one: (again.append(one[-1]), write(*one))[1])
    write_dataset(out, 12, 96, "coco", 5, workers=1, resume=True)
    assert again == ([1, *range(5, 12)] if drawn == 5 else list(range(drawn, 12)))
    names = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(dataset.parent) for path in dataset.parent.rglob("*") if path.is_file())
    assert all((out / name).read_bytes() == (dataset.parent / name).read_bytes() for name in names)
    write_dataset(out, 12, 96, "coco", 5, resume=True)


def test_ctrl_c_in_a_terminal_ends_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["data", "synth", str(out), "--images", "3000", "--size", "96", "--workers", "2"]
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from ofa_pose.cli import run; sys.exit(run(sys.argv[1:]))"
    running = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, start_new_session=True)
    until = time.monotonic() + 60
    while not any((out / "images").glob("*.jpg")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    errors = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 130 and errors.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in errors


def test_a_process_that_dies_ends_the_drawing_in_a_line_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def kill() -> None:
        while not any((out / "images").glob("*.jpg")):
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(OfaPoseError, match=r"a process that draws scenes died .*; what was drawn is kept: .* --resume"):
        write_dataset(out, 3000, 64, "coco", 5, workers=2)
    killer.join()
    assert not multiprocessing.active_children()
    lines = (out / "drawn.jsonl").read_text().splitlines()
    assert 1 <= len(lines) < 3000 and not (out / "annotations.json").exists()


def test_fewer_people_are_drawn_where_that_is_asked_for(tmp_path: Path, scenes: list[Scene]) -> None:
    few = [draw_scene(3, index, SIZE, COCO, most=2) for index in range(40)]
    assert {len(scene.people) for scene in few} == {1, 2} and max(len(scene.people) for scene in scenes) > 4
    assert _equal(draw_scene(3, 5, SIZE, COCO, most=6), scenes[5])
    path = write_dataset(tmp_path / "few", 3, 64, "coco", 5, workers=1, people=2)
    assert json.loads(path.read_text())["info"]["people"] == 2
    with pytest.raises(InputError, match="people"):
        write_dataset(tmp_path / "few", 3, 64, "coco", 5, workers=1)
    for people in (0, 7):
        with pytest.raises(InputError, match="choose 1 to 6"):
            write_dataset(tmp_path / "none", 3, 64, "coco", 5, workers=1, people=people)
    assert not (tmp_path / "none").exists()


def test_another_folder_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000001.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not empty"):
        write_dataset(tmp_path, 12, 96, "coco", 5, resume=True)
    assert (tmp_path / "images" / "000001.jpg").read_bytes() == b"mine"


def test_another_process_that_draws_keeps_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_dir, "FREED_S", 0.0)
    (tmp_path / "out").mkdir()
    message = "out: another process runs there; wait until it ends"
    with run_dir.alone_in(tmp_path / "out"), pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "out", 1, 64, "coco", 0, workers=1, resume=True)
    assert write_dataset(tmp_path / "out", 1, 64, "coco", 0, workers=1).exists()


@pytest.mark.parametrize("left", [None, b"", bytes(3000), b"\xff"], ids=["none", "empty", "zeros", "a byte"])
def test_images_that_a_loss_of_power_took_are_drawn_again(tmp_path: Path, left: bytes | None) -> None:
    path = write_dataset(tmp_path / "holes", 3, 64, "coco", 5, workers=1)
    images, labels = sorted((path.parent / "images").iterdir()), path.read_bytes()
    before = [image.read_bytes() for image in images]
    for image in images[1:]:
        image.unlink()
        if left is not None:
            image.write_bytes(left)
    with pytest.raises(InputError, match=r"002.jpg: 2 images of the dataset are missing or cut short; add --resume"):
        write_dataset(path.parent, 3, 64, "coco", 5)
    assert write_dataset(path.parent, 3, 64, "coco", 5, resume=True) == path
    assert [image.read_bytes() for image in images] == before and path.read_bytes() == labels
    assert write_dataset(path.parent, 3, 64, "coco", 5) == path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 96, "coco", 0), "at least 1"),
        ((1, 96, "coco", 0, 0), "at least 1"),
        ((1, 63, "coco", 0), "64 to 1024"),
        ((1, 1025, "coco", 0), "64 to 1024"),
        ((1, 96, "crowdpos", 0), "did you mean 'crowdpose'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_skeleton_with_joints_of_its_own_is_refused() -> None:
    tail = Skeleton("cat", ("nose", "tail"), (0.1, 0.1), (), ())
    with pytest.raises(InputError, match="no joint 'tail'"):
        draw_scene(0, 0, 64, tail)
