"""The table of families, and networks by name: their specs, the networks themselves, what they cost.

A family is a file here that holds its `Family` as FAMILY, and its name in TABLE; LitePose is a package of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ofa_pose.arch.presets import PRESETS, load_spec, read_spec_file
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.families.family import Family
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.pose_net import MOST_PARAMS, Network, PoseNet
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.numbers import format_count

LITEPOSE = Family(
    name=ArchSpec.family,
    title="LitePose (Wang et al., CVPR 2022)",
    spec=ArchSpec,
    build=LitePose,
    presets=PRESETS,
)
TABLE = (LITEPOSE.name, "higherhrnet", "efficienthrnet", "lightweight-openpose", "lite-hrnet")


def find_family(name: str, where: object = "") -> Family:
    """The family of this name. Raises InputError where there is none."""
    if name == LITEPOSE.name:
        return LITEPOSE
    if name not in TABLE:
        raise InputError(f"no such family of networks: '{name}'", where, nearest(name, TABLE))
    family: Family = importlib.import_module(f"{__package__}.{name.replace('-', '_')}").FAMILY
    return family


@lru_cache(maxsize=1)
def all_presets() -> dict[str, NetSpec]:
    """The networks with names, of all families."""
    return {name: spec for family in TABLE for name, spec in find_family(family).presets.items()}


def load_net(name: str | Path, joints: int | None = None) -> NetSpec:
    """A network of any family by preset name or from a YAML or JSON file, for `joints` keypoints where given.

    A file holds what `NetSpec.to_dict` gives, by itself or under 'spec', or a config of the LitePose repository.
    Raises InputError.
    """
    if str(name) in PRESETS:
        return load_spec(name, joints)
    if Path(name).is_file():
        spec = read_spec(read_spec_file(Path(name)), name)
    elif Path(name).suffix or str(name) in all_presets():
        spec = all_presets().get(str(name)) or load_spec(name)
    else:
        raise InputError(f"no such network: '{name}'", hint=nearest(str(name), all_presets()))
    return spec if joints is None else spec.with_joints(joints)


def read_spec(value: Any, where: object = "") -> NetSpec:
    """The spec of any family that a parsed file or checkpoint holds. Raises InputError that names `where`."""
    family = value.get("family", ArchSpec.family) if isinstance(value, Mapping) else ArchSpec.family
    return find_family(str(family), where).spec.from_dict(value, where)


def build_net(spec: NetSpec, generator: torch.Generator | None = None) -> Network:
    """The network of any family's spec, its weights drawn from `generator`; where there is none, they are to be loaded.

    Raises InputError where it is too large.
    """
    if not isinstance(spec, ArchSpec):  # a LitePose counts its plan's before it makes them
        params = sum(value.numel() for value in shape_of(spec).parameters())
        if params > MOST_PARAMS:
            what = f"the net ({spec}) has {format_count(params)} parameters, more than {format_count(MOST_PARAMS)}"
            raise InputError(what, hint="give it fewer blocks or lower widths")
    net = find_family(spec.family).build(spec)
    if generator is not None:
        net.reset_parameters(generator)
    return net


def check_trainable(spec: NetSpec) -> None:
    """Raise InputError where networks of this family are only counted, measured and exported."""
    family = find_family(spec.family)
    if family.why_costs_only:
        raise InputError(f"{family.title} is not trained or evaluated here: {family.why_costs_only}")


def build_pose_net(spec: NetSpec, generator: torch.Generator | None = None) -> PoseNet:
    """`build_net` of a family whose networks find poses. Raises InputError of any other."""
    check_trainable(spec)
    net = build_net(spec, generator)
    assert isinstance(net, PoseNet)
    return net


def shape_of(spec: NetSpec) -> Network:
    """The network without weights, on the meta device."""
    with torch.device("meta"):
        return find_family(spec.family).build(spec)
