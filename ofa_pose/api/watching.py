"""`ofa_pose.watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ofa_pose.api.decorators import check_range, single_process

if TYPE_CHECKING:
    from ofa_pose.monitor.run_state import RunState


@single_process
def watch(run: str | Path, *, every: float = 2.0, once: bool = False) -> RunState:
    """Show how far a training or a search is: curves, last figures, speed, time left, where the last poses are drawn.

    It reads the run directory alone, so that it may be started and ended at any time, in another terminal or on another
    machine that has the folder. Ends with the run, or by Ctrl-C, which ends nothing else. Of a run that was cut off it
    says how to go on.

    Example: ofa-pose watch runs/supernet

    Args:
        run: run directory of a training or a search; on a terminal one that is not there yet is waited for.
        every: seconds between two looks.
        once: show it once and end, as where stderr is not a terminal.

    Raises:
        InputError: there is no training and no search in the directory.
    """
    from ofa_pose.monitor.live import watch_run

    check_range(0.1, 10**6, every=every)
    return watch_run(run, every, once)
