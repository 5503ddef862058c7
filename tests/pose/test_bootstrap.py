"""The standard error of an AP, against a plain twin that copies the drawn images and has the evaluator judge them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.pose.bootstrap import (
    DRAWS,
    FEW_PEOPLE,
    draw_images,
    few_people,
    paired_error,
    resampled_ap,
    show_ap,
    shown_difference,
    standard_error,
)
from ofa_pose.pose.metrics import EVERY_SIZE, METRICS, Detections, KeypointEvaluator, to_results
from ofa_pose.skeleton import draft
from tests.pose.test_metrics import make_detections, make_truth

FIVE = draft("five", ["a", "b", "c", "d", "e"])


def odd_truth(images: int, seed: int) -> dict[str, Any]:
    """People as data hold them: crowds, nobody labelled, copies of one another, images without anybody, huge areas."""
    truth, rng = make_truth(FIVE, images, seed), np.random.default_rng(seed)
    for person in truth["annotations"]:
        kind = rng.integers(8)
        if kind == 0:
            person["iscrowd"] = 1
        if kind == 1:
            person["num_keypoints"] = 0
        if kind == 2:
            person["area"] = 3e10
    twins = [dict(person, id=1000 + person["id"]) for person in truth["annotations"][::5]]
    truth["annotations"] += twins
    truth["images"] += [{"id": 900 + n, "width": 640, "height": 480, "crowdIndex": 0.5} for n in range(2)]
    return truth


def odd_detections(truth: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Good and bad ones, some on images of nobody, one larger than any person."""
    rng = np.random.default_rng(seed)
    found = make_detections(truth, float(rng.uniform(1, 12)), seed)
    noise = rng.uniform(0, 500, (6, 5, 3))
    noise[0] *= 1e6
    for number, joints in enumerate(noise):
        image = truth["images"][-1 - number % min(4, len(truth["images"]))]["id"]
        found += to_results(image, joints[None], rng.random(1))
    return found


def copied(truth: dict[str, Any], found: list[dict[str, Any]], row: np.ndarray) -> tuple[dict[str, Any], list[Any]]:
    """The ground truth and the detections of a draw: each image as often as it was drawn, its copies side by side."""
    images, people, results = [], [], []
    order = sorted(image["id"] for image in truth["images"])
    for image, count in zip(order, row.tolist(), strict=True):
        for number in range(count):
            name = image * 1000 + number
            images.append({"id": name})
            people += [{**p, "image_id": name} for p in truth["annotations"] if p["image_id"] == image]
            results += [{**p, "image_id": name} for p in found if p["image_id"] == image]
    return {"images": images, "annotations": people}, results


def judge(truth: Mapping[str, Any], metric: str = "coco") -> KeypointEvaluator:
    return KeypointEvaluator(truth["images"], truth["annotations"], FIVE, metric)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 9), metric=st.sampled_from(METRICS))
def test_each_draw_is_what_the_evaluator_says_of_the_copied_images(seed: int, images: int, metric: str) -> None:
    truth = odd_truth(images, seed)
    found = odd_detections(truth, seed)
    score, draws = judge(truth, metric).score_resampled(found)
    rows = draw_images(len(truth["images"]))
    for row, value in list(zip(rows, draws, strict=True))[:6]:
        copies, results = copied(truth, found, row)
        expected = judge(copies, metric).score(results)["AP"]
        assert (None if np.isnan(value) else value) == pytest.approx(expected, abs=1e-12)
    known = draws[np.isfinite(draws)]
    expected = np.std(known, ddof=1) if len(known) > 1 else None
    assert score["AP_stderr"] == (None if expected is None else pytest.approx(expected))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tied=st.booleans())
def test_every_image_once_gives_the_ap_itself(seed: int, tied: bool) -> None:
    truth = odd_truth(5, seed)
    found = odd_detections(truth, seed)
    if tied:
        found = [{**person, "score": round(person["score"], 1)} for person in found]
    evaluator = judge(truth)
    matches = evaluator._scorer(found).matches(EVERY_SIZE)
    once = resampled_ap(matches, np.ones((1, len(truth["images"])), np.int64))
    score = evaluator.score(found)
    assert (None if np.isnan(once[0]) else once[0]) == pytest.approx(score["AP"], abs=1e-12)
    assert {**score, "AP_stderr": None} == {**evaluator.score_resampled(found)[0], "AP_stderr": None}


