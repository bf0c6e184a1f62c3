"""A claim in a namespace, reached through the keeper: the pod that the agent runs in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonforge.durable import describe_os_error
from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.place import READS, AgentRefused, call_agent
from tritonforge.rollout.points import lost, remote
from tritonforge.rollout.targets.kubernetes_api import Cluster, Refusal
from tritonforge.rollout.targets.kubernetes_exec import Ended, Ran, Session, execute
from tritonforge.rollout.targets.kubernetes_pods import PodState, slot_words

ROOT: Final = "/tritonforge"
AGENT: Final = ["python3", "-S", "-E", "-B", "/agent/agent.py", "--root", ROOT]
KILLED: Final = (137, 143)
"""Exit codes of a program that went with its pod: the next pod is asked."""
_BLOCK: Final = 1 << 17
_MOVED_S: Final = 90.0
"""A keeper that is just being moved to another node is waited for this long."""

RECEIVE: Final = """
import json, os, sys
root, wanted = sys.argv[1], json.loads(sys.stdin.buffer.readline())
folder = os.path.join(root, "incoming")
try:
    os.makedirs(folder, exist_ok=True)
    have = {}
    for name, size in wanted:
        path = os.path.join(folder, name)
        have[name] = os.path.getsize(path) if os.path.exists(path) else 0
        if have[name] > size:
            os.unlink(path)
            have[name] = 0
    print(json.dumps(have), flush=True)
    for name, size in wanted:
        with open(os.path.join(folder, name), "ab") as stream:
            left = size - have[name]
            while left:
                part = sys.stdin.buffer.read1(min(left, 1 << 20))
                if not part:
                    sys.exit(4)
                stream.write(part)
                left -= len(part)
except OSError as error:
    print(json.dumps({"errno": error.errno, "message": str(error)}), flush=True)
    sys.exit(3)
