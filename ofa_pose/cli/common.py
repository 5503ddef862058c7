"""Options that commands share, and what they do with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ofa_pose.cli.tables import key_table
from ofa_pose.utils.console import show

RecipeOption = Annotated[str | None, typer.Option("--recipe", help="Recipe: a YAML file or a shipped recipe's name.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override a recipe key; may be repeated.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Run directory to write.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where the run in --out was cut off.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random (recipe key: seed).")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …; default: a GPU if any.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result, and only it, as JSON on stdout.")]


def print_result(result: Mapping[str, Any], as_json: bool, table: Table | None = None) -> None:
    """The result of a command: JSON on stdout, or a table."""
    if as_json:
        json.dump(result, sys.stdout, allow_nan=False)
        sys.stdout.write("\n")
    else:
        show(table or key_table(result))
