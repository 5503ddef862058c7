"""The kinds of input: what is damaged, and what is called with it."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

import ofa_pose
from ofa_pose.api.searching import read_budget
from ofa_pose.arch.space import load_space
from ofa_pose.cli import run
from ofa_pose.costs.feasible import FeasibleSpace, describe_feasible
from ofa_pose.costs.limits import Budget
from ofa_pose.latency.pieces import table_subjects
from ofa_pose.searches.archive import Archive
from ofa_pose.studies.ablation import Ablation, StudyData
from ofa_pose.studies.ablation_study import AblationStudy
from ofa_pose.studies.classify import classify
from ofa_pose.train.training_run import TrainingRun
from ofa_pose.utils.files import STUDIES, dump_yaml, shipped_folder
from tests.fuzz.mutate import JUNK, damaged_bytes, damaged_text, damaged_zip, junk, mutated
from tests.fuzz.seeds import BASIS, SPACE, search_job

STUDY_COMMANDS = {
    "pretrain": ofa_pose.pretrain,
    "train-supernet": ofa_pose.train_supernet,
    "search": ofa_pose.search,
    "finetune": ofa_pose.finetune,
    "classify": classify,
}
TREES = {".json", ".yaml"}
TEXTS = {".json", ".yaml", ".xml", ".csv", ".txt", ".jsonl", ".param"}


@dataclass(frozen=True)
class Case:
    """One input: what is called with it, and that in words."""

    shown: str
    call: Callable[[], Any]


Build = Callable[[Path, Path, Random], Case]  # from the folder of valid inputs into a new folder


def command(*words: object) -> Case:
    """A call of the command line."""
    texts = [str(word) for word in words]
    return Case(f"ofa-pose {' '.join(texts)}", lambda: run(texts))


def damage(path: Path, rng: Random) -> None:
    """Damage a file in place, as its suffix suggests."""
    tree = path.suffix in TREES and rng.random() < 0.75
    if tree:
        text = path.read_text(encoding="utf-8")
        value = mutated(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text), rng)
        path.write_bytes(_written(value, path.suffix))
    elif path.suffix in TEXTS and rng.random() < 0.9:
        path.write_bytes(damaged_text(path.read_text(encoding="utf-8"), rng))
    else:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))


def _written(value: Any, suffix: str) -> bytes:
    try:
        text = json.dumps(value) if suffix == ".json" else dump_yaml(value)
    except (RecursionError, yaml.YAMLError, ValueError):  # too deep for Python to write
        text = "[" * 1000
    return text.encode("utf-8", "surrogatepass")


def copied(source: Path, folder: Path) -> Path:
    """A copy of a file or a folder that may be damaged."""
    if source.is_dir():
        return Path(shutil.copytree(source, folder / source.name))
    return Path(shutil.copy(source, folder))


def damaged_copy(source: Path, folder: Path, rng: Random) -> Path:
    """A damaged copy of a file."""
    path = copied(source, folder)
    damage(path, rng)
    return path


def annotations(seeds: Path, folder: Path, rng: Random) -> Case:
    path, images = damaged_copy(seeds / "val" / "annotations.json", folder, rng), seeds / "val" / "images"
    return rng.choice(
        (
            command("data", "check", "--annotations", path, "--images", images, "--pictures", folder / "labels.html"),
            command("eval", "--annotations", path, "--results", seeds / "results.json"),
            command("data", "convert", path, "--images", images, "--format", "yolo", "--out", folder / "out"),
            command(
                "eval", "--annotations", path, "--images", images, "--checkpoint", seeds / "net", "--device", "cpu"
            ),
        )
    )


def formats(seeds: Path, folder: Path, rng: Random) -> Case:
    source = copied(rng.choice(sorted((seeds / "formats").iterdir())), folder)
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and file.suffix != ".png"]
    if not files:  # SLEAP's, where nothing is there to write them
        files = sorted(source.rglob("*.png"))
    path = rng.choice(files)
    damage(path, rng)
    named = rng.choice((source, path))
    if source.is_dir() and rng.random() < 0.2:
        named = Path(shutil.make_archive(str(source), "zip", source))
        named.write_bytes(rng.choice((damaged_bytes, damaged_zip, lambda content, _: content))(named.read_bytes(), rng))
    return command("data", "convert", named, "--out", folder / "out")


def results(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(seeds / "results.json", folder, rng)
    more = ["--breakdown"] if rng.random() < 0.2 else []
    return command("eval", "--annotations", seeds / "val" / "annotations.json", "--results", path, *more)


SETTINGS = ["train.lr=1e-3", "seed=3", "space=litepose", "data.val.images=a", "search.images=20", "augment.flip=0"]
SETTINGS += ["data.train={annotations: a, images: b}", "train.resolutions=[64, 96]", "commands.search={seed: 1}"]


def recipes(seeds: Path, folder: Path, rng: Random) -> Case:
    path = folder / "recipe.yaml"
    shutil.copy(seeds / "recipe.yaml", path)
    overrides = []
    if rng.random() < 0.7:
        damage(path, rng)
    for _ in range(rng.randint(0, 2)):
        overrides.append(damaged_text(rng.choice(SETTINGS), rng).decode("utf-8", "replace")[:200_000])
    name = rng.choice(("pretrain", "train-supernet", "finetune"))

    def prepare() -> None:
        TrainingRun.prepare(name, None, folder / "out", path, overrides, device="cpu")

    return Case(f"TrainingRun.prepare({name!r}, …, {str(path)!r}, {overrides!r:.3000})", prepare)


def spaces(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(seeds / "space.yaml", folder, rng)

    def use() -> None:
        space = load_space(path)
        feasible = FeasibleSpace(space, 14, Budget.parse(rng.choice(("1G", "3M")), None, "thop"))
        describe_feasible(feasible)
        table_subjects(space, 14, 0.3)

    return Case(f"load_space({str(path)!r}), its FeasibleSpace, its table_subjects", use)


def subnets(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(seeds / rng.choice(("spec.yaml", "litepose.json")), folder, rng)
    out = folder / "out"
    finetune = ("finetune", "--subnet", path, "--supernet", seeds / "supernet", "--out", out, "--device", "cpu")
    again = ("pretrain", "--recipe", seeds / "recipe.yaml", "--net", path, "--out", out, "--device", "cpu")
    plain = ("profile", path)
    return command(*rng.choice((plain, plain, plain, plain, finetune, again)))


def networks(seeds: Path, folder: Path, rng: Random) -> Case:
    return command("profile", damaged_copy(rng.choice(sorted((seeds / "families").iterdir())), folder, rng))


def studies(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(rng.choice(sorted(shipped_folder(STUDIES).glob("*.yaml"))), folder, rng)

    def use() -> None:
        study = Ablation.load(path, STUDY_COMMANDS, quick=rng.random() < 0.5)
        study.write_nets(folder / "nets")
        AblationStudy("fuzz", study, STUDY_COMMANDS, ofa_pose.evaluate).tasks(folder / "out", StudyData())

    return Case(f"the calls of the study {str(path)!r}", use)


def skeletons(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(seeds / "skeleton.yaml", folder, rng)
    truth = ("--annotations", seeds / "val" / "annotations.json")
    check = ("data", "check", *truth, "--images", seeds / "val" / "images", "--skeleton", path)
    evaluated = ("eval", *truth, "--results", seeds / "results.json", "--skeleton", path)
    return command(*rng.choice((check, evaluated)))


def checkpoints(seeds: Path, folder: Path, rng: Random) -> Case:
    kind = rng.choice(("net", "supernet"))
    run_folder = copied(seeds / kind, folder)
    _damage_pickle(run_folder / "checkpoints" / "last.pt", rng)
    shutil.copy(run_folder / "checkpoints" / "last.pt", run_folder / "checkpoints" / "best.pt")
    last, data = run_folder / "checkpoints" / "last.pt", seeds / "val"
    trains = "pretrain" if kind == "net" else "train-supernet"
    where = ("--annotations", data / "annotations.json", "--images", data / "images", "--device", "cpu")
    return command(
        *rng.choice(
            (
                (trains, "--recipe", seeds / "recipe.yaml", "--out", run_folder, "--resume", "--device", "cpu"),
                (trains, "--recipe", seeds / "recipe.yaml", "--out", run_folder, "--resume", "--device", "cpu"),
                ("eval", "--checkpoint", last, *where),
                ("export", last, "--format", "yaml", "--format", "onnx", "--out", folder / "out"),
                ("profile", last),
                ("pretrain", "--init", last, "--out", folder / "out", "--device", "cpu"),
                ("search", "--supernet", last, "--macs", "1k", "--out", folder / "out", "--device", "cpu"),
            )
        )
    )


def _damage_pickle(path: Path, rng: Random) -> None:
    if rng.random() < 0.15:
        path.write_bytes(rng.choice((damaged_bytes, damaged_zip))(path.read_bytes(), rng))
        return
    value = torch.load(path, weights_only=True)
    if isinstance(value, dict) and rng.random() < 0.9:
        value.pop("digest", None)  # which would tell at once
    if rng.random() < 0.5:
        value = mutated(value, rng)
    else:
        _damage_tensor(value, rng)
    content = io.BytesIO()
    try:
        torch.save(value, content)
    except Exception:  # too deep for pickle, a text that is none
        content.write(b"x")
    path.write_bytes(content.getvalue())


def _damage_tensor(value: Any, rng: Random) -> None:
    """Exchange a tensor, or what is deep inside, for another."""
    holders = [value]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [one for one in inner if isinstance(one, dict | list) and one]
    holder = rng.choice([one for one in holders if one])
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    old = holder[key]
    if not isinstance(old, Tensor):
        holder[key] = junk(rng, old)
        return
    makers: tuple[Callable[[], Any], ...] = (
        lambda: old[None],
        lambda: old.reshape(-1)[:1],
        lambda: old.reshape(-1),
        lambda: torch.empty(0),
        lambda: old.to(torch.float16),
        lambda: old.to(torch.complex64),
        lambda: old.to(torch.int64),
        lambda: old.to(torch.bool),
        lambda: old * float("nan"),
        lambda: old * float("inf"),
        lambda: old * 1e30,
        lambda: old.to_sparse(),
        lambda: torch.zeros(1).expand(100_000, 100_000),
        lambda: old.to("meta"),
        lambda: old.tolist(),
        lambda: junk(rng),
    )
    holder[key] = rng.choice(makers)()


def tables(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(seeds / "latency.json", folder, rng)

    def use() -> None:
        budget = read_budget(SPACE, 14, latency="3ms", latency_table=path)
        FeasibleSpace(SPACE, 14, budget).draw(1, np.random.default_rng(0))

    return Case(f"read_budget(…, latency_table={str(path)!r}), its FeasibleSpace", use)


def bundles(seeds: Path, folder: Path, rng: Random) -> Case:
    path = copied(seeds / "results.csv", folder)
    first, _, rows = path.read_text().partition("\n")
    if rng.random() < 0.5:
        header = json.dumps(mutated(json.loads(first[2:]), rng))
        path.write_text(f"# {header}\n{rows}", errors="surrogatepass")
    else:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    return command("latency", "import", path, "--out", folder / "table.json")


def archives(seeds: Path, folder: Path, rng: Random) -> Case:
    path = copied(seeds / "search" / "archive.sqlite", folder)
    if rng.random() < 0.2:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    else:
        _damage_rows(path, rng)
    if rng.random() < 0.1:
        return Case(f"SearchJob.run(…, archive={str(path)!r})", lambda: search_job().run(folder / "out", archive=path))

    def read() -> None:
        with Archive(path, BASIS) as archive:
            known = archive.until(archive.last, SPACE)
            archive.outcomes(genome for genome, _ in known)

    return Case(f"Archive({str(path)!r}, …), its until and its outcomes", read)


def _damage_rows(path: Path, rng: Random) -> None:
    """Cells of other types, rows and columns that are gone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        columns = [row[1] for row in file.execute("PRAGMA table_info(evaluations)")]
        rows = [row[0] for row in file.execute("SELECT id FROM evaluations")]
        for _ in range(rng.randint(1, 3)):
            column, row = rng.choice((*columns, "genome", "AP", "seconds")), rng.choice(rows)
            value = rng.choice([b"\0\xff", b"", "0-0", "-", "0-1-x", "9-" * 20, "1" * 5000, *JUNK])
            try:
                kind = rng.random()
                if kind < 0.8:
                    file.execute(f"UPDATE evaluations SET {column} = ? WHERE id = ?", (value, row))
                elif kind < 0.9:
                    file.execute(f"UPDATE evaluations SET {column} = ?", (value,))
                elif kind < 0.95:
                    file.execute(f"ALTER TABLE evaluations RENAME COLUMN {column} TO other")
                else:
                    file.execute(rng.choice(("DROP TABLE bases", "DELETE FROM evaluations", "DROP TABLE evaluations")))
            except (sqlite3.Error, OverflowError, UnicodeEncodeError):  # what the schema forbids, and no cell can hold
                continue


