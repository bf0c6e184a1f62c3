"""What else goes wrong while a release takes over: bad newcomers, servers and proxies that end, disks, other commands.

In each the old release serves (or the new one does, where that is said), no request fails, and the exit code is true.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.rollout_site import ROLLOUT, TARGET, Ran, Site, Witness, ended, open_site, runtime_or_skip
from faults.rollout_table import Row, keep
from tritonforge.rollout.journal import read_state

pytestmark = pytest.mark.live
slow = pytest.mark.slow
SOON = 15
"""Seconds of the dead-man timer where it is waited for: more than a busy machine takes for a step."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("world")) as site:
        assert site.deploy(2.0).code == 0
        yield site


@pytest.fixture(scope="module")
def clients(site: Site) -> Iterator[Witness]:
    with site.traffic() as traffic:
        traffic.wait_for(20)
        yield Witness(traffic)


@pytest.fixture
def witness(clients: Witness) -> Witness:
    return clients.begin()


@contextmanager
def settings(site: Site, **changes: object) -> Iterator[None]:
    before = dict(site.rollout)
    site.settings(**changes)
    try:
        yield
    finally:
        site.rollout = before
        site.write()


def wait_for_event(site: Site, kind: str, step: str | None = None, seconds: float = 120.0) -> None:
    """Wait until the rollout under way has noted this."""
    ends = time.monotonic() + seconds
    while True:
        events = site.place.call("read")["journal"]
        unfinished = read_state(events).unfinished
        begun = [event for event in events if unfinished and event.get("rollout") == unfinished.rollout]
        if any(event["event"] == kind and event.get("step") == step for event in begun):
            return
        assert time.monotonic() < ends, [(event["event"], event.get("step")) for event in begun]
        time.sleep(0.1)


def in_the_middle(site: Site, new: float, do: Callable[[], object], hold: float = 3.0) -> Ran:
    """Deploy, and do something while the newcomer is watched at half of the traffic."""
    with settings(site, analysis={**site.rollout["analysis"], "hold_s": hold}):
        process = site.start("deploy", TARGET, "--release", site.releases[new])
        wait_for_event(site, "intend", "watch-50")
        time.sleep(0.7)
        do()
        return ended(process)


def old_serves(site: Site, witness: Witness, ran: Ran, old: float, fault: str, code: int) -> None:
    """The statement of most cases, with the row of the table."""
    assert ran.code == code, (ran.answer, ran.words)
    assert "Traceback" not in ran.words
    assert site.serving == old
    assert site.answer() == old
    after = site.deploy(old)
    assert (after.code, after.answer["outcome"]) == (0, "unchanged"), after.answer
    assert site.answer() == old
    site.settled()
    assert witness.failures == []
    assert witness.requests > 0
    keep(Row("world", fault, "old", code, witness.requests, 0, "deploy of the old one", after.code, ran.said))


# --- newcomers that are bad


def test_it_is_never_ready(site: Site, witness: Witness) -> None:
    old = site.serving
    site.build_python(3.0, "pass", initialize="time.sleep(600)")
    with settings(site, ready_s=5):
        ran = site.deploy(3.0)
    assert "was not ready within 5 s" in ran.said
    old_serves(site, witness, ran, old, "the new server is never ready", 1)


@slow
def test_it_does_not_load(site: Site, witness: Witness) -> None:
    old = site.serving
    site.build_python(3.1, "pass", initialize="raise ValueError('no weights here')")
    ran = site.deploy(3.1)
    assert "no weights here" in ran.said
    old_serves(site, witness, ran, old, "a model of the new release does not load", 1)


def test_it_answers_something_else(site: Site, witness: Witness) -> None:
    old = site.serving
    site.build_python(4.0, "pass", expected=5.0)
    ran = site.deploy(4.0)
    assert "the newcomer is not what was released: net" in ran.said
    old_serves(site, witness, ran, old, "the new server answers wrongly", 1)


@slow
def test_it_is_slow(site: Site, witness: Witness) -> None:
    old = site.serving
    site.build_python(6.0, "time.sleep(1)")
    # A machine that tests other things at the same time makes the old server slow, too: a stall must not hide a second.
    bounds = {"latency_ratio_max": 2.0, "min_requests": 10, "wait_s": 40}
    with settings(site, analysis={**site.rollout["analysis"], **bounds}):
        ran = site.deploy(6.0)
    assert "times as long as before" in ran.said
    old_serves(site, witness, ran, old, "the new server is slow", 1)


