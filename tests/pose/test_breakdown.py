"""AP and AR of each joint and size, against a plainly written AP and what must hold of any."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.pose.decode import decode
from ofa_pose.pose.metrics import METRICS, KeypointEvaluator, to_results
from ofa_pose.skeleton import COCO, CROWDPOSE, Skeleton, draft
from tests.pose.maps import crowd, make_maps

FIVE = draft("five", ["a", "b", "c", "d", "e"])
SEEDS = st.integers(0, 10**6)


def make_scene(skeleton: Skeleton, seed: int, images: int = 3, noise: float = 0) -> tuple[dict[str, Any], list[Any]]:
    """People of all sizes, crowds among them, and detections moved by noise (shares of a person's side), some twice.

    Without noise the people stand apart: else one person's detection may be taken for a neighbour's. The detections
    have the joints without a label, too, where they are: inside the box.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [{"id": n} for n in range(images)], "annotations": []}
    found = []
    for image in range(images):
        for place in range(rng.integers(0, 5)):
            side = rng.choice([30.0, 80.0, 200.0])
            corner = rng.uniform(100, 400, 2) + (0 if noise else 1000 * place)
            xy = corner + rng.uniform(0, side, (len(skeleton.joints), 2))
            labels = rng.choice([0, 1, 2, 2], (len(skeleton.joints), 1))
            person = {
                "id": len(truth["annotations"]) + 1,
                "image_id": image,
                "keypoints": np.hstack([xy * (labels > 0), labels]).ravel().tolist(),
                "bbox": [*corner.tolist(), side, side],
                "area": 0.6 * side**2,
                "iscrowd": int(rng.random() < 0.1),
            }
            truth["annotations"].append(person)
            for _ in range(rng.integers(0, 3) if noise else 1):
                moved = np.hstack([xy + rng.normal(0, noise * side, xy.shape), np.ones_like(labels)])
                found += to_results(image, moved[None], rng.random(1).round(1))  # some scores are the same
    return truth, found


def breakdown(truth: dict[str, Any], found: list[Any], skeleton: Skeleton, metric: str = "coco") -> dict[str, Any]:
    return KeypointEvaluator(truth["images"], truth["annotations"], skeleton, metric).breakdown(found)


def plain_oks(detection: Any, person: Any, joints: list[int], sigmas: tuple[float, ...]) -> float:
    """OKS of these joints; with a person who has none of them, of how far they lie outside its doubled box."""
    given = person["keypoints"]
    x0, y0, width, height = person["bbox"]
    labelled = [j for j in joints if given[3 * j + 2] > 0]
    total = 0.0
    for j in labelled or joints:
        x, y = detection["keypoints"][3 * j : 3 * j + 2]
        if labelled:
            dx, dy = x - given[3 * j], y - given[3 * j + 1]
        else:
            dx = max(0, x0 - width - x, x - x0 - 2 * width)
            dy = max(0, y0 - height - y, y - y0 - 2 * height)
        total += math.exp(-(dx**2 + dy**2) / (2 * person["area"] * (2 * sigmas[j]) ** 2))
    return total / len(labelled or joints)


