"""Networks with names: the published searched nets and the uniformly scaled ones, for any number of joints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ofa_pose.arch.litepose_config import is_litepose_config, spec_from_litepose
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import read_json, read_yaml

_BLOCKS = (6, 8, 10, 10)


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
    """A network by preset name or from a spec file (YAML or JSON), for `joints` keypoints where given.

    A spec file is what `ArchSpec.to_dict` gives, by itself or under the key 'spec', or a config of the LitePose
    repository. Raises InputError.
    """
    if str(name) in PRESETS:
        spec = PRESETS[str(name)]
    else:
        path = Path(name)
        if not path.is_file():
            if path.suffix:
                raise InputError("no such file", path, "name a preset, a spec file or a checkpoint")
            raise InputError(f"no such network: '{name}'", hint=nearest(str(name), PRESETS))
        value = read_json(path) if path.suffix == ".json" else read_yaml(path)
        if is_litepose_config(value):
            spec = spec_from_litepose(value, where=path)
        else:
            spec = ArchSpec.from_dict(value["spec"] if isinstance(value, dict) and "spec" in value else value, path)
    return spec.with_joints(joints) if joints is not None else spec
