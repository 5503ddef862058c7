"""Images that are there twice: in one dataset, or in two that should have none in common."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.records import ImageRecord
from ofa_pose.utils.console import progress, warn
from ofa_pose.utils.errors import InputError, is_used_up
from ofa_pose.utils.process import ThreadPool

ENDS = 4096  # bytes at each end of a file that tell most files of one size apart

Group = tuple[int, ...]  # places of images among those that were asked about


def repeated_files(records: Sequence[ImageRecord], first: int | None = None) -> list[Group]:
    """Images whose files are the same, byte by byte, in groups of two and more; files that cannot be read are none.

    Few bytes are read: of files of one size the ends, and all of those whose ends are the same.

    Args:
        first: only groups with images before and from this place on are wanted.
    """
    groups: list[Group] = [tuple(range(len(records)))]
    for key in (_size_of, _ends_of, _contents_of):
        parts = (part for group in groups for part in _parts(records, group, key))
        groups = [part for part in parts if first is None or part[0] < first <= part[-1]]
    return groups


def repeated_pictures(records: Sequence[ImageRecord]) -> list[Group]:
    """Images whose pixels are the same, whatever their files are, in groups of two and more.

    Every image is decoded. Raises InputError where one cannot be.
    """

    def pixels_of(record: ImageRecord) -> Hashable:
        image = record.read()
        return image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest()

    with ThreadPool() as pool, progress("comparing images", len(records)) as meter:
        found: dict[Hashable, list[int]] = defaultdict(list)
        for place, key in enumerate(pool.map(pixels_of, records)):
            found[key].append(place)
            meter.step()
    return [tuple(group) for group in found.values() if len(group) > 1]


def shared_images(one: KeypointDataset, other: KeypointDataset, decode: bool = False) -> list[tuple[Path, Path]]:
    """(a file of one, a file of the other) for each image of the other that is in both, in the other's order.

    Args:
        decode: compare pixels, not files.
    """
    own = one.images + one.background
    records = own + other.images
    twins: dict[int, int] = {}
    for group in repeated_pictures(records) if decode else repeated_files(records, len(own)):
        if group[0] < len(own):
            twins |= {place: group[0] for place in group if place >= len(own)}
    return [(records[twins[place]].path, records[place].path) for place in sorted(twins)]


def warn_of_shared(train: KeypointDataset, other: KeypointDataset, split: str) -> None:
    """Warn where a split that should be new to a network has images of data.train."""
    try:
        shared = shared_images(train, other)
    except (OSError, InputError) as error:  # whoever reads the image says what is wrong with it
        if isinstance(error, OSError) and is_used_up(error):
            raise
        return
    if shared:
        same = "has the annotations of data.train: " if same_annotations(train, other) else ""
        found = f"{len(shared)} of its {len(other)} images are trained on (the first is {shared[0][1]})"
        warn(f"data.{split}: {same}{found}; an AP on them says little about new images, name others")


def same_annotations(one: KeypointDataset, other: KeypointDataset) -> bool:
    """Whether two datasets come from one file of annotations, or from equal ones."""
    return one.annotations_path == other.annotations_path or one.fingerprint == other.fingerprint


def _parts(records: Sequence[ImageRecord], group: Group, key: Callable[[Path], Hashable]) -> list[Group]:
    """A group of records by a key of their files, in parts of two and more."""

    def key_of(place: int) -> Hashable:
        try:
            return key(records[place].path)
        except OSError as error:
            if is_used_up(error):
                raise
            return None

    found: dict[Hashable, list[int]] = defaultdict(list)
    with ThreadPool() as pool:
        for place, value in zip(group, pool.map(key_of, group, chunksize=64), strict=True):
            found[value].append(place)
    return [tuple(part) for value, part in found.items() if value is not None and len(part) > 1]


def _size_of(path: Path) -> int:
    return path.stat().st_size


def _ends_of(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(-min(ENDS, path.stat().st_size), os.SEEK_END)
        return hashlib.blake2b(head + file.read(ENDS), digest_size=16).digest()


def _contents_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
