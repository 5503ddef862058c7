"""Make a small checkpoint of a run: its best weights in half precision, without the paths of its data.

Usage: ship_weights.py RUN OUT.pt
"""

from __future__ import annotations

import sys
from dataclasses import replace

from ofa_pose.checkpoints.checkpoint import load_checkpoint, save_checkpoint


def main(run: str, out: str) -> None:
    """Read RUN's best checkpoint and write OUT."""
    source = load_checkpoint(run, kind="net")
    weights = {name: value.half() if value.is_floating_point() else value for name, value in source.weights.items()}
    recipe = {key: value for key, value in source.recipe.items() if key != "data"}
    save_checkpoint(out, replace(source, weights=weights, recipe=recipe, training=None))


if __name__ == "__main__":
    main(*sys.argv[1:])