def test_many_draws_at_a_time_or_few_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = odd_truth(8, 3)
    found = odd_detections(truth, 3)
    whole = judge(truth).score_resampled(found)[1]
    monkeypatch.setattr("ofa_pose.pose.bootstrap.CHUNK", 40)
    np.testing.assert_array_equal(judge(truth).score_resampled(found)[1], whole)


def test_draws_are_of_as_many_images_and_always_the_same() -> None:
    rows = draw_images(30)
    assert rows.shape == (DRAWS, 30) and (rows.sum(axis=1) == 30).all() and rows.min() == 0
    draw_images.cache_clear()
    np.testing.assert_array_equal(draw_images(30), rows)
    assert len({tuple(row) for row in rows.tolist()}) == DRAWS
    # of an image, the count's mean and variance are 1 and 1 - 1/30
    assert rows.mean() == 1 and rows.var() == pytest.approx(29 / 30, abs=0.05)


def test_an_error_is_as_large_as_the_spread_over_other_images() -> None:
    """APs of 60 sets of images differ by what one set says about itself."""
    errors, aps = [], []
    for seed in range(60):
        truth = make_truth(FIVE, 24, seed)
        score, _ = judge(truth).score_resampled(make_detections(truth, 5, seed + 1000))
        errors.append(score["AP_stderr"])
        aps.append(score["AP"])
    assert np.mean(errors) == pytest.approx(np.std(aps, ddof=1), rel=0.25)


def test_where_nothing_can_be_said_there_is_no_error() -> None:
    truth = make_truth(FIVE, 3)
    nobody = {"images": truth["images"], "annotations": []}
    score, draws = judge(nobody).score_resampled(Detections.join([], 5))
    assert score["AP_stderr"] is None and np.isnan(draws).all()
    json.dumps(score, allow_nan=False)
    score, draws = judge({"images": [], "annotations": []}).score_resampled([])
    assert score["AP_stderr"] is None and np.isnan(draws).all()
    found_nobody = judge(truth).score_resampled([])[0]
    assert found_nobody["AP"] == 0 == found_nobody["AP_stderr"]
    assert standard_error(None) is None and standard_error([0.5]) is None


def test_the_difference_of_two_networks_is_surer_than_either() -> None:
    truth = make_truth(FIVE, 30)
    good = make_detections(truth, 4, seed=5)
    worse = [{**person, "keypoints": [x + 0.7 for x in person["keypoints"]]} for person in good]
    (one, first), (_, second) = (judge(truth).score_resampled(found) for found in (good, worse))
    error = paired_error(first, second)
    assert error is not None and 0 < error < one["AP_stderr"] / 2
    assert paired_error(first, first) == 0
    assert paired_error(first, None) is None and paired_error(first, second[:-1]) is None


def test_an_error_costs_little() -> None:
    truth = make_truth(FIVE, 200)
    evaluator, found = judge(truth), make_detections(truth, 5)
    noise = np.random.default_rng(0).uniform(0, 500, (200, 15, 5, 3))
    for image, joints in zip(truth["images"], noise, strict=True):
        found += to_results(image["id"], joints, joints[:, 0, 2] / 500)
    matches = evaluator._scorer(found).matches(EVERY_SIZE)
    weights = draw_images(200)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        resampled_ap(matches, weights)
        seconds.append(time.perf_counter() - start)
    assert len(found) > 3000 and min(seconds) < 0.6


def test_in_words() -> None:
    assert show_ap(0.52, 0.06) == "0.520 ± 0.060" and show_ap(0.52, None, 4) == "0.5200"


def test_differences_are_those_of_the_aps_as_shown() -> None:
    assert (show_ap(0.6154, None), show_ap(0.6006, None)) == ("0.615", "0.601")
    assert shown_difference(0.6154, 0.6006) == 0.014 and shown_difference(0.6006, 0.6154) == -0.014
    assert f"{shown_difference(0.60012, 0.60049):+.3f}" == "+0.000"
    said = few_people(30, 0.52, 0.06, "the search images")
    assert said == "the search images show only 30 people, so AP 0.520 ± 0.060 (one standard error) says little"
    assert few_people(FEW_PEOPLE, 0.5, 0.1, "") is None and few_people(None, 0.5, 0.1, "") is None
    assert few_people(3, None, None, "") is None
