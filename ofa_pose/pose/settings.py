"""What a recipe says about reading poses from maps: its `decode` section. A checkpoint carries it to every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.utils.config import Config


class DecodeSettings(Config):
    """Those of `DecodeConfig`'s settings that depend on how a net was trained."""

    threshold: float = Field(DecodeConfig.threshold, gt=0, description="height above which a peak is a joint")
    tag_threshold: float = Field(
        DecodeConfig.tag_threshold, gt=0, description="twice what a joint's tag may differ from its person's"
    )

    def config(self) -> DecodeConfig:
        """As the decoder takes them."""
        return DecodeConfig(**self.model_dump())


def decode_config(recipe: Mapping[str, Any]) -> DecodeConfig:
    """The decoder's settings of a checkpoint's recipe. Raises InputError where they are none."""
    return DecodeConfig.from_dict(recipe.get("decode") or {}, "decode of the checkpoint's recipe")