def plain_ap(truth: dict[str, Any], found: list[Any], skeleton: Skeleton, joint: int | None = None) -> dict[str, Any]:
    """AP, AR and the number of people, in loops: of all joints, or of one."""
    every = list(range(len(skeleton.joints)))
    joints = every if joint is None else [joint]

    def is_wanted(person: Any) -> bool:
        return not person["iscrowd"] and any(person["keypoints"][3 * j + 2] > 0 for j in joints)

    def likeness(detection: Any, person: Any) -> float:
        lacks = joint is not None and person["keypoints"][3 * joint + 2] == 0
        if lacks and plain_oks(detection, person, every, skeleton.sigmas) >= 0.5:
            return 1.0
        return plain_oks(detection, person, joints, skeleton.sigmas)

    count = sum(is_wanted(person) for person in truth["annotations"])
    if not count:
        return {"AP": None, "AR": None, "people": 0}
    precisions, recalls = [], []
    for threshold in np.linspace(0.5, 0.95, 10):
        counted: list[tuple[float, bool]] = []  # score, and whether it is right; the ignored are left out
        for image in truth["images"]:
            people = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
            free = {a["id"] for a in people}
            for detection in sorted((d for d in found if d["image_id"] == image["id"]), key=lambda d: -d["score"])[:20]:
                best, choice = (False, threshold), None
                for person in people:
                    rank = (is_wanted(person), likeness(detection, person))
                    if person["id"] in free and rank[1] >= threshold and rank >= best:
                        best, choice = rank, person
                if choice is None or is_wanted(choice):
                    counted.append((detection["score"], choice is not None))
                if choice is not None and not choice["iscrowd"]:
                    free.remove(choice["id"])
        counted.sort(key=lambda pair: -pair[0])
        right, curve = 0, []
        for place, (_, correct) in enumerate(counted, start=1):
            right += correct
            curve.append((right / count, right / place))
        for recall in np.linspace(0, 1, 101):
            precisions.append(max((precision for reached, precision in curve if reached >= recall), default=0.0))
        recalls.append(right / count)
    return {"AP": float(np.mean(precisions)), "AR": float(np.mean(recalls)), "people": count}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(left[key] == (None if right[key] is None else pytest.approx(right[key], abs=1e-9)) for key in right)


@settings(max_examples=40)
@given(SEEDS, st.sampled_from([0.01, 0.04, 0.1, 0.3]), st.sampled_from([FIVE, CROWDPOSE]))
def test_all_joints_and_each_alone_are_as_plain_loops_have_them(seed: int, noise: float, skeleton: Skeleton) -> None:
    truth, found = make_scene(skeleton, seed, noise=noise)
    evaluator = KeypointEvaluator(truth["images"], truth["annotations"], skeleton)
    whole = plain_ap(truth, found, skeleton)
    assert same(evaluator.score(found), {"AP": whole["AP"], "AR": whole["AR"]})
    joints = evaluator.breakdown(found)["joints"]
    assert tuple(joints) == skeleton.joints
    for number, name in enumerate(skeleton.joints[:5]):
        assert same(joints[name], plain_ap(truth, found, skeleton, number)), name


def test_the_figures_compared_are_neither_all_zero_nor_all_one() -> None:
    truth, found = make_scene(COCO, seed=1, images=20, noise=0.04)
    every = [row["AP"] for part in breakdown(truth, found, COCO).values() for row in part.values()]
    assert len(every) == 17 + 3 and len({round(value, 6) for value in every}) > 15
    assert all(0.05 < value < 0.95 for value in every)


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(METRICS))
def test_perfect_detections_are_perfect_in_every_part(seed: int, metric: str) -> None:
    truth, found = make_scene(FIVE, seed)
    for part in breakdown(truth, found, FIVE, metric).values():
        for row in part.values():
            assert row["AP"] == row["AR"] == (pytest.approx(1) if row["people"] else None)


@settings(max_examples=40)
@given(SEEDS, st.integers(0, 4), st.sampled_from(METRICS))
def test_a_joint_that_is_off_everywhere_costs_only_itself(seed: int, joint: int, metric: str) -> None:
    truth, found = make_scene(FIVE, seed, noise=0.03)
    before = breakdown(truth, found, FIVE, metric)["joints"]
    for one in found:
        one["keypoints"][3 * joint] += 5000
    after = breakdown(truth, found, FIVE, metric)["joints"]
    name = FIVE.joints[joint]
    assert after[name]["AP"] == (0 if after[name]["people"] else None)
    assert {other: after[other] for other in after if other != name} == {o: before[o] for o in before if o != name}


def test_a_joint_without_a_label_need_not_be_found() -> None:
    truth, _ = make_scene(FIVE, seed=5, images=10)
    people = [a for a in truth["annotations"] if any(a["keypoints"])]
    found = [  # all zeros where there is no label: outside every box
        entry for a in people for entry in to_results(a["image_id"], np.reshape(a["keypoints"], (1, 5, 3)), np.ones(1))
    ]
    assert any(0 in a["keypoints"] for a in people)
    assert all(row["AP"] == pytest.approx(1) for row in breakdown(truth, found, FIVE)["joints"].values())


