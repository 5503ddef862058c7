"""The page of `export --format web` in a real browser: the poses of Python, a camera, faults in sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import ofa_pose
from ofa_pose import runtime
from ofa_pose.pose.decode import Poses
from ofa_pose.pose.geometry import input_frame
from ofa_pose.skeleton import COCO
from ofa_pose.synthetic.scenes import draw_scene
from tests.browser.conftest import FLAGS, chromium_program

PHONE = {"width": 390, "height": 844}
READY = "!document.getElementById('photo').disabled"


@dataclass(frozen=True)
class Visit:
    """An open page, and the faults that the browser's console has had so far."""

    page: Any
    faults: list[str]


@pytest.fixture(scope="module")
def exported(ort_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the shipped weights."""
    out = tmp_path_factory.mktemp("export")
    return ofa_pose.export("litepose-nano-coco", out=out, formats=["web"], runtime_files=ort_files).files["web"]


@pytest.fixture(scope="module")
def address(exported: Path, serve_all: Callable[[Path], str]) -> str:
    return serve_all(exported)


@pytest.fixture
def visit(browser, address: str) -> Iterator[Callable[..., Visit]]:
    """A function that opens the page on a phone's screen and waits until the model is there."""
    opened = []

    def start(path: str = "", chromium=browser, **context: Any) -> Visit:
        page = chromium.new_page(viewport=PHONE, **context)
        opened.append(page)
        faults: list[str] = []
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address + path)
        page.wait_for_function(f"{READY} || document.getElementById('problem').textContent", timeout=60_000)
        return Visit(page, faults)

    yield start
    for page in opened:
        page.close()


def find_in_photo(page: Any, path: Path) -> dict[str, Any]:
    """What the page saves of a photo that it is given."""
    page.set_input_files("#photo-file", path)
    page.wait_for_selector(f"#status:has-text('{path.name}:')", timeout=60_000)
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == f"{path.stem}.json"
    saved: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
    assert saved["file"] == path.name
    return saved


def assert_same_people(saved: dict[str, Any], expected: Poses, scale: float) -> None:
    """As many people in the same order of places, joints within half an input pixel; scale: input by image pixels."""
    assert len(saved["people"]) == len(expected)
    if len(expected):
        keypoints = np.array([person["keypoints"] for person in saved["people"]])
        apart = np.linalg.norm(keypoints[:, None] - expected.keypoints, axis=-1).mean(axis=-1)
        order = apart.argmin(axis=0)  # people of equal scores may have changed places
        assert sorted(order) == list(range(len(expected)))
        assert np.abs(keypoints[order, :, :2] - expected.keypoints[..., :2]).max() * scale <= 0.5
        np.testing.assert_allclose(keypoints[order, :, 2], expected.keypoints[..., 2], atol=0.02)
        scores = np.array([person["score"] for person in saved["people"]])
        np.testing.assert_allclose(scores[order], expected.scores, atol=0.01)


def draw_photo(index: int, path: Path) -> tuple[int, int]:
    """A drawn scene of its own size and shape as a file; its width and height."""
    rng = np.random.default_rng(index)
    image = draw_scene(77, index, int(rng.integers(200, 640)), COCO).image
    height, width = (int(len(image) * share) for share in rng.uniform(0.6, 1, 2))
    cv2.imwrite(str(path), image[:height, :width, ::-1])
    return width, height


@pytest.mark.parametrize("scenes", [range(10), pytest.param(range(10, 100), marks=pytest.mark.slow)], ids=len)
def test_drawn_scenes_have_the_people_that_python_finds(scenes: range, visit, exported: Path, tmp_path: Path) -> None:
    model, opened, people = runtime.load(exported / "model.onnx", threads=1), visit("?backend=wasm"), 0
    for index in scenes:
        photo = tmp_path / f"scene{index}.png"
        size = draw_photo(index, photo)
        saved, expected = find_in_photo(opened.page, photo), model(photo)
        assert (saved["width"], saved["height"]) == size
        assert_same_people(saved, expected, input_frame(*size, model.resolution).scale)
        people += len(expected)
    assert people > len(scenes)
    assert not opened.faults


