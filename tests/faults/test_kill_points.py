"""At every durable step: kill the build, or fill the disk. What is visible stays whole; the next build ends well."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from faults.conftest import Site, Stage
from tritonforge.durable import FAULT_POINTS

IN_WORKER = tuple(name for name in FAULT_POINTS if name.startswith("store."))
ONLY_WITH_A_RELEASE_BEFORE = ("release.prune",)
ONLY_AT_FIRST = ("evidence.rename",)  # only the ONNX model has a comparison, and it does not change

FIRST = [name for name in FAULT_POINTS if name not in ONLY_WITH_A_RELEASE_BEFORE]
SECOND = [name for name in FAULT_POINTS if name not in ONLY_AT_FIRST]
slow = pytest.mark.slow
HOW = [pytest.param("", id="kill"), pytest.param(":enospc", id="full", marks=slow)]
FORGIVEN = ("release.prune:enospc",)  # the release is out; what could not be deleted goes next time


def expect_failure(ran: subprocess.CompletedProcess[str], fault: str) -> None:
    name, _, how = fault.partition(":")
    if fault in FORGIVEN:
        assert ran.returncode == 0
    elif how == "enospc":
        assert ran.returncode == 3, ran.stderr
        assert "No space left on device" in ran.stderr
        assert "Traceback" not in ran.stderr
    elif name in IN_WORKER:
        assert ran.returncode == 1, ran.stderr
        assert "died" in ran.stderr
        assert "SIGKILL" in ran.stderr
    else:
        assert ran.returncode == -signal.SIGKILL, ran.stderr


def disturb_and_recover(stage: Stage, root: Path, fault: str) -> None:
    site = stage.before.copy(root)
    old = site.current()
    wanted = stage.after.current()
    expect_failure(site.run(fault), fault)
    assert site.current() in (old, wanted), "what is current is the old release or the new one"
    outcome = site.good()
    assert outcome["release"] == wanted == site.current()
    assert site.files() == stage.after.files()
    assert site.lock == stage.after.lock
    assert site.left_over() == []
    kept = [path.name for path in (site.build / "releases").iterdir()]
    assert kept == [wanted]
    evidence = sorted(path.name for path in (site.build / "evidence").rglob("*.json"))
    assert len(evidence) == 1
    again = site.good()
    assert (again["new"], again["flipped"], again["steps"]["built"]) == (False, False, 0)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [name if name in ONLY_AT_FIRST else pytest.param(name, marks=slow) for name in FIRST])
def test_a_first_build_that_is_disturbed(first_build: Stage, tmp_path: Path, name: str, how: str) -> None:
    disturb_and_recover(first_build, tmp_path / "site", name + how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", SECOND)
def test_a_build_over_an_older_release_that_is_disturbed(
    second_build: Stage, tmp_path: Path, name: str, how: str
) -> None:
    disturb_and_recover(second_build, tmp_path / "site", name + how)


def test_every_point_is_gone_through() -> None:
    assert {*FIRST, *SECOND} == set(FAULT_POINTS)


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


def test_two_builds_of_one_spec_at_once(first_build: Stage, tmp_path: Path) -> None:
    site = first_build.before.copy(tmp_path / "site")
    builds = [
        subprocess.Popen(
            site.command("build"), env=site.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outcomes = []
    for build in builds:
        out, err = build.communicate(timeout=120)
        assert build.returncode == 0, err
        outcomes.append(json.loads(out)["platforms"][0])
    assert [item["release"] for item in outcomes] == [first_build.after.current()] * 2
    assert sorted(item["new"] for item in outcomes) == [False, True]
    assert sorted(item["steps"]["built"] for item in outcomes) == [0, 4]
    assert site.files() == first_build.after.files()
    assert site.lock == first_build.after.lock
    assert site.left_over() == []


def test_two_specs_with_equal_models_share_a_store_at_once(first_build: Stage, tmp_path: Path) -> None:
    one = first_build.before.copy(tmp_path / "one")
    two = Site(tmp_path / "two").write()
    builds = [
        subprocess.Popen(site.command("build"), env=one.environment(), stdout=subprocess.PIPE, text=True)
        for site in (one, two)
    ]
    for build in builds:
        build.communicate(timeout=120)
        assert build.returncode == 0
    assert one.current() == two.current() == first_build.after.current()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delay", [0.15, 0.4, 0.6])
def test_a_build_that_is_told_to_stop(first_build: Stage, tmp_path: Path, number: int, delay: float) -> None:
    site = first_build.before.copy(tmp_path / "site")
    environment = site.environment()
    build = subprocess.Popen(
        site.command("build"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (site.build / "..").exists() and time.monotonic() < deadline and build.poll() is None:
        time.sleep(0.005)  # until it has begun
    time.sleep(delay - 0.15)
    build.send_signal(number)
    _, err = build.communicate(timeout=60)
    assert build.returncode in (0, 5), err
    assert "Traceback" not in err
    assert site.current() in (None, first_build.after.current())
    assert site.good()["release"] == first_build.after.current()
    assert site.files() == first_build.after.files()
    assert site.lock == first_build.after.lock
    assert site.left_over() == []
