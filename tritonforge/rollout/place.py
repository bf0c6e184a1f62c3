"""A target's own disk and proxy, reached through the agent that runs there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError
from tritonforge.rollout.agent_process import AgentProcesses
from tritonforge.rollout.points import remote

READS: Final = frozenset({"hello", "read", "read_file", "read_files", "intact", "missing", "proxy", "live"})
"""Operations of the agent that change nothing."""


class Place(Protocol):
    """Where a target keeps its journal, its lock, its files and its proxy's settings."""

    @property
    def title(self) -> str:
        """What people call it: a folder, a volume of an engine, a claim in a namespace."""

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        """One operation of the agent, and its answer.

        Raises:
            AgentRefused: it was not done; ``code`` says why.
            EnvironmentLacks: the target is not reached, or its disk is full.
        """

    def send(self, files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
        """Put files (by sha256) into ``incoming/`` there; ``progress`` gets the bytes of each part that has gone."""


class AgentRefused(CheckFailed):
    """The agent did not do it: ``locked``, ``lock`` (lost), ``content``, ``proxy``, ``journal``, ``reverted``, …"""

    def __init__(self, code: str, message: str, facts: Mapping[str, Any]) -> None:
        super().__init__(message, details=[f"{name}: {value}" for name, value in facts.items() if value is not None])
        self.code = code
        self.facts = dict(facts)

    def __reduce__(self) -> tuple[object, ...]:
        return (AgentRefused, (self.code, self.message, self.facts))


def call_agent(
    operation: str, arguments: Mapping[str, Any] | None, run: Callable[[str, bytes], bytes], title: str
) -> Any:
    """Ask the agent through ``run(operation, standard input) → standard output``, with a fault point on either side.

    Raises:
        AgentRefused: it was not done.
        EnvironmentLacks: the disk there is full or refuses, or what came back is no answer.
    """
    data = json.dumps(dict(arguments or {})).encode()
    if operation in READS:
        return answer_of(run(operation, data), title)
    with remote(f"agent.{_point(operation, arguments or {})}"):
        return answer_of(run(operation, data), title)


def _point(operation: str, arguments: Mapping[str, Any]) -> str:
    """The name of a fault point: an event of the journal is told by its kind and its step."""
    if operation == "apply":
        return f"apply.{arguments.get('label', 'some')}"
    if operation != "append":
        return operation
    event = arguments["event"]
    return ".".join(["append", str(event["event"]), *([str(event["step"])] if "step" in event else [])])


def answer_of(output: bytes, title: str) -> Any:
    """The agent's answer from its output."""
    try:
        answer = json.loads(output)
    except ValueError:
        shown = output.decode(errors="replace").strip()[-400:]
        raise EnvironmentLacks(f"the agent at {title} gave no answer", found=shown or "nothing") from None
    if "error" not in answer:
        return answer["ok"]
    said = answer["error"]
    if said["code"] in ("full", "os"):
        hint = "free some space there, then run it again: it goes on" if said["code"] == "full" else None
        raise EnvironmentLacks(f"the disk of {title} refuses", found=str(said["message"]), hint=hint)
    raise AgentRefused(str(said["code"]), str(said["message"]), said["facts"])


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._agents = AgentProcesses(root)

    @property
    def title(self) -> str:
        return str(self.root)

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        def run(name: str, data: bytes) -> bytes:
            return self._agents.ask(name, data, timeout)

        return call_agent(operation, arguments, run, self.title)

    def send(self, files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
        incoming = self.root / "incoming"
        with remote("send"), _disk(self.root):
            incoming.mkdir(parents=True, exist_ok=True)
            for digest, source in files.items():
                target = incoming / digest
                target.unlink(missing_ok=True)
                # Releases never change, so their inodes can be shared; a live folder gets copies.
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copyfile(source, target)
                progress(source.stat().st_size)


class _disk:  # noqa: N801 - used like a function
    """Errors of the file system as one clear error."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from tritonforge.durable import describe_os_error

        if isinstance(error, OSError) and not isinstance(error, ForgeError | ConnectionResetError):
            with suppress(OSError):
                shutil.rmtree(self.root / "incoming", ignore_errors=True)
            raise describe_os_error(error, "cannot copy the release", self.root) from error
