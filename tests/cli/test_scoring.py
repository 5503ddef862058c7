"""`eval --results`: whatever the files hold, figures, null or 0, or a line that names the fault."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call, Called
from tests.cli.test_bad_input import refused
from tests.formats import test_cvat
from tests.formats.test_reading import SCENE, zipped

FIXTURE = Path(__file__).resolve().parents[3] / "shared/fixtures/crowdpose_metrics"
JOINTS = ["head", "left_hand", "right_hand"]
Score = Callable[..., Called]


def finite_or_null(value: Any) -> Iterator[bool]:
    """Whether each value deep inside is null or a finite number."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from finite_or_null(inner)
    else:
        yield value is None or (isinstance(value, int | float) and math.isfinite(value))


@pytest.fixture
def truth() -> dict[str, Any]:
    """Three images with a custom skeleton: two people, one person, nobody."""
    people = [(1, 10.0), (1, 300.0), (2, 10.0)]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480, "crowdIndex": 0.1 * n} for n in (1, 2, 3)
        ],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": 1,
                "keypoints": [x + 5, 60, 2, x + 30, 90, 2, x + 60, 99, 1],
                "num_keypoints": 3,
                "bbox": [x, 50, 70, 60],
                "area": 3000.0,
                "iscrowd": 0,
            }
            for n, (image, x) in enumerate(people, start=1)
        ],
        "categories": [{"id": 1, "name": "puppet", "keypoints": JOINTS, "skeleton": [[1, 2], [1, 3]]}],
    }


