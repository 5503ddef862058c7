"""What a recipe says about reading poses from maps: its `decode` section. A checkpoint carries it to every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.utils.config import Config, check_config


class DecodeSettings(Config):
    """The decoder's settings that depend on how a net was trained; see `DecodeConfig`."""

    threshold: float = Field(0.2, gt=0, description="height above which a peak is a joint")
    tag_threshold: float = Field(1.0, gt=0, description="twice what a joint's tag may differ from its person's")

    def config(self) -> DecodeConfig:
        """As the decoder takes them."""
        return DecodeConfig(threshold=self.threshold, tag_threshold=self.tag_threshold)


def decode_config(recipe: Mapping[str, Any]) -> DecodeConfig:
    """The decoder's settings of a checkpoint's recipe. Raises InputError where they are none."""
    return check_config(DecodeSettings, recipe.get("decode") or {}, "decode of the checkpoint's recipe").config()
