"""A subnet's fitness: the AP of its own network after BatchNorm recalibration, on images no weight was trained on."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ofa_pose.arch.space import Genome
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import Runner
from ofa_pose.backends.fastest import FastestRunner
from ofa_pose.data.coco import KeypointDataset
from ofa_pose.inference.evaluate import Evaluation, Inputs, check_evaluable, evaluate, make_evaluator, read_inputs
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe.settings import SearchSettings
from ofa_pose.utils.errors import InputError

CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class _Prepared:
    """All that judging at one resolution needs of the data."""

    calibration: list[Tensor]
    inputs: list[Inputs]

    @property
    def bytes(self) -> int:
        tensors = sum(tensor.nbytes for tensor in self.calibration)
        return tensors + sum(inputs.images.nbytes for inputs in self.inputs)


class SubnetFitness:
    """Judges subnets of one supernet: extract, recalibrate, evaluate.

    The images are read and warped once for each resolution and kept, up to `CACHE_BYTES`; the scorer is shared.
    The result depends on the subnet alone, not on what was judged before, nor on the number of threads.
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
        self._device = torch.device(device)
        self._supernet = supernet.to(self._device).eval()
        self._train, self._settings, self._decode = train, settings, decode
        # A sum's last bits depend on how many threads share it, so on a CPU each has work of its own.
        self._streams = torch.get_num_threads() if self._device.type == "cpu" else None
        self._make_runner = make_runner or FastestRunner(self._device, streams=self._streams)
        self.images = search.choose(settings.images, "search images")
        check_evaluable(self.images, "raise search.images, or name another data.search")
        self._evaluator = make_evaluator(self.images)
        self._cache: OrderedDict[int, _Prepared] = OrderedDict()

    def __call__(self, subnet: Genome | ArchSpec) -> float:
        """The AP of a subnet, 0 to 1; 0 where it finds nobody or its outputs are not numbers."""
        spec = (
            subnet if isinstance(subnet, ArchSpec) else self._supernet.space.decode(subnet, self._supernet.spec.joints)
        )
        value = self.evaluate(spec).metrics["AP"]
        return float(value) if value is not None and math.isfinite(value) else 0.0

    def measure(self, genome: Genome) -> dict[str, Any]:
        """All metrics of a subnet."""
        return self.evaluate(self._supernet.space.decode(genome, self._supernet.spec.joints)).metrics

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
        net = extract(self._supernet, spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(net, prepared.calibration, self._streams or 1)
        seconds = {"read": middle - start, "calibrate": time.perf_counter() - middle}
        result = evaluate(self._make_runner(net), self.images, prepared.inputs, self._evaluator, self._decode)
        stages = {stage: value + seconds.get(stage, 0.0) for stage, value in result.seconds.items()}
        return replace(result, seconds={**seconds, **stages})

    def _prepare(self, resolution: int) -> _Prepared:
        prepared = self._cache.pop(resolution, None) or _Prepared(
            list(calibration_batches(self._train, resolution, self._settings.calibration_images, self._device)),
            list(read_inputs(self.images, resolution, self._settings.batch)),
        )
        self._cache[resolution] = prepared  # at the end: the resolution used last
        while len(self._cache) > 1 and sum(kept.bytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return prepared
