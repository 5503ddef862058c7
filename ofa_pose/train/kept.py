"""The checkpoints that a training goes on from: the newest, last.pt, and some before it, in case that is damaged."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ofa_pose.checkpoints.checkpoint import Checkpoint, DamagedCheckpoint, load_checkpoint, save_checkpoint
from ofa_pose.recipe import TrainSettings
from ofa_pose.utils.console import warn
from ofa_pose.utils.run_dir import RunDir, has_begun, kept_checkpoints


class KeptCheckpoints:
    """Those of one run: last.pt of the newest, last-STEP.pt of the older ones.

    Attributes:
        step: of last.pt, as it was written or read; None where there is none, or a damaged one.
    """

    def __init__(self, run: RunDir, settings: TrainSettings) -> None:
        self._run, self._settings = run, settings
        self._written = time.monotonic()
        self._damaged: list[Path] = []
        self.step: int | None = None

    def are_due(self, step: int) -> bool:
        """Whether one is to be written after a step."""
        return self._settings.is_due(step, time.monotonic() - self._written)

    def read(self) -> Checkpoint:
        """The newest that is whole; a warning names those that are not. Raises InputError where none is."""
        found, damaged = newest_whole(self._run.path)
        for error in damaged:
            what, where = error.faults[0].what, error.faults[0].where
            warn(f"{where}: {what}; the checkpoint before it is taken, of step {(found.training or {}).get('step')}")
        self._damaged = [Path(error.faults[0].where) for error in damaged]
        if found.path == self._run.last and found.training:
            self.step = found.training.get("step")
        return found

    def write(self, step: int, checkpoint: Checkpoint) -> None:
        """Write last.pt; what it was becomes an older one, of which as many stay as the settings say."""
        last = self._run.last
        if self.step is not None and self.step != step and last.exists() and self._settings.keep > 1:
            before = last.with_name(f"last-{self.step}.pt")
            before.unlink(missing_ok=True)
            try:
                os.link(last, before)  # there is a last.pt at any time
            except OSError:  # a file system without links
                last.rename(before)
        save_checkpoint(last, checkpoint)
        self.note(step)
        older = [path for path in kept_checkpoints(self._run.path) if path not in (last, *self._damaged)]
        for path in (*older[self._settings.keep - 1 :], *(path for path in self._damaged if path != last)):
            path.unlink(missing_ok=True)

    def note(self, step: int) -> None:
        """Take note that last.pt is that of a step, whichever process wrote it."""
        self.step, self._written = step, time.monotonic()


def going_on(run: str | Path, resume: bool) -> Checkpoint | None:
    """What a run goes on from, in the place of all that it began from; None where it begins.

    Raises InputError where a resumed run has checkpoints, and none is whole.
    """
    return newest_whole(Path(run))[0] if resume and has_begun(Path(run)) else None


def newest_whole(run: Path) -> tuple[Checkpoint, list[DamagedCheckpoint]]:
    """The newest checkpoint in a training's directory that is whole, and what is wrong with those after it.

    Raises InputError where none is whole.
    """
    damaged: list[DamagedCheckpoint] = []
    for path in kept_checkpoints(run):
        try:
            return load_checkpoint(path), damaged
        except DamagedCheckpoint as error:
            damaged.append(error)
    raise damaged[0]
