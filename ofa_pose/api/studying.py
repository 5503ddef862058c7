"""`ofa_pose.study`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import check_workers, single_process
from ofa_pose.api.evaluating import evaluate
from ofa_pose.api.searching import search
from ofa_pose.api.training import finetune, pretrain, train_supernet
from ofa_pose.utils.threads import sleep_while_waiting

if TYPE_CHECKING:
    from concurrent.futures import Executor

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
