"""The tools of these tests themselves: a page that is served, seen, and whose violations are noticed."""

from __future__ import annotations

from pathlib import Path

PAGE = "<!doctype html><title>page</title><p id=text>before</p><script src=script.js></script>"


def test_page_is_served_and_runs(tmp_path: Path, browser, serve) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "script.js").write_text("document.getElementById('text').textContent = 'after'")
    page = browser.new_page()
    page.goto(serve(tmp_path))
    assert page.inner_text("#text") == "after"


def test_axe_finds_an_image_without_a_text(browser, axe_script: str) -> None:
    page = browser.new_page()
    page.set_content("<html lang=en><title>page</title><main><h1>page</h1><img src='data:,'></main>")
    page.evaluate(axe_script)
    found = page.evaluate("axe.run().then(all => all.violations.map(one => one.id))")
    assert found == ["image-alt"]
