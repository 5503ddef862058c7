"""A folder of runs as a whole journey leaves them, made in seconds: nothing in it was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

import ofa_pose
from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.checkpoints.provenance import note_end, note_start
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.data.label_pictures import SAMPLES, write_samples
from ofa_pose.data.transforms import Augmentation, training_sample
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.job import SearchJob
from ofa_pose.skeleton import COCO, Skeleton
from ofa_pose.utils.run_dir import RunDir
from tests.reports.test_runs import make_run

HOSTILE = "<img src=x onerror=alert(1)>"  # a name of a joint, of a file, of a folder
SPACE = SearchSpace(
    name="tiny",
    resolution=(32, 64),
    stem=(4, 8),
    stages=((4, 8), (4, 8), (8, 12), (8, 16)),
    deconv=((4, 8), (4, 8), (4, 8)),
    expansion=(2,),
    blocks=(1, 1, 1, 1),
    kernel=3,
)
SKELETON = replace(COCO, name="own", joints=(HOSTILE, *COCO.joints[1:]))


def make_runs(out: Path, images: int = 8, joints: Skeleton = SKELETON, name: str = "x") -> Path:
    """supernet/, search/, tuned/ (which is given back), uniform/, test/ of both, and tuned/export/ under `out`."""
    annotations, folder = write_images(out / "data", images, joints, name)
    steps = [{"step": n, "loss": 1 / n, "low": 0.5 / n, "high": 0.5 / n, "lr": 1e-3 / n} for n in range(1, 30)]
    metrics = "".join(json.dumps(one) + "\n" for one in [*steps, {"step": 29, "val": {"AP": 0.25, "AR": 0.5}}])
    make_run(out / "supernet", f"train-supernet --recipe nano --out {out / 'supernet'}", metrics=metrics)
    feasible = FeasibleSpace(SPACE, 17, Budget(macs=2_500_000))

    def measure(genome: Genome) -> dict[str, float]:
        return {"AP": 0.1 + sum(genome) / 40, "AP_stderr": 0.02}

    basis = {"space": SPACE.to_dict(), "search": ["sha", 8, 4], "train": ["sha", 16, 3]}
    recipe = Recipe(search=SearchSettings(population=10, generations=3))
    SearchJob(feasible, measure, recipe, basis, {"supernet": {"path": str(out / "supernet")}}).run(out / "search")
    make_run(out / "search", f"search --supernet {out / 'supernet'} --macs 2.5M --out {out / 'search'}")
    chosen = load_spec(out / "search" / "best.yaml")
    uniform = next(spec for spec in SPACE.uniform(17) if spec != chosen)
    for run, spec in (("tuned", chosen), ("uniform", uniform)):
        words = f"finetune --subnet {out / 'search' / 'best.yaml'} --supernet {out / 'supernet'} --out {out / run}"
        make_net(make_run(out / run, words, metrics=metrics), spec, joints)
        if run == "tuned":
            note_training(out / run, words.split(), annotations, folder)
        where = {"annotations": annotations, "images": folder, "out": out / "test" / run}
        ofa_pose.evaluate(out / run, **where, breakdown=True, device="cpu")
    ofa_pose.export(out / "tuned", out=out / "tuned" / "export", formats=["yaml", "safetensors"])
    return out / "tuned"


def note_training(run: Path, words: list[str], annotations: Path, images: Path) -> None:
    """What a training keeps beside its weights: provenance.jsonl and pictures of samples."""
    dataset, directory = load_dataset(annotations, images), RunDir(run, command=words)
    note_start(directory, torch.device("cpu"), {"train": dataset})
    note_end(directory, 754.0)
    samples = [training_sample(0, 0, n, dataset.images[n], 64, dataset.skeleton, Augmentation()) for n in range(6)]
    write_samples(run / SAMPLES, samples, dataset.skeleton)


def make_net(run: Path, spec: ArchSpec, joints: Skeleton) -> None:
    weights = LitePose(spec).state_dict()
    save_checkpoint(run / "checkpoints" / "best.pt", Checkpoint("net", spec, SPACE, joints, weights))


def write_images(folder: Path, count: int, joints: Skeleton, name: str) -> tuple[Path, Path]:
    """Drawn scenes whose files are called by `name` and a number."""
    ofa_pose.data_synth(folder, images=count, size=96, workers=1)
    value = json.loads((folder / "annotations.json").read_text())
    value["categories"][0]["keypoints"] = list(joints.joints)
    for image in value["images"]:
        file = f"{name}{image['id']}.jpg"
        (folder / "images" / image["file_name"]).rename(folder / "images" / file)
        image["file_name"] = file
    (folder / "annotations.json").write_text(json.dumps(value))
    return folder / "annotations.json", folder / "images"
