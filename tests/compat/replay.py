"""Make calls of the command line in a folder of their own, and tell what they did in a form that can be compared."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ofa_pose.cli import run
from tests.compat.settings import cut_search, write_faults, write_settings, write_video
from tests.compat.shapes import figures, shape, shapes_of_files

# Of the transcript; all but the first begin with world/. What takes seconds for its clock's sake is in 'clock'.
PARTS = ("journey", "models", "old", "refused", "clock")
SOURCE = {"annotations": "annotations.json", "images": "images"}
HERE = Path(__file__).resolve().parent
CALLS = HERE / "calls"
TRANSCRIPT, OLD = HERE / "transcript.json", HERE / "world"
PLACE = "{world}"  # stands for the folder in which the calls are made
SPLITS = [(split, key, name) for split in ("train", "val") for key, name in SOURCE.items()]
SHORT = {
    "{data}": f"--annotations {PLACE}/val/annotations.json --images {PLACE}/val/images",
    # Checkpoints name the data in the folder where they were trained; elsewhere they are named anew.
    "{moved}": " ".join(f"--set data.{split}.{key}={PLACE}/{split}/{name}" for split, key, name in SPLITS),
}
TEXTS, BINARIES = ({".yaml", ".json", ".txt", ".csv"}, {".pt", ".tar", ".onnx", ".sqlite"})
GONE = ("*.png", "bundle", "overlays")  # what world/ does without
FIGURES = ("profile", "data check", "eval", "predict", "import-litepose")  # whose numbers are the same each time
Said = Callable[[], tuple[str, str]]


def keep_world(folder: Path) -> None:
    """Copy what is worth keeping of `folder` to world/: its texts without its name, what is no text compressed."""
    shutil.rmtree(OLD, ignore_errors=True)
    shutil.copytree(folder, OLD, ignore=shutil.ignore_patterns(*GONE))
    for path in sorted(OLD.rglob("*")):
        if path.suffix in TEXTS:
            path.write_text(path.read_text(encoding="utf-8").replace(str(folder), PLACE), encoding="utf-8")
        elif path.suffix in BINARIES:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            path.unlink()


def copy_old_world(folder: Path) -> None:
    """Copy world/, what the old code wrote, into a folder, with its texts naming that folder."""
    shutil.copytree(OLD, folder, dirs_exist_ok=True)
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".gz":
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        if path.suffix in TEXTS and PLACE in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace(PLACE, str(folder)), encoding="utf-8")


def prepare(part: str, folder: Path) -> None:
    """Write into `folder` what the calls of one part of the transcript start from."""
    if part == "journey":
        write_settings(folder)
        return
    copy_old_world(folder)
    made = {"models": write_video, "old": cut_search, "refused": write_faults}
    if part in made:
        made[part](folder)


def read_calls(part: str) -> list[tuple[str, str | None]]:
    """The calls of one part, each with the file or folder that it leaves: one a line, 'words -> what it leaves'."""
    lines = (CALLS / f"{part}.txt").read_text(encoding="utf-8").splitlines()
    return [(words, leaves or None) for words, _, leaves in (line.partition(" -> ") for line in lines)]


def make_call(line: str, folder: Path, said: Said, leaves: str | None = None, fixed: bool = False) -> dict[str, Any]:
    """Make one call; its exit code, the shape of what it prints as JSON, its errors and the shapes of what it leaves.

    Args:
        line: the words; those that begin with 'python' are a process of its own.
        said: gives what was printed on stdout and stderr since it was called last.
        leaves: the file or folder, in `folder`, that the call writes.
        fixed: the call begins with files that are always the same, so that its numbers are told, too.
    """
    whole = line
    for short, meaning in SHORT.items():
        whole = whole.replace(short, meaning)
    words = [word.replace(PLACE, str(folder)) for word in shlex.split(whole)]
    said()
    if words[0] == "python":
        done = subprocess.run(
            [sys.executable, *words[1:]], capture_output=True, text=True, check=False, cwd=HERE.parents[1]
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code = run(words)
        out, err = said()
    printed = json.loads(out) if "--json" in words and out.strip() else None
    told = {
        "call": line,
        "code": code,
        "prints": shape(printed),
        "traceback": "Traceback" in err,
        "errors": [text.replace(str(folder), PLACE) for text in err.splitlines() if text.startswith("error: ")],
    }
    if fixed and line.startswith(FIGURES) and printed is not None:
        told["figures"] = figures(printed)
    if leaves is not None:
        told |= {"leaves": leaves, "files": shapes_of_files(folder / leaves)}
    return told


def write_transcript(parts: dict[str, list[dict[str, Any]]]) -> None:
    """Write what the calls of each part did, one call a line; equal shapes of files stand there once."""
    shapes: list[str] = []
    for call in (call for calls in parts.values() for call in calls if "files" in call):
        texts = {name: json.dumps(told) for name, told in call["files"].items()}
        shapes += sorted(set(texts.values()) - set(shapes))
        call["files"] = {name: shapes.index(text) for name, text in texts.items()}
    lines = {name: [json.dumps(call) for call in calls] for name, calls in parts.items()} | {"shapes": shapes}
    blocks = [f'"{name}": [\n' + ",\n".join(block) + "\n]" for name, block in lines.items()]
    TRANSCRIPT.write_text("{" + ", ".join(blocks) + "}\n", encoding="utf-8")


def read_transcript(part: str) -> list[dict[str, Any]]:
    """What the calls of one part did."""
    transcript = json.loads(TRANSCRIPT.read_text(encoding="utf-8"))
    for call in transcript[part]:
        if "files" in call:
            call["files"] = {name: transcript["shapes"][number] for name, number in call["files"].items()}
    return transcript[part]


def calm() -> None:
    """One thread, as many as tiny networks need."""
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
