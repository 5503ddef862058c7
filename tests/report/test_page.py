"""The page: whole by itself, true to the files, and there for half a run too."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.checkpoint import Checkpoint, save_checkpoint
from ofa_pose.errors import InputError
from ofa_pose.models.elastic import Supernet
from ofa_pose.models.litepose import LitePose
from ofa_pose.report import write_report
from ofa_pose.run import RunDir
from ofa_pose.search.budget import Budget, FeasibleSpace
from ofa_pose.search.search import conduct
from ofa_pose.search.settings import SearchSettings
from ofa_pose.skeleton import CROWDPOSE
from tests.report.test_runs import make_run

VOID = {"meta", "img", "br", "use", "path", "rect"}
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
    assert "url(http" not in text and "<script" not in text
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
    part = FeasibleSpace(tiny_space, 14, Budget(macs=2_000_000))
    settings = SearchSettings(population=6, generations=2)
    out = tmp_path / "search"

    def measure(genome: Genome) -> dict[str, float]:
        return {"AP": sum(genome) / 100}

    conduct(part, measure, settings, 0, RunDir(out), {"supernet": {"path": str(supernet)}}, {"made": "up"})
    return make_run(out, f"search --supernet {supernet} --macs 2M")


def test_a_finetuned_net_with_all_it_came_from(tiny_space: SearchSpace, search: Path, tmp_path: Path) -> None:
    spec = tiny_space.largest(14)
    words = f"finetune --subnet {search / 'best.yaml'} --supernet {tmp_path / 'supernet'} --teacher gone/away"
    tuned = make_run(tmp_path / "tuned", words, metrics=METRICS)
    (tuned / "recipe.yaml").write_text("space: <b>bold</b>\n")
    net = LitePose(spec)
    save_checkpoint(tuned / "checkpoints" / "best.pt", Checkpoint("net", spec, None, CROWDPOSE, net.state_dict()))
    assert write_report(tuned) == tuned / "report.html"
    text = read(tuned / "report.html")
    assert pictures(text) == 5  # the network, the search's progress, the choices, two trainings
    assert "data:image/png;base64," in text
    for told in ("within 2M MACs (thop)", "AP 0.125", "front/001.yaml", "Not found any more: --teacher gone/away"):
        assert told in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text
    write_report(tuned, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (tuned / "report.html").read_bytes()


def test_a_search_shows_the_net_that_it_chose(search: Path) -> None:
    text = read(write_report(search))
    assert "AP, search images, inherited weights" in text and "The Pareto front" in text
    assert text.count('<tr class="chosen">') == 1


def test_a_supernet_has_no_single_network(supernet: Path) -> None:
    text = read(write_report(supernet))
    assert "The network" not in text and "Training: train-supernet supernet" in text and pictures(text) == 1


def test_a_run_that_was_killed_at_once(tmp_path: Path) -> None:
    text = read(write_report(make_run(tmp_path / "a", "pretrain --out a")))
    assert pictures(text) == 0 and "ofa-pose pretrain --out a" in text


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "pretrain")
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        write_report(run, tmp_path / "file" / "report.html")
