"""The page of `latency bundle --format web` in Chromium: networks are timed, and come home as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.api.searching import read_budget
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.latency.bundle import import_results, write_bundle
from ofa_pose.latency.predictor import Predictor
from ofa_pose.web.runtime_files import shipped_text

pytest.importorskip("onnx")

PHONE = {"width": 390, "height": 844}
DONE = "document.getElementById('progress').value"
SECONDS = 1000


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """A space of 32 networks, 20 of which a table has."""
    stages, deconv = ((4, 8), (4, 6), (8,), (8, 16)), ((4, 8), (4,), (6,))
    return SearchSpace("small", (64,), (4, 8), stages, deconv, (2,), (1, 1, 1, 1), 3)


@pytest.fixture(scope="module")
def bundle(space: SearchSpace, ort_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "bundle"
    write_bundle(folder, space, 14, "web", 1.0, 4, ort_files)
    return folder


@contextmanager
def opened(browser: Any, address: str, short: bool = False) -> Iterator[Any]:
    """A phone's page that may start; what its console says of faults is among its `faults`."""
    page = browser.new_page(viewport=PHONE)
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    if short:
        shorten(page)
    page.goto(address)
    page.wait_for_selector("#start:enabled")
    yield page
    page.close()


def fits(page: Any) -> bool:
    """Whether nothing is wider than the screen."""
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width <= PHONE["width"]


