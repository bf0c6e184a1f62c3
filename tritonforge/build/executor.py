"""Where steps run: worker processes on this machine. Other executors offer the same three calls."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
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
"""What the steps of a file with this ending import, all of them."""

_LONGEST_POLL_MS: Final = 2**31 - 1
"""24 days; poll(2) takes no more."""


class Executor(Protocol):
    """Runs tasks; the future gives the artifact's digest or raises a ForgeError."""

    def warm(self, framework: str) -> bool:
        """Whether an idle worker has the framework loaded."""

    def submit(self, task: Task) -> Future[str]:
        """Start a task."""

    def stop(self) -> None:
        """End everything at once: what was running is lost, what was stored stays."""

    def close(self) -> None:
        """End the workers when nothing runs."""


class LocalExecutor:
    """Persistent worker processes, started when first needed, at most ``workers`` at once.

    As a context it ends them with the block: at once where an error leaves it.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[subprocess.Popen[str]] = []
        self._unused: set[subprocess.Popen[str]] = set()
        self._loaded: dict[int, set[str]] = {}
        self._all: set[subprocess.Popen[str]] = set()
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

        A worker is then ready when the digests of a large source are.
        """
        usual = _USUAL.get(path.suffix)
        with self._guard:
            if usual is None or self._stopped or len(self._all) >= self._workers:
                return
            worker = self._start(usual)
            self._unused.add(worker)
            self._idle.append(worker)

    def submit(self, task: Task) -> Future[str]:
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="worker")
        return self._threads.submit(self._run, task)

    def warm(self, framework: str) -> bool:
        with self._guard:
            return any(framework in self._loaded.get(worker.pid, ()) for worker in self._idle)

    def stop(self) -> None:
        with self._guard:
            self._stopped = True
            self._kill_all()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._reap()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True)
        for worker in self._unused:
            _kill(worker)  # it may still be importing, and has nothing to lose
        for worker in self._all:
            if worker.stdin is not None:
                with suppress(OSError):
                    worker.stdin.close()
        self._reap()

    def _kill_all(self) -> None:
        for worker in list(self._all):
            _kill(worker)

    def _reap(self) -> None:
        """Wait until all workers have ended; those that do not by themselves are killed."""
        late = threading.Timer(5, self._kill_all)
        late.start()
        for worker in self._all:
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
        late.cancel()
        self._all.clear()
        self._unused.clear()

    def _worker(self, framework: str | None) -> subprocess.Popen[str]:
        """An idle worker, best one that has the framework loaded already; a new one where none is idle."""
        with self._guard:
            self._idle = [worker for worker in self._idle if worker.poll() is None]
            warm = [worker for worker in self._idle if framework in self._loaded.get(worker.pid, ())]
            plain = [worker for worker in self._idle if framework is None and not self._loaded.get(worker.pid)]
            for worker in [*warm, *plain, *self._idle]:
                self._idle.remove(worker)
                self._unused.discard(worker)
                return worker
        with self._guard:
            if self._stopped:
                raise Interrupted("the build was stopped")
            return self._start()

    def _start(self, imports: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """A new worker, which imports something before its first task; the guard is held."""
        # Threads inside a step would compete with the other workers: a step's cores are the scheduler's to give.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "tritonforge.build.worker", str(os.getpid()), *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
        self._all.add(worker)
        return worker

    def _run(self, task: Task) -> str:
        framework = framework_of(task.tools)
        worker = self._worker(framework)
        assert worker.stdin is not None and worker.stdout is not None
        line = ""
        with suppress(OSError, ValueError):
            worker.stdin.write(json.dumps(task.to_json()) + "\n")
            worker.stdin.flush()
            if not _answers(worker.stdout, task.timeout_s):
                _kill(worker)
                worker.wait()
                raise CheckFailed(
                    f"{task.node} took longer than {task.timeout_s} s and was ended",
                    details=[*_tail(Path(task.log)), f"log: {task.log}"],
                    hint="give this model more time with `timeout_s:`, where it really needs it",
                )
            line = worker.stdout.readline()
        if not line:
            raise self._death(worker, task)
        with self._guard:
            if framework is not None:
                self._loaded.setdefault(worker.pid, set()).add(framework)
            self._idle.append(worker)
        answer = json.loads(line)
        if "error" in answer:
            error = from_json(answer["error"])
            error.details = (*error.details, f"log: {task.log}")
            raise error
        return str(answer["artifact"])

    def _death(self, worker: subprocess.Popen[str], task: Task) -> ForgeError:
        code = worker.wait()
        if self._stopped:
            return Interrupted("the build was stopped")
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = None
        if code == -signal.SIGKILL:
            hint = "memory may have run out: raise this model's `memory_mb:`, so that fewer steps run beside it"
        tail = _tail(Path(task.log))
        return CheckFailed(f"the worker of {task.node} died", found=why, details=[*tail, f"log: {task.log}"], hint=hint)


def _answers(stream: IO[str], timeout_s: float) -> bool:
    """Whether a worker says something, or ends, within so many seconds."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(min(timeout_s * 1000, _LONGEST_POLL_MS)))


def _kill(worker: subprocess.Popen[str]) -> None:
    """End a worker and what it started, if it has not ended."""
    if worker.returncode is None:
        with suppress(OSError):
            os.killpg(worker.pid, signal.SIGKILL)


def _tail(log: Path, lines: int = 5) -> list[str]:
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return []
