"""What a runner is, what every one checks and does with its images before the network, and metadata beside a model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, is_memory

INPUT = "images"  # what exported graphs call it
OUTPUTS = {"low": 4, "high": 2}  # and these, with the input's cells in one of theirs
JOINTS = "joints"  # the output of a graph that holds the decoder
LIST = "export.json"  # beside exported files: which they are
CHUNK_PIXELS = 4 * 128 * 128  # of images that are computed together: more of them leave the cache


class Runner(Protocol):
    """Compute a network of RGB uint8 images (B, H, W, 3), H and W multiples of 16; others raise InputError.

    It returns low float32 (B, 2J, H/4, W/4), J heatmaps, then J tag maps, and high float32 (B, J, H/2, W/2), heatmaps.
    It is best called from `streams` threads at once.
    """

    streams: int

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class ExportedRunner(Runner, Protocol):
    """A `Runner` over an exported model; `metadata` is what that says about itself, each value JSON."""

    metadata: dict[str, str]


class JointRunner:
    """An `ExportedRunner` over a network with the decoder inside its graph: it gives joints, and no maps."""

    def __init__(
        self, run: Callable[[np.ndarray], Sequence[np.ndarray]], metadata: dict[str, str], streams: int
    ) -> None:
        """`run` computes [joints] of float32 images (B, 3, H, W) from 0 to 255."""
        self._run, self.metadata, self.streams = run, metadata, streams

    def find_joints(self, images: np.ndarray) -> np.ndarray:
        """Joints float32 (B, J, K, 4) of RGB uint8 images (B, H, W, 3): x, y in input pixels, heat, tag.

        Rows of heat 0 are empty. Raises InputError where H or W is not a multiple of 16.
        """
        (joints,) = _chunked(self._run, images)
        return joints

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise no_maps()


def no_maps(where: object = "") -> InputError:
    """What is said where a `JointRunner` is asked for maps."""
    what = "the decoder is in its graph: there are no maps for a flip test, scales or another decoding"
    return InputError(what, where, "use --no-flip and one scale, or export the model without --decoder in-graph")


def check_sides(images: np.ndarray) -> None:
    """Raise InputError, naming the nearest valid sizes, where a side of images (B, H, W, 3) is not a multiple of 16."""
    height, width = images.shape[1:3]
    if height % TOTAL_STRIDE == 0 and width % TOTAL_STRIDE == 0 and min(height, width) > 0:
        return
    smaller, larger = (
        "×".join(str(max(1, (side + more) // TOTAL_STRIDE) * TOTAL_STRIDE) for side in (width, height))
        for more in (0, TOTAL_STRIDE - 1)
    )
    one = smaller == larger
    sizes = f"size it takes is {smaller}" if one else f"sizes it takes are {smaller} and {larger}"
    raise InputError(f"the network cannot take an input of {width}×{height} pixels", hint=f"the nearest {sizes}")


def check_names(inputs: Iterable[str], outputs: Iterable[str], where: str) -> bool:
    """Whether a model, by its inputs and outputs, holds the decoder.

    Raises InputError where they are not those of an exported network.
    """
    names = {*outputs}
    if [*inputs] != [INPUT] or not ({*OUTPUTS} <= names or JOINTS in names):
        raise InputError("is not a model that ofa-pose exported", where, "name a file that ofa-pose export wrote")
    return JOINTS in names


def in_chunks(run: Callable[[np.ndarray], Sequence[np.ndarray]], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `run` makes of the `planes` of images (B, H, W, 3), of so many at once as are best computed together."""
    low, high = _chunked(run, images)
    return low, high


def _chunked(run: Callable[[np.ndarray], Sequence[np.ndarray]], images: np.ndarray) -> Sequence[np.ndarray]:
    check_sides(images)
    size = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    outputs = [run(planes(images[start : start + size])) for start in range(0, max(1, len(images)), size)]
    return outputs[0] if len(outputs) == 1 else [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def planes(images: np.ndarray) -> np.ndarray:
    """uint8 images (B, H, W, 3) as float32 (B, 3, H, W), still from 0 to 255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def check_listed(path: Path) -> None:
    """Raise InputError where the export.json beside a model lists a file of its name that had another content.

    A damaged list, or one of an earlier version, says nothing.
    """
    listed = path.with_name(LIST)
    entries: list[Any] = []
    with contextlib.suppress(InputError, OSError, AttributeError, KeyError, TypeError):
        entries = list(files.read_json(listed)["files"].values())
    stated = [one.get("sha256") for one in entries if isinstance(one, dict) and one.get("name") == path.name]
    if any(stated) and files.sha256(path) not in stated:
        what = f"is not the file that was exported, as {LIST} lists it: it is damaged or was changed"
        raise InputError(what, path, f"export it again, or keep a changed model in another folder than its {LIST}")


def not_loaded(runtime: str, error: Exception, path: str | Path) -> InputError:
    """What to raise where a runtime says that it cannot load a model; raised here where the file cannot be read."""
    if Path(path).exists():
        with files.reading(path), Path(path).open("rb") as file:
            file.read(1)
    said = str(error).strip().splitlines() or [type(error).__name__]
    hint = "free some memory; if there is enough, export it again" if is_memory(error) else "export it again"
    return InputError(f"cannot be loaded by {runtime} ({said[-1]})", path, hint)


def read_metadata(path: Path) -> dict[str, str]:
    """What the JSON beside a model says of it, each value as JSON again. Raises InputError where it is not JSON."""
    with files.reading(path):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return {}
    return parse_metadata(text, path)


def parse_metadata(text: bytes, where: str | Path) -> dict[str, str]:
    """What a JSON says of a model, each value as JSON again. Raises InputError where it is not JSON."""
    try:
        return {key: json.dumps(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError):
        raise _no_metadata(where) from None


def _no_metadata(where: str | Path) -> InputError:
    return InputError("holds no metadata", where, "export the model again")


def metadata_values(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a JSON of metadata, each value of which is JSON, holds."""
    return {key: json.loads(value) for key, value in metadata.items()}


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the JSON beside a model of a runtime that keeps none in it; each value is JSON."""
    files.write_json(path, metadata_values(metadata))
