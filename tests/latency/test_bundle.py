"""Bundles: what stands in the folder runs without torch and this package, and comes home as a table."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.folding import NetPart
from ofa_pose.backends.onnxruntime import onnx_model
from ofa_pose.backends.runtimes import BUNDLES
from ofa_pose.latency import bundle as bundle_module
from ofa_pose.latency.bundle import import_results, write_bundle
from ofa_pose.latency.measure import net_part
from ofa_pose.latency.pieces import Piece, Subject, table_subjects
from ofa_pose.latency.predictor import Predictor
from ofa_pose.utils.errors import InputError
from tests.latency.tables import few_networks, measure_bundle, net_ms, subject_ms

ALONE = (
    "import sys, runpy\n"
    "for name in ('torch', 'ofa_pose', 'onnx', 'scipy', 'yaml', 'cv2', 'rich', 'typer'): sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module")
def small_space() -> SearchSpace:
    """Of 32 networks, 20 of which a table has."""
    stages, deconv = ((4,), (4, 6), (8,), (8, 16)), ((4, 8), (4,), (6,))
    return SearchSpace("small", (32, 64), (4, 8), stages, deconv, (2,), (1, 2, 1, 2), 3)


@pytest.fixture(scope="module")
def copy_bundle(small_space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Gives a folder the bundle of a format, without networks that verify it; each is written once."""
    written: dict[str, Path] = {}

    def copy(form: str, folder: Path) -> Path:
        if form not in written:
            written[form] = tmp_path_factory.mktemp("bundles") / form
            write_bundle(written[form], small_space, 14, form, share=1.0, nets=0)
        return Path(shutil.copytree(written[form], folder, dirs_exist_ok=True))

    return copy


