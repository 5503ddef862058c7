"""`ofa-pose table` and `fidelity`: studies of a supernet, by which searches and their settings can be judged."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_pose.cli.common import (
    DeviceOption,
    JsonOption,
    OutOption,
    RecipeOption,
    ResumeOption,
    SeedOption,
    SetOption,
    print_result,
)
from ofa_pose.utils.console import say, warn
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ofa_pose.arch.space import Genome
    from ofa_pose.checkpoints.checkpoint import Checkpoint
    from ofa_pose.costs.feasible import Budget
    from ofa_pose.data.coco import KeypointDataset
    from ofa_pose.recipe.recipe import Recipe
    from ofa_pose.searches.evaluation import SubnetEvaluator

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
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.studies.table import check_size

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    check_size(source.space, limit)

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.recipe.recipe import load_recipe
    from ofa_pose.searches.evaluation import SubnetEvaluator
    from ofa_pose.studies.table import fill_table, plan_table
    from ofa_pose.utils.config import config_text

    resolved, _ = load_recipe("search", recipe, overrides or (), source.recipe)
    train, split = _splits(source, resolved)
    chosen = pick_device(device)
    run = plan_table(out, config_text(resolved), resume)
    net = source.build(chosen)
    assert isinstance(net, Supernet)
    fitness = SubnetEvaluator(net, train, split, resolved.search, chosen, decode=resolved.decode.config())
    basis = fitness.basis(_sha256(supernet))
    start = time.perf_counter()
    result = fill_table(run, source.space, source.spec.joints, lambda genomes: _judge(fitness, genomes), basis, resume)
    print_result({**result, "seconds": round(time.perf_counter() - start, 3), "out": str(out)}, as_json)


def fidelity(
    supernet: SupernetOption,
    out: OutOption,
    macs: Annotated[str | None, typer.Option("--macs", help="Only subnets of at most so many multiply-adds.")] = None,
    params: Annotated[str | None, typer.Option("--params", help="Only subnets of at most so many parameters.")] = None,
    convention: Annotated[
        str, typer.Option("--macs-convention", help="thop (the default, as LitePose's tables), exact or paper.")
    ] = "thop",
    subnets: Annotated[int, typer.Option("--subnets", min=3, help="How many are judged, spread over the costs.")] = 12,
    images: Annotated[str, typer.Option("--images", help="Numbers of search images to compare.")] = "50,100,200",
    calibration: Annotated[
        str, typer.Option("--calibration", help="Numbers of recalibration images to compare.")
    ] = "16,64",
    steps: Annotated[int, typer.Option("--steps", min=0, help="Of fine-tuning each subnet; 0: none.")] = 60,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Checkpoint that fine-tuning distils heatmaps from.")
    ] = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    resume: ResumeOption = False,
    seed: SeedOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far cheap judging can be trusted: rank correlations between image counts, and with AP after fine-tuning.

    Ends with advice on search.images and search.calibration_images. Writes fidelity.csv (a row for each subnet) and a
    picture. The recipe is the supernet's by default.

    Example: ofa-pose fidelity --supernet runs/supernet --macs 1.2G --out runs/fidelity
    """
    from ofa_pose.checkpoints.checkpoint import load_checkpoint
    from ofa_pose.checkpoints.checks import check_joints
    from ofa_pose.costs.feasible import FeasibleSpace

    source = load_checkpoint(supernet, kind="supernet")
    assert source.space is not None
    master = load_checkpoint(teacher, kind="net") if teacher else None
    counts = _counts("--images", images), _counts("--calibration", calibration)
    part = FeasibleSpace(source.space, source.spec.joints, _budget(source, macs, params, convention))

    from ofa_pose.backends.torch_net import pick_device
    from ofa_pose.models.elastic import Supernet
    from ofa_pose.recipe.recipe import load_recipe
    from ofa_pose.searches.evaluation import SubnetEvaluator
    from ofa_pose.studies.fidelity import TUNING, Fidelity, fidelity_table, plan_fidelity, study_fidelity
    from ofa_pose.studies.tuning import short_finetuning
    from ofa_pose.train.training_run import TrainingRun
    from ofa_pose.utils.config import config_text
    from ofa_pose.utils.run_dir import RunDir

    resolved, _ = load_recipe("search", recipe, overrides or (), source.recipe, seed)
    tuning, _ = load_recipe("finetune", recipe, overrides or (), source.recipe, seed)
    train, split = _splits(source, resolved)
    if master:
        check_joints(master.skeleton, train, "the teacher")
    chosen = pick_device(device)
    study = Fidelity(
        _within(counts[0], len(split), "search"), _within(counts[1], len(train), "training"), subnets, steps
    )
    run = plan_fidelity(out, config_text(resolved), resume)
    net = source.build(chosen)
    assert isinstance(net, Supernet)

    def fitness(on: int, after: int) -> SubnetEvaluator:
        settings = resolved.search.model_copy(update={"images": on, "calibration_images": after})
        return SubnetEvaluator(net, train, split, settings, chosen, decode=resolved.decode.config())

    settings = tuning.train.model_copy(update={"steps": max(steps, 1)})
    # The largest number of search images, so that both APs of the comparison are of the same images.
    val = fitness(*study.settings[0]).images
    origin = {"command": "fidelity", "teacher": _sha256(teacher) if teacher else None}
    job = TrainingRun(
        train,
        val,
        settings,
        tuning.augment,
        tuning.loss,
        resolved.seed,
        RunDir(out / TUNING),
        chosen,
        master.build() if master else None,
        {},
        origin,
        resolved.decode.config(),
    )
    tune = short_finetuning(net, job, study.calibration[-1])
    basis = {
        **SubnetEvaluator(net, train, split, resolved.search, chosen, decode=resolved.decode.config()).basis(
            _sha256(supernet)
        ),
        "study": {"images": [*study.images], "calibration": [*study.calibration], "subnets": subnets, "steps": steps},
        "budget": {**part.budget.to_dict(), "convention": convention},
        "seed": resolved.seed,
        "fine-tuning": {key: getattr(tuning, key).model_dump(mode="json") for key in ("train", "augment", "loss")},
        "teacher": origin["teacher"],
    }
    start = time.perf_counter()
    result = study_fidelity(
        run,
        part,
        study,
        resolved.seed,
        lambda on, after: partial(_judge, fitness(on, after)),
        tune if steps else None,
        basis,
        resume,
    )
    result = {**result, "seconds": round(time.perf_counter() - start, 3), "out": str(out)}
    print_result(result, as_json, fidelity_table(result))
    say(f"every figure: {result['table']}" + (f", drawn: {result['picture']}" if result["picture"] else ""))


