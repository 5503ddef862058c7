"""The commands of each page run, in their order, on tiny data, networks and trainings.

Whether a command is understood, with all its options and keys, is tested in every run (tests/docs/test_pages.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofa_pose.cli import run
from ofa_pose.skeleton import BUILT_IN
from ofa_pose.utils.files import dump_yaml, read_yaml, write_text
from tests.cli.conftest import data, net, recipe, supernet  # noqa: F401  (fixtures)
from tests.docs.pages import ROOT, Block, blocks, commands
from tests.formats.slp_files import write_video

SHELL = [block for language in ("", "sh", "bash") for block in blocks(language) if any(commands(block))]
PAGES = dict.fromkeys(block.page for block in SHELL)
NOT_RUN = {  # what begins a command, and where it is run, or why it is not
    "study": "takes minutes also with --quick; tests/cli/test_ablations.py",
    "demo": "takes minutes; tests/test_demo.py",
    "table": "evaluates thousands of subnets; tests/cli/test_studies.py",
    "latency compare": "networks of the paper's sizes; tests/cli/test_latency.py",
    "import-litepose": "needs that repository's files; tests/cli/test_importing.py",
    "eval --checkpoint xs.pt": "the same",
    "export xs.pt": "the same",
    "data convert annotations.xml": "needs CVAT's file; tests/formats/test_cvat.py",
    "data convert labels.slp": "needs SLEAP's file; tests/formats/test_sleap.py",
    "pretrain --recipe photos-small --init mobilenet": "needs torchvision's file; tests/train",
    "search --supernet /poses": "needs a cluster; tests/cli/test_search_processes.py",
    "search --supernet runs/supernet --macs 1.2G --scheduler": "the same",
}
LEARNING = ("train.steps=2", "train.batch=2", "train.workers=0", "train.evaluate_every=2", "train.evaluate_images=2")
SPACE = ("space=tiny.yaml", "data.search_share=0.5")
SEARCHING = tuple(f"search.{key}" for key in ("population=3", "generations=1", "images=2", "calibration_images=2"))


def sets(*overrides: str) -> list[str]:
    """Options that override recipe keys."""
    return [word for override in overrides for word in ("--set", override)]


SMALLER = {  # what is added to a command; of an option that is given twice the last one counts
    "pretrain": sets(*LEARNING, *SPACE, "train.resolutions=[64]"),
    "train-supernet": sets(*LEARNING, *SPACE),
    "finetune": sets(*LEARNING),
    "search": sets(*SEARCHING),
    "fidelity": ["--images", "2,4", "--calibration", "2", "--subnets", "3", "--steps", "0"],
    "data synth": ["--images", "4", "--size", "64", "--workers", "1"],
    "data check": ["--count", "2"],
    "latency build": ["--space", "tiny.yaml", "--rounds", "1", "--share", "0.2"],
    "latency bundle": ["--space", "tiny.yaml", "--nets", "2", "--share", "0.2"],
    "latency verify": ["--nets", "2"],
}
OF_ONE_NAME = {"litepose-s": "tiny-net.yaml", "my-space.yaml": "tiny.yaml", "300M": "3M", "340M": "3M"}


def name_of(words: list[str]) -> str:
    """Which command words call."""
    return " ".join(words[: 2 if words[0] in ("data", "latency") else 1])


@pytest.fixture(scope="module")
def stock(
    data: Path,  # noqa: F811
    recipe: Path,  # noqa: F811
    net: Path,  # noqa: F811
    supernet: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Files that pages name and do not make, by their names there."""
    home = tmp_path_factory.mktemp("stock")
    space, out = data / "tiny.yaml", home / "search"
    found = {"tiny.yaml": space, "my-coco.yaml": recipe, "photo.jpg": next((data / "val" / "images").iterdir())}
    for name, split in (("train", "train"), ("val", "val"), ("test", "val"), ("A", "train"), ("B", "val")):
        found |= {f"{name}.json": data / split / "annotations.json", name: data / split / "images"}
    found |= {"person_keypoints_val2017.json": found["val.json"], "DIR": found["train"], "DIR2": found["val"]}
    found |= dict.fromkeys(("photos", "val2017", "images/val"), found["val"]) | {"images/train": found["train"]}
    found |= {f"runs/{name}": net for name in ("largest", "teacher", "final", "finetuned", "jetson-net")}
    assert run(["search", "--supernet", str(supernet), "--macs", "1G", "--out", str(out), "--device", "cpu"]) == 0
    found |= {"runs/supernet": supernet, "runs/search": out}
    spec = {**read_yaml(out / "best.yaml")["spec"], "resolution": 64}
    write_text(home / "tiny-net.yaml", dump_yaml(spec))
    (home / "data").mkdir()
    for name in ("train.json", "val.json", "train", "val"):
        (home / "data" / name).symlink_to(found[name])
    assert run(["data", "convert", str(home / "data"), "--out", str(home / "yolo"), "--format", "yolo"]) == 0
    found["data.yaml"] = home / "yolo" / "data.yaml"
    measured = ["--space", str(space), "--nets", "2", "--share", "0.2"]
    assert run(["latency", "bundle", *measured, "--out", str(home / "bundle")]) == 0
    subprocess.run([sys.executable, home / "bundle" / "measure.py", "--rounds", "1"], check=True, capture_output=True)
    assert run(["latency", "import", str(home / "bundle" / "results.csv"), "--out", str(home / "table.json")]) == 0
    found |= dict.fromkeys(("here.json", "phone.json", "pi.json", "nano.json", "int8.json"), home / "table.json")
    found |= {"results.csv": home / "bundle" / "results.csv", "bundle": home / "bundle"}
    modules = ROOT / "tests" / "browser" / "node_modules"
    write_video(home / "film.avi", 3)
    found["film.mp4"] = home / "film.avi"  # what a video is, is seen by its contents
    write_text(home / "skeleton.yaml", dump_yaml(BUILT_IN["coco"].to_dict()))
    found |= {"skeleton.yaml": home / "skeleton.yaml", "tiny-net.yaml": home / "tiny-net.yaml", "data": home / "data"}
    return found | ({"node_modules": modules} if modules.exists() else {})