@settings(max_examples=40)
@given(SEEDS)
def test_sizes_count_everyone_and_are_those_of_the_score(seed: int) -> None:
    truth, found = make_scene(FIVE, seed, noise=0.05)
    evaluator = KeypointEvaluator(truth["images"], truth["annotations"], FIVE)
    sizes, score = evaluator.breakdown(found)["sizes"], evaluator.score(found)
    for size in ("medium", "large"):
        assert (sizes[size]["AP"], sizes[size]["AR"]) == (score[f"AP_{size}"], score[f"AR_{size}"])
    sides = [a["bbox"][2] for a in truth["annotations"] if not a["iscrowd"] and any(a["keypoints"])]
    counts = {"small": sides.count(30), "medium": sides.count(80), "large": sides.count(200)}
    assert {size: row["people"] for size, row in sizes.items()} == counts


def test_a_size_goes_by_the_metrics_area() -> None:
    person = {"id": 1, "image_id": 1, "keypoints": [50, 50, 2] * 5, "bbox": [0, 0, 100, 100], "area": 900.0}
    truth = {"images": [{"id": 1}], "annotations": [person]}
    found = to_results(1, np.full((1, 5, 3), 50.0), np.ones(1))
    for metric, size in (("coco", "small"), ("crowdpose", "medium")):  # 0.53 × the box is 5,300
        sizes = breakdown(truth, found, FIVE, metric)["sizes"]
        assert {name: row["people"] for name, row in sizes.items() if row["people"]} == {size: 1}
        assert sizes[size]["AP"] == 1 and [row["AP"] for row in sizes.values()].count(None) == 2


def test_nobody_and_nothing() -> None:
    truth, found = make_scene(FIVE, seed=2)
    nothing = breakdown(truth, [], FIVE)
    assert all(row["AP"] == row["AR"] == 0 for row in nothing["joints"].values())
    for people in ([], [{**a, "iscrowd": 1} for a in truth["annotations"]]):
        for part in breakdown({**truth, "annotations": people}, found, FIVE).values():
            assert all(row == {"AP": None, "AR": None, "people": 0} for row in part.values())
    assert breakdown({"images": [], "annotations": []}, [], FIVE)["sizes"]["small"]["AP"] is None


def as_truth(people: np.ndarray, area: float) -> dict[str, Any]:
    """People (P, 17, 3) of one image."""
    annotations = [
        {"id": n, "image_id": 1, "keypoints": person.ravel().tolist(), "bbox": [0, 0, 320, 320], "area": area}
        for n, person in enumerate(people, start=1)
    ]
    return {"images": [{"id": 1}], "annotations": annotations}


def test_left_and_right_confused_on_drawn_maps() -> None:
    """Maps that have both people's wrists and one's ankles on the wrong side."""
    people, tags = crowd(np.random.default_rng(3), 2, 17, 320, 320), np.array([1.0, 4.0])
    people[:, :, 2] = 1
    painted = people.copy()
    painted[:, [9, 10]] = people[:, [10, 9]]
    painted[0, [15, 16]] = people[0, [16, 15]]
    low, high = make_maps(painted, tags, 320, 320)
    (poses,) = decode(low[None], high[None], COCO.grouping_order)
    people[:, :, 2] = 2
    found = to_results(1, poses.keypoints, poses.scores)
    joints = breakdown(as_truth(people, 2000.0), found, COCO)["joints"]
    swapped = {name: row["swapped"] for name, row in joints.items() if row.get("swapped")}
    assert swapped == {"left_wrist": 1, "right_wrist": 1, "left_ankle": 0.5, "right_ankle": 0.5}
    assert (
        all(row["compared"] == 2 for name, row in joints.items() if name != "nose") and "swapped" not in joints["nose"]
    )


