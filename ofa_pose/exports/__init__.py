"""A network's files for other programs."""

from ofa_pose.exports.formats import DEFAULT_FORMATS, FORMATS, INT8, ExportResult, export_checkpoint

__all__ = ["DEFAULT_FORMATS", "FORMATS", "INT8", "ExportResult", "export_checkpoint"]
