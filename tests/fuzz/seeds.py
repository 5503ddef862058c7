"""The valid inputs that are damaged: a tiny journey of drawn scenes, made in a few seconds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import torch

from ofa_pose.arch.presets import litepose_from_spec
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.litepose_checkpoint import litepose_state_dict
from ofa_pose.cli import run
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.families.table import load_net
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.job import SearchJob
from ofa_pose.skeleton import CROWDPOSE
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.utils.files import dump_yaml, write_json, write_text
from tests.formats import slp_files, test_cvat, test_deeplabcut, test_label_studio, test_labelme, test_yolo
from tests.formats.scenes import JOINTS, Scene, write_images
from tests.inference.videos import write_video
from tests.latency.tables import make_table
from tests.searches.small_spaces import Usefulness

SPACE = SearchSpace(
    "tiny", (32, 64), (4, 8), ((4, 8), (4, 8), (8, 12), (8, 16)), ((4, 8), (4, 8), (4, 8)), (1, 2), (1, 1, 1, 1), 3
)
LITEPOSE = ArchSpec(64, 8, (8, 8, 16, 24), ((2,), (2,), (2,), (2,)), (8, 8, 8), joints=14)
FAMILIES = ("scaled-higherhrnet-shrink3", "efficienthrnet-h-4", "lightweight-openpose", "lite-hrnet-18")
FEASIBLE = FeasibleSpace(SPACE, 14, Budget(macs=10**9))
BASIS = {"sha256": "ab" * 32, "space": SPACE.to_dict(), "search": ["a.json", 7, 7]}
SCENES = [Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2), "tail": (8.0, 9.0, 1)},)), Scene("b.png", 30, 20, ())]
MODELS = {
    "onnx": "onnxruntime",
    "ncnn": "ncnn",
    "openvino": "openvino",
    "litert": "ai_edge_litert",
}  # formats, and what they need


def search_job() -> SearchJob:
    """A search of a few subnets with a made-up fitness."""
    fitness = Usefulness(SPACE)
    settings = SearchSettings(population=4, generations=2, surrogate=True, surrogate_samples=5)
    return SearchJob(FEASIBLE, lambda genome: {"AP": fitness(genome) / 10}, Recipe(search=settings), BASIS)


def make_seeds(folder: Path) -> None:
    """Write every kind's valid input into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "val")):
        write_dataset(folder / split, images=4, size=64, joints="crowdpose", seed=number, workers=1)
    write_text(folder / "space.yaml", dump_yaml(SPACE.to_dict()))
    write_text(folder / "skeleton.yaml", dump_yaml(CROWDPOSE.to_dict()))
    write_text(folder / "spec.yaml", dump_yaml({"spec": SPACE.largest(14).to_dict()}))
    write_json(folder / "litepose.json", litepose_from_spec(LITEPOSE))
    for name in FAMILIES:
        write_text(folder / "families" / f"{name}.yaml", dump_yaml(load_net(name).at(64).to_dict()))
    _write_recipe(folder)
    _write_results(folder)
    _write_formats(folder / "formats")
    _write_networks(folder)
    make_table(SPACE).save(folder / "latency.json")
    _write_bundle_results(folder / "results.csv")
    search_job().run(folder / "search")
    (folder / "images").mkdir()
    image = cv2.imread(str(folder / "val" / "images" / "000001.jpg"))
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff"):
        cv2.imwrite(str(folder / "images" / f"0{suffix}"), image)
    for codec, suffix in (("mp4v", ".mp4"), ("MJPG", ".avi")):
        write_video(folder / "videos" / f"a{suffix}", 6, codec)


def _write_recipe(folder: Path) -> None:
    data = {
        split: {"annotations": str(folder / split / "annotations.json"), "images": str(folder / split / "images")}
        for split in ("train", "val")
    }
    value = {
        "space": str(folder / "space.yaml"),
        "seed": 1,
        "data": {**data, "search_share": 0.25},
        "train": {"steps": 2, "batch": 2, "workers": 0, "lr": 1e-3, "evaluate_images": 4, "resolutions": [64]},
        "augment": {"flip": 0.5},
        "loss": {"push": 0.04},
        "decode": {"threshold": 0.1},
        "search": {"population": 4, "generations": 1, "images": 4, "calibration_images": 4, "batch": 4},
        "commands": {"finetune": {"train": {"steps": 2}}, "search": {"search": {"algorithm": "random"}}},
    }
    write_text(folder / "recipe.yaml", dump_yaml(value))


def _write_results(folder: Path) -> None:
    truth = json.loads((folder / "val" / "annotations.json").read_text())
    rows = [
        {"image_id": one["image_id"], "category_id": 1, "keypoints": one["keypoints"], "score": 0.9 - number / 100}
        for number, one in enumerate(truth["annotations"])
    ]
    write_json(folder / "results.json", rows)


def _write_bundle_results(path: Path) -> None:
    table = make_table(SPACE)
    nets = {f"net {number}": net for number, net in enumerate(table.nets)}
    names = {net: name for name, net in nets.items()}
    specs = {name: net.to_dict() for name, net in nets.items()}
    header = {**table.header.to_dict(), "nets": specs, "checks": {}}
    rows = [("anchor", ms) for ms in table.anchor]
    rows += [(names.get(subject, str(subject)), one) for subject, seen in table.ratios.items() for one in seen]
    write_text(path, "\n".join([f"# {json.dumps(header)}", *(f"{name},{one}" for name, one in rows), ""]))


def _write_formats(folder: Path) -> None:
    for name in ("cvat", "label-studio", "labelme", "sleap"):
        write_images(folder / name, SCENES)
    test_yolo.write(folder / "yolo", SCENES, flip_idx=[0, 2, 1, 3], kpt_names={0: list(JOINTS)})
    test_cvat.write(folder / "cvat", test_cvat.document(SCENES))
    tasks = [test_label_studio.task(number, scene, "relation") for number, scene in enumerate(SCENES)]
    test_label_studio.write(folder / "label-studio", tasks)
    test_labelme.write(folder / "labelme", [test_labelme.value_of(scene) for scene in SCENES])
    (folder / "deeplabcut").mkdir()
    project = test_deeplabcut.make(str(folder / "deeplabcut"), SCENES)
    test_deeplabcut.write_csv(project, SCENES, several=False)
    if importlib.util.find_spec("h5py"):
        slp_files.write(folder / "sleap" / "a.slp", SCENES, [slp_files.image_list(SCENES)], [(0, 0), (0, 1)])


def _write_networks(folder: Path) -> None:
    common = ["--recipe", str(folder / "recipe.yaml"), "--device", "cpu"]
    for command, name in (("pretrain", "net"), ("train-supernet", "supernet")):
        if run([command, *common, "--out", str(folder / name)]):
            raise RuntimeError(f"{command} does not do what it should with valid input")
    (folder / "exported").mkdir()
    for form, package in MODELS.items():
        if importlib.util.find_spec(package):
            out = folder / "exported" / form
            if run(["export", str(folder / "net"), "--format", form, "--out", str(out)]):
                raise RuntimeError(f"export to {form} does not do what it should with valid input")
    if importlib.util.find_spec("onnxruntime"):
        out = folder / "exported" / "in-graph"
        if run(["export", str(folder / "net"), "--format", "onnx", "--decoder", "in-graph", "--out", str(out)]):
            raise RuntimeError("export --decoder in-graph does not do what it should with valid input")
    net = LitePose(LITEPOSE, torch.Generator().manual_seed(0))
    torch.save({"epoch": 3, "state_dict": litepose_state_dict(net)}, folder / "litepose.pth.tar")
