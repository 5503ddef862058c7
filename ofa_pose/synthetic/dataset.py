"""Synthetic multi-person datasets in COCO's layout: articulated, dressed figures that hide each other, on clutter."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ofa_pose.skeleton import AREA_OF_BOX, BUILT_IN
from ofa_pose.synthetic.scenes import MOST_PEOPLE, Person, Scene, check_scenes, draw_scene
from ofa_pose.utils import console
from ofa_pose.utils.atomic import check_folder, holds_something, naming
from ofa_pose.utils.errors import InputError, OfaPoseError, nearest
from ofa_pose.utils.files import read_json, read_json_lines, write_json, write_text
from ofa_pose.utils.process import MOST_WORKERS, process_pool
from ofa_pose.utils.run_dir import alone_in

__all__ = ["Person", "Scene", "draw_scene", "write_dataset"]

VERSION = 3  # raise it when the same seed no longer draws the same pictures
JPEG_QUALITY = 92
MOST_IMAGES = 10**7
ASKED_AT_ONCE = 10_000  # images that the processes are asked for before the first of them is there
DRAWN = "drawn.jsonl"  # until the dataset is whole: what it is to be, then a line for each image that is there
FILE_NAME = "{:06d}.jpg"  # of the image id, as in COCO's own files

Record = tuple[dict[str, Any], list[dict[str, Any]]]  # of an image, and of its annotations


def write_dataset(
    out: Path,
    images: int,
    size: int,
    joints: str,
    seed: int,
    workers: int | None = None,
    resume: bool = False,
    people: int = MOST_PEOPLE,
) -> Path:
    """Write OUT/images/000001.jpg … and then OUT/annotations.json (COCO layout); returns the annotations' path.

    The same arguments give the same files, whatever the number of processes (default: all processors).
    An OUT that already holds this dataset is used as it is. With `resume`, one that was cut off is gone on with, and
    images that a loss of power took are drawn again. Raises InputError on any other OUT that is not empty, on one that
    another process draws to, and on arguments out of range.
    """
    if joints not in BUILT_IN:
        raise InputError(f"no figures with joints '{joints}'", hint=nearest(joints, BUILT_IN))
    if seed < 0:
        raise InputError(f"the seed is {seed}", hint="give 0 or more")
    if not 1 <= images <= MOST_IMAGES:
        raise InputError(f"{images} images were asked for", hint=f"ask for at least 1, at most {MOST_IMAGES:,}")
    workers = workers if workers is not None else os.cpu_count() or 1
    if not 1 <= workers <= MOST_WORKERS:
        raise InputError(
            f"{workers} worker processes were asked for", hint=f"ask for at least 1, at most {MOST_WORKERS}"
        )
    check_scenes(size, people)
    out = Path(out)
    info: dict[str, Any] = {"description": "ofa-pose synthetic people", "seed": seed, "size": size, "joints": joints}
    info |= {"images": images, "version": VERSION}
    if people != MOST_PEOPLE:  # datasets of versions that drew no fewer do not say it
        info["people"] = people
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        return _write(out, info, workers, resume)


def _write(out: Path, info: dict[str, Any], workers: int, resume: bool) -> Path:
    """See `write_dataset`; `info` says what is drawn."""
    path = out / "annotations.json"
    drawn = out / DRAWN
    was_cut_off = drawn.is_file() and not path.exists()
    if was_cut_off and not resume:
        raise InputError("holds a dataset that was cut off", out, "add --resume to go on, or name a new folder")
    images, size, joints, people = info["images"], info["size"], info["joints"], info.get("people", MOST_PEOPLE)
    work = functools.partial(_write_scene, out / "images", info["seed"], size, joints, people)
    if not was_cut_off and _holds(out, path, info):
        drawn.unlink(missing_ok=True)
        if not _redraw(out / "images", images, work, workers, resume):
            console.say(f"{out} already holds this dataset; it is used as it is")
        return path
    skeleton = BUILT_IN[joints]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(skeleton.joints)}
    category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton.limbs]
    document: dict[str, Any] = {"info": info, "licenses": [], "images": [], "annotations": [], "categories": [category]}
    known = _drawn_before(drawn, info) if was_cut_off else {}
    missing = [index for index in range(images) if index not in known]
    write_text(drawn, "".join(json.dumps(line) + "\n" for line in (info, *known.values())))
    (out / "images").mkdir(exist_ok=True)  # not before it is said that the rest is to come
    with (
        naming(drawn),
        drawn.open("a", encoding="utf-8", buffering=1) as file,
        console.progress("drawing scenes", images, done=len(known)) as meter,
        contextlib.closing(_drawn(work, missing, min(workers, len(missing)))) as scenes,
    ):
        for index, record in zip(missing, scenes, strict=True):
            known[index] = record
            file.write(json.dumps(record) + "\n")
            meter.step()
    for index in range(images):
        image, annotations = known[index]
        document["images"].append(image)
        for annotation in annotations:
            document["annotations"].append({"id": len(document["annotations"]) + 1, **annotation})
    write_json(path, document, indent=None)
    drawn.unlink()
    return path


def _redraw(folder: Path, images: int, work: Callable[[int], Record], workers: int, resume: bool) -> int:
    """Draw the images of a finished dataset again that are not whole, as a loss of power leaves them; how many.

    Raises InputError where there are such, without `resume`.
    """
    paths = [folder / FILE_NAME.format(index + 1) for index in range(images)]
    lost = [index for index, path in enumerate(paths) if not _is_whole(path)]
    if lost and not resume:
        what = f"{len(lost)} images of the dataset are missing or cut short"
        raise InputError(what, paths[lost[0]], "add --resume to draw them again, or remove the dataset")
    if lost:
        folder.mkdir(exist_ok=True)
        with (
            console.progress("drawing lost scenes", len(lost)) as meter,
            contextlib.closing(_drawn(work, lost, min(workers, len(lost)))) as scenes,
        ):
            for _ in scenes:
                meter.step()
    return len(lost)


def _drawn(work: Callable[[int], Record], indices: Sequence[int], workers: int) -> Generator[Record, None, None]:
    if workers <= 1:
        yield from map(work, indices)
        return
    try:
        with process_pool(workers, cv2.setNumThreads, 1) as pool:
            chunk = max(1, min(16, len(indices) // (4 * workers)))
            for first in range(0, len(indices), ASKED_AT_ONCE):
                yield from pool.map(work, indices[first : first + ASKED_AT_ONCE], chunksize=chunk)
    except BrokenExecutor as error:
        why = "killed, out of memory, or started by a script without `if __name__ == '__main__'`"
        what = f"a process that draws scenes died ({why}); what was drawn is kept"
        raise OfaPoseError(f"{what}: lower --workers and go on with --resume") from error


def _drawn_before(path: Path, info: dict[str, Any]) -> dict[int, Record]:
    """By their indices the records of the images that were drawn before a dataset was cut off, and are whole.

    Raises InputError where it was to be another dataset.
    """
    lines = [line for _, line in read_json_lines(path) if line is not None]
    _check_same(path.parent, lines[0] if lines else {}, info)
    found: dict[int, Record] = {}
    for line in lines[1:]:
        try:
            image, annotations = line
            index, name = image["id"] - 1, FILE_NAME.format(image["id"])
        except (TypeError, ValueError, KeyError):
            continue
        if 0 <= index < info["images"] and _is_whole(path.parent / "images" / name):
            found[index] = (image, annotations)
    return found


def _is_whole(path: Path) -> bool:
    """Whether a JPEG is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file of fewer bytes
            raise
        return False


