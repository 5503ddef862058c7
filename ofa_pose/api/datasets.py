"""`ofa_pose.data_synth`, `data_check` and `data_convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import check_range, single_process
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.result import Result

if TYPE_CHECKING:
    from ofa_pose.reports.label_page import Training


@dataclass(frozen=True)
class SynthResult(Result):
    """A drawn dataset: its annotation file, the folder of its images, and how many there are."""

    annotations: Path
    images: Path
    count: int


@dataclass(frozen=True)
class CheckResult(Result):
    """What a dataset holds.

    Attributes:
        figures: plain values by name; see `ofa_pose.data.check.statistics`.
    """

    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The figures."""
        return self.figures


@dataclass(frozen=True)
class ConvertResult(Result):
    """A dataset in another format.

    Attributes:
        source_format: yolo, cvat, sleap, deeplabcut, label-studio, labelme or coco.
        out: the new folder.
        splits: of each split its annotations, the folder of its images, their count, and its people.
        skeleton: the file of flip pairs, sigmas and limbs; None where the joints are a built-in skeleton's.
        lost: how many things the new format cannot hold, by name.
        notes: what to know of the data, a line each.
    """

    source_format: str
    out: Path
    splits: dict[str, dict[str, Any]]
    skeleton: Path | None
    lost: dict[str, int]
    notes: tuple[str, ...]


@single_process
def data_synth(
    out: str | Path,
    images: int = 1000,
    size: int = 192,
    joints: str = "coco",
    seed: int = 0,
    workers: int | None = None,
    resume: bool = False,
    people: int = 6,
) -> SynthResult:
    """Draw a synthetic multi-person dataset in COCO layout; no download.

    Example: ofa-pose data synth runs/synth --images 2000 --size 192 --joints coco --seed 1

    Args:
        out: folder to write: annotations.json and images/.
        images: number of scenes.
        size: side of the square images in pixels.
        joints: coco (17) or crowdpose (14, with crowdIndex).
        seed: another seed draws other scenes.
        workers: processes; default: one a core.
        resume: go on where the drawing of `out` was cut off.
        people: at most so many in a scene, 1 to 6.

    Raises:
        InputError: `out` holds something else, or a number is out of range.
    """
    from ofa_pose.synthetic.dataset import write_dataset

    path = write_dataset(Path(out), images, size, joints, seed, workers, resume, people)
    return SynthResult(path, Path(out) / "images", images)


@single_process
def data_check(
    annotations: str | Path,
    images: str | Path | None = None,
    skeleton: str | Path | None = None,
    write_skeleton: str | Path | None = None,
    against: str | Path | None = None,
    against_images: str | Path | None = None,
    pictures: str | Path | None = None,
    count: int = 24,
    augmented: bool = False,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> CheckResult:
    """Validate a dataset, name every bad record, print statistics; draw the labels to check them by eye.

    Example: ofa-pose data check --annotations person_keypoints_val2017.json --images val2017 --pictures labels.html

    Args:
        annotations: COCO-format annotation file, or another format that data convert reads.
        images: folder of its images; default: where the annotations say, or beside them.
        write_skeleton: write a first draft of the skeleton's YAML here.
        against: annotations of another split, whose images should be others: those with the same pixels are named.
        against_images: folder of that split's images; default: `images`, if given.
        pictures: HTML page to write, of images with their labels, each joint in its colour.
        count: how many images the page shows, spread over the file; besides up to 12 whose labels are odd.
        augmented: the page also shows what a training sees of them.
        recipe: with `augmented`, the recipe of that training; default: that of every recipe.
        overrides: with `augmented`, override a key of its recipe; may be repeated.

    Raises:
        InputError: with every fault of the records and files.
    """
    from ofa_pose.data.check import draft_skeleton_yaml, statistics
    from ofa_pose.data.keypoint_dataset import load_dataset
    from ofa_pose.skeleton import load_skeleton
    from ofa_pose.utils import atomic, files

    check_range(1, count=count)
    for option, needs, missing in (
        ("--augmented", "--pictures", augmented and pictures is None),
        ("--recipe", "--augmented", recipe is not None and not augmented),
        ("--set", "--augmented", bool(overrides) and not augmented),
        ("--against-images", "--against", against_images is not None and against is None),
    ):
        if missing:
            raise InputError(f"{option} says nothing without {needs}", hint=f"add {needs}")
    chosen = load_skeleton(skeleton) if skeleton else None
    if write_skeleton and Path(write_skeleton).exists():
        raise InputError("exists already", write_skeleton, "name a new file for --write-skeleton")
    training = _training(recipe, overrides) if augmented else None
    if pictures is not None:
        atomic.check_file(Path(pictures), "name a file, such as labels.html")
        atomic.check_folder(Path(pictures).parent)
    dataset = load_dataset(annotations, images, chosen, check_images="decode")
    other = load_dataset(against, against_images or images, chosen) if against else None
    if write_skeleton:
        files.write_text(write_skeleton, draft_skeleton_yaml(dataset))
    if pictures is not None:
        from ofa_pose.reports.label_page import write_label_page

        write_label_page(Path(pictures), dataset, count, training)
    return CheckResult(statistics(dataset, other))


def _training(recipe: str | Path | None, overrides: Sequence[str]) -> Training:
    """How a supernet's training with a recipe, or with the defaults of all, sees its images, at its largest size."""
    from ofa_pose.arch.space import load_space
    from ofa_pose.recipe import Recipe, load_recipe
    from ofa_pose.reports.label_page import Training

    resolved, _ = load_recipe("train-supernet", recipe, overrides, inherited=Recipe().model_dump(mode="json"))
    return Training(resolved.augment, resolved.seed, load_space(resolved.space).resolution[-1])


@single_process
def data_convert(
    source: str | Path,
    out: str | Path,
    format: str = "coco",
    images: str | Path | None = None,
    skeleton: str | Path | None = None,
    copy_images: bool = False,
) -> ConvertResult:
    """Write annotations of another tool as COCO's or YOLO's; images stay where they are.

    Reads YOLO-pose, CVAT, Label Studio, SLEAP, DeepLabCut, LabelMe and COCO: a file, a folder or a zip file. Training,
    evaluation and data check read them too, without a conversion.

    Example: ofa-pose data convert annotations.xml --images photos --out runs/converted

    Args:
        source: the tool's export; PATH:SPLIT for one of its splits.
        out: new folder to write.
        format: coco, or yolo.
        images: folder of the images, where they do not lie beside the annotations.
        skeleton: coco, crowdpose or a YAML: names joints that have no names in the source.
        copy_images: copy the images too; otherwise only frames of videos and images in zip files are written.

    Raises:
        InputError: with every fault of the source; nothing is written then.
    """
    from ofa_pose.data.convert import convert
    from ofa_pose.skeleton import load_skeleton

    chosen = load_skeleton(skeleton) if skeleton else None
    where = Path(images) if images else None
    done = convert(Path(source), Path(out), format, where, chosen, copy_images)
    return ConvertResult(done.source_format, Path(out), done.splits, done.skeleton, done.losses, done.notes)
