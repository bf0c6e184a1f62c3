"""Certificates and tokens become Secrets as the chart's proxies read them."""

from __future__ import annotations

import pytest

from tritonforge.errors import InternalError
from tritonforge.rollout.targets.kubernetes_secrets import secret_of

LEAF = "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n"
ISSUER = "-----BEGIN CERTIFICATE-----\nBBB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN EC PRIVATE KEY-----\nCCC\n-----END EC PRIVATE KEY-----\n"


def test_a_certificate_with_its_chain_and_key_is_taken_apart() -> None:
    name, kind, data = secret_of("proxy/tls.pem", LEAF + ISSUER + KEY)
    assert (name, kind) == ("tls", "kubernetes.io/tls")
    assert data == {"tls.crt": LEAF + ISSUER, "tls.key": KEY}


def test_authorities_and_tokens_stay_whole() -> None:
    assert secret_of("proxy/client-ca.pem", LEAF) == ("clients", "Opaque", {"ca.crt": LEAF})
    assert secret_of("proxy/tokens", "ab\ncd\n") == ("tokens", "Opaque", {"tokens": "ab\ncd\n"})


def test_another_file_is_a_defect() -> None:
    with pytest.raises(InternalError):
        secret_of("proxy/else", "")
