"""Checkpoints of the LitePose repository: its fixed nets and supernets taken over, and written so that it loads them.

Its supernet takes leading slices too, with the same BatchNorm, so that weights and statistics change names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_pose.arch.presets import PRESETS, check_rebuildable, check_residuals
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import FORMAT, Checkpoint, is_plain
from ofa_pose.checkpoints.digest import NoMemory, read_summed
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.skeleton import Skeleton
from ofa_pose.utils.errors import Fault, InputError

WRAPPERS = ("state_dict", "best_state_dict")  # keys of its training checkpoints that hold a state dict
PREFIXES = re.compile(r"^((module|1)\.)+")  # what DataParallel and its half-precision wrapper put before a name
TOPS = ("first.", "stage.", "deconv_refined.", "deconv_raw.", "deconv_bnrelu.", "final_refined.", "final_raw.")
RENAMED = (  # our name of a module -> its name there, the first that fits; a 'conv' after it is 0, a 'norm' 1
    (r"stem\.2\.conv", r"first.2"),
    (r"stem\.2\.norm", r"first.3"),
    (r"stem\.(\d+)", r"first.\1"),
    (r"stages\.(\d+)\.(\d+)\.expand", r"stage.\1.\2.inv"),
    (r"stages\.(\d+)\.(\d+)\.depthwise", r"stage.\1.\2.depth_conv"),
    (r"stages\.(\d+)\.(\d+)\.project", r"stage.\1.\2.point_conv"),
    (r"deconv\.(\d+)\.norm\.norm", r"deconv_bnrelu.\1.0"),
    (r"deconv\.(\d+)\.(\w+)\.conv", r"deconv_\2.\1"),
    (r"outputs\.(\d+)\.(\w+)\.depthwise", r"final_\2.\1.conv"),
    (r"outputs\.(\d+)\.(\w+)\.pointwise\.conv", r"final_\2.\1.conv.3"),
)
UNUSED = {"Linear5x5": 25, "Linear3x3": 9}  # kernel transforms in its supernet's blocks, for kernels that it never uses
COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Imported:
    """A checkpoint that was taken over, and what became of the file's keys.

    Attributes:
        used: keys of the file, without prefixes, that the net was filled with.
        ignored: keys of the file that no LitePose computes with.
        missed: batch counters that the file lacks; they start at 0, and nothing but training reads them.
    """

    checkpoint: Checkpoint
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    missed: tuple[str, ...]


def import_checkpoint(
    path: str | Path, shape: ArchSpec | SearchSpace, skeleton: Skeleton, recipe: Mapping[str, Any] | None = None
) -> Imported:
    """Take over a checkpoint file of the LitePose repository, in single precision.

    Args:
        path: a state dict, or a training checkpoint that holds one under 'state_dict'.
        shape: the fixed net that the file holds, or the search space of its supernet.
        skeleton: the joints of the outputs.
        recipe: what the checkpoint carries for later commands.

    Raises InputError: no such file, no state dict of a LitePose, or it is of another net: every key that is missing,
    left over or of another shape is named.
    """
    joints = len(skeleton.joints)
    found, sha256 = _read_state_dict(path)
    net = Supernet(shape, joints) if isinstance(shape, SearchSpace) else LitePose(shape.with_joints(joints))
    check_residuals(net.spec, path)
    own = net.state_dict()
    theirs = tensor_names(own)
    known = set(theirs.values())
    left = tuple(key for key in found if key not in known)
    parts = [key for key in left if key.startswith(TOPS) and not any(f".{name}." in key for name in UNUSED)]
    faults = [*_faults(found, own, theirs), *(f"'{key}' is not a part of the net" for key in parts)]
    if faults:
        raise InputError.of([Fault(fault, str(path), _hint(fault, found, shape, joints)) for fault in faults])
    weights = dict(own)
    for name, key in theirs.items():
        if key in found:
            weights[name] = found[key].detach().to(own[name].dtype).clone(memory_format=torch.contiguous_format)
    used, missed = (tuple(key for key in theirs.values() if (key in found) is there) for there in (True, False))
    kind, space = ("supernet", shape) if isinstance(shape, SearchSpace) else ("net", None)
    info = {"imported_from": Path(path).name, "imported_sha256": sha256}
    checkpoint = Checkpoint(kind, net.spec, space, skeleton, weights, dict(recipe or {}), info)  # type: ignore[arg-type]
    return Imported(checkpoint, used, left, missed)


def _read_state_dict(path: str | Path) -> tuple[dict[str, Any], str]:
    """The state dict in a file of the LitePose repository, names without prefixes, and its SHA-256.

    Raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("is a folder, not a file" if path.is_dir() else "no such file", path, "name a checkpoint file")
    try:
        value, sha256 = read_summed(path)
    except (OSError, NoMemory):  # which says what is so
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        if "weights_only" in str(error) and "GLOBAL" in str(error):
            what, hint = "holds Python objects, not tensors only", "save model.state_dict() alone, then import that"
            raise InputError(what, path, hint) from None
        raise InputError("is not a checkpoint, or a truncated one", path, "name a file that torch.save wrote") from None
    if isinstance(value, Mapping) and value.get("format") == FORMAT:
        raise InputError("is a checkpoint of ofa-pose already", path, "use it as it is")
    inner = next((value[key] for key in WRAPPERS if key in value), value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping):
        raise InputError("holds no state dict", path, "name a checkpoint of the LitePose repository")
    found: dict[str, Any] = {}
    for key, tensor in inner.items():
        name = PREFIXES.sub("", str(key))
        if name in found:
            raise InputError(f"holds '{name}' twice, with and without a prefix", path, "save one state dict alone")
        found[name] = tensor
    if not any(key.startswith(TOPS) for key in found):
        some = ", ".join(list(found)[:3]) or "nothing"
        raise InputError(f"holds no LitePose ({some} …)", path, "name a checkpoint of the LitePose repository")
    return found, sha256


