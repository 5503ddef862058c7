"""Write from the code what docs/ holds of commands, recipe keys and functions, and tables of networks and spaces."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import annotated_types
import typer
from pydantic.fields import FieldInfo

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.cli import app
from ofa_pose.cli.commands import read_docstring
from ofa_pose.costs.space_profile import profile_space
from ofa_pose.families.profile import profile_net
from ofa_pose.families.table import all_presets
from ofa_pose.recipe import COMMANDS, Recipe, load_recipe
from ofa_pose.utils.config import Config
from ofa_pose.utils.files import find_yaml, read_yaml
from ofa_pose.utils.numbers import format_count

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHIPPED = ("coco", "nano", "photos-small", "above")
SPACES = ("litepose-nano", "litepose-nano-256", "litepose", "litepose-depth", "litepose-per-block")
JOINTS = 17  # of the networks whose costs are shown
COMMANDS_HEAD = """\
# Commands

<!-- Written by bin/docs from the command line, made of the functions' signatures and docstrings; change those. -->

`ofa-pose COMMAND --help` says the same. Each is [a function](python.md), too. What is printed for people goes to
stderr; with `--json` the result, and only it, goes to stdout. Exit codes: 0 done, 1 the work failed, 2 the call or its
input is wrong, 130, 129 and 143 ended by Ctrl-C, a closed terminal or SIGTERM.
"""
RECIPES_HEAD = f"""\
# Recipes

<!-- Written by bin/docs from the models of the recipe; change those. -->

A recipe is one YAML file for the whole journey. Name a file or a shipped recipe with `--recipe`; `search` and
`finetune` take the supernet's by default. `--set a.b=value` overrides a key, and may be repeated. Unknown keys and
wrong types are refused, with the nearest valid key. Every run keeps its resolved recipe as `recipe.yaml`.

What differs between commands stands under `commands` and is laid over the rest. The commands are
{", ".join(f"`{command}`" for command in COMMANDS)}.

```yaml
train: {{steps: 1000, lr: 2e-3}}
commands:
  finetune:
    train: {{steps: 220, lr: 1e-3}}
```

A dash in the column of a shipped recipe means that it leaves the default as it is.
"""
PYTHON_HEAD = """\
# Python

<!-- Written by bin/docs from the functions' signatures and docstrings; change those. -->

Every command of the shell is a function of `ofa_pose`, with the options as keyword arguments: the same checks, the same
files, the same figures. What it returns has a `to_dict()`, which is what `--json` prints; `with ofa_pose.quiet():` is
what `--quiet` is. A wrong call or input raises `ofa_pose.utils.errors.InputError`, failed work `OfaPoseError`, its
parent. Importing `ofa_pose` is light; torch comes with the first call that needs it.
"""


def sections(model: type[Config], prefix: str = "") -> Iterator[tuple[str, type[Config], dict[str, FieldInfo]]]:
    """Every section of the recipe: its key, its model and its plain fields; those above before those below.

    Sections of one model that stand beside each other, such as data.train and data.val, are one: data.SPLIT.
    """
    yield prefix, model, {name: field for name, field in model.model_fields.items() if not inner(field)}
    below: dict[type[Config], list[str]] = {}
    for name, field in model.model_fields.items():
        if found := inner(field):
            below.setdefault(found, []).append(name)
    for found, names in below.items():
        name = names[0] if len(names) == 1 else "SPLIT"
        yield from sections(found, f"{prefix}.{name}" if prefix else name)


def inner(field: FieldInfo) -> type[Config] | None:
    """The model of a field that is a section of its own."""
    options = [field.annotation, *typing.get_args(field.annotation)]
    return next((one for one in options if inspect.isclass(one) and issubclass(one, Config)), None)


def described(model: type[Config]) -> tuple[str, dict[str, str]]:
    """A model's docstring: its text, and what its Attributes say of each field."""
    text, entries = docstring_of(model)
    said: dict[str, str] = {}
    for entry in entries:
        names, _, meaning = entry.partition(": ")
        said.update((name.strip(), meaning) for name in names.split(","))
    return text, said


def docstring_of(model: type) -> tuple[str, list[str]]:
    """A class's docstring: its text, and the entries of its Attributes, each on one line."""
    text, _, rest = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    entries = re.split(r"^    (?=\w)", rest, flags=re.MULTILINE)
    return text.strip(), [" ".join(entry.split()) for entry in entries if entry.strip()]


def kind(field: FieldInfo) -> str:
    """A field's type and range, in words."""
    names = _type(field.annotation)
    bounds = []
    for one in field.metadata:
        for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
            if (bound := getattr(one, name, None)) is not None:
                bounds.append(f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}")
    return f"{names} {', '.join(bounds)}".strip()


