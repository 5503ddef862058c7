"""`ofa-pose import-litepose`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_pose.cli.common import JsonOption, key_table, print_result, suggest
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from ofa_pose.skeleton import Skeleton

SHOWN_KEYS = 5


def import_litepose(
    file: Annotated[Path, typer.Argument(help="Checkpoint of the LitePose repository (.pth.tar, .pth, .pt).")],
    out: Annotated[Path, typer.Option("--out", help="Checkpoint file to write.")],
    arch: Annotated[
        str | None, typer.Option("--arch", help="Its fixed net: that repository's JSON, a spec file or a preset.")
    ] = None,
    supernet: Annotated[bool, typer.Option("--supernet", help="The file holds a supernet.")] = False,
    space: Annotated[
        str | None, typer.Option("--space", help="The supernet's search space; default: litepose, that repository's.")
    ] = None,
    joints: Annotated[
        int | None, typer.Option("--joints", min=1, help="Keypoints: 17 are COCO's, 14 CrowdPose's.")
    ] = None,
    skeleton: Annotated[Path | None, typer.Option("--skeleton", help="YAML of any other skeleton.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take over a checkpoint of the LitePose repository, a fixed net or a supernet, with its BatchNorm statistics.

    The result is a checkpoint like any other: a fixed net for eval, predict, export, --teacher or --init, a supernet
    for search or --init. A key that is missing or of another shape is an error.

    Example: ofa-pose import-litepose crowdpose-XS.pth.tar --arch search-XS.json --joints 14 --out xs.pt
    """
    if (arch is None) == (not supernet):
        raise InputError("import-litepose needs --arch or --supernet, and not both", hint="name one of them")
    if space is not None and not supernet:
        raise InputError("--space is a supernet's", hint="leave it out, or say --supernet")
    if out.is_dir():
        raise InputError("is a folder, not a file", out, "name the checkpoint file to write")
    if out.exists() and file.exists() and out.samefile(file):
        raise InputError("is the file to import", out, "name another one for --out")

    from ofa_pose.arch.presets import load_spec
    from ofa_pose.arch.space import load_space
    from ofa_pose.utils import files

    files.check_folder(out.parent)
    chosen = _skeleton(joints, skeleton)
    named = space or "litepose"
    shape = load_space(named) if arch is None else load_spec(arch, len(chosen.joints))

    from ofa_pose.checkpoints.checkpoint import save_checkpoint
    from ofa_pose.checkpoints.litepose_checkpoint import import_checkpoint
    from ofa_pose.costs.profile import profile

    recipe = {"space": os.path.abspath(named) if os.path.isfile(named) else named} if supernet else {}
    done = import_checkpoint(file, shape, chosen, recipe)
    save_checkpoint(out, done.checkpoint)
    spec = done.checkpoint.spec
    figures = profile(spec, out.name)
    result: dict[str, Any] = {"checkpoint": str(out), "kind": done.checkpoint.kind, "net": str(spec)}
    result |= {"joints": spec.joints, "skeleton": chosen.name, "params": figures["params"], "macs": figures["macs"]}
    keys = {"used": done.used, "ignored": done.ignored, "missed": done.missed}
    counted = {name: {"count": len(some), "keys": list(some[:SHOWN_KEYS])} for name, some in keys.items()}
    shown = {name: _some(some) for name, some in keys.items()}
    print_result(result | counted, as_json, None if as_json else key_table(result | shown))
    if supernet:
        suggest("search", "--supernet", out, "--recipe", "coco", "--macs", "…", "--out", "…")
    else:
        suggest("eval", "--checkpoint", out, "--annotations", "…", "--images", "…")


def _skeleton(joints: int | None, path: Path | None) -> Skeleton:
    from ofa_pose.skeleton import BUILT_IN, load_skeleton

    if path is not None:
        skeleton = load_skeleton(path)
        if joints not in (None, len(skeleton.joints)):
            what = f"--joints {joints}, but the skeleton has {len(skeleton.joints)}"
            raise InputError(what, path, "make them agree")
        return skeleton
    found = [known for known in BUILT_IN.values() if len(known.joints) == joints]
    if found:
        return found[0]
    what = "import-litepose needs --joints" if joints is None else f"no skeleton is known for {joints} joints"
    raise InputError(what, hint="17 are COCO's, 14 CrowdPose's; else name a YAML file with --skeleton")


def _some(keys: Sequence[str]) -> str:
    listed = ", ".join(keys[:SHOWN_KEYS]) + (" …" if len(keys) > SHOWN_KEYS else "")
    return f"{len(keys)} keys" + (f": {listed}" if keys else "")
