"""`ofa-pose` and `python -m ofa_pose` are the command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; where a package is missing, as on a device that has the runtime alone, say so in a line."""
    _open_closed_streams()
    try:
        from ofa_pose.cli import run

        sys.exit(run())
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "ofa_pose":
            raise
        hint = "pip install ofa-pose without --no-deps; exported models run without it: see ofa_pose.runtime"
        print(f"error: the command line needs the package {error.name.partition('.')[0]}; {hint}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # while it is imported
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


def _open_closed_streams() -> None:
    """Give stdin, stdout and stderr a place where the caller closed them (`>&-`).

    Otherwise the next file that is opened gets such a stream's number, and with it what libraries print there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)  # its children have one too
            setattr(sys, name, stream)  # until the process ends


if __name__ == "__main__":
    main()
