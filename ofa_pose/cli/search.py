"""What people see of `ofa-pose search`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ofa_pose.cli.common import suggest
from ofa_pose.cli.tables import key_table
from ofa_pose.utils.console import show

if TYPE_CHECKING:
    from ofa_pose.searches.results import SearchResult


def show_search(result: SearchResult) -> None:
    """Print the result but for the front, which the search has printed."""
    shown = {key: value for key, value in result.to_dict().items() if key not in ("chosen", "front", "uniform")}
    show(key_table(shown))


def suggest_finetuning(result: SearchResult, given: Mapping[str, Any]) -> None:
    """Say what comes next."""
    words = ("--subnet", result.subnet, "--supernet", given["supernet"], "--teacher", "…", "--out", "…")
    suggest("finetune", *words)
