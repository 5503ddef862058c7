"""One HTML page of labelled images, and of what a training sees of them, to check data by eye."""

from __future__ import annotations

import base64
import html
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.data.label_pictures import label_picture, sample_picture
from ofa_pose.data.records import ImageRecord
from ofa_pose.data.transforms import Augmentation, training_sample
from ofa_pose.pose.draw import joint_colours
from ofa_pose.pose.geometry import has_extent
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils import files
from ofa_pose.utils.console import progress

QUALITY = 85
MOST_ODD = 12  # images with odd labels that are shown besides
NAMED = 4  # joints in a caption
STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, sans-serif; color: #1a202c; margin: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; }
p { margin: .3rem 0; color: #4a5568; max-width: 60rem; }
.joints { display: flex; flex-wrap: wrap; gap: .2rem 1rem; position: sticky; top: 0; background: #fff; padding: .5rem 0;
  border-bottom: 1px solid #e2e8f0; }
.joints i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; border: 1px solid #1a202c;
  margin-right: .35em; vertical-align: -.05em; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; cursor: zoom-in; } img { width: 100%; height: auto; background: #edf2f7; }
figure:focus img { position: fixed; inset: 2vh 2vw; width: 96vw; height: 96vh; object-fit: contain; background: #1a202c;
  z-index: 1; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; } .odd { color: #c53030; }
"""


@dataclass(frozen=True)
class Training:
    """How a recipe trains.

    Attributes:
        augmentation, seed: the recipe's.
        resolution: of the network's input.
    """

    augmentation: Augmentation
    seed: int
    resolution: int


def write_label_page(path: Path, dataset: KeypointDataset, count: int, training: Training | None = None) -> None:
    """Write the page: the labels as they stand in the file, and with `training` what a training sees of each.

    Of the dataset's images `count` are shown, spread over the file, and first up to 12 more whose labels are odd.
    Raises InputError where an image cannot be read.
    """
    people = _people(dataset)
    odd = [place for place, one in enumerate(dataset.images) if _oddities(one, people[one.id], dataset.skeleton)]
    odd = [odd[place] for place in _spread(len(odd), MOST_ODD)]
    chosen = [place for place in _spread(len(dataset), count) if place not in odd]
    sections = [("Odd labels", odd), ("Labels", chosen)]
    shown = len(odd) + len(chosen)
    body = [_head(dataset, shown)]
    with progress("drawing labels", shown * (2 if training else 1)) as meter:
        for title, places in sections:
            if places:
                body.append(f"<h2>{title}</h2>")
                body.append(_grid(_labelled(dataset, places, people), meter.step))
        if training:
            body.append(_about(training, dataset.skeleton))
            body.append(_grid(_augmented(dataset, [*odd, *chosen], training), meter.step))
    title = html.escape(dataset.annotations_path.name)
    head = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
    )
    files.write_text(path, head + "\n".join(body) + "\n</html>\n")


def _labelled(
    dataset: KeypointDataset, places: Sequence[int], people: Mapping[Any, list[dict[str, Any]]]
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for place in places:
        record = dataset.images[place]
        own = people[record.id]
        named = f"{record.path.name}, {record.width}×{record.height}, people: {len(record.keypoints)}"
        odd = "".join(
            f'<br><span class="odd">{html.escape(one)}</span>' for one in _oddities(record, own, dataset.skeleton)
        )
        yield label_picture(record, record.read(), own, dataset.skeleton), html.escape(named) + odd


def _augmented(
    dataset: KeypointDataset, places: Sequence[int], training: Training
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    for place in places:
        record = dataset.images[place]
        how = (record, training.resolution, dataset.skeleton, training.augmentation)
        sample = training_sample(training.seed, 0, place, *how)
        yield (
            sample_picture(sample, dataset.skeleton),
            html.escape(f"{record.path.name}, people: {len(sample.keypoints)}"),
        )


def _oddities(record: ImageRecord, people: Sequence[Mapping[str, Any]], skeleton: Skeleton) -> list[str]:
    """What is odd about the labels of an image, a line each."""
    found = []
    for person in people:
        if person["iscrowd"]:
            continue
        places = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        beyond = (places[:, :2] < 0) | (places[:, :2] > record.size)
        outside = [skeleton.joints[joint] for joint in np.flatnonzero((places[:, 2] > 0) & beyond.any(1))]
        if outside:
            more = f" and {len(outside) - NAMED} more" if len(outside) > NAMED else ""
            found.append(f"person {person['id']}: {', '.join(outside[:NAMED])}{more} outside the image")
        if (places[:, 2] > 0).any() and not has_extent(person["bbox"]):
            found.append(f"person {person['id']}: no extent, neither a box nor joints apart")
    return found


def _people(dataset: KeypointDataset) -> Mapping[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in dataset.ground_truth["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return found


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` of so many places, the same distance apart, the first and the last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist())) if count else []


def _grid(pictures: Iterator[tuple[NDArray[np.uint8], str]], done: Any) -> str:
    figures = []
    for picture, caption in pictures:
        code = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1]
        data = base64.b64encode(code.tobytes()).decode()
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">'
        figures.append(f'<figure tabindex="0">{image}<figcaption>{caption}</figcaption></figure>')
        done()
    return f'<div class="grid">{"".join(figures)}</div>'


def _head(dataset: KeypointDataset, shown: int) -> str:
    skeleton = dataset.skeleton
    partner = dict(skeleton.flip_pairs) | {right: left for left, right in skeleton.flip_pairs}
    names = []
    for joint, (red, green, blue) in enumerate(joint_colours(skeleton)):
        dot = f'<i style="background:rgb({red},{green},{blue})"></i>'
        other = f" ↔ {skeleton.joints[partner[joint]]}" if joint in partner else ""
        names.append(f"<span>{dot}{html.escape(skeleton.joints[joint] + other)}</span>")
    pairs = "A dotted white line joins the two of a flip pair, left is light and right is dark."
    if not skeleton.flip_pairs:
        pairs = "There are no flip pairs: nothing says which joints change places in a mirror."
    marks = "A dot is a visible joint, a ring a hidden one, a cross at the edge one outside the image, a circle "
    marks += "round it belongs to a person without extent."
    where = f"{dataset.annotations_path}: {shown} of {len(dataset)} images, {dataset.people} people in all."
    lines = (where, f"{marks} {pairs} What is dark is left out of the loss. Click to enlarge.")
    title = html.escape(f"{dataset.annotations_path.name}: {skeleton.name}, {len(skeleton.joints)} joints")
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<h1>{title}</h1>{said}<div class="joints">{"".join(names)}</div>'


def _about(training: Training, skeleton: Skeleton) -> str:
    how = training.augmentation
    mirrored = (
        f"mirrored with probability {how.flip:g}" if skeleton.mirror else "never mirrored, for want of flip pairs"
    )
    turned = (
        f"turned by up to ±{how.rotation:g}°, the crop's side {how.scale[0]:g} to {how.scale[1]:g} of the short side"
    )
    said = f"At {training.resolution} pixels, {turned}, moved by up to {how.shift:g} of it, {mirrored}."
    return f"<h2>As a training sees them</h2><p>{html.escape(said)}</p>"