def run_alone(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ALONE, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("form", BUNDLES)
def test_a_bundle_runs_alone_and_comes_home(form: str, small_space: SearchSpace, tmp_path: Path) -> None:
    pytest.importorskip(BUNDLES[form].backend.packages[0])
    folder = tmp_path / "bundle"
    count = write_bundle(folder, small_space, 14, form, share=1.0, nets=3)
    subjects = table_subjects(small_space, 14, 1.0)
    assert count == len(subjects) + 3
    assert len(list((folder / "models").iterdir())) < count  # one model serves all sides
    done = run_alone(folder / "measure.py", "--rounds", 1)
    assert done.returncode == 0, done.stderr
    table, verification = import_results(folder / "results.csv")
    assert list(table.ratios) == subjects
    assert verification and len(set(verification.specs) - set(table.nets)) == 3 and (verification.measured > 0).all()
    assert table.header.space == small_space and table.header.runtime.startswith(BUNDLES[form].name)
    assert Predictor(table).predict_ms(small_space.largest(14)) > 0


def test_light_models_compute_the_same_shapes(
    small_space: SearchSpace, copy_bundle: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    copy_bundle("onnx", tmp_path)
    bundle = on_device.Bundle(tmp_path, threads=1)
    subjects = table_subjects(small_space, 14, 1.0)
    names = [name for name in bundle.subjects if name != on_device.ANCHOR]
    for name, subject in list(zip(names, subjects, strict=True))[::5]:
        part = net_part(subject)
        model, inputs = onnx_model(part).SerializeToString(), on_device.random_inputs(part.inputs)
        light, full = bundle.load(name)(), on_device.onnx_run(model, inputs, 1)()
        for mine, real in zip(light, full, strict=True):  # type: ignore[call-overload]
            assert mine.shape == real.shape and np.isfinite(mine).all()


def test_what_was_cut_off_goes_on(
    small_space: SearchSpace, copy_bundle: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    copy_bundle("onnx", tmp_path)
    calls = []

    def visit(run: object, threads: int) -> float:
        calls.append(run)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(on_device, "__file__", str(tmp_path / "measure.py"))
    monkeypatch.setattr(on_device, "keep_memory", lambda: None)
    monkeypatch.setattr(on_device, "visit", visit)
    monkeypatch.setattr(on_device, "BATCH_S", 0.0)
    assert on_device.main(["--rounds", "1"]) == 130
    path = tmp_path / "results.csv"
    with pytest.raises(InputError, match="cut off"):
        import_results(path)
    path.write_text(path.read_text() + "block cin=8 hid")  # killed in the middle of a line
    total, before = (
        len(table_subjects(small_space, 14, 1.0)),
        sum(len(v) for v in on_device.read_results(path)[2].values()),
    )
    assert 10 < before < total
    calls.clear()
    monkeypatch.setattr(on_device, "BATCH_S", 1000.0)
    monkeypatch.setattr(on_device, "visit", lambda run, threads: calls.append(run) or 1.0)
    assert on_device.main(["--rounds", "1"]) == 0
    assert len(calls) == total - before + 2
    assert len(import_results(path)[0].ratios) == total
    assert on_device.main(["--rounds", "2"]) == 2


def test_a_bundle_is_there_whole_or_not_at_all(
    small_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = itertools.count()

    def killed(subject: Subject) -> NetPart:
        if next(parts) == 5:
            raise KeyboardInterrupt
        return net_part(subject)

    monkeypatch.setattr(bundle_module, "net_part", killed)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "bundle", small_space, 14, "ncnn", 1.0, 0)
    assert not [*tmp_path.iterdir()]
    monkeypatch.undo()
    write_bundle(tmp_path / "bundle", small_space, 14, "ncnn", 1.0, 0)
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {
        "models", "manifest.json", "measure.py", "README.txt"
    }  # fmt: skip


def test_other_folders_and_files_are_refused(small_space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        write_bundle(tmp_path / "full", small_space, 14, "onnx", 1.0, 0)
    with pytest.raises(InputError, match="onnx"):
        write_bundle(tmp_path / "new", small_space, 14, "onx", 1.0, 0)
    with pytest.raises(InputError, match="no such file"):
        import_results(tmp_path / "results.csv")
    for text in ("", "subject,ratio\n", "# {}\n", "# {\n", '# {"nets": {}, "space": {}}\nstem cout=8 side=64,fast\n'):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=r"bad\.csv"):
            import_results(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="is a pipe or a device, not a file"):  # which would give nothing, or no end
        import_results(Path(os.devnull))


def test_damaged_results_are_reported(
    copy_bundle: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = measure_bundle(copy_bundle("onnx", tmp_path), monkeypatch)
    whole = path.read_text()
    for old, new in (
        ("anchor,1", "anchor,nan"),
        ("anchor,1", "anchor,0"),
        ('"rounds": 1', '"rounds": "1"'),
        ('"threads": 1', '"threads": null'),
        ('"device": ', '"devise": '),
    ):
        path.write_text(whole.replace(old, new))
        assert path.read_text() != whole
        with pytest.raises(InputError, match=r"results\.csv: is not a results\.csv of a bundle"):
            import_results(path)
    for text in ("", "# []\n", whole + "block\n"):
        path.write_text(text)
        assert on_device.main(["--rounds", "1"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {path} is not a file of results (")
        assert path.read_text() == text


def test_no_threads_and_no_rounds_are_refused() -> None:
    for words in (["--threads", "0"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as stopped:
            on_device.main(words)
        assert stopped.value.code == 2


def test_a_missing_runtime_is_reported(copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> None:
    copy_bundle("ncnn", tmp_path)
    code = f"import sys; sys.modules['ncnn'] = None\n{ALONE}"
    words = [sys.executable, "-c", code, str(tmp_path / "measure.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: ") and "pip install ncnn" in done.stderr and len(done.stderr.splitlines()) == 1
    )


def test_the_manifest_names_every_model(copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> None:
    copy_bundle("ncnn", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    named = {entry["model"] for entry in manifest["subjects"].values()}
    assert named == {path.name for path in (tmp_path / "models").iterdir()}


def test_faults_on_the_device_are_reported_in_a_line(
    copy_bundle: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bundle"
    results = measure_bundle(copy_bundle("onnx", folder), monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(on_device, "__file__", str(folder / "measure.py"))
    monkeypatch.setattr(on_device, "keep_memory", lambda: None)

    def error_of(*words: str) -> str:
        assert on_device.main(["--rounds", "1", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert line.startswith("error: ")
        return line

    assert "is of another run (other rounds)" in error_of("--rounds", "2")
    assert "No such file" in error_of("--out", str(tmp_path / "none" / "results.csv"))
    assert "Is a directory" in error_of("--out", str(tmp_path))
    header = results.read_text().splitlines()[0]
    results.write_text(f'{header}\n"{"a" * 200_000}\n')
    assert "is not a file of results (" in error_of()
    with pytest.raises(InputError, match=r"results\.csv: is not a results\.csv of a bundle"):
        import_results(results)
    results.unlink()
    for model in (folder / "models").iterdir():
        model.write_bytes(b"damaged")
    assert "cannot be loaded" in error_of() and "copy the bundle again" in error_of("--out", str(tmp_path / "new.csv"))
    for failure, said in (
        (MemoryError(), "is not enough memory"),
        (OSError(errno.ENOSPC, "No space left"), "No space"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(on_device, "onnx_run", Mock(side_effect=failure))
            assert said in (line := error_of("--out", str(tmp_path / "new.csv"))) and "copy the bundle" not in line
    (folder / "manifest.json").write_text("{}")
    assert "is not a whole bundle" in error_of()
    (folder / "manifest.json").unlink()
    assert "is not a whole bundle" in error_of()


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--threads", "9999", f"give 1 to {on_device.processors()}, the processors here"),
        ("--rounds", "0", "give 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_rule(
    capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        on_device.main([option, value])
    told = f"error: {option} {value} is out of range; {told}"
    assert stopped.value.code == 2 and capsys.readouterr().err.splitlines()[-1].endswith(told)


def test_results_say_how_well_other_networks_are_predicted(
    small_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a device without a clock, of which the table is right but for one of the networks."""
    write_bundle(tmp_path, small_space, 14, "onnx", share=1.0, nets=5)
    header = json.loads((tmp_path / "manifest.json").read_text())["header"]
    header |= {"runtime": "onnxruntime 1", "threads": 1, "device": "a device", "cores": 2, "rounds": 1, "date": "today"}
    subjects = table_subjects(small_space, 14, 1.0)
    ms = {one if isinstance(one, Piece) else f"net {one.digest}": subject_ms(one) for one in subjects}
    checks = {name: net_ms(ArchSpec.from_dict(spec)) for name, spec in header["checks"].items()}
    slow = next(iter(checks))
    rows = [f"{name},{taken!r}" for name, taken in (ms | checks | {slow: 2 * checks[slow]}).items()]
    path = tmp_path / "results.csv"
    path.write_text("\n".join([f"# {json.dumps(header)}", "anchor,1.0", *rows, ""]))
    table, verification = import_results(path)
    assert verification and list(table.ratios) == subjects
    assert verification.errors == pytest.approx([-0.5, 0, 0, 0, 0], abs=1e-6)
    path.write_text("\n".join([f"# {json.dumps(header)}", "anchor,1.0", *rows[:-1], ""]))
    with pytest.raises(InputError, match="1 timings of whole networks wait"):
        import_results(path)


def test_a_space_of_few_networks_is_verified_by_those_there_are(small_space: SearchSpace, tmp_path: Path) -> None:
    few = few_networks(small_space)
    count = write_bundle(tmp_path, few, 14, "onnx", share=1.0, nets=15)
    header = json.loads((tmp_path / "manifest.json").read_text())["header"]
    assert header["checks"] == {} and count == len(table_subjects(few, 14, 1.0))


def test_a_page_is_written_whole_or_not_at_all(
    small_space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = few_networks(small_space)

    def page_id(name: str, joints: int) -> str:
        write_bundle(tmp_path / name, few, joints, "web", 1.0, 0)
        found: str = json.loads((tmp_path / name / "manifest.json").read_text())["id"]
        return found

    assert page_id("one", 14) == page_id("same", 14) != page_id("other", 13)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"index.html", "measure.js", "manifest.json", "models", "README.txt"}
    with pytest.raises(InputError, match=r"dist: is not a folder with onnxruntime-web's files"):
        write_bundle(tmp_path / "none", small_space, 14, "web", 1.0, 0, tmp_path / "dist")
    with pytest.raises(InputError, match="--runtime-files are for a page"):
        write_bundle(tmp_path / "none", small_space, 14, "onnx", 1.0, 0, tmp_path)
    assert not (tmp_path / "none").exists()

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, "add_runtime", killed)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "cut", few, 14, "web", 1.0, 0)
    assert not (tmp_path / "cut").exists()


def test_a_provider_that_is_not_there_is_refused(
    copy_bundle: Callable[[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    copy_bundle("onnx", tmp_path / "bundle")
    monkeypatch.setattr(on_device, "__file__", str(tmp_path / "bundle" / "measure.py"))
    words = ["--provider", "NoExecutionProvider", "--out", str(tmp_path / "results.csv")]
    assert on_device.main(words) == 2
    error = capsys.readouterr().err
    assert "does not run on NoExecutionProvider here; its providers are" in error and "CPUExecutionProvider" in error
    assert not (tmp_path / "results.csv").exists()


def test_a_provider_stands_in_the_table_and_is_timed_by_the_wall_clock(
    copy_bundle: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    asked: list[tuple[str, ...]] = []
    seen: list[int] = []

    class Session:
        """What ONNX Runtime's session is where there is such a provider."""

        def __init__(self, model: object, options: object, providers: list[str]) -> None:
            asked.append(tuple(providers))
            self.get_providers = lambda: providers
            self.run = lambda *_: None

        def get_inputs(self) -> list[object]:
            return []

    def visit(run: object, threads: int) -> float:
        seen.append(threads)
        return 1.0 + 0.01 * len(seen)

    copy_bundle("onnx", tmp_path)
    monkeypatch.setattr(on_device, "__file__", str(tmp_path / "measure.py"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["GPUExecutionProvider", on_device.CPU])
    monkeypatch.setattr(on_device, "visit", visit)
    assert on_device.main(["--provider", "GPUExecutionProvider", "--rounds", "1"]) == 0
    assert set(asked) == {("GPUExecutionProvider", on_device.CPU)}
    assert set(seen) == {0}  # so the process's own time is not asked
    table, _ = import_results(tmp_path / "results.csv")
    assert table.header.runtime.endswith(" GPUExecutionProvider") and table.header.backend == "onnxruntime"


def test_a_provider_is_onnx_runtimes(copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    copy_bundle("ncnn", tmp_path)
    with pytest.raises(ValueError, match="these models are for ncnn; leave it out"):
        on_device.Bundle(tmp_path, 1, "CUDAExecutionProvider")
