"""ofa-pose: fit LitePose, multi-person pose estimation, to a device's budget.

    poses = ofa_pose.load("runs/finetuned")("photo.jpg")
    found = ofa_pose.search("runs/supernet", macs="1.2G", out="runs/search")

Every command of the shell is a function here, with the options as keyword arguments. Importing the package is light;
torch comes with the first call that needs it. A device without torch loads exported models with `ofa_pose.runtime`.
"""

from ofa_pose.api.datasets import data_check, data_convert, data_synth
from ofa_pose.api.decorators import quiet
from ofa_pose.api.evaluating import evaluate, load, predict
from ofa_pose.api.exchanging import export, import_litepose
from ofa_pose.api.profiling import (
    latency_build,
    latency_bundle,
    latency_compare,
    latency_import,
    latency_verify,
    profile,
)
from ofa_pose.api.searching import fidelity, report, search, table
from ofa_pose.api.studying import demo, study
from ofa_pose.api.training import finetune, pretrain, train_supernet
from ofa_pose.api.watching import watch

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "data_check",
    "data_convert",
    "data_synth",
    "demo",
    "evaluate",
    "export",
    "fidelity",
    "finetune",
    "import_litepose",
    "latency_build",
    "latency_bundle",
    "latency_compare",
    "latency_import",
    "latency_verify",
    "load",
    "predict",
    "pretrain",
    "profile",
    "quiet",
    "report",
    "search",
    "study",
    "table",
    "train_supernet",
    "watch",
]
