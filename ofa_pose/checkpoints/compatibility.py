"""Whether what a checkpoint is used with is what it was made for: its space, its joints, the images kept from it."""

from __future__ import annotations

from ofa_pose.arch.space import load_space
from ofa_pose.checkpoints.checkpoint import Checkpoint
from ofa_pose.data.keypoint_dataset import DataSettings, KeypointDataset
from ofa_pose.formats.reading import fingerprint
from ofa_pose.recipe import Recipe
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.config import check_config
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError


def check_space(supernet: Checkpoint, space: str) -> None:
    """Raise InputError where a recipe names another space than the supernet's: its weights cannot change theirs."""
    trained = supernet.recipe.get("space", Recipe().space)
    if space != trained and load_space(space) != supernet.space:
        raise InputError(f"the supernet was trained in the space {trained}, not {space}", hint=f"set space={trained}")


def check_joints(skeleton: Skeleton, dataset: KeypointDataset, what: str) -> None:
    """Raise InputError where a dataset has other joints than a network."""
    if skeleton.joints != dataset.skeleton.joints:
        there, here = dataset.skeleton, skeleton
        fault = f"{what} has {len(here.joints)} joints ({here.name}), the data {len(there.joints)} ({there.name})"
        raise InputError(fault, dataset.annotations_path, "use data and a checkpoint with the same joints")


def check_held_out(data: DataSettings, supernet: Checkpoint) -> None:
    """Refuse to search on a share of train that the supernet was not kept from.

    What is held out follows from the annotation file's content and the share, wherever the file lies now. An imported
    supernet was trained elsewhere: nothing is known of it, and a warning says so.

    Raises:
        InputError: no data.search is named, and what is held out of train has changed since.
    """
    if data.search is not None or data.train is None:
        return
    if "imported_from" in supernet.info:
        warn("the imported supernet may have seen the images held out of data.train; better name data.search")
        return
    trained = check_config(DataSettings, supernet.recipe.get("data") or {}, "the supernet's recipe")
    now = (None, data.search_share, fingerprint(data.train.annotations, data.train.images))
    then = (trained.search, trained.search_share, supernet.info.get("train_sha256", now[2]))
    for key, new, old in zip(("search", "search_share", "train"), now, then, strict=True):
        if new != old:
            what = f"data.{key} is not what the supernet was trained with: it may have seen the search images"
            raise InputError(what, hint="leave it as it was, or name images of their own in data.search")
