"""Killed while something goes to or comes from the team's store: what is there is whole, and the next build goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from faults.conftest import Site
from tritonforge.artifact.remote.transfer import REMOTE_FAULTS

SENDING = [name for name in REMOTE_FAULTS if name.startswith(("remote.note.", "remote.blob.sen", "remote.record."))]
slow = pytest.mark.slow


def run(site: Site, team: Path, fault: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **site.environment(fault),
        "TRITONFORGE_REMOTE_STORE": f"file://{team}",
        "TRITONFORGE_REMOTE_STORE_MODE": "read-write",
    }
    command = site.command("build")
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def good(site: Site, team: Path) -> dict[str, Any]:
    ran = run(site, team)
    assert ran.returncode == 0, ran.stderr
    done: dict[str, Any] = json.loads(ran.stdout)
    return done


@pytest.fixture
def team(tmp_path: Path) -> Path:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    folder = tmp_path / "team"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("point", [*SENDING[:2], *(pytest.param(name, marks=slow) for name in SENDING[2:])])
def test_a_build_that_is_killed_while_it_sends(tmp_path: Path, team: Path, point: str) -> None:
    site = Site(tmp_path / "one").write()
    assert run(site, team, point).returncode == -signal.SIGKILL
    for path in (path for path in team.rglob("*") if path.is_file() and not path.name.endswith(".tmp")):
        assert path.stat().st_size > 0
    done = good(site, team)
    assert (done["store"]["left"], done["store"]["warnings"]) == (0, [])
    assert len(list((team / "keys").rglob("*.json"))) == 4
    assert site.left_over() == []
    assert [path for path in (site.root / "home" / "store" / "unpushed").rglob("*") if path.is_file()] == []
    other = Site(tmp_path / "two").write()
    done = good(other, team)
    assert done["platforms"][0]["steps"] == {"built": 0, "cached": 0, "failed": 0, "skipped": 0, "fetched": 4}
    assert other.current() == site.current()
    assert other.files() == site.files()


def test_what_a_worker_bound_before_it_was_killed_is_sent_by_the_next_build(tmp_path: Path, team: Path) -> None:
    site = Site(tmp_path / "one").write()
    ran = run(site, team, "store.key.linked")
    assert ran.returncode == 1, ran.stderr
    ended = json.loads(ran.stdout)["platforms"][0]["steps"]
    bound = len(list((site.root / "home" / "store" / "keys").rglob("*.json")))
    assert bound > ended["built"], "a step that counts as failed has its key"
    done = good(site, team)
    assert done["platforms"][0]["steps"]["cached"] == bound
    assert (done["store"]["left"], len(list((team / "keys").rglob("*.json")))) == (0, 4)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("remote.blob.fetched", marks=slow),
        "store.blob.link",
        pytest.param("store.manifest.rename", marks=slow),
        pytest.param("store.key.link", marks=slow),
        pytest.param("store.key.linked", marks=slow),
    ],
)
@pytest.mark.parametrize("how", ["", pytest.param(":enospc", marks=slow)])
def test_a_build_that_is_killed_while_it_fetches(tmp_path: Path, team: Path, point: str, how: str) -> None:
    first = Site(tmp_path / "one").write()
    good(first, team)
    site = Site(tmp_path / "two").write()
    ran = run(site, team, point + how)
    if how and point == "remote.blob.fetched":  # nothing else goes through it: the steps are run instead
        assert ran.returncode == 0, ran.stderr
        assert "No space left on device" in json.loads(ran.stdout)["store"]["warnings"][0]
    elif how:
        assert ran.returncode == 3, ran.stderr
        assert "No space left on device" in ran.stderr
    else:
        assert ran.returncode == -signal.SIGKILL
    done = good(site, team)
    assert done["platforms"][0]["steps"]["built"] == 0
    assert (site.current(), site.files()) == (first.current(), first.files())
    assert site.left_over() == []


def test_two_builds_at_once_fetch_and_send_to_one_store(tmp_path: Path, team: Path) -> None:
    sites = [Site(tmp_path / name).write() for name in ("one", "two")]
    environment = {
        name: value
        for name, value in {
            **os.environ,
            "TRITONFORGE_REMOTE_STORE": f"file://{team}",
            "TRITONFORGE_REMOTE_STORE_MODE": "read-write",
        }.items()
        if name != "TRITONFORGE_FAULT"
    }
    builds = [
        subprocess.Popen(
            site.command("build"),
            env={**environment, "TRITONFORGE_HOME": str(site.root / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for site in sites
    ]
    for build in builds:
        out, err = build.communicate(timeout=120)
        assert build.returncode == 0, err
        assert json.loads(out)["store"]["warnings"] == []
    assert sites[0].current() == sites[1].current()
    assert sites[0].files() == sites[1].files()
    assert len(list((team / "keys").rglob("*.json"))) == 4
