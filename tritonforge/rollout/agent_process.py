"""The agent on this machine: a program that stays for a command's operations, because starting one takes longer."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
import weakref
from pathlib import Path

from tritonforge.errors import EnvironmentLacks, InternalError
from tritonforge.rollout.agent import AGENT


class AgentProcesses:
    """The agents of one folder: operations that overlap have one each, others take turns with the same one.

    They end with this object, with this process, and when it is killed: their standard input ends then.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._idle: list[_AgentProcess] = []

    def ask(self, operation: str, arguments: bytes, timeout: float) -> bytes:
        """The agent's answer to an operation with ``arguments`` in JSON: a line of JSON.

        Raises:
            EnvironmentLacks: it took longer than ``timeout`` seconds, or the folder cannot be used.
            InternalError: the agent failed.
        """
        try:
            process = self._idle.pop()
        except IndexError:
            process = _AgentProcess(self._root)
        else:
            if not process.alive:  # nothing was asked of it yet, so another one can do it
                process = _AgentProcess(self._root)
        answer = process.ask(operation, arguments, timeout)
        self._idle.append(process)
        return answer


class _AgentProcess:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(AGENT), "--root", str(root), "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._end = weakref.finalize(self, _end, self._process)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, operation: str, arguments: bytes, timeout: float) -> bytes:
        try:
            try:
                self._write(b"[%s, %s]\n" % (json.dumps(operation).encode(), arguments))
                answer = self._line(time.monotonic() + timeout)
            except TimeoutError:
                raise EnvironmentLacks(f"{operation} in {self._root} took longer than {timeout:g} s") from None
            if answer is None:
                raise self._failure(operation)
        except BaseException:
            self._process.kill()  # its answer may still come, and would be taken for that of the next operation
            self._end()
            raise
        return answer

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        left = memoryview(data)
        try:
            while left:
                left = left[self._process.stdin.write(left) :]
        except BrokenPipeError:
            return  # it has ended: the lack of an answer says it

    def _line(self, ends: float) -> bytes | None:
        """What it writes up to the end of a line; None where it ends without."""
        assert self._process.stdout is not None
        found = bytearray()
        while not found.endswith(b"\n"):
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError
            part = self._process.stdout.read(1 << 20)
            if not part:
                return None
            found += part
        return bytes(found)

    def _failure(self, operation: str) -> EnvironmentLacks | InternalError:
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        if said and "Errno" in said[0]:
            return EnvironmentLacks(f"cannot use {self._root}", found=said[0].partition("] ")[2] or said[0])
        return InternalError(f"the agent failed at {operation}", details=said)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    process.wait()
