"""`store:` of the spec: an address, and no secret but by reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import SpecError
from tritonforge.spec.load import load
from tritonforge.spec.store import StoreSpec, reference

Write = Callable[..., Path]
MODEL = "models: {m: {source: m.onnx}}\n"


def test_a_store_of_a_team(write_spec: Write) -> None:
    store = load(
        write_spec(
            MODEL + "store:\n  remote: s3://models/team\n  mode: read-write\n  timeout_s: 2.5\n"
            "  options: {endpoint_url: 'http://minio:9000', key: {env: KEY}, secret: {file: secret.txt}, anon: false}\n"
            "  signing_key: {command: [pass, team]}\n"
        )
    ).spec.store
    assert store is not None
    assert (store.remote, store.mode, store.timeout_s) == ("s3://models/team", "read-write", 2.5)
    assert store.options["secret"] == {"file": "secret.txt"}
    assert store.signing_key is not None
    assert store.signing_key.command == ["pass", "team"]


def test_who_says_nothing_reads() -> None:
    store = StoreSpec(remote="gs://models/team")
    assert (store.mode, store.timeout_s, store.options, store.signing_key) == ("read", 10.0, {}, None)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("remote: ftp://a/b", 5, "no address of a remote store"),
        ("remote: s3://a\n  mode: write", 6, "read-write"),
        ("remote: s3://a\n  timeout_s: 0", 6, "greater than 0"),
        ("remote: s3://a\n  url: x", 6, "url"),
        ("mode: read", 4, "remote"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(write_spec: Write, text: str, line: int, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(write_spec(MODEL + f"store:\n  {text}\n"))
    assert message in str(raised.value)
    assert raised.value.place is not None
    assert raised.value.place.line in (line, 4)


@pytest.mark.parametrize(
    "options",
    [
        "{secret: hunter2}",
        "{key: hunter2}",
        "{client_kwargs: {aws_secret_access_key: hunter2}}",
        "{account_key: hunter2}",
        "{connection_string: 'AccountKey=hunter2'}",
        "{sas_token: hunter2}",
        "{token: hunter2}",
        "{clients: [{password: hunter2}]}",
    ],
)
def test_a_secret_in_the_spec_is_refused_and_not_shown(write_spec: Write, options: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(write_spec(MODEL + f"store: {{remote: 's3://a', options: {options}}}\n"))
    assert "give it by reference" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in str(raised.value.to_json())


def test_an_address_with_a_credential_is_refused_and_not_shown(write_spec: Write) -> None:
    with pytest.raises(SpecError) as raised:
        load(write_spec(MODEL + "store: {remote: 's3://me:hunter2@bucket/team'}\n"))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("token", ["anon", "cloud", "google_default"])
def test_the_ways_of_a_library_to_find_credentials_are_no_secrets(token: str) -> None:
    assert StoreSpec(remote="gs://a", options={"token": token}).options == {"token": token}


@pytest.mark.parametrize(
    ("value", "is_one"),
    [({"env": "A"}, True), ({"file": "a"}, True), ({"env": "A", "file": "a"}, False), ({}, False), ("env", False)],
)
def test_what_is_a_reference(value: Any, is_one: bool) -> None:
    assert (reference(value) is not None) == is_one