def litepose_state_dict(net: LitePose) -> dict[str, Tensor]:
    """A net's or supernet's weights under the LitePose repository's names, complete for its strict loading.

    Raises InputError as `check_loadable` does.
    """
    check_loadable(net)
    own = net.state_dict()
    written = {key: own[name].detach().cpu().contiguous() for name, key in tensor_names(own).items()}
    if isinstance(net, Supernet):
        for stage, blocks in enumerate(net.plan.stages):
            for block in range(len(blocks)):
                for name, size in UNUSED.items():
                    written[f"stage.{stage}.{block}.{name}.weight"] = torch.eye(size)
                    written[f"stage.{stage}.{block}.{name}.bias"] = torch.zeros(size)
    return written


def check_loadable(net: LitePose) -> None:
    """Raise InputError where that repository's code would build another net than this one."""
    if not isinstance(net, Supernet):
        check_rebuildable(net.spec)
        return
    fixed = PRESETS["litepose-1.0x"]  # its code holds these; deconv filters and joints come from its settings
    for what in ("stem", "stages", "expansions", "kernel", "head"):
        if getattr(net.spec, what) != getattr(fixed, what):
            fault = f"the supernet's {what} {getattr(net.spec, what)} is not that of the LitePose repository's supernet"
            raise InputError(fault, hint="export a supernet of the space 'litepose', or a fixed net")


def tensor_names(own: Iterable[str]) -> dict[str, str]:
    """Our names of a state dict's tensors -> the LitePose repository's: 'stem.0.conv.weight' -> 'first.0.0.weight'."""
    names = {}
    for name in own:
        found, theirs = next((match, theirs) for ours, theirs in RENAMED if (match := re.match(ours, name)))
        rest = name[found.end() :].replace(".conv.", ".0.").replace(".norm.", ".1.")
        names[name] = found.expand(theirs) + rest
    return names


def _faults(found: Mapping[str, Any], own: Mapping[str, Tensor], theirs: Mapping[str, str]) -> Iterator[str]:
    for name, key in theirs.items():
        value, needed = found.get(key), own[name]
        shape = tuple(needed.shape)
        if key not in found:
            if not key.endswith(COUNTER):  # torch before 0.4.1 wrote none
                yield f"has no '{key}', which the net needs in shape {shape}"
        elif not isinstance(value, Tensor):
            yield f"'{key}' is not a tensor, the net needs one of shape {shape}"
        elif value.shape != needed.shape:
            yield f"'{key}' has shape {tuple(value.shape)}, the net needs {shape}"
        elif not is_plain(value, needed.shape):
            yield f"'{key}' is not a dense tensor of real numbers"
        elif value.is_floating_point() != needed.is_floating_point():
            yield f"'{key}' holds {value.dtype}, the net needs {needed.dtype}"
        elif not value.isfinite().all():
            yield f"'{key}' holds values that are not finite numbers"


def _hint(fault: str, found: Mapping[str, Any], shape: ArchSpec | SearchSpace, joints: int) -> str:
    if "finite" in fault:
        return "name a checkpoint whose training did not fail"
    heatmaps = found.get("final_refined.1.conv.3.weight")  # (J, filters, 1, 1)
    if "conv.3.weight" in fault and isinstance(heatmaps, Tensor) and heatmaps.ndim and len(heatmaps) != joints:
        return f"the file's net has {len(heatmaps)} joints, name them with --joints"
    if isinstance(shape, SearchSpace):
        return "name the supernet's own --space, or --arch if the file holds a fixed net"
    return "name the net's own config with --arch, or --supernet if the file holds one"
