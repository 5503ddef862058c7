"""Checkpoints that carry all that is needed to rebuild their network: shape, joints, recipe, weights.

And whether what one is used with is what it was made for: its space, its joints, the images kept from it.
"""

from __future__ import annotations

import errno
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.arch.spec import NetSpec
from ofa_pose.backends.runtimes import instead_of_checkpoint
from ofa_pose.checkpoints.digest import NoMemory, WrongSum, check_tensors, digest, read_summed, tensors_in
from ofa_pose.families.table import build_pose_net, read_spec
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.skeleton import BUILT_IN, Skeleton
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError, nearest

if TYPE_CHECKING:  # what only a checkpoint's use needs: a search whose budget nothing keeps is refused without
    from ofa_pose.data.keypoint_dataset import DataSettings, KeypointDataset
    from ofa_pose.pose.decode import DecodeConfig

FORMAT = "ofa-pose-checkpoint"
VERSION = 1
FOREIGN = "is not a checkpoint of ofa-pose"  # a file that torch reads, of something else
CHANGED = "is a damaged checkpoint: it does not hold what was written"
DAMAGED = "write or copy it again"
KINDS = ("net", "supernet")
DESCRIBING = ("spec", "space", "skeleton", "recipe", "info")  # entries without tensors
SUPERNET = (
    "holds a supernet, many networks in one",
    "search it for a subnet and finetune that, then name the finetuned checkpoint",
)


@dataclass(frozen=True)
class Checkpoint:
    """A network on disk.

    Attributes:
        kind: 'net' (fixed) or 'supernet'.
        spec: the network's shape; a supernet's largest net.
        space: the supernet's search space, else None. A fixed net keeps the space it came from where it has one.
        skeleton: the joints of the outputs.
        weights: the state dict.
        recipe: the recipe it was trained with, which later commands start from.
        info: what made it and how good it is: JSON values.
        training: optimiser state and progress, for resuming; None in exported weights.
        path, sha256: the file that it was read from, and its sum then.
    """

    kind: Literal["net", "supernet"]
    spec: NetSpec
    space: SearchSpace | None
    skeleton: Skeleton
    weights: dict[str, Tensor]
    recipe: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    path: Path | None = None
    sha256: str | None = None

    @property
    def decode(self) -> DecodeConfig:
        """How poses are read from the network's maps. Raises InputError where the recipe says nothing valid."""
        from ofa_pose.pose.decode import DecodeConfig

        section = self.recipe.get("decode") or {}
        if isinstance(section, dict):  # how a training found them says nothing of how poses are read
            section = {key: value for key, value in section.items() if key != "calibrate"}
        return DecodeConfig.from_dict(section, "decode of the checkpoint's recipe")

    def build(self, device: str | torch.device = "cpu") -> PoseNet:
        """The network in eval mode on `device`, of a supernet a `Supernet`. Raises InputError on wrong weights."""
        assert self.space or self.kind == "net"
        supernet = self.space if self.kind == "supernet" else None
        net = Supernet(supernet, self.spec.joints) if supernet else build_pose_net(self.spec)
        net.load_state_dict(self.weights_for(net))
        return net.to(device).eval()

    def weights_for(self, net: PoseNet) -> dict[str, Tensor]:
        """Of the weights those that a network has. Raises InputError where one is missing, or not one of its shape."""
        expected = net.state_dict()
        for name, value in expected.items():
            if name not in self.weights:
                what = f"the checkpoint has no weights '{name}'"
            elif not is_plain(self.weights[name], value.shape):
                found = self.weights[name]
                shapes = f"{tuple(found.shape)}, the net needs {tuple(value.shape)}"
                same = found.shape == value.shape
                what = f"weights '{name}' " + ("are not numbers" if same else f"have shape {shapes}")
            elif not self.weights[name].isfinite().all():
                what = (
                    f"weights '{name}' hold NaN or infinity: the training that wrote them failed, or they are damaged"
                )
            else:
                continue
            raise InputError(what, self.path or "", "name another checkpoint, or write this one again")
        return {name: self.weights[name] for name in expected}


class DamagedCheckpoint(InputError):
    """A checkpoint's file does not hold what was written into it."""


def is_plain(value: Any, shape: torch.Size) -> bool:
    """Whether a value from a file is a dense tensor of real numbers of that shape."""
    return (
        isinstance(value, Tensor)
        and value.shape == shape
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_complex() or value.is_quantized)
    )


