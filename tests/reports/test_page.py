"""The page: whole by itself, true to the files, and there for half a run too."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.reports.page import write_report
from ofa_pose.reports.runs import read_run
from ofa_pose.reports.search_section import read_search
from ofa_pose.searches.job import SearchJob
from ofa_pose.skeleton import CROWDPOSE
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import dump_yaml, read_json, read_yaml, write_json
from tests.reports.test_runs import make_run

VOID = {"meta", "img", "br", "use", "path", "rect", "input"}
METRICS = '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 2, "val": {"AP": 0.125}}\n'


class Balanced(HTMLParser):
    """Collects tags that are opened and never closed, or closed and never opened, and all that is linked."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def read(path: Path) -> str:
    """A page, checked: tags match, and nothing is loaded from elsewhere."""
    text = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text)
    assert (parser.open, parser.faults) == ([], [])
    assert all(link.startswith(("#", "data:")) for link in parser.links)
    assert "url(http" not in text and not re.search(r"<script[^>]*\bsrc", text)
    return text


def pictures(text: str) -> int:
    return len(re.findall("<svg", text))


@pytest.fixture
def supernet(tiny_space: SearchSpace, tmp_path: Path) -> Path:
    path = make_run(tmp_path / "supernet", "train-supernet --recipe <nano>", metrics=METRICS)
    net = Supernet(tiny_space, 14)
    weights = net.state_dict()
    checkpoint = Checkpoint("supernet", tiny_space.largest(14), tiny_space, CROWDPOSE, weights)
    save_checkpoint(path / "checkpoints" / "best.pt", checkpoint)
    return path


@pytest.fixture
def search(tiny_space: SearchSpace, supernet: Path, tmp_path: Path) -> Path:
    """A search with a made-up measure."""
    part = FeasibleSpace(tiny_space, 14, Budget(macs=1_200_000))
    settings = SearchSettings(population=6, generations=2)
    out = tmp_path / "search"

    def measure(genome: Genome) -> dict[str, float]:
        return {"AP": sum(genome) / 100}

    basis = {"space": tiny_space.to_dict(), "search": ["sha", 8, 4], "train": ["sha", 16, 3]}
    SearchJob(part, measure, Recipe(search=settings), basis, {"supernet": {"path": str(supernet)}}).run(out)
    return make_run(out, f"search --supernet {supernet} --macs 1.2M")


def finetuned(path: Path, spec: ArchSpec, *words: object) -> Path:
    run = make_run(path, " ".join(["finetune", *map(str, words)]), metrics=METRICS)
    net = LitePose(spec)
    save_checkpoint(run / "checkpoints" / "best.pt", Checkpoint("net", spec, None, CROWDPOSE, net.state_dict()))
    return run


def rows(text: str, kind: str) -> list[str]:
    return [re.sub("<[^>]+>", " ", row) for row in re.findall(rf'<tr class="{kind}">(.*?)</tr>', text)]


