"""Our modules in Node: a script's text is run on JSON and numbers, and gives JSON and numbers back."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGES = Path(__file__).resolve().parents[2] / "ofa_pose" / "web"
SCRIPT = """
import {{ readFileSync, writeFileSync }} from "node:fs";
import * as module from "{module}";
const [folder] = process.argv.slice(1);
const bytes = readFileSync(`${{folder}}/numbers`);
const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
let start = 0;
const take = (count) => numbers.subarray(start, (start += count));
const results = JSON.parse(readFileSync(`${{folder}}/cases.json`)).map((one) => ({function})(one, take));
writeFileSync(`${{folder}}/results.json`, JSON.stringify(results));
"""


def run_node(module: str, function: str, cases: Sequence[Any], arrays: Sequence[np.ndarray], folder: Path) -> list[Any]:
    """What `function`, the text of (case, take) => …, gives for each case, in one process.

    In it `module` is that module of the pages, and `take(count)` the next numbers of the arrays as a Float32Array.
    """
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node: apt-get install nodejs")
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "numbers").write_bytes(b"".join(array.astype("<f4").tobytes() for array in arrays))
    script = SCRIPT.format(module=(PAGES / module).as_uri(), function=function)
    subprocess.run([node, "--input-type=module", "-e", script, str(folder)], check=True, timeout=300)
    results: list[Any] = json.loads((folder / "results.json").read_text())
    return results
