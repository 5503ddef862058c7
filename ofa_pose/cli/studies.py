"""`ofa-pose table` and `fidelity`: studies of a supernet, by which searches and their settings can be judged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_pose.cli.common import (
    DeviceOption,
    JsonOption,
    OutOption,
    RecipeOption,
    ResumeOption,
    SetOption,
    check_joints,
    check_space,
    print_result,
    read_recipe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ofa_pose.arch.space import Genome
    from ofa_pose.checkpoint import Checkpoint
    from ofa_pose.data.coco import KeypointDataset
    from ofa_pose.recipe import Recipe
    from ofa_pose.search.fitness import SubnetFitness

SupernetOption = Annotated[str, typer.Option("--supernet", help="Checkpoint or run directory of a supernet.")]


def table(
    supernet: SupernetOption,
    out: OutOption,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Refuse a space of more subnets than this.")] = 20_000,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge every subnet of a small space once, into table.csv; the recipe is the supernet's by default.

    With such a table, search algorithms and their settings are compared in seconds.

    Example: ofa-pose table --supernet runs/supernet --out runs/table
    """
    from ofa_pose.checkpoint import load_checkpoint
    from ofa_pose.search.table import check_size

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    check_size(source.space, limit)

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.config import config_text
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.search.fitness import SubnetFitness
    from ofa_pose.search.table import fill_table, plan_table

    resolved, _ = read_recipe("search", recipe, overrides, None, source.recipe)
    train, split = _splits(source, resolved)
    chosen = pick_device(device)
    run = plan_table(out, config_text(resolved), resume)
    net = source.build(chosen)
    assert isinstance(net, Supernet)
    fitness = SubnetFitness(net, train, split, resolved.search, chosen)
    basis = _basis(supernet, source, resolved, train, split)
    start = time.perf_counter()
    result = fill_table(run, source.space, source.spec.joints, lambda genomes: _judge(fitness, genomes), basis, resume)
    print_result({**result, "seconds": round(time.perf_counter() - start, 3), "out": str(out)}, as_json)


def _splits(source: Checkpoint, resolved: Recipe) -> tuple[KeypointDataset, KeypointDataset]:
    """The train and search splits, checked as `search` checks them."""
    from ofa_pose.cli.search import check_held_out
    from ofa_pose.data.splits import load_splits

    check_space(source, resolved.space)
    check_held_out(resolved.data, source)
    train, split = load_splits(resolved.data, "train", "search")
    check_joints(source.skeleton, split, "the supernet")
    return train, split


def _basis(
    supernet: str, source: Checkpoint, resolved: Recipe, train: KeypointDataset, split: KeypointDataset
) -> dict[str, Any]:
    """What an AP rests on: the supernet, the space and the data."""
    from ofa_pose.checkpoint import find_checkpoint
    from ofa_pose.files import sha256

    assert source.space is not None
    return {
        "sha256": sha256(find_checkpoint(supernet)),
        "space": source.space.to_dict(),
        "train": [sha256(train.annotations_path), len(train), resolved.search.calibration_images],
        "search": [sha256(split.annotations_path), len(split), resolved.search.images],
    }


def _judge(fitness: SubnetFitness, genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
    """AP and seconds of each genome."""
    for genome in genomes:
        start = time.perf_counter()
        ap = fitness(genome)
        yield ap, time.perf_counter() - start
