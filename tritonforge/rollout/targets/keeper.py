"""The keeper: a small container on the target's volume, in which the agent works and its dead-man timer waits."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.targets.containers import ROOT, Names, discard, find_ours
from tritonforge.rollout.targets.engines import Engine
from tritonforge.rollout.targets.exec_stream import Ran, run_in

AGENT_LABEL: Final = "tritonforge.agent"

PYTHON: Final = ["python3", "-S", "-E", "-X", f"pycache_prefix={ROOT}/agent/cache"]
"""Starts fast: an image may come without its library compiled, and what stands in the image cannot be written."""


@dataclass(slots=True)
class Keeper:
    """``image`` has Python 3; it is asked for only when the container must be made."""

    engine: Engine
    names: Names
    image: Callable[[], str]
    _agent: str | None = field(default=None, init=False)

    @property
    def there(self) -> bool:
        """Whether the target was ever prepared: its volume exists.

        Raises:
            CheckFailed: the volume is something else's.
        """
        import docker.errors

        with self.engine.calls():
            try:
                volume = self.engine.client.volumes.get(self.names.volume)
            except docker.errors.NotFound:
                return False
        label, value = self.names.mark
        owner = (volume.attrs.get("Labels") or {}).get(label)
        if owner != value:
            raise CheckFailed(
                f"the volume {self.names.volume} is not of this target",
                expected=f"the label {label}={value}",
                found=owner or "no such label",
                hint="remove or rename it, or give the target another `name`",
            )
        return True

    def up(self) -> None:
        """Have it run with this tritonforge's agent: made, replaced, or started again.

        Raises:
            EnvironmentLacks: the engine or the image does not allow it.
        """
        source = AGENT.read_bytes()
        digest = sha256(source).hexdigest()
        with self.engine.calls():
            found = find_ours(self.engine.client, self.names, "keeper")
            if found is not None and found.labels.get(AGENT_LABEL) == digest:
                if found.status == "running":
                    self._agent = _path(digest)
                    return
                if found.status in ("exited", "created") and self._started(found):
                    self._agent = _path(digest)
                    return
            if found is not None:
                discard(found)
        image = self.image()
        with self.engine.calls():
            self._make(image, source, digest)
        self._agent = _path(digest)

    def run(self, operation: str, data: bytes, timeout: float) -> bytes:
        """One operation of the agent; its output.

        Raises:
            EnvironmentLacks: the keeper ended in the middle of it, or has no Python.
        """
        if self._agent is None:
            self.up()
        assert self._agent is not None
        # One line is all that the agent reads: nobody has to close the stream.
        ran = self.execute([*PYTHON, self._agent, "--root", ROOT, operation], data + b"\n", timeout)
        if ran.code == 0:
            return ran.stdout
        if ran.code in (126, 127):
            raise EnvironmentLacks(
                "the keeper's image has no python3",
                found=(ran.stderr.strip() or ran.stdout.decode(errors="replace").strip())[-300:],
                hint="use an image of Triton, which has it",
            )
        said = ran.stderr.strip().splitlines()[-1:] or [ran.stdout.decode(errors="replace").strip()[-200:]]
        raise EnvironmentLacks(
            f"{operation} in {self.names.container('keeper')} ended before it answered",
            found=f"{said[0]} (exit code {ran.code})".strip(),
            hint="run the command again: it looks at what is there, and goes on or undoes",
        )

    def execute(self, argv: list[str], data: bytes, timeout: float) -> Ran:
        """Run a program in it. One that was removed or stopped is brought back first."""
        import docker.errors

        name = self.names.container("keeper")
        for again in (True, False):
            with self.engine.calls():
                try:
                    ran = run_in(self.engine.client, name, argv, data, timeout)
                    if not again or not _was_ending(ran):
                        return ran
                except docker.errors.APIError as error:
                    # 404: it was removed; 409: it does not run. Nothing was started, so it can be tried again.
                    if error.status_code not in (404, 409) or not again:
                        raise
            self.up()
        raise AssertionError("unreachable")

    def _make(self, image: str, source: bytes, digest: str) -> None:
        import docker.errors

        try:
            container = self._create(image, [*PYTHON[1:], _path(digest), "--root", ROOT, "watch"], digest)
        except docker.errors.APIError as error:
            if error.status_code == 409 and "already in use" in str(error):
                return  # another command made it a moment ago
            raise
        # Its own file system cannot be written, the volume can, also before it runs.
        container.put_archive(ROOT, _archive(source, digest))
        container.start()

    def _create(self, image: str, words: list[str], digest: str) -> Any:
        """The container, not started yet."""
        import docker.types

        client, names = self.engine.client, self.names
        volumes = ((names.volume, ROOT), (names.proxy_volume, f"{ROOT}/proxy"))
        return client.containers.create(
            image,
            words,
            entrypoint=PYTHON[:1],
            name=names.container("keeper"),
            labels={**names.labels("keeper"), AGENT_LABEL: digest},
            user="0:0",
            network=names.network,
            mounts=[docker.types.Mount(place, volume, type="volume") for volume, place in volumes],
            restart_policy={"Name": "unless-stopped"},
            read_only=True,
            cap_drop=["ALL"],
            # Between the keeper and the proxy there is a socket, which SELinux would not let through.
            security_opt=["no-new-privileges", "label=disable"],
            init=True,
        )

    def _started(self, container: Any) -> bool:
        import docker.errors

        try:
            container.start()
        except docker.errors.APIError:
            return False  # what it needs was removed with it stopped: it is made anew
        return True


def _was_ending(ran: Ran) -> bool:
    """Whether the container ended just then, as when another command replaces it: nothing was started."""
    return ran.code != 0 and "cannot exec in a" in ran.stderr + ran.stdout.decode("utf-8", "replace")


def _path(digest: str) -> str:
    """Where an agent stands: by content, so that another tritonforge's does not get into the way."""
    return f"{ROOT}/agent/{digest}.py"


def _archive(source: bytes, digest: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        folder = tarfile.TarInfo("agent")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
        archive.addfile(folder)
        file = tarfile.TarInfo(f"agent/{digest}.py")
        file.size, file.mode, file.mtime = len(source), 0o444, int(time.time())
        archive.addfile(file, io.BytesIO(source))
    return packed.getvalue()