def images(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(rng.choice(sorted((seeds / "images").iterdir())), folder, rng)
    return command("predict", path, "--checkpoint", seeds / "net", "--out", folder / "out", "--device", "cpu")


def videos(seeds: Path, folder: Path, rng: Random) -> Case:
    path = damaged_copy(rng.choice(sorted((seeds / "videos").iterdir())), folder, rng)
    return command("predict", path, "--checkpoint", seeds / "net", "--out", folder / "out", "--device", "cpu")


def exported(seeds: Path, folder: Path, rng: Random) -> Case:
    source = copied(rng.choice(sorted((seeds / "exported").iterdir())), folder)
    path = rng.choice(sorted(source.iterdir()))
    if path.suffix == ".onnx" and rng.random() < 0.6:
        _damage_onnx(path, rng)
    else:
        damage(path, rng)
    (model,) = (file for file in source.iterdir() if file.suffix in (".onnx", ".xml", ".param", ".tflite"))
    return command("predict", seeds / "images" / "0.png", "--checkpoint", model, "--out", folder / "out")


def _damage_onnx(path: Path, rng: Random) -> None:
    """Metadata of other contents, nodes and weights that are gone or others."""
    import onnx

    model = onnx.load(path)
    kind = rng.choice(("metadata", "metadata", "metadata", "node", "weights", "outputs"))
    if kind == "metadata":
        entry = rng.choice(model.metadata_props)
        try:
            entry.value = json.dumps(mutated(json.loads(entry.value), rng))
        except (ValueError, RecursionError):
            entry.value = "[" * 5000
    else:
        graph = model.graph
        parts = {"node": graph.node, "weights": graph.initializer, "outputs": graph.output}[kind]
        if rng.random() < 0.5:
            del parts[rng.randrange(len(parts))]
        else:
            parts[rng.randrange(len(parts))].CopyFrom(parts[rng.randrange(len(parts))])
    path.write_bytes(model.SerializeToString())


def litepose(seeds: Path, folder: Path, rng: Random) -> Case:
    path = copied(seeds / "litepose.pth.tar", folder)
    arch = seeds / "litepose.json"
    if rng.random() < 0.2:
        arch = damaged_copy(arch, folder, rng)
    else:
        _damage_pickle(path, rng)
    return command("import-litepose", path, "--arch", arch, "--joints", 14, "--out", folder / "out.pt")


def runs(seeds: Path, folder: Path, rng: Random) -> Case:
    source = copied(seeds / rng.choice(("net", "search", "search")), folder)
    kept = ("archive.sqlite", "pareto.png")
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and file.name not in kept]
    for path in rng.sample(files, rng.randint(1, 2)):
        if path.suffix == ".pt":
            _damage_pickle(path, rng)
        else:
            damage(path, rng)
    return command("report", source, "--out", folder / "report.html")


KINDS: dict[str, Build] = {
    function.__name__: function
    for function in (
        annotations,
        formats,
        results,
        recipes,
        spaces,
        subnets,
        networks,
        studies,
        skeletons,
        checkpoints,
        tables,
        bundles,
        archives,
        images,
        videos,
        exported,
        litepose,
        runs,
    )
}
