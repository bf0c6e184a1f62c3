"""Specs of a thousand models, models over 2 GB, repositories of 20 GB: what they cost, and that they answer.

A thousand models are not served here: the embedded Triton has a process for each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli.commands import PROGRAM, Serving, Workshop
from making_onnx import batched_add, save, save_table

from tritonforge.artifact.store import default_home

pytestmark = pytest.mark.exhaustive

MEASURED = """\
import json, resource, subprocess, sys
ran = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL)
print(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024), file=sys.stderr)
sys.exit(ran.returncode)
"""
GB = 1_000_000_000
TABLE = """\
  NAME:
    source: {path: NAME.onnx, link: true}
    golden: {ranges: {ids: {low: 0, high: 99}}}
    max_batch_size: 4
"""


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Workshop]:
    yield Workshop.make(tmp_path / "w", default_home() / "runtimes")
    shutil.rmtree(tmp_path / "w")  # gigabytes that pytest would keep


def build(forge: Workshop) -> tuple[dict, int]:
    """The outcome of a build, and the most memory in bytes that one of its processes held."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(PROGRAM), "build", "--json"],
        cwd=forge.folder,
        env=forge.environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)["platforms"][0], int(ran.stderr.splitlines()[-1])


def room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        pytest.skip(f"{needed / GB:.0f} GB of the disk are needed, {free / GB:.0f} GB are free")


def on_disk(forge: Workshop, apart: set[int]) -> int:
    """The bytes of all files that a build made, each inode once."""
    sizes = {}
    for root in (forge.home / "store", forge.folder / "build"):
        for path in root.rglob("*"):
            found = path.lstat()
            if path.is_file() and not path.is_symlink() and found.st_ino not in apart:
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def test_a_spec_of_a_thousand_models(large: Workshop) -> None:
    for number in range(1000):
        save(large.folder / f"m{number}.onnx", batched_add(float(number)))
    large.write("models:\n" + "".join(f"  m{number}: {{source: m{number}.onnx}}\n" for number in range(1000)))
    first, memory = build(large)
    assert (first["steps"]["built"], len(large.published())) == (3000, 1000)
    assert memory < 500e6
    again, _ = build(large)
    assert (again["steps"]["built"], again["steps"]["cached"], again["release"]) == (0, 3000, first["release"])
    save(large.folder / "m500.onnx", batched_add(0.5))
    changed, _ = build(large)
    assert (changed["steps"]["built"], changed["steps"]["cached"]) == (3, 2997)
    assert {name: entry["version"] for name, entry in large.published().items() if entry["version"] > 1} == {"m500": 2}
    plan = large.json("plan")["platforms"][0]
    assert {step["action"] for step in plan["steps"]} == {"keep"}


@pytest.mark.parametrize(("count", "gigabytes"), [pytest.param(1, 4, id="4 GB"), pytest.param(5, 4, id="20 GB")])
def test_models_over_2_gb(large: Workshop, count: int, gigabytes: int) -> None:
    """Nothing holds a model's weights in memory, and nothing writes them a second time."""
    total = count * gigabytes * GB
    room(large.folder, total + 4 * GB)
    names = [f"table{number}" for number in range(count)]
    rows = gigabytes * GB >> 10
    for seed, name in enumerate(names):
        save_table(large.folder / f"{name}.onnx", rows, seed)
    os.sync()
    own = {path.stat().st_ino for path in large.folder.iterdir()}
    large.write("models:\n" + "".join(TABLE.replace("NAME", name) for name in names))
    first, memory = build(large)
    assert sum(entry["version"] == 1 for entry in large.published().values()) == count
    assert memory < 600e6
    assert on_disk(large, own) < 0.01 * total
    again, memory = build(large)
    assert (again["steps"]["built"], again["release"]) == (0, first["release"])
    assert memory < 300e6
    if count == 1:
        last = np.fromfile(large.folder / "table0.bin", np.float32, 256, offset=(rows - 1) << 10)
        with Serving.start(large, timeout=300):
            answer = large.json("infer", "table0", f"[[{rows - 1}]]")
        np.testing.assert_array_equal(np.ravel(answer["outputs"]["rows"]).astype(np.float32), last)
