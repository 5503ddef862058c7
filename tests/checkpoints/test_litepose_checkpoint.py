"""Checkpoints of the LitePose repository: names, wrappings, faults, and the outputs its own code computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa_pose.arch.presets import load_spec, spec_from_litepose
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ofa_pose.checkpoints.litepose_checkpoint import Imported, import_checkpoint, litepose_state_dict, tensor_names
from ofa_pose.exports.formats import export_checkpoint
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO, CROWDPOSE
from ofa_pose.utils.errors import InputError
from tests.networks import picture, randomised, same_state

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "official_checkpoints"
XS, SUPERNET = FIXTURES / "litepose_auto_xs_crowdpose.pt", FIXTURES / "supernet_crowdpose.pt"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason="no ../shared/fixtures/official_checkpoints")

SPEC = ArchSpec(64, 8, (8, 16, 24, 32), ((2,), (3, 2), (2,), (2,)), (8, 12, 8), kernel=3, joints=14)
MODULES = """first.0.0 first.0.1 first.1.0 first.1.1 first.2 first.3
stage.1.1.inv.0 stage.1.1.inv.1 stage.1.1.depth_conv.0 stage.1.1.depth_conv.1 stage.1.1.point_conv.0
stage.1.1.point_conv.1 deconv_refined.2 deconv_raw.0 deconv_bnrelu.1.0 final_refined.0.conv.0 final_refined.0.conv.1
final_refined.0.conv.3 final_raw.1.conv.0 final_raw.1.conv.1 final_raw.1.conv.3"""  # some of each kind
NORM = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@pytest.fixture
def net() -> LitePose:
    return randomised(LitePose(SPEC, torch.Generator().manual_seed(0))).eval()


@pytest.fixture
def state(net: LitePose) -> dict[str, Tensor]:
    """The net as that repository would save it."""
    return litepose_state_dict(net)


Take = Callable[[Any], Imported]


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Save a value and import it as the tiny net."""

    def taking(value: Any) -> Imported:
        torch.save(value, tmp_path / "theirs.pth.tar")
        return import_checkpoint(tmp_path / "theirs.pth.tar", SPEC, CROWDPOSE)

    return taking


def test_names_of_each_kind_of_layer(state: dict[str, Tensor]) -> None:
    modules: dict[str, set[str]] = {}
    for key in state:
        module, kind = key.rsplit(".", 1)
        modules.setdefault(module, set()).add(kind)
    assert set(MODULES.split()) <= modules.keys()
    tops = {"first": 6, "stage": 5 * 6, "deconv_refined": 3, "deconv_raw": 3, "deconv_bnrelu": 3}
    for top, count in {**tops, "final_refined": 2 * 3, "final_raw": 2 * 3}.items():
        assert sum(module.split(".")[0] == top for module in modules) == count
    assert all(kinds in ({"weight"}, NORM) for kinds in modules.values())
    assert state["deconv_raw.0.weight"].shape == (24, 8, 4, 4)  # stage 3 first
    assert state["final_raw.0.conv.3.weight"].shape == (28, 8, 1, 1)


def test_there_and_back(net: LitePose, state: dict[str, Tensor], take: Take, tmp_path: Path) -> None:
    done = take(state)
    assert (len(done.used), done.ignored, done.missed) == (len(state), (), ())
    assert done.checkpoint.skeleton == CROWDPOSE
    assert done.checkpoint.info["imported_from"] == "theirs.pth.tar"
    save_checkpoint(tmp_path / "ours.pt", done.checkpoint)
    assert same_state(load_checkpoint(tmp_path / "ours.pt", kind="net").build(), net)