def _type(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        multiple = next((one.multiple_of for one in parts[1:] for one in _metadata(one) if _is_multiple(one)), None)
        return f"{_type(parts[0])}{f' (multiple of {multiple})' if multiple else ''}"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return (
            f"list of {_type(parts[0])}" if parts[-1] is Ellipsis else f"[{', '.join(_type(part) for part in parts)}]"
        )
    if parts:  # a union
        return " or ".join(_type(part) for part in parts if part is not type(None))
    return {str: "text", bool: "true or false", int: "whole number", float: "number"}.get(annotation, str(annotation))


def _metadata(one: Any) -> list[Any]:
    return list(one.metadata) if isinstance(one, FieldInfo) else [one]


def _is_multiple(one: Any) -> bool:
    return isinstance(one, annotated_types.MultipleOf)


def value_of(recipe: Mapping[str, Any], key: str) -> Any:
    """What a recipe file says at a dotted key; None where it says nothing."""
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def shown(value: Any) -> str:
    """A value as YAML would have it, in code marks."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(shown(part).strip('`') for part in value)}]`"
    return f"`{value}`"


def recipes_page() -> str:
    """The reference of recipe keys. Raises ValueError where a key has no description."""
    recipes = {name: read_yaml(find_yaml("recipes", name)) for name in SHIPPED}
    heads = ["key", "type", "default", *SHIPPED, "meaning"]
    parts = [RECIPES_HEAD]
    for section, model, fields in sections(Recipe):
        if not fields:
            continue
        text, attributes = described(model)
        parts.append(f"## {section or 'top level'}\n")
        if section:
            parts.append(f"{text}\n")
        rows = [heads, ["---"] * len(heads)]
        for name, field in fields.items():
            key = f"{section}.{name}" if section else name
            meaning = field.description or attributes.get(name)
            if not meaning:
                raise ValueError(f"the recipe key {key} has no description: give its Field one")
            default = "–" if field.is_required() or field.default is None else shown(field.default)
            given = [shown(value_of(recipe, key)) for recipe in recipes.values()]
            rows.append([f"`{key}`", kind(field), default, *given, meaning.rstrip(".")])
        parts.append(_table(rows) + "\n")
    rows = [["command", *SHIPPED], ["---"] * (1 + len(SHIPPED))]
    for command in COMMANDS:
        given = [_flat((recipe.get("commands") or {}).get(command) or {}) for recipe in recipes.values()]
        rows.append(
            [f"`{command}`", *(", ".join(f"`{key}={shown(v).strip('`')}`" for key, v in one) or "–" for one in given)]
        )
    parts.append("## commands\n\nWhat the shipped recipes lay over the rest for single commands.\n")
    parts.append(_table(rows) + "\n")
    return "\n".join(parts)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, one in value.items():
        found += _flat(one, f"{prefix}{key}.") if isinstance(one, Mapping) else [(f"{prefix}{key}", one)]
    return found


def commands_page() -> str:
    """The reference of the command line."""
    return "\n".join([COMMANDS_HEAD, *(_command(words, one) for words, one in _leaves(typer.main.get_command(app)))])


def _leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    below = getattr(command, "commands", {})
    for word, inner in below.items():
        yield from _leaves(inner, (*words, word))
    if not below:
        yield words, command


def _command(words: tuple[str, ...], command: Any) -> str:
    text, _, example = command.help.replace("\\[", "[").partition("\n\nExample: ")
    example, _, more = example.partition("\n\n")
    parts = [f"## {' '.join(words)}", *(part for part in (text, f"```sh\n{example}\n```", more) if part)]
    rows = [["argument or option", "takes", "default", "meaning"], ["---"] * 4]
    for one in command.params:
        name = one.name.upper() if one.param_type_name == "argument" else ", ".join((*one.opts, *one.secondary_opts))
        kinds = [
            _type(part) for part in typing.get_args(one.type_descriptor.annotation) or (one.type_descriptor.annotation,)
        ]
        named = {"<path>": "path", "<str>": "text"}.get(one.metavar or "", one.metavar or kinds[0])
        takes = "" if getattr(one, "is_flag", False) else named
        takes += ", may be repeated" if one.multiple else ""
        given = "required" if one.required else "" if one.default in (None, False, ()) else f"`{one.default}`"
        meaning = (one.help or "").replace("\\[", "[").replace("|", "\\|")
        rows.append([f"`{name}`", takes, given, meaning])
    return "\n\n".join([*parts, _table(rows)]) + "\n"


def python_page() -> str:
    """The reference of the Python API."""
    names = ["load", *(name for name in ofa_pose.__all__ if name not in ("load", "quiet", "__version__"))]
    return "\n".join([PYTHON_HEAD, *(_function(name, getattr(ofa_pose, name)) for name in names)])


def _function(name: str, function: Any) -> str:
    text, helps = read_docstring(function)
    text = re.sub(r"Example: (ofa-pose [^\n]*)", r"In the shell: `\1`", text)
    rows = [["argument", "type", "default", "meaning"], ["---"] * 4]
    for key, parameter in inspect.signature(function).parameters.items():
        types = " or ".join(part.strip() for part in str(parameter.annotation).split("|") if part.strip() != "None")
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        rows.append(
            [f"`{key}`", f"`{types}`".replace(" or ", "` or `"), default, helps.get(key, "").replace("|", "\\|")]
        )
    return f"## {name}\n\n{text}\n\n{_table(rows)}\n\n{_result(function)}\n"


def _result(function: Any) -> str:
    """What a function returns: the result's docstring, or what the function's own says."""
    annotation = str(inspect.signature(function).return_annotation).removesuffix(" | None")
    module: Any = inspect.getmodule(inspect.unwrap(function))
    imported = re.search(rf"from (\S+) import [^\n]*\b{annotation}\b", inspect.getsource(module))  # for its type alone
    home = importlib.import_module(imported[1]) if imported else module
    result = getattr(home, annotation, None)
    if result is None or not dataclasses.is_dataclass(result):
        return f"Returns `{annotation}`."
    text, entries = docstring_of(result)
    named = "" if entries else f" Fields: {', '.join(f'`{field.name}`' for field in dataclasses.fields(result))}."
    return "\n".join(
        [f"Returns `{annotation}`. {text}{named}", *([""] if entries else []), *(f"* {e}" for e in entries)]
    )


def networks_table() -> str:
    """What all presets cost."""
    rows = [["net", "pixels", "joints", "parameters, M", "exact, G", "thop, G", "paper, G"], ["---"] * 7]
    for name, spec in all_presets().items():
        figures = profile_net(spec, name)
        size = "×".join(dict.fromkeys(map(str, spec.input_size)))
        macs = (f"{figures['macs'][convention] / 1e9:.3f}" for convention in ("exact", "thop", "paper"))
        rows.append([f"`{name}`", size, str(spec.joints), f"{figures['params'] / 1e6:.3f}", *macs])
    return _table(rows)


def spaces_table() -> str:
    """From what to what the subnets of every shipped space cost, at each resolution and in all."""
    rows = [["space", "pixels", "subnets", "MACs (thop)", "exact", "parameters"], ["---"] * 6]
    for name in SPACES:
        space = load_space(name)
        for side in (None, *space.resolution):
            part = profile_space(space if side is None else dataclasses.replace(space, resolution=(side,)), JOINTS)
            subnets = (
                f"{part['subnets']:,}" if part["subnets"] < 1e9 else f"{part['subnets']:.1e}".replace("e+", " × 10^")
            )
            costs = [_ends(part["macs"][one]) for one in ("thop", "exact")]
            costs = [*costs, _ends(part["params"])]
            rows.append([f"`{name}`", "all", subnets, *costs] if side is None else ["", str(side), subnets, *costs])
    return _table(rows)


def _ends(figures: Mapping[str, int]) -> str:
    return f"{format_count(figures['least'])} to {format_count(figures['most'])}"


def recipes_table() -> str:
    """What the shipped recipes train, and how long."""
    heads = ["recipe", "space", "MACs (thop)", "batch", "steps: `pretrain`", "`train-supernet`", "`finetune`"]
    rows = [[*heads, "subnets of a search"], ["---"] * (len(heads) + 1)]
    for name in SHIPPED:
        found = {command: load_recipe(command, name)[0] for command in COMMANDS}
        first, search = found["pretrain"], found["search"].search
        steps = [f"{found[command].train.steps:,}" for command in ("pretrain", "train-supernet", "finetune")]
        macs = _ends(profile_space(load_space(first.space), JOINTS)["macs"]["thop"])
        count = f"{search.population * (1 + search.generations):,}"
        rows.append([f"`{name}`", f"`{first.space}`", macs, str(first.train.batch), *steps, count])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page as it is, with each table anew between the two comments that name it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}: written by bin/docs -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"docs/{page} needs one '{begin}' and one '{end}'")
        text = f"{text.partition(begin)[0]}{begin}\n\n{table()}\n\n{end}{text.partition(end)[2]}"
    return text


PAGES: dict[str, Callable[[], str]] = {  # every page that is written here
    "commands.md": commands_page,
    "recipes.md": recipes_page,
    "python.md": python_page,
    "networks.md": lambda: filled("networks.md", {"networks": networks_table}),
    "budgets.md": lambda: filled("budgets.md", {"spaces": spaces_table, "recipes": recipes_table}),
}


def main() -> int:
    """Write the pages, or with --check compare them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is out of date")
    options = parser.parse_args()
    stale = []
    for name, write in PAGES.items():
        path, text = DOCS / name, write()
        if not options.check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"error: out of date: {', '.join(stale)}; run bin/docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
