"""What a family of networks is: its specs, its networks, and those that have names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ofa_pose.arch.spec import NetSpec
from ofa_pose.models.pose_net import Network


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks, which a file of its own holds as FAMILY.

    Attributes:
        name: as spec files name it, `family: higherhrnet`.
        title: its name for people, with the paper.
        spec: the class of its specs.
        build: makes the network of a spec, its weights as torch's modules begin with them; a `PoseNet` where it is
            trained and evaluated.
        presets: specs with names.
        why_costs_only: why its networks are counted, measured and exported alone; "" where they are trained as well.
    """

    name: str
    title: str
    spec: type[NetSpec]
    build: Callable[[Any], Network]
    presets: Mapping[str, NetSpec]
    why_costs_only: str = ""
