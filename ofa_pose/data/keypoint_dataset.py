"""Keypoint datasets, as COCO's records whatever format they were in, and the splits of a recipe's `data` section.

The annotations' own category declares the joints.

Every record is checked when a dataset is loaded, and all faults are named at once, each with its file and record id.
Keypoints are continuous image-pixel positions as they stand in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ofa_pose.data.coco_parse import parse, resolved
from ofa_pose.data.records import ImageRecord
from ofa_pose.formats.image_files import read_turn
from ofa_pose.formats.reading import fingerprint, read_annotations
from ofa_pose.pose.geometry import box_round, has_area, has_extent
from ofa_pose.skeleton import AREA_OF_BOX, Skeleton, load_skeleton
from ofa_pose.utils.config import Config
from ofa_pose.utils.console import progress, warn
from ofa_pose.utils.errors import Fault, InputError
from ofa_pose.utils.numbers import as_id
from ofa_pose.utils.process import ThreadPool
from ofa_pose.utils.seeding import Key, generator

CheckImages = Literal["none", "exists", "decode"]
SPLITS = ("train", "search", "val", "test")


@dataclass(frozen=True, eq=False)
class KeypointDataset:
    """Images with labelled people, all of one skeleton.

    Attributes:
        skeleton: the joints.
        images: the records, in the annotation file's order.
        annotations_path: the annotation file or folder, with :SPLIT where one of several was named.
        images_dir: the folder of the images.
        warnings: what is odd in the data but no fault, a line each.
        category: the annotation file's keypoint category, as it stands there.
        other_categories: the ids of the file's categories of other things.
        metric: how an AP on these images is defined, 'coco' or 'crowdpose'.
        background: images without a labelled person that a training may take besides; none of `images`.
    """

    skeleton: Skeleton
    images: tuple[ImageRecord, ...]
    annotations_path: Path
    images_dir: Path
    warnings: tuple[str, ...] = ()
    category: Mapping[str, Any] = field(default_factory=dict)
    other_categories: frozenset[int | str] = frozenset()
    metric: str = "coco"
    background: tuple[ImageRecord, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def people(self) -> int:
        """The number of people with a labelled joint."""
        return sum(len(image.keypoints) for image in self.images)

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """What an evaluator needs of these images: COCO's 'images', 'annotations' and 'categories'.

        Annotations are as they stand in the file (joints outside the image included), without their segmentation.
        `bbox`, `area`, `num_keypoints` and `iscrowd` are filled in where missing, `bbox` and `area` also where they are
        empty, and ids are those of the records.
        It is read from the file when first asked for, so that training does not hold it in memory. Raises InputError
        where the file is another one than when the fingerprint was taken.
        """
        value = read_annotations(self.annotations_path, self.images_dir).value
        known = self.__dict__.get("fingerprint")
        if known is not None and fingerprint(self.annotations_path, self.images_dir, value=value) != known:
            raise InputError("was changed while it was used", self.annotations_path, "start again")
        wanted, own = {image.id for image in self.images}, self.category["id"]
        people = [
            _evaluated(annotation)
            for annotation in resolved(value, own, self.other_categories)
            if annotation["image_id"] in wanted and annotation["category_id"] == own
        ]
        kept = [{**image, "id": as_id(image["id"])} for image in value["images"] if as_id(image["id"]) in wanted]
        return {"images": kept, "annotations": people, "categories": [dict(self.category)]}

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the annotations."""
        return fingerprint(self.annotations_path, self.images_dir)

    def select(self, indices: Iterable[int]) -> KeypointDataset:
        """The images at these places, in this order. Raises InputError where there are none."""
        images = tuple(self.images[int(index)] for index in indices)
        if not images:
            raise InputError("no image is left", self.annotations_path, "ask for at least one image")
        return replace(self, images=images)

    def limit(self, count: int | None) -> KeypointDataset:
        """The first `count` images, or all of them for None."""
        if count is None or count >= len(self):
            return self
        return self.select(range(max(count, 0)))

    def choose(self, count: int, *keys: Key) -> KeypointDataset:
        """A fixed random choice of `count` images at most, in the file's order; the keys decide which.

        The first images of a file are often one scene.
        """
        if count >= len(self):
            return self
        return self.select(np.sort(self.draw(count, *keys)))

    def choose_people(self, count: int, *keys: Key) -> KeypointDataset:
        """As `choose`, from the images with people that an evaluation counts; others only where those are too few.

        An AP on images where nobody is to be found says nothing.
        """
        if count >= len(self):
            return self
        order = self.draw(len(self), *keys)
        empty = np.array([self.images[place].counted == 0 for place in order])
        return self.select(np.sort(order[np.argsort(empty, kind="stable")][:count]))

    def draw(self, count: int, *keys: Key) -> NDArray[np.int64]:
        """The places of `count` images at most, in a random order; the keys decide it."""
        return generator(*keys).permutation(len(self))[:count]

    def split_off(self, share: float, seed: int) -> tuple[KeypointDataset, KeypointDataset]:
        """(train, search): a pseudo-random `share` of the images apart from the rest; the seed alone decides which.

        Each part has at least one image and keeps the file's order. Raises InputError where that cannot be.
        """
        if not 0 < share < 1:
            raise InputError(f"a search share of {share} leaves one side empty", hint="give a share between 0 and 1")
        if len(self) < 2:
            raise InputError(
                "one image cannot be split into train and search", self.annotations_path, "give data.search of its own"
            )
        count = min(max(round(share * len(self)), 1), len(self) - 1)
        order = self.draw(len(self), seed, "search split")
        return self.select(np.sort(order[count:])), self.select(np.sort(order[:count]))

    def with_people(self) -> KeypointDataset:
        """The images with a labelled person, the others as `background`. Raises InputError where nobody is labelled."""
        indices = [index for index, image in enumerate(self.images) if len(image.keypoints)]
        if not indices:
            raise InputError(
                "no person has a labelled joint", self.annotations_path, "label some, or name another file"
            )
        if len(indices) == len(self):
            return self
        return replace(self.select(indices), background=tuple(one for one in self.images if not len(one.keypoints)))


