"""The order in which two slots change places, and the way back from anywhere; servers and the proxy are played."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks, Inconclusive
from tritonforge.rollout.agent import agent
from tritonforge.rollout.analysis import Bounds
from tritonforge.rollout.haproxy import CONFIG, ProxySettings, config_operation
from tritonforge.rollout.host import Address, Bundle, Host, ProxyStatus, ServerStart, ServerStatus
from tritonforge.rollout.journal import Journal, TargetState, read_state
from tritonforge.rollout.place import AgentRefused, LocalPlace
from tritonforge.rollout.strategies.two_slots import TwoSlots, free_slot
from tritonforge.rollout.strategy import Pace
from tritonforge.triton.connection import Connection

QUICK = Pace(weights=(10, 100), hold=0.0, wait=0.0, bounds=Bounds(0, 0.0, None, 5.0), ready=5.0, drain=0.1)


class Play(LocalPlace):
    """The agent's own functions in this process; its proxy and its timer are only remembered."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.weights: dict[str, int] = {}
        self.spares: list[str] = []
        self.armed: Mapping[str, Any] | None = None
        self.log: list[str] = []
        self.refuse: dict[str, Exception] = {}
        self.requests: dict[str, int] = {}
        self.found = "UP"

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        said = dict(arguments or {})
        if operation == "append":
            event = said["event"]
            self.log.append(":".join(str(event[name]) for name in ("event", "step") if name in event))
        elif operation not in ("read", "read_file", "proxy", "missing"):
            self.log.append(operation)
        if operation in self.refuse:
            raise self.refuse[operation]
        if operation == "weigh":
            self.weights, self.spares = dict(said["weights"]), list(said["spares"])
            self.log[-1] += f" {said['weights']}"
            return {"proxies": 1}
        if operation == "proxy":
            row = {"status": [self.found], "stot": 0, "eresp": 0, "hrsp_5xx": 0, "scur": 0}
            return {"triton_http": {slot: {**row, "stot": self.requests.get(slot, 0)} for slot in ("blue", "green")}}
        if operation in ("arm", "disarm", "confirm"):
            self.armed = said if operation == "arm" else None if operation == "disarm" else self.armed
            return None
        try:
            return agent.OPERATIONS[operation](str(self.root), said)
        except agent.Refused as refused:
            raise AgentRefused(refused.code, str(refused), refused.facts) from None


class Stage:
    """A host whose servers are entries of a dictionary."""

    def __init__(self, place: Play, connection: Connection) -> None:
        self.place = place
        self.running: dict[str, ServerStart] = {}
        self.proxy: str | None = None
        self.refuses_config = False
        self.connection = connection

    def start(self, slot: str, start: ServerStart) -> None:
        self.place.log.append(f"start {slot}")
        self.running[slot] = start

    def stop(self, slot: str, grace: float) -> None:
        self.place.log.append(f"stop {slot}")
        self.running.pop(slot, None)

    def status(self, slot: str) -> ServerStatus:
        return ServerStatus(slot in self.running, words="running" if slot in self.running else "gone")

    @contextmanager
    def reach(self, slot: str) -> Iterator[Connection]:
        yield self.connection

    def address(self, slot: str) -> Address:
        return Address("127.0.0.1", *({"blue": (1, 2, 3), "green": (4, 5, 6)}[slot]))

    def control(self) -> list[str]:
        return ["unix:/nowhere"]

    def proxy_up(self, config: str) -> None:
        self.place.log.append("proxy_up")
        if self.refuses_config:
            raise CheckFailed("the proxy refuses its configuration")
        self.proxy = config
        agent.write_whole(str(self.place.root / CONFIG), config.encode())

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        self.place.call("write_file", {**config_operation(config), "token": token})

    def settling(self, config: str) -> list[dict[str, Any]]:
        return [config_operation(config)]

    def proxy_status(self) -> ProxyStatus:
        return ProxyStatus(self.proxy is not None)


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    yield Connection(address, address, address)
    server.shutdown()