def test_left_and_right_that_the_metric_does_not_tell_apart_are_not_compared() -> None:
    person = crowd(np.random.default_rng(3), 1, 17, 320, 320)
    person[..., 2] = 2
    person[0, 10, :2] = person[0, 9, :2] + (4, 0)
    person[0, 12, 2] = 0  # without a label
    found = person.copy()
    found[0, [9, 10]] = person[0, [10, 9]]
    joints = breakdown(as_truth(person, 2000.0), to_results(1, found, np.ones(1)), COCO)["joints"]
    for name in ("left_wrist", "right_wrist", "left_hip", "right_hip"):
        assert (joints[name]["swapped"], joints[name]["compared"]) == (None, 0)
    assert (joints["left_knee"]["swapped"], joints["left_knee"]["compared"]) == (0, 1)


def test_joints_that_were_not_found_are_not_confused() -> None:
    person = crowd(np.random.default_rng(3), 1, 17, 320, 320)
    person[..., 2] = 2
    found = person.copy()
    found[0, [15, 16]] = 0
    joints = breakdown(as_truth(person, 2000.0), to_results(1, found, np.ones(1)), COCO)["joints"]
    assert all(
        (joints[name]["swapped"], joints[name]["compared"]) == (None, 0) for name in ("left_ankle", "right_ankle")
    )


@given(seed=SEEDS)
@settings(max_examples=15)
def test_confusion_is_what_a_plain_count_finds(seed: int) -> None:
    truth, found = make_scene(COCO, seed, noise=0.05)
    rng = np.random.default_rng(seed)
    for one in found:
        if rng.random() < 0.3:  # a mirrored person
            joints = np.array(one["keypoints"]).reshape(-1, 3)
            one["keypoints"] = joints[list(COCO.flip_index)].ravel().tolist()
        if rng.random() < 0.5:  # joints that were not found
            joints = np.array(one["keypoints"]).reshape(-1, 3)
            joints[rng.random(17) < 0.2] = 0
            one["keypoints"] = joints.ravel().tolist()
    counts = plain_swaps(truth, found)
    for name, row in breakdown(truth, found, COCO)["joints"].items():
        if "compared" in row:
            assert (row["compared"], (row["swapped"] or 0) * row["compared"]) == pytest.approx(counts[name])


def plain_swaps(truth: dict[str, Any], found: list[Any]) -> dict[str, tuple[int, int]]:
    """Of each joint how many were compared and how many of them are swapped; people matched one by one."""
    compared, swapped = (dict.fromkeys(COCO.joints, 0) for _ in range(2))
    every = list(range(17))
    for image in truth["images"]:
        people = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        wanted = [not one["iscrowd"] and any(one["keypoints"][2::3]) for one in people]
        taken: set[int] = set()
        for one in sorted((one for one in found if one["image_id"] == image["id"]), key=lambda one: -one["score"])[:20]:
            oks = [plain_oks(one, person, every, COCO.sigmas) for person in people]
            free = [n for n in range(len(people)) if oks[n] >= 0.5 and n not in taken]
            best = max(free, key=lambda n: (wanted[n], oks[n], n), default=None)
            if best is None:
                continue
            if not people[best]["iscrowd"]:
                taken.add(best)
            if wanted[best]:
                person = np.array(people[best]["keypoints"]).reshape(-1, 3)
                mine = np.array(one["keypoints"]).reshape(-1, 3)
                for pair in COCO.flip_pairs:
                    for a, b in (pair, pair[::-1]):
                        apart = math.dist(person[a, :2], person[b, :2])
                        similarity = math.exp(-(apart**2) / (2 * people[best]["area"] * (2 * COCO.sigmas[a]) ** 2))
                        if mine[a].any() and person[a, 2] > 0 and person[b, 2] > 0 and similarity < 0.5:
                            compared[COCO.joints[a]] += 1
                            nearer = math.dist(mine[a, :2], person[b, :2]) < math.dist(mine[a, :2], person[a, :2])
                            swapped[COCO.joints[a]] += nearer
    return {name: (compared[name], swapped[name]) for name in COCO.joints}