def turn(page: Any, state: str) -> None:
    """Hide the page, or bring it to the front again."""
    page.evaluate(f"Object.defineProperty(document, 'visibilityState', {{value: '{state}', configurable: true}})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def shorten(page: Any) -> None:
    """Let the page sample more shortly than is certain: what it finds does not count."""
    text = shipped_text("measure.js")
    for name, less in (
        ("SAMPLE_MS = 20", "SAMPLE_MS = 2"),
        ("VISIT_MS = 400", "VISIT_MS = 20"),
        ("NET_MS = 1600", "NET_MS = 20"),
        ("FIRST_MS = 1000", "FIRST_MS = 10"),
        ("STEPS = 40", "STEPS = 4"),
    ):
        assert text.count(f"const {name};") == 1
        text = text.replace(f"const {name};", f"const {less};")
    page.route("**/measure.js", lambda route: route.fulfill(body=text, content_type="text/javascript"))


def measured(page: Any, to: Path, seconds: float = 300) -> Path:
    """The file that the button saves when all is timed."""
    page.wait_for_selector("#save", timeout=seconds * SECONDS)
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "results.csv"
    download.value.save_as(to)
    return to


def test_hidden_reloaded_measured_and_brought_home(
    bundle: Path, space: SearchSpace, browser: Any, serve: Callable[[Path], str], axe_script: str, tmp_path: Path
) -> None:
    with opened(browser, serve(bundle) + "?rounds=1&device=A phone, in a case", short=True) as page:
        assert fits(page) and page.is_hidden("#threaded")
        page.click("#start")
        page.wait_for_function(f"{DONE} > 0")
        turn(page, "hidden")
        page.wait_for_function("document.getElementById('status').textContent.startsWith('Paused')")
        before = page.evaluate(DONE)
        page.wait_for_timeout(700)
        assert page.evaluate(DONE) == before < 1
        turn(page, "visible")
        page.wait_for_function(f"{DONE} > {before}")
        page.reload()
        page.wait_for_selector("#start:enabled")
        kept = page.evaluate(DONE)
        assert before < kept < 1 and page.inner_text("#start") == "Go on" and page.is_disabled("input[name=device]")
        page.click("#start")
        page.wait_for_function(f"{DONE} > {kept}")
        results = measured(page, tmp_path / "results.csv")
        assert fits(page) and page.faults == [] and page.inner_text("#error") == ""
        page.evaluate(axe_script)
        assert page.evaluate("axe.run().then(all => all.violations.map(one => one.id))") == []
        page.reload()
        page.wait_for_selector("#save")  # nothing is lost after the end
    table, verification = import_results(results)
    header = table.header
    assert header.space == space and (header.joints, header.threads, header.rounds, header.share) == (14, 1, 1, 1)
    assert (header.backend, header.runtime) == ("onnxruntime-web-wasm", "onnxruntime-web-wasm 1.30.0")
    assert header.device == "A phone, in a case" and len(table.anchor) >= 3
    assert {len(seen) for seen in table.ratios.values()} == {1}
    assert verification and len(verification.specs) == 4 and not {*verification.specs} & {*table.nets}
    assert Predictor(table).predict_ms(space.largest(14)) > 0
    table.save(tmp_path / "phone.json")
    budget = read_budget(space, 14, latency="1000s", latency_table=tmp_path / "phone.json")
    assert budget.predict_ms(space.smallest(14)) > 0


def test_faults_are_a_sentence_on_the_page(
    bundle: Path, browser: Any, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    address = serve(bundle)

    def fault(query: str, of: str, answer: Callable[[Any], None]) -> str:
        page = browser.new_page(viewport=PHONE)
        page.add_init_script("Object.defineProperty(navigator, 'gpu', {value: undefined})")
        page.route(of, answer)
        page.goto(address + query)
        if page.inner_text("#error") == "":
            page.wait_for_selector("#start:enabled, #error:not(:empty)")
        if page.is_enabled("#start"):
            page.click("#start")
            page.wait_for_selector("#error:not(:empty)")
            assert page.is_visible("#start")
        assert fits(page)
        text: str = page.inner_text("#error")
        page.close()
        return text

    def gone(route: Any) -> None:
        route.fulfill(status=404, body="")

    assert "has no WebGPU" in fault("?backend=webgpu", "**/none", gone)
    assert "no backend foo" in fault("?backend=foo", "**/none", gone)
    assert fault("", "**/manifest.json", gone).startswith("manifest.json could not be loaded (404")
    assert "could not be loaded (404" in fault("", "**/models/*", gone)
    assert "onnxruntime-web could not be loaded from http://127.0.0.1" in fault("", "**/ort.wasm.min.mjs", gone)
    damaged = fault("", "**/models/*", lambda route: route.fulfill(body="damaged"))
    assert damaged.startswith("It failed: ")


@pytest.mark.slow
def test_threads_where_the_page_is_isolated(bundle: Path, browser: Any, serve: Callable[[Path], str]) -> None:
    def isolated(route: Any) -> None:
        answer = route.fetch()
        policies = {"cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp"}
        route.fulfill(response=answer, headers={**answer.headers, **policies})

    page = browser.new_page(viewport=PHONE)
    page.route("**/*", isolated)
    page.goto(serve(bundle) + "?threads=2&rounds=1")
    page.wait_for_selector("#threaded")
    page.click("#start")
    page.wait_for_function(f"{DONE} > 0")
    key = "Object.keys(localStorage).find(key => /^ofa-pose latency [0-9a-f]{12}$/.test(key))"
    header = json.loads(page.evaluate(f"localStorage.getItem({key})"))
    assert header["threads"] == 2 and header["backend"] == "onnxruntime-web-wasm"
    page.close()


@pytest.mark.slow
def test_the_nano_space_is_ranked(browser: Any, serve: Callable[[Path], str], ort_files: Path, tmp_path: Path) -> None:
    """Networks that the table does not hold, in WASM and one thread."""
    write_bundle(tmp_path / "nano", load_space("litepose-nano"), 17, "web", 1.0, 15, ort_files)
    with opened(browser, serve(tmp_path / "nano") + "?rounds=5&device=Chromium") as page:
        page.click("#start")
        results = measured(page, tmp_path / "results.csv", seconds=3600)
        assert page.faults == []
    _, verification = import_results(results)
    assert verification
    found = verification.to_dict()
    print(found)
    assert found["nets"] == 15 and found["spearman"] >= 0.95
