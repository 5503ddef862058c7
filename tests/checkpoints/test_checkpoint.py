"""Checkpoints rebuild their network to the last bit, and a wrong or damaged file is reported in one line."""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import (
    Checkpoint,
    DamagedCheckpoint,
    check_joints,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from ofa_pose.checkpoints.digest import digest, read_torch
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import COCO, CROWDPOSE, draft
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.networks import packed_otherwise, picture, randomised, same_state


@pytest.fixture
def checkpoint(tiny_spec: ArchSpec, tiny_space: SearchSpace) -> Checkpoint:
    net = randomised(LitePose(tiny_spec))
    recipe, info = {"space": "tiny", "train": {"lr": 1e-3, "sides": [64]}}, {"step": 3, "metrics": {"AP": 0.5}}
    return Checkpoint("net", tiny_spec, tiny_space, CROWDPOSE, net.state_dict(), recipe, info)


def test_a_net_comes_back_to_the_last_bit_and_with_all_that_belongs_to_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    loaded = load_checkpoint(tmp_path / "a.pt", "net")
    for field in ("kind", "spec", "space", "skeleton", "recipe", "info", "training"):
        assert getattr(loaded, field) == getattr(checkpoint, field), field
    net = loaded.build()
    assert type(net) is LitePose and not net.training
    assert same_state(net, checkpoint.build())
    with torch.no_grad():
        for one, other in zip(net(picture()), checkpoint.build()(picture()), strict=True):
            assert torch.equal(one, other)


def test_a_supernet_comes_back_with_its_space(tiny_space: SearchSpace, tmp_path: Path) -> None:
    supernet = randomised(Supernet(tiny_space, 14))
    training = {"step": 4, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    written = Checkpoint("supernet", supernet.spec, tiny_space, CROWDPOSE, supernet.state_dict(), training=training)
    save_checkpoint(tmp_path / "a.pt", written)
    loaded = load_checkpoint(tmp_path / "a.pt", "supernet")
    net = loaded.build()
    assert isinstance(net, Supernet) and net.space == tiny_space and same_state(net, supernet)
    assert loaded.training is not None and loaded.training["step"] == 4


def test_half_precision_weights_are_read_as_float32(checkpoint: Checkpoint, tmp_path: Path) -> None:
    halved = {name: v.half() if v.is_floating_point() else v for name, v in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, weights=halved))
    weights = load_checkpoint(tmp_path / "a.pt").weights
    assert {v.dtype for v in weights.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(weights[name], value.to(weights[name].dtype)) for name, value in halved.items())


def test_numpy_metrics_do_not_make_the_file_unreadable(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, info={"AP": np.float64(0.25), "sides": (1, 2)}))
    info = load_checkpoint(tmp_path / "a.pt").info
    assert info == {"AP": 0.25, "sides": [1, 2]} and type(info["AP"]) is float


def test_the_other_kind_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    with pytest.raises(InputError, match="holds a fixed net, not a supernet; name a checkpoint of a supernet"):
        load_checkpoint(tmp_path / "a.pt", "supernet")