def bring(source: Path, there: Path) -> None:
    """Runs are copied, as commands write into them, and YOLO's data set with its folders; all else is a link."""
    there.parent.mkdir(parents=True, exist_ok=True)
    if there.name == "data.yaml":
        shutil.copytree(source.parent, there.parent, dirs_exist_ok=True)
    elif there.parent.name == "runs":
        shutil.copytree(source, there)
    else:
        there.symlink_to(source)


def prepared(words: list[str], folder: Path, stock: dict[str, Path]) -> list[str]:
    """A command as it is called here; what it reads and was not made before is brought into the folder."""
    words = [OF_ONE_NAME.get(word, word) for word in words] + SMALLER.get(name_of(words), [])
    if "--runtime-files" in words and "node_modules" not in stock:
        at = words.index("--runtime-files")
        words = words[:at] + words[at + 2 :]
    out = words[words.index("--out") + 1] if "--out" in words else None
    read = (
        [] if name_of(words) == "data synth" else [part for word in words for part in (word, word.rpartition("=")[2])]
    )
    for part in read:
        for name, source in stock.items():
            named = (part.rstrip("/") == name and part != out) or part.startswith((f"{name}/", f"{name}:"))
            if named and not (folder / name).exists():
                bring(source, folder / name)
    goes_in = "--resume" in words or name_of(words) in ("export", "eval", "report")
    if out and not goes_in and (folder / out).exists():
        (shutil.rmtree if (folder / out).is_dir() else Path.unlink)(folder / out)
    return words


def calls_of(page: Path) -> Iterator[tuple[Block, list[str]]]:
    """The commands of a page that are run."""
    for block in SHELL:
        if block.page == page:
            for words in commands(block):
                if not " ".join(words).startswith(tuple(NOT_RUN)):
                    yield block, words


def test_what_is_not_run_stands_on_a_page() -> None:
    texts = [" ".join(words) for block in SHELL for words in commands(block)]
    assert all(any(text.startswith(start) for text in texts) for start in NOT_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path,
    stock: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in SHELL:  # YAML files that the page shows
        if block.page == page:
            for shown in blocks("yaml"):
                first = shown.text.partition("\n")[0]
                if shown.page == page and first.startswith("# ") and ".yaml:" in first:
                    (tmp_path / first[2:].partition(":")[0]).write_text(shown.text, encoding="utf-8")
    for block, words in calls_of(page):
        called = prepared(words, tmp_path, stock)
        code = run(called)
        if (
            name_of(called) == "latency bundle"
            and (measure := Path(called[called.index("--out") + 1], "measure.py")).exists()
        ):
            subprocess.run([sys.executable, measure, "--rounds", "1"], check=True, capture_output=True)
        assert code == 0, f"{block}: {' '.join(called)}\n{capfd.readouterr().err[-2000:]}"
