"""Exported models without torch: the poses of their checkpoints, found with NumPy, OpenCV, SciPy and ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import ofa_pose
from ofa_pose import runtime
from ofa_pose.backends.runtimes import BACKENDS, SUFFIXES
from ofa_pose.data.images import read_image
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.exports.formats import export_checkpoint, metadata, open_source
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.errors import InputError
from tests.test_floors import ROOT, reached

NANO = "litepose-nano-coco"
DEVICE = {"numpy", "cv2", "scipy", "onnxruntime", "openvino", "ncnn", "ai_edge_litert"}  # all that a device has
# A finder that refuses packages, as if they were not installed.
REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"there is no {{name}} on a device", name=name)

sys.meta_path.insert(0, Refuse())
"""
REST = ("pydantic", "yaml", "typer", "rich", "matplotlib", "pycocotools", "deap", "thop", "faster_coco_eval")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> KeypointDataset:
    out = tmp_path_factory.mktemp("runtime") / "scenes"
    write_dataset(out, images=4, size=192, joints="coco", seed=5, workers=1)
    return load_dataset(out / "annotations.json", out / "images")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped net as ONNX."""
    files = export_checkpoint(NANO, ["onnx"], tmp_path_factory.mktemp("exported")).files
    return Path(files["onnx"])


def on_a_device(code: str, folder: Path, refused: tuple[str, ...]) -> list[str]:
    """The lines that a program prints where these packages are missing."""
    program = REFUSE.format(refused=refused) + code
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("flip", [False, True])
def test_the_poses_of_the_checkpoint(exported: Path, scenes: KeypointDataset, flip: bool) -> None:
    ours, theirs = runtime.load(exported, flip=flip), ofa_pose.load(NANO, "cpu", flip=flip)
    assert (ours.spec, ours.skeleton, ours.resolution) == (theirs.spec, COCO, 192)
    assert ours.config == theirs.config != DecodeConfig()
    people = 0
    for record in scenes.images:
        found, expected = ours(record.path), theirs(record.path)
        assert found.keypoints.shape == expected.keypoints.shape
        np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.1)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        people += int((found.scores > 0.3).sum())
    assert people >= 4


@pytest.mark.parametrize(
    ("backend", "name"), [("openvino", "net.xml"), ("ncnn", "net.param"), ("litert", "net.tflite")]
)
def test_other_runtimes_find_the_same(backend: str, name: str, scenes: KeypointDataset, tmp_path: Path) -> None:
    pytest.importorskip(BACKENDS[backend].backend.packages[0])
    source, write = open_source(NANO, "net", supernets=False), BACKENDS[backend].backend.write
    assert write
    write(source.net, tmp_path / name, metadata(source, in_graph=True))
    ours, theirs = runtime.load(tmp_path / name, threads=1), ofa_pose.load(NANO, "cpu")
    assert (ours.spec, ours.skeleton, ours.config) == (theirs.spec, theirs.skeleton, theirs.config)
    for record in scenes.images:
        np.testing.assert_allclose(ours(record.path).keypoints, theirs(record.path).keypoints, atol=0.1)


def test_ofa_pose_load_takes_an_exported_model(exported: Path, scenes: KeypointDataset) -> None:
    image = scenes.images[0].path
    for options in ({}, {"resolution": 128}, {"resolution": 128, "flip": True}):
        ours, theirs = runtime.load(exported, **options), ofa_pose.load(exported, **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(ours(image).keypoints, theirs(image).keypoints)
    with pytest.raises(InputError, match=r"model\.onnx: an exported model runs on the CPU; name no device"):
        ofa_pose.load(exported, device="cpu")


@pytest.mark.parametrize("refused", [("torch",), ("torch", *REST)])
def test_a_device_without_them(
    exported: Path, scenes: KeypointDataset, tmp_path: Path, refused: tuple[str, ...]
) -> None:
    image = scenes.images[0].path
    code = f"""
