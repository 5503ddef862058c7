"""Optional packages: which extra brings them, or, on a device, how to install them alone."""

from __future__ import annotations

import importlib.util

from ofa_pose.backends.on_device import runtime_module
from ofa_pose.utils.errors import InputError

EXTRAS = {  # of a package: what needs it, and our extra that brings it
    "onnx": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "ncnn": ("ncnn", "ncnn"),
}


def require_packages(*packages: str) -> None:
    """Raise InputError that says what to install where one of these optional packages is missing or broken.

    That is our extra; where there is no torch, as on a device, it is the package alone: the extra would bring torch.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            what, extra = EXTRAS[package]
            wanted = f"'ofa-pose[{extra}]'" if importlib.util.find_spec("torch") else package
            raise InputError(f"{what} needs the package {package}", hint=f"pip install {wanted}")
        try:
            runtime_module(package)
        except (ImportError, OSError) as error:  # such as a shared library that is not there
            what = f"the package {package} is installed and cannot be imported ({' '.join(str(error).split())})"
            raise InputError(what, hint=f"pip install --force-reinstall {package}, or see what it needs") from None
