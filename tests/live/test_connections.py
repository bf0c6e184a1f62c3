"""Every command with `--server` works through a proxy that asks for TLS, a client certificate, a token and a header;
what is refused is one clear error; and no secret is in anything that is written."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
from cli.commands import Outcome, Serving, Workshop, errors_said
from live.secured_proxy import PROGRAM, Authority, SecuredProxy
from making_onnx import batched_add, save

from tritonforge.cli.main import cli
from tritonforge.triton import ports
from tritonforge.triton.embedded import Runtime

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed"),
]

PROTOCOLS = ("http", "grpc")
SPEC = """\
models:
  plus: {{source: plus.onnx, max_batch_size: 8}}
gates:
  over-http: {{model: plus, protocol: http, concurrency: [2], interval_ms: 100, slo: {{p95_ms: 60000}}}}
  over-grpc: {{model: plus, protocol: grpc, concurrency: [2], interval_ms: 100, slo: {{p95_ms: 60000}}}}
connections:
{connections}
"""
GOOD = {
    "ca": "house.pem",
    "cert": "me.pem",
    "key": "me.key",
    "token": "{file: token}",
    "team": "{file: team}",
}
WAYS = {
    "of-files": {},
    "of-variables": {"token": "{env: FORGE_TOKEN}", "team": "{env: FORGE_TEAM}", "key": "{env: FORGE_KEY}"},
    "of-commands": {
        "token": "{command: [cat, token]}",
        "team": "{command: [cat, team]}",
        "key": "{command: [cat, me.key]}",
    },
    "in-one-file": {"cert": "me-and-key.pem", "key": None},
}
"""Connections that are served, by where their secrets come from."""

REFUSED = {
    "stranger": ({"ca": "other.pem"}, ("nobody that is trusted here signed", "tls: {ca: FILE}")),
    "machines": ({"ca": None}, ("nobody that is trusted here signed", "tls: {ca: FILE}")),
    "nameless": ({"cert": None, "key": None}, ("asks for a client certificate", "tls: {cert: FILE, key: FILE}")),
    "expired": ({"cert": "old.pem", "key": "old.key"}, ("the client's certificate has expired",)),
    "foreign": ({"cert": "spy.pem", "key": "spy.key"}, ("does not accept the client's certificate",)),
    "tokenless": ({"token": None}, ("refuses these credentials", "`token`")),
    "wrong-token": ({"token": "{file: wrong}"}, ("refuses these credentials", "`token`")),
    "wrong-team": ({"team": "{file: wrong}"}, ("refuses these credentials", "`headers`")),
    "torn-key": ({"key": "token"}, ("TLS files of the connection cannot be used",)),
    "locked-key": ({"cert": "me.pem", "key": "locked.key"}, ("TLS files of the connection cannot be used",)),
    "no-variable": ({"token": "{env: FORGE_ABSENT}"}, ("FORGE_ABSENT is not set",)),
    "no-file": ({"token": "{file: absent}"}, ("cannot read a secret", "absent")),
    "no-program": ({"token": "{command: [frobnicate]}"}, ("cannot be started", "frobnicate")),
    "fails": ({"token": "{command: [sh, -c, 'cat token; cat token >&2; exit 3']}"}, ("exit code 3",)),
    "silent": ({"token": "{command: ['true']}"}, ("a secret is empty", "true")),
    "talks": ({"token": "{command: [sh, -c, 'cat token; cat token']}"}, ("one line of printable ASCII",)),
}
"""What is changed of the good connection, and what the error says."""


@dataclass
class Secured:
    workshop: Workshop
    secrets: dict[str, str]

    def run(self, *words: str, code: int | None = None, timeout: float = 120) -> Outcome:
        done = self.workshop.run(*words, timeout=timeout)
        if code is not None:
            assert done.code == code, f"{words} ended with {done.code}\n{done.out}\n{done.err}"
        for name, value in self.secrets.items():
            assert value not in done.out, f"{name} is on standard output of {words}"
            assert value not in done.err, f"{name} is on standard error of {words}"
        return done

    def check_files(self, given: frozenset[Path]) -> int:
        """Nothing that was written since ``given`` has a secret; how many files were read."""
        files = [
            path
            for root in (self.workshop.folder, self.workshop.home)
            for path in root.rglob("*")
            if path.is_file() and path not in given and "runtimes" not in path.relative_to(root).parts
        ]
        for path in files:
            data = path.read_bytes()
            for name, value in self.secrets.items():
                assert value.encode() not in data, f"{name} is in {path}"
        return len(files)


def profile(name: str, address: str, changes: dict[str, str | None]) -> str:
    """One connection of the spec, as a line of YAML."""
    said = {**GOOD, **changes}
    tls = ", ".join(f"{key}: {said[key]}" for key in ("ca", "cert", "key") if said[key] is not None)
    parts = [address, f"tls: {{{tls}}}" if tls else "tls: true"]
    parts += [f"token: {said['token']}"] if said["token"] else []
    parts += [f"headers: {{x-team: {said['team']}, x-plain: forge}}"]
    return f"  {name}: {{{', '.join(parts)}}}\n"


@pytest.fixture(scope="module")
def secured(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    workshop = Workshop.make(tmp_path_factory.mktemp("clients"), runtime.root.parent)
    folder = workshop.folder
    save(folder / "plus.onnx", batched_add())
    workshop.write(SPEC.format(connections="  nowhere: {http: 'localhost:1'}"))
    workshop.build()

    house, other = Authority(folder, "house"), Authority(folder, "other")
    beside = tmp_path_factory.mktemp("proxy")
    house.issue("server", server=True)
    house.issue("me")
    house.issue("old", days=(-9, -2))
    other.issue("spy")
    for name in ("server.pem", "server.key", "house.pem"):
        (beside / name).write_bytes((folder / name).read_bytes())
    (folder / "me-and-key.pem").write_bytes((folder / "me.pem").read_bytes() + (folder / "me.key").read_bytes())
    locked = ("openssl", "pkcs8", "-topk8", "-in", folder / "me.key", "-out", folder / "locked.key")
    subprocess.run([*locked, "-passout", "pass:x"], check=True, capture_output=True)

    hidden = {name: f"{name}-{secrets.token_hex(16)}" for name in ("token", "team", "wrong")}
    for name, value in hidden.items():
        (folder / name).write_text(f"{value}\n")
    key = (folder / "me.key").read_text()
    metrics = ports.free("127.0.0.1")
    with (
        Serving.start(workshop, "--metrics-port", str(metrics)) as serving,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FORGE_TOKEN", hidden["token"])
        patch.setenv("FORGE_TEAM", hidden["team"])
        patch.setenv("FORGE_KEY", key)
        targets = {"http": serving.http, "grpc": serving.grpc, "metrics": f"127.0.0.1:{metrics}"}
        proxy = SecuredProxy.start(beside, targets, hidden["token"], hidden["team"])
        try:
            at = {name: f"localhost:{port}" for name, port in proxy.ports.items()}
            address = {name: f'{name}: "{at[name]}", metrics: "https://{at["metrics"]}"' for name in PROTOCOLS}
            both = f'http: "{at["http"]}", grpc: "{at["grpc"]}"'
            lines = [profile("good", both, {})]
            for protocol in PROTOCOLS:
                lines += [profile(f"{way}-{protocol}", address[protocol], WAYS[way]) for way in WAYS]
                lines += [profile(f"{why}-{protocol}", address[protocol], REFUSED[why][0]) for why in REFUSED]
                # A port without TLS, and a client without it.
                plain = {"http": serving.http, "grpc": serving.grpc}[protocol]
                lines.append(profile(f"plain-port-{protocol}", f'{protocol}: "{plain}"', {}))
                lines.append(f'  no-tls-{protocol}: {{{protocol}: "{at[protocol]}"}}\n')
            workshop.write(SPEC.format(connections="".join(lines)))
            yield Secured(workshop, {**hidden, "key": key.splitlines()[1]})
        finally:
            proxy.stop()


@pytest.fixture
def given(secured: Secured) -> frozenset[Path]:
    """The files that users wrote themselves, secrets among them."""
    return frozenset(path for path in secured.workshop.folder.iterdir() if path.is_file())


def commands_with_server(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that takes ``--server``, from the program's own tree."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_with_server(command, (*words, name))
        elif command is not None and any("--server" in option.opts for option in command.params):
            yield (*words, name)


SERVED: dict[tuple[str, ...], Callable[[str], list[str]]] = {
    ("validate",): lambda protocol: ["validate"],
    ("infer",): lambda protocol: ["infer", "plus", "[1, 5, 2, 3]", "--protocol", protocol],
    ("gate",): lambda protocol: ["gate", f"over-{protocol}"],
}
"""What is asked of each command over a protocol."""


def check_answer(command: tuple[str, ...], protocol: str, answer: dict[str, Any]) -> None:
    """The command did what it does on a server without any of this."""
    if command == ("validate",):
        (model,) = answer["models"]
        assert (answer["ok"], model["cases"], model["failures"]) == (True, model["compared"], [])
        assert model["cases"] >= 3
        assert f" at {protocol}s://localhost:" in answer["server"]["title"]
    elif command == ("infer",):
        assert answer["outputs"] == {"y": [2, 6, 3, 4]}
    else:
        (gate,) = answer["gates"]
        assert answer["verdict"] == "pass"
        level = gate["evidence"]["levels"][0]
        assert level["outcome"] == "measured"
        assert level["errors"] == 0
        # It passes only where the server's own counters were read, which stand behind the same proxy.
        (errors,) = [item for item in gate["evidence"]["results"][0]["conditions"] if item["name"] == "error rate"]
        assert (errors["verdict"], errors["measured"]) == ("pass", 0)


NOT_FOR_OTHERS = {
    ("serve",): (["serve"], "starts a server"),
    ("choose",): (["choose"], "on a server that loads them"),
}
"""Commands that take the option to refuse it."""


def test_no_command_with_server_is_forgotten_here() -> None:
    assert set(commands_with_server()) == SERVED.keys() | NOT_FOR_OTHERS.keys()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", ["of-files", *(pytest.param(way, marks=pytest.mark.slow) for way in list(WAYS)[1:])])
@pytest.mark.parametrize("command", SERVED, ids=" ".join)
def test_a_command_works_through_the_proxy_and_writes_no_secret(
    secured: Secured, given: frozenset[Path], command: tuple[str, ...], way: str, protocol: str
) -> None:
    words = SERVED[command](protocol)
    done = secured.run(*words, "--server", f"{way}-{protocol}", "--json", "--debug", code=0)
    check_answer(command, protocol, done.json)
    if way == "of-files" and command != ("gate",):
        assert secured.run(*words, "--server", f"{way}-{protocol}", code=0).out
    assert secured.check_files(given) > 10


@pytest.mark.parametrize("words", [item[0] for item in NOT_FOR_OTHERS.values()], ids=" ".join)
def test_a_command_that_starts_servers_refuses_the_option(secured: Secured, words: list[str]) -> None:
    done = secured.run(*words, "--server", "good", code=2)
    assert errors_said(done.err) == 1
    assert NOT_FOR_OTHERS[(words[0],)][1] in done.err


QUICK = [("stranger", "http"), ("nameless", "grpc"), ("expired", "grpc"), ("wrong-token", "grpc"), ("fails", "http")]
EVERY = [(why, protocol) for why in REFUSED for protocol in PROTOCOLS]
LATER = [item for item in EVERY if item not in QUICK]


@pytest.mark.parametrize(
    ("why", "protocol"), [*QUICK, *(pytest.param(*item, marks=pytest.mark.slow) for item in LATER)]
)
def test_what_is_refused_is_one_clear_error(secured: Secured, given: frozenset[Path], why: str, protocol: str) -> None:
    done = secured.run(*SERVED[("infer",)](protocol), "--server", f"{why}-{protocol}", "--debug", code=3)
    check_refusal(why, done)
    assert done.err.count("Traceback") == 1  # asked for by --debug
    secured.check_files(given)


@pytest.mark.slow
@pytest.mark.parametrize(("why", "protocol"), [("wrong-token", "http"), ("nameless", "grpc")])
@pytest.mark.parametrize("command", SERVED, ids=" ".join)
def test_every_command_says_it_the_same(
    secured: Secured, given: frozenset[Path], command: tuple[str, ...], why: str, protocol: str
) -> None:
    done = secured.run(*SERVED[command](protocol), "--server", f"{why}-{protocol}", "--json", code=3)
    check_refusal(why, done)
    assert done.json["error"] == "EnvironmentLacks"
    secured.check_files(given)


def check_refusal(why: str, done: Outcome) -> None:
    lines = done.err.splitlines()
    assert errors_said(done.err) == 1, done.err
    assert not any(re.match(r"[EWI]\d{4} ", line) for line in lines), done.err  # no library's own log
    for text in REFUSED[why][1]:
        assert text in done.err, done.err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_port_without_tls_and_a_client_without_it_are_told_apart(secured: Secured, protocol: str) -> None:
    words = ["infer", "plus", "[1, 5, 2, 3]", "--protocol", protocol]
    done = secured.run(*words, "--server", f"plain-port-{protocol}", code=3)
    assert re.search("(does|may) not speak TLS", done.err), done.err
    done = secured.run(*words, "--server", f"no-tls-{protocol}", code=3)
    assert errors_said(done.err) == 1


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_a_command_that_hangs_is_ended_with_what_it_started(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritonforge.actions import connections
    from tritonforge.errors import EnvironmentLacks, Place
    from tritonforge.spec.connection import SecretRef

    monkeypatch.setattr(connections, "COMMAND_S", 0.5)
    folder = secured.workshop.folder
    hangs = SecretRef(command=["sh", "-c", "echo $$ > pid; cat token; sleep 300 & sleep 300"])
    with pytest.raises(EnvironmentLacks, match="did not end") as error:
        connections.secret_value(hangs, Place(), folder)
    assert secured.secrets["token"] not in str(error.value)
    pid = int((folder / "pid").read_text())
    left = [item for item in psutil.process_iter() if _group(item.pid) == pid]
    assert [item for item in left if item.status() != psutil.STATUS_ZOMBIE] == []
    waits = SecretRef(command=["sh", "-c", "read line; echo $line"])  # nobody answers: it reads an end
    with pytest.raises(EnvironmentLacks, match=r"failed|empty"):
        connections.secret_value(waits, Place(), folder)


def test_a_defect_in_the_middle_of_a_call_shows_no_secret(secured: Secured) -> None:
    """A traceback of ours, and one with the values of all locals of our own errors, hold no secret."""
    code = (
        "import sys\n"
        "from tritonforge.triton import transport_http, client\n"
        "def broken(self, *words, **more):\n"
        "    raise RuntimeError(f'a defect: {self._connection!r} {vars(self).keys()}')\n"
        "transport_http.HttpTransport._send = broken\n"
        "from tritonforge.cli.main import run\n"
        "run(['infer', 'plus', '[1, 2, 3, 4]', '--server', 'good', '--debug'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=secured.workshop.folder,
        env=secured.workshop.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 70
    assert "Traceback" in done.stderr and "a defect: Connection(" in done.stderr
    for name, value in secured.secrets.items():
        assert value not in done.stdout + done.stderr, name
