"""The benchmarks run from end to end, and their figures are sane."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.bench import decode, oracle, shared_oracle
from tests.bench import evaluate as evaluate_bench
from tests.bench.accuracy import Source

BENCH = Path(__file__).parents[2] / "bin" / "bench"


@pytest.mark.parametrize("source", ["--no-shared", "--shared"])
def test_quick_run(source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "--shared" and not shared_oracle.is_there():
        pytest.skip("no ../shared/tools and ../shared/fixtures/decode")
    monkeypatch.setattr("sys.argv", ["decode", "--quick", "--json", source, "--condition-images", "2"])
    decode.main()
    shown = capsys.readouterr()
    assert "Other conditions" in shown.err
    figures = json.loads(shown.out)
    assert set(figures) == {
        *("source", "resolution", "threads", "decoders", "refinements", "conditions", "limits"),
    }
    rows = figures["decoders"]
    assert {name: row["images"] for name, row in rows.items()} == {
        decode.OURS: 4,
        decode.PLAIN: 1,
        decode.REFERENCE: 2,
        decode.EAGER: 4,
    }
    for row in rows.values():
        assert set(row) == {"images", "ap", "ap_common", "median_ms", "p90_ms", "to_eager", "speed_up"}
    for name in (decode.OURS, decode.PLAIN, decode.REFERENCE):
        assert 0.6 < rows[name]["ap"] <= 1
    exact, filled = figures["limits"].values()
    assert 0.6 < rows[decode.OURS]["ap"] < filled and exact < filled
    refined = list(figures["refinements"].values())
    assert refined[-1] == rows[decode.OURS]["ap"] and min(refined) > 0.6
    assert len(figures["conditions"]) == 7
    assert all(0.5 < row[way] <= 1 for row in figures["conditions"] for way in ("ours", "reference"))


@pytest.mark.parametrize("arguments", [[], ["decod"], ["--quick"]])
def test_an_unknown_benchmark_is_refused_with_those_there_are(arguments: list[str]) -> None:
    done = subprocess.run([BENCH, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    names = line.split("benchmarks: ")[1].split()
    assert "decode" in names
    assert all((Path(__file__).parent / f"{name}.py").is_file() for name in names)


@pytest.mark.skipif(not shared_oracle.is_there(), reason="no ../shared/tools and ../shared/fixtures/decode")
def test_what_the_shared_tool_placed_is_known() -> None:
    truth = oracle.load_truth(shared_oracle.CROWDS).take(slice(5))
    for image in truth.images:
        people = truth.people[image["id"]]
        output = shared_oracle.make_output(image, people, seed=image["id"])
        there = output.placed[..., 2] > 0
        assert (people[there, 2] > 0).all()
        apart = output.placed[there, :2] - output.frame.to_input(people[there, :2])
        assert np.abs(apart).max() < 6 and 0.8 < apart.std() < 1.2  # the tool's noise is 1 input pixel
        again = shared_oracle.make_output(image, people, seed=image["id"])
        np.testing.assert_array_equal(output.low, again.low)
        x, y = (output.placed[there, :2] / 2).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < output.high.shape[2]) & (y < output.high.shape[1])
        heat = output.high[np.nonzero(there)[1][inside], y[inside], x[inside]]
        assert (heat > 0.8 * output.placed[there, 2][inside]).all()


def test_drawn_crowds_are_crowds() -> None:
    truth = oracle.draw_crowds(5)
    assert 5 <= np.mean([len(people) for people in truth.people.values()]) <= 20
    assert all(image["crowdIndex"] > 0.1 for image in truth.images)
    source = Source("", truth, oracle.make_output, {"resolution": 128})
    for image, output in source.outputs("making"):
        there, labelled = output.placed[..., 2] > 0, truth.people[image["id"]][..., 2] > 0
        assert (labelled | ~there).all() and 0.85 < there.sum() / labelled.sum() < 1
        assert output.low.shape == (28, 32, 48) and output.high.shape == (14, 64, 96)


def test_what_the_bench_decodes_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "people.json"
    truth = oracle.draw_crowds(2)
    path.write_text(json.dumps({"images": list(truth.images), "annotations": list(truth.annotations)}))
    source, more = decode.choose_source(decode.parse(["--annotations", str(path), "--images", "1", "--quick"]))
    assert [image["id"] for image in source.truth.images] == [1] and more is None
    assert source.settings == {"resolution": 256}
    with pytest.raises(SystemExit):
        decode.parse(["--images", "0"])
    assert "--images must be 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_is_measured_both_ways(tmp_path: Path) -> None:
    expected = evaluate_bench.SHARED / "expected.json"
    _, checkpoint, dataset = evaluate_bench.choose(tmp_path, 100 if expected.is_file() else 3)
    figures = evaluate_bench.measure(checkpoint, dataset, rounds=1)
    assert min(figures["ours"]["ms"], figures["reference"]["ms"], figures["xs_eager_ms"]) > 0
    if expected.is_file():
        theirs = json.loads(expected.read_text())["flip"]["AP"]
        assert figures["reference"]["AP"] == pytest.approx(theirs, abs=1e-3)
        assert figures["ours"]["AP"] >= theirs
