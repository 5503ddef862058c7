"""Commands made of functions: a function's signature gives the options, its docstring the help text.

So a command is written down once: what a notebook calls and what the shell calls is the same function.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

import typer

from ofa_pose.cli.tables import key_table
from ofa_pose.utils.console import show
from ofa_pose.utils.errors import InputError

NAMES = {"overrides": "--set", "formats": "--format"}  # options that are not called as their parameters are
METAVARS = {"overrides": "A.B=VALUE"}


class Result(Protocol):
    """What a command's function returns."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what --json prints."""


Show = Callable[[Any], None]


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., Result | None],
    arguments: tuple[str, ...] = (),
    show_result: Show | None = None,
    after: Callable[[Any, Mapping[str, Any]], None] | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Add a command that calls `function` and prints what it returns.

    Args:
        arguments: parameters that stand on the command line without a name.
        show_result: prints a result for people; default: a table of its names and values.
        after: called with the result and the call's arguments when the result was printed: hints on what comes next.
        options: parameters' options where neither their name nor `NAMES` says them: {'flip': '--flip/--no-flip'}.
    """
    text, helps = read_docstring(function)
    shown = {**NAMES, **(options or {})}
    parameters = [
        _parameter(parameter, helps[parameter.name], parameter.name in arguments, shown)
        for parameter in inspect.signature(function).parameters.values()
    ]
    as_json = Annotated[bool, typer.Option("--json", help="Print the result, and only it, as JSON on stdout.")]
    parameters.append(_keyword("as_json", as_json, False))
    kinds = {name: str(one.annotation) for name, one in inspect.signature(function).parameters.items()}

    def command(as_json: bool, **given: Any) -> None:
        values = {key: _converted(key, value, kinds[key]) for key, value in given.items()}
        result = function(**values)
        if result is None:  # another rank than 0, which has nothing to say
            return
        if as_json:
            json.dump(result.to_dict(), sys.stdout, allow_nan=False)
            sys.stdout.write("\n")
        elif show_result:
            show_result(result)
        else:
            show(key_table(result.to_dict()))
        if after:
            after(result, values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = text
    app.command(name)(command)


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """A docstring's text before its sections, and what its section Args says of each parameter, on one line each."""
    text, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    text = re.split(r"\n(?:Returns|Raises):\n", text)[0]
    section = re.split(r"\n(?=\S)", rest)[0]
    entries = re.split(r"\n?^    (?=\w)", section, flags=re.MULTILINE)
    helps: dict[str, str] = {}
    for entry in filter(None, entries):
        names, _, said = entry.partition(": ")
        said = " ".join(said.split())
        for name in names.split(", "):
            helps[name] = said[:1].upper() + said[1:]
    return text.strip(), helps


def _parameter(
    parameter: inspect.Parameter, said: str, positional: bool, names: Mapping[str, str]
) -> inspect.Parameter:
    kind = str(parameter.annotation)
    option = names.get(parameter.name, f"--{parameter.name.replace('_', '-')}")
    base: Any = str
    if "bool" in kind:
        base = bool
    elif "Sequence[str]" in kind:
        base = list[str]
    elif "Sequence" not in kind and "float" in kind:
        base = float
    elif "Sequence" not in kind and "int" in kind and "str" not in kind:
        base = int
    metavar = METAVARS.get(parameter.name)
    info = typer.Argument(help=said) if positional else typer.Option(option, help=said, metavar=metavar)
    if parameter.default is inspect.Parameter.empty:
        return _keyword(parameter.name, Annotated[base, info], inspect.Parameter.empty)
    optional = parameter.default is None or parameter.default == ()
    default = parameter.default
    if optional:
        default = None
    elif base is str:
        default = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return _keyword(parameter.name, Annotated[base | None if optional else base, info], default)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _converted(name: str, value: Any, kind: str) -> Any:
    """An option's value as the function takes it."""
    for word, number in (("Sequence[int]", int), ("Sequence[float]", float)):
        if word in kind and isinstance(value, str):
            try:
                return tuple(number(part) for part in value.split(","))
            except ValueError:
                option = f"--{name.replace('_', '-')}"
                hint = "write whole numbers as in 50,100" if number is int else "write numbers as in 0.75,1.5"
                raise InputError(f"{option} '{value}' is not a list of numbers", hint=hint) from None
    return () if value is None and "Sequence[str]" in kind and "None" not in kind else value
