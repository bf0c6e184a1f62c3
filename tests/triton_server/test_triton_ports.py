from __future__ import annotations

import os
import socket

import pytest

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton import ports


def test_free_ports_differ_and_can_be_bound() -> None:
    chosen = [ports.free("127.0.0.1") for _ in range(20)]
    assert len(set(chosen)) == 20
    for port in chosen:
        ports.require_free("127.0.0.1", port)


def test_a_port_in_use_names_its_holder() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentLacks) as caught:
            ports.choose("127.0.0.1", port, None, None)
    assert f"port {port} is in use" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)


def test_asked_ports_are_kept() -> None:
    port = ports.free("127.0.0.1")
    chosen = ports.choose("127.0.0.1", None, port, None)
    assert chosen.grpc == port
    assert len({chosen.http, chosen.grpc, chosen.metrics}) == 3
