from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO as PycocoIndex
from pycocotools.cocoeval import COCOeval

from ofa_pose.pose.metrics import METRICS, KeypointEvaluator, to_results
from ofa_pose.skeleton import COCO, CROWDPOSE, Skeleton, draft
from ofa_pose.utils.errors import InputError

FIXTURE = Path(__file__).resolve().parents[3] / "shared/fixtures/crowdpose_metrics"
FIVE = draft("five", ["a", "b", "c", "d", "e"])
GIVEN = {"coco": "AP AP50 AP75 AP_medium AP_large AR AR50 AR75 AR_medium AR_large"}
GIVEN["crowdpose"] = "AP AP50 AP75 AR AR50 AR75 AP_easy AP_medium AP_hard"


def evaluate_keypoints(truth: dict[str, Any], found: Any, skeleton: Skeleton, metric: str = "coco") -> dict[str, Any]:
    """Score detections once."""
    return KeypointEvaluator(truth["images"], truth["annotations"], skeleton, metric).score(found)


def make_truth(skeleton: Skeleton, images: int = 6, seed: int = 0) -> dict[str, Any]:
    """A COCO-format ground truth of random people, one of them a crowd, some joints without a label."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for image in range(images):
        truth["images"].append({"id": image + 7, "width": 640, "height": 480, "crowdIndex": image / images})
        for _ in range(rng.integers(1, 5)):
            side = 60.0 + 200 * (len(truth["annotations"]) % 2)  # COCO's medium and large
            corner = rng.uniform((0, 0), (640 - side, 480 - side))
            joints = np.zeros((len(skeleton.joints), 3))
            joints[:, :2] = corner + rng.uniform(0, side, (len(joints), 2))
            joints[:, 2] = rng.choice([0, 1, 2, 2], len(joints))
            joints[joints[:, 2] == 0] = 0
            number = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {
                    "id": number,
                    "image_id": image + 7,
                    "category_id": 1,
                    "keypoints": joints.ravel().tolist(),
                    "num_keypoints": int((joints[:, 2] > 0).sum()),
                    "bbox": [*corner.tolist(), side, side],
                    "area": 0.4 * side * side,
                    "iscrowd": int(number == 3),
                }
            )
    return truth


def make_detections(truth: dict[str, Any], noise: float, seed: int = 1) -> list[dict[str, Any]]:
    """The truth's people, moved by noise (pixels), some twice, some not at all."""
    rng = np.random.default_rng(seed)
    found = []
    for person in truth["annotations"]:
        for _ in range(rng.integers(0, 3) if noise else 1):
            joints = np.array(person["keypoints"]).reshape(1, -1, 3)
            joints[..., :2] += rng.normal(0, noise, joints[..., :2].shape)
            found += to_results(person["image_id"], joints, rng.random(1))
    return found


