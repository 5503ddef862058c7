"""What a family of networks is: its specs, its networks, and those that have names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ofa_pose.arch.spec import NetSpec


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of networks, which a file of its own holds as FAMILY.

    Attributes:
        name: as spec files name it, `family: higherhrnet`.
        title: its name for people, with the paper.
        spec: the class of its specs.
        build: makes the network of a spec, its weights as torch's modules begin with them; a `PoseNet` where it finds
            poses, otherwise a network whose costs alone can be told.
        presets: specs with names.
        why_costs_only: why its networks are only counted, measured and exported; "" where they are trained like any.
    """

    name: str
    title: str
    spec: type[NetSpec]
    build: Callable[[Any], nn.Module]
    presets: Mapping[str, NetSpec]
    why_costs_only: str = ""
