from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import UsageError
from tritonforge.triton import Connection, Tls


@pytest.mark.parametrize(
    ("url", "http", "grpc", "secure"),
    [
        ("http://localhost:8000", "localhost:8000", None, False),
        ("http://localhost:8000/", "localhost:8000", None, False),
        ("https://triton.example.org:443", "triton.example.org:443", None, True),
        ("grpc://10.0.0.1:8001", None, "10.0.0.1:8001", False),
        ("grpcs://[::1]:8001", None, "[::1]:8001", True),
        ("GRPC://host_a:8001", None, "host_a:8001", False),
    ],
)
def test_a_url_says_protocol_and_encryption(url: str, http: str | None, grpc: str | None, secure: bool) -> None:
    connection = Connection.from_url(url)
    assert (connection.http, connection.grpc, connection.tls is not None) == (http, grpc, secure)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost:8000",
        "http://localhost",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost:port",
        "http://:8000",
        "http://a b:8000",
        "http://localhost:8000/v2",
        "http://localhost:8000?x=1",
        "http://[::1:8000",
        "",
    ],
)
def test_a_bad_url_is_refused_with_the_forms_that_work(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Connection.from_url(url)
    assert "http://HOST:PORT" in str(caught.value)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        Connection.from_url("http://user:s3cret@localhost:8000")
    assert "s3cret" not in str(caught.value)


def test_headers_never_show() -> None:
    connection = Connection.from_url("http://localhost:8000", headers={"Authorization": "Bearer s3cret"})
    assert connection.headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(connection)
    assert "s3cret" not in str(connection)


def test_tls_files_go_with_an_address() -> None:
    connection = Connection.from_url("http://localhost:8000", tls=Tls(ca=Path("ca.pem")))
    assert connection.http_url == "https://localhost:8000"
    assert connection.url == "https://localhost:8000"


def test_a_connection_needs_an_address() -> None:
    with pytest.raises(UsageError):
        Connection(metrics="localhost:8002")
