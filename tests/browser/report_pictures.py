"""Make docs/report-*.png, a report on a desk and on a phone, light and dark.

ofa-pose demo && python -m tests.browser.report_pictures runs/demo/finetuned

Figures on them are examples: those in docs/ are of a demo with fewer images and steps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from ofa_pose.reports.page import write_report
from tests.browser.conftest import FLAGS, chromium_program
from tests.browser.picture import PICTURE, reduce

SCREENS = {"desk": (1280, 1500), "phone": (390, 1500)}


def main(run: str, folder: Path = PICTURE.parent) -> int:
    """Show a run's report; returns the exit code."""
    if chromium_program() is None:
        print("needs Chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        page_file = write_report([run], Path(name, "report.html"))
        with playwright.chromium.launch(executable_path=chromium_program(), args=[*FLAGS]) as browser:
            for screen, (width, height) in SCREENS.items():
                for colours in ("light", "dark"):
                    size = {"width": width, "height": height}
                    page = browser.new_page(viewport=size, color_scheme=colours)
                    page.goto(page_file.as_uri())
                    page.screenshot(path=Path(name, "page.png"))
                    reduce(Path(name, "page.png"), folder / f"report-{screen}-{colours}.png")
                    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