def fixed_net(checkpoint: Checkpoint, where: object = "") -> PoseNet:
    """The network of a checkpoint, in eval mode on the CPU. Raises InputError where it holds a supernet."""
    if checkpoint.kind == "supernet":
        raise InputError(SUPERNET[0], where, SUPERNET[1])
    return checkpoint.build()


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint at once or not at all. `recipe` and `info` are written as JSON would write them.

    The file holds a digest of all the rest, by which it is seen when a bit of it has changed.
    """
    value = {
        "format": FORMAT,
        "version": VERSION,
        "kind": checkpoint.kind,
        "spec": checkpoint.spec.to_dict(),
        "space": checkpoint.space.to_dict() if checkpoint.space else None,
        "skeleton": checkpoint.skeleton.to_dict(),
        "weights": {name: value.detach().cpu() for name, value in checkpoint.weights.items()},
        # in Python's own types: a NumPy float among the metrics would make the file unreadable
        "recipe": json.loads(json.dumps(checkpoint.recipe)),
        "info": json.loads(json.dumps(checkpoint.info)),
        "training": checkpoint.training,
    }
    value["digest"] = digest(value)
    # Not straight into the file: on a full disk torch ends with a RuntimeError of its archive writer.
    content = io.BytesIO()
    torch.save(value, content)
    files.write_bytes(path, content.getbuffer())


def load_checkpoint(name: str | Path, kind: Literal["net", "supernet"] | None = None) -> Checkpoint:
    """Read a checkpoint, or one that ships with the package, by name.

    Args:
        name: a file, a run directory (its best checkpoint; of a search, the chosen subnet), or a shipped name such as
            'litepose-nano-coco'.
        kind: the kind that is needed, if it matters.

    Raises InputError: no such file, no checkpoint of ours, or of the other kind; `DamagedCheckpoint` where it is
    truncated, a bit of it is not what was written, or the disk does not give it.
    """
    path = find_checkpoint(name)
    try:
        value, found = read_summed(path)
    except WrongSum:
        raise DamagedCheckpoint(CHANGED, path, DAMAGED) from None
    except OSError as error:
        if error.errno != errno.EIO:  # what is not of the disk may pass
            raise
        raise DamagedCheckpoint(f"cannot be read ({error.strerror})", path, DAMAGED) from None
    except NoMemory:
        raise
    except Exception:  # a damaged pickle raises whatever its bytes lead to
        described = "it describes a net; the weights are in a .pt file, of a search best.pt"
        instead = described if path.suffix == ".yaml" else instead_of_checkpoint(path)
        hint = instead or "name a .pt file that ofa-pose wrote"
        raise DamagedCheckpoint("is not a checkpoint, or a truncated one", path, hint) from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        hint = "name a .pt file that ofa-pose wrote; import-litepose takes over the LitePose repository's"
        raise InputError(FOREIGN, path, hint)
    version, found_kind = value.get("version"), value.get("kind")
    if not isinstance(version, int) or not isinstance(found_kind, str):
        raise DamagedCheckpoint("is a damaged checkpoint", path, DAMAGED)
    if version not in range(1, VERSION + 1):
        raise InputError(f"has format version {version}", path, "update ofa-pose")
    if found_kind not in KINDS:
        raise DamagedCheckpoint("is a damaged checkpoint", path, DAMAGED)
    if kind and found_kind != kind:
        what, hint = (
            SUPERNET if kind == "net" else ("holds a fixed net, not a supernet", "name a checkpoint of a supernet")
        )
        raise InputError(what, path, hint)
    try:
        known = [
            value["recipe"],
            value["info"],
            *(one for key in ("space", "training") if (one := value[key]) is not None),
        ]
        if not all(isinstance(one, dict) for one in known):
            raise TypeError
        files.check_depth({key: inner for key, inner in value.items() if key != "weights"}, path)
        if any(True for name in DESCRIBING for _ in tensors_in(value[name])):
            raise TypeError
        check_tensors(value, path)
        _check_digest(value, path)
        return Checkpoint(
            kind=value["kind"],
            spec=read_spec(value["spec"], path),
            space=None if value["space"] is None else SearchSpace.from_dict(value["space"], path),
            skeleton=Skeleton.from_dict(value["skeleton"], path),
            weights={k: v.float() if v.is_floating_point() else v for k, v in value["weights"].items()},
            recipe=value["recipe"],
            info=value["info"],
            training=value["training"],
            path=path,
            sha256=found,
        )
    except WrongSum:
        raise DamagedCheckpoint(CHANGED, path, DAMAGED) from None
    except (KeyError, TypeError, AttributeError):
        raise DamagedCheckpoint("is a damaged checkpoint", path, DAMAGED) from None


def _check_digest(value: dict[str, Any], path: Path) -> None:
    """Raise DamagedCheckpoint where a file does not hold what was written; earlier versions kept no digest."""
    stated = value.pop("digest", None)
    try:
        whole = stated is None or digest(value) == stated
    except (RuntimeError, RecursionError, NotImplementedError):  # of tensors that no checkpoint of ours holds
        whole = False
    if not whole:
        raise DamagedCheckpoint(CHANGED, path, DAMAGED)


def find_checkpoint(name: str | Path) -> Path:
    """The checkpoint file that a file name, a run directory or a shipped name means. Raises InputError."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        for inner in ("checkpoints/best.pt", "checkpoints/last.pt", "best.pt"):
            if (path / inner).is_file():
                return path / inner
        apple = "Core ML reads it on Apple's systems; here name the checkpoint, or export it as onnx"
        hint = apple if path.suffix == ".mlpackage" else "name a run directory or a .pt file"
        raise InputError("holds no checkpoints/best.pt", path, hint)
    shipped = files.shipped_weights()
    if str(name) in shipped:
        return shipped[str(name)]
    named = str(path) == path.name and not path.suffix
    hint = nearest(path.name, shipped) if named and shipped else "check the path"
    raise InputError("no such checkpoint", path, hint)


