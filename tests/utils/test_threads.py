"""How a training's threads wait is set before torch is imported, and not where the environment says it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
import ofa_pose
from ofa_pose.utils.errors import InputError
{before}
try:
    ofa_pose.pretrain("none", recipe="nano", device="cpu")
except InputError:
    pass
assert "torch" in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"))
"""


def waiting(before: str = "", **environment: str) -> tuple[str, str]:
    """The variable after a refused training, and what OpenMP says at its start of the settings that it took."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    environment = {**own, "OMP_DISPLAY_ENV": "TRUE", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()[-1], done.stderr


@pytest.mark.slow
def test_threads_sleep() -> None:
    found, openmp = waiting()
    assert found == "PASSIVE"
    if sys.platform == "linux" and "OMP_WAIT_POLICY" in openmp:
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in openmp


@pytest.mark.parametrize("policy", ["ACTIVE", pytest.param("PASSIVE", marks=pytest.mark.slow)])
def test_what_the_environment_says_stays(policy: str) -> None:
    assert waiting(OMP_WAIT_POLICY=policy)[0] == policy


def test_nothing_is_set_once_torch_is_there() -> None:
    assert waiting("import torch")[0] == "None"
