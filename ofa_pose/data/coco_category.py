"""The keypoint category of a COCO annotation file, and the skeleton of its joints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_pose.skeleton import Skeleton, draft, same_joints
from ofa_pose.utils.errors import Fault, InputError, nearest
from ofa_pose.utils.numbers import are_numbers, is_id


def keypoint_category(path: Path, categories: Sequence[Any]) -> Mapping[str, Any]:
    """The one category of an annotation file that has keypoints. Raises InputError where that cannot be."""
    found = [c for c in categories if isinstance(c, dict) and c.get("keypoints")]
    if not found:
        hint = "list the joint names in order under 'keypoints' of the category"
        raise InputError("has no category with keypoints", path, hint)
    if len(found) > 1:
        names = ", ".join(str(c.get("name", c.get("id"))) for c in found)
        raise InputError(f"has {len(found)} categories with keypoints ({names})", path, "keep one of them")
    where, names = f"{path}: category {found[0].get('id')}", found[0]["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError("keypoints must be a list of distinct joint names", where, "correct the list")
    if not is_id(found[0].get("id")):
        raise InputError("has no id", where, "number the category, and name that id in category_id")
    return found[0]


def choose_skeleton(
    path: Path, category: Mapping[str, Any], skeleton: Skeleton | None, trained: Skeleton | None = None
) -> tuple[Skeleton, tuple[str, ...]]:
    """The skeleton given, else a network's, else the built-in one, else a draft; and what to warn of.

    A network's skeleton, `trained`, counts where it has the category's joints; a difference from what else would be
    taken is warned of.

    Raises InputError where the skeleton given has other joints than the category.
    """
    names = category["keypoints"]
    if skeleton is not None:
        unknown = [joint for joint in skeleton.joints if joint not in names]
        if unknown:
            where = f"skeleton {skeleton.name}"
            raise InputError.of(
                [Fault(f"unknown joint '{j}', not in {path}", where, nearest(j, names)) for j in unknown]
            )
        if skeleton.joints != tuple(names):
            hint = f"list its joints in the file's order: {', '.join(names)}"
            raise InputError(f"skeleton {skeleton.name} has other joints than the file", path, hint)
        differing = skeleton.differences(trained) if trained else ""
        return skeleton, (
            (f"{path}: its {differing} are those of the skeleton given, not those the network was trained with",)
            if differing
            else ()
        )
    suggested, warnings = _suggested(path, category)
    differing = suggested.differences(trained) if trained else ""
    if trained is None or not differing:
        return suggested, warnings
    origin = "guessed from the file" if warnings else f"those of skeleton {suggested.name}"
    return trained, (f"{path}: its {differing} are those the network was trained with, not {origin}",)


def _suggested(path: Path, category: Mapping[str, Any]) -> tuple[Skeleton, tuple[str, ...]]:
    """What a file's own joint names lead to."""
    names = category["keypoints"]
    built_in = same_joints(names)
    if built_in is not None:
        return built_in, ()
    listed = category.get("skeleton")
    limbs = [[int(end) for end in limb] for limb in listed if are_numbers(limb, 2)] if isinstance(listed, list) else []
    guess = draft(str(category.get("name", "custom")), names, limbs)
    warning = (
        f"{path}: its {len(names)} joints are those of no built-in skeleton: flip pairs are guessed from left and "
        "right in their names, sigmas are defaults; check both: data check --write-skeleton FILE, then --skeleton FILE"
    )
    return guess, (warning,)
