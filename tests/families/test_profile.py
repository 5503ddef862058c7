"""The costs of a network of any family, and thop's word on them."""

from __future__ import annotations

import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs import macs
from ofa_pose.costs.macs import Macs, spec_macs
from ofa_pose.families import profile
from ofa_pose.utils.errors import OfaPoseError

TINY = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3,), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


def test_thop_agrees_and_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.check_with_thop(TINY) == spec_macs(TINY).thop
    assert profile.check_with_thop(TINY) == spec_macs(TINY).thop  # nothing left behind by the first
    assert capsys.readouterr().out == ""


def test_thop_that_disagrees_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macs, "spec_macs", lambda spec: Macs(1, 2, 3))
    with pytest.raises(OfaPoseError, match="thop counts"):
        profile.check_with_thop(TINY)
