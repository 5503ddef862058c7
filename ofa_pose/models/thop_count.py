"""MACs and parameters counted anew by thop, to hold our own count against."""

from __future__ import annotations

import contextlib
import io

import torch

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.models.litepose import LitePose
from ofa_pose.utils.errors import OfaPoseError


def check_with_thop(spec: ArchSpec) -> int:
    """Recount MACs and parameters with `thop.profile`; its MACs are returned.

    thop leaves buffers and hooks behind, so it gets a throwaway net; one on the meta device has shapes only, which
    is all that counting needs and takes no memory.

    Raises:
        OfaPoseError: thop counts otherwise than we do.
    """
    import thop

    with torch.device("meta"):
        net = LitePose(spec)
        image = torch.empty(1, 3, spec.resolution, spec.resolution)
    with contextlib.redirect_stdout(io.StringIO()):
        macs, params = thop.profile(net, inputs=(image,), verbose=False)
    counted = (spec_macs(spec).thop, spec_params(spec))
    if (macs, params) != counted:
        raise OfaPoseError(f"{spec}: thop counts {macs:.0f} MACs and {params:.0f} parameters, we count {counted}")
    return int(macs)