def _holds(out: Path, path: Path, info: dict[str, Any]) -> bool:
    """Whether the folder OUT holds this dataset, if not all of its images; raises InputError where it holds another."""
    if not holds_something(out):
        return False
    if not path.is_file():
        raise InputError("is not empty and holds no finished dataset", out, "name a new folder or remove this one")
    document = read_json(path)
    _check_same(out, document.get("info") if isinstance(document, dict) else None, info)
    return True


def _check_same(out: Path, found: Any, info: dict[str, Any]) -> None:
    """Raise InputError where what a folder holds, or was to hold, is another dataset."""
    usual = {"people": MOST_PEOPLE}
    found, info = {**usual, **found} if isinstance(found, dict) else {}, {**usual, **info}
    other = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in info.items() if found.get(key) != value]
    if other:
        raise InputError(f"holds another dataset ({'; '.join(other)})", out, "name a new folder or remove this one")


def _write_scene(folder: Path, seed: int, size: int, joints: str, people: int, index: int) -> Record:
    """Draw and store one scene; returns its image record and its annotations, these without ids."""
    scene = draw_scene(seed, index, size, BUILT_IN[joints], people)
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    code = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
    name = FILE_NAME.format(index + 1)
    with naming(folder / name):
        (folder / name).write_bytes(code.tobytes())
    image: dict[str, Any] = {"id": index + 1, "file_name": name, "width": size, "height": size}
    crowd = joints == "crowdpose"
    if crowd:
        image["crowdIndex"] = round(scene.crowd_index, 2)
    annotations: list[dict[str, Any]] = []
    for person in scene.people:
        numbers = np.round(person.keypoints, 2).ravel().tolist()
        one: dict[str, Any] = {"image_id": index + 1, "category_id": 1, "iscrowd": 0}
        one["num_keypoints"] = int(np.count_nonzero(person.keypoints[:, 2]))
        one["keypoints"] = [int(value) if value == int(value) else value for value in numbers]
        area = round(AREA_OF_BOX * person.bbox[2] * person.bbox[3], 2) if crowd else person.area
        annotations.append(one | {"bbox": person.bbox, "area": area, "segmentation": person.segmentation})
    return image, annotations
