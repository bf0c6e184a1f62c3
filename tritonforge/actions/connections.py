"""A connection of the spec, or a URL, as the addresses and credentials to use: secrets are fetched only here."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tritonforge.errors import EnvironmentLacks, Place, UsageError, did_you_mean
from tritonforge.spec.connection import ConnectionSpec, SecretRef, TlsSettings
from tritonforge.triton.connection import Connection, Tls

if TYPE_CHECKING:
    from tritonforge.actions.workspace import Workspace

COMMAND_S: Final = 30.0
"""Seconds that the command of a secret may take."""

_LARGEST: Final = 64 << 10
"""Bytes of a secret: a chain of certificates with its key is far below."""


def connection_for(workspace: Workspace | None, name: str) -> Connection:
    """A connection of the spec by its name, or a URL.

    Raises:
        UsageError: it is neither.
        EnvironmentLacks: a secret or a file of it cannot be had.
    """
    if "://" in name:
        return Connection.from_url(name)
    profiles = {} if workspace is None else workspace.loaded.spec.connections
    if name not in profiles:
        raise UsageError(
            f"there is no connection '{name}' in the spec",
            expected="one of its `connections:`, http://HOST:PORT or grpc://HOST:PORT",
            hint=did_you_mean(name, profiles),
        )
    assert workspace is not None
    return _connection(workspace, name, profiles[name])


def _connection(workspace: Workspace, name: str, profile: ConnectionSpec) -> Connection:
    folder = workspace.loaded.folder

    def place(*path: str) -> Place:
        return workspace.loaded.place("connections", name, *path)

    headers = {
        key: value if isinstance(value, str) else _line(secret_value(value, place("headers", key), folder), place(key))
        for key, value in profile.headers.items()
    }
    if profile.token is not None:
        token = _line(secret_value(profile.token, place("token"), folder), place("token"))
        if re.search(r"\s", token):
            raise EnvironmentLacks(
                "a token has white space in it", place=place("token"), hint="give the token alone, without `Bearer`"
            )
        headers["authorization"] = f"Bearer {token}"
    tls = None
    if profile.tls:
        tls = _tls(profile.tls if isinstance(profile.tls, TlsSettings) else TlsSettings(), place("tls"), folder)
    return Connection(http=profile.http, grpc=profile.grpc, metrics=profile.metrics, headers=headers, tls=tls)


def _tls(given: TlsSettings, place: Place, folder: Path) -> Tls:
    def file(path: str | None, what: str) -> Path | None:
        if path is None:
            return None
        found = folder / Path(path).expanduser()
        try:
            with found.open("rb"):
                return found
        except OSError as error:
            raise EnvironmentLacks(f"cannot read {what}: {error.strerror}", place=place, found=str(found)) from None

    key = None
    if isinstance(given.key, SecretRef):
        key = (
            file(given.key.file, "the client's key")
            if given.key.file is not None
            else _in_memory(secret_value(given.key, place, folder))
        )
    else:
        key = file(given.key, "the client's key")
    return Tls(file(given.ca, "the certificate authorities"), file(given.cert, "the client's certificate"), key)


def _in_memory(text: str) -> Path:
    """A file without a place on any disk, which this process and those that it starts as this user can open.

    It lasts as long as this process: what reads it may do so at any later time.
    """
    number = os.memfd_create("tritonforge-key", os.MFD_CLOEXEC)
    data = (text + "\n").encode()
    while data:
        data = data[os.write(number, data) :]
    return Path(f"/proc/{os.getpid()}/fd/{number}")


def secret_value(reference: SecretRef, place: Place, folder: Path) -> str:
    """The value behind a reference, its file relative to the spec's ``folder``; no message ever shows it.

    Raises:
        EnvironmentLacks: it is missing, empty, too large or no text; its command fails, hangs or prints nothing.
    """
    if reference.env is not None:
        value = os.environ.get(reference.env)
        if value is None:
            raise EnvironmentLacks(f"the environment variable {reference.env} is not set", place=place)
        what = f"the environment variable {reference.env}"
        text = value.strip()
    elif reference.file is not None:
        what = f"the file {reference.file}"
        try:
            with (folder / Path(reference.file).expanduser()).open("rb") as stream:
                text = _text(stream.read(_LARGEST + 1), what, place)
        except OSError as error:
            raise EnvironmentLacks(
                f"cannot read a secret: {error.strerror}", place=place, found=reference.file
            ) from None
    else:
        assert reference.command is not None
        what = f"the command {reference.command[0]}"
        text = _text(_output(reference.command, place, folder), what, place)
    if not text:
        raise EnvironmentLacks("a secret is empty", place=place, found=what)
    return text


def _text(data: bytes, what: str, place: Place) -> str:
    if len(data) > _LARGEST:
        raise EnvironmentLacks(f"a secret is larger than {_LARGEST >> 10} KiB", place=place, found=what)
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        pass  # the error would carry the bytes along
    raise EnvironmentLacks("a secret is not UTF-8 text", place=place, found=what)


def _output(command: list[str], place: Place, folder: Path) -> bytes:
    """What a command prints; what it says on standard error is nobody's: it may hold the secret as well."""
    name = command[0]
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        found = f"{name}: {why}"
        raise EnvironmentLacks("the command of a secret cannot be started", place=place, found=found) from None
    assert child.stdout is not None
    deadline = time.monotonic() + COMMAND_S
    try:
        data = _bounded(child.stdout.fileno(), deadline)
        if len(data) <= _LARGEST:
            child.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise EnvironmentLacks(
            "the command of a secret did not end",
            place=place,
            expected=f"its output within {COMMAND_S:g} s",
            found=name,
            hint="it gets no input: a command that asks for a password cannot be used",
        ) from None
    finally:
        if child.returncode is None:
            # Whatever it started holds the pipe as well.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()
    if len(data) > _LARGEST:
        return data
    if child.returncode != 0:
        raise EnvironmentLacks(
            "the command of a secret failed",
            place=place,
            found=f"{name}: exit code {child.returncode}",
            hint="run it by hand in the spec's folder to see why: what it says is not shown here",
        )
    return data


def _bounded(number: int, deadline: float) -> bytes:
    """What comes from a pipe until it ends, or until it is more than any secret.

    Raises:
        TimeoutError: it does not end in time.
    """
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(number, selectors.EVENT_READ)
        while len(data) <= _LARGEST:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            piece = os.read(number, 1 << 16)
            if not piece:
                break
            data += piece
    return data


def _line(value: str, place: Place) -> str:
    """A secret that goes into a header: anything but one line of ASCII would be another header, or none.

    Raises:
        EnvironmentLacks: it is something else; its value is not shown.
    """
    if re.fullmatch(r"[\x20-\x7e]+", value) is None:
        raise EnvironmentLacks(
            "a secret cannot be sent in a header",
            place=place,
            expected="one line of printable ASCII",
            found="several lines" if "\n" in value or "\r" in value else "other characters",
        )
    return value