import json
import ofa_pose.runtime as runtime

poses = runtime.load({str(exported)!r})({str(image)!r})
print(json.dumps(poses.keypoints.tolist()))
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    keypoints, modules = map(json.loads, on_a_device(code, tmp_path, refused))
    np.testing.assert_allclose(keypoints, ofa_pose.load(NANO, "cpu")(image).keypoints, atol=0.1)
    assert not {"torch", *REST} & set(modules) and {"numpy", "onnxruntime"} <= set(modules)


def test_nothing_else_is_reached() -> None:
    """Nor torch by an import inside a function; of other packages such an import needs nothing on a device."""
    outside = {name.partition(".")[0] for name in reached("ofa_pose.runtime", at_once=True)} - {"ofa_pose"}
    assert outside - sys.stdlib_module_names <= DEVICE
    opened = [f"ofa_pose.backends.{entry.file or entry.name}" for entry in SUFFIXES.values()]
    for module in ("ofa_pose.runtime", *opened):  # the table imports those by name
        assert not [name for name in reached(module, at_once=False) if name.partition(".")[0] == "torch"]


def test_the_example_of_the_docstring(exported: Path, scenes: KeypointDataset, tmp_path: Path) -> None:
    assert runtime.__doc__ is not None
    lines = runtime.__doc__.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    import cv2"))
    last = next(number for number, line in enumerate(lines) if "imwrite" in line)
    example = textwrap.dedent("\n".join(lines[first : last + 1]))
    assert last - first + 1 == 10
    (tmp_path / "model.onnx").write_bytes(exported.read_bytes())
    photo = scenes.images[0].read()
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo[..., ::-1])
    printed = on_a_device(example, tmp_path, ("torch", *REST))
    people = sum(line.startswith("a person, score 0.") for line in printed)
    assert people >= 1 and len(printed) == people * 18 and any("left_hip: " in line for line in printed)
    drawn = read_image(tmp_path / "poses.jpg")
    assert drawn.shape == photo.shape and np.abs(drawn.astype(int) - photo).max() > 60


@pytest.mark.parametrize("missing", ["typer", "torch"])
def test_the_command_line_of_a_device_says_what_is_missing(missing: str, tmp_path: Path) -> None:
    """What the script `ofa-pose` of an installation without dependencies does."""
    arguments = ["ofa-pose", "predict", "photo.jpg", "--checkpoint", NANO, "--out", "poses"]
    code = f"sys.argv = {arguments!r}\nfrom ofa_pose.__main__ import main\nmain()"
    program = REFUSE.format(refused=(missing,)) + code
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"error: the command line needs the package {missing}; pip ")
    assert len(done.stderr.splitlines()) == 1


def spoiled(exported: Path, to: Path, **metadata: Any) -> Path:
    """A copy of the model with other metadata; None takes an entry away."""
    model = onnx.load(str(exported))
    values = {entry.key: entry.value for entry in model.metadata_props} | metadata
    onnx.helper.set_model_props(model, {key: value for key, value in values.items() if value is not None})
    onnx.save(model, str(to))
    return to


def test_the_decoders_settings_may_be_missing(exported: Path, tmp_path: Path) -> None:
    assert runtime.load(spoiled(exported, tmp_path / "a.onnx", decode=None)).config is None
    model = runtime.load(spoiled(exported, tmp_path / "b.onnx", decode='{"tag_threshold": 2}'))
    assert model.config == DecodeConfig(tag_threshold=2)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"spec": None}, r"does not say its spec; write it with ofa-pose export"),
        ({"skeleton": None}, r"does not say its skeleton; write it with ofa-pose export"),
        ({"spec": "{"}, r"holds no valid JSON as its spec"),
        ({"spec": "[" * 100_000}, r"holds no valid JSON as its spec"),
        ({"spec": "{}"}, r"the network spec has no 'resolution'"),
        ({"skeleton": "[]"}, r"is not a skeleton"),
        ({"decode": "3"}, r"holds no mapping as its decode"),
        ({"decode": '{"treshold": 0.1}'}, r"unknown decoder setting 'treshold'; did you mean 'threshold'\?"),
        ({"decode": '{"threshold": "0.1"}'}, r"decoder setting 'threshold' is '0\.1'"),
        ({"decode": '{"threshold": NaN}'}, r"decoder setting 'threshold' is nan"),
        ({"decode": '{"max_people": 2.5}'}, r"decoder setting 'max_people' is 2\.5"),
    ],
)
def test_models_that_do_not_explain_themselves(
    exported: Path, tmp_path: Path, metadata: dict[str, str | None], message: str
) -> None:
    with pytest.raises(InputError, match=rf"bad\.onnx: {message}"):
        runtime.load(spoiled(exported, tmp_path / "bad.onnx", **metadata))


