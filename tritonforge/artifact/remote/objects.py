"""Objects in a store behind a network, through fsspec. Nothing here waits longer than its time without a sign of life.

Writes are whole or absent: an object store shows an object when all of it is there; in a folder (``file://``) it is
written beside and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from tritonforge.artifact.remote.address import PACKAGES, Address
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, Place, UsageError

PIECE: Final = 1 << 20
"""Bytes that are asked for at first; as many more as come quickly."""
LARGEST_PIECE: Final = 16 << 20
PART: Final = 5 << 20
"""Bytes that are sent at once: the least that S3 takes for a part."""
MAX_RECORD: Final = 64 << 20
"""Bytes of an object that is read whole."""

_Result = TypeVar("_Result")
Moved = Callable[[int], None]
"""Is told how many more bytes went over."""


class _GivenUp(Exception):
    """Nobody waits for this transfer any more."""


class Objects:
    """A place in a store. Paths are relative to it; every method may be called from any thread.

    Every method raises :class:`EnvironmentLacks` where the store cannot be reached, says nothing for ``timeout_s``
    seconds, or refuses (its cause is then a ``PermissionError``).
    """

    def __init__(self, address: Address, system: Any, timeout_s: float, secrets: Iterable[str] = ()) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._system = system
        self._secrets = tuple(secret for secret in secrets if secret)

    def _full(self, path: str) -> str:
        return f"{self.address.path}/{path}"

    def read(self, path: str) -> bytes | None:
        """An object, whole; None where there is none. What is longer than ``MAX_RECORD`` is cut there."""

        def work(alive: Callable[[], None]) -> bytes | None:
            try:
                return bytes(self._system.cat_file(self._full(path), start=0, end=MAX_RECORD))
            except FileNotFoundError as error:
                self._check_place(error)
                return None
            except OSError as error:
                if _code(error) == "InvalidRange":  # nothing in it: S3 has no range of that
                    return b""
                raise

        return self._bounded(f"read {path}", work)

    def size(self, path: str) -> int | None:
        """The size of an object in bytes; None where there is none."""

        def work(alive: Callable[[], None]) -> int | None:
            try:
                return int(self._system.info(self._full(path))["size"])
            except FileNotFoundError:
                return None

        return self._bounded(f"look at {path}", work)

    def download(self, path: str, size: int, sink: Callable[[bytes], object], *, start: int = 0) -> int | None:
        """Give the bytes from ``start`` to ``size`` to ``sink`` in pieces; None where there is no such object.

        At most ``size`` bytes and one more are asked for; the result is how many there were from ``start`` on.
        """

        def work(alive: Callable[[], None]) -> int | None:
            at, step = start, PIECE
            while at <= size:
                since = time.monotonic()
                try:
                    # One byte more than there should be: a longer object is another one.
                    piece = bytes(self._system.cat_file(self._full(path), start=at, end=min(at + step, size + 1)))
                except FileNotFoundError:
                    return None
                except OSError as error:
                    if _code(error) == "InvalidRange":
                        break
                    raise
                alive()
                if not piece:
                    break
                sink(piece)
                at += len(piece)
                took = time.monotonic() - since
                step = min(step * 2, LARGEST_PIECE) if took < 0.25 else max(step // 2, PIECE >> 2) if took > 2 else step
                if at == size:
                    break
            return at - start

        return self._bounded(f"fetch {path}", work)

    def write(self, path: str, data: bytes) -> None:
        """Put an object there, whole."""

        def work(alive: Callable[[], None]) -> None:
            with self._staged(path) as target:
                self._system.pipe_file(target, data)

        self._bounded(f"write {path}", work)

    def send(self, path: str, file: Path, sha256: str, moved: Moved = lambda count: None) -> None:
        """Put a file's bytes there, whole.

        Raises:
            CheckFailed: they are not those of ``sha256``; nothing is there then that was not before.
        """

        def work(alive: Callable[[], None]) -> None:
            digest = hashlib.sha256()

            def pieces(size: int) -> Iterator[bytes]:
                with file.open("rb") as reader:
                    while piece := reader.read(size):
                        digest.update(piece)
                        yield piece
                        alive()
                        moved(len(piece))
                if digest.hexdigest() != sha256:
                    raise CheckFailed(
                        "a file is damaged here, and is not sent",
                        place=Place(file),
                        expected=sha256,
                        found=digest.hexdigest(),
                        hint="`tritonforge build --force` makes it anew",
                    )

            if self.address.protocol == "file":
                with self._staged(path) as target, Path(target).open("xb") as writer:
                    writer.writelines(pieces(PART))
                    writer.flush()
                    os.fsync(writer.fileno())
            else:
                # S3 takes at most 10,000 parts.
                self._upload(path, pieces, max(PART, file.stat().st_size // 9_000 + 1))

        self._bounded(f"send {path}", work)

    def _upload(self, path: str, pieces: Callable[[int], Iterator[bytes]], size: int) -> None:
        """In parts, so that each is a sign of life; the object is there when the last one is confirmed."""
        writer = self._system.open(self._full(path), "wb", block_size=size)
        try:
            for piece in pieces(size):
                writer.write(piece)
            writer.close()
        except BaseException:
            with contextlib.suppress(Exception):
                writer.discard()
            writer.closed = True  # closing it would make an object of the part that is there
            raise

    def names(self, folder: str) -> list[str]:
        """The names of what is in a folder."""

        def work(alive: Callable[[], None]) -> list[str]:
            try:
                found = self._system.ls(self._full(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted({str(name).rstrip("/").rsplit("/", 1)[-1] for name in found})

        return self._bounded(f"list {folder}", work)

    @contextlib.contextmanager
    def _staged(self, path: str) -> Any:
        """Where to write an object: straight to its place where the store itself shows only whole ones."""
        full = self._full(path)
        if self.address.protocol != "file":
            yield full
            return
        target = Path(full)
        Path(self.address.path).stat()  # a share that is not mounted is not written beside
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name[:80]}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            yield str(staged)
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)

    def _check_place(self, error: OSError) -> None:
        """Tell an object that is absent from a bucket or folder that is."""
        if _code(error) == "NoSuchBucket":
            raise error
        if self.address.protocol == "file" and not Path(self.address.path).is_dir():
            raise FileNotFoundError(2, "the folder does not exist", self.address.path) from error

    def _bounded(self, what: str, work: Callable[[Callable[[], None]], _Result]) -> _Result:
        """What ``work`` gives, unless it shows no sign of life for too long: then it is left behind."""
        done, last = threading.Event(), [time.monotonic()]
        given_up = False
        result: list[_Result] = []
        failure: list[BaseException] = []

        def alive() -> None:
            if given_up:
                raise _GivenUp
            last[0] = time.monotonic()

        def run() -> None:
            try:
                result.append(work(alive))
            except BaseException as error:
                failure.append(error)
            finally:
                done.set()

        threading.Thread(target=run, name="remote", daemon=True).start()
        try:
            while not done.wait(max(0.0, last[0] + self.timeout_s - time.monotonic())):
                if time.monotonic() - last[0] >= self.timeout_s:
                    raise EnvironmentLacks(
                        f"{self.address} did not answer within {self.timeout_s:g} s",
                        found=what,
                        hint="`timeout_s` says how long to wait for it",
                    )
        finally:
            given_up = True
        if failure:
            raise self._described(failure[0], what) from failure[0]
        return result[0]

    def _described(self, error: BaseException, what: str) -> ForgeError:
        """What went wrong, in words that hold no secret."""
        if isinstance(error, ForgeError):
            return error
        hint = None
        if isinstance(error, PermissionError):
            message = f"{self.address} refuses to {what.split(' ', 1)[0]}"
            hint = "check the credentials and their rights (on S3, a reader needs s3:GetObject and s3:ListBucket)"
        elif isinstance(error, FileNotFoundError):
            message = f"{self.address} does not exist"
            hint = "make the bucket or the folder first, or mount the share"
        elif _without_credentials(error):
            message = f"there are no credentials for {self.address}"
            hint = "set them by the usual means of the object store, or by reference in `store.options`"
        else:
            message = f"{self.address} cannot be used"
        return EnvironmentLacks(message, found=f"{what}: {type(error).__name__}: {self._plain(str(error))}", hint=hint)

    def _plain(self, text: str) -> str:
        text = " ".join(text.split())
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return re.sub(r"\?\S*", "?…", text)[:300]


def open_objects(
    address: Address, *, timeout_s: float, options: Mapping[str, Any] | None = None, secrets: Iterable[str] = ()
) -> Objects:
    """Connect to nothing yet: load what talks to the store. ``options`` are those of its fsspec file system.

    Raises:
        EnvironmentLacks: a package is absent.
        UsageError: the options are not those of this store.
    """
    try:
        import fsspec
    except ImportError:
        raise _absent("fsspec", "tritonforge[remote]") from None
    try:
        system = fsspec.filesystem(address.protocol, **_options(address, options or {}, timeout_s))
    except ImportError:
        raise _absent(*PACKAGES[address.protocol]) from None
    except (TypeError, ValueError) as error:
        shown = type(error).__name__ if any(secret in str(error) for secret in secrets if secret) else str(error)
        raise UsageError("the options of the remote store are not taken", found=shown[:300]) from None
    if address.protocol == "s3":
        system.retries = 2
    return Objects(address, system, timeout_s, secrets)


def _options(address: Address, given: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """The options of a file system that nobody else uses, and that remembers nothing."""
    made = {**given, "skip_instance_cache": True, "use_listings_cache": False}
    if address.protocol == "s3":
        # The library's own patience, where the store is used without a build's.
        own = {"connect_timeout": timeout_s, "read_timeout": timeout_s, "retries": {"max_attempts": 2}}
        made["config_kwargs"] = {**own, **given.get("config_kwargs", {})}
    if address.protocol == "file":
        made["auto_mkdir"] = False
    return made


def _absent(name: str, package: str) -> EnvironmentLacks:
    return EnvironmentLacks(f"the package {name} is not installed", hint=f"pip install '{package}'")


def _code(error: BaseException) -> str | None:
    """The code of an S3 error, which s3fs keeps as the cause."""
    response = getattr(error.__cause__, "response", None)
    return None if not isinstance(response, dict) else response.get("Error", {}).get("Code")


def _without_credentials(error: BaseException) -> bool:
    return "credential" in type(error).__name__.lower()
