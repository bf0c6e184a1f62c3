"""A Triton that somebody else operates: changed in place through its model control API and its repository's folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tritonforge.durable import disk_errors, write_json
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.host import Address, ProxyStatus, ServerStart, ServerStatus
from tritonforge.rollout.place import LocalPlace
from tritonforge.rollout.processes import Detached, is_alive, start_detached, stop_detached
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection

_NOBODY: Final = "tritonforge-asks-whether-models-can-be-loaded"
"""A model that no repository has: loading it changes nothing, and the refusal says how the server is controlled."""


class ServerHost:
    """A running server. ``repository`` is its model repository as this machine sees it; ``root`` stands beside it, on
    the same file system, because what goes into the repository is renamed from there."""

    def __init__(self, name: str, repository: Path, connection: Connection) -> None:
        if connection.http is None:
            raise UsageError(
                "a target of kind 'server' needs the server's HTTP address", hint="give the connection an `http:`"
            )
        self.repository = repository
        self.root = repository.parent / f".tritonforge-{name}"
        self.connection = connection
        self.place = LocalPlace(self.root)

    def prepare(self) -> None:
        """Have the folder beside the repository, and the dead-man timer."""
        if not self.repository.is_dir():
            raise EnvironmentLacks(
                "the server's model repository is not there",
                found=str(self.repository),
                hint="`repository` is its folder as this machine sees it",
            )
        with disk_errors("cannot prepare the target", self.root):
            self.root.mkdir(mode=0o700, exist_ok=True)
            link = self.root / "live"
            if not link.is_symlink():
                link.symlink_to(self.repository)
            if self.root.stat().st_dev != self.repository.stat().st_dev:
                raise EnvironmentLacks(
                    "the repository is a file system of its own, so nothing can be renamed into it",
                    expected=f"the file system of {self.root}",
                    found=f"another one at {self.repository}",
                    hint="make the repository a folder inside that file system, and give the server that folder",
                )
            if not os.access(self.repository, os.W_OK):
                raise EnvironmentLacks("the server's model repository cannot be written", found=str(self.repository))
        self._watch()

    def resolve_image(self) -> str | None:
        """Whoever operates the server chooses what it is."""
        return None

    def settings(self) -> Mapping[str, Any]:
        """Its arguments are not ours either."""
        return {"operated": "elsewhere"}

    def start(self, slot: str, start: ServerStart) -> None:
        """It is started by its operator; here it is only asked whether it lets itself be changed.

        Raises:
            EnvironmentLacks: it does not run, or in another mode than ``explicit``.
        """
        with Client(self.connection) as client:
            if not client.live():
                raise EnvironmentLacks(
                    f"there is no Triton at {self.connection.url}", hint="is it running, and is that its port?"
                )
            try:
                client.load(_NOBODY, timeout=30.0)
            except CheckFailed as refused:
                if "not allowed" in refused.message:
                    raise EnvironmentLacks(
                        f"the server at {self.connection.url} does not let its models be changed",
                        expected="--model-control-mode=explicit",
                        found=refused.message.partition(": ")[2] or refused.message,
                        hint="start it with `--model-control-mode=explicit --strict-readiness=false --load-model=*`",
                    ) from None
        write_json(
            self.root / "started.json",
            {"fingerprint": start.fingerprint, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        )

    def stop(self, slot: str, grace: float) -> None:
        """It is not ours to stop."""

    def status(self, slot: str) -> ServerStatus:
        said = self._said("started.json")
        with Client(self.connection) as client:
            running = client.live()
        return ServerStatus(
            running,
            said.get("fingerprint"),
            started=said.get("at"),
            words=f"answers at {self.connection.url}" if running else f"does not answer at {self.connection.url}",
        )

    @contextmanager
    def reach(self, slot: str) -> Iterator[Connection]:
        yield self.connection

    def address(self, slot: str) -> Address:
        assert self.connection.http is not None
        host, _, http = self.connection.http.rpartition(":")
        grpc, metrics = (
            int((address or ":0").rpartition(":")[2]) for address in (self.connection.grpc, self.connection.metrics)
        )
        return Address(host, int(http), grpc, metrics)

    def control(self) -> list[str]:
        """There is no proxy of ours."""
        return []

    def proxy_up(self, config: str) -> None:
        """There is no proxy of ours."""

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        """There is no proxy of ours."""

    def settling(self, config: str) -> list[dict[str, Any]]:
        return []

    def proxy_status(self) -> ProxyStatus:
        return ProxyStatus(False, None, "none: clients ask the server itself")

    @contextmanager
    def public(self) -> Iterator[Connection]:
        yield self.connection

    def logs(self, unit: str, tail: int, follow: bool) -> Iterator[str]:
        """Its log is where its operator keeps it."""
        return iter(())

    def remove(self) -> None:
        """End the timer and forget the target; what the server serves stays."""
        import shutil

        unit = self._timer()
        if unit is not None:
            stop_detached(unit, 5.0)
        shutil.rmtree(self.root, ignore_errors=True)

    def close(self) -> None:
        """Nothing is kept open."""

    def _watch(self) -> None:
        unit = self._timer()
        if unit is None or not is_alive(unit):
            (self.root / "watch.json").unlink(missing_ok=True)  # the beat of one that has ended
            command = [sys.executable, "-S", "-E", str(AGENT), "--root", str(self.root), "watch"]
            unit = start_detached(command, self.root / "watch.log", {}, self.root)
            write_json(self.root / "timer.json", {"pid": unit.pid, "started": unit.started})
        ends = time.monotonic() + 10
        while not self.place.call("read")["watching"]:
            if time.monotonic() > ends:
                raise EnvironmentLacks("the target's dead-man timer does not start", found=str(self.root / "watch.log"))
            time.sleep(0.05)

    def _timer(self) -> Detached | None:
        said = self._said("timer.json")
        return Detached(int(said["pid"]), str(said["started"])) if "pid" in said else None

    def _said(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.root / name).read_text(encoding="utf-8"))
            return found
        return {}