@pytest.fixture
def stage(tmp_path: Path, connection: Connection) -> Stage:
    place = Play(tmp_path / "root")
    place.root.mkdir()
    place.call("lock", {"token": "t", "holder": {"id": "1"}})
    return Stage(place, connection)


def bundle(folder: Path, release: str, stateful: bool = False) -> Bundle:
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "models/m").write_text(release)
    said = {"sha256": hashlib.sha256(release.encode()).hexdigest(), "size": len(release)}
    return Bundle(release, folder, {"models/m": said}, [], (), stateful, {"name": "tiny"})


def rollout(stage: Stage, tmp_path: Path, release: str, **changes: Any) -> TwoSlots:
    state = read_state(stage.place.call("read")["journal"])
    slot = changes.pop("slot", None) or free_slot(state)
    made = bundle(tmp_path / release, release, changes.pop("stateful", False))
    journal = Journal(stage.place, "t", f"r-{release}", state.events)
    start = ServerStart(release, models=f"snapshots/{release}/models")
    journal.add("begin", release=release, previous=state.release, slot=slot, start=start.to_json())
    given = {"proxy": ProxySettings("*:8000", "*:8001", None, []), "pace": QUICK, "prove": None, **changes}
    stage.place.log.clear()
    return TwoSlots(cast(Host, stage), journal, "t", state, made, start, slot, progress=lambda text: None, **given)


def deployed(stage: Stage, tmp_path: Path, release: str, **changes: Any) -> TwoSlots:
    strategy = rollout(stage, tmp_path, release, **changes)
    strategy.run({})
    strategy.tidy()
    return strategy


def state_of(stage: Stage) -> TargetState:
    return read_state(stage.place.call("read")["journal"])


def after(log: list[str], first: str, second: str) -> bool:
    return log.index(second) > log.index(first)


