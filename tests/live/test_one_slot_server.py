"""Somebody else's Triton: changed through its model control API and its repository, and never started or stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from one_slot_site import FALLS, ROLLOUT, Site
from traffic import Traffic

from tritonforge.rollout.processes import stop_detached
from tritonforge.rollout.targets.server import ServerHost
from tritonforge.triton import Launch, RunningServer, start
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live


class Elsewhere(Site):
    """A spec whose target is a server that runs already."""

    server: RunningServer

    @property
    def repository(self) -> Path:
        return self.shop.folder / "theirs" / "models"

    def build(self, keys: Any) -> str:
        connection = self.server.connection
        more = {
            "connections": {"prod": {"http": connection.http, "grpc": connection.grpc}},
            "targets": {
                "edge": {
                    "kind": "server",
                    "connection": "prod",
                    "repository": "theirs/models",
                    "rollout": self.rollout,
                }
            },
        }
        self.shop.write(yaml.safe_dump({**keys, **more}, sort_keys=False))
        self.shop.build()
        current = self.shop.current()
        assert current is not None
        return current

    def serving(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        with self.server.client() as client:
            for entry in client.index():
                if entry.state == "READY":
                    found.setdefault(entry.name, []).append(entry.version)
        return found


@contextmanager
def running(root: Path, runtime: Runtime, **launch: Any) -> Iterator[Elsewhere]:
    made = Elsewhere.make(root / "site", runtime)
    site = Elsewhere(made.shop, made.runtime, made.public, dict(ROLLOUT))
    site.repository.mkdir(parents=True)
    site.server = start(Launch(site.repository, **launch), runtime)
    try:
        yield site
    finally:
        site.server.stop(0)
        host = ServerHost("tiny-edge", site.repository, site.server.connection)
        unit = host._timer()
        if unit is not None:
            stop_detached(unit, 1.0)


@pytest.mark.slow
def test_a_server_is_changed_in_place_and_its_other_models_are_left_alone(tmp_path: Path, runtime: Runtime) -> None:
    with running(tmp_path, runtime, control="explicit") as site:
        (site.repository / "theirs" / "1").mkdir(parents=True)
        first = site.release({"plus": 1})
        done = site.deploy()
        assert any("left alone in the server's repository: theirs" in note for note in done["notes"])
        # The server was started with Triton's default, which makes every load look like an outage.
        assert any("--strict-readiness=false" in note for note in done["notes"])
        assert site.serving() == {"plus": ["1"]}
        second = site.release({"plus": 2})
        connection = site.server.connection

        asking = Traffic(connection.http, connection.grpc, "plus", {"X": np.full((1, 1), 100, np.float32)})
        with asking:
            assert site.deploy()["release"] == second
            asking.wait_for(20)
        assert asking.failures == []
        assert site.serving() == {"plus": ["2"]}
        assert site.deploy()["outcome"] == "unchanged"
        assert site.rollback()["release"] == first
        assert site.serving() == {"plus": ["1"]}
        assert sorted(path.name for path in site.repository.iterdir()) == ["plus", "theirs"]
        assert (site.repository / "theirs" / "1").is_dir()


def test_a_first_release_that_fails_leaves_the_repository_empty(tmp_path: Path, runtime: Runtime) -> None:
    with running(tmp_path, runtime, control="explicit", strict_readiness=False) as site:
        site.release({"plus": 1}, code=FALLS)
        assert "'plus' did not load" in site.deploy(code=1)["message"]
        assert (site.serving(), list(site.repository.iterdir())) == ({}, [])
        assert site.server.running


def test_names_that_are_somebody_elses_are_refused(tmp_path: Path, runtime: Runtime) -> None:
    with running(tmp_path, runtime, control="explicit", strict_readiness=False) as site:
        (site.repository / "plus" / "1").mkdir(parents=True)
        site.release({"plus": 1})
        refused = site.deploy(code=2)
        assert (refused["found"], "did not put there" in refused["message"]) == ("plus", True)
        assert sorted(path.name for path in site.repository.iterdir()) == ["plus"]


@pytest.mark.parametrize("mode", ["none", pytest.param("poll", marks=pytest.mark.slow)])
def test_a_server_that_does_not_let_its_models_be_changed_is_recognised(
    tmp_path: Path, runtime: Runtime, mode: Any
) -> None:
    with running(tmp_path, runtime, control=mode) as site:
        site.release({"plus": 1})
        refused = site.deploy(code=3)
        assert refused["expected"] == "--model-control-mode=explicit"
        assert "does not let its models be changed" in refused["message"]
        assert list(site.repository.iterdir()) == []
