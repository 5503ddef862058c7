"""A dataset of any known format written as COCO's or YOLO's: whole or not at all, photos left where they are."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from ofa_pose.data.check import skeleton_text
from ofa_pose.data.coco_parse import Parsed, parse, resolved
from ofa_pose.data.keypoint_dataset import orient
from ofa_pose.formats.annotated import AnnotatedImages, Given, Origin, StoredImage, VideoFrame
from ofa_pose.formats.image_files import is_inside, open_capture, read_turn, upright_records
from ofa_pose.formats.reading import choose, images_folder, read_splits, split_name, unpacked
from ofa_pose.formats.sleap import open_hdf5, stored_bytes
from ofa_pose.formats.yolo_labels import SPLITS, data_yaml, label_files, split_for_yolo
from ofa_pose.skeleton import BUILT_IN, Skeleton
from ofa_pose.utils.atomic import check_empty, new_folder
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import dump_yaml, folded, real, write_json, write_text

WRITTEN = ("coco", "yolo")
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system without links answers
_NO_PRIVILEGE = 1314  # what Windows answers whom it lets make none


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        source_format: the format that was read.
        splits: of each split its annotations, images (a folder), count (of images) and people.
        skeleton: the file of the joints' flip pairs, sigmas and limbs; None of a built-in skeleton.
        losses: how many things could not be kept, by a key of `ofa_pose.formats.annotated.LOSSES`.
        notes: what a reader should know, a line each.
    """

    source_format: str
    splits: dict[str, dict[str, Any]]
    skeleton: Path | None
    losses: dict[str, int]
    notes: tuple[str, ...]


@dataclass
class _Part:
    """A split on its way: its records, checked, and the place of each image file.

    Attributes:
        images: the folder that file_name starts from; None: images/ in the new folder.
    """

    read: AnnotatedImages
    parsed: Parsed
    origins: tuple[Origin, ...]
    names: list[str]
    images: Path | None
    losses: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def convert(
    source: Path,
    out: Path,
    to: str = "coco",
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    copy_images: bool = False,
) -> Conversion:
    """Read a dataset of any known format and write it to the new folder `out`.

    Args:
        source: a file, a folder or a zip file; PATH:SPLIT for one of its splits.
        out: a folder that is not there yet, or is empty.
        to: one of `WRITTEN`.
        images: where the images are, if not beside the annotations.
        skeleton: names joints that have none in the source, and gives flip pairs, sigmas and limbs.
        copy_images: put the images into `out`; without it only frames of videos and images of zip files.

    Raises:
        InputError: with every fault of the source; `out` holds something; then nothing is written.
    """
    if to not in WRITTEN:
        raise InputError(f"no such format to write: '{to}'", hint=nearest(to, WRITTEN))
    check_empty(out)
    path, split = split_name(source)
    with unpacked(path, with_images=True) as place:
        is_zip = place != path
        given = Given(place, images, skeleton.joints if skeleton else ())
        found, splits = read_splits(given)
        if split:
            splits = [choose(splits, split, path)]
        own = to == "yolo" or copy_images
        parts = [_checked(given, path, read, skeleton, own, place if is_zip else None) for read in splits]
        chosen = parts[0].parsed.skeleton
        for part in parts[1:]:
            if part.parsed.skeleton.joints != chosen.joints:
                what = f"its splits '{parts[0].read.split}' and '{part.read.split}' have other joints, or another order"
                raise InputError(what, path, f"convert each for itself, as {path}:{part.read.split}")
        with new_folder(out, ("data.yaml", "annotations.json")) as folder:
            written = _write_yolo(folder, parts, copy_images or is_zip) if to == "yolo" else _write_coco(folder, parts)
            if chosen not in BUILT_IN.values():
                write_text(folder / "skeleton.yaml", skeleton_text(chosen))
    described = {
        name: {key: out / value if key in ("annotations", "images") else value for key, value in one.items()}
        for name, one in written.items()
    }
    losses: Counter[str] = Counter()
    for part in parts:
        losses.update(part.losses)
        losses.update(part.read.losses)
    if to == "yolo":
        losses["limbs"] = len(chosen.limbs)
    notes = [note for part in parts for note in (*part.read.notes, *part.parsed.warnings, *part.notes)]
    if to == "yolo" and "val" not in written:
        notes.append("data.yaml names no val, which Ultralytics asks for: convert a folder of train.json and val.json")
    kept = None if chosen in BUILT_IN.values() else out / "skeleton.yaml"
    texts = tuple(dict.fromkeys(note.replace(str(place), str(path)) for note in notes))
    return Conversion(found, described, kept, {key: n for key, n in sorted(losses.items()) if n}, texts)


