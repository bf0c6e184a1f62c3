"""Boards as they were published, behind a real sshd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testbed.sshd import Sshd, serve

from rollout.jetson.laid_out import lay_out
from tritonforge.rollout.jetson.board import Board, read_board
from tritonforge.rollout.ssh import SshHost


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One for all boards."""
    with serve(tmp_path_factory.mktemp("sshd") / "s") as server:
        yield server


@pytest.fixture(scope="session")
def host(sshd: Sshd) -> Iterator[SshHost]:
    """The machine behind it."""
    with SshHost(sshd.address, sshd.client) as host:
        yield host


@pytest.fixture(scope="session")
def board_of(host: SshHost, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Board]:
    """Reads a board by its name, once."""
    read: dict[str, Board] = {}

    def find(name: str) -> Board:
        if name not in read:
            root: Path = lay_out(name, tmp_path_factory.mktemp("board") / name)
            read[name] = read_board(host, root=str(root))
        return read[name]

    return find
