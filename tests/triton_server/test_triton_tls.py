"""What libraries say of TLS that failed, in words that say what to do."""

from __future__ import annotations

import re

import pytest

from tritonforge.hiding import hide
from tritonforge.triton.connection import Connection, Tls
from tritonforge.triton.tls import tls_failure

CONNECTION = Connection(http="h:1", tls=Tls(), headers={"authorization": "Bearer t0ken-value", "x": "ab"})


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate",
            "nobody that is trusted here",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)",
            "the server's certificate has expired",
        ),
        (
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'h'.",
            "is for another host",
        ),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "asks for a client certificate"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "asks for a client certificate"),
        (
            "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired",
            "the client's certificate has expired",
        ),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "does not accept the client's certificate"),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate", "does not accept the client's certificate"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS"),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", "may not speak TLS"),
        ("[SSL: SOMETHING_NEW] something new", "no TLS connection to https://h:1"),
    ],
)
def test_a_failure_of_tls_is_said_in_words(text: str, meaning: str) -> None:
    error = tls_failure(CONNECTION, CONNECTION.url, text)
    assert error is not None
    assert meaning in error.message
    assert error.found == text


def test_other_failures_and_connections_without_tls_are_not_explained_by_it() -> None:
    assert tls_failure(CONNECTION, CONNECTION.url, "[Errno 111] Connection refused") is None
    assert tls_failure(Connection(http="h:1"), "http://h:1", "[SSL: WRONG_VERSION_NUMBER]") is None


def test_an_answer_that_repeats_a_header_is_shown_without_it() -> None:
    said = CONNECTION.hide("no entry with Bearer t0ken-value, nor with t0ken-value; x is ab")
    assert said == "no entry with …, nor with …; x is ab"  # two letters are in any text
    assert hide("abcd", {"a": "abc d", "b": "abcd"}) == "…"


def test_one_protocol_of_a_connection() -> None:
    both = Connection(http="h:1", grpc="h:2", headers={"a": "b"}, tls=Tls())
    assert both.protocols == ("http", "grpc")
    assert (both.over("grpc").url, both.over("grpc").headers) == ("grpcs://h:2", {"a": "b"})
    assert both.over("http").protocols == ("http",)
    with pytest.raises(Exception, match=re.escape("the grpc address of the server at https://h:1 is not known")):
        both.over("http").over("grpc")
