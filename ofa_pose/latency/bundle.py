"""Folders that measure a latency table on another device, and the way back from what they wrote."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.backends import on_device
from ofa_pose.backends.runtimes import BUNDLES, Entry
from ofa_pose.latency.latency_table import Header, LatencyTable, Samples, read_times
from ofa_pose.latency.measure import net_part
from ofa_pose.latency.pieces import Piece, Subject, table_subjects
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError, nearest

README = """\
This folder times pieces of networks on a device. It needs Python 3.9 or newer, numpy and {package}:

    pip install numpy {package}
    python measure.py --threads 1

It takes minutes on a PC, longer on a small device; cut off, it goes on where it was. Bring results.csv home:

    ofa-pose latency import results.csv --out table.json
"""


def write_bundle(folder: Path, space: SearchSpace, joints: int, form: str, share: float) -> int:
    """See `ofa_pose.latency_bundle`: write models, a manifest and a script. Returns how many subjects it times."""
    if form not in BUNDLES:
        raise InputError(f"no such format: '{form}'", hint=nearest(form, BUNDLES))
    entry = BUNDLES[form]
    if entry.backend.to_write:
        entry.backend.require(*entry.backend.to_write)
    files.check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError("is not empty", folder, "name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    subjects = {
        str(one) if isinstance(one, Piece) else f"net {one.digest}": one for one in table_subjects(space, joints, share)
    }
    nets = {name: one.to_dict() for name, one in subjects.items() if isinstance(one, ArchSpec)}
    header = {"space": space.to_dict(), "joints": joints, "backend": entry.name, "share": share, "nets": nets}
    anchor: Subject = space.smallest(joints)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        temporary = Path(name)
        entries = _write_models(temporary / "models", {on_device.ANCHOR: anchor, **subjects}, entry)
        files.write_text(temporary / "manifest.json", json.dumps({"header": header, "subjects": entries}))
        shutil.copyfile(on_device.__file__, temporary / "measure.py")
        files.write_text(temporary / "README.txt", README.format(package=entry.backend.packages[0]))
        for name in ("models", "manifest.json", "README.txt", "measure.py"):  # the script when all is there
            (temporary / name).replace(folder / name)
    return len(subjects)


def _write_models(folder: Path, subjects: dict[str, Subject], entry: Entry) -> dict[str, dict[str, Any]]:
    """The manifest's lines; a model that serves several sides is written once."""
    folder.mkdir()
    written: dict[bytes, str] = {}
    lines = {}
    for name, subject in subjects.items():
        assert entry.backend.bundle
        part = net_part(subject)
        content, more = entry.backend.bundle(part)
        if content not in written:
            written[content] = f"{len(written)}{entry.suffix}"
            (folder / written[content]).write_bytes(content)
        lines[name] = {"model": written[content], "inputs": part.inputs, **more}
    return lines


def import_results(path: Path) -> LatencyTable:
    """The table of a bundle's results.csv. Raises InputError where it is none, or not complete."""
    try:
        header, times, ratios = on_device.read_results(path)
        nets = {name: ArchSpec.from_dict(spec, path) for name, spec in header["nets"].items()}
        named = ((nets.get(name) or Piece.parse(name, path), seen) for name, seen in ratios.items())
        samples: Samples = {subject: read_times(seen) for subject, seen in named}
        times, head = read_times(times), Header.from_dict(header, path)
    except FileNotFoundError:
        raise InputError("no such file", path, "check the path") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"is not a results.csv of a bundle ({error})", path, "run its measure.py again") from None
    expected = table_subjects(head.space, head.joints, head.share)  # in whose order `latency build` writes them too
    table = LatencyTable(head, times, {subject: samples.get(subject, []) for subject in expected})
    table.check_complete(path, "start measure.py again, it goes on where it was")
    return table
