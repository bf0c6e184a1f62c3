"""Read what a Triton server's log says went wrong."""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w.\-/]+:\d+\] ?(.*)$")
_GRPC_HEAD: Final = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ +[\w.\-/]+:\d+\] ")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "0": "\0"}
_FAILURES: Final = (
    re.compile(r"^failed to load '(?P<model>.+?)' version (?P<version>-?\d+): (?P<reason>.*)$", re.DOTALL),
    re.compile(r"^Poll failed for model directory '(?P<model>.+?)': (?P<reason>.*)$", re.DOTALL),
    re.compile(r"^Invalid argument: (?P<reason>ensemble '(?P<model>.+?)' .*)$", re.DOTALL),
    re.compile(r"^(?:Invalid argument: )?(?P<reason>.*\bensemble '(?P<model>.+?)'.*)$", re.DOTALL),
    re.compile(r"^(?P<reason>(?:unexpected|missing|model)\b.*\bmodel '(?P<model>.+?)'.*)$", re.DOTALL),
)
_PARSE: Final = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (Error parsing text-format .*)$", re.MULTILINE)
_BUSY: Final = re.compile(r"Socket '[^']*?:(\d+)' already in use")
_NO_BACKEND: Final = re.compile(r"unable to find (?:backend library for )?backend '(?P<name>[^']+)'")
_FATAL: Final = re.compile(r"^(?:error: |(?=\S*tritonserver: ))(.*)$", re.MULTILINE)


def messages(text: str) -> list[tuple[str, str]]:
    """The log's records as (severity letter, message), escapes undone and continued lines joined."""
    found: list[tuple[str, str]] = []
    open_record = False
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None:
            message = head.group(2)
            quoted = len(message) >= 2 and message.startswith('"') and message.endswith('"')
            found.append((head.group(1), _unescape(message[1:-1]) if quoted else message))
            # A quoted record is whole; releases before 24.04 write the text as it is, over several lines.
            open_record = not quoted
        elif _GRPC_HEAD.match(line):
            open_record = False
        elif open_record and found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line}")
    return found


def load_failures(text: str) -> dict[str, str]:
    """Models that failed to load or to be read, each with the whole reason, the last one said.

    A Python exception's text and place are in it. For a ``config.pbtxt`` that cannot be parsed, the parser's line
    (which stands in the log before the failure) is added.
    """
    failures: dict[str, str] = {}
    parser = _PARSE.findall(text)
    for severity, message in messages(text):
        if severity != "E":
            continue
        for pattern in _FAILURES:
            match = pattern.match(message)
            if match is None:
                continue
            reason = match.group("reason").strip()
            if "failed to read text proto" in reason and parser:
                reason = f"{reason}: {parser.pop(0).strip()}"
            if pattern in _FAILURES[:2] or match.group("model") not in failures:
                failures[match.group("model")] = reason
            break
    return failures


def missing_backends(text: str) -> list[str]:
    """The backends that models asked for and the server has not."""
    return sorted({match.group("name") for match in _NO_BACKEND.finditer(text)})


def busy_port(text: str) -> int | None:
    """The port that the server could not bind."""
    match = _BUSY.search(text)
    return None if match is None else int(match.group(1))


def last_errors(text: str, count: int = 5) -> list[str]:
    """The last things that the server called errors, for a server that ended without naming a model."""
    noise = ("CudaDriverHelper has not been initialized", "failed to load all models", "DCGM")
    found = [message for severity, message in messages(text) if severity in "EF"]
    found += [match.strip() for match in _FATAL.findall(text)]
    found = [message for message in found if not any(word in message for word in noise)]
    if not found:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    return found[-count:]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(0)), text)
