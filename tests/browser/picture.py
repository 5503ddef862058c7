"""Make docs/web.png, the page of `export --format web` on a phone's screen: python -m tests.browser.picture"""

from __future__ import annotations

import sys
import tempfile
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import cv2
from playwright.sync_api import sync_playwright

import ofa_pose
from ofa_pose.skeleton import COCO
from ofa_pose.synthetic.scenes import draw_scene
from tests.browser.conftest import FLAGS, MODULES, Quiet, chromium_program

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "web.png"
COLOURS = 128


def main() -> int:
    """Show a drawn scene to the shipped weights; returns the exit code."""
    if chromium_program() is None or not MODULES.is_dir():
        print("needs Chromium, and npm ci --ignore-scripts --prefix tests/browser", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        runtime = MODULES / "onnxruntime-web" / "dist"
        done = ofa_pose.export("litepose-nano-coco", out=name, formats=["web"], runtime_files=runtime)
        scene = Path(name, "scene.png")
        cv2.imwrite(str(scene), draw_scene(9, 16, 384, COCO).image[:300, :, ::-1])
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(done.files["web"])))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with playwright.chromium.launch(executable_path=chromium_program(), args=[*FLAGS]) as browser:
            page = browser.new_page(viewport={"width": 390, "height": 844})
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            page.wait_for_selector("#photo:enabled")
            for _ in range(5):  # the first ones are slow
                page.set_input_files("#photo-file", scene)
                page.wait_for_selector("#save:visible")
            page.screenshot(path=Path(name, "page.png"))
        server.shutdown()
        reduce(Path(name, "page.png"), PICTURE)
    return 0


def reduce(picture: Path, out: Path) -> None:
    """Write a picture as a PNG of few colours."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
