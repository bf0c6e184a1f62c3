"""Sending what a build made, in the background. It never fails a build.

What is to be sent is noted in ``unpushed/`` of the local store, from before its step runs until it arrived: the next
build goes on with it. A note whose step never ended stays for the build that runs it, or until ``cache gc``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.remote.link import WRITERS, Crew, Link, in_words
from tritonforge.artifact.remote.record import blob_path, record_path, write_record
from tritonforge.artifact.remote.transfer import send_blob
from tritonforge.artifact.store import LocalStore
from tritonforge.durable import fault_point, write_atomic
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError

_ANEW = b"anew"


class Writing:
    """``sent`` counts steps, ``sent_bytes`` what went over."""

    def __init__(self, link: Link, local: LocalStore) -> None:
        self.sent = 0
        self.sent_bytes = 0
        self._arrived = 0
        self._link = link
        self._local = local
        self._stopped = not link.settings.write
        self._crew = Crew("writer", WRITERS)
        self._left: dict[str, int] = {}
        self._guard = threading.Condition()
        link.when_left(self._wake)

    @property
    def left(self) -> int:
        """How many steps are still to be sent."""
        return len(self._left)

    def expect(self, key: str, *, anew: bool = False) -> None:
        """Note that what a step will make is to be sent: its worker may bind the key and this process never know."""
        if self._link.settings.write:
            with contextlib.suppress(OSError):  # without the note it is sent now or never
                write_atomic(self._note(key), _ANEW if anew else b"", before="remote.note.rename")

    def keep(self, key: str, *, anew: bool = False) -> None:
        """Send what the local store has under a key. ``anew`` replaces what is there."""
        if self._link.settings.write:
            self._enqueue(key, anew)

    def keep_leftovers(self) -> None:
        """Send what earlier builds could not."""
        folder = self._note("x").parent
        if self._link.settings.write and folder.is_dir():
            for note in sorted(folder.iterdir()):
                if not note.name.startswith(".") and self._local.is_bound(note.name):
                    with contextlib.suppress(OSError):
                        self._enqueue(note.name, note.read_bytes() == _ANEW)

    def finish(self, progress: Callable[[int, int], None]) -> None:
        """Wait until all is sent, as long as that goes on; ``progress`` is told how many steps and bytes are left."""
        while True:
            with self._guard:
                if not self._left or self._stopped or self._link.alone.is_set():
                    return
                self._guard.wait(0.1)
                left, size = len(self._left), sum(self._left.values())
            progress(left, size)
            patience = self._link.patience
            if not patience.sending(self.sent_bytes, self._arrived):
                self._link.leave(f"{patience.spent}: {left} steps stay to be sent by the next build")

    def stop(self) -> None:
        """Send nothing more."""
        with self._guard:
            self._stopped = True
            self._guard.notify_all()

    def _wake(self) -> None:
        with self._guard:
            self._guard.notify_all()

    def _note(self, key: str) -> Path:
        """The file that says that a key is to be sent, to this store."""
        return self._local.unpushed / digest_bytes(self._link.settings.name.encode())[:16] / key

    def _enqueue(self, key: str, anew: bool) -> None:
        record = self._local.lookup(key)
        artifact = None if record is None else self._local.manifest(record.artifact)
        size = 0 if artifact is None else sum(entry.size for entry in artifact.files.values())
        with self._guard:
            if key in self._left:
                return
            self._left[key] = size
            if self._stopped:
                return  # the next build sends it
        self._crew.do(lambda: self._send(key, anew))

    def _send(self, key: str, anew: bool) -> None:
        if self._stopped or self._link.alone.is_set():
            return
        done = False
        try:
            done = self._push(key, anew)
        except CheckFailed as error:  # one file here is damaged: the others are not
            self._link.say(f"{self._link.settings.name}: {in_words(error)}")
        except Exception as error:  # whatever it is, the build waits for an end of this
            self._give_up(error)
            return
        with contextlib.suppress(OSError):
            self._note(key).unlink(missing_ok=True)
        with self._guard:
            self._left.pop(key, None)
            self.sent += done
            self._guard.notify_all()

    def _push(self, key: str, anew: bool) -> bool:
        """Files first, then the record that names them: a reader never finds a record without its files."""
        record = self._local.record(key)
        artifact = None if record is None else self._local.manifest(record.artifact)
        if record is None or artifact is None:
            return False  # it was collected meanwhile
        if not all(self._local.blob(entry.sha256).exists() for entry in artifact.files.values()):
            return False  # as above; a file that is there and damaged is refused as it is sent
        objects, damaged = self._link.objects(), self._link.damaged
        anew = anew or bool(damaged & {record_path(key), *(blob_path(item.sha256) for item in artifact.files.values())})
        if not anew and objects.size(record_path(key)) is not None:
            return False  # the first writer wins

        def moved(count: int) -> None:
            if self._stopped:
                raise EnvironmentLacks("the build was stopped")
            with self._guard:
                self.sent_bytes += count

        for entry in {entry.sha256: entry for entry in artifact.files.values()}.values():
            replace = blob_path(entry.sha256) in damaged
            send_blob(objects, self._local.blob(entry.sha256), entry, moved, replace=replace)
            self._count_arrival()
        fault_point("remote.record.write")
        objects.write(record_path(key), write_record(key, record, artifact, self._link.settings.signing_key))
        fault_point("remote.record.written")
        self._count_arrival()
        return True

    def _count_arrival(self) -> None:
        with self._guard:
            self._arrived += 1

    def _give_up(self, error: Exception) -> None:
        """Who may not write may still read; a store that cannot be reached is left alone."""
        stays = "what is built here stays to be sent by the next build"  # how much, is known in the end
        with self._guard:
            first, self._stopped = not self._stopped, True
            self._guard.notify_all()
        if isinstance(error, ForgeError) and not isinstance(error.__cause__, PermissionError):
            if first:
                self._link.leave(f"{in_words(error)}: {stays}")
        elif first:
            why = in_words(error) if isinstance(error, ForgeError) else f"it cannot be sent: {error}"
            self._link.say(f"{self._link.settings.name}: {why}: {stays}")
