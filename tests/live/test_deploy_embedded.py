"""Releases that take turns on an embedded target, while clients ask without a pause."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.rollout_site import TARGET, Site, Witness, open_site

from tritonforge.rollout.agent import agent

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("embedded")) as site:
        yield site


def test_from_one_release_to_the_next_and_back_without_losing_a_request(site: Site) -> None:
    with site.traffic() as traffic:
        witness = Witness(traffic).begin()
        traffic.wait_for(20)
        planned = site.deploy(2.0, "--dry-run")
        assert planned.code == 0, planned.words
        assert (planned.answer["outcome"], site.serving) == ("planned", 1.0)
        assert [item["folder"] for item in planned.answer["plan"]["models"]] == ["net"]
        assert planned.answer["plan"]["files"] >= 1
        deployed = site.deploy(2.0)
        assert (deployed.code, deployed.answer["slot"]) == (0, "green"), deployed.answer
        assert (deployed.answer["release"], deployed.answer["previous"]) == (site.releases[2.0], site.releases[1.0])
        assert site.answer() == 2.0
        assert site.deploy(2.0).answer["outcome"] == "unchanged"
        before = site.host.status("blue").started
        back = site.run("rollback", TARGET)
        assert (back.code, back.answer["release"]) == (0, site.releases[1.0])
        assert site.answer() == 1.0
        assert site.host.status("blue").started == before, "the warm server was used, not a new one"
        traffic.wait_for(20)
        assert witness.failures == []
        assert witness.traffic.done["http"] > 0
        assert witness.traffic.done["grpc"] > 0
    site.settled()
    site.kill(site.state().committed["active"])  # type: ignore[index]
    again = site.deploy(1.0)
    assert (again.code, again.answer["slot"]) == (0, "blue"), "the slot that serves is started again"
    assert site.answer() == 1.0


def test_nothing_on_the_target_is_open_to_others(site: Site) -> None:
    root = site.target_root
    assert root.stat().st_mode & 0o077 == 0
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and "blobs" in path.parts:
            assert path.stat().st_mode & 0o222 == 0, path


def test_its_journal_holds_no_secret_and_names_who_did_it(site: Site) -> None:
    events = site.place.call("read")["journal"]
    begun = [event for event in events if event["event"] == "begin"]
    assert all("@" in event["by"] for event in begun)
    text = (site.target_root / "journal.jsonl").read_text()
    assert "token" not in text
    assert os.environ.get("HOME", "/nowhere") + "/." not in text


def test_the_model_control_endpoints_are_not_offered_to_clients(site: Site) -> None:
    import httpx

    answer = httpx.post(f"http://127.0.0.1:{site.public.http}/v2/repository/models/net/unload", json={}, timeout=10)
    assert answer.status_code == 403
    assert site.answer() == site.serving


def test_the_configuration_on_disk_has_the_committed_weights(site: Site) -> None:
    text = (site.target_root / "proxy" / "haproxy.cfg").read_text()
    active = str(site.state().committed["active"])  # type: ignore[index]
    weights = {
        line.split()[1]: int(line.split(" weight ")[1].split()[0])
        for line in text.splitlines()
        if line.strip().startswith("server ") and " weight " in line
    }
    assert weights == {"blue": 100 * (active == "blue"), "green": 100 * (active == "green")}
    (control,) = site.host.control()
    live = {row["svname"]: int(row["weight"]) for row in agent.proxy_rows(control) if _weighs(row)}
    assert live == weights
    assert Path(control.removeprefix("unix:")).stat().st_mode & 0o077 == 0


def _weighs(row: dict[str, str]) -> bool:
    return row["pxname"] in agent.BACKENDS and row["svname"] in ("blue", "green")