"""
"""Takes files from standard input; it says first how much it has of each, and goes on there."""


class KeeperPlace:
    """The disk of one target. Where nothing was installed yet, it reads as a target without anything.

    ``pods`` are the keeper's, None where there is no keeper. ``secrets`` takes files of the proxy that hold secrets, by
    path and text: they do not go to the disk. ``proxies`` are the control addresses of the proxies that run.
    """

    def __init__(
        self,
        cluster: Cluster,
        title: str,
        pods: Callable[[], Sequence[PodState] | None],
        proxies: Callable[[], list[str]],
        secrets: Callable[[str, str], None],
    ) -> None:
        self.title = title
        self.notes: list[str] = []
        """What the journal's next event says besides, such as that Helm was healed."""
        self.token: str | None = None
        """Whose lock this process holds, as far as it went through here."""
        self.rollout: str | None = None
        self._cluster = cluster
        self._pods = pods
        self._proxies = proxies
        self._secrets = secrets
        self._named: bool | None = None
        self._session: Session | None = None
        self._alone = threading.Lock()

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        given = dict(arguments or {})
        if operation in READS and self._pods() is None:
            return _nothing_there(operation, given)
        if operation == "write_file" and str(given["path"]).startswith("proxy/") and given.get("mode") == 0o600:
            with remote("secret"):
                self._secrets(str(given["path"]), str(given["text"]))
            return None
        if operation == "append":
            self.rollout = str(given["event"].get("rollout"))
            if self.notes:
                given["event"] = {**given["event"], "notes": [*self.notes]}
        if operation == "arm":
            given["revert"] = [self._lasting(step) for step in given["revert"]]
        answer = self._ask(operation, given, timeout)
        if operation == "append":
            self.notes.clear()
        elif operation == "lock":
            self.token = str(given["token"])
        elif operation == "unlock" and given.get("token") == self.token:
            self.token = None
        return answer

    def _ask(self, operation: str, given: dict[str, Any], timeout: float) -> Any:
        def run(name: str, data: bytes) -> bytes:
            return self._agent(name, data, timeout)

        ends = time.monotonic() + 15
        while True:
            try:
                return call_agent(operation, given, run, self.title)
            except AgentRefused as refused:
                if refused.code != "proxy" or "control" not in given or time.monotonic() > ends:
                    raise
                # A proxy's pod went away between the look and the call.
                time.sleep(0.5)
                given["control"] = self._proxies()

    def _lasting(self, step: Mapping[str, Any]) -> dict[str, Any]:
        """A step of the dead-man timer, for a time when the proxies' pods may be others: by their Service's name, where
        the cluster resolves names."""
        found = dict(step)
        if found.get("op") == "weigh" and found.get("control") and self._resolves():
            found["control"] = [f"{self._control_name()}:9999"]
        return found

    def _control_name(self) -> str:
        pods = self._pods() or []
        return f"{pods[0].name.rsplit('-keeper-', 1)[0]}-proxy-control"

    def _resolves(self) -> bool:
        if self._named is None:
            look = f"import socket; socket.getaddrinfo('{self._control_name()}', 9999)"
            try:
                self._named = self._run(["python3", "-S", "-E", "-c", look], [], 10.0).code == 0
            except EnvironmentLacks:
                self._named = False
        return self._named

    def _agent(self, operation: str, data: bytes, timeout: float) -> bytes:
        """Ask the agent that serves in the pod. Where its connection was lost it is asked anew: all can be repeated."""
        line = b'["' + operation.encode() + b'", ' + data + b"]\n"
        with self._alone:
            for again in (True, False):
                if self._session is None:
                    self._session = self._serving()
                try:
                    return self._session.ask(line, timeout)
                except Ended as ended:
                    self.close()
                    if ended.code in (126, 127):
                        raise EnvironmentLacks(
                            "the keeper's image has no python3",
                            found=ended.said,
                            hint="name one that has it, such as Triton's own, by the chart's value `keeper.image`",
                        ) from None
                    if ended.code is not None and ended.code not in KILLED:
                        raise EnvironmentLacks(
                            f"{operation} in the keeper of {self.title} ended before it answered",
                            found=f"{ended.said} (exit code {ended.code})",
                            hint="run the command again: it looks at what is there, and goes on or undoes",
                        ) from None
                    if not again:
                        raise lost(ended.said) from None
                    time.sleep(0.5)
                except BaseException:
                    self.close()  # an answer that comes later must not be taken for another's
                    raise
        raise AssertionError("unreachable")

    def _serving(self) -> Session:
        try:
            return Session(self._cluster, self._keeper(), "keeper", [*AGENT, "serve"])
        except Refusal:
            # The pod went away between the look and the call.
            time.sleep(1.0)
            return Session(self._cluster, self._keeper(), "keeper", [*AGENT, "serve"])

    def close(self) -> None:
        """Let go of the connection."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def send(self, files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
        import websocket

        sizes = [(digest, source.stat().st_size) for digest, source in files.items()]
        with remote("send"):
            pod = self._keeper()
            query = [("command", word) for word in ("python3", "-S", "-E", "-B", "-c", RECEIVE, ROOT)]
            query += [("container", "keeper"), *((name, "true") for name in ("stdin", "stdout", "stderr"))]
            ws = self._cluster.websocket(self._cluster.path("pods", pod, part="exec"), query)
            try:
                ws.settimeout(120)
                ws.send(b"\0" + json.dumps(sizes).encode() + b"\n", opcode=websocket.ABNF.OPCODE_BINARY)
                answers = _answers(ws)
                have = next(answers)
                if "errno" not in have:
                    try:
                        for part in _contents(files, have, progress):
                            ws.send(b"\0" + part, opcode=websocket.ABNF.OPCODE_BINARY)
                    except (websocket.WebSocketException, OSError) as error:
                        have = next(answers, {"lost": str(error)})
                    else:
                        have = next(answers, {})
            except (websocket.WebSocketException, StopIteration) as error:
                raise lost(f"pod {pod}: {error or 'the transfer ended'}") from None
            finally:
                ws.close(timeout=1)
            if "errno" in have:
                full = int(have["errno"] or 0) in (28, 122)
                hint = "free some space there, or name a larger claim, then run it again: it goes on" if full else None
                raise EnvironmentLacks(f"the disk of {self.title} refuses", found=str(have["message"]), hint=hint)
            if "lost" in have or have.get("status") != "Success":
                raise lost(f"pod {pod}: {have.get('lost') or have.get('message') or 'the transfer ended'}")

    def _run(self, argv: Sequence[str], parts: Sequence[bytes], timeout: float) -> Ran:
        try:
            return execute(self._cluster, self._keeper(), "keeper", argv, parts, timeout)
        except Refusal:
            # The pod went away between the look and the call, which has done nothing.
            time.sleep(1.0)
            return execute(self._cluster, self._keeper(), "keeper", argv, parts, timeout)

    def _keeper(self) -> str:
        """The keeper's pod; one that is being moved is waited for.

        Raises:
            EnvironmentLacks: it does not run.
        """
        ends = time.monotonic() + _MOVED_S
        while True:
            pods = self._pods()
            if pods is None:
                raise EnvironmentLacks(f"there is no keeper at {self.title}", hint="`tritonforge deploy` installs it")
            for pod in pods:
                if pod.ready:
                    return pod.name
            if any(pod.hopeless for pod in pods) or time.monotonic() > ends:
                raise EnvironmentLacks(
                    f"the keeper of {self.title} does not run",
                    found=slot_words(pods),
                    hint="the chart's values `keeper.*` say what it runs in; `tritonforge deploy` installs them",
                )
            time.sleep(0.5)


def _answers(ws: Any) -> Iterator[dict[str, Any]]:
    """What the receiving program says, a line each, and last how it ended."""
    import websocket

    rest = b""
    while True:
        try:
            opcode, frame = ws.recv_data_frame(True)
        except (websocket.WebSocketException, OSError):
            return
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        if opcode != websocket.ABNF.OPCODE_BINARY or not frame.data:
            continue
        stream, data = frame.data[0], frame.data[1:]
        if stream == 3:
            yield json.loads(data)
            return
        if stream == 1:
            *lines, rest = (rest + data).split(b"\n")
            yield from (json.loads(line) for line in lines)


def _contents(files: Mapping[str, Path], have: Mapping[str, int], progress: Callable[[int], None]) -> Iterator[bytes]:
    for digest, source in files.items():
        try:
            with source.open("rb") as stream:
                stream.seek(have[digest])
                progress(have[digest])
                while part := stream.read(_BLOCK):
                    yield part
                    progress(len(part))
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise describe_os_error(error, "cannot read the release", source) from None


def _nothing_there(operation: str, given: Mapping[str, Any]) -> Any:
    """What the agent would say of an empty folder."""
    if operation == "read":
        return {"journal": [], "lock": None, "pending": None, "snapshots": {}, "watching": False, "hello": {"free": 0}}
    if operation == "missing":
        wanted: Mapping[str, int] = given["files"]
        return {"missing": sorted(wanted), "bytes": sum(wanted.values()), "free": 0}
    if operation == "read_files":
        return dict.fromkeys(given["paths"])
    return {"bad": ["snapshot.json"]} if operation == "intact" else None if operation == "read_file" else {}
