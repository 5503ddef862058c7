"""YAML whose `1e-3` is a number, as YAML 1.2 has it; a file of its own, so that no device needs PyYAML."""

from __future__ import annotations

import re

import yaml


class NumberLoader(yaml.SafeLoader):
    """safe_load that also reads `1e-3` as a number, where PyYAML reads a string."""


class NumberDumper(yaml.SafeDumper):
    """safe_dump that quotes the strings which `NumberLoader` would read as numbers."""


for _side in (NumberLoader, NumberDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)$"),
        list("-+.0123456789"),
    )
