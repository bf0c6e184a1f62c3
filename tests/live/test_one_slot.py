"""One embedded server that is changed in place while clients ask it: no request fails, and every answer is right."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from one_slot_site import FALLS, PLUS, Site

from tritonforge.rollout.processes import stop_detached
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live


@pytest.fixture
def site(runtime: Runtime, tmp_path: Path) -> Iterator[Site]:
    made = Site.make(tmp_path / "site", runtime)
    yield made
    made.remove()


def routed(site: Site, plus: float, times: float) -> str:
    """An ensemble of a Python and an ONNX member behind its router: (X + plus) * times."""
    site.onnx("times", times)
    site.python("plus", plus)
    steps = [
        {"model": "plus", "outputs": {"Y": "middle"}},
        {"model": "times", "inputs": {"X": "middle"}, "outputs": {"Y": "OUT"}},
    ]
    both = {"router": True, "inputs": ["X"], "outputs": ["OUT"], "max_batch_size": 8, "steps": steps}
    models = {"plus": site.model("plus"), "times": {"source": "times.onnx", "max_batch_size": 8}}
    return site.build({"models": models, "ensembles": {"both": both}})


def test_a_model_is_changed_in_place_and_back_with_no_request_lost(site: Site) -> None:
    first = site.release({"plus": 1})
    assert site.deploy()["outcome"] == "deployed"
    assert (site.live(), site.index(), site.ask("plus")) == ({"plus": ["1"]}, {"plus": ["1"]}, 101)
    second = site.release({"plus": 2})
    with site.traffic("plus", 101, 102) as clients:
        clients.calm()
        assert site.deploy()["release"] == second
        assert (site.live(), site.index()) == ({"plus": ["2"]}, {"plus": ["2"]})
        clients.calm()
        assert (clients.seen[101] > 0, clients.seen[102] > 0) == (True, True)
        assert site.rollback()["release"] == first
        clients.calm()
    assert (site.index(), site.ask("plus")) == ({"plus": ["1"]}, 101)
    assert site.deploy()["outcome"] == "deployed"
    again = site.deploy()
    assert (again["outcome"], again["release"]) == ("unchanged", second)


def test_only_whoever_has_the_secret_loads_models(site: Site) -> None:
    site.release({"plus": 1}, golden=False)
    site.deploy()
    url = f"http://127.0.0.1:{site.public.http}/v2"
    refused = [
        httpx.post(f"{url}/repository/models/plus/unload", json={}),
        httpx.post(f"{url}/repository/index", json={}),
        httpx.get(f"{url}/logging"),
    ]
    assert [answer.status_code for answer in refused] == [403, 403, 403]
    assert httpx.get(f"{url}/models/plus/ready").status_code == 200
    key = (site.root / "control.key").read_text()
    assert ((site.root / "control.key").stat().st_mode & 0o777, len(key)) == (0o600, 48)
    # Only what reads the secret on purpose may hold it.
    told = {path.name for path in site.root.rglob("*") if path.is_file() and key.encode() in path.read_bytes()}
    assert told <= {"control.key", "control.json"}
    assert (site.root / "control.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_config_and_two_models_change_at_once(site: Site) -> None:
    site.release({"plus": 1, "more": 10})
    site.deploy()
    site.release({"plus": 1, "more": 20}, more={"plus": {"config": {"parameters": {"note": "new"}}}})
    with site.traffic("plus", 101) as clients, site.traffic("more", 110, 120) as others:
        site.deploy()
        clients.calm()
        others.calm()
    assert site.index() == {"more": ["2"], "plus": ["1"]}
    assert 'string_value: "new"' in site.served_config("plus")


@pytest.mark.slow
def test_an_ensemble_changes_behind_its_router(site: Site) -> None:
    routed(site, 1, 2)
    site.deploy()
    assert site.ask("both") == 202
    before = site.live()
    routed(site, 2, 3)
    with site.traffic("both", 202, 306) as clients, site.traffic("plus", 101, 102) as direct:
        clients.calm()
        site.deploy()
        clients.calm()
        direct.calm()
        assert clients.seen[306] > 0
        site.rollback()
        clients.calm()
        direct.calm()
    assert site.live() == before
    assert site.ask("both") == 202


def test_a_broken_newcomer_leaves_everything_as_it_was(site: Site) -> None:
    first = site.release({"plus": 1})
    site.deploy()
    with site.traffic("plus", 101) as clients:
        site.release({"plus": 2}, code=FALLS)
        fallen = site.deploy(code=1)
        assert "'plus--candidate' did not load" in fallen["message"]
        assert "the weights of 2 are gone" in str(fallen)
        site.release({"plus": 3}, code=PLUS.replace("x + {added}", "x - {added}"))
        lying = site.deploy(code=1)
        assert "the newcomer is not what was released: plus" in lying["message"]
        clients.calm()
    assert (site.live(), site.index(), site.state().release) == ({"plus": ["1"]}, {"plus": ["1"]}, first)
    assert not (site.root / "live-staging").exists()
    assert [event["outcome"] for event in site.state().history] == ["deployed", "undone", "undone"]


def test_what_cannot_change_in_place_is_refused_before_anything_travels(site: Site) -> None:
    site.release({"plus": 1})
    site.deploy()
    site.release({"plus": 2}, golden=False, more={"plus": {"max_batch_size": 4}})
    for words in ((), ("--dry-run",)):
        refused = site.deploy(*words, code=2)
        assert refused["details"] == ["plus: another max_batch_size (8 → 4)"]
        assert "two-slots" in refused["hint"]
    assert [event["step"] for event in site.events("intend")].count("deliver") == 1
    assert site.ask("plus") == 101


@pytest.mark.slow
def test_new_arguments_need_a_restart_that_is_allowed(site: Site) -> None:
    site.release({"plus": 1})
    site.deploy()
    site.release({"plus": 1}, server={"options": {"log-verbose": 1}})
    assert "started anew" in site.deploy(code=2)["message"]
    site.rollout["restart"] = True
    site.release({"plus": 1}, server={"options": {"log-verbose": 1}})
    assert site.deploy()["outcome"] == "deployed"
    assert site.ask("plus") == 101


@pytest.mark.slow
def test_a_clock_that_was_set_back_hides_no_change(site: Site) -> None:
    site.release({"plus": 1})
    site.deploy()
    # What a clock that ran ahead leaves: times that today's are all below.
    ahead = time.time() + 86400
    for path in [site.root / "live", *(site.root / "live").rglob("*")]:
        os.utime(path, (ahead, ahead))
    site.load("plus")
    site.release({"plus": 2})
    site.deploy()
    assert (site.index(), site.ask("plus")) == ({"plus": ["2"]}, 102)
    site.rollback()
    assert (site.index(), site.ask("plus")) == ({"plus": ["1"]}, 101)


@pytest.mark.slow
def test_the_server_ends_in_the_middle_and_the_old_release_comes_back(site: Site) -> None:
    first = site.release({"plus": 1})
    site.deploy()
    site.release({"plus": 2})
    killed = site.run("deploy", "edge", fault="rollout.agent.append.intend.watch.before")
    assert killed.code == -9
    unit = site.host._unit("blue")
    assert unit is not None
    stop_detached(unit, 0)
    # What is on disk is the newcomer; the next command starts the server and goes back before it does anything else.
    site.shop.folder.joinpath("plus", "model.py").write_text(FALLS)
    assert site.deploy("--release", first)["outcome"] in ("unchanged", "deployed")
    assert (site.live(), site.index(), site.ask("plus")) == ({"plus": ["1"]}, {"plus": ["1"]}, 101)


@pytest.mark.slow
def test_nobody_confirms_and_the_target_goes_back_by_itself(site: Site) -> None:
    site.rollout["deadman_s"] = 2
    routed(site, 1, 2)
    site.deploy()
    routed(site, 2, 3)
    with site.traffic("both", 202, 306) as clients:
        killed = site.run("deploy", "edge", fault="rollout.agent.append.intend.watch.after")
        assert killed.code == -9
        clients.calm(10)
        ends = time.monotonic() + 120
        while not site.events("reverted"):
            assert time.monotonic() < ends, "the dead-man timer did not go off"
            time.sleep(0.5)
        clients.calm()
        assert site.ask("both") == 202
        note = site.deploy("--resume")["notes"][0]
        assert "reverted by the target's dead-man timer" in note
        clients.calm()
    assert site.ask("both") == 306


KILLS = (
    "rollout.agent.apply.stage.after",
    "rollout.agent.apply.candidate-plus.after",
    "rollout.agent.apply.switch-plus.before",
    "rollout.agent.apply.switch-plus.after",
    "rollout.agent.append.committed.before",
    "rollout.agent.append.committed.after",
    "rollout.agent.apply.tidy.after",
)


@pytest.fixture(scope="module")
def stage(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A target that serves 101 beside a release that answers 102."""
    made = Site.make(tmp_path_factory.mktemp("kills") / "site", runtime)
    made.rollout["deadman_s"] = 300  # these tests are about the next command
    first = made.release({"plus": 1})
    made.deploy()
    second = made.release({"plus": 2})
    yield made, first, second
    made.remove()


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[] if "switch-plus.after" in point else pytest.mark.slow) for point in KILLS]
)
def test_a_kill_loses_no_request_and_the_next_command_says_what_became_of_it(stage: Any, point: str) -> None:
    site, first, second = stage
    site.deploy("--release", first)
    with site.traffic("plus", 101, 102) as clients:
        assert site.run("deploy", "edge", "--release", second, fault=point).code == -9
        clients.calm(10)
        committed = site.state().release == second
        assert committed == (point in (KILLS[5], KILLS[6]))
        done = site.deploy("--release", first)
        clients.calm(10)
    said = "was committed by an interrupted command" if committed else "was undone now"
    assert said in done["notes"][0]
    assert (site.live(), site.index(), site.ask("plus")) == ({"plus": ["1"]}, {"plus": ["1"]}, 101)


