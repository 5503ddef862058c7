"""The page of labelled images: which are shown, what is said of them, and that a training sees the same samples."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.label_pictures import DIMMED, sample_picture
from ofa_pose.data.loader import training_batches
from ofa_pose.data.transforms import Augmentation, training_sample
from ofa_pose.reports.label_page import Training, write_label_page
from tests.data.datasets import annotation, contents, write


def pictures(page: Path) -> list[np.ndarray]:
    codes = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text())
    found = [cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR) for code in codes]
    return [cv2.cvtColor(one, cv2.COLOR_BGR2RGB) for one in found if one is not None]


def captions(page: Path) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", page.read_text())


def test_images_are_spread_over_the_file(tmp_path: Path) -> None:
    dataset = load_dataset(*write(tmp_path, contents(21)))
    page = tmp_path / "page.html"
    write_label_page(page, dataset, 5)
    assert [one.partition(",")[0] for one in captions(page)] == ["0.png", "5.png", "10.png", "15.png", "20.png"]
    assert all(one.shape == (256, 384, 3) for one in pictures(page)), "96 × 64 pixels, four times as large"
    text = page.read_text()
    for name in dataset.skeleton.joints:
        assert f"</i>{name}" in text
    assert "left_hand ↔ right_hand" in text and "5 of 21 images" in text
    assert "http" not in text and "As a training sees" not in text and "Odd labels" not in text
    write_label_page(page, dataset, 100)
    assert len(captions(page)) == 21


def test_odd_labels_come_first_and_say_what_is_odd(tmp_path: Path) -> None:
    value = contents(9)
    value["annotations"] += [
        annotation(7, 4, [30, 10, 2, -20, 30, 2, 40, 999, 1, 25, 50, 2, 35, 50, 0]),
        annotation(8, 6, [30, 10, 2, *[0] * 12], bbox=[0, 0, 0, 0], area=0),
        annotation(9, 5, iscrowd=1, keypoints=[-9, -9, 2] * 5),
    ]
    value["images"][4]["file_name"] = "<b>.png"
    page = tmp_path / "page.html"
    write_label_page(page, load_dataset(*write(tmp_path, value)), 3)
    said = captions(page)
    assert len(said) == 2 + 2, "one of the three is shown as odd already"
    assert "person 7: left_hand, right_hand outside the image" in said[0] and said[0].startswith("&lt;b&gt;.png")
    assert "person 8: no extent" in said[1] and said[1].startswith("6.png")
    assert not any("person" in one for one in said[2:])
    assert "<b>" not in page.read_text()


def test_what_the_loss_leaves_out_is_dark(tmp_path: Path) -> None:
    value = contents(1)
    value["annotations"] = [annotation(1, 0, [0] * 15, bbox=[0, 0, 48, 64])]
    value["annotations"].append(annotation(2, 0, [0] * 15, bbox=[1e9, 1e9, 1e9, 1e9]))
    annotations, images = write(tmp_path, value)
    cv2.imwrite(str(images / "0.png"), np.full((64, 96, 3), 200, np.uint8))
    page = tmp_path / "page.html"
    write_label_page(page, load_dataset(annotations, images), 1)
    (picture,) = pictures(page)
    assert abs(picture[:, :180].mean() - 70) < 4 and abs(picture[:, 204:].mean() - 200) < 4


def test_a_training_sees_what_is_shown(tmp_path: Path, tiny_dataset: KeypointDataset) -> None:
    still = Augmentation(rotation=180, flip=1.0)
    page = tmp_path / "page.html"
    write_label_page(page, tiny_dataset, 8, Training(still, 3, 64))
    shown, how = pictures(page)[8:], (64, tiny_dataset.skeleton, still)
    assert len(shown) == 8 and "turned by up to ±180°" in page.read_text()
    (batch,) = training_batches(tiny_dataset, 8, 3, lambda _: 64, 0, 1, still)
    samples = [training_sample(3, 0, place, record, *how) for place, record in enumerate(tiny_dataset.images)]
    seen = {one.numpy().transpose(1, 2, 0).tobytes() for one in batch.images}
    assert {sample.image.tobytes() for sample in samples} == seen, "the first epoch's samples, in another order"
    for picture, sample in zip(shown, samples, strict=True):
        expected = sample_picture(sample, tiny_dataset.skeleton)
        assert np.abs(picture.astype(int) - expected.astype(int)).mean() < 8
    one = samples[0]
    dark = sample_picture(type(one)(one.image, one.keypoints[:0], np.zeros_like(one.mask)), tiny_dataset.skeleton)
    assert dark.max() <= 255 * DIMMED + 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are UTF-8")
def test_names_that_no_text_holds(tmp_path: Path) -> None:
    """File names of another encoding, and halves of characters."""
    value = contents(2)
    value["categories"][0]["keypoints"][0] = "he\ud800ad"
    value["images"][1]["file_name"] = "m\udcfcde.png"
    annotations, images = write(tmp_path, contents(2))
    (images / "1.png").rename(images / "m\udcfcde.png")
    annotations.write_text(json.dumps(value))
    write_label_page(tmp_path / "labels.html", load_dataset(annotations, images), 2)
    page = (tmp_path / "labels.html").read_text(encoding="utf-8")
    assert "he\\ud800ad" in page and "m\\udcfcde.png" in page
