"""`--resume` needs no other option than the run's `--out`: what its command.txt says is completed by what is given."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_pose.monitor.run_state import TRAININGS
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import real
from ofa_pose.utils.run_dir import COMMAND, ONLY_IN_PYTHON, has_begun, read_command

RESUME, OUT = "--resume", "--out"
OF_THE_CALL = {RESUME, OUT, "--json", "--quiet", "--help"}  # not taken from the call before
OF_THE_RECIPE = {"--recipe", "--set", "--seed"}  # once a training has begun, its recipe.yaml says what they said

Option = tuple[str, tuple[str, ...]]  # its name, and the words that it was given by


def completed(words: Sequence[str], app: Any) -> list[str]:
    """The words of a call with --resume, and of those that began the run in its --out what it leaves open.

    Words are as they are for a command that keeps no run directory, and where none was begun there.

    Args:
        app: the click group of all commands.

    Raises:
        InputError: no run was begun and the call lacks an option that beginning one takes, the run was begun by another
            command, or from Python with what no shell can give.
    """
    name = words[0] if words else ""
    command: Any = getattr(app, "commands", {}).get(name)
    options = {option: one for one in getattr(command, "params", ()) for option in (*one.opts, *one.secondary_opts)}
    given = list(_options(words[1:], options))
    out = next((_value(shown) for option, shown in given if option == OUT), None)
    if not {RESUME, OUT} <= options.keys() or out is None or not any(option == RESUME for option, _ in given):
        return list(words)
    before = _last_words(Path(out), name)
    if before is None:
        missing = [one.opts[0] for one in command.params if one.required and not {*one.opts} & {o for o, _ in given}]
        if missing:
            what = f"holds no run to go on with, and beginning one needs {', '.join(missing)}"
            raise InputError(what, out, "name a run's folder with --out, or give what is missing")
        return list(words)
    own = {id(options[option]) for option, _ in given if option in options}
    left_out = OF_THE_CALL | (OF_THE_RECIPE if name in TRAININGS and has_begun(Path(out)) else set())
    old = list(_options(before, options))
    place = _place(Path(out), old)
    kept = [
        _moved(shown, place)
        for option, shown in old
        if option in options and option not in left_out and (id(options[option]) not in own or options[option].multiple)
    ]
    return [name, *(word for shown in kept for word in shown), *words[1:]]


def _last_words(out: Path, name: str) -> list[str] | None:
    """What the last call in a run directory was given; None where there was none. Raises InputError."""
    path = out / COMMAND
    lines = read_command(path) if path.is_file() else []
    if not lines:
        return None
    try:
        words = shlex.split(lines[-1])[1:]
    except ValueError:  # cut off when the disk was full
        raise InputError("its last line is damaged", path, "give all options, or correct it") from None
    if words[:1] != [name]:
        raise InputError(f"was begun by '{' '.join(words[:1])}', not by '{name}'", path, "resume it with that command")
    foreign = {f"--{one.replace('_', '-')}" for one in ONLY_IN_PYTHON} & {*words}
    if foreign:
        what = f"was begun from Python with {', '.join(sorted(foreign))}, which no shell can give"
        raise InputError(what, path, "resume it there, with the same call and resume=True")
    return words[1:]


def _options(words: Sequence[str], options: Mapping[str, Any]) -> Iterator[Option]:
    """The options among words, each with those that give it; what is none is left out."""
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name not in options:
            continue
        value = None if equals or options[name].is_flag else next(rest, None)
        yield name, (word,) if value is None else (word, value)


def _value(shown: Sequence[str]) -> str:
    """What an option's words give it, of --out=DIR as of --out DIR."""
    return shown[1] if len(shown) > 1 else shown[0].partition("=")[2]


def _place(out: Path, options: Sequence[Option]) -> Path | None:
    """The folder in which the run was begun, as its --out shows; None where that is the present one, or not known."""
    named = Path(next((_value(shown) for option, shown in options if option == OUT), ""))
    here = real(out)
    if named.is_absolute() or not named.parts or here.parts[-len(named.parts) :] != named.parts:
        return None
    place = Path(*here.parts[: -len(named.parts)])
    return None if place == Path.cwd() else place


def _moved(shown: Sequence[str], place: Path | None) -> Sequence[str]:
    """An option's words with a path of where the run was begun as one from here."""
    if place is None:
        return shown
    whole = _value(shown)
    for value in (whole, whole.partition("=")[2]):  # KEY=VALUE of --set
        if value and not Path(value).is_absolute() and not os.path.exists(value) and (place / value).exists():
            return (*shown[:-1], f"{shown[-1].removesuffix(value)}{place / value}")
    return shown
