"""The embedded Triton as a service of this machine: two servers and HAProxy as processes that outlive this one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tritonforge.durable import disk_errors, folder_lock, write_atomic, write_json
from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.haproxy import CONFIG, config_operation, without_weights
from tritonforge.rollout.host import SLOTS, Address, ProxyStatus, ServerStart, ServerStatus
from tritonforge.rollout.model_control import restricting
from tritonforge.rollout.place import LocalPlace
from tritonforge.rollout.processes import Detached, is_alive, start_detached, started_at, stop_detached
from tritonforge.triton import ports as port_choice
from tritonforge.triton.connection import Connection
from tritonforge.triton.embedded.command import command_for
from tritonforge.triton.embedded.runtime import Runtime
from tritonforge.triton.launch import Launch
from tritonforge.triton.ports import Ports

_OWN: Final = ("--strict-readiness=", "--exit-on-error=", "--exit-timeout-secs=")


@dataclass(frozen=True, slots=True)
class Public:
    """Where clients reach the target."""

    bind: str
    http: int
    grpc: int
    metrics: int

    @property
    def host(self) -> str:
        """The address to call: a listening address may be none."""
        return "127.0.0.1" if self.bind in ("0.0.0.0", "*") else self.bind  # noqa: S104


class EmbeddedHost:
    """Runs the servers of one target as processes of this machine; ``root`` is its folder."""

    def __init__(self, root: Path, runtime: Runtime, public: Public) -> None:
        if not re.fullmatch(r"[\w./+@=,:-]+", str(root), re.ASCII):
            raise EnvironmentLacks(
                "the target's folder has a character that Triton's Python backend cannot take",
                found=str(root),
                hint="name another one with the target's `folder`",
            )
        self.root = root
        self.runtime = runtime
        self._public = public
        self.place = LocalPlace(root)

    def prepare(self) -> None:
        """Have the folder and the dead-man timer there."""
        with disk_errors("cannot prepare the target", self.root), folder_lock(self.root / ".prepare"):
            for name in ("servers", "logs", "proxy", "incoming"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            if not (self.root / "ports.json").exists():
                chosen = {slot: [port_choice.free("127.0.0.1") for _ in range(3)] for slot in SLOTS}
                write_json(self.root / "ports.json", chosen)
            self._prepare_watch()

    def _prepare_watch(self) -> None:
        command = [sys.executable, "-S", "-E", str(AGENT), "--root", str(self.root), "watch"]
        unit = self._unit("watch")
        if unit is None or not is_alive(unit):
            for stray in self._strays("watch", str(self.root)):
                stop_detached(stray, 1.0)
            (self.root / "watch.json").unlink(missing_ok=True)  # the beat of one that has ended
            self._keep("watch", start_detached(command, self.root / "logs" / "watch.log", {}, self.root))
        ends = time.monotonic() + 10
        while not self.place.call("read")["watching"]:
            if time.monotonic() > ends:
                raise EnvironmentLacks("the target's dead-man timer does not start", found=self._end_of("watch"))
            time.sleep(0.05)

    def resolve_image(self) -> str | None:
        """There is no image; the runtime's own version decides."""
        return f"embedded:{self.runtime.triton_version}"

    def settings(self) -> Mapping[str, Any]:
        """The interpreter is what Python models run in."""
        return {"python": sys.executable}

    def start(self, slot: str, start: ServerStart) -> None:
        with disk_errors(f"cannot start {slot}", self.root):
            self._start(slot, start)

    def _start(self, slot: str, start: ServerStart) -> None:
        status = self.status(slot)
        if status.running and status.fingerprint == start.fingerprint:
            return
        self.stop(slot, 10.0)
        public = bool((start.settings or {}).get("public"))
        ports = self._public_ports if public else self._private_ports(slot)
        if public:
            for port in (ports.http, ports.grpc, ports.metrics):
                port_choice.require_free(self._public.bind, port)
        scratch = self.root / "servers" / slot
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        readiness = dict(item.split("=", 1) for item in start.arguments if item.startswith(_OWN))
        explicit = start.control == "explicit"
        launch = Launch(
            repository=self.root / start.models,
            control="explicit" if explicit else "none",
            load=("*",) if explicit else (),
            arguments=(
                *(item for item in start.arguments if not item.startswith(_OWN)),
                *(restricting(**self.place.call("control_key")) if public else ()),
            ),
            host=self._public.bind if public else "127.0.0.1",
            strict_readiness=not explicit,
            exit_on_error=not explicit,
            exit_timeout=float(readiness.get("--exit-timeout-secs", "30")),
        )
        command = command_for(self.runtime, launch, ports, scratch)
        unit = start_detached(command.argv, self.root / "logs" / f"{slot}.log", command.env, command.cwd)
        self._keep(
            slot,
            unit,
            {
                "fingerprint": start.fingerprint,
                "release": start.release,
                "image": start.image,
                "shared_memory": command.shared_memory_prefix,
                "public": public,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )

    def stop(self, slot: str, grace: float) -> None:
        unit, said = self._unit(slot), self._facts(slot)
        if unit is not None:
            stop_detached(unit, grace)
        for port in (self._private_ports(slot).http, self._public.http):
            for stray in self._strays(f"--http-port={port}"):
                stop_detached(stray, grace)
        prefix = said.get("shared_memory")
        if prefix:
            for left in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108 - the Python backend's own names
                left.unlink(missing_ok=True)
        self._file(slot).unlink(missing_ok=True)

    def status(self, slot: str) -> ServerStatus:
        unit, said = self._unit(slot), self._facts(slot)
        if unit is None:
            return ServerStatus(False, words="not started")
        running = is_alive(unit)
        words = f"running since {said.get('at')}" if running else "ended"
        return ServerStatus(
            running,
            said.get("fingerprint"),
            said.get("release"),
            said.get("image"),
            said.get("at"),
            0,
            words,
        )

    @contextmanager
    def reach(self, slot: str) -> Iterator[Connection]:
        if not self._is_public(slot):
            ports = self._private_ports(slot)
            yield Connection(f"127.0.0.1:{ports.http}", f"127.0.0.1:{ports.grpc}", f"127.0.0.1:{ports.metrics}")
            return
        said = self.place.call("control_key")
        with self.public() as connection:
            yield replace(connection, headers={said["header"]: said["key"]})

    def address(self, slot: str) -> Address:
        if not self._is_public(slot):
            ports = self._private_ports(slot)
            return Address("127.0.0.1", ports.http, ports.grpc, ports.metrics)
        return Address(self._public.host, self._public.http, self._public.grpc, self._public.metrics)

    @property
    def binds(self) -> tuple[str, str, str]:
        """Where the proxy listens: HTTP, gRPC, metrics."""
        public = self._public
        return tuple(f"{public.bind}:{port}" for port in (public.http, public.grpc, public.metrics))  # type: ignore[return-value]

    @property
    def socket(self) -> Path:
        """The proxy's control socket. Such paths are short (unix(7): 108 bytes, and HAProxy adds to them)."""
        name = sha256(str(self.root).encode()).hexdigest()[:16]
        folder = Path(f"/tmp/tritonforge-{os.getuid()}")  # noqa: S108 - made private below
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise EnvironmentLacks(f"{folder} is another user's")
        return folder / f"{name}.sock"

    def control(self) -> list[str]:
        return [f"unix:{self.socket}"]

    def proxy_up(self, config: str) -> None:
        with disk_errors("cannot change the proxy", self.root):
            self._proxy_up(haproxy_program(), config)

    def _proxy_up(self, program: str, config: str) -> None:
        file = self.root / CONFIG
        candidate, used = (self.root / "proxy" / name for name in ("candidate.cfg", "used.cfg"))
        candidate.write_text(config)
        checked = subprocess.run([program, "-c", "-f", str(candidate)], capture_output=True, text=True, check=False)
        if checked.returncode:
            raise CheckFailed("the proxy refuses its configuration", details=checked.stderr.strip().splitlines()[-5:])
        running = self._proxy_unit()
        if running is None:
            candidate.replace(file)
            self._start_proxy(program, file)
        else:
            before = used.read_text() if used.exists() else ""
            if without_weights(before) == without_weights(config):
                return
            self._reload_proxy(running, candidate, file)
        write_atomic(used, config.encode())

    def _reload_proxy(self, running: Detached, candidate: Path, file: Path) -> None:
        """Have the proxy take the candidate; where its new process cannot start, the old one goes on, with its file."""
        worker = self._worker()
        before = file.read_bytes() if file.exists() else None
        candidate.replace(file)
        os.kill(running.pid, signal.SIGUSR2)
        ends = time.monotonic() + 10
        while self._worker() in (worker, None):
            if time.monotonic() > ends or not is_alive(running):
                if before is not None:
                    write_atomic(file, before)
                raise CheckFailed(
                    "the proxy could not take its new configuration, and goes on with the old one",
                    found=self._end_of("proxy"),
                )
            time.sleep(0.05)

    def _worker(self) -> str | None:
        """The process of the proxy that answers now; a reload ends with another one."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2.0)
                connection.connect(str(self.socket))
                connection.sendall(b"show info\n")
                said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return None
        found = re.search(r"^Pid: (\d+)$", said, re.MULTILINE)
        return None if found is None else found[1]

    def _proxy_unit(self) -> Detached | None:
        """The proxy as it runs, also where the command that started it was killed before it could note it."""
        unit = self._unit("proxy")
        if unit is not None and is_alive(unit):
            return unit
        for stray in self._strays("-W"):
            self._keep("proxy", stray)
            return stray
        return None

    def _start_proxy(self, program: str, file: Path) -> None:
        for port in (self._public.http, self._public.grpc, self._public.metrics):
            port_choice.require_free(self._public.bind, port)
        self.socket.unlink(missing_ok=True)
        unit = start_detached([program, "-W", "-f", str(file)], self.root / "logs" / "proxy.log", {}, self.root)
        self._keep("proxy", unit)
        ends = time.monotonic() + 10
        while True:
            with suppress(CheckFailed):
                self.place.call("proxy", {"control": self.control()})
                return
            if not is_alive(unit) or time.monotonic() > ends:
                raise EnvironmentLacks("the proxy does not start", found=self._end_of("proxy"))
            time.sleep(0.05)

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        for operation in self.settling(config):
            self.place.call(operation["op"], {**operation, "token": token})

    def settling(self, config: str) -> list[dict[str, Any]]:
        return [config_operation(config)]

    def proxy_status(self) -> ProxyStatus:
        running = self._proxy_unit() is not None
        return ProxyStatus(running, None, "running" if running else "not running")

    @contextmanager
    def public(self) -> Iterator[Connection]:
        public, host = self._public, self._public.host
        yield Connection(f"{host}:{public.http}", f"{host}:{public.grpc}", f"{host}:{public.metrics}")

    def logs(self, unit: str, tail: int, follow: bool) -> Iterator[str]:
        file = self.root / "logs" / f"{unit}.log"
        if not file.exists():
            return
        with file.open(encoding="utf-8", errors="replace") as stream:
            lines = stream.readlines()[-tail:]
            yield from (line.rstrip("\n") for line in lines)
            while follow:
                line = stream.readline()
                if line:
                    yield line.rstrip("\n")
                else:
                    time.sleep(0.2)

    def remove(self) -> None:
        for name in ("proxy", *SLOTS, "watch"):
            unit = self._unit(name)
            if unit is not None:
                stop_detached(unit, 5.0)
        self.socket.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def close(self) -> None:
        """Nothing is kept open."""

    def _strays(self, word: str, folder: str | None = None) -> list[Detached]:
        """Programs of this target that were started by a command that was killed before it could note them."""
        import psutil

        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if word in words and any(item == folder or str(self.root) + "/" in item for item in words):
                with suppress(OSError):
                    if os.getsid(process.pid) == process.pid:  # what was started, none of its children
                        found.append(Detached(process.pid, started_at(process.pid) or ""))
        return found

    def _file(self, name: str) -> Path:
        return self.root / "servers" / f"{name}.json"

    def _facts(self, name: str) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self._file(name).read_text())
            return found
        return {}

    def _unit(self, name: str) -> Detached | None:
        said = self._facts(name)
        return Detached(int(said["pid"]), str(said["started"])) if "pid" in said else None

    def _keep(self, name: str, unit: Detached, facts: Mapping[str, Any] | None = None) -> None:
        write_json(self._file(name), {"pid": unit.pid, "started": unit.started, **(facts or {})})

    def _is_public(self, slot: str) -> bool:
        """Whether the slot's server is the one that clients reach, without a proxy."""
        return bool(self._facts(slot).get("public"))

    @property
    def _public_ports(self) -> Ports:
        return Ports(self._public.http, self._public.grpc, self._public.metrics)

    def _private_ports(self, slot: str) -> Ports:
        http, grpc, metrics = json.loads((self.root / "ports.json").read_text())[slot]
        return Ports(http, grpc, metrics)

    def _end_of(self, name: str) -> str | None:
        return "; ".join(list(self.logs(name, 3, False))) or None


def haproxy_program() -> str:
    """HAProxy of this machine.

    Raises:
        EnvironmentLacks: it is not installed.
    """
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise EnvironmentLacks(
            "two slots need the program haproxy, which is not installed",
            hint="apt install haproxy; or choose `strategy: one-slot` for this target",
        )
    return found
