"""The splits of a recipe's `data` section: what is trained on, searched on, selected on and reported on."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from ofa_pose.data.coco import CheckImages, KeypointDataset, load_dataset
from ofa_pose.skeleton import Skeleton, load_skeleton
from ofa_pose.utils.config import Config
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError

SPLITS = ("train", "search", "val", "test")


class Source(Config):
    """A COCO-format annotation file and the folder of its images."""

    annotations: str = Field(description="COCO-format keypoint file")
    images: str = Field(description="folder of its images")


class DataSettings(Config):
    """The datasets of a recipe.

    `search` needs images that no weight was trained on and no final figure is taken from: where it is not given,
    `search_share` of train is held out for it, the same images in every command.
    """

    train: Source | None = None
    search: Source | None = None
    val: Source | None = None
    test: Source | None = None
    skeleton: str | None = Field(None, description="YAML of a custom skeleton; none: the annotations declare it")
    search_share: float = Field(0.1, gt=0, lt=1, description="of train, held out where data.search is not given")
    metric: Literal["coco", "crowdpose"] = Field(
        "coco",
        description="of every AP: of checkpoints, searches and studies",
        exclude_if=lambda metric: metric == "coco",
    )


def load_splits(
    settings: DataSettings, *splits: str, trained: Skeleton | None = None, check_images: CheckImages = "exists"
) -> list[KeypointDataset]:
    """These splits, checked; where search is held out of train, both come of one reading.

    Training images exclude those held out for the search, and those without people. Raises InputError.

    Args:
        trained, check_images: see `load_dataset`.
    """
    loaded: dict[str, KeypointDataset] = {}

    def part(split: str) -> KeypointDataset:
        if split not in SPLITS:
            raise ValueError(f"no such split: {split}")
        shared = settings.search is None and split in ("train", "search")
        origin = "train" if shared else split
        if origin not in loaded:
            loaded[origin] = _load(settings, origin, trained, check_images)
        whole = loaded[origin]
        if shared:
            whole = whole.split_off(settings.search_share, seed=0)[0 if split == "train" else 1]
        return whole.with_people() if split == "train" else whole

    return [part(split) for split in splits]


def _load(settings: DataSettings, split: str, trained: Skeleton | None, check_images: CheckImages) -> KeypointDataset:
    source: Source | None = getattr(settings, split)
    if source is None:
        hint = f"add --set data.{split}.annotations=FILE --set data.{split}.images=DIR"
        raise InputError(f"the recipe names no data.{split}", hint=hint)
    skeleton = load_skeleton(settings.skeleton) if settings.skeleton else None
    dataset = load_dataset(source.annotations, source.images, skeleton, check_images, trained)
    for warning in dataset.warnings:
        warn(warning)
    return replace(dataset, metric=settings.metric)
