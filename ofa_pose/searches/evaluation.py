"""Evaluating subnets: each as a network of its own, after BatchNorm recalibration; what an archive knows is looked up.

What is not in the archive is measured, here or by all ranks of a team, and written there at once.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import Runner
from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.checkpoints.checkpoint import Checkpoint, check_held_out, check_joints, check_space
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import genome_text
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_splits
from ofa_pose.inference.evaluate import Evaluation, Inputs, check_evaluable, evaluate, make_evaluator, read_inputs
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.archive import Archive, EvaluatedSubnet
from ofa_pose.searches.candidates import FitnessOutcome
from ofa_pose.searches.distributed import KEPT, Team
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.run_dir import BASIS_DEFAULTS

CACHE_BYTES = 4 << 30
EVALUATION_VERSION = 1  # to be raised whenever the same subnet on the same data may get another AP

Measure = Callable[[Genome], Mapping[str, Any]]
"""The metrics of a subnet, JSON values; 'AP', the higher the better, is what counts."""


@dataclass(frozen=True)
class _Prepared:
    """All that evaluating at one resolution needs of the data."""

    calibration: list[Tensor]
    inputs: list[Inputs]

    @property
    def bytes(self) -> int:
        tensors = sum(tensor.nbytes for tensor in self.calibration)
        return tensors + sum(inputs.images.nbytes for inputs in self.inputs)


class SubnetEvaluator:
    """Evaluates subnets of one supernet: extract, recalibrate, measure the AP on images no weight was trained on.

    The images are read and warped once for each resolution and kept, up to `CACHE_BYTES`; the scorer is shared.
    The result depends on the subnet alone, not on what was evaluated before, nor on the number of threads.

    Attributes:
        supernet, train, search, settings, decode, device: as they were given.
        images: those of `search` that the AP is measured on.
    """

    def __init__(
        self,
        supernet: Supernet,
        train: KeypointDataset,
        search: KeypointDataset,
        settings: SearchSettings,
        device: torch.device | str = "cpu",
        make_runner: Callable[[LitePose], Runner] | None = None,
        decode: DecodeConfig | None = None,
    ) -> None:
        """
        Args:
            supernet: its weights stay as they are.
            train: where the images for recalibration come from.
            search: on `settings.images` of these, a fixed random choice, the AP is measured.
            device: where subnets are recalibrated and, without `make_runner`, run.
            make_runner: gives the runtime that computes a recalibrated subnet; default: the fastest on `device`.
            decode: the decoder's settings.

        Raises:
            InputError: the data have other joints than the supernet, or nobody on the images can be evaluated.
        """
        joints = len(search.skeleton.joints)
        if joints != supernet.spec.joints:
            what = f"has {joints} joints, the supernet {supernet.spec.joints}"
            raise InputError(what, search.annotations_path, "use data with the supernet's joints")
        self.device = torch.device(device)
        self.supernet = supernet.to(self.device).eval()
        self.train, self.search, self.settings, self.decode = train, search, settings, decode or DecodeConfig()
        # A sum's last bits depend on how many threads share it, so on a CPU each has work of its own.
        self._streams = torch.get_num_threads() if self.device.type == "cpu" else None
        self._make_runner = make_runner or FastestRunner(self.device, streams=self._streams)
        self.images = search.choose(settings.images, "search images")
        check_evaluable(self.images, "raise search.images, or name another data.search")
        self._evaluator = make_evaluator(self.images)
        self._cache: OrderedDict[int, _Prepared] = OrderedDict()

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, recipe: Recipe, device: torch.device | str = "cpu"
    ) -> SubnetEvaluator:
        """Of a supernet's checkpoint and a recipe's data, checked to fit one another. Raises InputError."""
        check_space(checkpoint, recipe.space)
        check_held_out(recipe.data, checkpoint)
        train, search = load_splits(recipe.data, "train", "search", trained=checkpoint.skeleton)
        check_joints(checkpoint.skeleton, search, "the supernet")
        supernet = checkpoint.build(device)
        assert isinstance(supernet, Supernet)
        return cls(supernet, train, search, recipe.search, device, decode=recipe.decode.config())

    def basis(self, sha256: str | None) -> dict[str, Any]:
        """All that a subnet's AP rests on, as JSON values; an archive keeps what rests on another basis apart.

        Args:
            sha256: of the supernet's checkpoint.
        """
        train, search = self.train, self.search
        metric = {} if search.metric == BASIS_DEFAULTS["metric"] else {"metric": search.metric}
        return {
            "sha256": sha256,
            "space": self.supernet.space.to_dict(),
            "train": [train.fingerprint, len(train), self.settings.calibration_images],
            "search": [search.fingerprint, len(search), self.settings.images],
            "decode": asdict(self.decode),
            "judging": EVALUATION_VERSION,
            **metric,
        }

    def __call__(self, genome: Genome) -> float:
        """The AP of a subnet, 0 to 1; 0 where it finds nobody or its outputs are not numbers."""
        value = self.measure(genome)["AP"]
        return float(value) if value is not None and math.isfinite(value) else 0.0

    def measure(self, genome: Genome) -> dict[str, Any]:
        """All metrics of a subnet."""
        return self.evaluate(self.supernet.space.decode(genome, self.supernet.spec.joints)).metrics

    def evaluate(self, spec: ArchSpec) -> Evaluation:
        """All metrics of a subnet, and the seconds of each stage ('calibrate' included)."""
        threads = torch.get_num_threads()
        if self._streams:
            torch.set_num_threads(1)
        try:
            return self._evaluate(spec)
        finally:
            torch.set_num_threads(threads)

    def _evaluate(self, spec: ArchSpec) -> Evaluation:
        start = time.perf_counter()
        prepared = self._prepare(spec.resolution)
        middle = time.perf_counter()
        net = extract(self.supernet, spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(net, prepared.calibration, self._streams or 1)
        seconds = {"read": middle - start, "calibrate": time.perf_counter() - middle}
        result = evaluate(self._make_runner(net), self.images, prepared.inputs, self._evaluator, self.decode)
        stages = {stage: value + seconds.get(stage, 0.0) for stage, value in result.seconds.items()}
        return replace(result, seconds={**seconds, **stages})

    def _prepare(self, resolution: int) -> _Prepared:
        prepared = self._cache.pop(resolution, None) or _Prepared(
            list(calibration_batches(self.train, resolution, self.settings.calibration_images, self.device)),
            list(read_inputs(self.images, resolution, self.settings.batch)),
        )
        self._cache[resolution] = prepared  # at the end: the resolution used last
        while len(self._cache) > 1 and sum(kept.bytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return prepared


class ArchivedEvaluations:
    """An `Evaluate` that measures nothing twice.

    Attributes:
        measured: how many subnets were measured; the others came out of the archive.
        task: what every rank of the team must be at.
    """

    def __init__(
        self, feasible: FeasibleSpace, measure: Measure, archive: Archive, seed: int, team: Team | None = None
    ) -> None:
        """
        Args:
            seed: of the search that asks; the archive names it.
            team: shares the work, inside `team.lead(self.task)`.
        """
        self._feasible, self._archive, self._seed, self._team = feasible, archive, seed, team
        self.task = task_of(feasible, measure)
        self.measured = 0

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        """Fitness and seconds of each genome, in this order; see `candidates.Evaluate`.

        Raises:
            OfaPoseError: a subnet could not be evaluated; what was evaluated before is in the archive.
        """
        known = self._archive.outcomes(genomes)
        with closing(self._measured([genome for genome in genomes if genome not in known])) as coming:
            for genome in genomes:
                while genome not in known:
                    measured = next(coming)
                    self._archive.put(measured, self._seed)
                    self.measured += 1
                    known[measured.genome] = measured.outcome
                yield known[genome]

    def _measured(self, genomes: list[Genome]) -> Generator[EvaluatedSubnet, None, None]:
        if self._team is None:
            for genome in genomes:
                yield self._evaluated(genome, self.task(list(genome)))
        elif genomes:
            # The dearest first: a rank that takes a large one last would keep the others waiting.
            dearest = sorted(genomes, key=self._feasible.macs, reverse=True)
            for place, result in self._team.share([list(genome) for genome in dearest]):
                yield self._evaluated(dearest[place], result)

    def _evaluated(self, genome: Genome, result: Mapping[str, Any]) -> EvaluatedSubnet:
        spec, metrics = self._feasible.decode(genome), result["metrics"]
        ap = metrics["AP"]
        if ap is None or not math.isfinite(ap):
            ap = None
            subnet = f"subnet {genome_text(genome)}, {_shown(spec.to_dict())},"
            warn(f"{subnet} gave no AP that is a number; it ranks below all")
        predict_ms = self._feasible.budget.predict_ms
        macs = {f"macs_{convention}": count for convention, count in spec_macs(spec).to_dict().items()}
        costs = {**macs, "params": spec_params(spec), "latency_ms": predict_ms(spec) if predict_ms else None}
        return EvaluatedSubnet(genome, spec.to_dict(), costs, metrics, ap, result["seconds"])


def task_of(feasible: FeasibleSpace, measure: Measure) -> Callable[[Any], dict[str, Any]]:
    """What any rank does for one genome (a list): its metrics and the seconds that took, as JSON values.

    The function raises OfaPoseError, which names the subnet, where `measure` fails; InputErrors it lets through.
    """

    def task(genes: Any) -> dict[str, Any]:
        genome = tuple(genes)
        start = time.perf_counter()
        try:
            metrics = dict(measure(genome))
        except InputError:
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            subnet = f"subnet {genome_text(genome)}, {_shown(feasible.decode(genome).to_dict())},"
            raise OfaPoseError(f"{subnet} could not be evaluated ({cause}); {KEPT}") from error
        return {"metrics": metrics, "seconds": round(time.perf_counter() - start, 4)}

    return task


def _shown(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, separators=(",", ":"))
