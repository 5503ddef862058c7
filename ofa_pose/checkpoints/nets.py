"""A net named on the command line: preset, spec file or checkpoint."""

from __future__ import annotations

from pathlib import Path

from ofa_pose.arch.presets import PRESETS, load_spec
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.files import shipped_weights

SPEC_SUFFIXES = (".yaml", ".yml", ".json")


def load_any_spec(name: str, joints: int | None = None) -> ArchSpec:
    """The spec of a preset, a spec file or a checkpoint (a supernet's largest net). Raises InputError."""
    if name in PRESETS or Path(name).suffix in SPEC_SUFFIXES:
        return load_spec(name, joints)
    if Path(name).exists() or name in shipped_weights():
        from ofa_pose.checkpoints.checkpoint import load_checkpoint

        spec = load_checkpoint(name).spec
        return spec.with_joints(joints) if joints is not None else spec
    return load_spec(name, joints)
