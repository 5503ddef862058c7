"""`ofa-pose data`: make and check datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofa_pose.cli.common import JsonOption, key_table, print_result
from ofa_pose.utils.errors import InputError

app = typer.Typer(help="Make and check datasets.", no_args_is_help=True)


@app.command("synth")
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write: annotations.json and images/.")],
    images: Annotated[int, typer.Option("--images", help="Number of scenes.")] = 1000,
    size: Annotated[int, typer.Option("--size", help="Side of the square images in pixels.")] = 192,
    joints: Annotated[str, typer.Option("--joints", help="coco (17) or crowdpose (14, with crowdIndex).")] = "coco",
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other scenes.")] = 0,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; default: one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a synthetic multi-person dataset in COCO layout; no download.

    Example: ofa-pose data synth runs/synth --images 2000 --size 192 --joints coco --seed 1
    """
    from ofa_pose.synthetic.dataset import write_dataset

    path = write_dataset(out, images, size, joints, seed, workers)
    result = {"annotations": str(path), "images": str(out / "images"), "count": images}
    print_result(result, as_json)


@app.command("check")
def check(
    annotations: Annotated[Path, typer.Option("--annotations", help="COCO-format annotation file.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of its images.")],
    skeleton: Annotated[Path | None, typer.Option("--skeleton", help="YAML of a custom skeleton.")] = None,
    write_skeleton: Annotated[
        Path | None, typer.Option("--write-skeleton", help="Write a first draft of the skeleton's YAML here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Validate a dataset, name every bad record, print statistics.

    Example: ofa-pose data check --annotations person_keypoints_val2017.json --images val2017
    """
    from ofa_pose.data.check import check_dataset, draft_skeleton_yaml
    from ofa_pose.data.coco import load_dataset
    from ofa_pose.skeleton import load_skeleton
    from ofa_pose.utils import files

    chosen = load_skeleton(skeleton) if skeleton else None
    if write_skeleton and write_skeleton.exists():
        raise InputError("exists already", write_skeleton, "name a new file for --write-skeleton")
    result = check_dataset(annotations, images, chosen)
    if write_skeleton:
        draft = draft_skeleton_yaml(load_dataset(annotations, images, chosen, check_images="none"))
        files.write_text(write_skeleton, draft)
    print_result(result, as_json, key_table(result, title=str(annotations)))
