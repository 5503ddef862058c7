"""What a shell completes after an option or argument that takes one of several values; elsewhere it names files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from ofa_pose.api.evaluating import DECODINGS
from ofa_pose.backends.runtimes import BACKENDS, BUNDLES
from ofa_pose.monitor.event_files import LOGS
from ofa_pose.utils import files


def complete(function: str, parameter: str) -> Callable[[str], list[str]] | None:
    """What gives the values of a command's parameter that begin with a text; None where it may have any."""
    values = VALUES.get(f"{function}.{parameter}", VALUES.get(parameter))
    if values is None:
        return None
    return lambda incomplete: [value for value in values() if value.startswith(incomplete)]


def _shipped(kind: str) -> list[str]:
    return sorted(path.stem for path in files.shipped_folder(kind).glob("*.yaml"))


def _nets() -> Iterable[str]:
    from ofa_pose.families.table import all_presets

    return all_presets()


def _formats() -> Iterable[str]:
    from ofa_pose.exports.formats import FORMATS

    return FORMATS


def _algorithms() -> Iterable[str]:
    from ofa_pose.recipe import ALGORITHM_NAMES

    return ALGORITHM_NAMES


def _conventions() -> Iterable[str]:
    from ofa_pose.costs.macs import CONVENTIONS

    return CONVENTIONS


def _metrics() -> Iterable[str]:
    from ofa_pose.pose.metrics import METRICS

    return METRICS


def _skeletons() -> Iterable[str]:
    from ofa_pose.skeleton import BUILT_IN

    return BUILT_IN


VALUES: dict[str, Callable[[], Iterable[str]]] = {  # by parameter, or by function and parameter
    "ablation": partial(_shipped, files.STUDIES),
    "algorithm": _algorithms,
    "arch": _nets,
    "backend": lambda: BACKENDS,
    "backends": lambda: BACKENDS,
    "base": _nets,
    "checkpoint": files.shipped_weights,
    "data_convert.format": lambda: ("coco", "yolo"),
    "data_convert.skeleton": _skeletons,
    "data_synth.joints": _skeletons,
    "decoding": lambda: DECODINGS,
    "device": lambda: ("cpu", "cuda"),
    "formats": _formats,
    "init": files.shipped_weights,
    "latency_bundle.format": lambda: (*BUNDLES, "web"),
    "latency_compare.nets": _nets,
    "log": lambda: LOGS,
    "macs_convention": _conventions,
    "metric": _metrics,
    "net": _nets,
    "recipe": partial(_shipped, "recipes"),
    "space": partial(_shipped, "search_spaces"),
    "subnet": _nets,
    "teacher": files.shipped_weights,
}
