"""What a recipe says about the search: its `search` section."""

from __future__ import annotations

from pydantic import Field

from ofa_pose.config import Config


class SearchSettings(Config):
    """The evolution, and how exactly a candidate is judged."""

    population: int = Field(32, ge=2)
    generations: int = Field(12, ge=0, description="after the first population")
    images: int = Field(200, ge=1, description="of the search split, on which a candidate's AP is measured")
    calibration_images: int = Field(64, ge=1, description="training images for BatchNorm recalibration")
    batch: int = Field(16, ge=1)
    parents: float = Field(0.5, gt=0, le=1, description="share of the population that may have offspring")
    crossover: float = Field(0.5, ge=0, le=1, description="share of offspring with two parents")
    mutation: float = Field(0.15, gt=0, le=1, description="chance of each gene to change")
    uniform_start: bool = Field(True, description="the first population holds the widest uniform nets in the budget")
