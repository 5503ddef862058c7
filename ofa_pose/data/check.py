"""Looking over a dataset before training on it: every record and every image, and what they hold in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ofa_pose.data.duplicates import repeated_files, same_annotations, shared_images
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.records import ImageRecord
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.files import dump_yaml

CROWDED = ((1, 1), (2, 4), (5, 9), (10, 19), (20, None))  # ranges of people an image, for the histogram


def statistics(dataset: KeypointDataset, against: KeypointDataset | None = None) -> dict[str, Any]:
    """Plain JSON values: what a dataset holds, and what it shares with another that should have other images.

    Keys: skeleton; images; images_with_people (a labelled joint); people (each annotation that is not a crowd);
    labelled_people; joints: per joint name labelled, visible, hidden and share (of labelled people);
    people_per_image: images by number of labelled people; image_sizes: smallest, median and largest [width, height]
    by area; person_sizes: the quartiles of sqrt(area) over the image's short side; crowd_regions; repeated_images: the
    names of files with the same contents, a list for each such image; warnings. With `against` also: against, what it
    is, how many images it has, whether its annotations are the same, and shared_images, pairs of files with the same
    pixels.
    """
    records, warnings = dataset.images, list(dataset.warnings)
    repeated = [[records[place].path.name for place in group] for group in repeated_files(records)]
    if repeated:
        what = f"{len(repeated)} images are there more than once"
        warnings.append(f"{dataset.annotations_path}: {what} (the first is {', '.join(repeated[0])})")
    labelled = sum(len(record.keypoints) for record in records)
    crowds = sum(region.crowd for record in records for region in record.ignore)
    unlabelled = sum(len(record.ignore) for record in records) - crowds
    compared: dict[str, Any] = {}
    if against is not None:
        compared = _compared(dataset, against)
        pairs = compared["shared_images"]
        if pairs:
            share = f"{len(pairs)} of {len(against)} images of {against.annotations_path} are in these too"
            warnings.append(f"{share} (the first is {pairs[0][1]}): an AP on what was trained on says little")
    return {
        "skeleton": dataset.skeleton.name,
        "images": len(records),
        "images_with_people": sum(len(record.keypoints) > 0 for record in records),
        "people": labelled + unlabelled,
        "labelled_people": labelled,
        "joints": _joints(records, dataset.skeleton),
        "people_per_image": _histogram(len(record.keypoints) for record in records),
        "image_sizes": _image_sizes(records),
        "person_sizes": _person_sizes(records),
        "crowd_regions": crowds,
        "repeated_images": repeated,
        **({"against": compared} if compared else {}),
        "warnings": warnings,
    }


def _compared(dataset: KeypointDataset, other: KeypointDataset) -> dict[str, Any]:
    pairs = [[str(path) for path in pair] for pair in shared_images(dataset, other, decode=True)]
    about = {"annotations": str(other.annotations_path), "images": len(other)}
    return {**about, "same_annotations": same_annotations(dataset, other), "shared_images": pairs}


def draft_skeleton_yaml(dataset: KeypointDataset) -> str:
    """The dataset's skeleton as a YAML file to check by eye, correct and give with --skeleton."""
    return skeleton_text(dataset.skeleton)


def skeleton_text(skeleton: Skeleton) -> str:
    """A skeleton as a YAML file, with what to check in it."""
    heading = (
        "# Check this by eye. sigmas: how far annotators differ at a joint, as a share of the person's size (COCO:\n"
        "# eye 0.025, hip 0.107). flip_pairs: what changes places in a mirror. limbs: drawn as bones, and they order\n"
        "# the grouping.\n"
    )
    return heading + dump_yaml(skeleton.to_dict())


def _joints(records: Iterable[ImageRecord], skeleton: Skeleton) -> dict[str, dict[str, Any]]:
    joints = len(skeleton.joints)
    flags = np.concatenate([np.zeros((0, joints)), *(record.keypoints[..., 2] for record in records)])
    hidden, visible = (flags == 1).sum(0).tolist(), (flags == 2).sum(0).tolist()
    people = max(len(flags), 1)
    return {
        name: {"labelled": h + v, "visible": v, "hidden": h, "share": round((h + v) / people, 4)}
        for name, h, v in zip(skeleton.joints, hidden, visible, strict=True)
    }


def _histogram(people: Iterable[int]) -> dict[str, int]:
    counts = Counter(people)
    histogram = {"0": counts[0]}
    for low, high in CROWDED:
        label = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        histogram[label] = sum(n for people, n in counts.items() if people >= low and (high is None or people <= high))
    return histogram


def _image_sizes(records: Iterable[ImageRecord]) -> dict[str, list[int]]:
    sizes = sorted((record.size for record in records), key=lambda size: size[0] * size[1])
    places = {"smallest": 0, "median": len(sizes) // 2, "largest": len(sizes) - 1}
    return {name: list(sizes[place]) for name, place in places.items()}


def _person_sizes(records: Iterable[ImageRecord]) -> dict[str, float]:
    shares = [np.sqrt(record.areas) / min(record.size) for record in records if len(record.areas)]
    if not shares:
        return {}
    quartiles = np.quantile(np.concatenate(shares), (0.25, 0.5, 0.75))
    return {name: round(float(q), 4) for name, q in zip(("lower", "median", "upper"), quartiles, strict=True)}
