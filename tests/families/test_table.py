"""Networks of all families by name and from files, and every one of them through the commands that take a net."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.arch.spec import ArchSpec, ForeignSpec, NetSpec, read_shape
from ofa_pose.backends.runtimes import make_runner
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.data.loader import clean_batches
from ofa_pose.families import table
from ofa_pose.families.efficienthrnet import FAMILY as EFFICIENT
from ofa_pose.families.higherhrnet import HigherHRNetSpec
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.models.sync_norm import SyncNorm, synchronise
from ofa_pose.skeleton import BUILT_IN
from ofa_pose.synthetic.dataset import write_dataset
from ofa_pose.train.objectives import Distillation
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError

PRESETS = table.all_presets()
TRAINED = {"higherhrnet": "scaled-higherhrnet-shrink3", "efficienthrnet": "efficienthrnet-h-4"}
SMALL = {
    "higherhrnet": HigherHRNetSpec(
        64, 4, ((1, 1), (1, 1, 1), (0, 1, 1, 1)), (1, 1, 1), stem=8, bottleneck=8, deconv=8, deconv_blocks=0, joints=14
    ),
    "efficienthrnet": EFFICIENT.presets["efficienthrnet-h-4"].at(64).with_joints(14),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_spec_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    spec = PRESETS[name]
    files.write_text(tmp_path / "net.yaml", files.dump_yaml({"name": name, "spec": spec.to_dict()}))
    (tmp_path / "net.json").write_text(json.dumps(spec.to_dict()))
    assert (
        table.load_net(name) == table.load_net(tmp_path / "net.yaml") == table.load_net(tmp_path / "net.json") == spec
    )
    assert table.load_net(name, 5).joints == 5
    assert read_shape(spec.to_dict()).resolution == spec.resolution


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("higherhrnet-w33", "did you mean 'higherhrnet-w32'"),
        ("efficienthrnet-h4", "did you mean 'efficienthrnet-h-4'"),
        ("shrink3", "did you mean 'scaled-higherhrnet-shrink3'"),
        ("nets/none.yaml", "no such file"),
    ],
)
def test_a_wrong_name_is_answered_by_the_nearest(net: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        table.load_net(net)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"family": "higherhrnt"}, "no such family of networks: 'higherhrnt'; did you mean 'higherhrnet'?"),
        ({"family": "higherhrnet", "resolution": 64}, "has no"),
        ({**SMALL["higherhrnet"].to_dict(), "depth": 3}, "unknown key 'depth'"),
        ({**SMALL["higherhrnet"].to_dict(), "multiple": 8}, "unknown key 'multiple'"),
        ({"famly": "higherhrnet"}, "unknown key 'famly' in a network spec; did you mean 'family'?"),
        ({**SMALL["higherhrnet"].to_dict(), "resolution": 65}, "65"),
        ([1], "holds no network spec"),
        (5, "holds no network spec"),
        (None, "holds no network spec"),
    ],
)
def test_a_faulty_spec_is_refused(value: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as error:
        table.load_net(tmp_path / "net.json")
    assert words in str(error.value) and "net.json" in str(error.value)


def test_a_litepose_is_asked_for_where_others_have_no_place(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps(SMALL["higherhrnet"].to_dict()))
    with pytest.raises(InputError, match="family 'higherhrnet', not 'litepose'"):
        ArchSpec.from_dict(SMALL["higherhrnet"].to_dict())


@pytest.mark.parametrize("name", [name for name, spec in PRESETS.items() if spec.family in TRAINED])
def test_presets_give_maps_of_the_agreed_shape(name: str) -> None:
    net = table.build_pose_net(PRESETS[name].with_joints(5), torch.Generator().manual_seed(0)).eval()
    for height, width in ((64, 64), (48, 112)):
        with torch.no_grad():
            low, high = net(torch.randn(2, 3, height, width))
        assert low.shape == (2, 10, height // 4, width // 4) and high.shape == (2, 5, height // 2, width // 2)


def test_weights_follow_from_the_generator() -> None:
    nets = [table.build_net(SMALL["higherhrnet"], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    one, other, third = (torch.cat([value.flatten() for value in net.parameters()]) for net in nets)
    assert torch.equal(one, other) and not torch.equal(one, third)


def test_too_many_parameters_are_refused_before_they_are_made() -> None:
    with pytest.raises(InputError, match="parameters, more than 200M"):
        table.build_net(ofa_pose_large())


def ofa_pose_large() -> NetSpec:
    spec = PRESETS["higherhrnet-w48"]
    assert isinstance(spec, HigherHRNetSpec)
    return HigherHRNetSpec.from_dict({**spec.to_dict(), "width": 256})


def test_every_batch_norm_is_synchronised() -> None:
    net = table.build_net(SMALL["efficienthrnet"], torch.Generator().manual_seed(0))
    norms = [name for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    synchronise(net)
    assert norms == [name for name, module in net.named_modules() if isinstance(module, SyncNorm)]
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_subnet_is_a_litepose(tmp_path: Path) -> None:
    space = load_space("litepose-nano")
    supernet, skeleton = Supernet(space, 17, torch.Generator().manual_seed(0)), BUILT_IN["coco"]
    kept = Checkpoint("supernet", supernet.spec, space, skeleton, dict(supernet.state_dict()))
    save_checkpoint(tmp_path / "supernet.pt", kept)
    with pytest.raises(InputError, match="of the family 'higherhrnet', not a subnet"):
        ofa_pose.finetune(subnet="higherhrnet-w32", supernet=tmp_path / "supernet.pt", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["lightweight-openpose", "lite-hrnet-18"])
def test_what_is_counted_alone_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not trained or evaluated here: "):
        ofa_pose.pretrain(tmp_path / "run", recipe="nano", net=name)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("families") / "scenes"
    write_dataset(out, images=16, size=64, joints="crowdpose", seed=3, workers=1)
    there = (f"annotations={out}/annotations.json", f"images={out}/images")
    data = [f"data.{split}.{part}" for split in ("train", "val", "test", "search") for part in there]
    settings = ("steps=12", "batch=8", "lr=2e-3", "warmup=0", "workers=0", "evaluate_every=12", "evaluate_images=8")
    return [*data, "decode.calibrate=false", *(f"train.{one}" for one in settings)]


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_a_net_of_every_family_goes_the_whole_way(family: str, scenes: list[str], tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(files.dump_yaml(SMALL[family].to_dict()))
    call = {"recipe": "nano", "net": str(tmp_path / "net.yaml"), "overrides": scenes, "device": "cpu"}
    trained = ofa_pose.pretrain(tmp_path / "run", **call)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < 0.9 * losses[0]
    checkpoint = load_checkpoint(trained.checkpoint)
    assert checkpoint.spec == SMALL[family]
    found = ofa_pose.evaluate(tmp_path / "run", device="cpu")
    assert found.images == 16 and 0 <= found.metrics["AP"] <= 1

    exported = ofa_pose.export(
        tmp_path / "run", formats=["onnx", "yaml", "safetensors", "torchscript"], out=tmp_path / "files"
    )
    assert exported.reports["onnx"]["max_difference"] < 1e-4
    assert table.load_net(exported.files["yaml"]) == SMALL[family]
    model, image = ofa_pose.load(str(exported.files["onnx"])), np.zeros((80, 100, 3), np.uint8)
    assert isinstance(model.spec, ForeignSpec) and family in repr(model)
    assert np.allclose(
        model(image, 0).scores, ofa_pose.load(str(tmp_path / "run"), device="cpu")(image, 0).scores, atol=1e-3
    )
    with pytest.raises(InputError, match="layer plan"):
        ofa_pose.export(tmp_path / "run", formats=["ncnn"], out=tmp_path / "others")
    with pytest.raises(InputError, match="LitePose"):
        ofa_pose.export(tmp_path / "run", formats=["litepose"], out=tmp_path / "others")
    assert family in ofa_pose.report(tmp_path / "run", out=tmp_path / "report.html").out.read_text()

    others = ofa_pose.pretrain(tmp_path / "more", **{**call, "init": trained.checkpoint})
    assert others.AP >= 0
    with pytest.raises(InputError, match="gives a LitePose no weights"):
        ofa_pose.pretrain(tmp_path / "lite", **{**call, "net": "litepose-xs", "init": trained.checkpoint})


def test_a_net_of_another_family_teaches(scenes: list[str], tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(files.dump_yaml(SMALL["higherhrnet"].to_dict()))
    call = {"recipe": "nano", "overrides": [*scenes, "train.resolutions=[64]"], "device": "cpu"}
    ofa_pose.pretrain(tmp_path / "teacher", net=str(tmp_path / "net.yaml"), **call)
    overrides = [*scenes, "train.resolutions=[64]"]
    run = TrainingRun.prepare(
        "pretrain", None, tmp_path / "run", "nano", overrides, device="cpu", teacher=tmp_path / "teacher"
    )
    pupil = table.build_pose_net(SMALL["efficienthrnet"], torch.Generator().manual_seed(0))
    objective = run.objective(pupil)
    batch = next(clean_batches(run.train, 64, 2, [0, 1]))
    parts = objective.loss(batch, 0)
    assert isinstance(objective, Distillation) and isinstance(parts, dict)
    assert run.teacher is not None and run.teacher.spec == SMALL["higherhrnet"]


@pytest.mark.parametrize("family", SMALL)
def test_runners_compute_what_torch_does(family: str) -> None:
    net = table.build_pose_net(SMALL[family], torch.Generator().manual_seed(0)).eval()
    assert isinstance(net, PoseNet)
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 80, 3), np.uint8)
    for ours, expected in zip(make_runner(net, "onnxruntime", 1)(images), TorchRunner(net)(images), strict=True):
        assert np.abs(ours - expected).max() < 1e-4
