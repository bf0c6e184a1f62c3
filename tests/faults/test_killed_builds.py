"""What a build that was killed must not take back, and what it replaces while others read it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from faults.conftest import Stage


def test_a_number_is_not_given_again_when_its_release_never_came_out(second_build: Stage, tmp_path: Path) -> None:
    site = second_build.before.copy(tmp_path / "site")
    site.run("release.stage")  # the lock knows version 2, and no release has it
    site.write("third")
    site.good()
    document = json.loads((site.build / "current" / "release.json").read_bytes())
    assert {entry["folder"]: entry["version"] for entry in document["models"]} == {"net": 1, "label": 3}


def test_a_release_that_somebody_damaged_is_replaced_without_ever_being_away(
    first_build: Stage, tmp_path: Path
) -> None:
    site = first_build.after.copy(tmp_path / "site")
    model = site.build / "current" / "models" / "net" / "1" / "model.onnx"
    model.unlink()
    ran = site.run("release.rename")
    assert ran.returncode == -signal.SIGKILL
    assert (site.build / "current" / "release.json").exists()
    ran = site.run("release.renamed")
    assert ran.returncode == -signal.SIGKILL
    assert site.current() == first_build.after.current()
    site.good()
    assert site.files() == first_build.after.files()
    assert site.left_over() == []
