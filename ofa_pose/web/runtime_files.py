"""Pages that run on onnxruntime-web: where they load it from, a folder beside them or its CDN."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

from ofa_pose.utils.errors import InputError

VERSION = "1.30.0"  # of onnxruntime-web, from its CDN
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
BESIDE = "onnxruntime-web/"  # the folder in which a page finds the files that were copied
# What a page imports for a backend, then what that loads.
NEEDED = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
PLACE = 'name="onnxruntime-web" content=""'  # on a page: the address where its runtime is, which ends in a slash


def check_runtime_files(files: Path) -> None:
    """Raise InputError where a folder lacks some of the runtime's files."""
    missing = [name for names in NEEDED.values() for name in names if not (files / name).is_file()]
    if missing:
        what = f"is not a folder with onnxruntime-web's files ({missing[0]} is missing)"
        hint = f"npm install onnxruntime-web@{VERSION}, then name node_modules/onnxruntime-web/dist"
        raise InputError(what, files, hint)


def add_runtime(page: str, folder: Path, files: Path | None) -> str:
    """A page's HTML with the address of its runtime in its `<meta name="onnxruntime-web" content="">`.

    The runtime's files are copied from the folder `files` into a new one in `folder`; without `files` they come from
    the CDN when the page is opened. Raises InputError, as `check_runtime_files` does.
    """
    address = CDN
    if files is not None:
        check_runtime_files(files)
        address = f"./{BESIDE}"
        (folder / BESIDE).mkdir()
        for name in (name for names in NEEDED.values() for name in names):
            shutil.copyfile(files / name, folder / BESIDE / name)
    before, after = page.split(PLACE)
    return f'{before}name="onnxruntime-web" content="{html.escape(address)}"{after}'


def shipped_text(name: str) -> str:
    """A file of this folder, such as `measure.html`."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
