"""Annotations from whatever a path names: the format is seen by its suffix and contents."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ofa_pose.formats import coco_json, cvat, deeplabcut, label_studio, labelme, sleap, yolo
from ofa_pose.formats.annotated import LOSSES, AnnotatedImages, AnnotationFormat, Given
from ofa_pose.formats.coco_json import image_folder
from ofa_pose.formats.image_files import IMAGE_SUFFIXES
from ofa_pose.utils.atomic import names_file_in, scratch_folder
from ofa_pose.utils.errors import Fault, InputError, is_of_content, nearest
from ofa_pose.utils.files import DAMAGED_ZIP, LONGEST_TEXT, check_regular, sha256

FORMATS: dict[str, AnnotationFormat] = {  # the first that accepts a path reads it; COCO takes the rest
    "yolo": yolo.FORMAT,
    "cvat": cvat.FORMAT,
    "sleap": sleap.FORMAT,
    "deeplabcut": deeplabcut.FORMAT,
    "label-studio": label_studio.FORMAT,
    "labelme": labelme.FORMAT,
    "coco": coco_json.FORMAT,
}
_OF_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)  # that no disk can hold
_MOST_PACKED = 20  # times its own size that a larger one may take with its images, which are packed already


def split_name(named: str | Path) -> tuple[Path, str]:
    """('data.yaml', 'val') of 'data.yaml:val', and '' where no split is named."""
    text = str(named)
    front, colon, split = text.rpartition(":")
    if colon and split and not Path(text).exists() and Path(front).exists():
        return Path(front), split
    return Path(text), ""


def format_of(given: Given) -> str:
    """The name of the format. Raises InputError: no such file, or one of no known format."""
    if not given.path.exists():
        raise InputError("no such file", given.path, "check the path")
    check_regular(given.path)
    found = next((name for name, one in FORMATS.items() if one.accepts(given)), None)
    if found is None:
        known = ", ".join(one.title for one in FORMATS.values())
        raise InputError("is of no known annotation format", given.path, f"known are {known}")
    return found


def read_splits(given: Given) -> tuple[str, list[AnnotatedImages]]:
    """The name of the format, and every split of what a path names; zip files are to be unpacked before."""
    name = format_of(given)
    try:
        parts = FORMATS[name].read(given)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:  # what no check names
        what = f"is not what {FORMATS[name].title} holds ({type(error).__name__}: {error!s:.80})"
        raise InputError(what, given.path, "export it again") from error
    return name, parts


@contextmanager
def unpacked(path: Path, with_images: bool) -> Iterator[Path]:
    """A path, or the folder that a zip file is unpacked to for as long as the context lasts.

    Raises InputError where the zip file is damaged, or a member of it would be written elsewhere.
    """
    if path.suffix.lower() != ".zip" or not path.is_file():
        yield path
        return
    with scratch_folder() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [one for one in archive.infolist() if not one.is_dir()]
                for member in members:
                    parts = PurePosixPath(member.filename.replace("\\", "/"))
                    link = stat.S_ISLNK(member.external_attr >> 16)
                    if parts.is_absolute() or ".." in parts.parts or link:
                        hint = "pack it again, from inside its folder"
                        raise InputError(f"its member {member.filename!r:.80} leads out of it", path, hint)
                texts = [one for one in members if PurePosixPath(one.filename).suffix.lower() not in IMAGE_SUFFIXES]
                if sum(one.file_size for one in texts) > LONGEST_TEXT:
                    raise InputError("holds more than 4 GiB of annotations", path, "unpack it, and name the folder")
                wanted = members if with_images else texts
                whole = sum(one.file_size for one in wanted)
                if whole > max(LONGEST_TEXT, _MOST_PACKED * path.stat().st_size):
                    what = f"stands for {whole >> 30:,} GiB, more than {_MOST_PACKED} times its size"
                    raise InputError(what, path, "unpack it, and name the folder")
                archive.extractall(folder, wanted)
        except OSError as error:
            if not (is_of_content(error) or error.errno in _OF_NAMES):
                raise
            hint = "copy or download the file again"
            if error.errno in _OF_NAMES:
                hint = "pack it again with other names, or unpack it and name the folder"
            raise InputError(f"cannot be unpacked ({error.strerror or error})", path, hint) from None
        except DAMAGED_ZIP as error:
            raise InputError(f"cannot be unpacked ({error})", path, "copy or download the file again") from None
        try:
            yield folder
        except InputError as error:  # say where in the zip file
            faults = [(fault.what, fault.where, fault.hint) for fault in error.faults]
            named = [[text.replace(str(folder), str(path)) for text in texts] for texts in faults]
            raise InputError.of([Fault(*texts) for texts in named]) from None
        except OSError as error:
            if not names_file_in(folder, error):
                raise
            raise OSError(error.errno, error.strerror, str(error.filename).replace(str(folder), str(path))) from None


def read_annotations(
    named: str | Path, images: str | Path | None = None, joints: tuple[str, ...] = ()
) -> AnnotatedImages:
    """One split as COCO's lists, with every file_name from one folder.

    Args:
        named: a file or folder of any format of `FORMATS`, or PATH:SPLIT where it holds several.
        images: the folder of the images; None: where the annotations say that they are, or one beside them.
        joints: names for joints that have none in the source.

    Raises:
        InputError: naming file and record; several splits and none named; or images that do not lie in `images`.
    """
    path, split = split_name(named)
    with unpacked(path, with_images=False) as place:
        given = Given(place, None if images is None else Path(images), joints)
        _, parts = read_splits(given)
    part = choose(parts, split, path)
    if images is None and part.origins is not None and place != path:
        raise InputError("is packed, and its images are read from a folder", path, "name it with --images, or unpack")
    folder = Path(images) if images is not None else images_folder(replace(given, path=path), part)
    part = replace(part, folder=folder)
    if part.origins is None:
        return part
    listed = []
    for record, origin in zip(part.value["images"], part.origins, strict=True):
        if not isinstance(origin, Path):
            hint = f"write them to files first: ofa-pose data convert {path} --out DIR"
            raise InputError("its images are frames of videos", path, hint)
        listed.append({**record, "file_name": _from_folder(origin, folder, place, path)})
    notes = (*(f"{path}: {note}" if str(path) not in note else note for note in part.notes), *loss_lines(part, path))
    return replace(part, value={**part.value, "images": listed}, notes=notes)


def images_folder(given: Given, part: AnnotatedImages) -> Path:
    """The folder that all images of a split lie in, whatever the format says of them."""
    if part.origins is None:
        return image_folder(given, part.split, part.value)
    folders = [os.path.dirname(os.path.abspath(origin)) for origin in part.origins if isinstance(origin, Path)]
    return Path(os.path.commonpath(folders)) if folders else given.root


def choose(parts: list[AnnotatedImages], split: str, path: Path) -> AnnotatedImages:
    """The split of that name, or the only one. Raises InputError."""
    names = [part.split for part in parts]
    if not split and len(parts) > 1:
        raise InputError(f"has the splits {', '.join(names)}", path, f"name one of them, as {path}:{names[0]}")
    if split and split not in names:
        raise InputError(f"has no split '{split}'", path, nearest(split, [name or "only one" for name in names]))
    return parts[names.index(split)] if split else parts[0]


def loss_lines(part: AnnotatedImages, path: Path) -> list[str]:
    """A line for each thing that could not be kept."""
    return [f"{path}: {count} {LOSSES[key]} are left out" for key, count in part.losses.items()]


def fingerprint(named: str | Path, images: str | Path | None = None, *, value: Mapping[str, Any] | None = None) -> str:
    """A SHA-256 that stands for annotations: that of a file, or of what is read: a split, or many files.

    Args:
        value: what was read of them already.
    """
    path, split = split_name(named)
    if not split and not path.is_dir() and path.suffix.lower() not in (".yaml", ".yml"):
        return sha256(path)
    value = read_annotations(named, images).value if value is None else value
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _from_folder(image: Path, folder: Path, unpacked_to: Path, path: Path) -> str:
    """An image's path from a folder; of one that should have been in a zip file, its path there."""
    here, start = os.path.abspath(image), os.path.abspath(folder)
    if Path(here).is_relative_to(start):
        return Path(here).relative_to(start).as_posix()
    if unpacked_to != path and Path(here).is_relative_to(unpacked_to):
        return image.name
    raise InputError(f"its image {image} does not lie in {folder}", path, "name the folder of its images, or one above")
