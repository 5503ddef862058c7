"""What a recipe says about the search: its `search` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofa_pose.utils.config import Config


class SearchSettings(Config):
    """How to search, and how exactly a candidate is judged."""

    algorithm: Literal["evolution", "nsga2", "random"] = Field(
        "evolution", description="evolution: the best AP; nsga2: the whole AP–cost front; random: the baseline"
    )
    population: int = Field(32, ge=2, description="subnets judged in each generation")
    generations: int = Field(12, ge=0, description="after the first population")
    images: int = Field(200, ge=1, description="of the search split, on which a candidate's AP is measured")
    calibration_images: int = Field(64, ge=1, description="training images for BatchNorm recalibration")
    batch: int = Field(16, ge=1)
    parents: float = Field(0.5, gt=0, le=1, description="share of the population that may have offspring")
    crossover: float = Field(0.5, ge=0, le=1, description="share of offspring with two parents")
    mutation: float = Field(0.15, gt=0, le=1, description="chance of each gene to change")
    fill: float = Field(0.5, ge=0, le=1, description="share of evolution's samples and offspring grown to the budget")
    uniform_start: bool = Field(True, description="the first population holds the widest uniform nets in the budget")
    surrogate: bool = Field(False, description="a model of the AP chooses which offspring are judged")
    surrogate_proposals: int = Field(20, ge=2, description="offspring bred for each one that is judged")
    surrogate_round: int = Field(3, ge=1, description="subnets judged between lessons; more processes would idle")
    surrogate_samples: int = Field(6, ge=5, description="judged subnets before the model is first asked")
    surrogate_tau: float = Field(0.3, ge=0, lt=1, description="Kendall tau of held-out APs below which it stands aside")
