"""The documentation is true where a machine can tell: commands and options, links, paths, tables and code."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import ofa_pose
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.cli import app, run
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.space_profile import profile_space
from ofa_pose.searches.archive import ARCHIVE, Archive
from ofa_pose.utils.numbers import format_count
from tests.cli.conftest import data, net, recipe, supernet  # noqa: F401  (fixtures)
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, calls, commands, links, script, spans
from tests.test_floors import FLOORS

COMMAND_LINE: Any = typer.main.get_command(app)
SHELL = [block for language in ("", "sh", "bash") for block in blocks(language)]
PYTHON = blocks("python")
ABOUT_CODE = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / f"{name}.md" for name in ("architecture", "extending"))]
# Options of other programs that the pages name.
OTHERS = {"--nproc-per-node", "--max-restarts", "--no-deps", "--help", "--provider", "--ignore-scripts", "--prefix"}
OTHERS |= {"--install", "--shm-size", "--user"}


def command_of(words: list[str]) -> tuple[str, Any, list[str]]:
    """The command that words of the command line call, its name, and the words that are its own."""
    found, name = COMMAND_LINE, "ofa-pose"
    while hasattr(found, "commands"):
        assert words and words[0] in found.commands, f"no command '{' '.join(words[:1])}' of {name}"
        found, name, words = found.commands[words[0]], f"{name} {words[0]}", words[1:]
    return name, found, words


def all_options() -> set[str]:
    """Every option of every command, and of the scripts in bin and tests/bench."""
    found = set(OTHERS)
    waiting = [COMMAND_LINE]
    for command in waiting:
        waiting += getattr(command, "commands", {}).values()
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    for path in (*(ROOT / "bin").glob("*.py"), *(ROOT / "tests" / "bench").glob("*.py")):
        found |= set(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    return found


def recipe_keys() -> set[str]:
    """Every key of docs/recipes.md."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE))
    return {key.replace("SPLIT", split) for key in keys for split in ("train", "search", "val", "test")}


@pytest.mark.parametrize("block", [block for block in SHELL if any(commands(block))], ids=str)
def test_commands_in_blocks_are_understood(block: Block) -> None:
    for words in commands(block):
        if words == ["--version"]:
            continue
        name, command, own = command_of(words)
        given = command.make_context(name, list(own)).params
        for override in given.get("overrides") or ():
            assert override.partition("=")[0] in recipe_keys(), override


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_and_keys_in_the_text_exist(page: Path) -> None:
    known, keys = all_options(), recipe_keys() | {"a.b"}
    for span in spans(page):
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span))
        words = span.removeprefix("ofa-pose ").split()
        if len(words) > 1 and words[0] in COMMAND_LINE.commands and words[1] != "=":
            _, command, _ = command_of(words)
            known_here = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
            assert named <= known_here, f"{span}: there is no {named - known_here}"
        assert named <= known, f"{span}: there is no {named - known}"
        assert set(re.findall(r"--set ([\w.]+)=", span)) <= keys, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", ABOUT_CODE, ids=lambda page: page.name)