def test_the_first_release_gets_everything_at_once(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    assert stage.place.weights == {"blue": 100, "green": 0}
    assert state_of(stage).release == "one"
    assert not any(line.startswith(("arm", "intend:shift")) for line in stage.place.log)
    assert "server blue 127.0.0.1:1 id 1 weight 100" in (stage.place.root / CONFIG).read_text()


def test_nothing_that_clients_see_changes_before_the_timer_is_armed(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    deployed(stage, tmp_path, "two")
    log = stage.place.log
    moved = [line for line in log if line.startswith("weigh")]
    assert moved == [
        "weigh {'blue': 100, 'green': 0}",
        "weigh {'blue': 90, 'green': 10}",
        "weigh {'blue': 0, 'green': 100}",
        "weigh {'blue': 0, 'green': 100}",
    ]
    assert after(log, "arm", moved[1])
    assert after(log, "done:ready", "arm")
    assert after(log, "write_file", "committed")
    assert after(log, "committed", "disarm")
    assert after(log, "prune", "finished")
    assert log[-1] == "finished"
    assert (state_of(stage).release, state_of(stage).unfinished) == ("two", None)
    assert set(stage.running) == {"blue", "green"}  # the old one stays warm
    assert stage.place.spares == ["green", "blue"]


def test_what_the_timer_would_do_is_the_way_back(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    committed = (stage.place.root / CONFIG).read_text()
    strategy = rollout(stage, tmp_path, "two")
    strategy.steps()[-2].do()  # the last shift
    assert stage.place.armed is not None
    file, weigh = stage.place.armed["revert"]
    assert (file["op"], file["path"], file["text"]) == ("write_file", CONFIG, committed)
    assert (weigh["op"], weigh["weights"]) == ("weigh", {"blue": 100, "green": 0})


@pytest.mark.parametrize(
    ("stateful", "header", "weights"),
    [(False, None, [10, 100]), (True, None, [100]), (True, "x-sequence", [10, 100])],
)
def test_sequences_are_not_split_without_their_header(
    stage: Stage, tmp_path: Path, stateful: bool, header: str | None, weights: list[int]
) -> None:
    deployed(stage, tmp_path, "one")
    proxy = ProxySettings("*:8000", "*:8001", None, [], sequence_header=header)
    names = [step.name for step in rollout(stage, tmp_path, "two", stateful=stateful, proxy=proxy).steps()]
    assert [name for name in names if name.startswith("shift")] == [f"shift-{weight}" for weight in weights]


def test_a_server_that_was_stateful_is_not_split_either(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one", stateful=True)
    names = [step.name for step in rollout(stage, tmp_path, "two").steps()]
    assert [name for name in names if name.startswith("shift")] == ["shift-100"]


def test_it_is_proven_before_it_gets_any_traffic(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")

    def refuse(connection: Connection, progress: object, among: object = None) -> Mapping[str, Any]:
        raise CheckFailed("it answers wrongly")

    strategy = rollout(stage, tmp_path, "two", prove=refuse)
    with pytest.raises(CheckFailed, match="it answers wrongly"):
        strategy.run({})
    assert "arm" not in stage.place.log
    strategy.undo("it answers wrongly")
    assert stage.place.weights == {"blue": 100, "green": 0}
    assert set(stage.running) == {"blue"}
    assert state_of(stage).release == "one"


@pytest.mark.parametrize("reached", range(1, 9))
def test_it_goes_back_from_every_step(stage: Stage, tmp_path: Path, reached: int) -> None:
    deployed(stage, tmp_path, "one")
    committed = (stage.place.root / CONFIG).read_text()
    strategy = rollout(stage, tmp_path, "two")
    for step in strategy.steps()[:reached]:
        step.do()
    for _ in range(2):  # and once more, as after a kill in the middle of it
        strategy.undo("because")
    assert stage.place.weights == {"blue": 100, "green": 0}
    assert stage.place.spares == ["blue"]
    assert stage.place.armed is None
    assert set(stage.running) == {"blue"}
    assert (stage.place.root / CONFIG).read_text() == committed
    state = state_of(stage)
    assert (state.release, state.unfinished) == ("one", None)


def test_it_goes_back_from_just_before_the_commit(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    committed = (stage.place.root / CONFIG).read_text()
    strategy = rollout(stage, tmp_path, "two")
    for step in strategy.steps():
        step.do()
    strategy._settle({"green": 100})
    assert (stage.place.root / CONFIG).read_text() != committed
    strategy.undo("because")
    assert (stage.place.root / CONFIG).read_text() == committed


def test_going_back_moves_the_traffic_before_it_writes_anything(stage: Stage, tmp_path: Path) -> None:
    """The disk may be full."""
    deployed(stage, tmp_path, "one")
    strategy = rollout(stage, tmp_path, "two")
    for step in strategy.steps():
        step.do()
    assert stage.place.weights["green"] == 100
    stage.place.refuse["append"] = EnvironmentLacks("the disk refuses")
    with pytest.raises(EnvironmentLacks):
        strategy.undo("because")
    assert stage.place.weights == {"blue": 100, "green": 0}
    assert stage.place.armed is not None  # the timer still looks after the rest


def test_an_old_server_that_ended_is_started_before_anything_goes_back_to_it(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    strategy = rollout(stage, tmp_path, "two")
    for step in strategy.steps():
        step.do()
    del stage.running["blue"]
    stage.place.log.clear()
    strategy.undo("because")
    assert after(stage.place.log, "start blue", "weigh {'blue': 100, 'green': 0}")
    assert stage.running["blue"].release == "one"


def test_a_proxy_that_ended_is_started_with_the_committed_weights(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    committed = stage.proxy
    strategy = rollout(stage, tmp_path, "two")
    for step in strategy.steps():
        step.do()
    stage.proxy = None
    strategy.undo("because")
    assert stage.proxy == committed


def test_a_configuration_that_the_proxy_refused_never_gets_into_its_file(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    committed = (stage.place.root / CONFIG).read_text()
    strategy = rollout(stage, tmp_path, "two", proxy=ProxySettings("*:9000", "*:9001", None, []))
    stage.refuses_config = True
    with pytest.raises(CheckFailed, match="the proxy refuses its configuration"):
        strategy.run({})
    strategy.undo("because")
    assert (stage.place.root / CONFIG).read_text() == committed


def test_the_slot_that_serves_can_be_started_again(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    del stage.running["blue"]
    strategy = rollout(stage, tmp_path, "one", slot="blue")
    strategy.run({})
    strategy.tidy()
    assert all("'blue': 100" in line for line in stage.place.log if line.startswith("weigh"))
    assert (stage.place.weights, set(stage.running)) == ({"blue": 100, "green": 0}, {"blue"})
    assert not any("shift" in line for line in stage.place.log)


def done_of(*names: str) -> dict[str, Any]:
    return {name: {} for name in names}


@pytest.mark.parametrize(
    ("done", "server", "proxy", "again"),
    [
        (("deliver", "start"), True, True, "ready"),
        (("deliver", "start", "ready", "proxy"), True, True, "shift-10"),
        (("deliver", "start", "ready", "proxy"), False, True, "start"),
        (("deliver", "start", "ready", "proxy"), True, False, "proxy"),
        (("deliver", "start", "ready", "proxy", "shift-10", "watch-10", "shift-100"), True, True, "shift-10"),
    ],
)
def test_going_on_begins_where_what_was_done_still_holds(
    stage: Stage, tmp_path: Path, done: tuple[str, ...], server: bool, proxy: bool, again: str
) -> None:
    deployed(stage, tmp_path, "one")
    strategy = rollout(stage, tmp_path, "two")
    strategy.steps()[0].do()
    if server:
        stage.running["green"] = strategy.start
    if not proxy:
        stage.proxy = None
    stage.place.log.clear()
    strategy.run(done_of(*done))
    intended = [line for line in stage.place.log if line.startswith("intend")]
    assert intended[0] == f"intend:{again}"
    assert state_of(stage).release == "two"


def test_what_the_history_needs_stays(stage: Stage, tmp_path: Path) -> None:
    pace = Pace(**{**{name: getattr(QUICK, name) for name in QUICK.__slots__}, "retention": 2})
    for release in ("one", "two", "three", "four"):
        deployed(stage, tmp_path, release, pace=pace)
    assert sorted(path.name for path in (stage.place.root / "snapshots").iterdir()) == ["four", "three"]


def test_without_a_warm_server_the_old_one_stops(stage: Stage, tmp_path: Path) -> None:
    pace = Pace(**{**{name: getattr(QUICK, name) for name in QUICK.__slots__}, "keep_warm": False})
    deployed(stage, tmp_path, "one", pace=pace)
    deployed(stage, tmp_path, "two", pace=pace)
    assert set(stage.running) == {"green"}
    assert stage.place.spares == ["green"]


def test_too_little_traffic_is_no_verdict(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    pace = Pace(**{**{name: getattr(QUICK, name) for name in QUICK.__slots__}, "bounds": Bounds(5, 0.0, None, 5.0)})
    strategy = rollout(stage, tmp_path, "two", pace=pace)
    true = stage.place.call

    def counting(operation: str, arguments: Any = None, **more: Any) -> Any:
        if operation == "proxy":
            stage.place.requests["blue"] = stage.place.requests.get("blue", 0) + 1
        return true(operation, arguments, **more)

    stage.place.call = counting  # type: ignore[method-assign]
    with pytest.raises(Inconclusive, match="at 10 % there is no verdict: only 0 requests came"):
        strategy.run({})


def test_a_newcomer_that_ends_while_it_is_watched_is_bad(stage: Stage, tmp_path: Path) -> None:
    deployed(stage, tmp_path, "one")
    strategy = rollout(stage, tmp_path, "two")
    true = stage.place.call

    def ending(operation: str, arguments: Any = None, **more: Any) -> Any:
        if operation == "arm":
            stage.running.pop("green")
        return true(operation, arguments, **more)

    stage.place.call = ending  # type: ignore[method-assign]
    with pytest.raises(CheckFailed, match="the new server ended: gone"):
        strategy.run({})