def test_a_turned_photo_is_seen_upright(visit, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.fromarray(draw_scene(77, 0, 320, COCO).image[:240])
    exif = image.getexif()
    exif[0x0112] = 6  # stored on its side
    image.rotate(90, expand=True).save(path, quality=95, exif=exif)
    model = runtime.load(exported / "model.onnx", threads=1)
    expected, saved = model(path), find_in_photo(visit().page, path)
    assert len(expected) and (saved["width"], saved["height"]) == (320, 240)
    assert_same_people(saved, expected, input_frame(320, 240, model.resolution).scale)


def test_what_was_chosen_last_is_shown(visit, tmp_path: Path) -> None:
    for index, name in enumerate(("first.png", "last.png")):
        draw_photo(index, tmp_path / name)
    page = visit("?backend=wasm").page
    page.evaluate(  # the first photo is read slowly
        """() => {
          const read = createImageBitmap;
          const first = new Promise((resolve) => { window.release = resolve; });
          let photos = 0;
          window.createImageBitmap = async (...given) => {
            if (photos++ === 0) await first;
            return read(...given);
          };
        }"""
    )
    page.set_input_files("#photo-file", tmp_path / "first.png")
    find_in_photo(page, tmp_path / "last.png")
    page.evaluate("window.release()")
    page.wait_for_timeout(300)
    assert page.inner_text("#status").startswith("last.png:")


def test_threshold_and_resolution(visit, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    draw_photo(1, path)
    page = visit().page
    least = float(page.input_value("#threshold"))
    assert least == runtime.DRAWN
    every = find_in_photo(page, path)["people"]
    page.fill("#threshold", "0.9")
    assert page.inner_text("#people") == str(sum(person["score"] >= 0.9 for person in every))
    page.fill("#threshold", "0")
    assert len(find_in_photo(page, path)["people"]) >= len(every)
    page.select_option("#resolution", "256")
    page.wait_for_function("document.getElementById('input').textContent.includes('256')")
    model = runtime.load(exported / "model.onnx", threads=1, resolution=256)
    frame = input_frame(*Image.open(path).size, 256)
    assert page.inner_text("#input") == f"{frame.width}×{frame.height}"
    assert_same_people(find_in_photo(page, path), model(path, 0), frame.scale)


def test_a_camera_runs(visit) -> None:
    opened = visit()
    opened.page.click("#camera")
    opened.page.wait_for_function("document.getElementById('video').dataset.frames >= 5", timeout=60_000)
    assert float(opened.page.inner_text("#rate")) > 0
    opened.page.select_option("#facing", "user")  # opens the other one
    opened.page.wait_for_function("document.getElementById('video').dataset.frames < 5", timeout=60_000)
    opened.page.click("#stop")
    assert opened.page.inner_text("#status") == "Stopped."
    assert opened.page.is_visible("#camera") and not opened.page.is_visible("#stop")
    assert not opened.faults


def write_film(path: Path, seconds: int) -> None:
    """Drawn scenes of 192 × 192 pixels, ten frames a second, as uncompressed video (y4m)."""
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W192 H192 F10:1 Ip A1:1 C420jpeg\n")
        for index in range(10 * seconds):
            planes = cv2.cvtColor(draw_scene(78, index // 5, 192, COCO).image, cv2.COLOR_RGB2YUV_I420)
            file.write(b"FRAME\n" + planes.tobytes())


def test_a_video_is_followed_to_its_end(visit, tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "film.webm"), cv2.VideoWriter.fourcc(*"VP80"), 10, (192, 192))
    if not film.isOpened():
        pytest.skip("OpenCV writes no WebM here")
    for index in range(20):
        film.write(np.ascontiguousarray(draw_scene(78, index // 10, 192, COCO).image[..., ::-1]))
    film.release()
    opened = visit()
    opened.page.set_input_files("#film-file", tmp_path / "film.webm")
    opened.page.wait_for_selector("#status:has-text('the end, after')", timeout=60_000)
    frames = re.fullmatch(r"film\.webm: the end, after (\d+) frames?", opened.page.inner_text("#status"))
    assert frames and 1 <= int(frames[1]) <= 20, "each frame at most once, however fast the network is"
    assert opened.page.is_visible("#picture") and int(opened.page.inner_text("#people")) > 0
    assert not opened.faults


@pytest.mark.slow
def test_a_camera_that_sees_people_runs_for_ten_seconds(browser, visit, tmp_path: Path) -> None:
    write_film(tmp_path / "film.y4m", 10)
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={tmp_path / 'film.y4m'}"]
    with browser.browser_type.launch(executable_path=chromium_program(), args=flags) as other:
        opened = visit("?backend=wasm", chromium=other)
        opened.page.click("#camera")
        opened.page.wait_for_timeout(10_000)
        frames = int(opened.page.evaluate("document.getElementById('video').dataset.frames"))
        print(f"{frames} frames in 10 s: {opened.page.inner_text('#figures')}")
        assert frames >= 10
        opened.page.wait_for_function("Number(document.getElementById('people').textContent) > 0")
        assert not opened.faults


@pytest.mark.slow
def test_webgpu_finds_the_same(browser, visit, exported: Path, tmp_path: Path) -> None:
    """On a GPU that is computed in software: some ten seconds an image."""
    path = tmp_path / "scene.png"
    size = draw_photo(0, path)
    flags = [*FLAGS, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    with browser.browser_type.launch(executable_path=chromium_program(), args=flags) as other:
        opened = visit("?backend=webgpu", chromium=other)
        assert opened.page.inner_text("#backend") == "WebGPU"
        model = runtime.load(exported / "model.onnx", threads=1)
        scale = input_frame(*size, model.resolution).scale
        assert_same_people(find_in_photo(opened.page, path), model(path), scale)
        assert not opened.faults


def test_the_page_is_fit_for_a_phone_and_for_everyone(visit, axe_script: str, tmp_path: Path) -> None:
    draw_photo(1, tmp_path / "scene.png")
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme).page
        find_in_photo(page, tmp_path / "scene.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        heights = page.eval_on_selector_all(
            "button, select, summary, input[type=range]", "all => all.map(one => one.offsetHeight).filter(h => h)"
        )
        assert min(heights) >= 44
        page.evaluate(axe_script)
        found = page.evaluate("axe.run().then(all => all.violations.map(one => [one.id, one.nodes[0].html]))")
        assert found == []
        page.focus("#camera")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "photo"
        assert re.fullmatch(
            r"scene.png, \d+ (person|people) drawn over it", page.get_attribute("#picture", "aria-label")
        )


def problem(page: Any) -> str:
    page.wait_for_function("document.getElementById('problem').textContent", timeout=60_000)
    text: str = page.inner_text("#problem")
    return text


def test_faults_are_sentences(visit, exported: Path, browser, tmp_path: Path, serve) -> None:
    assert problem(visit("?backend=webgpu").page) == "This browser offers no WebGPU here."
    assert problem(visit("?backend=cuda").page) == 'There is no backend "cuda".'
    page = visit().page
    (tmp_path / "damaged.jpg").write_bytes(b"none")
    page.set_input_files("#photo-file", tmp_path / "damaged.jpg")
    assert problem(page) == "damaged.jpg is not an image that this browser reads."
    page.set_input_files("#film-file", tmp_path / "damaged.jpg")
    page.wait_for_selector("#problem:has-text('damaged.jpg cannot be played')")
    for name, sentence in (
        ("NotAllowedError", "The camera was not allowed"),
        ("NotFoundError", "There is no camera."),
        ("NotReadableError", "The camera is in use by another program"),
    ):
        fail = f"async () => {{ throw new DOMException('', '{name}'); }}"
        page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {fail}; }}")
        page.click("#camera")
        page.wait_for_selector(f"#problem:has-text('{sentence}')")
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.evaluate("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.click("#camera")
    page.wait_for_selector("#problem:has-text('secure pages alone')")


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("model.onnx", "model.onnx could not be loaded (404)"),
        ("ort.wasm.min.mjs", "onnxruntime-web could not be loaded"),
    ],
)
def test_a_missing_file_is_a_sentence(missing: str, sentence: str, address: str, browser) -> None:
    page = browser.new_page()
    page.route(f"**/{missing}", lambda route: route.fulfill(status=404))
    page.goto(address)
    assert sentence in problem(page)


def test_opened_as_a_file_the_page_says_how_to_serve_it(exported: Path, browser) -> None:
    page = browser.new_page()
    page.goto((exported / "index.html").as_uri())
    assert "python -m http.server" in problem(page)
