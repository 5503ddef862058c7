"""Folders that measure a latency table on another device, and the way back from what they wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.runtimes import BUNDLES, Entry
from ofa_pose.latency.latency_table import Header, LatencyTable, Samples, read_times
from ofa_pose.latency.measure import Verification, compare, net_part, random_nets
from ofa_pose.latency.pieces import Piece, Subject, table_subjects
from ofa_pose.latency.predictor import Predictor
from ofa_pose.utils import files
from ofa_pose.utils.atomic import check_empty, new_folder
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.web.runtime_files import add_runtime, check_runtime_files, shipped_text

README = """\
This folder times pieces of networks on a device. It needs Python 3.9 or newer, numpy and {package}:

    pip install numpy {package}
    python measure.py --threads 1

It takes minutes on a PC, longer on a small device; cut off, it goes on where it was. Bring results.csv home:

    ofa-pose latency import results.csv --out table.json
"""
WEB_README = """\
This folder times pieces of networks in a browser. Put it on a static server, such as

    python -m http.server

run in this folder, open its page on the device, and press Start. It takes minutes; opened again it goes on where it
was. The screen stays on, and WebGPU is there, only where the address begins with https or is localhost; a phone at a
USB cable sees this machine's server as its own localhost after `adb reverse tcp:8000 tcp:8000`. Bring results.csv home:

    ofa-pose latency import results.csv --out table.json
"""
WEB = "web"
RESUME = "start its measuring again, it goes on where it was"
SEED = 0  # of the networks that verify a table


def write_bundle(
    folder: Path, space: SearchSpace, joints: int, form: str, share: float, nets: int, runtime_files: Path | None = None
) -> int:
    """See `ofa_pose.latency_bundle`: write models, a manifest and a script. Returns how many subjects it times."""
    if form not in (*BUNDLES, WEB):
        raise InputError(f"no such format: '{form}'", hint=nearest(form, (*BUNDLES, WEB)))
    if runtime_files is not None:
        if form != WEB:
            raise InputError("--runtime-files are for a page", hint="add --format web, or leave it out")
        check_runtime_files(runtime_files)
    entry = BUNDLES["onnx" if form == WEB else form]
    if entry.backend.to_write:
        entry.backend.require(*entry.backend.to_write)
    check_empty(folder)
    subjects = table_subjects(space, joints, share)
    own = {_name(one): one for one in subjects if isinstance(one, ArchSpec)}
    checks = {_name(one): one for one in random_nets(space, joints, {*own.values()}, min(nets, space.size), SEED)}
    named = {_name(one): one for one in subjects} | checks
    header: dict[str, Any] = {"space": space.to_dict(), "joints": joints, "backend": entry.name, "share": share}
    header |= {"nets": _plain(own), "checks": _plain(checks)}
    anchor: Subject = space.smallest(joints)
    with new_folder(folder, ("index.html", "measure.py")) as temporary:  # what is started comes when all is there
        manifest = {"header": header, "subjects": _write_models(temporary, {on_device.ANCHOR: anchor, **named}, entry)}
        if form == WEB:
            _write_page(temporary, manifest, runtime_files)
        else:
            _write_script(temporary, manifest, entry)
    return len(named)


def _name(subject: Subject) -> str:
    return str(subject) if isinstance(subject, Piece) else f"net {subject.digest}"


def _plain(nets: dict[str, ArchSpec]) -> dict[str, Any]:
    return {name: spec.to_dict() for name, spec in nets.items()}


def _write_script(folder: Path, manifest: dict[str, Any], entry: Entry) -> None:
    files.write_text(folder / "manifest.json", json.dumps(manifest))
    shutil.copyfile(on_device.__file__, folder / "measure.py")
    files.write_text(folder / "README.txt", README.format(package=entry.backend.packages[0]))


def _write_page(folder: Path, manifest: dict[str, Any], runtime_files: Path | None) -> None:
    """The page tells the results of one bundle from those of another by the manifest's id."""
    text = json.dumps(manifest)
    identity = hashlib.sha256(text.encode()).hexdigest()[:12]
    files.write_text(folder / "manifest.json", json.dumps({"id": identity, **manifest}))
    files.write_text(folder / "README.txt", WEB_README)
    files.write_text(folder / "measure.js", shipped_text("measure.js"))
    files.write_text(folder / "index.html", add_runtime(shipped_text("measure.html"), folder, runtime_files))


def _write_models(folder: Path, subjects: dict[str, Subject], entry: Entry) -> dict[str, dict[str, Any]]:
    """The manifest's lines; a model that serves several sides is written once."""
    folder = folder / "models"
    folder.mkdir()
    written: dict[bytes, str] = {}
    lines = {}
    for name, subject in subjects.items():
        assert entry.backend.bundle
        part = net_part(subject)
        content, more = entry.backend.bundle(part)
        if content not in written:
            written[content] = f"{len(written)}{entry.bundled}"
            (folder / written[content]).write_bytes(content)
        lines[name] = {"model": written[content], "inputs": part.inputs, **more}
    return lines


def import_results(path: Path) -> tuple[LatencyTable, Verification | None]:
    """The table of a bundle's results.csv, and the networks that verify it, if the bundle had such.

    Raises InputError where it is none, or not complete.
    """
    if not path.exists():
        raise InputError("no such file", path, "check the path; measuring on the device writes it")
    files.check_text(path)
    try:
        header, times, ratios = on_device.read_results(path)
        nets, checks = (
            {name: ArchSpec.from_dict(spec, path) for name, spec in header.get(key, {}).items()}
            for key in ("nets", "checks")  # bundles of 0.1 have no checks
        )
        known = nets | checks
        named = ((known.get(name) or Piece.parse(name, path), seen) for name, seen in ratios.items())
        samples: Samples = {subject: read_times(seen) for subject, seen in named}
        times, head = read_times(times), Header.from_dict(header, path)
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"is not a results.csv of a bundle ({error})", path, "measure the bundle again") from None
    expected = table_subjects(head.space, head.joints, head.share)  # in whose order `latency build` writes them too
    table = LatencyTable(head, times, {subject: samples.get(subject, []) for subject in expected})
    table.check_complete(path, RESUME)
    return table, _verification(table, {spec: samples.get(spec, []) for spec in checks.values()}, path)


def _verification(table: LatencyTable, checked: Samples, where: Path) -> Verification | None:
    """Raises InputError where a network has not been measured in every round."""
    waiting = sum(max(table.header.rounds - len(seen), 0) for seen in checked.values())
    if waiting:
        raise InputError(f"measuring was cut off: {waiting:,} timings of whole networks wait", where, RESUME)
    if len(checked) < 2:
        return None
    beside = LatencyTable(table.header, table.anchor, checked)
    return compare(Predictor(table), beside.nets)