def _counts(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from 1, ascending, as in '50,100,200'. Raises InputError."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise InputError(f"{option} '{text}' holds what is not a count", hint="write whole numbers as in 50,100,200")
    return tuple(sorted({int(word) for word in words}))


def _within(counts: tuple[int, ...], available: int, what: str) -> tuple[int, ...]:
    if counts[-1] > available:
        warn(f"there are only {available} {what} images: larger counts mean all of them")
    return tuple(sorted({min(count, available) for count in counts}))


def _budget(source: Checkpoint, macs: str | None, params: str | None, convention: str) -> Budget:
    """The limits given, or one that every subnet keeps."""
    from ofa_pose.costs.feasible import Budget

    if macs is None and params is None:
        macs = str(Budget.parse(1, None, convention).macs_of(source.spec))
    return Budget.parse(macs, params, convention)


def _splits(source: Checkpoint, resolved: Recipe) -> tuple[KeypointDataset, KeypointDataset]:
    """The train and search splits, checked as `search` checks them."""
    from ofa_pose.checkpoints.checks import check_held_out, check_joints, check_space
    from ofa_pose.data.splits import load_splits

    check_space(source, resolved.space)
    check_held_out(resolved.data, source)
    train, split = load_splits(resolved.data, "train", "search", trained=source.skeleton)
    check_joints(source.skeleton, split, "the supernet")
    return train, split


def _sha256(checkpoint: str) -> str:
    from ofa_pose.checkpoints.checkpoint import find_checkpoint
    from ofa_pose.utils.files import sha256

    return sha256(find_checkpoint(checkpoint))


def _judge(fitness: SubnetEvaluator, genomes: Sequence[Genome]) -> Iterator[tuple[float, float]]:
    """AP and seconds of each genome."""
    for genome in genomes:
        start = time.perf_counter()
        ap = fitness(genome)
        yield ap, time.perf_counter() - start