def _checked(
    given: Given, path: Path, read: AnnotatedImages, skeleton: Skeleton | None, own: bool, archive: Path | None
) -> _Part:
    """A split with every record checked, and where its images are. Raises InputError with all faults."""
    folder = images_folder(given, read)
    parsed = parse(path, folder, read.value, skeleton)
    if parsed.faults:
        raise InputError.of(parsed.faults)
    origins = read.origins
    if origins is None:
        origins = tuple(folder / record["file_name"] for record in read.value["images"])
        for record in read.value["images"]:
            if not is_inside(folder / record["file_name"], folder):
                what = f"its file_name {record['file_name']!r:.80} leads out of {folder}"
                raise InputError(what, f"{path}: image {record['id']}", "name a folder above with --images")
    paths = [Path(os.path.abspath(one)) for one in origins if isinstance(one, Path)]
    outside = len(paths) < len(origins) or (archive is not None and any(is_inside(one, archive) for one in paths))
    common = images_folder(given, replace(read, origins=origins))
    names = [
        Path(os.path.abspath(one)).relative_to(common).as_posix() if isinstance(one, Path) else record["file_name"]
        for one, record in zip(origins, read.value["images"], strict=True)
    ]
    return _Part(read, parsed, origins, names, None if own or outside else common)


def _write_coco(folder: Path, parts: list[_Part]) -> dict[str, dict[str, Any]]:
    """One annotation file a split, beside it the images that lie nowhere else."""
    written = {}
    for part in parts:
        split = part.read.split
        file = f"{split}.json" if split else "annotations.json"
        images = Path("images", split)
        names = part.names
        if part.images is None:
            own = list(dict.fromkeys(names))  # one image may have several records
            new = dict(zip(own, _distinct(own), strict=True))
            names = [new[name] for name in names]
            _write_images(folder / images, names, part.origins, links=False)
        records = [{**record, "file_name": name} for record, name in zip(part.read.value["images"], names, strict=True)]
        write_json(folder / file, {**part.read.value, "images": records}, indent=None)
        written[split or "all"] = _described(part, Path(file), part.images or images)
    return written


def _write_yolo(folder: Path, parts: list[_Part], copy: bool) -> dict[str, dict[str, Any]]:
    """data.yaml, labels/SPLIT and images/SPLIT: links to the images, or copies."""
    written = {}
    for part in parts:
        split = split_for_yolo(part.read.split if len(parts) > 1 else split_for_yolo(part.read.split) or "")
        if split is None or split in written:
            what = f"the split '{part.read.split}' is not one of YOLO's"
            raise InputError(what, hint=f"name the splits {', '.join(SPLITS)}, each once")
        own, others = part.parsed.category["id"], part.parsed.other_categories
        oriented, guesses = orient(part.parsed.images)
        part.notes += guesses
        stored = {image.id: read_turn(image.path) for image in oriented if not image.upright and image.path.is_file()}
        lists = {**part.read.value, "annotations": list(resolved(part.read.value, own, others))}
        value = upright_records(lists, {key: turn for key, turn in stored.items() if turn})
        texts, losses = label_files(value, own, len(part.parsed.skeleton.joints))
        alike = sum(isinstance(one, dict) and bool(one.get("keypoints")) for one in value["categories"])
        part.losses.update(losses, classes=alike - 1)
        names = _distinct(part.names, whole=False)
        _write_images(folder / "images" / split, names, part.origins, links=not copy)
        for name, text in zip(names, texts, strict=True):
            label = (folder / "labels" / split / name).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text, encoding="utf-8")
        written[split] = _described(part, Path("data.yaml"), Path("images", split))
    first = parts[0].parsed
    named = str(first.category.get("name", "person"))
    write_text(folder / "data.yaml", dump_yaml(data_yaml(written, first.skeleton, named)))
    return written


