"""Pages in a real browser: Debian's Chromium, driven by playwright, and the packages of npm that pages and tests use.

Tests skip where a part is missing; on Debian: apt-get install chromium; npm ci --ignore-scripts --prefix tests/browser
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

playwright_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

MODULES = Path(__file__).with_name("node_modules")
FLAGS = ("--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


def _node_package(path: str) -> Path:
    if not (MODULES / path).exists():
        pytest.skip("npm's packages are not installed: npm ci --ignore-scripts --prefix tests/browser")
    return MODULES / path


@pytest.fixture(scope="session")
def ort_files() -> Path:
    """The folder of onnxruntime-web's files."""
    return _node_package("onnxruntime-web/dist")


@pytest.fixture(scope="session")
def axe_script() -> str:
    """The source of axe-core, which finds what keeps people out of a page."""
    return _node_package("axe-core/axe.min.js").read_text(encoding="utf-8")


def chromium_program() -> str | None:
    """Where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    """A headless Chromium whose camera is a drawn one; a page of its own context: `browser.new_page(viewport=…)`."""
    program = chromium_program()
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield chromium
        chromium.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves without a word."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def serve_all() -> Iterator[Callable[[Path], str]]:
    """As `serve`, for all tests of a file."""
    yield from _serving()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder as `python -m http.server` does, and gives its address."""
    yield from _serving()


def _serving() -> Iterator[Callable[[Path], str]]:
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
