"""The command line: `ofa-pose COMMAND`. Commands are thin and import what is heavy only when they run.

Exit codes: 0 done; 1 the work failed; 2 the call or its input is wrong.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from ofa_pose import __version__
from ofa_pose.api import datasets, evaluating, exchanging, profiling, searching, studying, training, watching
from ofa_pose.cli import device_views, views
from ofa_pose.cli.commands import add_command
from ofa_pose.cli.facts import suggest
from ofa_pose.cli.resuming import RESUME, completed
from ofa_pose.utils.console import MOST_CHARACTERS
from ofa_pose.utils.errors import (
    MAP_HINT,
    NOT_MAPPED,
    USED_UP,
    FailedElsewhere,
    InputError,
    OfaPoseError,
    is_memory,
    shortened,
)
from ofa_pose.utils.process import Ending, Interrupted, interruptible, place
from ofa_pose.utils.run_dir import COMMAND_WORDS

HEARD_S = 2.0  # torchrun ends all processes where one has ended, also the one that was about to say why
INTERRUPTED = 130  # what typer makes of Ctrl-C, and of every other `Interrupted` that no command took
LARGE = {  # what of a command's settings takes memory
    **dict.fromkeys(("pretrain", "train-supernet", "finetune"), "train.batch or train.workers"),
    **dict.fromkeys(("table", "fidelity"), "search.batch"),
    "eval": "--batch",
    "predict": "--resolution",
    **dict.fromkeys(("synth", "study"), "--workers"),
    "search": "search.batch or --workers",
}

app = typer.Typer(
    name="ofa-pose",
    help="Once-for-all architecture search for LitePose: data check, pretrain, train-supernet, search, finetune, "
    "eval, export. MACs are in thop's convention unless said otherwise.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"ofa-pose {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


data_app = typer.Typer(help="Make, check and convert datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
add_command(data_app, "synth", datasets.data_synth, ["out"], views.show_synth)
add_command(data_app, "check", datasets.data_check, show_result=views.show_check, after=views.after_check)
add_command(data_app, "convert", datasets.data_convert, ["source"], views.show_conversion, views.after_convert)
add_command(app, "pretrain", training.pretrain, show_result=views.show_training, after=views.after_pretrain)
searched = suggest("search --supernet {out} --macs … --out …")
add_command(app, "train-supernet", training.train_supernet, show_result=views.show_training, after=searched)
add_command(app, "search", searching.search, show_result=views.show_search, after=views.after_search)
add_command(app, "table", searching.table, show_result=views.show_table)
add_command(app, "fidelity", searching.fidelity, show_result=views.show_fidelity)
add_command(app, "study", studying.study, ["ablation"], views.show_study, views.after_study)
used = suggest("eval --checkpoint {out} --annotations … --images …", "export {out} --out …")
add_command(app, "demo", studying.demo, show_result=views.show_demo, after=views.after_demo)
add_command(app, "finetune", training.finetune, show_result=views.show_training, after=used)
add_command(app, "watch", watching.watch, ["run"], views.show_nothing)
add_command(app, "import-litepose", exchanging.import_litepose, ["file"], views.show_import, views.after_import)
add_command(app, "eval", evaluating.evaluate, show_result=views.show_evaluation)
add_command(app, "predict", evaluating.predict, ["source"], views.show_prediction, views.after_predict)
add_command(app, "profile", profiling.profile, ["net"], device_views.show_profile)
add_command(app, "export", exchanging.export, ["checkpoint"], device_views.show_export, device_views.after_export)
add_command(app, "report", searching.report, ["run"], views.show_report)
latency_app = typer.Typer(help="How long networks take: comparisons, and tables that predict it.", no_args_is_help=True)
app.add_typer(latency_app, name="latency")
add_command(latency_app, "build", profiling.latency_build, show_result=device_views.show_table_file)
add_command(latency_app, "verify", profiling.latency_verify, show_result=device_views.show_verification)
add_command(latency_app, "bundle", profiling.latency_bundle, [], device_views.show_bundle, device_views.after_bundle)
add_command(latency_app, "import", profiling.latency_import, ["results"], device_views.show_table_file)
add_command(latency_app, "compare", profiling.latency_compare, ["nets"], device_views.show_comparison)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Each fault of the user's is one line, no traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--help" in words and os.environ.get("RANK", "0") != "0":  # of torchrun's processes the first one shows it
        return 0
    recorded, ending = COMMAND_WORDS.set(words), Ending()
    try:
        if RESUME in words and "--help" not in words:
            with _said_by_the_first(InputError):
                words = completed(words, _program())
            COMMAND_WORDS.set(words)
        with _said_by_the_first(TyperException), _without_warnings(), interruptible() as ending:
            result = _program()(words, prog_name="ofa-pose", standalone_mode=False)
    except FailedElsewhere as error:
        time.sleep(HEARD_S)
        return error.exit_code
    except OfaPoseError as error:
        return _report(str(error), error.exit_code)
    except KeyboardInterrupt as error:  # before typer runs the command, or after
        return _interrupted(error)
    except TyperException as error:
        said = _unknown_option(error, words) or " ".join(error.format_message().split())
        return _report(said + _split_setting(said, words), 2) if said else 2
    except Exception as error:
        if ending.number is not None:  # a library that a signal came into has made another exception of it
            return _interrupted(Interrupted(ending.number))
        if is_memory(error):
            return _report(_no_memory(error, words), 1)
        if isinstance(error, ImportError) and NOT_MAPPED in str(error):
            return _report(f"{error}; {MAP_HINT}", 1)
        if not isinstance(error, OSError):
            raise
        hint = f"; {USED_UP[error.errno]}" if error.errno in USED_UP else ""
        return _report(f"{shortened(str(error.filename or 'the system'))}: {error.strerror or error}{hint}", 1)
    finally:
        COMMAND_WORDS.reset(recorded)
    if result == INTERRUPTED:
        return _interrupted(Interrupted(ending.number or signal.SIGINT))
    return result if isinstance(result, int) else 0


@cache
def _program() -> Any:
    """All commands with their options: typer reads them off the functions, which takes longer than many a command."""
    return get_command(app)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """No warnings of libraries, which speak to who writes programs; `python -W` shows them."""
    if sys.warnoptions:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.warnoptions.append("ignore")  # of the processes that are started meanwhile
        try:
            yield
        finally:
            sys.warnoptions.remove("ignore")


@contextmanager
def _said_by_the_first(error: type[Exception]) -> Iterator[None]:
    """Round what every process of torchrun's finds wrong with the call: all but the first raise FailedElsewhere."""
    try:
        yield
    except error:
        if place()[0]:
            raise FailedElsewhere(InputError.exit_code) from None
        raise


