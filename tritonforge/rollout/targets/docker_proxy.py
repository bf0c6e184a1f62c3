"""HAProxy in a container: started, checked, and told to read its configuration again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.artifact.digest import digest_of
from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.haproxy import CONFIG, without_weights
from tritonforge.rollout.host import ProxyStatus
from tritonforge.rollout.targets.containers import (
    FINGERPRINT,
    IMAGE,
    ROOT,
    TRITON_PORTS,
    Names,
    discard,
    find_ours,
    log_end,
    status_of,
)
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import Engine
from tritonforge.rollout.targets.exec_stream import run_in
from tritonforge.rollout.targets.images import require
from tritonforge.rollout.targets.keeper import PYTHON, Keeper
from tritonforge.rollout.targets.volume_place import VolumePlace

SOCKET: Final = f"{ROOT}/proxy/control.sock"
CANDIDATE: Final = "proxy/candidate.cfg"
USED: Final = "proxy/used.cfg"
"""What the running proxy has read."""

_LOADED: Final = b"Loading success"
_PATIENCE: Final = 15.0
_WRITE: Final = """
import json, os, sys
said = json.loads(sys.stdin.readline())
with open(said["path"] + ".tmp", "w") as stream:
    stream.write(said["text"])
    stream.flush()
    os.fsync(stream.fileno())
os.replace(said["path"] + ".tmp", said["path"])
"""


@dataclass(slots=True)
class ProxyContainer:
    """The proxy of one target. ``image`` is asked for only when the container must be made."""

    engine: Engine
    names: Names
    keeper: Keeper
    place: VolumePlace
    public: Public
    image: Callable[[], str]
    drain: float

    def status(self) -> ProxyStatus:
        with self.engine.calls():
            container = find_ours(self.engine.client, self.names, "proxy")
            status = status_of(container)
        return ProxyStatus(status.running, status.image, status.words)

    def up(self, config: str) -> None:
        """Have it run with ``config``, as far as it is not about weights.

        Raises:
            CheckFailed: it refuses the configuration; one that runs goes on with the one before.
            EnvironmentLacks: it does not start, as when a port is taken.
        """
        with self.engine.calls():
            container = find_ours(self.engine.client, self.names, "proxy")
        fits = container is not None and container.labels.get(FINGERPRINT) == self.fingerprint()
        if container is not None and container.status == "running" and fits:
            used = self.place.call("read_file", {"path": USED}) or ""
            if without_weights(used) == without_weights(config):
                return
            self._check(container, config)
            self._reload(container, config)
            return
        self._check(None, config)
        write_file(self.keeper, CONFIG, config)
        with self.engine.calls():
            if container is not None:
                discard(container, self.drain)
            self._start()
        self._wait()
        write_file(self.keeper, USED, config)

    def fingerprint(self) -> str:
        """What the container is made with: another one takes its place when this changes."""
        public = self.public
        return digest_of([self.image(), public.bind, public.http, public.grpc, public.metrics])

    def _check(self, container: Any | None, config: str) -> None:
        write_file(self.keeper, CANDIDATE, config)
        words = ["haproxy", "-c", "-f", f"{ROOT}/{CANDIDATE}"]
        with self.engine.calls():
            if container is not None:
                ran = run_in(self.engine.client, container.name, words, b"", 60.0)
                code, said = ran.code, ran.stderr + ran.stdout.decode("utf-8", "replace")
            else:
                code, said = self._tried(words)
        if code:
            raise refused(said)

    def _tried(self, words: list[str]) -> tuple[int, str]:
        """A program of the proxy's image in a container of its own that goes at once."""
        container = self._create("check", words, {})
        try:
            container.start()
            code = int(container.wait(timeout=60)["StatusCode"])
            return code, container.logs().decode("utf-8", "replace")
        finally:
            discard(container)

    def _start(self) -> None:
        import docker.errors

        public = self.public
        outside = dict(zip(TRITON_PORTS, (public.http, public.grpc, public.metrics), strict=True))
        ports = {f"{inside}/tcp": (public.bind, port) for inside, port in outside.items()}
        # -W: a master that reads its configuration again on SIGUSR2 (HAProxy management guide, 4).
        container = self._create("proxy", ["haproxy", "-W", "-db", "-f", f"{ROOT}/{CONFIG}"], ports)
        try:
            container.start()
        except docker.errors.APIError as error:
            discard(container)
            raise port_taken(str(error.explanation or error)) or error from None

    def _create(self, role: str, words: list[str], ports: dict[str, Any]) -> Any:
        import docker.types

        image, names = self.image(), self.names
        require(self.engine.client, image)
        stale = find_ours(self.engine.client, names, role)
        if stale is not None:
            discard(stale)
        return self.engine.client.containers.create(
            image,
            words[1:],
            entrypoint=words[:1],
            name=names.container(role),
            labels={**names.labels(role), FINGERPRINT: self.fingerprint(), IMAGE: image},
            # The owner of the volume, without any of root's powers: keys and tokens there are for it alone.
            user="0:0",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges", "label=disable"],
            read_only=True,
            network=names.network,
            # It asks for the slots alone. A name that the engine does not know, such as that of a slot that was never
            # started, must be unknown at once, also where no name server of the outside answers.
            dns=["127.0.0.1"],
            dns_opt=["timeout:1", "attempts:1"],
            mounts=[docker.types.Mount(f"{ROOT}/proxy", names.proxy_volume, type="volume")],
            ports=ports,
            restart_policy={"Name": "unless-stopped"} if role == "proxy" else None,
            stop_signal="SIGUSR1",
        )

    def _reload(self, container: Any, config: str) -> None:
        before = self.place.call("read_file", {"path": CONFIG}) or ""
        write_file(self.keeper, CONFIG, config)
        with self.engine.calls():
            reload(container)
            taken = loaded(container)
        if not taken:
            # Whoever starts next must find what was in use.
            write_file(self.keeper, CONFIG, before)
            raise refused("\n".join(container.logs(tail=20).decode("utf-8", "replace").splitlines()))
        self._wait()
        write_file(self.keeper, USED, config)

    def _wait(self) -> None:
        """Until its control socket answers."""
        ends = time.monotonic() + _PATIENCE
        while True:
            with suppress(CheckFailed):
                self.place.call("proxy", {"control": [f"unix:{SOCKET}"]})
                return
            with self.engine.calls():
                container = find_ours(self.engine.client, self.names, "proxy")
            status = status_of(container)
            if status.restarts > 2 or time.monotonic() > ends:
                found = [] if container is None else log_end(container)
                raise EnvironmentLacks(f"the proxy does not start: {status.words}", found="; ".join(found) or None)
            time.sleep(0.1)