@pytest.mark.parametrize("prefix", ["", "module.", "1.", "module.1."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefixes_and_wrapped_state_dicts(
    net: LitePose, state: dict[str, Tensor], take: Take, prefix: str, wrapped: bool
) -> None:
    value: Any = {prefix + key: tensor for key, tensor in state.items()}
    if wrapped:  # as its training writes checkpoint.pth.tar
        value = {"epoch": 3, "model": "pose_mobilenet", "state_dict": value, "perf": 2, "optimizer": {"state": {}}}
    assert same_state(take(value).checkpoint.build(), net)


def test_half_precision_becomes_single(net: LitePose, state: dict[str, Tensor], take: Take) -> None:
    weights = take({key: v.half() if v.is_floating_point() else v for key, v in state.items()}).checkpoint.weights
    assert weights["stem.0.conv.weight"].dtype == torch.float32
    assert weights["stem.0.norm.num_batches_tracked"].dtype == torch.int64
    assert torch.allclose(weights["stem.0.conv.weight"], net.state_dict()["stem.0.conv.weight"], atol=1e-3)


def test_other_entries_are_ignored_and_counters_may_be_missing(state: dict[str, Tensor], take: Take) -> None:
    extra = {"stage.0.0.Linear5x5.weight": torch.eye(25), "loss_factory.weight": torch.ones(1)}
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    done = take({**kept, **extra})
    assert set(done.ignored) == extra.keys()
    assert set(done.missed) == state.keys() - kept.keys()
    assert set(done.used) == kept.keys()


def refused(take: Take, value: Any, *lines: str) -> None:
    with pytest.raises(InputError) as caught:
        take(value)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines), found
    for line, pattern in zip(found, lines, strict=True):
        assert "theirs.pth.tar: " in line
        assert re.search(pattern, line), line


def test_missing_and_misshapen_entries_are_all_named(state: dict[str, Tensor], take: Take) -> None:
    del state["first.3.running_var"]
    state["stage.1.1.inv.0.weight"] = state["stage.1.1.inv.0.weight"][:, :8]
    refused(
        take,
        state,
        r"has no 'first\.3\.running_var', which the net needs in shape \(8,\)",
        r"'stage\.1\.1\.inv\.0\.weight' has shape \(32, 8, 1, 1\), the net needs \(32, 16, 1, 1\); .*--arch",
    )


def test_a_deeper_net_is_not_cut(state: dict[str, Tensor], take: Take) -> None:
    state["stage.0.1.inv.0.weight"] = torch.zeros(16, 8, 1, 1)
    refused(take, state, r"'stage\.0\.1\.inv\.0\.weight' is not a part of the net; .*--arch")


def test_other_joints_are_named(net: LitePose, tmp_path: Path, state: dict[str, Tensor], take: Take) -> None:
    take(state)
    with pytest.raises(InputError, match=r"\(28, 12, 1, 1\), the net needs \(34, 12, 1, 1\).*has 14 joints"):
        import_checkpoint(tmp_path / "theirs.pth.tar", SPEC, COCO)


@pytest.mark.parametrize(
    ("spoilt", "pattern"),
    [
        (torch.tensor(float("nan")).expand(8), "not finite numbers"),
        (torch.ones(8, dtype=torch.int64), r"holds torch\.int64, the net needs torch\.float32"),
        ("a word", r"is not a tensor, the net needs one of shape \(8,\)"),
    ],
)
def test_spoilt_values(state: dict[str, Any], take: Take, spoilt: Any, pattern: str) -> None:
    refused(take, {**state, "first.3.weight": spoilt}, pattern)


def test_both_with_and_without_a_prefix(state: dict[str, Tensor], take: Take) -> None:
    refused(take, {**state, "module.first.2.weight": state["first.2.weight"]}, r"holds 'first\.2\.weight' twice")


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 1}, {"state_dict": 3}, {}, torch.ones(3)])
def test_files_without_a_litepose(take: Take, value: Any) -> None:
    refused(take, value, "holds no (state dict|LitePose)")


def test_files_that_are_no_checkpoints(tmp_path: Path, take: Take, net: LitePose) -> None:
    path = tmp_path / "no.pt"
    with pytest.raises(InputError, match="no such file"):
        import_checkpoint(path, SPEC, CROWDPOSE)
    with pytest.raises(InputError, match="is a folder"):
        import_checkpoint(tmp_path, SPEC, CROWDPOSE)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="is not a checkpoint, or a truncated one"):
        import_checkpoint(path, SPEC, CROWDPOSE)
    save_checkpoint(path, Checkpoint("net", SPEC, None, CROWDPOSE, net.state_dict()))
    with pytest.raises(InputError, match="is a checkpoint of ofa-pose already"):
        import_checkpoint(path, SPEC, CROWDPOSE)


def test_no_code_in_the_file_is_run(net: LitePose, take: Take) -> None:
    refused(take, {"state_dict": net}, r"holds Python objects, not tensors only; save model\.state_dict\(\) alone")