@slow
def test_it_has_no_metrics(site: Site, witness: Witness) -> None:
    old = site.serving
    site.spec_keys = {"server": {"metrics": False}}
    site.write()
    try:
        site.build(7.0)
    finally:
        site.spec_keys = {}
        site.write()
    ran = site.deploy(7.0)
    assert "the newcomer cannot be judged: its metrics could not be read" in ran.said
    old_serves(site, witness, ran, old, "the new server has no metrics", 4)


def test_it_crashes_while_it_is_watched(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    slot = "green" if site.state().committed["active"] == "blue" else "blue"  # type: ignore[index]
    ran = in_the_middle(site, new, lambda: site.kill(slot))
    assert "the new server ended" in ran.said
    old_serves(site, witness, ran, old, "the new server is killed at half of the traffic", 1)


# --- servers, proxy and timer that end


@slow
def test_the_server_that_serves_ends_in_the_middle(site: Site, witness: Witness) -> None:
    """The newcomer was proven already: it stands in for the old one, and takes over."""
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    slot = str(site.state().committed["active"])  # type: ignore[index]
    ran = in_the_middle(site, new, lambda: site.kill(slot))
    assert ran.code == 0, ran.answer
    assert site.answer() == new
    assert witness.failures == []
    after = site.deploy(old)
    assert after.code == 0, after.answer
    assert witness.failures == []
    row = "the old server is killed at half of the traffic"
    keep(Row("world", row, "new", ran.code, witness.requests, 0, "deploy of the old one", after.code, ran.said))


@slow
def test_both_servers_end_in_the_middle(site: Site, witness: Witness) -> None:
    """Nobody is left to answer for a moment; the old server is started again."""
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    active = str(site.state().committed["active"])  # type: ignore[index]
    other = "green" if active == "blue" else "blue"

    def both() -> None:
        site.kill(active)
        site.kill(other)

    ran = in_the_middle(site, new, both)
    assert ran.code == 1, ran.answer
    assert site.serving == old
    assert site.answer() == old
    site.settled()
    failed = len(witness.failures)
    row = "both servers are killed at half of the traffic"
    assert failed > 0
    keep_some_failed(row, ran, witness)


@slow
def test_the_proxy_ends_in_the_middle(site: Site, witness: Witness) -> None:
    """Clients notice; it is started again with the old weights."""
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    ran = in_the_middle(site, new, lambda: site.kill("proxy"))
    assert ran.code == 3, ran.answer
    assert site.serving == old
    assert site.answer() == old
    site.settled()
    keep_some_failed("the proxy is killed at half of the traffic", ran, witness)


def keep_some_failed(fault: str, ran: Ran, witness: Witness) -> None:
    """A row whose failures cannot be none: what clients talk to was away. How many depends on the machine."""
    assert witness.failures
    said = f"{ran.said} (requests failed until it ran again)"
    keep(Row("world", fault, "old", ran.code, witness.requests, -1, "", None, said))


@slow
def test_the_warm_server_ends(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    assert site.deploy(new).code == 0
    active = str(site.state().committed["active"])  # type: ignore[index]
    site.kill("green" if active == "blue" else "blue")
    ran = site.run("rollback", TARGET)
    assert ran.code == 0, ran.answer
    assert site.answer() == old
    assert witness.failures == []
    keep(Row("world", "the warm server is killed, then rollback", "old", ran.code, witness.requests, 0, "", None, ""))


@slow
def test_the_timer_had_ended(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    site.kill("watch")
    with settings(site, deadman_s=SOON):
        killed = site.deploy(new, TRITONFORGE_FAULT="rollout.agent.append.done.shift-50.after")
    assert killed.code == -signal.SIGKILL
    site.wait_until_reverted()
    assert site.answer() == old
    after = site.deploy(old)
    assert "was reverted by the target's dead-man timer" in after.said
    assert witness.failures == []
    row = "the dead-man timer was killed before; then the command is killed"
    keep(Row("world", row, "old", killed.code, witness.requests, 0, "waits, then deploy", after.code, after.said))


# --- commands


def test_two_commands_at_once(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    seen: list[Ran] = []
    ran = in_the_middle(site, new, lambda: seen.append(site.deploy(old)))
    assert seen[0].code == 3
    assert "another command is at work on this target" in seen[0].said
    assert f"for deploy {site.releases[new][:12]}" in str(seen[0].answer["found"])
    assert ran.code == 0, ran.answer
    assert site.answer() == new
    site.settled()
    assert witness.failures == []
    keep(Row("world", "a second command", "new", seen[0].code, witness.requests, 0, "", None, seen[0].said))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=slow)])
def test_it_is_told_to_stop(site: Site, witness: Witness, number: signal.Signals) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    with settings(site, analysis={**site.rollout["analysis"], "hold_s": 5.0}):
        process = site.start("deploy", TARGET, "--release", site.releases[new])
        wait_for_event(site, "intend", "watch-50")
        os.killpg(process.pid, number)
        ran = ended(process)
    assert "the rollout was interrupted" in ran.said
    assert "serves, as before" in ran.said
    old_serves(site, witness, ran, old, f"{number.name} at half of the traffic", 5)


@slow
def test_it_is_killed_twice(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    with settings(site, deadman_s=SOON):
        first = site.deploy(new, TRITONFORGE_FAULT="rollout.agent.append.done.shift-50.after")
    second = site.deploy(new, TRITONFORGE_FAULT="rollout.agent.lock.after")
    assert (first.code, second.code) == (-signal.SIGKILL, -signal.SIGKILL)
    assert site.pending() is not None
    site.wait_until_reverted()
    assert site.answer() == old
    after = site.deploy(old)
    assert "was reverted by the target's dead-man timer" in after.said
    site.settled()
    assert witness.failures == []
    row = "killed at half of the traffic, and the next command as soon as it has the lock"
    keep(Row("world", row, "old", first.code, witness.requests, 0, "waits, then deploy", after.code, after.said))


@slow
def test_it_is_stopped_for_longer_than_the_timer_waits(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    with settings(site, analysis={**site.rollout["analysis"], "hold_s": 5.0}, deadman_s=SOON):
        process = site.start("deploy", TARGET, "--release", site.releases[new])
        wait_for_event(site, "intend", "watch-50")
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGSTOP)
        site.wait_until_reverted()
        assert site.answer() == old
        os.killpg(process.pid, signal.SIGCONT)
        ran = ended(process)
    assert "the target went back by itself" in ran.said
    old_serves(site, witness, ran, old, "the command is stopped for longer than the timer waits", 3)


@slow
def test_its_lock_is_broken(site: Site, witness: Witness) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0

    def break_it() -> None:
        site.place.call("unlock", {"instead": site.place.call("read")["lock"]["id"]})

    with settings(site, deadman_s=SOON):
        ran = in_the_middle(site, new, break_it)
    site.wait_until_reverted()
    old_serves(site, witness, ran, old, "its lock is broken by somebody", 3)


# --- disks and files


@slow
@pytest.mark.parametrize("point", ["admit", "append.intend.start", "host.start", "arm", "weigh", "append.committed"])
def test_the_disk_is_full_at_a_point(site: Site, witness: Witness, point: str) -> None:
    old, new = site.serving, 1.0 if site.serving == 2.0 else 2.0
    site.forget(new)
    site.settings(deadman_s=SOON)
    name = f"rollout.{point if point.startswith('host') else 'agent.' + point}.before"
    ran = site.deploy(new, TRITONFORGE_FAULT=f"{name}:enospc")
    site.settings(deadman_s=ROLLOUT["deadman_s"])
    assert ran.code == 3, ran.answer
    assert "No space left on device" in ran.said
    assert site.serving == old
    if site.pending() is not None:
        site.wait_until_reverted()
    assert site.answer() == old
    after = site.deploy(old)
    assert (after.code, after.answer["outcome"]) == (0, "unchanged")
    site.settled()
    assert witness.failures == []
    keep(Row("full", point, "old", ran.code, witness.requests, 0, "deploy of the old one", after.code, ran.said))


def test_files_that_arrived_by_half(site: Site, witness: Witness) -> None:
    new = 1.0 if site.serving == 2.0 else 2.0
    site.forget(new)
    incoming = site.target_root / "incoming"
    for item in site._files(new):
        incoming.mkdir(exist_ok=True)
        (incoming / item["sha256"]).write_bytes(b"half")
        blob = site.target_root / "blobs" / item["sha256"][:2] / item["sha256"]
        if not blob.exists():
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(b"half of it")
    ran = site.deploy(new)
    assert ran.code == 0, ran.answer
    assert site.answer() == new
    site.settled()
    assert not incoming.exists() or not list(incoming.iterdir())
    assert witness.failures == []
    keep(Row("world", "files that had arrived by half", "new", ran.code, witness.requests, 0, "", None, ""))


@slow
def test_a_source_that_was_damaged(site: Site, witness: Witness) -> None:
    old = site.serving
    digest = site.build(8.0)
    file = site.root / "spec" / "build" / "local" / "releases" / digest / "models" / "net"
    model = next(path for path in file.rglob("model.onnx"))
    whole = model.read_bytes()
    model.unlink()
    model.write_bytes(bytes(len(whole)))
    ran = site.deploy(8.0)
    assert "did not arrive as the release names them" in ran.said or "damaged" in ran.said
    old_serves(site, witness, ran, old, "a file of the release here is damaged", 1)


@slow
def test_the_disk_of_the_target_is_full(tmp_path: Path) -> None:
    """A small disk of its own, filled up while the newcomer is watched."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with open_site(tmp_path / "site", folder=folder / "t") as site, site.traffic() as traffic:
            witness = Witness(traffic).begin()
            filler = folder / "filler"

            def fill() -> None:
                with filler.open("wb") as stream, pytest.raises(OSError, match="No space left"):
                    while True:
                        stream.write(bytes(1 << 16))
                        stream.flush()

            ran = in_the_middle(site, 2.0, fill)
            assert ran.code == 3, ran.answer
            assert site.answer() == 1.0
            full = site.deploy(2.0)
            assert full.code == 3
            assert "refuses" in full.said or "No space left" in full.said or "no room" in full.said
            filler.unlink()
            after = site.deploy(2.0)
            assert after.code == 0, after.answer
            assert site.answer() == 2.0
            site.settled()
            assert witness.failures == []
            row = "the target's disk is full at half of the traffic"
            keep(Row("world", row, "new", ran.code, witness.requests, 0, "room is made, deploy", after.code, ran.said))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@slow
def test_there_is_no_room_for_the_release(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        site = Site(tmp_path / "site", runtime_or_skip(), folder=folder / "t")
        site.write()
        site.build(1.0)
        ran = site.deploy(1.0)
        assert ran.code == 3
        assert "has no room for the release" in ran.said
        assert "free some space there" in str(ran.answer["hint"])
        site.close()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


# --- the proxy's configuration


@slow
def test_the_proxy_cannot_take_its_new_configuration(site: Site, witness: Witness) -> None:
    """Another port, which somebody else has."""
    old = site.serving
    before = site.public
    config = (site.target_root / "proxy" / "haproxy.cfg").read_text()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.public = type(before)(before.bind, before.http, taken.getsockname()[1], before.metrics)
        site.write()
        ran = site.deploy(old)
        site.public = before
        site.write()
    assert (site.target_root / "proxy" / "haproxy.cfg").read_text() == config
    old_serves(site, witness, ran, old, "the proxy cannot bind a port of its new configuration", 1)


@slow
def test_the_proxy_takes_another_configuration_without_losing_a_request(site: Site, witness: Witness) -> None:
    serving = site.serving
    site.target = {"proxy": {"sequence_header": "x-sequence"}}
    site.write()
    try:
        ran = site.deploy(serving)
        assert (ran.code, ran.answer["outcome"]) == (0, "deployed"), ran.answer
        assert "x-sequence" in (site.target_root / "proxy" / "haproxy.cfg").read_text()
    finally:
        site.target = {}
        site.write()
    assert site.deploy(serving).code == 0
    assert site.answer() == serving
    assert witness.failures == []
    keep(Row("world", "the proxy is reloaded", "old", ran.code, witness.requests, 0, "", None, ""))
