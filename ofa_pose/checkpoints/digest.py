"""Whether what was read is what was written, to the last bit: torch does not look at its files' check sums."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def digest(value: Any) -> str:
    """The hexadecimal SHA-256 of a value made of dicts, lists, tuples, texts, numbers, None and dense tensors.

    It goes with what the value holds, not with how a file holds it: with every tensor's dtype, shape and bits, in the
    order of the dicts.
    """
    found = hashlib.sha256()
    _add(value, found)
    return found.hexdigest()


def _add(value: Any, found: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        found.update(f"dict {len(value)};".encode())
        for key, inner in value.items():
            _add(key, found)
            _add(inner, found)
    elif isinstance(value, list | tuple):
        found.update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)};".encode())
        for inner in value:
            _add(inner, found)
    else:
        text = repr(value).encode()
        found.update(f"{type(value).__name__} {len(text)};".encode() + text)


class WrongSum(ValueError):
    """A part of a file is not what its check sum says."""


def read_torch(path: Path) -> Any:
    """The value in a file of `torch.save`, tensors and plain values only; damaged bytes raise whatever they lead to.

    Raises:
        WrongSum: a bit of it has changed since it was written.
    """
    if zipfile.is_zipfile(path):  # before 2020 they were none
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise WrongSum(damaged)
    with warnings.catch_warnings():  # such as that it is a TorchScript archive
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)