def load_dataset(
    annotations: str | Path,
    images: str | Path | None = None,
    skeleton: Skeleton | None = None,
    check_images: CheckImages = "exists",
    trained: Skeleton | None = None,
) -> KeypointDataset:
    """Load and check a keypoint dataset in any format of `ofa_pose.formats.reading.FORMATS`.

    Args:
        annotations: COCO's JSON file, or a file or folder of another format; PATH:SPLIT where it holds several splits.
        images: the folder that the records' file_name starts from; None: see `read_annotations`.
        skeleton: flip pairs, sigmas and limbs for the file's joints; must name the same joints in the same order. By
            default `trained`, else the built-in skeleton with these joints, else a draft (and a warning).
        check_images: 'none', that each file 'exists', or 'decode' each and compare its size.
        trained: of a network that will see these images, whose skeleton counts if its joints are the file's; where it
            is not what the file or `skeleton` says, a warning names what differs.

    Raises:
        InputError: holding every fault found, each with the file, the record's id and the hint.
    """
    annotations, known = Path(annotations), skeleton or trained
    read = read_annotations(annotations, images, known.joints if known else ())
    parsed = parse(annotations, read.folder, read.value, skeleton, trained)
    faults, records, warnings = list(parsed.faults), parsed.images, (*read.notes, *parsed.warnings)
    if check_images != "none":
        missing = _missing_files(records, annotations, read.folder, images is None)
        faults += missing
        try:
            if not missing:
                records, turned = orient(records)
                warnings += tuple(f"{annotations}: {words}" for words in turned)
            if check_images == "decode":
                faults += _undecodable([record for record in records if record.path.is_file()])
        except InputError as error:  # files that cannot be read
            faults += error.faults
    if faults:
        raise InputError.of(faults)
    rest = warnings, parsed.category, parsed.other_categories
    return KeypointDataset(parsed.skeleton, records, annotations, read.folder, *rest)


def orient(records: Sequence[ImageRecord]) -> tuple[tuple[ImageRecord, ...], list[str]]:
    """The records of a file, each with the way round that its labels are of, and a line where that is a guess.

    An annotated size that only the stored or only the upright image has decides. An image whose size says nothing
    (upside down, mirrored or square) is as most of those whose size does, and upright where there are none: as
    annotation tools show it. Raises InputError of all files that cannot be read.
    """

    def turn_of(record: ImageRecord) -> tuple[int, tuple[int, int]] | None:
        try:
            return read_turn(record.path)
        except InputError as error:
            faults.extend(error.faults)
            return None

    faults: list[Fault] = []
    with ThreadPool() as pool:
        turns = list(pool.map(turn_of, records, chunksize=64))
    if faults:
        raise InputError.of(sorted(faults, key=str))
    votes: dict[int, bool] = {}
    silent = []
    for place, (record, turn) in enumerate(zip(records, turns, strict=True)):
        if turn is not None:
            orientation, stored = turn
            upright = stored[::-1] if orientation > 4 else stored
            if stored == upright:
                silent.append(place)
            else:
                votes[place] = record.size != stored
    most = sum(votes.values()) * 2 >= len(votes)
    oriented = [
        replace(one, upright=votes.get(place, turns[place] is not None and most)) for place, one in enumerate(records)
    ]
    words = []
    if len(set(votes.values())) > 1:
        words.append(
            f"by their sizes {sum(votes.values())} of {len(votes)} images that EXIF turns are labelled upright, "
            "the others as stored; each is read so"
        )
    if silent:
        first, way = records[silent[0]].path.name, "upright" if most else "as stored"
        why = "as those whose sizes say it" if votes else "a guess"
        words.append(
            f"{len(silent)} images are turned by EXIF and keep their size (the first is {first}); their labels are "
            f"taken to be of the image {way}, {why}: look at them, or store the images upright without EXIF"
        )
    return tuple(oriented), words