def test_files_that_the_text_names_exist(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(r"[\w./-]+/[\w.-]*|[\w./-]+\.(py|md|cfg|toml|txt|yml)", span):
            places = [root / span for root in (ROOT, ROOT / "ofa_pose")]
            assert any(place.exists() for place in places), f"{span} on {page.name}"


@pytest.mark.parametrize("page", ["commands", "recipes", "python", "budgets"])
def test_what_is_written_from_the_code_is_current(page: str) -> None:
    written = script("docs").PAGES[f"{page}.md"]()
    assert written == (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), "run bin/docs"


@pytest.mark.slow
def test_the_table_of_networks_is_current() -> None:
    """Some of its rows are counted in tests/docs/test_networks.py in every run."""
    assert script("docs").PAGES["networks.md"]() == (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")


def test_the_counts_of_the_first_pages() -> None:
    (block,) = [one for one in blocks("yaml") if one.page.name == "budgets.md"]
    own = profile_space(SearchSpace.from_dict(yaml.safe_load(block.text)), 17)["macs"]["thop"]
    assert f"# tiny-board.yaml: {format_count(own['least'])} to {format_count(own['most'])} MACs (thop)\n" in block.text
    nano = profile_space(load_space("litepose-nano"), 17, Budget(macs=120_000_000))
    inside = f"{nano['budget']['subnets']:,}"
    assert f"Of {nano['subnets']:,} subnets {inside} do." in (ROOT / "docs" / "quickstart.md").read_text(
        encoding="utf-8"
    )
    assert f"# {inside} of {nano['subnets']:,} subnets" in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def leaves(command: Any, name: str = "") -> Iterator[str]:
    """The names of the commands of the command line, as functions of Python would be called."""
    below = getattr(command, "commands", {})
    for word, inner in below.items():
        yield from leaves(inner, f"{name}_{word}".strip("_"))
    if not below:
        yield name.replace("-", "_")


def test_every_command_is_a_function_of_the_python_page() -> None:
    functions = {"evaluate" if name == "eval" else name for name in leaves(COMMAND_LINE)}
    assert functions | {"load"} == anchors(ROOT / "docs" / "python.md") - {"python"}
    assert functions <= set(ofa_pose.__all__)


def test_the_readme_is_the_first_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= set(links(ROOT / "README.md"))


def test_the_demo_has_the_same_figures_on_both_pages() -> None:
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/quickstart.md")]
    first, second = (page[page.index("| net | resolution |") :].split("\n\n")[0] for page in pages)
    assert first == second


def test_the_floors_on_the_page_are_the_floors() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \d+ \| `(\w+)", text, flags=re.MULTILINE)
    assert named == [floor for floor in FLOORS if floor != "__main__"]


def test_the_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE)[0] == "Unreleased"
    assert f"\n## {ofa_pose.__version__}\n" in text


def test_the_public_workflow_runs_the_tests() -> None:
    value = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    (job,) = value["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "bin/test"
    assert {"push", "pull_request"} <= set(value[True])  # YAML 1.1 reads the key 'on' as true


def test_the_small_space_has_as_many_subnets_as_it_says() -> None:
    (block,) = [one for one in blocks("yaml") if one.page.name == "extending.md"]
    size = SearchSpace.from_dict(yaml.safe_load(block.text)).size
    assert size < 100 and f"has {size} subnets" in block.page.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_code_calls_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    for name, call in calls(tree):
        function = getattr(ofa_pose, name)
        if call is not None:
            inspect.signature(function).bind(*call.args, **{word.arg: word.value for word in call.keywords if word.arg})


@pytest.fixture(scope="module")
def exported(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A tiny network as model.onnx."""
    out = tmp_path_factory.mktemp("exported")
    assert run(["export", str(net), "--format", "onnx", "--out", str(out)]) == 0
    return out / "model.onnx"


@pytest.fixture
def journey(data: Path, net: Path, supernet: Path, exported: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A folder in which the pages' files are tiny ones: data, runs, a photo, an exported model."""
    files = {"runs/supernet": supernet, "runs/final": net, "runs/largest": net, "runs/teacher": net}
    files |= {"model.onnx": exported, "photo.jpg": next((data / "val" / "images").iterdir())}
    for split in ("train", "val"):
        files |= {f"{split}.json": data / split / "annotations.json", split: data / split / "images"}
    (tmp_path / "runs" / "search").mkdir(parents=True)
    with Archive(tmp_path / "runs" / "search" / ARCHIVE, {}):
        pass
    for name, target in files.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


def runnable() -> Iterator[Any]:
    """Blocks of code but those that are quoted from docs/recipes, which tests/docs/test_recipes.py runs.

    Of those that search, which takes seconds, the README's is in every run.
    """
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "recipes").glob("*.py")]
    for block in PYTHON:
        if not any(block.text in script for script in scripts):
            slow = "ofa_pose.search(" in block.text and block.page.name != "README.md"
            yield pytest.param(block, marks=[pytest.mark.slow] if slow else [], id=str(block))


@pytest.mark.parametrize("block", runnable())
def test_code_runs(block: Block, journey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(journey)
    (journey / "block.py").write_text(block.text, encoding="utf-8")
    runpy.run_path("block.py")
