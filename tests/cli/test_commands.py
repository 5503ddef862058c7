"""Commands made of functions: options, values, defaults and help follow from signatures and docstrings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from ofa_pose.cli import app as whole_app
from ofa_pose.cli import run
from ofa_pose.cli.commands import add_command, read_docstring
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.result import Result


@dataclass(frozen=True)
class Given(Result):
    """What a toy command was called with."""

    values: dict[str, Any]


def every_kind(
    source: str | Path,
    out: str | Path,
    count: int | str | None = None,
    images: int = 100,
    share: float = 0.5,
    joints: str = "coco",
    device: str | None = None,
    numbers: Sequence[int] = (50, 100),
    scales: Sequence[float] | None = None,
    overrides: Sequence[str] = (),
    formats: Sequence[str] | None = None,
    resume: bool = False,
    flip: bool = True,
    surrogate: bool | None = None,
) -> Given:
    """Call me with
    everything [not markup].

    Another paragraph, about `out` and `source` and `latency build`.

    Example: ofa-pose toy a.json
        --out b

    Args:
        source: where it comes from.
        out: folder to write; pip install 'ofa-pose[ncnn]' writes more.
        count: so many: 1.2G.
        images, joints: coco (17) or as many as `out`
            holds: any number.
        share: of `images`, from 0 to 1.
        device: cpu, cuda, cuda:1 … In Python also a
            `torch.device`.
        numbers: numbers of images.
        scales: also average with these sizes, times the resolution.
        overrides: override a recipe key; may be repeated.
        formats: yaml, onnx (both by default), ncnn.
        resume: go on where `out` was cut off.
        flip: average with the mirrored image.
        surrogate: a model chooses.

    Returns:
        What was given.

    Raises:
        InputError: never.
    """
    return Given(dict(locals()))


def app_of(function: Callable[..., Any], **more: Any) -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    add_command(app, "toy", function, **more)
    return app


def call_toy(capfd: pytest.CaptureFixture[str], *words: str, **more: Any) -> dict[str, Any]:
    app_of(every_kind, arguments=("source",), **more)(
        ["toy", "a", "--out", "b", "--json", *words], standalone_mode=False
    )
    return json.loads(capfd.readouterr().out)["values"]


def option(app: typer.Typer, name: str) -> Any:
    """An option or argument of the toy command."""
    return next(one for one in get_command(app).commands["toy"].params if one.name == name)  # type: ignore[attr-defined]


def test_what_is_not_given_is_the_functions_own_default(capfd: pytest.CaptureFixture[str]) -> None:
    assert call_toy(capfd) == every_kind("a", "b").to_dict()["values"]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--count", "1.2G"), "count", "1.2G"),
        (("--images", "7"), "images", 7),
        (("--share", "1"), "share", 1.0),
        (("--numbers", "5,60"), "numbers", [5, 60]),
        (("--numbers", "5"), "numbers", [5]),
        (("--scales", "0.75,1.5"), "scales", [0.75, 1.5]),
        (("--set", "a.b=1", "--set", "c=[1, 2]"), "overrides", ["a.b=1", "c=[1, 2]"]),
        (("--format", "onnx", "--format", "ncnn"), "formats", ["onnx", "ncnn"]),
        (("--resume",), "resume", True),
        (("--flip",), "flip", True),
        (("--no-flip",), "flip", False),
        (("--surrogate",), "surrogate", True),
        (("--no-surrogate",), "surrogate", False),
        (("--device", ""), "device", ""),
    ],
)
def test_values_arrive_as_the_function_takes_them(
    capfd: pytest.CaptureFixture[str], words: tuple[str, ...], name: str, value: Any
) -> None:
    given = call_toy(capfd, *words)
    assert given == {**every_kind("a", "b").to_dict()["values"], name: value}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--numbers", "5,many"), "--numbers '5,many' is not a list of numbers; write whole numbers as in 50,100"),
        (("--numbers", "5,"), "--numbers '5,' is not a list of numbers"),
        (("--numbers", "1.5"), "--numbers '1.5' is not a list of numbers"),
        (("--scales", "x"), "--scales 'x' is not a list of numbers; write numbers as in 0.75,1.5"),
    ],
)
def test_wrong_lists_of_numbers(capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as error:
        call_toy(capfd, *words)
    assert message in str(error.value)


def test_options_are_called_as_one_says() -> None:
    app = app_of(every_kind)
    assert (option(app, "flip").opts, option(app, "flip").secondary_opts) == (["--flip"], ["--no-flip"])
    assert (option(app, "resume").opts, option(app, "resume").secondary_opts) == (["--resume"], [])
    assert option(app, "overrides").opts == ["--set"]
    assert option(app, "source").opts == ["--source"] and option(app, "source").required
    assert not option(app, "flip").required and option(app, "surrogate").default is None
    assert option(app_of(every_kind, arguments=("source",)), "source").opts == ["source"]


def test_help_is_the_docstring() -> None:
    app = app_of(every_kind, arguments=("source",))
    text = get_command(app).commands["toy"].help  # type: ignore[attr-defined]
    assert text == (
        r"Call me with everything \[not markup]."
        "\n\nAnother paragraph, about --out and source and `latency build`.\n\nExample: ofa-pose toy a.json --out b"
    )
    helps = {one.name: one.help for one in get_command(app).commands["toy"].params if one.name != "help"}  # type: ignore[attr-defined]
    assert helps["source"] == "Where it comes from."
    assert helps["out"] == r"Folder to write; pip install 'ofa-pose\[ncnn]' writes more."
    assert helps["joints"] == "coco (17) or as many as --out holds: any number." == helps["images"]
    assert helps["share"] == "Of --images, from 0 to 1."
    assert (helps["device"], helps["formats"]) == ("cpu, cuda, cuda:1 …", "yaml, onnx (both by default), ncnn.")
    assert helps["resume"] == "Go on where --out was cut off." and helps["as_json"]


def test_some_parameters_are_for_python_only(capfd: pytest.CaptureFixture[str]) -> None:
    def trained(out: str, objective: Callable[[], float] | None = None) -> Given:
        """Example: ofa-pose toy

        Args:
            out: folder.
            objective: what is made smaller.
        """
        return Given(dict(locals()))

    app = app_of(trained)
    assert {one.name for one in get_command(app).commands["toy"].params} == {"out", "as_json", "hushed"}  # type: ignore[attr-defined]
    app(["toy", "--out", "a", "--json"], standalone_mode=False)
    assert json.loads(capfd.readouterr().out) == {"values": {"out": "a", "objective": None}}


def test_a_default_value_is_not_written_with_a_capital() -> None:
    def metric(metric: str = "coco", near: str = "cocoa") -> None:
        """Example: ofa-pose toy

        Args:
            metric: coco or crowdpose.
            near: coco or crowdpose.
        """

    app = app_of(metric)
    assert (option(app, "metric").help, option(app, "near").help) == ("coco or crowdpose.", "Coco or crowdpose.")


def test_a_docstring_without_sections() -> None:
    def nothing() -> None:
        """Do nothing.

        Raises:
            InputError: always.
        """

    assert read_docstring(nothing) == ("Do nothing.", {})


def test_parameters_without_help_and_help_without_parameter_are_programming_errors() -> None:
    def lacks(out: str, size: int = 1) -> None:
        """Example: ofa-pose toy

        Args:
            out: folder.
        """

    def names_another(out: str) -> None:
        """Example: ofa-pose toy

        Args:
            ouT: folder.
        """

    def takes_anything(out: Callable[[], None]) -> None:
        """Example: ofa-pose toy

        Args:
            out: called.
        """

    for function, message in (
        (lacks, r"lacks: Args explains \['out'\], it takes \['out', 'size'\]"),
        (names_another, r"names_another: Args explains \['ouT'\], it takes \['out'\]"),
        (takes_anything, r"takes_anything: the command line knows no out of type Callable\[\[\], None\]"),
    ):
        with pytest.raises(AssertionError, match=message):
            app_of(function)


def test_results_are_shown_as_asked_and_hints_come_after(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    def after(result: Given, values: Any) -> None:
        seen.append((result.values["images"], values["numbers"], values["overrides"], values["formats"]))

    words = ["toy", "--source", "a", "--out", "b", "--images", "3"]
    app_of(every_kind, after=after)(words, standalone_mode=False)
    assert "'images': 3" in capfd.readouterr().err
    app_of(every_kind, show_result=seen.append, after=after)(words, standalone_mode=False)
    assert capfd.readouterr() == ("", "")
    assert seen == [(3, (50, 100), (), None), every_kind("a", "b", images=3), (3, (50, 100), (), None)]


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of ofa-pose with the words that call it."""
    for name, command in (group or get_command(whole_app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_every_command(path: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*path, "-h"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(" ".join(lines).replace("│", " ").split())
    assert f"Example: ofa-pose {' '.join(path)} " in shown
    for one in COMMANDS[path].params:
        assert one.help, f"{one.name} of {path} has no help"
        for name in one.opts + one.secondary_opts:
            assert {name, f"{name}..."} & {*shown.split()}, f"{name} of {path} is cut"  # several of an argument: dots
        for word in re.sub(r"\\(?=\[)", "", one.help).split():
            assert word in shown.split(), f"'{word}' of {path}'s {one.name} is cut"


def test_values_keep_their_small_letters() -> None:
    values = {"coco", "crowdpose", "cpu", "cuda", "onnx", "ncnn", "openvino", "torch", "onnxruntime", "thop", "yaml"}
    values |= {"evolution", "nsga2", "ours", "reference"}
    for path, command in COMMANDS.items():
        for one in command.params:
            first = re.split(r"\W", one.help)[0]
            assert first not in {value.capitalize() for value in values}, f"{one.name} of {path}: {one.help}"