def test_a_finetuned_net_with_all_it_came_from(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, ap = load_spec(search / "best.yaml"), read_yaml(search / "best.yaml")["AP"]
    words = ("--subnet", search / "best.yaml", "--supernet", tmp_path / "supernet", "--teacher", "'gone away'")
    tuned = finetuned(tmp_path / "tuned", spec, *words)
    (tuned / "recipe.yaml").write_text("space: <b>bold</b>\n")
    assert write_report([tuned]) == tuned / "report.html"
    text = read(tuned / "report.html")
    assert pictures(text) > 6  # the network, the search's progress, choices, two panels of each training
    assert text.count('aria-label="AP by ') > 1
    count = len((search / "history.csv").read_text().splitlines()) - 1
    for words in (
        f"within 1.2M MACs (thop): {count} subnets were evaluated. It is the best of them (front/001.yaml), with AP "
        f"{ap:.3f} on the search images with the supernet&#x27;s weights.",
        "finetune ran 2 steps and came to AP 0.125 on the validation images, without the flip test.",
        "AP is measured on 4 search images, after BatchNorm recalibration on 3 training images.",
        "Its teacher was gone away.",
        "--teacher &#x27;gone away&#x27;",
        "There is no AP on test images yet",
        f"ofa-pose export {tuned} --format onnx --out {tuned}/export",
        "Not found when this page was made: --teacher gone away (teacher).",
        "&lt;b&gt;bold&lt;/b&gt;",
        "bold: chosen",
    ):
        assert words in text, words
    assert "<b>bold" not in text and "gone away" in capsys.readouterr().err
    (chosen,) = rows(text, "chosen")
    assert chosen.split()[0] == "front/001.yaml" and f"{ap:.3f}" in chosen
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    write_report([tuned], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tuned / "report.html").read_bytes()


def test_another_member_of_the_front_is_the_one_that_is_marked(search: Path, tmp_path: Path) -> None:
    member = search / "front" / "002.yaml"
    text = read(write_report([finetuned(tmp_path / "tuned", load_spec(member), "--subnet", member)]))
    (chosen,) = rows(text, "chosen")
    assert chosen.split()[0] == "front/002.yaml"
    found = read_search(read_run(search), None, [])
    assert found is not None
    better = sum(row["AP"] > read_yaml(member)["AP"] for row in found.history.values())
    assert better > 0
    place = f"number {better + 1} of them by AP (front/002.yaml), with AP {read_yaml(member)['AP']:.3f}"
    assert f"It is {place} on the search images" in text


def test_a_net_that_the_search_did_not_evaluate_is_marked_nowhere(
    tiny_space: SearchSpace, search: Path, tmp_path: Path
) -> None:
    other = finetuned(tmp_path / "tuned", tiny_space.largest(14), "--subnet", search / "best.yaml")
    text = read(write_report([other]))
    assert rows(text, "chosen") == [] and "bold: chosen" not in text and "inherited weights" not in text


def test_a_teachers_search_is_not_its_pupils(search: Path, tmp_path: Path) -> None:
    teacher = finetuned(tmp_path / "teacher", load_spec(search / "best.yaml"), "--subnet", search / "best.yaml")
    (tmp_path / "uniform.yaml").write_text(dump_yaml(load_spec(search / "front" / "002.yaml").to_dict()))
    words = ("--subnet", tmp_path / "uniform.yaml", "--teacher", teacher)
    text = read(write_report([finetuned(tmp_path / "pupil", load_spec(tmp_path / "uniform.yaml"), *words)]))
    assert "The search" not in text and "Searched" not in text
    assert "finetune in teacher/: teacher" in text and f"Its teacher was {teacher} (" in text


def test_a_search_shows_the_net_that_it_chose(search: Path) -> None:
    text = read(write_report([search]))
    assert "AP, search images, inherited weights" in text and len(rows(text, "chosen")) == 1
    assert len(rows(text, "aside")) == len(read_json(search / "result.json")["uniform"]) > 0


def test_a_search_that_was_killed(search: Path) -> None:
    (search / "result.json").unlink()
    text = read(write_report([search]))
    assert (
        "The search did not come to its end" in text and "front/001" not in text and "The network is a LitePose" in text
    )


def test_a_supernet_has_no_single_network(supernet: Path) -> None:
    text = read(write_report([supernet]))
    assert "The network is" not in text and "Training: train-supernet in supernet/" in text and pictures(text) == 2


def test_a_run_that_was_killed_at_once(tmp_path: Path) -> None:
    text = read(write_report([make_run(tmp_path / "a", "pretrain --out a")]))
    assert pictures(text) == 0 and text.count("<section>") == 1 and "ofa-pose pretrain --out a" in text


def test_without_its_checkpoint_the_subnet_file_gives_the_network(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = make_run(tmp_path / "tuned", f"finetune --subnet {search / 'best.yaml'}")
    assert "The network" in read(write_report([tuned]))
    (tuned / "checkpoints").mkdir()
    (tuned / "checkpoints" / "best.pt").write_bytes(b"cut")
    assert "The network" in read(write_report([tuned]))
    assert "best.pt: is not a checkpoint, or a truncated one" in capsys.readouterr().err


def test_standard_errors_and_what_is_to_be_said_of_the_choice(search: Path) -> None:
    found = json.loads((search / "result.json").read_text())
    assert "±" not in read(write_report([search])).partition("<script>")[0]
    found["best"]["AP_stderr"] = found["front"][0]["AP_stderr"] = 0.0375
    found |= {"people": 30, "notes": ["the search images <cannot> tell these subnets apart: 30 people"]}
    (search / "result.json").write_text(json.dumps(found))
    text = read(write_report([search]))
    assert text.count(f"{found['best']['AP']:.3f} ± 0.037") == 3  # a sentence, a tile, a row of the front
    assert "The search images &lt;cannot&gt; tell these subnets apart: 30 people." in text
    assert "30 people are on them" in text
    found["notes"] = ["front/001 costs less, so it is chosen; search.prefer_cheaper=false takes the best"]
    (search / "result.json").write_text(json.dumps(found))
    assert "weights. front/001 costs less, so it is chosen.</p>" in read(write_report([search]))
    for name in ("front", "best", "notes", "chosen"):
        for damaged in (None, 7, [7], "text", {"AP_stderr": "x"}):
            if name != "front" or not damaged:
                (search / "result.json").write_text(json.dumps({**found, name: damaged}))
                write_report([search])


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("history.csv", "1,2\n", r"history\.csv: is not a history of a search"),
        ("history.csv", "genome,macs_thop,params,AP\n0-0,1,1,0.5\n", r"history\.csv: is not a history of a search"),
        ("best.yaml", "AP: 0.5\n", r"best\.yaml: is not a chosen subnet"),
        ("best.yaml", "spec: {}\n", r"best\.yaml: is not a chosen subnet"),
        ("result.json", "[]", r"result\.json: holds no JSON object"),
        ("search.json", "{", r"search\.json"),
        ("search.json", '{"search": [], "train": []}', r"search\.json: holds values that no run writes \(ValueError"),
        ("result.json", '{"front": [{}], "uniform": []}', r"result\.json: holds values that no run writes \(KeyError"),
        ("result.json", '{"front": 5, "uniform": 5}', r"result\.json: holds values that no run writes"),
        ("result.json", '{"front": [{"genome": [[1]], "rank": 1}]}', r"result\.json: holds values that no run writes"),
        ("result.json", '{"uniform": [{"genome": [{}]}]}', r"result\.json: holds values that no run writes"),
    ],
)
def test_damaged_files_are_named_on_the_page(
    search: Path, name: str, content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read(write_report([search]))
    assert "This page is not complete" not in whole
    (search / name).write_text(content)
    text = read(write_report([search]))
    said = html.unescape(text.partition("This page is not complete")[2].partition("</ul>")[0])
    assert re.search(words, said) and re.search(words, capsys.readouterr().err)
    shown = {"The search": True, "All subnets evaluated": True, "The Pareto front": True, "What the choices were": True}
    shown |= {"history.csv": {"All subnets evaluated": False, "What the choices were": False}}.get(name, {})
    shown |= {"result.json": {"The Pareto front": False}}.get(name, {})
    if name == "search.json":  # nothing says what the space is
        shown |= {"What the choices were": False}
    assert {title: title in text for title in shown} == shown
    if name == "history.csv":
        assert "its history.csv cannot be read" in text and "0 subnets were evaluated" not in text


@pytest.mark.parametrize("metrics", [None, "[]", "[" * 9999, '{"AP_stderr": []}'])
@pytest.mark.parametrize("genome", ["genome", "7"])
def test_a_damaged_archive_is_named_on_the_page(search: Path, genome: str, metrics: str | None) -> None:
    with closing(sqlite3.connect(search / "archive.sqlite", isolation_level=None)) as file:
        file.execute("CREATE TABLE damaged AS SELECT * FROM evaluations")
        file.execute("DROP TABLE evaluations")
        file.execute(
            f"CREATE TABLE evaluations AS SELECT {genome} AS genome, AP, ? AS metrics FROM damaged", (metrics,)
        )
    text = read(write_report([search]))
    said = "archive.sqlite: holds values that no run writes" in text.partition("This page is not complete")[2]
    assert "All subnets evaluated" in text and said == (genome == "7" or metrics != '{"AP_stderr": []}')


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_an_archive_that_is_none_any_more_is_named_too(search: Path, kept: int) -> None:
    archive = search / "archive.sqlite"
    archive.write_bytes(archive.read_bytes()[:kept] + b"x" * 5000)
    text = read(write_report([search]))
    assert "archive.sqlite: is damaged (" in text.partition("This page is not complete")[2]
    assert "All subnets evaluated" in text


def test_a_history_that_was_cut_off_is_read_as_far_as_it_goes(search: Path) -> None:
    lines = (search / "history.csv").read_text().splitlines()
    (search / "history.csv").write_text("\n".join(lines[:4]) + "\n" + lines[4][:30])
    assert "3 subnets were evaluated" in read(write_report([search]))


def test_a_damaged_row_of_a_history_is_named(search: Path) -> None:
    text = (search / "history.csv").read_text()
    first, second = text.splitlines()[1:3]
    for old, new, words in (
        (first.split(",")[-2], "many", "history.csv:2: is not a row of a history of a search"),
        (second, second + "\n" + "1-1,2", "history.csv:4: is not a row"),
        (second.split(",")[3], "9" + second.split(",")[3], "history.csv:3: is not of space 'tiny'"),
    ):
        (search / "history.csv").write_text(text.replace(old, new, 1))
        page = html.unescape(read(write_report([search])))
        assert words in page.partition("This page is not complete")[2]


@pytest.mark.parametrize("ap", ["7.0", "-0.5", "1.79e308"])
def test_an_ap_is_between_0_and_1(search: Path, ap: str) -> None:
    lines = (search / "history.csv").read_text().splitlines()
    place = lines[0].split(",").index("AP")
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:place], ap, *cells[place + 1 :]])
    (search / "history.csv").write_text("\n".join(lines) + "\n")
    page = html.unescape(read(write_report([search])))
    assert "history.csv:2: AP is" in page and "which a history of a search does not hold" in page
    records = [f'{{"step": {n}, "val": {{"AP": {one}}}}}' for n, one in enumerate((ap, 0.25))]
    run = read_run(make_run(search.parent / "a", "finetune", metrics="\n".join(records)))
    assert run.aps == [(1, 0.25)] and len(run.validated) == 1


def test_lines_of_metrics_that_cannot_be_read_are_counted_on_the_page(tmp_path: Path) -> None:
    lines = METRICS.splitlines()
    run = make_run(tmp_path / "a", "pretrain", metrics="\n".join([lines[0], "[", *lines[1:], '{"step"']))
    text = read(write_report([run]))
    assert "metrics.jsonl: 1 lines are not records of a run" in text and "AP 0.125" in text
    (run / "metrics.jsonl").write_text(METRICS)
    assert "not records" not in read(write_report([run]))


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "pretrain")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(InputError, match=r"name (another folder|a file, such as report\.html)"):
            write_report([run], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


def test_a_gain_over_uniform_nets_that_were_not_all_evaluated_is_a_bound(search: Path) -> None:
    result = read_json(search / "result.json")
    entry = result["front"][0]
    entry["uniform"] = {"AP": entry["AP"] - 0.05, "complete": False}
    write_json(search / "result.json", result)
    (chosen,) = rows(read(write_report([search])), "chosen")
    assert f"≥ {entry['AP'] - 0.05:.3f}" in chosen and "≤ +0.050" in chosen
