"""Secrets by reference, and connections made of them: what is taken, and what is refused without being shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.actions.connections import connection_for, secret_value
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import EnvironmentLacks, ForgeError, Place, SpecError, UsageError
from tritonforge.spec.connection import SecretRef

MODEL = "models: {m: {source: m.onnx}}\n"
SECRET = "s3cret-in-no-message"


def workspace_with(folder: Path, connection: str):
    file = folder / "forge.yaml"
    file.write_text(f"apiVersion: tritonforge/v1\nname: tiny\n{MODEL}connections: {{c: {{{connection}}}}}\n")
    return open_workspace(file)


@pytest.mark.parametrize(
    "reference",
    ["{env: FORGE_SECRET}", "{file: secret}", "{command: [cat, secret]}", "{command: [./print-it]}"],
)
def test_a_reference_gives_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.setenv("FORGE_SECRET", SECRET)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "print-it").write_text("#!/bin/sh\ncat secret\n")
    (tmp_path / "print-it").chmod(0o755)
    workspace = workspace_with(tmp_path, f"grpc: 'h:1', token: {reference}, headers: {{X-Key: {reference}, x-a: b c}}")
    found = connection_for(workspace, "c")
    assert found.headers == {"X-Key": SECRET, "x-a": "b c", "authorization": f"Bearer {SECRET}"}
    assert SECRET not in repr(found)


def test_a_key_that_is_no_file_is_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me.pem").write_text("certificate")
    monkeypatch.setenv("FORGE_KEY", f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")
    found = connection_for(workspace_with(tmp_path, "http: 'h:1', tls: {cert: me.pem, key: {env: FORGE_KEY}}"), "c")
    assert found.tls is not None and found.tls.key is not None
    assert SECRET in found.tls.key.read_text()
    assert found.tls.key.read_text() == found.tls.key.read_text()  # it can be read again
    assert str(found.tls.key.resolve()).startswith("/memfd:")
    assert stat.S_ISREG(found.tls.key.stat().st_mode)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("{env: FORGE_ABSENT}", "FORGE_ABSENT is not set"),
        ("{file: absent}", "cannot read a secret"),
        ("{file: .}", "cannot read a secret"),
        ("{file: empty}", "a secret is empty"),
        ("{file: bytes}", "not UTF-8"),
        ("{file: large}", "larger than 64 KiB"),
        ("{file: lines}", "several lines"),
        ("{file: accents}", "other characters"),
        ("{file: bearer}", "without `Bearer`"),
        ("{command: [frobnicate]}", "cannot be started"),
        ("{command: [cat, absent]}", "exit code 1"),
        ("{command: ['true']}", "a secret is empty"),
        ("{command: [cat, bytes]}", "not UTF-8"),
        ("{command: ['yes', s3cret]}", "larger than 64 KiB"),
        ("{command: [sh, -c, 'cat lines; sleep 60']}", "did not end"),
        ("{command: [sh, -c, 'cat lines; sleep 60 & exit 0']}", "did not end"),
    ],
)
def test_what_is_no_secret_is_one_error_that_does_not_show_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, said: str
) -> None:
    monkeypatch.setattr("tritonforge.actions.connections.COMMAND_S", 0.3)
    for name, data in {
        "empty": b" \n",
        "bytes": SECRET.encode() + b"\xff",
        "large": SECRET.encode() * 9999,
        "lines": f"{SECRET}\nx-other: y".encode(),
        "accents": f"{SECRET}é".encode(),
        "bearer": f"Bearer {SECRET}".encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(EnvironmentLacks) as refused:
        connection_for(workspace_with(tmp_path, f"http: 'h:1', token: {reference}"), "c")
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    error: BaseException | None = refused.value
    while error is not None:  # nothing that a logger could find holds it either
        assert SECRET.encode() not in b"".join(item for item in map(_bytes, vars(error).values()) if item)
        error = error.__context__ if not isinstance(error.__context__, UnicodeDecodeError) else None


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (f"http: 'h:1', token: {SECRET}", "this is a secret: give it as `{env: NAME}`"),
        (f"http: 'h:1', headers: {{Authorization: {SECRET}}}", "the header 'Authorization' is a secret"),
        (f"http: 'h:1', headers: {{cookie: {SECRET}}}", "the header 'cookie' is a secret"),
        ("http: 'h:1', token: {env: A}, headers: {Authorization: {env: B}}", "which is given as well"),
        ("http: 'h:1', headers: {x-a: b, X-A: c}", "given twice"),
        ('http: "h:1", headers: {x-a: "b\\r\\nx-c: d"}', "no line of printable ASCII"),
        ("http: 'h:1', headers: {'x a': b}", "no name of a header"),
        ("http: 'h:1', headers: {'x:a': b}", "no name of a header"),
        ("http: 'h:1', headers: {Content-Length: '7'}", "belongs to the protocol"),
        ("http: 'h:1', headers: {grpc-timeout: 1S}", "belongs to the protocol"),
        ("http: 'h:1', headers: {x-bin: b, a-bin: c}", "binary over gRPC"),
        ("http: 'h:1', tls: {key: a.key}", "`key` is the key of a `cert`"),
    ],
)
def test_a_spec_with_a_secret_in_it_or_a_header_that_is_none_is_refused(
    tmp_path: Path, connection: str, said: str
) -> None:
    with pytest.raises(SpecError) as refused:
        workspace_with(tmp_path, connection)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.place is not None and str(refused.value.place.field).startswith("connections.c")


def test_files_of_tls_are_looked_for_before_anything_is_asked(tmp_path: Path) -> None:
    for tls, said in (("ca: absent.pem", "authorities"), ("cert: absent.pem", "client's certificate")):
        with pytest.raises(EnvironmentLacks, match=said) as refused:
            connection_for(workspace_with(tmp_path, f"http: 'h:1', tls: {{{tls}}}"), "c")
        assert "connections.c.tls" in str(refused.value.place)


def test_metrics_behind_tls_need_tls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need the connection's `tls`"):
        connection_for(workspace_with(tmp_path, "http: 'h:1', metrics: 'https://h:2'"), "c")
    found = connection_for(workspace_with(tmp_path, "http: 'h:1', tls: true, metrics: 'https://h:2'"), "c")
    assert found.metrics_url == "https://h:2/metrics"
    found = connection_for(workspace_with(tmp_path, "http: 'h:1', tls: true, metrics: 'h:2'"), "c")
    assert found.metrics_url == "http://h:2/metrics"


@given(st.binary(max_size=40))
def test_any_file_is_a_secret_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "secret").write_bytes(data)
    try:
        assert secret_value(SecretRef(file="secret"), Place(), folder).encode() in data
    except ForgeError as error:
        assert error.exit_code == 3
