"""Trainings of several processes, each started as torchrun does it: `python -m tests.train.processes CASE.json`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from ofa_pose.arch.space import SearchSpace
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.loader import Batch
from ofa_pose.data.transforms import Augmentation
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import LossSettings, TrainSettings
from ofa_pose.train.distributed import Processes, joined
from ofa_pose.train.loop import TrainingResult, fit
from ofa_pose.train.objectives import Losses, Objective
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.console import quiet
from ofa_pose.utils.errors import FailedElsewhere, OfaPoseError
from ofa_pose.utils.process import Interrupted
from ofa_pose.utils.run_dir import plan_run

ROOT = Path(__file__).resolve().parent.parent.parent
SEED = 11
SGD_RATE = 1e-2


@dataclass(frozen=True)
class Case:
    """A training of a tiny net.

    Attributes:
        supernet: of the space, else its largest net.
        exact: in float64, by plain stochastic gradient descent; else as is usual.
        real: evaluates on the data; else the AP is a figure of the weights.
        fails_at: (rank, step) at which a process raises its own error.
    """

    out: str
    annotations: str
    images: str
    space: dict[str, Any]
    settings: dict[str, Any]
    supernet: bool = False
    exact: bool = False
    real: bool = False
    resume: bool = False
    fails_at: tuple[int, int] = (-1, -1)
    seen: list[str] = field(default_factory=list)


class Watched:
    """An objective that keeps which subnet each step computed."""

    def __init__(self, objective: Objective, case: Case, rank: int) -> None:
        self.network, self.resolution = objective.network, objective.resolution
        self._objective, self._case, self._rank = objective, case, rank

    def loss(self, batch: Batch, step: int) -> Losses:
        if (self._rank, step) == tuple(self._case.fails_at):
            raise OfaPoseError(f"process {self._rank} is out of order")
        subnet = getattr(self._objective, "subnet", lambda step: self.network.spec)(step)
        self._case.seen.append(f"{step} {batch.resolution} {subnet}")
        return self._objective.loss(batch, step)


def plain_sgd(network: LitePose, settings: TrainSettings) -> Optimizer:
    return SGD(network.parameters(), lr=settings.lr)


def train(case: Case, processes: Processes) -> tuple[TrainingResult, dict[str, Tensor]]:
    """Train as one of the processes; the result and the weights at the end."""
    space = SearchSpace.from_dict(case.space)
    weights = torch.Generator().manual_seed(1 + processes.rank)  # all go on from the first process's
    net = Supernet(space, 14, weights) if case.supernet else LitePose(space.largest(14), weights)
    if case.exact:
        net = net.double()
    dataset: KeypointDataset = load_dataset(case.annotations, case.images)
    training = TrainingRun(
        dataset,
        dataset,
        TrainSettings(**case.settings),
        Augmentation(),
        LossSettings(),
        SEED,
        plan_run(case.out, "seed: 11\n", case.resume, argv=["pretrain"]),
        torch.device("cpu"),
        processes=processes,
    )

    def figure() -> dict[str, Any]:
        return {"AP": float(net.state_dict()["stem.0.conv.weight"].double().std())}

    objective = Watched(training.objective(net), case, processes.rank)
    evaluate: Callable[[], dict[str, Any]] = training.evaluation(net) if case.real else figure
    result = fit(training, objective, evaluate, space, optimizer=plain_sgd if case.exact else None)
    return result, dict(net.state_dict())


def start(command: list[str], world: int, **environment: str) -> list[subprocess.Popen[str]]:
    """So many processes of a command, with what torchrun would put into their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "PYTHONPATH": str(ROOT), **environment}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def train_in_processes(case: Case, world: int) -> list[dict[str, Any]]:
    """What each of so many processes has at the end: 'result', 'AP', 'weights' and 'seen'. They end well."""
    done = finish(start_training(case, world))
    assert [code for code, _, _ in done] == [0] * world, done
    return [torch.load(f"{case.out}/{rank}.pt", weights_only=True) for rank in range(world)]


def start_training(case: Case, world: int) -> list[subprocess.Popen[str]]:
    Path(case.out).parent.mkdir(parents=True, exist_ok=True)
    path = Path(f"{case.out}.json")
    path.write_text(json.dumps(asdict(case)))
    return start(["-m", "tests.train.processes", str(path)], world)


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each."""
    told = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, told, strict=True)]


def main(path: str) -> int:
    torch.set_num_threads(1)
    case = Case(**json.loads(Path(path).read_text()))
    processes = Processes.here()
    try:
        with quiet() if processes.rank else nullcontext(), joined():
            result, weights = train(case, processes)
    except FailedElsewhere as error:
        return error.exit_code
    except (OfaPoseError, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    kept = {"result": str(result), "AP": result.AP, "weights": weights, "seen": case.seen}
    torch.save(kept, f"{case.out}/{processes.rank}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
