"""The first screen: the network's AP on test images beside others', poses, costs, and what to run next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import ofa_pose
from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.reports.page import write_report
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_json, sha256
from tests.fuzz.kinds import damage
from tests.fuzz.mutate import deep_values
from tests.reports.made_run import HOSTILE, make_runs
from tests.reports.test_page import read


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield make_runs(tmp_path_factory.mktemp("made"), name=HOSTILE.replace("/", "")).parent


@contextmanager
def rewritten(path: Path, text: str) -> Iterator[None]:
    """A file holds another text in it."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def text_of(page: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", page).split())


def test_the_ap_on_unseen_images_stands_beside_the_uniform_nets(runs: Path) -> None:
    page = read(write_report([runs / "tuned"]))
    text, found = text_of(page), read_json(runs / "test" / "tuned" / "metrics.json")
    ap, people = found["metrics"]["AP"], found["people"]
    assert f"On 8 test images with {people} people it has AP {ap:.3f} ± " in text
    assert "the best uniformly scaled net evaluated" in text and "uniformly scaled net: uniform" in text
    assert (
        "neither for training nor for choosing" in text and "What an image takes on a device is not known here." in text
    )
    assert page.count('alt="poses on') == 6 and "<img src=x" not in page
    assert "worst: OKS 0." in text
    ankle = found["breakdown"]["joints"]["left_ankle"]
    assert f"left_ankle {ankle['AP']:.3f} {ankle['AR']:.3f} {ankle['people']} " in text and "small people" in text
    assert "safetensors" in text and "model.safetensors" in text
    assert "ofa-pose latency build --space tiny --joints 17" in text and "--format onnx" not in text