def test_a_net_with_a_residual_that_ours_has_not(state: dict[str, Tensor], tmp_path: Path, take: Take) -> None:
    take(state)
    spec = replace(SPEC, stages=(8, 16, 32, 32))
    with pytest.raises(InputError, match=r"theirs\.pth\.tar: stages 3 and 4 are both 32 wide"):
        import_checkpoint(tmp_path / "theirs.pth.tar", spec, CROWDPOSE)


def test_a_supernet_of_ones_own_space(tiny_space: SearchSpace, tmp_path: Path) -> None:
    """Its subnets compute what they did, from the shared statistics."""
    supernet = randomised(Supernet(tiny_space, 14, torch.Generator().manual_seed(1))).eval()
    own = supernet.state_dict()
    torch.save({key: own[name] for name, key in tensor_names(own).items()}, tmp_path / "theirs.pt")
    done = import_checkpoint(tmp_path / "theirs.pt", tiny_space, CROWDPOSE, {"space": "tiny"})
    assert (done.checkpoint.kind, done.checkpoint.space) == ("supernet", tiny_space)
    assert done.checkpoint.recipe == {"space": "tiny"}
    built = done.checkpoint.build()
    assert isinstance(built, Supernet) and same_state(built, supernet)
    with torch.inference_mode():
        for one, other in zip(
            built(picture(), tiny_space.smallest(14)), supernet(picture(), tiny_space.smallest(14)), strict=True
        ):
            assert torch.equal(one, other)


def fixture(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = torch.load(path, weights_only=True)
    return value


def differences(found: tuple[Tensor, ...], expected: list[Tensor]) -> list[float]:
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert all(one.abs().max() > 0.1 for one in expected)
    return [float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)]


@needs_fixtures
def test_a_fixed_net_computes_what_the_repository_computed() -> None:
    value = fixture(XS)
    spec = spec_from_litepose(value["arch"], value["num_joints"])
    assert spec == load_spec("litepose-xs", 14)
    done = import_checkpoint(XS, spec, CROWDPOSE)
    assert (len(done.used), done.ignored, done.missed) == (len(value["state_dict"]), (), ())
    with torch.inference_mode():
        assert max(differences(done.checkpoint.build()(value["input"].float()), value["outputs"])) <= 1e-4


@needs_fixtures
def test_subnets_of_the_supernet_compute_what_the_repository_computed() -> None:
    """From the shared statistics, without recalibration; by slices, and cut out."""
    value = fixture(SUPERNET)
    done = import_checkpoint(SUPERNET, load_space("litepose"), CROWDPOSE)
    assert len(done.used) + len(done.ignored) == len(value["state_dict"]) and not done.missed
    assert all("Linear" in key for key in done.ignored) and len(done.ignored) == 34 * 4
    supernet = done.checkpoint.build()
    assert isinstance(supernet, Supernet) and len(value["cases"]) == 2
    with torch.inference_mode():
        for case in value["cases"]:
            spec, image = spec_from_litepose(case["arch"], 14), value["input"].float()
            assert max(differences(supernet(image, spec), case["outputs"])) <= 1e-4
            assert max(differences(extract(supernet, spec)(image), case["outputs"])) <= 1e-4


@needs_fixtures
@pytest.mark.parametrize(("path", "shape"), [(XS, "litepose-xs"), (SUPERNET, "litepose")], ids=["net", "supernet"])
def test_back_to_the_repository_and_here_again(path: Path, shape: str, tmp_path: Path) -> None:
    """Its strict loading needs every key, the unused ones of a supernet too."""
    whole: ArchSpec | SearchSpace = load_space(shape) if path == SUPERNET else load_spec(shape, 14)
    first = import_checkpoint(path, whole, CROWDPOSE).checkpoint
    written = export_checkpoint(first, ["litepose-weights"], tmp_path).files["litepose-weights"]
    theirs, back = fixture(path)["state_dict"], fixture(Path(written))
    assert back.keys() == theirs.keys()
    assert all(back[key].shape == theirs[key].shape for key in theirs)
    assert all(torch.equal(back[key], theirs[key].to(back[key].dtype)) for key in theirs if "Linear" not in key)
    again = import_checkpoint(written, whole, CROWDPOSE).checkpoint
    assert (again.kind, again.spec, again.space, again.skeleton) == (
        first.kind,
        first.spec,
        first.space,
        first.skeleton,
    )
    assert again.weights.keys() == first.weights.keys()
    assert all(torch.equal(again.weights[name], first.weights[name]) for name in first.weights)