def check_space(supernet: Checkpoint, space: str) -> None:
    """Raise InputError where a recipe names another space than the supernet's: its weights cannot change theirs."""
    from ofa_pose.recipe import Recipe

    trained = supernet.recipe.get("space", Recipe().space)
    if space != trained and load_space(space) != supernet.space:
        raise InputError(f"the supernet was trained in the space {trained}, not {space}", hint=f"set space={trained}")


def check_joints(skeleton: Skeleton, dataset: KeypointDataset, what: str) -> None:
    """Raise InputError where a dataset has other joints than a network."""
    if skeleton.joints != dataset.skeleton.joints:
        there, here = dataset.skeleton, skeleton
        fault = f"{what} has {len(here.joints)} joints ({here.name}), the data {len(there.joints)} ({there.name})"
        pairs = list(zip(here.joints, there.joints, strict=False))
        if len(here.joints) == len(there.joints):
            fault += ": " + ", ".join(f"{a} is {b}" for a, b in pairs if a != b)[:200]
        hint = "use data and a checkpoint with the same joints"
        if len(here.joints) == len(there.joints) and all(joint.isdecimal() for joint in there.joints):
            named = here.name if here.name in BUILT_IN else "FILE"
            hint = f"the data names no joints: where they are the same, add --set data.skeleton={named}"
        raise InputError(fault, dataset.annotations_path, hint)


def check_held_out(data: DataSettings, supernet: Checkpoint) -> None:
    """Raise InputError where a search would take a share of train that the supernet was not kept from.

    What is held out follows from the annotation file's content and the share, wherever the file lies now. An imported
    supernet was trained elsewhere: nothing is known of it, and a warning says so.
    """
    if data.search is not None or data.train is None:
        return
    if "imported_from" in supernet.info:
        warn("the imported supernet may have seen the images held out of data.train; better name data.search")
        return
    from ofa_pose.data.keypoint_dataset import DataSettings
    from ofa_pose.formats.reading import fingerprint
    from ofa_pose.utils.config import check_config

    trained = check_config(DataSettings, supernet.recipe.get("data") or {}, "the supernet's recipe")
    now = (None, data.search_share, fingerprint(data.train.annotations, data.train.images))
    then = (trained.search, trained.search_share, supernet.info.get("train_sha256", now[2]))
    for key, new, old in zip(("search", "search_share", "train"), now, then, strict=True):
        if new != old:
            what = f"data.{key} is not what the supernet was trained with: it may have seen the search images"
            raise InputError(what, hint="leave it as it was, or name images of their own in data.search")