@pytest.mark.slow
def test_a_killed_rollout_goes_on(stage: Any) -> None:
    site, first, second = stage
    site.deploy("--release", first)
    for point in ("rollout.agent.apply.switch-plus.after", "rollout.agent.append.intend.watch.after"):
        assert site.run("deploy", "edge", "--release", second, fault=point).code == -9
        done = site.deploy("--resume")
        assert (done["outcome"], done["notes"][0].partition(" ")[0]) == ("deployed", "goes")
        assert (site.index(), site.ask("plus")) == ({"plus": ["2"]}, 102)
        site.deploy("--release", first)


@pytest.mark.parametrize(
    "each",
    [pytest.param(8, id="some", marks=pytest.mark.slow), pytest.param(1, id="all", marks=pytest.mark.exhaustive)],
)
def test_a_kill_at_every_point_of_a_routed_change(site: Site, each: int) -> None:
    first = routed(site, 1, 2)
    site.deploy()
    second = routed(site, 2, 3)
    trace = site.shop.folder / "trace"
    assert site.run("deploy", "edge", "--release", second, trace=trace).code == 0
    points = [line.split()[1] for line in trace.read_text().splitlines()]
    assert "rollout.agent.apply.away-both.before" in points
    site.deploy("--release", first)
    # At a point before something nothing was changed since the point before that.
    chosen = [(number, point) for number, point in enumerate(points, 1) if not point.endswith(".before")][::each]
    failures: list[str] = []
    with site.traffic("both", 202, 306) as clients:
        for number, point in chosen:
            ran = site.run("deploy", "edge", "--release", second, fault=f"#{number}")
            assert ran.code == -9, (point, ran)
            done = json.loads(site.run("deploy", "edge", "--release", first).out)
            if done["outcome"] not in ("deployed", "unchanged") or site.ask("both") != 202:
                failures.append(f"{number} {point}: {done}")
            clients.calm(5)
    assert failures == []