def pycocotools_figures(truth: dict[str, Any], found: list[dict[str, Any]], skeleton: Skeleton) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        index = PycocoIndex()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(copy.deepcopy(found)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, FIVE], ids=lambda s: s.name)
def test_coco_figures_are_pycocotools_own(skeleton: Skeleton) -> None:
    truth = make_truth(skeleton, images=12)
    found = make_detections(truth, noise=4)
    expected = pycocotools_figures(truth, found, skeleton)
    score = evaluate_keypoints(truth, found, skeleton)
    assert expected == pytest.approx([score[name] for name in GIVEN["coco"].split()], abs=1e-12)
    assert 0.05 < expected[0] < 0.95


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="shared/fixtures/crowdpose_metrics is not here")
def test_coco_figures_of_real_crowds_are_pycocotools_own() -> None:
    truth, found = (json.loads((FIXTURE / f"{name}.json").read_text()) for name in ("annotations", "results"))
    for person in truth["annotations"]:
        person["area"] = 0.53 * person["bbox"][2] * person["bbox"][3]
    score = evaluate_keypoints(truth, found, CROWDPOSE)
    expected = [-1 if score[name] is None else score[name] for name in GIVEN["coco"].split()]
    assert pycocotools_figures(truth, found, CROWDPOSE) == pytest.approx(expected, abs=1e-12)


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="shared/fixtures/crowdpose_metrics is not here")
def test_crowdpose_figures_are_the_authors() -> None:
    truth, results, expected = (
        json.loads((FIXTURE / f"{name}.json").read_text()) for name in ("annotations", "results", "expected")
    )
    score = evaluate_keypoints(truth, results, CROWDPOSE, "crowdpose")
    for name, value in expected.items():
        assert score[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_detections_score_one_without_a_word(metric: str, capfd: pytest.CaptureFixture[str]) -> None:
    truth = make_truth(FIVE)
    evaluator = KeypointEvaluator(truth["images"], truth["annotations"], FIVE, metric)
    before = copy.deepcopy(truth)
    found = make_detections(truth, noise=0)
    score = evaluator.score(found)
    assert set(score) == set(GIVEN[metric].split())
    assert all(value == pytest.approx(1) for value in score.values())
    assert evaluator.score(found) == score and truth == before
    assert capfd.readouterr().out == ""
    json.dumps(score, allow_nan=False)


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_found_is_zero_and_nobody_to_find_is_none(metric: str) -> None:
    truth = make_truth(FIVE)
    names = set(GIVEN[metric].split())
    assert evaluate_keypoints(truth, [], FIVE, metric) == dict.fromkeys(names, 0.0)
    found = make_detections(truth, noise=1)
    for people in ([], [{**a, "num_keypoints": 0} for a in truth["annotations"]]):
        assert evaluate_keypoints({**truth, "annotations": people}, found, FIVE, metric) == dict.fromkeys(names)
    assert evaluate_keypoints({"images": [], "annotations": []}, [], FIVE, metric) == dict.fromkeys(names)
    plain = [{k: v for k, v in image.items() if k != "crowdIndex"} for image in truth["images"]]
    score = evaluate_keypoints({**truth, "images": plain}, found, FIVE, metric)
    assert score["AP"] is not None and (metric == "coco" or score["AP_easy"] is None)


def test_what_a_custom_dataset_leaves_out_is_made_up_for() -> None:
    truth = make_truth(FIVE)
    found = make_detections(truth, noise=3)
    full = copy.deepcopy(truth)
    for person in full["annotations"]:
        person["area"] = 0.53 * person["bbox"][2] * person["bbox"][3]
    expected = evaluate_keypoints(full, found, FIVE)
    for missing in ({"area"}, {"area", "num_keypoints", "category_id", "id"}):
        sparse = [{k: v for k, v in a.items() if k not in missing} for a in truth["annotations"]]
        assert evaluate_keypoints({**truth, "annotations": sparse}, found, FIVE) == expected
    boxless = [{k: v for k, v in a.items() if k not in {"area", "bbox"}} for a in truth["annotations"]]
    score = evaluate_keypoints({**truth, "annotations": boxless}, found, FIVE)
    assert (
        score["AP"] is not None and 0 < score["AP"] < expected["AP"]
    )  # a box round the joints is smaller, so stricter


def test_areas_and_boxes_that_are_no_numbers_count_as_missing() -> None:
    truth = make_truth(FIVE)
    found = make_detections(truth, noise=3)

    def score(**odd: Any) -> Any:
        return evaluate_keypoints({**truth, "annotations": [{**a, **odd} for a in truth["annotations"]]}, found, FIVE)

    for area in (np.nan, np.inf, -5.0, 0):
        assert score(area=area) == score(area=None)
    assert score(bbox=[np.nan] * 4, area=None) == score(bbox=None, area=None) != score(area=None)


def test_crowdpose_takes_areas_from_boxes_and_splits_by_crowding() -> None:
    truth = make_truth(FIVE)
    found = make_detections(truth, noise=3)
    other = [{**a, "area": 1.0} for a in truth["annotations"]]
    score = evaluate_keypoints(truth, found, FIVE, "crowdpose")
    assert evaluate_keypoints({**truth, "annotations": other}, found, FIVE, "crowdpose") == score
    for name, least, most in (("easy", -1, 0.2), ("medium", 0.2, 0.8), ("hard", 0.8, 2)):
        images = [image for image in truth["images"] if least <= image["crowdIndex"] < most]
        ids = {image["id"] for image in images}
        part = {"images": images, "annotations": [a for a in truth["annotations"] if a["image_id"] in ids]}
        alone = evaluate_keypoints(part, [d for d in found if d["image_id"] in ids], FIVE, "crowdpose")
        assert images and alone["AP"] == score[f"AP_{name}"]


def test_images_may_have_names_for_ids() -> None:
    truth = make_truth(FIVE)
    found = make_detections(truth, noise=3)
    expected = evaluate_keypoints(truth, found, FIVE)
    for record in (*truth["annotations"], *found):
        record["image_id"] = f"photo {record['image_id']:03}"
    for image in truth["images"]:
        image["id"] = f"photo {image['id']:03}"
    assert evaluate_keypoints(truth, found, FIVE) == expected


def test_only_twenty_people_an_image_count() -> None:
    truth = make_truth(FIVE, images=1)
    good = make_detections(truth, noise=0)
    for one in good:
        one["score"] = 0.1
    far = np.tile([9000.0, 9000.0, 1.0], (20, 5, 1))
    assert evaluate_keypoints(truth, good + to_results(7, far, np.ones(20)), FIVE)["AR"] == 0
    some = evaluate_keypoints(truth, good + to_results(7, far[:10], np.ones(10)), FIVE)
    assert some["AR"] == pytest.approx(1) and some["AP"] is not None and some["AP"] < 0.5


def test_broken_detections_are_wrong_not_fatal() -> None:
    truth = make_truth(FIVE)
    broken = to_results(7, np.full((1, 5, 3), np.nan), np.array([np.nan]))
    score = evaluate_keypoints(truth, broken, FIVE)
    assert score["AP"] == 0


def test_results_entries_are_plain_json() -> None:
    entries = to_results(3, np.array([[[1.23456, 2.0, 0.5], [0, 0, 0]]], np.float32), np.array([0.25], np.float32))
    assert entries == [{"image_id": 3, "category_id": 1, "keypoints": [1.235, 2.0, 0.5, 0, 0, 0], "score": 0.25}]
    assert json.loads(json.dumps(entries)) == entries
    assert to_results(3, np.zeros((0, 2, 3)), np.zeros(0)) == []


def test_faults_name_the_record() -> None:
    truth = make_truth(FIVE)
    with pytest.raises(InputError, match="did you mean 'crowdpose'"):
        evaluate_keypoints(truth, [], FIVE, "crowdpos")
    with pytest.raises(InputError, match="annotation 1: holds 15 keypoint numbers instead of 42"):
        evaluate_keypoints(truth, [], CROWDPOSE)
    with pytest.raises(InputError, match="detection 1: is of image 99"):
        evaluate_keypoints(truth, to_results(99, np.zeros((1, 5, 3)), np.ones(1)), FIVE)
    truth["annotations"][2]["image_id"] = 99
    with pytest.raises(InputError, match="annotation 3: is of image 99"):
        evaluate_keypoints(truth, [], FIVE)
