"""Whether what was read is what was written, to the last bit: torch does not look at its files' check sums."""

from __future__ import annotations

import hashlib
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


def first_damaged(path: Path) -> str | None:
    """The first entry of a zip archive that is not what its check sum says; None: all are, or it is no zip archive."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        return str(error)
