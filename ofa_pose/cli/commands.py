"""Commands made of functions: a function's signature gives the options, its docstring the help text.

So a command is written down once: what a notebook calls and what the shell calls is the same function.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import typer
from rich.markup import escape

from ofa_pose.cli.completing import complete
from ofa_pose.cli.facts import format_value
from ofa_pose.utils.atomic import naming
from ofa_pose.utils.console import mute, quiet, show_facts
from ofa_pose.utils.errors import InputError, OfaPoseError
from ofa_pose.utils.process import Interrupted, place
from ofa_pose.utils.result import Result
from ofa_pose.utils.run_dir import ONLY_IN_PYTHON

OPTIONS = {
    "overrides": "--set",
    "formats": "--format",
    "open_page": "--open",
    "backends": "--backend",
}  # those not called as their parameters are
# What the shell takes for a parameter, the first of its annotation's alternatives that is found here, and what stands
# for a value in the help: of lists of text, an option that is repeated; of numbers, text with commas.
SHELL_TYPES: dict[str, tuple[Any, str | None]] = {
    "Sequence[str]": (list[str], "<str>"),
    "Sequence[int]": (str, "N,N,…"),
    "Sequence[float]": (str, "X,X,…"),
    "Path": (str, "<path>"),
    "str": (str, None),
    "float": (float, None),
    "int": (int, None),
    "bool": (bool, ""),
}
NUMBERS: dict[str, tuple[Callable[[str], float], str]] = {  # what reads each of a list of numbers, and how to write it
    "Sequence[int]": (int, "write whole numbers as in 50,100"),
    "Sequence[float]": (float, "write numbers as in 0.75,1.5"),
}


class Ended(OfaPoseError):
    """A command was ended by a signal; typer would take every such exception for Ctrl-C."""

    def __init__(self, error: Interrupted) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., Result],
    arguments: Sequence[str] = (),
    show_result: Callable[[Any], None] | None = None,
    after: Callable[[Any, Mapping[str, Any]], None] | None = None,
) -> None:
    """Add a command that calls `function` and prints what it returns.

    Args:
        function: its parameters are annotated with `SHELL_TYPES` (in strings: by `from __future__ import
            annotations`), alone or as alternatives, and each is explained in its docstring.
        arguments: parameters that stand on the command line without a name.
        show_result: prints a result for people; default: its names and values.
        after: called with the result and the call's arguments when the result was printed: hints on what comes next.
    """
    text, helps = read_docstring(function)
    parameters = dict(inspect.signature(function).parameters)
    assert helps.keys() == parameters.keys(), f"{function.__name__}: Args explains {[*helps]}, it takes {[*parameters]}"
    names = {key: f"--{key.replace('_', '-')}" for key in parameters} | OPTIONS | {key: key for key in arguments}
    kinds = {key: _kind(function, one) for key, one in parameters.items() if key not in ONLY_IN_PYTHON}
    values = {key: complete(function.__name__, key) for key in kinds}
    shown = [_shell_parameter(parameters[key], kind, names, helps[key], values[key]) for key, kind in kinds.items()]
    as_json = typer.Option(False, "--json", help="Print the result, and only it, as JSON on stdout.")
    hushed = typer.Option(False, "--quiet", help="Show nothing but warnings and errors, and what --json prints.")
    shown += [_keyword("as_json", bool, as_json), _keyword("hushed", bool, hushed)]

    def command(as_json: bool, hushed: bool, **given: Any) -> None:
        with quiet(but_warnings=True) if hushed else nullcontext():
            work(as_json, given)

    def work(as_json: bool, given: Mapping[str, Any]) -> None:
        values = {key: _read(value, kinds[key], names[key], parameters[key]) for key, value in given.items()}
        try:
            result = function(**values)
        except Interrupted as error:
            if "resume" in parameters:
                error.go_on = error.go_on or "the same call with --resume goes on"
            raise Ended(error) from None
        if place()[0]:
            return  # of several processes the first one prints
        with _printing():
            if as_json:
                json.dump(result.to_dict(), sys.stdout, allow_nan=False)
                sys.stdout.write("\n")
            elif show_result:
                show_result(result)
            else:
                show_facts({name: format_value(value) for name, value in result.to_dict().items()})
        if after:
            after(result, values)

    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in shown}
    command.__doc__ = _in_the_shell(text, names)
    app.command(name)(command)


@contextmanager
def _printing() -> Iterator[None]:
    """Round what goes to stdout: the work is done, also where nobody reads its result."""
    try:
        with naming("stdout"):
            yield
            sys.stdout.flush()
    except BrokenPipeError:
        mute(sys.stdout.fileno())


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """A docstring's text before its sections, and what its section Args says of each parameter.

    Paragraphs of the text, and what is said of a parameter, come on one line each.
    """
    text, *sections = re.split(r"\n(?=(?:Args|Returns|Raises):\n)", inspect.getdoc(function) or "")
    explained = "".join(section for section in sections if section.startswith("Args:\n"))
    helps: dict[str, str] = {}
    for entry in re.split(r"\n    (?=\w)", explained)[1:]:
        names, _, said = entry.partition(":")
        helps |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")), helps


def _kind(function: Callable[..., Any], parameter: inspect.Parameter) -> str:
    """Which of `SHELL_TYPES` a parameter is."""
    alternatives = [part.strip() for part in str(parameter.annotation).split("|")]
    found = [kind for kind in SHELL_TYPES if kind in alternatives]
    assert found, f"{function.__name__}: the command line knows no {parameter.name} of type {parameter.annotation}"
    return found[0]


def _in_the_shell(text: str, names: Mapping[str, str]) -> str:
    """Text of a docstring as help: parameters in backticks are called by their options; what may be markup is escaped.

    What begins with 'In Python' is left out. typer takes square brackets for rich's markup.
    """
    return escape(re.sub(r"`(\w+)`", lambda word: names.get(word[1], word[0]), text.partition(" In Python")[0]))


def _sentence(text: str, default: Any) -> str:
    """Text with a capital, but where it begins with a value: the default, or one of a list as in 'cpu, cuda or …'."""
    first = text.partition(" ")[0].rstrip(".,:;")
    is_value = first == str(default) or re.match(r"[\w.-]+(,| \()", text)
    return text if is_value else text[:1].upper() + text[1:]


def _shell_parameter(
    parameter: inspect.Parameter,
    kind: str,
    names: Mapping[str, str],
    said: str,
    values: Callable[[str], list[str]] | None,
) -> inspect.Parameter:
    key, default = parameter.name, parameter.default
    base, metavar = SHELL_TYPES[kind]
    option, text = names[key], _in_the_shell(_sentence(said, default), names)
    if default is None or default == ():
        base, default = base | None, None
    elif default is parameter.empty:
        default = ...
    elif kind in NUMBERS:
        default = ",".join(map(str, default))
    elif base is str:
        default = str(default)
    if option == key:
        return _keyword(key, base, typer.Argument(default, help=text, autocompletion=values))
    if kind == "bool" and default is not False:
        option = f"{option}/--no-{option[2:]}"
    metavar = "A.B=VALUE" if key == "overrides" else metavar
    return _keyword(key, base, typer.Option(default, option, help=text, metavar=metavar, autocompletion=values))


def _keyword(name: str, annotation: Any, info: Any) -> inspect.Parameter:
    """A parameter as typer reads it; an annotation with `Annotated` would take several times as long to make."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def _read(value: Any, kind: str, option: str, parameter: inspect.Parameter) -> Any:
    """What an option holds as the function takes it."""
    if value is None:
        return parameter.default  # () or None
    if kind not in NUMBERS:
        return value
    number, hint = NUMBERS[kind]
    try:
        return tuple(map(number, value.split(",")))
    except ValueError:
        raise InputError(f"{option} '{value}' is not a list of numbers", hint=hint) from None
