"""Record what the command line does now: `python -m tests.compat.record [WORLD]` writes transcript.json and world/.

What it writes is what the tests compare later code with, so it is run on code whose behaviour is to be kept. WORLD is a
folder that does not exist yet; it is removed at the end, but its path stands in the checkpoints of world/. With
--keep-world only transcript.json is written, on the world/ that there is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.compat.replay import PARTS, Said, calm, keep_world, make_call, prepare, read_calls, write_transcript
from tests.compat.settings import write_settings


@contextmanager
def captured() -> Iterator[Said]:
    """Send stdout and stderr to files; gives what tells what they have taken since it was asked last."""
    streams = (sys.stdout, sys.stderr)
    kept = [os.dup(stream.fileno()) for stream in streams]

    def said() -> tuple[str, str]:
        told = []
        for stream, file in zip(streams, files, strict=True):
            stream.flush()
            told.append(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode())
            os.ftruncate(file.fileno(), 0)
            os.lseek(stream.fileno(), 0, os.SEEK_SET)
        return told[0], told[1]

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = (out, err)
        for stream, file in zip(streams, files, strict=True):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        try:
            yield said
        finally:
            for stream, number in zip(streams, kept, strict=True):
                stream.flush()
                os.dup2(number, stream.fileno())
                os.close(number)


def make(part: str, folder: Path) -> list[dict[str, Any]]:
    """Make the calls of one part; what they did."""
    told = []
    for line, leaves in read_calls(part):
        start = sum(os.times()[:4])
        with captured() as said:
            told.append(make_call(line, folder, said, leaves, fixed=part == "old"))
        done = told[-1]
        print(f"{sum(os.times()[:4]) - start:5.1f} s  {done['code']}  {line}", *done["errors"], sep="\n         ")
    return told


def write_world(folder: Path) -> None:
    """Make the old world in `folder` and copy what is worth keeping of it to world/."""
    folder.mkdir(parents=True)
    write_settings(folder)
    assert all(done["code"] == 0 for done in make("world", folder))
    table = folder / "table" / "table.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:4]))  # as if it had been killed
    shutil.copyfile(folder / "bundle" / "results.csv", folder / "results.csv")
    (folder / "supernet" / "checkpoints" / "last.pt").unlink()
    keep_world(folder)
    shutil.rmtree(folder)


def main() -> None:
    calm()
    if "--keep-world" not in sys.argv:
        write_world(Path(sys.argv[1] if len(sys.argv) > 1 else "recorded").resolve())
    transcript = {}
    for part in PARTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            prepare(part, folder)
            transcript[part] = make(part, folder)
    write_transcript(transcript)


if __name__ == "__main__":
    main()
