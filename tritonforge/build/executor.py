"""Where steps run: worker processes on this machine. Other executors offer the same calls."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from tritonforge.errors import CheckFailed, ForgeError, Interrupted, from_json

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a step, as plain data that can cross a process or a network."""

    node: str
    step: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    sources: Mapping[str, Mapping[str, Any]]
    key: str
    store: str
    log: str
    cores: int = 1
    timeout_s: int = 3600
    tools: Mapping[str, str] = field(default_factory=dict)
    facets: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            name: value if isinstance(value, str | int) else dict(value)
            for name in self.__slots__
            for value in [getattr(self, name)]
        }


_FRAMEWORKS: Final = ("torch", "tensorflow")
"""What takes seconds to import: a worker that has it loaded is worth waiting for."""


def framework_of(tools: Iterable[str]) -> str | None:
    """The framework among the tools of a step."""
    return next((name for name in _FRAMEWORKS if name in tools), None)


_USUAL: Final = {".onnx": ("onnx", "onnxruntime")}
"""What the steps of a file with this ending import, as a rule."""

_LONGEST_POLL_S: Final = 2_000_000
"""23 days; poll(2) takes little more."""


class Executor(Protocol):
    """Runs tasks; the future gives the artifact's digest or raises a ForgeError."""

    def warm(self, framework: str) -> bool:
        """Whether an idle worker has the framework loaded."""

    def submit(self, task: Task, begun: Callable[[], None] = lambda: None) -> Future[str]:
        """Start a task, or have it wait until a worker is free; ``begun`` is called in another thread as it begins."""

    def stop(self) -> None:
        """End everything at once: what was running is lost, what was stored stays."""

    def close(self) -> None:
        """End the workers once nothing runs."""


class LocalExecutor:
    """Persistent worker processes, started when first needed, at most ``workers`` at once.

    As a context it ends them with the block: at once where an error leaves it.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []
        self._guard = threading.Lock()
        self._stopped = False

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.stop()

    def expect(self, path: Path) -> None:
        """Start a worker for the steps that a new file will need, if it is of a kind that says what they import.

        A worker is then ready when the digests of a large source are. Where it cannot be started, nothing happens.
        """
        usual = _USUAL.get(path.suffix)
        with self._guard, suppress(OSError):
            if usual is not None and not self._stopped and len(self._all) < self._workers:
                self._idle.append(self._start(usual))

    def submit(self, task: Task, begun: Callable[[], None] = lambda: None) -> Future[str]:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="worker")
        return self._threads.submit(self._run, task, begun)

    def warm(self, framework: str) -> bool:
        with self._guard:
            return any(framework in worker.loaded for worker in self._idle)

    def stop(self) -> None:
        with self._guard:
            self._stopped = True
            for worker in self._all:
                worker.kill()
        self.close()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=self._stopped)
        for worker in self._all:
            worker.kill()  # it is idle, or still importing: what it made is in the store
            worker.reap()
        self._all.clear()
        self._idle.clear()

    def _worker(self, task: Task) -> _Worker:
        """An idle worker, best one that has imported what the task needs, and nothing that takes long else; a new one
        where none is idle, or the idle ones have other things to import first."""
        framework, needs = framework_of(task.tools), set(task.tools)
        with self._guard:
            if self._stopped:
                raise Interrupted("the build was stopped")
            self._idle = [worker for worker in self._idle if worker.process.poll() is None]

            def rank(worker: _Worker) -> int:
                if framework is not None and framework in worker.loaded:
                    return 0
                if worker.unused and not needs & set(worker.imports):
                    return 4
                return 3 if worker.loaded else 2 if framework is not None else 1

            best = min(self._idle, key=rank, default=None)
            alive = sum(worker.process.poll() is None for worker in self._all)
            if best is None or (rank(best) == 4 and alive < self._workers):
                best = self._start()
            else:
                self._idle.remove(best)
            best.unused = False
            return best

    def _start(self, imports: tuple[str, ...] = ()) -> _Worker:
        """A new worker, which imports something before its first task; the guard is held."""
        # Threads inside a step would compete with the other workers: a step's cores are the scheduler's to give.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tritonforge.build.worker", str(os.getpid()), *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environment,
        )
        worker = _Worker(process, imports)
        self._all.append(worker)
        return worker

    def _run(self, task: Task, begun: Callable[[], None]) -> str:
        begun()
        worker = self._worker(task)
        try:
            line = worker.ask(json.dumps(task.to_json()).encode() + b"\n", task.timeout_s)
        except TimeoutError:
            worker.kill()
            worker.process.wait()
            raise CheckFailed(
                f"{task.node} took longer than {task.timeout_s} s and was ended",
                details=[*_tail(Path(task.log)), f"log: {task.log}"],
                hint="give this model more time with `timeout_s:`, where it really needs it",
            ) from None
        if not line:
            raise self._death(worker, task)
        with self._guard:
            framework = framework_of(task.tools)
            if framework is not None:
                worker.loaded.add(framework)
            self._idle.append(worker)
        answer = json.loads(line)
        if "error" in answer:
            error = from_json(answer["error"])
            error.details = (*error.details, f"log: {task.log}")
            raise error
        return str(answer["artifact"])

    def _death(self, worker: _Worker, task: Task) -> ForgeError:
        code = worker.process.wait()
        if self._stopped:
            return Interrupted("the build was stopped")
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = None
        if code == -signal.SIGKILL:
            hint = "memory may have run out: raise this model's `memory_mb:`, so that fewer steps run beside it"
        tail = _tail(Path(task.log))
        return CheckFailed(f"the worker of {task.node} died", found=why, details=[*tail, f"log: {task.log}"], hint=hint)


@dataclass(slots=True)
class _Worker:
    """A worker process: what it imports before its first task, and the frameworks that its tasks have loaded."""

    process: subprocess.Popen[bytes]
    imports: tuple[str, ...] = ()
    unused: bool = True
    loaded: set[str] = field(default_factory=set)

    def ask(self, line: bytes, timeout_s: float) -> bytes:
        """Its answer to a line; nothing where it ended instead.

        Raises:
            TimeoutError: there was none within so many seconds.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        deadline = time.monotonic() + timeout_s
        os.set_blocking(stdin.fileno(), False)
        answer = bytearray()
        with suppress(BrokenPipeError):
            while line:
                _wait_for(stdin, select.POLLOUT, deadline)
                line = line[os.write(stdin.fileno(), line) :]
            while not answer.endswith(b"\n"):
                _wait_for(stdout, select.POLLIN, deadline)
                piece = os.read(stdout.fileno(), 1 << 16)
                if not piece:
                    return b""
                answer += piece
        return bytes(answer)

    def kill(self) -> None:
        """End it and what it started, if it has not ended."""
        if self.process.returncode is None:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for its end."""
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _wait_for(stream: IO[bytes], event: int, deadline: float) -> None:
    """Wait until a pipe can be written to or read from, or its other end was closed.

    Raises:
        TimeoutError: that was not until the deadline (of the monotonic clock).
    """
    poll = select.poll()
    poll.register(stream, event)
    left = min(max(0.0, deadline - time.monotonic()), _LONGEST_POLL_S)
    if not poll.poll(left * 1000):
        raise TimeoutError


def _tail(log: Path, lines: int = 5) -> list[str]:
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return []
