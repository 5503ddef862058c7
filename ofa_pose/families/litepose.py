"""LitePose among the families: what its plan and its presets say, in the terms that all families have."""

from __future__ import annotations

from ofa_pose.arch.presets import PRESETS
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.families.family import Family
from ofa_pose.models.litepose import LitePose

FAMILY = Family(
    name="litepose",
    title="LitePose (Wang et al., CVPR 2022)",
    spec=ArchSpec,
    build=LitePose,
    presets=PRESETS,
)
