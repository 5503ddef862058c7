"""What all functions of the Python API have in common."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ofa_pose.api.arguments import checked
from ofa_pose.backends.runtimes import BACKENDS, BUNDLES, FORMATS, SUFFIXES, listed
from ofa_pose.utils.errors import FailedElsewhere, InputError, nearest
from ofa_pose.utils.process import MOST_WORKERS, place, sleep_while_waiting

P = ParamSpec("P")
R = TypeVar("R")

SHARED = {  # parameters of several functions, as their docstrings explain them that do not say more
    "out": "run directory to write.",
    "recipe": "a YAML file or a shipped recipe's name.",
    "overrides": "override a recipe key; may be repeated.",
    "resume": "go on where the run in `out` was cut off.",
    "seed": "of everything random (recipe key: seed).",
    "log": "tensorboard (also write event files, into the run's folder tensorboard).",
    "device": "cpu, cuda, cuda:1 …; default: a GPU if any.",
    "init": "checkpoint, run directory or shipped weights, or a file of torchvision's or timm's MobileNetV2 weights; "
    "of other widths what is shared is taken.",
    "supernet": "checkpoint or run directory of a supernet.",
    "macs_convention": "thop (as LitePose's tables), exact or paper.",
    "skeleton": "YAML of a custom skeleton.",
    "space": "search space: a YAML file or a shipped space's name.",
    "joints": "number of keypoints.",
    "share": "measure this share of the pieces, interpolate the rest.",
}
WORDS = {  # what stands in docstrings for the runtimes that there are
    "{backends}": listed(BACKENDS),
    "{bundles}": listed([*BUNDLES, "web"]),
    "{formats}": ", ".join(name for name in FORMATS if name != "onnx"),
    "{suffixes}": listed(SUFFIXES),
}

IN_PYTHON = {  # what stands here for an option of the shell that is not a function's argument
    "quiet": "write 'with ofa_pose.quiet():' around the call",
    "json": "the result's to_dict() is what --json prints",
    "set": "did you mean 'overrides'?",
}


def quiet() -> AbstractContextManager[None]:
    """Show nothing but warnings while calls work, as --quiet does: `with ofa_pose.quiet(): …`."""
    from ofa_pose.utils.console import quiet

    return quiet(but_warnings=True)


def checked_call(function: Callable[P, R]) -> Callable[P, R]:
    """What a function has that is not a command's: a wrong call of it is an InputError."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _bound(function.__name__, signature, args, kwargs)
        return function(**given)  # type: ignore[call-arg]

    return call


def single_process(function: Callable[P, R]) -> Callable[P, R]:
    """What a command's function has. Under torchrun it is refused: each process would do all of the work.

    The run that it writes says the call in its command.txt, in the shell's words. Its docstring is completed: with
    `WORDS`, and with those `SHARED` parameters that its Args leaves out.
    """
    return _command(function, shared=False)


def many_processes(function: Callable[P, R]) -> Callable[P, R]:
    """What a command's function has that shares its work under torchrun; else as `single_process`.

    The first process alone is heard, and each has the same result.
    """
    return _command(function, shared=True)


def _command(function: Callable[P, R], shared: bool) -> Callable[P, R]:
    signature = inspect.signature(function)
    function.__doc__ = _completed(inspect.getdoc(function) or "", signature.parameters)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        from ofa_pose.utils.run_dir import COMMAND_WORDS

        given = _bound(function.__name__, signature, args, kwargs)
        name, (rank, world, _) = function.__name__.replace("_", "-"), place()
        if world > 1 and not shared:
            if rank:
                raise FailedElsewhere(InputError.exit_code)
            what = f"{name} does not share its work, and {world} processes were started"
            raise InputError(what, hint="start it without torchrun; 'ofa-pose search --workers N' starts its own")
        with _joined() if world > 1 else nullcontext():
            if COMMAND_WORDS.get():  # the shell's own, which called this
                return function(**given)  # type: ignore[call-arg]
            before = COMMAND_WORDS.set([name, *_words(given)])
            try:
                return function(**given)  # type: ignore[call-arg]
            finally:
                COMMAND_WORDS.reset(before)

    return call


def _bound(name: str, signature: inspect.Signature, args: Any, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a call gives, by the parameters' names. Raises InputError where the function cannot be called so."""
    for unknown in kwargs:
        if unknown not in signature.parameters:
            hint = IN_PYTHON.get(unknown) or nearest(unknown, signature.parameters)
            raise InputError(f"{name}() has no argument '{unknown}'", hint=hint)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:  # one is missing, given twice, or more are given than there are
        raise InputError(f"{name}(): {error}", hint=f"it takes {', '.join(signature.parameters)}") from None
    annotations = {key: str(parameter.annotation) for key, parameter in signature.parameters.items()}
    return {key: checked(name, key, value, annotations[key]) for key, value in given.items()}


@contextmanager
def _joined() -> Iterator[None]:
    """Be one of the processes that torchrun started; all but the first are silent."""
    sleep_while_waiting()
    from ofa_pose.train.distributed import joined
    from ofa_pose.utils.console import quiet

    with quiet() if place()[0] else nullcontext(), joined():
        yield


def _completed(text: str, parameters: Iterable[str]) -> str:
    for name, word in WORDS.items():
        text = text.replace(name, word)
    left_out = [name for name in parameters if name in SHARED and f"\n    {name}: " not in text]
    return text.replace("Args:\n", "Args:\n" + "".join(f"    {name}: {SHARED[name]}\n" for name in left_out), 1)


def _words(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        option = "--set" if name == "overrides" else f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif isinstance(value, str | Path | int | float):
            yield from (option, str(value))
        elif name == "overrides":
            yield from (word for override in value for word in (option, override))
        elif isinstance(value, Sequence):
            yield from (option, ",".join(map(str, value)))
        elif value is not None:  # a function, which no shell can give
            yield from (option, getattr(value, "__name__", repr(value)))


def check_range(least: float, most: float = math.inf, **options: float | None) -> None:
    """Raise InputError where the value of an option is out of its range; None is in it."""
    for name, value in options.items():
        if value is not None and not least <= value <= most:
            limits = f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")
            fits = isinstance(value, float) or abs(value) < sys.float_info.max
            shown = f"{value:g}" if fits else "of more than 308 digits"
            raise InputError(f"--{name} {shown} is out of range", hint=f"give a number {limits}")


def check_workers(workers: int, scheduler: str | None, executor: object) -> None:
    """Raise InputError where there are no workers, or more than one of these says where work is done."""
    check_range(1, MOST_WORKERS, workers=workers)
    if (workers > 1) + bool(scheduler) + bool(executor) > 1:
        raise InputError("more than one says where to work", hint="give --workers or --scheduler, not both")