def _evaluated(annotation: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in annotation.items() if key != "segmentation"}
    result["iscrowd"] = result.get("iscrowd") or 0
    result["keypoints"] = result.get("keypoints") or []
    if result.get("num_keypoints") is None:
        result["num_keypoints"] = sum(v > 0 for v in result["keypoints"][2::3])
    if not has_extent(result.get("bbox")):
        joints = np.array(result["keypoints"], np.float64).reshape(-1, 3)
        result["bbox"] = list(box_round(joints[joints[:, 2] > 0, :2]))
    if not has_area(result.get("area")):
        result["area"] = AREA_OF_BOX * result["bbox"][2] * result["bbox"][3]
    return result


def _missing_files(records: Sequence[ImageRecord], annotations: Path, folder: Path, is_guess: bool) -> list[Fault]:
    if is_guess and records and not any(record.path.is_file() for record in records):
        what = (
            f"its images are neither beside it nor in a folder of a usual name (the first would be {records[0].path})"
        )
        hint = "name their folder with --images, in a recipe with images beside annotations"
        return [Fault(what, str(annotations), hint)]
    if not folder.is_dir():
        return [Fault("no such folder of images", str(folder), "check the path")]
    missing = [record for record in records if not record.path.is_file()]
    if records and len(missing) == len(records):
        first = os.path.relpath(records[0].path, folder)
        hint = "name the folder that file_name starts from"
        if "\\" in first:
            hint = "file_name is written with Windows' backslashes: write / for them"
        what = f"holds none of the {len(records)} images of {annotations} (the first is {first})"
        return [Fault(what, str(folder), hint)]
    return [
        Fault(
            f"image {record.id}: its file {record.path} is missing", str(annotations), "restore it or remove the record"
        )
        for record in missing
    ]


def _undecodable(records: Sequence[ImageRecord]) -> list[Fault]:
    def faults_of(record: ImageRecord) -> tuple[Fault, ...]:
        try:
            record.read()
        except InputError as error:
            return error.faults
        return ()

    faults: list[Fault] = []
    with ThreadPool() as pool, progress("reading images", len(records)) as meter:
        for found in pool.map(faults_of, records):
            faults += found
            meter.step()
    return faults


class Source(Config):
    """Annotations, in COCO's format or another tool's, and where their images are."""

    annotations: str = Field(
        description="COCO-format keypoint file, or another tool's; PATH:SPLIT where it holds several"
    )
    images: str | None = Field(
        None,
        description="folder of its images; none: where the annotations say, or beside them",
        exclude_if=lambda images: images is None,
    )


class DataSettings(Config):
    """The datasets of a recipe.

    `search` needs images that no weight was trained on and no final figure is taken from: where it is not given,
    `search_share` of train is held out for it, the same images in every command.
    """

    train: Source | None = None
    search: Source | None = None
    val: Source | None = None
    test: Source | None = None
    skeleton: str | None = Field(
        None, description="`coco`, `crowdpose` or the YAML of another; none: the annotations declare it"
    )
    search_share: float = Field(0.1, gt=0, lt=1, description="of train, held out where data.search is not given")
    background: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the training samples that are images without a labelled person, where train has any",
    )
    metric: Literal["coco", "crowdpose"] = Field(
        "coco",
        description="of every AP: of checkpoints, searches and studies",
        exclude_if=lambda metric: metric == "coco",
    )


def load_splits(
    settings: DataSettings, *splits: str, trained: Skeleton | None = None, check_images: CheckImages = "exists"
) -> list[KeypointDataset]:
    """These splits, checked; where search is held out of train, both come of one reading.

    Training images exclude those held out for the search; those without people are its `background`. Raises
    InputError.

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
        hint = f"add --set data.{split}.annotations=FILE, and data.{split}.images=DIR if they are not beside it"
        raise InputError(f"the recipe names no data.{split}", hint=hint)
    skeleton = load_skeleton(settings.skeleton) if settings.skeleton else None
    dataset = load_dataset(source.annotations, source.images, skeleton, check_images, trained)
    for warning in dataset.warnings:
        warn(warning)
    return replace(dataset, metric=settings.metric)
