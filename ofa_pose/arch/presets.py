"""Networks with names, and networks in files: spec files, and the LitePose repository's JSON configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_pose.arch.plan import STAGE_STRIDES
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import read_json, read_yaml

_BLOCKS = (6, 8, 10, 10)
WIDTH_MULTIPLE = 8  # the LitePose repository's code rounds the widths of stem and stages to it
KEYS = ("img_size", "input_channel", "deconv_setting", "backbone_setting")


def _litepose(resolution: int, stem: int, stages: tuple[int, ...], deconv: tuple[int, ...]) -> ArchSpec:
    return ArchSpec(resolution, stem, stages, tuple((6,) * count for count in _BLOCKS), deconv)


_HALF = _litepose(512, 16, (16, 32, 48, 80), (32, 24, 16))

# The LitePose repository's configs: searched nets, then its space at the multipliers 0.5, 0.75 and 1. The rest are the
# 0.5x net of the paper's ablations, with other kernels and with a head that does not fuse.
PRESETS = {
    "litepose-xs": _litepose(256, 16, (16, 32, 48, 80), (16, 24, 24)),
    "litepose-s": _litepose(448, 16, (16, 32, 48, 120), (32, 24, 32)),
    "litepose-m": _litepose(448, 16, (24, 48, 72, 120), (64, 40, 32)),
    "litepose-l": _litepose(512, 24, (24, 64, 96, 160), (64, 40, 32)),
    "litepose-0.5x": _HALF,
    "litepose-0.75x": _litepose(512, 24, (24, 48, 72, 120), (48, 40, 24)),
    "litepose-1.0x": _litepose(512, 24, (32, 64, 96, 160), (64, 48, 32)),
    **{f"litepose-0.5x-k{kernel}": replace(_HALF, kernel=kernel) for kernel in (3, 5, 9)},
    "litepose-0.5x-plain": replace(_HALF, head="plain"),
}


def load_spec(name: str | Path, joints: int | None = None) -> ArchSpec:
    """A LitePose by preset name or from a YAML or JSON file, for `joints` keypoints where given. Raises InputError.

    A file holds what `ArchSpec.to_dict` gives, by itself or under 'spec', or a config of the LitePose repository.
    """
    if str(name) in PRESETS:
        spec = PRESETS[str(name)]
    else:
        path = Path(name)
        if not path.is_file():
            if path.suffix:
                found = f"'ofa-pose search --out {path.parent}' writes it, after its first generation"
                hint = found if path.name == "best.yaml" else "name a preset, a spec file or a checkpoint"
                raise InputError("no such file", path, hint)
            raise InputError(f"no such network: '{name}'", hint=nearest(str(name), PRESETS))
        spec = ArchSpec.from_dict(read_spec_file(path), path)
    return spec.with_joints(joints) if joints is not None else spec


def read_spec_file(path: Path) -> Any:
    """What `NetSpec.to_dict` gives, of a net's file; a LitePose config is made such a dict. Raises InputError."""
    if path.suffix == ".pt":
        raise InputError("is a checkpoint, not the file of a net", path, "name the best.yaml beside it")
    value = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if isinstance(value, dict) and "backbone_setting" in value:
        return spec_from_litepose(value, where=path).to_dict()
    if isinstance(value, dict) and value.keys() >= {"expansion", "blocks"}:
        hint = "name one network of it, such as the best.yaml of a search, or a preset"
        raise InputError("is a search space, not a network", path, hint)
    return value["spec"] if isinstance(value, dict) and "spec" in value else value


def spec_from_litepose(value: Any, joints: int = 17, where: object = "") -> ArchSpec:
    """The network of a parsed LitePose config; such a config does not hold the number of joints.

    Raises InputError where a key is missing or malformed, or where no spec describes its strides or mixed kernels.
    """
    if not isinstance(value, Mapping):
        raise InputError("holds no LitePose config", where, f"give {', '.join(KEYS)}")
    for key in KEYS:
        if key not in value:
            raise InputError(f"the LitePose config has no '{key}'", where, "add it")
    try:
        stages = list(value["backbone_setting"])
        strides, widths, depths = ([stage[key] for stage in stages] for key in ("stride", "channel", "num_blocks"))
        blocks = [[(expansion, kernel) for expansion, kernel in stage["block_setting"]] for stage in stages]
        kernels = {kernel for stage in blocks for _, kernel in stage}
    except KeyError as error:
        raise InputError(f"a stage of backbone_setting has no {error}", where, "add it") from None
    except (TypeError, ValueError):
        hint = "write stages as {num_blocks, stride, channel, block_setting: [[expansion, kernel], …]}"
        raise InputError("backbone_setting is malformed", where, hint) from None
    if strides != list(STAGE_STRIDES):
        raise InputError(f"its stages have strides {strides}", where, f"LitePose's are {list(STAGE_STRIDES)}")
    for number, (depth, settings) in enumerate(zip(depths, blocks, strict=True), 1):
        if depth != len(settings):
            what = f"stage {number} has num_blocks {depth} but {len(settings)} entries in block_setting"
            raise InputError(what, where, "make them agree")
    if len(kernels) != 1:
        what = f"its blocks have kernels {', '.join(map(str, sorted(kernels, key=str)))}"
        raise InputError(what, where, "use one kernel size in all blocks")
    spec = {"resolution": value["img_size"], "stem": value["input_channel"], "deconv": value["deconv_setting"]}
    spec |= {"stages": widths, "expansions": [[expansion for expansion, _ in stage] for stage in blocks]}
    return ArchSpec.from_dict(spec | {"kernel": kernels.pop(), "joints": joints}, where)


def litepose_from_spec(spec: ArchSpec) -> dict[str, Any]:
    """The inverse of `spec_from_litepose`. Raises InputError on a plain head, which that repository does not build."""
    if spec.head != "fusion":
        raise InputError(f"a LitePose config knows no {spec.head} head", hint="use the format yaml")
    stages = []
    for stride, width, expansions in zip(STAGE_STRIDES, spec.stages, spec.expansions, strict=True):
        blocks = [[expansion, spec.kernel] for expansion in expansions]
        stages.append({"num_blocks": len(blocks), "stride": stride, "channel": width, "block_setting": blocks})
    sizes = {"img_size": spec.resolution, "input_channel": spec.stem, "deconv_setting": list(spec.deconv)}
    return sizes | {"backbone_setting": stages}


def check_residuals(spec: ArchSpec, where: object = "") -> None:
    """Raise InputError where that code has a residual that no spec describes: where stage 4 keeps stage 3's width."""
    if spec.stages[2] == spec.stages[3]:
        what = f"stages 3 and 4 are both {spec.stages[3]} wide: LitePose's code adds a residual between them, ours none"
        raise InputError(what, where, "give them different widths and train anew")


def check_rebuildable(spec: ArchSpec) -> None:
    """Raise InputError where that repository's code would build another net from `litepose_from_spec(spec)`."""
    litepose_from_spec(spec)  # raises where its config cannot say what the net is
    check_residuals(spec)
    for name, width in (("stem", spec.stem), *((f"stage {i}", width) for i, width in enumerate(spec.stages, 1))):
        if width % WIDTH_MULTIPLE:
            what = f"{name} is {width} wide: LitePose's code rounds that to a multiple of {WIDTH_MULTIPLE}"
            raise InputError(what, hint="search a space whose widths are such multiples, as 'litepose'")
