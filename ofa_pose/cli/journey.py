"""What people see after training, search, evaluation, prediction and import, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ofa_pose.api.evaluating import EvaluationResult
from ofa_pose.api.importing import SHOWN_KEYS, ImportResult
from ofa_pose.cli.common import suggest
from ofa_pose.cli.tables import format_value, key_table
from ofa_pose.utils.console import show
from ofa_pose.utils.errors import OfaPoseError

if TYPE_CHECKING:
    from ofa_pose.inference.predict import PredictionResult
    from ofa_pose.searches.results import SearchResult
    from ofa_pose.train.loop import TrainingResult

Given = Mapping[str, Any]  # a call's arguments


def after_pretrain(result: TrainingResult, given: Given) -> None:
    """The largest net of a space is there for its supernet."""
    if given["net"] is None:
        suggest("train-supernet", "--init", result.out, "--out", "…")


def after_train_supernet(result: TrainingResult, given: Given) -> None:
    """A supernet is there to be searched."""
    suggest("search", "--supernet", result.out, "--macs", "…", "--out", "…")


def show_search(result: SearchResult) -> None:
    """All but the front, which the search has shown."""
    show(
        key_table({key: value for key, value in result.to_dict().items() if key not in ("chosen", "front", "uniform")})
    )


def after_search(result: SearchResult, given: Given) -> None:
    """The chosen subnet is there to be trained on."""
    words = ("--subnet", result.subnet, "--supernet", given["supernet"], "--teacher", "…", "--out", "…")
    suggest("finetune", *words)


def after_finetune(result: TrainingResult, given: Given) -> None:
    """A finished net is evaluated and exported."""
    suggest("eval", "--checkpoint", result.out, "--annotations", "…", "--images", "…")
    suggest("export", result.out, "--out", "…")


def after_import(result: ImportResult, given: Given) -> None:
    """An imported checkpoint goes on as one of ours would."""
    if result.kind == "supernet":
        suggest("search", "--supernet", result.checkpoint, "--recipe", "coco", "--macs", "…", "--out", "…")
    else:
        suggest("eval", "--checkpoint", result.checkpoint, "--annotations", "…", "--images", "…")


def after_predict(result: PredictionResult, given: Given) -> None:
    """Exit code 1 where something could not be read."""
    if result.failed:
        raise OfaPoseError(f"{result.failed} of the {result.unit} could not be read; the rest is done")


def show_import(result: ImportResult) -> None:
    """Keys are counted, the first ones named."""

    def some(keys: tuple[str, ...]) -> str:
        listed = ", ".join(keys[:SHOWN_KEYS]) + (" …" if len(keys) > SHOWN_KEYS else "")
        return f"{len(keys)} keys" + (f": {listed}" if keys else "")

    keys = {"used": some(result.used), "ignored": some(result.ignored), "missed": some(result.missed)}
    show(key_table(result.to_dict() | keys))


def show_evaluation(result: EvaluationResult) -> None:
    """The metrics first; a table for each part of the breakdown."""
    shown = result.to_dict()
    parts = shown.pop("breakdown", {})
    show(key_table({**shown.pop("metrics"), **shown, "resolutions": ", ".join(map(str, result.resolutions or ()))}))
    columns = ("AP", "AR", "people")
    for what, rows in parts.items():
        table = Table(what)
        for column in columns:
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(escape(name), *(format_value(row[column]) for column in columns))
        show(table)
