"""The keeper's place: operations by exec, files that go on where they were cut, secrets that go elsewhere."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("websocket")

from rollout.targets.local_pod import LocalCluster
from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.place import AgentRefused
from tritonforge.rollout.targets.kubernetes_api import Cluster
from tritonforge.rollout.targets.kubernetes_exec import Session
from tritonforge.rollout.targets.kubernetes_keeper import KeeperPlace
from tritonforge.rollout.targets.kubernetes_pods import PodState, pod_state

HOLDER = {"id": "1", "who": "me", "pid": 1, "for": "a test"}


def keeper(ready: bool = True) -> PodState:
    status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    if not ready:
        status["containerStatuses"] = [{"image": "x", "state": {"waiting": {"reason": "InvalidImageName"}}}]
    return pod_state({"metadata": {"name": "shop-keeper-1-2", "uid": "u"}, "status": status})


class Made:
    def __init__(self, root: Path) -> None:
        self.cluster = LocalCluster(root)
        self.pods: list[PodState] | None = [keeper()]
        self.secrets: dict[str, str] = {}
        self.place = KeeperPlace(
            cast(Cluster, self.cluster),
            "shop in a test",
            lambda: self.pods,
            lambda: ["10.0.0.9:9999"],
            self.secrets.__setitem__,
        )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "volume")


def files(tmp_path: Path, *contents: bytes) -> dict[str, Path]:
    found = {}
    for number, content in enumerate(contents):
        file = tmp_path / f"file{number}"
        file.write_bytes(content)
        found[hashlib.sha256(content).hexdigest()] = file
    return found


def test_operations_run_in_the_pod_and_a_refusal_is_the_agents(made: Made) -> None:
    place = made.place
    assert place.call("read")["journal"] == []
    place.call("lock", {"token": "t", "holder": HOLDER})
    assert place.token == "t"
    place.call("append", {"token": "t", "event": {"rollout": "r1", "event": "begin"}})
    assert place.rollout == "r1"
    with pytest.raises(AgentRefused) as caught:
        place.call("lock", {"token": "other", "holder": HOLDER, "instead": None})
    assert caught.value.code == "locked"
    place.call("unlock", {"token": "t"})
    assert place.token is None


def test_what_was_healed_stands_in_the_next_event_and_only_there(made: Made) -> None:
    made.place.call("lock", {"token": "t", "holder": HOLDER})
    made.place.notes.append("rolled back to revision 1")
    for event in ("begin", "undoing"):
        made.place.call("append", {"token": "t", "event": {"rollout": "r1", "event": event}})
    journal = made.place.call("read")["journal"]
    assert [event.get("notes") for event in journal] == [["rolled back to revision 1"], None]


def test_where_nothing_is_installed_it_reads_as_an_empty_target(made: Made) -> None:
    made.pods = None
    assert made.place.call("read")["journal"] == []
    assert made.place.call("missing", {"files": {"ab": 3}}) == {"missing": ["ab"], "bytes": 3, "free": 0}
    with pytest.raises(EnvironmentLacks, match="there is no keeper"):
        made.place.call("lock", {"token": "t", "holder": HOLDER})


def test_a_keeper_that_can_never_run_is_said_in_words(made: Made) -> None:
    made.pods = [keeper(ready=False)]
    with pytest.raises(EnvironmentLacks, match="does not run") as caught:
        made.place.call("read")
    assert caught.value.found == "shop-keeper-1-2: InvalidImageName"


def test_files_arrive_whole(made: Made, tmp_path: Path) -> None:
    sent = files(tmp_path, os.urandom(3 << 17), b"", b"small")
    moved: list[int] = []
    made.place.send(sent, moved.append)
    assert made.place.call("admit", {"files": sorted(sent)}) == {"admitted": 3}
    assert sum(moved) == (3 << 17) + 5
    assert (
        made.place.call("missing", {"files": {name: path.stat().st_size for name, path in sent.items()}})["missing"]
        == []
    )


def test_a_transfer_that_was_cut_goes_on_where_it_ended(made: Made, tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    sent = files(tmp_path, content)
    made.cluster.cut = 600_000
    with pytest.raises(EnvironmentLacks, match="connection to the target was lost"):
        made.place.send(sent, lambda size: None)
    there = next((made.cluster.root / "incoming").iterdir()).stat().st_size
    assert 0 < there < len(content)
    made.cluster.cut = None
    moved: list[int] = []
    made.place.send(sent, moved.append)
    assert moved[0] == there
    assert made.place.call("admit", {"files": sorted(sent)}) == {"admitted": 1}


def test_a_disk_that_refuses_is_said(made: Made, tmp_path: Path) -> None:
    made.cluster.root.mkdir()
    (made.cluster.root / "incoming").write_text("in the way")
    with pytest.raises(EnvironmentLacks, match="the disk of shop in a test refuses"):
        made.place.send(files(tmp_path, b"x" * 400_000), lambda size: None)


def test_an_agent_that_ends_without_an_answer_is_said(made: Made) -> None:
    with pytest.raises(EnvironmentLacks, match="ended before it answered") as caught:
        made.place.call("no-such-operation")
    assert "KeyError" in str(caught.value.found)
    assert made.place.call("hello")["agent"] == 1, "the next one is asked of a new one"


def test_a_program_that_went_with_its_pod_is_asked_again_in_the_next(made: Made) -> None:
    first = made.cluster.root / "killed"
    made.cluster.root.mkdir()
    serving = made.place._serving

    def once() -> Session:
        if first.exists():
            return serving()
        first.touch()
        return Session(cast(Cluster, made.cluster), "pod", "keeper", ["sh", "-c", "read line; exit 137"])

    made.place._serving = once  # type: ignore[method-assign]
    assert made.place.call("hello")["agent"] == 1


def test_one_program_answers_all_and_a_lost_connection_is_made_anew(made: Made) -> None:
    for _ in range(3):
        made.place.call("hello")
    assert len(made.cluster.ran) == 1
    assert made.place._session is not None
    made.place._session._ws.sock.shutdown(socket.SHUT_RDWR)
    made.place.call("hello")
    assert len(made.cluster.ran) == 2


def test_secrets_of_the_proxy_do_not_go_to_the_disk(made: Made) -> None:
    made.place.call("write_file", {"token": "t", "path": "proxy/tls.pem", "text": "key", "mode": 0o600})
    assert made.secrets == {"proxy/tls.pem": "key"}
    assert made.cluster.ran == []


def test_the_dead_man_timer_keeps_the_addresses_where_names_are_not_resolved(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh = {"op": "weigh", "weights": {"blue": 100}, "control": ["10.0.0.9:9999"]}
    monkeypatch.setattr(made.place, "_resolves", lambda: False)
    assert made.place._lasting(weigh) == weigh
    monkeypatch.setattr(made.place, "_resolves", lambda: True)
    assert made.place._lasting(weigh)["control"] == ["shop-proxy-control:9999"]
    assert made.place._lasting({"op": "write_file", "path": "x"}) == {"op": "write_file", "path": "x"}