@pytest.fixture
def found(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Everybody, in their places."""
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9}
        for a in truth["annotations"]
    ]


@pytest.fixture
def score(call: Call, tmp_path: Path) -> Score:
    """Call eval --results on these values; what it prints as JSON must be figures and null."""

    def scoring(truth: Any, found: Any, *options: object, as_json: bool = True) -> Called:
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        (tmp_path / "found.json").write_text(json.dumps(found))
        named = ("--results", tmp_path / "found.json", "--annotations", tmp_path / "truth.json")
        called = call("eval", *named, *options, *(["--json"] if as_json else []))
        assert "Traceback" not in called.err and "RuntimeWarning" not in called.err
        if as_json and not called.code:
            assert all(finite_or_null(called.result))
        return called

    return scoring


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="shared/fixtures/crowdpose_metrics is not here")
def test_crowdpose_figures_are_the_authors(call: Call) -> None:
    where = ("--results", FIXTURE / "results.json", "--annotations", FIXTURE / "annotations.json")
    called = call("eval", *where, "--metric", "crowdpose", "--json")
    assert called.code == 0, called.err
    expected = json.loads((FIXTURE / "expected.json").read_text())
    assert len(expected) >= 9
    for name, value in expected.items():
        assert called.result["metrics"][name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
def test_breakdown_is_given_where_it_is_asked_for(score: Score, truth: Any, found: Any, metric: str) -> None:
    for one in found:
        one["keypoints"] = [*one["keypoints"][:6], 0, 400, 0]
    called = score(truth, found, "--metric", metric, "--breakdown")
    result = called.result
    assert set(result) == {"metrics", "images", "people", "seconds", "breakdown"}
    good, bad = {"AP": pytest.approx(1), "AR": 1, "people": 3}, {"AP": 0, "AR": 0, "people": 3}
    hands = {"left_hand": {**good, "swapped": 0, "compared": 3}, "right_hand": {**bad, "swapped": 0, "compared": 3}}
    hands["right_hand"]["swapped"] = pytest.approx(1 / 3)  # 0, 400 is nearer to the left hand of the one at 300
    assert result["breakdown"]["joints"] == {"head": good, **hands}
    assert [row["people"] for row in result["breakdown"]["sizes"].values()] == [0, 3, 0]
    assert result["breakdown"]["sizes"]["small"]["AP"] is None
    assert "breakdown" not in score(truth, found, "--metric", metric).result
    shown = score(truth, found, "--metric", metric, "--breakdown", as_json=False)
    assert shown.code == 0 and not shown.out
    for word in ("right_hand", "joints", "medium", "people", "1.0000", "–"):
        assert word in shown.err


def test_an_ap_comes_with_its_standard_error_and_the_number_of_people(score: Score, truth: Any, found: Any) -> None:
    for number in range(2, 40):  # every second one is found
        truth["images"].append({**truth["images"][0], "id": number * 100})
        people = [p for p in truth["annotations"] if p["image_id"] == truth["images"][0]["id"]][:1]
        truth["annotations"] += [{**p, "id": number * 100 + n, "image_id": number * 100} for n, p in enumerate(people)]
        if number % 2:
            there = [p for p in found if p["image_id"] == truth["images"][0]["id"]][:1]
            found += [{**p, "image_id": number * 100} for p in there]
    called = score(truth, found)
    wanted = [p for p in truth["annotations"] if not p.get("iscrowd")]
    assert called.result["people"] == len(wanted) < 50
    error = called.result["metrics"]["AP_stderr"]
    # of a share of images, sqrt(p (1 - p) / n)
    share = called.result["metrics"]["AP"]
    assert error == pytest.approx((share * (1 - share) / len(truth["images"])) ** 0.5, rel=0.25)
    assert (
        f"the images show only {len(wanted)} people, so AP {share:.3f} ± {error:.3f} (one standard error)" in called.err
    )
    shown = score(truth, found, as_json=False)
    assert f"{share:.4f} ± {error:.4f} (standard error)" in shown.err and "AP_stderr" not in shown.err
    more = [{**p, "id": 10**6 + n} for n, p in enumerate(wanted)] + [{**wanted[0], "id": 10**7 + n} for n in range(20)]
    assert "people, so" not in score({**truth, "annotations": [*truth["annotations"], *more]}, found).err


def test_results_are_of_the_annotations_own_category(call: Call, data: Path, tmp_path: Path) -> None:
    truth = json.loads((data / "val" / "annotations.json").read_text())
    for record in truth["annotations"]:
        record["category_id"] = 7
    truth["categories"][0]["id"] = 7
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    where = ("--annotations", tmp_path / "truth.json", "--images", data / "val" / "images")
    called = call("eval", "--checkpoint", "litepose-nano-coco", *where, "--out", tmp_path / "out", "--json")
    assert called.code == 0, called.err
    entries = json.loads((tmp_path / "out" / "results.json").read_text())
    assert entries and {entry["category_id"] for entry in entries} == {7}


def test_what_predict_writes_can_be_scored(call: Call, net: Path, data: Path, tmp_path: Path) -> None:
    """Its results name images by their files; a name that several folders have names none."""
    folder = data / "val"
    poses = ("predict", folder / "images", "--checkpoint", net, "--out", tmp_path / "poses", "--device", "cpu")
    assert call(*poses).code == 0
    file = tmp_path / "poses" / "predictions.json"
    truth = json.loads((folder / "annotations.json").read_text())
    person = truth["annotations"][0]
    (name,) = [image["file_name"] for image in truth["images"] if image["id"] == person["image_id"]]
    entries = [{"image_id": name, "keypoints": person["keypoints"], "score": 0.9}]
    assert all(isinstance(entry["image_id"], str) for entry in json.loads(file.read_text()))
    file.write_text(json.dumps(json.loads(file.read_text()) + entries))
    words = ("eval", "--results", file, "--annotations", folder / "annotations.json", "--json")
    scored = call(*words)
    assert scored.code == 0 and scored.result["metrics"]["AP"] > 0, scored.err
    for image in truth["images"]:
        image["file_name"] = f"{image['id']}/{name}"
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    refused(call("eval", "--results", file, "--annotations", tmp_path / "truth.json"), f"image_id '{name}'", "not in")


def test_an_ap_on_training_images_is_warned_of(call: Call, net: Path, data: Path) -> None:
    named = ((part, data / part / "annotations.json", data / part / "images") for part in ("train", "val"))
    warned = {}
    for part, labels, images in named:
        words = ("eval", "--checkpoint", net, "--annotations", labels, "--images", images, "--device", "cpu")
        warned[part] = "was trained on these images" in call(*words).err
    assert warned == {"train": True, "val": False}


def test_breakdown_of_a_checkpoint(call: Call, net: Path, data: Path, tmp_path: Path) -> None:
    where = ("--annotations", data / "val" / "annotations.json", "--images", data / "val" / "images")
    called = call("eval", "--checkpoint", net, *where, "--breakdown", "--out", tmp_path / "out", "--json")
    assert called.code == 0, called.err
    assert len(called.result["breakdown"]["joints"]) == 17
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {key: written[key] for key in called.result} == called.result  # and what was evaluated, for reports
    again = call("eval", "--results", tmp_path / "out" / "results.json", *where[:2], "--breakdown", "--json").result
    assert (again["metrics"], again["breakdown"]) == (called.result["metrics"], called.result["breakdown"])


@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
def test_nothing_found_is_zero_nobody_there_is_null(score: Score, truth: Any, found: Any, metric: str) -> None:
    options = ("--metric", metric, "--breakdown")
    nothing = score(truth, [], *options).result
    assert nothing["metrics"]["AP"] == nothing["metrics"]["AR"] == 0
    head, *hands = nothing["breakdown"]["joints"].values()
    assert head == {"AP": 0, "AR": 0, "people": 3}
    assert all(row == {**head, "swapped": None, "compared": 0} for row in hands)
    for count in (len(found), 0):
        nobody = score({**truth, "annotations": []}, found[:count], *options).result
        assert set(nobody["metrics"].values()) == {None}
        assert all(row["AP"] is None for part in nobody["breakdown"].values() for row in part.values())
    score({**truth, "annotations": []}, [], *options, as_json=False)


def test_what_the_ground_truth_leaves_out_is_made_up_for(score: Score, truth: Any, found: Any) -> None:
    for missing in ("area", "num_keypoints", "iscrowd"):
        sparse = [{k: v for k, v in a.items() if k != missing} for a in truth["annotations"]]
        assert score({**truth, "annotations": sparse}, found).result["metrics"]["AP"] == pytest.approx(1), missing
    plain = [{k: v for k, v in image.items() if k != "crowdIndex"} for image in truth["images"]]
    metrics = score({**truth, "images": plain}, found, "--metric", "crowdpose").result["metrics"]
    assert metrics["AP"] == pytest.approx(1)
    assert metrics["AP_easy"] is metrics["AP_medium"] is metrics["AP_hard"] is None


def test_what_is_odd_in_the_ground_truth_is_reported(score: Score, truth: Any, found: Any, tmp_path: Path) -> None:
    truth["annotations"][0]["area"] = float("nan")
    warned = score(truth, found).err
    assert "warning: " in warned and "sigmas are defaults" in warned and "1 people have no usable area" in warned
    skeleton = {"name": "puppet", "joints": JOINTS, "sigmas": [0.05] * 3, "flip_pairs": [], "limbs": []}
    (tmp_path / "puppet.yaml").write_text(json.dumps(skeleton))
    warned = score(truth, found, "--skeleton", tmp_path / "puppet.yaml").err
    assert "sigmas" not in warned and "1 people have no usable area" in warned


def test_results_of_another_category_do_not_count(score: Score, truth: Any, found: Any) -> None:
    truth["categories"].append({"id": 2, "name": "dog"})
    dogs = [{**found[0], "image_id": 3, "category_id": 2, "score": 1.0}, {"image_id": 1, "category_id": 2, "bbox": []}]
    assert score(truth, [*dogs, *found]).result["metrics"]["AP"] == pytest.approx(1)
    for category in (1, None, 7, True, [2]):
        wrong = {**dogs[0], "category_id": category}
        assert score(truth, [wrong, *found]).result["metrics"]["AP"] == pytest.approx(3 / 4), category
    del wrong["category_id"]
    assert score(truth, [wrong, *found]).result["metrics"]["AP"] == pytest.approx(3 / 4)
    refused(score(truth, [dogs[0], {**found[0], "score": None}]), "result 1")  # counted as in the file


@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
def test_one_image(score: Score, truth: Any, found: Any, metric: str) -> None:
    one = {**truth, "images": truth["images"][:1], "annotations": truth["annotations"][:2]}
    assert score(one, found[:2], "--metric", metric).result["metrics"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
def test_doubles_and_people_where_nobody_is_are_wrong(score: Score, truth: Any, found: Any, metric: str) -> None:
    def figures(detections: Any) -> dict[str, Any]:
        return score(truth, detections, "--metric", metric).result["metrics"]

    best = [{**one, "score": 1.0} for one in found]
    assert figures(found + best)["AP"] == pytest.approx(1)  # the doubles come after everybody
    one_wrong = figures([{**found[0], "image_id": 3, "score": 1.0}, *found])
    assert one_wrong["AP"] == pytest.approx(3 / 4) and one_wrong["AR"] == 1
    assert figures([best[0], best[0], *found[1:]])["AP"] == pytest.approx((34 + 67 * 3 / 4) / 101)  # recall 1/3, then 1


def test_images_may_have_names_for_ids(score: Score, truth: Any, found: Any) -> None:
    expected = score(truth, found[1:], "--breakdown").result
    for record in (*truth["annotations"], *found):
        record["image_id"] = f"photo {record['image_id']}"
    for image in truth["images"]:
        image["id"] = f"photo {image['id']}"
    assert score(truth, found[1:], "--breakdown").result == expected
    assert 0.5 < expected["metrics"]["AP"] < 0.8


@pytest.mark.parametrize("metric", ["coco", "crowdpose"])
@pytest.mark.parametrize("area", [None, float("nan"), float("inf"), -1.0, 0, pytest.param(10**400, id="huge")])
def test_of_an_area_that_is_none_the_box_stands_in(
    score: Score, truth: Any, found: Any, area: Any, metric: str
) -> None:
    for one in found:
        one["keypoints"] = [x + 4 for x in one["keypoints"]]

    def result() -> Any:
        return score(truth, found, "--metric", metric, "--breakdown").result

    truth["annotations"][1]["area"] = 0.53 * 70 * 60
    expected = result()
    truth["annotations"][1]["area"] = area
    assert result() == expected and 0 < expected["metrics"]["AP"] < 1


def test_an_area_that_is_text_is_refused(score: Score, truth: Any, found: Any) -> None:
    truth["annotations"][1]["area"] = "big"
    refused(score(truth, found), "annotation 2", "area is")


@pytest.mark.parametrize("area", [3000.0, None, float("nan")])
def test_without_a_box_that_round_the_joints_stands_in(score: Score, truth: Any, found: Any, area: Any) -> None:
    for one in found:
        one["keypoints"] = [x + 4 for x in one["keypoints"]]
    truth["annotations"][2] |= {"bbox": [15, 60, 55, 39], "area": area if area == 3000 else 0.53 * 55 * 39}
    expected = score(truth, found, "--breakdown").result
    truth["annotations"][2]["area"] = area
    del truth["annotations"][2]["bbox"]
    assert score(truth, found, "--breakdown").result == expected


@pytest.mark.parametrize("odd", [{"iscrowd": 1}, {"num_keypoints": 0, "keypoints": [0] * 9}])
def test_ignored_people_need_no_box_either(score: Score, truth: Any, found: Any, odd: Any) -> None:
    truth["annotations"][1] |= odd
    del truth["annotations"][1]["bbox"], truth["annotations"][1]["area"]
    result = score(truth, [found[0], *found[2:]], "--breakdown").result
    assert result["metrics"]["AP"] == pytest.approx(1) and result["breakdown"]["joints"]["head"]["people"] == 2


@pytest.mark.parametrize("count", ["3", [3], {}, float("nan"), -2])
def test_a_count_of_joints_that_is_none_is_refused(score: Score, truth: Any, found: Any, count: Any) -> None:
    truth["annotations"][1]["num_keypoints"] = count
    refused(score(truth, found), "annotation 2", "num_keypoints is", "leave it out")


@pytest.mark.parametrize(("count", "people"), [(None, 3), (3.0, 3), (0, 2)])
def test_a_stored_count_of_joints_is_trusted(score: Score, truth: Any, found: Any, count: Any, people: int) -> None:
    truth["annotations"][1]["num_keypoints"] = count
    result = score(truth, found, "--breakdown").result
    assert result["breakdown"]["joints"]["head"]["people"] == people and result["metrics"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    "options",
    [("--resolution", 64), ("--images", "."), ("--no-flip",), ("--flip",), ("--batch", 16), ("--device", "cpu")]
    + [("--decoding", "ours"), ("--scales", "2"), ("--resolution", 64, "--batch", 2)],
)
def test_options_of_a_network_are_refused(score: Score, truth: Any, found: Any, options: tuple[Any, ...]) -> None:
    words = [word for word in options if str(word).startswith("--")]
    refused(score(truth, found, *options), "--results are decoded already; leave out", *words)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"image_id": 9, "keypoints": [1] * 9, "score": 1}, "image_id 9"),
        ({"image_id": [1], "keypoints": [1] * 9, "score": 1}, "image_id"),
        ({"image_id": 1, "keypoints": [1] * 6, "score": 1}, "holds 6"),
        ({"image_id": 1, "keypoints": [float("nan")] * 9, "score": 1}, "not a finite number"),
        ({"image_id": 1, "keypoints": [1] * 9, "score": None}, "not a finite number"),
        ({"image_id": 1, "score": 1}, "has no image_id, keypoints and score"),
    ],
)
def test_results_at_fault_are_named(score: Score, truth: Any, found: Any, entry: Any, word: str) -> None:
    refused(score(truth, [*found, entry]), "result 3", word)


def test_far_places_are_wrong_not_fatal(score: Score, truth: Any, found: Any) -> None:
    far = {**found[0], "keypoints": [1e308, -1e308, 1] * 3, "score": 1}
    assert score(truth, [far, *found], "--breakdown").result["metrics"]["AP"] == pytest.approx(3 / 4)


def test_how_often_sides_are_confused_is_shown_beside_the_joints(score: Score, truth: Any, found: Any) -> None:
    for one in found:
        one["keypoints"] = [*one["keypoints"][:6], 0, 400, 0]
    shown = score(truth, found, "--breakdown", as_json=False).err
    assert re.search(r"joints +AP +AR +people +sides confused", shown)
    assert re.search(r"right_hand .* 33\.3% of 3\b", shown) and re.search(r"left_hand .* 0\.0% of 3\b", shown)
    assert re.search(r"sizes +AP +AR +people *$", shown, re.MULTILINE)


def test_ground_truth_in_a_zip_file_needs_no_images(call: Call, tmp_path: Path) -> None:
    path = zipped(tmp_path / "task.zip", {"annotations.xml": test_cvat.document([SCENE])})
    (tmp_path / "results.json").write_text("[]")
    called = call("eval", "--results", tmp_path / "results.json", "--annotations", path, "--json")
    assert called.code == 0 and called.result["images"] == 1, called.err