def _unknown_option(error: TyperException, words: Sequence[str]) -> str:
    """A message on an option that the command does not have, with the nearest option or recipe key; else ''."""
    option, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    if not context or not hasattr(error, "possibilities"):
        return ""
    from ofa_pose.recipe import Recipe
    from ofa_pose.utils.config import all_keys

    options = [*context.help_option_names]
    for parameter in context.command.params:
        options += (*parameter.opts, *parameter.secondary_opts)
    meant: dict[str, list[str]] = {}
    if "--set" in options:
        parts = [part for word in words for part in word.split("=", 1)]
        value = next((after for part, after in pairwise(parts) if part == option), "")
        for key in all_keys(Recipe):
            meant.setdefault(key.rpartition(".")[2], []).append(f"--set {key}={shlex.quote(value) if value else '…'}")
    meant |= {one.lstrip("-").replace("-", "_"): [one] for one in options}
    near = get_close_matches(option.lstrip("-").replace("-", "_"), meant, n=1)
    hint = f"did you mean {' or '.join(meant[near[0]])}?" if near else "--help lists them"
    return f"No such option: {option}; {hint}"


def _split_setting(said: str, words: Sequence[str]) -> str:
    """A hint where a word is too many because a --set was split at a blank, or names one key of several; else ''."""
    for option, setting, stray in zip(words, words[1:], words[2:], strict=False):
        if "unexpected extra" in said and option == "--set" and not stray.startswith("-"):
            if re.match(r"[\w.]+=", stray):
                return f"; write --set {shlex.quote(setting)} --set {shlex.quote(stray)}"
            whole = shlex.quote(f"{setting} {stray}") if "=" in setting else f"{setting}={stray}"
            return f"; write --set {whole}"
    return ""


def _no_memory(error: Exception, words: Sequence[str]) -> str:
    said = shortened(str(error)) or type(error).__name__
    lower = next((LARGE[word] for word in words if word in LARGE), "")
    hint = f"lower {lower}, or close other programs" if lower else "close other programs"
    return f"there is not enough memory ({said}); {hint}"


def _interrupted(error: KeyboardInterrupt) -> int:
    known = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
    return _report(str(known), known.exit_code)


def _report(message: str, code: int) -> int:
    with suppress(OSError):  # nobody reads it
        for line in message.splitlines() or [""]:
            print(f"error: {shortened(line, MOST_CHARACTERS)}", file=sys.stderr)
    return code
