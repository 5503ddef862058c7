"""`ofa_pose.study` and `ofa_pose.demo`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import check_range, check_workers, single_process
from ofa_pose.api.evaluating import evaluate
from ofa_pose.api.searching import search
from ofa_pose.api.training import finetune, pretrain, train_supernet
from ofa_pose.utils.process import sleep_while_waiting

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ofa_pose.studies.demo import DemoResult
    from ofa_pose.studies.summary import StudyResult


@single_process
def study(
    ablation: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    quick: bool = False,
    device: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    executor: Executor | None = None,
) -> StudyResult:
    """Do the trainings that a study compares, each with several seeds: a table of means and spreads, and a picture.

    Shipped are those of the LitePose paper (Wang et al., CVPR 2022) on drawn scenes: kernels, head, shrinking, nas,
    distillation and sampling. Writes study.csv (a row for each run and seed), study.md (the table), study.png, data/
    (the drawn images), and a run directory for each run and seed, seed-0/NAME. The same command goes on with a study
    that was cut off; what is done is not done again.

    Example: ofa-pose study kernels --out runs/kernels --workers 2

    Args:
        ablation: a shipped study's name, or a YAML file.
        out: folder to write.
        overrides: override a key of the study, such as seeds=[0], settings.train.steps=2000 or, for images of your
            own, data.train.annotations=FILE; may be repeated.
        quick: few steps and images, one seed: whether it works, in minutes.
        workers: processes, each of which does a run with one thread. In Python a script that asks for more needs
            `if __name__ == "__main__":`.
        scheduler: do the runs on a Dask cluster instead, where `out` is a folder that all machines share: its
            scheduler's address, tcp://HOST:8786.
        executor: does the runs instead, a `concurrent.futures.Executor`; only in Python.

    Returns:
        The figures; runs that failed are in `StudyResult.failed`, the others are done.

    Raises:
        InputError: the study's file or the data are at fault, or `out` holds another run, or
            runs of another study.
        OfaPoseError: a worker process died.
    """
    check_workers(workers, scheduler, executor)
    sleep_while_waiting()
    from ofa_pose.studies.ablation import Ablation
    from ofa_pose.studies.ablation_study import AblationStudy
    from ofa_pose.studies.classify import classify

    commands: dict[str, Callable[..., Any]] = {"pretrain": pretrain, "train-supernet": train_supernet}
    commands |= {"search": search, "finetune": finetune, "classify": classify}
    declared = Ablation.load(ablation, commands, overrides, quick)
    job = AblationStudy(Path(ablation).stem, declared, commands, evaluate, device)

    from ofa_pose.searches.workers import chosen_workers

    with chosen_workers(workers, scheduler, executor, device) as running:
        return job.run(out, running, workers)


@single_process
def demo(
    *,
    out: str | Path = "runs/demo",
    seed: int = 0,
    macs: str = "250M",
    train_images: int = 3000,
    test_images: int = 400,
    overrides: Sequence[str] = (),
) -> DemoResult:
    """The whole journey on drawn scenes, each step a command: supernet, search, fine-tuning, evaluation, export, poses.

    Eight to twelve minutes on two cores. Writes the drawn images, a run directory for each step, export/, poses.jpg,
    report.html and summary.json.

    Example: ofa-pose demo --macs 200M

    Args:
        out: folder to write; what an earlier demo wrote there is removed.
        seed: another seed draws other scenes and subnets.
        macs: the budget, in thop's convention.
        train_images: scenes to train on.
        test_images: scenes that give the final figures.
        overrides: override a recipe key in every training and search; may be repeated.

    Raises:
        InputError: `out` holds something else.
        OfaPoseError: a step failed; it says why itself.
    """
    from ofa_pose.studies.demo import VAL_IMAGES, Demo, run_demo

    check_range(0, seed=seed)
    check_range(1, train_images=train_images, test_images=test_images)
    counts = {"train": train_images, "val": VAL_IMAGES, "test": test_images}
    return run_demo(Demo(Path(out), seed, macs, counts, overrides))
