"""A target whose proxy serves TLS and asks for tokens; clients come with a connection profile of the spec."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.commands import Workshop
from making_onnx import batched_add, save

from tritonforge.rollout.targets.embedded import EmbeddedHost, Public
from tritonforge.triton import ports
from tritonforge.triton.embedded import Runtime

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None, reason="haproxy is not installed"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]

SPEC = """\
models:
  plus: {{source: plus.onnx, max_batch_size: 8}}
targets:
  here:
    kind: embedded
    folder: target
    gates: []
    ports: {{http: {http}, grpc: {grpc}, metrics: {metrics}}}
    rollout: {{weights: [100], analysis: {{hold_s: 0.2, min_requests: 0}}, drain_s: 2}}
    proxy:
      tls: {{cert: server.pem, key: {{file: server.key}}}}
      tokens: [{{env: FORGE_TOKEN}}, {{file: second-token}}]
connections:
  good: {{http: "localhost:{http}", grpc: "localhost:{grpc}", tls: {{ca: server.pem}}, token: {{file: second-token}}}}
  without: {{http: "localhost:{http}", tls: {{ca: server.pem}}}}
  strange: {{http: "localhost:{http}", tls: true, token: {{file: second-token}}}}
"""


@pytest.fixture(scope="module")
def secured(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop.make(tmp_path_factory.mktemp("tls"), runtime.root.parent)
    http, grpc, metrics = (ports.free("127.0.0.1") for _ in range(3))
    save(made.folder / "plus.onnx", batched_add())
    certificate(made.folder)
    (made.folder / "second-token").write_text("the-second-secret\n")
    made.write(SPEC.format(http=http, grpc=grpc, metrics=metrics))
    made.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGE_TOKEN", "the-first-secret")
        assert made.json("deploy", "here")["outcome"] == "deployed"
        yield made
    EmbeddedHost(made.folder / "target", runtime, Public("127.0.0.1", http, grpc, metrics)).remove()


def certificate(folder: Path, name: str = "server") -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )


def test_a_client_with_the_authority_and_a_token_is_served(secured: Workshop) -> None:
    for protocol in ("http", "grpc"):
        done = secured.json("infer", "plus", "[1, 5, 2, 3]", "--server", "good", "--protocol", protocol)
        assert done["outputs"] == {"y": [2, 6, 3, 4]}


def test_a_client_without_a_token_is_refused(secured: Workshop) -> None:
    done = secured.run("infer", "plus", "[1, 5, 2, 3]", "--server", "without")
    assert done.code != 0
    assert "bearer token" in done.err


def test_a_certificate_of_nobody_is_refused_by_the_client(secured: Workshop) -> None:
    done = secured.run("infer", "plus", "[1, 5, 2, 3]", "--server", "strange")
    assert done.code == 3
    assert "certificate" in done.err.lower()


def test_a_new_certificate_is_taken_without_a_restart(secured: Workshop) -> None:
    before = proxy_pid(secured)
    certificate(secured.folder)
    # Nothing of the release changed; the proxy did.
    assert secured.json("deploy", "here", "--dry-run")["outcome"] == "planned"
    assert secured.json("deploy", "here")["outcome"] == "deployed"
    assert proxy_pid(secured) == before
    done = secured.json("infer", "plus", "[1, 5, 2, 3]", "--server", "good")
    assert done["outputs"] == {"y": [2, 6, 3, 4]}


def test_no_secret_is_in_the_journal_the_lock_or_the_logs(secured: Workshop) -> None:
    key = (secured.folder / "server.key").read_text().splitlines()[1]
    for file in (secured.folder / "target").rglob("*"):
        if not file.is_file() or file.name in ("tls.pem", "tokens"):
            continue
        text = file.read_bytes()
        for secret in (b"the-first-secret", b"the-second-secret", key.encode()):
            assert secret not in text, file
    tokens = secured.folder / "target" / "proxy" / "tokens"
    assert tokens.stat().st_mode & 0o777 == 0o600
    assert b"secret" not in tokens.read_bytes()
    assert (secured.folder / "target" / "proxy" / "tls.pem").stat().st_mode & 0o777 == 0o600


def proxy_pid(workshop: Workshop) -> int:
    return int(json.loads((workshop.folder / "target" / "servers" / "proxy.json").read_text())["pid"])
