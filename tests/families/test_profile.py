"""The costs of a network of any family, and thop's word on them."""

from __future__ import annotations

import pytest

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs import macs
from ofa_pose.costs.macs import Macs, spec_macs
from ofa_pose.families import profile
from ofa_pose.families.table import load_net
from ofa_pose.utils.errors import OfaPoseError

# G multiply-adds in the paper's convention at 17 joints, and as the paper prints them: M and L do not round to that.
LITEPOSE = {"xs": ("1.205", "1.2"), "s": ("4.992", "5.0"), "m": ("7.854", "7.8"), "l": ("13.730", "13.8")}
TINY = ArchSpec(64, 8, (8, 12, 16, 20), ((2,), (3,), (2,), (2,)), (8, 12, 8), kernel=3, joints=5)


@pytest.mark.parametrize("name", LITEPOSE)
def test_litepose_beside_the_papers_figures(name: str) -> None:
    counted, published = LITEPOSE[name]
    macs = profile.profile_net(load_net(f"litepose-{name}"))["macs"]["paper"] / 1e9
    assert f"{macs:.3f}" == counted
    assert (f"{macs:.1f}" == published) == (name in ("xs", "s"))
    assert abs(macs / float(published) - 1) < 0.01


def test_thop_agrees_and_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.check_with_thop(TINY) == spec_macs(TINY).thop
    assert profile.check_with_thop(TINY) == spec_macs(TINY).thop  # nothing left behind by the first
    assert capsys.readouterr().out == ""


def test_thop_that_disagrees_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macs, "spec_macs", lambda spec: Macs(1, 2, 3))
    with pytest.raises(OfaPoseError, match="thop counts"):
        profile.check_with_thop(TINY)
