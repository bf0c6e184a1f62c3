"""`link: true`: a large file of the user's becomes the store's own, and its bytes are on the disk once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli.commands import Workshop
from making_onnx import save_table

ROWS = 17 << 10
SPEC = """\
models:
  table:
    source: {path: table.onnx, link: LINK}
    golden: {ranges: {ids: {low: 0, high: 9}}}
    max_batch_size: 4
"""


def served(forge: Workshop) -> Path:
    [data] = (forge.folder / "build" / "local" / "current" / "models" / "table").rglob("table.bin")
    return data


@pytest.fixture
def data(workshop: Workshop) -> Path:
    return save_table(workshop.folder / "table.onnx", ROWS, 1)


@pytest.mark.parametrize("link", [True, False])
def test_the_bytes_are_on_the_disk_once_where_that_is_allowed(workshop: Workshop, data: Path, link: bool) -> None:
    workshop.write(SPEC.replace("LINK", str(link).lower()))
    workshop.build()
    assert served(workshop).read_bytes() == data.read_bytes()
    assert served(workshop).samefile(data) is link
    assert bool(data.stat().st_mode & 0o222) is not link
    assert not (workshop.folder / "table.onnx").samefile(served(workshop).with_name("model.onnx"))
    assert workshop.build()["steps"]["built"] == 0


def test_a_file_that_was_replaced_is_another_version(workshop: Workshop, data: Path) -> None:
    workshop.write(SPEC.replace("LINK", "true"))
    workshop.build()
    old = served(workshop).read_bytes()
    save_table(workshop.folder / "table.onnx", ROWS, 2)
    workshop.build()
    assert "/2/" in str(served(workshop))
    assert served(workshop).read_bytes() == data.read_bytes() != old


def test_what_somebody_writes_into_it_all_the_same_is_seen(workshop: Workshop, data: Path) -> None:
    """The release that was made of it is damaged, and not believed: the next build makes one of what is there now."""
    workshop.write(SPEC.replace("LINK", "true"))
    before = workshop.build()["release"]
    data.chmod(0o644)
    with data.open("r+b") as stream:
        stream.write(np.full(64, 0.5, np.float32).tobytes())
    after = workshop.build()
    assert after["new"] and after["release"] != before
    assert served(workshop).read_bytes() == data.read_bytes()


def test_only_a_path_can_be_linked(workshop: Workshop) -> None:
    workshop.write(SPEC.replace("path: table.onnx, link: LINK", 'package: magika, file: "a.onnx", link: true'))
    ran = workshop.run("build")
    assert ran.code == 2
    assert "`link` goes with `path`" in ran.err
