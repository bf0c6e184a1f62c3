"""The proxy's configuration, by what a real HAProxy does with it in front of two small servers."""

from __future__ import annotations

import hashlib
import http.client
import json
import queue
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from rollout.proxied import BACKENDS, INFER, RPC, Load, Proxy, Slot, ask, call, eventually, haproxy, two_slots

Start = Callable[..., Proxy]
BUFFER = 262144
TOKEN = "a-long-secret"


@pytest.fixture(scope="module")
def slots() -> Iterator[tuple[Slot, Slot]]:
    """Servers that no test ends."""
    yield from two_slots()


@pytest.fixture
def mortals() -> Iterator[tuple[Slot, Slot]]:
    """Servers that a test may end."""
    yield from two_slots()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a proxy; ended with the test."""
    started: list[Proxy] = []

    def start(slots: tuple[Slot, ...], weights: tuple[int, ...] = (100, 0), **settings: Any) -> Proxy:
        proxy = Proxy(tmp_path, slots, weights, settings)
        started.append(proxy)
        return proxy.start().settled(*(slot.name for slot in slots))

    yield start
    for proxy in started:
        proxy.stop()


def who(proxy: Proxy, count: int = 40, **headers: str) -> tuple[Counter[str], Counter[str]]:
    """Who answers requests over one HTTP connection, and calls over one gRPC channel."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports.http, timeout=10)
    over_http: Counter[str] = Counter()
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    for _ in range(count):
        connection.request("POST", INFER, b"{}", sent)
        over_http[json.loads(connection.getresponse().read())["name"]] += 1
    connection.close()
    with proxy.channel() as channel:
        return over_http, Counter(call(channel, sent)["name"] for _ in range(count))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"metrics": None, "stats_port": None},
        {"sequence_header": "x-sequence", "sequence_expire": "1h"},
        {"resolvers": "127.0.0.11:53", "max_body": 1 << 20, "bufsize": 65536, "drain": 5, "fd_limit": 4096},
        {"control": ["unix@/tmp/proxy.sock mode 666 level admin", "ipv4@127.0.0.1:9999 level admin"]},
        {"reuse_grpc": True},
        {"timeouts": {"connect": "1s", "request": "5s", "idle": "1m", "stream": "1d", "keep_alive": "1m"}},
    ],
    ids=lambda settings: ",".join(settings) or "defaults",
)
def test_haproxy_takes_it_without_a_warning(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(Proxy(tmp_path, (Slot("blue"), Slot("green")), settings=settings).configuration())
    done = subprocess.run([haproxy(), "-c", "-f", str(file)], capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_one_slot_is_a_configuration_too(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots[:1], (100,))
    assert who(proxy, 5) == ({"blue": 5}, {"blue": 5})
    assert ask(proxy.ports.metrics, "GET", "/metrics")[1]["metrics_of"] == "blue"


def test_each_request_of_a_connection_goes_by_the_weights_of_the_moment(slots: tuple[Slot, Slot], start: Start) -> None:
    """Each by chance: a server that has waited has no claim to a burst of them (`balance roundrobin` gives it one)."""
    proxy = start(slots, (192, 64))
    for names in who(proxy, 200):
        assert 20 <= names["green"] <= 80
    proxy.weigh(blue=0, green=256)
    assert who(proxy) == ({"green": 40}, {"green": 40})
    for blue, green, least, most in ((128, 128, 60, 140), (0, 256, 200, 200), (128, 128, 60, 140), (243, 13, 1, 40)):
        proxy.weigh(blue=blue, green=green)
        for names in who(proxy, 200):
            assert least <= names["green"] <= most, (blue, green)


def test_the_runtime_socket_drains_readies_and_tells(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots, (100, 100))
    for backend in BACKENDS:
        assert proxy.say(f"set server {backend}/blue state drain").strip() == ""
    assert who(proxy, 10) == ({"green": 10}, {"green": 10})
    states = {(row["pxname"], row["svname"]): row["status"] for row in proxy.stat()}
    assert (states["triton_http", "blue"], states["triton_http", "green"]) == ("DRAIN", "UP")
    for backend in BACKENDS:
        proxy.say(f"set server {backend}/blue state ready")
    assert all(min(names["blue"], names["green"]) > 5 for names in who(proxy, 40))
    assert proxy.say("get weight triton_grpc/green").strip() == "100 (initial 100)"


def test_a_new_proxy_begins_with_the_weights_of_its_file(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots, (0, 100))
    proxy.weigh(blue=100, green=0)
    assert who(proxy, 5) == ({"blue": 5}, {"blue": 5})
    proxy.stop()
    proxy.start().settled("blue", "green")
    assert who(proxy, 5) == ({"green": 5}, {"green": 5})


def test_a_server_that_is_not_ready_gets_nothing(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots, (100, 100))
    slots[0].ready(False)
    try:
        proxy.settled("green")
        assert who(proxy, 10) == ({"green": 10}, {"green": 10})
    finally:
        slots[0].ready(True)
    proxy.settled("blue", "green")
    assert all(min(names["blue"], names["green"]) > 5 for names in who(proxy, 40))


@pytest.mark.parametrize("weights", [(100, 0), (100, 100)], ids=["the other is its spare", "both serve"])
def test_a_server_that_dies_under_load_costs_no_request(
    mortals: tuple[Slot, Slot], start: Start, weights: tuple[int, int]
) -> None:
    blue, _ = mortals
    proxy = start(mortals, weights)
    with Load(proxy) as load:
        load.reached(300)
        blue.kill()
        load.reached(300)
        blue.start()
        proxy.settled("blue", "green")
        returned = load.answered.copy()
        load.reached(300)
        since = load.answered - returned
    assert load.failed == []
    assert since["http blue"] > 10
    assert since["grpc blue"] > 10
    assert load.answered["http green"] > 10
    assert load.answered["grpc green"] > 10
    assert load.longest < 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_that_its_server_died_with_is_sent_again_as_a_whole(
    mortals: tuple[Slot, Slot], start: Start, protocol: str
) -> None:
    proxy = start(mortals)
    body = b"x" * (BUFFER - 16384)
    if protocol == "http":
        status, answer = proxy.infer({"x-die": "blue"}, body)
        assert status == 200
    else:
        with proxy.channel() as channel:
            answer = call(channel, {"x-die": "blue"}, body=body)
    assert (answer["name"], answer["size"]) == ("green", len(body))


def test_a_request_larger_than_the_buffer_passes_but_is_not_sent_again(
    mortals: tuple[Slot, Slot], start: Start
) -> None:
    proxy = start(mortals)
    body = b"x" * (4 * BUFFER)
    assert proxy.infer(body=body)[1]["size"] == len(body)
    with proxy.channel() as channel:
        assert call(channel, body=body)["size"] == len(body)
    try:
        status = proxy.infer({"x-die": "blue"}, body)[0]
    except http.client.RemoteDisconnected:  # how newer HAProxys say it
        status = 502
    assert status == 502


def test_a_busy_server_is_asked_again_and_a_failing_model_is_not(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots, (100, 100))
    answers = [proxy.infer({"x-fail": "blue=503"}) for _ in range(10)]
    assert {(status, answer["name"]) for status, answer in answers} == {(200, "green")}
    assert {proxy.infer({"x-fail": "blue=500"})[0] for _ in range(10)} == {200, 500}


@pytest.mark.parametrize("way", ["file", "spare", "drain"])
def test_a_candidate_that_is_not_proven_is_no_spare(mortals: tuple[Slot, Slot], start: Start, way: str) -> None:
    proxy = start(mortals)
    if way == "file":
        proxy.stop()
        text = proxy.configuration()
        proxy.settings = {
            "slots": [
                {
                    "name": slot.name,
                    "host": "127.0.0.1",
                    **dict(zip(("http", "grpc", "metrics"), (slot.ports.http, slot.ports.grpc, 1), strict=True)),
                    "weight": weight,
                    "spare": slot.name == "blue",
                }
                for slot, weight in zip(mortals, (100, 0), strict=True)
            ]
        }
        assert text != proxy.configuration()
        proxy.start().settled("blue", "green")
    for backend in BACKENDS:
        if way == "spare":
            assert proxy.say(f"set server {backend}/spare-green state maint").strip() == ""
        elif way == "drain":
            assert proxy.say(f"set server {backend}/green state drain").strip() == ""
    mortals[0].kill()
    assert proxy.infer()[0] == 503
    with proxy.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    if way == "spare":
        for backend in BACKENDS:
            proxy.say(f"set server {backend}/spare-green state ready")
        assert proxy.infer()[0] == 200


def test_a_sequence_keeps_its_server_over_both_protocols_and_through_weights(
    slots: tuple[Slot, Slot], start: Start
) -> None:
    proxy = start(slots, (100, 100), sequence_header="x-sequence")
    names = [f"s{number}" for number in range(16)]
    first = {name: proxy.infer({"X-Sequence": name})[1]["name"] for name in names}
    assert set(first.values()) == {"blue", "green"}
    proxy.weigh(blue=0, green=100)
    for name in names:
        over_http, over_grpc = who(proxy, 3, x_sequence=name)
        assert over_http == over_grpc == {first[name]: 3}
    assert who(proxy, 5) == ({"green": 5}, {"green": 5})
    assert proxy.infer({"X-Sequence": "a new one"})[1]["name"] == "green"


def test_a_sequences_request_is_not_sent_twice(mortals: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(mortals, sequence_header="x-sequence")
    assert proxy.infer({"X-Sequence": "1", "x-die": "blue"})[0] == 502
    dying = mortals[0].process
    assert dying is not None
    dying.wait(10)  # until then its listening socket takes connections that nobody answers
    assert proxy.infer({"X-Sequence": "1"})[1]["name"] == "green"


def test_control_endpoints_are_not_offered(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    for path in (
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v2%2Frepository/index",
        "/v2/%72epository/index",
        "/v2/models/../repository/index",
        "/v2/models/m/trace/setting",
        "/v2/models/m/versions/1/trace/setting",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/cudasharedmemory/region/r/register",
        "/test/ready",
        "/metrics",
        "/",
    ):
        for method in ("GET", "POST"):
            status, answer = ask(proxy.ports.http, method, path, b"1" if method == "POST" else None)
            assert (path, status, answer.get("error")) == (path, 403, "this endpoint is not offered here")


def test_what_clients_need_is_offered(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    for path in (
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/m",
        "/v2/models/m/ready",
        "/v2/models/stats",
    ):
        assert ask(proxy.ports.http, "GET", path)[0] == 200
    for path in ("/infer", "/versions/3/infer", "/generate", "/generate_stream", "/versions/1/generate"):
        assert ask(proxy.ports.http, "POST", f"/v2/models/a%20model{path}", b"{}")[1]["name"] == "blue"


def test_control_calls_are_not_offered(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    with proxy.channel() as channel:
        for method in (
            "RepositoryIndex",
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "TraceSetting",
            "LogSettings",
            "SystemSharedMemoryRegister",
            "CudaSharedMemoryRegister",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(channel, method=method)
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
            assert caught.value.details() == "this call is not offered here"
        assert call(channel, method="ServerReady")["name"] == "blue"


def test_tokens_are_asked_for_and_end_at_the_proxy(slots: tuple[Slot, Slot], start: Start, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(hashlib.sha256(TOKEN.encode()).hexdigest() + "\n")
    proxy = start(slots, token={"file": str(file)})
    good, bad = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer another"}
    for headers in ({}, bad, {"authorization": f"Basic {TOKEN}"}):
        status, answer = proxy.infer(headers)
        assert (status, answer["answered"]["www-authenticate"]) == (401, "Bearer")
        with proxy.channel() as channel, pytest.raises(grpc.RpcError) as caught:
            call(channel, headers)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    status, answer = proxy.infer(good)
    assert status == 200
    assert "authorization" not in answer["headers"]
    with proxy.channel() as channel:
        assert "authorization" not in call(channel, good)["headers"]
        assert call(channel, method="ServerReady")["name"] == "blue"
    assert ask(proxy.ports.http, "GET", "/v2/health/ready")[0] == 200
    assert ask(proxy.ports.http, "GET", "/v2/models/m")[0] == 401


def test_both_protocols_speak_tls_and_may_ask_for_the_clients_certificate(
    slots: tuple[Slot, Slot], start: Start, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    (tmp_path / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    proxy = start(slots, tls={"crt": str(tmp_path / "both.pem"), "ca": str(certificate)})

    def over_http(context: ssl.SSLContext) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.ports.http, timeout=5, context=context)
        connection.request("GET", "/v2")
        return connection.getresponse().status

    stranger = ssl.create_default_context(cafile=str(certificate))
    with pytest.raises((ssl.SSLError, OSError)):
        over_http(stranger)
    known = ssl.create_default_context(cafile=str(certificate))
    known.load_cert_chain(certificate, key)
    assert over_http(known) == 200
    chain = certificate.read_bytes()
    for ours, served in ((None, False), (key.read_bytes(), True)):
        credentials = grpc.ssl_channel_credentials(chain, ours, chain if ours else None)
        with grpc.secure_channel(f"localhost:{proxy.ports.grpc}", credentials) as channel:
            if served:
                assert call(channel)["name"] == "blue"
            else:
                with pytest.raises(grpc.RpcError):
                    call(channel)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(proxy.ports.http, "GET", "/v2")


def test_a_long_stream_stays_through_weights_and_drain(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    said: queue.Queue[bytes | None] = queue.Queue()
    with proxy.channel() as channel:
        answers = channel.stream_stream(RPC + "ModelStreamInfer")(iter(said.get, None))
        heard = []
        for turn in range(4):
            said.put(b"more")
            heard.append(json.loads(next(answers))["name"])
            if turn == 1:
                proxy.weigh(blue=0, green=100)
            if turn == 2:
                proxy.say("set server triton_grpc/blue state drain")
        said.put(None)
        assert list(answers) == []
        assert call(channel)["name"] == "green"
    assert heard == ["blue"] * 4


def test_a_proxy_that_is_asked_to_stop_finishes_what_it_has(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(proxy.infer({"x-sleep": "1"})[0]))
    slow.start()
    time.sleep(0.3)
    proxy.stop(signal.SIGUSR1)
    slow.join()
    assert answers == [200]
    with pytest.raises(OSError):
        proxy.infer()


def test_metrics_are_those_of_the_slot_with_the_greater_weight(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    for weights, name in (((100, 0), "blue"), ((10, 90), "green"), ((0, 100), "green"), ((60, 40), "blue")):
        proxy.weigh(blue=weights[0], green=weights[1])
        assert {ask(proxy.ports.metrics, "GET", "/metrics")[1]["metrics_of"] for _ in range(4)} == {name}
    own = ask(proxy.ports.metrics, "GET", "/proxy/metrics")[1]["text"]
    assert 'haproxy_server_weight{proxy="triton_http",server="blue"} 60' in own
    assert 'haproxy_server_check_status{proxy="triton_grpc",server="green",state="L7OK"} 1' in own
    assert ask(proxy.ports.metrics, "GET", "/v2")[0] == 404


def test_its_own_health_is_not_that_of_the_slots(mortals: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(mortals)
    for slot in mortals:
        slot.kill()
    assert proxy.infer()[0] == 503
    assert ask(proxy.ports.metrics, "GET", "/proxy/health")[0] == 200


def test_two_entries_of_a_server_may_have_the_address_that_its_name_means(tmp_path: Path) -> None:
    """HAProxy gives an address to one server of a backend alone unless it is told otherwise; spares are second ones."""
    slots = [{"name": name, "host": name, "http": 8000, "grpc": 8001, "metrics": 8002, "weight": 1} for name in "ab"]
    settings = {"resolvers": "127.0.0.11:53", "slots": [{**slot, "resolve": True} for slot in slots]}
    text = Proxy(tmp_path, (), (), settings).configuration()
    named = [line for line in text.splitlines() if " resolvers names " in line]
    assert len(named) == 2 * 4 + 2
    assert all(" resolve-opts allow-dup-ip " in line for line in named)


def test_the_statistics_page_is_on_loopback_alone(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    assert f"bind 127.0.0.1:{proxy.stats_port}\n" in proxy.configuration()
    status, answer = ask(proxy.stats_port, "GET", "/")
    assert status == 200
    assert "Statistics Report for HAProxy" in answer["text"]


def test_requests_have_an_id_that_the_client_may_give(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots)
    _, answer = proxy.infer()
    assert len(answer["headers"]["x-request-id"]) == 36
    assert answer["answered"]["x-request-id"] == answer["headers"]["x-request-id"]
    _, answer = proxy.infer({"X-Request-Id": "mine"})
    assert answer["answered"]["x-request-id"] == answer["headers"]["x-request-id"] == "mine"
    with proxy.channel() as channel:
        assert call(channel, {"x-request-id": "mine"})["headers"]["x-request-id"] == "mine"


def test_a_body_beyond_the_limit_is_refused(slots: tuple[Slot, Slot], start: Start) -> None:
    proxy = start(slots, max_body=1000)
    assert proxy.infer(body=b"x" * 1000)[0] == 200
    status, answer = proxy.infer(body=b"x" * 1001)
    assert (status, answer["error"]) == (413, "the request is larger than 1000 bytes")


def test_servers_that_come_up_later_serve_within_a_second(mortals: tuple[Slot, Slot], start: Start) -> None:
    blue, green = mortals
    proxy = start(mortals)
    blue.kill()
    green.kill()
    assert proxy.infer()[0] == 503
    blue.start()
    started = time.monotonic()
    eventually(lambda: proxy.infer()[0] == 200)
    assert time.monotonic() - started < 1.5