def test_several_runs_are_compared(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    done = ofa_pose.report([str(runs / "tuned"), str(runs / "uniform")], open_page=True)
    assert done.out == runs / "comparison.html" and opened == [done.out.as_uri()]
    text = text_of(read(done.out))
    assert "finetune in tuned/ and finetune in uniform/" in text and "On the same 8 test images" in text
    for run in ("tuned", "uniform"):
        ap = read_json(runs / "test" / run / "metrics.json")["metrics"]["AP"]
        assert f"finetune in {run}/ {ap:.3f} ± " in text
    alone = text_of(read(write_report([runs / "tuned", runs / "supernet"], runs / "other.html")))
    assert "No AP on test images is found of train-supernet in supernet/" in alone and "On the same" not in alone
    with pytest.raises(InputError, match="no run to report on"):
        ofa_pose.report([])


def test_a_folder_that_was_moved_as_a_whole(runs: Path, tmp_path: Path) -> None:
    before = text_of(read(write_report([runs / "tuned"], tmp_path / "before.html")))
    place = runs.rename(tmp_path / "elsewhere")
    try:
        page = read(write_report([place / "tuned"], tmp_path / "after.html"))
    finally:
        place.rename(runs)
    assert page.count('alt="poses on') == 6 and "train-supernet in supernet/: supernet" in page
    assert "neither for training nor for choosing" in text_of(page) and "The search" in text_of(page)
    assert before.count("train-supernet") == text_of(page).count("train-supernet")


@pytest.mark.parametrize("key", ["train", "search"])
def test_images_that_a_search_read_are_not_called_unseen(runs: Path, key: str) -> None:
    path = runs / "search" / "search.json"
    before, truth = path.read_text(), read_json(runs / "test" / "tuned" / "metrics.json")["data"]["sha256"]
    basis = json.loads(before)
    with rewritten(path, json.dumps({**basis, key: [truth, *basis[key][1:]]})):
        text = text_of(read(write_report([runs / "tuned"])))
    assert "These images are not unseen: they were used for" in text and "neither for training" not in text
    assert "Its AP on test images that no training or search has seen" in text


def test_images_of_a_recipe_without_a_folder_are_known_again(runs: Path) -> None:
    recipe = runs / "tuned" / "recipe.yaml"
    recipe.write_text(f"data: {{val: {{annotations: {runs / 'data' / 'annotations.json'}}}}}\n")
    try:
        text = text_of(read(write_report([runs / "tuned"])))
    finally:
        recipe.unlink()
    assert "they were used for the choice of its checkpoint (finetune in tuned/)" in text


def test_weights_that_ship_or_lie_alone_are_found(runs: Path, tmp_path: Path) -> None:
    path = runs / "tuned" / "command.txt"
    before, checkpoint = path.read_text(), load_checkpoint(runs / "tuned")
    truth = read_json(runs / "test" / "tuned" / "metrics.json")["data"]["sha256"]
    save_checkpoint(tmp_path / "alone.pt", replace(checkpoint, info={"train_sha256": truth}))
    found = {}
    for teacher in ("litepose-nano-coco", tmp_path / "alone.pt", "gone.pt"):
        with rewritten(path, f"{before.rstrip()} --teacher {teacher}\n"):
            found[str(teacher)] = text_of(read(write_report([runs / "tuned"])))
    shipped, alone, gone = found.values()
    assert "neither for training nor for choosing" in shipped and "Not all that it started from" not in shipped
    assert f"they were used for the training ({tmp_path / 'alone.pt'})" in alone
    assert "Not all that it started from is found here" in gone


def test_an_evaluation_of_other_weights_is_not_this_networks(runs: Path) -> None:
    path = runs / "test" / "tuned" / "metrics.json"
    value = read_json(path)
    value["network"]["sha256"] = "0" * 64
    with rewritten(path, json.dumps(value)):
        text = text_of(read(write_report([runs / "tuned"])))
    assert "There is no AP on test images yet" in text


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"network": 1, "data": 2}', '{"network": {}, "data": {}, "metrics": []}']
)
def test_a_damaged_evaluation_is_named_on_the_page(
    runs: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "test" / "tuned" / "metrics.json"
    with rewritten(path, damaged):
        text = text_of(read(write_report([runs / "tuned"])))
    assert "There is no AP on test images yet" in text
    if damaged != "[]":
        assert "metrics.json" in text.partition("This page is not complete")[2].partition("The network is")[0]
        assert "metrics.json" in capsys.readouterr().err


def test_without_its_images_the_page_says_so(runs: Path) -> None:
    hidden = (runs / "data" / "images").rename(runs / "data" / "hidden")
    try:
        text = text_of(read(write_report([runs / "tuned"])))
    finally:
        hidden.rename(runs / "data" / "images")
    assert "Poses cannot be shown:" in text and "it has AP" in text


def test_poses_are_not_shown_on_labels_that_were_changed_since(runs: Path) -> None:
    path = runs / "data" / "annotations.json"
    with rewritten(path, path.read_text() + "\n"):
        page = read(write_report([runs / "tuned"]))
    assert "annotations.json: is another one than the AP was taken on; evaluate again" in page
    assert 'alt="poses on' not in page and "it has AP" in text_of(page)


def test_differences_of_aps_have_the_error_of_the_same_draws(runs: Path) -> None:
    paths = [runs / "test" / run / "metrics.json" for run in ("tuned", "uniform")]
    before = [path.read_text() for path in paths]
    own, other = [0.5, 0.6, 0.4, 0.5], [0.46, 0.55, 0.37, 0.46]
    expected = np.std(np.subtract(own, other), ddof=1)
    try:
        for path, ap, draws in zip(paths, (0.5, 0.46), (own, other), strict=True):
            value = json.loads(path.read_text())
            assert len(value["draws"]) == 200 and value["versions"]["torch"]
            path.write_text(json.dumps({**value, "metrics": {"AP": ap, "AP_stderr": 0.08}, "draws": draws}))
        text = text_of(read(write_report([runs / "tuned"])))
        assert f"; 0.040 ± {expected:.3f} more than the best uniformly scaled net evaluated (0.460 ± 0.080)" in text
        assert f"-0.040 ± {expected:.3f}" in text and "leave open" not in text
        both = text_of(read(write_report([runs / "tuned", runs / "uniform"], runs / "both.html")))
        assert f"0.460 ± 0.080 -0.040 ± {expected:.3f}" in both and "do not tell it apart" not in both
        value = json.loads(paths[1].read_text())
        paths[1].write_text(json.dumps({**value, "metrics": {"AP": 0.4856}}))
        paths[0].write_text(json.dumps({**json.loads(paths[0].read_text()), "metrics": {"AP": 0.5004}}))
        text = text_of(read(write_report([runs / "tuned"])))
        assert "; 0.014 ± " in text and "(0.486)" in text and "0.486 -0.014 ± " in text
        paths[1].write_text(json.dumps({**value, "metrics": {"AP": 0.499}, "draws": [*other[:3], 0.55]}))
        text = text_of(read(write_report([runs / "tuned"])))
        assert "which is within what these images leave open (two standard errors of the difference)" in text
        both = text_of(read(write_report([runs / "tuned", runs / "uniform"], runs / "both.html")))
        assert "These images do not tell it apart from finetune in uniform/" in both
        paths[1].write_text(json.dumps({**value, "draws": None}))
        assert "0.040 more than the best uniformly" in text_of(read(write_report([runs / "tuned"])))
    finally:
        for path, text in zip(paths, before, strict=True):
            path.write_text(text)


def test_what_is_counted_and_compared_is_named(runs: Path) -> None:
    text = text_of(read(write_report([runs / "tuned"])))
    assert "MACs, thop: as in LitePose" in text and "Exact: multiply-adds alone." in text
    assert text.count("every width at the same share of its range") == 3  # beside test images, dots and the front
    assert "finetune in tuned/" in text


def test_exports_say_where_they_were_timed_and_show_no_empty_columns(runs: Path) -> None:
    path = runs / "tuned" / "export" / "export.json"
    value = read_json(path)
    assert value["files"]["yaml"]["processor"]
    bare = text_of(read(write_report([runs / "tuned"]))).partition("Exports")[2].partition("What to run")[0]
    assert bare.split()[:3] == ["format", "file", "size"] and "Time:" not in bare and "AP" not in bare
    value["files"]["yaml"] |= {"ms": 5.0, "processor": "a small board"}
    value["files"]["safetensors"]["AP"] = {"int8": 0.25}
    with rewritten(path, json.dumps(value)):
        text = text_of(read(write_report([runs / "tuned"])))
    exports = text.partition("Exports")[2].partition("What to run")[0]
    assert "format file size time AP in int8 yaml model.yaml" in exports and "5ms" in exports and "0.250" in exports
    assert "On a small board, which exported it, an image took 5ms as yaml, on one thread." in text
    assert "in one thread on a small board, beside whatever else ran" in exports and "AP in int8: without" in exports


def test_left_and_right_confused_stand_beside_the_joints(runs: Path) -> None:
    path = runs / "test" / "tuned" / "metrics.json"
    value = read_json(path)
    joints = value["breakdown"]["joints"]
    assert joints["left_ankle"]["compared"] == 0 and joints["left_ankle"]["swapped"] is None, "nobody is found"
    assert "confused" not in text_of(read(write_report([runs / "tuned"])))
    joints["left_ankle"] |= {"swapped": 0.25, "compared": 40}
    joints["right_ankle"] |= {"swapped": 0.0, "compared": 60}
    with rewritten(path, json.dumps(value)):
        text = text_of(read(write_report([runs / "tuned"])))
    assert "Left and right are confused in 10.0% of 100 joints." in text and "25.0% of 40" in text


def test_where_it_comes_from(runs: Path) -> None:
    page = read(write_report([runs / "tuned"]))
    text = text_of(page).partition("Where it comes from")[2]
    dataset = load_dataset(runs / "data" / "annotations.json", runs / "data" / "images")
    assert "took 13 min. On " in text and f"torch {torch.__version__.partition('+')[0]}" in text
    assert f"train {runs / 'data' / 'annotations.json'} 8 {dataset.people} " in text
    assert dataset.fingerprint[:12] in text and "SHA-256 " + sha256(runs / "tuned/checkpoints/best.pt") in text
    assert "--subnet " in text and "still the same" in text
    assert page.count('alt="labels of training sample') == 6 and "Labels as augmented" in page
    best = runs / "search" / "best.yaml"
    with rewritten(best, best.read_text() + "\n"):
        assert "another file now" in text_of(read(write_report([runs / "tuned"])))


@pytest.mark.parametrize("damaged", ['{"started": 5}', '{"started": "x", "machine": []}', '{"started": "", "data": 1}'])
def test_damaged_provenance_is_named_on_the_page(runs: Path, damaged: str) -> None:
    path = runs / "tuned" / "provenance.jsonl"
    with rewritten(path, damaged):
        text = text_of(read(write_report([runs / "tuned"])))
    assert "provenance.jsonl: holds values that no run writes" in text.partition("This page is not complete")[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whatever_its_files_hold_a_report_is_made_or_refused(runs: Path, seed: int) -> None:
    rng, kinds = Random(seed), {".json", ".jsonl", ".yaml", ".csv", ".txt", ".sqlite"}
    for path in sorted(one for one in runs.rglob("*.*") if one.suffix in kinds and one.parent.name != "front"):
        before = path.read_bytes()
        try:
            with deep_values(), suppress(UnicodeError, RecursionError):  # what cannot be written stays whole
                damage(path, rng)
            with suppress(InputError):
                write_report([runs / "tuned"])
        finally:
            path.write_bytes(before)


def test_pictures_that_are_no_samples_are_not_shown(runs: Path, tmp_path: Path) -> None:
    folder = runs / "tuned" / "samples"
    (folder / "0.jpg").write_text("<script>")
    (tmp_path / "secret.jpg").write_bytes(b"\xff\xd8\xff secret")
    (folder / "00.jpg").symlink_to(tmp_path / "secret.jpg")
    try:
        page = read(write_report([runs / "tuned"]))
    finally:
        (folder / "0.jpg").unlink(), (folder / "00.jpg").unlink()
    assert page.count('alt="labels of training sample') == 4, "of the first six files"