def _described(part: _Part, annotations: Path, images: Path) -> dict[str, Any]:
    people = sum(len(image.keypoints) for image in part.parsed.images)
    return {"annotations": annotations, "images": images, "count": len(part.names), "people": people}


def _distinct(names: list[str], whole: bool = True) -> list[str]:
    """The names, with a number where two would be one file, or not `whole`, share a label file; case does not count."""

    def key(path: Path) -> str:
        return folded(path if whole else path.with_suffix(""))

    taken: set[str] = set()
    numbers: dict[str, int] = {}  # by a key: the first that was not tried
    result = []
    for name in names:
        path = Path(name)
        first = key(path)
        while key(path) in taken:
            numbers[first] = numbers.get(first, 1) + 1
            path = Path(name).with_stem(f"{Path(name).stem}-{numbers[first]}")
        taken.add(key(path))
        result.append(path.as_posix())
    return result


def _write_images(folder: Path, names: list[str], origins: tuple[Origin, ...], links: bool) -> None:
    """Copy image files, or link to them; take frames out of videos and out of HDF5 files."""
    frames: dict[Path, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    stored: dict[Path, list[tuple[StoredImage, Path]]] = defaultdict(list)
    folder.mkdir(parents=True, exist_ok=True)
    with progress("writing images", len(names)) as meter:
        for name, origin in zip(names, origins, strict=True):
            target = folder / name
            if not is_inside(target, folder):
                what = f"its file_name {name!r:.80} leads out of the dataset"
                raise InputError(what, getattr(origin, "file", origin), "save the labels again")
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(origin, VideoFrame):
                frames[origin.video][origin.index].append(target)
            elif isinstance(origin, StoredImage):
                stored[origin.file].append((origin, target))
            else:
                if not origin.is_file():
                    raise InputError("no such image", origin, "restore it, or name the images' folder with --images")
                if links:
                    _link(target, real(origin))
                else:
                    shutil.copyfile(origin, target)
                meter.step()
        for video, wanted in frames.items():
            _write_frames(video, wanted)
            meter.step(len(wanted))
        for path, several in stored.items():
            with open_hdf5(path) as file:
                for origin, target in several:
                    target.write_bytes(stored_bytes(file, origin))
                    meter.step()


def _link(target: Path, origin: Path) -> None:
    try:
        target.symlink_to(origin)
    except OSError as error:
        if error.errno not in _NO_LINKS and getattr(error, "winerror", None) != _NO_PRIVILEGE:
            raise
        what = f"links to images cannot be made there ({error.strerror})"
        raise InputError(what, origin, "add --copy-images") from None


def _write_frames(video: Path, wanted: Mapping[int, list[Path]]) -> None:
    """Frames of a video as PNG files; it is read from its start, as not every codec seeks to the frame asked for."""
    reader = open_capture(video)
    try:
        for index in range(max(wanted) + 1):
            if not reader.grab():
                raise InputError(f"ends at frame {index}, and frame {max(wanted)} is labelled", video, "restore it")
            if index in wanted:
                done, frame = reader.retrieve()
                code = cv2.imencode(".png", frame)[1] if done else None
                for target in wanted[index]:
                    if code is None:
                        raise InputError(f"frame {index} cannot be read", video, "convert it to another format")
                    target.write_bytes(code.tobytes())
    finally:
        reader.release()
