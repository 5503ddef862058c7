"""Evaluating subnets: each as a network of its own, after BatchNorm recalibration; what an archive knows is looked up.

What is not in the archive is measured, here or by an executor, and written there at once.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends.runners import Runner
from ofa_pose.backends.runtimes import INT8, find_backend
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoints.checkpoint import Checkpoint, check_held_out, check_joints, check_space, load_checkpoint
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.subnet_rows import genome_text
from ofa_pose.data.duplicates import warn_of_shared
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_splits
from ofa_pose.inference.evaluate import Evaluation, Inputs, check_evaluable, evaluate, make_evaluator, read_inputs
from ofa_pose.inference.fastest import FastestRunner
from ofa_pose.inference.quantised import calibration_inputs, int8_runner
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.monitor import NO_FLIP
from ofa_pose.monitor.opening import describe_images
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches.archive import Archive
from ofa_pose.searches.candidates import FitnessOutcome, check_genomes
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError, OfaPoseError, is_memory
from ofa_pose.utils.numbers import are_numbers, format_time
from ofa_pose.utils.run_dir import BASIS_DEFAULTS

ANSWER_S = 7200.0  # a process of this machine that takes longer for a subnet hangs
CACHE_BYTES = 4 << 30
KEPT = "what was evaluated is kept: go on with --resume"
EVALUATION_VERSION = 1  # to be raised whenever the same subnet on the same data may get another AP

DRAWS = "AP_draws"  # among the metrics: the APs by which two subnets are compared, see `pose.bootstrap`
DRAWS_DECIMALS = 5
T = TypeVar("T")

Measure = Callable[[Genome], Mapping[str, Any]]
"""The metrics of a subnet, JSON values; 'AP', the higher the better, is what counts."""


class _Prepared(NamedTuple):
    """All that evaluating at one resolution needs of the data."""

    calibration: list[Tensor]
    inputs: list[Inputs]
    int8: list[np.ndarray]  # what the ranges of int8 maps are taken from, where they are needed

    @property
    def bytes(self) -> int:
        tensors = sum(one.nbytes for one in self.calibration)
        return tensors + sum(images.nbytes for images in (*(one.images for one in self.inputs), *self.int8))


class SubnetEvaluator:
    """Evaluates subnets of one supernet: extract, recalibrate, measure the AP on images no weight was trained on.

    The images are read and warped once for each resolution and kept, up to `CACHE_BYTES`; the scorer is shared.
    The result depends on the subnet alone, not on what was evaluated before, nor on the number of threads. One call at
    a time is answered; another process that gets it reads its checkpoint and data anew, once.

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
            search: on `settings.images` of these, a fixed random choice of those with people, the AP is measured.
            device: where subnets are recalibrated and, without `make_runner`, run.
            make_runner: gives the runtime that computes a recalibrated subnet, unless `settings` ask for int8; default:
                the fastest on `device`.
            decode: the decoder's settings.

        Raises:
            InputError: the data have other joints than the supernet, nobody on the images can be evaluated, or a
                package that int8 needs is missing.
        """
        joints = len(search.skeleton.joints)
        if joints != supernet.spec.joints:
            what = f"has {joints} joints, the supernet {supernet.spec.joints}"
            raise InputError(what, search.annotations_path, "use data with the supernet's joints")
        if settings.int8:
            find_backend(INT8)
        self.device = torch.device(device)
        self.supernet = supernet.to(self.device).eval()
        self.train, self.search, self.settings, self.decode = train, search, settings, decode or DecodeConfig()
        # A sum's last bits depend on how many threads share it, so on a CPU each has work of its own.
        self._streams = torch.get_num_threads() if self.device.type == "cpu" else None
        self._make_runner = make_runner or FastestRunner(self.device, streams=self._streams)
        self.images = search.choose_people(settings.images, "search images")
        check_evaluable(self.images, "name another data.search")
        self._evaluator = make_evaluator(self.images)
        self._cache: OrderedDict[int, _Prepared] = OrderedDict()
        self._lock = threading.Lock()
        self._origin: tuple[Path, Recipe, str | None, str | None] | None = None

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, recipe: Recipe, device: str | None = None) -> SubnetEvaluator:
        """Of a supernet's checkpoint and a recipe's data, checked to fit one another. Raises InputError."""
        check_space(checkpoint, recipe.space)
        check_held_out(recipe.data, checkpoint)
        train, search = load_splits(recipe.data, "train", "search", trained=checkpoint.skeleton)
        warn_of_shared(train, search, "search")
        check_joints(checkpoint.skeleton, search, "the supernet")
        chosen = pick_device(device)
        supernet = checkpoint.build(chosen)
        assert isinstance(supernet, Supernet)
        evaluator = cls(supernet, train, search, recipe.search, chosen, decode=recipe.decode.config())
        evaluator._origin = (checkpoint.path, recipe, device, checkpoint.sha256) if checkpoint.path else None
        return evaluator

    def __reduce__(self) -> tuple[Any, ...]:
        return _Elsewhere, self._source

    @cached_property
    def _source(self) -> tuple[Path, Recipe, str | None, str]:
        assert self._origin, "only what comes from a checkpoint's file can be read by another process"
        path, recipe, device, sha256 = self._origin
        return files.real(path), recipe, device, json.dumps(self.basis(sha256))

    def basis(self, sha256: str | None) -> dict[str, Any]:
        """All that a subnet's AP rests on, as JSON values; an archive keeps what rests on another basis apart.

        Args:
            sha256: of the supernet's checkpoint.
        """
        train, search = self.train, self.search
        metric = {} if search.metric == BASIS_DEFAULTS["metric"] else {"metric": search.metric}
        before = search.choose(self.settings.images, "search images").images  # by earlier versions, people or not
        choice = {} if self.images.images == before else {"choice": "people"}
        precision = {"precision": "int8"} if self.settings.int8 else {}
        return {
            "sha256": sha256,
            "space": self.supernet.space.to_dict(),
            "train": [train.fingerprint, len(train), self.settings.calibration_images],
            "search": [search.fingerprint, len(search), self.settings.images],
            "decode": self.decode.to_dict(),
            "judging": EVALUATION_VERSION,
            **metric,
            **choice,
            **precision,
        }

    def facts(self) -> dict[str, str]:
        """How subnets are evaluated and on what, for the opening of a search."""
        settings, threads = self.settings, torch.get_num_threads()
        calibration = min(settings.calibration_images, len(self.train))
        precision = "int8, as onnx-int8 runs them" if settings.int8 else "float32"
        return {
            "device": f"{self.device}, {precision}, {threads} thread{'s' * (threads > 1)}",
            "search": f"{describe_images(self.images, len(self.search))}; AP {NO_FLIP}",
            "calibration": f"BatchNorm, on {calibration:,} of {len(self.train):,} training images",
        }

    def __call__(self, genome: Genome) -> float:
        """The AP of a subnet, 0 to 1; 0 where it finds nobody or its outputs are not numbers."""
        value = self.measure(genome)["AP"]
        return float(value) if value is not None and math.isfinite(value) else 0.0

    def error(self, genome: Genome) -> float | None:
        """The standard error of a subnet's AP; None where there is no such AP."""
        return self.measure(genome).get("AP_stderr")

    def measure(self, genome: Genome) -> dict[str, Any]:
        """All metrics of a subnet; under `DRAWS` its APs on draws of the images."""
        found = self.evaluate(self.supernet.space.decode(genome, self.supernet.spec.joints))
        drawn = {} if found.draws is None else {DRAWS: found.draws.round(DRAWS_DECIMALS).tolist()}
        return {**found.metrics, **drawn}

    def evaluate(self, spec: ArchSpec) -> Evaluation:
        """All metrics of a subnet, and the seconds of each stage ('calibrate' included)."""
        with self._lock:
            threads = torch.get_num_threads()
            if self._streams:
                torch.set_num_threads(1)
            try:
                start = time.perf_counter()
                prepared = self._prepare(spec.resolution)
                middle = time.perf_counter()
                net = extract(self.supernet, spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                recalibrate(net, prepared.calibration, self._streams or 1)
                seconds = {"read": middle - start, "calibrate": time.perf_counter() - middle}
                runner = self._runner(net, prepared)
                result = evaluate(runner, self.images, prepared.inputs, self._evaluator, self.decode)
            finally:
                torch.set_num_threads(threads)
        stages = {stage: value + seconds.get(stage, 0.0) for stage, value in result.seconds.items()}
        return replace(result, seconds={**seconds, **stages})

    def _runner(self, net: LitePose, prepared: _Prepared) -> Runner:
        if self.settings.int8:
            return int8_runner(net, prepared.int8, self._streams or torch.get_num_threads())
        return self._make_runner(net)

    def _prepare(self, resolution: int) -> _Prepared:
        prepared = self._cache.pop(resolution, None) or _Prepared(
            list(calibration_batches(self.train, resolution, self.settings.calibration_images, self.device)),
            list(read_inputs(self.images, resolution, self.settings.batch)),
            list(calibration_inputs(self.train, resolution)) if self.settings.int8 else [],
        )
        self._cache[resolution] = prepared  # at the end: the resolution used last
        while len(self._cache) > 1 and sum(kept.bytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return prepared


@dataclass(frozen=True)
class _Elsewhere:
    """What a `SubnetEvaluator` is in another process: read anew from its checkpoint when it is first asked."""

    path: Path
    recipe: Recipe
    device: str | None
    basis: str

    def measure(self, genome: Genome) -> dict[str, Any]:
        """See `SubnetEvaluator.measure`. Raises InputError where what this process reads is something else."""
        with _READING:  # several threads of a worker may ask at once
            evaluator = _read_anew(self)
        return evaluator.measure(genome)


_READING = threading.Lock()


@lru_cache(maxsize=1)
def _read_anew(given: _Elsewhere) -> SubnetEvaluator:
    checkpoint = load_checkpoint(given.path, kind="supernet")
    evaluator = SubnetEvaluator.from_checkpoint(checkpoint, given.recipe, given.device)
    if json.dumps(evaluator.basis(checkpoint.sha256)) != given.basis:
        hint = "give every worker the same files and the same version of ofa-pose"
        raise InputError("a worker has another supernet, other data or another version", given.path, hint)
    return evaluator


class ArchivedEvaluations:
    """An `Evaluate` that measures nothing twice.

    Attributes:
        measured: how many subnets were measured; the others came out of the archive.
        asked: every subnet that was asked for.
    """

    def __init__(
        self, feasible: FeasibleSpace, measure: Measure, archive: Archive, seed: int, executor: Executor | None = None
    ) -> None:
        """
        Args:
            seed: of the search that asks; the archive names it.
            executor: measures; one of other processes needs a `measure` that can be pickled. None: this process does.
        """
        self._feasible, self._archive, self._seed, self._executor = feasible, archive, seed, executor
        self._patience = ANSWER_S if isinstance(executor, ProcessPoolExecutor) else None
        self._task = partial(_timed, measure)
        self.measured = 0
        self.asked: set[Genome] = set()
        self._again: dict[Genome, np.ndarray | None] = {}

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        """Fitness and seconds of each genome, in this order; see `candidates.Evaluate`.

        Raises:
            InputError: one is not a genome of the space.
            OfaPoseError: a subnet could not be evaluated; what was evaluated, elsewhere too, is in the archive.
        """
        check_genomes(genomes, self._feasible.space)
        self.asked.update(genomes)
        known = self._archive.outcomes(genomes)
        missing = [genome for genome in dict.fromkeys(genomes) if genome not in known]
        started: dict[Genome, Future[tuple[dict[str, Any], float]]] = {}
        try:
            if self._executor:  # the dearest first: a worker that takes a large one last would keep the others waiting
                missing.sort(key=self._feasible.macs, reverse=True)
                for genome in missing:
                    with self._failing(genome):
                        started[genome] = self._executor.submit(self._task, genome)
            following = iter(missing)
            for genome in genomes:
                while genome not in known:
                    subnet = next(following)
                    with self._failing(subnet):
                        found = _answer(started[subnet], self._patience) if started else self._task(subnet)
                    known[subnet] = self._keep(subnet, *found)
                yield known[genome]
        except BaseException:
            with suppress(OfaPoseError):  # on a full disk; what ended the work is what is reported
                for subnet, future in started.items():
                    if subnet not in known and future.done() and not future.cancelled() and not future.exception():
                        self._keep(subnet, *future.result())
            raise
        finally:
            for future in started.values():
                future.cancel()

    def error(self, genome: Genome) -> float | None:
        """The standard error of the AP of a subnet that was evaluated; None where the archive does not hold it."""
        value = self._archive.metrics(genome).get("AP_stderr")
        return float(value) if value is not None and are_numbers([value], 1) else None

    def draws(self, genome: Genome) -> np.ndarray | None:
        """Its APs on draws of the images, see `pose.bootstrap`; None where the archive does not hold them."""
        return _drawn(self._archive.metrics(genome))

    def draws_again(self, genome: Genome) -> np.ndarray | None:
        """`draws`; what an archive of an earlier version lacks is measured again, and stays as it is there."""
        known = self.draws(genome)
        if known is None and genome not in self._again:
            with self._failing(genome):
                started = self._executor.submit(self._task, genome) if self._executor else None
                again = _answer(started, self._patience) if started else self._task(genome)
            self._again[genome] = _drawn(again[0])
        return self._again.get(genome) if known is None else known

    def _keep(self, genome: Genome, metrics: dict[str, Any], seconds: float) -> FitnessOutcome:
        """Put a measured subnet into the archive."""
        spec, predict_ms = self._feasible.decode(genome), self._feasible.budget.predict_ms
        latency_ms = predict_ms(spec) if predict_ms else None
        outcome = self._archive.put(genome, spec, latency_ms, metrics, seconds, self._seed)
        self.measured += 1
        if not math.isfinite(outcome[0]):
            warn(f"{self._shown(genome)} gave no AP that is a number; it ranks below all")
        return outcome

    @contextmanager
    def _failing(self, genome: Genome) -> Iterator[None]:
        """Raises what goes wrong with a subnet as an error that names it."""
        try:
            yield
        except InputError:
            raise
        except BrokenExecutor as error:
            why = "killed, out of memory, or started by a script without `if __name__ == '__main__'`"
            raise OfaPoseError(f"a worker process died ({why}); {KEPT}") from error
        except CancelledError as error:
            raise OfaPoseError(f"cancelled: the scheduler of the workers is gone; {KEPT}") from error
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            lower = "lower search.batch or the number of workers: " if is_memory(error) else ""
            raise OfaPoseError(f"{self._shown(genome)} could not be evaluated ({cause}); {lower}{KEPT}") from error

    def _shown(self, genome: Genome) -> str:
        spec = json.dumps(self._feasible.decode(genome).to_dict(), separators=(",", ":"))
        return f"subnet {genome_text(genome)}, {spec},"


def _answer(future: Future[T], patience: float | None) -> T:
    """What a worker found. Raises what it raised, and TimeoutError where it does not answer within so many seconds."""
    try:
        return future.result(patience)
    except TimeoutError:
        if future.done():
            return future.result()
        raise TimeoutError(f"no answer came for {format_time(patience or 0)}") from None


def _drawn(metrics: Mapping[str, Any]) -> np.ndarray | None:
    given = metrics.get(DRAWS)
    if not isinstance(given, list):
        return None
    try:
        drawn = np.array(given, np.float64)  # null is NaN
    except (TypeError, ValueError, OverflowError):
        return None
    return drawn if drawn.ndim == 1 else None


def _timed(measure: Measure, genome: Genome) -> tuple[dict[str, Any], float]:
    """The metrics of a subnet, and the seconds that took."""
    start = time.perf_counter()
    metrics = dict(measure(genome))
    return metrics, round(time.perf_counter() - start, 4)
