"""A target's volume on a Docker engine, reached through its keeper."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.durable import describe_os_error
from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.place import READS, AgentRefused, call_agent
from tritonforge.rollout.points import remote
from tritonforge.rollout.targets.containers import ROOT
from tritonforge.rollout.targets.keeper import Keeper

BATCH: Final = 256 << 20
"""Bytes that travel at once; what has arrived is kept when the connection is lost afterwards."""
_BLOCK: Final = 1 << 20


class VolumePlace:
    """The disk of one target. Where the volume does not exist yet, it reads as a target without anything."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._there = False

    @property
    def title(self) -> str:
        return f"the volume {self._keeper.names.volume} of the Docker engine {self._keeper.engine.title}"

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        self._there = self._there or self._keeper.there
        if not self._there:
            if operation in READS:
                return _nothing_there(operation, arguments or {})
            raise EnvironmentLacks(f"{self.title} does not exist", hint="`tritonforge deploy` makes it")

        def run(name: str, data: bytes) -> bytes:
            return self._keeper.run(name, data, timeout)

        return call_agent(operation, arguments, run, self.title)

    def send(self, files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
        import docker.errors

        client = self._keeper.engine.client
        name = self._keeper.names.container("keeper")
        for batch in batches(files):
            with remote("send"), self._keeper.engine.calls():
                try:
                    client.api.put_archive(name, ROOT, packed(batch, progress))
                except docker.errors.NotFound:
                    self._keeper.up()
                    client.api.put_archive(name, ROOT, packed(batch, lambda size: None))
            try:
                self.call("admit", {"files": sorted(batch)}, timeout=3600.0)
            except AgentRefused as refused:
                # Whoever asked for the delivery asks for all files once more, and says which did not arrive.
                if refused.code != "content":
                    raise


def batches(files: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Files in parts of about :data:`BATCH` bytes; a larger file is one of its own."""
    batch: dict[str, Path] = {}
    size = 0
    for digest, source in files.items():
        more = source.stat().st_size
        if batch and size + more > BATCH:
            yield batch
            batch, size = {}, 0
        batch[digest] = source
        size += more
    if batch:
        yield batch


def packed(files: Mapping[str, Path], progress: Callable[[int], None]) -> Iterator[bytes]:
    """A tar stream that puts files into ``incoming/``, a block at a time.

    Raises:
        EnvironmentLacks: one of them cannot be read, or changed its size meanwhile.
    """
    yield _header("incoming", 0, tarfile.DIRTYPE, 0o755)
    for digest, source in files.items():
        try:
            with source.open("rb") as stream:
                size = left = source.stat().st_size
                yield _header(f"incoming/{digest}", size, tarfile.REGTYPE, 0o644)
                while left:
                    block = stream.read(min(_BLOCK, left))
                    if not block:
                        raise EnvironmentLacks(f"{source} became smaller while it was sent")
                    left -= len(block)
                    yield block
                    progress(len(block))
        except OSError as error:
            raise describe_os_error(error, "cannot read the release", source) from None
        if size % tarfile.BLOCKSIZE:
            yield bytes(tarfile.BLOCKSIZE - size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    item = tarfile.TarInfo(name)
    item.size, item.type, item.mode, item.mtime = size, kind, mode, int(time.time())
    # GNU's format: files may be larger than 8 GiB.
    return item.tobuf(tarfile.GNU_FORMAT)


def _nothing_there(operation: str, arguments: Mapping[str, Any]) -> Any:
    """What the agent would say of an empty folder."""
    if operation == "read":
        return {"journal": [], "lock": None, "pending": None, "snapshots": {}, "watching": False, "hello": {}}
    if operation == "missing":
        wanted: Mapping[str, int] = arguments["files"]
        return {"missing": sorted(wanted), "bytes": sum(wanted.values()), "free": None}
    return {} if operation in ("hello", "proxy") else None
