"""One self-contained page about a run and the runs that it came from."""

from ofa_pose.reports.page import write_report

__all__ = ["write_report"]