def write_file(keeper: Keeper, path: str, text: str) -> None:
    """Replace a file of the volume in one rename.

    Raises:
        EnvironmentLacks: the disk there refuses.
    """
    said = json.dumps({"path": f"{ROOT}/{path}", "text": text}).encode() + b"\n"
    ran = keeper.execute([*PYTHON, "-c", _WRITE], said, 60.0)
    if ran.code != 0:
        why = ran.stderr.strip().splitlines()[-1:]
        raise EnvironmentLacks(f"cannot write {path} on the target", found=why[0] if why else f"exit code {ran.code}")


def port_taken(said: str) -> EnvironmentLacks | None:
    """The error for a public port that is in use, when it is that which the engine says."""
    if "port is already allocated" not in said and "address already in use" not in said:
        return None
    return EnvironmentLacks(
        "a public port of the target is in use on the engine's machine",
        found=said,
        hint="end what uses it, or give the target other `ports`",
    )


def reload(container: Any) -> None:
    """Tell the master to read its file again; a worker that begins with it takes over all sockets."""
    container.kill(signal="SIGUSR2")


def loaded(container: Any, seconds: float = _PATIENCE) -> bool:
    """Whether the last reload was taken, as the master says on its log."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        text: bytes = container.logs(tail=2000)
        _, reloading, after = text.rpartition(b"Reloading HAProxy")
        if reloading and _LOADED in after:
            return True
        time.sleep(0.1)
    return False


def refused(said: str) -> CheckFailed:
    """The error for a configuration that HAProxy does not take."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    alerts = [line for line in lines if "ALERT" in line] or lines
    return CheckFailed("the proxy refuses its configuration", details=alerts[-5:])