def test_a_truncated_or_foreign_file_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    for part in (b"", b"no checkpoint", whole[:100], whole[: len(whole) // 2], whole[:-1], b"\0" * 999):
        path.write_bytes(part)
        with pytest.raises(InputError, match="is not a checkpoint, or a truncated one"):
            load_checkpoint(path)
    for value in ({"state_dict": {}}, [1], {"format": "other"}):
        torch.save(value, path)
        with pytest.raises(InputError, match="is not a checkpoint of ofa-pose"):
            load_checkpoint(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(checkpoint: Checkpoint, tmp_path: Path, number: float) -> None:
    name = next(name for name, value in checkpoint.weights.items() if value.is_floating_point())
    weights = {**checkpoint.weights, name: checkpoint.weights[name].clone()}
    weights[name].view(-1)[-1] = number
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, weights=weights))
    with pytest.raises(InputError, match=f"a.pt: weights '{name}' hold NaN or infinity"):
        load_checkpoint(tmp_path / "a.pt").build()


@pytest.mark.parametrize("where", ["weights", "training"])
@pytest.mark.parametrize("stated", [False, True])
def test_a_few_bytes_never_become_a_large_tensor(
    checkpoint: Checkpoint, tmp_path: Path, where: str, stated: bool
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, replace(checkpoint, training={"step": 1}))
    value = torch.load(path, weights_only=True)
    value[where]["large"] = torch.zeros(1, dtype=torch.float16).expand(1_000_000, 1_000_000)  # 2 TB
    if not stated:
        del value["digest"]
    torch.save(value, path)
    with pytest.raises(DamagedCheckpoint, match=r"a\.pt: is a damaged checkpoint"):
        load_checkpoint(path)


def test_parts_that_are_packed_are_not_unpacked(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for part in whole.namelist():
            packed.writestr(part, whole.read(part))
        packed.writestr(f"{part.partition('/')[0]}/data/999", bytes(20 << 20))
    with pytest.raises(DamagedCheckpoint, match=r"b\.pt: is a damaged checkpoint"):
        load_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_parts_that_are_said_to_be_packed_otherwise_are_damage(
    checkpoint: Checkpoint, tmp_path: Path, method: int
) -> None:
    """Each way of packing has exceptions of its own for bytes that it did not write."""
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)
    path.write_bytes(packed_otherwise(path.read_bytes(), method))
    with pytest.raises(DamagedCheckpoint, match=r"a\.pt: is"):
        load_checkpoint(path)


def test_no_permission_and_no_memory_are_called_so(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, checkpoint)

    def fail(error: Exception) -> None:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)

    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")):
        fail(error)
        with pytest.raises(OfaPoseError, match=r"a\.pt: there is not enough memory to read its 0 MiB") as found:
            load_checkpoint(path)
        assert found.value.exit_code == 1
    fail(PermissionError(13, "Permission denied", str(path)))
    with pytest.raises(PermissionError):
        load_checkpoint(path)
    fail(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(InputError, match=r"a\.pt: cannot be read \(Input/output error\); write or copy it again"):
        load_checkpoint(path)
    with pytest.raises(OSError, match=r"Input/output error: .*a\.pt"):
        read_torch(path)


@pytest.mark.parametrize("name, hint", [("a.yaml", "best.pt"), ("a.ncnn.bin", ".param"), ("a.torchscript.pt", "onnx")])
def test_files_that_are_taken_for_checkpoints_say_what_they_are(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(InputError, match=f"is not a checkpoint.*{re.escape(hint)}"):
        load_checkpoint(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_never_give_anything_but_an_input_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, rng = tmp_path / "a.pt", np.random.default_rng(0)
    save_checkpoint(path, checkpoint)
    whole = path.read_bytes()
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(4000, size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path).build()
        except InputError:
            refused += 1
    assert refused > 30


class Bomb:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"format": "ofa-pose-checkpoint", "x": Bomb(tmp_path / "ran")}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_later_format_asks_for_an_update(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    value = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save({**value, "version": 99}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="has format version 99; update ofa-pose"):
        load_checkpoint(tmp_path / "a.pt")
    del value["weights"]
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(InputError, match="is a damaged checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("earlier", [False, True])
def test_no_flipped_bit_goes_unnoticed(checkpoint: Checkpoint, tmp_path: Path, earlier: bool) -> None:
    """What lies between the parts of the file holds nothing; an earlier version's has its parts' check sums alone."""
    path, rng = tmp_path / "a.pt", random.Random(0)
    save_checkpoint(path, replace(checkpoint, training={"step": 3, "best": 0.5, "more": [torch.arange(9.0), None]}))
    if earlier:
        value = torch.load(path, weights_only=True)
        del value["digest"]
        torch.save(value, path)
    whole, content, noticed = load_checkpoint(path), path.read_bytes(), 0
    for _ in range(150):
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = load_checkpoint(path)
        except InputError as error:
            assert isinstance(error, DamagedCheckpoint)
            noticed += 1
            continue
        assert found.weights.keys() == whole.weights.keys() and found.training is not None
        assert all(torch.equal(value, whole.weights[name]) for name, value in found.weights.items())
        assert (found.spec, found.space, found.info, found.recipe) == (
            whole.spec,
            whole.space,
            whole.info,
            whole.recipe,
        )
        assert str(found.training) == str(whole.training)
    assert noticed > 30


def test_the_digest_sees_every_bit_and_not_how_it_is_kept() -> None:
    value = {"a": [torch.arange(6.0).view(2, 3), 1, 1.5, None, "x"], 3: (True, torch.tensor(2, dtype=torch.int8))}
    whole = digest(value)
    assert digest({**value, "a": [torch.arange(6.0).view(2, 3).t().contiguous().t(), *value["a"][1:]]}) == whole
    for other in (
        {**value, 3: [True, value[3][1]]},
        {**value, 3: (1, value[3][1])},
        {**value, 3: (True, torch.tensor([2], dtype=torch.int8))},
        {**value, 3: (True, torch.tensor(2, dtype=torch.uint8))},
        {**value, "a": [value["a"][0] * -1.0 + 0, *value["a"][1:]]},
        {3: value[3], "a": value["a"]},
        {**value, "b": None},
    ):
        assert digest(other) != whole


def test_building_names_missing_and_misshapen_weights(checkpoint: Checkpoint) -> None:
    name = "stages.0.0.expand.conv.weight"
    without = {key: value for key, value in checkpoint.weights.items() if key != name}
    with pytest.raises(InputError, match=f"has no weights '{name}'"):
        replace(checkpoint, weights=without).build()
    with pytest.raises(InputError, match=rf"'{name}' have shape \(1, 2\)"):
        replace(checkpoint, weights={**without, name: torch.zeros(1, 2)}).build()


def test_a_run_directory_means_its_best_checkpoint_else_its_last(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(InputError, match=r"holds no checkpoints/best\.pt"):
        find_checkpoint(tmp_path)
    (tmp_path / "model.mlpackage").mkdir()
    with pytest.raises(InputError, match=r"holds no checkpoints/best\.pt; Core ML reads it on Apple's systems; here"):
        find_checkpoint(tmp_path / "model.mlpackage")
    save_checkpoint(folder / "last.pt", checkpoint)
    assert find_checkpoint(tmp_path) == folder / "last.pt"
    save_checkpoint(folder / "best.pt", checkpoint)
    assert find_checkpoint(tmp_path) == folder / "best.pt"
    assert load_checkpoint(tmp_path).spec == checkpoint.spec
    with pytest.raises(InputError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_weights_that_no_net_computes_with_are_named(checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    name = "stages.0.0.expand.conv.weight"
    old = checkpoint.weights[name]
    new = {"sparse": old.to_sparse, "meta": lambda: old.to("meta"), "complex": lambda: old.to(torch.complex64)}[kind]()
    with pytest.raises(InputError, match=f"weights '{name}' are not numbers"):
        replace(checkpoint, weights={**checkpoint.weights, name: new}).build()


TENSORS = [(key, torch.zeros(3)) for key in ("version", "kind", "spec", "space", "skeleton", "recipe", "training")]
TENSORS += [
    (key, {"joints": ["a"], "limbs": [torch.zeros(3)]}) for key in ("spec", "space", "skeleton", "recipe", "info")
]


@pytest.mark.parametrize(
    ("key", "value"), [("recipe", []), ("info", None), ("training", 3), ("training", "x"), *TENSORS]
)
def test_an_entry_of_another_type_is_a_damaged_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, key: str, value: Any
) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    torch.save({**torch.load(tmp_path / "a.pt", weights_only=True), key: value}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: is a damaged checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_entry_that_is_nested_too_deeply_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for key, inner in (*((key, deep) for key in ("skeleton", "recipe", "info")), ("info", endless)):
        torch.save({**torch.load(tmp_path / "a.pt", weights_only=True), key: {"a": inner}}, tmp_path / "b.pt")
        with pytest.raises(InputError, match=r"b\.pt: is nested too deeply"):
            load_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("count", "hint"),
    [(17, "names no joints: .* add --set data.skeleton=coco"), (5, "use data and")],
)
def test_data_without_names_of_joints_say_how_to_name_them(count: int, hint: str) -> None:
    numbered = draft("person", [str(number) for number in range(1, count + 1)])
    dataset = KeypointDataset(numbered, (), Path("data.yaml:train"), Path())
    with pytest.raises(InputError, match=hint):
        check_joints(COCO, dataset, "the teacher")
