"""A training run: its data, its settings, where it writes and what its checkpoints carry, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ofa_pose.arch.space import SearchSpace
from ofa_pose.backends.torch_net import pick_device
from ofa_pose.checkpoints.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from ofa_pose.checkpoints.compatibility import check_joints
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_splits
from ofa_pose.data.transforms import Augmentation
from ofa_pose.inference.evaluate import check_evaluable
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.recipe import LossSettings, Recipe, TrainSettings
from ofa_pose.skeleton import Skeleton
from ofa_pose.train.objectives import Distillation, FixedNet, Objective, UniformSampling
from ofa_pose.utils import files
from ofa_pose.utils.config import config_text
from ofa_pose.utils.run_dir import RunDir, plan_run


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a training needs but its network.

    Attributes:
        train: the images to learn from.
        val: the images that the best checkpoint is chosen on.
        settings, augmentation, loss, decode: as the recipe has them.
        seed: of everything random.
        run: the directory to write.
        device: where the network is trained.
        teacher: a network that heatmaps are distilled from.
        recipe: what the checkpoints carry for later commands.
        origin: what a resumed run must share with the one that began it, besides the net.
    """

    train: KeypointDataset
    val: KeypointDataset
    settings: TrainSettings
    augmentation: Augmentation
    loss: LossSettings
    seed: int
    run: RunDir
    device: torch.device
    teacher: LitePose | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str | None] = field(default_factory=dict)
    decode: DecodeConfig = field(default_factory=DecodeConfig)

    @classmethod
    def prepare(
        cls,
        command: str,
        recipe: Recipe,
        carried: Mapping[str, Any],
        out: str | Path,
        resume: bool = False,
        device: str | None = None,
        trained: Skeleton | None = None,
        teacher: str | Path | None = None,
    ) -> TrainingRun:
        """Read and check all parts of a run; nothing is written yet.

        Args:
            command: that trains; a run is resumed by the command that began it.
            recipe, carried: see `load_recipe`.
            trained: the joints of the network that is trained on, if there is one; see `load_dataset`.
            teacher: checkpoint of a network to distil from.

        Raises:
            InputError: no such device, `out` cannot take the run, the data are at fault, nobody in data.val can be
                evaluated, or val or the teacher has other joints than train.
        """
        master = load_checkpoint(teacher, kind="net") if teacher else None
        chosen = pick_device(device)
        run = plan_run(out, config_text(recipe), resume)
        (train,) = load_splits(recipe.data, "train", trained=trained)
        (val,) = load_splits(recipe.data, "val", trained=train.skeleton)
        check_joints(train.skeleton, val, "data.train")
        if master:
            check_joints(master.skeleton, train, "the teacher")
        val = val.limit(recipe.train.evaluate_images)
        check_evaluable(val, "raise train.evaluate_images, or name another data.val")
        return cls(
            train,
            val,
            recipe.train,
            recipe.augment,
            recipe.loss,
            recipe.seed,
            run,
            chosen,
            master.build() if master else None,
            carried,
            {
                "command": command,
                "teacher": files.sha256(find_checkpoint(teacher)) if teacher else None,
                "metric": val.metric,
            },
            recipe.decode.config(),
        )

    def objective(self, network: LitePose) -> Objective:
        """What the toolkit trains a network for: a supernet, a net under a teacher, or a net from labels alone."""
        if isinstance(network, Supernet):
            return UniformSampling(network, self.seed, self.loss)
        resolutions = self.settings.resolutions or (network.spec.resolution,)
        if self.teacher is None:
            return FixedNet(network, resolutions, self.seed, self.loss)
        teacher = self.teacher.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Distillation(network, resolutions, self.seed, self.loss, teacher)

    def checkpoint(
        self, network: LitePose, space: SearchSpace | None, info: Mapping[str, Any], state: dict[str, Any] | None = None
    ) -> Checkpoint:
        """The network as it is, with what later commands need to know of this run; `state` resumes the training."""
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        return Checkpoint(
            "supernet" if isinstance(network, Supernet) else "net",
            network.spec,
            space,
            self.train.skeleton,
            weights,
            dict(self.recipe),
            {**info, "train_sha256": self._train_sha256},
            state,
        )

    @cached_property
    def _train_sha256(self) -> str:
        return self.train.fingerprint