def test_what_is_not_a_model(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.onnx: no such file"):
        runtime.load(tmp_path / "gone.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(InputError, match=r"empty\.onnx: cannot be loaded"):
        runtime.load(tmp_path / "empty.onnx")
    with pytest.raises(InputError, match="resolution 8;"):
        runtime.load(exported, resolution=8)
    with pytest.raises(InputError, match=r"model\.mlpackage: is a model of Core ML, which runs it on .* a Mac; name a"):
        runtime.load(tmp_path / "model.mlpackage")
    with pytest.raises(InputError, match=r"net\.pt: is not an exported model"):
        runtime.load("net.pt")


def test_a_command_of_its_own(exported: Path, scenes: KeypointDataset, tmp_path: Path) -> None:
    """Without torch and typer, as on a device: lines, JSON and pictures of photos; faults in a line."""
    photos = sorted(map(str, scenes.images_dir.iterdir()))[:2]
    code = f"from ofa_pose.runtime import main; print(main([{str(exported)!r}, *{photos!r}, '--out', 'out']))"
    *lines, done = on_a_device(code, tmp_path, ("torch", *REST))
    assert done == "0" and [line.split(": ")[0] for line in lines if not line.startswith(" ")] == photos
    model = runtime.load(exported)
    for photo in photos:
        poses = model(photo)
        kept = json.loads((tmp_path / "out" / f"{Path(photo).stem}.json").read_text())
        assert kept == poses.to_dict() and len(kept["people"]) == len(poses)
        assert (tmp_path / "out" / f"{Path(photo).stem}.jpg").stat().st_size > 1000
    for words, fault in (
        ([photos[0], str(tmp_path / Path(photos[0]).name)], "has the name of"),
        ([str(tmp_path / "none.jpg")], "none.jpg"),
    ):
        call = f"print(main([{str(exported)!r}, *{words!r}, '--out', 'more']))"
        code = f"import sys; from ofa_pose.runtime import main; sys.stderr = sys.stdout; {call}"
        *lines, done = on_a_device(code, tmp_path, ())
        assert done == "2" and len(lines) == 1 and fault in lines[0]


def test_pillow_images_are_seen_as_a_viewer_shows_them(exported: Path, scenes: KeypointDataset, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    photo = sorted(scenes.images_dir.iterdir())[0]
    turned = pillow.open(photo)
    data = turned.getexif()
    data[0x0112] = 6  # turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=data, quality=95)
    model = runtime.load(exported)
    for path in (photo, tmp_path / "turned.jpg"):
        one, other = model(pillow.open(path), 0.1), model(path, 0.1)
        assert len(one) == len(other) and np.allclose(one.keypoints, other.keypoints, atol=1)


def test_a_skeleton_of_other_joints_is_refused(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(str(exported))
    (entry,) = (entry for entry in model.metadata_props if entry.key == "skeleton")
    entry.value = json.dumps(CROWDPOSE.to_dict())
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(InputError, match=r"other\.onnx: its network finds 17 joints, its skeleton has 14"):
        runtime.load(tmp_path / "other.onnx")
