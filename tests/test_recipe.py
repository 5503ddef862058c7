"""Recipes: sections for single commands, overrides, and what a checkpoint carries on to the next command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ofa_pose.arch.space import load_space
from ofa_pose.recipe import COMMANDS, load_recipe
from ofa_pose.utils.config import config_text
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import shipped_folder

TEXT = """
space: litepose-nano
seed: 7
train: {steps: 100, lr: 1e-3, batch: 4}
data:
  train: {annotations: a.json, images: i}
commands:
  finetune: {train: {steps: 30, lr: 5e-4}}
  search: {search: {population: 4}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


def test_a_section_applies_to_its_command_only(recipe: Path) -> None:
    loaded = {command: load_recipe(command, recipe)[0] for command in COMMANDS}
    assert {command: value.train.steps for command, value in loaded.items()} == {
        "pretrain": 100,
        "train-supernet": 100,
        "finetune": 30,
        "search": 100,
    }
    assert loaded["finetune"].train.lr == 5e-4 and loaded["pretrain"].train.lr == 1e-3
    assert loaded["finetune"].train.batch == 4, "a section is laid over, it does not replace"
    assert loaded["search"].search.population == 4 and loaded["pretrain"].search.population != 4


def test_overrides_win_over_file_and_section(recipe: Path) -> None:
    overrides = ["train.steps=9", "train.lr=2e-5", "data.val.annotations=v.json", "data.val.images=v"]
    loaded, _ = load_recipe("finetune", recipe, overrides)
    assert (loaded.train.steps, loaded.train.lr, loaded.train.batch) == (9, 2e-5, 4)
    assert loaded.data.val is not None and loaded.data.val.annotations == str(Path("v.json").absolute())
    assert loaded.data.train is not None and loaded.data.train.images == str(Path("i").absolute())


def test_a_carried_recipe_gives_the_next_command_what_the_file_would(recipe: Path) -> None:
    overrides = ["seed=3", "data.train.images=elsewhere"]
    _, carried = load_recipe("train-supernet", recipe, overrides)
    for command in COMMANDS:
        assert load_recipe(command, None, inherited=carried)[0] == load_recipe(command, recipe, overrides)[0]
        assert load_recipe(command, None, inherited=carried)[1] == carried, "carrying it on changes nothing"


def test_an_override_is_carried_on_but_a_section_of_the_next_command_stays(recipe: Path) -> None:
    _, carried = load_recipe("pretrain", recipe, ["train.steps=5"])
    steps = {command: load_recipe(command, None, inherited=carried)[0].train.steps for command in COMMANDS}
    assert steps == {"pretrain": 5, "train-supernet": 5, "search": 5, "finetune": 30}


@pytest.mark.parametrize(
    ("overrides", "calibrate"),
    [
        (["decode.threshold=0.4"], False),
        (["decode={tag_threshold: 2}"], False),
        (["decode.tag_threshold=2", "decode.calibrate=true"], True),
        (["train.steps=1"], True),
    ],
)
def test_a_threshold_that_was_set_is_not_calibrated_then_or_later(
    recipe: Path, overrides: list[str], calibrate: bool
) -> None:
    loaded, carried = load_recipe("pretrain", recipe, overrides)
    later = load_recipe("train-supernet", None, inherited=carried)[0]
    assert loaded.decode.calibrate is later.decode.calibrate is calibrate


def test_loading_does_not_change_what_is_inherited(recipe: Path) -> None:
    _, carried = load_recipe("pretrain", recipe)
    before = repr(carried)
    load_recipe("finetune", None, ["train.steps=1", "data.train.images=x"], carried)
    assert repr(carried) == before


def test_a_resolved_recipe_is_a_recipe(recipe: Path, tmp_path: Path) -> None:
    loaded, _ = load_recipe("finetune", recipe, ["augment.scale=[0.9, 1.1]", "train.resolutions=[64, 96]"])
    (tmp_path / "resolved.yaml").write_text(config_text(loaded))
    assert load_recipe("finetune", tmp_path / "resolved.yaml")[0] == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1", "unknown key 'steps'; did you mean 'train.steps'?"),
        ("batch: 1", "unknown key 'batch'; did you mean 'train.batch' or 'search.batch'?"),
        ("train: {stepz: 1}", "unknown key 'train.stepz'; did you mean 'train.steps'?"),
        ("commands: {finetune: {train: {step: 1}}}", "unknown key 'train.step'; did you mean 'train.steps'?"),
        ("commands: {fine-tune: {}}", "unknown command 'fine-tune' under commands; did you mean 'finetune'?"),
        ("commands: [finetune]", "'commands' holds no mapping"),
        ("commands: {finetune: 3}", "'commands.finetune' holds no mapping"),
        ("commands: {1: {}}", "unknown command '1' under commands"),
        ("- train", "holds no mapping of keys"),
        ("", "holds no mapping of keys"),
        ("train: {lr: fast}", "train.lr: "),
        ("train: {lr: .inf}", "train.lr: "),
        ("train: {resolutions: [100]}", "train.resolutions.0: input should be a multiple of 16"),
        ("train: 3", "train: "),
        ("1: 2", "1: "),
    ],
)
def test_faults_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_recipe("pretrain", path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_override_is_reported_as_one(recipe: Path) -> None:
    with pytest.raises(
        InputError, match=r"^--set train.stepz=3: unknown key .train\.stepz.; did you mean .train\.steps"
    ):
        load_recipe("pretrain", recipe, ["seed=3", "train.stepz=3", "train.lr=1"])
    with pytest.raises(InputError, match=r"^the seed is -1; give 0 or more$"):
        load_recipe("pretrain", recipe, seed=-1)
    with pytest.raises(InputError, match=r"^the seed is 9223372036854775808; give at most 9223372036854775807$"):
        load_recipe("pretrain", recipe, seed=2**63)
    with pytest.raises(InputError, match="seed"):
        load_recipe("pretrain", recipe, ["seed=9223372036854775808"])


def test_without_a_recipe_the_hint_is_named() -> None:
    with pytest.raises(InputError, match="no recipe; add --recipe"):
        load_recipe("pretrain", None)


def test_empty_sections_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\ncommands:\n  finetune:\n")
    assert load_recipe("finetune", tmp_path / "a.yaml")[0].seed == 1


SHIPPED: list[Any] = sorted(path.stem for path in shipped_folder("recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("command", COMMANDS)
def test_shipped_recipes_load_for_every_command(name: str, command: str) -> None:
    recipe, carried = load_recipe(command, name)
    space = load_space(recipe.space)
    for side in recipe.train.resolutions or ():
        assert side <= max(space.resolution)
    assert load_recipe(command, None, inherited=carried)[0] == recipe


def test_recipes_are_shipped() -> None:
    assert SHIPPED


def test_files_are_kept_by_absolute_paths(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_space.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    overrides = ["data.val.annotations=v.json", "data.val.images=v", "space=mine_space.yaml"]
    loaded, carried = load_recipe("finetune", recipe, overrides)
    assert carried["data"]["val"] == {"annotations": str(tmp_path / "v.json"), "images": str(tmp_path / "v")}
    assert loaded.space == carried["space"] == str(tmp_path / "mine_space.yaml")
    assert load_recipe("finetune", recipe, ["space=litepose"])[0].space == "litepose"


@pytest.mark.parametrize(
    "override",
    [
        "train.batch=1000000000000",
        "train.workers=1000000",
        "train.steps=100000000000000",
        "train.resolutions=[1000000]",
        "train.accumulate=1000000000",
        "loss.sigma=1e300",
        "train.evaluate_images=10000000000",
        "train.keep=1001",
        "search.images=10000000000",
        "search.calibration_images=10000000000",
        "decode.threshold=1e9",
        "decode.reach=1e9",
        "augment.scale=[1e300, 1e301]",
        "search.population=1000000000000",
        "search.generations=1000000000000",
        "search.batch=1000000000000",
    ],
)
def test_a_setting_that_nothing_could_compute_is_refused_with_what_is_possible(override: str) -> None:
    key = override.partition("=")[0].replace("augment.", "augment: ")
    with pytest.raises(InputError, match=rf"{key}.*(less than or equal to|from 0.01 to) \d+"):
        load_recipe("search", "nano", [override])
