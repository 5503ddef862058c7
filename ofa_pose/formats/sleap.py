"""SLEAP: .slp files, HDF5 with tables of frames, instances and points, and the skeleton in JSON."""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ofa_pose.formats.annotated import (
    AnnotatedImages,
    AnnotationFormat,
    Gathered,
    Given,
    Joints,
    Origin,
    Point,
    StoredImage,
    VideoFrame,
)
from ofa_pose.formats.image_files import DAMAGE, ImageFinder, size_of
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import reading

_USER = 0  # instance_type of people that somebody labelled; 1: predicted
_EDGE, _SYMMETRY = 1, 2  # EdgeType of a skeleton's link
_CORNER_ORIGIN = 1.1  # files below this format count from the corner of the first pixel, later ones from its centre
_HINT = "save it in SLEAP again"
_SMALL = 1 << 28  # bytes that are read in any case
_MOST_PACKED = 100  # times its file's size that a larger dataset may take: one of few labels is packed well


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file to read. Raises InputError where it is none or damaged, or h5py is not installed."""
    try:
        import h5py
    except ImportError:
        hint = "pip install 'ofa-pose[formats]'"
        raise InputError("is HDF5, and h5py is not installed", path, hint) from None
    with reading(path):
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            if error.errno is None:
                raise InputError("is not an HDF5 file", path, "name another file") from None
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None  # h5py's text is long
    with file:
        try:
            yield file
        except (RuntimeError, OSError) as error:  # h5py's, of contents that its library cannot make out
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(f"is a damaged HDF5 file ({error})", path, "save it again, or copy it again") from None


def whole(data: Any, row: int | None = None) -> Any:
    """All of an HDF5 dataset, or a row. Raises InputError where the file holds far less, as of one never written."""
    shape = data.shape if row is None else data.shape[1:]
    size, path = math.prod(shape) * data.dtype.itemsize, Path(data.file.filename)
    if size > max(_SMALL, _MOST_PACKED * path.stat().st_size):
        what = f"its {data.name.strip('/')} stands for {size >> 20:,} MiB, far more than the file holds"
        raise InputError(what, path, "save it again, or copy it again")
    return data[() if row is None else row]


@dataclass(frozen=True)
class _Video:
    """A video as the file names it: its images, those kept in the file by frame number, or a video file."""

    name: str  # of the folder of its frames
    file: Path | None = None
    images: tuple[str, ...] = ()
    dataset: str = ""
    rows: Mapping[int, int] | None = None  # of stored images, by frame number
    size: tuple[int, int] | None = None
    suffix: str = ".png"


def _read(given: Given) -> list[AnnotatedImages]:
    path = given.path
    with open_hdf5(path) as file:
        try:
            return [_Labels(given, file).read()]
        except (KeyError, ValueError, IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise InputError(f"is not what SLEAP writes ({type(error).__name__}: {error})", path, _HINT) from None


class _Labels:
    """The contents of an open .slp file."""

    def __init__(self, given: Given, file: Any) -> None:
        self._given, self._file, self._path = given, file, given.path
        head = file["metadata"].attrs
        self._format = float(head.get("format_id", 1.0))
        self._metadata = json.loads(head["json"] if "json" in head else whole(file["metadata/json"]))
        self._instances = whole(file["instances"])
        is_user = self._instances["instance_type"] == _USER
        if not is_user.any():
            what = f"holds {len(is_user)} predicted people and nobody whom someone labelled"
            raise InputError(what, self._path, "correct predictions in SLEAP, which makes labels of them")
        used = Counter(self._instances["skeleton"][is_user].tolist())
        self._skeleton = used.most_common(1)[0][0]
        self._finder = ImageFinder(given.root, given.images, [given.root / "images"])
        self._sizes: dict[Path, tuple[int, int]] = {}

    def read(self) -> AnnotatedImages:
        """Every frame on which somebody labelled someone."""
        joints = self._joints()
        gathered = Gathered(joints)
        points, videos, claimed = whole(self._file["points"]), list(self._videos()), 0
        for frame in whole(self._file["frames"]):
            start, end = int(frame["instance_id_start"]), int(frame["instance_id_end"])
            claimed += end - start
            if not 0 <= start <= end or claimed > len(self._instances):
                raise InputError("its frames name people that it does not hold, or share them", self._path, _HINT)
            rows = self._instances[start:end]
            labelled = [row for row in rows if row["instance_type"] == _USER]
            gathered.losses["predictions"] += len(rows) - len(labelled)
            if not labelled:
                gathered.losses["unlabelled_frames"] += 1
                continue
            index, which = int(frame["frame_idx"]), int(frame["video"])
            if index < 0 or not 0 <= which < len(videos):
                raise InputError(f"names frame {index} of video {which}, of {len(videos)}", self._path, _HINT)
            video = videos[which]
            where = f"{self._path}: frame {index} of {video.name}"
            name, origin, size = self._image(video, index, where)
            number = gathered.add_image(name, size, origin, where)
            for row in labelled:
                if int(row["skeleton"]) != self._skeleton:
                    gathered.losses["other_categories"] += 1
                    continue
                own = points[int(row["point_id_start"]) : int(row["point_id_end"])]
                track = int(row["track"])
                gathered.add_person(number, self._points(joints, own), more={"track_id": track} if track >= 0 else None)
        gathered.notes += self._finder.note()
        return gathered.finish("", self._path)

    def _joints(self) -> Joints:
        """The skeleton that is used; links are edges, or pairs that change places in a mirror."""
        nodes = [str(node["name"]) for node in self._metadata["nodes"]]
        described = self._metadata["skeletons"][self._skeleton]
        graph = described.get("nx_graph", described)
        names = tuple(nodes[node["id"]] for node in graph["nodes"])
        links: dict[int, list[tuple[str, str]]] = {_EDGE: [], _SYMMETRY: []}
        kinds: list[int] = []  # by their first appearance, which is what later ones refer to
        for link in graph["links"]:
            kind = link.get("type", {})
            if "py/reduce" in kind:
                kinds.append(kind["py/reduce"][1]["py/tuple"][0])
                number = kinds[-1]
            else:
                said = kind.get("py/id", _EDGE)
                number = kinds[said - 1] if 1 <= said <= len(kinds) else said
            links.setdefault(number, []).append((nodes[link["source"]], nodes[link["target"]]))
        ordered = (sorted(pair, key=names.index) for pair in links[_SYMMETRY])  # each stands there both ways
        pairs = tuple(dict.fromkeys((a, b) for a, b in ordered))
        name = str(graph.get("graph", {}).get("name") or "animal")
        return Joints(name, names, tuple(links[_EDGE]), pairs or None).check(self._path)

    def _points(self, joints: Joints, rows: Any) -> dict[str, Point]:
        """Joints that are placed; SLEAP's 'not visible' is hidden here."""
        shift = 0.5 if self._format < _CORNER_ORIGIN else 0.0
        return {
            name: (float(row["x"]) - shift, float(row["y"]) - shift, 2 if row["visible"] else 1)
            for name, row in zip(joints.names, rows, strict=True)
            if np.isfinite(row["x"]) and np.isfinite(row["y"])
        }

    def _videos(self) -> Iterator[_Video]:
        taken: set[str] = set()
        tried: Counter[str] = Counter()  # numbers, by the name without one
        for text in whole(self._file["videos_json"]):
            described = json.loads(text)
            backend = described["backend"]
            named = backend.get("filename", described.get("filename", ""))
            images = backend.get("filenames") or (named if isinstance(named, list) else [])
            stem = PurePosixPath(str(images[0] if images else named).replace("\\", "/"))
            first = stem.parent.name if images else stem.stem
            if named == ".":
                first = next((part for part in str(backend["dataset"]).split("/") if part), "")
            name = first = first if first.strip(".") else "video"  # none leads out of its folder
            while name in taken:
                tried[first] += 1
                name = f"{first}-{tried[first] + 1}"
            taken.add(name)
            if named == "." or (self._file.get(str(backend.get("dataset") or "")) is not None and not images):
                yield self._stored(name, str(backend["dataset"]))
            elif images:
                yield _Video(name, images=tuple(map(str, images)))
            else:
                yield _Video(name, file=self._finder.find(str(named), f"{self._path}: video {named}"))

    def _stored(self, name: str, dataset: str) -> _Video:
        """Images that are kept in the file, as the bytes of PNG or JPEG files."""
        data = self._file[dataset]
        kind = data.attrs.get("format", "png")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if kind not in ("png", "jpg", "jpeg"):
            what = f"keeps images of {name} as {kind}, which is not read"
            raise InputError(what, self._path, "save it with PNG images, or beside its videos")
        numbers = whole(self._file[str(PurePosixPath(dataset).parent / "frame_numbers")]).tolist()
        size = None
        if "width" in data.attrs and "height" in data.attrs:
            size = int(data.attrs["width"]), int(data.attrs["height"])
        rows = {int(number): row for row, number in enumerate(numbers)}
        return _Video(name, dataset=dataset, rows=rows, size=size, suffix=f".{kind}")

    def _image(self, video: _Video, index: int, where: str) -> tuple[str, Origin, tuple[int, int]]:
        """A frame's file name, where it comes from, and its width and height."""
        if video.images:
            path = self._finder.find(video.images[index], where)
            return path.name, path, size_of(path)
        name = f"{video.name}/{index:06d}{video.suffix}"
        if video.rows is not None:
            if index not in video.rows:
                raise InputError("is not among the images that the file keeps", where, _HINT)
            stored = StoredImage(self._path, video.dataset, video.rows[index])
            return name, stored, video.size or _size_of_code(stored_bytes(self._file, stored), where)
        assert video.file is not None
        return name, VideoFrame(video.file, index), self._video_size(video.file)

    def _video_size(self, path: Path) -> tuple[int, int]:
        if path not in self._sizes:
            import cv2

            from ofa_pose.formats.image_files import open_capture

            if not path.is_file():
                hint = "put it beside the .slp file, or name its folder with --images"
                raise InputError("no such video", path, hint)
            video = open_capture(path)
            size = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
            video.release()
            if min(size) < 1:
                raise InputError("is not a video that can be read", path, "convert it to another video format")
            self._sizes[path] = size
        return self._sizes[path]


def stored_bytes(file: Any, stored: StoredImage) -> bytes:
    """The encoded image, from the open HDF5 file."""
    return np.asarray(whole(file[stored.dataset], stored.row)).astype(np.uint8, casting="unsafe").tobytes()


def _size_of_code(code: bytes, where: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(code)) as image:
            image.load()  # one that is cut short fails
            return image.size
    except (*DAMAGE, Image.DecompressionBombError):
        raise InputError("its image is damaged", where, _HINT) from None


FORMAT = AnnotationFormat("SLEAP", lambda given: given.suffix == ".slp", _read)
