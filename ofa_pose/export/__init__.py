"""A network's files for other programs."""

from ofa_pose.export.formats import FORMATS, export_checkpoint

__all__ = ["FORMATS", "export_checkpoint"]
