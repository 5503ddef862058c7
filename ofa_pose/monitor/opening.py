"""What a training or a search is, said before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ofa_pose.arch.spec import NetSpec
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.families.profile import profile_net
from ofa_pose.recipe import TrainSettings
from ofa_pose.utils.console import show_facts
from ofa_pose.utils.numbers import counted, format_count


def show_opening(command: str, facts: Mapping[str, str], out: Path) -> None:
    """Show on stderr what a command is about to do, a line for each fact that is not empty, and where it writes."""
    shown = {name: text for name, text in facts.items() if text}
    show_facts({**shown, "writes": f"{out}/"}, title=command)


def describe_net(spec: NetSpec) -> tuple[str, str]:
    """Its name, or its shape where it has none; and '17 joints, 1.22M parameters, 1.2G MACs (thop), 0.6G (exact)'."""
    figures = profile_net(spec)
    macs = {name: format_count(count) for name, count in figures["macs"].items()}
    costs = f"{format_count(figures['params'])} parameters, {macs['thop']} MACs (thop), {macs['exact']} (exact)"
    return figures["name"], f"{spec.joints} joints, {costs} at {spec.resolution} pixels"


def describe_images(dataset: KeypointDataset, of: int = 0, named: bool = True) -> str:
    """Such as '200 of 5,000 images, 541 people, val.json'.

    Args:
        of: how many there are of which these are some.
        named: with their annotation file.
    """
    whole = f" of {of:,}" if of > len(dataset) else ""
    images = "image" if len(dataset) == 1 and not whole else "images"
    people = counted(dataset.people, "person", "people")
    return f"{len(dataset):,}{whole} {images}, {people}" + (f", {_near(dataset.annotations_path)}" if named else "")


def _near(path: Path) -> Path:
    """A path from here, where it is inside of the present folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def describe_steps(settings: TrainSettings, images: int, step: int = 0) -> str:
    """Such as '1,000 of 16 images each, 188 an epoch: 5.3 epochs'.

    Args:
        images: that there are to train on.
        step: that was done before.
    """
    epoch = max(1, round(images / settings.batch))
    epochs = settings.steps / epoch
    shown = f"{epochs:.1f}" if epochs < 10 else f"{epochs:,.0f}"
    steps = f"{settings.steps:,} of {settings.batch} images each, {epoch:,} an epoch: {shown} epochs"
    return f"{steps}; {step:,} are done" if step else steps
